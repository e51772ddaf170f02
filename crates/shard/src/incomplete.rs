//! What is held of what is not complete: half messages, bodies and heads, and what clients send before they are let in.
//!
//! It counts in the process's memory as outboxes do. Where that is used up, and a shard's half messages have more than a part of
//! it that is theirs in any case, some of them are given up: first those that have held the most for the longest time. So one that
//! arrives as fast as others do outlives those that were begun to stay.
//!
//! Invariant: [`Incomplete::bytes`] is the sum of [`State::held_bytes`], and part of what the shard retains, whenever a state
//! is replaced.

use tidegate_io::Backend;
use tidegate_registry::Key;
use tidegate_wire::close::CloseCode;

use crate::{
    admission::MEMORY_FULL,
    environment::Environment,
    log::Leg,
    session::{Fact, Reading, Session, State},
    shard::Shard,
    topics::Stage,
};

/// This part of the process's memory is for what is not complete, whatever else waits: who does not read must not end those who
/// write.
const OWN_PART: usize = 4;

/// Where some of it is given up, it is down to less than it may be by this part, so that not every buffer that comes begins a search.
const SLACK_PART: usize = 8;

/// A search that has found nobody is repeated after this.
const FRUITLESS_MS: u64 = 100;

/// What a shard holds of what is not complete.
#[derive(Default)]
pub(crate) struct Incomplete {
    /// Bytes of it, which are part of what the shard retains.
    pub(crate) bytes: usize,
    /// Until then nobody is looked for who could be given up.
    fruitless_until_ms: u64,
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
            State::Waiting(waiting) => waiting.early.capacity(),
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
        if self.incomplete.bytes <= own {
            return;
        }
        self.retained.settle();
        let total = self.retained.total().bytes();
        if total < most || self.now_ms < self.incomplete.fruitless_until_ms {
            return;
        }
        // Each shard its share, so that all of them do not give up what one of them would.
        let excess = total - (most - most / SLACK_PART);
        let share = (excess as u128 * self.incomplete.bytes as u128 / total as u128) as usize + 1;
        let share = share.min(self.incomplete.bytes - (own - own / SLACK_PART));
        let goal = self.incomplete.bytes.saturating_sub(share);
        let mut found: Vec<(u128, Key)> =
            (self.registry.iter()).filter_map(|(key, session)| Some((self.burden(session)?, key))).collect();
        found.sort_unstable_by_key(|(burden, _)| std::cmp::Reverse(*burden));
        if found.is_empty() {
            self.incomplete.fruitless_until_ms = self.now_ms + FRUITLESS_MS;
        }
        for (_, key) in found {
            if self.incomplete.bytes <= goal {
                break;
            }
            self.give_up(key);
            self.flush_spans();
        }
        // The next turn looks whether that was enough.
        self.retained.settle();
        self.hurried |= self.incomplete.bytes > own && self.retained.total().bytes() >= most;
    }

    /// What a half message has taken so far: its bytes for its time. Nothing of those that wait for somebody else.
    fn burden(&self, session: &Session<B::Socket>) -> Option<u128> {
        let limits = &self.plan.limits();
        let since_ms = match &session.state {
            State::Open(open) if open.decoder.is_partial() => session.since.ms(self.now_ms),
            State::Paired(paired) if paired.is_mid_message() => session.since.ms(self.now_ms),
            State::Exchange(exchange) if matches!(exchange.stage, Stage::Body(_)) => {
                let timeout_ms = self.plan.route(session.route).limits.message_timeout_ms;
                exchange.deadline_ms.saturating_sub(timeout_ms)
            }
            State::Head(head) if !session.marks.facts.has(Fact::ProxyHeader) => {
                head.deadline_ms.saturating_sub(limits.head_timeout_ms)
            }
            _ => return None,
        };
        let held = session.state.held_bytes();
        let age_ms = self.now_ms.saturating_sub(since_ms) + 1;
        (held > 0).then(|| held as u128 * u128::from(age_ms))
    }

    /// Ends one for what it holds.
    fn give_up(&mut self, key: Key) {
        let code = CloseCode::TRY_AGAIN_LATER;
        match self.registry.get(key).map(|session| &session.state) {
            Some(State::Open(_)) => {
                self.log_end(key, Leg::Client, code.into(), MEMORY_FULL.reason);
                self.send_close(key, Some(code), MEMORY_FULL.reason);
                self.linger(key);
            }
            Some(State::Paired(_)) => self.pair_given_up(key, code, MEMORY_FULL.reason),
            Some(State::Exchange(_)) => self.refuse_exchange(key, &MEMORY_FULL),
            Some(State::Head(_)) => self.refuse(key, &MEMORY_FULL, false),
            _ => {}
        }
    }
}
