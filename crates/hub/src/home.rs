//! Topics at home on this shard: what gives them their offsets, and what they keep.
//!
//! Invariant: a topic at home is there while somebody on any shard is subscribed to its name, or is present, or something of
//! it is kept, or a pattern's subscriber has had something of it lately. While it is there its epoch does not change and
//! no offset is given twice.

use std::{collections::VecDeque, sync::Arc};

use hashbrown::HashTable;
use slab::Slab;
use tidegate_registry::Wheel;

use crate::{
    history::{Latest, Once, Shares},
    journal::{Entry, Journal},
    letter::{Ask, SubscribedNote},
    pattern_index::PatternIndex,
    planted::{self, Bug},
    presence::Presence,
    publication::{Ledger, Publication},
    rules::{RuleId, Slow, TopicSettings},
    store::{History, Store},
    topic::{Epoch, Pattern, Position, TopicName},
};

/// How long a topic goes on behind its last publication where only patterns stand for it: so its offsets go on, too.
pub(crate) const PATTERN_LINGER_MS: u64 = 5 * 60 * 1_000;
/// How long a topic that has a history, though an empty one, is remembered behind its last subscriber.
const REMEMBERED_MS: u64 = 60 * 1_000;
/// Changes of patterns of which a topic looks whether they concern it: about as long as it takes to search for all that do.
const CHANGED: usize = 8;
/// How many such topics a shard remembers.
const REMEMBERED: usize = 4_096;

/// What a shard wants of a topic.
#[derive(Debug)]
pub(crate) struct Interest {
    pub(crate) shard: u16,
    pub(crate) subscribers: u32,
    pub(crate) watchers: u32,
}

/// What is kept for new subscribers.
#[derive(Debug)]
pub(crate) enum Kept {
    Nothing,
    /// `conflate`.
    Latest(Box<Latest>),
    /// `resync`.
    Last(Option<Arc<Publication>>),
}

#[derive(Debug)]
pub(crate) struct HomeTopic<H> {
    pub(crate) name: TopicName,
    pub(crate) position: Position,
    pub(crate) rule: RuleId,
    pub(crate) history: H,
    pub(crate) kept: Kept,
    pub(crate) interests: Vec<Interest>,
    /// Shards with a pattern that matches, as of `patterns_version`.
    pub(crate) pattern_shards: Vec<u16>,
    pub(crate) patterns_version: u64,
    pub(crate) presence: Option<Box<Presence>>,
    pub(crate) once: Option<Box<Once>>,
    pub(crate) published_ms: u64,
    /// Somebody has subscribed who comes and goes.
    pub(crate) returns: bool,
    /// Until when it is remembered though nobody is subscribed.
    remembered_ms: u64,
    /// It was remembered again since it has its place among the remembered.
    remembered_again: bool,
}

impl<H: History> HomeTopic<H> {
    pub(crate) fn subscribers(&self) -> u64 {
        self.interests.iter().map(|interest| u64::from(interest.subscribers)).sum()
    }

    pub(crate) fn add_interest(&mut self, shard: u16, watches: bool) {
        let place = self.interests.iter().position(|interest| interest.shard == shard);
        let place = place.unwrap_or_else(|| {
            self.interests.push(Interest { shard, subscribers: 0, watchers: 0 });
            self.interests.len() - 1
        });
        self.interests[place].subscribers += 1;
        self.interests[place].watchers += u32::from(watches);
    }

    pub(crate) fn remove_interest(&mut self, shard: u16, watched: bool) {
        let Some(place) = self.interests.iter().position(|interest| interest.shard == shard) else {
            debug_assert!(false, "a shard ends what it has begun");
            return;
        };
        let interest = &mut self.interests[place];
        interest.subscribers -= 1;
        interest.watchers -= u32::from(watched);
        if interest.subscribers == 0 {
            self.interests.swap_remove(place);
        }
    }

    /// Notes a new publication in all that is kept. Gives how many more references there are than before.
    pub(crate) fn keep(&mut self, publication: &Arc<Publication>, settings: &TopicSettings) -> isize {
        let mut more = 0;
        if settings.history > 0 {
            more += 1 - self.history.push(publication, settings) as isize;
        }
        match &mut self.kept {
            Kept::Nothing => {}
            Kept::Latest(latest) => more += latest.insert(publication, settings.keys as usize),
            Kept::Last(last) => {
                more += isize::from(last.is_none());
                *last = Some(Arc::clone(publication));
            }
        }
        more
    }

    /// The answer to a new subscription.
    pub(crate) fn answer(&self, request: u32, ask: &Ask, attends: bool) -> SubscribedNote {
        let recovered = ask.recover.map(|from| self.recover(from));
        let (recovered, first) = match recovered {
            Some(Some(missed)) => (Some(true), missed),
            Some(None) => (Some(false), self.first(ask.history)),
            None => (None, self.first(ask.history)),
        };
        SubscribedNote { request, position: self.position, attends, recovered, first }
    }

    /// All behind a position, if nothing of it is missing but what something newer of its key stands for.
    fn recover(&self, from: Position) -> Option<Vec<Arc<Publication>>> {
        if planted::is(Bug::ClaimRecovery) {
            let behind = |offset| self.history.behind(offset, self.position.offset);
            return Some(
                behind(from.offset).unwrap_or_else(|| self.history.last(usize::MAX, None, usize::MAX)),
            );
        }
        if from.epoch != self.position.epoch {
            return None;
        }
        let missed = self.history.behind(from.offset, self.position.offset);
        let mut missed = missed.or_else(|| self.missed_of_state(from.offset))?;
        if planted::is(Bug::OffByOneInRecovery) && !missed.is_empty() {
            missed.remove(0);
        }
        Some(missed)
    }

    /// The same of a topic that conflates: of each key the newest behind an offset, if none of these was given up. Who has a part
    /// of the state, as far as there was room for it, goes on from there.
    fn missed_of_state(&self, offset: u64) -> Option<Vec<Arc<Publication>>> {
        match &self.kept {
            Kept::Latest(latest) if (latest.dropped_to()..=self.position.offset).contains(&offset) => {
                Some(latest.behind(offset).cloned().collect())
            }
            Kept::Nothing | Kept::Latest(_) | Kept::Last(_) => None,
        }
    }

    /// What a subscriber gets first that has nothing: the history that it asks for, and what is kept of each key before that.
    fn first(&self, history: u32) -> Vec<Arc<Publication>> {
        let mut history = self.history.last(history as usize, None, usize::MAX);
        let begin = history.first().map_or(u64::MAX, |first| first.offset());
        let mut first: Vec<_> = match &self.kept {
            Kept::Nothing => return history,
            Kept::Latest(latest) => {
                latest.behind(0).take_while(|item| item.offset() < begin).cloned().collect()
            }
            Kept::Last(last) => last.iter().filter(|item| item.offset() < begin).cloned().collect(),
        };
        first.append(&mut history);
        first
    }

    /// Gives up what was published at or before this offset; gives how many references that were.
    fn trim(&mut self, offset: u64) -> usize {
        let mut references = 0;
        while self.history.oldest().is_some_and(|oldest| oldest.offset() <= offset)
            && self.history.pop().is_some()
        {
            references += 1;
        }
        let kept = match &mut self.kept {
            Kept::Nothing => None,
            Kept::Latest(latest) => latest.remove(offset),
            Kept::Last(last) if last.as_ref().is_some_and(|last| last.offset() == offset) => last.take(),
            Kept::Last(_) => None,
        };
        references + usize::from(kept.is_some())
    }

    fn holds(&self, offset: u64) -> bool {
        self.history.oldest().is_some_and(|oldest| oldest.offset() <= offset)
            || match &self.kept {
                Kept::Nothing => false,
                Kept::Latest(latest) => latest.contains(offset),
                Kept::Last(last) => last.as_ref().is_some_and(|last| last.offset() == offset),
            }
    }

    fn kept_is_empty(&self) -> bool {
        match &self.kept {
            Kept::Nothing => true,
            Kept::Latest(latest) => latest.is_empty(),
            Kept::Last(last) => last.is_none(),
        }
    }

    fn kept_len(&self) -> usize {
        match &self.kept {
            Kept::Nothing => 0,
            Kept::Latest(latest) => latest.len(),
            Kept::Last(last) => usize::from(last.is_some()),
        }
    }

    /// Until when what is kept keeps the topic, and patterns do: both behind the last publication.
    fn lingers_until_ms(&self, settings: &TopicSettings) -> u64 {
        let mut until = self.remembered_ms;
        if !self.kept_is_empty() {
            until = until.max(self.published_ms.saturating_add(settings.history_age_ms));
        }
        if !self.pattern_shards.is_empty() {
            until = until.max(self.published_ms.saturating_add(PATTERN_LINGER_MS));
        }
        until
    }

    /// Nothing but time keeps it.
    fn only_lingers(&self) -> bool {
        self.interests.is_empty()
            && self.presence.as_ref().is_none_or(|presence| presence.is_empty())
            && self.history.is_empty()
            && self.once.as_ref().and_then(|once| once.next_deadline_ms()).is_none()
    }

    fn is_idle(&self, settings: &TopicSettings, now_ms: u64) -> bool {
        self.only_lingers() && self.lingers_until_ms(settings) <= now_ms
    }

    /// When something of it is over.
    fn next_deadline_ms(&self, settings: &TopicSettings) -> Option<u64> {
        let history =
            self.history.oldest().map(|oldest| oldest.at_ms().saturating_add(settings.history_age_ms));
        let presence = self.presence.as_ref().and_then(|presence| presence.next_deadline_ms());
        let once = self.once.as_ref().and_then(|once| once.next_deadline_ms());
        // While something else keeps it that is no date: once it lay in the past, the topic would be due for ever.
        let lingers = self.only_lingers().then(|| self.lingers_until_ms(settings));
        [history, presence, once, lingers].into_iter().flatten().min()
    }
}

/// What a step of [`Homes::trim`] has given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trimmed {
    /// Nothing is kept any more.
    Nothing,
    /// So many references to a publication: the publication itself goes with the last one that anybody has.
    References(usize),
    /// The same, and the topic's history is empty now: perhaps nothing needs it any more.
    Emptied {
        /// Which topic.
        topic: u32,
        /// How many.
        references: usize,
    },
}

/// All topics at home on a shard.
#[derive(Debug)]
pub(crate) struct Homes<S: Store> {
    store: S,
    topics: Slab<HomeTopic<S::History>>,
    /// Topics by name.
    table: HashTable<u32>,
    /// The shards that want what patterns match.
    pub(crate) patterns: PatternIndex<Vec<u16>>,
    /// Grows when `patterns` changes.
    patterns_version: u64,
    /// The patterns that have changed last, by version.
    changed: VecDeque<(u64, Pattern)>,
    /// The version of the last change that does not stand there any more.
    forgotten: u64,
    wheel: Wheel,
    journal: Journal,
    /// References that histories and states hold.
    kept: usize,
    random: u64,
    found: Vec<u32>,
    /// What publishers' idempotency keys take.
    shares: Shares,
    /// Topics that are remembered, and others that were.
    remembered: VecDeque<(u32, Epoch)>,
}

impl<S: Store> Homes<S> {
    pub(crate) fn new(seed: u64, store: S) -> Self {
        Self {
            store,
            topics: Slab::new(),
            table: HashTable::new(),
            patterns: PatternIndex::default(),
            patterns_version: 0,
            changed: VecDeque::new(),
            forgotten: 0,
            wheel: Wheel::new(0, 0),
            journal: Journal::default(),
            kept: 0,
            random: seed,
            found: Vec::new(),
            shares: Shares::default(),
            remembered: VecDeque::new(),
        }
    }

    /// The last subscriber of a topic with a history has left: who was cut off finds its epoch again. Gives a topic that is
    /// not remembered any more instead, where there are too many of them.
    pub(crate) fn remember(&mut self, id: u32, now_ms: u64) -> Option<u32> {
        let topic = &mut self.topics[id as usize];
        // Each has one place.
        let has_place = topic.remembered_ms != 0;
        topic.remembered_ms = now_ms.saturating_add(REMEMBERED_MS);
        if has_place {
            topic.remembered_again = true;
            return None;
        }
        self.remembered.push_back((id, topic.position.epoch));
        while self.remembered.len() > REMEMBERED {
            let (oldest, epoch) = self.remembered.pop_front()?;
            let topic = self.topics.get_mut(oldest as usize).filter(|topic| topic.position.epoch == epoch);
            let Some(topic) = topic else { continue };
            // One place further for each time that it was asked for: on the whole one step for each.
            if std::mem::take(&mut topic.remembered_again) {
                self.remembered.push_back((oldest, epoch));
                continue;
            }
            topic.remembered_ms = 0;
            return (oldest != id).then_some(oldest);
        }
        None
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.topics.is_empty() && self.table.is_empty() && self.wheel.is_empty() && self.kept == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.topics.len()
    }

    /// The name of a topic that is at home here.
    pub(crate) fn name(&self, hash: u64, text: &str) -> Option<&TopicName> {
        let id = self.table.find(hash, |&other| self.topics[other as usize].name.as_str() == text)?;
        Some(&self.topics[*id as usize].name)
    }

    pub(crate) fn find(&self, name: &TopicName) -> Option<u32> {
        self.table.find(name.hash(), |&other| self.topics[other as usize].name == *name).copied()
    }

    /// # Panics
    /// If there is no such topic.
    pub(crate) fn topic(&self, id: u32) -> &HomeTopic<S::History> {
        &self.topics[id as usize]
    }

    /// With what idempotency keys take.
    ///
    /// # Panics
    /// If there is no such topic.
    pub(crate) fn topic_with_shares(&mut self, id: u32) -> (&mut HomeTopic<S::History>, &mut Shares) {
        (&mut self.topics[id as usize], &mut self.shares)
    }

    /// # Panics
    /// If there is no such topic.
    pub(crate) fn topic_mut(&mut self, id: u32) -> &mut HomeTopic<S::History> {
        &mut self.topics[id as usize]
    }

    /// A topic that is not there yet: a new epoch.
    pub(crate) fn insert(
        &mut self,
        name: &TopicName,
        rule: RuleId,
        settings: &TopicSettings,
        ledger: &Arc<Ledger>,
    ) -> u32 {
        let fresh = self.draw_epoch();
        let (position, history) = self.store.open(name, fresh);
        let kept = match settings.slow {
            Slow::Conflate => Kept::Latest(Box::new(Latest::behind_all(position.offset, ledger))),
            Slow::Resync => Kept::Last(None),
            Slow::Disconnect | Slow::DropOld | Slow::DropNew => Kept::Nothing,
        };
        self.kept += history.len();
        let topic = HomeTopic {
            name: name.clone(),
            position,
            rule,
            history,
            kept,
            interests: Vec::new(),
            pattern_shards: Vec::new(),
            patterns_version: u64::MAX,
            presence: None,
            once: None,
            published_ms: 0,
            returns: false,
            remembered_ms: 0,
            remembered_again: false,
        };
        // The process's limit of topics is far below 2³¹.
        let id = self.topics.insert(topic) as u32;
        let topics = &self.topics;
        self.table.insert_unique(name.hash(), id, |&other| topics[other as usize].name.hash());
        id
    }

    /// SplitMix64 (Steele, Lea, Flood 2014); an epoch is never 0, which is no topic's.
    fn draw_epoch(&mut self) -> Epoch {
        loop {
            self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.random;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let epoch = ((mixed ^ (mixed >> 31)) >> 32) as u32;
            if epoch != 0 {
                return Epoch(epoch);
            }
        }
    }

    /// Another shard wants what a pattern stands for, or does so no more.
    pub(crate) fn pattern_changed(&mut self, pattern: Pattern) {
        self.patterns_version += 1;
        self.changed.retain(|(_, other)| *other != pattern);
        self.changed.push_back((self.patterns_version, pattern));
        if self.changed.len() > CHANGED
            && let Some((version, _)) = self.changed.pop_front()
        {
            self.forgotten = version;
        }
    }

    /// Brings the shards that patterns add to a topic up to date.
    pub(crate) fn match_patterns(&mut self, id: u32) {
        let topic = &mut self.topics[id as usize];
        if topic.patterns_version == self.patterns_version {
            return;
        }
        let before = std::mem::replace(&mut topic.patterns_version, self.patterns_version);
        // Most changes are none of this topic's business: whoever comes and goes is not to have all topics search anew.
        if (self.forgotten..self.patterns_version).contains(&before) {
            let mut since = self.changed.iter().rev().take_while(|(version, _)| *version > before);
            if !since.any(|(_, pattern)| pattern.matches(&topic.name)) {
                return;
            }
        }
        topic.pattern_shards.clear();
        self.found.clear();
        self.patterns.matches(&topic.name, &mut self.found);
        for &pattern in &self.found {
            topic.pattern_shards.extend_from_slice(self.patterns.get(pattern));
        }
        topic.pattern_shards.sort_unstable();
        topic.pattern_shards.dedup();
    }

    /// Keeps a publication as its topic's settings say.
    pub(crate) fn keep(&mut self, id: u32, publication: &Arc<Publication>, settings: &TopicSettings) {
        let topic = &mut self.topics[id as usize];
        topic.published_ms = publication.at_ms();
        self.kept = self.kept.strict_add_signed(topic.keep(publication, settings));
        if settings.history == 0 && matches!(topic.kept, Kept::Nothing) {
            return;
        }
        let entry = Entry { topic: id, epoch: topic.position.epoch, offset: publication.offset() };
        let topics = &self.topics;
        self.journal.push(entry, self.kept, |&Entry { topic, epoch, offset }| {
            let topic = topics.get(topic as usize).filter(|topic| topic.position.epoch == epoch);
            topic.is_some_and(|topic| topic.holds(offset))
        });
    }

    /// Gives up the oldest that is kept. One step: what it finds may have been given up before.
    pub(crate) fn trim(&mut self) -> Trimmed {
        let Some(Entry { topic: id, epoch, offset }) = self.journal.pop() else { return Trimmed::Nothing };
        let topic = self.topics.get_mut(id as usize).filter(|topic| topic.position.epoch == epoch);
        let Some(topic) = topic else { return Trimmed::References(0) };
        let references = topic.trim(offset);
        self.kept -= references;
        if references > 0 && topic.history.is_empty() {
            Trimmed::Emptied { topic: id, references }
        } else {
            Trimmed::References(references)
        }
    }

    /// Forgets a topic that nothing needs any more; whether it did. Else sees to it that it is looked at in time.
    pub(crate) fn forget_if_idle(&mut self, id: u32, settings: &TopicSettings, now_ms: u64) -> bool {
        let topic = &self.topics[id as usize];
        if !topic.is_idle(settings, now_ms) {
            self.ensure_deadline(id, settings);
            return false;
        }
        self.kept -= topic.kept_len() + topic.history.len();
        let topic = self.topics.remove(id as usize);
        self.wheel.cancel(id);
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
        if self.topics.is_empty() {
            self.journal = Journal::default();
        }
        true
    }

    /// A deadline that is there may be too early, which costs one look, but never too late.
    pub(crate) fn ensure_deadline(&mut self, id: u32, settings: &TopicSettings) {
        let wanted = self.topics[id as usize].next_deadline_ms(settings);
        let Some(wanted) = wanted else { return };
        if self.wheel.deadline(id).is_none_or(|deadline| deadline > wanted) {
            self.wheel.schedule(id, wanted);
        }
    }

    pub(crate) fn next_deadline_ms(&self) -> Option<u64> {
        self.wheel.next_deadline()
    }

    /// Appends the topics that have something due.
    pub(crate) fn poll_due(&mut self, now_ms: u64, due: &mut Vec<u32>) {
        self.wheel.expire(now_ms, due);
    }

    /// Gives up what is too old of one topic.
    pub(crate) fn expire(&mut self, id: u32, settings: &TopicSettings, now_ms: u64) {
        let topic = &mut self.topics[id as usize];
        if let Some(before_ms) = now_ms.checked_sub(settings.history_age_ms) {
            self.kept -= topic.history.expire(before_ms);
        }
        if let Some(once) = &mut topic.once {
            once.expire(now_ms, &mut self.shares);
            if once.next_deadline_ms().is_none() {
                topic.once = None;
            }
        }
        self.match_patterns(id);
    }
}
