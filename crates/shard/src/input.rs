//! From a receive buffer to the state that reads it.
//!
//! A buffer may hold the end of a head and the first frames behind it: each state takes what is its own and leaves
//! the rest to the state that follows.

use std::ops::Range;

use tidegate_io::{Backend, Buffer};
use tidegate_registry::{End, Key};

use crate::{
    environment::Environment,
    planted::{self, Bug},
    session::{Fact, State},
    shard::Shard,
    stamp::Stamp,
    transport::{Behind, Transport},
    turn::{Source, Unread},
};

/// What the bytes at hand are part of until the turn's system call has returned.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Home {
    /// The turn's receive buffer of this index.
    Lent(u32),
    /// The turn's owned bytes of this index.
    Owned(u32),
}

/// Where the bytes at hand will lie when the event was handled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    home: Home,
    offset: u32,
}

impl Place {
    fn new(home: Home, offset: usize) -> Place {
        Place { home, offset: offset as u32 }
    }

    fn behind(self, used: usize) -> Place {
        Place { offset: self.offset + used as u32, ..self }
    }

    /// A range of the bytes at hand, as a piece to send.
    pub(crate) fn source(self, range: Range<usize>) -> Source {
        let (start, end) = (self.offset + range.start as u32, self.offset + range.end as u32);
        match self.home {
            Home::Lent(buffer) => Source::Received { buffer, start, end },
            Home::Owned(index) => Source::Carried { index, start, end },
        }
    }
}

/// What a session's bytes are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Heard {
    /// They begin with a PROXY header, or are the rest of one.
    ProxyHeader,
    /// Records of its transport.
    Sealed,
    Plain,
}

impl<B: Backend, E: Environment> Shard<B, E> {
    /// Reads received bytes from `at` on.
    pub(crate) fn received(&mut self, key: Key, mut buffer: Buffer, at: usize) {
        let fresh = if at == 0 { buffer.len() } else { 0 };
        let Some(heard) = self.hears(key, fresh) else {
            if !planted::is(Bug::LeakStaleBuffer) {
                self.backend.recycle(buffer);
            }
            return;
        };
        self.counters.bytes_received += fresh as u64;
        let (at, sealed) = match heard {
            Heard::Plain => (at, false),
            Heard::Sealed => (0, true),
            Heard::ProxyHeader => (self.read_proxy_header(key, &buffer), self.is_sealed(key)),
        };
        if sealed {
            self.sealed_input(key, &mut buffer[at..]);
        } else {
            let home = Home::Lent(self.turn.buffers.len() as u32);
            self.read(key, &mut buffer, at, home, Behind::More);
        }
        if planted::is(Bug::ReturnBufferEarly) {
            buffer[..].fill(0);
        }
        self.turn.buffers.push(buffer);
    }

    /// The same for bytes that were moved out of their receive buffer, or that were opened: then with what is behind them.
    pub(crate) fn received_owned(&mut self, key: Key, mut bytes: Vec<u8>, at: usize, opened: Option<Behind>) {
        let fresh = if at == 0 && opened.is_none() { bytes.len() } else { 0 };
        let Some(heard) = self.hears(key, fresh) else { return };
        let (at, sealed) = match heard {
            Heard::Plain => (at, false),
            Heard::Sealed => (at, opened.is_none()),
            Heard::ProxyHeader => (self.read_proxy_header(key, &bytes), self.is_sealed(key)),
        };
        if sealed {
            self.sealed_input(key, &mut bytes[at..]);
            self.spares.give(bytes);
        } else {
            self.opened_input(key, bytes, at, opened.unwrap_or(Behind::More));
        }
    }

    fn is_sealed(&self, key: Key) -> bool {
        self.registry.get(key).is_some_and(|session| session.transport.seals())
    }

    /// Notes that the peer was heard, with so many bytes that were not counted yet, and gives how what it sends is to be read;
    /// nothing where the session is gone.
    fn hears(&mut self, key: Key, fresh: usize) -> Option<Heard> {
        let Some(session) = self.registry.get_mut(key) else {
            self.counters.stale += 1;
            return None;
        };
        session.seen = Stamp::at(self.now_ms);
        if let Some(accounts) = &mut self.accounts {
            accounts.count(key, session, |flow| flow.received_bytes += fresh as u64);
        }
        Some(match session.transport.seals() {
            _ if session.marks.facts.has(Fact::ProxyHeader) => Heard::ProxyHeader,
            true => Heard::Sealed,
            false => Heard::Plain,
        })
    }

    /// Reads plain bytes from `at` on, and notes what has to wait; whether nothing has.
    fn read(&mut self, key: Key, bytes: &mut [u8], at: usize, home: Home, behind: Behind) -> bool {
        let read = at + self.input(key, &mut bytes[at..], Place::new(home, at));
        if read == bytes.len() {
            return true;
        }
        self.turn.unread.push(Unread { home, key, at: read, behind });
        if let Some(session) = self.registry.get_mut(key) {
            session.marks.held = true;
        }
        false
    }

    /// Opens records, all that came, and reads what was in them.
    fn sealed_input(&mut self, key: Key, bytes: &mut [u8]) {
        if bytes.is_empty() {
            // All of it was a PROXY header.
            return;
        }
        let Some(session) = self.registry.get_mut(key) else { return };
        if session.transport.is_tls() && matches!(session.state, State::Lingering { .. } | State::Dead) {
            // Nobody reads it: what is discarded need not be opened.
            self.discard(key, bytes.len());
            return;
        }
        let shaking = session.transport.is_handshaking();
        let (waited, held) = (session.transport.waiting_bytes(), session.sealed_bytes());
        let had = waited + bytes.len();
        let (plain, behind) = session.transport.open(bytes, self.spares.take_brief(bytes.len()));
        let (waits, holds) = (session.transport.waiting_bytes(), session.sealed_bytes());
        if waits > 0 && (waited == 0 || waits < had) && !session.is_mid_message() {
            // The record that is not whole has begun with these bytes.
            session.since = Stamp::at(self.now_ms);
        }
        self.recount(held, holds);
        self.say_sealed(key);
        if shaking {
            self.has_shaken(key, had);
        }
        if plain.is_empty() {
            self.spares.give(plain);
            if behind == Behind::End {
                self.sealed_ended(key);
            }
        } else {
            self.opened_input(key, plain, 0, behind);
        }
        // At once, whatever waits before it: no answer to that can be sealed any more.
        if let Behind::Fault(reason) = behind {
            self.sealed_failed(key, reason);
        }
    }

    /// Reads plain bytes that lie in memory of their own, and deals with their end behind the last of them.
    fn opened_input(&mut self, key: Key, mut bytes: Vec<u8>, at: usize, behind: Behind) {
        let index = self.turn.reserve_carried(bytes.len() - at);
        let is_read = self.read(key, &mut bytes, at, Home::Owned(index as u32), behind);
        self.turn.owned[index] = bytes;
        if is_read && behind == Behind::End {
            self.sealed_ended(key);
        }
    }

    /// What a transport has to say itself goes out: its part of a handshake, tickets, an alert.
    pub(crate) fn say_sealed(&mut self, key: Key) {
        let Some(session) = self.registry.get_mut(key) else { return };
        if !session.transport.has_sealed() || session.marks.fin_sent || matches!(session.state, State::Dead) {
            return;
        }
        if session.outbox.is_empty() {
            self.turn.place_of(key, session);
            return;
        }
        let sealed = session.transport.take_sealed();
        let end = if session.outbox.at_boundary() { End::Boundary } else { End::Inside };
        let route = self.plan.route(session.route);
        // Its number is bounded by what the peer sends, and one that takes nothing is ended by its time-out.
        let _ = session.outbox.append_always(&sealed, end, &route.outbox, route.full, &mut self.retained);
        if session.dirty == 0 && !session.in_flight.poll {
            session.dirty = self.turn.enlist(key, true);
        }
    }

    /// So many bytes were there for a handshake of TLS.
    fn has_shaken(&mut self, key: Key, had: usize) {
        let Some(session) = self.registry.get_mut(key) else { return };
        let has_sealed = session.transport.has_sealed();
        let Transport::Tls(tls) = &mut session.transport else { return };
        if tls.is_handshaking() {
            // Its answer, with the keys and the signature in it, is what takes time; and behind that a client's certificates, which
            // may come before the rest of their flight. What is not whole yet takes none.
            let has_moved = tls.has_answered && tls.waiting_bytes() < had;
            tls.has_answered |= has_sealed;
            self.turn.handshakes += u32::from(has_sealed || has_moved);
            return;
        }
        if session.marks.upstream {
            self.has_secured(key);
            return;
        }
        let (is_open, unwelcome) = (tls.is_open(), std::mem::take(&mut tls.unwelcome));
        // What fails behind the answer may be the last of all that was judged; and what was to be resumed was judged before it.
        let is_costly = if is_open { tls.is_end_costly() } else { tls.has_answered || tls.is_resumed() };
        self.turn.handshakes += u32::from(is_costly);
        if !is_open {
            return;
        }
        self.counters.tls_opened += 1;
        self.counters.tls_resumed += u64::from(tls.is_resumed());
        if let Some(refusal) = unwelcome {
            self.refuse(key, refusal, false);
        }
    }

    /// What came is not what the peer can have sealed.
    fn sealed_failed(&mut self, key: Key, reason: &'static str) {
        let Some(session) = self.registry.get(key) else { return };
        match (session.transport.is_tls(), session.marks.upstream) {
            (true, true) => self.leg_unsealable(key, reason),
            (true, false) => self.tls_failed(key, reason),
            (false, _) => self.peer_broke(key, 0),
        }
    }

    /// The peer has said that it sends nothing more, as its FIN does.
    fn sealed_ended(&mut self, key: Key) {
        if self.keep_sealed_end(key) {
            return;
        }
        let Some(session) = self.registry.get_mut(key) else { return };
        session.marks.ended = true;
        if session.transport.is_handshaking() && !session.marks.upstream {
            self.counters.tls_failed += 1;
        }
        self.peer_ended(key);
    }

    /// Reads bytes, all of them unless the turn is full; gives how many.
    fn input(&mut self, key: Key, mut bytes: &mut [u8], mut place: Place) -> usize {
        let len = bytes.len();
        while !bytes.is_empty() {
            let Some(session) = self.registry.get_mut(key) else { return len };
            let was_head = matches!(session.state, State::Head(_));
            let used = match &mut session.state {
                State::Open(_) if self.plan.route(session.route).topics.is_some() => {
                    self.read_topic_messages(key, bytes)
                }
                State::Open(_) => self.read_messages(key, bytes, place),
                State::Paired(_) => self.relay(key, bytes, place),
                State::Head(_) => self.read_head(key, bytes),
                State::Deciding(_) => self.hold_undecided(key, bytes),
                State::Waiting(_) => self.hold_early(key, bytes),
                State::Dialing(_) => self.read_answer(key, bytes),
                State::Exchange(_) => self.read_exchange(key, bytes),
                State::Lingering { .. } => self.discard(key, bytes.len()),
                State::Dead => return len,
            };
            if was_head && planted::is(Bug::DropEarlyData) {
                return len;
            }
            bytes = &mut bytes[used..];
            place = place.behind(used);
            // Behind a page that joins others in the outbox it is seen first whether they pause their reader: one received
            // buffer asks for hundreds.
            let asks_more =
                was_head && self.registry.get(key).is_some_and(|session| !session.outbox.is_empty());
            let is_costly = was_head && self.turn.is_full_of_handshakes();
            let rests = !bytes.is_empty() && self.is_delayed(key);
            if self.turn.is_full() || asks_more || is_costly || self.is_stopped(key) || rests {
                break;
            }
        }
        len - bytes.len()
    }

    /// Counts what a lingering session still sends; past the bound it is cut off.
    fn discard(&mut self, key: Key, len: usize) -> usize {
        let Some(session) = self.registry.get_mut(key) else { return len };
        if let State::Lingering { left_bytes, .. } = &mut session.state {
            match left_bytes.checked_sub(len as u32) {
                Some(left) => *left_bytes = left,
                None => self.abort(key, true),
            }
        }
        len
    }
}
