//! Where the gateway itself asks something by HTTP: for the keys of tokens, or a hook.

use std::{fmt, net::IpAddr};

use crate::{
    name::{self, Host},
    report::Mistake,
    section::shown,
};

/// An absolute URL of HTTP (RFC 9110 §4.2) without a user and a fragment: with TLS, or to this machine.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct HttpUrl {
    /// As it is asked for: the scheme and the host in lower case.
    text: String,
    /// Where in it the path begins.
    path: usize,
}

const FORM: &str = "a URL is like https://login.example.com/keys";

/// Longest URL, in bytes.
const MAX_BYTES: usize = 2048;

impl HttpUrl {
    /// The whole.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Scheme, host and port. What is behind them may hold a secret: this is for logs.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.text[..self.path]
    }

    /// Whether it is asked for by TLS.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.text.starts_with("https:")
    }
}

/// What is behind its origin may hold a secret.
impl fmt::Debug for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpUrl({}/..)", self.origin())
    }
}

pub(crate) fn http_url(text: &str) -> Result<HttpUrl, Mistake> {
    if text.len() > MAX_BYTES {
        return Err(Mistake::new(format!("a URL has at most {MAX_BYTES} bytes")));
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        let meant = !text.contains(['/', ' ']) && name::authority(text).is_ok();
        let suggestion = meant.then(|| format!("https://{text}/"));
        return Err(Mistake { message: FORM.to_owned(), suggestion });
    };
    let scheme = scheme.to_ascii_lowercase();
    if !matches!(&*scheme, "https" | "http") {
        return Err(Mistake::new(format!("unknown scheme {}: {FORM}", shown(&scheme))));
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(end);
    let (host, port) = name::authority(authority)?;
    if let Host::Address(address) = host
        && (address.is_unspecified() || address.is_multicast())
    {
        return Err(Mistake::new(format!("nothing can be connected to at {address}")));
    }
    if scheme == "http" && !is_loopback(&host) {
        let message = "without TLS anyone on the way could answer: http:// is for this machine alone (127.0.0.1, [::1], localhost)";
        return Err(Mistake::suggesting(message, format!("https://{rest}")));
    }
    // RFC 3986 §3.3 and §3.4, as far as what is not there would be written otherwise by everybody.
    let is_fit = |byte: u8| byte.is_ascii_graphic() && !b"\"<>\\^`{|}#".contains(&byte);
    if let Some(odd) = target.chars().find(|c| !u8::try_from(*c).is_ok_and(is_fit)) {
        let what =
            if odd == '#' { "a fragment, which is not sent".to_owned() } else { shown(&odd.to_string()) };
        return Err(Mistake::new(format!("the URL has {what}")));
    }
    let port = port.map_or_else(String::new, |port| format!(":{port}"));
    let origin = format!("{scheme}://{host}{port}");
    let slash = if target.starts_with('/') { "" } else { "/" };
    Ok(HttpUrl { path: origin.len(), text: format!("{origin}{slash}{target}") })
}

/// RFC 6761 §6.3: `localhost` is this machine.
fn is_loopback(host: &Host) -> bool {
    match host {
        Host::Address(IpAddr::V4(address)) => address.is_loopback(),
        Host::Address(IpAddr::V6(address)) => address.is_loopback(),
        Host::Name(name) => name == "localhost",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_written_in_one_way() {
        for (text, url, origin) in [
            ("https://Login.Example.com", "https://login.example.com/", "https://login.example.com"),
            ("HTTPS://a.test:8443/k?x=%20y", "https://a.test:8443/k?x=%20y", "https://a.test:8443"),
            ("https://a.test?tenant=1", "https://a.test/?tenant=1", "https://a.test"),
            ("http://127.0.0.1:9/ask", "http://127.0.0.1:9/ask", "http://127.0.0.1:9"),
            ("http://[::1]:9/", "http://[::1]:9/", "http://[::1]:9"),
            ("http://localhost/", "http://localhost/", "http://localhost"),
        ] {
            let read = http_url(text).unwrap_or_else(|mistake| panic!("{text}: {}", mistake.message));
            assert_eq!((read.as_str(), read.origin()), (url, origin));
            assert_eq!(read.is_secure(), url.starts_with("https:"));
        }
        let hidden = format!("{:?}", http_url("https://a.test/k?secret").expect("it is right"));
        assert!(!hidden.contains("secret"), "{hidden}");
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in [
            "",
            "a.test",
            "/k",
            "ftp://a.test/",
            "https://",
            "https:///k",
            "https://u:p@a.test/",
            "https://a.test:0/",
            "https://a.test/#k",
            "https://a.test/a b",
            "https://a.test/\u{e9}",
            "https://a.test/a\r\nb",
            "https://0.0.0.0/",
            "http://a.test/",
            "http://10.0.0.1/",
            "http://0.0.0.0/",
            "http://localhost.a.test/",
        ] {
            assert!(http_url(text).is_err(), "{text}");
        }
        assert!(http_url(&format!("https://a.test/{}", "a".repeat(MAX_BYTES))).is_err());
    }
}
