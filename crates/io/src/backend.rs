//! The interface between a shard and the kernel: operations in, completions out.
//!
//! Invariant: a [`Token`] names at most one armed receive, one armed poll and one pending connect at a time, and
//! each of these ends with exactly one final event. A caller frees what a token stands for only after that.

use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

use crate::Buffer;

/// The caller's name for a socket's operations: 56 bits, chosen by the caller, given back with each event.
///
/// The upper 8 bits must be zero: the backends put the operation there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub u64);

/// A listening socket's number, as given to [`Backend::listen`]. At most 256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId(pub u8);

/// Where a leg connects to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// TCP.
    Tcp(SocketAddr),
    /// A unix stream socket.
    Unix(PathBuf),
}

/// How a leg is connected.
#[derive(Clone, Debug, Default)]
pub struct ConnectOptions {
    /// Local address to bind before connecting; the port is chosen at connect time
    /// (`IP_BIND_ADDRESS_NO_PORT`, Linux 4.2), so that ports are only used up per destination.
    pub source: Option<std::net::IpAddr>,
}

/// What happened. Errors are `errno` values as the kernel gives them (positive).
#[derive(Debug)]
pub enum Event<S> {
    /// A connection was accepted. `peer` is `None` where it is a unix socket: a client of TCP that has reset its connection before its
    /// address could be asked for is not told of.
    Accepted {
        /// Where.
        listener: ListenerId,
        /// The connection, `TCP_NODELAY` set. Whether the descriptor blocks is the backend's affair: a ring
        /// would not wait for a non-blocking one.
        socket: S,
        /// Its remote address.
        peer: Option<SocketAddr>,
    },
    /// The accept ended and must be armed again by [`Backend::accept`]: at once where `errno` is 0, after a
    /// pause otherwise (`EMFILE` would spin).
    AcceptEnded {
        /// Which listener.
        listener: ListenerId,
        /// 0 or the error.
        errno: i32,
    },
    /// Bytes arrived, at least one. The receive stays armed.
    Received {
        /// Whose.
        token: Token,
        /// The bytes; to be given back by [`Backend::recycle`].
        buffer: Buffer,
    },
    /// No receive is armed any more for this token. The final event of a receive.
    ReceiveEnded {
        /// Whose.
        token: Token,
        /// Why.
        end: ReceiveEnd,
    },
    /// The socket takes bytes again, or is broken (the next send tells). The final event of a poll.
    Writable {
        /// Whose.
        token: Token,
    },
    /// A connect has ended. The final event of a connect.
    Connected {
        /// Whose.
        token: Token,
        /// 0 or the error.
        errno: i32,
    },
    /// A [`Backend::Waker`] was used since the last turn.
    Woken,
}

/// Why a receive is not armed any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiveEnd {
    /// The peer sent its FIN: no more bytes will come.
    Eof,
    /// The kernel ended it without a fault (CQ overflow, a limit): arm it again.
    Rearm,
    /// No buffer was free (`ENOBUFS`). No byte is lost. Arm it again only after buffers were recycled: arming
    /// with an empty pool fails at once, even on an idle socket.
    Starved,
    /// By [`Backend::cancel_receive`].
    Cancelled,
    /// The connection is broken (`ECONNRESET`, `ETIMEDOUT`, ...).
    Error(i32),
}

/// A send that the kernel did not take whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remainder {
    /// Its position in the turn's [`Sends`].
    pub index: u32,
    /// Bytes that the kernel took, over all pieces.
    pub sent: usize,
    /// 0 or `EAGAIN` where the socket's buffer is full (arm [`Backend::poll_writable`]); else the connection is broken.
    pub errno: i32,
}

/// The sends of one turn, at most one for each socket.
///
/// A send that succeeds is silent: no event comes of it. A caller with more for a socket than one send carries, or with
/// anything that waits for bytes to be gone, must not let that turn wait: see the deadline of [`Backend::turn`].
pub trait Sends<S> {
    /// How many.
    fn len(&self) -> usize;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The socket of send `index`.
    fn socket(&self, index: usize) -> &S;
    /// The pieces of send `index`, in order; none of them empty, at least one, at most [`MAX_PIECES`].
    fn pieces(&self, index: usize) -> impl Iterator<Item = &[u8]>;
}

/// The most pieces that one send may have (`UIO_MAXIOV` is 1024; past a few dozen a copy is cheaper).
pub const MAX_PIECES: usize = 64;

/// One shard's access to the kernel.
///
/// All methods are called from the thread that made the backend. Operations are queued and take effect with the
/// next [`Backend::turn`] at the latest.
pub trait Backend {
    /// A connected socket. The caller keeps it until [`Backend::close`].
    type Socket;
    /// A bound and listening socket, made elsewhere.
    type Listener;
    /// Wakes a turn up from any thread.
    type Waker: Wake;

    /// A new waker of this backend.
    fn waker(&self) -> Self::Waker;

    /// Takes a listening socket over. Nothing is accepted until [`Backend::accept`].
    ///
    /// # Errors
    /// Where the kernel refuses to register it.
    fn listen(&mut self, id: ListenerId, listener: Self::Listener) -> io::Result<()>;

    /// Accepts connections until [`Event::AcceptEnded`].
    fn accept(&mut self, id: ListenerId);

    /// Stops accepting and closes the listening socket: from then on the kernel refuses connections. Those that wait in its queue
    /// are accepted before that, as far as there are descriptors: [`Event::Accepted`] for each of them, and perhaps
    /// [`Event::AcceptEnded`], come with the next turn.
    fn unlisten(&mut self, id: ListenerId);

    /// Receives until [`Event::ReceiveEnded`]. Must not be called while a receive is armed for this token.
    fn receive(&mut self, socket: &Self::Socket, token: Token);

    /// Asks for the end of the armed receive: bytes may still arrive, then [`Event::ReceiveEnded`] comes, with
    /// [`ReceiveEnd::Cancelled`] or what came first. Does nothing where none is armed.
    fn cancel_receive(&mut self, socket: &Self::Socket, token: Token);

    /// One [`Event::Writable`] when the socket takes bytes again. Must not be called while one is armed.
    fn poll_writable(&mut self, socket: &Self::Socket, token: Token);

    /// Begins to connect; [`Event::Connected`] follows unless this returns an error. No receive is armed.
    ///
    /// # Errors
    /// Where no socket can be made (`EMFILE`, `EADDRNOTAVAIL`, ...).
    fn connect(
        &mut self,
        address: &Address,
        options: &ConnectOptions,
        token: Token,
    ) -> io::Result<Self::Socket>;

    /// Sends a FIN behind what was sent (`SHUT_WR`). Errors are of no use to the caller: the receive tells.
    fn shutdown_write(&mut self, socket: &Self::Socket);

    /// Ends both directions now (`SHUT_RDWR`), so that everything armed on it ends; with `reset`, the peer is sent a
    /// RST instead of a FIN, and what the kernel has not sent yet is dropped.
    fn shutdown(&mut self, socket: &Self::Socket, reset: bool);

    /// Closes the socket. Everything armed on it must have ended.
    fn close(&mut self, socket: Self::Socket);

    /// Gives a receive buffer back, to be filled again from the next turn on. (It is moved here, so no later
    /// turn can send from it.)
    fn recycle(&mut self, buffer: Buffer);

    /// Submits what was queued together with `sends`, waits for at least one event or for `deadline` (on the
    /// clock of [`Backend::now`]; `None` waits for ever, a past one does not wait, as `Duration::ZERO` always is), and appends events and remainders.
    ///
    /// When it returns, every byte of `sends` was taken by the kernel except for what `remainders` say, and no
    /// byte of them is looked at again. Events may be none.
    ///
    /// # Errors
    /// Only where the backend as a whole is broken: the shard cannot go on.
    fn turn<T: Sends<Self::Socket>>(
        &mut self,
        sends: &T,
        deadline: Option<Duration>,
        events: &mut Vec<Event<Self::Socket>>,
        remainders: &mut Vec<Remainder>,
    ) -> io::Result<()>;

    /// The time, monotonic, since an arbitrary start (`CLOCK_MONOTONIC` on real backends).
    fn now(&self) -> Duration;

    /// How many receive buffers there are, and how many of them are lent to the caller.
    fn buffers(&self) -> Lent;

    /// What the backend itself has met, since its start.
    fn counters(&self) -> Counters;
}

/// State of the receive buffers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lent {
    /// Buffers in all.
    pub total: u32,
    /// Of them, with the caller.
    pub lent: u32,
}

/// Counters of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Turns.
    pub turns: u64,
    /// System calls on the way of data: to submit, wait, accept, receive, send, and tell what is waited for.
    pub system_calls: u64,
    /// Completions or readiness events seen.
    pub events: u64,
    /// Receives that found no buffer.
    pub starved: u64,
    /// Completions that overflowed the queue, or times that it did.
    pub overflows: u64,
    /// Sends that left a remainder.
    pub partial_sends: u64,
    /// Completions for nothing that is armed.
    pub stale: u64,
}

/// Wakes a backend's turn from another thread.
pub trait Wake: Send + Sync + Clone + 'static {
    /// Makes the next or current [`Backend::turn`] return with [`Event::Woken`]. Cheap when already woken.
    fn wake(&self);
}
