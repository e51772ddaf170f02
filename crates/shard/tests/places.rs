//! Numbers of routes, and places of upstreams within a route: they are given again once nobody is left of who had them, and what was
//! known of these goes with them.

mod stage;

use std::sync::{Arc, Mutex};

use tidegate_io::{Event, ReceiveEnd};
use tidegate_shard::{
    Census, Counted, Departure, Mail, Pace, Plan, RouteId, SessionState, Whom,
    report::{Cell, Reply, Report, RouteCounts, UpstreamState},
};
use tidegate_tls::{ClientConfig, ClientOptions, Trust};
use tidegate_wire::close::CloseCode;

use crate::stage::{Socket, Stage, frame};

const DRAIN: &str = "[drain]\nwindow = \"1s\"\ndeadline = \"2s\"\n";

/// One route with these upstreams, on these ports.
fn upstreams(ports: impl IntoIterator<Item = u16>) -> String {
    let urls: Vec<String> = ports.into_iter().map(|port| format!("\"{}\"", url(port))).collect();
    format!("[[route]]\npath = \"/r\"\nproxy = {{ upstreams = [{}], retries = 0 }}\n", urls.join(", "))
}

fn url(port: u16) -> String {
    format!("ws://127.0.0.1:{port}")
}

fn echoes(paths: impl IntoIterator<Item = String>) -> String {
    paths.into_iter().map(|path| format!("[[route]]\npath = \"{path}\"\necho = {{}}\n")).collect()
}

fn adopt(stage: &mut Stage, rest: &str) -> Arc<Plan> {
    let text = format!("version = 1\n{DRAIN}{rest}\n[[listener]]\nbind = \"127.0.0.1:1\"\n");
    stage.adopt(tidegate_config::parse(&text, "test.toml").unwrap_or_else(|problems| panic!("{problems:#?}")))
}

/// The place of the upstream on this port.
fn place(plan: &Plan, port: u16) -> u16 {
    match plan.named(&url(port))[..] {
        [Whom::Upstream(_, place)] => place,
        ref other => panic!("{port}: {other:?}"),
    }
}

/// A session that the upstream whose turn it is has taken: the client's socket.
fn paired(stage: &mut Stage) -> Socket {
    let client = stage.client("");
    stage.upgrade(client + 1);
    client
}

/// An upstream that is dialed cannot be reached.
fn fail(stage: &mut Stage, upstream: Socket) {
    let token = stage.socket(upstream, |kernel| kernel.connect.take()).expect("it is dialed");
    stage.world.borrow_mut().complete(Event::Connected { token, errno: 111 });
    stage.turns(3);
}

/// Somebody has the sessions of the upstream on this port go, for longer than a reload does.
fn depart(stage: &mut Stage, port: u16) -> Whom {
    let whom = stage.plan.named(&url(port))[0];
    let pace = Pace {
        code: CloseCode::SERVICE_RESTART,
        window_ms: 15_000,
        deadline_ms: 15_000,
        reconnect_delay_ms: 0,
    };
    stage.deliver(Mail::Depart(Departure { whom, pace }));
    whom
}

fn report(stage: &mut Stage, cell: &Cell) -> Report {
    stage.pass(2);
    cell.read()
}

/// What is known of the upstream on this port.
fn known(report: &Report, plan: &Plan, port: u16) -> UpstreamState {
    let place = place(plan, port);
    *report.upstreams.iter().find(|state| state.upstream == place).expect("each place is told of")
}

#[test]
fn a_route_goes_on_with_any_number_of_upstreams_one_after_the_other() {
    const KEPT: u16 = 1;
    let mut stage = Stage::of(&format!("{DRAIN}{}", upstreams([KEPT])), 1);
    let session = paired(&mut stage);
    for generation in 0..13 {
        let before = Arc::clone(&stage.plan);
        let others = (0..100).map(|other| 100 + generation * 100 + other);
        let plan = adopt(&mut stage, &upstreams([KEPT].into_iter().chain(others)));
        let changes = plan.changes_since(&before);
        assert_eq!((changes.changed, changes.replaced.len()), (vec![0], 0), "generation {generation}");
        assert_eq!(place(&plan, KEPT), 0, "it never left");
        // Those of two generations at most: there is nobody to wait for.
        let highest = (0..100).map(|other| place(&plan, 100 + generation * 100 + other)).max();
        assert!(highest.is_some_and(|highest| highest <= 200), "{highest:?}");
    }
    stage.pass(3);
    assert_eq!(stage.down(session), None);
    // What nobody needs any more is no place.
    adopt(&mut stage, &upstreams([KEPT]));
    let plan = adopt(&mut stage, &upstreams([KEPT, 2]));
    assert_eq!(place(&plan, 2), 1);
    assert_eq!(plan.upstream_name(0, 2), None);
    stage.pass(3);
    assert_eq!(stage.down(session), None);
}

/// Its failures, who has drained it, and for how long, were another's.
#[test]
fn an_upstream_at_the_place_of_another_begins_anew() {
    let mut stage = Stage::of(&format!("{DRAIN}{}", upstreams([1, 2])), 1);
    let cell = Arc::new(Cell::default());
    stage.shard.account_to(Arc::clone(&cell));
    let (kept, left) = (paired(&mut stage), paired(&mut stage));
    paired(&mut stage);
    // The second fails, and is drained for longer than it will be there.
    let client = stage.client("");
    fail(&mut stage, client + 1);
    let two = Arc::clone(&stage.plan);
    let state = known(&report(&mut stage, &cell), &two, 2);
    assert_eq!((UpstreamState::is_up([state]), state.failures, state.legs), (false, 1, 1));
    two.set_drained(&[depart(&mut stage, 2)], true);
    // It goes; its session has its time, and so long its place is its own.
    adopt(&mut stage, &upstreams([1]));
    let plan = adopt(&mut stage, &upstreams([1, 3]));
    assert_eq!(place(&plan, 3), 2);
    stage.pass(3);
    assert!(stage.down(left).is_some() && stage.down(kept).is_none());
    let plan = adopt(&mut stage, &upstreams([1, 3, 4]));
    assert_eq!(place(&plan, 4), 1);
    let state = known(&cell.read(), &plan, 4);
    assert_eq!(
        (UpstreamState::is_up([state]), state.failures, state.legs),
        (true, 0, 0),
        "told before anybody asks for the new one"
    );
    // The others know what they knew, and each gets its turn.
    let sessions: Vec<Socket> = (0..3).map(|_| paired(&mut stage)).collect();
    let told = report(&mut stage, &cell);
    assert_eq!([1, 3, 4].map(|port| known(&told, &plan, port).legs), [3, 1, 1]);
    stage.pass(15);
    assert!(sessions.iter().all(|session| stage.down(*session).is_none()), "another was drained");
    // The one that was there before is drained, wherever it is.
    let plan = adopt(&mut stage, &upstreams([1, 2, 3, 4]));
    assert!(plan.is_drained(plan.named(&url(2))[0]) && !plan.is_drained(plan.named(&url(4))[0]));
}

#[test]
fn an_upstream_that_is_back_before_its_place_is_anothers_has_it_as_ever() {
    let mut stage = Stage::of(&format!("{DRAIN}{}", upstreams([1, 2])), 1);
    let sessions = [paired(&mut stage), paired(&mut stage)];
    adopt(&mut stage, &upstreams([1]));
    let plan = adopt(&mut stage, &upstreams([3, 1, 2]));
    assert_eq!([1, 2, 3].map(|port| place(&plan, port)), [0, 1, 2]);
    stage.pass(3);
    assert!(sessions.iter().all(|session| stage.down(*session).is_none()));
    // And with nobody: the new one waits for no place of its own.
    adopt(&mut stage, &upstreams([1, 2]));
    let plan = adopt(&mut stage, &upstreams([4, 3, 2, 1]));
    assert_eq!([1, 2, 3, 4].map(|port| place(&plan, port)), [0, 1, 2, 3]);
    // Once more away, and this time for good.
    adopt(&mut stage, &upstreams([1, 3, 4]));
    let plan = adopt(&mut stage, &upstreams([1, 3, 4, 5]));
    assert_eq!(place(&plan, 5), 4, "its session is there");
    stage.pass(3);
    let plan = adopt(&mut stage, &upstreams([1, 3, 4, 5, 6]));
    assert_eq!((place(&plan, 6), stage.down(sessions[0])), (1, None));
    assert!(stage.down(sessions[1]).is_some());
}

#[test]
fn who_waits_for_an_upstream_or_has_tried_it_keeps_its_place() {
    let mut stage = Stage::of(&format!("{DRAIN}{}", upstreams([1, 2])), 1);
    let waiting = stage.client("");
    adopt(&mut stage, &upstreams([2]));
    let plan = adopt(&mut stage, &upstreams([2, 3]));
    assert_eq!(place(&plan, 3), 2, "somebody waits for the first");
    stage.upgrade(waiting + 1);
    assert!(stage.sent(waiting).starts_with(b"HTTP/1.1 101 "));
    stage.pass(3);
    assert!(stage.down(waiting).is_some());
    assert_eq!(place(&adopt(&mut stage, &upstreams([2, 3, 4])), 4), 0);
    // It could not be reached, and the next one has its turn: another one at its place must not count as tried.
    let retried = |ports: &[u16]| upstreams(ports.iter().copied()).replace("retries = 0", "retries = 1");
    let mut stage = Stage::of(&format!("{DRAIN}{}", retried(&[1, 2])), 1);
    let waiting = stage.client("");
    fail(&mut stage, waiting + 1);
    adopt(&mut stage, &retried(&[2]));
    assert_eq!(place(&adopt(&mut stage, &retried(&[2, 3])), 3), 2);
    stage.upgrade(waiting + 2);
    adopt(&mut stage, &retried(&[2]));
    assert_eq!(place(&adopt(&mut stage, &retried(&[2, 4])), 4), 0);
}

/// Nor does it know that of a place that was none for a while.
#[test]
fn an_upstream_at_a_place_that_was_given_up_keeps_its_sessions() {
    let mut stage = Stage::of(&format!("{DRAIN}{}", upstreams([1, 2, 3])), 1);
    let whom = depart(&mut stage, 3);
    adopt(&mut stage, &upstreams([1]));
    let plan = adopt(&mut stage, &upstreams([1, 4]));
    assert_eq!((place(&plan, 4), plan.upstream_name(0, 2)), (1, None));
    let plan = adopt(&mut stage, &upstreams([1, 4, 5]));
    assert_eq!(vec![Whom::Upstream(RouteId(0), place(&plan, 5))], [whom]);
    let sessions: Vec<Socket> = (0..3).map(|_| paired(&mut stage)).collect();
    stage.pass(15);
    assert!(sessions.iter().all(|session| stage.down(*session).is_none()), "another was drained");
}

#[test]
fn numbers_and_places_without_sessions_are_free_at_once() {
    let routes = |generation: u32| echoes((0..100).map(|route| format!("/{generation}/{route}")));
    let mut stage = Stage::of(&format!("{DRAIN}{}{}", upstreams([1]), routes(0)), 1);
    let numbers = |plan: &Plan| plan.numbered_routes().map(|(number, _)| number).collect::<Vec<_>>();
    let first = numbers(&stage.plan);
    for generation in 1..9 {
        let plan = adopt(&mut stage, &(upstreams([1]) + &routes(generation)));
        assert_eq!(numbers(&plan) == first, generation % 2 == 0, "generation {generation}");
    }
    // One with a session has it until that is gone, and a reload has found that, or until the deadline.
    let (early, late) = (stage.client_at("/8/7", ""), stage.client_at("/8/8", ""));
    let held = ["/8/7", "/8/8"].map(|name| stage.plan.named(name)[0]);
    adopt(&mut stage, &upstreams([1]));
    let has = |plan: &Plan| {
        held.map(|held| plan.numbered_routes().any(|(number, _)| Whom::Route(RouteId(number)) == held))
    };
    assert_eq!(has(&adopt(&mut stage, &(upstreams([1]) + &routes(9)))), [false, false]);
    stage.send(early, &frame(0x88, &1000_u16.to_be_bytes(), true));
    stage.end(early, ReceiveEnd::Eof);
    stage.turns(3);
    let more = echoes(["/more".to_owned(), "/other".to_owned()]);
    adopt(&mut stage, &(upstreams([1]) + &routes(9) + &echoes(["/more".to_owned()])));
    assert_eq!(has(&adopt(&mut stage, &(upstreams([1]) + &routes(9) + &more))), [true, false]);
    stage.pass(3);
    assert!(stage.down(late).is_some());
    let last = more + &echoes(["/last".to_owned()]);
    assert_eq!(has(&adopt(&mut stage, &(upstreams([1]) + &routes(9) + &last))), [true, true]);
}

#[test]
fn a_shard_that_has_not_said_so_may_have_sessions() {
    let mut stage = Stage::of(&format!("{DRAIN}{}{}", upstreams([1, 2]), echoes(["/0".to_owned()])), 2);
    adopt(&mut stage, &upstreams([1]));
    let plan = adopt(&mut stage, &(upstreams([1, 3]) + &echoes(["/1".to_owned()])));
    assert_eq!((place(&plan, 3), plan.named("/1")), (2, vec![Whom::Route(RouteId(2))]));
}

/// Whoever is on its way to an upstream that speaks TLS tells it nothing in the clear, whatever the configuration has meanwhile.
#[test]
fn an_upstream_over_tls_that_is_gone_is_told_nothing_in_the_clear() {
    let config = |url: &str| {
        let route = format!("[[route]]\npath = \"/r\"\nproxy = {{ upstreams = [\"{url}\"], retries = 0 }}\n");
        let text = format!("version = 1\n{DRAIN}{route}[[listener]]\nbind = \"127.0.0.1:1\"\n");
        tidegate_config::parse(&text, "test.toml").unwrap_or_else(|problems| panic!("{problems:#?}"))
    };
    let options = ClientOptions { trust: Trust::Nothing, alpn: Vec::new(), resumes: false };
    let tls = ClientConfig::new(&options).expect("a client");
    let mut stage = Stage::of(&format!("{DRAIN}{}", upstreams([9000])), 1);
    let plan = stage.plan.next_with_clients(config("wss://127.0.0.1:9001"), &[Some(tls)]);
    stage.adopt_plan(plan.expect("it can follow"));
    let client = stage.client("Authorization: Bearer secret\r\n");
    let upstream = client + 1;
    // It is being connected to when it goes, and with it all upstreams that speak TLS.
    let token = stage.socket(upstream, |kernel| kernel.connect.take()).expect("it is dialed");
    let plan = stage.plan.next_with_clients(config("ws://127.0.0.1:9002"), &[None]);
    stage.adopt_plan(plan.expect("it can follow"));
    stage.world.borrow_mut().complete(Event::Connected { token, errno: 0 });
    stage.turns(3);
    assert_eq!(stage.sent(upstream), b"");
    assert!(stage.down(upstream).is_some(), "it is given up");
}

/// Whoever is refused, or gets a page, has no route: the lowest number is not its own.
#[test]
fn the_lowest_number_is_free_as_soon_as_any_other() {
    let pages = |names: &[&str]| {
        let page = "[[route]]\npath = \"/page\"\npage = {}\n";
        echoes(names.iter().map(|name| (*name).to_owned())) + page
    };
    let mut stage = Stage::of(&format!("{DRAIN}{}", pages(&["/0", "/1"])), 1);
    let cell = Arc::new(Cell::default());
    stage.shard.account_to(Arc::clone(&cell));
    let strangers = ["/none", "/page"].map(|path| {
        let socket = stage.accept();
        let request = format!("GET {path} HTTP/1.1\r\nHost: gw.test\r\nConnection: close\r\n\r\n");
        stage.send(socket, request.as_bytes());
        assert!(stage.socket(socket, |kernel| kernel.fin && !kernel.sent.is_empty()), "{path}");
        socket
    });
    assert_eq!(stage.shard.inspect().legs.lingering, 2, "their ends are awaited");
    let told = report(&mut stage, &cell);
    assert!(told.routes.iter().all(|counts| *counts == RouteCounts::default()), "{:?}", told.routes);
    let routes = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&routes);
    let reply = Reply::new(move |counted: Counted| {
        seen.lock().unwrap().extend(counted.sessions.iter().map(|session| session.route));
    });
    let wanted = Arc::new(|_: &SessionState| true);
    stage.deliver(Mail::Census(Census { from: 0, most: 10, with_subjects: false, wanted, reply }));
    assert_eq!(*routes.lock().unwrap(), [None, None]);
    adopt(&mut stage, &pages(&[]));
    let plan = adopt(&mut stage, &pages(&["/2", "/3"]));
    assert_eq!(["/2", "/3"].map(|name| plan.named(name)), [0, 1].map(|id| vec![Whom::Route(RouteId(id))]));
    assert!(strangers.iter().all(|socket| stage.down(*socket).is_none()));
    // One that lingers behind a session of it has it until it is gone.
    let last = stage.client_at("/2", "");
    stage.send(last, &frame(0x88, &1000_u16.to_be_bytes(), true));
    assert_eq!(stage.shard.inspect().legs.lingering, 3);
    adopt(&mut stage, &pages(&["/3"]));
    let plan = adopt(&mut stage, &pages(&["/3", "/4"]));
    assert_eq!(plan.named("/4"), [Whom::Route(RouteId(3))]);
}

/// A connection that is kept alive behind a request has no route either, until it asks for something again.
#[test]
fn who_is_kept_alive_takes_nothing_along_to_the_next_route_of_a_number() {
    let poll = |path: &str| format!("[[route]]\npath = \"{path}\"\npoll = {{ subscribe = [\"**\"] }}\n");
    let mut stage = Stage::of(&format!("{DRAIN}{}{}", poll("/0"), poll("/1")), 1);
    let cell = Arc::new(Cell::default());
    stage.shard.account_to(Arc::clone(&cell));
    let socket = stage.accept();
    stage.send(socket, b"GET /0?topic=a HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    assert!(stage.sent(socket).starts_with(b"HTTP/1.1 200"));
    adopt(&mut stage, &poll("/1"));
    let plan = adopt(&mut stage, &(poll("/1") + &poll("/2")));
    assert_eq!(plan.named("/2"), [Whom::Route(RouteId(0))]);
    stage.socket(socket, |kernel| kernel.sent.clear());
    stage.send(socket, b"GET /none HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    assert!(stage.sent(socket).starts_with(b"HTTP/1.1 404"));
    assert_eq!(report(&mut stage, &cell).routes[0], RouteCounts::default());
}

/// Nor does one that lingers for longer than its route's sessions have time.
#[test]
fn who_lingers_takes_nothing_along_to_the_next_route_of_a_number() {
    let config = |paths: &[&str]| echoes(paths.iter().map(|path| (*path).to_owned()));
    let mut stage = Stage::of(&format!("{DRAIN}{}", config(&["/0", "/1"])), 1);
    let cell = Arc::new(Cell::default());
    stage.shard.account_to(Arc::clone(&cell));
    let last = stage.client_at("/0", "");
    adopt(&mut stage, &config(&["/1"]));
    stage.pass(1);
    stage.send(last, &frame(0x88, &1000_u16.to_be_bytes(), true));
    stage.pass(2);
    assert_eq!((stage.shard.inspect().legs.lingering, stage.down(last)), (1, None), "its end is awaited");
    let plan = adopt(&mut stage, &config(&["/1", "/2"]));
    assert_eq!(plan.named("/2"), [Whom::Route(RouteId(0))]);
    stage.send(last, b"and more");
    let told = report(&mut stage, &cell);
    assert_eq!(told.routes[0], RouteCounts::default());
}

/// How long an upstream is left out, and after how many failures, is what the configuration says now.
#[test]
fn an_upstream_is_left_out_for_as_long_as_the_rule_of_now_says() {
    let with = |settings: &str| upstreams([1, 2]).replace("retries = 0", &format!("retries = 0, {settings}"));
    let stage_of = |settings: &str| {
        let mut stage = Stage::of(&format!("{DRAIN}{}", with(settings)), 1);
        let cell = Arc::new(Cell::default());
        stage.shard.account_to(Arc::clone(&cell));
        let client = stage.client("");
        fail(&mut stage, client + 1);
        (stage, cell)
    };
    let legs = |stage: &mut Stage, cell: &Cell| {
        let plan = Arc::clone(&stage.plan);
        known(&report(stage, cell), &plan, 1).legs
    };
    // One of two sessions goes to it: every other one, or the probe.
    let is_used = |stage: &mut Stage, cell: &Cell| {
        let before = legs(stage, cell);
        let taken = [(); 2].map(|()| paired(stage));
        assert!(taken.iter().all(|client| stage.down(*client).is_none()), "the other one has them");
        legs(stage, cell) - before == 1
    };
    // (after, the seconds until it is back)
    for (after, back) in [
        ("fail_timeout = \"0s\"", 0),
        ("fail_timeout = \"1h\", max_fails = 2", 0),
        ("fail_timeout = \"60s\"", 60),
        ("fail_timeout = \"2h\"", 7_200),
        ("fail_timeout = \"1h\"", 3_600),
    ] {
        let (mut stage, cell) = stage_of("fail_timeout = \"1h\"");
        assert!(!is_used(&mut stage, &cell), "it has failed");
        adopt(&mut stage, &with(after));
        if back > 0 {
            // Some seconds are over already.
            stage.pass(back - 20);
            assert!(!is_used(&mut stage, &cell), "{after}");
            stage.pass(20);
        }
        assert!(is_used(&mut stage, &cell), "{after}");
    }
    // A failure that was none too many may be with the rule of now.
    let (mut stage, cell) = stage_of("max_fails = 2");
    assert!(is_used(&mut stage, &cell));
    let (mut stage, cell) = stage_of("max_fails = 2");
    adopt(&mut stage, &with("max_fails = 1, fail_timeout = \"1h\""));
    assert!(!is_used(&mut stage, &cell));
}
