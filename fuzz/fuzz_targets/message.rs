//! Any split of a stream gives the events and the verdict that a naive reading gives, in both roles, with and without
//! compression; and the heap never holds more than twice what was received of a message, and 4 KiB.
#![no_main]

use std::alloc::System;

use cap::Cap;
use libfuzzer_sys::fuzz_target;
use tidegate_fuzz::model::{self, End, Reading, Said};
use tidegate_fuzz::{Rules, Source, assert_returned, frames, pieces};
use tidegate_wire::frame::{MAX_HEADER, header_len};
use tidegate_wire::message::{Cursor, DecodeContext, Decoder, Event, Kind, Payload, Spares};

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

fuzz_target!(|data: &[u8]| {
    let mut source = Source(data);
    let rules = Rules::take(&mut source);
    let (cuts, how) = (source.pair(), source.byte());
    let built;
    let stream = match how & 1 {
        0 => source.0,
        _ => {
            built = frames::built(&mut source, &rules);
            &built
        }
    };
    let expected = model::read(stream, &rules);
    let spares = if how & 2 == 0 { 0 } else { 1 << 16 };
    let compact = how & 4 == 0;
    let short = how & 8 == 0;
    assert_eq!(decode(stream, 0, &rules, spares, compact, short), expected, "whole");
    assert_eq!(decode(stream, cuts, &rules, spares, compact, short), expected, "cut by {cuts}");
    if stream.len() < 2048 {
        assert_eq!(decode(stream, 1, &rules, spares, compact, short), expected, "byte by byte");
    }
    weigh(stream, cuts, &rules);
});

fn decode(stream: &[u8], cuts: u16, rules: &Rules, spares: usize, compact: bool, short: bool) -> Reading {
    let mut codecs = rules.codecs();
    let mut compression = rules.compression(&mut codecs);
    let mut spares = Spares::new(spares);
    let mut decoder = Decoder::new(rules.role);
    let mut said = Vec::new();
    let mut end = End::Open;
    for piece in pieces(stream.len(), cuts) {
        let mut input = stream[piece].to_vec();
        let mut cursor = Cursor { compact, ..Cursor::default() };
        loop {
            if short && end == End::Open {
                let before = cursor.write;
                decoder.answer_short(&mut input, &mut cursor, &rules.limits, usize::MAX);
                read_answers(&input[before..cursor.write], &mut said);
            }
            let mut cx = DecodeContext {
                limits: &rules.limits,
                compression: compression.as_mut(),
                codecs: &mut codecs,
                spares: &mut spares,
            };
            let event = decoder.next(&mut input, &mut cursor, &mut cx);
            match (event, end) {
                (Err(violation), End::Open) => end = End::Failed(violation),
                (Err(violation), End::Failed(before)) => {
                    assert_eq!(violation, before, "a verdict is final");
                    break;
                }
                (Ok(None), End::Open | End::Closed) => {
                    assert_eq!(cursor.read, input.len(), "an input is used up");
                    break;
                }
                (Ok(Some(event)), End::Open) => {
                    if let Event::Message { payload: Payload::InPlace(range), .. } = &event {
                        let answer = range.start - header_len(range.len(), false);
                        assert!(cursor.write <= answer && range.end <= cursor.read, "room for the answer");
                        cursor.write = range.end;
                    }
                    if matches!(event, Event::Close(_)) {
                        end = End::Closed;
                    }
                    said.push(say(event, &input, &mut spares));
                }
                (event, end) => panic!("{event:?} after {end:?}"),
            }
        }
        assert!(decoder.has_carry() || decoder.retained_bytes() == 0, "nothing incomplete, nothing held");
        assert!(end == End::Open || !decoder.is_partial(), "behind the end nothing is incomplete");
    }
    decoder.abandon(&mut codecs);
    assert_eq!(decoder.retained_bytes(), 0);
    if let Some(compression) = compression {
        compression.release(&mut codecs);
    }
    assert_returned(&codecs);
    Reading { said, end }
}

/// What was answered at once, read off its answers.
fn read_answers(mut answers: &[u8], said: &mut Vec<Said>) {
    while let [b0, len, behind @ ..] = answers {
        let (bytes, next) = behind.split_at(usize::from(*len));
        let kind = if *b0 == 0x81 { Kind::Text } else { Kind::Binary };
        said.push(Said::Message { kind, compressed: false, payload: bytes.to_vec() });
        answers = next;
    }
}

fn say(event: Event, input: &[u8], spares: &mut Spares) -> Said {
    match event {
        Event::Message { kind, compressed, payload } => {
            let bytes = payload.bytes(input).to_vec();
            if let Payload::Owned(owned) = payload {
                assert!(owned.start >= MAX_HEADER, "room for the answer's header");
                spares.give(owned.buffer);
            }
            Said::Message { kind, compressed, payload: bytes }
        }
        Event::Ping(payload) => Said::Ping(payload.to_vec()),
        Event::Pong(payload) => Said::Pong(payload.to_vec()),
        Event::Close(close) => Said::Close(close.code.map(u16::from), close.reason.to_string()),
    }
}

/// What a decoder says that it holds is what the allocator knows of, and within bounds.
fn weigh(stream: &[u8], cuts: u16, rules: &Rules) {
    let mut codecs = rules.codecs();
    let mut compression = rules.compression(&mut codecs);
    let mut spares = Spares::new(0);
    let mut decoder = Decoder::new(rules.role);
    let mut input = stream.to_vec();
    // What was received since the last message was whole.
    let mut received = 0;
    for piece in pieces(stream.len(), cuts) {
        let input = &mut input[piece];
        let mut cursor = Cursor { compact: true, ..Cursor::default() };
        let mut counted = 0;
        // Partials are kept for the next one, however small the budget.
        let before = HEAP.allocated() - decoder.retained_bytes() - spares.retained_bytes();
        loop {
            let mut cx = DecodeContext {
                limits: &rules.limits,
                compression: compression.as_mut(),
                codecs: &mut codecs,
                spares: &mut spares,
            };
            match decoder.next(input, &mut cursor, &mut cx) {
                Ok(Some(Event::Message { .. })) => (counted, received) = (cursor.read, 0),
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => break,
            }
        }
        received += input.len() - counted;
        let held = decoder.retained_bytes();
        if rules.deflate.is_none() {
            let after = HEAP.allocated() - spares.retained_bytes();
            // The list of spare partials may have grown.
            assert!(
                after - before >= held && after - before <= held + 1024,
                "it holds {held}, really {}",
                after - before
            );
            assert!(held <= 2 * received + 4096, "{held} bytes held of {received} received");
        } else {
            let most = 2 * received.max(rules.limits.message_bytes) + 4096;
            assert!(held <= most + 4096, "{held} bytes held of a message of at most {most}");
        }
    }
    decoder.abandon(&mut codecs);
    if let Some(compression) = compression {
        compression.release(&mut codecs);
    }
}
