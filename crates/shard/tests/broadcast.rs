//! What a publication costs its shard, whoever many get it, and who is there when somebody is gone without a word. On a backend
//! that a test plays by hand.

mod stage;

use serde_json::{Value, json};

use stage::{Socket, Stage, frame};

const CONFIG: &str = r#"
[limits]
ping_interval = "2s"
pong_timeout = "1s"
[[topic]]
name = "here"
presence = true
[[route]]
path = "/topics/*"
topics = { subscribe = ["**"], publish = ["**"], presence = ["**"] }
"#;

fn open(stage: &mut Stage, path: &str, fields: &str) -> Socket {
    let socket = stage.client_at(path, fields);
    assert!(stage.sent(socket).starts_with(b"HTTP/1.1 101"));
    stage.socket(socket, |kernel| kernel.sent.clear());
    socket
}

#[test]
fn a_message_is_deflated_once_for_each_window() {
    const EACH: usize = 20;
    let mut stage = Stage::of(CONFIG, 1);
    let windows = ["", "permessage-deflate", "permessage-deflate; server_max_window_bits=10"];
    let classes = windows.map(|offer| {
        let fields = match offer {
            "" => String::new(),
            offer => format!("Sec-WebSocket-Extensions: {offer}\r\n"),
        };
        (0..EACH).map(|_| open(&mut stage, "/topics/news", &fields)).collect::<Vec<_>>()
    });
    let deflated = stage.shard.inspect().deflated_messages;
    let publisher = classes[0][0];
    for n in 1..=3 {
        stage.send(publisher, &frame(0x81, "deflated once ".repeat(100).as_bytes(), true));
        stage.turns(3);
        assert_eq!(stage.shard.inspect().deflated_messages - deflated, 2 * n, "one for each window");
    }
    for (class, first) in classes.iter().zip([0x81, 0xc1, 0xc1]) {
        let frames = stage.sent(class[0]);
        assert_eq!(frames[0], first);
        for &subscriber in class {
            assert_eq!(stage.sent(subscriber), frames, "all of a class get the same bytes");
        }
    }
}

/// What a session that speaks the protocol was told: whole short messages.
fn told(stage: &Stage, socket: Socket) -> Vec<Value> {
    let sent = stage.sent(socket);
    let mut rest = &sent[..];
    let mut told = Vec::new();
    while let [first, len @ 0..=125, ref more @ ..] = *rest {
        let (payload, behind) = more.split_at(usize::from(len));
        if first == 0x81 {
            told.push(serde_json::from_slice(payload).expect("JSON"));
        }
        rest = behind;
    }
    assert!(rest.is_empty(), "{rest:?}");
    told
}

#[test]
fn who_answers_no_ping_has_left() {
    let mut stage = Stage::of(CONFIG, 1);
    let talkers = ["watches", "vanishes"].map(|name| {
        let socket = open(&mut stage, "/topics", "");
        let subscribe = json!({ "op": "subscribe", "topic": "here", "presence": name == "watches" });
        stage.send(socket, &frame(0x81, subscribe.to_string().as_bytes(), true));
        socket
    });
    let [watches, vanishes] = talkers;
    stage.turns(3);
    let joined = told(&stage, watches);
    let join =
        joined.iter().find(|told| told["op"] == "join").unwrap_or_else(|| panic!("no join: {joined:?}"));
    let name = join["client"].clone();
    // One of them speaks, the other one does not even answer pings: its network is gone.
    for second in 1..=10 {
        stage.send(watches, &frame(0x81, br#"{"op":"ping"}"#, true));
        stage.pass(1);
        let left = told(&stage, watches).iter().any(|told| told["op"] == "leave" && told["client"] == name);
        match second {
            1 => assert!(!left, "it was heard of a second ago"),
            10 => assert!(left, "nobody was told: {:?}", told(&stage, watches)),
            _ => {}
        }
    }
    assert_eq!((stage.down(vanishes), stage.down(watches)), (Some(true), None));
    assert_eq!(stage.shard.counters().ping_timeouts, 1);
}
