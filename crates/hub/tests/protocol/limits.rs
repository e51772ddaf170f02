//! Bad input and the bounds of good one, by hand.

use std::fmt::Write;
use std::time::{Duration, Instant};

use tidegate_hub::protocol::{
    self, Code, Command, Format, Id, Problem, Publish, Request, Scratch, VECTORS_FROM_BYTES,
    VECTORS_TO_BYTES, publications, write,
};

use crate::oracle::{check, parse};

fn one(text: &str) -> Request<'_> {
    check(text.as_bytes());
    let mut requests = parse(text.as_bytes());
    let request = requests.next().expect("one");
    assert!(requests.next().is_none());
    request
}

fn code(text: &str) -> Code {
    one(text).command.expect_err(text).code
}

fn published<'b>(
    content_type: Option<&str>,
    body: &'b [u8],
) -> Result<Vec<Result<Publish<'b>, Problem>>, Problem> {
    publications(content_type, body, &mut Scratch::new())
}

#[test]
fn a_body_nested_100_000_deep_is_refused_at_once() {
    let nested = |open: &str, depth| format!(r#"{{"op":"publish","topic":"a","data":{}"#, open.repeat(depth));
    for open in ["[", r#"{"a":"#, "[["] {
        let text = nested(open, 100_000);
        let start = Instant::now();
        assert_eq!(code(&text), Code::InvalidJson);
        // What is behind the limit is not looked at.
        assert!(start.elapsed() < Duration::from_secs(1));
    }
    let close = |depth: usize| nested("[", depth) + &"]".repeat(depth) + "}";
    assert!(one(&close(63)).command.is_ok());
    assert_eq!(code(&close(64)), Code::InvalidJson);
    let in_array = |depth| format!("[{}]", close(depth));
    assert!(one(&in_array(62)).command.is_ok());
    assert_eq!(code(&in_array(63)), Code::InvalidJson);
}

#[test]
fn what_is_neither_an_object_nor_an_array_of_objects_is_refused_as_a_whole() {
    for text in [
        "",
        " ",
        "null",
        "1",
        r#""a""#,
        "{",
        "}",
        "[",
        "[{]",
        r#"[{"op":"ping"},1]"#,
        r#"[1,{"op":"ping"}]"#,
        "[[]]",
        r#"[{"op":"ping"},]"#,
        r#"{"op":"ping"}{"op":"ping"}"#,
        r#"{"op":"ping"} x"#,
        "{'op':'ping'}",
        r#"{"op":"ping",}"#,
        "\u{feff}{\"op\":\"ping\"}",
        r#"[{"op":"ping"}"#,
        r#"{"op":"ping","a":"\ud800"}"#,
        "{\"op\":\"ping\",\"a\":\"\0\"}",
        r#"{"op":"ping","a":01}"#,
    ] {
        let request = one(text);
        assert_eq!((request.id, request.command.unwrap_err().code), (None, Code::InvalidJson), "{text}");
    }
    let mut not_utf8 = br#"{"op":"ping","id":1,"a":""}"#.to_vec();
    for (at, byte) in [(25, 0xff), (25, 0xc3), (5, 0x80)] {
        let mut bytes = not_utf8.clone();
        bytes.insert(at, byte);
        check(&bytes);
        assert_eq!(parse(&bytes).next().unwrap().command.unwrap_err().code, Code::InvalidJson);
    }
    // Past the length from which on vectors check it.
    not_utf8.splice(25..25, [b'a'; 100]);
    assert!(parse(&not_utf8).next().unwrap().command.is_ok());
    not_utf8[100] = 0xff;
    assert!(parse(&not_utf8).next().unwrap().command.is_err());
}

#[test]
fn an_array_has_up_to_64_commands() {
    let array = |count: usize| format!("[{}]", vec![r#"{"op":"ping","id":7}"#; count].join(","));
    for count in [0, 1, 2, 64] {
        let text = array(count);
        let requests = parse(text.as_bytes());
        assert_eq!(requests.len(), count);
        assert!(requests.into_iter().all(|request| request.command == Ok(Command::Ping)));
        check(text.as_bytes());
    }
    for count in [65, 100_000] {
        assert_eq!(code(&array(count)), Code::TooMany);
    }
    // Broken further behind: it is broken first of all.
    assert_eq!(code(&array(100).replacen("ping", "ping\u{1}", 100)), Code::InvalidJson);
    assert_eq!(code(&(array(100) + "]")), Code::InvalidJson);
}

#[test]
fn an_id_comes_back_byte_by_byte() {
    for id in [
        "0",
        "7",
        "9007199254740991",
        r#""""#,
        r#""a b""#,
        r#""\u0041\n\"é🌊\/""#,
        &format!(r#""{}""#, "x".repeat(64)),
    ] {
        let text = format!(r#"{{"op":"ping","id":{id}}}"#);
        let request = one(&text);
        let kept = request.id.expect("an id").keep();
        let mut out = Vec::new();
        write::pong(&mut out, Some(kept.id()));
        assert_eq!(out, format!(r#"{{"op":"pong","id":{id}}}"#).as_bytes());
    }
    for id in [
        "-1",
        "-0",
        "1.0",
        "1e3",
        "9007199254740992",
        "18446744073709551616",
        "1e400",
        "true",
        "[]",
        "{}",
        &format!(r#""{}""#, "x".repeat(65)),
        &format!(r#""{}""#, "\\n".repeat(33)),
    ] {
        let text = format!(r#"{{"op":"ping","id":{id}}}"#);
        let request = one(&text);
        assert_eq!((request.id, request.command.unwrap_err().code), (None, Code::InvalidRequest), "{id}");
    }
    assert_eq!(one(r#"{"id":null,"op":"ping"}"#).id, None);
    assert_eq!(one(r#"{"id":3,"op":"unheard-of"}"#).id, Some(Id::Number(3)), "errors have it too");
}

#[test]
fn a_known_field_stands_once() {
    for text in [
        r#"{"op":"ping","op":"ping"}"#,
        r#"{"op":"ping","id":1,"id":1}"#,
        r#"{"op":"ping","id":1,"id":null}"#,
        r#"{"op":"publish","topic":"a","data":1,"dat\u0061":2}"#,
        r#"{"op":"ping","key":1,"key":2}"#,
        r#"{"op":"subscribe","topic":"a","recover":{"epoch":"00000001","offset":1,"offset":2}}"#,
    ] {
        assert_eq!(code(text), Code::InvalidRequest, "{text}");
    }
    assert!(one(r#"{"op":"ping","other":1,"other":2}"#).command.is_ok());
    let nested = r#"{"op":"publish","topic":"a","data":{"op":1,"op":2}}"#;
    assert!(one(nested).command.is_ok(), "what is passed on is not judged");
}

#[test]
fn data_is_what_was_sent_and_nothing_else() {
    for data in [
        "null",
        "1e400",
        "-1E-9999999",
        "123456789012345678901234567890",
        "0.1000000000000000055511151231257827",
        r#""\u0000\/\ud83c\udf0a""#,
        "\"\u{2028}\u{7f}\"",
        "{ \"a\" :\t1 ,\r\n \"a\": 2 }",
        "[]",
        r#"{"":{"":[]}}"#,
    ] {
        let text = format!("{{\"topic\" : \"a\" ,\"data\" : \n{data}\t, \"op\":\"publish\"}}");
        let Ok(Command::Publish(publish)) = one(&text).command else { panic!("{text}") };
        assert_eq!((publish.payload.format, &*publish.payload.bytes), (Format::Json, data.as_bytes()));
    }
}

#[test]
fn a_publication_carries_one_thing() {
    let publish = |fields: &str| {
        let text = format!(r#"{{"op":"publish","topic":"a"{fields}}}"#);
        match one(&text).command {
            Ok(Command::Publish(publish)) => Ok((publish.payload.format, publish.payload.bytes.into_owned())),
            Ok(other) => panic!("{other:?}"),
            Err(problem) => Err(problem.code),
        }
    };
    assert_eq!(publish(r#","text":"a\n\u00e9","base64":null"#), Ok((Format::Text, "a\né".into())));
    assert_eq!(publish(r#","base64":"AP\/+""#), Ok((Format::Binary, vec![0, 255, 254])));
    assert_eq!(publish(r#","base64":"AA""#), Ok((Format::Binary, vec![0])));
    assert_eq!(publish(r#","data":null"#), Ok((Format::Json, b"null".to_vec())));
    for wrong in [
        "",
        r#","text":null"#,
        r#","text":1"#,
        r#","base64":[]"#,
        r#","base64":"A""#,
        r#","base64":"-_8=""#,
        r#","data":1,"text":"a""#,
        r#","data":null,"text":"a""#,
        r#","text":"a","base64":"AA==""#,
        r#","text":"a","key":1"#,
        r#","text":"a","key":"""#,
        r#","text":"a","once":"""#,
        r#","text":"a","once":7"#,
    ] {
        assert_eq!(publish(wrong), Err(Code::InvalidRequest), "{wrong}");
    }
    let long = |name, len| publish(&format!(r#","data":1,"{name}":"{}""#, "x".repeat(len)));
    assert!(long("key", 256).is_ok() && long("once", 128).is_ok());
    assert_eq!((long("key", 257), long("once", 129)), (Err(Code::TooLarge), Err(Code::TooLarge)));
}

#[test]
fn fields_of_a_wrong_type_are_told() {
    for text in [
        "{}",
        r#"{"op":1}"#,
        r#"{"op":null}"#,
        r#"{"op":"subscribe"}"#,
        r#"{"op":"subscribe","topic":1}"#,
        r#"{"op":"subscribe","topic":["a"]}"#,
        r#"{"op":"subscribe","topic":"a","presence":1}"#,
        r#"{"op":"subscribe","topic":"a","history":"10"}"#,
        r#"{"op":"subscribe","topic":"a","history":-1}"#,
        r#"{"op":"subscribe","topic":"a","recover":1}"#,
        r#"{"op":"subscribe","topic":"a","recover":{}}"#,
        r#"{"op":"subscribe","topic":"a","recover":{"epoch":1,"offset":1}}"#,
        r#"{"op":"subscribe","topic":"a","recover":{"epoch":"00000001","offset":-1}}"#,
        r#"{"op":"subscribe","topic":"a","recover":{"epoch":"00000001","offset":9007199254740992}}"#,
        r#"{"op":"history","topic":"a","limit":1.5}"#,
        r#"{"op":"history","topic":"a","before":"1"}"#,
        r#"{"op":"unsubscribe"}"#,
        r#"{"op":"presence","topic":{}}"#,
        r#"{"op":"publish","data":1}"#,
    ] {
        assert_eq!(code(text), Code::InvalidRequest, "{text}");
    }
    for op in ["", "Ping", "ping ", "message", "hello", "\\u0000"] {
        assert_eq!(code(&format!(r#"{{"op":"{op}"}}"#)), Code::UnknownOp);
    }
    let info = |len: usize| format!(r#"{{"op":"subscribe","topic":"a","info":"{}"}}"#, "x".repeat(len - 2));
    assert!(one(&info(1024)).command.is_ok());
    assert_eq!(code(&info(1025)), Code::TooLarge);
}

/// Row P01 of the table of bad input, as far as the parser goes: names pass through as they are, for others to judge,
/// and whatever is in them is written so that it cannot be anything but a name.
#[test]
fn p01_odd_names_are_given_as_they_are_and_written_so_that_they_stay_names() {
    let long = "x".repeat(1 << 20);
    for name in [
        "\0",
        "a\r\nPUB evil 5\r\nhello",
        "a b",
        "*",
        ">",
        "\"},{\"op\":\"error",
        "\\",
        "\u{2028}",
        "",
        &long,
    ] {
        let quoted = serde_json::to_string(name).unwrap();
        for op in ["subscribe", "unsubscribe", "presence", "history"] {
            let text = format!(r#"{{"op":"{op}","id":1,"topic":{quoted}}}"#);
            let topic = match one(&text).command.unwrap() {
                Command::Subscribe(subscribe) => subscribe.topic,
                Command::Unsubscribe { topic }
                | Command::Presence { topic }
                | Command::History { topic, .. } => topic,
                Command::Publish(_) | Command::Ping | Command::Auth { .. } => panic!("{text}"),
            };
            assert_eq!(topic, name);
        }
        let mut out = Vec::new();
        write::unsubscribed(&mut out, Some(Id::Number(1)), name);
        assert!(out.iter().all(|byte| *byte >= 0x20));
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value, serde_json::json!({"op": "unsubscribed", "id": 1, "topic": name}));
    }
}

/// A token is a text like any other here; what it may be is judged elsewhere.
#[test]
fn a_token_is_a_text_of_any_length() {
    for token in ["", "a.b.c", "\"", &"x".repeat(100_000)] {
        let text = format!(r#"{{"op":"auth","id":1,"token":{}}}"#, serde_json::to_string(token).unwrap());
        assert_eq!(one(&text).command, Ok(Command::Auth { token: token.into() }));
    }
    for text in [r#"{"op":"auth"}"#, r#"{"op":"auth","token":null}"#, r#"{"op":"auth","token":["a"]}"#] {
        assert_eq!(one(text).command.unwrap_err().code, Code::InvalidRequest, "{text}");
    }
}

#[test]
fn an_http_body_has_up_to_1_000_publications_each_judged_for_itself() {
    let json = Some("application/json");
    let body = |count: usize| {
        let mut body = String::from("[");
        for index in 0..count {
            write!(body, r#"{}{{"topic":"a","data":{index}}}"#, if index > 0 { "," } else { "" }).unwrap();
        }
        body + "]"
    };
    let text = body(1000);
    let all = published(json, text.as_bytes()).unwrap();
    for (index, publish) in all.iter().enumerate() {
        assert_eq!(*publish.as_ref().unwrap().payload.bytes, *index.to_string().as_bytes());
    }
    assert_eq!(published(json, body(1001).as_bytes()).unwrap_err().code, Code::TooLarge);
    assert_eq!(published(json, b"[]").unwrap().len(), 0);

    let mixed = br#"[{"topic":"a","text":"x"},{"topic":"a"},{"data":1},{"topic":"a","data":1,"data":1},{"topic":"b","data":1}]"#;
    let mixed: Vec<_> =
        published(json, mixed).unwrap().into_iter().map(|one| one.map_err(|wrong| wrong.code)).collect();
    let wrong = Code::InvalidRequest;
    assert!(mixed[0].is_ok() && mixed[4].is_ok());
    assert!(mixed[1..4].iter().all(|one| one.as_ref().is_err_and(|code| *code == wrong)));

    for (content_type, body, code) in [
        (None, "[]", Code::UnsupportedType),
        (Some("application/x-www-form-urlencoded"), "{}", Code::UnsupportedType),
        (json, "", Code::InvalidJson),
        (json, "1", Code::InvalidJson),
        (json, "[1]", Code::InvalidJson),
        (json, r#"[{"topic":"a","data":1}"#, Code::InvalidJson),
        (json, &"[".repeat(100_000), Code::InvalidJson),
    ] {
        assert_eq!(published(content_type, body.as_bytes()).unwrap_err().code, code, "{body:.20}");
    }
}

/// Prose in `data`, in `text` and in a field that is ignored, of a message that has about so many bytes.
fn long(bytes: usize) -> [String; 3] {
    let prose = "a caf\u{e9}, \\u0061 gate \\ud83c\\udf0a, \\\"quoted\\\" [{ ".repeat(bytes / 40);
    [
        format!(r#"{{"op":"publish","id":7,"topic":"a","data":["{prose}",{{"b":[1.5]}}] }}"#),
        format!(
            r#"[ {{"text":"{prose}","topic":"\u0061","once":null,"op":"publish","id":"\u0041"}} , {{"op":"ping"}} ]"#
        ),
        format!(
            r#"{{"x":["{prose}"],"\u006f\u0070":"subscribe","topic":"a","info":{{"a": 1}},"presence":true}}"#
        ),
    ]
}

#[test]
fn length_decides_who_reads_a_message_and_nothing_else() {
    for bytes in [40, VECTORS_FROM_BYTES, 4096, VECTORS_TO_BYTES, 2 * VECTORS_TO_BYTES] {
        length_decides_nothing_at(bytes);
    }
}

fn length_decides_nothing_at(bytes: usize) {
    // The oracle takes its time.
    let check = |text: &str| {
        if bytes <= 4096 {
            check(text.as_bytes());
        } else {
            let [with, without] = [0..=usize::MAX, 0..=0].map(Scratch::with_lengths);
            let read = |mut scratch| protocol::parse(text.as_bytes(), &mut scratch).collect::<Vec<_>>();
            assert!(read(with) == read(without), "{text:.200}");
        }
    };
    for text in long(bytes) {
        check(&text);
        assert!(parse(text.as_bytes()).all(|request| request.command.is_ok()), "{text:.200}");
        // What only one of the two would refuse, or neither, in front of the rest and behind it.
        for (value, good) in [
            ("18446744073709551616", true),
            ("-9223372036854775809", true),
            ("123456789012345678901234567890.5e-7", true),
            ("1e400", true),
            ("-0", true),
            ("[1,2]", true),
            (r#""\u0000""#, true),
            (r#""\ud800""#, false),
            (r#""\udc00\ud800""#, false),
            ("01", false),
            ("1\u{0}", false),
            ("[1\u{c}]", false),
            ("nul", false),
            ("truex", false),
            ("[1}", false),
        ] {
            let behind =
                text.rsplit_once('}').map(|(rest, end)| format!("{rest},\"y\":{value}}}{end}")).unwrap();
            let before = text.replacen('{', &format!("{{\"y\":{value},"), 1);
            for text in [before, behind] {
                check(&text);
                let read = parse(text.as_bytes()).all(|request| request.command.is_ok());
                assert_eq!(read, good, "{value}");
            }
        }
    }
}

#[test]
fn depth_is_bounded_at_any_length() {
    for length in [0, VECTORS_FROM_BYTES, VECTORS_TO_BYTES] {
        let nested = |depth: usize| {
            let (open, close) = ("[".repeat(depth), "]".repeat(depth));
            format!(
                r#"{{"op":"publish","topic":"a","text":"{}","x":{open}1e400{close}}}"#,
                "[".repeat(length)
            )
        };
        for (depth, good) in [(1, true), (63, true), (64, false), (100_000, false)] {
            for text in [nested(depth), nested(depth).replace("1e400", "1")] {
                // serde_json's own `Value`, in the oracle, ends at 128.
                if depth < 100 {
                    check(text.as_bytes());
                }
                assert_eq!(parse(text.as_bytes()).all(|request| request.command.is_ok()), good, "{depth}");
            }
        }
    }
}
