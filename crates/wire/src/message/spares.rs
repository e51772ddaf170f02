//! Buffers between two uses, so that messages which span inputs allocate nothing in the long run.

use super::partial::Partial;

/// Buffers kept at most, whatever their size: a search looks at each.
const BUFFERS: usize = 32;
/// Shorter ones are quicker made than found among those that are kept.
const SHORT_BYTES: usize = 1024;
/// Partials kept at most.
const PARTIALS: usize = 64;

/// A shard's buffers for messages that do not lie whole in one input. Holds at most the budget it was made
/// with, for all its sessions together.
#[derive(Default)]
pub struct Spares {
    buffers: Vec<Vec<u8>>,
    /// The capacities of `buffers`, together.
    bytes: usize,
    budget_bytes: usize,
    /// Boxed, because a decoder holds one by a pointer.
    #[expect(clippy::vec_box)]
    partials: Vec<Box<Partial>>,
    /// The next buffer to go where there is no room for a new one.
    next_out: usize,
}

impl Spares {
    /// Keeps at most `budget_bytes` of buffers; 0 keeps none, and every message that spans inputs allocates.
    #[must_use]
    pub fn new(budget_bytes: usize) -> Self {
        Self { budget_bytes, ..Self::default() }
    }

    /// Takes a buffer whose bytes are not needed any more: that of an [`OwnedPayload`](super::OwnedPayload),
    /// or any other.
    pub fn give(&mut self, mut buffer: Vec<u8>) {
        let capacity = buffer.capacity();
        let is_full = self.buffers.len() >= BUFFERS;
        if capacity == 0 || capacity > self.budget_bytes || (is_full && capacity < SHORT_BYTES) {
            return;
        }
        while self.buffers.len() >= BUFFERS || self.bytes + capacity > self.budget_bytes {
            let out = self.next_out % self.buffers.len();
            self.next_out = self.next_out.wrapping_add(1);
            self.bytes -= self.buffers.swap_remove(out).capacity();
        }
        buffer.clear();
        self.bytes += capacity;
        self.buffers.push(buffer);
    }

    /// Bytes of heap held.
    #[must_use]
    pub fn retained_bytes(&self) -> usize {
        self.bytes + self.partials.len() * size_of::<Partial>()
    }

    /// An empty buffer with room for at least `need` and at most `most` bytes, for `want` if possible.
    pub(super) fn take(&mut self, need: usize, want: usize, most: usize) -> Vec<u8> {
        let (need, want) = (need.min(most), want.min(most));
        let mut best: Option<(usize, usize)> = None;
        for (i, buffer) in self.buffers.iter().enumerate() {
            let capacity = buffer.capacity();
            if capacity < need || capacity > most {
                continue;
            }
            // The smallest that has what is wanted, else the largest.
            let better = match best {
                None => true,
                Some((_, best)) if best >= want => capacity >= want && capacity < best,
                Some((_, best)) => capacity > best,
            };
            if better {
                best = Some((i, capacity));
            }
        }
        match best {
            Some((i, capacity)) => {
                self.bytes -= capacity;
                self.buffers.swap_remove(i)
            }
            None => Vec::with_capacity(want.max(need)),
        }
    }

    /// An empty buffer for something about as large as `want`, as large as there is one.
    pub fn take_large(&mut self, want: usize) -> Vec<u8> {
        self.take(0, want.clamp(SHORT_BYTES, 64 * 1024), usize::MAX)
    }

    /// An empty buffer for something about as large as `want` that lasts no longer than a turn, which may have thousands of them:
    /// short ones lie close to each other, and so in the cache.
    pub fn take_brief(&mut self, want: usize) -> Vec<u8> {
        if want < SHORT_BYTES { Vec::with_capacity(want) } else { self.take_large(want) }
    }

    pub(super) fn take_partial(&mut self) -> Box<Partial> {
        self.partials.pop().unwrap_or_default()
    }

    pub(super) fn give_partial(&mut self, partial: Option<Box<Partial>>) {
        if let Some(partial) = partial
            && self.partials.len() < PARTIALS
        {
            self.partials.push(partial);
        }
    }
}
