//! The next generation of the configuration takes the place of the one at hand, between two events.

use std::{collections::BTreeSet, sync::Arc};

use tidegate_hub::RouteId;
use tidegate_io::Backend;
use tidegate_registry::Key;
use tidegate_tls::ServerConfig;

use crate::{
    environment::Environment,
    leaving::{Pace, Whom},
    mailbox::{Departure, Generation},
    plan::{Plan, Retired, Slot},
    planted::{self, Bug},
    shard::Shard,
    topics::Topics,
    transport::Transport,
};

/// What sessions of routes and upstreams that are no more are told.
const CHANGED: &str = "the service has moved";

impl<B: Backend, E: Environment> Shard<B, E> {
    /// Takes a generation over. Sessions whose route goes on are not touched; requests under way finish as they have begun.
    pub(crate) fn adopt(&mut self, generation: Generation) {
        let Generation { plan, servers, answers } = generation;
        let before = std::mem::replace(&mut self.plan, Arc::clone(&plan));
        self.begin_routes(&plan.reused_since(&before), &plan.upstreams_begun_since(&before));
        self.throttle.set_most(plan.limits().log_entries);
        self.adopt_servers(&servers);
        self.adopt_topics(&plan);
        self.look_at_changed(&before);
        self.let_empty_go();
        let asked = self.retire_routes(&before);
        // Those that wait for a name may have it now.
        self.resume_resolving();
        answers.answer(asked);
    }

    /// Connections that come from now on are let in by these. Those that are there and came by other rules have their next request
    /// looked at: a handshake is all that tells who a client is, and it is not repeated.
    fn adopt_servers(&mut self, servers: &[Option<ServerConfig>]) {
        let mut outdated = Vec::new();
        for listening in &mut self.listening {
            let Some(Some(server)) = servers.get(usize::from(listening.id.0)) else { continue };
            let before = listening.tls.replace(server.clone());
            if before.is_some_and(|before| !before.shares_trust_with(server)) {
                outdated.push(listening.id);
            }
        }
        if outdated.is_empty() {
            return;
        }
        for (_, session) in self.registry.iter_mut() {
            if let Transport::Tls(tls) = &mut session.transport {
                tls.outdate(&outdated);
            }
        }
    }

    /// Asks sessions to go.
    pub(crate) fn depart(&mut self, departure: Departure) {
        let Departure { whom, pace } = departure;
        if whom == Whom::All {
            if self.is_ending() {
                return;
            }
            self.unlisten();
        }
        let why = if whom == Whom::All { "going away" } else { CHANGED };
        self.set_drained(whom, true);
        self.begin_departure(BTreeSet::from([whom]), &pace, why, Vec::new());
    }

    /// A route or an upstream gets no new sessions, and those that it has stay.
    pub(crate) fn withhold(&mut self, whom: Whom) {
        if planted::is(Bug::AskTheKept) {
            let pace = Pace::of_some(&self.plan.config().drain);
            return self.depart(Departure { whom, pace });
        }
        self.leaving.forget(whom);
        self.set_drained(whom, true);
    }

    /// New sessions of a route or an upstream that was drained are taken again; those that were not asked to go yet stay.
    pub(crate) fn readmit(&mut self, whom: Whom) {
        self.leaving.forget(whom);
        if !planted::is(Bug::ForgetReadmit) {
            self.set_drained(whom, false);
        }
    }

    fn set_drained(&mut self, whom: Whom, drained: bool) {
        match whom {
            // The end of the gateway has no way back.
            Whom::All => {}
            Whom::Route(route) => self.upstreams.drain_route(route, drained),
            Whom::Upstream(route, upstream) => self.upstreams.drain(route, upstream, drained),
        }
    }

    /// What is known of routes and upstreams that nobody is left of has nothing to do with those that have their numbers and places
    /// now.
    fn begin_routes(&mut self, reused: &[RouteId], begun: &[(RouteId, u16)]) {
        self.upstreams.adopt(&self.plan, reused, begun);
        for (id, upstream) in begun {
            self.leaving.forget(Whom::Upstream(*id, *upstream));
        }
        for id in reused {
            self.leaving.forget_route(*id);
            if let Some(accounts) = &mut self.accounts {
                accounts.begin_route(*id);
            }
            if let Some(topics) = &mut self.topics {
                topics.begin_route(*id);
            }
        }
        if !reused.is_empty() {
            // Connections of theirs that had all their time, and linger yet, take nothing along.
            for (_, session) in self.registry.iter_mut() {
                if session.own_route().is_some_and(|route| reused.contains(&route)) {
                    session.leave_route();
                }
            }
        }
        if !reused.is_empty() || !begun.is_empty() {
            // Who knows the new ones must not take the counts of before for theirs.
            self.report();
        }
    }

    fn adopt_topics(&mut self, plan: &Plan) {
        let Some(rules) = plan.topic_rules() else { return };
        if let Some(topics) = &mut self.topics {
            topics.hub.set_rules(Arc::clone(rules));
            return;
        }
        let environment = &mut self.environment;
        let Some(hub) = plan.hub(self.id, || environment.draw_seed()) else { return };
        let slots = u32::try_from(self.registry.capacity()).unwrap_or(u32::MAX);
        self.topics = Some(Box::new(Topics::new(hub, slots)));
        // Shards that had theirs earlier may have written.
        for (from, letters) in std::mem::take(&mut self.early_letters) {
            self.read_letters(from, letters);
        }
    }

    /// Sessions whose limits have changed are looked at by them.
    fn look_at_changed(&mut self, before: &Plan) {
        let changed: Vec<bool> = before
            .slots()
            .iter()
            .zip(self.plan.slots())
            .map(|(old, new)| !old.is(new) && old.plan().limits != new.plan().limits)
            .collect();
        if !changed.contains(&true) {
            return;
        }
        let concerned =
            self.registry.iter().filter(|(_, session)| changed.get(session.route.index()) == Some(&true));
        let keys: Vec<Key> = concerned.map(|(key, _)| key).collect();
        for key in keys {
            let Some(session) = self.registry.get(key) else { continue };
            let [old, new] = [before, &self.plan].map(|plan| plan.route(session.route).rates.as_ref());
            self.meters.change_rule(key, old, new, self.now_ms);
            self.look_again(key);
            if self.is_delayed(key) {
                // By the new rule it may be in time already.
                self.ensure_deadline(key, self.now_ms);
            }
        }
    }

    /// Sessions of routes and upstreams that are no more are asked to go; gives how many.
    fn retire_routes(&mut self, before: &Plan) -> usize {
        let (mut whom, mut retired) = (BTreeSet::new(), Vec::new());
        for (place, slot) in (0..=u16::MAX).zip(self.plan.slots()) {
            let old = before.slots().get(usize::from(place));
            let id = RouteId(place);
            // Also one that has come and gone between the two generations: nobody else says of it that this shard has none of its
            // sessions.
            let is_same = |old: Option<&Arc<Retired>>, new| old.is_some_and(|old| Arc::ptr_eq(old, new));
            if let Some(here) = slot.retired() {
                if !is_same(old.and_then(Slot::retired), here) {
                    whom.insert(Whom::Route(id));
                    retired.push((Whom::Route(id), Arc::clone(here)));
                }
                continue;
            }
            if planted::is(Bug::AskEverybody) {
                whom.insert(Whom::Route(id));
            }
            let Some(proxy) = &slot.plan().proxy else { continue };
            let old = old.filter(|old| old.retired().is_none()).and_then(|old| old.plan().proxy.as_ref());
            for (upstream, gone) in (0..=u16::MAX).zip(&proxy.gone) {
                let old = old.and_then(|old| old.gone.get(usize::from(upstream)));
                let old = old.and_then(Option::as_ref);
                let one = Whom::Upstream(id, upstream);
                match gone {
                    Some(gone) if !is_same(old, gone) => {
                        whom.insert(one);
                        retired.push((one, Arc::clone(gone)));
                    }
                    None if old.is_some() => self.leaving.forget(one),
                    Some(_) | None => {}
                }
            }
        }
        // Most have nobody, and need not wait for a deadline that concerns nobody.
        let has_somebody = self.having_somebody(retired.iter().map(|(whom, _)| *whom).collect());
        retired.retain(|(one, retired)| {
            let stays = has_somebody.contains(one);
            if !stays {
                whom.remove(one);
                retired.left();
            }
            stays
        });
        if whom.is_empty() {
            return 0;
        }
        let pace = Pace::of_some(self.plan.drain());
        self.begin_departure(whom, &pace, CHANGED, retired)
    }
}
