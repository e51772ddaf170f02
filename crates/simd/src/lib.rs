//! Unmasking at memory speed, fused with an ASCII check.
//!
//! RFC 6455 §5.3: byte `i` of a payload is XORed with byte `i & 3` of the masking key. Every function takes
//! the `offset` of its first byte within the payload, so that a payload may be handled in pieces.

const ASCII: u64 = 0x7f7f_7f7f_7f7f_7f7f;

/// The key repeated over a word, rotated so that its first byte is the one for `offset`.
fn word(key: [u8; 4], offset: usize) -> u64 {
    let [a, b, c, d] = rotate(key, offset);
    u64::from_ne_bytes([a, b, c, d, a, b, c, d])
}

/// The key whose byte 0 masks the payload's byte `offset`.
#[must_use]
pub const fn rotate(key: [u8; 4], offset: usize) -> [u8; 4] {
    let at = offset & 3;
    [key[at], key[(at + 1) & 3], key[(at + 2) & 3], key[(at + 3) & 3]]
}

/// Unmasks in place. `offset` is where `bytes` starts within the payload. Returns whether all unmasked
/// bytes are ASCII.
pub fn unmask(bytes: &mut [u8], key: [u8; 4], offset: usize) -> bool {
    let (wide, key) = (word(key, offset), rotate(key, offset));
    let mut seen = 0u64;
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for chunk in words {
        let plain = u64::from_ne_bytes(*chunk) ^ wide;
        seen |= plain;
        *chunk = plain.to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
        seen |= u64::from(*byte);
    }
    seen & !ASCII == 0
}

/// Unmasks `buffer[from..from + len]` while moving it down to `buffer[to..to + len]`. Bytes between the end
/// of the moved payload and the end of the old one keep unspecified values. Returns whether all unmasked
/// bytes are ASCII.
///
/// # Panics
/// If `to > from` or `from + len` lies outside `buffer`.
pub fn unmask_to(buffer: &mut [u8], from: usize, to: usize, len: usize, key: [u8; 4], offset: usize) -> bool {
    assert!(to <= from, "a payload only moves down");
    buffer.copy_within(from..from + len, to);
    unmask(&mut buffer[to..to + len], key, offset)
}

/// Unmasks `src` into `dst`. Returns whether all unmasked bytes are ASCII.
///
/// # Panics
/// If the lengths differ.
pub fn unmask_into(src: &[u8], dst: &mut [u8], key: [u8; 4], offset: usize) -> bool {
    dst.copy_from_slice(src);
    unmask(dst, key, offset)
}

/// Whether the unmasked bytes would all be ASCII. Writes nothing.
#[must_use]
pub fn scan(bytes: &[u8], key: [u8; 4], offset: usize) -> bool {
    let (wide, key) = (word(key, offset), rotate(key, offset));
    let (words, rest) = bytes.as_chunks::<8>();
    let seen = words.iter().fold(0, |seen, chunk| seen | (u64::from_ne_bytes(*chunk) ^ wide));
    let rest = rest.iter().zip(key.iter().cycle()).fold(0, |seen, (byte, key)| seen | (byte ^ key));
    (seen | u64::from(rest)) & !ASCII == 0
}

/// Whether all bytes are ASCII.
#[must_use]
pub fn is_ascii(bytes: &[u8]) -> bool {
    scan(bytes, [0; 4], 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rfcs_example() {
        let mut hello = [0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert!(scan(&hello, [0x37, 0xfa, 0x21, 0x3d], 0));
        assert!(unmask(&mut hello, [0x37, 0xfa, 0x21, 0x3d], 0));
        assert_eq!(&hello, b"Hello");
    }
}
