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
    fn nothing_overflows() {
        let rate = Rate::per_second(1, u64::MAX).expect("a rate");
        let mut bucket = Bucket::default();
        for _ in 0..100 {
            bucket.owe(u64::MAX, &rate, 1 << 40);
        }
        assert!(!bucket.spend(u64::MAX, &rate, 1 << 40));
        assert!(bucket.ready_ms(u64::MAX, &rate) > 1 << 40);
    }
}
