//! Under which names requests are present, and where.
//!
//! Invariant: whoever a stream or a poll has brought departs a while behind its end, and a connection keeps no more pollers present than
//! [`POLLERS`], one of a trusted proxy than [`PROXY_POLLERS`], however many names it asks under. Names cost nothing, connections
//! do.

use std::collections::VecDeque;

use tidegate_hub::{TopicName, protocol::MAX_TOPICS};
use tidegate_io::Backend;
use tidegate_registry::Key;

use super::{Topics, feed::Wanted, member::Attendance};
use crate::{environment::Environment, shard::Shard};

/// How long somebody is present behind its last request: a browser comes back.
pub(super) const PRESENT_MS: u64 = 30_000;

/// Names and topics in which a connection keeps pollers present at one time: as many as one request may have topics.
const POLLERS: usize = MAX_TOPICS;

/// The same for a trusted proxy's connection, which polls for many: each is kept by the one that it was asked over last.
const PROXY_POLLERS: usize = 64 * POLLERS;

/// A poller that a connection has made present.
pub(super) struct Poller {
    client: Box<str>,
    topic: TopicName,
    until_ms: u64,
}

impl Topics {
    /// A request, perhaps over a trusted proxy's connection, is about to be present in its topics.
    pub(super) fn attend(&mut self, key: Key, wanted: &Wanted<'_>, is_proxy: bool, now_ms: u64) {
        let Some(presence) = &wanted.presence else { return };
        let attended = wanted.topics.iter().filter(|text| presence.is_in(text));
        let topics: Vec<TopicName> = attended.filter_map(|text| TopicName::parse(text).ok()).collect();
        if topics.is_empty() {
            return;
        }
        if let Some(member) = self.member_mut(key) {
            let topics = topics.clone();
            member.attends = Some(Box::new(Attendance { key, client: presence.client.into(), topics }));
        }
        if presence.until_ms == u64::MAX {
            return;
        }
        let pollers = self.pollers.entry(key).or_default();
        pollers.retain(|poller| {
            poller.until_ms > now_ms
                && !(*poller.client == *presence.client && topics.contains(&poller.topic))
        });
        for topic in topics {
            let (client, until_ms) = (presence.client.into(), presence.until_ms);
            pollers.push_back(Poller { client, topic, until_ms });
        }
        let most = if is_proxy { PROXY_POLLERS } else { POLLERS };
        let more = pollers.len().saturating_sub(most);
        for Poller { client, topic, .. } in pollers.drain(..more) {
            self.hub.depart(&topic, &client, key, now_ms, now_ms);
        }
    }

    /// A connection is gone. Whom it has made present stays for its time.
    pub(crate) fn forget_pollers(&mut self, key: Key) {
        self.pollers.remove(&key);
        if self.pollers.is_empty() {
            self.pollers.shrink_to_fit();
        }
    }
}

impl<B: Backend, E: Environment> Shard<B, E> {
    /// Who goes by a name is present for a while behind the end of its stream, or the answer to its poll.
    pub(super) fn tell_departures(&mut self) {
        let now_ms = self.now_ms;
        let Some(topics) = &mut self.topics else { return };
        for Attendance { key, client, topics: names } in topics.departed.drain(..) {
            for topic in &names {
                topics.hub.depart(topic, &client, key, now_ms + PRESENT_MS, now_ms);
            }
        }
    }
}

/// By connection.
pub(super) type Pollers = std::collections::HashMap<Key, VecDeque<Poller>>;
