//! What is done to a running gateway over its admin listener: reloads, drains of routes and upstreams, and the end of a user's sessions.
//! By the command line and by its API, on both backends.

mod harness;

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{
    BACKENDS,
    client::{Client, Received, Response, request},
    eventually,
    frame::{CLOSE, FIN, Frame, TEXT, close, masked},
    gateway::run_to_end,
    scene::Scene,
    tokens::Signer,
    unix_seconds,
    upstream::Upstream,
};

const DRAIN: &str = "[drain]\nwindow = '200ms'\ndeadline = '30s'\nreconnect_delay = '2s'\n";

fn echo(path: &str, more: &str) -> String {
    format!("[[route]]\npath = '{path}'\necho = {{}}\n{more}\n")
}

fn proxy(path: &str, upstreams: &[&Upstream]) -> String {
    let urls: Vec<String> = upstreams.iter().map(|upstream| format!("'{}'", upstream.url())).collect();
    format!("[[route]]\npath = '{path}'\nproxy = {{ upstreams = [{}] }}\n", urls.join(", "))
}

/// What a request for a session is answered with, where it is not let in.
fn refusal(scene: &Scene, path: &str) -> Response {
    let mut client = Client::connect(scene.gateway.address());
    client.send(&request(path, ""));
    client.response().expect("an answer")
}

/// The Close that comes next, answered; with the delay that it tells.
fn asked_to_go(client: &mut Client) -> (u16, u64) {
    let frame: Frame = client.frame();
    assert_eq!(frame.opcode, CLOSE, "{frame:?}");
    let reason: Value = serde_json::from_slice(frame.close_reason()).expect("a reason with a delay");
    // On a slow machine its time for that may be over.
    let _ = client.try_send(&close(frame.close_code(), b""));
    (frame.close_code(), reason["retry_ms"].as_u64().expect("a delay"))
}

/// Nobody asks it to go.
fn stays(client: &mut Client) {
    assert!(matches!(client.next_within(Duration::from_millis(400)), Received::Nothing));
    client.exchange(TEXT, b"still here");
}

#[test]
fn a_reload_tells_what_has_changed_and_who_goes() {
    for io in BACKENDS {
        let (one, two) = (Upstream::echo(), Upstream::echo());
        let scene = Scene::with(
            io,
            DRAIN,
            &(echo("/kept", "")
                + &echo("/limits", "")
                + &echo("/other", "")
                + &echo("/gone", "")
                + &proxy("/up", &[&one, &two])),
        );
        let address = scene.gateway.address();
        let mut kept = Client::open(address, "/kept");
        let mut limits = Client::open(address, "/limits");
        let mut going: Vec<Client> =
            ["/other", "/gone", "/gone"].iter().map(|path| Client::open(address, path)).collect();
        // Each shard has a turn of its own, so both may begin with the first.
        let mut proxied = Vec::new();
        while two.accepted() == 0 {
            proxied.push(Client::open(address, "/up"));
        }
        going.extend(proxied.pop());
        let begun = scene.config().find("[[route]]").expect("routes");
        let file = scene.config()[..begun].replace("200ms", "10s")
            + "[limits]\nreceive_buffers = 2048\n"
            + &echo("/kept", "")
            + &echo("/limits", "[route.limits]\nmessage_bytes = 99999")
            + "[[route]]\npath = '/other'\necho = { deflate = 'off' }\n"
            + &echo("/new", "")
            + &proxy("/up", &[&one]);
        scene.gateway.rewrite(&file);
        let (code, out, error) = scene.run(&["reload"]);
        assert_eq!((code, error.as_str()), (Some(0), ""), "{io}: {out}");
        let url = two.url();
        for line in [
            "configuration number 2 is in force\n",
            "  route /new: added\n",
            "  route /limits: changed\n",
            "  route /other: replaced\n",
            "  route /gone: removed\n",
            "  route /up: changed\n",
            "  changed: [drain]\n",
            "  asked to go: /other (2) (1 session)\n",
            "  asked to go: /gone (2 sessions)\n",
            &format!("  asked to go: {url} of /up (1 session)\n"),
            "  receive_buffers has changed: the new value waits for a restart\n",
        ] {
            assert!(out.contains(line), "{io}: {line} is not in\n{out}");
        }
        assert_eq!(out.lines().count(), 11, "{io}: nothing else\n{out}");
        // Those go whose routes have changed, and nobody else. What is in force is the new file.
        Client::open(address, "/new").exchange(TEXT, b"new");
        let (code, out, _) = scene.run(&["reload"]);
        assert_eq!(code, Some(0));
        assert!(out.contains("configuration number 3 is in force\n  nothing has changed\n"), "{out}");
        for client in &mut going {
            assert_eq!(asked_to_go(client).0, 1012, "{io}");
        }
        stays(&mut kept);
        proxied.iter_mut().for_each(|client| client.exchange(TEXT, b"still here"));
        limits.exchange(TEXT, b"still here");
        scene.gateway.stop();
    }
}

#[test]
fn a_bad_file_is_told_as_check_tells_it() {
    for io in BACKENDS {
        let scene = Scene::with(io, "", &echo("/echo", ""));
        let mut session = Client::open(scene.gateway.address(), "/echo");
        let good = scene.config().to_owned();
        let bad = good.replace("path =", "pth =").replace("echo = {}", "echo = { deflat = 'off' }");
        scene.gateway.rewrite(&bad);
        let file = scene.gateway.file().to_str().expect("a path").to_owned();
        let (code, _, checked) = run_to_end(&["check", "-c", &file]);
        assert_eq!(code, Some(78));
        let (code, out, error) = scene.run(&["reload"]);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{io}");
        let told = error.strip_prefix(&checked).unwrap_or_else(|| panic!("{error}\n--\n{checked}"));
        assert!(told.starts_with("tidegate: not taken over, number 1 stays: "), "{told}");
        assert!(checked.lines().count() > 4 && checked.contains("did you mean `path`"), "{checked}");
        // What only a restart can change.
        scene.gateway.rewrite(&good.replace("127.0.0.1:0", "127.0.0.2:0"));
        let (code, _, error) = scene.run(&["reload"]);
        assert_eq!(code, Some(1));
        assert!(error.contains("[[listener]] bind cannot change without a restart"), "{error}");
        // For programs.
        scene.gateway.rewrite(&bad);
        let (code, out, _) = scene.run(&["reload", "--json"]);
        let told: Value = serde_json::from_str(&out).expect("JSON");
        assert_eq!((code, &told["generation"]), (Some(1), &json!(1)), "{told}");
        let problems = told["problems"].as_array().expect("a list");
        assert!(problems.len() >= 2, "{told}");
        assert_eq!((&problems[0]["file"], &problems[0]["column"]), (&json!(file), &json!(1)), "{told}");
        assert_eq!(scene.get("/config")["generation"], json!(1));
        session.exchange(TEXT, b"still here");
        Client::open(scene.gateway.address(), "/echo").exchange(TEXT, b"and so is the route");
        scene.gateway.stop();
    }
}

#[test]
fn who_is_asked_to_go_is_counted_and_logged_as_that() {
    const DRAIN: &str = "[drain]\nwindow = '100ms'\ndeadline = '2s'\nreconnect_delay = '2s'\n";
    const ASKED: &str = "its route or upstream is drained or has changed";
    const LATE: &str = "cut off at the deadline of a drain";
    for io in BACKENDS {
        let one = Upstream::echo();
        let events = "[[topic]]\nname = 'a'\n[[route]]\npath = '/events'\nevents = { subscribe = ['a'] }\n";
        let routes =
            echo("/r", "") + &echo("/late", "") + &proxy("/p", &[&one]) + events + &echo("/left", "");
        let scene = Scene::with(io, DRAIN, &routes);
        let address = scene.gateway.address();
        let mut going = ["/r", "/p"].map(|path| Client::open(address, path));
        let mut stream = Client::connect(address);
        stream.send(b"GET /events?topic=a HTTP/1.1\r\nHost: gw.test\r\n\r\n");
        assert_eq!(stream.response().expect("an answer").status, 200);
        let late = Client::open(address, "/late");
        let closes = |code: u16, reason: &str| {
            let name =
                format!("tidegate_closes_total{{side=\"client\",code=\"{code}\",reason=\"{reason}\"}}");
            scene.metrics().find(&name).unwrap_or(0.0)
        };
        for route in ["/r", "/p", "/events", "/late"] {
            assert_eq!(scene.run(&["drain", route]).0, Some(0), "{io} {route}");
        }
        for client in &mut going {
            assert_eq!(asked_to_go(client).0, 1012);
        }
        eventually("the end of those that were asked", || (closes(1012, ASKED) == 3.0).then_some(()));
        eventually("the end of who does not answer", || (closes(1006, LATE) == 1.0).then_some(()));
        assert_eq!(closes(1006, "ended"), 0.0, "{io}");
        drop((going, stream, late));
        let mut left = Client::open(address, "/left");
        scene.gateway.signal(Signal::TERM);
        assert_eq!(asked_to_go(&mut left).0, 1001);
        let (status, log) = scene.gateway.wait();
        assert!(status.success(), "{io}: {status}");
        let end = |route: &str| {
            let route = format!("\"route\":\"{route}\"");
            let found = log.iter().find(|line| line.contains("session ended") && line.contains(&route));
            let line: Value =
                serde_json::from_str(found.unwrap_or_else(|| panic!("{route} in {log:?}"))).expect("JSON");
            (line["code"].as_u64().expect("a code"), line["reason"].as_str().expect("a reason").to_owned())
        };
        for route in ["/r", "/p", "/events"] {
            assert_eq!(end(route), (1012, ASKED.to_owned()), "{io} {route}");
        }
        assert_eq!(end("/late"), (1006, LATE.to_owned()), "{io}");
        assert_eq!(end("/left"), (1001, "the gateway ends".to_owned()), "{io}");
    }
}

#[test]
fn mistakes_elsewhere_in_the_file_keep_nobody_from_asking() {
    for io in BACKENDS {
        let scene = Scene::with(io, "", &echo("/echo", ""));
        let file = scene.gateway.file().to_str().expect("a path").to_owned();
        let run = |arguments: &[&str]| run_to_end(&[arguments, &["-c", &file]].concat());
        let (good, address) = (scene.config().to_owned(), scene.gateway.address());
        for bad in [good.replace("path =", "pth ="), good.replace("path = '/echo'", "path = /echo")] {
            let mut session = Client::open(address, "/echo");
            scene.gateway.rewrite(&bad);
            let (code, _, error) = run(&["reload"]);
            assert_eq!(code, Some(1), "{io}: {error}");
            assert!(error.contains("tidegate: not taken over, number 1 stays: "), "{error}");
            let (code, out, _) = run(&["reload", "--json"]);
            let told: Value = serde_json::from_str(&out).expect("JSON");
            assert_eq!((code, &told["generation"]), (Some(1), &json!(1)), "{told}");
            let (code, out, error) = run(&["sessions", "list", "--json"]);
            assert_eq!((code, error.as_str()), (Some(0), ""), "{io}");
            let told: Value = serde_json::from_str(&out).expect("JSON");
            let id = told["sessions"][0]["id"].as_str().expect("a session").to_owned();
            for arguments in [&["status"][..], &["drain", "/echo", "--keep"], &["drain", "/echo", "--undo"]] {
                let (code, out, error) = run(arguments);
                assert_eq!((code, error.as_str()), (Some(0), ""), "{io} {arguments:?}");
                assert!(out.contains("/echo"), "{out}");
            }
            assert_eq!(run(&["sessions", "kill", &id]).0, Some(0), "{io}");
            assert_eq!(session.frame().close_code(), 1001, "{io}");
        }
        // Where that cannot be read, nobody knows whom to ask.
        scene.gateway.rewrite(&good.replace("bind = 'unix:", "bnd = 'unix:"));
        for arguments in [&["status"][..], &["reload", "--json"], &["sessions", "list"], &["drain", "/echo"]]
        {
            let (code, out, error) = run(arguments);
            assert_eq!((code, out.as_str()), (Some(78), ""), "{io} {arguments:?}");
            assert!(error.contains("did you mean `bind`"), "{error}");
        }
        scene.gateway.stop();
    }
}

#[test]
fn a_drained_route_takes_nobody_over_reloads_until_that_is_undone() {
    for io in BACKENDS {
        let scene = Scene::with(io, DRAIN, &(echo("/r", "") + &echo("/b", "")));
        let address = scene.gateway.address();
        let mut going: Vec<Client> = (0..6).map(|_| Client::open(address, "/r")).collect();
        let mut other = Client::open(address, "/b");
        let (code, out, error) = scene.run(&["drain", "/r"]);
        assert_eq!((code, error.as_str()), (Some(0), ""), "{io}");
        assert!(out.starts_with("takes no new sessions, and asks those to go that it has: /r ("), "{out}");
        let refused = refusal(&scene, "/r");
        assert_eq!((refused.status, refused.field("retry-after")), (503, Some("30")), "{refused:?}");
        for client in &mut going {
            let (code, delay_ms) = asked_to_go(client);
            assert!(code == 1012 && delay_ms <= 2_000, "{code} {delay_ms}");
        }
        stays(&mut other);
        let drained = |scene: &Scene, route: &str| {
            let name = format!("tidegate_route_drained{{route=\"{route}\"}}");
            let routes = scene.get("/status")["routes"].as_array().expect("a list").clone();
            let own = routes.into_iter().find(|own| own["route"] == route).expect("the route");
            assert_eq!(own["drained"], json!(scene.metrics().value(&name) == 1.0));
            own["drained"] == json!(true)
        };
        assert!(drained(&scene, "/r") && !drained(&scene, "/b"));
        let (_, out, _) = scene.run(&["status"]);
        assert!(out.lines().any(|line| line.starts_with("/r ") && line.ends_with(" drained")), "{out}");
        assert_eq!(scene.status_of("/readyz"), 200, "others take sessions");
        // Other limits, then not in a way that sessions could go on with.
        for change in ["echo = {}\n[route.limits]\nmessage_bytes = 9\n", "echo = { deflate = 'off' }\n"] {
            let file = scene.config().replacen("echo = {}\n", change, 1);
            scene.gateway.rewrite(&file);
            assert_eq!(scene.run(&["reload"]).0, Some(0));
            assert_eq!(refusal(&scene, "/r").status, 503, "{io} {change}");
        }
        // Nothing takes sessions: nobody should be sent here.
        assert_eq!(scene.run(&["drain", "/b", "--keep"]).0, Some(0));
        assert_eq!((refusal(&scene, "/b").status, scene.status_of("/readyz")), (503, 503));
        assert_eq!(scene.metrics().value("tidegate_ready"), 0.0);
        stays(&mut other);
        let (code, out, _) = scene.run(&["drain", "--undo", "/b"]);
        assert_eq!((code, out.as_str()), (Some(0), "takes sessions again: /b (1 session)\n"), "{io}");
        assert_eq!(scene.status_of("/readyz"), 200);
        assert_eq!(scene.run(&["drain", "--undo", "/r"]).0, Some(0));
        Client::open(address, "/r").exchange(TEXT, b"again");
        // What the file does not have any more is not drained when it is there again.
        let file = std::fs::read_to_string(scene.gateway.file()).expect("the file");
        let begun = file.rfind("[[route]]").expect("a route");
        assert_eq!(scene.run(&["drain", "/b"]).0, Some(0));
        scene.gateway.rewrite(&file[..begun]);
        assert_eq!(scene.run(&["reload"]).0, Some(0));
        scene.gateway.rewrite(&file);
        assert_eq!(scene.run(&["reload"]).0, Some(0));
        Client::open(address, "/b").exchange(TEXT, b"again");
        let (code, _, error) = scene.run(&["drain", "/nothing"]);
        assert_eq!(code, Some(2));
        assert!(error.contains("there is no route and no upstream"), "{error}");
        scene.gateway.stop();
    }
}

#[test]
fn sessions_of_a_drained_upstream_go_to_others_or_stay_where_that_is_asked_for() {
    for io in BACKENDS {
        let (one, two) = (Upstream::echo(), Upstream::echo());
        let scene = Scene::with(io, DRAIN, &proxy("/p", &[&one, &two]));
        let address = scene.gateway.address();
        // In turns over all shards, as each is drained no more than once.
        let mut open = Vec::new();
        while one.accepted() < 2 || two.accepted() < 2 {
            let before = one.accepted();
            let client = Client::open(address, "/p");
            open.push((one.accepted() > before, client));
        }
        let state = |url: &str| {
            let list = scene.get("/status")["upstreams"].as_array().expect("a list").clone();
            list.into_iter().find(|own| own["upstream"] == url).expect("it is there")
        };
        let keeps = scene.run(&["drain", "--keep", &one.url()]);
        assert_eq!(keeps.0, Some(0), "{keeps:?}");
        assert!(keeps.1.starts_with("takes no new sessions: ws://"), "{keeps:?}");
        let (ones, twos) = (one.accepted(), two.accepted());
        let mut new: Vec<Client> = (0..6).map(|_| Client::open(address, "/p")).collect();
        assert_eq!((one.accepted(), two.accepted()), (ones, twos + 6), "{io}");
        open.iter_mut().for_each(|(_, client)| stays(client));
        assert_eq!(state(&one.url())["drained"], json!(true));
        let name = format!("tidegate_upstream_drained{{route=\"/p\",upstream=\"{}\"}}", one.url());
        assert_eq!(scene.metrics().value(&name), 1.0);
        // Now those are to go as well, at the pace.
        assert_eq!(scene.run(&["drain", &one.url()]).0, Some(0));
        for (of_one, client) in &mut open {
            match of_one {
                true => assert_eq!(asked_to_go(client).0, 1012, "{io}"),
                false => client.exchange(TEXT, b"still here"),
            }
        }
        eventually("the end of its sessions", || (state(&one.url())["sessions"] == json!(0)).then_some(()));
        // None is left: that is no failure of an upstream.
        assert_eq!(scene.run(&["drain", "--keep", &two.url()]).0, Some(0));
        let refused = refusal(&scene, "/p");
        assert_eq!((refused.status, refused.field("retry-after")), (503, Some("30")), "{io}: {refused:?}");
        let (code, out, _) = scene.run(&["drain", "--undo", "/p"]);
        assert_eq!(code, Some(0));
        assert!(
            out.starts_with("takes no new sessions yet, as all of its upstreams are drained: /p ("),
            "{out}"
        );
        assert_eq!(refusal(&scene, "/p").status, 503);
        // Nor does the log say that it takes any.
        let undone = |line: &str| line.contains("no longer drained") && line.contains("/p");
        scene.gateway.wait_for_log_behind(0, "the undone drain", undone);
        assert_eq!(scene.run(&["drain", "--keep", "/p"]).0, Some(0));
        let (code, out, _) = scene.run(&["drain", "--undo", &one.url()]);
        assert_eq!(code, Some(0));
        assert!(out.starts_with("takes no new sessions yet, as its route is drained: ws://"), "{out}");
        let (code, out, _) = scene.run(&["drain", "--undo", "/p"]);
        assert_eq!(code, Some(0));
        assert!(out.starts_with("takes sessions again: /p ("), "{out}");
        let before = one.accepted();
        Client::open(address, "/p").exchange(TEXT, b"again");
        assert_eq!(one.accepted(), before + 1, "{io}");
        new.iter_mut().for_each(|client| client.exchange(TEXT, b"still here"));
        scene.gateway.stop();
    }
}

#[test]
fn sessions_of_a_user_are_listed_and_end_at_the_pace() {
    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    let identity = format!(
        "[[identity]]\nname = 'users'\nsecret = '{SECRET}'\nalgorithms = ['HS256']\ntoken = ['authorization']\n\
         [[route]]\npath = '/echo'\nidentity = 'users'\necho = {{}}\n[[route]]\npath = '/open'\necho = {{}}\n"
    );
    let signer = Signer::secret(SECRET);
    for io in BACKENDS {
        let scene = Scene::with(io, "", &identity);
        let open = |user: &str| {
            let token = signer.token("HS256", None, &json!({ "sub": user, "exp": unix_seconds() + 600 }));
            let field = format!("Authorization: Bearer {token}\r\n");
            Client::open_with(scene.gateway.address(), "/echo", &field).0
        };
        let mut ada: Vec<Client> = (0..5).map(|_| open("ada")).collect();
        let mut bob = open("bob");
        let mut nobody = Client::open(scene.gateway.address(), "/open");
        let users: Vec<Value> = scene.sessions(&[]).iter().map(|session| session["user"].clone()).collect();
        let count = |user: &Value| users.iter().filter(|own| *own == user).count();
        assert_eq!((count(&json!("ada")), count(&json!("bob")), count(&Value::Null)), (5, 1, 1), "{io}");
        assert_eq!(scene.sessions(&[("user", "bob")]).len(), 1);
        let (_, out, _) = scene.run(&["sessions", "list", "--user", "bob"]);
        assert!(out.contains(" bob ") && out.lines().count() == 2, "{out}");
        let (code, out, _) = scene.run(&["sessions", "kill", "--user", "ada", "--per-second", "10"]);
        assert_eq!((code, out.as_str()), (Some(0), "ended 1 of 5, the rest in 1 s\n"), "{io}");
        for client in &mut ada {
            assert_eq!(client.frame().opcode, CLOSE);
        }
        stays(&mut bob);
        nobody.exchange(TEXT, b"still here");
        let (code, out, _) = scene.run(&["sessions", "kill", "--user", "eve"]);
        assert_eq!((code, out.as_str()), (Some(1), "ended 0 of 0\n"));
        let (code, _, _) = scene.run(&["sessions", "kill", "0-1", "--user", "bob"]);
        assert_eq!(code, Some(2), "one or the other");
        scene.gateway.stop();
    }
}

#[test]
fn sessions_of_an_upstream_are_told_of_and_end_and_no_others() {
    for io in BACKENDS {
        let (one, two) = (Upstream::echo(), Upstream::echo());
        let routes = echo("/echo", "") + &proxy("/p", &[&one, &two]) + &proxy("/q", &[&one]);
        let scene = Scene::with(io, "", &routes);
        let address = scene.gateway.address();
        let mut here = Client::open(address, "/echo");
        let mut all: Vec<Client> = (0..4).map(|_| Client::open(address, "/p")).collect();
        all.push(Client::open(address, "/q"));
        // Shards take their turns each for itself.
        while two.accepted() == 0 {
            all.push(Client::open(address, "/p"));
        }
        let of = |url: &str| scene.sessions(&[("upstream", url)]);
        let (ones, twos) = (of(&one.url()), of(&two.url()));
        assert_eq!((ones.len(), twos.len()), (one.accepted(), two.accepted()), "{io}");
        assert!(ones.iter().all(|session| session["upstream"] == json!(one.url())), "{io}: {ones:#?}");
        assert_eq!(scene.sessions(&[("upstream", &one.url()), ("route", "/q")]).len(), 1, "{io}");
        let none = scene.sessions(&[("route", "/echo")]);
        assert_eq!((none.len(), &none[0]["upstream"]), (1, &Value::Null), "{io}");
        let (_, out, _) = scene.run(&["sessions", "list", "--upstream", &two.url()]);
        assert_eq!(out.lines().filter(|line| line.contains(&two.url())).count(), twos.len(), "{io}: {out}");
        for arguments in [&["sessions", "list"][..], &["sessions", "kill"]] {
            let (code, _, error) = scene.run(&[arguments, &["--upstream", "ws://192.0.2.1:1"]].concat());
            let told = error.contains("there is no upstream \"ws://192.0.2.1:1\": tidegate status");
            assert!(code == Some(2) && told, "{io}: {error}");
        }
        let (code, out, _) = scene.run(&["sessions", "kill", "--upstream", &one.url()]);
        assert_eq!((code, out), (Some(0), format!("ended {0} of {0}\n", ones.len())), "{io}");
        let local = |client: &Client| client.local().to_string();
        let is_of_two = |client: &Client| twos.iter().any(|own| own["address"] == local(client).as_str());
        for client in &mut all {
            match is_of_two(client) {
                true => client.exchange(TEXT, b"still here"),
                false => assert_eq!(client.frame().close_code(), 1001, "{io}"),
            }
        }
        here.exchange(TEXT, b"still here");
        let own = here.local().to_string();
        here.close(1000);
        let (of_two, of_one): (Vec<Client>, Vec<Client>) = all.into_iter().partition(is_of_two);
        let peers = |clients: &[Client]| clients.iter().map(local).collect::<Vec<_>>();
        let (ones, twos) = (peers(&of_one), peers(&of_two));
        drop((of_one, of_two));
        let end = |peer: &String| -> Value {
            let line = scene.gateway.wait_for_log("its end", |line| {
                line.contains("session ended") && line.contains(&format!("\"peer\":\"{peer}\""))
            });
            serde_json::from_str(&line).expect("JSON")
        };
        for (peers, upstream) in [(ones, Some(one.url())), (twos, Some(two.url())), (vec![own], None)] {
            for peer in &peers {
                assert_eq!(end(peer)["upstream"].as_str(), upstream.as_deref(), "{io}");
            }
        }
        scene.gateway.stop();
    }
}

#[test]
fn sessions_from_an_address_end_and_no_others() {
    for io in BACKENDS {
        let scene = Scene::with(io, "", &(echo("/r", "") + &echo("/b", "")));
        let open = |local: &str, path: &str| {
            let local = local.parse().expect("an address");
            let mut client = Client::connect_from(local, scene.gateway.address());
            client.send(&request(path, ""));
            assert_eq!(client.response().expect("an answer").status, 101, "{io}");
            client
        };
        let mut here = open("127.0.0.1", "/r");
        let mut there: Vec<Client> = ["/r", "/r", "/b"].map(|path| open("127.0.0.9", path)).into();
        let kill = |arguments: &[&str]| scene.run(&[&["sessions", "kill"], arguments].concat());
        // Both have to hold where both are named.
        let (code, out, error) = kill(&["--address", "127.0.0.9", "--route", "/b"]);
        assert_eq!((code, out.as_str()), (Some(0), "ended 1 of 1\n"), "{io}: {error}");
        assert_eq!(there.pop().expect("it was opened").frame().opcode, CLOSE, "{io}");
        there.iter_mut().for_each(stays);
        // A network.
        let (code, out, _) = kill(&["--address", "127.0.0.8/29"]);
        assert_eq!((code, out.as_str()), (Some(0), "ended 2 of 2\n"), "{io}");
        for client in &mut there {
            assert_eq!(client.frame().opcode, CLOSE, "{io}");
        }
        stays(&mut here);
        assert_eq!(kill(&["--address", "127.0.0.7"]).1, "ended 0 of 0\n", "{io}");
        let (code, _, error) = kill(&["--address", "nowhere"]);
        assert_eq!(code, Some(2));
        assert!(error.contains("is no address and no network"), "{error}");
        here.exchange(TEXT, b"still here");
        drop((here, there));
        scene.gateway.stop();
    }
}

#[test]
fn until_the_last_session_is_gone_every_shard_is_there() {
    const TOPICS: &str = "[[route]]\npath = '/topics/*'\ntopics = { subscribe = ['**'], publish = ['**'] }\n";
    for io in BACKENDS {
        for asked_again in [false, true] {
            // When it is asked to go lies somewhere in a week.
            let scene = Scene::on(io, 3, "[drain]\nwindow = '167h'\ndeadline = '168h'\n", TOPICS);
            let (mut client, _) = Client::open_with(
                scene.gateway.address(),
                "/topics",
                "Sec-WebSocket-Protocol: tidegate.v1\r\n",
            );
            assert_eq!(client.frame().opcode, TEXT, "{io}: hello");
            scene.gateway.signal(Signal::TERM);
            let asked = Instant::now();
            eventually("all shards drain", || {
                let log = scene.gateway.log();
                log.iter().any(|line| line.contains("one after the other")).then_some(())
            });
            assert_eq!(scene.status_of("/readyz"), 503, "{io}");
            // Those without a session have had time to end.
            assert!(matches!(client.next_within(Duration::from_millis(400)), Received::Nothing), "{io}");
            let (code, out, error) = scene.run(&["sessions", "list"]);
            assert_eq!((code, out.lines().count()), (Some(0), 2), "{io}: {out}{error}");
            // Who waits for a shard that is gone waits for 500 ms each time.
            let fastest = (0..5).map(|_| {
                let begun = Instant::now();
                assert_eq!(scene.get("/status")["sessions"], json!(1), "{io}");
                begun.elapsed()
            });
            let fastest = fastest.min().expect("five answers");
            assert!(fastest < Duration::from_millis(400), "{io}: {fastest:?}");
            // Topics live on all shards.
            for number in 0..12 {
                let publish =
                    json!({ "op": "publish", "topic": format!("t/{number}"), "data": 1, "id": "q" });
                client.send(&masked(FIN | TEXT, publish.to_string().as_bytes()));
                let answer: Value = serde_json::from_slice(&client.frame().payload).expect("JSON");
                assert_eq!(answer["op"], "published", "{io}: {answer}");
            }
            let ending = Instant::now();
            if asked_again {
                // At once it would be the same signal twice.
                assert!(asked.elapsed() > Duration::from_millis(300));
                scene.gateway.signal(Signal::TERM);
            } else {
                client.send(&close(1000, b""));
                assert_eq!(client.frame().opcode, CLOSE, "{io}");
                drop(client);
            }
            let (status, _) = scene.gateway.wait();
            assert!(status.success(), "{io}: {status}");
            assert!(ending.elapsed() < Duration::from_secs(10), "{io}: {:?}", ending.elapsed());
        }
    }
}
