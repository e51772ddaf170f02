//! Those who come, what they remember between two visits, and what all of them share.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
};

use tidegate_hub::{Position, delivery::Event};

use super::{
    super::{
        link::{Link, Pace},
        net::{ActorId, Excuse, MILLIS, Net, SECONDS},
        random::Random,
        removals::Seen,
    },
    attendance::Attendance,
    judge::Judge,
    routes::{Kind, Routes},
    setup::{Setup, TOPICS},
};

/// How long somebody waits for an answer.
pub(crate) const PATIENCE: u64 = 60 * SECONDS;

/// How far a life of the gateway is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// People do what they came for.
    Busy,
    /// Nobody publishes; everybody reads.
    Calm,
    /// Everybody leaves.
    Leaving,
}

/// What somebody comes as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Speaks the protocol.
    Speaker,
    /// Knows one topic and nothing of the protocol.
    Raw,
    /// Reads server-sent events.
    Listener,
    Poller,
    /// Publishes over HTTP.
    Poster,
}

/// Somebody who comes and goes.
#[derive(Debug)]
pub(crate) struct Person {
    pub(crate) name: u64,
    pub(crate) role: Role,
    pub(crate) random: Random,
    /// The last position in each topic.
    pub(crate) memory: BTreeMap<String, Position>,
    /// Visits that are left in this life of the gateway.
    pub(crate) visits: u32,
}

/// What all of them share.
pub(crate) struct Society {
    pub(crate) setup: Setup,
    pub(crate) judge: RefCell<Judge>,
    pub(crate) stage: Cell<Stage>,
    /// Visits under way, or to come, that are not at rest.
    pub(crate) busy: Cell<usize>,
    /// Who came back from a visit, and when the next one is.
    pub(crate) back: RefCell<Vec<(Person, Option<u64>)>>,
    /// Raw subscribers at rest: the topic, and the last message that came.
    pub(crate) raw: RefCell<BTreeMap<u64, (String, Option<u64>)>>,
    /// What the probe was told of each topic.
    pub(crate) newest: RefCell<BTreeMap<String, Option<Position>>>,
    /// For how long publications were refused for want of memory while nobody was taken one from and nobody has ended, and
    /// when the last one was.
    pub(crate) refusals: Cell<(u64, u64)>,
    pub(crate) presence: RefCell<Attendance>,
    pub(crate) routes: RefCell<Routes>,
}

impl Person {
    pub(crate) fn new(name: u64, random: &mut Random) -> Person {
        let role = match random.below(20) {
            0..=10 => Role::Speaker,
            11 | 12 => Role::Raw,
            13..=15 => Role::Listener,
            16 | 17 => Role::Poller,
            _ => Role::Poster,
        };
        Person { name, role, random: random.fork(), memory: BTreeMap::new(), visits: 0 }
    }

    /// A topic, mostly one of those that it knows.
    pub(crate) fn any_topic(&mut self) -> String {
        let known: Vec<&String> = self.memory.keys().collect();
        if !known.is_empty() && self.random.below(3) > 0 {
            return (*self.random.pick(&known)).clone();
        }
        // Most meet in a few topics.
        let many = if self.random.below(2) == 0 { TOPICS.len() } else { 6 };
        TOPICS[self.random.index(many) * 5 % TOPICS.len()].to_string()
    }

    /// Where it goes on in a topic: where it was, mostly.
    pub(crate) fn recovery(&mut self, topic: &str) -> Option<Position> {
        let mut at = *self.memory.get(topic)?;
        match self.random.below(24) {
            0 => at.offset += self.random.range(1..=9),
            1 => at.epoch.0 ^= 1,
            2 => at.offset = 0,
            _ => {}
        }
        Some(at)
    }

    /// Has a message, or a gap.
    pub(crate) fn remember(&mut self, topic: &str, at: Position) {
        let known = self.memory.entry(topic.to_string()).or_insert(at);
        if known.epoch != at.epoch || known.offset < at.offset {
            *known = at;
        }
    }
}

/// While publications are refused for want of memory somebody ends, or there is room.
const RELIEVED_WITHIN: u64 = 3 * SECONDS;
/// Between two that were refused nothing else counts.
const TRIED_WITHIN: u64 = 300 * MILLIS;

impl Society {
    pub(crate) fn new(setup: Setup, random: &mut Random) -> Rc<Society> {
        Rc::new(Society {
            setup,
            judge: RefCell::new(Judge::new(random.next())),
            stage: Cell::new(Stage::Busy),
            busy: Cell::default(),
            back: RefCell::default(),
            raw: RefCell::default(),
            newest: RefCell::default(),
            refusals: Cell::default(),
            presence: RefCell::default(),
            routes: RefCell::default(),
        })
    }

    /// Whether there may be no memory.
    pub(crate) fn is_short(&self) -> bool {
        self.setup.memory.is_some()
    }

    /// A publication was refused for want of memory.
    ///
    /// # Panics
    /// Where that goes on for too long.
    pub(crate) fn has_refused(&self, now: u64) {
        let (span, last) = self.refusals.get();
        // Answers of shards that were stopped for a while are older than what others have said.
        let more = if last == 0 { 0 } else { now.saturating_sub(last).min(TRIED_WITHIN) };
        self.refusals.set((span + more, last.max(now)));
        assert!(span <= RELIEVED_WITHIN, "there is no memory, and nobody ends for it");
    }

    /// A publication was taken, or somebody has ended: it goes on.
    pub(crate) fn has_gone_on(&self) {
        self.refusals.set((0, 0));
    }
}

/// What every visit has.
pub(crate) struct Visit {
    pub(crate) society: Rc<Society>,
    person: Option<Person>,
    pub(crate) session: u64,
    pub(crate) link: Option<Link>,
    pub(crate) start: u64,
    pub(crate) kind: Kind,
    /// How its route stood when it came, or asked.
    pub(crate) seen: Seen,
    pub(crate) pace: Pace,
    /// Reads nothing until then.
    pub(crate) halted: u64,
    pub(crate) excused: Option<Excuse>,
    pub(crate) progress: u64,
    moved: u64,
    watched: u64,
    at_rest: bool,
    pub(crate) done: bool,
}

impl Visit {
    pub(crate) fn new(society: &Rc<Society>, mut person: Person, start: u64) -> Visit {
        let session = society.judge.borrow_mut().number();
        let full = (usize::MAX, 0);
        let random = &mut person.random;
        let read = *random.pick(&[full, full, full, (2_000, 20 * MILLIS), (700, 100 * MILLIS)]);
        let write = *random.pick(&[full, full, full, (300, 500)]);
        Visit {
            society: Rc::clone(society),
            kind: match person.role {
                Role::Speaker | Role::Raw => Kind::Topics,
                Role::Listener => Kind::Events,
                Role::Poller => Kind::Poll,
                Role::Poster => Kind::Publish,
            },
            person: Some(person),
            session,
            link: None,
            start,
            seen: Seen::default(),
            pace: Pace { read, write },
            halted: 0,
            excused: None,
            progress: start,
            moved: 0,
            watched: 0,
            at_rest: false,
            done: false,
        }
    }

    pub(crate) fn person(&mut self) -> &mut Person {
        self.person.as_mut().expect("it is here until it is done")
    }

    pub(crate) fn person_ref(&self) -> &Person {
        self.person.as_ref().expect("it is here until it is done")
    }

    pub(crate) fn random(&mut self) -> &mut Random {
        &mut self.person().random
    }

    pub(crate) fn observe(&self, event: Event) {
        self.society.judge.borrow_mut().observe(event);
    }

    pub(crate) fn has_dialed(&self) -> bool {
        self.link.is_some()
    }

    /// Who comes later is not concerned, unless the gateway is to end.
    pub(crate) fn excuse(&mut self, why: Excuse) {
        if self.has_dialed() || matches!(why, Excuse::Drain | Excuse::Stop) {
            self.excused.get_or_insert(why);
        }
    }

    pub(crate) fn stage(&self) -> Stage {
        self.society.stage.get()
    }

    /// Comes to its route, or asks it again.
    pub(crate) fn look(&mut self) {
        self.seen = self.society.routes.borrow().seen(self.kind);
    }

    fn cut(&self) -> Option<u64> {
        self.society.routes.borrow().cut(self.kind, self.seen)
    }

    /// Whether its route may have gone since.
    pub(crate) fn is_departed(&self) -> bool {
        self.cut().is_some()
    }

    /// Whether what was left on its route may have been cut off: at the deadline, or as it did not read its end in time.
    pub(crate) fn may_be_cut(&self, now: u64) -> bool {
        self.cut().is_some_and(|cut| cut <= now || self.halted > 0)
    }

    /// Connects. Most have small buffers, so that what is behind is behind in the gateway.
    pub(crate) fn dial(&mut self, net: &mut Net, me: ActorId) {
        let conn = net.dial(me, 0);
        if self.pace.read.1 > 0 || self.random().below(4) > 0 {
            net.narrow(conn);
        }
        self.link = Some(Link::new(conn, self.pace, false));
        self.look();
        self.progress = net.now;
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let Visit { link, person, .. } = self;
        let random = &mut person.as_mut().expect("it is here until it is done").random;
        link.as_mut().expect("it has dialed").send(random, bytes);
    }

    /// The FIN follows what it has sent.
    pub(crate) fn finish(&mut self) {
        self.link.as_mut().expect("it has dialed").finish();
    }

    pub(crate) fn flush(&mut self, net: &mut Net, me: ActorId) {
        if let Some(link) = &mut self.link {
            link.flush(net, me);
        }
    }

    /// What has come, unless it does not read now, and the stream's end.
    pub(crate) fn receive(
        &mut self,
        net: &mut Net,
        me: ActorId,
    ) -> (Vec<u8>, Option<super::super::link::End>) {
        let mut plain = Vec::new();
        if self.stage() != Stage::Busy {
            self.halted = 0;
            self.pace = Pace::FULL;
        }
        if net.now < self.halted {
            return (plain, None);
        }
        let pace = self.pace;
        let Some(link) = &mut self.link else { return (plain, None) };
        link.pace = pace;
        let end = link.receive(net, me, &mut plain);
        (plain, end)
    }

    /// Has nothing more to do but read.
    pub(crate) fn rest(&mut self) {
        if !self.at_rest {
            self.at_rest = true;
            self.society.busy.set(self.society.busy.get() - 1);
        }
    }

    /// The connection is over.
    pub(crate) fn leave(&mut self, net: &mut Net, reset: bool) {
        if self.done {
            return;
        }
        self.done = true;
        // Its next visit may be to another shard, whose time must not be past.
        net.horizon = net.horizon.map(|horizon| horizon.min(net.now));
        self.society.has_gone_on();
        if let Some(link) = &self.link {
            net.close_peer(link.conn, reset);
        }
        let mut person = self.person.take().expect("it was here");
        let again = self.stage() == Stage::Busy && person.visits > 0;
        let wait = *person.random.pick(&[0, 10 * MILLIS, SECONDS, 5 * SECONDS]);
        let next = again.then(|| net.now + person.random.range(0..=wait));
        person.visits = person.visits.saturating_sub(1);
        match (again, self.at_rest) {
            (true, true) => self.society.busy.set(self.society.busy.get() + 1),
            (false, false) => self.society.busy.set(self.society.busy.get() - 1),
            (true, false) | (false, true) => {}
        }
        self.society.back.borrow_mut().push((person, next));
    }

    /// Whether it has waited for too long; `owed`: something is to come.
    pub(crate) fn watch(&mut self, net: &mut Net, me: ActorId, owed: bool) -> bool {
        let moved = self.link.as_ref().map_or(0, |link| link.moved);
        if moved != self.moved || !owed {
            self.moved = moved;
            self.progress = net.now;
        }
        let until = self.progress.max(self.halted) + PATIENCE;
        if net.now >= until && self.excused.is_none() {
            return true;
        }
        if net.now >= self.watched {
            self.watched = until.max(net.now + 10 * SECONDS);
            net.wake_at(me, self.watched);
        }
        false
    }

    pub(crate) fn describe(&self) -> String {
        format!(
            "session {} of {:?}, saw its route {:?}, may be cut off at {:?}, excused {:?}, at rest {}",
            self.session,
            self.person.as_ref().map(|person| (person.name, person.role)),
            self.seen,
            self.cut(),
            self.excused,
            self.at_rest
        )
    }
}
