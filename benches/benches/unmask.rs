//! Unmasking: a receive buffer of 17,472 bytes, full of frames of one size, each payload after its 6 to 14 bytes of
//! header; against a byte loop and against fastwebsockets. (tungstenite's unmasking is private to it.)
//!
//! The time is that of the whole buffer. Expected: every payload is the text that was masked, and is ASCII.

use std::{hint::black_box, ops::Range};

use criterion::{BenchmarkId, Criterion, Throughput};
use fastwebsockets::{Frame, OpCode, Payload};

const BUFFER_BYTES: usize = 17_472;
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const SIZES: [usize; 7] = [5, 16, 64, 125, 256, 1024, 16 * 1024];

/// What one implementation does to one payload; whether it is ASCII where it says so.
type Unmask = fn(&mut [u8], Range<usize>, [u8; 4]) -> bool;

const UNMASK: [(&str, Unmask); 4] = [
    ("naive", |buffer, payload, key| {
        for (i, byte) in buffer[payload].iter_mut().enumerate() {
            *byte ^= key[i & 3];
        }
        true
    }),
    ("naive, then is_ascii", |buffer, payload, key| {
        let payload = &mut buffer[payload];
        for (i, byte) in payload.iter_mut().enumerate() {
            *byte ^= key[i & 3];
        }
        payload.is_ascii()
    }),
    ("fastwebsockets", |buffer, payload, key| {
        Frame::new(true, OpCode::Binary, Some(key), Payload::BorrowedMut(&mut buffer[payload])).unmask();
        true
    }),
    ("tidegate", |buffer, payload, key| tidegate_simd::unmask(&mut buffer[payload], key, 0)),
];

fn main() {
    let mut criterion = tidegate_benches::criterion();
    in_place(&mut criterion);
    moving_down(&mut criterion);
    scanning(&mut criterion);
    criterion.final_summary();
}

fn in_place(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("unmask");
    for size in SIZES {
        let (masked, payloads) = frames(size);
        group.throughput(Throughput::Bytes((payloads.len() * size) as u64));
        for (name, unmask) in UNMASK {
            let mut buffer = masked.clone();
            for payload in &payloads {
                assert!(unmask(&mut buffer, payload.clone(), KEY), "{name}");
                assert_eq!(buffer[payload.clone()], text(size), "{name} {size}");
            }
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                bencher.iter(|| {
                    for payload in &payloads {
                        black_box(unmask(black_box(&mut buffer), payload.clone(), black_box(KEY)));
                    }
                });
            });
        }
    }
    group.finish();
}

/// As the echo does it: four bytes down for the first frame, eight for the second, and so on, end to end.
fn moving_down(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("unmask and move down");
    for size in SIZES {
        let (masked, payloads) = frames(size);
        let header = payloads[0].start - 4;
        let places: Vec<usize> = (0..payloads.len()).map(|n| n * (header + size) + header).collect();
        let naive = |buffer: &mut [u8], payload: Range<usize>, to: usize, key: [u8; 4]| {
            let len = payload.len();
            buffer.copy_within(payload, to);
            for (i, byte) in buffer[to..to + len].iter_mut().enumerate() {
                *byte ^= key[i & 3];
            }
            true
        };
        let tidegate = |buffer: &mut [u8], payload: Range<usize>, to: usize, key: [u8; 4]| {
            tidegate_simd::unmask_to(buffer, payload.start, to, payload.len(), key, 0)
        };
        group.throughput(Throughput::Bytes((payloads.len() * size) as u64));
        for (name, unmask_to) in [
            ("naive", &naive as &dyn Fn(&mut [u8], Range<usize>, usize, [u8; 4]) -> bool),
            ("tidegate", &tidegate),
        ] {
            let mut buffer = masked.clone();
            for (payload, to) in payloads.iter().zip(&places) {
                assert!(unmask_to(&mut buffer, payload.clone(), *to, KEY), "{name}");
            }
            for to in &places {
                assert_eq!(buffer[*to..to + size], text(size), "{name} {size}");
            }
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                bencher.iter(|| {
                    for (payload, to) in payloads.iter().zip(&places) {
                        black_box(unmask_to(black_box(&mut buffer), payload.clone(), *to, black_box(KEY)));
                    }
                });
            });
        }
    }
    group.finish();
}

/// As the proxy does it: is the unmasked text ASCII, without writing a byte.
fn scanning(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("scan");
    let naive =
        |bytes: &[u8], key: [u8; 4]| bytes.iter().enumerate().all(|(i, byte)| (byte ^ key[i & 3]).is_ascii());
    let tidegate = |bytes: &[u8], key: [u8; 4]| tidegate_simd::scan(bytes, key, 0);
    for size in SIZES {
        let (mut masked, payloads) = frames(size);
        group.throughput(Throughput::Bytes((payloads.len() * size) as u64));
        for (name, scan) in [("naive", &naive as &dyn Fn(&[u8], [u8; 4]) -> bool), ("tidegate", &tidegate)] {
            for payload in &payloads {
                assert!(scan(&masked[payload.clone()], KEY), "{name} {size}");
                masked[payload.end - 1] ^= 0x80;
                assert!(!scan(&masked[payload.clone()], KEY), "{name} {size}: the last byte is not ASCII");
                masked[payload.end - 1] ^= 0x80;
            }
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                bencher.iter(|| {
                    for payload in &payloads {
                        black_box(scan(black_box(&masked[payload.clone()]), black_box(KEY)));
                    }
                });
            });
        }
    }
    group.finish();
}

/// The text of every payload of one size.
fn text(size: usize) -> Vec<u8> {
    b"the quick brown fox jumps over the lazy dog; ".iter().copied().cycle().take(size).collect()
}

/// A buffer full of masked frames, and where their payloads are. (Header bytes do not matter here.)
fn frames(size: usize) -> (Vec<u8>, Vec<Range<usize>>) {
    let header = match size {
        0..126 => 6,
        126..65_536 => 8,
        _ => 14,
    };
    let count = BUFFER_BYTES / (header + size);
    let payloads: Vec<Range<usize>> =
        (0..count).map(|n| n * (header + size) + header).map(|start| start..start + size).collect();
    let mut buffer = vec![0; BUFFER_BYTES];
    for payload in &payloads {
        for (i, (place, byte)) in buffer[payload.clone()].iter_mut().zip(text(size)).enumerate() {
            *place = byte ^ KEY[i & 3];
        }
    }
    (buffer, payloads)
}
