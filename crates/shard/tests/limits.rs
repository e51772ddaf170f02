//! Who may come in and how fast it may speak: addresses, routes, memory and rates, in virtual time.

mod stage;

use std::net::SocketAddr;

use tidegate_io::ListenerId;
use tidegate_shard::SPARE_SLOTS;

use crate::stage::{Socket, Stage, close_frame, frame};

const REQUEST: &[u8] = b"GET /r HTTP/1.1\r\nHost: gw.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

fn from(stage: &mut Stage, ip: &str) -> Socket {
    let peer = SocketAddr::new(ip.parse().expect("an address"), 4711);
    stage.accept_from(ListenerId(0), Some(peer))
}

/// The status of the answer to a request; `None` where there is none.
fn ask(stage: &mut Stage, client: Socket) -> Option<u16> {
    let armed = stage.socket(client, |kernel| kernel.receive.is_some());
    if armed {
        stage.send(client, REQUEST);
    }
    let sent = String::from_utf8(stage.sent(client)).expect("a head");
    let status: u16 = sent.split(' ').nth(1)?.parse().expect("a status");
    if status != 101 {
        assert!(sent.contains("\r\nRetry-After: ") && sent.contains("\r\nConnection: close\r\n"), "{sent}");
        assert!(stage.socket(client, |kernel| kernel.fin && kernel.down.is_none()), "a FIN, and no reset");
    }
    Some(status)
}

/// The peer ends.
fn leave(stage: &mut Stage, client: Socket) {
    stage.end(client, tidegate_io::ReceiveEnd::Eof);
    stage.turns(3);
}

#[test]
fn an_address_has_so_many_connections_and_is_told() {
    let mut stage = Stage::new("sessions_per_address = 2\nhandshakes_per_second = 0", "echo = {}");
    let first = from(&mut stage, "2001:db8::1");
    assert_eq!(ask(&mut stage, first), Some(101));
    // Of the same /64.
    let second = from(&mut stage, "2001:db8::2");
    let third = from(&mut stage, "2001:db8::3");
    assert_eq!(ask(&mut stage, third), Some(429));
    assert_eq!(ask(&mut stage, second), Some(101));
    let other = from(&mut stage, "2001:db8:0:1::1");
    assert_eq!(ask(&mut stage, other), Some(101));
    assert_eq!(stage.plan.counted_connections(), 3);
    assert_eq!(stage.shard.counters().refused_address_full, 1);
    assert!(stage.log.borrow().iter().any(|line| line.contains("status=429")));
    // The refused one lingers, and takes nothing from its address.
    leave(&mut stage, second);
    stage.pass(6);
    let again = from(&mut stage, "2001:db8::4");
    assert_eq!(ask(&mut stage, again), Some(101));
}

#[test]
fn an_address_begins_so_many_in_a_second() {
    let limits = "sessions_per_address = 0\nhandshakes_per_second = 2\nburst_handshakes = 3";
    let mut stage = Stage::new(limits, "echo = {}");
    let statuses: Vec<_> = (0..5)
        .map(|_| {
            let client = from(&mut stage, "192.0.2.1");
            ask(&mut stage, client).expect("an answer")
        })
        .collect();
    assert_eq!(statuses, [101, 101, 101, 429, 429]);
    assert_eq!(stage.shard.counters().refused_address_rate, 2);
    stage.pass(1);
    let statuses: Vec<_> = (0..3)
        .map(|_| {
            let client = from(&mut stage, "192.0.2.1");
            ask(&mut stage, client).expect("an answer")
        })
        .collect();
    assert_eq!(statuses, [101, 101, 429]);
}

#[test]
fn this_machine_trusted_networks_and_unknown_addresses_are_not_counted() {
    let config = "trusted = [\"10.0.0.0/8\"]\n[limits]\nsessions_per_address = 1\n\
                  [[route]]\npath = \"/r\"\necho = {}\n";
    let mut stage = Stage::of(config, 1);
    for ip in ["127.0.0.1", "127.9.9.9", "::1", "10.1.2.3"] {
        for _ in 0..3 {
            let client = from(&mut stage, ip);
            assert_eq!(ask(&mut stage, client), Some(101), "{ip}");
        }
    }
    for _ in 0..3 {
        let client = stage.accept();
        assert_eq!(ask(&mut stage, client), Some(101));
    }
    assert_eq!(stage.plan.counted_connections(), 0);
    // They are where nothing is exempt.
    let mut stage = Stage::new("sessions_per_address = 1\nexempt_addresses = []", "echo = {}");
    let statuses = [(); 2].map(|()| {
        let client = from(&mut stage, "127.0.0.1");
        ask(&mut stage, client)
    });
    assert_eq!(statuses, [Some(101), Some(429)]);
}

#[test]
fn the_address_of_a_proxy_header_is_the_one_that_counts() {
    let config = "[limits]\nsessions_per_address = 1\n[[route]]\npath = \"/r\"\necho = {}\n";
    let mut stage = Stage::listening(config, "proxy_protocol = [\"10.0.0.0/8\"]", 1);
    let mut come = |client_ip: &str| {
        let client = from(&mut stage, "10.0.0.9");
        stage.send(client, format!("PROXY TCP4 {client_ip} 10.0.0.1 1 2\r\n").as_bytes());
        ask(&mut stage, client)
    };
    assert_eq!(come("192.0.2.1"), Some(101));
    assert_eq!(come("192.0.2.2"), Some(101));
    assert_eq!(come("192.0.2.1"), Some(429));
    assert_eq!(stage.plan.counted_connections(), 2);
    // The header and the request at once.
    let client = from(&mut stage, "10.0.0.9");
    stage.send(client, &[b"PROXY TCP4 192.0.2.2 10.0.0.1 1 2\r\n", REQUEST].concat());
    assert!(stage.sent(client).starts_with(b"HTTP/1.1 429"));
}

#[test]
fn who_is_turned_away_takes_no_sessions_slot() {
    // The stage's shard has a hundred.
    let mut stage = Stage::new("sessions_per_address = 1\nhandshakes_per_second = 0", "echo = {}");
    let flood: Vec<_> = (0..SPARE_SLOTS + 50).map(|_| from(&mut stage, "192.0.2.1")).collect();
    assert_eq!(ask(&mut stage, flood[0]), Some(101));
    let told = flood[1..].iter().filter(|client| stage.sent(**client).starts_with(b"HTTP/1.1 429")).count();
    assert_eq!(told, SPARE_SLOTS, "and the others are reset");
    let refused = |stage: &Stage| {
        let counters = stage.shard.counters();
        (counters.refused_address_full, counters.refused_full)
    };
    assert_eq!(refused(&stage), (SPARE_SLOTS as u64 + 49, 0), "each once, told or not");
    for place in 0..99 {
        let client = from(&mut stage, &format!("198.51.100.{place}"));
        assert_eq!(ask(&mut stage, client), Some(101), "{place}");
    }
    let one_more = from(&mut stage, "203.0.113.1");
    assert_eq!(stage.down(one_more), Some(true), "the spare ones are taken");
    assert_eq!(refused(&stage), (SPARE_SLOTS as u64 + 49, 1));
    stage.pass(6);
    assert_eq!(stage.shard.inspect().slots, 100, "those that were turned away are gone");
    let one_more = from(&mut stage, "203.0.113.1");
    assert_eq!(ask(&mut stage, one_more), Some(503));
    assert_eq!(refused(&stage), (SPARE_SLOTS as u64 + 49, 2));
}

#[test]
fn who_waited_in_the_kernels_queue_while_the_gateway_ends_is_refused_for_that_alone() {
    let mut stage = Stage::new("", "echo = {}");
    let _open = stage.open();
    stage.drain();
    let late = stage.accept();
    assert!(stage.sent(late).starts_with(b"HTTP/1.1 503"));
    let counters = stage.shard.counters();
    assert_eq!((counters.refused_draining, counters.refused_full), (1, 0));
}

#[test]
fn a_route_has_so_many_sessions_and_no_upstream_hears_of_more() {
    let mut stage =
        Stage::new("", "proxy = { upstreams = [\"ws://127.0.0.1:9\"] }\nlimits = { max_sessions = 1 }");
    let (client, _) = stage.pair();
    assert_eq!(stage.plan.route_sessions(0), 1);
    let sockets = stage.world.borrow().sockets.len();
    let second = stage.client("");
    assert_eq!(ask(&mut stage, second), Some(503));
    assert_eq!(stage.world.borrow().sockets.len(), sockets + 1, "nothing was dialed");
    assert_eq!(stage.shard.counters().refused_route_full, 1);
    leave(&mut stage, client);
    stage.pass(1);
    assert_eq!(stage.plan.route_sessions(0), 0);
    let third = stage.client("");
    assert_eq!(stage.plan.route_sessions(0), 1, "it waits for its upstream");
    leave(&mut stage, third);
    assert_eq!(stage.plan.route_sessions(0), 0);
}

#[test]
fn streams_of_events_count_and_other_requests_do_not() {
    let config = "[[route]]\npath = \"/events\"\nevents = { subscribe = [\"*\"] }\nlimits = { max_sessions = 1 }\n\
                  [[route]]\npath = \"/\"\npage = {}\n";
    let mut stage = Stage::of(config, 1);
    let ask = |stage: &mut Stage, method: &str| {
        let client = stage.accept();
        let request = format!("{method} /events?topic=a HTTP/1.1\r\nHost: gw.test\r\n\r\n");
        stage.send(client, request.as_bytes());
        (client, String::from_utf8_lossy(&stage.sent(client))[9..12].to_owned())
    };
    // What a browser asks before a stream takes no place, and finds an answer where there is none.
    assert_eq!(ask(&mut stage, "OPTIONS").1, "200");
    assert_eq!(stage.plan.route_sessions(0), 0);
    let (first, status) = ask(&mut stage, "GET");
    assert_eq!(status, "200");
    assert_eq!(ask(&mut stage, "GET").1, "503");
    assert_eq!(ask(&mut stage, "OPTIONS").1, "200");
    leave(&mut stage, first);
    stage.pass(6);
    assert_eq!(ask(&mut stage, "GET").1, "200");
    assert_eq!((stage.plan.route_sessions(0), stage.plan.route_sessions(1)), (1, 0));
}

#[test]
fn no_session_comes_while_too_much_waits_and_those_that_are_open_go_on() {
    let config = "[limits]\nmemory = \"1MiB\"\noutbox_soft = \"2MiB\"\n[topics]\nmemory = \"1MiB\"\n\
                  [[route]]\npath = \"/r\"\necho = {}\n[[route]]\npath = \"/\"\npage = {}\n";
    let mut stage = Stage::of(config, 1);
    let slow = stage.open();
    let other = stage.open();
    stage.socket(slow, |kernel| kernel.room = 0);
    // Whole in their buffers: half ones would be given up.
    let message = frame(0x82, &vec![7; 15 << 10], true);
    (0..40).for_each(|_| stage.send(slow, &message));
    let third = stage.open();
    assert!(stage.plan.retained_bytes() < 1 << 20);
    (0..40).for_each(|_| stage.send(slow, &message));
    assert!(stage.plan.retained_bytes() >= 1 << 20);
    let refused = stage.client("");
    assert_eq!(ask(&mut stage, refused), Some(503));
    assert_eq!(stage.shard.counters().refused_memory, 1);
    let page = stage.accept();
    stage.send(page, b"GET / HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    assert!(stage.sent(page).starts_with(b"HTTP/1.1 200"));
    for open in [other, third] {
        stage.send(open, &frame(0x81, b"on", true));
        assert_eq!(stage.sent(open), frame(0x81, b"on", false));
    }
    stage.make_room(slow, usize::MAX);
    stage.open();
}

/// So many short messages, numbered.
fn numbered(count: u8) -> Vec<u8> {
    (0..count).flat_map(|number| frame(0x82, &[number], true)).collect()
}

fn answers(count: u8) -> Vec<u8> {
    (0..count).flat_map(|number| frame(0x82, &[number], false)).collect()
}

const ROUTES: [&str; 2] = ["echo = {}", "proxy = { upstreams = [\"ws://127.0.0.1:9\"] }"];

/// A session on either, and the socket on which what it says comes out again.
fn session(route: &str, limits: &str) -> (Stage, Socket, Socket) {
    let mut stage = Stage::new(limits, route);
    let (client, out) = match route.starts_with("echo") {
        true => {
            let client = stage.open();
            (client, client)
        }
        false => stage.pair(),
    };
    (stage, client, out)
}

/// Messages that came out, and the time that passes, in milliseconds, until `count` of them have.
fn out_after(stage: &mut Stage, out: Socket, count: usize, most_ms: u64) -> u64 {
    // Masked with zeros or not at all, one byte each.
    let whole = |stage: &Stage| {
        let sent = stage.sent(out);
        let each = if sent.get(1).is_some_and(|byte| byte & 0x80 != 0) { 7 } else { 3 };
        sent.len() / each
    };
    let mut passed_ms = 0;
    while whole(stage) < count {
        assert!(passed_ms < most_ms, "{} of {count} after {passed_ms} ms", whole(stage));
        stage.world.borrow_mut().now_ms += 10;
        passed_ms += 10;
        stage.turns(2);
    }
    assert_eq!(whole(stage), count, "no more than these after {passed_ms} ms");
    passed_ms
}

#[test]
fn what_is_too_fast_is_read_later_and_in_order() {
    for route in ROUTES {
        let limits = "messages_per_second = 10\nburst_messages = 5";
        let (mut stage, client, out) = session(route, limits);
        if route.starts_with("echo") {
            stage.send(client, &numbered(25));
            // The burst at once, and then one each 100 ms, within the wheel's tick.
            assert_eq!(out_after(&mut stage, out, 5, 0), 0);
            for count in 6..=25 {
                let waited_ms = out_after(&mut stage, out, count, 200);
                assert!((70..=130).contains(&waited_ms), "{waited_ms} ms before message {count}");
            }
            assert_eq!(stage.sent(out), answers(25));
        } else {
            // Judged by the buffer: what came at once goes at once, and is made up for.
            stage.send(client, &numbered(25));
            assert_eq!(out_after(&mut stage, out, 25, 0), 0);
            assert!(stage.socket(client, |kernel| kernel.receive.is_none()), "it is not read");
            stage.pass(2);
            assert!(stage.socket(client, |kernel| kernel.receive.is_none()));
            stage.pass(1);
            stage.send(client, &numbered(1));
            assert_eq!(out_after(&mut stage, out, 26, 0), 0);
        }
        assert!(stage.shard.counters().rate_delayed > 0);
        // A Close is no message.
        stage.pass(10);
        stage.send(client, &frame(0x88, &[3, 232], true));
        stage.turns(3);
        assert!(stage.sent(out).len() > 25 * 3);
        stage.pass(12);
        assert_eq!(stage.shard.inspect().slots, 0);
    }
}

#[test]
fn a_delayed_session_is_not_pinged_to_death_and_goes_on_behind_a_full_outbox() {
    let limits = "messages_per_second = 1\nburst_messages = 1\nping_interval = \"1s\"\npong_timeout = \"1s\"\n\
                  outbox_soft = \"1KiB\"";
    let (mut stage, client, _) = session("echo = {}", limits);
    stage.socket(client, |kernel| kernel.room = 0);
    let long = frame(0x82, &vec![1; 2000], true);
    stage.send(client, &[long.clone(), long.clone(), long].concat());
    stage.pass(3);
    assert_eq!(stage.down(client), None);
    assert!(stage.socket(client, |kernel| kernel.receive.is_none()), "its outbox is full");
    for count in 1..=3 {
        stage.make_room(client, usize::MAX);
        stage.pass(2);
        let answers =
            stage.sent(client).windows(2000).filter(|part| part.iter().all(|byte| *byte == 1)).count();
        assert!(answers >= count, "{answers}");
    }
}

#[test]
fn who_is_gone_is_not_waited_for_until_all_that_he_sent_was_due() {
    let limits = "messages_per_second = 1\nburst_messages = 1\nping_interval = \"2s\"\npong_timeout = \"1s\"";
    let (mut stage, client, upstream) = session(ROUTES[1], limits);
    // Judged by the buffer: all of it goes, and is made up for in 200 s.
    stage.send(client, &numbered(200));
    let pass = |stage: &mut Stage, seconds: u64| {
        for _ in 0..seconds {
            // What answers the gateway's own pings is not handed on.
            stage.send(upstream, &frame(0x8a, b"tidegate\xf0\x9f\x8c\x8a", false));
            stage.pass(1);
        }
    };
    // Whoever is there is not ended for an answer that nobody would read.
    pass(&mut stage, 20);
    assert_eq!(stage.down(client), None);
    stage.socket(client, |kernel| kernel.broken = true);
    pass(&mut stage, 5);
    assert!(stage.down(client).is_some());
}

#[test]
fn answers_to_pings_that_were_not_read_meanwhile_end_nobody() {
    let limits = "bytes_per_second = 10\nburst_bytes = 10\nping_interval = \"2s\"\npong_timeout = \"1s\"\n\
                  control_frames = 3";
    let pong = |masked| frame(0x8a, b"tidegate\xf0\x9f\x8c\x8a", masked);
    for route in ROUTES {
        let (mut stage, client, out) = session(route, limits);
        stage.send(client, &frame(0x82, &[1; 1000], true));
        let ping = &frame(0x89, b"tidegate\xf0\x9f\x8c\x8a", false);
        let until_read = |stage: &mut Stage| {
            while stage.socket(client, |kernel| kernel.receive.is_none()) {
                assert_eq!(stage.down(client), None, "{route}: {:?}", stage.log.borrow());
                if out != client {
                    stage.send(out, &pong(false));
                }
                stage.pass(1);
            }
        };
        let pings = |stage: &Stage| {
            let sent = stage.sent(client);
            sent.windows(ping.len()).filter(|part| part == ping).count()
        };
        until_read(&mut stage);
        let count = pings(&stage);
        // In the 99 s until it is read again.
        assert!(count > 20, "{route}: {count}");
        stage.send(client, &pong(true).repeat(count));
        stage.turns(3);
        until_read(&mut stage);
        stage.send(client, &frame(0x82, &[2; 2], true));
        stage.turns(3);
        assert!(stage.sent(out).ends_with(&[2; 2]), "{route}: {:?}", stage.log.borrow());
        // More than were asked for count.
        until_read(&mut stage);
        stage.send(client, &pong(true).repeat(200));
        stage.turns(3);
        let log = stage.log.borrow().join("\n");
        assert!(log.contains("code=1008"), "{route}: {log}");
    }
}

#[test]
fn bytes_have_a_rate_of_their_own() {
    let (mut stage, client, out) = session("echo = {}", "bytes_per_second = 1000\nburst_bytes = 100");
    // Longer than the burst: it is taken, and what is behind it pays.
    stage.send(client, &[frame(0x82, &[7; 1100], true), frame(0x82, &[8], true)].concat());
    assert_eq!(stage.sent(out).len(), 1104);
    stage.pass(1);
    assert_eq!(
        stage.sent(out).len(),
        1104,
        "1,000 bytes are made up for after a second, and one more is not"
    );
    stage.pass(1);
    assert_eq!(stage.sent(out).len(), 1107);
}

#[test]
fn what_is_too_fast_is_dropped_where_that_is_asked_for() {
    let limits = "messages_per_second = 10\nburst_messages = 5\nexcess = \"drop\"";
    let (mut stage, client, out) = session("echo = {}", limits);
    stage.send(client, &numbered(25));
    assert_eq!(stage.sent(out), answers(5));
    assert_eq!(stage.shard.counters().rate_dropped, 20);
    stage.pass(1);
    stage.send(client, &[frame(0x82, &[99], true), frame(0x89, b"p", true)].concat());
    assert_eq!(stage.sent(out), [answers(5), frame(0x82, &[99], false), frame(0x8a, b"p", false)].concat());
}

#[test]
fn what_is_too_fast_ends_the_session_where_that_is_asked_for() {
    for route in ROUTES {
        let limits = "messages_per_second = 10\nburst_messages = 5\nexcess = \"close\"";
        let (mut stage, client, out) = session(route, limits);
        let other = if client == out { stage.open() } else { stage.pair().0 };
        stage.send(client, &numbered(25));
        let told = close_frame(1008, "too many messages or bytes in a short time");
        if client == out {
            assert_eq!(stage.sent(client), [answers(5), told].concat());
        } else {
            stage.pass(6);
            assert!(stage.sent(client).ends_with(&told), "{:?}", stage.sent(client));
        }
        assert_eq!(stage.shard.counters().rate_closed, 1);
        assert!(stage.log.borrow().iter().any(|line| line.contains("code=1008")));
        // Others are not affected.
        stage.send(other, &frame(0x82, &[1], true));
        assert_eq!(stage.shard.counters().rate_closed, 1);
        assert_eq!(stage.down(other), None);
    }
}

#[test]
fn topics_have_rates_too() {
    // Who is gone has no subscription.
    for (excess, at_once, later) in [("delay", 2, 3), ("drop", 2, 2), ("close", 0, 0)] {
        let limits = format!("messages_per_second = 1\nburst_messages = 2\nexcess = \"{excess}\"");
        let mut stage = Stage::new(&limits, "topics = { publish = [\"*\"], subscribe = [\"*\"] }");
        let client = stage.open();
        let command = |id: u8| {
            frame(0x81, format!("{{\"op\":\"subscribe\",\"id\":{id},\"topic\":\"t{id}\"}}").as_bytes(), true)
        };
        stage.send(client, &[command(1), command(2), command(3)].concat());
        let subscribed = |stage: &Stage| stage.plan.topics_held().1;
        assert_eq!(subscribed(&stage), at_once, "{excess}");
        assert_eq!(stage.socket(client, |kernel| kernel.fin), excess == "close");
        stage.pass(2);
        assert_eq!(subscribed(&stage), later, "{excess}");
    }
}

#[test]
fn one_cause_does_not_fill_the_log() {
    let mut stage = Stage::new("sessions_per_address = 1\nhandshakes_per_second = 0", "echo = {}");
    // The stage has a hundred slots, and spare ones.
    for _ in 0..6 {
        let silent: Vec<_> = (0..50).map(|_| from(&mut stage, "127.0.0.1")).collect();
        stage.pass(11);
        assert!(silent.iter().all(|client| stage.sent(*client).starts_with(b"HTTP/1.1 408")));
        stage.pass(6);
    }
    let written =
        |stage: &Stage, text: &str| stage.log.borrow().iter().filter(|line| line.contains(text)).count();
    assert_eq!(written(&stage, "status=408"), 300, "fifty in a second are all written");
    for _ in 0..10 {
        let bad: Vec<_> = (0..50).map(|_| from(&mut stage, "127.0.0.1")).collect();
        bad.iter().for_each(|client| stage.send(*client, b"no request\r\n\r\n"));
        bad.iter().for_each(|client| leave(&mut stage, *client));
    }
    assert_eq!(written(&stage, "status=400"), 100);
    stage.pass(1);
    stage.pass(1);
    assert_eq!(written(&stage, "log entries left out entries=400 reason="), 1);
}

#[test]
fn a_drain_does_not_wait_for_what_is_delayed() {
    for route in ROUTES {
        let (mut stage, client, out) = session(route, "messages_per_second = 1\nburst_messages = 1");
        stage.send(client, &numbered(20));
        stage.drain();
        assert!(stage.sent(client).ends_with(&close_frame(1001, "going away")), "{route}");
        stage.pass(12);
        assert_eq!(stage.shard.inspect().slots, 0, "{route}");
        assert!(out >= client);
    }
}

#[test]
fn upstreams_that_answer_late_give_nobody_more_than_the_memory_for_takeover() {
    // Room for one session.
    let mut stage = Stage::new(
        "takeover_bytes = \"512KiB\"",
        "proxy = { upstreams = [\"ws://127.0.0.1:9\"], context_takeover = true }",
    );
    let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    let clients: Vec<Socket> = (0..3).map(|_| stage.client(offer)).collect();
    for client in &clients {
        stage.upgrade(client + 1);
    }
    let forgets = |client: &Socket| {
        let sent = String::from_utf8(stage.sent(*client)).expect("a head");
        assert!(sent.contains("\r\nSec-WebSocket-Extensions: permessage-deflate"), "{sent}");
        sent.contains("server_no_context_takeover; client_no_context_takeover")
    };
    assert_eq!(clients.iter().map(forgets).collect::<Vec<_>>(), [false, true, true]);
}
