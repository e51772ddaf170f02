//! A client of the protocol on a WebSocket: it subscribes, comes back with what it has, and publishes.

use std::collections::{HashMap, HashSet};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tidegate_hub::{Epoch, Filter, Position, TopicName, delivery::Event};

use crate::{
    harness::{client, frame::TEXT},
    ledger::{Checked, Draft, Format, Ledger, wrong},
    wire::{Message, Wire},
};

/// What a command was, for when its answer comes.
enum Asked {
    Subscribe { topic: String, recover: Option<Position> },
    Follow(String),
    Unsubscribe(String),
    Publish(u64),
    Ping,
}

pub(crate) struct Talker {
    path: &'static str,
    deflates: bool,
    /// What it wants: names and patterns.
    filters: Vec<String>,
    /// How far it was told of each topic, over all of its sessions.
    memory: HashMap<String, Position>,
    session: u64,
    is_upgraded: bool,
    is_greeted: bool,
    asked: HashMap<u64, Asked>,
    /// The epoch of each topic to which it is subscribed by name.
    epochs: HashMap<String, Epoch>,
    patterns: HashSet<String>,
    /// By pattern: how far it was told in this session.
    followed: HashMap<String, u64>,
    /// The code with which the gateway closed.
    pub(crate) closed: Option<u16>,
}

impl Talker {
    pub(crate) fn new(path: &'static str, filters: &[&str]) -> Talker {
        Talker {
            path,
            deflates: false,
            filters: filters.iter().map(|&filter| filter.to_owned()).collect(),
            memory: HashMap::new(),
            session: 0,
            is_upgraded: false,
            is_greeted: false,
            asked: HashMap::new(),
            epochs: HashMap::new(),
            patterns: HashSet::new(),
            followed: HashMap::new(),
            closed: None,
        }
    }

    pub(crate) fn that_inflates(self) -> Talker {
        Talker { deflates: true, ..self }
    }

    /// A new connection.
    pub(crate) fn begin(&mut self, wire: &mut Wire, session: u64) {
        self.session = session;
        (self.is_upgraded, self.is_greeted, self.closed) = (false, false, None);
        let extension = match self.deflates {
            true => "Sec-WebSocket-Extensions: permessage-deflate\r\n",
            false => "",
        };
        let fields = format!("Sec-WebSocket-Protocol: tidegate.v1\r\n{extension}");
        wire.send(&client::request(self.path, &fields));
    }

    /// The connection is over.
    pub(crate) fn end(&mut self, ledger: &mut Ledger) {
        for (_, asked) in self.asked.drain() {
            if let Asked::Publish(id) = asked {
                ledger.forget(id);
            }
        }
        self.epochs.clear();
        self.patterns.clear();
        self.followed.clear();
    }

    pub(crate) fn is_up(&self) -> bool {
        self.is_upgraded
    }

    /// Nothing that it asked is unanswered.
    pub(crate) fn is_idle(&self) -> bool {
        self.is_greeted && self.asked.is_empty()
    }

    pub(crate) fn may_publish(&self) -> bool {
        self.is_greeted && self.asked.len() < 256
    }

    /// Whether it was told of all that there is.
    pub(crate) fn has_all(&self, newest: &HashMap<String, Position>) -> bool {
        let by_name = self.epochs.keys().all(|topic| self.memory.get(topic) == newest.get(topic));
        by_name && self.followed.iter().all(|(topic, offset)| newest[topic].offset == *offset)
    }

    pub(crate) fn ping(&mut self, wire: &mut Wire, ledger: &mut Ledger) {
        let id = ledger.number();
        self.asked.insert(id, Asked::Ping);
        wire.say(TEXT, json!({ "op": "ping", "id": id }).to_string().as_bytes());
    }

    /// Publishes many at once.
    pub(crate) fn publish(&mut self, wire: &mut Wire, drafts: &[(&str, Draft)]) {
        let commands: Vec<String> = drafts
            .iter()
            .map(|(topic, draft)| {
                self.asked.insert(draft.id, Asked::Publish(draft.id));
                format!("{{\"op\":\"publish\",\"id\":{},{}}}", draft.id, fields_of(topic, draft))
            })
            .collect();
        wire.say(TEXT, format!("[{}]", commands.join(",")).as_bytes());
    }

    /// Takes its first subscription back, or asks for it again.
    pub(crate) fn turn_over(&mut self, wire: &mut Wire, ledger: &mut Ledger) {
        let Some(filter) = self.filters.first().cloned() else { return };
        if self.epochs.contains_key(&filter) || self.patterns.contains(&filter) {
            let id = ledger.number();
            wire.say(TEXT, json!({ "op": "unsubscribe", "id": id, "topic": filter }).to_string().as_bytes());
            self.asked.insert(id, Asked::Unsubscribe(filter));
        } else {
            self.subscribe(&filter, wire, ledger);
        }
        // Another one the next time.
        self.filters.rotate_left(1);
    }

    /// Asks for all that it wants and has not.
    pub(crate) fn subscribe_to_all(&mut self, wire: &mut Wire, ledger: &mut Ledger) {
        for filter in self.filters.clone() {
            if !self.epochs.contains_key(&filter) && !self.patterns.contains(&filter) {
                self.subscribe(&filter, wire, ledger);
            }
        }
    }

    fn subscribe(&mut self, filter: &str, wire: &mut Wire, ledger: &mut Ledger) {
        let id = ledger.number();
        let mut command = json!({ "op": "subscribe", "id": id, "topic": filter });
        if filter.contains('*') {
            self.asked.insert(id, Asked::Follow(filter.to_owned()));
        } else {
            let recover = self.memory.get(filter).copied();
            match recover {
                Some(at) => {
                    command["recover"] = json!({ "epoch": epoch_text(at.epoch), "offset": at.offset });
                }
                None => command["history"] = json!(3),
            }
            self.asked.insert(id, Asked::Subscribe { topic: filter.to_owned(), recover });
        }
        wire.say(TEXT, command.to_string().as_bytes());
    }

    /// What has come.
    pub(crate) fn hear(&mut self, wire: &mut Wire, ledger: &mut Ledger) -> Checked {
        if !self.is_upgraded {
            let Some((status, _)) = wire.head() else { return Ok(()) };
            assert_eq!(status, 101, "an upgrade at {}", self.path);
            self.is_upgraded = true;
        }
        while let Some(message) = wire.message() {
            match message {
                Message::Text(text) => self.told(&text, wire, ledger)?,
                Message::Binary(_) => return wrong("a binary message of the protocol"),
                Message::Close(code) => self.closed = Some(code),
            }
        }
        Ok(())
    }

    fn told(&mut self, text: &[u8], wire: &mut Wire, ledger: &mut Ledger) -> Checked {
        let told: Value = match serde_json::from_slice(text) {
            Ok(told) => told,
            Err(error) => return wrong(format!("{error}: {}", String::from_utf8_lossy(text))),
        };
        match told["op"].as_str().unwrap_or_default() {
            "hello" if !self.is_greeted => {
                self.is_greeted = true;
                self.subscribe_to_all(wire, ledger);
                Ok(())
            }
            "message" => {
                let (topic, offset) = (text_of(&told, "topic"), offset_of(&told, "offset"));
                let epoch = self.epochs.get(topic).copied();
                ledger.receipt(self.session, topic, epoch, offset, content(&told, text)?.as_ref())?;
                self.moved(topic, epoch, offset)
            }
            "gap" => {
                let (topic, to) = (text_of(&told, "topic"), offset_of(&told, "to"));
                let epoch = self.epochs.get(topic).copied();
                ledger.gap(self.session, topic, offset_of(&told, "from"), to, text_of(&told, "reason"))?;
                self.moved(topic, epoch, to)
            }
            _ => self.answered(&told, ledger),
        }
    }

    fn moved(&mut self, topic: &str, epoch: Option<Epoch>, offset: u64) -> Checked {
        match epoch {
            Some(epoch) => remember(&mut self.memory, topic, Position { epoch, offset }),
            None if self.patterns.iter().any(|pattern| matches(pattern, topic)) => {
                self.followed.insert(topic.to_owned(), offset);
            }
            None => return wrong(format!("something of {topic}, to which it is not subscribed")),
        }
        Ok(())
    }

    fn answered(&mut self, told: &Value, ledger: &mut Ledger) -> Checked {
        let asked = told["id"].as_u64().and_then(|id| self.asked.remove(&id));
        let Some(asked) = asked else { return wrong(format!("an answer to nothing: {told}")) };
        let session = self.session;
        match (asked, told["op"].as_str().unwrap_or_default()) {
            (Asked::Subscribe { topic, recover }, "subscribed") => {
                let position = position_of(told);
                let recovered = told["recovered"].as_bool();
                if recovered.is_some() != recover.is_some() {
                    return wrong(format!("asked with {recover:?}, told {told}"));
                }
                self.epochs.insert(topic.clone(), position.epoch);
                self.followed.remove(&topic);
                let recovered = recover.zip(recovered);
                // What was recovered comes behind it.
                let from = recovered.filter(|(_, whole)| *whole).map_or(position, |(from, _)| from);
                self.memory.insert(topic.clone(), from);
                ledger.observe(Event::Subscribed { session, topic, position, recovered })
            }
            (Asked::Follow(pattern), "subscribed") => {
                self.patterns.insert(pattern);
                ledger.observe(Event::Patterns { session, patterns: self.patterns.iter().cloned().collect() })
            }
            (Asked::Unsubscribe(filter), "unsubscribed") => {
                if self.patterns.remove(&filter) {
                    self.followed.retain(|topic, _| self.patterns.iter().any(|other| matches(other, topic)));
                    let patterns = self.patterns.iter().cloned().collect();
                    ledger.observe(Event::Patterns { session, patterns })
                } else {
                    self.epochs.remove(&filter);
                    ledger.observe(Event::Unsubscribed { session, topic: filter })
                }
            }
            (Asked::Publish(id), "published") => ledger.accepted(id, position_of(told)),
            (Asked::Publish(id), "error") if told["code"] == "busy" => ledger.refused(id),
            (Asked::Ping, "pong") => Ok(()),
            _ => wrong(format!("not what was asked for: {told}")),
        }
    }
}

/// A publication as the protocol writes it, without what belongs to a command.
pub(crate) fn fields_of(topic: &str, draft: &Draft) -> String {
    let payload = String::from_utf8_lossy(&draft.payload);
    let content = match draft.format {
        Format::Json => format!("\"data\":{payload}"),
        Format::Text => format!("\"text\":{}", json!(payload)),
        Format::Binary => format!("\"base64\":\"{}\"", BASE64_STANDARD.encode(&draft.payload)),
    };
    let key = draft.key.as_ref().map_or_else(String::new, |key| format!(",\"key\":\"{key}\""));
    format!("\"topic\":\"{topic}\",{content}{key}")
}

/// What a message carries.
pub(crate) struct Content(Format, Vec<u8>);

impl Content {
    pub(crate) fn as_ref(&self) -> (Format, &[u8]) {
        (self.0, &self.1)
    }
}

/// The content of a message, `data` byte by byte.
pub(crate) fn content(told: &Value, message: &[u8]) -> Checked<Content> {
    if told.get("data").is_some() {
        let message = String::from_utf8_lossy(message);
        // Nothing follows it.
        let data = message.trim_end().split_once("\"data\":").and_then(|(_, rest)| rest.strip_suffix('}'));
        return Ok(Content(Format::Json, data.unwrap_or_default().as_bytes().to_vec()));
    }
    if let Some(text) = told["text"].as_str() {
        return Ok(Content(Format::Text, text.as_bytes().to_vec()));
    }
    match told["base64"].as_str().and_then(|base64| BASE64_STANDARD.decode(base64).ok()) {
        Some(bytes) => Ok(Content(Format::Binary, bytes)),
        None => wrong(format!("a message without content: {told}")),
    }
}

/// Forgets nothing that it was told before.
pub(crate) fn remember(memory: &mut HashMap<String, Position>, topic: &str, now: Position) {
    match memory.get_mut(topic) {
        Some(before) if before.epoch == now.epoch && before.offset >= now.offset => {}
        Some(before) => *before = now,
        None => drop(memory.insert(topic.to_owned(), now)),
    }
}

/// Whether a name or a pattern has a topic.
pub(crate) fn matches(filter: &str, topic: &str) -> bool {
    let filter = Filter::parse(filter).expect("what is subscribed to is valid");
    TopicName::parse(topic).is_ok_and(|topic| filter.matches(&topic))
}

pub(crate) fn text_of<'t>(told: &'t Value, field: &str) -> &'t str {
    told[field].as_str().unwrap_or_else(|| panic!("no {field}: {told}"))
}

pub(crate) fn offset_of(told: &Value, field: &str) -> u64 {
    told[field].as_u64().unwrap_or_else(|| panic!("no {field}: {told}"))
}

pub(crate) fn epoch_of(text: &str) -> Epoch {
    Epoch(u32::from_str_radix(text, 16).unwrap_or_else(|_| panic!("an epoch: {text}")))
}

pub(crate) fn epoch_text(epoch: Epoch) -> String {
    format!("{:08x}", epoch.0)
}

pub(crate) fn position_of(told: &Value) -> Position {
    Position { epoch: epoch_of(text_of(told, "epoch")), offset: offset_of(told, "offset") }
}
