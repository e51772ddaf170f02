//! The gateway as the control plane knows it: its plan, the ways to its shards, and what they have said last.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use tidegate_shard::{
    Mail, Plan, RouteId, Whom,
    report::{Cell, Reply, Report, RouteCounts, UpstreamState},
};
use tokio::{sync::oneshot, time::timeout_at};

use crate::{
    names::{Named, NamedUpstream, RouteNames},
    operations::Operations,
    pulse::Pulse,
};

/// How long is waited for shards to say how they are: what they said before has to do beyond it.
const PATIENCE: Duration = Duration::from_millis(500);

/// The way to one shard.
pub struct ShardWay {
    /// Where it leaves its numbers.
    pub cell: Arc<Cell>,
    /// Leaves a letter with it; whether its mailbox had room.
    pub send: Box<dyn Fn(Mail) -> bool + Send + Sync>,
}

impl fmt::Debug for ShardWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardWay").finish_non_exhaustive()
    }
}

/// A certificate that is served, or shown to upstreams.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The file that it was read from.
    pub file: String,
    /// Until when it is valid.
    pub not_after: SystemTime,
}

/// What there is to show and to tell.
pub struct Gateway {
    pub(crate) version: &'static str,
    pub(crate) backend: String,
    plan: ArcSwap<Plan>,
    pub(crate) names: RouteNames,
    pub(crate) shards: Vec<ShardWay>,
    certificates: ArcSwap<Vec<Certificate>>,
    pub(crate) pulses: Vec<Pulse>,
    pub(crate) started: SystemTime,
    ready: AtomicBool,
    generation: AtomicU64,
    lost_lines: Arc<AtomicU64>,
    /// Whom to ask for reloads and drains, as long as the gateway neither starts nor ends.
    operations: Mutex<Option<Operations>>,
}

impl Gateway {
    /// A gateway that is not ready yet; its shards in the order of their numbers.
    #[must_use]
    pub fn new(
        version: &'static str,
        backend: String,
        plan: Arc<Plan>,
        names: RouteNames,
        shards: Vec<ShardWay>,
        certificates: Vec<Certificate>,
        lost_lines: Arc<AtomicU64>,
    ) -> Self {
        Self {
            version,
            backend,
            names,
            plan: ArcSwap::new(plan),
            pulses: shards.iter().map(|_| Pulse::default()).collect(),
            shards,
            certificates: ArcSwap::from_pointee(certificates),
            started: SystemTime::now(),
            ready: AtomicBool::new(false),
            generation: AtomicU64::new(1),
            lost_lines,
            operations: Mutex::default(),
        }
    }

    /// All shards accept.
    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }

    /// Reloads and drains can be asked for; `None`: not any more.
    pub fn set_operations(&self, operations: Option<Operations>) {
        *self.operations() = operations;
    }

    pub(crate) fn operations(&self) -> MutexGuard<'_, Option<Operations>> {
        self.operations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another configuration is about to be given to the shards. Its names were adopted already: what shards say of it is understood
    /// from the first of them on.
    pub fn expect(&self, plan: Arc<Plan>) {
        self.plan.store(plan);
    }

    /// It is in force: the first has the number 1.
    pub fn adopt(&self, certificates: Vec<Certificate>, generation: u64) {
        self.certificates.store(Arc::new(certificates));
        self.generation.store(generation, Ordering::Relaxed);
    }

    pub(crate) fn plan(&self) -> Arc<Plan> {
        self.plan.load_full()
    }

    pub(crate) fn certificates(&self) -> Arc<Vec<Certificate>> {
        self.certificates.load_full()
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    pub(crate) fn is_started(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    pub(crate) fn lost_lines(&self) -> u64 {
        self.lost_lines.load(Ordering::Relaxed)
    }

    /// Whether some shard drains.
    pub(crate) fn is_draining(&self) -> bool {
        self.shards.iter().any(|shard| shard.cell.read().draining)
    }

    /// Whether somebody has drained all routes, each by itself or by all its upstreams.
    pub(crate) fn is_drained(&self) -> bool {
        let plan = self.plan();
        plan.numbered_routes().all(|(number, _)| plan.is_drained(Whom::Route(RouteId(number))))
    }

    /// What each shard says now; of one that does not answer in time, what it said last.
    pub(crate) async fn reports(&self) -> Vec<Report> {
        let answers: Vec<_> = self.shards.iter().map(|shard| shard.ask(Mail::Report)).collect();
        let until = tokio::time::Instant::now() + PATIENCE;
        for answer in answers {
            // A shard that has ended answers nobody.
            let _ = timeout_at(until, answer).await;
        }
        self.shards.iter().map(|shard| shard.cell.read()).collect()
    }
}

/// What shards have counted for a route. Not those that do not know it yet: what they have counted at its number was another's.
pub(crate) fn counts_of_route<'r>(
    reports: &'r [Report],
    route: &Named,
) -> impl Iterator<Item = RouteCounts> + use<'r> {
    let (number, since) = (usize::from(route.number), route.since);
    let knowing = reports.iter().filter(move |report| report.generation >= since);
    knowing.filter_map(move |report| report.routes.get(number).copied())
}

/// Sessions that a route has now.
pub(crate) fn sessions_of_route(reports: &[Report], route: &Named) -> u64 {
    counts_of_route(reports, route).map(|counts| open(&counts)).sum()
}

/// Sessions that a route has now on one shard. A miscount is no reason to end the process.
pub(crate) fn open(counts: &RouteCounts) -> u64 {
    counts.opened.saturating_sub(counts.ended)
}

/// What shards know of an upstream. Not those that do not know it yet: what they have at its place was another's.
pub(crate) fn states_of_upstream<'r>(
    reports: &'r [Report],
    upstream: &NamedUpstream,
) -> impl Iterator<Item = UpstreamState> + use<'r> {
    let (number, place) = (upstream.route.number, upstream.place);
    let since = upstream.since.max(upstream.route.since);
    let states =
        reports.iter().filter(move |report| report.generation >= since).flat_map(|report| &report.upstreams);
    states.filter(move |state| (state.route, state.upstream) == (number, place)).copied()
}

/// Sessions that an upstream has now, those that are being made included.
pub(crate) fn sessions_of_upstream(reports: &[Report], upstream: &NamedUpstream) -> u64 {
    states_of_upstream(reports, upstream).map(|state| u64::from(state.legs)).sum()
}

impl ShardWay {
    /// Sends a letter that is answered; where it was not taken the answer fails at once.
    pub(crate) fn ask<T: Send + 'static>(
        &self,
        letter: impl FnOnce(Reply<T>) -> Mail,
    ) -> oneshot::Receiver<T> {
        let (tell, told) = oneshot::channel();
        // Nobody may wait for it any more.
        let reply = Reply::new(move |answer| drop(tell.send(answer)));
        // A letter that is not taken is dropped, and its answer with it.
        let _ = (self.send)(letter(reply));
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{families, metrics::Format};

    fn config(routes: &str) -> tidegate_config::Config {
        let text = format!("version = 1\n[[listener]]\nbind = '127.0.0.1:0'\n{routes}");
        tidegate_config::parse(&text, "t.toml").unwrap()
    }

    fn gateway(plan: &Arc<Plan>, names: &RouteNames) -> Gateway {
        let way = || ShardWay { cell: Arc::default(), send: Box::new(|_| true) };
        let ways = vec![way(), way()];
        let lost = Arc::default();
        Gateway::new("1", "epoll".to_owned(), Arc::clone(plan), names.clone(), ways, Vec::new(), lost)
    }

    fn report(generation: u64, opened: u64, upstreams: &[(u16, u16, u32)]) -> Report {
        let upstreams = upstreams.iter().map(|(route, upstream, legs)| UpstreamState {
            route: *route,
            upstream: *upstream,
            legs: *legs,
            ..UpstreamState::default()
        });
        let counts = RouteCounts { opened, ..RouteCounts::default() };
        Report { generation, routes: vec![counts; 2], upstreams: upstreams.collect(), ..Report::default() }
    }

    /// The lines of a family without its name.
    fn samples(text: &str, family: &str) -> Vec<String> {
        text.lines()
            .filter_map(|line| line.strip_prefix(family)?.strip_prefix('{').map(str::to_owned))
            .collect()
    }

    #[test]
    fn what_a_shard_has_counted_before_it_knew_a_route_is_none_of_that() {
        const A: &str = "[[route]]\npath = '/a'\necho = {}\n";
        let up = "[[route]]\npath = '/u'\nproxy = { upstreams = ['ws://one.test', 'ws://two.test'] }\n";
        let first = Plan::new(config(A), 2);
        let names = RouteNames::new(&first);
        let gateway = gateway(&first, &names);
        let second = first.next(config(&format!("{A}{up}"))).unwrap();
        names.adopt(&second);
        gateway.expect(second);
        let text = |reports: &[Report]| families::write(&gateway, reports, Format::Text);
        // Neither shard has it yet, and what they have had at its number had three upstreams.
        let old = report(1, 7, &[(1, 0, 3), (1, 1, 3), (1, 2, 3)]);
        let none = text(&[old.clone(), old.clone()]);
        assert_eq!(samples(&none, "tidegate_upstream_up"), [""; 0]);
        assert_eq!(samples(&none, "tidegate_sessions"), ["route=\"/a\"} 14", "route=\"/u\"} 0"]);
        // One of them has.
        let one = text(&[old, report(2, 1, &[(1, 0, 5), (1, 1, 6)])]);
        assert_eq!(samples(&one, "tidegate_sessions"), ["route=\"/a\"} 8", "route=\"/u\"} 1"]);
        let legs =
            ["one.test\"} 5", "two.test\"} 6"].map(|rest| format!("route=\"/u\",upstream=\"ws://{rest}"));
        assert_eq!(samples(&one, "tidegate_upstream_sessions"), legs);
        for text in [none, one] {
            assert!(!text.contains("route=\"\"") && !text.contains("upstream=\"\""), "{text}");
        }
    }

    #[test]
    fn what_a_shard_has_counted_of_an_upstream_is_none_of_the_one_that_has_its_place_now() {
        let up = |urls: &str| format!("[[route]]\npath = '/u'\nproxy = {{ upstreams = [{urls}] }}\n");
        let first = Plan::new(config(&up("'ws://one.test', 'ws://two.test'")), 2);
        let names = RouteNames::new(&first);
        let gateway = gateway(&first, &names);
        let second = first.next(config(&up("'ws://one.test'"))).unwrap();
        names.adopt(&second);
        // Neither shard has anybody at the second any more, and it is another's.
        second.say_all_left();
        let third = second.next(config(&up("'ws://one.test', 'ws://three.test'"))).unwrap();
        assert_eq!(third.upstream_name(0, 1), Some("ws://three.test"));
        names.adopt(&third);
        gateway.expect(third);
        let report = |generation, failures, legs| {
            let states = [0, 1].map(|upstream| UpstreamState {
                upstream,
                failures,
                legs,
                failed_ms: 5,
                ..Default::default()
            });
            Report { generation, upstreams: states.to_vec(), ..Report::default() }
        };
        let told = |reports: &[Report], family: &str| {
            let text = families::write(&gateway, reports, Format::Text);
            let samples = samples(&text, family);
            samples.into_iter().map(|line| line.replace("route=\"/u\",upstream=", "")).collect::<Vec<_>>()
        };
        // None of them has taken it over; then one has, and both.
        let [none, one, both] = [[2, 2], [3, 2], [3, 3]].map(|generations| {
            generations.map(|generation| if generation == 2 { report(2, 7, 0) } else { report(3, 1, 4) })
        });
        const FAILURES: &str = "tidegate_upstream_failures_total";
        assert_eq!(told(&none, FAILURES), ["\"ws://one.test\"} 14"]);
        assert_eq!(told(&one, FAILURES), ["\"ws://one.test\"} 8", "\"ws://three.test\"} 1"]);
        assert_eq!(told(&both, FAILURES), ["\"ws://one.test\"} 2", "\"ws://three.test\"} 2"]);
        let mut mended = one.clone();
        mended[1].upstreams[1].succeeded_ms = 6;
        assert_eq!(told(&mended, "tidegate_upstream_up"), ["\"ws://one.test\"} 0", "\"ws://three.test\"} 0"]);
        mended[0].upstreams[0].succeeded_ms = 6;
        assert_eq!(told(&mended, "tidegate_upstream_up"), ["\"ws://one.test\"} 1", "\"ws://three.test\"} 0"]);
    }

    #[test]
    fn what_shards_have_miscounted_is_told_and_ends_nobody() {
        let plan = Plan::new(config("[[route]]\npath = '/a'\necho = {}\n"), 2);
        let names = RouteNames::new(&plan);
        let mut miscounted = report(1, 1, &[]);
        miscounted.routes[0].ended = 2;
        let reports = [miscounted, report(1, 1, &[])];
        let text = families::write(&gateway(&plan, &names), &reports, Format::Text);
        assert_eq!(samples(&text, "tidegate_sessions"), ["route=\"/a\"} 1"]);
        assert_eq!(sessions_of_route(&reports, &names.named(0).unwrap()), 1);
    }

    #[tokio::test]
    async fn a_shard_that_has_never_turned_is_not_one_that_has_just_turned() {
        let plan = Plan::new(config("[[route]]\npath = '/a'\necho = {}\n"), 2);
        let names = RouteNames::new(&plan);
        let gateway = gateway(&plan, &names);
        let ages = |text: &str| -> Vec<f64> {
            let samples = samples(text, "tidegate_last_turn_age_seconds");
            samples.iter().map(|line| line.split_once(' ').unwrap().1.parse().unwrap()).collect()
        };
        tokio::time::sleep(Duration::from_millis(20)).await;
        let text = families::write(&gateway, &gateway.reports().await, Format::Text);
        assert!(ages(&text).iter().all(|age| *age >= 0.02), "{:?}", ages(&text));
    }
}
