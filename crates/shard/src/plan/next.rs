//! The next generation: what goes on, what goes, and what comes.

use std::{collections::HashMap, fmt, sync::Arc};

use tidegate_config::{Action, Config, PublishAction, Route, Target, TokenKeys, TopicPatterns, TopicsAction};
use tidegate_hub::{Incompatible, RouteId, Routes};
use tidegate_identity::Identity;
use tidegate_tls::ClientConfig;

use super::{
    Plan, RoutePlan, Slot, asks_for_certificates, head_limits,
    topics::{has_topics, topic_rules},
};

/// Why a configuration cannot take the place of another one without a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoSuccessor {
    /// Topics that exist could not go on.
    Topics(Incompatible),
    /// Too many routes of earlier generations still have sessions, or too many upstreams of a route.
    Draining,
}

impl fmt::Display for NoSuccessor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Topics(Incompatible::Filters) => {
                "[[topic]]: names and their order cannot change without a restart, as topics that exist would have another rule"
            }
            Self::Topics(Incompatible::Slow) => {
                "[[topic]] slow: it cannot change without a restart, as topics keep other things for each of its values"
            }
            Self::Topics(Incompatible::Presence) => {
                "[[topic]] presence: it cannot change without a restart, as subscribers have been told otherwise"
            }
            Self::Draining => {
                "routes or upstreams of earlier configurations still have sessions, and there are no numbers left for more: try again \
                 after the deadline of [drain]"
            }
        })
    }
}

impl std::error::Error for NoSuccessor {}

impl Plan {
    /// The generation behind this one. Routes that sessions can go on with keep their numbers, the others' sessions are to go. Its
    /// configuration must be one that [`Config::succeeded_by`] has let through.
    ///
    /// # Errors
    /// Where `config` cannot take this one's place while sessions go on.
    ///
    /// # Panics
    /// Where it has keys that [`tidegate_identity::identities`] refuses.
    pub fn next(&self, config: Config) -> Result<Arc<Plan>, NoSuccessor> {
        self.next_with_clients(config, &[])
    }

    /// The same with upstreams that speak TLS. `clients`: for each route of the configuration how it does so towards them; of routes
    /// that have not changed it stays what it was.
    ///
    /// # Errors
    /// As [`Plan::next`].
    ///
    /// # Panics
    /// As [`Plan::next`].
    pub fn next_with_clients(
        &self,
        config: Config,
        clients: &[Option<ClientConfig>],
    ) -> Result<Arc<Plan>, NoSuccessor> {
        let topics = match &self.topics {
            Some(rules) => {
                let same = |limits: &mut tidegate_hub::Limits| {
                    limits.letters = rules.limits().letters;
                    limits.letter_bytes = rules.limits().letter_bytes;
                };
                let new = topic_rules(&config.topics, same);
                Some(Arc::new(rules.succeeded_by(new).map_err(NoSuccessor::Topics)?))
            }
            None => config
                .routes
                .iter()
                .any(|route| has_topics(&route.action))
                .then(|| topic_rules(&config.topics, |_| {}).into()),
        };
        let identities =
            tidegate_identity::identities_after(&config, &self.identities).expect("judged before");
        let (ids, slots) = self.next_slots(&config, &identities, clients)?;
        Ok(Arc::new(Plan {
            has_costly_identities: slots.iter().any(Slot::is_costly),
            has_asked_for_certificates: self.has_asked_for_certificates || asks_for_certificates(&config),
            generation: self.generation + 1,
            routes: Routes::numbered(&config, ids),
            slots,
            head: head_limits(&config.limits),
            identities,
            topics,
            shared: Arc::clone(&self.shared),
            config,
        }))
    }

    /// Says for all shards that nobody is left of what this generation does not have any more, for tests.
    #[doc(hidden)]
    pub fn say_all_left(&self) {
        let upstreams = self.slots.iter().flat_map(|slot| &slot.plan().proxy).flat_map(|proxy| &proxy.gone);
        let retired = self.slots.iter().filter_map(Slot::retired).chain(upstreams.flatten());
        let shards = self.shared.shards;
        for retired in retired.filter(|retired| !retired.is_empty(shards)) {
            (0..shards).for_each(|_| retired.left());
        }
    }

    fn next_slots(
        &self,
        config: &Config,
        identities: &[Arc<Identity>],
        clients: &[Option<ClientConfig>],
    ) -> Result<(Vec<RouteId>, Vec<Slot>), NoSuccessor> {
        let (serials, shards) = (&self.shared.serials, self.shared.shards);
        let client_of = |place: usize| clients.get(place).cloned().flatten();
        let identity_of = |route: &Route| route.identity.map(|place| Arc::clone(&identities[place]));
        let mut slots: Vec<Slot> = self.slots.iter().map(Slot::retire).collect();
        let mut free = (0..slots.len()).filter(|place| slots[*place].is_free(shards)).collect::<Vec<_>>();
        // The lowest first.
        free.reverse();
        let mut addresses = HashMap::new();
        // What was resolved lately counts more.
        let (gone, here): (Vec<_>, Vec<_>) = self.slots.iter().partition(|slot| slot.retired().is_some());
        for slot in gone.into_iter().chain(here) {
            for upstream in slot.plan().proxy.iter().flat_map(|proxy| &proxy.upstreams) {
                addresses.insert(upstream.target(), upstream);
            }
        }
        let known = |target: &Target| addresses.get(target).map(|upstream| upstream.addresses());
        let mut present: Vec<Option<(RouteId, &Slot)>> =
            self.routes.all().map(|(id, _)| Some((id, &self.slots[id.index()]))).collect();
        let mut ids = Vec::with_capacity(config.routes.len());
        let mut fresh = Vec::new();
        // By what it takes, so that many routes are not compared with as many.
        let mut places = HashMap::<_, Vec<usize>>::new();
        for (place, old) in present.iter().enumerate() {
            let Some((_, slot)) = old else { continue };
            places.entry(taken_by(&slot.plan().route)).or_default().push(place);
        }
        for route in &config.routes {
            let identity = identity_of(route);
            let alike = places.get(&taken_by(route)).into_iter().flatten().copied();
            let goes_on = alike.into_iter().find(|place| {
                let old = present[*place].map(|(_, slot)| slot.plan());
                old.is_some_and(|old| goes_on(self, old, route, identity.as_deref()))
            });
            let Some((id, slot)) = goes_on.and_then(|place| present[place].take()) else {
                fresh.push((ids.len(), route));
                ids.push(RouteId(u16::MAX));
                continue;
            };
            let old = slot.plan();
            let has_keys = rules(old.identity.as_deref()) == rules(identity.as_deref());
            slots[id.index()] = if old.route == *route && has_keys {
                slot.clone()
            } else {
                let client = client_of(ids.len());
                let plan = RoutePlan::new(route, identity, client, Some(old), &known, serials, shards);
                if plan.proxy.as_ref().is_some_and(|proxy| !proxy.has_places()) {
                    return Err(NoSuccessor::Draining);
                }
                Slot::new(plan)
            };
            ids.push(id);
        }
        for (place, route) in fresh {
            let identity = identity_of(route);
            let client = client_of(place);
            let slot = Slot::new(RoutePlan::new(route, identity, client, None, &known, serials, shards));
            let number = match free.pop() {
                Some(number) => {
                    slots[number] = slot;
                    number
                }
                None => {
                    slots.push(slot);
                    slots.len() - 1
                }
            };
            ids[place] = RouteId(u16::try_from(number).map_err(|_| NoSuccessor::Draining)?);
        }
        Ok((ids, slots))
    }
}

/// Which requests a route takes, but for their subprotocols.
fn taken_by(route: &Route) -> (Option<&tidegate_config::HostPattern>, &tidegate_config::PathPattern) {
    (route.host.as_ref(), &route.path)
}

fn rules(identity: Option<&Identity>) -> Option<&tidegate_config::Identity> {
    identity.map(Identity::rules)
}

/// Whether callers of before would be let in with their tokens, for the same. Keys may be others: who has come with one of before
/// stays until that is over.
fn asks_alike(old: Option<&Identity>, new: Option<&Identity>) -> bool {
    match (rules(old), rules(new)) {
        (None, None) => true,
        (Some(old), Some(new)) => believes_all_of(old, new),
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// Whether all tokens that are believed by `old` are by `new`, but for their signatures, and say the same.
fn believes_all_of(old: &tidegate_config::Identity, new: &tidegate_config::Identity) -> bool {
    // A hook says who may come, and has no algorithms.
    let asks_hook = |identity: &tidegate_config::Identity| matches!(identity.keys, TokenKeys::Hook(_));
    let believes = asks_hook(old) == asks_hook(new)
        && old.algorithms.iter().all(|one| new.algorithms.contains(one))
        && old.sources.iter().all(|one| new.sources.contains(one))
        // Without a list any issuer will do.
        && (new.issuers.is_empty()
            || !old.issuers.is_empty() && old.issuers.iter().all(|one| new.issuers.contains(one)))
        // Without a list a token must name no audience, and with one it must.
        && old.audiences.is_empty() == new.audiences.is_empty()
        && old.audiences.iter().all(|one| new.audiences.contains(one))
        && old.leeway_ms <= new.leeway_ms
        && (old.requires_expiry || !new.requires_expiry);
    // What may differ is the same in both.
    let rest = |identity: &tidegate_config::Identity| tidegate_config::Identity {
        keys: old.keys.clone(),
        algorithms: Vec::new(),
        issuers: Vec::new(),
        audiences: Vec::new(),
        leeway_ms: 0,
        requires_expiry: false,
        expired_code: 0,
        sources: Vec::new(),
        ..identity.clone()
    };
    believes && rest(old) == rest(new)
}

/// Whether sessions of a route may go on under new settings: those would have let them in, and what they have agreed to with their
/// peers stays. Limits, and what happens when an outbox is full, hold from then on. `before`: the generation that has the old one.
fn goes_on(before: &Plan, old: &RoutePlan, new: &Route, identity: Option<&Identity>) -> bool {
    let Route { subprotocols, origins, action, .. } = &old.route;
    let all_in = |old: &[String], new: &[String]| old.iter().all(|one| new.contains(one));
    let takes_subprotocols =
        subprotocols.is_empty() == new.subprotocols.is_empty() && all_in(subprotocols, &new.subprotocols);
    let takes_origins = match (origins.is_empty(), new.origins.is_empty()) {
        (true, takes_any) => takes_any,
        // Without a list whoever has shown a certificate may come from the own one alone, and it is not kept who has.
        (false, true) => !new.takes_own_origin_alone() && !before.has_asked_for_certificates,
        (false, false) => all_in(origins, &new.origins),
    };
    let acts_alike = match (action, &new.action) {
        (Action::Proxy(_), Action::Proxy(new)) => {
            old.proxy.as_ref().is_some_and(|proxy| proxy.may_become(new))
        }
        (Action::Publish(old), Action::Publish(new)) => keeps_publishers(old, new),
        (Action::Topics(old), Action::Topics(new)) => allows_as_much(old, new),
        (Action::Events(old), Action::Events(new)) => {
            allows_all(&old.subscribe, &new.subscribe) && allows_all(&old.presence, &new.presence)
        }
        (Action::Poll(old), Action::Poll(new)) => {
            allows_all(&old.subscribe, &new.subscribe) && allows_all(&old.presence, &new.presence)
        }
        (old, new) => old == new,
    };
    let admits_alike = match (&old.route.client_certificate, &new.client_certificate) {
        (_, None) => true,
        (Some(old), Some(new)) => new.admits_all_of(old),
        (None, Some(_)) => false,
    };
    let demands_no_more = new.claims.iter().all(|claim| claim.follows_from(&old.route.claims));
    takes_subprotocols
        && takes_origins
        && acts_alike
        && admits_alike
        && demands_no_more
        && asks_alike(old.identity.as_deref(), identity)
}

/// Whether sessions with topics may go on with what they have. What may wait for them is looked at whenever something does.
fn allows_as_much(old: &TopicsAction, new: &TopicsAction) -> bool {
    let TopicsAction {
        subscribe,
        publish,
        presence,
        max_subscriptions,
        max_patterns,
        session_bytes: _,
        deflate,
    } = old;
    *deflate == new.deflate
        && *max_subscriptions <= new.max_subscriptions
        && *max_patterns <= new.max_patterns
        && allows_all(subscribe, &new.subscribe)
        && allows_all(publish, &new.publish)
        && allows_all(presence, &new.presence)
}

/// Whether `new` allows all names that `old` does.
fn allows_all(old: &TopicPatterns, new: &TopicPatterns) -> bool {
    old == new || old.as_slice().iter().all(|pattern| new.covers(pattern))
}

/// Requests under way know their key by its place, and so do idempotency keys.
fn keeps_publishers(old: &PublishAction, new: &PublishAction) -> bool {
    let same = |(old, new): (&tidegate_config::PublishKey, &tidegate_config::PublishKey)| {
        old.name == new.name && old.secret == new.secret
    };
    old.keys.len() <= new.keys.len()
        && old.keys.is_empty() == new.keys.is_empty()
        && old.keys.iter().zip(&new.keys).all(same)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(settings: &str) -> tidegate_config::Identity {
        let text = format!(
            "version = 1\n[[listener]]\nbind = \"127.0.0.1:1\"\n[[identity]]\nname = \"a\"\n{settings}\n\
             [[route]]\npath = \"/\"\nidentity = \"a\"\necho = {{}}\n"
        );
        let config = tidegate_config::parse(&text, "test.toml");
        config.unwrap_or_else(|problems| panic!("{problems:#?}")).identities.remove(0)
    }

    #[test]
    fn a_route_that_allows_more_takes_the_place_of_the_one_before() {
        let topics = |more: &str| format!("topics = {{ subscribe = [\"a\", \"b/*\"]{more} }}");
        for (old, new, wider, narrower) in [
            (topics(""), "topics = { subscribe = [\"b/*\", \"a\"] }".to_owned(), true, true),
            (topics(""), "topics = { subscribe = [\"**\"] }".to_owned(), true, false),
            (topics(""), topics(", publish = [\"a\"], presence = [\"a\"]"), true, false),
            (topics(", max_subscriptions = 2"), topics(", max_subscriptions = 3"), true, false),
            (topics(", max_patterns = 2"), topics(", max_patterns = 3"), true, false),
            (topics(""), topics(", session_bytes = \"512KiB\""), true, true),
            (topics(""), topics(", deflate = \"off\""), false, false),
            (
                "events = { subscribe = [\"a\"], presence = [\"a\"] }".to_owned(),
                "events = { subscribe = [\"b\", \"a\"], presence = [\"*\"], session_bytes = \"9KiB\" }"
                    .to_owned(),
                true,
                false,
            ),
            (
                "poll = { subscribe = [\"a\"] }".to_owned(),
                "poll = { subscribe = [\"a\"], presence = [\"a\"], session_bytes = \"9KiB\" }".to_owned(),
                true,
                false,
            ),
        ] {
            let goes_on = |old: &str, new: &str| {
                let [old, new] = [old, new].map(|action| {
                    let text = format!(
                        "version = 1\n[[listener]]\nbind = \"127.0.0.1:1\"\n[[route]]\npath = \"/t\"\n{action}\n"
                    );
                    let config = tidegate_config::parse(&text, "test.toml");
                    config.unwrap_or_else(|problems| panic!("{problems:#?}"))
                });
                let before = Plan::new(old, 1);
                before.next(new).expect("it can follow").changes_since(&before).replaced.is_empty()
            };
            assert_eq!(goes_on(&old, &new), wider, "{old} {new}");
            assert_eq!(goes_on(&new, &old), narrower, "{new} {old}");
        }
    }

    #[test]
    fn who_believes_more_lets_all_of_before_in() {
        const SECRET: &str =
            "secret = \"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"\n";
        const HS256: &str = "algorithms = [\"HS256\"]";
        for (old, new, wider, narrower) in [
            ("issuers = [\"i\"]", "issuers = [\"j\", \"i\"]", true, false),
            ("issuers = [\"i\"]", "", true, false),
            ("audiences = [\"i\"]", "audiences = [\"j\", \"i\"]", true, false),
            ("audiences = [\"i\"]", "", false, false),
            (HS256, "algorithms = [\"HS512\", \"HS256\"]", true, false),
            ("token = [\"authorization\"]", "token = [\"query:t\", \"authorization\"]", true, false),
            ("leeway = \"1s\"", "leeway = \"5s\"", true, false),
            ("expired_code = 4401", "expired_code = 4402", true, true),
            ("user = \"sub\"", "user = \"uid\"", false, false),
            ("headers = { \"X-A\" = \"a\" }", "headers = { \"X-A\" = \"a\", \"X-B\" = \"b\" }", false, false),
        ] {
            let algorithms = if old == HS256 { "" } else { HS256 };
            let [less, more] =
                [old, new].map(|settings| identity(&format!("{SECRET}{algorithms}\n{settings}")));
            assert_eq!(believes_all_of(&less, &more), wider, "{old} {new}");
            assert_eq!(believes_all_of(&more, &less), narrower, "{new} {old}");
            assert!(believes_all_of(&less, &less));
        }
        let hook = "hook = { url = \"https://a.test/\" }\n";
        let keys = format!("{SECRET}{HS256}\nexpiry = \"optional\"");
        assert!(!believes_all_of(&identity(hook), &identity(&keys)), "who only the hook has let in");
        let (before, after) =
            (format!("{SECRET}{HS256}"), format!("{SECRET}{HS256}").replace("0123", "3210"));
        assert!(believes_all_of(&identity(&before), &identity(&after)), "keys are changed under sessions");
    }
}
