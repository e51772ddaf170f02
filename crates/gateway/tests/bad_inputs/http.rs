//! Rows H: request lines, fields and bodies.

use crate::{
    Company, Row,
    harness::client::Client,
    reaction::{Observed, react, read_close, read_response, respond},
    world::{Req, World},
};

pub(crate) const ROWS: &[Row] = &[
    ("H01", Company::Any, |w| each(w, [("HTTP/1.0", Req::new().line("GET /ws HTTP/1.0").bytes())])),
    ("H02", Company::Any, h02_ancient_versions),
    ("H03", Company::Any, h03_other_versions),
    ("H04", Company::Any, |w| each(w, [("get", Req::new().line("get /ws HTTP/1.1").bytes())])),
    ("H05", Company::Any, h05_post_is_told_what_is_allowed),
    ("H07", Company::Any, h07_white_space_in_the_request_line),
    ("H08", Company::Any, h08_targets_of_other_forms),
    ("H09", Company::Any, h09_bytes_that_no_target_has),
    ("H11", Company::Any, h11_ambiguous_paths),
    ("H12", Company::Any, |w| each(w, [("no Host", Req::new().without("Host").bytes())])),
    ("H13", Company::Any, h13_two_hosts),
    ("H15", Company::Any, h15_space_before_the_colon),
    ("H17", Company::Any, h17_names_that_are_no_tokens),
    ("H18", Company::Any, h18_bytes_that_no_value_has),
    ("H19", Company::Any, |w| each(w, [("fold", Req::new().with_raw(b"X: a\r\n b"))])),
    ("H20", Company::Any, h20_space_before_the_first_field),
    ("H21", Company::Any, h21_bare_line_feeds),
    ("H23", Company::Any, h23_heads_without_end),
    ("H24", Company::Any, h24_too_many_fields),
    ("H25", Company::Any, h25_long_request_line),
    ("H26", Company::Any, h26_two_lengths),
    ("H27", Company::Any, h27_a_body_is_neither_frames_nor_a_request),
    ("H28", Company::Any, h28_chunked),
    ("H30", Company::Any, h30_chunked_in_http_1_0),
    ("H32", Company::Any, |w| each(w, [("Expect", Req::new().with("Expect", "100-continue").bytes())])),
    ("H33", Company::Any, h33_pipelined),
];

/// One connection for each head.
pub(crate) fn each<N: Into<String>>(
    world: &World,
    heads: impl IntoIterator<Item = (N, Vec<u8>)>,
) -> Vec<Observed> {
    heads.into_iter().map(|(name, head)| react(world.address(), name, &head)).collect()
}

/// One connection for each request line.
fn each_line(world: &World, lines: &[&str]) -> Vec<Observed> {
    each(world, lines.iter().map(|line| (*line, Req::new().line(line).bytes())))
}

fn h02_ancient_versions(world: &World) -> Vec<Observed> {
    let versioned = Req::new().line("GET /ws HTTP/0.9").bytes();
    each(world, [("HTTP/0.9", versioned), ("simple", b"GET /ws\r\n".to_vec())])
}

fn h03_other_versions(world: &World) -> Vec<Observed> {
    each_line(world, &["GET /ws HTTP/2.0", "GET /ws HTTP/3.0"])
}

fn h05_post_is_told_what_is_allowed(world: &World) -> Vec<Observed> {
    let (response, observed) =
        respond(world.address(), "POST", &Req::new().line("POST /ws HTTP/1.1").bytes());
    assert_eq!(response.expect("a response").field("allow"), Some("GET"));
    vec![observed]
}

fn h07_white_space_in_the_request_line(world: &World) -> Vec<Observed> {
    each_line(world, &["GET  /ws HTTP/1.1", "GET\t/ws HTTP/1.1", "GET /ws HTTP/1.1 ", "GET /ws\tHTTP/1.1"])
}

fn h08_targets_of_other_forms(world: &World) -> Vec<Observed> {
    each_line(world, &["GET ws HTTP/1.1", "GET gw.test:80 HTTP/1.1", "GET * HTTP/1.1"])
}

fn h09_bytes_that_no_target_has(world: &World) -> Vec<Observed> {
    let mut heads = vec![("fragment".to_owned(), Req::new().line("GET /ws#frag HTTP/1.1").bytes())];
    for byte in [0x00, 0x01, 0x0b, 0x1f, b' ', 0x7f, 0x80, 0xc3, 0xff] {
        let rest = Req::new().bytes();
        let rest = &rest[b"GET /ws".len()..];
        heads.push((format!("byte {byte:02x}"), [&b"GET /ws"[..], &[byte], b"x", rest].concat()));
    }
    each(world, heads)
}

fn h11_ambiguous_paths(world: &World) -> Vec<Observed> {
    let paths =
        ["/%2e%2e/admin/../ws", "//ws", "/ws/.", "/ws%00", "/ws;a=b", "/./ws", "/up/..%2fws", "/up/%2E./ws"];
    let seen = each(world, paths.map(|path| (path, Req::at(path).bytes())));
    // None of them has been taken for one of the proxied routes either.
    assert!(paths.iter().all(|path| world.scripts().heads_of(path).is_empty()));
    seen
}

fn h13_two_hosts(world: &World) -> Vec<Observed> {
    let heads = [("another", "gw2.test"), ("the same", "gw.test")];
    each(world, heads.map(|(name, host)| (name, Req::new().with("Host", host).bytes())))
}

fn h15_space_before_the_colon(world: &World) -> Vec<Observed> {
    let host = Req::new().without("Host").with_raw(b"Host : gw.test");
    let other = Req::new().with_raw(b"X-Other : a");
    let tab = Req::new().with_raw(b"X-Other\t: a");
    each(world, [("Host", host), ("another field", other), ("a tab", tab)])
}

fn h17_names_that_are_no_tokens(world: &World) -> Vec<Observed> {
    let mut heads = vec![("an empty name".to_owned(), Req::new().with_raw(b": a"))];
    for byte in *b"(),/;<=>?@[\\]{}\"" {
        heads.push((
            format!("byte {:?}", char::from(byte)),
            Req::new().with_raw(&[b'X', byte, b'Y', b':', b'a']),
        ));
    }
    for byte in [0x00, 0x01, 0x7f, 0x80, 0xe4, 0xff] {
        heads.push((format!("byte {byte:02x}"), Req::new().with_raw(&[b'X', byte, b'Y', b':', b'a'])));
    }
    each(world, heads)
}

fn h18_bytes_that_no_value_has(world: &World) -> Vec<Observed> {
    let heads = [("NUL", b'\0'), ("bare CR", b'\r'), ("bare LF", b'\n')];
    each(world, heads.map(|(name, byte)| (name, Req::new().with_raw(&[b'X', b':', b'a', byte, b'b']))))
}

fn h20_space_before_the_first_field(world: &World) -> Vec<Observed> {
    let head = Req::new().bytes();
    let first = head.windows(2).position(|two| two == b"\r\n").expect("a request line") + 2;
    let spoilt = |line: &[u8]| [&head[..first], line, &head[first..]].concat();
    each(
        world,
        [("a blank line", spoilt(b" \r\n")), ("a tab", spoilt(b"\t\r\n")), ("a field", spoilt(b" X: a\r\n"))],
    )
}

fn h21_bare_line_feeds(world: &World) -> Vec<Observed> {
    let all: Vec<u8> = Req::new().bytes().into_iter().filter(|byte| *byte != b'\r').collect();
    let mut last = Req::new().bytes();
    last.remove(last.len() - 2);
    each(world, [("all", all), ("the last", last)])
}

fn h23_heads_without_end(world: &World) -> Vec<Observed> {
    let value = Req::new().with("X", "a".repeat((16 << 10) + 1)).open_bytes();
    let names = [&Req::new().open_bytes()[..], &[b'x'; (16 << 10) + 1]].concat();
    let mut seen = each(world, [("a value", value.clone()), ("a name", names)]);

    // In many small pieces: each must be looked at once, not all of them again and again.
    let mut client = Client::connect(world.address());
    let peer = client.local();
    for piece in value.chunks(16) {
        if client.try_send(piece).is_err() {
            break;
        }
    }
    let (_, reaction) = read_response(&mut client).expect("a response");
    seen.push(Observed::new("in small pieces", peer, reaction));
    seen
}

fn h24_too_many_fields(world: &World) -> Vec<Observed> {
    let with = |count: usize, name: &dyn Fn(usize) -> String| {
        (0..count).fold(Req::new(), |head, at| head.with(&name(at), "a")).bytes()
    };
    // REQ itself has five: at the limit it is served.
    Client::open_with(world.address(), "/ws", &(0..95).map(|at| format!("x{at}: a\r\n")).collect::<String>());
    let names = |at: usize| format!("x{at}");
    let one_byte = (0..5000).fold(Req::new().open_bytes(), |head, _| [&head[..], b"a:b\r\n"].concat());
    each(
        world,
        [
            ("101", with(96, &names)),
            ("101 of one name", with(96, &|_| "x".to_owned())),
            ("5000 of one byte", [&one_byte[..], b"\r\n"].concat()),
            ("5000 of one name", with(5000, &|_| "x".to_owned())),
        ],
    )
}

fn h25_long_request_line(world: &World) -> Vec<Observed> {
    let line = |len| format!("GET /{} HTTP/1.1", "a".repeat(len));
    let complete = Req::new().line(&line(8193)).bytes();
    let unended = line(8193).into_bytes();
    each(world, [("complete", complete), ("without its end", unended)])
}

fn h26_two_lengths(world: &World) -> Vec<Observed> {
    let head = Req::new().with("Transfer-Encoding", "chunked").with("Content-Length", "5").bytes();
    each(world, [("both", [&head[..], b"5\r\nhello\r\n0\r\n\r\n"].concat())])
}

fn h27_a_body_is_neither_frames_nor_a_request(world: &World) -> Vec<Observed> {
    let hello = [Req::new().with("Content-Length", "5").bytes(), b"hello".to_vec()].concat();
    let inner = Req::new().bytes();
    let request = [Req::new().with("Content-Length", inner.len().to_string()).bytes(), inner].concat();
    let proxied = [Req::at("/up/H27").with("Content-Length", "5").bytes(), b"hello".to_vec()].concat();
    let seen = each(world, [("hello", hello), ("a request", request), ("proxied", proxied)]);
    assert!(world.scripts().heads_of("/up/H27").is_empty(), "the upstream was asked");
    seen
}

fn h28_chunked(world: &World) -> Vec<Observed> {
    let head = Req::new().with("Transfer-Encoding", "chunked").bytes();
    let proxied = Req::at("/up/H28").with("Transfer-Encoding", "chunked").bytes();
    let body = b"0\r\n\r\n";
    let seen =
        each(world, [("empty", [&head[..], body].concat()), ("proxied", [&proxied[..], body].concat())]);
    assert!(world.scripts().heads_of("/up/H28").is_empty(), "the upstream was asked");
    seen
}

fn h30_chunked_in_http_1_0(world: &World) -> Vec<Observed> {
    let head = Req::new().line("GET /ws HTTP/1.0").with("Transfer-Encoding", "chunked").bytes();
    each(world, [("chunked", [&head[..], b"0\r\n\r\n"].concat())])
}

fn h33_pipelined(world: &World) -> Vec<Observed> {
    let second = b"GET /admin HTTP/1.1\r\nHost: gw.test\r\n\r\n";
    // Behind a 101 these are frames: opcode 7.
    let mut seen = Vec::new();
    for path in ["/ws", "/up/H33"] {
        let mut client = Client::connect(world.address());
        let peer = client.local();
        client.send(&[&Req::at(path).bytes()[..], second].concat());
        let (response, _) = read_response(&mut client).expect("a response");
        assert_eq!(response.status, 101);
        let (frames, reaction) = read_close(&mut client);
        assert!(frames.is_empty());
        seen.push(Observed::new(format!("behind a 101 at {path}"), peer, reaction));
    }
    // Behind a refusal they are nothing: `read_response` sees to it that only one answer comes.
    let refused = Req::new().without("Sec-WebSocket-Key").bytes();
    seen.extend(each(world, [("behind a refusal", [&refused[..], second].concat())]));
    assert!(world.scripts().heads_of("/admin").is_empty());
    seen
}
