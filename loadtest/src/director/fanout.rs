//! The scenario `fanout`, and what its results are.

use super::{Director, crew::Goal, now_ns};
use crate::{
    fanout::{Echo, Fanout, Letter},
    fault::Fault,
    link::{Command, Failure},
    report::{FanoutReport, Spread},
    tally::Tally,
};

/// Within that time all workers are to know when messages begin. Where it is too short, more is taken.
const LEAD_NS: u64 = 20_000_000;

impl Director {
    /// Publishers and subscribers that are up, then their messages.
    pub(super) fn fanout(&mut self, fanout: Fanout) -> Result<(), Failure> {
        self.connect(0, self.plan.connections)?;
        self.wait(Goal::Settled, None)?;
        self.up = self.servers.look();
        self.at_start = self.open();
        if self.is_cut_short() || self.subscribers() == 0 || self.publishers() == 0 {
            return Ok(());
        }
        let topics = 0..fanout.topics as usize;
        let all = |topic| self.crew.iter().filter_map(|crew| crew.audience.get(topic)).sum();
        let audiences: Vec<u32> = topics.map(all).collect();
        let mut lead_ns = LEAD_NS;
        loop {
            let begin = self.begin_at(now_ns() + lead_ns);
            self.order(|_| Command::Meet { audiences: audiences.clone(), begin });
            if !self.wait(Goal::Met, None)? {
                return Ok(());
            }
            if now_ns() < begin.start_ns {
                self.wait(Goal::Never, Some(begin.start_ns))?;
                return if self.is_cut_short() { Ok(()) } else { self.carry_out(begin) };
            }
            lead_ns *= 2;
        }
    }

    /// Publishers that are up.
    pub(super) fn publishers(&self) -> u32 {
        self.crew.iter().map(|crew| crew.publishers).sum()
    }

    fn subscribers(&self) -> u32 {
        self.crew.iter().flat_map(|crew| &crew.audience).sum()
    }

    /// A worker of one process has letters for one of another.
    pub(super) fn relay(&mut self, to: usize, letters: Vec<Letter>) {
        // Of one that has died nobody asks.
        let _ = self.switchboard.send(to, Command::Mail(letters));
    }

    /// Counts what is missing as such.
    pub(super) fn settle_fanout(&mut self) {
        let Some(fanout) = self.plan.scenario.fanout() else { return };
        let counts = &self.tally.fan.counts;
        let faults = &mut self.tally.counts.faults;
        let owed = counts.expected.saturating_sub(counts.distinct + counts.garbled);
        let told = faults.count(Fault::Gap);
        let mut missing = owed.saturating_sub(told);
        // More gaps than there was to be missed; or numbers were passed over though nothing is missing.
        let wrong = told.saturating_sub(owed) + counts.holes.saturating_sub(missing + counts.garbled);
        faults.add(Fault::Misnumbered, wrong);
        if fanout.echo == Echo::Expected {
            missing += counts.published.saturating_sub(counts.to_senders);
        }
        faults.add(Fault::Lost, missing);
    }
}

/// The results of a fan-out. `each_s`: a count for each second of the measured time.
pub(super) fn report(fanout: &Fanout, tally: &Tally, each_s: impl Fn(u64) -> Option<f64>) -> FanoutReport {
    let counts = &tally.fan.counts;
    let [first, median, last] = match &tally.fan.times {
        Some(times) => [&times[0], &times[1], &times[2]].map(Spread::of),
        None => [None, None, None],
    };
    let faults = &tally.counts.faults;
    FanoutReport {
        adapter: fanout.adapter.name(),
        publishers: fanout.publishers,
        subscribers: fanout.subscribers,
        topics: fanout.topics,
        published: counts.published_in_window,
        published_per_s: each_s(counts.published_in_window),
        deliveries: tally.counts.in_window,
        deliveries_per_s: each_s(tally.counts.in_window),
        complete: counts.complete,
        incomplete: counts.incomplete,
        first,
        median,
        last,
        expected: counts.expected,
        lost: faults.count(Fault::Lost),
        gap: faults.count(Fault::Gap),
        misnumbered: faults.count(Fault::Misnumbered),
        duplicate: faults.count(Fault::Duplicate),
        reordered: faults.count(Fault::Reordered),
        corrupt: faults.count(Fault::Corrupt),
        to_publishers: counts.to_publishers,
        to_senders: counts.to_senders,
    }
}
