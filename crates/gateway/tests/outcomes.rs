//! What becomes of a request or a message is told, wherever its topic lives: refusals without an acknowledgement, answers to requests
//! that follow each other closely, the end of streams and polls whose clients have ended their side.

mod harness;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{
    PATIENCE,
    client::{Client, End},
    everywhere,
    frame::{CLOSE, FIN, TEXT, masked},
    gateway::Gateway,
    request::{body, get, post},
};

const CONFIG: &str = r#"
version = 1
[topics]
max_topics = 4
max_subscriptions = 4
[[listener]]
bind = "127.0.0.1:0"
[[topic]]
name = "small/**"
message_bytes = "1KiB"
[[topic]]
name = "kept/**"
history = 10
[[route]]
path = "/topics/*"
topics = { subscribe = ["**"], publish = ["**"], max_subscriptions = 4 }
[[route]]
path = "/push/*"
topics = { publish = ["**"], max_subscriptions = 1 }
[[route]]
path = "/poll"
poll = { subscribe = ["**"] }
[[route]]
path = "/events"
events = { subscribe = ["**"] }
[[route]]
path = "/publish/*"
publish = { publish = ["**"] }
"#;

fn say(client: &mut Client, message: &Value) {
    client.send(&masked(FIN | TEXT, message.to_string().as_bytes()));
}

fn hear(client: &mut Client) -> Value {
    serde_json::from_slice(&client.message(TEXT)).expect("JSON")
}

/// A client that speaks the protocol.
fn talker(gateway: &Gateway) -> Client {
    let mut client = Client::open(gateway.address(), "/topics");
    assert_eq!(hear(&mut client)["op"], "hello");
    client
}

fn publication(topic: &str, text: &str) -> Vec<u8> {
    post(&format!("/publish/{topic}"), "Content-Type: text/plain\r\n", text.as_bytes())
}

fn answer(client: &mut Client) -> Value {
    body(&client.response().expect("an answer"))
}

/// Publishes to eight topics without asking what became of it, on connections of the protocol and raw ones: each must be told.
fn all_are_refused(gateway: &Gateway, family: &str, payload: &str, code: &str, close_code: u16) {
    for n in 0..8 {
        let topic = format!("{family}/{n}");
        let mut client = talker(gateway);
        say(&mut client, &json!({ "op": "publish", "topic": topic, "text": payload }));
        let told = hear(&mut client);
        assert_eq!((&told["op"], &told["code"]), (&json!("error"), &json!(code)), "{topic}: {told}");
        assert_eq!(told.get("id"), None);
        // It goes on.
        say(&mut client, &json!({ "op": "ping", "id": 1 }));
        assert_eq!(hear(&mut client)["op"], "pong");
        let mut raw = Client::open(gateway.address(), &format!("/push/{topic}"));
        raw.send(&masked(FIN | TEXT, payload.as_bytes()));
        let frame = raw.frame();
        assert_eq!((frame.opcode, frame.close_code()), (CLOSE, close_code), "{topic}");
    }
}

#[test]
fn what_is_too_large_for_its_topic_is_refused_wherever_that_lives() {
    everywhere(CONFIG, |gateway| all_are_refused(gateway, "small", &"x".repeat(2_000), "too_large", 1009));
}

#[test]
fn what_a_topics_home_refuses_is_told_without_an_acknowledgement() {
    everywhere(CONFIG, |gateway| {
        let mut client = talker(gateway);
        for n in 0..4 {
            say(&mut client, &json!({ "op": "subscribe", "id": n, "topic": format!("taken/{n}") }));
            assert_eq!(hear(&mut client)["op"], "subscribed");
        }
        all_are_refused(gateway, "new", "x", "too_many", 1013);
        // Of what is done nothing is told.
        say(&mut client, &json!({ "op": "publish", "topic": "taken/0", "data": 1 }));
        assert_eq!(hear(&mut client)["op"], "message");
        say(&mut client, &json!({ "op": "ping", "id": 5 }));
        assert_eq!(hear(&mut client)["op"], "pong");
    });
}

#[test]
fn a_request_that_follows_a_refused_one_has_its_own_answer() {
    everywhere(CONFIG, |gateway| {
        let mut client = Client::connect(gateway.address());
        for n in 1..=3 {
            client.send(&publication("kept/a", &n.to_string()));
            assert_eq!(answer(&mut client)["results"][0]["offset"], n);
        }
        // Three of the four subscriptions that there may be.
        let mut holder = talker(gateway);
        for n in 0..3 {
            say(&mut holder, &json!({ "op": "subscribe", "id": n, "topic": format!("kept/{}", n % 3) }));
            assert_eq!(hear(&mut holder)["op"], "subscribed");
        }
        let until = Instant::now() + PATIENCE;
        loop {
            // The first of two topics is subscribed to, the second is one too many: the next request is read in the same turn.
            let both =
                [get("/poll?topic=kept/a&topic=kept/1", ""), get("/poll?topic=kept/2&history=10&wait=0", "")];
            client.send(&both.concat());
            let refused = client.response().expect("an answer");
            assert_eq!(refused.status, 429, "{refused:?}");
            let polled = client.response().expect("an answer");
            let told = body(&polled);
            if polled.status == 429 {
                // The subscription that was taken back lives on another shard, or here for a moment.
                assert!(Instant::now() < until, "it is not given back");
                continue;
            }
            assert_eq!(told["topics"][0]["topic"], "kept/2", "{told}");
            assert_eq!((&told["topics"][0]["offset"], &told["messages"]), (&json!(0), &json!([])), "{told}");
            break;
        }
    });
}

#[test]
fn a_poll_whose_client_has_ended_its_side_is_answered_and_a_stream_ends_in_order() {
    everywhere(CONFIG, |gateway| {
        let mut poller = Client::connect(gateway.address());
        poller.send(&get("/poll?topic=kept/p", ""));
        let position = answer(&mut poller)["position"].as_str().expect("a position").to_owned();
        poller.send(&get(&format!("/poll?topic=kept/p&position={position}"), ""));
        poller.finish();
        let begun = Instant::now();
        let response = poller.response().expect("an answer");
        assert_eq!((response.status, response.field("connection")), (200, Some("close")));
        let told = body(&response);
        assert_eq!((&told["position"], &told["messages"]), (&json!(position), &json!([])), "{told}");
        // Far sooner than its 25 seconds.
        assert!(begun.elapsed() < Duration::from_secs(20));
        assert_eq!(poller.end_within(PATIENCE), Some(End::Fin));

        let mut stream = Client::connect(gateway.address());
        stream.send(&get("/events?topic=kept/p", ""));
        assert_eq!(stream.response().expect("a stream").status, 200);
        let next = |stream: &mut Client| String::from_utf8(stream.chunk()).expect("UTF-8");
        assert!(next(&mut stream).contains("event: subscribed"));
        // Nobody asked for it, but it harms nobody either.
        stream.send(b"\r\n");
        let mut client = Client::connect(gateway.address());
        client.send(&publication("kept/p", "still there"));
        assert_eq!(answer(&mut client)["results"][0]["offset"], 1);
        assert!(next(&mut stream).contains("still there"));
        stream.finish();
        assert_eq!(stream.chunk(), b"", "the last chunk");
        assert_eq!(stream.end_within(PATIENCE), Some(End::Fin));
        // Who ends its side at once has the head and an end.
        let mut short = Client::connect(gateway.address());
        short.send(&get("/events?topic=kept/p", ""));
        short.finish();
        assert_eq!(short.response().expect("a stream").status, 200);
        assert!(next(&mut short).contains("event: subscribed"));
        assert_eq!(short.chunk(), b"", "the last chunk");
    });
}
