//! Finding the end of a head while its bytes arrive.

use memchr::memchr;

use super::fields::TOO_MANY_FIELDS;
use super::grammar::is_token_byte;
use super::request::{HEAD_TOO_LONG, LINE_TOO_LONG, request_line};
use super::response::status_line;
use super::{HeadLimits, Refusal, work};

/// What [`HeadScanner::scan`] knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// The head ends before this index.
    Complete(usize),
    /// More bytes are needed.
    Partial,
}

/// Finds the end of a head, and refuses as soon as no continuation could make it one.
///
/// It remembers how far it has looked: every byte is searched once for its line's end, and the first line is checked
/// once more when it is complete, so the work is at most two passes (and a constant for the first few bytes) however
/// the bytes are cut. CVE-2023-43669 was a parser that began anew at every read.
#[derive(Clone, Debug)]
pub struct HeadScanner {
    kind: Kind,
    stage: Stage,
    /// Every byte before it was searched.
    looked: u32,
    /// Where the line that is being looked for begins.
    line: u32,
    /// Complete field lines.
    fields: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Request,
    Response,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing yet.
    Start,
    /// One empty line was skipped.
    Skipped,
    /// The first line was taken.
    Fields,
}

/// How much of an incomplete request line is looked at early: longer than any method.
const PREFIX: usize = 16;

impl HeadScanner {
    /// A scanner for one request.
    #[must_use]
    pub const fn new() -> Self {
        Self { kind: Kind::Request, stage: Stage::Start, looked: 0, line: 0, fields: 0 }
    }

    /// A scanner for one response; its refusals say in their reason what is wrong, their status means nothing.
    #[must_use]
    pub const fn for_response() -> Self {
        Self { kind: Kind::Response, ..Self::new() }
    }

    /// Looks at what has come since the last call. `bytes` is everything received so far, from the head's first byte
    /// on; it may hold more than the head.
    ///
    /// # Errors
    /// 400, 414, 431 or 505. The caller answers once and stops reading.
    pub fn scan(&mut self, bytes: &[u8], limits: &HeadLimits) -> Result<Scan, Refusal> {
        let limit = limits.head_bytes.min(u32::MAX as usize);
        let within = &bytes[..bytes.len().min(limit)];
        let mut from = within.len().min(self.looked as usize);
        while let Some(length) = memchr(b'\n', &within[from..]) {
            work::examined(length + 1);
            let line = &within[self.line as usize..from + length];
            from += length + 1;
            self.looked = from as u32;
            self.line = self.looked;
            if let Some(complete) = self.take_line(line, limits)? {
                return Ok(complete);
            }
        }
        work::examined(within.len() - from);
        self.looked = within.len() as u32;
        if self.stage != Stage::Fields {
            let line = self.line as usize;
            self.check_start(&within[line..], from - line, limits)?;
        }
        // A head of exactly the limit would have ended by now.
        if within.len() >= limit { Err(HEAD_TOO_LONG) } else { Ok(Scan::Partial) }
    }

    /// One line, without its LF.
    fn take_line(&mut self, line: &[u8], limits: &HeadLimits) -> Result<Option<Scan>, Refusal> {
        if self.stage != Stage::Fields {
            self.check_length(line, limits)?;
        }
        let line = line.strip_suffix(b"\r").ok_or(Refusal::bad("a line does not end with CR LF"))?;
        match (self.stage, self.kind) {
            (Stage::Fields, _) if line.is_empty() => return Ok(Some(Scan::Complete(self.looked as usize))),
            (Stage::Fields, _) => {
                self.fields += 1;
                if self.fields as usize > limits.fields {
                    return Err(TOO_MANY_FIELDS);
                }
            }
            // RFC 9112 §2.2: a server SHOULD ignore at least one empty line before the request line.
            (Stage::Start, Kind::Request) if line.is_empty() => self.stage = Stage::Skipped,
            (_, Kind::Request) => {
                request_line(line)?;
                self.stage = Stage::Fields;
            }
            (_, Kind::Response) => {
                status_line(line)?;
                self.stage = Stage::Fields;
            }
        }
        Ok(None)
    }

    /// The beginning of a first line whose end has not come: not longer than a line may be, and not something else
    /// altogether (a TLS record, say, would otherwise wait for the time-out). `seen` bytes of it came before.
    fn check_start(&self, line: &[u8], seen: usize, limits: &HeadLimits) -> Result<(), Refusal> {
        self.check_length(line, limits)?;
        if seen < PREFIX { self.check_prefix(line) } else { Ok(()) }
    }

    /// A line that is too long is still refused for its beginning first, so that the verdict does not depend on how
    /// much of it came at once.
    fn check_length(&self, line: &[u8], limits: &HeadLimits) -> Result<(), Refusal> {
        if line.len() <= limits.request_line_bytes.saturating_add(1) {
            return Ok(());
        }
        self.check_prefix(line)?;
        Err(LINE_TOO_LONG)
    }

    fn check_prefix(&self, line: &[u8]) -> Result<(), Refusal> {
        let prefix = &line[..line.len().min(PREFIX)];
        work::examined(prefix.len());
        let fits = match self.kind {
            Kind::Response => prefix.iter().zip(b"HTTP/1.").all(|(byte, expected)| byte == expected),
            Kind::Request if self.stage == Stage::Start && prefix == b"\r" => true,
            Kind::Request => {
                let method = prefix.iter().take_while(|byte| is_token_byte(**byte)).count();
                method == prefix.len() || (method > 0 && prefix[method] == b' ')
            }
        };
        if fits { Ok(()) } else { Err(Refusal::bad("this is not HTTP/1.1")) }
    }
}

impl Default for HeadScanner {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits =
        HeadLimits { head_bytes: 16 * 1024, request_line_bytes: 8 * 1024, fields: 100 };

    /// Feeds `bytes` in pieces of `step`; the bytes looked at, and the verdict.
    fn feed(mut scanner: HeadScanner, bytes: &[u8], step: usize) -> (usize, Result<Scan, Refusal>) {
        work::take();
        let mut end = 0;
        loop {
            end = bytes.len().min(end + step);
            let verdict = scanner.scan(&bytes[..end], &LIMITS);
            if verdict != Ok(Scan::Partial) || end == bytes.len() {
                return (work::take(), verdict);
            }
        }
    }

    /// What the look at the first bytes may cost: each of the first `PREFIX` arrivals looks at no more than `PREFIX`.
    const START: usize = PREFIX * PREFIX;

    #[test]
    fn every_byte_is_looked_at_twice_at_most_however_it_arrives() {
        let field = format!("X: {}\r\n", "a".repeat(7000));
        let heads = [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            format!("GET /{} HTTP/1.1\r\nHost: a\r\n{field}\r\n", "a".repeat(8000)),
            format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "M".repeat(8000)),
            format!("GET / HTTP/1.1\r\n{}\r\n", "a:b\r\n".repeat(100)),
            format!("\r\nGET / HTTP/1.1\r\n{field}{field}\r\n"),
        ];
        for head in &heads {
            for step in [1, 2, 3, 7, 100, 1448, 100_000] {
                let (examined, verdict) = feed(HeadScanner::new(), head.as_bytes(), step);
                assert_eq!(verdict, Ok(Scan::Complete(head.len())));
                assert!(
                    examined <= 2 * head.len() + START,
                    "{examined} for {} in steps of {step}",
                    head.len()
                );
            }
        }
    }

    #[test]
    fn what_is_refused_costs_no_more_than_its_limit() {
        let endless = [
            "a".repeat(1 << 20),
            format!("GET /{}", "a".repeat(1 << 20)),
            format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(1 << 20)),
            format!("GET / HTTP/1.1\r\n{}", "a:b\r\n".repeat(1 << 16)),
            format!("GET / HTTP/1.1\r\n{}", "a\r\n".repeat(1 << 16)),
        ];
        for (input, status) in endless.iter().zip([414, 414, 431, 431, 431]) {
            for step in [1, 5, 1448, 1 << 21] {
                let (examined, verdict) = feed(HeadScanner::new(), input.as_bytes(), step);
                assert_eq!(verdict.unwrap_err().status, status, "{:.20} in steps of {step}", input);
                assert!(examined <= 2 * LIMITS.head_bytes + START, "{examined} in steps of {step}");
            }
        }
    }

    #[test]
    fn parsing_after_the_scan_looks_at_the_request_line_once_more() {
        let head = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(8000));
        work::take();
        super::super::Request::parse(head.as_bytes(), &LIMITS, false).unwrap();
        assert!(work::take() <= head.len() + 64);
    }

    #[test]
    fn what_follows_the_head_is_not_looked_at() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let input = [&head[..], &[b'\n'; 30_000]].concat();
        let (examined, verdict) = feed(HeadScanner::new(), &input, input.len());
        assert_eq!(verdict, Ok(Scan::Complete(head.len())));
        assert_eq!(examined, head.len() + "GET / HTTP/1.1".len());
    }

    #[test]
    fn a_buffer_of_exactly_the_limit_never_waits() {
        let limits = HeadLimits { head_bytes: 64, ..LIMITS };
        let head = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(64 - 23));
        assert_eq!(head.len(), 64);
        assert_eq!(HeadScanner::new().scan(head.as_bytes(), &limits), Ok(Scan::Complete(64)));
        assert_eq!(HeadScanner::new().scan(&head.as_bytes()[..63], &limits), Ok(Scan::Partial));
        let longer = head.replace("X: ", "X: a");
        assert_eq!(HeadScanner::new().scan(&longer.as_bytes()[..64], &limits), Err(HEAD_TOO_LONG));
        assert_eq!(HeadScanner::new().scan(longer.as_bytes(), &limits), Err(HEAD_TOO_LONG));
    }

    #[test]
    fn the_line_beyond_the_limit_is_refused_before_the_head_ends() {
        let lines = |count| format!("GET / HTTP/1.1\r\n{}", "a:b\r\n".repeat(count));
        assert_eq!(HeadScanner::new().scan(lines(100).as_bytes(), &LIMITS), Ok(Scan::Partial));
        assert_eq!(HeadScanner::new().scan(lines(101).as_bytes(), &LIMITS), Err(TOO_MANY_FIELDS));
    }

    #[test]
    fn a_scanner_is_small() {
        assert!(size_of::<HeadScanner>() <= 16);
    }

    #[test]
    fn the_start_of_something_else_is_refused_at_once() {
        for bad in [
            &b"\x16"[..],
            b"\0",
            b" ",
            b"\n",
            b"\r\r",
            b"\r\n\r\n",
            b"\r\n ",
            b"G\xff",
            b"GET\r",
            b"GET\t",
            b"<html>",
            b"{",
        ] {
            assert!(HeadScanner::new().scan(bad, &LIMITS).is_err(), "{bad:?}");
        }
        for good in [&b""[..], b"\r", b"\r\n", b"\r\nG", b"G", b"GET ", b"GET /", b"GET / HTTP/1.1\r"] {
            assert_eq!(HeadScanner::new().scan(good, &LIMITS), Ok(Scan::Partial), "{good:?}");
        }
        for bad in [&b"h"[..], b"\r", b"\r\n", b"HTTP/2", b"SSH-2.0"] {
            assert!(HeadScanner::for_response().scan(bad, &LIMITS).is_err(), "{bad:?}");
        }
        assert_eq!(HeadScanner::for_response().scan(b"HTTP/1.", &LIMITS), Ok(Scan::Partial));
    }
}
