//! Receive buffers that the kernel picks from: a ring of them, registered as group 0.
//!
//! The kernel takes buffers in the order in which they were offered. Were all of them offered, each message would
//! land in the one that was used longest ago, which no cache knows any more. So only a window of them is on offer,
//! the rest lies on a stack; the window grows where it was too small, and shrinks again with time.
//!
//! Invariant: a slot is with the kernel exactly while its owner says so. A completion that names any other slot
//! is not believed.

use std::{
    io,
    mem::ManuallyDrop,
    ptr::NonNull,
    sync::atomic::{AtomicU16, Ordering},
};

use io_uring::types::BufRingEntry;

use super::{gathering::MOST, ring::Ring};
use crate::{
    BUFFER_BYTES, Buffer, Lent,
    buffer::{Slots, map, unmap},
};

/// The kernel's limit on the entries of a buffer ring.
const ENTRIES_MAX: u32 = 1 << 15;
/// The group that receives pick their buffers from.
pub(super) const GROUP: u16 = 0;
/// The window at first and at least: what a turn brings at most, in two passes of the kernel, unless peers flood.
const WINDOW_MIN: u32 = 2 * MOST;
/// Turns after which a window that was never empty is halved.
const WINDOW_TURNS: u32 = 4096;

/// The buffers of one ring.
pub(super) struct Provided {
    slots: ManuallyDrop<Slots>,
    /// One for each slot.
    owners: Vec<Owner>,
    lent: u32,
    /// Slots that are neither lent nor on offer; the last one is offered next.
    spare: Vec<u16>,
    /// Slots that the kernel has, and how many it is to have.
    offered: u32,
    window: u32,
    /// Since the window was last altered.
    turns: u32,
    entries: ManuallyDrop<Entries>,
    /// Entries written so far; the kernel sees them at the next [`Provided::publish`].
    tail: u16,
    published: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Pool,
    Kernel,
    Caller,
}

impl Provided {
    /// Makes `count` buffers and hands them to the kernel.
    pub(super) fn new(ring: &Ring, count: u32) -> io::Result<Self> {
        if count > ENTRIES_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let slots = Slots::new(count, BUFFER_BYTES)?;
        let entries = Entries::new(count.next_power_of_two() as u16)?;
        entries.register(ring)?;
        let mut provided = Self {
            slots: ManuallyDrop::new(slots),
            owners: vec![Owner::Pool; count as usize],
            lent: 0,
            spare: (0..count).rev().map(|index| index as u16).collect(),
            offered: 0,
            window: WINDOW_MIN.min(count),
            turns: 0,
            entries: ManuallyDrop::new(entries),
            tail: 0,
            published: 0,
        };
        provided.publish();
        Ok(provided)
    }

    /// The buffer that a completion names, `filled` bytes of it; `None` where the kernel cannot have filled that.
    pub(super) fn take(&mut self, id: u16, filled: usize) -> Option<Buffer> {
        let owner = self.owners.get_mut(usize::from(id))?;
        if *owner != Owner::Kernel || filled > self.slots.size() {
            return None;
        }
        *owner = Owner::Caller;
        self.offered -= 1;
        self.lent += 1;
        // SAFETY: the kernel had the slot and has given it up with this completion; no buffer has it, by `owner`.
        Some(unsafe { self.slots.lend(u32::from(id), filled) })
    }

    /// Takes a buffer back, for the kernel to fill again.
    pub(super) fn give(&mut self, buffer: Buffer) {
        let index = self.slots.index(&buffer).expect("a buffer goes back to the backend that lent it");
        self.owners[index as usize] = Owner::Pool;
        self.lent -= 1;
        self.spare.push(index as u16);
    }

    /// Fills the window up, and lets the kernel see it. To be called before each enter.
    pub(super) fn publish(&mut self) {
        self.turns += 1;
        if self.turns == WINDOW_TURNS {
            self.turns = 0;
            self.window = (self.window / 2).max(WINDOW_MIN.min(self.slots.count()));
        }
        while self.offered < self.window
            && let Some(index) = self.spare.pop()
        {
            self.offer(index);
        }
        if self.published != self.tail {
            self.entries.publish(self.tail);
            self.published = self.tail;
        }
    }

    /// The kernel has found no buffer. Whether there is indeed none: else it will find more from the next enter on.
    pub(super) fn ran_out(&mut self) -> bool {
        if self.spare.is_empty() {
            return true;
        }
        // Once between two enters, however many receives have met this.
        if self.turns > 0 {
            self.turns = 0;
            self.window = (self.window * 2).min(self.slots.count());
        }
        false
    }

    pub(super) fn lent(&self) -> Lent {
        Lent { total: self.slots.count(), lent: self.lent }
    }

    /// Removes the mappings, except for one that somebody may still use.
    ///
    /// # Safety
    /// No receive may be in flight, and none be submitted any more.
    pub(super) unsafe fn unmap(&mut self) {
        // SAFETY: not used after this; by the caller's promise the kernel does not read entries any more.
        unsafe { ManuallyDrop::drop(&mut self.entries) };
        if self.lent == 0 {
            // SAFETY: not used after this; no buffer is out, and the kernel fills none any more.
            unsafe { ManuallyDrop::drop(&mut self.slots) };
        }
    }

    fn offer(&mut self, index: u16) {
        let address = self.slots.address(u32::from(index));
        self.entries.write(self.tail, address, self.slots.size() as u32, index);
        self.tail = self.tail.wrapping_add(1);
        self.owners[usize::from(index)] = Owner::Kernel;
        self.offered += 1;
    }
}

/// The memory of the buffer ring. Dropping it unmaps it.
struct Entries {
    base: NonNull<BufRingEntry>,
    /// A power of two.
    count: u16,
}

impl Entries {
    fn new(count: u16) -> io::Result<Self> {
        let base = map(usize::from(count) * size_of::<BufRingEntry>())?;
        Ok(Self { base: base.cast(), count })
    }

    fn register(&self, ring: &Ring) -> io::Result<()> {
        let address = self.base.as_ptr().addr() as u64;
        // SAFETY: `count` entries are mapped there, zeroed, and stay until no receive is in flight.
        let result = unsafe { ring.submitter().register_buf_ring_with_flags(address, self.count, GROUP, 0) };
        match result {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                self.register_with_reserved_word(ring)
            }
            result => result,
        }
    }

    /// Some 6.8 kernels of Ubuntu refuse a buffer ring unless the first reserved word is not zero.
    fn register_with_reserved_word(&self, ring: &Ring) -> io::Result<()> {
        const IORING_REGISTER_PBUF_RING: libc::c_uint = 22;
        /// `struct io_uring_buf_reg`.
        #[repr(C)]
        struct Registration {
            address: u64,
            entries: u32,
            group: u16,
            flags: u16,
            reserved: [u64; 3],
        }
        let registration = Registration {
            address: self.base.as_ptr().addr() as u64,
            entries: u32::from(self.count),
            group: GROUP,
            flags: 0,
            reserved: [1, 0, 0],
        };
        let ring = ring.descriptor();
        // SAFETY: `registration` has the layout that the kernel reads, and outlives the call; what it names is
        // mapped, zeroed, and stays until no receive is in flight.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_uring_register,
                ring,
                IORING_REGISTER_PBUF_RING,
                &raw const registration,
                1,
            )
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Writes the entry that becomes visible when the tail passes `position`.
    fn write(&mut self, position: u16, address: NonNull<u8>, length: u32, id: u16) {
        let index = usize::from(position & (self.count - 1));
        // SAFETY: `index < count`, inside the mapping.
        let mut entry = unsafe { self.base.add(index) };
        // SAFETY: the kernel does not read entries from its tail on, and there are as many entries as buffers, so
        // this one's buffer was taken. The first entry's last field is the tail, which the setters do not touch.
        let entry = unsafe { entry.as_mut() };
        entry.set_addr(address.as_ptr().addr() as u64);
        entry.set_len(length);
        entry.set_bid(id);
    }

    fn publish(&self, tail: u16) {
        // SAFETY: the first entry is mapped; this only computes the address of its last field.
        let address = unsafe { BufRingEntry::tail(self.base.as_ptr()) };
        // SAFETY: aligned, mapped, and only read by the kernel; all of this side's accesses are atomic.
        let shared = unsafe { AtomicU16::from_ptr(address.cast_mut()) };
        shared.store(tail, Ordering::Release);
    }
}

impl Drop for Entries {
    fn drop(&mut self) {
        let bytes = usize::from(self.count) * size_of::<BufRingEntry>();
        // SAFETY: mapped with this length; whoever drops this says that the kernel does not read it any more.
        unsafe { unmap(self.base.cast(), bytes) };
    }
}
