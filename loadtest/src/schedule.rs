//! The open loop: when each session's messages are due.
//!
//! Sessions are spread evenly over one interval, each with a jitter within its place. So what is due next is always the
//! next session's in their order, and finding it costs nothing, however many there are.

use crate::random::Random;

/// A session as a worker knows it: its place, and its serial number, which is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) index: u32,
    pub(crate) serial: u32,
}

/// A worker's schedule.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    /// Who, and when its first message is due; in the order of that.
    sessions: Vec<(Key, u64)>,
    interval_ns: f64,
    /// Whose turn it is.
    next: usize,
    /// Which message of theirs.
    round: u64,
    end_ns: u64,
}

impl Schedule {
    /// Every session sends each `interval_ns`, from `start_ns` until before `end_ns`.
    pub(crate) fn new(
        keys: &[Key],
        interval_ns: f64,
        start_ns: u64,
        end_ns: u64,
        random: &mut Random,
    ) -> Self {
        let place_ns = interval_ns / keys.len().max(1) as f64;
        let sessions = keys
            .iter()
            .enumerate()
            .map(|(index, key)| (*key, start_ns + ((index as f64 + random.fraction()) * place_ns) as u64));
        Self { sessions: sessions.collect(), interval_ns, next: 0, round: 0, end_ns }
    }

    /// Each session's first time.
    pub(crate) fn firsts(&self) -> impl Iterator<Item = (Key, u64)> {
        self.sessions.iter().copied()
    }

    /// When the next message is due; `None` after the end.
    #[inline]
    pub(crate) fn next_ns(&self) -> Option<u64> {
        let (_, first_ns) = self.sessions.get(self.next)?;
        let due_ns = first_ns + (self.round as f64 * self.interval_ns) as u64;
        (due_ns < self.end_ns).then_some(due_ns)
    }

    /// Whose message is due by `now_ns`; each is told once.
    #[inline]
    pub(crate) fn poll_due(&mut self, now_ns: u64) -> Option<Key> {
        if self.next_ns()? > now_ns {
            return None;
        }
        let (key, _) = self.sessions[self.next];
        self.next += 1;
        if self.next == self.sessions.len() {
            self.next = 0;
            self.round += 1;
        }
        Some(key)
    }

    /// What is due before the end and was not told: whose, and how many. Nothing is due after that.
    pub(crate) fn take_rest(&mut self) -> Vec<(Key, u64)> {
        let (next, round, interval_ns, end_ns) = (self.next, self.round, self.interval_ns, self.end_ns);
        let sessions = std::mem::take(&mut self.sessions).into_iter().enumerate();
        let rest = sessions.map(|(place, (key, first_ns))| {
            let told = round + u64::from(place < next);
            let most = (end_ns.saturating_sub(first_ns) as f64 / interval_ns) as u64 + 2;
            let is_due = |number: u64| first_ns + ((number as f64 * interval_ns) as u64) < end_ns;
            (key, count_due(told, most, is_due))
        });
        rest.filter(|(_, count)| *count > 0).collect()
    }

    /// Nothing is due from `end_ns` on.
    pub(crate) fn end(&mut self, end_ns: u64) {
        self.end_ns = self.end_ns.min(end_ns);
    }
}

/// How many messages from `told` on, and before `most`, are due. They are due in their order, so none is looked at twice.
pub(crate) fn count_due(told: u64, most: u64, is_due: impl Fn(u64) -> bool) -> u64 {
    let (mut due, mut not_due) = (told, most.max(told));
    while due < not_due {
        let middle = due + (not_due - due) / 2;
        if is_due(middle) {
            due = middle + 1;
        } else {
            not_due = middle;
        }
    }
    due - told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(count: u32) -> Vec<Key> {
        (0..count).map(|index| Key { index, serial: index }).collect()
    }

    #[test]
    fn messages_are_due_in_order_evenly_and_as_many_as_the_rate_says() {
        let mut schedule = Schedule::new(&keys(7), 1_000_000.0, 5_000, 100_005_000, &mut Random::new(1));
        let mut times = Vec::new();
        while let Some(due_ns) = schedule.next_ns() {
            assert_eq!(schedule.poll_due(due_ns - 1), None);
            assert_eq!(schedule.poll_due(due_ns).unwrap().index, times.len() as u32 % 7);
            times.push(due_ns);
        }
        assert!(times.is_sorted() && times[0] >= 5_000);
        assert!((699..=700).contains(&times.len()), "{}", times.len());
        let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(gaps.max().unwrap() <= 2 * 1_000_000 / 7 + 2);
    }

    #[test]
    fn the_rest_is_what_would_have_been_told() {
        for told in [0, 1, 6, 7, 8, 350, 699] {
            let new = || Schedule::new(&keys(7), 1_000_000.0, 5_000, 100_005_000, &mut Random::new(1));
            let (mut schedule, mut walked) = (new(), new());
            for _ in 0..told {
                assert_eq!(schedule.poll_due(u64::MAX), walked.poll_due(u64::MAX));
            }
            let mut counts = [0; 7];
            while let Some(key) = walked.poll_due(u64::MAX) {
                counts[key.index as usize] += 1;
            }
            let mut rest = [0; 7];
            for (key, count) in schedule.take_rest() {
                rest[key.index as usize] = count;
            }
            assert_eq!(rest, counts, "{told}");
            assert!(schedule.next_ns().is_none() && schedule.take_rest().is_empty());
        }
        // As much as a year at the highest rate is found at once.
        let year_ns = 31_536_000_000_000_000;
        let mut schedule = Schedule::new(&keys(1), 10.0, 0, year_ns, &mut Random::new(1));
        assert!(schedule.take_rest()[0].1.abs_diff(year_ns / 10) <= 2);
    }

    #[test]
    fn without_sessions_nothing_is_due() {
        let mut schedule = Schedule::new(&[], 1.0, 0, 1000, &mut Random::new(1));
        assert_eq!((schedule.next_ns(), schedule.poll_due(500)), (None, None));
    }

    #[test]
    fn it_can_end_early() {
        let mut schedule = Schedule::new(&keys(1), 10.0, 0, 1000, &mut Random::new(1));
        schedule.end(25);
        assert!(std::iter::from_fn(|| schedule.poll_due(1000)).count() <= 3);
    }
}
