//! What goes between the director of a run and its workers.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};
use tidegate_io::{Wake, Waker};

use crate::{
    fanout::Letter,
    fault::Fault,
    tally::{Parcel, Window},
};

/// What a worker is to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Command {
    /// Bring up so many more sessions; [`What::Settled`] follows.
    Connect { more: u32 },
    /// In `fanout`: subscribers of all workers, by topic, and the time of messages to come; [`What::Met`] follows.
    Meet { audiences: Vec<u32>, begin: Begin },
    /// In `fanout`: what other workers tell this one.
    Mail(Vec<Letter>),
    /// The time of messages (in `churn`: of sessions); [`What::Drained`] follows.
    Begin(Begin),
    /// That time ends now.
    Stop,
    /// End those sessions that are not up, as failed.
    GiveUp,
    /// Cut all sessions; [`What::Empty`] follows.
    Cut,
    /// Close all sessions; [`What::Empty`] follows.
    Close,
    /// Tell the last of the tally, and end.
    Quit,
}

/// A time of messages, on the clock of the backends.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Begin {
    pub(crate) start_ns: u64,
    /// When the warm-up is over.
    pub(crate) measured_ns: u64,
    pub(crate) end_ns: u64,
    /// In an open loop, the time between two messages of a session (in `churn`: between two sessions of all workers).
    pub(crate) interval_ns: f64,
}

impl Begin {
    /// The time that is measured.
    pub(crate) fn window(&self) -> Window {
        Window { from_ns: self.measured_ns, until_ns: self.end_ns }
    }
}

/// What a worker tells.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Note {
    /// Which one.
    pub(crate) worker: usize,
    pub(crate) what: What,
}

/// What a worker tells.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum What {
    /// It runs, as this thread, and can be reached.
    Started { thread: i32 },
    /// Second `second` since the run's start is over.
    Second { second: u64, open: u32, pending: u32, parcel: Box<Parcel> },
    /// All sessions that were asked for are up, or failed: how many are up, how many were lost until now, when the last
    /// one came, and in `fanout` how many of them subscribe to each topic.
    Settled { open: u32, lost: u64, last_up_ns: u64, audience: Vec<u32>, publishers: u32 },
    /// In `fanout`: who listens and what time is measured is known here.
    Met,
    /// In `fanout`: what a worker of another process is to be told.
    Mail { to: usize, letters: Vec<Letter> },
    /// The time of messages is over, and nothing is awaited any more.
    Drained,
    /// No session is left.
    Empty,
    /// The last of its tally.
    Ended { parcel: Box<Parcel> },
    /// Why there was such a fault, in words, where its kind does not say it.
    Reason { fault: Fault, why: String },
    /// It cannot go on.
    Failed(Failure),
    /// Its process has ended; the last that is told of it.
    Gone,
    /// The user, or the system, wants the run to end: the signal's number.
    Interrupted(i32),
}

/// Why a worker cannot go on.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Failure(pub(crate) String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Commands that a worker has not taken yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Orders(Arc<Mutex<VecDeque<Command>>>);

impl Orders {
    pub(crate) fn give(&self, command: Command, waker: &Waker) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(command);
        waker.wake();
    }

    pub(crate) fn take(&self) -> Option<Command> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}
