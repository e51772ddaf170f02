//! Bad input, row by row: heads and upgrades as a client sends them, answers as an upstream sends them. The ids are those
//! of the project's table of bad inputs; `req` reads its notation.

use std::fmt::Write;

use tidegate_wire::HeadLimits;
use tidegate_wire::extension::{DeflatePolicy, negotiate};
use tidegate_wire::handshake::{
    Accepted, Agreed, Offer, OriginRule, client_request, forwarded_fields, origin_allowed,
    switching_protocols, upgrade, verify_response,
};
use tidegate_wire::http::{BadResponse, Framing, HeadScanner, Refusal, Request, ResponseHead, Scan};

const KEY: [u8; 16] = *b"the sample nonce";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// `REQ` with its edits: `{-H}` drops a field, `{+H: v}` appends one, `{H=v}` replaces its value, `{line=…}` replaces the
/// request line.
fn req(edits: &str) -> Vec<u8> {
    let mut line = "GET /ws HTTP/1.1".to_owned();
    let mut fields: Vec<(String, String)> = [
        ("Host", "gw.test"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Version", "13"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec();
    if !edits.is_empty() {
        let inner =
            edits.strip_prefix('{').and_then(|edits| edits.strip_suffix('}')).expect("edits stand in braces");
        for edit in inner.split("}{") {
            if let Some(name) = edit.strip_prefix('-') {
                let before = fields.len();
                fields.retain(|field| field.0 != name);
                assert_eq!(fields.len(), before - 1, "{edit}");
            } else if let Some(field) = edit.strip_prefix('+') {
                let (name, value) = field.split_once(':').expect("a field has a colon");
                fields.push((name.to_owned(), value.trim_start_matches(' ').to_owned()));
            } else if let Some(new) = edit.strip_prefix("line=") {
                line = new.to_owned();
            } else {
                let (name, value) = edit.split_once('=').expect("an edit that replaces has an equals sign");
                fields.iter_mut().find(|field| field.0 == name).expect("a field of REQ").1 = value.to_owned();
            }
        }
    }
    let mut text = line + "\r\n";
    for (name, value) in fields {
        write!(text, "{name}: {value}\r\n").unwrap();
    }
    (text + "\r\n").into_bytes()
}

/// What came of a WebSocket route's input.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Refused(Refusal),
    /// The 101, and what was behind the head.
    Switched {
        answer: String,
        path: String,
        host: String,
        behind: Vec<u8>,
    },
    /// The head is not complete.
    Waits,
}

impl Verdict {
    fn status(&self) -> u16 {
        match self {
            Self::Refused(refusal) => refusal.status,
            Self::Switched { .. } => 101,
            Self::Waits => 0,
        }
    }

    fn has_field(&self, field: &str) -> bool {
        match self {
            Self::Refused(refusal) => contains(&refusal.response(false), &format!("\r\n{field}\r\n")),
            Self::Switched { answer, .. } => contains(answer.as_bytes(), &format!("\r\n{field}\r\n")),
            Self::Waits => false,
        }
    }
}

fn contains(text: &[u8], part: &str) -> bool {
    text.windows(part.len()).any(|window| window == part.as_bytes())
}

/// A WebSocket route that takes what comes, as the shard would: scan, parse, upgrade, negotiate, answer. The input arrives
/// in `chunks`.
fn route<'a>(chunks: impl IntoIterator<Item = &'a [u8]>, secure: bool) -> Verdict {
    let limits = HeadLimits::default();
    let mut received = Vec::new();
    let mut scanner = HeadScanner::new();
    let mut end = None;
    for chunk in chunks {
        received.extend_from_slice(chunk);
        if end.is_some() {
            continue;
        }
        match scanner.scan(&received, &limits) {
            Ok(Scan::Partial) => {}
            Ok(Scan::Complete(at)) => end = Some(at),
            Err(refusal) => return Verdict::Refused(refusal),
        }
    }
    let Some(end) = end else { return Verdict::Waits };
    let judged = Request::parse(&received[..end], &limits, secure).and_then(|request| {
        let upgrade = upgrade(&request)?;
        let mut answer = Vec::new();
        let extension = negotiate(&upgrade.offers, &DeflatePolicy::default());
        let protocol = upgrade.protocols.iter().copied().find(|protocol| *protocol == "chat");
        switching_protocols(
            &mut answer,
            &Accepted { key: upgrade.key, protocol, extension: extension.as_ref() },
        );
        Ok(Verdict::Switched {
            answer: String::from_utf8(answer).unwrap(),
            path: request.target.raw.to_owned(),
            host: request.host.to_owned(),
            behind: received[end..].to_vec(),
        })
    });
    judged.unwrap_or_else(Verdict::Refused)
}

/// The verdict, which must not depend on how the input is cut: whole, byte by byte, and (where it is short) in two at
/// every place.
fn serve(input: &[u8]) -> Verdict {
    let whole = route([input], false);
    assert_same(&route(input.chunks(1), false), &whole);
    if input.len() < 1024 {
        for at in 1..input.len() {
            let (left, right) = input.split_at(at);
            assert_same(&route([left, right], false), &whole);
        }
    }
    whole
}

/// A whole input may already show a later fault (too long) that one byte less did not, so of refusals only the status is
/// compared.
fn assert_same(cut: &Verdict, whole: &Verdict) {
    match (cut, whole) {
        (Verdict::Refused(cut), Verdict::Refused(whole)) => assert_eq!(cut.status, whole.status),
        (cut, whole) => assert_eq!(cut, whole),
    }
}

fn status(edits: &str) -> u16 {
    serve(&req(edits)).status()
}

/// Refused with this status, and the connection ends.
#[track_caller]
fn closes(input: &[u8], status: u16) {
    match serve(input) {
        Verdict::Refused(refusal) => {
            assert_eq!(refusal.status, status, "{}: {:?}", refusal.reason, String::from_utf8_lossy(input));
            assert!(refusal.close);
            assert!(contains(&refusal.response(false), "close\r\n"));
        }
        other => panic!("{:?} gives {other:?}", String::from_utf8_lossy(input)),
    }
}

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

/// W01
#[test]
fn rfc9110_15_5_22_without_upgrade_the_answer_is_426() {
    for edits in [
        "{-Upgrade}",
        "{Upgrade=}",
        "{Upgrade=,}",
        "{Upgrade=websocket/13}",
        "{Upgrade=websockets}",
        "{Upgrade=TLS/1.0}",
    ] {
        let verdict = serve(&req(edits));
        assert_eq!(verdict.status(), 426, "{edits}");
        assert!(verdict.has_field("Upgrade: websocket"));
        assert!(verdict.has_field("Connection: Upgrade, close"));
    }
    closes(&req("{Upgrade=web socket}"), 400);
    closes(&req("{Upgrade=websocket/}"), 400);
    closes(&req("{Upgrade=\"websocket\"}"), 400);
    closes(&req("{+Upgrade: websocket}"), 400);
    closes(&req("{+Upgrade: h2c}"), 400);
    for value in ["WebSocket", "WEBSOCKET", "websocket, foo", "foo/1,websocket", ",websocket,"] {
        assert_eq!(status(&format!("{{Upgrade={value}}}")), 101, "{value}");
    }
}

/// W02
#[test]
fn an_upgrade_to_h2c_is_refused() {
    closes(&req("{Upgrade=h2c}{+HTTP2-Settings: AAMAAABkAAQAAP__}{Connection=Upgrade, HTTP2-Settings}"), 426);
    // Beside websocket it is passed over, and the settings are never forwarded.
    let head = req(
        "{Upgrade=websocket, h2c}{+HTTP2-Settings: AAMAAABkAAQAAP__}{Connection=Upgrade, HTTP2-Settings}",
    );
    let request = Request::parse(&head, &HeadLimits::default(), false).unwrap();
    assert!(upgrade(&request).is_ok());
    assert_eq!(forwarded_fields(&request.fields).count(), 0);
}

/// W04
#[test]
fn rfc6455_4_2_1_connection_names_upgrade() {
    for edits in [
        "{Connection=close}",
        "{-Connection}",
        "{Connection=keep-alive}",
        "{Connection=}",
        "{Connection=Upgraded}",
        "{Connection=Up grade}",
        "{Connection=\"Upgrade\"}",
        "{Connection=Upgrade;q=1}",
    ] {
        closes(&req(edits), 400);
    }
    closes(&req(&format!("{{Connection=Upgrade{}}}", ", x".repeat(100))), 400);
    for value in ["upgrade", "keep-alive, Upgrade", "UPGRADE", ",Upgrade ,", "Upgrade,keep-alive"] {
        assert_eq!(status(&format!("{{Connection={value}}}")), 101, "{value}");
    }
    assert_eq!(status("{Connection=keep-alive}{+Connection: Upgrade}"), 101);
}

/// W06, W08, W24
#[test]
fn rfc6455_4_2_1_one_key_of_sixteen_bytes() {
    closes(&req("{-Sec-WebSocket-Key}"), 400);
    closes(&req("{+Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==}"), 400);
    closes(&req("{+sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==}"), 400);
    for key in [
        "client-random-string",
        "",
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZSBub25jZTE=",
        "dGhlIHNhbXBsZSBub25jZTEy",
        "dGhlIHNhbXBsZSBub25jZQ==, dGhlIHNhbXBsZSBub25jZQ==",
        "dGhlIHNhbXBs ZSBub25jZQ==",
        "\"dGhlIHNhbXBsZSBub25jZQ==\"",
        "dGhlIHNhbXBsZSBub25jZ\u{e9}==",
    ] {
        closes(&req(&format!("{{Sec-WebSocket-Key={key}}}")), 400);
    }
}

/// W09, W11
#[test]
fn rfc6455_4_4_one_version_and_it_is_13() {
    for edits in [
        "{-Sec-WebSocket-Version}",
        "{+Sec-WebSocket-Version: 13}",
        "{+Sec-WebSocket-Version: 8}",
        "{Sec-WebSocket-Version=}",
        "{Sec-WebSocket-Version=13, 8}",
        "{Sec-WebSocket-Version=13,13}",
        "{Sec-WebSocket-Version=013}",
        "{Sec-WebSocket-Version=+13}",
        "{Sec-WebSocket-Version=13.0}",
        "{Sec-WebSocket-Version=256}",
        "{Sec-WebSocket-Version=thirteen}",
        "{Sec-WebSocket-Version=1\u{e9}}",
    ] {
        let verdict = serve(&req(edits));
        assert_eq!(verdict.status(), 400, "{edits}");
        assert!(verdict.has_field("Sec-WebSocket-Version: 13"), "{edits}");
    }
    for version in ["0", "7", "8", "12", "14", "255"] {
        let verdict = serve(&req(&format!("{{Sec-WebSocket-Version={version}}}")));
        assert_eq!(verdict.status(), 426);
        assert!(verdict.has_field("Sec-WebSocket-Version: 13"));
        assert!(verdict.has_field("Upgrade: websocket"));
    }
}

/// W12, W26
#[test]
fn rfc6455_10_2_an_origin_that_is_not_listed_may_not_connect() {
    let head = |origin: &str| req(&format!("{{+Origin: {origin}}}"));
    let judge = |head: &[u8], rules: &[&str]| {
        let request = Request::parse(head, &HeadLimits::default(), false).unwrap();
        let upgrade = upgrade(&request).unwrap();
        let rules: Vec<_> = rules.iter().map(|rule| OriginRule::parse(rule).unwrap()).collect();
        origin_allowed(&rules, upgrade.origin, request.host, false)
    };
    let rules = ["https://chat.example.com"];
    assert!(!judge(&head("https://evil.test"), &rules));
    assert!(!judge(&head("null"), &rules));
    assert!(judge(&head("null"), &[]));
    assert!(judge(&head("https://chat.example.com"), &rules));
    assert!(judge(&head("http://gw.test"), &rules));
    assert!(judge(&req(""), &rules));
    assert_eq!((Refusal::ORIGIN.status, Refusal::ORIGIN.close), (403, true));
    closes(&req("{+Origin: https://evil.test}{+Origin: https://chat.example.com}"), 400);
}

/// W14
#[test]
fn a_subprotocol_of_spaces_is_refused_in_one_pass() {
    // That the pass is one is counted beside the parser.
    closes(&req(&format!("{{+Sec-WebSocket-Protocol: b{}x}}", " ".repeat(8000))), 400);
    closes(&req(&format!("{{+Sec-WebSocket-Protocol: b{}x}}", " ".repeat(32000))), 431);
}

/// W15
#[test]
fn rfc6455_4_1_subprotocols_are_tokens_and_unique() {
    let many: Vec<_> = (0..1000).map(|index| format!("p{index}")).collect();
    for value in [
        "a,a",
        "a, b, a",
        "a,,b",
        "a,",
        ",a",
        "",
        " ",
        "a b",
        "a;b",
        "a/b",
        "\"a\"",
        "a\u{e9}",
        "a=b",
        &many.join(","),
    ] {
        closes(&req(&format!("{{+Sec-WebSocket-Protocol: {value}}}")), 400);
    }
    closes(&req("{+Sec-WebSocket-Protocol: a}{+Sec-WebSocket-Protocol: a}"), 400);
    // Two lines are one list; case tells protocols apart; none chosen is no error.
    let verdict = serve(&req("{+Sec-WebSocket-Protocol: a, A}{+sec-websocket-protocol: chat}"));
    assert!(verdict.has_field("Sec-WebSocket-Protocol: chat"));
    assert!(!answer(&serve(&req("{+Sec-WebSocket-Protocol: a}"))).contains("Sec-WebSocket-Protocol"));
}

fn answer(verdict: &Verdict) -> &str {
    match verdict {
        Verdict::Switched { answer, .. } => answer,
        other => panic!("{other:?}"),
    }
}

/// W17, W25, D01, D03
#[test]
fn extensions_that_are_unknown_or_wrong_are_not_used() {
    let mut offers: Vec<String> = [
        "constructor",
        "__proto__",
        ",;constructor",
        "deflate-frame",
        "x-webkit-deflate-frame",
        "",
        ";",
        "\"",
        "a=\"",
    ]
    .map(str::to_owned)
    .to_vec();
    for value in ["7", "16", "08", "\"\"", "", "-1", "9x"] {
        offers.push(format!("permessage-deflate; client_max_window_bits={value}"));
    }
    offers.push("permessage-deflate; client_no_context_takeover; client_no_context_takeover".to_owned());
    offers.push("permessage-deflate; unknown".to_owned());
    offers.push("permessage-deflate; client_no_context_takeover=1".to_owned());
    for offer in offers {
        let verdict = serve(&req(&format!("{{+Sec-WebSocket-Extensions: {offer}}}")));
        assert_eq!(verdict.status(), 101, "{offer}");
        assert!(!answer(&verdict).contains("Extensions"), "{offer}");
    }
    closes(&req("{+Sec-WebSocket-Extensions: permessage-deflate; x=\"\u{e9}\"}"), 400);
}

/// D03, D04, D05
#[test]
fn rfc7692_5_the_first_acceptable_offer_is_answered_once() {
    for offers in [
        "permessage-deflate; unknown, permessage-deflate".to_owned(),
        "permessage-deflate, ".repeat(50),
        "permessage-deflate}{+Sec-WebSocket-Extensions: permessage-deflate".to_owned(),
    ] {
        let verdict = serve(&req(&format!("{{+Sec-WebSocket-Extensions: {offers}}}")));
        assert_eq!(answer(&verdict).matches("permessage-deflate").count(), 1, "{offers}");
    }
}

/// W18
#[test]
fn a_route_that_is_not_there_closes_with_404() {
    assert_eq!((Refusal::NOT_FOUND.status, Refusal::NOT_FOUND.close), (404, true));
    assert!(contains(&Refusal::NOT_FOUND.response(false), "HTTP/1.1 404 Not Found\r\n"));
}

/// W23
#[test]
fn rfc9112_3_2_2_the_absolute_form_is_accepted_and_its_authority_wins() {
    match serve(&req("{line=GET ws://other.test:81/ws?a HTTP/1.1}")) {
        Verdict::Switched { path, host, .. } => {
            assert_eq!((&path[..], &host[..]), ("/ws?a", "other.test:81"));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(status("{line=GET http://gw.test/ws HTTP/1.1}"), 101);
    closes(&req("{line=GET wss://gw.test/ws HTTP/1.1}"), 400);
    assert_eq!(route([&req("{line=GET wss://gw.test/ws HTTP/1.1}")[..]], true).status(), 101);
    assert_eq!(route([&req("{line=GET ws://gw.test/ws HTTP/1.1}")[..]], true).status(), 400);

    // What an upstream sees: origin form and one Host.
    let head = req("{line=GET ws://other.test:81/ws?a HTTP/1.1}{+Cookie: a=b}");
    let request = Request::parse(&head, &HeadLimits::default(), false).unwrap();
    let mut forwarded = Vec::new();
    let fields = forwarded_fields(&request.fields);
    client_request(&mut forwarded, request.target.raw, request.host, &KEY, &[], Offer::None, fields);
    let text = String::from_utf8(forwarded).unwrap();
    assert!(text.starts_with("GET /ws?a HTTP/1.1\r\nHost: other.test:81\r\n"), "{text}");
    assert_eq!(text.to_ascii_lowercase().matches("\r\nhost:").count(), 1);
    assert!(text.contains("\r\nCookie: a=b\r\n"));
    assert_eq!(serve(text.as_bytes()).status(), 101);
}

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
        let framing = parsed.relay(&mut relayed).unwrap();
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
        assert_eq!(error.refusal().status, 502);
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
