//! What stands before the fill: session, number, time and check, as far as a message has room.

use tidegate_wire::message::Kind;

use super::{
    Message, Payloads,
    text::{FIELDS_TEXT, NUMBER_TEXT, put_sextets, put_text, text_fields},
};
use crate::random::STEP;

/// Bytes of the fields, before they are written as text.
pub(super) const FIELDS: usize = 20;

/// What a message of some size carries before its fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    Fields,
    Number,
    Byte,
    Empty,
}

impl Payloads {
    /// Writes what stands before the fill of a payload of `size` bytes, masked, and returns how much that is.
    #[inline]
    pub(super) fn put_fields(
        &self,
        out: &mut [u8],
        message: &Message,
        size: usize,
        bits: u64,
        mask: [u8; 4],
    ) -> usize {
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
pub(super) fn check(bits: u64, due_ns: u64) -> u32 {
    ((bits ^ due_ns).wrapping_mul(STEP) >> 32) as u32
}

#[inline]
pub(super) fn layout(kind: Kind, size: usize) -> Layout {
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
#[inline]
pub(super) fn fields_of(kind: Kind, payload: &[u8]) -> Option<([u8; FIELDS], usize)> {
    match kind {
        Kind::Binary => Some((*payload.first_chunk()?, FIELDS)),
        Kind::Text => Some((text_fields(payload.first_chunk()?)?, FIELDS_TEXT)),
    }
}

/// Session, number, time and check.
#[inline]
pub(super) fn split(fields: &[u8; FIELDS]) -> (u32, u32, u64, u32) {
    let word = |at: usize| u32::from_le_bytes([fields[at], fields[at + 1], fields[at + 2], fields[at + 3]]);
    (word(0), word(4), u64::from(word(12)) << 32 | u64::from(word(8)), word(16))
}

/// The number closest to `expected` whose last `bits` bits are those of `low`.
#[inline]
pub(super) fn nearest(expected: u64, low: u64, bits: u32) -> u64 {
    let shift = 64 - bits;
    let difference = (low.wrapping_sub(expected) << shift).cast_signed() >> shift;
    expected.wrapping_add_signed(difference)
}
