//! What a client on a WebSocket makes of what it gets.

use super::*;

impl Socket {
    pub(super) fn message(&mut self, net: &Net, opcode: u8, payload: &[u8]) {
        if let Some(topic) = self.raw.clone() {
            return self.raw_message(&topic, opcode, payload);
        }
        if opcode != TEXT {
            self.fail("a binary message of the protocol");
        }
        let told = Told::read(payload);
        if !self.greeted {
            let hello = told.op == "hello" && told.version == Some(1) && told.client.is_some();
            let ping = self.visit.society.setup.ping_interval.div_ceil(SECONDS);
            if !hello || told.ping != Some(ping) {
                self.fail(&format!("no right hello: {told:?}"));
            }
            self.greeted = true;
            self.client = told.client.unwrap_or_default();
            return;
        }
        match told.op.as_str() {
            "message" => self.published_message(&told),
            "gap" => self.gap(&told),
            "join" | "leave" | "presence_gap" => {
                let watches =
                    self.subs.get(&told.topic).is_some_and(|sub| sub.epoch.is_some() && sub.watches);
                if !watches || told.client.is_none() != (told.op == "presence_gap") {
                    self.fail(&format!("who comes and goes is not for it: {told:?}"));
                }
                let mut presence = self.visit.society.presence.borrow_mut();
                presence.tell(&told.topic, self.visit.session, told.client.as_deref(), told.op == "join");
            }
            "error" if told.id.is_none() => self.loose_error(net, &told),
            _ => self.answer(net, &told),
        }
    }

    fn raw_message(&mut self, topic: &str, opcode: u8, payload: &[u8]) {
        let society = Rc::clone(&self.visit.society);
        let mut judge = society.judge.borrow_mut();
        let format = match (opcode, payload.first()) {
            (BINARY, _) => Format::Binary,
            (_, Some(b'{')) => Format::Json,
            _ => Format::Text,
        };
        let id = judge.identify(format, payload);
        judge.raw_receipt(self.visit.session, topic, id);
        if judge.topic_of(id) != topic {
            drop(judge);
            self.fail(&format!("message {id} of another topic"));
        }
        drop(judge);
        if !self.got.insert(id) {
            self.fail(&format!("message {id} came again"));
        }
        self.last = Some(id);
        if let Some((_, last)) = society.raw.borrow_mut().get_mut(&self.visit.session) {
            *last = Some(id);
        }
    }

    /// Whether something of a topic may come; in which epoch, where it is known.
    fn epoch(&self, topic: &str) -> Option<Epoch> {
        if let Some(Sub { epoch: Some(epoch), .. }) = self.subs.get(topic) {
            return Some(*epoch);
        }
        if !self.patterns.iter().any(|pattern| setup::matches(pattern, topic)) {
            self.fail(&format!("something of {topic}, to which it is not subscribed"));
        }
        None
    }

    fn published_message(&mut self, told: &Told<'_>) {
        let epoch = self.epoch(&told.topic);
        let (format, payload) = told.content();
        let offset = told.offset.expect("a message has an offset");
        let society = Rc::clone(&self.visit.society);
        let mut judge = society.judge.borrow_mut();
        let id = judge.identify(format, &payload);
        judge.receipt(self.visit.session, &told.topic, epoch, offset, id);
        if let Some(epoch) = epoch {
            self.visit.person().remember(&told.topic, Position { epoch, offset });
        }
    }

    fn gap(&mut self, told: &Told<'_>) {
        let epoch = self.epoch(&told.topic);
        let (Some(from), Some(to)) = (told.from, told.to) else { self.fail(&format!("{told:?}")) };
        assert!(matches!(told.reason.as_str(), "slow" | "busy"), "{told:?}");
        let mut judge = self.visit.society.judge.borrow_mut();
        *judge.gaps.entry(if told.reason == "slow" { "slow" } else { "busy" }).or_default() += 1;
        let topic = told.topic.clone();
        judge.observe(Event::Gap { session: self.visit.session, topic, from, to });
        drop(judge);
        if let Some(epoch) = epoch {
            self.visit.person().remember(&told.topic, Position { epoch, offset: to });
        }
    }

    fn loose_error(&mut self, net: &Net, told: &Told<'_>) {
        let few = self.visit.society.setup.few_topics;
        let short = told.code == "busy" && self.visit.society.is_short();
        if short {
            self.visit.society.has_refused(net.now);
        }
        let refused = (told.code == "too_many" && few || short) && self.unacknowledged;
        let place = self.loose.iter().position(|code| *code == told.code);
        match place {
            Some(place) => drop(self.loose.remove(place)),
            None if refused => {}
            None => self.fail(&format!("an error for nothing: {told:?}")),
        }
    }

    fn answer(&mut self, net: &Net, told: &Told<'_>) {
        let asked = told.id.and_then(|id| self.asked.remove(&id));
        let Some(asked) = asked else { self.fail(&format!("an answer to nothing: {told:?}")) };
        let few = self.visit.society.setup.few_topics;
        let session = self.visit.session;
        match (asked, told.op.as_str()) {
            (Asked::Subscribe { topic, recover }, "subscribed") => {
                let position = told.at();
                if told.topic != topic || told.recovered.is_some() != recover.is_some() {
                    self.fail(&format!("another answer than was asked for: {told:?}"));
                }
                if let Some(sub) = self.subs.get_mut(&topic) {
                    sub.epoch = Some(position.epoch);
                }
                let recovered = recover.zip(told.recovered);
                self.visit.observe(Event::Subscribed { session, topic: topic.clone(), position, recovered });
                if setup::has_presence(&topic) {
                    let watches = self.subs.get(&topic).is_some_and(|sub| sub.watches);
                    let mut presence = self.visit.society.presence.borrow_mut();
                    presence.come(&topic, session, &self.client, watches);
                }
                // What was recovered comes behind it.
                let from = recovered.filter(|(_, whole)| *whole).map_or(position, |(from, _)| from);
                let memory = &mut self.visit.person().memory;
                memory.insert(topic, from);
            }
            (Asked::Subscribe { topic, .. }, "error") if told.code == "too_many" && few => {
                self.subs.remove(&topic);
                self.wanted -= 1;
            }
            (Asked::Follow(pattern), "subscribed") if told.topic == pattern => {
                self.patterns.insert(pattern);
                let patterns = self.patterns.iter().cloned().collect();
                self.visit.observe(Event::Patterns { session, patterns });
            }
            (Asked::Unsubscribe(filter), "unsubscribed") if told.topic == filter => {
                self.wanted -= 1;
                if self.patterns.remove(&filter) {
                    let patterns = self.patterns.iter().cloned().collect();
                    self.visit.observe(Event::Patterns { session, patterns });
                } else {
                    self.subs.remove(&filter);
                    self.visit.society.presence.borrow_mut().go(&filter, session);
                    self.visit.observe(Event::Unsubscribed { session, topic: filter });
                }
            }
            (Asked::Publish { id, once }, "published") => {
                assert_eq!(told.level, "accepted");
                self.visit.society.has_gone_on();
                let mut judge = self.visit.society.judge.borrow_mut();
                judge.accepted(id, once.as_deref(), told.at(), told.duplicate);
            }
            (Asked::Publish { id, .. }, "error") if told.code == "busy" && self.visit.society.is_short() => {
                self.visit.society.has_refused(net.now);
                let mut judge = self.visit.society.judge.borrow_mut();
                *judge.gaps.entry("publication refused for want of memory").or_default() += 1;
                judge.refused(id);
            }
            // A full queue is waited for, and where there is memory enough nothing else is refused.
            (Asked::Publish { id, .. }, "error") if told.code == "too_many" && few => {
                let mut judge = self.visit.society.judge.borrow_mut();
                *judge.gaps.entry("publication refused").or_default() += 1;
                judge.refused(id);
            }
            (Asked::Presence, "presence") => {
                let count = told.count.expect("it is counted");
                assert_eq!(count, told.clients.len() as u64, "{told:?}");
            }
            (Asked::History { topic, before }, "history") => self.history(&topic, before, told),
            (Asked::Ping, "pong") => {}
            (Asked::Wrong(code), "error") if told.code == code => {}
            (asked, _) => self.fail(&format!("{told:?} for {asked:?}")),
        }
    }

    fn history(&mut self, topic: &str, before: Option<u64>, told: &Told<'_>) {
        let newest = told.at();
        let messages = told.messages.as_deref().unwrap_or_default();
        let offsets: Vec<u64> = messages.iter().map(|message| message.offset.expect("an offset")).collect();
        assert!(offsets.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{offsets:?}");
        let end = before.map_or(newest.offset, |before| newest.offset.min(before.saturating_sub(1)));
        assert!(
            offsets.last().is_none_or(|last| *last == end),
            "{offsets:?} before {before:?} of {newest:?}"
        );
        let mut judge = self.visit.society.judge.borrow_mut();
        for message in messages {
            let (format, payload) = message.content();
            let id = judge.identify(format, &payload);
            let offset = message.offset.expect("an offset");
            judge.place(topic, Position { offset, ..newest }, id);
        }
    }
}
