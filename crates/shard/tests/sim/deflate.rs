//! The oracle's own permessage-deflate (RFC 7692 over RFC 1951): a plain inflater that takes all block types, and a small
//! deflater that writes stored and fixed blocks with matches. Independent of zlib-rs, which the gateway uses.

use super::random::Random;

/// What both ends have agreed upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Agreement {
    pub(crate) client_takeover: bool,
    pub(crate) server_takeover: bool,
    pub(crate) client_bits: u8,
    pub(crate) server_bits: u8,
}

/// The offers that clients make.
pub(crate) const OFFERS: [&str; 6] = [
    "permessage-deflate",
    "permessage-deflate; client_max_window_bits",
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
    "permessage-deflate; server_max_window_bits=10; client_max_window_bits=9",
    "x-webkit-deflate-frame, permessage-deflate; client_no_context_takeover",
    "permessage-deflate; server_max_window_bits=9, permessage-deflate",
];

impl Agreement {
    /// Reads the server's answer.
    ///
    /// # Panics
    /// Where it does not answer `offer` (RFC 7692 §7.1).
    pub(crate) fn read(answer: &str, offer: &str) -> Agreement {
        let mut agreement =
            Agreement { client_takeover: true, server_takeover: true, client_bits: 15, server_bits: 15 };
        let mut parts = answer.split(';').map(str::trim);
        assert_eq!(parts.next(), Some("permessage-deflate"), "an answer {answer:?} to {offer:?}");
        for part in parts {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            match name {
                "client_no_context_takeover" => agreement.client_takeover = false,
                "server_no_context_takeover" => agreement.server_takeover = false,
                "client_max_window_bits" => {
                    assert!(offer.contains(name), "{name} was not offered");
                    agreement.client_bits = value.parse().expect("a number of bits");
                }
                "server_max_window_bits" => agreement.server_bits = value.parse().expect("a number of bits"),
                _ => panic!("a parameter {part:?}"),
            }
        }
        assert!(
            matches!(agreement.client_bits, 8..=15) && matches!(agreement.server_bits, 8..=15),
            "{answer:?}"
        );
        if offer.contains("server_no_context_takeover") {
            assert!(!agreement.server_takeover, "{answer:?} does not answer {offer:?}");
        }
        if offer.contains("server_max_window_bits=10;") {
            assert!(agreement.server_bits <= 10, "{answer:?} does not answer {offer:?}");
        }
        agreement
    }
}

/// Deflates one direction's messages.
#[derive(Debug)]
pub(crate) struct Deflater {
    takeover: bool,
    window: usize,
    history: Vec<u8>,
}

/// Inflates one direction's messages.
#[derive(Debug)]
pub(crate) struct Inflater {
    takeover: bool,
    window: usize,
    history: Vec<u8>,
}

struct BitWriter {
    out: Vec<u8>,
    bits: u32,
    count: u32,
}

impl BitWriter {
    /// Least significant bit first.
    fn put(&mut self, value: u32, count: u32) {
        self.bits |= value << self.count;
        self.count += count;
        while self.count >= 8 {
            self.out.push(self.bits as u8);
            self.bits >>= 8;
            self.count -= 8;
        }
    }

    /// Huffman codes go most significant bit first (RFC 1951 §3.1.1).
    fn put_code(&mut self, code: u32, count: u32) {
        self.put(code.reverse_bits() >> (32 - count), count);
    }

    fn align(&mut self) {
        if self.count > 0 {
            self.put(0, 8 - self.count);
        }
    }

    /// RFC 1951 §3.2.6.
    fn symbol(&mut self, symbol: u32) {
        match symbol {
            0..=143 => self.put_code(0x30 + symbol, 8),
            144..=255 => self.put_code(0x190 + symbol - 144, 9),
            256..=279 => self.put_code(symbol - 256, 7),
            _ => self.put_code(0xC0 + symbol - 280, 8),
        }
    }
}

/// RFC 1951 §3.2.5: (base, extra bits).
fn lengths() -> impl Iterator<Item = (usize, u32)> {
    (0..29).scan(3, |base, index: u32| {
        let extra = if !(4..28).contains(&index) { if index < 8 { 0 } else { 5 } } else { (index - 4) / 4 };
        let extra = if index == 28 { 0 } else { extra };
        let this = if index == 28 { 258 } else { *base };
        *base += 1 << extra;
        Some((this, extra))
    })
}

fn distances() -> impl Iterator<Item = (usize, u32)> {
    (0..30).scan(1, |base, index: u32| {
        let extra = (index / 2).saturating_sub(1);
        let this = *base;
        *base += 1 << extra;
        Some((this, extra))
    })
}

impl Deflater {
    pub(crate) fn new(takeover: bool, bits: u8) -> Deflater {
        Deflater { takeover, window: 1 << bits, history: Vec::new() }
    }

    /// A message's compressed payload (RFC 7692 §7.2.1).
    pub(crate) fn message(&mut self, random: &mut Random, plain: &[u8]) -> Vec<u8> {
        if !self.takeover {
            self.history.clear();
        }
        let start = self.history.len();
        self.history.extend_from_slice(plain);
        let mut out = BitWriter { out: Vec::new(), bits: 0, count: 0 };
        let mut at = start;
        while at < self.history.len() {
            let most = *random.pick(&[10, 1_000, 65_535]);
            let end = self.history.len().min(at + random.size(1..=most));
            if random.below(4) == 0 {
                // RFC 1951 §3.2.4: stored.
                out.put(0, 3);
                out.align();
                let len = (end - at) as u16;
                out.out.extend(len.to_le_bytes());
                out.out.extend((!len).to_le_bytes());
                out.out.extend_from_slice(&self.history[at..end]);
            } else {
                out.put(0b010, 3);
                self.fixed(&mut out, at, end);
                out.symbol(256);
            }
            at = end;
        }
        // The empty stored block of a flush, without its four bytes of lengths.
        out.put(0, 3);
        out.align();
        let keep = self.history.len().saturating_sub(self.window);
        self.history.drain(..keep);
        out.out
    }

    fn fixed(&self, out: &mut BitWriter, mut at: usize, end: usize) {
        let bytes = &self.history;
        let mut last = vec![usize::MAX; 1 << 12];
        let hash = |at: usize| {
            let word = u32::from(bytes[at]) | u32::from(bytes[at + 1]) << 8 | u32::from(bytes[at + 2]) << 16;
            (word.wrapping_mul(0x9E37_79B1) >> 20) as usize
        };
        for before in at.saturating_sub(self.window.min(2_000))..at {
            if before + 3 <= bytes.len() {
                last[hash(before)] = before;
            }
        }
        while at < end {
            if at + 3 <= end {
                let slot = hash(at);
                let candidate = std::mem::replace(&mut last[slot], at);
                if candidate < at && at - candidate <= self.window {
                    let most = (end - at).min(258);
                    let len =
                        (0..most).take_while(|&index| bytes[candidate + index] == bytes[at + index]).count();
                    if len >= 3 {
                        put_match(out, len, at - candidate);
                        at += len;
                        continue;
                    }
                }
            }
            out.symbol(u32::from(bytes[at]));
            at += 1;
        }
    }
}

fn put_match(out: &mut BitWriter, len: usize, distance: usize) {
    let (index, (base, extra)) =
        lengths().enumerate().filter(|(_, (base, _))| *base <= len).last().expect("3 or more");
    out.symbol(257 + index as u32);
    out.put((len - base) as u32, extra);
    let (index, (base, extra)) =
        distances().enumerate().filter(|(_, (base, _))| *base <= distance).last().expect("1 or more");
    out.put_code(index as u32, 5);
    out.put((distance - base) as u32, extra);
}

struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
    bit: u32,
}

impl BitReader<'_> {
    fn bits(&mut self, count: u32) -> u32 {
        (0..count).fold(0, |value, place| {
            let byte = *self.bytes.get(self.at).expect("compressed data that end in the middle");
            let bit = u32::from(byte) >> self.bit & 1;
            self.bit += 1;
            if self.bit == 8 {
                self.bit = 0;
                self.at += 1;
            }
            value | bit << place
        })
    }

    fn align(&mut self) {
        if self.bit > 0 {
            self.bit = 0;
            self.at += 1;
        }
    }
}

/// A canonical Huffman code: how many codes there are of each length, and the symbols in their order.
struct Code {
    counts: [u16; 16],
    symbols: Vec<u16>,
}

impl Code {
    fn new(lengths: &[u8]) -> Code {
        let mut counts = [0; 16];
        lengths.iter().for_each(|&len| counts[usize::from(len)] += 1);
        let mut symbols: Vec<u16> =
            (0..lengths.len() as u16).filter(|&symbol| lengths[usize::from(symbol)] > 0).collect();
        symbols.sort_by_key(|&symbol| (lengths[usize::from(symbol)], symbol));
        counts[0] = 0;
        Code { counts, symbols }
    }

    fn read(&self, from: &mut BitReader<'_>) -> u16 {
        let (mut code, mut first, mut index) = (0i32, 0i32, 0i32);
        for len in 1..16 {
            code |= from.bits(1) as i32;
            let count = i32::from(self.counts[len]);
            if code - first < count {
                return self.symbols[(index + code - first) as usize];
            }
            index += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        panic!("a code that stands for nothing");
    }
}

impl Inflater {
    pub(crate) fn new(takeover: bool, bits: u8) -> Inflater {
        Inflater { takeover, window: 1 << bits, history: Vec::new() }
    }

    /// The plain message of a compressed payload (RFC 7692 §7.2.2).
    ///
    /// # Panics
    /// Where it is not one, or looks back further than was agreed.
    pub(crate) fn message(&mut self, payload: &[u8]) -> Vec<u8> {
        if !self.takeover {
            self.history.clear();
        }
        let start = self.history.len();
        let bytes = [payload, &[0, 0, 0xFF, 0xFF]].concat();
        let mut from = BitReader { bytes: &bytes, at: 0, bit: 0 };
        while from.at < bytes.len() {
            let last = from.bits(1);
            match from.bits(2) {
                0 => self.stored(&mut from),
                1 => {
                    let literal: Vec<u8> = (0..288)
                        .map(|symbol| match symbol {
                            0..=143 => 8,
                            144..=255 => 9,
                            256..=279 => 7,
                            _ => 8,
                        })
                        .collect();
                    self.compressed(&mut from, &Code::new(&literal), &Code::new(&[5; 30]));
                }
                2 => {
                    let (literal, distance) = dynamic(&mut from);
                    self.compressed(&mut from, &literal, &distance);
                }
                _ => panic!("a block of the reserved type"),
            }
            if last == 1 {
                from.align();
            }
        }
        let message = self.history[start..].to_vec();
        let keep = self.history.len().saturating_sub(self.window);
        self.history.drain(..keep);
        message
    }

    fn stored(&mut self, from: &mut BitReader<'_>) {
        from.align();
        let len = from.bits(16);
        assert_eq!(len ^ 0xFFFF, from.bits(16), "a stored block's lengths");
        let bytes = &from.bytes[from.at..from.at + len as usize];
        self.history.extend_from_slice(bytes);
        from.at += len as usize;
    }

    fn compressed(&mut self, from: &mut BitReader<'_>, literal: &Code, distance: &Code) {
        let (lengths, distances): (Vec<_>, Vec<_>) = (lengths().collect(), distances().collect());
        loop {
            let symbol = usize::from(literal.read(from));
            match symbol {
                0..=255 => self.history.push(symbol as u8),
                256 => return,
                _ => {
                    let (base, extra) = lengths[symbol - 257];
                    let len = base + from.bits(extra) as usize;
                    let (base, extra) = distances[usize::from(distance.read(from))];
                    let back = base + from.bits(extra) as usize;
                    assert!(back <= self.window && back <= self.history.len(), "a match {back} bytes back");
                    for _ in 0..len {
                        self.history.push(self.history[self.history.len() - back]);
                    }
                }
            }
        }
    }
}

/// RFC 1951 §3.2.7.
fn dynamic(from: &mut BitReader<'_>) -> (Code, Code) {
    const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
    let literals = from.bits(5) as usize + 257;
    let distances = from.bits(5) as usize + 1;
    let codes = from.bits(4) as usize + 4;
    let mut lengths = [0u8; 19];
    for &place in &ORDER[..codes] {
        lengths[place] = from.bits(3) as u8;
    }
    let code = Code::new(&lengths);
    let mut lengths: Vec<u8> = Vec::new();
    while lengths.len() < literals + distances {
        let (value, times) = match code.read(from) {
            16 => (*lengths.last().expect("something to repeat"), 3 + from.bits(2)),
            17 => (0, 3 + from.bits(3)),
            18 => (0, 11 + from.bits(7)),
            len => (len as u8, 1),
        };
        lengths.extend((0..times).map(|_| value));
    }
    (Code::new(&lengths[..literals]), Code::new(&lengths[literals..literals + distances]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_those_of_rfc_1951_3_2_5() {
        let lengths: Vec<_> = lengths().collect();
        assert_eq!((lengths[0], lengths[7], lengths[8]), ((3, 0), (10, 0), (11, 1)));
        assert_eq!((lengths[20], lengths[27], lengths[28]), ((67, 4), (227, 5), (258, 0)));
        let distances: Vec<_> = distances().collect();
        assert_eq!((distances[0], distances[3], distances[4]), ((1, 0), (4, 0), (5, 1)));
        assert_eq!((distances[10], distances[29]), ((33, 4), (24_577, 13)));
    }

    #[test]
    fn deflate_then_inflate_is_the_identity_with_and_without_takeover() {
        let mut random = Random::new(1);
        for takeover in [false, true] {
            let (mut deflater, mut inflater) = (Deflater::new(takeover, 10), Inflater::new(takeover, 10));
            for len in [0, 1, 3, 50, 300, 5_000, 70_000] {
                let plain: Vec<u8> = (0..len).map(|_| random.below(4) as u8).collect();
                let packed = deflater.message(&mut random, &plain);
                assert_eq!(inflater.message(&packed), plain, "{len} bytes, takeover {takeover}");
            }
        }
    }

    #[test]
    fn rfc7692_7_2_3_examples() {
        let mut inflater = Inflater::new(true, 15);
        assert_eq!(inflater.message(&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]), b"Hello");
        assert_eq!(inflater.message(&[0xf2, 0x00, 0x11, 0x00, 0x00]), b"Hello");
        let mut other = Inflater::new(false, 15);
        assert_eq!(
            other.message(&[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00]),
            b"Hello"
        );
        assert_eq!(other.message(&[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00]), b"Hello");
    }
}
