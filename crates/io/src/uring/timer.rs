//! One timeout in the ring for the caller's deadlines.
//!
//! A deadline usually moves to later with every turn. The timeout is left where it is then: it ends one wait
//! for nothing, and is armed again for what the deadline is by that time. So a turn pays nothing for it.

use std::time::Duration;

use io_uring::{
    opcode,
    squeue::Entry,
    types::{TimeoutFlags, Timespec},
};

use super::{
    completion::{Operation, user_data},
    ring::silent,
};

#[derive(Default)]
pub(super) struct Timer {
    /// When it will fire, on the monotonic clock.
    armed: Option<Duration>,
    /// What the entry points to until it is submitted.
    time: Box<Timespec>,
}

impl Timer {
    /// The entry that makes it fire at `deadline` or earlier, and whether that starts an operation; `None`
    /// where it does so anyway. The entry points into `self`.
    pub(super) fn arm(&mut self, deadline: Duration) -> Option<(Entry, bool)> {
        if self.armed.is_some_and(|armed| armed <= deadline) {
            return None;
        }
        let is_running = self.armed.replace(deadline).is_some();
        *self.time = Timespec::from(deadline);
        let (time, flags) = (&raw const *self.time, TimeoutFlags::ABS);
        let data = user_data(Operation::Timer, 0);
        Some(if is_running {
            // Where it has just fired there is nothing to update, and its completion ends the wait.
            let update = opcode::TimeoutUpdate::new(data, time).flags(flags).build();
            (silent(update).user_data(user_data(Operation::Ignored, 0)), false)
        } else {
            (opcode::Timeout::new(time).flags(flags).build().user_data(data), true)
        })
    }

    /// It has fired: when it was to; `None` where it was not armed.
    pub(super) fn fired(&mut self) -> Option<Duration> {
        self.armed.take()
    }
}
