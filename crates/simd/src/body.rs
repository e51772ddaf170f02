//! The body that all functions and all sets of instructions share.

use crate::{
    mask::Mask,
    span::Span,
    vectors::{Vectors, Words},
};

/// Up to here a payload is a few overlapping words: no loop, no choice of instructions.
pub(crate) const SHORT: usize = 64;

/// From here on the registers are stored aligned, because a store across a cache line's end costs two. Below, it
/// costs more than it saves.
const ALIGNED: usize = 2048;

/// A payload of up to [`SHORT`] bytes: its first and its last half, which overlap.
#[inline(always)]
pub(crate) fn short<S: Span>(span: S, mask: Mask) -> bool {
    match span.len() {
        0 => true,
        1..=3 => bytes(span, mask),
        4..=7 => halves(span, mask),
        8..=16 => words::<S, 1, 8>(span, mask),
        17..=32 => words::<S, 2, 16>(span, mask),
        _ => words::<S, 4, 32>(span, mask),
    }
}

/// One to three bytes: the first, the middle one and the last, which may be the same.
#[inline(always)]
fn bytes<S: Span>(mut span: S, mask: Mask) -> bool {
    let last = span.len() - 1;
    let middle = last.div_ceil(2);
    let plain = [
        span.source::<1>(0)[0] ^ mask.byte(),
        span.source::<1>(middle)[0] ^ mask.at(middle).byte(),
        span.source::<1>(last)[0] ^ mask.at(last).byte(),
    ];
    for (at, byte) in [0, middle, last].into_iter().zip(plain) {
        if let Some(place) = span.place(at) {
            *place = [byte];
        }
    }
    plain.is_ascii()
}

/// Four to eight bytes.
#[inline(always)]
fn halves<S: Span>(mut span: S, mask: Mask) -> bool {
    let last = span.len() - 4;
    let head = u32::from_ne_bytes(*span.source(0)) ^ mask.half();
    let tail = u32::from_ne_bytes(*span.source(last)) ^ mask.at(last).half();
    if let Some(place) = span.place(0) {
        *place = head.to_ne_bytes();
    }
    if let Some(place) = span.place(last) {
        *place = tail.to_ne_bytes();
    }
    Words.is_ascii(u64::from(head | tail))
}

/// `N` to `2 * N` words. Both ends are loaded before either is stored, because they overlap.
#[inline(always)]
fn words<S: Span, const N: usize, const BYTES: usize>(mut span: S, mask: Mask) -> bool {
    const { assert!(BYTES == N * 8) };
    let last = span.len() - BYTES;
    let head: [u64; N] = load(span.source::<BYTES>(0), mask);
    let tail: [u64; N] = load(span.source::<BYTES>(last), mask.at(last));
    if let Some(place) = span.place::<BYTES>(0) {
        store(head, place);
    }
    if let Some(place) = span.place::<BYTES>(last) {
        store(tail, place);
    }
    let mut seen = 0;
    for n in 0..N {
        seen |= head[n] | tail[n];
    }
    Words.is_ascii(seen)
}

#[inline(always)]
fn load<const N: usize, const BYTES: usize>(bytes: &[u8; BYTES], mask: Mask) -> [u64; N] {
    let mut words = [0; N];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = Words.load(bytes) ^ mask.word();
    }
    words
}

#[inline(always)]
fn store<const N: usize, const BYTES: usize>(words: [u64; N], bytes: &mut [u8; BYTES]) {
    for (word, bytes) in words.into_iter().zip(bytes.as_chunks_mut().0) {
        Words.store(word, bytes);
    }
}

/// A payload of at least `WIDTH` bytes, in blocks of four registers, then register by register. The first and
/// the last register overlap what lies between.
#[inline(always)]
pub(crate) fn long<V, S, const WIDTH: usize, const BLOCK: usize>(vectors: V, mut span: S, mask: Mask) -> bool
where
    V: Vectors<WIDTH>,
    S: Span,
{
    const { assert!(WIDTH.is_multiple_of(4) && BLOCK == 4 * WIDTH) };
    let len = span.len();
    let last = len - WIDTH;

    // Taken before anything is stored, stored after all else: what lies between overlaps both.
    let head = vectors.xor(vectors.load(span.source(0)), vectors.splat(mask));
    let tail = vectors.xor(vectors.load(span.source(last)), vectors.splat(mask.at(last)));
    let mut seen = vectors.or(head, tail);

    let mut at = if len < ALIGNED { WIDTH } else { WIDTH - span.address() % WIDTH };
    let key = vectors.splat(mask.at(at));
    while len - at >= BLOCK {
        let (block, _) = span.source::<BLOCK>(at).as_chunks::<WIDTH>();
        let one = vectors.xor(vectors.load(&block[0]), key);
        let two = vectors.xor(vectors.load(&block[1]), key);
        let three = vectors.xor(vectors.load(&block[2]), key);
        let four = vectors.xor(vectors.load(&block[3]), key);
        seen = vectors.or(seen, vectors.or(vectors.or(one, two), vectors.or(three, four)));
        if let Some(place) = span.place::<BLOCK>(at) {
            let (block, _) = place.as_chunks_mut::<WIDTH>();
            vectors.store(one, &mut block[0]);
            vectors.store(two, &mut block[1]);
            vectors.store(three, &mut block[2]);
            vectors.store(four, &mut block[3]);
        }
        at += BLOCK;
    }
    while at < last {
        let plain = vectors.xor(vectors.load(span.source(at)), key);
        seen = vectors.or(seen, plain);
        if let Some(place) = span.place(at) {
            vectors.store(plain, place);
        }
        at += WIDTH;
    }
    if let Some(place) = span.place(0) {
        vectors.store(head, place);
    }
    if let Some(place) = span.place(last) {
        vectors.store(tail, place);
    }
    vectors.is_ascii(seen)
}
