//! Many peers that behave badly at once beside some that do not: those that do not read, those that reset, and those whose handshakes
//! never end. On both backends.

mod harness;

use std::{
    io::{ErrorKind, Write},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::ClientConfig;

use crate::harness::{
    BACKENDS, PATIENCE, affordable,
    certificates::Authority,
    client::{Client, request},
    eventually,
    frame::{self, BINARY, CLOSE, FIN, PING, TEXT},
    scene::Scene,
    secure::Secure,
    upstream::Upstream,
};

/// A second listener, over TLS, and an echo here and behind an upstream.
fn routes(authority: &Authority, upstream: &Upstream) -> String {
    format!(
        "[[listener]]\nbind = '127.0.0.1:0'\n[listener.tls]\n{}[[route]]\npath = '/echo'\necho = {{}}\n\
         [[route]]\npath = '/up'\nproxy = {{ upstreams = ['{}'] }}\n",
        authority.issue("localhost", &["localhost"]).setting(),
        upstream.url()
    )
}

#[test]
fn one_in_ten_that_does_not_read_holds_nobody_up_and_loses_nothing() {
    const READERS: usize = 27;
    const SILENT: usize = 3;
    const MESSAGES: usize = 120;
    const BYTES: usize = 64 << 10;
    // Beside what may wait for each: buffers, and what the allocator keeps in hand.
    const BESIDES_KIB: u64 = 24 << 10;
    for io in BACKENDS {
        let upstream = Upstream::echo();
        let scene = Scene::on(
            io,
            1,
            "[limits]\noutbox_soft = '64KiB'\noutbox_hard = '512KiB'\nreceive_buffers = 64\nping_interval = '0s'\n\
             write_timeout = '600s'",
            &format!(
                "[[route]]\npath = '/echo'\necho = {{}}\n[[route]]\npath = '/up'\nproxy = {{ upstreams = ['{}'] }}\n",
                upstream.url()
            ),
        );
        let address = scene.gateway.address();
        for path in ["/echo", "/up"] {
            let mut readers: Vec<Client> = (0..READERS).map(|_| Client::open(address, path)).collect();
            readers.iter_mut().for_each(|client| client.exchange(TEXT, b"before"));
            let before_kib = scene.gateway.heap_kib();
            let mut silent: Vec<Client> = (0..SILENT).map(|_| Client::open(address, path)).collect();
            let message = |n: usize| vec![n as u8; BYTES];
            let pauses = scene.metrics().value("tidegate_slow_consumer_actions_total{action=\"pause\"}");
            std::thread::scope(|scope| {
                for client in &silent {
                    // With its own receive buffer as it is: of one that shrinks while bytes are on their way Linux may
                    // drop every segment, the acknowledgements in them too, and the connection stands still for good.
                    let mut stream = client.stream().try_clone().expect("a descriptor");
                    scope.spawn(move || {
                        for n in 0..MESSAGES {
                            let frame = frame::masked(FIN | BINARY, &message(n));
                            stream.write_all(&frame).expect("it is taken at last");
                        }
                    });
                }
                eventually("pauses", || {
                    let now = scene.metrics().value("tidegate_slow_consumer_actions_total{action=\"pause\"}");
                    (now >= pauses + SILENT as f64).then_some(())
                });
                for _ in 0..20 {
                    readers.iter_mut().for_each(|client| client.exchange(BINARY, &[7; 8 << 10]));
                }
                let waiting = scene.metrics().value("tidegate_buffered_bytes");
                assert!(
                    waiting > 0.0 && waiting < (SILENT * 2 * (512 << 10)) as f64,
                    "{io} {path}: {waiting}"
                );
                let grown_kib = scene.gateway.heap_kib().saturating_sub(before_kib);
                assert!(grown_kib < BESIDES_KIB, "{io} {path}: {grown_kib} KiB more");
                // At last they read: each message, in order.
                for client in &mut silent {
                    for n in 0..MESSAGES {
                        assert!(client.message(BINARY) == message(n), "{io} {path}: message {n}");
                    }
                }
            });
            readers.iter_mut().chain(&mut silent).for_each(|client| client.exchange(TEXT, b"behind"));
        }
        scene.gateway.stop();
    }
}

/// How far a connection comes before it is reset.
const STAGES: usize = 11;

/// One connection that ends with a reset.
fn reset_at(stage: usize, plain: SocketAddr, sealed: SocketAddr, config: &Arc<ClientConfig>) {
    let whole = frame::masked(FIN | BINARY, &[7; 3_000]);
    let mut client = Client::connect(if stage == 8 { sealed } else { plain });
    match stage {
        0 => {}
        1 => client.send(b"GET /echo HTTP/1.1\r\nHost: gw"),
        2 => client.send(&request("/echo", "")),
        6 => client.send(&request("/up", "")),
        // The beginning of a handshake of TLS: a record of 200 bytes is announced.
        8 => client.send(&[22, 3, 1, 0, 200, 1, 0]),
        9 | 10 => {
            let path = if stage == 9 { "/echo" } else { "/up" };
            let mut secure = Secure::open(sealed, config, "localhost", path);
            secure.send(&whole[..2_000]);
            return Client::from_stream(secure.stream).reset();
        }
        stage => {
            client.send(&request(if stage == 7 { "/up" } else { "/echo" }, ""));
            assert_eq!(client.response().expect("an answer").status, 101);
            match stage {
                3 => {}
                4 | 7 => client.send(&whole[..2_000]),
                _ => client.send(&[whole, frame::masked(FIN | CLOSE, &1000_u16.to_be_bytes())].concat()),
            }
        }
    }
    client.reset();
}

/// Its session goes on; it may have been pinged meanwhile.
fn is_here(client: &mut Client) {
    client.send(&frame::masked(FIN | TEXT, b"still here"));
    let answer = std::iter::repeat_with(|| client.frame()).find(|frame| frame.opcode != PING);
    assert!(answer.is_some_and(|frame| frame.opcode == TEXT && frame.payload == b"still here"));
}

#[test]
fn behind_a_storm_of_resets_slots_descriptors_and_memory_are_as_before() {
    const WARMUP: usize = 40;
    const WAVE: usize = 120;
    const SLOTS: usize = 64;
    const GROWTH_KIB: u64 = 6 << 10;
    for io in BACKENDS {
        let (authority, upstream) = (Authority::new(), Upstream::echo());
        let config = authority.client();
        // Nothing ends by a time of its own: what is left shows. But of bytes and a reset right behind them Linux's multishot
        // receive may only tell the bytes (docs/ARCHITECTURE.md): on io_uring such peers are found gone as silent ones are.
        let times = match io {
            "uring" => "head_timeout = '6s'\nping_interval = '6s'\npong_timeout = '300s'",
            _ => "head_timeout = '300s'\nping_interval = '0s'",
        };
        let limits = format!("[limits]\nmax_sessions = {SLOTS}\n{times}");
        let scene = Scene::on(io, 1, &limits, &routes(&authority, &upstream));
        let (plain, sealed) = (scene.gateway.addresses()[0], scene.gateway.addresses()[1]);
        let mut session = Client::open(plain, "/echo");
        // What is left: the one session above, and the connection that asks.
        let mut storm = |waves: usize| {
            for wave in 0..waves {
                (0..STAGES).for_each(|stage| reset_at(stage, plain, sealed, &config));
                if wave % 10 == 0 {
                    is_here(&mut session);
                }
            }
            let late = Instant::now() + PATIENCE / 2;
            eventually("the end of all of them", || {
                let metrics = scene.metrics();
                assert!(Instant::now() < late, "{io}: {}", scene.run(&["sessions", "list", "--json"]).1);
                let legs =
                    format!("tidegate_upstream_sessions{{route=\"/up\",upstream=\"{}\"}}", upstream.url());
                let left = metrics.value("tidegate_connections") + metrics.value(&legs);
                (left == 1.0).then_some(())
            });
        };
        storm(WARMUP);
        let (descriptors, heap_kib) = (scene.gateway.descriptors(), scene.gateway.heap_kib());
        storm(WAVE);
        eventually("descriptors as before", || (scene.gateway.descriptors() <= descriptors).then_some(()));
        let grown_kib = scene.gateway.heap_kib().saturating_sub(heap_kib);
        assert!(grown_kib < GROWTH_KIB, "{io}: {grown_kib} KiB more than before");
        let buffered = scene.metrics().value("tidegate_buffered_bytes");
        assert_eq!(buffered, 0.0, "{io}");
        // All slots are free again, and no more than there were.
        let mut open: Vec<Client> = (1..SLOTS).map(|_| Client::open(plain, "/echo")).collect();
        let mut refused = Client::connect(plain);
        refused.send(&request("/echo", ""));
        assert_eq!(refused.response().expect("an answer").status, 503, "{io}");
        open.iter_mut().for_each(|client| client.exchange(TEXT, b"new"));
        is_here(&mut session);
        drop((open, session));
        scene.gateway.stop();
    }
}

/// A handshake that goes on for ever, a byte at a time.
struct Slow {
    client: Client,
    begun: Instant,
    bytes: Vec<u8>,
    sent: usize,
}

impl Slow {
    fn begin(address: SocketAddr, bytes: Vec<u8>) -> Slow {
        // The gateway's time may begin before `connect` has come back.
        let begun = Instant::now();
        let client = Client::connect(address);
        client.stream().set_nonblocking(true).expect("a socket");
        Slow { client, begun, bytes, sent: 0 }
    }

    /// Another byte; whether the gateway still has the connection.
    fn go_on(&mut self) -> bool {
        match self.client.stream().write(&self.bytes[self.sent..=self.sent]) {
            Ok(sent) => self.sent = (self.sent + sent).min(self.bytes.len() - 2),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return false,
        }
        let mut answer = [0; 12];
        match self.client.stream().peek(&mut answer) {
            Ok(0) => false,
            Ok(_) => {
                // Over TLS it is an alert, or nothing.
                assert!(answer.starts_with(b"HTTP/1.1 408") || answer[0] == 21, "{answer:?}");
                false
            }
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        }
    }
}

#[test]
fn beside_thousands_of_slow_handshakes_others_are_let_in_and_those_end_in_time() {
    const HEAD_TIMEOUT: Duration = Duration::from_secs(12);
    let count = affordable(5_000);
    for io in BACKENDS {
        let (authority, upstream) = (Authority::new(), Upstream::echo());
        let config = authority.client();
        let limits = format!("[limits]\nmax_sessions = {}\nhead_timeout = '12s'", count + 200);
        let scene = Scene::with(io, &limits, &routes(&authority, &upstream));
        let (plain, sealed) = (scene.gateway.addresses()[0], scene.gateway.addresses()[1]);
        let head = [request("/echo", "X-Slow: ").as_slice(), &[b'x'; 4_000]].concat();
        let head: Vec<u8> = head.iter().copied().filter(|byte| *byte != b'\r' && *byte != b'\n').collect();
        // A hello of 4,000 bytes, of which the beginning is right.
        let hello = [&[22, 3, 1, 15, 160, 1, 0, 15, 156, 3, 3][..], &[7; 4_000]].concat();
        let mut slow: Vec<Slow> = (0..count)
            .map(|place| match place % 2 {
                0 => Slow::begin(plain, head.clone()),
                _ => Slow::begin(sealed, hello.clone()),
            })
            .collect();
        let admitted = || {
            Client::open(plain, "/echo").exchange(TEXT, b"at once");
            Client::open(plain, "/up").exchange(TEXT, b"at once");
            Secure::open(sealed, &config, "localhost", "/echo").exchange(TEXT, b"at once");
        };
        let mut most_at_once = 0;
        let mut shortest = PATIENCE;
        let begun = Instant::now();
        while !slow.is_empty() {
            assert!(begun.elapsed() < PATIENCE + HEAD_TIMEOUT, "{io}: {} never ended", slow.len());
            most_at_once = most_at_once.max(slow.len());
            slow.retain_mut(|one| {
                let goes_on = one.go_on();
                if !goes_on {
                    shortest = shortest.min(one.begun.elapsed());
                }
                goes_on
            });
            admitted();
        }
        // The gateway's time begins when it accepts, which is behind the connection's beginning.
        assert!(
            shortest >= HEAD_TIMEOUT - Duration::from_millis(100),
            "{io}: one has ended after {shortest:?}"
        );
        assert!(most_at_once >= count * 9 / 10, "{io}: {most_at_once} at once");
        eventually("their slots", || (scene.metrics().value("tidegate_connections") == 0.0).then_some(()));
        scene.gateway.stop();
    }
}
