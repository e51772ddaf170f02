//! Topics on this shard: sessions that subscribe and publish, and what they get.
//!
//! The [`Hub`] decides who gets what; here are the sockets, frames and outboxes. Once in each turn, before its system call,
//! [`Shard::run_topics`] takes what the hub has to say: answers first, then each topic's news to its audience, then the
//! letters to other shards.

mod allowed;
mod attend;
mod commands;
mod due;
mod exchange;
mod fanout;
mod fault;
mod feed;
mod frame;
mod member;
mod open;
mod poll;
mod publish;
mod publishers;
mod rate;
mod replies;
mod search;
mod slow;
mod stopped;
mod stream;

use std::sync::Arc;

pub(crate) use tidegate_hub::arena::{Arenas, Lane};
use tidegate_hub::{
    Hub, Letter, Position, Publication, RouteId, TopicName,
    arena::Layout,
    protocol::{KeptId, Scratch},
};
use tidegate_io::Backend;
use tidegate_registry::Key;

use self::open::{get_only, no_body};
pub(crate) use self::{
    allowed::Allowed,
    commands::allows_pattern,
    exchange::{Exchange, Manner, Stage},
    fault::Fault,
};
use self::{
    attend::Pollers,
    due::Due,
    frame::Frames,
    member::{Answer, Attendance, Firsts, Member, Waits},
    poll::Polled,
    publishers::Publishers,
    rate::Rates,
    search::Search,
};
use crate::{
    environment::Environment,
    mailbox::{Mail, Sender, Undelivered},
    planted::{self, Bug},
    shard::Shard,
};

/// Letters that found a full mailbox are tried again after this.
const RETRY_MS: u64 = 1;

/// What a session publishes without wanting to know: only a refusal is answered, and no number tells which one it was.
const UNACKNOWLEDGED: u64 = 0;

/// What a shard has for its topics.
pub(crate) struct Topics {
    pub(crate) hub: Hub,
    /// By slot: the subscriber that its session is.
    members: Vec<Option<Box<Member>>>,
    /// Those that keep what comes first.
    firsts: Firsts,
    layout: Layout,
    frames: Frames,
    /// Memory for reading JSON.
    scratch: Scratch,
    /// The number of the last question of all sessions and requests. None is used twice, so that a late answer finds nobody
    /// that it is not for.
    last_request: u64,
    /// What was published over HTTP in this second.
    rates: Rates,
    /// Sessions whose outbox has emptied while something waits for that.
    emptied: Due,
    /// Sessions whose commands have waited for answers that have come.
    answered: Vec<Key>,
    /// By shard: sessions that publish to topics there, and wait until its queue has room.
    publishing: Publishers,
    /// Streams that have ended whose clients are present yet for a while.
    departed: Vec<Attendance>,
    /// Whom connections that poll have made present.
    pollers: Pollers,
    /// The turn's last answer to a poll.
    polled: Option<Polled>,
    /// Members that are too slow for a topic, and end behind its batch.
    ending: Vec<Key>,
    /// Polls that have something now.
    polls_due: Due,
    /// When it is looked who is to end, where there was no memory for a publication; 0: there was.
    relief_ms: u64,
    /// Who is to end is not known yet.
    search: Option<Search>,
    /// How many of the hub's shortages have been seen to.
    shortages_seen: usize,
    /// When letters that were not taken are tried again; 0: none wait.
    retry_ms: u64,
}

impl Topics {
    pub(crate) fn new(hub: Hub, slots: u32) -> Self {
        let mut members = Vec::new();
        members.resize_with(slots as usize, || None);
        Self {
            hub,
            members,
            firsts: Firsts::new(slots),
            layout: Layout::default(),
            frames: Frames::default(),
            scratch: Scratch::default(),
            last_request: UNACKNOWLEDGED,
            rates: Rates::default(),
            emptied: Due::default(),
            answered: Vec::new(),
            publishing: Publishers::default(),
            departed: Vec::new(),
            pollers: Pollers::default(),
            polled: None,
            ending: Vec::new(),
            polls_due: Due::default(),
            relief_ms: 0,
            search: None,
            shortages_seen: 0,
            retry_ms: 0,
        }
    }

    /// Another route has this number from now on.
    pub(crate) fn begin_route(&mut self, id: RouteId) {
        self.rates.forget(id);
    }

    pub(crate) fn member(&self, key: Key) -> Option<&Member> {
        self.members.get(key.index() as usize)?.as_deref().filter(|member| member.key == key)
    }

    pub(crate) fn member_mut(&mut self, key: Key) -> Option<&mut Member> {
        self.members.get_mut(key.index() as usize)?.as_deref_mut().filter(|member| member.key == key)
    }

    fn put(&mut self, member: Member) {
        let slot = member.key.index() as usize;
        self.members[slot] = Some(Box::new(member));
    }

    /// The first of so many numbers for questions.
    fn number(&mut self, count: u64) -> u64 {
        let first = self.last_request + 1;
        self.last_request += count;
        first
    }

    /// Notes a member's question; gives its number.
    fn ask(&mut self, key: Key, id: Option<KeptId>, answer: Answer) -> u64 {
        let request = self.number(1);
        if let Some(member) = self.member_mut(key) {
            member.ask(request, id, answer);
        }
        request
    }

    /// A session subscribes no more.
    pub(crate) fn leave(&mut self, key: Key) {
        let Some(place) = self.members.get_mut(key.index() as usize) else { return };
        let Some(member) = place.take_if(|member| member.key == key) else { return };
        self.firsts.set(key, false);
        if !planted::is(Bug::LeaveMember) {
            self.hub.leave(member.id);
            self.departed.extend(member.attends.map(|attends| *attends));
        }
    }

    /// Keeps what comes first, behind all that is kept already. Whether there is such a member.
    fn keep_first(&mut self, key: Key, first: Vec<Arc<Publication>>) -> bool {
        let Some(member) = self.member_mut(key) else { return false };
        let kept = member.first.get_or_insert_default();
        first.into_iter().for_each(|publication| kept.push(publication));
        self.firsts.set(key, true);
        true
    }

    /// What a pattern has brought of a topic, and is kept, comes with the answer that has overtaken it (`Kept::overtaken`).
    fn overtake(
        &mut self,
        key: Key,
        topic: &TopicName,
        position: Position,
        recovered: Option<bool>,
        first: &mut Vec<Arc<Publication>>,
    ) -> Option<u64> {
        let kept = self.member_mut(key)?.first.as_mut()?;
        let brought = kept.overtaken(topic, position, recovered, first);
        if kept.is_empty() {
            self.end_first(key);
        }
        brought
    }

    /// All of it was sent.
    fn end_first(&mut self, key: Key) {
        if let Some(member) = self.member_mut(key) {
            member.first = None;
        }
        self.firsts.set(key, false);
    }

    /// How many sessions and requests take part.
    pub(crate) fn subscribers(&self) -> u32 {
        self.members.iter().flatten().count() as u32
    }

    /// Whether something waits for a session until its outbox is empty.
    pub(crate) fn lags(&self, key: Key) -> bool {
        self.member(key).is_some_and(|member| {
            member.lags || member.first.is_some() || member.waits() == Some(Waits::Room)
        })
    }

    /// The outbox of a session has emptied.
    #[inline]
    pub(crate) fn has_emptied(&mut self, key: Key) {
        if self.lags(key) {
            self.emptied.push(key);
        }
    }

    /// When something is due here though nothing happens.
    pub(crate) fn next_deadline_ms(&self) -> Option<u64> {
        let retry = (self.retry_ms != 0).then_some(self.retry_ms);
        let relief = (self.relief_ms != 0).then_some(self.relief_ms);
        [self.hub.next_deadline_ms(), retry, relief].into_iter().flatten().min()
    }
}

impl<B: Backend, E: Environment> Shard<B, E> {
    /// The other shards, by number; this one's own place is not used. Before the first session.
    pub fn meet(&mut self, peers: Vec<Sender<B::Waker>>) {
        self.peers = peers;
    }

    /// What other shards' topics have to say.
    pub(crate) fn read_letters(&mut self, from: u16, letters: Vec<Letter>) {
        let now_ms = self.now_ms;
        if let Some(topics) = &mut self.topics {
            topics.hub.receive(from, letters, now_ms);
        } else {
            // The generation that brings topics is on its way to this shard.
            self.early_letters.push((from, letters));
        }
    }

    /// Gives members all that lies here for them, before some of them are asked to go: its publishers may have been told that it was
    /// published. Orders are read before letters, and members are given nothing behind their Close.
    pub(crate) fn bring_all_news(&mut self) {
        if self.topics.is_some() {
            self.read_letters_there();
            self.bring_news();
        }
    }

    /// The same of what the hub has; letters that were not read yet stay where they are.
    pub(crate) fn bring_news(&mut self) {
        self.flush_spans();
        self.answer_tickets();
        self.fan_out();
        self.flush_spans();
    }

    /// All that the hub has to say, once in a turn.
    pub(crate) fn run_topics(&mut self) {
        let now_ms = self.now_ms;
        let Some(topics) = &mut self.topics else { return };
        if topics.hub.next_deadline_ms().is_some_and(|deadline_ms| deadline_ms <= now_ms) {
            topics.hub.expire(now_ms);
        }
        topics.emptied.begin_turn();
        topics.polls_due.begin_turn();
        self.answer_tickets();
        self.go_on_behind_answers();
        self.catch_up();
        self.fan_out();
        self.relieve();
        // Behind all that may still end a session, and so say something to other shards.
        self.flush_spans();
        self.tell_departures();
        self.post_letters();
        self.go_on_publishing();
        self.flush_spans();
        if let Some(topics) = &mut self.topics {
            topics.polled = None;
            // Commands that went on here were answered here, and so may polls be.
            self.hurried |= !topics.answered.is_empty() || !topics.polls_due.is_empty();
        }
    }

    fn post_letters(&mut self) {
        let (now_ms, own) = (self.now_ms, self.id);
        let Some(topics) = &mut self.topics else { return };
        topics.retry_ms = 0;
        while let Some((to, letters)) = topics.hub.poll_letters() {
            let Some(peer) = self.peers.get(usize::from(to)) else {
                debug_assert!(false, "a shard that nobody has met");
                continue;
            };
            let sent = peer.send(Mail::Topics { from: own, letters });
            if let Err(Undelivered(Mail::Topics { letters, .. })) = sent {
                if !planted::is(Bug::ForgetLetters) {
                    topics.hub.undelivered(to, letters);
                }
                topics.retry_ms = now_ms + RETRY_MS;
            }
        }
    }
}
