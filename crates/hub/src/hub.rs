//! One shard's part of all topics: what it is made of, and what its shard asks of it.
//!
//! The other files of this folder have the rest: `home` what is done where a topic lives, `subscribe` how subscriptions begin
//! and end, `fanout` batches and slow subscribers, `relief` what is given up for want of memory.

mod fanout;
mod home;
mod relief;
mod subscribe;

use std::{
    collections::{BTreeSet, VecDeque},
    fmt,
    sync::Arc,
};

use slab::Slab;
use tidegate_registry::{Frame, Key, Total};

pub use self::fanout::{BatchId, CatchUp, Fate};
use self::relief::Relief;
use crate::{
    backlog::Lags,
    history::{OnceKey, Owner},
    home::Homes,
    late::Late,
    letter::{AskNote, DepartNote, Letter, Note, PublishNote, Question, Refused, Reply, Tells, Ticket},
    local::Locals,
    member::{ClientId, MemberId, MemberRules, Subscriber},
    members::Members,
    pattern_index::PatternIndex,
    post::Post,
    publication::{Class, Kind, Ledger, Publication, Publish},
    rules::{Slow, TopicRules},
    store::{Memory, Store},
    topic::{NameError, TopicName},
};

/// Names that are known without being checked again.
const KNOWN_NAMES: usize = 256;

/// What a hub has done since its start.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Publications that topics at home here have taken.
    pub published: u64,
    /// Publications refused because a queue or the memory was full.
    pub refused_busy: u64,
    /// Publications that were left out for another shard, and announced by a gap.
    pub left_out: u64,
    /// Times that a subscriber fell behind, by [`Slow::ALL`](crate::Slow::ALL): with the first policy its session was ended.
    pub fell_behind: [u64; 5],
    /// Messages that slow subscribers were not given, by policy: dropped, or replaced by newer ones of their keys.
    pub passed_over: [u64; 5],
    /// Gaps told to slow subscribers, by policy.
    pub gaps: [u64; 5],
    /// What histories and states gave up for want of memory.
    pub trimmed: u64,
}

impl fmt::Debug for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by_policy = |counts: [u64; 5]| {
            let named =
                Slow::ALL.into_iter().zip(counts).map(|(slow, count)| format!("{}: {count}", slow.as_str()));
            named.collect::<Vec<_>>().join(", ")
        };
        let Self { published, refused_busy, left_out, fell_behind, passed_over, gaps, trimmed } = *self;
        f.debug_struct("Counts")
            .field("published", &published)
            .field("refused_busy", &refused_busy)
            .field("left_out", &left_out)
            .field("fell_behind", &format_args!("{{ {} }}", by_policy(fell_behind)))
            .field("passed_over", &format_args!("{{ {} }}", by_policy(passed_over)))
            .field("gaps", &format_args!("{{ {} }}", by_policy(gaps)))
            .field("trimmed", &trimmed)
            .finish()
    }
}

/// The topics of one shard: those with subscribers here, and those at home here.
///
/// No I/O, clock, thread or random source: time (milliseconds of one monotonic clock for all shards) and seeds are arguments,
/// but for the seed of tables' hashes, which the process draws once and which changes nothing that is said.
///
/// In each turn of its shard, in this order:
/// - [`Hub::receive`] what other shards' hubs wrote, and commands: members ([`Hub::enter`], [`Hub::leave`]), subscriptions,
///   [`Hub::publish`] and questions; [`Hub::catch_up`] for members whose outbox has emptied; [`Hub::expire`].
/// - [`Hub::poll_reply`] until there is none: an answer stands before what it promises, and before the session's next command.
/// - [`Hub::poll_batch`] until there is none, each with [`Hub::finish_batch`]: the fan-out.
/// - [`Hub::poll_letters`] until there are none.
///
/// A command with a [`Ticket`] that is `Ok` is answered by one reply, perhaps in a later turn; an `Err` is the answer. A
/// subscription whose member left meanwhile is not answered, except that in the same turn the answer may be there already.
///
/// ```
/// use std::sync::Arc;
///
/// use tidegate_hub::{Ask, Class, ClientId, Envelope, Format, Hub, MemberRules, Publish, Ticket, TopicName, TopicRules};
/// use tidegate_registry::{Key, Total};
///
/// let mut hub = Hub::new(0, 1, Arc::new(TopicRules::default()), 7, &Total::default());
/// let topic = TopicName::parse("chat/lobby")?;
/// let key = Key::from_bits(1 << 32);
/// let member = hub.enter(key, Class::plain(Envelope::Raw), ClientId::from_bits(1), MemberRules::default());
/// hub.subscribe(member, Ticket { key, request: 1 }, &topic, Ask::default(), 0)?;
/// hub.publish(None, &topic, Publish::new(Format::Text, b"hi".to_vec()), 0)?;
/// while let Some((ticket, reply)) = hub.poll_reply() {
///     println!("{ticket:?}: {reply:?}");
/// }
/// while let Some(batch) = hub.poll_batch() {
///     for subscriber in hub.audience(batch).iter().filter(|subscriber| !subscriber.lags()) {
///         for publication in &hub.publications(batch)[usize::from(subscriber.skip)..] {
///             if subscriber.takes(publication) {
///                 println!("to {}: {publication:?}", subscriber.key);
///             }
///         }
///     }
///     hub.finish_batch(batch);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Hub<S: Store = Memory> {
    shard: u16,
    shards: u16,
    rules: Arc<TopicRules>,
    ledger: Arc<Ledger>,
    now_ms: u64,
    counts: Counts,

    members: Members,
    locals: Locals,
    lags: Lags,
    /// Local topics with a backlog.
    backlogged: BTreeSet<u32>,
    /// The subscriptions by pattern.
    patterns: PatternIndex<Followed>,
    /// The number of the last interest in a pattern.
    interests: u64,
    /// Patterns that homes have noted in this turn, of whose batches some items may have come before.
    late: Late,
    /// Subscriptions that homes have not answered yet.
    asked: Slab<Asked>,
    replies: VecDeque<(Ticket, Reply)>,

    homes: Homes<S>,
    post: Post,
    relief: Relief,

    batch: Option<fanout::Open>,
    /// The audience of the batch that is out, where patterns add to it.
    audience: Vec<Subscriber>,
    /// The number of the last batch whose audience patterns added to.
    mark: u32,
    names: Box<[Option<TopicName>]>,
    /// Emptied after each use.
    found: Vec<u32>,
}

/// A subscription that its home has not answered yet.
#[derive(Debug)]
struct Asked {
    /// `None`: it ended meanwhile.
    subscription: Option<u32>,
    ticket: Ticket,
    topic: TopicName,
    watches: bool,
    attends: Option<ClientId>,
    /// Its subscription was ended before the answer; of a member that has left nobody is told.
    withdrawn: bool,
}

/// A pattern with subscribers here.
#[derive(Debug)]
struct Followed {
    subscriptions: Vec<u32>,
    /// Which interest the homes were told of.
    number: u64,
    /// The homes that have not noted it yet: what comes from them is not for the pattern, or there would be a hole behind it.
    waits_for: Vec<u16>,
}

impl Hub {
    /// The hub of a shard, of so many, that keeps what is published in memory. `seed` makes epochs: it must differ between shards,
    /// and between runs.
    ///
    /// # Panics
    /// Unless `shard` is one of `shards`.
    #[must_use]
    pub fn new(shard: u16, shards: u16, rules: Arc<TopicRules>, seed: u64, total: &Total) -> Self {
        Self::with_store(shard, shards, rules, seed, total, Memory)
    }
}

impl<S: Store> Hub<S> {
    /// As [`Hub::new`], where something else keeps what is published.
    ///
    /// # Panics
    /// Unless `shard` is one of `shards`.
    #[must_use]
    pub fn with_store(
        shard: u16,
        shards: u16,
        rules: Arc<TopicRules>,
        seed: u64,
        total: &Total,
        store: S,
    ) -> Self {
        assert!(shard < shards, "shards count from 0");
        Self {
            shard,
            shards,
            ledger: Ledger::new(total, rules.held(), rules.keys()),
            rules,
            now_ms: 0,
            counts: Counts::default(),
            members: Members::default(),
            locals: Locals::default(),
            lags: Lags::default(),
            backlogged: BTreeSet::new(),
            patterns: PatternIndex::default(),
            interests: 0,
            late: Late::default(),
            asked: Slab::new(),
            replies: VecDeque::new(),
            homes: Homes::new(seed, store),
            post: Post::new(shards),
            relief: Relief::default(),
            batch: None,
            audience: Vec::new(),
            mark: 0,
            names: vec![None; KNOWN_NAMES].into_boxed_slice(),
            found: Vec::new(),
        }
    }

    /// Goes on with other rules and limits, which have succeeded its own ([`TopicRules::succeeded_by`]). What is kept beyond them
    /// goes with the next publication, or when it is looked at next.
    pub fn set_rules(&mut self, rules: Arc<TopicRules>) {
        self.rules = rules;
    }

    /// The rules and limits that it has.
    #[must_use]
    pub fn rules(&self) -> &Arc<TopicRules> {
        &self.rules
    }

    /// What it has done.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Whether nothing is in it: no member, no subscription, no topic, nothing that waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
            && self.locals.is_empty()
            && self.lags.is_empty()
            && self.patterns.is_empty()
            && self.asked.is_empty()
            && self.replies.is_empty()
            && self.homes.is_empty()
            && self.homes.patterns.is_empty()
            && self.post.is_empty()
            && !self.relief.goes_on()
    }

    /// Those who may subscribe here.
    #[must_use]
    pub fn members(&self) -> usize {
        self.members.len()
    }

    /// Topics at home here.
    #[must_use]
    pub fn topics(&self) -> usize {
        self.homes.len()
    }

    /// How many subscriptions a member has, to topics and patterns.
    ///
    /// # Panics
    /// If there is no such member.
    #[must_use]
    pub fn subscriptions(&self, member: MemberId) -> u32 {
        self.members.member(member.0).subscriptions
    }

    /// Whether something waits for this member until its outbox has emptied.
    ///
    /// # Panics
    /// If there is no such member.
    #[must_use]
    pub fn lags(&self, member: MemberId) -> bool {
        self.members.member(member.0).lags > 0
    }

    /// Whether a publication to this topic would be refused now because its home's queue is full: its publisher can be paused.
    #[must_use]
    pub fn is_busy(&self, topic: &TopicName) -> bool {
        self.is_full(self.home_of(topic))
    }

    /// The shard where a topic lives.
    #[must_use]
    pub fn home_of(&self, topic: &TopicName) -> u16 {
        topic.home(self.shards)
    }

    /// Whether the queue to a shard is full, so that publications to topics that live there would be refused.
    #[must_use]
    pub fn is_full(&self, home: u16) -> bool {
        home != self.shard && !self.post.has_room(home, self.rules.limits())
    }

    /// Whether a new subscriber of a topic first gets the newest message, or that of each key, whatever it asks for.
    #[must_use]
    pub fn keeps_state(&self, topic: &TopicName) -> bool {
        match self.rules.settings(self.rules.rule_for(topic)).slow {
            Slow::Conflate | Slow::Resync => true,
            Slow::Disconnect | Slow::DropOld | Slow::DropNew => false,
        }
    }

    /// Bytes that are sent to one who has asked for them, and to others who have asked for the same. They count in the process's
    /// total alone, and are no memory of topics: their size, and how long they wait, is up to who has asked.
    #[must_use]
    pub fn share(&self, bytes: Vec<u8>) -> Frame {
        self.ledger.answer(bytes)
    }

    /// The name, without an allocation where its topic is known here or it was used lately.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn topic_name(&mut self, text: &str) -> Result<TopicName, NameError> {
        if text.len() > crate::NAME_BYTES {
            return TopicName::parse(text);
        }
        let hash = TopicName::hash_of(text);
        let place = &mut self.names[hash as usize % KNOWN_NAMES];
        if let Some(name) = place.as_ref().filter(|name| name.as_str() == text) {
            return Ok(name.clone());
        }
        if let Some(name) = self.homes.name(hash, text).or_else(|| self.locals.name(hash, text)) {
            return Ok(name.clone());
        }
        let name = TopicName::parse(text)?;
        *place = Some(name.clone());
        Ok(name)
    }

    /// Somebody who may subscribe.
    pub fn enter(&mut self, key: Key, class: Class, client: ClientId, rules: MemberRules) -> MemberId {
        MemberId(self.members.enter(key, class, client, rules))
    }

    /// Publishes. What becomes of it is told where there is a ticket, a refusal perhaps at once.
    ///
    /// # Errors
    /// [`Refused::Busy`], [`Refused::TooLarge`], and, where the topic is at home here, all else that can be wrong.
    pub fn publish(
        &mut self,
        ticket: Option<Ticket>,
        topic: &TopicName,
        publish: Publish,
        now_ms: u64,
    ) -> Result<(), Refused> {
        self.publish_telling(ticket, Tells::All, topic, publish, now_ms)
    }

    /// The same for who only wants to know of a refusal: one that comes later than at once is answered with the ticket, which
    /// stays unanswered otherwise.
    ///
    /// # Errors
    /// As [`Hub::publish`].
    pub fn publish_unacknowledged(
        &mut self,
        ticket: Ticket,
        topic: &TopicName,
        publish: Publish,
        now_ms: u64,
    ) -> Result<(), Refused> {
        self.publish_telling(Some(ticket), Tells::Refusals, topic, publish, now_ms)
    }

    fn publish_telling(
        &mut self,
        ticket: Option<Ticket>,
        tells: Tells,
        topic: &TopicName,
        publish: Publish,
        now_ms: u64,
    ) -> Result<(), Refused> {
        self.advance(now_ms);
        let home = topic.home(self.shards);
        let here = home == self.shard;
        if !here && !self.post.has_room(home, self.rules.limits()) {
            self.counts.refused_busy += 1;
            return Err(Refused::Busy);
        }
        // The rules are the same on all shards: what is too large is not sent.
        if !self.rules.takes(topic, publish.payload.len()) {
            return Err(Refused::TooLarge);
        }
        let Publish { format, payload, key, once, publisher } = publish;
        let once = once.map(|text| OnceKey { text, owner: Owner::new(publisher, self.shard) });
        let publication =
            Publication::new(topic.clone(), Kind::Message { format, payload, key }, &self.ledger);
        if !here {
            let note = PublishNote { ticket, tells, publication, once };
            self.post.write(home, Note::Publish(Box::new(note)));
            return Ok(());
        }
        let (position, duplicate) = self.publish_here(publication, once)?;
        if let Some(ticket) = ticket.filter(|_| tells == Tells::All) {
            self.replies.push_back((ticket, Reply::Published { topic: topic.clone(), position, duplicate }));
        }
        Ok(())
    }

    /// The newest publications that a topic keeps, or those before an offset.
    pub fn history(
        &mut self,
        ticket: Ticket,
        topic: &TopicName,
        limit: u32,
        before: Option<u64>,
        now_ms: u64,
    ) {
        self.ask(ticket, topic, Question::History { limit, before }, now_ms);
    }

    /// Who is in a topic.
    pub fn presence(&mut self, ticket: Ticket, topic: &TopicName, now_ms: u64) {
        self.ask(ticket, topic, Question::Presence, now_ms);
    }

    /// What a topic is like; where `presence` stands, also who is there, and so many of them by name, at most
    /// [`PRESENCE_LISTED`](crate::PRESENCE_LISTED).
    pub fn state(&mut self, ticket: Ticket, topic: &TopicName, presence: Option<u32>, now_ms: u64) {
        self.ask(ticket, topic, Question::State { presence }, now_ms);
    }

    fn ask(&mut self, ticket: Ticket, topic: &TopicName, question: Question, now_ms: u64) {
        self.advance(now_ms);
        let note = AskNote { ticket, topic: topic.clone(), question };
        self.send(topic.home(self.shards), Note::Ask(Box::new(note)));
    }

    /// Who [stays](crate::Ask::stay) in a topic under a name does so until then, or no more where that is over.
    pub fn depart(&mut self, topic: &TopicName, client: &str, key: Key, until_ms: u64, now_ms: u64) {
        self.advance(now_ms);
        let note = DepartNote { topic: topic.clone(), client: client.into(), key, until_ms };
        self.send(topic.home(self.shards), Note::Depart(Box::new(note)));
    }

    /// What another shard's hub wrote, in the order in which it wrote it.
    pub fn receive(&mut self, from: u16, mut letters: Vec<Letter>, now_ms: u64) {
        self.advance(now_ms);
        for Letter(note) in letters.drain(..) {
            self.read(from, note);
        }
        self.post.spare(letters);
    }

    /// Letters for another shard's hub. Where its queue is full they come back by [`Hub::undelivered`]; they are offered again
    /// after `None`, which ends the turn's round.
    #[must_use]
    pub fn poll_letters(&mut self) -> Option<(u16, Vec<Letter>)> {
        let letters = self.post.poll(&self.ledger);
        if letters.is_none() {
            self.relief.turn_ends();
        }
        letters
    }

    /// The shard's queue was full.
    pub fn undelivered(&mut self, to: u16, letters: Vec<Letter>) {
        self.post.put_back(to, letters);
    }

    /// The next answer. All of them come before the turn's batches.
    #[must_use]
    pub fn poll_reply(&mut self) -> Option<(Ticket, Reply)> {
        self.replies.pop_front()
    }

    /// When the shard's next turn has to be at the latest: the time may lie in the past.
    #[must_use]
    pub fn next_deadline_ms(&self) -> Option<u64> {
        if !self.replies.is_empty() || self.locals.has_due() || self.relief.goes_on() {
            return Some(self.now_ms);
        }
        // A full queue is tried again soon; nothing wakes us when there is room in it.
        let retry = (!self.post.is_empty()).then_some(self.now_ms + 1);
        [self.homes.next_deadline_ms(), retry].into_iter().flatten().min()
    }

    /// Does what is due: ages histories, ends pollers' presence, forgets topics, goes on giving up what there is no memory for.
    pub fn expire(&mut self, now_ms: u64) {
        self.advance(now_ms);
        self.go_on_giving_up();
        self.expire_homes();
    }

    /// Time never goes back here.
    fn advance(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
    }

    /// Writes to a shard's hub; this one reads at once what is for itself.
    fn send(&mut self, to: u16, note: Note) {
        if to == self.shard {
            self.read(to, note);
        } else {
            self.post.write(to, note);
        }
    }

    fn read(&mut self, from: u16, note: Note) {
        match note {
            Note::Subscribe(note) => self.subscribe_here(from, *note),
            Note::Unsubscribe { topic, watched, attended } => {
                self.unsubscribe_here(from, &topic, watched, attended);
            }
            Note::Absent { topic, client } => self.absent_here(&topic, client),
            Note::Interest { pattern, number } => self.interest_here(from, pattern, number),
            Note::Disinterest(pattern) => self.disinterest_here(from, &pattern),
            Note::Publish(note) => {
                let PublishNote { ticket, tells, publication, once } = *note;
                let topic = publication.topic().clone();
                let published = self.publish_here(publication, once);
                let Some(ticket) = ticket else { return };
                let reply = match published {
                    Ok(_) if tells == Tells::Refusals => return,
                    Ok((position, duplicate)) => Reply::Published { topic, position, duplicate },
                    Err(why) => Reply::Refused { topic, why },
                };
                self.reply(from, ticket, reply);
            }
            Note::Depart(note) => self.depart_here(from, &note),
            Note::Ask(note) => self.answer_here(from, *note),
            Note::GiveUp(request) => self.give_up_for(request),
            // The shard's turn, which it brings, is what it is for.
            Note::Shortage => {}
            Note::Subscribed(note) => self.subscribed(*note),
            Note::NotSubscribed { request, why } => self.not_subscribed(request, why),
            Note::Interested { pattern, number } => self.interested(from, &pattern, number),
            Note::Deliver(publication) => self.take(publication),
            Note::Reply(note) => self.replies.push_back(*note),
        }
    }

    fn reply(&mut self, to: u16, ticket: Ticket, reply: Reply) {
        if to == self.shard {
            self.replies.push_back((ticket, reply));
        } else {
            self.post.write(to, Note::Reply(Box::new((ticket, reply))));
        }
    }
}

/// What it took of the process's limits goes with it.
impl<S: Store> Drop for Hub<S> {
    fn drop(&mut self) {
        self.rules.give_topics(self.homes.len());
        self.rules.give_subscriptions(self.members.subscriptions());
    }
}

impl<S: Store> fmt::Debug for Hub<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub")
            .field("shard", &self.shard)
            .field("topics", &self.homes.len())
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}
