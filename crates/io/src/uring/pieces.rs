//! Memory for sends of several pieces: the message headers and vectors that submission entries point to.
//!
//! Invariant: neither list ever grows past its first allocation, so what was handed out stays where it is.

use std::{mem, ptr};

use crate::MAX_PIECES;

/// Messages between two submissions.
const HEADERS: usize = 512;
/// Pieces between two submissions.
const PIECES: usize = 8 * HEADERS;

/// Message headers for the entries that are queued.
pub(super) struct Pieces {
    headers: Vec<libc::msghdr>,
    vectors: Vec<libc::iovec>,
}

impl Pieces {
    pub(super) fn new() -> Self {
        Self { headers: Vec::with_capacity(HEADERS), vectors: Vec::with_capacity(PIECES) }
    }

    /// Whether there may be no room for another message.
    pub(super) fn is_full(&self) -> bool {
        self.headers.len() == HEADERS || self.vectors.len() + MAX_PIECES > PIECES
    }

    /// Forgets the messages: the kernel has taken them all.
    pub(super) fn clear(&mut self) {
        self.headers.clear();
        self.vectors.clear();
    }

    /// A header for these pieces, valid until [`Pieces::clear`], and their bytes.
    ///
    /// # Panics
    /// Where it is full, or the pieces are more than [`MAX_PIECES`].
    pub(super) fn message<'a>(
        &mut self,
        pieces: impl Iterator<Item = &'a [u8]>,
    ) -> (*const libc::msghdr, usize) {
        assert!(!self.is_full(), "the caller makes room first");
        let first = self.vectors.len();
        let mut bytes = 0;
        for piece in pieces {
            assert!(self.vectors.len() < first + MAX_PIECES, "a send of more than {MAX_PIECES} pieces");
            bytes += piece.len();
            let base = piece.as_ptr().cast_mut().cast();
            self.vectors.push(libc::iovec { iov_base: base, iov_len: piece.len() });
        }
        // SAFETY: all zeros is a header without name, vectors, control data or flags.
        let mut header: libc::msghdr = unsafe { mem::zeroed() };
        header.msg_iov = ptr::from_mut(&mut self.vectors[first..]).cast();
        header.msg_iovlen = self.vectors.len() - first;
        self.headers.push(header);
        (&raw const self.headers[self.headers.len() - 1], bytes)
    }
}
