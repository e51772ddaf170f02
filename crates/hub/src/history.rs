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
    publication::{Ledger, PUBLICATION_COST, Publication},
    rules::TopicSettings,
    store::History,
    topic::hash,
};

/// How long an idempotency key is known.
pub(crate) const ONCE_MS: u64 = 5 * 60 * 1_000;
/// How many of them a topic knows.
const ONCE_KEYS: usize = 1_024;
/// What one takes beside its bytes: its use, its place in the table, and the allocator's share. Measured by `tests/memory.rs`.
const ONCE_COST: usize = 128;
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

/// The idempotency keys of a topic.
#[derive(Debug)]
pub(crate) struct Once {
    ledger: Arc<Ledger>,
    /// In order of time.
    uses: VecDeque<Use>,
    /// Numbers of uses by key.
    table: HashTable<u64>,
    /// The number of the first use.
    first: u64,
}

#[derive(Debug)]
struct Use {
    key: Box<str>,
    offset: u64,
    until_ms: u64,
}

impl Once {
    pub(crate) fn new(ledger: &Arc<Ledger>) -> Self {
        Self { ledger: Arc::clone(ledger), uses: VecDeque::new(), table: HashTable::new(), first: 0 }
    }

    /// The offset that a key was used for.
    pub(crate) fn find(&self, key: &str, now_ms: u64) -> Option<u64> {
        let is = |number: &u64| &*self.uses[(number - self.first) as usize].key == key;
        let number = *self.table.find(hash(key), is)?;
        let used = &self.uses[(number - self.first) as usize];
        (used.until_ms > now_ms).then_some(used.offset)
    }

    /// Knows one more, and forgets the oldest past the bound.
    pub(crate) fn insert(&mut self, key: Box<str>, offset: u64, now_ms: u64) {
        self.expire(now_ms);
        if self.uses.len() == ONCE_KEYS {
            self.pop();
        }
        let number = self.first + self.uses.len() as u64;
        let key_hash = hash(&key);
        self.ledger.hold_keys(ONCE_COST + key.len());
        self.uses.push_back(Use { key, offset, until_ms: now_ms + ONCE_MS });
        let (uses, first) = (&self.uses, self.first);
        self.table.insert_unique(key_hash, number, |number| hash(&uses[(number - first) as usize].key));
    }

    /// Forgets what is too old.
    pub(crate) fn expire(&mut self, now_ms: u64) {
        while self.uses.front().is_some_and(|oldest| oldest.until_ms <= now_ms) {
            self.pop();
        }
    }

    pub(crate) fn next_deadline_ms(&self) -> Option<u64> {
        self.uses.front().map(|oldest| oldest.until_ms)
    }

    fn pop(&mut self) {
        let Some(oldest) = self.uses.front() else { return };
        let first = self.first;
        if let Ok(entry) = self.table.find_entry(hash(&oldest.key), |&number| number == first) {
            entry.remove();
        }
        self.ledger.release_keys(ONCE_COST + oldest.key.len());
        self.uses.pop_front();
        self.first += 1;
    }
}

impl Drop for Once {
    fn drop(&mut self) {
        let bytes = self.uses.iter().map(|used| ONCE_COST + used.key.len()).sum();
        self.ledger.release_keys(bytes);
    }
}

#[cfg(test)]
mod tests;
