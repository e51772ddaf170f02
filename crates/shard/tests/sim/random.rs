//! The seed's random numbers: xoshiro256++, seeded by SplitMix64 (Blackman and Vigna, public domain).

use std::ops::RangeInclusive;

/// One step of SplitMix64, as a hash.
pub(crate) fn splitmix64(x: u64) -> u64 {
    let z = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub(crate) struct Random {
    state: [u64; 4],
}

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        let mut state = [0; 4];
        let mut x = seed;
        for word in &mut state {
            *word = splitmix64(x);
            x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
        }
        Random { state }
    }

    pub(crate) fn next(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// An independent stream.
    pub(crate) fn fork(&mut self) -> Random {
        Random::new(self.next())
    }

    /// Below `bound`, which is not 0; the bias of the multiplication does not matter here.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "a number below nothing");
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    pub(crate) fn range(&mut self, range: RangeInclusive<u64>) -> u64 {
        range.start() + self.below(range.end() - range.start() + 1)
    }

    pub(crate) fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    pub(crate) fn size(&mut self, range: RangeInclusive<usize>) -> usize {
        self.range(*range.start() as u64..=*range.end() as u64) as usize
    }

    /// True `per_1024` times in 1024.
    pub(crate) fn chance(&mut self, per_1024: u16) -> bool {
        self.next() >> 54 < u64::from(per_1024)
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.index(from.len())]
    }

    pub(crate) fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}
