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
    session::State,
    shard::Shard,
    stamp::Stamp,
    transport::{Behind, Opened, Transport},
    turn::Source,
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
    /// Where the turn is full, what is left may wait for the next one.
    pub(crate) may_wait: bool,
}

impl Place {
    fn new(home: Home, offset: usize) -> Place {
        Place { home, offset: offset as u32, may_wait: false }
    }

    fn may_wait(self) -> Place {
        Place { may_wait: true, ..self }
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

impl<B: Backend, E: Environment> Shard<B, E> {
    /// Reads received bytes from `at` on.
    pub(crate) fn received(&mut self, key: Key, mut buffer: Buffer, at: usize) {
        let Some(sealed) = self.hears(key) else {
            if !planted::is(Bug::LeakStaleBuffer) {
                self.backend.recycle(buffer);
            }
            return;
        };
        if at == 0 {
            self.counters.bytes_received += buffer.len() as u64;
        }
        let home = Home::Lent(self.turn.buffers.len() as u32);
        self.read(key, &mut buffer, at, home, sealed);
        if planted::is(Bug::ReturnBufferEarly) {
            buffer[..].fill(0);
        }
        self.turn.buffers.push(buffer);
    }

    /// The same for bytes that were moved out of their receive buffer.
    pub(crate) fn received_owned(&mut self, key: Key, mut bytes: Vec<u8>, at: usize, opened: bool) {
        let Some(sealed) = self.hears(key).map(|seals| seals && !opened) else { return };
        let index = self.turn.reserve_carried(bytes.len() - at);
        self.read(key, &mut bytes, at, Home::Owned(index as u32), sealed);
        self.turn.owned[index] = bytes;
    }

    /// Notes that the peer was heard, and gives whether what it sends is sealed; nothing where the session is gone.
    fn hears(&mut self, key: Key) -> Option<bool> {
        let Some(session) = self.registry.get_mut(key) else {
            self.counters.stale += 1;
            return None;
        };
        session.seen = Stamp::at(self.now_ms);
        Some(session.transport.seals())
    }

    /// Reads bytes from `at` on, and notes what has to wait.
    fn read(&mut self, key: Key, bytes: &mut [u8], at: usize, home: Home, sealed: bool) {
        if sealed {
            debug_assert_eq!(at, 0, "sealed bytes are read whole");
            self.sealed_input(key, bytes, home);
            return;
        }
        let read = at + self.input(key, &mut bytes[at..], Place::new(home, at).may_wait());
        if read < bytes.len() {
            self.turn.unread.push((home, key, read));
            if let Some(session) = self.registry.get_mut(key) {
                session.marks.held = true;
            }
        }
    }

    /// Opens records and reads what was in them.
    fn sealed_input(&mut self, key: Key, bytes: &mut [u8], home: Home) {
        let mut at = 0;
        while at < bytes.len() {
            let Some(session) = self.registry.get_mut(key) else { return };
            if session.transport.is_tls() && matches!(session.state, State::Lingering { .. } | State::Dead) {
                // Nobody reads it: what is discarded need not be opened.
                self.discard(key, bytes.len());
                return;
            }
            let (handshakes, spares) = (session.transport.is_handshaking(), &mut self.spares);
            let len = bytes.len();
            match session.transport.open(bytes, &mut at, || spares.take_large(len)) {
                Opened::InPlace(range) => {
                    let place = Place::new(home, range.start);
                    self.input(key, &mut bytes[range], place);
                }
                Opened::Apart(plain, behind) => {
                    self.say_sealed(key);
                    if handshakes {
                        self.has_shaken(key);
                    }
                    if plain.is_empty() {
                        self.spares.give(plain);
                    } else {
                        self.carried_input(key, plain);
                    }
                    match behind {
                        Behind::More => {}
                        Behind::End => self.sealed_ended(key),
                        Behind::Fault(reason) => self.tls_failed(key, reason),
                    }
                }
                Opened::Partial => {}
                Opened::End => at = bytes.len(),
                Opened::Broken => {
                    self.peer_broke(key, 0);
                    return;
                }
            }
        }
    }

    /// What a transport has to say itself goes out: its part of a handshake, tickets, an alert.
    fn say_sealed(&mut self, key: Key) {
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

    /// A client's handshake of TLS has come a step further.
    fn has_shaken(&mut self, key: Key) {
        let Some(session) = self.registry.get_mut(key) else { return };
        if session.transport.is_handshaking() {
            // Its answer, with the keys and the signature in it, is what takes time.
            self.turn.handshakes += u32::from(session.transport.has_sealed());
            return;
        }
        let Transport::Tls(tls) = &mut session.transport else { return };
        let (is_open, unwelcome) = (tls.is_open(), std::mem::take(&mut tls.unwelcome));
        if !is_open {
            return;
        }
        self.counters.tls_opened += 1;
        self.counters.tls_resumed += u64::from(tls.is_resumed());
        if unwelcome {
            self.refuse_full(key);
        }
    }

    /// The peer has said that it sends nothing more, as its FIN does.
    fn sealed_ended(&mut self, key: Key) {
        let Some(session) = self.registry.get_mut(key) else { return };
        session.marks.ended = true;
        if session.transport.is_handshaking() {
            self.counters.tls_failed += 1;
        }
        self.peer_ended(key);
    }

    /// Reads bytes that lie in memory of their own, all of them.
    pub(crate) fn carried_input(&mut self, key: Key, mut bytes: Vec<u8>) {
        let index = self.turn.reserve_carried(bytes.len());
        self.input(key, &mut bytes, Place::new(Home::Owned(index as u32), 0));
        self.turn.owned[index] = bytes;
    }

    /// Reads bytes, all of them unless the turn is full; gives how many.
    fn input(&mut self, key: Key, mut bytes: &mut [u8], mut place: Place) -> usize {
        let len = bytes.len();
        while !bytes.is_empty() {
            let Some(session) = self.registry.get_mut(key) else { return len };
            let was_head = matches!(session.state, State::Head(_));
            let used = match &mut session.state {
                State::Open(_) if self.plan.route(session.route).topics.is_some() => {
                    self.read_topic_messages(key, bytes, place)
                }
                State::Open(_) => self.read_messages(key, bytes, place),
                State::Paired(_) => self.relay(key, bytes, place),
                State::Head(_) => self.read_head(key, bytes),
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
            if place.may_wait && (self.turn.is_full() || asks_more || self.is_stopped(key)) {
                break;
            }
        }
        len - bytes.len()
    }

    /// Counts what a lingering session still sends; past the bound it is cut off.
    fn discard(&mut self, key: Key, len: usize) -> usize {
        let bound = self.plan.limits().linger_bytes;
        let Some(session) = self.registry.get_mut(key) else { return len };
        if let State::Lingering { discarded, .. } = &mut session.state {
            *discarded = discarded.saturating_add(len as u32);
            if *discarded as usize > bound {
                self.abort(key, true);
            }
        }
        len
    }
}
