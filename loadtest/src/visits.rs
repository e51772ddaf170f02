//! The sends of one turn: frames of several sessions end to end in one buffer, one send for each session.

use std::ops::Range;

use slab::Slab;
use tidegate_io::{Remainder, Sends};

use crate::{
    session::{Session, Traffic},
    transport::Transport,
};

/// The most that one turn sends.
const TURN_BYTES: usize = 1 << 20;
/// The most that one session sends in a turn.
const SESSION_BYTES: usize = 64 << 10;
/// The most sessions that send in a turn. All of a turn's sends are stamped with one time, and each takes some
/// microseconds: with more of them that time would be wrong for the last ones.
const SESSIONS: usize = 128;

/// A socket and its session.
pub(crate) struct Slot<S> {
    pub(crate) socket: S,
    pub(crate) session: Session,
    pub(crate) transport: Transport,
    pub(crate) receiving: bool,
    pub(crate) polling: bool,
    pub(crate) connecting: bool,
    /// It stands in the queue of those that want to send.
    pub(crate) queued: bool,
    /// The kernel takes no bytes now.
    pub(crate) blocked: bool,
    /// Both directions were ended, so that all that is armed ends.
    pub(crate) shut: bool,
}

impl<S> Slot<S> {
    /// Whether the kernel will still tell of it.
    pub(crate) fn is_armed(&self) -> bool {
        self.receiving || self.polling || self.connecting
    }

    /// Whether there is anything to be sent now.
    #[inline]
    pub(crate) fn wants_to_send(&self, traffic: Traffic) -> bool {
        self.transport.has_waiting() || (self.session.wants_to_send(traffic) && self.transport.is_open())
    }
}

/// One session's send.
#[derive(Clone, Debug)]
pub(crate) struct Visit {
    /// Whose.
    pub(crate) index: usize,
    bytes: Range<usize>,
    /// How much the kernel took.
    pub(crate) sent: usize,
    pub(crate) errno: i32,
}

impl Visit {
    pub(crate) fn is_whole(&self) -> bool {
        self.sent == self.bytes.len()
    }
}

/// The sends of one turn.
#[derive(Debug)]
pub(crate) struct Visits {
    list: Vec<Visit>,
    out: Box<[u8]>,
    used: usize,
    /// Some session may have more to send than there was room for. The kernel reports no success, so the turn must not wait.
    pub(crate) is_hurried: bool,
    /// When these were written.
    pub(crate) time_ns: u64,
}

impl Visits {
    pub(crate) fn new() -> Self {
        let out = vec![0; TURN_BYTES].into();
        Self { list: Vec::with_capacity(SESSIONS), out, used: 0, is_hurried: false, time_ns: 0 }
    }

    /// Whether there is no room for one more session.
    pub(crate) fn is_full(&self) -> bool {
        self.list.len() == SESSIONS || self.used + SESSION_BYTES > self.out.len()
    }

    /// Adds what `write` writes for session `index`, if it does.
    pub(crate) fn add(&mut self, index: usize, write: impl FnOnce(&mut [u8]) -> usize) {
        let count = write(&mut self.out[self.used..][..SESSION_BYTES]);
        self.is_hurried |= count == SESSION_BYTES;
        if count > 0 {
            let bytes = self.used..self.used + count;
            self.used += count;
            self.list.push(Visit { index, bytes, sent: count, errno: 0 });
        }
    }

    /// Adds what is kept for session `index`, as much as fits; returns how much that is.
    pub(crate) fn add_kept(&mut self, index: usize, kept: &[u8]) -> usize {
        let count = kept.len().min(SESSION_BYTES);
        self.add(index, |out| {
            out[..count].copy_from_slice(&kept[..count]);
            count
        });
        count
    }

    /// The kernel did not take all of one.
    pub(crate) fn fall_short(&mut self, remainder: &Remainder) {
        let visit = &mut self.list[remainder.index as usize];
        visit.sent = remainder.sent;
        visit.errno = remainder.errno;
    }

    /// Takes what was sent, to be settled and [given back](Self::reuse).
    pub(crate) fn take(&mut self) -> Vec<Visit> {
        self.used = 0;
        self.is_hurried = false;
        std::mem::take(&mut self.list)
    }

    /// Keeps the list's memory.
    pub(crate) fn reuse(&mut self, mut list: Vec<Visit>) {
        list.clear();
        self.list = list;
    }
}

/// What a turn borrows.
pub(crate) struct Outgoing<'a, S> {
    pub(crate) visits: &'a Visits,
    pub(crate) slots: &'a Slab<Slot<S>>,
}

impl<S> Sends<S> for Outgoing<'_, S> {
    fn len(&self) -> usize {
        self.visits.list.len()
    }

    fn socket(&self, index: usize) -> &S {
        &self.slots[self.visits.list[index].index].socket
    }

    fn pieces(&self, index: usize) -> impl Iterator<Item = &[u8]> {
        let bytes = self.visits.list[index].bytes.clone();
        std::iter::once(&self.visits.out[bytes])
    }
}
