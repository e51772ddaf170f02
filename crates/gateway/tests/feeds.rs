//! Topics over HTTP: publishing by POST, server-sent events, long-polling, and what a topic is like. On both backends, on
//! one shard and on several.

mod harness;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{
    BACKENDS, PATIENCE,
    client::{Client, Response},
    everywhere,
    frame::{BINARY, TEXT},
    gateway::Gateway,
    request::{AS_JSON, ask, body, get, post, take_event},
};

const CONFIG: &str = r#"
version = 1
trusted = ["127.0.0.2"]
[limits]
message_bytes = "64KiB"
message_timeout = "2s"
[[listener]]
bind = "127.0.0.1:0"
[[topic]]
name = "kept/**"
history = 5
history_age = "1h"
presence = true
[[route]]
path = "/topics/*"
topics = { subscribe = ["**"], publish = ["**"], presence = ["**"] }
[[route]]
path = "/events"
origins = ["https://page.example"]
events = { subscribe = ["kept/**", "live/**"] }
limits = { ping_interval = "500ms" }
[[route]]
path = "/poll"
poll = { subscribe = ["kept/**", "live/**"], presence = ["kept/**"] }
[[route]]
path = "/publish/*"
publish = { publish = ["kept/**", "live/**"], body_bytes = "256KiB" }
[[route]]
path = "/keyed/*"
[route.publish]
publish = ["kept/**"]
keys = [
    { name = "one", key = "0123456789abcdef", publish = ["kept/1"] },
    { name = "all", key = "fedcba9876543210", publish = ["kept/**"] },
]
[[route]]
path = "/paced"
publish = { publish = ["kept/**"], rate = 10 }
"#;

#[test]
fn what_is_posted_is_published() {
    everywhere(CONFIG, |gateway| {
        let mut raw = Client::open(gateway.address(), "/topics/kept/1");
        raw.exchange(TEXT, b"here");
        // One connection for all: kept alive, and asked again before it has answered.
        let mut client = Client::connect(gateway.address());
        client.send(
            &[
                post("/publish", AS_JSON, br#"{"topic":"kept/1","data":{"a":1}}"#),
                post("/publish/kept/1", "Content-Type: text/plain\r\n", "grüße".as_bytes()),
                post("/publish/kept/1", "", &[0, 1, 2]),
                post(
                    "/publish",
                    AS_JSON,
                    br#"[{"topic":"kept/1","data":1},{"topic":"secret","data":2},{"topic":"a//b","data":3}]"#,
                ),
            ]
            .concat(),
        );
        let answers: Vec<Response> = (0..4).map(|_| client.response().expect("an answer")).collect();
        assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [200, 200, 200, 207]);
        assert!(answers.iter().all(|answer| answer.field("connection") == Some("keep-alive")));
        let first = &body(&answers[0])["results"][0];
        assert_eq!(
            (&first["offset"], &first["level"], &first["topic"]),
            (&json!(2), &json!("accepted"), &json!("kept/1"))
        );
        let many = body(&answers[3]);
        assert_eq!(many["results"][0]["offset"], 5);
        assert_eq!(many["results"][1]["error"]["code"], "not_allowed");
        assert_eq!(many["results"][2]["error"]["code"], "invalid_topic");
        assert_eq!(raw.message(TEXT), br#"{"a":1}"#);
        assert_eq!(raw.message(TEXT), "grüße".as_bytes());
        assert_eq!(raw.message(BINARY), [0, 1, 2]);
        assert_eq!(raw.message(TEXT), b"1");
        let state = body(&ask(gateway, &get("/topics/kept/1", "")));
        assert_eq!(
            (&state["topic"], &state["offset"], &state["subscribers"], &state["history"]),
            (&json!("kept/1"), &json!(5), &json!(1), &json!(5)),
            "{state}"
        );
        // The same key twice is one publication.
        let once = post("/publish/kept/1", "Idempotency-Key: \"k-1\"\r\n", b"x");
        let (one, two) = (body(&ask(gateway, &once)), body(&ask(gateway, &once)));
        assert_eq!((&one["results"][0]["offset"], &two["results"][0]["offset"]), (&json!(6), &json!(6)));
        assert_eq!(two["results"][0]["duplicate"], true);
    });
}

#[test]
fn each_wrong_request_has_its_status() {
    everywhere(CONFIG, |gateway| {
        let nested = [b"[".repeat(100_000), b"]".repeat(100_000)].concat();
        let bearer = |key: &str| format!("{AS_JSON}Authorization: Bearer {key}\r\n");
        let kept = |name: &str| format!(r#"{{"topic":"{name}","data":1}}"#).into_bytes();
        for (request, status) in [
            (post("/publish", AS_JSON, b"{"), 400),
            (post("/publish", AS_JSON, b""), 400),
            (post("/publish", AS_JSON, &nested), 400),
            (post("/publish", "", b"{}"), 415),
            (post("/publish/live/%zz", AS_JSON, b"1"), 400),
            (post("/publish/live/x", AS_JSON, b"no json"), 400),
            (post("/publish/secret", AS_JSON, b"1"), 403),
            (post("/publish/live/x", "", &[7; (256 << 10) + 1]), 413),
            (post("/publish/live/x", "", &[7; (64 << 10) + 1]), 413),
            (get("/publish", ""), 405),
            (b"POST /publish HTTP/1.1\r\nHost: gw.test\r\n\r\n".to_vec(), 411),
            (b"POST /publish HTTP/1.1\r\nHost: gw.test\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(), 411),
            (post("/keyed", AS_JSON, &kept("kept/1")), 401),
            (post("/keyed", &bearer("0123456789abcdeX"), &kept("kept/1")), 401),
            (post("/keyed", &bearer("0123456789abcdef"), &kept("kept/1")), 200),
            (post("/keyed", &bearer("0123456789abcdef"), &kept("kept/2")), 403),
            (post("/keyed", &bearer("fedcba9876543210"), &kept("kept/2")), 200),
            (
                b"GET /poll?topic=live/a HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 5\r\n\r\nGET /"
                    .to_vec(),
                400,
            ),
            (b"OPTIONS /publish HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 5\r\n\r\nPOST ".to_vec(), 400),
            (get("/events", ""), 400),
            (get("/events?topic=secret", ""), 403),
            (get("/events?topic=live/a", "Origin: https://evil.example\r\n"), 403),
            (post("/events?topic=live/a", "", b""), 405),
            (get("/poll?topic=live/*", ""), 400),
            (get("/poll?topic=live/a&wait=x", ""), 400),
            (get("/topics/a%00b", ""), 400),
            (get("/topics", ""), 426),
        ] {
            let response = ask(gateway, &request);
            let shown = String::from_utf8_lossy(&request[..request.len().min(90)]).into_owned();
            assert_eq!(
                response.status,
                status,
                "{shown}\n{}\n{}",
                response.head,
                String::from_utf8_lossy(&response.body)
            );
        }
    });
}

#[test]
fn a_body_that_does_not_come_is_not_waited_for_and_one_that_was_announced_is_asked_for() {
    let gateway = Gateway::start(CONFIG, "uring");
    let mut client = Client::connect(gateway.address());
    client.send(b"POST /publish/live/a HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 10\r\n\r\nabc");
    assert_eq!(client.response().expect("an answer").status, 408);
    let mut client = Client::connect(gateway.address());
    client.send(b"POST /publish/live/a HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.response().expect("it may go on").status, 100);
    client.send(b"abc");
    assert_eq!(client.response().expect("an answer").status, 200);
    gateway.stop();
}

#[test]
fn who_holds_a_key_has_idempotency_keys_of_its_own() {
    let gateway = Gateway::start_with(CONFIG, &["--shards", "3"]);
    let publish = |path: &str, holder: &str| {
        let bearer = format!("Authorization: Bearer {holder}\r\n");
        let fields =
            format!("{AS_JSON}Idempotency-Key: order-7\r\n{}", if holder.is_empty() { "" } else { &bearer });
        let answer = body(&ask(&gateway, &post(&format!("{path}/kept/1"), &fields, b"1")));
        let result = &answer["results"][0];
        (result["offset"].as_u64(), result.get("duplicate").is_some())
    };
    let (one, all) = ("0123456789abcdef", "fedcba9876543210");
    assert_eq!(publish("/publish", ""), (Some(1), false));
    assert_eq!(publish("/publish", ""), (Some(1), true), "over another connection");
    assert_eq!(publish("/keyed", one), (Some(2), false), "somebody's guess is not its own");
    assert_eq!(publish("/keyed", all), (Some(3), false));
    assert_eq!(publish("/keyed", one), (Some(2), true));
    gateway.stop();
}

#[test]
fn a_route_takes_so_many_messages_in_a_second() {
    let gateway = Gateway::start(CONFIG, "epoll");
    let ten = format!("[{}]", [r#"{"topic":"kept/1","data":1}"#; 10].join(","));
    assert_eq!(ask(&gateway, &post("/paced", AS_JSON, ten.as_bytes())).status, 200);
    let until = Instant::now() + PATIENCE;
    // On a slow machine the second may be over before the next one comes.
    let refused = loop {
        let answer = ask(&gateway, &post("/paced", AS_JSON, ten.as_bytes()));
        if answer.status != 200 {
            break answer;
        }
        assert!(Instant::now() < until, "it takes all");
    };
    assert_eq!((refused.status, refused.field("retry-after")), (429, Some("1")));
    while ask(&gateway, &post("/paced", AS_JSON, ten.as_bytes())).status != 200 {
        assert!(Instant::now() < until, "it takes more in the next second");
        std::thread::sleep(Duration::from_millis(50));
    }
    gateway.stop();
}

/// A stream of events as its client reads it.
struct Stream {
    client: Client,
    text: String,
}

impl Stream {
    fn open(gateway: &Gateway, path: &str, fields: &str) -> Stream {
        let mut client = Client::connect(gateway.address());
        client.send(&get(path, fields));
        let response = client.response().expect("a stream");
        assert_eq!(
            (response.status, response.field("content-type")),
            (200, Some("text/event-stream; charset=utf-8"))
        );
        assert_eq!(response.field("transfer-encoding"), Some("chunked"));
        // Neither kept nor changed nor held back on the way.
        assert_eq!(response.field("cache-control"), Some("no-cache, no-store, no-transform"));
        assert_eq!(response.field("x-accel-buffering"), Some("no"));
        Stream { client, text: String::new() }
    }

    /// The next event: name, id, data. Comments are left out.
    fn event(&mut self) -> (String, String, Value) {
        loop {
            while let Some(event) = take_event(&mut self.text) {
                let field = |name: &str| {
                    event
                        .lines()
                        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                        .unwrap_or_default()
                };
                if event.starts_with(':') {
                    continue;
                }
                let data =
                    serde_json::from_str(field("data")).unwrap_or_else(|error| panic!("{error}: {event}"));
                return (field("event").to_owned(), field("id").to_owned(), data);
            }
            self.more();
        }
    }

    fn more(&mut self) {
        let chunk = self.client.chunk();
        assert!(!chunk.is_empty(), "the stream has ended");
        self.text.push_str(std::str::from_utf8(&chunk).expect("UTF-8"));
    }
}

#[test]
fn events_come_with_positions_from_which_a_stream_goes_on() {
    everywhere(CONFIG, |gateway| {
        let mut stream = Stream::open(gateway, "/events?topic=kept/a&topic=kept/b", "");
        let (name, id, data) = stream.event();
        assert_eq!((name.as_str(), data["topics"].as_array().map(Vec::len)), ("subscribed", Some(2)));
        let ids: Vec<&str> = id.split(',').collect();
        assert!(ids.len() == 2 && ids.iter().all(|id| id.ends_with("-0")), "{id}");
        for (topic, n) in [("kept/a", 1), ("kept/b", 2), ("kept/a", 3)] {
            let message = json!({ "topic": topic, "data": n }).to_string();
            assert_eq!(ask(gateway, &post("/publish", AS_JSON, message.as_bytes())).status, 200);
        }
        let mut last = String::new();
        let mut seen = Vec::new();
        for _ in 0..3 {
            let (name, id, data) = stream.event();
            assert_eq!(name, "");
            seen.push((data["topic"].as_str().expect("a topic").to_owned(), data["data"].as_i64()));
            last = id;
        }
        seen.sort();
        let expected = [("kept/a", 1), ("kept/a", 3), ("kept/b", 2)];
        assert_eq!(seen, expected.map(|(topic, n)| (topic.to_owned(), Some(n))));
        assert!(last.split(',').map(|id| id.rsplit('-').next()).eq([Some("2"), Some("1")]), "{last}");
        // A comment comes while nothing happens.
        while !stream.text.contains(':') {
            stream.more();
        }
        drop(stream);
        for n in 4..=5 {
            ask(gateway, &post("/publish/kept/a", AS_JSON, n.to_string().as_bytes()));
        }
        let mut again =
            Stream::open(gateway, "/events?topic=kept/a&topic=kept/b", &format!("Last-Event-ID: {last}\r\n"));
        let (_, _, data) = again.event();
        assert!(
            data["topics"].as_array().expect("two").iter().all(|topic| topic["recovered"] == true),
            "{data}"
        );
        assert_eq!([again.event().2["data"].take(), again.event().2["data"].take()], [json!(4), json!(5)]);
        // From another life: it is told, and goes on with what is new.
        let mut lost = Stream::open(gateway, "/events?topic=kept/a", "Last-Event-ID: 00000000-3\r\n");
        assert_eq!(lost.event().2["topics"][0]["recovered"], false);
    });
}

#[test]
fn foreign_pages_may_read_where_the_route_says_so() {
    let gateway = Gateway::start(CONFIG, "uring");
    let preflight = "OPTIONS /events?topic=live/a HTTP/1.1\r\nHost: gw.test\r\nOrigin: https://page.example\r\n\
                     Access-Control-Request-Method: GET\r\n\r\n";
    let answer = ask(&gateway, preflight.as_bytes());
    assert_eq!(
        (answer.status, answer.field("access-control-allow-origin")),
        (200, Some("https://page.example"))
    );
    assert_eq!(answer.field("vary"), Some("Origin"));
    let mut client = Client::connect(gateway.address());
    client.send(&get("/events?topic=live/a", "Origin: https://page.example\r\n"));
    let answer = client.response().expect("a stream");
    assert_eq!(
        (answer.status, answer.field("access-control-allow-origin")),
        (200, Some("https://page.example"))
    );
    gateway.stop();
}

#[test]
fn a_poll_waits_for_what_is_new() {
    everywhere(CONFIG, |gateway| {
        let mut client = Client::connect(gateway.address());
        client.send(&get("/poll?topic=kept/p", ""));
        let first = body(&client.response().expect("at once"));
        let position = first["position"].as_str().expect("a position").to_owned();
        assert!(position.ends_with("-0") && first["messages"] == json!([]), "{first}");
        // It waits, and the answer comes on the same connection.
        client.send(&get(&format!("/poll?topic=kept/p&position={position}"), ""));
        assert!(!client.end_or_data_within(Duration::from_millis(100)));
        ask(gateway, &post("/publish/kept/p", AS_JSON, b"{\"n\":1}"));
        let answer = body(&client.response().expect("an answer"));
        assert_eq!(
            answer["messages"],
            json!([{ "topic": "kept/p", "offset": 1, "data": { "n": 1 } }]),
            "{answer}"
        );
        let next = answer["position"].as_str().expect("a position");
        // What came in between is not lost, and nothing comes twice.
        ask(gateway, &post("/publish/kept/p", AS_JSON, b"2"));
        ask(gateway, &post("/publish/kept/p", AS_JSON, b"3"));
        client.send(&get(&format!("/poll?topic=kept/p&position={next}"), ""));
        let answer = body(&client.response().expect("an answer"));
        assert_eq!(answer["messages"].as_array().map(Vec::len), Some(2), "{answer}");
        assert_eq!(answer["topics"][0]["recovered"], true);
        let next = answer["position"].as_str().expect("a position");
        // A topic that keeps nothing is waited for as well.
        client.send(&get("/poll?topic=live/x", ""));
        let bare = body(&client.response().expect("at once"));
        let position = bare["position"].as_str().expect("a position");
        client.send(&get(&format!("/poll?topic=live/x&position={position}"), ""));
        harness::eventually("it waits", || {
            let state = body(&ask(gateway, &get("/topics/live/x", "")));
            (state["subscribers"] == 1).then_some(())
        });
        ask(gateway, &post("/publish/live/x", AS_JSON, b"7"));
        assert_eq!(body(&client.response().expect("an answer"))["messages"][0]["data"], 7);
        let begun = Instant::now();
        client.send(&get(&format!("/poll?topic=kept/p&position={next}&wait=1"), ""));
        let answer = body(&client.response().expect("an answer"));
        assert!(answer["messages"] == json!([]) && answer["position"] == next, "{answer}");
        assert!(begun.elapsed() >= Duration::from_millis(900));
        // Present by its name, beside those with a connection.
        client.send(&get("/poll?topic=kept/p&wait=0&client=poller-1&info=%7B%22n%22%3A1%7D", ""));
        client.response().expect("an answer");
        let mut talker = Client::open(gateway.address(), "/topics");
        talker.message(TEXT);
        talker.send(&harness::frame::masked(
            harness::frame::FIN | TEXT,
            br#"{"op":"presence","id":1,"topic":"kept/p"}"#,
        ));
        let there: Value = serde_json::from_slice(&talker.message(TEXT)).expect("JSON");
        assert_eq!(there["clients"], json!([{ "client": "poller-1", "info": { "n": 1 } }]), "{there}");
    });
}

#[test]
fn a_connection_keeps_so_many_pollers_present_and_a_proxys_more() {
    everywhere(CONFIG, |gateway| {
        for (from, topic, present) in [("127.0.0.1", "kept/few", 16), ("127.0.0.2", "kept/many", 40)] {
            let mut client = Client::connect_from(from.parse().expect("an address"), gateway.address());
            for n in 0..40 {
                client.send(&get(&format!("/poll?topic={topic}&wait=0&client=poller-{n:02}"), ""));
                assert_eq!(client.response().expect("an answer").status, 200);
            }
            let mut talker = Client::open(gateway.address(), "/topics");
            talker.message(TEXT);
            let ask = json!({ "op": "presence", "id": 1, "topic": topic }).to_string();
            let there = harness::eventually("those who left have", || {
                talker.send(&harness::frame::masked(harness::frame::FIN | TEXT, ask.as_bytes()));
                let there: Value = serde_json::from_slice(&talker.message(TEXT)).expect("JSON");
                let clients = there["clients"].as_array().expect("a list").clone();
                (clients.len() <= present).then_some(clients)
            });
            let mut names: Vec<&str> = there.iter().filter_map(|one| one["client"].as_str()).collect();
            names.sort_unstable();
            let last: Vec<String> = (40 - present..40).map(|n| format!("poller-{n:02}")).collect();
            assert_eq!(names, last);
        }
    });
}

/// Topics that keep far more than may wait for a session.
const LARGE: &str = r#"
version = 1
[limits]
message_bytes = "64KiB"
close_timeout = "60s"
# Streams are read one after the other, which on a slow machine takes its time.
write_timeout = "300s"
[[listener]]
bind = "127.0.0.1:0"
[[topic]]
name = "large/**"
history = 100
history_bytes = "4MiB"
history_age = "1h"
presence = true
[[route]]
path = "/events"
events = { subscribe = ["**"], presence = ["large/**"], session_bytes = "64KiB" }
[[route]]
path = "/poll"
poll = { subscribe = ["**"], session_bytes = "64KiB" }
[[route]]
path = "/publish/*"
publish = { publish = ["**"], rate = 100000 }
[[route]]
path = "/topics/*"
topics = { subscribe = ["**"], presence = ["**"] }
"#;

/// Fills eight topics, each with 64 messages of 60 KB.
fn fill(gateway: &Gateway) {
    let filler = "x".repeat(60_000);
    let mut client = Client::connect(gateway.address());
    for topic in 0..8 {
        for part in 0..8 {
            let messages: Vec<Value> = (1..=8)
                .map(|n| json!({ "topic": format!("large/{topic}"), "data": { "n": part * 8 + n, "filler": filler } }))
                .collect();
            client.send(&post("/publish", AS_JSON, Value::from(messages).to_string().as_bytes()));
            assert_eq!(client.response().expect("an answer").status, 200);
        }
    }
}

#[test]
fn what_comes_first_on_a_stream_comes_in_parts_and_whole() {
    for io in BACKENDS {
        let gateway = Gateway::start_with(LARGE, &["--io", io, "--shards", "2"]);
        fill(&gateway);
        let topics: Vec<String> = (0..8).map(|n| format!("topic=large/{n}")).collect();
        let path = format!("/events?{}&history=100", topics.join("&"));
        let before_kib = gateway.heap_kib();
        let mut streams: Vec<Stream> = (0..6).map(|_| Stream::open(&gateway, &path, "")).collect();
        // All that is behind their beginnings waits behind what comes first.
        for n in 0..8 {
            let path = format!("/publish/large/{n}");
            assert_eq!(ask(&gateway, &post(&path, AS_JSON, b"{\"n\":65}")).status, 200);
        }
        let more_kib = gateway.heap_kib().saturating_sub(before_kib);
        // Each has asked for 30 MB.
        assert!(more_kib < 16 << 10, "{io}: {more_kib} KiB more");
        for stream in &mut streams {
            let (name, id, data) = stream.event();
            assert_eq!(name, "subscribed");
            assert!(id.split(',').all(|id| id.ends_with("-0")), "{id}");
            assert!(
                data["topics"].as_array().expect("eight").iter().all(|topic| topic["offset"] == 64),
                "{data}"
            );
            let mut offsets = [0; 8];
            while offsets != [65; 8] {
                let (name, id, data) = stream.event();
                assert_eq!(name, "", "{io}: nothing is left out");
                let place = data["topic"].as_str().and_then(|topic| topic.strip_prefix("large/"));
                let place: usize = place.and_then(|place| place.parse().ok()).expect("one of the topics");
                offsets[place] += 1;
                assert_eq!(
                    (&data["offset"], &data["data"]["n"]),
                    (&json!(offsets[place]), &json!(offsets[place]))
                );
                let told = id.split(',').nth(place).and_then(|id| id.rsplit('-').next()).map(str::to_owned);
                assert_eq!(told, Some(offsets[place].to_string()), "{io}");
            }
        }
        // They are live.
        ask(&gateway, &post("/publish/large/3", AS_JSON, b"{\"n\":66}"));
        for stream in &mut streams {
            assert_eq!(stream.event().2["data"]["n"], 66);
        }
        drop(streams);
        gateway.stop();
    }
}

#[test]
fn those_who_poll_for_the_same_get_the_same() {
    for io in BACKENDS {
        let gateway = Gateway::start_with(LARGE, &["--io", io, "--shards", "2"]);
        let position = |answer: &Value| answer["position"].as_str().expect("a position").to_owned();
        let both = body(&ask(&gateway, &get("/poll?topic=large/a&topic=large/b", "")));
        let at = position(&both);
        let other = at.rsplit_once('-').map(|(at, _)| format!("{at}-7")).expect("two positions");
        let mut waiting: Vec<Client> = (0..40).map(|_| Client::connect(gateway.address())).collect();
        for client in &mut waiting {
            client.send(&get(&format!("/poll?topic=large/a&topic=large/b&position={at}"), ""));
        }
        // Who asks something else gets something else: from another order, from the future, with HEAD.
        let swapped: Vec<&str> = at.split(',').rev().collect();
        let mut reversed = Client::connect(gateway.address());
        reversed.send(&get(&format!("/poll?topic=large/b&topic=large/a&position={}", swapped.join(",")), ""));
        let lost =
            body(&ask(&gateway, &get(&format!("/poll?topic=large/a&topic=large/b&position={other}"), "")));
        assert_eq!([0, 1].map(|place| lost["topics"][place]["recovered"] == true), [true, false]);
        ask(&gateway, &post("/publish/large/a", AS_JSON, br#"{"n":1}"#));
        let mut bodies = Vec::new();
        for client in &mut waiting {
            let answer = client.response().expect("an answer");
            assert_eq!((answer.status, answer.field("connection")), (200, Some("keep-alive")));
            bodies.push(answer.body);
        }
        let first: Value = serde_json::from_slice(&bodies[0]).expect("JSON");
        assert_eq!(first["messages"], json!([{ "topic": "large/a", "offset": 1, "data": { "n": 1 } }]));
        let same = bodies.iter().filter(|body| **body == bodies[0]).count();
        // Who was asked later than the message finds it in the history, and says the same.
        assert_eq!(same, bodies.len());
        let answer = body(&reversed.response().expect("an answer"));
        assert_eq!(answer["messages"], first["messages"]);
        assert_eq!(answer["topics"][1]["offset"], 1, "{answer}");
        // And on.
        let next = position(&first);
        ask(&gateway, &post("/publish/large/b", AS_JSON, br#"{"n":2}"#));
        for client in &mut waiting {
            client.send(&get(&format!("/poll?topic=large/a&topic=large/b&position={next}"), ""));
            assert_eq!(body(&client.response().expect("an answer"))["messages"][0]["data"]["n"], 2);
        }
        gateway.stop();
    }
}

#[test]
fn what_is_nearly_nothing_has_its_answer() {
    everywhere(CONFIG, |gateway| {
        let nothing = ask(gateway, &post("/publish", AS_JSON, b"[]"));
        assert_eq!((nothing.status, body(&nothing)), (200, json!({ "results": [] })));
        let mut talker = Client::open(gateway.address(), "/topics");
        talker.message(TEXT);
        for message in ["[]", r#"{"op":"ping"}"#] {
            talker.send(&harness::frame::masked(harness::frame::FIN | TEXT, message.as_bytes()));
        }
        assert_eq!(talker.message(TEXT), br#"{"op":"pong"}"#, "an empty array is not answered");
        // A topic that nobody knows is nowhere, and nothing is recovered from there.
        let state = body(&ask(gateway, &get("/topics/kept/nobody", "")));
        assert_eq!((&state["epoch"], &state["offset"]), (&json!("00000000"), &json!(0)), "{state}");
        for path in
            ["/poll?topic=kept/none&position=00000000-0", "/events?topic=kept/none&last-event-id=00000000-0"]
        {
            let told = match path.starts_with("/poll") {
                true => body(&ask(gateway, &get(path, ""))),
                false => Stream::open(gateway, path, "").event().2,
            };
            assert_eq!(told["topics"][0]["recovered"], false, "{told}");
            assert_ne!(told["topics"][0]["epoch"], "00000000", "{told}");
        }
        // From now on: it waits, and what was before does not come.
        ask(gateway, &post("/publish/kept/dash", AS_JSON, b"1"));
        let mut client = Client::connect(gateway.address());
        client.send(&get("/poll?topic=kept/dash&position=-", ""));
        harness::eventually("it waits", || {
            let state = body(&ask(gateway, &get("/topics/kept/dash", "")));
            (state["subscribers"] == 1).then_some(())
        });
        ask(gateway, &post("/publish/kept/dash", AS_JSON, b"2"));
        let answer = body(&client.response().expect("an answer"));
        assert_eq!(answer["messages"], json!([{ "topic": "kept/dash", "offset": 2, "data": 2 }]), "{answer}");
        assert_eq!(answer["topics"][0].get("recovered"), None, "{answer}");
        let at_once = body(&ask(gateway, &get("/poll?topic=kept/dash&position=-&wait=0", "")));
        assert_eq!(at_once["messages"], json!([]), "{at_once}");
    });
}

#[test]
fn who_reads_a_stream_by_a_name_is_present() {
    for io in BACKENDS {
        let gateway = Gateway::start_with(LARGE, &["--io", io, "--shards", "3"]);
        let mut watcher = Client::open(gateway.address(), "/topics");
        watcher.message(TEXT);
        let hear =
            |client: &mut Client| -> Value { serde_json::from_slice(&client.message(TEXT)).expect("JSON") };
        let say = |client: &mut Client, text: &str| {
            client.send(&harness::frame::masked(harness::frame::FIN | TEXT, text.as_bytes()));
        };
        say(&mut watcher, r#"{"op":"subscribe","id":1,"topic":"large/p","presence":true}"#);
        assert_eq!(hear(&mut watcher)["op"], "subscribed");
        let path = "/events?topic=large/p&topic=other&client=reader-1&info=%7B%22n%22%3A1%7D";
        let stream = Stream::open(&gateway, path, "");
        let joined = hear(&mut watcher);
        assert_eq!(
            joined,
            json!({ "op": "join", "topic": "large/p", "client": "reader-1", "info": { "n": 1 } })
        );
        let clients = |watcher: &mut Client| {
            say(watcher, r#"{"op":"presence","id":2,"topic":"large/p"}"#);
            hear(watcher)["clients"].take()
        };
        let there = clients(&mut watcher);
        assert!(
            there.as_array().is_some_and(|all| all.iter().any(|one| one["client"] == "reader-1")),
            "{there}"
        );
        let state = body(&ask(&gateway, &get("/topics/large/p?clients=10", "")));
        assert_eq!((&state["present"], &state["clients"]), (&json!(2), &there), "{state}");
        let state = body(&ask(&gateway, &get("/topics/large/p", "")));
        assert_eq!((&state["present"], state.get("clients")), (&json!(2), None), "{state}");
        let state = body(&ask(&gateway, &get("/topics/other?clients=10", "")));
        assert_eq!((state.get("present"), state.get("clients")), (None, None), "{state}");
        // It comes back in time: nobody is told that it was away.
        drop(stream);
        let again = Stream::open(&gateway, path, "");
        let there = clients(&mut watcher);
        assert!(
            there.as_array().is_some_and(|all| all.iter().any(|one| one["client"] == "reader-1")),
            "{there}"
        );
        drop(again);
        // Nobody is as short as that, and nobody goes by a connection's name.
        for client in ["x", "pX3v9aK2"] {
            let wrong = ask(&gateway, &get(&format!("/events?topic=large/p&client={client}"), ""));
            assert_eq!((wrong.status, &body(&wrong)["error"]["code"]), (400, &json!("invalid_request")));
        }
        let wrong = ask(&gateway, &get("/topics/large/p?clients=x", ""));
        assert_eq!((wrong.status, &body(&wrong)["error"]["code"]), (400, &json!("invalid_request")));
        drop(gateway);
    }
}
