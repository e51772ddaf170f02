//! What each scenario is, from its first session to its last message.

use std::{sync::Arc, time::Duration};

use super::{Director, crew::Goal, now_ns};
use crate::{
    link::{Begin, Command, Failure},
    plan::{Load, Scenario},
    processes::slab_bytes,
    report::{Point, Storm},
    tally::Window,
};

/// How long the server is given to come to rest before its memory is looked at.
const REST: Duration = Duration::from_millis(300);
/// How long after an interruption answers are waited for.
const PATIENCE: Duration = Duration::from_secs(1);

impl Director {
    /// Sessions that are up, then their messages.
    pub(super) fn echo(&mut self) -> Result<(), Failure> {
        self.connect(0, self.plan.connections)?;
        self.wait(Goal::Settled, None)?;
        self.up = self.servers.look();
        self.at_start = self.open();
        if !self.is_cut_short() && self.at_start > 0 {
            self.messages()?;
        }
        Ok(())
    }

    /// The time of messages; in `churn`, of sessions.
    pub(super) fn messages(&mut self) -> Result<(), Failure> {
        let begin = self.begin_at(now_ns());
        self.carry_out(begin)
    }

    /// A time of messages from then on.
    pub(super) fn begin_at(&self, start_ns: u64) -> Begin {
        let plan = &self.plan;
        let measured_ns = start_ns + plan.warmup.as_nanos() as u64;
        let end_ns = measured_ns + plan.duration.as_nanos() as u64;
        let interval_ns = match (plan.load, plan.scenario) {
            (Load::Closed, _) => 0.0,
            (_, Scenario::Replay) => 0.0,
            (Load::Open { rate }, Scenario::Churn { .. }) => 1e9 / rate,
            (Load::Open { rate }, Scenario::Fanout(_)) => f64::from(self.publishers()) * 1e9 / rate,
            (Load::Open { rate }, _) => f64::from(self.at_start) * 1e9 / rate,
        };
        Begin { start_ns, measured_ns, end_ns, interval_ns }
    }

    /// The time of messages, from its beginning to the last answer.
    pub(super) fn carry_out(&mut self, begin: Begin) -> Result<(), Failure> {
        let Begin { start_ns, measured_ns, end_ns, .. } = begin;
        self.order(|_| Command::Begin(begin));
        self.live.expect("warm-up", start_ns, end_ns);
        let mut goes_on = !self.wait(Goal::Drained, Some(measured_ns))?;
        self.start = self.sample();
        if goes_on && !self.is_cut_short() {
            self.live.phase("measuring");
            goes_on = !self.wait(Goal::Drained, Some(end_ns))?;
        }
        self.end = self.sample();
        let until_ns = if self.is_cut_short() { end_ns.min(self.end.at_ns) } else { end_ns };
        self.window = Some(Window { from_ns: measured_ns, until_ns });
        self.note_deserted(measured_ns, end_ns);
        if self.is_cut_short() {
            self.order(|_| Command::Stop);
        }
        if goes_on {
            self.live.phase("draining");
            let until_ns = self.is_cut_short().then(|| now_ns() + PATIENCE.as_nanos() as u64);
            self.wait(Goal::Drained, until_ns)?;
            if self.plan.waits_for_answers() {
                self.end = self.sample();
            }
        }
        Ok(())
    }

    /// The time that was to last until `end_ns` is over: where it was before that, no session was left.
    fn note_deserted(&mut self, start_ns: u64, end_ns: u64) {
        let at_ns = self.end.at_ns;
        self.deserted_ns = (!self.is_cut_short() && at_ns < end_ns).then(|| at_ns.saturating_sub(start_ns));
    }

    /// Sessions that come up in quarters, and are held.
    pub(super) fn idle(&mut self) -> Result<(), Failure> {
        let total = u64::from(self.plan.connections);
        let mut asked = 0;
        for quarter in 1..=4 {
            // At most `connections`.
            let next = (total * quarter / 4) as u32;
            self.connect(asked, next)?;
            asked = next;
            self.wait(Goal::Settled, None)?;
            if self.is_cut_short() {
                return Ok(());
            }
            if !self.plan.pids.is_empty() {
                self.wait(Goal::Never, Some(now_ns() + REST.as_nanos() as u64))?;
                if self.is_cut_short() {
                    return Ok(());
                }
            }
            self.up = self.servers.look();
            let user_bytes = self.up.memory_bytes;
            if user_bytes.is_some() {
                self.points.push(Point { sessions: self.open(), user_bytes, kernel_bytes: slab_bytes() });
            }
        }
        self.at_start = self.open();
        if self.at_start == 0 {
            return Ok(());
        }
        let start_ns = now_ns();
        let end_ns = start_ns + self.plan.duration.as_nanos() as u64;
        self.start = self.sample();
        self.order(|_| Command::Begin(Begin { start_ns, measured_ns: start_ns, end_ns, interval_ns: 0.0 }));
        self.live.expect("holding", start_ns, end_ns);
        self.wait(Goal::Drained, Some(end_ns))?;
        self.end = self.sample();
        self.note_deserted(start_ns, end_ns);
        Ok(())
    }

    /// All sessions as fast as they can, once and again.
    pub(super) fn storm(&mut self, again: u32) -> Result<(), Failure> {
        self.start = self.sample();
        for time in 0..=again {
            if time > 0 {
                self.order(|_| Command::Cut);
                self.wait(Goal::Empty, None)?;
            }
            if self.is_cut_short() {
                break;
            }
            let start_ns = now_ns();
            let until_ns = start_ns + self.plan.duration.as_nanos() as u64;
            self.connect(0, self.plan.connections)?;
            let is_settled = self.wait(Goal::Settled, Some(until_ns))?;
            if !is_settled {
                if self.is_cut_short() {
                    break;
                }
                self.order(|_| Command::GiveUp);
                self.wait(Goal::Settled, None)?;
            }
            let up = self.open();
            let last_ns = self.crew.iter().map(|crew| crew.last_up_ns).max().unwrap_or(start_ns);
            let until_up_s = last_ns.saturating_sub(start_ns) as f64 / 1e9;
            let handshakes_per_s = if until_up_s > 0.0 { f64::from(up) / until_up_s } else { 0.0 };
            self.storms.push(Storm { up, failed: self.plan.connections - up, until_up_s, handshakes_per_s });
            if up == 0 {
                // A server that lets nobody in is not there for the next one.
                break;
            }
        }
        self.end = self.sample();
        self.up = self.end.server.clone();
        self.at_start = self.open();
        Ok(())
    }

    /// Brings `to` sessions up, of which `from` have been asked for.
    pub(super) fn connect(&mut self, from: u32, to: u32) -> Result<(), Failure> {
        let plan = Arc::clone(&self.plan);
        self.live.connect(plan.connections);
        self.order(|index| Command::Connect { more: plan.sessions(to, index) - plan.sessions(from, index) });
        Ok(())
    }
}
