//! What a message means, as one reads it with serde_json and without a thought for speed.

use std::{cell::RefCell, fmt};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tidegate_hub::protocol::{self, Code, Command, Commands, Format, Id, Publish, Recover, Request, Scratch};

/// The members of an object in order, those that stand twice too.
struct Members<'b>(Vec<(String, &'b RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(All)
    }
}

const KNOWN: [&str; 17] = [
    "op", "id", "topic", "recover", "history", "presence", "info", "data", "text", "base64", "key", "once",
    "limit", "before", "epoch", "offset", "token",
];

impl<'b> Members<'b> {
    fn repeated(&self) -> bool {
        KNOWN.iter().any(|known| self.0.iter().filter(|(name, _)| name == known).count() > 1)
    }

    fn raw(&self, name: &str) -> Option<&'b str> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| value.get())
    }

    fn some(&self, name: &str) -> Option<&'b str> {
        self.raw(name).filter(|raw| *raw != "null")
    }
}

/// Reads one object with the problems that it has.
#[derive(Default)]
struct Reading {
    problems: Vec<Code>,
}

impl Reading {
    fn wrong<T>(&mut self, code: Code) -> Option<T> {
        self.problems.push(code);
        None
    }

    fn string(&mut self, raw: Option<&str>) -> Option<String> {
        let raw = raw?;
        serde_json::from_str(raw).ok().or_else(|| self.wrong(Code::InvalidRequest))
    }

    fn whole(&mut self, raw: Option<&str>) -> Option<u64> {
        let number = raw?.parse::<u64>().ok().filter(|number| *number < 1 << 53);
        // serde_json has seen that a sign or a leading zero is no number, but for a minus, which is no `u64`.
        if raw? == "-0" {
            self.wrong(Code::InvalidRequest)
        } else {
            number.or_else(|| self.wrong(Code::InvalidRequest))
        }
    }

    fn topic(&mut self, members: &Members<'_>) -> Option<String> {
        if members.some("topic").is_none() {
            return self.wrong(Code::InvalidRequest);
        }
        self.string(members.some("topic"))
    }

    fn bounded(&mut self, text: Option<String>, most: usize) -> Option<String> {
        match text.as_ref().map_or(1, String::len) {
            0 => self.wrong(Code::InvalidRequest),
            len if len > most => self.wrong(Code::TooLarge),
            _ => text,
        }
    }

    fn recover(&mut self, raw: Option<&str>) -> Value {
        let Some(raw) = raw else { return Value::Null };
        let Ok(members) = serde_json::from_str::<Members<'_>>(raw) else {
            self.problems.push(Code::InvalidRequest);
            return Value::Null;
        };
        if members.repeated() || members.some("epoch").is_none() || members.some("offset").is_none() {
            self.problems.push(Code::InvalidRequest);
        }
        let (epoch, offset) = (self.string(members.some("epoch")), self.whole(members.some("offset")));
        let hex = |epoch: &String| epoch.bytes().all(|byte| b"0123456789abcdef".contains(&byte));
        match epoch.filter(|epoch| epoch.len() == 8 && hex(epoch)) {
            Some(epoch) => json!([epoch, offset]),
            None => json!("foreign"),
        }
    }

    fn payload(&mut self, members: &Members<'_>) -> Value {
        let (data, text, base64) = (members.raw("data"), members.some("text"), members.some("base64"));
        if data.iter().chain(&text).chain(&base64).count() != 1 {
            self.problems.push(Code::InvalidRequest);
            return Value::Null;
        }
        if let Some(data) = data {
            return json!({ "json": data });
        }
        if let Some(text) = text {
            return json!({ "text": self.string(Some(text)) });
        }
        match self.string(base64).map(|base64| naive_base64(&base64)) {
            Some(Some(bytes)) => json!({ "bytes": bytes }),
            Some(None) => {
                self.problems.push(Code::InvalidRequest);
                Value::Null
            }
            None => Value::Null,
        }
    }

    fn publish(&mut self, members: &Members<'_>) -> Value {
        let (key, once) = (self.string(members.some("key")), self.string(members.some("once")));
        json!({
            "op": "publish", "topic": self.topic(members), "payload": self.payload(members),
            "key": self.bounded(key, 256), "once": self.bounded(once, 128),
        })
    }

    fn command(&mut self, members: &Members<'_>) -> Value {
        if members.some("op").is_none() {
            self.problems.push(Code::InvalidRequest);
        }
        let Some(op) = self.string(members.some("op")) else { return Value::Null };
        match op.as_str() {
            "ping" => json!({ "op": "ping" }),
            "auth" => {
                if members.some("token").is_none() {
                    self.problems.push(Code::InvalidRequest);
                }
                json!({ "op": "auth", "token": self.string(members.some("token")) })
            }
            "unsubscribe" | "presence" => json!({ "op": op, "topic": self.topic(members) }),
            "history" => json!({
                "op": op, "topic": self.topic(members), "before": self.whole(members.some("before")),
                "limit": self.whole(members.some("limit")).map_or(100, |limit| limit.min(1000)),
            }),
            "publish" => self.publish(members),
            "subscribe" => {
                let presence = members.some("presence").unwrap_or("false");
                if !["true", "false"].contains(&presence) {
                    self.problems.push(Code::InvalidRequest);
                }
                if members.some("info").is_some_and(|info| info.len() > 1024) {
                    self.problems.push(Code::TooLarge);
                }
                json!({
                    "op": op, "topic": self.topic(members), "recover": self.recover(members.some("recover")),
                    "history": self.whole(members.some("history")).map_or(0, |history| history.min(1000)),
                    "presence": presence == "true", "info": members.some("info"),
                })
            }
            _ => {
                self.problems.push(Code::UnknownOp);
                Value::Null
            }
        }
    }
}

/// RFC 4648 §4, bit by bit; padding may be missing, but not wrong.
fn naive_base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    let padding = text.len() - digits.len();
    if padding > 0 && (!text.len().is_multiple_of(4) || padding > 2) || digits.len() % 4 == 1 {
        return None;
    }
    let value = |byte: u8| {
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        alphabet.iter().position(|digit| *digit == byte)
    };
    let (mut bytes, mut bits, mut len) = (Vec::new(), 0, 0);
    for byte in digits.bytes() {
        bits = bits << 6 | value(byte)?;
        len += 6;
        if len >= 8 {
            len -= 8;
            bytes.push((bits >> len) as u8);
            bits &= (1 << len) - 1;
        }
    }
    (bits == 0).then_some(bytes)
}

/// A command in the oracle's words.
pub(crate) fn told(command: &Command<'_>) -> Value {
    match command {
        Command::Ping => json!({ "op": "ping" }),
        Command::Auth { token } => json!({ "op": "auth", "token": token }),
        Command::Unsubscribe { topic } => json!({ "op": "unsubscribe", "topic": topic }),
        Command::Presence { topic } => json!({ "op": "presence", "topic": topic }),
        Command::History { topic, limit, before } => {
            json!({ "op": "history", "topic": topic, "limit": limit, "before": before })
        }
        Command::Publish(publish) => told_publish(publish),
        Command::Subscribe(subscribe) => {
            let recover = match subscribe.recover {
                None => Value::Null,
                Some(Recover::Foreign) => json!("foreign"),
                Some(Recover::From(position)) => {
                    json!([format!("{:08x}", position.epoch.0), position.offset])
                }
            };
            json!({
                "op": "subscribe", "topic": subscribe.topic, "recover": recover, "history": subscribe.history,
                "presence": subscribe.presence, "info": subscribe.info,
            })
        }
    }
}

/// A publication in the oracle's words.
pub(crate) fn told_publish(publish: &Publish<'_>) -> Value {
    let bytes = &publish.payload.bytes;
    let text = || std::str::from_utf8(bytes).expect("UTF-8");
    let payload = match publish.payload.format {
        Format::Json => json!({ "json": text() }),
        Format::Text => json!({ "text": text() }),
        Format::Binary => json!({ "bytes": bytes }),
    };
    json!({ "op": "publish", "topic": publish.topic, "payload": payload, "key": publish.key, "once": publish.once })
}

/// An id as it is given back.
pub(crate) fn id_text(id: Id<'_>) -> String {
    match id {
        Id::Number(number) => number.to_string(),
        Id::Text(inside) => format!("\"{inside}\""),
    }
}

fn check_request(raw: &str, request: &Request<'_>) {
    let members: Members<'_> = serde_json::from_str(raw).expect("what is accepted is an object");
    let id = request.id.map(id_text);
    if members.repeated() {
        let code = request.command.as_ref().err().map(|problem| problem.code);
        assert_eq!((id, code), (None, Some(Code::InvalidRequest)), "{raw}");
        return;
    }
    let good_id = |raw: &&str| match raw.strip_prefix('"') {
        Some(inside) => inside.len() <= 65,
        None => Reading::default().whole(Some(raw)).is_some(),
    };
    let own_id = members.some("id").filter(good_id);
    assert_eq!(id.as_deref(), own_id, "{raw}");
    let mut reading = Reading::default();
    if own_id.is_none() && members.some("id").is_some() {
        reading.problems.push(Code::InvalidRequest);
    }
    let expected = reading.command(&members);
    match &request.command {
        Ok(command) => {
            assert_eq!(told(command), expected, "{raw}");
            assert_eq!(reading.problems, [], "{raw}");
        }
        Err(problem) => {
            assert!(
                reading.problems.contains(&problem.code),
                "{problem:?}, not {:?}: {raw}",
                reading.problems
            );
        }
    }
}

/// How deep a value is nested.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(elements) => 1 + elements.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// Reads a message as a shard does, in memory in which others were read before.
pub(crate) fn parse(bytes: &[u8]) -> Commands<'_> {
    thread_local! {
        static SCRATCH: RefCell<Scratch> = RefCell::default();
    }
    SCRATCH.with_borrow_mut(|scratch| protocol::parse(bytes, scratch))
}

/// Reads a message with vectors, however short or long it is.
fn parse_with_vectors(bytes: &[u8]) -> Commands<'_> {
    thread_local! {
        static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::with_lengths(0..=usize::MAX));
    }
    SCRATCH.with_borrow_mut(|scratch| protocol::parse(bytes, scratch))
}

/// The parser says of these bytes what serde_json says, and says the same whether vectors read them or not.
pub(crate) fn check(bytes: &[u8]) {
    let requests: Vec<Request<'_>> = parse(bytes).collect();
    let without: Vec<_> = protocol::parse(bytes, &mut Scratch::with_lengths(0..=0)).collect();
    let with: Vec<_> = parse_with_vectors(bytes).collect();
    assert_eq!(with, without, "{}", bytes.escape_ascii());
    assert_eq!(requests, without, "{}", bytes.escape_ascii());
    // The same at the other end of vectors' blocks, and in blocks of their own.
    for space in [1, 31, 63, 100] {
        let moved = [&vec![b' '; space], bytes, &vec![b' '; 64 - space % 64]].concat();
        assert!(parse_with_vectors(&moved).eq(without.iter().cloned()), "{}", bytes.escape_ascii());
    }
    let places = protocol::places(bytes);
    let whole = match &requests[..] {
        [Request { id: None, command: Err(problem) }] => Some(problem.code),
        _ => None,
    };
    if whole == Some(Code::InvalidJson) {
        // serde_json refuses numbers that do not fit and what is nested too deep for itself; what it takes whole and we
        // do not is deeper than ours, or not what a message is.
        if let Ok(value) = serde_json::from_slice::<Value>(bytes) {
            let objects = match &value {
                Value::Object(_) => true,
                Value::Array(elements) => elements.iter().all(Value::is_object),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
            };
            assert!(!objects || depth(&value) > 64, "refused: {}", bytes.escape_ascii());
        }
        return;
    }
    let raw: &RawValue = serde_json::from_slice(bytes).expect("what is accepted is JSON");
    if raw.get().starts_with('[') {
        let elements: Vec<&RawValue> = serde_json::from_str(raw.get()).expect("an array");
        if elements.len() > 64 {
            assert_eq!((whole, requests.len()), (Some(Code::TooMany), 1));
            return;
        }
        assert_eq!(elements.len(), requests.len());
        elements.iter().zip(&requests).for_each(|(raw, request)| check_request(raw.get(), request));
    } else {
        assert_eq!(requests.len(), 1);
        check_request(raw.get(), &requests[0]);
    }
    // Each is the same where it is a message of its own.
    let alone = places.into_iter().flat_map(|place| parse(&bytes[place]));
    assert!(alone.eq(requests.iter().cloned()), "{}", bytes.escape_ascii());
}
