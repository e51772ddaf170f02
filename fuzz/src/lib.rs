//! What the fuzz targets share: how an input is read and cut, streams of frames, and a naive model of a connection.
//!
//! An input is a few bytes of settings and then raw bytes, so that the fuzzer's dictionaries and cross-overs find the
//! grammar they know. Only its end may mean something else: where the settings say so, the bytes are a list of
//! frames to build ([`frames`]), which gets deeper than raw bytes do.

pub mod frames;
pub mod model;
#[allow(dead_code, reason = "the tests of deflate, where it lives, use more of it")]
#[path = "../../crates/wire/tests/deflate/puff.rs"]
mod puff;

use std::ops::Range;

use tidegate_wire::deflate::{CodecLimits, Codecs, Compression};
use tidegate_wire::extension::DeflateParams;
use tidegate_wire::{Limits, Role};

/// An input, read from its front. Past its end everything is 0.
#[derive(Clone, Copy)]
pub struct Source<'d>(pub &'d [u8]);

impl<'d> Source<'d> {
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub fn pair(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// At most `len` bytes.
    pub fn bytes(&mut self, len: usize) -> &'d [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// How a stream of `len` bytes arrives: 0 is all at once, 1 byte by byte, anything else a seed of pieces of 1 to
/// 16 bytes, to 2,048, or both.
pub fn pieces(len: usize, cuts: u16) -> Vec<Range<usize>> {
    match cuts {
        0 => return std::iter::once(0..len).collect(),
        1 => return (0..len).map(|at| at..at + 1).collect(),
        2.. => {}
    }
    let mut random = Random(cuts.into());
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < len {
        let small = match cuts % 3 {
            0 => true,
            1 => false,
            _ => random.draw() & 1 == 0,
        };
        let most = if small { 16 } else { 2048 };
        let end = len.min(at + 1 + random.draw() % most);
        pieces.push(at..end);
        at = end;
    }
    pieces
}

/// A xorshift: cuts and keys, the same for the same input.
pub struct Random(pub u64);

impl Random {
    pub fn draw(&mut self) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize
    }
}

/// What the messages of a stream may be.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub role: Role,
    pub limits: Limits,
    pub deflate: Option<DeflateParams>,
    /// Inflaters that the pool lends. With none, a compressed message is only judged when it is whole.
    pub inflaters: u32,
}

impl Rules {
    /// From two bytes.
    pub fn take(source: &mut Source<'_>) -> Self {
        let (flags, limit) = (source.byte(), source.byte());
        let role = if flags & 1 == 0 { Role::Server } else { Role::Client };
        let takeover = flags & 4 != 0;
        let deflate = (flags & 2 != 0).then(|| DeflateParams {
            server_no_context_takeover: !takeover,
            client_no_context_takeover: !takeover,
            ..DeflateParams::default()
        });
        let limits = Limits {
            message_bytes: [0, 1, 125, 126, 1000, 4096, 20_000, 70_000][usize::from(limit & 7)],
            message_fragments: [0, 1, 3, 16][usize::from(limit >> 3 & 3)],
        };
        Self { role, limits, deflate, inflaters: if flags & 8 == 0 { 2 } else { 0 } }
    }

    /// Whether the peer may look back at its earlier messages.
    pub fn peer_takes_over(&self) -> bool {
        self.deflate.is_some_and(|params| match self.role {
            Role::Server => !params.client_no_context_takeover,
            Role::Client => !params.server_no_context_takeover,
        })
    }

    pub fn codecs(&self) -> Codecs {
        Codecs::new(CodecLimits {
            inflaters: self.inflaters,
            takeover_bytes: 1 << 20,
            ..CodecLimits::default()
        })
    }

    pub fn compression(&self, codecs: &mut Codecs) -> Option<Compression> {
        self.deflate.map(|params| Compression::new(params, self.role, codecs))
    }
}

/// Everything that was lent came back.
///
/// # Panics
/// If not.
pub fn assert_returned(codecs: &Codecs) {
    let stats = codecs.stats();
    assert_eq!(stats.inflaters_lent, 0, "an inflater is lost");
    assert_eq!(stats.takeover_bytes, 0, "a part of the budget is lost");
}
