//! The arguments of `replay`.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use tidegate_wire::message::Kind;

use super::{
    NoPlan,
    common::{Common, Messages},
    usage,
    values::{MOST_BYTES, Mix, some_duration},
};
use crate::{
    payload::Fill,
    plan::{Load, Plan, Scenario},
    trace::{Start, Trace},
    units::{MOST_RATE, show_count},
};

#[derive(Args, Debug)]
pub(super) struct ReplayArguments {
    /// A file of messages, one a line: `gap_us,size[,kind]` (README.md)
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    common: Common,
    /// The longest to play [default: all of it once; with --loop: 10s]
    #[arg(short, long, value_name = "TIME", value_parser = some_duration)]
    duration: Option<Duration>,
    /// Begin again after the end
    #[arg(long = "loop", id = "loop")]
    loops: bool,
    /// Each session begins at a message of its own, and goes round
    #[arg(long)]
    anywhere: bool,
    /// Send text where the file does not say it, instead of binary
    #[arg(long)]
    text: bool,
    /// What messages hold
    #[arg(long, value_name = "FILL", default_value = "random")]
    fill: Fill,
}

impl ReplayArguments {
    pub(super) fn plan(self) -> Result<Plan, NoPlan> {
        let kind = if self.text { Kind::Text } else { Kind::Binary };
        let start = if self.anywhere { Start::Anywhere } else { Start::First };
        let name = self.file.display();
        let text = fs::read_to_string(&self.file).map_err(|error| usage(&format!("{name}: {error}")))?;
        let trace = Trace::parse(&text, kind, MOST_BYTES, start, self.loops)
            .map_err(|bad| usage(&format!("{name}: {bad}")))?;
        // The last message is due before the end.
        let once = Duration::from_nanos(trace.length_ns()) + Duration::from_millis(1);
        let duration = match self.duration {
            Some(duration) if self.loops => duration,
            Some(duration) => duration.min(once),
            None if self.loops => Duration::from_secs(10),
            None => once,
        };
        let round = if self.loops { Duration::from_nanos(trace.length_ns()) } else { once };
        let rate = trace.len() as f64 * f64::from(self.common.connections) / round.as_secs_f64();
        if self.loops && rate > MOST_RATE {
            return Err(usage(&format!(
                "{name}: in a loop that is {} messages/s over {} sessions, but 100M at most: make its gaps longer, or \
                 take fewer sessions (-c)",
                show_count(rate),
                self.common.connections
            )));
        }
        let size = Mix { sizes: trace.bounds(), shares: Vec::new() };
        let messages = Messages { depth: 1, size, fill: self.fill, text: self.text, binary: false };
        let load = Load::Open { rate };
        let plan = self.common.plan(Scenario::Replay, Some(&messages), load, duration, Duration::ZERO)?;
        Ok(Plan { trace: Some(Arc::new(trace)), ..plan })
    }
}
