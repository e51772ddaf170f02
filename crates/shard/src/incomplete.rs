//! What is held of what is not complete: half messages, bodies, heads and records of TLS, and what clients send before they are
//! let in.
//!
//! It counts in the process's memory as outboxes do. Where that is used up, and a shard's half messages have more than a part of
//! it that is theirs in any case, some of them are given up: first those that have held the most for the longest time. So one that
//! arrives as fast as others do outlives those that were begun to stay.
//!
//! Invariant: [`Incomplete::bytes`] is the sum of [`State::held_bytes`] and [`Session::sealed_bytes`], and part of what the shard
//! retains, whenever a state is replaced. Whoever holds some of it has a [burden](Shard::burden) and can be given up:
//! nobody pays for another's bytes.

use tidegate_io::Backend;
use tidegate_registry::Key;
use tidegate_wire::close::CloseCode;

use crate::{
    admission::MEMORY_FULL,
    environment::Environment,
    log::{Leg, Level, What},
    session::{Fact, Reading, Session, State},
    shard::Shard,
    topics::Stage,
};

/// This part of the process's memory is for what is not complete, whatever else waits: who does not read must not end those who
/// write.
const OWN_PART: usize = 4;

/// Where some of it is given up, it is down to less than it may be by this part, so that not every buffer that comes begins a search.
const SLACK_PART: usize = 8;

/// A search that has not found enough is repeated after this, or once there is more by a [`SLACK_PART`] of the shard's own part.
const FRUITLESS_MS: u64 = 100;

/// What a shard holds of what is not complete.
#[derive(Clone, Copy, Default)]
pub(crate) struct Incomplete {
    /// Bytes of it, which are part of what the shard retains.
    pub(crate) bytes: usize,
    /// Until then nobody is looked for who could be given up, unless there are more bytes than these.
    fruitless_until_ms: u64,
    fruitless_bytes: usize,
}

impl State {
    /// The heap that it holds of what is not complete.
    #[inline]
    pub(crate) fn held_bytes(&self) -> usize {
        match self {
            State::Open(open) => open.decoder.retained_bytes(),
            State::Paired(paired) => paired.reading.held_bytes(),
            State::Head(head) => head.bytes.capacity(),
            State::Deciding(deciding) => deciding.held_bytes(),
            State::Waiting(waiting) => waiting.held_bytes(),
            State::Exchange(exchange) => exchange.held_bytes(),
            // An upstream's answer is bounded, and no client has a say in it.
            State::Dialing(_) | State::Lingering { .. } | State::Dead => 0,
        }
    }
}

impl Reading {
    /// The heap that it holds of a message that is not complete. Where bytes go through as they are, there is none but for a
    /// part of a control frame.
    #[inline]
    pub(crate) fn held_bytes(&self) -> usize {
        match self {
            Reading::Cut(_) => 0,
            Reading::Messages(messages) => messages.decoder.retained_bytes(),
        }
    }
}

impl<S> Session<S> {
    /// The heap that its transport holds of a record that is not whole. None while it is dialed, as nobody but an upstream has a say
    /// in it, and none at its end: no more comes then, and the peer's time is short.
    #[inline]
    pub(crate) fn sealed_bytes(&self) -> usize {
        match &self.state {
            State::Dialing(_) | State::Lingering { .. } | State::Dead => 0,
            State::Head(_)
            | State::Deciding(_)
            | State::Waiting(_)
            | State::Open(_)
            | State::Paired(_)
            | State::Exchange(_) => self.transport.held_bytes(),
        }
    }

    /// Whether most of what it holds is a record that is not whole: it has that until its end, however it is told of it.
    pub(crate) fn holds_records(&self) -> bool {
        self.sealed_bytes() > self.state.held_bytes()
    }

    /// Whether a message is incomplete, of which it is noted when it began.
    pub(crate) fn is_mid_message(&self) -> bool {
        match &self.state {
            State::Open(open) => open.decoder.is_partial(),
            State::Paired(paired) => paired.is_mid_message(),
            State::Waiting(waiting) => !waiting.early.is_empty(),
            State::Exchange(exchange) => !exchange.early.is_empty(),
            State::Head(_)
            | State::Deciding(_)
            | State::Dialing(_)
            | State::Lingering { .. }
            | State::Dead => false,
        }
    }
}

impl<B: Backend, E: Environment> Shard<B, E> {
    /// A state that held `before` bytes holds `after`.
    #[inline]
    pub(crate) fn recount(&mut self, before: usize, after: usize) {
        if before != after {
            self.retained.release(before);
            self.retained.hold(after);
            self.incomplete.bytes = self.incomplete.bytes + after - before;
        }
    }

    /// The same of a session that held `before` bytes and was read, or is gone.
    pub(crate) fn recount_session(&mut self, key: Key, before: usize) {
        if let Some(after) = self.registry.get(key).map(|session| session.state.held_bytes()) {
            self.recount(before, after);
        }
    }

    /// Once in a turn: gives up half messages where memory is used up and they have a good part of it.
    pub(crate) fn relieve_incomplete(&mut self) {
        let most = self.plan.memory_bytes();
        let own = most / OWN_PART / self.plan.shards();
        if self.incomplete.bytes <= own && self.backlog.is_empty() {
            return;
        }
        self.retained.settle();
        let total = self.retained.total().bytes();
        if total < most {
            return;
        }
        let bytes =
            self.incomplete.bytes + self.backlog.keys().map(|key| self.kept_early(key)).sum::<usize>();
        let Incomplete { fruitless_until_ms, fruitless_bytes, .. } = self.incomplete;
        if bytes <= own || (self.now_ms < fruitless_until_ms && bytes <= fruitless_bytes) {
            return;
        }
        // Each shard its share, so that all of them do not give up what one of them would.
        let excess = total - (most - most / SLACK_PART);
        let share = (excess as u128 * bytes as u128 / total as u128) as usize + 1;
        let share = share.min(bytes - (own - own / SLACK_PART));
        let goal = bytes.saturating_sub(share);
        let burdens =
            self.registry.iter().filter_map(|(key, session)| Some((self.burden(key, session)?, key)));
        let mut found: Vec<(u128, Key)> = burdens.collect();
        found.sort_unstable_by_key(|(burden, _)| std::cmp::Reverse(*burden));
        let mut left = bytes;
        for (_, key) in found {
            if left <= goal {
                break;
            }
            let before = self.incomplete.bytes + self.kept_early(key);
            self.give_up(key);
            self.flush_spans();
            left = (left + self.incomplete.bytes).saturating_sub(before);
        }
        self.retained.settle();
        if left > goal {
            self.incomplete.fruitless_until_ms = self.now_ms + FRUITLESS_MS;
            self.incomplete.fruitless_bytes = left + own / SLACK_PART;
            return;
        }
        // The next turn looks whether that was enough.
        self.hurried |= left > own && self.retained.total().bytes() >= most;
    }

    /// The heap of what a client that waits for somebody else has sent, beyond what its state holds: it was on its way when it was
    /// not read any more.
    fn kept_early(&self, key: Key) -> usize {
        match self.registry.get(key).map(|session| &session.state) {
            Some(State::Deciding(_) | State::Waiting(_) | State::Exchange(_)) => {
                self.backlog.owned_bytes_of(key)
            }
            _ => 0,
        }
    }

    /// What is not complete has taken so far: its bytes for its time. Nothing where no bytes are held.
    fn burden(&self, key: Key, session: &Session<B::Socket>) -> Option<u128> {
        let sealed = session.sealed_bytes();
        let held = session.state.held_bytes() + sealed + self.kept_early(key);
        if held == 0 {
            return None;
        }
        let since_ms = match &session.state {
            State::Exchange(exchange) if matches!(exchange.stage, Stage::Body(_)) => {
                let timeout_ms = self.plan.route(session.route).limits.message_timeout_ms;
                exchange.deadline_ms.saturating_sub(timeout_ms)
            }
            State::Deciding(deciding) => deciding.asked_ms,
            State::Head(head) => head.deadline_ms.saturating_sub(self.head_timeout_ms()),
            State::Open(_) | State::Paired(_) | State::Waiting(_) | State::Exchange(_)
                if sealed > 0 || session.is_mid_message() =>
            {
                session.since.ms(self.now_ms)
            }
            // Of half a header, or half a control frame, it is not noted when it came.
            State::Open(_) | State::Paired(_) | State::Waiting(_) | State::Exchange(_) => {
                session.seen.ms(self.now_ms)
            }
            State::Dialing(_) | State::Lingering { .. } | State::Dead => return None,
        };
        let age_ms = self.now_ms.saturating_sub(since_ms) + 1;
        Some(held as u128 * u128::from(age_ms))
    }

    /// Ends one for what it holds.
    fn give_up(&mut self, key: Key) {
        self.end_incomplete(key);
        self.forget_kept(key);
    }

    fn end_incomplete(&mut self, key: Key) {
        let (code, reason) = (CloseCode::TRY_AGAIN_LATER, MEMORY_FULL.reason);
        let Some(session) = self.registry.get(key) else { return };
        let holds_records = session.holds_records();
        let is_refused = match &session.state {
            State::Head(_) | State::Deciding(_) | State::Waiting(_) => true,
            State::Exchange(exchange) => !exchange.has_begun(),
            State::Open(_) | State::Paired(_) | State::Dialing(_) | State::Lingering { .. } | State::Dead => {
                false
            }
        };
        // One in a spare slot was refused before, and is counted.
        self.counters.refused_memory += u64::from(is_refused && !session.marks.facts.has(Fact::Spare));
        match &session.state {
            State::Paired(_) => self.pair_given_up(key, code, reason),
            State::Open(_) => {
                self.log_end(key, Leg::Client, code.into(), reason);
                if holds_records {
                    self.abort(key, true);
                    return;
                }
                self.send_close(key, Some(code), reason);
                self.linger(key);
            }
            State::Exchange(exchange) if exchange.has_begun() => {
                self.log_end(key, Leg::Client, code.into(), reason);
                match holds_records {
                    true => self.abort(key, true),
                    false => self.end_stream(key),
                }
            }
            State::Head(_)
                if session.transport.is_handshaking() && !session.marks.facts.has(Fact::ProxyHeader) =>
            {
                self.counters.tls_failed += 1;
                self.log(Level::Info, Some(key), What::TlsFailed { reason });
                self.abort(key, true);
            }
            // In which protocol one could be told that has sent half a PROXY header is not known yet.
            State::Head(_) | State::Deciding(_) | State::Exchange(_) | State::Waiting(_)
                if holds_records || session.marks.facts.has(Fact::ProxyHeader) =>
            {
                self.log(Level::Info, Some(key), What::ConnectionRefused { reason });
                self.end_waiting(key);
                self.abort(key, true);
            }
            State::Exchange(exchange) if matches!(exchange.stage, Stage::Publishing(_)) => {
                self.give_up_publishing(key);
            }
            State::Exchange(_) => self.refuse_exchange(key, &MEMORY_FULL),
            State::Waiting(_) => self.refuse_waiting(key, &MEMORY_FULL),
            State::Deciding(_) => self.refuse_deciding(key, &MEMORY_FULL),
            State::Head(_) => self.refuse_early(key, &MEMORY_FULL),
            State::Dialing(_) | State::Lingering { .. } | State::Dead => {}
        }
    }
}
