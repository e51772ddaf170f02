//! The registers that the body for long payloads works with, one type for each set of instructions.
//!
//! A value of such a type is the proof that the machine has the instructions. Each function is inlined into a
//! caller that is compiled for them, so that the registers never leave it.

use crate::mask::Mask;

/// Registers of `WIDTH` bytes.
pub(crate) trait Vectors<const WIDTH: usize>: Copy {
    type Vector: Copy;

    /// The mask, repeated.
    fn splat(self, mask: Mask) -> Self::Vector;
    fn load(self, bytes: &[u8; WIDTH]) -> Self::Vector;
    fn store(self, vector: Self::Vector, bytes: &mut [u8; WIDTH]);
    fn xor(self, one: Self::Vector, other: Self::Vector) -> Self::Vector;
    fn or(self, one: Self::Vector, other: Self::Vector) -> Self::Vector;
    /// Whether no byte has its high bit set.
    fn is_ascii(self, vector: Self::Vector) -> bool;
}

/// General registers, which every machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Words;

impl Vectors<8> for Words {
    type Vector = u64;

    #[inline(always)]
    fn splat(self, mask: Mask) -> u64 {
        mask.word()
    }

    #[inline(always)]
    fn load(self, bytes: &[u8; 8]) -> u64 {
        u64::from_ne_bytes(*bytes)
    }

    #[inline(always)]
    fn store(self, vector: u64, bytes: &mut [u8; 8]) {
        *bytes = vector.to_ne_bytes();
    }

    #[inline(always)]
    fn xor(self, one: u64, other: u64) -> u64 {
        one ^ other
    }

    #[inline(always)]
    fn or(self, one: u64, other: u64) -> u64 {
        one | other
    }

    #[inline(always)]
    fn is_ascii(self, vector: u64) -> bool {
        vector & 0x8080_8080_8080_8080 == 0
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m256i, _mm256_loadu_si256, _mm256_movemask_epi8, _mm256_or_si256, _mm256_set1_epi32,
        _mm256_storeu_si256, _mm256_xor_si256,
    };

    use super::{Mask, Vectors};

    /// Invariant: made only where the machine has AVX2.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Avx2(());

    impl Avx2 {
        /// The proof, if the machine has AVX2. The standard library asks it once and remembers.
        #[inline(always)]
        pub(crate) fn detect() -> Option<Self> {
            std::arch::is_x86_feature_detected!("avx2").then_some(Self(()))
        }
    }

    impl Vectors<32> for Avx2 {
        type Vector = __m256i;

        #[inline(always)]
        fn splat(self, mask: Mask) -> __m256i {
            // SAFETY: `self` proves that the machine has AVX2.
            unsafe { _mm256_set1_epi32(mask.half().cast_signed()) }
        }

        #[inline(always)]
        fn load(self, bytes: &[u8; 32]) -> __m256i {
            // SAFETY: `self` proves that the machine has AVX2; the array is 32 readable bytes, of any alignment.
            unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
        }

        #[inline(always)]
        fn store(self, vector: __m256i, bytes: &mut [u8; 32]) {
            // SAFETY: `self` proves that the machine has AVX2; the array is 32 writable bytes, of any alignment.
            unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), vector) }
        }

        #[inline(always)]
        fn xor(self, one: __m256i, other: __m256i) -> __m256i {
            // SAFETY: `self` proves that the machine has AVX2.
            unsafe { _mm256_xor_si256(one, other) }
        }

        #[inline(always)]
        fn or(self, one: __m256i, other: __m256i) -> __m256i {
            // SAFETY: `self` proves that the machine has AVX2.
            unsafe { _mm256_or_si256(one, other) }
        }

        #[inline(always)]
        fn is_ascii(self, vector: __m256i) -> bool {
            // SAFETY: `self` proves that the machine has AVX2.
            let high = unsafe { _mm256_movemask_epi8(vector) };
            high == 0
        }
    }
}

#[cfg(target_arch = "aarch64")]
pub(crate) use neon::Neon;
#[cfg(target_arch = "aarch64")]
mod neon {
    use std::arch::aarch64::{
        uint8x16_t, vdupq_n_u32, veorq_u8, vld1q_u8, vmaxvq_u8, vorrq_u8, vreinterpretq_u8_u32, vst1q_u8,
    };

    use super::{Mask, Vectors};

    /// Invariant: made only where the machine has NEON.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Neon(());

    impl Neon {
        /// The proof, if the machine has NEON. The standard library asks it once and remembers.
        #[inline(always)]
        pub(crate) fn detect() -> Option<Self> {
            std::arch::is_aarch64_feature_detected!("neon").then_some(Self(()))
        }
    }

    impl Vectors<16> for Neon {
        type Vector = uint8x16_t;

        #[inline(always)]
        fn splat(self, mask: Mask) -> uint8x16_t {
            // SAFETY: `self` proves that the machine has NEON.
            let lanes = unsafe { vdupq_n_u32(mask.half()) };
            // SAFETY: as above.
            unsafe { vreinterpretq_u8_u32(lanes) }
        }

        #[inline(always)]
        fn load(self, bytes: &[u8; 16]) -> uint8x16_t {
            // SAFETY: `self` proves that the machine has NEON; the array is 16 readable bytes, of any alignment.
            unsafe { vld1q_u8(bytes.as_ptr()) }
        }

        #[inline(always)]
        fn store(self, vector: uint8x16_t, bytes: &mut [u8; 16]) {
            // SAFETY: `self` proves that the machine has NEON; the array is 16 writable bytes, of any alignment.
            unsafe { vst1q_u8(bytes.as_mut_ptr(), vector) }
        }

        #[inline(always)]
        fn xor(self, one: uint8x16_t, other: uint8x16_t) -> uint8x16_t {
            // SAFETY: `self` proves that the machine has NEON.
            unsafe { veorq_u8(one, other) }
        }

        #[inline(always)]
        fn or(self, one: uint8x16_t, other: uint8x16_t) -> uint8x16_t {
            // SAFETY: `self` proves that the machine has NEON.
            unsafe { vorrq_u8(one, other) }
        }

        #[inline(always)]
        fn is_ascii(self, vector: uint8x16_t) -> bool {
            // SAFETY: `self` proves that the machine has NEON.
            let highest = unsafe { vmaxvq_u8(vector) };
            highest.is_ascii()
        }
    }
}
