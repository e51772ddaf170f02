//! Rows of the layers tcp and http: request heads.

use std::fmt::Write;

use tidegate_wire::HeadLimits;
use tidegate_wire::http::Request;

use crate::{ACCEPT, Verdict, closes, req, serve, status};

/// T06
#[test]
fn rfc9112_2_2_a_request_is_a_stream_of_bytes() {
    let verdict = serve(&req(""));
    assert_eq!(verdict.status(), 101);
    assert!(verdict.has_field(&format!("Sec-WebSocket-Accept: {ACCEPT}")));
    assert!(verdict.has_field("Upgrade: websocket"));
    assert!(verdict.has_field("Connection: Upgrade"));
}

/// T09, T10, T11
#[test]
fn a_proxy_header_is_no_request() {
    closes(&[b"PROXY TCP4 1.2.3.4 10.0.0.1 1 2\r\n", &req("")[..]].concat(), 400);
    closes(b"PROXY TCP4 999.1.1.1 10.0.0.1 1 2\r\n", 400);
    closes(b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a\x21\x11\xff\xff", 400);
}

/// S01 the other way round: TLS on a plain port.
#[test]
fn a_tls_record_is_refused_at_its_first_byte() {
    closes(b"\x16", 400);
    closes(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", 400);
    closes(b"\x80\x2e\x01\x00\x02", 400);
}

/// S08
#[test]
fn rfc9113_3_4_the_http2_preface_is_refused_at_its_first_line() {
    closes(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505);
    closes(b"PRI * HTTP/2.0\r\n", 505);
}

/// H01
#[test]
fn rfc9110_7_8_upgrade_in_http_1_0_is_ignored() {
    closes(&req("{line=GET /ws HTTP/1.0}"), 400);
}

/// H02
#[test]
fn rfc9112_3_a_simple_request_is_refused_at_its_line() {
    closes(&req("{line=GET /ws HTTP/0.9}"), 505);
    closes(b"GET /ws\r\n", 400);
    closes(b"GET\r\n", 400);
    closes(b"GET \r\n", 400);
}

/// H03
#[test]
fn rfc9110_15_6_6_another_major_version_is_refused() {
    closes(&req("{line=GET /ws HTTP/2.0}"), 505);
    closes(&req("{line=GET /ws HTTP/3.0}"), 505);
    closes(&req("{line=GET /ws HTTP/1.2}"), 505);
    for version in [
        "HTTP/1",
        "HTTP/11",
        "HTTP/1.1.",
        "HTTP/1.10",
        "HTTP/+1.1",
        "http/1.1",
        "HTTP/1,1",
        "HTP/1.1",
        "HTTP/1.x",
        "/1.1",
    ] {
        closes(&req(&format!("{{line=GET /ws {version}}}")), 400);
    }
}

/// H04
#[test]
fn rfc9110_9_1_methods_are_case_sensitive() {
    closes(&req("{line=get /ws HTTP/1.1}"), 501);
    closes(&req("{line=Get /ws HTTP/1.1}"), 501);
    closes(&req("{line=BREW /ws HTTP/1.1}"), 501);
}

/// H05
#[test]
fn rfc6455_4_2_1_a_websocket_is_opened_with_get() {
    for method in ["POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT"] {
        let verdict = serve(&req(&format!("{{line={method} /ws HTTP/1.1}}")));
        assert_eq!(verdict.status(), 405);
        assert!(verdict.has_field("Allow: GET"));
    }
}

/// H07
#[test]
fn rfc9112_3_a_request_line_has_two_single_spaces() {
    for line in [
        "GET  /ws HTTP/1.1",
        "GET\t/ws HTTP/1.1",
        "GET /ws\tHTTP/1.1",
        "GET /ws HTTP/1.1 ",
        "GET /ws  HTTP/1.1",
        " GET /ws HTTP/1.1",
        "GET /w s HTTP/1.1",
        "GET /ws HTTP/1.1 x",
        "GET /wsHTTP/1.1",
        "GET /ws HTTP/1.1\r",
        "G\u{e9}T /ws HTTP/1.1",
        "G(T /ws HTTP/1.1",
        "GET\0 /ws HTTP/1.1",
    ] {
        closes(&req(&format!("{{line={line}}}")), 400);
    }
}

/// H08
#[test]
fn rfc9112_3_2_a_target_is_a_path_or_an_absolute_uri() {
    for target in [
        "ws",
        "gw.test:80",
        "*",
        "?x",
        "http:/ws",
        "//",
        "ws:///ws",
        "data:,x",
        "http://",
        "ws://gw.test:99999/ws",
    ] {
        closes(&req(&format!("{{line=GET {target} HTTP/1.1}}")), 400);
    }
    closes(&req("{line=CONNECT gw.test:80 HTTP/1.1}"), 400);
    closes(&req("{line=OPTIONS * HTTP/1.1}"), 400);
}

/// H09
#[test]
fn rfc3986_a_target_has_no_fragment_and_no_raw_byte() {
    closes(&req("{line=GET /ws#frag HTTP/1.1}"), 400);
    closes(&req("{line=GET /ws?a#frag HTTP/1.1}"), 400);
    for byte in (0..=0x20).chain(0x7f..=0xff) {
        for place in ["/w", "/ws?q"] {
            let line = [b"GET ", place.as_bytes(), &[byte], b"s HTTP/1.1"].concat();
            let input = [&line[..], &req("")[b"GET /ws HTTP/1.1".len()..]].concat();
            closes(&input, 400);
        }
    }
}

/// H11
#[test]
fn rfc3986_6_2_2_a_path_that_is_not_canonical_is_refused() {
    for path in [
        "/%2e%2e/admin/../ws",
        "//ws",
        "/ws/.",
        "/ws%00",
        "/ws;a=b",
        "/./ws",
        "/../ws",
        "/a/..",
        "/a/%2E%2e/ws",
        "/a%2fws",
        "/a%5c..%5cws",
        "/%77s",
        "/ws%",
        "/ws%2",
        "/ws%g0",
        "/a//",
        "http://gw.test//ws",
        "http://gw.test/a/../ws",
    ] {
        closes(&req(&format!("{{line=GET {path} HTTP/1.1}}")), 400);
    }
    // What is matched is what is forwarded.
    for path in ["/ws/%C3%A9?x=%00", "/ws/", "/ws?", "/ws?a=/../b;c"] {
        match serve(&req(&format!("{{line=GET {path} HTTP/1.1}}"))) {
            Verdict::Switched { path: forwarded, .. } => assert_eq!(forwarded, path),
            other => panic!("{path}: {other:?}"),
        }
    }
}

/// H12
#[test]
fn rfc9112_3_2_a_missing_host_is_refused() {
    closes(&req("{-Host}"), 400);
    closes(&req("{-Host}{line=GET ws://gw.test/ws HTTP/1.1}"), 400);
}

/// H13
#[test]
fn rfc9112_3_2_a_second_host_is_refused() {
    closes(&req("{+Host: gw2.test}"), 400);
    closes(&req("{+Host: gw.test}"), 400);
    closes(&req("{+host: gw.test}{line=GET ws://gw.test/ws HTTP/1.1}"), 400);
}

/// Beyond H13.
#[test]
fn rfc9112_3_2_a_host_that_is_no_host_is_refused() {
    for host in [
        "",
        "gw.test:",
        "gw.test:x",
        "gw.test:-1",
        "gw.test:0",
        "gw.test:65536",
        "user@gw.test",
        "gw.test,evil.test",
        "gw.test/ws",
        "gw.test evil.test",
        "http://gw.test",
        "[::1",
        "::1",
        "[gw]",
        "gw\u{e9}.test",
        "gw%2etest",
        "gw..test",
        "gw.test?a",
        "gw.test#a",
        "\"gw.test\"",
        "gw\\test",
    ] {
        closes(&req(&format!("{{Host={host}}}")), 400);
    }
    for host in ["gw.test:8080", "GW.TEST", "127.0.0.1", "[::1]:9001", "localhost", "xn--gw-xyz.test."] {
        assert_eq!(status(&format!("{{Host={host}}}")), 101, "{host}");
    }
}

/// H15
#[test]
fn rfc9112_5_1_no_space_before_the_colon() {
    for name in ["Host ", "Host\t", "X ", " X", "\tX", "X y"] {
        closes(&req(&format!("{{+{name}: gw.test}}")), 400);
    }
}

/// H17
#[test]
fn rfc9110_5_1_a_field_name_is_a_token() {
    for byte in (0..=0x20).chain(*b"\"(),/;<=>?@[\\]{}").chain(0x7f..=0xff) {
        for name in [&[byte][..], &[b'X', byte], &[byte, b'X'], &[b'X', byte, b'Y']] {
            let mut input = req("");
            input.truncate(input.len() - 2);
            input.extend_from_slice(name);
            input.extend_from_slice(b": v\r\n\r\n");
            // A line that is empty but for its end would close the head.
            if name != b"\r" && name != b"\n" {
                closes(&input, 400);
            }
        }
    }
    closes(&req("{+: v}"), 400);
    closes(b"GET /ws HTTP/1.1\r\nHost: gw.test\r\nno colon\r\n\r\n", 400);
}

/// H18
#[test]
fn rfc9110_5_5_a_field_value_has_no_control_byte() {
    for byte in (0..=0x1f).filter(|byte| *byte != b'\t').chain([0x7f]) {
        for value in [&[byte][..], &[b'a', byte], &[byte, b'a'], &[b'a', byte, b'b']] {
            let mut input = req("");
            input.truncate(input.len() - 2);
            input.extend_from_slice(b"X: ");
            input.extend_from_slice(value);
            input.extend_from_slice(b"\r\n\r\n");
            closes(&input, 400);
        }
    }
    assert_eq!(status("{+X: tab\tand \u{e9}}"), 101);
}

/// H19
#[test]
fn rfc9112_5_2_a_folded_line_is_refused() {
    closes(&req("{+X: a\r\n b}"), 400);
    closes(&req("{+X: a\r\n\tb}"), 400);
    closes(&req("{+X: a\r\n }"), 400);
    closes(&req("{+X: \r\n b}"), 400);
}

/// H20
#[test]
fn rfc9112_2_2_space_before_the_first_field_is_refused() {
    for line in [" ", "\t", " X: y", "  \t "] {
        closes(&req(&format!("{{line=GET /ws HTTP/1.1\r\n{line}}}")), 400);
    }
}

/// H21
#[test]
fn rfc9112_2_2_a_bare_lf_ends_no_line() {
    let bare: Vec<u8> = req("").into_iter().filter(|byte| *byte != b'\r').collect();
    closes(&bare, 400);
    // One bare LF among proper ends, at each of them.
    let proper = req("");
    for at in (0..proper.len()).filter(|at| proper[*at] == b'\r') {
        let mut input = proper.clone();
        input.remove(at);
        closes(&input, 400);
    }
}

/// H23
#[test]
fn rfc6585_5_a_head_beyond_its_limit_is_refused() {
    let endless = [&req("")[..req("").len() - 2], b"X: ", &b"a".repeat(16 * 1024 + 1)].concat();
    closes(&endless, 431);
    let ended = [&endless[..], b"\r\n\r\n"].concat();
    closes(&ended, 431);
    // Exactly the limit is fine, one byte more is not.
    let rest = 16 * 1024 - req("{+X: }").len();
    assert_eq!(status(&format!("{{+X: {}}}", "a".repeat(rest))), 101);
    closes(&req(&format!("{{+X: {}}}", "a".repeat(rest + 1))), 431);
}

/// H24
#[test]
fn every_field_line_counts() {
    let with = |count: usize, name: &dyn Fn(usize) -> String| {
        let mut edits = String::new();
        for index in 0..count {
            write!(edits, "{{+{}: b}}", name(index)).unwrap();
        }
        req(&edits)
    };
    assert_eq!(serve(&with(95, &|index| format!("X{index}"))).status(), 101);
    closes(&with(96, &|index| format!("X{index}")), 431);
    closes(&with(96, &|_| "X".to_owned()), 431);
    closes(&with(5000, &|_| "X".to_owned()), 431);
    closes(&[&req("")[..req("").len() - 2], &b"x\r\n".repeat(5000)[..]].concat(), 431);
}

/// H25
#[test]
fn rfc9110_15_5_15_a_long_target_is_refused() {
    closes(&req(&format!("{{line=GET /{} HTTP/1.1}}", "a".repeat(8193))), 414);
    // Before the line ends, too.
    closes(&[b"GET /", &b"a".repeat(8193)[..]].concat(), 414);
    let longest = 8192 - "GET / HTTP/1.1".len();
    assert_eq!(status(&format!("{{line=GET /{} HTTP/1.1}}", "a".repeat(longest))), 101);
    closes(&req(&format!("{{line=GET /{} HTTP/1.1}}", "a".repeat(longest + 1))), 414);
    closes(&b"A".repeat(9000), 414);
}

/// H26, H28
#[test]
fn rfc9112_6_an_upgrade_has_no_transfer_coding() {
    closes(&[&req("{+Transfer-Encoding: chunked}{+Content-Length: 5}")[..], b"0\r\n\r\n"].concat(), 400);
    closes(&[&req("{+Transfer-Encoding: chunked}")[..], b"0\r\n\r\n"].concat(), 400);
    for coding in ["identity", "xchunked", "gzip, chunked", "", "chunked, chunked", "\x0bchunked"] {
        closes(&req(&format!("{{+Transfer-Encoding: {coding}}}")), 400);
    }
    closes(&req("{+transfer-encoding: chunked}{+Transfer-Encoding: identity}"), 400);
}

/// H27
#[test]
fn rfc9110_7_8_an_upgrade_has_no_body() {
    closes(&[&req("{+Content-Length: 5}")[..], b"hello"].concat(), 400);
    for length in [
        "+5",
        "5, 5",
        "",
        "-1",
        "0x0",
        "5;",
        "18446744073709551616",
        "0, 0",
        "00000000000000000000000000000001",
    ] {
        closes(&req(&format!("{{+Content-Length: {length}}}")), 400);
    }
    closes(&req("{+Content-Length: 0}{+Content-Length: 0}"), 400);
    assert_eq!(status("{+Content-Length: 0}"), 101);
}

/// H30
#[test]
fn rfc9112_6_1_transfer_encoding_in_http_1_0_is_faulty() {
    closes(&req("{line=GET /ws HTTP/1.0}{+Transfer-Encoding: chunked}"), 400);
    let page = b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(Request::parse(page, &HeadLimits::default(), false).unwrap_err().status, 400);
}

/// H32
#[test]
fn rfc9110_10_1_1_an_expectation_cannot_be_met() {
    closes(&req("{+Expect: 100-continue}"), 417);
    closes(&req("{+Expect: 200-ok}"), 417);
}

/// H33
#[test]
fn what_is_behind_the_head_is_never_a_second_request() {
    let second = b"GET /admin HTTP/1.1\r\nHost: gw.test\r\n\r\n";
    match serve(&[&req("")[..], second].concat()) {
        Verdict::Switched { behind, path, .. } => {
            assert_eq!(path, "/ws");
            assert_eq!(behind, second, "these are frames now");
        }
        other => panic!("{other:?}"),
    }
    for (edits, status) in [
        ("{-Upgrade}", 426),
        ("{-Connection}", 400),
        ("{line=POST /ws HTTP/1.1}", 405),
        ("{Sec-WebSocket-Version=8}", 426),
        ("{+Expect: 100-continue}", 417),
    ] {
        closes(&[&req(edits)[..], second].concat(), status);
    }
}
