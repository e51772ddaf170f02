//! A gateway with all who use it: what a seed makes them do, and the calm in which everyone must be where its topics are.
//!
//! One thread plays everybody, in turns: so the history has one order, and what a client saw is in it before anybody does
//! what could follow from it. Nothing waits for a time, only for events.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use fastrand::Rng;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::Signal,
};
use serde_json::Value;
use tidegate_hub::{Position, delivery::Summary};

use crate::{
    harness::{client::Client, gateway::Gateway},
    ledger::{Checked, Format, Ledger, wrong},
    person::{Pace, Person, Role},
    poller::Poller,
    poster::Poster,
    raw::Raw,
    stream::Stream,
    talker::{Talker, position_of},
};

/// By policy; `plain` keeps nothing.
const TOPICS: [&str; 8] = ["plain/a", "plain/b", "kept/a", "kept/b", "old/a", "new/a", "conf/a", "sync/a"];
/// Those whose slow subscribers stay.
const PATIENT: [&str; 4] = ["old/a", "new/a", "conf/a", "sync/a"];

/// What is published may be so far ahead of who gets all of it.
const MOST_UNDER_WAY_BYTES: usize = 512 << 10;
/// After so many publications everybody who reads is waited for.
const BETWEEN_BARRIERS: u64 = 1_500;
/// Many times what the kernels take for a connection with a small window, and what may wait for a session.
const FLOOD_BYTES: usize = 4 << 20;
/// How long anything may take that is due.
const PATIENCE: Duration = Duration::from_secs(60);

const CONFIG: &str = r#"
version = 1
[limits]
ping_interval = "300s"
write_timeout = "300s"
head_timeout = "300s"
close_timeout = "60s"
receive_buffers = 64
[[listener]]
bind = "127.0.0.1:0"
[[topic]]
name = "kept/**"
history = 400
history_age = "1h"
presence = true
[[topic]]
name = "old/**"
slow = "drop_old"
backlog_bytes = "128KiB"
history = 50
history_age = "1h"
[[topic]]
name = "new/**"
slow = "drop_new"
[[topic]]
name = "conf/**"
slow = "conflate"
keys = 100
[[topic]]
name = "sync/**"
slow = "resync"
[[route]]
path = "/topics/*"
topics = { subscribe = ["**"], publish = ["**"], presence = ["**"], session_bytes = "4MiB" }
[[route]]
path = "/slow/*"
topics = { subscribe = ["**"], publish = ["**"], session_bytes = "16KiB" }
[[route]]
path = "/events"
events = { subscribe = ["**"], session_bytes = "4MiB" }
[[route]]
path = "/slow-events"
events = { subscribe = ["**"], session_bytes = "16KiB" }
[[route]]
path = "/poll"
poll = { subscribe = ["**"], session_bytes = "64KiB" }
[[route]]
path = "/publish/*"
publish = { publish = ["**"], rate = 1_000_000 }
"#;

/// What a run is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup<'s> {
    pub(crate) io: &'s str,
    pub(crate) shards: &'s str,
    pub(crate) seed: u64,
    /// How often the gateway is started.
    pub(crate) lives: u32,
    /// What is published in each life, beside floods.
    pub(crate) publications: u64,
    /// How often in each life so much is published that who does not read falls behind.
    pub(crate) floods: u64,
}

pub(crate) struct World<'s> {
    setup: Setup<'s>,
    start: &'s dyn Fn(&str, &[&str]) -> Gateway,
    gateway: Gateway,
    random: Rng,
    people: Vec<Person>,
    pub(crate) ledger: Ledger,
}

/// The first of the people gets all of it, and never goes.
const WITNESS: usize = 0;

fn people() -> Vec<Person> {
    let talker = |filters: &[&str]| Person::new(Role::Talker(Talker::new("/topics", filters)));
    let slow = |filters: &[&str]| Person::new(Role::Talker(Talker::new("/slow", filters))).that_is_slow();
    vec![
        talker(&TOPICS),
        talker(&[]).that_publishes(),
        talker(&[]).that_publishes().that_roams(),
        talker(&["kept/a", "old/a"]).that_publishes().that_roams(),
        talker(&["kept/a", "kept/b", "plain/a"]).that_roams(),
        talker(&["kept/b", "plain/b", "conf/a", "sync/a"]).that_roams(),
        Person::new(Role::Talker(Talker::new("/topics", &["kept/a", "new/a", "conf/a"]).that_inflates()))
            .that_roams(),
        talker(&["kept/*", "*/a"]).that_roams(),
        talker(&["plain/**", "kept/b", "kept/**"]).that_roams(),
        slow(&PATIENT),
        slow(&PATIENT),
        slow(&["old/a", "sync/a", "kept/b"]),
        slow(&["plain/a", "kept/a"]),
        Person::new(Role::Raw(Raw::new("/topics", "plain/a"))).that_publishes(),
        Person::new(Role::Raw(Raw::new("/topics", "kept/a"))).that_roams(),
        Person::new(Role::Raw(Raw::new("/slow", "plain/b"))).that_is_slow(),
        Person::new(Role::Stream(Stream::new("/events", &["kept/a", "plain/b", "conf/*"]))).that_roams(),
        Person::new(Role::Stream(Stream::new("/slow-events", &PATIENT))).that_is_slow(),
        Person::new(Role::Poller(Poller::new(&["kept/a", "kept/b", "old/a"]))).that_roams(),
        Person::new(Role::Poller(Poller::new(&["kept/b"]))),
        Person::new(Role::Poster(Poster::default())).that_publishes(),
    ]
}

impl<'s> World<'s> {
    /// `start` starts a gateway with a configuration and arguments.
    pub(crate) fn new(setup: Setup<'s>, start: &'s dyn Fn(&str, &[&str]) -> Gateway) -> World<'s> {
        let gateway = start(CONFIG, &["--io", setup.io, "--shards", setup.shards]);
        let ledger = Ledger::new(setup.seed, |topic| topic.starts_with("conf/"));
        World { setup, start, gateway, random: Rng::with_seed(setup.seed), people: people(), ledger }
    }

    /// All lives of the gateway; what was checked.
    pub(crate) fn run(&mut self) -> Checked<Summary> {
        for life in 1..=self.setup.lives {
            self.live()?;
            if life == self.setup.lives {
                break;
            }
            // Some end in the calm, some in the middle of it all; some are killed.
            if self.random.usize(..2) == 0 {
                self.settle()?;
            }
            self.restart()?;
        }
        self.settle()
    }

    fn live(&mut self) -> Checked {
        self.all_connect();
        self.ledger.witness = self.people[WITNESS].session;
        self.wait("all to be there", |world| world.people.iter().all(Person::is_idle))?;
        let first = self.ledger.published;
        let mut barrier = first + BETWEEN_BARRIERS;
        let mut floods = 0;
        loop {
            let published = self.ledger.published - first;
            if published * (self.setup.floods + 1) > (floods + 1) * self.setup.publications {
                if floods == self.setup.floods {
                    return Ok(());
                }
                floods += 1;
                self.flood()?;
            }
            if self.ledger.published >= barrier {
                self.meet()?;
                barrier = self.ledger.published + BETWEEN_BARRIERS;
            }
            self.act()?;
            self.turn(Duration::ZERO)?;
        }
    }

    /// One thing that somebody does.
    fn act(&mut self) -> Checked {
        let place = self.random.usize(..self.people.len());
        let published = self.ledger.published;
        let person = &mut self.people[place];
        if person.wire.is_none() {
            if person.back_at <= published {
                person.connect(self.gateway.address(), &mut self.ledger);
                if place == WITNESS {
                    self.ledger.witness = person.session;
                }
            }
            return Ok(());
        }
        if person.publishes && self.random.usize(..8) > 0 {
            let many = 1 + self.random.usize(..64);
            return self.publish(place, many, &TOPICS, 120);
        }
        let what = self.random.usize(..16);
        match &mut person.role {
            Role::Talker(talker) if what < 3 && place != WITNESS && talker.is_idle() => {
                if let Some(wire) = &mut person.wire {
                    talker.turn_over(wire, &mut self.ledger);
                }
            }
            _ if what == 3 && person.roams => self.cut(place)?,
            _ if what == 4 && person.pace == Pace::Slow => {
                person.halt(published + self.random.usize(..500) as u64);
            }
            _ => {}
        }
        Ok(())
    }

    /// One of the connections ends in the middle of whatever it does.
    fn cut(&mut self, place: usize) -> Checked {
        let person = &mut self.people[place];
        if let Some(wire) = person.leave(&mut self.ledger)? {
            self.ledger.counts.cuts += 1;
            person.back_at = self.ledger.published + self.random.usize(..300) as u64;
            // Else it is closed: with a reset too, where something is unread.
            if self.random.usize(..2) == 0 {
                wire.reset();
            }
        }
        Ok(())
    }

    /// Somebody publishes some messages, as far as there is room for them.
    fn publish(&mut self, place: usize, many: usize, topics: &[&str], pad_most: usize) -> Checked {
        let person = &mut self.people[place];
        if !person.may_publish() || self.ledger.under_way_bytes() > MOST_UNDER_WAY_BYTES {
            // Somebody has to read first.
            return self.turn(Duration::from_millis(50));
        }
        let formats = [Format::Json, Format::Json, Format::Text, Format::Binary];
        if let Role::Raw(raw) = &mut person.role {
            let format = formats[2 + self.random.usize(..2)];
            let pad_len = self.random.usize(..pad_most);
            let pad = text(&mut self.random, pad_len);
            if let Some(wire) = &mut person.wire {
                raw.publish(wire, format, &pad, &mut self.ledger)?;
            }
            return Ok(());
        }
        let mut drafts = Vec::with_capacity(many);
        for _ in 0..many {
            let topic = topics[self.random.usize(..topics.len())];
            let key = topic.starts_with("conf/").then(|| format!("k{}", self.random.usize(..5)));
            let format = formats[self.random.usize(..4)];
            let pad_len = self.random.usize(..pad_most);
            let pad = text(&mut self.random, pad_len);
            drafts.push((topic, self.ledger.draft(person.session, topic, format, key, &pad)?));
        }
        person.publish(&drafts);
        Ok(())
    }

    /// So much that all who do not read fall behind.
    fn flood(&mut self) -> Checked {
        for person in self.people.iter_mut().filter(|person| person.pace == Pace::Slow) {
            person.halt(u64::MAX);
        }
        for topics in [&PATIENT[..], &["plain/a", "plain/b"]] {
            let until = self.ledger.published_bytes + FLOOD_BYTES;
            while self.ledger.published_bytes < until {
                let publisher = 1 + self.random.usize(..3);
                if self.people[publisher].wire.is_none() {
                    self.people[publisher].connect(self.gateway.address(), &mut self.ledger);
                }
                self.publish(publisher, 8, topics, 32 << 10)?;
                self.turn(Duration::ZERO)?;
            }
        }
        self.meet()?;
        for person in self.people.iter_mut().filter(|person| person.pace == Pace::Slow) {
            person.halted_until = 0;
        }
        Ok(())
    }

    /// Everybody who reads has an answer of now: no shard is far behind the others.
    fn meet(&mut self) -> Checked {
        let published = self.ledger.published;
        for person in self.people.iter_mut().filter(|person| !person.is_halted(published)) {
            if let (Role::Talker(talker), Some(wire)) = (&mut person.role, &mut person.wire)
                && talker.may_publish()
            {
                talker.ping(wire, &mut self.ledger);
            }
        }
        self.wait("all who read to be answered", |world| {
            world.people.iter().all(|person| {
                person.wire.is_none() || person.is_halted(world.ledger.published) || person.is_idle()
            })
        })
    }

    fn all_connect(&mut self) {
        for person in &mut self.people {
            person.halted_until = 0;
            if person.wire.is_none() {
                person.connect(self.gateway.address(), &mut self.ledger);
            }
        }
        self.ledger.witness = self.people[WITNESS].session;
    }

    /// Nothing new is published, and everybody gets to where its topics are.
    fn settle(&mut self) -> Checked<Summary> {
        // Who is sent away meanwhile comes back.
        self.wait("all to be there", |world| {
            world.all_connect();
            world.people.iter().all(Person::is_idle)
        })?;
        for person in &mut self.people {
            match (&mut person.role, &mut person.wire) {
                (Role::Talker(talker), Some(wire)) => talker.subscribe_to_all(wire, &mut self.ledger),
                // Its subscription has no answer but its own message.
                (Role::Raw(raw), Some(wire)) => raw.publish(wire, Format::Text, "here", &mut self.ledger)?,
                (Role::Stream(_) | Role::Poller(_) | Role::Poster(_), _) | (_, None) => {}
            }
        }
        self.wait("all to be subscribed", |world| {
            world.all_connect();
            world.people.iter().all(Person::is_idle)
        })?;
        for topic in TOPICS {
            while !self.people[1].may_publish() {
                self.turn(Duration::from_millis(50))?;
            }
            let published = self.ledger.published;
            while self.ledger.published == published {
                self.publish(1, 1, &[topic], 10)?;
            }
        }
        let until = Instant::now() + PATIENCE;
        loop {
            // What a connection sent that has ended since may be published yet.
            let newest = self.newest();
            self.all_connect();
            self.turn(Duration::from_millis(100))?;
            let converged =
                self.people.iter().all(|person| person.is_idle() && person.has_all(&newest, &self.ledger));
            // Where somebody does not get there the checker knows why.
            let late = Instant::now() > until;
            if late || (converged && self.newest() == newest) {
                let summary = self.ledger.finish(&newest)?;
                return if converged { Ok(summary) } else { wrong("not everybody has everything") };
            }
        }
    }

    /// Where each topic is.
    fn newest(&self) -> HashMap<String, Position> {
        let mut client = Client::connect(self.gateway.address());
        let mut state = |topic: &str| {
            client.send(format!("GET /topics/{topic} HTTP/1.1\r\nHost: gw.test\r\n\r\n").as_bytes());
            let response = client.response().expect("an answer");
            assert_eq!(response.status, 200, "{response:?}");
            position_of(&serde_json::from_slice::<Value>(&response.body).expect("JSON"))
        };
        TOPICS.iter().map(|topic| ((*topic).to_owned(), state(topic))).collect()
    }

    /// The gateway ends, by its own will or not, and another one begins where nothing is known.
    fn restart(&mut self) -> Checked {
        if self.random.usize(..2) == 0 {
            for person in &mut self.people {
                person.halted_until = 0;
                person.at_the_end = true;
            }
            self.gateway.signal(Signal::INT);
            self.wait("the drain", |world| world.people.iter().all(|person| person.wire.is_none()))?;
        }
        for person in &mut self.people {
            // What has come and was not read is not part of this history.
            drop(person.leave(&mut self.ledger)?);
            person.back_at = 0;
        }
        // The old one is killed, where it still runs.
        self.gateway = (self.start)(CONFIG, &["--io", self.setup.io, "--shards", self.setup.shards]);
        self.ledger.restart()
    }

    /// Everybody writes and reads what can be; where nothing can, something is waited for.
    fn turn(&mut self, most: Duration) -> Checked {
        if !most.is_zero() {
            let published = self.ledger.published;
            let open = self.people.iter().filter_map(|person| {
                let wire = person.wire.as_ref()?;
                let reads = if person.is_halted(published) { PollFlags::empty() } else { PollFlags::IN };
                let writes = if wire.has_output() { PollFlags::OUT } else { PollFlags::empty() };
                let wanted = reads | writes;
                (!wanted.is_empty()).then(|| PollFd::new(wire.stream(), wanted))
            });
            let mut open: Vec<PollFd<'_>> = open.collect();
            let timeout = Timespec::try_from(most).expect("a short time");
            // Interrupted or not: what is there is looked for.
            let _ = poll(&mut open, Some(&timeout));
        }
        self.people.iter_mut().try_for_each(|person| person.turn(&mut self.ledger))
    }

    fn wait(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) -> Checked {
        let until = Instant::now() + PATIENCE;
        while !done(self) {
            self.turn(Duration::from_millis(100))?;
            if Instant::now() > until {
                let late: Vec<usize> =
                    (0..self.people.len()).filter(|&place| !self.people[place].is_idle()).collect();
                return wrong(format!("waited {PATIENCE:?} in vain for {what}; not idle: {late:?}"));
            }
        }
        Ok(())
    }
}

fn text(random: &mut Rng, len: usize) -> String {
    (0..len).map(|_| random.lowercase()).collect()
}
