//! Someone with one connection at a time, who comes back.

use std::{collections::HashMap, net::SocketAddr};

use tidegate_hub::{Position, delivery::Event};

use crate::{
    ledger::{Checked, Draft, Ledger, wrong},
    poller::Poller,
    poster::Poster,
    raw::Raw,
    stream::Stream,
    talker::Talker,
    wire::{Window, Wire},
};

pub(crate) enum Role {
    Talker(Talker),
    Raw(Raw),
    Stream(Stream),
    Poller(Poller),
    Poster(Poster),
}

/// How it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Whatever has come.
    Steady,
    /// Now and then not at all.
    Slow,
}

pub(crate) struct Person {
    pub(crate) role: Role,
    pub(crate) pace: Pace,
    /// It goes and comes back.
    pub(crate) roams: bool,
    pub(crate) publishes: bool,
    pub(crate) wire: Option<Wire>,
    pub(crate) session: u64,
    /// It does not read until so much has been published.
    pub(crate) halted_until: u64,
    /// It comes back when so much has been published.
    pub(crate) back_at: u64,
    /// It has not read for a while in this session.
    was_halted: bool,
    /// The gateway was told to end: whose handshake is under way is dropped without a word.
    pub(crate) at_the_end: bool,
}

impl Person {
    pub(crate) fn new(role: Role) -> Person {
        Person {
            role,
            pace: Pace::Steady,
            roams: false,
            publishes: false,
            wire: None,
            session: 0,
            halted_until: 0,
            back_at: 0,
            was_halted: false,
            at_the_end: false,
        }
    }

    pub(crate) fn that_roams(self) -> Person {
        Person { roams: true, ..self }
    }

    pub(crate) fn that_publishes(self) -> Person {
        Person { publishes: true, ..self }
    }

    pub(crate) fn that_is_slow(self) -> Person {
        Person { pace: Pace::Slow, ..self }
    }

    pub(crate) fn connect(&mut self, address: SocketAddr, ledger: &mut Ledger) {
        let window = if self.pace == Pace::Slow { Window::Small } else { Window::Large };
        let mut wire = Wire::connect(address, window);
        self.session = ledger.number();
        (self.was_halted, self.at_the_end) = (false, false);
        match &mut self.role {
            Role::Talker(talker) => talker.begin(&mut wire, self.session),
            Role::Raw(raw) => raw.begin(&mut wire, self.session),
            Role::Stream(stream) => stream.begin(&mut wire, self.session),
            Role::Poller(poller) => poller.begin(&mut wire, self.session),
            Role::Poster(_) => {}
        }
        self.wire = Some(wire);
    }

    pub(crate) fn halt(&mut self, until: u64) {
        self.halted_until = until;
        self.was_halted = true;
    }

    pub(crate) fn is_halted(&self, published: u64) -> bool {
        self.halted_until > published
    }

    /// It is connected, and all that it asked was answered.
    pub(crate) fn is_idle(&self) -> bool {
        self.wire.is_some()
            && match &self.role {
                Role::Talker(talker) => talker.is_idle(),
                Role::Raw(raw) => raw.is_idle(),
                Role::Stream(stream) => stream.is_up(),
                Role::Poller(poller) => poller.is_up(),
                Role::Poster(poster) => poster.is_idle(),
            }
    }

    pub(crate) fn may_publish(&self) -> bool {
        self.publishes
            && self.wire.is_some()
            && match &self.role {
                Role::Talker(talker) => talker.may_publish(),
                Role::Raw(raw) => raw.is_up(),
                Role::Stream(_) | Role::Poller(_) => false,
                Role::Poster(poster) => poster.may_publish(),
            }
    }

    pub(crate) fn has_all(&self, newest: &HashMap<String, Position>, ledger: &Ledger) -> bool {
        match &self.role {
            Role::Talker(talker) => talker.has_all(newest),
            Role::Raw(raw) => raw.has_all(newest, ledger),
            Role::Stream(stream) => stream.has_all(newest),
            Role::Poller(poller) => poller.has_all(newest),
            Role::Poster(_) => true,
        }
    }

    /// # Panics
    /// For who publishes one by one, or not at all.
    pub(crate) fn publish(&mut self, drafts: &[(&str, Draft)]) {
        let wire = self.wire.as_mut().expect("it may publish");
        match &mut self.role {
            Role::Talker(talker) => talker.publish(wire, drafts),
            Role::Poster(poster) => poster.publish(wire, drafts),
            Role::Raw(_) | Role::Stream(_) | Role::Poller(_) => panic!("it does not publish many at once"),
        }
    }

    /// Writes and reads what can be. Whether its connection is over.
    pub(crate) fn turn(&mut self, ledger: &mut Ledger) -> Checked {
        let halted = self.is_halted(ledger.published);
        let Some(wire) = &mut self.wire else { return Ok(()) };
        wire.flush();
        if halted {
            return Ok(());
        }
        wire.read();
        match &mut self.role {
            Role::Talker(talker) => talker.hear(wire, ledger)?,
            Role::Raw(raw) => raw.hear(wire, ledger)?,
            Role::Stream(stream) => stream.hear(wire, ledger)?,
            Role::Poller(poller) => poller.hear(wire, ledger)?,
            Role::Poster(poster) => poster.hear(wire, ledger)?,
        }
        if wire.ended { self.ended(ledger) } else { Ok(()) }
    }

    /// The gateway ended the connection.
    fn ended(&mut self, ledger: &mut Ledger) -> Checked {
        let (closed, is_up) = match &self.role {
            Role::Talker(talker) => (talker.closed, talker.is_up()),
            Role::Raw(raw) => (raw.closed, raw.is_up()),
            // Streams and requests have no word for why they end: these may.
            Role::Stream(_) | Role::Poller(_) | Role::Poster(_) => (Some(1000), true),
        };
        match closed {
            Some(1013) => ledger.counts.too_slow += 1,
            Some(1000 | 1001) => {}
            // Its Close may have been lost behind what it did not read.
            None if self.was_halted => ledger.counts.too_slow += 1,
            None if self.at_the_end && !is_up => {}
            other => {
                let is = if is_up { "open" } else { "not open yet" };
                return wrong(format!("session {}, {is}, was ended with {other:?}", self.session));
            }
        }
        self.leave(ledger)?;
        Ok(())
    }

    /// The connection is over; gives it, so that it can be ended as one likes.
    pub(crate) fn leave(&mut self, ledger: &mut Ledger) -> Checked<Option<Wire>> {
        let Some(wire) = self.wire.take() else { return Ok(None) };
        match &mut self.role {
            Role::Talker(talker) => talker.end(ledger),
            Role::Raw(raw) => raw.end(ledger),
            Role::Stream(_) | Role::Poller(_) => {}
            Role::Poster(poster) => poster.end(ledger),
        }
        if self.session == ledger.witness {
            ledger.forget_all();
        }
        self.halted_until = 0;
        ledger.observe(Event::Ended { session: self.session })?;
        Ok(Some(wire))
    }
}
