//! What a topic keeps for those of its members here that lag, and who lags how far.
//!
//! Invariant: a topic has a backlog exactly while a member lags in it, and the backlog has seen each item since the first of
//! them fell behind. So what is neither given to a member nor in the backlog is known to be missing.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use hashbrown::HashTable;
use slab::Slab;

use crate::{
    history::Latest,
    members::{Members, NONE},
    planted::{self, Bug},
    publication::{GapReason, Kind, Ledger, PUBLICATION_COST, Publication},
    rules::{Slow, TopicSettings},
    topic::{Position, TopicName},
};

/// Topics in which one member may lag at one time: a pattern stands for any number.
pub(crate) const LAGS: u16 = 4_096;

/// Clients of which the last join or leave is kept for those that lag: what happened to more of them, the oldest first, is
/// left out, and told.
const EVENTS: usize = 1_000;

/// What waits.
#[derive(Debug)]
pub(crate) struct Backlog {
    kept: Kept,
    events: Events,
}

impl Backlog {
    pub(crate) fn new(slow: Slow, ledger: &Arc<Ledger>) -> Self {
        Self { kept: Kept::new(slow, ledger), events: Events::default() }
    }

    /// Takes an item that was fanned out, and gives up what has no room.
    pub(crate) fn absorb(&mut self, item: &Arc<Publication>, settings: &TopicSettings) {
        match item.kind() {
            Kind::Join { client, .. } | Kind::Leave { client } => self.events.insert(client, item),
            Kind::PresenceGap => self.events.lose(),
            Kind::Message { .. } | Kind::Gap { .. } => self.kept.absorb(item, settings),
        }
    }

    /// What [`Backlog::give_up`] gives up.
    pub(crate) fn bytes(&self) -> usize {
        self.kept.bytes() + self.events.bytes
    }

    /// Gives all publications up, which belong to an epoch; joins and leaves do not.
    pub(crate) fn clear(&mut self) {
        self.kept.clear();
    }

    /// Gives everything up: those that lag are told that something is missing, of publications and of joins and leaves.
    pub(crate) fn give_up(&mut self) {
        self.kept.clear();
        self.events.clear();
    }

    /// The number of the next join or leave.
    pub(crate) fn next_event(&self) -> u64 {
        self.events.next
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
        self.kept.catch_up(topic, cursor, end, out)
    }

    /// The joins and leaves that a member missed, of each client the last one, behind a gap where that is not all.
    pub(crate) fn catch_up_on_events(&self, topic: &TopicName, from: u64, out: &mut Outlet<'_>) {
        if from < self.events.lost_to {
            out.push(&Publication::presence_gap(topic, out.ledger));
        }
        for item in self.events.items.range(from..).map(|(_, item)| item) {
            out.push(item);
        }
    }
}

/// Joins and leaves, by number.
#[derive(Debug, Default)]
struct Events {
    items: BTreeMap<u64, Arc<Publication>>,
    clients: BTreeMap<Box<str>, u64>,
    bytes: usize,
    next: u64,
    /// Of those before this number some are left out that nothing newer stands for.
    lost_to: u64,
}

impl Events {
    fn insert(&mut self, client: &str, item: &Arc<Publication>) {
        let number = self.next;
        self.next += 1;
        if let Some(before) = self.clients.insert(client.into(), number) {
            let before = self.items.remove(&before);
            self.bytes -= before.map_or(0, |before| PUBLICATION_COST + before.bytes());
        }
        self.items.insert(number, Arc::clone(item));
        self.bytes += PUBLICATION_COST + item.bytes();
        if self.items.len() > EVENTS
            && let Some((number, oldest)) = self.items.pop_first()
            && let Kind::Join { client, .. } | Kind::Leave { client } = oldest.kind()
        {
            self.bytes -= PUBLICATION_COST + oldest.bytes();
            self.clients.remove(client);
            self.lost_to = self.lost_to.max(number + 1);
        }
    }

    fn clear(&mut self) {
        if !self.items.is_empty() {
            *self = Self { next: self.next, lost_to: self.next, ..Self::default() };
        }
    }

    /// Some are missing.
    fn lose(&mut self) {
        self.next += 1;
        self.lost_to = self.next;
    }
}

/// Publications, by policy.
#[derive(Debug)]
enum Kept {
    /// `drop_new`.
    Nothing,
    /// `drop_old`: the newest items that fit.
    Newest { items: VecDeque<Arc<Publication>>, bytes: usize },
    /// `conflate`.
    Latest(Latest),
    /// `resync`.
    Last(Option<Arc<Publication>>),
}

impl Kept {
    fn new(slow: Slow, ledger: &Arc<Ledger>) -> Self {
        match slow {
            // A session that is to end gets nothing more.
            Slow::Disconnect | Slow::DropNew => Self::Nothing,
            Slow::DropOld => Self::Newest { items: VecDeque::new(), bytes: 0 },
            Slow::Conflate => Self::Latest(Latest::new(ledger)),
            Slow::Resync => Self::Last(None),
        }
    }

    fn absorb(&mut self, item: &Arc<Publication>, settings: &TopicSettings) {
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

    fn bytes(&self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Newest { bytes, .. } => *bytes,
            Self::Latest(latest) => latest.bytes(),
            Self::Last(last) => last.as_ref().map_or(0, |last| PUBLICATION_COST + last.bytes()),
        }
    }

    fn clear(&mut self) {
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

    fn catch_up(&self, topic: &TopicName, cursor: &mut u64, end: Position, out: &mut Outlet<'_>) -> bool {
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
    pub(crate) messages: u64,
    pub(crate) ledger: &'a Arc<Ledger>,
}

/// What an item counts beside its bytes, about what its envelope takes.
const ENVELOPE_BYTES: usize = 64;

impl Outlet<'_> {
    pub(crate) fn gap(&mut self, topic: &TopicName, from: u64, to: Position) {
        if planted::is(Bug::ForgetSlowGap) {
            return;
        }
        self.items.push(Publication::gap(topic, from, to, GapReason::Slow, self.ledger));
        self.room = self.room.saturating_sub(ENVELOPE_BYTES);
        self.gaps += 1;
    }

    /// Whether there is no room for more.
    fn push(&mut self, item: &Arc<Publication>) -> bool {
        self.items.push(Arc::clone(item));
        self.messages += u64::from(item.is_message());
        self.room = self.room.saturating_sub(item.bytes() + ENVELOPE_BYTES);
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
    /// The first join or leave that it was not given.
    pub(crate) events_from: u64,
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

    pub(crate) fn insert(
        &mut self,
        member: u32,
        topic: u32,
        cursor: Position,
        events_from: u64,
        members: &mut Members,
    ) {
        let own = members.member_mut(member);
        let next = own.first_lag;
        own.lags += 1;
        let id = self.lags.insert(Lag { member, topic, cursor, events_from, next, previous: NONE }) as u32;
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
