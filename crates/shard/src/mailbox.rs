//! The one way into a shard from another thread: letters and a wake-up.
//!
//! Most letters go into a bounded queue, and come back where it is full. Orders (a generation, a departure, the word to stop) go
//! into another one, which always has room and is read first: whatever other shards write, each shard that lives gets all of them,
//! in the order in which they were given. Where one ends sessions, the letters that lie there by then are read before that is done.

use std::{
    fmt,
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

use crossbeam_queue::{ArrayQueue, SegQueue};
use tidegate_hub::Letter;
use tidegate_io::Wake;
use tidegate_tls::ServerConfig;
use tidegate_wire::close::CloseCode;

use crate::{
    census::{Census, Ended},
    identity::Decision,
    leaving::{Pace, Whom},
    plan::Plan,
    report::Reply,
};

/// A letter to a shard.
#[derive(Debug)]
pub enum Mail {
    /// Accept no more, send every session a Close with this code, and end when all are gone or at the
    /// sessions' close deadlines.
    Drain(CloseCode),
    /// Ask sessions to go, each at its own time. Meanwhile and behind it a route answers 503, and an upstream gets no sessions.
    Depart(Departure),
    /// Give a route or an upstream no more sessions; those that it has, and that were not asked to go yet, stay until they end.
    Withhold(Whom),
    /// Take sessions of a route or an upstream again.
    Readmit(Whom),
    /// The next generation of the configuration: all that comes from now on is judged by it.
    Plan(Generation),
    /// Say that you live.
    Live(Answers),
    /// End now.
    Stop,
    /// A hook has said whether a request may come in.
    Decided(Decision),
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

/// Whose sessions are to go, and how.
#[derive(Clone, Debug)]
pub struct Departure {
    /// Whose.
    pub whom: Whom,
    /// How fast, and with which words.
    pub pace: Pace,
}

/// A generation of the configuration.
#[derive(Clone)]
pub struct Generation {
    /// What the shards share.
    pub plan: Arc<Plan>,
    /// For each listener what its TLS needs, in the configuration's order; connections that are accepted from now on get it.
    pub servers: Arc<[Option<ServerConfig>]>,
    /// Where each shard says that it has it.
    pub answers: Answers,
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Generation({})", self.plan.generation())
    }
}

/// How many shards have answered, and how many sessions they ask to go for it. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Answers(Arc<(Mutex<Answered>, Condvar)>);

#[derive(Debug, Default)]
struct Answered {
    shards: usize,
    sessions: usize,
}

impl Answers {
    /// One more has, and asks so many sessions to go.
    pub fn answer(&self, sessions: usize) {
        let (answered, bell) = &*self.0;
        let mut answered = answered.lock().unwrap_or_else(PoisonError::into_inner);
        answered.shards += 1;
        answered.sessions += sessions;
        bell.notify_all();
    }

    /// Sessions that are asked to go, of the shards that have answered.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).sessions
    }

    /// Waits until so many have answered; false where they have not in that time.
    #[must_use]
    pub fn wait(&self, shards: usize, most: Duration) -> bool {
        let (answered, bell) = &*self.0;
        let answered = answered.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = bell.wait_timeout_while(answered, most, |answered| answered.shards < shards);
        waited.unwrap_or_else(PoisonError::into_inner).0.shards >= shards
    }
}

/// How many letters may wait, without orders.
const CAPACITY: usize = 256;

/// What waits for a shard.
#[derive(Debug)]
struct Waiting {
    /// Bounded by whoever gives them: operators, systemd and the names of upstreams, but no peer.
    orders: SegQueue<Mail>,
    queue: ArrayQueue<Mail>,
}

/// The shard's end.
#[derive(Debug)]
pub struct Mailbox {
    waiting: Arc<Waiting>,
}

/// The other threads' end.
#[derive(Clone, Debug)]
pub struct Sender<W> {
    waiting: Arc<Waiting>,
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
    let waiting = Arc::new(Waiting { orders: SegQueue::new(), queue: ArrayQueue::new(capacity) });
    (Sender { waiting: Arc::clone(&waiting), waker }, Mailbox { waiting })
}

impl<W: Wake> Sender<W> {
    /// Leaves a letter and wakes the shard up.
    ///
    /// # Errors
    /// Gives the letter back where the queue is full.
    pub fn send(&self, mail: Mail) -> Result<(), Undelivered> {
        let pushed = self.waiting.queue.push(mail);
        self.waker.wake();
        pushed.map_err(Undelivered)
    }

    /// Leaves a letter that must not be lost, and wakes the shard up. There is always room for it, and it is read before all that was
    /// sent, behind the orders before it.
    pub fn order(&self, mail: Mail) {
        self.waiting.orders.push(mail);
        self.waker.wake();
    }

    /// Wakes the shard up, without a letter.
    pub(crate) fn wake(&self) {
        self.waker.wake();
    }
}

impl Mailbox {
    /// The oldest order, and where there is none the oldest letter.
    #[doc(hidden)]
    pub fn take(&self) -> Option<Mail> {
        self.waiting.orders.pop().or_else(|| self.waiting.queue.pop())
    }

    /// The oldest letter, whatever orders wait: what was sent before an order is read behind it.
    pub(crate) fn take_letter(&self) -> Option<Mail> {
        self.waiting.queue.pop()
    }

    /// How many letters wait beside orders.
    pub(crate) fn letters(&self) -> usize {
        self.waiting.queue.len()
    }

    /// How many letters wait, orders included.
    #[doc(hidden)]
    pub fn waiting(&self) -> usize {
        self.waiting.orders.len() + self.waiting.queue.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts its calls.
    #[derive(Clone, Default)]
    struct Bell(Arc<std::sync::atomic::AtomicUsize>);

    impl Wake for Bell {
        fn wake(&self) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }

    #[test]
    fn orders_find_room_in_a_full_mailbox_and_are_read_first_and_in_order() {
        let bell = Bell::default();
        let (sender, mailbox) = mailbox_of(bell.clone(), 1);
        assert!(sender.send(Mail::Resolved).is_ok() && sender.send(Mail::Resolved).is_err(), "it is full");
        let upstream = |place| Whom::Upstream(tidegate_hub::RouteId(0), place);
        // More than a block of the queue holds.
        (0..100).for_each(|place| sender.order(Mail::Withhold(upstream(place))));
        sender.order(Mail::Stop);
        assert_eq!((mailbox.waiting(), bell.0.load(std::sync::atomic::Ordering::Relaxed)), (102, 103));
        for place in 0..100 {
            let taken = mailbox.take();
            assert!(matches!(taken, Some(Mail::Withhold(whom)) if whom == upstream(place)), "{taken:?}");
        }
        assert!(matches!(mailbox.take(), Some(Mail::Stop)));
        assert!(matches!(mailbox.take(), Some(Mail::Resolved)));
        assert!(mailbox.take().is_none() && mailbox.waiting() == 0);
    }
}
