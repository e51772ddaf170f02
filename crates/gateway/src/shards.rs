//! The ways into all shards, for the threads beside them.

use std::{
    thread,
    time::{Duration, Instant},
};

use tidegate_io::Waker;
use tidegate_shard::{self as shard, Mail, Undelivered};
use tracing::warn;

/// How long a letter to a shard whose mailbox is full is tried again, and how long is waited in between.
const SEND_PATIENCE: Duration = Duration::from_secs(1);
const SEND_PAUSE: Duration = Duration::from_millis(5);

/// The ways into all shards.
#[derive(Debug)]
pub(crate) struct Shards(pub(crate) Vec<shard::Sender<Waker>>);

impl Shards {
    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Leaves a letter with each shard that has room for one; false where one has none.
    pub(crate) fn try_send(&self, write: impl Fn() -> Mail) -> bool {
        self.0.iter().filter(|sender| sender.send(write()).is_err()).count() == 0
    }

    /// Leaves a letter with each shard that should not go without, as long as there is a point in it. Who goes without `what` is
    /// logged; whether nobody does.
    pub(crate) fn deliver(&self, what: &str, write: impl Fn() -> Mail, goes_on: impl Fn() -> bool) -> bool {
        (0..self.count()).filter(|shard| !self.leave(*shard, what, write(), &goes_on)).count() == 0
    }

    /// Leaves a letter with each shard. One that does not look at its mail for a second goes without, which is logged.
    pub(crate) fn send(&self, what: &str, write: impl Fn() -> Mail) {
        for shard in 0..self.count() {
            let until = Instant::now() + SEND_PATIENCE;
            self.leave(shard, what, write(), || Instant::now() < until);
        }
    }

    fn leave(&self, shard: usize, what: &str, mut letter: Mail, goes_on: impl Fn() -> bool) -> bool {
        while let Err(Undelivered(back)) = self.0[shard].send(letter) {
            if !goes_on() {
                warn!(shard, "the shard does not look at its mail, and goes without {what}");
                return false;
            }
            letter = back;
            thread::sleep(SEND_PAUSE);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        sync::{Arc, Mutex, atomic::AtomicU32, atomic::Ordering},
    };

    use tidegate_io::{Backend, Epoll, EpollOptions};

    use super::*;

    /// What was logged.
    #[derive(Clone, Default)]
    struct Told(Arc<Mutex<Vec<u8>>>);

    impl Write for Told {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn who_does_not_look_at_its_mail_goes_without_and_that_is_told() {
        let backend = Epoll::new(&EpollOptions { buffers: 1 }).unwrap();
        let (full, _stuck) = shard::mailbox_of(backend.waker(), 1);
        let (free, mailbox) = shard::mailbox_of(backend.waker(), 9);
        let shards = Shards(vec![full, free]);
        let told = Told::default();
        let out = told.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || out.clone()).with_ansi(false).finish();
        tracing::subscriber::with_default(subscriber, || {
            shards.send("a first letter", || Mail::Resolved);
            assert!(told.0.lock().unwrap().is_empty(), "there was room");
            shards.send("a second one", || Mail::Resolved);
            let tries = AtomicU32::new(0);
            assert!(!shards.deliver(
                "a third",
                || Mail::Resolved,
                || tries.fetch_add(1, Ordering::Relaxed) < 3
            ));
            assert_eq!(tries.into_inner(), 4);
        });
        assert_eq!(mailbox.waiting(), 3, "nobody else goes without");
        let told = String::from_utf8(told.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(lines.len(), 2, "{told}");
        assert!(
            lines[0].contains("WARN") && lines[0].contains("shard=0") && lines[0].contains("a second one"),
            "{told}"
        );
        assert!(lines[1].contains("goes without a third"), "{told}");
    }
}
