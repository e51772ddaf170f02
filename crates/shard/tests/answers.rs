//! What sessions of topics are owed: what comes first, the answers to their commands, and their turn where others fill it. On
//! a backend that a test plays by hand.

#[path = "answers/overtaken.rs"]
mod overtaken;
#[cfg(feature = "record-transport")]
#[path = "answers/sealed.rs"]
mod sealed;
mod stage;

use serde_json::{Value, json};
use tidegate_io::Event;

use stage::{Socket, Stage, frame, topics_at};

const SESSION_BYTES: usize = 16 << 10;

const CONFIG: &str = r#"
[limits]
message_bytes = "512KiB"
[[topic]]
name = "kept/**"
history = 1000
history_bytes = "8MiB"
history_age = "1h"
[[topic]]
name = "new/**"
slow = "drop_new"
history = 1000
history_bytes = "8MiB"
history_age = "1h"
[[topic]]
name = "keys/**"
slow = "conflate"
[[topic]]
name = "state/**"
slow = "resync"
[[route]]
path = "/topics/*"
topics = { subscribe = ["**"], publish = ["**"], presence = ["**"], deflate = "off", session_bytes = "16KiB" }
[[route]]
path = "/poll"
poll = { subscribe = ["**"], session_bytes = "16KiB" }
[[route]]
path = "/events"
events = { subscribe = ["**"], session_bytes = "16KiB" }
"#;

/// A session that speaks the protocol, behind its `hello`.
fn talker(stage: &mut Stage) -> Socket {
    let socket = stage.client_at("/topics", "");
    assert!(stage.sent(socket).starts_with(b"HTTP/1.1 101"));
    stage.socket(socket, |kernel| kernel.sent.clear());
    socket
}

fn say(stage: &mut Stage, socket: Socket, message: &Value) {
    stage.send(socket, &frame(0x81, message.to_string().as_bytes(), true));
}

/// Messages of about 1,000 bytes, numbered by their offsets where the topic is new.
fn publish(stage: &mut Stage, publisher: Socket, topic: &str, numbers: std::ops::RangeInclusive<u64>) {
    for n in numbers {
        let data = json!({ "n": n, "filler": "x".repeat(980) });
        say(
            stage,
            publisher,
            &json!({ "op": "publish", "topic": topic, "key": format!("k{n}"), "data": data }),
        );
    }
}

/// The messages of a session's frames, parsed; of a Close the code.
fn heard(stage: &Stage, socket: Socket) -> Vec<Value> {
    let sent = stage.sent(socket);
    let mut rest = &sent[..];
    let mut heard = Vec::new();
    while let [first, short, ..] = *rest {
        let (header, len) = match short {
            126 => (4, usize::from(u16::from_be_bytes([rest[2], rest[3]]))),
            127 => (10, u64::from_be_bytes(rest[2..10].try_into().expect("eight")) as usize),
            len => (2, usize::from(len)),
        };
        let payload = &rest[header..header + len];
        heard.push(match first {
            0x81 => serde_json::from_slice(payload).expect("JSON"),
            0x88 => json!({ "op": "close", "code": u16::from_be_bytes([payload[0], payload[1]]) }),
            other => panic!("{other:x}"),
        });
        rest = &rest[header + len..];
    }
    assert!(rest.is_empty(), "half a frame");
    heard
}

/// What was heard, in short: the offset of each message of a topic, the name of all else.
fn outline(heard: &[Value]) -> Vec<String> {
    let one = |told: &Value| match told["op"].as_str().expect("an op") {
        "message" => format!("{} {}", told["topic"].as_str().expect("a name"), told["offset"]),
        "gap" => format!("gap {}-{}", told["from"], told["to"]),
        other => other.to_owned(),
    };
    heard.iter().map(one).collect()
}

fn messages(topic: &str, offsets: std::ops::RangeInclusive<u64>) -> Vec<String> {
    offsets.map(|offset| format!("{topic} {offset}")).collect()
}

/// What may wait for a session: a part, the message that filled it, and a short answer.
fn assert_bounded(stage: &Stage) {
    let most = stage.shard.inspect().outbox_most;
    assert!(most <= SESSION_BYTES + 2_000, "{most} bytes wait for a session");
}

/// Reads what waits for a session, some bytes at a time.
fn read_slowly(stage: &mut Stage, socket: Socket) {
    let mut len = usize::MAX;
    while len != stage.sent(socket).len() {
        len = stage.sent(socket).len();
        stage.make_room(socket, 5_000);
        assert_bounded(stage);
    }
    stage.make_room(socket, usize::MAX);
}

#[test]
fn what_comes_first_waits_by_reference_and_comes_before_all_that_is_newer() {
    let mut stage = Stage::of(CONFIG, 1);
    let (publisher, reader) = (talker(&mut stage), talker(&mut stage));
    publish(&mut stage, publisher, "kept/a", 1..=200);
    say(&mut stage, reader, &json!({ "op": "subscribe", "topic": "other" }));
    stage.socket(reader, |kernel| kernel.room = 0);
    // The last command is not done before all has left that comes first: nothing of the topic comes behind its answer.
    say(
        &mut stage,
        reader,
        &json!([
            { "op": "subscribe", "id": 1, "topic": "kept/a", "history": 1000 },
            { "op": "ping", "id": 2 },
            { "op": "unsubscribe", "id": 3, "topic": "kept/a" },
        ]),
    );
    assert_bounded(&stage);
    publish(&mut stage, publisher, "kept/a", 201..=205);
    publish(&mut stage, publisher, "other", 1..=5);
    assert_bounded(&stage);
    read_slowly(&mut stage, reader);
    publish(&mut stage, publisher, "kept/a", 206..=206);
    publish(&mut stage, publisher, "other", 6..=6);
    let expected = [
        vec!["subscribed".to_owned()],
        messages("kept/a", 1..=205),
        messages("other", 1..=5),
        vec!["pong".to_owned(), "unsubscribed".to_owned()],
        messages("other", 6..=6),
    ];
    assert_eq!(outline(&heard(&stage, reader)), expected.concat());
}

#[test]
fn what_comes_first_of_several_topics_comes_in_their_order() {
    let mut stage = Stage::of(CONFIG, 1);
    let (publisher, reader) = (talker(&mut stage), talker(&mut stage));
    publish(&mut stage, publisher, "kept/a", 1..=60);
    publish(&mut stage, publisher, "keys/b", 1..=60);
    stage.socket(reader, |kernel| kernel.room = 0);
    say(
        &mut stage,
        reader,
        &json!([
            { "op": "subscribe", "topic": "kept/a", "history": 50 },
            { "op": "subscribe", "topic": "keys/b" },
        ]),
    );
    read_slowly(&mut stage, reader);
    publish(&mut stage, publisher, "keys/b", 61..=61);
    let expected = [messages("kept/a", 11..=60), messages("keys/b", 1..=61)];
    assert_eq!(outline(&heard(&stage, reader)), expected.concat());
    // The same on a raw topic, whose messages come as they are.
    let raw = stage.client_at("/topics/keys/b", "");
    stage.turns(10);
    assert!(stage.sent(raw).len() > 61 * 1_000, "it reads");
    let raw = stage.accept();
    stage.socket(raw, |kernel| kernel.room = 1_000);
    stage.send(
        raw,
        b"GET /topics/keys/b HTTP/1.1\r\nHost: gw.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    );
    assert_bounded(&stage);
    read_slowly(&mut stage, raw);
    let sent = String::from_utf8_lossy(&stage.sent(raw)).into_owned();
    let numbers = sent.match_indices("\"filler\"").count();
    assert_eq!(numbers, 61, "each once");
}

#[test]
fn what_is_newer_than_what_comes_first_waits_within_session_bytes() {
    for (topic, closes) in [("new/a", false), ("kept/a", true)] {
        let mut stage = Stage::of(CONFIG, 1);
        let (publisher, reader) = (talker(&mut stage), talker(&mut stage));
        publish(&mut stage, publisher, topic, 1..=100);
        stage.socket(reader, |kernel| kernel.room = 0);
        say(&mut stage, reader, &json!({ "op": "subscribe", "topic": topic, "history": 1000 }));
        publish(&mut stage, publisher, topic, 101..=110);
        assert!(stage.socket(reader, |kernel| kernel.down.is_none()));
        assert_eq!(stage.shard.counters().fell_behind, 0, "{topic}: there is room");
        publish(&mut stage, publisher, topic, 111..=150);
        assert_eq!(stage.shard.counters().fell_behind, 1, "{topic}: there was not");
        read_slowly(&mut stage, reader);
        let told = outline(&heard(&stage, reader));
        let (last, came) = told.split_last().expect("something");
        assert_eq!(came, messages(topic, 1..=came.len() as u64), "{topic}: without a hole");
        if closes {
            assert_eq!(last, "close");
            continue;
        }
        // What has a place by what it is counts as much as what it holds.
        assert!((111..=120).contains(&came.len()), "{}", came.len());
        assert_eq!(*last, format!("gap {}-150", came.len() + 1));
        publish(&mut stage, publisher, topic, 151..=151);
        assert_eq!(outline(&heard(&stage, reader)).last(), Some(&format!("{topic} 151")), "it is live");
    }
}

#[test]
fn four_answers_that_bring_a_topics_state_may_be_on_their_way() {
    for (below, count, waits) in
        [("state", 4, false), ("state", 5, true), ("keys", 5, true), ("bare", 5, false)]
    {
        let mut stage = Stage::of(CONFIG, 2);
        let talker = talker(&mut stage);
        let topics = topics_at(below, 1).take(count).collect::<Vec<_>>();
        let mut commands: Vec<Value> =
            topics.iter().map(|topic| json!({ "op": "subscribe", "topic": topic })).collect();
        commands.push(json!({ "op": "ping", "id": 1 }));
        say(&mut stage, talker, &Value::from(commands));
        stage.turns(10);
        // The other shard answers nothing.
        assert_eq!(heard(&stage, talker).is_empty(), waits, "{count} of {below}");
    }
}

#[test]
fn a_poll_keeps_no_more_than_its_answer_takes() {
    let mut stage = Stage::of(CONFIG, 2);
    let publisher = talker(&mut stage);
    let here = topics_at("bare", 0).next().expect("one of them");
    let there: Vec<String> = topics_at("bare", 1).take(1).collect();
    // Where the other shard does not answer, neither can this.
    let poller = stage.accept();
    stage.send(
        poller,
        format!("GET /poll?topic={here}&topic={} HTTP/1.1\r\nHost: gw.test\r\n\r\n", there[0]).as_bytes(),
    );
    publish(&mut stage, publisher, &here, 1..=200);
    let (_, subscriptions, held) = stage.plan.topics_held();
    assert_eq!(subscriptions, 2, "it waits");
    assert!(held <= 2 * SESSION_BYTES, "{held} bytes of publications");
    assert!(held >= SESSION_BYTES, "{held} bytes of publications: it has kept what it will tell");
}

/// The body of the last answer to a request.
fn told(stage: &Stage, socket: Socket) -> Value {
    let sent = String::from_utf8(stage.sent(socket)).expect("text");
    let (_, body) = sent.rsplit_once("\r\n\r\n").expect("a head and a body");
    serde_json::from_str(body).expect("JSON")
}

#[test]
fn who_polls_a_state_that_is_larger_than_an_answer_gets_all_of_it_and_then_the_news() {
    let mut stage = Stage::of(CONFIG, 1);
    let (publisher, poller) = (talker(&mut stage), stage.accept());
    // Each key twice: what comes has holes.
    publish(&mut stage, publisher, "keys/a", 1..=100);
    publish(&mut stage, publisher, "keys/a", 1..=50);
    let poll = |stage: &mut Stage, position: &str| {
        let request = format!("GET /poll?topic=keys/a&wait=0{position} HTTP/1.1\r\nHost: gw.test\r\n\r\n");
        stage.send(poller, request.as_bytes());
        let told = told(stage, poller);
        let offsets = told["messages"].as_array().expect("a list").iter();
        let offsets: Vec<u64> =
            offsets.map(|message| message["offset"].as_u64().expect("a number")).collect();
        let position = told["position"].as_str().expect("a position").to_owned();
        (offsets, position, told["topics"][0]["recovered"].clone())
    };
    let (mut all, mut position, _) = poll(&mut stage, "");
    assert!((10..20).contains(&all.len()), "{all:?}");
    for round in 0.. {
        let (more, then, recovered) = poll(&mut stage, &format!("&position={position}"));
        assert_eq!(recovered, json!(true));
        position = then;
        if more.is_empty() {
            break;
        }
        assert!(round < 10, "{all:?}, {more:?}");
        all.extend(more);
    }
    assert!(all.iter().copied().eq(51..=150), "{all:?}");
    publish(&mut stage, publisher, "keys/a", 7..=7);
    let (news, _, recovered) = poll(&mut stage, &format!("&position={position}"));
    assert_eq!((news, recovered), (vec![151], json!(true)));
}

#[test]
fn what_polls_are_answered_is_no_memory_of_topics() {
    let mut stage = Stage::of(CONFIG, 1);
    let publisher = talker(&mut stage);
    publish(&mut stage, publisher, "kept/a", 1..=40);
    let (.., before) = stage.plan.topics_held();
    for n in 0..8 {
        let poller = stage.accept();
        stage.socket(poller, |kernel| kernel.room = 0);
        let poll = |limit: u64| {
            format!("GET /poll?topic=kept/a&wait=0&history={limit} HTTP/1.1\r\nHost: gw.test\r\n\r\n")
        };
        // No answer is the same as that before it.
        let polls: String = (0..100).map(|round| poll(8 + (round + n) % 7)).collect();
        stage.send(poller, polls.as_bytes());
        stage.turns(200);
    }
    let seen = stage.shard.inspect();
    assert!(seen.outbox_bytes > 4 << 20, "{} bytes wait", seen.outbox_bytes);
    // Above the soft mark nothing more is read.
    assert!(seen.outbox_most < (1 << 20) + 3 * SESSION_BYTES, "{} bytes wait", seen.outbox_most);
    let (.., held) = stage.plan.topics_held();
    assert!(held <= before + 1_000, "{held} bytes of topics, {before} before");
}

#[test]
fn what_polls_are_answered_counts_in_their_share_of_a_turn() {
    let mut stage = Stage::of(CONFIG, 1);
    let publisher = talker(&mut stage);
    let pollers: Vec<Socket> = (0..60).map(|_| stage.accept()).collect();
    for (n, &poller) in pollers.iter().enumerate() {
        // No two answers are the same.
        let request = |position: &str| {
            format!("GET /poll?topic=kept/p&topic=kept/q{n}{position} HTTP/1.1\r\nHost: gw.test\r\n\r\n")
        };
        stage.send(poller, request("").as_bytes());
        let position = told(&stage, poller)["position"].as_str().expect("a position").to_owned();
        stage.socket(poller, |kernel| kernel.sent.clear());
        stage.send(poller, request(&format!("&position={position}")).as_bytes());
        assert!(stage.sent(poller).is_empty(), "it waits");
    }
    let publish = json!({ "op": "publish", "topic": "kept/p", "data": "x".repeat(60_000) });
    stage.arrive(publisher, &frame(0x81, publish.to_string().as_bytes(), true));
    let mut answered = Vec::new();
    while answered.last() != Some(&60) {
        stage.turn();
        answered.push(pollers.iter().filter(|&&poller| !stage.sent(poller).is_empty()).count());
        assert!(answered.len() < 100, "{answered:?}");
    }
    // A turn has about a mebibyte for them.
    let most = answered.windows(2).map(|turns| turns[1] - turns[0]).max();
    assert!(most.is_some_and(|most| (10..=20).contains(&most)), "{answered:?}");
}

/// Sessions whose answers, each of a quarter of a mebibyte, fill a turn together.
fn fill_a_turn(stage: &mut Stage, greedy: &[Socket], first: &Value) {
    let history = json!({ "op": "history", "id": 1, "topic": "kept/large", "limit": 100 });
    for &socket in greedy {
        let commands = [first.clone(), history.clone()].into_iter().filter(|command| !command.is_null());
        let message = Value::from(commands.collect::<Vec<_>>()).to_string();
        stage.arrive(socket, &frame(0x81, message.as_bytes(), true));
    }
    stage.turn();
    for &socket in greedy {
        stage.socket(socket, |kernel| kernel.sent.clear());
    }
}

/// Those sessions, and what they ask for.
fn greedy(stage: &mut Stage, publisher: Socket) -> Vec<Socket> {
    for _ in 0..8 {
        let data = "x".repeat(60_000);
        say(stage, publisher, &json!({ "op": "publish", "topic": "kept/large", "data": data }));
    }
    (0..8).map(|_| talker(stage)).collect()
}

#[test]
fn who_catches_up_has_a_part_of_each_turn_that_others_fill() {
    let mut stage = Stage::of(CONFIG, 1);
    let (publisher, slow) = (talker(&mut stage), talker(&mut stage));
    let greedy = greedy(&mut stage, publisher);
    say(&mut stage, slow, &json!({ "op": "subscribe", "topic": "new/a" }));
    stage.socket(slow, |kernel| kernel.room = 0);
    publish(&mut stage, publisher, "new/a", 1..=40);
    assert_eq!(stage.shard.counters().fell_behind, 1);
    stage.socket(slow, |kernel| kernel.room = usize::MAX);
    let token = stage.socket(slow, |kernel| kernel.poll.take()).expect("it waits for room");
    stage.world.borrow_mut().events.push_back(Event::Writable { token });
    for _ in 0..8 {
        fill_a_turn(&mut stage, &greedy, &Value::Null);
    }
    let told = outline(&heard(&stage, slow));
    assert!(told.last().is_some_and(|last| last.starts_with("gap ")), "it has caught up: {told:?}");
}

#[test]
fn polls_have_a_part_of_each_turn_that_others_fill() {
    let mut stage = Stage::of(CONFIG, 1);
    let publisher = talker(&mut stage);
    let greedy = greedy(&mut stage, publisher);
    let poll = |stage: &mut Stage, poller, position: &str| {
        let request = format!("GET /poll?topic=kept/p{position} HTTP/1.1\r\nHost: gw.test\r\n\r\n");
        stage.send(poller, request.as_bytes());
    };
    let pollers: Vec<Socket> = (0..3).map(|_| stage.accept()).collect();
    for &poller in &pollers {
        poll(&mut stage, poller, "");
        let answer = String::from_utf8(stage.sent(poller)).expect("text");
        let (_, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let body: Value = serde_json::from_str(body).expect("JSON");
        let position = body["position"].as_str().expect("a position");
        stage.socket(poller, |kernel| kernel.sent.clear());
        poll(&mut stage, poller, &format!("&position={position}"));
        assert!(stage.sent(poller).is_empty(), "it waits");
    }
    // The answers are put off in turns that are full, but not all of them, nor for ever.
    fill_a_turn(&mut stage, &greedy, &json!({ "op": "publish", "topic": "kept/p", "data": 1 }));
    for _ in 0..3 {
        fill_a_turn(&mut stage, &greedy, &Value::Null);
    }
    for poller in pollers {
        let answer = String::from_utf8(stage.sent(poller)).expect("text");
        assert!(answer.contains(r#""messages":[{"topic":"kept/p","offset":1,"data":1}"#), "{answer}");
    }
}

#[test]
fn a_message_whose_commands_wait_is_parsed_twice_and_no_more() {
    let mut stage = Stage::of(CONFIG, 1);
    let talker = talker(&mut stage);
    publish(&mut stage, talker, "kept/a", 1..=40);
    // Each answer is more than may wait, and each command waits for the one before it.
    let mut commands: Vec<Value> =
        (0..64).map(|id| json!({ "op": "history", "id": id, "topic": "kept/a" })).collect();
    commands[0]["x"] = json!("]},{[\"\\".repeat(2_000));
    commands[63]["x"] = json!("[".repeat(100_000));
    let message = Value::from(commands).to_string();
    let before = stage.shard.counters().parsed_bytes;
    say(&mut stage, talker, &serde_json::from_str(&message).expect("JSON"));
    stage.turns(500);
    let ids: Vec<u64> =
        heard(&stage, talker).iter().map(|told| told["id"].as_u64().expect("a number")).collect();
    assert!(ids.iter().copied().eq(0..64), "{ids:?}");
    let parsed = (stage.shard.counters().parsed_bytes - before) as usize;
    assert!(parsed >= message.len() && parsed <= 2 * message.len(), "{parsed} bytes of {}", message.len());
}
