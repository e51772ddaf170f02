//! Context takeover: whose window is whose, and what it may cost.

use tidegate_wire::Role;
use tidegate_wire::deflate::{CodecLimits, Codecs, Compression, InflateError};
use tidegate_wire::extension::DeflateParams;

use crate::{LARGE, Receiver, codecs, hex, noise, params};

#[test]
fn a_session_without_takeover_is_small() {
    assert!(size_of::<Compression>() <= 24, "{}", size_of::<Compression>());
    assert!(size_of::<tidegate_wire::deflate::Inflation>() <= size_of::<usize>());
    assert_eq!(size_of::<Option<Compression>>(), size_of::<Compression>());
    let mut codecs = codecs();
    let sessions: Vec<_> =
        (0..1000).map(|_| Compression::new(DeflateParams::default(), Role::Server, &mut codecs)).collect();
    assert!(sessions.iter().all(|session| session.retained_bytes() == 0));
    assert_eq!(codecs.stats(), Codecs::new(CodecLimits::default()).stats());
}

#[test]
fn each_direction_takes_over_as_agreed() {
    let message = noise(300, 1);
    for server in [false, true] {
        for client in [false, true] {
            let agreed = DeflateParams {
                server_no_context_takeover: !server,
                client_no_context_takeover: !client,
                ..params(true, 15)
            };
            for (role, expected) in [(Role::Server, server), (Role::Client, client)] {
                let mut codecs = codecs();
                let mut sender = Compression::new(agreed, role, &mut codecs);
                let mut sizes = [0; 2];
                for size in &mut sizes {
                    let mut out = Vec::new();
                    sender.deflate(&mut codecs, &message, &mut out);
                    *size = out.len();
                }
                assert_eq!(sizes[1] < sizes[0] / 4, expected, "{agreed:?} {role:?}: {sizes:?}");
            }
        }
    }
}

#[test]
fn after_a_shared_message_nothing_is_looked_back_at() {
    let mut codecs = codecs();
    let mut sender = Compression::new(params(true, 15), Role::Server, &mut codecs);
    let mut receiver = Compression::new(params(true, 15), Role::Client, &mut codecs);
    let own = noise(300, 1);
    let mut deflated = Vec::new();
    for _ in 0..2 {
        deflated.clear();
        sender.deflate(&mut codecs, &own, &mut deflated);
    }
    assert!(deflated.len() < 30, "taken over");
    sender.reset_deflater();
    sender.reset_deflater();
    deflated.clear();
    sender.deflate(&mut codecs, &own, &mut deflated);
    assert!(deflated.len() > 300, "reset");
    // Nobody who has not seen the messages before needs them.
    let mut out = Vec::new();
    codecs.inflate_whole(&mut receiver, &deflated, &mut out, LARGE).expect("self-contained");
    assert_eq!(out, own);
    deflated.clear();
    sender.deflate(&mut codecs, &own, &mut deflated);
    assert!(deflated.len() < 30, "taken over again");
}

#[test]
fn takeover_is_paid_from_the_budget_and_given_back() {
    let one = {
        let mut codecs = codecs();
        let session = Compression::new(params(true, 15), Role::Server, &mut codecs);
        assert_eq!(codecs.stats().takeover_bytes, session.retained_bytes());
        session.retained_bytes()
    };
    let mut codecs = Codecs::new(CodecLimits { takeover_bytes: 2 * one, ..CodecLimits::default() });
    assert!(codecs.takeover_available());
    let first = Compression::new(params(true, 15), Role::Server, &mut codecs);
    assert!(codecs.takeover_available());
    let second = Compression::new(params(true, 15), Role::Server, &mut codecs);
    assert!(!codecs.takeover_available());

    // Agreed before the budget was gone: what the peer may look back at is kept, the own context is given up.
    let mut third = Compression::new(params(true, 15), Role::Server, &mut codecs);
    assert!(third.retained_bytes() < one / 2);
    let mut sizes = [0; 2];
    for size in &mut sizes {
        let mut out = Vec::new();
        third.deflate(&mut codecs, &noise(300, 1), &mut out);
        *size = out.len();
    }
    assert_eq!(sizes[0], sizes[1]);
    for payload in ["f248cdc9c90700", "f200110000"] {
        let mut out = Vec::new();
        codecs.inflate_whole(&mut third, &hex(payload), &mut out, LARGE).expect("taken over");
        assert_eq!(out, b"Hello");
    }

    third.release(&mut codecs);
    assert!(!codecs.takeover_available());
    first.release(&mut codecs);
    assert!(codecs.takeover_available());
    second.release(&mut codecs);
    assert_eq!(codecs.stats().takeover_bytes, 0);
}

#[test]
fn smaller_windows_reserve_less() {
    let reserved = [9, 12, 15].map(|bits| {
        let mut codecs = codecs();
        Compression::new(params(true, bits), Role::Server, &mut codecs).retained_bytes()
    });
    assert!(reserved.is_sorted() && reserved[0] + 100_000 < reserved[2], "{reserved:?}");
}

/// Row D20: the session is over, and neither its context nor its inflater serves another.
#[test]
fn after_an_error_the_context_is_gone() {
    let mut receiver = Receiver::new(true);
    assert_eq!(receiver.message(&hex("f248cdc9c90700")).expect("the first"), b"Hello");
    assert_eq!(receiver.message(&hex("06")), Err(InflateError::Corrupt));
    assert_eq!(receiver.codecs.stats().inflaters_idle, 0);
    assert_eq!(receiver.message(&hex("f200110000")), Err(InflateError::Corrupt));
}

#[test]
fn an_abandoned_message_takes_the_context_with_it() {
    let mut receiver = Receiver::new(true);
    receiver.message(&hex("f248cdc9c90700")).expect("the first");
    let mut inflation = receiver.compression.begin(&mut receiver.codecs).expect("the context");
    inflation.feed(&[0xf2], &mut Vec::new(), LARGE).expect("a piece");
    inflation.abandon(&mut receiver.codecs);
    assert_eq!(receiver.message(&hex("f200110000")), Err(InflateError::Corrupt));
    let Receiver { mut codecs, compression } = receiver;
    compression.release(&mut codecs);
    assert_eq!(codecs.stats().bytes, 0);
}
