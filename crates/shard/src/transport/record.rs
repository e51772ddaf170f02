//! Length-prefixed, scrambled and checked records: the place of TLS in tests, small enough to be simulated.
//!
//! Six bytes (payload length, 16 bits; check, 32 bits; both big-endian), then the payload. Length 0 ends the direction.
//! The scrambling and the check depend on the record's number, so that one lost, doubled or swapped is found.

use super::Behind;

/// The largest payload of a record.
const MOST: usize = 16_384;
const HEADER: usize = 6;
/// What is said of records that the peer cannot have sealed.
const BROKEN: Behind = Behind::Fault("records: a wrong one");
const FROM_CLIENT: u64 = 0x7469_6465_6331_0001;
const FROM_SERVER: u64 = 0x7469_6465_7332_0002;

/// One session's records.
pub(crate) struct Record {
    /// What the peer's are scrambled with, and what the own ones are.
    keys: (u64, u64),
    opened: u64,
    sealed: u64,
    carry: Vec<u8>,
    /// Sealed, and not taken yet.
    out: Vec<u8>,
    /// The peer has sealed its end.
    ended: bool,
    /// This end has.
    own_ended: bool,
}

impl Record {
    /// As the server.
    pub(crate) fn new() -> Record {
        Record::with((FROM_CLIENT, FROM_SERVER))
    }

    /// As the client, towards an upstream.
    pub(crate) fn client() -> Record {
        Record::with((FROM_SERVER, FROM_CLIENT))
    }

    fn with(keys: (u64, u64)) -> Record {
        Record {
            keys,
            opened: 0,
            sealed: 0,
            carry: Vec::new(),
            out: Vec::new(),
            ended: false,
            own_ended: false,
        }
    }

    pub(super) fn open(&mut self, mut input: &[u8], plain: &mut Vec<u8>) -> Behind {
        if self.ended {
            return BROKEN;
        }
        while !input.is_empty() {
            let missing = match self.carry.len() {
                short @ 0..HEADER => HEADER - short,
                len => HEADER + length(&self.carry) - len,
            };
            let (part, rest) = input.split_at(missing.min(input.len()));
            self.carry.extend_from_slice(part);
            input = rest;
            if self.carry.len() < HEADER {
                continue;
            }
            let len = length(&self.carry);
            if len > MOST {
                return BROKEN;
            }
            if self.carry.len() < HEADER + len {
                continue;
            }
            let start = plain.len();
            plain.extend_from_slice(&self.carry[HEADER..]);
            let check = check_field(&self.carry);
            self.carry.clear();
            if !self.unscramble(&mut plain[start..], check) {
                plain.truncate(start);
                return BROKEN;
            }
            if len == 0 {
                self.ended = true;
                return Behind::End;
            }
        }
        Behind::More
    }

    pub(super) fn give_room(&mut self, mut room: Vec<u8>) {
        if self.out.is_empty() {
            room.clear();
            self.out = room;
        }
    }

    pub(super) fn seal(&mut self, plain: &[u8]) {
        for part in plain.chunks(MOST) {
            self.seal_one(part);
        }
    }

    pub(super) fn has_sealed(&self) -> bool {
        !self.out.is_empty()
    }

    pub(super) fn take_sealed(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// Whether the peer has sealed its end.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    pub(super) fn seal_end(&mut self) -> bool {
        if !std::mem::replace(&mut self.own_ended, true) {
            self.seal_one(&[]);
            return true;
        }
        false
    }

    fn seal_one(&mut self, part: &[u8]) {
        let out = &mut self.out;
        out.extend_from_slice(&(part.len() as u16).to_be_bytes());
        out.extend_from_slice(&check(self.sealed, part).to_be_bytes());
        let start = out.len();
        out.extend_from_slice(part);
        scramble(self.keys.1, self.sealed, &mut out[start..]);
        self.sealed += 1;
    }

    fn unscramble(&mut self, payload: &mut [u8], expected: u32) -> bool {
        scramble(self.keys.0, self.opened, payload);
        let right = check(self.opened, payload) == expected;
        self.opened += 1;
        right
    }
}

fn length(record: &[u8]) -> usize {
    usize::from(u16::from_be_bytes([record[0], record[1]]))
}

fn check_field(record: &[u8]) -> u32 {
    u32::from_be_bytes([record[2], record[3], record[4], record[5]])
}

/// FNV-1a (Fowler, Noll, Vo) over the record's number and its plain payload.
fn check(number: u64, plain: &[u8]) -> u32 {
    let bytes = number.to_le_bytes();
    bytes
        .iter()
        .chain(plain)
        .fold(0x811c_9dc5, |hash: u32, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

fn scramble(key: u64, number: u64, payload: &mut [u8]) {
    let seed = splitmix(key ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    for (place, word) in payload.chunks_mut(8).enumerate() {
        let stream = splitmix(seed.wrapping_add(place as u64)).to_le_bytes();
        for (byte, mask) in word.iter_mut().zip(stream) {
            *byte ^= mask;
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
fn splitmix(x: u64) -> u64 {
    let z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
