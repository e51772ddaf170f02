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

/// What becomes of numbers that are told not to come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Excused {
    /// Those of them that had not come, as far as that is known.
    pub(crate) count: u64,
    /// Others that were missing, and are too far behind now to be known as such.
    pub(crate) lost: u64,
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

    /// Those from `from` to before `until` will not come: they are neither missing nor awaited. Those that this passes over are
    /// missing.
    pub(crate) fn excuse(&mut self, from: u64, until: u64) -> Excused {
        let mut excused = Excused::default();
        for back in 0..REMEMBERED.min(self.next) {
            let is_meant = (from..until).contains(&(self.next - 1 - back));
            if is_meant && self.missing & 1 << back != 0 {
                self.missing &= !(1 << back);
                excused.count += 1;
            }
        }
        if from < until && until > self.next {
            let begin = from.max(self.next);
            if begin > self.next {
                excused.lost = self.advance(begin - 1);
                // It has not come: it was only passed over.
                self.missing |= 1;
            }
            excused.count += until - begin;
            let shift = until - begin;
            if shift < REMEMBERED {
                excused.lost += u64::from((self.missing >> (REMEMBERED - shift)).count_ones());
                self.missing <<= shift;
            } else {
                excused.lost += u64::from(self.missing.count_ones());
                self.missing = 0;
            }
            self.next = until;
        }
        excused
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
    fn what_is_told_not_to_come_is_not_missing() {
        let mut sequence = Sequence::default();
        let excused = |count, lost| Excused { count, lost };
        sequence.take(1);
        // 0 is missing, 1 has come.
        assert_eq!(sequence.excuse(0, 4), excused(3, 0));
        assert_eq!((sequence.missing(), sequence.next()), (0, 4));
        // 4 and 5 are passed over.
        assert_eq!(sequence.excuse(6, 7), excused(1, 0));
        assert_eq!((sequence.missing(), sequence.next()), (2, 7));
        assert_eq!((sequence.take(5), sequence.take(6)), (Receipt::Late, Receipt::Again));
        // What is known, and what has come or was told before.
        assert_eq!(sequence.excuse(4, 7), excused(1, 0));
        assert_eq!(sequence.excuse(0, 7), excused(0, 0));
        sequence.take(8);
        assert_eq!(sequence.excuse(9, 9 + REMEMBERED), excused(64, 1));
        sequence.take(200);
        assert_eq!(sequence.excuse(201, 1_000), excused(799, 63));
        assert_eq!((sequence.missing(), sequence.next()), (0, 1_000));
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
                let number = (sequence.next() + step).saturating_sub(back);
                if random.next().is_multiple_of(8) {
                    let excused = sequence.excuse(number, number + random.next() % most);
                    came += excused.count;
                    lost += excused.lost;
                    assert_eq!(came + lost + u64::from(sequence.missing()), sequence.next());
                    continue;
                }
                match sequence.take(number) {
                    Receipt::First { lost: more } => (came, lost) = (came + 1, lost + more),
                    Receipt::Late => came += 1,
                    Receipt::Again => {}
                }
                assert_eq!(came + lost + u64::from(sequence.missing()), sequence.next());
            }
        }
    }
}
