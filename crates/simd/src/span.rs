//! Where a payload lies and where its unmasked bytes go.
//!
//! Bounds are checked at each load and store, which on long payloads is once in a block.

/// A payload's source and destination.
///
/// A store changes what later loads give only below its own end: so whoever goes upwards, and loads before it
/// stores, reads each byte as it was.
pub(crate) trait Span {
    /// Bytes of payload.
    fn len(&self) -> usize;

    /// Where the unmasked bytes go (or, if nowhere, the masked ones lie), to be aligned to.
    fn address(&self) -> usize;

    /// The masked bytes from `at` on. Panics if there are fewer than `N`.
    fn source<const N: usize>(&self, at: usize) -> &[u8; N];

    /// The place of the unmasked bytes from `at` on, if they are wanted. Panics if there are fewer than `N`.
    fn place<const N: usize>(&mut self, at: usize) -> Option<&mut [u8; N]>;
}

#[inline(always)]
fn array<const N: usize>(bytes: &[u8], at: usize) -> &[u8; N] {
    bytes[at..].first_chunk().expect("inside the payload")
}

#[inline(always)]
fn array_mut<const N: usize>(bytes: &mut [u8], at: usize) -> &mut [u8; N] {
    bytes[at..].first_chunk_mut().expect("inside the payload")
}

pub(crate) struct InPlace<'a>(pub(crate) &'a mut [u8]);

impl Span for InPlace<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.0.len()
    }

    #[inline(always)]
    fn address(&self) -> usize {
        self.0.as_ptr().addr()
    }

    #[inline(always)]
    fn source<const N: usize>(&self, at: usize) -> &[u8; N] {
        array(self.0, at)
    }

    #[inline(always)]
    fn place<const N: usize>(&mut self, at: usize) -> Option<&mut [u8; N]> {
        Some(array_mut(self.0, at))
    }
}

/// Invariant: the source lies `gap` above the destination, and ends where `bytes` ends.
pub(crate) struct Down<'a> {
    bytes: &'a mut [u8],
    gap: usize,
}

impl<'a> Down<'a> {
    #[inline(always)]
    pub(crate) fn new(buffer: &'a mut [u8], from: usize, to: usize, len: usize) -> Self {
        assert!(to <= from, "a payload only moves down");
        // The sum must not wrap where overflow checks are off.
        let end = from.checked_add(len).expect("a payload inside its buffer");
        Self { bytes: &mut buffer[to..end], gap: from - to }
    }
}

impl Span for Down<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.bytes.len() - self.gap
    }

    #[inline(always)]
    fn address(&self) -> usize {
        self.bytes.as_ptr().addr()
    }

    #[inline(always)]
    fn source<const N: usize>(&self, at: usize) -> &[u8; N] {
        array(self.bytes, self.gap + at)
    }

    #[inline(always)]
    fn place<const N: usize>(&mut self, at: usize) -> Option<&mut [u8; N]> {
        Some(array_mut(self.bytes, at))
    }
}

/// Invariant: both have the same length.
pub(crate) struct Apart<'a> {
    src: &'a [u8],
    dst: &'a mut [u8],
}

impl<'a> Apart<'a> {
    #[inline(always)]
    pub(crate) fn new(src: &'a [u8], dst: &'a mut [u8]) -> Self {
        assert_eq!(src.len(), dst.len(), "as much room as payload");
        Self { src, dst }
    }
}

impl Span for Apart<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.src.len()
    }

    #[inline(always)]
    fn address(&self) -> usize {
        self.dst.as_ptr().addr()
    }

    #[inline(always)]
    fn source<const N: usize>(&self, at: usize) -> &[u8; N] {
        array(self.src, at)
    }

    #[inline(always)]
    fn place<const N: usize>(&mut self, at: usize) -> Option<&mut [u8; N]> {
        Some(array_mut(self.dst, at))
    }
}

pub(crate) struct ReadOnly<'a>(pub(crate) &'a [u8]);

impl Span for ReadOnly<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.0.len()
    }

    #[inline(always)]
    fn address(&self) -> usize {
        self.0.as_ptr().addr()
    }

    #[inline(always)]
    fn source<const N: usize>(&self, at: usize) -> &[u8; N] {
        array(self.0, at)
    }

    #[inline(always)]
    fn place<const N: usize>(&mut self, _: usize) -> Option<&mut [u8; N]> {
        None
    }
}
