//! What permessage-deflate takes from the heap, by an allocator that counts. It runs without the test harness, whose
//! threads would be counted too.

use std::alloc::System;

use cap::Cap;
use tidegate_wire::Role;
use tidegate_wire::deflate::{CodecLimits, Codecs, Compression, InflateError};
use tidegate_wire::extension::DeflateParams;

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

const KIB: usize = 1024;

fn main() {
    a_bomb_takes_the_limit_and_64_kib();
    every_context_is_counted_in_full();
    a_session_without_takeover_takes_nothing();
}

/// Row D06. First, because the highest mark so far cannot be taken back.
fn a_bomb_takes_the_limit_and_64_kib() {
    // 10 MiB of zeros, made piece by piece so that the test itself takes little.
    let limit = 4 << 20;
    let bomb = {
        let mut codecs = Codecs::new(CodecLimits::default());
        let mut one = Vec::new();
        codecs.deflate(15, &[0; 64 * KIB], &mut one);
        // Each message ends between two blocks once its four bytes are back.
        one.extend([0x00, 0x00, 0xff, 0xff]);
        one.repeat(160)
    };
    let before = HEAP.allocated();
    assert!(HEAP.max_allocated() < before + limit / 2, "the test itself has taken more");
    let mut codecs = Codecs::new(CodecLimits::default());
    let mut session = Compression::new(DeflateParams::default(), Role::Server, &mut codecs);
    for pieces in [1, 1000, bomb.len()] {
        let mut out = Vec::new();
        let mut inflation = session.begin(&mut codecs).expect("an inflater");
        let result = bomb.chunks(pieces).try_for_each(|piece| inflation.feed(piece, &mut out, limit));
        assert_eq!(result, Err(InflateError::TooBig));
        inflation.abandon(&mut codecs);
    }
    let peak = HEAP.max_allocated() - before;
    assert!(peak <= limit + 64 * KIB, "{} KiB over the limit", (peak - limit) / KIB);
    assert_eq!(HEAP.allocated(), before, "all is given back");
}

fn every_context_is_counted_in_full() {
    for window_bits in 9..=15 {
        for takeover in [false, true] {
            let mut codecs = Codecs::new(CodecLimits { takeover_bytes: 1 << 20, ..CodecLimits::default() });
            let agreed = DeflateParams {
                server_no_context_takeover: !takeover,
                client_no_context_takeover: !takeover,
                server_max_window_bits: window_bits,
                ..DeflateParams::default()
            };
            let mut out = Vec::with_capacity(KIB);
            let before = HEAP.allocated();
            let mut session = Compression::new(agreed, Role::Server, &mut codecs);
            session.deflate(&mut codecs, b"Hello", &mut out);
            let payload = std::mem::take(&mut out);
            out.reserve_exact(KIB);
            let mut inflation = session.begin(&mut codecs).expect("an inflater");
            inflation.feed(&payload, &mut out, KIB).expect("a message");
            inflation.finish(&mut session, &mut codecs, &out, KIB).expect("a message");
            let taken = HEAP.allocated() - KIB - before;
            let counted = codecs.stats().bytes;
            assert!(
                taken <= counted,
                "{taken} of {counted} counted, window {window_bits}, takeover {takeover}"
            );
            assert!(counted <= taken + 8 * KIB, "{taken} of {counted} counted, window {window_bits}");
        }
    }
}

fn a_session_without_takeover_takes_nothing() {
    let mut codecs = Codecs::new(CodecLimits::default());
    let mut session = Compression::new(DeflateParams::default(), Role::Server, &mut codecs);
    let (mut payload, mut out) = (Vec::with_capacity(KIB), Vec::with_capacity(KIB));
    let mut turn = |codecs: &mut Codecs| {
        payload.clear();
        out.clear();
        session.deflate(codecs, b"Hello", &mut payload);
        codecs.inflate_whole(&mut session, &payload, &mut out, KIB).expect("a message");
        let mut inflation = session.begin(codecs).expect("an inflater");
        out.clear();
        inflation.feed(&payload, &mut out, KIB).expect("a message");
        inflation.finish(&mut session, codecs, &out, KIB).expect("a message");
    };
    turn(&mut codecs);
    let (before, total) = (HEAP.allocated(), HEAP.total_allocated());
    for _ in 0..100 {
        turn(&mut codecs);
    }
    assert_eq!((HEAP.allocated(), HEAP.total_allocated()), (before, total), "steady state allocates nothing");
}
