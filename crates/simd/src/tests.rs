//! Every function, at every level that this machine has, against a naive loop.

use proptest::prelude::*;

use super::*;
use crate::{
    level::{Level, run_with},
    vectors::Words,
};

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
/// A key that leaves ASCII text ASCII, so that the verdict depends on the text alone.
const GENTLE: [u8; 4] = [0x11, 0x22, 0x33, 0x44];
const GUARD: usize = 64;

/// What everything else is compared with.
fn naive(bytes: &[u8], key: [u8; 4], offset: usize) -> (Vec<u8>, bool) {
    let plain: Vec<u8> = bytes.iter().enumerate().map(|(i, byte)| byte ^ key[(offset + i) & 3]).collect();
    let ascii = plain.iter().all(|byte| *byte < 0x80);
    (plain, ascii)
}

/// The portable level, and the widest one if it is another.
fn levels() -> Vec<Level> {
    let mut levels = vec![Level::Words(Words)];
    if Level::best() != levels[0] {
        levels.push(Level::best());
    }
    levels
}

/// Bytes without a pattern that a mistake could hide in (xorshift, Marsaglia 2003).
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Memory whose start has a known address modulo 64, so that alignments are what a test says.
struct Aligned {
    memory: Vec<u8>,
    start: usize,
}

impl Aligned {
    fn new(len: usize) -> Self {
        let memory = noise(len + 64);
        let start = memory.as_ptr().align_offset(64);
        assert!(start < 64);
        Self { memory, start }
    }

    fn bytes(&mut self) -> &mut [u8] {
        let len = self.memory.len() - 64;
        &mut self.memory[self.start..self.start + len]
    }
}

/// Runs all four kinds of spans on `len` bytes at `align` past a multiple of 64, and compares all memory around.
fn check(level: Level, len: usize, align: usize, offset: usize) {
    let at = GUARD + align;
    let context = format!("{level:?} len {len} align {align} offset {offset}");
    let mut aligned = Aligned::new(at + len + GUARD);
    let before = aligned.bytes().to_vec();
    let (plain, ascii) = naive(&before[at..at + len], KEY, offset);
    let mask = Mask::new(KEY, offset);
    let mut after = before.clone();
    after[at..at + len].copy_from_slice(&plain);

    assert_eq!(run_with(ReadOnly(&aligned.bytes()[at..at + len]), mask, || level), ascii, "scan {context}");
    assert_eq!(aligned.bytes(), before, "scan wrote: {context}");

    assert_eq!(
        run_with(InPlace(&mut aligned.bytes()[at..at + len]), mask, || level),
        ascii,
        "in place {context}"
    );
    assert_eq!(aligned.bytes(), after, "in place {context}");

    // Another alignment for the source than for the destination.
    let source = noise(align + len + 1);
    let source = &source[align..align + len];
    let (plain, ascii) = naive(source, KEY, offset);
    aligned.bytes().copy_from_slice(&before);
    after[at..at + len].copy_from_slice(&plain);
    let apart = Apart::new(source, &mut aligned.bytes()[at..at + len]);
    assert_eq!(run_with(apart, mask, || level), ascii, "apart {context}");
    assert_eq!(aligned.bytes(), after, "apart {context}");
}

/// Moves `len` bytes down by `gap`, and compares all memory around.
fn check_down(level: Level, len: usize, gap: usize, align: usize, offset: usize) {
    let (to, from) = (GUARD + align, GUARD + align + gap);
    let context = format!("{level:?} len {len} gap {gap} align {align} offset {offset}");
    let mut aligned = Aligned::new(from + len + GUARD);
    let mut after = aligned.bytes().to_vec();
    let (plain, ascii) = naive(&after[from..from + len], KEY, offset);
    after[to..to + len].copy_from_slice(&plain);
    let down = Down::new(aligned.bytes(), from, to, len);
    assert_eq!(run_with(down, Mask::new(KEY, offset), || level), ascii, "{context}");
    assert_eq!(aligned.bytes(), after, "{context}");
}

#[test]
fn rfc6455_5_7_hello() {
    let masked = [0x7f, 0x9f, 0x4d, 0x51, 0x58];
    let mut hello = masked;
    assert!(unmask(&mut hello, KEY, 0));
    assert_eq!(&hello, b"Hello");
    assert!(scan(&masked, KEY, 0));
    assert!(!scan(&masked, KEY, 1), "another rotation is another text");
}

#[test]
fn every_length_and_alignment_equals_the_naive_loop() {
    for level in levels() {
        for len in 0..=300 {
            for align in 0..64 {
                check(level, len, align, 0);
            }
        }
    }
}

#[test]
fn every_length_and_key_offset_equals_the_naive_loop() {
    for level in levels() {
        for len in 0..=300 {
            for offset in 0..64 {
                check(level, len, offset % 7, offset);
            }
        }
    }
}

#[test]
fn every_alignment_and_key_offset_equal_the_naive_loop_where_stores_are_aligned() {
    for level in levels() {
        for len in [2047, 2048, 2049, 2111, 2175, 2303] {
            for align in 0..64 {
                for offset in 0..4 {
                    check(level, len, align, offset);
                }
            }
        }
    }
}

#[test]
fn every_move_down_equals_the_naive_loop() {
    for level in levels() {
        for len in 0..=300 {
            for gap in 0..=64 {
                check_down(level, len, gap, len % 61, gap + len);
            }
        }
    }
}

#[test]
fn long_moves_down_equal_the_naive_loop() {
    for level in levels() {
        for len in [2048, 2049, 2100, 2303] {
            for gap in 0..=160 {
                check_down(level, len, gap, (len + gap) % 64, gap);
            }
        }
        for gap in [4096, 5000] {
            check_down(level, 3000, gap, 3, 1);
        }
    }
}

#[test]
fn one_byte_that_is_not_ascii_is_seen_wherever_it_is() {
    let lengths = (0..=200).chain([255, 256, 300, 2047, 2048, 2100, 4095, 4096, 4097, 8200]);
    for len in lengths {
        let mask = Mask::new(GENTLE, 2);
        let plain: Vec<u8> = noise(len).iter().map(|byte| byte & 0x7f).collect();
        let (mut masked, _) = naive(&plain, GENTLE, 2);
        assert!(scan(&masked, GENTLE, 2), "len {len}");
        assert!(is_ascii(&plain), "len {len}");
        for at in (0..len).step_by(if len > 300 { 13 } else { 1 }) {
            masked[at] ^= 0x80;
            assert!(!scan(&masked, GENTLE, 2), "len {len} at {at}");
            for level in levels() {
                let mut bytes = masked.clone();
                assert!(!run_with(ReadOnly(&bytes), mask, || level), "{level:?} len {len} at {at}");
                assert!(!run_with(InPlace(&mut bytes), mask, || level), "{level:?} len {len} at {at}");
            }
            masked[at] ^= 0x80;
        }
    }
}

#[test]
fn the_body_for_long_payloads_is_right_from_one_register_on() {
    for level in levels() {
        for len in 32..=300 {
            for offset in 0..4 {
                let mut bytes = noise(len);
                let (plain, ascii) = naive(&bytes, KEY, offset);
                assert_eq!(level.run(InPlace(&mut bytes), Mask::new(KEY, offset)), ascii);
                assert_eq!(bytes, plain, "{level:?} len {len} offset {offset}");
            }
        }
    }
}

#[test]
#[should_panic(expected = "a payload only moves down")]
fn a_move_up_is_refused() {
    unmask_to(&mut [0; 8], 1, 2, 4, KEY, 0);
}

#[test]
#[should_panic(expected = "range end index 9 out of range")]
fn a_move_from_outside_is_refused() {
    unmask_to(&mut [0; 8], 5, 1, 4, KEY, 0);
}

#[test]
#[should_panic(expected = "a payload inside its buffer")]
fn a_length_that_wraps_is_refused() {
    unmask_to(&mut [0; 8], 5, 1, usize::MAX, KEY, 0);
}

#[test]
#[should_panic(expected = "as much room as payload")]
fn a_destination_of_another_length_is_refused() {
    unmask_into(&[0; 8], &mut [0; 7], KEY, 0);
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    let ascii = prop::collection::vec(0u8..0x80, 0..700);
    let noisy = prop::collection::vec(any::<u8>(), 0..700);
    let long = (2000usize..9000, any::<u8>()).prop_map(|(len, byte)| {
        let mut bytes: Vec<u8> = noise(len).iter().map(|noise| noise & 0x7f).collect();
        bytes[usize::from(byte) % len] = byte;
        bytes
    });
    prop_oneof![ascii, noisy, long]
}

proptest! {
    #[test]
    fn all_functions_agree_with_the_naive_loop(
        plain in payload(), key: [u8; 4], offset: usize, gap in 0usize..200,
    ) {
        let offset = offset / 2; // `naive` adds to it
        let (masked, _) = naive(&plain, key, offset);
        let ascii = plain.is_ascii();

        prop_assert_eq!(is_ascii(&plain), ascii);
        prop_assert_eq!(scan(&masked, key, offset), ascii);

        let mut bytes = masked.clone();
        prop_assert_eq!(unmask(&mut bytes, key, offset), ascii);
        prop_assert_eq!(&bytes, &plain);

        let mut bytes = vec![0xaa; plain.len()];
        prop_assert_eq!(unmask_into(&masked, &mut bytes, key, offset), ascii);
        prop_assert_eq!(&bytes, &plain);

        let mut bytes = vec![0xaa; gap];
        bytes.extend_from_slice(&masked);
        prop_assert_eq!(unmask_to(&mut bytes, gap, 0, plain.len(), key, offset), ascii);
        prop_assert_eq!(&bytes[..plain.len()], &plain[..]);
        prop_assert_eq!(&bytes[plain.len().max(gap)..], &masked[plain.len().max(gap) - gap..]);
    }

    #[test]
    fn any_split_gives_the_same_bytes(
        mut bytes in payload(), key: [u8; 4], cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let (whole, whole_ascii) = naive(&bytes, key, 0);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.push(bytes.len());
        cuts.sort_unstable();
        let (mut start, mut ascii) = (0, true);
        for end in cuts {
            ascii &= unmask(&mut bytes[start..end], key, start);
            start = end;
        }
        prop_assert_eq!(bytes, whole);
        prop_assert_eq!(ascii, whole_ascii);
    }

    #[test]
    fn twice_is_not_at_all(bytes in payload(), key: [u8; 4], offset in 0usize..64) {
        let mut twice = bytes.clone();
        unmask(&mut twice, key, offset);
        prop_assert_eq!(unmask(&mut twice, key, offset), bytes.is_ascii());
        prop_assert_eq!(twice, bytes);
    }
}
