//! Orders that end sessions, and what topics have for these sessions by then: what its publisher was told of is theirs. On a backend
//! that a test plays by hand.

mod stage;

use tidegate_hub::{Format, Publish, TopicName, TopicRules};
use tidegate_io::Event;
use tidegate_shard::{Departure, Ended, Mail, Pace, Whom, report::Reply};
use tidegate_wire::close::CloseCode;

use crate::stage::{Neighbour, Socket, Stage, topics_at};

const DRAIN: &str = "[drain]\nwindow = \"0s\"\ndeadline = \"5s\"\n[[topic]]\nname = \"**\"\n";

/// Where members are, and where they are no more when these routes have gone.
const ROUTES: &str = "[[route]]\npath = \"/topics/*\"\ntopics = { subscribe = [\"**\"] }\n\
    [[route]]\npath = \"/events\"\nevents = { subscribe = [\"**\"] }\n\
    [[route]]\npath = \"/poll\"\npoll = { subscribe = [\"**\"] }\n";

const STAYS: &str = "[[route]]\npath = \"/stays\"\necho = {}\n";

/// Members of a topic that lives on the other shard.
struct Scene {
    stage: Stage,
    neighbour: Neighbour,
    topic: String,
    sessions: [Socket; 2],
    stream: Socket,
    poll: Socket,
}

impl Scene {
    fn new() -> Scene {
        let mut stage = Stage::of(&format!("{DRAIN}{ROUTES}{STAYS}"), 2);
        let mut neighbour = Neighbour::of(&mut stage, TopicRules::default());
        let topic = topics_at("topic", 1).next().expect("one");
        let raw = stage.client_at(&format!("/topics/{topic}"), "");
        let [stream, poll] = ["/events", "/poll"].map(|path| {
            let socket = stage.accept();
            let request = format!("GET {path}?topic={topic} HTTP/1.1\r\nHost: gw.test\r\n\r\n");
            stage.send(socket, request.as_bytes());
            socket
        });
        let talks = stage.client_at("/topics", "");
        let subscribe = format!("{{\"op\":\"subscribe\",\"topic\":\"{topic}\"}}");
        stage.send(talks, &stage::frame(0x81, subscribe.as_bytes(), true));
        neighbour.run(&mut stage);
        stage.turns(2);
        // The first answer says where the topic is; the next one waits for news.
        let first = String::from_utf8(stage.sent(poll)).expect("text");
        let (_, rest) = first.split_once("\"position\":\"").expect("a position");
        let (position, _) = rest.split_once('"').expect("its end");
        let request =
            format!("GET /poll?topic={topic}&position={position}&wait=60 HTTP/1.1\r\nHost: gw.test\r\n\r\n");
        stage.send(poll, request.as_bytes());
        neighbour.run(&mut stage);
        let sessions = [raw, talks];
        for socket in [raw, talks, stream, poll] {
            stage.socket(socket, |kernel| kernel.sent.clear());
        }
        Scene { stage, neighbour, topic, sessions, stream, poll }
    }

    /// Something is published on the other shard, and is on its way to this one when `end` gives an order.
    fn publish_before(&mut self, end: impl FnOnce(&mut Stage)) {
        let name = TopicName::parse(&self.topic).expect("a name");
        let message = Publish::new(Format::Text, b"last words".to_vec());
        self.neighbour.hub.publish(None, &name, message, 0).expect("there is room");
        self.neighbour.write(&self.stage);
        end(&mut self.stage);
        self.stage.world.borrow_mut().complete(Event::Woken);
        self.stage.turns(4);
    }

    /// All have had it, and their end behind it.
    fn assert_told(&self, order: &str) {
        for socket in self.sessions {
            let sent = self.stage.sent(socket);
            let words = place(&sent, b"last words");
            let close = sent.iter().rposition(|byte| *byte == 0x88);
            assert!(words.is_some() && words < close, "{order}: {:?}", String::from_utf8_lossy(&sent));
        }
        let stream = self.stage.sent(self.stream);
        let is_told = place(&stream, b"last words").is_some() && stream.ends_with(b"\r\n0\r\n\r\n");
        assert!(is_told, "{order}: {:?}", String::from_utf8_lossy(&stream));
        let poll = self.stage.sent(self.poll);
        let is_told = poll.starts_with(b"HTTP/1.1 200 ") && place(&poll, b"last words").is_some();
        assert!(is_told, "{order}: {:?}", String::from_utf8_lossy(&poll));
    }
}

fn place(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

fn at_once() -> Pace {
    Pace { code: CloseCode::GOING_AWAY, window_ms: 0, deadline_ms: 5_000, reconnect_delay_ms: 0 }
}

#[test]
fn what_was_sent_before_the_gateway_ends_reaches_who_is_closed() {
    for order in
        [Mail::Drain(CloseCode::GOING_AWAY), Mail::Depart(Departure { whom: Whom::All, pace: at_once() })]
    {
        let mut scene = Scene::new();
        let text = format!("{order:?}");
        scene.publish_before(|stage| stage.sender.order(order));
        scene.assert_told(&text);
    }
}

#[test]
fn what_was_sent_before_routes_are_drained_or_taken_away_reaches_who_is_closed() {
    let mut scene = Scene::new();
    scene.publish_before(|stage| {
        for whom in ["/topics/*", "/events", "/poll"].map(|name| stage.plan.named(name)[0]) {
            stage.sender.order(Mail::Depart(Departure { whom, pace: at_once() }));
        }
    });
    scene.assert_told("drained");
    let mut scene = Scene::new();
    scene.publish_before(|stage| {
        let text = format!("version = 1\n{DRAIN}{STAYS}[[listener]]\nbind = \"127.0.0.1:1\"\n");
        stage.adopt(
            tidegate_config::parse(&text, "test.toml").unwrap_or_else(|problems| panic!("{problems:#?}")),
        );
    });
    scene.assert_told("taken away");
}

#[test]
fn what_was_sent_before_an_operator_ends_sessions_reaches_them() {
    let mut scene = Scene::new();
    scene.publish_before(|stage| {
        let keys = stage.tokens.values().map(|token| token.0).collect();
        let ended = Ended { keys, code: CloseCode::GOING_AWAY, reply: Reply::new(|_| {}) };
        stage.sender.send(Mail::End(ended)).expect("there is room");
    });
    scene.assert_told("ended");
}

/// What is published on the shard itself, in the turn that reads the order.
#[test]
fn what_is_published_right_before_an_order_reaches_who_is_closed_where_its_publisher_is_told_so() {
    let config =
        format!("{DRAIN}{ROUTES}[[route]]\npath = \"/publish\"\npublish = {{ publish = [\"**\"] }}\n");
    let mut stage = Stage::of(&config, 1);
    let reader = stage.client_at("/topics/a", "");
    let publisher = stage.accept();
    let body = "{\"topic\":\"a\",\"data\":\"words\"}";
    let head = "POST /publish HTTP/1.1\r\nHost: gw.test\r\nContent-Type: application/json\r\n";
    let post = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    stage.arrive(publisher, post.as_bytes());
    stage.drain();
    let answer = String::from_utf8(stage.sent(publisher)).expect("text");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let sent = stage.sent(reader);
    assert!(place(&sent, b"words").is_some(), "{:?}", String::from_utf8_lossy(&sent));
}
