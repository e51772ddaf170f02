//! What sealed sessions send becomes records, right before the system call.
//!
//! A turn's pieces for a session are sealed together: as many messages in one record as fit. Ciphertext is a session's
//! own, also that of a frame which thousands of others get as well, so it is bounded: where a turn's records are more than
//! it may own, those that are ready are sent, and their memory is used for the next ones.

use std::io;

use tidegate_io::Backend;

use crate::{
    environment::Environment,
    session::State,
    shard::Shard,
    turn::{Outgoing, Part},
};

/// The most plaintext of a record (RFC 8446 §5.1).
const RECORD_MAX: usize = 16 << 10;
/// What a record takes beside it, and some bytes more: its header, a nonce, a tag.
const RECORD_EXTRA: usize = 64;

impl<B: Backend, E: Environment> Shard<B, E> {
    /// Seals what sealed sessions send in this turn past their outboxes.
    ///
    /// # Errors
    /// Where the backend as a whole is broken.
    pub(crate) fn seal_chains(&mut self) -> io::Result<()> {
        // Who is told to end at once sends nothing more.
        if self.turn.sealed.is_empty() || self.stopping {
            return Ok(());
        }
        let places = std::mem::take(&mut self.turn.sealed);
        let (mut begun, mut bytes) = (0, 0);
        for (at, place) in places.iter().enumerate() {
            bytes += self.seal_chain(*place);
            if bytes >= self.turn.bytes_most && at + 1 < places.len() {
                self.send_ahead(&places[begun..=at])?;
                (begun, bytes) = (at + 1, 0);
            }
        }
        self.turn.sealed = places;
        self.turn.sealed.clear();
        Ok(())
    }

    /// Puts records in the place of a session's pieces; gives how long they are.
    fn seal_chain(&mut self, place: u32) -> usize {
        let Self { registry, turn, spares, scratch, broken, .. } = self;
        let key = turn.dirty[place as usize].key;
        let Some(session) = registry.get_mut(key) else { return 0 };
        if matches!(session.state, State::Dead) {
            return 0;
        }
        let mut outcome = Ok(());
        if turn.has_pieces(place as usize) {
            if !session.transport.has_sealed() {
                let bytes = turn.dirty[place as usize].bytes();
                session.transport.give_room(spares.take_brief(bytes + RECORD_EXTRA));
            }
            scratch.clear();
            for source in turn.chain(place as usize) {
                let bytes = turn.bytes(source);
                if scratch.len() + bytes.len() > RECORD_MAX && !scratch.is_empty() {
                    outcome = outcome.and_then(|()| session.transport.seal(scratch));
                    scratch.clear();
                }
                if bytes.len() >= RECORD_MAX {
                    outcome = outcome.and_then(|()| session.transport.seal(bytes));
                } else {
                    scratch.extend_from_slice(bytes);
                }
            }
            if !scratch.is_empty() {
                outcome = outcome.and_then(|()| session.transport.seal(scratch));
            }
        }
        let sealed = session.transport.take_sealed();
        let len = sealed.len();
        turn.replace_chain(place, sealed);
        if outcome.is_err() && !matches!(session.state, State::Lingering { .. }) {
            // A record that is missing breaks the stream.
            broken.push((key, 0));
        }
        len
    }

    /// Sends what is ready of the turn, and settles it.
    fn send_ahead(&mut self, places: &[u32]) -> io::Result<()> {
        let places: Vec<u32> =
            places.iter().copied().filter(|place| self.turn.has_pieces(*place as usize)).collect();
        let all = Outgoing { turn: &self.turn, registry: &self.registry };
        let part = Part { all, places: &places };
        let mut remainders = Vec::new();
        self.backend.turn(&part, Some(std::time::Duration::ZERO), &mut self.events, &mut remainders)?;
        // What came meanwhile is handled behind the rest of the turn, which does not wait for more.
        self.hurried |= !self.events.is_empty();
        for mut remainder in remainders {
            remainder.index = places[remainder.index as usize];
            self.settle_remainder(remainder);
        }
        for place in places {
            let key = self.turn.dirty[place as usize].key;
            // One with a remainder is settled, and may be listed anew.
            if let Some(session) = self.registry.get_mut(key).filter(|session| session.dirty == place + 1) {
                session.dirty = 0;
            }
            if let Some(sealed) = self.turn.take_sealed(place) {
                self.spares.give(sealed);
            }
        }
        Ok(())
    }
}
