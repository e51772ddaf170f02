//! Bad input, row by row: heads and upgrades as a client sends them, answers as an upstream sends them. The ids are those
//! of the project's table of bad inputs; `req` reads its notation.

mod heads;
mod upgrades;
mod upstreams;

use std::fmt::Write;

use tidegate_wire::HeadLimits;
use tidegate_wire::extension::{DeflatePolicy, negotiate};
use tidegate_wire::handshake::{Accepted, switching_protocols, upgrade};
use tidegate_wire::http::{HeadScanner, Refusal, Request, Scan};

const KEY: [u8; 16] = *b"the sample nonce";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// `REQ` with its edits: `{-H}` drops a field, `{+H: v}` appends one, `{H=v}` replaces its value, `{line=…}` replaces the
/// request line.
fn req(edits: &str) -> Vec<u8> {
    let mut line = "GET /ws HTTP/1.1".to_owned();
    let mut fields: Vec<(String, String)> = [
        ("Host", "gw.test"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Version", "13"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec();
    if !edits.is_empty() {
        let inner =
            edits.strip_prefix('{').and_then(|edits| edits.strip_suffix('}')).expect("edits stand in braces");
        for edit in inner.split("}{") {
            if let Some(name) = edit.strip_prefix('-') {
                let before = fields.len();
                fields.retain(|field| field.0 != name);
                assert_eq!(fields.len(), before - 1, "{edit}");
            } else if let Some(field) = edit.strip_prefix('+') {
                let (name, value) = field.split_once(':').expect("a field has a colon");
                fields.push((name.to_owned(), value.trim_start_matches(' ').to_owned()));
            } else if let Some(new) = edit.strip_prefix("line=") {
                line = new.to_owned();
            } else {
                let (name, value) = edit.split_once('=').expect("an edit that replaces has an equals sign");
                fields.iter_mut().find(|field| field.0 == name).expect("a field of REQ").1 = value.to_owned();
            }
        }
    }
    let mut text = line + "\r\n";
    for (name, value) in fields {
        write!(text, "{name}: {value}\r\n").unwrap();
    }
    (text + "\r\n").into_bytes()
}

/// What came of a WebSocket route's input.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Refused(Refusal),
    /// The 101, and what was behind the head.
    Switched {
        answer: String,
        path: String,
        host: String,
        behind: Vec<u8>,
    },
    /// The head is not complete.
    Waits,
}

impl Verdict {
    fn status(&self) -> u16 {
        match self {
            Self::Refused(refusal) => refusal.status,
            Self::Switched { .. } => 101,
            Self::Waits => 0,
        }
    }

    fn has_field(&self, field: &str) -> bool {
        match self {
            Self::Refused(refusal) => contains(&refusal.response(false), &format!("\r\n{field}\r\n")),
            Self::Switched { answer, .. } => contains(answer.as_bytes(), &format!("\r\n{field}\r\n")),
            Self::Waits => false,
        }
    }
}

fn contains(text: &[u8], part: &str) -> bool {
    text.windows(part.len()).any(|window| window == part.as_bytes())
}

/// A WebSocket route that takes what comes, as the shard would: scan, parse, upgrade, negotiate, answer. The input arrives
/// in `chunks`.
fn route<'a>(chunks: impl IntoIterator<Item = &'a [u8]>, secure: bool) -> Verdict {
    let limits = HeadLimits::default();
    let mut received = Vec::new();
    let mut scanner = HeadScanner::new();
    let mut end = None;
    for chunk in chunks {
        received.extend_from_slice(chunk);
        if end.is_some() {
            continue;
        }
        match scanner.scan(&received, &limits) {
            Ok(Scan::Partial) => {}
            Ok(Scan::Complete(at)) => end = Some(at),
            Err(refusal) => return Verdict::Refused(refusal),
        }
    }
    let Some(end) = end else { return Verdict::Waits };
    let judged = Request::parse(&received[..end], &limits, secure).and_then(|request| {
        let upgrade = upgrade(&request)?;
        let mut answer = Vec::new();
        let extension = negotiate(&upgrade.offers, &DeflatePolicy::default());
        let protocol = upgrade.protocols.iter().copied().find(|protocol| *protocol == "chat");
        switching_protocols(
            &mut answer,
            &Accepted { key: upgrade.key, protocol, extension: extension.as_ref() },
        );
        Ok(Verdict::Switched {
            answer: String::from_utf8(answer).unwrap(),
            path: request.target.to_string(),
            host: request.host.to_owned(),
            behind: received[end..].to_vec(),
        })
    });
    judged.unwrap_or_else(Verdict::Refused)
}

/// The verdict, which must not depend on how the input is cut: whole, byte by byte, and (where it is short) in two at
/// every place.
fn serve(input: &[u8]) -> Verdict {
    let whole = route([input], false);
    assert_same(&route(input.chunks(1), false), &whole);
    if input.len() < 1024 {
        for at in 1..input.len() {
            let (left, right) = input.split_at(at);
            assert_same(&route([left, right], false), &whole);
        }
    }
    whole
}

/// A whole input may already show a later fault (too long) that one byte less did not, so of refusals only the status is
/// compared.
fn assert_same(cut: &Verdict, whole: &Verdict) {
    match (cut, whole) {
        (Verdict::Refused(cut), Verdict::Refused(whole)) => assert_eq!(cut.status, whole.status),
        (cut, whole) => assert_eq!(cut, whole),
    }
}

fn status(edits: &str) -> u16 {
    serve(&req(edits)).status()
}

/// Refused with this status, and the connection ends.
#[track_caller]
fn closes(input: &[u8], status: u16) {
    match serve(input) {
        Verdict::Refused(refusal) => {
            assert_eq!(refusal.status, status, "{}: {:?}", refusal.reason, String::from_utf8_lossy(input));
            assert!(refusal.close);
            assert!(contains(&refusal.response(false), "close\r\n"));
        }
        other => panic!("{:?} gives {other:?}", String::from_utf8_lossy(input)),
    }
}
