//! What a client on a WebSocket does.

use super::{setup::Setup, *};
use crate::sim::random::Random;

/// Errors that commands get for being wrong: what is sent, with a place for the id, and the code.
const WRONG: [(&str, &str); 12] = [
    (r#"{"op":"subscribe","id":ID}"#, "invalid_request"),
    (r#"{"op":"subscribe","id":ID,"topic":7}"#, "invalid_request"),
    (r#"{"op":"fly","id":ID}"#, "unknown_op"),
    (r#"{"op":"subscribe","id":ID,"topic":"a//b"}"#, "invalid_topic"),
    (r#"{"op":"publish","id":ID,"topic":"kept/*","data":1}"#, "invalid_topic"),
    (r#"{"op":"publish","id":ID,"topic":"kept/a"}"#, "invalid_request"),
    (r#"{"op":"subscribe","id":ID,"topic":"secret/x"}"#, "not_allowed"),
    (r#"{"op":"subscribe","id":ID,"topic":"**"}"#, "not_allowed"),
    (r#"{"op":"publish","id":ID,"topic":"secret/x","data":1}"#, "not_allowed"),
    (r#"{"op":"history","id":ID,"topic":"plain/a"}"#, "no_history"),
    (r#"{"op":"presence","id":ID,"topic":"conf/a"}"#, "no_presence"),
    (r#"{"op":"unsubscribe","id":ID,"topic":"kept/nobody"}"#, "not_subscribed"),
];

/// What a visit consists of.
pub(super) fn draw(person: &mut Person, raw: bool, setup: &Setup) -> Vec<Act> {
    let known = person.memory.len();
    let random = &mut person.random;
    let mut acts = Vec::new();
    if setup.crowd && !raw {
        acts.extend([Act::Subscribe; 6]);
        let publish = [Act::Publish(3), Act::Await, Act::Pause(50 * MILLIS)];
        acts.extend(publish.repeat(random.size(10..=24)));
        // Most are cut off, and come back for what they have missed.
        acts.push(if random.below(3) == 0 { Act::Stay } else { Act::Reset });
        return acts;
    }
    if setup.memory.is_some() && !raw && random.below(3) == 0 {
        // Whoever goes on publishing learns whether it does any good.
        acts.extend((0..150).flat_map(|_| [Act::Publish(1), Act::Await, Act::Pause(50 * MILLIS)]));
        acts.push(Act::Stay);
        return acts;
    }
    if !raw {
        let first = known.clamp(1, 5) + random.size(0..=1);
        acts.extend((0..first).map(|_| Act::Subscribe));
    }
    for _ in 0..random.size(0..=24) {
        acts.push(draw_act(random, raw));
    }
    acts.push(match random.below(10) {
        0 => Act::Close,
        1 | 2 => Act::Reset,
        3 => Act::Vanish,
        _ => Act::Stay,
    });
    acts
}

fn draw_act(random: &mut Random, raw: bool) -> Act {
    match random.below(30) {
        0..=9 => Act::Publish(random.range(1..=6) as u32),
        10..=14 => Act::Pause(*random.pick(&[0, MILLIS, 50 * MILLIS, SECONDS])),
        15 | 16 => Act::Halt(*random.pick(&[100 * MILLIS, SECONDS, 6 * SECONDS])),
        _ if raw => Act::Pause(50 * MILLIS),
        17..=20 => Act::Subscribe,
        21 => Act::Follow,
        22 | 23 => Act::Unsubscribe,
        24 => Act::Ask,
        25 => Act::Ping,
        26 => Act::Wrong,
        27 => Act::Many,
        _ => Act::Await,
    }
}

impl Socket {
    pub(super) fn act_on(&mut self, net: &mut Net, me: ActorId) {
        if self.close_sent {
            return;
        }
        if self.visit.stage() == Stage::Leaving {
            return self.send_close();
        }
        while self.next_act < self.acts.len() && !self.close_sent && !self.visit.done {
            let calm = self.visit.stage() == Stage::Calm;
            if net.now < self.pause && !calm {
                return net.wake_at(me, self.pause);
            }
            let act = self.acts[self.next_act];
            if self.raw.is_none() && !self.greeted || (act == Act::Await && !self.asked.is_empty()) {
                return;
            }
            if act == Act::Stay || (calm && !matches!(act, Act::Close)) {
                return self.stay();
            }
            self.next_act += 1;
            self.act(net, me, act);
        }
    }

    /// Nothing more is done.
    fn stay(&mut self) {
        // Not before it knows where it is.
        if self.asked.is_empty() {
            self.visit.rest();
            if let Some(topic) = self.raw.clone() {
                let at_rest = (topic, self.last);
                self.visit.society.raw.borrow_mut().insert(self.visit.session, at_rest);
            }
        }
    }

    fn act(&mut self, net: &mut Net, me: ActorId, act: Act) {
        let steps = [0, 0, MILLIS, 20 * MILLIS];
        self.pause = net.now + *self.visit.random().pick(&steps);
        match act {
            Act::Subscribe => self.say(Socket::subscribe),
            Act::Follow => self.say(Socket::follow),
            Act::Unsubscribe => self.say(Socket::unsubscribe),
            Act::Publish(count) => {
                for _ in 0..count {
                    match self.raw.clone() {
                        Some(topic) => self.publish_raw(&topic),
                        None => self.say(Socket::publish),
                    }
                }
            }
            Act::Ask => self.say(Socket::ask),
            Act::Ping => {
                self.say(|socket| {
                    let id = socket.expect(Asked::Ping);
                    Some(format!(r#"{{"op":"ping","id":{id}}}"#))
                });
            }
            Act::Wrong => self.err(),
            Act::Many => self.say(|socket| {
                let mut all = Vec::new();
                for _ in 0..socket.visit.random().size(1..=5) {
                    let one = match socket.visit.random().below(3) {
                        0 => socket.subscribe(),
                        1 => socket.unsubscribe(),
                        _ => socket.publish(),
                    };
                    all.extend(one);
                }
                (!all.is_empty()).then(|| format!("[{}]", all.join(",")))
            }),
            Act::Await | Act::Stay => {}
            Act::Pause(time) => self.pause = net.now + time,
            Act::Halt(time) => {
                self.visit.halted = net.now + time;
                net.wake_at(me, self.visit.halted);
                net.cover(format!("{}: halted", self.kind()));
            }
            Act::Close => self.send_close(),
            Act::Reset => {
                net.cover(format!("{}: resets", self.kind()));
                self.leave(net, true);
            }
            Act::Vanish => {
                net.cover(format!("{}: vanishes", self.kind()));
                self.leave(net, false);
            }
        }
    }

    fn say(&mut self, command: impl FnOnce(&mut Socket) -> Option<String>) {
        if let Some(text) = command(self) {
            self.frame(TEXT, text.as_bytes());
        }
    }

    /// Notes a question; gives its id.
    fn expect(&mut self, asked: Asked) -> u64 {
        let id = self.visit.society.judge.borrow_mut().number();
        self.asked.insert(id, asked);
        id
    }

    fn subscribe(&mut self) -> Option<String> {
        // Those that it remembers first.
        let missing = |topic: &String| !self.subs.contains_key(topic);
        let known: Vec<String> =
            self.visit.person_ref().memory.keys().filter(|&x| missing(x)).cloned().collect();
        let topic = match known.is_empty() || self.visit.random().below(4) == 0 {
            true => self.visit.person().any_topic(),
            false => self.visit.random().pick(&known).clone(),
        };
        if self.subs.contains_key(&topic) || self.wanted >= MOST_SUBSCRIPTIONS {
            let code = if self.subs.contains_key(&topic) { "already_subscribed" } else { "too_many" };
            // An answer that is on its way may be a refusal.
            let sure = self.asked.is_empty() && !self.visit.society.setup.few_topics;
            return sure.then(|| {
                let id = self.expect(Asked::Wrong(code));
                format!(r#"{{"op":"subscribe","id":{id},"topic":"{topic}"}}"#)
            });
        }
        let random = self.visit.random();
        let history = if random.below(3) == 0 { random.range(1..=20) } else { 0 };
        let watches = setup::has_presence(&topic) && random.below(2) == 0;
        let info = random.below(4) == 0;
        let recover = if random.below(6) > 0 { self.visit.person().recovery(&topic) } else { None };
        self.wanted += 1;
        self.may_be_slow |= setup::disconnects(&topic);
        self.subs.insert(topic.clone(), Sub { epoch: None, watches });
        let id = self.expect(Asked::Subscribe { topic: topic.clone(), recover });
        let mut text = format!(r#"{{"op":"subscribe","id":{id},"topic":"{topic}""#);
        if let Some(at) = recover {
            text += &format!(r#","recover":{{"epoch":"{:08x}","offset":{}}}"#, at.epoch.0, at.offset);
        }
        if history > 0 {
            text += &format!(r#","history":{history}"#);
        }
        if watches {
            text += r#","presence":true"#;
        }
        if info {
            text += r#","info":{"name":"Ada"}"#;
        }
        Some(text + "}")
    }

    fn follow(&mut self) -> Option<String> {
        let pattern = *self.visit.random().pick(&setup::PATTERNS);
        let asked = |asked: &Asked| matches!(asked, Asked::Follow(_) | Asked::Unsubscribe(_));
        let busy = self.asked.values().any(asked) || self.patterns.contains(pattern);
        if busy || self.patterns.len() >= MOST_PATTERNS || self.wanted >= MOST_SUBSCRIPTIONS {
            return None;
        }
        self.wanted += 1;
        self.may_be_slow |= setup::TOPICS.iter().any(|t| setup::matches(pattern, t) && setup::disconnects(t));
        let id = self.expect(Asked::Follow(pattern.to_string()));
        Some(format!(r#"{{"op":"subscribe","id":{id},"topic":"{pattern}"}}"#))
    }

    fn unsubscribe(&mut self) -> Option<String> {
        let live = self.subs.iter().filter(|(_, sub)| sub.epoch.is_some()).map(|(topic, _)| topic.clone());
        let filters: Vec<String> = live.chain(self.patterns.iter().cloned()).collect();
        let underway = |filter: &&String| {
            !self.asked.values().any(|asked| matches!(asked, Asked::Unsubscribe(own) if own == *filter))
        };
        let filters: Vec<&String> = filters.iter().filter(underway).collect();
        if filters.is_empty() {
            return None;
        }
        let filter = (*self.visit.random().pick(&filters)).clone();
        let id = self.expect(Asked::Unsubscribe(filter.clone()));
        Some(format!(r#"{{"op":"unsubscribe","id":{id},"topic":"{filter}"}}"#))
    }

    fn publish(&mut self) -> Option<String> {
        let topic = self.visit.person().any_topic();
        let random = self.visit.random();
        let key = (random.below(2) == 0).then(|| format!("k{}", random.below(6)));
        let once = (random.below(6) == 0).then(|| format!("o{}", random.below(12)));
        let answered = once.is_some() || random.below(3) > 0;
        let society = Rc::clone(&self.visit.society);
        let mut own = self.visit.random().fork();
        let most = society.setup.message_most;
        let session = self.visit.session;
        let mut judge = society.judge.borrow_mut();
        let (id, format, payload) = judge.publish(session, &topic, key.as_deref(), most, &mut own);
        if let Some(once) = &once {
            judge.once(id, once, Publisher::Clients);
        }
        drop(judge);
        let mut text = format!(r#"{{"op":"publish","topic":"{topic}""#);
        if answered {
            let number = self.expect(Asked::Publish { id, once: once.clone() });
            text += &format!(r#","id":{number}"#);
        } else {
            self.unacknowledged = true;
        }
        text += &content(format, &payload);
        if let Some(key) = key {
            text += &format!(r#","key":"{key}""#);
        }
        if let Some(once) = once {
            text += &format!(r#","once":"{once}""#);
        }
        Some(text + "}")
    }

    fn publish_raw(&mut self, topic: &str) {
        let mut own = self.visit.random().fork();
        let society = Rc::clone(&self.visit.society);
        let most = society.setup.message_most;
        let session = self.visit.session;
        // What goes as text is no JSON here, whatever it looks like.
        loop {
            let published = society.judge.borrow_mut().publish(session, topic, None, most, &mut own);
            let (_, format, payload) = published;
            match format {
                Format::Json => continue,
                Format::Text => self.frame(TEXT, &payload),
                Format::Binary => self.frame(BINARY, &payload),
            }
            return;
        }
    }

    fn ask(&mut self) -> Option<String> {
        let topic = self.visit.person().any_topic();
        if setup::has_presence(&topic) && self.visit.random().below(2) == 0 {
            let id = self.expect(Asked::Presence);
            return Some(format!(r#"{{"op":"presence","id":{id},"topic":"{topic}"}}"#));
        }
        if !setup::has_history(&topic) {
            return None;
        }
        let before = (self.visit.random().below(2) == 0).then(|| self.visit.random().below(40));
        let limit = self.visit.random().below(20);
        let id = self.expect(Asked::History { topic: topic.clone(), before });
        let before = before.map_or_else(String::new, |before| format!(r#","before":{before}"#));
        Some(format!(r#"{{"op":"history","id":{id},"topic":"{topic}","limit":{limit}{before}}}"#))
    }

    /// Something wrong.
    fn err(&mut self) {
        match self.visit.random().below(16) {
            0 => {
                self.loose.push("invalid_json");
                self.frame(TEXT, b"{\"op\":\"subscribe\",");
            }
            1 => {
                self.loose.push("binary");
                self.frame(BINARY, b"\0\x01\x02");
            }
            _ => {
                let (text, code) = *self.visit.random().pick(&WRONG);
                let id = self.expect(Asked::Wrong(code));
                self.frame(TEXT, text.replace("ID", &id.to_string()).as_bytes());
            }
        }
    }
}

/// The field of a publication's content.
pub(crate) fn content(format: Format, payload: &[u8]) -> String {
    let text = || String::from_utf8(payload.to_vec()).expect("it was written as text");
    match format {
        Format::Json => format!(r#","data":{}"#, text()),
        Format::Text => format!(r#","text":"{}""#, text()),
        Format::Binary => format!(r#","base64":"{}""#, codec::base64(payload)),
    }
}
