//! What the director orders, and when it is done.

use tidegate_io::{Backend, Waker};

use super::{Awaiting, Worker};
use crate::{
    fault::Fault,
    link::{Begin, Command, What},
    plan::{Load, Scenario},
    schedule::Schedule,
    session::{Context, Session, Stage, Traffic},
    trace::Playback,
};

/// How often it is looked whether all is answered, after the end.
const DRAIN_NS: u64 = 5_000_000;

impl<B: Backend<Waker = Waker>> Worker<B> {
    /// The measured time begins or ends: what the kernel was asked for in it is counted.
    pub(super) fn mark(&mut self) {
        let calls = self.backend.counters().system_calls;
        self.mark_ns = match self.calls_before.take() {
            None => {
                self.calls_before = Some(calls);
                // Where answers are waited for it ends with these.
                if self.rules.waits_for_answers { u64::MAX } else { self.window.until_ns }
            }
            Some(before) => {
                self.tally.counts.system_calls += calls - before;
                u64::MAX
            }
        };
    }

    pub(super) fn obey(&mut self, command: Command) {
        match command {
            Command::Connect { more } => {
                self.origin.ask(more, self.now_ns);
                self.awaiting = Awaiting::Settled;
                if matches!(self.plan.scenario, Scenario::Storm { .. }) && self.calls_before.is_none() {
                    // All of it is measured, until all are up.
                    self.mark();
                }
            }
            Command::Begin(begin) => self.begin(&begin),
            Command::Stop => self.stop(),
            Command::GiveUp => self.give_up(),
            Command::Cut => self.end_all(Session::cut),
            Command::Close => {
                if let Some(fan) = &mut self.fan {
                    fan.close();
                }
                self.end_all(Session::close);
            }
            Command::Meet { audiences, begin } => self.meet(&audiences, &begin),
            Command::Mail(letters) => self.read_mail(letters),
            Command::Quit => {}
        }
    }

    /// The time of messages begins.
    pub(super) fn begin(&mut self, begin: &Begin) {
        self.window = begin.window();
        self.mark_ns = self.window.from_ns;
        self.end_ns = begin.end_ns;
        self.awaiting = Awaiting::Drained;
        let closed = Traffic::Closed { depth: self.plan.depth };
        match (self.plan.scenario, self.plan.load) {
            (Scenario::Idle | Scenario::Storm { .. }, _) => {}
            (Scenario::Fanout(_), _) => self.begin_fanout(begin),
            (Scenario::Churn { .. }, load) => {
                self.traffic = closed;
                let limit = self.plan.part(self.plan.connections, self.index as u32);
                let interval_ns = (load != Load::Closed).then_some(begin.interval_ns);
                let threads = self.plan.threads;
                self.origin.churn(limit, interval_ns, begin, self.index as u32, threads);
            }
            (Scenario::Replay, _) => {
                let Some(trace) = self.plan.trace.clone() else { return };
                self.traffic = Traffic::Replay;
                let keys = self.open_keys();
                for key in &keys {
                    self.touch(key.index as usize, |session, cx| session.begin(begin.start_ns, cx.now_ns));
                }
                self.playback = Playback::new(trace, &keys, begin.start_ns, begin.end_ns);
            }
            (Scenario::Echo | Scenario::Slow { .. }, load) => {
                let keys = self.open_keys();
                self.choose_slow(&keys);
                match load {
                    Load::Closed => {
                        self.traffic = closed;
                        for key in keys {
                            self.touch(key.index as usize, |session, cx| session.begin(0, cx.now_ns));
                        }
                    }
                    Load::Open { .. } => {
                        let interval_ns = begin.interval_ns;
                        self.traffic = Traffic::Open { interval_ns };
                        let (start_ns, end_ns) = (begin.start_ns, begin.end_ns);
                        self.schedule = Schedule::new(&keys, interval_ns, start_ns, end_ns, &mut self.random);
                        let firsts: Vec<_> = self.schedule.firsts().collect();
                        for (key, first_ns) in firsts {
                            self.touch(key.index as usize, |session, cx| {
                                session.begin(first_ns, cx.now_ns);
                            });
                        }
                    }
                }
            }
        }
    }

    /// The time of messages ends now, or has ended.
    pub(super) fn stop(&mut self) {
        self.is_over = true;
        self.end_ns = self.end_ns.min(self.now_ns);
        self.window.until_ns = self.window.until_ns.min(self.end_ns);
        if self.calls_before.is_none() {
            self.mark_ns = u64::MAX;
        } else if !self.rules.waits_for_answers {
            self.mark();
        }
        self.schedule.end(self.end_ns);
        self.playback.end(self.end_ns);
        self.owe_the_rest();
        self.tally.counts.faults.add(Fault::NotUp, self.origin.backlog(self.end_ns));
        self.origin.stop();
        if let Some(fan) = &mut self.fan {
            fan.stop();
        }
        if let Traffic::Closed { .. } = self.traffic
            && !matches!(self.plan.scenario, Scenario::Churn { .. })
        {
            self.traffic = Traffic::Off;
        }
    }

    pub(super) fn end_all(&mut self, end: fn(&mut Session, &mut Context<'_>)) {
        self.origin.stop();
        self.awaiting = Awaiting::Empty;
        let all: Vec<usize> = self.slots.iter().map(|(index, _)| index).collect();
        for index in all {
            self.touch(index, end);
        }
    }

    /// Ends all sessions that are not up, and begins no more.
    pub(super) fn give_up(&mut self) {
        let pending = self.slots.iter().filter(|(_, slot)| slot.session.stage() == Stage::Pending);
        let pending: Vec<usize> = pending.map(|(index, _)| index).collect();
        let count = self.origin.stop() + pending.len() as u32;
        self.tally.counts.faults.add(Fault::NotUp, u64::from(count));
        for index in pending {
            self.touch(index, Session::cut);
        }
    }

    /// Tells what is over.
    pub(super) fn judge_progress(&mut self) {
        let is_over = match self.awaiting {
            Awaiting::Nothing => false,
            Awaiting::Settled => self.origin.is_done() && self.pending == 0,
            Awaiting::Empty => self.slots.is_empty(),
            Awaiting::Drained if self.is_deserted() => true,
            // All that was due before the end is owed by then.
            Awaiting::Drained if !self.is_over || self.now_ns < self.drain_ns => false,
            Awaiting::Drained => {
                self.drain_ns = self.now_ns + DRAIN_NS;
                let late_ns = self.end_ns.saturating_add(self.rules.timeout_ns);
                let is_busy = self.has_messages_under_way()
                    || self.slots.iter().any(|(_, slot)| slot.session.is_busy());
                self.now_ns > late_ns || !is_busy
            }
        };
        if !is_over {
            return;
        }
        let what = match self.awaiting {
            Awaiting::Nothing => return,
            Awaiting::Settled => What::Settled {
                audience: self.take_seats(),
                publishers: self.publishers().len() as u32,
                open: self.open,
                lost: self.lost + self.tally.counts.lost,
                last_up_ns: self.origin.last_up_ns(),
            },
            Awaiting::Empty => What::Empty,
            Awaiting::Drained => {
                self.stop();
                What::Drained
            }
        };
        if matches!(self.awaiting, Awaiting::Settled | Awaiting::Drained) && self.calls_before.is_some() {
            self.mark();
        }
        self.awaiting = Awaiting::Nothing;
        self.tell(what);
    }

    /// Whether all sessions were lost, and no others will come.
    pub(super) fn is_deserted(&self) -> bool {
        self.slots.is_empty() && self.origin.is_done()
    }
}
