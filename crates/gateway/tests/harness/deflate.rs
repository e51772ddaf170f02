//! permessage-deflate for the tests' own peers: the peer's half of RFC 7692, over zlib-rs.

use zlib_rs::{Deflate, DeflateFlush, Inflate, InflateFlush};

/// Compresses messages; each continues the window of the one before.
pub(crate) struct Deflater(Deflate);

impl Deflater {
    /// A compressor with a fresh window of 2^`window_bits` bytes.
    pub(crate) fn new(window_bits: u8) -> Deflater {
        Deflater(Deflate::new(6, false, window_bits))
    }

    /// The payload of a compressed message (RFC 7692 §7.2.1).
    pub(crate) fn message(&mut self, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![0; payload.len() + payload.len() / 8 + 1024];
        let (consumed, produced) = (self.0.total_in(), self.0.total_out());
        self.0.compress(payload, &mut out, DeflateFlush::SyncFlush).expect("room enough");
        assert_eq!(self.0.total_in() - consumed, payload.len() as u64);
        out.truncate((self.0.total_out() - produced) as usize);
        assert!(out.ends_with(&[0, 0, 0xff, 0xff]), "a sync flush ends with an empty stored block");
        out.truncate(out.len() - 4);
        out
    }
}

/// One message compressed on its own.
pub(crate) fn compress(payload: &[u8]) -> Vec<u8> {
    Deflater::new(15).message(payload)
}

/// Inflates messages; each may refer to those before.
pub(crate) struct Inflater(Inflate);

impl Inflater {
    /// With an empty window of 32 KiB.
    pub(crate) fn new() -> Inflater {
        Inflater(Inflate::new(false, 15))
    }

    /// A message's payload inflated; panics where it is not valid.
    pub(crate) fn message(&mut self, payload: &[u8]) -> Vec<u8> {
        let input = [payload, &[0, 0, 0xff, 0xff]].concat();
        let began = self.0.total_in();
        let mut out = Vec::new();
        let mut piece = vec![0; 1 << 16];
        loop {
            let (consumed, produced) = ((self.0.total_in() - began) as usize, self.0.total_out());
            self.0
                .decompress(&input[consumed..], &mut piece, InflateFlush::SyncFlush)
                .expect("valid deflate");
            let got = (self.0.total_out() - produced) as usize;
            out.extend_from_slice(&piece[..got]);
            if got < piece.len() {
                assert_eq!((self.0.total_in() - began) as usize, input.len(), "all of the message was used");
                return out;
            }
        }
    }
}

/// One message inflated on its own; panics where it is not valid.
pub(crate) fn inflate(payload: &[u8]) -> Vec<u8> {
    Inflater::new().message(payload)
}
