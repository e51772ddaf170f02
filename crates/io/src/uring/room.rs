//! Waiting for room in sockets whose peers have sent their FIN.
//!
//! A poll of the ring reports `EPOLLRDHUP` whether it is asked for or not (`IO_POLL_UNMASK`, io_uring/poll.c), so behind a
//! FIN it ends at once, room or not. An epoll instance does not report it, and the ring can poll that.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use rustix::event::{Timespec, epoll};

use crate::{Event, Token};

/// Sockets that are told of at once.
const READY: usize = 64;

/// Polls for room, and those of them that the ring cannot do.
#[derive(Default)]
pub(super) struct Room {
    /// The sockets of the polls that are armed.
    armed: HashMap<u64, RawFd>,
    epoll: Option<OwnedFd>,
    ready: Vec<epoll::Event>,
}

/// What a poll's end means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Writable,
    /// It is waited for elsewhere.
    Waits,
    /// The same, and this descriptor must be polled from now on.
    WaitsOn(RawFd),
}

impl Room {
    pub(super) fn begin(&mut self, socket: RawFd, token: Token) {
        self.armed.insert(token.0, socket);
    }

    /// A poll has ended with this mask, or with an error.
    pub(super) fn ended(&mut self, token: Token, result: i32) -> Outcome {
        let told = i32::from(libc::POLLOUT | libc::POLLERR | libc::POLLHUP | libc::POLLNVAL);
        let socket = self.armed.get(&token.0).copied();
        if let Some(socket) = socket.filter(|_| result > 0 && result & told == 0)
            && let Ok(outcome) = self.wait_elsewhere(socket, token)
        {
            return outcome;
        }
        self.armed.remove(&token.0);
        Outcome::Writable
    }

    fn wait_elsewhere(&mut self, socket: RawFd, token: Token) -> io::Result<Outcome> {
        let is_new = self.epoll.is_none();
        if is_new {
            self.epoll = Some(epoll::create(epoll::CreateFlags::CLOEXEC)?);
            self.ready.reserve_exact(READY);
        }
        let epoll = self.epoll.as_ref().expect("it was made");
        // SAFETY: a socket is not closed while a poll for room is armed on it (`Backend::close`), and this one is until
        // its event is told.
        let socket = unsafe { BorrowedFd::borrow_raw(socket) };
        let (data, flags) =
            (epoll::EventData::new_u64(token.0), epoll::EventFlags::OUT | epoll::EventFlags::ONESHOT);
        // Its earlier wait here has left it registered.
        if epoll::modify(epoll, socket, data, flags).is_err() {
            epoll::add(epoll, socket, data, flags)?;
        }
        Ok(if is_new { Outcome::WaitsOn(epoll.as_raw_fd()) } else { Outcome::Waits })
    }

    /// The epoll instance has something to tell; gives it back, to be polled again.
    pub(super) fn tell(&mut self, events: &mut Vec<Event<OwnedFd>>) -> Option<RawFd> {
        let epoll = self.epoll.as_ref()?;
        loop {
            self.ready.clear();
            let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
            let told = epoll::wait(epoll, rustix::buffer::spare_capacity(&mut self.ready), Some(&at_once));
            for event in &self.ready {
                let token = Token(event.data.u64());
                if self.armed.remove(&token.0).is_some() {
                    events.push(Event::Writable { token });
                }
            }
            if told.is_err() || self.ready.len() < READY {
                return Some(epoll.as_raw_fd());
            }
        }
    }
}
