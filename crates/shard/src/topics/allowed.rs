//! What a caller may do with topics: what its route allows, as far as its token does.

use tidegate_config::{TopicPattern, TopicPatterns};
use tidegate_identity::Permissions;

/// The names that a route allows, and a token, where that says anything of it.
#[derive(Clone, Copy)]
pub(crate) struct Allowed<'a> {
    route: &'a TopicPatterns,
    token: Option<&'a TopicPatterns>,
}

impl<'a> Allowed<'a> {
    pub(crate) fn subscribe(route: &'a TopicPatterns, token: Option<&'a Permissions>) -> Self {
        Self { route, token: token.and_then(|token| token.subscribe.as_ref()) }
    }

    pub(crate) fn publish(route: &'a TopicPatterns, token: Option<&'a Permissions>) -> Self {
        Self { route, token: token.and_then(|token| token.publish.as_ref()) }
    }

    pub(crate) fn presence(route: &'a TopicPatterns, token: Option<&'a Permissions>) -> Self {
        Self { route, token: token.and_then(|token| token.presence.as_ref()) }
    }

    /// Whether both have this name.
    #[inline]
    pub(crate) fn matches(&self, name: &str) -> bool {
        self.route.matches(name) && self.token.is_none_or(|token| token.matches(name))
    }

    /// Whether both have every name that `pattern` matches.
    pub(crate) fn covers(&self, pattern: &TopicPattern) -> bool {
        self.route.covers(pattern) && self.token.is_none_or(|token| token.covers(pattern))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(texts: &[&str]) -> TopicPatterns {
        TopicPatterns::new(texts.iter().map(|text| TopicPattern::parse(text).unwrap()).collect())
    }

    #[test]
    fn a_token_narrows_what_its_route_allows_and_never_widens_it() {
        let route = patterns(&["chat/*", "news"]);
        let token =
            Permissions { subscribe: Some(patterns(&["chat/a", "other/**"])), ..Permissions::default() };
        let both = Allowed::subscribe(&route, Some(&token));
        let says = |name| both.matches(name);
        assert_eq!(["chat/a", "chat/b", "news", "other/x"].map(says), [true, false, false, false]);
        let covers = |text| both.covers(&TopicPattern::parse(text).unwrap());
        assert_eq!(["chat/a", "chat/*", "other/*"].map(covers), [true, false, false]);
        // What the token says nothing of is as the route has it.
        for allowed in [Allowed::publish(&route, Some(&token)), Allowed::subscribe(&route, None)] {
            assert!(allowed.matches("chat/b") && allowed.matches("news") && !allowed.matches("other/x"));
        }
        // And where it allows nothing, that is nothing.
        let none = Permissions { presence: Some(TopicPatterns::default()), ..Permissions::default() };
        assert!(!Allowed::presence(&route, Some(&none)).matches("news"));
    }
}
