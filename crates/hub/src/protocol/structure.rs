//! Where the values of a long message lie, as simd-json's vectors find them.
//!
//! simd-json decodes strings in its input, and what is published must stay as it was sent. So it reads a copy; what is
//! taken from it is that the text is JSON and where its tokens begin, which is the same in the original. Its word is
//! final only if it is yes: what it refuses (whole numbers of more than 64 bits, `1e400`) is read by serde_json.

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
    /// the time it takes does, and so does the memory: of a message it can be 30 times the length.
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
