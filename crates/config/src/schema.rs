//! Every table of a file and every key in it, with its default, its unit and its reason. The tables of keys in
//! `docs/CONFIG.md` are made from this, and reading a key that is not in it is a bug that the tests meet.
//!
//! Reading a file needs [`Names`] alone. The other texts are reached through [`SCHEMA`], so that a program that does
//! not use it has none of them.

mod identity;
mod limits;
mod listener;
mod proxy;
mod route;
mod top;
mod topics;

/// A table of a file, as the documentation describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// As it is written in a file: `[limits]`, `[[route]]`, `proxy = {}`; empty for the top of the file.
    pub name: &'static str,
    /// Its keys, in the order of the documentation.
    pub keys: &'static [Key],
}

/// A key, and a row of the documentation. All but its name is Markdown of one line that fits a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// As it is written in a file.
    pub name: &'static str,
    /// What holds without it: in backticks and nothing else where it can be written so in a file, which is then
    /// tested; else in words. Empty where there is nothing to say.
    pub default: &'static str,
    /// What it counts or lists, `size` or `duration`; empty for all else.
    pub unit: &'static str,
    /// What it is, and why: whole sentences, or a link to the table that it holds.
    pub reason: &'static str,
}

/// A table's name and those of its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    /// As in [`Table`].
    pub table: &'static str,
    /// In the order of the documentation.
    pub keys: &'static [&'static str],
}

/// Declares the tables of [`SCHEMA`], in its order, and the names of each alone as a constant.
macro_rules! schema {
    ($($noun:ident::$table:ident: $name:literal,)+) => {
        $(pub(crate) const $table: Names =
            Names { table: $name, keys: &names::<{ $noun::$table.len() }>($noun::$table) };)+

        /// Every table of a configuration file, in the order of the documentation.
        pub const SCHEMA: &[Table] = &[$(Table { name: $name, keys: $noun::$table }),+];

        /// The names of all of [`SCHEMA`].
        pub(crate) const NAMES: &[Names] = &[$($table),+];
    };
}

schema! {
    top::TOP: "",
    limits::LIMITS: "[limits]",
    top::DRAIN: "[drain]",
    listener::LISTENER: "[[listener]]",
    listener::HTTPS_REDIRECT: "https_redirect = {}",
    listener::TLS: "tls = {}",
    listener::CERTIFICATE: "certificates = [{}]",
    top::ADMIN: "[admin]",
    top::LOG: "[log]",
    topics::TOPICS: "[topics]",
    topics::TOPIC: "[[topic]]",
    route::ROUTE: "[[route]]",
    route::CLIENT_CERTIFICATE: "[route.client_certificate]",
    limits::ROUTE_LIMITS: "[route.limits]",
    route::ECHO: "echo = {}",
    route::PAGE: "page = {}",
    proxy::PROXY: "proxy = {}",
    proxy::UPSTREAM_TLS: "[route.proxy.tls]",
    topics::ROUTE_TOPICS: "topics = {}",
    topics::EVENTS: "events = {}",
    topics::POLL: "poll = {}",
    topics::PUBLISH: "publish = {}",
    topics::PUBLISH_KEY: "keys = [{}]",
    identity::IDENTITY: "[[identity]]",
    identity::HOOK: "hook = {}",
    identity::PERMISSIONS: "permissions = {}",
}

/// The names of some keys, of which there must be `N`.
const fn names<const N: usize>(keys: &[Key]) -> [&'static str; N] {
    let mut names = [""; N];
    let mut at = 0;
    // A constant function knows no iterators.
    while at < N {
        names[at] = keys[at].name;
        at += 1;
    }
    names
}

/// Keys that are planned, so that whoever tries one learns more than that it is unknown.
pub(crate) const LATER: &[&str] = &["auth"];
