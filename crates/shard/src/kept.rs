//! Bytes that wait for a later turn.
//!
//! What a turn sends stays in memory until its system call, so a turn answers only so much ([`Turn::is_full`]); what a
//! session sent before its reader was paused waits, too. Invariant: of one session nothing is read before what is kept
//! of it (`Marks::held`).
//!
//! [`Turn::is_full`]: crate::turn::Turn::is_full

use tidegate_io::{Backend, Buffer, ReceiveEnd};
use tidegate_registry::Key;

use crate::{
    environment::Environment,
    session::{Session, State},
    shard::Shard,
};

/// Sessions whose reader is paused may keep this part of the receive buffers; beyond it their bytes go to the outboxes
/// that they are paused for, so that slow readers do not starve the others.
const HELD_PART: u32 = 2;

/// An event that waits.
pub(crate) enum Kept {
    /// Bytes, of which those before `at` were read.
    Bytes { key: Key, buffer: Buffer, at: usize },
    /// The end behind them: the peer's FIN or an error.
    Ended { key: Key, end: ReceiveEnd },
}

impl Kept {
    fn key(&self) -> Key {
        match self {
            Kept::Bytes { key, .. } | Kept::Ended { key, .. } => *key,
        }
    }
}

impl<B: Backend, E: Environment> Shard<B, E> {
    /// Reads received bytes now, or keeps them.
    pub(crate) fn read_or_keep(&mut self, key: Key, buffer: Buffer) {
        if self.must_wait(key) {
            self.keep(key, Kept::Bytes { key, buffer, at: 0 });
        } else {
            self.received(key, buffer, 0);
        }
    }

    /// Deals with a receive's end now, or behind the bytes that are kept.
    pub(crate) fn end_or_keep(&mut self, key: Key, end: ReceiveEnd) {
        if self.kept.iter().any(|kept| matches!(kept, Kept::Ended { key: ended, .. } if *ended == key)) {
            // Its receive has ended already.
            self.counters.stale += 1;
            return;
        }
        let behind = matches!(end, ReceiveEnd::Eof | ReceiveEnd::Error(_))
            && self.registry.get(key).is_some_and(|session| {
                // One that was not armed did not end: it is stale now, and might not be later.
                session.marks.held && session.in_flight.receive && !matches!(session.state, State::Dead)
            });
        if behind {
            self.keep(key, Kept::Ended { key, end });
        } else {
            self.receive_ended(key, end);
        }
    }

    /// Before a turn's own events: what is kept, in order, as far as it can go on.
    pub(crate) fn take_up_kept(&mut self) {
        self.holding = !self.holds_too_much();
        for kept in &self.kept {
            if let Some(session) = self.registry.get_mut(kept.key()) {
                session.marks.held = false;
            }
        }
        for _ in 0..self.kept.len() {
            let Some(kept) = self.kept.pop_front() else { break };
            let key = kept.key();
            if self.must_wait(key) {
                self.put_back(key, kept);
                continue;
            }
            match kept {
                Kept::Bytes { buffer, at, .. } => self.received(key, buffer, at),
                Kept::Ended { end, .. } => self.receive_ended(key, end),
            }
            self.flush_spans();
        }
    }

    /// The buffer that filled the turn, with what was not read of it, goes to the end of the queue, and what is kept of its
    /// session behind it: the others have their turn before one whose messages are dear to answer has its next.
    pub(crate) fn keep_rest_of_input(&mut self) {
        let Some((index, key, at)) = self.turn.unread.take() else { return };
        let buffer = self.turn.buffers.swap_remove(index);
        self.counters.kept += 1;
        let mut behind = Vec::new();
        for _ in 0..self.kept.len() {
            let Some(kept) = self.kept.pop_front() else { break };
            if kept.key() == key {
                behind.push(kept);
            } else {
                self.kept.push_back(kept);
            }
        }
        self.kept.push_back(Kept::Bytes { key, buffer, at });
        self.kept.extend(behind);
    }

    /// Whether something kept can go on with the next turn.
    pub(crate) fn can_take_up(&self) -> bool {
        let free = |kept: &Kept| self.registry.get(kept.key()).is_none_or(|session| !is_paused(session));
        !self.kept.is_empty() && (self.holds_too_much() || self.kept.iter().any(free))
    }

    /// Gives back the buffers of what is kept, at the shard's end.
    pub(crate) fn drop_kept(&mut self) {
        while let Some(kept) = self.kept.pop_front() {
            if let Kept::Bytes { buffer, .. } = kept {
                self.backend.recycle(buffer);
            }
        }
    }

    /// Receive buffers that are kept.
    pub(crate) fn kept_buffers(&self) -> u32 {
        self.kept.iter().filter(|kept| matches!(kept, Kept::Bytes { .. })).count() as u32
    }

    /// Receives that have ended though their sessions were not told yet.
    pub(crate) fn kept_ends(&self) -> u32 {
        let untold = |key: &Key| self.registry.get(*key).is_some_and(|session| session.in_flight.receive);
        self.kept.iter().filter(|kept| matches!(kept, Kept::Ended { key, .. } if untold(key))).count() as u32
    }

    fn must_wait(&self, key: Key) -> bool {
        let Some(session) = self.registry.get(key) else { return false };
        let blocked = self.turn.is_full() || session.marks.held || (self.holding && is_paused(session));
        blocked && !matches!(session.state, State::Dead)
    }

    fn keep(&mut self, key: Key, kept: Kept) {
        self.counters.kept += 1;
        self.put_back(key, kept);
    }

    fn put_back(&mut self, key: Key, kept: Kept) {
        if let Some(session) = self.registry.get_mut(key) {
            session.marks.held = true;
        }
        self.kept.push_back(kept);
    }

    fn holds_too_much(&self) -> bool {
        !self.kept.is_empty() && self.kept.len() as u32 > self.backend.buffers().total / HELD_PART
    }
}

/// Whether a session's bytes wait for the outbox that they would go to. What comes early in a handshake has its own place.
fn is_paused<S>(session: &Session<S>) -> bool {
    session.marks.paused && matches!(session.state, State::Open(_) | State::Paired(_))
}
