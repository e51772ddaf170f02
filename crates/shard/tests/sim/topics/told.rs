//! What the gateway says in JSON, read by `serde_json`.

use serde::Deserialize;
use serde_json::value::RawValue;
use tidegate_hub::{Epoch, Position};

use super::judge::Format;

/// Any message of the protocol; also an event's data, a poll's answer and the results of a publication.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Told<'a> {
    pub(crate) op: String,
    pub(crate) id: Option<u64>,
    pub(crate) client: Option<String>,
    pub(crate) version: Option<u64>,
    pub(crate) ping: Option<u64>,
    pub(crate) topic: String,
    pub(crate) epoch: Option<String>,
    pub(crate) offset: Option<u64>,
    pub(crate) recovered: Option<bool>,
    pub(crate) pattern_offset: Option<u64>,
    #[serde(borrow)]
    pub(crate) data: Option<&'a RawValue>,
    pub(crate) text: Option<String>,
    pub(crate) base64: Option<String>,
    pub(crate) level: String,
    pub(crate) duplicate: bool,
    pub(crate) from: Option<u64>,
    pub(crate) to: Option<u64>,
    pub(crate) reason: String,
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) info: Option<&'a RawValue>,
    pub(crate) count: Option<u64>,
    pub(crate) clients: Vec<Told<'a>>,
    pub(crate) messages: Option<Vec<Told<'a>>>,
    pub(crate) topics: Vec<Told<'a>>,
    pub(crate) position: Option<String>,
    pub(crate) results: Option<Vec<Told<'a>>>,
    pub(crate) error: Option<Box<Told<'a>>>,
    pub(crate) subscribers: Option<u64>,
    pub(crate) history: Option<u64>,
    pub(crate) present: Option<u64>,
}

impl<'a> Told<'a> {
    /// # Panics
    /// Where it is not what the protocol knows.
    pub(crate) fn read(bytes: &'a [u8]) -> Told<'a> {
        serde_json::from_slice(bytes)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(bytes)))
    }

    /// Its position.
    pub(crate) fn at(&self) -> Position {
        let epoch = self.epoch.as_deref().unwrap_or_else(|| panic!("a position without epoch: {self:?}"));
        Position { epoch: epoch_of(epoch), offset: self.offset.expect("a position has an offset") }
    }

    /// Its content.
    pub(crate) fn content(&self) -> (Format, Vec<u8>) {
        match (self.data, &self.text, &self.base64) {
            (Some(data), None, None) => (Format::Json, data.get().as_bytes().to_vec()),
            (None, Some(text), None) => (Format::Text, text.clone().into_bytes()),
            (None, None, Some(base64)) => (Format::Binary, unbase64(base64)),
            _ => panic!("a message with no content, or with two: {self:?}"),
        }
    }
}

pub(crate) fn epoch_of(text: &str) -> Epoch {
    assert_eq!(text.len(), 8, "an epoch {text:?}");
    Epoch(u32::from_str_radix(text, 16).unwrap_or_else(|_| panic!("an epoch {text:?}")))
}

/// `EPOCH-OFFSET`.
pub(crate) fn position_of(text: &str) -> Position {
    let (epoch, offset) = text.split_once('-').unwrap_or_else(|| panic!("a position {text:?}"));
    Position { epoch: epoch_of(epoch), offset: offset.parse().expect("an offset in digits") }
}

pub(crate) fn position_text(at: Position) -> String {
    format!("{:08x}-{}", at.epoch.0, at.offset)
}

/// RFC 4648 §4, with padding.
fn unbase64(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(4), "base64 without padding: {text:?}");
    let mut out = Vec::new();
    for chunk in text.as_bytes().chunks(4) {
        let sextet = |byte: u8| match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => 0,
            other => panic!("{other} in base64"),
        };
        let word = chunk.iter().fold(0, |word, byte| word << 6 | u32::from(sextet(*byte)));
        let padding = chunk.iter().filter(|byte| **byte == b'=').count();
        out.extend(&word.to_be_bytes()[1..4 - padding]);
    }
    out
}
