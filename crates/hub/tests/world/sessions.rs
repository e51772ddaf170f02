//! Those who subscribe, what they see, and how slowly they read.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_hub::{Class, ClientId, Envelope, Epoch, MemberId, MemberRules};

use super::*;

/// A session of the model.
pub(crate) struct Session {
    pub(crate) shard: usize,
    pub(crate) member: MemberId,
    client: ClientId,
    pub(crate) key: Key,
    pub(crate) reads: bool,
    /// Bytes that its outbox takes before it is full, and those that are in it.
    most: usize,
    buffered: usize,
    /// The last position in each topic that it is subscribed to; `None`: not answered yet.
    topics: BTreeMap<String, Option<Position>>,
    patterns: BTreeSet<String>,
    attends: BTreeSet<String>,
    /// By topic and client: whether the last event was a join.
    seen: BTreeMap<(String, String), bool>,
    /// What comes now is what it missed.
    caught_up: bool,
}

impl Session {
    pub(crate) fn is_full(&self) -> bool {
        self.buffered > self.most
    }

    pub(crate) fn attends(&self, topic: &str) -> bool {
        self.attends.contains(topic) && self.topics.get(topic).is_some_and(Option::is_some)
    }

    /// Whether what it has seen of a client on a topic is that it is there.
    pub(crate) fn sees(&self, topic: &str, client: &str) -> Option<bool> {
        self.seen.get(&(topic.to_owned(), client.to_owned())).copied()
    }

    pub(crate) fn remember(&self, memories: &mut Vec<(String, Position)>) {
        let known = self.topics.iter().filter_map(|(topic, at)| Some((topic.clone(), (*at)?)));
        memories.extend(known);
        let newest = memories.len().saturating_sub(40);
        memories.drain(..newest);
    }
}

impl World {
    /// What those who watch have seen of others is what is so.
    pub(super) fn check_sights(&self) {
        // Else who is subscribed may find no room among those who are there.
        let has_memory = self.rules.limits().memory_bytes > 1 << 20;
        for watcher in self.sessions.values() {
            for topic in watcher.topics.keys() {
                for (id, other) in &self.sessions {
                    let there = other.attends(topic);
                    let seen = watcher.sees(topic, other.client.as_str());
                    let fits = |seen| seen == there || (there && !has_memory);
                    assert!(seen.is_none_or(fits), "{topic}: {id}, {there}");
                }
            }
        }
    }

    pub(super) fn any_session(&mut self, shard: usize) -> Option<u64> {
        let here = self.sessions.iter().filter(|(_, session)| session.shard == shard);
        let here: Vec<u64> = here.map(|(id, _)| *id).collect();
        (!here.is_empty()).then(|| *self.random.pick(&here))
    }

    pub(super) fn enter(&mut self, shard: usize) {
        if self.sessions.len() > 24 {
            return;
        }
        self.next += 1;
        let id = self.next;
        // Another generation for each: keys are never used again.
        let key = Key::from_bits(id << 32 | id);
        let class = Class::plain(Envelope::Protocol);
        let client = ClientId::from_bits(self.random.next());
        let rules = MemberRules { subscriptions: 8, patterns: 2 };
        let member = self.hubs[shard].enter(key, class, client, rules);
        let most = if self.random.one_in(3) { 200 } else { 100_000 };
        self.keys.insert(key, id);
        self.sessions.insert(
            id,
            Session {
                shard,
                member,
                client,
                key,
                reads: true,
                most,
                buffered: 0,
                topics: BTreeMap::new(),
                patterns: BTreeSet::new(),
                attends: BTreeSet::new(),
                seen: BTreeMap::new(),
                caught_up: false,
            },
        );
    }

    pub(super) fn subscribe(&mut self, shard: usize) -> Result<(), Broken> {
        let Some(id) = self.any_session(shard) else { return Ok(()) };
        let mut topic = self.any_topic();
        let mut recover = None;
        if !self.memories.is_empty() && self.random.one_in(2) {
            let (name, position) = self.random.pick(&self.memories).clone();
            // Now and then from another topic, from the future, or another epoch.
            if !self.random.one_in(8) {
                topic = TopicName::parse(&name).expect("a name");
            }
            let epoch = if self.random.one_in(16) { Epoch(7) } else { position.epoch };
            let ahead = if self.random.one_in(16) { self.random.next() % 9 } else { 0 };
            recover = Some(Position { epoch, offset: position.offset + ahead });
        }
        let has_presence = settings(topic.as_str().split('/').next().unwrap_or_default()).presence;
        let attends = self.random.one_in(2);
        let ask = Ask {
            returns: self.random.one_in(4),
            recover,
            history: if self.random.one_in(2) { self.random.below(20) as u32 } else { 0 },
            watches: has_presence && self.random.one_in(2),
            attends,
            info: None,
            stay: None,
        };
        let asked = Asked::Subscribe { session: id, topic: topic.to_string(), recover };
        let ticket = self.ticket(asked);
        let session = self.sessions.get_mut(&id).expect("it is there");
        let known = session.topics.contains_key(topic.as_str());
        match self.hubs[shard].subscribe(session.member, ticket, &topic, ask, self.now_ms) {
            Ok(()) => {
                assert!(!known);
                session.topics.insert(topic.to_string(), None);
                if attends && has_presence {
                    session.attends.insert(topic.to_string());
                }
            }
            Err(why) => {
                self.asked.remove(&ticket.request);
                let many = session.topics.len() + session.patterns.len() >= 8;
                assert!(
                    (known && why == Refused::AlreadySubscribed)
                        || (many && why == Refused::TooManySubscriptions),
                    "{why:?}"
                );
            }
        }
        Ok(())
    }

    pub(super) fn subscribed(
        &mut self,
        id: u64,
        topic: &str,
        recover: Option<Position>,
        reply: Reply,
    ) -> Result<(), Broken> {
        let session = self.sessions.get_mut(&id).expect("a session that is gone gets no answer");
        match reply {
            Reply::Subscribed { member, position, recovered, first, .. } => {
                assert_eq!(member, session.member);
                assert_eq!(recovered.is_some(), recover.is_some());
                session.topics.insert(topic.to_owned(), Some(position));
                session.seen.retain(|(name, _), _| name != topic);
                let topic = topic.to_owned();
                let recovered = recover.zip(recovered);
                self.observe(Event::Subscribed { session: id, topic, position, recovered })?;
                for item in &first {
                    self.give(id, item)?;
                }
            }
            // It was ended before its answer, and perhaps begun again.
            Reply::Refused { why: Refused::Withdrawn, .. } => self.withdrawn += 1,
            Reply::Refused { why, .. } => {
                // Busy: there is no memory for who is there.
                assert!(matches!(why, Refused::TooManyTopics | Refused::Busy), "{why:?}");
                session.topics.remove(topic);
                session.attends.remove(topic);
            }
            other => panic!("another answer than was asked for: {other:?}"),
        }
        Ok(())
    }

    pub(super) fn subscribe_pattern(&mut self, shard: usize) -> Result<(), Broken> {
        let Some(id) = self.any_session(shard) else { return Ok(()) };
        let text = *self.random.pick(&PATTERNS);
        let session = self.sessions.get_mut(&id).expect("it is there");
        let pattern = Pattern::parse(text).expect("a pattern");
        if self.hubs[shard].subscribe_pattern(session.member, &pattern).is_ok() {
            assert!(session.patterns.insert(text.to_owned()));
            let patterns = session.patterns.iter().cloned().collect();
            self.observe(Event::Patterns { session: id, patterns })?;
        }
        Ok(())
    }

    pub(super) fn unsubscribe(&mut self, shard: usize) -> Result<(), Broken> {
        let Some(id) = self.any_session(shard) else { return Ok(()) };
        let session = self.sessions.get_mut(&id).expect("it is there");
        let topics = session.topics.keys().cloned();
        let filters: Vec<String> = topics.chain(session.patterns.iter().cloned()).collect();
        if filters.is_empty() {
            return Ok(());
        }
        let text = self.random.pick(&filters);
        let filter = Filter::parse(text).expect("a filter");
        let ended = self.hubs[shard].unsubscribe(session.member, &filter);
        if session.patterns.remove(text) {
            assert_eq!(ended, Ok(()));
            let patterns = session.patterns.iter().cloned().collect();
            self.observe(Event::Patterns { session: id, patterns })?;
        } else if session.topics[text].is_none() {
            // Not answered yet: its answer will say that it is over.
            assert_eq!(ended, Ok(()));
            session.topics.remove(text);
            session.attends.remove(text);
        } else {
            assert_eq!(ended, Ok(()));
            session.topics.remove(text);
            session.attends.remove(text);
            session.seen.retain(|(topic, _), _| topic != text);
            self.observe(Event::Unsubscribed { session: id, topic: text.clone() })?;
        }
        Ok(())
    }

    /// A session ends.
    pub(super) fn cut(&mut self, id: u64) -> Result<(), Broken> {
        let Some(session) = self.sessions.remove(&id) else { return Ok(()) };
        session.remember(&mut self.memories);
        self.keys.remove(&session.key);
        self.asked.retain(|_, asked| !matches!(asked, Asked::Subscribe { session, .. } if *session == id));
        self.hubs[session.shard].leave(session.member);
        self.observe(Event::Ended { session: id })
    }

    /// Some outboxes empty; who fell behind gets what comes then.
    pub(super) fn read_outboxes(&mut self, shard: usize, calm: bool) -> Result<(), Broken> {
        let here = self.sessions.iter().filter(|(_, session)| session.shard == shard && session.reads);
        let here: Vec<u64> = here.map(|(id, _)| *id).collect();
        for id in here {
            if !calm && self.random.one_in(2) {
                continue;
            }
            let session = self.sessions.get_mut(&id).expect("it is there");
            session.buffered = 0;
            if self.hubs[shard].lags(session.member) {
                // Of those that lag each client's last join or leave comes: perhaps again what it had seen last.
                session.caught_up = true;
                let bytes = 1 + self.random.below(300);
                let CatchUp { items, done } = self.hubs[shard].catch_up(session.member, bytes);
                assert_eq!(done, !self.hubs[shard].lags(session.member));
                for item in &items {
                    self.give(id, item)?;
                }
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.caught_up = false;
                }
            }
        }
        Ok(())
    }

    /// An item comes to a session.
    pub(super) fn give(&mut self, id: u64, item: &Publication) -> Result<(), Broken> {
        let session = self.sessions.get_mut(&id).expect("only those that are there get something");
        let topic = item.topic().to_string();
        let known = session.topics.get_mut(&topic).and_then(Option::as_mut);
        let by_name = known.is_some();
        if let Some(position) = known
            && !item.is_presence()
            && item.offset() > position.offset
        {
            *position = item.position();
        }
        let event = match item.kind() {
            Kind::Message { payload, .. } => {
                session.buffered += payload.len();
                let id_bytes = payload.first_chunk().expect("ids have eight bytes");
                let id_published = u64::from_le_bytes(*id_bytes);
                let (epoch, offset) = (Some(item.position().epoch), item.offset());
                Event::Receipt { session: id, topic, epoch, offset, id: id_published }
            }
            Kind::Gap { from, .. } => Event::Gap { session: id, topic, from: *from, to: item.offset() },
            Kind::Join { client, .. } | Kind::Leave { client } => {
                assert!(by_name, "only subscriptions to a name have presence");
                let joined = matches!(item.kind(), Kind::Join { .. });
                let before = session.seen.insert((topic, client.to_string()), joined);
                assert!(session.caught_up || before != Some(joined), "joins and leaves alternate");
                return Ok(());
            }
            Kind::PresenceGap => {
                session.seen.retain(|(name, _), _| *name != topic);
                return Ok(());
            }
        };
        self.observe(event)
    }
}
