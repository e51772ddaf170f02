//! Who is in a topic.
//!
//! Invariant: a client is there while a session of it is subscribed, or something stays under its name; it joins with the
//! first of these and leaves with the last. Names of connections and names that clients give themselves are never the same
//! ([`ClientId::is_one`](crate::ClientId::is_one)): nobody comes or goes as somebody's connection. What is kept of all of them
//! counts as memory of topics, and in a part of that for presence.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tidegate_registry::{Key, Total};

use crate::{letter::Present, publication::Ledger};

/// What a client takes beside its name and what it says of itself. Measured by `tests/memory.rs`.
const CLIENT_COST: usize = 192;
/// What takes one that stays under a name. Measured by `tests/memory.rs`.
const STAY_COST: usize = 256;
/// So many requests are told apart that stay under one name at the same time; more of them do not make it stay longer.
const STAYS: usize = 16;
/// The time of what has no end yet.
const OPEN: u64 = u64::MAX;

/// Whose request it is that stays under a name: without it, who has not come could go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stayer {
    pub(crate) shard: u16,
    pub(crate) key: Key,
}

/// The clients of one topic.
#[derive(Debug)]
pub(crate) struct Presence {
    clients: BTreeMap<Arc<str>, Client>,
    /// What has an end, by that.
    ends: BTreeSet<(u64, Arc<str>, Stayer)>,
    bytes: usize,
    ledger: Arc<Ledger>,
    /// The process's, of presence alone.
    part: Total,
}

#[derive(Debug, Default)]
struct Client {
    info: Option<Box<str>>,
    sessions: u32,
    /// With their ends; those that are not [`OPEN`] stand in [`Presence::ends`].
    stays: Vec<(Stayer, u64)>,
}

impl Presence {
    pub(crate) fn new(ledger: &Arc<Ledger>, part: &Total) -> Self {
        Self {
            clients: BTreeMap::new(),
            ends: BTreeSet::new(),
            bytes: 0,
            ledger: Arc::clone(ledger),
            part: part.clone(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.clients.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    pub(crate) fn contains(&self, client: &str) -> bool {
        self.clients.contains_key(client)
    }

    /// A session of a client came. Whether the client was not there before.
    pub(crate) fn join(&mut self, client: &str, info: Option<&str>) -> bool {
        let name = self.find_or_insert(client);
        let known = self.clients.get_mut(&name).expect("it was found or inserted");
        known.sessions += 1;
        let is_new = known.sessions == 1 && known.stays.is_empty();
        if is_new {
            self.inform(&name, info);
        }
        is_new
    }

    /// A session of a client went. Whether the client is not there any more.
    pub(crate) fn leave(&mut self, client: &str) -> bool {
        let Some((name, _)) = self.clients.get_key_value(client) else { return false };
        let name = Arc::clone(name);
        if let Some(known) = self.clients.get_mut(&name) {
            known.sessions = known.sessions.saturating_sub(1);
        }
        self.forget_if_gone(&name)
    }

    /// Somebody stays under a name until then; [`u64::MAX`]: until it departs. Whether those who watch have something to
    /// learn: the client was not there before, or it says something else of itself.
    pub(crate) fn stay(&mut self, client: &str, info: Option<&str>, by: Stayer, until_ms: u64) -> bool {
        let is_new = !self.contains(client);
        let name = self.find_or_insert(client);
        self.put(&name, by, until_ms);
        let says_else = info.is_some() && self.inform(&name, info);
        is_new || says_else
    }

    /// Who stays under a name does so until then, or no more. Whether the client is not there any more.
    pub(crate) fn depart(&mut self, client: &str, by: Stayer, until_ms: u64, now_ms: u64) -> bool {
        let Some((name, known)) = self.clients.get_key_value(client) else { return false };
        let name = Arc::clone(name);
        // Who found no place when it came has nothing to leave.
        if !known.stays.iter().any(|(other, _)| *other == by) {
            return false;
        }
        if until_ms > now_ms {
            self.put(&name, by, until_ms);
            return false;
        }
        self.end(&name, |other, _| other == by);
        self.forget_if_gone(&name)
    }

    pub(crate) fn next_deadline_ms(&self) -> Option<u64> {
        self.ends.first().map(|(until_ms, ..)| *until_ms)
    }

    /// One whose time is over; `Some(client)` where the client is not there any more.
    pub(crate) fn poll_expired(&mut self, now_ms: u64) -> Option<Option<Arc<str>>> {
        let (until_ms, name, by) = self.ends.first()?;
        if *until_ms > now_ms {
            return None;
        }
        let (name, by) = (Arc::clone(name), *by);
        self.end(&name, |other, _| other == by);
        Some(self.forget_if_gone(&name).then_some(name))
    }

    /// The first so many, up to so many bytes of what is known of them.
    pub(crate) fn list(&self, most: usize, bytes: usize) -> Vec<Present> {
        let mut taken = 0;
        let fits = |(name, client): &(&Arc<str>, &Client)| {
            taken += name.len() + client.info.as_deref().map_or(0, str::len);
            taken <= bytes
        };
        let present = |(name, client): (&Arc<str>, &Client)| Present {
            client: (&**name).into(),
            info: client.info.clone(),
        };
        self.clients.iter().take(most).take_while(fits).map(present).collect()
    }

    fn find_or_insert(&mut self, client: &str) -> Arc<str> {
        if let Some((name, _)) = self.clients.get_key_value(client) {
            return Arc::clone(name);
        }
        let name: Arc<str> = client.into();
        self.clients.insert(Arc::clone(&name), Client::default());
        self.hold(CLIENT_COST + name.len());
        name
    }

    /// What a client says of itself now; whether that is something else than before.
    fn inform(&mut self, name: &Arc<str>, info: Option<&str>) -> bool {
        let Some(known) = self.clients.get_mut(name) else { return false };
        if known.info.as_deref() == info {
            return false;
        }
        let before = std::mem::replace(&mut known.info, info.map(Into::into));
        self.hold(info.map_or(0, str::len));
        self.release(before.map_or(0, |before| before.len()));
        true
    }

    /// In the place of what the same has before, and of all that ends no later.
    fn put(&mut self, name: &Arc<str>, by: Stayer, until_ms: u64) {
        self.end(name, |other, until| other == by || (until_ms != OPEN && until <= until_ms));
        let Some(known) = self.clients.get_mut(name) else { return };
        if known.stays.len() >= STAYS {
            return;
        }
        known.stays.push((by, until_ms));
        if until_ms != OPEN {
            self.ends.insert((until_ms, Arc::clone(name), by));
        }
        self.hold(STAY_COST);
    }

    fn end(&mut self, name: &Arc<str>, ends: impl Fn(Stayer, u64) -> bool) {
        let Some(known) = self.clients.get_mut(name) else { return };
        let before = known.stays.len();
        let deadlines = &mut self.ends;
        known.stays.retain(|&(by, until_ms)| {
            let is_over = ends(by, until_ms);
            if is_over && until_ms != OPEN {
                deadlines.remove(&(until_ms, Arc::clone(name), by));
            }
            !is_over
        });
        let ended = before - known.stays.len();
        self.release(ended * STAY_COST);
    }

    /// Whether it did.
    fn forget_if_gone(&mut self, name: &Arc<str>) -> bool {
        let is_gone = |client: &Client| client.sessions == 0 && client.stays.is_empty();
        if !self.clients.get(name).is_some_and(is_gone) {
            return false;
        }
        if let Some(client) = self.clients.remove(name) {
            self.release(CLIENT_COST + name.len() + client.info.map_or(0, |info| info.len()));
        }
        true
    }

    fn hold(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.ledger.hold(bytes);
        self.part.add(bytes);
    }

    fn release(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.ledger.release(bytes);
        self.part.subtract(bytes);
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.release(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn presence() -> (Presence, Total) {
        let (held, part) = (Total::default(), Total::default());
        let ledger = Ledger::new(&Total::default(), &held, &Total::default());
        (Presence::new(&ledger, &part), held)
    }

    fn by(number: u64) -> Stayer {
        Stayer { shard: 0, key: Key::from_bits(1 << 32 | number) }
    }

    #[test]
    fn a_client_joins_with_its_first_session_and_leaves_with_its_last() {
        let (mut presence, _) = presence();
        assert!(presence.join("a", Some("1")));
        assert!(!presence.join("a", Some("2")));
        assert!(!presence.leave("a"));
        assert_eq!(presence.list(9, 1_000), [Present { client: "a".into(), info: Some("1".into()) }]);
        assert!(presence.leave("a"));
        assert!(!presence.leave("a"));
        assert!(presence.is_empty());
    }

    #[test]
    fn a_poller_leaves_when_its_time_is_over() {
        let (mut presence, _) = presence();
        assert!(presence.stay("p", None, by(1), 100));
        assert!(!presence.stay("p", None, by(2), 200));
        assert_eq!(presence.next_deadline_ms(), Some(200), "the later request counts");
        assert_eq!(presence.poll_expired(199), None);
        assert!(!presence.stay("p", None, by(3), 150));
        assert_eq!(presence.poll_expired(150), Some(None), "another one is there longer");
        assert_eq!(presence.poll_expired(200), Some(Some("p".into())));
        assert_eq!((presence.len(), presence.next_deadline_ms()), (0, None));
    }

    #[test]
    fn who_has_not_come_cannot_go() {
        let (mut presence, _) = presence();
        assert!(presence.stay("p", None, by(1), OPEN));
        // Another one that found no place, or somebody who only says so.
        assert!(!presence.depart("p", by(2), 0, 10));
        assert!(!presence.depart("q", by(2), 0, 10));
        assert_eq!(presence.len(), 1);
        assert!(!presence.depart("p", by(1), 40, 10));
        assert_eq!(presence.next_deadline_ms(), Some(40));
        assert!(presence.depart("p", by(1), 10, 10));
        assert!(presence.is_empty());
    }

    #[test]
    fn who_comes_back_may_say_something_else() {
        let (mut presence, _) = presence();
        assert!(presence.stay("p", Some("1"), by(1), OPEN));
        assert!(!presence.depart("p", by(1), 30, 0));
        assert!(presence.stay("p", Some("2"), by(2), OPEN), "those who watch learn of it");
        assert!(!presence.stay("p", Some("2"), by(3), OPEN));
        assert!(!presence.stay("p", None, by(4), OPEN), "who says nothing takes nothing back");
        assert_eq!(presence.list(9, 1_000), [Present { client: "p".into(), info: Some("2".into()) }]);
    }

    #[test]
    fn of_many_who_say_much_as_many_are_listed_as_have_room() {
        let (mut presence, _) = presence();
        let info = "1".repeat(999);
        for name in ["a", "b", "c", "d"] {
            presence.join(name, Some(&info));
        }
        let listed = |most, bytes| presence.list(most, bytes).len();
        assert_eq!((listed(9, 4_000), listed(9, 3_999), listed(9, 2_000), listed(1, 4_000)), (4, 3, 2, 1));
    }

    #[test]
    fn all_that_is_kept_counts_until_it_is_gone() {
        let (mut presence, held) = presence();
        presence.join("a", Some("12345"));
        assert_eq!(held.bytes(), CLIENT_COST + 1 + 5);
        for n in 0..100 {
            presence.stay("p", Some(&"x".repeat(n as usize)), by(n), OPEN);
        }
        assert_eq!(held.bytes(), 2 * (CLIENT_COST + 1) + 5 + 99 + STAYS * STAY_COST);
        assert_eq!(presence.bytes, held.bytes());
        presence.stay("p", None, by(200), 50);
        for n in 0..100 {
            presence.depart("p", by(n), 60, 0);
        }
        while presence.poll_expired(60).is_some() {}
        assert_eq!(held.bytes(), CLIENT_COST + 1 + 5);
        drop(presence);
        assert_eq!(held.bytes(), 0);
    }
}
