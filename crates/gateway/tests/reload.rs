//! Another configuration while sessions go on (HUP), and the end of the gateway (TERM): what sessions notice of both. On both
//! backends.

mod harness;

use std::{
    ffi::OsStr,
    fs,
    os::unix::net::UnixDatagram,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{
    BACKENDS, PATIENCE,
    certificates::Authority,
    client::{Client, Received, request},
    eventually,
    frame::{self, BINARY, CLOSE, FIN, TEXT},
    gateway::{Gateway, make_pipe, raise_descriptor_limit, run_to_end},
    secure::Secure,
    upstream::Upstream,
};

/// A listener, a window of this length, and `rest`.
fn config(window: &str, rest: &str) -> String {
    format!(
        "version = 1\n[drain]\nwindow = {window:?}\nreconnect_delay = \"2s\"\n[[listener]]\nbind = \"127.0.0.1:0\"\n{rest}"
    )
}

fn echo(path: &str, more: &str) -> String {
    format!("[[route]]\npath = {path:?}\necho = {{}}\n{more}\n")
}

/// The Close that comes next: code and reason.
fn close_of(client: &mut Client) -> (u16, String) {
    let frame = client.frame();
    assert_eq!(frame.opcode, CLOSE, "{frame:?}");
    (frame.close_code(), String::from_utf8(frame.close_reason().to_vec()).expect("a reason is text"))
}

/// The delay that a reason tells, in ms.
fn delay_ms(reason: &str) -> u64 {
    let told: Value = serde_json::from_str(reason).unwrap_or_else(|_| panic!("{reason:?}"));
    told["retry_ms"].as_u64().unwrap_or_else(|| panic!("no delay in {reason:?}"))
}

#[test]
fn a_bad_file_changes_nothing_and_says_why() {
    for io in BACKENDS {
        let good = config("1s", &echo("/echo", ""));
        let gateway = Gateway::start(&good, io);
        let mut session = Client::open(gateway.address(), "/echo");
        for (bad, why) in [
            (good.replace("path =", "pth ="), "unknown key `pth`"),
            (good.replace("127.0.0.1:0", "127.0.0.2:0"), "[[listener]] bind cannot change without a restart"),
            (format!("{good}[[route]\n"), ":11:9: "),
        ] {
            let told = gateway.reload(&bad);
            assert!(
                told.contains("not taken over") && told.contains(why) && told.contains("ERROR"),
                "{told}"
            );
            session.exchange(TEXT, b"still here");
            Client::open(gateway.address(), "/echo").exchange(TEXT, b"and so is the route");
        }
        // The generation is the next one: the bad ones have none.
        let told = gateway.reload(&(good + &echo("/more", "")));
        assert!(told.contains("configuration taken over") && told.contains("\"generation\":2"), "{told}");
        Client::open(gateway.address(), "/more").exchange(TEXT, b"new");
        session.exchange(TEXT, b"still here");
        gateway.stop();
    }
}

#[test]
fn the_log_says_which_routes_have_changed_and_how_many_sessions_are_asked_to_go() {
    for io in BACKENDS {
        let up = |path: &str| {
            format!("[[route]]\npath = '{path}'\nproxy = {{ upstreams = ['ws://127.0.0.1:1'] }}\n")
        };
        let routes = ["/kept", "/limits", "/other", "/gone"].map(|path| echo(path, "")).concat();
        let gateway = Gateway::start(&config("100ms", &routes), io);
        let mut going: Vec<Client> =
            ["/other", "/gone", "/gone"].map(|path| Client::open(gateway.address(), path)).into();
        let mut kept = Client::open(gateway.address(), "/kept");
        let before = gateway.log_len();
        let next = echo("/kept", "")
            + &echo("/limits", "[route.limits]\nmessage_bytes = 99999")
            + &up("/other")
            + &echo("/new", "");
        let line = gateway.reload(&config("120ms", &next));
        let told: Value = serde_json::from_str(&line).expect("JSON");
        for (field, expected) in [
            ("added", 1),
            ("changed", 1),
            ("replaced", 1),
            ("removed", 1),
            ("asked_to_go", 3),
            ("generation", 2),
        ] {
            assert_eq!(told[field], expected, "{io} {field}: {told}");
        }
        assert_eq!(told["settings"], "[drain]", "{told}");
        let changes = || -> Vec<(String, String)> {
            let log = gateway.log();
            let lines = log[before..].iter().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
            let text = |value: &Value| value.as_str().expect("text").to_owned();
            lines
                .filter(|line| line["generation"] == 2 && line["route"].is_string())
                .map(|line| (text(&line["message"]), text(&line["route"])))
                .collect()
        };
        let expected = [
            ("route added", "/new"),
            ("route changed", "/limits"),
            ("route replaced", "/other"),
            ("route removed", "/gone"),
        ];
        assert_eq!(
            changes(),
            expected.map(|(message, route)| (message.to_owned(), route.to_owned())),
            "{io}"
        );
        for client in &mut going {
            assert_eq!(close_of(client).0, 1012, "{io}");
        }
        kept.exchange(TEXT, b"still here");
        // Of many some are named.
        let many: String = (0..30).map(|number| echo(&format!("/many/{number}"), "")).collect();
        let before = gateway.log_len();
        let told: Value =
            serde_json::from_str(&gateway.reload(&config("120ms", &(next + &many)))).expect("JSON");
        assert_eq!((&told["added"], &told["asked_to_go"]), (&30.into(), &0.into()), "{told}");
        assert!(told.get("settings").is_none(), "{told}");
        let log = gateway.log()[before..].join("\n");
        assert_eq!(log.matches("\"route added\"").count(), 20, "{log}");
        assert!(log.contains("\"more routes have changed\"") && log.contains("\"routes\":10"), "{log}");
        drop((going, kept));
        gateway.stop();
    }
}

#[test]
fn what_run_would_not_start_with_is_not_taken_over_though_it_waits_for_a_restart() {
    for io in BACKENDS {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name).display().to_string();
        let sections = |log: &str, admin: &str| {
            let sections = format!("[log]\nfile = {log:?}\n[admin]\nbind = \"unix:{admin}\"\n");
            config("1s", &echo("/echo", &sections))
        };
        let (log, socket) = (at("log"), at("a.sock"));
        // The log stays where it is, as it is another one that waits.
        let good = config("1s", &echo("/echo", &format!("[admin]\nbind = \"unix:{socket}\"\n")));
        let gateway = Gateway::start(&good, io);
        let mut session = Client::open(gateway.address(), "/echo");
        for (bad, why) in [
            (sections(&at("none/log"), &socket), "none/log: its folder does not exist"),
            (sections(folder.path().to_str().expect("text"), &socket), "it is a folder"),
            (sections(&log, &at("none/a.sock")), "none/a.sock: its folder does not exist"),
            (sections(&socket, &socket), "a.sock: it is the socket of a listener"),
            (sections(&gateway.file().display().to_string(), &socket), "it is the configuration itself"),
        ] {
            let before = gateway.log_len();
            let told = gateway.reload(&bad);
            assert!(told.contains("not taken over") && told.contains(why), "{why}: {told}");
            let waits = gateway.log()[before..].iter().any(|line| line.contains("waits for a restart"));
            assert!(!waits, "it would not start then: {why}");
            let (code, _, error) = run_to_end(&["check".as_ref(), "-c".as_ref(), gateway.file().as_os_str()]);
            assert!(code == Some(78) && error.contains(why), "{code:?} {error}");
            session.exchange(TEXT, b"still here");
        }
        // What could be had waits.
        let told = gateway.reload(&sections(&log, &socket));
        assert!(told.contains("configuration taken over"), "{told}");
        gateway.wait_for_log("what waits", |line| line.contains("[log] has changed"));
        gateway.stop();
    }
}

/// What is gone is gone for a restart alone: until then certificates are renewed.
#[test]
fn a_folder_that_is_taken_from_a_socket_that_runs_is_a_warning() {
    for io in BACKENDS {
        let folder = tempfile::tempdir().expect("a folder");
        let rest = |log: &str| {
            format!("[admin]\nbind = \"unix:{}\"\n{log}", folder.path().join("in/a.sock").display())
        };
        fs::create_dir(folder.path().join("in")).expect("a folder");
        let gateway = Gateway::start(&config("1s", &echo("/echo", &rest(""))), io);
        let mut session = Client::open(gateway.address(), "/echo");
        fs::remove_dir_all(folder.path().join("in")).expect("it is there");
        let told = gateway.reload(&config("1s", &echo("/echo", &echo("/other", &rest("")))));
        assert!(told.contains("configuration taken over"), "{told}");
        gateway.wait_for_log("what a restart would meet", |line| {
            line.contains("in/a.sock: its folder does not exist: the gateway would not start again")
        });
        session.exchange(TEXT, b"still here");
        Client::open(gateway.address(), "/other").exchange(TEXT, b"it is there");
        // Another path is judged as ever.
        let log = format!("[log]\nfile = {:?}\n", folder.path().join("in/log"));
        let told = gateway.reload(&config("1s", &echo("/echo", &rest(&log))));
        assert!(told.contains("not taken over") && told.contains("in/log: its folder"), "{told}");
        gateway.stop();
    }
}

#[test]
fn a_pipe_in_the_place_of_the_file_holds_up_neither_reloads_nor_the_end() {
    for io in BACKENDS {
        let gateway = Gateway::start(&config("1s", &echo("/echo", "")), io);
        let mut session = Client::open(gateway.address(), "/echo");
        let pipe = tempfile::tempdir().expect("a folder");
        let pipe = pipe.path().join("pipe");
        make_pipe(&pipe);
        let (code, _, error) = run_to_end(&["check".as_ref(), "-c".as_ref(), pipe.as_os_str()]);
        assert!(code == Some(78) && error.contains("is not a regular file"), "{code:?} {error}");
        fs::rename(&pipe, gateway.file()).expect("within temporary folders");
        gateway.signal(Signal::HUP);
        gateway.wait_for_log("why it is not taken over", |line| {
            line.contains("not taken over") && line.contains("is not a regular file")
        });
        session.exchange(TEXT, b"still here");
        gateway.signal(Signal::TERM);
        assert_eq!(session.frame().opcode, CLOSE);
        drop(session);
        assert!(gateway.wait().0.success());
    }
}

#[test]
fn what_waits_for_a_restart_is_told_and_stays() {
    let good = config("1s", &echo("/echo", ""));
    let gateway = Gateway::start(&good, "epoll");
    let told = gateway.reload(&format!("{good}[limits]\nreceive_buffers = 2048\nping_interval = \"3s\"\n"));
    assert!(told.contains("configuration taken over"), "{told}");
    gateway.wait_for_log("the warning", |line| {
        line.contains("receive_buffers has changed: the new value waits")
    });
    gateway.stop();
}

#[test]
fn sessions_of_other_routes_go_within_the_window_and_none_else() {
    const MANY: usize = 60;
    for io in BACKENDS {
        let window = Duration::from_millis(1_500);
        let before = config("1500ms", &(echo("/gone", "") + &echo("/kept", "") + &echo("/changed", "")));
        // The kept route stands elsewhere now, and has other limits.
        let changed = "[[route]]\npath = \"/changed\"\necho = { deflate = \"off\" }\n";
        let after =
            config("1500ms", &(changed.to_owned() + &echo("/kept", "[route.limits]\nmessage_bytes = 5\n")));
        let gateway = Gateway::start(&before, io);
        let open = |path: &str| -> Vec<Client> {
            (0..MANY).map(|_| Client::open(gateway.address(), path)).collect()
        };
        let (gone, changed, mut kept) = (open("/gone"), open("/changed"), open("/kept"));
        let begun = Instant::now();
        let told = gateway.reload(&after);
        assert!(told.contains("configuration taken over"), "{told}");
        // New ones are judged by the new file at once.
        let mut refused = Client::connect(gateway.address());
        refused.send(&request("/gone", ""));
        assert_eq!(refused.response().expect("an answer").status, 404);
        Client::open(gateway.address(), "/changed").exchange(TEXT, b"new");
        let mut times = Vec::new();
        let mut delays = Vec::new();
        let mut open: Vec<Client> = gone.into_iter().chain(changed).collect();
        while !open.is_empty() {
            assert!(begun.elapsed() < PATIENCE, "{} of them were not asked to go", open.len());
            open.retain_mut(|client| match client.next_within(Duration::from_millis(1)) {
                Received::Nothing => true,
                Received::Frame(frame) => {
                    assert_eq!((frame.opcode, frame.close_code()), (CLOSE, 1012));
                    delays.push(delay_ms(&String::from_utf8_lossy(frame.close_reason())));
                    times.push(begun.elapsed());
                    client.send(&frame::close(1012, b""));
                    false
                }
                other @ Received::End(_) => panic!("{other:?} without a Close"),
            });
        }
        assert_eq!(times.len(), 2 * MANY);
        assert!(delays.iter().all(|delay| *delay <= 2_000) && delays.iter().max() > delays.iter().min());
        // Spread: half of them are due in the first half. What this machine is late with only comes later, and that they
        // go evenly is another test's (`departures` of the shard, in virtual time).
        let first_half = times.iter().filter(|time| **time < window / 2).count();
        assert!(first_half <= MANY * 3 / 2, "{first_half} in the first half: {times:?}");
        assert!(*times.last().expect("some") >= window * 3 / 4, "{times:?}");
        for client in &mut kept {
            client.exchange(TEXT, b"here");
        }
        // The limits that hold are those of the new file, for old sessions too.
        kept[0].send(&frame::masked(FIN | TEXT, b"longer"));
        assert_eq!(close_of(&mut kept[0]).0, 1009);
        gateway.stop();
    }
}

#[test]
fn a_new_upstream_moves_nobody_and_one_that_goes_takes_its_own_along() {
    for io in BACKENDS {
        let (one, two, three) = (Upstream::echo(), Upstream::echo(), Upstream::echo());
        let route = |upstreams: &[&Upstream]| {
            let urls: Vec<String> =
                upstreams.iter().map(|upstream| format!("{:?}", upstream.url())).collect();
            config(
                "300ms",
                &format!("[[route]]\npath = \"/p\"\nproxy = {{ upstreams = [{}] }}\n", urls.join(", ")),
            )
        };
        let gateway = Gateway::start(&route(&[&one, &two]), io);
        // In turns: the first, the second, and so on.
        let mut clients: Vec<Client> = (0..4).map(|_| Client::open(gateway.address(), "/p")).collect();
        assert_eq!((one.accepted(), two.accepted()), (2, 2));
        assert!(gateway.reload(&route(&[&three, &two, &one])).contains("configuration taken over"));
        clients.iter_mut().for_each(|client| client.exchange(TEXT, b"here"));
        assert!(gateway.reload(&route(&[&three, &two])).contains("configuration taken over"));
        for (place, client) in clients.iter_mut().enumerate() {
            if place % 2 == 0 {
                assert_eq!(close_of(client).0, 1012);
            } else {
                client.exchange(TEXT, b"here");
            }
        }
        let mut others: Vec<Client> = (0..4).map(|_| Client::open(gateway.address(), "/p")).collect();
        others.iter_mut().for_each(|client| client.exchange(BINARY, b"new"));
        assert_eq!((one.accepted(), two.accepted(), three.accepted()), (2, 4, 2));
        gateway.stop();
    }
}

#[test]
fn topics_go_on_and_come_to_be() {
    for io in BACKENDS {
        let topics = |history: u32| {
            let rule = format!("[[topic]]\nname = \"a\"\nhistory = {history}\n");
            rule + "[[route]]\npath = \"/topics/*\"\ntopics = { subscribe = [\"a\"], publish = [\"a\"] }\n"
        };
        let file = config("300ms", &echo("/echo", ""));
        let gateway = Gateway::start_with(&file, &["--io", io, "--shards", "2"]);
        // There were no topics on any shard.
        assert!(gateway.reload(&(file.clone() + &topics(5))).contains("configuration taken over"));
        let mut sessions: Vec<Client> =
            (0..8).map(|_| Client::open(gateway.address(), "/topics/a")).collect();
        // Published again and again until everybody is subscribed.
        let hears = |sessions: &mut [Client], payload: &[u8]| {
            let until = Instant::now() + PATIENCE;
            let mut left: Vec<&mut Client> = sessions.iter_mut().collect();
            let mut publisher = Client::open(gateway.address(), "/topics/a");
            while !left.is_empty() {
                assert!(Instant::now() < until, "{} of them heard nothing", left.len());
                publisher.send(&frame::masked(FIN | TEXT, payload));
                left.retain_mut(|client| match client.next_within(Duration::from_millis(20)) {
                    Received::Frame(frame) => frame.payload != payload,
                    Received::Nothing => true,
                    other @ Received::End(_) => panic!("{other:?}"),
                });
            }
        };
        hears(&mut sessions, b"before");
        assert!(gateway.reload(&(file.clone() + &topics(6))).contains("configuration taken over"));
        // What was published before is kept, and the same sessions hear what comes.
        let mut late = Client::open(gateway.address(), "/topics");
        late.send(&frame::masked(FIN | TEXT, br#"{"op":"subscribe","id":1,"topic":"a","history":5}"#));
        while !String::from_utf8_lossy(&late.message(TEXT)).contains("before") {}
        hears(&mut sessions, b"behind");
        let told = gateway.reload(&(file.clone() + &topics(6).replace("history = 6", "slow = \"conflate\"")));
        assert!(told.contains("not taken over") && told.contains("[[topic]] slow"), "{told}");
        gateway.stop();
    }
}

#[test]
fn a_new_certificate_is_served_at_once_and_a_bad_pair_is_not() {
    for io in BACKENDS {
        let authority = Authority::new();
        let first = authority.issue("localhost", &["localhost"]);
        let file = |setting: &str| {
            format!(
                "version = 1\n[[listener]]\nbind = \"127.0.0.1:0\"\n[listener.tls]\n{setting}[[route]]\npath = \"/echo\"\necho = {{}}\n"
            )
        };
        let gateway = Gateway::start(&file(&first.setting()), io);
        let client = authority.client();
        let served = |client: &std::sync::Arc<rustls::ClientConfig>| {
            let mut session = Secure::open(gateway.address(), client, "localhost", "/echo");
            session.exchange(TEXT, b"new");
            session
        };
        let certificate = |session: &Secure| session.connection.peer_certificates().expect("one")[0].clone();
        let mut old = served(&client);
        assert_eq!(certificate(&old), first.certificate);
        // In the same files, as who renews certificates does it.
        let second = authority.issue("localhost", &["localhost"]);
        let begun = Instant::now();
        assert!(gateway.reload(&file(&first.setting())).contains("configuration taken over"));
        let new = served(&authority.client());
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        assert_eq!(certificate(&new), second.certificate);
        assert_ne!(first.certificate, second.certificate);
        old.exchange(TEXT, b"still here");
        // Who has a ticket of before resumes: it is the same trust domain.
        let resumed = served(&client);
        assert_eq!(resumed.connection.handshake_kind(), Some(rustls::HandshakeKind::Resumed));

        let other = authority.issue("other", &["localhost"]);
        let expired = authority.issue_expired("expired", &["localhost"]);
        fs::copy(&other.key, authority.path("mixed.key")).expect("copy it");
        let mixed =
            format!("certificate_file = {:?}\nkey_file = {:?}\n", first.chain, authority.path("mixed.key"));
        for (bad, why) in [(mixed, "mixed.key"), (expired.setting(), "expired")] {
            let told = gateway.reload(&file(&bad));
            assert!(told.contains("not taken over") && told.contains(why), "{told}");
            assert_eq!(certificate(&served(&authority.client())), second.certificate);
        }
        // Another trust domain: who has a ticket must show a certificate all the same.
        let own = authority.issue("client", &["client"]);
        let strict = format!("{}client_ca_file = {:?}\n", first.setting(), authority.ca());
        assert!(gateway.reload(&file(&strict)).contains("configuration taken over"));
        let mut refused = Secure::connect(gateway.address(), &client, "localhost");
        let shaken = refused.shake().is_ok() && {
            refused.send(&request("/echo", ""));
            refused.head().is_some()
        };
        assert!(!shaken, "a ticket of before lets nobody in");
        let known = authority.client_with(&[&rustls::version::TLS13], &[b"http/1.1"], Some(&own));
        served(&known);
        old.exchange(TEXT, b"still here");
        gateway.stop();
    }
}

/// One session of many that TERM ends: when it was told, what, and which delay.
struct Told {
    after: Duration,
    code: u16,
    delay_ms: u64,
}

/// TERM with so many sessions, of which one in twenty answers no Close.
fn term(io: &str, sessions: usize, window: Duration, deadline: Duration) {
    let file = format!(
        "version = 1\n[drain]\nwindow = \"{}ms\"\ndeadline = \"{}ms\"\ncode = 1012\n[limits]\nmax_sessions = {}\nclose_timeout = \"10m\"\n\
         ping_interval = \"0s\"\n[[listener]]\nbind = \"127.0.0.1:0\"\n{}",
        window.as_millis(),
        deadline.as_millis(),
        // One shard may get somewhat more of them than the other.
        sessions + sessions / 4,
        echo("/echo", "")
    );
    raise_descriptor_limit();
    let gateway = Gateway::start_with(&file, &["--io", io, "--shards", "2"]);
    let address = gateway.address();
    let mut open: Vec<(usize, Client)> =
        (0..sessions).map(|place| (place, Client::open(address, "/echo"))).collect();
    let begun = Instant::now();
    gateway.signal(Signal::TERM);
    gateway.wait_for_log("that it ends", |line| line.contains("asked to end"));
    // The kernel refuses; nobody waits in a queue that nobody empties.
    let refused = eventually("the end of listening", || std::net::TcpStream::connect(address).err());
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    let mut told: Vec<Told> = Vec::new();
    let mut silent = Vec::new();
    while !open.is_empty() {
        assert!(begun.elapsed() < deadline + PATIENCE, "{} were never told", open.len());
        let before = open.len();
        open = open
            .into_iter()
            .filter_map(|(place, mut client)| {
                client.stream().set_nonblocking(true).expect("it can be");
                let received = client.next_within(Duration::from_secs(1));
                client.stream().set_nonblocking(false).expect("it can be");
                match received {
                    Received::Nothing => return Some((place, client)),
                    Received::Frame(frame) => {
                        assert_eq!(frame.opcode, CLOSE);
                        let delay_ms = delay_ms(&String::from_utf8_lossy(frame.close_reason()));
                        told.push(Told { after: begun.elapsed(), code: frame.close_code(), delay_ms });
                        if place % 20 == 0 {
                            silent.push(client);
                        } else {
                            client.send(&frame::close(frame.close_code(), b""));
                        }
                    }
                    other @ Received::End(_) => panic!("{other:?} without a Close"),
                }
                None
            })
            .collect();
        if open.len() == before {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    // Those that were asked still could be heard until the deadline; then they are cut off, and that is the end.
    let (status, log) = gateway.wait();
    let took = begun.elapsed();
    assert!(status.success(), "{status}");
    assert!(took >= deadline - Duration::from_millis(100), "{took:?}: {}", log.join("\n"));
    assert!(took < deadline + Duration::from_secs(5), "{took:?}");
    assert!(log.iter().any(|line| line.contains("cut off at the deadline")), "{}", log.join("\n"));
    assert_eq!(told.len(), sessions);
    assert!(told.iter().all(|told| told.code == 1012 && told.delay_ms <= 5_000));
    // Spread: a third of them is due in each third of the window. What this machine is late with only comes later.
    for (part, most) in [(1, 45), (2, 80)] {
        let count = told.iter().filter(|told| told.after < window * part / 3).count();
        assert!(count <= sessions * most / 100, "{count} of {sessions} within {part}/3 of the window");
    }
    let first = told.iter().map(|told| told.after).min().expect("somebody was told");
    let last = told.iter().map(|told| told.after).max().expect("somebody was told");
    assert!(last - first >= window / 2, "all of them from {first:?} to {last:?}");
    let mut delays: Vec<u64> = told.iter().map(|told| told.delay_ms).collect();
    delays.sort_unstable();
    delays.dedup();
    assert!(delays.len() > sessions / 10, "{} delays", delays.len());
}

#[test]
fn term_spreads_closes_over_its_window_and_ends_at_the_deadline() {
    for io in BACKENDS {
        term(io, 600, Duration::from_secs(3), Duration::from_secs(5));
    }
}

/// `scripts/test.sh` runs it, with nothing beside it.
#[test]
#[ignore = "takes a minute, and a hard limit of 12,000 descriptors"]
fn term_with_ten_thousand_sessions() {
    for io in BACKENDS {
        term(io, 10_000, Duration::from_secs(10), Duration::from_secs(15));
    }
}

/// Ends the others also where its thread panics, so that a failure is told and nobody waited for.
struct Over<'o>(&'o AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `act` again and again on a thread of its own until `over`; gives how often.
fn again(over: &AtomicBool, mut act: impl FnMut()) -> usize {
    let mut count = 0;
    while !over.load(Ordering::Relaxed) {
        act();
        count += 1;
    }
    count
}

#[test]
fn a_hundred_reloads_under_load_drop_and_refuse_nobody_on_uring() {
    reloads_under_load("uring");
}

#[test]
fn a_hundred_reloads_under_load_drop_and_refuse_nobody_on_epoll() {
    reloads_under_load("epoll");
}

/// A hundred within a minute, of which one in ten is invalid and one in three has a new certificate.
fn reloads_under_load(io: &str) {
    const RELOADS: usize = 100;
    let authority = Authority::new();
    let mut issued = authority.issue("localhost", &["localhost"]);
    let upstream = Upstream::echo();
    let file = |number: usize, setting: &str| {
        format!(
            "version = 1\n[drain]\nwindow = \"500ms\"\n[limits]\nhead_fields = {}\n[[listener]]\nbind = \"127.0.0.1:0\"\n\
             [[listener]]\nbind = \"127.0.0.1:0\"\n[listener.tls]\n{setting}{}\
             [[route]]\npath = \"/new\"\necho = {{ deflate = \"{}\" }}\n\
             [[route]]\npath = \"/p\"\nproxy = {{ upstreams = [{:?}], retries = {} }}\n",
            100 + number,
            echo("/kept", ""),
            ["on", "off"][number % 2],
            upstream.url(),
            number % 3,
        )
    };
    let gateway = Gateway::start_with(&file(0, &issued.setting()), &["--io", io, "--shards", "2"]);
    let (plain, sealed) = (gateway.addresses()[0], gateway.addresses()[1]);
    let over = AtomicBool::new(false);
    let moved = AtomicUsize::new(0);
    let (over, moved) = (&over, &moved);
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for path in ["/kept", "/p"] {
            // Sessions of routes that go on, and new ones all the time.
            threads.push(scope.spawn(move || {
                let mut sessions: Vec<Client> = (0..25).map(|_| Client::open(plain, path)).collect();
                again(over, || sessions.iter_mut().for_each(|session| session.exchange(BINARY, b"load")))
            }));
            threads.push(scope.spawn(move || {
                again(over, || {
                    let mut session = Client::open(plain, path);
                    session.exchange(TEXT, b"new");
                    session.close(1000);
                })
            }));
        }
        let client = authority.client();
        threads.push(scope.spawn({
            let client = client.clone();
            move || {
                let mut session = Secure::open(sealed, &client, "localhost", "/kept");
                again(over, || session.exchange(TEXT, b"load"))
            }
        }));
        threads.push(scope.spawn(move || {
            again(over, || {
                let mut session = Secure::open(sealed, &client, "localhost", "/kept");
                session.exchange(TEXT, b"new");
                session.close();
            })
        }));
        // A route that changes each time: its sessions are told so, and nothing else ends them.
        threads.push(scope.spawn(move || {
            again(over, || {
                let mut session = Client::open(plain, "/new");
                loop {
                    match session.next_within(Duration::from_millis(100)) {
                        Received::Nothing if over.load(Ordering::Relaxed) => break,
                        Received::Nothing => session.send(&frame::masked(FIN | frame::PONG, b"")),
                        Received::Frame(frame) => {
                            assert_eq!((frame.opcode, frame.close_code()), (CLOSE, 1012));
                            moved.fetch_add(1, Ordering::Relaxed);
                            break;
                        }
                        other @ Received::End(_) => panic!("{other:?} without a Close"),
                    }
                }
            })
        }));
        let begun = Instant::now();
        let ends = Over(over);
        let mut generation = 1;
        for number in 1..=RELOADS {
            let is_bad = number % 10 == 5;
            if number % 3 == 0 {
                issued = authority.issue("localhost", &["localhost"]);
            }
            let setting = issued.setting();
            let asked = Instant::now();
            let told = gateway.reload(&file(number, if is_bad { "" } else { &setting }));
            assert_eq!(told.contains("not taken over"), is_bad, "{told}");
            generation += usize::from(!is_bad);
            assert!(told.contains(&format!("\"generation\":{generation}")), "{told}");
            if !is_bad && number % 3 == 0 {
                let mut fresh = Secure::open(sealed, &authority.client(), "localhost", "/kept");
                let served = fresh.connection.peer_certificates().expect("one")[0].clone();
                assert_eq!(served, issued.certificate);
                assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
                fresh.exchange(TEXT, b"new");
            }
            let next = begun + Duration::from_millis(200) * number as u32;
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
        drop(ends);
        for thread in threads {
            assert!(thread.join().expect("nobody was dropped or refused") > 0);
        }
    });
    assert!(moved.load(Ordering::Relaxed) >= 3, "{moved:?} were moved");
    assert_eq!(upstream.failures(), Vec::<String>::new());
    let log = gateway.stop();
    assert!(!log.iter().any(|line| line.contains("cut off at the deadline")), "{}", log.join("\n"));
}

#[test]
fn systemd_is_told_what_happens() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("bind it");
    socket.set_read_timeout(Some(PATIENCE)).expect("a read time-out");
    let heard = |wanted: &str| {
        let mut bytes = [0; 512];
        loop {
            let length = socket.recv(&mut bytes).unwrap_or_else(|error| panic!("no {wanted}: {error}"));
            let lines = String::from_utf8_lossy(&bytes[..length]).into_owned();
            if lines.starts_with(wanted) {
                return lines;
            }
            assert!(lines.starts_with("WATCHDOG=1"), "{wanted} was to be next, not {lines}");
        }
    };
    let good = config("1s", &echo("/echo", ""));
    let environment = [("NOTIFY_SOCKET", path.as_os_str()), ("WATCHDOG_USEC", OsStr::new("1000000"))];
    let gateway = Gateway::start_in(&good, &["--io", "epoll", "--shards", "2"], &environment);
    heard("READY=1\n");
    heard("WATCHDOG=1\n");
    for text in [good.replace("path", "pth"), good] {
        gateway.reload(&text);
        assert!(heard("RELOADING=1\n").contains("\nMONOTONIC_USEC="));
        heard("READY=1\n");
    }
    // One shard has a session yet, and the other none.
    let mut client = Client::open(gateway.address(), "/echo");
    gateway.signal(Signal::TERM);
    heard("STOPPING=1\n");
    (0..2).for_each(|_| drop(heard("WATCHDOG=1\n")));
    assert_eq!(client.frame().opcode, CLOSE);
    client.send(&frame::close(1001, b""));
    drop(client);
    let (status, log) = gateway.wait();
    assert!(status.success(), "{status}");
    assert!(!log.iter().any(|line| line.contains("does not answer")), "{}", log.join("\n"));
}
