//! Instructions of the hot paths, counted by valgrind: a guard against what makes them slower. A clock cannot be one,
//! as it says something else on each machine and at each time; these counts are the same each time.
//!
//! Each stands beside its bench and may be exceeded by a tenth: that much comes and goes with a compiler's inlining,
//! while a lost vector loop, a copy or an allocation for each message is far more. They hold for the vector code of
//! AVX2 on x86-64; other machines have others. They say nothing about caches: times are for the other benches.
//!
//! Made with rustc 1.95.0 and valgrind 3.19. After a change that is worth what it costs, or that saves much: run
//! `scripts/test.sh instructions`, and put here what it prints.
//!
//! Everything was run once before it is counted, so that buffers are there and the processor's features are known.
#![allow(missing_docs, unused_qualifications, reason = "the macros write modules and whole paths")]

use std::{hint::black_box, sync::Arc, time::SystemTime};

use gungraun::{
    Callgrind, EventKind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main,
};
use tidegate_benches::{
    paths::{Echo, HEAD, inflate, json, push, switch},
    whole::{Whole, With},
};
use tidegate_hub::{
    Ask, Class, ClientId, Envelope, Hub, Kind, MemberRules, Publication, Publish, Ticket, TopicName,
    arena::{Arenas, Lane, Layout},
    protocol::{self, Content, Format, Scratch},
};
use tidegate_registry::{
    Admission, Chunk, End, Frame, FullPolicy, Key, Outbox, OutboxLimits, Registry, Retained, Total, Wheel,
    jitter,
};
use tidegate_tls::{ClientConfig, ClientOptions, Identity, ServerConfig, ServerOptions, Session, Trust};
use tidegate_wire::{
    Role,
    deflate::{CodecLimits, Codecs, Compression},
    extension::DeflateParams,
    frame::Opcode,
};

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const SESSIONS: u32 = 10_000;
const INTERVAL_MS: u64 = 25_000;
const LIMITS: OutboxLimits = OutboxLimits::new(1 << 20, 1 << 19, 4 << 20);

/// At most a tenth more than so many instructions.
fn about(count: u64) -> LibraryBenchmarkConfig {
    // Nothing is said about caches, so they need not be simulated.
    let mut callgrind = Callgrind::with_args(["--cache-sim=no"]);
    callgrind.hard_limits([(EventKind::Ir, count + count / 10)]);
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(callgrind);
    config
}

/// Masked ASCII.
fn masked(len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (b' '..b'~').cycle().take(len).collect();
    assert!(!tidegate_simd::unmask(&mut bytes, MASK, 0), "masked, it is no ASCII");
    bytes
}

#[library_benchmark]
#[bench::bytes_64(args = (64), setup = masked, config = about(82))]
#[bench::bytes_1_kib(args = (1024), setup = masked, config = about(227))]
#[bench::bytes_16_kib(args = (16 * 1024), setup = masked, config = about(2_395))]
fn unmask(mut bytes: Vec<u8>) -> Vec<u8> {
    assert!(tidegate_simd::unmask(black_box(&mut bytes), black_box(MASK), 0), "ASCII");
    bytes
}

/// So many frames of so many bytes, and who has taken some before.
fn frames(count: usize, len: usize) -> (Echo, Vec<u8>) {
    let text: Vec<u8> = (b' '..b'~').cycle().take(len).collect();
    let mut stream = Vec::new();
    (0..count).for_each(|_| push(&mut stream, Opcode::Text, Some(MASK), &text));
    let mut echo = Echo::new(stream.len());
    assert_eq!(echo.parse(&mut stream.clone()), count * len);
    let mut answered = 0;
    echo.echo(&stream, stream.len(), |piece| answered += piece.len());
    assert_eq!(answered, stream.len() - 4 * count, "the same, without masks");
    (echo, stream)
}

#[library_benchmark]
#[bench::one_of_64(args = (1, 64), setup = frames, config = about(347))]
#[bench::many_of_64(args = (32, 64), setup = frames, config = about(5_338))]
#[bench::one_of_16_kib(args = (1, 16 * 1024), setup = frames, config = about(2_671))]
fn parse((mut echo, mut stream): (Echo, Vec<u8>)) -> (Echo, Vec<u8>) {
    black_box(echo.parse(black_box(&mut stream)));
    (echo, stream)
}

#[library_benchmark]
#[bench::one_of_64(args = (1, 64), setup = frames, config = about(388))]
#[bench::many_of_64(args = (32, 64), setup = frames, config = about(4_170))]
#[bench::one_of_16_kib(args = (1, 16 * 1024), setup = frames, config = about(2_905))]
fn answer((mut echo, mut stream): (Echo, Vec<u8>)) -> (Echo, Vec<u8>) {
    echo.answer(black_box(&mut stream), |piece| _ = black_box(piece));
    (echo, stream)
}

fn answer_buffer() -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    switch(HEAD, &mut out);
    assert!(out.starts_with(b"HTTP/1.1 101"));
    out.clear();
    out
}

#[library_benchmark]
#[bench::of_chrome(args = (), setup = answer_buffer, config = about(23_220))]
fn handshake(mut out: Vec<u8>) -> Vec<u8> {
    switch(black_box(HEAD), &mut out);
    out
}

/// A session with permessage-deflate, its shard's codecs, a message, and the same deflated.
struct Deflated {
    session: Compression,
    codecs: Codecs,
    message: Vec<u8>,
    wire: Vec<u8>,
    out: Vec<u8>,
}

fn deflated(len: usize) -> Deflated {
    let mut codecs = Codecs::new(CodecLimits::default());
    let mut session = Compression::new(DeflateParams::default(), Role::Server, &mut codecs);
    let (message, mut wire, mut out) = (json(len), Vec::new(), Vec::with_capacity(4 * len));
    session.deflate(&mut codecs, &message, &mut wire);
    inflate(&mut session, &mut codecs, &wire, &mut out);
    assert!(wire.len() < len / 2 && out == message);
    Deflated { session, codecs, message, wire, out }
}

#[library_benchmark]
#[bench::json_1_kib(args = (1024), setup = deflated, config = about(168_488))]
fn deflate(mut deflated: Deflated) -> Deflated {
    let Deflated { session, codecs, message, out, .. } = &mut deflated;
    out.clear();
    session.deflate(codecs, black_box(message), out);
    deflated
}

#[library_benchmark]
#[bench::json_1_kib(args = (1024), setup = deflated, config = about(15_039))]
fn inflate_message(mut deflated: Deflated) -> Deflated {
    let Deflated { session, codecs, wire, out, .. } = &mut deflated;
    inflate(session, codecs, black_box(wire), out);
    deflated
}

fn registry() -> (Registry<[u64; 16]>, Vec<Key>) {
    let mut registry = Registry::with_capacity(SESSIONS);
    let keys = (0..u64::from(SESSIONS)).map(|n| registry.insert([n; 16]).expect("there is room")).collect();
    (registry, keys)
}

#[library_benchmark]
#[bench::sessions_10_000(args = (), setup = registry, config = about(250_041))]
fn touch((mut registry, keys): (Registry<[u64; 16]>, Vec<Key>)) -> (Registry<[u64; 16]>, Vec<Key>) {
    for key in &keys {
        registry.get_mut(black_box(*key)).expect("it is there")[3] += 1;
    }
    (registry, keys)
}

/// A wheel on which each session has its deadline, and a place for who is due.
fn wheel() -> (Wheel, Vec<u32>) {
    let mut wheel = Wheel::new(0, SESSIONS);
    let first = |index: u32| u64::from(index) * INTERVAL_MS / u64::from(SESSIONS);
    (0..SESSIONS).for_each(|index| wheel.schedule(index, first(index)));
    (wheel, Vec::with_capacity(SESSIONS as usize))
}

#[library_benchmark]
#[bench::sessions_10_000(args = (), setup = wheel, config = about(1_051_171))]
fn reschedule((mut wheel, due): (Wheel, Vec<u32>)) -> (Wheel, Vec<u32>) {
    for index in 0..SESSIONS {
        wheel.schedule(index, (u64::from(index) * 7) % 60_000);
    }
    (wheel, due)
}

// A second of pings: each session that is due is scheduled again.
#[library_benchmark]
#[bench::second(args = (), setup = wheel, config = about(83_140))]
fn due((mut wheel, mut due): (Wheel, Vec<u32>)) -> (Wheel, Vec<u32>) {
    let (mut now, mut pings) = (0, 0);
    while now < 1000 {
        now = wheel.next_deadline().map_or(1000, |next| next.max(now));
        wheel.expire(now, &mut due);
        pings += due.len();
        for index in due.drain(..) {
            let key = Key::from_bits(1 << 32 | u64::from(index));
            wheel.schedule(index, now + jitter(key, INTERVAL_MS, now));
        }
    }
    assert!((300..500).contains(&black_box(pings)), "a 25th of all: {pings}");
    (wheel, due)
}

/// Subscribers, what they hold back, and a frame for all of them.
struct Topic {
    subscribers: Vec<Outbox>,
    retained: Retained,
    frame: Frame,
}

fn topic() -> Topic {
    let total = Total::default();
    let mut topic = Topic {
        subscribers: (0..1000).map(|_| Outbox::new()).collect(),
        retained: Retained::new(&total),
        frame: Frame::new(vec![0x61; 132], &total),
    };
    broadcast(&mut topic);
    topic
}

fn broadcast(topic: &mut Topic) {
    let Topic { subscribers, retained, frame } = topic;
    for outbox in subscribers.iter_mut() {
        let admission = outbox.push(Chunk::Shared(frame.clone()), &LIMITS, FullPolicy::DropOld, retained);
        assert_eq!(admission, Admission::Queued);
    }
    for outbox in subscribers {
        black_box(outbox.pieces().map(<[u8]>::len).sum::<usize>());
        let _ = outbox.consume(outbox.sendable(), &LIMITS, retained);
    }
}

// One frame to 1,000 subscribers, and what each sends.
#[library_benchmark]
#[bench::subscribers_1_000(args = (), setup = topic, config = about(363_056))]
fn publish(mut topic: Topic) -> Topic {
    broadcast(black_box(&mut topic));
    topic
}

// 100 answers of 68 bytes behind others that a slow peer has not taken.
#[library_benchmark]
#[bench::answers_100(args = (), setup = topic, config = about(25_127))]
fn append(mut topic: Topic) -> Topic {
    let Topic { subscribers, retained, .. } = &mut topic;
    for _ in 0..100 {
        let admission = subscribers[0].append_copy(
            black_box(&[0x62; 68]),
            End::Boundary,
            &LIMITS,
            FullPolicy::Pause,
            retained,
        );
        assert_eq!(admission, Admission::Queued);
    }
    topic
}

/// A hub with a topic that has so many subscribers.
struct Crowd {
    hub: Hub,
    topic: TopicName,
}

fn crowd(subscribers: u64) -> Crowd {
    let mut hub = Hub::new(0, 1, Arc::default(), 1, &Total::default());
    let topic = TopicName::parse("scores/football/42").expect("a name");
    for number in 0..subscribers {
        let key = Key::from_bits(1 << 32 | number);
        let class = Class::plain(Envelope::Protocol);
        let member = hub.enter(key, class, ClientId::from_bits(number), MemberRules::default());
        let ticket = Ticket { key, request: 1 };
        hub.subscribe(member, ticket, &topic, Ask::default(), 0).expect("there is room");
        assert!(hub.poll_reply().is_some());
    }
    let mut crowd = Crowd { hub, topic };
    let (arenas, layout) = &mut lanes();
    assert!(fan_out(&mut crowd, arenas, layout) > 64 * subscribers as usize);
    crowd
}

/// Publishes, and walks over the audience as a shard does before it comes to sockets. Gives how many bytes would be sent.
fn fan_out(crowd: &mut Crowd, arenas: &mut Arenas, layout: &mut Layout) -> usize {
    let Crowd { hub, topic } = crowd;
    hub.publish(None, topic, Publish::new(Format::Text, vec![b'x'; 64]), 0).expect("there is room");
    let mut bytes = 0;
    while let Some(batch) = hub.poll_batch() {
        layout.begin();
        let publications = hub.publications(batch);
        for subscriber in hub.audience(batch).iter().filter(|subscriber| !subscriber.lags()) {
            let lane = Lane { class: subscriber.class, presence: subscriber.watches() };
            let skip = usize::from(subscriber.skip);
            let range = layout.range(lane, skip, publications, arenas, write_frame);
            bytes += arenas.of(lane).bytes(range).len();
        }
        hub.finish_batch(batch);
    }
    arenas.clear();
    bytes
}

fn write_frame(publication: &Publication, out: &mut Vec<u8>) {
    let Kind::Message { format, payload, .. } = publication.kind() else { return };
    let content = Content { format: *format, bytes: payload };
    protocol::write::message(out, publication.topic().as_str(), publication.offset(), content);
}

fn lanes() -> (Arenas, Layout) {
    (Arenas::default(), Layout::default())
}

fn crowd_and_lanes(subscribers: u64) -> (Crowd, Arenas, Layout) {
    let mut crowd = crowd(subscribers);
    let (mut arenas, mut layout) = lanes();
    fan_out(&mut crowd, &mut arenas, &mut layout);
    (crowd, arenas, layout)
}

// One publication: offsets, the arena, and a look at each subscriber.
#[library_benchmark]
#[bench::subscriber_1(args = (1), setup = crowd_and_lanes, config = about(4_313))]
#[bench::subscribers_1_000(args = (1000), setup = crowd_and_lanes, config = about(89_228))]
fn publish_to_topic((mut crowd, mut arenas, mut layout): (Crowd, Arenas, Layout)) -> (Crowd, Arenas, Layout) {
    black_box(fan_out(black_box(&mut crowd), &mut arenas, &mut layout));
    (crowd, arenas, layout)
}

/// A command that publishes so many bytes of JSON, and memory for its reader, which was used before.
fn command(len: usize) -> (Vec<u8>, Scratch) {
    let feed = String::from_utf8(json(len)).expect("JSON is UTF-8");
    // Down to the last object that is whole.
    let data = format!("{}]", &feed[..=feed.rfind("},").expect("an object")]);
    let text = format!(r#"{{"op":"publish","id":5,"topic":"scores/football/42","data":{data},"key":"k"}}"#);
    let mut scratch = Scratch::new();
    assert!(protocol::parse(text.as_bytes(), &mut scratch).all(|request| request.command.is_ok()));
    (text.into_bytes(), scratch)
}

#[library_benchmark]
#[bench::json_128(args = (128), setup = command, config = about(5_645))]
#[bench::json_8_kib(args = (8 * 1024), setup = command, config = about(237_140))]
fn parse_command((text, mut scratch): (Vec<u8>, Scratch)) -> (Vec<u8>, Scratch) {
    for request in protocol::parse(black_box(&text), &mut scratch) {
        let _ = black_box(request);
    }
    (text, scratch)
}

/// A server that has answered a record of so many bytes, and the next one.
fn sealed(len: usize) -> (Session, Vec<u8>, Vec<u8>) {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let (chain, key) = (own.cert.pem(), own.signing_key.serialize_pem());
    let identity = Identity::from_pem(chain.as_bytes(), key.as_bytes(), SystemTime::now()).expect("a pair");
    let config = ServerConfig::new(&ServerOptions::default(), vec![identity]).expect("a configuration");
    let options = ClientOptions { trust: Trust::Nothing, alpn: Vec::new(), resumes: false };
    let client = ClientConfig::new(&options).expect("a configuration");
    let mut client = Session::client(&client, "localhost").expect("a name");
    let mut server = Session::server(&config);
    let mut plain = Vec::with_capacity(2 * len);
    while !(client.is_open() && server.is_open()) {
        server.handle_ciphertext(&mut client.take_transmit(), &mut plain).expect("a handshake");
        client.handle_ciphertext(&mut server.take_transmit(), &mut plain).expect("a handshake");
    }
    let mut next = || {
        client.seal(&vec![7; len]).expect("it is open");
        client.take_transmit()
    };
    let (first, second) = (next(), next());
    let (mut server, _, plain) = open_and_seal((server, first, plain));
    drop(server.take_transmit());
    (server, second, plain)
}

fn open_and_seal(
    (mut server, mut record, mut plain): (Session, Vec<u8>, Vec<u8>),
) -> (Session, Vec<u8>, Vec<u8>) {
    plain.clear();
    server.handle_ciphertext(black_box(&mut record), &mut plain).expect("a good record");
    assert!(!plain.is_empty(), "it was opened");
    server.give_room(Vec::with_capacity(plain.len() + 64));
    server.seal(&plain).expect("it is open");
    (server, record, plain)
}

// An echo over TLS 1.3: rustls, AES with keys of 128 bits, and what is around them.
#[library_benchmark]
#[bench::bytes_64(args = (64), setup = sealed, config = about(4_933))]
#[bench::bytes_16_kib(args = (16 * 1024), setup = sealed, config = about(163_956))]
fn answer_sealed(echo: (Session, Vec<u8>, Vec<u8>)) -> (Session, Vec<u8>, Vec<u8>) {
    open_and_seal(echo)
}

// A message of 64 bytes from each of 64 sessions, through a whole shard on epoll, and what it takes with the edge's parts.
#[library_benchmark]
#[bench::plain(args = (With::Nothing), setup = Whole::new, teardown = Whole::check, config = about(104_236))]
#[bench::limits(args = (With::Limits), setup = Whole::new, teardown = Whole::check, config = about(118_060))]
#[bench::identity(args = (With::Identity), setup = Whole::new, teardown = Whole::check, config = about(104_236))]
#[bench::metrics(args = (With::Metrics), setup = Whole::new, teardown = Whole::check, config = about(114_819))]
#[bench::all(args = (With::All), setup = Whole::new, teardown = Whole::check, config = about(128_640))]
fn whole_shard(mut whole: Whole) -> Whole {
    whole.turn();
    whole
}

library_benchmark_group!(
    name = wire,
    benchmarks = [unmask, parse, answer, answer_sealed, handshake, deflate, inflate_message]
);
library_benchmark_group!(
    name = sessions,
    benchmarks = [whole_shard, touch, reschedule, due, publish, append]
);
library_benchmark_group!(name = topics, benchmarks = [publish_to_topic, parse_command]);
main!(library_benchmark_groups = [wire, sessions, topics]);
