//! Which pages may connect (RFC 6454, RFC 6455 §10.2).

use crate::http::Authority;

/// One entry of a route's list of origins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginRule(Rule);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    /// The opaque origin: sandboxed frames, local files.
    Null,
    Origin {
        scheme: Box<str>,
        host: Box<str>,
        port: Option<u16>,
    },
}

/// Why a text is no [`OriginRule`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OriginError {
    /// It has no `scheme://`, or the scheme has a byte that none may have.
    Scheme,
    /// Subdomains cannot be matched by a pattern.
    Wildcard,
    /// Something follows the host and port: an origin has no path, not even `/`.
    Path,
    /// What follows `scheme://` is not a host with perhaps a port.
    Host,
}

impl std::fmt::Display for OriginError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Scheme => {
                "an origin is scheme://host, with :port where it is not the scheme's own, or null"
            }
            Self::Wildcard => "an origin has no wildcard; list each host",
            Self::Path => "an origin ends with its host or port; it has no path",
            Self::Host => "the host or port of the origin is not valid",
        })
    }
}

impl std::error::Error for OriginError {}

impl OriginRule {
    /// `scheme://host`, `scheme://host:port` or `null`. A port that is the scheme's default may be left out.
    ///
    /// # Errors
    /// One variant per part that is wrong.
    pub fn parse(text: &str) -> Result<Self, OriginError> {
        if text == "null" {
            return Ok(Self(Rule::Null));
        }
        let (scheme, rest) = text.split_once("://").ok_or(OriginError::Scheme)?;
        if !is_scheme(scheme) {
            return Err(OriginError::Scheme);
        }
        if rest.contains('*') {
            return Err(OriginError::Wildcard);
        }
        if rest.contains(['/', '?', '#']) {
            return Err(OriginError::Path);
        }
        let authority = Authority::parse(rest).ok_or(OriginError::Host)?;
        let scheme = scheme.to_ascii_lowercase().into_boxed_str();
        let port = authority.port.or(default_port(&scheme));
        Ok(Self(Rule::Origin { scheme, host: authority.host.to_ascii_lowercase().into_boxed_str(), port }))
    }

    /// Whether this rule is the origin that a browser names.
    fn admits(&self, origin: &str) -> bool {
        match &self.0 {
            Rule::Null => origin == "null",
            Rule::Origin { scheme, host, port } => Parts::parse(origin).is_some_and(|parts| {
                parts.scheme.eq_ignore_ascii_case(scheme)
                    && parts.host.eq_ignore_ascii_case(host)
                    && parts.port == *port
            }),
        }
    }
}

/// Whether a client with this `Origin` may connect.
///
/// An empty list admits any. No `Origin` is not a browser, so there is no user to protect from a foreign page. An
/// origin that equals the request's own (`host` as received, `secure` for the scheme) is always admitted; a route with a
/// host pattern keeps a rebound name from making that true of any page. Everything else must be listed; a value that
/// is no origin, or a list of them, matches nothing.
#[must_use]
pub fn origin_allowed(rules: &[OriginRule], origin: Option<&str>, host: &str, secure: bool) -> bool {
    let Some(origin) = origin else { return true };
    rules.is_empty() || rules.iter().any(|rule| rule.admits(origin)) || same_origin(origin, host, secure)
}

/// Whether an `Origin` is the request's own: `host` as received, `secure` for the scheme.
#[must_use]
pub fn same_origin(origin: &str, host: &str, secure: bool) -> bool {
    let scheme = if secure { "https" } else { "http" };
    let (Some(parts), Some(own)) = (Parts::parse(origin), Authority::parse(host)) else { return false };
    parts.scheme.eq_ignore_ascii_case(scheme)
        && parts.host.eq_ignore_ascii_case(own.host)
        && parts.port == own.port.or(default_port(scheme))
}

/// An origin as RFC 6454 §6.2 writes it.
struct Parts<'a> {
    scheme: &'a str,
    host: &'a str,
    port: Option<u16>,
}

impl<'a> Parts<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let authority = Authority::parse(rest)?;
        is_scheme(scheme).then(|| Self {
            scheme,
            host: authority.host,
            port: authority.port.or(default_port(scheme)),
        })
    }
}

/// RFC 3986 §3.1.
fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

/// Other schemes (of extensions, of native shells) have no ports.
fn default_port(scheme: &str) -> Option<u16> {
    if scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("wss") {
        Some(443)
    } else if scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("ws") {
        Some(80)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(rules: &[&str], origin: Option<&str>) -> bool {
        let rules: Vec<_> = rules.iter().map(|rule| OriginRule::parse(rule).unwrap()).collect();
        origin_allowed(&rules, origin, "gw.test:8080", false)
    }

    #[test]
    fn rfc6454_5_origins_are_equal_in_scheme_host_and_port() {
        let rules = ["https://chat.example.com", "http://dev.test:3000", "chrome-extension://abcdef"];
        for origin in [
            "https://chat.example.com",
            "https://chat.example.com:443",
            "HTTPS://Chat.Example.COM",
            "http://dev.test:3000",
            "chrome-extension://abcdef",
            "http://gw.test:8080",
            "http://GW.test:8080",
        ] {
            assert!(allowed(&rules, Some(origin)), "{origin}");
        }
        for origin in [
            "http://chat.example.com",
            "https://chat.example.com:444",
            "https://chat.example.com:80",
            "https://example.com",
            "https://chat.example.com.evil.test",
            "https://evil.chat.example.com",
            "https://chat.example.com/",
            "https://chat.example.com/x",
            "https://chat.example.com@evil.test",
            "https://chat.example.com,https://evil.test",
            "https://chat.example.com https://evil.test",
            "https://chat.example.com.",
            "http://dev.test",
            "https://gw.test:8080",
            "http://gw.test",
            "null",
            "",
            "https://",
            "chat.example.com",
            "://chat.example.com",
        ] {
            assert!(!allowed(&rules, Some(origin)), "{origin}");
        }
    }

    #[test]
    fn an_empty_list_and_a_client_without_origin_are_admitted() {
        assert!(allowed(&[], Some("https://evil.test")));
        assert!(allowed(&[], Some("null")));
        assert!(allowed(&["https://a.test"], None));
    }

    #[test]
    fn rfc6454_7_3_null_is_admitted_only_where_listed() {
        assert!(!allowed(&["https://a.test"], Some("null")));
        assert!(allowed(&["https://a.test", "null"], Some("null")));
        assert!(!allowed(&["null"], Some("NULL")));
        assert!(!allowed(&["null"], Some("https://a.test")));
    }

    #[test]
    fn the_own_origin_follows_the_scheme_of_the_connection() {
        let rules = [OriginRule::parse("https://a.test").unwrap()];
        assert!(origin_allowed(&rules, Some("https://gw.test"), "gw.test", true));
        assert!(origin_allowed(&rules, Some("https://gw.test"), "gw.test:443", true));
        assert!(!origin_allowed(&rules, Some("https://gw.test"), "gw.test", false));
        assert!(!origin_allowed(&rules, Some("http://gw.test"), "gw.test", true));
        assert!(!origin_allowed(&rules, Some("http://"), "", false));
    }

    #[test]
    fn a_rule_says_which_part_of_it_is_wrong() {
        for (text, error) in [
            ("chat.example.com", OriginError::Scheme),
            ("://a", OriginError::Scheme),
            ("1x://a", OriginError::Scheme),
            ("ht tp://a", OriginError::Scheme),
            ("*", OriginError::Scheme),
            ("https://*.example.com", OriginError::Wildcard),
            ("https://a.test/", OriginError::Path),
            ("https://a.test?x", OriginError::Path),
            ("https://", OriginError::Host),
            ("https://u@a.test", OriginError::Host),
            ("https://a.test:0", OriginError::Host),
            ("https://a.test:port", OriginError::Host),
        ] {
            assert_eq!(OriginRule::parse(text), Err(error), "{text}");
        }
        assert_eq!(OriginRule::parse("https://a.test"), OriginRule::parse("HTTPS://A.test:443"));
        assert!(OriginRule::parse("https://[::1]:8443").is_ok());
    }
}
