//! One thread's part of a run: a backend, a slab of sessions, and the loop that drives them.
//!
//! Order of a turn: commands and what is due; frames for all sessions that want to send, as far as a turn goes; one
//! system call that sends them and waits; what was not taken whole; events; once in a while, time-outs.

mod events;
mod fanout;
mod origin;
mod phases;
mod roles;
mod rules;
mod sealed;
mod sends;
mod start;

use std::{collections::VecDeque, io, sync::Arc, sync::mpsc::Sender, time::Duration};

use slab::Slab;
use tidegate_io::{Backend, Event, Remainder, Waker};
use tidegate_wire::{
    deflate::{CodecLimits, Codecs},
    message::Spares,
};

pub(crate) use self::start::{choose_backend, failed, start_worker};
use self::{origin::Origin, rules::rules};
use crate::{
    fanout::Fan,
    fault::Fault,
    link::{Command, Note, Orders, What},
    plan::Plan,
    random::Random,
    schedule::{Key, Schedule},
    session::{Context, Rules, Session, Stage, Staging, Traffic},
    switchboard::Switchboard,
    tally::{Tally, Window},
    trace::Playback,
    visits::{Outgoing, Slot, Visits},
};

/// How often sessions are looked at for time-outs.
const SWEEP_NS: u64 = 100_000_000;
const SECOND_NS: u64 = 1_000_000_000;
/// Messages that become due in one turn: where more are, the turn goes on first, so that orders are always heard.
const MOST_DUE: usize = 1 << 16;
/// Buffers kept for messages that do not lie in one receive buffer.
const SPARE_BYTES: usize = 4 << 20;
/// For sessions that look back at earlier messages, over all threads. Those beyond deflate each message for itself.
const TAKEOVER_BYTES: usize = 256 << 20;

/// What is over when no session is left, nothing is awaited, and so on: told once each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaiting {
    Nothing,
    /// All sessions asked for are up or failed.
    Settled,
    /// All messages are answered.
    Drained,
    /// No session is left.
    Empty,
}

/// One thread's part of a run.
pub(crate) struct Worker<B: Backend> {
    index: usize,
    plan: Arc<Plan>,
    backend: B,
    rules: Rules,
    orders: Orders,
    notes: Sender<Note>,
    slots: Slab<Slot<B::Socket>>,
    origin: Origin,
    /// Those that want to send: who came first is served first.
    ready: VecDeque<Key>,
    /// Those whose receive found no buffer.
    starved: Vec<Key>,
    visits: Visits,
    schedule: Schedule,
    playback: Playback,
    traffic: Traffic,
    window: Window,
    /// The end of the time of messages; 0 before it began.
    end_ns: u64,
    is_over: bool,
    tally: Tally,
    codecs: Codecs,
    spares: Spares,
    /// Where sessions write what is sealed then.
    staging: Staging,
    /// What was opened.
    plaintext: Vec<u8>,
    random: Random,
    now_ns: u64,
    epoch_ns: u64,
    /// Seconds that were told.
    seconds: u64,
    sweep_ns: u64,
    /// When to look again whether all is answered.
    drain_ns: u64,
    awaiting: Awaiting,
    /// Sessions that are coming up, and that are up.
    pending: u32,
    open: u32,
    /// Sessions that were lost, as far as they were told of.
    lost: u64,
    /// System calls until the measured time began, while it lasts.
    calls_before: Option<u64>,
    /// When it begins, or ends.
    mark_ns: u64,
    events: Vec<Event<B::Socket>>,
    remainders: Vec<Remainder>,
    /// In `fanout`.
    fan: Option<Box<Fan>>,
    switchboard: Arc<Switchboard>,
}

impl<B: Backend<Waker = Waker>> Worker<B> {
    /// A worker without sessions. `epoch_ns`: from when seconds are counted.
    pub(crate) fn new(
        index: usize,
        plan: Arc<Plan>,
        backend: B,
        orders: Orders,
        notes: Sender<Note>,
        switchboard: Arc<Switchboard>,
        epoch_ns: u64,
    ) -> Self {
        let rules = rules(&plan);
        let random = Random::new(plan.seed ^ (index as u64 + 1) << 56);
        Self {
            index,
            origin: Origin::new(&plan, index),
            rules,
            backend,
            orders,
            notes,
            slots: Slab::new(),
            ready: VecDeque::new(),
            starved: Vec::new(),
            visits: Visits::new(),
            schedule: Schedule::default(),
            playback: Playback::default(),
            traffic: Traffic::Off,
            window: Window::NEVER,
            end_ns: 0,
            is_over: false,
            tally: Tally::new(),
            codecs: Codecs::new(CodecLimits {
                takeover_bytes: TAKEOVER_BYTES / plan.threads as usize,
                ..CodecLimits::default()
            }),
            spares: Spares::new(SPARE_BYTES),
            staging: Staging::default(),
            plaintext: Vec::new(),
            random,
            now_ns: epoch_ns,
            epoch_ns,
            seconds: 0,
            sweep_ns: epoch_ns,
            drain_ns: 0,
            awaiting: Awaiting::Nothing,
            pending: 0,
            open: 0,
            lost: 0,
            calls_before: None,
            mark_ns: u64::MAX,
            events: Vec::new(),
            remainders: Vec::new(),
            fan: fanout::fan(&plan, index),
            switchboard,
            plan,
        }
    }

    /// Turns until it is told to quit.
    ///
    /// # Errors
    /// Where the backend as a whole is broken.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        self.now_ns = self.clock();
        self.switchboard.enter(self.index, self.orders.clone(), self.backend.waker());
        self.tell(What::Started { thread: rustix::thread::gettid().as_raw_pid() });
        loop {
            while let Some(command) = self.orders.take() {
                if command == Command::Quit {
                    if let Some(fan) = &mut self.fan {
                        fan.end(self.window, &mut self.tally);
                    }
                    let parcel = self.parcel();
                    self.tell(What::Ended { parcel });
                    return Ok(());
                }
                self.obey(command);
            }
            self.turn()?;
        }
    }

    fn turn(&mut self) -> io::Result<()> {
        self.start_what_is_due();
        self.rearm_starved();
        self.write_frames();
        let may_wait = self.ready.is_empty() && !self.visits.is_hurried;
        let deadline_ns = if may_wait { self.deadline_ns() } else { 0 };
        let sends = Outgoing { visits: &self.visits, slots: &self.slots };
        let deadline = Some(Duration::from_nanos(deadline_ns));
        self.backend.turn(&sends, deadline, &mut self.events, &mut self.remainders)?;
        self.now_ns = self.clock();
        if self.now_ns >= self.mark_ns {
            self.mark();
        }
        self.settle();
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            self.handle(event);
        }
        self.events = events;
        self.follow_up();
        if self.now_ns >= self.sweep_ns {
            self.sweep();
        }
        self.judge_progress();
        if self.now_ns >= self.second_ns() {
            self.tell_second();
        }
        Ok(())
    }

    /// Whatever the clock says is to be done.
    fn start_what_is_due(&mut self) {
        for _ in 0..MOST_DUE {
            let next = self.schedule.poll_due(self.now_ns).or_else(|| self.playback.poll_due(self.now_ns));
            let Some(key) = next else { break };
            self.owe(key, 1);
        }
        // Those that were due before the end first.
        self.connect_what_is_due();
        if self.awaiting == Awaiting::Drained && self.now_ns >= self.end_ns && !self.is_over {
            self.stop();
        }
    }

    /// So many messages of a session are due.
    fn owe(&mut self, key: Key, count: u64) {
        // A session remembers as many; it never sends them all.
        let owed = u32::try_from(count).unwrap_or(u32::MAX);
        let is_owed = if self.fan.is_some() {
            self.publish(key, |seat, cx| seat.owe(owed, cx))
        } else if self.is_current(key) {
            let mut is_owed = false;
            self.touch(key.index as usize, |session, cx| is_owed = session.owe(owed, cx.now_ns));
            is_owed
        } else {
            // Of those that do not read no errors are counted.
            self.is_of_the_slow(key.serial)
        };
        // Its session was lost.
        if !is_owed {
            self.tally.counts.faults.add(Fault::Unsent, count);
        }
    }

    /// What was due before the end and has not been looked at yet, however much it is.
    fn owe_the_rest(&mut self) {
        let (schedule, playback) = (self.schedule.take_rest(), self.playback.take_rest());
        for (key, count) in schedule.into_iter().chain(playback) {
            self.owe(key, count);
        }
    }

    fn deadline_ns(&self) -> u64 {
        let mut deadline_ns = self.sweep_ns.min(self.second_ns());
        for due_ns in [self.schedule.next_ns(), self.playback.next_ns()].into_iter().flatten() {
            deadline_ns = deadline_ns.min(due_ns);
        }
        if let Some(due_ns) = self.origin.next_ns(self.pending, self.slots.len()) {
            deadline_ns = deadline_ns.min(due_ns);
        }
        if self.awaiting == Awaiting::Drained {
            deadline_ns = deadline_ns.min(self.end_ns.max(self.drain_ns));
        }
        deadline_ns
    }

    /// Does something to a session, then what follows from that.
    #[inline]
    fn touch(&mut self, index: usize, action: impl FnOnce(&mut Session, &mut Context<'_>)) {
        self.act(index, |slot, cx| action(&mut slot.session, cx));
    }

    /// Does something to a session and its transport, then what follows from that.
    #[inline]
    fn act(&mut self, index: usize, action: impl FnOnce(&mut Slot<B::Socket>, &mut Context<'_>)) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        let mut cx = Context {
            rules: &self.rules,
            traffic: self.traffic,
            window: self.window,
            now_ns: self.now_ns,
            tally: &mut self.tally,
            codecs: &mut self.codecs,
            spares: &mut self.spares,
            fan: self.fan.as_deref_mut(),
        };
        let before = slot.session.stage();
        action(slot, &mut cx);
        let after = slot.session.stage();
        if before != after {
            match before {
                Stage::Pending => self.pending -= 1,
                Stage::Open => self.open -= 1,
                Stage::Closing | Stage::Ended => {}
            }
            self.open += u32::from(after == Stage::Open);
            if before == Stage::Pending {
                self.origin.came_up(after != Stage::Ended, self.now_ns);
            }
        }
        if after == Stage::Ended {
            self.retire(index);
        } else if !slot.queued && !slot.blocked && slot.wants_to_send(self.traffic) {
            slot.queued = true;
            self.ready.push_back(Key { index: index as u32, serial: slot.session.serial() });
        }
    }

    /// Frees an ended session's place, once the kernel has let go of it.
    fn retire(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        if !slot.is_armed() {
            let slot = self.slots.remove(index);
            self.backend.close(slot.socket);
        } else if !slot.shut {
            slot.shut = true;
            // What is over is over: a reset leaves no port behind in TIME_WAIT.
            self.backend.shutdown(&slot.socket, true);
        }
    }

    /// Looks for sessions that have waited for too long.
    fn sweep(&mut self) {
        self.sweep_ns = self.now_ns + SWEEP_NS;
        let (now_ns, rules) = (self.now_ns, &self.rules);
        let overdue = self.slots.iter().filter(|(_, slot)| slot.session.is_overdue(now_ns, rules));
        let overdue: Vec<usize> = overdue.map(|(index, _)| index).collect();
        for index in overdue {
            self.touch(index, Session::handle_timeout);
        }
        self.give_up_messages();
        let given_up = self.origin.give_up(self.now_ns, self.rules.timeout_ns);
        self.tally.counts.faults.add(Fault::NotUp, u64::from(given_up));
    }

    fn second_ns(&self) -> u64 {
        self.epoch_ns + (self.seconds + 1) * SECOND_NS
    }

    fn tell_second(&mut self) {
        let second = (self.now_ns - self.epoch_ns) / SECOND_NS - 1;
        self.seconds = second + 1;
        let parcel = self.parcel();
        self.tell(What::Second { second, open: self.open, pending: self.pending, parcel });
    }

    fn parcel(&mut self) -> Box<crate::tally::Parcel> {
        self.lost += self.tally.counts.lost;
        for (fault, why) in std::mem::take(&mut self.tally.reasons) {
            self.tell(What::Reason { fault, why });
        }
        let mut parcel = self.tally.take();
        parcel.fan = self.fan.as_mut().map(|fan| Box::new(fan.parcel()));
        Box::new(parcel)
    }

    fn tell(&self, what: What) {
        // Where nobody listens any more the process is about to end.
        let _ = self.notes.send(Note { worker: self.index, what });
    }

    fn clock(&self) -> u64 {
        self.backend.now().as_nanos() as u64
    }

    fn is_current(&self, key: Key) -> bool {
        self.slots.get(key.index as usize).is_some_and(|slot| slot.session.serial() == key.serial)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;

    #[test]
    fn a_session_takes_at_most_256_bytes_of_the_slab() {
        // With what hangs off it while it is up: the times of 64 small messages, and a pong that waits.
        assert!(size_of::<Slot<OwnedFd>>() <= 256, "{}", size_of::<Slot<OwnedFd>>());
    }
}
