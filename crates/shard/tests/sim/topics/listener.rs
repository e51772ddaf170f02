//! A client of server-sent events (HTML Standard §9.2): it reads a stream, and comes back with its last event's id.

use std::rc::Rc;

use tidegate_hub::{Position, delivery::Event};

use super::{
    super::{
        link::End,
        net::{Actor, ActorId, Excuse, MILLIS, Net, SECONDS},
    },
    body::Answers,
    setup,
    society::{Person, Society, Stage, Visit},
    told::{Told, position_of, position_text},
};

pub(crate) struct Listener {
    visit: Visit,
    /// Topics and patterns, in the order of the request, with how far each was told.
    topics: Vec<(String, Option<Position>)>,
    asked: Vec<Option<Position>>,
    answers: Answers,
    begun: bool,
    chunked: bool,
    /// When it goes, if ever; what it does until then.
    goes: Option<u64>,
    halts: Option<u64>,
}

impl Listener {
    pub(crate) fn new(society: &Rc<Society>, mut person: Person, start: u64) -> Listener {
        let mut topics: Vec<(String, Option<Position>)> = Vec::new();
        for _ in 0..person.random.size(1..=4) {
            let topic = match person.random.below(6) {
                0 => (*person.random.pick(&setup::PATTERNS)).to_string(),
                _ => person.any_topic(),
            };
            if topics.iter().all(|(known, _)| *known != topic) {
                topics.push((topic, None));
            }
        }
        let goes = (person.random.below(3) == 0).then(|| person.random.below(6 * SECONDS));
        let halts = (person.random.below(2) == 0).then(|| person.random.below(3 * SECONDS));
        let chunked = person.random.below(4) > 0;
        Listener {
            visit: Visit::new(society, person, start),
            topics,
            asked: Vec::new(),
            answers: Answers::default(),
            begun: false,
            chunked,
            goes: goes.map(|time| start + time),
            halts: halts.map(|time| start + time),
        }
    }

    fn fail(&self, what: &str) -> ! {
        panic!("{}: {what}", self.describe());
    }

    fn request(&mut self) -> Vec<u8> {
        let mut asked = Vec::new();
        for (topic, _) in &self.topics {
            asked.push(self.visit.person().recovery(topic));
        }
        // An id has all that are not patterns, or there is none.
        let named = |(topic, _): &&(String, Option<Position>)| !topic.contains('*');
        let all =
            self.topics.iter().zip(&asked).filter(|(topic, _)| named(topic)).all(|(_, at)| at.is_some());
        let query: Vec<String> = self.topics.iter().map(|(topic, _)| format!("topic={topic}")).collect();
        let mut query = query.join("&");
        if self.visit.random().below(3) == 0 {
            query += &format!("&history={}", self.visit.random().range(1..=12));
        }
        if self.visit.random().below(3) == 0 {
            let name = format!("listener-{}", self.visit.session);
            query += &format!("&client={name}");
            let mut presence = self.visit.society.presence.borrow_mut();
            self.topics.iter().for_each(|(topic, _)| presence.name(topic, &name));
        }
        let version = if self.chunked { "1.1" } else { "1.0" };
        let mut field = String::new();
        if all {
            let id: Vec<String> =
                asked.iter().map(|at| at.map_or_else(|| "-".to_string(), position_text)).collect();
            field = format!("Last-Event-ID: {}\r\n", id.join(","));
            self.asked = asked;
        } else {
            self.asked = vec![None; self.topics.len()];
        }
        format!(
            "GET /events?{query} HTTP/{version}\r\nHost: gw.test\r\nAccept: text/event-stream\r\n{field}\r\n"
        )
        .into_bytes()
    }

    fn may_be_slow(&self) -> bool {
        let disconnects = |filter: &str| {
            setup::TOPICS.iter().any(|topic| setup::matches(filter, topic) && setup::disconnects(topic))
        };
        self.topics.iter().any(|(filter, _)| disconnects(filter))
    }

    fn receive(&mut self, net: &mut Net, me: ActorId) {
        let (plain, end) = self.visit.receive(net, me);
        self.answers.push(&plain);
        match self.answers.status() {
            Some(200) => self.events(),
            Some(status) => {
                let few = status == 429 && self.visit.society.setup.few_topics;
                let excused = status == 503 && self.visit.excused.is_some();
                let departed = matches!(status, 404 | 503) && self.visit.is_departed();
                if !few && !excused && !departed {
                    self.fail(&format!("an answer of {status}"));
                }
                net.cover(format!("listener: status {status}"));
                return self.leave(net, false);
            }
            None => {}
        }
        if let Some(end) = end {
            let fit = self.visit.excused.is_some() || self.may_be_slow() || self.visit.society.is_short();
            // All that ends in order has its last chunk.
            let whole = end == End::Eof && self.begun && (!self.chunked || self.answers.is_over());
            let departed = self.visit.is_departed() && (whole || self.visit.may_be_cut(net.now));
            if !fit && !departed {
                self.fail(&format!("the stream ended: {end:?}"));
            }
            if departed && whole {
                net.cover("listener: departed".to_string());
            }
            net.cover(format!("listener: {}", if end == End::Eof { "ended" } else { "cut" }));
            self.leave(net, false);
        }
    }

    fn events(&mut self) {
        let body = self.answers.body();
        let mut events = Vec::new();
        while let Some(end) = body.windows(2).position(|window| window == b"\n\n") {
            let event: Vec<u8> = body.drain(..end + 2).collect();
            events.push(String::from_utf8(event).expect("events are UTF-8"));
        }
        for event in events {
            self.event(&event);
        }
    }

    fn event(&mut self, text: &str) {
        let (mut id, mut kind, mut data) = (None, "message", None);
        for line in text.lines().filter(|line| !line.is_empty()) {
            match line.split_once(": ") {
                _ if line.starts_with(':') => {}
                Some(("id", value)) => id = Some(value),
                Some(("event", value)) => kind = value,
                Some(("data", value)) if data.is_none() => data = Some(value),
                _ => self.fail(&format!("a line {line:?}")),
            }
        }
        let Some(data) = data else {
            assert!(id.is_none(), "an event without data: {text:?}");
            return;
        };
        let told = Told::read(data.as_bytes());
        match kind {
            "subscribed" => self.subscribed(&told, id.unwrap_or_default()),
            "message" => self.message(&told),
            "gap" => self.gap(&told),
            _ => self.fail(&format!("an event {kind:?}")),
        }
        self.check_id(id.unwrap_or_else(|| panic!("no id: {text:?}")));
    }

    /// The id names the position in each topic.
    fn check_id(&self, id: &str) {
        let parts: Vec<&str> = id.split(',').collect();
        assert_eq!(parts.len(), self.topics.len(), "an id {id:?}");
        for ((topic, at), part) in self.topics.iter().zip(parts) {
            let right = match at {
                None => part == "-",
                Some(at) => position_of(part) == *at,
            };
            assert!(right, "{topic} is at {at:?}, the id is {id:?}");
        }
    }

    fn subscribed(&mut self, told: &Told<'_>, id: &str) {
        if self.begun || told.topics.len() != self.topics.len() {
            self.fail(&format!("not what it has asked for: {told:?}"));
        }
        self.begun = true;
        let parts: Vec<&str> = id.split(',').collect();
        assert_eq!(parts.len(), self.topics.len(), "an id {id:?}");
        let session = self.visit.session;
        for (place, standing) in told.topics.iter().enumerate() {
            let topic = self.topics[place].0.clone();
            assert_eq!(standing.topic, topic);
            if topic.contains('*') {
                assert!(standing.epoch.is_none() && standing.recovered.is_none(), "{standing:?}");
                continue;
            }
            let position = standing.at();
            let asked = self.asked[place];
            assert_eq!(standing.recovered.is_some(), asked.is_some(), "{standing:?}");
            // What comes first is behind the id, and up to the position.
            let before = position_of(parts[place]);
            assert!(
                before.epoch == position.epoch && before.offset <= position.offset,
                "{id:?}: {standing:?}"
            );
            self.topics[place].1 = Some(before);
            let recovered = asked.zip(standing.recovered);
            self.visit.observe(Event::Subscribed { session, topic: topic.clone(), position, recovered });
            self.visit.person().memory.insert(topic, before);
        }
        if told.topics.iter().any(|standing| standing.epoch.is_none()) {
            let filters = self.topics.iter().map(|(filter, _)| filter);
            let patterns = filters.filter(|filter| filter.contains('*')).cloned().collect();
            self.visit.observe(Event::Patterns { session, patterns });
        }
    }

    /// The place of a topic, where it stands by its name.
    fn place(&self, topic: &str) -> Option<usize> {
        assert!(self.begun, "something before the beginning");
        let place = self.topics.iter().position(|(name, _)| name == topic);
        if place.is_none() && !self.topics.iter().any(|(filter, _)| setup::matches(filter, topic)) {
            self.fail(&format!("something of {topic}"));
        }
        place
    }

    fn moved(&mut self, place: Option<usize>, offset: u64) {
        if let Some(place) = place {
            let (topic, at) = &mut self.topics[place];
            let at = at.as_mut().expect("it is by name");
            at.offset = offset;
            let (topic, at) = (topic.clone(), *at);
            self.visit.person().remember(&topic, at);
        }
    }

    fn message(&mut self, told: &Told<'_>) {
        let place = self.place(&told.topic);
        let epoch = place.and_then(|place| self.topics[place].1).map(|at| at.epoch);
        let offset = told.offset.expect("a message has an offset");
        // Line ends of JSON are the stream's own; there are none here.
        let (format, payload) = told.content();
        let society = Rc::clone(&self.visit.society);
        let mut judge = society.judge.borrow_mut();
        let id = judge.identify(format, &payload);
        judge.receipt(self.visit.session, &told.topic, epoch, offset, id);
        drop(judge);
        self.moved(place, offset);
    }

    fn gap(&mut self, told: &Told<'_>) {
        let place = self.place(&told.topic);
        let (Some(from), Some(to)) = (told.from, told.to) else { self.fail(&format!("{told:?}")) };
        self.visit.observe(Event::Gap { session: self.visit.session, topic: told.topic.clone(), from, to });
        self.moved(place, to);
    }

    fn leave(&mut self, net: &mut Net, reset: bool) {
        self.visit.observe(Event::Ended { session: self.visit.session });
        self.visit.leave(net, reset);
    }

    fn live(&mut self, net: &mut Net, me: ActorId) {
        match self.visit.stage() {
            Stage::Leaving => self.leave(net, false),
            Stage::Calm if self.begun => self.visit.rest(),
            Stage::Calm => {}
            Stage::Busy => {
                if let Some(time) = self.goes {
                    if net.now >= time {
                        net.cover("listener: goes".to_string());
                        let reset = self.visit.random().below(2) == 0;
                        return self.leave(net, reset);
                    }
                    net.wake_at(me, time);
                } else if self.begun {
                    self.visit.rest();
                }
                if let Some(time) = self.halts {
                    if net.now >= time {
                        self.halts = None;
                        let pause = *self.visit.random().pick(&[100 * MILLIS, SECONDS, 8 * SECONDS]);
                        self.visit.halted = net.now + pause;
                        net.wake_at(me, self.visit.halted);
                        net.cover("listener: halted".to_string());
                    } else {
                        net.wake_at(me, time);
                    }
                }
            }
        }
    }
}

impl Actor for Listener {
    fn poke(&mut self, net: &mut Net, me: ActorId) {
        if net.now < self.visit.start {
            return net.wake_at(me, self.visit.start);
        }
        if !self.visit.has_dialed() {
            if self.visit.stage() != Stage::Busy {
                return self.leave(net, false);
            }
            self.visit.dial(net, me);
            let request = self.request();
            self.visit.send(&request);
        }
        self.receive(net, me);
        if self.visit.done {
            return;
        }
        self.live(net, me);
        if self.visit.done {
            return;
        }
        self.visit.flush(net, me);
        let owed = !self.begun;
        if self.visit.watch(net, me, owed) {
            self.fail("no beginning for too long");
        }
    }

    fn excuse(&mut self, why: Excuse) {
        self.visit.excuse(why);
    }

    fn is_done(&self) -> bool {
        self.visit.done
    }

    fn describe(&self) -> String {
        format!("listener {} to {:?}, begun {}", self.visit.describe(), self.topics, self.begun)
    }
}
