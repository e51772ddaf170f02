//! The gateway's kernel: its sockets, what is armed on them, and what has completed but was not yet told.
//!
//! Invariant: completions of one operation are told in order, and each operation has exactly one final one; an
//! operation counts as armed until that one was told. What the shard does against the contract panics here.

mod completions;

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    rc::Rc,
};

use tidegate_io::{Address, Buffer, Lent, ReceiveEnd};

use super::{
    faults::Fault,
    net::{Actor, ConnId, Connect, Net, PROXIED, SECONDS, Way, libc_errno as errno},
};

/// A listening socket of the gateway.
#[derive(Debug, Default)]
pub(crate) struct Listening {
    pub(crate) open: bool,
    pub(crate) backlog: VecDeque<ConnId>,
    pub(crate) limit: usize,
    armed: bool,
    /// The final event is on its way.
    ended: bool,
    /// When the accept last ended by an error.
    failed: Option<u64>,
    last_ready: u64,
}

impl Listening {
    pub(crate) fn new(limit: usize) -> Listening {
        Listening { open: true, limit, ..Listening::default() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// In a backlog, or not even there.
    Unborn,
    /// With the shard, or in an event on its way there.
    Open,
    Closed,
}

#[derive(Clone, Copy, Debug)]
struct Receive {
    token: u64,
    /// Armed since the socket was last looked at.
    fresh: bool,
    /// When the cancellation takes effect.
    cancel: Option<u64>,
    /// Buffers filled since it was asked for.
    late_shots: u32,
    ended: bool,
}

#[derive(Clone, Copy, Debug)]
struct Poll {
    token: u64,
    spurious: bool,
    ended: bool,
}

#[derive(Clone, Copy, Debug)]
struct Dial {
    token: u64,
    ended: bool,
}

/// The gateway's end of a connection.
#[derive(Debug)]
pub(crate) struct Gate {
    life: Life,
    receive: Option<Receive>,
    poll: Option<Poll>,
    connect: Option<Dial>,
    /// The token that its operations use.
    token: Option<u64>,
    /// The connection is broken.
    pub(crate) broken: Option<i32>,
    told_broken: bool,
    shut_write: bool,
    shut_both: bool,
    reset_on_close: bool,
    pub(crate) touched: bool,
    pub(crate) destination: Option<usize>,
    /// Where the last receive ended for want of a buffer: how many had come back by then.
    starved: Option<u64>,
    last_ready: u64,
    /// Bytes that the shard has given and that the kernel took.
    pub(crate) sent: u64,
    /// The last turn that sent on it.
    last_send: u64,
}

impl Gate {
    pub(crate) fn unborn() -> Gate {
        Gate {
            life: Life::Unborn,
            receive: None,
            poll: None,
            connect: None,
            token: None,
            broken: None,
            told_broken: false,
            shut_write: false,
            shut_both: false,
            reset_on_close: false,
            touched: false,
            destination: None,
            starved: None,
            last_ready: 0,
            sent: 0,
            last_send: 0,
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.life == Life::Closed
    }

    /// Whether it can be answered at once.
    pub(crate) fn takes_all(&self) -> bool {
        let over = self.broken.is_some() || self.shut_write || self.shut_both;
        self.is_open() && self.poll.is_none() && !over
    }

    fn is_open(&self) -> bool {
        self.life == Life::Open
    }
}

/// Something that has completed.
pub(crate) struct Pending {
    ready: u64,
    number: u64,
    stream: Stream,
    pub(crate) what: What,
}

/// Completions of one stream keep their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    Receive(ConnId),
    Poll(ConnId),
    Connect(ConnId),
    Accept(u8),
}

pub(crate) enum What {
    Received(ConnId, u64, Buffer),
    ReceiveEnded(ConnId, u64, ReceiveEnd),
    Writable(ConnId, u64),
    Connected(ConnId, u64, i32),
    Accepted(u8, ConnId, Option<SocketAddr>),
    AcceptEnded(u8, i32),
}

/// What the backend believes, to be compared with what the shard believes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Armed {
    pub(crate) sockets: u32,
    pub(crate) receives: u32,
    pub(crate) polls: u32,
    pub(crate) connects: u32,
}

impl Net {
    /// Sockets and operations that are with the shard now. A connection whose [`What::Accepted`] was not told is not.
    pub(crate) fn armed(&self) -> Armed {
        let mut armed = Armed::default();
        for gate in self.conns.iter().map(|conn| &conn.gate).filter(|gate| gate.is_open()) {
            armed.sockets += 1;
            armed.receives += u32::from(gate.receive.is_some());
            armed.polls += u32::from(gate.poll.is_some());
            armed.connects += u32::from(gate.connect.is_some());
        }
        armed
    }

    /// The receive buffers, and how many of them are with the shard: those in completions that it was not told of are not.
    pub(crate) fn lent(&self) -> Lent {
        let held = self.pending.iter().filter(|pending| matches!(pending.what, What::Received(..))).count();
        let lent = self.pool.lent();
        Lent { lent: lent.lent - held as u32, ..lent }
    }

    fn gate(&mut self, conn: ConnId) -> &mut Gate {
        &mut self.conns[conn].gate
    }

    // ---- operations

    fn claim(&mut self, conn: ConnId, token: u64) {
        assert!(token >> 56 == 0, "token {token:#x} has more than 56 bits");
        assert!(self.gate(conn).is_open(), "an operation on closed socket {}", self.describe(conn));
        self.operations += 1;
        let gate = self.gate(conn);
        if let Some(before) = gate.token.replace(token)
            && before != token
        {
            assert!(
                gate.receive.is_none() && gate.poll.is_none() && gate.connect.is_none(),
                "socket #{conn} uses token {token:#x} with operations armed under {before:#x}"
            );
            self.tokens.remove(&before);
        }
        let owner = *self.tokens.entry(token).or_insert(conn);
        assert!(owner == conn, "token {token:#x} of #{owner} is used for #{conn}");
    }

    pub(crate) fn arm_receive(&mut self, conn: ConnId, token: u64) {
        self.claim(conn, token);
        let (recycled, free) = (self.recycled, self.lent().total - self.lent().lent);
        let established = self.conns[conn].established;
        let gate = self.gate(conn);
        assert!(gate.receive.is_none(), "a receive is armed twice on #{conn}");
        assert!(
            gate.connect.is_none() && established,
            "a receive is armed on #{conn} before it is connected"
        );
        if gate.starved == Some(recycled) && free == 0 {
            panic!("a starved receive is armed again on #{conn} though no buffer came back");
        }
        gate.receive = Some(Receive { token, fresh: true, cancel: None, late_shots: 0, ended: false });
        self.say(|| format!("#{conn} arms a receive"));
        self.touch(conn);
    }

    pub(crate) fn cancel_receive(&mut self, conn: ConnId, token: u64) {
        self.operations += 1;
        let late = if self.strikes(Fault::LateCompletion) { self.random.range(1..=80_000) } else { 0 };
        let when = self.now + late;
        let gate = self.gate(conn);
        assert!(gate.is_open(), "a cancellation on closed socket #{conn}");
        let Some(receive) = &mut gate.receive else { return };
        assert!(receive.token == token, "a cancellation on #{conn} names another token");
        if receive.cancel.is_none() {
            receive.cancel = Some(when);
            self.say(|| format!("#{conn} cancels its receive"));
            self.touch_at(when, conn);
            self.touch(conn);
        }
    }

    pub(crate) fn arm_poll(&mut self, conn: ConnId, token: u64) {
        self.claim(conn, token);
        let spurious = self.random.chance(self.swarm.rate(Fault::SpuriousWritable));
        let gate = self.gate(conn);
        assert!(gate.poll.is_none(), "a poll is armed twice on #{conn}");
        gate.poll = Some(Poll { token, spurious, ended: false });
        self.say(|| format!("#{conn} arms a poll"));
        self.touch(conn);
    }

    /// Begins a connect; an error at once, or the new socket.
    pub(crate) fn connect(&mut self, address: &Address, token: u64) -> Result<ConnId, i32> {
        self.operations += 1;
        let destination = self.destinations.iter().position(|destination| destination.address == *address);
        let destination =
            destination.unwrap_or_else(|| panic!("a connect to {address:?}, which nobody configured"));
        if self.strikes(Fault::ConnectError) {
            let error = *self.random.pick(&[errno::EMFILE, errno::EADDRNOTAVAIL, errno::ENETUNREACH]);
            self.connect_failed(destination, error != errno::ENETUNREACH);
            return Err(error);
        }
        let mut gate = Gate::unborn();
        gate.life = Life::Open;
        gate.destination = Some(destination);
        let conn = self.add_conn(None, gate);
        self.claim(conn, token);
        self.gate(conn).connect = Some(Dial { token, ended: false });
        let mut kind = self.destinations[destination].connect;
        if kind == Connect::Accept && self.strikes(Fault::ConnectSilent) {
            kind = Connect::Silent;
        }
        if kind == Connect::Accept && self.strikes(Fault::ConnectRefused) {
            kind = Connect::Refuse;
        }
        let mut time = self.now + self.random.range(0..=2 * self.latency);
        if self.strikes(Fault::ConnectSlow) {
            time += self.random.range(0..=3 * SECONDS);
        }
        match kind {
            Connect::Accept => self.connect_at(time, conn, 0),
            Connect::Refuse => {
                let refusals =
                    [errno::ECONNREFUSED, errno::ECONNREFUSED, errno::EHOSTUNREACH, errno::ETIMEDOUT];
                let errno = *self.random.pick(&refusals);
                self.connect_at(time, conn, errno);
            }
            Connect::Silent => self.connect_failed(destination, false),
        }
        self.say(|| format!("#{conn} connects to {address:?}: {kind:?}"));
        Ok(conn)
    }

    /// `local`: for want of a descriptor or a port, so that no other upstream need be tried.
    fn connect_failed(&mut self, destination: usize, local: bool) {
        let failed = Rc::clone(&self.destinations[destination].failed);
        failed(self, local);
    }

    /// The network's answer to a connect.
    pub(crate) fn connect_ends(&mut self, conn: ConnId, errno: i32) {
        let Some(dial) = self.gate(conn).connect.filter(|dial| !dial.ended) else { return };
        let destination = self.conns[conn].gate.destination.expect("only connects have one");
        if errno == 0 {
            self.conns[conn].established = true;
            let serve = Rc::clone(&self.destinations[destination].serve);
            let actor: Box<dyn Actor> = serve(self, conn);
            let actor = self.add_actor(actor);
            self.conns[conn].actor = Some(actor);
            self.wake_at(actor, self.now);
        } else {
            self.gate(conn).broken = Some(errno);
            self.connect_failed(destination, false);
        }
        self.end_connect(conn, dial.token, errno);
    }

    fn end_connect(&mut self, conn: ConnId, token: u64, errno: i32) {
        if let Some(dial) = &mut self.gate(conn).connect {
            dial.ended = true;
        }
        self.complete(Stream::Connect(conn), What::Connected(conn, token, errno));
    }

    pub(crate) fn shutdown_write(&mut self, conn: ConnId) {
        self.operations += 1;
        let established = self.conns[conn].established;
        let gate = self.gate(conn);
        assert!(gate.is_open(), "shutdown_write on closed socket #{conn}");
        assert!(established || gate.broken.is_some(), "shutdown_write on #{conn} before it is connected");
        self.say(|| format!("#{conn} shuts its writing side down"));
        self.finish(conn);
        self.touch(conn);
    }

    /// A FIN behind what was sent.
    fn finish(&mut self, conn: ConnId) {
        let gate = self.gate(conn);
        gate.shut_write = true;
        if gate.broken.is_none() {
            self.conns[conn].outbound.fin = true;
            self.start_pump(conn, Way::Out);
        }
    }

    pub(crate) fn shutdown(&mut self, conn: ConnId, reset: bool) {
        self.operations += 1;
        let gate = self.gate(conn);
        assert!(gate.is_open(), "shutdown on closed socket #{conn}");
        gate.shut_both = true;
        gate.reset_on_close |= reset;
        let dial = gate.connect.filter(|dial| !dial.ended);
        self.say(|| format!("#{conn} is shut down, reset: {reset}"));
        let gate = self.gate(conn);
        if let Some(dial) = dial {
            gate.broken = Some(errno::ECONNABORTED);
            self.end_connect(conn, dial.token, errno::ECONNABORTED);
        } else if self.conns[conn].established && !reset {
            self.finish(conn);
        }
        self.touch(conn);
    }

    pub(crate) fn close(&mut self, conn: ConnId) {
        self.operations += 1;
        let described = self.describe(conn);
        let gate = self.gate(conn);
        assert!(gate.is_open(), "socket {described} is closed twice");
        assert!(gate.receive.is_none(), "socket {described} is closed with a receive armed");
        assert!(gate.poll.is_none(), "socket {described} is closed with a poll armed");
        assert!(gate.connect.is_none(), "socket {described} is closed with a connect pending");
        gate.life = Life::Closed;
        if let Some(token) = gate.token {
            self.tokens.remove(&token);
            self.old_tokens.push_back(token);
            if self.old_tokens.len() > 64 {
                self.old_tokens.pop_front();
            }
        }
        self.say(|| format!("#{conn} is closed by the shard"));
        let state = &mut self.conns[conn];
        if !state.established || state.gate.broken.is_some() {
            // A connect that was given up must not come through later; whoever waits there is told.
            if state.actor.is_some() {
                self.send_reset(conn, false);
            }
            return;
        }
        let unread = !state.inbound.arrived.is_empty();
        if unread || state.gate.reset_on_close {
            // RFC 1122 §4.2.2.13: closing with unread data resets the connection.
            state.inbound.arrived.clear();
            self.send_reset(conn, false);
        } else {
            self.finish(conn);
            self.start_pump(conn, Way::In);
        }
    }

    pub(crate) fn recycle(&mut self, mut buffer: Buffer) {
        self.operations += 1;
        let rubbish = [0xDB; 64];
        buffer.fill(&rubbish);
        self.pool.give(buffer);
        self.recycled += 1;
    }

    /// Takes a send: how many bytes, and the errno where they are not all.
    pub(crate) fn send(&mut self, turn: u64, conn: ConnId, pieces: &mut dyn Iterator<Item = &[u8]>) -> Sent {
        self.answers(conn);
        let described = || format!("#{conn}");
        let mut total = 0;
        let mut count = 0;
        let broken_before = {
            let established = self.conns[conn].established;
            let gate = self.gate(conn);
            assert!(gate.is_open(), "a send on closed socket {}", described());
            assert!(gate.connect.is_none(), "a send on {} before it is connected", described());
            assert!(gate.last_send != turn, "two sends on {} in one turn", described());
            gate.last_send = turn;
            let dead = gate.broken.is_some() || gate.shut_both;
            assert!(established || dead, "a send on {} before it is connected", described());
            assert!(!gate.shut_write || dead, "a send on {} after its shutdown_write", described());
            gate.broken.or(gate.shut_both.then_some(errno::EPIPE))
        };
        let mut room = self.conns[conn].outbound.room();
        let whole_room = room;
        let refused = broken_before.is_none() && room > 0 && self.strikes(Fault::RefusedSend);
        let partial = broken_before.is_none() && !refused && room > 0 && self.strikes(Fault::PartialSend);
        if refused {
            room = 0;
        } else if partial {
            room = self.random.size(1..=room.min(3_000));
        }
        for piece in pieces {
            assert!(!piece.is_empty(), "an empty piece in a send on {}", described());
            count += 1;
            total += piece.len();
            if broken_before.is_none() && room > 0 {
                let taken = piece.len().min(room);
                room -= taken;
                let state = &mut self.conns[conn];
                state.outbound.flying.extend(&piece[..taken]);
                state.gate.sent += taken as u64;
            }
        }
        assert!(count > 0, "a send on {} without a piece", described());
        assert!(count <= tidegate_io::MAX_PIECES, "a send on {} of {count} pieces", described());
        if let Some(broken) = broken_before {
            self.fired.count(Fault::BrokenSend);
            let gate = self.gate(conn);
            let errno = if gate.told_broken { errno::EPIPE } else { broken };
            gate.told_broken = true;
            return Sent { total, sent: 0, errno };
        }
        let sent = whole_room - self.conns[conn].outbound.room();
        self.start_pump(conn, Way::Out);
        if sent == total {
            return Sent { total, sent, errno: 0 };
        }
        if !refused && !partial {
            self.fired.count(Fault::FullSend);
        }
        let errno = if sent > 0 && self.random.chance(512) { 0 } else { errno::EAGAIN };
        Sent { total, sent, errno }
    }

    // ---- listeners

    pub(crate) fn arm_accept(&mut self, listener: u8) {
        self.operations += 1;
        let now = self.now;
        let listening = self.listeners.get_mut(&listener).expect("accept on an unknown listener");
        assert!(listening.open, "accept on closed listener {listener}");
        assert!(!listening.armed, "accept is armed twice on listener {listener}");
        if let Some(failed) = listening.failed {
            assert!(
                now >= failed + 1_000,
                "accept spins on listener {listener}: armed again {} us after an error",
                now - failed
            );
        }
        listening.armed = true;
        listening.ended = false;
    }

    pub(crate) fn unlisten(&mut self, listener: u8) {
        self.operations += 1;
        let listening = self.listeners.get_mut(&listener).expect("unlisten on an unknown listener");
        assert!(listening.open, "listener {listener} is closed twice");
        listening.open = false;
        let backlog = std::mem::take(&mut listening.backlog);
        let armed = listening.armed && !listening.ended;
        for conn in backlog {
            self.gate(conn).life = Life::Closed;
            self.send_reset(conn, false);
        }
        if armed && self.random.chance(512) {
            self.end_accept(listener, 0);
        }
    }

    /// The process has ended: what it still had goes with it, these sockets as closed ones do; so do connections that
    /// were accepted without anybody being told.
    pub(crate) fn end_process(&mut self, sockets: &[ConnId]) {
        let listeners: Vec<u8> = self.listeners.keys().copied().collect();
        for listener in listeners {
            if self.listeners[&listener].open {
                self.unlisten(listener);
            }
        }
        for &conn in sockets {
            let gate = self.gate(conn);
            gate.receive = None;
            gate.poll = None;
            gate.connect = None;
            self.close(conn);
        }
        for conn in 0..self.conns.len() {
            if self.conns[conn].gate.life == Life::Unborn {
                self.gate(conn).life = Life::Closed;
                self.send_reset(conn, false);
            }
        }
    }

    fn end_accept(&mut self, listener: u8, errno: i32) {
        let listening = self.listeners.get_mut(&listener).expect("it is known");
        listening.ended = true;
        self.complete(Stream::Accept(listener), What::AcceptEnded(listener, errno));
    }

    /// Takes connections from the backlogs.
    fn run_accepts(&mut self) {
        let ids: Vec<u8> = self.listeners.keys().copied().collect();
        for id in ids {
            loop {
                let listening = self.listeners.get_mut(&id).expect("it is known");
                if !listening.open || !listening.armed || listening.ended || listening.backlog.is_empty() {
                    break;
                }
                if self.strikes(Fault::AcceptError) {
                    let errno = *self.random.pick(&[
                        errno::EMFILE,
                        errno::ENFILE,
                        errno::ENOMEM,
                        errno::ECONNABORTED,
                    ]);
                    self.end_accept(id, errno);
                    break;
                }
                let listening = self.listeners.get_mut(&id).expect("it is known");
                let conn = listening.backlog.pop_front().expect("it is not empty");
                let gone = self.conns[conn].gate.broken.is_some();
                let peer = SocketAddr::new(
                    IpAddr::V4(Ipv4Addr::new(192, 0, 2, id + 1)),
                    1024 + (conn % 60_000) as u16,
                );
                // Whom to expect a PROXY header of is known by it.
                let is_known = id == PROXIED || !self.strikes(Fault::NoPeerAddress);
                let peer = (!gone && is_known).then_some(peer);
                self.complete(Stream::Accept(id), What::Accepted(id, conn, peer));
                if self.strikes(Fault::AcceptRearm) {
                    self.end_accept(id, 0);
                    break;
                }
            }
        }
    }
}

/// What became of a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) total: usize,
    pub(crate) sent: usize,
    pub(crate) errno: i32,
}
