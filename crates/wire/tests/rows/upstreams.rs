//! Rows of the layer upstream: what a response's head may say.

use tidegate_wire::HeadLimits;
use tidegate_wire::handshake::{Agreed, Offer, verify_response};
use tidegate_wire::http::{BadResponse, Framing, HeadScanner, ResponseHead, Scan};

use crate::{ACCEPT, KEY, closes, req};

/// A 101 with edits in the notation of `req`.
fn response(edits: &[(&str, Option<&str>)]) -> Vec<u8> {
    let mut lines = vec![
        ("", "HTTP/1.1 101 Switching Protocols".to_owned()),
        ("Upgrade", "Upgrade: websocket".to_owned()),
        ("Connection", "Connection: Upgrade".to_owned()),
        ("Sec-WebSocket-Accept", format!("Sec-WebSocket-Accept: {ACCEPT}")),
    ];
    for (name, line) in edits {
        let known = lines.iter().position(|(known, _)| known == name);
        match (known, line) {
            (Some(at), Some(line)) => lines[at].1 = (*line).to_owned(),
            (Some(at), None) => drop(lines.remove(at)),
            (None, Some(line)) => lines.push((name, (*line).to_owned())),
            (None, None) => panic!("nothing to drop"),
        }
    }
    (lines.iter().map(|(_, line)| &line[..]).collect::<Vec<_>>().join("\r\n") + "\r\n\r\n").into_bytes()
}

/// The client role, byte by byte and whole.
fn upstream(input: &[u8]) -> Result<Agreed, BadResponse> {
    let whole = upstream_in([input]);
    assert_eq!(upstream_in(input.chunks(1)).is_ok(), whole.is_ok());
    whole
}

fn upstream_in<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Result<Agreed, BadResponse> {
    let limits = HeadLimits::default();
    let mut scanner = HeadScanner::for_response();
    let mut received = Vec::new();
    for chunk in chunks {
        received.extend_from_slice(chunk);
        if let Scan::Complete(end) = scanner.scan(&received, &limits)? {
            let response = ResponseHead::parse(&received[..end], &limits)?;
            return verify_response(&response, &KEY, &["chat"], Offer::None);
        }
    }
    panic!("the head of {:?} does not end", String::from_utf8_lossy(&received));
}

/// U01
#[test]
fn an_upstreams_refusal_is_relayed_and_never_a_tunnel() {
    for status in ["426 Upgrade Required", "400 Bad Request", "200 OK", "204 No Content", "302 Found", "503 "]
    {
        let head = response(&[
            ("", Some(&format!("HTTP/1.1 {status}"))),
            ("x", Some("X-Why: because")),
            ("c", Some("Connection: X-Hop, keep-alive")),
            ("h", Some("X-Hop: 1")),
            ("k", Some("Keep-Alive: timeout=5")),
            ("l", Some("Content-Length: 5")),
        ]);
        let number: u16 = status[..3].parse().unwrap();
        assert_eq!(upstream(&head), Err(BadResponse::Status(number)));
        let parsed = ResponseHead::parse(&head, &HeadLimits::default()).unwrap();
        let mut relayed = Vec::new();
        let framing = parsed.relay(&mut relayed, "Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        assert_eq!(framing, if number == 204 { Framing::Empty } else { Framing::Length(5) });
        let text = String::from_utf8(relayed).unwrap();
        assert!(text.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{text}");
        assert!(text.contains("\r\nX-Why: because\r\n"));
        assert!(text.contains("close\r\n") && text.ends_with("\r\n\r\n"));
        assert!(!text.contains("X-Hop") && !text.contains("Keep-Alive"));
        assert_eq!(text.contains("\r\nUpgrade: websocket\r\n"), number == 426);
    }
}

/// U02
#[test]
fn a_post_with_upgrade_is_refused_before_an_upstream_is_asked() {
    closes(&req("{line=POST /ws HTTP/1.1}{+Content-Length: 5}"), 405);
}

/// U03
#[test]
fn rfc6455_4_1_a_101_answers_the_key() {
    assert_eq!(upstream(&response(&[])), Ok(Agreed::default()));
    assert_eq!(upstream(&response(&[("Sec-WebSocket-Accept", None)])), Err(BadResponse::Accept));
    for accept in
        ["", "s3pPLMBiTxaQ9kYGzzhZRbK+xOO=", "S3PPLMBITXAQ9KYGZZHZRBK+XOO=", "dGhlIHNhbXBsZSBub25jZQ=="]
    {
        let line = format!("Sec-WebSocket-Accept: {accept}");
        assert_eq!(upstream(&response(&[("Sec-WebSocket-Accept", Some(&line))])), Err(BadResponse::Accept));
    }
}

/// U05
#[test]
fn rfc6455_4_1_every_rule_of_a_101() {
    for (edits, error) in [
        (vec![("Upgrade", Some("Upgrade: h2c"))], BadResponse::Upgrade),
        (vec![("Upgrade", Some("Upgrade: websocket, h2c"))], BadResponse::Upgrade),
        (vec![("Upgrade", None)], BadResponse::Upgrade),
        (vec![("x", Some("Upgrade: websocket"))], BadResponse::Upgrade),
        (vec![("Connection", None)], BadResponse::Connection),
        (vec![("Connection", Some("Connection: keep-alive"))], BadResponse::Connection),
        (vec![("x", Some("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="))], BadResponse::Accept),
        (vec![("", Some("HTTP/1.0 101 Switching Protocols"))], BadResponse::Version),
        (vec![("x", Some("Sec-WebSocket-Protocol: other"))], BadResponse::Protocol),
        (vec![("x", Some("Sec-WebSocket-Protocol: Chat"))], BadResponse::Protocol),
        (vec![("x", Some("Sec-WebSocket-Protocol: "))], BadResponse::Protocol),
        (vec![("x", Some("Sec-WebSocket-Protocol: chat, chat"))], BadResponse::Protocol),
        (
            vec![("x", Some("Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: chat"))],
            BadResponse::Protocol,
        ),
        (vec![("x", Some("Sec-WebSocket-Extensions: permessage-deflate"))], BadResponse::Extension),
        (vec![("x", Some("Sec-WebSocket-Extensions: foo"))], BadResponse::Extension),
        (vec![("x", Some("Transfer-Encoding: chunked"))], BadResponse::Body),
        (vec![("x", Some("Content-Length: 1"))], BadResponse::Body),
    ] {
        assert_eq!(upstream(&response(&edits)), Err(error), "{edits:?}");
    }
    let relaxed = response(&[
        ("", Some("HTTP/1.1 101")),
        ("Upgrade", Some("upgrade: WebSocket")),
        ("Connection", Some("Connection: keep-alive, upgrade")),
        ("x", Some("Sec-WebSocket-Protocol: chat")),
        ("y", Some("Content-Length: 0")),
    ]);
    assert_eq!(upstream(&relaxed).unwrap().protocol.as_deref(), Some("chat"));
}

/// U08
#[test]
fn an_upstreams_head_beyond_its_limit_is_refused() {
    let long = response(&[("x", Some(&format!("X: {}", "a".repeat(64 * 1024))))]);
    assert!(matches!(upstream(&long), Err(BadResponse::Head(_))));
    assert!(matches!(upstream(&long[..20_000]), Err(BadResponse::Head(_))));
    let many = response(&[("x", Some(&["X: y"; 101].join("\r\n")))]);
    assert!(matches!(upstream(&many), Err(BadResponse::Head(_))));
}

/// U12
#[test]
fn an_upstreams_field_with_a_line_break_or_nul_is_refused() {
    for value in ["a\rb", "a\nb", "a\0b", "a\r\n b", "a\x7f", "a\x1b[2J"] {
        let head = response(&[("x", Some(&format!("X: {value}")))]);
        assert!(matches!(upstream(&head), Err(BadResponse::Head(_))), "{value:?}");
    }
    for line in ["X : a", ": a", "X", " X: a", "X\u{e9}: a"] {
        assert!(matches!(upstream(&response(&[("x", Some(line))])), Err(BadResponse::Head(_))), "{line:?}");
    }
    for line in [
        "HTTP/2 101",
        "HTTP/1.1  101 x",
        "HTTP/1.1 1010 x",
        "HTTP/1.1 99 x",
        "HTTP/1.1 601 x",
        "HTTP/1.1 10",
        "ICY 200 OK",
        "HTTP/1.1 101 a\0b",
        " HTTP/1.1 101",
        "http/1.1 101 x",
        "",
    ] {
        assert!(matches!(upstream(&response(&[("", Some(line))])), Err(BadResponse::Head(_))), "{line:?}");
    }
    let cookie = response(&[("x", Some(&format!("Set-Cookie: {}", "a".repeat(64 * 1024))))]);
    assert!(matches!(upstream(&cookie), Err(BadResponse::Head(_))));
}
