//! From a home's publications to the subscribers here: batches, and those who fall behind.
//!
//! Invariant: each item that comes here is in exactly one batch of its topic. A member that does not take it from the batch
//! lags, and what it missed is given or told before it takes from a batch again.

use std::sync::Arc;

use super::Hub;
use crate::{
    backlog::{Backlog, LAGS, Outlet},
    local::{BATCH_ITEMS, subscriber},
    member::{MemberId, Subscriber, SubscriptionId},
    members::State,
    planted::{self, Bug},
    publication::{GapReason, Publication},
    rules::Slow,
    store::Store,
    topic::Position,
};

/// A topic with something new for this shard's subscribers. Valid until [`Hub::finish_batch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchId(u32);

/// The batch that is out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Open {
    topic: u32,
    /// Patterns add to its audience: it lies in `Hub::audience`.
    mixed: bool,
}

/// What becomes of a subscriber that fell behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Fate {
    /// Its session ends (Close 1013).
    Disconnect,
    /// It waits: [`Hub::catch_up`] when its outbox has emptied.
    Waits,
}

/// What a member that fell behind gets now.
#[derive(Debug)]
pub struct CatchUp {
    /// In this order, to be framed like a batch's. Gaps are among them.
    pub items: Vec<Arc<Publication>>,
    /// Nothing more waits: it is live again in all its topics. Else ask again when its outbox has emptied.
    pub done: bool,
}

impl<S: Store> Hub<S> {
    /// An item of a topic has come.
    pub(super) fn take(&mut self, item: Arc<Publication>) {
        if planted::one_in(Bug::DropOne, 100) && item.is_message() {
            return;
        }
        let mut local = self.locals.find(item.topic());
        if local.is_none() && !self.patterns.is_empty() && !item.is_presence() {
            let mut found = self.find_followed(item.topic());
            if !found.is_empty() {
                local = Some(self.locals.insert(item.topic(), self.rules.rule_for(item.topic())));
            }
            found.clear();
            self.found = found;
        }
        // Its last subscriber has left meanwhile.
        let Some(local) = local else { return };
        if item.is_presence() {
            if self.locals.topic(local).watchers == 0 {
                return;
            }
        } else {
            self.reach_by_item(local, item.position());
        }
        let batch = &mut self.locals.topic_mut(local).batch;
        if batch.len() >= BATCH_ITEMS {
            self.overflow(local, &item);
            return;
        }
        if planted::one_in(Bug::DeliverTwice, 100) && item.is_message() {
            self.locals.push(local, Arc::clone(&item));
        }
        #[cfg(feature = "planted-bugs")]
        if planted::one_in(Bug::CrossDeliver, 100)
            && let Some(other) = self.locals.another(local)
        {
            self.locals.push(other, item);
            return;
        }
        self.locals.push(local, item);
    }

    fn reach_by_item(&mut self, local: u32, position: Position) {
        // What waits is in the batch now: `finished` stays.
        let finished = self.locals.topic(local).finished;
        self.reach(local, position);
        self.locals.topic_mut(local).finished = finished;
    }

    /// More than one turn's batch can hold is left out, and told.
    fn overflow(&mut self, local: u32, item: &Arc<Publication>) {
        self.counts.left_out += 1;
        let batch = &mut self.locals.topic_mut(local).batch;
        let tells = |is_presence| batch[BATCH_ITEMS..].iter().any(|gap| gap.is_presence() == is_presence);
        if item.is_presence() {
            // Before the gap of messages, which may yet grow.
            if !tells(true) {
                batch.insert(BATCH_ITEMS, Publication::presence_gap(item.topic(), &self.ledger));
            }
            return;
        }
        let has_gap = tells(false);
        let extended =
            has_gap && batch.last_mut().is_some_and(|last| Publication::extend_gap(last, item.position()));
        if !extended && !has_gap {
            let (from, to) = (item.first_offset(), item.position());
            batch.push(Publication::gap(item.topic(), from, to, GapReason::Busy, &self.ledger));
        }
    }

    /// The next topic with something new. One batch is out at a time.
    ///
    /// # Panics
    /// If a batch is out.
    #[must_use]
    pub fn poll_batch(&mut self) -> Option<BatchId> {
        assert!(self.batch.is_none(), "one batch at a time");
        while let Some(topic) = self.locals.poll_due() {
            let mixed = self.mix_audience(topic);
            self.batch = Some(Open { topic, mixed });
            if mixed || !self.locals.topic(topic).audience.is_empty() {
                #[cfg(feature = "planted-bugs")]
                self.spoil_batch(topic, mixed);
                return Some(BatchId(topic));
            }
            self.finish_batch(BatchId(topic));
        }
        // What comes from now on is behind all of them.
        self.late.clear();
        None
    }

    /// What planted bugs do to a batch that is about to be handed out.
    #[cfg(feature = "planted-bugs")]
    fn spoil_batch(&mut self, topic: u32, mixed: bool) {
        if planted::one_in(Bug::SwapTwo, 20) {
            self.locals.swap_first_two(topic);
        }
        let id = BatchId(topic);
        let deliveries = || (self.publications(id).len() * self.audience(id).len()) as u64;
        if planted::one_in_many(Bug::DropDelivery, deliveries, 100) {
            self.locals.drop_delivery(topic, mixed.then_some(&mut self.audience));
        }
    }

    /// Whether patterns add to a topic's audience; then it is put together here.
    fn mix_audience(&mut self, topic: u32) -> bool {
        if self.patterns.is_empty() {
            return false;
        }
        let name = self.locals.topic(topic).name.clone();
        let mut found = self.find_followed(&name);
        let own = self.locals.topic(topic);
        let mixed = !found.is_empty();
        if mixed {
            // A member that is new has 0.
            self.mark = self.mark.checked_add(1).unwrap_or(1);
            self.audience.clear();
            self.audience.extend_from_slice(&own.audience);
        }
        // A member of several patterns gets what the earliest of them does.
        if !self.late.is_empty() {
            found.sort_by_cached_key(|&pattern| self.begin_of(topic, pattern));
        }
        for &pattern in &found {
            for &id in &self.patterns.get(pattern).subscriptions {
                let member = self.members.subscription(id).member;
                let known = self.members.member_mut(member);
                if known.mark == self.mark {
                    continue;
                }
                known.mark = self.mark;
                let by_name = self.members.find_topic(member, topic);
                if by_name.is_some_and(|id| self.members.subscription(id).state == State::Live) {
                    continue;
                }
                let lags = own.laggards > 0 && self.lags.find(member, topic).is_some();
                let flags = Subscriber::PATTERN | if lags { Subscriber::LAGS } else { 0 };
                let entry = subscriber(self.members.member(member), id, flags);
                self.audience.push(Subscriber { skip: self.begin_of(topic, pattern), ..entry });
            }
        }
        found.clear();
        self.found = found;
        mixed
    }

    /// What is new, in order: messages, joins and leaves, gaps.
    ///
    /// # Panics
    /// Unless this batch is out.
    #[must_use]
    pub fn publications(&self, batch: BatchId) -> &[Arc<Publication>] {
        &self.locals.topic(self.open(batch).topic).batch
    }

    /// Who gets it: the topic's subscribers, then those by a pattern that are not among them. Each member stands here once.
    /// Leave out those that lag.
    ///
    /// # Panics
    /// Unless this batch is out.
    #[must_use]
    pub fn audience(&self, batch: BatchId) -> &[Subscriber] {
        let open = self.open(batch);
        if open.mixed { &self.audience } else { &self.locals.topic(open.topic).audience }
    }

    /// All subscribers have it, or have fallen behind.
    ///
    /// # Panics
    /// Unless this batch is out.
    pub fn finish_batch(&mut self, batch: BatchId) {
        let Open { topic: id, .. } = self.open(batch);
        self.batch = None;
        let topic = self.locals.topic_mut(id);
        if let Some(backlog) = &mut topic.backlog {
            let settings = self.rules.settings(topic.rule);
            // Of an epoch that has ended meanwhile nothing is kept.
            let now = topic.position.epoch;
            for item in topic.batch.iter().filter(|item| item.is_presence() || item.position().epoch == now) {
                backlog.absorb(item, settings);
            }
        }
        self.locals.finish(id);
    }

    fn open(&self, BatchId(topic): BatchId) -> Open {
        *self.batch.as_ref().filter(|open| open.topic == topic).expect("a batch that is out")
    }

    /// A subscriber did not take all of a batch that is out: its outbox is full. It was given the first `taken` items (those
    /// that it skips counted) and gets no more of this topic until it has caught up.
    ///
    /// # Panics
    /// Unless this batch is out.
    pub fn fell_behind(&mut self, batch: BatchId, subscription: SubscriptionId, taken: usize) -> Fate {
        let Open { topic: id, .. } = self.open(batch);
        // It may have left since it was looked at.
        let Some(own) = self.members.get(subscription.0) else { return Fate::Waits };
        let (member, state, place) = (own.member, own.state, own.place);
        let topic = self.locals.topic(id);
        let slow = self.rules.settings(topic.rule).slow;
        if self.lags.find(member, id).is_some() {
            return Fate::Waits;
        }
        self.counts.fell_behind[slow as usize] += 1;
        let full = self.members.member(member).lags >= LAGS;
        let fate = if slow == Slow::Disconnect || full { Fate::Disconnect } else { Fate::Waits };
        if fate == Fate::Waits {
            let topic = self.locals.topic_mut(id);
            let cursor = cursor(&topic.batch, taken, topic.position);
            let backlog = topic.backlog.get_or_insert_with(|| {
                self.backlogged.insert(id);
                Box::new(Backlog::new(slow, &self.ledger))
            });
            // The backlog takes the whole batch when that is over.
            let events = topic.batch.iter().take(taken).filter(|item| item.is_presence()).count();
            let events_from = backlog.next_event() + events as u64;
            topic.laggards += 1;
            self.lags.insert(member, id, cursor, events_from, &mut self.members);
        }
        // Whoever is to be disconnected is left out of what comes until then.
        if state == State::Live {
            self.locals.topic_mut(id).set_lags(place, true);
        }
        fate
    }

    /// What a member gets whose outbox has emptied, about so many bytes of it. Not while a batch is out.
    ///
    /// # Panics
    /// If there is no such member, or a batch is out.
    pub fn catch_up(&mut self, member: MemberId, bytes: usize) -> CatchUp {
        assert!(self.batch.is_none(), "not in the middle of a batch");
        let MemberId(member) = member;
        let mut items = Vec::new();
        let mut room = bytes.max(1);
        while let Some(id) = self.lags.newest(member, &self.members) {
            if room == 0 {
                return CatchUp { items, done: false };
            }
            let lag = self.lags.get_mut(id);
            let topic = self.locals.topic(lag.topic);
            let mut out = Outlet { items, room, gaps: 0, messages: 0, ledger: &self.ledger };
            let end = topic.finished;
            if lag.cursor.epoch != end.epoch {
                if lag.cursor.epoch == topic.previous.epoch && lag.cursor.offset < topic.previous.offset {
                    out.gap(&topic.name, lag.cursor.offset + 1, topic.previous);
                }
                lag.cursor = Position { offset: 0, ..end };
            }
            let cursor = &mut lag.cursor.offset;
            let before = *cursor;
            let backlog = topic.backlog.as_ref().expect("a topic in which somebody lags has a backlog");
            let done = backlog.catch_up(&topic.name, cursor, end, &mut out);
            let slow = self.rules.settings(topic.rule).slow as usize;
            self.counts.passed_over[slow] += (*cursor - before).saturating_sub(out.messages);
            let by_name = self.members.find_topic(member, lag.topic);
            let by_name = by_name.map(|id| self.members.subscription(id));
            if done && by_name.is_some_and(|own| own.watches && own.state == State::Live) {
                backlog.catch_up_on_events(&topic.name, lag.events_from, &mut out);
            }
            self.counts.gaps[slow] += out.gaps;
            Outlet { items, room, .. } = out;
            if !done {
                return CatchUp { items, done: false };
            }
            self.end_lag(id);
        }
        CatchUp { items, done: true }
    }

    /// A member takes from batches again, or has ended.
    pub(super) fn end_lag(&mut self, id: u32) {
        let lag = self.lags.remove(id, &mut self.members);
        let by_name = self.members.find_topic(lag.member, lag.topic);
        let by_name = by_name.map(|id| self.members.subscription(id));
        let topic = self.locals.topic_mut(lag.topic);
        if let Some(own) = by_name.filter(|own| own.state == State::Live) {
            topic.set_lags(own.place, false);
        }
        topic.laggards -= 1;
        if topic.laggards == 0 {
            topic.backlog = None;
            self.backlogged.remove(&lag.topic);
        }
        self.locals.forget_if_idle(lag.topic);
    }
}

/// Behind the last of the items that were taken.
fn cursor(batch: &[Arc<Publication>], taken: usize, now: Position) -> Position {
    let (taken, left) = batch.split_at(taken.min(batch.len()));
    if let Some(last) = taken.iter().rev().find(|item| !item.is_presence()) {
        return last.position();
    }
    match left.iter().find(|item| !item.is_presence()) {
        Some(next) => Position { offset: next.first_offset() - 1, ..next.position() },
        None => now,
    }
}
