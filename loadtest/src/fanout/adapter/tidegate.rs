//! The protocol `tidegate.v1`: JSON, described in docs/PROTOCOL.md.
//!
//! A text is published as `text`, bytes as `base64`. A delivery as the gateway writes it is read by a scan that takes exactly
//! that form and nothing else; whatever else comes is parsed. So a gateway that orders its fields otherwise is no worse
//! judged, only dearer to listen to.

use std::{borrow::Cow, ops::Range};

use base64::{Engine, engine::general_purpose::STANDARD};
use memchr::memchr2;
use serde::Deserialize;
use tidegate_wire::message::Kind;

use super::{Adapter, Incoming};

/// Whole numbers are below this: 2^53.
const MOST_WHOLE: u64 = 1 << 53;

#[derive(Debug)]
pub(super) struct Tidegate;

impl Adapter for Tidegate {
    fn subprotocol(&self) -> Option<&'static str> {
        Some("tidegate.v1")
    }

    fn path(&self, path: &str, _: &str) -> String {
        path.to_owned()
    }

    fn subscription(&self, topic: &str) -> Option<String> {
        // With an `id`, as it is answered then.
        Some(format!(r#"{{"op":"subscribe","id":1,"topic":"{topic}"}}"#))
    }

    fn wrap(
        &self,
        topic: &str,
        kind: Kind,
        payload: &[u8],
        key: Option<u32>,
        out: &mut Vec<u8>,
    ) -> Option<Kind> {
        out.extend_from_slice(br#"{"op":"publish","topic":""#);
        out.extend_from_slice(topic.as_bytes());
        if let Some(key) = key {
            out.extend_from_slice(format!(r#"","key":"k{key}"#).as_bytes());
        }
        match kind {
            Kind::Text => {
                out.extend_from_slice(br#"","text":""#);
                push_escaped(out, payload);
            }
            Kind::Binary => {
                out.extend_from_slice(br#"","base64":""#);
                let start = out.len();
                out.resize(start + payload.len().div_ceil(3) * 4, 0);
                let written = STANDARD.encode_slice(payload, &mut out[start..]);
                debug_assert_eq!(written.ok(), Some(out.len() - start));
            }
        }
        out.extend_from_slice(br#""}"#);
        Some(Kind::Text)
    }

    #[inline]
    fn unwrap<'a>(
        &self,
        topic: &str,
        kind: Kind,
        message: &'a [u8],
        scratch: &'a mut Vec<u8>,
    ) -> Incoming<'a> {
        if kind == Kind::Binary {
            return Incoming::Garbled;
        }
        match scan(topic, message, scratch) {
            Some(Scanned { offset, kind, place: Place::InMessage(range) }) => {
                Incoming::Delivery { kind, payload: &message[range], offset: Some(offset) }
            }
            Some(Scanned { offset, kind, place: Place::InScratch }) => {
                Incoming::Delivery { kind, payload: scratch, offset: Some(offset) }
            }
            None => parse(topic, message, scratch),
        }
    }
}

/// Appends a text as it stands between quotes.
fn push_escaped(out: &mut Vec<u8>, mut text: &[u8]) {
    // Payloads have no control characters.
    while let Some(at) = memchr2(b'"', b'\\', text) {
        out.extend_from_slice(&text[..at]);
        out.extend_from_slice(&[b'\\', text[at]]);
        text = &text[at + 1..];
    }
    out.extend_from_slice(text);
}

/// A delivery.
struct Scanned {
    offset: u64,
    kind: Kind,
    place: Place,
}

/// Where its payload lies.
enum Place {
    InMessage(Range<usize>),
    InScratch,
}

/// Reads a delivery of this topic in the very form in which the gateway writes it; `None` of all else.
#[inline]
fn scan(topic: &str, message: &[u8], scratch: &mut Vec<u8>) -> Option<Scanned> {
    let rest = message.strip_prefix(br#"{"op":"message","topic":""#)?;
    let rest = rest.strip_prefix(topic.as_bytes())?.strip_prefix(br#"","offset":"#)?;
    let digits = rest.iter().position(|byte| !byte.is_ascii_digit())?;
    let offset = whole(&rest[..digits])?;
    let rest = rest[digits..].strip_suffix(br#""}"#)?;
    if let Some(text) = rest.strip_prefix(br#","text":""#) {
        let end = message.len() - 2;
        let place = match unescape(text, scratch)? {
            Unescaped::AsItIs => Place::InMessage(end - text.len()..end),
            Unescaped::InScratch => Place::InScratch,
        };
        return Some(Scanned { offset, kind: Kind::Text, place });
    }
    let base64 = rest.strip_prefix(br#","base64":""#)?;
    scratch.clear();
    STANDARD.decode_vec(base64, scratch).ok()?;
    Some(Scanned { offset, kind: Kind::Binary, place: Place::InScratch })
}

/// A whole number as the protocol writes it.
#[inline]
fn whole(digits: &[u8]) -> Option<u64> {
    let plain = match digits {
        [b'0'] => true,
        [b'0', ..] | [] => false,
        _ => digits.len() <= 16,
    };
    let number = digits.iter().fold(0, |number: u64, digit| number.wrapping_mul(10) + u64::from(digit & 15));
    (plain && number < MOST_WHOLE).then_some(number)
}

enum Unescaped {
    AsItIs,
    InScratch,
}

/// What stands between quotes, as long as nothing but quotes and backslashes is escaped there; else `None`, as where it is not
/// the inside of a string. A control character, which may not stand there, is in no payload: it is found to be wrong there.
#[inline]
fn unescape(mut text: &[u8], scratch: &mut Vec<u8>) -> Option<Unescaped> {
    let Some(mut at) = memchr2(b'"', b'\\', text) else { return Some(Unescaped::AsItIs) };
    scratch.clear();
    loop {
        let (before, escape) = text.split_at(at);
        let [b'\\', escaped @ (b'"' | b'\\'), rest @ ..] = escape else { return None };
        scratch.extend_from_slice(before);
        scratch.push(*escaped);
        text = rest;
        match memchr2(b'"', b'\\', text) {
            Some(next) => at = next,
            None => break,
        }
    }
    scratch.extend_from_slice(text);
    Some(Unescaped::InScratch)
}

/// A message of the gateway, as far as it is looked at.
#[derive(Deserialize)]
struct Told<'a> {
    #[serde(borrow)]
    op: Cow<'a, str>,
    topic: Option<String>,
    offset: Option<u64>,
    from: Option<u64>,
    to: Option<u64>,
    text: Option<String>,
    base64: Option<String>,
}

/// Reads whatever comes.
#[cold]
fn parse<'a>(topic: &str, message: &'a [u8], scratch: &'a mut Vec<u8>) -> Incoming<'a> {
    let Ok(told) = serde_json::from_slice::<Told<'_>>(message) else { return Incoming::Garbled };
    let is_own = told.topic.as_deref() == Some(topic);
    match (&*told.op, told.topic.is_some()) {
        ("message" | "gap", true) if !is_own => Incoming::Foreign,
        ("message", true) => {
            scratch.clear();
            let kind = match (&told.text, &told.base64) {
                (Some(text), None) => {
                    scratch.extend_from_slice(text.as_bytes());
                    Kind::Text
                }
                (None, Some(base64)) if STANDARD.decode_vec(base64, scratch).is_ok() => Kind::Binary,
                _ => return Incoming::Garbled,
            };
            match told.offset {
                Some(offset) => Incoming::Delivery { kind, payload: scratch, offset: Some(offset) },
                None => Incoming::Garbled,
            }
        }
        ("gap", true) => match (told.from, told.to) {
            (Some(from), Some(to)) => Incoming::Gap { from, to },
            _ => Incoming::Garbled,
        },
        ("subscribed", true) if is_own => match told.offset {
            Some(offset) => Incoming::Subscribed { offset: Some(offset) },
            None => Incoming::Garbled,
        },
        ("message" | "gap" | "subscribed", _) => Incoming::Garbled,
        ("error", _) => Incoming::Rejected { why: message },
        _ => Incoming::Aside,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: &str = "t1_0";

    fn unwrap<'a>(message: &'a str, scratch: &'a mut Vec<u8>) -> Incoming<'a> {
        Tidegate.unwrap(TOPIC, Kind::Text, message.as_bytes(), scratch)
    }

    /// What the scan makes of it, if it takes it.
    fn scanned(message: &str) -> Option<(u64, Kind, Vec<u8>)> {
        let mut scratch = b"left over".to_vec();
        let Scanned { offset, kind, place } = scan(TOPIC, message.as_bytes(), &mut scratch)?;
        let payload = match place {
            Place::InMessage(range) => message.as_bytes()[range].to_vec(),
            Place::InScratch => scratch,
        };
        Some((offset, kind, payload))
    }

    /// The same, by the parser alone.
    fn parsed(message: &str) -> Option<(u64, Kind, Vec<u8>)> {
        let mut scratch = b"left over".to_vec();
        match parse(TOPIC, message.as_bytes(), &mut scratch) {
            Incoming::Delivery { kind, payload, offset } => Some((offset?, kind, payload.to_vec())),
            Incoming::Subscribed { .. }
            | Incoming::Gap { .. }
            | Incoming::Rejected { .. }
            | Incoming::Foreign
            | Incoming::Garbled
            | Incoming::Aside => None,
        }
    }

    #[test]
    fn what_is_published_comes_back_as_it_was() {
        let every_byte: Vec<u8> = (0..=255).collect();
        let texts = ["", "\\", "\"", "a\\b", "\\\\\"\\", "no escape at all", "\\end\\", "ü–😀\\"];
        let texts = texts.iter().map(|text| (Kind::Text, text.as_bytes().to_vec()));
        let bytes = (0..9).map(|len| (Kind::Binary, every_byte[250 - len..].to_vec()));
        for (kind, payload) in texts.chain(bytes).chain([(Kind::Binary, every_byte.clone())]) {
            let mut envelope = Vec::new();
            assert_eq!(Tidegate.wrap(TOPIC, kind, &payload, None, &mut envelope), Some(Kind::Text));
            let envelope = String::from_utf8(envelope).unwrap();
            let sent: serde_json::Value = serde_json::from_str(&envelope).unwrap();
            assert_eq!((&sent["op"], &sent["topic"]), (&"publish".into(), &TOPIC.into()), "{envelope}");
            // The gateway puts `op` and `topic` first, and the offset before the rest.
            let told = envelope
                .replace(r#""op":"publish""#, r#""op":"message""#)
                .replace(r#""topic":"t1_0","#, r#""topic":"t1_0","offset":9007199254740991,"#);
            let expected = Some((9_007_199_254_740_991, kind, payload));
            assert_eq!(scanned(&told), expected, "{told}");
            assert_eq!(parsed(&told), expected, "{told}");
        }
    }

    #[test]
    fn a_key_goes_with_what_is_published() {
        let mut envelope = Vec::new();
        Tidegate.wrap(TOPIC, Kind::Text, b"x", Some(7), &mut envelope);
        assert_eq!(envelope, br#"{"op":"publish","topic":"t1_0","key":"k7","text":"x"}"#);
    }

    #[test]
    fn the_scan_takes_nothing_that_the_parser_does_not() {
        let good = r#"{"op":"message","topic":"t1_0","offset":42,"text":"a\\b\"c"}"#;
        assert!(scanned(good).is_some());
        // Every message that differs in one byte, or lacks one, or ends earlier.
        let mut others = Vec::new();
        for at in 0..good.len() {
            others.push(good[..at].to_owned());
            others.push(good[..at].to_owned() + &good[at + 1..]);
            for byte in " \"\\,:{}0159ax".chars() {
                others.push(format!("{}{byte}{}", &good[..at], &good[at + 1..]));
                others.push(format!("{}{byte}{}", &good[..at], &good[at..]));
            }
        }
        let taken = others.iter().filter(|other| scanned(other).is_some());
        let mut count = 0;
        for other in taken {
            assert_eq!(scanned(other), parsed(other), "{other}");
            count += 1;
        }
        assert!(count > 100, "{count}: other offsets and texts are as good");
    }

    #[test]
    fn other_forms_of_the_same_are_parsed() {
        for (message, expected) in [
            (r#"{"offset":7,"text":"x","topic":"t1_0","op":"message"}"#, Kind::Text),
            (r#"{ "op": "message", "topic": "t1_0", "offset": 7, "text": "\u0078" }"#, Kind::Text),
            (r#"{"op":"message","topic":"\u00741_0","offset":7,"base64":"eA==","more":[1]}"#, Kind::Binary),
        ] {
            let mut scratch = Vec::new();
            let delivery = Incoming::Delivery { kind: expected, payload: b"x", offset: Some(7) };
            assert_eq!(unwrap(message, &mut scratch), delivery, "{message}");
        }
    }

    #[test]
    fn each_message_of_the_protocol_is_known() {
        let error = r#"{"op":"error","id":1,"code":"not_allowed","message":"no"}"#;
        for (message, expected) in [
            (r#"{"op":"hello","client":"pX3v9aK2","version":1,"ping":25}"#, Incoming::Aside),
            (
                r#"{"op":"subscribed","id":1,"topic":"t1_0","epoch":"9f86d081","offset":41}"#,
                Incoming::Subscribed { offset: Some(41) },
            ),
            (
                r#"{"op":"subscribed","id":1,"topic":"t1_1","epoch":"9f86d081","offset":41}"#,
                Incoming::Garbled,
            ),
            (
                r#"{"op":"gap","topic":"t1_0","from":44,"to":51,"reason":"slow"}"#,
                Incoming::Gap { from: 44, to: 51 },
            ),
            (r#"{"op":"gap","topic":"t1_0","from":44,"reason":"slow"}"#, Incoming::Garbled),
            (r#"{"op":"gap","topic":"t1_1","from":44,"to":51,"reason":"slow"}"#, Incoming::Foreign),
            (r#"{"op":"message","topic":"t1_1","offset":42,"text":"x"}"#, Incoming::Foreign),
            (r#"{"op":"message","topic":"t1_0","offset":42,"data":"x"}"#, Incoming::Garbled),
            (r#"{"op":"message","topic":"t1_0","offset":42,"text":"x","base64":"eA=="}"#, Incoming::Garbled),
            (r#"{"op":"message","topic":"t1_0","offset":42,"base64":"eA="}"#, Incoming::Garbled),
            (r#"{"op":"message","topic":"t1_0","text":"x"}"#, Incoming::Garbled),
            (r#"{"op":"message","topic":"t1_0","offset":42,"text":"x"#, Incoming::Garbled),
            (r#"{"op":"pong"}"#, Incoming::Aside),
            (error, Incoming::Rejected { why: error.as_bytes() }),
            ("[]", Incoming::Garbled),
        ] {
            let mut scratch = Vec::new();
            assert_eq!(unwrap(message, &mut scratch), expected, "{message}");
        }
        let mut scratch = Vec::new();
        assert_eq!(Tidegate.unwrap(TOPIC, Kind::Binary, b"{}", &mut scratch), Incoming::Garbled);
    }
}
