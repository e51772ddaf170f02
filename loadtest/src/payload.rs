//! What messages hold, and how their echoes are judged.
//!
//! A message is a function of the run's seed, its session, its number and when it was due. So nothing of it is kept:
//! it is made again where a send was cut off, and an echo is compared with what it must be. By size:
//!
//! ```text
//! binary  20 up   session 4 │ number 4 │ due 8 │ check 4 │ fill         all of it is judged
//!         4 to 19 number 4 │ fill                                       number and fill; the time is kept beside
//!         1 to 3  number's last byte │ fill                             the same, numbers modulo 256
//! text    the same fields, six bits a character: 27 up, 6 to 26, 1 to 5 (modulo 64)
//! ```
//!
//! An empty message can only be counted. `check` covers session, number and time, so that no flipped bit of a time
//! is taken for a latency. The fill is a piece of one table, from a place that depends on session and number.

use std::sync::Arc;

use tidegate_wire::{
    frame::{Head, Opcode, encode_header, header_len},
    message::Kind,
};

use crate::{
    random::{Random, STEP, mix, of_message},
    trace::Trace,
};

/// The table of fills repeats after this; a power of two.
const PERIOD: usize = 64 * 1024;
/// Fills start at one of so many places.
const STARTS: u64 = 4096;
/// Both, where messages are deflated: far more than the 32 KiB that deflate looks back, so that it finds no earlier message
/// in a later one but for what is alike in all.
const WIDE: usize = 1 << 20;
/// Bytes of the fields, before they are written as text.
const FIELDS: usize = 20;
/// Characters for them: six bits each.
const FIELDS_TEXT: usize = (FIELDS * 8).div_ceil(6);
/// Characters for a number of 32 bits.
const NUMBER_TEXT: usize = 6;

/// How long messages are, in bytes of payload: uniform from `min` to `max`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) min: usize,
    pub(crate) max: usize,
}

/// A part of all messages, and how long they are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Share {
    /// Of 1, over all shares.
    pub(crate) weight: f64,
    pub(crate) sizes: Sizes,
}

/// What messages hold beside their fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Fill {
    /// Random bytes, in text random characters: nothing to deflate, in text a quarter
    Random,
    /// Records of JSON with random values
    Json,
}

/// What decides how long a message is.
#[derive(Debug)]
enum Shape {
    /// Any size in the bounds.
    Uniform,
    /// Shares: each up to this place of 2^32.
    Shares(Vec<(u64, Sizes)>),
    Trace(Arc<Trace>),
}

/// A message, as it can be made at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) serial: u32,
    pub(crate) number: u64,
    pub(crate) due_ns: u64,
}

/// An echo that holds what it must.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The number, as far as the message tells.
    pub(crate) number: u64,
    /// When it was due, where the message tells.
    pub(crate) due_ns: Option<u64>,
}

/// An echo that does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// Not what was sent. The number is told where it can be trusted.
    Corrupt(Option<u64>),
    /// Of another session.
    Misdelivered,
}

/// What a message of some size carries before its fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    Fields,
    Number,
    Byte,
    Empty,
}

/// The messages of a run.
#[derive(Debug)]
pub(crate) struct Payloads {
    sizes: Sizes,
    shape: Shape,
    kind: Kind,
    /// A trace has both kinds, so that `kind` is not that of all.
    is_mixed: bool,
    salt: u64,
    period: usize,
    starts: u64,
    /// Two periods and the starts, so that any piece of a period lies in one.
    table: Box<[u8]>,
}

impl Payloads {
    pub(crate) fn new(sizes: Sizes, kind: Kind, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let salt = random.next();
        let (shape, is_mixed) = (Shape::Uniform, false);
        let table = table(&mut random, Fill::Random, kind, PERIOD, STARTS);
        Self { sizes, shape, kind, is_mixed, salt, period: PERIOD, starts: STARTS, table }
    }

    /// The same, with shares of sizes; none: as it is.
    pub(crate) fn with_shares(mut self, shares: &[Share]) -> Self {
        if !shares.is_empty() {
            let mut up_to = 0.0;
            let places = shares.iter().map(|share| {
                up_to += share.weight;
                ((up_to * (1u64 << 32) as f64).round() as u64, share.sizes)
            });
            self.shape = Shape::Shares(places.collect());
        }
        self
    }

    /// The same, as a file has them.
    pub(crate) fn with_trace(mut self, trace: Arc<Trace>) -> Self {
        match trace.kind() {
            Some(kind) => self.kind = kind,
            // What is text must be so wherever it starts.
            None => (self.kind, self.is_mixed) = (Kind::Text, true),
        }
        self.sizes = trace.bounds();
        self.shape = Shape::Trace(trace);
        self
    }

    /// The same, with this fill. `deflates`: whether messages are deflated.
    pub(crate) fn with_fill(mut self, fill: Fill, deflates: bool) -> Self {
        if deflates {
            (self.period, self.starts) = (WIDE, WIDE as u64);
        }
        let mut random = Random::new(mix(self.salt));
        self.table = table(&mut random, fill, self.kind, self.period, self.starts);
        self
    }

    /// The kind of all messages, unless they [are mixed](Self::is_mixed).
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether there are messages of each kind.
    pub(crate) fn is_mixed(&self) -> bool {
        self.is_mixed
    }

    #[inline]
    pub(crate) fn kind_of(&self, serial: u32, number: u64) -> Kind {
        match &self.shape {
            Shape::Trace(trace) if self.is_mixed => trace.kind_of(serial, number),
            Shape::Uniform | Shape::Shares(_) | Shape::Trace(_) => self.kind,
        }
    }

    /// When a message of a trace is due, after its session began.
    pub(crate) fn due_ns(&self, serial: u32, number: u64) -> u64 {
        match &self.shape {
            Shape::Trace(trace) => trace.due_ns(serial, number),
            Shape::Uniform | Shape::Shares(_) => 0,
        }
    }

    /// The most bytes of payload.
    pub(crate) fn max(&self) -> usize {
        self.sizes.max
    }

    /// Whether each message tells when it was due.
    pub(crate) fn tell_time(&self) -> bool {
        self.sizes.tell_time(self.kind)
    }

    /// Bytes of payload of a message.
    #[inline]
    pub(crate) fn size(&self, serial: u32, number: u64) -> usize {
        let Sizes { min, max } = self.sizes;
        if min == max { min } else { self.varied_size(serial, number) }
    }

    fn varied_size(&self, serial: u32, number: u64) -> usize {
        let Sizes { min, max } = self.sizes;
        let bits = of_message(self.salt ^ 1, serial, number);
        match &self.shape {
            Shape::Uniform => Sizes { min, max }.place(bits >> 32),
            Shape::Shares(shares) => {
                let share = shares.iter().find(|(up_to, _)| bits >> 32 < *up_to).or(shares.last());
                share.map_or(min, |(_, sizes)| sizes.place(bits & 0xffff_ffff))
            }
            Shape::Trace(trace) => trace.size_of(serial, number),
        }
    }

    /// The key that a message is masked with.
    #[inline]
    pub(crate) fn mask(&self, serial: u32, number: u64) -> [u8; 4] {
        ((of_message(self.salt, serial, number) >> 32) as u32).to_le_bytes()
    }

    /// Appends a message's payload to `out`.
    pub(crate) fn put_payload(&self, out: &mut Vec<u8>, message: &Message) {
        let size = self.size(message.serial, message.number);
        let start = out.len();
        out.resize(start + size, 0);
        let bits = of_message(self.salt, message.serial, message.number);
        self.put_masked(&mut out[start..], message, bits, [0; 4]);
    }

    /// Bytes of a message's frame.
    #[inline]
    pub(crate) fn frame_len(&self, serial: u32, number: u64) -> usize {
        let size = self.size(serial, number);
        header_len(size, true) + size
    }

    /// Writes a message's masked frame to the front of `out`, leaving out its first `from` bytes, as much as fits;
    /// returns how much that is.
    pub(crate) fn write(&self, out: &mut [u8], message: &Message, from: usize) -> usize {
        let size = self.size(message.serial, message.number);
        let bits = of_message(self.salt, message.serial, message.number);
        let mask = ((bits >> 32) as u32).to_le_bytes();
        let opcode = Opcode::from(self.kind_of(message.serial, message.number));
        let head = Head { fin: true, rsv1: false, opcode, len: size as u64, mask: Some(mask) };
        let whole = header_len(size, true) + size;
        if from == 0 && whole <= out.len() {
            let header = encode_header(out, &head);
            self.put_masked(&mut out[header..whole], message, bits, mask);
            return whole;
        }

        let mut front = [0; 64];
        let header = encode_header(&mut front, &head);
        let fields = self.put_fields(&mut front[header..], message, size, bits, mask);
        let front = &front[..header + fields];
        let mut written = 0;
        if from < front.len() {
            written = (front.len() - from).min(out.len());
            out[..written].copy_from_slice(&front[from..from + written]);
        }
        if from + written < front.len() {
            return written;
        }
        // Where in the payload the rest begins.
        let at = from + written - header;
        let count = (size - at).min(out.len() - written);
        self.put_fill(&mut out[written..written + count], bits, mask, at);
        written + count
    }

    /// Writes the whole payload of the message with these bits, masked.
    #[inline]
    fn put_masked(&self, out: &mut [u8], message: &Message, bits: u64, mask: [u8; 4]) {
        let fields = self.put_fields(out, message, out.len(), bits, mask);
        self.put_fill(&mut out[fields..], bits, mask, fields);
    }

    /// Fills `out` with what stands from `at` on in the payload of the message with these bits, masked.
    #[inline]
    fn put_fill(&self, out: &mut [u8], bits: u64, mask: [u8; 4], mut at: usize) {
        for piece in out.chunks_mut(self.period) {
            tidegate_simd::unmask_into(self.fill(bits, at, piece.len()), piece, mask, at);
            at += piece.len();
        }
    }

    /// The session that a message says to be of; `None` where it cannot say that.
    #[inline]
    pub(crate) fn owner(&self, payload: &[u8]) -> Option<u32> {
        if layout(self.kind, payload.len()) != Layout::Fields {
            return None;
        }
        match self.kind {
            Kind::Binary => payload.first_chunk().map(|bytes| u32::from_le_bytes(*bytes)),
            // Three bytes are four characters: the first four bytes lie in eight.
            Kind::Text => {
                let (low, high) = (sextets(payload.get(..4)?)?, sextets(payload.get(4..6)?)?);
                Some((low | high << 24) as u32)
            }
        }
    }

    /// Judges an echo of session `serial` that came as `kind`, of which number `expected` is awaited next.
    #[inline]
    pub(crate) fn read(
        &self,
        serial: u32,
        expected: u64,
        kind: Kind,
        payload: &[u8],
    ) -> Result<Answer, Wrong> {
        // What came as the wrong kind is told apart from what is corrupt, where the kind is known beforehand.
        let kind = if self.is_mixed { kind } else { self.kind };
        let layout = layout(kind, payload.len());
        let mut told = None;
        let (number, fields) = match layout {
            Layout::Fields => {
                let (fields, len) = fields_of(kind, payload).ok_or(Wrong::Corrupt(None))?;
                let (owner, number, due_ns, check) = split(&fields);
                told = Some((owner, due_ns, check));
                (nearest(expected, u64::from(number), 32), len)
            }
            Layout::Number => match kind {
                Kind::Binary => {
                    let number = payload.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
                    (nearest(expected, u64::from(number), 32), 4)
                }
                Kind::Text => {
                    let number = sextets(&payload[..NUMBER_TEXT]).ok_or(Wrong::Corrupt(None))?;
                    (nearest(expected, number, 32), NUMBER_TEXT)
                }
            },
            Layout::Byte => match kind {
                Kind::Binary => (nearest(expected, u64::from(payload[0]), 8), 1),
                Kind::Text => {
                    let number = sextets(&payload[..1]).ok_or(Wrong::Corrupt(None))?;
                    (nearest(expected, number, 6), 1)
                }
            },
            Layout::Empty => (expected, 0),
        };
        let bits = of_message(self.salt, told.map_or(serial, |(owner, ..)| owner), number);
        if let Some((owner, due_ns, told_check)) = told {
            if told_check != check(bits, due_ns) {
                return Err(Wrong::Corrupt(None));
            }
            if owner != serial {
                return Err(Wrong::Misdelivered);
            }
        }
        let sure = told.map(|_| number);
        if payload.len() != self.size(serial, number) {
            return Err(Wrong::Corrupt(sure));
        }
        let mut at = fields;
        while at < payload.len() {
            let count = (payload.len() - at).min(self.period);
            if payload[at..at + count] != *self.fill(bits, at, count) {
                return Err(Wrong::Corrupt(sure));
            }
            at += count;
        }
        Ok(Answer { number, due_ns: told.map(|(_, due_ns, _)| due_ns) })
    }

    /// A piece of the fill of the message with these bits, by its place in the payload.
    #[inline]
    fn fill(&self, bits: u64, at: usize, count: usize) -> &[u8] {
        // Both are powers of two.
        let start = (bits & (self.starts - 1)) as usize + (at & (self.period - 1));
        &self.table[start..start + count]
    }

    /// Writes what stands before the fill of a payload of `size` bytes, masked, and returns how much that is.
    #[inline]
    fn put_fields(&self, out: &mut [u8], message: &Message, size: usize, bits: u64, mask: [u8; 4]) -> usize {
        // Numbers are written modulo what their field holds.
        let number = message.number as u32;
        let kind = self.kind_of(message.serial, message.number);
        let len = match (layout(kind, size), kind) {
            (Layout::Fields, Kind::Binary) => {
                // Masked as words: the bytes, loaded again right after they are stored, would be waited for.
                let check = check(bits, message.due_ns);
                let key = u32::from_le_bytes(mask);
                let (due_low, due_high) = (message.due_ns as u32, (message.due_ns >> 32) as u32);
                for (field, word) in
                    out.chunks_exact_mut(4).zip([message.serial, number, due_low, due_high, check])
                {
                    field.copy_from_slice(&(word ^ key).to_le_bytes());
                }
                return FIELDS;
            }
            (Layout::Fields, Kind::Text) => {
                let check = check(bits, message.due_ns);
                let mut fields = [0; FIELDS];
                fields[..4].copy_from_slice(&message.serial.to_le_bytes());
                fields[4..8].copy_from_slice(&number.to_le_bytes());
                fields[8..16].copy_from_slice(&message.due_ns.to_le_bytes());
                fields[16..].copy_from_slice(&check.to_le_bytes());
                put_text(&mut out[..FIELDS_TEXT], &fields);
                FIELDS_TEXT
            }
            (Layout::Number, Kind::Binary) => {
                out[..4].copy_from_slice(&number.to_le_bytes());
                4
            }
            (Layout::Number, Kind::Text) => {
                put_sextets(&mut out[..NUMBER_TEXT], u64::from(number));
                NUMBER_TEXT
            }
            (Layout::Byte, Kind::Binary) => {
                out[0] = number as u8;
                1
            }
            (Layout::Byte, Kind::Text) => {
                put_sextets(&mut out[..1], u64::from(number));
                1
            }
            (Layout::Empty, _) => 0,
        };
        tidegate_simd::unmask(&mut out[..len], mask, 0);
        len
    }
}

/// Of the bits of a message's session and number, and when it was due: a product with an odd number, so that each bit of
/// either is seen in its upper half.
#[inline]
fn check(bits: u64, due_ns: u64) -> u32 {
    ((bits ^ due_ns).wrapping_mul(STEP) >> 32) as u32
}

impl Sizes {
    /// Whether each message of these sizes tells when it was due.
    pub(crate) fn tell_time(self, kind: Kind) -> bool {
        layout(kind, self.min) == Layout::Fields
    }

    /// The size at a place of 2^32.
    fn place(self, place: u64) -> usize {
        self.min + ((place * ((self.max - self.min) as u64 + 1)) >> 32) as usize
    }
}

fn layout(kind: Kind, size: usize) -> Layout {
    let (fields, number) = match kind {
        Kind::Binary => (FIELDS, 4),
        Kind::Text => (FIELDS_TEXT, NUMBER_TEXT),
    };
    match size {
        0 => Layout::Empty,
        size if size < number => Layout::Byte,
        size if size < fields => Layout::Number,
        _ => Layout::Fields,
    }
}

/// The fields of a message that has them, and how many bytes they take in it.
fn fields_of(kind: Kind, payload: &[u8]) -> Option<([u8; FIELDS], usize)> {
    match kind {
        Kind::Binary => Some((*payload.first_chunk()?, FIELDS)),
        Kind::Text => Some((text_fields(payload.first_chunk()?)?, FIELDS_TEXT)),
    }
}

/// Two periods and the starts.
fn table(random: &mut Random, fill: Fill, kind: Kind, period: usize, starts: u64) -> Box<[u8]> {
    let mut bytes: Vec<u8> = Vec::with_capacity(2 * period + starts as usize + 256);
    while bytes.len() < period {
        let bits = random.next();
        match (fill, kind) {
            (Fill::Random, Kind::Binary) => bytes.push(bits as u8),
            (Fill::Random, Kind::Text) => bytes.push(character(bits as u8)),
            (Fill::Json, _) => put_record(&mut bytes, random),
        }
    }
    bytes.truncate(period);
    bytes.extend_from_within(..);
    bytes.extend_from_within(..starts as usize);
    bytes.into()
}

/// A record as a feed of trades has it: half of it names, half of it values.
fn put_record(out: &mut Vec<u8>, random: &mut Random) {
    const SYMBOLS: [&str; 8] =
        ["BTC-EUR", "ETH-EUR", "SOL-USD", "XRP-USD", "ADA-EUR", "DOT-USD", "LTC-EUR", "BCH-USD"];
    let bits = random.next();
    let symbol = SYMBOLS[(bits & 7) as usize];
    let side = if bits & 8 == 0 { "buy" } else { "sell" };
    let (price, cents) = (bits >> 8 & 0xffff, (bits >> 24 & 0xff) % 100);
    let (id, quantity) = (bits >> 32, random.next() % 100_000);
    let record = format!(
        "{{\"type\":\"trade\",\"id\":{id},\"symbol\":\"{symbol}\",\"side\":\"{side}\",\
         \"price\":{price}.{cents:02},\"quantity\":{quantity}}},"
    );
    out.extend_from_slice(record.as_bytes());
}

/// Session, number, time and check.
fn split(fields: &[u8; FIELDS]) -> (u32, u32, u64, u32) {
    let word = |at: usize| u32::from_le_bytes([fields[at], fields[at + 1], fields[at + 2], fields[at + 3]]);
    (word(0), word(4), u64::from(word(12)) << 32 | u64::from(word(8)), word(16))
}

/// The number closest to `expected` whose last `bits` bits are those of `low`.
#[inline]
fn nearest(expected: u64, low: u64, bits: u32) -> u64 {
    let shift = 64 - bits;
    let difference = (low.wrapping_sub(expected) << shift).cast_signed() >> shift;
    expected.wrapping_add_signed(difference)
}

/// Six bits as a character that needs no escape but `\`.
const fn character(bits: u8) -> u8 {
    b'0' + (bits & 63)
}

/// Writes a number six bits a character, the last ones first.
fn put_sextets(out: &mut [u8], mut number: u64) {
    for byte in out {
        *byte = character(number as u8);
        number >>= 6;
    }
}

fn sextets(text: &[u8]) -> Option<u64> {
    text.iter().rev().try_fold(0, |number, byte| {
        let bits = byte.wrapping_sub(b'0');
        (bits < 64).then_some(number << 6 | u64::from(bits))
    })
}

/// Three bytes are four characters; the last two bytes are three.
fn put_text(out: &mut [u8], fields: &[u8; FIELDS]) {
    for (characters, bytes) in out.chunks_mut(4).zip(fields.chunks(3)) {
        let number = bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
        put_sextets(characters, number);
    }
}

fn text_fields(text: &[u8; FIELDS_TEXT]) -> Option<[u8; FIELDS]> {
    let mut fields = [0; FIELDS];
    for (bytes, characters) in fields.chunks_mut(3).zip(text.chunks(4)) {
        let number = sextets(characters)?;
        if number >> (8 * bytes.len()) != 0 {
            return None;
        }
        let len = bytes.len();
        bytes.copy_from_slice(&number.to_le_bytes()[..len]);
    }
    Some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payloads(min: usize, max: usize, kind: Kind) -> Payloads {
        Payloads::new(Sizes { min, max }, kind, 7)
    }

    fn message(number: u64) -> Message {
        Message { serial: 0x0102_0304, number, due_ns: 0x1122_3344_5566 + number }
    }

    /// The whole frame, unmasked by the rules of RFC 6455 §5.3 written out.
    fn payload(payloads: &Payloads, message: &Message) -> Vec<u8> {
        let len = payloads.frame_len(message.serial, message.number);
        let mut frame = vec![0; len + 9];
        assert_eq!(payloads.write(&mut frame, message, 0), len);
        assert_eq!(frame[len..], [0; 9], "nothing behind the frame");
        frame.truncate(len);
        let size = payloads.size(message.serial, message.number);
        let header = len - size;
        let key: [u8; 4] = frame[header - 4..header].try_into().unwrap();
        frame[header..].iter().enumerate().map(|(at, byte)| byte ^ key[at % 4]).collect()
    }

    const SIZES: [usize; 16] = [1, 2, 3, 4, 5, 6, 7, 19, 20, 26, 27, 64, 126, 4096, 65_535, 200_000];

    #[test]
    fn what_was_written_is_read() {
        for kind in [Kind::Binary, Kind::Text] {
            for size in SIZES {
                let payloads = payloads(size, size, kind);
                for number in [0, 1, 63, 64, 255, 256, 70_000, u64::from(u32::MAX), 1 << 33] {
                    let message = message(number);
                    let bytes = payload(&payloads, &message);
                    assert!(kind == Kind::Binary || bytes.iter().all(u8::is_ascii_graphic));
                    let due_ns = payloads.tell_time().then_some(message.due_ns);
                    assert_eq!(payloads.owner(&bytes), due_ns.map(|_| message.serial), "{kind:?} {size}");
                    for expected in [number, number.saturating_sub(3), number + 3] {
                        let read = payloads.read(message.serial, expected, kind, &bytes);
                        assert_eq!(
                            read,
                            Ok(Answer { number, due_ns }),
                            "{kind:?} {size} {number} {expected}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn whatever_a_server_sends_is_judged() {
        let text = "0,3,text\n5,1,binary\n9,40,text\n9,7,binary";
        let trace = Trace::parse(text, Kind::Text, 100, crate::trace::Start::Anywhere, true).unwrap();
        let played = payloads(0, 0, Kind::Binary).with_trace(Arc::new(trace));
        let mut random = Random::new(11);
        for payloads in [played, payloads(0, 64, Kind::Binary), payloads(0, 64, Kind::Text)] {
            for len in (0..48).cycle().take(5_000) {
                let bytes: Vec<u8> = (0..len).map(|_| b'0' + (random.next() % 80) as u8).collect();
                for kind in [Kind::Binary, Kind::Text] {
                    let answer = payloads.read(random.next() as u32 & 0xff, 0, kind, &bytes);
                    // Where it tells of no session, its number may be any; what is longer is never taken for ours.
                    assert!(answer.is_err() || layout(kind, len) != Layout::Fields, "{bytes:?}");
                }
            }
        }
    }

    #[test]
    fn any_cut_of_a_frame_gives_the_same_bytes() {
        for kind in [Kind::Binary, Kind::Text] {
            for size in SIZES {
                let payloads = payloads(size, size, kind);
                let message = message(9);
                let mut whole = vec![0; payloads.frame_len(message.serial, 9)];
                payloads.write(&mut whole, &message, 0);
                for step in [1, 3, 17, 1000, 65_000] {
                    if whole.len() / step > 5000 {
                        continue;
                    }
                    let mut again = Vec::new();
                    while again.len() < whole.len() {
                        let mut piece = vec![0; step];
                        let count = payloads.write(&mut piece, &message, again.len());
                        assert!(count > 0);
                        again.extend_from_slice(&piece[..count]);
                    }
                    assert!(again == whole, "{kind:?} {size} by {step}");
                }
            }
        }
    }

    #[test]
    fn each_flipped_bit_is_found_where_the_message_has_room() {
        for (kind, size) in [(Kind::Binary, 20), (Kind::Binary, 64), (Kind::Text, 27), (Kind::Text, 64)] {
            let payloads = payloads(size, size, kind);
            let bytes = payload(&payloads, &message(5));
            for bit in 0..size * 8 {
                let mut wrong = bytes.clone();
                wrong[bit / 8] ^= 1 << (bit % 8);
                let read = payloads.read(message(5).serial, 5, kind, &wrong);
                assert!(matches!(read, Err(Wrong::Corrupt(_))), "{kind:?} {size} bit {bit}: {read:?}");
            }
            for len in 0..size {
                assert!(matches!(
                    payloads.read(message(5).serial, 5, kind, &bytes[..len]),
                    Err(Wrong::Corrupt(_))
                ));
            }
        }
    }

    #[test]
    fn another_sessions_message_is_told_apart() {
        let payloads = payloads(64, 64, Kind::Binary);
        let bytes = payload(&payloads, &message(5));
        assert_eq!(payloads.read(1, 5, Kind::Binary, &bytes), Err(Wrong::Misdelivered));
    }

    #[test]
    fn sizes_spread_from_the_least_to_the_most() {
        let payloads = payloads(10, 13, Kind::Binary);
        let mut seen = [0; 4];
        (0..4000).for_each(|number| seen[payloads.size(1, number) - 10] += 1);
        assert!(seen.iter().all(|count| (850..1150).contains(count)), "{seen:?}");
    }

    #[test]
    fn shares_come_as_often_as_they_weigh() {
        let share = |weight, min, max| Share { weight, sizes: Sizes { min, max } };
        let payloads = payloads(64, 4000, Kind::Binary).with_shares(&[
            share(0.7, 64, 64),
            share(0.25, 100, 200),
            share(0.05, 4000, 4000),
        ]);
        let sizes: Vec<usize> = (0..20_000).map(|number| payloads.size(3, number)).collect();
        let count = |min, max| sizes.iter().filter(|size| (min..=max).contains(*size)).count();
        assert!((13_700..14_300).contains(&count(64, 64)), "{}", count(64, 64));
        assert!((4_700..5_300).contains(&count(100, 200)), "{}", count(100, 200));
        assert!((850..1_150).contains(&count(4000, 4000)), "{}", count(4000, 4000));
        assert!((1_100..1_400).contains(&count(100, 125)), "evenly within a share");
    }

    #[test]
    fn a_payload_is_that_of_its_frame_with_any_fill() {
        for kind in [Kind::Binary, Kind::Text] {
            for fill in [Fill::Random, Fill::Json] {
                for (size, deflates) in [(5, false), (64, true), (4096, false), (200_000, true)] {
                    let payloads = payloads(size, size, kind).with_fill(fill, deflates);
                    let message = message(9);
                    let mut alone = Vec::new();
                    payloads.put_payload(&mut alone, &message);
                    let framed = payload(&payloads, &message);
                    assert!(alone == framed, "{kind:?} {fill:?} {size}");
                    assert!(kind == Kind::Binary || framed.is_ascii());
                    assert!(payloads.read(message.serial, 9, kind, &framed).is_ok());
                }
            }
        }
    }

    #[test]
    fn masks_are_fresh() {
        let payloads = payloads(64, 64, Kind::Binary);
        let mask = |number| {
            let mut frame = [0; 70];
            payloads.write(&mut frame, &message(number), 0);
            [frame[2], frame[3], frame[4], frame[5]]
        };
        let masks: std::collections::HashSet<_> = (0..1000).map(mask).collect();
        assert!(masks.len() > 998);
    }
}
