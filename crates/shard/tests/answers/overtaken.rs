//! The answer to a subscription that overtakes what a pattern has brought of the same topic, and is kept yet: its home is another
//! shard.

use serde_json::{Value, json};
use tidegate_hub::{Filter, Format, Limits, Publish, Rule, Slow, TopicName, TopicRules, TopicSettings};

use super::{CONFIG, heard, messages, outline, publish, read_slowly, say, talker};
use crate::stage::{Neighbour, Socket, Stage, topics_at};

/// A topic that the neighbour keeps the state of, three messages of which have come by a pattern, and one is still to come.
struct Scene {
    stage: Stage,
    neighbour: Neighbour,
    topic: String,
}

impl Scene {
    fn new() -> Scene {
        let mut stage = Stage::of(CONFIG, 2);
        let settings = TopicSettings { slow: Slow::Conflate, ..TopicSettings::default() };
        let rule = Rule { filter: Filter::parse("keys/**").expect("a pattern"), settings };
        let rules = TopicRules::new(vec![rule], TopicSettings::default(), Limits::default());
        let mut neighbour = Neighbour::of(&mut stage, rules);
        let topic = topics_at("keys", 1).next().expect("one");
        // Somebody has the pattern, so that its home knows of it.
        let other = talker(&mut stage);
        say(&mut stage, other, &json!({ "op": "subscribe", "topic": "keys/*" }));
        neighbour.run(&mut stage);
        let mut scene = Scene { stage, neighbour, topic };
        scene.publish(1..=3);
        scene
    }

    /// Messages of different keys come from the neighbour, whatever it was asked meanwhile.
    fn publish(&mut self, numbers: std::ops::RangeInclusive<u64>) {
        let name = TopicName::parse(&self.topic).expect("a name");
        for n in numbers {
            let message =
                Publish { key: Some(format!("k{n}").into()), ..Publish::new(Format::Text, vec![b'x']) };
            self.neighbour.hub.publish(None, &name, message, 0).expect("there is room");
        }
        self.neighbour.tell(&mut self.stage);
    }
}

/// What a stream was told: data that stands in one line each.
fn events(stage: &Stage, socket: Socket) -> Vec<Value> {
    let text = String::from_utf8(stage.sent(socket)).expect("UTF-8");
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    data.map(|json| serde_json::from_str(json).expect("JSON")).collect()
}

#[test]
fn a_stream_by_name_and_by_pattern_has_each_message_once_and_in_order() {
    let mut scene = Scene::new();
    let stream = scene.stage.accept();
    let request = format!("GET /events?topic=keys/*&topic={} HTTP/1.1\r\nHost: gw.test\r\n\r\n", scene.topic);
    scene.stage.send(stream, request.as_bytes());
    // It comes by the pattern while the name waits for its answer, in which it is.
    scene.publish(4..=4);
    assert!(events(&scene.stage, stream).is_empty(), "it has not begun");
    scene.neighbour.run(&mut scene.stage);
    scene.publish(5..=5);
    let told = events(&scene.stage, stream);
    assert_eq!(told[0]["topics"][1]["offset"], 4, "{told:?}");
    let offsets: Vec<_> = told[1..].iter().map(|told| told["offset"].as_u64().expect("a message")).collect();
    assert_eq!(offsets, [1, 2, 3, 4, 5]);
}

#[test]
fn an_answer_that_overtakes_what_is_kept_of_a_pattern_brings_it() {
    let mut scene = Scene::new();
    let (publisher, reader) = (talker(&mut scene.stage), talker(&mut scene.stage));
    scene.stage.socket(reader, |kernel| kernel.room = 0);
    // What comes first of the last one, which is at home here, keeps back what comes by the pattern.
    let at_home = topics_at("kept", 0).next().expect("one");
    publish(&mut scene.stage, publisher, &at_home, 1..=40);
    say(
        &mut scene.stage,
        reader,
        &json!([
            { "op": "subscribe", "topic": "keys/*" },
            { "op": "subscribe", "id": 1, "topic": scene.topic },
            { "op": "subscribe", "id": 2, "topic": at_home, "history": 1000 },
        ]),
    );
    scene.publish(4..=5);
    scene.neighbour.run(&mut scene.stage);
    scene.publish(6..=6);
    read_slowly(&mut scene.stage, reader);
    let told = heard(&scene.stage, reader);
    let answer = told.iter().find(|told| told["id"] == 1).expect("an answer");
    assert_eq!((&answer["offset"], &answer["pattern_offset"]), (&json!(5), &json!(3)), "{answer}");
    let of_keys: Vec<_> = outline(&told).into_iter().filter(|told| told.starts_with(&scene.topic)).collect();
    assert_eq!(of_keys, messages(&scene.topic, 1..=6));
}
