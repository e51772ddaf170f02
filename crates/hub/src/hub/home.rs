//! What is done where a topic lives.
//!
//! Invariant: all that a shard is told of a topic leaves here in the order of its offsets, answers to subscriptions between the
//! publications that they stand between.

use std::sync::Arc;

use super::Hub;
use crate::{
    HISTORY_LISTED, HISTORY_LISTED_BYTES, PRESENCE_LISTED, PRESENCE_LISTED_BYTES,
    history::{Once, OnceKey},
    home::HomeTopic,
    letter::{Ask, AskNote, DepartNote, Note, Present, Question, Refused, Reply, SubscribeNote},
    member::ClientId,
    planted::{self, Bug},
    presence::{Presence, Stayer},
    publication::{Kind, PUBLICATION_COST, Publication},
    store::{History, Store},
    topic::{Pattern, Position, TopicName},
};

impl<S: Store> Hub<S> {
    /// Gives a publication its place, keeps it and hands it on. Its position, and whether its key was used before.
    pub(super) fn publish_here(
        &mut self,
        mut publication: Arc<Publication>,
        once: Option<OnceKey>,
    ) -> Result<(Position, bool), Refused> {
        if self.rules.is_over_memory() {
            let bytes = PUBLICATION_COST + publication.bytes();
            if bytes > self.rules.limits().memory_bytes {
                // Whatever anybody gives up.
                return Err(Refused::TooLarge);
            }
            self.make_room(bytes);
            if self.rules.is_over_memory() {
                self.counts.refused_busy += 1;
                return Err(Refused::Busy);
            }
        }
        let id = self.find_or_create(publication.topic())?;
        let now_ms = self.now_ms;
        let (topic, shares) = self.homes.topic_with_shares(id);
        let settings = self.rules.settings(topic.rule);
        let size = match publication.kind() {
            Kind::Message { payload, .. } => payload.len(),
            Kind::Join { .. } | Kind::Leave { .. } | Kind::PresenceGap | Kind::Gap { .. } => 0,
        };
        if size > settings.message_bytes {
            self.settle(id);
            return Err(Refused::TooLarge);
        }
        if let Some(once) = once {
            let known = topic.once.get_or_insert_with(|| Box::new(Once::new(&self.ledger)));
            if let Some(offset) = known.find(&once, now_ms) {
                return Ok((Position { offset, ..topic.position }, true));
            }
            known.expire(now_ms, shares);
            // None takes all: what each may have is a part of what is left.
            if shares.of(once.owner) >= self.rules.room_for_keys() / once.owner.part() {
                self.counts.refused_busy += 1;
                self.settle(id);
                return Err(Refused::Busy);
            }
            known.insert(once, topic.position.offset + 1, now_ms, shares);
        }
        topic.position.offset += 1;
        if topic.position.offset == 1 && planted::is(Bug::OffByOneAtEpoch) {
            topic.position.offset += 1;
        }
        let position = topic.position;
        Publication::place(&mut publication, &topic.name, position, now_ms);
        self.homes.keep(id, &publication, settings);
        self.counts.published += 1;
        self.hand_on(id, publication);
        self.settle(id);
        Ok((position, false))
    }

    /// To each shard with a subscriber: by name, or by a pattern.
    fn hand_on(&mut self, id: u32, publication: Arc<Publication>) {
        self.homes.match_patterns(id);
        let topic = self.homes.topic(id);
        let by_name = topic.interests.iter().map(|interest| interest.shard);
        let only_by_pattern =
            |shard: &&u16| !topic.interests.iter().any(|interest| interest.shard == **shard);
        let by_pattern = topic.pattern_shards.iter().filter(only_by_pattern).copied();
        let mut here = false;
        for shard in by_name.chain(by_pattern) {
            if shard == self.shard {
                here = true;
            } else if !self.post.deliver(shard, &publication, self.rules.limits(), &self.ledger) {
                self.counts.left_out += 1;
            }
        }
        if here {
            self.take(publication);
        }
    }

    /// A join or a leave, to each shard where somebody watches.
    fn announce(&mut self, id: u32, kind: Kind) {
        let topic = self.homes.topic(id);
        let watching = topic.interests.iter().filter(|interest| interest.watchers > 0);
        let shards: Vec<u16> = watching.map(|interest| interest.shard).collect();
        if shards.is_empty() {
            return;
        }
        let mut publication = Publication::new(topic.name.clone(), kind, &self.ledger);
        Publication::place(&mut publication, &topic.name, topic.position, self.now_ms);
        for shard in shards {
            if shard == self.shard {
                self.take(Arc::clone(&publication));
            } else if !self.post.announce(shard, &publication, self.rules.limits(), &self.ledger) {
                self.counts.left_out += 1;
            }
        }
    }

    /// Who subscribes is present, where it is to be and there is room for it: who fills presence's part keeps nobody from a
    /// topic. Whether its connection is.
    fn come(&mut self, id: u32, from: u16, client: ClientId, ask: &Ask) -> bool {
        let topic = self.homes.topic_mut(id);
        let has_presence = self.rules.settings(topic.rule).presence;
        let stay = ask.stay.as_ref().filter(|stay| has_presence && !ClientId::is_one(&stay.client));
        let has_room = self.rules.has_room_for_presence();
        if (stay.is_none() && !ask.attends) || (!has_room && topic.presence.is_none()) {
            return false;
        }
        let new = || Box::new(Presence::new(&self.ledger, self.rules.presence()));
        let presence = topic.presence.get_or_insert_with(new);
        let info = ask.info.as_deref();
        let attends = ask.attends && has_room;
        let mut joins = Vec::new();
        if attends && presence.join(client.as_str(), info) {
            joins.push(client.as_str().into());
        }
        if let Some(stay) = stay {
            let has_room = has_room && self.rules.has_room_for_stays();
            // Who is there may stay, if it says nothing new.
            let may_stay = has_room || presence.contains(&stay.client);
            let by = Stayer { shard: from, key: stay.key };
            if may_stay && presence.stay(&stay.client, info.filter(|_| has_room), by, stay.until_ms) {
                joins.push(stay.client.clone());
            }
        }
        for client in joins {
            self.announce(id, Kind::Join { client, info: ask.info.clone() });
        }
        attends
    }

    pub(super) fn subscribe_here(&mut self, from: u16, note: SubscribeNote) {
        let SubscribeNote { request, topic: name, client, ask } = note;
        let id = match self.find_or_create(&name) {
            Ok(id) => id,
            Err(why) => return self.send(from, Note::NotSubscribed { request, why }),
        };
        self.post.tell_gap(from, &name, &self.ledger);
        // The join comes before its subscription, so that nobody gets its own.
        let attends = self.come(id, from, client, &ask);
        let topic = self.homes.topic_mut(id);
        topic.add_interest(from, ask.watches);
        topic.returns |= ask.returns;
        let answer = topic.answer(request, &ask, attends);
        self.send(from, Note::Subscribed(Box::new(answer)));
    }

    pub(super) fn unsubscribe_here(
        &mut self,
        from: u16,
        name: &TopicName,
        watched: bool,
        attended: Option<ClientId>,
    ) {
        let Some(id) = self.homes.find(name) else {
            debug_assert!(false, "a topic with a subscriber is not forgotten");
            return;
        };
        let topic = self.homes.topic_mut(id);
        topic.remove_interest(from, watched);
        if let Some(client) = attended {
            self.go(id, client);
        }
        let topic = self.homes.topic(id);
        if topic.interests.is_empty()
            && (topic.returns || self.rules.settings(topic.rule).history > 0)
            && let Some(other) = self.homes.remember(id, self.now_ms)
        {
            self.settle(other);
        }
        self.settle(id);
    }

    /// A connection of a client's is not present any more.
    fn go(&mut self, id: u32, client: ClientId) {
        if let Some(presence) = &mut self.homes.topic_mut(id).presence
            && presence.leave(client.as_str())
        {
            self.announce(id, Kind::Leave { client: client.as_str().into() });
        }
    }

    pub(super) fn absent_here(&mut self, name: &TopicName, client: ClientId) {
        // Where its subscription was refused, nobody needs to know the topic.
        if let Some(id) = self.homes.find(name) {
            self.go(id, client);
        }
    }

    pub(super) fn interest_here(&mut self, from: u16, pattern: Pattern, number: u64) {
        let place = self.homes.patterns.find_or_insert(&pattern, Vec::new);
        let shards = self.homes.patterns.get_mut(place);
        debug_assert!(!shards.contains(&from), "a shard says once what it wants");
        shards.push(from);
        self.homes.pattern_changed(pattern.clone());
        self.send(from, Note::Interested { pattern, number });
    }

    pub(super) fn disinterest_here(&mut self, from: u16, pattern: &Pattern) {
        let Some(place) = self.homes.patterns.find(pattern) else {
            debug_assert!(false, "a shard ends what it has begun");
            return;
        };
        let shards = self.homes.patterns.get_mut(place);
        shards.retain(|&shard| shard != from);
        if shards.is_empty() {
            self.homes.patterns.remove(place);
        }
        self.homes.pattern_changed(pattern.clone());
    }

    pub(super) fn depart_here(&mut self, from: u16, note: &DepartNote) {
        let Some(id) = self.homes.find(&note.topic) else { return };
        let by = Stayer { shard: from, key: note.key };
        if let Some(presence) = &mut self.homes.topic_mut(id).presence
            && presence.depart(&note.client, by, note.until_ms, self.now_ms)
        {
            self.announce(id, Kind::Leave { client: note.client.clone() });
        }
        self.settle(id);
    }

    pub(super) fn answer_here(&mut self, from: u16, note: AskNote) {
        let AskNote { ticket, topic: name, question } = note;
        let topic = self.homes.find(&name).map(|id| self.homes.topic(id));
        let rule = topic.map_or_else(|| self.rules.rule_for(&name), |topic| topic.rule);
        let settings = self.rules.settings(rule);
        let position = topic.map_or(Position::NOWHERE, |topic| topic.position);
        let reply = match question {
            Question::History { .. } if settings.history == 0 => {
                Reply::Refused { topic: name, why: Refused::NoHistory }
            }
            Question::History { limit, before } => {
                let limit = limit.min(HISTORY_LISTED) as usize;
                let messages = topic
                    .map_or_else(Vec::new, |topic| topic.history.last(limit, before, HISTORY_LISTED_BYTES));
                Reply::History { topic: name, position, messages }
            }
            Question::Presence if !settings.presence => {
                Reply::Refused { topic: name, why: Refused::NoPresence }
            }
            Question::Presence => {
                let (count, clients) = who_is_there(topic, PRESENCE_LISTED);
                Reply::Presence { topic: name, count, clients }
            }
            Question::State { presence } => Reply::State {
                topic: name,
                position,
                subscribers: topic.map_or(0, HomeTopic::subscribers),
                history: topic.map_or(0, |topic| topic.history.len() as u64),
                present: presence.filter(|_| settings.presence).map(|most| {
                    let (count, clients) = who_is_there(topic, PRESENCE_LISTED.min(most as usize));
                    (count, (most > 0).then_some(clients))
                }),
            },
        };
        self.reply(from, ticket, reply);
    }

    pub(super) fn expire_homes(&mut self) {
        let mut due = std::mem::take(&mut self.found);
        self.homes.poll_due(self.now_ms, &mut due);
        for &id in &due {
            let settings = self.rules.settings(self.homes.topic(id).rule);
            self.homes.expire(id, settings, self.now_ms);
            while let Some(gone) = {
                let presence = self.homes.topic_mut(id).presence.as_mut();
                presence.and_then(|presence| presence.poll_expired(self.now_ms))
            } {
                if let Some(client) = gone {
                    self.announce(id, Kind::Leave { client: (&*client).into() });
                }
            }
            self.settle(id);
        }
        due.clear();
        self.found = due;
    }

    fn find_or_create(&mut self, name: &TopicName) -> Result<u32, Refused> {
        if let Some(id) = self.homes.find(name) {
            return Ok(id);
        }
        if !self.rules.take_topic() {
            return Err(Refused::TooManyTopics);
        }
        let rule = self.rules.rule_for(name);
        Ok(self.homes.insert(name, rule, self.rules.settings(rule), &self.ledger))
    }

    /// Forgets a topic that nothing needs any more, or sees to it that it is looked at in time.
    pub(super) fn settle(&mut self, id: u32) {
        let settings = self.rules.settings(self.homes.topic(id).rule);
        if self.homes.forget_if_idle(id, settings, self.now_ms) {
            self.rules.give_topics(1);
        }
    }
}

/// How many are there, and as many of them as are wanted and fit into an answer.
fn who_is_there<H: History>(topic: Option<&HomeTopic<H>>, most: usize) -> (u64, Vec<Present>) {
    let presence = topic.and_then(|topic| topic.presence.as_deref());
    presence.map_or((0, Vec::new()), |presence| {
        (presence.len() as u64, presence.list(most, PRESENCE_LISTED_BYTES))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tidegate_registry::{Key, Total};

    use super::*;
    use crate::{Class, ClientId, Envelope, Filter, Format, MemberRules, Publish, TopicRules};

    #[test]
    fn a_pattern_that_comes_and_goes_does_not_have_other_topics_search_anew() {
        let mut hub = Hub::new(0, 1, Arc::new(TopicRules::default()), 1, &Total::default());
        let rules = MemberRules { subscriptions: 100, patterns: 100 };
        let class = Class::plain(Envelope::Protocol);
        let enter = |hub: &mut Hub, number: u64| {
            hub.enter(Key::from_bits(1 << 32 | number), class, ClientId::from_bits(number), rules)
        };
        let (stays, fickle) = (enter(&mut hub, 1), enter(&mut hub, 2));
        let pattern = |text: &str| Pattern::parse(text).unwrap();
        hub.subscribe_pattern(stays, &pattern("room/**")).unwrap();
        let name = TopicName::parse("room/a").unwrap();
        let publish = |hub: &mut Hub| {
            let before = hub.homes.patterns.steps();
            hub.publish(None, &name, Publish::new(Format::Text, Vec::new()), 0).unwrap();
            let mut audience = 0;
            while let Some(batch) = hub.poll_batch() {
                audience += hub.audience(batch).len();
                hub.finish_batch(batch);
            }
            (audience, hub.homes.patterns.steps() - before)
        };
        let come = |hub: &mut Hub, text: &str| hub.subscribe_pattern(fickle, &pattern(text)).unwrap();
        let go =
            |hub: &mut Hub, text: &str| hub.unsubscribe(fickle, &Filter::Pattern(pattern(text))).unwrap();
        assert!(publish(&mut hub).1 > 0, "the first time");
        for _ in 0..1_000 {
            come(&mut hub, "other/*");
            assert_eq!(publish(&mut hub), (1, 0));
            go(&mut hub, "other/*");
            assert_eq!(publish(&mut hub), (1, 0));
        }
        // Many at once, of the same few.
        for n in 0..1_000 {
            come(&mut hub, &format!("other/{}/*", n % 4));
            go(&mut hub, &format!("other/{}/*", n % 4));
        }
        assert_eq!(publish(&mut hub), (1, 0));
        // What matches is found, and gone when it is; also behind more changes than are known.
        come(&mut hub, "*/a");
        let (audience, steps) = publish(&mut hub);
        assert!(audience == 2 && steps > 0, "{audience}, {steps}");
        go(&mut hub, "*/a");
        assert_eq!(publish(&mut hub).0, 1);
        come(&mut hub, "*/a");
        for n in 0..20 {
            come(&mut hub, &format!("other/{n}/*"));
        }
        assert_eq!(publish(&mut hub).0, 2);
        hub.leave(stays);
        hub.leave(fickle);
        assert_eq!(publish(&mut hub).0, 0);
    }
}
