//! permessage-deflate without context takeover: a message out, and in. Against what is done without a pool: a new stream of
//! the same library for each message. tungstenite and fastwebsockets do not have this extension.
//!
//! Expected: each takes the other's message, and JSON comes to less than half of it.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use tidegate_benches::paths::{inflate, json};
use tidegate_wire::{
    Role,
    deflate::{CodecLimits, Codecs, Compression},
    extension::DeflateParams,
};
use zlib_rs::{Deflate, DeflateConfig, DeflateFlush, Inflate, InflateFlush, Status};

const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

fn main() {
    let mut criterion = tidegate_benches::criterion();
    let mut codecs = Codecs::new(CodecLimits::default());
    let mut server = Compression::new(DeflateParams::default(), Role::Server, &mut codecs);
    for (name, len) in [("1 KiB of JSON", 1024), ("16 KiB of JSON", 16 * 1024)] {
        let message = json(len);
        let (mut ours, mut naive) = (Vec::new(), Vec::new());
        server.deflate(&mut codecs, &message, &mut ours);
        deflate_naively(&message, &mut naive);
        assert!(ours.len() < len / 2 && naive.len() < len / 2, "{} and {} of {len}", ours.len(), naive.len());
        let mut out = Vec::new();
        for wire in [&ours, &naive] {
            inflate_naively(wire, &mut out);
            assert!(out == message, "naive, {name}");
            inflate(&mut server, &mut codecs, wire, &mut out);
            assert!(out == message, "tidegate, {name}");
        }

        let mut group = criterion.benchmark_group("deflate");
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::new("naive", name), |bencher| {
            bencher.iter(|| deflate_naively(black_box(&message), &mut out));
        });
        group.bench_function(BenchmarkId::new("tidegate", name), |bencher| {
            bencher.iter(|| {
                out.clear();
                server.deflate(&mut codecs, black_box(&message), &mut out);
            });
        });
        group.finish();

        let mut group = criterion.benchmark_group("inflate");
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::new("naive", name), |bencher| {
            bencher.iter(|| inflate_naively(black_box(&ours), &mut out));
        });
        group.bench_function(BenchmarkId::new("tidegate", name), |bencher| {
            bencher.iter(|| inflate(&mut server, &mut codecs, black_box(&ours), &mut out));
        });
        group.finish();
    }
    server.release(&mut codecs);
    levels(&mut criterion);
    criterion.final_summary();
}

/// What each level costs for 1 KiB of JSON, and what it leaves (in the name).
fn levels(criterion: &mut Criterion) {
    // More than a window remembers, so that no message is one that was there before.
    let feed: Vec<_> = json(256 * 1024).chunks_exact(1024).map(<[u8]>::to_vec).collect();
    let mut group = criterion.benchmark_group("deflate 1 KiB of JSON");
    let mut alone = Vec::new();
    for level in [1, 3, 6] {
        let limits = CodecLimits { level, takeover_bytes: 1 << 20, ..CodecLimits::default() };
        for takeover in [false, true] {
            let mut codecs = Codecs::new(limits);
            let params = DeflateParams { server_no_context_takeover: !takeover, ..DeflateParams::default() };
            let mut server = Compression::new(params, Role::Server, &mut codecs);
            let mut out = Vec::new();
            feed.iter().for_each(|message| server.deflate(&mut codecs, message, &mut out));
            let left = out.len() * 100 / (feed.len() * 1024);
            if takeover {
                assert!(left < alone.pop().expect("measured before"), "takeover saves something");
            } else {
                assert!(left < 50, "{left} %");
                alone.push(left);
            }
            let name =
                format!("level {level}{}, {left} % left", if takeover { " with takeover" } else { "" });
            let mut messages = feed.iter().cycle();
            group.bench_function(name, |bencher| {
                bencher.iter(|| {
                    out.clear();
                    let message = messages.next().expect("a cycle has no end");
                    server.deflate(&mut codecs, black_box(message), &mut out);
                });
            });
            server.release(&mut codecs);
        }
    }
    group.finish();
}

fn deflate_naively(message: &[u8], out: &mut Vec<u8>) {
    let config = DeflateConfig { level: 1, window_bits: -15, ..DeflateConfig::default() };
    let mut stream = Deflate::new_with_config(config);
    out.clear();
    out.resize(message.len() + message.len() / 8 + 64, 0);
    stream.compress(message, out, DeflateFlush::SyncFlush).expect("a good configuration");
    out.truncate(stream.total_out() as usize - TAIL.len());
}

fn inflate_naively(wire: &[u8], out: &mut Vec<u8>) {
    let mut stream = Inflate::new(false, 15);
    let input = [wire, &TAIL].concat();
    out.clear();
    loop {
        let (taken, made) = (stream.total_in() as usize, stream.total_out() as usize);
        out.resize(made + 4096, 0);
        let status = stream.decompress(&input[taken..], &mut out[made..], InflateFlush::NoFlush);
        out.truncate(stream.total_out() as usize);
        match status.expect("a good message") {
            Status::Ok | Status::BufError if out.len() == made + 4096 => {}
            Status::Ok | Status::BufError | Status::StreamEnd => break,
        }
    }
}
