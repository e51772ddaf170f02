//! Which upstream a session goes to: balancing, and leaving failed ones out. Each shard knows its own sessions.

use std::hash::{BuildHasher, Hasher};

use foldhash::quality::FixedState;
use tidegate_config::Balance;
use tidegate_hub::RouteId;
use tidegate_registry::Key;

use crate::{
    leaving::Whom,
    plan::{Plan, ProxyPlan},
    report::UpstreamState,
};

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
    /// The route is to get no sessions, whatever it does with them.
    drained: bool,
    rule: Failing,
}

/// When an upstream is left out.
#[derive(Clone, Copy, Default)]
struct Failing {
    /// After so many failures in a row.
    max_fails: u32,
    /// For so long after the last of them; 0: never.
    timeout_ms: u64,
}

/// One upstream.
#[derive(Clone, Copy, Default)]
struct Upstream {
    /// Legs dialing or open.
    active: u32,
    /// Failures in a row.
    failures: u32,
    /// Failures since the start.
    failed: u64,
    /// When the last of them was; 0: there was none.
    failed_ms: u64,
    /// When it last did not fail; 0: never.
    succeeded_ms: u64,
    /// The client whose request is finding out whether it is back.
    probe: Option<Key>,
    /// It is to get no sessions.
    drained: bool,
    /// Counts who has had its place, so that one who is gone is not taken for who came behind it.
    tenancy: Tenancy,
}

/// Which of those that have had a place an upstream is; around after 256 of them, each of which was there until nobody was left of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tenancy(u8);

impl Upstream {
    /// Until when it is left out by the rule of now, and from then on until a probe succeeds; `None`: it is not left out.
    fn out_until_ms(&self, rule: Failing) -> Option<u64> {
        let is_out = self.failures > 0 && self.failures >= rule.max_fails && rule.timeout_ms > 0;
        is_out.then(|| self.failed_ms + rule.timeout_ms)
    }
}

impl Upstreams {
    pub(crate) fn new(plan: &Plan) -> Upstreams {
        let mut upstreams = Upstreams { groups: Vec::new() };
        upstreams.adopt(plan, &[], &[]);
        upstreams
    }

    /// Takes the next generation over: an upstream of a route that goes on keeps its place and what is known of it. `reused`:
    /// numbers that are another route's now. `begun`: places that are another upstream's, or have come to be.
    pub(crate) fn adopt(&mut self, plan: &Plan, reused: &[RouteId], begun: &[(RouteId, u16)]) {
        for id in reused {
            let group = &mut self.groups[id.index()];
            debug_assert!(
                group.states.iter().all(|state| state.active == 0),
                "nobody is left of the one before"
            );
            *group = Group::default();
        }
        for (id, upstream) in begun {
            let group = self.groups.get_mut(id.index());
            if let Some(state) = group.and_then(|group| group.states.get_mut(usize::from(*upstream))) {
                debug_assert_eq!(state.active, 0, "nobody is left of the one before");
                let tenancy = Tenancy(state.tenancy.0.wrapping_add(1));
                *state = Upstream { tenancy, ..Upstream::default() };
            }
        }
        let drained = plan.drained();
        for (place, slot) in plan.slots().iter().enumerate() {
            if self.groups.len() <= place {
                self.groups.push(Group::default());
            }
            let group = &mut self.groups[place];
            let proxy = slot.plan().proxy.as_ref();
            // What is known of failures is judged by this from now on.
            group.rule = proxy.map_or_else(Failing::default, |proxy| Failing {
                max_fails: proxy.settings.max_fails,
                timeout_ms: proxy.settings.fail_timeout_ms,
            });
            let count = proxy.map_or(0, |proxy| proxy.upstreams.len());
            group.states.resize(count, Upstream::default());
            // What is drained may be at another place than before.
            let id = RouteId(place as u16);
            group.drained = drained.contains(&Whom::Route(id));
            for (upstream, state) in (0..=u16::MAX).zip(&mut group.states) {
                state.drained = drained.contains(&Whom::Upstream(id, upstream));
            }
        }
    }

    /// What is known of all of them, in order.
    pub(crate) fn report(&self, out: &mut Vec<UpstreamState>) {
        out.clear();
        for (route, group) in self.groups.iter().enumerate() {
            out.extend(group.states.iter().enumerate().map(|(upstream, state)| UpstreamState {
                route: route as u16,
                upstream: upstream as u16,
                failed_ms: state.failed_ms,
                succeeded_ms: state.succeeded_ms,
                legs: state.active,
                failures: state.failed,
            }));
        }
    }

    /// The next upstream for a client, none that was tried; one that is left out only where no other is there. One whose
    /// time is over is probed by one client at a time.
    pub(crate) fn choose(
        &mut self,
        route: RouteId,
        proxy: &ProxyPlan,
        client: Key,
        hash: u64,
        tried: &[u16],
        now_ms: u64,
    ) -> Option<u16> {
        let group = &mut self.groups[route.index()];
        let untried = |place: &usize| !tried.contains(&(*place as u16));
        let present = |place: &usize| proxy.gone[*place].is_none() && !group.states[*place].drained;
        let usable = |place: &usize| {
            let state = &group.states[*place];
            let until_ms = state.out_until_ms(group.rule);
            until_ms.is_none_or(|until_ms| until_ms <= now_ms && state.probe.is_none())
        };
        let count = group.states.len();
        let from = group.cursor;
        let order = || (0..count).map(move |step| (from + step) % count).filter(untried).filter(present);
        let pick = |candidates: &mut dyn Iterator<Item = usize>| match proxy.settings.balance {
            Balance::RoundRobin => candidates.next(),
            Balance::LeastSessions => candidates.min_by_key(|place| group.states[*place].active),
            Balance::Hash(_) => candidates.max_by_key(|place| weight(hash, &proxy.upstreams[*place].name)),
        };
        let place = pick(&mut order().filter(usable)).or_else(|| pick(&mut order()))?;
        group.cursor = (place + 1) % count;
        let state = &mut group.states[place];
        if state.out_until_ms(group.rule).is_some_and(|until_ms| until_ms <= now_ms) {
            state.probe.get_or_insert(client);
        }
        Some(place as u16)
    }

    /// Whether all upstreams of a route that the configuration has are drained: none has failed, and none may be used.
    pub(crate) fn are_drained(&self, route: RouteId, proxy: &ProxyPlan) -> bool {
        let states = &self.groups[route.index()].states;
        states.iter().zip(&proxy.gone).all(|(state, gone)| gone.is_some() || state.drained)
    }

    /// Whether a route takes sessions.
    pub(crate) fn takes(&self, route: RouteId) -> bool {
        !self.groups[route.index()].drained
    }

    pub(crate) fn drain_route(&mut self, route: RouteId, drained: bool) {
        if let Some(group) = self.groups.get_mut(route.index()) {
            group.drained = drained;
        }
    }

    pub(crate) fn drain(&mut self, route: RouteId, upstream: u16, drained: bool) {
        let group = self.groups.get_mut(route.index());
        if let Some(state) = group.and_then(|group| group.states.get_mut(usize::from(upstream))) {
            state.drained = drained;
        }
    }

    /// Which of those that have had its place it is.
    pub(crate) fn tenancy(&self, route: RouteId, upstream: u16) -> Option<Tenancy> {
        let states = &self.groups.get(route.index())?.states;
        states.get(usize::from(upstream)).map(|state| state.tenancy)
    }

    pub(crate) fn began(&mut self, route: RouteId, upstream: u16) {
        self.groups[route.index()].states[usize::from(upstream)].active += 1;
    }

    pub(crate) fn ended(&mut self, route: RouteId, upstream: u16) {
        self.groups[route.index()].states[usize::from(upstream)].active -= 1;
    }

    pub(crate) fn succeeded(&mut self, route: RouteId, upstream: u16, now_ms: u64) {
        let state = &mut self.groups[route.index()].states[usize::from(upstream)];
        *state = Upstream {
            active: state.active,
            drained: state.drained,
            tenancy: state.tenancy,
            failed: state.failed,
            failed_ms: state.failed_ms,
            succeeded_ms: now_ms.max(state.failed_ms),
            ..Upstream::default()
        };
    }

    /// The upstream is left out for a while once it has failed often enough in a row.
    pub(crate) fn failed(&mut self, route: RouteId, upstream: u16, client: Key, now_ms: u64) {
        self.forget_probe(route, upstream, client);
        let state = &mut self.groups[route.index()].states[usize::from(upstream)];
        state.failures = state.failures.saturating_add(1);
        state.failed += 1;
        // Which of both came last is to be seen within one turn, too.
        state.failed_ms = now_ms.max(state.succeeded_ms + 1);
    }

    /// A client leaves an upstream without a verdict: where it was the probe, another may be.
    pub(crate) fn forget_probe(&mut self, route: RouteId, upstream: u16, client: Key) {
        let state = &mut self.groups[route.index()].states[usize::from(upstream)];
        state.probe = state.probe.filter(|probe| *probe != client);
    }

    /// A client waits for a name. `waits`: whether one still does; those that were answered meanwhile are forgotten before the list
    /// grows, as no name may be resolved for as long as name servers hang.
    pub(crate) fn await_name(&mut self, route: RouteId, key: Key, waits: impl Fn(Key) -> bool) {
        let resolving = &mut self.groups[route.index()].resolving;
        if resolving.len() == resolving.capacity() {
            resolving.retain(|key| waits(*key));
            if resolving.len() > resolving.capacity() / 2 {
                resolving.reserve(resolving.capacity());
            }
        }
        resolving.push(key);
    }

    /// All that wait for a name.
    pub(crate) fn take_resolving(&mut self) -> Vec<Key> {
        self.groups.iter_mut().flat_map(|group| group.resolving.drain(..)).collect()
    }
}

/// Rendezvous hashing (Thaler and Ravishankar 1996): each client ranks all upstreams, so that one that goes takes only
/// its own clients along.
pub(super) fn weight(client: u64, upstream: &str) -> u64 {
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

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTE: RouteId = RouteId(0);

    /// The key of a client in this slot.
    fn key(client: u64) -> Key {
        Key::from_bits(1 << 32 | client)
    }

    fn plan(settings: &str) -> std::sync::Arc<Plan> {
        let text = format!(
            "version = 1\n[[listener]]\nbind = '127.0.0.1:0'\n[[route]]\npath = '/'\n\
             proxy = {{ upstreams = ['ws://10.0.0.1:1', 'ws://10.0.0.2:1'], {settings} }}\n"
        );
        Plan::new(tidegate_config::parse(&text, "t.toml").unwrap(), 1)
    }

    /// Two upstreams and a clock.
    struct Scene {
        plan: std::sync::Arc<Plan>,
        upstreams: Upstreams,
        now_ms: u64,
    }

    impl Scene {
        fn new(settings: &str) -> Scene {
            let plan = plan(settings);
            Scene { upstreams: Upstreams::new(&plan), plan, now_ms: 1 }
        }

        fn proxy(&self) -> &ProxyPlan {
            self.plan.route(ROUTE).proxy.as_ref().unwrap()
        }

        fn choose(&mut self, client: u64, tried: &[u16]) -> Option<u16> {
            let plan = std::sync::Arc::clone(&self.plan);
            let proxy = plan.route(ROUTE).proxy.as_ref().unwrap();
            self.upstreams.choose(ROUTE, proxy, key(client), 0, tried, self.now_ms)
        }

        fn failed(&mut self, upstream: u16, client: u64) {
            self.upstreams.failed(ROUTE, upstream, key(client), self.now_ms);
        }
    }

    #[test]
    fn who_was_answered_waits_for_no_name_and_all_others_are_told() {
        let mut scene = Scene::new("max_fails = 1");
        // A few wait for ever; thousands come and are told that it takes too long.
        let waits = |last: u64| move |one: Key| one.index() < 10 || one == key(last);
        for client in 0..10_000 {
            scene.upstreams.await_name(ROUTE, key(client), waits(client));
            let kept = scene.upstreams.groups[0].resolving.len();
            assert!(kept <= 32, "{kept} are kept of eleven");
        }
        let told = scene.upstreams.take_resolving();
        assert!(
            (0..10).all(|client| told.iter().filter(|one| **one == key(client)).count() == 1),
            "{told:?}"
        );
        // Where all wait, all are kept.
        for client in 0..1_000 {
            scene.upstreams.await_name(ROUTE, key(client), |_| true);
        }
        assert_eq!(scene.upstreams.take_resolving().len(), 1_000);
    }

    #[test]
    fn who_comes_to_have_a_place_is_not_taken_for_who_had_it() {
        let Scene { plan, mut upstreams, .. } = Scene::new("max_fails = 1");
        let both = |upstreams: &Upstreams| [0, 1].map(|place| upstreams.tenancy(ROUTE, place));
        let before = both(&upstreams);
        upstreams.failed(ROUTE, 0, key(1), 1);
        upstreams.succeeded(ROUTE, 0, 2);
        upstreams.adopt(&plan, &[], &[]);
        assert_eq!(both(&upstreams), before, "whatever becomes of it");
        upstreams.adopt(&plan, &[], &[(ROUTE, 1)]);
        let after = both(&upstreams);
        assert!(after[0] == before[0] && after[1].is_some() && after[1] != before[1]);
        assert_eq!(upstreams.tenancy(ROUTE, 2), None);
    }

    #[test]
    fn below_max_fails_an_upstream_is_used_as_ever() {
        let mut scene = Scene::new("max_fails = 2");
        assert_eq!(scene.proxy().settings.max_fails, 2);
        scene.failed(0, 1);
        assert_eq!([1, 2, 3, 4].map(|client| scene.choose(client, &[])), [0, 1, 0, 1].map(Some));
        scene.failed(0, 1);
        assert_eq!([1, 2, 3].map(|client| scene.choose(client, &[])), [1, 1, 1].map(Some));
    }

    #[test]
    fn one_client_at_a_time_probes_an_upstream_that_was_left_out() {
        let mut scene = Scene::new("fail_timeout = '1s'");
        scene.failed(0, 1);
        scene.now_ms += 1_000;
        assert_eq!([2, 3, 4].map(|client| scene.choose(client, &[])), [0, 1, 1].map(Some));
        // Somebody else's end is not the probe's.
        scene.upstreams.forget_probe(ROUTE, 0, key(3));
        assert_eq!(scene.choose(5, &[]), Some(1));
        // Nor is somebody else's failure, where there was no other upstream to try.
        assert_eq!(scene.choose(6, &[1]), Some(0));
        scene.failed(0, 6);
        scene.now_ms += 1_000;
        assert_eq!(scene.choose(7, &[]), Some(1), "the probe is under way");
        scene.upstreams.forget_probe(ROUTE, 0, key(2));
        assert_eq!(scene.choose(8, &[]), Some(0), "the next probe");
        scene.failed(0, 8);
        assert_eq!([9, 10].map(|client| scene.choose(client, &[])), [1, 1].map(Some));
        scene.now_ms += 1_000;
        assert_eq!(scene.choose(11, &[]), Some(0));
        scene.upstreams.succeeded(ROUTE, 0, scene.now_ms);
        let both = [scene.choose(12, &[]), scene.choose(13, &[]), scene.choose(14, &[])];
        assert_eq!(both, [1, 0, 1].map(Some), "it is back");
    }

    #[test]
    fn where_all_are_left_out_they_are_tried_all_the_same() {
        let mut scene = Scene::new("fail_timeout = '1s'");
        scene.failed(0, 1);
        scene.failed(1, 1);
        assert_eq!([2, 3].map(|client| scene.choose(client, &[])), [0, 1].map(Some));
        assert_eq!(scene.choose(4, &[0, 1]), None);
    }

    #[test]
    fn without_a_fail_timeout_none_is_left_out() {
        let mut scene = Scene::new("fail_timeout = '0s'");
        (0..5).for_each(|_| scene.failed(0, 1));
        assert_eq!([2, 3, 4, 5].map(|client| scene.choose(client, &[])), [0, 1, 0, 1].map(Some));
    }
}
