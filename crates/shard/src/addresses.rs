//! What each client address has of the process: its connections, and how many it has begun of late.
//!
//! One table for all shards, looked at when a connection comes and when it is over. Its locks are held for the time of a few
//! memory accesses, and there are many of them.
//!
//! Invariant: an address that has connections, or has begun more than it may have been forgotten for, is never left out of the
//! table to make room. So nobody can have an address's count forgotten by coming from many others.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tidegate_config::AddressLimits;

use crate::bucket::{Bucket, Rate};

/// Locks of the table, each with its part of the addresses.
const PARTS: usize = 64;

/// Most addresses in a part: 262,144 in all, of some 40 bytes each.
const PART_MOST: usize = 4096;

/// How often at most a full part is searched for addresses that can be forgotten.
const SWEEP_MS: u64 = 100;

/// Who counts as one client: an IPv4 address, or the /64 that a subscriber has all of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Origin {
    V4(u32),
    V6(u64),
}

impl Origin {
    pub(crate) fn of(ip: IpAddr) -> Origin {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Origin::V4(ip.to_bits()),
            IpAddr::V6(ip) => Origin::V6((ip.to_bits() >> 64) as u64),
        }
    }
}

/// Why a connection is refused for its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Excessive {
    /// It has as many as it may have.
    Sessions,
    /// It begins them too fast.
    Handshakes,
}

/// Whether a connection that may come has its place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    /// It has: [`AddressTable::leave`] follows.
    Yes,
    /// There was no place left.
    No,
}

/// The table.
#[derive(Debug)]
pub(crate) struct AddressTable {
    parts: Box<[Mutex<Part>]>,
    /// Nobody outside knows which addresses share a part.
    hashes: RandomState,
}

#[derive(Debug, Default)]
struct Part {
    entries: HashMap<Origin, Entry>,
    swept_ms: u64,
    /// The latest generation of the configuration that anybody came by.
    generation: u64,
    /// What handshakes are counted by, which is that one's.
    rate: Option<Rate>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    connections: u32,
    handshakes: Bucket,
}

impl Entry {
    fn is_idle(&self, now_ms: u64) -> bool {
        self.connections == 0 && self.handshakes.is_full(now_ms)
    }
}

impl AddressTable {
    pub(crate) fn new() -> AddressTable {
        AddressTable { parts: (0..PARTS).map(|_| Mutex::default()).collect(), hashes: RandomState::new() }
    }

    /// A connection comes, by the limits of this generation of the configuration. Where it may not, it does not count; a handshake that
    /// comes too fast does not make it worse.
    pub(crate) fn enter(
        &self,
        origin: Origin,
        limits: &AddressLimits,
        generation: u64,
        now_ms: u64,
    ) -> Result<Counted, Excessive> {
        let mut part = self.part(origin);
        part.follow(limits, generation, now_ms);
        let rate = part.rate;
        if !part.has_room_for(origin, now_ms) {
            return Ok(Counted::No);
        }
        let entry = part.entries.entry(origin).or_default();
        if rate.is_some_and(|rate| !entry.handshakes.spend(1, &rate, now_ms)) {
            return Err(Excessive::Handshakes);
        }
        if limits.sessions != 0 && entry.connections >= limits.sessions {
            return Err(Excessive::Sessions);
        }
        entry.connections += 1;
        Ok(Counted::Yes)
    }

    /// A connection that was counted is over.
    pub(crate) fn leave(&self, origin: Origin, now_ms: u64) {
        let mut part = self.part(origin);
        let Some(entry) = part.entries.get_mut(&origin) else { return };
        debug_assert!(entry.connections > 0, "who leaves has come");
        entry.connections = entry.connections.saturating_sub(1);
        if entry.is_idle(now_ms) {
            part.entries.remove(&origin);
        }
    }

    /// Connections that are counted, of all addresses.
    pub(crate) fn connections(&self) -> usize {
        let parts = self.parts.iter().map(|part| part.lock().unwrap_or_else(PoisonError::into_inner));
        parts.map(|part| part.entries.values().map(|entry| entry.connections as usize).sum::<usize>()).sum()
    }

    fn part(&self, origin: Origin) -> MutexGuard<'_, Part> {
        let place = self.hashes.hash_one(origin) as usize % PARTS;
        // Whoever panicked with it held has left whole numbers behind.
        self.parts[place].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Part {
    /// Counts handshakes by the rate of the latest generation. Shards that have not taken it over yet count by that, too: nothing is
    /// counted by one rate and then by the other in turns.
    fn follow(&mut self, limits: &AddressLimits, generation: u64, now_ms: u64) {
        if generation <= self.generation {
            return;
        }
        self.generation = generation;
        let rate = Rate::per_second(limits.handshakes_per_second.into(), limits.burst_handshakes.into());
        if rate != self.rate {
            for entry in self.entries.values_mut() {
                entry.handshakes.change_rate(self.rate.as_ref(), rate.as_ref(), now_ms);
            }
            self.rate = rate;
        }
    }

    /// Whether an address is here or can be. Of a full part those are forgotten of which nothing has to be known.
    fn has_room_for(&mut self, origin: Origin, now_ms: u64) -> bool {
        if self.entries.len() < PART_MOST || self.entries.contains_key(&origin) {
            return true;
        }
        if now_ms < self.swept_ms + SWEEP_MS {
            return false;
        }
        self.swept_ms = now_ms;
        self.entries.retain(|_, entry| !entry.is_idle(now_ms));
        self.entries.len() < PART_MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: AddressLimits =
        AddressLimits { sessions: 3, handshakes_per_second: 10, burst_handshakes: 5, exempt: Vec::new() };

    fn origin(text: &str) -> Origin {
        Origin::of(text.parse().expect("an address"))
    }

    #[test]
    fn a_64_is_one_client_and_an_ipv4_address_is() {
        assert_eq!(origin("2001:db8::1"), origin("2001:db8::ffff:1:2:3"));
        assert_ne!(origin("2001:db8::1"), origin("2001:db8:0:1::1"));
        assert_ne!(origin("192.0.2.1"), origin("192.0.2.2"));
        assert_eq!(origin("::ffff:192.0.2.1"), origin("192.0.2.1"));
        assert_ne!(origin("::192.0.2.1"), origin("192.0.2.1"));
    }

    #[test]
    fn an_address_has_so_many_connections_and_no_more() {
        let table = AddressTable::new();
        let one = origin("192.0.2.1");
        for _ in 0..3 {
            assert_eq!(table.enter(one, &LIMITS, 1, 5_000), Ok(Counted::Yes));
        }
        assert_eq!(table.enter(one, &LIMITS, 1, 5_000), Err(Excessive::Sessions));
        assert_eq!(table.enter(origin("192.0.2.2"), &LIMITS, 1, 5_000), Ok(Counted::Yes));
        table.leave(one, 5_000);
        assert_eq!(table.enter(one, &LIMITS, 1, 5_000), Ok(Counted::Yes));
        assert_eq!(table.connections(), 4);
    }

    #[test]
    fn an_address_begins_so_many_in_a_second_also_where_they_are_over_at_once() {
        let table = AddressTable::new();
        let one = origin("192.0.2.1");
        let come = |from_ms: u64, to_ms: u64| {
            let come = (from_ms..to_ms).filter(|now_ms| match table.enter(one, &LIMITS, 1, *now_ms) {
                Ok(counted) => {
                    assert_eq!(counted, Counted::Yes);
                    table.leave(one, *now_ms);
                    true
                }
                Err(why) => {
                    assert_eq!(why, Excessive::Handshakes);
                    false
                }
            });
            come.count()
        };
        assert_eq!(come(5_000, 15_000), 5 + 99);
        assert_eq!(come(15_000, 16_000), 10);
    }

    #[test]
    fn nothing_is_kept_of_who_has_nothing() {
        let table = AddressTable::new();
        let one = origin("192.0.2.1");
        assert_eq!(table.enter(one, &LIMITS, 1, 5_000), Ok(Counted::Yes));
        table.leave(one, 6_000);
        assert!(table.parts.iter().all(|part| part.lock().expect("whole").entries.is_empty()));
    }

    #[test]
    fn a_full_table_forgets_nobody_who_is_busy() {
        let table = AddressTable::new();
        let busy = origin("192.0.2.1");
        for _ in 0..3 {
            assert_eq!(table.enter(busy, &LIMITS, 1, 5_000), Ok(Counted::Yes));
        }
        // As many as there are places, and more: what they owe is little, but it is known.
        let others = 0..(PARTS * PART_MOST * 5 / 4) as u64;
        let (mut counted, mut uncounted) = (0, 0);
        for net in others.clone() {
            match table.enter(Origin::V6(net), &LIMITS, 1, 5_000) {
                Ok(Counted::Yes) => {
                    table.leave(Origin::V6(net), 5_000);
                    counted += 1;
                }
                Ok(Counted::No) => uncounted += 1,
                Err(why) => panic!("{why:?}"),
            }
        }
        assert!(counted < PARTS * PART_MOST && uncounted > 0, "{counted} {uncounted}");
        assert_eq!(table.enter(busy, &LIMITS, 1, 5_000), Err(Excessive::Sessions));
        // A second later nobody else owes anything: there is room again.
        let again = others
            .filter(|net| table.enter(Origin::V6(net + (1 << 40)), &LIMITS, 1, 6_000) == Ok(Counted::Yes));
        assert!(again.count() > PARTS * PART_MOST / 2);
        assert_eq!(table.enter(busy, &LIMITS, 1, 60_000), Err(Excessive::Sessions));
        let most = table.parts.iter().map(|part| part.lock().expect("whole").entries.len()).max();
        assert!(most <= Some(PART_MOST), "{most:?}");
    }
}
