//! The PROXY header before a connection: who has to send one, what it changes, and how a wrong one ends.

mod stage;

use std::net::SocketAddr;

use tidegate_io::ListenerId;

use crate::stage::{Socket, Stage, frame};

const LINE: &[u8] = b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 443\r\n";
const REQUEST: &[u8] = b"GET /r HTTP/1.1\r\nHost: gw.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

fn stage(route: &str) -> Stage {
    let config = format!("trusted = [\"203.0.113.7\"]\n[[route]]\npath = \"/r\"\n{route}\n");
    Stage::listening(&config, "proxy_protocol = [\"10.0.0.0/8\", \"fd00::/8\"]", 1)
}

fn from(stage: &mut Stage, peer: &str) -> Socket {
    let peer: SocketAddr = peer.parse().expect("an address");
    stage.accept_from(ListenerId(0), Some(peer))
}

fn starts_with(stage: &Stage, socket: Socket, text: &str) -> bool {
    stage.sent(socket).starts_with(text.as_bytes())
}

#[test]
fn what_is_behind_the_header_is_read_wherever_it_was_cut() {
    let all = [LINE, REQUEST, &frame(0x81, b"hello", true)].concat();
    for at in 1..all.len() {
        let mut stage = stage("echo = {}");
        let client = from(&mut stage, "10.0.0.9:1");
        stage.send(client, &all[..at]);
        if at < LINE.len() {
            assert!(stage.sent(client).is_empty(), "cut at {at}");
        }
        stage.send(client, &all[at..]);
        assert!(starts_with(&stage, client, "HTTP/1.1 101"), "cut at {at}: {:?}", stage.log.borrow());
        assert!(stage.sent(client).ends_with(&frame(0x81, b"hello", false)), "cut at {at}");
    }
}

#[test]
fn the_address_in_it_is_the_clients_for_upstreams_and_for_trust() {
    let mut stage = stage("proxy = { upstreams = [\"ws://127.0.0.1:9\"] }");
    let mut heard = Vec::new();
    for line in [LINE, b"PROXY TCP4 198.51.100.1 10.0.0.1 1 2\r\n", b"PROXY UNKNOWN\r\n"] {
        let client = from(&mut stage, "10.0.0.9:1");
        let claim = "X-Forwarded-For: 192.0.2.55\r\n\r\n";
        let request = String::from_utf8_lossy(REQUEST).replacen("\r\n\r\n", &format!("\r\n{claim}"), 1);
        stage.send(client, &[line, request.as_bytes()].concat());
        let upstream = client + 1;
        stage.connect(upstream);
        let request = String::from_utf8(stage.sent(upstream)).expect("text");
        heard
            .push(request.lines().find_map(|line| line.strip_prefix("X-Forwarded-For: ")).map(str::to_owned));
    }
    let expected = ["192.0.2.55, 203.0.113.7", "198.51.100.1", "10.0.0.9"];
    assert_eq!(heard, expected.map(|text| Some(text.to_owned())));
}

#[test]
fn from_elsewhere_it_is_no_header_but_a_bad_request() {
    for peer in ["11.0.0.9:1", "[fe80::1]:1"] {
        let mut stage = stage("echo = {}");
        let client = from(&mut stage, peer);
        stage.send(client, &[LINE, REQUEST].concat());
        assert!(starts_with(&stage, client, "HTTP/1.1 400"), "{peer}");
    }
    let mut stage = stage("echo = {}");
    let client = from(&mut stage, "11.0.0.9:1");
    stage.send(client, REQUEST);
    assert!(starts_with(&stage, client, "HTTP/1.1 101"));
}

#[test]
fn a_wrong_header_ends_the_connection_without_a_word() {
    let long = [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff", &[b'x'; 1000][..]].concat();
    for bytes in [
        &[b"PROXY TCP4 999.1.1.1 10.0.0.1 1 2\r\n", REQUEST].concat()[..],
        // Required where the peer is trusted.
        REQUEST,
        b"\x16\x03\x01",
        &long,
    ] {
        let mut stage = stage("echo = {}");
        let client = from(&mut stage, "10.0.0.9:1");
        stage.send(client, bytes);
        assert!(stage.sent(client).is_empty());
        assert!(stage.socket(client, |kernel| kernel.fin), "a FIN, and no reset over what was sent");
        assert_eq!(stage.shard.counters().proxy_headers_refused, 1);
        assert!(stage.log.borrow().iter().any(|line| line.starts_with("connection refused reason=")));
        // What still comes is discarded.
        stage.send(client, REQUEST);
        assert!(stage.sent(client).is_empty());
        stage.pass(6);
        assert_eq!(stage.shard.inspect().slots, 0);
    }
}

#[test]
fn a_header_has_the_heads_time() {
    let mut stage = stage("echo = {}");
    let (silent, half) = (from(&mut stage, "10.0.0.9:1"), from(&mut stage, "10.0.0.9:2"));
    stage.send(half, &LINE[..10]);
    stage.pass(9);
    assert!(!stage.socket(silent, |kernel| kernel.fin));
    stage.pass(2);
    for socket in [silent, half] {
        assert!(stage.sent(socket).is_empty() && stage.socket(socket, |kernel| kernel.fin));
    }
    // It counts for the whole: the request does not get another.
    let late = from(&mut stage, "10.0.0.9:3");
    stage.pass(9);
    stage.send(late, &[LINE, &REQUEST[..9]].concat());
    stage.pass(2);
    assert!(starts_with(&stage, late, "HTTP/1.1 408"));
}

#[test]
fn who_has_sent_half_a_header_is_only_cut_off_when_the_gateway_drains() {
    let mut stage = stage("echo = {}");
    let half = from(&mut stage, "10.0.0.9:2");
    stage.send(half, &LINE[..10]);
    stage.drain();
    assert!(stage.sent(half).is_empty());
    assert_eq!(stage.down(half), Some(false));
}

#[cfg(feature = "record-transport")]
#[test]
fn the_header_is_read_before_the_transport() {
    // The first listener's place is the plain one's: a second that has records has the same networks.
    let config = "[[route]]\npath = \"/r\"\necho = {}\n[[listener]]\nbind = \"127.0.0.1:2\"\n";
    let lines = "proxy_protocol = [\"10.0.0.0/8\"]";
    let mut stage = Stage::listening(config, lines, 1);
    let client = stage.accept_from(stage::RECORDS, "10.0.0.9:1".parse().ok());
    stage.send(client, LINE);
    // No record: it is opened as one, behind the header.
    stage.send(client, REQUEST);
    assert!(stage.sent(client).is_empty());
    assert_eq!(stage.down(client), Some(true));
    assert_eq!(stage.shard.counters().proxy_headers_refused, 0);
}
