//! Sessions whose bytes are sealed: what was opened of a buffer waits as plain bytes do.

#[allow(dead_code)]
#[path = "../sim/random.rs"]
mod random;
#[allow(dead_code)]
#[path = "../sim/record.rs"]
mod record;

use serde_json::{Value, json};
use tidegate_io::BUFFER_BYTES;
use tidegate_wire::deflate::{CodecLimits, Codecs};

use self::record::{Direction, Open, RECORD_BYTES, Seal};
use crate::stage::{RECORDS, Socket, Stage, frame};

/// Each message that is inflated.
const MESSAGE: usize = 1 << 20;

/// As many of them as one receive buffer has.
const COUNT: u64 = 10;

/// A peer that speaks records.
struct Peer {
    socket: Socket,
    seal: Seal,
    open: Open,
}

impl Peer {
    fn ask(stage: &mut Stage, path: &str) -> Peer {
        let socket = stage.accept_at(RECORDS);
        let (seal, open) = (Seal::new(Direction::ToServer), Open::new(Direction::ToClient));
        let mut peer = Peer { socket, seal, open };
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: gw.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
        );
        let records = peer.sealed(request.as_bytes());
        stage.send(socket, &records);
        peer
    }

    fn open_at(stage: &mut Stage, path: &str) -> Peer {
        let mut peer = Peer::ask(stage, path);
        assert!(peer.hear(stage).starts_with(b"HTTP/1.1 101"));
        peer
    }

    fn sealed(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut records = Vec::new();
        plain.chunks(RECORD_BYTES).for_each(|part| self.seal.seal(part, &mut records));
        records
    }

    /// These frames arrive in one receive buffer.
    fn arrive(&mut self, stage: &mut Stage, frames: &[u8]) {
        let records = self.sealed(frames);
        assert!(records.len() <= BUFFER_BYTES, "{} bytes", records.len());
        stage.arrive(self.socket, &records);
    }

    /// What it was sent since it was last asked.
    fn hear(&mut self, stage: &Stage) -> Vec<u8> {
        let sent = stage.socket(self.socket, |kernel| std::mem::take(&mut kernel.sent));
        let mut plain = Vec::new();
        self.open.push(&sent, &mut plain);
        plain
    }
}

/// A compressed message.
fn deflated(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Codecs::new(CodecLimits { level: 9, ..CodecLimits::default() }).deflate(15, payload, &mut out);
    frame(first | 0x40, &out, true)
}

/// The first byte and the payload of each frame.
fn frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let [first, second, ..] = *bytes {
        let (header, len) = match second & 0x7f {
            126 => (4, usize::from(u16::from_be_bytes([bytes[2], bytes[3]]))),
            127 => (10, u64::from_be_bytes(bytes[2..10].try_into().expect("eight")) as usize),
            len => (2, usize::from(len)),
        };
        // Masked by zeros, where it is.
        let header = header + if second & 0x80 == 0 { 0 } else { 4 };
        frames.push((first, bytes[header..header + len].to_vec()));
        bytes = &bytes[header + len..];
    }
    frames
}

/// Large messages, each with its number in a short one behind it.
fn bombs() -> Vec<u8> {
    let large = deflated(0x82, &vec![0; MESSAGE]);
    (0..COUNT as u8).flat_map(|n| [large.clone(), frame(0x82, &[n], true)].concat()).collect()
}

/// What of that came back, or through: the numbers, each behind a large message.
fn numbers(bytes: &[u8]) -> Vec<u8> {
    let frames = frames(bytes);
    let pairs = frames.chunks(2).map(|pair| {
        let [(_, large), (0x82, short)] = pair else { panic!("a short one behind each large one") };
        assert!(large.len() > 64);
        short[0]
    });
    pairs.collect()
}

#[test]
fn what_was_opened_of_a_stopped_session_waits_unread() {
    let config = r#"
[limits]
message_bytes = "1MiB"
[[topic]]
name = "kept"
history = 10
[[route]]
path = "/topics/*"
topics = { subscribe = ["**"], publish = ["**"], session_bytes = "16KiB" }
"#;
    let mut stage = Stage::of(config, 1);
    let mut talker = Peer::open_at(&mut stage, "/topics");
    // More than may wait.
    let data = "x".repeat(40_000);
    let publish = json!({ "op": "publish", "topic": "kept", "data": data }).to_string();
    let records = talker.sealed(&frame(0x81, publish.as_bytes(), true));
    stage.send(talker.socket, &records);
    let history = json!({ "op": "history", "id": 1, "topic": "kept", "limit": 10 }).to_string();
    let mut said = frame(0x81, history.as_bytes(), true);
    for id in 0..COUNT {
        let mut ping = json!({ "op": "ping", "id": id }).to_string();
        ping.extend(std::iter::repeat_n(' ', MESSAGE - ping.len()));
        said.extend(deflated(0x81, ping.as_bytes()));
    }
    stage.socket(talker.socket, |kernel| kernel.room = 0);
    assert!(talker.hear(&stage).is_empty());
    let before = stage.shard.counters().messages;
    let history_bytes = stage.plan.retained_bytes();
    talker.arrive(&mut stage, &said);
    for _ in 0..20 {
        stage.turn();
        let retained = stage.plan.retained_bytes() - history_bytes;
        assert!(retained <= MESSAGE + 2 * BUFFER_BYTES + 2 * data.len(), "{retained} bytes");
    }
    assert_eq!(stage.shard.counters().messages - before, 2, "the second waits");
    assert!(stage.plan.retained_bytes() >= history_bytes + MESSAGE, "as a whole");
    stage.make_room(talker.socket, usize::MAX);
    stage.turns(10 * COUNT as usize);
    let heard = frames(&talker.hear(&stage)).into_iter();
    let heard: Vec<Value> = heard.map(|(_, told)| serde_json::from_slice(&told).expect("JSON")).collect();
    assert_eq!(heard.first().map(|told| &told["op"]), Some(&json!("history")));
    let ids: Vec<u64> = heard[1..].iter().map(|pong| pong["id"].as_u64().expect("a number")).collect();
    assert!(ids.iter().copied().eq(0..COUNT), "{ids:?}");
    assert_eq!(stage.plan.retained_bytes(), history_bytes);
}

#[test]
fn a_turn_inflates_only_so_much_of_a_sealed_buffer() {
    let mut stage = Stage::new("message_bytes = \"1MiB\"", "echo = {}");
    let mut client = Peer::open_at(&mut stage, "/r");
    client.arrive(&mut stage, &bombs());
    assert!(stage.most_read_in_a_turn() <= 2);
    assert_eq!(numbers(&client.hear(&stage)), (0..COUNT as u8).collect::<Vec<_>>());
    assert_eq!(stage.plan.retained_bytes(), 0);
}

#[test]
fn a_turn_relays_only_so_much_of_a_sealed_buffer() {
    let mut stage = Stage::new(
        "message_bytes = \"1MiB\"",
        "proxy = { upstreams = [\"ws://127.0.0.1:9\"], deflate = \"edge\" }",
    );
    let mut client = Peer::ask(&mut stage, "/r");
    let upstream = client.socket + 1;
    stage.upgrade(upstream);
    assert!(client.hear(&stage).starts_with(b"HTTP/1.1 101"));
    stage.socket(upstream, |kernel| kernel.sent.clear());
    client.arrive(&mut stage, &bombs());
    assert!(stage.most_read_in_a_turn() <= 2);
    assert_eq!(numbers(&stage.sent(upstream)), (0..COUNT as u8).collect::<Vec<_>>());
    assert_eq!(stage.plan.retained_bytes(), 0);
}

#[test]
fn the_end_of_a_sealed_stream_comes_behind_what_waits() {
    let mut stage = Stage::new("message_bytes = \"1MiB\"", "echo = {}");
    let mut client = Peer::open_at(&mut stage, "/r");
    let mut records = client.sealed(&bombs());
    client.seal.seal_end(&mut records);
    stage.arrive(client.socket, &records);
    stage.turns(10 * COUNT as usize);
    assert_eq!(numbers(&client.hear(&stage)), (0..COUNT as u8).collect::<Vec<_>>());
    assert!(client.open.ended && stage.socket(client.socket, |kernel| kernel.fin), "it has ended");
}
