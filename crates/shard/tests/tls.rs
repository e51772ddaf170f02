//! TLS in a shard that a test plays by hand: how many handshakes a turn has room for, and who may come by a certificate.

// Shared with the gateway's tests.
#[allow(dead_code)]
#[path = "../../gateway/tests/harness/certificates.rs"]
mod certificates;

mod stage;

use std::{fs, sync::Arc, time::SystemTime};

use rustls::{
    AlertDescription, ClientConfig, ClientConnection, ServerConnection,
    pki_types::ServerName,
    version::{TLS12, TLS13},
};
use tidegate_io::{Event, ListenerId, ReceiveEnd};
use tidegate_tls::{Authorities, ClientOptions, Clients, Identity, ServerConfig, ServerOptions, Trust};

use crate::{
    certificates::Authority,
    stage::{Socket, Stage, close_frame, frame, request},
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

    /// The status of the answer to a request with these fields.
    fn status(stage: &mut Stage, config: &Arc<ClientConfig>, path: &str, fields: &str) -> String {
        Peer::ask(stage, config, path, fields).1
    }

    /// Asks for a session; the answer's status.
    fn ask(stage: &mut Stage, config: &Arc<ClientConfig>, path: &str, fields: &str) -> (Peer, String) {
        let mut peer = Peer::connect(stage, config);
        while peer.connection.is_handshaking() {
            let said = peer.said();
            stage.send(peer.socket, &said);
            peer.hear(stage).expect("a handshake");
        }
        let sealed = peer.sealed(&request(path, fields));
        stage.send(peer.socket, &sealed);
        let answer = peer.heard(stage);
        let status = String::from_utf8_lossy(&answer[9..12]).into_owned();
        (peer, status)
    }

    /// Records with these bytes.
    fn sealed(&mut self, bytes: &[u8]) -> Vec<u8> {
        std::io::Write::write_all(&mut self.connection.writer(), bytes).expect("room");
        self.said()
    }

    /// The bytes that it was sent.
    fn heard(&mut self, stage: &Stage) -> Vec<u8> {
        self.hear(stage).expect("an answer");
        let mut heard = Vec::new();
        // It says that nothing more is there for now.
        let _ = std::io::Read::read_to_end(&mut self.connection.reader(), &mut heard);
        heard
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

/// Bytes of a record that is longer.
const HALF: usize = 12_000;

/// A connection that has sent half a record: the first one of its handshake, or one with a message.
fn half(stage: &mut Stage, config: &Arc<ClientConfig>, way: &str) -> (Peer, Vec<u8>) {
    let (mut peer, bytes) = match way {
        "hello" => {
            let hello = [&[22, 3, 1, 0x3f, 0xff][..], &[0; 0x3fff]].concat();
            (Peer::connect(stage, config), hello)
        }
        _ => {
            let (mut peer, status) = Peer::ask(stage, config, "/r", "");
            assert_eq!(status, "101");
            let sealed = peer.sealed(&frame(0x82, &[7; 16_000], true));
            (peer, sealed)
        }
    };
    let (first, rest) = bytes.split_at(HALF);
    stage.send(peer.socket, first);
    // An answer to half a record would be one to nothing.
    assert_eq!(peer.heard(stage), b"");
    (peer, rest.to_vec())
}

#[test]
fn half_a_record_counts_until_it_is_whole_or_its_connection_ends() {
    let authority = Authority::new();
    let config = authority.client_with(&[&TLS13], &[], None);
    for (way, how) in [
        ("hello", "whole"),
        ("hello", "reset"),
        ("hello", "time"),
        ("record", "whole"),
        ("record", "reset"),
        ("record", "drain"),
    ] {
        let mut stage = stage(&authority, Clients::Anyone);
        let (peer, rest) = half(&mut stage, &config, way);
        let seen = stage.shard.inspect();
        assert_eq!(seen.retained, seen.retained_sum, "{way}");
        let held = stage.plan.retained_bytes();
        assert!((HALF..2 * HALF).contains(&held), "{way}: {held} bytes");
        match how {
            "whole" => stage.send(peer.socket, &rest),
            "time" => stage.pass(31),
            "drain" => {
                stage.drain();
                stage.pass(12);
            }
            _ => {
                let token = stage.socket(peer.socket, |kernel| kernel.receive.take()).expect("it is read");
                stage.world.borrow_mut().complete(Event::ReceiveEnded { token, end: ReceiveEnd::Error(104) });
                stage.turns(4);
            }
        }
        let seen = stage.shard.inspect();
        assert_eq!((seen.retained, seen.retained_sum), (0, 0), "{way}, {how}");
        let answered = u64::from((way, how) == ("record", "whole"));
        assert_eq!(stage.shard.counters().messages, answered, "{way}, {how}");
    }
}

#[test]
fn half_records_end_where_they_use_memory_up_those_first_that_have_held_them_the_longest() {
    const MEMORY: usize = 1 << 20;
    let authority = Authority::new();
    let config = authority.client_with(&[&TLS13], &[], None);
    for way in ["hello", "record"] {
        let server = ServerConfig::new(&options(Clients::Anyone), vec![identity(&authority)]);
        let limits = "memory = \"1MiB\"\n[topics]\nmemory = \"1MiB\"";
        let mut stage = stage_with(limits, server.expect("a server"));
        // Half a message, older than all.
        let modest = stage.open();
        stage.send(modest, &frame(0x82, &vec![7; 4_000], true)[..2_000]);
        let mut halves = Vec::new();
        for _ in 0..95 {
            stage.world.borrow_mut().now_ms += 20;
            halves.push(half(&mut stage, &config, way).0.socket);
            let bytes = stage.plan.retained_bytes();
            assert!(bytes < MEMORY + 4 * HALF, "{way}: {bytes} bytes");
        }
        let ended = halves.iter().take_while(|&&socket| stage.down(socket) == Some(true)).count();
        assert!((1..60).contains(&ended), "{way}: {ended}, the oldest ones");
        assert!(halves[ended..].iter().all(|&socket| stage.down(socket).is_none()), "{way}");
        assert_eq!((stage.sent(modest), stage.down(modest)), (Vec::new(), None), "{way}");
        let seen = stage.shard.inspect();
        assert_eq!(seen.retained, seen.retained_sum, "{way}");
    }
}

/// Who holds more of a message than of a record is told why it ends.
#[test]
fn half_messages_over_tls_end_with_a_close() {
    let authority = Authority::new();
    let config = authority.client_with(&[&TLS13], &[], None);
    let server = ServerConfig::new(&options(Clients::Anyone), vec![identity(&authority)]);
    let limits = "memory = \"1MiB\"\n[topics]\nmemory = \"1MiB\"";
    let mut stage = stage_with(limits, server.expect("a server"));
    let mut peers: Vec<Peer> = (0..3)
        .map(|_| {
            stage.world.borrow_mut().now_ms += 20;
            let (mut peer, _) = Peer::ask(&mut stage, &config, "/r", "");
            for part in frame(0x82, &vec![7; 900 << 10], true)[..450 << 10].chunks(30 << 10) {
                let sealed = peer.sealed(part);
                if stage.socket(peer.socket, |kernel| kernel.receive.is_some()) {
                    stage.send(peer.socket, &sealed);
                }
            }
            peer
        })
        .collect();
    let closed = close_frame(1013, "the gateway's memory is used up");
    let ended: Vec<bool> = peers.iter_mut().map(|peer| peer.heard(&stage) == closed).collect();
    assert!(ended[0] && ended.contains(&false), "{ended:?}");
}

/// What an upstream sends with its 101 is held of a leg that becomes one of a pair with these bytes.
#[test]
fn half_a_record_of_an_upstream_counts_from_its_101_on() {
    let authority = Authority::new();
    let own = authority.issue("upstream", &["upstream.test"]);
    let mut stage =
        Stage::of("[[route]]\npath = \"/r\"\nproxy = { upstreams = [\"ws://127.0.0.1:1\"] }\n", 1);
    let wss = "version = 1\n[[listener]]\nbind = \"127.0.0.1:1\"\n[[route]]\npath = \"/r\"\n\
               proxy = { upstreams = [\"wss://127.0.0.1:1\"], tls = { server_name = \"upstream.test\" } }\n";
    let wss = tidegate_config::parse(wss, "test.toml").unwrap_or_else(|problems| panic!("{problems:#?}"));
    let options = ClientOptions { trust: Trust::Nothing, alpn: Vec::new(), resumes: false };
    let towards = tidegate_tls::ClientConfig::new(&options).expect("a client");
    let plan = stage.plan.next_with_clients(wss, &[Some(towards)]);
    stage.adopt_plan(plan.expect("it can follow"));
    for how in ["whole", "reset"] {
        let client = stage.client("");
        let upstream = client + 1;
        let token = stage.socket(upstream, |kernel| kernel.connect.take()).expect("it is dialed");
        stage.world.borrow_mut().complete(Event::Connected { token, errno: 0 });
        stage.turns(3);
        let mut server = ServerConnection::new(authority.server(&own, false)).expect("a server");
        let mut asked = Vec::new();
        while asked.is_empty() {
            let sent = stage.socket(upstream, |kernel| std::mem::take(&mut kernel.sent));
            let mut rest = &sent[..];
            while !rest.is_empty() {
                server.read_tls(&mut rest).expect("a slice");
                server.process_new_packets().expect("a client");
            }
            let _ = std::io::Read::read_to_end(&mut server.reader(), &mut asked);
            let mut said = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut said).expect("a vector takes all");
            }
            stage.send(upstream, &said);
        }
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Accept: ICX+Yqv66kxgM0FcWaLWlFLwTAI=\r\n\r\n";
        let mut said = Vec::new();
        for bytes in [&answer[..], &frame(0x82, &[7; 16_000], false)] {
            std::io::Write::write_all(&mut server.writer(), bytes).expect("room");
            server.write_tls(&mut said).expect("a vector takes all");
        }
        stage.send(upstream, &said[..HALF]);
        assert!(stage.sent(client).starts_with(b"HTTP/1.1 101 "));
        let seen = stage.shard.inspect();
        assert_eq!((seen.retained, seen.pairs), (seen.retained_sum, 1));
        assert!(stage.plan.retained_bytes() >= HALF - 1_000, "{}", stage.plan.retained_bytes());
        if how == "whole" {
            stage.send(upstream, &said[HALF..]);
            assert!(stage.sent(client).ends_with(&frame(0x82, &[7; 16_000], false)));
        }
        let token = stage.socket(upstream, |kernel| kernel.receive.take()).expect("it is read");
        stage.world.borrow_mut().complete(Event::ReceiveEnded { token, end: ReceiveEnd::Error(104) });
        stage.turns(4);
        let seen = stage.shard.inspect();
        assert_eq!((seen.retained, seen.retained_sum), (0, 0), "{how}");
    }
}
