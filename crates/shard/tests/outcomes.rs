//! What is answered to publications over HTTP whose topics live on another shard that is late, or says nothing. On a backend
//! that a test plays by hand.

mod stage;

use tidegate_hub::TopicRules;
use tidegate_io::Event;
use tidegate_shard::Mail;

use stage::{Neighbour, Socket, Stage, frame, topics_at};

fn post(topics: &[&str]) -> Vec<u8> {
    let all: Vec<String> = topics.iter().map(|topic| format!(r#"{{"topic":"{topic}","data":1}}"#)).collect();
    let body = format!("[{}]", all.join(","));
    let head = "POST /r HTTP/1.1\r\nHost: gw.test\r\nContent-Type: application/json\r\n";
    format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// What was answered, which is forgotten: the status and the body.
fn answered(stage: &mut Stage, client: Socket) -> Option<(String, String)> {
    let sent = stage.socket(client, |kernel| std::mem::take(&mut kernel.sent));
    let text = String::from_utf8(sent).expect("UTF-8");
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.to_owned(), body.to_owned()))
}

const PUBLISH: &str = "[[route]]\npath = \"/r\"\npublish = { publish = [\"**\"] }";

#[test]
fn an_outcome_that_nobody_knows_is_told_as_unknown() {
    let mut stage = Stage::of(PUBLISH, 2);
    let mut neighbour = Neighbour::of(&mut stage, TopicRules::default());
    let (here, there) =
        (topics_at("topic", 0).next().expect("one"), topics_at("topic", 1).next().expect("one"));
    let client = stage.accept();
    stage.send(client, &post(&[&here, &there, &here]));
    stage.pass(9);
    assert_eq!(answered(&mut stage, client), None, "it may be answered yet");
    stage.pass(2);
    let (status, body) = answered(&mut stage, client).expect("what is known");
    assert_eq!(status, "207", "{body}");
    let results: Vec<bool> = body.split("},{").map(|result| result.contains("accepted")).collect();
    assert_eq!(results, [true, false, true], "{body}");
    assert_eq!(body.matches(r#""code":"unknown""#).count(), 1, "{body}");
    // Of none of them it is known.
    stage.send(client, &post(&[&there]));
    stage.pass(11);
    let (status, body) = answered(&mut stage, client).expect("that nothing is known");
    assert!(status == "504" && body.contains(r#""code":"unknown""#), "{status} {body}");
    // It was done all the same.
    neighbour.run(&mut stage);
    assert_eq!(neighbour.hub.counts().published, 2);
    assert_eq!(answered(&mut stage, client), None, "there is one answer to each request");
}

#[test]
fn a_late_answer_is_not_taken_for_that_of_the_next_request() {
    let mut stage = Stage::of(PUBLISH, 2);
    let mut neighbour = Neighbour::of(&mut stage, TopicRules::default());
    let mut there = topics_at("topic", 1);
    let (first, second) = (there.next().expect("one"), there.next().expect("another"));
    let client = stage.accept();
    stage.send(client, &post(&[&first]));
    stage.pass(11);
    assert_eq!(answered(&mut stage, client).expect("that nothing is known").0, "504");
    // The neighbour comes to the first one while the second is on its way.
    let late = neighbour.inbox.take().expect("the first");
    let Mail::Topics { from, letters } = late else { panic!("{late:?}") };
    let now_ms = stage.world.borrow().now_ms;
    neighbour.hub.receive(from, letters, now_ms);
    stage.send(client, &post(&[&second]));
    let (_, letters) = neighbour.hub.poll_letters().expect("an answer");
    stage.sender.send(Mail::Topics { from: 1, letters }).expect("there is room");
    stage.world.borrow_mut().complete(Event::Woken);
    stage.turns(3);
    assert_eq!(answered(&mut stage, client), None, "that was not asked for any more");
    assert!(neighbour.hub.poll_letters().is_none(), "the end of its turn");
    neighbour.run(&mut stage);
    let (status, body) = answered(&mut stage, client).expect("its own answer");
    assert!(status == "200" && body.contains(&second), "{status} {body}");
}

#[test]
fn subscriptions_that_end_before_their_answer_are_nobodys_errors() {
    let mut stage = Stage::of("[[route]]\npath = \"/topics/*\"\ntopics = { subscribe = [\"**\"] }", 2);
    let mut neighbour = Neighbour::of(&mut stage, TopicRules::default());
    let client = stage.client_at("/topics", "");
    let say = |stage: &mut Stage, op: &str, topic: &str| {
        let command = format!(r#"{{"op":"{op}","topic":"{topic}"}}"#);
        stage.send(client, &frame(0x81, command.as_bytes(), true));
    };
    for topic in topics_at("topic", 1).take(150) {
        say(&mut stage, "subscribe", &topic);
        say(&mut stage, "unsubscribe", &topic);
    }
    neighbour.run(&mut stage);
    let told = |stage: &Stage| {
        let sent = stage.sent(client);
        let text = String::from_utf8_lossy(&sent);
        (text.matches("not_subscribed").count(), text.contains("too many errors"))
    };
    assert_eq!(told(&stage), (150, false));
    // What is wrong indeed counts.
    for _ in 0..101 {
        say(&mut stage, "unsubscribe", "unknown");
    }
    assert_eq!(told(&stage), (250, true));
}
