//! Tidegate's configuration: TOML into validated types that all other crates share.
//!
//! [`parse`] finds every mistake that one pass can find, each with its line, its column and what was probably meant.
//! What it gives back needs no further check: ranges hold, nothing contradicts anything else, every route can be
//! reached. It resolves no name and opens nothing but, in [`load`] and [`load_admin`], the file itself and those of keys and
//! certificates that it names. What is in a certificate is not judged here: [`PemFile::problem`] tells what others find wrong with it,
//! where the file names it.
//!
//! ```text
//! text ──► toml's spanned tree ──► Section: types, units, ranges ──► read: relations ──► Config
//!               │ syntax                  │ unknown keys, values          │ what contradicts, what is hidden
//!               └─────────────────────────┴───────────► Report ───────────┴──► Vec<Problem>
//! ```
//!
//! ```
//! let text = "version = 1\n[[listener]]\nbnd = '127.0.0.1:9001'\n[[route]]\npath = 'echo'\necho = {}\n";
//! let problems = tidegate_config::parse(text, "tidegate.toml").unwrap_err();
//! let lines: Vec<String> = problems.iter().map(|problem| problem.headline()).collect();
//! assert_eq!(lines, [
//!     "tidegate.toml:3:1: unknown key `bnd` in [[listener]] (did you mean `bind`?)",
//!     "tidegate.toml:5:8: a path begins with / (did you mean `/echo`?)",
//! ]);
//! ```
#![forbid(unsafe_code)]

mod address;
mod admin;
mod certificate;
mod change;
mod claims;
mod config;
mod drain;
mod file;
mod hidden;
mod http_url;
mod identity;
mod limits;
mod log;
mod name;
mod origin;
mod path;
mod pattern;
mod problem;
mod proxy;
mod rates;
mod reach;
mod read;
mod report;
mod route;
mod schema;
mod secret;
mod section;
mod tls;
mod topic;
mod topics;
mod units;

pub use self::{
    address::unmapped,
    admin::{Admin, DEFAULT_ADMIN_PATH},
    certificate::{CertificateName, ClientCertificate},
    change::Succession,
    claims::RequiredClaim,
    config::{
        Bind, Config, DEFAULT_BACKLOG, HttpsRedirect, IoChoice, Listener, MAX_LISTENERS, MAX_ROUTES,
        MAX_SHARDS, MAX_UPSTREAMS,
    },
    drain::Drain,
    http_url::HttpUrl,
    identity::{
        Algorithm, Hook, Identity, KeySetUrl, MAX_IDENTITIES, PermissionClaims, TokenKeys, TokenSource,
    },
    limits::{DEFAULT_MAX_SESSIONS, DEFAULT_MEMORY_BYTES, Limits, RouteLimits, SESSION_TAKEOVER_BYTES},
    log::{DEFAULT_LOG_ENTRIES, Log, LogFormat, LogLevel},
    path::NamedPath,
    pattern::{HostPattern, PathPattern, bare_host},
    problem::{Problem, printable},
    proxy::{Balance, Deflate, HashKey, Proxy, Target, Upstream, UpstreamTls, Utf8},
    rates::{AddressLimits, Excess, SessionRates},
    reach::hiding,
    read::{load, load_admin, parse},
    route::{Action, Echo, EchoDeflate, FullAction, Page, Route},
    schema::{Key, SCHEMA, Table},
    secret::Secret,
    tls::{CertificateFiles, PemFile, Tls, TlsVersion},
    topic::{BadTopic, MAX_TOPIC_BYTES, MAX_TOPIC_SEGMENTS, Segment, TopicPattern, TopicPatterns},
    topics::{
        EventsAction, MAX_PUBLISH_KEYS, MAX_TOPIC_PATTERNS, MAX_TOPIC_RULES, PollAction, PublishAction,
        PublishKey, SlowPolicy, TopicRule, TopicSettings, Topics, TopicsAction,
    },
};

/// The configuration of a gateway without a file, as a file.
pub const EMBEDDED: &str = include_str!("embedded.toml");

/// The configuration of a gateway without a file: 127.0.0.1:9001, pages, an echo at `/echo`, and topics, all of them
/// allowed.
///
/// # Panics
/// Never: [`EMBEDDED`] is valid, and a test says so.
#[must_use]
pub fn embedded() -> Config {
    match parse(EMBEDDED, "embedded.toml") {
        Ok(config) => config,
        Err(problems) => unreachable!("the embedded configuration has problems: {problems:?}"),
    }
}

/// As [`embedded`] for listeners that others than this machine may reach: its echo and the page for it alone, with a warning. Its
/// topics are open to whoever comes.
#[must_use]
pub fn embedded_for_others() -> Config {
    let mut config = embedded();
    config.routes.retain(|route| matches!(route.action, Action::Echo(_) | Action::Page(Page::Index)));
    let message = "beyond loopback only the echo is served, as the default's topics are open to all: give a file with -c";
    config.warnings.push(Problem::whole_file("without a file", message.to_owned()));
    config
}
