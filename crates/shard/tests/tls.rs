//! TLS in a shard that a test plays by hand: how many handshakes a turn has room for, who may come by a certificate, what is
//! owed to who ends its side, and what half records take.

// Shared with the gateway's tests.
#[allow(dead_code)]
#[path = "../../gateway/tests/harness/certificates.rs"]
mod certificates;

#[path = "tls/halves.rs"]
mod halves;
#[path = "tls/owed.rs"]
mod owed;
#[path = "tls/past.rs"]
mod past;
mod stage;

use std::{fs, sync::Arc, time::SystemTime};

use rustls::{
    AlertDescription, ClientConfig, ClientConnection,
    pki_types::ServerName,
    version::{TLS12, TLS13},
};
use tidegate_io::{Event, ListenerId};
use tidegate_shard::{Departure, Mail, Pace, Progress, Whom};
use tidegate_tls::{Authorities, Clients, Identity, ServerConfig, ServerOptions};
use tidegate_wire::close::CloseCode;

use crate::{
    certificates::Authority,
    stage::{Socket, Stage, frame, request},
};

/// Where connections speak TLS.
const TLS: ListenerId = ListenerId(2);

/// Nobody reads these files: the stage's listeners are its own.
const LISTENER: &str = "[[listener]]\nbind = \"127.0.0.1:2\"\n[listener.tls]\ncertificate_file = \"/none\"\n\
    key_file = \"/none\"\nclient_ca_file = \"/none\"\nclient_certificate = \"optional\"\n";

const ROUTES: &str = "[[route]]\npath = \"/r\"\necho = {}\n\
    [[route]]\npath = \"/any\"\nclient_certificate = { required = false }\necho = {}\n\
    [[route]]\npath = \"/wanted\"\nclient_certificate = {}\necho = {}\n\
    [[route]]\npath = \"/listed\"\norigins = [\"https://page.test\"]\nclient_certificate = {}\necho = {}\n";

/// A shard that also speaks TLS, with these clients.
fn stage(authority: &Authority, clients: Clients) -> Stage {
    let server = ServerConfig::new(&options(clients), vec![identity(authority)]);
    stage_of(server.expect("a server"))
}

fn stage_of(server: ServerConfig) -> Stage {
    stage_with("", server)
}

/// The same with these lines in its table of limits, and behind that.
fn stage_with(limits: &str, server: ServerConfig) -> Stage {
    let config = format!("[limits]\nping_interval = \"0s\"\n{limits}\n{ROUTES}{LISTENER}");
    let mut stage = Stage::of(&config, 1);
    stage.shard.listen_tls(TLS, (), server).expect("it takes all");
    stage
}

fn options(clients: Clients) -> ServerOptions {
    ServerOptions { clients, ..ServerOptions::default() }
}

fn identity(authority: &Authority) -> Identity {
    let own = authority.issue("gateway", &["localhost"]);
    let [chain, key] = [&own.chain, &own.key].map(|file| fs::read(file).expect("read it"));
    Identity::from_pem(&chain, &key, SystemTime::now()).expect("an identity")
}

/// Those that this authority has signed, and those without a certificate.
fn signed(authority: &Authority) -> Clients {
    let authorities = Authorities::from_pem(&fs::read(authority.ca()).expect("read it"));
    Clients::SignedByOrNone(authorities.expect("a certificate"))
}

/// A client whose ciphertext the test carries.
struct Peer {
    socket: Socket,
    connection: ClientConnection,
}

impl Peer {
    fn connect(stage: &mut Stage, config: &Arc<ClientConfig>) -> Peer {
        let name = ServerName::try_from("localhost").expect("a name");
        let connection = ClientConnection::new(Arc::clone(config), name).expect("a client");
        Peer { socket: stage.accept_at(TLS), connection }
    }

    /// What it has to say.
    fn said(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut bytes).expect("a vector takes all");
        }
        bytes
    }

    /// Reads what it was sent.
    fn hear(&mut self, stage: &Stage) -> Result<(), rustls::Error> {
        let sent = stage.socket(self.socket, |kernel| std::mem::take(&mut kernel.sent));
        let mut rest = &sent[..];
        while !rest.is_empty() {
            self.connection.read_tls(&mut rest).expect("a slice");
            self.connection.process_new_packets()?;
        }
        Ok(())
    }

    /// One whose handshake is over.
    fn secured(stage: &mut Stage, config: &Arc<ClientConfig>) -> Peer {
        let mut peer = Peer::connect(stage, config);
        while peer.connection.is_handshaking() {
            let said = peer.said();
            stage.send(peer.socket, &said);
            peer.hear(stage).expect("a handshake");
        }
        peer
    }

    /// These bytes, sealed.
    fn sealed(&mut self, bytes: &[u8]) -> Vec<u8> {
        std::io::Write::write_all(&mut self.connection.writer(), bytes).expect("room");
        self.said()
    }

    /// What it was sent and has not read yet.
    fn heard(&mut self, stage: &Stage) -> Vec<u8> {
        self.hear(stage).expect("what can be opened");
        let mut heard = Vec::new();
        // It says that nothing more is there for now.
        let _ = std::io::Read::read_to_end(&mut self.connection.reader(), &mut heard);
        heard
    }

    /// The same as text.
    fn read(&mut self, stage: &Stage) -> String {
        String::from_utf8_lossy(&self.heard(stage)).into_owned()
    }

    /// The status of the answer to a request with these fields.
    fn status(stage: &mut Stage, config: &Arc<ClientConfig>, path: &str, fields: &str) -> String {
        Peer::ask(stage, config, path, fields).1
    }

    /// Asks for a session; the answer's status.
    fn ask(stage: &mut Stage, config: &Arc<ClientConfig>, path: &str, fields: &str) -> (Peer, String) {
        let mut peer = Peer::secured(stage, config);
        let said = peer.sealed(&request(path, fields));
        stage.send(peer.socket, &said);
        let status = peer.read(stage)[9..12].to_owned();
        (peer, status)
    }
}

/// So many come at once.
const CROWD: usize = 40;

/// A crowd, and one who has a session beside it.
struct Storm {
    stage: Stage,
    session: Socket,
    crowd: Vec<Peer>,
}

impl Storm {
    fn new(mut stage: Stage, config: &Arc<ClientConfig>) -> Storm {
        let session = stage.open();
        let crowd = (0..CROWD).map(|_| Peer::connect(&mut stage, config)).collect();
        Storm { stage, session, crowd }
    }

    /// Each of them sends what `say` gives, and `count` tells how far they have come. How much further that is with each turn that
    /// brings them any further, and how many of them had to wait for another one.
    fn rush(
        &mut self,
        mut say: impl FnMut(&mut Peer) -> Vec<u8>,
        count: impl Fn(&Stage) -> u64,
    ) -> (Vec<u64>, u64) {
        let Storm { stage, session, crowd } = self;
        let waited = stage.shard.counters().tls_waited;
        for peer in crowd {
            let said = say(peer);
            stage.arrive(peer.socket, &said);
        }
        let mut steps = Vec::new();
        // More turns than it takes.
        for _ in 0..CROWD {
            let (before, answered) = (count(stage), stage.shard.counters().messages);
            stage.arrive(*session, &frame(0x82, b"x", true));
            stage.turn();
            steps.push(count(stage) - before);
            assert_eq!(stage.shard.counters().messages, answered + 1, "the session is read in this turn");
        }
        steps.retain(|step| *step > 0);
        (steps, stage.shard.counters().tls_waited - waited)
    }

    /// The first flights.
    fn greet(&mut self) {
        let sockets: Vec<Socket> = self.crowd.iter().map(|peer| peer.socket).collect();
        let answered = |stage: &Stage| {
            sockets.iter().filter(|socket| stage.socket(**socket, |kernel| !kernel.sent.is_empty())).count()
                as u64
        };
        assert_eq!(self.rush(Peer::said, answered), (vec![8; 5], 32));
        for peer in &mut self.crowd {
            peer.hear(&self.stage).expect("an answer to a hello");
        }
    }
}

fn ended(stage: &Stage) -> u64 {
    stage.shard.counters().tls_opened + stage.shard.counters().tls_failed
}

/// Eight keys and signatures in a turn; and eight certificates of clients that are judged, whether they are good or not.
#[test]
fn a_storm_of_handshakes_does_not_hold_sessions_up() {
    let (authority, other) = (Authority::new(), Authority::new());
    let issue = |by: &Authority| by.issue("client", &["client.test"]);
    let (good, foreign) = (issue(&authority), issue(&other));
    // What ends a handshake of TLS 1.3 without a certificate takes next to nothing; with 1.2 the keys are agreed on there.
    for (version, own, opens, steps, waited) in [
        (&TLS13, None, true, vec![40], 0),
        (&TLS13, Some(&good), true, vec![8; 5], 32),
        (&TLS13, Some(&foreign), false, vec![8; 5], 32),
        (&TLS12, None, true, vec![8; 5], 32),
        (&TLS12, Some(&good), true, vec![8; 5], 32),
        (&TLS12, Some(&foreign), false, vec![8; 5], 32),
    ] {
        let config = authority.client_with(&[version], &[], own);
        let mut storm = Storm::new(stage(&authority, signed(&authority)), &config);
        storm.greet();
        let is_shown = own.is_some();
        assert_eq!(storm.rush(Peer::said, ended), (steps, waited), "{version:?} {is_shown} {opens}");
        let counters = storm.stage.shard.counters();
        let all = if opens { counters.tls_opened } else { counters.tls_failed };
        assert_eq!(all, CROWD as u64);
    }
}

/// What a client has shown in an earlier session is judged with its hello, and not answered where it is not good any more.
#[test]
fn certificates_of_sessions_that_may_not_be_resumed_count() {
    let (authority, other) = (Authority::new(), Authority::new());
    let own = authority.issue("client", &["client.test"]);
    let before =
        ServerConfig::new(&options(signed(&authority)), vec![identity(&authority)]).expect("a server");
    let config = authority.client_with(&[&TLS12], &[], Some(&own));
    let mut stage = stage_of(before.clone());
    assert_eq!(Peer::status(&mut stage, &config, "/wanted", ""), "101");
    // Judged by others it is as good as expired.
    let now = before.succeeded_by(&options(signed(&other)), vec![identity(&authority)]).expect("a server");
    let mut storm = Storm::new(stage_of(now), &config);
    assert_eq!(storm.rush(Peer::said, ended), (vec![8; 5], 32));
    assert_eq!(storm.stage.shard.counters().tls_failed, CROWD as u64);
    for peer in &mut storm.crowd {
        let heard = peer.hear(&storm.stage);
        assert_eq!(heard, Err(rustls::Error::AlertReceived(AlertDescription::UnknownCA)));
    }
}

/// What is behind the certificate may come later, or never.
#[test]
fn certificates_that_come_alone_count() {
    let authority = Authority::new();
    let own = authority.issue("client", &["client.test"]);
    let config = authority.client_with(&[&TLS12], &[], Some(&own));
    let mut storm = Storm::new(stage(&authority, signed(&authority)), &config);
    storm.greet();
    // TLS 1.2 has it in the clear: the flight's first record. As long as a byte of it is missing it takes no time.
    let mut last = Vec::new();
    let most = |peer: &mut Peer| {
        let said = peer.said();
        let len = 5 + usize::from(u16::from_be_bytes([said[3], said[4]]));
        assert!((said[0], said[5]) == (22, 11) && len < said.len(), "a certificate, and more behind it");
        last.push(said[len - 1]);
        said[..len - 1].to_vec()
    };
    assert_eq!(storm.rush(most, ended), (vec![], 0));
    let mut last = last.into_iter();
    assert_eq!(storm.rush(|_| last.by_ref().take(1).collect(), ended), (vec![], 32));
}

/// A browser shows its user's certificate, whichever page asks.
#[test]
fn pages_of_other_origins_are_refused_where_a_certificate_counts() {
    let authority = Authority::new();
    let own = authority.issue("client", &["client.test"]);
    let config = authority.client_with(&[&TLS13], &[], Some(&own));
    let mut stage = stage(&authority, signed(&authority));
    for (path, origin, expected) in [
        ("/r", "https://page.test", "403"),
        ("/r", "https://gw.test", "101"),
        ("/any", "https://page.test", "403"),
        ("/any", "https://gw.test", "101"),
        ("/wanted", "https://page.test", "403"),
        ("/wanted", "http://gw.test", "403"),
        ("/wanted", "https://gw.test", "101"),
        ("/listed", "https://page.test", "101"),
        ("/listed", "https://other.test", "403"),
    ] {
        let fields = format!("Origin: {origin}\r\n");
        assert_eq!(Peer::status(&mut stage, &config, path, &fields), expected, "{path} from {origin}");
    }
    // Nor does a page gain anything by a browser that has no certificate.
    let unknown = authority.client_with(&[&TLS13], &[], None);
    assert_eq!(Peer::status(&mut stage, &unknown, "/r", "Origin: https://page.test\r\n"), "101");
    // Who has no origin is no browser.
    assert_eq!(Peer::status(&mut stage, &config, "/wanted", ""), "101");
}

/// The kernel had let them in when the gateway was told to end; of the rest of a handshake nobody waits longer than of a Close.
#[test]
fn who_says_nothing_while_the_gateway_ends_does_not_hold_it_up() {
    let authority = Authority::new();
    let server = ServerConfig::new(&ServerOptions::default(), vec![identity(&authority)]).expect("a server");
    let limits = "[limits]\nhead_timeout = \"1m\"\nclose_timeout = \"2s\"\n";
    let pace =
        Pace { code: CloseCode::GOING_AWAY, window_ms: 1_000, deadline_ms: 2_000, reconnect_delay_ms: 0 };
    let int = || Mail::Drain(CloseCode::GOING_AWAY);
    let term = || Mail::Depart(Departure { whom: Whom::All, pace: pace.clone() });
    for (says, order) in [
        ("nothing", int()),
        ("a part", int()),
        ("a hello", int()),
        ("all", int()),
        ("nothing", term()),
        ("a part", term()),
        ("a hello", term()),
    ] {
        let mut stage = Stage::of(&format!("{limits}{ROUTES}{LISTENER}"), 1);
        stage.shard.listen_tls(TLS, (), server.clone()).expect("it takes all");
        stage.sender.order(order);
        stage.world.borrow_mut().complete(Event::Woken);
        // What was in the queue comes with the next turn.
        assert_eq!(stage.turn(), Progress::Running);
        let mut peer = if says == "all" {
            Peer::secured(&mut stage, &authority.client())
        } else {
            Peer::connect(&mut stage, &authority.client())
        };
        if matches!(says, "a part" | "a hello") {
            let hello = peer.said();
            stage.send(peer.socket, if says == "a part" { &hello[..100] } else { &hello });
        }
        if says == "all" {
            // The end of its handshake.
            let said = peer.said();
            stage.send(peer.socket, &said);
            let answer = peer.read(&stage);
            assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("shutting down"), "{answer:?}");
        }
        assert_eq!(stage.down(peer.socket), None, "{says}: it may go on");
        stage.pass(3);
        assert!(stage.down(peer.socket).is_some(), "{says}: it may not take all of head_timeout");
        assert_eq!(stage.turn(), Progress::Ended, "{says}");
    }
}
