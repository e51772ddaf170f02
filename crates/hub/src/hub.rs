//! One shard's part of all topics.

use std::sync::Arc;

use tidegate_registry::{Key, Total};

use crate::{
    letter::{Ask, Letter, Refused, Reply, Ticket},
    member::{ClientId, MemberId, MemberRules, Subscriber, SubscriptionId},
    publication::{Class, Publication, Publish},
    rules::TopicRules,
    topic::{Filter, NameError, Pattern, TopicName},
};

/// The topics of one shard: those with subscribers here, and those at home here.
#[derive(Debug)]
pub struct Hub;

/// A topic with something new for this shard's subscribers. Valid until [`Hub::finish_batch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchId(pub(crate) u32);

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

/// What a hub has done since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Publications that topics at home here have taken.
    pub published: u64,
    /// Publications refused because a queue or the memory was full.
    pub refused_busy: u64,
    /// Publications that were left out for another shard, and announced by a gap.
    pub left_out: u64,
    /// Times that a subscriber fell behind, by [`Slow::ALL`](crate::Slow::ALL).
    pub fell_behind: [u64; 5],
    /// Gaps told to slow subscribers, by policy.
    pub gaps: [u64; 5],
    /// Publications that histories gave up for want of memory.
    pub trimmed: u64,
}

const UNFINISHED: &str = "the API comes first";

#[expect(unused_variables, missing_docs, reason = "the API comes first")]
impl Hub {
    // Life. `seed` makes the epochs: it must differ between shards and between runs.
    pub fn new(shard: u16, shards: u16, rules: Arc<TopicRules>, seed: u64, total: &Total) -> Self {
        panic!("{UNFINISHED}")
    }

    // Getters.
    /// The name, without an allocation where it was used lately.
    pub fn topic_name(&mut self, text: &str) -> Result<TopicName, NameError> {
        panic!("{UNFINISHED}")
    }
    pub fn rules(&self) -> &Arc<TopicRules> {
        panic!("{UNFINISHED}")
    }
    pub fn counts(&self) -> &Counts {
        panic!("{UNFINISHED}")
    }
    /// No member, no subscription, no topic, nothing waiting.
    pub fn is_empty(&self) -> bool {
        panic!("{UNFINISHED}")
    }
    pub fn subscriptions(&self, member: MemberId) -> u32 {
        panic!("{UNFINISHED}")
    }
    /// Whether something waits for this member until its outbox has emptied.
    pub fn lags(&self, member: MemberId) -> bool {
        panic!("{UNFINISHED}")
    }

    // Members.
    pub fn enter(&mut self, key: Key, class: Class, client: ClientId, rules: MemberRules) -> MemberId {
        panic!("{UNFINISHED}")
    }
    /// All its subscriptions end; where it was present, it leaves.
    pub fn leave(&mut self, member: MemberId) {
        panic!("{UNFINISHED}")
    }

    // Commands. What is `Ok` with a ticket is answered by one `poll_reply`, perhaps in a later turn; an `Err` is the answer.
    pub fn subscribe(
        &mut self,
        member: MemberId,
        ticket: Ticket,
        topic: &TopicName,
        ask: Ask,
        now_ms: u64,
    ) -> Result<(), Refused> {
        panic!("{UNFINISHED}")
    }
    pub fn subscribe_pattern(&mut self, member: MemberId, pattern: &Pattern) -> Result<(), Refused> {
        panic!("{UNFINISHED}")
    }
    pub fn unsubscribe(&mut self, member: MemberId, filter: &Filter) -> Result<(), Refused> {
        panic!("{UNFINISHED}")
    }
    pub fn publish(
        &mut self,
        ticket: Option<Ticket>,
        topic: &TopicName,
        publish: Publish,
        now_ms: u64,
    ) -> Result<(), Refused> {
        panic!("{UNFINISHED}")
    }
    pub fn history(
        &mut self,
        ticket: Ticket,
        topic: &TopicName,
        limit: u32,
        before: Option<u64>,
        now_ms: u64,
    ) {
        panic!("{UNFINISHED}")
    }
    pub fn presence(&mut self, ticket: Ticket, topic: &TopicName, now_ms: u64) {
        panic!("{UNFINISHED}")
    }
    pub fn state(&mut self, ticket: Ticket, topic: &TopicName, now_ms: u64) {
        panic!("{UNFINISHED}")
    }
    /// A poller is present until then; where the topic has no presence, nothing happens.
    pub fn attend(
        &mut self,
        topic: &TopicName,
        client: &str,
        info: Option<&str>,
        until_ms: u64,
        now_ms: u64,
    ) {
        panic!("{UNFINISHED}")
    }

    // Between shards. `poll_letters` until `None` once a turn; whoever's queue is full comes back by `undelivered`, and is offered again
    // in the next turn (`next_deadline_ms` is then soon).
    pub fn receive(&mut self, from: u16, letters: Vec<Letter>, now_ms: u64) {
        panic!("{UNFINISHED}")
    }
    #[must_use]
    pub fn poll_letters(&mut self) -> Option<(u16, Vec<Letter>)> {
        panic!("{UNFINISHED}")
    }
    pub fn undelivered(&mut self, to: u16, letters: Vec<Letter>) {
        panic!("{UNFINISHED}")
    }

    // Answers: all of them before the turn's batches.
    #[must_use]
    pub fn poll_reply(&mut self) -> Option<(Ticket, Reply)> {
        panic!("{UNFINISHED}")
    }

    // Time.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        panic!("{UNFINISHED}")
    }
    pub fn expire(&mut self, now_ms: u64) {
        panic!("{UNFINISHED}")
    }

    // The fan-out, at the end of a turn. One batch at a time.
    #[must_use]
    pub fn poll_batch(&mut self) -> Option<BatchId> {
        panic!("{UNFINISHED}")
    }
    pub fn publications(&self, batch: BatchId) -> &[Arc<Publication>] {
        panic!("{UNFINISHED}")
    }
    pub fn audience(&self, batch: BatchId) -> &[Subscriber] {
        panic!("{UNFINISHED}")
    }
    pub fn finish_batch(&mut self, batch: BatchId) {
        panic!("{UNFINISHED}")
    }

    // Slow subscribers. `fell_behind` between the loop over the audience and `finish_batch`: `taken` items of the batch (counted from
    // its begin, with those skipped) were given to it, the others not. `catch_up` outside of a batch.
    pub fn fell_behind(&mut self, batch: BatchId, subscription: SubscriptionId, taken: usize) -> Fate {
        panic!("{UNFINISHED}")
    }
    pub fn catch_up(&mut self, member: MemberId, bytes: usize) -> CatchUp {
        panic!("{UNFINISHED}")
    }
}
