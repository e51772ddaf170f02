//! The percentiles of times, the closer together the nearer they come to the greatest: what is drawn on an axis of
//! 90, 99, 99.9, ... and what JSON tells.

use serde::Serialize;

use crate::tally::Times;

/// Percentiles up to 90.
const LOW: [f64; 13] = [0.0, 10.0, 20.0, 25.0, 30.0, 40.0, 50.0, 60.0, 70.0, 75.0, 80.0, 85.0, 90.0];

/// One percentile.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Step {
    pub(crate) percentile: f64,
    pub(crate) us: f64,
}

/// All percentiles that so many times tell apart, and the greatest time as the last one.
pub(crate) fn spectrum(times: &Times) -> Vec<Step> {
    let step = |percentile| Some(Step { percentile, us: times.percentile_ns(percentile)? / 1e3 });
    percentiles(times.count()).into_iter().filter_map(step).collect()
}

/// Nine for each power of ten above 90, as long as at least one of `count` lies above.
fn percentiles(count: u64) -> Vec<f64> {
    if count == 0 {
        return Vec::new();
    }
    // At 99.9999999 a double begins to round.
    let high = (1..=8).flat_map(|power| (1..=9).rev().map(move |ninth| above(ninth, power)));
    let told = LOW.into_iter().chain(high).take_while(|percentile| {
        // A little less than one, for what was rounded.
        count as f64 * (100.0 - percentile) / 100.0 > 0.999
    });
    told.chain([100.0]).collect()
}

/// The percentile below which all but `ninth` of ten to the `power` plus one lie, without the noise of its last digits.
fn above(ninth: i32, power: i32) -> f64 {
    let rest = 100.0 * f64::from(ninth) / 10_f64.powi(power + 1);
    let digits = 10_f64.powi(power + 1);
    ((100.0 - rest) * digits).round() / digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_round_rise_and_end_with_the_greatest() {
        assert!(percentiles(0).is_empty());
        assert_eq!(percentiles(1), [0.0, 100.0]);
        let many = percentiles(100_000);
        assert!(many.is_sorted());
        for known in [50.0, 90.0, 91.0, 99.0, 99.1, 99.9, 99.95, 99.99, 99.999, 100.0] {
            assert!(many.contains(&known), "{known} in {many:?}");
        }
        // Of 100,000 the one above 99.999 is the greatest: what lies beyond cannot be told apart.
        assert_eq!(many.iter().rev().nth(1), Some(&99.999));
        assert!(many.len() < 70 && percentiles(u64::MAX).len() < 90);
    }

    #[test]
    fn values_are_those_of_the_histogram() {
        let mut times = Times::new();
        (1..=1000).for_each(|ms: u64| times.record(ms * 1_000_000));
        let steps = spectrum(&times);
        for (percentile, ms) in [(0.0, 1.0), (50.0, 500.0), (99.0, 990.0), (99.5, 995.0), (100.0, 1000.0)] {
            let step = steps.iter().find(|step| step.percentile == percentile).unwrap();
            // One time more or less, for what was rounded.
            assert!((step.us / 1e3 / ms - 1.0).abs() < 2e-3, "{step:?}");
        }
        assert!(steps.is_sorted_by(|a, b| a.us <= b.us));
    }
}
