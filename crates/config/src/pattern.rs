//! Which authorities and paths a route takes, and whether one pattern takes all that another does.

use crate::{
    name::{self, Host},
    report::Mistake,
    section::shown,
};

/// Which authorities a route takes. Compared without case, port and final dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// One name or address, in lower case; an IPv6 address without its brackets.
    Exact(String),
    /// `*.example.com`: every name below this one, at any depth, but not itself. In lower case, without `*.`.
    Below(String),
}

/// Which paths a route takes: the path of the request target as it was received, without its query, compared byte
/// for byte (`wire` refuses targets for which that would be ambiguous).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathPattern {
    /// This path alone.
    Exact(String),
    /// `/app/*`: this path and all below it. Without its final `/*`, so `/*` is the empty text.
    Prefix(String),
}

impl HostPattern {
    /// Whether this pattern takes `host`, in any case; [`bare_host`] makes one of an authority.
    #[must_use]
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => host.eq_ignore_ascii_case(name),
            Self::Below(parent) => {
                let (host, parent) = (host.as_bytes(), parent.as_bytes());
                // At least one byte and a dot stand before the parent's name.
                host.len() > parent.len() + 1
                    && host[host.len() - parent.len()..].eq_ignore_ascii_case(parent)
                    && host[host.len() - parent.len() - 1] == b'.'
            }
        }
    }

    /// Whether this pattern takes every authority that `other` takes.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(mine), Self::Exact(theirs)) => mine == theirs,
            (Self::Exact(_), Self::Below(_)) => false,
            (Self::Below(_), Self::Exact(theirs)) => self.matches(theirs),
            (Self::Below(mine), Self::Below(theirs)) => mine == theirs || self.matches(theirs),
        }
    }
}

impl PathPattern {
    /// The path itself, or that above all which the prefix takes.
    pub(crate) fn text(&self) -> &str {
        let (Self::Exact(text) | Self::Prefix(text)) = self;
        text
    }

    /// Whether this pattern takes `path`: without query, beginning with a slash.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(mine) => path == mine,
            Self::Prefix(mine) => {
                path.strip_prefix(mine.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
        }
    }

    /// What of a path that this pattern takes is below it: of `/topics/chat/lobby` for `/topics/*` that is
    /// `chat/lobby`. `None` for the path itself, `/topics` and also `/topics/`, and where this pattern does not take it.
    #[must_use]
    pub fn below<'p>(&self, path: &'p str) -> Option<&'p str> {
        match self {
            Self::Exact(_) => None,
            Self::Prefix(mine) => {
                let below = path.strip_prefix(mine.as_str())?.strip_prefix('/')?;
                (!below.is_empty()).then_some(below)
            }
        }
    }

    /// Whether this pattern takes every path that `other` takes.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(mine), Self::Exact(theirs)) => mine == theirs,
            (Self::Exact(_), Self::Prefix(_)) => false,
            (Self::Prefix(_), Self::Exact(theirs) | Self::Prefix(theirs)) => self.matches(theirs),
        }
    }
}

/// The host of an authority as received (`host`, `host:port`, `[address]:port`): without port, brackets and one
/// final dot.
#[must_use]
pub fn bare_host(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split_once(']').map_or(rest, |(address, _)| address);
    }
    let host = authority.split_once(':').map_or(authority, |(host, _)| host);
    host.strip_suffix('.').unwrap_or(host)
}

impl HostPattern {
    pub(crate) fn parse(text: &str) -> Result<Self, Mistake> {
        if let Some((_, rest)) = text.split_once("://") {
            let rest = rest.trim_end_matches('/');
            return Err(Mistake::suggesting("a host has no scheme", rest));
        }
        if text == "*" {
            return Err(Mistake::new("leave `host` out to take every host"));
        }
        if let Some(parent) = text.strip_prefix("*.") {
            return match Host::parse(parent)? {
                Host::Name(parent) => Ok(Self::Below(parent)),
                Host::Address(_) => Err(Mistake::new("an address has no names below it")),
            };
        }
        if text.contains('*') {
            let message = "a `*` can only stand for everything before a name, like *.example.com";
            return Err(Mistake::new(message));
        }
        match name::authority(text) {
            Ok((Host::Name(name), None)) => Ok(Self::Exact(name)),
            Ok((Host::Address(address), None)) => Ok(Self::Exact(address.to_string())),
            Ok((host, Some(_))) => Err(Mistake::suggesting("a host has no port here", host.to_string())),
            Err(mistake) => Err(mistake),
        }
    }
}

impl PathPattern {
    /// Takes only patterns that some request can match: `wire` refuses every path that has two spellings.
    pub(crate) fn parse(text: &str) -> Result<Self, Mistake> {
        if !text.starts_with('/') {
            return match text {
                "" => Err(Mistake::suggesting("a path begins with /", "/")),
                "*" => Err(Mistake::suggesting("a path begins with /", "/*")),
                _ if text.contains("://") => {
                    Err(Mistake::new("a path begins with /, without scheme and host"))
                }
                _ => Err(Mistake::suggesting("a path begins with /", format!("/{text}"))),
            };
        }
        let path = text.strip_suffix("/*").unwrap_or(text);
        if let Some(at) = path.find('*') {
            let message = "a `*` can only stand at the end, behind a /";
            let bare = path[..at].trim_end_matches('/');
            return Err(Mistake::suggesting(message, format!("{bare}/*")));
        }
        if let Some(at) = path.find(['?', '#']) {
            let message = "a query or fragment is not part of a path";
            return Err(Mistake::suggesting(message, &path[..at]));
        }
        let never = |why: &str| Mistake::new(format!("no request has such a path: {why}"));
        if path.contains("//") || (path.ends_with('/') && path.len() < text.len()) {
            return Err(never("it has an empty segment"));
        }
        if path.split('/').any(|segment| segment == "." || segment == "..") {
            return Err(never("it has a dot segment"));
        }
        check_bytes(path)?;
        Ok(if path.len() < text.len() { Self::Prefix(path.to_owned()) } else { Self::Exact(path.to_owned()) })
    }
}

/// RFC 3986 §3.3, without `;` and without escapes that need not be or that hide a separator.
fn check_bytes(path: &str) -> Result<(), Mistake> {
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits =
                [bytes.next(), bytes.next()].map(|digit| digit.and_then(|d| char::from(d).to_digit(16)));
            let [Some(high), Some(low)] = digits else {
                return Err(Mistake::new("a % is followed by two hexadecimal digits"));
            };
            let decoded = char::from_u32(high << 4 | low).unwrap_or_default();
            let unreserved = decoded.is_ascii_alphanumeric() || matches!(decoded, '-' | '.' | '_' | '~');
            if unreserved || decoded.is_ascii_control() || matches!(decoded, '/' | '\\' | ';') {
                let message = "no request has such a path: an escape in it is refused as ambiguous";
                return Err(Mistake::new(message));
            }
        } else if !byte.is_ascii() {
            return Err(Mistake::new("a path is ASCII: write other characters percent-encoded"));
        } else if !byte.is_ascii_alphanumeric() && !b"-._~!$&'()+,=:@/".contains(&byte) {
            let odd = char::from(byte).to_string();
            return Err(Mistake::new(format!("no request has such a path: it has a {}", shown(&odd))));
        }
    }
    Ok(())
}

impl std::fmt::Display for HostPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Below(parent) => write!(f, "*.{parent}"),
        }
    }
}

impl std::fmt::Display for PathPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact(path) => f.write_str(path),
            Self::Prefix(path) => write!(f, "{path}/*"),
        }
    }
}
