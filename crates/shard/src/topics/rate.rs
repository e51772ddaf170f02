//! How much is published over HTTP in a second.

use std::collections::HashMap;

use tidegate_hub::RouteId;

/// For each route of this shard, what was published in the second at hand.
#[derive(Debug, Default)]
pub(super) struct Rates(HashMap<u16, Second>);

#[derive(Clone, Copy, Debug)]
struct Second {
    since_ms: u64,
    count: u32,
}

impl Rates {
    /// Counts publications. False where they are more than a route takes in a second: then they do not count. A request
    /// with more than that alone is taken where nothing was published in this second, as it would be refused for ever.
    pub(super) fn spend(&mut self, route: RouteId, count: u32, rate: u32, now_ms: u64) -> bool {
        let second = self.0.entry(route.0).or_insert(Second { since_ms: now_ms, count: 0 });
        if now_ms.saturating_sub(second.since_ms) >= 1_000 {
            *second = Second { since_ms: now_ms, count: 0 };
        }
        let fits = second.count == 0 || second.count.saturating_add(count) <= rate;
        if fits {
            second.count = second.count.saturating_add(count);
        }
        fits
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
        assert!(rates.spend(one, 1_000, 100, 6_000), "else it would never be taken");
        assert!(!rates.spend(one, 1, 100, 6_999));
        assert!(rates.spend(one, 1, 100, 7_000));
    }
}
