//! What an [`Inspector`](super::Inspector) hands on, inline: a whole control frame, a header that came in
//! pieces, a range of the input.

use std::fmt;
use std::ops::{Deref, Range};

use crate::close::CloseFrame;
use crate::frame::{ControlPayload, Head, MAX_CONTROL_FRAME, MAX_HEADER, Opcode};
use crate::message::Violation;

/// What to do next.
#[derive(Debug)]
pub enum Segment {
    /// Forward these bytes of the input as they are. The range may hold many frames, and may end inside
    /// one's payload.
    Forward(Range<usize>),
    /// Forward these bytes: a data frame's header that came in pieces.
    Held(HeldBytes),
    /// A whole Ping, to be forwarded as it came or answered here.
    Ping(RelayControl),
    /// A whole Pong, to be forwarded as it came or swallowed.
    Pong(RelayControl),
    /// The peer's last frame.
    Close(CloseFrame),
}

/// A header that came in pieces, inline.
#[derive(Clone, Copy)]
pub struct HeldBytes {
    pub(super) len: u8,
    pub(super) bytes: [u8; MAX_HEADER],
}

impl Deref for HeldBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl AsRef<[u8]> for HeldBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for HeldBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// A whole control frame as it came, inline.
#[derive(Clone, Copy)]
pub struct RelayControl {
    opcode: Opcode,
    header: u8,
    len: u8,
    bytes: [u8; MAX_CONTROL_FRAME],
}

impl RelayControl {
    pub(super) fn new(head: &Head, header: &[u8]) -> Self {
        let mut this = Self {
            opcode: head.opcode,
            // A control frame's header has at most 6 bytes.
            header: header.len() as u8,
            len: 0,
            bytes: [0; MAX_CONTROL_FRAME],
        };
        this.extend(header);
        this
    }

    pub(super) fn extend(&mut self, bytes: &[u8]) {
        let from = usize::from(self.len);
        let to = from + bytes.len();
        self.bytes[from..to].copy_from_slice(bytes);
        // The slice above ends within 131.
        self.len = to as u8;
    }

    /// The frame as it came, header and mask included.
    #[must_use]
    pub fn wire(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// The payload, unmasked.
    #[must_use]
    pub fn payload(&self) -> ControlPayload {
        let (header, masked) = self.wire().split_at(usize::from(self.header));
        let key = header.get(2..).and_then(<[u8]>::first_chunk).copied().unwrap_or_default();
        let mut payload = ControlPayload::EMPTY;
        payload.extend(masked, key);
        payload
    }

    pub(super) fn segment(self) -> Result<Segment, Violation> {
        match self.opcode {
            Opcode::Ping => Ok(Segment::Ping(self)),
            Opcode::Pong => Ok(Segment::Pong(self)),
            Opcode::Close => CloseFrame::parse(&self.payload()).map(Segment::Close),
            Opcode::Continuation | Opcode::Text | Opcode::Binary => {
                unreachable!("a data frame is no control frame")
            }
        }
    }
}

impl fmt::Debug for RelayControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.wire(), f)
    }
}
