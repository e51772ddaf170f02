//! How many bytes wait for slow readers, or for the rest of them, over the whole process.
//!
//! Invariant: the total is the sum of what each shard's outboxes hold as of its last [`Retained::settle`], and of what
//! the shard says that it holds for them, plus each living [`crate::Frame`] once, however many outboxes refer to it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// Bytes retained by all shards together. Clones are the same counter.
#[derive(Clone, Debug, Default)]
pub struct Total(Arc<AtomicUsize>);

impl Total {
    /// Bytes, as of each shard's last [`Retained::settle`].
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.load(Relaxed)
    }

    /// So many more. Whoever adds subtracts them later; see [`Charge`].
    pub fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes, Relaxed);
    }

    /// So many of those that were added are gone.
    pub fn subtract(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Relaxed);
    }
}

/// Bytes that count in a [`Total`] as long as this is there.
#[derive(Debug)]
pub struct Charge {
    total: Total,
    bytes: usize,
}

impl Charge {
    /// So many, from now on.
    #[must_use]
    pub fn new(total: &Total, bytes: usize) -> Self {
        total.add(bytes);
        Self { total: total.clone(), bytes }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.total.subtract(self.bytes);
    }
}

/// One shard's part of the [`Total`]: a plain counter, brought up to date once per turn, so that pushing to an outbox
/// touches nothing that other shards touch.
///
/// It counts what is really held: the capacity of owned buffers and the queues' own storage.
#[derive(Debug)]
pub struct Retained {
    total: Total,
    held: usize,
    settled: usize,
}

impl Retained {
    /// A shard's counter, at zero.
    #[must_use]
    pub fn new(total: &Total) -> Self {
        Self { total: total.clone(), held: 0, settled: 0 }
    }

    /// Bytes that this shard owns. Shared frames are not among them: they are nobody's own.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.held
    }

    /// The process's counter.
    #[must_use]
    pub const fn total(&self) -> &Total {
        &self.total
    }

    /// Brings the total up to date. Once per turn.
    pub fn settle(&mut self) {
        if self.held > self.settled {
            self.total.add(self.held - self.settled);
        } else if self.held < self.settled {
            self.total.subtract(self.settled - self.held);
        }
        self.settled = self.held;
    }

    /// So many more bytes wait outside of the outboxes: input that cannot be read before they get shorter, or that is not whole.
    pub fn hold(&mut self, bytes: usize) {
        self.held += bytes;
    }

    /// So many of those do not wait any more.
    ///
    /// # Panics
    /// In builds with overflow checks, if more is released than was held.
    pub fn release(&mut self, bytes: usize) {
        self.held -= bytes;
    }

    /// An outbox now holds `after` bytes instead of `before`.
    pub(crate) fn change(&mut self, before: usize, after: usize) {
        self.held = self.held + after - before;
    }
}

/// What the outboxes of a shard that ends held goes with them.
impl Drop for Retained {
    fn drop(&mut self) {
        self.total.subtract(self.settled);
    }
}
