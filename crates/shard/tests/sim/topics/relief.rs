//! Eight subscribers that read nothing, each of a topic of its own, of which one is sent more than the others, until there is
//! no memory: that one ends, and nobody else.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use super::{
    super::{
        codec::{self, First, Head, Inbox, Item, TEXT},
        faults::Swarm,
        link::{Link, Pace},
        net::{Actor, ActorId, Excuse, MILLIS, Net, SECONDS, Trace},
        random::Random,
    },
    Ending, Life, Outcome,
    setup::Setup,
    society::Society,
};

const SLEEPERS: usize = 8;
/// Of each message.
const BYTES: usize = 4_000;
const MEMORY: usize = 256 << 10;
/// What each of them is sent first: together less than there is memory for.
const FIRST: usize = 6;
/// What a client may not read, but the gateway's kernel takes for it: `narrow` leaves it about so much.
const KERNEL: usize = 3;

/// What they all know.
#[derive(Default)]
struct Scene {
    /// The sleepers read.
    awake: Cell<bool>,
    /// All leave.
    over: Cell<bool>,
    /// For each sleeper the messages that came, and whether it has ended.
    heard: RefCell<Vec<(usize, bool)>>,
    /// How many were sent to each.
    sent: RefCell<Vec<usize>>,
    refused: Cell<usize>,
    /// Taken after one was refused.
    taken_again: Cell<bool>,
}

/// A client that knows one topic and nothing of the protocol.
struct Raw {
    scene: Rc<Scene>,
    topic: String,
    random: Random,
    start: u64,
    link: Option<Link>,
    open: bool,
    head: Vec<u8>,
    inbox: Inbox,
    part: Part,
    done: bool,
}

enum Part {
    /// Reads nothing until all are to.
    Sleeper(usize),
    /// Speaks the protocol: publishes, one message behind the answer to the one before.
    Publisher { worst: usize, count: usize, waits: bool },
}

impl Raw {
    fn new(scene: &Rc<Scene>, start: u64, part: Part) -> Raw {
        let topic = match part {
            Part::Sleeper(number) => format!("/plain/{number}"),
            Part::Publisher { .. } => String::new(),
        };
        Raw {
            scene: Rc::clone(scene),
            topic,
            random: Random::new(start),
            start,
            link: None,
            open: false,
            head: Vec::new(),
            inbox: Inbox::new(false),
            part,
            done: false,
        }
    }

    fn receive(&mut self, net: &mut Net, me: ActorId) {
        let asleep = matches!(self.part, Part::Sleeper(_)) && self.open && !self.scene.awake.get();
        let Some(link) = &mut self.link else { return };
        if asleep {
            return;
        }
        let mut plain = Vec::new();
        let end = link.receive(net, me, &mut plain);
        if self.open {
            self.inbox.push(&plain);
        } else {
            self.head.extend(plain);
            let Some(answer) = Head::read(&self.head) else { return };
            assert_eq!(answer.status(), 101);
            let rest = self.head.split_off(answer.len);
            self.open = true;
            self.inbox.push(&rest);
        }
        while let Some(item) = self.inbox.next() {
            match (&mut self.part, item) {
                (Part::Sleeper(number), Item::Message { .. }) => {
                    self.scene.heard.borrow_mut()[*number].0 += 1;
                }
                (Part::Sleeper(number), Item::Close(code)) => {
                    assert_eq!(code, Some(1013));
                    self.scene.heard.borrow_mut()[*number].1 = true;
                }
                (Part::Publisher { waits, .. }, Item::Message { payload, .. }) => {
                    let text = String::from_utf8(payload).expect("the protocol is text");
                    if text.contains("\"busy\"") {
                        self.scene.refused.set(self.scene.refused.get() + 1);
                        *waits = false;
                    } else if text.contains("\"published\"") {
                        self.scene.taken_again.set(self.scene.refused.get() > 0);
                        *waits = false;
                    }
                }
                (Part::Publisher { .. }, Item::Close(code)) => panic!("the publisher is closed: {code:?}"),
                (_, Item::Ping(_) | Item::Pong(_)) => {}
            }
        }
        if end.is_some() {
            if let Part::Sleeper(number) = self.part {
                self.scene.heard.borrow_mut()[number].1 = true;
            }
            self.leave(net);
        }
    }

    /// First the same for all, then to the one that is to be the worst until there is no memory and there is again.
    fn publish(&mut self, net: &mut Net, me: ActorId) {
        let Part::Publisher { worst, count, waits } = &mut self.part else { return };
        if *waits || self.scene.taken_again.get() {
            return;
        }
        let number = if *count < SLEEPERS * FIRST { *count % SLEEPERS } else { *worst };
        *count += 1;
        assert!(*count < 2_000, "there is memory without an end");
        *waits = true;
        let text = format!(
            r#"{{"op":"publish","id":{count},"topic":"plain/{number}","text":"{}"}}"#,
            "x".repeat(BYTES)
        );
        if self.scene.refused.get() == 0 {
            self.scene.sent.borrow_mut()[number] += 1;
        }
        let mut out = Vec::new();
        codec::frame(&mut out, First::whole(TEXT), text.as_bytes(), Some([1, 2, 3, 4]));
        let link = self.link.as_mut().expect("it is open");
        link.send(&mut self.random, &out);
        net.wake_at(me, net.now + 5 * MILLIS);
    }

    fn leave(&mut self, net: &mut Net) {
        if let Some(link) = self.link.as_ref().filter(|_| !self.done) {
            net.close_peer(link.conn, true);
        }
        self.done = true;
    }
}

impl Actor for Raw {
    fn poke(&mut self, net: &mut Net, me: ActorId) {
        if net.now < self.start || self.done {
            return;
        }
        if self.scene.over.get() {
            return self.leave(net);
        }
        if self.link.is_none() {
            let conn = net.dial(me, 0);
            if matches!(self.part, Part::Sleeper(_)) {
                net.narrow(conn);
            }
            let mut link = Link::new(conn, Pace::FULL, false);
            let request = format!(
                "GET /topics{} HTTP/1.1\r\nHost: gw.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n",
                self.topic
            );
            link.send(&mut self.random, request.as_bytes());
            self.link = Some(link);
        }
        self.receive(net, me);
        // The sleepers have subscribed before.
        if self.open && !self.done && net.now > self.start + SECONDS {
            self.publish(net, me);
        } else if !self.done && !self.scene.awake.get() {
            net.wake_at(me, net.now + 100 * MILLIS);
        }
        if let Some(link) = self.link.as_mut().filter(|_| !self.done) {
            link.flush(net, me);
        }
    }

    fn excuse(&mut self, _: Excuse) {}

    fn is_done(&self) -> bool {
        self.done
    }

    fn describe(&self) -> String {
        format!("{} open {}", self.topic, self.open)
    }
}

/// # Panics
/// Where another one ends than the worst, or more than one, or none.
pub(crate) fn run(shards: usize, worst: usize) {
    let mut random = Random::new(7);
    let setup = Setup {
        shards,
        people: 0,
        span: SECONDS,
        restarts: 0,
        ping_interval: 0,
        session_bytes: 4 * MEMORY,
        mailbox: 256,
        letters: 8_192,
        delay: MILLIS,
        few_topics: false,
        history: 12,
        message_most: BYTES,
        memory: Some(MEMORY),
        crowd: false,
        stays: true,
    };
    let society = Society::new(setup, &mut random);
    let mut life = Life::new(&society, 7, Trace::Off, SECONDS, &mut random);
    let scene = Rc::new(Scene::default());
    *scene.heard.borrow_mut() = vec![(0, false); SLEEPERS];
    *scene.sent.borrow_mut() = vec![0; SLEEPERS];
    for place in &life.cluster.places {
        place.world.net.borrow_mut().swarm = Swarm::none();
    }
    let parts = (0..SLEEPERS).map(Part::Sleeper).chain([Part::Publisher { worst, count: 0, waits: false }]);
    for (number, part) in parts.enumerate() {
        let start = 2 * SECONDS;
        let actor = Box::new(Raw::new(&scene, start, part));
        life.cluster.with(number % shards, 0, |net| {
            let actor = net.add_actor(actor);
            net.wake_at(actor, start);
        });
    }
    let mut until = 2 * SECONDS;
    while !scene.taken_again.get() {
        until += SECONDS / 4;
        life.go_on(until, &mut Vec::new());
        assert!(until < 100 * SECONDS, "there is no memory again: {} refused", scene.refused.get());
    }
    // Nobody has been ended that nobody has been told of: now all read.
    life.go_on(until + SECONDS, &mut Vec::new());
    scene.awake.set(true);
    life.cluster.poke_all(until + SECONDS);
    life.go_on(until + 4 * SECONDS, &mut Vec::new());
    let relieved = life.cluster.places.iter().map(|place| {
        let gateway = place.gateway.as_ref().expect("it goes on");
        gateway.shard.counters().relieved
    });
    assert_eq!(relieved.sum::<u64>(), 1, "one is enough");
    let (heard, sent) = (scene.heard.borrow(), scene.sent.borrow());
    assert!(sent[worst] > 2 * FIRST + KERNEL, "{sent:?}");
    for (number, &(count, ended)) in heard.iter().enumerate() {
        assert_eq!(ended, number == worst, "{number} of {heard:?}");
        assert!(ended || count == FIRST, "who is spared gets all: {heard:?}");
    }
    assert!(scene.refused.get() > 0);
    drop((heard, sent));
    scene.over.set(true);
    life.cluster.poke_all(until + 4 * SECONDS);
    life.go_on(until + 5 * SECONDS, &mut Vec::new());
    life.start = until + 5 * SECONDS;
    life.end(Ending::Drained, &mut Vec::new());
    life.close(&mut Outcome::default());
}
