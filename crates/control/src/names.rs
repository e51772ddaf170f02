//! What routes and upstreams are called in answers and in metrics.

use tidegate_config::{Action, Config};

/// The names of all routes, no two alike.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    routes: Vec<String>,
    upstreams: Vec<Vec<String>>,
}

/// What the routes of a configuration are called, in order: host and path, no two alike.
#[must_use]
pub fn route_names(config: &Config) -> Vec<String> {
    Names::new(config).routes
}

impl Names {
    pub(crate) fn new(config: &Config) -> Self {
        let mut routes = Vec::<String>::with_capacity(config.routes.len());
        for route in &config.routes {
            let host = route.host.as_ref().map(ToString::to_string).unwrap_or_default();
            let name = format!("{host}{}", route.path);
            // Routes that differ by subprotocol or by what they do.
            let mut distinct = name.clone();
            let mut number = 1;
            while routes.contains(&distinct) {
                number += 1;
                distinct = format!("{name} ({number})");
            }
            routes.push(distinct);
        }
        let upstreams = config.routes.iter().map(|route| match &route.action {
            Action::Proxy(proxy) => proxy.upstreams.iter().map(|upstream| upstream.text.clone()).collect(),
            Action::Echo(_)
            | Action::Page(_)
            | Action::Topics(_)
            | Action::Events(_)
            | Action::Poll(_)
            | Action::Publish(_) => Vec::new(),
        });
        Self { upstreams: upstreams.collect(), routes }
    }

    pub(crate) fn routes(&self) -> &[String] {
        &self.routes
    }

    /// A route's name by its position.
    pub(crate) fn route(&self, position: u16) -> &str {
        self.routes.get(usize::from(position)).map_or("", String::as_str)
    }

    /// A route's position by its name.
    pub(crate) fn position(&self, name: &str) -> Option<u16> {
        let position = self.routes.iter().position(|route| route == name)?;
        u16::try_from(position).ok()
    }

    /// An upstream as it stands in the configuration.
    pub(crate) fn upstream(&self, route: u16, position: u16) -> &str {
        let list = self.upstreams.get(usize::from(route));
        list.and_then(|list| list.get(usize::from(position))).map_or("", String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_of_one_path_have_names_of_their_own() {
        let text = "version = 1\n[[listener]]\nbind = '127.0.0.1:0'\n\
                    [[route]]\nhost = 'a.test'\npath = '/x/*'\nsubprotocols = ['one']\necho = {}\n\
                    [[route]]\nhost = 'a.test'\npath = '/x/*'\necho = {}\n\
                    [[route]]\npath = '/p'\nproxy = { upstreams = ['ws://10.0.0.5:9000'] }\n";
        let names = Names::new(&tidegate_config::parse(text, "t.toml").unwrap());
        assert_eq!(names.routes(), ["a.test/x/*", "a.test/x/* (2)", "/p"]);
        assert_eq!((names.position("/p"), names.position("/q")), (Some(2), None));
        assert_eq!((names.upstream(2, 0), names.upstream(0, 0)), ("ws://10.0.0.5:9000", ""));
    }
}
