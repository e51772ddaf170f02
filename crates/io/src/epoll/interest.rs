//! What is armed on each socket, and what epoll has been told of it, by descriptor.
//!
//! Invariant: outside of a reconciliation, a socket whose registration is not what it wants is in the list of
//! changes.

use std::os::fd::RawFd;

use rustix::event::epoll::{EventData, EventFlags};

use crate::{ListenerId, Token};

/// One of the things that can be armed on a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Armed(u8);

impl Armed {
    pub(super) const RECEIVE: Self = Self(1);
    pub(super) const POLL: Self = Self(2);
    pub(super) const CONNECT: Self = Self(4);
}

/// Whom an event is for, as it travels through the kernel: kind, generation, descriptor or listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    /// The generation tells a socket from a closed one that had the same descriptor.
    Socket {
        fd: RawFd,
        generation: u16,
    },
    Listener(ListenerId),
    Waker,
}

const LISTENER: u64 = 1 << 48;
const WAKER: u64 = 2 << 48;

impl Tag {
    pub(super) fn data(self) -> EventData {
        EventData::new_u64(match self {
            Self::Socket { fd, generation } => u64::from(generation) << 32 | u64::from(fd as u32),
            Self::Listener(id) => LISTENER | u64::from(id.0),
            Self::Waker => WAKER,
        })
    }
}

impl From<EventData> for Tag {
    fn from(data: EventData) -> Self {
        let bits = data.u64();
        if bits & LISTENER != 0 {
            Self::Listener(ListenerId(bits as u8))
        } else if bits & WAKER != 0 {
            Self::Waker
        } else {
            Self::Socket { fd: bits as u32 as RawFd, generation: (bits >> 32) as u16 }
        }
    }
}

/// A registration to be made, altered or removed.
pub(super) struct Change {
    pub(super) fd: RawFd,
    pub(super) data: EventData,
    pub(super) registered: EventFlags,
    pub(super) wanted: EventFlags,
}

/// The table: 24 bytes for each descriptor up to the highest one in use.
#[derive(Debug, Default)]
pub(super) struct Interest {
    entries: Vec<Entry>,
    changes: Vec<RawFd>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// Of the receive. Means something only while that is armed.
    receive: u64,
    /// Of the poll or the connect: a connect has ended before anybody polls.
    poll: u64,
    generation: u16,
    armed: Armed,
    /// As epoll knows it, in the bits of `wanted`.
    registered: Wanted,
    /// Whether it is in the list of changes.
    is_changed: bool,
}

/// The two directions, compactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wanted(u8);

impl Wanted {
    const IN: u8 = 1;
    const OUT: u8 = 2;

    fn of(armed: Armed) -> Self {
        let input = if armed.0 & Armed::RECEIVE.0 != 0 { Self::IN } else { 0 };
        let output = if armed.0 & (Armed::POLL.0 | Armed::CONNECT.0) != 0 { Self::OUT } else { 0 };
        Self(input | output)
    }

    fn flags(self) -> EventFlags {
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, self.0 & Self::IN != 0);
        flags.set(EventFlags::OUT, self.0 & Self::OUT != 0);
        flags
    }
}

impl Interest {
    /// The token of what is armed; `None` where it is not.
    pub(super) fn armed(&self, fd: RawFd, what: Armed) -> Option<Token> {
        let entry = self.entries.get(fd as usize)?;
        (entry.armed.0 & what.0 != 0).then_some(Token(if what == Armed::RECEIVE {
            entry.receive
        } else {
            entry.poll
        }))
    }

    /// Whether an event of this generation is for the socket that has this descriptor now.
    pub(super) fn is_current(&self, fd: RawFd, generation: u16) -> bool {
        self.entries.get(fd as usize).is_some_and(|entry| entry.generation == generation)
    }

    pub(super) fn arm(&mut self, fd: RawFd, what: Armed, token: Token) {
        let index = fd as usize;
        if self.entries.len() <= index {
            self.entries.resize(index + 1, Entry::default());
        }
        let entry = &mut self.entries[index];
        debug_assert!(entry.armed.0 & what.0 == 0, "armed twice: {token:?}");
        if what == Armed::RECEIVE {
            entry.receive = token.0;
        } else {
            entry.poll = token.0;
        }
        entry.armed.0 |= what.0;
        self.note(fd);
    }

    /// Disarms, and returns the token if it was armed.
    pub(super) fn disarm(&mut self, fd: RawFd, what: Armed) -> Option<Token> {
        let token = self.armed(fd, what)?;
        self.entries[fd as usize].armed.0 &= !what.0;
        self.note(fd);
        Some(token)
    }

    /// The descriptor means, or will mean, another socket: closing has removed any registration.
    pub(super) fn forget(&mut self, fd: RawFd) {
        if let Some(entry) = self.entries.get_mut(fd as usize) {
            let generation = entry.generation.wrapping_add(1);
            *entry = Entry { generation, is_changed: entry.is_changed, ..Entry::default() };
        }
    }

    /// Epoll does not know the socket.
    pub(super) fn unregistered(&mut self, fd: RawFd) {
        if let Some(entry) = self.entries.get_mut(fd as usize) {
            entry.registered = Wanted::default();
        }
    }

    /// The next registration to alter, which is from now on taken for done.
    pub(super) fn next_change(&mut self) -> Option<Change> {
        while let Some(fd) = self.changes.pop() {
            let entry = &mut self.entries[fd as usize];
            entry.is_changed = false;
            let (registered, wanted) = (entry.registered, Wanted::of(entry.armed));
            if registered != wanted {
                entry.registered = wanted;
                let data = Tag::Socket { fd, generation: entry.generation }.data();
                return Some(Change { fd, data, registered: registered.flags(), wanted: wanted.flags() });
            }
        }
        None
    }

    /// Puts a socket on the list of changes, once.
    fn note(&mut self, fd: RawFd) {
        let entry = &mut self.entries[fd as usize];
        if !entry.is_changed && entry.registered != Wanted::of(entry.armed) {
            entry.is_changed = true;
            self.changes.push(fd);
        }
    }
}
