//! The peers' side of the test-only record transport: the same stream in records with a check, as TLS would have it.
//!
//! A record is `len: u16`, `check: u32` (both big endian), then `len` scrambled bytes; `len` 0 ends the stream. The check
//! is FNV-1a over the record's number and its plain bytes, so a record that is lost, repeated or moved is found.

use super::random::splitmix64;

/// The most bytes in one record.
pub(crate) const RECORD_BYTES: usize = 16_384;

const HEADER: usize = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    ToServer,
    ToClient,
}

impl Direction {
    fn key(self) -> u64 {
        match self {
            Direction::ToServer => 0x7469_6465_6331_0001,
            Direction::ToClient => 0x7469_6465_7332_0002,
        }
    }
}

/// Scrambles, or unscrambles, the payload of record `number`.
fn scramble(direction: Direction, number: u64, bytes: &mut [u8]) {
    let start = splitmix64(direction.key() ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    for (index, chunk) in bytes.chunks_mut(8).enumerate() {
        let word = splitmix64(start.wrapping_add(index as u64)).to_le_bytes();
        chunk.iter_mut().zip(word).for_each(|(byte, key)| *byte ^= key);
    }
}

fn check(number: u64, plain: &[u8]) -> u32 {
    let number = number.to_le_bytes();
    number
        .iter()
        .chain(plain)
        .fold(0x811C_9DC5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[derive(Debug)]
pub(crate) struct Seal {
    direction: Direction,
    number: u64,
}

impl Seal {
    pub(crate) fn new(direction: Direction) -> Seal {
        Seal { direction, number: 0 }
    }

    /// Appends one record; `plain` has at most [`RECORD_BYTES`].
    pub(crate) fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        out.extend((plain.len() as u16).to_be_bytes());
        out.extend(check(self.number, plain).to_be_bytes());
        let start = out.len();
        out.extend_from_slice(plain);
        scramble(self.direction, self.number, &mut out[start..]);
        self.number += 1;
    }

    /// Appends the record that ends the stream.
    pub(crate) fn seal_end(&mut self, out: &mut Vec<u8>) {
        self.seal(&[], out);
    }
}

#[derive(Debug)]
pub(crate) struct Open {
    direction: Direction,
    number: u64,
    bytes: Vec<u8>,
    pub(crate) ended: bool,
}

impl Open {
    pub(crate) fn new(direction: Direction) -> Open {
        Open { direction, number: 0, bytes: Vec::new(), ended: false }
    }

    /// Takes what arrived, and appends what it says.
    ///
    /// # Panics
    /// Where it is not what the other side can have sealed.
    pub(crate) fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.bytes.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(header) = self.bytes.get(at..at + HEADER) {
            assert!(!self.ended, "a record behind the end of its stream");
            let len = usize::from(u16::from_be_bytes([header[0], header[1]]));
            let sum = u32::from_be_bytes([header[2], header[3], header[4], header[5]]);
            assert!(len <= RECORD_BYTES, "a record of {len} bytes");
            let Some(payload) = self.bytes.get(at + HEADER..at + HEADER + len) else { break };
            let start = out.len();
            out.extend_from_slice(payload);
            scramble(self.direction, self.number, &mut out[start..]);
            assert!(sum == check(self.number, &out[start..]), "record {} has a wrong check", self.number);
            self.number += 1;
            self.ended = len == 0;
            at += HEADER + len;
        }
        self.bytes.drain(..at);
        assert!(!self.ended || self.bytes.is_empty(), "bytes behind the end of a sealed stream");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_split_of_the_records_opens_to_the_same_bytes() {
        let plain: Vec<u8> = (0..40_000u32).map(|n| (n * 7 % 251) as u8).collect();
        let mut sealed = Vec::new();
        let mut seal = Seal::new(Direction::ToClient);
        for chunk in plain.chunks(777) {
            seal.seal(chunk, &mut sealed);
        }
        seal.seal_end(&mut sealed);
        for split in [1, 5, 6, 7, 100, 50_000] {
            let mut open = Open::new(Direction::ToClient);
            let mut out = Vec::new();
            sealed.chunks(split).for_each(|chunk| open.push(chunk, &mut out));
            assert!(open.ended && out == plain, "split into {split}");
        }
    }

    #[test]
    #[should_panic(expected = "wrong check")]
    fn a_repeated_record_is_found() {
        let mut sealed = Vec::new();
        Seal::new(Direction::ToServer).seal(b"once", &mut sealed);
        let mut open = Open::new(Direction::ToServer);
        open.push(&sealed, &mut Vec::new());
        open.push(&sealed, &mut Vec::new());
    }
}
