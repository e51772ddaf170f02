//! How long messages are.

use std::sync::Arc;

use tidegate_wire::message::Kind;

use super::fields::{Layout, layout};
use crate::trace::Trace;

/// How long messages are, in bytes of payload: uniform from `min` to `max`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) min: usize,
    pub(crate) max: usize,
}

/// A part of all messages, and how long they are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Share {
    /// Of 1, over all shares.
    pub(crate) weight: f64,
    pub(crate) sizes: Sizes,
}

/// What decides how long a message is.
#[derive(Debug)]
pub(super) enum Shape {
    /// Any size in the bounds.
    Uniform,
    /// Shares: each up to this place of 2^32.
    Shares(Vec<(u64, Sizes)>),
    Trace(Arc<Trace>),
}

impl Sizes {
    /// Whether each message of these sizes tells when it was due.
    pub(crate) fn tell_time(self, kind: Kind) -> bool {
        layout(kind, self.min) == Layout::Fields
    }

    /// The size at a place of 2^32.
    #[inline]
    pub(super) fn place(self, place: u64) -> usize {
        self.min + ((place * ((self.max - self.min) as u64 + 1)) >> 32) as usize
    }
}
