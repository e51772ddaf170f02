//! Subscribers that do not keep up.
//!
//! What waits for one is a reference to each publication's own frame, which all of them share, until `session_bytes` wait.
//! From then on nothing is queued for it: the hub keeps a cursor, and says what comes once the outbox has emptied. What comes
//! first is kept as references to publications, and what is newer behind it, where as much again may wait.

use std::sync::Arc;

use tidegate_hub::{BatchId, CatchUp, Envelope, Fate, Publication, SubscriptionId};
use tidegate_io::Backend;
use tidegate_registry::{Chunk, End, FullPolicy, Key, OutboxLimits};

use super::{
    Lane, Stage,
    fanout::takes_messages,
    feed::Kept,
    frame::Tools,
    member::{Member, Waits},
    search::{Look, Search},
};
use crate::{
    environment::Environment,
    planted::{self, Bug},
    session::{Session, State},
    shard::Shard,
    stamp::Stamp,
};

/// A subscriber whose outbox was not empty when its topic had news.
pub(super) struct Behind {
    pub(super) key: Key,
    pub(super) subscription: SubscriptionId,
    pub(super) lane: Lane,
    pub(super) skip: usize,
}

/// While there is no memory for publications one subscriber is ended this often.
const RELIEF_MS: u64 = 10;
/// How many pieces that wait a turn looks at to find out whom: less than a millisecond's work.
const SEARCHED: usize = 1 << 16;

/// The outbox takes what it is given here: how much that is was judged before.
const TAKES_ALL: OutboxLimits = OutboxLimits::new(usize::MAX, usize::MAX, usize::MAX);

impl<B: Backend, E: Environment> Shard<B, E> {
    /// Queues a batch for a subscriber that is behind, as far as there is room.
    pub(super) fn deliver_behind(&mut self, batch: BatchId, behind: &Behind) {
        let Behind { key, subscription, lane, skip } = *behind;
        let bound = self.session_bytes(key);
        let mut taken = skip;
        loop {
            let Some(topics) = &self.topics else { return };
            let Some(publication) = topics.hub.publications(batch).get(taken).cloned() else { return };
            if lane.presence || !publication.is_presence() {
                let Some(session) = self.registry.get(key) else { return };
                let first = match topics.firsts.has(key) && !planted::is(Bug::PassFirst) {
                    true => topics.member(key).and_then(|member| member.first.as_ref()),
                    false => None,
                };
                let waits = first.map_or_else(|| session.outbox.buffered(), |first| first.late_bytes());
                if waits >= bound {
                    break;
                }
                if first.is_some() {
                    self.keep_late(key, publication);
                } else {
                    self.queue(key, lane, &publication);
                }
            }
            taken += 1;
        }
        self.fall_behind(batch, key, subscription, taken);
    }

    /// Gives a batch to a stream of events, as far as there is room, or to a poll.
    pub(super) fn deliver_to_feed(
        &mut self,
        batch: BatchId,
        key: Key,
        subscription: SubscriptionId,
        skip: usize,
    ) {
        let bound = self.session_bytes(key);
        let mut taken = skip;
        loop {
            let Some(topics) = &self.topics else { return };
            let Some(publication) = topics.hub.publications(batch).get(taken).cloned() else { break };
            let Some(session) = self.registry.get(key) else { return };
            let State::Exchange(exchange) = &session.state else { return };
            match exchange.stage {
                Stage::Polling(_) => self.poll_gets(key, &publication),
                Stage::Streaming(ref stream) => {
                    let waits = match stream.keeps() {
                        true => stream.feed.kept.late_bytes(),
                        false => session.outbox.buffered(),
                    };
                    if waits >= bound {
                        self.fall_behind(batch, key, subscription, taken);
                        return;
                    }
                    self.stream_gets(key, &publication);
                }
                Stage::Body(_) | Stage::Publishing(_) | Stage::Asking => return,
            }
            taken += 1;
        }
        if let Some(topics) = &mut self.topics {
            topics.polls_due.push(key);
        }
    }

    /// Behind what comes first, where something of that is kept yet.
    fn keep_late(&mut self, key: Key, publication: Arc<Publication>) {
        let member = self.topics.as_mut().and_then(|topics| topics.member_mut(key));
        if let Some(first) = member.and_then(|member| member.first.as_mut()) {
            first.push_late(publication);
        }
    }

    /// Behind all batches: polls that have something are answered, and those who are too slow for their topic end.
    pub(super) fn end_batches(&mut self) {
        self.serve(|topics| &mut topics.polls_due, Self::look_at_poll);
        let Some(topics) = &mut self.topics else { return };
        let ending = std::mem::take(&mut topics.ending);
        for key in ending {
            self.slow_consumer(key);
        }
    }

    /// Nothing more is queued for a subscriber.
    fn fall_behind(&mut self, batch: BatchId, key: Key, subscription: SubscriptionId, taken: usize) {
        let Some(topics) = &mut self.topics else { return };
        self.counters.fell_behind += 1;
        match topics.hub.fell_behind(batch, subscription, taken) {
            // Not before the batch is over: what its leaving says would come in the middle of it.
            Fate::Disconnect => topics.ending.push(key),
            Fate::Waits => {
                if let Some(member) = topics.member_mut(key) {
                    member.lags = true;
                }
            }
        }
    }

    /// Goes on with those whose outboxes have emptied: their commands, and what waits for them.
    pub(super) fn catch_up(&mut self) {
        self.serve(|topics| &mut topics.emptied, Self::catch_up_one);
    }

    /// Goes on with a session that waits for nothing else, in the next turn at the latest.
    pub(super) fn list_emptied(&mut self, key: Key) {
        if let Some(topics) = &mut self.topics {
            topics.emptied.push(key);
            self.hurried = true;
        }
    }

    fn catch_up_one(&mut self, key: Key) {
        // What fills it will empty, and then it is listed again.
        let is_empty = |session: &Session<B::Socket>| session.outbox.is_empty() && takes_messages(session);
        if !self.registry.get(key).is_some_and(is_empty) {
            return;
        }
        // Commands and all that is newer come behind it.
        if !self.send_first(key) {
            return;
        }
        self.go_on_with(key, Waits::Room);
        let bound = self.session_bytes(key);
        let Some(member) = self.topics.as_ref().and_then(|topics| topics.member(key)) else { return };
        let (id, class) = (member.id, member.class);
        if !member.lags || !self.registry.get(key).is_some_and(is_empty) {
            return;
        }
        // A command that went on has brought what comes first of another topic.
        if self.topics.as_ref().is_some_and(|topics| topics.firsts.has(key)) {
            return;
        }
        if !self.has_begun(key) {
            return;
        }
        let room = self.send_kept(key, bound);
        let mut done = false;
        if room > 0 && !self.stream_keeps(key) {
            let Some(topics) = &mut self.topics else { return };
            let CatchUp { items, done: all } = topics.hub.catch_up(id, room);
            done = all;
            // What the hub gives is for this session: joins and leaves are among it only where they are wanted.
            let lane = Lane { class, presence: true };
            for publication in &items {
                match class.envelope() {
                    Envelope::Events => self.stream_gets(key, publication),
                    Envelope::Poll => self.poll_gets(key, publication),
                    Envelope::Protocol | Envelope::Raw => self.queue(key, lane, publication),
                }
            }
        }
        let Some(topics) = &mut self.topics else { return };
        if let Some(member) = topics.member_mut(key) {
            member.lags = !done;
        }
        // What went past the outbox may be taken whole, which nobody reports: it is looked again in the next turn.
        if !done && self.registry.get(key).is_some_and(is_empty) && !planted::is(Bug::ForgetLaggard) {
            self.list_emptied(key);
        }
    }

    /// Queues one publication behind all that waits for a session.
    fn queue(&mut self, key: Key, lane: Lane, publication: &Arc<Publication>) {
        let Self {
            topics, registry, codecs, spares, turn, retained, counters, accounts, now_ms, broken, ..
        } = self;
        let mut wheel_due = false;
        let Some(topics) = topics else { return };
        let Some(session) = registry.get_mut(key) else { return };
        let frame = topics.frames.frame(publication, lane.class, &mut Tools { codecs, spares });
        let Some(frame) = frame else { return };
        counters.delivered += 1;
        if let Some(accounts) = accounts {
            accounts.count(key, session, |flow| flow.sent_messages += 1);
        }
        let seals = session.transport.seals();
        if session.outbox.is_empty() && (session.dirty != 0 || seals) {
            // Behind what this turn sends past the outbox.
            let place = turn.place_of(key, session);
            let source = if seals { turn.keep_shared(frame) } else { turn.keep(frame.to_vec(), 0) };
            turn.append(place, source, End::Boundary, usize::MAX);
            return;
        }
        if session.outbox.is_empty() {
            session.stalled = Stamp::at(*now_ms);
            wheel_due = true;
        }
        let (outbox, policy) = (&mut session.outbox, FullPolicy::Disconnect);
        // Always taken: how much it may be was judged before.
        let _ = if seals {
            // Sealed bytes are this session's alone.
            if session.transport.seal(frame).is_err() {
                broken.push((key, 0));
                return;
            }
            let sealed = session.transport.take_sealed();
            outbox.append_always(&sealed, End::Boundary, &TAKES_ALL, policy, retained)
        } else {
            outbox.push(Chunk::Shared(frame.clone()), &TAKES_ALL, policy, retained)
        };
        if session.dirty == 0 && !session.in_flight.poll {
            session.dirty = turn.enlist(key, true);
        }
        if wheel_due {
            self.ensure_deadline(key, self.now_ms + self.plan.limits().write_timeout_ms);
        }
    }

    /// Ends the worst subscriber of all where there was no memory for a publication: what histories and backlogs hold was
    /// given up before, on all shards, so it is what outboxes refer to. The hub that had no memory wakes the others, each shard
    /// says what its worst subscriber has of the topics' memory, and a moment later the shard that has the worst of all ends it.
    pub(super) fn relieve(&mut self) {
        let (now_ms, id) = (self.now_ms, self.id);
        let Self { topics, registry, plan, .. } = self;
        let Some(topics) = topics else { return };
        let rules = topics.hub.rules();
        let shortages = rules.shortages();
        let is_short = shortages != topics.shortages_seen;
        let has_said = topics.relief_ms != 0;
        let mut search = match topics.search.take() {
            // It goes on where the last turn has ended.
            Some(search) => search,
            None => {
                if has_said {
                    if now_ms < topics.relief_ms {
                        return;
                    }
                    topics.shortages_seen = shortages;
                    if !is_short || rules.has_room_again() {
                        topics.relief_ms = 0;
                        plan.say_worst(id, 0);
                        return;
                    }
                } else if !is_short {
                    return;
                }
                let waiting = topics.members.iter().flatten().filter_map(|member| {
                    let waiting = waiting_bytes(registry.get(member.key)?, member);
                    (waiting > 0).then_some((waiting, member.key))
                });
                Search::new(waiting.collect())
            }
        };
        let is_over = search.go_on(SEARCHED, |key| {
            let found = registry.get(key).zip(topics.member(key));
            found.map_or(Look { bytes: 0, pieces: 0 }, |(session, member)| look(session, member))
        });
        let (bytes, worst) = search.worst();
        if !is_over {
            topics.search = Some(search);
            self.hurried = true;
            return;
        }
        topics.relief_ms = now_ms + RELIEF_MS;
        // Said also where nobody is left: others would wait for one that has ended.
        plan.say_worst(id, bytes);
        if let Some(key) = worst
            && has_said
            && topics.member(key).is_some()
            && !topics.hub.rules().has_room_again()
            && plan.has_worst(id)
            && !planted::is(Bug::SpareTheWorst)
        {
            self.counters.relieved += 1;
            self.note_slow(key, "slow consumer: topics hold more memory than they may, and it the most");
            self.end_slow(key);
        }
    }

    /// How much may wait for a session before its topics treat it as slow.
    pub(super) fn session_bytes(&self, key: Key) -> usize {
        let route = self.registry.get(key).map(|session| self.plan.route(session.route));
        route.map_or(0, |route| route.session_bytes)
    }
}

/// At least as much as a [`look`] finds, without a look at each piece.
fn waiting_bytes<S>(session: &Session<S>, member: &Member) -> usize {
    let kept = kept_of(&session.state).map_or(0, Kept::bytes);
    session.outbox.buffered() + member.kept_bytes() + kept
}

/// What goes of the topics' memory with a session: its part of the frames that wait for it, and of what is kept for it. What is
/// its own (answers to what it has asked for, and what was sealed for it) is none of that.
fn look<S>(session: &Session<S>, member: &Member) -> Look {
    let kept = || [member.first.as_deref(), kept_of(&session.state)].into_iter().flatten();
    Look {
        bytes: session.outbox.shared_bytes() + kept().map(Kept::own_bytes).sum::<usize>(),
        pieces: session.outbox.waiting_pieces() + kept().map(Kept::len).sum::<usize>(),
    }
}

/// What a request keeps of its topics' publications.
fn kept_of(state: &State) -> Option<&Kept> {
    match state {
        State::Exchange(exchange) => exchange.kept(),
        State::Head(_)
        | State::Deciding(_)
        | State::Waiting(_)
        | State::Dialing(_)
        | State::Open(_)
        | State::Paired(_)
        | State::Lingering { .. }
        | State::Dead => None,
    }
}
