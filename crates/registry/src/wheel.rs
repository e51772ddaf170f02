//! Deadlines: one for each slot, all operations in constant time.
//!
//! A hashed wheel (Varghese, Lauck 1987, scheme 6): 4096 slots of 16 ms, so a round takes 65.5 s. A deadline further
//! away stays in its slot and is passed over once a round. Against a hierarchy this never moves an entry, so
//! there is no moment when a second's worth of a million deadlines cascades at once.
//!
//! Invariant: an entry lies in slot `max(tick of its deadline, cursor when it was scheduled) % SLOTS`, or in the one behind
//! the cursor's where that was half done, and no tick before `cursor` has a due entry. So a slot that is half done gets no
//! more due entries, and is done some time, whatever is scheduled meanwhile.

/// The wheel's resolution in milliseconds: a deadline is due up to this much late, and never early.
pub const TICK_MS: u64 = 16;

/// The most entries that one [`Wheel::expire`] yields, so that a stall or a jump of the clock does not turn into one
/// endless turn.
pub const BATCH: usize = 1024;

/// Bytes that an entry takes.
pub(crate) const NODE_BYTES: usize = size_of::<Node>();

const SLOTS: u64 = 4096;
const WORDS: usize = SLOTS as usize / 64;

/// No entry.
const NONE: u32 = u32::MAX;
/// In `prev`: the entry is the first of the slot in the lower bits.
const FIRST: u32 = 1 << 31;
/// In `prev`: the entry is in no list.
const UNSCHEDULED: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Node {
    deadline_ms: u64,
    next: u32,
    prev: u32,
}

const IDLE: Node = Node { deadline_ms: 0, next: NONE, prev: UNSCHEDULED };

/// One deadline for each index, in milliseconds of the caller's monotonic clock.
///
/// Each index costs 16 bytes, from the first time that it, or one above it, is scheduled.
#[derive(Debug)]
pub struct Wheel {
    nodes: Vec<Node>,
    /// The first entry of each slot.
    heads: Box<[u32]>,
    /// A bit for each slot that has entries, and one for each word of those that is not zero.
    occupied: [u64; WORDS],
    summary: u64,
    /// The next tick to be looked at.
    cursor: u64,
    /// It was looked at in part: the rest did not fit into a batch.
    is_half_done: bool,
    len: usize,
}

impl Wheel {
    /// An empty wheel at `now_ms`, with `capacity` indices reserved: above that it grows by copying.
    #[must_use]
    pub fn new(now_ms: u64, capacity: u32) -> Self {
        Self {
            nodes: Vec::with_capacity(capacity as usize),
            heads: vec![NONE; SLOTS as usize].into_boxed_slice(),
            occupied: [0; WORDS],
            summary: 0,
            cursor: now_ms / TICK_MS,
            is_half_done: false,
            len: 0,
        }
    }

    /// How many deadlines there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The deadline of an index, as it was scheduled.
    #[must_use]
    pub fn deadline(&self, index: u32) -> Option<u64> {
        let node = self.nodes.get(index as usize)?;
        (node.prev != UNSCHEDULED).then_some(node.deadline_ms)
    }

    /// When [`Wheel::expire`] should be called next: never after a deadline's tick, now and then before (an entry
    /// further than a round away).
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        self.next_occupied().map(|tick| tick.saturating_mul(TICK_MS))
    }

    /// Sets the deadline of an index, in place of the one it had. One that has passed is due with the next tick.
    ///
    /// # Panics
    /// If `index` is 2³¹ or more.
    pub fn schedule(&mut self, index: u32, deadline_ms: u64) {
        assert!(index < FIRST, "an index of the registry");
        self.cancel(index);
        let at = index as usize;
        if at >= self.nodes.len() {
            self.nodes.resize(at + 1, IDLE);
        }
        // Whoever schedules what is due already, again and again, does not keep the cursor from what comes later.
        let first = self.cursor + u64::from(self.is_half_done);
        let slot = (deadline_ms.div_ceil(TICK_MS).max(first) % SLOTS) as u32;
        let next = self.heads[slot as usize];
        self.nodes[at] = Node { deadline_ms, next, prev: FIRST | slot };
        if next == NONE {
            self.mark(slot);
        } else {
            self.nodes[next as usize].prev = index;
        }
        self.heads[slot as usize] = index;
        self.len += 1;
    }

    /// Takes the deadline of an index away, if it has one.
    pub fn cancel(&mut self, index: u32) {
        let Some(node) = self.nodes.get_mut(index as usize) else { return };
        let Node { next, prev, .. } = *node;
        if prev == UNSCHEDULED {
            return;
        }
        *node = IDLE;
        self.len -= 1;
        if next != NONE {
            self.nodes[next as usize].prev = prev;
        }
        if prev & FIRST == 0 {
            self.nodes[prev as usize].next = next;
            return;
        }
        let slot = prev & !FIRST;
        self.heads[slot as usize] = next;
        if next == NONE {
            self.unmark(slot);
        }
    }

    /// Appends the indices that are due at `now_ms`, tick by tick (after a stall of more than a round: in any
    /// order), at most [`BATCH`] of them, and takes their deadlines away. Where more are due,
    /// [`Wheel::next_deadline`] lies in the past.
    ///
    /// A clock that goes back is waited for.
    pub fn expire(&mut self, now_ms: u64, due: &mut Vec<u32>) {
        let today = now_ms / TICK_MS;
        // One round passes every slot; a longer stall needs no second one.
        let last = today.min(self.cursor.saturating_add(SLOTS - 1));
        let mut room = BATCH;
        self.is_half_done = false;
        while self.cursor <= today {
            let Some(tick) = self.next_occupied().filter(|&tick| tick <= last) else {
                self.cursor = today.saturating_add(1);
                return;
            };
            self.cursor = tick;
            let mut entry = self.heads[(tick % SLOTS) as usize];
            while entry != NONE {
                let Node { deadline_ms, next, .. } = self.nodes[entry as usize];
                if deadline_ms.div_ceil(TICK_MS) <= today {
                    if room == 0 {
                        self.is_half_done = true;
                        return;
                    }
                    room -= 1;
                    self.cancel(entry);
                    due.push(entry);
                }
                entry = next;
            }
            self.cursor = tick + 1;
        }
    }

    /// The first tick from the cursor on whose slot has entries.
    fn next_occupied(&self) -> Option<u64> {
        let start = self.cursor % SLOTS;
        let (word, bit) = ((start / 64) as usize, start % 64);
        let here = self.occupied[word] >> bit << bit;
        let slot = if here != 0 {
            word as u64 * 64 + u64::from(here.trailing_zeros())
        } else {
            // The words after this one, else round from the first; this one's lower bits come last of all.
            let later = self.summary.checked_shr(word as u32 + 1).unwrap_or(0);
            let word = if later != 0 {
                word as u32 + 1 + later.trailing_zeros()
            } else {
                self.summary.trailing_zeros()
            };
            let bits = self.occupied.get(word as usize)?;
            u64::from(word) * 64 + u64::from(bits.trailing_zeros())
        };
        Some(self.cursor + (slot + SLOTS - start) % SLOTS)
    }

    fn mark(&mut self, slot: u32) {
        let word = slot / 64;
        self.occupied[word as usize] |= 1 << (slot % 64);
        self.summary |= 1 << word;
    }

    fn unmark(&mut self, slot: u32) {
        let word = slot / 64;
        self.occupied[word as usize] &= !(1 << (slot % 64));
        if self.occupied[word as usize] == 0 {
            self.summary &= !(1 << word);
        }
    }
}
