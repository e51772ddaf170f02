//! Rows T: what happens below the messages.

use std::{
    panic::resume_unwind,
    time::{Duration, Instant},
};

use crate::{
    Company, Row,
    harness::{
        client::{Client, End},
        frame::{BINARY, FIN, PING, header, masked},
    },
    reaction::{Due, Observed, Reaction, react, read_close, read_response, respond_to},
    world::{CLOSE_TIMEOUT, HEAD_TIMEOUT, Req, World},
};

pub(crate) const ROWS: &[Row] = &[
    ("T01", Company::Alone, t01_silence),
    ("T02", Company::Any, t02_a_byte_now_and_then),
    ("T04", Company::Any, t04_reset_inside_a_frame),
    ("T05", Company::Any, t05_fin_without_close),
    ("T06", Company::Any, t06_heads_in_pieces),
    ("T08", Company::Alone, t08_zero_window),
    ("T09", Company::Any, t09_bad_proxy_lines),
    ("T10", Company::Any, t10_bad_proxy_lengths),
    ("T11", Company::Any, t11_proxy_protocol),
];

/// How much later than a deadline its effect may be seen on a loaded machine.
const SLACK: Duration = Duration::from_secs(4);

fn assert_due(began: Instant, after: Duration) {
    let took = began.elapsed();
    assert!(took + Duration::from_millis(50) >= after, "too early: {took:?} of {after:?}");
    assert!(took <= after + SLACK, "too late: {took:?}, due after {after:?}");
}

/// What ends a connection whose head did not come: a 408, or just the end.
fn end_of_head(client: &mut Client, variant: &str) -> Observed {
    let peer = client.local();
    match read_response(client) {
        Ok((_, reaction)) => Observed::new(variant, peer, reaction),
        Err(end) => Observed::new(variant, peer, Reaction::Tcp(end)),
    }
}

/// So many that a KiB of each is more than what the allocator and those who go on beside them take now and then.
const SILENT: usize = 4000;

fn t01_silence(world: &World) -> Vec<Observed> {
    let before_kib = world.gateway().heap_kib();
    let began = Instant::now();
    let mut clients: Vec<_> = (0..SILENT).map(|_| Client::connect(world.address())).collect();
    let mut most_kib = 0;
    let mut seen = Vec::with_capacity(SILENT);
    for (n, client) in clients.iter_mut().enumerate() {
        // The first of them waits out the deadline of all, so that all are there for one of the first looks.
        if n % 100 == 0 {
            most_kib = world.gateway().heap_kib().max(most_kib);
        }
        // Nobody needs thousands of lines about peers that never said anything.
        seen.push(end_of_head(client, "silent").with_due(Due::Silence));
        if n == 0 {
            assert_due(began, HEAD_TIMEOUT);
        }
    }
    // At most 1 KiB of heap each, and 4 MiB for all that goes on beside them.
    let grown_kib = most_kib.saturating_sub(before_kib);
    assert!(grown_kib < SILENT as u64 + 4096, "{grown_kib} KiB more");
    seen
}

fn t02_a_byte_now_and_then(world: &World) -> Vec<Observed> {
    let head = Req::new().bytes();
    let began = Instant::now();
    let mut client = Client::connect(world.address());
    // Each byte comes well before the deadline; only the whole head does not.
    for byte in head.chunks(1) {
        if began.elapsed() > HEAD_TIMEOUT + SLACK || client.try_send(byte).is_err() {
            break;
        }
        if client.end_or_data_within(HEAD_TIMEOUT / 8) {
            break;
        }
    }
    assert_due(began, HEAD_TIMEOUT);
    vec![end_of_head(&mut client, "a byte each eighth of the time")]
}

fn t04_reset_inside_a_frame(world: &World) -> Vec<Observed> {
    let half = [header(FIN | BINARY, 64 << 10, Some([1, 2, 3, 4])), vec![0; 32 << 10]].concat();
    ["/ws", "/up/T04"]
        .into_iter()
        .map(|path| {
            let mut client = Client::open(world.address(), path);
            let peer = client.local();
            client.send(&half);
            if path == "/up/T04" {
                // The upstream has got what came so far: cut-through.
                world.scripts().wait_for("T04", "bytes of the frame have come");
            }
            client.reset();
            if path == "/up/T04" {
                world.scripts().wait_for("T04", "the rest never came, and the leg was aborted");
            }
            Observed::new(path, peer, Reaction::LogOnly(1006))
        })
        .collect()
}

fn t05_fin_without_close(world: &World) -> Vec<Observed> {
    ["/ws", "/up/echo"]
        .into_iter()
        .map(|path| {
            let mut client = Client::open(world.address(), path);
            let peer = client.local();
            let began = Instant::now();
            client.finish();
            let end = client.end_within(CLOSE_TIMEOUT + SLACK).expect("an end in time");
            assert!(began.elapsed() <= CLOSE_TIMEOUT + SLACK);
            Observed::new(path, peer, Reaction::Tcp(end)).with_due(Due::Number(1006))
        })
        .collect()
}

fn t06_heads_in_pieces(world: &World) -> Vec<Observed> {
    let head = Req::new().bytes();
    let mut seen: Vec<_> = (1..head.len())
        .map(|at| {
            let mut client = Client::connect(world.address());
            let peer = client.local();
            client.send(&head[..at]);
            std::thread::sleep(Duration::from_millis(1));
            client.send(&head[at..]);
            let (_, reaction) = read_response(&mut client).expect("a response");
            client.exchange(BINARY, b"and it works");
            Observed::new(format!("split at {at}"), peer, reaction)
        })
        .collect();
    let mut client = Client::connect(world.address());
    client.send_byte_by_byte(&head);
    let (_, reaction) = read_response(&mut client).expect("a response");
    seen.push(Observed::new("byte by byte", client.local(), reaction));
    seen
}

fn t08_zero_window(world: &World) -> Vec<Observed> {
    let memory = world.gateway().resident_kib();
    let message = masked(FIN | BINARY, &vec![7; 256 << 10]);
    // An echo's peer and a proxied one's: both are sent far more than they take.
    let mut echo = Client::open(world.address(), "/ws");
    echo.stream().set_write_timeout(Some(Duration::from_millis(300))).expect("a time-out");
    while echo.try_send(&message).is_ok() {}
    let pushed = Client::open(world.address(), "/pushed");
    world.scripts().wait_for("pushed", "the gateway takes no more");
    let grown = world.gateway().resident_kib().saturating_sub(memory);
    assert!(grown < 24 * 1024, "two sessions with 4 MiB each at most, but {grown} KiB more");

    // Both at the same time: who takes nothing does not get its last bytes for ever.
    let ends = |variant: &str, mut client: Client| {
        let peer = client.local();
        let line = world.gateway().wait_for_log(&format!("{peer} and that it was slow"), |line| {
            line.contains(&peer.to_string()) && line.contains("1013")
        });
        assert!(line.contains("slow"), "{line}");
        // What had been sent may be read before the end: a Close behind whole messages, or inside one a reset. A FIN
        // there would make a message that was cut off look like the end of a session.
        let (frames, reaction) = read_close(&mut client);
        // Whoever is silent for long is asked whether it is there.
        let messages = frames.iter().filter(|frame| frame.opcode != PING);
        for (place, frame) in messages.enumerate() {
            let (opcode, len) = (frame.opcode, frame.payload.len());
            assert_eq!((opcode, len), (BINARY, 256 << 10), "{variant}: message {place} of {}", frames.len());
        }
        // There are several ends of messages in what waits for the proxied one. On a busy machine this side comes to them too
        // late; that whoever reads in time gets the Close is for the tests that have a clock of their own.
        if variant == "proxied" && reaction != Reaction::Tcp(End::Reset) {
            assert_eq!(reaction, Reaction::Close(1013), "{variant}");
            assert_eq!(client.end_within(CLOSE_TIMEOUT), Some(End::Fin), "{variant}: behind the Close");
        }
        Observed::new(variant, peer, reaction).with_due(Due::Number(1013))
    };
    std::thread::scope(|scope| {
        let threads = [("echo", echo), ("proxied", pushed)]
            .map(|(variant, client)| scope.spawn(move || ends(variant, client)));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    })
}

/// Each of these instead of a PROXY header, and a request behind it: nothing is answered, and the log has the cause.
fn ends_without_a_word(world: &World, headers: &[(&str, Vec<u8>)]) -> Vec<Observed> {
    let end = |(variant, header): &(&str, Vec<u8>)| {
        let mut client = Client::connect(world.behind_proxy());
        let peer = client.local();
        client.precede(header);
        // Over TLS nothing comes of the handshake.
        let sent = client.try_send(&Req::new().bytes());
        assert!(sent.is_ok() || world.is_over_tls(), "{variant}: {sent:?}");
        let observed = match read_response(&mut client) {
            Ok((response, _)) => panic!("{variant}: answered with {}", response.head),
            Err(end) => Observed::new(*variant, peer, Reaction::Tcp(end)),
        };
        world.gateway().wait_for_log(&format!("{peer} and its PROXY header ({variant})"), |line| {
            line.contains(&peer.to_string()) && line.contains("PROXY header")
        });
        observed
    };
    headers.iter().map(end).collect()
}

fn t09_bad_proxy_lines(world: &World) -> Vec<Observed> {
    let line = |text: &str| text.as_bytes().to_vec();
    let seen = ends_without_a_word(
        world,
        &[
            ("no address", line("PROXY TCP4 999.1.1.1 10.0.0.1 1 2\r\n")),
            ("of another family", line("PROXY TCP6 1.2.3.4 10.0.0.1 1 2\r\n")),
            ("no port", line("PROXY TCP4 1.2.3.4 10.0.0.1 65536 2\r\n")),
            ("a line feed alone", line("PROXY TCP4 1.2.3.4 10.0.0.1 1 2\n")),
            ("none", Vec::new()),
        ],
    );
    // A right one is taken, and the address in it is the one that is logged.
    let mut client = Client::connect(world.behind_proxy());
    let head = Req::new().with("Sec-WebSocket-Key", "second").bytes();
    client.precede(b"PROXY TCP4 198.51.100.77 10.0.0.1 4711 2\r\n");
    client.send(&head);
    let (response, _) = read_response(&mut client).expect("a response");
    assert_eq!(response.status, 400);
    world.gateway().wait_for_log("the client's address", |line| {
        line.contains("198.51.100.77:4711") && line.contains("400")
    });
    seen
}

fn t10_bad_proxy_lengths(world: &World) -> Vec<Observed> {
    let header = |length: u16, body: &[u8]| {
        [b"\r\n\r\n\0\r\nQUIT\n\x21\x11", &length.to_be_bytes()[..], body].concat()
    };
    let addresses = b"\x01\x02\x03\x04\x0a\x00\x00\x01\x00\x01\x00\x02";
    let seen = ends_without_a_word(
        world,
        &[
            ("a length of 65535", header(0xffff, &[])),
            ("no room for the addresses", header(11, &addresses[..11])),
            // What follows it in the same segment is not its value.
            ("an extension past the end", header(15, &[&addresses[..], b"\x04\x00\x05"].concat())),
            ("half an extension", header(14, &[&addresses[..], b"\x04\x00"].concat())),
        ],
    );
    // With room for it the same extension is skipped, and the request behind it is read.
    let mut client = Client::connect(world.behind_proxy());
    client.precede(&header(20, &[&addresses[..], b"\x04\x00\x05GET /"].concat()));
    let (_, taken) = respond_to(client, "an extension within", &Req::new().bytes());
    assert!(matches!(taken.reaction, Reaction::Http { status: 101, .. }), "{taken:?}");
    seen
}

fn t11_proxy_protocol(world: &World) -> Vec<Observed> {
    let with = |line: &[u8]| [line, &Req::new().bytes()[..]].concat();
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\x01\x02\x03\x04\x0a\x00\x00\x01\x00\x01\x00\x02";
    let listeners = [world.address(), world.beside_proxy()];
    let headers = [("v1", with(b"PROXY TCP4 1.2.3.4 10.0.0.1 1 2\r\n")), ("v2", with(v2))];
    let seen = listeners.iter().flat_map(|target| {
        headers.iter().map(|(variant, bytes)| react(target.clone(), *variant, bytes)).collect::<Vec<_>>()
    });
    let seen = seen.collect();
    // Before a handshake it is no TLS.
    for target in listeners.iter().filter(|_| world.is_over_tls()) {
        let mut client = Client::connect(target.clone());
        client.precede(v2);
        assert!(client.try_send(&Req::new().bytes()).is_err());
        assert_eq!(client.end_within(CLOSE_TIMEOUT), Some(End::Fin));
    }
    // There a request is one without any header.
    let plain = react(world.beside_proxy(), "none", &Req::new().bytes());
    assert!(matches!(plain.reaction, Reaction::Http { status: 101, .. }), "{plain:?}");
    seen
}
