//! A byte echo over the [`Backend`] trait, small and without a protocol: it proves the simulator before and beside the
//! real shard. The simulator must pass it, and must find each [`Bug`] planted in it.

use std::{cell::Cell, io, rc::Rc, time::Duration};

use tidegate_io::{Backend, Buffer, Event, ListenerId, ReceiveEnd, Remainder, Sends, Token, Wake};
use tidegate_shard::planted::Bug;

use super::net::{MILLIS, SECONDS, Trace};
use super::{
    backend::{SimBackend, SimListener, SimSocket},
    kernel::Armed,
    raw::RawClient,
    world::{Bounds, Inspection, Outcome, Subject, World},
};

/// Bytes in an outbox above which its reader is paused.
const HIGH: usize = 20_000;
const LOW: usize = 5_000;

struct Slot {
    generation: u32,
    session: Option<Session>,
}

struct Session {
    socket: SimSocket,
    outbox: Vec<u8>,
    receive: bool,
    cancelling: bool,
    poll: bool,
    paused: bool,
    ended: bool,
    fin_sent: bool,
    dead: bool,
}

/// A piece of a receive buffer that is sent in this turn, or an outbox.
enum Outgoing {
    Piece(Token, usize),
    Outbox(Token),
}

pub(crate) struct Toy {
    backend: SimBackend,
    bug: Option<Bug>,
    slots: Vec<Slot>,
    free: Vec<usize>,
    buffers: Vec<Buffer>,
    outgoing: Vec<Outgoing>,
    starved: Vec<Token>,
    accept_again: Option<u64>,
    drain: Rc<Cell<bool>>,
    listening: bool,
    events: Vec<Event<SimSocket>>,
    remainders: Vec<Remainder>,
}

struct TurnSends<'a> {
    toy: &'a [Slot],
    buffers: &'a [Buffer],
    outgoing: &'a [Outgoing],
}

impl TurnSends<'_> {
    fn session(&self, token: Token) -> &Session {
        self.toy[token.0 as u32 as usize].session.as_ref().expect("it sends, so it lives")
    }
}

impl Sends<SimSocket> for TurnSends<'_> {
    fn len(&self) -> usize {
        self.outgoing.len()
    }

    fn socket(&self, index: usize) -> &SimSocket {
        match self.outgoing[index] {
            Outgoing::Piece(token, _) | Outgoing::Outbox(token) => &self.session(token).socket,
        }
    }

    fn pieces(&self, index: usize) -> impl Iterator<Item = &[u8]> {
        std::iter::once(match self.outgoing[index] {
            Outgoing::Piece(_, buffer) => &self.buffers[buffer][..],
            Outgoing::Outbox(token) => &self.session(token).outbox[..],
        })
    }
}

impl Toy {
    fn new(mut backend: SimBackend, bug: Option<Bug>, drain: Rc<Cell<bool>>) -> Toy {
        backend.listen(ListenerId(0), SimListener { backlog: 3 }).expect("the first one");
        backend.accept(ListenerId(0));
        Toy {
            backend,
            bug,
            slots: Vec::new(),
            free: Vec::new(),
            buffers: Vec::new(),
            outgoing: Vec::new(),
            starved: Vec::new(),
            accept_again: None,
            drain,
            listening: true,
            events: Vec::new(),
            remainders: Vec::new(),
        }
    }

    fn is(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    fn now(&self) -> u64 {
        self.backend.now().as_micros() as u64
    }

    fn live(&self, token: Token) -> Option<usize> {
        let index = token.0 as u32 as usize;
        let slot = self.slots.get(index)?;
        let current = slot.generation == (token.0 >> 32) as u32 || self.is(Bug::SkipGenerationCheck);
        (current && slot.session.is_some()).then_some(index)
    }

    fn session(&mut self, index: usize) -> &mut Session {
        self.slots[index].session.as_mut().expect("looked up")
    }

    fn token(&self, index: usize) -> Token {
        Token(u64::from(self.slots[index].generation) << 32 | index as u64)
    }

    fn arm(&mut self, index: usize) {
        let token = self.token(index);
        let session = self.slots[index].session.as_mut().expect("looked up");
        if session.receive || session.paused || session.ended || session.dead {
            return;
        }
        session.receive = true;
        self.backend.receive(&session.socket, token);
    }

    fn handle(&mut self, event: Event<SimSocket>) {
        match event {
            Event::Accepted { socket, .. } => self.accepted(socket),
            Event::AcceptEnded { errno: 0, .. } if self.listening => self.backend.accept(ListenerId(0)),
            Event::AcceptEnded { .. } => {
                let forgets = self.is(Bug::ForgetAccept);
                self.accept_again = (self.listening && !forgets).then(|| self.now() + 50 * MILLIS);
            }
            Event::Received { token, buffer } => self.received(token, buffer),
            Event::ReceiveEnded { token, end } => self.receive_ended(token, end),
            Event::Writable { token } => {
                if let Some(index) = self.live(token)
                    && self.session(index).poll
                {
                    self.session(index).poll = false;
                    self.flush(index);
                }
            }
            Event::Connected { .. } | Event::Woken => {}
        }
    }

    fn accepted(&mut self, socket: SimSocket) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, session: None });
            self.slots.len() - 1
        });
        self.slots[index].session = Some(Session {
            socket,
            outbox: Vec::new(),
            receive: false,
            cancelling: false,
            poll: false,
            paused: false,
            ended: false,
            fin_sent: false,
            dead: false,
        });
        self.arm(index);
    }

    fn received(&mut self, token: Token, buffer: Buffer) {
        let Some(index) = self.live(token) else {
            if !self.is(Bug::LeakStaleBuffer) {
                self.backend.recycle(buffer);
            }
            return;
        };
        let around = self.is(Bug::SendAroundOutbox);
        let early = self.is(Bug::ReturnBufferEarly);
        let token = self.token(index);
        let sends = self.outgoing.iter().any(|outgoing| {
            matches!(outgoing, Outgoing::Piece(other, _) | Outgoing::Outbox(other) if *other == token)
        });
        let session = self.session(index);
        if session.dead {
            return self.backend.recycle(buffer);
        }
        if (session.outbox.is_empty() || around) && !sends {
            if early && self.buffers.len() == 1 {
                // The piece is sent from what now lies where its buffer lay.
                let earlier = std::mem::replace(&mut self.buffers[0], buffer);
                self.backend.recycle(earlier);
                self.outgoing.push(Outgoing::Piece(token, 0));
                return;
            }
            self.buffers.push(buffer);
            let place = self.buffers.len() - 1;
            self.outgoing.push(Outgoing::Piece(token, place));
            return;
        }
        session.outbox.extend_from_slice(&buffer);
        self.backend.recycle(buffer);
        if self.session(index).outbox.len() > HIGH {
            self.pause(index);
        }
    }

    fn pause(&mut self, index: usize) {
        let token = self.token(index);
        let session = self.slots[index].session.as_mut().expect("looked up");
        session.paused = true;
        if session.receive && !session.cancelling {
            session.cancelling = true;
            self.backend.cancel_receive(&session.socket, token);
        }
    }

    fn receive_ended(&mut self, token: Token, end: ReceiveEnd) {
        let Some(index) = self.live(token) else { return };
        let twice = self.is(Bug::RearmTwice);
        let ignores = self.is(Bug::IgnoreStarved);
        let session = self.session(index);
        if !session.receive {
            return;
        }
        session.receive = false;
        session.cancelling = false;
        match end {
            ReceiveEnd::Eof => session.ended = true,
            ReceiveEnd::Error(_) => session.dead = true,
            ReceiveEnd::Starved if ignores => {}
            ReceiveEnd::Starved => {
                let token = self.token(index);
                self.starved.push(token);
            }
            ReceiveEnd::Rearm | ReceiveEnd::Cancelled => {
                self.arm(index);
                if twice && end == ReceiveEnd::Rearm {
                    self.session(index).receive = false;
                    self.arm(index);
                }
            }
        }
    }

    /// Sends the outbox in the coming turn.
    fn flush(&mut self, index: usize) {
        let token = self.token(index);
        let session = self.session(index);
        if !session.outbox.is_empty() && !session.poll && !session.dead {
            // A poll was armed until now, so nothing of this session is sent yet.
            self.outgoing.push(Outgoing::Outbox(token));
        }
    }

    /// Takes up what the kernel did not take, and gives the buffers back.
    fn settle(&mut self) {
        let outgoing = std::mem::take(&mut self.outgoing);
        let mut again = Vec::new();
        let remainders = std::mem::take(&mut self.remainders);
        for (place, sent) in outgoing.iter().enumerate() {
            let remainder = remainders.iter().find(|remainder| remainder.index as usize == place);
            let (Outgoing::Piece(token, _) | Outgoing::Outbox(token)) = *sent;
            let index = token.0 as u32 as usize;
            let (loses, repeats) = (self.is(Bug::LoseRemainder), self.is(Bug::RepeatRemainder));
            let forgets = self.is(Bug::ForgetResume);
            let Slot { session, .. } = &mut self.slots[index];
            let session = session.as_mut().expect("it sent, so it lives");
            let bytes = match *sent {
                Outgoing::Piece(_, buffer) => self.buffers[buffer].to_vec(),
                Outgoing::Outbox(_) => std::mem::take(&mut session.outbox),
            };
            if let Some(remainder) = remainder {
                let from = remainder.sent.saturating_sub(usize::from(repeats && remainder.sent > 0));
                let from = if loses { bytes.len() } else { from };
                let mut rest = bytes[from..].to_vec();
                rest.append(&mut session.outbox);
                session.outbox = rest;
                match remainder.errno {
                    0 | 11 => {
                        session.poll = true;
                        self.backend.poll_writable(&session.socket, token);
                    }
                    _ => {
                        session.dead = true;
                        self.backend.shutdown(&session.socket, true);
                    }
                }
            } else if session.paused && session.outbox.len() < LOW && !forgets {
                session.paused = false;
                self.arm(index);
            }
            let session = self.session(index);
            if !session.poll && !session.dead && !session.outbox.is_empty() {
                again.push(Outgoing::Outbox(token));
            }
        }
        self.outgoing = again;
        for buffer in self.buffers.drain(..) {
            self.backend.recycle(buffer);
        }
    }

    /// Ends what is over: the FIN behind the last byte, then the close when nothing is armed.
    fn reap(&mut self) {
        for index in 0..self.slots.len() {
            let draining = self.drain.get();
            let (early, fin_early) = (self.is(Bug::FreeSlotEarly), self.is(Bug::FinBeforeOutbox));
            let sends = self.sends(index);
            let Some(session) = &mut self.slots[index].session else { continue };
            if draining && !session.dead {
                session.dead = true;
                self.backend.shutdown(&session.socket, true);
            }
            if session.dead && !sends {
                session.outbox.clear();
            } else if session.ended && !session.fin_sent && !sends && (session.outbox.is_empty() || fin_early)
            {
                session.fin_sent = true;
                self.backend.shutdown_write(&session.socket);
            }
            let idle = !session.receive && !session.poll;
            if (session.dead || session.fin_sent) && !sends && (idle || early) {
                let session = self.slots[index].session.take().expect("looked at");
                self.slots[index].generation += 1;
                self.free.push(index);
                self.backend.close(session.socket);
            }
        }
    }

    fn sends(&self, index: usize) -> bool {
        let token = self.token(index);
        self.outgoing.iter().any(|outgoing| match outgoing {
            Outgoing::Piece(other, _) | Outgoing::Outbox(other) => *other == token,
        })
    }

    fn step(&mut self) -> io::Result<bool> {
        let at_once = !self.starved.is_empty() || !self.outgoing.is_empty();
        let deadline = if !at_once { self.accept_again } else { Some(0) };
        let sends = TurnSends { toy: &self.slots, buffers: &self.buffers, outgoing: &self.outgoing };
        let deadline = deadline.map(Duration::from_micros);
        self.backend.turn(&sends, deadline, &mut self.events, &mut self.remainders)?;
        self.settle();
        for token in std::mem::take(&mut self.starved) {
            if let Some(index) = self.live(token) {
                let lent = self.backend.buffers();
                if lent.lent < lent.total { self.arm(index) } else { self.starved.push(token) }
            }
        }
        if self.accept_again.is_some_and(|time| time <= self.now()) {
            self.accept_again = None;
            self.backend.accept(ListenerId(0));
        }
        for event in std::mem::take(&mut self.events) {
            self.handle(event);
        }
        if self.drain.get() && self.listening {
            self.listening = false;
            self.accept_again = None;
            self.backend.unlisten(ListenerId(0));
        }
        self.reap();
        Ok(!self.drain.get() || self.free.len() < self.slots.len())
    }
}

impl Subject for Toy {
    fn turn(&mut self) -> io::Result<bool> {
        self.step()
    }

    fn inspect(&self) -> Inspection {
        let mut seen = Inspection {
            buffers: self.buffers.len() as u32,
            sends: self.outgoing.len() as u32,
            listeners: u32::from(self.listening),
            ..Inspection::default()
        };
        for session in self.slots.iter().filter_map(|slot| slot.session.as_ref()) {
            seen.slots += 1;
            seen.legs += 1;
            seen.timed += 1;
            seen.armed.sockets += 1;
            seen.armed.receives += u32::from(session.receive);
            seen.armed.polls += u32::from(session.poll);
            seen.outbox_most = seen.outbox_most.max(session.outbox.len());
        }
        debug_assert_eq!(seen.armed.connects, Armed::default().connects);
        seen
    }
}

/// Runs a seed with the toy.
pub(crate) fn run(seed: u64, bug: Option<Bug>, trace: Trace) -> Outcome {
    let mut world = World::new(seed, trace);
    let drain = Rc::new(Cell::new(false));
    let toy = Toy::new(world.backend(), bug, Rc::clone(&drain));
    for name in 0..world.random.size(1..=12) {
        let start = SECONDS + world.random.range(0..=3 * SECONDS);
        let client = RawClient::new(name, &mut world.random, start);
        let mut net = world.net.borrow_mut();
        let actor = net.add_actor(Box::new(client));
        net.wake_at(actor, start);
    }
    world.plan_faults(5 * SECONDS);
    let waker = toy.backend.waker();
    world.net.borrow_mut().drain_at(
        None,
        Box::new(move || {
            drain.set(true);
            waker.wake();
        }),
    );
    let bounds = Bounds {
        slots: 12,
        outbox: HIGH + 16 * 20_000,
        inflaters: 0,
        partial_per_slot: 0,
        timed: true,
        turn_bytes: 0,
        shares: false,
    };
    world.run(toy, &bounds)
}
