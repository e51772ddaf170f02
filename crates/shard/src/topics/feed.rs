//! What streams of events and polls have in common: some topics, and how far each was told.

use std::{borrow::Cow, collections::VecDeque, sync::Arc};

use tidegate_hub::{
    Ask, Class, ClientId, Envelope, Filter, MemberRules, Position, Publication, Refused, Stay, Ticket,
    TopicName,
    protocol::{Code, Positions, Standing},
};
use tidegate_io::Backend;
use tidegate_registry::Key;

use super::{
    allowed::Allowed,
    commands::{allows_pattern, recovery},
    fault::Fault,
    member::{Member, Way},
};
use crate::{environment::Environment, shard::Shard};

/// The topics of one request, in its order.
#[derive(Default)]
pub(crate) struct Feed {
    topics: Vec<FeedTopic>,
    /// The number of what is asked of the first of them.
    first_request: u64,
    /// Subscriptions that were not answered yet.
    waiting: u32,
    /// What came first, or while others were waited for, and was not told yet.
    pub(super) kept: Kept,
}

/// What is written around a message, about: what is kept of many short ones counts, too.
const AROUND_BYTES: usize = 64;

/// Publications that somebody gets before all others, by reference, as there is room for them.
#[derive(Default)]
pub(crate) struct Kept {
    publications: VecDeque<Arc<Publication>>,
    /// Of all that is kept, about as they will be written: others may keep the same.
    bytes: usize,
    /// Of what has come since behind what comes first.
    late_bytes: usize,
}

impl Kept {
    pub(crate) fn is_empty(&self) -> bool {
        self.publications.is_empty()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.publications.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn late_bytes(&self) -> usize {
        self.late_bytes
    }

    /// Its part of that: of each publication as much as each of its holders has of it. A look at each.
    pub(super) fn own_bytes(&self) -> usize {
        self.publications.iter().map(|kept| kept.bytes().div_ceil(Arc::strong_count(kept))).sum()
    }

    pub(super) fn push(&mut self, publication: Arc<Publication>) {
        self.bytes += written_bytes(&publication);
        self.publications.push_back(publication);
    }

    /// Something newer than what comes first.
    pub(super) fn push_late(&mut self, publication: Arc<Publication>) {
        self.late_bytes += written_bytes(&publication);
        self.push(publication);
    }

    /// A topic has answered a subscription to its name, and the answer has overtaken what a pattern has brought of it before, which
    /// is still here: that goes into what comes first, as in the hub what waits there does. Where the topic has recovered all of
    /// it stands in that. Gives the offset up to which the pattern has brought everything, where something was overtaken.
    pub(super) fn overtaken(
        &mut self,
        topic: &TopicName,
        position: Position,
        recovered: Option<bool>,
        first: &mut Vec<Arc<Publication>>,
    ) -> Option<u64> {
        if self.late_bytes == 0 {
            return None;
        }
        let mut owed = Vec::new();
        self.publications.retain(|kept| {
            let is_other = kept.topic() != topic;
            if !is_other {
                self.bytes -= written_bytes(kept);
                owed.push(Arc::clone(kept));
            }
            is_other
        });
        // It counts as late on: else each answer would make room for as much again.
        if self.publications.is_empty() {
            *self = Self::default();
        }
        // Of a life that has ended meanwhile nothing is owed: the answer's epoch says it.
        owed.retain(|kept| !kept.is_presence() && kept.position().epoch == position.epoch);
        let brought = owed.first().map(|kept| kept.first_offset() - 1);
        owed.retain(|kept| first.binary_search_by_key(&kept.offset(), |other| other.offset()).is_err());
        if recovered != Some(true) && !owed.is_empty() {
            first.append(&mut owed);
            first.sort_by_key(|publication| publication.offset());
        }
        brought
    }

    pub(super) fn pop(&mut self) -> Option<Arc<Publication>> {
        let next = self.publications.pop_front()?;
        self.bytes -= written_bytes(&next);
        if self.publications.is_empty() {
            *self = Self::default();
        }
        Some(next)
    }
}

fn written_bytes(publication: &Publication) -> usize {
    publication.bytes() + publication.topic().as_str().len() + AROUND_BYTES
}

/// One of them.
struct FeedTopic {
    filter: Filter,
    /// From where it was to go on.
    asked: Option<Position>,
    /// How far it was told; a pattern has no position.
    position: Option<Position>,
    /// Where the topic was when it answered.
    begin: Option<Position>,
    recovered: Option<bool>,
}

impl FeedTopic {
    fn standing(&self, at: Option<Position>) -> Standing<'_> {
        // Patterns and names of a stream begin together.
        let topic = self.filter.as_str();
        Standing { topic, position: at, recovered: self.recovered, pattern_offset: None }
    }
}

impl Feed {
    pub(super) fn first_request(&self) -> u64 {
        self.first_request
    }

    /// Whether all subscriptions were answered.
    pub(super) fn is_ready(&self) -> bool {
        self.waiting == 0
    }

    /// Whether a topic could not go on from where it was asked to.
    pub(super) fn has_lost(&self) -> bool {
        self.topics.iter().any(|topic| topic.recovered == Some(false))
    }

    /// A topic's subscription was answered. Where so many bytes are kept already nothing more is: the topic stands before it.
    pub(super) fn subscribed(
        &mut self,
        place: u64,
        position: Position,
        recovered: Option<bool>,
        mut first: Vec<Arc<Publication>>,
        most: usize,
    ) {
        let place = usize::try_from(place).ok().and_then(|place| self.topics.get_mut(place));
        let Some(topic) = place else { return };
        if let Filter::Topic(name) = &topic.filter {
            // Patterns and names of a stream begin together, so nobody is told how far it was.
            self.kept.overtaken(name, position, recovered, &mut first);
        }
        topic.recovered = recovered;
        topic.begin = Some(position);
        // What comes first is told behind it, and moves it up.
        let before =
            first.iter().find(|publication| publication.is_message()).map(|first| first.offset() - 1);
        let before = Position { offset: before.unwrap_or(position.offset), ..position };
        topic.position = topic.asked.filter(|_| recovered == Some(true)).or(Some(before));
        self.waiting = self.waiting.saturating_sub(1);
        for publication in first {
            self.keep_within(publication, most);
        }
    }

    /// Keeps what is told later, unless so many bytes are kept already: nothing behind what was left out is kept either.
    pub(super) fn keep_within(&mut self, publication: Arc<Publication>, most: usize) {
        if self.kept.bytes() < most {
            self.kept.push(publication);
        }
    }

    /// A message, or a gap, is told.
    pub(super) fn tell(&mut self, publication: &Publication) {
        let topic = self
            .topics
            .iter_mut()
            .find(|topic| matches!(&topic.filter, Filter::Topic(name) if name == publication.topic()));
        if let Some(topic) = topic {
            topic.position = Some(publication.position());
        }
    }

    pub(super) fn positions(&self) -> impl Iterator<Item = Option<Position>> {
        self.topics.iter().map(|topic| topic.position)
    }

    /// Where each topic was when it answered: what comes first is up to there.
    pub(super) fn beginnings(&self) -> impl Iterator<Item = Standing<'_>> {
        self.topics.iter().map(|topic| topic.standing(topic.begin))
    }

    /// How far each topic was told.
    pub(super) fn standings(&self) -> impl Iterator<Item = Standing<'_>> + Clone {
        self.topics.iter().map(|topic| topic.standing(topic.position))
    }
}

/// What a request asks of its topics.
pub(super) struct Wanted<'q> {
    pub(super) topics: &'q [Cow<'q, str>],
    pub(super) positions: Option<&'q Positions>,
    /// How much of the past each of them wants where nothing is recovered.
    pub(super) history: &'q [u32],
    pub(super) patterns: bool,
    pub(super) envelope: Envelope,
    pub(super) presence: Option<Presence<'q>>,
}

/// As whom a request is to be present.
pub(super) struct Presence<'q> {
    pub(super) client: &'q str,
    pub(super) info: Option<&'q str>,
    /// In these of its topics it may be.
    pub(super) allowed: Allowed<'q>,
    /// In these it wants to be; none: in all.
    pub(super) only: &'q [Cow<'q, str>],
    /// `u64::MAX`: as long as it lasts.
    pub(super) until_ms: u64,
}

impl Presence<'_> {
    /// Whether it is to be in this topic.
    pub(super) fn is_in(&self, name: &str) -> bool {
        (self.only.is_empty() || self.only.iter().any(|only| only == name)) && self.allowed.matches(name)
    }
}

impl Wanted<'_> {
    /// What the hub is asked for one of the topics.
    fn ask(&self, key: Key, place: usize, name: &str) -> Ask {
        let recover = self.positions.and_then(|positions| positions.of(place)).map(recovery);
        let present = self.presence.as_ref().filter(|presence| presence.is_in(name));
        let stay = |presence: &Presence<'_>| Stay {
            client: presence.client.into(),
            key,
            until_ms: presence.until_ms,
        };
        Ask {
            recover,
            history: self.history[place],
            returns: true,
            info: present.and_then(|presence| presence.info).map(Into::into),
            stay: present.map(stay),
            ..Ask::default()
        }
    }
}

impl<B: Backend, E: Environment> Shard<B, E> {
    /// Subscribes for a request; the answers come with tickets, whose numbers are in the order of the topics.
    pub(super) fn begin_feed(
        &mut self,
        key: Key,
        wanted: &Wanted<'_>,
        allowed: Allowed<'_>,
    ) -> Result<Feed, Fault> {
        let now_ms = self.now_ms;
        let mut feed = Feed::default();
        for text in wanted.topics {
            let filter = Filter::of_subscription(text)?;
            let allows = match &filter {
                Filter::Topic(name) => allowed.matches(name.as_str()),
                Filter::Pattern(_) if !wanted.patterns => {
                    return Err(Fault::new(Code::InvalidTopic, "patterns cannot be polled"));
                }
                Filter::Pattern(pattern) => allows_pattern(allowed, pattern),
            };
            if !allows {
                return Err(Fault::NOT_ALLOWED);
            }
            if feed.topics.iter().any(|topic| topic.filter == filter) {
                return Err(Fault::new(Code::InvalidRequest, "a topic stands twice"));
            }
            feed.topics.push(FeedTopic { filter, asked: None, position: None, begin: None, recovered: None });
        }
        let client = ClientId::from_bits(self.environment.draw_seed());
        let Some(topics) = &mut self.topics else { return Err(Fault::from(Refused::Busy)) };
        let count = feed.topics.len() as u32;
        feed.first_request = topics.number(u64::from(count));
        let rules = MemberRules { subscriptions: count, patterns: count };
        let class = Class::plain(wanted.envelope);
        let member = topics.hub.enter(key, class, client, rules);
        topics.put(Member::new(key, member, class, Way::Feed));
        let peer = self.registry.get(key).and_then(|session| session.peer.address());
        let is_proxy = peer.is_some_and(|peer| self.plan.trusts(peer.ip()));
        topics.attend(key, wanted, is_proxy, now_ms);
        for (place, topic) in feed.topics.iter_mut().enumerate() {
            let done = match &topic.filter {
                Filter::Pattern(pattern) => topics.hub.subscribe_pattern(member, pattern),
                Filter::Topic(name) => {
                    let ask = wanted.ask(key, place, name.as_str());
                    topic.asked = ask.recover;
                    feed.waiting += 1;
                    let ticket = Ticket { key, request: feed.first_request + place as u64 };
                    topics.hub.subscribe(member, ticket, name, ask, now_ms)
                }
            };
            if let Err(why) = done {
                topics.leave(key);
                return Err(Fault::from(why));
            }
        }
        Ok(feed)
    }
}
