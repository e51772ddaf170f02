//! When new sessions begin: paced, so that the server's queue of connections does not overflow.

use crate::{link::Begin, plan::Plan};

/// How long nothing begins after a failure, so that a server that refuses all is not hammered.
const REST_NS: u64 = 10_000_000;

/// Which sessions are still to begin.
#[derive(Debug)]
pub(super) struct Origin {
    /// The upper byte of all serial numbers of this worker.
    owner: u32,
    begun: u32,
    /// Sessions that may be coming up at once.
    most_pending: u32,
    /// Sessions that are to begin as soon as that allows.
    asked: u32,
    churn: Option<Churn>,
    rest_until_ns: u64,
    /// When the last session came up, or the first was asked for.
    last_up_ns: u64,
}

/// Sessions that follow each other.
#[derive(Debug)]
struct Churn {
    /// The most at once.
    limit: u32,
    /// When the next one is due, and how far apart they are; without, as soon as there is room.
    due: Option<(f64, f64)>,
    start_ns: u64,
    /// From then on none is due.
    end_ns: u64,
}

impl Origin {
    pub(super) fn new(plan: &Plan, index: usize) -> Self {
        Self {
            owner: (index as u32) << 24,
            begun: 0,
            most_pending: plan.part(plan.pending, index as u32),
            asked: 0,
            churn: None,
            rest_until_ns: 0,
            last_up_ns: 0,
        }
    }

    /// So many more sessions are to begin.
    pub(super) fn ask(&mut self, more: u32, now_ns: u64) {
        self.asked += more;
        self.last_up_ns = now_ns;
    }

    /// Sessions follow each other, at most `limit` at once; `interval_ns` lies between two of all workers.
    pub(super) fn churn(
        &mut self,
        limit: u32,
        interval_ns: Option<f64>,
        begin: &Begin,
        index: u32,
        workers: u32,
    ) {
        let Begin { start_ns, end_ns, .. } = *begin;
        let due = interval_ns.map(|interval_ns| {
            (start_ns as f64 + f64::from(index) * interval_ns, f64::from(workers) * interval_ns)
        });
        self.churn = Some(Churn { limit, due, start_ns, end_ns });
        self.last_up_ns = start_ns;
    }

    /// Sessions that follow each other, were due before `end_ns` and have not begun: there was no room for them.
    pub(super) fn backlog(&self, end_ns: u64) -> u64 {
        let Some(Churn { due: Some((due_ns, interval_ns)), .. }) = &self.churn else { return 0 };
        // Never less than none.
        ((end_ns as f64 - due_ns) / interval_ns).ceil() as u64
    }

    /// No more begin; how many of those asked for did not.
    pub(super) fn stop(&mut self) -> u32 {
        self.churn = None;
        std::mem::take(&mut self.asked)
    }

    /// Gives those up that were asked for, if for `timeout_ns` none came up.
    pub(super) fn give_up(&mut self, now_ns: u64, timeout_ns: u64) -> u32 {
        if self.asked > 0 && now_ns.saturating_sub(self.last_up_ns) > timeout_ns {
            return std::mem::take(&mut self.asked);
        }
        0
    }

    /// Whether no session is to begin.
    pub(super) fn is_done(&self) -> bool {
        self.asked == 0 && self.churn.is_none()
    }

    pub(super) fn last_up_ns(&self) -> u64 {
        self.last_up_ns
    }

    /// A session has come up, or failed to.
    pub(super) fn came_up(&mut self, is_up: bool, now_ns: u64) {
        if is_up {
            self.last_up_ns = now_ns;
        } else if self.churn.is_some() {
            self.rest_until_ns = now_ns + REST_NS;
        }
    }

    /// When the next session is to begin; `None` where others must end or come up first.
    pub(super) fn next_ns(&self, pending: u32, sessions: usize) -> Option<u64> {
        if pending >= self.most_pending {
            return None;
        }
        match &self.churn {
            None => (self.asked > 0).then_some(0),
            Some(churn) if sessions >= churn.limit as usize => None,
            Some(churn) => {
                let due_ns = churn.due.map_or(churn.start_ns, |(due_ns, _)| due_ns as u64);
                (due_ns < churn.end_ns).then(|| due_ns.max(self.rest_until_ns))
            }
        }
    }

    /// A session that is to begin by now: its serial number, and when it was due.
    pub(super) fn poll_next(&mut self, pending: u32, sessions: usize, now_ns: u64) -> Option<(u32, u64)> {
        if self.next_ns(pending, sessions)? > now_ns {
            return None;
        }
        let due_ns = match &mut self.churn {
            // Without a rate one is due as soon as there is room.
            Some(Churn { due: None, end_ns, .. }) if now_ns >= *end_ns => return None,
            None => {
                self.asked -= 1;
                now_ns
            }
            Some(Churn { due: Some((due_ns, interval_ns)), .. }) => {
                let this_ns = *due_ns as u64;
                *due_ns += *interval_ns;
                this_ns
            }
            Some(_) => now_ns,
        };
        // After 2^24 sessions numbers come again; the first ones are long over.
        let serial = self.owner | (self.begun & 0x00ff_ffff);
        self.begun = self.begun.wrapping_add(1);
        Some((serial, due_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> Origin {
        Origin { owner: 0, begun: 0, most_pending: 2, asked: 0, churn: None, rest_until_ns: 0, last_up_ns: 0 }
    }

    #[test]
    fn no_more_come_up_at_once_than_may() {
        let mut origin = origin();
        origin.ask(3, 5);
        assert_eq!(origin.poll_next(0, 0, 5), Some((0, 5)));
        assert_eq!(origin.poll_next(1, 1, 6), Some((1, 6)));
        assert_eq!(origin.poll_next(2, 2, 7), None);
        assert_eq!(origin.poll_next(1, 2, 8), Some((2, 8)));
        assert!(origin.is_done() && origin.poll_next(0, 0, 9).is_none());
    }

    #[test]
    fn who_never_comes_up_is_given_up() {
        let mut origin = origin();
        origin.ask(10, 100);
        assert_eq!(origin.give_up(150, 50), 0);
        assert_eq!(origin.give_up(151, 50), 10);
        assert!(origin.is_done());
    }

    #[test]
    fn churn_keeps_its_rate_and_makes_up_for_delays() {
        let mut origin = origin();
        origin.churn(2, Some(100.0), &begin(1000, 2000), 1, 2);
        assert_eq!((origin.next_ns(0, 0), origin.poll_next(0, 0, 1099)), (Some(1100), None));
        assert_eq!(origin.poll_next(0, 0, 1600).unwrap().1, 1100);
        assert_eq!(origin.poll_next(0, 1, 1600).unwrap().1, 1300);
        assert_eq!(origin.poll_next(0, 2, 1600), None);
        origin.came_up(false, 1700);
        assert_eq!(origin.next_ns(0, 1), Some(1700 + REST_NS));
    }

    #[test]
    fn what_was_due_and_did_not_begin_is_left() {
        let mut origin = origin();
        origin.churn(2, Some(100.0), &begin(1000, 2000), 0, 1);
        assert_eq!((origin.backlog(900), origin.backlog(1000), origin.backlog(1001)), (0, 0, 1));
        assert_eq!(origin.backlog(2000), 10);
        // Even after the end, what was due before it begins where there is room.
        let begun = std::iter::from_fn(|| origin.poll_next(0, 0, 5000)).count();
        assert_eq!((begun, origin.backlog(2000)), (10, 0));
        origin.churn(2, None, &begin(1000, 2000), 0, 1);
        assert!(origin.poll_next(0, 0, 1999).is_some() && origin.poll_next(0, 0, 2000).is_none());
        assert_eq!(origin.backlog(2000), 0);
    }

    fn begin(start_ns: u64, end_ns: u64) -> Begin {
        Begin { start_ns, measured_ns: start_ns, end_ns, interval_ns: 0.0 }
    }
}
