//! Headers against their definition, and control frames as they go over the wire.

use proptest::prelude::*;

use super::*;
use crate::message::Kind;

const LIMITS: Limits = Limits { message_bytes: 1 << 20, message_fragments: 1024 };
const SERVER: HeaderRules<'_> = HeaderRules { role: Role::Server, limits: &LIMITS, rsv1: false };

fn judge(bytes: &[u8]) -> Result<Option<(Head, usize)>, Violation> {
    decode_header(bytes, &Sequence::IDLE, SERVER)
}

fn open(kind: Kind) -> Sequence {
    let mut sequence = Sequence::IDLE;
    sequence.admit(&Head { fin: false, rsv1: false, opcode: kind.into(), len: 1, mask: None });
    sequence
}

#[test]
fn rfc6455_5_2_the_length_takes_its_shortest_form() {
    for (len, size) in [(0, 2), (125, 2), (126, 4), (0xffff, 4), (0x1_0000, 10), (usize::MAX, 10)] {
        assert_eq!(header_len(len, false), size);
        assert_eq!(header_len(len, true), size + 4);
    }
    let mut out = [0xee; MAX_HEADER];
    let text = |len| Head { fin: true, rsv1: false, opcode: Opcode::Text, len, mask: None };
    assert_eq!(encode_header(&mut out, &text(125)), 2);
    assert_eq!(out[..3], [0x81, 125, 0xee]);
    assert_eq!(encode_header(&mut out, &text(126)), 4);
    assert_eq!(out[..5], [0x81, 126, 0, 126, 0xee]);
    assert_eq!(encode_header(&mut out, &text(0x1_0000)), 10);
    assert_eq!(out[..11], [0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0, 0xee]);
}

#[test]
fn rfc6455_5_2_longer_forms_than_needed_are_refused() {
    for bytes in [
        &[0x81, 0xfe, 0, 125][..],
        &[0x81, 0xfe, 0, 0],
        &[0x81, 0xff, 0, 0, 0, 0, 0, 0, 0, 5],
        &[0x81, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff],
    ] {
        assert_eq!(judge(bytes), Err(Violation::LengthNotMinimal), "{bytes:x?}");
    }
    assert_eq!(judge(&[0x81, 0xfe, 0, 126]), Ok(None));
    assert_eq!(judge(&[0x81, 0xff, 0, 0, 0, 0, 0, 1, 0, 0]), Ok(None));
}

#[test]
fn rfc6455_5_2_the_top_bit_of_a_length_is_zero() {
    let mut bytes = [0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(judge(&bytes), Err(Violation::LengthOverflow));
    bytes[2..].fill(0xff);
    assert_eq!(judge(&bytes), Err(Violation::LengthOverflow));
    bytes[2] = 0x7f;
    assert_eq!(judge(&bytes), Err(Violation::TooBig));
}

#[test]
fn the_sum_of_a_messages_lengths_does_not_overflow() {
    let limits = Limits { message_bytes: usize::MAX, message_fragments: u32::MAX };
    let rules = HeaderRules { limits: &limits, ..SERVER };
    let mut sequence = open(Kind::Binary);
    let huge = [0x00, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
    for _ in 0..2 {
        let (head, _) = decode_header(&huge, &sequence, rules).unwrap().unwrap();
        sequence.admit(&head);
    }
    assert_eq!(decode_header(&huge, &sequence, rules), Err(Violation::TooBig));
}

#[test]
fn the_first_two_bytes_are_enough_for_what_they_forbid() {
    for (bytes, violation) in [
        ([0x81, 0x05], Violation::Unmasked),
        ([0xc1, 0x80], Violation::CompressionNotAgreed),
        ([0xa1, 0x80], Violation::ReservedBits),
        ([0x91, 0x80], Violation::ReservedBits),
        ([0xf1, 0x80], Violation::ReservedBits),
        ([0x83, 0x80], Violation::ReservedOpcode),
        ([0x8f, 0x80], Violation::ReservedOpcode),
        ([0x09, 0x80], Violation::ControlFragmented),
        ([0x89, 0xfe], Violation::ControlTooLong),
        ([0x88, 0xff], Violation::ControlTooLong),
        ([0x88, 0x81], Violation::CloseBodyTooShort),
        ([0x80, 0x80], Violation::UnexpectedContinuation),
        // An HTTP request where frames are due: "GE".
        ([0x47, 0x45], Violation::ReservedOpcode),
    ] {
        assert_eq!(judge(&bytes), Err(violation), "{bytes:x?}");
        assert_eq!(judge(&bytes[..1]), Ok(None));
    }
    let inside = open(Kind::Text);
    assert_eq!(decode_header(&[0x81, 0x81], &inside, SERVER), Err(Violation::UnfinishedMessage));
    assert_eq!(decode_header(&[0x02, 0x81], &inside, SERVER), Err(Violation::UnfinishedMessage));
}

#[test]
fn rfc7692_6_rsv1_is_for_the_first_frame_of_a_message() {
    let rules = HeaderRules { rsv1: true, ..SERVER };
    assert!(matches!(decode_header(&[0xc1, 0x80, 0, 0, 0, 0], &Sequence::IDLE, rules), Ok(Some(_))));
    assert_eq!(decode_header(&[0xc0, 0x80], &open(Kind::Text), rules), Err(Violation::CompressionMisplaced));
    for control in [0xc8, 0xc9, 0xca] {
        assert_eq!(
            decode_header(&[control, 0x80], &Sequence::IDLE, rules),
            Err(Violation::CompressionMisplaced)
        );
    }
}

#[test]
fn rfc6455_5_1_a_client_takes_no_masked_frame() {
    let rules = HeaderRules { role: Role::Client, ..SERVER };
    assert_eq!(decode_header(&[0x81, 0x80], &Sequence::IDLE, rules), Err(Violation::Masked));
    assert!(matches!(decode_header(&[0x81, 0x00], &Sequence::IDLE, rules), Ok(Some((_, 2)))));
}

#[test]
fn a_reason_is_cut_between_characters() {
    let reason = "€".repeat(100);
    let frame = ControlFrame::close(Some(CloseCode::INTERNAL_ERROR), &reason, None);
    assert_eq!(frame.len(), 2 + 2 + 123);
    assert_eq!(frame[..4], [0x88, 125, 0x03, 0xf3]);
    assert_eq!(str::from_utf8(&frame[4..]).unwrap(), "€".repeat(41));
    // 122 bytes of ASCII leave one for a character of three.
    let frame =
        ControlFrame::close(Some(CloseCode::NORMAL), &format!("{}€", "a".repeat(122)), Some([1, 2, 3, 4]));
    assert_eq!(frame.len(), 6 + 2 + 122);
}

#[test]
fn a_close_without_a_code_has_no_reason() {
    assert_eq!(ControlFrame::close(None, "never sent", None).as_ref(), [0x88, 0]);
    assert_eq!(ControlFrame::close(None, "", Some([1, 2, 3, 4])).as_ref(), [0x88, 0x80, 1, 2, 3, 4]);
}

#[test]
fn control_frames_are_small() {
    assert!(size_of::<ControlFrame>() <= 132);
    let frame = ControlFrame::ping(&[7; MAX_CONTROL_PAYLOAD], Some([9; 4]));
    assert_eq!(frame.len(), MAX_CONTROL_FRAME);
}

#[test]
#[should_panic(expected = "out of range")]
fn a_ping_of_126_bytes_is_a_mistake_of_ours() {
    let _ = ControlFrame::ping(&[0; 126], None);
}

fn heads() -> impl Strategy<Value = Head> {
    let opcodes =
        prop::sample::select(vec![Opcode::Text, Opcode::Binary, Opcode::Ping, Opcode::Pong, Opcode::Close]);
    let lens = prop_oneof![
        0..200u64,
        0xff00..0x1_0100u64,
        any::<u64>().prop_map(|len| len >> 1),
        Just(125),
        Just(126),
        Just(0xffff),
        Just(0x1_0000),
    ];
    (any::<bool>(), any::<bool>(), opcodes, lens, any::<[u8; 4]>()).prop_map(
        |(fin, rsv1, opcode, len, key)| {
            let control = opcode.is_control();
            let len = match (control, opcode) {
                (true, Opcode::Close) => (len % 126).max(2),
                (true, _) => len % 126,
                (false, _) => len,
            };
            Head { fin: fin || control, rsv1: rsv1 && !control, opcode, len, mask: Some(key) }
        },
    )
}

proptest! {
    #[test]
    fn encoding_then_decoding_is_the_identity(head in heads(), masked: bool, behind: [u8; 3]) {
        let head = Head { mask: head.mask.filter(|_| masked), ..head };
        let mut bytes = [0; MAX_HEADER + 3];
        let len = encode_header(&mut bytes, &head);
        bytes[len..len + 3].copy_from_slice(&behind);
        prop_assert_eq!(len, header_len(usize::try_from(head.len).unwrap(), masked));

        let limits = Limits { message_bytes: usize::MAX, message_fragments: 1 };
        let role = if masked { Role::Server } else { Role::Client };
        let rules = HeaderRules { role, limits: &limits, rsv1: true };
        prop_assert_eq!(decode_header(&bytes[..len + 3], &Sequence::IDLE, rules), Ok(Some((head, len))));
        for end in 0..len {
            prop_assert_eq!(decode_header(&bytes[..end], &Sequence::IDLE, rules), Ok(None));
        }
    }

    #[test]
    fn a_header_before_a_payload_ends_where_it_starts(head in heads(), room in MAX_HEADER..64usize) {
        let mut buffer = vec![0xee; room + 4];
        let start = encode_header_before(&mut buffer, room, &head);
        let mut expected = [0; MAX_HEADER];
        let len = encode_header(&mut expected, &head);
        prop_assert_eq!(&buffer[start..room], &expected[..len]);
        prop_assert!(buffer[..start].iter().chain(&buffer[room..]).all(|&byte| byte == 0xee));
    }

    #[test]
    fn a_verdict_stays_with_more_bytes(bytes: [u8; 14], rsv1: bool, masked: bool) {
        let role = if masked { Role::Server } else { Role::Client };
        let rules = HeaderRules { role, rsv1, limits: &LIMITS };
        for sequence in [Sequence::IDLE, open(Kind::Text), open(Kind::Binary)] {
            let whole = decode_header(&bytes, &sequence, rules);
            prop_assert_ne!(&whole, &Ok(None));
            for end in 0..bytes.len() {
                match decode_header(&bytes[..end], &sequence, rules) {
                    Ok(None) => {}
                    early => prop_assert_eq!(&early, &whole, "at {}", end),
                }
            }
        }
    }

    #[test]
    fn control_frames_carry_their_payload(payload in prop::collection::vec(any::<u8>(), 0..=125), key: [u8; 4]) {
        for mask in [None, Some(key)] {
            let frame = ControlFrame::pong(&payload, mask);
            let rules = HeaderRules {
                role: if mask.is_some() { Role::Server } else { Role::Client },
                ..SERVER
            };
            let (head, at) = decode_header(&frame, &Sequence::IDLE, rules).unwrap().unwrap();
            prop_assert_eq!(head, Head {
                fin: true, rsv1: false, opcode: Opcode::Pong, len: payload.len() as u64, mask,
            });
            let mut plain = ControlPayload::EMPTY;
            let (first, second) = frame[at..].split_at(payload.len() / 3);
            plain.extend(first, mask.unwrap_or_default());
            plain.extend(second, mask.unwrap_or_default());
            prop_assert_eq!(&*plain, &payload[..]);
        }
    }
}
