//! The admin listener of the real binary, on both backends: who may ask, what is answered, and that it is true.
//!
//! Where a tool or a right is missing, a line says what was not looked at.
#![allow(clippy::print_stderr)]

mod harness;

use std::{
    io::{Read, Write},
    net::Shutdown,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::{Value, json};
use tidegate_control::client::{Answer, Failure};

use crate::harness::{
    BACKENDS,
    client::{Client, Received},
    eventually,
    frame::{BINARY, CLOSE, FIN, PONG, TEXT, masked},
    gateway::output_of,
    guarded::Guarded,
    scene::{ROUTES, Scene},
    upstream::Upstream,
};

#[test]
fn probes_and_status_answer() {
    for io in BACKENDS {
        let scene = Scene::start(io);
        for path in ["/livez", "/readyz", "/healthz"] {
            let health = scene.get(path);
            assert_eq!(health["status"], "ok", "{io} {path}");
            assert_eq!(health["shards"].as_array().expect("shards").len(), 2);
        }
        let _open = Client::open(scene.gateway.address(), "/echo");
        let status = scene.get("/status");
        assert_eq!(
            (&status["sessions"], &status["ready"], &status["generation"]),
            (&json!(1), &json!("ok"), &json!(1))
        );
        assert!(status["backend"].as_str().expect("a name").contains(io), "{status}");
        assert_eq!(scene.get("/config")["routes"], json!(["/echo", "gw.test/other/*"]));
        assert_eq!((scene.status_of("/nothing"), scene.ask("POST", "/livez").status), (404, 405));
        assert_eq!(scene.ask("GET", "/sessions/kill").status, 405);
        scene.gateway.stop();
    }
}

/// As `nc -N` asks: the request, and the end of that side.
#[test]
fn who_has_asked_and_closes_its_side_is_answered() {
    let scene = Scene::start("epoll");
    for path in ["/livez", "/metrics", "/sessions"] {
        let mut stream = UnixStream::connect(scene.socket()).expect("the socket");
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).expect("room");
        stream.shutdown(Shutdown::Write).expect("its side");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("the answer, and the end");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer:?}");
    }
    scene.gateway.stop();
}

#[test]
fn the_socket_is_private_and_goes_with_the_gateway() {
    let scene = Scene::start("epoll");
    let mode = std::fs::metadata(scene.socket()).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    scene.gateway.stop();
    assert!(!Path::new(&scene.folder.path().join("admin.sock")).exists());
}

#[test]
fn sessions_are_listed_while_they_are_open_and_end_when_killed() {
    for io in BACKENDS {
        let scene = Scene::start(io);
        let address = scene.gateway.address();
        let mut echo: Vec<Client> = (0..5).map(|_| Client::open(address, "/echo")).collect();
        let mut other = Client::open(address, "/other/x");
        echo[0].exchange(TEXT, b"0123456789");
        echo[0].exchange(BINARY, &[7; 1000]);
        let all = scene.sessions(&[]);
        assert_eq!(all.len(), 6, "{io}: {all:#?}");
        let first = echo[0].local().to_string();
        let entry = all.iter().find(|entry| entry["address"] == first.as_str()).expect("its entry");
        assert_eq!((&entry["received_messages"], &entry["sent_messages"]), (&json!(2), &json!(2)), "{entry}");
        // Two frames, the head before them, and the 101 before the answers.
        let (received, sent) = (entry["received_bytes"].as_u64(), entry["sent_bytes"].as_u64());
        assert!(received > Some(1_024) && received < Some(1_600), "{entry}");
        assert!(sent > Some(1_016 + 100) && sent < Some(1_400), "{entry}");
        assert_eq!(
            (&entry["route"], &entry["state"], &entry["tls"]),
            (&json!("/echo"), &json!("open"), &json!(false))
        );
        assert!(entry["age_seconds"].as_f64().expect("a number") < 60.0);

        // Page by page, each session once.
        let mut ids = Vec::new();
        let mut after = String::new();
        loop {
            let mut query = vec![("limit", "2"), ("route", "/echo")];
            if !after.is_empty() {
                query.push(("after", &after));
            }
            let page: Value = scene.asker().get("/sessions", &query).expect("a page");
            let sessions = page["sessions"].as_array().expect("a list");
            assert!(sessions.len() <= 2, "{page}");
            ids.extend(sessions.iter().map(|entry| entry["id"].as_str().expect("an id").to_owned()));
            match page["next"].as_str() {
                Some(next) => after = next.to_owned(),
                None => break,
            }
        }
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 5, "{io}: {ids:?}");
        for address in ["127.0.0.0/8", "::ffff:127.0.0.1", "::ffff:127.0.0.0/104", "::ffff:0:0/96"] {
            assert_eq!(scene.sessions(&[("address", address)]).len(), 6, "{address}");
        }
        assert_eq!(scene.sessions(&[("address", "192.0.2.1")]).len(), 0);
        for query in
            [("route", "/nothing"), ("address", "here"), ("state", "asleep"), ("limit", "0"), ("after", "x")]
        {
            assert!(
                matches!(scene.asker().get::<Value>("/sessions", &[query]), Err(Failure::Refused(400, _))),
                "{query:?}"
            );
        }

        // One by its id, with a code.
        let id = entry["id"].clone();
        let request = json!({ "ids": [id, id, id], "code": 4000 });
        let killed: Value = scene.asker().post("/sessions/kill", &request).expect("an answer");
        assert_eq!((&killed["matched"], &killed["ended"]), (&json!(1), &json!(1)), "{io}: one session");
        let mut closing = echo.remove(0);
        let close = closing.frame();
        assert_eq!((close.opcode, &close.payload[..2]), (CLOSE, &4000_u16.to_be_bytes()[..]));
        for state in ["it has not answered its Close", "it is gone, or about to be"] {
            let again: Value =
                scene.asker().post("/sessions/kill", &json!({ "ids": [id] })).expect("an answer");
            assert_eq!(again["ended"], json!(0), "{io}: {state}");
            closing.finish();
        }
        // Those of a route, at a pace: the first at once, the last three tenths of a second later.
        let began = Instant::now();
        let killed: Value = scene
            .asker()
            .post("/sessions/kill", &json!({ "route": "/echo", "per_second": 10 }))
            .expect("an answer");
        assert_eq!((&killed["matched"], &killed["ended"]), (&json!(4), &json!(1)), "{io}");
        for client in &mut echo {
            let close = client.frame();
            assert_eq!((close.opcode, &close.payload[..2]), (CLOSE, &1001_u16.to_be_bytes()[..]));
        }
        assert!(began.elapsed() >= Duration::from_millis(290), "{:?}", began.elapsed());
        other.exchange(TEXT, b"still here");
        for request in [
            json!({}),
            json!({ "ids": ["x"] }),
            json!({ "route": "/echo", "code": 1005 }),
            json!({ "all": true }),
        ] {
            assert!(
                matches!(
                    scene.asker().post::<Value>("/sessions/kill", &request),
                    Err(Failure::Refused(400, _))
                ),
                "{request}"
            );
        }
        scene.gateway.wait_for_log("the end of a session and what it has done", |line| {
            line.contains(&first)
                && line.contains("\"code\":4000")
                && line.contains("\"received_messages\":2")
        });
        scene.gateway.stop();
    }
}

#[test]
fn metrics_are_true_while_sessions_are_open() {
    for io in BACKENDS {
        let upstream = Upstream::echo();
        let proxied =
            format!("{ROUTES}[[route]]\npath = '/up'\nproxy = {{ upstreams = ['{}'] }}\n", upstream.url());
        let edge = format!(
            "{proxied}[[route]]\npath = '/pass'\nproxy = {{ upstreams = ['{}'], deflate = 'pass' }}\n",
            upstream.url()
        );
        let scene = Scene::with(io, "", &edge);
        let address = scene.gateway.address();
        for path in ["/echo", "/up", "/pass"] {
            let mut client = Client::open(address, path);
            (0..3).for_each(|_| client.exchange(TEXT, b"short"));
            client.exchange(BINARY, &vec![1; 100_000]);
            let metrics = scene.metrics();
            let of = |name: &str, leg: &str| {
                metrics.value(&format!("tidegate_{name}_total{{route=\"{path}\",leg=\"{leg}\"}}"))
            };
            for leg in if path == "/echo" { &["client"][..] } else { &["client", "upstream"] } {
                assert_eq!(
                    (of("received_messages", leg), of("sent_messages", leg)),
                    (4.0, 4.0),
                    "{io} {path} {leg}"
                );
                for name in ["received_bytes", "sent_bytes"] {
                    let bytes = of(name, leg);
                    assert!((100_000.0..101_500.0).contains(&bytes), "{io} {path} {leg} {name}: {bytes}");
                }
            }
            assert_eq!(metrics.value(&format!("tidegate_sessions{{route=\"{path}\"}}")), 1.0, "{io} {path}");
            client.close(1000);
            eventually("the session's end", || {
                (scene.metrics().value(&format!("tidegate_sessions{{route=\"{path}\"}}")) == 0.0)
                    .then_some(())
            });
        }
        let mut refused = Client::connect(address);
        refused.send(b"GET /nothing HTTP/1.1\r\nHost: gw.test\r\n\r\n");
        assert_eq!(refused.response().expect("an answer").status, 404);
        let metrics = scene.metrics();
        assert_eq!(metrics.value("tidegate_handshakes_total{result=\"opened\",status=\"101\"}"), 3.0);
        assert_eq!(metrics.value("tidegate_handshakes_total{result=\"refused\",status=\"404\"}"), 1.0);
        let closed = "tidegate_closes_total{side=\"client\",code=\"1000\",reason=\"closed by the client\"}";
        assert_eq!(metrics.value(closed), 3.0, "{io}");
        let up = format!("tidegate_upstream_up{{route=\"/up\",upstream=\"{}\"}}", upstream.url());
        assert_eq!(metrics.value(&up), 1.0);
        assert!(metrics.value("tidegate_turn_duration_seconds_count") > 10.0);
        assert!(metrics.value("process_open_fds") > 5.0);
        check_with_promtool(&scene.ask("GET", "/metrics").body);
        scene.gateway.stop();
    }
}

/// Prometheus' own judgement, where its tool is installed (scripts/test.sh does that).
fn check_with_promtool(metrics: &[u8]) {
    use std::{
        io::Write,
        process::{Command, Stdio},
    };
    let child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            eprintln!("NOT LOOKED AT: what Prometheus says of these metrics: promtool: {error}");
            return;
        }
    };
    child.stdin.take().expect("it is piped").write_all(metrics).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn pings_are_timed_and_openmetrics_ends_as_it_must() {
    for io in BACKENDS {
        let scene = Scene::with(io, "[limits]\nping_interval = '100ms'", ROUTES);
        let mut client = Client::open(scene.gateway.address(), "/echo");
        for _ in 0..2 {
            let ping = client.frame();
            let pong = masked(FIN | PONG, &ping.payload);
            client.send(&pong);
        }
        eventually("two round trips", || {
            (scene.metrics().value("tidegate_ping_round_trip_seconds_count") >= 2.0).then_some(())
        });
        let mut asker = UnixStream::connect(scene.socket()).expect("the socket");
        use std::io::{Read, Write};
        asker
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: application/openmetrics-text;version=1.0.0\r\n\r\n")
            .expect("it reads");
        let mut text = String::new();
        asker.read_to_string(&mut text).expect("text");
        assert!(text.contains("content-type: application/openmetrics-text; version=1.0.0"), "{text}");
        assert!(text.contains("# TYPE tidegate_pings counter\ntidegate_pings_total "), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
        scene.gateway.stop();
    }
}

#[test]
fn what_is_described_is_what_is_answered() {
    let scene = Scene::start("epoll");
    let _open = Client::open(scene.gateway.address(), "/echo");
    let document = scene.get("/openapi.json");
    let mut described = Vec::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let answer = scene.ask(&method.to_uppercase(), path);
            assert!(![404, 405].contains(&answer.status), "{method} {path}: {}", answer.status);
            fits_operation(&answer, operation, &document, path);
            described.push((method.to_uppercase(), path.clone()));
            // What has a parameter or a field is told that, and what has not refuses it.
            for name in operation["parameters"].as_array().into_iter().flatten() {
                let target = format!("{path}?{}=%20", name["name"].as_str().expect("a name"));
                let answer = scene.ask("GET", &target);
                assert!([200, 400].contains(&answer.status), "{target}");
                let said = String::from_utf8_lossy(&answer.body).into_owned();
                assert!(!said.contains("unknown field"), "{target}: {said}");
            }
        }
    }
    // What is described, what is listed and what is answered are the same.
    let listed = tidegate_control::api::PATHS.map(|(method, path)| (method.to_owned(), path.to_owned()));
    let sorted = |mut all: Vec<(String, String)>| {
        all.sort();
        all
    };
    assert_eq!(sorted(listed.to_vec()), sorted(described));
    let index = String::from_utf8(scene.ask("GET", "/").body).expect("text");
    assert_eq!(index.lines().count(), listed.len(), "{index}");
    let bad = scene.asker().ask("GET", "/sessions?usr=x", None).expect("an answer");
    assert!(String::from_utf8_lossy(&bad.body).contains("unknown field"), "the check above is one");
    scene.gateway.stop();
}

#[test]
fn what_is_posted_is_answered_as_described() {
    let scene = Scene::start("epoll");
    let document = scene.get("/openapi.json");
    let good = scene.config().to_owned();
    let _open = Client::open(scene.gateway.address(), "/echo");
    for (path, body, file, expected) in [
        ("/drain", json!({ "what": "/echo", "keep": true }), &good, 200),
        ("/drain", json!({ "what": "/echo", "undo": true }), &good, 200),
        ("/drain", json!({ "what": "/echo", "undo": true, "keep": true }), &good, 400),
        ("/drain", json!({ "what": "/none" }), &good, 400),
        ("/sessions/kill", json!({ "route": "/echo", "user": "nobody" }), &good, 200),
        ("/reload", Value::Null, &good.replace("/other", "/others"), 200),
        ("/reload", Value::Null, &good.replace("echo =", "ecco ="), 422),
        ("/reload", Value::Null, &good.replace("127.0.0.1:0", "127.0.0.1:1"), 422),
    ] {
        scene.gateway.rewrite(file);
        let answer = scene.asker().ask("POST", path, Some(body.to_string().as_bytes())).expect("an answer");
        assert_eq!(answer.status, expected, "{path} {body}: {}", String::from_utf8_lossy(&answer.body));
        fits_operation(&answer, &document["paths"][path]["post"], &document, path);
        if !body.is_null() {
            let schema =
                &document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"];
            fits(&body, schema, &document, path);
        }
    }
    scene.gateway.stop();
}

#[test]
fn refusals_are_json_and_described() {
    let scene = Scene::start("epoll");
    let document = scene.get("/openapi.json");
    let post = |path: &str, body: &[u8]| scene.asker().ask("POST", path, Some(body)).expect("an answer");
    for path in ["/drain", "/sessions/kill"] {
        for (body, expected) in [(&[0xff, 0xfe][..], 400), (&vec![b' '; (256 << 10) + 1], 413)] {
            let answer = post(path, body);
            assert_eq!(answer.status, expected, "{path}");
            fits_operation(&answer, &document["paths"][path]["post"], &document, path);
        }
        let answer = scene.ask("GET", path);
        assert_eq!(answer.status, 405);
        fits_operation(&answer, &document["paths"][path]["post"], &document, path);
    }
    scene.gateway.stop();
    let guarded = Guarded::start("epoll");
    let refused = guarded.ask(None);
    let mut page = Client::connect(guarded.gateway.admin());
    page.send(b"GET /livez HTTP/1.1\r\nHost: any.test\r\nOrigin: https://evil.test\r\n\r\n");
    let page = page.response().expect("an answer");
    for (answer, expected) in [(refused, 401), (Answer { status: page.status, body: page.body }, 403)] {
        assert_eq!(answer.status, expected);
        for (path, methods) in document["paths"].as_object().expect("paths") {
            for operation in methods.as_object().expect("methods").values() {
                fits_operation(&answer, operation, &document, path);
            }
        }
    }
    guarded.gateway.stop();
}

/// Whether an answer is one of those that are described.
fn fits_operation(answer: &Answer, operation: &Value, document: &Value, path: &str) {
    let mut said = &operation["responses"][answer.status.to_string()];
    if let Some(name) = said["$ref"].as_str().and_then(|name| name.rsplit('/').next()) {
        said = &document["components"]["responses"][name];
    }
    assert!(said.is_object(), "{path}: {} is not described", answer.status);
    let schema = &said["content"]["application/json"]["schema"];
    if schema.is_object() && path != "/openapi.json" {
        let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
        fits(&body, schema, document, path);
    }
}

/// Whether a value has what its schema says, no more and no less.
fn fits(value: &Value, schema: &Value, document: &Value, at: &str) {
    if let Some(name) = schema["$ref"].as_str().and_then(|name| name.rsplit('/').next()) {
        return fits(value, &document["components"]["schemas"][name], document, at);
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let kinds = &schema["type"];
    let allows =
        |kind: &str| kinds == kind || kinds.as_array().is_some_and(|kinds| kinds.iter().any(|k| k == kind));
    assert!(allows(kind) || (kind == "integer" && allows("number")), "{at}: {value} where {kinds} is due");
    match value {
        Value::Array(items) => items.iter().for_each(|item| fits(item, &schema["items"], document, at)),
        Value::Object(fields) => {
            let properties = schema["properties"].as_object().expect("properties");
            for name in schema["required"].as_array().expect("a list") {
                assert!(fields.contains_key(name.as_str().expect("a name")), "{at}: no {name} in {value}");
            }
            for (name, value) in fields {
                let property =
                    properties.get(name).unwrap_or_else(|| panic!("{at}: {name} is not described"));
                fits(value, property, document, &format!("{at}.{name}"));
            }
        }
        _ => {}
    }
}

#[test]
fn while_it_drains_it_lives_but_is_not_ready() {
    for io in BACKENDS {
        let scene = Scene::with(io, "[limits]\nclose_timeout = '30s'\n[drain]\nwindow = '100ms'", ROUTES);
        let mut client = Client::open(scene.gateway.address(), "/echo");
        scene.gateway.signal(Signal::TERM);
        assert_eq!(client.frame().opcode, CLOSE);
        eventually("not ready", || (scene.status_of("/readyz") == 503).then_some(()));
        assert_eq!(
            serde_json::from_slice::<Value>(&scene.ask("GET", "/readyz").body).expect("JSON")["status"],
            "draining"
        );
        assert_eq!(scene.status_of("/livez"), 200, "{io}");
        assert_eq!(scene.metrics().value("tidegate_ready"), 0.0);
        client.send(&masked(FIN | CLOSE, &1001_u16.to_be_bytes()));
        assert!(matches!(client.next(), Received::End(_)));
        drop(client);
        let (status, _) = scene.gateway.wait();
        assert!(status.success());
    }
}

#[test]
fn beside_loaded_shards_it_lives_within_a_tenth_of_a_second() {
    const QUESTIONS: usize = 41;
    for io in BACKENDS {
        let scene = Scene::start(io);
        let address = scene.gateway.address();
        let over = AtomicBool::new(false);
        let mut waited = std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut client = Client::open(address, "/echo");
                    let payload = vec![7; 200_000];
                    while !over.load(Ordering::Relaxed) {
                        client.exchange(BINARY, &payload);
                    }
                    client.close(1000);
                });
            }
            let opened = || scene.metrics().value("tidegate_sessions{route=\"/echo\"}") == 4.0;
            eventually("the load", || opened().then_some(()));
            let waited: Vec<Duration> = (0..QUESTIONS)
                .map(|_| {
                    let asked = Instant::now();
                    assert_eq!(scene.status_of("/livez"), 200, "{io}");
                    asked.elapsed()
                })
                .collect();
            over.store(true, Ordering::Relaxed);
            waited
        });
        waited.sort_unstable();
        // Whatever else this machine does meanwhile holds up some of them.
        assert!(waited[QUESTIONS / 2] < Duration::from_millis(100), "{io}: {waited:?}");
        let metrics = scene.metrics();
        let bytes = metrics.value("tidegate_received_bytes_total{route=\"/echo\",leg=\"client\"}");
        assert!(bytes > 4.0 * 200_000.0, "{io}: there was no load: {bytes}");
        scene.gateway.stop();
    }
}

#[test]
fn the_command_line_asks_a_running_gateway() {
    let scene = Scene::start("epoll");
    let mut client = Client::open(scene.gateway.address(), "/echo");
    let local = client.local().to_string();
    let (code, out, _) = scene.run(&["sessions", "list"]);
    assert_eq!(code, Some(0));
    let line = out.lines().find(|line| line.contains(&local)).unwrap_or_else(|| panic!("{out}"));
    let id = line.split_whitespace().next().expect("an id").to_owned();
    let (_, out, _) = scene.run(&["sessions", "list", "--json", "--route", "/echo"]);
    let listed: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(listed["sessions"][0]["id"], json!(id));
    let (code, out, _) = scene.run(&["status"]);
    assert_eq!(code, Some(0));
    assert!(out.contains("sessions        1\n") && out.contains("\n/echo "), "{out}");
    let (code, _, error) = scene.run(&["sessions", "list", "--route", "/nothing"]);
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("there is no route"), "{error}");
    let admin = format!("unix:{}", scene.socket());
    for arguments in [&["status"][..], &["status", "--json"], &["sessions", "list"]] {
        let mut full = std::process::Command::new("sh");
        full.args(["-c", "exec \"$0\" \"$@\" > /dev/full"]).arg(harness::gateway::binary());
        full.args(arguments).args(["--admin", &admin]);
        let (code, _, error) = output_of(full);
        assert_eq!(code, Some(1), "{arguments:?}: what is written there is lost");
        assert!(error.contains("standard output cannot be written"), "{error}");
    }
    let (code, out, error) = scene.run(&["sessions", "kill", &id]);
    assert_eq!((code, out.as_str()), (Some(0), "ended 1 of 1\n"), "{error}");
    assert_eq!(client.frame().opcode, CLOSE);
    drop(client);
    eventually("its end", || scene.sessions(&[]).is_empty().then_some(()));
    let (code, out, _) = scene.run(&["sessions", "kill", &id]);
    assert_eq!((code, out.as_str()), (Some(1), "ended 0 of 1\n"));
    assert_eq!(scene.run(&["sessions", "kill"]).0, Some(2), "nobody is meant");
    scene.gateway.stop();
    let mut command = std::process::Command::new(harness::gateway::binary());
    command.args(["status", "--admin", &admin]);
    let (code, _, error) = output_of(command);
    assert_eq!(code, Some(1));
    assert!(error.contains("cannot ask the gateway at unix:"), "{error}");
}

/// Peers of other users, which only root can make.
#[test]
fn the_kernel_says_who_may_ask_and_who_may_not_takes_nobodys_place() {
    use std::{
        fs::{Permissions, set_permissions},
        io::{BufRead, BufReader},
        os::unix::{fs::PermissionsExt, process::CommandExt},
        process::{Command, Stdio},
    };
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT LOOKED AT: who may use the admin socket: only root can be somebody else");
        return;
    }
    const HOLDS: &str = "import socket, sys\nheld = [socket.socket(socket.AF_UNIX) for _ in range(40)]\n\
                         for one in held: one.connect(sys.argv[1])\nprint('held', flush=True)\nsys.stdin.read()";
    const ASKS: &str = "import socket, sys\nasker = socket.socket(socket.AF_UNIX)\nasker.connect(sys.argv[1])\n\
                        asker.sendall(b'GET /livez HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n')\n\
                        print(asker.makefile().readline().split()[1])";
    for io in BACKENDS {
        // As it names somebody, the socket is open to all.
        let scene = Scene::with(io, "", &format!("allow_uids = [65534]\n{ROUTES}"));
        set_permissions(scene.folder.path(), Permissions::from_mode(0o755)).expect("our own folder");
        let script = |script: &str, user: u32| {
            let mut command = Command::new("python3");
            command.args(["-c", script, &scene.socket()]).uid(user);
            command
        };
        for (user, status) in [(1234, "403\n"), (65534, "200\n"), (0, "200\n")] {
            let (code, out, error) = output_of(script(ASKS, user));
            assert_eq!((code, out.as_str()), (Some(0), status), "{io} {user}: {error}");
        }
        let mut stranger =
            script(HOLDS, 1234).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3");
        let mut line = String::new();
        BufReader::new(stranger.stdout.take().expect("a pipe")).read_line(&mut line).expect("its word");
        assert_eq!(line, "held\n");
        assert_eq!(scene.status_of("/livez"), 200, "{io}");
        drop(stranger.stdin.take());
        stranger.wait().expect("it was started");
        scene.gateway.stop();
    }
}

#[test]
fn the_route_that_is_there_has_the_name_and_not_the_one_that_was_replaced() {
    for io in BACKENDS {
        // Nobody is asked to go while this lasts.
        let scene = Scene::with(io, "[drain]\nwindow = '167h'\ndeadline = '168h'\n", ROUTES);
        let address = scene.gateway.address();
        let mut old = Client::open(address, "/echo");
        scene.gateway.rewrite(&scene.config().replacen("echo = {}", "echo = { deflate = 'off' }", 1));
        let (code, out, error) = scene.run(&["reload"]);
        assert_eq!((code, error.as_str()), (Some(0), ""), "{io}");
        assert!(out.contains("  route /echo: replaced\n"), "{io}: {out}");
        assert!(out.contains("  asked to go: /echo (2) (1 session)\n"), "{io}: {out}");
        let mut new = Client::open(address, "/echo");
        assert_eq!(scene.get("/config")["routes"], json!(["/echo", "gw.test/other/*"]), "{io}");
        let metrics = scene.metrics();
        for name in ["/echo", "/echo (2)"] {
            assert_eq!(metrics.value(&format!("tidegate_sessions{{route=\"{name}\"}}")), 1.0, "{io} {name}");
            assert_eq!(scene.sessions(&[("route", name)])[0]["route"], json!(name), "{io}");
        }
        let (code, out, _) = scene.run(&["sessions", "kill", "--route", "/echo"]);
        assert_eq!((code, out.as_str()), (Some(0), "ended 1 of 1\n"), "{io}");
        assert_eq!(new.frame().opcode, CLOSE, "{io}");
        old.exchange(TEXT, b"still here");
        let (code, _, _) = scene.run(&["sessions", "kill", "--route", "/echo (2)"]);
        assert_eq!((code, old.frame().opcode), (Some(0), CLOSE), "{io}");
        drop((old, new));
        scene.gateway.stop();
    }
}

#[test]
fn where_all_upstreams_of_a_route_are_drained_so_is_the_route() {
    for io in BACKENDS {
        let (one, two) = (Upstream::echo(), Upstream::echo());
        let route = format!(
            "[[route]]\npath = '/up'\nproxy = {{ upstreams = ['{}', '{}'] }}\n",
            one.url(),
            two.url()
        );
        let scene = Scene::with(io, "", &route);
        let state = || {
            let status = scene.get("/status");
            assert_eq!(scene.status_of("/readyz") == 200, status["ready"] == "ok", "{io}: {status}");
            let drained = status["routes"][0]["drained"].as_bool().expect("a boolean");
            let metrics = scene.metrics();
            let gauge = metrics.value("tidegate_route_drained{route=\"/up\"}");
            (drained, gauge, metrics.value("tidegate_ready"), status["ready"].clone())
        };
        let takes_some = (false, 0.0, 1.0, json!("ok"));
        assert_eq!(state(), takes_some, "{io}");
        assert_eq!(scene.run(&["drain", &one.url()]).0, Some(0));
        assert_eq!(state(), takes_some, "{io}: the other one takes sessions");
        assert_eq!(scene.run(&["drain", &two.url()]).0, Some(0));
        assert_eq!(state(), (true, 1.0, 0.0, json!("drained")), "{io}");
        assert_eq!(scene.run(&["drain", "--undo", &one.url()]).0, Some(0));
        assert_eq!(state(), takes_some, "{io}");
        scene.gateway.stop();
    }
}

/// Alerts must not go on about what nobody has configured, and metrics must not grow with each name that there ever was.
#[test]
fn what_is_gone_is_told_of_while_it_has_sessions_and_not_for_ever() {
    for io in BACKENDS {
        let (one, two) = (Upstream::echo(), Upstream::echo());
        let up = |urls: &[String]| format!("[[route]]\npath = '/up'\nproxy = {{ upstreams = {urls:?} }}\n");
        let both = up(&[one.url(), two.url()]);
        // Nobody is asked to go while this lasts.
        let drain = "[drain]\nwindow = '167h'\ndeadline = '168h'\n";
        let scene = Scene::on(io, 1, drain, &format!("{ROUTES}{both}"));
        let mut clients = [(); 2].map(|()| Client::open(scene.gateway.address(), "/up"));
        let upstream = |what: &str, url: &str| {
            scene.metrics().find(&format!("tidegate_upstream_{what}{{route=\"/up\",upstream=\"{url}\"}}"))
        };
        let sessions = || scene.metrics().find("tidegate_sessions{route=\"/up\"}");
        assert_eq!((upstream("up", &one.url()), upstream("sessions", &one.url())), (Some(1.0), Some(1.0)));
        let reload = |routes: &str| {
            scene.gateway.rewrite(&scene.config().replace(&both, routes));
            assert_eq!(scene.run(&["reload"]).0, Some(0), "{io}");
        };
        reload(&up(&[two.url()]));
        assert_eq!((upstream("up", &one.url()), upstream("sessions", &one.url())), (None, Some(1.0)), "{io}");
        assert_eq!((upstream("up", &two.url()), sessions()), (Some(1.0), Some(2.0)), "{io}");
        reload("");
        assert_eq!((upstream("up", &two.url()), sessions()), (None, Some(2.0)), "{io}");
        clients.iter_mut().for_each(|client| client.exchange(TEXT, b"still here"));
        clients.into_iter().for_each(|client| client.close(1000));
        eventually("nothing of it", || {
            let text = String::from_utf8(scene.ask("GET", "/metrics").body).expect("text");
            (!text.contains("\"/up\"")).then_some(())
        });
        scene.gateway.stop();
    }
}
