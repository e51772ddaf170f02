//! Which numbers have come, of those that are to come once each and in order.

/// Numbers further behind than this are not known to be missing any more.
const REMEMBERED: u64 = 64;

/// What has come so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sequence {
    /// The number after the greatest one.
    next: u64,
    /// Bit n: `next - 1 - n` was passed over by its successors.
    missing: u64,
}

/// What a number is to those that came before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Receipt {
    /// It is greater than all; so many of those that were missing are too far behind to be known as such any more.
    First { lost: u64 },
    /// It was missing, and comes after later ones.
    Late,
    /// It had come, or is too far behind to tell.
    Again,
}

impl Sequence {
    /// The number after the greatest one.
    #[inline]
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// How many are known to be missing.
    pub(crate) fn missing(&self) -> u32 {
        self.missing.count_ones()
    }

    /// A number has come.
    #[inline]
    pub(crate) fn take(&mut self, number: u64) -> Receipt {
        if number >= self.next {
            return Receipt::First { lost: self.advance(number) };
        }
        let back = self.next - 1 - number;
        if back < REMEMBERED && self.missing & 1 << back != 0 {
            self.missing &= !(1 << back);
            return Receipt::Late;
        }
        Receipt::Again
    }

    /// All before `next` are taken as come.
    #[inline]
    pub(crate) fn pass(&mut self, next: u64) {
        self.next = next;
    }

    /// All up to `number` are behind; those that were passed over are missing, and so many of these forgotten.
    #[inline]
    fn advance(&mut self, number: u64) -> u64 {
        let gap = number - self.next;
        let shift = gap + 1;
        self.next = number + 1;
        if shift < REMEMBERED {
            let forgotten = self.missing >> (REMEMBERED - shift);
            self.missing = self.missing << shift | ((1 << shift) - 2);
            return u64::from(forgotten.count_ones());
        }
        let forgotten = u64::from(self.missing.count_ones()) + gap - (REMEMBERED - 1);
        self.missing = !1;
        forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receipts_are_told_apart_by_their_numbers() {
        let mut sequence = Sequence::default();
        let mut take = |numbers: &[u64]| numbers.iter().map(|n| sequence.take(*n)).collect::<Vec<_>>();
        use Receipt::{Again, First, Late};
        let first = First { lost: 0 };
        assert_eq!(take(&[0, 1, 1, 4, 2, 2, 3, 0]), [first, first, Again, first, Late, Again, Late, Again]);
        assert_eq!(take(&[200, 199, 137, 136]), [First { lost: 132 }, Late, Late, Again]);
    }

    #[test]
    fn each_number_is_counted_once() {
        let mut random = crate::random::Random::new(5);
        for most in [2, 70, 300] {
            let (mut sequence, mut came, mut lost) = (Sequence::default(), 0, 0);
            for _ in 0..2_000 {
                // Now and then one of those behind.
                let step = random.next() % most;
                let back = u64::from(random.next().is_multiple_of(4)) * (random.next() % 80);
                match sequence.take((sequence.next() + step).saturating_sub(back)) {
                    Receipt::First { lost: more } => (came, lost) = (came + 1, lost + more),
                    Receipt::Late => came += 1,
                    Receipt::Again => {}
                }
                assert_eq!(came + lost + u64::from(sequence.missing()), sequence.next());
            }
        }
    }
}
