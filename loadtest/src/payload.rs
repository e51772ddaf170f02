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

mod fields;
mod fill;
mod sizes;
mod text;

use std::sync::Arc;

use tidegate_wire::{
    frame::{Head, Opcode, encode_header, header_len},
    message::Kind,
};

use self::{
    fields::{Layout, check, fields_of, layout, nearest, split},
    fill::{PERIOD, STARTS, WIDE, table},
    sizes::Shape,
    text::{NUMBER_TEXT, sextets},
};
pub(crate) use self::{
    fill::Fill,
    sizes::{Share, Sizes},
};
use crate::{
    random::{Random, mix, of_message},
    trace::Trace,
};

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

    /// Whether all messages are of this kind.
    pub(crate) fn awaits_only(&self, kind: Kind) -> bool {
        !self.is_mixed && self.kind == kind
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
}

#[cfg(test)]
mod tests;
