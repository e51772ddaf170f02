//! The names of all keys, by table. `docs/CONFIG.md` is tested against this list, and reading a key that is not in
//! it is a bug that the tests meet.

/// A table of the schema and its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// As it is written in a file: `[limits]`, `[[route]]`, `proxy = {}`; empty for the top of the file.
    pub name: &'static str,
    /// Its keys, in the order of the documentation.
    pub keys: &'static [&'static str],
}

/// The top of the file.
pub(crate) const TOP: Table = Table {
    name: "",
    keys: &[
        "version", "shards", "io", "trusted", "limits", "drain", "listener", "admin", "log", "topics",
        "topic", "identity", "route",
    ],
};

pub(crate) const LIMITS: Table = Table {
    name: "[limits]",
    keys: &[
        "max_sessions",
        "memory",
        "sessions_per_address",
        "handshakes_per_second",
        "burst_handshakes",
        "exempt_addresses",
        "head_bytes",
        "request_line_bytes",
        "head_fields",
        "head_timeout",
        "message_bytes",
        "message_fragments",
        "message_timeout",
        "control_frames",
        "control_window",
        "outbox_soft",
        "outbox_hard",
        "ping_interval",
        "pong_timeout",
        "close_timeout",
        "idle_timeout",
        "messages_per_second",
        "burst_messages",
        "bytes_per_second",
        "burst_bytes",
        "excess",
        "write_timeout",
        "linger_bytes",
        "receive_buffers",
        "inflaters",
        "deflaters",
        "takeover_bytes",
        "compression_level",
        "log_entries",
    ],
};

pub(crate) const DRAIN: Table =
    Table { name: "[drain]", keys: &["window", "deadline", "code", "route_code", "reconnect_delay"] };

pub(crate) const LISTENER: Table =
    Table { name: "[[listener]]", keys: &["bind", "backlog", "tls", "proxy_protocol", "https_redirect"] };

pub(crate) const HTTPS_REDIRECT: Table =
    Table { name: "https_redirect = {}", keys: &["host", "hosts", "port"] };

pub(crate) const TLS: Table = Table {
    name: "tls = {}",
    keys: &[
        "certificate_file",
        "key_file",
        "certificates",
        "min_version",
        "client_ca_file",
        "client_certificate",
    ],
};

pub(crate) const CERTIFICATE: Table =
    Table { name: "certificates = [{}]", keys: &["certificate_file", "key_file"] };

pub(crate) const ADMIN: Table = Table { name: "[admin]", keys: &["bind", "token_file", "allow_uids"] };

pub(crate) const LOG: Table =
    Table { name: "[log]", keys: &["level", "format", "file", "entries_per_second"] };

pub(crate) const TOPICS: Table =
    Table { name: "[topics]", keys: &["memory", "max_topics", "max_subscriptions"] };

pub(crate) const TOPIC: Table = Table {
    name: "[[topic]]",
    keys: &[
        "name",
        "history",
        "history_age",
        "history_bytes",
        "presence",
        "slow",
        "keys",
        "backlog_bytes",
        "message_bytes",
    ],
};

pub(crate) const IDENTITY: Table = Table {
    name: "[[identity]]",
    keys: &[
        "name",
        "jwks_file",
        "jwks_url",
        "jwks_interval",
        "jwks_timeout",
        "key_file",
        "secret",
        "secret_file",
        "hook",
        "algorithms",
        "issuers",
        "audiences",
        "leeway",
        "expiry",
        "expired_code",
        "token",
        "forward_token",
        "user",
        "headers",
        "permissions",
    ],
};

pub(crate) const HOOK: Table = Table {
    name: "hook = {}",
    keys: &["url", "timeout", "max_in_flight", "forward", "secret", "secret_file"],
};

pub(crate) const PERMISSIONS: Table =
    Table { name: "permissions = {}", keys: &["subscribe", "publish", "presence"] };

pub(crate) const ROUTE: Table = Table {
    name: "[[route]]",
    keys: &[
        "host",
        "path",
        "subprotocols",
        "origins",
        "identity",
        "client_certificate",
        "limits",
        "full",
        "echo",
        "page",
        "proxy",
        "topics",
        "events",
        "poll",
        "publish",
    ],
};

pub(crate) const CLIENT_CERTIFICATE: Table =
    Table { name: "[route.client_certificate]", keys: &["required", "names", "header"] };

pub(crate) const ROUTE_LIMITS: Table = Table {
    name: "[route.limits]",
    keys: &[
        "message_bytes",
        "message_fragments",
        "message_timeout",
        "control_frames",
        "control_window",
        "outbox_soft",
        "outbox_hard",
        "ping_interval",
        "pong_timeout",
        "close_timeout",
        "idle_timeout",
        "messages_per_second",
        "burst_messages",
        "bytes_per_second",
        "burst_bytes",
        "excess",
        "max_sessions",
    ],
};

pub(crate) const ECHO: Table = Table { name: "echo = {}", keys: &["deflate", "context_takeover"] };

pub(crate) const PAGE: Table = Table { name: "page = {}", keys: &["name"] };

pub(crate) const PROXY: Table = Table {
    name: "proxy = {}",
    keys: &[
        "upstreams",
        "balance",
        "hash_on",
        "deflate",
        "utf8",
        "context_takeover",
        "resolve_timeout",
        "resolve_interval",
        "connect_timeout",
        "handshake_timeout",
        "retries",
        "max_fails",
        "fail_timeout",
        "failure_code",
        "source",
        "tls",
    ],
};

pub(crate) const UPSTREAM_TLS: Table = Table {
    name: "[route.proxy.tls]",
    keys: &["ca_file", "server_name", "certificate_file", "key_file", "min_version"],
};

pub(crate) const ROUTE_TOPICS: Table = Table {
    name: "topics = {}",
    keys: &[
        "subscribe",
        "publish",
        "presence",
        "max_subscriptions",
        "max_patterns",
        "session_bytes",
        "deflate",
    ],
};

pub(crate) const EVENTS: Table =
    Table { name: "events = {}", keys: &["subscribe", "presence", "session_bytes"] };

pub(crate) const POLL: Table = Table { name: "poll = {}", keys: &["subscribe", "presence", "session_bytes"] };

pub(crate) const PUBLISH: Table =
    Table { name: "publish = {}", keys: &["publish", "keys", "body_bytes", "rate"] };

pub(crate) const PUBLISH_KEY: Table =
    Table { name: "keys = [{}]", keys: &["name", "key", "key_file", "publish"] };

/// Every table of a configuration file.
pub const SCHEMA: &[Table] = &[
    TOP,
    LIMITS,
    DRAIN,
    LISTENER,
    HTTPS_REDIRECT,
    TLS,
    CERTIFICATE,
    ADMIN,
    LOG,
    TOPICS,
    TOPIC,
    ROUTE,
    CLIENT_CERTIFICATE,
    ROUTE_LIMITS,
    ECHO,
    PAGE,
    PROXY,
    UPSTREAM_TLS,
    ROUTE_TOPICS,
    EVENTS,
    POLL,
    PUBLISH,
    PUBLISH_KEY,
    IDENTITY,
    HOOK,
    PERMISSIONS,
];

/// Keys that are planned, so that whoever tries one learns more than that it is unknown.
pub(crate) const LATER: &[&str] = &["auth"];
