//! Medians, spreads and ratios of a few values: one for each round.

/// From the least to the greatest of some values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) least: f64,
    pub(crate) median: f64,
    pub(crate) most: f64,
    pub(crate) count: usize,
}

impl Spread {
    /// `None` of none.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let (count, middle) = (sorted.len(), sorted.len() / 2);
        let median = if count.is_multiple_of(2) {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        } else {
            sorted[middle]
        };
        Some(Self { least, median, most, count })
    }

    /// The spread of `a / b` of each round; `None` where `b` is not above `floor` in each of them: beside next to nothing
    /// all is as much as chance will have it.
    pub(crate) fn of_ratios(rounds: impl IntoIterator<Item = (f64, f64)>, floor: f64) -> Option<Self> {
        let rounds: Vec<(f64, f64)> = rounds.into_iter().collect();
        let is_something = rounds.iter().all(|(_, b)| *b > floor.max(0.0));
        is_something.then(|| Self::of(rounds.into_iter().map(|(a, b)| a / b)))?
    }

    /// Whether some value may belong to either.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.least <= other.most && other.least <= self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_one_or_between_the_two() {
        let spread = Spread::of([5.0, 1.0, 3.0]).unwrap();
        assert_eq!((spread.least, spread.median, spread.most, spread.count), (1.0, 3.0, 5.0, 3));
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 9.0]).unwrap().median, 3.0);
        assert_eq!(Spread::of([7.0]).unwrap().median, 7.0);
        assert_eq!((Spread::of([]), Spread::of([f64::NAN])), (None, None));
    }

    #[test]
    fn ratios_are_of_rounds_before_they_are_a_median() {
        // A machine that is twice as slow in one round: the ratio does not see it.
        let spread = Spread::of_ratios([(2.0, 1.0), (20.0, 10.0), (4.0, 2.0)], 0.0).unwrap();
        assert_eq!((spread.least, spread.median, spread.most), (2.0, 2.0, 2.0));
    }

    #[test]
    fn beside_next_to_nothing_there_is_no_ratio() {
        for (b, floor) in [(0.0, 0.0), (-30.0, 0.0), (0.3, 16.0), (16.0, 16.0)] {
            assert_eq!(Spread::of_ratios([(1.0, b)], floor), None);
            // Nor where it is so in one round of several.
            assert_eq!(Spread::of_ratios([(1.0, b), (300.0, 200.0)], floor), None);
        }
        assert_eq!(Spread::of_ratios([(1.0, 17.0), (300.0, 200.0)], 16.0).unwrap().count, 2);
        assert_eq!(Spread::of_ratios([(-1.0, 20.0)], 16.0).unwrap().median, -0.05);
        assert_eq!(Spread::of_ratios([], 0.0), None);
    }

    #[test]
    fn spreads_overlap_where_they_share_a_value() {
        let spread = |least, most| Spread { least, median: least, most, count: 5 };
        for (a, b, overlap) in [
            ((1.0, 2.0), (3.0, 4.0), false),
            ((1.0, 3.0), (3.0, 4.0), true),
            ((1.0, 9.0), (3.0, 4.0), true),
            ((3.5, 3.6), (3.0, 4.0), true),
        ] {
            let (a, b) = (spread(a.0, a.1), spread(b.0, b.1));
            assert_eq!((a.overlaps(&b), b.overlaps(&a)), (overlap, overlap), "{a:?} {b:?}");
        }
    }
}
