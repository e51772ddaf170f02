//! Routes that generations of the configuration take away under their sessions and bring back, mostly at numbers that others had.

use std::collections::BTreeMap;

use tidegate_config::Drain;
use tidegate_shard::Plan;

use super::{
    net::{MILLIS, SECONDS},
    random::Random,
};

/// How a route stood when somebody looked.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    /// How often it had been taken away.
    pub(crate) removals: usize,
    /// It was there for everybody.
    pub(crate) here: bool,
}

/// How often a route was taken away: for each time when what is left of its sessions is cut off, at the earliest. Where an operator
/// lets it have no more sessions, and keeps those that it has, `None`.
#[derive(Debug, Default)]
pub(crate) struct Removals(Vec<Option<u64>>);

impl Removals {
    /// It is taken away now.
    pub(crate) fn add(&mut self, now: u64, drain: &Drain) {
        self.0.push(Some(end(now, drain)));
    }

    /// It is taken away now, and nobody could come in since it was the last time: those that are left may have been in before that.
    pub(crate) fn hasten(&mut self, now: u64, drain: &Drain) {
        let last = self.0.last_mut().expect("it was taken away");
        let end = end(now, drain);
        *last = Some(last.map_or(end, |last| last.min(end)));
    }

    /// Nobody new comes in from now on, and who is in stays.
    pub(crate) fn keep(&mut self) {
        self.0.push(None);
    }

    /// All that was before is over.
    pub(crate) fn begin(&mut self) {
        self.0.push(Some(0));
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// When those who came when the route stood so may have been cut off, where it may be gone for them. Who is in already stays
    /// where sessions are kept; who is not may be refused there, and is never cut off.
    pub(crate) fn cut(&self, seen: Seen, is_in: bool) -> Option<u64> {
        // A shard may have let them in before it heard that the route is gone, or when it was back there already.
        let before = seen.removals.checked_sub(1).filter(|_| !seen.here).and_then(|place| self.0.get(place));
        let behind = &self.0[seen.removals..];
        let mut concern = before.into_iter().chain(behind);
        // A later one may leave less time, also to those who were asked by an earlier one, or came in between.
        let cut = concern.clone().flatten().min().copied();
        cut.or_else(|| (!is_in && concern.any(Option::is_none)).then_some(u64::MAX))
    }
}

fn end(now: u64, drain: &Drain) -> u64 {
    // The shard's time has steps of a millisecond.
    (now / MILLIS + drain.deadline_ms) * MILLIS
}

/// Whether a route is there in the next generation, as it is in this one or not.
pub(crate) fn draw_presence(random: &mut Random, has: bool, is_last: bool) -> bool {
    let (goes, comes) = (random.below(3) == 0, random.below(3) > 0);
    (has && !goes) || (!has && comes) || is_last
}

/// Some are over before the next generation comes, some are not.
pub(crate) fn draw_drain(random: &mut Random) -> Drain {
    let window_ms = *random.pick(&[0, 20, 100, 300]);
    Drain {
        window_ms,
        deadline_ms: window_ms + *random.pick(&[0, 1, 60, 200, 600]),
        reconnect_delay_ms: *random.pick(&[0, 5_000]),
        ..Drain::default()
    }
}

/// So many times, one behind the other.
pub(crate) fn draw_times(random: &mut Random, count: u64, span: u64, now: u64) -> Vec<u64> {
    let mut time = now + random.below(span);
    let mut times = Vec::new();
    for _ in 0..count {
        times.push(time);
        time += *random.pick(&[10 * MILLIS, 150 * MILLIS, SECONDS, SECONDS, 2 * SECONDS, span / 3]);
    }
    times
}

/// Places in any order: those that come back get their numbers in it.
pub(crate) fn draw_order(random: &mut Random, count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    for place in (1..count).rev() {
        order.swap(place, random.index(place + 1));
    }
    order
}

/// Whose each number was last, by the path.
#[derive(Debug)]
pub(crate) struct Numbers(BTreeMap<u16, String>);

impl Numbers {
    pub(crate) fn of(plan: &Plan) -> Numbers {
        let numbered = plan.numbered_routes().map(|(number, route)| (number, route.path.to_string()));
        Numbers(numbered.collect())
    }

    /// What has come with a generation, behind `before`.
    pub(crate) fn follow(&mut self, before: &Plan, plan: &Plan) -> Vec<&'static str> {
        let (Numbers(before), Numbers(now)) = (Numbers::of(before), Numbers::of(plan));
        let come = now.into_iter().filter(|(number, _)| !before.contains_key(number));
        let covered = come.map(|(number, path)| match self.0.insert(number, path.clone()) {
            None => "route: back at a new number",
            Some(other) if other == path => "route: back at its number",
            Some(_) => "route: back at another's number",
        });
        covered.collect()
    }
}

/// No route has sessions at the end of a shard that was not stopped.
///
/// # Panics
/// Where one has.
pub(crate) fn check_end(plan: &Plan) {
    for (number, route) in plan.numbered_routes() {
        let sessions = plan.route_sessions(usize::from(number));
        assert_eq!(sessions, 0, "sessions of {} at the end", route.path);
    }
}
