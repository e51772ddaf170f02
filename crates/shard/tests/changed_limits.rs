//! Limits that change under those who are there: what was spent by the rule of before, by the one of now, in virtual time.

mod stage;

use std::net::SocketAddr;

use tidegate_io::ListenerId;

use crate::stage::{Socket, Stage, frame};

const ECHO: &str = "echo = {}";
const PROXY: &str = "proxy = { upstreams = [\"ws://127.0.0.1:9\"] }";

fn adopt(stage: &mut Stage, limits: &str, route: &str) {
    let text = format!(
        "version = 1\n[limits]\n{limits}\n[[listener]]\nbind = \"127.0.0.1:1\"\n[[route]]\npath = \"/r\"\n{route}\n"
    );
    stage
        .adopt(tidegate_config::parse(&text, "test.toml").unwrap_or_else(|problems| panic!("{problems:#?}")));
}

/// A session with this rule, and the socket on which what it says comes out again.
fn session(rule: &str, route: &str) -> (Stage, Socket, Socket) {
    let mut stage = Stage::new(rule, route);
    match route {
        PROXY => {
            let (client, upstream) = stage.pair();
            (stage, client, upstream)
        }
        _ => {
            let client = stage.open();
            (stage, client, client)
        }
    }
}

/// So many messages of 100 bytes.
fn messages(count: usize) -> Vec<u8> {
    frame(0x82, &[7; 100], true).repeat(count)
}

/// Messages of that length that came out: 2 bytes before each where they are answered, 6 where they are forwarded.
fn came_out(stage: &Stage, client: Socket, out: Socket) -> usize {
    let each = if client == out { 102 } else { 106 };
    let sent = stage.sent(out).len();
    assert_eq!(sent % each, 0, "{sent} bytes are whole messages");
    sent / each
}

/// Nobody is closed, left out or not read for what the rule of before allowed: neither where more may be said nor where less may.
#[test]
fn who_kept_to_the_rate_of_before_may_go_on() {
    let bytes = "bytes_per_second = 100\nburst_bytes = 6_000";
    let rates = [
        // (before, said, now, said at once then)
        ("messages_per_second = 1\nburst_messages = 60", 30, "messages_per_second = 1_000", 100),
        ("messages_per_second = 1\nburst_messages = 60", 60, "messages_per_second = 1_000", 100),
        // A higher rate with a smaller burst: what was left of the larger one is there.
        ("messages_per_second = 1\nburst_messages = 60", 30, "messages_per_second = 10", 10),
        ("messages_per_second = 1\nburst_messages = 60", 55, "messages_per_second = 10", 5),
        // A lower one.
        ("messages_per_second = 1_000", 500, "messages_per_second = 1", 1),
        (bytes, 30, "bytes_per_second = 102_400", 100),
        (bytes, 30, "bytes_per_second = 10\nburst_bytes = 10", 1),
        // Only one of the two.
        (
            "messages_per_second = 1\nburst_messages = 60\nbytes_per_second = 100\nburst_bytes = 6_000",
            30,
            "messages_per_second = 1\nburst_messages = 100\nbytes_per_second = 102_400",
            70,
        ),
    ];
    for route in [ECHO, PROXY] {
        for excess in ["delay", "drop", "close"] {
            if route == PROXY && excess == "drop" {
                continue;
            }
            for (before, said, now, more) in rates {
                let rule = |rates: &str| format!("{rates}\nexcess = \"{excess}\"");
                let (mut stage, client, out) = session(&rule(before), route);
                for _ in 0..said {
                    stage.send(client, &messages(1));
                }
                assert_eq!(came_out(&stage, client, out), said);
                adopt(&mut stage, &rule(now), route);
                let case = format!("{route} {excess}: {before} -> {now}");
                if !stage.socket(client, |kernel| kernel.receive.is_some()) {
                    // All was spent, so that it was not read: within the wheel's tick it is.
                    assert_eq!((excess, said), ("delay", 60), "{case}");
                    stage.world.borrow_mut().now_ms += 100;
                    stage.turns(3);
                }
                stage.send(client, &messages(more));
                assert_eq!(came_out(&stage, client, out), said + more, "{case}");
                assert_eq!(stage.down(client), None, "{case}");
                let counters = stage.shard.counters();
                assert_eq!((counters.rate_closed, counters.rate_dropped), (0, 0), "{case}");
            }
        }
    }
}

/// What is said beyond the new rule is too fast by it, and a row of reloads is no row of bursts.
#[test]
fn another_rate_gives_nobody_what_was_spent() {
    let rule = |burst: usize| format!("messages_per_second = 1\nburst_messages = {burst}\nexcess = \"drop\"");
    let (mut stage, client, out) = session(&rule(60), ECHO);
    stage.send(client, &messages(70));
    assert_eq!(came_out(&stage, client, out), 60);
    for burst in 61..=70 {
        adopt(&mut stage, &rule(burst), ECHO);
        stage.send(client, &messages(5));
        assert_eq!(came_out(&stage, client, out), burst, "one more is what it gives");
    }
    // As fast as the new rule allows, and no faster.
    adopt(&mut stage, "messages_per_second = 10\nburst_messages = 70\nexcess = \"drop\"", ECHO);
    stage.pass(1);
    stage.send(client, &messages(20));
    assert_eq!(came_out(&stage, client, out), 80);
}

/// Who is not read by the rule of before is read as soon as the new one allows it.
#[test]
fn who_waits_by_a_slow_rate_goes_on_with_a_faster_one() {
    for (route, now) in
        [ECHO, PROXY].iter().flat_map(|route| [(route, "bytes_per_second = 10_000_000"), (route, "")])
    {
        let (mut stage, client, _) = session("bytes_per_second = 1_000", route);
        (0..6).for_each(|_| stage.arrive(client, &messages(30)));
        stage.turns(3);
        assert!(stage.socket(client, |kernel| kernel.receive.is_none()), "{route}: it is not read");
        adopt(&mut stage, now, route);
        // The wheel's tick.
        stage.world.borrow_mut().now_ms += 100;
        stage.turns(3);
        assert!(stage.socket(client, |kernel| kernel.receive.is_some()), "{route} {now}: it is read");
        assert_eq!(stage.down(client), None);
    }
}

#[test]
fn an_address_that_kept_to_its_rate_is_not_shut_out_by_a_higher_one() {
    let mut stage = Stage::new("handshakes_per_second = 1\nburst_handshakes = 60", ECHO);
    let come = |stage: &mut Stage, count: usize| {
        let peer = SocketAddr::new("192.0.2.1".parse().expect("an address"), 4711);
        let comes = (0..count).map(|_| {
            let client = stage.accept_from(ListenerId(0), Some(peer));
            stage.socket(client, |kernel| kernel.sent.is_empty())
        });
        comes.filter(|taken| *taken).count()
    };
    assert_eq!(come(&mut stage, 30), 30);
    adopt(&mut stage, "handshakes_per_second = 1_000\nburst_handshakes = 40", ECHO);
    assert_eq!(come(&mut stage, 10), 10, "of the thirty that were left");
    adopt(&mut stage, "handshakes_per_second = 1\nburst_handshakes = 20", ECHO);
    assert_eq!(come(&mut stage, 30), 20);
    adopt(&mut stage, "handshakes_per_second = 10\nburst_handshakes = 20", ECHO);
    assert_eq!(come(&mut stage, 10), 0, "all is spent");
    stage.pass(1);
    assert_eq!(come(&mut stage, 20), 10, "what comes in a second");
    // Without a rate nothing is spent.
    adopt(&mut stage, "handshakes_per_second = 0", ECHO);
    assert_eq!(come(&mut stage, 10), 10);
    adopt(&mut stage, "handshakes_per_second = 10\nburst_handshakes = 20", ECHO);
    assert_eq!(come(&mut stage, 30), 20);
}
