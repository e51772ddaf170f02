//! The configuration as the shards use it: a generation is made once and shared by all, and the next one takes its place.
//!
//! Invariant: a route that sessions go on with keeps its number ([`RouteId`]) from one generation to the next, and what is counted
//! for it. A number is given to another route only when no shard counts a session of the one before any more, and so is the place of an
//! upstream within its route. Connections of it that have had their last answer, and are kept alive or linger, may carry the number yet:
//! nothing may be kept by it that they could take along to the other route.

mod changes;
mod drains;
mod next;
mod route;
mod slot;
mod topics;

use std::{
    cmp,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
};

use tidegate_config::{Config, DEFAULT_MEMORY_BYTES, Drain, Limits};
use tidegate_hub::{Hub, RouteId, Routes, TopicRules};
use tidegate_identity::Identity;
use tidegate_io::{Address, ListenerId};
use tidegate_registry::{Charge, Retained, Total};
use tidegate_tls::ClientConfig;
use tidegate_wire::{deflate::CodecLimits, http::HeadLimits};

pub use self::{changes::Changes, next::NoSuccessor, route::Addresses};
use self::{
    drains::Drains,
    topics::{has_topics, topic_rules},
};
pub(crate) use self::{
    route::{ProxyPlan, RoutePlan},
    slot::{Retired, Slot},
};
use crate::{addresses::AddressTable, proxy::PING_MARK};

/// The gateway's own ping on a client's leg: the same for all of them, sent from where it lies. FIN and opcode 9, no
/// mask, and the payload that marks it (RFC 6455 §5.5.2).
pub(crate) const PING: [u8; 2 + PING_MARK.len()] = {
    let mut frame = [0; 2 + PING_MARK.len()];
    frame[0] = 0x89;
    frame[1] = PING_MARK.len() as u8;
    frame.split_at_mut(2).1.copy_from_slice(PING_MARK);
    frame
};

/// What all shards share: one generation of the configuration.
pub struct Plan {
    /// Counts from 1.
    generation: u64,
    config: Config,
    routes: Routes,
    /// By route.
    slots: Vec<Slot>,
    head: HeadLimits,
    /// As the configuration has them.
    identities: Vec<Arc<Identity>>,
    /// Where a route has topics, or one had some.
    topics: Option<Arc<TopicRules>>,
    /// Whether some route's tokens take long to judge.
    has_costly_identities: bool,
    /// Whether a listener asks its clients for certificates, or one of an earlier generation has: sessions may have shown theirs.
    has_asked_for_certificates: bool,
    shared: Arc<Shared>,
}

/// What is the same for all generations.
struct Shared {
    total: Total,
    /// What client addresses have.
    addresses: AddressTable,
    /// For each shard what waits for its worst subscriber, as far as it was looked for.
    worst: Box<[AtomicUsize]>,
    shards: usize,
    /// Whether registries have room for upstream legs beside all sessions.
    has_legs: bool,
    /// How many routes there have been.
    serials: AtomicU32,
    /// What is to get no sessions.
    drains: Drains,
}

/// An upstream that is given by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedUpstream {
    /// The route's number.
    pub route: usize,
    /// Its place in the route.
    pub upstream: usize,
    /// Its name.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How often it is resolved, in ms.
    pub interval_ms: u64,
    /// What is known of it already.
    pub known: Addresses,
}

impl Plan {
    /// The first generation of a configuration for so many shards.
    ///
    /// # Panics
    /// Where `config` was not validated by `tidegate-config`, or has keys that [`tidegate_identity::identities`] refuses.
    pub fn new(config: Config, shards: usize) -> Arc<Plan> {
        Plan::with_limits(config, shards, &[], |_| {})
    }

    /// The same with upstreams that speak TLS. `clients`: for each route of the configuration how it does so towards them.
    ///
    /// # Panics
    /// As [`Plan::new`].
    pub fn with_clients(config: Config, shards: usize, clients: &[Option<ClientConfig>]) -> Arc<Plan> {
        Plan::with_limits(config, shards, clients, |_| {})
    }

    /// The same where hubs have limits that no configuration can ask for, for tests.
    #[doc(hidden)]
    pub fn with_limits(
        config: Config,
        shards: usize,
        clients: &[Option<ClientConfig>],
        change: impl FnOnce(&mut tidegate_hub::Limits),
    ) -> Arc<Plan> {
        let routes = Routes::new(&config);
        let serials = AtomicU32::new(0);
        let identities = tidegate_identity::identities(&config).expect("validated");
        let shards = shards.max(1);
        let slots = config.routes.iter().enumerate().map(|(place, route)| {
            let identity = route.identity.map(|place| Arc::clone(&identities[place]));
            let client = clients.get(place).cloned().flatten();
            Slot::new(RoutePlan::new(route, identity, client, None, &|_| None, &serials, shards))
        });
        let slots: Vec<Slot> = slots.collect();
        let topics = config
            .routes
            .iter()
            .any(|route| has_topics(&route.action))
            .then(|| topic_rules(&config.topics, change).into());
        let shared = Shared {
            total: Total::default(),
            addresses: AddressTable::new(),
            worst: (0..shards).map(|_| AtomicUsize::new(0)).collect(),
            shards,
            has_legs: slots.iter().any(|slot| slot.plan().proxy.is_some()),
            serials,
            drains: Drains::default(),
        };
        let head = head_limits(&config.limits);
        let has_costly_identities = slots.iter().any(Slot::is_costly);
        let shared = Arc::new(shared);
        Arc::new(Plan {
            generation: 1,
            routes,
            slots,
            head,
            identities,
            topics,
            has_costly_identities,
            has_asked_for_certificates: asks_for_certificates(&config),
            shared,
            config,
        })
    }

    /// Which generation it is, the first being 1.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The configuration that it was made of.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The identities of the configuration, in its order.
    pub fn identities(&self) -> &[Arc<Identity>] {
        &self.identities
    }

    /// The routes of the configuration, in its order, with the numbers that sessions, reports and the log have for them.
    pub fn numbered_routes(&self) -> impl Iterator<Item = (u16, &tidegate_config::Route)> {
        self.routes.all().map(|(id, route)| (id.0, route))
    }

    /// The upstreams of the configuration: their route's number, their place there, and their URL.
    pub fn upstreams(&self) -> impl Iterator<Item = (u16, u16, &str)> {
        let here = (0..=u16::MAX).zip(&self.slots).filter(|(_, slot)| slot.retired().is_none());
        here.flat_map(|(number, slot)| {
            let proxy = slot.plan().proxy.iter();
            let all = proxy.flat_map(|proxy| proxy.upstreams.iter().zip(&proxy.gone));
            let present = (0..=u16::MAX).zip(all).filter(|(_, (_, gone))| gone.is_none());
            present.map(move |(place, (upstream, _))| (number, place, upstream.name.as_str()))
        })
    }

    /// An upstream as it stands in the configuration, by its route's number and its place there as reports have them.
    pub fn upstream_name(&self, route: u16, upstream: u16) -> Option<&str> {
        let proxy = self.slots.get(usize::from(route))?.plan().proxy.as_ref()?;
        proxy.upstreams.get(usize::from(upstream)).map(|upstream| upstream.name.as_str())
    }

    /// Bytes that wait to be sent, what is held of what has not come whole, and what topics hold, over all shards: what the setting
    /// `memory` bounds.
    pub fn retained_bytes(&self) -> usize {
        self.shared.total.bytes()
    }

    /// The same without what topics hold, be it that some of it waits for subscribers: histories are no sign of who is slow.
    pub fn buffered_bytes(&self) -> usize {
        let (_, _, topics_bytes) = self.topics_held();
        // Shards count on meanwhile.
        self.retained_bytes().saturating_sub(topics_bytes)
    }

    /// Connections that are counted for their addresses now.
    pub fn counted_connections(&self) -> usize {
        self.shared.addresses.connections()
    }

    /// Sessions of a route now, by its number.
    ///
    /// # Panics
    /// Where there is no such route.
    pub fn route_sessions(&self, route: usize) -> usize {
        self.slots[route].plan().sessions()
    }

    pub(crate) fn addresses(&self) -> &AddressTable {
        &self.shared.addresses
    }

    /// Whether so much waits in memory that no session may come.
    pub(crate) fn is_out_of_memory(&self) -> bool {
        self.shared.total.bytes() >= self.memory_bytes()
    }

    /// How much may wait in memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        let most = self.config.limits.memory_bytes;
        most.unwrap_or(DEFAULT_MEMORY_BYTES + self.config.topics.memory_bytes)
    }

    /// How many shards there are.
    pub(crate) fn shards(&self) -> usize {
        self.shared.shards
    }

    /// Counts bytes that wait, as long as what it gives is there.
    pub(crate) fn charge(&self, bytes: usize) -> Charge {
        Charge::new(&self.shared.total, bytes)
    }

    /// Says how much of the topics' memory a shard's worst subscriber has.
    pub(crate) fn say_worst(&self, shard: u16, bytes: usize) {
        self.shared.worst[usize::from(shard)].store(bytes, Ordering::Relaxed);
    }

    /// Whether that is the worst of all, as far as the others have said theirs. Of those with equal bytes it is the first.
    pub(crate) fn has_worst(&self, shard: u16) -> bool {
        let bytes = |shard: usize| self.shared.worst[shard].load(Ordering::Relaxed);
        let own = usize::from(shard);
        (0..self.shared.worst.len()).all(|other| match other.cmp(&own) {
            cmp::Ordering::Less => bytes(other) < bytes(own),
            cmp::Ordering::Equal => true,
            cmp::Ordering::Greater => bytes(other) <= bytes(own),
        })
    }

    /// What all topics hold: their number, that of subscriptions, and the bytes of publications.
    pub fn topics_held(&self) -> (usize, usize, usize) {
        self.topics
            .as_ref()
            .map_or((0, 0, 0), |rules| (rules.topics(), rules.subscriptions(), rules.held_bytes()))
    }

    /// The upstreams that are given by name.
    pub fn names(&self) -> impl Iterator<Item = NamedUpstream> {
        let present = self.routes.all().filter_map(|(id, _)| Some((id, self.route(id).proxy.as_deref()?)));
        present.flat_map(|(id, proxy)| {
            proxy.names().map(move |(upstream, host, port)| NamedUpstream {
                route: id.index(),
                upstream,
                host: host.to_owned(),
                port,
                interval_ms: proxy.settings.resolve_interval_ms,
                known: Addresses::clone(&proxy.upstreams[upstream].addresses()),
            })
        })
    }

    /// Replaces what is known of an upstream's addresses; [`crate::Mail::Resolved`] tells the shards.
    ///
    /// # Panics
    /// Where there is no such upstream.
    pub fn set_addresses(&self, route: usize, upstream: usize, addresses: Vec<Address>) {
        let proxy = self.slots[route].plan().proxy.as_ref().expect("a route with upstreams");
        proxy.upstreams[upstream].set_addresses(Addresses::Known(addresses));
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.config.limits
    }

    pub(crate) fn drain(&self) -> &Drain {
        &self.config.drain
    }

    pub(crate) fn head_limits(&self) -> &HeadLimits {
        &self.head
    }

    pub(crate) fn routes(&self) -> &Routes {
        &self.routes
    }

    pub(crate) fn route(&self, id: RouteId) -> &RoutePlan {
        self.slots[id.index()].plan()
    }

    pub(crate) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    pub(crate) fn has_costly_identities(&self) -> bool {
        self.has_costly_identities
    }

    /// Whether registries have room for upstream legs beside all sessions.
    pub(crate) fn has_legs(&self) -> bool {
        self.shared.has_legs
    }

    pub(crate) fn trusts(&self, ip: IpAddr) -> bool {
        self.config.trusted.iter().any(|network| network.contains(&ip))
    }

    /// Whether a connection has to begin with a PROXY header. Listeners go by their place in the configuration.
    pub(crate) fn wants_proxy_header(&self, listener: ListenerId, ip: IpAddr) -> bool {
        let listener = self.config.listeners.get(usize::from(listener.0));
        listener.is_some_and(|listener| listener.proxy_protocol.iter().any(|network| network.contains(&ip)))
    }

    pub(crate) fn retained(&self) -> Retained {
        Retained::new(&self.shared.total)
    }

    pub(crate) fn topic_rules(&self) -> Option<&Arc<TopicRules>> {
        self.topics.as_ref()
    }

    /// A shard's part of the topics, where routes have any. `seed`: random bits.
    pub(crate) fn hub(&self, shard: u16, seed: impl FnOnce() -> u64) -> Option<Hub> {
        let rules = Arc::clone(self.topics.as_ref()?);
        let shards = u16::try_from(self.shared.shards).expect("the configuration bounds the shards");
        Some(Hub::new(shard, shards, rules, seed(), &self.shared.total))
    }

    pub(crate) fn codec_limits(&self) -> CodecLimits {
        let limits = &self.config.limits;
        CodecLimits {
            inflaters: limits.inflaters,
            deflaters: limits.deflaters,
            takeover_bytes: limits.takeover_bytes / self.shared.shards,
            level: limits.compression_level,
        }
    }
}

fn asks_for_certificates(config: &Config) -> bool {
    config.listeners.iter().flat_map(|listener| &listener.tls).any(|tls| tls.client_ca.is_some())
}

fn head_limits(limits: &Limits) -> HeadLimits {
    HeadLimits {
        head_bytes: limits.head_bytes,
        request_line_bytes: limits.request_line_bytes,
        fields: limits.head_fields,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_shard_alone_has_the_worst_subscriber() {
        let text = "version = 1\n[[listener]]\nbind = \"127.0.0.1:9001\"\n\
                    [[route]]\npath = \"/poll\"\npoll = { subscribe = [\"**\"] }\n";
        let config = tidegate_config::parse(text, "test.toml");
        let plan = Plan::new(config.expect("a valid configuration"), 3);
        let worst = |plan: &Plan| [0, 1, 2].map(|shard| plan.has_worst(shard));
        for (said, has) in [
            ([0, 7, 3], [false, true, false]),
            ([7, 7, 7], [true, false, false]),
            ([1, 7, 7], [false, true, false]),
            ([7, 3, 8], [false, false, true]),
        ] {
            for (shard, bytes) in said.into_iter().enumerate() {
                plan.say_worst(shard as u16, bytes);
            }
            assert_eq!(worst(&plan), has, "{said:?}");
        }
    }
}
