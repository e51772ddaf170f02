//! Which registers long payloads are unmasked with.

#[cfg(target_arch = "x86_64")]
use crate::vectors::Avx2;
#[cfg(target_arch = "aarch64")]
use crate::vectors::Neon;
use crate::{
    body::{SHORT, long, short},
    mask::Mask,
    span::Span,
    vectors::Words,
};

/// Unmasks the span and answers whether all of it is ASCII.
#[inline(always)]
pub(crate) fn run<S: Span>(span: S, mask: Mask) -> bool {
    run_with(span, mask, Level::best)
}

/// The same with the level that is wanted, where the length asks for one.
#[inline(always)]
pub(crate) fn run_with<S: Span>(span: S, mask: Mask, level: impl FnOnce() -> Level) -> bool {
    if span.len() <= SHORT { short(span, mask) } else { level().run(span, mask) }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Words(Words),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
}

impl Level {
    /// The widest that this machine has.
    #[inline(always)]
    pub(crate) fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(avx2) = Avx2::detect() {
            return Self::Avx2(avx2);
        }
        #[cfg(target_arch = "aarch64")]
        if let Some(neon) = Neon::detect() {
            return Self::Neon(neon);
        }
        Self::Words(Words)
    }

    /// As [`run`], for a span of at least one register.
    #[inline(always)]
    pub(crate) fn run<S: Span>(self, span: S, mask: Mask) -> bool {
        match self {
            Self::Words(words) => long_words(words, span, mask),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the value proves that the machine has AVX2.
            Self::Avx2(avx2) => unsafe { long_avx2(avx2, span, mask) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: the value proves that the machine has NEON.
            Self::Neon(neon) => unsafe { long_neon(neon, span, mask) },
        }
    }
}

#[inline(never)]
fn long_words<S: Span>(words: Words, span: S, mask: Mask) -> bool {
    long::<_, S, 8, 32>(words, span, mask)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn long_avx2<S: Span>(avx2: Avx2, span: S, mask: Mask) -> bool {
    long::<_, S, 32, 128>(avx2, span, mask)
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
fn long_neon<S: Span>(neon: Neon, span: S, mask: Mask) -> bool {
    long::<_, S, 16, 64>(neon, span, mask)
}
