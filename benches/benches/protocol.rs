//! A `publish` of the topics' protocol in, the message for its subscribers out.
//!
//! Reading, by each of the two readers of tidegate at every length, where the gateway chooses by length; against
//! serde_json alone (into a `Value`; into a derived struct that leaves `data` as it is) and simd-json alone (its tape over
//! a copy, as it writes into its input; nothing is taken out of the tape). Only tidegate looks at all fields, bounds the
//! nesting, refuses half surrogate pairs and tells problems apart. Four kinds of data: a feed of small objects, prose,
//! prose of other languages with every letter escaped, and the feed as people print it.
//!
//! Writing, against a derived struct and `format!`.
//!
//! Expected: topic and data as they were sent, byte by byte where the contender can.
//!
//! Means are of little use on a machine that has something else to do: `-- --fastest` prints the fastest of many short
//! batches for each.
#![allow(clippy::print_stdout, reason = "the table is what it is for")]

use std::{
    borrow::Cow,
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput};
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};
use simd_json::{Buffers, INPUT_PADDING, Tape, fill_tape_padded};
use tidegate_hub::protocol::{Command, Content, Format, Scratch, parse, write};

const TOPIC: &str = "chat/lobby";
const SIZES: [usize; 8] = [32, 128, 512, 1024, 2048, 4096, 16 * 1024, 256 * 1024];

/// Its name, and what is measured.
type Contender<'c> = (&'static str, Box<dyn FnMut() + 'c>);

fn main() {
    let mut measure = if std::env::args().any(|argument| argument == "--fastest") {
        Measure::Fastest
    } else {
        Measure::Criterion(Box::new(
            tidegate_benches::criterion().measurement_time(Duration::from_millis(500)),
        ))
    };
    for (name, data) in
        [("feed", feed as fn(usize) -> String), ("prose", prose), ("escaped", escaped), ("printed", printed)]
    {
        for size in SIZES {
            read(&mut measure, &format!("protocol/read/{name}"), &data(size));
        }
    }
    for size in [128, 2048] {
        write(&mut measure, &feed(size));
    }
    if let Measure::Criterion(criterion) = measure {
        criterion.final_summary();
    }
}

enum Measure {
    Criterion(Box<Criterion>),
    Fastest,
}

impl Measure {
    fn all(&mut self, group: &str, bytes: usize, contenders: Vec<Contender<'_>>) {
        match self {
            Self::Criterion(criterion) => {
                let mut group = criterion.benchmark_group(group);
                group.throughput(Throughput::Bytes(bytes as u64));
                for (name, mut run) in contenders {
                    group.bench_function(BenchmarkId::new(name, bytes), |bencher| bencher.iter(&mut run));
                }
                group.finish();
            }
            Self::Fastest => {
                let times =
                    contenders.into_iter().map(|(name, run)| format!("{name} {:.0} ns", fastest(run)));
                println!("{group:22} {bytes:7} bytes: {}", times.collect::<Vec<_>>().join(", "));
            }
        }
    }
}

/// The fastest of some hundred batches of about 50 µs, in ns for one.
fn fastest(mut run: impl FnMut()) -> f64 {
    let mut batch = |count: u32| {
        let start = Instant::now();
        (0..count).for_each(|_| run());
        start.elapsed().as_nanos() as f64 / f64::from(count)
    };
    let count = (50_000.0 / batch(10).max(1.0)) as u32 + 1;
    let end = Instant::now() + Duration::from_millis(60);
    let mut fastest = f64::MAX;
    while Instant::now() < end {
        fastest = fastest.min(batch(count));
    }
    fastest
}

fn read(measure: &mut Measure, group: &str, data: &str) {
    let message = format!(r#"{{"op":"publish","id":3,"topic":"{TOPIC}","data":{data}}}"#);
    let message = message.as_bytes();

    let value: Value = serde_json::from_slice(message).expect("JSON");
    assert_eq!(value["topic"], TOPIC);
    assert_eq!(value["data"], serde_json::from_str::<Value>(data).expect("JSON"));
    let derived: Sent<'_> = serde_json::from_slice(message).expect("JSON");
    assert_eq!((&*derived.op, derived.id, &*derived.topic), ("publish", Some(3), TOPIC));
    assert_eq!(derived.data.map(RawValue::get), Some(data));
    assert_eq!(take(message, &mut Scratch::new()), (TOPIC.into(), Cow::Borrowed(data.as_bytes())));

    let mut buffers = Buffers::new(message.len());
    let (mut copy, mut spare) = (Vec::new(), Some(Tape::null()));
    let tape = move || {
        copy.clear();
        copy.extend_from_slice(black_box(message));
        copy.resize(message.len() + INPUT_PADDING, b' ');
        let mut tape = spare.take().unwrap_or_else(Tape::null).reset();
        fill_tape_padded(&mut copy, message.len(), &mut buffers, &mut tape).expect("JSON");
        assert!(black_box(&tape).0.len() > 8);
        spare = Some(tape.reset());
    };
    let value = || drop(black_box(serde_json::from_slice::<Value>(black_box(message)).expect("JSON")));
    let derived = || drop(black_box(serde_json::from_slice::<Sent<'_>>(black_box(message)).expect("JSON")));
    // The two readers, each for all lengths.
    let (mut without, mut with) = (Scratch::with_lengths(0..=0), Scratch::with_lengths(0..=usize::MAX));
    assert_eq!(take(message, &mut without), take(message, &mut with));
    let without = move || drop(black_box(take(black_box(message), &mut without)));
    let with = move || drop(black_box(take(black_box(message), &mut with)));
    let contenders: Vec<Contender<'_>> = vec![
        ("serde_json, Value", Box::new(value)),
        ("serde_json, derived", Box::new(derived)),
        ("simd-json, tape", Box::new(tape)),
        ("tidegate on serde_json", Box::new(without)),
        ("tidegate on simd-json", Box::new(with)),
    ];
    measure.all(group, message.len(), contenders);
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

fn take<'b>(message: &'b [u8], scratch: &mut Scratch) -> (Cow<'b, str>, Cow<'b, [u8]>) {
    let Some(Ok(Command::Publish(publish))) = parse(message, scratch).next().map(|request| request.command)
    else {
        panic!("a publication")
    };
    (publish.topic, publish.payload.bytes)
}

fn write(measure: &mut Measure, data: &str) {
    #[derive(Serialize)]
    struct Message<'m> {
        op: &'static str,
        topic: &'m str,
        offset: u64,
        data: &'m RawValue,
    }
    let offset = 123_456;
    // Right for topics without quotes and backslashes.
    let formatted = |topic: &str, data: &str| {
        format!(r#"{{"op":"message","topic":"{topic}","offset":{offset},"data":{data}}}"#)
    };
    let raw: &RawValue = serde_json::from_str(data).expect("JSON");
    let derived = |out: &mut Vec<u8>| {
        out.clear();
        let message = Message { op: "message", topic: black_box(TOPIC), offset, data: black_box(raw) };
        serde_json::to_writer(out, &message).expect("memory");
    };
    let own = |out: &mut Vec<u8>| {
        out.clear();
        let content = Content { format: Format::Json, bytes: black_box(data.as_bytes()) };
        write::message(out, black_box(TOPIC), offset, content);
    };

    let expected = formatted(TOPIC, data);
    for write in [&derived as &dyn Fn(&mut Vec<u8>), &own] {
        let mut out = Vec::new();
        write(&mut out);
        assert_eq!(out, expected.as_bytes());
    }
    let [mut first, mut second] = [(); 2].map(|()| Vec::with_capacity(2 * expected.len()));
    let contenders: Vec<Contender<'_>> = vec![
        ("format!", Box::new(|| drop(black_box(formatted(black_box(TOPIC), black_box(data)))))),
        ("serde_json, derived", Box::new(move || derived(&mut first))),
        ("tidegate", Box::new(move || own(&mut second))),
    ];
    measure.all("protocol/write", expected.len(), contenders);
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

/// Words beyond ASCII, as encoders write them that write ASCII alone.
fn escaped(size: usize) -> String {
    let words = ["\\u6f6e ", "\\u6c50\\u306e ", "\\ud83c\\udf0a ", "caf\\u00e9 "];
    let mut random = Random(0x2545_f491);
    let mut text = String::from(r#"{"text":""#);
    while text.len() < size {
        text += words[random.draw() as usize % words.len()];
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
