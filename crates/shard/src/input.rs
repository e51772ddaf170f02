//! From a receive buffer to the state that reads it.
//!
//! A buffer may hold the end of a head and the first frames behind it: each state takes what is its own and leaves
//! the rest to the state that follows.

use std::ops::Range;

use tidegate_io::{Backend, Buffer};
use tidegate_registry::Key;

use crate::{
    environment::Environment,
    planted::{self, Bug},
    session::State,
    shard::Shard,
    stamp::Stamp,
    transport::Opened,
    turn::Source,
};

/// Where the bytes at hand will lie when the event was handled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    carried: bool,
    /// Where the turn is full, what is left may wait for the next one.
    pub(crate) may_wait: bool,
    index: u32,
    offset: u32,
}

impl Place {
    fn received(index: usize, offset: usize) -> Place {
        Place { carried: false, may_wait: false, index: index as u32, offset: offset as u32 }
    }

    fn plain(index: usize, offset: usize) -> Place {
        Place { may_wait: true, ..Place::received(index, offset) }
    }

    fn carried(index: usize) -> Place {
        Place { carried: true, may_wait: false, index: index as u32, offset: 0 }
    }

    fn behind(self, used: usize) -> Place {
        Place { offset: self.offset + used as u32, ..self }
    }

    /// A range of the bytes at hand, as a piece to send.
    pub(crate) fn source(self, range: Range<usize>) -> Source {
        let (start, end) = (self.offset + range.start as u32, self.offset + range.end as u32);
        match self.carried {
            false => Source::Received { buffer: self.index, start, end },
            true => Source::Carried { index: self.index, start, end },
        }
    }
}

impl<B: Backend, E: Environment> Shard<B, E> {
    /// Reads received bytes from `at` on.
    pub(crate) fn received(&mut self, key: Key, mut buffer: Buffer, at: usize) {
        let now_ms = self.now_ms;
        let Some(session) = self.registry.get_mut(key) else {
            self.counters.stale += 1;
            if !planted::is(Bug::LeakStaleBuffer) {
                self.backend.recycle(buffer);
            }
            return;
        };
        session.seen = Stamp::at(now_ms);
        if at == 0 {
            self.counters.bytes_received += buffer.len() as u64;
        }
        let index = self.turn.buffers.len();
        if session.transport.seals() {
            self.sealed_input(key, &mut buffer, index);
        } else {
            let read = at + self.input(key, &mut buffer[at..], Place::plain(index, at));
            if read < buffer.len() {
                self.turn.unread = Some((index, key, read));
                if let Some(session) = self.registry.get_mut(key) {
                    session.marks.held = true;
                }
            }
        }
        if planted::is(Bug::ReturnBufferEarly) {
            buffer[..].fill(0);
        }
        self.turn.buffers.push(buffer);
    }

    /// Opens records and reads what was in them.
    fn sealed_input(&mut self, key: Key, buffer: &mut [u8], index: usize) {
        let mut at = 0;
        while at < buffer.len() {
            let Some(session) = self.registry.get_mut(key) else { return };
            match session.transport.open(buffer, &mut at) {
                Opened::InPlace(range) => {
                    let place = Place::received(index, range.start);
                    self.input(key, &mut buffer[range], place);
                }
                Opened::Carried(bytes) => self.carried_input(key, bytes),
                Opened::Partial => {}
                Opened::End => {
                    session.marks.sealed_end = true;
                    at = buffer.len();
                }
                Opened::Broken => {
                    self.peer_broke(key, 0);
                    return;
                }
            }
        }
    }

    /// Reads bytes that lie in memory of their own.
    pub(crate) fn carried_input(&mut self, key: Key, mut bytes: Vec<u8>) {
        let index = self.turn.reserve_carried(bytes.len());
        self.input(key, &mut bytes, Place::carried(index));
        self.turn.owned[index] = bytes;
    }

    /// Reads bytes, all of them unless the turn is full; gives how many.
    fn input(&mut self, key: Key, mut bytes: &mut [u8], mut place: Place) -> usize {
        let len = bytes.len();
        while !bytes.is_empty() {
            let Some(session) = self.registry.get_mut(key) else { return len };
            let was_head = matches!(session.state, State::Head(_));
            let used = match &mut session.state {
                State::Open(_) => self.read_messages(key, bytes, place),
                State::Paired(_) => self.relay(key, bytes, place),
                State::Head(_) => self.read_head(key, bytes),
                State::Waiting(_) => self.hold_early(key, bytes),
                State::Dialing(_) => self.read_answer(key, bytes),
                State::Lingering { .. } => self.discard(key, bytes.len()),
                State::Dead => return len,
            };
            if was_head && planted::is(Bug::DropEarlyData) {
                return len;
            }
            bytes = &mut bytes[used..];
            place = place.behind(used);
            if place.may_wait && self.turn.is_full() {
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
