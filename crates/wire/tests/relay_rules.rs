//! The inspector: what it lets through, what it holds back, and that its verdicts are the decoder's.

mod frames_support;

use frames_support::{
    Item, LIMITS, ROLES, Relayed, Seen, Setup, assemble, control, frame, hex, items, relay, sizes,
};
use proptest::prelude::*;
use tidegate_wire::message::{Kind, Violation};
use tidegate_wire::relay::{Inspector, RelayRules, Segment};
use tidegate_wire::{Limits, Role};

const WHOLE: &[usize] = &[usize::MAX];
const RULES: RelayRules = RelayRules { limits: LIMITS, rsv1: false, utf8: true };
const PASS: RelayRules = RelayRules { rsv1: true, ..RULES };

/// The parts that do not depend on the split: the verdict, the control frames.
fn verdict(relayed: &Relayed) -> (&[Seen], Option<Violation>) {
    (&relayed.controls, relayed.violation)
}

fn controls_of(seen: &[Seen]) -> Vec<Seen> {
    seen.iter().filter(|seen| !matches!(seen, Seen::Message { .. })).cloned().collect()
}

/// What holds for every stream and split: only a valid prefix is forwarded, and it is judged as the decoder
/// judges it.
fn check(role: Role, rules: &RelayRules, stream: &[u8], sizes: &[usize]) -> Relayed {
    let relayed = relay(role, rules, stream, sizes);
    assert!(stream.starts_with(&relayed.forwarded), "forwarded as it came");
    if !rules.rsv1 {
        let setup = Setup { limits: rules.limits, ..Setup::new(role) };
        let (seen, violation) = setup.decode(stream, WHOLE);
        assert_eq!(verdict(&relayed), (&controls_of(&seen)[..], violation));
        let (forwarded, violation) = setup.decode(&relayed.forwarded, WHOLE);
        assert_eq!(violation, None, "nothing bad is forwarded");
        if relayed.violation.is_none() && !seen.iter().any(|seen| matches!(seen, Seen::Close(..))) {
            assert_eq!(forwarded, seen, "everything good is");
        }
    }
    if relayed.violation.is_none()
        && !relayed.carry
        && !relayed.controls.iter().any(|seen| matches!(seen, Seen::Close(..)))
    {
        assert_eq!(relayed.forwarded, stream);
    }
    relayed
}

proptest! {
    #[test]
    fn valid_streams_are_forwarded_as_they_are_for_any_split(
        server: bool, deflate: bool, takeover: bool, utf8: bool, items in items(), sizes in sizes(), keys: u32,
    ) {
        let role = if server { Role::Server } else { Role::Client };
        let setup = Setup { takeover: deflate.then_some(takeover), ..Setup::new(role) };
        let rules = RelayRules { rsv1: deflate, utf8, ..RULES };
        let (stream, events) = assemble(&setup, &items, keys);
        let relayed = check(role, &rules, &stream, &sizes);
        let close = match items.last() {
            Some(Item::Control(seen @ Seen::Close(..))) => control(role, seen, [0; 4]).len(),
            _ => 0,
        };
        prop_assert_eq!(relayed.violation, None);
        prop_assert_eq!(&relayed.forwarded[..], &stream[..stream.len() - close]);
        prop_assert_eq!(relayed.controls, controls_of(&events));
        prop_assert!(!relayed.mid_frame && !relayed.message_open && !relayed.carry);
    }

    #[test]
    fn broken_streams_get_the_decoders_verdict_for_any_split(
        server: bool, items in items(), sizes in sizes(), keys: u32,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
        tight: bool,
    ) {
        let role = if server { Role::Server } else { Role::Client };
        let (mut stream, _) = assemble(&Setup::new(role), &items, keys);
        for (at, byte) in edits {
            if !stream.is_empty() {
                let at = at.index(stream.len());
                stream[at] = byte;
            }
        }
        stream.truncate(cut.index(stream.len() + 1).max(stream.len() / 2));
        let limits = if tight { Limits { message_bytes: 700, message_fragments: 3 } } else { LIMITS };
        let rules = RelayRules { limits, ..RULES };
        check(role, &rules, &stream, WHOLE);
        check(role, &rules, &stream, &sizes);
        if stream.len() < 3000 {
            check(role, &rules, &stream, &[1]);
        }
    }

    #[test]
    fn garbage_never_panics_and_its_verdict_does_not_depend_on_the_split(
        server: bool, rsv1: bool, utf8: bool, sizes in sizes(),
        bytes in prop::collection::vec(prop_oneof![
            2 => any::<u8>(),
            1 => prop::sample::select(vec![0x00, 0x01, 0x80, 0x81, 0x82, 0x88, 0x89, 0xc1, 0x7e, 0xfe, 0xff]),
        ], 0..300),
    ) {
        let role = if server { Role::Server } else { Role::Client };
        let rules = RelayRules { rsv1, utf8, ..RULES };
        let whole = relay(role, &rules, &bytes, WHOLE);
        for sizes in [&sizes[..], &[1]] {
            let split = relay(role, &rules, &bytes, sizes);
            prop_assert_eq!(verdict(&split), verdict(&whole));
            prop_assert!(bytes.starts_with(&split.forwarded));
        }
        if utf8 {
            check(role, &RelayRules { rsv1: false, ..rules }, &bytes, &sizes);
        }
    }
}

#[test]
fn f22_every_split_of_every_length_encoding_in_both_roles() {
    for role in ROLES {
        for len in [0, 1, 125, 126, 300] {
            let text = frames_support::text_of(len, 7, false);
            let stream = [
                frame(role, 0x81, text.as_bytes(), [0x12, 0xfe, 0x80, 0x01]),
                frame(role, 0x89, b"ping", [1, 2, 3, 4]),
                frame(role, 0x82, &[0xff; 9], [9, 8, 7, 6]),
            ]
            .concat();
            for first in 1..=stream.len() {
                let relayed = check(role, &RULES, &stream, &[first, usize::MAX]);
                assert_eq!((relayed.forwarded, relayed.violation), (stream.clone(), None));
            }
        }
        let stream = frame(role, 0x82, &[0xab; 65_536], [0x12, 0xfe, 0x80, 0x01]);
        for first in (1..20).chain([17_472, stream.len() - 1]) {
            assert_eq!(check(role, &RULES, &stream, &[first, usize::MAX]).forwarded, stream);
        }
    }
}

#[test]
fn many_frames_are_one_range() {
    for role in ROLES {
        let stream: Vec<u8> = (0..32u8)
            .flat_map(|i| frame(role, 0x82 - i % 2, &[b'a' + i % 26; 64], [i, 0x80 | i, 3, 200 - i]))
            .chain(frame(role, 0x01, "é".repeat(100).as_bytes(), [1, 2, 3, 4]))
            .chain(frame(role, 0x80, &[b'x'; 300], [1, 2, 3, 4]))
            .collect();
        let mut inspector = Inspector::new(role);
        let mut read = 0;
        match inspector.next(&stream, &mut read, &RULES) {
            Ok(Some(Segment::Forward(range))) => assert_eq!(range, 0..stream.len()),
            other => panic!("{other:?}"),
        }
        assert!(matches!(inspector.next(&stream, &mut read, &RULES), Ok(None)));
        assert!(inspector.at_boundary() && !inspector.message_open());
    }
}

#[test]
fn a_control_frame_is_held_until_it_is_whole() {
    for role in ROLES {
        let ping = frame(role, 0x89, b"are you there", [7, 7, 7, 7]);
        let data = frame(role, 0x01, b"ab", [1, 2, 3, 4]);
        for cut in 1..ping.len() {
            let mut inspector = Inspector::new(role);
            let first = [&data[..], &ping[..cut]].concat();
            let mut read = 0;
            let forwarded = inspector.next(&first, &mut read, &RULES);
            assert!(matches!(forwarded, Ok(Some(Segment::Forward(range))) if range == (0..data.len())));
            assert!(matches!(inspector.next(&first, &mut read, &RULES), Ok(None)));
            assert_eq!(read, first.len());
            assert!(inspector.at_boundary(), "a Close may still be sent here");
            assert!(inspector.message_open() && inspector.has_carry());
            let mut read = 0;
            match inspector.next(&ping[cut..], &mut read, &RULES) {
                Ok(Some(Segment::Ping(control))) => {
                    assert_eq!((control.wire(), &*control.payload()), (&ping[..], &b"are you there"[..]));
                }
                other => panic!("{other:?} at {cut}"),
            }
            assert!(!inspector.has_carry() && inspector.retained_bytes() == 0);
        }
    }
}

#[test]
fn an_empty_frame_ends_with_its_header() {
    for role in ROLES {
        for (b0, open) in [(0x82, false), (0x02, true)] {
            let stream = frame(role, b0, b"", [1, 2, 3, 4]);
            for cut in 1..stream.len() {
                let relayed = check(role, &RULES, &stream, &[cut, usize::MAX]);
                assert!(!relayed.mid_frame && !relayed.carry, "cut at {cut}");
                assert_eq!((relayed.message_open, relayed.forwarded), (open, stream.clone()));
            }
        }
    }
}

/// As soon as it was forwarded: a Close may follow it at once.
#[test]
fn an_empty_frame_whose_header_came_in_parts_ends_with_it() {
    for role in ROLES {
        for first in [0x01, 0x81] {
            let before = frame(role, first, b"ab", [1, 2, 3, 4]);
            let empty = frame(role, 0x80 | if first == 0x01 { 0 } else { 2 }, b"", [5, 6, 7, 8]);
            for cut in 1..empty.len() {
                let mut inspector = Inspector::new(role);
                let (input, rest) = ([&before[..], &empty[..cut]].concat(), &empty[cut..]);
                let mut read = 0;
                while inspector.next(&input, &mut read, &RULES).expect("it is right").is_some() {}
                inspector.take_ended();
                let mut read = 0;
                let held = inspector.next(rest, &mut read, &RULES);
                assert!(matches!(&held, Ok(Some(Segment::Held(held))) if **held == *empty), "{held:?}");
                assert!(inspector.at_boundary() && !inspector.message_open(), "cut at {cut}");
                assert_eq!(inspector.take_ended(), 1);
            }
        }
    }
}

#[test]
fn a_bad_header_is_not_forwarded_and_what_lies_before_it_is() {
    let good = frame(Role::Server, 0x81, b"good", [1, 2, 3, 4]);
    for bad in
        ["83 80 00000000", "81 05", "89 fe", "82 ff 0000000000100001", "80 80 00000000", "c1 80 00000000"]
    {
        let stream = [good.clone(), hex(bad)].concat();
        for sizes in [WHOLE, &[1], &[11], &[3]] {
            let relayed = check(Role::Server, &RULES, &stream, sizes);
            assert_eq!(relayed.forwarded, good, "{bad}");
            assert!(relayed.violation.is_some() && !relayed.mid_frame && !relayed.message_open);
        }
    }
}

#[test]
fn a_bad_frame_is_left_out_whole_if_its_header_was_not_forwarded() {
    let good = frame(Role::Server, 0x81, "gut ☺".as_bytes(), [1, 2, 3, 4]);
    for text in [
        "a\u{fffd}".as_bytes(),
        &b"abc\xffdef"[..],
        b"abc\xe2\x82",
        &[b"x".repeat(5000), vec![0xff]].concat(),
    ] {
        let bad = frame(Role::Server, 0x81, text, [5, 6, 7, 8]);
        let stream = [good.clone(), bad].concat();
        let relayed = check(Role::Server, &RULES, &stream, WHOLE);
        if str::from_utf8(text).is_ok() {
            assert_eq!(relayed.forwarded, stream);
        } else {
            assert_eq!((relayed.forwarded, relayed.violation), (good.clone(), Some(Violation::TextNotUtf8)));
            assert!(!relayed.mid_frame && !relayed.message_open);
        }
    }
    // The second fragment is left out, the message stays open.
    let first = frame(Role::Server, 0x01, b"ab", [1, 2, 3, 4]);
    let stream = [first.clone(), frame(Role::Server, 0x80, b"\xff", [5, 6, 7, 8])].concat();
    let relayed = check(Role::Server, &RULES, &stream, WHOLE);
    assert_eq!(relayed.forwarded, first);
    assert!(!relayed.mid_frame && relayed.message_open);
}

#[test]
fn of_a_frame_that_has_begun_nothing_from_the_bad_byte_on_is_forwarded() {
    for role in ROLES {
        let text = [&b"good text "[..], "é".as_bytes(), b"\xf4\x90\x80\x80 and more"].concat();
        let stream = frame(role, 0x81, &text, [5, 6, 7, 8]);
        let bad = stream.len() - b"\x90\x80\x80 and more".len();
        for first in stream.len() - text.len()..bad {
            let relayed = check(role, &RULES, &stream, &[first, usize::MAX]);
            assert_eq!(relayed.violation, Some(Violation::TextNotUtf8));
            assert!(relayed.mid_frame && relayed.message_open);
            assert_eq!(relayed.forwarded, &stream[..bad], "cut at {first}");
        }
        let long = [&[b'x'; 3000][..], b"\xe2\x82\xac", &[b'y'; 2000], b"\xc0", &[b'z'; 100]].concat();
        let stream = frame(role, 0x81, &long, [5, 6, 7, 8]);
        let relayed = check(role, &RULES, &stream, &[10, usize::MAX]);
        assert_eq!(relayed.forwarded.len(), stream.len() - 101);
    }
}

#[test]
fn a_text_that_ends_inside_a_character_is_never_completed() {
    for role in ROLES {
        let stream = frame(role, 0x81, b"abc\xe2\x82", [5, 6, 7, 8]);
        for first in 1..stream.len() {
            let relayed = check(role, &RULES, &stream, &[first, usize::MAX]);
            assert_eq!(relayed.violation, Some(Violation::TextNotUtf8));
            assert!(relayed.forwarded.len() < stream.len(), "cut at {first}");
        }
        // An empty last frame: its header is all there is to hold back.
        let first = frame(role, 0x01, b"abc\xe2", [5, 6, 7, 8]);
        let stream = [first.clone(), frame(role, 0x80, b"", [5, 6, 7, 8])].concat();
        for cut in 1..stream.len() {
            let relayed = check(role, &RULES, &stream, &[cut, usize::MAX]);
            assert_eq!((relayed.forwarded, relayed.violation), (first.clone(), Some(Violation::TextNotUtf8)));
            assert!(!relayed.mid_frame && relayed.message_open);
        }
    }
}

#[test]
fn without_the_utf8_rule_text_is_not_looked_at() {
    let stream = frame(Role::Server, 0x81, b"\xff\xfe", [5, 6, 7, 8]);
    let rules = RelayRules { utf8: false, ..RULES };
    assert_eq!(relay(Role::Server, &rules, &stream, &[1]).forwarded, stream);
}

#[test]
fn compressed_messages_pass_unread_where_that_was_agreed_upon() {
    // RSV1, and bytes that are neither UTF-8 nor deflate.
    let stream = frame(Role::Server, 0xc1, b"\xff\x06\xff", [5, 6, 7, 8]);
    assert_eq!(relay(Role::Server, &PASS, &stream, &[1]).forwarded, stream);
    assert_eq!(check(Role::Server, &RULES, &stream, &[1]).violation, Some(Violation::CompressionNotAgreed));
    // A continuation of one is not read either; plain text between is.
    let stream = [
        frame(Role::Server, 0x41, b"\xff", [5, 6, 7, 8]),
        frame(Role::Server, 0x80, b"\xff", [5, 6, 7, 8]),
        frame(Role::Server, 0x81, b"\xff", [5, 6, 7, 8]),
    ]
    .concat();
    let relayed = relay(Role::Server, &PASS, &stream, WHOLE);
    assert_eq!((relayed.forwarded.len(), relayed.violation), (14, Some(Violation::TextNotUtf8)));
    for rsv1_misplaced in ["41 81 00000000 ff c0 81 00000000 ff", "c9 80 00000000"] {
        let relayed = relay(Role::Server, &PASS, &hex(rsv1_misplaced), &[1]);
        assert_eq!(relayed.violation, Some(Violation::CompressionMisplaced));
    }
}

#[test]
fn sizes_are_enforced_from_headers() {
    let rules = RelayRules { limits: Limits { message_bytes: 10, message_fragments: 3 }, ..RULES };
    let fragments = |lens: &[usize]| -> Vec<u8> {
        let last = lens.len() - 1;
        lens.iter()
            .enumerate()
            .flat_map(|(i, &len)| {
                let b0 = if i == 0 { 0x02 } else { 0x00 } | if i == last { 0x80 } else { 0 };
                frame(Role::Server, b0, &vec![1; len], [0; 4])
            })
            .collect()
    };
    for sizes in [WHOLE, &[1]] {
        assert_eq!(check(Role::Server, &rules, &fragments(&[10]), sizes).violation, None);
        assert_eq!(check(Role::Server, &rules, &fragments(&[5, 0, 5]), sizes).violation, None);
        let relayed = check(Role::Server, &rules, &fragments(&[11]), sizes);
        assert_eq!((relayed.forwarded.len(), relayed.violation), (0, Some(Violation::TooBig)));
    }
    let relayed = check(Role::Server, &rules, &fragments(&[5, 6]), &[1]);
    assert_eq!((relayed.forwarded.len(), relayed.violation), (11, Some(Violation::TooBig)));
    let relayed = check(Role::Server, &rules, &fragments(&[0, 0, 0, 0]), &[1]);
    assert_eq!(relayed.violation, Some(Violation::TooManyFragments));
}

#[test]
fn rfc6455_5_5_1_nothing_is_forwarded_behind_a_close() {
    let before = frame(Role::Server, 0x81, b"last", [5, 6, 7, 8]);
    let stream = [before.clone(), hex("88 82 00000000 03e8 81 81 00000000 61 ff ff 89 80 00000000")].concat();
    for sizes in [WHOLE, &[1], &[13]] {
        let relayed = relay(Role::Server, &RULES, &stream, sizes);
        assert_eq!(relayed.forwarded, before);
        assert_eq!(relayed.controls, [Seen::Close(Some(1000), String::new())]);
        assert_eq!(relayed.violation, None);
    }
}

#[test]
fn u10_a_masked_frame_from_an_upstream() {
    let relayed = check(Role::Client, &RULES, &hex("81 85 37fa213d 7f9f4d5158"), &[1]);
    assert_eq!((relayed.forwarded.len(), relayed.violation), (0, Some(Violation::Masked)));
}

#[test]
fn the_kind_of_the_first_frame_holds_for_all() {
    // Binary fragments are not text, whatever is in them.
    let items = [Item::Message {
        kind: Kind::Binary,
        compressed: false,
        bytes: vec![0xff; 100],
        cuts: vec![1 << 14, 1 << 15],
        between: vec![Seen::Ping(vec![1])],
    }];
    let (stream, _) = assemble(&Setup::new(Role::Server), &items, 5);
    assert_eq!(check(Role::Server, &RULES, &stream, &[1]).forwarded, stream);
}

#[test]
fn an_idle_leg_is_small() {
    assert!(size_of::<Inspector>() <= 48, "{}", size_of::<Inspector>());
}

#[test]
fn the_time_of_an_open_message_runs_from_its_own_beginning() {
    let mut inspector = Inspector::new(Role::Client);
    let mut feed = |input: &[u8]| {
        let mut read = 0;
        while let Some(segment) = inspector.next(input, &mut read, &RULES).expect("valid frames") {
            assert!(matches!(segment, Segment::Forward(_)), "{segment:?}");
        }
        (inspector.message_open(), inspector.take_begun())
    };
    assert_eq!(feed(b"\x82\x04ab"), (true, true), "one begins");
    assert_eq!(feed(b"c"), (true, false), "and goes on");
    assert_eq!(feed(b"d\x02\x01x"), (true, true), "it ends and the next one begins");
    assert_eq!(feed(b"\x80\x01y"), (false, false), "which ends too");
}
