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
        8..=16 => words::<S, 1>(span, mask),
        17..=32 => words::<S, 2>(span, mask),
        _ => words::<S, 4>(span, mask),
    }
}

/// One to three bytes: the first, the middle one and the last, which may be the same.
#[inline(always)]
fn bytes<S: Span>(mut span: S, mask: Mask) -> bool {
    let last = span.len() - 1;
    let places = [0, last.div_ceil(2), last];
    let plain = places.map(|at| span.source::<1>(at)[0] ^ mask.at(at).byte());
    for (at, byte) in places.into_iter().zip(plain) {
        if let Some(place) = span.place::<1>(at) {
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
fn words<S: Span, const N: usize>(mut span: S, mask: Mask) -> bool {
    let last = span.len() - N * 8;
    let mut seen = 0;
    let head: [u64; N] = std::array::from_fn(|n| Words.load(span.source(n * 8)) ^ mask.word());
    let tail: [u64; N] =
        std::array::from_fn(|n| Words.load(span.source(last + n * 8)) ^ mask.at(last).word());
    for (n, word) in head.into_iter().enumerate() {
        seen |= word;
        if let Some(place) = span.place(n * 8) {
            Words.store(word, place);
        }
    }
    for (n, word) in tail.into_iter().enumerate() {
        seen |= word;
        if let Some(place) = span.place(last + n * 8) {
            Words.store(word, place);
        }
    }
    Words.is_ascii(seen)
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
        let plain = [0, 1, 2, 3].map(|n: usize| vectors.xor(vectors.load(&block[n]), key));
        let [one, two, three, four] = plain;
        seen = vectors.or(seen, vectors.or(vectors.or(one, two), vectors.or(three, four)));
        if let Some(place) = span.place::<BLOCK>(at) {
            let (block, _) = place.as_chunks_mut::<WIDTH>();
            for (place, vector) in block.iter_mut().zip(plain) {
                vectors.store(vector, place);
            }
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
