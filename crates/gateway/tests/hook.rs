//! A hook that says who may come in: over each way into the gateway, and when it is down, slow, wrong, or asked too much.

mod harness;

use std::{
    collections::HashSet,
    net::TcpListener,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc::Receiver,
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::json;

use crate::harness::{
    BACKENDS, PATIENCE,
    certificates::Authority,
    client::{Client, Received, Response, request},
    eventually,
    frame::{BINARY, CLOSE, TEXT, close, masked},
    gateway::Gateway,
    request::{ask, get, post},
    secure::Secure,
    unix_seconds,
    upstream::{Upstream, field},
    web::{Asked, Reply, Web},
};

const HOOK_SECRET: &str = "0123456789abcdef-hook-secret";

/// What is published.
const DATA: &[u8] = br#"{"data":1}"#;

/// Where `HOOK`, `UPSTREAM` and `TLS` stand, there are a hook's table, an upstream's address and a listener's table.
const CONFIG: &str = r#"
version = 1
[limits]
close_timeout = "1s"
[[listener]]
bind = "127.0.0.1:0"
[[listener]]
bind = "127.0.0.1:0"
[listener.tls]
TLS
[[topic]]
name = "chat/**"
history = 10
presence = true
[[identity]]
name = "callers"
leeway = "0s"
headers = { X-User = "sub", X-Plan = "plan" }
permissions = { publish = "topics.write" }
token = ["query:ticket"]
hook = { HOOK }
[[route]]
path = "/free"
echo = {}
[[route]]
path = "/echo"
identity = "callers"
echo = {}
[[route]]
path = "/up"
identity = "callers"
proxy = { upstreams = ["UPSTREAM"] }
[[route]]
path = "/topics/*"
identity = "callers"
topics = { subscribe = ["chat/*"], publish = ["chat/*"], presence = ["chat/*"] }
[[route]]
path = "/events"
identity = "callers"
origins = ["https://page.example"]
events = { subscribe = ["chat/*"] }
[[route]]
path = "/poll"
identity = "callers"
poll = { subscribe = ["chat/*"] }
[[route]]
path = "/publish/*"
identity = "callers"
publish = { publish = ["chat/*"] }
"#;

/// A gateway, and the heads that its upstream has seen.
struct Scene {
    gateway: Gateway,
    authority: Authority,
    heads: Receiver<String>,
    config: String,
    _upstream: Upstream,
}

impl Scene {
    /// With these lines in its hook's table.
    fn start(io: &str, hook: &str) -> Scene {
        let (upstream, heads) = Upstream::telling();
        let authority = Authority::new();
        let tls = authority.issue("gw", &["gw.test"]).setting();
        let config = CONFIG.replace("UPSTREAM", &upstream.url()).replace("TLS", &tls);
        let gateway = Gateway::start_with(
            &config.replace("HOOK", hook),
            &["--io", io, "--shards", "1", "--log-level", "trace"],
        );
        Scene { gateway, authority, heads, config, _upstream: upstream }
    }

    fn upgrade(&self, path: &str, fields: &str) -> Response {
        self.asked(&request(path, fields))
    }

    fn asked(&self, request: &[u8]) -> Response {
        ask(&self.gateway, request)
    }

    /// A session on another route is not held up.
    fn others_go_on(&self) {
        let begun = Instant::now();
        let mut client = Client::open(self.gateway.address(), "/free");
        client.exchange(BINARY, b"hello");
        client.close(1000);
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    }

    /// Neither what callers have shown nor what the hook knows the gateway by is in the log.
    fn stop(self) -> Vec<String> {
        let log = self.gateway.stop();
        let told = log.iter().find(|line| line.contains(HOOK_SECRET) || line.contains("credential"));
        assert_eq!(told, None);
        log
    }
}

fn hook(web: &Web, more: &str) -> String {
    format!("url = {:?}, secret = {HOOK_SECRET:?}, {more}", web.url("/ask?key=5"))
}

/// Says yes, no and nonsense by the name in a request's cookie.
fn by_cookie(asked: &Asked) -> Reply {
    let cookie = asked.json()["headers"]["cookie"][0].as_str().unwrap_or_default().to_owned();
    let yes = |claims: serde_json::Value| Reply::Status(200, claims.to_string());
    match cookie.rsplit_once('=').map_or("", |(_, name)| name) {
        "ada" => yes(json!({ "sub": "ada", "plan": [1], "topics": { "write": ["chat/lobby"] } })),
        "brief" => {
            yes(json!({ "sub": "ada", "exp": unix_seconds() + 3, "topics": { "write": "chat/lobby" } }))
        }
        "nobody" => Reply::Status(204, String::new()),
        "unknown" => Reply::Status(401, "{}".to_owned()),
        "forbidden" => Reply::Status(403, "no".to_owned()),
        "denied" => yes(json!({ "allow": false, "sub": "ada" })),
        "over" => yes(json!({ "sub": "ada", "exp": unix_seconds() - 1 })),
        "list" => Reply::Status(200, "[]".to_owned()),
        "twice" => Reply::Status(200, "{\"sub\":\"a\",\"sub\":\"b\"}".to_owned()),
        "odd" => yes(json!({ "allow": "yes" })),
        "field" => yes(json!({ "sub": "a\r\nX-Evil: 1" })),
        "text" => Reply::Status(200, "welcome".to_owned()),
        "long" => Reply::Status(200, " ".repeat((64 << 10) + 1)),
        "redirect" => Reply::Status(307, String::new()),
        "broken" => Reply::Status(500, String::new()),
        "nonsense" => Reply::Raw(b"\x16\x03\x01 no HTTP at all\r\n\r\n".to_vec()),
        "closed" => Reply::Raw(Vec::new()),
        _ => Reply::Silence,
    }
}

fn cookie(name: &str) -> String {
    format!("Cookie: credential={name}\r\n")
}

#[test]
fn a_hook_lets_in_whom_it_allows_over_each_way() {
    for io in BACKENDS {
        let web = Web::start(by_cookie);
        let scene = Scene::start(io, &hook(&web, "forward = [\"Cookie\", \"X-Other\"]"));
        let address = scene.gateway.address();
        let (mut session, _) = Client::open_with(address, "/echo", &cookie("ada"));
        session.exchange(BINARY, b"hello");

        // What comes behind the request waits with it; the upstream learns who calls, and not by which ticket.
        let spoofed = format!("{}X-User: eve\r\nX-Other: 1\r\n", cookie("ada"));
        let mut client = Client::connect(address);
        client
            .send(&[request("/up?a=b&ticket=credential", &spoofed), masked(0x80 | TEXT, b"early")].concat());
        assert_eq!(client.response().expect("an answer").status, 101);
        assert!(matches!(client.next(), Received::Frame(frame) if frame.payload == b"early"));
        let head = scene.heads.recv_timeout(PATIENCE).expect("the upstream is asked");
        assert!(head.starts_with("GET /up?a=b HTTP/1.1\r\n"), "{head}");
        assert_eq!((field(&head, "x-user"), field(&head, "x-plan")), (Some("ada"), Some("[1]")));
        assert!(!head.contains("eve"), "{head}");

        // Over TLS as well.
        let mut secure = Secure::connect(scene.gateway.addresses()[1], &scene.authority.client(), "gw.test");
        secure.send(&request("/echo", &cookie("ada")));
        assert!(secure.head_behind_handshake().starts_with("HTTP/1.1 101"));
        secure.exchange(BINARY, b"sealed");
        secure.send(b"");

        // A page is asked for as the browser does, and a stream begins.
        let page = "Origin: https://page.example\r\n";
        let preflight = format!(
            "OPTIONS /events HTTP/1.1\r\nHost: gw.test\r\n{page}Access-Control-Request-Method: GET\r\n\r\n"
        );
        let before = web.asked().len();
        assert_eq!(scene.asked(preflight.as_bytes()).status, 200);
        assert_eq!(web.asked().len(), before, "nobody asks about that");
        let mut stream = Client::connect(address);
        stream.send(&get("/events?topic=chat/lobby", &format!("{page}{}", cookie("ada"))));
        assert_eq!(stream.response().expect("a stream").status, 200);

        // Its body lies behind a request that waits, in part.
        let publication = post("/publish/chat/lobby", &cookie("ada"), DATA);
        let mut publisher = Client::connect(address);
        for _ in 0..2 {
            let (first, rest) = publication.split_at(publication.len() - 3);
            publisher.send(first);
            publisher.send(rest);
            assert_eq!(publisher.response().expect("an answer").status, 200, "on one connection");
        }
        // Who has sent all may say so.
        let mut done = Client::connect(address);
        done.send(&publication);
        done.finish();
        assert_eq!(done.response().expect("an answer").status, 200);
        let refused = scene.asked(&post("/publish/chat/other", &cookie("ada"), DATA));
        assert_eq!(refused.status, 403, "its claims do not allow that: {refused:?}");
        let refused = scene.asked(&post("/publish/chat/lobby", &cookie("nobody"), DATA));
        assert_eq!(refused.status, 403, "no claims, no permissions: {refused:?}");
        let polled = scene.asked(&get("/poll?topic=chat/lobby&wait=0", &cookie("ada")));
        assert_eq!(polled.status, 200, "{polled:?}");

        let first = &web.asked()[0];
        assert!(first.head.starts_with("POST /ask?key=5 HTTP/1.1\r\n"), "{}", first.head);
        assert_eq!(field(&first.head, "authorization"), Some(&*format!("Bearer {HOOK_SECRET}")));
        assert_eq!(field(&first.head, "content-type"), Some("application/json"));
        let told = json!({
            "identity": "callers", "method": "GET", "path": "/echo", "query": null, "host": "gw.test", "origin": null,
            "address": "127.0.0.1", "headers": { "cookie": ["credential=ada"] },
        });
        assert_eq!(first.json(), told);
        let second = web.asked()[1].json();
        assert_eq!(
            (&second["query"], &second["headers"]["x-other"]),
            (&json!("a=b&ticket=credential"), &json!(["1"]))
        );
        // One after the other they share a connection.
        assert!(web.connections() < web.asked().len(), "{} connections", web.connections());
        scene.stop();
    }
}

#[test]
fn whom_a_hook_denies_is_told_so_and_what_is_unclear_lets_nobody_in() {
    for io in BACKENDS {
        let web = Web::start(by_cookie);
        let scene = Scene::start(io, &hook(&web, "timeout = \"2s\""));
        for (name, status) in [
            ("unknown", 401),
            ("forbidden", 403),
            ("denied", 403),
            ("over", 503),
            ("list", 503),
            ("twice", 503),
            ("odd", 503),
            ("field", 503),
            ("text", 503),
            ("long", 503),
            ("redirect", 503),
            ("broken", 503),
            ("nonsense", 503),
            ("closed", 503),
        ] {
            let answers = [
                scene.upgrade("/echo", &cookie(name)),
                scene.upgrade("/up", &cookie(name)),
                scene.asked(&get("/events?topic=chat/lobby", &cookie(name))),
                scene.asked(&get("/poll?topic=chat/lobby", &cookie(name))),
                scene.asked(&post("/publish/chat/lobby", &cookie(name), DATA)),
            ];
            for answer in &answers {
                assert_eq!(answer.status, status, "{name}: {answer:?}");
                assert_eq!(answer.field("retry-after").is_some(), status == 503, "{name}: {answer:?}");
                assert_eq!(answer.field("www-authenticate").is_some(), status == 401, "{name}: {answer:?}");
            }
        }
        scene.others_go_on();
        assert!(scene.heads.try_recv().is_err(), "no upstream is asked");
        // Nothing is asked that is wrong by itself, or comes from elsewhere.
        let before = web.asked().len();
        let foreign = format!("{}Origin: https://evil.example\r\n", cookie("ada"));
        assert_eq!(scene.upgrade("/echo", &foreign).status, 403);
        assert_eq!(scene.asked(&get("/echo", &cookie("ada"))).status, 426);
        assert_eq!(web.asked().len(), before);
        let log = scene.stop();
        assert!(
            log.iter().any(|line| line.contains("authorization hook failed") && line.contains("callers"))
        );
    }
}

/// One line for each hook in five seconds, so each case has a hook of its own.
#[test]
fn what_is_wrong_with_a_hook_is_named_precisely() {
    let web = Web::start(by_cookie);
    let down = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port");
    let cases = [
        ("over", "its answer cannot be used: the answer has expired"),
        ("twice", "its answer cannot be used: the answer's claims are not an object, or one stands twice"),
        ("long", "the answer is longer than 65536 bytes"),
        ("redirect", "the answer is 307 Temporary Redirect, which is neither 2xx, 401 nor 403"),
        ("broken", "the answer is 500 Internal Server Error, which is neither 2xx, 401 nor 403"),
        ("nonsense", "invalid HTTP"),
        ("closed", "connection closed before message completed"),
        ("silent", "no answer within 300ms"),
        ("down", "Connection refused"),
    ];
    let mut config = "version = 1\n[[listener]]\nbind = \"127.0.0.1:0\"\n".to_owned();
    for (name, _) in cases {
        let url = if name == "down" { format!("http://{down}/") } else { web.url("/") };
        config += &format!(
            "[[identity]]\nname = {name:?}\nleeway = \"0s\"\nhook = {{ url = {url:?}, timeout = \"{}\" }}\n[[route]]\npath = \"/{name}\"\n\
             identity = {name:?}\necho = {{}}\n",
            if name == "silent" { "300ms" } else { "30s" }
        );
    }
    for io in BACKENDS {
        let gateway = Gateway::start(&config, io);
        for (name, told) in cases {
            let mut client = Client::connect(gateway.address());
            client.send(&request(&format!("/{name}"), &cookie(name)));
            assert_eq!(client.response().expect("an answer").status, 503, "{io} {name}");
            let named = format!("\"identity\":\"{name}\"");
            let line =
                gateway.wait_for_log(name, |line| line.contains(&named) && line.contains("hook failed"));
            assert!(line.contains(told) && line.contains("WARN"), "{io} {name}: {line}");
        }
        gateway.stop();
    }
}

/// Lets questions go, by their number from 0.
#[derive(Default)]
struct Gate {
    open: Mutex<HashSet<usize>>,
    bell: Condvar,
}

impl Gate {
    fn release(&self, number: usize) {
        self.open.lock().expect("a lock").insert(number);
        self.bell.notify_all();
    }

    fn wait(&self, number: usize) {
        let open = self.open.lock().expect("a lock");
        let wait = self.bell.wait_timeout_while(open, PATIENCE, |open| !open.contains(&number));
        drop(wait.expect("a lock"));
    }
}

/// A hook that answers each question when it is let go, and what is asked at `/at-once` at once.
fn gated() -> (Web, Arc<Gate>) {
    let gate = Arc::<Gate>::default();
    let (own, count) = (Arc::clone(&gate), AtomicUsize::new(0));
    let web = Web::start(move |asked| {
        if asked.target() != "/at-once" {
            own.wait(count.fetch_add(1, Ordering::SeqCst));
        }
        Reply::Status(200, String::new())
    });
    (web, gate)
}

fn parked(scene: &Scene, web: &Web, count: usize) -> Vec<Client> {
    let clients = (1..=count).map(|number| {
        let mut client = Client::connect(scene.gateway.address());
        let before = web.asked().len();
        client.send(&request("/echo", &cookie("ada")));
        eventually("the question", || (web.asked().len() > before).then_some(number));
        client
    });
    clients.collect()
}

#[test]
fn no_more_wait_for_a_hook_than_may() {
    for io in BACKENDS {
        let (web, gate) = gated();
        let scene = Scene::start(io, &hook(&web, "timeout = \"1m\", max_in_flight = 2"));
        let waiting = parked(&scene, &web, 2);
        for _ in 0..3 {
            let refused = scene.upgrade("/echo", &cookie("ada"));
            assert_eq!((refused.status, refused.field("retry-after")), (503, Some("1")), "{refused:?}");
        }
        assert_eq!(web.asked().len(), 2);
        scene.others_go_on();
        (0..2).for_each(|number| gate.release(number));
        for mut client in waiting {
            assert_eq!(client.response().expect("an answer").status, 101);
            client.exchange(BINARY, b"hello");
        }
        // There is room again.
        gate.release(2);
        assert_eq!(scene.upgrade("/echo", &cookie("ada")).status, 101);
        let log = scene.stop();
        assert!(log.iter().any(|line| line.contains("as many requests wait for it as may")));
    }
}

#[test]
fn a_client_that_goes_away_meanwhile_gives_its_place_to_others() {
    for io in BACKENDS {
        let (web, gate) = gated();
        let scene = Scene::start(io, &hook(&web, "timeout = \"1m\", max_in_flight = 2"));
        let mut waiting = parked(&scene, &web, 2);
        let open = scene.gateway.descriptors();
        waiting.pop().expect("one").reset();
        drop(waiting);
        // The hook is not waited for either: its connections are closed, too.
        eventually("the end of both", || (scene.gateway.descriptors() + 4 <= open).then_some(()));
        // Others take their slots and their places, though the hook still thinks, and what it says then is not for them.
        let mut later = parked(&scene, &web, 2);
        (0..2).for_each(|number| gate.release(number));
        scene.others_go_on();
        let early = later[0].next_within(Duration::from_millis(300));
        assert_eq!(early, Received::Nothing, "its own answer has not come");
        (2..4).for_each(|number| gate.release(number));
        for client in &mut later {
            assert_eq!(client.response().expect("an answer").status, 101);
        }
        drop(later);
        let log = scene.stop();
        assert!(log.iter().any(|line| line.contains("hooks_late: 0")), "{:#?}", log.last());
    }
}

#[test]
fn a_reload_changes_the_hook_of_requests_that_wait() {
    for io in BACKENDS {
        let (old, gate) = gated();
        let (new, _) = gated();
        let scene = Scene::start(io, &hook(&old, "timeout = \"1m\""));
        let mut waiting = parked(&scene, &old, 3);
        let url = format!("url = {:?}, timeout = \"1m\"", new.url("/at-once"));
        scene.gateway.reload(&scene.config.replace("HOOK", &url));
        scene.others_go_on();
        assert_eq!(scene.upgrade("/echo", &cookie("ada")).status, 101, "who comes now");
        assert_eq!(new.asked().len(), 1);
        (0..3).for_each(|number| gate.release(number));
        for client in &mut waiting {
            assert_eq!(client.response().expect("an answer").status, 101);
            client.exchange(BINARY, b"hello");
        }
        assert_eq!((old.asked().len(), new.asked().len()), (3, 4), "the new one was asked, too");
        scene.stop();
    }
}

#[test]
fn a_hook_that_stalls_holds_nobody_else_up_and_the_end_neither() {
    for io in BACKENDS {
        let web = Web::start(|_| Reply::Silence);
        let scene = Scene::start(io, &hook(&web, "timeout = \"1s\""));
        let mut waiting = parked(&scene, &web, 5);
        scene.others_go_on();
        for client in &mut waiting {
            let refused = client.response().expect("an answer");
            assert_eq!((refused.status, refused.field("retry-after")), (503, Some("2")), "{refused:?}");
        }
        let scene = Scene::start(io, &hook(&web, "timeout = \"1m\""));
        let mut waiting = parked(&scene, &web, 2);
        let begun = Instant::now();
        scene.stop();
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
        assert_eq!(waiting[0].response().expect("an answer").status, 503);
    }
}

/// Its own time-out is not over because the machine was suspended, or the process stopped.
#[test]
fn who_waits_for_a_hook_while_the_process_stands_still_gets_its_answer() {
    for io in BACKENDS {
        let (web, gate) = gated();
        let scene = Scene::start(io, &hook(&web, "timeout = \"2s\""));
        let waiting = parked(&scene, &web, 5);
        scene.gateway.signal(Signal::STOP);
        (0..5).for_each(|number| gate.release(number));
        // Longer than the time-out and what the shard adds to it.
        thread::sleep(Duration::from_secs(5));
        scene.gateway.signal(Signal::CONT);
        for mut client in waiting {
            assert_eq!(client.response().expect("an answer").status, 101);
            client.exchange(BINARY, b"hello");
        }
        scene.stop();
    }
}

/// The time-out is over as it goes on, and the answers have come before that.
#[test]
fn who_waits_as_the_process_stands_still_at_the_end_of_the_time_gets_its_answer() {
    let (web, gate) = gated();
    let scene = Scene::start("epoll", &hook(&web, "timeout = \"8s\""));
    let begun = Instant::now();
    let waiting = parked(&scene, &web, 5);
    thread::sleep(Duration::from_millis(7_300).saturating_sub(begun.elapsed()));
    scene.gateway.signal(Signal::STOP);
    (0..5).for_each(|number| gate.release(number));
    thread::sleep(Duration::from_millis(8_500).saturating_sub(begun.elapsed()));
    scene.gateway.signal(Signal::CONT);
    for mut client in waiting {
        assert_eq!(client.response().expect("an answer").status, 101);
        client.exchange(BINARY, b"hello");
    }
    scene.stop();
}

#[test]
fn a_session_ends_when_its_hook_has_said() {
    let web = Web::start(by_cookie);
    let scene = Scene::start("epoll", &hook(&web, ""));
    let (mut session, _) = Client::open_with(scene.gateway.address(), "/echo", &cookie("brief"));
    let Received::Frame(frame) = session.next() else { panic!("a Close") };
    assert_eq!((frame.opcode, &frame.payload[..2]), (CLOSE, &4401_u16.to_be_bytes()[..]));
    session.send(&close(4401, b""));
    // In band nothing is renewed.
    let (mut session, _) = Client::open_with(scene.gateway.address(), "/topics", &cookie("ada"));
    session.send(&masked(0x80 | TEXT, br#"{"op":"auth","id":1,"token":"a.b.c"}"#));
    let answer = eventually("the answer", || match session.next() {
        Received::Frame(frame) if frame.payload.windows(4).any(|part| part == b"\"id\"") => {
            Some(String::from_utf8(frame.payload).expect("text"))
        }
        Received::Frame(_) => None,
        end => panic!("{end:?}"),
    });
    assert!(answer.contains("not_allowed"), "{answer}");
    scene.stop();
}

/// What a route takes from nobody is no question of who asks.
#[test]
fn a_method_that_a_route_does_not_have_is_refused_without_asking() {
    let web = Web::start(by_cookie);
    let scene = Scene::start("epoll", &hook(&web, ""));
    let ada = cookie("ada");
    let delete = format!("DELETE /publish/chat/lobby HTTP/1.1\r\nHost: gw.test\r\n{ada}\r\n");
    for request in [
        get("/publish/chat/lobby", &ada),
        delete.into_bytes(),
        post("/poll?topic=chat/lobby", &ada, b""),
        post("/events?topic=chat/lobby", &ada, b""),
        post("/topics/chat/lobby", &ada, b""),
    ] {
        let refused = scene.asked(&request);
        assert_eq!((refused.status, refused.field("allow").is_some()), (405, true), "{refused:?}");
    }
    assert_eq!(web.asked().len(), 0);
    assert_eq!(scene.asked(&post("/publish/chat/lobby", &ada, b"{\"data\":1}")).status, 200);
    assert_eq!(web.asked().len(), 1, "the check above is one");
    scene.stop();
}

/// Each family that docs/OPERATIONS.md has for hooks, by each result.
#[test]
fn what_comes_of_asking_a_hook_is_counted() {
    for io in BACKENDS {
        let (web, (held, gate)) = (Web::start(by_cookie), gated());
        let route = |name: &str, url: String, more: &str| {
            format!(
                "[[identity]]\nname = '{name}'\nhook = {{ url = '{url}', {more} }}\n\
                 [[route]]\npath = '/{name}'\nidentity = '{name}'\necho = {{}}\n"
            )
        };
        let routes = route("patient", web.url("/"), "timeout = '1m'")
            + &route("hasty", web.url("/"), "timeout = '300ms'")
            + &route("narrow", held.url("/"), "timeout = '1m', max_in_flight = 1");
        let scene = harness::scene::Scene::on(io, 1, "", &routes);
        let counted = || {
            let metrics = scene.metrics();
            ["allowed", "denied", "failed", "busy", "late"].map(|result| {
                metrics.value(&format!("tidegate_hook_decisions_total{{result=\"{result}\"}}")) as u32
            })
        };
        let waiting = |identity: &str| {
            scene.metrics().value(&format!("tidegate_hook_in_flight{{identity=\"{identity}\"}}")) as u32
        };
        let ask = |path: &str, name: &str| {
            let mut client = Client::connect(scene.gateway.address());
            client.send(&request(path, &cookie(name)));
            client
        };
        assert_eq!((counted(), waiting("narrow")), ([0; 5], 0), "{io}");
        for (path, name, status, so_far) in [
            ("/patient", "ada", 101, [1, 0, 0, 0, 0]),
            ("/patient", "nobody", 101, [2, 0, 0, 0, 0]),
            ("/patient", "unknown", 401, [2, 1, 0, 0, 0]),
            ("/patient", "forbidden", 403, [2, 2, 0, 0, 0]),
            ("/patient", "denied", 403, [2, 3, 0, 0, 0]),
            ("/patient", "broken", 503, [2, 3, 1, 0, 0]),
            ("/patient", "closed", 503, [2, 3, 2, 0, 0]),
            // No answer within its time-out.
            ("/hasty", "silent", 503, [2, 3, 3, 0, 0]),
        ] {
            assert_eq!(ask(path, name).response().expect("an answer").status, status, "{io} {name}");
            assert_eq!(counted(), so_far, "{io} {name}");
        }
        let waits = ask("/narrow", "ada");
        eventually("the question", || (held.asked().len() == 1).then_some(()));
        assert_eq!((waiting("narrow"), waiting("patient"), waiting("hasty")), (1, 0, 0), "{io}");
        let listed = scene.sessions(&[("route", "/narrow")]);
        assert_eq!((listed.len(), &listed[0]["state"]), (1, &json!("deciding")), "{io}: {listed:?}");
        assert_eq!(ask("/narrow", "ada").response().expect("an answer").status, 503, "{io}");
        assert_eq!(counted(), [2, 3, 3, 1, 0], "{io}");
        // Who goes away takes its question along: nothing has come of it.
        drop(waits);
        eventually("the end of the question", || (waiting("narrow") == 0).then_some(()));
        assert_eq!(counted(), [2, 3, 3, 1, 0], "{io}");
        gate.release(0);
        scene.gateway.stop();
    }
}
