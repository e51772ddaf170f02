//! Keys against a map, and what an idle session costs.

use std::collections::HashMap;

use proptest::prelude::*;
use tidegate_registry::{Batch, Full, Key, OVERHEAD_BYTES, Outbox, Registry, Timer, Verdict, Wheel, jitter};

#[derive(Clone, Debug)]
enum Step {
    Insert,
    Remove(prop::sample::Index),
    Change(prop::sample::Index),
    Pair(prop::sample::Index, prop::sample::Index),
}

proptest! {
    #[test]
    fn it_does_what_the_map_does(steps in prop::collection::vec(
        prop_oneof![
            4 => Just(Step::Insert),
            3 => any::<prop::sample::Index>().prop_map(Step::Remove),
            1 => any::<prop::sample::Index>().prop_map(Step::Change),
            1 => any::<(prop::sample::Index, prop::sample::Index)>().prop_map(|(one, other)| Step::Pair(one, other)),
        ],
        1..300,
    )) {
        const CAPACITY: u32 = 12;
        let mut registry = Registry::with_capacity(CAPACITY);
        let mut model: HashMap<Key, usize> = HashMap::new();
        // Every key there ever was: most of them stale.
        let mut keys: Vec<Key> = Vec::new();
        for (value, step) in steps.into_iter().enumerate() {
            match step {
                Step::Insert => match registry.insert(value) {
                    Ok(key) => {
                        prop_assert!(!keys.contains(&key), "{key:?} was given out twice");
                        keys.push(key);
                        model.insert(key, value);
                    }
                    Err(Full(back)) => {
                        prop_assert_eq!(back, value);
                        prop_assert_eq!(model.len(), CAPACITY as usize);
                    }
                },
                Step::Remove(index) if !keys.is_empty() => {
                    let key = *index.get(&keys);
                    prop_assert_eq!(registry.remove(key), model.remove(&key));
                }
                Step::Change(index) if !keys.is_empty() => {
                    let key = *index.get(&keys);
                    if let Some(place) = registry.get_mut(key) {
                        *place = value;
                    }
                    if let Some(place) = model.get_mut(&key) {
                        *place = value;
                    }
                }
                Step::Pair(one, other) if !keys.is_empty() => {
                    let (one, other) = (*one.get(&keys), *other.get(&keys));
                    let expected = match (model.get(&one), model.get(&other)) {
                        (Some(a), Some(b)) if one != other => Some((*a, *b)),
                        _ => None,
                    };
                    prop_assert_eq!(registry.pair_mut(one, other).map(|(a, b)| (*a, *b)), expected);
                }
                Step::Remove(_) | Step::Change(_) | Step::Pair(..) => {}
            }
            prop_assert_eq!(registry.len(), model.len());
            for key in &keys {
                prop_assert_eq!(registry.get(*key), model.get(key));
                prop_assert_eq!(registry.contains(*key), model.contains_key(key));
                prop_assert_eq!(Key::from_bits(key.to_bits()), *key);
                prop_assert!(key.to_bits() >> Key::BITS == 0);
            }
            let all: HashMap<Key, usize> = registry.iter().map(|(key, value)| (key, *value)).collect();
            prop_assert_eq!(&all, &model);
            let again: HashMap<Key, usize> = registry.iter_mut().map(|(key, value)| (key, *value)).collect();
            prop_assert_eq!(&again, &model);
            let by_slot = (0..registry.slots()).filter_map(|index| registry.key_at(index)).count();
            prop_assert_eq!(by_slot, model.len());
        }
    }

    #[test]
    fn no_bits_at_all_resolve_wrongly(bits: u64) {
        let mut registry = Registry::with_capacity(4);
        let live: Vec<Key> = (0..3).map(|value| registry.insert(value).unwrap()).collect();
        let key = Key::from_bits(bits);
        prop_assert_eq!(registry.contains(key), live.contains(&key));
        prop_assert_eq!(Key::from_bits(live[1].to_bits() | bits << Key::BITS), live[1], "the upper byte is the ring's");
    }

    #[test]
    fn jitter_shortens_by_a_quarter_at_most(bits: u64, interval: u64, seed: u64) {
        let key = Key::from_bits(bits);
        let jittered = jitter(key, interval, seed);
        prop_assert!(jittered <= interval && jittered >= interval - interval / 4);
        prop_assert_eq!(jitter(key, interval, seed), jittered);
    }
}

#[test]
fn keys_of_empty_and_vacant_slots_resolve_to_nothing() {
    let mut registry = Registry::with_capacity(2);
    for bits in [0, 1, 1 << 32, (1 << 32) | 1, u64::MAX] {
        assert!(!registry.contains(Key::from_bits(bits)), "{bits:#x} in an empty registry");
    }
    let key = registry.insert('a').unwrap();
    registry.remove(key);
    // The next tenant's key, before there is one.
    let next = Key::from_bits(key.to_bits() + (1 << 32));
    assert_eq!((registry.get(next), registry.contains(next)), (None, false));
    assert_eq!(registry.remove(next), None);
    assert_eq!(registry.insert('b').unwrap(), next, "the slot is used again, last in first out");
}

#[test]
fn jitter_is_spread_evenly() {
    let mut bins = [0; 10];
    for index in 0..10_000_u64 {
        let jittered = jitter(Key::from_bits(1 << 32 | index), 4000, 42);
        bins[(jittered as usize - 3000).min(999) / 100] += 1;
    }
    assert!(bins.iter().all(|&count| (850..1150).contains(&count)), "{bins:?}");
}

#[test]
fn what_is_due_comes_by_kind_and_lazily() {
    struct Session {
        heard_ms: u64,
        timer: Option<Timer>,
    }
    let mut sessions = Registry::with_capacity(10);
    let mut wheel = Wheel::new(0, 10);
    let mut keys = Vec::new();
    let all = [Some(Timer::Ping), Some(Timer::Ping), Some(Timer::Close), None, Some(Timer::Head)];
    for (n, timer) in all.into_iter().enumerate() {
        // The second one spoke since its deadline was set.
        let key = sessions.insert(Session { heard_ms: if n == 1 { 700 } else { 0 }, timer }).unwrap();
        wheel.schedule(key.index(), 1000);
        keys.push(key);
    }
    // The last one is gone, and its deadline was left behind.
    sessions.remove(keys[4]);

    let mut batch = Batch::new();
    let mut judge = |_: Key, session: &mut Session| match session.timer {
        None => Verdict::Nothing,
        Some(Timer::Ping) if session.heard_ms > 0 => Verdict::Later(session.heard_ms + 1000),
        Some(timer) => Verdict::Fire(timer),
    };
    batch.fill(900, &mut wheel, &mut sessions, &mut judge);
    assert!(batch.is_empty());
    batch.fill(1020, &mut wheel, &mut sessions, &mut judge);
    assert_eq!(batch.pings, [keys[0]]);
    assert_eq!(batch.others, [(keys[2], Timer::Close)]);
    assert_eq!(wheel.deadline(keys[1].index()), Some(1700), "looked at again then");
    assert_eq!(wheel.len(), 1);
    batch.fill(1020, &mut wheel, &mut sessions, &mut judge);
    assert!(batch.is_empty());
}

#[test]
fn sizes() {
    assert_eq!((size_of::<Key>(), size_of::<Option<Key>>()), (8, 8));
    assert!(size_of::<Outbox>() <= 16, "{}", size_of::<Outbox>());
    assert_eq!(OVERHEAD_BYTES, 28, "tag, generation, links");

    // A slab's entry has this shape; a session of 128 bytes with all that hangs off it stays far below 192.
    #[expect(dead_code, reason = "for its size")]
    enum Entry<T> {
        Vacant(usize),
        Occupied(T),
    }
    #[expect(dead_code, reason = "for its size")]
    struct WithNiche([u64; 14], Outbox);
    assert_eq!(size_of::<WithNiche>(), 128);
    assert_eq!(size_of::<Entry<WithNiche>>(), 128, "the tag lies in the outbox's niche");
    assert_eq!(size_of::<Entry<[u64; 16]>>() - 128, size_of::<usize>(), "without a niche it takes a word");
    const { assert!(128 + OVERHEAD_BYTES <= 192) };
}

/// Resident bytes of this process that belong to no file.
#[cfg(target_os = "linux")]
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let fields: Vec<usize> = statm.split(' ').filter_map(|field| field.trim().parse().ok()).collect();
    (fields[1] - fields[2]) * 4096
}

#[test]
#[cfg(target_os = "linux")]
fn what_is_reserved_is_not_resident() {
    let before = resident();
    let mut registry: Registry<[u64; 16]> = Registry::with_capacity(4_000_000);
    let mut wheel = Wheel::new(0, 4_000_000);
    for _ in 0..100 {
        let key = registry.insert([7; 16]).unwrap();
        wheel.schedule(key.index(), 1000);
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes of {} reserved ones", 4_000_000 * 156);
    assert_eq!(registry.capacity(), 4_000_000);
}
