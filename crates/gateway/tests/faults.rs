//! What goes wrong around the gateway, and whom it must not concern: no receive buffers, a process that stands still,
//! upstreams that are killed, stand still or refuse. On both backends.

mod harness;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::json;

use crate::harness::{
    BACKENDS,
    client::{Client, Received, request},
    eventually,
    frame::{self, BINARY, CLOSE, FIN, PING, PONG, TEXT},
    gateway::Gateway,
    scene::Scene,
};

const ECHO: &str = "[[route]]\npath = '/echo'\necho = {}\n";

#[test]
fn without_receive_buffers_all_wait_and_nobody_is_closed() {
    const SESSIONS: usize = 200;
    const BYTES: usize = 48 << 10;
    for io in BACKENDS {
        let scene = Scene::on(io, 1, "[limits]\nreceive_buffers = 64\nping_interval = '0s'", ECHO);
        let address = scene.gateway.address();
        let mut clients: Vec<Client> = (0..SESSIONS).map(|_| Client::open(address, "/echo")).collect();
        let payload = |place: usize| vec![place as u8; BYTES];
        // All of it lies in the kernel when the gateway looks, and is many times what the buffers hold.
        scene.gateway.signal(Signal::STOP);
        for (place, client) in clients.iter_mut().enumerate() {
            client.send(&frame::masked(FIN | BINARY, &payload(place)));
        }
        scene.gateway.signal(Signal::CONT);
        for (place, client) in clients.iter_mut().enumerate() {
            assert!(client.message(BINARY) == payload(place), "{io}: session {place}");
        }
        let metrics = scene.metrics();
        let exhausted = metrics.value("tidegate_buffers_exhausted_total{shard=\"0\"}");
        // On epoll a buffer is lent for as long as its bytes are looked at, so that there is always one.
        assert!(io != "uring" || exhausted > 0.0, "there were buffers for all: nothing was tried");
        assert_eq!(metrics.value("tidegate_sessions{route=\"/echo\"}"), SESSIONS as f64, "{io}");
        clients.iter_mut().for_each(|client| client.exchange(TEXT, b"still here"));
        scene.gateway.stop();
    }
}

/// Sessions that answer pings; every other one says something now and then.
struct Crowd(Vec<Client>);

impl Crowd {
    /// Takes what has come, and says what is to be said.
    fn live(&mut self) {
        for (place, client) in self.0.iter_mut().enumerate() {
            while client.has_data() {
                match client.next_within(Duration::from_millis(1)) {
                    Received::Frame(frame) if frame.opcode == PING => {
                        client.send(&frame::masked(FIN | PONG, &frame.payload));
                    }
                    Received::Frame(frame) => assert_eq!(frame.opcode, TEXT, "{frame:?}"),
                    Received::Nothing => break,
                    Received::End(end) => panic!("a session has ended: {end:?}"),
                }
            }
            if place % 2 == 0 {
                client.send(&frame::masked(FIN | TEXT, b"here"));
            }
        }
    }
}

#[test]
fn a_process_that_stood_still_ends_no_session_for_it() {
    const SESSIONS: usize = 1_000;
    /// Longer than each of the times.
    const STILL: Duration = Duration::from_secs(5);
    const LIMITS: &str = "[limits]\nping_interval = '2s'\npong_timeout = '3s'\nwrite_timeout = '4s'\nreceive_buffers = 128\n\
                          [drain]\nwindow = '0s'";
    const ROUTES: &str = "[[route]]\npath = '/talk'\nlimits = { idle_timeout = '4s' }\necho = {}\n\
                          [[route]]\npath = '/echo'\necho = {}\n";
    for io in BACKENDS {
        let scene = Scene::on(io, 1, LIMITS, ROUTES);
        let address = scene.gateway.address();
        let mut crowd = Crowd(Vec::new());
        for place in 0..SESSIONS {
            crowd.0.push(Client::open(address, if place % 2 == 0 { "/talk" } else { "/echo" }));
            if place % 100 == 0 {
                crowd.live();
            }
        }
        // Until pings are under way to all.
        eventually("pings", || {
            crowd.live();
            (scene.metrics().value("tidegate_pings_total") > 0.0).then_some(())
        });
        for _ in 0..2 {
            scene.gateway.signal(Signal::STOP);
            let begun = Instant::now();
            while begun.elapsed() < STILL {
                crowd.live();
                std::thread::sleep(Duration::from_millis(500));
            }
            scene.gateway.signal(Signal::CONT);
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_secs(3) {
                crowd.live();
                std::thread::sleep(Duration::from_millis(200));
            }
        }
        assert_eq!(scene.get("/status")["sessions"], json!(SESSIONS), "{io}");
        assert_eq!(scene.status_of("/livez"), 200, "{io}");
        assert_eq!(scene.metrics().value("tidegate_ping_timeouts_total"), 0.0, "{io}");
        drop(crowd);
        scene.gateway.stop();
    }
}

/// An echo as a process of its own, which can be killed and stopped.
fn echo_at(bind: &str) -> Gateway {
    Gateway::start(
        &format!("version = 1\n[[listener]]\nbind = '{bind}'\n[[route]]\npath = '/*'\necho = {{}}\n"),
        "epoll",
    )
}

/// A proxy in front of such echoes.
fn in_front(io: &'static str, echoes: &[&Gateway], settings: &str) -> Scene {
    let urls: Vec<String> = echoes.iter().map(|echo| format!("'ws://{}'", echo.address())).collect();
    let route =
        format!("[[route]]\npath = '/p'\nproxy = {{ upstreams = [{}], {settings} }}\n", urls.join(", "));
    Scene::on(io, 1, "[limits]\nclose_timeout = '2s'\nping_interval = '0s'\nwrite_timeout = '300s'", &route)
}

/// Sessions through the proxy, with the place of their upstream: in turns, as there is one shard.
fn through(scene: &Scene, count: usize) -> Vec<Client> {
    (0..count).map(|_| Client::open(scene.gateway.address(), "/p")).collect()
}

#[test]
fn a_killed_upstream_ends_its_own_sessions_and_is_used_again_when_it_is_back() {
    for io in BACKENDS {
        let (one, two) = (echo_at("127.0.0.1:0"), echo_at("127.0.0.1:0"));
        let scene = in_front(io, &[&one, &two], "fail_timeout = '500ms', failure_code = 1014");
        let mut clients = through(&scene, 20);
        clients.iter_mut().for_each(|client| client.exchange(TEXT, b"before"));
        let bind = one.address().to_string();
        one.signal(Signal::KILL);
        let _ = one.wait();
        for (place, client) in clients.iter_mut().enumerate() {
            if place % 2 == 0 {
                let close = client.frame();
                assert_eq!((close.opcode, close.close_code()), (CLOSE, 1014), "{io}: {place}");
            } else {
                client.exchange(TEXT, b"still here");
            }
        }
        // It refuses connections: everybody gets to the other.
        through(&scene, 20).iter_mut().for_each(|client| client.exchange(TEXT, b"new"));
        let one = echo_at(&bind);
        eventually("a session of the one that is back", || {
            let mut both = through(&scene, 2);
            both.iter_mut().for_each(|client| client.exchange(TEXT, b"again"));
            let upstreams = scene.get("/status")["upstreams"].as_array().expect("a list").clone();
            let own = upstreams.iter().find(|own| own["upstream"] == format!("ws://{bind}").as_str());
            (own.expect("it is there")["sessions"] != json!(0)).then_some(())
        });
        // Both: nobody waits, and nobody is told that there is an answer.
        for echo in [one, two] {
            echo.signal(Signal::KILL);
            let _ = echo.wait();
        }
        let mut refused = Client::connect(scene.gateway.address());
        refused.send(&request("/p", ""));
        assert_eq!(refused.response().expect("an answer").status, 502, "{io}");
        scene.gateway.stop();
    }
}

#[test]
fn a_stalled_upstream_holds_up_its_own_sessions_alone_and_loses_nothing() {
    for io in BACKENDS {
        let (one, two) = (echo_at("127.0.0.1:0"), echo_at("127.0.0.1:0"));
        let scene =
            in_front(io, &[&one, &two], "handshake_timeout = '300ms', fail_timeout = '300s', max_fails = 1");
        let mut clients = through(&scene, 10);
        clients.iter_mut().for_each(|client| client.exchange(TEXT, b"before"));
        one.signal(Signal::STOP);
        let messages: Vec<Vec<u8>> = (0..50_u8).map(|n| vec![n; 16 << 10]).collect();
        for client in clients.iter_mut().step_by(2) {
            messages.iter().for_each(|message| client.send(&frame::masked(FIN | BINARY, message)));
        }
        // The kernel still takes connections for it. Who meets that waits for no more than the handshake's time: all get a session.
        let mut new = Vec::new();
        for _ in 0..6 {
            let mut client = Client::connect(scene.gateway.address());
            client.send(&request("/p", ""));
            let status = client.response().expect("an answer").status;
            assert!([101, 504].contains(&status), "{io}: {status}");
            if status == 101 {
                client.exchange(TEXT, b"new");
                new.push(client);
            }
        }
        assert!(new.len() >= 5, "{io}: once it has failed, it is left out");
        clients.iter_mut().skip(1).step_by(2).for_each(|client| client.exchange(TEXT, b"still here"));
        one.signal(Signal::CONT);
        for client in clients.iter_mut().step_by(2) {
            for message in &messages {
                assert!(client.message(BINARY) == *message, "{io}");
            }
            client.exchange(TEXT, b"still here");
        }
        let state = scene.get("/status")["upstreams"].clone();
        let up: BTreeSet<String> =
            state.as_array().expect("a list").iter().map(|one| one["up"].to_string()).collect();
        assert_eq!(json!(up), json!(["false", "true"]), "{io}: {state}");
        scene.gateway.stop();
    }
}
