//! How subscriptions begin and end on their members' shard.
//!
//! Invariant: a subscription is in its topic's audience from its home's answer on, and not before: so it gets exactly what
//! comes behind the answer's position.

use std::sync::Arc;

use super::{Asked, Followed, Hub};
use crate::{
    letter::{Ask, Note, Refused, Reply, SubscribeNote, SubscribedNote, Ticket},
    local::subscriber,
    member::{MemberId, Subscriber},
    members::State,
    planted::{self, Bug},
    publication::{GapReason, Publication},
    store::Store,
    topic::{Filter, Pattern, Position, TopicName},
};

impl<S: Store> Hub<S> {
    /// Subscribes a member to a topic. The answer is [`Reply::Subscribed`], or [`Reply::Refused`].
    ///
    /// # Errors
    /// What can be said at once.
    ///
    /// # Panics
    /// If there is no such member.
    pub fn subscribe(
        &mut self,
        member: MemberId,
        ticket: Ticket,
        topic: &TopicName,
        ask: Ask,
        now_ms: u64,
    ) -> Result<(), Refused> {
        self.advance(now_ms);
        let MemberId(member) = member;
        let local = self.locals.find(topic);
        if local.is_some_and(|local| self.members.find_topic(member, local).is_some()) {
            return Err(Refused::AlreadySubscribed);
        }
        let own = self.members.member(member);
        if own.subscriptions >= own.rules.subscriptions {
            return Err(Refused::TooManySubscriptions);
        }
        let client = own.client;
        let rule = local.map_or_else(|| self.rules.rule_for(topic), |local| self.locals.topic(local).rule);
        let has_presence = self.rules.settings(rule).presence;
        if ask.watches && !has_presence {
            return Err(Refused::NoPresence);
        }
        if !self.rules.take_subscription() {
            return Err(Refused::TooManyInProcess);
        }
        let ask = Ask { attends: ask.attends && has_presence, ..ask };
        let attends = ask.attends.then_some(client);
        let watches = ask.watches;
        let local = local.unwrap_or_else(|| self.locals.insert(topic, rule));
        let topic = self.locals.topic(local).name.clone();
        let asked =
            Asked { subscription: None, ticket, topic: topic.clone(), watches, attends, withdrawn: false };
        // Unanswered subscriptions are bounded by sessions, below 2³².
        let request = self.asked.insert(asked) as u32;
        let subscription =
            self.members.insert(member, local, request, State::Asked, watches, attends.is_some());
        self.asked[request as usize].subscription = Some(subscription);
        let own = self.locals.topic_mut(local);
        own.asked += 1;
        own.watchers += u32::from(watches);
        let home = topic.home(self.shards);
        self.send(home, Note::Subscribe(Box::new(SubscribeNote { request, topic, client, ask })));
        Ok(())
    }

    /// Subscribes a member to all topics that match, from now on; homes on other shards learn of it a moment later.
    ///
    /// # Errors
    /// Why not.
    ///
    /// # Panics
    /// If there is no such member.
    pub fn subscribe_pattern(&mut self, member: MemberId, pattern: &Pattern) -> Result<(), Refused> {
        let MemberId(member) = member;
        let known = self.patterns.find(pattern);
        if known.is_some_and(|known| self.members.find_pattern(member, known).is_some()) {
            return Err(Refused::AlreadySubscribed);
        }
        let own = self.members.member(member);
        if own.subscriptions >= own.rules.subscriptions || own.patterns >= own.rules.patterns {
            return Err(Refused::TooManySubscriptions);
        }
        if !self.rules.take_subscription() {
            return Err(Refused::TooManyInProcess);
        }
        let number = self.interests + 1;
        let waits_for = (0..self.shards).collect();
        let place = self.patterns.find_or_insert(pattern, || Followed {
            subscriptions: Vec::new(),
            number,
            waits_for,
        });
        let followed = self.patterns.get_mut(place);
        let at = followed.subscriptions.len() as u32;
        let subscription = self.members.insert(member, place, at, State::Pattern, false, false);
        followed.subscriptions.push(subscription);
        if known.is_none() {
            self.interests = number;
            for shard in 0..self.shards {
                self.send(shard, Note::Interest { pattern: pattern.clone(), number });
            }
        }
        Ok(())
    }

    /// What a member is subscribed to, and whether it sees who comes and goes there; the newest first.
    ///
    /// # Panics
    /// If there is no such member.
    #[must_use]
    pub fn subscriptions_of(&self, member: MemberId) -> Vec<(Filter, bool)> {
        let filter = |own: &crate::members::Subscription| match own.state {
            State::Pattern => Filter::Pattern(self.patterns.pattern(own.target)),
            State::Asked | State::Live => Filter::Topic(self.locals.topic(own.target).name.clone()),
        };
        self.members.of(member.0).map(|own| (filter(own), own.watches)).collect()
    }

    /// A member is not present in a topic any more, where it was, and stays subscribed.
    ///
    /// # Panics
    /// If there is no such member.
    pub fn end_presence(&mut self, member: MemberId, topic: &TopicName) {
        let MemberId(member) = member;
        let Some(local) = self.locals.find(topic) else { return };
        let Some(found) = self.members.find_topic(member, local) else { return };
        let own = self.members.subscription_mut(found);
        if !std::mem::take(&mut own.attends) {
            return;
        }
        if own.state == State::Asked {
            // The home hears of both in their order, and need not be told once more when it has answered.
            let asked = own.place as usize;
            self.asked[asked].attends = None;
        }
        let client = self.members.member(member).client;
        self.send(topic.home(self.shards), Note::Absent { topic: topic.clone(), client });
    }

    /// Ends a subscription. Nothing of it comes any more, also of what was published before. One that its home has not answered
    /// yet is answered as refused then: [`Refused::Withdrawn`].
    ///
    /// # Errors
    /// [`Refused::NotSubscribed`].
    ///
    /// # Panics
    /// If there is no such member.
    pub fn unsubscribe(&mut self, member: MemberId, filter: &Filter) -> Result<(), Refused> {
        let MemberId(member) = member;
        match filter {
            Filter::Topic(topic) => {
                let local = self.locals.find(topic).ok_or(Refused::NotSubscribed)?;
                let found = self.members.find_topic(member, local).ok_or(Refused::NotSubscribed)?;
                let own = self.members.subscription(found);
                if own.state == State::Asked {
                    let asked = own.place as usize;
                    self.asked[asked].withdrawn = true;
                }
                self.end_subscription(found);
            }
            Filter::Pattern(pattern) => {
                let place = self.patterns.find(pattern).ok_or(Refused::NotSubscribed)?;
                let found = self.members.find_pattern(member, place).ok_or(Refused::NotSubscribed)?;
                self.end_pattern(found, pattern);
                self.end_lags_of_patterns(member);
            }
        }
        Ok(())
    }

    /// All its subscriptions end; where it was present, it leaves.
    ///
    /// # Panics
    /// If there is no such member.
    pub fn leave(&mut self, member: MemberId) {
        let MemberId(member) = member;
        while let Some(lag) = self.lags.newest(member, &self.members) {
            self.end_lag(lag);
        }
        while let Some(id) = self.members.newest(member) {
            self.end_subscription(id);
        }
        self.members.leave(member);
    }

    fn end_subscription(&mut self, id: u32) {
        let own = self.members.subscription(id);
        let (member, target, place, watches) = (own.member, own.target, own.place, own.watches);
        let attended = own.attends.then(|| self.members.member(member).client);
        match own.state {
            State::Pattern => {
                let pattern = self.patterns.pattern(target);
                self.end_pattern(id, &pattern);
            }
            State::Asked => {
                // Its home is told when it has answered: it may yet refuse.
                self.asked[place as usize].subscription = None;
                self.members.remove(id);
                self.rules.give_subscriptions(1);
                let topic = self.locals.topic_mut(target);
                topic.asked -= 1;
                topic.watchers -= u32::from(watches);
                self.locals.forget_if_idle(target);
            }
            State::Live => {
                self.members.remove(id);
                self.rules.give_subscriptions(1);
                let topic = self.locals.topic_mut(target);
                topic.dismiss(place, &mut self.members);
                topic.watchers -= u32::from(watches);
                let topic = topic.name.clone();
                if let Some(lag) = self.lags.find(member, target)
                    && !self.matches_pattern(member, &topic)
                {
                    self.end_lag(lag);
                }
                self.locals.forget_if_idle(target);
                let home = topic.home(self.shards);
                self.send(home, Note::Unsubscribe { topic, watched: watches, attended });
            }
        }
    }

    fn end_pattern(&mut self, id: u32, pattern: &Pattern) {
        let own = self.members.remove(id);
        self.rules.give_subscriptions(1);
        let subscriptions = &mut self.patterns.get_mut(own.target).subscriptions;
        subscriptions.swap_remove(own.place as usize);
        if let Some(&moved) = subscriptions.get(own.place as usize) {
            self.members.subscription_mut(moved).place = own.place;
        }
        if subscriptions.is_empty() {
            self.patterns.remove(own.target);
            for shard in 0..self.shards {
                self.send(shard, Note::Disinterest(pattern.clone()));
            }
        }
    }

    /// A member has lost a pattern: it lags no more where it has no subscription left.
    fn end_lags_of_patterns(&mut self, member: u32) {
        let mut next = self.lags.newest(member, &self.members);
        while let Some(lag) = next {
            next = self.lags.next(lag);
            let topic = self.lags.get_mut(lag).topic;
            let by_name = self.members.find_topic(member, topic);
            let by_name = by_name.is_some_and(|id| self.members.subscription(id).state == State::Live);
            let name = self.locals.topic(topic).name.clone();
            if !by_name && !self.matches_pattern(member, &name) {
                self.end_lag(lag);
            }
        }
    }

    /// Whether a member gets this topic by a pattern.
    fn matches_pattern(&mut self, member: u32, name: &TopicName) -> bool {
        self.first_of_patterns(member, name, None).is_some()
    }

    /// Which item of the batch of a topic is the first that a member gets by a pattern, if it has one that stands for it.
    fn first_of_patterns(&mut self, member: u32, name: &TopicName, topic: Option<u32>) -> Option<u16> {
        if self.members.member(member).patterns == 0 {
            return None;
        }
        let mut found = self.find_followed(name);
        found.retain(|&pattern| self.members.find_pattern(member, pattern).is_some());
        let first = found.iter().map(|&pattern| topic.map_or(0, |topic| self.begin_of(topic, pattern))).min();
        found.clear();
        self.found = found;
        first
    }

    /// The patterns that stand for a name and that its home knows of.
    pub(super) fn find_followed(&mut self, name: &TopicName) -> Vec<u32> {
        let mut found = std::mem::take(&mut self.found);
        self.patterns.matches(name, &mut found);
        if !found.is_empty() {
            let home = name.home(self.shards);
            found.retain(|&pattern| !self.patterns.get(pattern).waits_for.contains(&home));
        }
        found
    }

    /// How much of a topic's batch was before a pattern began.
    pub(super) fn begin_of(&self, topic: u32, pattern: u32) -> u16 {
        if self.late.is_empty() {
            return 0;
        }
        let topic = self.locals.topic(topic);
        let since = self.late.find(topic.name.home(self.shards), pattern);
        since.map_or(0, |since| topic.count_before(since))
    }

    /// A home has noted a pattern: what comes from it now is for the pattern's subscribers.
    pub(super) fn interested(&mut self, home: u16, pattern: &Pattern, number: u64) {
        let Some(place) = self.patterns.find(pattern) else { return };
        let followed = self.patterns.get_mut(place);
        // It may have ended and begun again meanwhile.
        if followed.number != number {
            return;
        }
        followed.waits_for.retain(|&other| other != home);
        self.late.note(home, place, self.locals.tick());
    }

    /// A home has answered.
    pub(super) fn subscribed(&mut self, note: SubscribedNote) {
        let SubscribedNote { request, position, attends: is_there, recovered, mut first } = note;
        let asked = self.asked.remove(request as usize);
        let Asked { subscription, ticket, topic, watches, attends, withdrawn } = asked;
        // Who found no room has nothing to leave: another subscription of the same connection may have found some.
        let attends = attends.filter(|_| is_there);
        let Some(id) = subscription else {
            let home = topic.home(self.shards);
            let name = topic.clone();
            self.send(home, Note::Unsubscribe { topic, watched: watches, attended: attends });
            if withdrawn {
                self.replies.push_back((ticket, Reply::Refused { topic: name, why: Refused::Withdrawn }));
            }
            return;
        };
        let own = self.members.subscription(id);
        let (member, local) = (own.member, own.target);
        let flags = if watches { Subscriber::WATCHES } else { 0 };
        let entry = subscriber(self.members.member(member), id, flags);
        self.reach(local, position);
        let pattern_offset = match self.members.member(member).patterns {
            0 => None,
            _ => self.fold_in_patterns(member, local, recovered == Some(true), &mut first),
        };
        let own = self.locals.topic_mut(local);
        own.asked -= 1;
        let place = own.admit(entry);
        if planted::is(Bug::ForgetSkip) {
            own.audience[place as usize].skip = 0;
        }
        let own = self.members.subscription_mut(id);
        own.state = State::Live;
        own.place = place;
        own.attends = attends.is_some();
        let member = MemberId(member);
        let reply = Reply::Subscribed { member, topic, position, recovered, pattern_offset, first };
        self.replies.push_back((ticket, reply));
    }

    /// A home has refused.
    pub(super) fn not_subscribed(&mut self, request: u32, why: Refused) {
        let asked = self.asked.remove(request as usize);
        let Asked { subscription, ticket, topic, watches, withdrawn, .. } = asked;
        let Some(id) = subscription else {
            if withdrawn {
                self.replies.push_back((ticket, Reply::Refused { topic, why: Refused::Withdrawn }));
            }
            return;
        };
        let own = self.members.remove(id);
        self.rules.give_subscriptions(1);
        let local = self.locals.topic_mut(own.target);
        local.asked -= 1;
        local.watchers -= u32::from(watches);
        self.locals.forget_if_idle(own.target);
        self.replies.push_back((ticket, Reply::Refused { topic, why }));
    }

    /// A topic is at this position now.
    pub(super) fn reach(&mut self, local: u32, position: Position) {
        let topic = self.locals.topic_mut(local);
        // Without a message in the batch both are the same, and stay so.
        let nothing_waits = topic.finished == topic.position;
        if topic.position.epoch != position.epoch {
            topic.previous = topic.position;
            if let Some(backlog) = &mut topic.backlog {
                backlog.clear();
            }
        }
        topic.position = position;
        if nothing_waits {
            topic.finished = position;
        }
    }

    /// A member that has had a topic by a pattern has now asked for it by name. What the pattern still owes comes with the
    /// answer: what waits in the batch, which the new entry skips, and the gap where the member lagged. Where it has recovered,
    /// it has all of that, or had it before. Returns the offset up to which the pattern has brought everything, where it owes
    /// something behind that.
    fn fold_in_patterns(
        &mut self,
        member: u32,
        local: u32,
        recovered: bool,
        first: &mut Vec<Arc<Publication>>,
    ) -> Option<u64> {
        let name = self.locals.topic(local).name.clone();
        let begin = self.first_of_patterns(member, &name, Some(local))?;
        let topic = self.locals.topic(local);
        let batch = topic.batch.iter().skip(usize::from(begin));
        // Of a life that has ended meanwhile nothing is owed: the answer's epoch says it.
        let is_owed =
            |item: &&Arc<Publication>| !item.is_presence() && item.position().epoch == topic.position.epoch;
        let mut owed: Vec<_> = batch.filter(is_owed).cloned().collect();
        let mut brought = owed.first().map(|first| first.offset() - 1);
        owed.retain(|item| first.binary_search_by_key(&item.offset(), |other| other.offset()).is_err());
        if let Some(lag) = self.lags.find(member, local) {
            let (cursor, end) = (self.lags.get_mut(lag).cursor, topic.finished);
            // Of another life it has nothing.
            brought = Some(if cursor.epoch == end.epoch { cursor.offset } else { 0 });
            // Where the epoch has changed meanwhile, the answer's position says it.
            let last = first.first().map_or(end.offset, |first| end.offset.min(first.offset() - 1));
            if cursor.epoch == end.epoch && cursor.offset < last {
                let to = Position { offset: last, ..end };
                owed.push(Publication::gap(&name, cursor.offset + 1, to, GapReason::Slow, &self.ledger));
            }
            self.end_lag(lag);
        }
        if !recovered && !owed.is_empty() {
            first.append(&mut owed);
            first.sort_by_key(|item| item.offset());
        }
        brought
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Class, ClientId, Envelope, Format, MemberRules, Publish, TopicRules};
    use tidegate_registry::{Key, Total};

    /// `a/…/a/**`, with up to four of its segments as stars.
    fn patterns(depth: u32) -> Vec<Pattern> {
        let text = |bits: u32| {
            let segment = |place| if bits >> place & 1 == 1 { "*" } else { "a" };
            let segments: Vec<&str> = (0..depth).map(segment).chain(["**"]).collect();
            segments.join("/")
        };
        let all = (0..1_u32 << depth).filter(|bits| bits.count_ones() <= 4);
        all.map(|bits| Pattern::parse(&text(bits)).unwrap()).collect()
    }

    /// Patterns that begin in a turn in which many topics have news cost as much as they match, not the square of it.
    #[test]
    fn patterns_that_begin_in_a_busy_turn_cost_one_look_for_each_topic_that_they_match() {
        const TOPICS: usize = 300;
        let mut hub = Hub::new(0, 1, Arc::new(TopicRules::default()), 1, &Total::default());
        let rules = MemberRules { subscriptions: u32::MAX, patterns: u32::MAX };
        let enter = |hub: &mut Hub, number: u64| {
            let class = Class::plain(Envelope::Protocol);
            hub.enter(Key::from_bits(1 << 32 | number), class, ClientId::from_bits(number), rules)
        };
        let (first, late) = (enter(&mut hub, 1), enter(&mut hub, 2));
        let topics: Vec<TopicName> =
            (0..TOPICS).map(|n| TopicName::parse(&format!("a/a/a/a/a/a/{n}")).unwrap()).collect();
        hub.subscribe_pattern(first, &Pattern::parse("a/**").unwrap()).unwrap();
        while hub.poll_batch().is_some() {}
        let publish = |hub: &mut Hub| {
            for topic in &topics {
                hub.publish(None, topic, Publish::new(Format::Text, Vec::new()), 0).unwrap();
            }
        };
        publish(&mut hub);
        let patterns = patterns(6);
        assert!(patterns.len() > 50, "{}", patterns.len());
        for pattern in &patterns {
            hub.subscribe_pattern(late, pattern).unwrap();
        }
        publish(&mut hub);
        let mut batches = 0;
        while let Some(batch) = hub.poll_batch() {
            batches += 1;
            assert_eq!(hub.publications(batch).len(), 2);
            let mut skips: Vec<_> =
                hub.audience(batch).iter().map(|one| (one.key.index(), one.skip)).collect();
            skips.sort_unstable();
            assert_eq!(skips, [(1, 0), (2, 1)], "who came in the middle gets what came behind");
            hub.finish_batch(batch);
        }
        assert_eq!(batches, TOPICS);
        let steps = hub.late.steps.get();
        // One for the order, one for each of those who are new.
        let most = TOPICS * (patterns.len() + 1) * 2;
        assert!(steps > TOPICS && steps <= most + most / 4, "{steps}, {most}");
        assert!(hub.late.is_empty(), "nothing of it is left behind the turn");
        hub.leave(first);
        hub.leave(late);
    }

    /// Each home notes a pattern in its own time, and a place that one has left is another's.
    #[test]
    fn each_home_begins_a_pattern_for_itself() {
        let rules = Arc::new(TopicRules::default());
        let new = |shard| Hub::new(shard, 2, Arc::clone(&rules), u64::from(shard), &Total::default());
        let mut hubs = [new(0), new(1)];
        let topic = |home| {
            let mut names = (0..).map(|n| TopicName::parse(&format!("t/{n}")).unwrap());
            names.find(|name| name.home(2) == home).unwrap()
        };
        let class = Class::plain(Envelope::Protocol);
        let rules = MemberRules { subscriptions: 10, patterns: 10 };
        let [here, there] = &mut hubs;
        let member = here.enter(Key::from_bits(1 << 32 | 1), class, ClientId::from_bits(1), rules);
        let other = here.enter(Key::from_bits(1 << 32 | 2), class, ClientId::from_bits(2), rules);
        let pass = |from: &mut Hub, number, to: &mut Hub| {
            while let Some((_, letters)) = from.poll_letters() {
                to.receive(number, letters, 0);
            }
        };
        let publish = |hub: &mut Hub, home| {
            hub.publish(None, &topic(home), Publish::new(Format::Text, Vec::new()), 0).unwrap();
        };
        let skips = |hub: &mut Hub| {
            let mut all = Vec::new();
            while let Some(batch) = hub.poll_batch() {
                let own = hub.audience(batch).iter().map(|one| (one.key.index(), one.skip));
                all.push((hub.publications(batch).len(), own.collect::<Vec<_>>()));
                hub.finish_batch(batch);
            }
            all
        };
        here.subscribe_pattern(other, &Pattern::parse("**").unwrap()).unwrap();
        pass(here, 0, there);
        pass(there, 1, here);
        publish(here, 0);
        publish(there, 1);
        pass(there, 1, here);
        // One that ends at once leaves its place to the next.
        let gone = Pattern::parse("*/x").unwrap();
        here.subscribe_pattern(member, &gone).unwrap();
        here.unsubscribe(member, &Filter::Pattern(gone)).unwrap();
        here.subscribe_pattern(member, &Pattern::parse("t/*").unwrap()).unwrap();
        publish(here, 0);
        pass(here, 0, there);
        publish(there, 1);
        // The home there has noted it before its second message.
        pass(there, 1, here);
        assert_eq!(skips(here), [(2, vec![(2, 0), (1, 1)]), (2, vec![(2, 0), (1, 1)])]);
        publish(here, 0);
        assert_eq!(skips(here), [(1, vec![(2, 0), (1, 0)])]);
        here.leave(member);
        here.leave(other);
    }
}
