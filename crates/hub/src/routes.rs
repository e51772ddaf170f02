//! The routes in the order of the configuration; the first that matches takes the request.
//!
//! Lookup is one scan: some nanoseconds for each route, once for each handshake, and a configuration holds at most
//! [`tidegate_config::MAX_ROUTES`] of them. An index by host and path would have to keep the order between exact,
//! prefix and wildcard entries; it waits for a configuration that needs it.

use std::collections::HashMap;

use tidegate_config::{Config, Route, bare_host};

/// A route's number: its place in the first configuration, and a free one where it came later. It stays the same as long as
/// the route does, wherever it then stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteId(pub u16);

impl RouteId {
    /// The number as an index.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Offers of subprotocols that are looked at; those behind them match no route. Real clients send one or two, and
/// a head has room for thousands.
pub const MAX_OFFERS: usize = 64;

/// All routes of a configuration.
#[derive(Clone, Debug)]
pub struct Routes {
    routes: Vec<Route>,
    /// Their numbers, in the same order.
    ids: Vec<RouteId>,
    /// For each subprotocol of any route, the places of those routes in ascending order.
    by_subprotocol: HashMap<String, Vec<u16>>,
}

impl Routes {
    /// The routes of `config`, numbered as they stand there.
    ///
    /// # Panics
    /// Where there are more than 65,536; a valid configuration has no more than [`tidegate_config::MAX_ROUTES`].
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self::numbered(config, (0..=u16::MAX).map(RouteId).take(config.routes.len()).collect())
    }

    /// The routes of `config`, with these numbers, one for each.
    ///
    /// # Panics
    /// Where there are more than 65,536, or not as many numbers as routes.
    #[must_use]
    pub fn numbered(config: &Config, ids: Vec<RouteId>) -> Self {
        assert!(config.routes.len() <= usize::from(u16::MAX) + 1, "more routes than a RouteId can name");
        assert_eq!(config.routes.len(), ids.len(), "each route has a number");
        let mut by_subprotocol = HashMap::<String, Vec<u16>>::new();
        for (place, route) in (0..=u16::MAX).zip(&config.routes) {
            for subprotocol in &route.subprotocols {
                by_subprotocol.entry(subprotocol.clone()).or_default().push(place);
            }
        }
        Self { routes: config.routes.clone(), ids, by_subprotocol }
    }

    /// The first route for this authority (`host` or `host:port`, as received), path (without query) and list of
    /// offered subprotocols.
    ///
    /// A route with subprotocols only takes requests that offer one of them.
    pub fn lookup<'p>(
        &self,
        authority: &str,
        path: &str,
        offers: impl Iterator<Item = &'p str>,
    ) -> Option<(RouteId, &Route)> {
        let host = bare_host(authority);
        let takes = |route: &Route| {
            route.host.as_ref().is_none_or(|pattern| pattern.matches(host)) && route.path.matches(path)
        };

        // The first that needs no subprotocol; only those before it are still of interest, if an offer names them.
        let mut best = None;
        let mut conditional = false;
        for (place, route) in (0..=u16::MAX).zip(&self.routes) {
            if takes(route) {
                if route.subprotocols.is_empty() {
                    best = Some(place);
                    break;
                }
                conditional = true;
            }
        }
        if conditional {
            for offer in offers.take(MAX_OFFERS) {
                let named = self.by_subprotocol.get(offer).into_iter().flatten().copied();
                let earlier = named.take_while(|place| best.is_none_or(|best| *place < best));
                best = earlier.into_iter().find(|place| takes(&self.routes[usize::from(*place)])).or(best);
            }
        }
        best.map(usize::from).map(|place| (self.ids[place], &self.routes[place]))
    }

    /// All routes in order, with their numbers.
    pub fn all(&self) -> impl Iterator<Item = (RouteId, &Route)> {
        self.ids.iter().copied().zip(&self.routes)
    }
}
