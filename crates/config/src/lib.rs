//! Tidegate's configuration.
#![forbid(unsafe_code)]

mod config;
mod limits;
mod pattern;
mod proxy;
mod route;

pub use self::{
    config::{Bind, Config, DEFAULT_BACKLOG, IoChoice, Listener, MAX_LISTENERS, MAX_ROUTES},
    limits::{Limits, RouteLimits},
    pattern::{HostPattern, PathPattern, bare_host},
    proxy::{Balance, Deflate, HashKey, Proxy, Target, Upstream, Utf8},
    route::{Action, Echo, EchoDeflate, FullAction, Route},
};

/// The configuration of a gateway without a file: 127.0.0.1:9001, the page at `/`, an echo at `/echo`.
#[must_use]
pub fn embedded() -> Config {
    let limits = Limits::default();
    let route = |path: &str, action| Route {
        host: None,
        path: PathPattern::Exact(path.to_owned()),
        subprotocols: Vec::new(),
        origins: Vec::new(),
        limits: limits.route_limits(),
        full: FullAction::Pause,
        action,
    };
    let routes = vec![route("/", Action::Page), route("/echo", Action::Echo(Echo::default()))];
    let bind = Bind::Tcp((std::net::Ipv4Addr::LOCALHOST, 9001).into());
    let listeners = vec![Listener { bind, backlog: DEFAULT_BACKLOG }];
    Config { version: 1, shards: None, io: IoChoice::Auto, limits, listeners, routes, trusted: Vec::new() }
}
