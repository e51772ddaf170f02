//! Clients that ask with requests of HTTP: a poller, a publisher, and the probe that asks in the end where each topic is.

use std::rc::Rc;

use tidegate_hub::{Position, delivery::Event};

use super::{
    super::net::{Actor, ActorId, Excuse, MILLIS, Net, SECONDS},
    body::Answers,
    judge::{Format, Publisher},
    routes::Kind,
    setup::{PUBLISH_KEYS, TOPICS, conflates, has_presence},
    society::{PATIENCE, Person, Role, Society, Stage, Visit},
    socket::content,
    told::{Told, position_text},
};

/// What it waits for.
#[derive(Debug)]
enum Asked {
    Poll {
        session: u64,
        topics: Vec<(String, Option<Position>)>,
        waits: bool,
    },
    /// Publications, with their idempotency keys.
    Post(Vec<(u64, Option<String>)>),
    State(String),
}

pub(crate) struct Requester {
    visit: Visit,
    probe: bool,
    /// Requests that are left.
    left: u32,
    next_topic: usize,
    asked: Option<Asked>,
    answers: Answers,
    pause: u64,
    /// The connection ends behind its last answer.
    closing: bool,
}

impl Requester {
    pub(crate) fn new(society: &Rc<Society>, mut person: Person, start: u64) -> Requester {
        let left = person.random.range(1..=12) as u32;
        Requester {
            visit: Visit::new(society, person, start),
            probe: false,
            left,
            next_topic: 0,
            asked: None,
            answers: Answers::default(),
            pause: 0,
            closing: false,
        }
    }

    /// Asks where each topic is.
    pub(crate) fn probe(society: &Rc<Society>, person: Person, start: u64) -> Requester {
        let mut probe = Requester::new(society, person, start);
        probe.probe = true;
        probe.left = TOPICS.len() as u32;
        probe.visit.kind = Kind::Topics;
        probe
    }

    fn fail(&self, what: &str) -> ! {
        panic!("{}: {what}", self.describe());
    }

    fn ask(&mut self) {
        self.left -= 1;
        self.visit.look();
        let request = match (self.probe, self.visit.person().role) {
            (true, _) => {
                let topic = TOPICS[self.next_topic];
                self.next_topic += 1;
                self.asked = Some(Asked::State(topic.to_string()));
                format!("GET /topics/{topic} HTTP/1.1\r\nHost: gw.test\r\n\r\n").into_bytes()
            }
            (false, Role::Poller) => self.poll(),
            (false, _) => self.post(),
        };
        self.visit.send(&request);
        if self.left == 0 && !self.probe && self.visit.random().below(4) == 0 {
            // It reads on for its answer.
            self.visit.finish();
            self.closing = true;
        }
    }

    fn poll(&mut self) -> Vec<u8> {
        let mut topics: Vec<(String, Option<Position>)> = Vec::new();
        for _ in 0..self.visit.random().size(1..=3) {
            let topic = self.visit.person().any_topic();
            if topics.iter().all(|(known, _)| *known != topic) {
                let at = self.visit.person().recovery(&topic);
                topics.push((topic, at));
            }
        }
        let all = topics.iter().all(|(_, at)| at.is_some());
        let names: Vec<String> = topics.iter().map(|(topic, _)| format!("topic={topic}")).collect();
        let mut query = names.join("&");
        if all {
            let positions: Vec<String> = topics.iter().filter_map(|(_, at)| at.map(position_text)).collect();
            query += &format!("&position={}", positions.join(","));
        } else {
            topics.iter_mut().for_each(|(_, at)| *at = None);
        }
        let random = self.visit.random();
        let wait = *random.pick(&[0, 1, 3, 25]);
        query += &format!("&wait={wait}");
        if random.below(3) == 0 {
            query += &format!("&history={}", random.range(1..=12));
        }
        if random.below(3) == 0 {
            let name = format!("poller-{}", self.visit.person().name);
            query += &format!("&client={name}");
            let mut presence = self.visit.society.presence.borrow_mut();
            topics.iter().for_each(|(topic, _)| presence.name(topic, &name));
        }
        let session = self.visit.society.judge.borrow_mut().number();
        self.asked = Some(Asked::Poll { session, topics, waits: all && wait > 0 });
        format!("GET /poll?{query} HTTP/1.1\r\nHost: gw.test\r\n\r\n").into_bytes()
    }

    fn post(&mut self) -> Vec<u8> {
        let society = Rc::clone(&self.visit.society);
        let session = self.visit.session;
        let most = society.setup.message_most;
        // Without an answer nobody knows for how long it was under way.
        let publisher = match self.publisher() {
            Publisher::Holder { key, from, to } => Publisher::Holder { key, from, to: to + 1 },
            other => other,
        };
        let one = self.visit.random().below(2) == 0;
        let count = if one { 1 } else { self.visit.random().size(1..=8) };
        let mut posted = Vec::new();
        let mut objects = Vec::new();
        let mut fields = String::new();
        let mut path = "/publish".to_string();
        let mut body = Vec::new();
        for _ in 0..count {
            let topic = self.visit.person().any_topic();
            let random = self.visit.random();
            let key = (random.below(2) == 0).then(|| format!("k{}", random.below(6)));
            let once = (random.below(4) == 0).then(|| format!("o{}", random.below(12)));
            let mut own = random.fork();
            let mut judge = society.judge.borrow_mut();
            let (id, format, payload) = judge.publish(session, &topic, key.as_deref(), most, &mut own);
            if let Some(once) = &once {
                judge.once(id, once, publisher);
            }
            drop(judge);
            posted.push((id, once.clone()));
            if one {
                path += &format!("/{topic}");
                let media = match format {
                    Format::Json => "application/json",
                    Format::Text => "text/plain; charset=utf-8",
                    Format::Binary => "application/octet-stream",
                };
                fields = format!("Content-Type: {media}\r\n");
                if let Some(key) = key {
                    fields += &format!("Tidegate-Key: {key}\r\n");
                }
                if let Some(once) = once {
                    fields += &format!("Idempotency-Key: {once}\r\n");
                }
                body = payload;
            } else {
                let mut object = format!(r#"{{"topic":"{topic}"{}"#, content(format, &payload));
                if let Some(key) = key {
                    object += &format!(r#","key":"{key}""#);
                }
                if let Some(once) = once {
                    object += &format!(r#","once":"{once}""#);
                }
                objects.push(object + "}");
            }
        }
        if !one {
            fields = "Content-Type: application/json\r\n".to_string();
            body = format!("[{}]", objects.join(",")).into_bytes();
        }
        self.asked = Some(Asked::Post(posted));
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: gw.test\r\nAuthorization: Bearer {}\r\n{fields}Content-Length: {}\r\n\r\n",
            PUBLISH_KEYS[self.key()],
            body.len()
        );
        [head.as_bytes(), &body].concat()
    }

    /// The place of its key.
    fn key(&self) -> usize {
        self.visit.person_ref().name as usize % PUBLISH_KEYS.len()
    }

    /// Whose idempotency keys it has, as far as it knows which route takes them.
    fn publisher(&self) -> Publisher {
        if !self.visit.society.setup.has_publish_keys() {
            return Publisher::Clients;
        }
        let (asked, now) = (self.visit.seen, self.visit.society.routes.borrow().seen(Kind::Publish));
        let from = asked.removals - usize::from(!asked.here);
        Publisher::Holder { key: self.key() as u64, from, to: now.removals }
    }

    // ---- answers

    fn answer(&mut self, net: &mut Net, status: u16, body: &[u8]) {
        let Some(asked) = self.asked.take() else { self.fail(&format!("an answer to nothing: {status}")) };
        let few = self.visit.society.setup.few_topics;
        let departed = self.visit.is_departed();
        if departed && matches!(asked, Asked::Poll { waits: true, .. }) {
            net.cover(format!("requester: a departed poll is answered with {status}"));
        }
        // Its route is gone, or goes before it can say anything.
        if self.closing {
            net.cover(format!("requester: answered with {status} behind its FIN"));
        }
        if departed && (status == 404 || status == 503 && !body.starts_with(b"{\"results\"")) {
            net.cover(format!("requester: departed with {status}"));
            (self.closing, self.left) = (true, 0);
            return;
        }
        match asked {
            // In time, or not: the clock has jumped, or it drains.
            asked if matches!(status, 408 | 503) && self.visit.excused.is_some() => drop(asked),
            Asked::Poll { .. } if status == 429 && few => {}
            Asked::Poll { session, topics, .. } if status == 200 => self.polled(session, &topics, body),
            Asked::Post(posted) if matches!(status, 200 | 207 | 429 | 503 | 504) => {
                self.posted(&posted, status, body);
            }
            Asked::State(topic) if status == 200 => {
                let told = Told::read(body);
                assert_eq!((&told.topic, told.present.is_some()), (&topic, has_presence(&topic)));
                if let Some(count) = told.present {
                    self.visit.society.presence.borrow_mut().counted.insert(topic.clone(), count);
                }
                let newest = &mut self.visit.society.newest.borrow_mut();
                // One that does not exist has no position.
                newest.insert(topic, told.epoch.is_some().then(|| told.at()));
            }
            asked => {
                self.fail(&format!("an answer of {status} to {asked:?}: {}", String::from_utf8_lossy(body)))
            }
        }
    }

    /// Each poll is a session of its own.
    fn polled(&mut self, session: u64, topics: &[(String, Option<Position>)], body: &[u8]) {
        let told = Told::read(body);
        assert_eq!(told.topics.len(), topics.len(), "{told:?}");
        let mut positions = Vec::new();
        for (standing, (topic, asked)) in told.topics.iter().zip(topics) {
            assert_eq!(standing.topic, *topic);
            let position = standing.at();
            assert_eq!(standing.recovered.is_some(), asked.is_some(), "{standing:?}");
            positions.push(position_text(position));
            // Of a state that an answer has no room for the rest comes with the next poll, and with it what is newer of a key.
            let in_part = conflates(topic) && standing.recovered == Some(true);
            let recovered = asked.zip(standing.recovered).filter(|_| !in_part);
            self.visit.observe(Event::Subscribed { session, topic: topic.clone(), position, recovered });
            self.visit.person().memory.insert(topic.clone(), position);
        }
        assert_eq!(told.position.as_deref(), Some(positions.join(",").as_str()));
        let society = Rc::clone(&self.visit.society);
        let mut judge = society.judge.borrow_mut();
        for message in told.messages.as_deref().unwrap_or_default() {
            let place = topics.iter().position(|(topic, _)| *topic == message.topic);
            let place = place.unwrap_or_else(|| panic!("a message of another topic: {message:?}"));
            let epoch = told.topics[place].at().epoch;
            let (format, payload) = message.content();
            let id = judge.identify(format, &payload);
            judge.receipt(session, &message.topic, Some(epoch), message.offset.expect("an offset"), id);
        }
        // All up to the positions that it was told has come, or was said to be lost.
        for (standing, (topic, asked)) in told.topics.iter().zip(topics) {
            let last = |message: &&Told<'_>| message.topic == *topic;
            let messages = told.messages.as_deref().unwrap_or_default();
            let newest = messages.iter().filter(last).filter_map(|message| message.offset).max();
            if let (Some(asked), Some(true)) = (asked, standing.recovered) {
                assert_eq!(
                    newest.unwrap_or(asked.offset),
                    standing.at().offset,
                    "{topic} from {asked:?} of {told:?}"
                );
            }
        }
        judge.observe(Event::Ended { session });
    }

    fn posted(&mut self, posted: &[(u64, Option<String>)], status: u16, body: &[u8]) {
        let told = Told::read(body);
        let excused = self.visit.excused.is_some();
        let society = Rc::clone(&self.visit.society);
        let few = society.setup.few_topics;
        let publisher = self.publisher();
        let mut judge = society.judge.borrow_mut();
        for (id, once) in posted {
            if let Some(once) = once {
                judge.once(*id, once, publisher);
            }
        }
        let Some(results) = told.results else { panic!("{status} without results: {told:?}") };
        assert_eq!(results.len(), posted.len(), "{results:?}");
        for (result, (id, once)) in results.iter().zip(posted) {
            if let Some(error) = &result.error {
                let code = error.code.as_str();
                // The clock has jumped: whether it was published is seen by those who get it.
                if code == "unknown" && excused {
                    *judge.gaps.entry("outcome unknown").or_default() += 1;
                    continue;
                }
                assert!(code == "busy" || (code == "too_many" && few), "{error:?}");
                judge.refused(*id);
            } else {
                assert_eq!((result.level.as_str(), result.topic.as_str()), ("accepted", judge.topic_of(*id)));
                society.has_gone_on();
                judge.accepted(*id, once.as_deref(), result.at(), result.duplicate);
            }
        }
    }

    fn leave(&mut self, net: &mut Net) {
        if let Some(Asked::Poll { session, .. }) = self.asked.take() {
            self.visit.observe(Event::Ended { session });
        }
        let reset = self.visit.random().below(3) == 0;
        self.visit.leave(net, reset);
    }

    fn live(&mut self, net: &mut Net, me: ActorId) {
        if self.visit.stage() == Stage::Leaving {
            return self.leave(net);
        }
        if self.asked.is_some() {
            // Some do not wait for their answers.
            let gives_up = !self.probe && self.visit.random().below(200) == 0;
            if gives_up {
                net.cover("requester: gives up".to_string());
                self.leave(net);
            }
            return;
        }
        let calm = self.visit.stage() == Stage::Calm && !self.probe;
        if self.left == 0 || calm {
            net.cover(format!("requester: {:?} is done", self.visit.person().role));
            return self.leave(net);
        }
        if net.now < self.pause {
            return net.wake_at(me, self.pause);
        }
        let pause = *self.visit.random().pick(&[0, MILLIS, 300 * MILLIS]);
        self.pause = net.now + pause;
        self.ask();
    }
}

impl Actor for Requester {
    fn poke(&mut self, net: &mut Net, me: ActorId) {
        if net.now < self.visit.start {
            return net.wake_at(me, self.visit.start);
        }
        if !self.visit.has_dialed() {
            if self.visit.stage() != Stage::Busy && !self.probe {
                return self.leave(net);
            }
            self.visit.dial(net, me);
        }
        let (plain, end) = self.visit.receive(net, me);
        self.answers.push(&plain);
        while let Some((status, body)) = self.answers.next() {
            self.answer(net, status, &body);
        }
        if let Some(end) = end {
            // A poll whose news are more than there is memory for ends without an answer.
            let polls = matches!(self.asked, Some(Asked::Poll { .. })) && self.visit.society.is_short();
            let may_be_cut = matches!(self.asked, Some(Asked::Post(_)));
            let cut = may_be_cut && self.visit.may_be_cut(net.now);
            if cut {
                net.cover("requester: cut off".to_string());
            }
            let closing = self.closing && self.asked.is_none();
            if self.visit.excused.is_none() && !polls && !cut && !closing {
                self.fail(&format!("the connection ended: {end:?}"));
            }
            return self.leave(net);
        }
        let conn = self.visit.link.as_ref().map(|link| link.conn).expect("it has dialed");
        if net.conns[conn].established {
            self.live(net, me);
        }
        if self.visit.done {
            return;
        }
        self.visit.flush(net, me);
        let owed = self.asked.is_some();
        if self.visit.watch(net, me, owed) {
            self.fail(&format!("no answer for {} s", PATIENCE / SECONDS));
        }
    }

    fn excuse(&mut self, why: Excuse) {
        self.visit.excuse(why);
    }

    fn is_done(&self) -> bool {
        self.visit.done
    }

    fn describe(&self) -> String {
        format!("requester {} asked {:?}, {} left", self.visit.describe(), self.asked, self.left)
    }
}
