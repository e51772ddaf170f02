//! Properties of the decoder: any split of any stream gives the same events and the same verdict.

mod frames_support;

use frames_support::{End, Item, ROLES, Seen, Setup, assemble, echoes, frame, items, setups, sizes};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use tidegate_wire::Role;
use tidegate_wire::message::{Kind, Violation};

const WHOLE: &[usize] = &[usize::MAX];

proptest! {
    #[test]
    fn valid_streams_give_their_events_for_any_split(
        setup in setups(), items in items(), sizes in sizes(), keys: u32,
    ) {
        let (stream, events) = assemble(&setup, &items, keys);
        let mut end = End::new(setup);
        prop_assert_eq!(end.feed_all(&stream, &sizes), None);
        prop_assert_eq!(&end.seen, &events);
        prop_assert_eq!(end.answers, echoes(&events), "what the echo sends");
        prop_assert!(!end.decoder.has_carry() && !end.decoder.is_partial());
        prop_assert_eq!(end.decoder.retained_bytes(), 0);
        prop_assert_eq!(end.codecs.stats().inflaters_lent, 0);
    }

    #[test]
    fn broken_streams_get_the_same_verdict_for_any_split(
        setup in setups(), items in items(), sizes in sizes(), keys: u32,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
        tight: bool,
    ) {
        let (mut stream, _) = assemble(&setup, &items, keys);
        for (at, byte) in edits {
            if !stream.is_empty() {
                let at = at.index(stream.len());
                stream[at] = byte;
            }
        }
        stream.truncate(cut.index(stream.len() + 1).max(stream.len() / 2));
        let setup = if tight { setup.limits(700, 3) } else { setup };
        // Without an inflater a compressed message is judged when it is complete, not before.
        let setup = Setup { inflaters: setup.inflaters.max(1), ..setup };
        let whole = setup.decode(&stream, WHOLE);
        prop_assert_eq!(&setup.decode(&stream, &sizes), &whole);
        if stream.len() < 3000 {
            prop_assert_eq!(&setup.decode(&stream, &[1]), &whole);
        }
    }

    #[test]
    fn garbage_never_panics_and_its_verdict_does_not_depend_on_the_split(
        setup in setups(), sizes in sizes(),
        bytes in prop::collection::vec(prop_oneof![
            2 => any::<u8>(),
            1 => prop::sample::select(vec![0x00, 0x01, 0x80, 0x81, 0x82, 0x88, 0x89, 0xc1, 0x7e, 0xfe, 0xff]),
        ], 0..300),
    ) {
        let setup = Setup { inflaters: setup.inflaters.max(1), ..setup };
        let whole = setup.decode(&bytes, WHOLE);
        prop_assert_eq!(&setup.decode(&bytes, &sizes), &whole);
        prop_assert_eq!(&setup.decode(&bytes, &[1]), &whole);
    }

    #[test]
    fn what_is_held_is_bounded_by_what_was_received(
        setup in setups(), items in items(), sizes in sizes(), keys: u32,
    ) {
        let setup = Setup { takeover: None, ..setup };
        let (stream, _) = assemble(&setup, &items, keys);
        let mut end = End::new(setup);
        let mut received = 0;
        for piece in frames_support::pieces(&stream, &sizes) {
            let seen = end.seen.len();
            prop_assert_eq!(end.feed(piece), Ok(()));
            if end.seen[seen..].iter().any(|seen| matches!(seen, Seen::Message { .. })) {
                received = 0;
            }
            received += piece.len();
            prop_assert!(end.decoder.retained_bytes() <= 2 * received + 4096);
        }
    }
}

/// Every split in two of `stream`, and byte by byte.
fn every_split(setup: Setup, stream: &[u8], offsets: impl Iterator<Item = usize>) {
    let whole = setup.decode(stream, WHOLE);
    assert_eq!(whole.1, None);
    for at in offsets {
        let mut end = End::new(setup);
        assert_eq!(end.feed(&stream[..at]), Ok(()), "at {at}");
        assert_eq!(end.feed(&stream[at..]), Ok(()), "at {at}");
        assert_eq!(end.seen, whole.0, "at {at}");
        assert_eq!(end.answers, echoes(&whole.0), "at {at}");
    }
}

#[test]
fn f22_every_split_of_every_length_encoding_in_both_roles() {
    for role in ROLES {
        for (compact, short) in [(true, None), (true, Some(usize::MAX)), (false, None)] {
            let setup = Setup { compact, short, ..Setup::new(role) };
            for len in [0, 1, 5, 125, 126, 127, 300] {
                for ascii in [true, false] {
                    let text = frames_support::text_of(len, 7, ascii);
                    let stream = [
                        frame(role, 0x81, text.as_bytes(), [0x12, 0xfe, 0x80, 0x01]),
                        frame(role, 0x89, b"ping", [1, 2, 3, 4]),
                        frame(role, 0x82, &[0xff; 9], [9, 8, 7, 6]),
                    ]
                    .concat();
                    every_split(setup, &stream, 0..=stream.len());
                }
            }
            for len in [65_535, 65_536] {
                let text = frames_support::text_of(len, 3, false);
                let stream = frame(role, 0x81, text.as_bytes(), [0x12, 0xfe, 0x80, 0x01]);
                let end = stream.len();
                every_split(
                    setup,
                    &stream,
                    (0..40).chain((40..end - 40).step_by(4_999)).chain(end - 40..=end),
                );
            }
        }
    }
}

#[test]
fn f22_every_two_splits_of_small_frames() {
    for role in ROLES {
        let setup = Setup::new(role);
        let stream = [
            frame(role, 0x01, "aé".as_bytes(), [0x80, 2, 3, 4]),
            frame(role, 0x89, b"?", [5, 6, 7, 8]),
            frame(role, 0x80, "€!".as_bytes(), [9, 0xff, 11, 12]),
            frame(role, 0x81, b"next", [1, 1, 1, 1]),
        ]
        .concat();
        let whole = setup.decode(&stream, WHOLE);
        assert_eq!(whole.0, [Seen::Ping(b"?".into()), Seen::text("aé€!"), Seen::text("next")]);
        for first in 1..stream.len() {
            for second in first..stream.len() {
                let sizes = [first, (second - first).max(1), usize::MAX];
                assert_eq!(setup.decode(&stream, &sizes), whole, "{first} {second}");
            }
        }
    }
}

#[test]
fn thirty_two_small_messages_in_one_buffer_are_answered_end_to_end() {
    for role in ROLES {
        let setup = Setup::new(role);
        let stream: Vec<u8> = (0..32u8)
            .flat_map(|i| frame(role, 0x82 - i % 2, &[b'a' + i % 26; 64], [i, 0x80 | i, 3, 200 - i]))
            .collect();
        let mut end = End::new(setup);
        assert_eq!(end.feed(&stream), Ok(()));
        assert_eq!(end.seen.len(), 32);
        assert_eq!(end.answer_pieces, 1, "one send");
        assert_eq!(end.answers, echoes(&end.seen));
        assert!(end.owned.is_empty(), "nothing was copied");
    }
}

#[test]
fn messages_that_span_inputs_use_the_same_buffers_over_and_over() {
    let role = Role::Server;
    let text = frames_support::text_of(64 << 10, 1, false);
    let message = frame(role, 0x81, text.as_bytes(), [1, 2, 3, 4]);
    let mut end = End::new(Setup::new(role));
    for round in 0..200 {
        assert_eq!(end.feed_all(&message, &[17_472]), None);
        assert_eq!(end.seen.pop(), Some(Seen::text(&text)), "round {round}");
    }
    let mut late: Vec<_> = end.owned.split_off(3);
    late.sort_unstable();
    late.dedup();
    assert_eq!(late.len(), 1, "one buffer serves all: {late:?}");
    assert!(late[0].1 <= 2 * message.len() + 4096);
}

#[test]
fn a_broken_stream_is_always_one_that_the_generator_can_reach() {
    // The generator of broken streams must reach the verdicts that matter, or its property says nothing.
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut seen = std::collections::BTreeMap::new();
    let strategy = (setups(), items(), any::<u32>(), any::<prop::sample::Index>(), any::<u8>());
    for _ in 0..600 {
        let (setup, items, keys, at, byte) = strategy.new_tree(&mut runner).unwrap().current();
        let (mut stream, _) = assemble(&setup, &items, keys);
        if stream.len() > 20_000 || stream.is_empty() {
            continue;
        }
        let at = at.index(stream.len());
        stream[at] = byte;
        if let (_, Some(violation)) = setup.limits(700, 3).decode(&stream, WHOLE) {
            *seen.entry(violation.text()).or_insert(0) += 1;
        }
    }
    for wanted in
        [Violation::TextNotUtf8, Violation::TooBig, Violation::TooManyFragments, Violation::ReservedBits]
    {
        assert!(seen.contains_key(wanted.text()), "{} is not among {seen:?}", wanted.text());
    }
}

#[test]
fn empty_messages_of_every_shape() {
    for role in ROLES {
        for takeover in [None, Some(false), Some(true)] {
            let setup = Setup { takeover, ..Setup::new(role) };
            let items: Vec<Item> = [0, 1, 2]
                .into_iter()
                .flat_map(|cuts| {
                    [Kind::Text, Kind::Binary].map(|kind| Item::Message {
                        kind,
                        compressed: true,
                        bytes: Vec::new(),
                        cuts: vec![0; cuts],
                        between: Vec::new(),
                    })
                })
                .collect();
            let (stream, events) = assemble(&setup, &items, 1);
            for sizes in [WHOLE, &[1], &[3]] {
                assert_eq!(setup.decode(&stream, sizes), (events.clone(), None));
            }
        }
    }
}
