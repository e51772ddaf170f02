//! Fields that a proxy must not pass on.

use crate::http::Fields;

/// Fields that concern one connection only (RFC 9110 §7.6.1), and those that go with them in practice.
const HOP_BY_HOP: [&str; 12] = [
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "trailers",
    "transfer-encoding",
    "upgrade",
];

/// Fields that this end writes itself on an upgrade, and those that it has judged.
const OWN: [&str; 8] = [
    "content-length",
    "expect",
    "host",
    "sec-websocket-accept",
    "sec-websocket-extensions",
    "sec-websocket-key",
    "sec-websocket-protocol",
    "sec-websocket-version",
];

/// Whether a field concerns only the connection that it came by: it is one of the known ones, or one of the options that
/// the `Connection` fields of its message name (RFC 9110 §7.6.1).
pub fn is_hop_by_hop<'a>(name: &str, connection: impl IntoIterator<Item = &'a str>) -> bool {
    is_one_of(name, &HOP_BY_HOP) || connection.into_iter().any(|option| option.eq_ignore_ascii_case(name))
}

/// The fields of an upgrade request that go on to an upstream: not the hop-by-hop ones, and none that
/// [`client_request`](super::client_request) writes itself. `Forwarded` and `X-Forwarded-*` are among them: whether to believe
/// those is the caller's business.
///
/// [`upgrade`](super::upgrade) bounds how many options `Connection` may name, so the work is bounded by their number times
/// that of the fields.
pub fn forwarded_fields<'f, 'b>(fields: &'f Fields<'b>) -> impl Iterator<Item = (&'b str, &'b [u8])> + 'f {
    fields
        .iter()
        .filter(|(name, _)| !is_one_of(name, &OWN) && !is_hop_by_hop(name, fields.list("connection")))
}

fn is_one_of(name: &str, names: &[&str]) -> bool {
    names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{HeadLimits, Request};

    #[test]
    fn rfc9110_7_6_1_what_connection_names_is_hop_by_hop() {
        assert!(is_hop_by_hop("TE", []));
        assert!(is_hop_by_hop("Upgrade", []));
        assert!(is_hop_by_hop("X-Once", ["keep-alive", "x-once"]));
        assert!(!is_hop_by_hop("X-Twice", ["keep-alive", "x-once"]));
        assert!(!is_hop_by_hop("Cookie", []));
    }

    #[test]
    fn h2c_settings_and_own_fields_are_never_forwarded() {
        let head = "GET /ws HTTP/1.1\r\nHost: gw.test\r\nUpgrade: websocket, h2c\r\nConnection: Upgrade, HTTP2-Settings, X-A\r\n\
            Connection: X-B\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nSec-WebSocket-Key: k\r\nCookie: c=d\r\nX-a: 1\r\n\
            X-b: 1\r\nX-C: 1\r\nContent-Length: 0\r\nOrigin: https://o.test\r\nCookie: e=f\r\n\r\n";
        let request = Request::parse(head.as_bytes(), &HeadLimits::default(), false).unwrap();
        let names: Vec<_> = forwarded_fields(&request.fields).collect();
        assert_eq!(
            names,
            [("Cookie", &b"c=d"[..]), ("X-C", b"1"), ("Origin", b"https://o.test"), ("Cookie", b"e=f")]
        );
    }
}
