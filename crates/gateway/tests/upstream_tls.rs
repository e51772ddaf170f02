//! Upstreams that speak TLS: who is believed, what becomes of those who are not, and what is cut off. On both backends, for clients
//! of `ws://` and of `wss://`.

mod harness;

use std::{
    ffi::OsStr,
    io::Write,
    sync::Arc,
    time::{Duration, Instant},
};

use harness::{
    BACKENDS, PATIENCE,
    certificates::{Authority, Issued},
    client::{Client, End, Received, request},
    frame::{self, BINARY, CLOSE, FIN, TEXT},
    gateway::{Gateway, run_to_end},
    inbox::Incoming,
    scene::Scene,
    secure::Secure,
    upstream::{Connection, Upstream, switching_protocols},
};
use rustls::{ClientConfig, ProtocolVersion};

/// An authority, and a gateway with a plain listener and one for TLS.
struct World {
    authority: Authority,
    client: Arc<ClientConfig>,
}

impl World {
    fn new() -> World {
        let authority = Authority::new();
        World { client: authority.client(), authority }
    }

    /// A configuration with a route at `/p` to these upstreams; `tls`: more keys beside `ca_file`.
    fn config(&self, upstreams: &[&Upstream], proxy: &str, tls: &str) -> String {
        let urls: Vec<String> = upstreams.iter().map(|upstream| format!("{:?}", upstream.url())).collect();
        self.config_of(&urls.join(", "), proxy, &format!("ca_file = {:?}{tls}", self.authority.ca()))
    }

    fn config_of(&self, urls: &str, proxy: &str, tls: &str) -> String {
        let own = self.authority.issue("gateway", &["localhost"]);
        format!(
            "version = 1\n[limits]\nclose_timeout = '1s'\n[drain]\nwindow = '100ms'\n[[listener]]\nbind = '127.0.0.1:0'\n\
             [[listener]]\nbind = '127.0.0.1:0'\ntls = {{ certificate_file = {:?}, key_file = {:?} }}\n\
             [[route]]\npath = '/p'\nproxy = {{ upstreams = [{urls}]{proxy}, tls = {{ {tls} }} }}\n",
            own.chain, own.key
        )
    }

    fn issue(&self) -> Issued {
        self.authority.issue("upstream", &["127.0.0.1"])
    }

    /// An upstream with this certificate.
    fn upstream(&self, own: &Issued, script: impl Fn(Connection) + Send + Sync + 'static) -> Upstream {
        Upstream::start_with(Some(self.authority.server(own, false)), script)
    }

    fn echo(&self) -> Upstream {
        self.upstream(&self.issue(), echo)
    }

    fn open(&self, gateway: &Gateway) -> Secure {
        Secure::open(gateway.addresses()[1], &self.client, "localhost", "/p")
    }

    /// What clients of both kinds are answered: head and body.
    fn answers(&self, gateway: &Gateway) -> [String; 2] {
        let mut plain = Client::connect(gateway.address());
        plain.send(&request("/p", ""));
        let response = plain.response().expect("a response");
        let mut secure = Secure::connect(gateway.addresses()[1], &self.client, "localhost");
        secure.send(&request("/p", ""));
        let head = secure.head().expect("a response");
        assert!(secure.end().is_some(), "a refusal ends the connection");
        [response.head + &String::from_utf8_lossy(&response.body), head]
    }

    /// Both kinds of clients get 502, and the log says why, each time.
    fn is_bad_gateway(&self, gateway: Gateway, why: &str) {
        for answer in self.answers(&gateway) {
            assert!(answer.starts_with("HTTP/1.1 502 "), "{why}: {answer}");
            assert!(!answer.contains("evil"), "{answer}");
        }
        let log = gateway.stop();
        let told = log.iter().filter(|line| line.contains("upstream failed") && line.contains(why));
        // For the address, and not again for the second client, to whom the upstream is one that has failed.
        assert!(told.count() >= 1, "{why}: {log:#?}");
    }
}

fn echo(mut connection: Connection) {
    if connection.upgrade() {
        connection.echo();
    }
}

/// Bytes that compress badly.
fn noise(len: usize) -> Vec<u8> {
    (0..len as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

/// The upstream is never left out for its failures.
const ALWAYS: &str = ", fail_timeout = '0s'";

#[test]
fn messages_of_all_lengths_go_both_ways_and_so_does_the_close() {
    for io in BACKENDS {
        for deflate in ["edge", "pass", "off"] {
            let world = World::new();
            let upstream = world.echo();
            let config = world.config(&[&upstream], &format!(", deflate = {deflate:?}"), "");
            let gateway = Gateway::start(&config, io);
            for len in [0, 1, 125, 126, 16_384, 65_536, 1 << 20] {
                let mut client = Client::open(gateway.address(), "/p");
                client.exchange(BINARY, &noise(len));
                client.exchange(TEXT, "Grüße".as_bytes());
                client.close(1000);
            }
            let mut client = world.open(&gateway);
            for len in [0, 126, 16_385, 300_000, 1 << 20] {
                client.exchange(BINARY, &noise(len));
            }
            client.close();
            assert!(gateway.stop().iter().all(|line| !line.contains("upstream failed")));
            assert_eq!(upstream.failures(), [""; 0]);
        }
    }
}

#[test]
fn what_the_edge_compresses_the_upstream_gets_plain() {
    for io in BACKENDS {
        let world = World::new();
        let upstream = world.echo();
        let gateway = Gateway::start(&world.config(&[&upstream], "", ""), io);
        let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
        let (mut client, response) = Client::open_with(gateway.address(), "/p", offer);
        assert!(response.field("sec-websocket-extensions").is_some(), "{}", response.head);
        for len in [3, 20_000, 500_000] {
            let text = "tide ".repeat(len / 5);
            client
                .send(&frame::masked(FIN | frame::RSV1 | TEXT, &harness::deflate::compress(text.as_bytes())));
            let frame = client.frame();
            let plain = match frame.rsv {
                4 => harness::deflate::inflate(&frame.payload),
                // What would not get shorter.
                _ => frame.payload,
            };
            assert!(plain == text.as_bytes());
            assert!(frame.rsv == 4 || len < 10);
        }
        client.close(1000);
        gateway.stop();
        assert_eq!(upstream.failures(), [""; 0]);
    }
}

#[test]
fn both_versions_are_spoken_and_the_configured_name_is_sent_and_http_offered() {
    for io in BACKENDS {
        let world = World::new();
        let own = world.authority.issue("named", &["up.test"]);
        let (seen, heard) = std::sync::mpsc::channel();
        let upstream = world.upstream(&own, move |mut connection| {
            if connection.upgrade() {
                let tls = &connection.secure.as_ref().expect("TLS").connection;
                let alpn = tls.alpn_protocol().map(<[u8]>::to_vec);
                let told = (tls.server_name().map(str::to_owned), alpn, tls.protocol_version());
                seen.send(told).expect("the test goes on");
                connection.echo();
            }
        });
        let gateway = Gateway::start(&world.config(&[&upstream], "", ", server_name = 'UP.test'"), io);
        Client::open(gateway.address(), "/p").exchange(TEXT, b"over TLS");
        let expected =
            (Some("up.test".to_owned()), Some(b"http/1.1".to_vec()), Some(ProtocolVersion::TLSv1_3));
        assert_eq!(heard.recv_timeout(PATIENCE).expect("a session"), expected);
        gateway.stop();
    }
}

/// Row S18 of the table of bad inputs.
#[test]
fn what_comes_outside_tls_is_never_read_as_an_answer() {
    const EVIL: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    for io in BACKENDS {
        let world = World::new();
        // Before a ServerHello, before the gateway has sent a byte.
        let first = world.upstream(&world.issue(), |mut connection| {
            let _ = connection.stream().write_all(EVIL);
            connection.end_within(PATIENCE);
        });
        let gateway = Gateway::start(&world.config(&[&first], ALWAYS, ""), io);
        world.is_bad_gateway(gateway, "what came is not TLS, or breaks it");

        // Behind the handshake, where the answer should stand.
        let behind = world.upstream(&world.issue(), |mut connection| {
            if connection.shake() {
                let _ = connection.stream().write_all(EVIL);
                connection.end_within(PATIENCE);
            }
        });
        let gateway = Gateway::start(&world.config(&[&behind], ALWAYS, ""), io);
        world.is_bad_gateway(gateway, "what came is not TLS, or breaks it");

        // The right answer to the very request, but for TLS.
        let right = world.upstream(&world.issue(), |mut connection| {
            if let Some(head) = connection.head() {
                let _ = connection.stream().write_all(switching_protocols(&head, "").as_bytes());
                connection.end_within(PATIENCE);
            }
        });
        let gateway = Gateway::start(&world.config(&[&right], ALWAYS, ""), io);
        world.is_bad_gateway(gateway, "what came is not TLS, or breaks it");
    }
}

#[test]
fn what_comes_outside_tls_in_a_session_ends_it_as_a_fault_of_the_upstream() {
    for io in BACKENDS {
        let world = World::new();
        let upstream = world.upstream(&world.issue(), |mut connection| {
            if connection.upgrade() {
                let _ = connection.next_within(PATIENCE);
                let _ = connection.stream().write_all(&frame::plain(FIN | TEXT, b"evil"));
                connection.end_within(PATIENCE);
            }
        });
        let gateway = Gateway::start(&world.config(&[&upstream], "", ""), io);
        let mut client = Client::open(gateway.address(), "/p");
        client.send(&frame::masked(FIN | TEXT, b"go"));
        let frame = client.frame();
        assert_eq!((frame.opcode, frame.close_code()), (CLOSE, 1011));
        let mut client = world.open(&gateway);
        client.send(&frame::masked(FIN | TEXT, b"go"));
        assert_eq!(client.frame().close_code(), 1011);
        gateway
            .wait_for_log("the fault", |line| line.contains("upstream failed") && line.contains("not TLS"));
        gateway.stop();
    }
}

/// Row S19, and other certificates that are not good.
#[test]
fn an_upstream_is_verified_by_the_configured_name_and_its_authority() {
    let world = World::new();
    let names = ["127.0.0.1"];
    // The client asks for `gw.test`, and the upstream would be that.
    let other = world.authority.issue("other", &["gw.test", "up.test", "127.0.0.2"]);
    let expired = world.authority.issue_expired("expired", &names);
    let alone = world.authority.issue_alone("alone", &names);
    let foreign = Authority::new();
    let issued = foreign.issue("foreign", &names);
    for io in BACKENDS {
        for (own, why) in [
            (&other, "the peer's certificate is for another name"),
            (&expired, "the peer's certificate has expired"),
            (&alone, "the peer's certificate is of an issuer that is not trusted"),
            (&issued, "the peer's certificate is of an issuer that is not trusted"),
        ] {
            let (told, alerts) = std::sync::mpsc::channel();
            let upstream = world.upstream(own, move |mut connection| {
                assert!(!connection.upgrade(), "a request for somebody who was not believed");
                let fault = connection.secure.and_then(|secure| secure.fault);
                told.send(fault).expect("the test goes on");
            });
            let gateway = Gateway::start(&world.config(&[&upstream], ALWAYS, ""), io);
            world.is_bad_gateway(gateway, why);
            let fault = alerts.recv_timeout(PATIENCE).expect("a connection");
            assert!(matches!(fault, Some(rustls::Error::AlertReceived(_))), "{why}: {fault:?}");
            assert_eq!(upstream.failures(), [""; 0]);
        }
        // The same certificate under the name that it is for, which is configured.
        let upstream = world.upstream(&other, echo);
        let gateway = Gateway::start(&world.config(&[&upstream], "", ", server_name = 'up.test'"), io);
        Client::open(gateway.address(), "/p").exchange(TEXT, b"it is who it should be");
        gateway.stop();
    }
}

#[test]
fn another_upstream_is_tried_where_one_is_not_believed() {
    for io in BACKENDS {
        let world = World::new();
        let bad = world.upstream(&world.authority.issue("other", &["other.test"]), echo);
        let good = world.echo();
        let gateway = Gateway::start(&world.config(&[&bad, &good], ALWAYS, ""), io);
        for _ in 0..3 {
            Client::open(gateway.address(), "/p").exchange(TEXT, b"served");
            world.open(&gateway).exchange(TEXT, b"served");
        }
        assert_eq!(good.accepted(), 6);
        assert!(bad.accepted() >= 1, "it had its turn");
        gateway.stop();
    }
}

#[test]
fn a_handshake_that_does_not_come_about_has_its_time() {
    for io in BACKENDS {
        let world = World::new();
        let silent = Upstream::start(|mut connection| {
            connection.end_within(PATIENCE);
        });
        let url = format!("{:?}", silent.url().replace("ws://", "wss://"));
        let tls = format!("ca_file = {:?}", world.authority.ca());
        let config = world.config_of(&url, &format!("{ALWAYS}, handshake_timeout = '300ms'"), &tls);
        let begun = Instant::now();
        world.is_bad_gateway(Gateway::start(&config, io), "no handshake of TLS in time");
        assert!(begun.elapsed() >= Duration::from_millis(600), "both clients waited for it");

        // One that hangs up in the middle.
        let hasty = Upstream::start(|mut connection| {
            connection.receive_within(PATIENCE);
        });
        let url = format!("{:?}", hasty.url().replace("ws://", "wss://"));
        let gateway = Gateway::start(&world.config_of(&url, ALWAYS, &tls), io);
        world.is_bad_gateway(gateway, "closed in the handshake of TLS");
    }
}

#[test]
fn a_stream_without_close_notify_was_cut_off() {
    for io in BACKENDS {
        let world = World::new();
        // What comes behind a session's last whole frame, and whether the client can be told.
        for (last, is_told) in [(frame::plain(FIN | TEXT, b"last"), true), (cut_frame(), false)] {
            for in_order in [false, true] {
                let last = last.clone();
                let upstream = world.upstream(&world.issue(), move |mut connection| {
                    if connection.upgrade() {
                        // The client has its 101 by then.
                        let _ = connection.next_within(PATIENCE);
                        connection.send(&last);
                        match in_order {
                            true => connection.finish(),
                            false => drop(connection.stream().shutdown(std::net::Shutdown::Write)),
                        }
                        connection.end_within(PATIENCE);
                    }
                });
                let gateway = Gateway::start(&world.config(&[&upstream], "", ""), io);
                let mut client = Client::open(gateway.address(), "/p");
                client.send(&frame::masked(FIN | TEXT, b"go"));
                if is_told {
                    assert_eq!(client.message(TEXT), b"last");
                    assert_eq!(client.frame().close_code(), 1011);
                } else {
                    assert_eq!(client.end_within(PATIENCE), Some(End::Reset), "in order: {in_order}");
                }
                gateway.wait_for_log("the end", |line| line.contains("1006"));
                let mut client = world.open(&gateway);
                client.send(&frame::masked(FIN | TEXT, b"go"));
                if is_told {
                    assert_eq!(client.frame().payload, b"last");
                    assert_eq!(client.frame().close_code(), 1011);
                } else {
                    assert!(matches!(client.next(), Received::End(_)));
                    assert!(!client.notified, "a message that was cut off must not look complete");
                }
                gateway.stop();
            }
        }
    }
}

/// A frame of which the end is missing.
fn cut_frame() -> Vec<u8> {
    let mut frame = frame::plain(FIN | BINARY, &[7; 5_000]);
    frame.truncate(3_000);
    frame
}

/// RFC 9112 §9.8: a body that ends with the connection is whole only where its end was told.
#[test]
fn a_refusal_that_ends_without_close_notify_is_not_relayed() {
    for io in BACKENDS {
        let world = World::new();
        for in_order in [true, false] {
            let upstream = world.upstream(&world.issue(), move |mut connection| {
                if connection.head().is_some() {
                    connection.send(b"HTTP/1.1 403 Forbidden\r\n\r\nnot for you");
                    match in_order {
                        true => connection.finish(),
                        false => drop(connection.stream().shutdown(std::net::Shutdown::Write)),
                    }
                    connection.end_within(PATIENCE);
                }
            });
            let gateway = Gateway::start(&world.config(&[&upstream], ALWAYS, ""), io);
            if in_order {
                let mut client = Client::connect(gateway.address());
                client.send(&request("/p", ""));
                assert_eq!(client.response().expect("a response").status, 403);
                while client.read_more(Instant::now() + PATIENCE) {}
                assert_eq!(client.inbox().bytes, b"not for you");
                gateway.stop();
            } else {
                world.is_bad_gateway(gateway, "its refusal was cut off");
            }
        }
    }
}

#[test]
fn upstreams_that_want_a_certificate_get_the_configured_one() {
    for io in BACKENDS {
        let world = World::new();
        let (own, gateway_own) = (world.issue(), world.authority.issue("as-client", &["gateway.test"]));
        let upstream = Upstream::start_with(Some(world.authority.server(&own, true)), echo);
        let pair = format!(", certificate_file = {:?}, key_file = {:?}", gateway_own.chain, gateway_own.key);
        let gateway = Gateway::start(&world.config(&[&upstream], "", &pair), io);
        Client::open(gateway.address(), "/p").exchange(TEXT, b"known");
        world.open(&gateway).exchange(TEXT, b"known");
        gateway.stop();
        let gateway = Gateway::start(&world.config(&[&upstream], ALWAYS, ""), io);
        world.is_bad_gateway(gateway, "the peer wants a certificate (alert)");
    }
}

#[test]
fn without_a_ca_file_the_system_says_whom_to_trust() {
    for io in BACKENDS {
        let world = World::new();
        let upstream = world.echo();
        let config = world.config_of(&format!("{:?}", upstream.url()), "", "min_version = '1.3'");
        let arguments = ["--io", io, "--shards", "1"];
        let start = |roots: &OsStr| Gateway::start_in(&config, &arguments, &[("SSL_CERT_FILE", roots)]);
        let gateway = start(world.authority.ca().as_os_str());
        Client::open(gateway.address(), "/p").exchange(TEXT, b"trusted");
        gateway.stop();
        let other = Authority::new();
        world.is_bad_gateway(start(other.ca().as_os_str()), "is of an issuer that is not trusted");
    }
}

#[test]
fn names_are_resolved_and_all_their_addresses_verified_as_that_name() {
    for io in BACKENDS {
        let world = World::new();
        let own = world.authority.issue("local", &["localhost"]);
        let upstream = world.upstream(&own, echo);
        let url = format!("{:?}", upstream.url().replace("127.0.0.1", "localhost"));
        let config = world.config_of(&url, "", &format!("ca_file = {:?}", world.authority.ca()));
        let gateway = Gateway::start(&config, io);
        Client::open(gateway.address(), "/p").exchange(TEXT, b"by name");
        gateway.stop();
    }
}

#[test]
fn sessions_go_on_over_a_reload_unless_others_are_trusted() {
    for io in BACKENDS {
        let world = World::new();
        let own = world.authority.issue("both", &["127.0.0.1", "up.test"]);
        let upstream = world.upstream(&own, echo);
        let as_client = world.authority.issue("as-client", &["gateway.test"]);
        let first = world.config(&[&upstream], "", "");
        let gateway = Gateway::start(&first, io);
        let mut client = Client::open(gateway.address(), "/p");
        client.exchange(TEXT, b"before");
        // The gateway's own certificate does not say whom it trusts.
        let pair = format!(", certificate_file = {:?}, key_file = {:?}", as_client.chain, as_client.key);
        for config in [first.clone(), world.config(&[&upstream], ", retries = 1", &pair)] {
            assert!(gateway.reload(&config).contains("configuration taken over"));
            client.exchange(TEXT, b"still here");
        }
        let named = || world.config(&[&upstream], "", ", server_name = 'up.test'");
        // Another name; then the same file with one more authority in it.
        for more in [None, Some(Authority::new())] {
            if let Some(more) = more {
                let all = [world.authority.ca(), more.ca()].map(|file| std::fs::read(file).expect("read it"));
                std::fs::write(world.authority.ca(), all.concat()).expect("write it");
            }
            assert!(gateway.reload(&named()).contains("configuration taken over"));
            let frame = client.frame();
            assert_eq!((frame.opcode, frame.close_code()), (CLOSE, 1012), "{frame:?}");
            client = Client::open(gateway.address(), "/p");
            client.exchange(TEXT, b"after");
        }
        // What cannot be used changes nothing.
        let told = gateway.reload(&named().replace("ca.pem", "gateway.key"));
        assert!(told.contains("not taken over") && told.contains("gateway.key"), "{told}");
        client.exchange(TEXT, b"still here");
        gateway.stop();
    }
}

#[test]
fn check_judges_the_files_of_upstreams() {
    let world = World::new();
    let upstream = world.echo();
    let other = world.authority.issue("other", &["gateway.test"]);
    let own = world.authority.issue("as-client", &["gateway.test"]);
    let pair = |chain, key| format!(", certificate_file = {chain:?}, key_file = {key:?}");
    for (tls, code, told) in [
        (String::new(), 0, ""),
        (pair(&own.chain, &own.key), 0, ""),
        (pair(&own.chain, &other.key), 78, "its key is not that of the certificate"),
    ] {
        let file = harness::gateway::config_file(&world.config(&[&upstream], "", &tls));
        let (got, _, errors) = run_to_end(&[OsStr::new("check"), "-c".as_ref(), file.path().as_os_str()]);
        assert!(got == Some(code) && errors.contains(told), "{tls}: {got:?} {errors}");
    }
}

/// More dials at once than a turn has handshakes for: all of them come through.
#[test]
fn many_sessions_at_once_find_their_upstream() {
    for io in BACKENDS {
        let world = World::new();
        let upstream = world.echo();
        let gateway = Gateway::start(&world.config(&[&upstream], "", ""), io);
        let mut clients: Vec<Client> = (0..100)
            .map(|_| {
                let mut client = Client::connect(gateway.address());
                client.send(&request("/p", ""));
                client
            })
            .collect();
        for client in &mut clients {
            assert_eq!(client.response().expect("a response").status, 101);
        }
        for client in &mut clients {
            client.exchange(TEXT, b"here");
        }
        drop(clients);
        gateway.stop();
        assert_eq!(upstream.failures(), [""; 0]);
    }
}

#[test]
fn handshakes_with_upstreams_are_counted_by_their_result() {
    for io in BACKENDS {
        let world = World::new();
        let (good, bad) =
            (world.echo(), world.upstream(&world.authority.issue("other", &["other.test"]), echo));
        let route = |path: &str, upstream: &Upstream| {
            let (url, authority) = (upstream.url(), world.authority.ca());
            format!(
                "[[route]]\npath = '{path}'\nproxy = {{ upstreams = ['{url}'], tls = {{ ca_file = {authority:?} }} }}\n"
            )
        };
        let scene = Scene::on(
            io,
            1,
            "[limits]\nclose_timeout = '100ms'",
            &(route("/good", &good) + &route("/bad", &bad)),
        );
        let counted = || {
            let metrics = scene.metrics();
            ["full", "resumed", "failed"].map(|result| {
                metrics.value(&format!("tidegate_upstream_tls_handshakes_total{{result=\"{result}\"}}"))
            })
        };
        assert_eq!(counted(), [0.0; 3]);
        for path in ["/good", "/good"] {
            Client::open(scene.gateway.address(), path).exchange(TEXT, b"served");
        }
        let mut refused = Client::connect(scene.gateway.address());
        refused.send(&request("/bad", ""));
        assert_eq!(refused.response().expect("a response").status, 502);
        assert_eq!(counted(), [1.0, 1.0, 1.0], "the second resumes the first");
        scene.gateway.stop();
    }
}
