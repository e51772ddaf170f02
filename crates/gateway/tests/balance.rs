//! Which upstream a session goes to, and from which local address: each way to balance, upstreams that fail and come
//! back, and faults of the gateway's own machine. On both backends.

mod harness;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Receiver, channel},
    },
};

use crate::harness::{
    BACKENDS, PATIENCE,
    client::{Client, request},
    eventually,
    frame::BINARY,
    gateway::Gateway,
    upstream::{Upstream, switching_protocols},
};

/// What an upstream does with the handshakes that reach it.
#[derive(Default)]
struct Mood {
    /// Hangs up instead of answering.
    down: AtomicBool,
    /// Takes the request and does not answer for now.
    silent: AtomicBool,
    /// Requests that wait for their answer.
    waiting: AtomicUsize,
}

/// Upstreams that tell who reached which of them.
struct Pool {
    upstreams: Vec<Upstream>,
    moods: Vec<Arc<Mood>>,
    sessions: Receiver<(usize, SocketAddr)>,
}

impl Pool {
    fn start(count: usize) -> Pool {
        let (sender, sessions) = channel();
        let moods: Vec<Arc<Mood>> = (0..count).map(|_| Arc::default()).collect();
        let start = |(place, mood): (usize, &Arc<Mood>)| {
            let (sender, mood) = (sender.clone(), Arc::clone(mood));
            Upstream::start(move |mut connection| {
                let Some(head) = connection.head() else { return };
                if mood.down.load(Ordering::SeqCst) {
                    return;
                }
                mood.waiting.fetch_add(1, Ordering::SeqCst);
                eventually("the upstream's leave to answer", || {
                    (!mood.silent.load(Ordering::SeqCst)).then_some(())
                });
                mood.waiting.fetch_sub(1, Ordering::SeqCst);
                // The test may be over.
                let _ = sender.send((place, connection.peer()));
                connection.send(switching_protocols(&head, "").as_bytes());
                connection.echo();
            })
        };
        let upstreams = moods.iter().enumerate().map(start).collect();
        Pool { upstreams, moods, sessions }
    }

    /// A gateway in front of all of them.
    fn gateway(&self, io: &str, settings: &str, top: &str) -> Gateway {
        let urls: Vec<_> = self.upstreams.iter().map(|upstream| format!("{:?}", upstream.url())).collect();
        let config = format!(
            "version = 1\n{top}\n[[listener]]\nbind = \"127.0.0.1:0\"\n[[route]]\npath = \"/p\"\n\
             proxy = {{ upstreams = [{}]{settings} }}\n",
            urls.join(", ")
        );
        Gateway::start(&config, io)
    }

    /// The upstream that the last session has reached, and the address that it came from.
    fn reached(&self) -> (usize, SocketAddr) {
        self.sessions.recv_timeout(PATIENCE).expect("a session reaches an upstream")
    }

    /// Opens a session; gives its upstream, too.
    fn open(&self, gateway: &Gateway, fields: &str) -> (Client, usize) {
        let (client, _) = Client::open_with(gateway.address(), "/p", fields);
        (client, self.reached().0)
    }

    /// The upstream of a session that ends at once.
    fn visit(&self, gateway: &Gateway, fields: &str) -> usize {
        self.open(gateway, fields).1
    }

    fn set_down(&self, place: usize, down: bool) {
        self.moods[place].down.store(down, Ordering::SeqCst);
    }
}

/// Each key has an upstream of its own, all upstreams have keys, and one that fails takes only its own keys along.
fn affinity(pool: &Pool, visit: impl Fn(usize) -> usize) {
    const KEYS: usize = 48;
    let first: Vec<usize> = (0..KEYS).map(&visit).collect();
    let again: Vec<usize> = (0..KEYS).map(&visit).collect();
    assert_eq!(first, again, "the same key, the same upstream");
    let used: BTreeSet<usize> = first.iter().copied().collect();
    assert_eq!(used.len(), pool.upstreams.len(), "{first:?}");

    let lost = first[0];
    pool.set_down(lost, true);
    let without: Vec<usize> = (0..KEYS).map(&visit).collect();
    for (key, (before, after)) in first.iter().zip(&without).enumerate() {
        if *before == lost {
            assert_ne!(*after, lost, "key {key}");
        } else {
            assert_eq!(after, before, "key {key} was not on the upstream that is gone");
        }
    }
    let moved: Vec<usize> = (0..KEYS).map(&visit).collect();
    assert_eq!(moved, without, "keys that have moved stay where they are");
    let heirs: BTreeSet<usize> =
        first.iter().zip(&without).filter(|(before, _)| **before == lost).map(|(_, after)| *after).collect();
    assert_eq!(heirs.len(), pool.upstreams.len() - 1, "its keys are spread over the others: {without:?}");
}

#[test]
fn a_cookie_a_field_or_an_address_names_the_upstream() {
    for io in BACKENDS {
        let hash = |on: &str| format!(", balance = \"hash\", hash_on = {on:?}, fail_timeout = \"1h\"");
        let pool = Pool::start(3);
        let gateway = pool.gateway(io, &hash("cookie:player"), "");
        affinity(&pool, |key| pool.visit(&gateway, &format!("Cookie: a={key}0; player=p{key}; b=1\r\n")));
        gateway.stop();

        let pool = Pool::start(3);
        let gateway = pool.gateway(io, &hash("header:X-Room"), "");
        affinity(&pool, |key| pool.visit(&gateway, &format!("x-room: room {key}\r\n")));
        gateway.stop();

        let pool = Pool::start(3);
        let gateway = pool.gateway(io, &hash("client_address"), "");
        affinity(&pool, |key| {
            let local = Ipv4Addr::new(127, 0, 1, key as u8 + 1);
            let mut client = Client::connect_from(local.into(), gateway.address());
            // What an untrusted client says of its address means nothing.
            client.send(&request("/p", "X-Forwarded-For: 203.0.113.9\r\n"));
            assert_eq!(client.response().expect("a response").status, 101);
            pool.reached().0
        });
        gateway.stop();
    }
}

#[test]
fn behind_a_trusted_proxy_the_client_is_hashed_and_not_the_proxy() {
    let settings = ", balance = \"hash\", hash_on = \"client_address\", fail_timeout = \"1h\"";
    for io in BACKENDS {
        let pool = Pool::start(3);
        let gateway = pool.gateway(io, settings, "trusted = [\"127.0.0.1\", \"10.0.0.0/8\"]");
        // What stands left of the client's address is the client's own word; what stands right of it are more proxies.
        affinity(&pool, |key| {
            let made_up = key * 7 % 5;
            pool.visit(
                &gateway,
                &format!(
                    "X-Forwarded-For: 192.0.2.{made_up}\r\nX-Forwarded-For: 203.0.113.{key}, 10.1.2.3\r\n"
                ),
            )
        });
        gateway.stop();
    }
}

/// What the kernel calls the peer is the proxy, and so is every client's; the header of its connection says who it is.
#[test]
fn behind_a_proxy_that_speaks_the_proxy_protocol_the_client_is_hashed_and_not_the_proxy() {
    let settings = ", balance = \"hash\", hash_on = \"client_address\", fail_timeout = \"1h\"";
    let listener = "[[listener]]\nbind = \"127.0.0.1:0\"\nproxy_protocol = [\"127.0.0.0/8\"]";
    for io in BACKENDS {
        let pool = Pool::start(3);
        let gateway = pool.gateway(io, settings, listener);
        affinity(&pool, |key| {
            let mut client = Client::connect(gateway.address());
            let port = client.local().port();
            client.precede(format!("PROXY TCP4 203.0.113.{key} 10.0.0.1 {port} 443\r\n").as_bytes());
            // Who is not trusted says nothing of addresses.
            client.send(&request("/p", &format!("X-Forwarded-For: 192.0.2.{}\r\n", port % 5)));
            assert_eq!(client.response().expect("a response").status, 101);
            pool.reached().0
        });
        gateway.stop();
    }
}

#[test]
fn a_client_without_the_key_goes_by_its_address() {
    let settings = ", balance = \"hash\", hash_on = \"cookie:player\"";
    for io in BACKENDS {
        let pool = Pool::start(3);
        let gateway = pool.gateway(io, settings, "");
        let fields = ["", "Cookie: other=1\r\n", "Cookie: player=\r\n", "Cookie: Player=2\r\n"];
        let places: BTreeSet<usize> = fields.iter().map(|fields| pool.visit(&gateway, fields)).collect();
        assert_eq!(places.len(), 1, "{places:?}");
        gateway.stop();
    }
}

#[test]
fn each_upstream_has_its_turn() {
    for io in BACKENDS {
        let pool = Pool::start(3);
        let gateway = pool.gateway(io, "", "");
        let places: Vec<usize> = (0..9).map(|_| pool.visit(&gateway, "")).collect();
        assert_eq!(places, [0, 1, 2].repeat(3));
        gateway.stop();
    }
}

#[test]
fn the_upstream_with_the_fewest_sessions_gets_the_next() {
    for io in BACKENDS {
        let pool = Pool::start(3);
        let gateway = pool.gateway(io, ", balance = \"least_sessions\"", "");
        let mut sessions: Vec<(Client, usize)> = (0..9).map(|_| pool.open(&gateway, "")).collect();
        for place in 0..3 {
            assert_eq!(sessions.iter().filter(|(_, at)| *at == place).count(), 3, "upstream {place}");
        }
        // Of one upstream all sessions end, of another one.
        let (ending, going_on): (Vec<_>, Vec<_>) = sessions.into_iter().partition(|(_, at)| *at == 1);
        ending.into_iter().for_each(|(client, _)| client.close(1000));
        sessions = going_on;
        let one = sessions.iter().position(|(_, at)| *at == 2).expect("a session there");
        sessions.swap_remove(one).0.close(1000);
        // 3, 0, 2: then 3, 2, 2, then one for each of the two, and all are even.
        let next: Vec<(Client, usize)> = (0..4).map(|_| pool.open(&gateway, "")).collect();
        let places: Vec<usize> = next.iter().map(|(_, at)| *at).collect();
        assert_eq!(places[..2], [1, 1]);
        let last: BTreeSet<usize> = places[2..].iter().copied().collect();
        assert_eq!(last, BTreeSet::from([1, 2]), "{places:?}");
        drop((sessions, next));
        gateway.stop();
    }
}

#[test]
fn an_upstream_is_left_out_after_max_fails_and_probed_when_its_time_is_over() {
    for io in BACKENDS {
        let pool = Pool::start(2);
        let gateway = pool.gateway(io, ", max_fails = 2, fail_timeout = \"1h\"", "");
        pool.set_down(0, true);
        // Each session is served, at the second try where its turn was the first upstream's.
        assert!((0..12).all(|_| pool.visit(&gateway, "") == 1));
        assert_eq!(pool.upstreams[0].accepted(), 2, "two failures in a row, and no more tries");
        gateway.stop();

        let pool = Pool::start(2);
        let gateway = pool.gateway(io, ", fail_timeout = \"200ms\"", "");
        pool.set_down(0, true);
        assert_eq!(pool.visit(&gateway, ""), 1);
        assert_eq!(pool.upstreams[0].accepted(), 1);
        // Probes that fail leave it out again; no client notices.
        eventually("a probe", || {
            assert_eq!(pool.visit(&gateway, ""), 1);
            (pool.upstreams[0].accepted() > 1).then_some(())
        });
        pool.set_down(0, false);
        eventually("a session on the upstream that is back", || {
            (pool.visit(&gateway, "") == 0).then_some(())
        });
        let places: Vec<usize> = (0..4).map(|_| pool.visit(&gateway, "")).collect();
        assert_eq!(places, [1, 0, 1, 0], "it has its turn again");
        gateway.stop();
    }
}

#[test]
fn an_upstream_that_is_not_left_out_gets_all_its_sessions_at_once() {
    for io in BACKENDS {
        let pool = Pool::start(2);
        let gateway = pool.gateway(io, ", max_fails = 3", "");
        pool.set_down(0, true);
        assert_eq!(pool.visit(&gateway, ""), 1);
        pool.set_down(0, false);
        // One failure of three: it is not to be probed, but to be used.
        pool.moods[0].silent.store(true, Ordering::SeqCst);
        let mut clients: Vec<Client> = (0..6)
            .map(|_| {
                let mut client = Client::connect(gateway.address());
                client.send(&request("/p", ""));
                client
            })
            .collect();
        eventually("three handshakes at once", || {
            (pool.moods[0].waiting.load(Ordering::SeqCst) == 3).then_some(())
        });
        pool.moods[0].silent.store(false, Ordering::SeqCst);
        for client in &mut clients {
            assert_eq!(client.response().expect("a response").status, 101);
        }
        gateway.stop();
    }
}

#[test]
fn connections_come_from_the_source_addresses_in_turn() {
    for io in BACKENDS {
        let pool = Pool::start(1);
        let gateway = pool.gateway(io, ", source = [\"127.0.0.2\", \"127.0.0.3\", \"127.0.0.4\"]", "");
        let from: Vec<IpAddr> = (0..6)
            .map(|_| {
                let mut client = Client::open(gateway.address(), "/p");
                client.exchange(BINARY, b"from there");
                pool.reached().1.ip()
            })
            .collect();
        let expected: Vec<IpAddr> =
            [2, 3, 4].repeat(2).into_iter().map(|last| Ipv4Addr::new(127, 0, 0, last).into()).collect();
        assert_eq!(from, expected);
        gateway.stop();
    }
}

/// No machine has this address (RFC 5737): to bind to it fails with `EADDRNOTAVAIL`, as does a source whose ports are
/// used up.
const NOWHERE: &str = "192.0.2.1";

#[test]
fn a_source_address_that_cannot_be_used_is_followed_by_the_next() {
    for io in BACKENDS {
        let pool = Pool::start(2);
        let gateway = pool.gateway(io, &format!(", source = [{NOWHERE:?}, \"127.0.0.2\"]"), "");
        for round in 0..6 {
            drop(Client::open(gateway.address(), "/p"));
            let (place, from) = pool.reached();
            assert_eq!((place, from.ip()), (round % 2, Ipv4Addr::new(127, 0, 0, 2).into()));
        }
        assert!(!gateway.stop().iter().any(|line| line.contains("upstream failed")));
    }
}

/// The answer to a request for a session.
fn status(gateway: &Gateway) -> u16 {
    let mut client = Client::connect(gateway.address());
    client.send(&request("/p", ""));
    client.response().expect("a response").status
}

#[test]
fn without_a_usable_source_address_the_client_gets_503_and_no_upstream_is_blamed() {
    for io in BACKENDS {
        let pool = Pool::start(2);
        let gateway = pool.gateway(io, &format!(", source = [{NOWHERE:?}]"), "");
        for _ in 0..3 {
            assert_eq!(status(&gateway), 503);
        }
        let line = gateway.wait_for_log("the fault", |line| line.contains("no source address"));
        assert!(line.contains("WARN") && line.contains("Cannot assign requested address"), "{line}");
        assert!(pool.upstreams.iter().all(|upstream| upstream.accepted() == 0));
        assert!(!gateway.stop().iter().any(|line| line.contains("upstream failed")));
    }
}

#[test]
fn without_descriptors_the_client_gets_503_and_no_upstream_is_blamed() {
    for io in BACKENDS {
        let pool = Pool::start(2);
        let gateway = pool.gateway(io, ", max_fails = 1, fail_timeout = \"1h\"", "");
        // It stays open, so that no descriptor comes back meanwhile.
        let (session, place) = pool.open(&gateway, "");
        assert_eq!(place, 0);
        // One for the client, none for its upstream.
        gateway.leave_descriptors(1);
        assert_eq!(status(&gateway), 503);
        let line = gateway.wait_for_log("the fault", |line| line.contains("cannot connect to an upstream"));
        assert!(line.contains("WARN") && line.contains("Too many open files"), "{line}");
        gateway.limit_descriptors(1000);
        let places: BTreeSet<usize> = (0..2).map(|_| pool.visit(&gateway, "")).collect();
        assert_eq!(places, BTreeSet::from([0, 1]), "neither is left out");
        drop(session);
        assert!(!gateway.stop().iter().any(|line| line.contains("upstream failed")));
    }
}
