//! The configuration as the shards use it: made once, shared by all.

use std::{
    cmp,
    net::IpAddr,
    sync::{Arc, atomic::AtomicUsize, atomic::Ordering},
};

use arc_swap::ArcSwap;
use tidegate_config::{
    Action, Config, DEFAULT_MEMORY_BYTES, Deflate, EchoDeflate, FullAction, Limits, Proxy, PublishAction,
    RouteLimits, SlowPolicy, Target, TopicsAction, Utf8,
};
use tidegate_hub::{Filter, Hub, RouteId, Routes, Rule, Slow, TopicRules, TopicSettings};
use tidegate_identity::Identity;
use tidegate_io::{Address, ListenerId};
use tidegate_registry::{Charge, FullPolicy, OutboxLimits, Retained, Total};
use tidegate_wire::{
    budget::ControlRule, close::CloseCode, deflate::CodecLimits, extension::DeflatePolicy,
    handshake::OriginRule, http::HeadLimits,
};

use crate::{addresses::AddressTable, meter::RateRule, proxy::PING_MARK};

/// The gateway's own ping on a client's leg: the same for all of them, sent from where it lies. FIN and opcode 9, no
/// mask, and the payload that marks it (RFC 6455 §5.5.2).
pub(crate) const PING: [u8; 2 + PING_MARK.len()] = {
    let mut frame = [0; 2 + PING_MARK.len()];
    frame[0] = 0x89;
    frame[1] = PING_MARK.len() as u8;
    frame.split_at_mut(2).1.copy_from_slice(PING_MARK);
    frame
};

/// What all shards share.
pub struct Plan {
    config: Config,
    routes: Routes,
    plans: Vec<RoutePlan>,
    head: HeadLimits,
    /// Where a route has topics.
    topics: Option<Arc<TopicRules>>,
    /// Whether some route's tokens take long to judge.
    has_costly_identities: bool,
    /// What client addresses have: the process's, whatever becomes of the rest.
    addresses: Arc<AddressTable>,
    total: Total,
    /// For each shard what waits for its worst subscriber, as far as it was looked for.
    worst: Box<[AtomicUsize]>,
    shards: usize,
}

/// A route's settings, ready for use.
pub(crate) struct RoutePlan {
    pub(crate) limits: RouteLimits,
    pub(crate) messages: tidegate_wire::Limits,
    pub(crate) control: ControlRule,
    pub(crate) outbox: OutboxLimits,
    pub(crate) full: FullPolicy,
    pub(crate) origins: Vec<OriginRule>,
    /// Of which its callers must show a token. New keys come with a new plan.
    pub(crate) identity: Option<Arc<Identity>>,
    pub(crate) subprotocols: Vec<String>,
    /// What the gateway itself may agree to with clients; `None`: nothing.
    pub(crate) deflate: Option<DeflatePolicy>,
    pub(crate) utf8: bool,
    pub(crate) proxy: Option<ProxyPlan>,
    /// Where its sessions speak of topics.
    pub(crate) topics: Option<TopicsAction>,
    /// Where it publishes.
    pub(crate) publish: Option<PublishAction>,
    /// What may wait for a subscriber before it counts as slow.
    pub(crate) session_bytes: usize,
    /// How fast its clients may speak; `None`: as fast as they can.
    pub(crate) rates: Option<RateRule>,
    /// Its sessions now, over all shards.
    sessions: Arc<AtomicUsize>,
}

/// A proxied route's upstreams.
pub(crate) struct ProxyPlan {
    pub(crate) settings: Proxy,
    pub(crate) upstreams: Vec<UpstreamPlan>,
    pub(crate) failure_code: CloseCode,
    /// Counts connections from `source` addresses, so that they take turns over all shards.
    turns: AtomicUsize,
}

/// One upstream.
pub(crate) struct UpstreamPlan {
    pub(crate) name: String,
    addresses: ArcSwap<Addresses>,
    /// Counts the sessions that began with its addresses, so that these take turns over all shards.
    turns: AtomicUsize,
}

/// What is known of an upstream's addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// Its name was not resolved yet.
    Unresolved,
    /// These; none where the name does not exist.
    Known(Vec<Address>),
}

impl Plan {
    /// The plan of a configuration for so many shards.
    ///
    /// # Panics
    /// Where `config` was not validated by `tidegate-config`, or has keys that [`tidegate_identity::identities`] refuses.
    pub fn new(config: Config, shards: usize) -> Arc<Plan> {
        Plan::with_limits(config, shards, |_| {})
    }

    /// The same where hubs have limits that no configuration can ask for, for tests.
    #[doc(hidden)]
    pub fn with_limits(
        config: Config,
        shards: usize,
        change: impl FnOnce(&mut tidegate_hub::Limits),
    ) -> Arc<Plan> {
        let limits = &config.limits;
        let head = HeadLimits {
            head_bytes: limits.head_bytes,
            request_line_bytes: limits.request_line_bytes,
            fields: limits.head_fields,
        };
        let routes = Routes::new(&config);
        let identities = tidegate_identity::identities(&config).expect("validated");
        let plans: Vec<RoutePlan> =
            config.routes.iter().map(|route| RoutePlan::new(route, &identities)).collect();
        let is_costly =
            |plan: &RoutePlan| plan.identity.as_ref().is_some_and(|identity| identity.is_costly());
        let has_costly_identities = plans.iter().any(is_costly);
        let topics = config
            .routes
            .iter()
            .any(|route| has_topics(&route.action))
            .then(|| topic_rules(&config.topics, change));
        let shards = shards.max(1);
        let worst = (0..shards).map(|_| AtomicUsize::new(0)).collect();
        let addresses = Arc::new(AddressTable::new());
        Arc::new(Plan {
            routes,
            plans,
            head,
            topics,
            has_costly_identities,
            addresses,
            total: Total::default(),
            worst,
            shards,
            config,
        })
    }

    /// The configuration that it was made of.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Bytes that wait to be sent, over all shards.
    pub fn retained_bytes(&self) -> usize {
        self.total.bytes()
    }

    /// Connections that are counted for their addresses now.
    pub fn counted_connections(&self) -> usize {
        self.addresses.connections()
    }

    /// Sessions of a route now, by its place in the configuration.
    ///
    /// # Panics
    /// Where there is no such route.
    pub fn route_sessions(&self, route: usize) -> usize {
        self.plans[route].sessions.load(Ordering::Relaxed)
    }

    pub(crate) fn addresses(&self) -> &AddressTable {
        &self.addresses
    }

    /// Whether so much waits in memory that no session may come.
    pub(crate) fn is_out_of_memory(&self) -> bool {
        let most = self.config.limits.memory_bytes;
        let most = most.unwrap_or(DEFAULT_MEMORY_BYTES + self.config.topics.memory_bytes);
        self.total.bytes() >= most
    }

    /// Counts bytes that wait, as long as what it gives is there.
    pub(crate) fn charge(&self, bytes: usize) -> Charge {
        Charge::new(&self.total, bytes)
    }

    /// Says how much of the topics' memory a shard's worst subscriber has.
    pub(crate) fn say_worst(&self, shard: u16, bytes: usize) {
        self.worst[usize::from(shard)].store(bytes, Ordering::Relaxed);
    }

    /// Whether that is the worst of all, as far as the others have said theirs. Of those with equal bytes it is the first.
    pub(crate) fn has_worst(&self, shard: u16) -> bool {
        let bytes = |shard: usize| self.worst[shard].load(Ordering::Relaxed);
        let own = usize::from(shard);
        (0..self.worst.len()).all(|other| match other.cmp(&own) {
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

    /// The upstreams that are given by name: route, upstream, name and port.
    pub fn names(&self) -> impl Iterator<Item = (usize, usize, &str, u16)> {
        self.plans.iter().enumerate().flat_map(|(route, plan)| {
            let upstreams = plan.proxy.iter().flat_map(|proxy| proxy.settings.upstreams.iter().enumerate());
            upstreams.filter_map(move |(place, upstream)| match &upstream.target {
                Target::Name { host, port } => Some((route, place, host.as_str(), *port)),
                Target::Address(_) | Target::Unix(_) => None,
            })
        })
    }

    /// Replaces what is known of an upstream's addresses; [`crate::Mail::Resolved`] tells the shards.
    ///
    /// # Panics
    /// Where there is no such upstream.
    pub fn set_addresses(&self, route: usize, upstream: usize, addresses: Vec<Address>) {
        let proxy = self.plans[route].proxy.as_ref().expect("a route with upstreams");
        proxy.upstreams[upstream].addresses.store(Arc::new(Addresses::Known(addresses)));
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.config.limits
    }

    pub(crate) fn head_limits(&self) -> &HeadLimits {
        &self.head
    }

    pub(crate) fn routes(&self) -> &Routes {
        &self.routes
    }

    pub(crate) fn route(&self, id: RouteId) -> &RoutePlan {
        &self.plans[id.index()]
    }

    pub(crate) fn route_plans(&self) -> &[RoutePlan] {
        &self.plans
    }

    pub(crate) fn has_costly_identities(&self) -> bool {
        self.has_costly_identities
    }

    pub(crate) fn has_proxy(&self) -> bool {
        self.plans.iter().any(|plan| plan.proxy.is_some())
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
        Retained::new(&self.total)
    }

    /// A shard's part of the topics, where routes have any. `seed`: random bits.
    pub(crate) fn hub(&self, shard: u16, seed: impl FnOnce() -> u64) -> Option<Hub> {
        let rules = Arc::clone(self.topics.as_ref()?);
        let shards = u16::try_from(self.shards).expect("the configuration bounds the shards");
        Some(Hub::new(shard, shards, rules, seed(), &self.total))
    }

    pub(crate) fn codec_limits(&self) -> CodecLimits {
        let limits = &self.config.limits;
        CodecLimits {
            inflaters: limits.inflaters,
            deflaters: limits.deflaters,
            takeover_bytes: limits.takeover_bytes / self.shards,
            level: limits.compression_level,
        }
    }
}

impl RoutePlan {
    fn new(route: &tidegate_config::Route, identities: &[Arc<Identity>]) -> RoutePlan {
        let limits = route.limits.clone();
        let (deflate, takeover) = match &route.action {
            Action::Echo(echo) => (echo.deflate == EchoDeflate::On, echo.context_takeover),
            Action::Proxy(proxy) => (proxy.deflate == Deflate::Edge, proxy.context_takeover),
            Action::Topics(topics) => (topics.deflate == EchoDeflate::On, false),
            Action::Page(_) | Action::Events(_) | Action::Poll(_) | Action::Publish(_) => (false, false),
        };
        let proxy = match &route.action {
            Action::Proxy(proxy) => Some(ProxyPlan::new(proxy)),
            Action::Echo(_)
            | Action::Page(_)
            | Action::Topics(_)
            | Action::Events(_)
            | Action::Poll(_)
            | Action::Publish(_) => None,
        };
        let origins = route.origins.iter().map(|origin| OriginRule::parse(origin).expect("validated"));
        RoutePlan {
            messages: tidegate_wire::Limits {
                message_bytes: limits.message_bytes,
                message_fragments: limits.message_fragments,
            },
            control: ControlRule {
                count: limits.control_frames,
                window_ms: u32::try_from(limits.control_window_ms).unwrap_or(u32::MAX),
            },
            outbox: OutboxLimits::new(
                limits.outbox_soft_bytes,
                limits.outbox_soft_bytes / 2,
                limits.outbox_hard_bytes,
            ),
            full: match route.full {
                FullAction::Pause => FullPolicy::Pause,
                FullAction::DropNew => FullPolicy::DropNew,
                FullAction::DropOld => FullPolicy::DropOld,
                FullAction::Disconnect => FullPolicy::Disconnect,
            },
            origins: origins.collect(),
            identity: route.identity.map(|place| Arc::clone(&identities[place])),
            subprotocols: route.subprotocols.clone(),
            deflate: deflate
                .then(|| DeflatePolicy { context_takeover: takeover, ..DeflatePolicy::default() }),
            utf8: !matches!(&route.action, Action::Proxy(proxy) if proxy.utf8 == Utf8::Upstream),
            proxy,
            topics: match &route.action {
                Action::Topics(topics) => Some(topics.clone()),
                _ => None,
            },
            publish: match &route.action {
                Action::Publish(publish) => Some(publish.clone()),
                _ => None,
            },
            session_bytes: match &route.action {
                Action::Topics(topics) => topics.session_bytes,
                Action::Events(events) => events.session_bytes,
                Action::Poll(poll) => poll.session_bytes,
                Action::Echo(_) | Action::Page(_) | Action::Proxy(_) | Action::Publish(_) => 0,
            },
            rates: RateRule::new(&limits.rates),
            sessions: Arc::default(),
            limits,
        }
    }

    /// Counts a session; false where there are as many as may be.
    pub(crate) fn enter(&self) -> bool {
        let before = self.sessions.fetch_add(1, Ordering::Relaxed);
        let fits = self.limits.max_sessions.is_none_or(|most| before < most);
        if !fits {
            self.leave();
        }
        fits
    }

    /// A session that was counted has ended.
    pub(crate) fn leave(&self) {
        self.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

fn has_topics(action: &Action) -> bool {
    match action {
        Action::Topics(_) | Action::Events(_) | Action::Poll(_) | Action::Publish(_) => true,
        Action::Echo(_) | Action::Page(_) | Action::Proxy(_) => false,
    }
}

/// The configuration's rules as the hubs take them, shared by all of these.
fn topic_rules(
    topics: &tidegate_config::Topics,
    change: impl FnOnce(&mut tidegate_hub::Limits),
) -> Arc<TopicRules> {
    let rules = topics.rules.iter().map(|rule| Rule {
        filter: Filter::parse(rule.name.as_str()).expect("validated"),
        settings: topic_settings(&rule.settings),
    });
    let mut limits = tidegate_hub::Limits {
        memory_bytes: topics.memory_bytes,
        topics: topics.max_topics as usize,
        subscriptions: topics.max_subscriptions as usize,
        ..tidegate_hub::Limits::default()
    };
    change(&mut limits);
    TopicRules::new(rules.collect(), topic_settings(&tidegate_config::TopicSettings::default()), limits)
        .into()
}

fn topic_settings(settings: &tidegate_config::TopicSettings) -> TopicSettings {
    let defaults = TopicSettings::default();
    let (slow, keys, backlog_bytes) = match settings.slow {
        SlowPolicy::Disconnect => (Slow::Disconnect, None, None),
        SlowPolicy::DropNew => (Slow::DropNew, None, None),
        SlowPolicy::DropOld { backlog_bytes } => (Slow::DropOld, None, Some(backlog_bytes)),
        SlowPolicy::Conflate { keys } => (Slow::Conflate, Some(keys), None),
        SlowPolicy::Resync => (Slow::Resync, None, None),
    };
    TopicSettings {
        history: settings.history,
        history_bytes: settings.history_bytes,
        history_age_ms: settings.history_age_ms,
        presence: settings.presence,
        slow,
        keys: keys.unwrap_or(defaults.keys),
        backlog_bytes: backlog_bytes.unwrap_or(defaults.backlog_bytes),
        message_bytes: settings.message_bytes.unwrap_or(usize::MAX),
    }
}

impl ProxyPlan {
    fn new(settings: &Proxy) -> ProxyPlan {
        let upstreams = settings.upstreams.iter().map(|upstream| UpstreamPlan {
            name: upstream.text.clone(),
            addresses: ArcSwap::from_pointee(match &upstream.target {
                Target::Address(address) => Addresses::Known(vec![Address::Tcp(*address)]),
                Target::Unix(path) => Addresses::Known(vec![Address::Unix(path.clone())]),
                Target::Name { .. } => Addresses::Unresolved,
            }),
            turns: AtomicUsize::new(0),
        });
        ProxyPlan {
            upstreams: upstreams.collect(),
            failure_code: CloseCode::new(settings.failure_code).expect("validated"),
            turns: AtomicUsize::new(0),
            settings: settings.clone(),
        }
    }

    /// The local addresses that fit `target`; none leaves the choice to the kernel.
    pub(crate) fn sources(&self, target: &Address) -> Vec<IpAddr> {
        let Address::Tcp(target) = target else { return Vec::new() };
        self.settings.source.iter().copied().filter(|ip| ip.is_ipv4() == target.is_ipv4()).collect()
    }

    /// Whose turn it is among the local addresses.
    pub(crate) fn source_turn(&self) -> usize {
        self.turns.fetch_add(1, Ordering::Relaxed)
    }
}

impl UpstreamPlan {
    pub(crate) fn addresses(&self) -> Arc<Addresses> {
        self.addresses.load_full()
    }

    /// Whose turn it is among its addresses.
    pub(crate) fn address_turn(&self) -> usize {
        self.turns.fetch_add(1, Ordering::Relaxed)
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
