//! A second, slow, obvious inflater: the oracle. It follows RFC 1951 bit by bit, with the rules on incomplete codes
//! that zlib and its `puff` have, and RFC 7692 §7.2.2 at the end of a message. The fuzz targets use it too.

use std::cmp::Ordering;

/// Decodes the messages of one session.
#[derive(Clone)]
pub(crate) struct Puff {
    /// All that may be looked back at.
    history: Vec<u8>,
    /// Keep the history from message to message?
    takeover: bool,
    /// The longest distance met.
    pub(crate) furthest: usize,
}

/// Not a permessage-deflate message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Corrupt;

/// What keeps bytes from being all of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// The input ends within a block; nothing is wrong with it so far.
    Short,
    Corrupt,
    TooBig,
}

impl Puff {
    pub(crate) fn new(takeover: bool) -> Self {
        Self { history: Vec::new(), takeover, furthest: 0 }
    }

    pub(crate) fn message(&mut self, payload: &[u8]) -> Result<Vec<u8>, Corrupt> {
        let mut input = payload.to_vec();
        input.extend([0x00, 0x00, 0xff, 0xff]);
        let (out, verdict) = self.decode(&input, payload.len(), usize::MAX);
        verdict.map(|()| out).map_err(|_| Corrupt)
    }

    /// What `input` gives before its end or whatever else stops it, at most `limit` bytes. `payload` is how many bytes of
    /// it are the message's: 4 fewer for a whole one, or all of them for the front of one.
    pub(crate) fn decode(
        &mut self,
        input: &[u8],
        payload: usize,
        limit: usize,
    ) -> (Vec<u8>, Result<(), Flaw>) {
        let mut bits = Bits { input, at: 0, payload: payload * 8, limit };
        let mut out = Vec::new();
        let verdict = self.blocks(&mut bits, &mut out);
        if !self.takeover {
            self.history.clear();
        }
        (out, verdict)
    }

    fn blocks(&mut self, bits: &mut Bits<'_>, out: &mut Vec<u8>) -> Result<(), Flaw> {
        // Where the deflate stream in hand began: it is owed the four bytes only if it has begun at all.
        let mut stream = 0;
        while bits.at < bits.input.len() * 8 {
            if bits.at == stream && stream == bits.payload {
                break;
            }
            if self.block(bits, out)? {
                bits.at = bits.at.next_multiple_of(8);
                stream = bits.at;
                self.history.clear();
            }
        }
        if bits.at > bits.payload && bits.at != bits.input.len() * 8 || stream > bits.payload {
            return Err(Flaw::Corrupt);
        }
        Ok(())
    }

    /// Decodes one block; was it the final one?
    fn block(&mut self, bits: &mut Bits<'_>, out: &mut Vec<u8>) -> Result<bool, Flaw> {
        let last = bits.take(1)? == 1;
        match bits.take(2)? {
            0 => {
                bits.at = bits.at.next_multiple_of(8);
                let len = bits.take(16)?;
                if bits.take(16)? != len ^ 0xffff {
                    return Err(Flaw::Corrupt);
                }
                for _ in 0..len {
                    let byte = bits.take(8)? as u8;
                    self.emit(byte, bits, out)?;
                }
            }
            1 => {
                let mut lengths = [8; 288];
                lengths[144..256].fill(9);
                lengths[256..280].fill(7);
                self.symbols(bits, out, &Code::new(&lengths).0, &Code::new(&[5; 30]).0)?;
            }
            2 => {
                let (literals, distances) = dynamic(bits)?;
                self.symbols(bits, out, &literals, &distances)?;
            }
            _ => return Err(Flaw::Corrupt),
        }
        Ok(last)
    }

    fn symbols(
        &mut self,
        bits: &mut Bits<'_>,
        out: &mut Vec<u8>,
        literals: &Code,
        distances: &Code,
    ) -> Result<(), Flaw> {
        const LENGTHS: [usize; 29] = [
            3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131,
            163, 195, 227, 258,
        ];
        const DISTANCES: [usize; 30] = [
            1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049,
            3073, 4097, 6145, 8193, 12289, 16385, 24577,
        ];
        loop {
            let symbol = literals.decode(bits)?;
            match symbol.cmp(&256) {
                Ordering::Less => self.emit(symbol as u8, bits, out)?,
                Ordering::Equal => return Ok(()),
                Ordering::Greater => {
                    let symbol = symbol - 257;
                    let base = *LENGTHS.get(symbol).ok_or(Flaw::Corrupt)?;
                    let extra = if (8..28).contains(&symbol) { symbol / 4 - 1 } else { 0 };
                    let len = base + bits.take(extra)?;
                    let symbol = distances.decode(bits)?;
                    let base = *DISTANCES.get(symbol).ok_or(Flaw::Corrupt)?;
                    let distance = base + bits.take((symbol / 2).saturating_sub(1))?;
                    self.furthest = self.furthest.max(distance);
                    for _ in 0..len {
                        let from = self.history.len().checked_sub(distance).ok_or(Flaw::Corrupt)?;
                        self.emit(self.history[from], bits, out)?;
                    }
                }
            }
        }
    }

    fn emit(&mut self, byte: u8, bits: &Bits<'_>, out: &mut Vec<u8>) -> Result<(), Flaw> {
        // The four bytes complete an empty stored block; a message that needs them for data was cut short.
        if bits.at > bits.payload {
            return Err(Flaw::Corrupt);
        }
        if out.len() == bits.limit {
            return Err(Flaw::TooBig);
        }
        self.history.push(byte);
        out.push(byte);
        Ok(())
    }
}

fn dynamic(bits: &mut Bits<'_>) -> Result<(Code, Code), Flaw> {
    const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
    let literals = bits.take(5)? + 257;
    let distances = bits.take(5)? + 1;
    let count = bits.take(4)? + 4;
    if literals > 286 || distances > 30 {
        return Err(Flaw::Corrupt);
    }
    let mut lengths = [0; 19];
    for &at in &ORDER[..count] {
        lengths[at] = bits.take(3)?;
    }
    if lengths.iter().all(|&length| length == 0) {
        // zlib reads a bit for each length before it finds that none of them is that of the end of a block.
        for _ in 0..literals + distances {
            bits.take(1)?;
        }
        return Err(Flaw::Corrupt);
    }
    let (code, left) = Code::new(&lengths);
    if left != 0 {
        return Err(Flaw::Corrupt);
    }
    let mut lengths = Vec::new();
    while lengths.len() < literals + distances {
        let (value, times) = match code.decode(bits)? {
            16 => {
                let times = 3 + bits.take(2)?;
                (*lengths.last().ok_or(Flaw::Corrupt)?, times)
            }
            17 => (0, 3 + bits.take(3)?),
            18 => (0, 11 + bits.take(7)?),
            length => (length, 1),
        };
        lengths.extend(std::iter::repeat_n(value, times));
    }
    if lengths.len() > literals + distances || lengths[256] == 0 {
        return Err(Flaw::Corrupt);
    }
    let (of_literals, of_distances) = lengths.split_at(literals);
    Ok((checked(of_literals)?, checked(of_distances)?))
}

/// zlib takes an incomplete code only if it consists of a single one-bit code, or of none at all.
fn checked(lengths: &[usize]) -> Result<Code, Flaw> {
    let (code, left) = Code::new(lengths);
    let single = lengths.iter().all(|&length| length <= 1);
    if left < 0 || left > 0 && !single { Err(Flaw::Corrupt) } else { Ok(code) }
}

/// A canonical Huffman code: how many symbols of each length, and the symbols in order.
struct Code {
    counts: [usize; 16],
    symbols: Vec<usize>,
}

impl Code {
    /// The code and how many codes are unused (negative: too many in use).
    fn new(lengths: &[usize]) -> (Self, i32) {
        let mut counts = [0; 16];
        let mut symbols = Vec::new();
        let mut left = 1;
        for (length, count) in counts.iter_mut().enumerate().skip(1) {
            let of_it = lengths.iter().enumerate().filter(|(_, l)| **l == length).map(|(symbol, _)| symbol);
            symbols.extend(of_it);
            *count = lengths.iter().filter(|l| **l == length).count();
            left = left * 2 - *count as i32;
            if left < 0 {
                break;
            }
        }
        (Self { counts, symbols }, left)
    }

    fn decode(&self, bits: &mut Bits<'_>) -> Result<usize, Flaw> {
        let (mut code, mut first, mut index) = (0, 0, 0);
        for count in &self.counts[1..] {
            code |= bits.take(1)?;
            if code < first + count {
                return Ok(self.symbols[index + code - first]);
            }
            index += count;
            // No longer code is in use, as zlib sees at once too.
            if index == self.symbols.len() {
                break;
            }
            first = (first + count) * 2;
            code *= 2;
        }
        Err(Flaw::Corrupt)
    }
}

struct Bits<'i> {
    input: &'i [u8],
    at: usize,
    /// Bits of the payload, before the four bytes that are appended.
    payload: usize,
    /// Bytes that may come out.
    limit: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: usize) -> Result<usize, Flaw> {
        let mut value = 0;
        for shift in 0..count {
            let byte = *self.input.get(self.at / 8).ok_or(Flaw::Short)?;
            value |= usize::from(byte >> (self.at % 8) & 1) << shift;
            self.at += 1;
        }
        Ok(value)
    }
}
