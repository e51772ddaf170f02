//! Metrics by their names: what the documentation and the alerts call so is there, what is there is documented, and each number
//! moves by its cause.

mod harness;

use std::{
    collections::BTreeSet,
    fs,
    net::TcpListener,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::harness::{
    BACKENDS, PATIENCE,
    certificates::Authority,
    client::{Client, request},
    eventually,
    frame::{CLOSE, FIN, RSV1, TEXT, close, masked},
    request::{AS_JSON, ask, post},
    scene::Scene,
    secure::Secure,
    tokens::Signer,
    unix_seconds,
    upstream::Upstream,
    web::{Reply, Web},
};

/// An upstream that breaks RFC 6455 §5.1: a server's frame is not masked.
fn masking() -> Upstream {
    Upstream::start(|mut connection| {
        if connection.upgrade() {
            connection.send(&masked(FIN | TEXT, b"masked"));
            connection.end_within(PATIENCE);
        }
    })
}

/// An address at which nobody listens.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").to_string()
}

/// A gateway that has something of all that is counted.
struct World {
    scene: Scene,
    signer: Signer,
    /// An upstream that nobody answers for.
    down: String,
    certificate: String,
    authority: Authority,
    _upstream: Upstream,
    _keys: Web,
}

impl World {
    fn start(io: &'static str) -> World {
        let (signer, authority, upstream) = (Signer::p256(), Authority::new(), masking());
        let set = json!({ "keys": [signer.jwk("one")] }).to_string();
        let keys = Web::start(move |_| Reply::Status(200, set.clone()));
        let (tls, down) = (authority.issue("gw", &["gw.test"]).setting(), format!("ws://{}", nobody()));
        let identity = |name: &str, keys: &str| {
            format!(
                "[[identity]]\nname = '{name}'\n{keys}\nleeway = '0s'\n[[route]]\npath = '/{name}'\nidentity = '{name}'\n\
                 echo = {{}}\n"
            )
        };
        let fetched = |name: &str, url: &str| {
            identity(name, &format!("algorithms = ['ES256']\njwks_url = '{url}'\njwks_interval = '1s'"))
        };
        let routes = [
            "[[route]]\npath = '/echo'\necho = {}\n".to_owned(),
            format!("[[route]]\npath = '/odd'\nproxy = {{ upstreams = ['{}'] }}\n", upstream.url()),
            format!("[[route]]\npath = '/down'\nproxy = {{ upstreams = ['{down}'] }}\n"),
            "[[topic]]\nname = 'a'\n[[route]]\npath = '/topics'\ntopics = { subscribe = ['a'] }\n".to_owned(),
            fetched("users", &keys.url("/keys")),
            fetched("strangers", &format!("http://{}/keys", nobody())),
            identity("callers", &format!("hook = {{ url = 'http://{}/' }}", nobody())),
            format!("[[listener]]\nbind = '127.0.0.1:0'\n[listener.tls]\n{tls}\n"),
        ];
        let scene = Scene::on(io, 2, "", &routes.concat());
        let certificate = authority.path("gw.pem").display().to_string();
        World { scene, signer, down, certificate, authority, _upstream: upstream, _keys: keys }
    }

    fn value(&self, name: &str) -> f64 {
        self.scene.metrics().value(name)
    }

    fn wait_for(&self, name: &str, least: f64) {
        eventually(name, || (self.value(name) >= least).then_some(()));
    }

    /// What a request with a token that says this is answered with.
    fn status(&self, path: &str, claims: &Value) -> u16 {
        let token = self.signer.token("ES256", Some("one"), claims);
        ask(&self.scene.gateway, &request(path, &format!("Authorization: Bearer {token}\r\n"))).status
    }

    /// The names of all samples. Those of a histogram are three.
    fn samples(&self) -> BTreeSet<String> {
        let answer = self.scene.ask("GET", "/metrics");
        let text = String::from_utf8(answer.body).expect("text");
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| line.split(['{', ' ']).next().expect("a name").to_owned()).collect()
    }
}

/// The names of metrics in a text.
fn named(text: &str) -> BTreeSet<&str> {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let begins = |prefix| text.match_indices(prefix).map(|(at, _)| at);
    let all = begins("tidegate_").chain(begins("process_"));
    // Behind a part of a name is no name.
    let all = all.filter(|at| !text[..*at].ends_with(is_part));
    all.map(|at| {
        let rest = &text[at..];
        &rest[..rest.find(|c| !is_part(c)).unwrap_or(rest.len())]
    })
    .collect()
}

/// The family of a sample: of a histogram's three it is one.
fn family(sample: &str) -> &str {
    let endings = ["_bucket", "_sum", "_count"];
    endings.iter().find_map(|ending| sample.strip_suffix(ending)).unwrap_or(sample)
}

/// What the panels of Grafana's dashboard ask for.
fn queries(dashboard: &str) -> Vec<String> {
    let dashboard: Value = serde_json::from_str(dashboard).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().expect("queries"));
    targets.map(|target| target["expr"].as_str().expect("a query").to_owned()).collect()
}

#[test]
fn what_the_documentation_and_the_alerts_name_is_there_and_what_is_there_is_documented() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let read =
        |path: &str| fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let (page, alerts) = (read("docs/OPERATIONS.md"), read("packaging/prometheus/alerts.yml"));
    let (_, section) = page.split_once("\n## Metrics\n").expect("a part about metrics");
    let (section, _) = section.split_once("\n## ").expect("a part behind it");
    let dashboard = queries(&read("packaging/grafana/tidegate.json"));
    let (_, panels) = section.split_once("\n### Dashboards\n").expect("a part about dashboards");
    for query in panels
        .lines()
        .filter(|line| line.starts_with("| "))
        .flat_map(|line| line.split('`').skip(1).step_by(2))
    {
        let is_query = query.contains("tidegate_") || query.contains("process_");
        assert!(!is_query || dashboard.iter().any(|has| has == query), "{query} is on no panel");
    }
    let documented = named(section);
    assert!(documented.len() > 50 && named(&alerts).len() > 5, "{documented:?}");
    for io in BACKENDS {
        let world = World::start(io);
        assert_eq!(world.status("/echo", &json!({})), 101);
        let samples = world.samples();
        let families: BTreeSet<&str> = samples.iter().map(|sample| family(sample)).collect();
        let shown = dashboard.iter().flat_map(|query| named(query));
        let others: Vec<&str> = named(&alerts).into_iter().chain(shown).collect();
        for name in documented.iter().chain(&others).filter(|name| !name.ends_with('_')) {
            assert!(families.contains(name) || samples.contains(*name), "{io}: no {name} in {samples:#?}");
        }
        let told: BTreeSet<&str> = documented.iter().map(|name| family(name)).collect();
        let untold: Vec<_> = families.difference(&told).collect();
        assert_eq!(untold, [&""; 0], "{io}: docs/OPERATIONS.md does not say what they tell");
        world.scene.gateway.stop();
    }
}

#[test]
fn what_callers_and_their_keys_come_to_is_counted() {
    for io in BACKENDS {
        let world = World::start(io);
        let keys = |name: &str, identity: &str| {
            world.value(&format!("tidegate_key_set_{name}{{identity=\"{identity}\"}}"))
        };
        let fetches = |identity: &str, result: &str| {
            format!("tidegate_key_set_fetches_total{{identity=\"{identity}\",result=\"{result}\"}}")
        };
        world.wait_for(&fetches("users", "fetched"), 1.0);
        world.wait_for(&fetches("strangers", "failed"), 1.0);
        assert_eq!((keys("keys", "users"), keys("keys", "strangers")), (1.0, 0.0), "{io}");
        let since = unix_seconds() as f64 - keys("timestamp_seconds", "users");
        assert!((-1.0..600.0).contains(&since), "{io}: {since}");
        assert_eq!(keys("timestamp_seconds", "strangers"), 0.0, "{io}: never");

        let refused =
            |reason: &str| world.value(&format!("tidegate_tokens_refused_total{{reason=\"{reason}\"}}"));
        let valid = json!({ "exp": unix_seconds() + 600 });
        assert_eq!(world.status("/users", &valid), 101);
        assert_eq!((refused("invalid"), refused("no_keys")), (0.0, 0.0), "{io}");
        assert_eq!(world.status("/users", &json!({ "exp": 1 })), 401);
        assert_eq!(world.status("/strangers", &valid), 503);
        assert_eq!((refused("invalid"), refused("no_keys")), (1.0, 1.0), "{io}");

        assert_eq!(world.value("tidegate_tokens_expired_total"), 0.0, "{io}");
        let brief = world.signer.token("ES256", Some("one"), &json!({ "exp": unix_seconds() + 2 }));
        let fields = format!("Authorization: Bearer {brief}\r\n");
        let (mut session, _) = Client::open_with(world.scene.gateway.address(), "/users", &fields);
        assert_eq!(session.frame().close_code(), 4401, "{io}");
        assert_eq!(world.value("tidegate_tokens_expired_total"), 1.0, "{io}");
        world.scene.gateway.stop();
    }
}

#[test]
fn what_peers_do_wrong_and_upstreams_do_not_is_counted() {
    for io in BACKENDS {
        let world = World::start(io);
        let address = world.scene.gateway.address();
        let violations = || {
            ["client", "upstream"]
                .map(|leg| world.value(&format!("tidegate_violations_total{{leg=\"{leg}\"}}")))
        };
        assert_eq!(violations(), [0.0, 0.0], "{io}");
        let mut rude = Client::open(address, "/echo");
        // RFC 6455 §5.1: a client's frame is masked.
        rude.send(&[FIN | TEXT, 1, b'x']);
        assert_eq!(rude.frame().close_code(), 1002, "{io}");
        assert_eq!(violations(), [1.0, 0.0], "{io}");
        let mut misled = Client::open(address, "/odd");
        assert_eq!(misled.frame().opcode, CLOSE, "{io}: nothing of what it said comes through");
        assert_eq!(violations(), [1.0, 1.0], "{io}");

        let failures =
            format!("tidegate_upstream_failures_total{{route=\"/down\",upstream=\"{}\"}}", world.down);
        assert_eq!(world.value(&failures), 0.0, "{io}");
        assert_eq!(world.status("/down", &json!({})), 502, "{io}");
        assert!(world.value(&failures) >= 1.0, "{io}");
        world.scene.gateway.stop();
    }
}

#[test]
fn what_is_compressed_and_what_the_kernel_does_is_counted() {
    for io in BACKENDS {
        let world = World::start(io);
        let fields = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
        let address = world.scene.gateway.address();
        let bytes = || {
            ["inflate_compressed", "inflate", "deflate"]
                .map(|what| world.value(&format!("tidegate_{what}_bytes_total")))
        };
        let events =
            || [0, 1].map(|shard| world.value(&format!("tidegate_events_total{{shard=\"{shard}\"}}")));
        assert_eq!(bytes(), [0.0; 3], "{io}");
        let before: f64 = events().iter().sum();
        let (mut client, response) = Client::open_with(address, "/echo", fields);
        assert!(response.field("sec-websocket-extensions").is_some(), "{io}: it is agreed to");
        // RFC 7692 §7.2.3.1: `Hello`, whose echo is too short to be compressed.
        client.send(&masked(FIN | RSV1 | TEXT, &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]));
        assert_eq!(client.message(TEXT), b"Hello", "{io}");
        // Seven, and the nine by which its end is found (RFC 7692 §7.2.2).
        assert_eq!(bytes(), [16.0, 5.0, 0.0], "{io}");
        client.send(&masked(FIN | TEXT, &[b'x'; 1_000]));
        assert!(client.frame().payload.len() < 100, "{io}: the echo is compressed");
        assert_eq!(bytes(), [16.0, 5.0, 1_000.0], "{io}");
        let after: f64 = events().iter().sum();
        assert!(after >= before + 3.0, "{io}: {before} {after}, for a connection and two messages");
        client.send(&close(1000, b""));
        for shard in [0, 1] {
            let of = |name: &str| world.value(&format!("tidegate_{name}{{shard=\"{shard}\"}}"));
            assert_eq!(of("completion_overflows_total"), 0.0, "{io}");
            let age = of("last_turn_age_seconds");
            assert!((0.0..60.0).contains(&age), "{io}: {age}");
        }
        world.scene.gateway.stop();
    }
}

#[test]
fn certificates_and_generations_are_told() {
    for io in BACKENDS {
        let world = World::start(io);
        let file = &world.certificate;
        let expiry =
            world.value(&format!("tidegate_certificate_expiry_timestamp_seconds{{file=\"{file}\"}}"));
        assert!(expiry > unix_seconds() as f64 + 86_400.0, "{io}: {expiry}");
        for generation in [1.0, 2.0, 3.0] {
            assert_eq!(world.value("tidegate_config_generation"), generation, "{io}");
            world.scene.gateway.reload(&format!("{}\n", world.scene.config()));
        }
        world.scene.gateway.stop();
    }
}

/// The value of a family's sample with one label.
fn labelled(scene: &Scene, family: &str, label: &str, value: &str) -> f64 {
    scene.metrics().value(&format!("{family}{{{label}=\"{value}\"}}"))
}

#[test]
fn who_is_turned_away_is_counted_once_by_its_reason_whether_it_was_told_or_not() {
    for io in BACKENDS {
        let authority = Authority::new();
        let tls = authority.issue("gw", &["gw.test"]).setting();
        let limits = "[limits]\nhandshakes_per_second = 1\nburst_handshakes = 4\nexempt_addresses = []";
        let rest = format!(
            "[[listener]]\nbind = '127.0.0.1:0'\n[listener.tls]\n{tls}\
             [[listener]]\nbind = '127.0.0.1:0'\nproxy_protocol = ['127.0.0.0/8']\n\
             [[route]]\npath = '/one'\necho = {{}}\nlimits = {{ max_sessions = 1 }}\n"
        );
        let scene = Scene::with(io, limits, &rest);
        let refused = |reason: &str| labelled(&scene, "tidegate_connections_refused_total", "reason", reason);
        let reasons = || {
            [
                "sessions",
                "address_sessions",
                "address_rate",
                "route_sessions",
                "memory",
                "proxy_header",
                "draining",
            ]
            .map(refused)
        };
        let [plain, secure, proxied] = scene.gateway.addresses() else { panic!("three listeners") };
        assert_eq!(reasons(), [0.0; 7], "{io}");
        for _ in 0..3 {
            let mut headless = Client::connect(*proxied);
            headless.send(&request("/one", ""));
            assert!(headless.end_within(PATIENCE).is_some(), "{io}");
        }
        assert_eq!(reasons(), [0.0, 0.0, 0.0, 0.0, 0.0, 3.0, 0.0], "{io}");
        let _open = Client::open(*plain, "/one");
        assert_eq!(ask(&scene.gateway, &request("/one", "")).status, 503);
        assert_eq!(reasons(), [0.0, 0.0, 0.0, 1.0, 0.0, 3.0, 0.0], "{io}: told");
        let client = authority.client();
        let shake = |_| Secure::connect(*secure, &client, "gw.test").shake().is_err();
        let reset = (0..20).map(shake).filter(|is_reset| *is_reset).count();
        assert!(reset > 0, "{io}");
        let told = reasons();
        assert_eq!(told, [0.0, 0.0, reset as f64, 1.0, 0.0, 3.0, 0.0], "{io}: not told");
        let accepted = scene.metrics().value("tidegate_connections_accepted_total");
        assert_eq!(accepted, (3 + 2 + 20) as f64, "{io}");
        scene.gateway.stop();
    }
}

#[test]
fn an_upstream_is_down_from_a_failure_until_somebody_comes_through() {
    for io in BACKENDS {
        let works = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&works);
        let upstream = Upstream::start(move |mut connection| {
            // Else it hangs up without an answer.
            if seen.load(Ordering::Relaxed) && connection.upgrade() {
                connection.echo();
            }
        });
        let route = format!(
            "[[route]]\npath = '/a'\nproxy = {{ upstreams = ['{}'], fail_timeout = '50ms' }}\n",
            upstream.url()
        );
        let scene = Scene::with(io, "", &route);
        let name = format!("tidegate_upstream_up{{route=\"/a\",upstream=\"{}\"}}", upstream.url());
        let up = || (scene.metrics().value(&name), scene.get("/status")["upstreams"][0]["up"] == true);
        assert_eq!(up(), (1.0, true), "{io}: nobody has tried");
        for _ in 0..3 {
            assert_eq!(ask(&scene.gateway, &request("/a", "")).status, 502, "{io}");
            // As long as nobody comes, nobody knows better: neither of both shards, and not behind `fail_timeout`.
            let until = Instant::now() + Duration::from_millis(400);
            while Instant::now() < until {
                assert_eq!(up(), (0.0, false), "{io}");
            }
        }
        works.store(true, Ordering::Relaxed);
        assert_eq!(ask(&scene.gateway, &request("/a", "")).status, 101, "{io}");
        assert_eq!(up(), (1.0, true), "{io}: whichever shard has come through");
        scene.gateway.stop();
    }
}

#[test]
fn what_topics_keep_waits_for_nobody() {
    for io in BACKENDS {
        let rest = "[[topic]]\nname = 'kept/**'\nhistory = 100\nhistory_bytes = '8MiB'\n\
                    [[route]]\npath = '/publish/*'\npublish = { publish = ['kept/**'] }\n";
        let scene = Scene::with(io, "", rest);
        let body = json!("x".repeat(50_000)).to_string();
        for _ in 0..20 {
            let answer = ask(&scene.gateway, &post("/publish/kept/a", AS_JSON, body.as_bytes()));
            assert_eq!(answer.status, 200, "{io}: {}", answer.head);
        }
        eventually("all who have asked are gone", || {
            let metrics = scene.metrics();
            assert!(metrics.value("tidegate_topics_bytes") > 1_000_000.0, "{io}");
            (metrics.value("tidegate_buffered_bytes") == 0.0).then_some(())
        });
        assert_eq!(scene.get("/status")["buffered_bytes"], 0, "{io}");
        scene.gateway.stop();
    }
}

#[test]
fn the_certificate_that_upstreams_are_shown_has_an_end_too() {
    let (listening, own) = (Authority::new(), Authority::new());
    let served = listening.issue("gw", &["gw.test"]);
    let shown = own.issue("as_client", &["gw.test"]);
    let rest = format!(
        "[[listener]]\nbind = '127.0.0.1:0'\n[listener.tls]\n{}\
         [[route]]\npath = '/m'\n[route.proxy]\nupstreams = ['wss://{}']\n[route.proxy.tls]\nca_file = {:?}\n{}",
        served.setting(),
        nobody(),
        own.ca(),
        shown.setting()
    );
    let scene = Scene::with("epoll", "", &rest);
    for file in [served.chain, shown.chain] {
        let file = file.display().to_string();
        let end = labelled(&scene, "tidegate_certificate_expiry_timestamp_seconds", "file", &file);
        assert!(end > unix_seconds() as f64 + 86_400.0, "{file}: {end}");
    }
    scene.gateway.stop();
}

/// Both directions have all of a session's connection: handshakes, of TLS too, frames, and what ends it.
#[test]
fn the_bytes_of_a_session_are_the_same_in_metrics_and_in_its_line_of_the_log() {
    for io in BACKENDS {
        let world = World::start(io);
        let [plain, secure] = world.scene.gateway.addresses() else { panic!("two listeners") };
        let counted = || {
            ["received", "sent"].map(|way| {
                let name = format!("tidegate_{way}_bytes_total{{route=\"/echo\",leg=\"client\"}}");
                world.value(&name) as u64
            })
        };
        let is_as_logged = |way: &str, session: &dyn Fn()| {
            let (before, lines) = (counted(), world.scene.gateway.log_len());
            session();
            let is_end = |line: &str| line.contains("session ended");
            let line = world.scene.gateway.wait_for_log_behind(lines, way, is_end);
            let line: Value = serde_json::from_str(&line).expect("JSON");
            let logged = ["received_bytes", "sent_bytes"].map(|name| line[name].as_u64().expect("a number"));
            let now = counted();
            assert_eq!([now[0] - before[0], now[1] - before[1]], logged, "{io} {way}");
        };
        is_as_logged("plain", &|| {
            let mut client = Client::open(*plain, "/echo");
            client.exchange(TEXT, b"hello");
            client.close(1000);
        });
        is_as_logged("over TLS", &|| {
            let mut client = Secure::open(*secure, &world.authority.client(), "gw.test", "/echo");
            client.exchange(TEXT, b"hello");
            client.close();
        });
        world.scene.gateway.stop();
    }
}
