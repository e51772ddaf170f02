//! Connections that are kept alive, whose clients would not be let in any more as they are.

use std::{fs, sync::Arc};

use rustls::{
    ClientConfig,
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::PrivateKeyDer,
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};
use tidegate_tls::{Authorities, Clients, ServerConfig};

use super::{CROWD, LISTENER, Peer, Storm, TLS, identity, options, signed};
use crate::{
    certificates::Authority,
    stage::{Stage, UNIX_SECONDS, frame, request},
};

const CONFIG: &str = "[limits]\nping_interval = \"0s\"\n[[topic]]\nname = \"**\"\n\
    [[route]]\npath = \"/any\"\npoll = { subscribe = [\"**\"] }\n\
    [[route]]\npath = \"/wanted\"\nclient_certificate = {}\npoll = { subscribe = [\"**\"] }\n\
    [[route]]\npath = \"/r\"\necho = {}\n\
    [[route]]\npath = \"/ws\"\nclient_certificate = {}\necho = {}\n";

/// Certificates of tests are good until the year 4096.
const YEAR_5000: u64 = 95_617_584_000;

fn server(authority: &Authority, clients: Clients) -> ServerConfig {
    ServerConfig::new(&options(clients), vec![identity(authority)]).expect("a server")
}

fn stage(server: &ServerConfig) -> Stage {
    let mut stage = Stage::of(&format!("{CONFIG}{LISTENER}"), 1);
    stage.shard.listen_tls(TLS, (), server.clone()).expect("it takes all");
    stage
}

/// The listener lets clients in by these rules from now on.
fn adopt(stage: &mut Stage, server: &ServerConfig) {
    stage.adopt_servers(vec![None, None, Some(server.clone())]);
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path}?topic=a HTTP/1.1\r\nHost: gw.test\r\n\r\n").into_bytes()
}

impl Peer {
    /// The answer to a request over the connection that there is.
    fn asks(&mut self, stage: &mut Stage, request: &[u8]) -> String {
        let said = self.sealed(request);
        stage.send(self.socket, &said);
        stage.turns(4);
        self.read(stage)
    }

    /// Asks for what comes next, and waits for it.
    fn waits(&mut self, stage: &mut Stage, path: &str) {
        let answer = self.asks(stage, &get(path));
        let (_, position) = answer.split_once("\"position\":\"").expect("a position");
        let position = position.split('"').next().expect("its end");
        let request =
            format!("GET {path}?topic=a&position={position}&wait=2 HTTP/1.1\r\nHost: gw.test\r\n\r\n");
        assert_eq!(self.asks(stage, request.as_bytes()), "", "nothing has come");
    }
}

/// One whose connection is kept alive behind an answer.
fn kept(stage: &mut Stage, client: &Arc<ClientConfig>, path: &str) -> Peer {
    let mut peer = Peer::secured(stage, client);
    let answer = peer.asks(stage, &get(path));
    assert!(answer.starts_with("HTTP/1.1 200 ") && !answer.contains("Connection: close"), "{answer}");
    peer
}

/// What begins with a request begins with what its listener wants now, and not when the connection came.
#[test]
fn a_request_is_let_in_as_its_connection_would_be_now() {
    let (authority, other) = (Authority::new(), Authority::new());
    let own = authority.issue("client", &["client.test"]);
    let [shows, nobody] = [Some(&own), None].map(|own| authority.client_with(&[&TLS13], &[], own));
    let all = |authorities: &[&Authority]| {
        let text: Vec<u8> = authorities.iter().flat_map(|one| fs::read(one.ca()).expect("read it")).collect();
        Authorities::from_pem(&text).expect("certificates")
    };
    let required = |authorities: &[&Authority]| Clients::SignedBy(all(authorities));
    let optional = signed(&authority);
    let anyone = Clients::Anyone;
    for (what, client, path, before, after, stays) in [
        ("the same", &shows, "/wanted", required(&[&authority]), required(&[&authority]), true),
        ("one more", &shows, "/wanted", required(&[&authority]), required(&[&other, &authority]), true),
        ("another", &shows, "/wanted", required(&[&authority]), required(&[&other]), false),
        ("another, for any route", &shows, "/any", required(&[&authority]), required(&[&other]), false),
        ("another, or nothing", &shows, "/wanted", optional.clone(), signed(&other), false),
        ("nobody is asked", &shows, "/wanted", optional.clone(), anyone.clone(), false),
        ("all are asked", &nobody, "/any", anyone.clone(), required(&[&authority]), false),
        ("some are asked", &nobody, "/any", anyone, optional.clone(), true),
        ("none is needed", &nobody, "/any", optional, signed(&other), true),
    ] {
        let mut stage = stage(&server(&authority, before));
        let mut session = Peer::secured(&mut stage, client);
        assert!(session.asks(&mut stage, &request("/r", "")).starts_with("HTTP/1.1 101 "), "{what}");
        let mut peers = [(); 3].map(|()| kept(&mut stage, client, path));
        let mut under_way = kept(&mut stage, client, path);
        under_way.waits(&mut stage, path);
        adopt(&mut stage, &server(&authority, after));
        let upgrade = request(if path == "/any" { "/r" } else { "/ws" }, "");
        for (peer, request, status) in [
            (0, get(path), "200"),
            (1, upgrade, "101"),
            (2, b"GET /nowhere HTTP/1.1\r\nHost: gw.test\r\n\r\n".to_vec(), "404"),
        ] {
            let peer: &mut Peer = &mut peers[peer];
            let answer = peer.asks(&mut stage, &request);
            let expected = if stays { status } else { "403" };
            assert_eq!(answer.get(9..12), Some(expected), "{what}: {answer}");
            if !stays {
                assert!(answer.contains("Connection: close"), "{what}: {answer}");
                assert!(stage.socket(peer.socket, |kernel| kernel.fin), "{what}: it is the last");
            }
        }
        if stays {
            // Once judged, it is as good as those who come now.
            let answer = peers[0].asks(&mut stage, &get(path));
            assert!(answer.starts_with("HTTP/1.1 200 "), "{what}: {answer}");
        }
        // What had begun goes on.
        stage.pass(3);
        let answer = under_way.read(&stage);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{what}: {answer}");
        let said = session.sealed(&frame(0x81, b"on", true));
        stage.send(session.socket, &said);
        assert_eq!(session.heard(&stage), frame(0x81, b"on", false), "{what}");
    }
}

/// Who resumes may do so for as long as his certificate is good, and so it is with connections: what waited is answered, and that is the
/// last.
#[test]
fn the_answer_behind_a_certificates_end_is_the_last() {
    let authority = Authority::new();
    let own = authority.issue("client", &["client.test"]);
    let client = authority.client_with(&[&TLS13], &[], Some(&own));
    for (unix_seconds, is_last) in [(UNIX_SECONDS, false), (YEAR_5000, true)] {
        let mut stage = stage(&server(&authority, signed(&authority)));
        let mut peer = kept(&mut stage, &client, "/wanted");
        peer.waits(&mut stage, "/wanted");
        stage.unix_seconds.set(unix_seconds);
        stage.pass(3);
        let answer = peer.read(&stage);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert_eq!(answer.contains("Connection: close"), is_last, "{answer}");
    }
}

/// As that of an authority that another one has vouched for until lately.
#[test]
fn a_certificate_that_nobody_needs_ends_no_connection() {
    /// In June 2025: some certificates of tests have expired by then.
    const LATELY: u64 = 1_750_000_000;
    let authority = Authority::new();
    let own = authority.issue("client", &["client.test"]);
    let beside = authority.issue_expired("beside", &["beside.test"]);
    let key = PrivateKeyDer::try_from(own.key_der).expect("a key");
    let key = any_supported_type(&key).expect("a key");
    let own = CertifiedKey::new(vec![own.certificate, beside.certificate], key);
    let mut client = ClientConfig::clone(&authority.client_with(&[&TLS13], &[], None));
    client.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(own));
    let mut stage = stage(&server(&authority, signed(&authority)));
    stage.unix_seconds.set(LATELY);
    let mut peer = kept(&mut stage, &Arc::new(client), "/wanted");
    for _ in 0..2 {
        let answer = peer.asks(&mut stage, &get("/wanted"));
        assert!(answer.starts_with("HTTP/1.1 200 ") && !answer.contains("Connection: close"), "{answer}");
    }
}

/// A certificate takes as long to judge behind a reload as in a handshake.
#[test]
fn certificates_that_are_judged_anew_count() {
    let authority = Authority::new();
    let own = authority.issue("client", &["client.test"]);
    let client = authority.client_with(&[&TLS13], &[], Some(&own));
    let mut stage = stage(&server(&authority, signed(&authority)));
    let session = stage.open();
    let crowd = (0..CROWD).map(|_| kept(&mut stage, &client, "/wanted")).collect();
    adopt(&mut stage, &server(&authority, signed(&authority)));
    let mut storm = Storm { stage, session, crowd };
    let sockets: Vec<_> = storm.crowd.iter().map(|peer| peer.socket).collect();
    let answered = |stage: &Stage| {
        sockets.iter().filter(|socket| stage.socket(**socket, |kernel| !kernel.sent.is_empty())).count()
            as u64
    };
    let ask = |peer: &mut Peer| peer.sealed(&request("/ws", ""));
    assert_eq!(storm.rush(ask, answered).0, [8; 5]);
}
