//! One run from its start to its end: tells the workers what to do, and gathers what they tell.

mod crew;
mod fanout;
mod results;
mod scenarios;
mod seconds;

use std::{
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender},
    },
    time::Duration,
};

use rustix::{
    process::getpid,
    time::{ClockId, clock_gettime},
};
use tidegate_io::Kind;

use self::{
    crew::{Crew, Goal},
    seconds::Seconds,
};
use crate::{
    fault::Fault,
    link::{Command, Failure, Note},
    live::Live,
    part::Parts,
    plan::{Plan, Scenario},
    processes::{CpuTimes, Look, Servers, memory_bytes},
    report::{Point, Report, Storm},
    signals,
    switchboard::Switchboard,
    tally::{Tally, Window},
    worker::{choose_backend, failed, start_worker},
};

/// A run that has ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) report: Report,
    /// The signal that ended it early.
    pub(crate) signal: Option<i32>,
    /// Which of its processes died, and how.
    pub(crate) death: Option<String>,
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
    reasons: Vec<(Fault, String)>,
    live: Live,
    seconds: Seconds,
    tally: Tally,
    epoch_ns: u64,
    signal: Option<i32>,
    /// Before the first session, at the start and the end of the measured time.
    before: Look,
    start: Sample,
    end: Sample,
    /// The measured time of messages, as it was asked for; up to the interruption, where there was one.
    window: Option<Window>,
    /// How long it had lasted when no session was left, where that was before its end.
    deserted_ns: Option<u64>,
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
            window: None,
            deserted_ns: None,
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
}
