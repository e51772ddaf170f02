//! One thread's part of a run: a backend, a slab of sessions, and the loop that drives them.
//!
//! Order of a turn: commands and what is due; frames for all sessions that want to send, as far as a turn goes; one
//! system call that sends them and waits; what was not taken whole; events; once in a while, time-outs.

mod events;
mod fanout;
mod origin;
mod roles;
mod sealed;

use std::{collections::VecDeque, io, sync::Arc, sync::mpsc::Sender, time::Duration};

use slab::Slab;
use tidegate_io::{Backend, Event, Remainder, Waker};
use tidegate_wire::{
    Limits,
    close::CloseCode,
    deflate::{CodecLimits, Codecs},
    message::Spares,
};

use self::origin::Origin;
use crate::{
    fanout::{Fan, FanRules, Seat},
    fault::Fault,
    link::{Begin, Command, Note, Orders, What},
    payload::{Fill, Payloads},
    plan::{Load, Plan, Scenario},
    random::Random,
    schedule::{Key, Schedule},
    session::{Context, Rules, Session, Stage, Staging, Traffic},
    switchboard::Switchboard,
    tally::{Tally, Window},
    trace::Playback,
    transport::Transport,
    visits::{Outgoing, Slot, Visits},
};

/// How often sessions are looked at for time-outs.
const SWEEP_NS: u64 = 100_000_000;
/// How often it is looked whether all is answered, after the end.
const DRAIN_NS: u64 = 5_000_000;
const SECOND_NS: u64 = 1_000_000_000;
/// Buffers kept for messages that do not lie in one receive buffer.
const SPARE_BYTES: usize = 4 << 20;
/// For sessions that look back at earlier messages, over all threads. Those beyond deflate each message for itself.
const TAKEOVER_BYTES: usize = 256 << 20;
/// How long an orderly close may take at most.
const CLOSE_TIMEOUT_NS: u64 = 2_000_000_000;

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

    /// The measured time begins or ends: what the kernel was asked for in it is counted.
    fn mark(&mut self) {
        let calls = self.backend.counters().system_calls;
        self.mark_ns = match self.calls_before.take() {
            None => {
                self.calls_before = Some(calls);
                self.window.until_ns
            }
            Some(before) => {
                self.tally.counts.system_calls += calls - before;
                u64::MAX
            }
        };
    }

    fn obey(&mut self, command: Command) {
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
    fn begin(&mut self, begin: &Begin) {
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
    fn stop(&mut self) {
        self.is_over = true;
        self.end_ns = self.end_ns.min(self.now_ns);
        self.window.until_ns = self.window.until_ns.min(self.end_ns);
        if self.calls_before.is_some() {
            self.mark();
        } else {
            self.mark_ns = u64::MAX;
        }
        self.schedule.end(self.end_ns);
        self.playback.end(self.end_ns);
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

    fn end_all(&mut self, end: fn(&mut Session, &mut Context<'_>)) {
        self.origin.stop();
        self.awaiting = Awaiting::Empty;
        let all: Vec<usize> = self.slots.iter().map(|(index, _)| index).collect();
        for index in all {
            self.touch(index, end);
        }
    }

    /// Ends all sessions that are not up, and begins no more.
    fn give_up(&mut self) {
        let pending = self.slots.iter().filter(|(_, slot)| slot.session.stage() == Stage::Pending);
        let pending: Vec<usize> = pending.map(|(index, _)| index).collect();
        let count = self.origin.stop() + pending.len() as u32;
        self.tally.counts.faults.add(Fault::NotUp, u64::from(count));
        for index in pending {
            self.touch(index, Session::cut);
        }
    }

    /// Whatever the clock says is to be done.
    fn start_what_is_due(&mut self) {
        while let Some(key) =
            self.schedule.poll_due(self.now_ns).or_else(|| self.playback.poll_due(self.now_ns))
        {
            let is_owed = if self.fan.is_some() {
                self.publish(key, Seat::owe)
            } else if self.is_current(key) {
                let mut is_owed = false;
                self.touch(key.index as usize, |session, cx| is_owed = session.owe(cx.now_ns));
                is_owed
            } else {
                // Of those that do not read no errors are counted.
                self.is_of_the_slow(key.serial)
            };
            // Its session was lost.
            if !is_owed {
                self.tally.fault(Fault::Unsent);
            }
        }
        // Those that were due before the end first.
        self.connect_what_is_due();
        if self.awaiting == Awaiting::Drained && self.now_ns >= self.end_ns && !self.is_over {
            self.stop();
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

    /// Frames for all sessions that want to send, as far as one turn goes.
    fn write_frames(&mut self) {
        self.visits.time_ns = self.clock();
        while !self.visits.is_full() {
            let Some(key) = self.ready.pop_front() else { break };
            let Some(slot) = self.slots.get_mut(key.index as usize) else { continue };
            if slot.session.serial() != key.serial {
                continue;
            }
            slot.queued = false;
            if slot.blocked || slot.shut {
                continue;
            }
            if let Transport::Sealed(_) = slot.transport {
                self.write_sealed(key.index as usize);
                continue;
            }
            let (session, time_ns) = (&slot.session, self.visits.time_ns);
            let (traffic, rules) = (self.traffic, &self.rules);
            self.visits.add(key.index as usize, |out| session.poll_transmit(out, traffic, time_ns, rules));
        }
    }

    /// After the system call: each session learns what was taken.
    fn settle(&mut self) {
        for remainder in self.remainders.drain(..) {
            self.visits.fall_short(&remainder);
        }
        let (list, time_ns) = (self.visits.take(), self.visits.time_ns);
        for visit in &list {
            if !visit.is_whole() {
                self.slots[visit.index].blocked = true;
            }
            match self.slots[visit.index].transport {
                Transport::Plain => {
                    self.touch(visit.index, |session, cx| session.handle_sent(visit.sent, time_ns, cx));
                }
                Transport::Sealed(_) => self.sealed_sent(visit.index, visit.sent),
            }
            if !visit.is_whole() {
                self.fell_short(visit.index, visit.errno);
            }
        }
        self.visits.reuse(list);
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

    /// Tells what is over.
    fn judge_progress(&mut self) {
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
        if self.awaiting == Awaiting::Settled && self.calls_before.is_some() {
            self.mark();
        }
        self.awaiting = Awaiting::Nothing;
        self.tell(what);
    }

    /// Whether all sessions were lost, and no others will come.
    fn is_deserted(&self) -> bool {
        self.slots.is_empty() && self.origin.is_done()
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

fn payloads(plan: &Plan) -> Payloads {
    let payloads = Payloads::new(plan.sizes, plan.kind, plan.seed).with_shares(&plan.shares);
    let payloads = match &plan.trace {
        Some(trace) => payloads.with_trace(Arc::clone(trace)),
        None => payloads,
    };
    if plan.fill == Fill::Random && plan.deflate.is_none() && plan.trace.is_none() {
        return payloads;
    }
    payloads.with_fill(plan.fill, plan.deflate.is_some())
}

fn rules(plan: &Plan) -> Rules {
    let payloads = payloads(plan);
    let (messages, code) = match plan.scenario {
        Scenario::Churn { messages, code } => (Some(messages), code),
        Scenario::Echo
        | Scenario::Idle
        | Scenario::Storm { .. }
        | Scenario::Slow { .. }
        | Scenario::Fanout(_)
        | Scenario::Replay => (None, 1000),
    };
    let is_closed = plan.load == Load::Closed || messages.is_some();
    let timeout_ns = plan.timeout.as_nanos() as u64;
    Rules {
        // A server may push what it likes where nothing is judged.
        limits: Limits { message_bytes: payloads.max().max(1 << 20), message_fragments: 1 << 16 },
        stamps: if is_closed && !payloads.tell_time() { plan.depth as usize } else { 0 },
        payloads,
        subprotocols: plan.subprotocols.clone(),
        offer: plan.deflate,
        timeout_ns,
        close_timeout_ns: timeout_ns.min(CLOSE_TIMEOUT_NS),
        close_code: CloseCode::new(code).unwrap_or(CloseCode::NORMAL),
        judges: !matches!(plan.scenario, Scenario::Idle | Scenario::Storm { .. }),
        messages,
        fanout: plan.scenario.fanout().map(|fanout| {
            let depth = (plan.load == Load::Closed).then_some(plan.depth);
            FanRules::new(fanout, depth, plan.seed)
        }),
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
