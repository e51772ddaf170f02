//! One seed's world: a shard, its kernel, the network, the peers; and what must hold after every turn.

use std::{cell::RefCell, collections::BTreeMap, io, rc::Rc};

use super::{
    backend::{Leftovers, SimBackend},
    faults::{Fault, Fired, Swarm},
    kernel::Armed,
    net::{MILLIS, Net, SECONDS, Shared, Stop, Trace},
    random::Random,
};

/// What runs on the simulated backend: the real shard, or a toy that proves the simulator.
pub(crate) trait Subject {
    /// One turn; `false` at the end.
    fn turn(&mut self) -> io::Result<bool>;

    /// What it believes to hold now, between two turns.
    fn inspect(&self) -> Inspection;

    /// Counts what it went through, at the end.
    fn cover(&self, _covered: &mut BTreeMap<String, u64>) {}
}

/// What the subject believes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inspection {
    pub(crate) slots: u32,
    /// Slots by state; their sum.
    pub(crate) legs: u32,
    pub(crate) armed: Armed,
    pub(crate) buffers: u32,
    /// What the counter of retained bytes says, what all outboxes add up to, and what waits in them.
    pub(crate) retained: usize,
    pub(crate) retained_sum: usize,
    pub(crate) outbox_bytes: usize,
    pub(crate) outbox_most: usize,
    pub(crate) partial_bytes: usize,
    /// Slots with and without an entry in the wheel.
    pub(crate) timed: u32,
    pub(crate) untimed: u32,
    /// Slots that may be without.
    pub(crate) excused_untimed: u32,
    pub(crate) inflaters: u32,
    pub(crate) sends: u32,
    /// Bytes that it owns for them.
    pub(crate) turn_bytes: usize,
    pub(crate) listeners: u32,
    /// What it could go on with at once.
    pub(crate) kept: u32,
    /// Legs of routes that are no more whose time to go is over.
    pub(crate) overdue: u32,
    /// Routes with other sessions than are counted.
    pub(crate) miscounted: u32,
}

/// What must not be exceeded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) slots: u32,
    pub(crate) outbox: usize,
    /// Lent ones.
    pub(crate) inflaters: u32,
    /// Of incomplete heads and messages, for each slot.
    pub(crate) partial_per_slot: usize,
    /// Each slot has a deadline.
    pub(crate) timed: bool,
    /// That a turn owns.
    pub(crate) turn_bytes: usize,
    /// What waits in outboxes may be shared, and is then counted where it is.
    pub(crate) shares: bool,
}

/// How a seed went.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) fired: Fired,
    /// What its peers went through, and how often.
    pub(crate) covered: BTreeMap<String, u64>,
    pub(crate) turns: u64,
    /// Virtual microseconds.
    pub(crate) time: u64,
    /// A hash over all turns: equal histories have equal ones.
    pub(crate) history: u64,
}

/// A world before its subject exists.
pub(crate) struct World {
    pub(crate) net: Shared,
    pub(crate) random: Random,
    leftovers: Rc<Leftovers>,
}

/// Turns after which a seed has gone astray.
const MOST_TURNS: u64 = 400_000;

/// Turns that a slot may be without a deadline.
const UNTIMED_TURNS: u32 = 4;

/// Virtual microseconds after which it has.
pub(crate) const LONGEST: u64 = 20_000 * SECONDS;

impl World {
    pub(crate) fn new(seed: u64, trace: Trace) -> World {
        let mut random = Random::new(seed);
        let swarm = Swarm::draw(&mut random);
        let net = Net::new(random.fork(), swarm, trace);
        net.say(|| format!("faults: {:?}", net.swarm.drawn()));
        net.say(|| format!("buffers: {:?} of {} bytes", net.pool.lent().total, net.buffer_bytes));
        World { net: Rc::new(RefCell::new(net)), random, leftovers: Rc::default() }
    }

    pub(crate) fn backend(&self) -> SimBackend {
        SimBackend::new(Rc::clone(&self.net), Rc::clone(&self.leftovers))
    }

    /// Plans the faults that come by time: resets by the network and jumps of the clock, over `span` microseconds.
    pub(crate) fn plan_faults(&mut self, span: u64) {
        let mut net = self.net.borrow_mut();
        for _ in 0..net.swarm.rate(Fault::Reset) {
            let time = net.now + self.random.below(span);
            net.strike_at(time);
        }
        for _ in 0..net.swarm.rate(Fault::ClockJump) {
            let time = net.now + self.random.below(span);
            let by = *self.random.pick(&[SECONDS, 6 * SECONDS, 40 * SECONDS, 600 * SECONDS]);
            net.jump_at(time, self.random.range(by / 2..=by));
        }
    }

    /// Runs a subject to its end, checking after every turn.
    ///
    /// # Panics
    /// Where anything is not as it must be.
    pub(crate) fn run<S: Subject>(self, mut subject: S, bounds: &Bounds) -> Outcome {
        let mut watch = Watch::default();
        while watch.turn(&self, &mut subject, bounds) {}
        self.finish(subject, watch)
    }

    /// What must be so behind a subject's last turn.
    ///
    /// # Panics
    /// Where it is not.
    pub(crate) fn finish<S: Subject>(&self, subject: S, watch: Watch) -> Outcome {
        subject.cover(&mut self.net.borrow_mut().covered);
        let seen = subject.inspect();
        if self.net.borrow().stop == Stop::Never {
            self.check_end(&seen);
            self.settle();
            drop(subject);
        } else {
            self.check_stop(&seen);
            drop(subject);
            self.net.borrow_mut().end_process(&self.leftovers.take());
            self.check_end(&Inspection::default());
            self.settle();
        }
        let net = self.net.borrow();
        let mut outcome = watch.outcome;
        outcome.fired = net.fired.clone();
        outcome.covered = net.covered.clone();
        outcome.time = net.now;
        outcome
    }

    fn check(&self, seen: &Inspection, bounds: &Bounds, untimed_turns: u32, goes_on: bool) {
        let net = self.net.borrow();
        assert!(seen.legs == seen.slots, "{} legs by state in {} slots", seen.legs, seen.slots);
        // A shard that has ended at once has dropped ends of receives that its sessions were not told of.
        let dropped = net.stop == Stop::Told && !goes_on;
        assert!(
            dropped || seen.armed == net.armed(),
            "the shard believes {:?}, the kernel {:?}",
            seen.armed,
            net.armed()
        );
        let lent = net.lent().lent;
        assert!(seen.buffers == lent, "the shard holds {} buffers, {lent} are lent", seen.buffers);
        assert!(
            seen.retained == seen.retained_sum && (bounds.shares || seen.retained >= seen.outbox_bytes),
            "{} bytes counted as retained, {} are, {} wait",
            seen.retained,
            seen.retained_sum,
            seen.outbox_bytes
        );
        assert!(
            seen.timed + seen.untimed == seen.slots && (!bounds.timed || untimed_turns <= UNTIMED_TURNS),
            "{} slots with a deadline and {} without, of {}",
            seen.timed,
            seen.untimed,
            seen.slots
        );
        assert!(seen.overdue == 0, "{} are left of routes that are no more", seen.overdue);
        assert!(seen.miscounted == 0, "{} routes have other sessions than are counted", seen.miscounted);
        assert!(seen.slots <= bounds.slots, "{} slots of {}", seen.slots, bounds.slots);
        assert!(seen.inflaters <= bounds.inflaters, "{} inflaters of {}", seen.inflaters, bounds.inflaters);
        assert!(
            seen.outbox_most <= bounds.outbox,
            "{} bytes in an outbox of {}",
            seen.outbox_most,
            bounds.outbox
        );
        assert!(
            seen.turn_bytes <= bounds.turn_bytes,
            "a turn owns {} bytes of {}",
            seen.turn_bytes,
            bounds.turn_bytes
        );
        let partial = bounds.partial_per_slot * seen.slots as usize;
        assert!(
            seen.partial_bytes <= partial,
            "{} bytes of incomplete heads and messages",
            seen.partial_bytes
        );
    }

    /// A shard that ends at once gives its buffers back; the rest goes with it.
    fn check_stop(&self, seen: &Inspection) {
        let mut net = self.net.borrow_mut();
        assert!(seen.buffers == 0, "it holds {} buffers at its stop", seen.buffers);
        let had = [
            ("sessions", u64::from(seen.slots)),
            ("retained bytes", seen.retained as u64),
            ("inflaters", u64::from(seen.inflaters)),
            ("partial bytes", seen.partial_bytes as u64),
            ("sends", u64::from(seen.sends)),
            ("connects", u64::from(seen.armed.connects)),
        ];
        for (what, _) in had.iter().filter(|(_, count)| *count > 0) {
            net.cover(format!("stopped: {what}"));
        }
        net.cover(format!("stopped: {}", if seen.listeners > 0 { "at once" } else { "in a drain" }));
    }

    fn check_end(&self, seen: &Inspection) {
        // What the last turn has made of its input goes with the subject.
        let seen = Inspection { turn_bytes: 0, ..seen.clone() };
        assert!(seen == Inspection::default(), "not all is over at the end: {seen:?}");
        let net = self.net.borrow();
        assert!(net.armed() == Armed::default(), "left in the kernel at the end: {:?}", net.armed());
        assert!(net.lent().lent == 0, "{} buffers are lent at the end", net.lent().lent);
        assert!(net.listeners.values().all(|listening| !listening.open), "a listener is open at the end");
    }

    /// Lets the peers see the end of their connections.
    fn settle(&self) {
        let mut net = self.net.borrow_mut();
        net.end_process(&[]);
        let limit = net.now + 10_000 * SECONDS;
        while net.unfinished > 0 {
            let Some(next) = net.next_time().filter(|next| *next < limit) else {
                panic!("the shard has ended, but not: {:?}", net.unfinished_actors());
            };
            net.now = net.now.max(next);
            net.run_due();
        }
    }
}

/// What is remembered of a subject's turns.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    outcome: Outcome,
    untimed_turns: u32,
    kept: u32,
}

impl Watch {
    /// One turn; `false` at the end.
    ///
    /// # Panics
    /// Where anything is not as it must be behind it.
    pub(crate) fn turn<S: Subject>(&mut self, world: &World, subject: &mut S, bounds: &Bounds) -> bool {
        let (now, jumps) = (world.net.borrow().now, world.net.borrow().jumps);
        world.net.borrow_mut().begun = true;
        let goes_on = subject.turn().expect("the simulated backend as a whole does not break");
        world.net.borrow_mut().check_fairness();
        let seen = subject.inspect();
        // Between a last byte and its FIN a slot may be without a deadline: the next turn does not wait.
        self.untimed_turns = if seen.untimed > seen.excused_untimed { self.untimed_turns + 1 } else { 0 };
        world.check(&seen, bounds, self.untimed_turns, goes_on);
        let slept = world.net.borrow().now - now;
        assert!(
            self.kept == 0 || slept < MILLIS || world.net.borrow().jumps > jumps,
            "a turn of {slept} µs, though {} events were kept for it",
            self.kept
        );
        self.kept = seen.kept;
        world.net.borrow_mut().kept = self.kept;
        let outcome = &mut self.outcome;
        outcome.turns += 1;
        outcome.history = mix(outcome.history, &seen, world.net.borrow().now);
        assert!(
            !goes_on || outcome.turns < MOST_TURNS,
            "no end after {MOST_TURNS} turns: {:?}",
            world.net.borrow().unfinished_actors()
        );
        goes_on
    }
}

fn mix(hash: u64, seen: &Inspection, now: u64) -> u64 {
    let words = [
        now,
        u64::from(seen.slots) << 32 | u64::from(seen.sends),
        u64::from(seen.armed.receives) << 32 | u64::from(seen.armed.polls),
        (seen.retained as u64) << 32 | seen.partial_bytes as u64,
    ];
    words.iter().fold(hash, |hash, word| super::random::splitmix64(hash ^ word))
}
