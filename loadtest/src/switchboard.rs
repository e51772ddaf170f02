//! How a worker is reached: by the director, and by other workers.

use std::{
    fmt,
    sync::{
        Mutex, PoisonError,
        mpsc::{self, Sender},
    },
};

use tidegate_io::Waker;

use crate::link::{Command, Orders};

enum Line {
    /// A thread of this process.
    Thread(Orders, Waker),
    /// Another process, which has that worker.
    Process(Sender<(usize, Command)>),
}

/// The workers that can be reached from here, by their index in the run.
#[derive(Default)]
pub(crate) struct Switchboard(Mutex<Vec<Option<Line>>>);

impl Switchboard {
    /// A worker of this process can be reached from now on.
    pub(crate) fn enter(&self, worker: usize, orders: Orders, waker: Waker) {
        self.put(worker, Line::Thread(orders, waker));
    }

    /// A worker of another process.
    pub(crate) fn enter_process(&self, worker: usize, orders: Sender<(usize, Command)>) {
        self.put(worker, Line::Process(orders));
    }

    fn put(&self, worker: usize, line: Line) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() <= worker {
            lines.resize_with(worker + 1, || None);
        }
        lines[worker] = Some(line);
    }

    /// Gives a worker a command; where it cannot be reached from here, gives that back.
    pub(crate) fn send(&self, worker: usize, command: Command) -> Result<(), Command> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match lines.get(worker) {
            Some(Some(Line::Thread(orders, waker))) => {
                orders.give(command, waker);
                Ok(())
            }
            Some(Some(Line::Process(orders))) => {
                orders.send((worker, command)).map_err(|mpsc::SendError((_, command))| command)
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
