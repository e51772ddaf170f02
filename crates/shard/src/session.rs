//! One accepted connection or one leg to an upstream: a socket, its outbox and the state of its protocol.
//!
//! ```text
//! client:    Head ──► Open ───────────────────┐
//!            │ ▲ ├─◄► Exchange ───────────────┤
//!            ▼ │ ├──► Waiting ──► Paired ─────┤──► Lingering ──► Dead ──► (slot freed)
//!       Deciding └────────────────────────────┘
//! upstream:  Dialing ──► Paired ──► Lingering ──► Dead
//! ```
//! Invariant: a slot is freed only when no receive, poll or connect is in flight on its socket ([`InFlight`]).

use std::{
    borrow::Cow,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use tidegate_hub::RouteId;
use tidegate_registry::{Key, Outbox};
use tidegate_wire::{
    budget::ControlBudget, close::CloseCode, deflate::Compression, http::HeadScanner, message::Decoder,
    relay::Inspector,
};

use crate::{
    identity::Deciding, proxy::Dialing, proxy::Waiting, stamp::Stamp, topics::Exchange, transport::Transport,
};

/// What the kernel still holds of a session, and what this side wants of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct InFlight {
    /// A receive is armed: its final event has not come.
    pub(crate) receive: bool,
    /// Its cancellation was asked for.
    pub(crate) cancelling: bool,
    /// A poll for room is armed.
    pub(crate) poll: bool,
    /// A connect is pending.
    pub(crate) connect: bool,
}

impl InFlight {
    /// Whether the socket may be closed.
    pub(crate) fn none(self) -> bool {
        !(self.receive || self.poll || self.connect)
    }
}

/// What a session has told or was told, independent of its state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// Reading is stopped: until the outbox that it fills has room, or an early client's upstream is there.
    pub(crate) paused: bool,
    /// Bytes of it are kept for a later turn.
    pub(crate) held: bool,
    /// So is the end of its receive.
    pub(crate) end_kept: bool,
    /// What is kept of it has left the receive buffers: it is not read until that was.
    pub(crate) sheltered: bool,
    /// Waits on the shard's list for receive buffers.
    pub(crate) starved: bool,
    /// The peer's FIN, or the end of the connection, was seen.
    pub(crate) ended: bool,
    /// The FIN was sent.
    pub(crate) fin_sent: bool,
    /// A Close frame was sent on this leg.
    pub(crate) close_sent: bool,
    /// A Close was received on this leg, or a rule broken: nothing more that comes counts.
    pub(crate) close_received: bool,
    /// A ping of this gateway waits for its pong.
    pub(crate) pinged: bool,
    /// This is a leg to an upstream: this end is the client.
    pub(crate) upstream: bool,
    /// What is asked for less often.
    pub(crate) facts: Facts,
}

/// What is so of a session, where that is seldom asked for: one bit each, as each byte of a session counts.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(crate) enum Fact {
    /// It was counted and logged as a slow consumer.
    Slow = 1,
    /// The PROXY header that it has to begin with has not come yet.
    ProxyHeader = 2,
    /// It is in a spare slot: it was turned away.
    Spare = 4,
    /// It counts for its address.
    Counted = 8,
    /// It counts for its route.
    Routed = 16,
    /// It was too fast, and is not read until its next message is in time.
    Delayed = 32,
    /// Its listener only redirects.
    Redirects = 64,
    /// Its request has found a route.
    Placed = 128,
}

/// A set of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts(u8);

impl Facts {
    pub(crate) fn has(self, fact: Fact) -> bool {
        self.0 & fact as u8 != 0
    }

    pub(crate) fn set(&mut self, fact: Fact, is_so: bool) {
        match is_so {
            true => self.0 |= fact as u8,
            false => self.0 &= !(fact as u8),
        }
    }

    /// Whether it was so; it is now.
    pub(crate) fn put(&mut self, fact: Fact) -> bool {
        let was_so = self.has(fact);
        self.set(fact, true);
        was_so
    }

    /// Whether it was so; it is not any more.
    pub(crate) fn take(&mut self, fact: Fact) -> bool {
        let was_so = self.has(fact);
        self.set(fact, false);
        was_so
    }
}

/// A remote address in 18 bytes instead of 32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    /// All zeros, which nobody has: not known.
    ip: [u8; 16],
    /// May be 0 where a proxy has told it.
    port: u16,
}

impl Peer {
    pub(crate) fn new(address: Option<SocketAddr>) -> Peer {
        let Some(address) = address else { return Peer { ip: [0; 16], port: 0 } };
        let ip = match address.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        Peer { ip, port: address.port() }
    }

    /// The address, an IPv4 one as such.
    pub(crate) fn address(self) -> Option<SocketAddr> {
        (self.ip != [0; 16]).then(|| SocketAddr::new(Ipv6Addr::from(self.ip).to_canonical(), self.port))
    }
}

/// A session or a leg.
pub(crate) struct Session<S> {
    pub(crate) socket: S,
    pub(crate) outbox: Outbox,
    pub(crate) state: State,
    pub(crate) transport: Transport,
    /// When the peer was last heard.
    pub(crate) seen: Stamp,
    /// When the message began that is incomplete, where one is.
    pub(crate) since: Stamp,
    /// When the outbox last got shorter, while it is not empty.
    pub(crate) stalled: Stamp,
    /// When the last data came, for the idle time-out.
    pub(crate) spoke: Stamp,
    /// When the ping was sent that waits for its pong.
    pub(crate) pinged: Stamp,
    pub(crate) peer: Peer,
    /// Place in the turn's list plus one; 0: not in it.
    pub(crate) dirty: u32,
    /// The first one where there is none yet: whose limits and numbers it has says [`Session::own_route`].
    pub(crate) route: RouteId,
    pub(crate) in_flight: InFlight,
    pub(crate) marks: Marks,
}

/// The protocol's state.
pub(crate) enum State {
    /// Reading a request's head.
    Head(Head),
    /// A hook is asked whether a request may come in.
    Deciding(Box<Deciding>),
    /// A proxied client waits for its upstream.
    Waiting(Box<Waiting>),
    /// An upstream leg connects, or waits for the answer to its handshake.
    Dialing(Box<Dialing>),
    /// Messages are answered here.
    Open(Open),
    /// One side of a proxied pair.
    Paired(Paired),
    /// A request of HTTP is under way that topics answer.
    Exchange(Box<Exchange>),
    /// The last bytes are on their way or sent: what comes is discarded until the peer ends or the deadline.
    Lingering {
        /// So many bytes may still come; who sends more is cut off.
        left_bytes: u32,
        /// How long the peer may take once nothing is left to send, in milliseconds.
        timeout_ms: u32,
        /// By when it must be over, in milliseconds.
        deadline_ms: u64,
    },
    /// The socket is shut down: only the final events are awaited.
    Dead,
}

impl State {
    /// Whether it is what counts as a session: one of WebSocket, for a proxied pair its client's leg, or a stream that has begun.
    pub(crate) fn is_session(&self, marks: &Marks) -> bool {
        match self {
            State::Open(_) => true,
            State::Paired(_) => !marks.upstream,
            State::Exchange(exchange) => exchange.has_begun(),
            State::Head(_)
            | State::Deciding(_)
            | State::Waiting(_)
            | State::Dialing(_)
            | State::Lingering { .. }
            | State::Dead => false,
        }
    }
}

/// Reading a request.
pub(crate) struct Head {
    pub(crate) scanner: HeadScanner,
    /// What came so far, where it did not come at once.
    pub(crate) bytes: Vec<u8>,
    pub(crate) deadline_ms: u64,
    /// A page was answered, and the connection kept.
    pub(crate) kept_alive: bool,
}

/// An open session whose messages are answered here.
pub(crate) struct Open {
    pub(crate) decoder: Decoder,
    pub(crate) compression: Option<Compression>,
    pub(crate) budget: ControlBudget,
    /// By when the closing handshake must be over, once a Close was sent; 0 before.
    pub(crate) close_deadline_ms: u64,
}

/// One side of a proxied pair, and how its bytes are read.
pub(crate) struct Paired {
    pub(crate) far: Option<Key>,
    pub(crate) reading: Reading,
    pub(crate) budget: ControlBudget,
    /// Once the leg is about to end.
    pub(crate) ending: Option<Box<Ending>>,
    /// The upstream's position in the route's list.
    pub(crate) upstream: u16,
    /// Compressed messages pass through (`deflate = "pass"`).
    pub(crate) rsv1: bool,
    /// Without a far side: whether what was sent here ends with a whole frame.
    pub(crate) outgoing_whole: bool,
}

/// What the end of a leg still waits for.
#[derive(Default)]
pub(crate) struct Ending {
    /// By when it must be over; 0: at no time yet.
    pub(crate) deadline_ms: u64,
    /// What this leg is told when the far side has answered, or at the deadline.
    pub(crate) answer: Option<Answer>,
    /// A Close that waits for a boundary: its code and reason.
    pub(crate) wanted: Option<(Option<CloseCode>, Cow<'static, str>)>,
}

/// The Close that a client gets after its upstream's last message.
#[derive(Clone, Copy)]
pub(crate) enum Answer {
    /// The upstream's own answer, or else this code: the client has sent a Close with it.
    Echo(Option<CloseCode>),
    /// This one: the client has broken a rule.
    Verdict(CloseCode, &'static str),
}

/// How a leg's bytes are read.
pub(crate) enum Reading {
    /// Forwarded as they arrive.
    Cut(Inspector),
    /// Message by message: the gateway inflates and deflates.
    Messages(Box<Messages>),
}

/// Reading message by message.
pub(crate) struct Messages {
    pub(crate) decoder: Decoder,
    /// On the client's leg only.
    pub(crate) compression: Option<Compression>,
}

impl<S> Session<S> {
    pub(crate) fn new(socket: S, peer: Peer, state: State, now_ms: u64) -> Session<S> {
        Session {
            socket,
            outbox: Outbox::new(),
            state,
            transport: Transport::Plain,
            seen: Stamp::at(now_ms),
            since: Stamp::at(now_ms),
            stalled: Stamp::at(now_ms),
            spoke: Stamp::at(now_ms),
            pinged: Stamp::at(now_ms),
            peer,
            dirty: 0,
            route: RouteId(0),
            in_flight: InFlight::default(),
            marks: Marks::default(),
        }
    }

    /// Its request has found this route.
    pub(crate) fn enter_route(&mut self, route: RouteId) {
        self.route = route;
        self.marks.facts.set(Fact::Placed, true);
    }

    /// What it was is not its route any more; gives which one it had.
    pub(crate) fn leave_route(&mut self) -> Option<RouteId> {
        self.marks.facts.take(Fact::Placed).then_some(self.route)
    }

    /// The route that its request has found; none before that, behind a page or an answer that is the last of its request, and where
    /// it was refused before.
    #[inline]
    pub(crate) fn own_route(&self) -> Option<RouteId> {
        self.marks.facts.has(Fact::Placed).then_some(self.route)
    }

    /// Whether the gateway itself keeps the peer from being heard, or from hearing.
    pub(crate) fn is_held(&self) -> bool {
        self.marks.paused || !self.outbox.is_empty()
    }
}

// Not with the transport of tests: it has more states than those that users have.
#[cfg(all(test, not(feature = "record-transport")))]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;

    #[test]
    fn an_idle_session_takes_at_most_192_bytes_with_all_that_hangs_off_it() {
        let entry = size_of::<Session<OwnedFd>>();
        // `OwnedFd` leaves a niche for the slab's tag: it costs nothing beside the entry.
        assert_eq!(size_of::<Option<Session<OwnedFd>>>(), entry);
        let whole = entry + tidegate_registry::OVERHEAD_BYTES - size_of::<usize>();
        assert!(whole <= 192, "{whole} bytes");
    }
}
