//! A worker's part of the fan-out: deliveries of all publishers here, and how far those have come that publish here.

use serde::{Deserialize, Serialize};

use super::{
    Fanout, Role,
    ledger::{Entry, Ledger, Reached, Run},
};
use crate::{
    schedule::Key,
    tally::{Tally, Times, Window},
};

/// How much longer than the time-out a worker keeps account of messages that not all of its subscribers got, so that
/// late ones are still counted with them.
const GRACE_NS: u64 = 1_000_000_000;
/// Lists of runs that are kept for later messages.
const SPARE_LISTS: usize = 4096;

/// What a worker tells the worker of a publisher.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Letter {
    /// All subscribers here have this message.
    Reached(u32, Reached),
    /// A subscriber will not get this stream's messages of these numbers (the second is the first one after).
    Absent(u32, u64, u64),
}

/// What was counted since the last time.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct FanCounts {
    /// Messages that were handed to the kernel.
    pub(crate) published: u64,
    /// Of them, those that were due in the measured time.
    pub(crate) published_in_window: u64,
    /// Of these, those that all got, who were not lost,
    pub(crate) complete: u64,
    /// and those that were given up, or that nobody was left for.
    pub(crate) incomplete: u64,
    /// Deliveries that are owed for `published`.
    pub(crate) expected: u64,
    /// First deliveries to subscribers.
    pub(crate) distinct: u64,
    /// Deliveries that could not be told apart for their bytes.
    pub(crate) garbled: u64,
    /// Offsets that were passed over, and not told of.
    pub(crate) holes: u64,
    /// Deliveries to publishers: of others' messages, and of their own.
    pub(crate) to_publishers: u64,
    pub(crate) to_senders: u64,
}

impl FanCounts {
    fn merge(&mut self, other: &Self) {
        self.published += other.published;
        self.published_in_window += other.published_in_window;
        self.complete += other.complete;
        self.incomplete += other.incomplete;
        self.expected += other.expected;
        self.distinct += other.distinct;
        self.garbled += other.garbled;
        self.holes += other.holes;
        self.to_publishers += other.to_publishers;
        self.to_senders += other.to_senders;
    }
}

/// What was counted and measured, on its way to the director, and there all of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct FanParcel {
    pub(crate) counts: FanCounts,
    /// From when a message was due until the first, the median and the last subscriber had it.
    pub(crate) times: Option<Box<[Times; 3]>>,
}

impl FanParcel {
    pub(crate) fn merge(&mut self, other: &Self) {
        self.counts.merge(&other.counts);
        if let Some(theirs) = &other.times {
            let mine = self.times.get_or_insert_with(|| Box::new([Times::new(), Times::new(), Times::new()]));
            mine.iter_mut().zip(&**theirs).for_each(|(mine, theirs)| mine.merge(theirs));
        }
    }
}

/// A stream of this worker's publishers.
#[derive(Debug, Default)]
struct Home {
    key: Option<Key>,
    ledger: Ledger,
    /// Messages that the kernel took: those with lesser numbers.
    published: u64,
}

/// A worker's part of the fan-out.
#[derive(Debug)]
pub(crate) struct Fan {
    plan: Fanout,
    worker: u32,
    workers: u32,
    /// By stream: what subscribers here got of it.
    ledgers: Vec<Ledger>,
    /// The streams of the publishers here, which are each `workers`-th: [`Fan::home`].
    homes: Vec<Home>,
    pub(super) counts: FanCounts,
    times: [Times; 3],
    spare: Vec<Vec<Run>>,
    /// By worker.
    letters: Vec<Vec<Letter>>,
    has_letters: bool,
    /// Publishers here of whose streams one may have room for one more message under way.
    freed: Vec<(Key, u32)>,
    /// For whoever reads or writes an envelope.
    pub(super) scratch: Vec<u8>,
    /// Audiences are known, and sessions are not being closed: who ends now is lost.
    is_running: bool,
    is_over: bool,
    /// What was due before then is of an earlier run; the end of time before messages may come at all.
    since_ns: u64,
}

impl Fan {
    pub(crate) fn new(plan: Fanout, worker: u32, workers: u32) -> Self {
        let publishers = (worker..plan.publishers).step_by(workers as usize).count();
        let homes = (0..publishers * streams_each(&plan)).map(|_| Home::default());
        Self {
            plan,
            worker,
            workers,
            ledgers: Vec::new(),
            homes: homes.collect(),
            counts: FanCounts::default(),
            times: [Times::new(), Times::new(), Times::new()],
            spare: Vec::new(),
            letters: vec![Vec::new(); workers as usize],
            has_letters: false,
            freed: Vec::new(),
            scratch: Vec::new(),
            is_running: false,
            is_over: false,
            since_ns: u64::MAX,
        }
    }

    pub(crate) fn plan(&self) -> &Fanout {
        &self.plan
    }

    pub(crate) fn role(&self, begun: u32) -> Role {
        self.plan.role(self.worker, self.workers, begun)
    }

    /// Whether no message of a publisher here is under way.
    pub(crate) fn is_settled(&self) -> bool {
        self.homes.iter().all(|home| home.ledger.open() == 0)
    }

    /// Whether one more of a stream may be sent, with so many under way at most.
    pub(super) fn may_publish(&self, stream: u32, depth: u32) -> bool {
        let ledger = &self.homes[self.home(stream)].ledger;
        self.is_running && !self.is_over && ledger.has_audience() && ledger.open() < depth
    }

    /// All sessions are up: subscribers here, by topic.
    pub(crate) fn seat(&mut self, here: &[u32]) {
        let plan = self.plan;
        let audience = |stream| here[plan.topic(stream) as usize];
        self.ledgers = (0..plan.streams()).map(|stream| Ledger::new(audience(stream))).collect();
        self.is_running = true;
    }

    /// Subscribers anywhere, by topic, and the publishers here that are up. `since_ns`: before any message of this run
    /// is due.
    pub(crate) fn begin(
        &mut self,
        audiences: &[u32],
        publishers: impl Iterator<Item = (u32, Key)>,
        since_ns: u64,
    ) {
        self.since_ns = since_ns;
        let plan = self.plan;
        for publisher in (self.worker..plan.publishers).step_by(self.workers as usize) {
            for stream in plan.streams_of(publisher) {
                let audience = audiences.get(plan.topic(stream) as usize).copied();
                let home = self.home(stream);
                let ledger = &mut self.homes[home].ledger;
                // Who was lost since all were counted is in the audience still.
                *ledger = ledger.opened_for(audience.unwrap_or(0));
            }
        }
        for (publisher, key) in publishers {
            for stream in plan.streams_of(publisher) {
                let home = self.home(stream);
                self.homes[home].key = Some(key);
            }
        }
    }

    /// Nothing more is published but what is owed.
    pub(crate) fn stop(&mut self) {
        self.is_over = true;
    }

    /// Sessions end because they are to.
    pub(crate) fn close(&mut self) {
        self.is_running = false;
    }

    /// Whether anything can have been published.
    #[inline]
    pub(super) fn has_begun(&self) -> bool {
        self.since_ns != u64::MAX
    }

    /// Whether a message of this run can have come here: a server may keep those of an earlier run with the same seed, and
    /// deliver them at any time.
    #[inline]
    pub(super) fn may_come(&self, due_ns: u64) -> bool {
        due_ns >= self.since_ns
    }

    /// Whether a subscriber here may have this message.
    #[inline]
    pub(super) fn may_have(&self, stream: u32, number: u64) -> bool {
        self.ledgers.get(stream as usize).is_some_and(|ledger| ledger.may_have(number))
    }

    /// A subscriber here has one more message. All of them count for [`Fan::poll_letters`].
    #[inline]
    pub(super) fn deliver(
        &mut self,
        stream: u32,
        number: u64,
        due_ns: u64,
        now_ns: u64,
        window: Window,
        tally: &mut Tally,
    ) {
        self.counts.distinct += 1;
        let run = Run { at_ns: now_ns, count: 1 };
        match self.ledgers[stream as usize].add(number, due_ns, run, &mut self.spare) {
            Entry::Open => {}
            Entry::Behind => measure(&[run], due_ns, window, tally),
            Entry::Whole(reached) => self.reached(stream, reached, window, tally),
        }
    }

    /// A subscriber here will not get messages of these numbers.
    pub(super) fn lose(&mut self, stream: u32, from: u64, until: u64, window: Window, tally: &mut Tally) {
        if !self.is_running {
            return;
        }
        let mut whole = Vec::new();
        self.ledgers[stream as usize].lose(from, until, |reached| whole.push(reached));
        for reached in whole {
            self.reached(stream, reached, window, tally);
        }
        self.post(stream, Letter::Absent(stream, from, until), window);
    }

    /// A publisher here begins to send a message of a stream.
    pub(super) fn publish(&mut self, stream: u32, due_ns: u64) {
        let home = self.home(stream);
        self.homes[home].ledger.expect(due_ns);
    }

    /// The kernel took a message of a stream here.
    pub(super) fn published(&mut self, stream: u32, due_ns: u64, window: Window) {
        let home = self.home(stream);
        let home = &mut self.homes[home];
        let is_measured = window.contains(due_ns);
        self.counts.published += 1;
        self.counts.published_in_window += u64::from(is_measured);
        // It may have been given up while it waited for being sent.
        self.counts.incomplete += u64::from(is_measured && home.ledger.is_behind(home.published));
        self.counts.expected += u64::from(home.ledger.audience());
        home.published += 1;
    }

    /// Letters for publishers here.
    pub(crate) fn read(&mut self, letters: Vec<Letter>, window: Window) {
        for letter in letters {
            self.file(letter, window);
        }
    }

    /// Gives up what is under way for longer than the time-out.
    pub(crate) fn give_up(&mut self, now_ns: u64, timeout_ns: u64, window: Window, tally: &mut Tally) {
        let before_ns = now_ns.saturating_sub(timeout_ns);
        let (plan, worker, workers) = (self.plan, self.worker, self.workers);
        let each = streams_each(&plan);
        for (place, home) in self.homes.iter_mut().enumerate() {
            let before = home.ledger.open();
            let (incomplete, published) = (&mut self.counts.incomplete, home.published);
            home.ledger.give_up(before_ns, |reached| {
                *incomplete += u64::from(reached.number < published && window.contains(reached.due_ns));
            });
            if home.ledger.open() < before {
                // The other way round than in `home`.
                let publisher = worker + (place / each) as u32 * workers;
                let stream = publisher + (place % each) as u32 * plan.publishers;
                self.freed.extend(home.key.map(|key| (key, stream)));
            }
        }
        for ledger in &mut self.ledgers {
            ledger.give_up(before_ns.saturating_sub(GRACE_NS), |reached| {
                measure(&reached.runs, reached.due_ns, window, tally);
            });
        }
    }

    /// Measures what has come of all that is under way still: nothing more will.
    pub(crate) fn end(&mut self, window: Window, tally: &mut Tally) {
        self.give_up(u64::MAX, GRACE_NS, window, tally);
    }

    /// Letters to other workers, each once.
    pub(crate) fn poll_letters(&mut self, mut give: impl FnMut(usize, Vec<Letter>)) {
        if !std::mem::take(&mut self.has_letters) {
            return;
        }
        for (worker, letters) in self.letters.iter_mut().enumerate() {
            if !letters.is_empty() {
                give(worker, std::mem::take(letters));
            }
        }
    }

    /// Publishers here that may have more to send of a stream, each told at least once.
    pub(crate) fn take_freed(&mut self) -> Vec<(Key, u32)> {
        let mut freed = std::mem::take(&mut self.freed);
        freed.dedup();
        freed
    }

    /// Keeps the list's memory.
    pub(crate) fn reuse(&mut self, mut freed: Vec<(Key, u32)>) {
        if self.freed.is_empty() {
            freed.clear();
            self.freed = freed;
        }
    }

    /// What was counted since the last time.
    pub(crate) fn parcel(&mut self) -> FanParcel {
        let has_times = self.times.iter().any(|times| times.count() > 0);
        let fresh = || [Times::new(), Times::new(), Times::new()];
        FanParcel {
            counts: std::mem::take(&mut self.counts),
            times: has_times.then(|| Box::new(std::mem::replace(&mut self.times, fresh()))),
        }
    }

    /// All subscribers here have a message.
    fn reached(&mut self, stream: u32, reached: Reached, window: Window, tally: &mut Tally) {
        measure(&reached.runs, reached.due_ns, window, tally);
        if !reached.runs.is_empty() {
            self.post(stream, Letter::Reached(stream, reached), window);
        }
    }

    /// The place of a stream whose publisher is here.
    #[inline]
    fn home(&self, stream: u32) -> usize {
        let publisher = self.plan.publisher(stream) / self.workers;
        publisher as usize * streams_each(&self.plan) + self.plan.desk(stream)
    }

    fn post(&mut self, stream: u32, letter: Letter, window: Window) {
        let home = self.plan.publisher(stream) % self.workers;
        if home == self.worker {
            self.file(letter, window);
        } else {
            self.letters[home as usize].push(letter);
            self.has_letters = true;
        }
    }

    /// Takes note of what a letter says.
    fn file(&mut self, letter: Letter, window: Window) {
        let mut whole = Vec::new();
        let stream = match letter {
            Letter::Reached(stream, Reached { number, due_ns, mut runs }) => {
                let place = self.home(stream);
                let Some(home) = self.homes.get_mut(place) else { return };
                for run in runs.drain(..) {
                    match home.ledger.add(number, due_ns, run, &mut self.spare) {
                        Entry::Open | Entry::Behind => {}
                        Entry::Whole(reached) => whole.push(reached),
                    }
                }
                self.keep(runs);
                stream
            }
            Letter::Absent(stream, from, until) => {
                let place = self.home(stream);
                let Some(home) = self.homes.get_mut(place) else { return };
                home.ledger.lose(from, until, |reached| whole.push(reached));
                stream
            }
        };
        let home = &self.homes[self.home(stream)];
        let (key, published) = (home.key, home.published);
        for mut reached in whole {
            if window.contains(reached.due_ns) {
                match reached.times() {
                    Some(times) => {
                        self.counts.complete += 1;
                        for (all, at_ns) in self.times.iter_mut().zip(times) {
                            all.record(at_ns.saturating_sub(reached.due_ns));
                        }
                    }
                    None => self.counts.incomplete += u64::from(reached.number < published),
                }
            }
            self.keep(std::mem::take(&mut reached.runs));
            self.freed.extend(key.map(|key| (key, stream)));
        }
    }

    fn keep(&mut self, mut runs: Vec<Run>) {
        if self.spare.len() < SPARE_LISTS && runs.capacity() > 0 {
            runs.clear();
            self.spare.push(runs);
        }
    }
}

/// Streams of a publisher at most.
#[inline]
fn streams_each(plan: &Fanout) -> usize {
    plan.streams().div_ceil(plan.publishers) as usize
}

/// Takes the times of deliveries.
fn measure(runs: &[Run], due_ns: u64, window: Window, tally: &mut Tally) {
    if !window.contains(due_ns) {
        return;
    }
    for run in runs {
        tally.counts.answered += u64::from(run.count);
        tally.latency.record_many(run.at_ns.saturating_sub(due_ns), run.count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fanout::{AdapterName, Echo};

    const ALWAYS: Window = Window { from_ns: 0, until_ns: u64::MAX };

    #[test]
    fn a_message_is_complete_when_the_subscribers_of_all_workers_have_it() {
        let plan = Fanout {
            publishers: 1,
            subscribers: 3,
            topics: 1,
            adapter: AdapterName::Broadcast,
            echo: Echo::Any,
            share: 0.0,
            keys: 0,
        };
        let (mut home, mut other) = (Fan::new(plan, 0, 2), Fan::new(plan, 1, 2));
        let key = Key { index: 4, serial: 4 };
        home.seat(&[2]);
        other.seat(&[1]);
        home.begin(&[3], std::iter::once((0, key)), 0);
        other.begin(&[3], std::iter::empty(), 0);
        let (mut tally, mut far) = (Tally::new(), Tally::new());
        assert!(home.may_publish(0, 1));
        home.publish(0, 100);
        assert!(!home.may_publish(0, 1) && !home.is_settled());
        home.published(0, 100, ALWAYS);
        home.deliver(0, 0, 100, 1_100, ALWAYS, &mut tally);
        home.deliver(0, 0, 100, 2_100, ALWAYS, &mut tally);
        assert!(home.take_freed().is_empty());
        other.deliver(0, 0, 100, 9_100, ALWAYS, &mut far);
        let mut sent = Vec::new();
        other.poll_letters(|worker, letters| sent.push((worker, letters)));
        let (worker, letters) = sent.pop().unwrap();
        assert!(worker == 0 && sent.is_empty());
        home.read(letters, ALWAYS);
        assert_eq!(home.take_freed(), [(key, 0)]);
        assert!(home.is_settled() && home.may_publish(0, 1));
        let mut all = FanParcel::default();
        all.merge(&home.parcel());
        all.merge(&other.parcel());
        let at: Vec<u64> =
            all.times.unwrap().iter().map(|times| times.percentile_ns(50.0).unwrap() as u64).collect();
        assert!((1_000..1_002).contains(&at[0]) && (2_000..2_004).contains(&at[1]), "{at:?}");
        assert!((9_000..9_010).contains(&at[2]), "{at:?}");
        assert_eq!((all.counts.expected, all.counts.distinct, all.counts.complete), (3, 3, 1));
        assert_eq!((tally.latency.count(), far.latency.count()), (2, 1));
    }

    #[test]
    fn who_is_lost_before_messages_begin_is_not_waited_for() {
        let mut fan = one_worker(2);
        fan.seat(&[2]);
        let mut tally = Tally::new();
        fan.lose(0, 0, u64::MAX, ALWAYS, &mut tally);
        // Where not all heard of it in time, it is told again.
        for _ in 0..2 {
            fan.begin(&[2], std::iter::empty(), 0);
        }
        fan.publish(0, 100);
        fan.published(0, 100, ALWAYS);
        fan.deliver(0, 0, 100, 1_100, ALWAYS, &mut tally);
        assert!(fan.is_settled(), "the other one has it");
        assert_eq!(fan.parcel().counts.complete, 1);
    }

    #[test]
    fn what_was_not_sent_is_not_incomplete() {
        let mut fan = one_worker(1);
        fan.seat(&[1]);
        fan.begin(&[1], std::iter::empty(), 0);
        let mut tally = Tally::new();
        for due_ns in [100, 200, 300] {
            fan.publish(0, due_ns);
        }
        fan.published(0, 100, ALWAYS);
        fan.give_up(1_000, 0, ALWAYS, &mut tally);
        assert_eq!(fan.parcel().counts.incomplete, 1, "two wait for being sent");
        fan.published(0, 200, ALWAYS);
        assert_eq!(fan.parcel().counts.incomplete, 1, "nobody counts what comes of it any more");
        // And one that nobody is left for.
        fan.publish(0, 2_000);
        fan.lose(0, 3, u64::MAX, ALWAYS, &mut tally);
        assert!(fan.is_settled() && fan.parcel().counts.incomplete == 0);
        fan.published(0, 300, ALWAYS);
        fan.published(0, 2_000, ALWAYS);
        assert_eq!(fan.parcel().counts.incomplete, 2);
    }

    fn one_worker(subscribers: u32) -> Fan {
        let (adapter, echo) = (AdapterName::Broadcast, Echo::Any);
        Fan::new(Fanout { publishers: 1, subscribers, topics: 1, adapter, echo, share: 0.0, keys: 0 }, 0, 1)
    }
}
