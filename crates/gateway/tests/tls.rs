//! `wss://` over real sockets, on both backends: what clients see, and what becomes of what is not TLS.

mod harness;

use std::{
    collections::VecDeque,
    fs,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use harness::{
    BACKENDS, PATIENCE,
    certificates::Authority,
    client::{Client, End, Received, request},
    frame::{self, BINARY, CLOSE, FIN, TEXT},
    gateway::{Gateway, config_file, run_to_end},
    inbox::Incoming,
    scene::Scene,
    secure::Secure,
    upstream::{Upstream, field},
};
use rustix::process::Signal;
use rustls::{AlertDescription, ClientConfig, Error, HandshakeKind, ProtocolVersion, version};

/// A gateway whose first listener speaks TLS and whose second one is plain.
struct World {
    authority: Authority,
    client: Arc<ClientConfig>,
    gateway: Gateway,
}

const ROUTES: &str = "[[route]]\npath = '/echo'\necho = {}\n";

impl World {
    fn start(io: &str) -> World {
        World::with(io, "", "", ROUTES)
    }

    /// With more settings of `[limits]` and of the listener's TLS, and these routes.
    fn with(io: &str, limits: &str, tls: &str, routes: &str) -> World {
        let authority = Authority::new();
        let issued = authority.issue("localhost", &["localhost", "gw.test"]);
        let config = format!(
            "version = 1\n[limits]\n{limits}\n[[listener]]\nbind = '127.0.0.1:0'\n[listener.tls]\n{}{tls}\n\
             [[listener]]\nbind = '127.0.0.1:0'\n{routes}",
            issued.setting()
        );
        World { client: authority.client(), gateway: Gateway::start(&config, io), authority }
    }

    fn address(&self) -> SocketAddr {
        self.gateway.address()
    }

    fn plain(&self) -> SocketAddr {
        self.gateway.addresses()[1]
    }

    fn open(&self) -> Secure {
        Secure::open(self.address(), &self.client, "localhost", "/echo")
    }

    fn connect(&self) -> Secure {
        Secure::connect(self.address(), &self.client, "localhost")
    }

    /// The handshake of a client with such a configuration.
    fn shake(&self, config: &Arc<ClientConfig>) -> Result<Secure, Error> {
        let mut client = Secure::connect(self.address(), config, "localhost");
        client.shake().map(|()| client)
    }
}

/// Bytes that compress badly and repeat nowhere within a record.
fn noise(len: usize) -> Vec<u8> {
    (0..len as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

fn alert(error: &Error) -> Option<AlertDescription> {
    match error {
        Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

#[test]
fn messages_of_all_lengths_come_back_over_both_versions_beside_a_plain_listener() {
    for io in BACKENDS {
        let world = World::start(io);
        for (versions, expected) in
            [(&[&version::TLS13], ProtocolVersion::TLSv1_3), (&[&version::TLS12], ProtocolVersion::TLSv1_2)]
        {
            let config = world.authority.client_with(versions, &[b"h2", b"http/1.1"], None);
            let mut client = Secure::open(world.address(), &config, "localhost", "/echo");
            assert_eq!(client.connection.protocol_version(), Some(expected));
            assert_eq!(client.connection.alpn_protocol(), Some(&b"http/1.1"[..]));
            for len in [0, 1, 64, 125, 126, 16_370, 16_384, 16_385, 65_536, 1 << 20] {
                client.exchange(BINARY, &noise(len));
            }
            client.exchange(TEXT, "Grüße".as_bytes());
            client.close();
        }
        let mut plain = Client::open(world.plain(), "/echo");
        plain.exchange(TEXT, b"plain");
        world.gateway.stop();
    }
}

#[test]
fn many_messages_sent_at_once_come_back_in_order() {
    for io in BACKENDS {
        let world = World::start(io);
        let mut client = world.open();
        let mut sent = Vec::new();
        for number in 0..5_000u32 {
            sent.extend(frame::masked(FIN | BINARY, &number.to_be_bytes().repeat(1 + number as usize % 40)));
        }
        // A second thread is not needed: what comes back fits into the sockets' buffers and the outbox.
        client.send(&sent);
        for number in 0..5_000u32 {
            assert_eq!(client.frame().payload, number.to_be_bytes().repeat(1 + number as usize % 40));
        }
        client.close();
        world.gateway.stop();
    }
}

#[test]
fn records_may_be_cut_at_every_byte() {
    for io in BACKENDS {
        let world = World::start(io);
        let mut client = world.connect();
        // The handshake, each flight byte by byte.
        while client.connection.is_handshaking() {
            for byte in client.take() {
                client.stream.write_all(&[byte]).unwrap();
            }
            client.read_more(std::time::Instant::now() + PATIENCE);
        }
        let mut bytes = client.take();
        client.connection.writer().write_all(&request("/echo", "")).unwrap();
        bytes.extend(client.take());
        for byte in bytes {
            client.stream.write_all(&[byte]).unwrap();
        }
        assert!(client.head().is_some_and(|head| head.starts_with("HTTP/1.1 101 ")));
        // Two records, cut once at each place.
        for cut in 0..120 {
            client.connection.writer().write_all(&frame::masked(FIN | TEXT, b"one")).unwrap();
            let mut bytes = client.take();
            client.connection.writer().write_all(&frame::masked(FIN | TEXT, b"another")).unwrap();
            bytes.extend(client.take());
            let cut = cut.min(bytes.len());
            client.stream.write_all(&bytes[..cut]).unwrap();
            // What is behind waits until the front was surely read: the gateway answers a whole first record.
            if cut > 40 {
                assert_eq!(client.frame().payload, b"one");
                client.stream.write_all(&bytes[cut..]).unwrap();
            } else {
                client.stream.write_all(&bytes[cut..]).unwrap();
                assert_eq!(client.frame().payload, b"one");
            }
            assert_eq!(client.frame().payload, b"another");
        }
        client.close();
        world.gateway.stop();
    }
}

#[test]
fn a_slow_reader_gets_every_byte_of_what_waited_for_it() {
    for io in BACKENDS {
        let world = World::with(io, "outbox_soft = '64KiB'", "", ROUTES);
        let mut client = world.open();
        let (mut sent, payload) = (0, noise(50_000));
        // Sent without reading until the gateway takes no more.
        client.stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        let message = frame::masked(FIN | BINARY, &payload);
        loop {
            client.connection.writer().write_all(&message).unwrap();
            let bytes = client.take();
            let mut rest = &bytes[..];
            while let Ok(taken @ 1..) = client.stream.write(rest) {
                rest = &rest[taken..];
            }
            sent += 1;
            assert!(sent < 5_000, "the gateway reads on and on");
            if rest.is_empty() {
                continue;
            }
            let rest = rest.to_vec();
            client.stream.set_write_timeout(Some(PATIENCE)).unwrap();
            let mut stream = client.stream.try_clone().unwrap();
            let writer = std::thread::spawn(move || stream.write_all(&rest));
            for _ in 0..sent {
                assert!(client.frame().payload == payload);
            }
            writer.join().unwrap().unwrap();
            break;
        }
        client.close();
        world.gateway.stop();
    }
}

#[test]
fn a_proxied_session_says_how_it_came() {
    for io in BACKENDS {
        let (upstream, heads) = Upstream::telling();
        let routes =
            format!("[[route]]\npath = '/app/*'\nproxy = {{ upstreams = [{:?}] }}\n", upstream.url());
        let world = World::with(io, "", "", &routes);
        let mut client = Secure::open(world.address(), &world.client, "localhost", "/app/x");
        for len in [0, 5, 17_000, 300_000] {
            client.exchange(BINARY, &noise(len));
        }
        client.close();
        drop(Client::open(world.plain(), "/app/x"));
        for scheme in ["https", "http"] {
            let head = heads.recv_timeout(PATIENCE).expect("the upstream is asked");
            assert_eq!(field(&head, "x-forwarded-proto"), Some(scheme));
        }
        world.gateway.stop();
        assert_eq!(upstream.failures(), [""; 0]);
    }
}

#[test]
fn subscribers_over_tls_and_without_get_the_same() {
    for io in BACKENDS {
        let routes = "[[route]]\npath = '/topics/*'\ntopics = { subscribe = ['**'], publish = ['**'] }\n";
        let world = World::with(io, "", "", routes);
        let mut secure: Vec<Secure> = (0..20)
            .map(|_| Secure::open(world.address(), &world.client, "localhost", "/topics/room"))
            .collect();
        let mut plain = Client::open(world.plain(), "/topics/room");
        let mut publisher = Client::open(world.plain(), "/topics/room");
        for number in 0..50 {
            let text = format!("message {number} {}", "x".repeat(number * 200));
            publisher.send(&frame::masked(FIN | TEXT, text.as_bytes()));
            assert_eq!(plain.message(TEXT), text.as_bytes());
            for client in &mut secure {
                assert_eq!(client.frame().payload, text.as_bytes());
            }
        }
        // And one of those over TLS publishes.
        secure[0].send(&frame::masked(FIN | TEXT, b"from a sealed one"));
        assert_eq!(plain.message(TEXT), b"from a sealed one");
        assert_eq!(secure[1].frame().payload, b"from a sealed one");
        world.gateway.stop();
    }
}

#[test]
fn names_choose_the_certificate_and_the_first_is_for_all_others() {
    for io in BACKENDS {
        let authority = Authority::new();
        let first = authority.issue("first", &["first.test", "localhost", "127.0.0.1"]);
        let second = authority.issue("second", &["second.test", "*.second.test"]);
        let config = format!(
            "version = 1\n[[listener]]\nbind = '127.0.0.1:0'\n[[listener.tls.certificates]]\n{}\
             [[listener.tls.certificates]]\n{}{ROUTES}",
            first.setting(),
            second.setting()
        );
        let gateway = Gateway::start(&config, io);
        let config = authority.client();
        for (name, expected) in [
            ("first.test", Some(&first)),
            ("second.test", Some(&second)),
            ("a.second.test", Some(&second)),
            ("127.0.0.1", Some(&first)),
            // They get the first certificate, which is not for them.
            ("a.b.second.test", None),
            ("third.test", None),
        ] {
            let mut client = Secure::connect(gateway.address(), &config, name);
            let verdict = client.shake();
            match expected {
                Some(expected) => {
                    verdict.unwrap_or_else(|error| panic!("{name}: {error}"));
                    let got = client.connection.peer_certificates().unwrap();
                    assert_eq!(got[0], expected.certificate, "{name}");
                }
                None => assert!(matches!(verdict, Err(Error::InvalidCertificate(_))), "{name}: {verdict:?}"),
            }
        }
        gateway.stop();
    }
}

#[test]
fn clients_need_a_certificate_where_an_authority_is_named() {
    for io in BACKENDS {
        let clients = Authority::new();
        let tls = format!("client_ca_file = {:?}\n", clients.ca());
        let world = World::with(io, "", &tls, ROUTES);
        let own = clients.issue("client", &["client.test"]);
        let strange = world.authority.issue("strange", &["client.test"]);
        for versions in [&[&version::TLS13], &[&version::TLS12]] {
            let config = world.authority.client_with(versions, &[], Some(&own));
            let mut client = Secure::open(world.address(), &config, "localhost", "/echo");
            client.exchange(TEXT, b"welcome");
            for (own, expected) in
                [(None, AlertDescription::CertificateRequired), (Some(&strange), AlertDescription::UnknownCA)]
            {
                let config = world.authority.client_with(versions, &[], own);
                // With TLS 1.3 the client's part of the handshake is over before it hears.
                let mut client = Secure::connect(world.address(), &config, "localhost");
                let _ = client.shake();
                assert_eq!(client.end(), Some(End::Fin));
                let got = client.fault.as_ref().and_then(alert);
                // RFC 5246 has no alert of its own for it.
                assert!(got == Some(expected) || got == Some(AlertDescription::HandshakeFailure), "{got:?}");
            }
        }
        world.gateway.stop();
    }
}

#[test]
fn a_second_session_resumes_the_first_whichever_shard_takes_it() {
    for io in BACKENDS {
        let authority = Authority::new();
        let issued = authority.issue("localhost", &["localhost"]);
        let config = format!(
            "version = 1\n[[listener]]\nbind = '127.0.0.1:0'\n[listener.tls]\n{}{ROUTES}",
            issued.setting()
        );
        let gateway = Gateway::start_with(&config, &["--io", io, "--shards", "2"]);
        for versions in [&[&version::TLS13], &[&version::TLS12]] {
            let config = authority.client_with(versions, &[], None);
            for number in 0..10 {
                let mut client = Secure::open(gateway.address(), &config, "localhost", "/echo");
                client.exchange(TEXT, b"x");
                let expected = if number == 0 { HandshakeKind::Full } else { HandshakeKind::Resumed };
                let kind = client.connection.handshake_kind().unwrap();
                // A hello that is retried is a full one.
                assert!(kind == expected || number == 0, "{kind:?}");
                client.close();
            }
        }
        gateway.stop();
    }
}

/// Rows S04, S05 and S07 of the table of bad inputs.
#[test]
fn what_has_nothing_in_common_is_told_so() {
    for io in BACKENDS {
        let world = World::with(io, "", "min_version = '1.3'\n", ROUTES);
        let old = world.authority.client_with(&[&version::TLS12], &[], None);
        let error = world.shake(&old).map(|_| ()).unwrap_err();
        assert_eq!(alert(&error), Some(AlertDescription::ProtocolVersion), "{error}");
        let h2 = world.authority.client_with(&[&version::TLS13], &[b"h2"], None);
        let error = world.shake(&h2).map(|_| ()).unwrap_err();
        assert_eq!(alert(&error), Some(AlertDescription::NoApplicationProtocol), "{error}");
        let silent = world.authority.client_with(&[&version::TLS13], &[], None);
        assert!(world.shake(&silent).is_ok());

        // TLS 1.1, and 1.2 with suites of the past alone: RC4, 3DES and CBC with SHA-1. rustls misses the signatures of a
        // hello without extensions before it looks at the version.
        let world = World::start(io);
        for (hello, expected) in [
            (hello([3, 2], SHA256_WITH_ECDSA), 70),
            (hello([3, 2], &[]), 40),
            (hello([3, 3], SHA256_WITH_ECDSA), 40),
        ] {
            let mut stream = TcpStream::connect(world.address()).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(&hello).unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
            // A fatal alert (RFC 8446 §6.2): 70 is protocol_version, 40 handshake_failure.
            assert_eq!(answer.get(..1), Some(&[21][..]), "{answer:?}");
            assert_eq!(answer.get(5..), Some(&[2, expected][..]), "{answer:?}");
        }
        world.gateway.stop();
    }
}

/// RFC 8446 §4.2.3: signature_algorithms with ecdsa_secp256r1_sha256, and supported_groups with secp256r1 and x25519.
const SHA256_WITH_ECDSA: &[u8] = &[0, 13, 0, 4, 0, 2, 4, 3, 0, 10, 0, 6, 0, 4, 0, 23, 0, 29];

/// A ClientHello of an older version that offers suites of the past.
fn hello(version: [u8; 2], extensions: &[u8]) -> Vec<u8> {
    let mut body = version.to_vec();
    body.extend([7; 32]);
    body.push(0);
    // TLS_RSA_WITH_RC4_128_SHA, TLS_RSA_WITH_3DES_EDE_CBC_SHA, TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA
    body.extend([0, 6, 0, 5, 0, 10, 0xc0, 9, 1, 0]);
    body.extend((extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    let mut message = vec![1, 0];
    message.extend((body.len() as u16).to_be_bytes());
    message.extend(body);
    let mut record = vec![22, 3, 1];
    record.extend((message.len() as u16).to_be_bytes());
    record.extend(message);
    record
}

/// Rows S01 and S06, and what else is not TLS: an alert, and the end.
#[test]
fn what_is_not_tls_gets_an_alert_and_the_end() {
    for io in BACKENDS {
        let world = World::start(io);
        let mut other = world.open();
        let plain: [&[u8]; 6] = [
            b"GET / HTTP/1.1\r\nHost: gw.test\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            &[0; 2000],
            &[0xff; 2000],
            // A record that is too long.
            &[22, 3, 1, 0xff, 0xff, 1, 0, 0, 0],
            // Application data before any handshake.
            &[23, 3, 3, 0, 4, 1, 2, 3, 4],
        ];
        for bytes in plain {
            let mut stream = TcpStream::connect(world.address()).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(bytes).unwrap();
            let mut answer = Vec::new();
            // A reset cannot come: what was sent was read.
            stream.read_to_end(&mut answer).unwrap();
            assert_eq!(answer.get(..1), Some(&[21][..]), "{bytes:?}: {answer:?}");
            assert_eq!((answer.len(), answer[5]), (7, 2), "{bytes:?}: {answer:?}");
        }
        // Within an open session: a record that does not open, and one that is too long.
        // RFC 8446 §5.2 asks for record_overflow above 16,640 bytes. rustls takes what TLS 1.2 allows, 18,432, and does not open
        // it; what is longer it does not read.
        for (spoilt, expected) in [
            (vec![23, 3, 3, 0, 30], AlertDescription::BadRecordMac),
            (vec![23, 3, 3, 0x41, 0x01], AlertDescription::BadRecordMac),
            (vec![23, 3, 3, 0x48, 0x01], AlertDescription::DecodeError),
        ] {
            let mut client = world.open();
            let len = usize::from(u16::from_be_bytes([spoilt[3], spoilt[4]]));
            let bytes = [spoilt, vec![9; len]].concat();
            client.stream.write_all(&bytes).unwrap();
            assert_eq!(client.end(), Some(End::Fin));
            assert_eq!(client.fault.as_ref().and_then(alert), Some(expected), "{len}");
        }
        other.exchange(TEXT, b"unharmed");
        other.close();
        let log = world.gateway.stop();
        assert!(log.iter().any(|line| line.contains("TLS failed")), "{}", harness::gateway::tail(&log));
    }
}

/// Row S03: rustls does not believe a close_notify that anyone can have sent, so that the time for the head ends it; many of
/// them are too many.
#[test]
fn close_notify_during_the_handshake_does_not_hold_it_open() {
    for io in BACKENDS {
        let world = World::with(io, "head_timeout = '1s'", "", ROUTES);
        for count in [1, 100] {
            let mut early = world.connect();
            early.stream.write_all(&[21, 3, 3, 0, 2, 1, 0].repeat(count)).unwrap();
            assert_eq!(early.end(), Some(End::Fin));
        }
        let log = world.gateway.stop();
        for reason in ["the handshake took too long", "what came is not TLS, or breaks it"] {
            assert!(
                log.iter().any(|line| line.contains(reason)),
                "{reason}: {}",
                harness::gateway::tail(&log)
            );
        }
    }
}

/// Row S16: a FIN without close_notify in the middle of a frame ends the session abnormally; behind a Close it is none.
#[test]
fn a_fin_without_close_notify_is_no_clean_close() {
    for io in BACKENDS {
        let world = World::start(io);
        let mut client = world.open();
        client.send(&frame::masked(FIN | TEXT, b"a whole one")[..10]);
        client.finish();
        assert_eq!(client.end(), Some(End::Fin));
        world.gateway.wait_for_log("an abnormal end", |line| line.contains("1006"));

        // Close frames decide: its peer has said all that it wanted to.
        let mut client = world.open();
        client.send(&frame::close(1000, b""));
        client.finish();
        assert_eq!(client.frame().close_code(), 1000);
        assert_eq!(client.end(), Some(End::Fin));
        assert!(client.notified);

        // And close_notify without a FIN is as good as one.
        let mut client = world.open();
        client.connection.send_close_notify();
        client.flush();
        assert_eq!(client.end(), Some(End::Fin));
        assert!(client.notified);
        world.gateway.stop();
    }
}

/// Row S17: the time for a handshake is that for a head.
#[test]
fn a_handshake_that_stalls_is_ended() {
    for io in BACKENDS {
        let world = World::with(io, "head_timeout = '1s'", "", ROUTES);
        // Nothing at all, half a hello, and no end of the handshake.
        let mut silent = world.connect();
        let mut half = world.connect();
        let hello = half.take();
        half.stream.write_all(&hello[..100]).unwrap();
        let mut unfinished = world.connect();
        unfinished.flush();
        for client in [&mut silent, &mut half, &mut unfinished] {
            assert_eq!(client.end(), Some(End::Fin));
        }
        // One whose handshake is over hears why.
        let mut headless = world.connect();
        headless.shake().unwrap();
        assert!(headless.head().is_some_and(|head| head.starts_with("HTTP/1.1 408 ")));
        world.gateway.stop();
    }
}

/// Row S12: rustls renegotiates with nobody.
#[test]
fn a_second_handshake_within_a_session_is_refused() {
    for io in BACKENDS {
        let world = World::start(io);
        let mut client = world.open();
        // A ClientHello in the clear where sealed records are due.
        client.stream.write_all(&hello([3, 3], SHA256_WITH_ECDSA)).unwrap();
        assert_eq!(client.end(), Some(End::Fin));
        assert!(client.fault.as_ref().and_then(alert).is_some(), "{:?}", client.fault);
        world.gateway.stop();
    }
}

/// Row W23: the absolute form.
#[test]
fn a_request_may_name_its_scheme() {
    for io in BACKENDS {
        let world = World::start(io);
        let mut client = world.connect();
        let request = String::from_utf8(request("/echo", "")).unwrap();
        client.send(request.replace("GET /echo", "GET wss://gw.test/echo").as_bytes());
        assert!(client.head().is_some_and(|head| head.starts_with("HTTP/1.1 101 ")));
        client.exchange(TEXT, b"x");
        world.gateway.stop();
    }
}

/// A thousand hellos that have all come take 125 turns of eight. Without that bound they take four, of as many receive buffers as a
/// turn has.
#[test]
fn a_storm_of_handshakes_does_not_stop_an_echo() {
    for io in BACKENDS {
        let world = World::with(io, "head_timeout = '60s'\nping_interval = '0s'", "", ROUTES);
        let mut echo = world.open();
        let mut clients: Vec<Secure> = (0..1_000).map(|_| world.connect()).collect();
        // It stands still until all of them are there.
        world.gateway.signal(Signal::STOP);
        clients.iter_mut().for_each(Secure::flush);
        world.gateway.signal(Signal::CONT);
        let mut unanswered: VecDeque<&Secure> = clients.iter().collect();
        let mut echoes = 0;
        while !unanswered.is_empty() {
            echo.exchange(TEXT, b"still here");
            echoes += 1;
            while unanswered.front().is_some_and(|client| is_answered(client)) {
                unanswered.pop_front();
            }
        }
        assert!(echoes >= 16, "{echoes} echoes");
        for client in &mut clients {
            client.send(&request("/echo", ""));
            assert!(client.head().is_some_and(|head| head.starts_with("HTTP/1.1 101 ")));
        }
        echo.exchange(TEXT, b"and afterwards");
        world.gateway.stop();
    }
}

/// Whether something has come that was not read yet.
fn is_answered(client: &Secure) -> bool {
    client.stream.set_nonblocking(true).expect("a socket");
    let came = client.stream.peek(&mut [0]);
    client.stream.set_nonblocking(false).expect("a socket");
    match came {
        Ok(len) => len > 0,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
            false
        }
    }
}

#[test]
fn a_full_gateway_says_so_over_tls() {
    for io in BACKENDS {
        let world = World::with(io, "max_sessions = 2", "", ROUTES);
        let _first = world.open();
        let _second = world.open();
        let mut third = world.connect();
        assert!(third.head_behind_handshake().starts_with("HTTP/1.1 503 "));
        assert_eq!(third.end(), Some(End::Fin));
        assert!(third.notified);
        world.gateway.stop();
    }
}

#[test]
fn draining_closes_sessions_and_open_handshakes() {
    for io in BACKENDS {
        let world = World::start(io);
        let mut client = world.open();
        let mut shaking = world.connect();
        shaking.flush();
        let ending = std::thread::spawn(move || {
            assert_eq!(client.frame().close_code(), 1001);
            client.send(&frame::masked(FIN | CLOSE, &1001u16.to_be_bytes()));
            assert_eq!(client.next(), Received::End(End::Fin));
            assert!(client.notified);
        });
        world.gateway.stop();
        ending.join().unwrap();
    }
}

#[test]
fn check_names_what_is_wrong_with_certificates() {
    let authority = Authority::new();
    let good = authority.issue("good", &["localhost"]);
    let other = authority.issue("other", &["localhost"]);
    let expired = authority.issue_expired("expired", &["localhost"]);
    fs::write(authority.path("empty.pem"), "nothing\n").unwrap();
    let check = |certificate: &std::path::Path, key: &std::path::Path, more: &str| {
        let file = config_file(&format!(
            "version = 1\n[[listener]]\nbind = '127.0.0.1:0'\n[listener.tls]\ncertificate_file = {certificate:?}\n\
             key_file = {key:?}\n{more}\n{ROUTES}"
        ));
        let (code, _, errors) = run_to_end(&["check", "-c", file.path().to_str().unwrap()]);
        let name = file.path().display().to_string();
        (code, errors.replace(&name, "t.toml").replace(&authority.path("").display().to_string(), "/"))
    };
    let (code, errors) = check(&good.chain, &good.key, "");
    assert_eq!(code, Some(0), "{errors}");
    assert!(
        errors.contains("t.toml:6:12: the key file's mode 0644 lets others read or change it"),
        "{errors}"
    );
    let missing = authority.path("missing.pem");
    let empty = authority.path("empty.pem");
    for (certificate, key, more, expected) in [
        (&missing, &good.key, "", "t.toml:5:20: /missing.pem: the file does not exist"),
        (&good.chain, &missing, "", "t.toml:6:12: /missing.pem: the file does not exist"),
        (&empty, &good.key, "", "t.toml:5:20: /empty.pem: there is no certificate in it"),
        (&good.key, &good.key, "", "t.toml:5:20: /good.key: there is no certificate in it"),
        (&good.chain, &good.chain, "", "t.toml:6:12: /good.pem: there is no private key in it"),
        (&good.chain, &other.key, "", "t.toml:6:12: /other.key: its key is not that of the certificate"),
        (
            &expired.chain,
            &expired.key,
            "",
            "t.toml:5:20: /expired.pem: its certificate has expired on Mon, 03 Feb 2020 00:00:00 GMT",
        ),
        (
            &good.chain,
            &good.key,
            &*format!("client_ca_file = {empty:?}"),
            "t.toml:7:18: /empty.pem: there is no certificate in it",
        ),
    ] {
        let (code, errors) = check(certificate, key, more);
        assert_eq!(code, Some(78), "{errors}");
        assert!(errors.contains(expected), "{expected}\n{errors}");
    }
}

#[test]
fn a_listener_that_redirects_serves_nothing() {
    for io in BACKENDS {
        let config = format!(
            "version = 1\n[limits]\nhead_timeout = '1s'\n[[listener]]\nbind = '127.0.0.1:0'\n\
             https_redirect = {{ hosts = ['gw.test'], port = 8443 }}\n{ROUTES}"
        );
        let gateway = Gateway::start(&config, io);
        let answer = |head: &[u8]| {
            let mut client = Client::connect(gateway.address());
            client.send(head);
            let response = client.response().expect("a response");
            assert_eq!(client.next(), Received::End(End::Fin), "nothing follows it");
            (response.status, response.field("location").map(str::to_owned))
        };
        let to = |url: &str| (308, Some(url.to_owned()));
        // What is behind the head is not read as another request.
        let get =
            b"GET /echo?a=%20b HTTP/1.1\r\nHost: gw.test:80\r\n\r\nGET / HTTP/1.1\r\nHost: gw.test\r\n\r\n";
        assert_eq!(answer(get), to("https://gw.test:8443/echo?a=%20b"));
        assert_eq!(answer(&request("/echo", "")), to("wss://gw.test:8443/echo"));
        let post = b"POST /no/such/route HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 4\r\n\r\nbody";
        assert_eq!(answer(post), to("https://gw.test:8443/no/such/route"));
        assert_eq!(answer(b"GET / HTTP/1.0\r\nHost: gw.test\r\n\r\n").0, 301);
        for (head, status) in [
            (&b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n"[..], 421),
            (b"GET / HTTP/1.1\r\nHost: gw.test@evil.test\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: gw.test\r\nX: a\rLocation: b\r\n\r\n", 400),
            (b"GET //evil.test/ HTTP/1.1\r\nHost: gw.test\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\n\r\n", 400),
            (b"PRI * HTTP/2.0\r\n\r\n", 505),
        ] {
            assert_eq!(answer(head), (status, None), "{}", String::from_utf8_lossy(head));
        }
        // One that sends no head has the same time as everywhere.
        let mut client = Client::connect(gateway.address());
        client.send(b"GET / HT");
        assert_eq!(client.response().expect("a response").status, 408);
        // From a reload on it is a listener like others, and back.
        let serves = config.replace("https_redirect = { hosts = ['gw.test'], port = 8443 }\n", "");
        assert!(gateway.reload(&serves).contains("configuration taken over"));
        Client::open(gateway.address(), "/echo").exchange(TEXT, b"served");
        assert!(gateway.reload(&config).contains("configuration taken over"));
        assert_eq!(answer(&request("/echo", "")), to("wss://gw.test:8443/echo"));
        gateway.stop();
    }
}

#[test]
fn who_is_sent_to_https_is_counted() {
    for io in BACKENDS {
        let listener = "[[listener]]\nbind = '127.0.0.1:0'\nhttps_redirect = { hosts = ['gw.test'] }\n";
        let scene = Scene::on(io, 1, listener, "[[route]]\npath = '/echo'\necho = {}\n");
        let status = |host: &str| {
            let mut client = Client::connect(scene.gateway.address());
            client.send(format!("GET /echo HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
            client.response().expect("a response").status
        };
        assert_eq!([status("gw.test"), status("evil.test"), status("gw.test")], [308, 421, 308]);
        assert_eq!(scene.metrics().value("tidegate_redirects_total"), 2.0);
        scene.gateway.stop();
    }
}
