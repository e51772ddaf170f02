//! What was published and what came of it: the delivery checker's author, and who knows each message by its content.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tidegate_hub::{
    Epoch, Position,
    delivery::{Checker, Event, Summary, story},
};

use super::{
    super::random::{Random, splitmix64},
    setup::conflates,
};

/// As a publication is wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Text,
    Binary,
}

#[derive(Debug)]
struct Posted {
    topic: String,
    format: Format,
    payload: Vec<u8>,
}

/// Who has idempotency keys of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Publisher {
    /// All clients together: who comes back on another connection tries with the same keys.
    Clients,
    /// Who has a route's key. Of a route that was taken away and has come back it is another: one that had been taken away so often
    /// at least, and at most.
    Holder { key: u64, from: usize, to: usize },
}

impl Publisher {
    fn may_be(self, other: Publisher) -> bool {
        match (self, other) {
            (Publisher::Holder { key, from, to }, Publisher::Holder { key: other, from: low, to: high }) => {
                key == other && from <= high && low <= to
            }
            _ => self == other,
        }
    }
}

/// Tries with one idempotency key on one topic.
#[derive(Debug, Default)]
struct Once {
    ids: BTreeMap<u64, Publisher>,
    /// Where a duplicate was said to be, and to whom.
    duplicates: BTreeSet<(u32, u64, Publisher)>,
}

pub(crate) struct Judge {
    checker: Checker,
    story: Vec<Event>,
    secret: u64,
    posted: HashMap<u64, Posted>,
    next: u64,
    /// What is where, as far as anybody was told.
    places: HashMap<(String, u32, u64), u64>,
    once: BTreeMap<(String, String), Once>,
    /// What sessions of raw topics got, who are told of no offset: by session, in order.
    raw: BTreeMap<u64, (String, Vec<u64>)>,
    /// Messages and gaps that came.
    pub(crate) heard: u64,
    /// Topics of which somebody was told a gap because the gateway was busy.
    pub(crate) gaps: BTreeMap<&'static str, u64>,
}

impl Judge {
    pub(crate) fn new(secret: u64) -> Judge {
        Judge {
            checker: Checker::new(conflates),
            story: Vec::new(),
            secret,
            posted: HashMap::new(),
            next: 1,
            places: HashMap::new(),
            once: BTreeMap::new(),
            raw: BTreeMap::new(),
            heard: 0,
            gaps: BTreeMap::new(),
        }
    }

    /// A number that nobody else has.
    pub(crate) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// # Panics
    /// Where it breaks a promise.
    pub(crate) fn observe(&mut self, event: Event) {
        if matches!(event, Event::Receipt { .. } | Event::Gap { .. }) {
            self.heard += 1;
        }
        let result = self.checker.observe(&event);
        self.story.push(event);
        if let Err(broken) = result {
            panic!("{broken}\n{}", self.story());
        }
    }

    /// The end: nothing is on its way. `newest`: where each topic is.
    ///
    /// # Panics
    /// Where a promise is broken.
    pub(crate) fn finish(&mut self, newest: &BTreeMap<String, Position>) -> Summary {
        let summary = self.checker.finish(|topic| newest.get(topic).copied());
        summary.unwrap_or_else(|broken| {
            let session = broken.detail.strip_prefix("session ").map_or(0, |rest| number(rest.as_bytes()));
            panic!("{broken}\n{}", story(&self.story, &Event::Ended { session }, 30))
        })
    }

    /// Whether what was said of duplicates is so, as far as it is known.
    pub(crate) fn check_once(&self) {
        for ((topic, once), tries) in &self.once {
            for &(epoch, offset, publisher) in &tries.duplicates {
                let first = self.places.get(&(topic.clone(), epoch, offset));
                let is_own = |first: &u64| tries.ids.get(first).is_some_and(|other| publisher.may_be(*other));
                assert!(
                    first.is_none_or(is_own),
                    "{topic}: a duplicate of {once:?} by {publisher:?} is said to be {offset}, which is {first:?} by {:?}",
                    first.and_then(|first| tries.ids.get(first))
                );
            }
        }
    }

    /// Whether sessions of raw topics got all that was published while they were there, in order, where nothing may be left out
    /// for the slow: what could not be told ends such a session. Gives of how many messages that was seen.
    pub(crate) fn check_raw(&self, is_whole: impl Fn(&str) -> bool) -> u64 {
        let offsets: HashMap<u64, (u32, u64)> =
            self.places.iter().map(|((_, epoch, offset), id)| (*id, (*epoch, *offset))).collect();
        let mut judged = 0;
        for (session, (topic, ids)) in self.raw.iter().filter(|(_, (topic, _))| is_whole(topic)) {
            for pair in ids.windows(2) {
                // Not all publishers were told.
                let (Some(one), Some(next)) = (offsets.get(&pair[0]), offsets.get(&pair[1])) else {
                    continue;
                };
                assert_eq!((one.0, one.1 + 1), *next, "raw session {session}, {topic}: {pair:?}");
                judged += 1;
            }
        }
        judged
    }

    pub(crate) fn summary(&self) -> Summary {
        self.checker.summary()
    }

    fn mac(&self, id: u64, topic: &str, format: Format) -> u64 {
        let start = splitmix64(self.secret ^ id.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ format as u64);
        topic.bytes().fold(start, |mac, byte| splitmix64(mac ^ u64::from(byte)))
    }

    /// Somebody is about to publish something new; its number and its content.
    pub(crate) fn publish(
        &mut self,
        publisher: u64,
        topic: &str,
        key: Option<&str>,
        most: usize,
        random: &mut Random,
    ) -> (u64, Format, Vec<u8>) {
        let id = self.number();
        let format = *random.pick(&[Format::Json, Format::Json, Format::Text, Format::Binary]);
        let mac = self.mac(id, topic, format);
        let len = random.size(0..=most);
        let pad: String = (0..len)
            .map(|place| char::from(b'a' + (splitmix64(mac ^ (place as u64 / 7)) % 26) as u8))
            .collect();
        let payload = match format {
            Format::Json => format!("{{\"id\":{id}, \"mac\":\"{mac:016x}\",\"pad\":\"{pad}\"}}").into_bytes(),
            Format::Text => format!("{id} {mac:016x} {pad}").into_bytes(),
            Format::Binary => [&id.to_le_bytes()[..], &mac.to_le_bytes(), pad.as_bytes()].concat(),
        };
        let posted = Posted { topic: topic.to_string(), format, payload: payload.clone() };
        self.posted.insert(id, posted);
        let key = key.map(str::to_string);
        self.observe(Event::Publish { publisher, topic: topic.to_string(), id, key });
        (id, format, payload)
    }

    /// An idempotency key goes with it.
    pub(crate) fn once(&mut self, id: u64, once: &str, publisher: Publisher) {
        let topic = self.posted[&id].topic.clone();
        self.once.entry((topic, once.to_string())).or_default().ids.insert(id, publisher);
    }

    /// The publisher was told.
    pub(crate) fn accepted(&mut self, id: u64, once: Option<&str>, position: Position, duplicate: bool) {
        let topic = self.posted[&id].topic.clone();
        if duplicate {
            let once = once.expect("a duplicate, though it has no idempotency key");
            let tries = self.once.get_mut(&(topic, once.to_string())).expect("it was tried");
            let publisher = tries.ids[&id];
            tries.duplicates.insert((position.epoch.0, position.offset, publisher));
            self.observe(Event::Refused { id });
        } else {
            self.place(&topic, position, id);
            self.observe(Event::Published { id, position });
        }
    }

    pub(crate) fn refused(&mut self, id: u64) {
        self.observe(Event::Refused { id });
    }

    /// Which message this is.
    ///
    /// # Panics
    /// Where it is none, or was changed.
    pub(crate) fn identify(&self, format: Format, bytes: &[u8]) -> u64 {
        let id = match format {
            Format::Json => number(bytes.get(6..).unwrap_or_default()),
            Format::Text => number(bytes),
            Format::Binary => bytes.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)).unwrap_or_default(),
        };
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]);
        let Some(posted) = self.posted.get(&id) else { panic!("nobody has published {format:?} {shown:?}") };
        let mac = self.mac(id, &posted.topic, format);
        let sealed = match format {
            Format::Json | Format::Text => find(bytes, format!("{mac:016x}").as_bytes()),
            Format::Binary => bytes.get(8..16) == Some(&mac.to_le_bytes()),
        };
        assert!(sealed, "a message with a wrong MAC: {format:?} {shown:?}");
        assert!(posted.format == format && posted.payload == bytes, "message {id} was changed: {shown:?}");
        id
    }

    /// Where a message was published to.
    pub(crate) fn topic_of(&self, id: u64) -> &str {
        &self.posted[&id].topic
    }

    /// Somebody was told that this message stands there.
    pub(crate) fn place(&mut self, topic: &str, position: Position, id: u64) {
        assert_eq!(self.posted[&id].topic, topic, "message {id} is said to be in another topic");
        let before = self.places.insert((topic.to_string(), position.epoch.0, position.offset), id);
        assert!(before.is_none_or(|before| before == id), "{topic} {position:?} is {id} and {before:?}");
    }

    /// A session of a raw topic got a message.
    pub(crate) fn raw_receipt(&mut self, session: u64, topic: &str, id: u64) {
        self.heard += 1;
        self.raw.entry(session).or_insert_with(|| (topic.to_string(), Vec::new())).1.push(id);
    }

    /// A session got a message.
    pub(crate) fn receipt(&mut self, session: u64, topic: &str, epoch: Option<Epoch>, offset: u64, id: u64) {
        if let Some(epoch) = epoch {
            self.place(topic, Position { epoch, offset }, id);
        }
        self.observe(Event::Receipt { session, topic: topic.to_string(), epoch, offset, id });
    }

    /// What those concerned by the last event have seen.
    fn story(&self) -> String {
        self.story.last().map_or_else(String::new, |last| story(&self.story, last, 12))
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .fold(0, |number: u64, byte| number.wrapping_mul(10).wrapping_add(u64::from(byte - b'0')))
}

fn find(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}
