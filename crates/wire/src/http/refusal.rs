//! Answers that the gateway writes itself: refusals and small pages.

use std::io::Write;

/// Why a request is not served, ready to be answered. Everything in it is constant text: nothing that a peer sent is
/// reflected, so there is nothing to escape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status code.
    pub status: u16,
    /// One line for the log and for the body.
    pub reason: &'static str,
    /// Whether the connection ends after the answer. Bytes behind a refused head must then never be read as a request.
    pub close: bool,
    /// Fields that the status asks for.
    pub fields: &'static [(&'static str, &'static str)],
}

impl Refusal {
    /// 404 for a path that no route has.
    pub const NOT_FOUND: Self = Self::new(404, "no route has this host and path");
    /// 403 for an origin that the route does not list (RFC 6455 §4.2.2, §10.2).
    pub const ORIGIN: Self = Self::new(403, "this origin may not connect");
    /// 405 for a method that a page does not have.
    pub const PAGE_METHOD: Self =
        Self::new(405, "this resource has only GET and HEAD").with(&[("Allow", "GET, HEAD")]);
    /// 408 for a head that did not arrive in time.
    pub const TIMEOUT: Self = Self::new(408, "the request head did not arrive in time");
    /// 413 for a body that nothing here reads.
    pub const BODY_TOO_LARGE: Self = Self::new(413, "the request body is too large");
    /// 500 for a fault of the gateway itself.
    pub const INTERNAL: Self = Self::new(500, "the gateway failed");
    /// 502 for an upstream that cannot be reached or does not speak WebSocket.
    pub const BAD_GATEWAY: Self = Self::new(502, "the upstream did not accept the session");
    /// 503 for a gateway that is full or going down.
    pub const UNAVAILABLE: Self =
        Self::new(503, "the gateway takes no new sessions now").with(&[("Retry-After", "5")]);
    /// 504 for an upstream that did not answer in time.
    pub const GATEWAY_TIMEOUT: Self = Self::new(504, "the upstream did not answer in time");

    /// A refusal that closes the connection and has no extra fields.
    #[must_use]
    pub const fn new(status: u16, reason: &'static str) -> Self {
        Self { status, reason, close: true, fields: &[] }
    }

    /// A request that is not well-formed: 400.
    pub(crate) const fn bad(reason: &'static str) -> Self {
        Self::new(400, reason)
    }

    /// The same with these fields in its answer.
    #[must_use]
    pub const fn with(self, fields: &'static [(&'static str, &'static str)]) -> Self {
        Self { status: self.status, reason: self.reason, close: self.close, fields }
    }

    /// The complete HTTP/1.1 answer. `head_only` is for a HEAD request: the length is stated, the body left out.
    #[must_use]
    pub fn response(&self, head_only: bool) -> Vec<u8> {
        self.response_with(self.fields, head_only)
    }

    /// The same with `Date` ([`http_date`](super::http_date)).
    #[must_use]
    pub fn dated_response(&self, date: &str, head_only: bool) -> Vec<u8> {
        let fields: Vec<_> = [("Date", date)].into_iter().chain(self.fields.iter().copied()).collect();
        self.response_with(&fields, head_only)
    }

    fn response_with(&self, fields: &[(&str, &str)], head_only: bool) -> Vec<u8> {
        let mut body = Vec::with_capacity(96);
        body.extend_from_slice(phrase(self.status).as_bytes());
        body.extend_from_slice(b": ");
        body.extend_from_slice(self.reason.as_bytes());
        body.push(b'\n');
        page_response(self.status, "text/plain; charset=utf-8", &body, head_only, !self.close, fields)
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.status, self.reason)
    }
}

impl std::error::Error for Refusal {}

/// A complete HTTP/1.1 response with a body whose length is stated.
///
/// `extra` are further fields; `Connection` is written from `keep_alive` (and names `Upgrade` too where `extra` has
/// that field, RFC 9110 §7.8). `head_only` is for a HEAD request.
///
/// # Panics
/// If `content_type` or a field of `extra` has a byte that would end its line or a name that is no token.
#[must_use]
pub fn page_response(
    status: u16,
    content_type: &str,
    body: &[u8],
    head_only: bool,
    keep_alive: bool,
    extra: &[(&str, &str)],
) -> Vec<u8> {
    let mut out = Vec::with_capacity(256 + if head_only { 0 } else { body.len() });
    push_status_line(&mut out, status, phrase(status).as_bytes());
    push_field(&mut out, "Content-Type", content_type.as_bytes());
    push_number(&mut out, "Content-Length", body.len() as u64);
    let upgrade = extra.iter().any(|(name, _)| name.eq_ignore_ascii_case("upgrade"));
    let connection = match (upgrade, keep_alive) {
        (false, true) => "keep-alive",
        (false, false) => "close",
        (true, true) => "Upgrade",
        (true, false) => "Upgrade, close",
    };
    push_field(&mut out, "Connection", connection.as_bytes());
    for (name, value) in extra {
        push_field(&mut out, name, value.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    if !head_only {
        out.extend_from_slice(body);
    }
    out
}

/// The head of a 200 whose body has no length: in chunks (RFC 9112 §7.1), or up to the end of the connection, which
/// follows it in any case.
///
/// # Panics
/// If `content_type` or a field of `extra` has a byte that would end its line or a name that is no token.
#[must_use]
pub fn stream_head(content_type: &str, chunked: bool, extra: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    push_status_line(&mut out, 200, phrase(200).as_bytes());
    push_field(&mut out, "Content-Type", content_type.as_bytes());
    if chunked {
        push_field(&mut out, "Transfer-Encoding", b"chunked");
    }
    push_field(&mut out, "Connection", b"close");
    for (name, value) in extra {
        push_field(&mut out, name, value.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// `HTTP/1.1 STATUS PHRASE`.
pub(crate) fn push_status_line(out: &mut Vec<u8>, status: u16, phrase: &[u8]) {
    let _ = write!(out, "HTTP/1.1 {status:03} ");
    out.extend_from_slice(phrase);
    out.extend_from_slice(b"\r\n");
}

/// One field line.
///
/// # Panics
/// If it would be more than one line, or the name is no token: then a caller forwards something that was never
/// parsed.
pub(crate) fn push_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    assert!(super::is_token(name.as_bytes()), "a field name is a token");
    assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)), "a field value is one line");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn push_number(out: &mut Vec<u8>, name: &str, number: u64) {
    let _ = write!(out, "{name}: {number}\r\n");
}

/// The reason phrase of a status that the gateway sends itself.
const fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        207 => "Multi-Status",
        301 => "Moved Permanently",
        304 => "Not Modified",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        411 => "Length Required",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Status",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_one_complete_response() {
        let text = String::from_utf8(Refusal::NOT_FOUND.response(false)).unwrap();
        assert_eq!(
            text,
            "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 43\r\n\
             Connection: close\r\n\r\nNot Found: no route has this host and path\n"
        );
    }

    #[test]
    fn rfc9110_9_3_2_head_states_the_length_and_sends_no_body() {
        let full = Refusal::NOT_FOUND.response(false);
        let head = Refusal::NOT_FOUND.response(true);
        assert!(full.starts_with(&head));
        assert!(head.ends_with(b"\r\n\r\n"));
        assert_eq!(full.len() - head.len(), 43);
    }

    #[test]
    fn rfc9110_6_6_1_a_refusal_has_the_date_once_and_keeps_its_fields() {
        let text =
            String::from_utf8(Refusal::UNAVAILABLE.dated_response("Sun, 06 Nov 1994 08:49:37 GMT", true))
                .unwrap();
        assert_eq!(text.matches("\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n").count(), 1, "{text}");
        assert!(text.contains("\r\nRetry-After: 5\r\n"), "{text}");
    }

    #[test]
    fn rfc9110_7_8_an_upgrade_field_is_named_by_connection() {
        let text = String::from_utf8(page_response(
            426,
            "text/plain",
            b"",
            false,
            false,
            &[("Upgrade", "websocket")],
        ))
        .unwrap();
        assert!(text.contains("\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n"), "{text}");
    }

    #[test]
    fn a_page_keeps_the_connection_where_asked() {
        let text = String::from_utf8(page_response(200, "text/html", b"hi", false, true, &[])).unwrap();
        assert!(text.contains("\r\nConnection: keep-alive\r\n"));
        assert!(text.ends_with("\r\n\r\nhi"));
    }

    #[test]
    #[should_panic(expected = "one line")]
    fn a_field_with_a_line_break_is_a_fault_of_the_caller() {
        push_field(&mut Vec::new(), "X", b"a\r\nSet-Cookie: b");
    }
}
