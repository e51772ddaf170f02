//! Subscribers that never read beside many that do, for each policy: the gateway's memory stays within what is configured, the
//! others get everything in order, and the silent ones, when they read at last, find what the policy says.

// What was measured, where somebody asks with `--nocapture`.
#![allow(clippy::print_stdout, clippy::print_stderr)]

#[path = "delivery/wire.rs"]
// The rest of it is for others.
#[allow(dead_code)]
mod wire;

mod harness;

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};

use crate::{
    harness::{
        affordable,
        client::{self, Client},
        eventually,
        frame::{self, FIN, TEXT},
        gateway::{Gateway, is_optimised},
    },
    wire::{Message, Window, Wire},
};

const MEMORY_BYTES: usize = 2 << 20;
const SESSION_BYTES: usize = 8 << 10;
const MESSAGE_BYTES: usize = 4 << 10;
/// Messages that are published at once; all who read have them before the next ones.
const AT_ONCE: usize = 8;
/// Receive buffers that were not used before, and what the allocator keeps in hand.
const BESIDES_BYTES: usize = 4 << 20;
const KEYS: usize = 16;
/// How long anything that is due may take.
const PATIENCE: Duration = Duration::from_secs(60);

fn config(policy: &str) -> String {
    let backlog = if policy == "drop_old" { "backlog_bytes = \"256KiB\"" } else { "" };
    format!(
        r#"
version = 1
[limits]
ping_interval = "300s"
close_timeout = "300s"
write_timeout = "300s"
receive_buffers = 64
[topics]
memory = {MEMORY_BYTES}
[[listener]]
bind = "127.0.0.1:0"
[[topic]]
name = "feed"
slow = "{policy}"
{backlog}
[[route]]
path = "/topics/*"
topics = {{ subscribe = ["**"], publish = ["**"], deflate = "off", session_bytes = {SESSION_BYTES} }}
"#
    )
}

/// So many subscribers, of which a tenth does not read, and how often something is published.
#[derive(Clone, Copy, Debug)]
struct Scale {
    subscribers: usize,
    rounds: usize,
}

/// More than all that may be held is published, so that it shows where it is.
const LONG: Scale = Scale { subscribers: 250, rounds: 500 };
/// Many times as much would be held by each of those that do not read as may be.
const WIDE: Scale = Scale { subscribers: 2_000, rounds: 260 };

/// How many read, and how many do not.
fn audience(wanted: usize) -> (usize, usize) {
    let all = affordable(wanted);
    if all < wanted {
        eprintln!("{all} subscribers and not {wanted}: a process may not have more descriptors");
    }
    (all - all / 10, all / 10)
}

/// What is published: text, and the frame that raw subscribers get.
struct Feed {
    texts: Vec<String>,
    frames: Vec<u8>,
}

impl Feed {
    fn new(rounds: usize) -> Feed {
        let texts: Vec<String> = (0..rounds * AT_ONCE)
            .map(|n| {
                let head = format!("{n:08} ");
                let letter = char::from(b'a' + (n % 26) as u8);
                let rest = letter.to_string().repeat(MESSAGE_BYTES - head.len());
                head + &rest
            })
            .collect();
        let frames: Vec<_> = texts.iter().map(|text| frame::plain(FIN | TEXT, text.as_bytes())).collect();
        Feed { texts, frames: frames.concat() }
    }

    /// The bytes of so many frames.
    fn len_of(&self, frames: usize) -> usize {
        self.frames.len() / self.texts.len() * frames
    }
}

/// One that reads, on a raw topic: byte by byte what is due.
struct Reader {
    stream: TcpStream,
    at: usize,
}

impl Reader {
    fn open(gateway: &Gateway) -> Reader {
        let mut stream = TcpStream::connect(gateway.address()).expect("connect on loopback");
        stream.set_read_timeout(Some(PATIENCE)).expect("a read time-out");
        stream.write_all(&client::request("/topics/feed", "")).expect("a request");
        let mut head = Vec::new();
        // Nothing is published yet: there is nothing behind the head.
        while !head.ends_with(b"\r\n\r\n") {
            let mut piece = [0; 1024];
            let count = stream.read(&mut piece).expect("an answer");
            assert!(count > 0, "{}", String::from_utf8_lossy(&head));
            head.extend_from_slice(&piece[..count]);
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
        stream.set_nonblocking(true).expect("O_NONBLOCK");
        Reader { stream, at: 0 }
    }

    /// Takes what has come; it must be what comes next.
    fn read(&mut self, feed: &Feed, until: usize, piece: &mut [u8]) {
        while self.at < until {
            match self.stream.read(piece) {
                Ok(0) => panic!("one that reads was ended at {}", self.at),
                Ok(count) => {
                    assert!(self.at + count <= until, "more than was published");
                    assert!(piece[..count] == feed.frames[self.at..self.at + count], "not what is next");
                    self.at += count;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Interrupted, "{error}"),
            }
        }
    }
}

/// All who read get all that was published.
fn read_all(readers: &mut [Reader], feed: &Feed, until: usize, piece: &mut [u8]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut open = Vec::new();
        for reader in &mut *readers {
            reader.read(feed, until, piece);
        }
        open.extend(
            readers
                .iter()
                .filter(|reader| reader.at < until)
                .map(|reader| PollFd::new(&reader.stream, PollFlags::IN)),
        );
        if open.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "{} of those that read wait in vain", open.len());
        let timeout = Timespec { tv_sec: 1, tv_nsec: 0 };
        // Whatever it says: what is there is looked for.
        let _ = poll(&mut open, Some(&timeout));
    }
}

/// The next message of one that has been silent.
fn next(wire: &mut Wire) -> Message {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(message) = wire.message() {
            return message;
        }
        assert!(!wire.ended && Instant::now() < deadline, "a message was due");
        let timeout = Timespec { tv_sec: 1, tv_nsec: 0 };
        let _ = poll(&mut [PollFd::new(wire.stream(), PollFlags::IN)], Some(&timeout));
        wire.read();
    }
}

fn next_json(wire: &mut Wire) -> Value {
    match next(wire) {
        Message::Text(text) => serde_json::from_slice(&text).expect("JSON"),
        other => panic!("{other:?}"),
    }
}

fn silent(gateway: &Gateway) -> Wire {
    let mut wire = Wire::connect(gateway.address(), Window::Small);
    wire.send(&client::request("/topics", ""));
    let deadline = Instant::now() + PATIENCE;
    while wire.head().is_none() {
        assert!(Instant::now() < deadline, "an answer was due");
        wire.read();
    }
    assert_eq!(next_json(&mut wire)["op"], "hello");
    wire.say(TEXT, br#"{"op":"subscribe","id":1,"topic":"feed"}"#);
    let answer = next_json(&mut wire);
    assert_eq!((&answer["op"], &answer["offset"]), (&json!("subscribed"), &json!(0)), "{answer}");
    wire
}

/// What one that has been silent finds.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    messages: usize,
    gaps: usize,
    /// Messages behind the last gap.
    behind: usize,
    /// Offsets passed over in silence.
    passed: usize,
    closed: Option<u16>,
}

/// Reads until the last that was published came, or was announced not to come, or the end.
fn find(wire: &mut Wire, feed: &Feed) -> Found {
    let mut found = Found::default();
    let mut newest = [0; KEYS];
    let mut at = 0;
    while at < feed.texts.len() {
        let told = match next(wire) {
            Message::Text(text) => serde_json::from_slice::<Value>(&text).expect("JSON"),
            Message::Binary(bytes) => panic!("{bytes:?}"),
            Message::Close(code) => {
                found.closed = Some(code);
                return found;
            }
        };
        if told["op"] == "gap" {
            assert_eq!((&told["from"], &told["reason"]), (&json!(at + 1), &json!("slow")), "{told}");
            at = told["to"].as_u64().expect("an offset") as usize;
            found.gaps += 1;
            found.behind = 0;
            continue;
        }
        let offset = told["offset"].as_u64().expect("an offset") as usize;
        assert!(offset > at, "{told}");
        assert_eq!(told["text"], feed.texts[offset - 1]);
        found.passed += offset - at - 1;
        found.messages += 1;
        found.behind += 1;
        newest[(offset - 1) % KEYS] = offset;
        at = offset;
    }
    if found.passed > 0 {
        let last: Vec<usize> = (1..=KEYS).map(|behind| feed.texts.len() + behind - KEYS).collect();
        newest.sort_unstable();
        assert_eq!(newest.to_vec(), last, "the newest of each key");
    }
    found
}

fn judge(policy: &str, found: &Found, published: usize) {
    let Found { messages, gaps, behind, passed, closed } = *found;
    // The kernel may take some more now and then, so that what comes is told by more gaps than one.
    let fits = messages < published
        && match policy {
            "disconnect" => gaps == 0 && passed == 0 && closed == Some(1013),
            "drop_new" => gaps >= 1 && behind == 0 && passed == 0 && closed.is_none(),
            // As much as the backlog has room for.
            "drop_old" => gaps >= 1 && (2..=64).contains(&behind) && passed == 0 && closed.is_none(),
            "conflate" => gaps == 0 && passed > 0 && closed.is_none(),
            "resync" => gaps >= 1 && behind == 1 && passed == 0 && closed.is_none(),
            other => panic!("{other} is no policy"),
        };
    assert!(fits, "{policy}: {found:?}");
}

fn some_never_read(io: &str, policy: &str, scale: Scale) {
    let (reading, not_reading) = audience(scale.subscribers);
    let feed = Feed::new(scale.rounds);
    let gateway = Gateway::start_with(&config(policy), &["--io", io, "--shards", "2"]);
    let mut readers: Vec<Reader> = (0..reading).map(|_| Reader::open(&gateway)).collect();
    let mut silent: Vec<Wire> = (0..not_reading).map(|_| silent(&gateway)).collect();
    // A raw subscription has no answer.
    let mut asker = Client::connect(gateway.address());
    eventually("all subscriptions", || {
        asker.send(b"GET /topics/feed HTTP/1.1\r\nHost: gw.test\r\n\r\n");
        let response = asker.response().expect("an answer");
        let state: Value = serde_json::from_slice(&response.body).expect("JSON");
        (state["subscribers"] == json!(reading + not_reading)).then_some(())
    });
    let mut publisher = Client::open(gateway.address(), "/topics");
    publisher.message(TEXT);
    let mut piece = vec![0; 256 << 10];
    let (mut before_kib, mut most_kib) = (0, 0);
    for round in 0..scale.rounds {
        let commands: Vec<Value> = (round * AT_ONCE..(round + 1) * AT_ONCE)
            .map(|n| {
                let key = format!("k{}", n % KEYS);
                json!({ "op": "publish", "id": n, "topic": "feed", "key": key, "text": feed.texts[n] })
            })
            .collect();
        publisher.send(&frame::masked(FIN | TEXT, Value::from(commands).to_string().as_bytes()));
        read_all(&mut readers, &feed, feed.len_of((round + 1) * AT_ONCE), &mut piece);
        for _ in 0..AT_ONCE {
            let answer: Value = serde_json::from_slice(&publisher.message(TEXT)).expect("JSON");
            assert_eq!(answer["op"], "published", "{policy}: {answer}");
        }
        // The first round takes what any round takes.
        if round == 0 {
            before_kib = gateway.heap_kib();
        }
        most_kib = most_kib.max(gateway.heap_kib());
    }
    let more_bytes = (most_kib - before_kib) as usize * 1024;
    let budget_bytes = MEMORY_BYTES + not_reading * SESSION_BYTES + BESIDES_BYTES;
    let published = feed.texts.len();
    // All refer to the same frames: with less a bound that is missing could not be seen.
    assert!(published * MESSAGE_BYTES > budget_bytes, "too little was published for {budget_bytes} bytes");
    println!(
        "{io} {policy}: {reading} read, {not_reading} do not; {} KiB were published; {} KiB more memory, of {} KiB",
        (published * MESSAGE_BYTES) >> 10,
        more_bytes >> 10,
        budget_bytes >> 10,
    );
    assert!(more_bytes <= budget_bytes, "{io} {policy}: {more_bytes} of {budget_bytes} bytes");
    for wire in &mut silent {
        judge(policy, &find(wire, &feed), published);
    }
    if policy != "disconnect" {
        // They are live again.
        publisher.send(&frame::masked(FIN | TEXT, br#"{"op":"publish","topic":"feed","text":"more"}"#));
        for wire in &mut silent {
            let told = next_json(wire);
            assert_eq!((&told["text"], &told["offset"]), (&json!("more"), &json!(published + 1)), "{policy}");
        }
    }
}

const POLICIES: [&str; 5] = ["disconnect", "drop_new", "drop_old", "conflate", "resync"];

#[test]
fn those_that_never_read_cost_what_is_configured_and_hurt_nobody_on_uring() {
    // A build that is not optimised takes its time.
    let scale = if is_optimised() { WIDE } else { LONG };
    POLICIES.iter().for_each(|policy| some_never_read("uring", policy, scale));
}

#[test]
fn those_that_never_read_cost_what_is_configured_and_hurt_nobody_on_epoll() {
    POLICIES.iter().for_each(|policy| some_never_read("epoll", policy, LONG));
}
