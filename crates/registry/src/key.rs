//! The name of a session.

use std::{fmt, num::NonZeroU64};

/// A session's slot and which of its tenants is meant: 56 bits, so that it can share a word with an operation.
///
/// A key outlives its session harmlessly: it resolves to nothing once the slot was vacated. The slot's next
/// tenant gets another generation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(NonZeroU64);

impl Key {
    /// How many bits of [`Key::to_bits`] are used.
    pub const BITS: u32 = 56;

    /// The last generation that is given out; then follows 1 again.
    pub(crate) const LAST_GENERATION: u32 = Self::NEVER - 1;
    /// A generation that is never given out: its keys resolve to nothing.
    const NEVER: u32 = (1 << 24) - 1;

    /// `generation` must be in `1..=LAST_GENERATION`.
    pub(crate) fn new(index: u32, generation: u32) -> Self {
        debug_assert!((1..=Self::LAST_GENERATION).contains(&generation));
        Self::from_bits(u64::from(generation) << 32 | u64::from(index))
    }

    /// The generation above the index; the upper 8 bits are zero.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.0.get()
    }

    /// The key with these bits. The upper 8 bits are ignored, and bits that no key has give a key that never
    /// resolves, so bits from outside need no check.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        let bits = bits & ((1 << Self::BITS) - 1);
        let generation = bits >> 32;
        match NonZeroU64::new(bits) {
            Some(bits) if generation != 0 => Self(bits),
            _ => Self(NonZeroU64::MIN.saturating_add((Self::NEVER as u64) << 32)),
        }
    }

    /// The slot, for tables beside the registry such as the wheel.
    #[must_use]
    pub const fn index(self) -> u32 {
        self.to_bits() as u32
    }

    /// Which tenant of the slot.
    #[must_use]
    pub const fn generation(self) -> u32 {
        (self.to_bits() >> 32) as u32
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}.{})", self.index(), self.generation())
    }
}

/// For logs: slot and generation.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index(), self.generation())
    }
}
