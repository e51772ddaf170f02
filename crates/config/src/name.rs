//! Host names, authorities, tokens and unix paths: the small grammars that several keys share.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use crate::{hidden::may_be_port, report::Mistake, section::shown};

/// The host of an authority in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    Address(IpAddr),
    /// In lower case, without a final dot.
    Name(String),
}

impl Host {
    /// A name, an IPv4 address, or an IPv6 address in brackets.
    pub(crate) fn parse(text: &str) -> Result<Self, Mistake> {
        if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let address = inner.parse::<Ipv6Addr>();
            return address
                .map(|address| Self::Address(address.into()))
                .map_err(|_| Mistake::new(format!("{} is not an IPv6 address", shown(inner))));
        }
        if let Ok(address) = text.parse::<Ipv6Addr>() {
            return Err(Mistake::suggesting("an IPv6 address stands in brackets", format!("[{address}]")));
        }
        // A last label of digits (or 0x…) is an IPv4 address to every resolver, in one of its many old spellings.
        let last = text.strip_suffix('.').unwrap_or(text).rsplit('.').next().unwrap_or(text);
        if !last.is_empty()
            && (last.bytes().all(|b| b.is_ascii_digit()) || last.to_ascii_lowercase().starts_with("0x"))
        {
            let address = text.parse::<Ipv4Addr>();
            return address
                .map(|address| Self::Address(address.into()))
                .map_err(|_| Mistake::new(format!("{} is not an IPv4 address", shown(text))));
        }
        host_name(text).map(Self::Name)
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Address(address) => write!(f, "{address}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// RFC 1123 §2.1, with the underscore that container networks use; in lower case, without a final dot.
pub(crate) fn host_name(text: &str) -> Result<String, Mistake> {
    let wrong = |why: &str| Mistake::new(format!("{} is not a host name: {why}", shown(text)));
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.is_empty() {
        return Err(Mistake::new("the host is empty"));
    }
    if !name.is_ascii() {
        return Err(wrong("write it in its ASCII form (xn--…)"));
    }
    if name.len() > 253 {
        return Err(wrong("it is longer than 253 bytes"));
    }
    for label in name.split('.') {
        if label.is_empty() {
            return Err(wrong("it has an empty label"));
        }
        if label.len() > 63 {
            return Err(wrong("a label is longer than 63 bytes"));
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err(wrong("a label begins or ends with a hyphen"));
        }
        if let Some(odd) = label.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_')) {
            return Err(match odd {
                // In a URL without its `@` what is behind it is a password.
                ':' if !text.contains("://") => Mistake::new("a host name has no `:`"),
                _ => wrong(&format!("it has a {}", shown(&odd.to_string()))),
            });
        }
    }
    Ok(name.to_ascii_lowercase())
}

/// `host` or `host:port`; the port is not 0.
pub(crate) fn authority(text: &str) -> Result<(Host, Option<u16>), Mistake> {
    if text.contains('@') {
        return Err(Mistake::new("user names and passwords do not belong here"));
    }
    let bracket = text.rfind(']').map_or(0, |at| at + 1);
    let (host, port) = match text[bracket..].split_once(':') {
        // `::1` and the like: the whole is an address without brackets, which `Host::parse` explains.
        Some((_, rest)) if bracket == 0 && rest.contains(':') => (text, None),
        Some((before, port)) => (&text[..bracket + before.len()], Some(port)),
        None => (text, None),
    };
    let host = Host::parse(host)?;
    match port {
        None => Ok((host, None)),
        Some(port) => Ok((host, Some(self::port(port)?))),
    }
}

/// 1 to 65535, in one spelling.
pub(crate) fn port(text: &str) -> Result<u16, Mistake> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    let port = if digits { text.parse::<u16>().ok() } else { None };
    port.ok_or_else(|| match may_be_port(text) {
        true => Mistake::new(format!("{} is not a port: 1 to 65535", shown(text))),
        // In a URL without its `@` it is a password.
        false => Mistake::new("a port is a number: 1 to 65535"),
    })
}

/// RFC 9110 §5.6.2: `token`.
pub(crate) fn is_token(text: &str) -> bool {
    let tchar = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(tchar)
}

/// `sun_path` has 108 bytes, the last of them zero (unix(7)).
pub(crate) const UNIX_PATH_BYTES: usize = 107;

/// The path of a unix socket: what follows `unix:`.
pub(crate) fn unix_path(text: &str) -> Result<PathBuf, Mistake> {
    if !text.starts_with('/') {
        return Err(Mistake::new("the path of a unix socket begins with /, like unix:/run/app.sock"));
    }
    if text.starts_with("//") {
        let meant = format!("unix:/{}", text.trim_start_matches('/'));
        return Err(Mistake::suggesting("the path of a unix socket begins with one /", meant));
    }
    if text.ends_with('/') {
        return Err(Mistake::new("the path of a unix socket ends with the name of the socket, not with /"));
    }
    if text.contains('\0') {
        return Err(Mistake::new("the path of a unix socket cannot hold a zero byte"));
    }
    if text.len() > UNIX_PATH_BYTES {
        let length = text.len();
        return Err(Mistake::new(format!(
            "a unix path is at most {UNIX_PATH_BYTES} bytes long, and this has {length}"
        )));
    }
    Ok(PathBuf::from(text))
}
