//! What a session's deadline means when it comes.
//!
//! Deadlines are lazy: a message only moves a stamp in its session. When the wheel yields the session, [`judge`] looks at
//! the stamps and says what is due, or when to look again.

use tidegate_io::Backend;
use tidegate_registry::{Batch, Key, Timer, Verdict, jitter};
use tidegate_wire::{close::CloseCode, http::Refusal};

use crate::{
    environment::Environment,
    log::{ABNORMAL, Leg},
    plan::Plan,
    session::{Session, State},
    shard::Shard,
};

/// What could not be done when it was due (a ping inside a forwarded frame) is tried again after this.
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

    fn verdict(self) -> Verdict {
        match self {
            Earliest { due: Some(timer), .. } => Verdict::Fire(timer),
            Earliest { later_ms: u64::MAX, .. } => Verdict::Nothing,
            Earliest { later_ms, .. } => Verdict::Later(later_ms),
        }
    }
}

/// What is due for a session, or when to look again.
pub(crate) fn judge<S>(key: Key, session: &Session<S>, plan: &Plan, now_ms: u64) -> Verdict {
    let mut earliest = Earliest::new(now_ms);
    if !session.outbox.is_empty() {
        earliest.by(Timer::Write, session.stalled.ms(now_ms) + plan.limits().write_timeout_ms);
    }
    match &session.state {
        State::Head(head) => earliest.by(Timer::Head, head.deadline_ms),
        State::Waiting(waiting) => earliest.by(Timer::Handshake, waiting.deadline_ms),
        State::Dialing(dialing) => earliest.by(Timer::Handshake, dialing.deadline_ms),
        State::Lingering { deadline_ms, .. } => earliest.by(Timer::Linger, *deadline_ms),
        State::Open(open) => match open.close_deadline_ms {
            0 => judge_open(&mut earliest, key, session, plan, open.decoder.is_partial()),
            deadline_ms => earliest.by(Timer::Close, deadline_ms),
        },
        State::Paired(paired) => match paired.ending.as_ref().map_or(0, |ending| ending.deadline_ms) {
            // A reader that is paused for its far side is not late.
            0 => judge_open(
                &mut earliest,
                key,
                session,
                plan,
                paired.is_mid_message() && !session.marks.paused,
            ),
            deadline_ms => earliest.by(Timer::Close, deadline_ms),
        },
        State::Dead => return Verdict::Nothing,
    }
    earliest.verdict()
}

fn judge_open<S>(earliest: &mut Earliest, key: Key, session: &Session<S>, plan: &Plan, partial: bool) {
    let now_ms = earliest.now_ms;
    let limits = &plan.route(session.route).limits;
    if partial {
        earliest.by(Timer::Message, session.since.ms(now_ms) + limits.message_timeout_ms);
    }
    if limits.idle_timeout_ms != 0 && !session.marks.upstream {
        earliest.by(Timer::Idle, session.spoke.ms(now_ms) + limits.idle_timeout_ms);
    }
    if session.marks.pinged {
        earliest.by(Timer::Pong, session.pinged.ms(now_ms) + limits.pong_timeout_ms);
    } else if limits.ping_interval_ms != 0 {
        // A session that spoke since needs no ping yet. Spread, so that those that came together are not pinged together.
        earliest.by(Timer::Ping, session.seen.ms(now_ms) + jitter(key, limits.ping_interval_ms, 0));
    }
}

impl<B: Backend, E: Environment> Shard<B, E> {
    /// All that is due now, as one batch: the pings, then the rest.
    pub(crate) fn expire(&mut self) {
        let mut batch = std::mem::replace(&mut self.batch, Batch::new());
        let (plan, now_ms) = (&self.plan, self.now_ms);
        batch.fill(now_ms, &mut self.wheel, &mut self.registry, |key, session| {
            judge(key, session, plan, now_ms)
        });
        for key in batch.pings.drain(..) {
            self.send_ping(key);
            self.flush_spans();
            self.look_again(key);
        }
        for (key, timer) in batch.others.drain(..) {
            // One before it may have dealt with this session, too: a pair's legs end by the same deadline.
            let is_due = self.registry.get(key).is_some_and(
                |session| matches!(judge(key, session, &self.plan, now_ms), Verdict::Fire(due) if due == timer),
            );
            if is_due {
                self.fire(key, timer);
                self.flush_spans();
            }
            self.look_again(key);
        }
        self.batch = batch;
    }

    /// Schedules the next deadline of a session whose state has changed.
    pub(crate) fn look_again(&mut self, key: Key) {
        let Some(session) = self.registry.get(key) else { return };
        match judge(key, session, &self.plan, self.now_ms) {
            Verdict::Later(deadline_ms) => self.ensure_deadline(key, deadline_ms),
            Verdict::Fire(_) => self.ensure_deadline(key, self.now_ms + RETRY_MS),
            Verdict::Nothing => {}
        }
    }

    fn fire(&mut self, key: Key, timer: Timer) {
        let leg = self.leg(key);
        let Some(session) = self.registry.get(key) else { return };
        let paired = matches!(session.state, State::Paired(_));
        match timer {
            Timer::Head => {
                let idle = matches!(&session.state, State::Head(head) if head.bytes.is_empty());
                if idle && session.marks.keep_alive {
                    self.abort(key, false);
                } else {
                    self.refuse(key, &HEAD_TIMEOUT, false);
                }
            }
            Timer::Handshake => match &session.state {
                State::Dialing(_) => self.dial_timed_out(key),
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
            Timer::Write => {
                self.counters.slow += 1;
                let code = CloseCode::TRY_AGAIN_LATER.into();
                self.log_end(key, leg, code, "slow consumer: it took nothing for too long");
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
