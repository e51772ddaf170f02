//! What somebody wants to get no sessions for a while: routes and upstreams, by what the configuration calls them, so that they stay
//! drained in the generations behind this one.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tidegate_config::Route;
use tidegate_hub::RouteId;

use super::Plan;
use crate::leaving::Whom;

/// All that is drained. The same for all generations.
#[derive(Default)]
pub(super) struct Drains(Mutex<BTreeSet<Drained>>);

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Drained {
    /// A route, by its host and path and the subprotocols that it takes.
    Route(String, Vec<String>),
    /// An upstream by its URL, on whichever routes it is.
    Upstream(String),
}

impl Drains {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<Drained>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drained {
    fn route(route: &Route) -> Drained {
        Drained::Route(name(route), route.subprotocols.clone())
    }

    fn name(self) -> String {
        match self {
            Drained::Route(name, _) | Drained::Upstream(name) => name,
        }
    }
}

/// A route's host and path.
fn name(route: &Route) -> String {
    let host = route.host.as_ref().map(ToString::to_string).unwrap_or_default();
    format!("{host}{}", route.path)
}

impl Plan {
    /// The routes and upstreams that somebody means by `name`: a route by its host and path as in the file
    /// (`chat.example.com/app/*`, `/echo`), an upstream by its URL, on whichever routes it is.
    pub fn named(&self, name: &str) -> Vec<Whom> {
        let mut named = Vec::new();
        for (id, _) in self.routes.all() {
            if name == self::name(&self.route(id).route) {
                named.push(Whom::Route(id));
            }
            let Some(proxy) = &self.route(id).proxy else { continue };
            let present = (0..=u16::MAX).zip(proxy.upstreams.iter().zip(&proxy.gone));
            let meant = present.filter(|(_, (upstream, gone))| gone.is_none() && upstream.name == name);
            named.extend(meant.map(|(place, _)| Whom::Upstream(id, place)));
        }
        named
    }

    /// Notes that these are drained, or are not any more, in this generation and those behind it. Shards hear of it by letters
    /// ([`crate::Mail::Depart`], [`crate::Mail::Withhold`], [`crate::Mail::Readmit`]), and with the next generation.
    pub fn set_drained(&self, whom: &[Whom], drained: bool) {
        let mut all = self.shared.drains.lock();
        for one in whom.iter().filter_map(|whom| self.lasting(*whom)) {
            if drained {
                all.insert(one);
            } else {
                all.remove(&one);
            }
        }
    }

    /// Whether somebody wants it to get no sessions: of a route also where that is so of all its upstreams.
    pub fn is_drained(&self, whom: Whom) -> bool {
        let all = self.shared.drains.lock();
        let is_named = |whom: Whom| self.lasting(whom).is_some_and(|one| all.contains(&one));
        let Whom::Route(id) = whom else { return is_named(whom) };
        let proxy = self.slots.get(id.index()).and_then(|slot| slot.plan().proxy.as_ref());
        // A proxied route has at least one upstream.
        let has_none_left = proxy.is_some_and(|proxy| {
            let present = (0..=u16::MAX).zip(&proxy.gone).filter(|(_, gone)| gone.is_none());
            present.map(|(place, _)| Whom::Upstream(id, place)).all(is_named)
        });
        has_none_left || is_named(whom)
    }

    /// Forgets what is drained and not in this generation any more; gives what it was called.
    pub fn forget_drains(&self) -> Vec<String> {
        let here: BTreeSet<Drained> =
            self.each().filter(|(_, is_here)| *is_here).filter_map(|(whom, _)| self.lasting(whom)).collect();
        let gone: Vec<Drained> =
            self.shared.drains.lock().extract_if(.., |one| !here.contains(one)).collect();
        gone.into_iter().map(Drained::name).collect()
    }

    /// All places that get no sessions, those included that only sessions of before have.
    pub(crate) fn drained(&self) -> BTreeSet<Whom> {
        let all = self.shared.drains.lock().clone();
        if all.is_empty() {
            return BTreeSet::new();
        }
        let is_drained = |whom: &Whom| self.lasting(*whom).is_some_and(|one| all.contains(&one));
        self.each().map(|(whom, _)| whom).filter(is_drained).collect()
    }

    /// Each route and upstream, and whether the configuration has it.
    fn each(&self) -> impl Iterator<Item = (Whom, bool)> {
        (0..=u16::MAX).zip(&self.slots).flat_map(|(number, slot)| {
            let id = RouteId(number);
            let here = slot.retired().is_none();
            let gone = slot.plan().proxy.as_ref().map_or(&[][..], |proxy| &proxy.gone);
            let upstreams = (0..=u16::MAX).zip(gone);
            let upstreams =
                upstreams.map(move |(place, gone)| (Whom::Upstream(id, place), here && gone.is_none()));
            std::iter::once((Whom::Route(id), here)).chain(upstreams)
        })
    }

    /// What it is called in any generation.
    fn lasting(&self, whom: Whom) -> Option<Drained> {
        match whom {
            Whom::All => None,
            Whom::Route(id) => Some(Drained::route(&self.slots.get(id.index())?.plan().route)),
            Whom::Upstream(id, place) => {
                self.upstream_name(id.0, place).map(|url| Drained::Upstream(url.to_owned()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_route_without_an_upstream_that_takes_sessions_is_drained() {
        let text = "version = 1\n[[listener]]\nbind = '127.0.0.1:0'\n\
                    [[route]]\npath = '/two'\nproxy = { upstreams = ['ws://127.0.0.1:2', 'ws://127.0.0.1:3'] }\n\
                    [[route]]\npath = '/one'\nproxy = { upstreams = ['ws://127.0.0.1:2'] }\n\
                    [[route]]\npath = '/echo'\necho = {}\n";
        let config = |text: &str| tidegate_config::parse(text, "t.toml").unwrap();
        let plan = Plan::new(config(text), 1);
        let drained =
            |plan: &Arc<Plan>| ["/two", "/one", "/echo"].map(|name| plan.is_drained(plan.named(name)[0]));
        assert_eq!(drained(&plan), [false; 3]);
        plan.set_drained(&plan.named("ws://127.0.0.1:2"), true);
        assert_eq!(drained(&plan), [false, true, false]);
        plan.set_drained(&plan.named("ws://127.0.0.1:3"), true);
        assert_eq!(drained(&plan), [true, true, false]);
        // A new one takes sessions; one that is gone takes none, whatever was said of it.
        let plan = plan.next(config(&text.replacen("127.0.0.1:3", "127.0.0.1:4", 1))).unwrap();
        assert_eq!(drained(&plan), [false, true, false]);
        plan.set_drained(&plan.named("ws://127.0.0.1:4"), true);
        assert_eq!(drained(&plan), [true, true, false]);
        plan.set_drained(&plan.named("ws://127.0.0.1:2"), false);
        assert_eq!(drained(&plan), [false; 3]);
    }
}
