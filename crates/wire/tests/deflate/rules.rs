//! RFC 7692 §7.2 and what is wrong by it.

use tidegate_wire::deflate::InflateError::Corrupt;

use crate::fixtures::FIXTURES;
use crate::puff::Puff;
use crate::{LARGE, Receiver, codecs, hex, noise, params};
use tidegate_wire::Role;
use tidegate_wire::deflate::{Codecs, Compression};

/// The payloads of RFC 7692 §7.2.3, each of them a "Hello".
const HELLOS: [&str; 5] = [
    "f248cdc9c90700",              // 7.2.3.1: one block with fixed codes
    "000500faff48656c6c6f00",      // 7.2.3.3: a stored block
    "f348cdc9c9070000",            // 7.2.3.4: a final block
    "f248050000 00ffffcac9c90700", // 7.2.3.5: two blocks
    "f348cdc9c90700",              // a final block whose sender did not append the empty one
];

fn hellos() -> [Vec<u8>; 5] {
    HELLOS.map(|payload| hex(&payload.replace(' ', "")))
}

#[test]
fn rfc7692_7_2_3_examples_in_any_pieces_and_any_order() {
    for takeover in [false, true] {
        for first in hellos() {
            for second in hellos() {
                let mut receiver = Receiver::new(takeover);
                for payload in [&first, &second, &first] {
                    for piece in 1..=payload.len() {
                        assert_eq!(receiver.pieces(payload, piece, 5).expect("a message"), b"Hello");
                    }
                }
            }
        }
    }
}

#[test]
fn rfc7692_7_2_3_2_a_message_looks_back_at_the_one_before() {
    let mut receiver = Receiver::new(true);
    assert_eq!(receiver.message(&hex("f248cdc9c90700")).expect("the first"), b"Hello");
    assert_eq!(receiver.message(&hex("f200110000")).expect("the second"), b"Hello");
}

/// Row D14.
#[test]
fn rfc7692_7_1_1_without_takeover_nothing_may_be_looked_back_at() {
    let mut receiver = Receiver::new(false);
    assert_eq!(receiver.message(&hex("f248cdc9c90700")).expect("the first"), b"Hello");
    assert_eq!(receiver.message(&hex("f200110000")), Err(Corrupt));
    for (_, taken_over, _) in FIXTURES {
        let mut receiver = Receiver::new(false);
        receiver.message(&hex(taken_over[0])).expect("the first");
        receiver.message(&hex(taken_over[1])).expect("the second");
        assert_eq!(receiver.message(&hex(taken_over[2])), Err(Corrupt));
        assert_eq!(receiver.message(&hex(taken_over[4])).expect("the next"), b"Hello, hello, HELLO, hello!");
    }
}

/// Row D12.
#[test]
fn rfc7692_7_2_3_6_an_empty_message_is_one_byte() {
    for takeover in [false, true] {
        let mut receiver = Receiver::new(takeover);
        for _ in 0..3 {
            assert_eq!(receiver.message(&[0x00]).expect("empty"), b"");
            assert_eq!(receiver.message(&hex("f248cdc9c90700")).expect("the next"), b"Hello");
        }
        let mut codecs = codecs();
        let mut sender = Compression::new(params(takeover, 15), Role::Server, &mut codecs);
        for payload in [&b""[..], b"Hello", b"", b"", b"Hello"] {
            let mut out = vec![0xaa];
            sender.deflate(&mut codecs, payload, &mut out);
            assert_eq!(out[0], 0xaa, "what stood in the buffer before");
            assert_eq!(payload.is_empty(), out[1..] == [0x00]);
            assert_eq!(receiver.message(&out[1..]).expect("a message"), payload);
        }
    }
}

/// The trap of a peer's `c1 80`: zlib would stand within a stored block, and the next message would fail.
#[test]
fn a_compressed_message_without_a_byte_is_empty_and_the_next_one_is_right() {
    for takeover in [false, true] {
        let mut receiver = Receiver::new(takeover);
        for _ in 0..3 {
            assert_eq!(receiver.message(&[]).expect("empty"), b"");
            assert_eq!(receiver.message(&hex("f248cdc9c90700")).expect("the next"), b"Hello");
        }
        // Empty fragments in between change nothing.
        let mut out = Vec::new();
        let mut inflation = receiver.compression.begin(&mut receiver.codecs).expect("an inflater");
        for piece in [&[][..], &[0xf2, 0x48], &[], &[0xcd, 0xc9, 0xc9, 0x07, 0x00], &[]] {
            inflation.feed(piece, &mut out, LARGE).expect("a piece");
        }
        inflation.finish(&mut receiver.compression, &mut receiver.codecs, &out, LARGE).expect("the end");
        assert_eq!(out, b"Hello");
    }
}

/// The trap of BFINAL: zlib would ignore all that follows in the message, and give an empty next one.
#[test]
fn rfc7692_7_2_1_blocks_may_follow_a_final_one() {
    let hello = hex("f348cdc9c90700");
    for takeover in [false, true] {
        let mut receiver = Receiver::new(takeover);
        for count in 1..5 {
            let expected = b"Hello".repeat(count);
            for end in [&[][..], &[0x00], &hex("f248cdc9c90700")] {
                let payload = [&hello.repeat(count), end].concat();
                let expected = [&expected[..], if end.len() > 1 { b"Hello" } else { b"" }].concat();
                for piece in 1..=payload.len() {
                    assert_eq!(receiver.pieces(&payload, piece, LARGE).expect("a message"), expected);
                }
                assert_eq!(Puff::new(takeover).message(&payload).expect("the oracle"), expected);
            }
        }
    }
}

#[test]
fn a_final_block_ends_what_may_be_looked_back_at() {
    // As in §7.2.3.2, but the first message ends in a final block; then the same within one message.
    let mut receiver = Receiver::new(true);
    assert_eq!(receiver.message(&hex("f348cdc9c9070000")).expect("the first"), b"Hello");
    assert_eq!(receiver.message(&hex("f200110000")), Err(Corrupt));
    assert_eq!(Receiver::new(true).message(&hex("f348cdc9c90700f200110000")), Err(Corrupt));
    // What comes after it may be looked back at again.
    let mut receiver = Receiver::new(true);
    assert_eq!(receiver.message(&hex("f348cdc9c90700f248cdc9c90700")).expect("the first"), b"HelloHello");
    assert_eq!(receiver.message(&hex("f200110000")).expect("the second"), b"Hello");
}

/// Rows D08 and D09, and what else RFC 1951 forbids.
#[test]
fn rfc1951_3_2_corrupt_blocks_are_refused() {
    for (name, payload) in [
        ("block type 3", "06"),
        ("final block type 3", "07"),
        ("LEN is not the complement of NLEN", "0005000000"),
        ("a literal code of 286 in a fixed block", "1b0300"),
        ("too many literal codes", "fcff"),
        ("a distance before the beginning", "0202"),
        ("an oversubscribed code of code lengths", "04e0ffffffffffffff"),
    ] {
        let payload = hex(payload);
        assert_eq!(Puff::new(false).message(&payload), Err(crate::puff::Corrupt), "the oracle on {name}");
        for takeover in [false, true] {
            for piece in 1..=payload.len() {
                assert_eq!(Receiver::new(takeover).pieces(&payload, piece, LARGE), Err(Corrupt), "{name}");
            }
        }
    }
}

#[test]
fn a_message_cut_short_is_corrupt_and_not_shorter() {
    // Blocks of every type: stored, fixed and dynamic.
    let mut dynamic = Vec::new();
    let text: String =
        (0..40).map(|at| format!("{at} quick brown foxes jump over {} lazy dogs, ", at * at)).collect();
    Codecs::new(tidegate_wire::deflate::CodecLimits { level: 9, ..Default::default() }).deflate(
        15,
        text.as_bytes(),
        &mut dynamic,
    );
    assert_eq!(dynamic[0] & 6, 4, "a dynamic block");
    for whole in [hex("f248cdc9c90700"), hex("000500faff48656c6c6f00"), dynamic] {
        for takeover in [false, true] {
            // The first byte of the stored block alone is an empty message.
            for len in 2..whole.len() {
                let cut = &whole[..len];
                assert_eq!(
                    Puff::new(takeover).message(cut),
                    Err(crate::puff::Corrupt),
                    "the oracle at {len}"
                );
                assert_eq!(Receiver::new(takeover).message(cut), Err(Corrupt), "{len} of {}", whole.len());
            }
            Receiver::new(takeover).message(&whole).expect("the whole");
        }
    }
}

/// What the four bytes complete must be an empty block: here they are the last of a stored block's data.
#[test]
fn the_appended_bytes_are_no_data() {
    assert_eq!(Receiver::new(false).message(&hex("000400fbff")), Err(Corrupt));
    assert_eq!(Receiver::new(true).message(&hex("000500faff48")), Err(Corrupt));
    // The data is complete, but no empty block was begun.
    assert_eq!(Receiver::new(true).message(&hex("000500faff48656c6c6f")), Err(Corrupt));
}

#[test]
fn zlibs_messages_are_read_at_every_window_size() {
    for (window_bits, taken_over, alone) in FIXTURES {
        let first = noise(100, u32::from(window_bits));
        let zeros = vec![0; (1 << window_bits) - 400];
        let expected = [&first[..], &zeros, &first, b"", b"Hello, hello, HELLO, hello!"];
        for (takeover, payloads) in [(true, taken_over), (false, alone)] {
            for piece in [1, 2, 7, 64, 4096] {
                let mut receiver = Receiver::new(takeover);
                let mut oracle = Puff::new(takeover);
                for (payload, expected) in payloads.iter().zip(expected) {
                    let payload = hex(payload);
                    let read = receiver.pieces(&payload, piece, expected.len()).expect("a message");
                    assert_eq!(read, expected);
                    assert_eq!(oracle.message(&payload).expect("the oracle"), expected);
                }
            }
        }
    }
}

/// zlib-rs holds 32 KiB whatever was agreed. If it ever becomes stricter, so should the documentation.
#[test]
fn a_peer_that_looks_back_further_than_agreed_is_not_found_out() {
    let (_, taken_over, _) = FIXTURES[6];
    let mut codecs = codecs();
    let compression = Compression::new(params(true, 9), Role::Server, &mut codecs);
    let mut receiver = Receiver { codecs, compression };
    for payload in &taken_over[..2] {
        receiver.message(&hex(payload)).expect("a message");
    }
    assert_eq!(receiver.message(&hex(taken_over[2])).expect("a distance of 32 KiB"), noise(100, 15));
}
