//! What a [`Decoder`](super::Decoder) finds, and where a message's bytes are.

use std::ops::Range;

use super::Kind;
use crate::close::CloseFrame;
use crate::frame::ControlPayload;

/// What happened on the stream.
#[derive(Debug)]
pub enum Event {
    /// A whole message.
    Message {
        /// Text is UTF-8.
        kind: Kind,
        /// It came compressed; the payload is inflated.
        compressed: bool,
        /// The bytes.
        payload: Payload,
    },
    /// To be answered by a Pong with this payload.
    Ping(ControlPayload),
    /// An answer to a Ping, or unasked for.
    Pong(ControlPayload),
    /// The peer's last frame.
    Close(CloseFrame),
}

/// Where a message's bytes are.
#[derive(Debug)]
pub enum Payload {
    /// In the input, with at least `header_len(len, false)` bytes of room before it, above
    /// [`Cursor::write`](super::Cursor::write).
    InPlace(Range<usize>),
    /// In a buffer of its own.
    Owned(OwnedPayload),
}

impl Payload {
    /// Its size in bytes.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::InPlace(range) => range.end - range.start,
            Self::Owned(owned) => owned.bytes().len(),
        }
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes; `input` is what [`Decoder::next`](super::Decoder::next) was given.
    #[inline]
    #[must_use]
    pub fn bytes<'a>(&'a self, input: &'a [u8]) -> &'a [u8] {
        match self {
            Self::InPlace(range) => &input[range.clone()],
            Self::Owned(owned) => owned.bytes(),
        }
    }
}

/// A message in a buffer of its own. Once used, the buffer goes back by [`Spares::give`](super::Spares::give).
#[derive(Debug, Default)]
pub struct OwnedPayload {
    /// At least [`MAX_HEADER`](crate::frame::MAX_HEADER) bytes of room, then the message.
    pub buffer: Vec<u8>,
    /// Where the message starts; it ends where the buffer ends.
    pub start: usize,
}

impl OwnedPayload {
    /// The message.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..]
    }
}
