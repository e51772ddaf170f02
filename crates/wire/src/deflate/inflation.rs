//! Inflating one message, piece by piece.

use std::fmt;

use zlib_rs::{Inflate, InflateFlush, Status};

use super::{Codecs, Compression, TAIL};

/// Heap bytes of one [`Inflater`], whatever the window: zlib-rs always keeps 32 KiB of it.
pub(super) const INFLATER_BYTES: usize = 48 * 1024;

/// `out` grows at least by this, where `max_len` lets it.
const MIN_STEP: usize = 256;
/// `out` is never zeroed further than this beyond what was produced.
const MAX_STEP: usize = 16 * 1024;

/// Why a compressed message was refused. Both end the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InflateError {
    /// Not a deflate stream, or one that looks back before its beginning, or one that ends within a block: close
    /// with 1007.
    Corrupt,
    /// More than `max_len` bytes: close with 1009.
    TooBig,
}

impl fmt::Display for InflateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Corrupt => "corrupt compressed data",
            Self::TooBig => "message too big after inflating",
        })
    }
}

impl std::error::Error for InflateError {}

/// Where an inflater came from, and so goes back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// The pool, which counts it as lent.
    Pool,
    /// The inflater that a shard keeps back for [`Codecs::inflate_whole`].
    Spare,
    /// A session whose peer takes its context over.
    Session,
}

/// An inflater and what it knows about the message it is in.
pub(super) struct Inflater {
    inflate: Inflate,
    pub(super) owner: Owner,
    /// The deflate stream has begun: it is owed [`TAIL`] at the end of the message.
    open: bool,
    failed: bool,
    counted: Counted,
}

/// What an inflater has done.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counted {
    /// Calls of inflate.
    pub(super) calls: u64,
    /// Compressed bytes.
    pub(super) taken: u64,
    /// Bytes that came out.
    pub(super) made: u64,
}

impl Inflater {
    pub(super) fn new(owner: Owner) -> Box<Self> {
        let inflate = Inflate::new(false, 15);
        Box::new(Self { inflate, owner, open: false, failed: false, counted: Counted::default() })
    }

    /// Forgets the window and any stream begun.
    pub(super) fn clear(&mut self) {
        self.inflate.reset(false);
        self.open = false;
    }

    /// What it has done since the last call.
    pub(super) fn take_counters(&mut self) -> Counted {
        std::mem::take(&mut self.counted)
    }

    /// One call of inflate. A final block's end makes the inflater ready for the stream after it.
    fn step(&mut self, input: &[u8], out: &mut [u8], flush: InflateFlush) -> Step {
        let (before_in, before_out) = (self.inflate.total_in(), self.inflate.total_out());
        self.counted.calls += 1;
        let status = self.inflate.decompress(input, out, flush);
        let taken = (self.inflate.total_in() - before_in) as usize;
        let made = (self.inflate.total_out() - before_out) as usize;
        self.counted.taken += taken as u64;
        self.counted.made += made as u64;
        self.open |= taken > 0;
        let end = match status {
            Ok(Status::Ok | Status::BufError) => End::Starved,
            Ok(Status::StreamEnd) => {
                self.clear();
                End::FinalBlock
            }
            Err(_) => End::Corrupt,
        };
        Step { taken, made, end }
    }

    fn feed(&mut self, input: &[u8], out: &mut Vec<u8>, max_len: usize) -> Result<(), InflateError> {
        let mut len = out.len();
        let result = self.feed_behind(&mut len, input, out, max_len);
        out.truncate(len);
        result
    }

    /// Inflates to `out[len..]`. What stands behind `len` then is room that was zeroed already: a stream of tiny final
    /// blocks takes a step for each, and must not zero a whole one each time.
    fn feed_behind(
        &mut self,
        len: &mut usize,
        mut input: &[u8],
        out: &mut Vec<u8>,
        max_len: usize,
    ) -> Result<(), InflateError> {
        let mut step = first_step(input.len());
        while !input.is_empty() {
            let full;
            (input, full) = self.feed_step(len, input, out, max_len, step)?;
            step = step.saturating_mul(2).min(MAX_STEP);
            // A match may be waiting for room after the last byte of input was taken.
            while full && input.is_empty() {
                let (_, still) = self.feed_step(len, input, out, max_len, step)?;
                if !still {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Inflates up to `step` bytes; what is left of `input`, and whether all the room was used.
    fn feed_step<'i>(
        &mut self,
        len: &mut usize,
        input: &'i [u8],
        out: &mut Vec<u8>,
        max_len: usize,
        step: usize,
    ) -> Result<(&'i [u8], bool), InflateError> {
        let start = *len;
        let room = step.min(max_len.saturating_sub(start));
        let Step { taken, made, end } = if room == 0 {
            // Only a byte too many can tell a message that just fits from one that does not.
            let step = self.step(input, &mut [0], InflateFlush::NoFlush);
            if step.made > 0 {
                return Err(InflateError::TooBig);
            }
            step
        } else {
            let end = start + room;
            if out.len() < end {
                grow(out, end, max_len);
                out.resize(end, 0);
            }
            let step = self.step(input, &mut out[start..end], InflateFlush::NoFlush);
            *len = start + step.made;
            step
        };
        let full = room > 0 && made == room;
        match end {
            End::Corrupt => Err(InflateError::Corrupt),
            // zlib takes all input or fills all room; a stall would be an endless loop.
            End::Starved if taken == 0 && !full && !input.is_empty() => Err(InflateError::Corrupt),
            End::Starved => Ok((&input[taken..], full)),
            End::FinalBlock => Ok((&input[taken..], false)),
        }
    }

    /// Ends the message: the inflater must then stand between two blocks, at a byte boundary.
    fn finish(&mut self) -> Result<(), InflateError> {
        /// An empty stored block.
        const EMPTY_BLOCK: [u8; 5] = [0x00, 0x00, 0x00, 0xff, 0xff];

        // Nothing was received since the message, or the stream after a final block, began.
        if !self.open {
            return Ok(());
        }
        // `Block` stops where a block ends: exactly after the tail, or the tail was not the end of one.
        let [a, b, c, d] = TAIL;
        let tail = self.step(&[a, b, c, d, EMPTY_BLOCK[0]], &mut [0], InflateFlush::Block);
        if tail != (Step { taken: TAIL.len(), made: 0, end: End::Starved }) {
            return Err(InflateError::Corrupt);
        }
        // If that block ended within the tail's last byte, the rest of it (ones) makes this block invalid or final.
        let block = self.step(&EMPTY_BLOCK, &mut [0], InflateFlush::NoFlush);
        if block != (Step { taken: EMPTY_BLOCK.len(), made: 0, end: End::Starved }) {
            return Err(InflateError::Corrupt);
        }
        self.open = false;
        Ok(())
    }
}

/// What one call of inflate came to.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    taken: usize,
    made: usize,
    end: End,
}

/// Why a call of inflate ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The input or the room is used up.
    Starved,
    FinalBlock,
    Corrupt,
}

/// The room that inflating so many bytes begins with: in proportion to the input, so that a message in many small pieces
/// does not cost a large step for each.
pub(crate) fn first_step(input: usize) -> usize {
    input.saturating_mul(4).clamp(MIN_STEP, MAX_STEP)
}

/// Room in `out` for `len` bytes: at least doubled, never beyond `max_len`.
fn grow(out: &mut Vec<u8>, len: usize, max_len: usize) {
    if len > out.capacity() {
        let capacity = len.max(out.capacity().saturating_mul(2).min(max_len));
        out.reserve_exact(capacity - out.len());
    }
}

/// A compressed message being received: an inflater on loan.
///
/// It must end in [`finish`](Self::finish) or [`abandon`](Self::abandon): dropping it loses a place in the pool.
#[must_use]
pub struct Inflation(pub(super) Box<Inflater>);

impl Inflation {
    /// Inflates the next piece of the message and appends it to `out`, which never gets longer than `max_len`.
    /// Any division of a message into pieces gives the same bytes and the same verdict.
    ///
    /// # Errors
    /// See [`InflateError`]; from then on every call fails, and the inflater has to be given back with
    /// [`abandon`](Self::abandon). `out` holds what the stream gave before the error, which is the same for any division
    /// too.
    pub fn feed(&mut self, input: &[u8], out: &mut Vec<u8>, max_len: usize) -> Result<(), InflateError> {
        let inflater = &mut *self.0;
        if inflater.failed {
            return Err(InflateError::Corrupt);
        }
        let result = inflater.feed(input, out, max_len);
        inflater.failed = result.is_err();
        result
    }

    /// Ends the message and gives the inflater back, cleared or with the session's context. `out` is complete already:
    /// what has come is inflated at once, and the tail adds nothing.
    ///
    /// # Errors
    /// [`InflateError::Corrupt`] where the message ends within a block, or after an error before.
    pub fn finish(
        mut self,
        compression: &mut Compression,
        codecs: &mut Codecs,
        out: &[u8],
        max_len: usize,
    ) -> Result<(), InflateError> {
        debug_assert!(out.len() <= max_len, "feed keeps to the limit");
        let inflater = &mut *self.0;
        let result = if inflater.failed { Err(InflateError::Corrupt) } else { inflater.finish() };
        match result {
            Ok(()) if inflater.owner == Owner::Session => {
                codecs.count(inflater);
                compression.keep(self.0);
            }
            Ok(()) => codecs.take_back(self.0),
            Err(_) => {
                inflater.failed = true;
                codecs.take_back(self.0);
            }
        }
        result
    }

    /// Gives the inflater back in the middle of a message. A session's own context is lost: nothing compressed can be
    /// received on it any more.
    pub fn abandon(self, codecs: &mut Codecs) {
        codecs.take_back(self.0);
    }
}

impl Inflater {
    /// May it serve another session after [`clear`](Self::clear)?
    pub(super) fn is_sound(&self) -> bool {
        !self.failed
    }
}

impl fmt::Debug for Inflation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflation").field("owner", &self.0.owner).field("failed", &self.0.failed).finish()
    }
}
