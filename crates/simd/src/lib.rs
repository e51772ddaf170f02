//! Unmasking at memory speed, fused with an ASCII check.
//!
//! RFC 6455 §5.3: byte `i` of a payload is XORed with byte `i & 3` of the masking key. Every function here takes
//! the `offset` of its first byte within the payload, so that a payload can be handled in pieces, and answers whether
//! the unmasked bytes are all ASCII: then text is valid UTF-8 already.
//!
//! | | reads | writes |
//! |---|---|---|
//! | [`unmask`] | bytes | the same |
//! | [`unmask_to`] | a part of a buffer | a lower part of it, which may overlap |
//! | [`unmask_into`] | bytes | others |
//! | [`scan`], [`is_ascii`] | bytes | nothing |
//!
//! All share one body: up to 64 bytes are a few overlapping words without a loop; more goes through the widest
//! registers that the machine has (AVX2, NEON, or general ones), for which the same body is compiled.
//!
//! ```
//! let mut payload = *b"\x7f\x9f\x4d\x51\x58"; // RFC 6455 §5.7
//! let key = [0x37, 0xfa, 0x21, 0x3d];
//! assert!(tidegate_simd::scan(&payload, key, 0));
//! let (one, other) = payload.split_at_mut(3);
//! assert!(tidegate_simd::unmask(one, key, 0));
//! assert!(tidegate_simd::unmask(other, key, 3));
//! assert_eq!(&payload, b"Hello");
//! ```

mod body;
mod level;
mod mask;
mod span;
#[cfg(test)]
mod tests;
mod vectors;

use level::run;
use mask::Mask;
use span::{Apart, Down, InPlace, ReadOnly};

/// Bytes that [`scan`] looks at before it stops at one that is not ASCII. A multiple of the key's length.
const SCAN_STEP: usize = 4096;

/// Unmasks in place. `offset` is where `bytes` starts within the payload.
///
/// Returns whether all unmasked bytes are ASCII.
#[inline]
pub fn unmask(bytes: &mut [u8], key: [u8; 4], offset: usize) -> bool {
    run(InPlace(bytes), Mask::new(key, offset))
}

/// Unmasks `buffer[from..from + len]` while moving it down to `buffer[to..to + len]`. Nothing else is written: what the
/// move did not cover of the old place keeps its masked bytes.
///
/// Returns whether all unmasked bytes are ASCII.
///
/// # Panics
/// If `to > from`, or `from + len` lies outside of `buffer`.
#[inline]
pub fn unmask_to(buffer: &mut [u8], from: usize, to: usize, len: usize, key: [u8; 4], offset: usize) -> bool {
    run(Down::new(buffer, from, to, len), Mask::new(key, offset))
}

/// Unmasks `src` into `dst`.
///
/// Returns whether all unmasked bytes are ASCII.
///
/// # Panics
/// If the lengths differ.
#[inline]
pub fn unmask_into(src: &[u8], dst: &mut [u8], key: [u8; 4], offset: usize) -> bool {
    run(Apart::new(src, dst), Mask::new(key, offset))
}

/// Whether the unmasked bytes would all be ASCII. Writes nothing, and stops soon after a byte that is not.
#[inline]
#[must_use]
pub fn scan(bytes: &[u8], key: [u8; 4], offset: usize) -> bool {
    let mask = Mask::new(key, offset);
    // As every step but the last is a multiple of the key's length, the mask is the same for all.
    bytes.chunks(SCAN_STEP).all(|step| run(ReadOnly(step), mask))
}

/// Whether all bytes are ASCII.
#[inline]
#[must_use]
pub fn is_ascii(bytes: &[u8]) -> bool {
    scan(bytes, [0; 4], 0)
}
