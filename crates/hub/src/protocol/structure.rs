//! Where the values of a long message lie, as simd-json's vectors find them.
//!
//! simd-json decodes strings in its input, and what is published must stay as it was sent. So it reads a copy; what is
//! taken from it is that the text is JSON and where its tokens begin, which is the same in the original. Its word is
//! final only if it is yes: what it refuses (whole numbers of more than 64 bits, `1e400`) is read by serde_json. That it
//! takes nothing that serde_json would refuse is a property of the tests and of the fuzz target.
//!
//! # From which length on
//! One `publish`, in ns, by each of the two (`cargo bench --profile quick -p tidegate-benches --bench protocol -- --fastest`
//! on x86-64 with AVX2; a feed of small objects, the feed pretty-printed, prose, and prose in escapes):
//!
//! | bytes | serde_json | simd-json |
//! |---:|---:|---:|
//! | 110, feed | 411 | 468 |
//! | 1,122, feed | 1,877 | 2,323 |
//! | 2,146, feed | 3,338 | 4,288 |
//! | 4,193, feed | 9,492 | 8,013 |
//! | 16,445, feed | 35,220 | 30,792 |
//! | 262,209, feed | 534,046 | 499,843 |
//! | 141, printed | 423 | 519 |
//! | 1,693, printed | 2,294 | 2,440 |
//! | 3,257, printed | 4,132 | 4,447 |
//! | 12,637, printed | 23,337 | 16,427 |
//! | 88, prose | 333 | 418 |
//! | 1,079, prose | 993 | 906 |
//! | 4,152, prose | 2,588 | 2,245 |
//! | 16,440, prose | 9,538 | 7,846 |
//! | 262,202, prose | 239,948 | 157,574 |
//! | 185, escaped | 566 | 565 |
//! | 4,151, escaped | 8,642 | 5,265 |
//!
//! From 4 KiB on vectors are faster with all four. Much of that is not serde_json's doing but that of the two looks at the
//! text that it needs before (at depth, where there are more than 64 brackets, and at escapes) and vectors do not: where
//! a feed has too few brackets to be looked at, serde_json is the faster one.

use std::{mem, ops::RangeInclusive};

use simd_json::{Buffers, INPUT_PADDING, Tape, fill_tape_padded};

use super::{MAX_NESTING, VECTORS_FROM_BYTES, VECTORS_TO_BYTES};

/// Memory that reading long messages uses again and again: one for a thread will do.
pub struct Scratch {
    lengths: RangeInclusive<usize>,
    copy: Vec<u8>,
    buffers: Buffers,
    /// Empty between two messages.
    tape: Tape<'static>,
}

impl Scratch {
    /// No memory yet. For lengths from [`VECTORS_FROM_BYTES`] to [`VECTORS_TO_BYTES`].
    #[must_use]
    pub fn new() -> Self {
        Self::with_lengths(VECTORS_FROM_BYTES..=VECTORS_TO_BYTES)
    }

    /// No memory yet. Vectors are to read messages of these lengths in bytes. What is read does not depend on it, but
    /// the time it takes does, and so does the memory: it can grow to 60 times the longest of these messages, if that
    /// is all brackets, and does not shrink.
    #[must_use]
    pub fn with_lengths(lengths: RangeInclusive<usize>) -> Self {
        let buffers = Buffers::with_max_depth(0, MAX_NESTING as usize);
        Self { lengths, copy: Vec::new(), buffers, tape: Tape(Vec::new()) }
    }

    /// The tokens of a text, if it is of a length that vectors read and JSON to them.
    pub(super) fn structure<'b>(&mut self, text: &'b str) -> Option<Structure<'b, '_>> {
        if !self.lengths.contains(&text.len()) {
            return None;
        }
        self.copy.clear();
        self.copy.extend_from_slice(text.as_bytes());
        self.copy.resize(text.len() + INPUT_PADDING, b' ');
        let mut tape = mem::replace(&mut self.tape, Tape(Vec::new())).reset();
        let read = fill_tape_padded(&mut self.copy, text.len(), &mut self.buffers, &mut tape);
        self.tape = tape.reset();
        read.ok()?;
        Some(Structure { text, tokens: self.buffers.structural_indexes() })
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

/// The tokens of a JSON text that are still to be read: where each bracket, comma, colon, string, number and literal
/// begins. No method trusts them to be right: `None` is that they are not, or not what was expected.
pub(super) struct Structure<'b, 's> {
    text: &'b str,
    tokens: &'s [u32],
}

impl<'b> Structure<'b, '_> {
    /// The first byte of the next token, and where it is.
    pub(super) fn token(&mut self) -> Option<(u8, usize)> {
        let (at, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        let at = *at as usize;
        Some((*self.text.as_bytes().get(at)?, at))
    }

    /// The members of an object whose bracket was read: each the key with its quotes and the value, as written.
    pub(super) fn members(&mut self, mut member: impl FnMut(&'b str, &'b str) -> Option<()>) -> Option<()> {
        loop {
            match self.token()? {
                (b'"', at) => {
                    let key = self.scalar(at)?;
                    let (b':', _) = self.token()? else { return None };
                    member(key, self.value()?)?;
                }
                (b',', _) => {}
                (b'}', _) => return Some(()),
                _ => return None,
            }
        }
    }

    fn value(&mut self) -> Option<&'b str> {
        let (byte, start) = self.token()?;
        if !matches!(byte, b'[' | b'{') {
            return self.scalar(start);
        }
        let mut open = 1;
        loop {
            let (byte, at) = self.token()?;
            // Without a branch on what the token is: it would be mispredicted at every other one.
            open += u32::from(matches!(byte, b'[' | b'{'));
            open -= u32::from(matches!(byte, b']' | b'}'));
            if open == 0 {
                return self.text.get(start..=at);
            }
        }
    }

    /// A string, number or literal that begins at `start` and whose token was read.
    fn scalar(&self, start: usize) -> Option<&'b str> {
        let end = self.tokens.first().map_or(self.text.len(), |next| *next as usize);
        Some(self.text.get(start..end)?.trim_ascii_end())
    }
}
