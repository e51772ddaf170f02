//! Sessions, deadlines and outboxes at 100,000 sessions of 128 bytes, against a hash map and an ordered map.
//!
//! The time is that of one operation unless the name says otherwise. Expected answers stand before each measurement.

use std::{
    collections::{BTreeSet, HashMap},
    hint::black_box,
};

use criterion::{Criterion, Throughput};
use tidegate_registry::{
    Admission, Chunk, End, Frame, FullPolicy, Key, Outbox, OutboxLimits, Registry, Retained, Total, Wheel,
    jitter,
};

const SESSIONS: u32 = 100_000;
const INTERVAL_MS: u64 = 25_000;

type Session = [u64; 16];

fn main() {
    let mut criterion = tidegate_benches::criterion();
    sessions(&mut criterion);
    deadlines(&mut criterion);
    outboxes(&mut criterion);
    criterion.final_summary();
}

/// An order that no prefetcher guesses: multiples of a prime, modulo the number of sessions.
fn shuffled(n: usize) -> usize {
    n * 48_271 % SESSIONS as usize
}

fn sessions(criterion: &mut Criterion) {
    let mut registry: Registry<Session> = Registry::with_capacity(SESSIONS + 1);
    let keys: Vec<Key> = (0..u64::from(SESSIONS)).map(|n| registry.insert([n; 16]).unwrap()).collect();
    let mut map: HashMap<u64, Session> =
        keys.iter().zip(0..).map(|(key, n): (&Key, u64)| (key.to_bits(), [n; 16])).collect();
    assert!(keys.iter().zip(0..).all(|(key, n): (&Key, u64)| registry.get(*key) == Some(&[n; 16])));
    assert!(keys.iter().all(|key| registry.get(*key) == map.get(&key.to_bits())));

    let mut group = criterion.benchmark_group("registry");
    let mut n = 0;
    group.bench_function("look up, 100,000 sessions in no order", |bencher| {
        bencher.iter(|| {
            n += 1;
            registry.get_mut(keys[shuffled(n)]).map(|session| session[3] += 1)
        });
    });
    group.bench_function("look up, the same in a HashMap", |bencher| {
        bencher.iter(|| {
            n += 1;
            map.get_mut(&keys[shuffled(n)].to_bits()).map(|session| session[3] += 1)
        });
    });
    group.bench_function("look up, one that is warm", |bencher| {
        bencher.iter(|| registry.get_mut(black_box(keys[7])).map(|session| session[3] += 1));
    });

    let stale = registry.insert([0; 16]).unwrap();
    registry.remove(stale).unwrap();
    assert!(registry.get(stale).is_none());
    group.bench_function("look up, a stale key", |bencher| {
        bencher.iter(|| registry.get(black_box(stale)).is_none());
    });
    group.bench_function("insert and remove", |bencher| {
        bencher.iter(|| {
            let key = registry.insert(black_box([9; 16])).unwrap();
            registry.remove(key)
        });
    });
    assert_eq!(registry.len(), SESSIONS as usize);
    group.finish();
}

fn deadlines(criterion: &mut Criterion) {
    let key = |index: u32| Key::from_bits(1 << 32 | u64::from(index));
    let first = |index: u32| u64::from(index) * INTERVAL_MS / u64::from(SESSIONS);
    let mut group = criterion.benchmark_group("wheel");

    let mut wheel = Wheel::new(0, SESSIONS);
    let mut naive: BTreeSet<(u64, u32)> = BTreeSet::new();
    let mut deadlines: Vec<u64> = (0..SESSIONS).map(first).collect();
    for index in 0..SESSIONS {
        wheel.schedule(index, first(index));
        naive.insert((first(index), index));
    }
    assert_eq!(wheel.len(), naive.len());
    let mut n = 0;
    group.bench_function("reschedule, 100,000 sessions in no order", |bencher| {
        bencher.iter(|| {
            n += 1;
            wheel.schedule(shuffled(n) as u32, (n as u64 * 7) % 60_000);
        });
    });
    group.bench_function("reschedule, the same in a BTreeSet", |bencher| {
        bencher.iter(|| {
            n += 1;
            let (index, deadline) = (shuffled(n), (n as u64 * 7) % 60_000);
            naive.remove(&(deadlines[index], index as u32));
            deadlines[index] = deadline;
            naive.insert((deadline, index as u32));
        });
    });
    assert_eq!(wheel.len(), SESSIONS as usize);

    // A second of pings: each due session is scheduled again, as it is in a shard.
    let mut wheel = Wheel::new(0, SESSIONS);
    for index in 0..SESSIONS {
        wheel.schedule(index, first(index));
    }
    let mut now = 0;
    let mut due = Vec::new();
    let mut second = |wheel: &mut Wheel| {
        let end = now + 1000;
        let mut pings = 0_u64;
        while now < end {
            now = wheel.next_deadline().map_or(end, |next| next.max(now));
            wheel.expire(now, &mut due);
            pings += due.len() as u64;
            for index in due.drain(..) {
                wheel.schedule(index, now + jitter(key(index), INTERVAL_MS, now));
            }
        }
        pings
    };
    let pings: u64 = (0..75).map(|_| second(&mut wheel)).sum();
    let per_second = pings / 75;
    // Intervals of 18.75 to 25 s, 21.9 s on average.
    assert!((4_000..5_000).contains(&per_second), "{per_second} pings a second");
    assert_eq!(wheel.len(), SESSIONS as usize);
    group.throughput(Throughput::Elements(per_second));
    group.bench_function("a second of due pings (about 4,570), each scheduled again", |bencher| {
        bencher.iter(|| second(&mut wheel));
    });
    group.finish();
}

fn outboxes(criterion: &mut Criterion) {
    let limits = OutboxLimits::new(1 << 20, 1 << 19, 4 << 20);
    let total = Total::default();
    let mut retained = Retained::new(&total);
    let mut group = criterion.benchmark_group("outbox");

    // A broadcast: a reference for each of 1,000 subscribers, then one send each.
    let frame = Frame::new(vec![0x61; 132], &total);
    let mut subscribers: Vec<Outbox> = (0..1000).map(|_| Outbox::new()).collect();
    let mut broadcast = |frames: usize, retained: &mut Retained| {
        let mut sent = 0;
        for outbox in &mut subscribers {
            for _ in 0..frames {
                let admission =
                    outbox.push(Chunk::Shared(frame.clone()), &limits, FullPolicy::DropOld, retained);
                debug_assert_eq!(admission, Admission::Queued);
            }
        }
        for outbox in &mut subscribers {
            sent += outbox.pieces().map(|piece| black_box(piece).len()).sum::<usize>();
            let _ = outbox.consume(outbox.sendable(), &limits, retained);
        }
        sent
    };
    for (frames, name) in [(1, "one frame to 1,000 subscribers"), (16, "16 frames to 1,000 subscribers")] {
        assert_eq!(broadcast(frames, &mut retained), 1000 * 132 * frames);
        assert_eq!(retained.bytes(), 0);
        group.throughput(Throughput::Elements(1000 * frames as u64));
        group.bench_function(name, |bencher| bencher.iter(|| broadcast(frames, &mut retained)));
    }

    // A peer that takes a little less than it is sent: the outbox never gets empty.
    group.throughput(Throughput::Elements(1));
    let mut slow = Outbox::new();
    let mut next = |retained: &mut Retained| {
        let admission = slow.append_copy(&[0x62; 68], End::Boundary, &limits, FullPolicy::Pause, retained);
        let resume = slow.buffered() > 50_000 && slow.consume(40_000, &limits, retained);
        (admission, resume)
    };
    for _ in 0..10_000 {
        assert_eq!(next(&mut retained), (Admission::Queued, false));
    }
    group.bench_function("append 68 bytes behind others", |bencher| bencher.iter(|| next(&mut retained)));

    // A slow subscriber of a topic: every message drops the oldest.
    let mut full = Outbox::new();
    let mut push = |retained: &mut Retained| {
        full.push(Chunk::Shared(frame.clone()), &limits, FullPolicy::DropOld, retained)
    };
    while push(&mut retained) == Admission::Queued {}
    assert_eq!(push(&mut retained), Admission::DroppedOld(1));
    group.bench_function("push to a full outbox, the oldest goes", |bencher| {
        bencher.iter(|| push(&mut retained));
    });
    group.finish();
}
