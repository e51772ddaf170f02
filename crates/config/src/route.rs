//! A route: which requests it takes, and what it does with them.

use crate::{
    ClientCertificate, EventsAction, HostPattern, PathPattern, PollAction, Proxy, PublishAction,
    RequiredClaim, RouteLimits, TopicsAction,
};

/// One `[[route]]`. Routes are tried in the order of the file; the first that matches takes the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Which authorities; `None` means every one.
    pub host: Option<HostPattern>,
    /// Which paths.
    pub path: PathPattern,
    /// Where not empty, the route only takes requests that offer one of these. `echo` answers with the first of the
    /// client's offers that is in the list, `topics` likewise where it speaks no protocol of its own; `proxy` passes the
    /// client's offers through.
    pub subprotocols: Vec<String>,
    /// Which origins browsers may come from, with a WebSocket or, as CORS has it, with a request: `scheme://host[:port]`
    /// in lower case without a default port, or `null`. Empty means any, or [the own one alone](Route::takes_own_origin_alone).
    pub origins: Vec<String>,
    /// The position of the identity of which it wants a token, in [`crate::Config::identities`]; `None`: it takes anyone.
    pub identity: Option<usize>,
    /// What it demands of their claims: all of these, of 16 at most. None where it has no identity.
    pub claims: Vec<RequiredClaim>,
    /// What it wants of its clients' certificates; `None`: nothing.
    pub client_certificate: Option<ClientCertificate>,
    /// The limits of its sessions.
    pub limits: RouteLimits,
    /// What happens when a session's outbox is full.
    pub full: FullAction,
    /// What it does.
    pub action: Action,
}

impl Route {
    /// Whether browsers may come from the gateway's own origin alone: it lists none, and knows who comes by what a browser sends
    /// along whichever page asks, a cookie or a certificate (RFC 6455 §10.2).
    #[must_use]
    pub fn takes_own_origin_alone(&self) -> bool {
        self.origins.is_empty() && (self.identity.is_some() || self.client_certificate.is_some())
    }
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
    /// Answers a GET with something that is embedded; not a WebSocket.
    Page(Page),
    /// Carries the session to an upstream.
    Proxy(Proxy),
    /// Topics for WebSockets.
    Topics(TopicsAction),
    /// Topics as server-sent events; not a WebSocket.
    Events(EventsAction),
    /// Topics by long-polling; not a WebSocket.
    Poll(PollAction),
    /// Publishing by POST; not a WebSocket.
    Publish(PublishAction),
}

/// `page = { name = … }`: what is embedded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Page {
    /// A page that lets a browser try the echo.
    #[default]
    Index,
    /// A chat with rooms.
    Chat,
    /// A page that shows what comes over a WebSocket.
    WebSocket,
    /// A page that publishes.
    Broadcast,
    /// The client library: a script.
    Client,
}

/// `echo = { … }`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Echo {
    /// Whether permessage-deflate is agreed to.
    pub deflate: EchoDeflate,
    /// Whether context takeover is agreed to, within `takeover_bytes`.
    pub context_takeover: bool,
}

/// Whether an echo, or a route to topics, agrees to permessage-deflate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EchoDeflate {
    /// Where the client offers it.
    #[default]
    On,
    /// Never.
    Off,
}
