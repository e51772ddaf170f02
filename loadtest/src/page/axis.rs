//! Axes: from values to places between 0 and 1, with ticks that people read easily.

use crate::units::{show_bytes, show_count, show_ns};

/// What the values of an axis are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// Time, in microseconds.
    Micros,
    Bytes,
    Count,
    /// Cores of CPU.
    Cores,
}

impl Unit {
    pub(super) fn show(self, value: f64) -> String {
        match self {
            Self::Micros => show_ns(value * 1e3),
            Self::Bytes => show_bytes(value),
            Self::Count => show_count(value),
            Self::Cores => format!("{:.0} %", value * 100.0),
        }
    }

    /// As `show`, without the digits that a round value does not need.
    fn tick(self, value: f64) -> String {
        if value == 0.0 && self == Self::Micros {
            return "0".to_owned();
        }
        let text = self.show(value);
        let Some((number, unit)) = text.split_once(' ') else { return text };
        match number.split_once('.') {
            Some((whole, rest)) if rest.bytes().all(|digit| digit == b'0') => format!("{whole} {unit}"),
            Some(_) => format!("{} {unit}", number.trim_end_matches('0')),
            None => text,
        }
    }

    /// What the script of the page calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Micros => "us",
            Self::Bytes => "bytes",
            Self::Count => "count",
            Self::Cores => "cores",
        }
    }
}

/// An axis from its low to its high end.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    is_log: bool,
    /// Places and labels.
    pub(super) ticks: Vec<(f64, String)>,
}

impl Axis {
    /// For values that change little: from 0. For times that differ by much: logarithmic.
    pub(super) fn values(unit: Unit, values: impl Iterator<Item = f64>) -> Self {
        const MUCH: f64 = 30.0;
        let values: Vec<f64> = values.collect();
        let most = values.iter().copied().fold(0.0, f64::max);
        let least = values.iter().copied().filter(|value| *value > 0.0).fold(f64::INFINITY, f64::min);
        if unit == Unit::Micros && least.is_finite() && most > least * MUCH {
            Self::log(unit, least, most)
        } else {
            Self::linear(unit, most)
        }
    }

    fn linear(unit: Unit, most: f64) -> Self {
        let step = match unit {
            // The steps of bytes are powers of two.
            Unit::Bytes => (most.max(4.0) / 4.0).log2().ceil().exp2(),
            Unit::Count => round_up(most.max(4.0) / 4.0),
            Unit::Micros | Unit::Cores => round_up(if most > 0.0 { most / 4.0 } else { 0.25 }),
        };
        let count = (most / step).ceil().max(1.0);
        let high = step * count;
        let ticks = (0..=count as u32).map(|tick| f64::from(tick) * step);
        let ticks = ticks.map(|value| (value / high, unit.tick(value))).collect();
        Self { low: 0.0, high, is_log: false, ticks }
    }

    fn log(unit: Unit, least: f64, most: f64) -> Self {
        let steps: Vec<f64> = (-3..12)
            .flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(power)))
            .filter(|step| *step > least / 2.6 && *step < most * 2.6)
            .collect();
        let low = steps.iter().copied().rfind(|step| *step <= least).unwrap_or(least);
        let high = steps.iter().copied().find(|step| *step >= most).unwrap_or(most);
        let mut axis = Self { low, high, is_log: true, ticks: Vec::new() };
        let inside = steps.into_iter().filter(|step| (low..=high).contains(step));
        // Over many powers of ten only these have their labels.
        let is_power = |step: f64| (step.log10().round() - step.log10()).abs() < 1e-9;
        let is_long = high / low > 300.0;
        let shown = inside.filter(|step| !is_long || is_power(*step));
        axis.ticks = shown.map(|step| (axis.place(step), unit.tick(step))).collect();
        axis
    }

    /// Seconds, from 0.
    pub(super) fn seconds(until_s: f64) -> Self {
        const STEPS: [f64; 17] = [
            1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0,
            21_600.0, 43_200.0, 86_400.0,
        ];
        let high = until_s.max(1.0);
        let step = STEPS.into_iter().find(|step| high / step <= 7.0).unwrap_or(high / 5.0);
        let ticks = (0..=(high / step) as u32).map(|tick| f64::from(tick) * step);
        Self {
            low: 0.0,
            high,
            is_log: false,
            ticks: ticks.map(|value| (value / high, show_seconds(value, step))).collect(),
        }
    }

    /// Percentiles, each nine as wide as the one before it; `count` values are told apart.
    pub(super) fn percentiles(count: u64) -> Self {
        let high = (count.max(2) as f64).log10().max(1.0);
        let mut axis = Self { low: 0.0, high, is_log: false, ticks: Vec::new() };
        let known = [0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999, 99.9999, 99.99999];
        // Where the nines are many, one half has no room for its label.
        let is_shown = |percentile: &f64| {
            let place = nines(*percentile) / high;
            place < 1.0 + 1e-9 && (place == 0.0 || place > 0.12)
        };
        let ticks = known.into_iter().filter(is_shown);
        axis.ticks = ticks.map(|tick| (axis.place(nines(tick)), format!("{tick} %"))).collect();
        axis
    }

    /// A count, from 0.
    pub(super) fn counts(most: f64) -> Self {
        Self::linear(Unit::Count, most)
    }

    /// Where a value is, from 0 to 1.
    pub(super) fn place(&self, value: f64) -> f64 {
        let place = if self.is_log {
            (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        place.clamp(0.0, 1.0)
    }

    pub(super) fn high(&self) -> f64 {
        self.high
    }

    pub(super) fn is_log(&self) -> bool {
        self.is_log
    }
}

/// How many nines a percentile has: 1 for 90, 2 for 99.
pub(super) fn nines(percentile: f64) -> f64 {
    -(1.0 - percentile.min(100.0) / 100.0).log10()
}

/// The next of 1, 2, 5, 10, 20, ...
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0]
        .map(|digit| digit * power)
        .into_iter()
        .find(|step| *step >= value * 0.999)
        .unwrap_or(10.0 * power)
}

fn show_seconds(value: f64, step: f64) -> String {
    match step {
        _ if value == 0.0 => "0 s".to_owned(),
        step if step < 60.0 => format!("{value} s"),
        step if step < 3600.0 => format!("{} min", value / 60.0),
        _ => format!("{} h", value / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, label)| &**label).collect()
    }

    #[test]
    fn ticks_are_round() {
        let axis = |unit, values: &[f64]| Axis::values(unit, values.iter().copied());
        assert_eq!(labels(&axis(Unit::Count, &[17_300.0])), ["0", "5,000", "10,000", "15,000", "20,000"]);
        assert_eq!(labels(&axis(Unit::Bytes, &[11e6])), ["0 B", "4 MiB", "8 MiB", "12 MiB"]);
        assert_eq!(labels(&axis(Unit::Cores, &[0.9])), ["0 %", "50 %", "100 %"]);
        assert_eq!(labels(&axis(Unit::Micros, &[900.0, 1900.0])), ["0", "500 µs", "1 ms", "1.5 ms", "2 ms"]);
        let log = axis(Unit::Micros, &[30.0, 70.0, 1900.0]);
        assert!(log.is_log());
        assert_eq!(labels(&log), ["20 µs", "50 µs", "100 µs", "200 µs", "500 µs", "1 ms", "2 ms"]);
        let long = axis(Unit::Micros, &[30.0, 190_000.0]);
        assert_eq!(labels(&long), ["100 µs", "1 ms", "10 ms", "100 ms"]);
        assert!((long.place(20.0), long.place(200_000.0)) == (0.0, 1.0));
        assert_eq!(labels(&Axis::seconds(12.0)), ["0 s", "2 s", "4 s", "6 s", "8 s", "10 s", "12 s"]);
        assert_eq!(
            labels(&Axis::seconds(3600.0)),
            ["0 s", "10 min", "20 min", "30 min", "40 min", "50 min", "60 min"]
        );
    }

    #[test]
    fn what_is_not_there_or_zero_still_has_an_axis() {
        for unit in [Unit::Micros, Unit::Bytes, Unit::Count, Unit::Cores] {
            for values in [&[][..], &[0.0], &[1e-9], &[1e15]] {
                let axis = Axis::values(unit, values.iter().copied());
                assert!(axis.ticks.len() > 1 && axis.ticks.len() < 12, "{unit:?} {values:?}: {axis:?}");
                assert!(values.iter().all(|value| (0.0..=1.0).contains(&axis.place(*value))));
            }
        }
        assert!(Axis::seconds(0.0).ticks.len() == 2);
        assert_eq!(labels(&Axis::percentiles(0)), ["0 %", "50 %", "90 %"]);
    }

    #[test]
    fn each_nine_is_as_wide_as_the_one_before() {
        let axis = Axis::percentiles(10_000);
        assert_eq!(labels(&axis), ["0 %", "90 %", "99 %", "99.9 %", "99.99 %"]);
        assert_eq!(labels(&Axis::percentiles(100)), ["0 %", "50 %", "90 %", "99 %"]);
        for (percentile, place) in [(0.0, 0.0), (90.0, 0.25), (99.0, 0.5), (99.9, 0.75), (100.0, 1.0)] {
            assert!((axis.place(nines(percentile)) - place).abs() < 1e-9, "{percentile}");
        }
    }
}
