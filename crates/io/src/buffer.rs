//! Receive buffers: slots of one anonymous mapping, lent out one by one.
//!
//! Invariant: at any time a slot belongs to exactly one of its pool, the kernel, or one [`Buffer`]; a mapping
//! is only removed while no slot is out.

use std::{
    fmt, io,
    mem::ManuallyDrop,
    ops::{Deref, DerefMut},
    ptr::{self, NonNull},
    slice,
};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use crate::Lent;

/// Bytes in a receive buffer: a 16 KiB message with its frame header, and a whole TLS record (16,645 bytes at
/// most), fit. 273 cache lines: an odd number, because the starts of power-of-two sized buffers would all fall
/// into the same sets of the first-level cache.
pub const BUFFER_BYTES: usize = 17_472;

/// A lent receive buffer: exclusive access to one slot of a pool, of which the first `len` bytes are filled.
///
/// To be given back with [`Backend::recycle`](crate::Backend::recycle) (or [`Pool::give`]). Dropping it instead
/// loses the slot until the pool is dropped, nothing worse; it then stays counted as lent.
#[must_use = "a buffer that is dropped is lost to its pool"]
pub struct Buffer {
    /// A slot's first byte; `capacity` bytes from there are initialised and ours alone. Not `Send`, by this type.
    start: NonNull<u8>,
    /// `<= capacity`.
    filled: u32,
    capacity: u32,
}

impl Buffer {
    /// Copies as much of `bytes` in as fits, in place of what was there, and returns how much that was.
    pub fn fill(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.capacity());
        self.space()[..count].copy_from_slice(&bytes[..count]);
        self.set_filled(count);
        count
    }

    /// The most bytes that it can hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity as usize
    }

    /// All of the slot, filled or not.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        // SAFETY: `capacity` bytes from `start` are initialised, and ours alone while this buffer exists.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.capacity()) }
    }

    /// Says how many bytes of the slot are filled.
    pub(crate) fn set_filled(&mut self, filled: usize) {
        assert!(filled <= self.capacity(), "filled past the buffer's end");
        self.filled = filled as u32;
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `filled <= capacity`; the slot is initialised, and ours alone while this buffer exists.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.filled as usize) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        let filled = self.filled as usize;
        &mut self.space()[..filled]
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Buffer({} of {} bytes)", self.filled, self.capacity)
    }
}

/// Receive buffers that are lent last in, first out, so that the cache still knows the next one.
///
/// ```
/// let mut pool = tidegate_io::Pool::new(2, tidegate_io::BUFFER_BYTES)?;
/// let mut buffer = pool.take().expect("both are free");
/// assert_eq!(buffer.fill(b"hello"), 5);
/// assert_eq!(&buffer[1..], b"ello");
/// pool.give(buffer);
/// assert_eq!(pool.lent().lent, 0);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Pool {
    slots: ManuallyDrop<Slots>,
    /// The slots that are with the pool; the last one is lent next.
    free: Vec<u32>,
}

impl Pool {
    /// `count` buffers of `size` bytes. Their memory is only used once it is written to.
    ///
    /// # Errors
    /// `InvalidInput` for none, for empty ones and past what can be addressed; else what `mmap` says.
    pub fn new(count: u32, size: usize) -> io::Result<Self> {
        let slots = ManuallyDrop::new(Slots::new(count, size)?);
        Ok(Self { slots, free: (0..count).rev().collect() })
    }

    /// Lends an empty buffer; `None` where all are lent.
    pub fn take(&mut self) -> Option<Buffer> {
        let index = self.free.pop()?;
        // SAFETY: `index` was free, so no buffer has this slot, and it has just left the free list.
        Some(unsafe { self.slots.lend(index, 0) })
    }

    /// Takes a buffer back.
    ///
    /// # Panics
    /// Where it came from another pool.
    pub fn give(&mut self, buffer: Buffer) {
        let index = self.slots.index(&buffer).expect("a buffer goes back to the pool that lent it");
        self.free.push(index);
    }

    /// How many buffers there are, and how many of them are lent (or lost).
    #[must_use]
    pub fn lent(&self) -> Lent {
        let total = self.slots.count();
        Lent { total, lent: total - self.free.len() as u32 }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if self.lent().lent == 0 {
            // SAFETY: `slots` is not used after this, and no buffer points into it.
            unsafe { ManuallyDrop::drop(&mut self.slots) }
        }
    }
}

/// The mapping behind the buffers: equal slots, end to end. Dropping it unmaps them.
#[derive(Debug)]
pub(crate) struct Slots {
    base: NonNull<u8>,
    count: u32,
    /// Bytes of one slot; fits in 32 bits.
    size: usize,
}

impl Slots {
    /// Reserves `count` slots of `size` bytes.
    pub(crate) fn new(count: u32, size: usize) -> io::Result<Self> {
        let bytes = size.checked_mul(count as usize);
        let Some(bytes) = bytes.filter(|&bytes| bytes > 0 && isize::try_from(bytes).is_ok()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        if u32::try_from(size).is_err() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let base = map(bytes)?;
        Ok(Self { base, count, size })
    }

    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// The first byte of slot `index`.
    pub(crate) fn address(&self, index: u32) -> NonNull<u8> {
        assert!(index < self.count, "slot {index} of {}", self.count);
        // SAFETY: below `count * size`, which is inside the mapping and below `isize::MAX`.
        unsafe { self.base.add(index as usize * self.size) }
    }

    /// Hands slot `index` out with `filled` bytes in it.
    ///
    /// # Safety
    /// Nobody else, neither another buffer nor the kernel, may use that slot until [`Slots::index`] of this very
    /// buffer was taken and the buffer is gone; the mapping must stay as long.
    pub(crate) unsafe fn lend(&self, index: u32, filled: usize) -> Buffer {
        let mut buffer = Buffer { start: self.address(index), filled: 0, capacity: self.size as u32 };
        buffer.set_filled(filled);
        buffer
    }

    /// Which slot a buffer is; `None` where it is not one of these. Addresses tell: a mapping with a buffer out
    /// is never removed, so no two pools ever meant the same address.
    pub(crate) fn index(&self, buffer: &Buffer) -> Option<u32> {
        let offset = buffer.start.as_ptr().addr().checked_sub(self.base.as_ptr().addr())?;
        let index = u32::try_from(offset / self.size).ok()?;
        (index < self.count).then_some(index)
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        // SAFETY: mapped with this length; whoever drops this says that no slot is in use.
        unsafe { unmap(self.base, self.size * self.count as usize) }
    }
}

/// `bytes` zeroed bytes of private memory, page aligned.
pub(crate) fn map(bytes: usize) -> io::Result<NonNull<u8>> {
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing that exists.
    let base = unsafe { mmap_anonymous(ptr::null_mut(), bytes, protection, MapFlags::PRIVATE) }?;
    NonNull::new(base.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

/// Removes what [`map`] made.
///
/// # Safety
/// `base` and `bytes` must be what `map` returned and was given, and nothing may use the memory any more.
pub(crate) unsafe fn unmap(base: NonNull<u8>, bytes: usize) {
    // SAFETY: the caller's promise. It can only fail for an address that is not a mapping's.
    let result = unsafe { munmap(base.as_ptr().cast(), bytes) };
    debug_assert!(result.is_ok(), "munmap: {result:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lends_each_slot_once_and_the_last_given_first() {
        let mut pool = Pool::new(3, 100).unwrap();
        let mut buffers: Vec<Buffer> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!(pool.lent(), Lent { total: 3, lent: 3 });
        for (index, buffer) in buffers.iter_mut().enumerate() {
            assert_eq!(buffer.fill(&[index as u8; 200]), 100);
        }
        for (index, buffer) in buffers.iter().enumerate() {
            assert!(buffer.iter().all(|&byte| byte == index as u8), "slots overlap");
        }
        let last = buffers.remove(1);
        let address = last.as_ptr();
        pool.give(last);
        let again = pool.take().unwrap();
        assert!(again.is_empty(), "a buffer is lent empty");
        assert_eq!(again.as_ptr(), address);
        pool.give(again);
        buffers.into_iter().for_each(|buffer| pool.give(buffer));
        assert_eq!(pool.lent(), Lent { total: 3, lent: 0 });
    }

    #[test]
    fn a_lost_buffer_stays_counted_and_its_memory_valid() {
        let mut pool = Pool::new(2, 4096).unwrap();
        assert!(pool.take().is_some(), "dropped at once");
        let mut kept = pool.take().unwrap();
        assert_eq!(pool.lent().lent, 2);
        assert!(pool.take().is_none());
        drop(pool);
        kept.fill(b"still mapped");
        assert_eq!(&kept[..], b"still mapped");
    }

    #[test]
    #[should_panic(expected = "a buffer goes back to the pool that lent it")]
    fn refuses_another_pools_buffer() {
        let mut one = Pool::new(1, 64).unwrap();
        let mut other = Pool::new(1, 64).unwrap();
        one.give(other.take().unwrap());
    }

    #[test]
    fn refuses_sizes_that_cannot_be() {
        for (count, size) in [(0, 64), (64, 0), (u32::MAX, usize::MAX / 2), (1, u32::MAX as usize + 1)] {
            assert_eq!(Pool::new(count, size).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }
}
