//! One route's settings, and its upstreams.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;
use tidegate_config::{
    Action, Deflate, EchoDeflate, FullAction, MAX_UPSTREAMS, Proxy, PublishAction, Route, RouteLimits,
    Target, TopicsAction, Upstream, Utf8,
};
use tidegate_hub::Publisher;
use tidegate_identity::Identity;
use tidegate_io::Address;
use tidegate_registry::{FullPolicy, OutboxLimits};
use tidegate_tls::ClientConfig;
use tidegate_wire::{budget::ControlRule, close::CloseCode, extension::DeflatePolicy, handshake::OriginRule};

use super::Retired;
use crate::meter::RateRule;

/// Most places of upstreams in a route: of those of its configuration, and of those of earlier ones that still have sessions.
const MAX_PLACES: usize = 16 * MAX_UPSTREAMS;

/// A route's settings, ready for use.
pub(crate) struct RoutePlan {
    /// As the configuration has it.
    pub(crate) route: Route,
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
    pub(crate) proxy: Option<Arc<ProxyPlan>>,
    /// Where its sessions speak of topics.
    pub(crate) topics: Option<TopicsAction>,
    /// Where it publishes.
    pub(crate) publish: Option<PublishAction>,
    /// What may wait for a subscriber before it counts as slow.
    pub(crate) session_bytes: usize,
    /// How fast its clients may speak; `None`: as fast as they can.
    pub(crate) rates: Option<RateRule>,
    /// Its sessions now, over all shards and generations.
    sessions: Arc<AtomicUsize>,
    /// It stays its own over all generations, and no other route ever gets it, as numbers are given again.
    serial: u32,
}

/// A proxied route's upstreams.
pub(crate) struct ProxyPlan {
    /// As the configuration has them; its upstreams stand in another order.
    pub(crate) settings: Proxy,
    /// At their places, which stay theirs from one generation to the next. Behind one that is gone, and of which nobody is left, a
    /// place is another's.
    pub(crate) upstreams: Vec<Arc<UpstreamPlan>>,
    /// For each of them whether it is not in the configuration any more: it gets no new session.
    pub(crate) gone: Vec<Option<Arc<Retired>>>,
    pub(crate) failure_code: CloseCode,
    /// Counts connections from `source` addresses, so that they take turns over all shards.
    turns: AtomicUsize,
    /// How TLS is spoken with those of its upstreams that do.
    tls: Option<ClientConfig>,
}

/// One upstream.
pub(crate) struct UpstreamPlan {
    pub(crate) name: String,
    /// Whose certificate it must show, where it speaks TLS: a name of the configuration, never of what is resolved or heard.
    verified: Option<String>,
    target: Target,
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

/// What is known of a target's addresses already.
pub(super) type Known<'a> = &'a dyn Fn(&Target) -> Option<Arc<Addresses>>;

impl RoutePlan {
    /// The plan of a route. `client`: how it speaks TLS with its upstreams. `before`: what it was like in the generation before, where its sessions go on.
    /// `serials` counts the routes that were new. `shards`: how many there are.
    pub(super) fn new(
        route: &Route,
        identity: Option<Arc<Identity>>,
        client: Option<ClientConfig>,
        before: Option<&RoutePlan>,
        known: Known<'_>,
        serials: &AtomicU32,
        shards: usize,
    ) -> RoutePlan {
        let limits = route.limits.clone();
        let (deflate, takeover) = match &route.action {
            Action::Echo(echo) => (echo.deflate == EchoDeflate::On, echo.context_takeover),
            Action::Proxy(proxy) => (proxy.deflate == Deflate::Edge, proxy.context_takeover),
            Action::Topics(topics) => (topics.deflate == EchoDeflate::On, false),
            Action::Page(_) | Action::Events(_) | Action::Poll(_) | Action::Publish(_) => (false, false),
        };
        let proxy = match &route.action {
            Action::Proxy(proxy) => {
                let before = before.and_then(|before| before.proxy.as_deref());
                Some(Arc::new(ProxyPlan::new(proxy, client, before, known, shards)))
            }
            Action::Echo(_)
            | Action::Page(_)
            | Action::Topics(_)
            | Action::Events(_)
            | Action::Poll(_)
            | Action::Publish(_) => None,
        };
        let origins = route.origins.iter().map(|origin| OriginRule::parse(origin).expect("validated"));
        RoutePlan {
            route: route.clone(),
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
            identity,
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
            sessions: before.map_or_else(Arc::default, |before| Arc::clone(&before.sessions)),
            serial: before.map_or_else(|| serials.fetch_add(1, Ordering::Relaxed), |before| before.serial),
            limits,
        }
    }

    /// Who holds its key at a place. Idempotency keys outlive a route by minutes, and are nothing to the next one at its number.
    pub(crate) fn holder(&self, key: u16) -> Publisher {
        Publisher::Holder(u64::from(self.serial) << 16 | u64::from(key))
    }

    /// Its sessions now, over all shards.
    pub(super) fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
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

impl ProxyPlan {
    /// Upstreams that were there before keep their places, their addresses and whose turn it is; those that are not there any more
    /// keep their places for their sessions, and until a new one needs it. `shards`: who has to say that these are gone.
    fn new(
        settings: &Proxy,
        tls: Option<ClientConfig>,
        before: Option<&ProxyPlan>,
        known: Known<'_>,
        shards: usize,
    ) -> ProxyPlan {
        assert!(
            tls.is_some() || !settings.upstreams.iter().any(|upstream| upstream.tls),
            "a route with wss:// upstreams is given how to verify them"
        );
        let server_name = settings.tls.server_name.as_deref();
        let mut upstreams = before.map_or_else(Vec::new, |before| before.upstreams.clone());
        let mut gone = before.map_or_else(Vec::new, |before| before.gone.clone());
        let present = before.map_or(&[][..], |before| &before.upstreams);
        let places: HashMap<_, _> = present
            .iter()
            .enumerate()
            .map(|(place, one)| ((&one.target, one.name.as_str()), place))
            .collect();
        let (mut here, mut fresh) = (vec![false; upstreams.len()], Vec::new());
        for upstream in &settings.upstreams {
            match places.get(&(&upstream.target, upstream.text.as_str())) {
                Some(place) => here[*place] = true,
                None => fresh.push(upstream),
            }
        }
        for (gone, here) in gone.iter_mut().zip(here) {
            *gone = (!here).then(|| gone.take().unwrap_or_default());
        }
        let is_free = |gone: &Option<Arc<Retired>>| gone.as_ref().is_some_and(|gone| gone.is_empty(shards));
        let mut free = (0..gone.len()).filter(|place| is_free(&gone[*place])).collect::<Vec<_>>().into_iter();
        for upstream in fresh {
            let known = known(&upstream.target);
            let new = Arc::new(UpstreamPlan::new(upstream, server_name, known));
            match free.next() {
                Some(place) => (upstreams[place], gone[place]) = (new, None),
                None => {
                    upstreams.push(new);
                    gone.push(None);
                }
            }
        }
        // Each place is looked at for each session.
        while gone.last().is_some_and(is_free) {
            gone.pop();
            upstreams.pop();
        }
        ProxyPlan {
            upstreams,
            gone,
            failure_code: CloseCode::new(settings.failure_code).expect("validated"),
            turns: AtomicUsize::new(before.map_or(0, |before| before.turns.load(Ordering::Relaxed))),
            settings: settings.clone(),
            tls,
        }
    }

    /// Whether an upstream is `wss://`. One that is gone stays so where no other is any more: it is told nothing in the clear.
    pub(crate) fn speaks_tls(&self, upstream: u16) -> bool {
        self.upstreams[usize::from(upstream)].verified.is_some()
    }

    /// How TLS is spoken with an upstream, and whose certificate it must show; `None`: it speaks none, or it is gone, and so are all
    /// that do.
    pub(crate) fn tls(&self, upstream: u16) -> Option<(&ClientConfig, &str)> {
        let verified = self.upstreams[usize::from(upstream)].verified.as_deref()?;
        Some((self.tls.as_ref()?, verified))
    }

    /// Whether sessions may go on with these settings in the place of its own: what they have agreed to with their peers stays.
    pub(super) fn may_become(&self, new: &Proxy) -> bool {
        let agreed = |proxy: &Proxy| (proxy.deflate, proxy.utf8, proxy.context_takeover);
        // Who is trusted no more must not go on, and whom it was trusted for is part of that.
        agreed(&self.settings) == agreed(new) && self.settings.tls.trusts_as(&new.tls)
    }

    /// Whether there are places for all of its upstreams, those included whose sessions are on their way out.
    pub(super) fn has_places(&self) -> bool {
        self.upstreams.len() <= MAX_PLACES
    }

    /// Places that nobody had in an earlier generation, or another upstream had.
    pub(crate) fn begun_since<'a>(&'a self, before: Option<&'a ProxyPlan>) -> impl Iterator<Item = u16> + 'a {
        let old = move |place: u16| before.and_then(|before| before.upstreams.get(usize::from(place)));
        let places = (0..=u16::MAX).zip(&self.upstreams);
        let begun = places.filter(move |(place, new)| !old(*place).is_some_and(|old| Arc::ptr_eq(old, new)));
        begun.map(|(place, _)| place)
    }

    /// The upstreams that are given by name: place, name and port.
    pub(super) fn names(&self) -> impl Iterator<Item = (usize, &str, u16)> {
        let present = self.upstreams.iter().zip(&self.gone).enumerate();
        present.filter_map(|(place, (upstream, gone))| match &upstream.target {
            Target::Name { host, port } if gone.is_none() => Some((place, host.as_str(), *port)),
            Target::Name { .. } | Target::Address(_) | Target::Unix(_) => None,
        })
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
    fn new(upstream: &Upstream, server_name: Option<&str>, known: Option<Arc<Addresses>>) -> UpstreamPlan {
        let addresses = known.unwrap_or_else(|| {
            Arc::new(match &upstream.target {
                Target::Address(address) => Addresses::Known(vec![Address::Tcp(*address)]),
                Target::Unix(path) => Addresses::Known(vec![Address::Unix(path.clone())]),
                Target::Name { .. } => Addresses::Unresolved,
            })
        });
        UpstreamPlan {
            name: upstream.text.clone(),
            verified: upstream
                .tls
                .then(|| server_name.map(str::to_owned).or_else(|| upstream.host()))
                .flatten(),
            target: upstream.target.clone(),
            addresses: ArcSwap::from(addresses),
            turns: AtomicUsize::new(0),
        }
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    pub(super) fn set_addresses(&self, addresses: Addresses) {
        self.addresses.store(Arc::new(addresses));
    }

    pub(crate) fn addresses(&self) -> Arc<Addresses> {
        self.addresses.load_full()
    }

    /// Whose turn it is among its addresses.
    pub(crate) fn address_turn(&self) -> usize {
        self.turns.fetch_add(1, Ordering::Relaxed)
    }
}
