//! Inflating takes what deflating made back to what it was, whatever the window, the level, the context and the
//! division into pieces; no output passes the limit; arbitrary bytes mean what a naive inflater makes of them; and
//! everything lent comes back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_fuzz::{Rules, Source, assert_returned, model, pieces};
use tidegate_wire::deflate::{CodecLimits, Codecs, Compression, InflateError};
use tidegate_wire::extension::DeflateParams;
use tidegate_wire::frame::{Head, Opcode};
use tidegate_wire::message::{Kind, Violation};
use tidegate_wire::{Limits, Role};

fuzz_target!(|data: &[u8]| {
    let mut source = Source(data);
    let (flags, windows, cuts) = (source.byte(), source.byte(), source.pair());
    let limits = CodecLimits {
        inflaters: u32::from(flags & 1),
        deflaters: 1,
        takeover_bytes: if flags & 2 == 0 { 0 } else { 1 << 20 },
        level: flags >> 5,
    };
    let params = DeflateParams {
        server_no_context_takeover: flags & 4 != 0,
        client_no_context_takeover: flags & 8 != 0,
        server_max_window_bits: 9 + windows % 7,
        client_max_window_bits: 9 + windows / 16 % 7,
        server_max_window_bits_named: false,
    };
    if flags & 16 == 0 {
        there_and_back(source, limits, params, cuts);
    } else {
        foreign(source, limits, params, cuts);
    }
});

/// Messages in both directions of one session.
fn there_and_back(mut source: Source<'_>, limits: CodecLimits, params: DeflateParams, cuts: u16) {
    let mut codecs = Codecs::new(limits);
    let mut server = Compression::new(params, Role::Server, &mut codecs);
    let mut client = Compression::new(params, Role::Client, &mut codecs);
    let mut session = Vec::new();
    let mut messages = 0;
    while !source.is_empty() && messages < 8 {
        messages += 1;
        let (flags, len) = (source.byte(), source.byte());
        let mut message = source.bytes(len.into()).to_vec();
        if flags & 1 != 0 && !message.is_empty() {
            let len = message.len() * message.len();
            message = message.iter().copied().cycle().take(len).collect();
        }
        if flags & 2 != 0 {
            message.extend_from_within(..);
            message.extend_from_slice(&session);
            message.truncate(70_000);
        }
        session.extend_from_slice(&message);
        let (sender, receiver) = match flags & 4 {
            0 => (&mut server, &mut client),
            _ => (&mut client, &mut server),
        };
        let mut wire = vec![0xa5];
        if flags & 8 == 0 {
            sender.deflate(&mut codecs, &message, &mut wire);
        } else {
            // As a message to many is.
            codecs.deflate(sender.window_bits(), &message, &mut wire);
            sender.reset_deflater();
        }
        assert_eq!(wire.remove(0), 0xa5, "what stood in the buffer stays");
        assert!(!wire.is_empty(), "RFC 7692 §7.2.3.6: an empty message has one byte");
        assert!(wire.len() <= message.len() + message.len() / 8 + 64, "what the receiver allows for");

        let short = flags & 16 != 0 && !message.is_empty();
        let limit = message.len() - usize::from(short);
        let (out, verdict) = inflate(receiver, &mut codecs, &wire, cuts, limit);
        if short {
            assert_eq!(verdict, Err(InflateError::TooBig), "one byte too many");
            assert_eq!(out, message[..limit]);
            break;
        }
        assert_eq!(verdict, Ok(()));
        assert!(out == message, "a message of {} bytes came back differently", message.len());
    }
    server.release(&mut codecs);
    client.release(&mut codecs);
    assert_returned(&codecs);
    let stats = codecs.stats();
    assert!(stats.inflaters_idle <= 1 + limits.inflaters && stats.deflaters <= limits.deflaters);
}

/// Messages that anyone may have sent, against the model of a whole connection.
fn foreign(mut source: Source<'_>, limits: CodecLimits, params: DeflateParams, cuts: u16) {
    let message_bytes = [0, 1, 100, 5000, 30_000][usize::from(source.byte() % 5)];
    let wire_limits = Limits { message_bytes, message_fragments: 1 };
    let rules = Rules { role: Role::Server, limits: wire_limits, deflate: Some(params), inflaters: 1 };
    let mut stream = Vec::new();
    let mut codecs = Codecs::new(limits);
    let mut ways = [0, 1, cuts].map(|cuts| (cuts, Compression::new(params, Role::Server, &mut codecs)));
    let mut messages = 0;
    'session: while !source.is_empty() && messages < 8 {
        messages += 1;
        let len = usize::from(source.pair()) % 2048;
        let payload = source.bytes(len);
        if payload.len() > message_bytes + message_bytes / 8 + 64 {
            break;
        }
        let head = Head {
            fin: true,
            rsv1: true,
            opcode: Opcode::Binary,
            len: payload.len() as u64,
            mask: Some([0; 4]),
        };
        tidegate_fuzz::frames::push(&mut stream, &head, payload);
        let reading = model::read(&stream, &rules);
        for (cuts, compression) in &mut ways {
            let (out, verdict) = inflate(compression, &mut codecs, payload, *cuts, message_bytes);
            match (verdict, reading.end) {
                (Ok(()), model::End::Open) => {
                    let said = model::Said::Message { kind: Kind::Binary, compressed: true, payload: out };
                    assert_eq!(Some(&said), reading.said.last(), "cut by {cuts}");
                }
                (Err(InflateError::Corrupt), model::End::Failed(Violation::DeflateCorrupt)) => {}
                (Err(InflateError::TooBig), model::End::Failed(Violation::TooBig)) => {}
                (verdict, expected) => panic!("{verdict:?} for {expected:?}, cut by {cuts}"),
            }
        }
        if reading.end != model::End::Open {
            break 'session;
        }
    }
    for (_, compression) in ways {
        compression.release(&mut codecs);
    }
    assert_returned(&codecs);
}

/// A whole message in pieces.
fn inflate(
    compression: &mut Compression,
    codecs: &mut Codecs,
    wire: &[u8],
    cuts: u16,
    limit: usize,
) -> (Vec<u8>, Result<(), InflateError>) {
    let mut out = Vec::new();
    let verdict = match compression.begin(codecs) {
        Some(mut inflation) => {
            let fed = pieces(wire.len(), cuts).into_iter().try_for_each(|piece| {
                let fed = inflation.feed(&wire[piece], &mut out, limit);
                assert!(out.len() <= limit && out.capacity() <= limit.max(2 * out.len() + 16 * 1024));
                fed
            });
            match fed {
                Ok(()) => inflation.finish(compression, codecs, &out, limit),
                Err(error) => {
                    let before = out.clone();
                    let again = inflation.feed(&[0], &mut out, limit);
                    assert!(again.is_err() && out == before, "an error is final");
                    inflation.abandon(codecs);
                    Err(error)
                }
            }
        }
        None => codecs.inflate_whole(compression, wire, &mut out, limit),
    };
    assert!(out.len() <= limit);
    (out, verdict)
}
