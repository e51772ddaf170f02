//! Who may come in: session slots, client addresses, routes' caps and the process's memory; and how the others are turned away.
//!
//! A refusal is answered in one of a few spare slots, so that it takes no session's. Where these are used up, the connection is
//! reset.

use tidegate_hub::RouteId;
use tidegate_io::Backend;
use tidegate_registry::Key;
use tidegate_wire::http::Refusal;

use crate::{
    addresses::{Counted, Excessive, Origin},
    ending::DRAINING,
    environment::Environment,
    log::{Level, What},
    session::{Fact, Peer, Session},
    shard::{SPARE_SLOTS, Shard},
    transport::Transport,
};

/// All session slots are taken.
pub(crate) const FULL: Refusal = Refusal::new(503, "too many sessions").with(&[("Retry-After", "5")]);

/// The address has as many connections as it may have.
const ADDRESS_FULL: Refusal =
    Refusal::new(429, "too many connections from this address").with(&[("Retry-After", "5")]);

/// The address begins connections too fast.
const ADDRESS_TOO_FAST: Refusal =
    Refusal::new(429, "too many connections from this address in a short time").with(&[("Retry-After", "1")]);

/// The route has as many sessions as it may have.
const ROUTE_FULL: Refusal =
    Refusal::new(503, "too many sessions on this route").with(&[("Retry-After", "5")]);

/// More waits in memory than may.
pub(crate) const MEMORY_FULL: Refusal =
    Refusal::new(503, "the gateway's memory is used up").with(&[("Retry-After", "5")]);

/// What becomes of a connection that may not come in.
#[derive(Clone, Copy)]
pub(crate) enum Door {
    /// It is told why.
    Answer(&'static Refusal),
    /// It is reset: an answer would cost more than it is worth.
    Reset,
}

impl<B: Backend, E: Environment> Shard<B, E> {
    /// A connection that was accepted gets a slot: a session's, or a spare one in which it is told why it gets none.
    pub(crate) fn take_in(&mut self, mut session: Session<B::Socket>) {
        let (is_full, is_draining) = (self.sessions >= self.max_sessions, self.draining.is_some());
        let (peer, is_tls) = (session.peer, session.transport.is_tls());
        let door = match session.marks.facts.has(Fact::ProxyHeader) {
            // It waited in the kernel's queue. Where sessions end within a window it is let in, and goes with them.
            _ if is_draining => Err(Door::Answer(&DRAINING)),
            _ if is_full => Err(Door::Answer(&FULL)),
            // Who it is will be known behind its header.
            true => Ok(Counted::No),
            false => self.enter(peer, is_tls),
        };
        if is_full {
            self.log_full();
        }
        if door.is_err() {
            match is_draining {
                true => self.counters.refused_draining += 1,
                // Others were counted where their address was looked at.
                false => self.counters.refused_full += u64::from(is_full),
            }
        }
        let refusal = match door {
            Ok(counted) => {
                session.marks.facts.set(Fact::Counted, counted == Counted::Yes);
                None
            }
            Err(Door::Answer(refusal)) if self.spare < SPARE_SLOTS => Some(refusal),
            Err(_) => {
                self.cast_out(session);
                return;
            }
        };
        session.marks.facts.set(Fact::Spare, refusal.is_some());
        if let Transport::Tls(tls) = &mut session.transport {
            tls.unwelcome = refusal;
        }
        match self.registry.insert(session) {
            Ok(key) => {
                let now_ms = self.now_ms;
                if let Some(accounts) = &mut self.accounts {
                    accounts.accepted(key, now_ms);
                }
                self.arm_receive(key);
                self.ensure_deadline(key, self.now_ms + self.head_timeout_ms());
                match refusal {
                    None => {
                        self.sessions += 1;
                        self.join_departure(key);
                    }
                    Some(refusal) => {
                        self.spare += 1;
                        // With TLS nothing can be said before its handshake is over.
                        if !is_tls {
                            self.refuse(key, refusal, false);
                        }
                    }
                }
            }
            Err(full) => {
                self.log_full();
                // Who is refused for something else is counted already.
                self.counters.refused_full += u64::from(refusal.is_none());
                self.cast_out(full.0);
            }
        }
    }

    /// The client of a session is known only now, by its PROXY header.
    pub(crate) fn take_in_late(&mut self, key: Key) {
        let Some(session) = self.registry.get(key) else { return };
        // One in a spare slot is told why it has that.
        if session.marks.facts.has(Fact::Spare) {
            return;
        }
        let door = match self.enter(session.peer, session.transport.is_tls()) {
            Ok(counted) => {
                if let Some(session) = self.registry.get_mut(key) {
                    session.marks.facts.set(Fact::Counted, counted == Counted::Yes);
                }
                return;
            }
            Err(door) => door,
        };
        match door {
            Door::Answer(refusal) if self.take_spare_slot(key) => {
                match self.registry.get_mut(key).map(|session| &mut session.transport) {
                    Some(Transport::Tls(tls)) => tls.unwelcome = Some(refusal),
                    _ => self.refuse(key, refusal, false),
                }
            }
            Door::Answer(_) | Door::Reset => self.abort(key, true),
        }
    }

    /// Counts a connection of an address, where these are limited.
    ///
    /// # Errors
    /// What becomes of it where there are too many.
    fn enter(&mut self, peer: Peer, is_tls: bool) -> Result<Counted, Door> {
        let Some(origin) = self.limited_origin(peer) else { return Ok(Counted::No) };
        let (limits, generation) = (&self.plan.limits().addresses, self.plan.generation());
        let why = match self.plan.addresses().enter(origin, limits, generation, self.now_ms) {
            Ok(counted) => return Ok(counted),
            Err(why) => why,
        };
        Err(match why {
            Excessive::Sessions => {
                self.counters.refused_address_full += 1;
                Door::Answer(&ADDRESS_FULL)
            }
            Excessive::Handshakes => {
                self.counters.refused_address_rate += 1;
                match is_tls {
                    // The handshake is what is to be saved.
                    true => {
                        let what = What::ConnectionRefused { reason: ADDRESS_TOO_FAST.reason };
                        self.log_of(Level::Info, None, peer.address(), what);
                        Door::Reset
                    }
                    false => Door::Answer(&ADDRESS_TOO_FAST),
                }
            }
        })
    }

    /// Who a connection counts for; nobody where it is not limited.
    fn limited_origin(&self, peer: Peer) -> Option<Origin> {
        let limits = &self.plan.limits().addresses;
        let ip = peer.address().filter(|_| limits.is_on())?.ip();
        // Behind a trusted address are the clients of a proxy, who are many.
        let is_exempt = limits.exempt.iter().any(|network| network.contains(&ip)) || self.plan.trusts(ip);
        (!is_exempt).then(|| Origin::of(ip))
    }

    /// A request becomes a session of a route, and counts there until it ends.
    ///
    /// # Errors
    /// Where no more may be. The answer is given in a spare slot, where there is one.
    pub(crate) fn enter_route(&mut self, key: Key, id: RouteId) -> Result<(), Refusal> {
        let refusal = if self.plan.is_out_of_memory() {
            self.counters.refused_memory += 1;
            MEMORY_FULL
        } else if !self.plan.route(id).enter() {
            self.counters.refused_route_full += 1;
            ROUTE_FULL
        } else {
            self.set_route(key, id);
            if let Some(session) = self.registry.get_mut(key) {
                session.marks.facts.set(Fact::Routed, true);
            }
            return Ok(());
        };
        self.take_spare_slot(key);
        Err(refusal)
    }

    /// A refused session gives its slot to others. False where it has to keep it.
    fn take_spare_slot(&mut self, key: Key) -> bool {
        let Some(session) = self.registry.get_mut(key) else { return false };
        if !session.marks.facts.has(Fact::Spare) {
            if self.spare >= SPARE_SLOTS {
                return false;
            }
            session.marks.facts.set(Fact::Spare, true);
            self.spare += 1;
            self.sessions -= 1;
        }
        true
    }

    /// A slot is free again.
    pub(crate) fn leave(&mut self, session: &Session<B::Socket>) {
        match session.marks {
            marks if marks.upstream => {}
            marks if marks.facts.has(Fact::Spare) => self.spare -= 1,
            _ => self.sessions -= 1,
        }
        self.leave_address(session);
    }

    fn leave_address(&self, session: &Session<B::Socket>) {
        if let Some(peer) = session.peer.address().filter(|_| session.marks.facts.has(Fact::Counted)) {
            self.plan.addresses().leave(Origin::of(peer.ip()), self.now_ms);
        }
    }

    /// Ends a connection that has no slot.
    fn cast_out(&mut self, session: Session<B::Socket>) {
        self.leave_address(&session);
        self.backend.shutdown(&session.socket, true);
        self.backend.close(session.socket);
    }

    fn log_full(&mut self) {
        // Once a second: under a flood the log must not cost more than the refusals.
        if self.now_ms >= self.full_logged_ms {
            self.full_logged_ms = self.now_ms + 1_000;
            self.log(Level::Warn, None, What::SessionsFull);
        }
    }
}
