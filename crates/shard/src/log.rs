//! What a shard has to say, as values: the text is made on another thread.

use std::{fmt, net::SocketAddr};

/// No Close came (RFC 6455 §7.1.5); never in a frame.
pub(crate) const ABNORMAL: u16 = 1006;

/// A Close without a code came (RFC 6455 §7.1.5); never in a frame.
pub(crate) const NO_STATUS: u16 = 1005;

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The course of single sessions.
    Debug,
    /// Peers' faults.
    Info,
    /// What an operator should look at.
    Warn,
}

/// One entry of the log. Holds no bytes of a peer: nothing to escape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// How much it matters.
    pub level: Level,
    /// The shard that speaks.
    pub shard: u16,
    /// The session's key in its shard, where it is about one.
    pub session: Option<u64>,
    /// The client's address, where it is known.
    pub peer: Option<SocketAddr>,
    /// The number of the route that the session has found, where it has found one.
    pub route: Option<u16>,
    /// The generation of the configuration that its shard has: `route` and [`What::place`] are of its routes and upstreams.
    pub generation: u64,
    /// What happened.
    pub what: What,
}

/// Which leg an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leg {
    /// Between the client and the gateway.
    Client,
    /// Between the gateway and the upstream.
    Upstream,
}

impl fmt::Display for Leg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Leg::Client => "client",
            Leg::Upstream => "upstream",
        })
    }
}

/// Why a session or leg has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cause {
    /// Which leg.
    pub leg: Leg,
    /// The code that was sent or received; 1005 for a Close without one, 1006 where there was no Close.
    pub code: u16,
    /// Why.
    pub reason: &'static str,
}

/// What a session has done from its first byte to its last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Bytes that came from the client.
    pub received_bytes: u64,
    /// Bytes that went to it.
    pub sent_bytes: u64,
    /// Messages that came from the client.
    pub received_messages: u64,
    /// Messages that it was given.
    pub sent_messages: u64,
    /// From the accepted connection on, in milliseconds.
    pub duration_ms: u64,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A request was refused.
    Refused {
        /// The answer's status.
        status: u16,
        /// Why, as in the answer's body.
        reason: &'static str,
    },
    /// A token was not believed.
    TokenRefused {
        /// Why: nothing of the token is in it.
        reason: &'static str,
    },
    /// A hook could not be asked, or has not answered in its time.
    HookFailed {
        /// The route's number.
        route: u16,
        /// Why.
        reason: &'static str,
    },
    /// A connection was ended without an answer, before anything of it was read but a PROXY header.
    ConnectionRefused {
        /// Why.
        reason: &'static str,
    },
    /// A client's TLS has failed: in the handshake, or in what came behind it.
    TlsFailed {
        /// Why.
        reason: &'static str,
    },
    /// A session or leg ended.
    Ended {
        /// Which leg.
        leg: Leg,
        /// The code that was sent or received; 1005 for a Close without one, 1006 where there was no Close.
        code: u16,
        /// Why.
        reason: &'static str,
    },
    /// A session is over, where sessions are counted one by one; in the place of [`What::Ended`].
    Closed {
        /// Why.
        cause: Cause,
        /// The route's number; `None` where that is another's by now.
        route: Option<u16>,
        /// The place of its upstream there; `None` where it had none, or that is another's by now.
        upstream: Option<u16>,
        /// What it has done.
        totals: Totals,
    },
    /// An upstream could not be used.
    UpstreamFailed {
        /// Its place among the route's upstreams.
        upstream: u16,
        /// The route's number.
        route: u16,
        /// Which of its addresses was at hand: a name may have many.
        address: Option<SocketAddr>,
        /// Why.
        reason: &'static str,
        /// The system's error number, 0 where there is none.
        errno: i32,
    },
    /// An upstream could not be tried, for a fault of this machine: it says nothing about the upstream.
    LocalFault {
        /// Its place among the route's upstreams.
        upstream: u16,
        /// The route's number.
        route: u16,
        /// Why.
        reason: &'static str,
        /// The system's error number, 0 where there is none.
        errno: i32,
    },
    /// An upstream has answered the handshake with a status that is not 101; the client got it.
    UpstreamRefused {
        /// Its place among the route's upstreams.
        upstream: u16,
        /// The route's number.
        route: u16,
        /// The answer's status.
        status: u16,
    },
    /// Connections cannot be accepted for now.
    AcceptPaused {
        /// The system's error number.
        errno: i32,
    },
    /// All session slots are taken: connections are refused.
    SessionsFull,
    /// Connections were cut off that had not gone by the deadline of a drain.
    CutOff {
        /// How many.
        connections: u64,
    },
    /// Of one cause more entries came in a second than are written.
    LeftOut {
        /// How many were not.
        entries: u64,
        /// The cause, as they would have told it.
        reason: &'static str,
    },
    /// So many entries were left out before this one.
    Omitted {
        /// How many.
        entries: u64,
    },
}

impl What {
    /// The number of the route that it is about, and the place of the upstream there, where it is about such.
    #[must_use]
    pub fn place(&self) -> (Option<u16>, Option<u16>) {
        match *self {
            What::HookFailed { route, .. } => (Some(route), None),
            What::Closed { route, upstream, .. } => (route, upstream),
            What::UpstreamFailed { upstream, route, .. }
            | What::LocalFault { upstream, route, .. }
            | What::UpstreamRefused { upstream, route, .. } => (Some(route), Some(upstream)),
            What::Refused { .. }
            | What::TokenRefused { .. }
            | What::ConnectionRefused { .. }
            | What::TlsFailed { .. }
            | What::Ended { .. }
            | What::AcceptPaused { .. }
            | What::SessionsFull
            | What::CutOff { .. }
            | What::LeftOut { .. }
            | What::Omitted { .. } => (None, None),
        }
    }

    /// What many entries may have in common; `None` of those that are few anyhow.
    pub(crate) fn cause(&self) -> Option<&'static str> {
        match self {
            What::Refused { reason, .. }
            | What::ConnectionRefused { reason }
            | What::TokenRefused { reason }
            | What::HookFailed { reason, .. }
            | What::TlsFailed { reason }
            | What::Ended { reason, .. }
            | What::UpstreamFailed { reason, .. }
            | What::LocalFault { reason, .. } => Some(reason),
            What::UpstreamRefused { .. } => Some("request refused by the upstream"),
            // One for each session.
            What::Closed { .. }
            | What::AcceptPaused { .. }
            | What::SessionsFull
            | What::CutOff { .. }
            | What::LeftOut { .. }
            | What::Omitted { .. } => None,
        }
    }
}

/// What an entry has besides its words, under the names that the log gives it. Its route and upstream are told by [`What::place`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    /// Which leg.
    pub leg: Option<Leg>,
    /// The code of a Close.
    pub code: Option<u16>,
    /// The status of an answer.
    pub status: Option<u16>,
    /// Why.
    pub reason: Option<&'static str>,
    /// The system's error number.
    pub errno: Option<i32>,
    /// An upstream's address.
    pub address: Option<SocketAddr>,
    /// How many connections.
    pub connections: Option<u64>,
    /// How many entries.
    pub entries: Option<u64>,
    /// What a session has done.
    pub totals: Option<Totals>,
}

impl What {
    /// What it says, the same for all entries of its kind.
    #[must_use]
    pub fn message(&self) -> &'static str {
        match self {
            What::Refused { .. } => "request refused",
            What::TokenRefused { .. } => "token refused",
            What::HookFailed { .. } => "authorization hook failed",
            What::ConnectionRefused { .. } => "connection refused",
            What::TlsFailed { .. } => "TLS failed",
            What::Ended { .. } | What::Closed { .. } => "session ended",
            What::UpstreamFailed { .. } => "upstream failed",
            What::LocalFault { .. } => "cannot connect to an upstream for a fault of this machine",
            What::UpstreamRefused { .. } => "request refused by the upstream",
            What::AcceptPaused { .. } => "accept paused",
            What::SessionsFull => "all session slots are taken: connections are refused",
            What::CutOff { .. } => "cut off at the deadline of a drain",
            What::LeftOut { .. } | What::Omitted { .. } => "log entries left out",
        }
    }

    /// What it says it of.
    #[must_use]
    pub fn fields(&self) -> Fields {
        let none = Fields::default();
        match *self {
            What::Refused { status, reason } => Fields { status: Some(status), reason: Some(reason), ..none },
            What::TokenRefused { reason }
            | What::HookFailed { route: _, reason }
            | What::ConnectionRefused { reason }
            | What::TlsFailed { reason } => Fields { reason: Some(reason), ..none },
            What::Ended { leg, code, reason } => {
                Fields { leg: Some(leg), code: Some(code), reason: Some(reason), ..none }
            }
            What::Closed { cause: Cause { leg, code, reason }, totals, .. } => Fields {
                leg: Some(leg),
                code: Some(code),
                reason: Some(reason),
                totals: Some(totals),
                ..none
            },
            What::UpstreamFailed { address, reason, errno, .. } => {
                Fields { reason: Some(reason), errno: (errno != 0).then_some(errno), address, ..none }
            }
            What::LocalFault { reason, errno, .. } => {
                Fields { reason: Some(reason), errno: (errno != 0).then_some(errno), ..none }
            }
            What::UpstreamRefused { status, .. } => Fields { status: Some(status), ..none },
            What::AcceptPaused { errno } => Fields { errno: Some(errno), ..none },
            What::SessionsFull => none,
            What::CutOff { connections } => Fields { connections: Some(connections), ..none },
            What::LeftOut { entries, reason } => {
                Fields { entries: Some(entries), reason: Some(reason), ..none }
            }
            What::Omitted { entries } => Fields { entries: Some(entries), ..none },
        }
    }
}
