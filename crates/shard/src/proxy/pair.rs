//! Two legs that are one session: bytes go through as they arrive, and each ending of one side becomes the right ending
//! of the other.
//!
//! In the middle of a forwarded frame nothing can be put in between, not even a Close: a fault there ends that leg by a
//! reset, so that a message that was cut off is never completed.

use std::borrow::Cow;

use tidegate_io::Backend;
use tidegate_registry::{End, Key};
use tidegate_wire::{
    close::{CloseCode, CloseFrame},
    message::Violation,
    relay::{RelayRules, Segment},
};

use super::PING_MARK;
use crate::{
    environment::Environment,
    input::Place,
    leaving::Farewell,
    log::{ABNORMAL, Leg, NO_STATUS},
    meter::{Pace, TOO_FAST},
    output::{Content, Span},
    planted::{self, Bug},
    session::{Answer, Ending, Paired, Reading, Session, State},
    shard::Shard,
    stamp::Stamp,
};

/// What a buffer held besides what is forwarded.
#[derive(Default)]
pub(super) struct Heard {
    /// Pings of an upstream, which its client may answer.
    pub(super) asked: u16,
    /// Messages that were whole with it.
    pub(super) messages: u64,
    /// The pong of a ping of the gateway's own.
    pub(super) marked: bool,
}

/// What ended the reading of a buffer.
pub(super) enum Stop {
    Used,
    /// The turn is full; so many bytes were used.
    Full(usize),
    Close(CloseFrame),
    Violation(Violation),
    Flood,
    /// The next message would come too fast; so many bytes were used.
    Delayed(usize),
    /// A message came too fast.
    TooFast,
}

impl<B: Backend, E: Environment> Shard<B, E> {
    /// Forwards what a leg received; uses all of it unless the turn is full, and gives how much.
    pub(crate) fn relay(&mut self, key: Key, bytes: &mut [u8], place: Place) -> usize {
        let now_ms = self.now_ms;
        let Some(session) = self.registry.get_mut(key) else { return bytes.len() };
        let pinged_ms = std::mem::take(&mut session.marks.pinged).then(|| session.pinged.ms(now_ms));
        if session.marks.close_received {
            return bytes.len();
        }
        let State::Paired(paired) = &mut session.state else { return bytes.len() };
        let was_open = paired.is_mid_message();
        let held = paired.reading.held_bytes();
        let far = paired.far;
        let mut heard = Heard::default();
        let stop = match paired.reading {
            Reading::Cut(_) => self.relay_bytes(key, bytes, place, &mut heard),
            Reading::Messages(_) => self.relay_messages(key, bytes, place, &mut heard),
        };
        let Some(session) = self.registry.get_mut(key) else { return bytes.len() };
        if let State::Paired(paired) = &mut session.state {
            let far = paired.far;
            let holds = paired.reading.held_bytes();
            let begun = match &mut paired.reading {
                Reading::Cut(inspector) => {
                    heard.messages += inspector.take_ended();
                    inspector.take_begun()
                }
                // Each whole message has set the stamp anew.
                Reading::Messages(_) => !was_open,
            };
            let begun = begun && paired.is_mid_message();
            self.recount(held, holds);
            if begun && let Some(session) = self.registry.get_mut(key) {
                session.since = Stamp::at(now_ms);
                let deadline = now_ms + self.plan.route(session.route).limits.message_timeout_ms;
                self.ensure_deadline(key, deadline);
            }
            if let Some(far) = far {
                if let Some(State::Paired(far)) = self.registry.get_mut(far).map(|far| &mut far.state) {
                    (0..heard.asked).for_each(|_| far.budget.ask());
                }
                self.close_at_boundary(far);
            }
        }
        self.count_heard(key, far, &heard, pinged_ms);
        match stop {
            Stop::Used => {}
            Stop::Full(used) => return used,
            Stop::Delayed(used) => {
                self.delay(key);
                return used;
            }
            Stop::TooFast => {
                self.counters.rate_closed += 1;
                self.pair_violated(key, CloseCode::POLICY_VIOLATION, TOO_FAST);
            }
            Stop::Close(close) => self.pair_close_received(key, close),
            Stop::Violation(violation) => self.pair_violated(key, violation.close_code(), violation.text()),
            Stop::Flood => {
                self.pair_violated(
                    key,
                    CloseCode::POLICY_VIOLATION,
                    "too many control frames in a short time",
                );
            }
        }
        bytes.len()
    }

    /// What came on a leg counts for it, and what went through for its far side.
    fn count_heard(&mut self, key: Key, far: Option<Key>, heard: &Heard, pinged_ms: Option<u64>) {
        let Self { registry, accounts, counters, now_ms, .. } = self;
        counters.relayed_messages += heard.messages;
        let Some(accounts) = accounts else { return };
        if let Some(pinged_ms) = pinged_ms.filter(|_| heard.marked) {
            accounts.answered_ping(now_ms.saturating_sub(pinged_ms));
        }
        if let Some(session) = registry.get(key) {
            accounts.count(key, session, |flow| flow.received_messages += heard.messages);
        }
        if let Some((far, session)) = far.and_then(|far| Some((far, registry.get(far)?))) {
            accounts.count(far, session, |flow| flow.sent_messages += heard.messages);
        }
    }

    fn relay_bytes(&mut self, key: Key, bytes: &[u8], place: Place, heard: &mut Heard) -> Stop {
        let Self { registry, turn, spans, plan, counters, meters, now_ms, .. } = self;
        // RFC 6455 §5.5.1: nothing follows a Close that was sent.
        let far = match registry.get(key).map(|session| &session.state) {
            Some(State::Paired(paired)) => paired.far,
            _ => None,
        };
        let far = far.filter(|far| registry.get(*far).is_some_and(|far| !far.marks.close_sent));
        let Some(session) = registry.get_mut(key) else { return Stop::Used };
        let route = plan.route(session.route);
        let upstream = session.marks.upstream;
        let State::Paired(paired) = &mut session.state else { return Stop::Used };
        let Reading::Cut(inspector) = &mut paired.reading else { return Stop::Used };
        let rules = RelayRules { limits: route.messages, rsv1: paired.rsv1, utf8: route.utf8 };
        let rates = route.rates.as_ref().filter(|_| !upstream && far.is_some() && !session.marks.close_sent);
        let (mut read, mut messages) = (0, 0);
        loop {
            let segment = match inspector.next_counted(bytes, &mut read, &rules, &mut messages) {
                Ok(Some(segment)) => segment,
                Ok(None) => {
                    let pace = rates.map_or(Pace::Within, |rates| {
                        meters.take_piece(key, messages, bytes.len(), rates, *now_ms)
                    });
                    return match pace {
                        Pace::Within | Pace::Drop => Stop::Used,
                        Pace::Last => Stop::Delayed(bytes.len()),
                        Pace::Close => Stop::TooFast,
                    };
                }
                Err(violation) => return Stop::Violation(violation),
            };
            let end = if inspector.at_boundary() { End::Boundary } else { End::Inside };
            let cut = inspector.take_cut();
            let source = match segment {
                Segment::Forward(range) => {
                    session.spoke = session.seen;
                    let short = usize::from(range.len() > 1 && planted::is(Bug::ForwardShort));
                    // Apart, so that an outbox knows where it may stop.
                    if let Some((far, cut)) = far.zip(cut) {
                        let source = place.source(range.start..cut);
                        spans.push(Span { key: far, source, content: Content::WHOLE });
                    }
                    place.source(cut.unwrap_or(range.start)..range.end - short)
                }
                Segment::Held(held) => turn.keep_small(held.as_ref()),
                Segment::Ping(control) => {
                    if !upstream && !paired.budget.spend(*now_ms, &route.control) {
                        return Stop::Flood;
                    }
                    heard.asked += u16::from(upstream);
                    turn.keep_small(control.wire())
                }
                Segment::Pong(control) => {
                    if !upstream && !paired.budget.spend_pong(*now_ms, &route.control) {
                        return Stop::Flood;
                    }
                    if *control.payload() == *PING_MARK {
                        heard.marked = true;
                        continue;
                    }
                    turn.keep_small(control.wire())
                }
                Segment::Close(close) => return Stop::Close(close),
            };
            if let Some(far) = far {
                counters.relayed += 1;
                spans.push(Span { key: far, source, content: Content::Stream(end) });
            }
        }
    }

    /// Whether a frame of the gateway's own can be put into what goes to a leg.
    pub(crate) fn at_boundary(&self, key: Key) -> bool {
        if planted::is(Bug::ControlInsideFrame) {
            return true;
        }
        let Some(State::Paired(paired)) = self.registry.get(key).map(|session| &session.state) else {
            return true;
        };
        let Some(far) = paired.far else { return paired.outgoing_whole };
        match self.registry.get(far).map(|session| &session.state) {
            Some(State::Paired(far)) => match &far.reading {
                Reading::Cut(inspector) => inspector.at_boundary(),
                Reading::Messages(_) => true,
            },
            _ => true,
        }
    }

    /// Both legs are one no more; each remembers whether what it was sent ends with a whole frame.
    fn part(&mut self, key: Key) -> Option<Key> {
        let whole = self.at_boundary(key);
        let Some(State::Paired(paired)) = self.registry.get_mut(key).map(|session| &mut session.state) else {
            return None;
        };
        let far = paired.far?;
        let far_whole = self.at_boundary(far);
        for (key, whole) in [(key, whole), (far, far_whole)] {
            if let Some(State::Paired(paired)) = self.registry.get_mut(key).map(|session| &mut session.state)
            {
                paired.far = None;
                paired.outgoing_whole = whole;
            }
        }
        // Nobody fills its outbox any more, so nobody else would wake it.
        self.resume(key);
        self.resume(far);
        Some(far)
    }

    /// Ends a leg with a Close and a FIN, or by a reset where a frame was cut off.
    fn end_leg(&mut self, key: Key, code: impl Into<Option<CloseCode>>, reason: &str) {
        if self.at_boundary(key) {
            self.send_close(key, code.into(), reason);
            self.linger(key);
        } else {
            self.abort(key, true);
        }
    }

    /// What is known of a leg's end, from its first cause on.
    fn ending(&mut self, key: Key) -> Option<&mut Ending> {
        match &mut self.registry.get_mut(key)?.state {
            State::Paired(paired) => Some(paired.ending.get_or_insert_default()),
            _ => None,
        }
    }

    /// Sets a leg's last deadline, unless it has one.
    fn set_end(&mut self, key: Key) {
        let deadline_ms = self.now_ms + self.close_timeout_ms(key);
        if let Some(ending) = self.ending(key)
            && ending.deadline_ms == 0
        {
            ending.deadline_ms = deadline_ms;
            self.ensure_deadline(key, deadline_ms);
        }
    }

    /// Sends a Close on a leg and waits for its answer, within the deadline.
    fn begin_close(&mut self, key: Key, code: Option<CloseCode>, reason: &str) {
        if !self.at_boundary(key) {
            self.abort(key, true);
            return;
        }
        self.send_close(key, code, reason);
        self.set_end(key);
    }

    /// The client has said its last: the upstream is asked to end, and what it still has to say goes through before
    /// the client is told.
    fn end_after_upstream(
        &mut self,
        client: Key,
        upstream: Key,
        answer: Answer,
        code: Option<CloseCode>,
        reason: &str,
    ) {
        if let Some(ending) = self.ending(client) {
            ending.answer = Some(answer);
        }
        self.set_end(client);
        self.begin_close(upstream, code, reason);
    }

    /// Tells a leg what its far side has answered, unless it gets a verdict, and ends it.
    fn tell(&mut self, key: Key, answer: Option<CloseCode>, reason: &str) {
        match self.ending(key).and_then(|ending| ending.answer) {
            Some(Answer::Verdict(code, reason)) => self.end_leg(key, code, reason),
            Some(Answer::Echo(_)) | None => self.end_leg(key, answer, reason),
        }
    }

    /// Ends a leg whose pair is given up: with what it is owed, else this.
    fn end_owed(&mut self, key: Key, otherwise: CloseCode, reason: &str) {
        let (code, reason) = self.owed(key).unwrap_or((Some(otherwise), reason));
        self.end_leg(key, code, reason);
    }

    /// The Close that a leg is owed whatever becomes of its far side.
    fn owed(&self, key: Key) -> Option<(Option<CloseCode>, &'static str)> {
        let State::Paired(paired) = &self.registry.get(key)?.state else { return None };
        Some(match paired.ending.as_ref()?.answer? {
            Answer::Echo(code) => (code, ""),
            Answer::Verdict(code, reason) => (Some(code), reason),
        })
    }

    /// Whether a client has said its last and may have ended its side behind that: it reads on.
    pub(crate) fn awaits_close(&self, key: Key) -> bool {
        let Some(session) = self.registry.get(key) else { return false };
        matches!(&session.state, State::Paired(Paired { far: Some(_), .. })) && self.owed(key).is_some()
    }

    fn pair_close_received(&mut self, key: Key, close: CloseFrame) {
        let leg = self.leg(key);
        let Some(session) = self.registry.get_mut(key) else { return };
        session.marks.close_received = true;
        let answered = session.marks.close_sent;
        let State::Paired(paired) = &session.state else { return };
        let far = paired.far;
        let code = close.code;
        if answered {
            // The answer to the Close that was sent here: the leg is done, and the far side gets its own answer.
            self.part(key);
            self.linger(key);
            if let Some(far) = far {
                self.tell(far, code, &close.reason);
            }
            return;
        }
        let reason = match leg {
            Leg::Client => "closed by the client",
            Leg::Upstream => "closed by the upstream",
        };
        self.log_end(key, leg, code.map_or(NO_STATUS, u16::from), reason);
        match (leg, far) {
            (_, None) => {
                self.send_close(key, code, "");
                self.linger(key);
            }
            (Leg::Client, Some(far)) => {
                self.end_after_upstream(key, far, Answer::Echo(code), code, &close.reason);
            }
            (Leg::Upstream, Some(far)) => {
                // What the client is in the middle of goes through before the upstream's Close is answered.
                if let Some(ending) = self.ending(key) {
                    ending.wanted = Some((code, "".into()));
                }
                self.set_end(key);
                self.begin_close(far, code, &close.reason);
                self.close_at_boundary(key);
            }
        }
    }

    pub(crate) fn pair_violated(&mut self, key: Key, code: CloseCode, reason: &'static str) {
        let leg = self.leg(key);
        let Some(session) = self.registry.get_mut(key) else { return };
        session.marks.close_received = true;
        let State::Paired(paired) = &session.state else { return };
        let far = paired.far;
        match leg {
            Leg::Client => {
                self.counters.client_violations += 1;
                self.log_end(key, leg, code.into(), reason);
                match far {
                    // The answers to what came before the fault still reach the client.
                    Some(far) if self.at_boundary(far) => {
                        let answer = Answer::Verdict(code, reason);
                        self.end_after_upstream(key, far, answer, Some(CloseCode::GOING_AWAY), "");
                    }
                    Some(far) => {
                        self.part(key);
                        self.abort(far, true);
                        self.end_leg(key, code, reason);
                    }
                    None => self.end_leg(key, code, reason),
                }
            }
            Leg::Upstream => {
                self.counters.upstream_violations += 1;
                let failure = self.failure_code(key);
                self.log_end(key, leg, failure.into(), reason);
                self.part(key);
                self.end_leg(key, code, reason);
                if let Some(far) = far {
                    self.end_owed(far, failure, "upstream failure");
                }
            }
        }
    }

    /// A leg ended without a Close: its FIN, a reset, or silence.
    pub(crate) fn leg_vanished(&mut self, key: Key, errno: i32) {
        let leg = self.leg(key);
        let failure = self.failure_code(key);
        let Some(session) = self.registry.get(key) else { return };
        let ended = session.marks.ended && errno == 0;
        if !session.marks.close_sent {
            let reason = if ended { "ended without a Close" } else { "connection broken or silent" };
            self.log_end(key, leg, ABNORMAL, reason);
        }
        let far = self.part(key);
        if ended {
            self.linger(key);
        } else {
            self.abort(key, true);
        }
        let Some(far) = far else { return };
        match leg {
            Leg::Client => self.end_leg(far, CloseCode::GOING_AWAY, ""),
            // Also instead of answering the client's Close: the client gets its own code then.
            Leg::Upstream => self.end_owed(far, failure, "upstream failure"),
        }
    }

    /// What waits for a leg is past its bound, or the leg takes nothing any more. What waits is dropped up to the first
    /// boundary and a Close follows; a frame that is not whole in here can only be cut off.
    pub(crate) fn pair_slow(&mut self, key: Key) {
        let now_ms = self.now_ms;
        let leg = self.leg(key);
        let failure = self.failure_code(key);
        let far = self.part(key);
        let untold = self.registry.get(key).is_some_and(|session| !session.marks.close_sent);
        if untold && self.drop_queue(key) {
            self.cut.push(key);
            if let Some(session) = self.registry.get_mut(key) {
                // It may take its last bytes now; the write deadline ends it where it does not.
                session.stalled = Stamp::at(now_ms);
            }
            let told = (Some(CloseCode::TRY_AGAIN_LATER), "slow consumer");
            let (code, reason) = self.owed(key).unwrap_or(told);
            self.send_close(key, code, reason);
            self.linger(key);
        } else {
            self.abort(key, true);
        }
        if let Some(far) = far {
            match leg {
                Leg::Client => self.end_leg(far, CloseCode::GOING_AWAY, ""),
                Leg::Upstream => self.end_owed(far, failure, "upstream failure"),
            }
        }
    }

    /// Drains a pair at the boundaries of what goes to its legs, or at the deadline.
    pub(crate) fn drain_leg(&mut self, key: Key, farewell: Farewell) {
        let Some(session) = self.registry.get(key) else { return };
        // Whatever becomes of the client, its upstream only loses it.
        let farewell = if session.marks.upstream { Farewell::now(CloseCode::GOING_AWAY) } else { farewell };
        if !session.marks.close_sent {
            self.note_farewell(key, farewell.code);
        }
        self.end_at_boundary(key, farewell.code, farewell.reason());
    }

    /// A client's token is over: both legs end as they do in a drain, each with its own code.
    pub(crate) fn pair_expired(&mut self, key: Key, code: CloseCode, reason: &'static str) {
        let far = match self.registry.get(key).map(|session| &session.state) {
            Some(State::Paired(paired)) => paired.far,
            _ => None,
        };
        // The upstream first: what the client says from here on is nobody's any more.
        if let Some(far) = far {
            self.end_at_boundary(far, CloseCode::GOING_AWAY, "".into());
        }
        self.end_at_boundary(key, code, reason.into());
    }

    /// Sends a leg a Close at the next boundary of what goes to it, and cuts it off at the deadline.
    fn end_at_boundary(&mut self, key: Key, code: CloseCode, reason: Cow<'static, str>) {
        if self.registry.get(key).is_none_or(|session| session.marks.close_sent) {
            return;
        }
        let Some(ending) = self.ending(key).filter(|ending| ending.deadline_ms == 0) else { return };
        ending.wanted = Some((Some(code), reason));
        self.set_end(key);
        self.resume(key);
        self.close_at_boundary(key);
    }

    /// Sends the Close that waits for a boundary. Where it is the answer to the peer's, the leg is done.
    fn close_at_boundary(&mut self, key: Key) {
        let Some(session) = self.registry.get(key) else { return };
        let answers = session.marks.close_received;
        let State::Paired(paired) = &session.state else { return };
        let Some((code, reason)) = paired.ending.as_ref().and_then(|ending| ending.wanted.clone()) else {
            return;
        };
        if !self.at_boundary(key) {
            return;
        }
        if answers {
            self.part(key);
        }
        if let Some(ending) = self.ending(key) {
            ending.wanted = None;
        }
        self.send_close(key, code, &reason);
        if answers {
            self.linger(key);
        }
    }

    /// The end of a leg has taken too long: both legs are told what they are owed, and cut. Their deadlines are the same,
    /// so that either may be the first to come: the client's Close must not get lost over the upstream's silence.
    pub(crate) fn end_overdue(&mut self, key: Key) {
        let far = self.part(key);
        for leg in [Some(key), far].into_iter().flatten() {
            match self.owed(leg) {
                Some((code, reason)) => self.end_leg(leg, code, reason),
                None => self.abort(leg, true),
            }
        }
    }

    /// A leg's half message is given up, and its pair with it.
    pub(crate) fn pair_given_up(&mut self, key: Key, code: CloseCode, reason: &'static str) {
        self.log_end(key, self.leg(key), code.into(), reason);
        let holds_records = self.registry.get(key).is_some_and(Session::holds_records);
        let far = self.part(key);
        match holds_records {
            true => self.abort(key, true),
            false => self.end_given_up(key, code, reason),
        }
        if let Some(far) = far {
            self.end_given_up(far, code, reason);
        }
    }

    fn end_given_up(&mut self, key: Key, code: CloseCode, reason: &str) {
        match self.leg(key) {
            Leg::Client => self.end_owed(key, code, reason),
            Leg::Upstream => self.end_leg(key, CloseCode::GOING_AWAY, ""),
        }
    }

    /// No message either way for too long.
    pub(crate) fn pair_idle(&mut self, key: Key) {
        let far = self.part(key);
        self.end_leg(key, CloseCode::GOING_AWAY, "idle for too long");
        if let Some(far) = far {
            self.end_leg(far, CloseCode::GOING_AWAY, "");
        }
    }

    /// The code that tells a client that its upstream has failed.
    fn failure_code(&self, key: Key) -> CloseCode {
        let proxy = self.registry.get(key).and_then(|session| self.plan.route(session.route).proxy.as_ref());
        proxy.map_or(CloseCode::INTERNAL_ERROR, |proxy| proxy.failure_code)
    }
}

impl Paired {
    pub(crate) fn new(far: Key, upstream: u16, reading: Reading, rsv1: bool) -> Paired {
        Paired {
            far: Some(far),
            reading,
            budget: Default::default(),
            ending: None,
            upstream,
            rsv1,
            outgoing_whole: true,
        }
    }

    /// Whether a message or frame of this leg is incomplete.
    pub(crate) fn is_mid_message(&self) -> bool {
        match &self.reading {
            Reading::Cut(inspector) => inspector.message_open(),
            Reading::Messages(messages) => messages.decoder.is_partial(),
        }
    }
}
