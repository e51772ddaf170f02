//! `proxy = { … }`: the upstreams of a route, and how one of them is chosen, connected and judged.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use crate::{CertificateFiles, PemFile, TlsVersion};

/// How a route's sessions reach its upstreams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// At least one, no two alike.
    pub upstreams: Vec<Upstream>,
    /// Which upstream a session gets.
    pub balance: Balance,
    /// Who compresses.
    pub deflate: Deflate,
    /// Who checks the UTF-8 of text.
    pub utf8: Utf8,
    /// Whether context takeover is agreed to with clients, within `takeover_bytes`; only with [`Deflate::Edge`].
    pub context_takeover: bool,
    /// How long a session waits for a name to be resolved, in ms.
    pub resolve_timeout_ms: u64,
    /// How often a name is resolved again, in ms.
    pub resolve_interval_ms: u64,
    /// How long one connect may take, in ms.
    pub connect_timeout_ms: u64,
    /// From the connection to the end of the upstream's response head, in ms.
    pub handshake_timeout_ms: u64,
    /// How many other upstreams are tried, before the first byte was forwarded.
    pub retries: u32,
    /// Failures in a row after which an upstream is left out; at least 1.
    pub max_fails: u32,
    /// How long a failed upstream is left out before the next request probes it, in ms; 0 means never left out.
    pub fail_timeout_ms: u64,
    /// The Close code for the client where the upstream fails: 1011 or 1014.
    pub failure_code: u16,
    /// Local addresses to connect from, in turn; empty leaves the choice to the kernel. For a target of one address
    /// family only the addresses of that family count.
    pub source: Vec<IpAddr>,
    /// How upstreams with TLS are verified; only where there are such.
    pub tls: Box<UpstreamTls>,
}

/// TLS towards the upstreams of a route that are given as `wss://`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamTls {
    /// Authorities of which one must have signed an upstream's certificate; `None`: those that the system trusts.
    pub ca: Option<PemFile>,
    /// The name that certificates must be for, an address as such; `None`: that of each upstream.
    pub server_name: Option<String>,
    /// Who the gateway is, for upstreams that ask.
    pub certificate: Option<CertificateFiles>,
    /// The lowest version that is spoken.
    pub min_version: TlsVersion,
}

impl UpstreamTls {
    /// Whether it is the same upstreams that both let through: a certificate of the gateway's own may be another.
    #[must_use]
    pub fn trusts_as(&self, other: &Self) -> bool {
        (&self.ca, &self.server_name, self.min_version) == (&other.ca, &other.server_name, other.min_version)
    }
}

/// One upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Where it is.
    pub target: Target,
    /// As written in the file, for logs.
    pub text: String,
    /// It speaks TLS: `wss://`. Never so on a unix socket.
    pub tls: bool,
}

impl Upstream {
    /// The name that its certificate must be for, unless another one is configured; an address as such.
    #[must_use]
    pub fn host(&self) -> Option<String> {
        match &self.target {
            Target::Address(address) => Some(address.ip().to_string()),
            Target::Name { host, .. } => Some(host.clone()),
            Target::Unix(_) => None,
        }
    }
}

/// Where an upstream is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// An address.
    Address(SocketAddr),
    /// A name, to be resolved; all its addresses count.
    Name {
        /// In lower case, without a final dot.
        host: String,
        /// Not 0.
        port: u16,
    },
    /// A unix stream socket.
    Unix(PathBuf),
}

/// Which upstream a session gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// Each in turn.
    #[default]
    RoundRobin,
    /// The one with the fewest sessions of this shard.
    LeastSessions,
    /// By consistent hashing: the same key goes to the same upstream while it is there.
    Hash(HashKey),
}

/// What is hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// The value of a request field; the name is in lower case.
    Header(String),
    /// The value of a cookie; names of cookies are case-sensitive.
    Cookie(String),
    /// The client's address without its port (as told by a trusted network, where there is one).
    ClientAddress,
}

/// Who compresses on a proxied route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Deflate {
    /// The gateway, with the client; the upstream sees plain messages.
    #[default]
    Edge,
    /// The two ends; what they negotiate is passed through.
    Pass,
    /// Nobody.
    Off,
}

/// Who checks the UTF-8 of text on a proxied route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Utf8 {
    /// The gateway.
    #[default]
    Check,
    /// The upstream.
    Upstream,
}
