//! The search for the session that has most of what topics hold.
//!
//! Invariant: nobody who was not looked into has more waiting than anybody who was. So when the worst has as much of its own as
//! waits for the next one, it is the worst of all.

use std::collections::BinaryHeap;

use tidegate_registry::Key;

/// A search, over as many turns as it takes.
pub(super) struct Search {
    /// Who may be worse, by how much waits for each: it has no more than that.
    waiting: BinaryHeap<(usize, Key)>,
    worst: (usize, Option<Key>),
}

/// What a look at one has found.
pub(super) struct Look {
    /// What it has of the topics' memory.
    pub(super) bytes: usize,
    /// How many pieces were looked at.
    pub(super) pieces: usize,
}

impl Search {
    /// Among these, each with how much waits for it.
    pub(super) fn new(waiting: Vec<(usize, Key)>) -> Self {
        Self { waiting: waiting.into(), worst: (0, None) }
    }

    /// The worst of those that were looked into, and what it has.
    pub(super) fn worst(&self) -> (usize, Option<Key>) {
        self.worst
    }

    /// Looks at about so many pieces, and into one session in any case. Whether the search is over.
    pub(super) fn go_on(&mut self, pieces: usize, mut look: impl FnMut(Key) -> Look) -> bool {
        let mut looked = 0;
        while let Some(&(waiting, key)) = self.waiting.peek() {
            if waiting <= self.worst.0 {
                return true;
            }
            if looked >= pieces {
                return false;
            }
            self.waiting.pop();
            let look = look(key);
            // One who has gone is a look, too.
            looked += look.pieces + 1;
            if look.bytes > self.worst.0 {
                self.worst = (look.bytes, Some(key));
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> Key {
        Key::from_bits(1 << 32 | number as u64)
    }

    /// Searches among sessions: what waits for each, what it has of that, and in how many pieces. Who is the worst, and how many
    /// pieces each step has looked at.
    fn search(sessions: &[(usize, usize, usize)], pieces: usize) -> (usize, Vec<usize>) {
        let waiting = sessions.iter().enumerate().map(|(number, &(waiting, ..))| (waiting, key(number)));
        let mut search = Search::new(waiting.collect());
        let mut steps = Vec::new();
        loop {
            let mut looked = 0;
            let is_over = search.go_on(pieces, |key| {
                let (_, bytes, pieces) = sessions[key.index() as usize];
                looked += pieces;
                Look { bytes, pieces }
            });
            steps.push(looked);
            if is_over {
                let (bytes, worst) = search.worst();
                let worst = worst.expect("somebody has something").index() as usize;
                assert_eq!(Some(bytes), sessions.iter().map(|session| session.1).max());
                return (worst, steps);
            }
        }
    }

    #[test]
    fn who_holds_all_that_waits_for_it_is_found_with_one_look() {
        let mut sessions = vec![(200_000, 20, 2_600); 1_000];
        sessions[700] = (300_000, 300_000, 3);
        assert_eq!(search(&sessions, 10_000), (700, vec![3]));
    }

    #[test]
    fn thousands_who_share_what_waits_for_them_are_looked_into_a_part_at_a_time() {
        let mut sessions = vec![(256_000, 26, 2_600); 1_000];
        // Less waits for it, but it is its own.
        sessions[300] = (100_000, 100_000, 40);
        let (worst, steps) = search(&sessions, 65_536);
        assert_eq!(worst, 300);
        assert!(steps.iter().all(|&looked| looked < 65_536 + 2_600), "{steps:?}");
        assert_eq!(steps.iter().sum::<usize>(), 999 * 2_600 + 40);
    }

    #[test]
    fn where_nothing_waits_nobody_is_the_worst() {
        let mut search = Search::new(vec![(0, key(1))]);
        assert!(search.go_on(1, |_| Look { bytes: 0, pieces: 0 }));
        assert_eq!(search.worst(), (0, None));
    }
}
