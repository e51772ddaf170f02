//! From the shards to the log: shards leave entries in a bounded queue, and a thread of its own writes them.

use std::{
    io,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::{self, JoinHandle},
    time::{SystemTime, UNIX_EPOCH},
};

use tidegate_shard::{
    Environment,
    log::{Entry, Level, What},
};
use tracing::{debug, info, level_filters::LevelFilter, warn};

/// Entries that may wait to be written; further ones are left out and counted.
const QUEUE: usize = 4096;

/// Random bytes fetched at once: a mask is four, so that one system call serves a thousand frames.
const RANDOM_BYTES: usize = 4096;

/// The queue and the thread that empties it.
#[derive(Debug)]
pub(crate) struct Journal {
    sender: SyncSender<Entry>,
    writer: JoinHandle<()>,
}

impl Journal {
    /// # Errors
    /// Where no thread can be started.
    pub(crate) fn start() -> io::Result<Self> {
        let (sender, receiver) = sync_channel(QUEUE);
        let writer = thread::Builder::new().name("log".to_owned()).spawn(move || write(&receiver))?;
        Ok(Self { sender, writer })
    }

    /// The surroundings of a shard.
    pub(crate) fn surroundings(&self, shard: u16) -> Surroundings {
        Surroundings {
            shard,
            sender: self.sender.clone(),
            least: least_level(),
            omitted: 0,
            random: [0; RANDOM_BYTES],
            used: RANDOM_BYTES,
        }
    }

    /// Waits until all is written. The shards must have ended.
    pub(crate) fn finish(self) {
        drop(self.sender);
        // The writer only ends by the end of the queue; if it panicked, that was told.
        let _ = self.writer.join();
    }
}

/// The least level that is written; `None` where nothing of the shards is.
fn least_level() -> Option<Level> {
    let current = LevelFilter::current();
    if current >= LevelFilter::DEBUG {
        Some(Level::Debug)
    } else if current >= LevelFilter::INFO {
        Some(Level::Info)
    } else if current >= LevelFilter::WARN {
        Some(Level::Warn)
    } else {
        None
    }
}

fn write(receiver: &Receiver<Entry>) {
    for Entry { level, shard, session, peer, what } in receiver {
        let session = session.map(|key| tracing::field::display(format!("{key:x}")));
        let peer = peer.map(tracing::field::display);
        match level {
            Level::Debug => debug!(shard, session, peer, "{what}"),
            Level::Info => info!(shard, session, peer, "{what}"),
            Level::Warn => warn!(shard, session, peer, "{what}"),
        }
    }
}

/// What a shard needs from outside besides the kernel.
pub(crate) struct Surroundings {
    shard: u16,
    sender: SyncSender<Entry>,
    least: Option<Level>,
    /// Entries that found the queue full, since the last that did not.
    omitted: u64,
    random: [u8; RANDOM_BYTES],
    used: usize,
}

impl Environment for Surroundings {
    fn random(&mut self, out: &mut [u8]) {
        if out.len() > RANDOM_BYTES - self.used {
            if out.len() > RANDOM_BYTES {
                return fill(out);
            }
            fill(&mut self.random);
            self.used = 0;
        }
        let fresh = &mut self.random[self.used..][..out.len()];
        out.copy_from_slice(fresh);
        // Used up: a later read of this memory must not tell a mask that may still be under way.
        fresh.fill(0);
        self.used += out.len();
    }

    fn unix_seconds(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    fn log(&mut self, entry: Entry) {
        if self.least.is_none_or(|least| entry.level < least) {
            return;
        }
        if self.omitted > 0 {
            let what = What::Omitted { entries: self.omitted };
            let omitted = Entry { level: Level::Warn, shard: self.shard, session: None, peer: None, what };
            if self.sender.try_send(omitted).is_ok() {
                self.omitted = 0;
            }
        }
        if self.sender.try_send(entry).is_err() {
            self.omitted += 1;
        }
    }
}

/// # Panics
/// Where the system has no randomness: no session could be masked.
fn fill(out: &mut [u8]) {
    getrandom::fill(out).expect("the system gives random bytes");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn surroundings(sender: SyncSender<Entry>, least: Option<Level>) -> Surroundings {
        Surroundings { shard: 7, sender, least, omitted: 0, random: [0; RANDOM_BYTES], used: RANDOM_BYTES }
    }

    fn entry(level: Level) -> Entry {
        Entry { level, shard: 7, session: Some(1), peer: None, what: What::SessionsFull }
    }

    #[test]
    fn random_bytes_are_never_given_twice() {
        let (sender, _receiver) = sync_channel(1);
        let mut surroundings = surroundings(sender, None);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..2 * RANDOM_BYTES / 16 + 3 {
            let mut bytes = [0; 16];
            surroundings.random(&mut bytes);
            assert_ne!(bytes, [0; 16]);
            assert!(seen.insert(bytes));
        }
        let mut odd = [0; 24];
        surroundings.random(&mut odd);
        assert!(surroundings.random[..surroundings.used].iter().all(|byte| *byte == 0));
        let mut long = vec![0; 3 * RANDOM_BYTES];
        surroundings.random(&mut long);
        assert!(long.chunks(64).all(|chunk| chunk.iter().any(|byte| *byte != 0)));
    }

    #[test]
    fn a_full_queue_never_blocks_and_what_was_left_out_is_told() {
        let (sender, receiver) = sync_channel(2);
        let mut surroundings = surroundings(sender, Some(Level::Info));
        for _ in 0..5 {
            surroundings.log(entry(Level::Info));
        }
        assert_eq!(receiver.try_iter().count(), 2);
        surroundings.log(entry(Level::Warn));
        let entries: Vec<Entry> = receiver.try_iter().collect();
        assert_eq!(entries[0].what, What::Omitted { entries: 3 });
        assert_eq!((entries[0].shard, entries.len()), (7, 2));
        surroundings.log(entry(Level::Debug));
        assert_eq!(receiver.try_iter().count(), 0, "below the level");
    }
}
