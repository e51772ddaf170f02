//! A response's head, as an upstream sends it.

use super::grammar::decimal;
use super::refusal::push_status_line;
use super::request::{HEAD_TOO_LONG, LINE_TOO_LONG, first_line};
use super::{Fields, HeadLimits, Refusal, Version, push_field, work};
use crate::handshake::is_hop_by_hop;

/// A response's head.
#[derive(Clone, Debug)]
pub struct ResponseHead<'b> {
    /// 100 to 599.
    pub status: u16,
    /// The reason phrase; empty where it is not UTF-8.
    pub reason: &'b str,
    /// The version.
    pub version: Version,
    /// The fields.
    pub fields: Fields<'b>,
}

/// Where a response's body ends (RFC 9112 §6.3, for an answer to a GET).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    Empty,
    /// After so many bytes.
    Length(u64),
    /// With the last chunk.
    Chunked,
    /// With the connection.
    UntilClose,
}

/// What is wrong with an upstream's answer. Constant text only: nothing of the answer is reflected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadResponse {
    /// The head is not well-formed, or too long; the text says how.
    Head(&'static str),
    /// The body is framed in two ways, or in one that is not known.
    Framing,
    /// Not a 101 but this status.
    Status(u16),
    /// A 101 in HTTP/1.0.
    Version,
    /// `Upgrade` is not exactly `websocket`.
    Upgrade,
    /// `Connection` does not name `Upgrade`.
    Connection,
    /// `Sec-WebSocket-Accept` is missing, doubled or not the one that the key asks for.
    Accept,
    /// A subprotocol that was not offered, or more than one.
    Protocol,
    /// An extension that was not offered, or parameters that the offer does not allow.
    Extension,
    /// A 101 that announces a body.
    Body,
}

impl BadResponse {
    /// One line for the log.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Head(reason) => reason,
            Self::Framing => "the response's body is framed in more than one way",
            Self::Status(_) => "the response is not a 101",
            Self::Version => "the 101 is not HTTP/1.1",
            Self::Upgrade => "the 101 does not upgrade to websocket",
            Self::Connection => "the Connection field of the 101 does not name Upgrade",
            Self::Accept => "the 101 does not answer the key",
            Self::Protocol => "the 101 selects a subprotocol that was not offered",
            Self::Extension => "the 101 selects an extension that was not offered",
            Self::Body => "the 101 announces a body",
        }
    }
}

impl std::fmt::Display for BadResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for BadResponse {}

impl From<Refusal> for BadResponse {
    /// A response's head is scanned and parsed by the same code as a request's.
    fn from(refusal: Refusal) -> Self {
        Self::Head(refusal.reason)
    }
}

impl<'b> ResponseHead<'b> {
    /// Parses exactly one head, its closing empty line included.
    ///
    /// # Errors
    /// [`BadResponse::Head`].
    pub fn parse(head: &'b [u8], limits: &HeadLimits) -> Result<Self, BadResponse> {
        if head.len() > limits.head_bytes {
            return Err(HEAD_TOO_LONG.into());
        }
        let (line, section) = first_line(head)?;
        if line.len() > limits.request_line_bytes {
            return Err(LINE_TOO_LONG.into());
        }
        let (version, status, reason) = status_line(line)?;
        let fields = Fields::parse(section, limits.fields)?;
        Ok(Self { status, reason, version, fields })
    }

    /// Where the body of this answer to a GET ends.
    ///
    /// # Errors
    /// [`BadResponse::Framing`].
    pub fn framing(&self) -> Result<Framing, BadResponse> {
        let length = match self.fields.one("content-length").map_err(|_| BadResponse::Framing)? {
            Some(text) => Some(decimal(text).ok_or(BadResponse::Framing)?),
            None => None,
        };
        let coding = self.fields.one("transfer-encoding").map_err(|_| BadResponse::Framing)?;
        match (self.status, coding, length) {
            (100..200 | 204 | 304, _, _) => Ok(Framing::Empty),
            (_, Some(coding), None)
                if coding.eq_ignore_ascii_case("chunked") && self.version == Version::Http11 =>
            {
                Ok(Framing::Chunked)
            }
            (_, Some(_), _) => Err(BadResponse::Framing),
            (_, None, Some(length)) => Ok(Framing::Length(length)),
            (_, None, None) => Ok(Framing::UntilClose),
        }
    }

    /// Writes this head for the client of a refused upgrade: the end-to-end fields, the framing as it came (no length with 204), and
    /// `Connection: close`, and `date` where it has none of its own ([`http_date`](super::http_date)). The body follows as
    /// the upstream sends it.
    ///
    /// # Errors
    /// [`BadResponse::Framing`]; nothing is written then.
    ///
    /// # Panics
    /// If the status is 1xx: those are not final, and a 101 is never relayed.
    pub fn relay(&self, out: &mut Vec<u8>, date: &str) -> Result<Framing, BadResponse> {
        let framing = self.framing()?;
        // RFC 9110 §8.6: with 204 no length may stand. That of a 304 is what a 200 would have had.
        let has_length = self.status != 204;
        self.relay_fields(out, date, |name| has_length || !name.eq_ignore_ascii_case("content-length"));
        if framing == Framing::Chunked {
            push_field(out, "Transfer-Encoding", b"chunked");
        }
        self.end_relayed(out);
        Ok(framing)
    }

    /// The same where the body is left out: what says something of that goes with it, and nobody keeps the answer. What the status
    /// needs (`WWW-Authenticate`, `Location`, `Retry-After`) stays.
    ///
    /// # Panics
    /// As [`relay`](Self::relay).
    pub fn relay_without_body(&self, out: &mut Vec<u8>, date: &str) {
        self.relay_fields(out, date, |name| !tells_of_body(name));
        push_field(out, "Content-Length", b"0");
        push_field(out, "Cache-Control", b"no-store");
        self.end_relayed(out);
    }

    /// The status line and the end-to-end fields that `keeps` lets through.
    fn relay_fields(&self, out: &mut Vec<u8>, date: &str, keeps: impl Fn(&str) -> bool) {
        assert!(self.status >= 200, "only a final response is relayed");
        push_status_line(out, self.status, self.reason.as_bytes());
        // RFC 9110 §6.6.1: who forwards an answer without a date adds it.
        if self.fields.all("date").next().is_none() {
            push_field(out, "Date", date.as_bytes());
        }
        for (name, value) in self.fields.iter() {
            if keeps(name) && !is_hop_by_hop(name, self.fields.list("connection")) {
                push_field(out, name, value);
            }
        }
    }

    /// What becomes of the connection, and the end of the head.
    fn end_relayed(&self, out: &mut Vec<u8>) {
        // RFC 9110 §15.5.22: a 426 MUST say to what; nothing but websocket is ever spoken here.
        if self.status == 426 {
            push_field(out, "Upgrade", b"websocket");
            push_field(out, "Connection", b"Upgrade, close");
        } else {
            push_field(out, "Connection", b"close");
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// Whether a field describes the body, or says how long the whole may be kept.
fn tells_of_body(name: &str) -> bool {
    const PREFIX: &str = "content-";
    const OTHERS: [&str; 8] = [
        "accept-ranges",
        "age",
        "cache-control",
        "etag",
        "expires",
        "last-modified",
        "pragma",
        "repr-digest",
    ];
    name.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
        || OTHERS.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// RFC 9112 §4: `HTTP-version SP status-code SP [ reason-phrase ]`; the last space may be missing, as many servers
/// leave it out.
pub(super) fn status_line(line: &[u8]) -> Result<(Version, u16, &str), Refusal> {
    const MALFORMED: Refusal = Refusal::bad("the status line is not well-formed");
    work::examined(line.len());
    let (version, rest) = if let Some(rest) = line.strip_prefix(b"HTTP/1.1 ") {
        (Version::Http11, rest)
    } else if let Some(rest) = line.strip_prefix(b"HTTP/1.0 ") {
        (Version::Http10, rest)
    } else {
        return Err(MALFORMED);
    };
    let Some((digits, rest)) = rest.split_at_checked(3) else { return Err(MALFORMED) };
    let [a @ b'1'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9'] = digits else { return Err(MALFORMED) };
    let status = [a, b, c].into_iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0'));
    let reason = match rest {
        [] => rest,
        [b' ', reason @ ..] => reason,
        _ => return Err(MALFORMED),
    };
    if reason.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
        return Err(MALFORMED);
    }
    Ok((version, status, std::str::from_utf8(reason).unwrap_or("")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    fn framing(head: &str) -> Result<Framing, BadResponse> {
        ResponseHead::parse(head.as_bytes(), &HeadLimits::default())?.framing()
    }

    #[test]
    fn rfc9112_6_3_a_body_ends_in_one_way() {
        for (head, expected) in [
            ("HTTP/1.1 200 OK\r\n\r\n", Ok(Framing::UntilClose)),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Ok(Framing::Length(5))),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", Ok(Framing::Chunked)),
            ("HTTP/1.1 204 OK\r\nContent-Length: 5\r\n\r\n", Ok(Framing::Empty)),
            ("HTTP/1.1 304 OK\r\n\r\n", Ok(Framing::Empty)),
            ("HTTP/1.1 101 OK\r\n\r\n", Ok(Framing::Empty)),
            ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Err(BadResponse::Framing)),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Err(BadResponse::Framing)),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
                Err(BadResponse::Framing),
            ),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", Err(BadResponse::Framing)),
            ("HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n", Err(BadResponse::Framing)),
            ("HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n", Err(BadResponse::Framing)),
        ] {
            assert_eq!(framing(head), expected, "{head}");
        }
    }

    #[test]
    fn rfc9112_4_a_status_line_may_lack_its_reason() {
        for (line, status, reason) in [
            ("HTTP/1.1 101 Switching Protocols", 101, "Switching Protocols"),
            ("HTTP/1.1 200", 200, ""),
            ("HTTP/1.1 200 ", 200, ""),
            ("HTTP/1.0 599 caf\u{e9}", 599, "caf\u{e9}"),
        ] {
            let (_, parsed, text) = status_line(line.as_bytes()).unwrap();
            assert_eq!((parsed, text), (status, reason));
        }
        assert_eq!(status_line(b"HTTP/1.1 200 caf\xe9").unwrap().2, "");
    }

    #[test]
    fn a_status_line_is_as_long_as_a_request_line_at_most() {
        let limits = HeadLimits { request_line_bytes: 20, ..HeadLimits::default() };
        assert!(ResponseHead::parse(b"HTTP/1.1 200 abcdefg\r\n\r\n", &limits).is_ok());
        assert!(ResponseHead::parse(b"HTTP/1.1 200 abcdefgh\r\n\r\n", &limits).is_err());
    }

    #[test]
    fn a_chunked_refusal_is_relayed_as_chunked() {
        let head = b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n";
        let mut out = Vec::new();
        let framing =
            ResponseHead::parse(head, &HeadLimits::default()).unwrap().relay(&mut out, DATE).unwrap();
        assert_eq!(framing, Framing::Chunked);
        assert_eq!(
            out,
            format!(
                "HTTP/1.1 403 No\r\nDate: {DATE}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
            )
            .into_bytes()
        );
    }

    #[test]
    fn rfc9110_8_6_a_204_is_relayed_without_a_length() {
        for (status, length) in [("204", ""), ("304", "content-length: 5\r\n")] {
            let head = format!("HTTP/1.1 {status} No\r\nDate: {DATE}\r\ncontent-length: 5\r\nX-A: 1\r\n\r\n");
            let mut out = Vec::new();
            let answer = ResponseHead::parse(head.as_bytes(), &HeadLimits::default()).unwrap();
            assert_eq!(answer.relay(&mut out, DATE), Ok(Framing::Empty), "{status}");
            let expected = format!(
                "HTTP/1.1 {status} No\r\nDate: {DATE}\r\n{length}X-A: 1\r\nConnection: close\r\n\r\n"
            );
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn rfc9110_6_6_1_a_relayed_answer_keeps_its_date() {
        let head = b"HTTP/1.1 403 No\r\ndate: Mon, 07 Nov 1994 08:49:37 GMT\r\nContent-Length: 0\r\n\r\n";
        let mut out = Vec::new();
        ResponseHead::parse(head, &HeadLimits::default()).unwrap().relay(&mut out, DATE).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.contains("\r\ndate: Mon, 07 Nov 1994 08:49:37 GMT\r\n") && !text.contains(DATE),
            "{text}"
        );
    }

    #[test]
    fn a_refusal_that_is_framed_twice_is_not_relayed() {
        let head = b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n";
        let mut out = Vec::new();
        let relayed = ResponseHead::parse(head, &HeadLimits::default()).unwrap().relay(&mut out, DATE);
        assert_eq!((relayed, out.len()), (Err(BadResponse::Framing), 0));
    }
}
