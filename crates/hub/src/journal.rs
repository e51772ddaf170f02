//! What histories and states hold, in the order in which it was published: the oldest is the first to be given up.
//!
//! Invariant: each publication that one of them holds has an entry here. There may be entries of others that were given up
//! meanwhile: about as many as there are of those that are held, at most.

use std::collections::VecDeque;

use crate::topic::Epoch;

/// Entries that are looked at with each new one while there are too many: so no turn has to look at all of them.
const SWEPT: usize = 4;
/// Beside two for each publication that is held, so many entries are not too many.
const FEW: usize = 1_024;

/// A publication of a topic at home here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) topic: u32,
    pub(crate) epoch: Epoch,
    pub(crate) offset: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Journal {
    /// Looked at since the sweep has begun: all of them older than the others.
    swept: VecDeque<Entry>,
    others: VecDeque<Entry>,
    sweeps: bool,
}

impl Journal {
    pub(crate) fn len(&self) -> usize {
        self.swept.len() + self.others.len()
    }

    /// Notes one more; `held`: how many publications are. Gives up entries for which `is_held` does not hold.
    pub(crate) fn push(&mut self, entry: Entry, held: usize, is_held: impl Fn(&Entry) -> bool) {
        self.others.push_back(entry);
        self.sweeps |= self.len() > 2 * held + FEW;
        if !self.sweeps {
            return;
        }
        for _ in 0..SWEPT {
            self.swept.extend(self.others.pop_front().filter(&is_held));
        }
        if self.others.is_empty() {
            self.others = std::mem::take(&mut self.swept);
            self.sweeps = false;
        }
    }

    /// Takes the oldest out.
    pub(crate) fn pop(&mut self) -> Option<Entry> {
        self.swept.pop_front().or_else(|| self.others.pop_front())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn no_entry_looks_at_more_than_four_others_and_what_is_held_stays_in_order() {
        let mut journal = Journal::default();
        // Of each thousand the first is held for ever, of the others the last thousand.
        let mut newest = 0;
        let is_held = |newest: u64, offset: u64| offset.is_multiple_of(1_000) || offset + 1_000 > newest;
        let held = |newest: u64| 1_000 + (newest / 1_000) as usize;
        let mut most = 0;
        for offset in 0..500_000 {
            newest = offset;
            let looked = Cell::new(0);
            let entry = Entry { topic: 1, epoch: Epoch(1), offset };
            journal.push(entry, held(newest), |entry| {
                looked.set(looked.get() + 1);
                is_held(newest, entry.offset)
            });
            assert!(looked.get() <= SWEPT, "{} at {offset}", looked.get());
            most = most.max(journal.len());
        }
        assert!(most <= 3 * held(newest) + 2 * FEW, "{most}");
        let mut before = None;
        let mut found = 0;
        while let Some(entry) = journal.pop() {
            assert!(before < Some(entry.offset), "{before:?}, then {}", entry.offset);
            before = Some(entry.offset);
            found += usize::from(is_held(newest, entry.offset));
        }
        assert_eq!(found, (0..=newest).filter(|&offset| is_held(newest, offset)).count());
        assert_eq!(journal.len(), 0);
    }
}
