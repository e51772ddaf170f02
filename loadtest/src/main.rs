//! The binary `tidegate-loadtest`: load for WebSocket servers, on Tidegate's own `wire` and `io`.
//!
//! ```text
//! Arguments ──► Plan ──► Director ── Command ──► Worker (one thread each) ──► Session
//!                           ▲  │                    │
//!                           └──┼────── Note ────────┘
//!                              ▼
//!                           Report ──► Table, JSON
//! ```
//!
//! Standard output is the result (the table, or JSON), standard error is what happens meanwhile.
#![forbid(unsafe_code)]

mod arguments;
mod assertion;
mod director;
mod fault;
mod limits;
mod link;
mod live;
mod payload;
mod plan;
mod processes;
mod random;
mod report;
mod schedule;
mod session;
mod signals;
mod table;
mod tally;
mod target;
mod trace;
mod transport;
mod units;
mod visits;
mod worker;

use std::{
    env, fs,
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use crate::{
    arguments::{Arguments, NoPlan},
    director::{Director, Outcome},
    link::Failure,
    plan::{Json, Plan},
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
    let verdict = match Arguments::read().plan() {
        Ok(plan) => run(plan).unwrap_or_else(|failure| {
            complain(&failure.to_string());
            Verdict::Fault
        }),
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
    limits::check(&plan).map_err(|too_few| Failure(too_few.to_string()))?;
    let json = plan.json.clone();
    let Outcome { report, signal } = Director::new(plan)?.run()?;
    publish(&report, json.as_ref()).map_err(|error| Failure(format!("cannot write the results: {error}")))?;
    if let Some(signal) = signal {
        return Ok(Verdict::Interrupted(signal));
    }
    if report.sessions.opened == 0 {
        complain("no session came up");
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

/// Writes the results to where they are wanted.
fn publish(report: &Report, json: Option<&Json>) -> io::Result<()> {
    let text = |report| serde_json::to_string_pretty(report).map(|text| text + "\n").map_err(io::Error::from);
    let mut out = io::stdout().lock();
    match json {
        Some(Json::StandardOutput) => return out.write_all(text(report)?.as_bytes()),
        Some(Json::File(path)) => fs::write(path, text(report)?)?,
        None => {}
    }
    // no-color.org: set to anything but nothing.
    let has_colours = out.is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    out.write_all(Table::of(report, has_colours).as_bytes())
}

fn complain(message: &str) {
    let _ = writeln!(io::stderr(), "tidegate-loadtest: {message}");
}
