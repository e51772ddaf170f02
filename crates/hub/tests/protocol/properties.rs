//! What holds for any input.

use proptest::prelude::*;
use serde_json::{Value, json};
use tidegate_hub::Epoch;
use tidegate_hub::protocol::{
    Acceptance, Code, Command, Content, Format, Gap, GapReason, Id, Position, Positions, Present, Recover,
    Results, Standing, State, events, push_error, push_poll, push_poll_message, push_positions, push_state,
    write,
};

use crate::oracle::{check, parse};

/// JSON, spaces and escapes and all, not nested too deep.
fn some_json() -> impl Strategy<Value = String> {
    let space = "[ \n\t\r]{0,2}";
    let leaf = prop_oneof![
        "(null|true|false)",
        r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,5})?",
        r#""([ !#-\[\]-~é漢🌊]|\\(["\\/bfnrt]|u00[0-9a-fA-F]{2}|ud83c\\udf0a)){0,80}""#,
    ];
    leaf.prop_recursive(5, 40, 5, move |inner| {
        let key = r#""([a-z"\\é]|\\n){0,20}""#
            .prop_filter("a string", |key| serde_json::from_str::<String>(key).is_ok());
        prop_oneof![
            (proptest::collection::vec((space, inner.clone(), space), 0..5)).prop_map(|elements| {
                let elements =
                    elements.iter().map(|(before, value, behind)| format!("{before}{value}{behind}"));
                format!("[{}]", elements.collect::<Vec<_>>().join(","))
            }),
            (proptest::collection::vec((key, space, inner), 0..5)).prop_map(|members| {
                let members = members
                    .iter()
                    .map(|(key, space, value)| format!("{space}{key}{space}:{space}{value}{space}"));
                format!("{{{}}}", members.collect::<Vec<_>>().join(","))
            }),
        ]
    })
}

/// Fields that commands have, and one that none has.
const NAMES: [&str; 16] = [
    "op", "id", "topic", "recover", "history", "presence", "info", "data", "text", "base64", "key", "once",
    "limit", "before", "token", "x",
];

/// Members that a command has, has not, or should not have, in any order.
fn some_command() -> impl Strategy<Value = String> {
    let sure = |name: &'static str, values: &'static [&'static str]| {
        proptest::sample::select(values).prop_map(move |value| format!(r#""{name}":{value}"#))
    };
    let any = some_json().boxed();
    let member = prop_oneof![
        3 => sure("id", &["1", r#""a\u0041""#, "null", "-1", "1.0", r#""0123456789012345678901234567890123456789012345678901234567890123""#]),
        3 => sure("recover", &[r#"{"epoch":"9f86d081","offset":4}"#, r#"{"offset":4,"epoch":"x"}"#, r#"{"epoch":"9f86d081"}"#, "null", "[]"]),
        2 => sure("history", &["1", "9999", "1.5"]),
        2 => sure("presence", &["true", "false", "1"]),
        2 => sure("limit", &["0", "1", "1001", "9007199254740992"]),
        2 => sure("token", &[r#""a.b.c""#, r#""\u0061""#, "1"]),
        2 => sure("before", &["0", "-0", "7"]),
        2 => sure("base64", &[r#""AAEC""#, r#""AA""#, r#""AB""#, r#""A=""#, "1"]),
        4 => any.clone().prop_map(|value| format!(r#""data":{value}"#)),
        2 => any.clone().prop_map(|value| format!(r#""info":{value}"#)),
        2 => any.clone().prop_map(|value| format!(r#""text":{value}"#)),
        3 => (proptest::sample::select(&NAMES[..]), any).prop_map(|(name, value)| format!(r#""{name}":{value}"#)),
    ];
    let op = sure(
        "op",
        &[
            r#""publish""#,
            r#""subscribe""#,
            r#""unsubscribe""#,
            r#""history""#,
            r#""presence""#,
            r#""auth""#,
            r#""p\u0069ng""#,
            r#""x""#,
        ],
    );
    let topic = sure("topic", &[r#""a""#, r#""a\/b""#, r#""\u0000""#]);
    (op, proptest::option::weighted(0.9, topic), proptest::collection::vec(member, 0..4))
        .prop_map(|(op, topic, members)| std::iter::once(op).chain(topic).chain(members).collect::<Vec<_>>())
        .prop_shuffle()
        .prop_map(|members| format!("{{{}}}", members.join(",")))
}

fn some_content() -> impl Strategy<Value = (Format, Vec<u8>)> {
    prop_oneof![
        some_json().prop_map(|json| (Format::Json, json.into_bytes())),
        any::<String>().prop_map(|text| (Format::Text, text.into_bytes())),
        any::<Vec<u8>>().prop_map(|bytes| (Format::Binary, bytes)),
    ]
}

/// The three fields of a message back to what it carried.
fn content_of(message: &str) -> (Format, Vec<u8>) {
    // A message with its content is nearly a publication.
    let text = message.replacen(r#""op":"message""#, r#""op":"publish""#, 1);
    let Ok(Command::Publish(publish)) = parse(text.as_bytes()).next().expect("one").command else {
        panic!("{text}")
    };
    (publish.payload.format, publish.payload.bytes.into_owned())
}

fn value(out: &[u8]) -> Value {
    serde_json::from_slice(out).unwrap_or_else(|error| panic!("{error}: {}", out.escape_ascii()))
}

fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![0..100u64, 0..1u64 << 53]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn commands_are_read_as_serde_json_reads_them(commands in proptest::collection::vec(some_command(), 0..4), cut in any::<usize>(), byte in any::<u8>()) {
        for command in &commands {
            check(command.as_bytes());
            // One byte is another, or missing.
            let mut broken = command.clone().into_bytes();
            let at = cut % broken.len();
            broken[at] = byte;
            check(&broken);
            broken.remove(at);
            check(&broken);
        }
        check(format!("[{}]", commands.join(" , ")).as_bytes());
    }

    #[test]
    fn any_bytes_are_read_as_serde_json_reads_them(bytes in any::<Vec<u8>>(), text in r#"[\[\]{}:,"\\ua-f0-9eE+.\-]{0,40}"#) {
        check(&bytes);
        check(text.as_bytes());
        check(format!(r#"{{"op":"ping","x":{text}}}"#).as_bytes());
    }

    #[test]
    fn what_is_published_is_what_comes((format, bytes) in some_content(), topic in any::<String>(), offset in offset()) {
        let mut out = Vec::new();
        write::message(&mut out, &topic, offset, Content { format, bytes: &bytes });
        let text = std::str::from_utf8(&out).unwrap();
        prop_assert_eq!(content_of(text), (format, bytes.clone()));
        if format == Format::Json {
            let raw = text.strip_suffix('}').unwrap();
            prop_assert!(raw.ends_with(std::str::from_utf8(&bytes).unwrap()), "byte by byte");
        } else {
            let message = value(&out);
            prop_assert_eq!((&message["op"], &message["topic"], &message["offset"]), (&json!("message"), &json!(topic), &json!(offset)));
        }

        // The same as an event: a parser of event streams gets the same object.
        let mut event = Vec::new();
        events::message(&mut event, &topic, offset, Content { format, bytes: &bytes });
        let event = String::from_utf8(event).unwrap();
        let lines: Vec<&str> = event.strip_suffix("\n\n").unwrap().split('\n').map(|line| line.strip_prefix("data: ").unwrap()).collect();
        prop_assert!(!event.contains('\r'));
        let line_ends = text.replace("\r\n", "\n").replace('\r', "\n");
        prop_assert_eq!(lines.join("\n"), line_ends.replacen(r#""op":"message","#, "", 1));
    }

    #[test]
    fn what_is_published_by_command_is_what_was_sent(data in some_json(), before in "[ \n\t\r]{0,3}") {
        let sent = format!(r#"{{"op":"publish","topic":"a","data":{before}{data}{before}}}"#);
        let Ok(Command::Publish(publish)) = parse(sent.as_bytes()).next().unwrap().command else { panic!("{sent}") };
        prop_assert_eq!(std::str::from_utf8(&publish.payload.bytes).unwrap(), data);
    }

    #[test]
    fn every_answer_is_the_object_that_it_should_be(
        topic in any::<String>(), client in any::<String>(), text in any::<String>(), info in "[a-z]{0,5}",
        epoch in any::<u32>(), offset in offset(), duplicate in any::<bool>(), recovered in any::<Option<bool>>(), number in any::<Option<u32>>(),
    ) {
        let position = Position { epoch: Epoch(epoch), offset };
        let epoch_text = format!("{epoch:08x}");
        let inside = serde_json::to_string(&text).unwrap();
        let inside = &inside[1..inside.len() - 1];
        let id = number.map_or(Id::Text(inside), |number| Id::Number(number.into()));
        let id_value = number.map_or(json!(text), |number| json!(number));
        let info_text = format!("{{\"name\":\"{info}\"}}");
        let written = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut out = Vec::new();
            write(&mut out);
            value(&out)
        };
        let pattern_offset = duplicate.then_some(offset);
        let standing = Standing { topic: &topic, position: recovered.map(|_| position), recovered, pattern_offset };
        let mut expected = json!({"op": "subscribed", "id": id_value, "topic": topic});
        if let Some(recovered) = recovered {
            expected["epoch"] = json!(epoch_text);
            expected["offset"] = json!(offset);
            expected["recovered"] = json!(recovered);
        }
        if let Some(pattern_offset) = pattern_offset {
            expected["pattern_offset"] = json!(pattern_offset);
        }
        prop_assert_eq!(written(&|out| write::subscribed(out, id, &standing)), expected);

        let mut expected = json!({"op": "published", "id": id_value, "topic": topic, "epoch": epoch_text, "offset": offset, "level": "accepted"});
        if duplicate {
            expected["duplicate"] = json!(true);
        }
        prop_assert_eq!(written(&|out| write::published(out, id, &Acceptance { topic: &topic, position, duplicate })), expected);

        prop_assert_eq!(
            written(&|out| write::hello(out, &client, 25, None)),
            json!({"op": "hello", "client": client, "version": 1, "ping": 25})
        );
        prop_assert_eq!(
            written(&|out| write::authenticated(out, id, Some(offset))),
            json!({"op": "authenticated", "id": id_value, "expires": offset})
        );
        let present = Present { client: &client, info: Some(info_text.as_bytes()) };
        prop_assert_eq!(
            written(&|out| write::join(out, &topic, &present)),
            json!({"op": "join", "topic": topic, "client": client, "info": {"name": info}})
        );
        prop_assert_eq!(written(&|out| write::leave(out, &topic, &client)), json!({"op": "leave", "topic": topic, "client": client}));
        let alone = Present { client: &topic, info: None };
        prop_assert_eq!(
            written(&|out| write::presence(out, id, &topic, offset, [present, alone])),
            json!({"op": "presence", "id": id_value, "topic": topic, "count": offset,
                "clients": [{"client": client, "info": {"name": info}}, {"client": topic}]})
        );
        for code in Code::ALL {
            prop_assert_eq!(
                written(&|out| write::error(out, Some(id), code, &text)),
                json!({"op": "error", "id": id_value, "code": code.name(), "message": text})
            );
            prop_assert_eq!(written(&|out| push_error(out, code, &text)), json!({"error": {"code": code.name(), "message": text}}));
        }
        for reason in [GapReason::Slow, GapReason::Busy] {
            let gap = Gap { topic: &topic, from: 1, to: offset, reason };
            prop_assert_eq!(
                written(&|out| write::gap(out, &gap)),
                json!({"op": "gap", "topic": topic, "from": 1, "to": offset, "reason": reason.name()})
            );
        }
        let clients = Some(vec![present, alone]);
        let state = State { topic: &topic, position, subscribers: 7, history: offset, present: Some(2), clients };
        prop_assert_eq!(
            written(&|out| push_state(out, &state)),
            json!({"topic": topic, "epoch": epoch_text, "offset": offset, "subscribers": 7, "history": offset,
                "present": 2, "clients": [{"client": client, "info": {"name": info}}, {"client": topic}]})
        );
        let state = State { present: None, clients: None, ..state };
        prop_assert_eq!(
            written(&|out| push_state(out, &state)),
            json!({"topic": topic, "epoch": epoch_text, "offset": offset, "subscribers": 7, "history": offset})
        );
        prop_assert_eq!(written(&|out| write::presence_gap(out, &topic)), json!({"op": "presence_gap", "topic": topic}));
        let mut results = Results::new();
        results.accepted(&Acceptance { topic: &topic, position, duplicate: false });
        results.refused(Code::Busy, &text);
        let (status, body) = results.finish();
        prop_assert_eq!(status, 207);
        prop_assert_eq!(value(&body), json!({"results": [
            {"topic": topic, "epoch": epoch_text, "offset": offset, "level": "accepted"},
            {"error": {"code": "busy", "message": text}},
        ]}));
    }

    #[test]
    fn lists_of_messages_are_lists(messages in proptest::collection::vec((offset(), any::<String>()), 0..4), epoch in any::<u32>(), offset in offset()) {
        let position = Position { epoch: Epoch(epoch), offset };
        let contents = || messages.iter().map(|(offset, text)| (*offset, Content { format: Format::Text, bytes: text.as_bytes() }));
        let mut out = Vec::new();
        write::history(&mut out, Id::Number(1), "a", position, contents());
        let own: Vec<Value> = messages.iter().map(|(offset, text)| json!({"offset": offset, "text": text})).collect();
        let epoch_text = format!("{epoch:08x}");
        prop_assert_eq!(value(&out), json!({"op": "history", "id": 1, "topic": "a", "epoch": epoch_text, "offset": offset, "messages": own}));

        let mut out = Vec::new();
        let standing = Standing { topic: "a", position: Some(position), recovered: Some(false), pattern_offset: None };
        let written = contents().map(|(offset, content)| {
            let mut message = Vec::new();
            push_poll_message(&mut message, "b", offset, content);
            message
        });
        push_poll(&mut out, [standing, standing], written);
        let own: Vec<Value> = messages.iter().map(|(offset, text)| json!({"topic": "b", "offset": offset, "text": text})).collect();
        let topic = json!({"topic": "a", "epoch": epoch_text, "offset": offset, "recovered": false});
        let both = format!("{epoch_text}-{offset},{epoch_text}-{offset}");
        prop_assert_eq!(value(&out), json!({"position": both, "topics": [topic, topic], "messages": own}));
    }

    #[test]
    fn positions_are_read_as_they_are_written(positions in proptest::collection::vec(proptest::option::of((any::<u32>(), offset())), 1..17)) {
        let positions: Vec<Option<Position>> = positions.iter().map(|one| one.map(|(epoch, offset)| Position { epoch: Epoch(epoch), offset })).collect();
        let mut out = Vec::new();
        push_positions(&mut out, positions.iter().copied());
        let read = Positions::parse(std::str::from_utf8(&out).unwrap(), positions.len()).unwrap();
        for (index, position) in positions.iter().enumerate() {
            prop_assert_eq!(read.of(index), position.map(Recover::From));
        }
    }
}
