//! What a completion says, as an event.
//!
//! A completion is input from outside: what fits nothing that was asked for is counted and otherwise passed over,
//! and a buffer that it holds goes back.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd},
    time::Duration,
};

use io_uring::cqueue::{self, Entry};

use super::{Uring, room::Outcome};
use crate::{Event, ListenerId, ReceiveEnd, Remainder, Sends, Token, socket};

/// From 6.13 a pass of the kernel over its deferred work ends after 20 pieces. One that yields fewer
/// completions than this has left nothing behind.
const PASS_MIN: u64 = 16;
/// Times in a row that a receive must be found missing, with nothing left behind, to be taken for not armed.
const MISSED_MAX: u8 = 8;

/// Which operation a completion belongs to: the upper 8 bits of its user data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Operation {
    /// With the token.
    Receive = 1,
    /// With the position in the turn's sends. Only where it fell short.
    Send,
    /// With the listener and its generation.
    Accept,
    /// With the token.
    Poll,
    /// With the token.
    Connect,
    /// With the token of the receive. Only where that was not found.
    Cancel,
    Timer,
    Waker,
    /// The epoll instance of [`Room`](super::room::Room).
    Room,
    /// Posts a completion only where it came too late, which is no matter.
    Ignored,
}

/// The user data of an operation.
pub(super) fn user_data(operation: Operation, data: u64) -> u64 {
    debug_assert!(data >> 56 == 0, "the upper 8 bits of {data:#x} are the backend's");
    (operation as u64) << 56 | data
}

/// The reverse of [`user_data`].
fn operation(user_data: u64) -> (Option<Operation>, u64) {
    const ALL: [Operation; 10] = [
        Operation::Receive,
        Operation::Send,
        Operation::Accept,
        Operation::Poll,
        Operation::Connect,
        Operation::Cancel,
        Operation::Timer,
        Operation::Waker,
        Operation::Room,
        Operation::Ignored,
    ];
    let index = (user_data >> 56).wrapping_sub(1) as usize;
    (ALL.get(index).copied(), user_data & (u64::MAX >> 8))
}

impl Uring {
    /// Takes the completions that are there; whether the deadline has come.
    ///
    /// # Errors
    /// Where the kernel filled a buffer that it did not have: the bytes are lost.
    pub(super) fn complete<T: Sends<OwnedFd>>(
        &mut self,
        sends: &T,
        deadline: Option<Duration>,
        events: &mut Vec<Event<OwnedFd>>,
        remainders: &mut Vec<Remainder>,
    ) -> io::Result<bool> {
        let mut is_due = false;
        let before = self.counters.events;
        while let Some(entry) = self.ring.completion() {
            self.counters.events += 1;
            let (operation, data) = operation(entry.user_data());
            match operation {
                Some(Operation::Receive) => self.received(&entry, Token(data), events)?,
                Some(Operation::Send) => self.fell_short(&entry, sends, data, remainders),
                Some(Operation::Accept) => self.accepted(&entry, data, events),
                Some(Operation::Poll) => {
                    self.ended();
                    match self.room.ended(Token(data), entry.result()) {
                        Outcome::Writable => events.push(Event::Writable { token: Token(data) }),
                        Outcome::WaitsOn(epoll) => self.watch(epoll),
                        Outcome::Waits => {}
                    }
                }
                Some(Operation::Room) => {
                    self.ended();
                    if let Some(epoll) = self.room.tell(events).filter(|_| entry.result() != -libc::ECANCELED)
                    {
                        self.watch(epoll);
                    }
                }
                Some(Operation::Connect) => self.connected(&entry, Token(data), events),
                Some(Operation::Cancel) => self.cancel_missed(Token(data), before)?,
                Some(Operation::Timer) => {
                    self.ended();
                    is_due = match (self.timer.fired(), deadline) {
                        (Some(fired), Some(deadline)) => fired >= deadline,
                        _ => is_due,
                    };
                }
                Some(Operation::Waker) => self.woken(&entry, events),
                Some(Operation::Ignored) => {}
                None => self.stale(&entry),
            }
        }
        Ok(is_due)
    }

    /// An operation has posted its last completion.
    fn ended(&mut self) {
        match self.in_flight.checked_sub(1) {
            Some(left) => self.in_flight = left,
            None => self.counters.stale += 1,
        }
    }

    /// A completion for nothing that is armed.
    fn stale(&mut self, entry: &Entry) {
        self.counters.stale += 1;
        if let Some(id) = cqueue::buffer_select(entry.flags())
            && let Some(buffer) = self.provided.take(id, 0)
        {
            self.provided.give(buffer);
        }
    }

    #[inline]
    fn received(&mut self, entry: &Entry, token: Token, events: &mut Vec<Event<OwnedFd>>) -> io::Result<()> {
        let (result, is_last) = (entry.result(), !cqueue::more(entry.flags()));
        let filled = usize::try_from(result).unwrap_or(0);
        let id = cqueue::buffer_select(entry.flags());
        match id.map(|id| self.provided.take(id, filled)) {
            Some(Some(buffer)) if filled > 0 => events.push(Event::Received { token, buffer }),
            // An end or an error that has picked a buffer all the same.
            Some(Some(buffer)) => self.provided.give(buffer),
            // Bytes that are nowhere: going on would leave a hole in the stream.
            None if filled > 0 => return Err(io::Error::other("bytes were received into no buffer")),
            Some(None) => return Err(io::Error::other("a buffer was filled that the kernel did not have")),
            None => {}
        }
        if !self.cancelling.is_empty() {
            self.cancelling_saw(token, is_last);
        }
        if is_last {
            self.ended();
            let end = match -result {
                errno if errno < 0 => ReceiveEnd::Rearm,
                0 => ReceiveEnd::Eof,
                libc::ENOBUFS if !self.provided.ran_out() => ReceiveEnd::Rearm,
                libc::ENOBUFS => {
                    self.counters.starved += 1;
                    ReceiveEnd::Starved
                }
                libc::ECANCELED => ReceiveEnd::Cancelled,
                libc::EINTR => ReceiveEnd::Rearm,
                errno => ReceiveEnd::Error(errno),
            };
            events.push(Event::ReceiveEnded { token, end });
        }
        Ok(())
    }

    /// A receive that is being cancelled was seen: alive, or at its end.
    #[cold]
    fn cancelling_saw(&mut self, token: Token, is_last: bool) {
        if is_last {
            self.cancelling.remove(&token.0);
        } else if let Some(cancelling) = self.cancelling.get_mut(&token.0) {
            cancelling.missed = 0;
        }
    }

    /// The kernel did not find a receive that was to be cancelled, or could not. While the receive is queued to
    /// be looked at again it is in no table, and ending it must be tried again.
    #[cold]
    fn cancel_missed(&mut self, token: Token, events_before: u64) -> io::Result<()> {
        let is_whole_pass = self.counters.events - events_before < PASS_MIN;
        let Some(cancelling) = self.cancelling.get_mut(&token.0) else { return Ok(()) };
        cancelling.missed += u8::from(is_whole_pass);
        if cancelling.missed < MISSED_MAX {
            // SAFETY: it names no memory.
            unsafe { self.push(&super::cancel(token)) }
        } else {
            self.cancelling.remove(&token.0);
            Ok(())
        }
    }

    fn fell_short<T: Sends<OwnedFd>>(
        &mut self,
        entry: &Entry,
        sends: &T,
        index: u64,
        remainders: &mut Vec<Remainder>,
    ) {
        if index >= sends.len() as u64 {
            return self.stale(entry);
        }
        let sent = usize::try_from(entry.result()).unwrap_or(0);
        if sent >= sends.pieces(index as usize).map(<[u8]>::len).sum() {
            // Nothing is missing; a success that was posted nonetheless.
            return;
        }
        let errno = match entry.result() {
            0.. => 0,
            // A signal came in between.
            result if -result == libc::EINTR => libc::EAGAIN,
            result => -result,
        };
        self.counters.partial_sends += 1;
        remainders.push(Remainder { index: index as u32, sent, errno });
    }

    fn accepted(&mut self, entry: &Entry, data: u64, events: &mut Vec<Event<OwnedFd>>) {
        let (id, generation) = (ListenerId(data as u8), (data >> 8) as u32);
        let is_last = !cqueue::more(entry.flags());
        let mut errno = 0;
        match entry.result() {
            // It may be another session's number: rather one connection lost than two owners of a socket.
            0.. if is_last && self.doubts_last_accept => self.counters.stale += 1,
            descriptor @ 0.. => {
                // SAFETY: the kernel has made it for this completion, and nobody is told of it before this function is. Where
                // a last completion may repeat an older one's number (`doubts_last_accept`, kernels 6.6 to 6.8-rc4) the arm
                // above has taken it; the borrow ends before anything is closed.
                let socket = unsafe { BorrowedFd::borrow_raw(descriptor) };
                match socket::peer(socket) {
                    Ok(peer) => {
                        // SAFETY: as above: open, for it is a socket, and nobody else's.
                        let socket = unsafe { OwnedFd::from_raw_fd(descriptor) };
                        // Who has reset it before it could be asked for its address is served as little as who did so in the
                        // queue: what it has said could be read yet, and no limit of addresses would hold for it.
                        if let socket::Peer::Here(peer) = peer {
                            events.push(Event::Accepted { listener: id, socket, peer });
                        }
                    }
                    // No socket: not ours to close.
                    Err(error) => {
                        self.counters.stale += 1;
                        errno = error.raw_os_error();
                    }
                }
            }
            result if socket::is_passing_accept_error(-result) || -result == libc::ECANCELED => {}
            result => errno = -result,
        }
        if is_last {
            self.ended();
            if let Some(Some(listener)) = self.listeners.get_mut(usize::from(id.0))
                && listener.generation == generation
            {
                listener.accepting = false;
                events.push(Event::AcceptEnded { listener: id, errno });
            }
        }
    }

    fn connected(&mut self, entry: &Entry, token: Token, events: &mut Vec<Event<OwnedFd>>) {
        let Some(descriptor) = self.connecting.remove(&token.0) else { return self.stale(entry) };
        self.ended();
        // SAFETY: the caller keeps it open until this event.
        let socket = unsafe { BorrowedFd::borrow_raw(descriptor) };
        let errno = if entry.result() < 0 { -entry.result() } else { socket::connect_error(socket.as_fd()) };
        events.push(Event::Connected { token, errno });
    }

    fn woken(&mut self, entry: &Entry, events: &mut Vec<Event<OwnedFd>>) {
        let is_last = !cqueue::more(entry.flags());
        if is_last {
            self.ended();
            self.is_waker_armed = false;
        }
        // Also where nobody rang: the turn must return, since only the next one arms the waker again.
        if self.waker.take() || is_last {
            events.push(Event::Woken);
        }
    }
}
