//! How much one cause may write to the log: under attack the log must not cost more than the refusals that it tells of.
//!
//! Invariant: what was left out is told, with its number, within [`PERIOD_MS`] of the first of it.

use std::collections::HashMap;

use crate::log::{Level, What};

const PERIOD_MS: u64 = 1_000;

/// The entries of the period at hand, by cause. Causes are texts of the program: there are few.
#[derive(Debug)]
pub(crate) struct Throttle {
    causes: HashMap<&'static str, Count>,
    /// Entries of one cause that are written in a period.
    most: u32,
    /// When what was left out is to be told; never where nothing was.
    due_ms: u64,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    since_ms: u64,
    entries: u32,
}

impl Throttle {
    /// So many entries of one cause are written in a period; 0: all of them.
    pub(crate) fn new(most: u32) -> Throttle {
        let most = if most == 0 { u32::MAX } else { most };
        Throttle { causes: HashMap::new(), most, due_ms: u64::MAX }
    }

    /// When [`left_out`](Self::left_out) has something to tell.
    pub(crate) fn due_ms(&self) -> Option<u64> {
        (self.due_ms != u64::MAX).then_some(self.due_ms)
    }

    /// Whether an entry is written. Who wants the course of single sessions gets all of them.
    pub(crate) fn lets_through(&mut self, level: Level, what: &What, now_ms: u64) -> bool {
        let Some(cause) = what.cause().filter(|_| level > Level::Debug) else { return true };
        let count = self.causes.entry(cause).or_insert(Count { since_ms: now_ms, entries: 0 });
        if now_ms >= count.since_ms + PERIOD_MS && count.entries <= self.most {
            *count = Count { since_ms: now_ms, entries: 0 };
        }
        count.entries = count.entries.saturating_add(1);
        let written = count.entries <= self.most;
        if !written {
            self.due_ms = self.due_ms.min(count.since_ms + PERIOD_MS);
        }
        written
    }

    /// A cause whose period is over and of which entries were left out: what to say of it. Call until there is none.
    pub(crate) fn left_out(&mut self, now_ms: u64) -> Option<What> {
        if now_ms < self.due_ms {
            return None;
        }
        let most = self.most;
        let over = |count: &Count| count.entries > most && now_ms >= count.since_ms + PERIOD_MS;
        let found = self.causes.iter_mut().find(|(_, count)| over(count)).map(|(reason, count)| {
            let entries = u64::from(count.entries - most);
            *count = Count { since_ms: now_ms, entries: 0 };
            What::LeftOut { entries, reason }
        });
        if found.is_none() {
            let waiting = self.causes.values().filter(|count| count.entries > most);
            self.due_ms = waiting.map(|count| count.since_ms + PERIOD_MS).min().unwrap_or(u64::MAX);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BAD: What = What::Refused { status: 400, reason: "bad" };
    const SLOW: What = What::TlsFailed { reason: "slow" };

    #[test]
    fn of_one_cause_so_many_are_written_and_the_rest_is_told() {
        let mut throttle = Throttle::new(100);
        let write = |throttle: &mut Throttle, what, now_ms| {
            (0..250).filter(|_| throttle.lets_through(Level::Info, what, now_ms)).count()
        };
        assert_eq!(write(&mut throttle, &BAD, 5_000), 100);
        assert_eq!(write(&mut throttle, &SLOW, 5_500), 100, "another cause has its own");
        assert_eq!(write(&mut throttle, &BAD, 5_999), 0);
        assert_eq!((throttle.due_ms(), throttle.left_out(5_999)), (Some(6_000), None));
        assert_eq!(throttle.left_out(6_000), Some(What::LeftOut { entries: 400, reason: "bad" }));
        assert_eq!((throttle.left_out(6_000), throttle.due_ms()), (None, Some(6_500)));
        assert_eq!(write(&mut throttle, &BAD, 6_000), 100);
        assert!(throttle.left_out(6_500).is_some() && throttle.left_out(6_500).is_none());
        assert!(throttle.left_out(7_000).is_some() && throttle.left_out(9_000).is_none());
        assert_eq!(throttle.due_ms(), None);
    }

    #[test]
    fn debugging_gets_all_and_so_does_what_has_no_cause() {
        let mut throttle = Throttle::new(100);
        assert!((0..1_000).all(|_| throttle.lets_through(Level::Debug, &BAD, 5_000)));
        assert!((0..1_000).all(|_| throttle.lets_through(Level::Warn, &What::SessionsFull, 5_000)));
        assert_eq!(throttle.due_ms(), None);
        let mut throttle = Throttle::new(0);
        assert!((0..1_000).all(|_| throttle.lets_through(Level::Info, &BAD, 5_000)));
    }
}
