//! What routes are called in answers, metrics and the log, by the numbers that shards give them.

use std::{collections::HashSet, iter, sync::Arc};

use arc_swap::ArcSwap;
use tidegate_shard::Plan;

/// Generations whose names are known yet: lines of the log are told with those of their time, and wait for seconds at most.
const KEPT: usize = 8;

/// The names of all routes, no two alike. Clones are the same.
#[derive(Clone, Debug)]
pub struct RouteNames(Arc<ArcSwap<Vec<Arc<Names>>>>);

/// Those of a generation.
#[derive(Clone, Debug, Default)]
struct Names {
    generation: u64,
    /// By number.
    all: Vec<Name>,
    /// The numbers of the configuration in force, in its order.
    present: Vec<u16>,
}

/// What a route is called; all is empty for a number that no route has had.
#[derive(Clone, Debug, Default)]
struct Name {
    /// Its host and path.
    plain: String,
    /// The same, with a number behind it where that is another's name.
    distinct: String,
    /// Its upstreams by their places; those that are no more keep theirs.
    upstreams: Arc<[Placed]>,
    /// The first generation that has it at this number.
    since: u64,
}

/// An upstream at its place in a route.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Placed {
    /// As it is configured.
    name: String,
    /// The first generation that has it at this place of this route.
    since: u64,
}

/// A route by its number and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) number: u16,
    pub(crate) name: String,
    /// The first generation that has it at this number: what shards have counted there before was another's.
    pub(crate) since: u64,
}

/// An upstream by its place in a route, and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedUpstream {
    pub(crate) route: Named,
    pub(crate) place: u16,
    pub(crate) name: String,
    /// The first generation that has it at this place: what shards have counted there before was another's.
    pub(crate) since: u64,
}

impl RouteNames {
    /// Those of a plan.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let names = Self(Arc::default());
        names.adopt(plan);
        names
    }

    /// Takes over those of another plan: its routes are called as after a restart, whatever was called so before. A number that no
    /// route has any more keeps its name, unless a route has that now: its last sessions are still told of.
    pub fn adopt(&self, plan: &Plan) {
        let before = self.newest();
        let was_here: HashSet<u16> = before.present.iter().copied().collect();
        let mut all = before.all.clone();
        let mut present = Vec::new();
        let mut taken = HashSet::new();
        for (number, route) in plan.numbered_routes() {
            let host = route.host.as_ref().map(ToString::to_string).unwrap_or_default();
            let plain = format!("{host}{}", route.path);
            let place = usize::from(number);
            if all.len() <= place {
                all.resize(place + 1, Name::default());
            }
            let distinct = take(&mut taken, &plain);
            // A number is another route's only when it was nobody's for a generation at least.
            let old = was_here.contains(&number).then(|| &all[place]);
            let since = old.map_or(plan.generation(), |old| old.since);
            let known = old.map_or(&[][..], |old| &old.upstreams);
            let upstreams = (0..=u16::MAX).map_while(|place| plan.upstream_name(number, place));
            // A place is another upstream's as soon as no shard has a session of the one before.
            let placed =
                upstreams.zip(known.iter().map(Some).chain(iter::repeat(None))).map(|(name, old)| {
                    let since = old.filter(|old| old.name == name).map_or(plan.generation(), |old| old.since);
                    Placed { name: name.to_owned(), since }
                });
            let upstreams = placed.collect();
            all[place] = Name { plain, distinct, upstreams, since };
            present.push(number);
        }
        let here: HashSet<u16> = present.iter().copied().collect();
        for (number, name) in (0..=u16::MAX).zip(&mut all) {
            let is_gone = !here.contains(&number) && !name.plain.is_empty();
            if is_gone && !taken.insert(name.distinct.clone()) {
                name.distinct = take(&mut taken, &name.plain);
            }
        }
        let generation = plan.generation();
        let kept = self.0.load();
        let earlier = kept.iter().filter(|names| names.generation < generation);
        let earlier = earlier.skip(kept.len().saturating_sub(KEPT - 1)).cloned();
        self.0.store(Arc::new(
            earlier.chain(iter::once(Arc::new(Names { generation, all, present }))).collect(),
        ));
    }

    /// Those of the newest generation.
    fn newest(&self) -> Arc<Names> {
        self.0.load().last().cloned().unwrap_or_default()
    }

    /// What a route was called, and an upstream at a place of it, when a generation was in force; nothing where that is too long ago.
    #[must_use]
    pub fn names_at(
        &self,
        generation: u64,
        route: u16,
        place: Option<u16>,
    ) -> (Option<String>, Option<String>) {
        let kept = self.0.load();
        let Some(names) = kept.iter().rfind(|names| names.generation <= generation) else {
            return (None, None);
        };
        let upstream = place.and_then(|place| names.named_upstream(route, place));
        (names.named(route).map(|route| route.name), upstream.map(|upstream| upstream.name))
    }

    /// A route's name by its number.
    #[must_use]
    pub fn name(&self, number: u16) -> Option<String> {
        self.named(number).map(|route| route.name)
    }

    /// An upstream by its route's number and its place there.
    pub(crate) fn named_upstream(&self, route: u16, place: u16) -> Option<NamedUpstream> {
        self.newest().named_upstream(route, place)
    }

    /// Where an upstream of this name is: numbers of routes, and its places there.
    pub(crate) fn places_of(&self, upstream: &str) -> Vec<(u16, u16)> {
        let names = self.newest();
        let routes = (0..=u16::MAX).zip(&names.all);
        let placed = routes.flat_map(|(route, name)| {
            (0..=u16::MAX).zip(&*name.upstreams).map(move |(place, placed)| (route, place, placed))
        });
        placed
            .filter(|(.., placed)| placed.name == upstream)
            .map(|(route, place, _)| (route, place))
            .collect()
    }

    /// A route by its number.
    pub(crate) fn named(&self, number: u16) -> Option<Named> {
        self.newest().named(number)
    }

    /// All that have been seen.
    pub(crate) fn all(&self) -> Vec<Named> {
        let names = self.newest();
        (0..=u16::MAX).zip(&names.all).filter_map(|(number, _)| names.named(number)).collect()
    }

    /// Those of the configuration in force, in its order.
    pub(crate) fn present(&self) -> Vec<Named> {
        let names = self.newest();
        names.present.iter().filter_map(|number| names.named(*number)).collect()
    }

    /// The number of a route of the configuration in force, by its name.
    #[must_use]
    pub fn present_number(&self, name: &str) -> Option<u16> {
        self.present().into_iter().find(|route| route.name == name).map(|route| route.number)
    }

    /// A route's number by its name.
    pub(crate) fn number(&self, name: &str) -> Option<u16> {
        self.all().into_iter().find(|route| route.name == name).map(|route| route.number)
    }
}

impl Names {
    fn named(&self, number: u16) -> Option<Named> {
        let Name { plain, distinct, since, .. } = self.all.get(usize::from(number))?;
        (!plain.is_empty()).then(|| Named { number, name: distinct.clone(), since: *since })
    }

    fn named_upstream(&self, route: u16, place: u16) -> Option<NamedUpstream> {
        let upstreams = &self.all.get(usize::from(route))?.upstreams;
        let Placed { name, since } = upstreams.get(usize::from(place))?.clone();
        Some(NamedUpstream { route: self.named(route)?, place, name, since })
    }
}

/// Takes a name that nobody has: this one, or with the lowest number behind it. Routes may differ by subprotocol or by what they do,
/// and one that is no more by the time.
fn take(taken: &mut HashSet<String>, plain: &str) -> String {
    let mut distinct = plain.to_owned();
    let mut count = 1;
    while !taken.insert(distinct.clone()) {
        count += 1;
        distinct = format!("{plain} ({count})");
    }
    distinct
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(routes: &str) -> tidegate_config::Config {
        let text = format!("version = 1\n[[listener]]\nbind = '127.0.0.1:0'\n{routes}");
        tidegate_config::parse(&text, "t.toml").unwrap()
    }

    fn numbered(names: &RouteNames) -> Vec<(u16, String)> {
        names.present().into_iter().map(|route| (route.number, route.name)).collect()
    }

    fn plan(routes: &str) -> Arc<Plan> {
        Plan::new(config(routes), 1)
    }

    #[test]
    fn routes_of_one_path_have_names_of_their_own() {
        let names = RouteNames::new(&plan(
            "[[route]]\nhost = 'a.test'\npath = '/x/*'\nsubprotocols = ['one']\necho = {}\n\
             [[route]]\nhost = 'a.test'\npath = '/x/*'\necho = {}\n[[route]]\npath = '/p'\necho = {}\n",
        ));
        let all: Vec<String> = names.all().into_iter().map(|route| route.name).collect();
        assert_eq!(all, ["a.test/x/*", "a.test/x/* (2)", "/p"]);
        assert_eq!((names.number("/p"), names.number("/q"), names.name(3)), (Some(2), None, None));
    }

    #[test]
    fn what_is_gone_keeps_its_name_for_its_last_sessions() {
        let names =
            RouteNames::new(&plan("[[route]]\npath = '/a'\necho = {}\n[[route]]\npath = '/b'\necho = {}\n"));
        names.clone().adopt(&plan("[[route]]\npath = '/c'\necho = {}\n"));
        assert_eq!((names.name(0).as_deref(), names.name(1).as_deref()), (Some("/c"), Some("/b")));
        assert_eq!(numbered(&names), [(0, "/c".to_owned())]);
    }

    #[test]
    fn upstreams_are_called_as_they_are_configured_also_those_that_are_no_more() {
        let up = |urls: &str| format!("[[route]]\npath = '/u'\nproxy = {{ upstreams = [{urls}] }}\n");
        let echo = "[[route]]\npath = '/a'\necho = {}\n";
        let first = plan(&format!("{echo}{}", up("'ws://one.test', 'ws://two.test:81'")));
        let names = RouteNames::new(&first);
        let upstream = |route, place| names.named_upstream(route, place).map(|upstream| upstream.name);
        assert_eq!(upstream(1, 0).as_deref(), Some("ws://one.test"));
        let second = first.next(config(&up("'ws://two.test:81', 'ws://three.test'"))).unwrap();
        names.adopt(&second);
        let all: Vec<_> = (0..4).map(|place| upstream(1, place)).collect();
        let told: Vec<_> = all.iter().map(Option::as_deref).collect();
        let wanted = ["ws://one.test", "ws://two.test:81", "ws://three.test"];
        assert_eq!(told, [&wanted.map(Some)[..], &[None]].concat());
        assert_eq!((upstream(0, 0), upstream(9, 0)), (None, None));
    }

    #[test]
    fn what_has_happened_is_told_by_the_names_of_its_time() {
        let up = |path: &str, urls: &str| {
            format!("[[route]]\npath = '{path}'\nproxy = {{ upstreams = [{urls}] }}\n")
        };
        let first = plan(&up("/a", "'ws://one.test', 'ws://two.test'"));
        let names = RouteNames::new(&first);
        let mut last = first;
        let mut next = |routes: &str| {
            last.say_all_left();
            last = last.next(config(routes)).unwrap();
            names.adopt(&last);
        };
        next(&up("/a", "'ws://one.test'"));
        next(&up("/a", "'ws://one.test', 'ws://three.test'"));
        next("[[route]]\npath = '/b'\necho = {}\n");
        next("[[route]]\npath = '/b'\necho = {}\n[[route]]\npath = '/c'\necho = {}\n");
        let told = |generation, place| {
            let (route, upstream) = names.names_at(generation, 0, place);
            format!("{} {}", route.unwrap_or_default(), upstream.unwrap_or_default())
        };
        assert_eq!([1, 3, 5].map(|generation| told(generation, None)), ["/a ", "/a ", "/c "]);
        let upstreams = [1, 2, 3, 4, 5].map(|generation| told(generation, Some(1)));
        assert_eq!(
            upstreams,
            ["/a ws://two.test", "/a ws://two.test", "/a ws://three.test", "/a ws://three.test", "/c "]
        );
        // It is no history.
        (0..KEPT).for_each(|_| next("[[route]]\npath = '/d'\necho = {}\n"));
        assert_eq!(told(5, None), " ");
    }

    #[test]
    fn a_route_that_was_replaced_leaves_its_name_to_the_new_one() {
        let x = |deflate: &str| format!("[[route]]\npath = '/x'\necho = {{ deflate = '{deflate}' }}\n");
        let named =
            |names: &RouteNames| -> Vec<String> { names.all().into_iter().map(|route| route.name).collect() };
        let first = plan(&x("on"));
        let names = RouteNames::new(&first);
        let second = first.next(config(&x("off"))).unwrap();
        // Whoever tells it may do so twice.
        for _ in 0..2 {
            names.adopt(&second);
            assert_eq!(named(&names), ["/x (2)", "/x"]);
        }
        assert_eq!((numbered(&names), names.number("/x")), (vec![(1, "/x".to_owned())], Some(1)));
        assert_eq!((names.present_number("/x"), names.present_number("/x (2)")), (Some(1), None));
        // Once more: the sessions of both are still told apart.
        let third =
            second.next(config(&format!("[[route]]\npath = '/first'\necho = {{}}\n{}", x("on")))).unwrap();
        names.adopt(&third);
        assert_eq!(named(&names), ["/x (2)", "/x (3)", "/first", "/x"]);
    }

    #[test]
    fn names_are_those_of_the_file_and_in_its_order() {
        let one = "[[route]]\npath = '/x'\nsubprotocols = ['one']\necho = {}\n";
        let two = "[[route]]\npath = '/x'\necho = {}\n";
        let other = "[[route]]\npath = '/o'\necho = {}\n";
        let first = plan(&format!("{one}{two}"));
        let names = RouteNames::new(&first);
        // The one with subprotocols is replaced; the other stays, and is called as after a restart.
        let changed = one.replace("'one'", "'uno'");
        let second = first.next(config(&format!("{other}{changed}{two}"))).unwrap();
        names.adopt(&second);
        let present: Vec<String> = names.present().into_iter().map(|route| route.name).collect();
        assert_eq!(present, ["/o", "/x", "/x (2)"]);
        assert_eq!((names.name(0).as_deref(), names.number("/x (2)")), (Some("/x (3)"), Some(1)));
    }
}
