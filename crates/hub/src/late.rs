//! Patterns that have begun in this turn, in the middle of what came.
//!
//! Invariant: a pattern that its home has noted since all batches were fanned out stands here once for that home. One that has
//! ended meanwhile may stand here yet: nobody asks for it, and where its place has another pattern, that one was noted later.

use hashbrown::HashTable;

use crate::{local::Time, members::pair_hash};

/// Since when patterns get what comes from a home.
#[derive(Debug, Default)]
pub(crate) struct Late {
    table: HashTable<Entry>,
    /// Entries that were looked at.
    #[cfg(test)]
    pub(crate) steps: std::cell::Cell<usize>,
}

#[derive(Debug)]
struct Entry {
    home: u16,
    pattern: u32,
    since: Time,
}

impl Entry {
    fn hash(&self) -> u64 {
        pair_hash(u32::from(self.home), self.pattern)
    }
}

impl Late {
    pub(crate) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// What comes from this home is for the pattern from now on.
    pub(crate) fn note(&mut self, home: u16, pattern: u32, since: Time) {
        let entry = Entry { home, pattern, since };
        let is = |other: &Entry| (other.home, other.pattern) == (home, pattern);
        match self.table.find_mut(entry.hash(), is) {
            Some(other) => other.since = since,
            None => {
                self.table.insert_unique(entry.hash(), entry, Entry::hash);
            }
        }
    }

    /// `None`: since before all that waits.
    pub(crate) fn find(&self, home: u16, pattern: u32) -> Option<Time> {
        let is = |other: &Entry| {
            #[cfg(test)]
            self.steps.set(self.steps.get() + 1);
            (other.home, other.pattern) == (home, pattern)
        };
        self.table.find(pair_hash(u32::from(home), pattern), is).map(|entry| entry.since)
    }

    /// All batches were fanned out.
    pub(crate) fn clear(&mut self) {
        if self.table.capacity() > 1024 {
            self.table = HashTable::new();
        } else {
            self.table.clear();
        }
    }
}
