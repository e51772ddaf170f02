//! The end of a backend, and of a turn that goes wrong.

use std::os::fd::OwnedFd;

use io_uring::{opcode, types};

use super::{
    Uring,
    completion::{Operation, user_data},
    ring::{Wait, silent},
};
use crate::{Event, Sends};

impl Drop for Uring {
    fn drop(&mut self) {
        if self.quiesce() {
            // SAFETY: nothing is in flight, and this was the last that was submitted.
            unsafe { self.provided.unmap() };
        }
    }
}

impl Uring {
    /// Ends everything that is armed; `false` where something may still be.
    pub(super) fn quiesce(&mut self) -> bool {
        const PASSES_MAX: u32 = 10_000;
        if self.is_broken {
            return false;
        }
        let all = opcode::AsyncCancel2::new(types::CancelBuilder::any()).build();
        let entry = silent(all).user_data(user_data(Operation::Ignored, 0));
        let mut events = Vec::new();
        for pass in 0..PASSES_MAX {
            // Once would do, were it not for operations that the kernel has in hand just then.
            if pass % 100 == 0 {
                // SAFETY: it names no memory.
                unsafe { self.queue(&entry) };
            }
            let polled = self.enter(Wait::Poll);
            let completed = self.complete(&NoSends, None, &mut events, &mut Vec::new());
            if polled.is_err() || completed.is_err() {
                return false;
            }
            for event in events.drain(..) {
                if let Event::Received { buffer, .. } = event {
                    self.provided.give(buffer);
                }
            }
            if self.in_flight == 0 && self.ring.is_submitted() {
                return true;
            }
            if pass > 100 {
                std::thread::yield_now();
            }
        }
        false
    }
}

/// A turn under way. Dropped, and not forgotten, by an error or a panic in [`Sends`]: then entries are left that
/// must not be submitted.
pub(super) struct Turn<'a>(pub(super) &'a mut Uring);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.is_broken = true;
    }
}

/// No sends at all.
pub(super) struct NoSends;

impl Sends<OwnedFd> for NoSends {
    fn len(&self) -> usize {
        0
    }

    fn socket(&self, _: usize) -> &OwnedFd {
        unreachable!("there are none")
    }

    fn pieces(&self, _: usize) -> impl Iterator<Item = &[u8]> {
        std::iter::empty()
    }
}
