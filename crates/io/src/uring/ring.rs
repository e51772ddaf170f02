//! The two queues shared with the kernel, and entering it.
//!
//! Invariant: the halves of the ring, which know its registered descriptor, never outlive it.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsRawFd, RawFd},
    ptr::NonNull,
};

use io_uring::{
    CompletionQueue, EnterFlags, IoUring, Probe, SubmissionQueue, Submitter, cqueue, opcode,
    squeue::{self, Entry},
    types::SubmitArgs,
};

use super::{UringOptions, gathering::MOMENT_MICROS};

/// Times that an enter may achieve nothing (`EAGAIN`, `EBUSY`) before the ring is given up: the kernel is then
/// out of memory for requests, and has been for a while.
const FRUITLESS_MAX: u32 = 10_000;

/// A ring of the calling thread.
pub(super) struct Ring {
    submitter: Submitter<'static>,
    submissions: SubmissionQueue<'static>,
    completions: CompletionQueue<'static>,
    /// Completions that had to make room, oldest first; they come before those in the queue. Usually none.
    aside: VecDeque<cqueue::Entry>,
    /// Dropped last.
    owner: Owner,
    fruitless: u32,
}

/// Whether the ring is told to run what was deferred, and to wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Submit only: no deferred work is run.
    No,
    /// Run what is there.
    Poll,
    /// Wait until at least one completion is there.
    One,
    /// Wait until so many are there, at most for [`MOMENT_MICROS`]. It may come back with none.
    Many(u32),
}

impl Ring {
    /// Sets a ring up.
    ///
    /// Every flag but `NO_SQARRAY` (Linux 6.6) is needed; `DEFER_TASKRUN` is the newest of them (6.1).
    pub(super) fn new(options: &UringOptions) -> io::Result<Self> {
        let build = |has_array: bool| {
            let mut builder = IoUring::<Entry, cqueue::Entry>::builder();
            builder
                .setup_single_issuer()
                .setup_defer_taskrun()
                .setup_submit_all()
                .setup_clamp()
                .setup_cqsize(options.cq_entries.max(options.sq_entries));
            if !has_array {
                builder.setup_no_sqarray();
            }
            builder.build(options.sq_entries)
        };
        let ring = match build(false) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => build(true)?,
            result => result?,
        };
        let mut owner = Owner(NonNull::from(Box::leak(Box::new(ring))));
        // SAFETY: `owner` keeps the ring in place until it is dropped, which is after the halves that are made
        // of this borrow, and nothing else refers to it.
        let ring: &'static mut IoUring = unsafe { owner.0.as_mut() };
        let (mut submitter, submissions, completions) = ring.split();
        // An enter then need not look the descriptor up (5.18). A limit on them is no reason to do without.
        let _ = submitter.register_ring_fd();
        Ok(Self { submitter, submissions, completions, aside: VecDeque::new(), owner, fruitless: 0 })
    }

    /// Whether the kernel knows [`Wait::Many`] (6.12).
    pub(super) fn can_gather(&self) -> bool {
        self.shared().params().is_feature_min_timeout()
    }

    pub(super) fn descriptor(&self) -> RawFd {
        self.shared().as_raw_fd()
    }

    pub(super) fn submitter(&self) -> &Submitter<'static> {
        &self.submitter
    }

    fn shared(&self) -> &IoUring {
        // SAFETY: the ring lives as long as `self.owner`, and its halves hold only shared borrows of it.
        unsafe { self.owner.0.as_ref() }
    }

    /// Whether nothing waits to be submitted, as of the last [`Ring::enter`] and the pushes since.
    pub(super) fn is_submitted(&self) -> bool {
        self.submissions.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.submissions.is_full()
    }

    /// Queues an operation.
    ///
    /// # Safety
    /// The memory it names must stay valid until the operation has ended, for what the kernel copies at
    /// submission until it was submitted.
    ///
    /// # Panics
    /// Where the queue is full.
    pub(super) unsafe fn push(&mut self, entry: &Entry) {
        // SAFETY: the caller's promise.
        let result = unsafe { self.submissions.push(entry) };
        result.expect("the caller has made room in the submission queue");
    }

    /// Submits what is queued, as much as the kernel takes now: [`Ring::is_submitted`] tells.
    ///
    /// # Errors
    /// Where the ring is of no use any more; `EBADR` means that completions were dropped.
    pub(super) fn enter(&mut self, wait: Wait) -> io::Result<()> {
        self.submissions.sync();
        let queued = self.submissions.len() as u32;
        let result = self.wait(queued, wait);
        self.submissions.sync();
        self.completions.sync();
        match result {
            Ok(_) => self.fruitless = 0,
            Err(error) => match error.raw_os_error() {
                // A signal; or none came in the time that it was to wait for many.
                Some(libc::EINTR | libc::ETIME) => {}
                // No memory for a request, or too many completions wait: the caller takes those and tries again.
                Some(libc::EAGAIN | libc::EBUSY) if self.fruitless < FRUITLESS_MAX => {
                    self.fruitless += 1;
                    std::thread::yield_now();
                }
                _ => return Err(error),
            },
        }
        Ok(())
    }

    /// One `io_uring_enter`.
    fn wait(&self, queued: u32, wait: Wait) -> io::Result<usize> {
        let (want, flags) = match wait {
            Wait::No => (0, EnterFlags::empty()),
            Wait::Poll => (0, EnterFlags::GETEVENTS),
            Wait::One => (1, EnterFlags::GETEVENTS),
            Wait::Many(want) => {
                // No other time-out: with one, kernels of 6.12 and later may go on waiting for all of them
                // (axboe/liburing#1477).
                let arguments = SubmitArgs::new().min_wait_usec(MOMENT_MICROS);
                return self.submitter.submit_with_args(want as usize, &arguments);
            }
        };
        // SAFETY: there is no argument structure; the memory that entries name is in the promise of `push`.
        unsafe { self.submitter.enter::<libc::sigset_t>(queued, want, flags.bits(), None) }
    }

    /// The next completion of those that were there after the last [`Ring::enter`].
    #[inline]
    pub(super) fn completion(&mut self) -> Option<cqueue::Entry> {
        if self.aside.is_empty() { self.completions.next() } else { self.aside.pop_front() }
    }

    /// Empties the completion queue for a kernel that takes no submissions otherwise, at a moment when nobody can
    /// look at completions.
    #[cold]
    pub(super) fn set_aside(&mut self) {
        self.aside.extend(&mut self.completions);
    }

    /// Whether completions are there that the kernel takes for seen.
    pub(super) fn has_set_aside(&self) -> bool {
        !self.aside.is_empty()
    }

    /// Whether the kernel holds completions that found no room: taking some and entering brings them.
    pub(super) fn has_overflown(&self) -> bool {
        self.submissions.cq_overflow()
    }

    /// Operations that the backend needs and this kernel does not know; `Err` where it does not tell.
    pub(super) fn missing_operations(&self) -> io::Result<Vec<&'static str>> {
        let mut probe = Probe::new();
        self.submitter.register_probe(&mut probe)?;
        let needed = [
            ("ACCEPT", opcode::AcceptMulti::CODE),
            ("RECV", opcode::RecvMulti::CODE),
            ("SEND", opcode::Send::CODE),
            ("SENDMSG", opcode::SendMsg::CODE),
            ("POLL_ADD", opcode::PollAdd::CODE),
            ("TIMEOUT", opcode::Timeout::CODE),
            ("TIMEOUT_REMOVE", opcode::TimeoutUpdate::CODE),
            ("ASYNC_CANCEL", opcode::AsyncCancel::CODE),
        ];
        Ok(needed.into_iter().filter(|(_, code)| !probe.is_supported(*code)).map(|(name, _)| name).collect())
    }

    /// Features that the backend needs and this kernel does not have.
    pub(super) fn missing_features(&self) -> Vec<&'static str> {
        let parameters = self.shared().params();
        let needed = [
            ("NODROP", parameters.is_feature_nodrop()),
            ("SUBMIT_STABLE", parameters.is_feature_submit_stable()),
            ("FAST_POLL", parameters.is_feature_fast_poll()),
            ("CQE_SKIP", parameters.is_feature_skip_cqe_on_success()),
        ];
        needed.into_iter().filter(|(_, has)| !has).map(|(name, _)| name).collect()
    }
}

/// The ring itself, at an address that does not change.
struct Owner(NonNull<IoUring>);

impl Drop for Owner {
    fn drop(&mut self) {
        // SAFETY: it came from a box, and the halves are gone: `Ring` drops its fields in order.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// An operation that posts a completion only where it fails.
pub(super) fn silent(entry: Entry) -> Entry {
    entry.flags(squeue::Flags::SKIP_SUCCESS)
}
