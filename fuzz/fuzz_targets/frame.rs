//! What is encoded is decoded again, in the shortest form; and the inspector that reads along comes to the decoder's
//! verdict, forwards every byte before it once and in order, and nothing that a strict reader would refuse.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_fuzz::model::{self, End, Reading, Said};
use tidegate_fuzz::{Rules, Source, frames, pieces};
use tidegate_wire::close::CloseCode;
use tidegate_wire::frame::{
    ControlFrame, Head, MAX_HEADER, Opcode, encode_header, encode_header_before, header_len,
};
use tidegate_wire::message::Violation;
use tidegate_wire::relay::{Inspector, RelayRules, Segment};
use tidegate_wire::{Limits, Role};

fuzz_target!(|data: &[u8]| {
    let mut source = Source(data);
    let rules = Rules::take(&mut source);
    let (cuts, how) = (source.pair(), source.byte());
    header(source);
    control(source);
    let built;
    let stream = match how & 1 {
        0 => source.0,
        _ => {
            built = frames::built(&mut source, &rules);
            &built
        }
    };
    inspect(stream, cuts, &rules);
});

/// A header of any fields, written and read.
fn header(mut source: Source<'_>) {
    const OPCODES: [Opcode; 6] =
        [Opcode::Continuation, Opcode::Text, Opcode::Binary, Opcode::Close, Opcode::Ping, Opcode::Pong];
    let flags = source.byte();
    let opcode = OPCODES[usize::from(flags & 7) % 6];
    let bits = u32::from(source.byte() & 63);
    let len = (u64::from(source.pair()) << 16 | u64::from(source.pair())).rotate_left(bits) >> 1;
    let mask = (flags & 8 != 0).then_some([source.byte(), source.byte(), source.byte(), source.byte()]);
    let head = Head { fin: flags & 16 != 0, rsv1: flags & 32 != 0, opcode, len, mask };
    let mut out = [0xa5; MAX_HEADER + 1];
    let size = encode_header(&mut out, &head);
    assert_eq!(out[MAX_HEADER], 0xa5);

    assert_eq!(out[0], u8::from(head.fin) << 7 | u8::from(head.rsv1) << 6 | opcode as u8);
    let (len_read, at) = match out[1] & 0x7f {
        126 => (u64::from(out[2]) << 8 | u64::from(out[3]), 4),
        127 => (out[2..10].iter().fold(0, |len, byte| len << 8 | u64::from(*byte)), 10),
        short => (u64::from(short), 2),
    };
    assert_eq!(len_read, len);
    assert_eq!(
        at,
        if len < 126 {
            2
        } else if len < 65_536 {
            4
        } else {
            10
        },
        "the shortest form"
    );
    assert_eq!(out[1] & 0x80 != 0, mask.is_some());
    assert_eq!(size, at + mask.map_or(0, |_| 4));
    if let Some(key) = mask {
        assert_eq!(out[at..size], key);
    }
    assert_eq!(header_len(len as usize, mask.is_some()), size);
    let mut before = [0xa5; 40];
    let start = encode_header_before(&mut before, 30, &head);
    assert_eq!(before[start..30], out[..size]);
    assert!(before[..start].iter().chain(&before[30..]).all(|byte| *byte == 0xa5));
}

/// A control frame, read by both.
fn control(mut source: Source<'_>) {
    let flags = source.byte();
    let role = if flags & 1 == 0 { Role::Server } else { Role::Client };
    let mask = (role == Role::Server).then_some([source.byte(), source.byte(), source.byte(), source.byte()]);
    let code = source.pair();
    let rest = source.0;
    let short = &rest[..rest.len().min(125)];
    let (frame, expected, end) = match flags >> 1 & 3 {
        0 => (ControlFrame::ping(short, mask), Said::Ping(short.to_vec()), End::Open),
        1 => (ControlFrame::pong(short, mask), Said::Pong(short.to_vec()), End::Open),
        _ => {
            let code = CloseCode::new(code);
            let text = String::from_utf8_lossy(rest);
            let reason = if code.is_some() { &text[..text.floor_char_boundary(123)] } else { "" };
            let said = Said::Close(code.map(u16::from), reason.to_owned());
            (ControlFrame::close(code, &text, mask), said, End::Closed)
        }
    };
    let limits = Limits { message_bytes: 0, message_fragments: 0 };
    let rules = Rules { role, limits, deflate: None, inflaters: 0 };
    let expected = Reading { said: vec![expected], end };
    assert_eq!(model::read(&frame, &rules), expected);
    for cuts in [0, 1] {
        assert_eq!(relay(&frame, cuts, &rules, true).reading, expected);
    }
}

/// What an inspector did with a stream.
struct Relayed {
    /// Controls (no messages) and the verdict.
    reading: Reading,
    /// All that went on, control frames in their places.
    forwarded: Vec<u8>,
    at_boundary: bool,
}

fn relay(stream: &[u8], cuts: u16, rules: &Rules, utf8: bool) -> Relayed {
    let relay_rules = RelayRules { limits: rules.limits, rsv1: rules.deflate.is_some(), utf8 };
    let mut inspector = Inspector::new(rules.role);
    let mut said = Vec::new();
    let mut end = End::Open;
    let mut forwarded = Vec::new();
    for piece in pieces(stream.len(), cuts) {
        let input = &stream[piece];
        let mut read = 0;
        loop {
            match (inspector.next(input, &mut read, &relay_rules), end) {
                (Err(violation), End::Open) => end = End::Failed(violation),
                (Err(violation), End::Failed(before)) => {
                    assert_eq!(violation, before, "a verdict is final");
                    break;
                }
                (Ok(None), End::Open | End::Closed) => {
                    assert_eq!(read, input.len(), "an input is used up");
                    break;
                }
                (Ok(Some(segment)), End::Open) => match segment {
                    Segment::Forward(range) => {
                        assert!(!range.is_empty() && range.end == read);
                        forwarded.extend_from_slice(&input[range]);
                    }
                    Segment::Held(header) => forwarded.extend_from_slice(&header),
                    Segment::Ping(control) => {
                        assert!(inspector.at_boundary(), "a control frame is forwarded between frames");
                        forwarded.extend_from_slice(control.wire());
                        said.push(Said::Ping(control.payload().to_vec()));
                    }
                    Segment::Pong(control) => {
                        assert!(inspector.at_boundary(), "a control frame is forwarded between frames");
                        forwarded.extend_from_slice(control.wire());
                        said.push(Said::Pong(control.payload().to_vec()));
                    }
                    Segment::Close(close) => {
                        assert!(inspector.at_boundary());
                        end = End::Closed;
                        said.push(Said::Close(close.code.map(u16::from), close.reason.to_string()));
                    }
                },
                (segment, end) => panic!("{segment:?} after {end:?}"),
            }
        }
        assert!(inspector.retained_bytes() <= 256);
        assert!(inspector.has_carry() || inspector.retained_bytes() == 0);
    }
    Relayed { reading: Reading { said, end }, forwarded, at_boundary: inspector.at_boundary() }
}

fn inspect(stream: &[u8], cuts: u16, rules: &Rules) {
    let full = model::read(stream, rules);
    let controls = |said: &[Said]| -> Vec<Said> {
        said.iter().filter(|said| !matches!(said, Said::Message { .. })).cloned().collect()
    };
    for cuts in [0, 1, cuts] {
        if cuts == 1 && stream.len() > 4096 {
            continue;
        }
        let relayed = relay(stream, cuts, rules, true);
        let Relayed { reading, forwarded, .. } = &relayed;
        assert!(stream.starts_with(forwarded), "bytes are forwarded once and in order");
        // What is in compressed messages is not the inspector's to judge: it may read on where the model stopped.
        let inside = rules.deflate.is_some()
            && matches!(
                full.end,
                End::Failed(Violation::DeflateCorrupt | Violation::TooBig | Violation::TextNotUtf8)
            );
        if !inside {
            assert_eq!(reading.end, full.end, "cut by {cuts}");
            assert_eq!(reading.said, controls(&full.said), "cut by {cuts}");
        } else {
            assert!(reading.said.starts_with(&controls(&full.said)), "cut by {cuts}");
        }
        if reading.end == End::Open {
            let held = stream.len() - forwarded.len();
            assert!(held <= 130, "{held} bytes held back");
        }
        // A strict reader behind it finds nothing to refuse, and all that was whole before the verdict.
        if rules.deflate.is_none() {
            let behind = model::read(forwarded, rules);
            assert_eq!(behind.end, End::Open, "cut by {cuts}: forwarded {}", forwarded.escape_ascii());
            let close = usize::from(full.end == End::Closed);
            assert_eq!(behind.said, full.said[..full.said.len() - close], "cut by {cuts}");
        }
        // Where a frame of one's own may follow, it is read as one.
        if relayed.at_boundary && rules.deflate.is_none() {
            let mask = (rules.role == Role::Server).then_some([1, 2, 3, 4]);
            let mut with_close = forwarded.clone();
            with_close.extend_from_slice(&ControlFrame::close(Some(CloseCode::GOING_AWAY), "", mask));
            assert_eq!(model::read(&with_close, rules).end, End::Closed, "cut by {cuts}");
        }
    }
}
