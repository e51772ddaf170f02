//! The command line.

mod common;
mod fanout;
mod replay;
mod values;

use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand, error::ErrorKind};

use self::{
    common::{Common, Messages, Timing},
    fanout::FanoutArguments,
    replay::ReplayArguments,
    values::{close_code, share, some_duration},
};
use crate::{
    compare::{CompareArguments, bound::BoundArguments},
    plan::{Load, Plan, Scenario},
    units,
};

/// Load for WebSocket servers: echo, idle sessions, connection storms, churn, slow readers, fan-out.
///
/// Latencies count from when a message was due, so that a server that stalls cannot hide it (with -R).
#[derive(Debug, Parser)]
#[command(
    name = "tidegate-loadtest",
    version,
    args_override_self = true,
    after_help = "Exit codes: 0; 1 a fault, or no session came up; 2 usage; 99 an assertion does not hold; 130 ended \
                  by Ctrl-C, 143 by TERM, 129 by HUP (with the results so far)."
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Send messages and check what comes back: rates and latencies
    Echo(EchoArguments),
    /// Bring sessions up and hold them: what one costs, and which are lost
    Idle(IdleArguments),
    /// Bring sessions up as fast as they can: handshakes for each second
    Storm(StormArguments),
    /// Sessions that come, send a few messages, close, and are followed by others
    Churn(ChurnArguments),
    /// Some sessions stop reading: what becomes of the others, and of the server's memory
    Slow(SlowArguments),
    /// Send messages with the sizes and gaps of a file
    Replay(ReplayArguments),
    /// Start servers in turn under the same loads, and compare what they cost
    Compare(CompareArguments),
    /// Become another program, which ends with who started it
    #[command(hide = true)]
    Bound(BoundArguments),
    /// Publish to many: when each message reached the first, the median and the last of its subscribers
    Fanout(FanoutArguments),
}

#[derive(Args, Debug)]
struct EchoArguments {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    messages: Messages,
    #[command(flatten)]
    timing: Timing,
    /// Messages for each second over all sessions, whether answers come or not (open loop)
    #[arg(short = 'R', long, value_name = "RATE", allow_hyphen_values = true, value_parser = units::rate, conflicts_with = "depth")]
    rate: Option<f64>,
}

#[derive(Args, Debug)]
struct IdleArguments {
    #[command(flatten)]
    common: Common,
    /// How long to hold them
    #[arg(short, long, value_name = "TIME", default_value = "10s", value_parser = some_duration)]
    duration: Duration,
}

#[derive(Args, Debug)]
struct StormArguments {
    #[command(flatten)]
    common: Common,
    /// The longest that one storm may take
    #[arg(short, long, value_name = "TIME", default_value = "60s", value_parser = some_duration)]
    duration: Duration,
    /// Cut all sessions once they are up, and let them come again; so many times
    #[arg(long, value_name = "TIMES", num_args = 0..=1, require_equals = true, default_value_t = 0, default_missing_value = "1")]
    again: u32,
}

#[derive(Args, Debug)]
struct ChurnArguments {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    messages: Messages,
    #[command(flatten)]
    timing: Timing,
    /// Sessions that begin for each second, at most -c at once [default: as soon as one ends]
    #[arg(short = 'R', long, value_name = "RATE", allow_hyphen_values = true, value_parser = units::rate)]
    rate: Option<f64>,
    /// Messages of a session
    #[arg(long = "messages", id = "count", value_name = "N", default_value_t = 3)]
    count: u32,
    /// The code to close with
    #[arg(long, value_name = "CODE", default_value_t = 1000, value_parser = close_code)]
    close_code: u16,
}

#[derive(Args, Debug)]
struct SlowArguments {
    #[command(flatten)]
    echo: EchoArguments,
    /// The share of sessions that stops reading: 0.1 or 10%
    #[arg(long, value_name = "SHARE", default_value = "10%", value_parser = share)]
    share: f64,
}

/// What this process is for.
#[derive(Debug)]
pub(crate) enum Job {
    /// One run.
    Run(Box<Plan>),
    /// Runs against several servers, each with a plan of its own.
    Compare(CompareArguments),
    /// Another program, started by a comparison.
    Bound(BoundArguments),
}

/// Why there is no plan.
#[derive(Debug)]
pub(crate) enum NoPlan {
    /// The arguments do not fit together.
    Usage(clap::Error),
    /// The server's name has no address.
    Fault(String),
}

impl Arguments {
    /// Those of this process. Ends it where they are not known, or ask for help.
    pub(crate) fn read() -> Self {
        Self::parse()
    }

    /// What is to be done.
    ///
    /// # Errors
    /// See [`NoPlan`].
    pub(crate) fn job(self) -> Result<Job, NoPlan> {
        let plan = match self.command {
            Command::Compare(compare) => return Ok(Job::Compare(compare)),
            Command::Bound(bound) => return Ok(Job::Bound(bound)),
            Command::Echo(echo) => echo.plan(Scenario::Echo),
            Command::Replay(replay) => replay.plan(),
            Command::Slow(slow) => slow.echo.plan(Scenario::Slow { share: slow.share }),
            Command::Fanout(fanout) => fanout.plan(),
            Command::Idle(idle) => {
                idle.common.plan(Scenario::Idle, None, Load::Closed, idle.duration, Duration::ZERO)
            }
            Command::Storm(storm) => {
                let scenario = Scenario::Storm { again: storm.again };
                storm.common.plan(scenario, None, Load::Closed, storm.duration, Duration::ZERO)
            }
            Command::Churn(churn) => {
                let scenario = Scenario::Churn { messages: churn.count, code: churn.close_code };
                let messages = Some(&churn.messages);
                let load = Load::from_rate(churn.rate);
                churn.common.plan(scenario, messages, load, churn.timing.duration, churn.timing.warmup)
            }
        };
        plan.map(|plan| Job::Run(Box::new(plan)))
    }
}

/// Whether these are the words of one run.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn accepts<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<(), String> {
    let parsed = Arguments::try_parse_from(["tidegate-loadtest"].into_iter().chain(words));
    let error = match parsed.map(Arguments::job) {
        Ok(Ok(Job::Run(_))) => return Ok(()),
        Ok(Ok(Job::Compare(_) | Job::Bound(_))) => return Err("a comparison is no load".to_owned()),
        Ok(Err(NoPlan::Fault(message))) => return Err(message),
        Ok(Err(NoPlan::Usage(error))) | Err(error) => error.to_string(),
    };
    // The first paragraph: what follows is how to use it.
    let lines = error.trim_start_matches("error: ").lines().take_while(|line| !line.is_empty());
    Err(lines.map(str::trim).collect::<Vec<_>>().join(" "))
}

impl EchoArguments {
    fn plan(self, scenario: Scenario) -> Result<Plan, NoPlan> {
        let Timing { duration, warmup } = self.timing;
        self.common.plan(scenario, Some(&self.messages), Load::from_rate(self.rate), duration, warmup)
    }
}

/// An error like clap's own.
fn usage(message: &str) -> NoPlan {
    NoPlan::Usage(Arguments::command().error(ErrorKind::ValueValidation, message))
}

#[cfg(test)]
mod tests {
    use tidegate_wire::message::Kind;

    use super::*;
    use crate::payload::{Share, Sizes};

    fn plan(arguments: &[&str]) -> Plan {
        let all = [&["tidegate-loadtest"], arguments].concat();
        match Arguments::try_parse_from(all).unwrap().job().unwrap() {
            Job::Run(plan) => *plan,
            Job::Compare(_) | Job::Bound(_) => panic!("one run was asked for"),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn flags_make_a_plan() {
        let plan = plan(&[
            "echo",
            "ws://127.0.0.1:9/x",
            "-c",
            "7",
            "-t",
            "9",
            "-d",
            "2s",
            "-R",
            "1k",
            "-s",
            "10..1KiB",
            "--text",
            "-H",
            "host: other",
            "-H",
            "A: b",
            "--source",
            "127.0.0.2,127.0.0.3",
            "--assert",
            "p99<5ms",
        ]);
        assert_eq!((plan.connections, plan.threads, plan.load), (7, 7, Load::Open { rate: 1000.0 }));
        assert_eq!((plan.sizes, plan.kind), (Sizes { min: 10, max: 1024 }, Kind::Text));
        assert_eq!((&*plan.host, plan.headers.len(), plan.sources.len()), ("other", 1, 2));
    }

    #[test]
    fn a_process_that_is_named_twice_counts_once() {
        let pids = plan(&["echo", "ws://127.0.0.1:9", "--pid", "7", "--pid", "8", "--pid", "7"]).pids;
        assert_eq!(pids.iter().map(|pid| pid.as_raw_pid()).collect::<Vec<_>>(), [7, 8]);
    }

    #[test]
    fn sizes_come_in_shares() {
        let plan = plan(&["echo", "ws://127.0.0.1:9", "-s", "64:70%,1KiB..2KiB:25%,16KiB:5%"]);
        assert_eq!(plan.sizes, Sizes { min: 64, max: 16_384 });
        assert_eq!(plan.shares[1], Share { weight: 0.25, sizes: Sizes { min: 1024, max: 2048 } });
    }

    #[test]
    fn the_offer_is_a_browsers_unless_told_otherwise() {
        for (more, offer) in [
            (&[][..], "permessage-deflate; client_max_window_bits"),
            (
                &["--no-context-takeover", "--window-bits", "10"],
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover; \
                 server_max_window_bits=10; client_max_window_bits=10",
            ),
        ] {
            let plan = plan(&[&["idle", "ws://127.0.0.1:9", "--deflate"], more].concat());
            assert_eq!(plan.deflate.unwrap().to_string(), offer);
        }
    }

    #[test]
    fn a_storm_comes_again_once_unless_it_is_told_how_often() {
        for (flag, times) in [(None, 0), (Some("--again"), 1), (Some("--again=3"), 3)] {
            let arguments: Vec<&str> =
                ["storm"].into_iter().chain(flag).chain(["ws://127.0.0.1:9"]).collect();
            assert_eq!(plan(&arguments).scenario, Scenario::Storm { again: times });
        }
    }

    #[test]
    fn topics_need_publishers_unless_messages_name_them() {
        let plan =
            plan(&["fanout", "ws://127.0.0.1:9/topics", "--adapter", "tidegate", "-c", "9", "--topics", "7"]);
        let fanout = plan.scenario.fanout().unwrap();
        assert_eq!((fanout.publishers, fanout.topics, plan.connections), (1, 7, 10));
        assert_eq!(plan.subprotocols, ["tidegate.v1"]);
        let nchan = ["fanout", "ws://127.0.0.1:9/{topic}", "--adapter", "nchan"];
        let tidegate = ["fanout", "ws://127.0.0.1:9/topics", "--adapter", "tidegate"];
        for (which, more) in [
            (&nchan, &["--topics", "2"][..]),
            (&nchan, &["--topics", "3", "--publishers", "3", "-c", "2"]),
            (&tidegate, &["--topics", "3", "-c", "2"]),
        ] {
            let parsed =
                Arguments::try_parse_from([&["tidegate-loadtest"], &which[..], more].concat()).unwrap();
            assert!(matches!(parsed.job(), Err(NoPlan::Usage(_))), "{which:?} {more:?}");
        }
    }

    #[test]
    fn what_cannot_be_is_a_matter_of_usage() {
        for arguments in [
            &["echo"][..],
            &["echo", "http://a"],
            &["echo", "wss://a", "-k", "--ca", "x"],
            &["echo", "ws://127.0.0.1:9", "-R", "1", "--depth", "2"],
            &["echo", "ws://127.0.0.1:9", "-s", "9..1"],
            &["echo", "ws://127.0.0.1:9", "--text", "--binary"],
            &["echo", "ws://127.0.0.1:9", "-H", "Upgrade: x"],
            &["echo", "ws://127.0.0.1:9", "--assert", "p99"],
            &["echo", "ws://127.0.0.1:9", "-d", "0"],
            &["churn", "ws://127.0.0.1:9", "--close-code", "1005"],
            &["slow", "ws://127.0.0.1:9", "--share", "100%"],
            &["echo", "ws://127.0.0.1:9", "-s", "64:70%,128:20%"],
            &["echo", "ws://127.0.0.1:9", "-s", "64:70,128:30"],
            &["echo", "ws://127.0.0.1:9", "-s", "64:0%,128:100%"],
            &["echo", "ws://127.0.0.1:9", "--window-bits", "9"],
            &["echo", "ws://127.0.0.1:9", "--deflate", "--window-bits", "8"],
            &["replay", "file.csv"],
            &["idle", "ws://127.0.0.1:9", "--depth", "2"],
            &["ws://127.0.0.1:9"],
        ] {
            let parsed = Arguments::try_parse_from([&["tidegate-loadtest"], arguments].concat());
            assert!(parsed.is_err(), "{arguments:?}");
        }
        for arguments in [
            &["echo", "ws://127.0.0.1:9", "-s", "8", "--depth", "65"][..],
            &["echo", "ws://127.0.0.1:9", "--source", "::1"],
            &["echo", "ws://127.0.0.1:9", "--timeout", "0"],
            &["echo", "ws://127.0.0.1:9", "-k"],
            &["echo", "ws://127.0.0.1:9", "--json", "x", "--html", "./x"],
            &["echo", "ws://127.0.0.1:9", "--json", "-", "--html", "-"],
            &["echo", "wss://127.0.0.1:9", "--ca", "/nowhere"],
        ] {
            let parsed = Arguments::try_parse_from([&["tidegate-loadtest"], arguments].concat()).unwrap();
            assert!(matches!(parsed.job(), Err(NoPlan::Usage(_))), "{arguments:?}");
        }
    }
}
