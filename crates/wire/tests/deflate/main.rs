//! permessage-deflate: messages in and out. The oracle is `puff.rs`, the other implementation `fixtures.rs`.

mod contexts;
mod fixtures;
mod pool;
mod properties;
mod puff;
mod rules;

use tidegate_wire::Role;
use tidegate_wire::deflate::{CodecLimits, Codecs, Compression, InflateError};
use tidegate_wire::extension::DeflateParams;

/// Larger than any message of these tests, where the limit is not what is tested.
const LARGE: usize = 1 << 24;

/// A shard's codecs with room for context takeover.
fn codecs() -> Codecs {
    Codecs::new(CodecLimits { takeover_bytes: 1 << 24, ..CodecLimits::default() })
}

/// The same for both directions.
fn params(takeover: bool, window_bits: u8) -> DeflateParams {
    DeflateParams {
        server_no_context_takeover: !takeover,
        client_no_context_takeover: !takeover,
        server_max_window_bits: window_bits,
        client_max_window_bits: window_bits,
        server_max_window_bits_named: false,
    }
}

/// A server's session in a shard of its own.
struct Receiver {
    codecs: Codecs,
    compression: Compression,
}

impl Receiver {
    fn new(takeover: bool) -> Self {
        let mut codecs = codecs();
        let compression = Compression::new(params(takeover, 15), Role::Server, &mut codecs);
        Self { codecs, compression }
    }

    /// Receives one message in pieces of `piece` bytes.
    fn pieces(&mut self, payload: &[u8], piece: usize, max_len: usize) -> Result<Vec<u8>, InflateError> {
        let mut out = Vec::new();
        let mut inflation = self.compression.begin(&mut self.codecs).expect("an inflater");
        for piece in payload.chunks(piece) {
            if let Err(error) = inflation.feed(piece, &mut out, max_len) {
                inflation.abandon(&mut self.codecs);
                return Err(error);
            }
            assert!(out.len() <= max_len, "{} of {max_len}", out.len());
        }
        inflation.finish(&mut self.compression, &mut self.codecs, &out, max_len)?;
        Ok(out)
    }

    fn message(&mut self, payload: &[u8]) -> Result<Vec<u8>, InflateError> {
        self.pieces(payload, payload.len().max(1), LARGE)
    }
}

fn hex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2));
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
}

/// Bytes that do not compress; the generator of the fixtures.
fn noise(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_103_515_245).wrapping_add(12345) & 0x7fff_ffff;
        (state >> 16) as u8
    };
    (0..len).map(|_| next()).collect()
}
