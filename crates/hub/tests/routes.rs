//! Lookup against its definition, and against what the configuration calls unreachable.

use proptest::prelude::*;
use tidegate_config::{
    Action, Config, Echo, FullAction, HostPattern, PathPattern, Route, RouteLimits, bare_host, embedded,
    hiding,
};
use tidegate_hub::{MAX_OFFERS, RouteId, Routes};

fn route(host: Option<HostPattern>, path: PathPattern, subprotocols: &[&str]) -> Route {
    Route {
        host,
        path,
        subprotocols: subprotocols.iter().map(|&text| text.to_owned()).collect(),
        origins: Vec::new(),
        identity: None,
        claims: Vec::new(),
        client_certificate: None,
        limits: RouteLimits::default(),
        full: FullAction::Pause,
        action: Action::Echo(Echo::default()),
    }
}

fn config(routes: Vec<Route>) -> Config {
    Config { routes, ..embedded() }
}

fn exact(path: &str) -> PathPattern {
    PathPattern::Exact(path.to_owned())
}

fn prefix(path: &str) -> PathPattern {
    PathPattern::Prefix(path.to_owned())
}

/// What lookup means, word for word.
fn first_match(routes: &[Route], authority: &str, path: &str, offers: &[&str]) -> Option<usize> {
    routes.iter().position(|route| {
        route.host.as_ref().is_none_or(|host| host.matches(bare_host(authority)))
            && route.path.matches(path)
            && (route.subprotocols.is_empty()
                || route.subprotocols.iter().any(|own| offers.contains(&own.as_str())))
    })
}

fn found(routes: &[Route], authority: &str, path: &str, offers: &[&str]) -> Option<usize> {
    let table = Routes::new(&config(routes.to_vec()));
    table.lookup(authority, path, offers.iter().copied()).map(|(id, route)| {
        assert_eq!(table.all().nth(id.index()), Some((id, route)));
        id.index()
    })
}

#[test]
fn the_first_match_takes_the_request() {
    let routes = [
        route(Some(HostPattern::Exact("a.test".to_owned())), prefix("/app"), &["v1"]),
        route(Some(HostPattern::Below("a.test".to_owned())), exact("/app/x"), &[]),
        route(None, prefix("/app"), &["v2", "v1"]),
        route(None, prefix(""), &[]),
    ];
    assert_eq!(found(&routes, "A.test:8080", "/app/x", &["v2", "v1"]), Some(0));
    assert_eq!(found(&routes, "a.test", "/app/x", &["v2"]), Some(2));
    assert_eq!(found(&routes, "b.a.test", "/app/x", &["v1"]), Some(1));
    assert_eq!(found(&routes, "b.test", "/app", &["v1"]), Some(2));
    assert_eq!(found(&routes, "b.test", "/app", &[]), Some(3));
    assert_eq!(found(&routes, "b.test", "/app", &["V1"]), Some(3), "subprotocols are compared with case");
    assert_eq!(found(&routes[..3], "b.test", "/other", &["v1"]), None);
}

#[test]
fn offers_beyond_the_bound_match_nothing() {
    let routes = [route(None, exact("/"), &["v1"]), route(None, exact("/"), &[])];
    let offers = |before: usize| -> Vec<&str> { vec!["x"; before].into_iter().chain(["v1"]).collect() };
    assert_eq!(found(&routes, "a", "/", &offers(MAX_OFFERS - 1)), Some(0));
    assert_eq!(found(&routes, "a", "/", &offers(MAX_OFFERS)), Some(1));
}

#[test]
fn a_lookup_reads_no_more_offers_than_it_must() {
    let routes = [route(None, exact("/a"), &[]), route(None, exact("/b"), &["v1"])];
    let table = Routes::new(&config(routes.to_vec()));
    let never = std::iter::repeat_with(|| -> &str { panic!("no route needs an offer") });
    assert_eq!(table.lookup("h", "/a", never).map(|(id, _)| id), Some(RouteId(0)));
    // An endless list ends, too.
    assert_eq!(table.lookup("h", "/b", std::iter::repeat("v2")).map(|(id, _)| id), None);
}

const HOSTS: [&str; 5] = ["a.test", "b.a.test", "c.b.a.test", "ba.test", "[::1]:80"];
const PATHS: [&str; 7] = ["/", "/a", "/a/", "/a/b", "/a/b/c", "/ab", "/b"];
const PROTOCOLS: [&str; 3] = ["v1", "v2", "v3"];

fn some_route() -> impl Strategy<Value = Route> {
    let host = proptest::option::of(prop_oneof![
        proptest::sample::select(&HOSTS[..4]).prop_map(|name| HostPattern::Exact(name.to_owned())),
        proptest::sample::select(&HOSTS[..3]).prop_map(|name| HostPattern::Below(name.to_owned())),
    ]);
    let path = prop_oneof![
        proptest::sample::select(&PATHS[..]).prop_map(exact),
        proptest::sample::select(vec!["", "/a", "/a/b", "/b"]).prop_map(prefix),
    ];
    let protocols = proptest::sample::subsequence(PROTOCOLS.to_vec(), 0..=3);
    (host, path, protocols).prop_map(|(host, path, protocols)| route(host, path, &protocols))
}

/// A request that only as few as possible of the other routes can take: where a pattern takes many, a name that no
/// pattern spells out.
fn witnesses(route: &Route) -> Vec<(String, String, Vec<&str>)> {
    let host = match &route.host {
        None => "other.example".to_owned(),
        Some(HostPattern::Exact(name)) => name.clone(),
        Some(HostPattern::Below(name)) => format!("unheard-of.{name}"),
    };
    let path = match &route.path {
        PathPattern::Exact(path) => path.clone(),
        PathPattern::Prefix(path) => format!("{path}/unheard-of"),
    };
    let offers = match route.subprotocols.as_slice() {
        [] => vec![vec![]],
        some => some.iter().map(|own| vec![own.as_str()]).collect(),
    };
    offers.into_iter().map(|offers| (host.clone(), path.clone(), offers)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn lookup_is_the_first_match(
        routes in proptest::collection::vec(some_route(), 0..8),
        host in proptest::sample::select(&HOSTS[..]),
        path in proptest::sample::select(&PATHS[..]),
        offers in proptest::sample::subsequence(PROTOCOLS.to_vec(), 0..=3).prop_shuffle(),
    ) {
        prop_assert_eq!(found(&routes, host, path, &offers), first_match(&routes, host, path, &offers));
    }

    /// What is called unreachable is never found; what is not has a request that finds it.
    #[test]
    fn hidden_routes_are_exactly_those_that_no_request_finds(routes in proptest::collection::vec(some_route(), 1..8)) {
        let table = Routes::new(&config(routes.clone()));
        for ((index, route), hiding) in routes.iter().enumerate().zip(hiding(&routes)) {
            let reached = witnesses(route)
                .iter()
                .any(|(host, path, offers)| first_match(&routes, host, path, offers) == Some(index));
            prop_assert_eq!(hiding.is_none(), reached, "{:?} {:?}", route, hiding);
            prop_assert!(hiding.into_iter().flatten().all(|earlier| earlier < index));
            for host in HOSTS {
                for path in PATHS {
                    for offers in [&[][..], &PROTOCOLS[..1], &PROTOCOLS[1..], &PROTOCOLS[..]] {
                        let found = table.lookup(host, path, offers.iter().copied());
                        prop_assert!(reached || found.is_none_or(|(id, _)| id.index() != index));
                    }
                }
            }
        }
    }
}
