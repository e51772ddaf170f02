//! Fields as text: six bits a character.

use super::fields::FIELDS;

/// Characters for them: six bits each.
pub(super) const FIELDS_TEXT: usize = (FIELDS * 8).div_ceil(6);
/// Characters for a number of 32 bits.
pub(super) const NUMBER_TEXT: usize = 6;

/// Six bits as a character that needs no escape but `\`.
#[inline]
pub(super) const fn character(bits: u8) -> u8 {
    b'0' + (bits & 63)
}

/// Writes a number six bits a character, the last ones first.
#[inline]
pub(super) fn put_sextets(out: &mut [u8], mut number: u64) {
    for byte in out {
        *byte = character(number as u8);
        number >>= 6;
    }
}

#[inline]
pub(super) fn sextets(text: &[u8]) -> Option<u64> {
    text.iter().rev().try_fold(0, |number, byte| {
        let bits = byte.wrapping_sub(b'0');
        (bits < 64).then_some(number << 6 | u64::from(bits))
    })
}

/// Three bytes are four characters; the last two bytes are three.
pub(super) fn put_text(out: &mut [u8], fields: &[u8; FIELDS]) {
    for (characters, bytes) in out.chunks_mut(4).zip(fields.chunks(3)) {
        let number = bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
        put_sextets(characters, number);
    }
}

pub(super) fn text_fields(text: &[u8; FIELDS_TEXT]) -> Option<[u8; FIELDS]> {
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
