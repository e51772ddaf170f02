//! Who has a stream's messages: counts and times of those under way.

use std::collections::VecDeque;

/// A stream has at most a million messages under way: a number that is further ahead than this is none of its.
pub(super) const MOST_AHEAD: u64 = 1 << 20;

/// Deliveries of one message that came at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub(crate) struct Run {
    pub(crate) at_ns: u64,
    pub(crate) count: u32,
}

/// When a message reached whom it had to.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub(crate) struct Reached {
    pub(crate) number: u64,
    pub(crate) due_ns: u64,
    pub(crate) runs: Vec<Run>,
}

#[derive(Debug, Default)]
struct Slot {
    /// 0: not known, as no delivery has come.
    due_ns: u64,
    count: u32,
    /// Subscribers that will not get it.
    absent: u32,
    /// It was given out.
    is_done: bool,
    runs: Vec<Run>,
}

/// The messages of a stream that are under way to some of its subscribers.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// The number of the first slot's message.
    base: u64,
    slots: VecDeque<Slot>,
    /// Subscribers at the start.
    audience: u32,
    /// Of them, those that will get no message after the last slot's.
    gone: u32,
    /// Slots that are not done.
    open: u32,
}

/// What became of deliveries.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// Others have still to come.
    Open,
    /// All have come.
    Whole(Reached),
    /// It was given up before.
    Behind,
}

impl Ledger {
    pub(super) fn new(audience: u32) -> Self {
        Self { audience, ..Self::default() }
    }

    /// Messages under way.
    pub(super) fn open(&self) -> u32 {
        self.open
    }

    /// Whether a message was given out or given up.
    pub(super) fn is_behind(&self, number: u64) -> bool {
        match number.checked_sub(self.base) {
            None => true,
            Some(place) => self.slots.get(place as usize).is_some_and(|slot| slot.is_done),
        }
    }

    /// A ledger for that audience, without those of it that have been lost before now.
    pub(super) fn opened_for(&self, audience: u32) -> Self {
        Self { audience, gone: self.gone, ..Self::default() }
    }

    /// Whether a message of this number may come: not further ahead than its publisher may ever be of its subscribers.
    #[inline]
    pub(super) fn may_have(&self, number: u64) -> bool {
        number < self.base + self.slots.len() as u64 + MOST_AHEAD
    }

    pub(super) fn audience(&self) -> u32 {
        self.audience
    }

    /// Whether anybody is left.
    pub(super) fn has_audience(&self) -> bool {
        self.gone < self.audience
    }

    /// A message is under way: the one after the last slot's.
    pub(super) fn expect(&mut self, due_ns: u64) {
        let place = self.slots.len();
        self.place(self.base + place as u64);
        self.slots[place].due_ns = due_ns;
    }

    /// Deliveries of a message came. `spare`: memory for its runs.
    #[inline]
    pub(super) fn add(&mut self, number: u64, due_ns: u64, run: Run, spare: &mut Vec<Vec<Run>>) -> Entry {
        let Some(place) = self.place(number) else { return Entry::Behind };
        let slot = &mut self.slots[place];
        if slot.is_done {
            return Entry::Behind;
        }
        slot.due_ns = due_ns;
        slot.count += run.count;
        match slot.runs.last_mut() {
            Some(last) if last.at_ns == run.at_ns => last.count += run.count,
            Some(_) => slot.runs.push(run),
            None => {
                slot.runs = spare.pop().unwrap_or_default();
                slot.runs.push(run);
            }
        }
        self.close(place).map_or(Entry::Open, Entry::Whole)
    }

    /// One subscriber will not get the messages with these numbers; `until` is `u64::MAX` where it will get none
    /// any more. `whole` is given those that nobody else is awaited for.
    pub(super) fn lose(&mut self, from: u64, until: u64, mut whole: impl FnMut(Reached)) {
        if until == u64::MAX {
            self.gone += 1;
        } else if until > self.base {
            self.place(until - 1);
        }
        let first = from.saturating_sub(self.base) as usize;
        let mut done = Vec::new();
        for (place, slot) in self.slots.iter_mut().enumerate().skip(first) {
            if self.base + place as u64 >= until {
                break;
            }
            slot.absent += 1;
            done.push(place);
        }
        // From the last to the first: a front that is done moves the others up.
        for place in done.into_iter().rev() {
            if let Some(reached) = self.close(place) {
                whole(reached);
            }
        }
    }

    /// Gives up messages that were due before then; `given_up` is given what came of each, which may be nothing.
    pub(super) fn give_up(&mut self, before_ns: u64, mut given_up: impl FnMut(Reached)) {
        let is_old = |slot: &Slot| slot.due_ns != 0 && slot.due_ns < before_ns;
        // What is due is in order: those before an old one are old, also where nothing of them has come.
        let Some(last) = self.slots.iter().rposition(is_old) else { return };
        for slot in self.slots.drain(..=last) {
            if !slot.is_done {
                self.open -= 1;
                given_up(Reached { number: self.base, due_ns: slot.due_ns, runs: slot.runs });
            }
            self.base += 1;
        }
    }

    /// The slot of a message; `None` where that is behind.
    #[inline]
    fn place(&mut self, number: u64) -> Option<usize> {
        let place = number.checked_sub(self.base)? as usize;
        while self.slots.len() <= place {
            self.slots.push_back(Slot { absent: self.gone, ..Slot::default() });
            self.open += 1;
        }
        Some(place)
    }

    /// Gives a message out if nobody is awaited for it.
    #[inline]
    fn close(&mut self, place: usize) -> Option<Reached> {
        let slot = &mut self.slots[place];
        if slot.is_done || slot.count + slot.absent < self.audience {
            return None;
        }
        slot.is_done = true;
        self.open -= 1;
        let number = self.base + place as u64;
        let reached = Reached { number, due_ns: slot.due_ns, runs: std::mem::take(&mut slot.runs) };
        while self.slots.front().is_some_and(|slot| slot.is_done) {
            self.slots.pop_front();
            self.base += 1;
        }
        Some(reached)
    }
}

impl Reached {
    pub(super) fn deliveries(&self) -> u64 {
        self.runs.iter().map(|run| u64::from(run.count)).sum()
    }

    /// When it reached the first, the middle one (of an even number the earlier) and the last; `None` where it
    /// reached nobody.
    pub(super) fn times(&mut self) -> Option<[u64; 3]> {
        self.runs.sort_unstable_by_key(|run| run.at_ns);
        let (first, last) = (self.runs.first()?.at_ns, self.runs.last()?.at_ns);
        let half = self.deliveries().div_ceil(2);
        let mut count = 0;
        let median = self.runs.iter().find(|run| {
            count += u64::from(run.count);
            count >= half
        })?;
        Some([first, median.at_ns, last])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(at_ns: u64, count: u32) -> Run {
        Run { at_ns, count }
    }

    fn whole(entry: Entry) -> Reached {
        match entry {
            Entry::Whole(reached) => reached,
            Entry::Open | Entry::Behind => panic!("{entry:?}"),
        }
    }

    #[test]
    fn a_message_is_whole_when_all_have_it_and_its_median_is_the_middle_one() {
        let mut ledger = Ledger::new(5);
        let mut spare = Vec::new();
        assert_eq!(ledger.add(0, 7, run(10, 1), &mut spare), Entry::Open);
        assert_eq!(
            ledger.add(1, 8, run(10, 5), &mut spare),
            Entry::Whole(Reached { number: 1, due_ns: 8, runs: vec![run(10, 5)] })
        );
        assert_eq!(ledger.add(0, 7, run(10, 1), &mut spare), Entry::Open);
        assert_eq!(ledger.add(0, 7, run(30, 2), &mut spare), Entry::Open);
        assert_eq!(ledger.open(), 1);
        let mut reached = whole(ledger.add(0, 7, run(20, 1), &mut spare));
        assert_eq!((reached.number, reached.times()), (0, Some([10, 20, 30])));
        assert_eq!((ledger.open(), ledger.base, ledger.slots.len()), (0, 2, 0));
        assert_eq!(ledger.add(1, 8, run(40, 1), &mut spare), Entry::Behind);
        let even = |runs: &[Run]| Reached { number: 0, due_ns: 0, runs: runs.to_vec() }.times();
        assert_eq!(even(&[run(1, 1), run(2, 1)]), Some([1, 1, 2]));
        assert_eq!(even(&[]), None);
    }

    #[test]
    fn a_number_far_ahead_is_none_of_a_publishers() {
        let mut ledger = Ledger::new(1);
        assert!(ledger.may_have(0) && ledger.may_have(MOST_AHEAD - 1));
        assert!(!ledger.may_have(MOST_AHEAD) && !ledger.may_have(u64::MAX - 1));
        // From the last one that came on.
        ledger.add(9, 1, run(1, 1), &mut Vec::new());
        assert!(ledger.may_have(MOST_AHEAD + 9) && !ledger.may_have(MOST_AHEAD + 10));
    }

    #[test]
    fn who_is_lost_is_not_waited_for() {
        let mut ledger = Ledger::new(2);
        let mut spare = Vec::new();
        for due_ns in [1, 2, 3] {
            ledger.expect(due_ns);
        }
        // It had message 0 alone.
        for number in 0..3 {
            assert_eq!(ledger.add(number, number + 1, run(10, 1), &mut spare), Entry::Open);
        }
        let mut numbers = Vec::new();
        ledger.lose(1, u64::MAX, |reached| numbers.push(reached.number));
        numbers.sort_unstable();
        assert_eq!(numbers, [1, 2]);
        assert_eq!(whole(ledger.add(3, 4, run(11, 1), &mut spare)).number, 3);
        // One message that came with other bytes.
        ledger.expect(5);
        ledger.expect(6);
        let mut ledger = Ledger::new(2);
        assert_eq!(ledger.add(0, 1, run(10, 1), &mut spare), Entry::Open);
        ledger.lose(1, 2, |_| panic!("another is awaited"));
        assert_eq!(whole(ledger.add(1, 2, run(11, 1), &mut spare)).number, 1);
        assert_eq!((ledger.open(), ledger.has_audience()), (1, true));
    }

    #[test]
    fn what_takes_too_long_is_given_up_in_order() {
        let mut ledger = Ledger::new(2);
        let mut spare = Vec::new();
        assert_eq!(ledger.add(1, 20, run(25, 1), &mut spare), Entry::Open);
        assert_eq!(ledger.add(2, 30, run(35, 1), &mut spare), Entry::Open);
        let mut given_up = Vec::new();
        ledger.give_up(20, |_| panic!("none is so old"));
        ledger.give_up(21, |reached| given_up.push((reached.number, reached.deliveries())));
        assert_eq!(given_up, [(0, 0), (1, 1)]);
        assert_eq!(ledger.add(1, 20, run(40, 1), &mut spare), Entry::Behind);
        assert_eq!(whole(ledger.add(2, 30, run(40, 1), &mut spare)).number, 2);
        assert_eq!(ledger.open(), 0);
    }
}
