//! Where a listener listens, where an upstream is, and who is trusted.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use ipnet::{IpNet, Ipv4Net};

use crate::{
    Bind, Target, Upstream,
    name::{self, Host},
    report::Mistake,
    section::shown,
};

const BIND_FORM: &str = "an address to bind is like 0.0.0.0:8080, [::]:8080 or unix:/run/tidegate.sock";
const UPSTREAM_FORM: &str =
    "an upstream is like ws://10.0.0.5:9000, wss://app.internal or unix:/run/app.sock";

impl Bind {
    /// Reads `0.0.0.0:8080`, `[::]:8080` or `unix:/path`, as in a file; for command lines.
    ///
    /// # Errors
    /// What is wrong with it, and what was probably meant.
    pub fn parse(text: &str) -> Result<Self, String> {
        bind(text).map_err(|Mistake { message, suggestion }| match suggestion {
            Some(suggestion) => format!("{message} (did you mean `{suggestion}`?)"),
            None => message,
        })
    }

    /// Whether only this machine reaches it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }

    /// Whether two sockets would compete for the same connections. Port 0 is another port each time.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp(one), Self::Tcp(other)) => {
                let same_family = one.is_ipv4() == other.is_ipv4();
                let any = one.ip().is_unspecified() || other.ip().is_unspecified();
                one.port() != 0 && one.port() == other.port() && (one == other || (same_family && any))
            }
            (Self::Unix(one), Self::Unix(other)) => one == other,
            (Self::Tcp(_), Self::Unix(_)) | (Self::Unix(_), Self::Tcp(_)) => false,
        }
    }
}

impl std::fmt::Display for Bind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

pub(crate) fn bind(text: &str) -> Result<Bind, Mistake> {
    if let Some(path) = text.strip_prefix("unix:") {
        return name::unix_path(path).map(Bind::Unix);
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        // Listeners are IPv6-only (IPV6_V6ONLY), so such an address could never receive anything.
        if let IpAddr::V6(v6) = address.ip()
            && let Some(v4) = v6.to_ipv4_mapped()
        {
            let meant = SocketAddr::new(v4.into(), address.port());
            return Err(Mistake::suggesting("this is an IPv4 address in IPv6 notation", meant.to_string()));
        }
        // The same address is on every interface (RFC 4007 §6), and bind(2) wants to know which is meant.
        if let SocketAddr::V6(v6) = address
            && v6.ip().is_unicast_link_local()
            && v6.scope_id() == 0
        {
            let message =
                "a link-local address is bound on one interface, and needs its number (`ip link`) behind a %";
            let meant = SocketAddrV6::new(*v6.ip(), v6.port(), 0, 2);
            return Err(Mistake::new(format!("{message}, like {meant}")));
        }
        return Ok(Bind::Tcp(address));
    }
    if text.parse::<IpAddr>().is_ok() {
        let host = if text.contains(':') { format!("[{text}]") } else { text.to_owned() };
        return Err(Mistake::suggesting("an address to bind needs a port", format!("{host}:8080")));
    }
    if let Some((_, rest)) = text.split_once("://") {
        let meant = rest.trim_end_matches('/');
        let suggestion = meant.parse::<SocketAddr>().ok().map(|address| address.to_string());
        return Err(Mistake { message: format!("{BIND_FORM}, without a scheme"), suggestion });
    }
    if let Some((host, port)) = text.rsplit_once(':') {
        let checked = name::port(port)?;
        return Err(match host {
            "" | "*" => Mistake::suggesting(BIND_FORM, format!("0.0.0.0:{checked}")),
            "localhost" => {
                Mistake::suggesting("a name cannot be bound, only an address", format!("127.0.0.1:{checked}"))
            }
            _ if host.parse::<Ipv6Addr>().is_ok() => {
                Mistake::suggesting("an IPv6 address stands in brackets", format!("[{host}]:{checked}"))
            }
            _ => match Host::parse(host)? {
                Host::Name(_) => {
                    Mistake::new(format!("a name cannot be bound, only an address: {BIND_FORM}"))
                }
                Host::Address(_) => Mistake::new(BIND_FORM),
            },
        });
    }
    if let Ok(port) = name::port(text) {
        return Err(Mistake::suggesting(BIND_FORM, format!("0.0.0.0:{port}")));
    }
    if text.starts_with('/') {
        return Err(Mistake::suggesting(BIND_FORM, format!("unix:{text}")));
    }
    Err(Mistake::new(BIND_FORM))
}

pub(crate) fn upstream(text: &str) -> Result<Upstream, Mistake> {
    let (scheme, rest) = match text.split_once(':') {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("unix") => {
            let target = Target::Unix(name::unix_path(rest)?);
            return Ok(Upstream { target, text: text.to_owned(), tls: false });
        }
        _ => match text.split_once("://") {
            Some(parts) => parts,
            None if text.starts_with('/') => {
                return Err(Mistake::suggesting(UPSTREAM_FORM, format!("unix:{text}")));
            }
            None if name::authority(text).is_ok() => {
                return Err(Mistake::suggesting(UPSTREAM_FORM, format!("ws://{text}")));
            }
            None => return Err(Mistake::new(UPSTREAM_FORM)),
        },
    };
    let tls = match scheme.to_ascii_lowercase().as_str() {
        "ws" => false,
        "wss" => true,
        "https" => return Err(Mistake::suggesting(UPSTREAM_FORM, format!("wss://{rest}"))),
        "http" => return Err(Mistake::suggesting(UPSTREAM_FORM, format!("ws://{rest}"))),
        "unix" => unreachable!("handled above"),
        _ => return Err(Mistake::new(format!("unknown scheme {}: {UPSTREAM_FORM}", shown(scheme)))),
    };
    if let Some(at) = rest.find(['/', '?', '#']) {
        let message = "an upstream has no path: the path of the request is forwarded as it is";
        let scheme = if tls { "wss" } else { "ws" };
        return Err(Mistake::suggesting(message, format!("{scheme}://{}", &rest[..at])));
    }
    let (host, port) = name::authority(rest)?;
    let port = port.unwrap_or(if tls { 443 } else { 80 });
    let target = match host {
        Host::Address(address) if address.is_unspecified() || address.is_multicast() => {
            return Err(Mistake::new(format!("nothing can be connected to at {address}")));
        }
        Host::Address(address) => Target::Address(SocketAddr::new(address, port)),
        Host::Name(host) => Target::Name { host, port },
    };
    Ok(Upstream { target, text: text.to_owned(), tls })
}

/// A network like `10.0.0.0/8`, or one address.
pub(crate) fn network(text: &str) -> Result<IpNet, Mistake> {
    let address = text.parse::<IpAddr>().ok();
    let network = address.map_or_else(|| text.parse::<IpNet>(), |address| Ok(IpNet::from(address)));
    let network = network
        .map_err(|_| Mistake::new(format!("{} is not a network like 10.0.0.0/8 or fd00::/8", shown(text))))?;
    // Clients' addresses are compared as IPv4 ones, so such a network could never have one of them.
    if let Some(meant) = unmapped(network) {
        let (what, meant) = match address {
            Some(_) => ("address", meant.addr().to_string()),
            None => ("network", meant.trunc().to_string()),
        };
        return Err(Mistake::suggesting(format!("this is an IPv4 {what} in IPv6 notation"), meant));
    }
    if network.addr() != network.network() {
        let message = format!("{text} has bits behind its prefix");
        return Err(Mistake::suggesting(message, network.trunc().to_string()));
    }
    Ok(network)
}

/// The IPv4 network that is in a part of `::ffff:0:0/96` (RFC 4291 §2.5.5.2), which no session's address is in: those are IPv4.
#[must_use]
pub fn unmapped(network: IpNet) -> Option<IpNet> {
    let IpNet::V6(v6) = network else { return None };
    let (v4, len) = (v6.addr().to_ipv4_mapped()?, v6.prefix_len().checked_sub(96)?);
    Ipv4Net::new(v4, len).ok().map(IpNet::V4)
}

/// A local address to connect from.
pub(crate) fn source(text: &str) -> Result<IpAddr, Mistake> {
    let Ok(address) = text.parse::<IpAddr>() else {
        let message = format!("{} is not an IP address", shown(text));
        let suggestion = text.parse::<SocketAddr>().ok().map(|address| address.ip().to_string());
        return Err(Mistake { message, suggestion });
    };
    if address.is_unspecified() || address.is_multicast() {
        return Err(Mistake::new(format!("nothing can be sent from {address}")));
    }
    Ok(address)
}
