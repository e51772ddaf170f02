//! Points in time in four bytes: five of them stand in every session.

/// Milliseconds of a unit.
const UNIT_MS: u64 = 16;

/// A point in the past, at most 16 ms too late, so that what is counted from it is never due too early. Right for two
/// years back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp(u32);

impl Stamp {
    /// Now.
    pub(crate) fn at(now_ms: u64) -> Stamp {
        // The low half on purpose: differences are taken modulo 2^32.
        Stamp(now_ms.div_ceil(UNIT_MS) as u32)
    }

    /// Its time in milliseconds, seen from `now_ms`.
    pub(crate) fn ms(self, now_ms: u64) -> u64 {
        let now = now_ms.div_ceil(UNIT_MS);
        let age = (now as u32).wrapping_sub(self.0);
        now.saturating_sub(u64::from(age)) * UNIT_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_never_early_and_at_most_a_unit_late() {
        for start in [0, 1, 15, 16, 17, (1 << 36) - 5, (1 << 36) + 1, u64::MAX / 2] {
            for later in [0, 1, 16, 1_000, 40_000_000_000] {
                let seen = Stamp::at(start).ms(start + later);
                assert!(seen >= start && seen < start + UNIT_MS, "{start} {later} {seen}");
            }
        }
    }
}
