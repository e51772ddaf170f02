//! Several shards in one world: each has its own kernel and clients, all have one time, and letters between them take
//! theirs.
//!
//! Who comes first is who has something to do first; a shard's kernel waits no further than to the next event of another
//! (`Net::horizon`). So one seed has one history, and what one shard does nobody sees before it is done.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use tidegate_shard::{Mail, Mailbox, Sender};

use super::super::{
    backend::SimWaker,
    gateway::Gateway,
    net::Net,
    random::Random,
    world::{Bounds, Outcome, Watch, World},
};

/// One shard and its surroundings.
pub(crate) struct Place {
    pub(crate) world: World,
    pub(crate) gateway: Option<Gateway>,
    pub(crate) letters: Sender<SimWaker>,
    watch: Watch,
    bounds: Bounds,
    /// When it has something to do next.
    due: u64,
    /// A queue was full behind its last turn: its letters are tried again.
    full: bool,
    pub(crate) outcome: Option<Outcome>,
}

/// The way of letters from one shard to another.
pub(crate) struct Way {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) mailbox: Rc<RefCell<Mailbox>>,
    /// Letters that were given a time, and the last such time.
    underway: Rc<Cell<usize>>,
    room: usize,
    last: u64,
}

impl Way {
    pub(crate) fn new(from: usize, to: usize, mailbox: Mailbox, room: usize) -> Way {
        Way { from, to, mailbox: Rc::new(RefCell::new(mailbox)), underway: Rc::default(), room, last: 0 }
    }
}

impl Way {
    /// What the sender's kernel looks at.
    pub(crate) fn queue(&self) -> (Rc<RefCell<Mailbox>>, Rc<Cell<usize>>) {
        (Rc::clone(&self.mailbox), Rc::clone(&self.underway))
    }
}

impl Place {
    pub(crate) fn new(world: World, gateway: Gateway, letters: Sender<SimWaker>, bounds: Bounds) -> Place {
        let due = world.net.borrow().now;
        Place {
            world,
            gateway: Some(gateway),
            letters,
            watch: Watch::default(),
            bounds,
            due,
            full: false,
            outcome: None,
        }
    }

    pub(crate) fn now(&self) -> u64 {
        self.world.net.borrow().now
    }
}

/// All shards of one life of the gateway.
pub(crate) struct Cluster {
    pub(crate) places: Vec<Place>,
    pub(crate) ways: Vec<Way>,
    pub(crate) random: Random,
    /// Longest time of a letter on its way.
    pub(crate) delay: u64,
    /// When its letters wait for nothing.
    pub(crate) letters: u64,
}

impl Cluster {
    /// Runs until `until`, or the end of all shards; whether any of them goes on.
    pub(crate) fn run(&mut self, until: u64, mut between: impl FnMut(&mut Cluster)) -> bool {
        loop {
            let alive = |place: &Place| place.gateway.is_some();
            let first = (0..self.places.len())
                .filter(|&index| alive(&self.places[index]))
                .min_by_key(|&index| (self.places[index].due, index));
            let Some(index) = first else { return false };
            if self.places[index].due >= until {
                assert!(until != u64::MAX, "all shards wait for ever");
                return true;
            }
            let others =
                self.places.iter().enumerate().filter(|(other, place)| *other != index && alive(place));
            let horizon = others.map(|(_, place)| place.due).min().unwrap_or(u64::MAX).min(until);
            self.step(index, horizon);
            between(self);
        }
    }

    fn step(&mut self, index: usize, horizon: u64) {
        let Place { world, gateway, watch, bounds, due, outcome, full, .. } = &mut self.places[index];
        let asleep = {
            let mut net = world.net.borrow_mut();
            net.horizon = Some(horizon);
            // What waits for room in a queue is tried again in each turn: letters, and commands that publish.
            net.asleep &= !*full;
            net.asleep
        };
        let subject = gateway.as_mut().expect("it goes on");
        let goes_on = watch.turn(world, subject, bounds);
        let now = world.net.borrow().now;
        *due = world.net.borrow().waits.unwrap_or(now);
        if !goes_on {
            let subject = gateway.take().expect("it was there");
            *outcome = Some(world.finish(subject, std::mem::take(watch)));
        }
        let posted = self.post(index, now);
        assert!(!asleep || !posted, "the shard waited, though it had letters to post");
        let mut ways = self.ways.iter().filter(|way| way.from == index);
        self.places[index].full = ways.any(|way| way.mailbox.borrow().waiting() == way.room);
    }

    /// Has the letters of a shard's turn on their way.
    fn post(&mut self, from: usize, now: u64) -> bool {
        let mut posted = false;
        for way in self.ways.iter_mut().filter(|way| way.from == from) {
            let waiting = way.mailbox.borrow().waiting();
            while way.underway.get() < waiting {
                posted = true;
                way.underway.set(way.underway.get() + 1);
                self.letters += 1;
                let slow = if self.random.below(8) == 0 { self.delay } else { self.delay / 20 };
                way.last = way.last.max(now + self.random.range(0..=slow));
                let (to, arrives) = (way.to, way.last);
                let say = || format!("letters from {from} to {to}, there at {arrives}");
                self.places[from].world.net.borrow().say(say);
                let place = &mut self.places[way.to];
                let (mailbox, to) = (Rc::clone(&way.mailbox), place.letters.clone());
                let underway = Rc::clone(&way.underway);
                let letter = move || {
                    underway.set(underway.get() - 1);
                    let mail = mailbox.borrow().take().expect("it was counted");
                    assert!(to.send(mail).is_ok(), "the mailbox has room");
                };
                place.world.net.borrow_mut().post_at(way.last, Box::new(letter));
                place.due = place.due.min(way.last);
            }
        }
        posted
    }

    /// Does something with the kernel of a shard, now.
    pub(crate) fn with<T>(&mut self, index: usize, now: u64, act: impl FnOnce(&mut Net) -> T) -> T {
        let place = &mut self.places[index];
        let mut net = place.world.net.borrow_mut();
        net.now = net.now.max(now);
        let done = act(&mut net);
        place.due = place.due.min(net.now);
        done
    }

    /// Everybody looks up.
    pub(crate) fn poke_all(&mut self, now: u64) {
        for index in 0..self.places.len() {
            self.with(index, now, Net::poke_all);
        }
    }

    pub(crate) fn send(&self, index: usize, mail: Mail) {
        assert!(self.places[index].letters.send(mail).is_ok(), "the mailbox has room");
    }
}
