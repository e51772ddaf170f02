//! Which upstream a session goes to: balancing, and leaving failed ones out. Each shard knows its own sessions.

use std::hash::{BuildHasher, Hasher};

use foldhash::quality::FixedState;
use tidegate_config::Balance;
use tidegate_hub::RouteId;
use tidegate_registry::Key;

use crate::plan::{Plan, ProxyPlan};

/// What this shard knows of the upstreams of all routes.
pub(crate) struct Upstreams {
    groups: Vec<Group>,
}

/// The upstreams of one route.
#[derive(Default)]
struct Group {
    states: Vec<Upstream>,
    cursor: usize,
    /// Clients that wait for a name.
    resolving: Vec<Key>,
}

/// One upstream.
#[derive(Clone, Copy, Default)]
struct Upstream {
    /// Legs dialing or open.
    active: u32,
    /// Failures in a row.
    failures: u32,
    /// Left out until then.
    out_until_ms: u64,
    /// A request is finding out whether it is back.
    probing: bool,
}

impl Upstreams {
    pub(crate) fn new(plan: &Plan) -> Upstreams {
        let groups = plan.route_plans().iter().map(|route| Group {
            states: vec![Upstream::default(); route.proxy.as_ref().map_or(0, |proxy| proxy.upstreams.len())],
            ..Group::default()
        });
        Upstreams { groups: groups.collect() }
    }

    /// The next upstream for a client, none that was tried; one that is left out only where no other is there.
    pub(crate) fn choose(
        &mut self,
        route: RouteId,
        proxy: &ProxyPlan,
        hash: u64,
        tried: &[u16],
        now_ms: u64,
    ) -> Option<u16> {
        let group = &mut self.groups[route.index()];
        let untried = |place: &usize| !tried.contains(&(*place as u16));
        let usable = |place: &usize| {
            let state = &group.states[*place];
            state.failures == 0 || (state.out_until_ms <= now_ms && !state.probing)
        };
        let count = group.states.len();
        let from = group.cursor;
        let order = || (0..count).map(move |step| (from + step) % count).filter(untried);
        let pick = |candidates: &mut dyn Iterator<Item = usize>| match proxy.settings.balance {
            Balance::RoundRobin => candidates.next(),
            Balance::LeastSessions => candidates.min_by_key(|place| group.states[*place].active),
            Balance::Hash(_) => candidates.max_by_key(|place| weight(hash, &proxy.upstreams[*place].name)),
        };
        let place = pick(&mut order().filter(usable)).or_else(|| pick(&mut order()))?;
        group.cursor = (place + 1) % count;
        let state = &mut group.states[place];
        state.probing = state.failures > 0;
        Some(place as u16)
    }

    pub(crate) fn began(&mut self, route: RouteId, upstream: u16) {
        self.groups[route.index()].states[usize::from(upstream)].active += 1;
    }

    pub(crate) fn ended(&mut self, route: RouteId, upstream: u16) {
        self.groups[route.index()].states[usize::from(upstream)].active -= 1;
    }

    pub(crate) fn succeeded(&mut self, route: RouteId, upstream: u16) {
        let state = &mut self.groups[route.index()].states[usize::from(upstream)];
        state.failures = 0;
        state.probing = false;
    }

    /// The upstream is left out for a while once it has failed often enough in a row.
    pub(crate) fn failed(&mut self, route: RouteId, upstream: u16, proxy: &ProxyPlan, now_ms: u64) {
        let state = &mut self.groups[route.index()].states[usize::from(upstream)];
        state.probing = false;
        state.failures = state.failures.saturating_add(1);
        if state.failures >= proxy.settings.max_fails {
            state.out_until_ms = now_ms + proxy.settings.fail_timeout_ms;
        }
    }

    /// A probe that ended without a verdict.
    pub(crate) fn forget_probe(&mut self, route: RouteId, upstream: u16) {
        self.groups[route.index()].states[usize::from(upstream)].probing = false;
    }

    pub(crate) fn await_name(&mut self, route: RouteId, key: Key) {
        self.groups[route.index()].resolving.push(key);
    }

    /// All that wait for a name.
    pub(crate) fn take_resolving(&mut self) -> Vec<Key> {
        self.groups.iter_mut().flat_map(|group| group.resolving.drain(..)).collect()
    }
}

/// Rendezvous hashing (Thaler and Ravishankar 1996): each client ranks all upstreams, so that one that goes takes only
/// its own clients along.
fn weight(client: u64, upstream: &str) -> u64 {
    let mut hasher = FixedState::with_seed(client).build_hasher();
    hasher.write(upstream.as_bytes());
    hasher.finish()
}

/// The hash of what names a client to the balancer; the same in every shard and process.
pub(crate) fn client_hash(name: &[u8]) -> u64 {
    let mut hasher = FixedState::with_seed(0x7469_6465).build_hasher();
    hasher.write(name);
    hasher.finish()
}
