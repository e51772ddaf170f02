//! Numbers that look random, from one seed: a run can be repeated with `--seed`.
//!
//! They decide when sessions start, what payloads hold and how they are masked. Nothing here is a secret.

/// A stream of numbers (SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

/// The golden ratio's fraction, the stream's step.
pub(crate) const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mix(self.0)
    }

    /// From 0 to just below 1.
    pub(crate) fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(crate) fn key(&mut self) -> [u8; 16] {
        (u128::from(self.next()) << 64 | u128::from(self.next())).to_le_bytes()
    }
}

/// Each bit of the result depends on each of the argument.
#[inline]
pub(crate) fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// What belongs to message `sequence` of session `serial` alone.
#[inline]
pub(crate) fn of_message(salt: u64, serial: u32, sequence: u64) -> u64 {
    mix(salt ^ u64::from(serial).rotate_left(32) ^ sequence.wrapping_mul(STEP))
}
