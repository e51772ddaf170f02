//! Who is in a topic.
//!
//! Invariant: a client is there while a session of it is subscribed, or a poller of its name was seen lately; it joins with
//! the first of these and leaves with the last.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::letter::Present;

/// Pollers name themselves, so their number has a bound for each topic.
const POLLERS: usize = 10_000;

/// The clients of one topic.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    clients: BTreeMap<Arc<str>, Client>,
    pollers: BTreeSet<(u64, Arc<str>)>,
}

#[derive(Debug)]
struct Client {
    info: Option<Box<str>>,
    sessions: u32,
    /// Until when it is there as a poller; 0: it is none.
    until_ms: u64,
}

impl Presence {
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
        if let Some(known) = self.clients.get_mut(client) {
            known.sessions += 1;
            return false;
        }
        self.clients.insert(client.into(), Client { info: info.map(Into::into), sessions: 1, until_ms: 0 });
        true
    }

    /// A session of a client went. Whether the client is not there any more.
    pub(crate) fn leave(&mut self, client: &str) -> bool {
        let Some(known) = self.clients.get_mut(client) else { return false };
        known.sessions = known.sessions.saturating_sub(1);
        if known.sessions > 0 || known.until_ms > 0 {
            return false;
        }
        self.clients.remove(client);
        true
    }

    /// A poller is there until then. Whether the client was not there before.
    pub(crate) fn attend(&mut self, client: &str, info: Option<&str>, until_ms: u64) -> bool {
        if let Some((name, known)) = self
            .clients
            .get_key_value(client)
            .map(|(name, _)| Arc::clone(name))
            .zip(self.clients.get_mut(client))
        {
            if known.until_ms == 0 && self.pollers.len() >= POLLERS {
                return false;
            }
            if known.until_ms > 0 {
                self.pollers.remove(&(known.until_ms, Arc::clone(&name)));
            }
            known.until_ms = known.until_ms.max(until_ms);
            if known.sessions == 0 && info.is_some() {
                known.info = info.map(Into::into);
            }
            self.pollers.insert((known.until_ms, name));
            return false;
        }
        if self.pollers.len() >= POLLERS {
            return false;
        }
        let name: Arc<str> = client.into();
        self.pollers.insert((until_ms, Arc::clone(&name)));
        self.clients.insert(name, Client { info: info.map(Into::into), sessions: 0, until_ms });
        true
    }

    pub(crate) fn next_deadline_ms(&self) -> Option<u64> {
        self.pollers.first().map(|(until_ms, _)| *until_ms)
    }

    /// A poller whose time is over; `Some(client)` where the client is not there any more.
    pub(crate) fn poll_expired(&mut self, now_ms: u64) -> Option<Option<Arc<str>>> {
        let (until_ms, _) = self.pollers.first()?;
        if *until_ms > now_ms {
            return None;
        }
        let (_, name) = self.pollers.pop_first()?;
        let Some(known) = self.clients.get_mut(&name) else { return Some(None) };
        known.until_ms = 0;
        if known.sessions > 0 {
            return Some(None);
        }
        self.clients.remove(&name);
        Some(Some(name))
    }

    /// The first so many.
    pub(crate) fn list(&self, most: usize) -> Vec<Present> {
        let present = |(name, client): (&Arc<str>, &Client)| Present {
            client: (&**name).into(),
            info: client.info.clone(),
        };
        self.clients.iter().take(most).map(present).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_joins_with_its_first_session_and_leaves_with_its_last() {
        let mut presence = Presence::default();
        assert!(presence.join("a", Some("1")));
        assert!(!presence.join("a", Some("2")));
        assert!(!presence.leave("a"));
        assert_eq!(presence.list(9), [Present { client: "a".into(), info: Some("1".into()) }]);
        assert!(presence.leave("a"));
        assert!(!presence.leave("a"));
        assert!(presence.is_empty());
    }

    #[test]
    fn a_poller_leaves_when_its_time_is_over_unless_a_session_of_it_is_there() {
        let mut presence = Presence::default();
        assert!(presence.attend("p", None, 100));
        assert!(!presence.attend("p", Some("2"), 200));
        assert_eq!(presence.next_deadline_ms(), Some(200), "the later request counts");
        assert_eq!(presence.poll_expired(199), None);
        assert!(!presence.join("p", None));
        assert_eq!(presence.poll_expired(200), Some(None));
        assert!(presence.leave("p"));

        assert!(presence.join("p", None));
        assert!(!presence.attend("p", None, 100));
        assert!(!presence.leave("p"), "it still polls");
        assert_eq!(presence.poll_expired(100), Some(Some("p".into())));
        assert_eq!((presence.len(), presence.next_deadline_ms()), (0, None));
    }

    #[test]
    fn names_that_pollers_invent_are_bounded() {
        let mut presence = Presence::default();
        for n in 0..POLLERS + 10 {
            presence.attend(&n.to_string(), None, 100);
        }
        assert_eq!(presence.len(), POLLERS);
    }
}
