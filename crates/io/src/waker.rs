//! Waking a turn up from another thread: an eventfd that is only written to where nobody has yet.
//!
//! Invariant: the eventfd is never read. Each write is an edge, which is all that a multishot poll and an
//! edge-triggered epoll need, and the counter lasts for 2^64 of them.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::event::{EventfdFlags, eventfd};

use crate::Wake;

/// Wakes an [`Epoll`](crate::Epoll) or a [`Uring`](crate::Uring) from any thread.
#[derive(Clone, Debug)]
pub struct Waker(Arc<Bell>);

#[derive(Debug)]
struct Bell {
    /// Between the first wake and the turn that reports it: further wakes have nothing to do.
    rung: AtomicBool,
    eventfd: OwnedFd,
}

impl Waker {
    pub(crate) fn new() -> io::Result<Self> {
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(Bell { rung: AtomicBool::new(false), eventfd })))
    }

    /// Whether it was rung since the last time; from now on a wake writes again.
    ///
    /// What a waking thread did before [`Wake::wake`] is visible after this has said `true`.
    pub(crate) fn take(&self) -> bool {
        self.0.rung.swap(false, Ordering::AcqRel)
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.eventfd.as_fd()
    }
}

impl Wake for Waker {
    fn wake(&self) {
        // Always the exchange, never a load first: it puts this wake in order with `take`, so either that sees
        // what this thread did before, or this sees `false` and rings.
        if !self.0.rung.swap(true, Ordering::AcqRel) {
            // It could only fail with 2^64 wakes on it.
            let _ = rustix::io::write(&self.0.eventfd, &1u64.to_ne_bytes());
        }
    }
}
