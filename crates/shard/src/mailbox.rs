//! The one way into a shard from another thread: a bounded queue and a wake-up.

use std::sync::Arc;

use crossbeam_queue::ArrayQueue;
use tidegate_hub::Letter;
use tidegate_io::Wake;
use tidegate_wire::close::CloseCode;

use crate::{
    census::{Census, Ended},
    report::Reply,
};

/// A letter to a shard.
#[derive(Debug)]
pub enum Mail {
    /// Accept no more, send every session a Close with this code, and end when all are gone or at the
    /// sessions' close deadlines.
    Drain(CloseCode),
    /// End now.
    Stop,
    /// Upstream names were resolved: sessions that wait for them go on.
    Resolved,
    /// Copy the numbers to where others read them, and say that it was done.
    Report(Reply<()>),
    /// Some of the sessions are asked for.
    Census(Census),
    /// Some sessions are to end.
    End(Ended),
    /// What the topics of another shard have to say to those of this one, in order.
    Topics {
        /// The other shard.
        from: u16,
        /// A turn's worth.
        letters: Vec<Letter>,
    },
}

/// How many letters may wait.
const CAPACITY: usize = 256;

/// The shard's end.
#[derive(Debug)]
pub struct Mailbox {
    queue: Arc<ArrayQueue<Mail>>,
}

/// The other threads' end.
#[derive(Clone, Debug)]
pub struct Sender<W> {
    queue: Arc<ArrayQueue<Mail>>,
    waker: W,
}

/// A letter came back: its shard's queue is full.
#[derive(Debug)]
pub struct Undelivered(pub Mail);

/// Both ends of a new mailbox; `waker` belongs to the shard's backend.
pub fn mailbox<W: Wake>(waker: W) -> (Sender<W>, Mailbox) {
    mailbox_of(waker, CAPACITY)
}

/// The same with room for so many letters, for tests.
#[doc(hidden)]
pub fn mailbox_of<W: Wake>(waker: W, capacity: usize) -> (Sender<W>, Mailbox) {
    let queue = Arc::new(ArrayQueue::new(capacity));
    (Sender { queue: Arc::clone(&queue), waker }, Mailbox { queue })
}

impl<W: Wake> Sender<W> {
    /// Leaves a letter and wakes the shard up.
    ///
    /// # Errors
    /// Gives the letter back where the queue is full.
    pub fn send(&self, mail: Mail) -> Result<(), Undelivered> {
        let pushed = self.queue.push(mail);
        self.waker.wake();
        pushed.map_err(Undelivered)
    }
}

impl Mailbox {
    /// The oldest letter.
    #[doc(hidden)]
    pub fn take(&self) -> Option<Mail> {
        self.queue.pop()
    }

    /// How many letters wait.
    #[doc(hidden)]
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }
}
