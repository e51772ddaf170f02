//! Which authorities and paths a route takes, and whether one pattern takes all that another does.

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
