//! Request targets and authorities (RFC 9112 §3.2, RFC 3986).
//!
//! A target is taken only in the one form that can mean one thing: no empty segment, no dot segment, no parameter, no
//! escaped byte that need not be escaped. So the path that a route is matched against is, byte for byte, the path
//! that an upstream sees, and no server behind can fold it into another. What is left open: the case of the digits in an
//! escape that must be one (`%c3` is `%C3`); clients write both.

use std::{fmt, net::Ipv6Addr};

use super::Refusal;
use super::grammar::{decimal, hex, is_host_byte, is_path_byte, is_query_byte, is_unreserved};

/// What is asked for. Its text is the origin form, byte for byte as received: to be forwarded so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'b> {
    /// The path: begins with `/`.
    pub path: &'b str,
    /// What follows the first `?`.
    pub query: Option<&'b str>,
}

/// `host [ ":" port ]`, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority<'b> {
    /// The whole of it as received.
    pub text: &'b str,
    /// A name, an IPv4 address or an IPv6 address in brackets; as received, so compare without regard to case.
    pub host: &'b str,
    /// The port, where one is given.
    pub port: Option<u16>,
}

impl<'b> Target<'b> {
    /// The target, and the authority that it names if it is in absolute form.
    ///
    /// `raw` has no space and no control byte. `secure` says whether the connection is TLS: a target may only name
    /// the scheme that it came by.
    ///
    /// # Errors
    /// 400.
    pub(super) fn parse(raw: &'b str, secure: bool) -> Result<(Self, Option<Authority<'b>>), Refusal> {
        if raw.starts_with('/') {
            return Ok((Self::origin(raw)?, None));
        }
        // RFC 9112 §3.2.2: a server MUST accept the absolute form.
        let Some((scheme, rest)) = raw.split_once("://") else {
            // Authority form belongs to CONNECT, the asterisk to OPTIONS; a gateway has no use for either.
            return Err(Refusal::bad("the request target is neither a path nor an absolute URI"));
        };
        let schemes = if secure { ["https", "wss"] } else { ["http", "ws"] };
        if !schemes.iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
            return Err(Refusal::bad("the scheme of the request target is not this listener's"));
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let parsed = Authority::parse(authority)
            .ok_or(Refusal::bad("the authority of the request target is not valid"))?;
        // RFC 3986 §6.2.3: an empty path is `/`, before a query as well.
        let target = match path.strip_prefix('?') {
            Some(query) => {
                check_query(query)?;
                Self { path: "/", query: Some(query) }
            }
            None if path.is_empty() => Self { path: "/", query: None },
            None => Self::origin(path)?,
        };
        Ok((target, Some(parsed)))
    }

    fn origin(raw: &'b str) -> Result<Self, Refusal> {
        let (path, query) = match raw.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (raw, None),
        };
        check_path(path)?;
        if let Some(query) = query {
            check_query(query)?;
        }
        Ok(Self { path, query })
    }
}

impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.path)?;
        self.query.map_or(Ok(()), |query| write!(f, "?{query}"))
    }
}

/// RFC 3986 §6.2.2 and §6.2.3, with refusal in place of normalization.
fn check_path(path: &str) -> Result<(), Refusal> {
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        // Only the last segment may be empty: `/` and `/a/`.
        if segment.is_empty() && segments.peek().is_some() {
            return Err(Refusal::bad("the path has an empty segment"));
        }
        if segment == "." || segment == ".." {
            return Err(Refusal::bad("the path has a dot segment"));
        }
    }
    let mut rest = path.as_bytes();
    while let [byte, tail @ ..] = rest {
        rest = tail;
        if !is_path_byte(*byte) {
            return Err(Refusal::bad("the path has a byte that does not belong there"));
        }
        if *byte == b'%' {
            let (decoded, tail) = escape(tail)?;
            rest = tail;
            // An escaped byte that may stand plain makes two spellings of one path, and an escaped separator makes
            // one spelling of two.
            if is_unreserved(decoded) || decoded.is_ascii_control() || matches!(decoded, b'/' | b'\\' | b';')
            {
                return Err(Refusal::bad("the path has an escape that makes it ambiguous"));
            }
        }
    }
    Ok(())
}

fn check_query(query: &str) -> Result<(), Refusal> {
    let mut rest = query.as_bytes();
    while let [byte, tail @ ..] = rest {
        rest = tail;
        if !is_query_byte(*byte) {
            return Err(Refusal::bad("the query has a byte that does not belong there"));
        }
        if *byte == b'%' {
            rest = escape(tail)?.1;
        }
    }
    Ok(())
}

/// RFC 3986 §2.1: the byte that two hexadecimal digits stand for, and what follows them.
fn escape(digits: &[u8]) -> Result<(u8, &[u8]), Refusal> {
    if let [high, low, rest @ ..] = digits
        && let (Some(high), Some(low)) = (hex(*high), hex(*low))
    {
        return Ok((high << 4 | low, rest));
    }
    Err(Refusal::bad("the request target has a broken percent-escape"))
}

impl<'b> Authority<'b> {
    /// Checks `host [ ":" port ]`. `None` for user information, an empty host, a name with anything but letters,
    /// digits, `-`, `.`, `_`, `~`, an empty label, an address literal that is not IPv6, and a port that is empty, zero
    /// or above 65535.
    #[must_use]
    pub fn parse(text: &'b str) -> Option<Self> {
        let (host, port) = if text.starts_with('[') {
            let (host, rest) = text.split_at(text.find(']')? + 1);
            host[1..host.len() - 1].parse::<Ipv6Addr>().ok()?;
            match rest {
                "" => (host, None),
                _ => (host, Some(rest.strip_prefix(':')?)),
            }
        } else {
            let (host, port) = match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            };
            if !is_name(host) {
                return None;
            }
            (host, port)
        };
        let port = match port {
            // No leading zeros and no empty port: one spelling of one number.
            Some(digits) if digits.starts_with('0') => return None,
            Some(digits) => Some(u16::try_from(decimal(digits)?).ok()?),
            None => None,
        };
        Some(Self { text, host, port })
    }
}

/// A name of at most 255 bytes without empty labels; a closing dot is fine.
fn is_name(host: &str) -> bool {
    let labels = host.strip_suffix('.').unwrap_or(host);
    host.len() <= 255 && labels.split('.').all(|label| !label.is_empty()) && labels.bytes().all(is_host_byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(raw: &str) -> Result<Target<'_>, Refusal> {
        Target::parse(raw, false).map(|(target, authority)| {
            assert!(authority.is_none());
            target
        })
    }

    #[test]
    fn rfc9112_3_2_1_origin_form_splits_at_the_first_question_mark() {
        let target = origin("/a/b?c?d=/../x;y").unwrap();
        assert_eq!((target.path, target.query), ("/a/b", Some("c?d=/../x;y")));
        assert_eq!(target.to_string(), "/a/b?c?d=/../x;y");
        assert_eq!(origin("/?").unwrap().query, Some(""));
        assert_eq!(origin("/?").unwrap().to_string(), "/?");
        assert_eq!(origin("/a/").unwrap().path, "/a/");
        assert_eq!(origin("/...").unwrap().path, "/...");
    }

    #[test]
    fn rfc9112_3_2_2_absolute_form_gives_authority_and_origin_form() {
        let (target, authority) = Target::parse("ws://gw.test:8080/ws?a=b", false).unwrap();
        assert_eq!((target.to_string().as_str(), target.path), ("/ws?a=b", "/ws"));
        let authority = authority.unwrap();
        assert_eq!((authority.text, authority.host, authority.port), ("gw.test:8080", "gw.test", Some(8080)));
        for (raw, text) in [
            ("WS://gw.test", "/"),
            ("http://gw.test?a=/b?c", "/?a=/b?c"),
            ("http://gw.test:80?", "/?"),
            ("http://[::1]?q", "/?q"),
        ] {
            let target = Target::parse(raw, false).unwrap().0;
            assert_eq!((target.path, target.to_string().as_str()), ("/", text), "{raw}");
        }
        assert!(Target::parse("http://[::1]:80/", false).is_ok());
        assert!(Target::parse("https://gw.test/", true).is_ok());
        assert!(Target::parse("wss://gw.test/", true).is_ok());
    }

    #[test]
    fn rfc9112_3_2_2_absolute_form_with_anything_odd_is_refused() {
        for (raw, secure) in [
            ("wss://gw.test/ws", false),
            ("https://gw.test/ws", false),
            ("ws://gw.test/ws", true),
            ("http://gw.test/ws", true),
            ("ftp://gw.test/ws", false),
            ("://gw.test/ws", false),
            ("ws:///ws", false),
            ("ws://user@gw.test/ws", false),
            ("ws://user:pw@gw.test/ws", false),
            ("ws://gw.test,evil.test/ws", false),
            ("ws://gw.test:/ws", false),
            ("ws://gw.test:0/ws", false),
            ("ws://gw.test:080/ws", false),
            ("ws://gw.test:65536/ws", false),
            ("ws://gw.test:8a/ws", false),
            ("ws://gw.test:+80/ws", false),
            ("ws://gw.test?x#y", false),
            ("ws://gw.test?%", false),
            ("ws://?x", false),
            ("http://", false),
            ("ws://gw.test#x", false),
            ("ws://gw.test//ws", false),
            ("ws://gw.test/../ws", false),
            ("ws://gw.test\\ws", false),
            ("ws:/gw.test/ws", false),
            ("ws:gw.test", false),
            ("gw.test:80", false),
            ("ws", false),
            ("*", false),
        ] {
            assert_eq!(Target::parse(raw, secure).unwrap_err().status, 400, "{raw}");
        }
    }

    #[test]
    fn a_path_has_one_spelling() {
        for raw in [
            "//",
            "//ws",
            "/a//b",
            "/ws//",
            "/.",
            "/..",
            "/./ws",
            "/ws/.",
            "/ws/..",
            "/a/../ws",
            "/%2e%2e/ws",
            "/%2E/ws",
            "/ws%2e",
            "/ws%2f",
            "/ws%2Fx",
            "/ws%5cx",
            "/ws\\x",
            "/ws;a=b",
            "/ws%3ba",
            "/;/ws",
            "/%77s",
            "/ws%00",
            "/ws%0d%0a",
            "/ws%7f",
            "/ws%7E",
            "/ws%",
            "/ws%4",
            "/ws%zz",
            "/ws%u0041",
            "/ws%%41",
            "/ws#f",
            "/ws\"",
            "/<ws>",
            "/w|s",
            "/w^s",
            "/w`s",
            "/{ws}",
            "/[ws]",
            "/ws?%",
            "/ws?%1",
            "/ws?%gg",
            "/ws?a#b",
            "/ws?\"",
        ] {
            assert_eq!(origin(raw).unwrap_err().status, 400, "{raw}");
        }
        for raw in [
            "/",
            "/ws",
            "/a/b/c/",
            "/%20",
            "/%C3%A9",
            "/%25",
            "/a:b@c,d=e+f",
            "/~x",
            "/ws?%00%2e",
            "/?a[0]=1|2",
        ] {
            assert_eq!(origin(raw).unwrap().to_string(), raw);
        }
    }

    #[test]
    fn rfc9110_7_2_an_authority_is_a_host_and_perhaps_a_port() {
        for (text, host, port) in [
            ("gw.test", "gw.test", None),
            ("GW.test.", "GW.test.", None),
            ("localhost:1", "localhost", Some(1)),
            ("10.0.0.1:65535", "10.0.0.1", Some(65535)),
            ("[::1]", "[::1]", None),
            ("[2001:db8::1]:443", "[2001:db8::1]", Some(443)),
            ("under_score.test", "under_score.test", None),
        ] {
            assert_eq!(Authority::parse(text), Some(Authority { text, host, port }), "{text}");
        }
        for text in [
            "",
            ":",
            ":80",
            ".",
            "..",
            ".test",
            "a..b",
            "gw.test:",
            "gw.test:0",
            "gw.test:00",
            "gw.test:65536",
            "gw.test:99999999999999999999",
            "gw.test:80:80",
            "gw.test:8 0",
            "gw.test: 80",
            "gw test",
            "gw.test/",
            "gw.test?",
            "gw.test#",
            "a@b",
            "a,b",
            "gw.test, gw.test",
            "%67w.test",
            "gw\"test",
            "gw\\test",
            "[",
            "[]",
            "[::1",
            "::1",
            "[::1]x",
            "[::1]:",
            "[::1]:x",
            "[::1%25eth0]",
            "[v1.a]",
            "[127.0.0.1]",
            "[::g]",
            "a]b",
            "a[b",
            "<gw>",
            "gw\u{e9}",
            "gw\ttest",
            "gw;test",
            "gw*test",
        ] {
            assert_eq!(Authority::parse(text), None, "{text:?}");
        }
        assert!(Authority::parse(&"a".repeat(255)).is_some());
        assert!(Authority::parse(&"a".repeat(256)).is_none());
    }
}
