//! Strings, numbers and base64 as JSON writes them.

use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD};

use super::MAX_WHOLE;
use crate::Epoch;

/// RFC 4648 §4; its padding may be left out.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH_BITS: u64 = 0x8080_8080_8080_8080;

/// How many bytes from the front may stand in a JSON string as they are: all but `"`, `\` and control bytes.
#[inline]
pub(super) fn plain_len(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    while let Some((word, behind)) = rest.split_first_chunk() {
        let found = specials(u64::from_le_bytes(*word));
        if found != 0 {
            return bytes.len() - rest.len() + (found.trailing_zeros() / 8) as usize;
        }
        rest = behind;
        // Most strings are short. One that is not goes on in blocks, for which there are vectors.
        if bytes.len() - rest.len() == 16 {
            rest = &rest[plain_blocks(rest)..];
        }
    }
    let tail = rest.iter().position(|byte| !is_plain(*byte)).unwrap_or(rest.len());
    bytes.len() - rest.len() + tail
}

/// The high bits of those bytes in a word (the first is the lowest) that are not plain. What lies behind the first of
/// them may be wrong: the subtractions borrow.
#[inline]
const fn specials(word: u64) -> u64 {
    let quotes = word ^ (ONES * b'"' as u64);
    let backslashes = word ^ (ONES * b'\\' as u64);
    let quotes = quotes.wrapping_sub(ONES) & !quotes;
    let backslashes = backslashes.wrapping_sub(ONES) & !backslashes;
    let controls = word.wrapping_sub(ONES * 0x20) & !word;
    (quotes | backslashes | controls) & HIGH_BITS
}

/// The length of the blocks from the front in which every byte is plain.
fn plain_blocks(bytes: &[u8]) -> usize {
    let mut len = 0;
    for block in bytes.as_chunks::<32>().0 {
        // No early end: so that it is a few vector instructions.
        if block.iter().fold(false, |special, byte| special | !is_plain(*byte)) {
            break;
        }
        len += 32;
    }
    len
}

const fn is_plain(byte: u8) -> bool {
    (byte >= 0x20) & (byte != b'"') & (byte != b'\\')
}

/// Appends a JSON string. `text` is UTF-8; everything above ASCII stays as it is.
#[inline]
pub(super) fn push_string(out: &mut Vec<u8>, text: &[u8]) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    let mut rest = text;
    loop {
        let (plain, special) = rest.split_at(plain_len(rest));
        out.extend_from_slice(plain);
        let Some((byte, behind)) = special.split_first() else { break };
        push_escape(out, *byte);
        rest = behind;
    }
    out.push(b'"');
}

#[cold]
fn push_escape(out: &mut Vec<u8>, byte: u8) {
    let short = match byte {
        b'"' | b'\\' => byte,
        0x08 => b'b',
        0x0c => b'f',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        other => {
            let hex = |digit: u8| b"0123456789abcdef"[usize::from(digit)];
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', hex(other >> 4), hex(other & 15)]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Appends the digits of a number.
#[inline]
pub(super) fn push_whole(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends the eight hexadecimal digits of an epoch.
pub(super) fn push_epoch(out: &mut Vec<u8>, epoch: Epoch) {
    let digits: [u8; 8] =
        std::array::from_fn(|at| b"0123456789abcdef"[(epoch.0 >> (28 - 4 * at) & 15) as usize]);
    out.extend_from_slice(&digits);
}

/// Appends base64 with its padding, in quotes.
pub(super) fn push_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    let start = out.len();
    let len = bytes.len().div_ceil(3) * 4;
    out.resize(start + len, 0);
    let written = STANDARD.encode_slice(bytes, &mut out[start..]);
    assert_eq!(written, Ok(len), "base64 takes four bytes for three");
    out.push(b'"');
}

/// The bytes of base64, whose alphabet is that of RFC 4648 §4.
pub(super) fn from_base64(text: &str) -> Option<Vec<u8>> {
    LENIENT.decode(text).ok()
}

/// A whole number in the one form that JSON and JavaScript agree on exactly: digits, no leading zero, at most 2^53 - 1.
pub(super) fn whole(digits: &str) -> Option<u64> {
    let bytes = digits.as_bytes();
    let canonical = match bytes {
        [] => false,
        [b'0', _, ..] => false,
        // Sixteen digits cannot overflow.
        _ => bytes.len() <= 16 && bytes.iter().all(u8::is_ascii_digit),
    };
    let number = canonical.then(|| digits.parse().ok()).flatten()?;
    (number <= MAX_WHOLE).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(text: &str) -> String {
        let mut out = Vec::new();
        push_string(&mut out, text.as_bytes());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn rfc8259_7_what_must_be_escaped_is_and_nothing_else() {
        assert_eq!(string(""), r#""""#);
        assert_eq!(string("a\"b\\c/d"), r#""a\"b\\c/d""#);
        assert_eq!(string("\0\u{1f}\n\r\t\u{8}\u{c}\u{7f}"), "\"\\u0000\\u001f\\n\\r\\t\\b\\f\u{7f}\"");
        assert_eq!(string("\u{2028}\u{10ffff}é"), "\"\u{2028}\u{10ffff}é\"");
    }

    #[test]
    fn the_plain_prefix_is_the_naive_one_for_every_byte_at_every_place() {
        for len in 0..40 {
            for at in 0..=len {
                for byte in 0..=255u8 {
                    for behind in [b'a', 0, b'"', 0x80, 0xff] {
                        let mut bytes = vec![0xc3; len];
                        if let Some(place) = bytes.get_mut(at) {
                            *place = byte;
                        }
                        if let Some(place) = bytes.get_mut(at + 1) {
                            *place = behind;
                        }
                        let naive = bytes.iter().position(|byte| *byte < 0x20 || b"\"\\".contains(byte));
                        assert_eq!(plain_len(&bytes), naive.unwrap_or(len), "{bytes:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn numbers_are_written_and_read_alike() {
        for number in [0, 1, 9, 10, 99, 100, 4_294_967_295, MAX_WHOLE] {
            let mut out = Vec::new();
            push_whole(&mut out, number);
            let text = String::from_utf8(out).unwrap();
            assert_eq!(text, number.to_string());
            assert_eq!(whole(&text), Some(number));
        }
        let mut out = Vec::new();
        push_whole(&mut out, u64::MAX);
        assert_eq!(out, u64::MAX.to_string().as_bytes());
        for bad in [
            "",
            "00",
            "01",
            "-1",
            "+1",
            "1.0",
            "1e1",
            "9007199254740992",
            "9999999999999999",
            " 1",
            "\u{661}",
        ] {
            assert_eq!(whole(bad), None, "{bad}");
        }
    }

    #[test]
    fn rfc4648_4_base64_is_read_with_and_without_padding() {
        for (text, bytes) in
            [("", &b""[..]), ("AA==", b"\0"), ("AA", b"\0"), ("+/8=", b"\xfb\xff"), ("aGVq", b"hej")]
        {
            assert_eq!(from_base64(text).as_deref(), Some(bytes), "{text}");
        }
        for bad in ["A", "AB==", "-_8=", "aGVq\n", "aG Vq", "====", "AA=A"] {
            assert_eq!(from_base64(bad), None, "{bad}");
        }
        for len in 0..50u8 {
            let bytes: Vec<u8> = (0..len).map(|byte| byte.wrapping_mul(97)).collect();
            let mut out = Vec::new();
            push_base64(&mut out, &bytes);
            let text = std::str::from_utf8(&out).unwrap().trim_matches('"');
            assert_eq!(from_base64(text), Some(bytes));
        }
    }
}
