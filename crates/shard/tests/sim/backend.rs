//! The simulated backend: [`Backend`] over [`Net`], blocking in virtual time.

use std::{
    cell::{Cell, RefCell},
    io, mem,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tidegate_io::{
    Address, BUFFER_BYTES, Backend, ConnectOptions, Counters, Event, Lent, ListenerId, ReceiveEnd, Remainder,
    Sends, Token, Wake,
};

use super::{
    faults::Fault,
    kernel::{Listening, What},
    net::{ConnId, Net, SECONDS, Shared, Stop},
    world::LONGEST,
};

/// A shard may take this many turns with which it does nothing that can be seen. Where turns are bounded to one message, it
/// reads a buffer that it has copied in as many turns as messages of six bytes lie in it, and all may go to an outbox.
const IDLE_TURNS: u32 = 4 * (BUFFER_BYTES / 6) as u32;

/// A socket as the shard holds it. To be given to [`Backend::close`]; dropping it leaks it, which fails the run, unless the
/// shard was told to end at once: then it goes as a descriptor goes with its owner.
#[derive(Debug)]
pub(crate) struct SimSocket {
    conn: ConnId,
    closed: bool,
    leftovers: Rc<Leftovers>,
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        if self.closed || std::thread::panicking() {
            return;
        }
        assert!(self.leftovers.stopped.get(), "socket #{} was dropped, not closed", self.conn);
        self.leftovers.dropped.borrow_mut().push(self.conn);
    }
}

/// What a shard that was told to end at once leaves to its destructors.
#[derive(Debug, Default)]
pub(crate) struct Leftovers {
    stopped: Cell<bool>,
    dropped: RefCell<Vec<ConnId>>,
}

impl Leftovers {
    /// The sockets that were dropped.
    pub(crate) fn take(&self) -> Vec<ConnId> {
        mem::take(&mut self.dropped.borrow_mut())
    }
}

/// A listening socket: how long its backlog is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SimListener {
    pub(crate) backlog: usize,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct SimWaker(Arc<AtomicBool>);

impl Wake for SimWaker {
    fn wake(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A shard's access to the simulated kernel.
pub(crate) struct SimBackend {
    net: Shared,
    waker: SimWaker,
    leftovers: Rc<Leftovers>,
}

impl SimBackend {
    pub(crate) fn new(net: Shared, leftovers: Rc<Leftovers>) -> SimBackend {
        SimBackend { net, waker: SimWaker::default(), leftovers }
    }
}

impl Backend for SimBackend {
    type Socket = SimSocket;
    type Listener = SimListener;
    type Waker = SimWaker;

    fn waker(&self) -> SimWaker {
        self.waker.clone()
    }

    fn listen(&mut self, id: ListenerId, listener: SimListener) -> io::Result<()> {
        let before = self.net.borrow_mut().listeners.insert(id.0, Listening::new(listener.backlog));
        assert!(before.is_none(), "two listeners have number {}", id.0);
        Ok(())
    }

    fn accept(&mut self, id: ListenerId) {
        self.net.borrow_mut().arm_accept(id.0);
    }

    fn unlisten(&mut self, id: ListenerId) {
        self.net.borrow_mut().unlisten(id.0);
    }

    fn receive(&mut self, socket: &SimSocket, token: Token) {
        self.net.borrow_mut().arm_receive(socket.conn, token.0);
    }

    fn cancel_receive(&mut self, socket: &SimSocket, token: Token) {
        self.net.borrow_mut().cancel_receive(socket.conn, token.0);
    }

    fn poll_writable(&mut self, socket: &SimSocket, token: Token) {
        self.net.borrow_mut().arm_poll(socket.conn, token.0);
    }

    fn connect(&mut self, address: &Address, _: &ConnectOptions, token: Token) -> io::Result<SimSocket> {
        match self.net.borrow_mut().connect(address, token.0) {
            Ok(conn) => Ok(SimSocket { conn, closed: false, leftovers: Rc::clone(&self.leftovers) }),
            Err(errno) => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    fn shutdown_write(&mut self, socket: &SimSocket) {
        self.net.borrow_mut().shutdown_write(socket.conn);
    }

    fn shutdown(&mut self, socket: &SimSocket, reset: bool) {
        self.net.borrow_mut().shutdown(socket.conn, reset);
    }

    fn close(&mut self, mut socket: SimSocket) {
        socket.closed = true;
        self.net.borrow_mut().close(socket.conn);
    }

    fn recycle(&mut self, buffer: tidegate_io::Buffer) {
        self.net.borrow_mut().recycle(buffer);
    }

    fn turn<T: Sends<SimSocket>>(
        &mut self,
        sends: &T,
        deadline: Option<Duration>,
        events: &mut Vec<Event<SimSocket>>,
        remainders: &mut Vec<Remainder>,
    ) -> io::Result<()> {
        let net = &mut *self.net.borrow_mut();
        // A part of the turn's sends may go ahead: what that brings is handled behind the rest of them.
        let first = mem::take(&mut net.begun);
        assert!(!first || net.stop != Stop::Told, "a turn of a shard that was told to end at once");
        let waits = deadline.is_none_or(|deadline| micros_up(deadline) > net.now);
        assert!(events.is_empty() || !waits, "the shard waits, though it has been told of something");
        let operations = net.operations;
        net.counters.turns += u64::from(first);
        let turn = net.counters.turns;
        // What woke it is no event of its own but another shard's time, or nothing at all: it must not have needed that.
        let asleep = mem::take(&mut net.asleep);
        assert!(!asleep || sends.is_empty(), "the shard waited, though it had something to send");
        for index in 0..sends.len() {
            let socket = sends.socket(index);
            assert!(!socket.closed, "a send on a socket that was closed");
            let sent = net.send(turn, socket.conn, &mut sends.pieces(index));
            net.say(|| {
                format!(
                    "turn {turn}: #{} sends {} of {} ({})",
                    socket.conn, sent.sent, sent.total, sent.errno
                )
            });
            if sent.sent < sent.total {
                net.counters.partial_sends += 1;
                remainders.push(Remainder { index: index as u32, sent: sent.sent, errno: sent.errno });
            }
        }
        // In the order of their sends or in any other: a shard finds them by their index.
        if remainders.len() > 1 && net.random.chance(256) {
            remainders.reverse();
        }
        let deadline = deadline.map(micros_up);
        let past = deadline.is_some_and(|deadline| deadline <= net.now);
        let before = events.len();
        // A remainder is news, too: nobody waits with one.
        let idle = sends.is_empty() && !past && net.lent().lent == 0;
        wait(net, self, if remainders.is_empty() { deadline } else { Some(0) }, idle, events);
        let due = deadline.is_some_and(|deadline| deadline <= net.now);
        net.asleep = events.len() == before && remainders.is_empty() && !due;
        net.say(|| format!("turn {turn} ends, deadline {deadline:?}, asleep: {}", net.asleep));
        // A shard that works off what it has kept gives buffers back.
        let recycled = mem::replace(&mut net.recycled_before, net.recycled);
        let moved = sends.len() > 0 || operations != net.operations || recycled != net.recycled;
        if past && events.len() == before && !moved {
            net.idle_turns += 1;
            assert!(
                net.idle_turns <= IDLE_TURNS,
                "the shard spins: its deadline {deadline:?} is past, and it does nothing"
            );
        } else {
            net.idle_turns = 0;
        }
        Ok(())
    }

    fn now(&self) -> Duration {
        Duration::from_micros(self.net.borrow().now)
    }

    fn buffers(&self) -> Lent {
        self.net.borrow().lent()
    }

    fn counters(&self) -> Counters {
        self.net.borrow().counters
    }
}

fn micros_up(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000)).unwrap_or(u64::MAX)
}

/// Waits for an event or for the deadline, letting the network live meanwhile.
fn wait(
    net: &mut Net,
    backend: &SimBackend,
    deadline: Option<u64>,
    idle: bool,
    events: &mut Vec<Event<SimSocket>>,
) {
    // A turn takes time, too.
    net.now += net.random.range(1..=15);
    net.waits = None;
    let early = net.strikes(Fault::EarlyReturn);
    let spurious = net.strikes(Fault::SpuriousWake);
    loop {
        net.run_due();
        net.run_operations();
        let woken = backend.waker.0.swap(false, Ordering::Relaxed) || spurious;
        let ready = net.take_ready();
        if woken || !ready.is_empty() {
            forge(net, idle, events);
            if woken {
                events.push(Event::Woken);
                if net.stop == Stop::Sent {
                    net.stop = Stop::Told;
                    backend.leftovers.stopped.set(true);
                }
            }
            for (index, what) in ready.into_iter().enumerate() {
                net.told(&what, index + usize::from(woken));
                net.counters.events += 1;
                let event = event(what, &backend.leftovers);
                net.say(|| format!("turn {}: {event:?}", net.counters.turns));
                events.push(event);
            }
            return;
        }
        if early || deadline.is_some_and(|deadline| deadline <= net.now) {
            return;
        }
        if net.unfinished == 0 && net.post_last() {
            continue;
        }
        let next = [net.next_time(), net.next_ready(), deadline].into_iter().flatten().min();
        // Letters to others go before time does.
        let horizon = if net.has_posted() { Some(net.now) } else { net.horizon };
        if horizon.is_some_and(|horizon| next.is_none_or(|next| next > horizon)) {
            net.waits = Some(next.unwrap_or(u64::MAX));
            return;
        }
        let Some(mut next) = next else {
            panic!("the shard waits for ever: no deadline, and nothing will happen");
        };
        if deadline == Some(next) && net.strikes(Fault::LateReturn) {
            next += net.random.range(0..=SECONDS / 50);
        }
        net.now = net.now.max(next);
        assert!(net.now < 2 * LONGEST, "a turn without end: {:?}", net.unfinished_actors());
    }
}

fn event(what: What, leftovers: &Rc<Leftovers>) -> Event<SimSocket> {
    match what {
        What::Received(_, token, buffer) => Event::Received { token: Token(token), buffer },
        What::ReceiveEnded(_, token, end) => Event::ReceiveEnded { token: Token(token), end },
        What::Writable(_, token) => Event::Writable { token: Token(token) },
        What::Connected(_, token, errno) => Event::Connected { token: Token(token), errno },
        What::Accepted(listener, conn, peer) => Event::Accepted {
            listener: ListenerId(listener),
            socket: SimSocket { conn, closed: false, leftovers: Rc::clone(leftovers) },
            peer,
        },
        What::AcceptEnded(listener, errno) => Event::AcceptEnded { listener: ListenerId(listener), errno },
    }
}

/// Adds events for nothing that is armed, before the real ones: what is armed while those are handled is not met.
/// `idle`: neither does the shard arm anything between this turn and its events.
fn forge(net: &mut Net, idle: bool, events: &mut Vec<Event<SimSocket>>) {
    if net.strikes(Fault::UnknownToken) {
        let index = *net.random.pick(&[0, 1, 5, 1_000, u64::from(u32::MAX)]);
        let generation = net.random.range(0x40_0000..=0xFF_FFFF);
        let token = *net.random.pick(&[generation << 32 | index, (1 << 56) - 1, 0xFF_FFFF << 32]);
        if net.armed_for(token).is_none() {
            push_forged(net, events, token);
        }
    }
    if let Some(token) = old_token(net)
        && net.strikes(Fault::OldToken)
    {
        push_forged(net, events, token);
    }
    if let Some(token) = old_token(net)
        && net.random.chance(net.swarm.rate(Fault::OldTokenBytes))
        && let Some(mut buffer) = net.pool.take()
    {
        net.fired.count(Fault::OldTokenBytes);
        let mut bytes = [0; 40];
        net.random.fill(&mut bytes);
        buffer.fill(&bytes);
        net.say(|| format!("forged: bytes for old token {token:#x}"));
        events.push(Event::Received { token: Token(token), buffer });
    }
    if idle && !net.tokens.is_empty() && net.random.chance(net.swarm.rate(Fault::Duplicate)) {
        let nth = net.random.index(net.tokens.len());
        let token = *net.tokens.keys().nth(nth).expect("below their number");
        let (receive, poll, connect) = net.armed_for(token).expect("it is live");
        let event = match net.random.below(3) {
            0 if !receive => Event::ReceiveEnded { token: Token(token), end: some_end(net) },
            1 if !poll => Event::Writable { token: Token(token) },
            2 if !connect => Event::Connected { token: Token(token), errno: *net.random.pick(&[0, 111]) },
            _ => return,
        };
        net.fired.count(Fault::Duplicate);
        net.say(|| format!("forged: {event:?}"));
        events.push(event);
    }
}

/// A token of a closed socket that no live one uses.
fn old_token(net: &mut Net) -> Option<u64> {
    if net.old_tokens.is_empty() {
        return None;
    }
    // Mostly a recent one: its slot has a new owner soon.
    let len = net.old_tokens.len();
    let recent = if net.random.chance(700) { 4 } else { len };
    let back = net.random.index(len.min(recent));
    let token = net.old_tokens[len - 1 - back];
    net.armed_for(token).is_none().then_some(token)
}

fn some_end(net: &mut Net) -> ReceiveEnd {
    let ends = [
        ReceiveEnd::Eof,
        ReceiveEnd::Rearm,
        ReceiveEnd::Starved,
        ReceiveEnd::Cancelled,
        ReceiveEnd::Error(104),
    ];
    *net.random.pick(&ends)
}

fn push_forged(net: &mut Net, events: &mut Vec<Event<SimSocket>>, token: u64) {
    let token = Token(token);
    let event = match net.random.below(3) {
        0 => Event::ReceiveEnded { token, end: some_end(net) },
        1 => Event::Writable { token },
        _ => Event::Connected { token, errno: *net.random.pick(&[0, 111]) },
    };
    net.say(|| format!("forged: {event:?}"));
    events.push(event);
}
