//! What the sessions of one shard share.

use super::Compression;
use super::deflater::Deflater;
use super::inflation::{Counted, INFLATER_BYTES, InflateError, Inflater, Inflation, Owner};

/// What the codecs of one shard may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodecLimits {
    /// Inflaters lent at the same time, 48 KiB each: compressed messages of sessions without context takeover that are
    /// received at once. One more is kept back.
    pub inflaters: u32,
    /// Deflaters kept, one for each window size in use, 148 to 274 KiB each. At least one; more than seven are of no use.
    pub deflaters: u32,
    /// Bytes that the contexts of sessions with context takeover may take together.
    pub takeover_bytes: usize,
    /// zlib's level, 1 to 9; values outside are taken as the nearest.
    ///
    /// The default is 1. Of a feed of 1 KiB of JSON each it leaves 28 %, level 3 22 % and level 6 21 %; both take about
    /// three times as long (`benches/deflate.rs`). With context takeover and the largest window: 20 %, 15 %, 14 %. With
    /// windows of 1 KiB and less level 1 saves little.
    pub level: u8,
}

/// 64 inflaters (3 MiB), two deflaters, no context takeover, level 1.
impl Default for CodecLimits {
    fn default() -> Self {
        Self { inflaters: 64, deflaters: 2, takeover_bytes: 0, level: 1 }
    }
}

/// What the codecs of one shard hold and have done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CodecStats {
    /// Inflaters that messages hold now.
    pub inflaters_lent: u32,
    /// Inflaters that wait for a message, the one kept back among them.
    pub inflaters_idle: u32,
    /// Times that the pool had no inflater to lend.
    pub inflaters_refused: u64,
    /// Deflaters of the pool.
    pub deflaters: u32,
    /// Bytes reserved for sessions with context takeover.
    pub takeover_bytes: usize,
    /// Heap bytes of all of it, contexts of sessions counted as soon as they are reserved.
    pub bytes: usize,
    /// Calls of zlib's inflate.
    pub inflate_calls: u64,
    /// Bytes that went into them.
    pub compressed_bytes: u64,
    /// Bytes that came out of them.
    pub inflated_bytes: u64,
    /// Messages deflated.
    pub deflated_messages: u64,
    /// Bytes that they had before.
    pub deflated_bytes: u64,
}

/// What a call of inflate costs at least: a block that ends the stream takes two bytes and one of these.
const CALL_COST: u64 = 1024;
/// What a compressed byte costs at least: a block of codes without symbols takes as long as 8 bytes of content for each.
const INPUT_COST: u64 = 8;

/// The codecs of one shard.
pub struct Codecs {
    limits: CodecLimits,
    #[expect(clippy::vec_box, reason = "they are lent and come back as one pointer")]
    idle: Vec<Box<Inflater>>,
    spare: Option<Box<Inflater>>,
    /// The one used last stands last.
    deflaters: Vec<Deflater>,
    compressed_bytes: u64,
    /// All of [`Self::stats`] but what is counted when it is asked for.
    stats: CodecStats,
}

impl Codecs {
    /// Allocates nothing yet.
    #[must_use]
    pub fn new(limits: CodecLimits) -> Self {
        let level = limits.level.clamp(1, 9);
        let deflaters = limits.deflaters.max(1);
        Self {
            limits: CodecLimits { level, deflaters, ..limits },
            idle: Vec::new(),
            spare: None,
            deflaters: Vec::new(),
            compressed_bytes: 0,
            stats: CodecStats::default(),
        }
    }

    /// What is held now and what was done so far.
    #[must_use]
    pub fn stats(&self) -> CodecStats {
        let inflaters_idle = self.idle.len() + usize::from(self.spare.is_some());
        let inflaters = (inflaters_idle + self.stats.inflaters_lent as usize) * INFLATER_BYTES;
        let deflaters: usize =
            self.deflaters.iter().map(|deflater| Deflater::bytes(deflater.window_bits())).sum();
        CodecStats {
            inflaters_idle: inflaters_idle as u32,
            deflaters: self.deflaters.len() as u32,
            bytes: inflaters + deflaters + self.stats.takeover_bytes,
            compressed_bytes: self.compressed_bytes,
            ..self.stats
        }
    }

    /// Is there room for one more session with context takeover in both directions and the largest windows?
    #[must_use]
    pub fn takeover_available(&self) -> bool {
        self.takeover_left() >= Deflater::bytes(15) + INFLATER_BYTES
    }

    /// Appends `payload` to `out` as a compressed message that any session may be sent whose window in this direction
    /// is at least `window_bits` (9 to 15), context takeover or not: it looks back at nothing. Without the
    /// `00 00 ff ff` at the end.
    ///
    /// A session with context takeover has to forget its own context then:
    /// [`Compression::reset_deflater`].
    ///
    /// # Panics
    /// When `window_bits` is not 9 to 15.
    pub fn deflate(&mut self, window_bits: u8, payload: &[u8], out: &mut Vec<u8>) {
        self.count_deflated(payload.len());
        let at = self.deflaters.iter().position(|deflater| deflater.window_bits() == window_bits);
        let mut deflater = match at {
            Some(at) => self.deflaters.remove(at),
            None => {
                if self.deflaters.len() as u32 >= self.limits.deflaters {
                    self.deflaters.remove(0);
                }
                Deflater::new(window_bits, self.limits.level)
            }
        };
        deflater.message(payload, out);
        deflater.clear();
        self.deflaters.push(deflater);
    }

    /// Inflates a whole message at once, for those that [`Compression::begin`] had no inflater for: one is kept back.
    /// Appends to `out`, which never gets longer than `max_len`.
    ///
    /// # Errors
    /// See [`InflateError`].
    pub fn inflate_whole(
        &mut self,
        compression: &mut Compression,
        input: &[u8],
        out: &mut Vec<u8>,
        max_len: usize,
    ) -> Result<(), InflateError> {
        let mut inflation = match compression.begin_own() {
            Some(inflation) => inflation,
            None => Inflation(self.spare.take().unwrap_or_else(|| Inflater::new(Owner::Spare))),
        };
        match inflation.feed(input, out, max_len) {
            Ok(()) => inflation.finish(compression, self, out, max_len),
            Err(error) => {
                inflation.abandon(self);
                Err(error)
            }
        }
    }

    pub(super) fn level(&self) -> u8 {
        self.limits.level
    }

    pub(super) fn lend(&mut self) -> Option<Inflation> {
        if self.stats.inflaters_lent >= self.limits.inflaters {
            self.stats.inflaters_refused += 1;
            return None;
        }
        self.stats.inflaters_lent += 1;
        Some(Inflation(self.idle.pop().unwrap_or_else(|| Inflater::new(Owner::Pool))))
    }

    /// Puts an inflater back to where it came from, cleared; destroys it where that is not certain to be enough.
    pub(super) fn take_back(&mut self, mut inflater: Box<Inflater>) {
        self.count(&mut inflater);
        if inflater.owner == Owner::Pool {
            self.stats.inflaters_lent -= 1;
        }
        if inflater.is_sound() {
            inflater.clear();
            match inflater.owner {
                Owner::Pool => self.idle.push(inflater),
                Owner::Spare => self.spare = Some(inflater),
                // Its session is at its end, and its bytes are given back with `Compression::release`.
                Owner::Session => {}
            }
        }
    }

    /// The codecs' work so far, in about the bytes that would have taken as long: those that were inflated or deflated, and
    /// besides 1,024 for each call of inflate and 8 for each compressed byte, as those may inflate to nothing.
    #[must_use]
    pub fn worked_bytes(&self) -> u64 {
        self.stats.inflated_bytes
            + self.stats.deflated_bytes
            + INPUT_COST * self.compressed_bytes
            + CALL_COST * self.stats.inflate_calls
    }

    /// Counts what a message was inflated to that is not whole yet.
    pub(crate) fn count_so_far(&mut self, inflation: &mut Inflation) {
        self.count(&mut inflation.0);
    }

    pub(super) fn count(&mut self, inflater: &mut Inflater) {
        let Counted { calls, taken, made } = inflater.take_counters();
        self.stats.inflate_calls += calls;
        self.compressed_bytes += taken;
        self.stats.inflated_bytes += made;
    }

    pub(super) fn count_deflated(&mut self, bytes: usize) {
        self.stats.deflated_messages += 1;
        self.stats.deflated_bytes += bytes as u64;
    }

    pub(super) fn takeover_left(&self) -> usize {
        self.limits.takeover_bytes.saturating_sub(self.stats.takeover_bytes)
    }

    pub(super) fn reserve_takeover(&mut self, bytes: usize) {
        self.stats.takeover_bytes += bytes;
    }

    pub(super) fn return_takeover(&mut self, bytes: usize) {
        self.stats.takeover_bytes -= bytes;
    }
}
