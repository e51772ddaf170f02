//! `claims = { … }` of a route: what it demands of its callers' claims.

/// A claim that callers must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequiredClaim {
    /// Its name: as it stands in the token, or else with dots that lead into objects.
    pub name: String,
    /// Of which it must be one, or, where it is a list, have one; at least one.
    pub values: Vec<String>,
}

impl RequiredClaim {
    /// Whether everybody who has what `others` demand has this one, too.
    #[must_use]
    pub fn follows_from(&self, others: &[Self]) -> bool {
        let narrower = |other: &Self| {
            other.name == self.name && other.values.iter().all(|value| self.values.contains(value))
        };
        others.iter().any(narrower)
    }
}
