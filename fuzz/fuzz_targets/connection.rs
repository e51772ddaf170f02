//! A whole connection as a shard serves it: the head through the scanner, the upgrade, then frames answered where they
//! lie, in receive buffers cut anywhere. The bytes that go out are those of a naive server that has all of the input
//! at hand.
#![no_main]

use std::ops::Range;

use libfuzzer_sys::fuzz_target;
use tidegate_fuzz::model::{self, End, Reading, Said};
use tidegate_fuzz::{Rules, Source, assert_returned, frames, pieces};
use tidegate_wire::close::CloseCode;
use tidegate_wire::deflate::{Codecs, Compression};
use tidegate_wire::extension::{DeflateParams, DeflatePolicy, negotiate};
use tidegate_wire::frame::{ControlFrame, Head, MAX_HEADER, Opcode, encode_header_before};
use tidegate_wire::handshake::{Accepted, switching_protocols, upgrade};
use tidegate_wire::http::{Framing, HeadScanner, Refusal, Request, ResponseHead, Scan};
use tidegate_wire::message::{Cursor, DecodeContext, Decoder, Event, OwnedPayload, Payload, Spares};
use tidegate_wire::{HeadLimits, Limits, Role};

/// Payloads from here on are answered compressed, where that was agreed.
const DEFLATE_FROM: usize = 64;

const OFFERS: [&str; 4] = [
    "",
    "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n",
    "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9; client_no_context_takeover\r\n",
    "Sec-WebSocket-Extensions: x-unknown, permessage-deflate; server_no_context_takeover\r\n",
];

fuzz_target!(|data: &[u8]| {
    let mut source = Source(data);
    let mut rules = Rules::take(&mut source);
    rules.role = Role::Server;
    rules.inflaters = 2;
    let policy = DeflatePolicy { context_takeover: rules.peer_takes_over(), max_window_bits: 15 };
    let (cuts, how) = (source.pair(), source.byte());
    let mut stream = Vec::new();
    if how & 1 == 0 {
        // A good head, then frames.
        stream.extend_from_slice(b"GET /echo HTTP/1.1\r\nHost: gw.test\r\nUpgrade: websocket\r\n");
        stream.extend_from_slice(b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n");
        stream.extend_from_slice(b"Sec-WebSocket-Version: 13\r\n");
        stream.extend_from_slice(OFFERS[usize::from(how >> 1 & 3)].as_bytes());
        stream.extend_from_slice(b"\r\n");
        rules.deflate = agree(&stream, &policy);
        if how & 8 == 0 {
            stream.extend(frames::built(&mut source, &rules));
        }
    }
    stream.extend_from_slice(source.0);

    let expected = expect(&stream, &rules, &policy);
    for cuts in [0, cuts] {
        let (out, params) = Connection::serve(&stream, cuts, &rules, &policy);
        expected.compare(&out, params, &rules);
    }
});

/// What a good head agrees to.
fn agree(head: &[u8], policy: &DeflatePolicy) -> Option<DeflateParams> {
    let request = Request::parse(head, &HeadLimits::default(), false).expect("the head is good");
    negotiate(&upgrade(&request).expect("the head is good").offers, policy)
}

/// What is to go out.
enum Expected {
    /// Nothing: the head is not whole.
    Nothing,
    /// One answer with this status.
    Refused(u16),
    /// The 101 and what was said, in the order of the answers.
    Session { head: Vec<u8>, params: Option<DeflateParams>, said: Vec<Said> },
}

/// The naive server. It finds the end of the head by looking for it.
fn expect(stream: &[u8], rules: &Rules, policy: &DeflatePolicy) -> Expected {
    let limits = HeadLimits::default();
    // What a head may begin with counts only once; whether it is one is judged by the code under test, at once.
    let end = stream.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
    let refused = |refusal: Refusal| Expected::Refused(refusal.status);
    match (HeadScanner::new().scan(stream, &limits), end) {
        (Err(refusal), _) => return refused(refusal),
        (Ok(Scan::Partial), _) => return Expected::Nothing,
        (Ok(Scan::Complete(end)), Some(first)) => {
            assert!(end == first || stream.starts_with(b"\r\n"), "the first empty line ends it")
        }
        (Ok(Scan::Complete(_)), None) => panic!("a head without an end"),
    }
    let Ok(Scan::Complete(end)) = HeadScanner::new().scan(stream, &limits) else { unreachable!("as before") };
    let request = match Request::parse(&stream[..end], &limits, false) {
        Ok(request) => request,
        Err(refusal) => return refused(refusal),
    };
    let asked = match upgrade(&request) {
        Ok(asked) => asked,
        Err(refusal) => return refused(refusal),
    };
    let params = negotiate(&asked.offers, policy);
    let mut head = Vec::new();
    switching_protocols(&mut head, &Accepted { key: asked.key, protocol: None, extension: params.as_ref() });
    let reading = model::read(&stream[end..], &Rules { deflate: params, ..*rules });
    let mut said: Vec<Said> = reading
        .said
        .into_iter()
        .filter_map(|said| match said {
            Said::Message { kind, payload, .. } => {
                let compressed = params.is_some() && payload.len() >= DEFLATE_FROM;
                Some(Said::Message { kind, compressed, payload })
            }
            Said::Ping(payload) => Some(Said::Pong(payload)),
            Said::Pong(_) => None,
            Said::Close(code, _) => Some(Said::Close(code, String::new())),
        })
        .collect();
    if let End::Failed(violation) = reading.end {
        said.push(Said::Close(Some(violation.close_code().as_u16()), violation.text().to_owned()));
    }
    Expected::Session { head, params, said }
}

impl Expected {
    fn compare(&self, out: &[u8], agreed: Option<DeflateParams>, rules: &Rules) {
        match self {
            Self::Nothing => assert_eq!(out, b""),
            Self::Refused(status) => {
                let Ok(Scan::Complete(end)) = HeadScanner::for_response().scan(out, &HeadLimits::default())
                else {
                    panic!("no answer")
                };
                let head = ResponseHead::parse(&out[..end], &HeadLimits::default()).expect("a good answer");
                assert_eq!(head.status, *status);
                assert_eq!(head.framing(), Ok(Framing::Length((out.len() - end) as u64)), "one answer");
            }
            Self::Session { head, params, said } => {
                assert_eq!(agreed, *params);
                let frames = out.strip_prefix(&head[..]).expect("the 101 goes out first");
                // The answers are read as a client would, by the model. Limits are the client's own.
                let limits = Limits { message_bytes: 1 << 20, message_fragments: 1 };
                let client = Rules { role: Role::Client, limits, deflate: agreed, ..*rules };
                let end = match said.last() {
                    Some(Said::Close(..)) => End::Closed,
                    _ => End::Open,
                };
                assert_eq!(model::read(frames, &client), Reading { said: said.clone(), end });
                let size: usize = frames.len();
                if agreed.is_none() {
                    // Nothing stands behind the last frame, not even a part of one.
                    let expected: usize = said.iter().map(wire_size).sum();
                    assert_eq!(size, expected);
                }
            }
        }
    }
}

fn wire_size(said: &Said) -> usize {
    let len = match said {
        Said::Message { payload, .. } | Said::Ping(payload) | Said::Pong(payload) => payload.len(),
        Said::Close(code, reason) => code.map_or(0, |_| 2) + reason.len(),
    };
    len + if len < 126 {
        2
    } else if len < 65_536 {
        4
    } else {
        10
    }
}

/// A session and what it borrows of its shard.
struct Connection<'r> {
    rules: &'r Rules,
    policy: &'r DeflatePolicy,
    codecs: Codecs,
    spares: Spares,
    state: State,
    params: Option<DeflateParams>,
    out: Vec<u8>,
}

enum State {
    Head { scanner: HeadScanner, bytes: Vec<u8> },
    Open { decoder: Decoder, compression: Option<Compression> },
    Done,
}

/// A piece to send, once the buffer was read to its end.
enum Piece {
    Received(Range<usize>),
    Kept(Vec<u8>, usize),
}

impl<'r> Connection<'r> {
    fn serve(
        stream: &[u8],
        cuts: u16,
        rules: &'r Rules,
        policy: &'r DeflatePolicy,
    ) -> (Vec<u8>, Option<DeflateParams>) {
        let mut this = Self {
            rules,
            policy,
            codecs: rules.codecs(),
            spares: Spares::new(64 * 1024),
            state: State::Head { scanner: HeadScanner::new(), bytes: Vec::new() },
            params: None,
            out: Vec::new(),
        };
        for piece in pieces(stream.len(), cuts) {
            let mut buffer = stream[piece].to_vec();
            let mut used = 0;
            while used < buffer.len() {
                used += match this.state {
                    State::Head { .. } => this.read_head(&buffer[used..]),
                    State::Open { .. } => this.read_messages(&mut buffer[used..]),
                    State::Done => buffer.len() - used,
                };
            }
        }
        this.end();
        assert_returned(&this.codecs);
        (this.out, this.params)
    }

    fn end(&mut self) {
        if let State::Open { mut decoder, compression } = std::mem::replace(&mut self.state, State::Done) {
            decoder.abandon(&mut self.codecs);
            if let Some(compression) = compression {
                compression.release(&mut self.codecs);
            }
        }
    }

    fn read_head(&mut self, received: &[u8]) -> usize {
        let State::Head { scanner, bytes } = &mut self.state else { unreachable!("the head is read") };
        let before = bytes.len();
        bytes.extend_from_slice(received);
        match scanner.scan(bytes, &HeadLimits::default()) {
            Ok(Scan::Partial) => received.len(),
            Ok(Scan::Complete(end)) => {
                let head = bytes[..end].to_vec();
                if let Err(refusal) = self.open(&head) {
                    self.refuse(&refusal);
                }
                end - before
            }
            Err(refusal) => {
                self.refuse(&refusal);
                received.len()
            }
        }
    }

    fn refuse(&mut self, refusal: &Refusal) {
        self.out.extend(refusal.response(false));
        self.state = State::Done;
    }

    fn open(&mut self, head: &[u8]) -> Result<(), Refusal> {
        let request = Request::parse(head, &HeadLimits::default(), false)?;
        let asked = upgrade(&request)?;
        self.params = negotiate(&asked.offers, self.policy);
        let accepted = Accepted { key: asked.key, protocol: None, extension: self.params.as_ref() };
        switching_protocols(&mut self.out, &accepted);
        let compression = self.params.map(|params| Compression::new(params, Role::Server, &mut self.codecs));
        self.state = State::Open { decoder: Decoder::new(Role::Server), compression };
        Ok(())
    }

    /// As the shard's echo does it.
    fn read_messages(&mut self, bytes: &mut [u8]) -> usize {
        let Self { rules, codecs, spares, state, .. } = self;
        let State::Open { decoder, compression } = state else { unreachable!("the session is open") };
        let mut sent = Vec::new();
        let mut cursor = Cursor { read: 0, write: 0, compact: true };
        let mut start = 0;
        let close = loop {
            let mut context =
                DecodeContext { limits: &rules.limits, compression: compression.as_mut(), codecs, spares };
            let event = match decoder.next(bytes, &mut cursor, &mut context) {
                Ok(Some(event)) => event,
                Ok(None) => break None,
                Err(violation) => {
                    break Some(ControlFrame::close(Some(violation.close_code()), violation.text(), None));
                }
            };
            match event {
                Event::Message { kind, payload, .. } => {
                    let mut head = Head {
                        fin: true,
                        rsv1: false,
                        opcode: Opcode::from(kind),
                        len: payload.len() as u64,
                        mask: None,
                    };
                    if let Some(compression) = compression.as_mut().filter(|_| payload.len() >= DEFLATE_FROM)
                    {
                        let mut out = vec![0; MAX_HEADER];
                        compression.deflate(codecs, payload.bytes(bytes), &mut out);
                        (head.rsv1, head.len) = (true, (out.len() - MAX_HEADER) as u64);
                        let begin = encode_header_before(&mut out, MAX_HEADER, &head);
                        flush(&mut sent, &mut start, cursor.write);
                        sent.push(Piece::Kept(out, begin));
                        if let Payload::Owned(owned) = payload {
                            spares.give(owned.buffer);
                        }
                        (start, cursor.write) = (cursor.read, cursor.read);
                        continue;
                    }
                    match payload {
                        Payload::InPlace(range) => {
                            let begin = encode_header_before(bytes, range.start, &head);
                            assert!(begin >= cursor.write, "an answer over an answer");
                            if begin != cursor.write {
                                flush(&mut sent, &mut start, cursor.write);
                                start = begin;
                            }
                            cursor.write = range.end;
                        }
                        Payload::Owned(OwnedPayload { mut buffer, start: payload_start }) => {
                            let begin = encode_header_before(&mut buffer, payload_start, &head);
                            flush(&mut sent, &mut start, cursor.write);
                            sent.push(Piece::Kept(buffer, begin));
                            (start, cursor.write) = (cursor.read, cursor.read);
                        }
                    }
                }
                Event::Ping(payload) => {
                    flush(&mut sent, &mut start, cursor.write);
                    (start, cursor.write) = (cursor.read, cursor.read);
                    sent.push(Piece::Kept(ControlFrame::pong(&payload, None).to_vec(), 0));
                }
                Event::Pong(_) => {}
                Event::Close(close) => {
                    let code = close.code.map(|code| CloseCode::new(code.as_u16()).expect("it was received"));
                    break Some(ControlFrame::close(code, "", None));
                }
            }
        };
        flush(&mut sent, &mut start, cursor.write);
        // Only now, as the kernel would: what a later message wrote over an earlier answer would show.
        for piece in sent {
            match piece {
                Piece::Received(range) => self.out.extend_from_slice(&bytes[range]),
                Piece::Kept(buffer, begin) => {
                    self.out.extend_from_slice(&buffer[begin..]);
                    self.spares.give(buffer);
                }
            }
        }
        if let Some(close) = close {
            self.out.extend_from_slice(&close);
            self.end();
        }
        bytes.len()
    }
}

fn flush(sent: &mut Vec<Piece>, start: &mut usize, end: usize) {
    if *start < end {
        sent.push(Piece::Received(*start..end));
        *start = end;
    }
}
