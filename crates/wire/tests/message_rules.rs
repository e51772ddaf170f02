//! The decoder's rules one by one, named by where they stand: the RFCs, and the ids of the table of bad input
//! (F, D and C rows).

mod frames_support;

use frames_support::{End, ROLES, Seen, Setup, frame, hex};
use tidegate_wire::Role;
use tidegate_wire::message::{Decoder, Kind, Violation};

const WHOLE: &[usize] = &[usize::MAX];
const SPLITS: [&[usize]; 4] = [WHOLE, &[1], &[2, 3], &[7]];

/// A server that has got `stream`: the same events and verdict for each split.
fn server(setup: Setup, stream: &[u8]) -> (Vec<Seen>, Option<Violation>) {
    let whole = setup.decode(stream, WHOLE);
    for sizes in SPLITS {
        assert_eq!(setup.decode(stream, sizes), whole, "in pieces of {sizes:?}");
    }
    whole
}

fn plain() -> Setup {
    Setup::new(Role::Server)
}

#[track_caller]
fn refused(setup: Setup, digits: &str, violation: Violation, code: u16) {
    let (seen, verdict) = server(setup, &hex(digits));
    assert_eq!((seen, verdict), (vec![], Some(violation)), "{digits}");
    assert_eq!(violation.close_code().as_u16(), code);
}

#[test]
fn f01_rfc6455_5_1_an_unmasked_frame_from_a_client() {
    refused(plain(), "81 05 48656c6c6f", Violation::Unmasked, 1002);
}

#[test]
fn u10_rfc6455_5_1_a_masked_frame_from_a_server() {
    refused(Setup::new(Role::Client), "81 85 37fa213d 7f9f4d5158", Violation::Masked, 1002);
}

#[test]
fn rfc6455_5_7_the_examples() {
    assert_eq!(server(plain(), &hex("81 85 37fa213d 7f9f4d5158")), (vec![Seen::text("Hello")], None));
    let client = Setup::new(Role::Client);
    assert_eq!(server(client, &hex("81 05 48656c6c6f")), (vec![Seen::text("Hello")], None));
    assert_eq!(server(client, &hex("01 03 48656c 80 02 6c6f")), (vec![Seen::text("Hello")], None));
    assert_eq!(server(client, &hex("89 05 48656c6c6f")), (vec![Seen::Ping(b"Hello".into())], None));
    assert_eq!(server(plain(), &hex("8a 85 37fa213d 7f9f4d5158")), (vec![Seen::Pong(b"Hello".into())], None));
    for (len, header) in [(256, "82 7e 0100"), (65_536, "82 7f 0000000000010000")] {
        let payload: Vec<u8> = (0..len).map(|i| i as u8).collect();
        let stream = [hex(header), payload.clone()].concat();
        assert_eq!(client.decode(&stream, WHOLE), (vec![Seen::binary(&payload)], None));
    }
}

#[test]
fn f02_rfc6455_5_2_rsv1_without_an_extension() {
    refused(plain(), "c1 80 00000000", Violation::CompressionNotAgreed, 1002);
}

#[test]
fn f03_rfc6455_5_2_rsv2_and_rsv3_with_and_without_compression() {
    for setup in [plain(), plain().deflate(false), plain().deflate(true)] {
        for first in ["a1", "91", "b1", "f1", "e2", "d2", "a9", "98"] {
            refused(setup, &format!("{first} 80 00000000"), Violation::ReservedBits, 1002);
        }
    }
}

#[test]
fn f04_rfc6455_5_2_reserved_opcodes() {
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        refused(plain(), &format!("{:02x} 80 00000000", 0x80 | opcode), Violation::ReservedOpcode, 1002);
        refused(plain(), &format!("{opcode:02x} 80 00000000"), Violation::ReservedOpcode, 1002);
    }
}

#[test]
fn f05_c06_rfc6455_5_5_a_control_frame_over_125_bytes_by_its_first_two_bytes() {
    for first in ["89", "8a", "88"] {
        refused(plain(), &format!("{first} fe"), Violation::ControlTooLong, 1002);
        refused(plain(), &format!("{first} ff"), Violation::ControlTooLong, 1002);
        refused(
            plain(),
            &format!("{first} fe 007e 00000000 {}", "00".repeat(126)),
            Violation::ControlTooLong,
            1002,
        );
    }
}

#[test]
fn f06_rfc6455_5_5_a_fragmented_control_frame() {
    for first in ["09", "0a", "08"] {
        refused(plain(), &format!("{first} 80 00000000"), Violation::ControlFragmented, 1002);
    }
}

#[test]
fn f07_rfc7692_6_rsv1_on_a_control_frame() {
    for first in ["c9", "ca", "c8"] {
        refused(
            plain().deflate(false),
            &format!("{first} 81 00000000 00"),
            Violation::CompressionMisplaced,
            1002,
        );
    }
}

#[test]
fn f09_a_huge_length_is_refused_from_the_header_alone() {
    refused(plain(), "82 ff 7fffffffffffffff 00000000", Violation::TooBig, 1009);
    // The masking key is not waited for.
    refused(plain(), "82 ff 7fffffffffffffff", Violation::TooBig, 1009);
    // Neither with compression, nor as the second fragment: no sum overflows.
    refused(plain().deflate(false), "c2 ff 7fffffffffffffff 00000000", Violation::TooBig, 1009);
    refused(plain(), "02 81 00000000 61 80 ff 7fffffffffffffff 00000000", Violation::TooBig, 1009);
    let unlimited = plain().limits(usize::MAX, u32::MAX);
    let mut end = End::new(unlimited);
    assert_eq!(end.feed(&hex("02 81 00000000 61 00 ff 7fffffffffffffff 00000000 61")), Ok(()));
    assert!(end.decoder.retained_bytes() <= 4096, "memory follows what came, not what was declared");
    assert_eq!(
        unlimited.deflate(false).decode(&hex("42 81 00000000 61 00 ff 7fffffffffffffff 00000000"), WHOLE).1,
        None
    );
}

#[test]
fn f10_a_message_at_the_limit_and_one_byte_over() {
    let at_limit = frame(Role::Server, 0x82, &vec![7; 1 << 20], [1, 2, 3, 4]);
    let (seen, verdict) = plain().decode(&at_limit, &[17_472]);
    assert_eq!((seen.len(), verdict), (1, None));
    refused(plain(), "82 ff 0000000000100001 00000000", Violation::TooBig, 1009);
    refused(plain(), "82 ff 0000000000100001", Violation::TooBig, 1009);
    // The sum of the fragments counts.
    let limited = plain().limits(10, 100);
    let fragments = |last: usize| {
        [
            frame(Role::Server, 0x02, &[1; 6], [0; 4]),
            frame(Role::Server, 0x00, &[], [0; 4]),
            frame(Role::Server, 0x80, &vec![2; last], [0; 4]),
        ]
        .concat()
    };
    assert_eq!(server(limited, &fragments(4)).1, None);
    assert_eq!(server(limited, &fragments(5)), (vec![], Some(Violation::TooBig)));
}

#[test]
fn f12_rfc6455_5_2_a_length_that_is_not_minimal() {
    refused(plain(), "81 ff 0000000000000005 00000000 48656c6c6f", Violation::LengthNotMinimal, 1002);
    refused(plain(), "81 fe 0005 00000000 48656c6c6f", Violation::LengthNotMinimal, 1002);
    refused(plain(), "81 ff 8000000000000000 00000000", Violation::LengthOverflow, 1002);
}

#[test]
fn f13_rfc6455_5_4_a_continuation_with_no_message_open() {
    refused(plain(), "80 80 00000000", Violation::UnexpectedContinuation, 1002);
    refused(plain(), "00 81 00000000 61", Violation::UnexpectedContinuation, 1002);
    let after = "01 81 00000000 61 80 81 00000000 62 80 80 00000000";
    assert_eq!(
        server(plain(), &hex(after)),
        (vec![Seen::text("ab")], Some(Violation::UnexpectedContinuation))
    );
}

#[test]
fn f14_rfc6455_5_4_a_new_message_inside_another() {
    refused(plain(), "01 81 00000000 61 81 81 00000000 62", Violation::UnfinishedMessage, 1002);
    refused(plain(), "02 80 00000000 02 80 00000000", Violation::UnfinishedMessage, 1002);
}

#[test]
fn f16_heap_of_a_message_in_131000_fragments_is_twice_its_bytes() {
    let mut end = End::new(plain().limits(1 << 20, 131_072));
    end.feed(&hex("01 81 00000000 61")).unwrap();
    for received in 2..=131_000usize {
        end.feed(&hex("00 81 00000000 61")).unwrap();
        if received % 997 == 0 {
            assert!(end.decoder.retained_bytes() <= 2 * received + 4096, "after {received}");
        }
    }
    assert!(end.decoder.is_partial() && end.seen.is_empty());
    end.decoder.abandon(&mut end.codecs);
    assert_eq!(end.decoder.retained_bytes(), 0);
}

#[test]
fn f16_fragments_are_counted_empty_ones_too() {
    let limited = plain().limits(100, 4);
    let empty = "00 80 00000000";
    assert_eq!(
        server(limited, &hex(&format!("01 80 00000000 {empty} {empty} 80 80 00000000"))),
        (vec![Seen::text("")], None)
    );
    let five = format!("01 80 00000000 {empty} {empty} {empty} 80 80 00000000");
    refused(limited, &five, Violation::TooManyFragments, 1008);
    // Each message has its own count.
    let twice = format!("01 80 00000000 {empty} 80 80 00000000").repeat(2);
    assert_eq!(server(limited, &hex(&twice)).0.len(), 2);
}

#[test]
fn f21_rfc6455_5_4_control_frames_between_fragments_and_between_every_byte() {
    for role in ROLES {
        let ping = frame(role, 0x89, b"p", [4, 3, 2, 1]);
        let text = "Grüße, €!".as_bytes();
        let mut stream = frame(role, 0x01, &text[..1], [1, 2, 3, 4]);
        for byte in &text[1..] {
            stream.extend(&ping);
            stream.extend(frame(role, 0x00, &[*byte], [5, 6, 7, 8]));
        }
        stream.extend(&ping);
        stream.extend(frame(role, 0x80, &[], [0; 4]));
        let mut expected = vec![Seen::Ping(b"p".into()); text.len()];
        expected.push(Seen::text("Grüße, €!"));
        assert_eq!(server(Setup::new(role), &stream), (expected, None));
    }
}

#[test]
fn f23_rfc6455_8_1_bytes_that_are_not_utf8() {
    for text in ["f4908080", "c0af", "eda080", "ff", "80", "c1bf", "e08080", "f08080af", "f5808080", "61ed"] {
        let masked = frame(Role::Server, 0x81, &hex(text), [0x12, 0x34, 0x56, 0x78]);
        assert_eq!(server(plain(), &masked), (vec![], Some(Violation::TextNotUtf8)), "{text}");
        let unmasked = frame(Role::Client, 0x81, &hex(text), [0; 4]);
        assert_eq!(server(Setup::new(Role::Client), &unmasked), (vec![], Some(Violation::TextNotUtf8)));
    }
    assert_eq!(Violation::TextNotUtf8.close_code().as_u16(), 1007);
    // As binary it is nobody's business.
    let binary = frame(Role::Server, 0x82, &hex("f4908080"), [0; 4]);
    assert_eq!(server(plain(), &binary), (vec![Seen::binary(&hex("f4908080"))], None));
}

#[test]
fn autobahn_6_4_text_fails_at_the_bad_byte_inside_an_incomplete_frame() {
    // "κόσμε", a code point above U+10FFFF, "edited": in one frame that never ends.
    let good = "κόσμε".as_bytes();
    let bad = [good, &hex("f4908080"), b"edited"].concat();
    for role in ROLES {
        let stream = frame(role, 0x81, &bad, [0x9a, 0xbc, 0xde, 0xf0]);
        let header = stream.len() - bad.len();
        let f4 = header + good.len();
        let mut end = End::new(Setup::new(role));
        assert_eq!(end.feed(&stream[..=f4]), Ok(()), "f4 may start a character");
        assert_eq!(end.feed(&stream[f4 + 1..f4 + 2]), Err(Violation::TextNotUtf8), "90 may not follow it");
        let mut end = End::new(Setup::new(role));
        assert_eq!(end.feed(&stream[..f4 + 2]), Err(Violation::TextNotUtf8), "in one piece as well");
        // In fragments: the first is good, the second starts with the bad bytes.
        let mut end = End::new(Setup::new(role));
        assert_eq!(end.feed(&frame(role, 0x01, good, [1; 4])), Ok(()));
        let second = frame(role, 0x00, &bad[good.len()..], [2; 4]);
        let header = second.len() - (bad.len() - good.len());
        assert_eq!(end.feed(&second[..=header]), Ok(()));
        assert_eq!(end.feed(&second[header + 1..header + 2]), Err(Violation::TextNotUtf8));
    }
}

#[test]
fn f24_rfc6455_8_1_a_character_split_over_fragments() {
    assert_eq!(server(plain(), &hex("01 81 00000000 ce 80 81 00000000 ba")), (vec![Seen::text("κ")], None));
    let four = "01 81 00000000 f0 00 81 00000000 9f 00 80 00000000 00 81 00000000 98 80 81 00000000 80";
    assert_eq!(server(plain(), &hex(four)), (vec![Seen::text("😀")], None));
}

#[test]
fn f24_rfc6455_8_1_ascii_inside_a_character_split_over_fragments() {
    // "ce", then "61" where only a continuation byte may follow, then that byte after all.
    let fragments = ["01 81 00000000 ce", "00 81 00000000 61", "80 81 00000000 ba"].map(hex);
    let mut end = End::new(plain());
    assert_eq!(end.feed(&fragments[0]), Ok(()));
    assert_eq!(end.feed(&fragments[1]), Err(Violation::TextNotUtf8));
    assert_eq!(server(plain(), &fragments.concat()), (vec![], Some(Violation::TextNotUtf8)));
}

#[test]
fn f26_rfc6455_8_1_a_text_that_ends_inside_a_character() {
    for text in ["ce", "e282", "f09f98", "61e2"] {
        let stream = frame(Role::Server, 0x81, &hex(text), [0; 4]);
        assert_eq!(server(plain(), &stream), (vec![], Some(Violation::TextNotUtf8)), "{text}");
    }
    refused(plain(), "01 81 00000000 ce 80 80 00000000", Violation::TextNotUtf8, 1007);
    refused(plain(), "01 80 00000000 80 81 00000000 ce", Violation::TextNotUtf8, 1007);
    // The next message starts afresh.
    refused(plain(), "81 81 00000000 ce 81 81 00000000 ba", Violation::TextNotUtf8, 1007);
}

#[test]
fn f27_c07_rfc6455_5_5_1_nothing_counts_after_a_close() {
    let stream = hex("88 82 00000000 03e8 88 82 00000000 03e8 81 81 00000000 61 ff ff ff");
    for sizes in SPLITS {
        let mut end = End::new(plain());
        assert_eq!(end.feed_all(&stream, sizes), None);
        assert_eq!(end.seen, [Seen::Close(Some(1000), String::new())]);
        assert!(!end.decoder.has_carry());
    }
    // Inside a message as well: what was collected is let go.
    let mut end = End::new(plain());
    assert_eq!(end.feed(&hex("01 83 00000000 616263 88 80 00000000 80 80 00000000")), Ok(()));
    assert_eq!(end.seen, [Seen::Close(None, String::new())]);
    assert_eq!(end.decoder.retained_bytes(), 0);
    assert!(!end.decoder.is_partial());
}

#[test]
fn f29_plain_http_where_frames_are_due() {
    let (seen, verdict) = server(plain(), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(seen, []);
    assert_eq!(verdict.unwrap().close_code().as_u16(), 1002);
}

#[test]
fn h33_a_pipelined_request_behind_the_upgrade_is_taken_as_frames() {
    let (seen, verdict) = server(plain(), b"GET /admin HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!((seen, verdict.unwrap().close_code().as_u16()), (vec![], 1002));
}

#[test]
fn f30_a_masking_key_of_zero_is_taken() {
    let stream = hex("81 85 00000000 48656c6c6f").repeat(3);
    assert_eq!(server(plain(), &stream), (vec![Seen::text("Hello"); 3], None));
}

#[test]
fn d08_d09_rfc7692_7_2_2_what_does_not_inflate() {
    for setup in
        [plain().deflate(false), plain().deflate(true), Setup { inflaters: 0, ..plain().deflate(false) }]
    {
        refused(setup, "c1 81 00000000 06", Violation::DeflateCorrupt, 1007);
        refused(setup, "c1 85 00000000 0005000000", Violation::DeflateCorrupt, 1007);
    }
}

fn inflated(text: &str) -> Seen {
    Seen::Message { kind: Kind::Text, compressed: true, bytes: text.into() }
}

#[test]
fn d12_rfc7692_7_2_3_6_an_empty_message_then_hello() {
    for setup in
        [plain().deflate(false), plain().deflate(true), Setup { inflaters: 0, ..plain().deflate(false) }]
    {
        let hello = "c1 87 00000000 f248cdc9c90700";
        let expected = (vec![inflated(""), inflated("Hello")], None);
        assert_eq!(server(setup, &hex(&format!("c1 81 00000000 00 {hello}"))), expected);
        // An empty frame is empty deflate data too, and must not spoil the next message.
        assert_eq!(server(setup, &hex(&format!("c1 80 00000000 {hello}"))), expected);
        // With a final block (RFC 7692 §7.2.3.4), then another message.
        let last = "c1 88 00000000 f348cdc9c9070000";
        assert_eq!(
            server(setup, &hex(&format!("{last} {hello}"))),
            (vec![inflated("Hello"), inflated("Hello")], None)
        );
    }
}

#[test]
fn rfc7692_7_2_3_2_a_compressed_message_in_fragments() {
    let stream = hex("41 83 00000000 f248cd 89 81 00000000 3f 80 84 00000000 c9c90700");
    assert_eq!(
        server(plain().deflate(false), &stream),
        (vec![Seen::Ping(b"?".into()), inflated("Hello")], None)
    );
}

#[test]
fn d16_rfc7692_6_rsv1_on_a_continuation() {
    refused(
        plain().deflate(false),
        "41 83 00000000 f248cd c0 84 00000000 c9c90700",
        Violation::CompressionMisplaced,
        1002,
    );
    refused(
        plain().deflate(false),
        "01 81 00000000 61 c0 81 00000000 62",
        Violation::CompressionMisplaced,
        1002,
    );
}

#[test]
fn d17_rfc7692_6_plain_messages_after_compression_was_agreed_upon() {
    let hello = "c1 87 00000000 f248cdc9c90700";
    let stream = hex(&format!("81 85 00000000 48656c6c6f {hello} 82 81 00000000 ff {hello}"));
    assert_eq!(
        server(plain().deflate(true), &stream),
        (vec![Seen::text("Hello"), inflated("Hello"), Seen::binary(&[0xff]), inflated("Hello")], None)
    );
}

/// `bytes` as the payload of a compressed message.
fn deflate(setup: Setup, bytes: &[u8]) -> Vec<u8> {
    let mut codecs = setup.codecs();
    let mut compression = setup.compression(Role::Client, &mut codecs).unwrap();
    let mut out = Vec::new();
    compression.deflate(&mut codecs, bytes, &mut out);
    out
}

/// One compressed message in one frame.
fn deflated(setup: Setup, b0: u8, bytes: &[u8]) -> Vec<u8> {
    frame(Role::Server, b0, &deflate(setup, bytes), [0xa5, 0x5a, 0x3c, 0xc3])
}

#[test]
fn d18_rfc6455_8_1_text_is_checked_after_inflating() {
    for setup in
        [plain().deflate(false), plain().deflate(true), Setup { inflaters: 0, ..plain().deflate(false) }]
    {
        for bad in [&b"abc\xff"[..], b"\xf4\x90\x80\x80", b"\xce", "ok €".repeat(999).as_bytes()] {
            let valid = str::from_utf8(bad).is_ok();
            let (seen, verdict) = server(setup, &deflated(setup, 0xc1, bad));
            assert_eq!(seen.len(), usize::from(valid));
            assert_eq!(verdict, (!valid).then_some(Violation::TextNotUtf8));
            // The compressed bytes themselves are no text, and binary messages are not checked.
            assert_eq!(server(setup, &deflated(setup, 0xc2, bad)).1, None);
        }
    }
}

#[test]
fn d18_text_fails_at_the_bad_byte_while_it_is_inflated() {
    let setup = plain().deflate(false);
    let mut first = deflate(setup, b"good \xff bad");
    // A sync flush ends the first fragment: its bytes are all there.
    first.extend([0, 0, 0xff, 0xff]);
    let mut end = End::new(setup);
    assert_eq!(end.feed(&frame(Role::Server, 0x41, &first, [1; 4])), Err(Violation::TextNotUtf8));
    assert_eq!(end.codecs.stats().inflaters_lent, 0);
}

#[test]
fn d06_d07_a_bomb_is_stopped_at_the_limit_for_any_split() {
    let setup = plain().deflate(false).limits(1 << 20, u32::MAX);
    let bomb = deflate(setup, &vec![0; 10 << 20]);
    assert!(bomb.len() < 200_000, "{}", bomb.len());
    for sizes in [WHOLE, &[1], &[1000]] {
        let mut end = End::new(setup);
        let stream = frame(Role::Server, 0xc2, &bomb, [0xa5, 0x5a, 0x3c, 0xc3]);
        assert_eq!(end.feed_all(&stream, sizes), Some(Violation::TooBig));
        assert_eq!(end.decoder.retained_bytes(), 0);
        let stats = end.codecs.stats();
        assert!(stats.inflated_bytes <= (1 << 20) + 1, "{stats:?}");
        assert_eq!(stats.inflaters_lent, 0);
    }
    assert_eq!(Violation::TooBig.close_code().as_u16(), 1009);
    // In fragments of one byte.
    let mut end = End::new(setup);
    let mut verdict = None;
    for (i, byte) in bomb.iter().enumerate() {
        let b0 = if i == 0 { 0x42 } else { 0x00 };
        verdict = end.feed(&frame(Role::Server, b0, &[*byte], [0; 4])).err();
        assert!(end.decoder.retained_bytes() <= (1 << 20) + (64 << 10));
        if verdict.is_some() {
            break;
        }
    }
    assert_eq!(verdict, Some(Violation::TooBig));
}

#[test]
fn a_message_at_the_limit_that_does_not_compress_is_taken() {
    let mut state = 1u32;
    let noise: Vec<u8> = (0..1 << 20)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect();
    for setup in [plain().deflate(false), Setup { inflaters: 0, ..plain().deflate(false) }] {
        let stream = deflated(setup, 0xc2, &noise);
        assert!(stream.len() > noise.len(), "it is longer deflated");
        for sizes in [WHOLE, &[17_472]] {
            let (seen, verdict) = setup.decode(&stream, sizes);
            assert_eq!((seen.len(), verdict), (1, None));
        }
        let over = deflated(setup, 0xc2, &[&noise[..], b"!"].concat());
        assert_eq!(setup.decode(&over, WHOLE), (vec![], Some(Violation::TooBig)));
    }
}

#[test]
fn blocks_that_inflate_to_nothing_are_bounded_too() {
    // 00 00 00 ff ff: an empty stored block, five bytes for none.
    let setup = plain().deflate(false).limits(100, u32::MAX);
    let mut stream = frame(Role::Server, 0x42, &[0, 0, 0, 0xff, 0xff], [0; 4]);
    for _ in 0..100 {
        stream.extend(frame(Role::Server, 0x00, &[0, 0, 0, 0xff, 0xff], [0; 4]));
    }
    assert_eq!(server(setup, &stream), (vec![], Some(Violation::TooBig)));
}

#[test]
fn d14_a_look_back_at_the_last_message_without_takeover() {
    let agreed = plain().deflate(true);
    let mut codecs = agreed.codecs();
    let mut compression = agreed.compression(Role::Client, &mut codecs).unwrap();
    let text = "the same words, the same words and more";
    let mut stream = Vec::new();
    for _ in 0..2 {
        let mut wire = Vec::new();
        compression.deflate(&mut codecs, text.as_bytes(), &mut wire);
        stream.extend(frame(Role::Server, 0xc1, &wire, [0; 4]));
    }
    assert_eq!(server(agreed, &stream), (vec![inflated(text), inflated(text)], None));
    let (seen, verdict) = server(plain().deflate(false), &stream);
    assert_eq!((seen, verdict), (vec![inflated(text)], Some(Violation::DeflateCorrupt)));
}

#[test]
fn d20_after_a_failed_message_no_other_session_sees_what_was_inflated() {
    let setup = Setup { inflaters: 1, ..plain().deflate(false) };
    let mut first = End::new(setup);
    let secret = "secret words of the first session";
    let mut broken = deflated(setup, 0x41, secret.as_bytes());
    broken.extend(frame(Role::Server, 0x80, &[0, 0, 0xff, 0xff, 0x06], [0; 4]));
    assert_eq!(first.feed_all(&broken, &[5]), Some(Violation::DeflateCorrupt));
    // The second session gets the same codecs and buffers, and a message that looks back.
    let agreed = plain().deflate(true);
    let mut codecs = agreed.codecs();
    let mut compression = agreed.compression(Role::Client, &mut codecs).unwrap();
    compression.deflate(&mut codecs, secret.as_bytes(), &mut Vec::new());
    let mut looks_back = Vec::new();
    compression.deflate(&mut codecs, secret.as_bytes(), &mut looks_back);
    let mut second = End::new(setup);
    second.codecs = first.codecs;
    second.spares = first.spares;
    assert_eq!(second.feed(&frame(Role::Server, 0xc1, &looks_back, [0; 4])), Err(Violation::DeflateCorrupt));
    assert_eq!(second.seen, []);
    assert_eq!(second.codecs.stats().inflaters_lent, 0);
}

#[test]
fn inflaters_are_given_back_however_a_message_ends() {
    let setup = Setup { inflaters: 1, ..plain().deflate(false) };
    let partial = hex("41 83 00000000 f248cd");
    let ends: [(&str, Option<Violation>); 4] = [
        ("80 84 00000000 c9c90700", None),
        ("88 80 00000000", None),
        ("81 80 00000000", Some(Violation::UnfinishedMessage)),
        ("80 81 00000000 06", Some(Violation::DeflateCorrupt)),
    ];
    for (end, expected) in ends {
        let mut session = End::new(setup);
        assert_eq!(session.feed(&partial), Ok(()));
        assert_eq!(session.codecs.stats().inflaters_lent, 1);
        assert_eq!(session.feed(&hex(end)).err(), expected, "{end}");
        assert_eq!(session.codecs.stats().inflaters_lent, 0, "{end}");
    }
    let mut session = End::new(setup);
    session.feed(&partial).unwrap();
    session.decoder.abandon(&mut session.codecs);
    assert_eq!(session.codecs.stats().inflaters_lent, 0);
    assert_eq!(session.decoder.retained_bytes(), 0);
}

#[test]
fn c01_rfc6455_5_5_1_a_close_with_a_body_of_one_byte() {
    refused(plain(), "88 81 00000000 03", Violation::CloseBodyTooShort, 1002);
}

#[test]
fn c04_rfc6455_7_4_close_codes() {
    for code in [1000u16, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4000, 4999]
    {
        let stream = frame(Role::Server, 0x88, &code.to_be_bytes(), [1, 2, 3, 4]);
        assert_eq!(server(plain(), &stream), (vec![Seen::Close(Some(code), String::new())], None));
    }
    for code in [0u16, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        let stream = frame(Role::Server, 0x88, &code.to_be_bytes(), [1, 2, 3, 4]);
        assert_eq!(server(plain(), &stream), (vec![], Some(Violation::CloseCodeForbidden)), "{code}");
    }
    assert_eq!(Violation::CloseCodeForbidden.close_code().as_u16(), 1002);
    assert_eq!(server(plain(), &hex("88 80 00000000")), (vec![Seen::Close(None, String::new())], None));
}

#[test]
fn c05_rfc6455_5_5_1_a_close_reason_is_utf8() {
    refused(plain(), "88 85 00000000 03e8 c0af ff", Violation::CloseReasonNotUtf8, 1007);
    let reason = "€".repeat(41);
    let body = [&1000u16.to_be_bytes(), reason.as_bytes()].concat();
    let stream = frame(Role::Server, 0x88, &body, [9, 8, 7, 6]);
    assert_eq!(server(plain(), &stream), (vec![Seen::Close(Some(1000), reason)], None));
}

#[test]
fn what_came_before_a_violation_is_delivered() {
    let stream = hex("81 81 00000000 61 89 80 00000000 82 81 00000000 62 83 80 00000000");
    assert_eq!(
        server(plain(), &stream),
        (vec![Seen::text("a"), Seen::Ping(vec![]), Seen::binary(b"b")], Some(Violation::ReservedOpcode))
    );
}

#[test]
fn the_getters_say_what_is_held() {
    let mut end = End::new(plain());
    assert!(!end.decoder.has_carry() && !end.decoder.is_partial());
    end.feed(&hex("81")).unwrap();
    assert!(end.decoder.has_carry() && !end.decoder.is_partial(), "half a header is no message");
    assert_eq!(end.decoder.retained_bytes(), 0, "and takes no heap");
    end.feed(&hex("85 37fa213d 7f")).unwrap();
    assert!(end.decoder.has_carry() && end.decoder.is_partial());
    end.feed(&hex("9f4d5158")).unwrap();
    assert_eq!(end.seen, [Seen::text("Hello")]);
    assert!(!end.decoder.has_carry() && !end.decoder.is_partial());
    end.feed(&hex("89 82 00000000 70")).unwrap();
    assert!(end.decoder.has_carry() && !end.decoder.is_partial(), "a ping is no message either");
    end.feed(&hex("71 01 80 00000000")).unwrap();
    assert!(end.decoder.has_carry() && end.decoder.is_partial(), "a message may be open without a byte");
}

#[test]
fn an_idle_session_is_small() {
    assert!(size_of::<Decoder>() <= 40, "{}", size_of::<Decoder>());
    assert_eq!(Decoder::new(Role::Server).retained_bytes(), 0);
}
