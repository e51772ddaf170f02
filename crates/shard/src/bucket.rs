//! Token buckets in eight bytes.
//!
//! A bucket is the time at which it will be full again, in nanoseconds (the generic cell rate algorithm, ITU-T I.371): what is
//! spent moves that time on, and how far ahead of now it may be is the burst.

/// How fast tokens come, and how many there are at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    per_second: u64,
    /// The time that a full bucket takes to be full, in nanoseconds.
    burst_ns: u64,
}

impl Rate {
    /// `None` where the rate is 0, which is none.
    pub(crate) fn per_second(per_second: u64, burst: u64) -> Option<Rate> {
        (per_second != 0).then(|| Rate {
            per_second,
            // By single tokens, whose time is rounded up: all of them are there at once.
            burst_ns: time_ns(1, per_second).saturating_mul(burst.max(1)).min(1 << 60),
        })
    }
}

/// How long `tokens` take to come, in nanoseconds, rounded up.
fn time_ns(tokens: u64, per_second: u64) -> u64 {
    // Nearly always; the wider division takes several times as long.
    if let Some(ns) = tokens.checked_mul(1_000_000_000) {
        return ns.div_ceil(per_second).min(1 << 60);
    }
    let ns = (u128::from(tokens) * 1_000_000_000).div_ceil(per_second.into());
    // Far beyond any burst, and no sum of it overflows.
    u64::try_from(ns).unwrap_or(u64::MAX).min(1 << 60)
}

/// A bucket; full at first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bucket {
    full_ns: u64,
}

impl Bucket {
    /// Spends tokens where all of them are there; else none, and false.
    pub(crate) fn spend(&mut self, tokens: u64, rate: &Rate, now_ms: u64) -> bool {
        let now_ns = now_ms * 1_000_000;
        let full_ns = self.full_ns.max(now_ns).saturating_add(time_ns(tokens, rate.per_second));
        let fits = full_ns - now_ns <= rate.burst_ns;
        if fits {
            self.full_ns = full_ns;
        }
        fits
    }

    /// Spends tokens whether they are there or not: those that are not are owed.
    pub(crate) fn owe(&mut self, tokens: u64, rate: &Rate, now_ms: u64) {
        self.full_ns = self.full_ns.max(now_ms * 1_000_000).saturating_add(time_ns(tokens, rate.per_second));
    }

    /// From when on so many tokens are there, in milliseconds; the past where they are. More than the bucket holds are there
    /// when it is full.
    pub(crate) fn ready_ms(&self, tokens: u64, rate: &Rate) -> u64 {
        let missing_ns = rate.burst_ns.saturating_sub(time_ns(tokens, rate.per_second));
        self.full_ns.saturating_sub(missing_ns).div_ceil(1_000_000)
    }

    /// Whether so many tokens are there.
    pub(crate) fn holds(&self, tokens: u64, rate: &Rate, now_ms: u64) -> bool {
        let owed_ns = self.full_ns.saturating_sub(now_ms * 1_000_000);
        time_ns(tokens, rate.per_second).saturating_add(owed_ns) <= rate.burst_ns
    }

    /// Whether more is owed than the bucket holds.
    pub(crate) fn is_overdrawn(&self, rate: &Rate, now_ms: u64) -> bool {
        self.full_ns.saturating_sub(now_ms * 1_000_000) > rate.burst_ns
    }

    /// The rate becomes another one. Whoever kept to the one before may go on doing so: as many tokens are left as there were, and the
    /// next one does not come later than it would have. Nor does it give any: what is spent stays spent.
    pub(crate) fn change_rate(&mut self, before: Option<&Rate>, rate: Option<&Rate>, now_ms: u64) {
        if before == rate {
            return;
        }
        let (Some(before), Some(rate)) = (before, rate) else {
            // Nothing is spent where there is no rate.
            *self = Bucket::default();
            return;
        };
        let now_ns = now_ms * 1_000_000;
        let spent_ns = self.full_ns.saturating_sub(now_ns);
        // In the time of so many tokens now.
        let scaled = |before_ns: u64| {
            u128::from(before_ns) * u128::from(before.per_second) / u128::from(rate.per_second)
        };
        let left_ns = scaled(before.burst_ns.saturating_sub(spent_ns));
        let due_ns = spent_ns
            .saturating_sub(before.burst_ns - time_ns(1, before.per_second))
            .saturating_add(rate.burst_ns - time_ns(1, rate.per_second));
        let spent_ns =
            scaled(spent_ns).min(u128::from(rate.burst_ns).saturating_sub(left_ns)).min(due_ns.into());
        // Whole steps of the clock: single tokens' times are rounded up, and as many of them are left as before.
        let spent_ms = (spent_ns / 1_000_000) as u64;
        self.full_ns = now_ns.saturating_add(spent_ms * 1_000_000);
    }

    /// Whether nothing of it is spent.
    pub(crate) fn is_full(&self, now_ms: u64) -> bool {
        self.full_ns <= now_ms * 1_000_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_the_rate() {
        for (per_second, burst) in [(1, 1), (10, 1), (10, 5), (1_000, 3), (3, 100), (1_000_000, 1)] {
            let rate = Rate::per_second(per_second, burst).expect("a rate");
            let mut bucket = Bucket::default();
            let at_once = (0..burst + 10).filter(|_| bucket.spend(1, &rate, 5_000)).count() as u64;
            assert_eq!(at_once, burst, "{per_second} {burst}");
            let most = 10 * per_second;
            let mut taken = 0;
            for ms in 1..=10_000 {
                while taken <= most && bucket.spend(1, &rate, 5_000 + ms) {
                    taken += 1;
                }
            }
            // No more than a millisecond's worth is lost with each look.
            let least = if per_second <= 1_000 { most - 1 } else { 10_000 * burst };
            assert!((least..=most).contains(&taken), "{per_second} {burst}: {taken}");
        }
        assert_eq!(Rate::per_second(0, 5), None);
    }

    #[test]
    fn what_is_owed_is_made_up_for_before_anything_more() {
        let rate = Rate::per_second(100, 10).expect("a rate");
        let mut bucket = Bucket::default();
        bucket.owe(1_000, &rate, 5_000);
        assert_eq!(bucket.ready_ms(1, &rate), 5_000 + 9_900 + 10);
        assert!(!bucket.spend(1, &rate, 14_909));
        assert!(bucket.spend(1, &rate, 14_910));
        assert!(!bucket.is_full(14_999) && bucket.is_full(16_000));
        // More than the bucket holds is there when it is full.
        assert_eq!(bucket.ready_ms(50, &rate), 15_010);
        assert_eq!(Bucket::default().ready_ms(50, &rate), 0);
    }

    #[test]
    fn another_rate_takes_nothing_away_and_gives_nothing_back() {
        const NOW_MS: u64 = 5_000;
        let left = |bucket: Bucket, rate: &Rate| {
            let (mut bucket, mut left) = (bucket, 0);
            while bucket.spend(1, rate, NOW_MS) {
                left += 1;
            }
            left
        };
        let rates = [(1, 60), (3, 7), (10, 10), (1_000, 1_000), (1_000, 40), (7, 1), (1_000_000, 500)];
        for (before, burst) in rates {
            for (after, next_burst) in rates {
                for spent in [0, 1, 2, 5, 30, 59, 600, 5_000] {
                    let case = format!("{before}/{burst} -> {after}/{next_burst}, {spent} spent");
                    let old = Rate::per_second(before, burst).expect("a rate");
                    let new = Rate::per_second(after, next_burst).expect("a rate");
                    let mut bucket = Bucket::default();
                    bucket.owe(spent, &old, NOW_MS);
                    let (had, was_due_ms) = (left(bucket, &old), bucket.ready_ms(1, &old));
                    bucket.change_rate(Some(&old), Some(&new), NOW_MS);
                    let has = left(bucket, &new);
                    assert!(has >= had.min(next_burst), "{case}: {has} of {had}");
                    // What is there beyond that is what the larger burst has more than was spent, or the next one, which is due; and what comes in a millisecond.
                    let most =
                        had.max(next_burst.saturating_sub(spent)).max(1).min(next_burst) + after / 1_000;
                    assert!(has <= most, "{case}: {has} of {most}");
                    assert!(bucket.ready_ms(1, &new) <= was_due_ms.max(NOW_MS), "{case}");
                    if (before, burst) == (after, next_burst) {
                        assert_eq!(had, has, "{case}: nothing changed");
                    }
                }
            }
        }
    }

    #[test]
    fn nothing_overflows() {
        let rate = Rate::per_second(1, u64::MAX).expect("a rate");
        let mut bucket = Bucket::default();
        for _ in 0..100 {
            bucket.owe(u64::MAX, &rate, 1 << 40);
        }
        assert!(!bucket.spend(u64::MAX, &rate, 1 << 40));
        assert!(bucket.ready_ms(u64::MAX, &rate) > 1 << 40);
        let fast = Rate::per_second(u64::MAX, u64::MAX).expect("a rate");
        for (before, after) in [(rate, fast), (fast, rate)] {
            bucket.owe(u64::MAX, &before, 1 << 40);
            bucket.change_rate(Some(&before), Some(&after), 1 << 40);
        }
    }
}
