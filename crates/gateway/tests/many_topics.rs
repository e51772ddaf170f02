//! As many topics as there can be over real sockets, and positions that belong elsewhere; somebody else notices nothing.

// What was measured, where somebody asks with `--nocapture`.
#![allow(clippy::print_stdout)]

mod harness;

use serde_json::{Value, json};

use crate::harness::{
    BACKENDS,
    client::Client,
    eventually,
    frame::{FIN, TEXT, masked},
    gateway::Gateway,
};

const CONFIG: &str = r#"
version = 1
[limits]
ping_interval = "300s"
receive_buffers = 64
[topics]
max_topics = 120_000
[[listener]]
bind = "127.0.0.1:0"
[[topic]]
name = "kept/**"
history = 10
[[route]]
path = "/topics/*"
topics = { subscribe = ["**"], publish = ["**"], max_subscriptions = 20_000, session_bytes = "4MiB" }
"#;

/// Subscriptions of one session, at most.
const MOST: usize = 20_000;
/// Commands that are answered before the next ones.
const AT_ONCE: usize = 64;

struct Talker(Client);

impl Talker {
    fn open(gateway: &Gateway) -> Talker {
        let mut talker = Talker(Client::open(gateway.address(), "/topics"));
        assert_eq!(talker.hear()["op"], "hello");
        talker
    }

    fn hear(&mut self) -> Value {
        serde_json::from_slice(&self.0.message(TEXT)).expect("JSON")
    }

    fn say(&mut self, commands: &Value) {
        self.0.send(&masked(FIN | TEXT, commands.to_string().as_bytes()));
    }

    fn ask(&mut self, command: &Value) -> Value {
        self.say(command);
        self.hear()
    }

    /// Asks for something with each number, and gives the answers, whatever else came meanwhile left out.
    fn ask_for_each(
        &mut self,
        numbers: std::ops::Range<usize>,
        command: impl Fn(usize) -> Value,
    ) -> Vec<Value> {
        let all: Vec<usize> = numbers.collect();
        let mut answers = Vec::with_capacity(all.len());
        for some in all.chunks(AT_ONCE) {
            self.say(&some.iter().map(|&n| command(n)).collect());
            let until = answers.len() + some.len();
            while answers.len() < until {
                let told = self.hear();
                if told.get("id").is_some() {
                    answers.push(told);
                }
            }
        }
        answers
    }
}

fn subscribe(n: usize) -> Value {
    json!({ "op": "subscribe", "id": n, "topic": format!("t/{n}") })
}

fn publish(n: usize) -> Value {
    json!({ "op": "publish", "id": n, "topic": format!("t/{n}"), "data": n })
}

#[test]
fn a_hundred_thousand_topics_have_one_subscriber_each_and_are_forgotten_with_them() {
    for io in BACKENDS {
        let gateway = Gateway::start_with(CONFIG, &["--io", io, "--shards", "2"]);
        let mut bystander = Talker::open(&gateway);
        assert_eq!(bystander.ask(&json!({ "op": "subscribe", "id": 1, "topic": "other" }))["offset"], 0);
        let mut publisher = Talker::open(&gateway);
        let mut sessions: Vec<Talker> = (0..5).map(|_| Talker::open(&gateway)).collect();
        let before_kib = gateway.heap_kib();
        for (place, session) in sessions.iter_mut().enumerate() {
            let answers = session.ask_for_each(place * MOST..(place + 1) * MOST, subscribe);
            assert!(answers.iter().all(|answer| answer["op"] == "subscribed"), "{io}");
            // It has as many as it may.
            let more = session.ask(&subscribe(5 * MOST + place));
            assert_eq!(more["code"], "too_many", "{io}: {more}");
            let noted = publisher.ask(&json!({ "op": "publish", "id": 1, "topic": "other", "data": place }));
            assert_eq!((&noted["op"], &noted["offset"]), (&json!("published"), &json!(place + 1)), "{io}");
            assert_eq!(bystander.hear()["data"], place, "{io}: somebody else notices nothing");
        }
        let each = (gateway.heap_kib().saturating_sub(before_kib)) as usize * 1024 / (5 * MOST);
        println!("{io}: {each} bytes for a topic with one subscriber");
        assert!(each <= 1_024, "{io}: {each} bytes for a topic with one subscriber");
        // A few of each.
        for (place, session) in sessions.iter_mut().enumerate() {
            let numbers = (place + 1) * MOST - 100..(place + 1) * MOST;
            assert!(
                publisher.ask_for_each(numbers.clone(), publish).iter().all(|answer| answer["offset"] == 1)
            );
            let mut heard: Vec<usize> =
                (0..100).map(|_| session.hear()["data"].as_u64().expect("a number") as usize).collect();
            heard.sort_unstable();
            assert!(heard.into_iter().eq(numbers), "{io}");
        }
        // Some go with a Close, some without a word.
        while let Some(session) = sessions.pop() {
            if sessions.len().is_multiple_of(2) { session.0.close(1000) } else { session.0.reset() }
        }
        // New ones have room only once the old ones are forgotten.
        let mut last = Talker::open(&gateway);
        eventually("room for new topics", || {
            let answer = last.ask(&json!({ "op": "publish", "id": 1, "topic": "t/0", "data": 0 }));
            (answer["offset"] == 1).then_some(())
        });
        let answers = last.ask_for_each(0..MOST, subscribe);
        assert!(answers.iter().all(|answer| answer["op"] == "subscribed"), "{io}");
        gateway.stop();
    }
}

#[test]
fn topics_beyond_the_limit_are_refused_and_the_others_go_on() {
    for io in BACKENDS {
        let config = CONFIG.replace("120_000", "100");
        let gateway = Gateway::start_with(&config, &["--io", io, "--shards", "2"]);
        let mut talker = Talker::open(&gateway);
        let answers = talker.ask_for_each(0..1_000, subscribe);
        let refused = answers.iter().filter(|answer| answer["code"] == "too_many").count();
        assert_eq!((answers.len(), refused), (1_000, 900), "{io}");
        let known = publish(answers[0]["id"].as_u64().expect("an id") as usize);
        assert_eq!(Talker::open(&gateway).ask(&known)["op"], "published", "{io}");
        assert_eq!(talker.hear()["op"], "message", "{io}");
        gateway.stop();
    }
}

#[test]
fn a_position_of_another_topic_or_of_the_future_recovers_nothing() {
    for io in BACKENDS {
        let gateway = Gateway::start_with(CONFIG, &["--io", io, "--shards", "3"]);
        let mut publisher = Talker::open(&gateway);
        let told = |publisher: &mut Talker, topic: &str| {
            publisher.ask(&json!({ "op": "publish", "id": 1, "topic": topic, "data": 1 }))
        };
        let (one, two) = (told(&mut publisher, "kept/1"), told(&mut publisher, "kept/2"));
        let mut subscriber = Talker::open(&gateway);
        for (epoch, offset, recovered) in [
            (&two["epoch"], 0, false),
            (&two["epoch"], 1, false),
            (&one["epoch"], 2, false),
            (&one["epoch"], (1_u64 << 53) - 1, false),
            (&json!("00000000"), 0, false),
            (&one["epoch"], 1, true),
        ] {
            let recover = json!({ "epoch": epoch, "offset": offset });
            let command = json!({ "op": "subscribe", "id": 2, "topic": "kept/1", "recover": recover });
            let answer = subscriber.ask(&command);
            assert_eq!(
                (&answer["recovered"], &answer["offset"]),
                (&json!(recovered), &json!(1)),
                "{io}: {answer}"
            );
            let end = subscriber.ask(&json!({ "op": "unsubscribe", "id": 3, "topic": "kept/1" }));
            assert_eq!(end["op"], "unsubscribed", "{io}: nothing was recovered: {end}");
        }
        // What is no position is told to be wrong.
        for recover in [json!({ "epoch": 1, "offset": 0 }), json!({ "epoch": "00000001" }), json!(7)] {
            let command = json!({ "op": "subscribe", "id": 4, "topic": "kept/1", "recover": recover });
            assert_eq!(subscriber.ask(&command)["code"], "invalid_request", "{io}: {recover}");
        }
        // To nobody: it is accepted, and nothing is kept of it.
        for topic in ["nobody", "nobody", "no/body/at/all"] {
            assert_eq!(told(&mut publisher, topic)["offset"], 1, "{io}: {topic} was forgotten");
        }
        gateway.stop();
    }
}
