//! Where in its message a stream of data frames is: the rules that span frames (RFC 6455 §5.4), and the
//! limits that hold for a message as a whole.

use super::{Kind, Violation};
use crate::Limits;
use crate::frame::{Head, Opcode};

/// The message that is open, if any.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sequence {
    /// Payload bytes of the frames so far, as on the wire, the declared rest of the last one included.
    bytes: usize,
    /// Frames so far, empty ones included.
    fragments: u32,
    open: Option<Kind>,
    compressed: bool,
}

/// What the size of a frame is judged by.
#[derive(Clone, Copy)]
pub(crate) struct Admission<'a> {
    /// The frame starts a compressed message.
    pub(crate) rsv1: bool,
    pub(crate) limits: &'a Limits,
}

impl Sequence {
    /// Between two messages.
    pub(crate) const IDLE: Self = Self { bytes: 0, fragments: 0, open: None, compressed: false };

    /// The kind of the open message.
    #[inline]
    pub(crate) fn open(&self) -> Option<Kind> {
        self.open
    }

    /// Whether the open message is compressed.
    pub(crate) fn compressed(&self) -> bool {
        self.compressed
    }

    /// Whether a data frame may follow.
    ///
    /// # Errors
    /// RFC 6455 §5.4: a continuation with no message open, a new message inside another; too many frames.
    #[inline]
    pub(crate) fn check_order(&self, opcode: Opcode, limits: &Limits) -> Result<(), Violation> {
        match (self.open, opcode) {
            (None, Opcode::Continuation) => return Err(Violation::UnexpectedContinuation),
            (Some(_), Opcode::Text | Opcode::Binary) => return Err(Violation::UnfinishedMessage),
            (None | Some(_), _) => {}
        }
        if self.fragments >= limits.message_fragments { Err(Violation::TooManyFragments) } else { Ok(()) }
    }

    /// Whether the open or new message may take `len` bytes more.
    ///
    /// # Errors
    /// [`Violation::TooBig`].
    #[inline]
    pub(crate) fn check_size(&self, len: u64, admission: Admission<'_>) -> Result<(), Violation> {
        let limit = if self.compressed || admission.rsv1 {
            compressed_bytes(admission.limits)
        } else {
            admission.limits.message_bytes
        };
        let total = usize::try_from(len).ok().and_then(|len| len.checked_add(self.bytes));
        if total.is_some_and(|total| total <= limit) { Ok(()) } else { Err(Violation::TooBig) }
    }

    /// Counts a data frame that was checked.
    pub(crate) fn admit(&mut self, head: &Head) {
        match head.opcode {
            Opcode::Text => (self.open, self.compressed) = (Some(Kind::Text), head.rsv1),
            Opcode::Binary => (self.open, self.compressed) = (Some(Kind::Binary), head.rsv1),
            Opcode::Continuation => {}
            Opcode::Close | Opcode::Ping | Opcode::Pong => {
                unreachable!("control frames are no part of a message")
            }
        }
        // Both were checked against the limits.
        self.bytes += head.len as usize;
        self.fragments += 1;
    }
}

/// The most bytes that a compressed message may take on the wire. A correct deflate of incompressible data
/// is longer than its input: by 5 bytes a stored block at best, by one bit in eight with fixed codes. What
/// inflates to nothing (empty blocks) is bounded by this alone.
fn compressed_bytes(limits: &Limits) -> usize {
    limits.message_bytes.saturating_add(limits.message_bytes / 8).saturating_add(64)
}
