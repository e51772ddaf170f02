//! What a run does, once its arguments are known to be sound.

use std::{
    net::{IpAddr, SocketAddr},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use rustix::process::Pid;
use tidegate_io::Choice;
use tidegate_tls::ClientConfig;
use tidegate_wire::{extension::DeflateOffer, message::Kind};

use crate::{
    assertion::Assertion,
    fanout::Fanout,
    output::Sink,
    part::Part,
    payload::{Fill, Share, Sizes},
    target::Target,
    trace::Trace,
};

/// What sessions do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scenario {
    /// Messages that come back.
    Echo,
    /// Nothing.
    Idle,
    /// They come up as fast as they can, and so many times more after a cut.
    Storm { again: u32 },
    /// They come up, send so many messages, close with this code, and are followed by others.
    Churn { messages: u32, code: u16 },
    /// As echo, but this share of them does not read.
    Slow { share: f64 },
    /// Messages as the plan's trace has them, that come back.
    Replay,
    /// Some publish, others subscribe.
    Fanout(Fanout),
}

impl Scenario {
    /// Who takes part in a fan-out.
    pub(crate) fn fanout(self) -> Option<Fanout> {
        match self {
            Self::Fanout(fanout) => Some(fanout),
            Self::Echo
            | Self::Idle
            | Self::Storm { .. }
            | Self::Churn { .. }
            | Self::Slow { .. }
            | Self::Replay => None,
        }
    }

    /// Whether some sessions stop reading.
    pub(crate) fn has_slow(self) -> bool {
        match self {
            Self::Slow { .. } => true,
            Self::Fanout(fanout) => fanout.share > 0.0,
            Self::Echo | Self::Idle | Self::Storm { .. } | Self::Churn { .. } | Self::Replay => false,
        }
    }

    /// What rates are of, and CPU time is told for.
    pub(crate) const fn unit(self) -> &'static str {
        match self {
            Self::Echo | Self::Idle | Self::Slow { .. } | Self::Replay => "message",
            Self::Storm { .. } => "handshake",
            Self::Churn { .. } => "session",
            Self::Fanout(_) => "delivery",
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Idle => "idle",
            Self::Storm { .. } => "storm",
            Self::Churn { .. } => "churn",
            Self::Slow { .. } => "slow",
            Self::Replay => "replay",
            Self::Fanout(_) => "fanout",
        }
    }
}

/// What decides when something is sent (in `churn`: when a session begins).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Load {
    /// The answers: so many messages of a session are under way at once.
    Closed,
    /// The clock: so many for each second, over all sessions.
    Open { rate: f64 },
}

impl Load {
    /// With a rate the clock decides.
    pub(crate) fn from_rate(rate: Option<f64>) -> Self {
        rate.map_or(Self::Closed, |rate| Self::Open { rate })
    }
}

/// A whole run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) scenario: Scenario,
    pub(crate) target: Target,
    pub(crate) address: SocketAddr,
    pub(crate) connections: u32,
    /// Of all processes.
    pub(crate) threads: u32,
    /// 1: this one. More: so many others.
    pub(crate) processes: u32,
    /// This is one of these others.
    pub(crate) part_of_run: Option<Part>,
    pub(crate) duration: Duration,
    pub(crate) warmup: Duration,
    pub(crate) timeout: Duration,
    /// Connections that are coming up at once, over all threads.
    pub(crate) pending: u32,
    /// How TLS is spoken, for `wss://`.
    pub(crate) tls: Option<ClientConfig>,
    pub(crate) load: Load,
    pub(crate) depth: u32,
    /// The bounds of all messages.
    pub(crate) sizes: Sizes,
    /// Where sizes come in shares.
    pub(crate) shares: Vec<Share>,
    pub(crate) fill: Fill,
    /// What is played; only in `replay`.
    pub(crate) trace: Option<Arc<Trace>>,
    /// What is offered of permessage-deflate.
    pub(crate) deflate: Option<DeflateOffer>,
    pub(crate) kind: Kind,
    pub(crate) host: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) subprotocols: Vec<String>,
    /// Addresses to connect from, in turn; none: the system's choice.
    pub(crate) sources: Vec<IpAddr>,
    pub(crate) pids: Vec<Pid>,
    pub(crate) assertions: Vec<Assertion>,
    /// Where the JSON goes.
    pub(crate) json: Option<Sink>,
    /// Where the page goes.
    pub(crate) html: Option<Sink>,
    pub(crate) quiet: bool,
    pub(crate) seed: u64,
    pub(crate) io: Choice,
}

impl Plan {
    /// How many of its first `total` sessions are thread `index`'s.
    pub(crate) fn sessions(&self, total: u32, index: u32) -> u32 {
        match self.scenario {
            Scenario::Fanout(fanout) if total == self.connections => fanout.sessions(index, self.threads),
            Scenario::Fanout(_)
            | Scenario::Echo
            | Scenario::Idle
            | Scenario::Storm { .. }
            | Scenario::Churn { .. }
            | Scenario::Slow { .. }
            | Scenario::Replay => self.part(total, index),
        }
    }

    /// Whether the measured time goes on until all is answered or given up: a file that is played once has no time of
    /// its own.
    pub(crate) fn waits_for_answers(&self) -> bool {
        self.trace.as_ref().is_some_and(|trace| !trace.loops())
    }

    /// The workers of a process.
    pub(crate) fn workers_of(&self, process: u32) -> Range<usize> {
        let each = self.threads.div_ceil(self.processes);
        let start = (each * process).min(self.threads);
        start as usize..(start + each).min(self.threads) as usize
    }

    /// Which part of `total` falls to thread `index`.
    pub(crate) fn part(&self, total: u32, index: u32) -> u32 {
        part(total, index, self.threads)
    }
}

/// Whether the session at this place is one of the share: spread evenly, the first one always, unless there is no share.
pub(crate) fn is_of_share(place: usize, share: f64) -> bool {
    // A share of a tenth is not quite a tenth in binary.
    let up_to = |count: usize| (count as f64 * share - 1e-9).ceil();
    up_to(place + 1) > up_to(place)
}

/// Which part of `total` falls to worker `index` of so many.
pub(crate) fn part(total: u32, index: u32, workers: u32) -> u32 {
    total / workers + u32::from(index < total % workers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_spread_evenly() {
        let of =
            |count: usize, share| (0..count).filter(|place| is_of_share(*place, share)).collect::<Vec<_>>();
        assert_eq!(of(40, 0.1), [0, 10, 20, 30]);
        assert_eq!(of(4, 0.01), [0]);
        assert_eq!(of(6, 0.5), [0, 2, 4]);
        assert!(of(6, 0.0).is_empty());
    }
}
