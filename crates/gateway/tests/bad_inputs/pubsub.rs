//! Rows P: topics.

use serde_json::{Value, json};

use crate::{
    Company, Row,
    harness::{
        client::{Client, Received},
        frame::{FIN, TEXT, masked},
        gateway::is_optimised,
        request::{AS_JSON, body, post},
    },
    reaction::{Observed, Reaction, read_close, respond},
    world::{PUBLISHING_KEY, World},
};

pub(crate) const ROWS: &[Row] = &[
    ("P01", Company::Alone, p01_names_and_numbers_of_topics),
    ("P02", Company::Alone, p02_subscriptions_that_come_and_go),
    ("P05", Company::Any, p05_positions_and_keys_that_are_guessed),
];

/// Most subscriptions of a session, as the world has it.
const MOST: usize = 128;

struct Talker(Client);

impl Talker {
    fn open(world: &World) -> Talker {
        let mut talker = Talker(Client::open(world.address(), "/topics"));
        assert_eq!(talker.hear()["op"], "hello");
        talker
    }

    fn say(&mut self, command: &Value) {
        self.0.send(&masked(FIN | TEXT, command.to_string().as_bytes()));
    }

    fn hear(&mut self) -> Value {
        serde_json::from_slice(&self.0.message(TEXT)).expect("JSON")
    }

    fn ask(&mut self, command: &Value) -> Value {
        self.say(command);
        self.hear()
    }

    /// The answer must be an error with this code.
    fn is_refused(&mut self, variant: &str, command: &Value, code: &str) -> Observed {
        let answer = self.ask(command);
        assert_eq!((&answer["op"], &answer["code"]), (&json!("error"), &json!(code)), "{variant}");
        Observed::new(variant, self.0.local(), Reaction::AppError)
    }
}

fn subscribe(topic: &str) -> Value {
    json!({ "op": "subscribe", "id": 1, "topic": topic })
}

fn p01_names_and_numbers_of_topics(world: &World) -> Vec<Observed> {
    let mut talker = Talker::open(world);
    let mut seen: Vec<Observed> = [
        ("NUL", "a\u{0}b".to_owned()),
        ("CRLF", "a\r\nPUB b 1\r\nx".to_owned()),
        ("DEL", "a\u{7f}".to_owned()),
        ("a C1 control", "a\u{85}b".to_owned()),
        ("* within a segment", "a*".to_owned()),
        ("** in the middle", "a/**/b".to_owned()),
        ("1 MiB", "x".repeat(1 << 20)),
        ("empty", String::new()),
        ("17 segments", ["a"; 17].join("/")),
    ]
    .into_iter()
    .map(|(variant, name)| talker.is_refused(variant, &subscribe(&name), "invalid_topic"))
    .collect();
    // These are names like others, and nothing else than names.
    for name in ["a b", "a>b", ">", "$SYS", "a.b"] {
        let answer = talker.ask(&subscribe(name));
        assert_eq!((&answer["op"], &answer["topic"]), (&json!("subscribed"), &json!(name)));
        talker.say(&json!({ "op": "publish", "topic": name, "data": 1 }));
        assert_eq!(talker.hear()["topic"], name);
        assert_eq!(talker.ask(&json!({ "op": "unsubscribe", "id": 1, "topic": name }))["op"], "unsubscribed");
    }

    let (mut accepted, mut refused) = (0, 0);
    let many: Vec<usize> = (0..100_001).collect();
    for numbers in many.chunks(64) {
        let commands: Vec<Value> = numbers.iter().map(|n| subscribe(&format!("many/{n}"))).collect();
        talker.say(&Value::from(commands));
        for _ in numbers {
            let answer = talker.hear();
            match answer["op"].as_str() {
                Some("subscribed") => accepted += 1,
                _ if answer["code"] == "too_many" => refused += 1,
                _ => panic!("{answer}"),
            }
        }
    }
    assert_eq!((accepted, refused), (MOST, 100_001 - MOST));
    seen.push(Observed::new("100,001 topics", talker.0.local(), Reaction::AppError));
    talker.0.close(1000);
    seen
}

fn p02_subscriptions_that_come_and_go(world: &World) -> Vec<Observed> {
    let pairs = if is_optimised() { 100_000 } else { 20_000 };
    let (mut fickle, mut publisher) = (Talker::open(world), Talker::open(world));
    let peer = fickle.0.local();
    let round = Value::from_iter(
        (0..32)
            .flat_map(|_| [subscribe("fickle"), json!({ "op": "unsubscribe", "id": 2, "topic": "fickle" })]),
    );
    let before = world.gateway().heap_kib();
    for _ in 0..pairs / 32 {
        fickle.say(&round);
        publisher.say(&json!({ "op": "publish", "id": 3, "topic": "fickle", "data": "x" }));
        let mut answers = 0;
        while answers < 64 {
            let told = fickle.hear();
            match told["op"].as_str() {
                Some("subscribed" | "unsubscribed") => answers += 1,
                Some("message") => assert_eq!(told["data"], "x"),
                _ => panic!("{told}"),
            }
        }
        assert_eq!(publisher.hear()["op"], "published");
    }
    let mut asker = Client::connect(world.address());
    asker.send(b"GET /topics/fickle HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    let state = body(&asker.response().expect("an answer"));
    assert_eq!((&state["subscribers"], &state["offset"]), (&json!(0), &json!(0)), "nothing is left of it");
    let more = world.gateway().heap_kib().saturating_sub(before);
    assert!(more < 4 << 10, "{more} KiB more");
    fickle.0.close(1000);
    publisher.0.close(1000);
    vec![Observed::new(format!("{pairs} pairs"), peer, Reaction::Ok)]
}

fn p05_positions_and_keys_that_are_guessed(world: &World) -> Vec<Observed> {
    // A position is no credential: who may not read a topic gets nothing for knowing one, and is soon sent away.
    let mut talker = Talker::open(world);
    let peer = talker.0.local();
    for epoch in 0..10_000 {
        let recover = json!({ "epoch": format!("{epoch:08x}"), "offset": 1 });
        let command = json!({ "op": "subscribe", "id": 1, "topic": "secret/x", "recover": recover });
        if talker.0.try_send(&masked(FIN | TEXT, command.to_string().as_bytes())).is_err() {
            break;
        }
    }
    let (frames, reaction) = read_close(&mut talker.0);
    assert_eq!(frames.len(), 100, "so many errors are answered");
    for frame in &frames {
        let answer: Value = serde_json::from_slice(&frame.payload).expect("JSON");
        assert_eq!(answer["code"], "not_allowed", "{answer}");
    }
    // Who may read it gets by any position what it would get without: a wrong one recovers nothing.
    let mut allowed = Talker::open(world);
    for epoch in 1..1_000 {
        let recover = json!({ "epoch": format!("{epoch:08x}"), "offset": 0 });
        let answer =
            allowed.ask(&json!({ "op": "subscribe", "id": 1, "topic": "guessed", "recover": recover }));
        assert_eq!((&answer["op"], &answer["recovered"]), (&json!("subscribed"), &json!(false)), "{answer}");
        assert_eq!(
            allowed.ask(&json!({ "op": "unsubscribe", "id": 1, "topic": "guessed" }))["op"],
            "unsubscribed"
        );
    }
    assert!(!matches!(allowed.0.next_within(std::time::Duration::ZERO), Received::Frame(_)));
    allowed.0.close(1000);
    let mut seen = guessed_keys(world);
    seen.push(Observed::new("10,000 positions", peer, reaction));
    seen
}

/// Keys that are nearly right are as wrong as others, wherever they differ, and whoever guesses locks nobody out. That they are
/// compared in constant time is seen in the code (`Secret::is`), not here: no clock over sockets is as exact as that.
fn guessed_keys(world: &World) -> Vec<Observed> {
    let publication = |key: &str| {
        let fields = format!("{AS_JSON}Authorization: Bearer {key}\r\n");
        post("/keyed", &fields, br#"{"topic":"guessed","data":1}"#)
    };
    let guesses = if is_optimised() { 10_000 } else { 1_000 };
    let mut seen = Vec::new();
    for n in 0..guesses {
        // All but one letter, in turn the first, the second and so on; and more, and fewer.
        let mut key = PUBLISHING_KEY.to_owned();
        match n % (PUBLISHING_KEY.len() + 2) {
            place if place < PUBLISHING_KEY.len() => key.replace_range(place..=place, "-"),
            place if place == PUBLISHING_KEY.len() => key.truncate(n / 24 % PUBLISHING_KEY.len()),
            _ => key.push_str(&n.to_string()),
        }
        let (response, observed) = respond(world.address(), format!("the key {key:?}"), &publication(&key));
        let response = response.expect("an answer");
        let told = body(&response);
        assert_eq!((response.status, &told["error"]["code"]), (401, &json!("not_allowed")), "{key}");
        if n % 100 == 0 {
            seen.push(observed);
        }
    }
    let (response, _) = respond(world.address(), "the key itself", &publication(PUBLISHING_KEY));
    let response = response.expect("an answer");
    let told = body(&response);
    assert_eq!((response.status, &told["results"][0]["offset"]), (200, &json!(1)), "{told}");
    seen
}
