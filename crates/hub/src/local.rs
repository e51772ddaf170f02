//! Topics with subscribers on this shard.
//!
//! Invariant: a local topic is there while it has a subscription (answered or not), a member that lags in it, or a batch. The
//! place of each live subscription is its index in the audience.

use std::{collections::VecDeque, sync::Arc};

use hashbrown::HashTable;
use slab::Slab;

use crate::{
    backlog::Backlog,
    growth,
    member::{Subscriber, SubscriptionId},
    members::Members,
    publication::Publication,
    rules::RuleId,
    topic::{Position, TopicName},
};

/// Items of a batch at most: a subscriber's `skip` counts them.
pub(crate) const BATCH_ITEMS: usize = u16::MAX as usize - 1;

/// Emptied batches kept for the next ones: short ones, and a few long ones.
const SPARES: usize = 4_096;
const SHORT_ITEMS: usize = 4;
const LONG_SPARES: usize = 64;

/// Passes where a pattern begins: what came before is not for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Time(u64);

#[derive(Debug)]
pub(crate) struct LocalTopic {
    pub(crate) name: TopicName,
    pub(crate) audience: Vec<Subscriber>,
    /// What came since the last fan-out.
    pub(crate) batch: Vec<Arc<Publication>>,
    /// The time of the batch's first item.
    since: Time,
    /// Where the batch's later times begin, in order. Empty unless patterns began meanwhile.
    times: Vec<(Time, u16)>,
    /// Behind the last item that came, also those of the batch.
    pub(crate) position: Position,
    /// Behind the last item that was fanned out.
    pub(crate) finished: Position,
    /// Where the epoch before ended, for members that lag in it.
    pub(crate) previous: Position,
    pub(crate) backlog: Option<Box<Backlog>>,
    pub(crate) rule: RuleId,
    /// Subscriptions that the home has not answered yet.
    pub(crate) asked: u32,
    /// Subscriptions that watch presence, answered or not.
    pub(crate) watchers: u32,
    /// Members that lag in it.
    pub(crate) laggards: u32,
    /// No subscriber before this place has anything to skip.
    skips_from: u32,
    /// It stands in the list of those with a batch, or its batch is out.
    pub(crate) due: bool,
}

impl LocalTopic {
    fn is_idle(&self) -> bool {
        self.audience.is_empty() && self.asked == 0 && self.laggards == 0 && !self.due
    }

    /// Adds a subscriber behind what is in the batch; gives its place.
    pub(crate) fn admit(&mut self, mut subscriber: Subscriber) -> u32 {
        // Subscriptions of a shard are far below 2³², and a batch's items below 2¹⁶.
        let place = self.audience.len() as u32;
        // The gap at the end of a full batch may yet grow: it comes to everybody.
        subscriber.skip = self.batch.len().min(BATCH_ITEMS) as u16;
        if subscriber.skip > 0 {
            self.skips_from = self.skips_from.min(place);
        }
        growth::push(&mut self.audience, subscriber);
        place
    }

    /// Removes a subscriber; the last one takes its place.
    pub(crate) fn dismiss(&mut self, place: u32, members: &mut Members) {
        self.audience.swap_remove(place as usize);
        if let Some(moved) = self.audience.get(place as usize) {
            members.subscription_mut(moved.subscription.0).place = place;
            if moved.skip > 0 {
                self.skips_from = self.skips_from.min(place);
            }
        }
        // Memory follows the audience: at a quarter it shrinks to half, so that it does not swing.
        if self.audience.capacity() > 16 && self.audience.len() * 4 <= self.audience.capacity() {
            self.audience.shrink_to(self.audience.len() * 2);
        }
    }

    /// How much of the batch came before this time. The gap at the end of a full batch may yet grow: it comes to everybody.
    pub(crate) fn count_before(&self, time: Time) -> u16 {
        if time <= self.since {
            return 0;
        }
        let place = self.times.partition_point(|(begun, _)| *begun < time);
        // A batch's items are below 2¹⁶.
        self.times.get(place).map_or(self.batch.len().min(BATCH_ITEMS) as u16, |(_, count)| *count)
    }

    pub(crate) fn forget_skips(&mut self) {
        if let Some(late) = self.audience.get_mut(self.skips_from as usize..) {
            late.iter_mut().for_each(|subscriber| subscriber.skip = 0);
        }
        self.skips_from = u32::MAX;
    }

    pub(crate) fn set_lags(&mut self, place: u32, lags: bool) {
        let flags = &mut self.audience[place as usize].flags;
        *flags = if lags { *flags | Subscriber::LAGS } else { *flags & !Subscriber::LAGS };
    }
}

/// All local topics of a shard.
#[derive(Debug, Default)]
pub(crate) struct Locals {
    topics: Slab<LocalTopic>,
    /// Topics by name.
    table: HashTable<u32>,
    /// Those with a batch, in order of its first item.
    due: VecDeque<u32>,
    spares: Vec<Vec<Arc<Publication>>>,
    now: Time,
}

impl Locals {
    pub(crate) fn is_empty(&self) -> bool {
        self.topics.is_empty() && self.table.is_empty() && self.due.is_empty()
    }

    /// The name of a topic that has subscribers here.
    pub(crate) fn name(&self, hash: u64, text: &str) -> Option<&TopicName> {
        let id = self.table.find(hash, |&other| self.topics[other as usize].name.as_str() == text)?;
        Some(&self.topics[*id as usize].name)
    }

    pub(crate) fn find(&self, name: &TopicName) -> Option<u32> {
        self.table.find(name.hash(), |&other| self.topics[other as usize].name == *name).copied()
    }

    /// # Panics
    /// If there is no such topic.
    pub(crate) fn topic(&self, id: u32) -> &LocalTopic {
        &self.topics[id as usize]
    }

    /// # Panics
    /// If there is no such topic.
    pub(crate) fn topic_mut(&mut self, id: u32) -> &mut LocalTopic {
        &mut self.topics[id as usize]
    }

    /// A topic that is not there yet.
    pub(crate) fn insert(&mut self, name: &TopicName, rule: RuleId) -> u32 {
        let topic = LocalTopic {
            name: name.clone(),
            audience: Vec::new(),
            batch: Vec::new(),
            since: Time::default(),
            times: Vec::new(),
            position: Position::NOWHERE,
            finished: Position::NOWHERE,
            previous: Position::NOWHERE,
            backlog: None,
            rule,
            asked: 0,
            watchers: 0,
            laggards: 0,
            skips_from: u32::MAX,
            due: false,
        };
        // Topics are bounded by subscriptions, below 2³².
        let id = self.topics.insert(topic) as u32;
        let topics = &self.topics;
        self.table.insert_unique(name.hash(), id, |&other| topics[other as usize].name.hash());
        id
    }

    /// Forgets a topic that nothing needs any more, if it is still there.
    pub(crate) fn forget_if_idle(&mut self, id: u32) {
        if !self.topics.get(id as usize).is_some_and(LocalTopic::is_idle) {
            return;
        }
        let topic = self.topics.remove(id as usize);
        let found = self.table.find_entry(topic.name.hash(), |&other| other == id);
        found.expect("a topic is in the table").remove();
        if self.table.len() * 4 < self.table.capacity() && self.table.capacity() > 1024 {
            let topics = &self.topics;
            let to = self.table.len() * 2;
            self.table.shrink_to(to, |&other| topics[other as usize].name.hash());
        }
        if self.topics.is_empty() && self.topics.capacity() > 1024 {
            self.topics = Slab::new();
        }
    }

    /// Adds an item to a topic's batch.
    pub(crate) fn push(&mut self, id: u32, item: Arc<Publication>) {
        let topic = &mut self.topics[id as usize];
        if topic.batch.is_empty() {
            topic.batch = self.spares.pop().unwrap_or_default();
            topic.since = self.now;
        } else if topic.times.last().map_or(topic.since, |(time, _)| *time) != self.now {
            // Nothing is pushed to a batch that is full.
            topic.times.push((self.now, topic.batch.len() as u16));
        }
        topic.batch.push(item);
        if !topic.due {
            topic.due = true;
            self.due.push_back(id);
        }
    }

    pub(crate) fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// A pattern begins: what comes from now on is behind this time.
    pub(crate) fn tick(&mut self) -> Time {
        self.now.0 += 1;
        self.now
    }

    /// Another topic than this one, for a planted bug.
    #[cfg(feature = "planted-bugs")]
    pub(crate) fn another(&self, id: u32) -> Option<u32> {
        let other = |(other, _): (usize, &LocalTopic)| Some(other as u32).filter(|&other| other != id);
        self.topics.iter().find_map(other)
    }

    /// For a planted bug.
    #[cfg(feature = "planted-bugs")]
    pub(crate) fn swap_first_two(&mut self, id: u32) {
        if let [first, second, ..] = &mut self.topics[id as usize].batch[..] {
            std::mem::swap(first, second);
        }
    }

    /// The last subscriber of a batch's audience skips its first item, for a planted bug.
    #[cfg(feature = "planted-bugs")]
    pub(crate) fn drop_delivery(&mut self, id: u32, mixed: Option<&mut Vec<Subscriber>>) {
        let topic = &mut self.topics[id as usize];
        // Where patterns add to the audience it is a copy.
        let audience = mixed.unwrap_or(&mut topic.audience);
        if let Some(last) = audience.last_mut().filter(|last| last.skip == 0) {
            last.skip = 1;
            topic.skips_from = topic.skips_from.min(topic.audience.len().saturating_sub(1) as u32);
        }
    }

    /// The next topic with a batch. It stays due until [`Locals::finish`].
    pub(crate) fn poll_due(&mut self) -> Option<u32> {
        self.due.pop_front()
    }

    /// Empties a topic's batch.
    pub(crate) fn finish(&mut self, id: u32) {
        let topic = &mut self.topics[id as usize];
        topic.due = false;
        topic.finished = topic.position;
        topic.times = Vec::new();
        topic.forget_skips();
        let mut batch = std::mem::take(&mut topic.batch);
        batch.clear();
        let most = if batch.capacity() <= SHORT_ITEMS { SPARES } else { LONG_SPARES };
        if self.spares.len() < most && batch.capacity() <= 256 {
            self.spares.push(batch);
        }
        self.forget_if_idle(id);
    }
}

/// An entry of an audience.
pub(crate) fn subscriber(member: &crate::members::Member, subscription: u32, flags: u8) -> Subscriber {
    let subscription = SubscriptionId(subscription);
    Subscriber { key: member.key, subscription, class: member.class, flags, skip: 0 }
}
