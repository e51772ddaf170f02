//! UTF-8 in pieces (RFC 3629), failing at the first byte that no valid text could have there.
//!
//! The bulk goes through simdutf8; only a sequence that is cut off at the end of a piece is stepped through
//! byte by byte, so that the state is three bytes.

/// Text that is not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadByte {
    /// The index, in the piece that was fed, of the first byte that cannot stand there.
    pub at: usize,
}

/// A validator between two pieces of one text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Utf8 {
    /// Continuation bytes that the open sequence still needs: 0 to 3.
    missing: u8,
    /// The range that the next continuation byte must be in, where `missing > 0`.
    low: u8,
    high: u8,
}

impl Default for Utf8 {
    fn default() -> Self {
        Self::new()
    }
}

impl Utf8 {
    /// Before the first byte.
    #[must_use]
    pub const fn new() -> Self {
        Self { missing: 0, low: 0x80, high: 0xbf }
    }

    /// Whether the text so far ends between two characters.
    #[must_use]
    pub const fn is_boundary(&self) -> bool {
        self.missing == 0
    }

    /// Takes the next piece.
    ///
    /// # Errors
    /// [`BadByte`] at the first byte after which no text can be valid, even if it is in the middle of a
    /// sequence: `f4 90` fails at its second byte. The validator is of no use afterwards.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), BadByte> {
        // The rest of the sequence that the last piece ended in.
        let mut start = 0;
        while self.missing > 0 {
            let Some(&byte) = bytes.get(start) else { return Ok(()) };
            self.step(byte).map_err(|()| BadByte { at: start })?;
            start += 1;
        }
        let body = &bytes[start..];
        let (whole, tail) = body.split_at(body.len() - open_tail(body));
        if !is_utf8(whole) {
            return Err(BadByte { at: start + bad_byte(whole) });
        }
        for (i, &byte) in tail.iter().enumerate() {
            self.step(byte).map_err(|()| BadByte { at: start + whole.len() + i })?;
        }
        Ok(())
    }

    /// One byte further.
    fn step(&mut self, byte: u8) -> Result<(), ()> {
        if self.missing > 0 {
            if byte < self.low || byte > self.high {
                return Err(());
            }
            *self = Self { missing: self.missing - 1, low: 0x80, high: 0xbf };
            return Ok(());
        }
        // RFC 3629 §4: the second byte's range depends on the first: no overlong forms, no surrogates,
        // nothing above U+10FFFF.
        *self = match byte {
            0x00..=0x7f => Self::new(),
            0xc2..=0xdf => Self { missing: 1, low: 0x80, high: 0xbf },
            0xe0 => Self { missing: 2, low: 0xa0, high: 0xbf },
            0xe1..=0xec | 0xee..=0xef => Self { missing: 2, low: 0x80, high: 0xbf },
            0xed => Self { missing: 2, low: 0x80, high: 0x9f },
            0xf0 => Self { missing: 3, low: 0x90, high: 0xbf },
            0xf1..=0xf3 => Self { missing: 3, low: 0x80, high: 0xbf },
            0xf4 => Self { missing: 3, low: 0x80, high: 0x8f },
            0x80..=0xc1 | 0xf5..=0xff => return Err(()),
        };
        Ok(())
    }
}

/// Whether `bytes` is UTF-8.
#[inline]
#[must_use]
pub fn is_utf8(bytes: &[u8]) -> bool {
    simdutf8::basic::from_utf8(bytes).is_ok()
}

/// How many of the last bytes belong to a sequence that the end cuts off: 0 to 3.
fn open_tail(bytes: &[u8]) -> usize {
    for (back, &byte) in bytes.iter().rev().take(3).enumerate() {
        let needs = match byte {
            0x80..=0xbf => continue,
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xff => 4,
            0x00..=0x7f => 1,
        };
        return if back + 1 < needs { back + 1 } else { 0 };
    }
    0
}

/// The first byte of `bytes`, known not to be UTF-8, that cannot stand where it is.
#[cold]
fn bad_byte(bytes: &[u8]) -> usize {
    let valid = match simdutf8::compat::from_utf8(bytes) {
        Ok(_) => bytes.len(),
        Err(error) => error.valid_up_to(),
    };
    let mut state = Utf8::new();
    // `whole` ends between characters unless it is broken before, so that a bad byte is always found.
    bytes[valid..].iter().position(|&byte| state.step(byte).is_err()).map_or(bytes.len(), |at| valid + at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The index of the first byte after which no text can be valid, by the standard library, prefix by
    /// prefix.
    fn first_bad(bytes: &[u8]) -> Option<usize> {
        (0..bytes.len())
            .find(|&at| str::from_utf8(&bytes[..=at]).is_err_and(|error| error.error_len().is_some()))
    }

    fn feed_all<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Utf8, usize> {
        let mut utf8 = Utf8::new();
        let mut before = 0;
        for piece in pieces {
            utf8.feed(piece).map_err(|bad| before + bad.at)?;
            before += piece.len();
        }
        Ok(utf8)
    }

    fn check(bytes: &[u8], cuts: &[usize]) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]);
        match (feed_all(pieces), first_bad(bytes)) {
            (Ok(utf8), None) => assert_eq!(utf8.is_boundary(), str::from_utf8(bytes).is_ok(), "{bytes:x?}"),
            (Err(at), Some(bad)) => assert_eq!(at, bad, "{bytes:x?} cut at {cuts:?}"),
            (fed, bad) => panic!("{bytes:x?} cut at {cuts:?}: {fed:?}, but the bad byte is {bad:?}"),
        }
    }

    #[test]
    fn every_pair_and_every_start_of_three_bytes() {
        for first in 0..=0xff {
            for second in 0..=0xff {
                check(&[first, second], &[]);
                check(&[first, second], &[1]);
                for third in [0x00, 0x7f, 0x80, 0x8f, 0x90, 0xbf, 0xc0, 0xe0, 0xff] {
                    check(&[first, second, third], &[1, 2]);
                    check(&[first, second, third, 0x80], &[2]);
                }
            }
        }
    }

    #[test]
    fn rfc6455_8_1_it_fails_at_the_bad_byte_not_at_the_end_of_the_sequence() {
        let mut utf8 = Utf8::new();
        assert_eq!(utf8.feed(b"\xf4"), Ok(()));
        assert_eq!(utf8.feed(b"\x90"), Err(BadByte { at: 0 }));
        assert_eq!(Utf8::new().feed(b"\xce\xba\xf4\x90\x80\x80"), Err(BadByte { at: 3 }));
        assert_eq!(Utf8::new().feed(b"abc\xed\xa0"), Err(BadByte { at: 4 }));
        assert_eq!(Utf8::new().feed(b"\xff"), Err(BadByte { at: 0 }));
    }

    #[test]
    fn every_split_of_every_kind_of_sequence() {
        let text = "aé€😀\u{7ff}\u{800}\u{d7ff}\u{e000}\u{ffff}\u{10000}\u{10ffff}z".as_bytes();
        for first in 0..=text.len() {
            for second in first..=text.len() {
                check(text, &[first, second]);
                check(&text[..second], &[first]);
                check(&text[first..], &[second]);
            }
        }
    }

    #[test]
    fn it_is_small() {
        assert!(size_of::<Utf8>() <= 4);
    }

    /// Bytes that are mostly text, so that the bulk paths see more than the first byte.
    fn nearly_text() -> impl Strategy<Value = Vec<u8>> {
        (".{0,120}", prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3), any::<bool>())
            .prop_map(|(text, edits, cut)| {
                let mut bytes = text.into_bytes();
                for (at, byte) in edits {
                    if !bytes.is_empty() {
                        let at = at.index(bytes.len());
                        bytes[at] = byte;
                    }
                }
                if cut {
                    bytes.pop();
                }
                bytes
            })
    }

    proptest! {
        #[test]
        fn any_split_gives_the_verdict_of_the_whole(
            bytes in nearly_text(),
            cuts in prop::collection::vec(any::<usize>(), 0..6),
        ) {
            check(&bytes, &cuts);
        }

        #[test]
        fn any_bytes_in_any_split(
            bytes in prop::collection::vec(any::<u8>(), 0..12),
            cuts in prop::collection::vec(any::<usize>(), 0..6),
        ) {
            check(&bytes, &cuts);
        }
    }
}
