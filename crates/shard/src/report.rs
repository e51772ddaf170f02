//! What a shard says about itself: plain numbers that it copies to where another thread can read them.
//!
//! A shard counts in memory of its own and copies that into its [`Cell`] at most
//! every [`INTERVAL_MS`], and when a letter asks for it. It never waits for a reader: while somebody looks it is not copied.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tidegate_io::Lent;

use crate::{counters::Counters, log::Leg};

/// How often a busy shard copies its numbers at most, in milliseconds.
pub const INTERVAL_MS: u64 = 250;

/// Where a shard leaves its numbers.
#[derive(Debug, Default)]
pub struct Cell(Mutex<Report>);

impl Cell {
    /// What the shard has said last.
    pub fn read(&self) -> Report {
        self.lock().clone()
    }

    /// For the shard: what it says now, unless somebody is reading; whether nobody was.
    pub(crate) fn write(&self, write: impl FnOnce(&mut Report)) -> bool {
        let report = self.0.try_lock();
        let mine = report.is_ok();
        if let Ok(mut report) = report {
            write(&mut report);
        }
        mine
    }

    fn lock(&self) -> MutexGuard<'_, Report> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One shard's numbers since its start, and its state when it said them.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The newest generation of the configuration that the shard has taken over.
    pub generation: u64,
    /// It is draining.
    pub draining: bool,
    /// Sessions of clients now, those in their handshake included.
    pub connections: u64,
    /// Of the whole shard.
    pub counters: Counters,
    /// Of its backend.
    pub backend: tidegate_io::Counters,
    /// Its receive buffers now.
    pub buffers: Lent,
    /// Of its topics, where it has any.
    pub topics: Option<tidegate_hub::Counts>,
    /// Of its codecs.
    pub inflation: Inflation,
    /// By the numbers of routes: also those that no route has now, and of routes that are no more until another one has their number.
    pub routes: Vec<RouteCounts>,
    /// By upstream: those of the proxied route with the lowest number, then those of the next, routes that are no more included.
    pub upstreams: Vec<UpstreamState>,
    /// Ended sessions by what was their cause.
    pub closes: Vec<CloseCount>,
    /// Requests that were refused, by the answer's status.
    pub refusals: Vec<(u16, u64)>,
    /// From a ping to its pong; the clock has steps of 16 ms.
    pub round_trips: Histogram,
    /// How long turns have taken from their events to their end: so long has waited what came meanwhile.
    pub turns: Histogram,
}

/// What was compressed and what came out of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inflation {
    /// Bytes that were inflated, compressed.
    pub compressed_bytes: u64,
    /// Bytes that they became.
    pub inflated_bytes: u64,
    /// Bytes that were deflated, before.
    pub deflated_bytes: u64,
}

/// What went over connections of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Bytes that came, as they came.
    pub received_bytes: u64,
    /// Bytes that the kernel has taken; of TLS what was sent at once counts as it was before it was sealed.
    pub sent_bytes: u64,
    /// Messages that came whole.
    pub received_messages: u64,
    /// Messages that were given to it.
    pub sent_messages: u64,
}

/// What a route has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouteCounts {
    /// Sessions that were opened.
    pub opened: u64,
    /// Of them, those that have ended.
    pub ended: u64,
    /// Between clients and the gateway.
    pub clients: Flow,
    /// Between the gateway and upstreams.
    pub upstreams: Flow,
}

/// What a shard knows of an upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UpstreamState {
    /// The route's number.
    pub route: u16,
    /// Its place among the route's upstreams.
    pub upstream: u16,
    /// When it last could not be used, by the clock that all shards have in common, in milliseconds; 0: never.
    pub failed_ms: u64,
    /// When it last could; 0: never.
    pub succeeded_ms: u64,
    /// Legs dialing or open now.
    pub legs: u32,
    /// Times that it could not be used.
    pub failures: u64,
}

impl UpstreamState {
    /// Whether an upstream is up by what all shards know of it: the last try to use it, whose ever that was, has not failed. It does
    /// not depend on who leaves it out now, and for how long: without requests nobody would know for longer than `fail_timeout`.
    pub fn is_up(states: impl IntoIterator<Item = Self>) -> bool {
        let (failed_ms, succeeded_ms) =
            states.into_iter().fold((0, 0), |(failed_ms, succeeded_ms), state| {
                (state.failed_ms.max(failed_ms), state.succeeded_ms.max(succeeded_ms))
            });
        failed_ms <= succeeded_ms
    }
}

/// How many sessions have ended for one cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseCount {
    /// Which leg was its place.
    pub leg: Leg,
    /// The code; 3000 for all of 3000 to 3999, 4000 for all of 4000 to 4999, which peers choose freely.
    pub code: u16,
    /// The cause.
    pub reason: &'static str,
    /// How many.
    pub count: u64,
}

/// Upper bounds of what a [`Histogram`] holds apart, in microseconds.
pub const BOUNDS_US: [u64; 12] =
    [100, 500, 1_000, 5_000, 16_000, 32_000, 64_000, 128_000, 256_000, 512_000, 1_024_000, 10_000_000];

/// How often something took how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// By [`BOUNDS_US`], each without what the one before has; the last is for what is beyond all of them.
    pub counts: [u64; BOUNDS_US.len() + 1],
    /// All of it, in microseconds.
    pub sum_us: u64,
}

impl Histogram {
    pub(crate) fn add(&mut self, us: u64) {
        let place = BOUNDS_US.iter().position(|bound| us <= *bound).unwrap_or(BOUNDS_US.len());
        self.counts[place] += 1;
        self.sum_us += us;
    }

    /// Adds another shard's.
    pub fn merge(&mut self, other: &Histogram) {
        self.counts.iter_mut().zip(other.counts).for_each(|(own, other)| *own += other);
        self.sum_us += other.sum_us;
    }
}

/// The way back to whoever has asked by a letter. It is called on the shard's thread and must not wait.
pub struct Reply<T>(Box<dyn FnOnce(T) + Send>);

impl<T> Reply<T> {
    /// Calls this with the answer. Where there will be none, it is dropped.
    pub fn new(tell: impl FnOnce(T) + Send + 'static) -> Self {
        Self(Box::new(tell))
    }

    /// Answers.
    pub fn tell(self, answer: T) {
        (self.0)(answer);
    }
}

impl<T> fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_each_value_once_at_the_first_bound_that_holds_it() {
        let mut histogram = Histogram::default();
        for us in [0, 100, 101, 10_000_000, 10_000_001] {
            histogram.add(us);
        }
        assert_eq!((histogram.counts[0], histogram.counts[1], histogram.counts[11]), (2, 1, 1));
        assert_eq!((histogram.counts[12], histogram.sum_us), (1, 20_000_202));
        let mut both = histogram;
        both.merge(&histogram);
        assert_eq!((both.counts[0], both.sum_us), (4, 40_000_404));
    }

    #[test]
    fn an_upstream_is_up_by_the_last_try_of_all_shards() {
        let state = |failed_ms, succeeded_ms| UpstreamState { failed_ms, succeeded_ms, ..Default::default() };
        assert!(
            UpstreamState::is_up([]) && UpstreamState::is_up([state(0, 0), state(0, 0)]),
            "nobody has tried"
        );
        assert!(
            !UpstreamState::is_up([state(5, 0), state(0, 0)]),
            "one has failed, and the others know nothing"
        );
        assert!(!UpstreamState::is_up([state(5, 4), state(0, 3)]));
        assert!(UpstreamState::is_up([state(5, 4), state(0, 6)]), "another one has come through since");
        assert!(UpstreamState::is_up([state(5, 6), state(4, 0)]));
    }

    #[test]
    fn a_cell_that_is_being_read_is_left_alone() {
        let cell = Cell::default();
        let reading = cell.lock();
        assert!(!cell.write(|report| report.connections = 7));
        drop(reading);
        assert_eq!(cell.read().connections, 0);
        assert!(cell.write(|report| report.connections = 7));
        assert_eq!(cell.read().connections, 7);
    }
}
