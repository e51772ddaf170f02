//! How sessions end: by Close, by a fault, by time, by drain. Pairs end in `proxy`.
//!
//! The order is always the same: the last bytes, the FIN behind them, reading and discarding within a bound until the
//! peer's FIN, then closing. Closing with unread input would send a reset that can destroy the last bytes.

use tidegate_io::Backend;
use tidegate_registry::{Control, Key, Streams};
use tidegate_wire::{
    close::{CloseCode, CloseFrame},
    frame::ControlFrame,
    http::Refusal,
};

use crate::{
    environment::Environment,
    leaving::Farewell,
    log::{ABNORMAL, Cause, Leg, Level, NO_STATUS, What},
    output::Content,
    planted::{self, Bug},
    session::{Fact, Reading, State},
    shard::Shard,
};

impl<B: Backend, E: Environment> Shard<B, E> {
    /// Sends a Close on a leg, once. The mask is drawn where this end is the client (RFC 6455 §5.3).
    pub(crate) fn send_close(&mut self, key: Key, code: Option<CloseCode>, reason: &str) {
        let Some(session) = self.registry.get_mut(key) else { return };
        if session.marks.close_sent {
            return;
        }
        session.marks.close_sent = true;
        let mask = session.marks.upstream.then(|| self.environment.draw_mask());
        let frame = ControlFrame::close(code, reason, mask);
        self.emit_small(key, frame.as_ref(), Content::Control(Control::Close));
    }

    /// How long the peer of a session may take to end: its route's time, or that of all before it has a route.
    pub(crate) fn close_timeout_ms(&self, key: Key) -> u64 {
        let common = self.plan.limits().close_timeout_ms;
        self.registry.get(key).map_or(common, |session| match &session.state {
            State::Head(_) => common,
            State::Lingering { timeout_ms, .. } => u64::from(*timeout_ms),
            _ => self.plan.route(session.route).limits.close_timeout_ms,
        })
    }

    /// Only the last bytes and the FIN are left to send: reads and discards until the peer ends, or the deadline. That
    /// runs from the FIN on, so that a slow reader gets its last bytes; while draining it runs at once.
    pub(crate) fn linger(&mut self, key: Key) {
        let timeout_ms = self.close_timeout_ms(key);
        let look_ms = self.now_ms + timeout_ms;
        let deadline_ms = if self.is_ending() { look_ms } else { u64::MAX };
        let timeout_ms = u32::try_from(timeout_ms).unwrap_or(u32::MAX);
        let left_bytes = u32::try_from(self.plan.limits().linger_bytes).unwrap_or(u32::MAX);
        self.release_state(key, State::Lingering { left_bytes, timeout_ms, deadline_ms });
        let Some(session) = self.registry.get_mut(key) else { return };
        session.marks.paused = false;
        session.marks.facts.set(Fact::ProxyHeader, false);
        self.unpark(key);
        self.finishing.push(key);
        if !planted::is(Bug::ForgetDeadline) {
            self.ensure_deadline(key, look_ms);
        }
        self.arm_receive(key);
    }

    /// Lingers behind the answer to a request, of which so many bytes may still come that nobody wants. RFC 9112 §9.6: a reset can
    /// destroy the answer, so reading goes on until the client, which may write all of its request first, has had it.
    pub(crate) fn linger_behind_request(&mut self, key: Key, body_bytes: usize) {
        self.linger(key);
        if let Some(State::Lingering { left_bytes, .. }) = self.registry.get_mut(key).map(|s| &mut s.state) {
            *left_bytes = left_bytes.saturating_add(u32::try_from(body_bytes).unwrap_or(u32::MAX));
        }
    }

    /// The FIN was sent, or there is no time left to wait for it: the peer's is awaited, but not for ever.
    pub(crate) fn limit_linger(&mut self, key: Key) {
        let latest_ms = self.now_ms + self.close_timeout_ms(key);
        let Some(State::Lingering { deadline_ms, .. }) = self.registry.get_mut(key).map(|s| &mut s.state)
        else {
            return;
        };
        *deadline_ms = latest_ms.min(*deadline_ms);
        if planted::is(Bug::ForgetDeadline) {
            self.wheel.cancel(key.index());
        } else {
            self.ensure_deadline(key, latest_ms);
        }
    }

    /// Puts another state in a state's place and gives back what the old one held.
    pub(crate) fn release_state(&mut self, key: Key, state: State) {
        let Some(session) = self.registry.get_mut(key) else { return };
        session.marks.facts.set(Fact::Delayed, false);
        if session.marks.facts.take(Fact::Routed) {
            self.plan.route(session.route).leave();
        }
        let sealed = session.sealed_bytes();
        let state = std::mem::replace(&mut session.state, state);
        let seals = session.sealed_bytes();
        if !planted::is(Bug::LeakIncomplete) {
            self.recount(state.held_bytes() + sealed, seals);
        }
        let Some(session) = self.registry.get_mut(key) else { return };
        if state.is_session(&session.marks) {
            self.counters.ended += 1;
            if let Some(accounts) = &mut self.accounts {
                accounts.ended(session);
            }
        }
        match state {
            State::Open(mut open) => {
                if let Some(topics) = &mut self.topics {
                    topics.leave(key);
                }
                open.decoder.abandon(&mut self.codecs);
                if let Some(compression) = open.compression {
                    compression.release(&mut self.codecs);
                }
            }
            State::Paired(paired) => {
                if session.marks.upstream {
                    self.upstreams.ended(session.route, paired.upstream);
                }
                if let Reading::Messages(mut messages) = paired.reading {
                    messages.decoder.abandon(&mut self.codecs);
                    if let Some(compression) = messages.compression {
                        compression.release(&mut self.codecs);
                    }
                }
            }
            State::Dialing(dialing) => self.upstreams.ended(session.route, dialing.upstream),
            State::Exchange(_) => {
                if let Some(topics) = &mut self.topics {
                    topics.leave(key);
                }
            }
            State::Head(_)
            | State::Deciding(_)
            | State::Waiting(_)
            | State::Lingering { .. }
            | State::Dead => {}
        }
    }

    /// Ends both directions at once and frees the slot when nothing is in flight any more.
    pub(crate) fn abort(&mut self, key: Key, reset: bool) {
        let Some(session) = self.registry.get_mut(key) else { return };
        if matches!(session.state, State::Dead) {
            return;
        }
        self.backend.shutdown(&session.socket, reset);
        self.retire(key);
    }

    /// Gives back all that a session holds but its socket and slot.
    pub(crate) fn retire(&mut self, key: Key) {
        self.release_state(key, State::Dead);
        let Some(session) = self.registry.get_mut(key) else { return };
        if planted::is(Bug::LeakRetained) {
            session.outbox = tidegate_registry::Outbox::new();
        }
        session.outbox.clear(&mut self.retained);
        if session.dirty != 0 {
            self.turn.drop_chain(session.dirty);
            self.turn.dirty[session.dirty as usize - 1].from_outbox = false;
        }
        self.wheel.cancel(key.index());
        self.unpark(key);
        self.freeable.push(key);
    }

    /// A Close came to a session that is answered here.
    pub(crate) fn close_received(&mut self, key: Key, close: CloseFrame) {
        let Some(session) = self.registry.get_mut(key) else { return };
        session.marks.close_received = true;
        if !session.marks.close_sent {
            self.log_end(key, Leg::Client, close.code.map_or(NO_STATUS, u16::from), "closed by the client");
            // RFC 6455 §5.5.1: the answer typically echoes the status code.
            self.send_close(key, close.code, "");
        }
        self.linger(key);
    }

    /// A client broke the protocol or a rule of the route.
    pub(crate) fn violated(&mut self, key: Key, code: CloseCode, reason: &'static str) {
        self.counters.client_violations += 1;
        self.log_end(key, Leg::Client, code.into(), reason);
        self.send_close(key, Some(code), reason);
        self.linger(key);
    }

    /// Ends a connection that has no request under way, or whose last one is not answered: behind the answers that it is owed yet.
    pub(crate) fn end_answered(&mut self, key: Key, reset: bool) {
        let Some(session) = self.registry.get(key) else { return };
        let noted = self.spans.iter().any(|span| span.key == key);
        if noted || session.dirty != 0 || !session.outbox.is_empty() {
            self.linger(key);
        } else {
            self.abort(key, reset);
        }
    }

    /// The peer sent its FIN.
    pub(crate) fn peer_ended(&mut self, key: Key) {
        let Some(session) = self.registry.get(key) else { return };
        // A sealed stream that ends without its closing record was cut off.
        if !session.transport.has_ended() {
            self.peer_broke(key, 0);
            return;
        }
        match &session.state {
            State::Head(_) | State::Deciding(_) => self.end_answered(key, false),
            State::Waiting(_) => {
                self.end_waiting(key);
                self.end_answered(key, true);
            }
            State::Dialing(_) if session.transport.is_handshaking() => {
                self.dial_failed(key, "closed in the handshake of TLS", 0);
            }
            State::Dialing(_) => self.dial_failed(key, "closed before it answered the handshake", 0),
            State::Open(_) => {
                if !session.marks.close_sent {
                    // RFC 6455 §7.1.5: a connection that ends without a Close has ended abnormally.
                    self.log_end(key, Leg::Client, ABNORMAL, "ended without a Close");
                }
                self.linger(key);
            }
            // What its upstream still says comes through, and its Close is answered behind that, within the deadline of both.
            State::Paired(_) if self.awaits_close(key) => {}
            State::Paired(_) => self.leg_vanished(key, 0),
            State::Exchange(_) => self.exchange_ended(key),
            State::Lingering { .. } => {
                if session.marks.fin_sent {
                    self.abort(key, false);
                }
            }
            State::Dead => {}
        }
    }

    /// What came cannot be opened, or no records are left: the peer's TLS gets its alert, and its session ends without a Close,
    /// which could not be sealed any more.
    pub(crate) fn tls_failed(&mut self, key: Key, reason: &'static str) {
        self.counters.tls_failed += 1;
        self.log(Level::Info, Some(key), What::TlsFailed { reason });
        let Some(session) = self.registry.get_mut(key) else { return };
        match session.state {
            State::Waiting(_) => self.give_up_waiting(key),
            State::Paired(_) => {
                session.marks.ended = true;
                self.leg_vanished(key, 0);
            }
            State::Open(_) => {
                self.log_end(key, Leg::Client, ABNORMAL, "connection broken");
                self.linger(key);
            }
            State::Head(_) | State::Deciding(_) | State::Exchange(_) => self.linger(key),
            State::Dialing(_) | State::Lingering { .. } | State::Dead => {}
        }
    }

    /// The connection is broken: nothing can be sent or received on it.
    pub(crate) fn peer_broke(&mut self, key: Key, errno: i32) {
        let Some(session) = self.registry.get(key) else { return };
        match &session.state {
            State::Waiting(_) => self.give_up_waiting(key),
            State::Dialing(_) => self.dial_failed(key, "connection broken", errno),
            State::Open(_) => {
                self.log_end(key, Leg::Client, ABNORMAL, "connection broken");
                self.abort(key, true);
            }
            State::Paired(_) => self.leg_vanished(key, errno),
            State::Head(_) | State::Deciding(_) | State::Exchange(_) | State::Lingering { .. } => {
                self.abort(key, true);
            }
            State::Dead => {}
        }
    }

    /// The outbox is over its bound: what waits is dropped at a message's end unless it is sealed, then a Close 1013
    /// follows.
    pub(crate) fn end_slow(&mut self, key: Key) {
        let Some(session) = self.registry.get(key) else { return };
        match &session.state {
            State::Open(_) => {
                self.cut.push(key);
                if !self.drop_queue(key) {
                    self.abort(key, true);
                    return;
                }
                self.send_close(key, Some(CloseCode::TRY_AGAIN_LATER), "slow consumer");
                self.linger(key);
            }
            State::Paired(_) => self.pair_slow(key),
            _ => self.abort(key, true),
        }
    }

    /// Drops what waits for a session but the rest of what was begun, and what is sealed. False where no frame can
    /// follow that.
    pub(crate) fn drop_queue(&mut self, key: Key) -> bool {
        let Some(session) = self.registry.get_mut(key) else { return false };
        if session.transport.seals() {
            // Of a sealed stream no record can be left out: the Close's own is the next by number.
            return session.outbox.at_boundary();
        }
        let streams = match session.state {
            State::Paired(_) => Streams::Cut,
            _ => Streams::Kept,
        };
        if !session.outbox.drop_unsent(streams, &mut self.retained) {
            return false;
        }
        if session.outbox.is_empty() && session.dirty != 0 {
            self.turn.dirty[session.dirty as usize - 1].from_outbox = false;
        }
        true
    }

    /// Drains one session: a Close at a boundary where there is a session, the end where there is none yet.
    pub(crate) fn drain_session(&mut self, key: Key, farewell: Farewell) {
        let timeout_ms = self.close_timeout_ms(key);
        let leaving = self.leaving_refusal();
        let Some(session) = self.registry.get_mut(key) else { return };
        match &mut session.state {
            State::Head(head) => {
                if head.bytes.is_empty() || session.marks.facts.has(Fact::ProxyHeader) {
                    self.end_answered(key, false);
                } else {
                    self.refuse_early(key, leaving);
                }
            }
            State::Deciding(_) => self.refuse_deciding(key, leaving),
            State::Waiting(_) => self.refuse_waiting(key, leaving),
            State::Open(open) => {
                // RFC 6455 §5.5.1: no message follows a Close.
                if let Some(topics) = &mut self.topics {
                    topics.leave(key);
                }
                // What is behind the Close is not answered, however fast it comes.
                session.marks.facts.set(Fact::Delayed, false);
                if !session.marks.close_sent {
                    open.close_deadline_ms = self.now_ms + timeout_ms;
                    let deadline_ms = open.close_deadline_ms;
                    self.note_farewell(key, farewell.code);
                    self.send_close(key, Some(farewell.code), &farewell.reason());
                    self.ensure_deadline(key, deadline_ms);
                    self.resume(key);
                }
            }
            State::Paired(_) => self.drain_leg(key, farewell),
            State::Exchange(exchange) => {
                if exchange.has_begun() {
                    self.note_farewell(key, farewell.code);
                }
                self.drain_exchange(key);
            }
            // Until now a reader that takes a byte now and then could have as long as it liked.
            State::Lingering { .. } => self.limit_linger(key),
            State::Dialing(_) | State::Dead => {}
        }
    }

    /// What a request is answered whose session is asked to go before it has its answer.
    pub(crate) fn leaving_refusal(&self) -> &'static Refusal {
        if self.is_ending() { &DRAINING } else { &LEAVING }
    }

    /// A peer that answers no ping: it gets no Close, it would not read it.
    pub(crate) fn peer_silent(&mut self, key: Key) {
        match self.registry.get(key).map(|session| &session.state) {
            Some(State::Paired(_)) => self.leg_vanished(key, 0),
            Some(_) => self.abort(key, true),
            None => {}
        }
    }

    /// A peer that takes nothing.
    pub(crate) fn peer_stalled(&mut self, key: Key) {
        match self.registry.get(key).map(|session| &session.state) {
            Some(State::Paired(_)) => self.pair_slow(key),
            Some(State::Dialing(_)) => self.dial_failed(key, "took no handshake", 0),
            Some(State::Waiting(_)) => self.give_up_waiting(key),
            Some(_) => self.abort(key, true),
            None => {}
        }
    }

    pub(crate) fn log_end(&mut self, key: Key, leg: Leg, code: u16, reason: &'static str) {
        // Told at the session's end, with what it has done.
        if self.note_cause(key, Cause { leg, code, reason }) {
            return;
        }
        let level = match code {
            1000 | 1001 | NO_STATUS => Level::Debug,
            _ => Level::Info,
        };
        self.log(level, Some(key), What::Ended { leg, code, reason });
    }
}

/// While draining no request is begun.
pub(crate) const DRAINING: Refusal = leaving("the gateway is shutting down");

/// Its route or upstream drains, or is not in the configuration any more, or an operator has ended it.
const LEAVING: Refusal = leaving("ended by an operator, or by a new configuration");

const fn leaving(reason: &'static str) -> Refusal {
    Refusal { status: 503, reason, close: true, fields: &[("Retry-After", "1")] }
}
