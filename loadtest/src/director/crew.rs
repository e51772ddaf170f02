//! The workers, as the director knows them: what they are told, what they tell, and how they are waited for.

use std::{
    io::{self, Write},
    sync::mpsc::RecvTimeoutError,
    time::Duration,
};

use super::{Director, now_ns};
use crate::{
    fault::Fault,
    link::{Command, Failure, Note, What},
    tally::Parcel,
};

/// Reasons that are told, unless they are the first of their kind.
const MOST_REASONS: usize = 8;

/// What the workers are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    Started,
    Settled,
    /// In `fanout`: when messages begin is known.
    Met,
    Drained,
    Empty,
    Ended,
    /// Nothing but the time.
    Never,
}

/// A worker, as the director knows it.
#[derive(Debug, Default)]
pub(super) struct Crew {
    pub(super) thread: Option<i32>,
    /// Its process has ended before it had.
    pub(super) is_dead: bool,
    /// The last goal that it has reached.
    pub(super) reached: Option<Goal>,
    pub(super) open: u32,
    /// Sessions that it had lost when all were up.
    pub(super) lost: u64,
    pub(super) last_up_ns: u64,
    /// In `fanout`: its subscribers, by topic.
    pub(super) audience: Vec<u32>,
    /// In `fanout`: publishers that are up.
    pub(super) publishers: u32,
}

impl Director {
    pub(super) fn order(&mut self, command: impl Fn(u32) -> Command) {
        for (index, crew) in self.crew.iter_mut().enumerate() {
            let command = command(index as u32);
            // What comes of these two is what an earlier command asked for.
            if !matches!(command, Command::Stop | Command::GiveUp) {
                crew.reached = None;
            }
            // One that has died is not waited for.
            let _ = self.switchboard.send(index, command);
        }
    }

    pub(super) fn open(&self) -> u32 {
        self.crew.iter().map(|crew| crew.open).sum()
    }

    /// Takes notes until all workers have reached the goal (then it is true), that time has come, or the run is
    /// interrupted for the first time.
    pub(super) fn wait(&mut self, goal: Goal, until_ns: Option<u64>) -> Result<bool, Failure> {
        loop {
            if goal != Goal::Never && self.crew.iter().all(|crew| crew.is_dead || crew.reached == Some(goal))
            {
                return Ok(true);
            }
            let note = match until_ns {
                None => self.notes.recv().ok(),
                Some(until_ns) => {
                    let left = Duration::from_nanos(until_ns.saturating_sub(now_ns()));
                    match self.notes.recv_timeout(left) {
                        Ok(note) => Some(note),
                        Err(RecvTimeoutError::Timeout) => return Ok(false),
                        Err(RecvTimeoutError::Disconnected) => None,
                    }
                }
            };
            let note = note.ok_or_else(|| Failure("all threads have ended".into()))?;
            if let What::Interrupted(signal) = note.what {
                self.signal = Some(signal);
                return Ok(false);
            }
            if let What::Gone = note.what {
                if self.bury(note.worker) {
                    return Ok(false);
                }
                continue;
            }
            self.take(note)?;
        }
    }

    /// A worker's process has ended; whether that is news, and ends the run.
    pub(super) fn bury(&mut self, worker: usize) -> bool {
        let crew = &mut self.crew[worker];
        if crew.is_dead || crew.reached == Some(Goal::Ended) {
            return false;
        }
        crew.is_dead = true;
        crew.open = 0;
        self.seconds.retire(worker);
        let is_first = self.death.is_none();
        if is_first {
            self.death = Some(self.parts.obituary(&self.plan, worker));
        }
        is_first
    }

    /// Whether the run is to end with what there is.
    pub(super) fn is_cut_short(&self) -> bool {
        self.signal.is_some() || self.death.is_some()
    }

    pub(super) fn take(&mut self, note: Note) -> Result<(), Failure> {
        let crew = &mut self.crew[note.worker];
        match note.what {
            What::Started { thread } => {
                crew.thread = Some(thread);
                crew.reached = Some(Goal::Started);
            }
            What::Mail { to, letters } => self.relay(to, letters),
            What::Settled { open, lost, last_up_ns, audience, publishers } => {
                crew.audience = audience;
                crew.publishers = publishers;
                crew.open = open;
                crew.lost = lost;
                crew.last_up_ns = last_up_ns;
                crew.reached = Some(Goal::Settled);
            }
            What::Met => crew.reached = Some(Goal::Met),
            What::Drained => crew.reached = Some(Goal::Drained),
            What::Empty => crew.reached = Some(Goal::Empty),
            What::Ended { parcel } => {
                crew.reached = Some(Goal::Ended);
                self.tally.merge(&parcel);
            }
            What::Second { second, open, pending, parcel } => {
                self.second(note.worker, second, open, pending, &parcel);
            }
            What::Reason { fault, why } => self.tell_reason(fault, why),
            What::Failed(failure) => return Err(failure),
            What::Interrupted(signal) => self.signal = Some(signal),
            What::Gone => {
                self.bury(note.worker);
            }
        }
        Ok(())
    }

    /// Tells a reason once, and keeps the first of each kind for the results.
    pub(super) fn tell_reason(&mut self, fault: Fault, why: String) {
        let is_first = self.reasons.iter().all(|(other, _)| *other != fault);
        let reason = (fault, why);
        if is_first || (self.reasons.len() < MOST_REASONS && !self.reasons.contains(&reason)) {
            self.live.end();
            // Where nobody reads, there is nobody to be told.
            let _ = writeln!(io::stderr(), "tidegate-loadtest: {}", fault.because(&reason.1));
            self.reasons.push(reason);
        }
    }

    pub(super) fn second(&mut self, worker: usize, second: u64, open: u32, pending: u32, parcel: &Parcel) {
        self.tally.merge(parcel);
        self.seconds.add(worker, second, open, pending, parcel);
        while let Some(told) = self.seconds.poll_whole(self.live.phase_name(), now_ns(), &self.servers) {
            self.live.show(told, &self.tally.counts.faults, now_ns());
        }
    }
}
