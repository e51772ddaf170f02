//! The self-test: what the ring must do on a pair of sockets before anybody's bytes are trusted to it.
//!
//! The combination of flags on sends is not known to be used elsewhere, and kernels in the field carry patches.

use std::{fmt, io, os::fd::OwnedFd, time::Duration};

use rustix::{
    io::Errno,
    net::{self, AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, sockopt},
};

use crate::{Backend, Event, ReceiveEnd, Remainder, Sends, Token, Uring, Wake};

/// What the ring did that it must not do, or the other way round.
#[derive(Debug)]
#[non_exhaustive]
pub enum Mismatch {
    /// The test could not be made.
    Sockets(io::Error),
    /// The ring failed as a whole.
    Turn(io::Error),
    /// Nothing came within a second.
    Silence(&'static str),
    /// Something came that was not due.
    Unexpected(&'static str, String),
}

impl fmt::Display for Mismatch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sockets(error) => write!(formatter, "no sockets to test it on: {error}"),
            Self::Turn(error) => write!(formatter, "the ring failed: {error}"),
            Self::Silence(what) => write!(formatter, "nothing came of {what}"),
            Self::Unexpected(what, got) => write!(formatter, "unexpected result of {what}: {got}"),
        }
    }
}

impl std::error::Error for Mismatch {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Sockets(error) | Self::Turn(error) => Some(error),
            Self::Silence(_) | Self::Unexpected(..) => None,
        }
    }
}

/// Longest wait for what should be there at once. The wait is a loop of turns that do not wait themselves: were
/// the timer broken, nothing would hang.
const PATIENCE: Duration = Duration::from_secs(1);
const TOKEN: Token = Token(0x5e1f_7e57);

/// Puts the ring through it.
pub(super) fn run(uring: &mut Uring) -> Result<(), Mismatch> {
    let mut trial = Trial::new(uring)?;
    trial.receives_stay_armed()?;
    trial.whole_sends_are_silent()?;
    trial.full_buffers_are_told()?;
    trial.receives_can_be_cancelled()?;
    trial.wakes_arrive()?;
    trial.the_end_is_told()
}

struct Trial<'a> {
    uring: &'a mut Uring,
    near: OwnedFd,
    far: OwnedFd,
    events: Vec<Event<OwnedFd>>,
    remainders: Vec<Remainder>,
}

impl<'a> Trial<'a> {
    fn new(uring: &'a mut Uring) -> Result<Self, Mismatch> {
        let pair = net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
        let (near, far) = pair.map_err(sockets)?;
        Ok(Self { uring, near, far, events: Vec::new(), remainders: Vec::new() })
    }

    /// Two writes give two completions, after both of which the receive is still armed.
    fn receives_stay_armed(&mut self) -> Result<(), Mismatch> {
        const WHAT: &str = "a multishot receive";
        self.uring.receive(&self.near, TOKEN);
        for byte in [b"1", b"2"] {
            self.turn(&[])?;
            self.quiet(WHAT)?;
            net::send(&self.far, byte, SendFlags::NOSIGNAL).map_err(sockets)?;
            match self.event(WHAT)? {
                Event::Received { token: TOKEN, buffer } if buffer[..] == byte[..] => {
                    self.uring.recycle(buffer);
                }
                event => return unexpected(WHAT, &event),
            }
        }
        self.turn(&[])?;
        self.quiet(WHAT)
    }

    /// A send that the kernel takes whole posts nothing, in one piece or in several.
    fn whole_sends_are_silent(&mut self) -> Result<(), Mismatch> {
        const WHAT: &str = "a send that is taken whole";
        let sends: [&[&[u8]]; 2] = [&[b"one piece"], &[b"two ", b"pieces"]];
        for pieces in sends {
            let before = self.uring.counters().events;
            self.turn(pieces)?;
            self.turn(&[])?;
            if self.uring.counters().events != before || !self.remainders.is_empty() {
                return unexpected(WHAT, &self.remainders);
            }
            let mut bytes = [0; 64];
            let (_, count) = net::recv(&self.far, &mut bytes, RecvFlags::DONTWAIT).map_err(sockets)?;
            if bytes[..count] != pieces.concat() {
                return unexpected(WHAT, &bytes);
            }
        }
        self.quiet(WHAT)
    }

    /// A send that finds too little room says at once what was taken, and one that finds none says so.
    fn full_buffers_are_told(&mut self) -> Result<(), Mismatch> {
        const WHAT: &str = "a send into a full buffer";
        const PIECE: [u8; 4096] = [0x5a; 4096];
        sockopt::set_socket_send_buffer_size(&self.near, 16 * 1024).map_err(sockets)?;
        let large = [PIECE.as_slice(); 64];
        let mut taken = 0;
        loop {
            self.turn(&large)?;
            match self.remainders.pop() {
                Some(Remainder { index: 0, sent, errno: 0 }) if sent < large.len() * PIECE.len() => {
                    taken += sent;
                }
                Some(Remainder { index: 0, sent: 0, errno: libc::EAGAIN }) => break,
                other => return unexpected(WHAT, &other),
            }
        }
        let mut bytes = [0; 8192];
        while taken > 0 {
            let (_, count) = net::recv(&self.far, &mut bytes, RecvFlags::DONTWAIT).map_err(sockets)?;
            taken = taken.saturating_sub(count);
        }
        match net::recv(&self.far, &mut bytes, RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN) => self.quiet(WHAT),
            other => unexpected(WHAT, &other),
        }
    }

    /// A receive that is cancelled ends, and can be armed again.
    fn receives_can_be_cancelled(&mut self) -> Result<(), Mismatch> {
        const WHAT: &str = "a cancelled receive";
        self.uring.cancel_receive(&self.near, TOKEN);
        match self.event(WHAT)? {
            Event::ReceiveEnded { token: TOKEN, end: ReceiveEnd::Cancelled } => {}
            event => return unexpected(WHAT, &event),
        }
        self.uring.receive(&self.near, TOKEN);
        self.turn(&[])?;
        self.quiet(WHAT)
    }

    /// The waker does.
    fn wakes_arrive(&mut self) -> Result<(), Mismatch> {
        const WHAT: &str = "a wake";
        let waker = self.uring.waker();
        for _ in 0..2 {
            waker.wake();
            match self.event(WHAT)? {
                Event::Woken => {}
                event => return unexpected(WHAT, &event),
            }
        }
        Ok(())
    }

    /// The peer's end is the receive's end.
    fn the_end_is_told(&mut self) -> Result<(), Mismatch> {
        const WHAT: &str = "the peer's shutdown";
        net::shutdown(&self.far, Shutdown::Write).map_err(sockets)?;
        match self.event(WHAT)? {
            Event::ReceiveEnded { token: TOKEN, end: ReceiveEnd::Eof } => {}
            event => return unexpected(WHAT, &event),
        }
        self.turn(&[])?;
        self.quiet(WHAT)
    }

    /// A turn that does not wait, with at most one send.
    fn turn(&mut self, pieces: &[&[u8]]) -> Result<(), Mismatch> {
        let sends = One { socket: &self.near, pieces };
        let turn = self.uring.turn(&sends, Some(Duration::ZERO), &mut self.events, &mut self.remainders);
        turn.map_err(Mismatch::Turn)
    }

    /// The one event that is due.
    fn event(&mut self, what: &'static str) -> Result<Event<OwnedFd>, Mismatch> {
        let until = self.uring.now() + PATIENCE;
        loop {
            self.turn(&[])?;
            if let Some(event) = self.events.pop() {
                self.quiet(what)?;
                return Ok(event);
            }
            if self.uring.now() > until {
                return Err(Mismatch::Silence(what));
            }
        }
    }

    /// Nothing is due.
    fn quiet(&self, what: &'static str) -> Result<(), Mismatch> {
        if self.events.is_empty() { Ok(()) } else { unexpected(what, &self.events) }
    }
}

fn sockets(error: Errno) -> Mismatch {
    Mismatch::Sockets(error.into())
}

fn unexpected<T>(what: &'static str, got: &dyn fmt::Debug) -> Result<T, Mismatch> {
    Err(Mismatch::Unexpected(what, format!("{got:?}")))
}

/// No send, or one.
struct One<'a> {
    socket: &'a OwnedFd,
    pieces: &'a [&'a [u8]],
}

impl Sends<OwnedFd> for One<'_> {
    fn len(&self) -> usize {
        usize::from(!self.pieces.is_empty())
    }

    fn socket(&self, _: usize) -> &OwnedFd {
        self.socket
    }

    fn pieces(&self, _: usize) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().copied()
    }
}
