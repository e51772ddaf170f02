//! `compare`: servers side by side, under the same loads.
//!
//! ```text
//! Suite ──► for each scenario, for each round (or the other way round), for each server: Bench::measure ──► Sample
//!                                                                   │                │
//!                            upstream, server, load (this program) ─┘            Results ──► Verdict, Show
//! ```
//!
//! Each measurement has a fresh server, and leaves nothing of it behind. Figures are compared within rounds, so that
//! what the machine does besides falls on all servers alike.

mod bar;
pub(crate) mod bound;
mod installed;
mod load;
mod measure;
mod metric;
mod process;
mod ready;
mod results;
mod show;
mod signals;
mod statistics;
mod suite;
mod template;
mod verdict;

use std::{
    io::{self, Write},
    path::PathBuf,
};

use clap::Args;

use self::{
    measure::{Bench, Failure},
    process::{Affinity, adopt_orphans, sweep},
    results::{Outcome, Results, Table},
    signals::Interrupts,
    suite::{Interleave, Server, Suite},
};
use crate::{
    Verdict, limits,
    output::{self, Sink},
    terminal,
};

/// Failures of a server in a row after which it is not started again in a scenario.
const MOST_FAILURES: usize = 2;

/// The command line of `compare`.
#[derive(Args, Debug)]
pub(crate) struct CompareArguments {
    /// The file that names servers and loads
    #[arg(value_name = "SUITE.toml")]
    suite: PathBuf,
    /// Rounds, in each of which each server is measured once [default: the suite's, or 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// These servers alone
    #[arg(long, value_name = "SERVER,...", value_delimiter = ',')]
    only: Vec<String>,
    /// These scenarios alone
    #[arg(long = "scenario", value_name = "NAME,...", value_delimiter = ',')]
    scenarios: Vec<String>,
    /// Another value of a variable of the suite; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    set: Vec<(String, String)>,
    /// Exit with 99 where a bar does not hold, or was not measured
    #[arg(long)]
    check: bool,
    /// Write the results as JSON; `-`: to standard output, in place of the table
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the results as Markdown; `-`: to standard output, in place of the table
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// No line for each run
    #[arg(long)]
    quiet: bool,
}

fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a variable is set by NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Carries a comparison out, and tells what came of it.
pub(crate) fn run(arguments: &CompareArguments) -> Verdict {
    let suite = Suite::read(&arguments.suite, &arguments.set).map_err(|error| error.to_string());
    let suite = match suite.and_then(|suite| arguments.narrow(suite)) {
        Ok(suite) => suite,
        Err(message) => {
            crate::complain(&message);
            return Verdict::Usage;
        }
    };
    match arguments.compare(&suite) {
        Ok(verdict) => verdict,
        Err(error) => {
            crate::complain(&error.to_string());
            Verdict::Fault
        }
    }
}

impl CompareArguments {
    /// The suite, with what these arguments say.
    fn narrow(&self, mut suite: Suite) -> Result<Suite, String> {
        if let (Some(json), Some(markdown)) = (&self.json, &self.markdown)
            && Sink::of(json.clone()).is_same(&Sink::of(markdown.clone()))
        {
            return Err("--json and --markdown are one file: each has one of its own".to_owned());
        }
        let unknown = |what: &str, wanted: &[String], known: &[String]| {
            wanted.iter().find(|name| !known.contains(name)).map_or(Ok(()), |name| {
                Err(format!("there is no {what} {name:?} in this suite: {}", known.join(", ")))
            })
        };
        let servers: Vec<String> = suite.servers.iter().map(|server| server.name.clone()).collect();
        let scenarios: Vec<String> = suite.scenarios.iter().map(|scenario| scenario.name.clone()).collect();
        unknown("server", &self.only, &servers)?;
        unknown("scenario", &self.scenarios, &scenarios)?;
        suite.rounds = self.rounds.unwrap_or(suite.rounds);
        if !self.scenarios.is_empty() {
            suite.leave_scenarios(&self.scenarios);
        }
        if !self.only.is_empty() {
            suite.leave(&self.only);
        }
        if suite.scenarios.is_empty() {
            return Err("none of these servers runs any of these scenarios".to_owned());
        }
        if self.check && suite.scenarios.iter().all(|scenario| scenario.bars.is_empty()) {
            return Err("--check: there is no bar about these servers in these scenarios".to_owned());
        }
        Ok(suite)
    }

    fn compare(&self, suite: &Suite) -> io::Result<Verdict> {
        for sink in self.sinks() {
            // Better now than after an hour.
            sink.check()?;
        }
        let affinity = Affinity::of_this_process()?;
        let pins = [
            ("server", &suite.pins.server),
            ("upstream", &suite.pins.upstream),
            ("generator", &suite.pins.generator),
        ];
        for (key, pins) in pins {
            if let Some(cpu) = affinity.lacks(pins).first() {
                let place = suite.pin_places.iter().find(|(other, _)| other == cpu);
                let place = place.map_or_else(String::new, |(_, place)| format!("{place}: "));
                return Err(io::Error::other(format!(
                    "{place}[pin] {key}: this process may not use processor {cpu}"
                )));
            }
        }
        // Servers inherit it.
        limits::raise_descriptors();
        adopt_orphans()?;
        let interrupts = Interrupts::watch()?;
        affinity.apply(&suite.pins.generator)?;
        let mut bench = Bench::new(suite, &interrupts, affinity)?;
        let mut results = Results::new(suite);
        self.find_servers(&bench, &mut results);
        sweep();
        let measured = self.measure_all(&mut bench, &mut results);
        sweep();
        results.signal = interrupts.first();
        let table = Table::of(&results);
        // What was measured until something went wrong is told first.
        self.publish(&table).and(measured)?;
        Ok(match results.signal {
            Some(signal) => Verdict::Interrupted(signal),
            None if !results.has_samples() => {
                crate::complain("no run counts");
                Verdict::Fault
            }
            None if self.check && !table.all_bars_hold() => {
                crate::complain("not all bars hold");
                Verdict::Refuted
            }
            None => Verdict::Good,
        })
    }

    /// Looks which servers are here.
    fn find_servers(&self, bench: &Bench<'_>, results: &mut Results<'_>) {
        for server in &bench.suite.servers {
            let upstream = server.upstream.as_ref();
            let upstream = bench.suite.upstreams.iter().find(|other| Some(&other.name) == upstream);
            let found = match upstream.map(|upstream| bench.look_at(upstream)) {
                Some(Err(missing)) => Err(format!("its upstream: {missing}")),
                Some(Ok(_)) | None => bench.look_at(server),
            };
            match found {
                Ok(version) => results.found(&server.name, version),
                Err(missing) => {
                    self.tell(&format!("{}: skipped: {missing}", server.name));
                    results.skipped(&server.name, missing);
                }
            }
        }
    }

    /// A B C A B C ...
    fn measure_all(&self, bench: &mut Bench<'_>, results: &mut Results<'_>) -> io::Result<()> {
        let suite = bench.suite;
        for (place, round) in turns(suite) {
            let scenario = &suite.scenarios[place];
            for server in &suite.servers {
                if !results.takes_part(&server.name, scenario) || results.fails(place, &server.name) {
                    continue;
                }
                let outcome = match bench.measure(server, scenario) {
                    Ok(sample) => Outcome::Measured(sample),
                    Err(Failure::Interrupted) => return Ok(()),
                    Err(Failure::System(error)) => return Err(error),
                    Err(failure @ Failure::Server { .. }) => Outcome::Failed(failure.to_string()),
                };
                self.tell_outcome(&scenario.name, round, suite, server, &outcome);
                results.add(place, &server.name, outcome);
                if bench.interrupts.first().is_some() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn tell_outcome(&self, scenario: &str, round: u32, suite: &Suite, server: &Server, outcome: &Outcome) {
        let place = format!("{scenario} {}/{} {}", round + 1, suite.rounds, server.name);
        match outcome {
            Outcome::Measured(sample) => self.tell(&format!("{place}: {}", show::sample(sample))),
            // Its lines are in the results.
            Outcome::Failed(why) => {
                self.tell(&format!("{place}: failed: {}", why.lines().next().unwrap_or_default()));
            }
        }
    }

    fn tell(&self, line: &str) {
        if !self.quiet {
            // Where nobody reads, there is nothing to be told.
            let _ = writeln!(io::stderr(), "{line}");
        }
    }

    /// Where results go.
    fn sinks(&self) -> impl Iterator<Item = Sink> {
        [&self.json, &self.markdown].into_iter().flatten().cloned().map(Sink::of)
    }

    /// Writes the results to where they are wanted: to all of these places, and then tells of the first that failed.
    fn publish(&self, table: &Table<'_>) -> io::Result<()> {
        let mut written = Vec::new();
        if !self.sinks().any(|sink| sink == Sink::StandardOutput) {
            written.push(output::print(&show::text(table, terminal::output_has_colours())));
        }
        if let Some(path) = &self.json {
            let text = serde_json::to_string_pretty(&table.json()).map_err(io::Error::from);
            written.push(text.and_then(|text| Sink::of(path.clone()).write(&(text + "\n"))));
        }
        if let Some(path) = &self.markdown {
            written.push(Sink::of(path.clone()).write(&show::markdown(table)));
        }
        written.into_iter().collect()
    }
}

/// A scenario's place and a round, in the order in which they are measured.
fn turns(suite: &Suite) -> Vec<(usize, u32)> {
    let (places, rounds) = (0..suite.scenarios.len(), 0..suite.rounds);
    match suite.interleave {
        Interleave::Servers => {
            places.flat_map(|place| rounds.clone().map(move |round| (place, round))).collect()
        }
        Interleave::Scenarios => {
            rounds.flat_map(|round| places.clone().map(move |place| (place, round))).collect()
        }
    }
}
