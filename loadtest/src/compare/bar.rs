//! A bar of a suite: what must hold for a server, by itself or beside others, in one scenario or from one to another.

use super::metric::Metric;
use crate::relation::Relation;

/// Why a bar cannot be read.
pub(crate) const SHAPE: &str = "a bar is like `cpu <= 0.70 of bun`, `p99 <= 1.1 of nginx, haproxy`, `session_memory <= 256B`, \
                     `other: cpu <= 1.05 of bun`, `cpu / small <= 1.3` or `cpu / small <= 1.0 of bun`";

/// One bar.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bar {
    /// As it was given.
    pub(crate) text: String,
    /// Whom it is about; `None`: the reference.
    pub(crate) subject: Option<String>,
    pub(crate) metric: Metric,
    /// The scenario by whose value the metric is divided: then it is how much it grows from there.
    pub(crate) base: Option<String>,
    relation: Relation,
    /// A ratio, or in the metric's unit.
    bound: f64,
    /// Beside whom; none: by itself.
    pub(crate) peers: Vec<String>,
}

/// What its values rest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Basis {
    Sound,
    /// In most runs of one of the servers the load was the limit.
    LimitedByLoad,
    TooFewRounds,
}

/// What became of one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Judgement {
    Holds(f64),
    Broken(f64),
    /// There are too few rounds: the value so far.
    TooFew(f64),
    /// It is about speed, and in most runs of its subject or of a peer the load was the limit, not the server: the value so
    /// far.
    LoadLimited(f64),
    /// Of its subject, or of one of the peers while it holds for the others.
    NotMeasured,
}

impl Bar {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let at = text.find(['<', '>']).ok_or(SHAPE)?;
        let (left, rest) = text.split_at(at);
        let (relation, rest) = Relation::split(rest).ok_or(SHAPE)?;
        let (subject, name) = match left.split_once(':') {
            Some((subject, name)) => (Some(subject.trim().to_owned()), name.trim()),
            None => (None, left.trim()),
        };
        let (name, base) = match name.split_once('/') {
            Some((name, base)) => (name.trim(), Some(base.trim().to_owned())),
            None => (name, None),
        };
        if base.as_deref() == Some("") {
            return Err(SHAPE.to_owned());
        }
        let metric = Metric::parse(name).ok_or_else(|| {
            format!("there is no metric {name:?}: {}", Metric::ALL.map(Metric::name).join(", "))
        })?;
        let ratio =
            |number: &str| number.trim().parse().ok().filter(|ratio: &f64| *ratio > 0.0 && ratio.is_finite());
        let (bound, peers) = match rest.split_once(" of ") {
            Some((number, peers)) => {
                let peers: Vec<String> = peers.split(',').map(|peer| peer.trim().to_owned()).collect();
                (ratio(number).ok_or_else(|| format!("{text:?}: before `of` stands a ratio"))?, peers)
            }
            None if base.is_some() => {
                (ratio(rest).ok_or_else(|| format!("{text:?}: how much it grows is a ratio"))?, Vec::new())
            }
            None => (metric.unit().parse(rest.trim())?, Vec::new()),
        };
        Ok(Self { text: text.to_owned(), subject, metric, base, relation, bound, peers })
    }

    /// Holds it against the medians of its ratios, one for each peer, or against its subject's median (of values, or of how much
    /// they grow). `None` was not measured.
    pub(crate) fn judge(&self, values: &[Option<f64>], basis: Basis) -> Judgement {
        let measured = values.iter().copied().flatten();
        let Some(worst) = self.relation.worst(measured, self.bound) else { return Judgement::NotMeasured };
        let holds = self.relation.holds(worst, self.bound);
        match basis {
            Basis::TooFewRounds => Judgement::TooFew(worst),
            Basis::LimitedByLoad if self.metric.is_of_speed() => Judgement::LoadLimited(worst),
            Basis::Sound | Basis::LimitedByLoad => match holds {
                true if values.contains(&None) => Judgement::NotMeasured,
                true => Judgement::Holds(worst),
                false => Judgement::Broken(worst),
            },
        }
    }

    /// A value that it was held against.
    pub(crate) fn show(&self, value: f64) -> String {
        if self.peers.is_empty() && self.base.is_none() {
            self.metric.show(value)
        } else {
            format!("{value:.3}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_held_against_ratios_or_values() {
        for (text, good, bad) in [
            ("cpu <= 0.70 of bun", 0.70, 0.71),
            ("throughput >= 1.0 of bun", 1.0, 0.99),
            ("session_memory<=256B", 256.0, 257.0),
            ("empty_memory < 64MiB", 1.0, 67_108_864.0),
            ("other: p99 > 1ms", 1_000_001.0, 1_000_000.0),
        ] {
            let bar = Bar::parse(text).unwrap();
            assert_eq!(bar.judge(&[Some(good)], Basis::Sound), Judgement::Holds(good), "{text}");
            assert_eq!(bar.judge(&[Some(bad)], Basis::Sound), Judgement::Broken(bad), "{text}");
            assert_eq!(bar.judge(&[Some(good)], Basis::TooFewRounds), Judgement::TooFew(good), "{text}");
            assert_eq!(bar.judge(&[None], Basis::Sound), Judgement::NotMeasured, "{text}");
        }
        let bar = Bar::parse("other: cpu <= 1.05 of a, b").unwrap();
        assert_eq!((bar.subject.as_deref(), &*bar.peers), (Some("other"), &["a".to_owned(), "b".into()][..]));
    }

    #[test]
    fn a_bar_about_growth_names_where_it_grows_from() {
        for (text, subject, base, peers, shown) in [
            ("cpu / 100x128 <= 1.3", None, "100x128", &[][..], "1.200"),
            ("cpu/small<=1.0 of bun", None, "small", &["bun"], "1.200"),
            ("other: p99 / one topic > 0.5 of a, b", Some("other"), "one topic", &["a", "b"], "1.200"),
        ] {
            let bar = Bar::parse(text).unwrap();
            assert_eq!((bar.subject.as_deref(), bar.base.as_deref()), (subject, Some(base)), "{text}");
            assert_eq!(bar.peers, peers, "{text}");
            assert_eq!(bar.show(1.2), shown, "{text}");
        }
        let bar = Bar::parse("cpu / small <= 1.3").unwrap();
        assert_eq!(bar.judge(&[Some(1.3)], Basis::Sound), Judgement::Holds(1.3));
        assert_eq!(bar.judge(&[Some(1.31)], Basis::Sound), Judgement::Broken(1.31));
        assert_eq!(bar.judge(&[None], Basis::Sound), Judgement::NotMeasured);
    }

    #[test]
    fn a_bar_beside_several_holds_beside_each() {
        let bar = Bar::parse("cpu <= 0.8 of a, b").unwrap();
        assert_eq!(bar.judge(&[Some(0.5), Some(0.9)], Basis::Sound), Judgement::Broken(0.9));
        assert_eq!(bar.judge(&[Some(0.5), Some(0.7)], Basis::Sound), Judgement::Holds(0.7));
        // One that is missing cannot make it hold, but does not hide that it is broken.
        assert_eq!(bar.judge(&[Some(0.5), None], Basis::Sound), Judgement::NotMeasured);
        assert_eq!(bar.judge(&[None, Some(0.9)], Basis::Sound), Judgement::Broken(0.9));
        let bar = Bar::parse("throughput >= 1 of a, b").unwrap();
        assert_eq!(bar.judge(&[Some(1.5), Some(0.9)], Basis::Sound), Judgement::Broken(0.9));
    }

    #[test]
    fn where_the_load_was_the_limit_speed_is_not_judged() {
        for (text, judgement) in [
            ("throughput >= 1 of a", Judgement::LoadLimited(1.2)),
            ("p99 <= 1 of a", Judgement::LoadLimited(1.2)),
            ("cpu <= 1 of a", Judgement::Broken(1.2)),
            ("cpu <= 1.2 of a", Judgement::Holds(1.2)),
            ("load_cpu <= 1.1", Judgement::Broken(1.2)),
        ] {
            let bar = Bar::parse(text).unwrap();
            assert_eq!(bar.judge(&[Some(1.2)], Basis::LimitedByLoad), judgement, "{text}");
            assert_eq!(bar.judge(&[None], Basis::LimitedByLoad), Judgement::NotMeasured, "{text}");
        }
    }

    #[test]
    fn what_is_no_bar_is_refused() {
        for text in [
            "",
            "cpu",
            "cpu = 1",
            "speed <= 1 of a",
            "cpu <= 5",
            "cpu <= x of a",
            "cpu <= 0 of a",
            "p99 <= ",
            "cpu / <= 1.3",
            "/ s <= 1.3",
            "cpu / s <= 5ms",
            "cpu / s <= 0",
            "speed / s <= 1.3",
        ] {
            assert!(Bar::parse(text).is_err(), "{text}");
        }
    }
}
