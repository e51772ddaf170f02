//! What routes are called in answers, metrics and the log, by the numbers that shards give them.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tidegate_shard::Plan;

/// The names of all routes, no two alike. Clones are the same.
#[derive(Clone, Debug)]
pub struct RouteNames(Arc<ArcSwap<Vec<Named>>>);

/// A route's name.
#[derive(Clone, Debug, Default)]
struct Named {
    /// Empty for a number that no route has had.
    name: String,
    /// It is in the configuration in force.
    present: bool,
}

impl RouteNames {
    /// Those of a plan.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let names = Self(Arc::default());
        names.adopt(plan);
        names
    }

    /// Takes over those of another plan. A number that no route has any more keeps its name: its last sessions are still told of.
    pub fn adopt(&self, plan: &Plan) {
        let mut names = Vec::clone(&self.0.load());
        names.iter_mut().for_each(|named| named.present = false);
        for (number, route) in plan.numbered_routes() {
            let host = route.host.as_ref().map(ToString::to_string).unwrap_or_default();
            let name = format!("{host}{}", route.path);
            let place = usize::from(number);
            if names.len() <= place {
                names.resize(place + 1, Named::default());
            }
            // Routes that differ by subprotocol or by what they do.
            let mut distinct = name.clone();
            let mut count = 1;
            while names.iter().enumerate().any(|(other, named)| other != place && named.name == distinct) {
                count += 1;
                distinct = format!("{name} ({count})");
            }
            names[place] = Named { name: distinct, present: true };
        }
        self.0.store(Arc::new(names));
    }

    /// A route's name by its number.
    #[must_use]
    pub fn name(&self, number: u16) -> Option<String> {
        let names = self.0.load();
        names.get(usize::from(number)).filter(|named| !named.name.is_empty()).map(|named| named.name.clone())
    }

    /// All that have been seen, with their numbers.
    pub(crate) fn all(&self) -> Vec<(u16, String)> {
        self.list(|_| true)
    }

    /// Those of the configuration in force.
    pub(crate) fn present(&self) -> Vec<(u16, String)> {
        self.list(|named| named.present)
    }

    fn list(&self, wanted: impl Fn(&Named) -> bool) -> Vec<(u16, String)> {
        let names = self.0.load();
        let numbered =
            (0..=u16::MAX).zip(names.iter()).filter(|(_, named)| !named.name.is_empty() && wanted(named));
        numbered.map(|(number, named)| (number, named.name.clone())).collect()
    }

    /// The number of a route of the configuration in force, by its name.
    #[must_use]
    pub fn present_number(&self, name: &str) -> Option<u16> {
        self.present().into_iter().find(|(_, own)| own == name).map(|(number, _)| number)
    }

    /// A route's number by its name.
    pub(crate) fn number(&self, name: &str) -> Option<u16> {
        self.all().into_iter().find(|(_, own)| own == name).map(|(number, _)| number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(routes: &str) -> Arc<Plan> {
        let text = format!("version = 1\n[[listener]]\nbind = '127.0.0.1:0'\n{routes}");
        Plan::new(tidegate_config::parse(&text, "t.toml").unwrap(), 1)
    }

    #[test]
    fn routes_of_one_path_have_names_of_their_own() {
        let names = RouteNames::new(&plan(
            "[[route]]\nhost = 'a.test'\npath = '/x/*'\nsubprotocols = ['one']\necho = {}\n\
             [[route]]\nhost = 'a.test'\npath = '/x/*'\necho = {}\n[[route]]\npath = '/p'\necho = {}\n",
        ));
        let all: Vec<String> = names.all().into_iter().map(|(_, name)| name).collect();
        assert_eq!(all, ["a.test/x/*", "a.test/x/* (2)", "/p"]);
        assert_eq!((names.number("/p"), names.number("/q"), names.name(3)), (Some(2), None, None));
    }

    #[test]
    fn what_is_gone_keeps_its_name_for_its_last_sessions() {
        let names =
            RouteNames::new(&plan("[[route]]\npath = '/a'\necho = {}\n[[route]]\npath = '/b'\necho = {}\n"));
        names.clone().adopt(&plan("[[route]]\npath = '/c'\necho = {}\n"));
        assert_eq!((names.name(0).as_deref(), names.name(1).as_deref()), (Some("/c"), Some("/b")));
        assert_eq!(names.present(), [(0, "/c".to_owned())]);
    }
}
