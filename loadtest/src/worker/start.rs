//! How a worker comes to its thread.

use std::{
    io,
    sync::{Arc, mpsc::Sender},
    thread,
};

use tidegate_io::{Epoll, EpollOptions, Kind, Uring, UringOptions, choose};

use super::Worker;
use crate::{
    link::{Failure, Note, Orders, What},
    plan::Plan,
    switchboard::Switchboard,
};

/// Receive buffers of a worker: they are only lent while their bytes are read.
const BUFFERS: u32 = 512;

/// How to talk to the kernel.
///
/// # Errors
/// Where what was asked for does not work here.
pub(crate) fn choose_backend(plan: &Plan) -> Result<Kind, Failure> {
    Ok(choose(plan.io).map_err(|refused| Failure(refused.to_string()))?.kind)
}

/// Starts a worker on a thread of its own.
///
/// # Errors
/// Where the system refuses.
pub(crate) fn start_worker(
    kind: Kind,
    index: usize,
    plan: &Arc<Plan>,
    notes: &Sender<Note>,
    switchboard: &Arc<Switchboard>,
    epoch_ns: u64,
) -> Result<(), Failure> {
    let (plan, notes, board) = (Arc::clone(plan), notes.clone(), Arc::clone(switchboard));
    let work = move || {
        let (tell, orders) = (notes.clone(), Orders::default());
        let _alarm = Alarm { worker: index, notes: notes.clone() };
        let result = match kind {
            Kind::Uring => Uring::new(&UringOptions { buffers: BUFFERS, ..UringOptions::default() })
                .and_then(|uring| Worker::new(index, plan, uring, orders, notes, board, epoch_ns).run()),
            Kind::Epoll => Epoll::new(&EpollOptions { buffers: BUFFERS })
                .and_then(|epoll| Worker::new(index, plan, epoll, orders, notes, board, epoch_ns).run()),
        };
        if let Err(error) = result {
            let failure = Failure(format!("{kind}: {error}"));
            // The director has ended: there is nobody to tell.
            let _ = tell.send(Note { worker: index, what: What::Failed(failure) });
        }
    };
    thread::Builder::new()
        .name(format!("load-{index}"))
        .spawn(work)
        .map_err(failed("cannot start a thread"))?;
    Ok(())
}

/// Tells of a thread that panics: without it all others would be waited for, for ever.
struct Alarm {
    worker: usize,
    notes: Sender<Note>,
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if thread::panicking() {
            let what = What::Failed(Failure(format!("thread {} has panicked", self.worker)));
            // The director has ended: there is nobody to tell.
            let _ = self.notes.send(Note { worker: self.worker, what });
        }
    }
}

/// A failure of the system, in words.
pub(crate) fn failed(what: &str) -> impl Fn(io::Error) -> Failure {
    move |error| Failure(format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_thread_that_panics_is_told_of() {
        let (sender, notes) = mpsc::channel();
        for panics in [false, true] {
            let alarm = Alarm { worker: 3, notes: sender.clone() };
            let work = move || {
                let _alarm = alarm;
                assert!(!panics, "on purpose");
            };
            assert_eq!(thread::spawn(work).join().is_err(), panics);
        }
        let note = notes.try_recv().unwrap();
        assert!(note.worker == 3 && matches!(note.what, What::Failed(_)) && notes.try_recv().is_err());
    }
}
