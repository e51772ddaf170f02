//! Where a worker's letters to other workers go.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

use tidegate_io::Waker;

use crate::link::{Command, Orders};

/// The workers of this process, by their index in the run.
#[derive(Default)]
pub(crate) struct Switchboard(Mutex<Vec<Option<(Orders, Waker)>>>);

impl Switchboard {
    /// A worker can be reached from now on.
    pub(crate) fn enter(&self, worker: usize, orders: Orders, waker: Waker) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() <= worker {
            lines.resize_with(worker + 1, || None);
        }
        lines[worker] = Some((orders, waker));
    }

    /// Gives a worker of this process its letters; where it is of another one, gives them back.
    pub(crate) fn send(&self, worker: usize, command: Command) -> Result<(), Command> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match lines.get(worker) {
            Some(Some((orders, waker))) => {
                orders.give(command, waker);
                Ok(())
            }
            Some(None) | None => Err(command),
        }
    }
}

impl fmt::Debug for Switchboard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Switchboard")
    }
}
