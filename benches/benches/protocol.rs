//! A `publish` of the topics' protocol in, the message for its subscribers out.
//!
//! Reading, against serde_json (into a `Value`; into a derived struct that leaves `data` as it is) and simd-json (its tape
//! over a copy, as it writes into its input; nothing is taken out of the tape). Only tidegate's parser looks at all
//! fields, bounds the nesting and tells problems apart. Three kinds of data: a feed of small objects, prose, and the
//! feed as people print it.
//!
//! Writing, against a derived struct and `format!`.
//!
//! Expected: topic and data as they were sent, byte by byte where the contender can.

use std::{borrow::Cow, hint::black_box, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput};
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};
use simd_json::{Buffers, INPUT_PADDING, Tape, fill_tape_padded};
use tidegate_hub::protocol::{Command, Content, Kind, parse, write};

const TOPIC: &str = "chat/lobby";
const SIZES: [usize; 6] = [32, 128, 512, 2048, 16 * 1024, 256 * 1024];

fn main() {
    let mut criterion = tidegate_benches::criterion().measurement_time(Duration::from_millis(500));
    for (name, data) in [("feed", feed as fn(usize) -> String), ("prose", prose), ("printed", printed)] {
        read(&mut criterion, name, data);
    }
    write(&mut criterion);
    criterion.final_summary();
}

fn read(criterion: &mut Criterion, name: &str, data: fn(usize) -> String) {
    let mut group = criterion.benchmark_group(format!("protocol/read/{name}"));
    for size in SIZES {
        let data = data(size);
        let message = format!(r#"{{"op":"publish","id":3,"topic":"{TOPIC}","data":{data}}}"#);
        let message = message.as_bytes();
        group.throughput(Throughput::Bytes(message.len() as u64));
        let id = |contender| BenchmarkId::new(contender, size);

        let value: Value = serde_json::from_slice(message).expect("JSON");
        assert_eq!(value["topic"], TOPIC);
        assert_eq!(value["data"], serde_json::from_str::<Value>(&data).expect("JSON"));
        group.bench_function(id("serde_json, Value"), |bencher| {
            bencher.iter(|| serde_json::from_slice::<Value>(black_box(message)).expect("JSON"));
        });

        let derived: Sent<'_> = serde_json::from_slice(message).expect("JSON");
        assert_eq!((&*derived.op, derived.id, &*derived.topic), ("publish", Some(3), TOPIC));
        assert_eq!(derived.data.map(RawValue::get), Some(&*data));
        group.bench_function(id("serde_json, derived"), |bencher| {
            bencher.iter(|| {
                serde_json::from_slice::<Sent<'_>>(black_box(message)).expect("JSON").data.is_some()
            });
        });

        let mut buffers = Buffers::new(message.len());
        let (mut copy, mut spare) = (Vec::new(), Some(Tape::null()));
        group.bench_function(id("simd-json, tape"), |bencher| {
            bencher.iter(|| {
                copy.clear();
                copy.extend_from_slice(black_box(message));
                copy.resize(message.len() + INPUT_PADDING, b' ');
                let mut tape = spare.take().unwrap_or_else(Tape::null).reset();
                fill_tape_padded(&mut copy, message.len(), &mut buffers, &mut tape).expect("JSON");
                assert!(black_box(&tape).0.len() > 8);
                spare = Some(tape.reset());
            });
        });

        assert_eq!(take(message), (TOPIC.into(), Cow::Borrowed(data.as_bytes())));
        group.bench_function(id("tidegate"), |bencher| bencher.iter(|| take(black_box(message)).1.len()));
    }
    group.finish();
}

#[derive(Deserialize)]
struct Sent<'b> {
    #[serde(borrow)]
    op: Cow<'b, str>,
    id: Option<u64>,
    #[serde(borrow)]
    topic: Cow<'b, str>,
    #[serde(borrow)]
    data: Option<&'b RawValue>,
}

fn take(message: &[u8]) -> (Cow<'_, str>, Cow<'_, [u8]>) {
    let Some(Ok(Command::Publish(publish))) = parse(message).next().map(|request| request.command) else {
        panic!("a publication")
    };
    (publish.topic, publish.payload.bytes)
}

fn write(criterion: &mut Criterion) {
    #[derive(Serialize)]
    struct Message<'m> {
        op: &'static str,
        topic: &'m str,
        offset: u64,
        data: &'m RawValue,
    }
    let mut group = criterion.benchmark_group("protocol/write");
    for size in [128, 2048] {
        let data = feed(size);
        let offset = 123_456;
        let expected = format!(r#"{{"op":"message","topic":"{TOPIC}","offset":{offset},"data":{data}}}"#);
        group.throughput(Throughput::Bytes(expected.len() as u64));
        let id = |contender| BenchmarkId::new(contender, size);
        let mut out = Vec::with_capacity(2 * expected.len());

        // What `format!` makes is right for topics without quotes and backslashes.
        group.bench_function(id("format!"), |bencher| {
            bencher.iter(|| {
                let (topic, data) = (black_box(TOPIC), black_box(&data));
                format!(r#"{{"op":"message","topic":"{topic}","offset":{offset},"data":{data}}}"#)
            });
        });

        let raw: &RawValue = serde_json::from_str(&data).expect("JSON");
        group.bench_function(id("serde_json, derived"), |bencher| {
            bencher.iter(|| {
                out.clear();
                let message =
                    Message { op: "message", topic: black_box(TOPIC), offset, data: black_box(raw) };
                serde_json::to_writer(&mut out, &message).expect("memory");
            });
        });

        group.bench_function(id("tidegate"), |bencher| {
            bencher.iter(|| {
                out.clear();
                let content = Content { kind: Kind::Json, bytes: black_box(data.as_bytes()) };
                write::message(&mut out, black_box(TOPIC), offset, content);
            });
        });
        let content = Content { kind: Kind::Json, bytes: data.as_bytes() };
        out.clear();
        write::message(&mut out, TOPIC, offset, content);
        assert_eq!(out, expected.as_bytes());
    }
    group.finish();
}

/// Objects of a feed, in an array of about so many bytes.
fn feed(size: usize) -> String {
    let mut text = String::from("[");
    let mut random = Random(0x2545_f491);
    while text.len() < size {
        let (id, price) = (random.draw() % 100_000, f64::from(random.draw() >> 12) / 100.0);
        text += &format!(r#"{{"id":{id},"symbol":"TIDE","price":{price},"open":true}},"#);
    }
    text.pop();
    text + "]"
}

/// The same, as people print it.
fn printed(size: usize) -> String {
    let value: Value = serde_json::from_str(&feed(size / 2)).expect("JSON");
    serde_json::to_string_pretty(&value).expect("JSON")
}

/// Words, now and then with an escape or beyond ASCII.
fn prose(size: usize) -> String {
    const WORDS: [&str; 8] = ["the ", "tide ", "and ", "a ", "gate ", "caf\u{e9} ", "waits ", "\\n"];
    let mut text = String::from(r#"{"text":""#);
    let mut random = Random(0x2545_f491);
    while text.len() < size {
        text += WORDS[random.draw() as usize % WORDS.len()];
    }
    text + r#""}"#
}

struct Random(u32);

impl Random {
    fn draw(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0
    }
}
