//! A proxied session from both its ends: what the upstream is told, and how each kind of ending reaches the other side
//! (the table of endings in `docs/ARCHITECTURE.md`). On both backends, with plain upstreams and with such as speak TLS.

mod harness;

use std::{
    net::TcpListener,
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use rustix::process::Signal;

use crate::harness::{
    BACKENDS, PATIENCE,
    certificates::Authority,
    client::{Client, End, Received, request},
    frame::{BINARY, CLOSE, FIN, PING, PONG, TEXT, close, header, masked, plain},
    gateway::Gateway,
    upstream::{Connection, Upstream, field, switching_protocols},
};

/// One route at `/p` with these settings beside its upstreams.
fn config(upstreams: &[String], settings: &str, more: &str) -> String {
    let upstreams: Vec<_> = upstreams.iter().map(|url| format!("{url:?}")).collect();
    format!(
        "version = 1\n{more}\n[limits]\nclose_timeout = \"1s\"\n[[listener]]\nbind = \"127.0.0.1:0\"\n\
         [[route]]\npath = \"/p\"\nproxy = {{ upstreams = [{}]{settings} }}\n",
        upstreams.join(", ")
    )
}

/// An upstream that hands each session, after a correct 101, to this test.
struct Stage {
    upstream: Upstream,
    sessions: Receiver<(String, Connection)>,
    /// Who has signed its certificate, where it speaks TLS.
    authority: Option<Authority>,
}

impl Stage {
    fn start() -> Stage {
        Stage::start_as(None)
    }

    fn secure() -> Stage {
        Stage::start_as(Some(Authority::new()))
    }

    fn start_as(authority: Option<Authority>) -> Stage {
        let secure = authority
            .as_ref()
            .map(|authority| authority.server(&authority.issue("upstream", &["127.0.0.1"]), false));
        let (sender, sessions) = channel();
        let upstream = Upstream::start_with(secure, move |mut connection| {
            let Some(head) = connection.head() else { return };
            connection.send(switching_protocols(&head, "").as_bytes());
            // The test may be over.
            let _ = sender.send((head, connection));
        });
        Stage { upstream, sessions, authority }
    }

    /// A route to it with these settings.
    fn config(&self, settings: &str) -> String {
        let tls = self.authority.as_ref().map(|own| format!(", tls = {{ ca_file = {:?} }}", own.ca()));
        config(&[self.upstream.url()], &format!("{settings}{}", tls.unwrap_or_default()), "")
    }

    fn next(&self) -> (String, Connection) {
        self.sessions.recv_timeout(PATIENCE).expect("the gateway connects to its upstream")
    }
}

/// Plays on both backends with a session through the gateway: the gateway, the client, the upstream's end.
fn with_session(settings: &str, play: impl Fn(Gateway, Client, Connection)) {
    for (io, start) in
        BACKENDS.into_iter().flat_map(|io| [(io, Stage::start as fn() -> Stage), (io, Stage::secure)])
    {
        let stage = start();
        let gateway = Gateway::start(&stage.config(settings), io);
        let client = Client::open(gateway.address(), "/p");
        let (_, connection) = stage.next();
        play(gateway, client, connection);
        assert_eq!(stage.upstream.failures(), [""; 0]);
    }
}

fn close_code(received: Received) -> u16 {
    match received {
        Received::Frame(frame) if frame.opcode == CLOSE => frame.close_code(),
        other => panic!("a Close is due, got {other:?}"),
    }
}

fn upstream_frame(connection: &mut Connection) -> (u8, Vec<u8>) {
    match connection.next_within(PATIENCE) {
        Received::Frame(frame) => {
            assert!(frame.masked, "this leg's client is the gateway (RFC 6455 §5.1)");
            (frame.opcode, frame.payload)
        }
        other => panic!("a frame is due, got {other:?}"),
    }
}

#[test]
fn messages_and_pings_go_end_to_end() {
    with_session("", |gateway, mut client, mut upstream| {
        client.send(&[masked(FIN | TEXT, b"there"), masked(FIN | PING, b"ping")].concat());
        assert_eq!(upstream_frame(&mut upstream), (TEXT, b"there".to_vec()));
        assert_eq!(upstream_frame(&mut upstream), (PING, b"ping".to_vec()));
        upstream.send(&[plain(FIN | PONG, b"ping"), plain(FIN | BINARY, b"back")].concat());
        let pong = client.frame();
        assert_eq!((pong.opcode, pong.payload), (PONG, b"ping".to_vec()));
        assert_eq!(client.message(BINARY), b"back");
        drop((client, upstream));
        gateway.stop();
    });
}

#[test]
fn the_clients_close_is_answered_by_the_upstream() {
    with_session("", |gateway, mut client, mut upstream| {
        client.send(&close(4001, b"bye"));
        let (opcode, payload) = upstream_frame(&mut upstream);
        assert_eq!((opcode, payload), (CLOSE, [&4001_u16.to_be_bytes()[..], b"bye"].concat()));
        upstream.send(&plain(FIN | CLOSE, &4001_u16.to_be_bytes()));
        assert_eq!(close_code(client.next()), 4001);
        assert_eq!(client.next(), Received::End(End::Fin));
        assert!(upstream.end_within(PATIENCE).is_some());
        gateway.stop();
    });
}

#[test]
fn the_clients_close_comes_back_where_the_upstream_does_not_answer() {
    with_session("", |gateway, mut client, mut upstream| {
        client.send(&close(4002, b""));
        assert_eq!(upstream_frame(&mut upstream).0, CLOSE);
        assert_eq!(close_code(client.next()), 4002);
        drop(upstream);
        gateway.stop();
    });
}

#[test]
fn a_clients_fault_is_1001_for_the_upstream() {
    with_session("", |gateway, mut client, mut upstream| {
        client.send(&masked(FIN | 3, b""));
        let (opcode, payload) = upstream_frame(&mut upstream);
        assert_eq!((opcode, &payload[..2]), (CLOSE, &1001_u16.to_be_bytes()[..]));
        upstream.send(&plain(FIN | CLOSE, &1001_u16.to_be_bytes()));
        assert_eq!(close_code(client.next()), 1002);
        gateway.stop();
    });
}

#[test]
fn a_client_that_vanishes_is_1001_for_the_upstream() {
    with_session("", |gateway, client, mut upstream| {
        client.reset();
        let (opcode, payload) = upstream_frame(&mut upstream);
        assert_eq!((opcode, &payload[..2]), (CLOSE, &1001_u16.to_be_bytes()[..]));
        gateway.wait_for_log("1006", |line| line.contains("1006"));
        drop(upstream);
        gateway.stop();
    });
}

#[test]
fn the_upstreams_close_reaches_the_client() {
    with_session("", |gateway, mut client, mut upstream| {
        upstream.send(&plain(FIN | CLOSE, &[&4003_u16.to_be_bytes()[..], b"enough"].concat()));
        let Received::Frame(frame) = client.next() else { panic!("a Close is due") };
        assert_eq!((frame.opcode, frame.close_code(), frame.close_reason()), (CLOSE, 4003, &b"enough"[..]));
        client.send(&close(4003, b""));
        let (opcode, payload) = upstream_frame(&mut upstream);
        assert_eq!((opcode, &payload[..2]), (CLOSE, &4003_u16.to_be_bytes()[..]));
        gateway.stop();
    });
}

#[test]
fn an_upstreams_fault_is_1011_for_the_client_and_1002_for_itself() {
    // A reserved opcode, and a code that no Close may carry.
    for bytes in [plain(FIN | 11, b""), plain(FIN | CLOSE, &1006_u16.to_be_bytes())] {
        with_session("", |gateway, mut client, mut upstream| {
            upstream.send(&bytes);
            assert_eq!(close_code(client.next()), 1011);
            let (opcode, payload) = upstream_frame(&mut upstream);
            assert_eq!((opcode, &payload[..2]), (CLOSE, &1002_u16.to_be_bytes()[..]));
            gateway.stop();
        });
    }
}

#[test]
fn an_upstream_that_vanishes_is_the_configured_code() {
    for (settings, code) in [("", 1011), (", failure_code = 1014", 1014)] {
        with_session(settings, |gateway, mut client, upstream| {
            drop(upstream);
            assert_eq!(close_code(client.next()), code);
            gateway.stop();
        });
    }
}

#[test]
fn a_message_cut_off_is_never_completed() {
    with_session("", |gateway, mut client, mut upstream| {
        // Half a frame of the upstream, then its end: no Close can stand inside the frame.
        upstream.send(&[header(FIN | BINARY, 1000, None), vec![1; 500]].concat());
        assert!(client.end_or_data_within(PATIENCE));
        drop(upstream);
        assert_eq!(client.next(), Received::End(End::Reset), "a FIN would be a clean end");
        gateway.stop();
    });
}

#[test]
fn a_drain_is_1001_for_both() {
    with_session("", |gateway, mut client, mut upstream| {
        gateway.signal(Signal::INT);
        assert_eq!(close_code(client.next()), 1001);
        let (opcode, payload) = upstream_frame(&mut upstream);
        assert_eq!((opcode, &payload[..2]), (CLOSE, &1001_u16.to_be_bytes()[..]));
        client.send(&close(1001, b""));
        upstream.send(&plain(FIN | CLOSE, &1001_u16.to_be_bytes()));
        let (status, _) = gateway.wait();
        assert!(status.success(), "{status}");
    });
}

/// The request as the upstream got it, for a client that sent these fields.
fn head_behind(io: &str, trusted: &str, fields: &str) -> String {
    let stage = Stage::start();
    let gateway = Gateway::start(&config(&[stage.upstream.url()], "", trusted), io);
    let mut client = Client::connect(gateway.address());
    client.send(&request("/p?q=1", fields));
    assert_eq!(client.response().expect("a response").status, 101);
    stage.next().0
}

#[test]
fn the_upstream_learns_who_came_and_nothing_that_was_made_up() {
    let fields = "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\nConnection: X-Secret\r\nX-Secret: 1\r\n\
                  Keep-Alive: 5\r\nCookie: a=b\r\nSec-WebSocket-Protocol: chat\r\n";
    for io in BACKENDS {
        let head = head_behind(io, "", fields);
        assert!(head.starts_with("GET /p?q=1 HTTP/1.1\r\n"), "{head}");
        assert_eq!(field(&head, "host"), Some("gw.test"), "{head}");
        assert_eq!(field(&head, "x-forwarded-for"), Some("127.0.0.1"), "{head}");
        assert_eq!(field(&head, "x-forwarded-proto"), Some("http"), "{head}");
        assert_eq!(field(&head, "x-forwarded-host"), Some("gw.test"), "{head}");
        // Hop-by-hop (RFC 9110 §7.6.1).
        assert_eq!((field(&head, "x-secret"), field(&head, "keep-alive")), (None, None), "{head}");
        assert_eq!(
            (field(&head, "cookie"), field(&head, "sec-websocket-protocol")),
            (Some("a=b"), Some("chat"))
        );
        assert_ne!(field(&head, "sec-websocket-key"), Some(harness::client::KEY), "each leg has its own key");

        let head = head_behind(io, "trusted = [\"127.0.0.0/8\"]", fields);
        assert_eq!(field(&head, "x-forwarded-for"), Some("203.0.113.9, 127.0.0.1"), "{head}");
        assert_eq!(field(&head, "x-forwarded-proto"), Some("https"), "{head}");
    }
}

#[test]
fn an_upstreams_refusal_is_relayed_and_no_failure() {
    for io in BACKENDS {
        for (status, level) in [("401 Unauthorized", "INFO"), ("503 Service Unavailable", "WARN")] {
            let upstream = Upstream::start(move |mut connection| {
                if connection.head().is_some() {
                    connection.send(
                        format!("HTTP/1.1 {status}\r\nX-Realm: app\r\nContent-Length: 5\r\n\r\nnever")
                            .as_bytes(),
                    );
                }
            });
            let gateway = Gateway::start(&config(&[upstream.url()], "", ""), io);
            let code = &status[..3];
            // Again and again: it is not left out as one that failed would be.
            for _ in 0..3 {
                let mut client = Client::connect(gateway.address());
                client.send(&request("/p", ""));
                let response = client.response().expect("a response");
                assert_eq!(response.status.to_string(), code);
                assert_eq!((response.field("x-realm"), &response.body[..]), (Some("app"), &b"never"[..]));
                // RFC 9110 §6.6.1: it had none.
                assert!(response.field("date").is_some_and(|date| date.ends_with(" GMT")));
            }
            let line = gateway.wait_for_log("the refusal", |line| line.contains("refused by the upstream"));
            assert!(line.contains(level) && line.contains(code), "{line}");
            assert_eq!(upstream.accepted(), 3);
            assert!(!gateway.stop().iter().any(|line| line.contains("upstream failed")));
        }
    }
}

#[test]
fn another_upstream_is_tried_where_one_refuses_the_connection() {
    // A port on which nobody listens: bound here, so that nobody else takes it.
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    for io in BACKENDS {
        let upstream = Upstream::echo();
        let urls = [format!("ws://{nobody}"), upstream.url()];
        let gateway = Gateway::start(&config(&urls, "", ""), io);
        for _ in 0..4 {
            let mut client = Client::open(gateway.address(), "/p");
            client.exchange(BINARY, b"served");
            client.close(1000);
        }
        assert_eq!(upstream.accepted(), 4);
        gateway.stop();

        let gateway = Gateway::start(&config(&urls[..1], "", ""), io);
        let mut client = Client::connect(gateway.address());
        client.send(&request("/p", ""));
        assert_eq!(client.response().expect("a response").status, 502);
        gateway.stop();
    }
}

#[test]
fn a_client_that_does_not_read_pauses_the_upstream() {
    with_session("", |gateway, mut client, mut upstream| {
        let memory = gateway.resident_kib();
        upstream.stall_after(Duration::from_secs(1));
        let message = plain(FIN | BINARY, &[7; 60_000]);
        let mut sent = 0_usize;
        while sent < 1 << 15 && upstream.send(&message) {
            sent += 1;
        }
        assert!(sent < 1 << 15, "two gigabytes went somewhere");
        let grown = gateway.resident_kib().saturating_sub(memory);
        assert!(grown < 32 * 1024, "{grown} KiB more: the outbox has 4 MiB, the pool 17");
        // All that was taken arrives, in whole messages.
        for _ in 0..sent {
            assert_eq!(client.message(BINARY).len(), 60_000);
        }
        drop((client, upstream));
        gateway.stop();
    });
}

#[test]
fn what_says_who_the_client_is_passes_from_trusted_networks_only() {
    let claims = [
        ("X-Forwarded-Port", "443"),
        ("X-Forwarded-Prefix", "/admin"),
        ("x-forwarded-user", "root"),
        ("X-Forwarded-Ssl", "on"),
        ("Forwarded", "for=203.0.113.9;proto=https"),
        ("X-Real-IP", "203.0.113.9"),
    ];
    // Many servers read these as the same fields (CGI's `HTTP_X_FORWARDED_FOR`).
    let alike = "X_Forwarded_For: 203.0.113.9\r\nX_Real_IP: 203.0.113.9\r\n";
    let others = "X-Forwarder: kept\r\nForwarded-By: kept\r\n";
    let claimed: String = claims.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let fields = format!("{claimed}{others}");
    for io in BACKENDS {
        let head = head_behind(io, "", &format!("{fields}{alike}"));
        for (name, _) in claims.iter().chain(&[("X_Forwarded_For", ""), ("X_Real_IP", "")]) {
            assert_eq!(field(&head, name), None, "{head}");
        }
        assert_eq!(field(&head, "x-forwarded-for"), Some("127.0.0.1"), "{head}");
        assert_eq!(
            (field(&head, "x-forwarder"), field(&head, "forwarded-by")),
            (Some("kept"), Some("kept")),
            "{head}"
        );

        let head = head_behind(io, "trusted = [\"127.0.0.1\"]", &fields);
        for (name, value) in claims {
            assert_eq!(field(&head, name), Some(value), "{head}");
        }
        assert_eq!(field(&head, "x-forwarded-for"), Some("127.0.0.1"), "{head}");
        assert_eq!(field(&head, "x-forwarder"), Some("kept"), "{head}");
    }
}

/// A route with a foreign origin in its list: a page of the gateway's own origin may connect, too.
#[test]
fn the_own_origin_is_the_one_that_a_trusted_proxy_ends_tls_for() {
    for io in BACKENDS {
        for (trusted, proto, own) in [
            ("", "", "http"),
            ("", "X-Forwarded-Proto: https\r\n", "http"),
            ("trusted = [\"127.0.0.0/8\"]", "", "http"),
            ("trusted = [\"127.0.0.0/8\"]", "X-Forwarded-Proto: http, https\r\n", "https"),
            ("trusted = [\"127.0.0.0/8\"]", "X-Forwarded-Proto: https, http\r\n", "http"),
        ] {
            let config = format!(
                "version = 1\n{trusted}\n[[listener]]\nbind = \"127.0.0.1:0\"\n[[route]]\npath = \"/e\"\n\
                 origins = [\"https://other.test\"]\necho = {{}}\n"
            );
            let gateway = Gateway::start(&config, io);
            for scheme in ["http", "https"] {
                let mut client = Client::connect(gateway.address());
                client.send(&request("/e", &format!("{proto}Origin: {scheme}://gw.test\r\n")));
                let status = client.response().expect("a response").status;
                let expected = if scheme == own { 101 } else { 403 };
                assert_eq!(status, expected, "{trusted} {proto} {scheme}");
            }
            gateway.stop();
        }
    }
}

#[test]
fn a_client_may_answer_every_ping_of_its_upstream() {
    with_session("", |gateway, mut client, mut upstream| {
        for round in 0..150_u8 {
            upstream.send(&plain(FIN | PING, &[round]));
            let ping = client.frame();
            assert_eq!((ping.opcode, &ping.payload[..]), (PING, &[round][..]));
            client.send(&masked(FIN | PONG, &[round]));
            assert_eq!(upstream_frame(&mut upstream), (PONG, vec![round]));
        }
        drop((client, upstream));
        gateway.stop();
    });
}

#[test]
fn a_slow_client_is_disconnected_where_that_is_asked_for() {
    for (io, stage) in BACKENDS.into_iter().flat_map(|io| [(io, Stage::start()), (io, Stage::secure())]) {
        let config = format!("{}full = \"disconnect\"\n", stage.config(""));
        let gateway = Gateway::start(&config, io);
        let mut client = Client::open(gateway.address(), "/p");
        let (_, mut upstream) = stage.next();
        // The client reads nothing, and nobody waits for it.
        let message = plain(FIN | BINARY, &[7; 60_000]);
        let mut sent = 0_usize;
        while sent < 1 << 12 && upstream.send(&message) {
            sent += 1;
        }
        assert!(sent < 1 << 12, "240 MB went somewhere");
        let line = gateway.wait_for_log("the end", |line| line.contains("slow consumer"));
        assert!(line.contains("1013"), "{line}");
        // What it gets is whole.
        let code = loop {
            match client.next() {
                Received::Frame(frame) if frame.opcode == BINARY => assert_eq!(frame.payload.len(), 60_000),
                received => break close_code(received),
            }
        };
        assert_eq!(code, 1013);
        drop(upstream);
        gateway.stop();
    }
}
