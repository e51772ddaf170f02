//! How much is published over HTTP in a second.
//!
//! Invariant: over any time, no more is taken than the rate allows but for one request that is larger than a second's worth, and
//! nothing follows that until its excess is made up for. With another rate that begins anew, as what is owed was taken at the old one.

use std::collections::HashMap;

use tidegate_hub::RouteId;

/// For each route of this shard, what was published in the second at hand, and is owed of those before.
#[derive(Debug, Default)]
pub(super) struct Rates(HashMap<u16, Second>);

#[derive(Clone, Copy, Debug)]
struct Second {
    since_ms: u64,
    count: u32,
    /// Messages in a second, by which the count is paid for.
    rate: u32,
}

impl Rates {
    /// Counts publications. False where they are more than a route takes in a second: then they do not count. A request
    /// with more than that alone is taken where nothing is owed, as it would be refused for ever: the next seconds pay for it.
    pub(super) fn spend(&mut self, route: RouteId, count: u32, rate: u32, now_ms: u64) -> bool {
        let begun = Second { since_ms: now_ms, count: 0, rate };
        let second = self.0.entry(route.0).or_insert(begun);
        if second.rate != rate {
            *second = begun;
        }
        let seconds = now_ms.saturating_sub(second.since_ms) / 1_000;
        if seconds > 0 {
            let paid = u32::try_from(seconds).unwrap_or(u32::MAX).saturating_mul(rate);
            second.count = second.count.saturating_sub(paid);
            // Where nothing is owed a second begins with its first publication.
            let since_ms = if second.count == 0 { now_ms } else { second.since_ms + seconds * 1_000 };
            second.since_ms = since_ms;
        }
        let fits = second.count == 0 || second.count.saturating_add(count) <= rate;
        if fits {
            second.count = second.count.saturating_add(count);
        }
        fits
    }

    /// Its number is another route's from now on.
    pub(super) fn forget(&mut self, route: RouteId) {
        self.0.remove(&route.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_takes_so_many() {
        let mut rates = Rates::default();
        let (one, other) = (RouteId(1), RouteId(2));
        assert!(rates.spend(one, 60, 100, 5_000));
        assert!(!rates.spend(one, 41, 100, 5_999));
        assert!(rates.spend(one, 40, 100, 5_999));
        assert!(rates.spend(other, 100, 100, 5_999));
        assert!(rates.spend(one, 100, 100, 6_000));
        assert!(!rates.spend(one, 1, 100, 6_999));
        assert!(rates.spend(one, 1, 100, 7_000));
    }

    #[test]
    fn what_is_more_than_a_second_takes_is_charged_to_the_next_ones() {
        let mut rates = Rates::default();
        let route = RouteId(1);
        assert!(rates.spend(route, 1_000, 100, 5_000), "else it would never be taken");
        for now_ms in [5_000, 6_000, 13_999] {
            assert!(!rates.spend(route, 1, 100, now_ms), "{now_ms}");
        }
        assert!(rates.spend(route, 100, 100, 15_000));
        assert!(!rates.spend(route, 1, 100, 15_000));
        // However often it is tried.
        let mut rates = Rates::default();
        let taken = (0..100_000).filter(|ms| rates.spend(route, 1, 10, 5_000 + ms)).count();
        assert_eq!(taken, 1_000);
    }
}
