//! One run from its start to its end: tells the workers what to do, and gathers what they tell.

mod fanout;
mod results;
mod seconds;

use std::{
    io::{self, Write},
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::Duration,
};

use rustix::{
    process::getpid,
    time::{ClockId, clock_gettime},
};
use tidegate_io::{Epoll, EpollOptions, Kind, Uring, UringOptions, choose};

use self::seconds::Seconds;
use crate::{
    link::{Begin, Command, Failure, Note, Orders, What},
    live::Live,
    part::Parts,
    plan::{Load, Plan, Scenario},
    processes::{CpuTimes, Look, Servers, memory_bytes, slab_bytes},
    report::{Point, Report, Storm},
    signals,
    switchboard::Switchboard,
    tally::{Parcel, Tally},
    worker::Worker,
};

/// Receive buffers of a worker: they are only lent while their bytes are read.
const BUFFERS: u32 = 512;
/// How long the server is given to come to rest before its memory is looked at.
const REST: Duration = Duration::from_millis(300);
/// How long after an interruption answers are waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// Reasons that are told.
const MOST_REASONS: usize = 8;

/// A run that has ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) report: Report,
    /// The signal that ended it early.
    pub(crate) signal: Option<i32>,
    /// Which of its processes died, and how.
    pub(crate) death: Option<String>,
}

/// What the workers are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    Started,
    Settled,
    /// In `fanout`: when messages begin is known.
    Met,
    Drained,
    Empty,
    Ended,
    /// Nothing but the time.
    Never,
}

/// A worker, as the director knows it.
#[derive(Debug, Default)]
struct Crew {
    thread: Option<i32>,
    /// Its process has ended before it had.
    is_dead: bool,
    /// The last goal that it has reached.
    reached: Option<Goal>,
    open: u32,
    /// Sessions that it had lost when all were up.
    lost: u64,
    last_up_ns: u64,
    /// In `fanout`: its subscribers, by topic.
    audience: Vec<u32>,
}

/// What was used up to some time.
#[derive(Debug, Default)]
struct Sample {
    at_ns: u64,
    server: Look,
    generator: CpuTimes,
}

/// One run.
#[derive(Debug)]
pub(crate) struct Director {
    plan: Arc<Plan>,
    kind: Kind,
    crew: Vec<Crew>,
    parts: Parts,
    death: Option<String>,
    switchboard: Arc<Switchboard>,
    notes: Receiver<Note>,
    /// Kept, so that `notes` never ends.
    sender: Sender<Note>,
    servers: Servers,
    /// Reasons that were told.
    reasons: Vec<String>,
    live: Live,
    seconds: Seconds,
    tally: Tally,
    epoch_ns: u64,
    signal: Option<i32>,
    /// Before the first session, at the start and the end of the measured time.
    before: Look,
    start: Sample,
    end: Sample,
    /// The length of the measured time, where it was as long as planned.
    window_ns: Option<u64>,
    /// When all were up.
    up: Look,
    at_start: u32,
    storms: Vec<Storm>,
    points: Vec<Point>,
    memory_bytes: Option<u64>,
}

/// The clock of the backends, in nanoseconds.
fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32).as_nanos() as u64
}

/// How to talk to the kernel.
///
/// # Errors
/// Where what was asked for does not work here.
pub(crate) fn choose_backend(plan: &Plan) -> Result<Kind, Failure> {
    Ok(choose(plan.io).map_err(|refused| Failure(refused.to_string()))?.kind)
}

/// Starts a worker on a thread of its own.
///
/// # Errors
/// Where the system refuses.
pub(crate) fn start_worker(
    kind: Kind,
    index: usize,
    plan: &Arc<Plan>,
    notes: &Sender<Note>,
    switchboard: &Arc<Switchboard>,
    epoch_ns: u64,
) -> Result<(), Failure> {
    let (plan, notes, board) = (Arc::clone(plan), notes.clone(), Arc::clone(switchboard));
    let work = move || {
        let (tell, orders) = (notes.clone(), Orders::default());
        let _alarm = Alarm { worker: index, notes: notes.clone() };
        let result = match kind {
            Kind::Uring => Uring::new(&UringOptions { buffers: BUFFERS, ..UringOptions::default() })
                .and_then(|uring| Worker::new(index, plan, uring, orders, notes, board, epoch_ns).run()),
            Kind::Epoll => Epoll::new(&EpollOptions { buffers: BUFFERS })
                .and_then(|epoll| Worker::new(index, plan, epoll, orders, notes, board, epoch_ns).run()),
        };
        if let Err(error) = result {
            let failure = Failure(format!("{kind}: {error}"));
            // The director has ended: there is nobody to tell.
            let _ = tell.send(Note { worker: index, what: What::Failed(failure) });
        }
    };
    thread::Builder::new()
        .name(format!("load-{index}"))
        .spawn(work)
        .map_err(failed("cannot start a thread"))?;
    Ok(())
}

/// Tells of a thread that panics: without it all others would be waited for, for ever.
struct Alarm {
    worker: usize,
    notes: Sender<Note>,
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if thread::panicking() {
            let what = What::Failed(Failure(format!("thread {} has panicked", self.worker)));
            // The director has ended: there is nobody to tell.
            let _ = self.notes.send(Note { worker: self.worker, what });
        }
    }
}

/// A failure of the system, in words.
fn failed(what: &str) -> impl Fn(io::Error) -> Failure {
    move |error| Failure(format!("{what}: {error}"))
}

impl Director {
    /// A run that is about to start.
    ///
    /// # Errors
    /// Where the plan cannot be carried out here.
    pub(crate) fn new(plan: Plan) -> Result<Self, Failure> {
        let kind = choose_backend(&plan)?;
        let servers = Servers::new(&plan.pids)
            .map_err(|(pid, error)| Failure(format!("--pid {pid}: cannot look at this process: {error}")))?;
        let (sender, notes) = mpsc::channel();
        signals::watch(sender.clone()).map_err(failed("cannot watch for signals"))?;
        let epoch_ns = now_ns();
        Ok(Self {
            kind,
            crew: Vec::new(),
            parts: Parts::default(),
            death: None,
            switchboard: Arc::default(),
            notes,
            sender,
            live: Live::new(&plan),
            seconds: Seconds::new(plan.threads as usize, epoch_ns, servers.look()),
            before: servers.look(),
            up: Look::default(),
            servers,
            reasons: Vec::new(),
            tally: Tally::new(),
            epoch_ns,
            signal: None,
            start: Sample::default(),
            end: Sample::default(),
            window_ns: None,
            at_start: 0,
            storms: Vec::new(),
            points: Vec::new(),
            memory_bytes: None,
            plan: Arc::new(plan),
        })
    }

    /// Carries it out.
    ///
    /// # Errors
    /// Where a worker cannot go on.
    pub(crate) fn run(mut self) -> Result<Outcome, Failure> {
        self.crew = (0..self.plan.threads).map(|_| Crew::default()).collect();
        if self.plan.processes > 1 {
            self.parts = Parts::start(&self.plan, self.epoch_ns, &self.sender, &self.switchboard)
                .map_err(failed("cannot start a process"))?;
        } else {
            for index in 0..self.plan.threads as usize {
                let (sender, switchboard) = (&self.sender, &self.switchboard);
                start_worker(self.kind, index, &self.plan, sender, switchboard, self.epoch_ns)?;
            }
        }
        if !self.wait(Goal::Started, None)? {
            // Nothing has begun.
            return Err(Failure(self.death.take().unwrap_or_else(|| "interrupted".into())));
        }
        match self.plan.scenario {
            Scenario::Echo | Scenario::Slow { .. } | Scenario::Replay => self.echo()?,
            Scenario::Churn { .. } => self.messages()?,
            Scenario::Idle => self.idle()?,
            Scenario::Storm { again } => self.storm(again)?,
            Scenario::Fanout(fanout) => self.fanout(fanout)?,
        }
        let own = std::iter::once(getpid()).chain(self.parts.pids());
        self.memory_bytes = Some(own.filter_map(|pid| memory_bytes(pid).ok()).sum());
        self.live.phase("closing");
        self.order(|_| Command::Close);
        self.wait(Goal::Empty, None)?;
        self.order(|_| Command::Quit);
        self.wait(Goal::Ended, None)?;
        self.live.end();
        let (signal, death) = (self.signal, self.death.clone());
        Ok(Outcome { report: self.report(), signal, death })
    }

    /// Sessions that are up, then their messages.
    fn echo(&mut self) -> Result<(), Failure> {
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
    fn messages(&mut self) -> Result<(), Failure> {
        let begin = self.begin_at(now_ns());
        self.carry_out(begin)
    }

    /// A time of messages from then on.
    fn begin_at(&self, start_ns: u64) -> Begin {
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
    fn carry_out(&mut self, begin: Begin) -> Result<(), Failure> {
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
        let is_whole = !self.is_cut_short() && self.end.at_ns >= end_ns;
        self.window_ns = is_whole.then(|| end_ns - measured_ns);
        if self.is_cut_short() {
            self.order(|_| Command::Stop);
        }
        if goes_on {
            self.live.phase("draining");
            let until_ns = self.is_cut_short().then(|| now_ns() + PATIENCE.as_nanos() as u64);
            self.wait(Goal::Drained, until_ns)?;
        }
        Ok(())
    }

    /// Sessions that come up in quarters, and are held.
    fn idle(&mut self) -> Result<(), Failure> {
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
        Ok(())
    }

    /// All sessions as fast as they can, once and again.
    fn storm(&mut self, again: u32) -> Result<(), Failure> {
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
        }
        self.end = self.sample();
        self.up = self.end.server.clone();
        self.at_start = self.open();
        Ok(())
    }

    /// Brings `to` sessions up, of which `from` have been asked for.
    fn connect(&mut self, from: u32, to: u32) -> Result<(), Failure> {
        let plan = Arc::clone(&self.plan);
        self.live.connect(plan.connections);
        self.order(|index| Command::Connect { more: plan.sessions(to, index) - plan.sessions(from, index) });
        Ok(())
    }

    fn order(&mut self, command: impl Fn(u32) -> Command) {
        for (index, crew) in self.crew.iter_mut().enumerate() {
            let command = command(index as u32);
            // What comes of these two is what an earlier command asked for.
            if !matches!(command, Command::Stop | Command::GiveUp) {
                crew.reached = None;
            }
            // One that has died is not waited for.
            let _ = self.switchboard.send(index, command);
        }
    }

    fn open(&self) -> u32 {
        self.crew.iter().map(|crew| crew.open).sum()
    }

    /// What was used so far.
    fn sample(&self) -> Sample {
        let threads: Vec<i32> = self.crew.iter().filter_map(|crew| crew.thread).collect();
        Sample {
            at_ns: now_ns(),
            server: self.servers.look(),
            generator: self
                .parts
                .pids()
                .fold(CpuTimes::of(getpid()).unwrap_or_default(), |all, pid| {
                    all.and(CpuTimes::of(pid).unwrap_or_default())
                })
                .only(&threads),
        }
    }

    /// Takes notes until all workers have reached the goal (then it is true), that time has come, or the run is
    /// interrupted for the first time.
    fn wait(&mut self, goal: Goal, until_ns: Option<u64>) -> Result<bool, Failure> {
        loop {
            if goal != Goal::Never && self.crew.iter().all(|crew| crew.is_dead || crew.reached == Some(goal))
            {
                return Ok(true);
            }
            let note = match until_ns {
                None => self.notes.recv().ok(),
                Some(until_ns) => {
                    let left = Duration::from_nanos(until_ns.saturating_sub(now_ns()));
                    match self.notes.recv_timeout(left) {
                        Ok(note) => Some(note),
                        Err(RecvTimeoutError::Timeout) => return Ok(false),
                        Err(RecvTimeoutError::Disconnected) => None,
                    }
                }
            };
            let note = note.ok_or_else(|| Failure("all threads have ended".into()))?;
            if let What::Interrupted(signal) = note.what {
                self.signal = Some(signal);
                return Ok(false);
            }
            if let What::Gone = note.what {
                if self.bury(note.worker) {
                    return Ok(false);
                }
                continue;
            }
            self.take(note)?;
        }
    }

    /// A worker's process has ended; whether that is news, and ends the run.
    fn bury(&mut self, worker: usize) -> bool {
        let crew = &mut self.crew[worker];
        if crew.is_dead || crew.reached == Some(Goal::Ended) {
            return false;
        }
        crew.is_dead = true;
        crew.open = 0;
        self.seconds.retire(worker);
        let is_first = self.death.is_none();
        if is_first {
            self.death = Some(self.parts.obituary(&self.plan, worker));
        }
        is_first
    }

    /// Whether the run is to end with what there is.
    fn is_cut_short(&self) -> bool {
        self.signal.is_some() || self.death.is_some()
    }

    fn take(&mut self, note: Note) -> Result<(), Failure> {
        let crew = &mut self.crew[note.worker];
        match note.what {
            What::Started { thread } => {
                crew.thread = Some(thread);
                crew.reached = Some(Goal::Started);
            }
            What::Mail { to, letters } => self.relay(to, letters),
            What::Settled { open, lost, last_up_ns, audience } => {
                crew.audience = audience;
                crew.open = open;
                crew.lost = lost;
                crew.last_up_ns = last_up_ns;
                crew.reached = Some(Goal::Settled);
            }
            What::Met => crew.reached = Some(Goal::Met),
            What::Drained => crew.reached = Some(Goal::Drained),
            What::Empty => crew.reached = Some(Goal::Empty),
            What::Ended { parcel } => {
                crew.reached = Some(Goal::Ended);
                self.tally.merge(&parcel);
            }
            What::Second { second, open, pending, parcel } => {
                self.second(note.worker, second, open, pending, &parcel);
            }
            What::Reason(reason) => self.tell_reason(reason),
            What::Failed(failure) => return Err(failure),
            What::Interrupted(signal) => self.signal = Some(signal),
            What::Gone => {
                self.bury(note.worker);
            }
        }
        Ok(())
    }

    /// Tells a reason once.
    fn tell_reason(&mut self, reason: String) {
        if self.reasons.len() < MOST_REASONS && !self.reasons.contains(&reason) {
            self.live.end();
            // Where nobody reads, there is nobody to be told.
            let _ = writeln!(io::stderr(), "tidegate-loadtest: {reason}");
            self.reasons.push(reason);
        }
    }

    fn second(&mut self, worker: usize, second: u64, open: u32, pending: u32, parcel: &Parcel) {
        self.tally.merge(parcel);
        self.seconds.add(worker, second, open, pending, parcel);
        while let Some(told) = self.seconds.poll_whole(self.live.phase_name(), now_ns(), &self.servers) {
            self.live.show(told, &self.tally.counts.faults, now_ns());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_panics_is_told_of() {
        let (sender, notes) = mpsc::channel();
        for panics in [false, true] {
            let alarm = Alarm { worker: 3, notes: sender.clone() };
            let work = move || {
                let _alarm = alarm;
                assert!(!panics, "on purpose");
            };
            assert_eq!(thread::spawn(work).join().is_err(), panics);
        }
        let note = notes.try_recv().unwrap();
        assert!(note.worker == 3 && matches!(note.what, What::Failed(_)) && notes.try_recv().is_err());
    }
}
