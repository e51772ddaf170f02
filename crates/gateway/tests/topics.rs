//! Topics over real sockets: the protocol, raw topics, recovery, presence, and what the slow get. On both backends, on one
//! shard and on several, between which topics and their subscribers are spread.

mod harness;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{
    BACKENDS, PATIENCE,
    client::{Client, End, Received},
    everywhere,
    frame::{BINARY, CLOSE, FIN, PING, PONG, TEXT, close, masked},
    gateway::Gateway,
    request::take_event,
};

const CONFIG: &str = r#"
version = 1
[limits]
close_timeout = "1s"
ping_interval = "20s"
receive_buffers = 64
[[listener]]
bind = "127.0.0.1:0"
[[topic]]
name = "chat/**"
history = 100
presence = true
[[topic]]
name = "kept/**"
history = 5
history_age = "1h"
[[topic]]
name = "slow/newest"
slow = "drop_new"
[[topic]]
name = "slow/oldest"
slow = "drop_old"
backlog_bytes = "64KiB"
[[topic]]
name = "slow/keys"
slow = "conflate"
[[topic]]
name = "slow/resync"
slow = "resync"
[[route]]
path = "/topics/*"
topics = { subscribe = ["**"], publish = ["**"], presence = ["**"], session_bytes = "64KiB" }
[[route]]
path = "/few/*"
topics = { subscribe = ["chat/*"], publish = ["chat/lobby"], max_subscriptions = 3, max_patterns = 1 }
"#;

/// A client that speaks the protocol.
struct Talker {
    client: Client,
    name: String,
}

impl Talker {
    fn open(gateway: &Gateway) -> Talker {
        Talker::open_at(gateway, "/topics")
    }

    fn open_at(gateway: &Gateway, path: &str) -> Talker {
        let (client, response) =
            Client::open_with(gateway.address(), path, "Sec-WebSocket-Protocol: other, tidegate.v1\r\n");
        assert_eq!(response.field("sec-websocket-protocol"), Some("tidegate.v1"));
        let mut talker = Talker { client, name: String::new() };
        let hello = talker.hear();
        assert_eq!(
            (&hello["op"], &hello["version"], &hello["ping"]),
            (&json!("hello"), &json!(1), &json!(20))
        );
        talker.name = hello["client"].as_str().expect("a name").to_owned();
        talker
    }

    fn say(&mut self, message: &Value) {
        self.client.send(&masked(FIN | TEXT, message.to_string().as_bytes()));
    }

    fn hear(&mut self) -> Value {
        let text = loop {
            let frame = self.client.frame();
            if frame.opcode != PING {
                assert_eq!((frame.fin, frame.rsv, frame.opcode), (true, 0, TEXT), "{frame:?}");
                break frame.payload;
            }
            self.client.send(&masked(FIN | PONG, &frame.payload));
        };
        serde_json::from_slice(&text)
            .unwrap_or_else(|error| panic!("{error}: {:?}", String::from_utf8_lossy(&text)))
    }

    /// Says something with an id, and gives the answer, which is what comes next.
    fn ask(&mut self, message: Value) -> Value {
        let mut message = message;
        message["id"] = json!("q");
        self.say(&message);
        let answer = self.hear();
        assert_eq!(answer["id"], "q", "{answer}");
        answer
    }

    fn subscribe(&mut self, topic: &str) -> Value {
        let answer = self.ask(json!({ "op": "subscribe", "topic": topic }));
        assert_eq!((&answer["op"], &answer["topic"]), (&json!("subscribed"), &json!(topic)), "{answer}");
        answer
    }

    fn publish(&mut self, topic: &str, data: &Value) -> Value {
        let answer = self.ask(json!({ "op": "publish", "topic": topic, "data": data }));
        assert_eq!((&answer["op"], &answer["level"]), (&json!("published"), &json!("accepted")), "{answer}");
        answer
    }

    /// Nothing more has come: what is answered now is the next.
    fn hears_nothing_else(&mut self) {
        assert_eq!(self.ask(json!({ "op": "ping" }))["op"], "pong");
    }

    fn error(&mut self, message: Value) -> String {
        let answer = self.ask(message);
        assert_eq!(answer["op"], "error", "{answer}");
        assert!(answer["message"].as_str().is_some_and(|text| !text.is_empty()), "{answer}");
        answer["code"].as_str().expect("a code").to_owned()
    }
}

#[test]
fn what_is_published_reaches_all_subscribers_in_order() {
    everywhere(CONFIG, |gateway| {
        let mut talkers: Vec<Talker> = (0..8).map(|_| Talker::open(gateway)).collect();
        let mut bystander = Talker::open(gateway);
        bystander.subscribe("chat/other");
        let epochs: Vec<Value> =
            talkers.iter_mut().map(|talker| talker.subscribe("chat/lobby")["epoch"].take()).collect();
        assert!(epochs.windows(2).all(|pair| pair[0] == pair[1]), "{epochs:?}");
        let mut publisher = Talker::open(gateway);
        for n in 1..=20 {
            let answer = publisher.publish("chat/lobby", &json!({ "n": n, "text": "\u{1f600} \"quoted\"" }));
            assert_eq!((&answer["offset"], &answer["epoch"]), (&json!(n), &epochs[0]));
        }
        for talker in &mut talkers {
            for n in 1..=20 {
                let message = talker.hear();
                assert_eq!(
                    message,
                    json!({ "op": "message", "topic": "chat/lobby", "offset": n,
                            "data": { "n": n, "text": "\u{1f600} \"quoted\"" } })
                );
            }
            talker.hears_nothing_else();
        }
        bystander.hears_nothing_else();
        // Who has left hears no more; the others do.
        let mut leaver = talkers.pop().expect("eight");
        assert_eq!(leaver.ask(json!({ "op": "unsubscribe", "topic": "chat/lobby" }))["op"], "unsubscribed");
        publisher.publish("chat/lobby", &json!(21));
        leaver.hears_nothing_else();
        assert_eq!(talkers[0].hear()["data"], 21);
    });
}

#[test]
fn data_reaches_subscribers_byte_by_byte() {
    everywhere(CONFIG, |gateway| {
        let mut reader = Talker::open(gateway);
        reader.subscribe("a");
        let mut raw = Client::open(gateway.address(), "/topics/a");
        let mut writer = Talker::open(gateway);
        // The raw subscriber's subscription has no answer: it is there when its own message comes back.
        raw.exchange(TEXT, b"here");
        assert_eq!(reader.hear()["text"], "here");
        let data = r#"{ "big": 123456789012345678901234567890, "e":1e400 ,"s":"\u00e9\/","": [ ] }"#;
        writer.client.send(&masked(
            FIN | TEXT,
            format!(r#"{{"op":"publish","topic":"a","data": {data} }}"#).as_bytes(),
        ));
        let message = reader.client.message(TEXT);
        let expected = format!(r#""data":{data}}}"#);
        assert!(message.ends_with(expected.as_bytes()), "{}", String::from_utf8_lossy(&message));
        assert_eq!(raw.message(TEXT), data.as_bytes());
        writer.say(&json!({ "op": "publish", "topic": "a", "base64": "AAH/" }));
        assert_eq!(reader.hear()["base64"], "AAH/");
        assert_eq!(raw.message(BINARY), [0, 1, 255]);
        raw.exchange(BINARY, &[7; 70_000]);
        assert_eq!(reader.hear()["base64"].as_str().map(str::len), Some(70_000_usize.div_ceil(3) * 4));
    });
}

#[test]
fn patterns_bring_each_message_once() {
    everywhere(CONFIG, |gateway| {
        let mut talker = Talker::open(gateway);
        talker.subscribe("scores/*");
        talker.subscribe("scores/**");
        talker.subscribe("scores/a");
        let mut other = Talker::open(gateway);
        other.subscribe("scores/*");
        // Interest in a pattern has no answer from the other shards: what was published before they know does not come.
        let mut publisher = Talker::open(gateway);
        let until = Instant::now() + PATIENCE;
        loop {
            publisher.publish("scores/x/y", &json!("probe"));
            publisher.publish("scores/z", &json!("probe"));
            other.say(&json!({ "op": "ping" }));
            let mut knows = false;
            loop {
                let heard = other.hear();
                if heard["op"] == "pong" {
                    break;
                }
                assert_eq!(heard["topic"], "scores/z");
                knows = true;
            }
            if knows {
                break;
            }
            assert!(Instant::now() < until, "the interest in a pattern does not arrive");
        }
        publisher.publish("scores/a", &json!("both"));
        loop {
            let message = talker.hear();
            if message["topic"] == "scores/a" {
                assert_eq!(message["data"], "both");
                break;
            }
            assert_eq!(message["data"], "probe");
        }
        talker.hears_nothing_else();
    });
}

#[test]
fn what_was_missed_is_recovered_or_said_to_be_lost() {
    everywhere(CONFIG, |gateway| {
        let mut publisher = Talker::open(gateway);
        let mut first = Talker::open(gateway);
        let at = first.subscribe("kept/1");
        for n in 1..=3 {
            publisher.publish("kept/1", &json!(n));
        }
        let (epoch, offset) = (at["epoch"].clone(), at["offset"].as_u64().expect("an offset"));
        let recover = |epoch: &Value, offset: u64| json!({ "op": "subscribe", "topic": "kept/1", "recover": { "epoch": epoch, "offset": offset } });
        let mut second = Talker::open(gateway);
        let answer = second.ask(recover(&epoch, offset + 1));
        assert_eq!((&answer["recovered"], &answer["offset"]), (&json!(true), &json!(offset + 3)), "{answer}");
        assert_eq!([second.hear()["data"].take(), second.hear()["data"].take()], [json!(2), json!(3)]);
        publisher.publish("kept/1", &json!(4));
        assert_eq!(second.hear()["data"], 4);
        // More than the history keeps.
        for n in 5..=9 {
            publisher.publish("kept/1", &json!(n));
        }
        for (epoch, offset) in
            [(epoch.clone(), offset), (epoch.clone(), 1_000), (json!("00000000"), offset + 8)]
        {
            let mut late = Talker::open(gateway);
            let answer = late.ask(recover(&epoch, offset));
            assert_eq!((&answer["recovered"], &answer["offset"]), (&json!(false), &json!(9)), "{answer}");
            late.hears_nothing_else();
        }
        let mut late = Talker::open(gateway);
        let answer = late.ask(json!({ "op": "subscribe", "topic": "kept/1", "history": 3 }));
        assert_eq!(answer.get("recovered"), None);
        assert_eq!([7, 8, 9].map(|n| late.hear()["data"] == n), [true; 3]);
        let history = late.ask(json!({ "op": "history", "topic": "kept/1", "limit": 2, "before": 9 }));
        assert_eq!(
            history["messages"],
            json!([{ "offset": 7, "data": 7 }, { "offset": 8, "data": 8 }]),
            "{history}"
        );
        // Of another topic, which has no history.
        assert_eq!(late.error(json!({ "op": "history", "topic": "nothing" })), "no_history");
    });
}

#[test]
fn an_idempotency_key_publishes_once() {
    everywhere(CONFIG, |gateway| {
        let (mut publisher, mut reader) = (Talker::open(gateway), Talker::open(gateway));
        reader.subscribe("kept/once");
        let message = json!({ "op": "publish", "topic": "kept/once", "data": 1, "once": "order-7" });
        let first = publisher.ask(message.clone());
        let again = publisher.ask(message);
        assert_eq!((&first["offset"], &first.get("duplicate")), (&json!(1), &None));
        assert_eq!((&again["offset"], &again["duplicate"]), (&json!(1), &json!(true)));
        assert_eq!(reader.hear()["offset"], 1);
        reader.hears_nothing_else();
    });
}

#[test]
fn presence_follows_those_who_come_and_go() {
    everywhere(CONFIG, |gateway| {
        let mut watcher = Talker::open(gateway);
        let answer = watcher
            .ask(json!({ "op": "subscribe", "topic": "chat/p", "presence": true, "info": { "name": "W" } }));
        assert_eq!(answer["op"], "subscribed");
        // Its own coming is not told: it knows.
        let mut guest = Talker::open(gateway);
        guest.ask(json!({ "op": "subscribe", "topic": "chat/p", "info": { "name": "Bob" } }));
        assert_eq!(
            watcher.hear(),
            json!({ "op": "join", "topic": "chat/p", "client": guest.name, "info": { "name": "Bob" } })
        );
        let there = watcher.ask(json!({ "op": "presence", "topic": "chat/p" }));
        assert_eq!(
            (&there["count"], there["clients"].as_array().map(Vec::len)),
            (&json!(2), Some(2)),
            "{there}"
        );
        // It is killed, not closed.
        let name = guest.name.clone();
        guest.client.reset();
        assert_eq!(watcher.hear(), json!({ "op": "leave", "topic": "chat/p", "client": name }));
        assert_eq!(watcher.ask(json!({ "op": "presence", "topic": "chat/p" }))["count"], 1);
        assert_eq!(watcher.error(json!({ "op": "presence", "topic": "kept/1" })), "no_presence");
    });
}

#[test]
fn each_wrong_command_has_its_code_and_hurts_nobody() {
    everywhere(CONFIG, |gateway| {
        let mut talker = Talker::open_at(gateway, "/few");
        for (message, code) in [
            (json!({ "op": "dance" }), "unknown_op"),
            (json!({ "op": "subscribe" }), "invalid_request"),
            (json!({ "op": "subscribe", "topic": 7 }), "invalid_request"),
            (json!({ "op": "subscribe", "topic": "" }), "invalid_topic"),
            (json!({ "op": "subscribe", "topic": "chat//x" }), "invalid_topic"),
            (json!({ "op": "subscribe", "topic": "chat/\u{0}\r\nPUB" }), "invalid_topic"),
            (json!({ "op": "subscribe", "topic": "x".repeat(1 << 19) }), "invalid_topic"),
            (json!({ "op": "publish", "topic": "chat/*", "data": 1 }), "invalid_topic"),
            (json!({ "op": "publish", "topic": "chat/other", "data": 1 }), "not_allowed"),
            (json!({ "op": "publish", "topic": "chat/lobby" }), "invalid_request"),
            (json!({ "op": "subscribe", "topic": "secret" }), "not_allowed"),
            (json!({ "op": "subscribe", "topic": "**" }), "not_allowed"),
            (json!({ "op": "presence", "topic": "chat/lobby" }), "not_allowed"),
            (json!({ "op": "unsubscribe", "topic": "chat/lobby" }), "not_subscribed"),
        ] {
            assert_eq!(
                talker.error(message.clone()),
                code,
                "{}",
                message.to_string().get(..80).unwrap_or("")
            );
        }
        talker.subscribe("chat/a");
        assert_eq!(talker.error(json!({ "op": "subscribe", "topic": "chat/a" })), "already_subscribed");
        talker.subscribe("chat/*");
        assert_eq!(talker.error(json!({ "op": "subscribe", "topic": "chat/**" })), "not_allowed");
        talker.subscribe("chat/b");
        assert_eq!(talker.error(json!({ "op": "subscribe", "topic": "chat/c" })), "too_many");
        for (nonsense, code) in [
            (b"{".to_vec(), "invalid_json"),
            (b"\"text\"".to_vec(), "invalid_json"),
            ([b"[".repeat(100_000), b"]".repeat(100_000)].concat(), "invalid_json"),
            (format!("[{}]", vec!["{\"op\":\"ping\"}"; 65].join(",")).into_bytes(), "too_many"),
        ] {
            talker.client.send(&masked(FIN | TEXT, &nonsense));
            let answer = talker.hear();
            assert_eq!((&answer["op"], &answer["code"]), (&json!("error"), &json!(code)), "{answer}");
        }
        talker.client.send(&masked(FIN | BINARY, b"\x00"));
        assert_eq!(talker.hear()["code"], "binary");
        talker.hears_nothing_else();
        // A batch is done in order, and what is wrong in it is told in its place.
        talker
            .client
            .send(&masked(FIN | TEXT, br#"[{"op":"ping","id":1},{"op":"no","id":2},{"op":"ping","id":3}]"#));
        let ops: Vec<Value> = (0..3).map(|_| talker.hear()).map(|answer| answer["id"].clone()).collect();
        assert_eq!(ops, [json!(1), json!(2), json!(3)]);
    });
}

#[test]
fn too_many_errors_end_the_session() {
    let gateway = Gateway::start(CONFIG, "epoll");
    let mut talker = Talker::open(&gateway);
    for _ in 0..101 {
        talker.client.send(&masked(FIN | TEXT, b"nonsense"));
    }
    for _ in 0..100 {
        assert_eq!(talker.hear()["code"], "invalid_json");
    }
    let frame = talker.client.frame();
    assert_eq!((frame.opcode, frame.close_code()), (CLOSE, 1008));
    gateway.stop();
}

#[test]
fn a_raw_topic_needs_permission() {
    let gateway = Gateway::start(CONFIG, "uring");
    for path in ["/few/secret", "/few/chat/*", "/few/chat//x", "/few/%00"] {
        let mut client = Client::connect(gateway.address());
        client.send(&harness::client::request(path, ""));
        let status = client.response().expect("an answer").status;
        assert!([403, 404, 400].contains(&status), "{path}: {status}");
    }
    // May be read, but not written.
    let mut reader = Client::open(gateway.address(), "/few/chat/a");
    reader.send(&masked(FIN | TEXT, b"x"));
    let frame = reader.frame();
    assert_eq!((frame.opcode, frame.close_code()), (CLOSE, 1008));
    assert_eq!(reader.next(), Received::End(End::Fin));
    gateway.stop();
}

#[test]
fn a_subscriber_that_does_not_read_gets_what_its_topic_says() {
    for io in BACKENDS {
        for topic in ["slow/newest", "slow/oldest", "slow/keys", "slow/resync", "slow"] {
            // Who does not read may take its time over its last bytes.
            let config = CONFIG.replace("close_timeout = \"1s\"", "close_timeout = \"60s\"");
            let gateway = Gateway::start_with(&config, &["--io", io, "--shards", "2"]);
            let mut slow = Talker::open(&gateway);
            slow.subscribe(topic);
            let before_kib = gateway.heap_kib();
            let mut healthy = Talker::open(&gateway);
            healthy.subscribe(topic);
            let mut publisher = Talker::open(&gateway);
            let filler = "x".repeat(30_000);
            let count = 500_u64;
            for n in 1..=count {
                let message = json!({ "op": "publish", "topic": topic, "id": n, "key": (n % 3).to_string(),
                                      "data": { "n": n, "filler": filler } });
                publisher.say(&message);
                assert_eq!(publisher.hear()["op"], "published");
                assert_eq!(healthy.hear()["offset"], n, "{io} {topic}: the others do not notice");
            }
            // 15 MB were published: what waits for the slow one is far less.
            let more_kib = gateway.heap_kib().saturating_sub(before_kib);
            assert!(more_kib < 8 << 10, "{io} {topic}: {more_kib} KiB more");
            let mut last = 0;
            let mut gaps = 0;
            let mut keys = std::collections::HashMap::new();
            loop {
                let frame = slow.client.frame();
                if frame.opcode == CLOSE {
                    assert_eq!((topic, frame.close_code()), ("slow", 1013), "{io}");
                    break;
                }
                if frame.opcode == PING {
                    continue;
                }
                let message: Value = serde_json::from_slice(&frame.payload).expect("JSON");
                if message["op"] == "gap" {
                    assert_eq!(
                        (message["from"].as_u64(), &message["reason"]),
                        (Some(last + 1), &json!("slow"))
                    );
                    last = message["to"].as_u64().expect("an offset");
                    gaps += 1;
                    if last == count {
                        break;
                    }
                    continue;
                }
                let offset = message["offset"].as_u64().expect("an offset");
                match topic {
                    "slow/keys" => assert!(offset > last),
                    _ => assert_eq!(offset, last + 1, "{io} {topic}: no hole that was not announced"),
                }
                keys.insert(offset % 3, offset);
                last = offset;
                if last == count {
                    break;
                }
            }
            match topic {
                "slow" => assert!(last < count && gaps == 0),
                "slow/keys" => {
                    assert_eq!((gaps, keys[&0], keys[&1], keys[&2]), (0, 498, 499, 500), "{io}");
                }
                _ => assert!(gaps > 0, "{io} {topic}"),
            }
            if topic != "slow" {
                // It is live again.
                publisher.publish(topic, &json!("more"));
                assert_eq!(slow.hear()["data"], "more", "{io} {topic}");
            }
            // Not in order: those who do not answer would be waited for.
            drop(gateway);
        }
    }
}

#[test]
fn a_slow_subscriber_that_inflates_gets_all_that_waits() {
    for io in BACKENDS {
        let config = CONFIG.replace("close_timeout = \"1s\"", "close_timeout = \"60s\"");
        let gateway = Gateway::start_with(&config, &["--io", io, "--shards", "2"]);
        let (mut slow, response) = Client::open_with(
            gateway.address(),
            "/topics",
            "Sec-WebSocket-Extensions: permessage-deflate\r\n",
        );
        assert!(
            response
                .field("sec-websocket-extensions")
                .is_some_and(|value| value.contains("permessage-deflate"))
        );
        slow.send(&masked(FIN | TEXT, br#"{"op":"subscribe","id":"s","topic":"slow/oldest"}"#));
        let read = |slow: &mut Client| -> Option<Value> {
            let frame = slow.frame();
            let bytes = match (frame.opcode, frame.rsv) {
                (TEXT, 0) => frame.payload,
                (TEXT, _) => harness::deflate::inflate(&frame.payload),
                _ => return None,
            };
            Some(serde_json::from_slice(&bytes).expect("JSON"))
        };
        while read(&mut slow).is_none_or(|message| message["op"] != "subscribed") {}
        // Nobody else inflates: its frames are made for it alone, as soon as it is behind.
        let mut publisher = Talker::open(&gateway);
        let mut state = 1_u64;
        let count = 600_u64;
        for n in 1..=count {
            // Text that deflate cannot make small.
            let filler: String = (0..20_000)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    char::from(b'0' + (state >> 58) as u8)
                })
                .filter(|c| *c != '\\')
                .collect();
            publisher.publish("slow/oldest", &json!({ "n": n, "filler": filler }));
        }
        let (mut last, mut gaps) = (0, 0);
        while last < count {
            let Some(message) = read(&mut slow) else { continue };
            match message["op"].as_str() {
                Some("gap") => {
                    assert_eq!(message["from"], last + 1, "{io}");
                    last = message["to"].as_u64().expect("an offset");
                    gaps += 1;
                }
                _ => {
                    assert_eq!(message["offset"], last + 1, "{io}");
                    last += 1;
                }
            }
        }
        assert!(gaps > 0, "{io}: it was never behind");
        drop(gateway);
    }
}

#[test]
fn a_slow_stream_of_events_catches_up() {
    for io in BACKENDS {
        let config = format!(
            "{CONFIG}[[route]]\npath = \"/events\"\nevents = {{ subscribe = [\"**\"], session_bytes = \"16KiB\" }}\n"
        );
        let gateway = Gateway::start_with(&config, &["--io", io, "--shards", "2"]);
        let mut stream = Client::connect(gateway.address());
        stream.send(b"GET /events?topic=slow/oldest HTTP/1.1\r\nHost: gw.test\r\n\r\n");
        assert_eq!(stream.response().expect("a stream").status, 200);
        let mut publisher = Talker::open(&gateway);
        let filler = "x".repeat(30_000);
        let count = 400_u64;
        for n in 1..=count {
            publisher.publish("slow/oldest", &json!({ "n": n, "filler": filler }));
        }
        let mut text = String::new();
        let (mut last, mut gaps) = (0, 0);
        while last < count {
            text.push_str(std::str::from_utf8(&stream.chunk()).expect("UTF-8"));
            while let Some(event) = take_event(&mut text) {
                let Some(data) = event.lines().find_map(|line| line.strip_prefix("data: ")) else { continue };
                let data: Value = serde_json::from_str(data).expect("JSON");
                if data.get("topics").is_some() {
                    continue;
                }
                if let Some(to) = data["to"].as_u64() {
                    assert_eq!(data["from"], last + 1, "{io}");
                    last = to;
                    gaps += 1;
                } else {
                    assert_eq!(data["offset"], last + 1, "{io}");
                    last += 1;
                }
            }
        }
        assert!(gaps > 0, "{io}: it was never behind");
        gateway.stop();
    }
}

#[test]
fn a_slow_member_of_a_room_that_ends_is_seen_to_leave() {
    for io in BACKENDS {
        let gateway = Gateway::start(CONFIG, io);
        let mut watcher = Talker::open(&gateway);
        watcher.ask(json!({ "op": "subscribe", "topic": "chat/slow", "presence": true }));
        let mut slow = Talker::open(&gateway);
        slow.subscribe("chat/slow");
        assert_eq!(watcher.hear()["op"], "join");
        let mut publisher = Talker::open(&gateway);
        let filler = "x".repeat(60_000);
        let until = Instant::now() + PATIENCE;
        loop {
            publisher.publish("chat/slow", &json!(filler));
            let heard = watcher.hear();
            if heard["op"] == "leave" {
                assert_eq!(heard["client"], json!(slow.name));
                break;
            }
            assert_eq!(heard["op"], "message");
            assert!(Instant::now() < until, "{io}: it is still there");
            publisher.say(&json!({ "op": "ping" }));
            publisher.hear();
        }
        drop(gateway);
    }
}

#[test]
fn beyond_the_memory_of_topics_the_worst_subscribers_end_and_the_others_go_on() {
    for io in BACKENDS {
        let config = format!("{CONFIG}\n[topics]\nmemory = \"1MiB\"\n")
            // More than all may hold together.
            .replace("session_bytes = \"64KiB\"", "session_bytes = \"4MiB\"");
        // More shards than sessions that stay, so that some have nobody left while others hold too much.
        let gateway = Gateway::start_with(&config, &["--io", io, "--shards", "4"]);
        let mut publisher = Talker::open(&gateway);
        // Each is alone with its topic, so that what waits for it waits for nobody else.
        let mut slow: Vec<(String, Talker)> = (0..8)
            .map(|n| {
                let topic = format!("alone/{n}");
                let mut talker = Talker::open(&gateway);
                talker.subscribe(&topic);
                (topic, talker)
            })
            .collect();
        let mut healthy = Talker::open(&gateway);
        healthy.subscribe("healthy");
        let filler = "x".repeat(60_000);
        let mut sent = 0_u64;
        let ended = |gateway: &Gateway| -> Vec<String> {
            gateway.log().into_iter().filter(|line| line.contains("hold more memory")).collect()
        };
        // Its socket is full, and all that there is of memory waits for it, before the others' sockets are full.
        let worst = 5;
        let until = Instant::now() + PATIENCE;
        while ended(&gateway).len() < slow.len() {
            for (n, (topic, _)) in slow.iter().enumerate() {
                let times = if n == worst { 4 } else { 1 };
                for _ in 0..times {
                    let answer = publisher.ask(json!({ "op": "publish", "topic": topic, "data": filler }));
                    // While there is no memory it is said, and no more.
                    assert!(answer["op"] == "published" || answer["code"] == "busy", "{answer}");
                }
            }
            sent += 1;
            assert!(Instant::now() < until, "{io}: after {sent} rounds: {:#?}", gateway.log());
            let answer = publisher.ask(json!({ "op": "publish", "topic": "healthy", "data": sent }));
            if answer["op"] == "published" {
                assert_eq!(healthy.hear()["data"], sent, "{io}: the others go on");
            }
        }
        let (first, peer) = (&ended(&gateway)[0], slow[worst].1.client.local());
        assert!(first.contains(&format!("\"{peer}\"")), "{io}: not {peer}, who had the most: {first}");
        let closed = slow.iter_mut().filter_map(|(_, talker)| {
            loop {
                match talker.client.next() {
                    Received::Frame(frame) if frame.opcode == CLOSE => break Some(frame.close_code()),
                    Received::Frame(_) => {}
                    Received::End(_) => break Some(0),
                    Received::Nothing => break None,
                }
            }
        });
        let closed: Vec<u16> = closed.collect();
        assert!(closed.len() == slow.len() && closed.iter().all(|code| *code == 1013), "{io}: {closed:?}");
        drop(gateway);
    }
}

#[test]
fn a_drain_closes_subscribers() {
    everywhere(CONFIG, |gateway| {
        let mut talker = Talker::open(gateway);
        talker.subscribe("chat/lobby");
        gateway.signal(rustix::process::Signal::INT);
        let frame = talker.client.frame();
        assert_eq!((frame.opcode, frame.close_code()), (CLOSE, 1001));
        talker.client.send(&close(1001, b""));
        assert_eq!(talker.client.end_within(Duration::from_secs(5)), Some(End::Fin));
    });
}

#[test]
fn answers_that_are_not_read_stop_the_commands_and_not_the_session() {
    for io in BACKENDS {
        for shards in ["1", "3"] {
            let config =
                CONFIG.replace("name = \"kept/**\"\nhistory = 5", "name = \"kept/**\"\nhistory = 50");
            let gateway = Gateway::start_with(&config, &["--io", io, "--shards", shards]);
            let mut talker = Talker::open(&gateway);
            let filler = "x".repeat(30_000);
            for topic in 0..4 {
                for n in 1..=8 {
                    talker.publish(&format!("kept/{topic}"), &json!({ "n": n, "filler": filler }));
                }
            }
            let before_kib = gateway.heap_kib();
            // 240 KB for each of them: 64 MB.
            let mut greedy: Vec<Talker> = (0..4).map(|_| Talker::open(&gateway)).collect();
            for talker in &mut greedy {
                let history =
                    |n: u64| json!({ "op": "history", "id": n, "topic": format!("kept/{}", n % 4) });
                talker.say(&Value::from((0..64).map(history).collect::<Vec<_>>()));
                talker.say(&json!({ "op": "publish", "id": 64, "topic": "behind", "data": 1 }));
                talker.say(&json!({ "op": "ping", "id": 65 }));
            }
            // The others go on meanwhile.
            talker.publish("chat/other", &json!(1));
            let more_kib = gateway.heap_kib().saturating_sub(before_kib);
            assert!(more_kib < 24 << 10, "{io}: {more_kib} KiB more");
            for talker in &mut greedy {
                let mut ids: Vec<u64> = Vec::new();
                while ids.len() < 66 {
                    let answer = talker.hear();
                    let id = answer["id"].as_u64().expect("a number");
                    if id < 64 {
                        assert_eq!(answer["messages"].as_array().map(Vec::len), Some(8), "{io}");
                        assert_eq!(answer["topic"], format!("kept/{}", id % 4));
                    }
                    ids.push(id);
                }
                assert!(shards == "3" || ids.iter().copied().eq(0..66), "{io}: in the order of the commands");
                ids.sort_unstable();
                assert!(ids.into_iter().eq(0..66), "{io}: each is answered once");
                talker.hears_nothing_else();
            }
            drop(gateway);
        }
    }
}

#[test]
fn what_happened_to_the_slow_stands_in_the_log_of_the_end() {
    let gateway = Gateway::start_with(CONFIG, &["--io", "epoll", "--shards", "1", "--log-level", "debug"]);
    let mut slow = Talker::open(&gateway);
    slow.subscribe("slow/newest");
    let mut publisher = Talker::open(&gateway);
    let filler = "x".repeat(60_000);
    for n in 1..=400 {
        publisher.publish("slow/newest", &json!({ "n": n, "filler": filler }));
    }
    let mut left_out = 0;
    while left_out == 0 {
        let heard = slow.hear();
        if heard["op"] == "gap" {
            left_out = heard["to"].as_u64().zip(heard["from"].as_u64()).map_or(0, |(to, from)| to - from + 1);
        }
    }
    slow.client.reset();
    gateway.signal(rustix::process::Signal::INT);
    let frame = publisher.client.frame();
    assert_eq!((frame.opcode, frame.close_code()), (CLOSE, 1001));
    publisher.client.send(&close(1001, b""));
    drop(publisher);
    let (_, log) = gateway.wait();
    let line = log.iter().find(|line| line.contains("topics: Counts")).expect("the counts of topics");
    for count in ["published: 400", &format!("drop_new: {left_out}"), "drop_new: 1", "resync: 0"] {
        assert!(line.contains(count), "{count}: {line}");
    }
}
