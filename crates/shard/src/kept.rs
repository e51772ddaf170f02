//! Bytes that wait for a later turn.
//!
//! What a turn sends stays in memory until its system call, so a turn answers only so much ([`Turn::is_full`]); what a
//! session sent before its reader was paused waits, too: nothing of it goes to the outbox that it is paused for.
//!
//! Invariants: of one session nothing is read before what is kept of it (`Marks::held`). Receive buffers wait only for the
//! next turns, never for a peer: what a paused session sent is copied out of them, and so is what is kept when half of
//! them are. A session whose bytes were copied is not read until those were, so each has only what had arrived by then.
//!
//! [`Turn::is_full`]: crate::turn::Turn::is_full

use std::collections::{HashMap, VecDeque};

use tidegate_io::{Backend, Buffer, ReceiveEnd};
use tidegate_registry::Key;

use crate::{
    environment::Environment,
    input::Home,
    planted::{self, Bug},
    session::{Session, State},
    shard::Shard,
};

/// What waits for the next turns may hold this part of the receive buffers.
const LENT_PART: u32 = 2;

/// An event that waits.
pub(crate) enum Kept {
    /// Bytes in their receive buffer, of which those before `at` were read.
    Lent { key: Key, buffer: Buffer, at: usize },
    /// The same in memory of their own, `opened` where they are plain whatever the session's transport.
    Owned { key: Key, bytes: Vec<u8>, at: usize, opened: bool },
    /// The end behind them: the peer's FIN or an error.
    Ended { key: Key, end: ReceiveEnd },
}

impl Kept {
    fn key(&self) -> Key {
        match self {
            Kept::Lent { key, .. } | Kept::Owned { key, .. } | Kept::Ended { key, .. } => *key,
        }
    }

    /// The heap that it holds.
    fn owned_bytes(&self) -> usize {
        match self {
            Kept::Owned { bytes, .. } => bytes.capacity(),
            Kept::Lent { .. } | Kept::Ended { .. } => 0,
        }
    }
}

/// All that waits.
#[derive(Default)]
pub(crate) struct Backlog {
    /// For the next turns.
    queue: VecDeque<Kept>,
    /// Receive buffers in the queue.
    lent: u32,
    /// For paused sessions: none of it in receive buffers.
    parked: HashMap<Key, Vec<Kept>>,
    /// Sessions that are not read until the queue holds nothing of theirs.
    sheltered: Vec<Key>,
}

impl Backlog {
    /// Receive buffers in it.
    pub(crate) fn buffers(&self) -> u32 {
        self.lent
    }

    /// What waits for nothing but a turn.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// The heap that it holds, added up.
    pub(crate) fn owned_bytes(&self) -> usize {
        self.all().map(Kept::owned_bytes).sum()
    }

    fn all(&self) -> impl Iterator<Item = &Kept> {
        self.queue.iter().chain(self.parked.values().flatten())
    }

    fn push(&mut self, kept: Kept) {
        self.lent += u32::from(matches!(kept, Kept::Lent { .. }));
        self.queue.push_back(kept);
    }

    fn pop(&mut self) -> Option<Kept> {
        let kept = self.queue.pop_front()?;
        self.lent -= u32::from(matches!(kept, Kept::Lent { .. }));
        Some(kept)
    }
}

impl<B: Backend, E: Environment> Shard<B, E> {
    /// Reads received bytes now, or keeps them.
    pub(crate) fn read_or_keep(&mut self, key: Key, buffer: Buffer) {
        if self.must_wait(key) {
            self.counters.kept += 1;
            self.put_back(key, Kept::Lent { key, buffer, at: 0 });
        } else {
            self.received(key, buffer, 0);
        }
    }

    /// Deals with a receive's end now, or behind the bytes that are kept.
    pub(crate) fn end_or_keep(&mut self, key: Key, end: ReceiveEnd) {
        let last = matches!(end, ReceiveEnd::Eof | ReceiveEnd::Error(_));
        match self.registry.get_mut(key) {
            // Its receive has ended already.
            Some(session) if session.marks.end_kept => self.counters.stale += 1,
            // One that was not armed did not end: it is stale now, and might not be later.
            Some(session)
                if last
                    && session.marks.held
                    && session.in_flight.receive
                    && !matches!(session.state, State::Dead) =>
            {
                session.marks.end_kept = true;
                self.put_back(key, Kept::Ended { key, end });
            }
            _ => self.receive_ended(key, end),
        }
    }

    /// Before a turn's own events: what is kept, in order, as far as it can go on.
    pub(crate) fn take_up_kept(&mut self) {
        for kept in &self.backlog.queue {
            if let Some(session) = self.registry.get_mut(kept.key()) {
                session.marks.held = false;
            }
        }
        for _ in 0..self.backlog.queue.len() {
            let Some(kept) = self.backlog.pop() else { break };
            let key = kept.key();
            if self.must_wait(key) {
                // Only the first of a session's is parked, or behind one that was: the queue holds none before it then.
                if self.registry.get(key).is_some_and(|session| is_paused(session) && !session.marks.held) {
                    self.park(key, kept);
                } else {
                    self.put_back(key, kept);
                }
                continue;
            }
            self.retained.release(kept.owned_bytes());
            match kept {
                Kept::Lent { buffer, at, .. } => self.received(key, buffer, at),
                Kept::Owned { bytes, at, opened, .. } => self.received_owned(key, bytes, at, opened),
                Kept::Ended { end, .. } => {
                    if let Some(session) = self.registry.get_mut(key) {
                        session.marks.end_kept = false;
                    }
                    self.receive_ended(key, end);
                }
            }
            self.flush_spans();
        }
        self.turn.grant_anew();
    }

    /// What filled the turn, as far as it was not read, goes to the end of the queue, and what is kept of its session
    /// behind it: the others have their turn before one whose messages are dear to answer has its next.
    pub(crate) fn keep_rest_of_input(&mut self) {
        // From the last one on, as taking a buffer out moves those behind it.
        while let Some((home, key, at)) = self.turn.unread.pop() {
            self.counters.kept += 1;
            let rest = match home {
                Home::Lent(index) => {
                    Kept::Lent { key, buffer: self.turn.buffers.swap_remove(index as usize), at }
                }
                Home::Owned(index) => {
                    let bytes = std::mem::take(&mut self.turn.owned[index as usize]);
                    self.retained.hold(bytes.capacity());
                    // Sealed bytes are read whole.
                    Kept::Owned { key, bytes, at, opened: true }
                }
            };
            self.keep_before(key, rest);
        }
    }

    /// What an early client sent is read with the turns from now on, before what came behind it.
    pub(crate) fn keep_early(&mut self, key: Key, bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        self.retained.hold(bytes.capacity());
        self.keep_before(key, Kept::Owned { key, bytes, at: 0, opened: true });
        self.shelter_session(key);
    }

    /// Keeps an event at the end of the queue, and behind it all that is kept of its session.
    fn keep_before(&mut self, key: Key, first: Kept) {
        let mut behind = Vec::new();
        for _ in 0..self.backlog.queue.len() {
            let Some(kept) = self.backlog.pop() else { break };
            if kept.key() == key { behind.push(kept) } else { self.backlog.push(kept) }
        }
        behind.extend(self.backlog.parked.remove(&key).into_iter().flatten());
        self.put_back(key, first);
        behind.into_iter().for_each(|kept| self.backlog.push(kept));
    }

    /// What is kept of a session that is not paused any more, or over, goes on with the next turn.
    pub(crate) fn unpark(&mut self, key: Key) {
        if planted::is(Bug::ForgetParked) {
            return;
        }
        let Some(parked) = self.backlog.parked.remove(&key) else { return };
        parked.into_iter().for_each(|kept| self.backlog.push(kept));
        self.shelter_session(key);
    }

    /// Whether something kept can go on with the next turn.
    pub(crate) fn can_take_up(&self) -> bool {
        !self.backlog.queue.is_empty()
    }

    /// Gives back what is kept and what the last turn has received, at the shard's end.
    pub(crate) fn drop_kept(&mut self) {
        if planted::is(Bug::LeakAtEnd) {
            return;
        }
        for buffer in self.turn.buffers.drain(..) {
            self.backend.recycle(buffer);
        }
        let backlog = std::mem::take(&mut self.backlog);
        self.retained.release(backlog.owned_bytes());
        for kept in backlog.queue {
            if let Kept::Lent { buffer, .. } = kept {
                self.backend.recycle(buffer);
            }
        }
    }

    /// Receives that have ended though their sessions were not told yet.
    pub(crate) fn kept_ends(&self) -> u32 {
        let untold = |key: &Key| self.registry.get(*key).is_some_and(|session| session.in_flight.receive);
        self.backlog.all().filter(|kept| matches!(kept, Kept::Ended { key, .. } if untold(key))).count()
            as u32
    }

    fn must_wait(&self, key: Key) -> bool {
        let Some(session) = self.registry.get(key) else { return false };
        let blocked = self.turn.is_full() || session.marks.held || is_paused(session);
        blocked && !matches!(session.state, State::Dead)
    }

    /// Keeps an event behind all that is kept of its session.
    fn put_back(&mut self, key: Key, kept: Kept) {
        if self.backlog.parked.contains_key(&key) {
            self.park(key, kept);
            return;
        }
        let Some(session) = self.registry.get_mut(key) else { return self.backlog.push(kept) };
        session.marks.held = true;
        let lasting = is_paused(session);
        let kept = self.shelter(kept, lasting);
        self.backlog.push(kept);
    }

    /// Keeps an event until its session is resumed. Its queue holds none before it.
    fn park(&mut self, key: Key, kept: Kept) {
        let kept = self.shelter(kept, true);
        if let Some(session) = self.registry.get_mut(key) {
            session.marks.held = true;
        }
        self.backlog.parked.entry(key).or_default().push(kept);
    }

    /// Moves bytes out of their receive buffer if they will wait for long or too many buffers are kept.
    fn shelter(&mut self, kept: Kept, lasting: bool) -> Kept {
        match kept {
            Kept::Lent { key, buffer, at } if lasting || self.lends_too_many() => {
                let bytes = buffer[at..].to_vec();
                if at == 0 {
                    self.counters.bytes_received += bytes.len() as u64;
                }
                self.backend.recycle(buffer);
                self.retained.hold(bytes.capacity());
                self.shelter_session(key);
                Kept::Owned { key, bytes, at: 0, opened: false }
            }
            kept => kept,
        }
    }

    fn lends_too_many(&self) -> bool {
        self.backlog.lent >= (self.backend.buffers().total / LENT_PART).max(1)
    }

    /// Stops reading a session until the queue holds nothing of it.
    fn shelter_session(&mut self, key: Key) {
        let Some(session) = self.registry.get_mut(key) else { return };
        if session.marks.sheltered || matches!(session.state, State::Dead) {
            return;
        }
        session.marks.sheltered = true;
        self.backlog.sheltered.push(key);
        self.cancel_receive(key);
    }

    /// Sessions of which nothing is kept any more are read again; those that are parked will be sheltered anew when they
    /// go on. After a turn's events: no end of an earlier receive may be among them.
    pub(crate) fn arm_sheltered(&mut self) {
        let mut sheltered = std::mem::take(&mut self.backlog.sheltered);
        sheltered.retain(|&key| {
            let parked = self.backlog.parked.contains_key(&key);
            let Some(session) = self.registry.get_mut(key) else { return false };
            if matches!(session.state, State::Dead) {
                return false;
            }
            if session.marks.held && !parked {
                return true;
            }
            session.marks.sheltered = false;
            if !planted::is(Bug::ForgetSheltered) {
                self.arm_receive(key);
            }
            false
        });
        self.backlog.sheltered = sheltered;
    }
}

/// Whether a session's bytes wait: for the outbox that they would go to, or for an upstream.
fn is_paused<S>(session: &Session<S>) -> bool {
    session.marks.paused && !matches!(session.state, State::Lingering { .. } | State::Dead)
}
