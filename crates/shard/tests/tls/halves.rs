//! Half records: they count as what is not complete does, and end where that uses memory up.

use std::sync::Arc;

use rustls::{ClientConfig, ServerConnection, version::TLS13};
use tidegate_io::{Event, ReceiveEnd};
use tidegate_tls::{ClientOptions, Clients, ServerConfig, Trust};

use crate::{
    Peer,
    certificates::Authority,
    identity, options,
    stage::{Stage, close_frame, frame},
    stage_with,
};

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
        let mut stage = crate::stage(&authority, Clients::Anyone);
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
        stage.connect(upstream);
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
