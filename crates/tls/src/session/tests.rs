//! Two sessions against each other: what one sealed the other opens, whatever lies between.

use std::{fs, path::PathBuf, time::SystemTime};

use proptest::prelude::*;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use super::*;
use crate::{Cause, ClientOptions, Identity, ServerOptions, Trust};

/// An authority, and a server that it vouches for as `localhost`.
struct World {
    folder: tempfile::TempDir,
    server: ServerConfig,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority_key = KeyPair::generate().unwrap();
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_certificate = authority.self_signed(&authority_key).unwrap();
        let issuer = Issuer::new(authority, authority_key);
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
        let leaf = leaf.signed_by(&key, &issuer).unwrap();
        for (name, text) in [
            ("ca.pem", authority_certificate.pem()),
            ("chain.pem", leaf.pem()),
            ("key.pem", key.serialize_pem()),
        ] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let identity =
            Identity::from_pem(leaf.pem().as_bytes(), key.serialize_pem().as_bytes(), SystemTime::now());
        let options = ServerOptions { alpn: vec![b"http/1.1".to_vec()], ..ServerOptions::default() };
        let server = ServerConfig::new(&options, vec![identity.unwrap()]).unwrap();
        Self { folder, server }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn client(&self) -> ClientConfig {
        client(Trust::File(self.path("ca.pem")))
    }

    fn pair(&self, client: &ClientConfig, host: &str) -> Pair {
        Pair {
            client: Session::client(client, host).unwrap(),
            server: Session::server(&self.server),
            client_read: Vec::new(),
            server_read: Vec::new(),
        }
    }
}

fn client(trust: Trust) -> ClientConfig {
    ClientConfig::new(&ClientOptions { trust, alpn: vec![b"http/1.1".to_vec()], resumes: true }).unwrap()
}

/// Two sessions, and what each of them has read.
struct Pair {
    client: Session,
    server: Session,
    client_read: Vec<u8>,
    server_read: Vec<u8>,
}

/// Moves what one has to send to the other, in pieces; whether there was anything.
fn carry(from: &mut Session, to: &mut Session, read: &mut Vec<u8>, piece: usize) -> Result<bool, Error> {
    let bytes = from.poll_transmit().to_vec();
    for piece in bytes.chunks(piece) {
        from.handle_sent(piece.len());
        to.handle_ciphertext(&mut piece.to_vec(), read)?;
    }
    Ok(!bytes.is_empty())
}

impl Pair {
    /// Until neither has anything to send.
    fn settle(&mut self, piece: usize) -> Result<(), Error> {
        loop {
            let there = carry(&mut self.client, &mut self.server, &mut self.server_read, piece)?;
            let back = carry(&mut self.server, &mut self.client, &mut self.client_read, piece)?;
            if !there && !back {
                return Ok(());
            }
        }
    }
}

#[test]
fn any_split_gives_the_same_plaintext_both_ways_and_nothing_is_held_then() {
    let world = World::new();
    let config = world.client();
    for piece in [1, 2, 5, 6, 100, 1500, 17_000, 1 << 20] {
        let mut pair = world.pair(&config, "localhost");
        pair.settle(piece).unwrap();
        assert!(pair.client.is_open() && pair.server.is_open());
        assert_eq!(
            (pair.client.alpn(), pair.server.alpn()),
            (Some(&b"http/1.1"[..]), Some(&b"http/1.1"[..]))
        );
        for len in [0, 1, 100, 16_384, 16_385, 200_000] {
            let (there, back): (Vec<u8>, Vec<u8>) = ((0..len).map(|n| n as u8).collect(), vec![7; len]);
            pair.client.seal(&there).unwrap();
            pair.server.seal(&back).unwrap();
            pair.settle(piece).unwrap();
            assert!(pair.server_read == there && pair.client_read == back, "{len} by {piece}");
            pair.server_read.clear();
            pair.client_read.clear();
        }
        assert_eq!((pair.client.buffered_bytes(), pair.server.buffered_bytes()), (0, 0), "by {piece}");
    }
}

/// What rustls takes for a connection is there with its first byte.
#[test]
fn a_server_that_has_heard_nothing_is_small_and_neither_open_nor_done() {
    let world = World::new();
    let mut server = Session::server(&world.server);
    assert!(size_of_val(&server) <= 128 && matches!(server.connection, Connection::Silent(_)));
    assert!(server.is_handshaking() && !server.is_open());
    assert_eq!(
        (server.suite(), server.is_resumed(), server.alpn(), server.buffered_bytes()),
        (None, None, None, 0)
    );
    assert!(server.seal(b"too early").is_err());
    server.handle_ciphertext(&mut [], &mut Vec::new()).unwrap();
    assert!(server.close().is_ok() && server.poll_transmit().is_empty());
    assert!(matches!(server.connection, Connection::Silent(_)), "nothing came");
    server.handle_ciphertext(&mut [22], &mut Vec::new()).unwrap();
    assert!(matches!(server.connection, Connection::Server(_)));
}

#[test]
fn what_was_not_taken_is_given_again() {
    let world = World::new();
    let mut pair = world.pair(&world.client(), "localhost");
    pair.settle(1000).unwrap();
    pair.client.seal(b"first").unwrap();
    let whole = pair.client.poll_transmit().to_vec();
    pair.client.handle_sent(3);
    assert_eq!(pair.client.poll_transmit(), &whole[3..]);
    pair.client.seal(b" second").unwrap();
    assert!(pair.client.poll_transmit().starts_with(&whole[3..]));
    pair.server.handle_ciphertext(&mut whole[..3].to_vec(), &mut pair.server_read).unwrap();
    assert!(pair.server.buffered_bytes() > 0);
    pair.settle(1000).unwrap();
    assert_eq!(pair.server_read, b"first second");
}

#[test]
fn one_can_seal_while_a_record_has_come_in_part() {
    let world = World::new();
    let mut pair = world.pair(&world.client(), "localhost");
    pair.settle(1000).unwrap();
    pair.server.seal(b"from the server").unwrap();
    let mut bytes = pair.server.poll_transmit().to_vec();
    pair.server.handle_sent(bytes.len());
    let (front, rest) = bytes.split_at_mut(9);
    pair.client.handle_ciphertext(front, &mut pair.client_read).unwrap();
    pair.client.seal(b"from the client").unwrap();
    pair.settle(4).unwrap();
    pair.client.handle_ciphertext(rest, &mut pair.client_read).unwrap();
    assert_eq!((&*pair.client_read, &*pair.server_read), (&b"from the server"[..], &b"from the client"[..]));
}

#[test]
fn rfc8446_6_1_each_side_says_that_it_is_done() {
    let world = World::new();
    let mut pair = world.pair(&world.client(), "localhost");
    pair.settle(1000).unwrap();
    pair.server.seal(b"the last").unwrap();
    pair.server.close().unwrap();
    pair.server.close().unwrap();
    assert!(pair.server.seal(b"x").is_err_and(|error| error.cause() == Cause::Caller));
    pair.settle(1000).unwrap();
    assert_eq!(pair.client_read, b"the last");
    assert!(pair.client.peer_has_closed() && !pair.server.peer_has_closed());
    // The other direction is still open (RFC 8446 §6.1).
    pair.client.seal(b"an answer").unwrap();
    pair.client.close().unwrap();
    pair.settle(1000).unwrap();
    assert_eq!(pair.server_read, b"an answer");
    assert!(pair.server.peer_has_closed());
    // What comes then is not looked at.
    pair.client.handle_ciphertext(&mut b"no TLS".to_vec(), &mut pair.client_read).unwrap();
}

#[test]
fn only_the_trusted_are_trusted_and_only_for_their_name() {
    let world = World::new();
    let stranger = World::new();
    let trusted = world.client();
    for (config, host, is_good) in [
        (&trusted, "localhost", true),
        (&trusted, "127.0.0.1", true),
        (&trusted, "example.com", false),
        (&stranger.client(), "localhost", false),
        (&client(Trust::Nothing), "example.com", true),
    ] {
        let mut pair = world.pair(config, host);
        let client_verdict = pair.settle(1000);
        if is_good {
            client_verdict.unwrap();
            assert!(pair.client.is_open() && pair.server.is_open(), "{host}");
            continue;
        }
        let error = client_verdict.unwrap_err();
        assert_eq!(error.cause(), Cause::Certificate, "{error}");
        assert!(!pair.client.is_open());
        // And the server is told.
        let error = pair.settle(1000).unwrap_err();
        assert!(matches!(error.cause(), Cause::Alert(_)), "{error}");
    }
}

#[test]
fn what_is_not_tls_is_the_peers_fault() {
    let world = World::new();
    let config = world.client();
    for answer in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], &[0; 100], &[22, 3, 3, 255, 255, 0]] {
        let mut session = Session::client(&config, "localhost").unwrap();
        let error = session.handle_ciphertext(&mut answer.to_vec(), &mut Vec::new()).unwrap_err();
        assert_eq!(error.cause(), Cause::Peer, "{error}");
        assert!(session.seal(b"x").is_err());
    }
}

#[test]
fn the_second_session_resumes_the_first_unless_told_not_to() {
    let world = World::new();
    let trust = Trust::File(world.path("ca.pem"));
    for resumes in [true, false] {
        let options = ClientOptions { trust: trust.clone(), alpn: Vec::new(), resumes };
        let config = ClientConfig::new(&options).unwrap();
        let mut kinds = Vec::new();
        for _ in 0..2 {
            let mut pair = world.pair(&config, "localhost");
            assert_eq!(pair.client.is_resumed(), None);
            pair.settle(1000).unwrap();
            kinds.push(pair.client.is_resumed());
            assert_eq!(pair.client.suite(), Some(("TLSv1_3", "TLS13_AES_128_GCM_SHA256")));
        }
        assert_eq!(kinds, [Some(false), Some(resumes)]);
    }
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let world = World::new();
    fs::write(world.path("empty.pem"), "nothing\n").unwrap();
    for name in ["missing.pem", "empty.pem", "key.pem"] {
        let options =
            ClientOptions { trust: Trust::File(world.path(name)), alpn: Vec::new(), resumes: false };
        let error = ClientConfig::new(&options).unwrap_err();
        assert_eq!(error.cause(), Cause::Caller);
        assert!(error.to_string().contains(name), "{error}");
    }
    assert!(Session::client(&world.client(), "no name").is_err_and(|error| error.cause() == Cause::Caller));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is changed on the way, nobody panics, and what is read is what was sealed: all of it, or what came before
    /// an error, or before a record that has not come whole (its length was changed).
    #[test]
    fn with_a_bit_changed_what_was_sealed_is_read_or_an_error(
        at in 0usize..2500, bit in 0u8..8, is_to_client: bool,
    ) {
        let world = World::new();
        let mut pair = world.pair(&world.client(), "localhost");
        let (there, back) = (vec![b'>'; 300], vec![b'<'; 300]);
        let (mut client_has_sealed, mut server_has_sealed) = (false, false);
        let mut passed = 0;
        let mut verdict = Ok(());
        while verdict.is_ok() {
            let mut has_moved = false;
            for to_client in [false, true] {
                let (from, to, read) = if to_client {
                    (&mut pair.server, &mut pair.client, &mut pair.client_read)
                } else {
                    (&mut pair.client, &mut pair.server, &mut pair.server_read)
                };
                let (text, has_sealed) =
                    if to_client { (&back, &mut server_has_sealed) } else { (&there, &mut client_has_sealed) };
                if from.is_open() && !*has_sealed {
                    from.seal(text).unwrap();
                    *has_sealed = true;
                }
                let mut bytes = from.poll_transmit().to_vec();
                from.handle_sent(bytes.len());
                has_moved |= !bytes.is_empty();
                if to_client == is_to_client {
                    if let Some(byte) = at.checked_sub(passed).and_then(|at| bytes.get_mut(at)) {
                        *byte ^= 1 << bit;
                    }
                    passed += bytes.len();
                }
                verdict = to.handle_ciphertext(&mut bytes, read);
                if verdict.is_err() {
                    break;
                }
            }
            if !has_moved {
                break;
            }
        }
        prop_assert!(there.starts_with(&pair.server_read) && back.starts_with(&pair.client_read));
        let is_all = pair.server_read == there && pair.client_read == back;
        let waits = !(if is_to_client { &pair.client } else { &pair.server }).incoming.is_empty();
        prop_assert!(is_all || verdict.is_err() || waits, "{} and {}", pair.server_read.len(), pair.client_read.len());
        // Where nothing was changed, nothing else will do.
        prop_assert!(is_all || at < passed);
    }
}
