//! A topic's own numbers, where its protocol tells them: what has come by them, and what was told not to come.

use super::ledger::MOST_AHEAD;
use crate::sequence::{Receipt, Sequence};

/// The offsets of one subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Offsets {
    /// Its position when it began: what comes is behind that.
    start: u64,
    seen: Sequence,
    /// Offsets that were passed over, not told of, and are too far behind to come yet.
    holes: u64,
}

/// A gap that a server told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    /// Of what it told, those that had not come.
    pub(super) count: u64,
    /// It tells of what had come, too.
    pub(super) contradicts: bool,
    /// Places in the topic since the subscription, the last one excluded, that had not been reached: nobody need wait for them. May
    /// be none.
    pub(super) ahead: (u64, u64),
}

impl Offsets {
    /// The subscription is there.
    pub(super) fn begin(&mut self, start: u64) {
        *self = Self { start, ..Self::default() };
    }

    /// Offsets that were passed over and not told of.
    pub(super) fn holes(&self) -> u64 {
        self.holes + u64::from(self.seen.missing())
    }

    /// A message with this offset came. `None`: it cannot have it.
    #[inline]
    pub(super) fn take(&mut self, offset: u64) -> Option<Receipt> {
        let place = self.place(offset)?;
        let receipt = self.seen.take(place);
        if let Receipt::First { lost } = receipt {
            self.holes += lost;
        }
        Some(receipt)
    }

    /// Messages with these offsets, the last one included, will not come. `None`: there cannot be such a gap.
    pub(super) fn skip(&mut self, from: u64, to: u64) -> Option<Gap> {
        let (from, to) = (self.place(from)?, self.place(to)?);
        if from > to {
            return None;
        }
        let ahead = (from.max(self.seen.next()), to + 1);
        let excused = self.seen.excuse(from, to + 1);
        self.holes += excused.lost;
        Some(Gap { count: excused.count, contradicts: excused.count < to + 1 - from, ahead })
    }

    /// How many messages of the topic are between the beginning and this one, which is not further ahead than one may be.
    #[inline]
    fn place(&self, offset: u64) -> Option<u64> {
        let place = offset.checked_sub(self.start)?.checked_sub(1)?;
        (place < self.seen.next() + MOST_AHEAD).then_some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_count_from_the_subscription_on() {
        let mut offsets = Offsets::default();
        offsets.begin(41);
        assert_eq!((offsets.take(41), offsets.take(0)), (None, None));
        assert_eq!(offsets.take(42), Some(Receipt::First { lost: 0 }));
        assert_eq!(offsets.take(42), Some(Receipt::Again));
        assert_eq!(offsets.take(44), Some(Receipt::First { lost: 0 }));
        assert_eq!(offsets.holes(), 1);
        assert_eq!(offsets.take(43), Some(Receipt::Late));
        assert_eq!(offsets.holes(), 0);
        assert_eq!((offsets.take(u64::MAX), offsets.take(45 + MOST_AHEAD)), (None, None));
    }

    #[test]
    fn gaps_that_are_told_are_no_holes() {
        let mut offsets = Offsets::default();
        offsets.begin(10);
        offsets.take(11);
        let gap = |count, contradicts, ahead| Some(Gap { count, contradicts, ahead });
        assert_eq!(offsets.skip(12, 13), gap(2, false, (1, 3)));
        assert_eq!(offsets.take(14), Some(Receipt::First { lost: 0 }));
        assert_eq!(offsets.holes(), 0);
        // It is told of again; what came is told not to come.
        assert_eq!(offsets.skip(12, 15), gap(1, true, (4, 5)));
        assert_eq!(offsets.skip(14, 14), gap(0, true, (5, 4)));
        // 16 is passed over.
        assert_eq!(offsets.skip(17, 17), gap(1, false, (6, 7)));
        assert_eq!(offsets.holes(), 1);
        for (from, to) in [(10, 12), (19, 18), (18, u64::MAX), (u64::MAX, u64::MAX)] {
            assert_eq!(offsets.skip(from, to), None, "{from} {to}");
        }
        // What was too far behind to be known is a hole for good.
        assert_eq!(offsets.take(300), Some(Receipt::First { lost: 220 }));
        assert_eq!(offsets.holes(), 1 + 282);
    }
}
