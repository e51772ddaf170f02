//! What the gateway says to a WebSocket client: each function appends one object to `out`.
//!
//! Texts are escaped, whoever chose them. What is JSON already (a publication's `data`, a client's `info`) was
//! checked when it came in and stays as it is, byte by byte.

use super::content::{push_message, push_offset};
use super::text::{push_epoch, push_string, push_whole};
use super::{Code, Content, Id, Position, VERSION};
use crate::publication::GapReason;

/// How a subscription begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing<'t> {
    /// The name or the pattern.
    pub topic: &'t str,
    /// Where the topic is; a pattern has no position.
    pub position: Option<Position>,
    /// Where recovery was asked for: whether all that was missed follows.
    pub recovered: Option<bool>,
    /// Where the session has the topic by a pattern, too, and messages of that come with the answer: the last offset before them.
    pub pattern_offset: Option<u64>,
}

/// How a publication was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acceptance<'t> {
    /// The name.
    pub topic: &'t str,
    /// Its own position; that of the first where it is a duplicate.
    pub position: Position,
    /// Whether it was published before, and so not again.
    pub duplicate: bool,
}

/// Messages that will not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap<'t> {
    /// The name.
    pub topic: &'t str,
    /// The first offset that is missing.
    pub from: u64,
    /// The last.
    pub to: u64,
    /// Why.
    pub reason: GapReason,
}

/// Somebody in a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Present<'t> {
    /// The client's name.
    pub client: &'t str,
    /// What it says of itself: JSON.
    pub info: Option<&'t [u8]>,
}

/// The first message of a connection. `client` names it; there are at most `ping_seconds` of silence, or any length of it
/// where that is 0. `expires_seconds`: how long its token holds, where it has one that ends.
pub fn hello(out: &mut Vec<u8>, client: &str, ping_seconds: u32, expires_seconds: Option<u64>) {
    out.extend_from_slice(br#"{"op":"hello","client":"#);
    push_string(out, client.as_bytes());
    out.extend_from_slice(br#","version":"#);
    push_whole(out, VERSION.into());
    out.extend_from_slice(br#","ping":"#);
    push_whole(out, ping_seconds.into());
    push_expiry(out, expires_seconds);
    out.push(b'}');
}

/// The answer to `auth`. `expires_seconds`: how long the new token holds, where it ends.
pub fn authenticated(out: &mut Vec<u8>, id: Id<'_>, expires_seconds: Option<u64>) {
    open(out, "authenticated", Some(id));
    push_expiry(out, expires_seconds);
    out.push(b'}');
}

fn push_expiry(out: &mut Vec<u8>, seconds: Option<u64>) {
    if let Some(seconds) = seconds {
        out.extend_from_slice(br#","expires":"#);
        push_whole(out, seconds);
    }
}

/// The answer to `subscribe`.
pub fn subscribed(out: &mut Vec<u8>, id: Id<'_>, standing: &Standing<'_>) {
    open(out, "subscribed", Some(id));
    out.push(b',');
    push_standing(out, standing);
    out.push(b'}');
}

/// The answer to `unsubscribe`; without an id the gateway's own word that a subscription is over.
pub fn unsubscribed(out: &mut Vec<u8>, id: Option<Id<'_>>, topic: &str) {
    open(out, "unsubscribed", id);
    push_topic(out, topic);
    out.push(b'}');
}

/// The answer to `publish`.
pub fn published(out: &mut Vec<u8>, id: Id<'_>, acceptance: &Acceptance<'_>) {
    open(out, "published", Some(id));
    out.push(b',');
    push_acceptance(out, acceptance);
    out.push(b'}');
}

/// A publication, for all subscribers of its topic.
#[inline]
pub fn message(out: &mut Vec<u8>, topic: &str, offset: u64, content: Content<'_>) {
    out.extend_from_slice(br#"{"op":"message","#);
    push_message(out, topic, offset, content);
}

/// The answer to `presence`: `count` are there, `clients` are those of them that are listed.
pub fn presence<'p>(
    out: &mut Vec<u8>,
    id: Id<'_>,
    topic: &str,
    count: u64,
    clients: impl IntoIterator<Item = Present<'p>>,
) {
    open(out, "presence", Some(id));
    push_topic(out, topic);
    out.extend_from_slice(br#","count":"#);
    push_whole(out, count);
    push_clients(out, clients);
    out.push(b'}');
}

/// The answer to `history`: the topic's position, and offset and content of each message.
pub fn history<'p>(
    out: &mut Vec<u8>,
    id: Id<'_>,
    topic: &str,
    position: Position,
    messages: impl IntoIterator<Item = (u64, Content<'p>)>,
) {
    open(out, "history", Some(id));
    push_topic(out, topic);
    push_position(out, position);
    out.extend_from_slice(br#","messages":["#);
    for (index, (offset, content)) in messages.into_iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"{" } else { b",{" });
        push_offset(out, offset, content);
    }
    out.extend_from_slice(b"]}");
}

/// Somebody came.
pub fn join(out: &mut Vec<u8>, topic: &str, present: &Present<'_>) {
    open(out, "join", None);
    push_topic(out, topic);
    out.push(b',');
    push_present(out, present);
    out.push(b'}');
}

/// Somebody went.
pub fn leave(out: &mut Vec<u8>, topic: &str, client: &str) {
    open(out, "leave", None);
    push_topic(out, topic);
    out.push(b',');
    push_present(out, &Present { client, info: None });
    out.push(b'}');
}

/// Joins and leaves will not come.
pub fn presence_gap(out: &mut Vec<u8>, topic: &str) {
    open(out, "presence_gap", None);
    push_topic(out, topic);
    out.push(b'}');
}

/// Messages will not come.
pub fn gap(out: &mut Vec<u8>, gap: &Gap<'_>) {
    out.extend_from_slice(br#"{"op":"gap","#);
    push_gap(out, gap);
    out.push(b'}');
}

/// Something is wrong, with the command of this id if there is one.
pub fn error(out: &mut Vec<u8>, id: Option<Id<'_>>, code: Code, message: &str) {
    open(out, "error", id);
    out.push(b',');
    push_code(out, code, message);
    out.push(b'}');
}

/// The answer to `ping`, with and without an id.
pub fn pong(out: &mut Vec<u8>, id: Option<Id<'_>>) {
    open(out, "pong", id);
    out.push(b'}');
}

/// Appends `{"op":…,"id":…`.
fn open(out: &mut Vec<u8>, op: &str, id: Option<Id<'_>>) {
    out.extend_from_slice(br#"{"op":""#);
    out.extend_from_slice(op.as_bytes());
    out.push(b'"');
    match id {
        None => {}
        Some(Id::Number(number)) => {
            out.extend_from_slice(br#","id":"#);
            push_whole(out, number);
        }
        Some(Id::Text(inside)) => {
            out.extend_from_slice(br#","id":""#);
            out.extend_from_slice(inside.as_bytes());
            out.push(b'"');
        }
    }
}

/// Appends `,"topic":…`.
fn push_topic(out: &mut Vec<u8>, topic: &str) {
    out.extend_from_slice(br#","topic":"#);
    push_string(out, topic.as_bytes());
}

/// Appends `,"epoch":…,"offset":…`.
pub(super) fn push_position(out: &mut Vec<u8>, position: Position) {
    out.extend_from_slice(br#","epoch":""#);
    push_epoch(out, position.epoch);
    out.extend_from_slice(br#"","offset":"#);
    push_whole(out, position.offset);
}

/// Appends the fields of a standing.
pub(super) fn push_standing(out: &mut Vec<u8>, standing: &Standing<'_>) {
    out.extend_from_slice(br#""topic":"#);
    push_string(out, standing.topic.as_bytes());
    if let Some(position) = standing.position {
        push_position(out, position);
    }
    match standing.recovered {
        None => {}
        Some(true) => out.extend_from_slice(br#","recovered":true"#),
        Some(false) => out.extend_from_slice(br#","recovered":false"#),
    }
    if let Some(offset) = standing.pattern_offset {
        out.extend_from_slice(br#","pattern_offset":"#);
        push_whole(out, offset);
    }
}

/// Appends the fields of an acceptance.
pub(super) fn push_acceptance(out: &mut Vec<u8>, acceptance: &Acceptance<'_>) {
    out.extend_from_slice(br#""topic":"#);
    push_string(out, acceptance.topic.as_bytes());
    push_position(out, acceptance.position);
    out.extend_from_slice(br#","level":"accepted""#);
    if acceptance.duplicate {
        out.extend_from_slice(br#","duplicate":true"#);
    }
}

/// Appends the fields of a gap.
pub(super) fn push_gap(out: &mut Vec<u8>, gap: &Gap<'_>) {
    out.extend_from_slice(br#""topic":"#);
    push_string(out, gap.topic.as_bytes());
    out.extend_from_slice(br#","from":"#);
    push_whole(out, gap.from);
    out.extend_from_slice(br#","to":"#);
    push_whole(out, gap.to);
    out.extend_from_slice(br#","reason":""#);
    out.extend_from_slice(gap.reason.name().as_bytes());
    out.push(b'"');
}

/// Appends `"code":…,"message":…`.
pub(super) fn push_code(out: &mut Vec<u8>, code: Code, message: &str) {
    out.extend_from_slice(br#""code":""#);
    out.extend_from_slice(code.name().as_bytes());
    out.extend_from_slice(br#"","message":"#);
    push_string(out, message.as_bytes());
}

/// Appends `,"clients":[…]`.
pub(super) fn push_clients<'p>(out: &mut Vec<u8>, clients: impl IntoIterator<Item = Present<'p>>) {
    out.extend_from_slice(br#","clients":["#);
    for (index, present) in clients.into_iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"{" } else { b",{" });
        push_present(out, &present);
        out.push(b'}');
    }
    out.push(b']');
}

/// Appends `"client":…,"info":…`.
fn push_present(out: &mut Vec<u8>, present: &Present<'_>) {
    out.extend_from_slice(br#""client":"#);
    push_string(out, present.client.as_bytes());
    if let Some(info) = present.info {
        out.extend_from_slice(br#","info":"#);
        out.extend_from_slice(info);
    }
}
