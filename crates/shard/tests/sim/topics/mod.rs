//! Topics in the simulator: several shards with their mailboxes between them, and people who come, subscribe, publish, read
//! slowly, are cut off and come back; all that they are told goes to the delivery checker.
//!
//! A seed is one or more lives of the gateway. In each people do what they came for; the last one ends calmly, so that it
//! can be judged whether everybody has everything, and that nothing is left when all have gone.

mod attendance;
mod body;
mod cluster;
mod judge;
mod listener;
pub(crate) mod relief;
mod requester;
mod routes;
mod setup;
mod society;
mod socket;
mod told;

use std::{rc::Rc, sync::Arc};

use tidegate_hub::delivery::Event;
use tidegate_io::{Backend, ListenerId};
use tidegate_shard::{Mail, Plan, SPARE_SLOTS, Shard, mailbox_of};
use tidegate_wire::close::CloseCode;

use self::{
    cluster::{Cluster, Place, Way},
    listener::Listener,
    requester::Requester,
    setup::{MOST_SESSIONS, Setup, TOPICS},
    society::{Person, Role, Society, Stage},
    socket::Socket,
};
use super::{
    backend::{SimListener, SimWaker},
    gateway::{Gateway, Surroundings},
    net::{Actor, SECONDS, Trace},
    random::Random,
    removals,
    world::{Bounds, Outcome, World},
};

/// Letters that a shard's own mailbox holds here; the queues on the way to it are what may be full.
const MAILBOX: usize = 1 << 14;

/// Longer than anything is kept that nobody uses: idempotency keys five minutes, histories and pollers less.
const FORGOTTEN: u64 = 420 * SECONDS;

/// How long nothing may have come to anybody before all is where it belongs.
const QUIET: u64 = 3 * SECONDS;

/// Of a seed at most.
const LONGEST: u64 = 4_000 * SECONDS;

/// The name of who asks in the end where each topic is.
const PROBE: u64 = u64::MAX;

/// How a life of the gateway ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// All have what they came for, then all leave.
    Calm,
    /// It is drained while people are busy.
    Drained,
    /// It ends at once while people are busy.
    Stopped,
}

/// Runs a seed.
pub(crate) fn run(seed: u64, trace: Trace) -> Outcome {
    run_as(seed, trace, Setup::draw)
}

/// Runs a seed in which many publish to many.
pub(crate) fn run_crowd(seed: u64, trace: Trace) -> Outcome {
    run_as(seed, trace, Setup::crowd)
}

fn run_as(seed: u64, trace: Trace, draw: fn(&mut Random) -> Setup) -> Outcome {
    let mut random = Random::new(seed ^ 0x746f_7069_6373);
    let setup = draw(&mut random);
    let mut people: Vec<Person> = (0..setup.people).map(|name| Person::new(name, &mut random)).collect();
    let society = Society::new(setup, &mut random);
    let mut outcome = Outcome::default();
    let mut now = SECONDS;
    for life in 0..=society.setup.restarts {
        let last = life == society.setup.restarts;
        let ending = match (last, random.below(8)) {
            (true, 0) | (false, 0..=3) => Ending::Drained,
            (true, _) => Ending::Calm,
            (false, _) => Ending::Stopped,
        };
        if life > 0 {
            society.judge.borrow_mut().observe(Event::Restart);
        }
        society.stage.set(Stage::Busy);
        let one = Life::new(&society, seed ^ u64::from(life) << 48, trace, now, &mut random);
        people = one.run(people, ending, &mut random, &mut outcome);
        now = outcome.time + random.range(0..=5 * SECONDS);
    }
    let judge = society.judge.borrow();
    judge.check_once();
    let raw = judge.check_raw(setup::disconnects);
    let summary = judge.summary();
    for (what, count) in [
        ("published", summary.published),
        ("received", summary.receipts),
        ("gaps", summary.gaps),
        ("recovered", summary.recovered),
        ("not recovered", summary.not_recovered),
        ("conflated", summary.conflated),
        ("raw, one behind the other", raw),
    ] {
        *outcome.covered.entry(format!("topics: {what}")).or_default() += count;
    }
    for (what, count) in &society.routes.borrow().covered {
        *outcome.covered.entry(what.to_string()).or_default() += count;
    }
    for (what, count) in &judge.gaps {
        *outcome.covered.entry(format!("told: {what}")).or_default() += count;
    }
    outcome
}

/// The gateway from one start to its end.
struct Life {
    society: Rc<Society>,
    cluster: Cluster,
    plan: Arc<Plan>,
    start: u64,
    /// Until then other generations come.
    settled: u64,
}

impl Life {
    fn new(society: &Rc<Society>, seed: u64, trace: Trace, now: u64, random: &mut Random) -> Life {
        let setup = &society.setup;
        let text = setup.text();
        let config = tidegate_config::parse(&text, "seed.toml").unwrap_or_else(|problems| {
            let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
            panic!("{}\n{text}", problems.join("\n"))
        });
        let plan = Plan::with_limits(config, setup.shards, &[], |limits| {
            limits.letters = setup.letters;
            limits.memory_bytes = setup.memory.unwrap_or(limits.memory_bytes);
        });
        let worlds: Vec<World> = (0..setup.shards as u64)
            .map(|shard| {
                let world = World::new(seed ^ shard << 56, trace);
                world.net.borrow_mut().now = now;
                world
            })
            .collect();
        worlds[0].net.borrow().say(|| format!("{setup:?}\n{text}"));
        let mut ways = Vec::new();
        let mut peers: Vec<Vec<_>> = Vec::new();
        let backends: Vec<_> = worlds.iter().map(World::backend).collect();
        for from in 0..setup.shards {
            peers.push(Vec::new());
            for to in 0..setup.shards {
                // The letter takes its time (`Cluster`); nobody is woken before.
                let (sender, mailbox) = mailbox_of(SimWaker::default(), setup.mailbox);
                peers[from].push(sender);
                let way = Way::new(from, to, mailbox, setup.mailbox);
                worlds[from].net.borrow_mut().queues.push(way.queue());
                ways.push(way);
            }
        }
        let places = worlds.into_iter().zip(backends).zip(peers).enumerate();
        let places = places.map(|(id, ((world, backend), peers))| {
            let (letters, letterbox) = mailbox_of(backend.waker(), MAILBOX);
            let surroundings = Surroundings::new(random.fork(), trace);
            let mut shard =
                Shard::new(id as u16, backend, surroundings, Arc::clone(&plan), letterbox, MOST_SESSIONS);
            shard.meet(peers);
            let backlog = *random.pick(&[1, 4, 128]);
            shard.listen(ListenerId(0), SimListener { backlog }).expect("it is the first one");
            // What is counted besides must change nothing.
            if seed % 2 == 1 {
                shard.account_to(Arc::default());
            }
            let gateway = Gateway::new(shard, setup.ping_interval > 0);
            Place::new(world, gateway, letters, bounds(setup))
        });
        let places = places.collect();
        let mut cluster = Cluster { places, ways, random: random.fork(), delay: setup.delay, letters: 0 };
        society.routes.borrow_mut().begin();
        let settled = routes::come(&mut cluster, society, &plan, seed, now);
        Life { society: Rc::clone(society), cluster, plan, start: now, settled }
    }

    /// Runs it to its end; who was there is there again afterwards.
    fn run(
        mut self,
        mut people: Vec<Person>,
        ending: Ending,
        random: &mut Random,
        outcome: &mut Outcome,
    ) -> Vec<Person> {
        let society = Rc::clone(&self.society);
        let span = society.setup.span;
        let count = people.len();
        society.busy.set(count);
        society.presence.borrow_mut().begin();
        for mut person in people.drain(..) {
            person.visits = random.range(0..=4) as u32;
            let start = self.start + random.below(span);
            invite(&mut self.cluster, &society, person, start);
        }
        self.plan_faults(span, random);
        if ending == Ending::Calm {
            self.be_busy(&mut people);
            self.calm_down(&mut people, random);
            self.say_goodbye(&mut people);
        } else {
            let until = self.start + random.range(span / 4..=2 * span);
            self.go_on(until, &mut people);
        }
        society.stage.set(Stage::Leaving);
        self.end(ending, &mut people);
        if ending != Ending::Stopped {
            let newest = society.routes.borrow_mut().newest.take();
            removals::check_end(&newest.unwrap_or_else(|| Arc::clone(&self.plan)));
        }
        assert_eq!(people.len(), count, "somebody is missing");
        self.close(outcome);
        people
    }

    /// Resets by the network, and jumps of the clock, which is one for all shards.
    fn plan_faults(&mut self, span: u64, random: &mut Random) {
        let jump = (random.below(8) == 0).then(|| {
            let by = *random.pick(&[SECONDS, 6 * SECONDS, 40 * SECONDS]);
            (self.start + random.below(span), random.range(by / 2..=by))
        });
        for place in &self.cluster.places {
            let mut net = place.world.net.borrow_mut();
            if let Some((time, by)) = jump {
                net.jump_at(time, by);
            }
            for _ in 0..net.swarm.rate(super::faults::Fault::Reset) {
                let time = self.start + random.below(2 * span);
                net.strike_at(time);
            }
        }
    }

    /// Lets the world go on until then; whether any shard does.
    fn go_on(&mut self, until: u64, people: &mut Vec<Person>) -> bool {
        let society = Rc::clone(&self.society);
        let latest = self.start + LONGEST;
        assert!(until < latest || until == u64::MAX, "no end: {:?}", unfinished(&self.cluster));
        self.cluster.run(until, |cluster| {
            let back: Vec<_> = society.back.borrow_mut().drain(..).collect();
            for (person, next) in back {
                match next {
                    Some(time) => invite(cluster, &society, person, time),
                    None => people.push(person),
                }
            }
            let astray = cluster.places.iter().any(|place| place.now() > latest);
            assert!(!astray, "no end: {:?}", unfinished(cluster));
        })
    }

    /// Until nobody has anything left to do.
    fn be_busy(&mut self, people: &mut Vec<Person>) {
        let mut until = self.start;
        while self.society.busy.get() > 0 || until < self.settled {
            until += SECONDS / 4;
            self.go_on(until, people);
        }
        self.society.stage.set(Stage::Calm);
        self.cluster.poke_all(until);
        self.start = until;
    }

    /// Until nothing comes to anybody any more; then all have what they should have.
    fn calm_down(&mut self, people: &mut Vec<Person>, random: &mut Random) {
        let (mut until, mut heard, mut since) = (self.start, 0, self.start);
        while until < since + QUIET {
            until += SECONDS / 4;
            self.go_on(until, people);
            let now_heard = self.society.judge.borrow().heard + self.cluster.letters;
            if now_heard != heard {
                (heard, since) = (now_heard, until);
            }
        }
        let society = Rc::clone(&self.society);
        society.newest.borrow_mut().clear();
        society.presence.borrow_mut().counted.clear();
        let changes = society.presence.borrow().changes;
        // A probe may be cut off as anybody may.
        for _ in 0..20 {
            until = self.probe(until, people, random);
            if society.newest.borrow().len() == TOPICS.len() {
                break;
            }
        }
        // Where somebody was cut off meanwhile, the answers are of other times.
        if society.presence.borrow().changes == changes {
            let judged = society.presence.borrow().check(society.is_short());
            let mut net = self.cluster.places[0].world.net.borrow_mut();
            net.cover(format!("presence: {}", if judged > 0 { "judged" } else { "nobody" }));
        }
        let newest = society.newest.borrow();
        assert_eq!(newest.len(), TOPICS.len(), "nobody could tell where all topics are");
        let newest = newest.iter().filter_map(|(topic, at)| Some((topic.clone(), (*at)?))).collect();
        let summary = society.judge.borrow_mut().finish(&newest);
        let what = if summary.converged > 0 { "converged" } else { "nobody to converge" };
        self.cluster.places[0].world.net.borrow_mut().cover(format!("topics: {what}"));
        self.start = until;
    }

    /// Has somebody ask where each topic is.
    fn probe(&mut self, mut until: u64, people: &mut Vec<Person>, random: &mut Random) -> u64 {
        let society = Rc::clone(&self.society);
        let index = random.index(self.cluster.places.len());
        society.busy.set(society.busy.get() + 1);
        let person = Person::new(PROBE, random);
        self.cluster.with(index, until, |net| {
            let start = net.now;
            let probe = net.add_actor(Box::new(Requester::probe(&society, person, start)));
            net.wake_at(probe, start);
        });
        while !people.iter().any(|person| person.name == PROBE) {
            until += SECONDS / 4;
            self.go_on(until, people);
        }
        people.retain(|person| person.name != PROBE);
        until
    }

    /// All leave; in the end nothing is known of anybody.
    fn say_goodbye(&mut self, people: &mut Vec<Person>) {
        self.society.stage.set(Stage::Leaving);
        self.cluster.poke_all(self.start);
        let mut until = self.start;
        while self.cluster.places.iter().any(|place| place.world.net.borrow().unfinished > 0) {
            until += SECONDS / 4;
            self.go_on(until, people);
        }
        until += FORGOTTEN;
        self.go_on(until, people);
        for (index, place) in self.cluster.places.iter().enumerate() {
            let gateway = place.gateway.as_ref().expect("nobody has ended it");
            let seen = gateway.shard.inspect();
            assert!(!seen.topics, "shard {index} still knows something of topics");
        }
        assert_eq!(self.plan.topics_held(), (0, 0, 0), "topics, subscriptions, bytes of publications");
        self.start = until;
    }

    fn end(&mut self, ending: Ending, people: &mut Vec<Person>) {
        for index in 0..self.cluster.places.len() {
            let letters = self.cluster.places[index].letters.clone();
            self.cluster.with(index, self.start, |net| match ending {
                Ending::Stopped => {
                    let time = net.now;
                    let stop = move || letters.order(Mail::Stop);
                    net.stop_at(time, Box::new(stop));
                }
                Ending::Calm | Ending::Drained => {
                    let code = CloseCode::new(1001).expect("a code");
                    let drain = move || letters.order(Mail::Drain(code));
                    let time = net.now;
                    net.drain_at(Some(time), Box::new(drain));
                }
            });
        }
        while self.go_on(u64::MAX, people) {}
        let back: Vec<_> = self.society.back.borrow_mut().drain(..).collect();
        people.extend(back.into_iter().map(|(person, _)| person));
    }

    fn close(self, outcome: &mut Outcome) {
        let Life { cluster, plan, .. } = self;
        let Cluster { mut places, ways, .. } = cluster;
        let outcomes: Vec<_> = places.iter_mut().map(|place| place.outcome.take()).collect();
        // Letters that nobody has read go with their mailboxes.
        drop((places, ways));
        for one in outcomes {
            let one = one.expect("it has ended");
            outcome.fired.add(&one.fired);
            outcome.turns += one.turns;
            outcome.time = outcome.time.max(one.time);
            outcome.history = outcome.history.rotate_left(7) ^ one.history;
            for (what, count) in one.covered {
                *outcome.covered.entry(what).or_default() += count;
            }
        }
        assert_eq!(plan.retained_bytes(), 0, "bytes count as retained after the end");
        assert_eq!(plan.topics_held(), (0, 0, 0), "topics, subscriptions, bytes of publications");
    }
}

/// Somebody comes to one of the shards.
fn invite(cluster: &mut Cluster, society: &Rc<Society>, mut person: Person, time: u64) {
    let index = person.random.index(cluster.places.len());
    cluster.with(index, 0, |net| {
        let actor: Box<dyn Actor> = match person.role {
            Role::Speaker | Role::Raw => Box::new(Socket::new(society, person, time)),
            Role::Listener => Box::new(Listener::new(society, person, time)),
            Role::Poller | Role::Poster => Box::new(Requester::new(society, person, time)),
        };
        let actor = net.add_actor(actor);
        net.wake_at(actor, time);
    });
}

fn unfinished(cluster: &Cluster) -> Vec<String> {
    cluster.places.iter().flat_map(|place| place.world.net.borrow().unfinished_actors()).collect()
}

fn bounds(setup: &Setup) -> Bounds {
    Bounds {
        slots: (MOST_SESSIONS + SPARE_SLOTS) as u32,
        outbox: setup.session_bytes + (1 << 20),
        inflaters: 64,
        partial_per_slot: (1 << 20) + (64 << 10),
        timed: true,
        turn_bytes: 64 << 20,
        shares: true,
    }
}
