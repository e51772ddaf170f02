//! Every example of `docs/PROTOCOL.md` is what is read and what is written.

use std::collections::BTreeSet;

use serde_json::Value;
use tidegate_hub::Epoch;
use tidegate_hub::protocol::{
    Acceptance, Code, Content, EventsQuery, Format, Gap, GapReason, Id, PollQuery, Position, Present,
    Problem, PublishFields, Recover, Results, Scratch, Standing, State, StateQuery, events, publication,
    publications, push_error, push_poll, push_poll_message, push_state, topic_of_path, write,
};

use crate::oracle::{check, parse, told_publish};

const DOCUMENT: &str = include_str!("../../../../docs/PROTOCOL.md");

/// The examples between fences with this word.
fn examples(word: &str) -> Vec<&'static str> {
    let fence = format!("```{word}\n");
    let found: Vec<&str> =
        DOCUMENT.split(&fence).skip(1).map(|rest| rest.split("\n```").next().expect("an end")).collect();
    assert!(found.len() >= 4, "{} examples of {word}", found.len());
    found
}

/// The lines of all examples that begin with this arrow.
fn lines(arrow: &str) -> Vec<&'static str> {
    examples("text")
        .iter()
        .flat_map(|example| example.lines())
        .filter_map(|line| line.strip_prefix(arrow))
        .collect()
}

#[test]
fn there_is_no_other_kind_of_example() {
    let fences = DOCUMENT.lines().filter_map(|line| line.strip_prefix("```")).filter(|word| !word.is_empty());
    assert_eq!(fences.collect::<BTreeSet<_>>(), BTreeSet::from(["event", "http", "text"]));
    for example in examples("text") {
        assert!(example.lines().all(|line| line.starts_with("→ ") || line.starts_with("← ")), "{example}");
    }
}

#[test]
fn each_command_is_read() {
    let mut ops = BTreeSet::new();
    for line in lines("→ ") {
        check(line.as_bytes());
        for request in parse(line.as_bytes()) {
            assert!(request.command.is_ok(), "{line}: {request:?}");
        }
        let value = object(line);
        let all = value.as_array().cloned().unwrap_or_else(|| vec![value]);
        ops.extend(all.iter().map(|command| text(&command["op"]).to_owned()));
    }
    let known = ["auth", "history", "ping", "presence", "publish", "subscribe", "unsubscribe"];
    assert!(ops.iter().eq(known), "an example of each: {ops:?}");
}

#[test]
fn each_message_is_written() {
    let mut ops = BTreeSet::new();
    for line in lines("← ") {
        let value = object(line);
        let mut out = Vec::new();
        write_message(&mut out, &value);
        assert_eq!(String::from_utf8(out).unwrap(), line);
        ops.insert(text(&value["op"]).to_owned());
    }
    let known = [
        "authenticated",
        "error",
        "gap",
        "hello",
        "history",
        "join",
        "leave",
        "message",
        "pong",
        "presence",
        "presence_gap",
        "published",
        "subscribed",
        "unsubscribed",
    ];
    assert!(ops.iter().eq(known), "an example of each: {ops:?}");
}

#[test]
fn each_event_is_written() {
    for example in examples("event") {
        let field = |name: &str| example.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let value = object(field("data").expect("data"));
        let id = field("id").expect("an id");
        let positions = id.split(',').map(Position::parse);
        let mut out = Vec::new();
        events::id(&mut out, positions);
        match field("event") {
            None => {
                let owned = content(&value);
                events::message(&mut out, text(&value["topic"]), number(&value["offset"]), owned.content());
            }
            Some("subscribed") => events::subscribed(&mut out, standings(&value)),
            Some("gap") => events::gap(&mut out, &gap(&value)),
            Some(other) => panic!("{other}"),
        }
        assert_eq!(String::from_utf8(out).unwrap(), format!("{example}\n\n"));
    }
}

#[test]
fn each_request_is_read_and_each_answer_is_written() {
    let mut refused = None;
    let blocks = examples("http");
    for (index, example) in blocks.iter().enumerate() {
        let (head, body) = example.split_once("\n\n").unwrap_or((example, ""));
        let mut head = head.lines();
        let first = head.next().expect("a first line");
        let field = |name: &str| example.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        if let Some(("GET", target)) = first.split_once(' ') {
            let read = get(target);
            let is_bad = blocks.get(index + 1).is_some_and(|next| next.starts_with("400\n"));
            assert_eq!(read.is_err(), is_bad, "{target}: {read:?}");
            refused = read.err();
        } else if let Some(("POST", path)) = first.split_once(' ') {
            let content_type = field("Content-Type");
            let all = match path.strip_prefix("/publish/") {
                None => publications(content_type, body.as_bytes(), &mut Scratch::new()).unwrap(),
                Some(name) => {
                    let key = field("Tidegate-Key");
                    let fields =
                        PublishFields { content_type, key, idempotency_key: field("Idempotency-Key") };
                    let topic = topic_of_path(name).unwrap();
                    let one = publication(topic, fields, body.as_bytes()).unwrap();
                    assert_eq!(
                        (&*one.topic, one.payload.format, one.once.as_deref()),
                        ("chat/lobby", Format::Text, Some("5b8f8a"))
                    );
                    assert_eq!(&*one.payload.bytes, b"Hello");
                    vec![Ok(one)]
                }
            };
            assert!(all.iter().all(Result::is_ok), "{all:?}");
            all.iter().flatten().for_each(|one| assert!(told_publish(one)["topic"].is_string()));
        } else {
            let (status, written) = answer(&object(body));
            assert_eq!((status.to_string().as_str(), written.as_str()), (first, body));
            if let Some(problem) = refused.take() {
                assert!(written.contains(problem.message), "{problem:?}");
            }
        }
    }
}

/// What a GET of the document asks for is understood.
fn get(target: &str) -> Result<(), Problem> {
    let from = |epoch, offset| Some(Recover::From(Position { epoch: Epoch(epoch), offset }));
    match target.split_once('?') {
        Some(("/events", query)) => {
            let query = EventsQuery::parse(query, None)?;
            assert_eq!(
                (&query.topics[..], query.history),
                (&["chat/lobby".into(), "scores/*".into()][..], vec![10, 10])
            );
            let positions = query.positions.expect("positions");
            assert_eq!((positions.of(0), positions.of(1)), (from(0x9f86_d081, 41), None));
        }
        Some(("/poll", query)) => {
            let query = PollQuery::parse(query)?;
            let position = query.positions.expect("positions").of(0);
            if query.topics.len() == 1 {
                assert_eq!((query.wait_seconds, position), (5, from(0x9f86_d081, 42)));
            } else {
                assert_eq!((query.wait_seconds, position), (25, from(0x9f86_d081, 43)));
                assert_eq!(
                    (query.client.as_deref(), query.info.as_deref()),
                    (Some("ada-0001"), Some(r#"{"name":"Ada"}"#))
                );
            }
        }
        Some((path, query)) => {
            assert_eq!(topic_of_path(path.strip_prefix("/topics/").expect("a topic"))?, "chat/lobby");
            assert_eq!(StateQuery::parse(query)?.clients, 10);
        }
        None => assert_eq!(topic_of_path(target.strip_prefix("/topics/").expect("a topic"))?, "chat/lobby"),
    }
    Ok(())
}

#[test]
fn each_code_is_in_the_table_in_order() {
    let rows = DOCUMENT.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let codes: Vec<&str> =
        rows.map(|(name, _)| name).skip_while(|name| *name != "invalid_json").take(Code::ALL.len()).collect();
    assert_eq!(codes, Code::ALL.map(Code::name));
}

fn object(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("a text: {value}"))
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("a number: {value}"))
}

fn position(value: &Value) -> Position {
    let epoch = text(&value["epoch"]).parse().expect("an epoch");
    Position { epoch, offset: number(&value["offset"]) }
}

fn standing(value: &Value) -> Standing<'_> {
    let position = value.get("epoch").map(|_| position(value));
    Standing {
        topic: text(&value["topic"]),
        position,
        recovered: value.get("recovered").and_then(Value::as_bool),
        pattern_offset: value.get("pattern_offset").map(number),
    }
}

fn standings(value: &Value) -> Vec<Standing<'_>> {
    value["topics"].as_array().expect("topics").iter().map(standing).collect()
}

fn gap(value: &Value) -> Gap<'_> {
    let reasons = [GapReason::Slow, GapReason::Busy];
    let reason = reasons.into_iter().find(|reason| reason.name() == value["reason"]).expect("a reason");
    Gap { topic: text(&value["topic"]), from: number(&value["from"]), to: number(&value["to"]), reason }
}

fn acceptance(value: &Value) -> Acceptance<'_> {
    assert_eq!(value["level"], "accepted");
    let duplicate = value.get("duplicate").is_some();
    Acceptance { topic: text(&value["topic"]), position: position(value), duplicate }
}

fn code(value: &Value) -> Code {
    Code::ALL.into_iter().find(|code| code.name() == value["code"]).expect("a code")
}

/// What a message carries.
struct Owned(Format, Vec<u8>);

impl Owned {
    fn content(&self) -> Content<'_> {
        Content { format: self.0, bytes: &self.1 }
    }
}

/// The document's data is as compact as serde_json writes it, its names in order.
fn content(value: &Value) -> Owned {
    match (value.get("data"), value.get("text"), value.get("base64")) {
        (Some(data), None, None) => Owned(Format::Json, data.to_string().into_bytes()),
        (None, Some(own), None) => Owned(Format::Text, text(own).as_bytes().to_vec()),
        (None, None, Some(base64)) => {
            assert_eq!(base64, "AAEC/w==");
            Owned(Format::Binary, vec![0, 1, 2, 255])
        }
        _ => panic!("{value}"),
    }
}

fn write_message(out: &mut Vec<u8>, value: &Value) {
    let id = || Id::Number(number(&value["id"]));
    let topic = || text(&value["topic"]);
    let infos: Vec<Option<String>> = match &value["clients"] {
        Value::Array(clients) => {
            clients.iter().map(|client| client.get("info").map(Value::to_string)).collect()
        }
        _ => vec![value.get("info").map(Value::to_string)],
    };
    let present = |client: &'static str, index: usize| Present {
        client,
        info: infos[index].as_ref().map(String::as_bytes),
    };
    let name = |value: &Value| -> &'static str {
        ["pX3v9aK2", "b81s0xQ1"].into_iter().find(|name| value == name).expect("a client of the document")
    };
    match text(&value["op"]) {
        "hello" => {
            assert_eq!(value["version"], 1);
            let ping = u32::try_from(number(&value["ping"])).unwrap();
            write::hello(out, name(&value["client"]), ping, value.get("expires").map(number));
        }
        "authenticated" => write::authenticated(out, id(), value.get("expires").map(number)),
        "subscribed" => write::subscribed(out, id(), &standing(value)),
        "unsubscribed" => write::unsubscribed(out, value.get("id").map(|_| id()), topic()),
        "published" => write::published(out, id(), &acceptance(value)),
        "message" => write::message(out, topic(), number(&value["offset"]), content(value).content()),
        "presence" => {
            let clients = value["clients"].as_array().expect("clients").iter().enumerate();
            let clients = clients.map(|(index, client)| present(name(&client["client"]), index));
            write::presence(out, id(), topic(), number(&value["count"]), clients);
        }
        "history" => {
            let messages = value["messages"].as_array().expect("messages");
            let contents: Vec<(u64, Owned)> =
                messages.iter().map(|message| (number(&message["offset"]), content(message))).collect();
            let contents = contents.iter().map(|(offset, owned)| (*offset, owned.content()));
            write::history(out, id(), topic(), position(value), contents);
        }
        "join" => write::join(out, topic(), &present(name(&value["client"]), 0)),
        "leave" => write::leave(out, topic(), name(&value["client"])),
        "gap" => write::gap(out, &gap(value)),
        "presence_gap" => write::presence_gap(out, topic()),
        "error" => {
            let id = value.get("id").map(|id| Id::Number(number(id)));
            write::error(out, id, code(value), text(&value["message"]));
        }
        "pong" => write::pong(out, value.get("id").map(|id| Id::Number(number(id)))),
        other => panic!("{other}"),
    }
}

/// Status and body of an answer of the document, written anew.
fn answer(value: &Value) -> (u16, String) {
    let mut out = Vec::new();
    let status = if let Some(results) = value.get("results") {
        let mut all = Results::new();
        for result in results.as_array().expect("results") {
            match result.get("error") {
                None => all.accepted(&acceptance(result)),
                Some(error) => all.refused(code(error), text(&error["message"])),
            }
        }
        let status;
        (status, out) = all.finish();
        status
    } else if let Some(error) = value.get("error") {
        push_error(&mut out, code(error), text(&error["message"]));
        code(error).status()
    } else if let Some(messages) = value.get("messages") {
        let written = messages.as_array().expect("messages").iter().map(|message| {
            let mut written = Vec::new();
            let (topic, offset) = (text(&message["topic"]), number(&message["offset"]));
            push_poll_message(&mut written, topic, offset, content(message).content());
            written
        });
        push_poll(&mut out, standings(value), written);
        200
    } else {
        let (subscribers, history) = (number(&value["subscribers"]), number(&value["history"]));
        let listed: Vec<(&str, Option<String>)> = value["clients"].as_array().map_or_else(Vec::new, |all| {
            all.iter().map(|one| (text(&one["client"]), one.get("info").map(Value::to_string))).collect()
        });
        let listed = listed
            .iter()
            .map(|(client, info)| Present { client, info: info.as_ref().map(String::as_bytes) })
            .collect();
        let state = State {
            topic: text(&value["topic"]),
            position: position(value),
            subscribers,
            history,
            present: value.get("present").map(number),
            clients: value.get("clients").map(|_| listed),
        };
        push_state(&mut out, &state);
        200
    };
    (status, String::from_utf8(out).expect("UTF-8"))
}
