//! The masking key, turned so that it starts where the payload's piece does.

/// The key's four bytes as a little-endian word, rotated: its lowest byte masks the first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mask(u32);

impl Mask {
    /// For a piece that starts `offset` bytes into the payload.
    #[inline(always)]
    pub(crate) const fn new(key: [u8; 4], offset: usize) -> Self {
        Self(u32::from_le_bytes(key)).at(offset)
    }

    /// The mask for what lies `offset` bytes further.
    #[inline(always)]
    pub(crate) const fn at(self, offset: usize) -> Self {
        Self(self.0.rotate_right((offset & 3) as u32 * 8))
    }

    /// The first byte's.
    #[inline(always)]
    pub(crate) const fn byte(self) -> u8 {
        self.0 as u8
    }

    /// For four bytes that were loaded in the machine's order.
    #[inline(always)]
    pub(crate) const fn half(self) -> u32 {
        self.0.to_le()
    }

    /// For eight bytes that were loaded in the machine's order.
    #[inline(always)]
    pub(crate) const fn word(self) -> u64 {
        (self.half() as u64) << 32 | self.half() as u64
    }
}
