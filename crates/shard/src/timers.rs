//! What a session's deadline means when it comes.
//!
//! Deadlines are lazy: a message only moves a stamp in its session. When the wheel yields the session, [`judge`] looks at
//! the stamps and says what is due, or when to look again.

use tidegate_io::Backend;
use tidegate_registry::{Batch, Control, Key, Timer, Verdict, jitter};
use tidegate_wire::{close::CloseCode, frame::ControlFrame, http::Refusal};

use crate::{
    environment::Environment,
    identity::{Callers, ends_ms},
    log::{ABNORMAL, Leg, Level, What},
    meter::Meters,
    output::Content,
    plan::{PING, Plan},
    proxy::PING_MARK,
    session::{Fact, Session, State},
    shard::Shard,
    stamp::Stamp,
    topics::Stage,
    turn::Source,
};

/// What could not be done or judged when it was due (a ping inside a forwarded frame) is tried again after this.
const RETRY_MS: u64 = 1_000;

/// RFC 9110 §15.5.9.
const HEAD_TIMEOUT: Refusal =
    Refusal { status: 408, reason: "the request's head did not arrive in time", close: true, fields: &[] };

/// The earliest of several deadlines.
struct Earliest {
    now_ms: u64,
    due: Option<Timer>,
    later_ms: u64,
}

impl Earliest {
    fn new(now_ms: u64) -> Earliest {
        Earliest { now_ms, due: None, later_ms: u64::MAX }
    }

    /// One more deadline; of several that are due the first that was named counts.
    fn by(&mut self, timer: Timer, deadline_ms: u64) {
        if deadline_ms <= self.now_ms {
            self.due = self.due.or(Some(timer));
        } else {
            self.later_ms = self.later_ms.min(deadline_ms);
        }
    }

    /// Nothing is due then, but it is time to look again.
    fn look_at(&mut self, time_ms: u64) {
        self.later_ms = self.later_ms.min(time_ms);
    }

    fn verdict(self) -> Verdict {
        match self {
            Earliest { due: Some(timer), .. } => Verdict::Fire(timer),
            Earliest { later_ms: u64::MAX, .. } => Verdict::Nothing,
            Earliest { later_ms, .. } => Verdict::Later(later_ms),
        }
    }
}

/// What is kept beside sessions that their deadlines depend on.
#[derive(Clone, Copy)]
pub(crate) struct Beside<'a> {
    pub(crate) callers: &'a Callers,
    pub(crate) meters: &'a Meters,
}

/// What is due for a session, or when to look again.
pub(crate) fn judge<S>(
    key: Key,
    session: &Session<S>,
    plan: &Plan,
    beside: Beside<'_>,
    now_ms: u64,
) -> Verdict {
    let mut earliest = Earliest::new(now_ms);
    if can_expire(session)
        && let Some(ends_ms) = ends_ms(beside.callers, key)
    {
        earliest.by(Timer::Expiry, ends_ms);
    }
    if session.marks.facts.has(Fact::Delayed) {
        let rates = plan.route(session.route).rates.as_ref();
        let ready_ms = rates.map_or(0, |rule| beside.meters.ready_ms(key, rule));
        earliest.by(Timer::Rate, ready_ms);
    }
    if !session.outbox.is_empty() {
        earliest.by(Timer::Write, session.stalled.ms(now_ms) + plan.limits().write_timeout_ms);
    }
    match &session.state {
        // Behind a page its time runs from the last byte of that on.
        State::Head(head) if head.kept_alive && session.is_held() => earliest.look_at(now_ms + RETRY_MS),
        State::Head(head) => earliest.by(Timer::Head, head.deadline_ms),
        State::Deciding(deciding) => earliest.by(Timer::Handshake, deciding.deadline_ms),
        State::Waiting(waiting) => earliest.by(Timer::Handshake, waiting.deadline_ms),
        State::Dialing(dialing) => earliest.by(Timer::Handshake, dialing.deadline_ms),
        State::Lingering { deadline_ms, .. } => earliest.by(Timer::Linger, *deadline_ms),
        State::Exchange(exchange) if exchange.deadline_ms == u64::MAX => {
            let interval_ms = plan.route(session.route).limits.ping_interval_ms;
            if interval_ms != 0 {
                earliest.by(Timer::Ping, session.pinged.ms(now_ms) + interval_ms);
            }
        }
        State::Exchange(exchange) => earliest.by(Timer::Handshake, exchange.deadline_ms),
        State::Open(open) => match open.close_deadline_ms {
            0 => judge_open(&mut earliest, key, session, plan, open.decoder.is_partial()),
            deadline_ms => earliest.by(Timer::Close, deadline_ms),
        },
        State::Paired(paired) => match paired.ending.as_ref().map_or(0, |ending| ending.deadline_ms) {
            0 => judge_open(&mut earliest, key, session, plan, paired.is_mid_message()),
            deadline_ms => earliest.by(Timer::Close, deadline_ms),
        },
        State::Dead => return Verdict::Nothing,
    }
    earliest.verdict()
}

/// Whether a session ends when its token is over: it is open, and does not end already. What is done already, or is on its
/// way, goes on.
fn can_expire<S>(session: &Session<S>) -> bool {
    match &session.state {
        State::Open(open) => open.close_deadline_ms == 0,
        State::Paired(paired) => {
            !session.marks.upstream && paired.ending.as_ref().is_none_or(|ending| ending.deadline_ms == 0)
        }
        State::Exchange(exchange) => match exchange.stage {
            Stage::Body(_) | Stage::Polling(_) | Stage::Streaming(_) => true,
            Stage::Publishing(_) | Stage::Asking => false,
        },
        State::Head(_)
        | State::Deciding(_)
        | State::Waiting(_)
        | State::Dialing(_)
        | State::Lingering { .. }
        | State::Dead => false,
    }
}

fn judge_open<S>(earliest: &mut Earliest, key: Key, session: &Session<S>, plan: &Plan, partial: bool) {
    let now_ms = earliest.now_ms;
    let limits = &plan.route(session.route).limits;
    if session.marks.facts.has(Fact::Delayed) && limits.ping_interval_ms != 0 && session.outbox.is_empty() {
        // Its pong is not read yet, so that none is waited for. But a peer that is gone resets what is sent to it: its slot is
        // not taken until all that it had sent would have been due.
        let asked_ms = session.seen.ms(now_ms).max(session.pinged.ms(now_ms));
        earliest.by(Timer::Ping, asked_ms + jitter(key, limits.ping_interval_ms, 0));
    }
    if session.marks.held || session.marks.sheltered || session.marks.starved {
        // What it sent waits here, or in the kernel for buffers.
        earliest.look_at(now_ms + RETRY_MS);
        return;
    }
    if partial && !session.marks.paused {
        earliest.by(Timer::Message, session.since.ms(now_ms) + limits.message_timeout_ms);
    }
    if session.is_held() {
        // Its pong lies unread in the kernel, or its ping waits behind what it has not taken yet: a slow reader is not a
        // silent peer. The write deadline, its own or its far side's, ends it where nothing moves any more.
        earliest.look_at(now_ms + plan.limits().write_timeout_ms);
        return;
    }
    if limits.idle_timeout_ms != 0 && !session.marks.upstream {
        earliest.by(Timer::Idle, session.spoke.ms(now_ms) + limits.idle_timeout_ms);
    }
    if session.marks.pinged {
        earliest.by(Timer::Pong, session.pinged.ms(now_ms) + limits.pong_timeout_ms);
        if limits.ping_interval_ms != 0 {
            // The pong moves no deadline: the next ping's may come long before this one's.
            earliest.look_at(now_ms + jitter(key, limits.ping_interval_ms, 0));
        }
    } else if limits.ping_interval_ms != 0 {
        // A session that spoke since needs no ping yet. Spread, so that those that came together are not pinged together.
        earliest.by(Timer::Ping, session.seen.ms(now_ms) + jitter(key, limits.ping_interval_ms, 0));
    }
}

impl<B: Backend, E: Environment> Shard<B, E> {
    fn beside(&self) -> Beside<'_> {
        Beside { callers: &self.callers, meters: &self.meters }
    }

    /// All that is due now, as one batch: the pings, then the rest.
    pub(crate) fn expire(&mut self) {
        let mut batch = std::mem::replace(&mut self.batch, Batch::new());
        let (plan, now_ms) = (&self.plan, self.now_ms);
        let beside = Beside { callers: &self.callers, meters: &self.meters };
        batch.fill(now_ms, &mut self.wheel, &mut self.registry, |key, session| {
            judge(key, session, plan, beside, now_ms)
        });
        for key in batch.pings.drain(..) {
            self.send_ping(key);
            self.flush_spans();
            self.look_again(key);
        }
        for (key, timer) in batch.others.drain(..) {
            // One before it may have dealt with this session, too: a pair's legs end by the same deadline.
            let is_due = self.registry.get(key).is_some_and(
                |session| matches!(judge(key, session, &self.plan, self.beside(), now_ms), Verdict::Fire(due) if due == timer),
            );
            if is_due {
                self.fire(key, timer);
                self.flush_spans();
            }
            self.look_again(key);
        }
        self.batch = batch;
    }

    /// A session is held no more, or less: its times count from now on. Not that of its message, which is held only while
    /// its reader is paused.
    pub(crate) fn count_anew(&mut self, key: Key) {
        let (now_ms, head_timeout_ms) = (self.now_ms, self.head_timeout_ms());
        let now = Stamp::at(now_ms);
        let Some(session) = self.registry.get_mut(key) else { return };
        session.seen = now;
        session.spoke = now;
        session.pinged = now;
        // An answer that lay unread says nothing of the way.
        session.marks.pinged = false;
        if let State::Head(head) = &mut session.state
            && head.kept_alive
        {
            head.deadline_ms = now_ms + head_timeout_ms;
        }
        self.look_again(key);
    }

    /// Schedules the next deadline of a session whose state has changed.
    pub(crate) fn look_again(&mut self, key: Key) {
        let Some(session) = self.registry.get(key) else { return };
        match judge(key, session, &self.plan, self.beside(), self.now_ms) {
            Verdict::Later(deadline_ms) => self.ensure_deadline(key, deadline_ms),
            Verdict::Fire(_) => self.ensure_deadline(key, self.now_ms + RETRY_MS),
            Verdict::Nothing => {}
        }
    }

    /// Pings a silent peer, where a frame can be put in; tells whether it did.
    fn send_ping(&mut self, key: Key) -> bool {
        let now_ms = self.now_ms;
        let Some(session) = self.registry.get(key) else { return false };
        let (paired, upstream) = (matches!(session.state, State::Paired(_)), session.marks.upstream);
        if paired && !self.at_boundary(key) {
            return false;
        }
        if let State::Exchange(_) = session.state {
            if session.outbox.is_empty() {
                self.send_heartbeat(key);
            }
        } else if upstream {
            let frame = ControlFrame::ping(PING_MARK, Some(self.environment.draw_mask()));
            self.emit_small(key, frame.as_ref(), Content::Control(Control::Ping));
        } else {
            let source = Source::Static(&PING);
            self.emit(key, source, Content::Control(Control::Ping));
        }
        self.counters.pings += 1;
        if let Some(session) = self.registry.get_mut(key) {
            // What is asked for here costs the peer nothing of its control frames: all answers of a time when it was not read
            // come at once.
            match &mut session.state {
                State::Open(open) => open.budget.ask(),
                State::Paired(paired) if !upstream => paired.budget.ask(),
                _ => {}
            }
            // Nobody answers a comment.
            session.marks.pinged = !matches!(session.state, State::Exchange(_));
            session.pinged = Stamp::at(now_ms);
        }
        true
    }

    fn fire(&mut self, key: Key, timer: Timer) {
        let leg = self.leg(key);
        let Some(session) = self.registry.get(key) else { return };
        let paired = matches!(session.state, State::Paired(_));
        match timer {
            Timer::Head if session.marks.facts.has(Fact::ProxyHeader) => {
                self.refuse_proxy_header(key, "no PROXY header in time");
            }
            Timer::Head if session.transport.is_handshaking() => {
                self.counters.tls_failed += 1;
                self.log(Level::Info, Some(key), What::TlsFailed { reason: "the handshake took too long" });
                self.abort(key, false);
            }
            Timer::Head => {
                let idle =
                    matches!(&session.state, State::Head(head) if head.bytes.is_empty() && head.kept_alive);
                if idle {
                    self.abort(key, false);
                } else {
                    self.refuse_early(key, &HEAD_TIMEOUT);
                }
            }
            Timer::Handshake => match &session.state {
                State::Dialing(_) => self.dial_timed_out(key),
                State::Exchange(_) => self.exchange_timed_out(key),
                State::Deciding(_) => self.decision_timed_out(key),
                _ => self.wait_timed_out(key),
            },
            Timer::Ping => {
                self.send_ping(key);
            }
            Timer::Pong => {
                self.counters.ping_timeouts += 1;
                self.log_end(key, leg, ABNORMAL, "no pong in time");
                self.peer_silent(key);
            }
            Timer::Message => {
                let (code, reason) = (CloseCode::POLICY_VIOLATION, "a message took too long to complete");
                match paired {
                    true => self.pair_violated(key, code, reason),
                    false => self.violated(key, code, reason),
                }
            }
            Timer::Close => match paired {
                true => self.end_overdue(key),
                false => self.abort(key, true),
            },
            Timer::Linger => self.abort(key, true),
            Timer::Idle => self.idle(key),
            Timer::Expiry => self.expired(key),
            Timer::Rate => self.end_delay(key),
            Timer::Write => {
                self.note_slow(key, "slow consumer: it took nothing for too long");
                self.peer_stalled(key);
            }
        }
    }

    /// No message from a client for too long; one from its upstream counts too.
    fn idle(&mut self, key: Key) {
        let Some(session) = self.registry.get(key) else { return };
        let far = match &session.state {
            State::Paired(paired) => paired.far,
            _ => None,
        };
        if let Some(spoke) = far.and_then(|far| self.registry.get(far)).map(|far| far.spoke)
            && spoke.ms(self.now_ms) > session.spoke.ms(self.now_ms)
        {
            if let Some(session) = self.registry.get_mut(key) {
                session.spoke = spoke;
            }
            return;
        }
        self.log_end(key, Leg::Client, CloseCode::GOING_AWAY.into(), "idle for too long");
        if matches!(self.registry.get(key), Some(session) if matches!(session.state, State::Paired(_))) {
            self.pair_idle(key);
        } else {
            self.send_close(key, Some(CloseCode::GOING_AWAY), "idle for too long");
            self.linger(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use tidegate_hub::RouteId;
    use tidegate_registry::Registry;
    use tidegate_wire::{Role, budget::ControlBudget, message::Decoder};

    use super::*;
    use crate::{
        session::{Open, Peer},
        stamp::Stamp,
    };

    const CONFIG: &str = "version = 1\n[limits]\nping_interval = \"5s\"\npong_timeout = \"30s\"\n\
        [[listener]]\nbind = \"127.0.0.1:1\"\n[[route]]\npath = \"/\"\necho = {}\n";

    /// The times of the pings within `until_ms` of a session that says nothing but a pong `answer_ms` after each.
    fn pings(answer_ms: u64, until_ms: u64) -> Vec<u64> {
        let plan = Plan::new(tidegate_config::parse(CONFIG, "test.toml").expect("it is right"), 1);
        let state = State::Open(Open {
            decoder: Decoder::new(Role::Server),
            compression: None,
            budget: ControlBudget::default(),
            close_deadline_ms: 0,
        });
        let mut session = Session::new((), Peer::new(None), state, 0);
        session.route = RouteId(0);
        let (callers, meters) = (Callers::default(), Meters::default());
        let mut registry = Registry::with_capacity(1);
        let Ok(key) = registry.insert(session) else { panic!("there is room for one") };
        let (mut sent, mut look_ms, mut pong_ms) = (Vec::new(), 0, u64::MAX);
        for now_ms in 0..until_ms {
            let session = registry.get_mut(key).expect("nobody removes it");
            if now_ms == pong_ms {
                session.marks.pinged = false;
                session.seen = Stamp::at(now_ms);
            }
            if now_ms < look_ms {
                continue;
            }
            let beside = Beside { callers: &callers, meters: &meters };
            let mut verdict = judge(key, session, &plan, beside, now_ms);
            if verdict == Verdict::Fire(Timer::Ping) {
                session.marks.pinged = true;
                session.pinged = Stamp::at(now_ms);
                sent.push(now_ms);
                pong_ms = now_ms + answer_ms;
                verdict = judge(key, session, &plan, beside, now_ms);
            }
            // As in the wheel: only what was scheduled is looked at.
            let Verdict::Later(later_ms) = verdict else { panic!("{verdict:?} at {now_ms}") };
            look_ms = later_ms;
        }
        sent
    }

    #[test]
    fn pings_come_at_their_interval_though_a_pong_may_take_longer() {
        for answer_ms in [1, 100, 4_000] {
            let sent = pings(answer_ms, 200_000);
            for pair in sent.windows(2) {
                let silence = pair[1] - pair[0] - answer_ms;
                // The jitter takes up to a quarter, a stamp and the look at it add some milliseconds.
                assert!((3_750..=5_050).contains(&silence), "{silence} ms of silence before a ping");
            }
            assert!(sent.len() as u64 >= 200_000 / (5_100 + answer_ms), "{} pings", sent.len());
        }
    }

    #[test]
    fn a_ping_without_a_pong_is_not_repeated() {
        assert_eq!(pings(29_000, 30_000).len(), 1);
    }
}
