//! What a topic keeps of its past: publications, idempotency keys, and the newest of each key.
//!
//! Invariant: a [`Recent`] is a run of offsets without a hole up to the newest publication, or empty; so whether something is
//! missing behind a position is one comparison.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::Arc,
};

use hashbrown::HashTable;

use crate::{
    publication::{Ledger, PUBLICATION_COST, Publication, Publisher},
    rules::TopicSettings,
    store::History,
    topic::hash,
};

/// How long an idempotency key is known.
pub(crate) const ONCE_MS: u64 = 5 * 60 * 1_000;
/// How many of them a topic knows of each publisher.
const ONCE_KEYS: usize = 1_024;
/// What one takes beside its bytes: its use, its places in the tables, and the allocator's share. Measured by
/// `tests/memory.rs`.
const ONCE_COST: usize = 224;
/// What a publication takes that is the newest of its key, in the tables of [`Latest`]. Measured by `tests/memory.rs`.
const LATEST_COST: usize = 96;

/// The newest publications, in memory.
#[derive(Debug, Default)]
pub struct Recent {
    items: VecDeque<Arc<Publication>>,
    bytes: usize,
}

impl History for Recent {
    fn len(&self) -> usize {
        self.items.len()
    }

    fn oldest(&self) -> Option<&Arc<Publication>> {
        self.items.front()
    }

    fn push(&mut self, publication: &Arc<Publication>, settings: &TopicSettings) -> usize {
        debug_assert!(self.items.back().is_none_or(|last| last.offset() + 1 == publication.offset()));
        self.bytes += PUBLICATION_COST + publication.bytes();
        self.items.push_back(Arc::clone(publication));
        let mut given_up = 0;
        while self.items.len() > settings.history as usize || self.bytes > settings.history_bytes {
            self.pop();
            given_up += 1;
        }
        given_up
    }

    fn pop(&mut self) -> Option<Arc<Publication>> {
        let oldest = self.items.pop_front()?;
        self.bytes -= PUBLICATION_COST + oldest.bytes();
        // A burst's memory goes with it.
        if self.items.capacity() > 64 && self.items.len() < self.items.capacity() / 4 {
            self.items.shrink_to(self.items.len() * 2);
        }
        Some(oldest)
    }

    fn expire(&mut self, before_ms: u64) -> usize {
        let mut given_up = 0;
        while self.items.front().is_some_and(|oldest| oldest.at_ms() <= before_ms) {
            self.pop();
            given_up += 1;
        }
        given_up
    }

    fn behind(&self, offset: u64, newest: u64) -> Option<Vec<Arc<Publication>>> {
        let missed = newest.checked_sub(offset)?;
        let missed = usize::try_from(missed).ok().filter(|&missed| missed <= self.items.len())?;
        Some(self.items.range(self.items.len() - missed..).cloned().collect())
    }

    fn last(&self, limit: usize, before: Option<u64>, bytes: usize) -> Vec<Arc<Publication>> {
        let end = match (before, self.items.front()) {
            (Some(before), Some(oldest)) => {
                usize::try_from(before.saturating_sub(oldest.offset())).unwrap_or(usize::MAX)
            }
            (None, _) | (_, None) => usize::MAX,
        };
        let end = end.min(self.items.len());
        let mut begin = end;
        let mut taken = 0;
        while begin > 0 && end - begin < limit {
            taken += self.items[begin - 1].bytes();
            if taken > bytes && begin < end {
                break;
            }
            begin -= 1;
        }
        self.items.range(begin..end).cloned().collect()
    }
}

/// The newest publication of each key, by offset.
#[derive(Debug)]
pub(crate) struct Latest {
    ledger: Arc<Ledger>,
    items: BTreeMap<u64, Arc<Publication>>,
    /// Offsets by key.
    keys: HashTable<u64>,
    bytes: usize,
    /// The newest offset that was given up though its key had nothing newer.
    dropped_to: u64,
}

impl Latest {
    pub(crate) fn new(ledger: &Arc<Ledger>) -> Self {
        Self {
            ledger: Arc::clone(ledger),
            items: BTreeMap::new(),
            keys: HashTable::new(),
            bytes: 0,
            dropped_to: 0,
        }
    }

    /// Of what was published up to an offset it has nothing.
    pub(crate) fn behind_all(offset: u64, ledger: &Arc<Ledger>) -> Self {
        let mut latest = Self::new(ledger);
        latest.dropped_to = offset;
        latest
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn contains(&self, offset: u64) -> bool {
        self.items.contains_key(&offset)
    }

    pub(crate) fn dropped_to(&self) -> u64 {
        self.dropped_to
    }

    /// Puts one in the place of its key's last one. A gap has no key and stays until it is the oldest of too many. Gives how
    /// many more there are than before.
    pub(crate) fn insert(&mut self, publication: &Arc<Publication>, most: usize) -> isize {
        let before = self.items.len() as isize;
        let offset = publication.offset();
        if publication.is_message() {
            let key = publication.key();
            let items = &self.items;
            let is = |other: &u64| items.get(other).is_some_and(|item| item.key() == key);
            if let Some(place) = self.keys.find_mut(hash(key), is) {
                if let Some(old) = self.items.remove(place) {
                    self.bytes -= PUBLICATION_COST + old.bytes();
                    self.ledger.release(LATEST_COST);
                }
                *place = offset;
            } else {
                let hasher = |other: &u64| hash(items.get(other).map_or("", |item| item.key()));
                self.keys.insert_unique(hash(key), offset, hasher);
            }
        }
        self.bytes += PUBLICATION_COST + publication.bytes();
        self.ledger.hold(LATEST_COST);
        self.items.insert(offset, Arc::clone(publication));
        while self.items.len() > most.max(1) {
            self.pop();
        }
        self.items.len() as isize - before
    }

    /// Gives up the oldest.
    pub(crate) fn pop(&mut self) -> Option<Arc<Publication>> {
        let (&offset, _) = self.items.first_key_value()?;
        self.remove(offset)
    }

    /// Gives up one, if it is still there.
    pub(crate) fn remove(&mut self, offset: u64) -> Option<Arc<Publication>> {
        let item = self.items.get(&offset)?;
        if item.is_message()
            && let Ok(entry) = self.keys.find_entry(hash(item.key()), |&other| other == offset)
        {
            entry.remove();
        }
        let item = self.items.remove(&offset)?;
        self.bytes -= PUBLICATION_COST + item.bytes();
        self.ledger.release(LATEST_COST);
        self.dropped_to = self.dropped_to.max(offset);
        Some(item)
    }

    pub(crate) fn clear(&mut self) -> usize {
        let given_up = self.items.len();
        if let Some((&newest, _)) = self.items.last_key_value() {
            self.dropped_to = self.dropped_to.max(newest);
        }
        self.ledger.release(given_up * LATEST_COST);
        self.items.clear();
        self.keys = HashTable::new();
        self.bytes = 0;
        given_up
    }

    /// Those behind an offset, oldest first.
    pub(crate) fn behind(&self, offset: u64) -> impl Iterator<Item = &Arc<Publication>> {
        self.items.range((Bound::Excluded(offset), Bound::Unbounded)).map(|(_, item)| item)
    }
}

impl Drop for Latest {
    fn drop(&mut self) {
        self.ledger.release(self.items.len() * LATEST_COST);
    }
}

/// An idempotency key, and whose it is.
#[derive(Debug)]
pub(crate) struct OnceKey {
    pub(crate) text: Box<str>,
    pub(crate) owner: Owner,
}

/// A publisher, and where a session is one the shard that it is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Owner(Publisher, u16);

impl Owner {
    pub(crate) fn new(publisher: Publisher, shard: u16) -> Self {
        match publisher {
            Publisher::Session(_) => Self(publisher, shard),
            Publisher::Anybody | Publisher::Holder(_) => Self(publisher, 0),
        }
    }

    /// How much of what is left for others it may have: one part of so many. Connections cost little, so that each gets less
    /// than who is known.
    pub(crate) fn part(self) -> usize {
        match self.0 {
            Publisher::Holder(_) => 1,
            Publisher::Anybody | Publisher::Session(_) => 4,
        }
    }

    /// In which name space its keys are: whoever holds a key of a route has one of its own.
    fn space(self) -> Option<u64> {
        match self.0 {
            Publisher::Holder(holder) => Some(holder),
            Publisher::Anybody | Publisher::Session(_) => None,
        }
    }
}

/// What the idempotency keys of each publisher take in all topics at home on a shard.
#[derive(Debug, Default)]
pub(crate) struct Shares(BTreeMap<Owner, usize>);

impl Shares {
    /// In bytes.
    pub(crate) fn of(&self, owner: Owner) -> usize {
        self.0.get(&owner).copied().unwrap_or_default()
    }

    fn add(&mut self, owner: Owner, bytes: usize) {
        *self.0.entry(owner).or_default() += bytes;
    }

    fn subtract(&mut self, owner: Owner, bytes: usize) {
        let Some(share) = self.0.get_mut(&owner) else { return };
        *share -= bytes;
        if *share == 0 {
            self.0.remove(&owner);
        }
    }
}

/// The idempotency keys of a topic.
///
/// Invariant: a publisher's uses leave in the order in which they came, so that the one that leaves is its queue's first.
#[derive(Debug)]
pub(crate) struct Once {
    ledger: Arc<Ledger>,
    /// By number, in order of time.
    uses: BTreeMap<u64, Use>,
    /// Numbers of uses by key.
    table: HashTable<u64>,
    /// Numbers of uses by publisher, oldest first.
    publishers: BTreeMap<Owner, VecDeque<u64>>,
    next: u64,
}

#[derive(Debug)]
struct Use {
    key: OnceKey,
    offset: u64,
    until_ms: u64,
}

impl Use {
    fn bytes(&self) -> usize {
        ONCE_COST + self.key.text.len()
    }
}

impl Once {
    pub(crate) fn new(ledger: &Arc<Ledger>) -> Self {
        Self {
            ledger: Arc::clone(ledger),
            uses: BTreeMap::new(),
            table: HashTable::new(),
            publishers: BTreeMap::new(),
            next: 0,
        }
    }

    /// The offset that a key was used for.
    pub(crate) fn find(&self, key: &OnceKey, now_ms: u64) -> Option<u64> {
        let is = |number: &u64| {
            let known = &self.uses[number].key;
            known.text == key.text && known.owner.space() == key.owner.space()
        };
        let used = &self.uses[self.table.find(hash(&key.text), is)?];
        (used.until_ms > now_ms).then_some(used.offset)
    }

    /// Knows one more, and forgets its publisher's oldest past the bound.
    pub(crate) fn insert(&mut self, key: OnceKey, offset: u64, now_ms: u64, shares: &mut Shares) {
        self.expire(now_ms, shares);
        let owner = key.owner;
        if let Some(own) = self.publishers.get(&owner).filter(|own| own.len() >= ONCE_KEYS)
            && let Some(&oldest) = own.front()
        {
            self.remove(oldest, shares);
        }
        let number = self.next;
        self.next += 1;
        let key_hash = hash(&key.text);
        let used = Use { key, offset, until_ms: now_ms + ONCE_MS };
        self.ledger.hold_keys(used.bytes());
        shares.add(owner, used.bytes());
        self.uses.insert(number, used);
        let uses = &self.uses;
        self.table.insert_unique(key_hash, number, |number| hash(&uses[number].key.text));
        self.publishers.entry(owner).or_default().push_back(number);
    }

    /// Forgets what is too old.
    pub(crate) fn expire(&mut self, now_ms: u64, shares: &mut Shares) {
        while let Some((&number, oldest)) = self.uses.first_key_value()
            && oldest.until_ms <= now_ms
        {
            self.remove(number, shares);
        }
    }

    pub(crate) fn next_deadline_ms(&self) -> Option<u64> {
        self.uses.first_key_value().map(|(_, oldest)| oldest.until_ms)
    }

    /// Forgets the oldest of a publisher.
    fn remove(&mut self, number: u64, shares: &mut Shares) {
        let Some(used) = self.uses.remove(&number) else { return };
        if let Ok(entry) = self.table.find_entry(hash(&used.key.text), |&other| other == number) {
            entry.remove();
        }
        let owner = used.key.owner;
        if let Some(own) = self.publishers.get_mut(&owner) {
            debug_assert_eq!(own.front(), Some(&number), "each leaves as the oldest of its publisher");
            own.pop_front();
            if own.is_empty() {
                self.publishers.remove(&owner);
            }
        }
        self.ledger.release_keys(used.bytes());
        shares.subtract(owner, used.bytes());
    }
}

impl Drop for Once {
    fn drop(&mut self) {
        self.ledger.release_keys(self.uses.values().map(Use::bytes).sum());
    }
}

#[cfg(test)]
mod tests;
