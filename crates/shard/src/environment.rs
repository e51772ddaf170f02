//! What a shard needs from outside besides the kernel: random bytes, the date, and somewhere to write.

use crate::log::Entry;

/// The shard's surroundings; in the simulator all of it comes from a seed.
pub trait Environment {
    /// Fills `out` with random bytes, fit for masking keys and `Sec-WebSocket-Key` (RFC 6455 §5.3, §4.1).
    fn random(&mut self, out: &mut [u8]);

    /// A mask for one frame to an upstream: RFC 6455 §5.3 wants a fresh one for each.
    fn draw_mask(&mut self) -> [u8; 4] {
        let mut mask = [0; 4];
        self.random(&mut mask);
        mask
    }

    /// 64 random bits.
    fn draw_seed(&mut self) -> u64 {
        let mut bits = [0; 8];
        self.random(&mut bits);
        u64::from_le_bytes(bits)
    }

    /// The system's clock in seconds since 1970, for the `Date` of answers. Nothing is timed by it.
    fn unix_seconds(&self) -> u64;

    /// Takes an entry of the log. Must not block.
    fn log(&mut self, entry: Entry);
}
