//! Which routes can never be reached, because earlier ones take all their requests.

use crate::Route;

/// The earlier routes that together take every request which `routes[index]` could take, in ascending order; `None`
/// where it can be reached.
///
/// Exact: a host pattern is either one name or infinitely many, and so is a path pattern, so no number of smaller
/// patterns makes up for a larger one; only subprotocols are finite sets that several routes can exhaust together.
///
/// # Panics
/// Where there is no such route.
#[must_use]
pub fn hiding(routes: &[Route], index: usize) -> Option<Vec<usize>> {
    let hidden = &routes[index];
    let wider = |earlier: &Route| {
        let hosts = match (&earlier.host, &hidden.host) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(mine), Some(theirs)) => mine.covers(theirs),
        };
        hosts && earlier.path.covers(&hidden.path)
    };
    let wider: Vec<usize> = (0..index).filter(|earlier| wider(&routes[*earlier])).collect();

    if let Some(any) = wider.iter().find(|earlier| routes[**earlier].subprotocols.is_empty()) {
        return Some(vec![*any]);
    }
    if hidden.subprotocols.is_empty() {
        return None;
    }
    // A request for this route offers one of its subprotocols, perhaps no other: each must be taken.
    let mut hiding = Vec::new();
    for subprotocol in &hidden.subprotocols {
        hiding.push(*wider.iter().find(|earlier| routes[**earlier].subprotocols.contains(subprotocol))?);
    }
    hiding.sort_unstable();
    hiding.dedup();
    Some(hiding)
}

/// What a route takes, for people.
pub(crate) fn pattern_text(route: &Route) -> String {
    let host = route.host.as_ref().map(ToString::to_string).unwrap_or_default();
    let subprotocols = match route.subprotocols.as_slice() {
        [] => String::new(),
        some => format!(" with {}", some.join(", ")),
    };
    format!("`{host}{}`{subprotocols}", route.path)
}
