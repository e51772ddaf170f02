//! The whole configuration, and its listeners.

use std::{net::SocketAddr, path::PathBuf};

use ipnet::IpNet;

use crate::{Admin, Drain, HostPattern, Identity, Limits, Log, NamedPath, Problem, Route, Tls, Topics};

/// A valid configuration: nothing in it has to be checked again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The version of the schema: 1.
    pub version: u32,
    /// How many shards; `None` means one for each core that the process may use.
    pub shards: Option<usize>,
    /// How to talk to the kernel.
    pub io: IoChoice,
    /// The limits.
    pub limits: Limits,
    /// How sessions are asked to go.
    pub drain: Drain,
    /// At least one, at most 256, no two alike.
    pub listeners: Vec<Listener>,
    /// What topics may take and keep.
    pub topics: Topics,
    /// Whom routes may ask who their callers are; no two have a name in common.
    pub identities: Vec<Identity>,
    /// At least one, in the order in which they are tried; each can be reached.
    pub routes: Vec<Route>,
    /// The admin listener; `None`: there is none.
    pub admin: Option<Admin>,
    /// The log.
    pub log: Log,
    /// Networks whose `X-Forwarded-*` fields are believed.
    pub trusted: Vec<IpNet>,
    /// What is no mistake, but hardly meant.
    pub warnings: Vec<Problem>,
}

/// How to talk to the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IoChoice {
    /// io_uring where it works, else epoll.
    #[default]
    Auto,
    /// io_uring or not at all.
    Uring,
    /// epoll.
    Epoll,
}

/// One `[[listener]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where.
    pub bind: Bind,
    /// Connections that may wait to be accepted, on each shard's socket; the kernel caps it at `net.core.somaxconn`.
    pub backlog: u32,
    /// Its connections speak TLS.
    pub tls: Option<Tls>,
    /// Networks whose connections begin with a PROXY header; on those from elsewhere none is read.
    pub proxy_protocol: Vec<IpNet>,
    /// It serves nothing, and sends whoever asks elsewhere. Never together with `tls`.
    pub https_redirect: Option<HttpsRedirect>,
    /// The path of a unix socket, as the configuration names it; none where the command line does.
    pub socket: Option<NamedPath>,
}

/// Where a plain listener sends all requests: the same target at `https://` or `wss://`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpsRedirect {
    /// The host to which they are sent, as it stands in a URL; `None`: the one that they ask for.
    pub host: Option<String>,
    /// Hosts that are sent anywhere; empty means every one.
    pub hosts: Vec<HostPattern>,
    /// The port there.
    pub port: u16,
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Bind {
    /// TCP; port 0 lets the kernel choose.
    Tcp(SocketAddr),
    /// A unix stream socket.
    Unix(PathBuf),
}

/// Backlog of a listener that sets none.
pub const DEFAULT_BACKLOG: u32 = 4096;

/// Most routes of a configuration.
pub const MAX_ROUTES: usize = 4096;

/// Most listeners of a configuration.
pub const MAX_LISTENERS: usize = 256;

/// Most upstreams of a route.
pub const MAX_UPSTREAMS: usize = 1024;

/// Most shards.
pub const MAX_SHARDS: usize = 1024;
