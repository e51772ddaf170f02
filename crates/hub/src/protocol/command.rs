//! What a WebSocket client asks for.

use std::{borrow::Cow, ops::Range};

use memchr::memchr2;

use super::json::string;
use super::object::{Field, Fields, Objects, objects};
use super::structure::Scratch;
use super::text::{from_base64, whole};
use super::{
    Code, Content, Format, Id, MAX_COMMANDS, MAX_HISTORY, MAX_INFO_BYTES, MAX_KEY_BYTES, MAX_ONCE_BYTES,
    Problem, Recover,
};

/// One command, with what its answer must carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request<'b> {
    /// As the client sent it. Without one only errors are told.
    pub id: Option<Id<'b>>,
    /// What to do, or what to answer.
    pub command: Result<Command<'b>, Problem>,
}

/// What to do. Topics are texts that nobody has looked at yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command<'b> {
    /// From now on what is published there comes.
    Subscribe(Subscribe<'b>),
    /// No more of it.
    Unsubscribe {
        /// A name or a pattern.
        topic: Cow<'b, str>,
    },
    /// A message to all subscribers.
    Publish(Publish<'b>),
    /// Who is there.
    Presence {
        /// A name.
        topic: Cow<'b, str>,
    },
    /// What was published.
    History {
        /// A name.
        topic: Cow<'b, str>,
        /// Most messages: at most [`MAX_HISTORY`].
        limit: u32,
        /// Only those with smaller offsets.
        before: Option<u64>,
    },
    /// Whether the connection lives.
    Ping,
    /// A newer token takes the place of the connection's.
    Auth {
        /// As whoever gives tokens has written it; nobody has looked at it yet.
        token: Cow<'b, str>,
    },
}

/// A subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe<'b> {
    /// A name or a pattern.
    pub topic: Cow<'b, str>,
    /// From where to go on.
    pub recover: Option<Recover>,
    /// Messages that are wanted first where nothing is recovered: at most [`MAX_HISTORY`].
    pub history: u32,
    /// Whether joins and leaves are wanted.
    pub presence: bool,
    /// What others see of this client: JSON of at most [`MAX_INFO_BYTES`].
    pub info: Option<&'b str>,
}

/// A publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish<'b> {
    /// A name.
    pub topic: Cow<'b, str>,
    /// What is published.
    pub payload: Payload<'b>,
    /// What it replaces where the topic conflates: 1 to [`MAX_KEY_BYTES`].
    pub key: Option<Cow<'b, str>>,
    /// Its idempotency key: 1 to [`MAX_ONCE_BYTES`].
    pub once: Option<Cow<'b, str>>,
}

/// What is published, in the receive buffer where it can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload<'b> {
    /// What the bytes are.
    pub format: Format,
    /// JSON byte by byte as it was sent, without the space around it; the text itself; the bytes themselves.
    pub bytes: Cow<'b, [u8]>,
}

impl Payload<'_> {
    /// As it is encoded.
    #[must_use]
    pub fn content(&self) -> Content<'_> {
        Content { format: self.format, bytes: &self.bytes }
    }
}

/// The commands of one message, in order.
#[derive(Debug)]
pub struct Commands<'b>(Rest<'b>);

#[derive(Debug)]
enum Rest<'b> {
    One(Option<Request<'b>>),
    Many(std::vec::IntoIter<Request<'b>>),
}

impl<'b> Iterator for Commands<'b> {
    type Item = Request<'b>;

    fn next(&mut self) -> Option<Request<'b>> {
        match &mut self.0 {
            Rest::One(request) => request.take(),
            Rest::Many(requests) => requests.next(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match &self.0 {
            Rest::One(request) => (usize::from(request.is_some()), Some(usize::from(request.is_some()))),
            Rest::Many(requests) => requests.size_hint(),
        }
    }
}

impl ExactSizeIterator for Commands<'_> {}

/// Reads a text message. Nothing is changed in `bytes`, and most of what comes out lies in them.
///
/// A message that is not JSON throughout is one error and nothing else: none of its commands is done.
#[must_use]
pub fn parse<'b>(bytes: &'b [u8], scratch: &mut Scratch) -> Commands<'b> {
    Commands(match objects(bytes, MAX_COMMANDS, scratch, request) {
        Ok(Objects::One(request)) => Rest::One(Some(request)),
        Ok(Objects::Many(requests)) => Rest::Many(requests.into_iter()),
        Err(problem) => Rest::One(Some(Request { id: None, command: Err(problem) })),
    })
}

/// Where the objects of a message lie that [`parse`] has read: each of them is a message of its own, and parsed alone it is
/// the same command. Of bytes that are no such message it says nothing.
#[must_use]
pub fn places(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut places = Vec::new();
    let outer = u32::from(bytes.trim_ascii_start().first() == Some(&b'['));
    let (mut depth, mut begin, mut at) = (0_u32, 0, 0);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = end_of_string(bytes, at),
            b'[' | b'{' => {
                if depth == outer {
                    begin = at;
                }
                depth += 1;
            }
            b']' | b'}' => {
                depth = depth.saturating_sub(1);
                if depth == outer && *byte == b'}' {
                    places.push(begin..at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
    places
}

/// Where the quote is that ends a string which begins at `at`.
fn end_of_string(bytes: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    while let Some(found) = bytes.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        at += found;
        if bytes[at] == b'"' {
            return at;
        }
        at += 2;
    }
    bytes.len()
}

fn request<'b>(fields: &Fields<'b>) -> Request<'b> {
    // Which of two ids would be meant?
    if let Err(problem) = fields.check() {
        return Request { id: None, command: Err(problem) };
    }
    match fields.some(Field::Id).map(Id::parse) {
        Some(None) => Request { id: None, command: Err(Problem::request(WRONG_ID)) },
        Some(Some(id)) => Request { id: Some(id), command: command(fields) },
        None => Request { id: None, command: command(fields) },
    }
}

const WRONG_ID: &str = "`id` is neither a whole number from 0 to 2^53-1 nor a string of up to 64 bytes";

fn command<'b>(fields: &Fields<'b>) -> Result<Command<'b>, Problem> {
    const WRONG_OP: Problem = Problem::request("`op` is not a string");
    let op = fields.text(Field::Op, WRONG_OP)?.ok_or(Problem::request("`op` is missing"))?;
    Ok(match &*op {
        "publish" => Command::Publish(publish(fields)?),
        "subscribe" => Command::Subscribe(subscribe(fields)?),
        "unsubscribe" => Command::Unsubscribe { topic: topic(fields)? },
        "presence" => Command::Presence { topic: topic(fields)? },
        "history" => Command::History {
            topic: topic(fields)?,
            limit: count(fields, Field::Limit, "`limit` is not a whole number")?.unwrap_or(DEFAULT_HISTORY),
            before: fields.whole(Field::Before, Problem::request("`before` is not a whole number"))?,
        },
        "ping" => Command::Ping,
        "auth" => {
            const WRONG: Problem = Problem::request("`token` is not a string");
            let token = fields.text(Field::Token, WRONG)?.ok_or(Problem::request("`token` is missing"))?;
            Command::Auth { token }
        }
        _ => return Err(Problem::new(Code::UnknownOp, "there is no such `op`")),
    })
}

/// Messages that `history` gives unless told.
const DEFAULT_HISTORY: u32 = 100;

fn topic<'b>(fields: &Fields<'b>) -> Result<Cow<'b, str>, Problem> {
    const WRONG: Problem = Problem::request("`topic` is not a string");
    fields.text(Field::Topic, WRONG)?.ok_or(Problem::request("`topic` is missing"))
}

/// A number of messages. More than there can be is as many as there can be.
fn count(fields: &Fields<'_>, field: Field, wrong: &'static str) -> Result<Option<u32>, Problem> {
    let count = fields.whole(field, Problem::request(wrong))?;
    Ok(count.map(|count| u32::try_from(count).unwrap_or(u32::MAX).min(MAX_HISTORY)))
}

fn subscribe<'b>(fields: &Fields<'b>) -> Result<Subscribe<'b>, Problem> {
    let info = fields.some(Field::Info);
    if info.is_some_and(|info| info.len() > MAX_INFO_BYTES) {
        return Err(Problem::new(Code::TooLarge, "`info` is longer than 1 KiB"));
    }
    Ok(Subscribe {
        topic: topic(fields)?,
        recover: fields.recover()?,
        history: count(fields, Field::History, "`history` is not a whole number")?.unwrap_or(0),
        presence: fields.flag(Field::Presence, Problem::request("`presence` is not true or false"))?,
        info,
    })
}

/// What a publication is, over a WebSocket and over HTTP.
pub(super) fn publish<'b>(fields: &Fields<'b>) -> Result<Publish<'b>, Problem> {
    const KEY: Problem = Problem::request("`key` is not a string");
    const ONCE: Problem = Problem::request("`once` is not a string");
    Ok(Publish {
        topic: topic(fields)?,
        payload: payload(fields)?,
        key: fields.text(Field::Key, KEY)?.map(check_key).transpose()?,
        once: fields.text(Field::Once, ONCE)?.map(check_once).transpose()?,
    })
}

pub(super) fn check_key(key: Cow<'_, str>) -> Result<Cow<'_, str>, Problem> {
    match key.len() {
        0 => Err(Problem::request("the key is empty")),
        1..=MAX_KEY_BYTES => Ok(key),
        _ => Err(Problem::new(Code::TooLarge, "the key is longer than 256 bytes")),
    }
}

pub(super) fn check_once(once: Cow<'_, str>) -> Result<Cow<'_, str>, Problem> {
    match once.len() {
        0 => Err(Problem::request("the idempotency key is empty")),
        1..=MAX_ONCE_BYTES => Ok(once),
        _ => Err(Problem::new(Code::TooLarge, "the idempotency key is longer than 128 bytes")),
    }
}

fn payload<'b>(fields: &Fields<'b>) -> Result<Payload<'b>, Problem> {
    let bytes = |text| match text {
        Cow::Borrowed(text) => Cow::Borrowed(str::as_bytes(text)),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    };
    // `null` is data like any other.
    match (fields.raw(Field::Data), fields.some(Field::Text), fields.some(Field::Base64)) {
        (Some(data), None, None) => {
            Ok(Payload { format: Format::Json, bytes: Cow::Borrowed(data.as_bytes()) })
        }
        (None, Some(text), None) => {
            let text = string(text).ok_or(Problem::request("`text` is not a string"))?;
            Ok(Payload { format: Format::Text, bytes: bytes(text) })
        }
        (None, None, Some(base64)) => {
            let text = string(base64).ok_or(Problem::request("`base64` is not a string"))?;
            let decoded = from_base64(&text).ok_or(Problem::request("`base64` is not base64"))?;
            Ok(Payload { format: Format::Binary, bytes: Cow::Owned(decoded) })
        }
        (None, None, None) => Err(Problem::request("`data`, `text` or `base64` is missing")),
        _ => Err(Problem::request("there is more than one of `data`, `text` and `base64`")),
    }
}

impl<'b> Id<'b> {
    /// Reads the JSON value that an `id` is.
    fn parse(raw: &'b str) -> Option<Self> {
        match raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            Some(inside) => (inside.len() <= super::MAX_ID_BYTES).then_some(Self::Text(inside)),
            None => whole(raw).map(Self::Number),
        }
    }
}
