//! Who is cheaper: said only where the spreads leave no doubt, and not without what it cost in speed.

use super::{metric::Metric, statistics::Spread};

/// Two servers in the rounds in which both count.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) a: String,
    pub(crate) b: String,
    /// What is compared: less of it is better.
    pub(crate) by: Metric,
    pub(crate) spread_a: Spread,
    pub(crate) spread_b: Spread,
    /// Of `a` to `b`, as the two that follow; `None` where `b` has next to nothing in some round.
    pub(crate) ratio: Option<Spread>,
    pub(crate) throughput: Option<Spread>,
    pub(crate) p99: Option<Spread>,
    /// In most runs of one of them the load was the limit: how fast they are is not known.
    pub(crate) is_limited: bool,
}

/// What servers are judged by, of what was measured.
pub(crate) fn measure_of(measured: impl IntoIterator<Item = Metric>) -> Option<Metric> {
    let measured: Vec<Metric> = measured.into_iter().collect();
    [Metric::SessionMemory, Metric::Cpu].into_iter().find(|metric| measured.contains(metric))
}

impl Pair {
    /// Rounds that count for the one of which fewer do.
    pub(crate) fn rounds(&self) -> usize {
        self.spread_a.count.min(self.spread_b.count)
    }

    /// A line for people.
    pub(crate) fn verdict(&self) -> String {
        let Self { a, b, by, spread_a, spread_b, .. } = self;
        if spread_a.overlaps(spread_b) {
            return format!(
                "{a} and {b}: no winner by {}, as the spreads overlap ({} and {})",
                by.name(),
                show(*by, spread_a),
                show(*by, spread_b)
            );
        }
        let a_wins = spread_a.median < spread_b.median;
        let (winner, loser) = if a_wins { (a, b) } else { (b, a) };
        let ratio = self.ratio.map(|ratio| if a_wins { ratio.median } else { 1.0 / ratio.median });
        let mut line = match ratio.filter(|ratio| *ratio > 0.0) {
            Some(ratio) => format!("{winner} is cheaper than {loser}: {ratio:.2} of its {}", by.name()),
            // Memory that did not grow is no part of anything.
            None => {
                let (winner_spread, loser_spread) =
                    if a_wins { (spread_a, spread_b) } else { (spread_b, spread_a) };
                let (less, more) = (show(*by, winner_spread), show(*by, loser_spread));
                format!("{winner} is cheaper than {loser}: {less} against {more} by {}", by.name())
            }
        };
        if self.is_limited {
            return line + "; which is the faster one is not known, as the load was the limit";
        }
        let slower = self.slower(a_wins);
        if !slower.is_empty() {
            line += &format!("; BUT IT IS THE SLOWER ONE: {}", slower.join(", "));
        }
        line
    }

    /// By what the winner is slower than the other.
    fn slower(&self, a_wins: bool) -> Vec<String> {
        let of_winner = |ratio: f64| if a_wins { ratio } else { 1.0 / ratio };
        let figures = [(self.throughput, "throughput", true), (self.p99, "p99", false)];
        figures
            .into_iter()
            .filter_map(|(spread, name, more_is_better)| {
                let ratio = of_winner(spread?.median);
                let is_slower = if more_is_better { ratio < 1.0 } else { ratio > 1.0 };
                // A difference that would not be seen is none.
                let shown = format!("{ratio:.2}");
                (is_slower && shown != "1.00").then(|| format!("{shown} of its {name}"))
            })
            .collect()
    }
}

/// Which of more than two is the cheapest, if that can be said.
pub(crate) fn cheapest(by: Metric, spreads: &[(&str, Spread)]) -> Option<String> {
    let mut sorted = spreads.to_vec();
    sorted.sort_by(|(_, a), (_, b)| a.median.total_cmp(&b.median));
    let [(first, least), rest @ ..] = &*sorted else { return None };
    let rivals: Vec<&str> =
        rest.iter().filter(|(_, spread)| spread.overlaps(least)).map(|(name, _)| *name).collect();
    if rest.is_empty() {
        return None;
    }
    Some(if rivals.is_empty() {
        format!("cheapest of all: {first}")
    } else {
        format!(
            "no winner of all by {}: the spread of {first} overlaps with that of {}",
            by.name(),
            rivals.join(", ")
        )
    })
}

fn show(metric: Metric, spread: &Spread) -> String {
    format!("{} to {}", metric.show(spread.least), metric.show(spread.most))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(least: f64, median: f64, most: f64) -> Spread {
        Spread { least, median, most, count: 5 }
    }

    fn pair(a: Spread, b: Spread, throughput: f64, p99: f64) -> Pair {
        let ratio = a.median / b.median;
        Pair {
            a: "a".into(),
            b: "b".into(),
            by: Metric::Cpu,
            spread_a: a,
            spread_b: b,
            ratio: Some(spread(ratio, ratio, ratio)),
            throughput: Some(spread(throughput, throughput, throughput)),
            p99: Some(spread(p99, p99, p99)),
            is_limited: false,
        }
    }

    #[test]
    fn the_cheaper_one_is_called_where_the_spreads_are_apart() {
        let (low, high) = (spread(4000.0, 4200.0, 4400.0), spread(5900.0, 6000.0, 6100.0));
        assert_eq!(pair(low, high, 1.2, 0.8).verdict(), "a is cheaper than b: 0.70 of its cpu");
        assert_eq!(pair(high, low, 0.9, 1.2).verdict(), "b is cheaper than a: 0.70 of its cpu");
    }

    #[test]
    fn none_is_called_where_they_overlap() {
        let (low, high) = (spread(4000.0, 4200.0, 6000.0), spread(5900.0, 6000.0, 6100.0));
        let line = pair(low, high, 1.0, 1.0).verdict();
        assert!(line.contains("no winner") && line.contains("4,000 ns to 6,000 ns"), "{line}");
    }

    #[test]
    fn the_cheaper_one_that_is_slower_is_told_to_be() {
        let (low, high) = (spread(4000.0, 4200.0, 4400.0), spread(5900.0, 6000.0, 6100.0));
        let line = pair(low, high, 0.9, 1.0).verdict();
        assert!(line.ends_with("BUT IT IS THE SLOWER ONE: 0.90 of its throughput"), "{line}");
        let line = pair(low, high, 1.1, 1.5).verdict();
        assert!(line.ends_with("SLOWER ONE: 1.50 of its p99"), "{line}");
        // The same from the other side.
        let line = pair(high, low, 2.0, 0.5).verdict();
        assert!(line.ends_with("SLOWER ONE: 0.50 of its throughput, 2.00 of its p99"), "{line}");
    }

    #[test]
    fn where_the_load_was_the_limit_none_is_called_the_slower_one() {
        let (low, high) = (spread(4000.0, 4200.0, 4400.0), spread(5900.0, 6000.0, 6100.0));
        let line = Pair { is_limited: true, ..pair(low, high, 0.5, 2.0) }.verdict();
        assert!(line.starts_with("a is cheaper than b: 0.70 of its cpu; which is the faster one"), "{line}");
        assert!(!line.contains("SLOWER"), "{line}");
    }

    #[test]
    fn memory_that_did_not_grow_has_no_ratio() {
        let (none, some) = (spread(-29.0, 0.0, 0.0), spread(700.0, 750.0, 800.0));
        for (a, b, ratio, line) in [
            (
                none,
                some,
                Some(spread(-0.04, 0.0, 0.0)),
                "a is cheaper than b: -29 B to 0 B against 700 B to 800 B",
            ),
            (some, none, None, "b is cheaper than a: -29 B to 0 B against 700 B to 800 B"),
        ] {
            let pair = Pair { by: Metric::SessionMemory, ratio, ..pair(a, b, 1.0, 1.0) };
            assert_eq!(pair.verdict(), format!("{line} by session_memory"));
        }
    }

    #[test]
    fn the_cheapest_of_all_is_apart_from_all() {
        let spreads =
            [("x", spread(3.0, 4.0, 5.0)), ("y", spread(1.0, 1.5, 2.0)), ("z", spread(6.0, 7.0, 8.0))];
        assert_eq!(cheapest(Metric::Cpu, &spreads).unwrap(), "cheapest of all: y");
        let spreads = [spreads[0], ("y", spread(1.0, 1.5, 3.5)), spreads[2]];
        let line = cheapest(Metric::Cpu, &spreads).unwrap();
        assert!(line.contains("no winner of all") && line.ends_with("that of x"), "{line}");
    }
}
