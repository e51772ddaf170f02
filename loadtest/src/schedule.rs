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

    /// Nothing is due from `end_ns` on.
    pub(crate) fn end(&mut self, end_ns: u64) {
        self.end_ns = self.end_ns.min(end_ns);
    }
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
