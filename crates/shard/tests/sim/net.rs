//! The simulated network: connections as two pipes of bytes, their peers, and the one clock.
//!
//! Invariant: bytes of a pipe arrive in order, once, or (after a reset) not at all; nothing else happens to them.
//! All that will happen stands in one queue by time and order of entry, so that a seed has one history.

mod conns;

use std::{
    cell::{Cell, RefCell},
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
    rc::Rc,
};

use tidegate_io::{Address, Counters, Pool};
use tidegate_shard::Mailbox;

use super::{
    fairness::Asked,
    faults::{Fault, Fired, Swarm},
    kernel::{Gate, Listening, Pending},
    random::Random,
};

/// Microseconds.
pub(crate) const MILLIS: u64 = 1_000;
pub(crate) const SECONDS: u64 = 1_000_000;

pub(crate) type Shared = Rc<RefCell<Net>>;

pub(crate) type ActorId = usize;
pub(crate) type ConnId = usize;

/// One who lives on the network's other side: a client, or an upstream.
pub(crate) trait Actor {
    /// Something may have changed: its connection, or the time. Said too often rather than too seldom.
    fn poke(&mut self, net: &mut Net, me: ActorId);

    /// What happens to this one from now on is not the gateway's fault: a reset, a jump of the clock, a drain.
    fn excuse(&mut self, why: Excuse);

    /// Whether it will do nothing more.
    fn is_done(&self) -> bool;

    /// For the trace and for failures.
    fn describe(&self) -> String;
}

/// The listener behind a proxy that speaks the PROXY protocol.
pub(crate) const PROXIED: u8 = 2;

/// Why the gateway is excused from what it owes a peer (never from keeping bytes in order).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Excuse {
    /// The network reset the connection.
    Reset,
    /// The clock jumped: deadlines passed though nobody waited.
    Jump,
    /// The gateway is drained.
    Drain,
    /// The gateway was told to end at once.
    Stop,
    /// The upstream failed.
    Upstream,
}

/// One direction of a connection.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
    /// In the sender's buffer or on the way.
    pub(crate) flying: VecDeque<u8>,
    /// With the receiver, not yet read.
    pub(crate) arrived: VecDeque<u8>,
    /// The most that `flying` holds.
    pub(crate) send_room: usize,
    /// The most that `arrived` holds.
    pub(crate) window: usize,
    /// A segment is on its way.
    pumping: bool,
    /// The sender's FIN stands behind `flying`.
    pub(crate) fin: bool,
    /// The FIN has arrived.
    pub(crate) fin_arrived: bool,
    /// Microseconds on the way, at least and at most.
    latency: (u64, u64),
}

impl Pipe {
    /// How many bytes the sender may add.
    pub(crate) fn room(&self) -> usize {
        self.send_room.saturating_sub(self.flying.len())
    }

    fn destroy(&mut self, arrived_too: bool) {
        self.flying.clear();
        if arrived_too {
            self.arrived.clear();
        }
    }
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the peer to the gateway.
    In,
    /// From the gateway to the peer.
    Out,
}

/// The peer's end of a connection.
#[derive(Debug, Default)]
pub(crate) struct Far {
    /// A reset has arrived.
    pub(crate) reset: bool,
    /// The peer has closed; what arrives is answered by a reset.
    pub(crate) closed: bool,
}

/// A connection, from the first SYN on; never reused.
pub(crate) struct Conn {
    pub(crate) actor: Option<ActorId>,
    /// From the peer.
    pub(crate) inbound: Pipe,
    /// To the peer.
    pub(crate) outbound: Pipe,
    pub(crate) far: Far,
    pub(crate) gate: Gate,
    /// Whether the three-way handshake is over.
    pub(crate) established: bool,
    pub(crate) asked: Asked,
}

/// What a connect to a virtual upstream meets.
pub(crate) struct Destination {
    pub(crate) address: Address,
    /// Makes the upstream's side of a connection.
    #[allow(clippy::type_complexity)]
    pub(crate) serve: Rc<dyn Fn(&mut Net, ConnId) -> Box<dyn Actor>>,
    /// What a connect meets.
    pub(crate) connect: Connect,
    /// Called when a connect fails, so that those who depend on it can be excused; whether for a local fault.
    #[allow(clippy::type_complexity)]
    pub(crate) failed: Rc<dyn Fn(&mut Net, bool)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connect {
    Accept,
    Refuse,
    Silent,
}

/// What is to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// A segment or FIN arrives.
    Pump(ConnId, bool),
    /// A reset arrives at the gateway (true) or the peer.
    Reset(ConnId, bool),
    /// A client's SYN arrives at a listener.
    Syn(ConnId, u8),
    /// A connect of the gateway ends, with an errno.
    Connected(ConnId, i32),
    Poke(ActorId),
    /// Look at a gateway socket again.
    Touch(ConnId),
    /// The network resets some connection.
    Strike,
    /// The clock jumps by so many microseconds.
    Jump(u64),
    /// A letter goes to the shard, by its index in `letters`.
    Letter(usize),
    /// The same, and it ends all sessions.
    Drain(usize),
    /// The same, and nothing is done after it.
    Stop(usize),
    /// Nothing but that time passes.
    Tick,
}

/// Whether the shard was told to end at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    Never,
    /// The letter is in the mailbox.
    Sent,
    /// The shard was woken for it: there must be no further turn.
    Told,
}

/// What a poll of its connection tells a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    Bytes(usize),
    Nothing,
    Eof,
    Reset,
}

type Letter = Box<dyn FnOnce(&mut Net)>;

/// A queue to another shard, and how many of its letters are on their way.
pub(crate) type Queue = (Rc<RefCell<Mailbox>>, Rc<Cell<usize>>);

/// The network, its peers, the gateway's kernel state, and the clock.
pub(crate) struct Net {
    /// Microseconds since the start.
    pub(crate) now: u64,
    pub(crate) random: Random,
    pub(crate) swarm: Swarm,
    pub(crate) fired: Fired,
    /// What peers went through to its right end, and how often.
    pub(crate) covered: BTreeMap<String, u64>,
    pub(crate) trace: Trace,
    /// Latency of the seed's connections, at most, in microseconds.
    pub(crate) latency: u64,
    queue: BinaryHeap<Reverse<(u64, u64, Due)>>,
    entered: u64,
    pub(crate) conns: Vec<Conn>,
    actors: Vec<Option<Box<dyn Actor>>>,
    poked: Vec<bool>,
    pub(crate) unfinished: usize,
    /// Letters to the shard: each is sent when its time has come.
    letters: Vec<Option<Letter>>,
    /// Posted when all actors are done.
    pub(crate) last_letter: Option<usize>,
    pub(crate) stop: Stop,
    /// The shard was told to end, or the clock has jumped: sessions end without their answers.
    pub(crate) ending: bool,
    /// What the shard's turns are bounded to, where that is less than usual: bytes and buffers.
    pub(crate) turns: Option<(usize, usize)>,
    /// What the shard keeps for the next turn.
    pub(crate) kept: u32,
    /// Whose question is not answered yet.
    pub(crate) asking: Vec<ConnId>,
    pub(crate) destinations: Vec<Destination>,
    /// When the clock last jumped.
    pub(crate) jumps: u64,
    /// Where other shards live beside this one: until then its kernel may wait without them.
    pub(crate) horizon: Option<u64>,
    /// Queues to other shards, and how many of the letters in each are on their way.
    pub(crate) queues: Vec<Queue>,
    /// Until when the shard waits, where its kernel has come to the horizon.
    pub(crate) waits: Option<u64>,
    /// The turn before has given the shard nothing to go on with: no event, no remainder, no deadline.
    pub(crate) asleep: bool,

    // The gateway's kernel: see `kernel`.
    pub(crate) listeners: BTreeMap<u8, Listening>,
    pub(crate) pool: Pool,
    pub(crate) buffer_bytes: usize,
    pub(crate) pending: Vec<Pending>,
    pub(crate) touched: Vec<ConnId>,
    /// Tokens in use, and by which socket.
    pub(crate) tokens: BTreeMap<u64, ConnId>,
    /// Tokens of sockets that were closed.
    pub(crate) old_tokens: VecDeque<u64>,
    pub(crate) counters: Counters,
    pub(crate) idle_turns: u32,
    /// Buffers that came back since the start.
    pub(crate) recycled: u64,
    /// The same as of the turn before.
    pub(crate) recycled_before: u64,
    /// The shard has begun a turn of its own, and made no system call yet: it may make several.
    pub(crate) begun: bool,
    pub(crate) operations: u64,
}

/// Writes down what happens, where a seed is replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trace {
    Off,
    Print,
}

impl Net {
    pub(crate) fn new(mut random: Random, swarm: Swarm, trace: Trace) -> Net {
        let buffers = *random.pick(&[4, 8, 16, 64, 256]);
        let buffer_bytes =
            *random.pick(&[tidegate_io::BUFFER_BYTES, tidegate_io::BUFFER_BYTES, 4096, 1024, 320]);
        let latency = *random.pick(&[10, 200, 5 * MILLIS, 60 * MILLIS]);
        Net {
            now: SECONDS,
            swarm,
            fired: Fired::default(),
            covered: BTreeMap::new(),
            trace,
            latency,
            queue: BinaryHeap::new(),
            entered: 0,
            conns: Vec::new(),
            actors: Vec::new(),
            poked: Vec::new(),
            unfinished: 0,
            letters: Vec::new(),
            last_letter: None,
            stop: Stop::Never,
            ending: false,
            turns: None,
            kept: 0,
            asking: Vec::new(),
            destinations: Vec::new(),
            jumps: 0,
            horizon: None,
            queues: Vec::new(),
            waits: None,
            asleep: false,
            listeners: BTreeMap::new(),
            pool: Pool::new(buffers, buffer_bytes).expect("a few pages"),
            buffer_bytes,
            pending: Vec::new(),
            touched: Vec::new(),
            tokens: BTreeMap::new(),
            old_tokens: VecDeque::new(),
            counters: Counters::default(),
            idle_turns: 0,
            recycled: 0,
            recycled_before: 0,
            begun: false,
            operations: 0,
            random,
        }
    }

    /// Whether letters to other shards were posted in this turn.
    pub(crate) fn has_posted(&self) -> bool {
        self.queues.iter().any(|(mailbox, underway)| mailbox.borrow().waiting() > underway.get())
    }

    /// Whether a fault happens here; counts it.
    pub(crate) fn strikes(&mut self, fault: Fault) -> bool {
        let strikes = self.random.chance(self.swarm.rate(fault));
        if strikes {
            self.fired.count(fault);
        }
        strikes
    }

    /// Counts what a peer has gone through.
    pub(crate) fn cover(&mut self, what: String) {
        *self.covered.entry(what).or_default() += 1;
    }

    pub(crate) fn say(&self, line: impl FnOnce() -> String) {
        if self.trace == Trace::Print {
            let now = self.now;
            println!("{:>6}.{:06} {}", now / SECONDS, now % SECONDS, line());
        }
    }

    fn at(&mut self, time: u64, due: Due) {
        self.entered += 1;
        self.queue.push(Reverse((time.max(self.now), self.entered, due)));
    }

    /// When something happens next.
    pub(crate) fn next_time(&self) -> Option<u64> {
        self.queue.peek().map(|Reverse((time, _, _))| *time)
    }

    /// Lets happen what is due, in order.
    pub(crate) fn run_due(&mut self) {
        while let Some(&Reverse((time, _, due))) = self.queue.peek() {
            if time > self.now {
                return;
            }
            self.queue.pop();
            self.happen(due);
        }
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Pump(conn, inbound) => self.pump(conn, if inbound { Way::In } else { Way::Out }),
            Due::Reset(conn, gateway) => self.reset_arrives(conn, gateway),
            Due::Syn(conn, listener) => self.syn_arrives(conn, listener),
            Due::Connected(conn, errno) => self.connect_ends(conn, errno),
            Due::Poke(actor) => self.poke(actor),
            Due::Touch(conn) => self.touch(conn),
            Due::Strike => self.strike(),
            Due::Jump(by) => self.jump(by),
            Due::Letter(index) => {
                if let Some(letter) = self.letters[index].take() {
                    letter(self);
                }
            }
            Due::Drain(index) => {
                if let Some(letter) = self.letters[index].take() {
                    letter(self);
                    self.ending = true;
                    self.excuse(None, Excuse::Drain);
                }
            }
            Due::Stop(index) => {
                if let Some(letter) = self.letters[index].take() {
                    letter(self);
                    self.ending = true;
                    self.stop = Stop::Sent;
                    self.excuse(None, Excuse::Stop);
                }
            }
            Due::Tick => {}
        }
    }

    // ---- time and actors

    pub(crate) fn add_actor(&mut self, actor: Box<dyn Actor>) -> ActorId {
        self.actors.push(Some(actor));
        self.poked.push(false);
        self.unfinished += 1;
        self.actors.len() - 1
    }

    /// Pokes an actor at `time`.
    pub(crate) fn wake_at(&mut self, actor: ActorId, time: u64) {
        self.at(time, Due::Poke(actor));
    }

    /// Pokes an actor once, soon.
    fn poke_soon(&mut self, actor: Option<ActorId>) {
        if let Some(actor) = actor
            && !self.poked[actor]
        {
            self.poked[actor] = true;
            self.at(self.now, Due::Poke(actor));
        }
    }

    fn poke(&mut self, actor: ActorId) {
        self.poked[actor] = false;
        let mut taken = self.actors[actor].take().expect("an actor does not poke itself");
        let was_done = taken.is_done();
        if !was_done {
            taken.poke(self, actor);
            if taken.is_done() {
                self.unfinished -= 1;
                self.say(|| format!("{} is done", taken.describe()));
            }
        }
        self.actors[actor] = Some(taken);
    }

    /// Pokes all of them, soon.
    pub(crate) fn poke_all(&mut self) {
        for actor in 0..self.actors.len() {
            self.poke_soon(Some(actor));
        }
    }

    /// Excuses one actor, or all of them.
    pub(crate) fn excuse(&mut self, actor: Option<ActorId>, why: Excuse) {
        match actor {
            Some(actor) => {
                if let Some(actor) = &mut self.actors[actor] {
                    actor.excuse(why);
                }
            }
            None => self.actors.iter_mut().flatten().for_each(|actor| actor.excuse(why)),
        }
    }

    pub(crate) fn describe(&self, conn: ConnId) -> String {
        let actor = self.conns[conn].actor.and_then(|actor| self.actors[actor].as_ref());
        format!("#{conn} ({})", actor.map_or_else(|| "nobody".to_string(), |actor| actor.describe()))
    }

    /// Descriptions of the actors that are not done.
    pub(crate) fn unfinished_actors(&self) -> Vec<String> {
        self.actors.iter().flatten().filter(|actor| !actor.is_done()).map(|actor| actor.describe()).collect()
    }

    /// A letter to the shard, to be sent at `time`.
    pub(crate) fn post_at(&mut self, time: u64, letter: Box<dyn FnOnce()>) {
        self.do_at(time, Box::new(|_| letter()));
    }

    /// The same where the letter depends on what is so then.
    pub(crate) fn do_at(&mut self, time: u64, letter: Box<dyn FnOnce(&mut Net)>) {
        self.letters.push(Some(letter));
        self.at(time, Due::Letter(self.letters.len() - 1));
    }

    /// The letter that drains the shard, to be sent at `time`; `None`: when all actors are done.
    pub(crate) fn drain_at(&mut self, time: Option<u64>, letter: Box<dyn FnOnce()>) {
        self.letters.push(Some(Box::new(|_| letter())));
        let index = self.letters.len() - 1;
        match time {
            Some(time) => self.at(time, Due::Drain(index)),
            None => self.last_letter = Some(index),
        }
    }

    /// The letter that ends the shard at once, to be sent at `time`.
    pub(crate) fn stop_at(&mut self, time: u64, letter: Box<dyn FnOnce()>) {
        self.letters.push(Some(Box::new(|_| letter())));
        self.at(time, Due::Stop(self.letters.len() - 1));
    }

    /// Posts the last letter, if that was not done yet.
    pub(crate) fn post_last(&mut self) -> bool {
        match self.last_letter.take() {
            Some(index) => {
                self.at(self.now, Due::Drain(index));
                true
            }
            None => false,
        }
    }

    pub(crate) fn jump_at(&mut self, time: u64, by: u64) {
        self.at(time, Due::Jump(by));
    }

    pub(crate) fn strike_at(&mut self, time: u64) {
        self.at(time, Due::Strike);
    }

    pub(crate) fn tick_at(&mut self, time: u64) {
        self.at(time, Due::Tick);
    }

    fn jump(&mut self, by: u64) {
        self.say(|| format!("the clock jumps by {} ms", by / MILLIS));
        self.fired.count(Fault::ClockJump);
        self.now += by;
        self.jumps += 1;
        self.ending = true;
        self.excuse(None, Excuse::Jump);
    }

    fn strike(&mut self) {
        let live: Vec<ConnId> = (0..self.conns.len())
            .filter(|&conn| {
                let conn = &self.conns[conn];
                conn.established && !conn.far.closed && !conn.far.reset && !conn.gate.is_closed()
            })
            .collect();
        if live.is_empty() {
            return;
        }
        let conn = live[self.random.index(live.len())];
        self.fired.count(Fault::Reset);
        self.say(|| format!("the network resets {}", self.describe(conn)));
        self.excuse(self.conns[conn].actor, Excuse::Reset);
        self.reset_arrives(conn, true);
        self.reset_arrives(conn, false);
    }
}

/// Error numbers of Linux on the architectures that the project runs on.
pub(crate) mod libc_errno {
    pub(crate) const EAGAIN: i32 = 11;
    pub(crate) const ENOMEM: i32 = 12;
    pub(crate) const ENFILE: i32 = 23;
    pub(crate) const EMFILE: i32 = 24;
    pub(crate) const EPIPE: i32 = 32;
    pub(crate) const EADDRNOTAVAIL: i32 = 99;
    pub(crate) const ENETUNREACH: i32 = 101;
    pub(crate) const ECONNABORTED: i32 = 103;
    pub(crate) const ECONNRESET: i32 = 104;
    pub(crate) const ETIMEDOUT: i32 = 110;
    pub(crate) const ECONNREFUSED: i32 = 111;
    pub(crate) const EHOSTUNREACH: i32 = 113;
}
