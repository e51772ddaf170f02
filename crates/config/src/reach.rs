//! Which routes can never be reached, because earlier ones take all their requests.
//!
//! Each route is compared with what covers it, not with all before it: the patterns that cover a host or a path are a
//! chain, from the narrowest to the widest, and those that a file holds are linked once for all of its routes.

use std::collections::HashMap;

use crate::{HostPattern, PathPattern, Route, section::cut};

/// For each route, the earlier ones that together take every request which it could take, in ascending order; `None`
/// where it can be reached.
///
/// Exact: a host pattern is either one name or infinitely many, and so is a path pattern, so no number of smaller
/// patterns makes up for a larger one; only subprotocols are finite sets that several routes can exhaust together.
#[must_use]
pub fn hiding(routes: &[Route]) -> Vec<Option<Vec<usize>>> {
    Seen::hiding(routes).0
}

/// The position of a pattern among the distinct ones of a file.
type PatternId = usize;

/// The routes so far, by what they take.
struct Seen<'r> {
    hosts: Patterns<Option<&'r HostPattern>>,
    paths: Patterns<&'r PathPattern>,
    /// What was seen with these two patterns.
    spots: HashMap<(PatternId, PatternId), Spot<'r>>,
    /// Look-ups so far: what the work grows with.
    looks: usize,
}

/// The first routes of one host and one path pattern.
#[derive(Default)]
struct Spot<'r> {
    /// The one that asks for no subprotocol.
    any: Option<usize>,
    by_subprotocol: HashMap<&'r str, usize>,
}

/// The distinct patterns of one kind.
struct Patterns<P> {
    ids: HashMap<P, PatternId>,
    /// For each the next wider one that covers it.
    wider: Vec<Option<PatternId>>,
}

impl<'r> Seen<'r> {
    /// The answer, and the look-ups that it took.
    fn hiding(routes: &'r [Route]) -> (Vec<Option<Vec<usize>>>, usize) {
        let mut seen = Self {
            hosts: hosts(routes.iter().map(|route| route.host.as_ref())),
            paths: paths(routes.iter().map(|route| &route.path)),
            spots: HashMap::new(),
            looks: 0,
        };
        let mut hiding = Vec::with_capacity(routes.len());
        for (index, route) in routes.iter().enumerate() {
            hiding.push(seen.hiding_one(route));
            seen.add(index, route);
        }
        (hiding, seen.looks)
    }

    /// Those of the routes so far that take all requests of this one.
    fn hiding_one(&mut self, hidden: &Route) -> Option<Vec<usize>> {
        let Self { hosts, paths, spots, looks } = self;
        let mut wider = Vec::new();
        for path in paths.chain(&&hidden.path) {
            for host in hosts.chain(&hidden.host.as_ref()) {
                *looks += 1;
                wider.extend(spots.get(&(host, path)));
            }
        }
        if let Some(first) = wider.iter().filter_map(|spot| spot.any).min() {
            return Some(vec![first]);
        }
        if hidden.subprotocols.is_empty() {
            return None;
        }
        // A request for this route offers one of its subprotocols, perhaps no other: each must be taken.
        let mut hiding = Vec::new();
        for subprotocol in &hidden.subprotocols {
            *looks += wider.len();
            let takers = wider.iter().filter_map(|spot| spot.by_subprotocol.get(subprotocol.as_str()));
            hiding.push(*takers.min()?);
        }
        hiding.sort_unstable();
        hiding.dedup();
        Some(hiding)
    }

    fn add(&mut self, index: usize, route: &'r Route) {
        let at = (self.hosts.ids[&route.host.as_ref()], self.paths.ids[&&route.path]);
        let spot = self.spots.entry(at).or_default();
        if route.subprotocols.is_empty() {
            spot.any.get_or_insert(index);
        }
        for subprotocol in &route.subprotocols {
            spot.by_subprotocol.entry(subprotocol).or_insert(index);
        }
    }
}

impl<P: Eq + std::hash::Hash> Patterns<P> {
    /// A pattern and all that cover it, from the narrowest to the widest.
    fn chain(&self, pattern: &P) -> impl Iterator<Item = PatternId> {
        std::iter::successors(Some(self.ids[pattern]), |id| self.wider[*id])
    }
}

/// The distinct hosts. A name has at most 127 labels, so that each of its endings can be looked for.
fn hosts<'r>(hosts: impl Iterator<Item = Option<&'r HostPattern>>) -> Patterns<Option<&'r HostPattern>> {
    let mut ids = HashMap::new();
    let mut distinct = Vec::new();
    let mut below = HashMap::new();
    for host in hosts {
        ids.entry(host).or_insert_with(|| {
            if let Some(HostPattern::Below(parent)) = host {
                below.insert(parent.as_str(), distinct.len());
            }
            distinct.push(host);
            distinct.len() - 1
        });
    }
    let wider = |host: &Option<&HostPattern>| {
        let (HostPattern::Exact(name) | HostPattern::Below(name)) = (*host)?;
        // A dot with something before it.
        let mut endings = name.match_indices('.').filter(|(at, _)| *at > 0).map(|(at, _)| &name[at + 1..]);
        endings.find_map(|ending| below.get(ending)).or_else(|| ids.get(&None)).copied()
    };
    let wider = distinct.iter().map(wider).collect();
    Patterns { ids, wider }
}

/// The distinct paths. A path may have any number of segments; in order, a prefix stands before all that it covers.
fn paths<'r>(paths: impl Iterator<Item = &'r PathPattern>) -> Patterns<&'r PathPattern> {
    let mut distinct: Vec<&PathPattern> = paths.collect();
    distinct.sort_unstable_by(|one, other| {
        let segments = one.text().split('/').cmp(other.text().split('/'));
        let is_exact = |pattern: &PathPattern| matches!(pattern, PathPattern::Exact(_));
        segments.then(is_exact(one).cmp(&is_exact(other)))
    });
    distinct.dedup();
    let mut covering = Vec::<PatternId>::new();
    let mut wider = Vec::with_capacity(distinct.len());
    for (id, path) in distinct.iter().enumerate() {
        while covering.pop_if(|top| !distinct[*top].covers(path)).is_some() {}
        wider.push(covering.last().copied());
        covering.push(id);
    }
    Patterns { ids: distinct.into_iter().zip(0..).collect(), wider }
}

/// What a route takes, for people.
pub(crate) fn pattern_text(route: &Route) -> String {
    let host = route.host.as_ref().map(ToString::to_string).unwrap_or_default();
    let subprotocols = match route.subprotocols.as_slice() {
        [] => String::new(),
        some => format!(" with {}", few(some.iter().map(|own| cut(own)), ", ")),
    };
    format!("`{host}{}`{subprotocols}", cut(&route.path.to_string()))
}

/// The first few of a list, and how many more there are: it may be as long as the file.
pub(crate) fn few(texts: impl Iterator<Item = impl AsRef<str>>, between: &str) -> String {
    const MOST: usize = 8;
    let mut list = String::new();
    let mut count = 0;
    for text in texts {
        if count < MOST {
            list.push_str(if count == 0 { "" } else { between });
            list.push_str(text.as_ref());
        }
        count += 1;
    }
    if count > MOST {
        list.push_str(&format!("{between}{} more", count - MOST));
    }
    list
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Action, FullAction, Page, RouteLimits};

    fn route(host: Option<HostPattern>, path: PathPattern, subprotocols: Vec<String>) -> Route {
        let (origins, limits) = (Vec::new(), RouteLimits::default());
        Route {
            host,
            path,
            subprotocols,
            origins,
            identity: None,
            claims: Vec::new(),
            client_certificate: None,
            limits,
            full: FullAction::Pause,
            action: Action::Page(Page::Index),
        }
    }

    /// Every pair compared, word for word.
    fn hiding_by_pairs(routes: &[Route], index: usize) -> Option<Vec<usize>> {
        let hidden = &routes[index];
        let wider = |earlier: &&usize| {
            let earlier = &routes[**earlier];
            let host = match (&earlier.host, &hidden.host) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(mine), Some(theirs)) => mine.covers(theirs),
            };
            host && earlier.path.covers(&hidden.path)
        };
        let wider: Vec<usize> = (0..index).collect::<Vec<_>>().iter().filter(wider).copied().collect();
        if let Some(any) = wider.iter().find(|earlier| routes[**earlier].subprotocols.is_empty()) {
            return Some(vec![*any]);
        }
        let taker = |own: &String| wider.iter().find(|one| routes[**one].subprotocols.contains(own)).copied();
        let mut hiding: Vec<usize> = hidden.subprotocols.iter().map(taker).collect::<Option<_>>()?;
        hiding.sort_unstable();
        hiding.dedup();
        (!hiding.is_empty()).then_some(hiding)
    }

    fn some_route() -> impl Strategy<Value = Route> {
        let names = ["test", "a.test", "b.a.test", "ba.test", "::1", "10.0.0.1"];
        let name = proptest::sample::select(names.map(str::to_owned).to_vec());
        let host = proptest::option::of(prop_oneof![
            name.clone().prop_map(HostPattern::Exact),
            name.prop_map(HostPattern::Below),
        ]);
        let path = prop_oneof![
            proptest::sample::select(vec!["/", "/a", "/a/", "/a/b", "/a!", "/a/b/c"])
                .prop_map(|path| PathPattern::Exact(path.to_owned())),
            proptest::sample::select(vec!["", "/a", "/a!", "/a/b", "/b"])
                .prop_map(|path| PathPattern::Prefix(path.to_owned())),
        ];
        let names = ["v1", "v2", "v3"].map(str::to_owned).to_vec();
        (host, path, proptest::sample::subsequence(names, 0..=3))
            .prop_map(|(host, path, subprotocols)| route(host, path, subprotocols))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn the_answer_is_that_of_comparing_every_pair(routes in proptest::collection::vec(some_route(), 0..12)) {
            for (index, hidden) in hiding(&routes).into_iter().enumerate() {
                prop_assert_eq!(hidden, hiding_by_pairs(&routes, index), "{} of {:?}", index, routes);
            }
        }
    }

    #[test]
    fn the_work_grows_with_the_routes_and_not_with_their_pairs() {
        let looks = |count: usize| {
            let routes: Vec<Route> = (0..count)
                .map(|n| {
                    let host = (n % 3 > 0).then(|| HostPattern::Below(format!("h{}.example", n % 7)));
                    let subprotocols = (0..20).map(|m| format!("s{}", n * 20 + m)).collect();
                    route(host, PathPattern::Prefix(format!("/app/{}", n % 50)), subprotocols)
                })
                .collect();
            let (hiding, looks) = Seen::hiding(&routes);
            assert!(hiding.iter().all(Option::is_none));
            looks
        };
        let (some, twice) = (looks(500), looks(1000));
        assert!(some < 500 * 25, "{some} look-ups for 500 routes");
        assert!(twice < some * 5 / 2, "{some} look-ups for 500 routes, {twice} for 1000");
    }
}
