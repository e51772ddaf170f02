//! Bodies whose length is stated.

/// Counts a body down while its bytes pass by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyReader {
    remaining: u64,
}

impl BodyReader {
    /// A body of `length` bytes.
    #[must_use]
    pub const fn new(length: u64) -> Self {
        Self { remaining: length }
    }

    /// How many of the `available` bytes belong to the body; they count as taken. What lies behind them is the next
    /// request.
    pub fn take(&mut self, available: usize) -> usize {
        // A body longer than the address space cannot be available at once.
        let taken = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(available);
        self.remaining -= taken as u64;
        taken
    }

    /// Bytes still to come.
    #[must_use]
    pub const fn remaining(&self) -> u64 {
        self.remaining
    }

    /// Whether the body is complete.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.remaining == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_takes_its_bytes_and_no_more() {
        let mut body = BodyReader::new(5);
        assert_eq!(body.take(2), 2);
        assert_eq!(body.take(0), 0);
        assert!(!body.is_complete());
        assert_eq!(body.take(100), 3);
        assert!(body.is_complete());
        assert_eq!(body.take(100), 0);
    }

    #[test]
    fn the_greatest_length_does_not_overflow() {
        let mut body = BodyReader::new(u64::MAX);
        assert_eq!(body.take(usize::MAX), usize::MAX);
        assert_eq!(body.take(10), 0);
    }
}
