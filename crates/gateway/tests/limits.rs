//! Limits of client addresses, the PROXY protocol and rates of messages over real sockets, on both backends: with TLS, and over
//! several shards.

mod harness;

use std::{
    io::Write,
    sync::Arc,
    time::{Duration, Instant},
};

use harness::{
    BACKENDS,
    certificates::Authority,
    client::{Client, End, request},
    eventually,
    frame::{CLOSE, FIN, PING, PONG, TEXT, masked},
    gateway::Gateway,
    scene::Scene,
    secure::Secure,
};
use rustls::ClientConfig;

/// A gateway with one listener that speaks TLS, these lines in its table, and these limits.
fn secure(io: &str, limits: &str, listener: &str) -> (Gateway, Arc<ClientConfig>, Authority) {
    let authority = Authority::new();
    let issued = authority.issue("localhost", &["localhost", "gw.test"]);
    let config = format!(
        "version = 1\n[limits]\n{limits}\n[[listener]]\nbind = '127.0.0.1:0'\n{listener}\n[listener.tls]\n{}\
         [[route]]\npath = '/echo'\necho = {{}}\n",
        issued.setting()
    );
    (Gateway::start(&config, io), authority.client(), authority)
}

#[test]
fn a_proxy_header_comes_before_tls_and_names_the_client() {
    for io in BACKENDS {
        let (gateway, config, _files) =
            secure(io, "sessions_per_address = 1", "proxy_protocol = ['127.0.0.0/8']");
        let connect = |header: &[u8]| {
            let mut client = Secure::connect(gateway.address(), &config, "localhost");
            client.stream.write_all(header).expect("the gateway reads");
            client
        };
        let mut first = connect(b"PROXY TCP4 198.51.100.1 10.0.0.1 4711 443\r\n");
        first.send(&request("/echo", ""));
        assert!(first.head().expect("a head").starts_with("HTTP/1.1 101 "));
        first.exchange(TEXT, b"behind a header");

        let mut second = connect(b"PROXY TCP4 198.51.100.1 10.0.0.1 4712 443\r\n");
        let head = second.head_behind_handshake();
        assert!(head.starts_with("HTTP/1.1 429 ") && head.contains("\r\nRetry-After: "), "{head}");
        gateway.wait_for_log("the refused client's address", |line| {
            line.contains("198.51.100.1:4712") && line.contains("429")
        });

        for header in [&b"PROXY TCP4 198.51.100.999 10.0.0.1 1 2\r\n"[..], b""] {
            let mut wrong = connect(header);
            assert!(wrong.shake().is_err());
            assert_eq!(wrong.inbox.ended, Some(End::Fin), "{header:?}");
        }
        first.close();
        gateway.stop();
    }
}

#[test]
fn over_tls_who_comes_too_fast_is_cut_off_before_the_handshake() {
    for io in BACKENDS {
        let limits = "handshakes_per_second = 1\nburst_handshakes = 2\nexempt_addresses = []";
        let (gateway, config, _files) = secure(io, limits, "");
        let open = || Secure::open(gateway.address(), &config, "localhost", "/echo");
        let sessions = [open(), open()];
        let mut third = Secure::connect(gateway.address(), &config, "localhost");
        let peer = third.stream.local_addr().expect("a connected socket");
        assert!(third.shake().is_err());
        assert!(third.inbox.ended.is_some() && third.fault.is_none(), "no alert, not even a handshake");
        gateway.wait_for_log("the refused connection", |line| {
            line.contains(&peer.to_string()) && line.contains("connection refused")
        });
        for mut session in sessions {
            session.exchange(TEXT, b"not affected");
            session.close();
        }
        eventually("a handshake to be in time again", || {
            let mut client = Secure::connect(gateway.address(), &config, "localhost");
            client.shake().ok()
        });
        gateway.stop();
    }
}

#[test]
fn all_shards_count_an_address_together() {
    for io in BACKENDS {
        let config = "version = 1\n[limits]\nsessions_per_address = 4\nexempt_addresses = []\n\
                      [[listener]]\nbind = '127.0.0.1:0'\n[[route]]\npath = '/echo'\necho = {}\n\
                      limits = { max_sessions = 3 }\n";
        let gateway = Gateway::start_with(config, &["--io", io, "--shards", "2"]);
        let mut open: Vec<_> = (0..3).map(|_| Client::open(gateway.address(), "/echo")).collect();
        let refused = |status: u16| {
            let mut client = Client::connect(gateway.address());
            client.send(&request("/echo", ""));
            let response = client.response().expect("an answer");
            assert_eq!(response.status, status);
            assert!(response.field("retry-after").is_some(), "{}", response.head);
            client
        };
        let lingering = [refused(503), refused(429)];
        for client in &mut open {
            client.exchange(TEXT, b"not affected");
        }
        drop(lingering);
        open.into_iter().for_each(|client| client.close(1000));
        eventually("there to be room again", || {
            let mut clients: Vec<_> = (0..3).map(|_| Client::connect(gateway.address())).collect();
            clients.iter_mut().for_each(|client| client.send(&request("/echo", "")));
            let opened = |client: &mut Client| client.response().is_ok_and(|response| response.status == 101);
            clients.iter_mut().all(opened).then_some(())
        });
        gateway.stop();
    }
}

/// Echoes until a pong comes; a ping counts for no rate of messages.
fn echoes(client: &mut Client) -> Vec<Vec<u8>> {
    client.send(&masked(FIN | PING, b"end"));
    let mut seen = Vec::new();
    loop {
        let frame = client.frame();
        match frame.opcode {
            TEXT => seen.push(frame.payload),
            PONG => return seen,
            other => panic!("opcode {other}"),
        }
    }
}

#[test]
fn what_comes_too_fast_is_delayed_dropped_or_the_end() {
    let rates = "burst_messages = 5, messages_per_second";
    for io in BACKENDS {
        let routes = format!(
            "[[route]]\npath = '/delay'\necho = {{}}\nlimits = {{ {rates} = 20, excess = 'delay' }}\n\
             [[route]]\npath = '/drop'\necho = {{}}\nlimits = {{ {rates} = 2, excess = 'drop' }}\n\
             [[route]]\npath = '/close'\necho = {{}}\nlimits = {{ {rates} = 2, excess = 'close' }}\n"
        );
        let scene = Scene::on(io, 1, "", &routes);
        let address = scene.gateway.address();
        let counted = |action: &str| {
            scene.metrics().value(&format!("tidegate_rate_actions_total{{action=\"{action}\"}}"))
        };
        let message = |number: usize| number.to_string().into_bytes();
        let crowd: Vec<u8> = (0..20).flat_map(|number| masked(FIN | TEXT, &message(number))).collect();

        // Five at once and one in each 50 ms: fifteen of them take 750 ms, and none is lost.
        let mut delayed = Client::open(address, "/delay");
        let begun = Instant::now();
        delayed.send(&crowd);
        for number in 0..20 {
            assert_eq!(delayed.message(TEXT), message(number), "{io}");
        }
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(650), "{io}: {took:?}");
        delayed.close(1000);
        assert!(counted("delay") >= 1.0 && (counted("drop"), counted("close")) == (0.0, 0.0), "{io}");

        // The first five, and what a machine that stood still for half a second has made room for.
        let mut dropped = Client::open(address, "/drop");
        dropped.send(&crowd);
        let seen = echoes(&mut dropped);
        assert!((5..20).contains(&seen.len()), "{io}: {}", seen.len());
        assert_eq!(seen[..5], [0, 1, 2, 3, 4].map(message), "{io}");
        assert_eq!(counted("drop"), (20 - seen.len()) as f64, "{io}");
        // The session goes on, and takes messages again.
        eventually("a message that is in time", || {
            dropped.send(&masked(FIN | TEXT, b"later"));
            echoes(&mut dropped).contains(&b"later".to_vec()).then_some(())
        });
        dropped.close(1000);

        assert_eq!(counted("close"), 0.0, "{io}");
        let mut closed = Client::open(address, "/close");
        closed.send(&crowd);
        let end = eventually("the Close", || Some(closed.frame()).filter(|frame| frame.opcode == CLOSE));
        assert_eq!((end.close_code(), counted("close")), (1008, 1.0), "{io}");
        scene.gateway.stop();
    }
}
