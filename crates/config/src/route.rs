//! A route: which requests it takes, and what it does with them.

use crate::{HostPattern, PathPattern, Proxy, RouteLimits};

/// One `[[route]]`. Routes are tried in the order of the file; the first that matches takes the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Which authorities; `None` means every one.
    pub host: Option<HostPattern>,
    /// Which paths.
    pub path: PathPattern,
    /// Where not empty, the route only takes requests that offer one of these. `echo` answers with the first of the
    /// client's offers that is in the list; `proxy` passes the client's offers through.
    pub subprotocols: Vec<String>,
    /// Which origins browsers may come from: `scheme://host[:port]` in lower case without a default port, or
    /// `null`. Empty means any.
    pub origins: Vec<String>,
    /// The limits of its sessions.
    pub limits: RouteLimits,
    /// What happens when a session's outbox is full.
    pub full: FullAction,
    /// What it does.
    pub action: Action,
}

/// What happens to a message for a session whose outbox is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FullAction {
    /// Whoever produces is not read from until there is room.
    #[default]
    Pause,
    /// The new message is dropped.
    DropNew,
    /// The oldest messages that have not begun to leave are dropped.
    DropOld,
    /// The session is closed with 1013.
    Disconnect,
}

/// What a route does with a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Sends each message back.
    Echo(Echo),
    /// Answers a GET with the embedded page; not a WebSocket.
    Page,
    /// Carries the session to an upstream.
    Proxy(Proxy),
}

/// `echo = { … }`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Echo {
    /// Whether permessage-deflate is agreed to.
    pub deflate: EchoDeflate,
    /// Whether context takeover is agreed to, within `takeover_bytes`.
    pub context_takeover: bool,
}

/// Whether an echo agrees to permessage-deflate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EchoDeflate {
    /// Where the client offers it.
    #[default]
    On,
    /// Never.
    Off,
}
