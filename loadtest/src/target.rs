//! The server that is put under load.

use std::{
    fmt, io,
    net::{SocketAddr, ToSocketAddrs},
};

use tidegate_wire::http::Authority;

/// What is spoken below WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// TCP.
    Ws,
    /// TLS.
    Wss,
}

/// A `ws://` or `wss://` URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) scheme: Scheme,
    /// `host[:port]`, as the Host field has it.
    pub(crate) authority: String,
    /// Host name or address, without brackets.
    pub(crate) host: String,
    port: u16,
    /// Path and query.
    pub(crate) path: String,
}

impl Target {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong with it, for the user.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").ok_or("a URL like ws://127.0.0.1:9001/ is needed")?;
        // RFC 6455 §3: the default ports.
        let (scheme, default_port) = match scheme.to_ascii_lowercase().as_str() {
            "ws" => (Scheme::Ws, 80),
            "wss" => (Scheme::Wss, 443),
            _ => return Err(format!("the scheme is {scheme}://, but must be ws:// or wss://")),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if path.contains('#') {
            return Err("RFC 6455 §3: a WebSocket URL has no fragment (#)".into());
        }
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        if !path.bytes().all(|byte| (0x21..0x7f).contains(&byte)) {
            return Err("the path has characters that must be percent-encoded".into());
        }
        if Authority::parse(authority).is_none() {
            return Err(format!("{authority:?} is no host[:port]"));
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !authority.ends_with(']') => {
                (host, port.parse().map_err(|_| format!("{port:?} is no port"))?)
            }
            _ => (authority, default_port),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { scheme, authority: authority.to_owned(), host, port, path })
    }

    /// The first address that the system gives for the host.
    ///
    /// # Errors
    /// Where it gives none.
    pub(crate) fn resolve(&self) -> io::Result<SocketAddr> {
        let mut addresses = (self.host.as_str(), self.port).to_socket_addrs()?;
        addresses.next().ok_or_else(|| io::Error::other("the name has no address"))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Ws => "ws",
            Scheme::Wss => "wss",
        };
        write!(f, "{scheme}://{}{}", self.authority, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_host_port_and_path() {
        for (url, host, port, path) in [
            ("ws://a", "a", 80, "/"),
            ("WS://a:9001", "a", 9001, "/"),
            ("ws://a:9001/x?y=1", "a", 9001, "/x?y=1"),
            ("ws://a?y", "a", 80, "/?y"),
            ("ws://[::1]:7/", "::1", 7, "/"),
            ("ws://[::1]", "::1", 80, "/"),
            ("wss://a/x", "a", 443, "/x"),
            ("wss://a:80/x", "a", 80, "/x"),
        ] {
            let target = Target::parse(url).unwrap();
            assert_eq!((&*target.host, target.port, &*target.path), (host, port, path), "{url}");
        }
    }

    #[test]
    fn what_is_no_such_url_is_refused_with_the_reason() {
        for (url, reason) in [
            ("http://a", "http://"),
            ("a:80", "a URL like"),
            ("ws://", "host"),
            ("ws://u@a/", "host"),
            ("ws://a:0/", "host"),
            ("ws://a/#f", "fragment"),
            ("ws://a/\u{e9}", "percent"),
        ] {
            let error = Target::parse(url).unwrap_err();
            assert!(error.contains(reason), "{url}: {error}");
        }
    }
}
