//! What a shard needs from outside besides the kernel: random bytes, the date, and somewhere to write.

use std::sync::Arc;

use tidegate_identity::FetchedKeys;

use crate::{identity::Question, log::Entry};

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

    /// Has a hook asked; the answer comes as a letter ([`crate::Mail::Decided`]). Must not block. Where nobody asks, the request is
    /// refused when its time is over.
    fn ask(&mut self, question: Question) {
        drop(question);
    }

    /// Has keys fetched anew: a token names one that is not among them. Must not block.
    fn want_keys(&mut self, keys: &Arc<FetchedKeys>) {
        let _ = keys;
    }
}
