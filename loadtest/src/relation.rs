//! What a value is held against: `<5ms`, `>=10k`. Assertions and bars have it.

use crate::units;

/// How a value is to lie to its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relation {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
}

/// What a value is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Nanoseconds.
    Time,
    Bytes,
    Count,
}

impl Relation {
    /// The sign that a text begins with, and what follows it.
    pub(crate) fn split(text: &str) -> Option<(Self, &str)> {
        // The longer ones first.
        let signs = [
            ("<=", Self::LessOrEqual),
            (">=", Self::GreaterOrEqual),
            ("==", Self::Equal),
            ("<", Self::Less),
            (">", Self::Greater),
            ("=", Self::Equal),
        ];
        signs.into_iter().find_map(|(sign, relation)| Some((relation, text.strip_prefix(sign)?)))
    }

    pub(crate) fn holds(self, value: f64, bound: f64) -> bool {
        match self {
            Self::Less => value < bound,
            Self::LessOrEqual => value <= bound,
            Self::Greater => value > bound,
            Self::GreaterOrEqual => value >= bound,
            Self::Equal => (value - bound).abs() < f64::EPSILON * bound.abs().max(1.0),
        }
    }

    /// The value for which it holds the least; `None` of none.
    pub(crate) fn worst(self, values: impl Iterator<Item = f64>, bound: f64) -> Option<f64> {
        match self {
            Self::Less | Self::LessOrEqual => values.reduce(f64::max),
            Self::Greater | Self::GreaterOrEqual => values.reduce(f64::min),
            Self::Equal => values.max_by(|a, b| (a - bound).abs().total_cmp(&(b - bound).abs())),
        }
    }
}

impl Unit {
    /// A value as people write it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(self, text: &str) -> Result<f64, String> {
        match self {
            Self::Time if text.ends_with(|c: char| c.is_ascii_digit()) => {
                Err(format!("{text:?} needs a unit: ns, us, ms, s"))
            }
            Self::Time => Ok(units::duration(text)?.as_nanos() as f64),
            Self::Bytes => Ok(units::bytes(text)? as f64),
            Self::Count => units::count(text),
        }
    }

    /// A value for people.
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::Time => units::show_ns(value),
            Self::Bytes => units::show_bytes(value),
            Self::Count => units::show_count(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_value_is_the_one_that_breaks_a_bound_first() {
        for (sign, worst) in [("<", 9.0), ("<=5", 9.0), (">", 1.0), (">=", 1.0), ("=", 9.0)] {
            let (relation, _) = Relation::split(sign).unwrap();
            assert_eq!(relation.worst([4.0, 9.0, 1.0].into_iter(), 4.5), Some(worst), "{sign}");
            assert_eq!(relation.worst([].into_iter(), 4.5), None);
        }
        assert_eq!(Relation::split("5"), None);
        assert_eq!(Relation::split("<=5ms"), Some((Relation::LessOrEqual, "5ms")));
    }
}
