//! What is held of what is not complete counts in the process's memory until it is complete or its session ends, and is given up
//! where that is used up.

mod stage;

use stage::{Neighbour, Socket, Stage, close_frame, frame, request, topics_at};
use tidegate_hub::TopicRules;
use tidegate_io::{BUFFER_BYTES, Event, ListenerId, ReceiveEnd};
use tidegate_wire::deflate::{CodecLimits, Codecs};

const ROUTES: &str = r#"
[limits]
message_timeout = "20s"
head_timeout = "20s"
[topics]
memory = "1MiB"
[[route]]
path = "/r"
echo = {}
[[route]]
path = "/topics"
topics = { subscribe = ["**"], publish = ["**"] }
[[route]]
path = "/publish"
publish = { publish = ["**"], body_bytes = "256KiB" }
[[route]]
path = "/edge"
proxy = { upstreams = ["ws://10.0.0.5:9000"], deflate = "edge" }
"#;

const DEFLATE: &str = "Sec-WebSocket-Extensions: permessage-deflate\r\n";

/// A payload's size: it takes several buffers.
const LONG: usize = 100 << 10;

/// Bytes that no compression makes much shorter.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn deflated(payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    Codecs::new(CodecLimits::default()).deflate(15, payload, &mut bytes);
    frame(0xc2, &bytes, true)
}

/// Something that comes in two halves.
struct Way {
    name: &'static str,
    path: &'static str,
    fields: &'static str,
    first: Vec<u8>,
    rest: Vec<u8>,
    /// Bytes that are held of it in between, at least.
    least: usize,
    /// As much of what has been received, as `message_timeout` and not `head_timeout` ends it.
    is_session: bool,
}

fn ways() -> Vec<Way> {
    let halves = |bytes: &[u8]| {
        let (first, rest) = bytes.split_at(bytes.len() / 2);
        (first.to_vec(), rest.to_vec())
    };
    let way = |name, path, fields, (first, rest), least, is_session| Way {
        name,
        path,
        fields,
        first,
        rest,
        least,
        is_session,
    };
    let plain = frame(0x82, &vec![7; LONG], true);
    let fragments = (frame(0x02, &vec![7; LONG], true), frame(0x80, b"the end", true));
    let text = format!(r#"[{{"type":"ping"}}{}]"#, " ".repeat(LONG));
    let text = frame(0x81, text.as_bytes(), true);
    let post = format!(
        "POST /publish?topic=a HTTP/1.1\r\nHost: gw.test\r\nContent-Type: application/json\r\n\
         Content-Length: {LONG}\r\n\r\n{}",
        " ".repeat(LONG)
    );
    let head = request("/r", &format!("X-Long: {}\r\n", "x".repeat(6_000)));
    vec![
        way("half a frame", "/r", "", halves(&plain), LONG / 2 - 100, true),
        way("fragments", "/r", "", fragments.clone(), LONG, true),
        way("half a compressed frame", "/r", DEFLATE, halves(&deflated(&noise(LONG))), LONG / 4, true),
        way("much out of few bytes", "/r", DEFLATE, halves(&deflated(&vec![0; 900 << 10])), LONG, true),
        way("half a command", "/topics", "", halves(&text), LONG / 2 - 100, true),
        way("half a message to an upstream", "/edge", DEFLATE, halves(&plain), LONG / 2 - 100, true),
        way("fragments to an upstream", "/edge", DEFLATE, fragments, LONG, true),
        way("half a body", "", "", halves(post.as_bytes()), LONG / 2 - 200, false),
        way("half a head", "", "", halves(&head), 3_000, false),
    ]
}

/// How it ends in the middle.
const ENDS: [&str; 5] = ["whole", "reset", "fin", "time", "drain"];

/// A connection that has sent the first half, and what counted before that.
fn half(stage: &mut Stage, way: &Way) -> (Socket, usize) {
    let socket = match way.path {
        "" => stage.accept(),
        path => stage.client_at(path, way.fields),
    };
    if way.path == "/edge" {
        stage.upgrade(socket + 1);
    }
    let before = stage.plan.retained_bytes();
    stage.send(socket, &way.first);
    (socket, before)
}

fn end(stage: &mut Stage, socket: Socket, end: ReceiveEnd) {
    stage.end(socket, end);
    stage.turns(4);
}

#[test]
fn what_is_not_complete_counts_until_it_is_or_its_session_ends() {
    for way in ways() {
        for how in ENDS {
            let mut stage = Stage::of(ROUTES, 1);
            let (socket, before) = half(&mut stage, &way);
            let name = way.name;
            let held = stage.plan.retained_bytes() - before;
            assert!(held >= way.least, "{name}: {held} bytes");
            let seen = stage.shard.inspect();
            assert_eq!(seen.retained, seen.retained_sum, "{name}");
            assert!(held <= 2 * seen.partial_bytes, "{name}: {held} of {}", seen.partial_bytes);
            match how {
                "whole" => stage.send(socket, &way.rest),
                "reset" => end(&mut stage, socket, ReceiveEnd::Error(104)),
                "fin" => end(&mut stage, socket, ReceiveEnd::Eof),
                "time" => stage.pass(if way.is_session { 22 } else { 31 }),
                _ => stage.drain(),
            }
            if matches!(how, "time" | "drain") {
                // A session has the time of its closing handshake.
                stage.pass(12);
            }
            stage.turns(4);
            let seen = stage.shard.inspect();
            assert_eq!(seen.retained, seen.retained_sum, "{name}, {how}");
            assert_eq!(stage.plan.retained_bytes(), before, "{name}, {how}: {seen:?}");
            assert_eq!(seen.inflaters, 0, "{name}, {how}");
        }
    }
}

#[test]
fn a_close_between_fragments_gives_back_what_was_held() {
    for path in ["/r", "/edge"] {
        let mut stage = Stage::of(ROUTES, 1);
        let way = ways().into_iter().find(|way| way.path == path && way.name.starts_with("fragments"));
        let (socket, before) = half(&mut stage, &way.expect("there is one"));
        assert!(stage.plan.retained_bytes() >= before + LONG);
        stage.send(socket, &frame(0x88, &1000u16.to_be_bytes(), true));
        assert_eq!(stage.plan.retained_bytes(), before, "{path}");
    }
}

/// Where those wait who wait for somebody else.
const WAITING: &str = r#"
[[route]]
path = "/poll"
poll = { subscribe = ["**"] }
[[route]]
path = "/hook"
identity = "a"
echo = {}
[[identity]]
name = "a"
hook = { url = "https://a.test/", timeout = "10s", max_in_flight = 100 }
"#;

fn with_memory(memory: &str) -> String {
    ROUTES.replace("[topics]", &format!("memory = \"{memory}\"\n[topics]"))
}

/// Memory of 4 MiB.
fn small() -> Stage {
    Stage::of(&with_memory("4MiB"), 1)
}

const MEMORY: usize = 4 << 20;

const GIVEN_UP: &str = "the gateway's memory is used up";

#[test]
fn half_messages_end_where_they_use_memory_up_those_first_that_have_held_the_most_for_long() {
    for path in ["/r", "/topics", "/edge"] {
        let mut stage = small();
        let open = |stage: &mut Stage| {
            let socket = stage.client_at(path, if path == "/edge" { DEFLATE } else { "" });
            if path == "/edge" {
                stage.upgrade(socket + 1);
            }
            stage.socket(socket, |kernel| kernel.sent.clear());
            socket
        };
        let message = frame(0x82, &vec![7; 900 << 10], true);
        // Half a message that is short, and older than all.
        let modest = open(&mut stage);
        stage.send(modest, &message[..2_000]);
        let hogs: Vec<Socket> = (0..12).map(|_| open(&mut stage)).collect();
        for &hog in &hogs {
            stage.world.borrow_mut().now_ms += 100;
            for part in message[..800 << 10].chunks(64 << 10) {
                if stage.socket(hog, |kernel| kernel.receive.is_some()) {
                    stage.send(hog, part);
                }
                let bytes = stage.plan.retained_bytes();
                assert!(bytes < MEMORY + (256 << 10), "{path}: {bytes} bytes");
            }
        }
        let gone = close_frame(1013, GIVEN_UP);
        let ended: Vec<bool> = hogs.iter().map(|&hog| stage.sent(hog).ends_with(&gone)).collect();
        let count = ended.iter().filter(|&&ended| ended).count();
        assert!((6..12).contains(&count), "{path}: {ended:?}");
        assert!(ended[..count].iter().all(|&ended| ended), "{path}: the oldest ones: {ended:?}");
        assert!(!stage.sent(modest).ends_with(&gone), "{path}");
        assert_eq!(stage.shard.counters().client_violations, 0);
        // There is room for new ones again.
        open(&mut stage);
        let seen = stage.shard.inspect();
        assert_eq!(seen.retained, seen.retained_sum);
    }
}

#[test]
fn a_message_that_arrives_as_others_do_outlives_those_that_were_begun_to_stay() {
    let mut stage = small();
    let message = frame(0x82, &vec![7; 900 << 10], true);
    let hogs: Vec<Socket> = (0..5).map(|_| stage.open()).collect();
    let client = stage.open();
    for &hog in &hogs {
        let most = MEMORY - stage.plan.retained_bytes();
        stage.send(hog, &message[..(800 << 10).min(most - (64 << 10))]);
    }
    stage.pass(2);
    assert!(stage.plan.retained_bytes() < MEMORY);
    stage.send(client, &message);
    assert_eq!(stage.sent(client), frame(0x82, &vec![7; 900 << 10], false));
    let gone = close_frame(1013, GIVEN_UP);
    assert!(hogs.iter().any(|&hog| stage.sent(hog) == gone));
}

#[test]
fn half_messages_go_on_while_others_use_memory_up() {
    let mut stage = small();
    let message = frame(0x82, &vec![7; 15 << 10], true);
    let slow: Vec<Socket> = (0..5).map(|_| stage.open()).collect();
    let client = stage.open();
    let long = frame(0x82, &vec![7; 700 << 10], true);
    stage.send(client, &long[..500 << 10]);
    for socket in slow {
        stage.socket(socket, |kernel| kernel.room = 0);
        for _ in 0..60 {
            stage.send(socket, &message);
        }
    }
    assert!(stage.plan.retained_bytes() >= MEMORY);
    stage.send(client, &long[500 << 10..]);
    assert_eq!(stage.sent(client), frame(0x82, &vec![7; 700 << 10], false));
}

#[test]
fn half_bodies_and_heads_are_refused_where_they_use_memory_up() {
    let routes = ROUTES.replace("256KiB", "1MiB");
    let mut stage = Stage::of(&routes.replace("[topics]", "memory = \"1MiB\"\n[topics]"), 1);
    let post = |len: usize| {
        let head = "POST /publish?topic=a HTTP/1.1\r\nHost: gw.test\r\nContent-Type: application/json\r\n";
        format!("{head}Content-Length: {}\r\n\r\n{}", 600 << 10, " ".repeat(len)).into_bytes()
    };
    let bodies: Vec<Socket> = (0..4)
        .map(|_| {
            let socket = stage.accept();
            stage.send(socket, &post(500 << 10));
            socket
        })
        .collect();
    let refused = bodies.iter().filter(|&&socket| stage.sent(socket).starts_with(b"HTTP/1.1 503"));
    let refused: Vec<&Socket> = refused.collect();
    assert!(refused.len() >= 2, "{}", refused.len());
    let answer = String::from_utf8_lossy(&stage.sent(*refused[0])).into_owned();
    assert!(answer.contains("Retry-After") && answer.contains(GIVEN_UP), "{answer}");
    assert!(stage.plan.retained_bytes() < 1 << 20);
}

/// What a client sends that waits for somebody else: for its upstream, its hook, its poll. It is as much as may come before it is
/// not read any more.
fn waiting(stage: &mut Stage, path: &str, target: &str) -> Socket {
    let socket = stage.accept();
    stage.send(socket, &waiting_request(path, target));
    stage.send(socket, &[b'x'; BUFFER_BYTES]);
    assert_eq!(stage.sent(socket), b"", "{path}: it waits");
    socket
}

fn waiting_request(path: &str, target: &str) -> Vec<u8> {
    match path {
        "/poll" => poll(target),
        path => request(path, ""),
    }
}

fn poll(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: gw.test\r\n\r\n").into_bytes()
}

/// A poll that waits for the topic's first message.
fn next_poll(stage: &mut Stage) -> String {
    let first = stage.accept();
    stage.send(first, &poll("/poll?topic=a"));
    let answer = String::from_utf8_lossy(&stage.sent(first)).into_owned();
    let position = answer.split('"').nth(3).unwrap_or_else(|| panic!("{answer}"));
    format!("/poll?topic=a&position={position}")
}

#[test]
fn who_waits_for_others_and_sends_much_meanwhile_goes_before_those_who_hold_little() {
    for path in ["/edge", "/hook", "/poll"] {
        let mut stage = Stage::of(&format!("{}{WAITING}", with_memory("1MiB")), 1);
        // Half a message, older than all.
        let modest = stage.open();
        stage.send(modest, &frame(0x82, &vec![7; 4_000], true)[..2_000]);
        let target = next_poll(&mut stage);
        let mut ended = 0;
        let mut waits = Vec::new();
        for _ in 0..70 {
            stage.world.borrow_mut().now_ms += 20;
            waits.push(waiting(&mut stage, path, &target));
            let bytes = stage.plan.retained_bytes();
            assert!(bytes < (1 << 20) + 2 * BUFFER_BYTES, "{path}: {bytes} bytes");
            let refused = waits.iter().take_while(|&&socket| stage.sent(socket).starts_with(b"HTTP/1.1 503"));
            ended = refused.count();
        }
        assert!((1..60).contains(&ended), "{path}: {ended}, the oldest ones");
        assert!(waits[ended..].iter().all(|&socket| stage.sent(socket).is_empty()), "{path}");
        let answer = String::from_utf8_lossy(&stage.sent(waits[0])).into_owned();
        assert!(answer.contains("Retry-After") && answer.contains(GIVEN_UP), "{path}: {answer}");
        assert_eq!(stage.sent(modest), b"", "{path}");
        let seen = stage.shard.inspect();
        assert_eq!(seen.retained, seen.retained_sum, "{path}");
    }
}

/// It has sent no byte too many: its request is what is kept, for every upstream that is tried.
#[test]
fn a_request_that_waits_for_its_upstream_counts() {
    let long = request("/edge", &format!("X-Long: {}\r\n", "x".repeat(12_000)));
    for how in ["whole", "reset", "refused"] {
        let mut stage = Stage::of(&with_memory("1MiB"), 1);
        let before = stage.plan.retained_bytes();
        let socket = stage.accept();
        stage.send(socket, &long);
        let held = stage.plan.retained_bytes() - before;
        assert!((12_000..32_000).contains(&held), "{how}: {held} bytes");
        let seen = stage.shard.inspect();
        assert_eq!(seen.retained, seen.retained_sum, "{how}");
        match how {
            "whole" => stage.upgrade(socket + 1),
            "reset" => end(&mut stage, socket, ReceiveEnd::Error(104)),
            // Of those who hold as much the first has held it longest.
            _ => {
                let waits: Vec<Socket> = (0..60)
                    .map(|_| {
                        stage.world.borrow_mut().now_ms += 1;
                        let socket = stage.accept();
                        stage.send(socket, &long);
                        socket
                    })
                    .collect();
                assert!(stage.sent(socket).starts_with(b"HTTP/1.1 503"), "the first goes first");
                let last = waits.last().expect("there are some");
                assert_eq!(stage.sent(*last), b"");
                assert!(stage.plan.retained_bytes() < (1 << 20) + 32_000, "{how}");
                continue;
            }
        }
        assert_eq!(stage.plan.retained_bytes(), before, "{how}");
    }
}

/// What is on its way when a client is not read any more comes all the same.
#[test]
fn what_comes_behind_the_pause_of_who_waits_is_its_own() {
    for path in ["/edge", "/hook", "/poll"] {
        let mut stage = Stage::of(&format!("{}{WAITING}", with_memory("1MiB")), 1);
        let modest = stage.open();
        stage.send(modest, &frame(0x82, &vec![7; 4_000], true)[..2_000]);
        let target = next_poll(&mut stage);
        let waits: Vec<Socket> = (0..12)
            .map(|_| {
                stage.world.borrow_mut().now_ms += 20;
                let socket = stage.accept();
                stage.send(socket, &waiting_request(path, &target));
                (0..20).for_each(|_| stage.arrive(socket, &[b'x'; BUFFER_BYTES]));
                stage.turns(4);
                let bytes = stage.plan.retained_bytes();
                assert!(bytes < (1 << 20) + 22 * BUFFER_BYTES, "{path}: {bytes} bytes");
                socket
            })
            .collect();
        let ended = waits.iter().filter(|&&socket| stage.sent(socket).starts_with(b"HTTP/1.1 503")).count();
        assert!((6..12).contains(&ended), "{path}: {ended}");
        assert!(stage.plan.retained_bytes() < 1 << 20, "{path}");
        assert_eq!(stage.sent(modest), b"", "{path}");
        let seen = stage.shard.inspect();
        assert_eq!(seen.retained, seen.retained_sum, "{path}");
    }
}

/// No answer fits behind what it has had.
#[test]
fn a_stream_that_is_given_up_ends_in_order() {
    let events =
        "[[route]]\npath = \"/events\"\nevents = { subscribe = [\"**\"] }\n[[topic]]\nname = \"**\"\n";
    let config = with_memory("1MiB").replace("[limits]", "[limits]\noutbox_soft = \"16KiB\"");
    let mut stage = Stage::of(&(config + events), 1);
    let stream = stage.accept();
    stage.send(stream, &poll("/events?topic=a"));
    assert!(stage.sent(stream).starts_with(b"HTTP/1.1 200 "));
    let token = stage.tokens[&stream];
    stage.socket(stream, |kernel| kernel.room = 0);
    let publisher = stage.client_at("/topics", "");
    let publish = format!("{{\"op\":\"publish\",\"topic\":\"a\",\"data\":\"{}\"}}", "x".repeat(10_000));
    while stage.socket(stream, |kernel| kernel.receive.is_some()) {
        stage.send(publisher, &frame(0x81, publish.as_bytes(), true));
        assert_eq!(stage.down(stream), None, "it reads too slowly, and lives");
    }
    // They had been received before.
    for _ in 0..20 {
        let world = &mut *stage.world.borrow_mut();
        let mut buffer = world.pool.take().expect("there are enough");
        buffer.fill(&[b'x'; BUFFER_BYTES]);
        world.complete(Event::Received { token, buffer });
    }
    stage.turns(3);
    stage.pass(1);
    let hogs = [stage.open(), stage.open(), stage.open(), stage.open()];
    for hog in hogs {
        stage.send(hog, &frame(0x82, &vec![7; 900 << 10], true)[..200 << 10]);
    }
    stage.turns(3);
    assert!(hogs.iter().all(|&hog| stage.sent(hog).is_empty()), "it has held more, and for longer");
    for _ in 0..10 {
        stage.make_room(stream, 1 << 20);
    }
    let sent = String::from_utf8_lossy(&stage.sent(stream)).into_owned();
    assert_eq!(sent.matches("HTTP/1.1 ").count(), 1, "{sent}");
    assert!(sent.ends_with("\r\n0\r\n\r\n"), "{}", &sent[sent.len() - 100..]);
}

#[test]
fn half_of_a_proxy_header_goes_where_many_use_memory_up() {
    // Of which a quarter of an eighth is this shard's own.
    let mut stage = Stage::listening(&with_memory("1MiB"), "proxy_protocol = [\"192.0.2.0/24\"]", 8);
    let trusted = Some("192.0.2.1:4711".parse().expect("an address"));
    let header = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x0c\x00"[..], &[0; 3_000]].concat();
    let halves: Vec<Socket> = (0..60)
        .map(|_| {
            stage.world.borrow_mut().now_ms += 20;
            let socket = stage.accept_from(ListenerId(0), trusted);
            stage.send(socket, &header);
            socket
        })
        .collect();
    let held = stage.plan.retained_bytes();
    assert!(held > 160 << 10, "{held} bytes");
    // Somebody else uses the rest up.
    for client in [stage.open(), stage.open()] {
        stage.socket(client, |kernel| kernel.room = 0);
        while stage.plan.retained_bytes() < 1 << 20 && stage.socket(client, |kernel| kernel.receive.is_some())
        {
            stage.send(client, &frame(0x82, &vec![7; 15 << 10], true));
        }
    }
    let gone = halves.iter().take_while(|&&socket| stage.down(socket).is_some()).count();
    assert!((1..60).contains(&gone), "{gone}, the oldest ones");
    assert!(halves[gone..].iter().all(|&socket| stage.down(socket).is_none()));
    assert!(halves.iter().all(|&socket| stage.sent(socket).is_empty()), "who it is for is not known");
    assert_eq!(stage.shard.counters().refused_memory, gone as u64);
}

/// A search that does not find enough is not repeated at once.
#[cfg(feature = "planted-bugs")]
#[test]
fn who_comes_behind_a_search_in_vain_does_not_pay_for_it() {
    use std::time::Duration;

    use tidegate_shard::planted::{self, Bug};

    let mut stage = small();
    let others: Vec<Socket> = (0..3).map(|_| stage.open()).collect();
    let hogs: Vec<Socket> = (0..5).map(|_| stage.open()).collect();
    let message = frame(0x82, &vec![7; 900 << 10], true);
    // Bytes that count, and that nobody has.
    planted::set(Some(Bug::LeakIncomplete));
    for hog in hogs {
        stage.send(hog, &message[..850 << 10]);
        if stage.down(hog).is_none() && !stage.sent(hog).ends_with(&close_frame(1013, GIVEN_UP)) {
            end(&mut stage, hog, ReceiveEnd::Error(104));
        }
    }
    planted::set(None);
    assert!(stage.plan.retained_bytes() >= MEMORY);
    let gone = close_frame(1013, GIVEN_UP);
    stage.pass(1);
    stage.world.borrow_mut().now_ms += 200;
    for &other in &others {
        stage.arrive(other, &message[..1_000]);
        stage.turn();
    }
    stage.turns(2);
    assert!(stage.sent(others[0]).ends_with(&gone), "a search finds it, and not enough");
    assert!(others[1..].iter().all(|&other| stage.sent(other).is_empty()));
    assert_ne!(stage.world.borrow().deadline, Some(Duration::ZERO), "the shard waits for what comes");
    stage.pass(1);
    assert!(others.iter().all(|&other| stage.sent(other).ends_with(&gone)), "another search finds them");
}

/// With 503 nothing was done, and it is sent again.
#[test]
fn who_publishes_and_is_given_up_is_told_that_it_is_not_known() {
    let mut stage = Stage::of(&format!("{}[[topic]]\nname = \"**\"\n", with_memory("1MiB")), 2);
    let mut neighbour = Neighbour::of(&mut stage, TopicRules::default());
    let topic = topics_at("topic", 1).next().expect("one that lives there");
    let body = format!("{{\"topic\":\"{topic}\",\"data\":1}}");
    let head = "POST /publish HTTP/1.1\r\nHost: gw.test\r\nContent-Type: application/json\r\n";
    let post = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    let publishers: Vec<Socket> = (0..70)
        .map(|_| {
            stage.world.borrow_mut().now_ms += 20;
            let socket = stage.accept();
            stage.send(socket, post.as_bytes());
            stage.send(socket, &[b'x'; BUFFER_BYTES]);
            socket
        })
        .collect();
    let told = |stage: &Stage, beginning: &[u8]| {
        publishers.iter().filter(|&&socket| stage.sent(socket).starts_with(beginning)).count()
    };
    let unknown = told(&stage, b"HTTP/1.1 504 ");
    assert!((1..60).contains(&unknown), "{unknown}");
    assert_eq!(told(&stage, b"HTTP/1.1 "), unknown, "nobody is told that nothing was done");
    neighbour.run(&mut stage);
    stage.turns(4);
    assert_eq!(told(&stage, b"HTTP/1.1 200 "), publishers.len() - unknown);
    assert_eq!(neighbour.hub.counts().published, publishers.len() as u64);
}
