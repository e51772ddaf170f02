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

use tidegate_wire::{
    frame::{Head, Opcode, encode_header, header_len},
    message::Kind,
};

use crate::random::{Random, of_message};

/// The table of fills repeats after this.
const PERIOD: usize = 64 * 1024;
/// Fills start at one of so many places.
const STARTS: u64 = 4096;
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
    kind: Kind,
    salt: u64,
    /// Two periods and the starts, so that any piece of a period lies in one.
    table: Box<[u8]>,
}

impl Payloads {
    pub(crate) fn new(sizes: Sizes, kind: Kind, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let salt = random.next();
        let byte = |random: &mut Random| match kind {
            Kind::Binary => random.next() as u8,
            Kind::Text => character(random.next() as u8),
        };
        let period: Vec<u8> = (0..PERIOD).map(|_| byte(&mut random)).collect();
        let table = period.iter().cycle().take(2 * PERIOD + STARTS as usize).copied().collect();
        Self { sizes, kind, salt, table }
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// The most bytes of payload.
    pub(crate) fn max(&self) -> usize {
        self.sizes.max
    }

    /// Whether each message tells when it was due.
    pub(crate) fn tell_time(&self) -> bool {
        self.layout(self.sizes.min) == Layout::Fields
    }

    /// Bytes of payload of a message.
    #[inline]
    pub(crate) fn size(&self, serial: u32, number: u64) -> usize {
        let Sizes { min, max } = self.sizes;
        if min == max {
            return min;
        }
        let span = (max - min) as u64 + 1;
        let bits = of_message(self.salt ^ 1, serial, number) >> 32;
        min + ((bits * span) >> 32) as usize
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
        let opcode = match self.kind {
            Kind::Text => Opcode::Text,
            Kind::Binary => Opcode::Binary,
        };
        let mut front = [0; 64];
        let head = Head { fin: true, rsv1: false, opcode, len: size as u64, mask: Some(mask) };
        let header = encode_header(&mut front, &head);
        let fields = self.put_fields(&mut front[header..], message, size);
        tidegate_simd::unmask(&mut front[header..header + fields], mask, 0);
        let front = &front[..header + fields];

        let mut written = 0;
        if from < front.len() {
            written = (front.len() - from).min(out.len());
            out[..written].copy_from_slice(&front[from..from + written]);
        }
        // Where in the payload the rest begins.
        let mut at = (from + written).saturating_sub(header);
        if from + written < front.len() {
            return written;
        }
        while at < size && written < out.len() {
            let count = (size - at).min(out.len() - written).min(PERIOD);
            let fill = self.fill(bits, at, count);
            tidegate_simd::unmask_into(fill, &mut out[written..written + count], mask, at);
            at += count;
            written += count;
        }
        written
    }

    /// The session that a message says to be of; `None` where it cannot say that.
    #[inline]
    pub(crate) fn owner(&self, payload: &[u8]) -> Option<u32> {
        if self.layout(payload.len()) != Layout::Fields {
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

    /// Judges an echo of session `serial`, of which number `expected` is awaited next.
    #[inline]
    pub(crate) fn read(&self, serial: u32, expected: u64, payload: &[u8]) -> Result<Answer, Wrong> {
        let layout = self.layout(payload.len());
        let (number, due_ns, fields) = match layout {
            Layout::Fields => {
                let (fields, len) = self.fields(payload).ok_or(Wrong::Corrupt(None))?;
                let (owner, number, due_ns, check) = split(&fields);
                if check != self.check(owner, number, due_ns) {
                    return Err(Wrong::Corrupt(None));
                }
                if owner != serial {
                    return Err(Wrong::Misdelivered);
                }
                (nearest(expected, u64::from(number), 32), Some(due_ns), len)
            }
            Layout::Number => match self.kind {
                Kind::Binary => {
                    let number = payload.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
                    (nearest(expected, u64::from(number), 32), None, 4)
                }
                Kind::Text => {
                    let number = sextets(&payload[..NUMBER_TEXT]).ok_or(Wrong::Corrupt(None))?;
                    (nearest(expected, number, 32), None, NUMBER_TEXT)
                }
            },
            Layout::Byte => match self.kind {
                Kind::Binary => (nearest(expected, u64::from(payload[0]), 8), None, 1),
                Kind::Text => {
                    let number = sextets(&payload[..1]).ok_or(Wrong::Corrupt(None))?;
                    (nearest(expected, number, 6), None, 1)
                }
            },
            Layout::Empty => (expected, None, 0),
        };
        let sure = (layout == Layout::Fields).then_some(number);
        if payload.len() != self.size(serial, number) {
            return Err(Wrong::Corrupt(sure));
        }
        let bits = of_message(self.salt, serial, number);
        let mut at = fields;
        while at < payload.len() {
            let count = (payload.len() - at).min(PERIOD);
            if payload[at..at + count] != *self.fill(bits, at, count) {
                return Err(Wrong::Corrupt(sure));
            }
            at += count;
        }
        Ok(Answer { number, due_ns })
    }

    fn layout(&self, size: usize) -> Layout {
        let (fields, number) = match self.kind {
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

    /// A piece of the fill of the message with these bits, by its place in the payload.
    #[inline]
    fn fill(&self, bits: u64, at: usize, count: usize) -> &[u8] {
        let start = (bits % STARTS) as usize + at % PERIOD;
        &self.table[start..start + count]
    }

    /// Writes what stands before the fill, and returns its size.
    fn put_fields(&self, out: &mut [u8], message: &Message, size: usize) -> usize {
        // Numbers are written modulo what their field holds.
        let number = message.number as u32;
        match (self.layout(size), self.kind) {
            (Layout::Fields, kind) => {
                let check = self.check(message.serial, number, message.due_ns);
                let mut fields = [0; FIELDS];
                fields[..4].copy_from_slice(&message.serial.to_le_bytes());
                fields[4..8].copy_from_slice(&number.to_le_bytes());
                fields[8..16].copy_from_slice(&message.due_ns.to_le_bytes());
                fields[16..].copy_from_slice(&check.to_le_bytes());
                match kind {
                    Kind::Binary => {
                        out[..FIELDS].copy_from_slice(&fields);
                        FIELDS
                    }
                    Kind::Text => {
                        put_text(&mut out[..FIELDS_TEXT], &fields);
                        FIELDS_TEXT
                    }
                }
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
        }
    }

    /// The fields of a message that has them, and how many bytes they take in it.
    fn fields(&self, payload: &[u8]) -> Option<([u8; FIELDS], usize)> {
        match self.kind {
            Kind::Binary => Some((*payload.first_chunk()?, FIELDS)),
            Kind::Text => Some((text_fields(payload.first_chunk()?)?, FIELDS_TEXT)),
        }
    }

    #[inline]
    fn check(&self, serial: u32, number: u32, due_ns: u64) -> u32 {
        (of_message(self.salt ^ due_ns, serial, u64::from(number)) >> 32) as u32
    }
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
                        let read = payloads.read(message.serial, expected, &bytes);
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
                let read = payloads.read(message(5).serial, 5, &wrong);
                assert!(matches!(read, Err(Wrong::Corrupt(_))), "{kind:?} {size} bit {bit}: {read:?}");
            }
            for len in 0..size {
                assert!(matches!(payloads.read(message(5).serial, 5, &bytes[..len]), Err(Wrong::Corrupt(_))));
            }
        }
    }

    #[test]
    fn another_sessions_message_is_told_apart() {
        let payloads = payloads(64, 64, Kind::Binary);
        let bytes = payload(&payloads, &message(5));
        assert_eq!(payloads.read(1, 5, &bytes), Err(Wrong::Misdelivered));
    }

    #[test]
    fn sizes_spread_from_the_least_to_the_most() {
        let payloads = payloads(10, 13, Kind::Binary);
        let mut seen = [0; 4];
        (0..4000).for_each(|number| seen[payloads.size(1, number) - 10] += 1);
        assert!(seen.iter().all(|count| (850..1150).contains(count)), "{seen:?}");
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
