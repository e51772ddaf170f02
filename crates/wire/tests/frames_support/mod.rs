//! What the tests of frames share: naive framing, and ends that check the contract at every step.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use proptest::prelude::*;
use tidegate_wire::deflate::{CodecLimits, Codecs, Compression};
use tidegate_wire::extension::DeflateParams;
use tidegate_wire::frame::{Head, MAX_HEADER, encode_header_before, header_len};
use tidegate_wire::message::{
    Cursor, DecodeContext, Decoder, Event, Kind, MOVE_MAX, OwnedPayload, Payload, Spares, Violation,
};
use tidegate_wire::relay::{Inspector, RelayRules, Segment};
use tidegate_wire::{Limits, Role};

pub const LIMITS: Limits = Limits { message_bytes: 1 << 20, message_fragments: 1024 };

/// Both roles.
pub const ROLES: [Role; 2] = [Role::Server, Role::Client];

/// Bytes from hexadecimal digits; spaces do not count.
pub fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        digits.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// A frame as the RFC says, without the crate's help. `role` is the receiver's.
pub fn frame(role: Role, b0: u8, payload: &[u8], key: [u8; 4]) -> Vec<u8> {
    let mask = if role == Role::Server { 0x80 } else { 0 };
    let mut out = vec![b0];
    match payload.len() {
        len @ 0..=125 => out.push(mask | len as u8),
        len @ 126..=0xffff => {
            out.push(mask | 126);
            out.extend((len as u16).to_be_bytes());
        }
        len => {
            out.push(mask | 127);
            out.extend((len as u64).to_be_bytes());
        }
    }
    if role == Role::Server {
        out.extend(key);
        out.extend(payload.iter().enumerate().map(|(i, byte)| byte ^ key[i % 4]));
    } else {
        out.extend(payload);
    }
    out
}

/// An event, owned and comparable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Message { kind: Kind, compressed: bool, bytes: Vec<u8> },
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
}

impl Seen {
    pub fn text(text: &str) -> Self {
        Self::Message { kind: Kind::Text, compressed: false, bytes: text.into() }
    }

    pub fn binary(bytes: &[u8]) -> Self {
        Self::Message { kind: Kind::Binary, compressed: false, bytes: bytes.into() }
    }
}

/// How an end is set up.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub role: Role,
    pub limits: Limits,
    /// permessage-deflate was agreed upon: whether contexts are taken over.
    pub takeover: Option<bool>,
    /// Inflaters to lend.
    pub inflaters: u32,
    pub compact: bool,
    /// Short messages of up to so many bytes are answered before the decoder is asked for what comes next.
    pub short: Option<usize>,
    /// Bytes of spare buffers.
    pub spares: usize,
}

impl Setup {
    pub fn new(role: Role) -> Self {
        Self {
            role,
            limits: LIMITS,
            takeover: None,
            inflaters: 2,
            compact: true,
            short: None,
            spares: 1 << 20,
        }
    }

    pub fn deflate(self, takeover: bool) -> Self {
        Self { takeover: Some(takeover), ..self }
    }

    pub fn limits(self, message_bytes: usize, message_fragments: u32) -> Self {
        Self { limits: Limits { message_bytes, message_fragments }, ..self }
    }

    pub fn codecs(&self) -> Codecs {
        Codecs::new(CodecLimits {
            inflaters: self.inflaters,
            takeover_bytes: 4 << 20,
            ..CodecLimits::default()
        })
    }

    pub fn compression(&self, role: Role, codecs: &mut Codecs) -> Option<Compression> {
        self.takeover.map(|takeover| {
            let params = DeflateParams {
                server_no_context_takeover: !takeover,
                client_no_context_takeover: !takeover,
                server_max_window_bits: 15,
                client_max_window_bits: 15,
                server_max_window_bits_named: false,
            };
            Compression::new(params, role, codecs)
        })
    }

    /// What the whole stream gives, cut into inputs of the sizes in `sizes`, over and over.
    pub fn decode(&self, stream: &[u8], sizes: &[usize]) -> (Vec<Seen>, Option<Violation>) {
        let mut end = End::new(*self);
        let verdict = end.feed_all(stream, sizes);
        (end.seen, verdict)
    }
}

/// The other role.
pub fn peer(role: Role) -> Role {
    match role {
        Role::Server => Role::Client,
        Role::Client => Role::Server,
    }
}

/// Cuts `stream` into pieces of the given sizes, over and over.
pub fn pieces<'a>(stream: &'a [u8], sizes: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = stream;
    sizes.iter().cycle().map_while(move |&size| {
        if rest.is_empty() {
            return None;
        }
        let (piece, behind) = rest.split_at(size.clamp(1, rest.len()));
        rest = behind;
        Some(piece)
    })
}

/// A decoder with an echo behind it, as a shard would run it.
pub struct End {
    pub setup: Setup,
    pub decoder: Decoder,
    pub codecs: Codecs,
    pub compression: Option<Compression>,
    pub spares: Spares,
    pub seen: Vec<Seen>,
    /// The answers as they would go out: every message echoed in one unmasked frame.
    pub answers: Vec<u8>,
    /// Pieces that the answers of the last input consisted of.
    pub answer_pieces: usize,
    /// Buffers of owned payloads.
    pub owned: Vec<(*const u8, usize)>,
}

impl End {
    pub fn new(setup: Setup) -> Self {
        let mut codecs = setup.codecs();
        let compression = setup.compression(setup.role, &mut codecs);
        Self {
            setup,
            decoder: Decoder::new(setup.role),
            codecs,
            compression,
            spares: Spares::new(setup.spares),
            seen: Vec::new(),
            answers: Vec::new(),
            answer_pieces: 0,
            owned: Vec::new(),
        }
    }

    pub fn feed_all(&mut self, stream: &[u8], sizes: &[usize]) -> Option<Violation> {
        pieces(stream, sizes).find_map(|piece| self.feed(piece).err())
    }

    /// One input: everything in it is decoded, messages are answered in place.
    pub fn feed(&mut self, piece: &[u8]) -> Result<(), Violation> {
        let mut input = piece.to_vec();
        let mut cursor = Cursor { read: 0, write: 0, compact: self.setup.compact };
        let mut start = 0;
        self.answer_pieces = 0;
        loop {
            self.answer_short(&mut input, &mut cursor);
            let before = cursor;
            let answered = input[..cursor.write].to_vec();
            let mut cx = DecodeContext {
                limits: &self.setup.limits,
                compression: self.compression.as_mut(),
                codecs: &mut self.codecs,
                spares: &mut self.spares,
            };
            let event = self.decoder.next(&mut input, &mut cursor, &mut cx);
            assert_eq!(answered, input[..before.write], "nothing below `write` is touched");
            assert_eq!(before.write, cursor.write, "`write` is the caller's");
            assert!(before.read <= cursor.read && cursor.read <= input.len());
            let event = match event {
                Ok(Some(event)) => event,
                Ok(None) => {
                    assert_eq!(cursor.read, input.len(), "the input is used up");
                    assert!(self.decoder.has_carry() || self.decoder.retained_bytes() == 0);
                    self.flush(&input, &mut start, cursor.write);
                    return Ok(());
                }
                Err(violation) => {
                    assert_eq!(self.decoder.retained_bytes(), 0, "nothing is held after a violation");
                    let again = self.decoder.next(
                        &mut input,
                        &mut cursor,
                        &mut DecodeContext {
                            limits: &self.setup.limits,
                            compression: self.compression.as_mut(),
                            codecs: &mut self.codecs,
                            spares: &mut self.spares,
                        },
                    );
                    assert_eq!(again.map(drop), Err(violation), "a violation stays");
                    assert!(!self.decoder.has_carry() && !self.decoder.is_partial());
                    self.flush(&input, &mut start, cursor.write);
                    return Err(violation);
                }
            };
            let seen = match event {
                Event::Message { kind, compressed, payload } => {
                    let bytes = payload.bytes(&input).to_vec();
                    assert_eq!((payload.len(), payload.is_empty()), (bytes.len(), bytes.is_empty()));
                    let head = Head {
                        fin: true,
                        rsv1: false,
                        opcode: kind.into(),
                        len: bytes.len() as u64,
                        mask: None,
                    };
                    match payload {
                        Payload::InPlace(range) => {
                            assert!(range.end <= cursor.read);
                            let header = range.start - header_len(bytes.len(), false);
                            if cursor.compact && bytes.len() <= MOVE_MAX {
                                assert_eq!(header, cursor.write, "the answers lie end to end");
                            }
                            assert!(header >= cursor.write);
                            assert_eq!(encode_header_before(&mut input, range.start, &head), header);
                            if header != cursor.write {
                                self.flush(&input, &mut start, cursor.write);
                                start = header;
                            }
                            cursor.write = range.end;
                        }
                        Payload::Owned(OwnedPayload { mut buffer, start: payload_start }) => {
                            assert!(payload_start >= MAX_HEADER);
                            self.flush(&input, &mut start, cursor.write);
                            let header = encode_header_before(&mut buffer, payload_start, &head);
                            self.answers.extend(&buffer[header..]);
                            self.answer_pieces += 1;
                            self.owned.push((buffer.as_ptr(), buffer.capacity()));
                            self.spares.give(buffer);
                        }
                    }
                    Seen::Message { kind, compressed, bytes }
                }
                Event::Ping(payload) => Seen::Ping(payload.to_vec()),
                Event::Pong(payload) => Seen::Pong(payload.to_vec()),
                Event::Close(close) => Seen::Close(close.code.map(u16::from), close.reason.to_string()),
            };
            self.seen.push(seen);
        }
    }

    /// What is answered at once was seen, too: it is read off its answers.
    fn answer_short(&mut self, input: &mut [u8], cursor: &mut Cursor) {
        let Some(longest) = self.setup.short else { return };
        let (before, rest) = (*cursor, input[cursor.write..].to_vec());
        let below = input[..cursor.write].to_vec();
        let answered = self.decoder.answer_short(input, cursor, &self.setup.limits, longest);
        assert_eq!(below, input[..before.write], "nothing below `write` is touched");
        assert!(cursor.write <= cursor.read && cursor.read <= input.len());
        let seen = self.seen.len();
        let mut answers = &input[before.write..cursor.write];
        while let [b0, len, behind @ ..] = answers {
            let (bytes, next) = behind.split_at(usize::from(*len));
            assert!(bytes.len() <= longest, "a longer one is not answered");
            let kind = if *b0 == 0x81 { Kind::Text } else { Kind::Binary };
            self.seen.push(Seen::Message { kind, compressed: false, bytes: bytes.to_vec() });
            answers = next;
        }
        assert_eq!((self.seen.len() - seen) as u64, answered);
        if before.read == cursor.read {
            assert_eq!(rest, input[before.write..], "nothing is written where nothing is answered");
        }
    }

    fn flush(&mut self, input: &[u8], start: &mut usize, end: usize) {
        if *start < end {
            self.answers.extend(&input[*start..end]);
            self.answer_pieces += 1;
            *start = end;
        }
    }
}

/// The echoes of what was seen.
pub fn echoes(seen: &[Seen]) -> Vec<u8> {
    let mut out = Vec::new();
    for seen in seen {
        if let Seen::Message { kind, bytes, .. } = seen {
            let b0 = if *kind == Kind::Text { 0x81 } else { 0x82 };
            out.extend(frame(Role::Client, b0, bytes, [0; 4]));
        }
    }
    out
}

/// What an [`Inspector`] made of a stream.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Relayed {
    /// What goes to the far leg, control frames included.
    pub forwarded: Vec<u8>,
    /// The control frames.
    pub controls: Vec<Seen>,
    pub violation: Option<Violation>,
    /// Data bytes were forwarded that do not end a frame.
    pub mid_frame: bool,
    /// Half a header or control frame is held.
    pub carry: bool,
    pub message_open: bool,
}

/// Runs an [`Inspector`] over the stream, cut into inputs of these sizes.
pub fn relay(role: Role, rules: &RelayRules, stream: &[u8], sizes: &[usize]) -> Relayed {
    let mut inspector = Inspector::new(role);
    let mut relayed = Relayed::default();
    'inputs: for input in pieces(stream, sizes) {
        let mut read = 0;
        loop {
            let before = read;
            let segment = inspector.next(input, &mut read, rules);
            assert!(before <= read && read <= input.len());
            match segment {
                Ok(None) => {
                    assert_eq!(read, input.len(), "the input is used up");
                    break;
                }
                Ok(Some(Segment::Forward(range))) => {
                    assert!(!range.is_empty() && range.start == before && range.end == read);
                    relayed.forwarded.extend(&input[range]);
                }
                Ok(Some(Segment::Held(held))) => {
                    assert!(held.len() <= MAX_HEADER);
                    relayed.forwarded.extend(&*held);
                }
                Ok(Some(Segment::Ping(control))) => {
                    assert!(inspector.at_boundary());
                    relayed.forwarded.extend(control.wire());
                    relayed.controls.push(Seen::Ping(control.payload().to_vec()));
                }
                Ok(Some(Segment::Pong(control))) => {
                    assert!(inspector.at_boundary());
                    relayed.forwarded.extend(control.wire());
                    relayed.controls.push(Seen::Pong(control.payload().to_vec()));
                }
                Ok(Some(Segment::Close(close))) => {
                    assert!(inspector.at_boundary());
                    relayed.controls.push(Seen::Close(close.code.map(u16::from), close.reason.to_string()));
                }
                Err(violation) => {
                    assert_eq!(inspector.next(input, &mut read, rules).map(drop), Err(violation));
                    relayed.violation = Some(violation);
                    break 'inputs;
                }
            }
        }
    }
    relayed.mid_frame = !inspector.at_boundary();
    relayed.carry = inspector.has_carry();
    relayed.message_open = inspector.message_open();
    assert!(relayed.carry || inspector.retained_bytes() == 0);
    relayed
}

/// A part of a valid stream.
#[derive(Clone, Debug)]
pub enum Item {
    Message {
        kind: Kind,
        compressed: bool,
        bytes: Vec<u8>,
        /// Where it is cut into frames, as parts of 65536 of its wire length.
        cuts: Vec<u16>,
        /// What comes between its frames.
        between: Vec<Seen>,
    },
    Control(Seen),
}

/// The frames of valid items with the events they are to give. Compressed messages are plain where the setup
/// has no deflate.
pub fn assemble(setup: &Setup, items: &[Item], keys: u32) -> (Vec<u8>, Vec<Seen>) {
    let mut codecs = setup.codecs();
    let mut compression = setup.compression(peer(setup.role), &mut codecs);
    let mut key = keys;
    let mut next_key = || {
        key = key.wrapping_mul(0x9e37_79b1).wrapping_add(0x7f4a_7c15);
        key.to_ne_bytes()
    };
    let (mut stream, mut events) = (Vec::new(), Vec::new());
    for item in items {
        match item {
            Item::Control(seen) => {
                stream.extend(control(setup.role, seen, next_key()));
                events.push(seen.clone());
            }
            Item::Message { kind, compressed, bytes, cuts, between } => {
                let mut wire = bytes.clone();
                let compressed = *compressed && compression.is_some();
                if let Some(compression) = compression.as_mut().filter(|_| compressed) {
                    wire.clear();
                    compression.deflate(&mut codecs, bytes, &mut wire);
                }
                let mut ends: Vec<usize> =
                    cuts.iter().map(|&cut| usize::from(cut) * (wire.len() + 1) / 65536).collect();
                ends.sort_unstable();
                ends.push(wire.len());
                let (mut at, last) = (0, ends.len() - 1);
                for (i, end) in ends.into_iter().enumerate() {
                    let opcode = match (i, kind) {
                        (0, Kind::Text) => 0x01,
                        (0, Kind::Binary) => 0x02,
                        (1.., _) => 0x00,
                    };
                    let fin = if i == last { 0x80 } else { 0 };
                    let rsv1 = if compressed && i == 0 { 0x40 } else { 0 };
                    stream.extend(frame(setup.role, fin | rsv1 | opcode, &wire[at..end], next_key()));
                    at = end;
                    if i != last
                        && let Some(seen) = between.get(i)
                    {
                        stream.extend(control(setup.role, seen, next_key()));
                        events.push(seen.clone());
                    }
                }
                events.push(Seen::Message { kind: *kind, compressed, bytes: bytes.clone() });
            }
        }
    }
    (stream, events)
}

/// A control frame.
pub fn control(role: Role, seen: &Seen, key: [u8; 4]) -> Vec<u8> {
    match seen {
        Seen::Ping(payload) => frame(role, 0x89, payload, key),
        Seen::Pong(payload) => frame(role, 0x8a, payload, key),
        Seen::Close(code, reason) => {
            let mut body: Vec<u8> = code.map(u16::to_be_bytes).into_iter().flatten().collect();
            body.extend(reason.as_bytes());
            frame(role, 0x88, &body, key)
        }
        Seen::Message { .. } => panic!("not a control frame"),
    }
}

/// Text of exactly `len` bytes, ASCII or not.
pub fn text_of(len: usize, seed: u32, ascii: bool) -> String {
    const CHARS: [char; 8] = ['a', 'é', 'Z', '€', ' ', '😀', '\u{10ffff}', '\u{ffff}'];
    let mut text = String::with_capacity(len + 4);
    let mut state = seed;
    while text.len() < len {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let char =
            if ascii { char::from(b' ' + (state >> 24) as u8 % 95) } else { CHARS[(state >> 29) as usize] };
        text.push(if text.len() + char.len_utf8() <= len { char } else { '.' });
    }
    text
}

fn controls() -> impl Strategy<Value = Seen> {
    let payload = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..20),
        prop::collection::vec(any::<u8>(), 124..=125),
    ];
    (any::<bool>(), payload)
        .prop_map(|(ping, payload)| if ping { Seen::Ping(payload) } else { Seen::Pong(payload) })
}

fn lens() -> impl Strategy<Value = usize> {
    prop_oneof![
        8 => 0..140usize,
        3 => 140..5000usize,
        3 => prop::sample::select(vec![0, 1, 125, 126, 127, 2047, 2048, 2049]),
        1 => prop::sample::select(vec![65_534, 65_535, 65_536, 70_000]),
    ]
}

fn messages() -> impl Strategy<Value = Item> {
    let cuts = prop_oneof![
        2 => Just(Vec::new()),
        1 => prop::collection::vec(any::<u16>(), 1..6),
    ];
    (any::<(bool, bool, bool)>(), lens(), any::<u32>(), cuts, prop::collection::vec(controls(), 0..4))
        .prop_map(|((text, ascii, compressed), len, seed, cuts, between)| {
            let bytes = text_of(len, seed, ascii).into_bytes();
            let (kind, bytes) = if text {
                (Kind::Text, bytes)
            } else {
                // Not UTF-8 as a rule.
                (Kind::Binary, bytes.iter().enumerate().map(|(i, b)| b ^ (seed >> (i % 24)) as u8).collect())
            };
            Item::Message { kind, compressed, bytes, cuts, between }
        })
}

/// Valid items, with a Close at the end or not.
pub fn items() -> impl Strategy<Value = Vec<Item>> {
    let close = prop_oneof![
        2 => Just(None),
        1 => (prop::sample::select(vec![1000u16, 1001, 3000, 4999]), "[a-zé€]{0,20}")
            .prop_map(|(code, reason)| Some(Seen::Close(Some(code), reason))),
        1 => Just(Some(Seen::Close(None, String::new()))),
    ];
    let item = prop_oneof![4 => messages(), 1 => controls().prop_map(Item::Control)];
    (prop::collection::vec(item, 0..8), close).prop_map(|(mut items, close)| {
        items.extend(close.map(Item::Control));
        items
    })
}

/// Sizes of inputs.
pub fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        1 => Just(vec![1]),
        3 => prop::collection::vec(1..12usize, 1..8),
        3 => prop::collection::vec(1..3000usize, 1..8),
        3 => prop::collection::vec(1000..20_000usize, 1..4),
        1 => Just(vec![17_472]),
    ]
}

/// Ends of both roles, with and without deflate, takeover, compacting, inflaters and spares.
pub fn setups() -> impl Strategy<Value = Setup> {
    let short = prop::option::of(prop_oneof![0..130usize, Just(usize::MAX)]);
    (any::<(bool, bool, bool)>(), prop::option::of(any::<bool>()), 0..3u32, short).prop_map(
        |((server, compact, spares), takeover, inflaters, short)| Setup {
            takeover,
            inflaters,
            compact,
            short,
            spares: if spares { 1 << 20 } else { 0 },
            ..Setup::new(if server { Role::Server } else { Role::Client })
        },
    )
}
