//! Clients' certificates behind the handshake: who may come to which route, and what upstreams are told. On both backends.

mod harness;

use std::{
    net::SocketAddr,
    sync::{Arc, mpsc::Receiver},
    time::{Duration, SystemTime},
};

use harness::{
    BACKENDS, PATIENCE,
    certificates::{Authority, Issued},
    client::{Client, request},
    eventually,
    frame::TEXT,
    gateway::Gateway,
    scene::Scene,
    secure::Secure,
    upstream::{Upstream, field},
};
use rustls::{
    AlertDescription, ClientConfig, HandshakeKind,
    version::{TLS12, TLS13},
};

/// A gateway that asks for certificates, and an upstream that notes what it is told.
struct World {
    authority: Authority,
    upstream: Upstream,
    heads: Receiver<String>,
    gateway: Gateway,
}

const ROUTES: &str = "[[route]]\npath = '/any'\necho = {}\n\
    [[route]]\npath = '/wanted'\nclient_certificate = {}\necho = {}\n\
    [[route]]\npath = '/listed'\nclient_certificate = { names = ['device 7', '*.devices.test'] }\necho = {}\n\
    [[route]]\npath = '/poll'\nclient_certificate = {}\npoll = { subscribe = ['a'] }\n";

impl World {
    fn start(io: &str) -> World {
        let authority = Authority::new();
        let (upstream, heads) = Upstream::telling();
        let config = World::config(&authority, &upstream, "optional", ROUTES);
        World { gateway: Gateway::start(&config, io), authority, upstream, heads }
    }

    fn config(authority: &Authority, upstream: &Upstream, mode: &str, routes: &str) -> String {
        let own = authority.issue("gateway", &["localhost"]);
        format!(
            "version = 1\n[drain]\nwindow = '100ms'\n[limits]\nhead_timeout = '1m'\n[[listener]]\nbind = '127.0.0.1:0'\n[listener.tls]\n{}\
             client_ca_file = {:?}\nclient_certificate = {mode:?}\n[[listener]]\nbind = '127.0.0.1:0'\n{routes}\
             [[route]]\npath = '/p'\nproxy = {{ upstreams = [{:?}] }}\n\
             client_certificate = {{ required = false, header = 'X-Client-Subject' }}\n",
            own.setting(),
            authority.ca(),
            upstream.url(),
        )
    }

    fn client(&self, own: Option<&Issued>) -> Arc<ClientConfig> {
        self.authority.client_with(&[&TLS13, &TLS12], &[], own)
    }

    fn address(&self) -> SocketAddr {
        self.gateway.address()
    }

    /// The status of an answer to this client at a path.
    fn status(&self, config: &Arc<ClientConfig>, path: &str) -> u16 {
        let mut client = Secure::connect(self.address(), config, "localhost");
        client.send(&request(path, ""));
        let head = client.head().expect("a response");
        head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
    }

    /// What the upstream is told of this client, which claims to be somebody itself.
    fn told(&self, config: &Arc<ClientConfig>) -> Option<String> {
        let mut client = Secure::connect(self.address(), config, "localhost");
        client.send(&request("/p", "X-Client-Subject: CN=root\r\nx_client_subject: CN=root\r\n"));
        assert!(client.head().is_some_and(|head| head.starts_with("HTTP/1.1 101 ")));
        let head = self.heads.recv_timeout(PATIENCE).expect("the upstream is asked");
        assert!(!head.contains("root"), "{head}");
        field(&head, "x-client-subject").map(str::to_owned)
    }
}

#[test]
fn routes_say_who_may_come() {
    for io in BACKENDS {
        let world = World::start(io);
        let nobody = world.client(None);
        let stranger =
            world.client(Some(&world.authority.issue_to("stranger", "device 8", &["devices.test"])));
        let seven = world.client(Some(&world.authority.issue_to("seven", "Device 7", &["other.test"])));
        let below = world.client(Some(&world.authority.issue_to("below", "any", &["a.b.devices.test"])));
        for (who, config, expected) in [
            ("nobody", &nobody, [101, 403, 403, 403, 101]),
            ("stranger", &stranger, [101, 101, 403, 200, 101]),
            ("seven", &seven, [101, 101, 101, 200, 101]),
            ("below", &below, [101, 101, 101, 200, 101]),
        ] {
            let got = ["/any", "/wanted", "/listed", "/poll", "/p"].map(|path| match path {
                "/poll" => {
                    let mut client = Secure::connect(world.address(), config, "localhost");
                    client.send(b"GET /poll?topic=a&wait=0s HTTP/1.1\r\nHost: gw.test\r\n\r\n");
                    let head = client.head().expect("a response");
                    // Whatever else it may be, it is not refused for want of a certificate.
                    if head.starts_with("HTTP/1.1 403 ") { 403 } else { 200 }
                }
                path => world.status(config, path),
            });
            assert_eq!(got, expected, "{who}");
        }
        // Who comes without TLS has no certificate, either.
        let mut plain = Client::connect(world.gateway.addresses()[1]);
        plain.send(&request("/wanted", ""));
        assert_eq!(plain.response().expect("a response").status, 403);
        Client::open(world.gateway.addresses()[1], "/any").exchange(TEXT, b"plain");
        let log = world.gateway.stop();
        assert!(log.iter().any(|line| line.contains("this route wants a client certificate")));
        assert!(log.iter().any(|line| line.contains("this certificate may not come here")));
    }
}

#[test]
fn an_upstream_learns_the_subject_from_the_gateway_alone() {
    for io in BACKENDS {
        let world = World::start(io);
        let issue = |stem, common_name| world.authority.issue_to(stem, common_name, &["client.test"]);
        assert_eq!(world.told(&world.client(None)), None);
        assert_eq!(world.told(&world.client(Some(&issue("a", "device 7")))).as_deref(), Some("CN=device 7"));
        // No name can end a line, or look like another part of the name.
        let sly = issue("b", "x,O=Admins\r\nX-Admin: Zoë");
        let expected = "CN=x\\,O\\=Admins\\0D\\0AX-Admin: Zo\\C3\\AB";
        assert_eq!(world.told(&world.client(Some(&sly))).as_deref(), Some(expected));
        // Nobody on the plain listener has one, whatever is claimed.
        let fields = "X-Client-Subject: CN=root\r\n";
        drop(Client::open_with(world.gateway.addresses()[1], "/p", fields));
        let head = world.heads.recv_timeout(PATIENCE).expect("the upstream is asked");
        assert_eq!(field(&head, "x-client-subject"), None);
        world.gateway.stop();
        assert_eq!(world.upstream.failures(), [""; 0]);
    }
}

#[test]
fn a_session_that_is_resumed_has_the_certificate_of_the_one_before() {
    for io in BACKENDS {
        let world = World::start(io);
        let own = world.authority.issue_to("own", "device 7", &["client.test"]);
        for version in [&TLS13, &TLS12] {
            let config = world.authority.client_with(&[version], &[], Some(&own));
            for number in 0..3 {
                let mut client = Secure::open(world.address(), &config, "localhost", "/listed");
                client.exchange(TEXT, b"it is me");
                let kind = client.connection.handshake_kind();
                assert!(number == 0 || kind == Some(HandshakeKind::Resumed), "{kind:?}");
                client.close();
                assert_eq!(world.told(&config).as_deref(), Some("CN=device 7"));
            }
        }
        world.gateway.stop();
    }
}

/// A poll over a connection that is kept alive; its answer's head.
fn poll(client: &mut Secure) -> String {
    client.send(b"GET /poll?topic=a HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    let head = client.head().expect("a response");
    let (_, length) = head.split_once("Content-Length: ").expect("a length");
    let length = length.split("\r\n").next().and_then(|length| length.parse().ok()).expect("a number");
    eventually("its body", || {
        let has_come = client.inbox.bytes.len() >= length || !client.is_silent(Duration::from_millis(10));
        (has_come && client.inbox.bytes.len() >= length).then(|| client.inbox.bytes.drain(..length).count())
    });
    head
}

/// RFC 8446 §4.6.1: how long an old session is good for depends on how long its peer's certificate is.
#[test]
fn rfc8446_4_6_1_a_session_is_resumed_no_longer_than_its_certificate_is_good() {
    // Both at once, as the end has to be waited for.
    let worlds = BACKENDS.map(World::start);
    let end = SystemTime::now() + Duration::from_secs(15);
    let clients: Vec<_> = worlds
        .iter()
        .flat_map(|world| {
            let own = world.authority.issue_until("own", "device 7", end);
            [&TLS13, &TLS12].map(|version| (world, world.authority.client_with(&[version], &[], Some(&own))))
        })
        .collect();
    for (world, config) in clients.iter().chain(&clients) {
        let mut client = Secure::open(world.address(), config, "localhost", "/listed");
        client.exchange(TEXT, b"it is me");
        client.close();
    }
    // What is kept alive is asked over once more, and what has begun goes on.
    let mut kept: Vec<_> = clients
        .iter()
        .map(|(world, config)| {
            let mut polls = Secure::connect(world.address(), config, "localhost");
            assert!(poll(&mut polls).starts_with("HTTP/1.1 200 "));
            (polls, Secure::open(world.address(), config, "localhost", "/listed"))
        })
        .collect();
    eventually("its end", || (SystemTime::now() > end + Duration::from_secs(1)).then_some(()));
    for (world, config) in &clients {
        let mut client = Secure::connect(world.address(), config, "localhost");
        let fault = client.shake();
        let expired = rustls::Error::AlertReceived(AlertDescription::CertificateExpired);
        assert_eq!(fault, Err(expired), "{:?}", client.connection.handshake_kind());
        assert!(client.end().is_some());
    }
    for (polls, session) in &mut kept {
        let answer = poll(polls);
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("Connection: close"), "{answer}");
        session.exchange(TEXT, b"it is still me");
    }
    for world in worlds {
        let log = world.gateway.stop();
        let told = log.iter().filter(|line| line.contains("the peer's certificate has expired"));
        assert_eq!(told.count(), 2, "{log:?}");
    }
}

/// Who came without a certificate has a ticket that says so: it is good for nothing once all need one.
#[test]
fn a_reload_that_wants_certificates_believes_no_ticket_of_before() {
    for io in BACKENDS {
        let world = World::start(io);
        let nobody = world.client(None);
        let mut before = Secure::open(world.address(), &nobody, "localhost", "/any");
        before.exchange(TEXT, b"here");
        // The route now wants what this session did not show: it goes. The one that asks for nothing does not.
        let wants = ROUTES.replace("path = '/any'\n", "path = '/any'\nclient_certificate = {}\n");
        let config = World::config(&world.authority, &world.upstream, "required", &wants);
        assert!(world.gateway.reload(&config).contains("configuration taken over"));
        assert_eq!(before.frame().close_code(), 1012);
        let mut again = Secure::connect(world.address(), &nobody, "localhost");
        let _ = again.shake();
        assert!(again.end().is_some());
        assert!(again.fault.is_some(), "nobody gets in without a certificate");
        let own = world.authority.issue_to("own", "device 7", &["client.test"]);
        assert_eq!(world.status(&world.client(Some(&own)), "/any"), 101);
        world.gateway.stop();
    }
}

/// Who could not come any more begins nothing new over the connection that he has; what he has begun goes on.
#[test]
fn a_reload_that_takes_an_authority_away_holds_for_connections_that_are_kept_alive() {
    for io in BACKENDS {
        let (world, other) = (World::start(io), Authority::new());
        let own = world.authority.issue_to("own", "device 7", &["client.test"]);
        let client = world.client(Some(&own));
        let mut session = Secure::open(world.address(), &client, "localhost", "/listed");
        let [mut polls, mut upgrades] = [(); 2].map(|()| {
            let mut kept = Secure::connect(world.address(), &client, "localhost");
            assert!(poll(&mut kept).starts_with("HTTP/1.1 200 "));
            kept
        });
        let config = |mode: &str| World::config(&world.authority, &world.upstream, mode, ROUTES);
        // Another rule, by which this client may come as well.
        assert!(world.gateway.reload(&config("required")).contains("configuration taken over"));
        for kept in [&mut polls, &mut upgrades] {
            assert!(poll(kept).starts_with("HTTP/1.1 200 "));
        }
        let [ca, other_ca] = [&world.authority, &other].map(|authority| format!("{:?}", authority.ca()));
        let without = config("required").replace(&ca, &other_ca);
        assert!(world.gateway.reload(&without).contains("configuration taken over"));
        let answer = poll(&mut polls);
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("Connection: close"), "{answer}");
        upgrades.send(&request("/wanted", ""));
        assert!(upgrades.head().is_some_and(|head| head.starts_with("HTTP/1.1 403 ")));
        for mut kept in [polls, upgrades] {
            kept.finish();
            assert!(kept.end().is_some());
        }
        session.exchange(TEXT, b"still here");
        let log = world.gateway.stop();
        let told = log.iter().filter(|line| line.contains("the certificate of this connection"));
        assert_eq!(told.count(), 2, "{log:?}");
    }
}

#[test]
fn those_who_run_the_gateway_see_whom_certificates_name() {
    for io in BACKENDS {
        let authority = Authority::new();
        let listener = format!(
            "[[listener]]\nbind = '127.0.0.1:0'\n[listener.tls]\n{}client_ca_file = {:?}\n\
             client_certificate = 'optional'\n",
            authority.issue("gateway", &["localhost"]).setting(),
            authority.ca()
        );
        let scene = Scene::on(io, 1, &listener, "[[route]]\npath = '/any'\necho = {}\n");
        let own = authority.issue_to("own", "device 7", &["client.test"]);
        for (own, subject) in
            [(Some(&own), serde_json::json!("CN=device 7")), (None, serde_json::Value::Null)]
        {
            let config = authority.client_with(&[&TLS13, &TLS12], &[], own);
            let mut client = Secure::open(scene.gateway.address(), &config, "localhost", "/any");
            client.exchange(TEXT, b"it is me");
            let sessions = scene.sessions(&[("route", "/any")]);
            assert_eq!((sessions.len(), &sessions[0]["subject"]), (1, &subject), "{sessions:?}");
            client.close();
            eventually("its end", || scene.sessions(&[("route", "/any")]).is_empty().then_some(()));
        }
        scene.gateway.stop();
    }
}
