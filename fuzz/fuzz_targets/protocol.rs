//! Whatever a client sends is read as serde_json reads it, in every field, or refused where serde_json refuses it; and
//! what was published is, behind the gateway, what it was before.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_hub::protocol::{
    Command, EventsQuery, PollQuery, Positions, Publish, PublishFields, Scratch, events, publication,
    publications, topic_of_path, write,
};

#[path = "../../crates/hub/tests/protocol/oracle.rs"]
mod oracle;

fuzz_target!(|data: &[u8]| {
    oracle::check(data);
    for request in oracle::parse(data) {
        if let Ok(Command::Publish(publish)) = request.command {
            check_delivery(&publish);
        }
    }
    for publish in
        publications(Some("application/json"), data, &mut Scratch::new()).into_iter().flatten().flatten()
    {
        check_delivery(&publish);
    }
    for content_type in [None, Some("text/plain"), Some("application/json")] {
        let fields = PublishFields { content_type, ..PublishFields::default() };
        if let Ok(publish) = publication("a".into(), fields, data) {
            check_delivery(&publish);
        }
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    let last = text.get(..text.len() / 2);
    if let Ok(query) = EventsQuery::parse(text, last) {
        assert!((1..=16).contains(&query.topics.len()));
    }
    if let Ok(query) = PollQuery::parse(text) {
        assert!((1..=16).contains(&query.topics.len()) && query.wait_seconds <= 25);
        assert_eq!(query.history.len(), query.topics.len());
        assert!(query.history.iter().all(|history| *history <= 1000));
        assert!(query.client.is_none_or(|client| (8..=64).contains(&client.len())));
    }
    let _ = (topic_of_path(text), Positions::parse(text, 3));
});

/// The message of a publication carries it, and so does its event.
fn check_delivery(publish: &Publish<'_>) {
    let mut out = Vec::new();
    write::message(&mut out, &publish.topic, 7, publish.payload.content());
    // With another `op` a message is a publication again.
    let text = std::str::from_utf8(&out).expect("UTF-8").replacen("message", "publish", 1);
    let again = oracle::parse(text.as_bytes()).next().expect("one").command;
    let Ok(Command::Publish(again)) = again else { panic!("{again:?}: {text}") };
    assert_eq!((&again.topic, &again.payload), (&publish.topic, &publish.payload));

    let mut event = Vec::new();
    events::message(&mut event, &publish.topic, 7, publish.payload.content());
    let event = std::str::from_utf8(&event).expect("UTF-8").strip_suffix("\n\n").expect("an end");
    let lines: Vec<&str> = event.split('\n').map(|line| line.strip_prefix("data: ").expect("data")).collect();
    assert!(!event.contains('\r'));
    let text = text.replacen(r#""op":"publish","#, "", 1).replace("\r\n", "\n").replace('\r', "\n");
    assert_eq!(lines.join("\n"), text);
}
