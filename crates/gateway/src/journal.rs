//! From the shards to the log: shards leave entries in a bounded queue, and a thread of its own writes them.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tidegate_config::Config;
use tidegate_control::{RouteNames, session_id};
use tidegate_identity::FetchedKeys;
use tidegate_shard::{
    Environment, Question,
    log::{Entry, Fields, Level, What},
};
use tracing::{debug, field::display, info, level_filters::LevelFilter, warn};

use crate::outbound::{self, Errands};

/// Entries that may wait to be written; further ones are left out and counted.
const QUEUE: usize = 4096;

/// Random bytes fetched at once: a mask is four, so that one system call serves a thousand frames.
const RANDOM_BYTES: usize = 4096;

/// The queue and the thread that empties it.
#[derive(Debug)]
pub(crate) struct Journal {
    sender: SyncSender<Entry>,
    writer: JoinHandle<()>,
    lost: Arc<AtomicU64>,
}

impl Journal {
    /// # Errors
    /// Where no thread can be started.
    pub(crate) fn start(config: &Config, names: &RouteNames, lost: &Arc<AtomicU64>) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(QUEUE);
        let names = names.clone();
        let pace = Pace::new(config.log.entries_per_second, Instant::now());
        let own = Arc::clone(lost);
        let run = move || write(&receiver, pace, &own, |entry| tell(entry, &names));
        let writer = thread::Builder::new().name("log".to_owned()).spawn(run)?;
        Ok(Self { sender, writer, lost: Arc::clone(lost) })
    }

    /// The surroundings of a shard.
    pub(crate) fn surroundings(&self, shard: u16, errands: &Errands) -> Surroundings {
        Surroundings {
            shard,
            errands: errands.clone(),
            sender: self.sender.clone(),
            least: least_level(),
            omitted: 0,
            lost: Arc::clone(&self.lost),
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

/// How many entries are written in a second: under an attack the log must not cost more than the answers.
#[derive(Clone, Copy, Debug)]
struct Pace {
    most: u32,
    /// When the second began.
    began: Instant,
    /// What was written in it.
    written: u32,
    /// What was left out in it.
    omitted: u64,
}

impl Pace {
    fn new(most: u32, now: Instant) -> Self {
        Self { most, began: now, written: 0, omitted: 0 }
    }

    /// When it is time to tell what was left out.
    fn wait(&self, now: Instant) -> Duration {
        (self.began + Duration::from_secs(1)).saturating_duration_since(now)
    }

    /// A new second, where it is time; what was left out in the one before.
    fn begin(&mut self, now: Instant) -> u64 {
        if now.duration_since(self.began) < Duration::from_secs(1) {
            return 0;
        }
        let omitted = self.omitted;
        *self = Self::new(self.most, now);
        omitted
    }

    /// Whether an entry is written. Warnings have room that others cannot take.
    fn admits(&mut self, level: Level) -> bool {
        let most = if level == Level::Warn { self.most.saturating_mul(2) } else { self.most };
        let admits = self.written < most;
        self.written += u32::from(admits);
        self.omitted += u64::from(!admits);
        admits
    }
}

/// Writes what comes, at the pace, until nobody is left to send anything.
fn write(receiver: &Receiver<Entry>, mut pace: Pace, lost: &AtomicU64, tell: impl Fn(Entry)) {
    let left_out = |entries| {
        lost.fetch_add(entries, Ordering::Relaxed);
        warn!(entries, "{}", What::Omitted { entries }.message());
    };
    loop {
        let entry = match pace.omitted {
            0 => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
            _ => receiver.recv_timeout(pace.wait(Instant::now())),
        };
        let omitted = pace.begin(Instant::now());
        if omitted > 0 {
            left_out(omitted);
        }
        match entry {
            Ok(entry) if pace.admits(entry.level) => tell(entry),
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    if pace.omitted > 0 {
        left_out(pace.omitted);
    }
}

/// The route and the upstream that an entry is about, as they were called when it happened: their numbers may be another's now.
fn named(entry: &Entry, names: &RouteNames) -> (Option<String>, Option<String>) {
    let (route, place) = entry.what.place();
    route.or(entry.route).map_or((None, None), |route| names.names_at(entry.generation, route, place))
}

fn tell(entry: Entry, names: &RouteNames) {
    let (route, upstream) = named(&entry, names);
    let Entry { level, shard, session, peer, route: _, generation: _, what } = entry;
    // As `tidegate sessions` calls it.
    let session = session.map(|key| display(session_id(shard, key)));
    let peer = peer.map(display);
    let Fields { leg, code, status, reason, errno, address, connections, entries, totals } = what.fields();
    let address = address.map(display);
    let (leg, error) = (leg.map(display), errno.map(|errno| display(io::Error::from_raw_os_error(errno))));
    let message = what.message();
    // The level is a constant of the place that writes; fields that are not there are not written.
    macro_rules! write {
        ($level:ident) => {
            $level!(
                leg,
                code,
                status,
                connections,
                entries,
                reason,
                error,
                received_bytes = totals.map(|totals| totals.received_bytes),
                sent_bytes = totals.map(|totals| totals.sent_bytes),
                received_messages = totals.map(|totals| totals.received_messages),
                sent_messages = totals.map(|totals| totals.sent_messages),
                duration_ms = totals.map(|totals| totals.duration_ms),
                shard,
                session,
                peer,
                route,
                upstream,
                address,
                "{message}"
            )
        };
    }
    match level {
        Level::Debug => write!(debug),
        Level::Info => write!(info),
        Level::Warn => write!(warn),
    }
}

/// What a shard needs from outside besides the kernel.
pub(crate) struct Surroundings {
    shard: u16,
    errands: Errands,
    sender: SyncSender<Entry>,
    least: Option<Level>,
    /// Entries that found the queue full, since the last that did not.
    omitted: u64,
    lost: Arc<AtomicU64>,
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

    fn ask(&mut self, question: Question) {
        self.errands.ask(question);
    }

    fn want_keys(&mut self, keys: &Arc<FetchedKeys>) {
        self.errands.fetch(keys);
    }

    fn unix_seconds(&self) -> u64 {
        outbound::unix_seconds()
    }

    fn log(&mut self, entry: Entry) {
        if self.least.is_none_or(|least| entry.level < least) {
            return;
        }
        if self.omitted > 0 {
            let what = What::Omitted { entries: self.omitted };
            let (level, shard) = (Level::Warn, self.shard);
            let omitted = Entry { level, shard, session: None, peer: None, route: None, what, ..entry };
            if self.sender.try_send(omitted).is_ok() {
                self.omitted = 0;
            }
        }
        if self.sender.try_send(entry).is_err() {
            self.omitted += 1;
            self.lost.fetch_add(1, Ordering::Relaxed);
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
    use tidegate_shard::Plan;

    use super::*;

    fn surroundings(sender: SyncSender<Entry>, least: Option<Level>) -> Surroundings {
        let lost = Arc::default();
        Surroundings {
            shard: 7,
            errands: Errands::new().0,
            sender,
            least,
            omitted: 0,
            lost,
            random: [0; RANDOM_BYTES],
            used: RANDOM_BYTES,
        }
    }

    fn entry(level: Level) -> Entry {
        let (session, what) = (Some(1), What::SessionsFull);
        Entry { level, shard: 7, session, peer: None, route: None, generation: 1, what }
    }

    #[test]
    fn an_entry_is_told_with_the_names_of_its_time() {
        let config = |route: &str| {
            let text = format!("version = 1\n[[listener]]\nbind = '127.0.0.1:0'\n[[route]]\n{route}\n");
            tidegate_config::parse(&text, "t.toml").unwrap()
        };
        let first = Plan::new(config("path = '/a'\nproxy = { upstreams = ['ws://one.test'] }"), 1);
        let names = RouteNames::new(&first);
        let what = What::UpstreamRefused { upstream: 0, route: 0, status: 500 };
        let entry = Entry { what, ..entry(Level::Info) };
        // Nobody is left of it, and its number is another's before the line is written.
        let second = first.next(config("path = '/b'\necho = {}")).unwrap();
        second.say_all_left();
        let third = second.next(config("path = '/c'\nproxy = { upstreams = ['ws://two.test'] }")).unwrap();
        for plan in [&second, &third] {
            names.adopt(plan);
        }
        let told = |entry: &Entry| named(entry, &names);
        let by = |route: &str, upstream: &str| (Some(route.to_owned()), Some(upstream.to_owned()));
        assert_eq!(told(&entry), by("/a", "ws://one.test"));
        assert_eq!(told(&Entry { generation: 3, ..entry }), by("/c", "ws://two.test"));
        assert_eq!(told(&Entry { what: What::SessionsFull, ..entry }), (None, None));
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
    fn entries_beyond_the_pace_are_left_out_until_the_next_second_and_warnings_have_room() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let mut pace = Pace::new(2, start);
        let admitted: Vec<bool> = (0..4).map(|_| pace.admits(Level::Info)).collect();
        assert_eq!(admitted, [true, true, false, false]);
        assert_eq!([0; 3].map(|_| pace.admits(Level::Warn)), [true, true, false]);
        assert_eq!((pace.begin(after(999)), pace.wait(after(400))), (0, Duration::from_millis(600)));
        assert_eq!(pace.begin(after(1_000)), 3);
        assert!(pace.admits(Level::Info));
        assert_eq!(pace.begin(after(2_500)), 0);
    }

    #[test]
    fn what_is_left_out_is_counted_and_nothing_waits() {
        let (sender, receiver) = sync_channel(100);
        (0..100).for_each(|_| sender.send(entry(Level::Info)).unwrap());
        drop(sender);
        let (lost, told) = (AtomicU64::new(0), std::cell::Cell::new(0));
        write(&receiver, Pace::new(10, Instant::now()), &lost, |_| told.set(told.get() + 1));
        // A slow machine may have begun another second meanwhile.
        assert!(told.get() >= 10 && told.get() + lost.into_inner() == 100, "{}", told.get());
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
