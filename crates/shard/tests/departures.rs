//! Generations of the configuration and departures, on a kernel that the test plays: who is asked to go, when, and with which words.

mod stage;

use std::{collections::BTreeMap, sync::Arc};

use tidegate_io::{Event, ReceiveEnd};
use tidegate_shard::{Answers, Departure, EndBarrier, Mail, Pace, Plan, Progress, Whom, report::Cell};
use tidegate_wire::close::CloseCode;

use crate::stage::{Socket, Stage, close_frame, frame};

const DRAIN: &str = "[drain]\nwindow = \"10s\"\ndeadline = \"12s\"\nreconnect_delay = \"1s\"\n";

/// A listener with TLS.
const TLS: &str = "[[listener]]\nbind = \"127.0.0.1:2\"\n[listener.tls]\ncertificate_file = \"/none\"\nkey_file = \"/none\"\n";

/// It asks its clients for certificates.
const ASKS: &str = "client_ca_file = \"/none\"\nclient_certificate = \"optional\"\n";

fn route(path: &str, action: &str) -> String {
    format!("[[route]]\npath = \"{path}\"\n{action}\n")
}

fn echo(path: &str) -> String {
    route(path, "echo = {}")
}

fn config(rest: &str) -> tidegate_config::Config {
    let text = format!("version = 1\n{DRAIN}{rest}\n[[listener]]\nbind = \"127.0.0.1:1\"\n");
    tidegate_config::parse(&text, "test.toml").unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn stage(rest: &str) -> Stage {
    Stage::of(&format!("{DRAIN}{rest}"), 1)
}

/// Gives the shard the next generation, and waits until it has it.
fn adopt(stage: &mut Stage, rest: &str) -> Arc<Plan> {
    stage.adopt(config(rest))
}

/// The Close that a socket was sent: code and reason.
fn close_of(stage: &Stage, socket: Socket) -> Option<(u16, String)> {
    stage.socket(socket, |kernel| {
        let head = kernel.sent.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let frame = &kernel.sent[head..];
        if frame.first() != Some(&0x88) {
            return None;
        }
        let reason = String::from_utf8(frame[4..2 + usize::from(frame[1])].to_vec()).expect("text");
        Some((u16::from_be_bytes([frame[2], frame[3]]), reason))
    })
}

/// When each of these is sent its Close, in ms from now on, until so many have passed.
fn closes(stage: &mut Stage, sockets: &[Socket], most_ms: u64) -> BTreeMap<Socket, u64> {
    let begun_ms = stage.world.borrow().now_ms;
    let mut seen = BTreeMap::new();
    while stage.world.borrow().now_ms < begun_ms + most_ms {
        stage.world.borrow_mut().now_ms += 20;
        stage.turns(2);
        let now_ms = stage.world.borrow().now_ms;
        for socket in sockets {
            if close_of(stage, *socket).is_some() {
                seen.entry(*socket).or_insert(now_ms - begun_ms);
            }
        }
    }
    seen
}

#[test]
fn a_route_that_goes_on_keeps_its_number_and_its_sessions() {
    let mut stage = stage(&(echo("/r") + &echo("/b")));
    let session = stage.client("");
    let numbers = |plan: &Plan, name: &str| plan.named(name);
    let before = numbers(&stage.plan, "/r");
    // Elsewhere in the file, with other limits, and with a new one before it.
    let plan =
        adopt(&mut stage, &(echo("/a") + &echo("/b") + &echo("/r") + "[route.limits]\nmessage_bytes = 9\n"));
    assert_eq!(plan.generation(), 2);
    assert_eq!(numbers(&plan, "/r"), before);
    assert_eq!(numbers(&plan, "/a").len(), 1);
    assert_eq!(closes(&mut stage, &[session], 13_000), BTreeMap::new());
    assert!(stage.socket(session, |kernel| kernel.down.is_none()));
}

#[test]
fn sessions_of_a_route_that_is_gone_go_one_after_the_other_and_its_number_is_free_behind_the_deadline() {
    let mut stage = stage(&(echo("/r") + &echo("/b")));
    let cell = Arc::new(Cell::default());
    stage.shard.account_to(Arc::clone(&cell));
    let sockets: Vec<Socket> = (0..40).map(|_| stage.client("")).collect();
    let kept = stage.client_at("/b", "");
    let old = stage.plan.named("/r");
    let Whom::Route(number) = old[0] else { panic!("{old:?}") };
    let counts = || {
        let counts = cell.read().routes[number.index()];
        (counts.opened, counts.ended, counts.clients.sent_bytes)
    };
    let plan = adopt(&mut stage, &(echo("/b") + &echo("/c")));
    assert_ne!(plan.named("/c"), old, "its sessions are still there");
    let seen = closes(&mut stage, &[sockets.clone(), vec![kept]].concat(), 10_100);
    assert_eq!(seen.len(), 40, "all of them and nobody else");
    // One in each fortieth of the window.
    for part in 0..40 {
        let (from, to) = (part * 250, part * 250 + 270);
        assert!(seen.values().any(|ms| (from..=to).contains(ms)), "nobody within {from}..{to}: {seen:?}");
    }
    assert!(seen.iter().zip(seen.iter().skip(1)).any(|((_, one), (_, next))| next < one), "in no order");
    for socket in &sockets {
        let (code, reason) = close_of(&stage, *socket).expect("a Close");
        let delay =
            reason.strip_prefix("{\"retry_ms\":").and_then(|rest| rest.split_once(',')).expect("a delay");
        assert!(code == 1012 && delay.0.parse::<u64>().expect("a number") <= 1_000, "{code} {reason}");
    }
    // Nobody answers. At the deadline the rest is cut off, and the number may be another route's.
    closes(&mut stage, &[], 3_000);
    assert!(sockets.iter().all(|socket| stage.socket(*socket, |kernel| kernel.down.is_some())));
    assert!(stage.socket(kept, |kernel| kernel.down.is_none()));
    let (opened, ended, sent_bytes) = counts();
    assert!((opened, ended) == (40, 40) && sent_bytes > 0, "{opened} {ended} {sent_bytes}");
    let plan = adopt(&mut stage, &(echo("/b") + &echo("/c") + &echo("/d")));
    assert_eq!(plan.named("/d"), old);
    assert_eq!(counts(), (0, 0, 0), "they were another route's");
    assert_eq!(cell.read().generation, plan.generation(), "and it says from which generation on");
    let session = stage.client_at("/d", "");
    assert_eq!(closes(&mut stage, &[session, kept], 13_000), BTreeMap::new());
    assert_eq!((counts().0, counts().1), (1, 0));
}

/// Nobody else can say that a shard has no session of a route: it does so where it has not even heard of it, too.
#[test]
fn the_number_of_a_route_that_came_and_went_between_two_letters_is_free() {
    let kept = echo("/b");
    // At a number that was another route's, and at a new one.
    for before in [echo("/r") + &kept, kept.clone()] {
        let mut stage = stage(&before);
        let cell = Arc::new(Cell::default());
        stage.shard.account_to(Arc::clone(&cell));
        let session = before.contains("/r").then(|| stage.client(""));
        adopt(&mut stage, &kept);
        stage.pass(13);
        assert!(session.is_none_or(|session| stage.down(session).is_some()));
        // The shard never has this one.
        stage.plan = stage.plan.next(config(&(kept.clone() + &echo("/c")))).expect("one that can follow");
        let number = stage.plan.named("/c");
        adopt(&mut stage, &kept);
        let Whom::Route(place) = number[0] else { panic!("{number:?}") };
        stage.pass(1);
        let opened = cell.read().routes.get(place.index()).map_or(0, |counts| counts.opened);
        assert_eq!(opened, 0, "those were of the route before");
        let plan = adopt(&mut stage, &(kept.clone() + &echo("/d")));
        assert_eq!(plan.named("/d"), number, "nobody has a session of it");
        adopt(&mut stage, &kept);
        let plan = adopt(&mut stage, &(kept.clone() + &echo("/e")));
        assert_eq!(plan.named("/e"), number, "it is free");
        stage.client_at("/e", "");
        stage.pass(1);
        let counts = cell.read().routes[place.index()];
        assert_eq!((counts.opened, counts.ended), (1, 0), "of this route alone");
    }
}

/// Whoever asked its sessions to go, and for however long: what comes to be in its place has nothing to do with that.
#[test]
fn a_route_at_the_number_of_one_that_was_drained_keeps_its_sessions() {
    let proxy = |path: &str, port: u16| {
        route(path, &format!("proxy = {{ upstreams = [\"ws://127.0.0.1:{port}\"] }}"))
    };
    let mut stage = stage(&(echo("/r") + &proxy("/p", 2)));
    let old = ["/r", "ws://127.0.0.1:2"].map(|name| stage.plan.named(name));
    for whom in old.each_ref().map(|whom| whom[0]) {
        let pace = Pace {
            code: CloseCode::SERVICE_RESTART,
            window_ms: 40_000,
            deadline_ms: 40_000,
            reconnect_delay_ms: 0,
        };
        stage.deliver(Mail::Depart(Departure { whom, pace }));
    }
    adopt(&mut stage, &echo("/b"));
    // Behind the deadline of the configuration, and long before that of who has drained them.
    closes(&mut stage, &[], 13_000);
    let plan = adopt(&mut stage, &(echo("/b") + &echo("/c") + &proxy("/q", 3)));
    assert_eq!(["/c", "ws://127.0.0.1:3"].map(|name| plan.named(name)), old);
    let session = stage.client_at("/c", "");
    let proxied = stage.client_at("/q", "");
    stage.upgrade(proxied + 1);
    for socket in [session, proxied] {
        assert!(stage.sent(socket).starts_with(b"HTTP/1.1 101 "));
    }
    assert_eq!(closes(&mut stage, &[session, proxied], 28_000), BTreeMap::new());
    assert!([session, proxied].iter().all(|socket| stage.down(*socket).is_none()));
}

#[test]
fn what_sessions_have_agreed_to_is_not_changed_under_them() {
    let origins = |list: &str| route("/r", &format!("origins = [{list}]\necho = {{}}"));
    let known = |list: &str| {
        let known = format!("origins = [{list}]\nclient_certificate = {{ required = false }}\necho = {{}}");
        route("/r", &known) + TLS + ASKS
    };
    let shown = |required: &str| {
        route("/r", &format!("client_certificate = {{ required = {required} }}\necho = {{}}")) + TLS + ASKS
    };
    for (before, after, goes) in [
        (echo("/r"), route("/r", "echo = { deflate = \"off\" }"), true),
        (echo("/r"), route("/r", "full = \"disconnect\"\necho = {}"), false),
        (echo("/r"), origins("\"https://a.test\""), true),
        (origins("\"https://a.test\""), origins("\"https://b.test\", \"https://a.test\""), false),
        (origins("\"https://a.test\", \"https://b.test\""), origins("\"https://a.test\""), true),
        (origins("\"https://a.test\""), echo("/r"), false),
        (origins("\"https://a.test\"") + TLS, echo("/r") + TLS, false),
        (origins("\"https://a.test\"") + TLS, echo("/r") + TLS + ASKS, false),
        // Whoever has shown a certificate may only have come from there because it was listed, though nobody has asked who it is.
        (origins("\"https://a.test\"") + TLS + ASKS, echo("/r") + TLS + ASKS, true),
        (origins("\"https://a.test\"") + TLS + ASKS, echo("/r") + TLS, true),
        (origins("\"https://a.test\"") + TLS + ASKS, origins("\"https://a.test\"") + TLS, false),
        (echo("/r") + TLS + ASKS, echo("/r") + TLS + ASKS, false),
        // Without a list it takes the gateway's own origin alone.
        (known("\"https://a.test\""), known(""), true),
        (shown("false, names = [\"a.test\"]"), shown("false, names = [\"b.test\", \"a.test\"]"), false),
        (shown("false, names = [\"b.test\", \"a.test\"]"), shown("false, names = [\"a.test\"]"), true),
        (shown("false"), shown("true"), true),
        (echo("/r"), route("/r", "topics = { subscribe = [\"a\"] }"), true),
    ] {
        let mut stage = stage(&before);
        let session = stage.client("");
        adopt(&mut stage, &after);
        let seen = closes(&mut stage, &[session], 10_100);
        assert_eq!(seen.contains_key(&session), goes, "{before} {after}");
    }
}

#[test]
fn sessions_of_a_route_that_allows_more_may_do_so_at_once_and_have_no_more_than_before_of_one_that_allows_less()
 {
    let topics = |names: &str, subscriptions: u32| {
        let allowed = format!("subscribe = [{names}], max_subscriptions = {subscriptions}");
        route("/r", &format!("topics = {{ {allowed}, deflate = \"off\" }}"))
    };
    let mut stage = stage(&topics("\"a\"", 2));
    let session = stage.open();
    let subscribe = |stage: &mut Stage, topic: &str| {
        stage.socket(session, |kernel| kernel.sent.clear());
        let command = format!("{{\"op\":\"subscribe\",\"id\":1,\"topic\":\"{topic}\"}}");
        stage.send(session, &frame(0x81, command.as_bytes(), true));
        let told = String::from_utf8_lossy(&stage.sent(session)).into_owned();
        ["subscribed", "not_allowed", "too_many"].into_iter().find(|answer| told.contains(answer))
    };
    assert_eq!(["a", "b"].map(|topic| subscribe(&mut stage, topic)), ["subscribed", "not_allowed"].map(Some));
    adopt(&mut stage, &topics("\"c\", \"b\", \"a\"", 3));
    let told = ["b", "c"].map(|topic| subscribe(&mut stage, topic));
    assert_eq!(told, ["subscribed", "too_many"].map(Some), "it may have as many as when it began");
    adopt(&mut stage, &topics("\"c\", \"b\"", 3));
    stage.socket(session, |kernel| kernel.sent.clear());
    stage.pass(11);
    assert!(stage.sent(session).starts_with(&[0x88]), "it has what it may have no more");
}

/// Certificates are shown once: who came by one in an earlier generation has it in every later one.
#[test]
fn who_was_asked_for_a_certificate_by_an_earlier_generation_may_have_shown_one() {
    let listed = route("/r", "origins = [\"https://a.test\"]\necho = {}");
    let mut stage = stage(&(listed.clone() + TLS + ASKS));
    let session = stage.client("");
    adopt(&mut stage, &(listed + TLS));
    assert_eq!(closes(&mut stage, &[session], 10_100), BTreeMap::new());
    adopt(&mut stage, &(echo("/r") + TLS));
    assert!(closes(&mut stage, &[session], 10_100).contains_key(&session));
}

#[test]
fn the_end_of_the_gateway_serves_who_had_come_and_waits_for_nobody_behind_the_deadline() {
    let mut stage = stage(&echo("/r"));
    let session = stage.client("");
    let early = stage.accept();
    let pace =
        Pace { code: CloseCode::GOING_AWAY, window_ms: 1_000, deadline_ms: 3_000, reconnect_delay_ms: 0 };
    stage.deliver(Mail::Depart(Departure { whom: Whom::All, pace }));
    // Whoever was in the queue becomes a session, and goes within the window.
    let late = stage.accept();
    stage.send(late, &stage::request("/r", ""));
    stage.send(early, &stage::request("/r", ""));
    let seen = closes(&mut stage, &[session, late, early], 1_500);
    assert_eq!(seen.len(), 3, "{seen:?}");
    assert_eq!(close_of(&stage, late), Some((1001, "going away".to_owned())));
    let mut progress = Progress::Running;
    for _ in 0..200 {
        stage.world.borrow_mut().now_ms += 20;
        progress = stage.turn();
        if progress == Progress::Ended {
            break;
        }
    }
    assert_eq!(progress, Progress::Ended, "nobody has answered, and it ends");
}

#[test]
fn a_route_that_is_drained_takes_nobody_until_it_is_readmitted() {
    let mut stage = stage(&(echo("/r") + &echo("/b")));
    let (session, other) = (stage.client(""), stage.client_at("/b", ""));
    let whom = stage.plan.named("/r")[0];
    let pace = Pace::of_some(&stage.plan.config().drain);
    stage.deliver(Mail::Depart(Departure { whom, pace }));
    let refused = stage.accept();
    stage.send(refused, &stage::request("/r", ""));
    assert!(stage.socket(refused, |kernel| kernel.sent.starts_with(b"HTTP/1.1 503 ")));
    let seen = closes(&mut stage, &[session, other], 10_100);
    assert_eq!(seen.keys().copied().collect::<Vec<_>>(), [session]);
    // A reload does not take it back.
    adopt(&mut stage, &(echo("/r") + &echo("/b") + &echo("/c")));
    stage.deliver(Mail::Readmit(whom));
    let again = stage.client("");
    assert_eq!(closes(&mut stage, &[again], 13_000), BTreeMap::new());
}

#[test]
fn who_waits_for_an_upstream_that_drains_does_not_stay_with_it() {
    let url = "ws://127.0.0.1:9";
    let up = route("/p", &format!("proxy = {{ upstreams = [\"{url}\"], connect_timeout = \"1m\" }}"));
    for connects_ms in [500, u64::MAX] {
        let mut stage = stage(&(up.clone() + &echo("/r")));
        let client = stage.accept();
        stage.send(client, &stage::request("/p", ""));
        let upstream = client + 1;
        let whom = stage.plan.named(url)[0];
        assert!(matches!(whom, Whom::Upstream(..)));
        let pace = Pace {
            code: CloseCode::SERVICE_RESTART,
            window_ms: 1_000,
            deadline_ms: 2_000,
            reconnect_delay_ms: 0,
        };
        stage.deliver(Mail::Depart(Departure { whom, pace }));
        if connects_ms < u64::MAX {
            stage.world.borrow_mut().now_ms += connects_ms;
            stage.turns(2);
            stage.upgrade(upstream);
            let seen = closes(&mut stage, &[client], 1_000);
            assert!(seen.contains_key(&client), "it goes as those do that were there before");
        } else {
            stage.pass(3);
            let sent = String::from_utf8_lossy(&stage.sent(client)).into_owned();
            assert!(sent.starts_with("HTTP/1.1 503 ") && sent.contains("\r\nRetry-After: "), "{sent}");
            assert_eq!(stage.down(upstream), Some(true), "nobody waits for it");
        }
    }
}

#[test]
fn a_drain_goes_on_over_generations_at_whichever_number() {
    let up = |urls: &str| route("/p", &format!("proxy = {{ upstreams = [{urls}] }}"));
    let (one, two) = ("\"ws://127.0.0.1:2\"", "\"ws://127.0.0.1:3\"");
    let mut stage = stage(&(echo("/r") + &up(one)));
    let status = |stage: &mut Stage, path: &str| {
        let socket = stage.client_at(path, "");
        stage.socket(socket, |kernel| {
            String::from_utf8_lossy(&kernel.sent[..12.min(kernel.sent.len())]).into_owned()
        })
    };
    for whom in ["/r", "ws://127.0.0.1:2"].map(|name| stage.plan.named(name)[0]) {
        stage.plan.set_drained(&[whom], true);
        stage.deliver(Mail::Withhold(whom));
    }
    assert_eq!(status(&mut stage, "/r"), "HTTP/1.1 503");
    assert_eq!(status(&mut stage, "/p"), "HTTP/1.1 503", "its only upstream is drained");
    // Another number for the route, and another place for the upstream.
    let before = stage.plan.named("/r");
    let plan =
        adopt(&mut stage, &(route("/r", "echo = { deflate = \"off\" }") + &up(&format!("{two}, {one}"))));
    assert_ne!(plan.named("/r"), before);
    assert!(plan.is_drained(plan.named("/r")[0]));
    assert_eq!(status(&mut stage, "/r"), "HTTP/1.1 503");
    // The new upstream is dialed; without it there is none.
    assert_eq!(status(&mut stage, "/p"), "");
    stage.deliver(Mail::Withhold(plan.named("ws://127.0.0.1:3")[0]));
    assert_eq!(status(&mut stage, "/p"), "HTTP/1.1 503");
    assert_eq!(plan.forget_drains(), Vec::<String>::new());
    let plan = adopt(&mut stage, &up(one));
    assert_eq!(plan.forget_drains(), ["/r"]);
    let plan = adopt(&mut stage, &(echo("/r") + &up(one)));
    assert_eq!(
        (plan.is_drained(plan.named("/r")[0]), status(&mut stage, "/r").as_str()),
        (false, "HTTP/1.1 101")
    );
}

#[test]
fn who_was_not_asked_yet_stays_where_a_drain_keeps_sessions_from_then_on() {
    let mut stage = stage(&echo("/r"));
    let sockets: Vec<Socket> = (0..40).map(|_| stage.client("")).collect();
    let whom = stage.plan.named("/r")[0];
    let pace = Pace::of_some(&stage.plan.config().drain);
    stage.deliver(Mail::Depart(Departure { whom, pace }));
    let asked = closes(&mut stage, &sockets, 5_000).len();
    assert!((15..=25).contains(&asked), "{asked} in half of the window");
    stage.deliver(Mail::Withhold(whom));
    assert_eq!(closes(&mut stage, &sockets, 20_000).len(), asked);
    let refused = stage.accept();
    stage.send(refused, &stage::request("/r", ""));
    assert!(stage.socket(refused, |kernel| kernel.sent.starts_with(b"HTTP/1.1 503 ")));
}

/// More sessions were to be asked than one turn asks: at the deadline nothing of that stays to be done.
#[test]
fn a_departure_whose_deadline_has_come_leaves_nothing_to_wake_for() {
    let mut stage = stage(&echo("/r"));
    let sockets: Vec<Socket> = (0..100).map(|_| stage.client("")).collect();
    let whom = stage.plan.named("/r")[0];
    let pace = Pace { code: CloseCode::SERVICE_RESTART, window_ms: 0, deadline_ms: 0, reconnect_delay_ms: 0 };
    // Ten that come at once: a hundred sessions each.
    for _ in 0..9 {
        stage.sender.send(Mail::Depart(Departure { whom, pace: pace.clone() })).expect("there is room");
    }
    stage.deliver(Mail::Depart(Departure { whom, pace }));
    stage.pass(1);
    assert!(sockets.iter().all(|socket| stage.down(*socket).is_some()), "none is open behind the deadline");
    let (next, now_ms) = (stage.world.borrow().deadline, stage.world.borrow().now_ms);
    assert!(next.is_none_or(|next| next.as_millis() > now_ms.into()), "{next:?} at {now_ms} ms");
}

#[test]
fn a_route_counts_its_sessions_over_generations() {
    let limited = |most: u32| echo("/r") + &format!("[route.limits]\nmax_sessions = {most}\n");
    let mut stage = stage(&limited(2));
    let (_one, _two) = (stage.open(), stage.open());
    let status = |stage: &mut Stage| {
        let socket = stage.client("");
        stage.socket(socket, |kernel| String::from_utf8_lossy(&kernel.sent[9..12]).into_owned())
    };
    assert_eq!(status(&mut stage), "503");
    // Those that were there before count for the new limit.
    adopt(&mut stage, &limited(3));
    assert_eq!([status(&mut stage), status(&mut stage)], ["101", "503"]);
}

#[test]
fn who_has_no_sessions_waits_for_those_who_have() {
    let pace =
        Pace { code: CloseCode::GOING_AWAY, window_ms: 1_000, deadline_ms: 9_000, reconnect_delay_ms: 0 };
    for at_once in [false, true] {
        let letter = || match at_once {
            true => Mail::Drain(CloseCode::GOING_AWAY),
            false => Mail::Depart(Departure { whom: Whom::All, pace: pace.clone() }),
        };
        let barrier = EndBarrier::new(2);
        let [mut idle, mut busy] = [(); 2].map(|()| {
            let mut stage = Stage::of(&format!("{DRAIN}{}", echo("/r")), 2);
            stage.shard.end_with(barrier.clone());
            stage
        });
        let session = busy.open();
        idle.deliver(letter());
        busy.deliver(letter());
        idle.pass(2);
        busy.pass(2);
        assert_eq!((idle.turn(), busy.turn()), (Progress::Running, Progress::Running));
        // What is asked meanwhile is answered.
        let answers = Answers::default();
        idle.deliver(Mail::Live(answers.clone()));
        assert!(answers.wait(1, std::time::Duration::ZERO));
        // It sleeps meanwhile.
        let (now_ms, deadline) = (idle.world.borrow().now_ms, idle.world.borrow().deadline);
        assert!(deadline.is_none_or(|deadline| deadline.as_millis() as u64 > now_ms), "{deadline:?}");
        let close = frame(0x88, &close_frame(1001, "")[2..], true);
        busy.send(session, &close);
        let token = busy.tokens[&session];
        busy.world.borrow_mut().complete(Event::ReceiveEnded { token, end: ReceiveEnd::Eof });
        busy.turns(5);
        assert_eq!((busy.turn(), idle.turn()), (Progress::Ended, Progress::Ended));
        // A second signal waits for nobody.
        let mut other = Stage::of(&format!("{DRAIN}{}", echo("/r")), 2);
        other.shard.end_with(EndBarrier::new(2));
        other.deliver(letter());
        assert_eq!(other.turn(), Progress::Running);
        other.deliver(Mail::Stop);
        assert_eq!(other.turn(), Progress::Ended);
    }
}

#[test]
fn who_waits_in_a_poll_of_a_route_that_goes_is_answered_and_may_ask_on() {
    let kept = route("/poll", "poll = { subscribe = [\"**\"] }");
    let gone = route("/old", "poll = { subscribe = [\"**\"] }");
    let common = "[limits]\nhead_timeout = \"1m\"\n[[topic]]\nname = \"**\"\n";
    let mut stage = stage(&(common.to_owned() + &kept + &gone));
    let ask = |stage: &mut Stage, socket: Socket, path: &str| {
        let poll = |stage: &mut Stage, rest: &str| {
            stage.socket(socket, |kernel| kernel.sent.clear());
            let request = format!("GET {path}?topic=a{rest} HTTP/1.1\r\nHost: gw.test\r\n\r\n");
            stage.send(socket, request.as_bytes());
            String::from_utf8(stage.sent(socket)).expect("text")
        };
        // The first answer says where the topic is; the next one waits for news.
        let first = poll(stage, "");
        let (_, rest) = first.split_once("\"position\":\"").expect("a position");
        let (position, _) = rest.split_once('"').expect("its end");
        assert_eq!(poll(stage, &format!("&position={position}&wait=60")), "");
    };
    let pollers = [(); 3].map(|()| stage.accept());
    pollers.iter().for_each(|poller| ask(&mut stage, *poller, "/old"));
    let stays = stage.accept();
    ask(&mut stage, stays, "/poll");
    adopt(&mut stage, &(common.to_owned() + &kept));
    stage.pass(11);
    for poller in pollers {
        let sent = String::from_utf8(stage.sent(poller)).expect("text");
        assert!(sent.starts_with("HTTP/1.1 200 ") && sent.contains("\"messages\":[]"), "{sent:?}");
        assert_eq!(stage.down(poller), None, "its connection is no route's");
        ask(&mut stage, poller, "/poll");
    }
    assert_eq!(stage.sent(stays), b"");
}

#[test]
fn a_stream_of_a_route_that_goes_ends_in_order() {
    let topic = "[[topic]]\nname = \"**\"\n";
    let mut stage = stage(&(topic.to_owned() + &route("/events", "events = { subscribe = [\"**\"] }")));
    let stream = stage.accept();
    stage.send(stream, b"GET /events?topic=a HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    assert!(stage.sent(stream).starts_with(b"HTTP/1.1 200 "));
    adopt(&mut stage, &(topic.to_owned() + &echo("/b")));
    stage.pass(11);
    assert!(stage.sent(stream).ends_with(b"\r\n0\r\n\r\n"), "the last chunk");
}

/// Whichever of its legs has the lower slot, and is cut first.
#[test]
fn at_the_deadline_both_legs_of_a_pair_are_told() {
    for leg_is_lower in [false, true] {
        let up = route("/p", "proxy = { upstreams = [\"ws://127.0.0.1:9\"] }");
        let limits = "[limits]\nclose_timeout = \"1m\"\n";
        let mut stage = stage(&(limits.to_owned() + &up + &echo("/b")));
        let first = stage.accept();
        let client = stage.accept();
        if leg_is_lower {
            // Its slot is free for the leg.
            let token = stage.tokens[&first];
            stage.world.borrow_mut().complete(Event::ReceiveEnded { token, end: ReceiveEnd::Eof });
            stage.turns(5);
        }
        stage.send(client, &stage::request("/p", ""));
        let upstream = client + 1;
        stage.upgrade(upstream);
        stage.socket(client, |kernel| kernel.sent.clear());
        // It has broken a rule, and what the upstream still says comes first: nothing.
        stage.send(client, &frame(0x81, b"\xff", true));
        assert_eq!(stage.sent(client), b"");
        adopt(&mut stage, &(limits.to_owned() + &echo("/b")));
        stage.pass(11);
        assert_eq!(stage.sent(client), b"");
        stage.pass(2);
        let sent = stage.sent(client);
        assert_eq!((sent[0], sent.get(2..4)), (0x88, Some(&1007_u16.to_be_bytes()[..])), "{sent:?}");
    }
}

/// Who takes a byte now and then takes all the time that there is, and no more.
#[test]
fn a_slow_reader_of_a_pair_stays_no_longer_than_its_closing_handshake_may_take() {
    let up = route("/p", "proxy = { upstreams = [\"ws://127.0.0.1:9\"] }");
    let limits = "[limits]\nclose_timeout = \"20s\"\nping_interval = \"0s\"\n";
    let mut stage = stage(&(limits.to_owned() + &up + &echo("/b")));
    let client = stage.client_at("/p", "");
    stage.upgrade(client + 1);
    stage.socket(client, |kernel| kernel.room = 10);
    stage.send(client + 1, &frame(0x82, &[7; 900], false));
    // It has broken a rule, and is told so at the deadline.
    stage.send(client, &frame(0x81, b"\xff", true));
    adopt(&mut stage, &(limits.to_owned() + &echo("/b")));
    stage.pass(13);
    for second in 0..25 {
        assert!(stage.down(client).is_none() || second > 15, "{second} s");
        stage.make_room(client, 10);
        stage.pass(1);
    }
    assert_eq!(stage.down(client), Some(true));
}

/// The backends empty the queues of listening sockets before they close them.
#[test]
fn who_has_been_let_in_by_the_kernel_is_told_that_the_gateway_ends() {
    let mut stage = stage(&echo("/r"));
    stage.sender.send(Mail::Drain(CloseCode::GOING_AWAY)).expect("there is room");
    stage.world.borrow_mut().complete(Event::Woken);
    // The shard reads its letter; what was in the queue comes with the next turn.
    let mut ended = stage.turn();
    assert_eq!(ended, Progress::Running, "somebody may have been in the queue");
    let late = stage.accept();
    let sent = String::from_utf8(stage.sent(late)).expect("text");
    assert!(sent.starts_with("HTTP/1.1 503 ") && sent.contains("shutting down"), "{sent:?}");
    let token = stage.tokens[&late];
    stage.world.borrow_mut().complete(Event::ReceiveEnded { token, end: ReceiveEnd::Eof });
    for _ in 0..5 {
        ended = stage.turn();
    }
    assert_eq!(ended, Progress::Ended);
}

#[test]
fn who_polls_topics_that_have_not_answered_by_the_deadline_is_told_so() {
    let text = |rest: &str| {
        format!("[drain]\nwindow = \"1s\"\ndeadline = \"2s\"\n[[topic]]\nname = \"**\"\n{rest}{}", echo("/b"))
    };
    let mut stage = Stage::of(&text(&route("/poll", "poll = { subscribe = [\"**\"] }")), 2);
    // The other shard never answers.
    let there = stage::topics_at("t", 1).next().expect("one of them");
    let poller = stage.accept();
    stage.send(poller, format!("GET /poll?topic={there} HTTP/1.1\r\nHost: gw.test\r\n\r\n").as_bytes());
    let next = format!("version = 1\n{}\n[[listener]]\nbind = \"127.0.0.1:1\"\n", text(""));
    stage.adopt(tidegate_config::parse(&next, "test.toml").expect("a valid configuration"));
    stage.pass(3);
    let sent = String::from_utf8(stage.sent(poller)).expect("text");
    assert!(sent.starts_with("HTTP/1.1 503 ") && sent.contains("\r\nRetry-After: "), "{sent:?}");
    assert!(stage.socket(poller, |kernel| kernel.fin), "and it ends in order");
}
