//! What an outbox queues: bytes of its own, shared bytes, or constant ones.

use std::{fmt, ops::Deref, sync::Arc};

use crate::{Charge, Total};

/// Wire bytes of one message.
#[derive(Debug)]
pub enum Chunk {
    /// Bytes of this outbox alone: `bytes[start..]`.
    Owned {
        /// The buffer.
        bytes: Vec<u8>,
        /// Where the wire bytes begin in it.
        start: usize,
    },
    /// Bytes that many outboxes send.
    Shared(Frame),
    /// Bytes that are always there.
    Static(&'static [u8]),
}

impl Chunk {
    /// The wire bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Owned { bytes, start } => &bytes[*start..],
            Self::Shared(frame) => frame,
            Self::Static(bytes) => bytes,
        }
    }
}

/// Encoded bytes shared by many outboxes, on any shard. Cloning makes another reference.
///
/// Its bytes count in the [`Total`] once, from its making until the last reference is gone.
#[derive(Clone)]
pub struct Frame(Arc<Counted>);

struct Counted {
    bytes: Vec<u8>,
    _charge: Charge,
    /// For what they count in as well.
    part: Option<Charge>,
}

impl Frame {
    /// Makes the wire bytes shareable, without a copy.
    #[must_use]
    pub fn new(bytes: Vec<u8>, total: &Total) -> Self {
        let charge = Charge::new(total, bytes.capacity());
        Self(Arc::new(Counted { bytes, _charge: charge, part: None }))
    }

    /// The same, for bytes that count in a part of the total, too: so who has a budget for that part knows what outboxes hold
    /// of it.
    #[must_use]
    pub fn with_part(bytes: Vec<u8>, total: &Total, part: &Total) -> Self {
        let (charge, part) = (Charge::new(total, bytes.capacity()), Charge::new(part, bytes.capacity()));
        Self(Arc::new(Counted { bytes, _charge: charge, part: Some(part) }))
    }

    /// Whether it counts in a part of the total.
    #[must_use]
    pub fn has_part(&self) -> bool {
        self.0.part.is_some()
    }

    /// How many references there are to it.
    #[must_use]
    pub fn holders(&self) -> usize {
        Arc::strong_count(&self.0)
    }
}

impl Deref for Frame {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0.bytes
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({} bytes)", self.len())
    }
}
