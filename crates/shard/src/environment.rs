//! What a shard needs from outside besides the kernel: random bytes, and somewhere to write.

use crate::log::Entry;

/// The shard's surroundings; in the simulator all of it comes from a seed.
pub trait Environment {
    /// Fills `out` with random bytes, fit for masking keys and `Sec-WebSocket-Key` (RFC 6455 §5.3, §4.1).
    fn random(&mut self, out: &mut [u8]);

    /// Takes an entry of the log. Must not block.
    fn log(&mut self, entry: Entry);
}
