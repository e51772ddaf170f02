//! The binary `tidegate-loadtest`: load for WebSocket servers, on Tidegate's own `wire` and `io`.
//!
//! ```text
//! Arguments ──► Plan ──► Director ── Command ──► Worker (one thread each) ──► Session
//!                           ▲  │                    │
//!                           └──┼────── Note ────────┘
//!                              ▼
//!                           Report ──► Table, JSON, Page
//! ```
//!
//! Standard output is the result (the table, or JSON), standard error is what happens meanwhile.
#![forbid(unsafe_code)]

mod arguments;
mod assertion;
mod compare;
mod director;
mod fanout;
mod fault;
mod limits;
mod link;
mod live;
mod machine;
mod output;
mod page;
mod part;
mod payload;
mod plan;
mod processes;
mod random;
mod relation;
mod report;
mod schedule;
mod sequence;
mod session;
mod signals;
mod spectrum;
mod switchboard;
mod table;
mod tally;
mod target;
mod terminal;
mod tone;
mod trace;
mod transport;
mod units;
mod visits;
mod worker;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use crate::{
    arguments::{Arguments, Job, NoPlan},
    director::{Director, Outcome},
    link::Failure,
    output::Sink,
    page::{About, Page},
    plan::Plan,
    report::Report,
    table::Table,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Good,
    /// It could not be run, or no session came up.
    Fault,
    Usage,
    /// An assertion does not hold.
    Refuted,
    /// By a signal; with the results so far.
    Interrupted(i32),
}

impl From<Verdict> for ExitCode {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Good => Self::SUCCESS,
            Verdict::Fault => Self::from(1),
            Verdict::Usage => Self::from(2),
            Verdict::Refuted => Self::from(99),
            // As a shell tells it; signals that are watched for are below 32.
            Verdict::Interrupted(signal) => Self::from(128 + signal as u8),
        }
    }
}

fn main() -> ExitCode {
    let verdict = match Arguments::read().job() {
        Ok(Job::Run(plan)) => run(*plan).unwrap_or_else(|failure| {
            complain(&failure.to_string());
            Verdict::Fault
        }),
        Ok(Job::Compare(comparison)) => compare::run(&comparison),
        Ok(Job::Bound(bound)) => {
            complain(&compare::bound::run(&bound).to_string());
            Verdict::Fault
        }
        Err(NoPlan::Usage(error)) => {
            // Where standard error is gone, there is nobody to tell.
            let _ = error.print();
            Verdict::Usage
        }
        Err(NoPlan::Fault(message)) => {
            complain(&message);
            Verdict::Fault
        }
    };
    verdict.into()
}

fn run(plan: Plan) -> Result<Verdict, Failure> {
    if let Some(part) = plan.part_of_run {
        return part::run(plan, part).map(|()| Verdict::Good);
    }
    limits::check(&plan).map_err(|too_few| Failure(too_few.to_string()))?;
    let (json, html) = (plan.json.clone(), plan.html.clone());
    for sink in [&json, &html].into_iter().flatten() {
        // Better now than after the run.
        sink.check().map_err(|error| Failure(format!("cannot write the results to {error}")))?;
    }
    let Outcome { report, signal, death } = Director::new(plan)?.run()?;
    publish(&report, json.as_ref(), html.as_ref())
        .map_err(|error| Failure(format!("cannot write the results to {error}")))?;
    if let Some(death) = death {
        complain(&death);
        return Ok(Verdict::Fault);
    }
    if let Some(signal) = signal {
        return Ok(Verdict::Interrupted(signal));
    }
    if report.sessions.opened == 0 {
        complain("no session came up");
        return Ok(Verdict::Fault);
    }
    if report.fanout.as_ref().is_some_and(|fanout| fanout.expected == 0) {
        complain("nothing was published: no publisher came up, or no subscriber");
        return Ok(Verdict::Fault);
    }
    let broken: Vec<&str> = report
        .assertions
        .iter()
        .filter(|checked| !checked.holds)
        .map(|checked| &*checked.condition)
        .collect();
    if broken.is_empty() {
        return Ok(Verdict::Good);
    }
    complain(&format!("does not hold: {}", broken.join(", ")));
    Ok(Verdict::Refuted)
}

/// Writes the results to where they are wanted: to all of these places, and then tells of the first that failed.
fn publish(report: &Report, json: Option<&Sink>, html: Option<&Sink>) -> io::Result<()> {
    let mut written = Vec::new();
    if ![json, html].contains(&Some(&Sink::StandardOutput)) {
        written.push(output::print(&Table::of(report, terminal::output_has_colours())));
    }
    if let Some(sink) = json {
        let text = serde_json::to_string_pretty(report).map_err(io::Error::from);
        written.push(text.and_then(|text| sink.write(&(text + "\n"))));
    }
    if let Some(sink) = html {
        let value = serde_json::to_value(report).map_err(io::Error::from);
        written.push(value.and_then(|value| sink.write(&Page::of(&value, &About::now()))));
    }
    written.into_iter().collect()
}

fn complain(message: &str) {
    let _ = writeln!(io::stderr(), "tidegate-loadtest: {message}");
}
