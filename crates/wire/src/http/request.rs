//! A request's head.

use memchr::memchr;

use super::grammar::{decimal, is_token_byte};
use super::{Authority, Fields, HeadLimits, Refusal, Target, work};

/// The protocol version of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0: pages only; an `Upgrade` in it is ignored (RFC 9110 §7.8).
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// A request's head: well-formed, with one host and, if it has a body, one length.
#[derive(Clone, Debug)]
pub struct Request<'b> {
    /// The method; a token, compared with regard to case.
    pub method: &'b str,
    /// What is asked for.
    pub target: Target<'b>,
    /// The version.
    pub version: Version,
    /// The fields.
    pub fields: Fields<'b>,
    /// The authority that counts, as received: the target's in absolute form, else `Host`'s. Empty only in HTTP/1.0.
    pub host: &'b str,
    authority: Authority<'b>,
    content_length: Option<u64>,
    has_transfer_encoding: bool,
}

/// Whether what has come of a request, from its first byte on, asks with HEAD: then no answer has content, whatever becomes of the
/// rest of it (RFC 9110 §9.3.2).
#[must_use]
pub fn asks_for_head(bytes: &[u8]) -> bool {
    bytes.strip_prefix(b"\r\n").unwrap_or(bytes).starts_with(b"HEAD ")
}

impl<'b> Request<'b> {
    /// Parses exactly one head, its closing empty line included. `secure` says whether the connection is TLS.
    ///
    /// One empty line in front is skipped (RFC 9112 §2.2).
    ///
    /// # Errors
    /// 400, 414, 431 or 505; each closes the connection.
    pub fn parse(head: &'b [u8], limits: &HeadLimits, secure: bool) -> Result<Self, Refusal> {
        if head.len() > limits.head_bytes {
            return Err(HEAD_TOO_LONG);
        }
        let head = head.strip_prefix(b"\r\n").unwrap_or(head);
        let (line, section) = first_line(head)?;
        if line.len() > limits.request_line_bytes {
            return Err(LINE_TOO_LONG);
        }
        let (method, target, version) = request_line(line)?;
        let (method, target) = (text(method), text(target));
        let fields = Fields::parse(section, limits.fields)?;
        let (target, named) = Target::parse(target, secure)?;
        let authority = authority(&fields, version, named)?;
        let (content_length, has_transfer_encoding) = framing(&fields, version)?;
        Ok(Self {
            method,
            target,
            version,
            fields,
            host: authority.text,
            authority,
            content_length,
            has_transfer_encoding,
        })
    }

    /// The host of [`Self::host`], without the port: what routes match, without regard to case.
    #[must_use]
    pub fn host_name(&self) -> &'b str {
        self.authority.host
    }

    /// The port of [`Self::host`], where it names one.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.authority.port
    }

    /// Whether the connection may be used again after the answer (RFC 9112 §9.3).
    #[must_use]
    pub fn keep_alive(&self) -> bool {
        let close = self.fields.has_token("connection", "close");
        match self.version {
            Version::Http11 => !close,
            Version::Http10 => !close && self.fields.has_token("connection", "keep-alive"),
        }
    }

    /// The length of the body, `None` where there is no body.
    ///
    /// # Errors
    /// 411 for a chunked body, 501 for any other transfer coding: nothing here reads them, and where the body ends is
    /// then unknown.
    pub fn content_length(&self) -> Result<Option<u64>, Refusal> {
        if !self.has_transfer_encoding {
            return Ok(self.content_length);
        }
        match self.fields.one("transfer-encoding") {
            Ok(Some(coding)) if coding.eq_ignore_ascii_case("chunked") => {
                Err(Refusal::new(411, "a body needs a Content-Length"))
            }
            _ => Err(Refusal::new(501, "this transfer coding is not known")),
        }
    }

    /// Whether a `Transfer-Encoding` frames the body.
    #[must_use]
    pub fn has_transfer_encoding(&self) -> bool {
        self.has_transfer_encoding
    }

    /// Whether the request asks for a WebSocket: `Upgrade` names it, in HTTP/1.1.
    #[must_use]
    pub fn is_upgrade(&self) -> bool {
        self.version == Version::Http11 && self.fields.has_token("upgrade", "websocket")
    }

    /// Whether the client waits for `100 Continue` before it sends its body.
    #[must_use]
    pub fn expects_continue(&self) -> bool {
        self.version == Version::Http11 && self.fields.has_token("expect", "100-continue")
    }

    /// Whether the method is HEAD: the answer has no body.
    #[must_use]
    pub fn is_head(&self) -> bool {
        self.method == "HEAD"
    }

    /// Lets GET and HEAD pass, for a page.
    ///
    /// # Errors
    /// 405 for another method of HTTP, 501 for a method that is none.
    pub fn check_page_method(&self) -> Result<(), Refusal> {
        match self.method {
            "GET" | "HEAD" => Ok(()),
            method if is_known_method(method) => Err(Refusal::PAGE_METHOD),
            _ => Err(UNKNOWN_METHOD),
        }
    }
}

pub(super) const HEAD_TOO_LONG: Refusal = Refusal::new(431, "the head is too long");
pub(super) const LINE_TOO_LONG: Refusal = Refusal::new(414, "the first line is too long");
pub(crate) const UNKNOWN_METHOD: Refusal = Refusal::new(501, "this method is not known");

/// RFC 9110 §9 and RFC 5789.
pub(crate) fn is_known_method(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "CONNECT" | "OPTIONS" | "TRACE" | "PATCH")
}

/// The first line without its line end, and all that follows.
pub(super) fn first_line(head: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    let end = memchr(b'\n', head).ok_or(Refusal::bad("the head has no line"))?;
    let line = head[..end].strip_suffix(b"\r").ok_or(Refusal::bad("a line does not end with CR LF"))?;
    Ok((line, &head[end + 1..]))
}

/// RFC 9112 §3: `method SP request-target SP HTTP-version`, one space each, visible ASCII between them. One pass.
pub(super) fn request_line(line: &[u8]) -> Result<(&[u8], &[u8], Version), Refusal> {
    const MALFORMED: Refusal = Refusal::bad("the request line is not well-formed");
    work::examined(line.len());
    let Some((method, rest)) = word(line, is_token_byte) else { return Err(MALFORMED) };
    let Some((target, version)) = word(rest, |byte| byte.is_ascii_graphic()) else { return Err(MALFORMED) };
    let version = match version {
        b"HTTP/1.1" => Version::Http11,
        b"HTTP/1.0" => Version::Http10,
        // RFC 9110 §15.6.6. The HTTP/2 preface ends here: `PRI * HTTP/2.0`.
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            return Err(Refusal::new(505, "this version of HTTP is not spoken here"));
        }
        _ => return Err(MALFORMED),
    };
    Ok((method, target, version))
}

/// A word that is not empty, and what follows the space behind it.
fn word(text: &[u8], belongs: impl Fn(u8) -> bool) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|byte| !belongs(*byte))?;
    match text.split_at(end) {
        (word, [b' ', rest @ ..]) if !word.is_empty() => Some((word, rest)),
        _ => None,
    }
}

/// A word of the request line: its bytes were checked to be ASCII.
fn text(word: &[u8]) -> &str {
    std::str::from_utf8(word).expect("a word of the request line is ASCII")
}

/// RFC 9112 §3.2: one `Host` in HTTP/1.1, and valid; an authority in the target takes its place (§3.2.2).
fn authority<'b>(
    fields: &Fields<'b>,
    version: Version,
    named: Option<Authority<'b>>,
) -> Result<Authority<'b>, Refusal> {
    let field = match fields.one("host")? {
        Some(text) => Some(Authority::parse(text).ok_or(Refusal::bad("the Host field is not a host"))?),
        None if version == Version::Http11 => return Err(Refusal::bad("the Host field is missing")),
        None => None,
    };
    Ok(named.or(field).unwrap_or(Authority { text: "", host: "", port: None }))
}

/// RFC 9112 §6: where the body ends, if that can be said in one way only.
fn framing(fields: &Fields<'_>, version: Version) -> Result<(Option<u64>, bool), Refusal> {
    let length = match fields.one("content-length")? {
        // §6.3: not even `5, 5` is taken.
        Some(text) => Some(decimal(text).ok_or(Refusal::bad("the Content-Length is not a number"))?),
        None => None,
    };
    let has_transfer_encoding = fields.has("transfer-encoding");
    if has_transfer_encoding && length.is_some() {
        return Err(Refusal::bad("the body has both a Content-Length and a Transfer-Encoding"));
    }
    // §6.1: a server MUST treat HTTP/1.0 with Transfer-Encoding as faulty framing.
    if has_transfer_encoding && version == Version::Http10 {
        return Err(Refusal::bad("HTTP/1.0 has no Transfer-Encoding"));
    }
    Ok((length, has_transfer_encoding))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(head: &str) -> Result<Request<'_>, Refusal> {
        Request::parse(head.as_bytes(), &HeadLimits::default(), false)
    }

    #[test]
    fn a_request_borrows_everything_from_its_head() {
        let request = parse("GET /a?b HTTP/1.1\r\nHost: gw.test:81\r\nX: y\r\n\r\n").unwrap();
        assert_eq!(request.method, "GET");
        assert_eq!(request.target.to_string(), "/a?b");
        assert_eq!(request.version, Version::Http11);
        assert_eq!((request.host, request.host_name(), request.port()), ("gw.test:81", "gw.test", Some(81)));
        assert_eq!(request.fields.one("x"), Ok(Some("y")));
        assert!(request.keep_alive());
        assert_eq!(request.content_length(), Ok(None));
    }

    #[test]
    fn rfc9112_3_2_2_the_targets_authority_wins_over_host() {
        let request = parse("GET ws://a.test:1/ws HTTP/1.1\r\nHost: b.test:2\r\n\r\n").unwrap();
        assert_eq!((request.host, request.host_name(), request.port()), ("a.test:1", "a.test", Some(1)));
        assert_eq!(parse("GET ws://a.test/ws HTTP/1.1\r\n\r\n").unwrap_err().status, 400);
        assert_eq!(parse("GET ws://a.test/ws HTTP/1.1\r\nHost: b,c\r\n\r\n").unwrap_err().status, 400);
    }

    #[test]
    fn rfc9112_9_3_persistence() {
        for (head, keep) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nHost: a\r\nConnection: foo, Close\r\n\r\n", false),
            ("GET / HTTP/1.0\r\n\r\n", false),
            ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true),
            ("GET / HTTP/1.0\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n", false),
        ] {
            assert_eq!(parse(head).unwrap().keep_alive(), keep, "{head}");
        }
    }

    #[test]
    fn rfc9112_2_2_one_empty_line_in_front_is_skipped() {
        assert!(parse("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").is_ok());
        assert!(parse("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").is_err());
        assert!(parse("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").is_err());
    }

    #[test]
    fn rfc9112_6_3_a_length_is_one_plain_number() {
        let with = |value: &str| {
            parse(&format!("POST / HTTP/1.1\r\nHost: a\r\n{value}\r\n\r\n"))
                .map(|request| request.content_length())
        };
        assert_eq!(with("Content-Length: 5"), Ok(Ok(Some(5))));
        assert_eq!(with("Content-Length: 0005"), Ok(Ok(Some(5))));
        for bad in
            ["", "+5", "-5", "5, 5", "5,5", "5 5", "0x5", "5.0", "\u{665}", "18446744073709551616", "٥"]
        {
            assert_eq!(with(&format!("Content-Length: {bad}")).unwrap_err().status, 400, "{bad:?}");
        }
        assert_eq!(with("Content-Length: 5\r\nContent-Length: 5").unwrap_err().status, 400);
        assert_eq!(with("Content-Length: 5\r\nTransfer-Encoding: chunked").unwrap_err().status, 400);
        assert_eq!(with("Transfer-Encoding: chunked").unwrap().unwrap_err().status, 411);
        assert_eq!(with("Transfer-Encoding: gzip, chunked").unwrap().unwrap_err().status, 501);
        assert_eq!(
            with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked").unwrap().unwrap_err().status,
            501
        );
        assert_eq!(with("Transfer-Encoding: ").unwrap().unwrap_err().status, 501);
    }

    #[test]
    fn rfc9110_15_5_6_pages_have_get_and_head() {
        for (method, status) in [("POST", 405), ("OPTIONS", 405), ("PATCH", 405), ("get", 501), ("BREW", 501)]
        {
            let head = format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n");
            let refusal = parse(&head).unwrap().check_page_method().unwrap_err();
            assert_eq!(refusal.status, status);
            assert_eq!(refusal.fields.contains(&("Allow", "GET, HEAD")), status == 405);
        }
        assert!(parse("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap().check_page_method().is_ok());
        assert!(parse("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap().is_head());
    }

    #[test]
    fn rfc9110_10_1_1_a_client_may_wait_for_100() {
        assert!(
            parse("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\n\r\n").unwrap().expects_continue()
        );
        assert!(!parse("POST / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n").unwrap().expects_continue());
    }
}
