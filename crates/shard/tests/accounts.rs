//! What a shard counts by session and by route is what went over its connections, and it says so when it is asked.

mod stage;

use std::sync::{Arc, mpsc::channel};

use tidegate_io::Event;
use tidegate_shard::{
    Census, Counted, Ended, Mail, SessionStage,
    report::{Cell, INTERVAL_MS, Reply, Report},
};
use tidegate_wire::close::CloseCode;

use crate::stage::{Stage, close_frame, frame, topics_at};

const ECHO: &str = "echo = {}";
const PROXY: &str = "proxy = { upstreams = [\"ws://10.0.0.5:9000\"], deflate = \"pass\" }";
const EDGE: &str = "proxy = { upstreams = [\"ws://10.0.0.5:9000\"], deflate = \"edge\" }";

/// A shard that counts.
fn counting(route: &str) -> (Stage, Arc<Cell>) {
    let mut stage = Stage::new("", route);
    let cell = Arc::new(Cell::default());
    stage.shard.account_to(Arc::clone(&cell));
    (stage, cell)
}

fn tell(stage: &mut Stage, mail: Mail) {
    stage.sender.send(mail).expect("there is room");
    stage.world.borrow_mut().complete(Event::Woken);
    stage.turns(3);
}

/// What it says now.
fn report(stage: &mut Stage, cell: &Cell) -> Report {
    let (sender, answer) = channel();
    tell(stage, Mail::Report(Reply::new(move |()| sender.send(()).expect("it is awaited"))));
    answer.try_recv().expect("it was said");
    cell.read()
}

fn census(stage: &mut Stage, from: u32, most: usize) -> Counted {
    let (sender, answer) = channel();
    let reply = Reply::new(move |counted| sender.send(counted).expect("it is awaited"));
    tell(stage, Mail::Census(Census { from, most, with_subjects: false, wanted: Arc::new(|_| true), reply }));
    answer.try_recv().expect("it was counted")
}

#[test]
fn an_echo_is_counted_both_ways_and_told_at_its_end() {
    let (mut stage, cell) = counting(ECHO);
    let socket = stage.open();
    let (short, long) = (frame(0x82, &[7; 10], true), frame(0x82, &[7; 300], true));
    stage.send(socket, &short);
    // In two parts: one message.
    stage.send(socket, &long[..100]);
    stage.send(socket, &long[100..]);
    // No message.
    stage.send(socket, &frame(0x89, b"ping", true));
    let counts = report(&mut stage, &cell).routes[0];
    let clients = counts.clients;
    assert_eq!((clients.received_messages, clients.sent_messages), (2, 2));
    assert_eq!((counts.opened, counts.ended), (1, 0));
    let answers = stage.sent(socket).len();
    let one = &census(&mut stage, 0, 10).sessions[0];
    assert_eq!((one.flow.received_messages, one.stage), (2, SessionStage::Open));
    // The head of the request came before its route was known, and is counted there all the same, as the answer's is.
    let frames = (short.len() + long.len() + 10) as u64;
    assert!(
        clients.received_bytes > frames + 100 && clients.sent_bytes > answers as u64 + 100,
        "{clients:?}"
    );
    assert_eq!(one.flow, clients);
    stage.send(socket, &frame(0x88, &close_frame(1000, "")[2..], true));
    stage.pass(30);
    let counts = report(&mut stage, &cell);
    assert_eq!((counts.routes[0].opened, counts.routes[0].ended), (1, 1));
    let close = counts.closes[0];
    assert_eq!((close.code, close.reason, close.count), (1000, "closed by the client", 1));
    let log = stage.log.borrow();
    let ends: Vec<_> = log.iter().filter(|line| line.contains("session ended")).collect();
    assert_eq!(ends.len(), 1, "{log:?}");
    assert!(
        ends[0].contains("code=1000") && ends[0].contains("received_messages=2 sent_messages=2"),
        "{ends:?}"
    );
}

#[test]
fn what_a_pair_carries_is_counted_on_both_legs() {
    for route in [PROXY, EDGE] {
        let (mut stage, cell) = counting(route);
        let (client, upstream) = stage.pair();
        // Many in one buffer, one in fragments with a ping between them, one cut within its payload.
        let many: Vec<u8> = (0..50).flat_map(|_| frame(0x81, b"hello", true)).collect();
        stage.send(client, &many);
        for part in [frame(0x01, b"one ", true), frame(0x89, b"", true), frame(0x80, b"two", true)] {
            stage.send(client, &part);
        }
        let long = frame(0x82, &[1; 5_000], true);
        stage.send(client, &long[..2_000]);
        let so_far = report(&mut stage, &cell).routes[0];
        assert_eq!(so_far.clients.received_messages, 51, "{route}: the last one is not whole");
        stage.send(client, &long[2_000..]);
        stage.send(upstream, &frame(0x81, b"answer", false));
        let counts = report(&mut stage, &cell).routes[0];
        assert_eq!((counts.clients.received_messages, counts.upstreams.sent_messages), (52, 52), "{route}");
        assert_eq!((counts.upstreams.received_messages, counts.clients.sent_messages), (1, 1), "{route}");
        assert_eq!(counts.opened, 1, "{route}: a pair is one session");
        let listed = census(&mut stage, 0, 10).sessions;
        assert_eq!(listed.len(), 1, "{route}: an upstream's leg is no session of its own");
        assert_eq!(listed[0].flow.received_messages, 52);
        assert_eq!(report(&mut stage, &cell).upstreams[0].legs, 1);
    }
}

#[test]
fn numbers_are_copied_now_and_then_and_on_request() {
    let (mut stage, cell) = counting(ECHO);
    let socket = stage.open();
    stage.world.borrow_mut().now_ms += INTERVAL_MS;
    stage.turns(1);
    stage.send(socket, &frame(0x82, b"a", true));
    assert_eq!(cell.read().counters.messages, 0, "not within the interval");
    stage.world.borrow_mut().now_ms += INTERVAL_MS;
    stage.send(socket, &frame(0x82, b"b", true));
    stage.turns(1);
    assert!(cell.read().counters.messages >= 1);
    stage.send(socket, &frame(0x82, b"c", true));
    assert_eq!(report(&mut stage, &cell).counters.messages, 3);
}

#[test]
fn sessions_are_counted_in_parts_each_once() {
    let (mut stage, _) = counting(ECHO);
    let sockets: Vec<_> = (0..7).map(|_| stage.open()).collect();
    let mut open: Vec<_> = sockets.iter().map(|socket| stage.tokens[socket].0).collect();
    let (mut seen, mut from) = (Vec::new(), Some(0));
    while let Some(slot) = from {
        let counted = census(&mut stage, slot, 3);
        assert!(counted.sessions.len() <= 3);
        seen.extend(counted.sessions.iter().map(|session| session.key));
        from = counted.next;
    }
    open.sort_unstable();
    seen.sort_unstable();
    assert_eq!(seen, open);
    assert!(census(&mut stage, u32::MAX, 3).next.is_none(), "a place that does not exist");
}

#[test]
fn sessions_end_on_request_at_a_boundary_and_no_others() {
    for (route, legs) in [(ECHO, 1), (PROXY, 2)] {
        let (mut stage, _) = counting(route);
        let open = |stage: &mut Stage| if legs == 1 { stage.open() } else { stage.pair().0 };
        let (one, other) = (open(&mut stage), open(&mut stage));
        let (sender, answer) = channel();
        let keys = vec![stage.tokens[&one].0, 0, u64::MAX, stage.tokens[&one].0 + (5 << 32)];
        let code = CloseCode::new(4001).expect("a code");
        let reply = Reply::new(move |found| sender.send(found).expect("it is awaited"));
        tell(&mut stage, Mail::End(Ended { keys, code, reply }));
        assert_eq!(answer.try_recv(), Ok(1), "{route}");
        assert_eq!(stage.sent(one), close_frame(4001, "going away"), "{route}");
        if legs == 2 {
            assert!(stage.sent(one + 1).starts_with(&[0x88]), "{route}: its upstream is told");
        }
        assert_eq!(stage.sent(other), b"", "{route}");
        stage.pass(30);
        let log = stage.log.borrow();
        assert!(
            log.iter().any(|line| line.contains("ended by an operator") && line.contains("code=4001")),
            "{log:?}"
        );
    }
}

#[test]
fn who_is_not_asked_counts_nothing_and_says_as_before_why_sessions_end() {
    let mut stage = Stage::new("", ECHO);
    let socket = stage.open();
    stage.send(socket, &frame(0x88, &close_frame(3000, "")[2..], true));
    let log = stage.log.borrow().join("\n");
    assert!(log.contains("code=3000") && !log.contains("duration_ms"), "{log}");
}

/// What has not begun does not end: whoever subtracts the one from the other has the sessions that are there.
#[test]
fn a_stream_that_never_began_is_no_session_that_ended() {
    let config =
        "[[topic]]\nname = \"**\"\n[[route]]\npath = \"/events\"\nevents = { subscribe = [\"**\"] }\n";
    let mut stage = Stage::of(config, 2);
    let cell = Arc::new(Cell::default());
    stage.shard.account_to(Arc::clone(&cell));
    let here = topics_at("t", 0).next().expect("one of them");
    let there = topics_at("t", 1).next().expect("one of them");
    let ask = |stage: &mut Stage, method: &str, topic: &str| {
        let socket = stage.accept();
        let request = format!("{method} /events?topic={topic} HTTP/1.1\r\nHost: gw.test\r\n\r\n");
        stage.send(socket, request.as_bytes());
        socket
    };
    let head = ask(&mut stage, "HEAD", &here);
    assert!(stage.sent(head).starts_with(b"HTTP/1.1 200 "));
    // The other shard never answers.
    let waits = ask(&mut stage, "GET", &there);
    stage.pass(11);
    assert!(stage.sent(waits).starts_with(b"HTTP/1.1 503 "), "{:?}", stage.sent(waits));
    let stream = ask(&mut stage, "GET", &here);
    assert!(stage.sent(stream).starts_with(b"HTTP/1.1 200 "));
    let counts = report(&mut stage, &cell).routes[0];
    assert_eq!((counts.opened, counts.ended), (1, 0));
    let counters = stage.shard.counters();
    assert_eq!((counters.opened, counters.ended), (1, 0));
}
