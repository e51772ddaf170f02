//! Bytes that wait for a later turn.
//!
//! What a turn sends stays in memory until its system call, so a turn answers only so much ([`Turn::is_full`]); what a
//! session sent before its reader was paused waits, too: nothing of it goes to the outbox that it is paused for.
//!
//! Invariants: of one session nothing is read before what is kept of it (`Marks::held`). Receive buffers wait only for the
//! next turns, never for a peer: what a paused session sent is copied out of them, and so is what is kept when half of
//! them are. A session whose bytes were copied is not read until those were, so each has only what had arrived by then.
//! Sealed bytes are opened when their turn comes, a buffer at a time: of each session only the rest of one is kept opened.
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
    transport::Behind,
    turn::{TURN_HANDSHAKES, Unread},
};

/// What waits for the next turns may hold this part of the receive buffers.
const LENT_PART: u32 = 2;

/// An event that waits.
pub(crate) enum Kept {
    /// Bytes in their receive buffer, of which those before `at` were read.
    Lent { key: Key, buffer: Buffer, at: usize },
    /// The same in memory of their own; `opened` where they are plain whatever the session's transport, with what is behind
    /// them.
    Owned { key: Key, bytes: Vec<u8>, at: usize, opened: Option<Behind> },
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

/// What waits of one session, in order.
struct Waiting {
    entries: VecDeque<Kept>,
    place: Place,
}

/// Where a session is that has something kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// It has its turn some time.
    Ring,
    /// It has it now.
    AtWork,
    /// Its reader is paused: none of it is in receive buffers.
    Parked,
}

/// All that waits.
#[derive(Default)]
pub(crate) struct Backlog {
    sessions: HashMap<Key, Waiting>,
    /// Sessions that can go on, once each: they take turns, a buffer at a time.
    ring: VecDeque<Key>,
    /// Sessions whose handshake of TLS, or token, a turn had no room for, before they are in the ring again.
    handshakes: VecDeque<Key>,
    /// Receive buffers in it.
    lent: u32,
    /// Sessions that were not read until the last that was kept of them was.
    emptied: Vec<Key>,
}

impl Backlog {
    /// Receive buffers in it.
    pub(crate) fn buffers(&self) -> u32 {
        self.lent
    }

    /// The heap that it holds, added up.
    pub(crate) fn owned_bytes(&self) -> usize {
        self.all().map(Kept::owned_bytes).sum()
    }

    /// The heap that it holds of one session.
    pub(crate) fn owned_bytes_of(&self, key: Key) -> usize {
        let waiting = self.sessions.get(&key).into_iter();
        waiting.flat_map(|waiting| &waiting.entries).map(Kept::owned_bytes).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// The sessions of which something waits.
    pub(crate) fn keys(&self) -> impl Iterator<Item = Key> {
        self.sessions.keys().copied()
    }

    fn all(&self) -> impl Iterator<Item = &Kept> {
        self.sessions.values().flat_map(|waiting| &waiting.entries)
    }

    fn push(&mut self, kept: Kept, first: bool) {
        self.lent += u32::from(matches!(kept, Kept::Lent { .. }));
        let key = kept.key();
        let waiting = self.sessions.entry(key).or_insert_with(|| {
            self.ring.push_back(key);
            Waiting { entries: VecDeque::new(), place: Place::Ring }
        });
        match first {
            true => waiting.entries.push_front(kept),
            false => waiting.entries.push_back(kept),
        }
    }

    /// The next of a session that was taken from the ring, and whether it is the last.
    fn pop(&mut self, key: Key) -> Option<(Kept, bool)> {
        let waiting = self.sessions.get_mut(&key)?;
        let kept = waiting.entries.pop_front()?;
        waiting.place = Place::AtWork;
        self.lent -= u32::from(matches!(kept, Kept::Lent { .. }));
        let last = waiting.entries.is_empty();
        if last {
            self.sessions.remove(&key);
        }
        Some((kept, last))
    }

    /// A session that had its turn gets behind the others.
    fn line_up(&mut self, key: Key) {
        if let Some(waiting) = self.sessions.get_mut(&key).filter(|waiting| waiting.place == Place::AtWork) {
            waiting.place = Place::Ring;
            self.ring.push_back(key);
        }
    }

    /// What waits for nothing but a turn.
    pub(crate) fn waiting(&self) -> usize {
        let going_on = self.sessions.values().filter(|waiting| waiting.place != Place::Parked);
        going_on.map(|waiting| waiting.entries.len()).sum()
    }
}

impl<B: Backend, E: Environment> Shard<B, E> {
    /// Reads received bytes now, or keeps them.
    pub(crate) fn read_or_keep(&mut self, key: Key, buffer: Buffer) {
        if self.must_wait(key) {
            let waits = self.registry.get(key).is_some_and(|s| s.transport.is_handshaking());
            self.counters.tls_waited += u64::from(waits);
            self.counters.kept += 1;
            self.put_back(key, Kept::Lent { key, buffer, at: 0 }, false);
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
                    // Who leaves while its upstream is dialed needs none, nor does one that hears no answer.
                    && !matches!(session.state, State::Waiting(_) | State::Dead)
                    && !(matches!(session.state, State::Deciding(_)) && end != ReceiveEnd::Eof) =>
            {
                session.marks.end_kept = true;
                self.put_back(key, Kept::Ended { key, end }, false);
            }
            Some(session)
                if end == ReceiveEnd::Eof && session.in_flight.receive && awaits_answer(session) =>
            {
                session.marks.paused = true;
                session.marks.end_kept = true;
                self.put_back(key, Kept::Ended { key, end }, false);
            }
            _ => self.receive_ended(key, end),
        }
    }

    /// The peer's transport has said that nothing more comes, which is dealt with as its FIN is: behind what its request waits for.
    /// Whether it waits.
    pub(crate) fn keep_sealed_end(&mut self, key: Key) -> bool {
        let waits = self.registry.get_mut(key).filter(|session| awaits_answer(session));
        let Some(session) = waits else { return false };
        session.marks.paused = true;
        let end = Kept::Owned { key, bytes: Vec::new(), at: 0, opened: Some(Behind::End) };
        // All that came before it was read.
        self.put_back(key, end, true);
        true
    }

    /// Before a turn's own events: what is kept, as far as it can go on. Each session in turn has its next buffer read, so
    /// that nobody is behind all that one has sent.
    pub(crate) fn take_up_kept(&mut self) {
        let room = self.backlog.handshakes.len().min(TURN_HANDSHAKES as usize);
        self.backlog.ring.extend(self.backlog.handshakes.drain(..room));
        while let Some(key) = self.backlog.ring.pop_front() {
            let session = self.registry.get(key).filter(|session| !matches!(session.state, State::Dead));
            if session.is_some_and(is_paused) {
                self.park(key);
                continue;
            }
            if session.is_some() && self.turn.is_full() {
                self.backlog.ring.push_front(key);
                break;
            }
            if self.turn.is_full_of_handshakes() && session.is_some_and(|session| self.is_costly(session)) {
                self.backlog.handshakes.push_back(key);
                continue;
            }
            let Some((kept, last)) = self.backlog.pop(key) else { continue };
            if let Some(session) = self.registry.get_mut(key).filter(|_| last) {
                session.marks.held = false;
                if session.marks.sheltered {
                    self.backlog.emptied.push(key);
                }
            }
            self.retained.release(kept.owned_bytes());
            match kept {
                Kept::Lent { buffer, at, .. } => self.received(key, buffer, at),
                Kept::Owned { bytes, at, opened, .. } => self.received_owned(key, bytes, at, opened),
                Kept::Ended { end, .. } => {
                    if let Some(session) = self.registry.get_mut(key) {
                        session.marks.end_kept = false;
                    }
                    // What was before it may be a request that waits itself.
                    self.end_or_keep(key, end);
                }
            }
            self.flush_spans();
            // Of one that was not read to its end nothing may go before the rest.
            if self.turn.unread.last().is_none_or(|unread| unread.key != key) {
                self.backlog.line_up(key);
            }
        }
        self.turn.grant_anew();
    }

    /// What filled the turn, as far as it was not read, waits before all else that is kept of its session.
    pub(crate) fn keep_rest_of_input(&mut self) {
        // From the last one on, as taking a buffer out moves those behind it.
        while let Some(Unread { home, key, at, behind }) = self.turn.unread.pop() {
            self.counters.kept += 1;
            let rest = match home {
                Home::Lent(index) => {
                    Kept::Lent { key, buffer: self.turn.buffers.swap_remove(index as usize), at }
                }
                Home::Owned(index) => {
                    let owned = &mut self.turn.owned[index as usize];
                    // A few bytes may lie in the memory of a large message.
                    let (bytes, at) = match owned.len() - at < owned.capacity() / 2 {
                        true => (owned[at..].to_vec(), 0),
                        false => (std::mem::take(owned), at),
                    };
                    self.retained.hold(bytes.capacity());
                    Kept::Owned { key, bytes, at, opened: Some(behind) }
                }
            };
            self.put_back(key, rest, true);
            self.backlog.line_up(key);
        }
    }

    /// What an early client sent is read with the turns from now on, before what came behind it.
    pub(crate) fn keep_early(&mut self, key: Key, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.retained.hold(bytes.capacity());
            self.put_back(key, Kept::Owned { key, bytes, at: 0, opened: Some(Behind::More) }, true);
            self.shelter_session(key);
        }
        self.unpark(key);
    }

    /// What is kept of a session that is not paused any more, or over, goes on with the next turn.
    pub(crate) fn unpark(&mut self, key: Key) {
        if planted::is(Bug::ForgetParked) {
            return;
        }
        let waiting = self.backlog.sessions.get_mut(&key);
        let Some(waiting) = waiting.filter(|waiting| waiting.place == Place::Parked) else { return };
        waiting.place = Place::Ring;
        self.backlog.ring.push_back(key);
        self.shelter_session(key);
    }

    /// Whether something kept can go on with the next turn.
    pub(crate) fn can_take_up(&self) -> bool {
        !(self.backlog.ring.is_empty() && self.backlog.handshakes.is_empty())
    }

    /// Lets go of bytes that are kept of a session that is over: nobody reads them any more. Not of sealed ones, which must be opened
    /// for what comes behind them.
    pub(crate) fn forget_kept(&mut self, key: Key) {
        if self.registry.get(key).is_some_and(|session| session.transport.is_tls()) {
            return;
        }
        let Some(waiting) = self.backlog.sessions.get_mut(&key) else { return };
        let mut bytes = 0;
        for kept in &mut waiting.entries {
            bytes += kept.owned_bytes();
            if let Kept::Owned { bytes, at, .. } = kept {
                (*bytes, *at) = (Vec::new(), 0);
            }
        }
        self.retained.release(bytes);
    }

    /// Gives back what is kept, at the shard's end.
    pub(crate) fn drop_kept(&mut self) {
        if planted::is(Bug::LeakAtEnd) {
            return;
        }
        for buffer in self.turn.buffers.drain(..) {
            self.backend.recycle(buffer);
        }
        let backlog = std::mem::take(&mut self.backlog);
        self.retained.release(backlog.owned_bytes());
        for kept in backlog.sessions.into_values().flat_map(|waiting| waiting.entries) {
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
        let blocked = self.turn.is_full()
            || session.marks.held
            || is_paused(session)
            || (self.turn.is_full_of_handshakes() && self.is_costly(session));
        blocked && !matches!(session.state, State::Dead)
    }

    /// Keeps an event behind all that is kept of its session, or before it.
    fn put_back(&mut self, key: Key, kept: Kept, first: bool) {
        let lasting = self.registry.get_mut(key).is_some_and(|session| {
            session.marks.held = true;
            is_paused(session)
        });
        let kept = self.shelter(kept, lasting);
        self.backlog.push(kept, first);
    }

    /// What is kept of a paused session leaves the ring and the receive buffers.
    fn park(&mut self, key: Key) {
        let Some(Waiting { entries, .. }) = self.backlog.sessions.remove(&key) else { return };
        let lent = entries.iter().filter(|kept| matches!(kept, Kept::Lent { .. })).count() as u32;
        self.backlog.lent -= lent;
        let entries = entries.into_iter().map(|kept| self.shelter(kept, true)).collect();
        self.backlog.sessions.insert(key, Waiting { entries, place: Place::Parked });
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
                Kept::Owned { key, bytes, at: 0, opened: None }
            }
            kept => kept,
        }
    }

    fn lends_too_many(&self) -> bool {
        self.backlog.lent >= (self.backend.buffers().total / LENT_PART).max(1)
    }

    /// Stops reading a session until all that is kept of it was read.
    fn shelter_session(&mut self, key: Key) {
        let Some(session) = self.registry.get_mut(key) else { return };
        if session.marks.sheltered || matches!(session.state, State::Dead) {
            return;
        }
        session.marks.sheltered = true;
        self.cancel_receive(key);
    }

    /// Sessions of which nothing is kept any more are read again. After a turn's events: no end of an earlier receive may be
    /// among them.
    pub(crate) fn arm_sheltered(&mut self) {
        while let Some(key) = self.backlog.emptied.pop() {
            let Some(session) = self.registry.get_mut(key) else { continue };
            if session.marks.held || !session.marks.sheltered || matches!(session.state, State::Dead) {
                continue;
            }
            session.marks.sheltered = false;
            if !planted::is(Bug::ForgetSheltered) {
                self.arm_receive(key);
            }
        }
    }
}

/// Whether who has sent all of a request waits for its answer though nothing more will come: a hook is asked.
fn awaits_answer<S>(session: &Session<S>) -> bool {
    matches!(&session.state, State::Deciding(deciding) if !deciding.is_upgrade)
}

/// Whether a session's bytes wait: for the outbox that they would go to, or for an upstream.
fn is_paused<S>(session: &Session<S>) -> bool {
    session.marks.paused && !matches!(session.state, State::Lingering { .. } | State::Dead)
}
