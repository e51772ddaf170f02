//! A ring with provided buffers, as bare as it goes: one thread, completions on demand, sends that never wait.

use std::{
    io,
    os::fd::RawFd,
    ptr::{self, NonNull},
    sync::atomic::{AtomicU16, Ordering},
};

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

const ENTRIES: u32 = 4096;
const COMPLETIONS: u32 = 16_384;
/// How many buffers; a power of two.
const BUFFERS: u16 = 1024;

/// What a completion belongs to: the upper half of its user data, the descriptor is the lower one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Accept = 1,
    Receive,
    /// Only where it failed or fell short.
    Send,
    Close,
}

/// What became of an operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Completion {
    pub(crate) operation: Option<Operation>,
    pub(crate) fd: RawFd,
    pub(crate) result: i32,
    pub(crate) buffer: Option<u16>,
    /// The operation goes on.
    pub(crate) has_more: bool,
}

/// The ring and its buffers.
pub(crate) struct Ring {
    ring: IoUring,
    queue: Vec<squeue::Entry>,
    entries: NonNull<types::BufRingEntry>,
    buffers: NonNull<u8>,
    buffer_len: usize,
    tail: u16,
}

impl Ring {
    /// A ring whose receive buffers have this length.
    pub(crate) fn new(buffer_len: usize) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_cqsize(COMPLETIONS)
            .setup_submit_all()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build(ENTRIES)?;
        let entries = map(usize::from(BUFFERS) * size_of::<types::BufRingEntry>())?.cast();
        let buffers = map(usize::from(BUFFERS) * buffer_len)?;
        // SAFETY: the mapping has this many entries, is aligned to a page, and is never unmapped.
        unsafe { ring.submitter().register_buf_ring_with_flags(entries.as_ptr() as u64, BUFFERS, 0, 0) }?;
        let mut ring = Self { ring, queue: Vec::new(), entries, buffers, buffer_len, tail: 0 };
        (0..BUFFERS).for_each(|buffer| ring.give_back(buffer));
        ring.publish();
        Ok(ring)
    }

    pub(crate) fn accept(&mut self, listener: RawFd) {
        let accept = opcode::AcceptMulti::new(types::Fd(listener)).flags(libc::SOCK_CLOEXEC);
        self.queue.push(accept.build().user_data(user_data(Operation::Accept, listener)));
    }

    pub(crate) fn receive(&mut self, fd: RawFd) {
        let receive = opcode::RecvMulti::new(types::Fd(fd), 0).build();
        self.queue.push(receive.user_data(user_data(Operation::Receive, fd)));
    }

    pub(crate) fn close(&mut self, fd: RawFd) {
        let close = opcode::Close::new(types::Fd(fd)).build();
        self.queue.push(close.user_data(user_data(Operation::Close, fd)));
    }

    /// Sends within the next [`Ring::wait`], without waiting for room. The bytes must stay where they are until then.
    pub(crate) fn send(&mut self, fd: RawFd, bytes: &[u8]) {
        let flags = libc::MSG_WAITALL | libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        let send = opcode::Send::new(types::Fd(fd), bytes.as_ptr(), bytes.len() as u32).flags(flags).build();
        let send = send.flags(squeue::Flags::SKIP_SUCCESS);
        self.queue.push(send.user_data(user_data(Operation::Send, fd)));
    }

    /// Sends what a buffer holds; it may be given back after the next [`Ring::wait`].
    pub(crate) fn send_buffer(&mut self, fd: RawFd, buffer: u16, len: usize) {
        let bytes = ptr::from_mut(self.bytes(buffer, len));
        // SAFETY: buffers are never unmapped, and this one is not the kernel's until it is given back.
        let bytes = unsafe { &*bytes };
        self.send(fd, bytes);
    }

    /// Submits all, waits for a completion, and takes those that there are.
    pub(crate) fn wait(&mut self, completions: &mut Vec<Completion>) -> io::Result<()> {
        for entry in self.queue.drain(..) {
            loop {
                // SAFETY: a send's bytes stay until this function has submitted it (`send`), and it does not wait;
                // other entries have none.
                if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                    break;
                }
                self.ring.submit()?;
            }
        }
        match self.ring.submit_and_wait(1) {
            Ok(_) => {}
            Err(error) if [Some(libc::EINTR), Some(libc::EBUSY)].contains(&error.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
        completions.extend(self.ring.completion().map(|entry| Completion {
            operation: operation(entry.user_data()),
            fd: entry.user_data() as u32 as RawFd,
            result: entry.result(),
            buffer: cqueue::buffer_select(entry.flags()),
            has_more: cqueue::more(entry.flags()),
        }));
        Ok(())
    }

    /// The bytes of a buffer that a completion has handed over.
    pub(crate) fn bytes(&mut self, buffer: u16, len: usize) -> &mut [u8] {
        assert!(buffer < BUFFERS && len <= self.buffer_len, "a completion tells of a buffer that there is");
        // SAFETY: within the mapping, by the assertion.
        let start = unsafe { self.buffers.add(usize::from(buffer) * self.buffer_len) };
        // SAFETY: the kernel has filled these bytes, and leaves them alone until the buffer is given back.
        unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), len) }
    }

    /// Gives a buffer back to the kernel, with the next [`Ring::publish`].
    pub(crate) fn give_back(&mut self, buffer: u16) {
        assert!(buffer < BUFFERS, "a buffer that there is");
        // SAFETY: within the mapping.
        let address = unsafe { self.buffers.add(usize::from(buffer) * self.buffer_len) };
        // SAFETY: within the mapping, as its length is a power of two.
        let mut entry = unsafe { self.entries.add(usize::from(self.tail & (BUFFERS - 1))) };
        // SAFETY: the kernel does not read the entry before the tail is moved over it.
        let entry = unsafe { entry.as_mut() };
        entry.set_addr(address.as_ptr() as u64);
        entry.set_len(self.buffer_len as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
    }

    pub(crate) fn publish(&mut self) {
        // SAFETY: the mapping begins with the ring's tail.
        let tail = unsafe { types::BufRingEntry::tail(self.entries.as_ptr()) };
        // SAFETY: it is aligned, and the kernel only reads it.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

fn user_data(operation: Operation, fd: RawFd) -> u64 {
    (operation as u64) << 32 | u64::from(fd as u32)
}

fn operation(user_data: u64) -> Option<Operation> {
    let all = [Operation::Accept, Operation::Receive, Operation::Send, Operation::Close];
    all.get((user_data >> 32) as usize - 1).copied()
}

/// Anonymous memory that stays for ever.
fn map(len: usize) -> io::Result<NonNull<u8>> {
    let flags = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping of the kernel's choice touches no other memory.
    let start = unsafe { mmap_anonymous(ptr::null_mut(), len, flags, MapFlags::PRIVATE) }?;
    Ok(NonNull::new(start.cast()).expect("a mapping is not at null"))
}
