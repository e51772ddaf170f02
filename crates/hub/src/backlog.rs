//! What a topic keeps for those of its members here that lag, and who lags how far.
//!
//! Invariant: a topic has a backlog exactly while a member lags in it, and the backlog has seen each item since the first of
//! them fell behind. So what is neither given to a member nor in the backlog is known to be missing.

use std::{collections::VecDeque, sync::Arc};

use hashbrown::HashTable;
use slab::Slab;

use crate::{
    history::Latest,
    members::{Members, NONE},
    planted::{self, Bug},
    publication::{GapReason, Ledger, PUBLICATION_COST, Publication},
    rules::{Slow, TopicSettings},
    topic::{Position, TopicName},
};

/// Topics in which one member may lag at one time: a pattern stands for any number.
pub(crate) const LAGS: u16 = 4_096;

/// By policy.
#[derive(Debug)]
pub(crate) enum Backlog {
    /// `drop_new`.
    Nothing,
    /// `drop_old`: the newest items that fit.
    Newest { items: VecDeque<Arc<Publication>>, bytes: usize },
    /// `conflate`.
    Latest(Latest),
    /// `resync`.
    Last(Option<Arc<Publication>>),
}

impl Backlog {
    pub(crate) fn new(slow: Slow) -> Self {
        match slow {
            // A session that is to end gets nothing more.
            Slow::Disconnect | Slow::DropNew => Self::Nothing,
            Slow::DropOld => Self::Newest { items: VecDeque::new(), bytes: 0 },
            Slow::Conflate => Self::Latest(Latest::default()),
            Slow::Resync => Self::Last(None),
        }
    }

    /// Takes an item that was fanned out, and gives up what has no room.
    pub(crate) fn absorb(&mut self, item: &Arc<Publication>, settings: &TopicSettings) {
        if item.is_presence() {
            return;
        }
        match self {
            Self::Nothing => {}
            Self::Newest { items, bytes } => {
                *bytes += PUBLICATION_COST + item.bytes();
                items.push_back(Arc::clone(item));
                while *bytes > settings.backlog_bytes
                    && let Some(oldest) = items.pop_front()
                {
                    *bytes -= PUBLICATION_COST + oldest.bytes();
                }
            }
            Self::Latest(latest) => {
                latest.insert(item, settings.keys as usize);
            }
            Self::Last(last) if item.is_message() => *last = Some(Arc::clone(item)),
            Self::Last(_) => {}
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Newest { bytes, .. } => *bytes,
            Self::Latest(latest) => latest.bytes(),
            Self::Last(last) => last.as_ref().map_or(0, |last| PUBLICATION_COST + last.bytes()),
        }
    }

    /// Gives all up.
    pub(crate) fn clear(&mut self) {
        match self {
            Self::Nothing => {}
            Self::Newest { items, bytes } => {
                items.clear();
                *bytes = 0;
            }
            Self::Latest(latest) => {
                latest.clear();
            }
            Self::Last(last) => *last = None,
        }
    }

    /// What a member gets that has all up to `cursor`, as far as there is room, and where it is then; `end` is where the topic
    /// is. Whether that was all.
    pub(crate) fn catch_up(
        &self,
        topic: &TopicName,
        cursor: &mut u64,
        end: Position,
        out: &mut Outlet<'_>,
    ) -> bool {
        match self {
            Self::Nothing => {}
            Self::Newest { items, .. } => {
                let begin = items.partition_point(|item| item.offset() <= *cursor);
                for item in items.range(begin..) {
                    let first = item.first_offset();
                    if first > *cursor + 1 {
                        out.gap(topic, *cursor + 1, Position { offset: first - 1, ..end });
                    }
                    *cursor = item.offset();
                    if out.push(item) {
                        return false;
                    }
                }
            }
            Self::Latest(latest) => {
                if latest.dropped_to() > *cursor {
                    out.gap(topic, *cursor + 1, Position { offset: latest.dropped_to(), ..end });
                    *cursor = latest.dropped_to();
                }
                for item in latest.behind(*cursor) {
                    *cursor = item.offset();
                    if out.push(item) {
                        return false;
                    }
                }
            }
            Self::Last(last) => {
                if let Some(last) = last.as_ref().filter(|last| last.offset() > *cursor) {
                    if last.offset() > *cursor + 1 {
                        out.gap(topic, *cursor + 1, Position { offset: last.offset() - 1, ..end });
                    }
                    *cursor = last.offset();
                    out.push(last);
                }
            }
        }
        if *cursor < end.offset {
            out.gap(topic, *cursor + 1, end);
            *cursor = end.offset;
        }
        true
    }
}

/// Where catching up puts what it finds.
pub(crate) struct Outlet<'a> {
    pub(crate) items: Vec<Arc<Publication>>,
    /// Bytes that it takes yet.
    pub(crate) room: usize,
    pub(crate) gaps: u64,
    pub(crate) ledger: &'a Arc<Ledger>,
}

/// What a gap counts as, about what it is as a message.
const GAP_BYTES: usize = 64;

impl Outlet<'_> {
    pub(crate) fn gap(&mut self, topic: &TopicName, from: u64, to: Position) {
        if planted::is(Bug::ForgetSlowGap) {
            return;
        }
        self.items.push(Publication::gap(topic, from, to, GapReason::Slow, self.ledger));
        self.room = self.room.saturating_sub(GAP_BYTES);
        self.gaps += 1;
    }

    /// Whether there is no room for more.
    fn push(&mut self, item: &Arc<Publication>) -> bool {
        self.items.push(Arc::clone(item));
        self.room = self.room.saturating_sub(item.bytes() + 1);
        self.room == 0
    }
}

/// A member that lags in a topic.
#[derive(Debug)]
pub(crate) struct Lag {
    pub(crate) member: u32,
    pub(crate) topic: u32,
    /// The last that it was given.
    pub(crate) cursor: Position,
    next: u32,
    previous: u32,
}

/// Who lags where.
#[derive(Debug, Default)]
pub(crate) struct Lags {
    lags: Slab<Lag>,
    /// By member and topic.
    table: HashTable<u32>,
}

impl Lags {
    pub(crate) fn is_empty(&self) -> bool {
        self.lags.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Lag> {
        self.lags.iter().map(|(_, lag)| lag)
    }

    /// # Panics
    /// If there is no such lag.
    pub(crate) fn get_mut(&mut self, id: u32) -> &mut Lag {
        &mut self.lags[id as usize]
    }

    pub(crate) fn find(&self, member: u32, topic: u32) -> Option<u32> {
        if self.lags.is_empty() {
            return None;
        }
        let is = |&other: &u32| {
            let other = &self.lags[other as usize];
            other.member == member && other.topic == topic
        };
        self.table.find(lag_hash(member, topic), is).copied()
    }

    /// The newest of a member's lags.
    pub(crate) fn newest(&self, member: u32, members: &Members) -> Option<u32> {
        Some(members.member(member).first_lag).filter(|&first| first != NONE)
    }

    /// The member's next lag behind this one.
    pub(crate) fn next(&self, id: u32) -> Option<u32> {
        Some(self.lags[id as usize].next).filter(|&next| next != NONE)
    }

    pub(crate) fn insert(&mut self, member: u32, topic: u32, cursor: Position, members: &mut Members) {
        let own = members.member_mut(member);
        let next = own.first_lag;
        own.lags += 1;
        let id = self.lags.insert(Lag { member, topic, cursor, next, previous: NONE }) as u32;
        own.first_lag = id;
        if next != NONE {
            self.lags[next as usize].previous = id;
        }
        let lags = &self.lags;
        let hasher = |&other: &u32| lag_hash(lags[other as usize].member, lags[other as usize].topic);
        self.table.insert_unique(lag_hash(member, topic), id, hasher);
    }

    /// # Panics
    /// If there is no such lag.
    pub(crate) fn remove(&mut self, id: u32, members: &mut Members) -> Lag {
        let lag = self.lags.remove(id as usize);
        members.member_mut(lag.member).lags -= 1;
        if lag.previous == NONE {
            members.member_mut(lag.member).first_lag = lag.next;
        } else {
            self.lags[lag.previous as usize].next = lag.next;
        }
        if lag.next != NONE {
            self.lags[lag.next as usize].previous = lag.previous;
        }
        let found = self.table.find_entry(lag_hash(lag.member, lag.topic), |&other| other == id);
        found.expect("a lag is in the table").remove();
        if self.lags.is_empty() {
            *self = Self::default();
        }
        lag
    }
}

fn lag_hash(member: u32, topic: u32) -> u64 {
    let mixed = (u64::from(topic) << 32 | u64::from(member)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 29)
}
