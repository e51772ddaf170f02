//! `tidegate run`: from a configuration to running shards, and to their end.
//!
//! Order of the start: limits, backend, sockets; then a thread for each shard, which makes its backend; when all have
//! one, they get their listeners. What fails, fails before the first connection is accepted.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, SystemTime},
};

use rustix::process::Resource;
use tidegate_config::{Action, Bind, Config, IoChoice, Page, SESSION_TAKEOVER_BYTES};
use tidegate_control::{Gateway, RouteNames};
use tidegate_io::{Backend, Choice, Epoll, EpollOptions, Kind, ListenerId, Uring, Waker, choose};
use tidegate_shard::{self as shard, EndBarrier, Mail, Plan, Shard, mailbox, report::Cell};
use tidegate_tls::ServerConfig;
use tracing::{debug, error, info, warn};

use crate::{
    Outcome,
    arguments::{ConfigArguments, NoConfig, RunArguments},
    cores::{self, Cores},
    fault::{Fault, NoBackend},
    journal::{Journal, Surroundings},
    limits::{self, Lockable},
    listeners::{AdminSocket, Listeners},
    logs::{self, Log},
    notify::{Notify, Watchdog},
    outbound::{Errands, Outbound, Waiting},
    paths,
    plane::Plane,
    reload::{Current, Reload, Reloading},
    resolver::Resolver,
    secure::{self, Secured},
    shards::Shards,
    signals::{self, Concerned},
};

/// The kernel gives back what a ring was charged for some time after its end: the self-test's, and those of a gateway
/// that this one takes over from. So often is waited for that, before the rings get shorter queues.
const RING_PAUSES: u32 = 3;
const RING_PAUSE: Duration = Duration::from_millis(100);

/// Runs the gateway until it is told to end.
pub(crate) fn run(arguments: &RunArguments) -> Outcome {
    let config = arguments.config.config().and_then(|config| {
        // Before the log is opened, which may be one of them.
        match paths::clashes(&config, arguments.config.file()) {
            clashes if clashes.is_empty() => Ok(config),
            clashes => Err(NoConfig::Invalid(clashes)),
        }
    });
    // What is wrong with a configuration is told where the arguments say.
    let settings =
        config.as_ref().map_or_else(|_| tidegate_config::Log::default(), |config| config.log.clone());
    // Dropped last, it waits for what this function logs.
    let (log, _writer) = match logs::begin(&arguments.log, &settings) {
        Ok(begun) => begun,
        Err(error) => {
            logs::print_missing(&error);
            return Outcome::Fault;
        }
    };
    let mut config = match config {
        Ok(config) => config,
        Err(NoConfig::Invalid(problems)) => {
            log.problems(&problems);
            return Outcome::BadConfig;
        }
        Err(NoConfig::Usage(usage)) => {
            log.usage(&usage);
            return Outcome::Usage;
        }
    };
    let secured = match secure::secure(&mut config, None, SystemTime::now()) {
        Ok(secured) => secured,
        Err(problems) => {
            log.problems(&problems);
            return Outcome::BadConfig;
        }
    };
    log.warnings(&config.warnings);
    let log = Arc::new(log);
    match serve(config, secured, &arguments.config, &log) {
        Ok(()) => Outcome::Clean,
        Err(fault) => {
            error!("{fault}");
            Outcome::Fault
        }
    }
}

fn serve(config: Config, secured: Secured, arguments: &ConfigArguments, log: &Arc<Log>) -> Result<(), Fault> {
    let Secured { servers, clients } = secured;
    info!(version = env!("CARGO_PKG_VERSION"), "tidegate starts");
    let caught = signals::catch(arguments.file().is_some())
        .map_err(|error| Fault::System("signals cannot be caught", error))?;
    let cores = Cores::look().map_err(|error| Fault::System("the cores are not known", error))?;
    let count = cores.shards(&config);
    let descriptors = limits::raise(Resource::Nofile);
    let sessions = limits::sessions(&config, count, descriptors).map_err(Fault::Descriptors)?;
    if sessions.lowered {
        let (limit, sessions) = (descriptors, sessions.count);
        warn!(limit, sessions, "the limit of descriptors allows fewer sessions than the default");
    }
    let lockable = Lockable::raise();
    warn_of_takeover(&config, count);

    let choice = match config.io {
        IoChoice::Auto => Choice::Auto,
        IoChoice::Uring => Choice::Uring,
        IoChoice::Epoll => Choice::Epoll,
    };
    let chosen = choose(choice).map_err(Fault::Backend)?;
    info!(backend = %chosen.kind, reason = chosen.reason, "backend chosen");

    let write_timeout = Duration::from_millis(config.limits.write_timeout_ms);
    let mut listeners = Listeners::open(&config.listeners, count, write_timeout).map_err(Fault::Bind)?;

    let admin = config.admin.as_ref().map(|admin| AdminSocket::open(admin, write_timeout));
    let admin = admin.transpose().map_err(Fault::Bind)?;
    let accounts = admin.is_some() || config.log.sessions == Some(true);
    let cells = accounts.then(|| (0..count).map(|_| Arc::default()).collect());

    let plan = Plan::with_clients(config, count, &clients);
    let names = RouteNames::new(&plan);
    let journal = Journal::start(plan.config(), &names, log.lost())
        .map_err(|error| Fault::System("no thread can be started", error))?;
    let (errands, waiting) = Errands::new();
    let start = Start {
        plan: &plan,
        errands: &errands,
        journal: &journal,
        cores: &cores,
        count,
        sessions: sessions.count,
        lockable,
        cells,
    };
    info!(shards = count, sessions = sessions.count, pinned = cores.pins(count).is_some(), "shards start");
    let mut kind = chosen.kind;
    let started = match chosen.kind {
        Kind::Epoll => start.epoll(),
        Kind::Uring => start.uring().or_else(|fault| match fault {
            // The self-test has a small ring; the shards' may be more than the process may have.
            Fault::Open(error) if choice == Choice::Auto => {
                warn!(backend = %Kind::Epoll, reason = %error, "backend changed");
                kind = Kind::Epoll;
                start.epoll()
            }
            fault => Err(fault),
        }),
    };
    let result = started.and_then(|threads| {
        let plane = match admin {
            Some(socket) => {
                let started =
                    Plane::start(socket, &plan, &threads.shards, &start, kind, names.clone(), log.lost());
                match started {
                    Ok(plane) => Some(plane),
                    Err(error) => {
                        return threads.fail(Fault::System("the admin listener cannot be started", error));
                    }
                }
            }
            None => None,
        };
        let result = threads.go(&mut listeners, &servers, &plan).and_then(|running| {
            let gateway = plane.as_ref().map(Plane::gateway);
            if let Some(gateway) = &gateway {
                gateway.set_ready();
            }
            let errands = (errands.clone(), waiting);
            running.supervise(Supervision {
                plan: &plan,
                caught,
                arguments,
                log,
                servers,
                names,
                gateway,
                errands,
            })
        });
        // As long as sessions are closing, somebody may want to see that.
        if let Some(plane) = plane {
            plane.stop();
        }
        result
    });
    journal.finish();
    if result.is_ok() {
        info!("tidegate has ended");
    }
    result
}

/// The budget for context takeover is divided over shards, whose number the configuration need not know.
fn warn_of_takeover(config: &Config, shards: usize) {
    let takeover = config.routes.iter().any(|route| match &route.action {
        Action::Echo(echo) => echo.context_takeover,
        Action::Proxy(proxy) => proxy.context_takeover,
        Action::Page(_) | Action::Topics(_) | Action::Events(_) | Action::Poll(_) | Action::Publish(_) => {
            false
        }
    });
    let each = config.limits.takeover_bytes / shards;
    if takeover && each < SESSION_TAKEOVER_BYTES {
        let needed = SESSION_TAKEOVER_BYTES * shards;
        warn!(
            shards,
            each, "context takeover is never agreed to: takeover_bytes would have to be at least {needed}"
        );
    }
}

/// What is looked after while shards run.
struct Supervision<'a> {
    plan: &'a Arc<Plan>,
    caught: signals::Caught,
    arguments: &'a ConfigArguments,
    log: &'a Arc<Log>,
    servers: Vec<Option<ServerConfig>>,
    names: RouteNames,
    gateway: Option<Arc<Gateway>>,
    errands: (Errands, Waiting),
}

/// What a shard's thread is given to begin with.
pub(crate) struct Start<'a> {
    plan: &'a Arc<Plan>,
    errands: &'a Errands,
    journal: &'a Journal,
    cores: &'a Cores,
    count: usize,
    sessions: usize,
    lockable: Lockable,
    /// Where the shards leave their numbers, where they count by session.
    cells: Option<Vec<Arc<Cell>>>,
}

impl Start<'_> {
    /// Where the shards leave their numbers.
    pub(crate) fn cells(&self) -> &[Arc<Cell>] {
        self.cells.as_deref().unwrap_or_default()
    }
}

/// Threads that have a backend each, and wait for their listeners.
struct Threads {
    threads: Vec<JoinHandle<()>>,
    shards: Arc<Shards>,
    /// The way to each thread of what it waits for.
    go: Vec<Sender<Beginning>>,
    reports: Receiver<Report>,
}

/// What a shard's thread begins with, once all of them have a backend.
struct Beginning {
    listeners: Vec<OwnedFd>,
    /// For each of them what its TLS needs.
    servers: Vec<Option<ServerConfig>>,
    /// The ways into all shards.
    peers: Vec<shard::Sender<Waker>>,
    /// Where they wait for each other at the end.
    barrier: EndBarrier,
}

/// What a shard's thread has to say.
enum Report {
    /// Its backend stands.
    Ready(u16, shard::Sender<Waker>),
    /// It has none.
    NoBackend(u16, io::Error),
    /// It accepts.
    Listening,
    /// It has ended, or has not begun.
    Ended(u16, io::Result<()>),
    /// Its thread unwinds.
    Panicked(u16),
}

impl Start<'_> {
    fn epoll(&self) -> Result<Threads, Fault> {
        let options = EpollOptions { buffers: self.plan.config().limits.receive_buffers };
        self.threads(Kind::Epoll, (0, None), move || Epoll::new(&options))
    }

    /// Rings with queues as long as may be. What is charged for them is only known by trying: it depends on the
    /// kernel, and on what other processes of this user have.
    fn uring(&self) -> Result<Threads, Fault> {
        let config = self.plan.config();
        let mut entries = self.lockable.entries(config, self.count);
        let mut pauses = 0;
        loop {
            let options = limits::ring(config, entries);
            let locked = (limits::ring_bytes(config, self.count, entries), self.lockable.bytes());
            match self.threads(Kind::Uring, locked, move || Uring::new(&options)) {
                Err(Fault::Open(error)) if error.source.kind() == io::ErrorKind::OutOfMemory => {
                    if pauses < RING_PAUSES {
                        pauses += 1;
                        thread::sleep(RING_PAUSE);
                        continue;
                    }
                    let Some(fewer) = limits::fewer_entries(entries) else { return Err(Fault::Open(error)) };
                    info!(entries = fewer, "the rings get shorter queues: {}", error.source);
                    entries = fewer;
                }
                result => return result,
            }
        }
    }

    /// A thread for each shard, each with a backend.
    fn threads<B>(
        &self,
        kind: Kind,
        locked: (u64, Option<u64>),
        open: impl Fn() -> io::Result<B> + Clone + Send + 'static,
    ) -> Result<Threads, Fault>
    where
        B: Backend<Socket = OwnedFd, Listener = OwnedFd, Waker = Waker> + 'static,
    {
        let pins = self.cores.pins(self.count);
        let (reporter, reports) = mpsc::channel();
        let (mut threads, mut go) = (Vec::new(), Vec::new());
        for index in 0..self.count {
            let id = u16::try_from(index).expect("the configuration bounds the shards");
            let core = pins.map(|pins| pins[index]);
            let (give, begin) = mpsc::channel();
            let thread = ShardThread {
                id,
                core,
                plan: Arc::clone(self.plan),
                surroundings: self.journal.surroundings(id, self.errands),
                // The first shards take what does not divide.
                sessions: self.sessions / self.count + usize::from(index < self.sessions % self.count),
                begin,
                cell: self.cells().get(index).cloned(),
            };
            let (open, reporter) = (open.clone(), reporter.clone());
            let body = move || {
                let guard = Guard { id, reporter };
                thread.run(open, &guard.reporter);
            };
            let spawned = thread::Builder::new().name(format!("shard-{id}")).spawn(body);
            threads.push(spawned.map_err(|error| Fault::System("no thread can be started", error))?);
            go.push(give);
        }
        drop(reporter);
        let mut senders = Vec::new();
        for report in reports.iter().take(self.count) {
            match report {
                Report::Ready(id, sender) => senders.push((id, sender)),
                Report::NoBackend(shard, source) => {
                    drop(go);
                    threads.into_iter().for_each(|thread| drop(thread.join()));
                    return Err(Fault::Open(NoBackend { shard, kind, source, locked }));
                }
                Report::Panicked(id) => return Err(Fault::Panicked(id)),
                Report::Listening | Report::Ended(..) => unreachable!("a shard has no listeners yet"),
            }
        }
        senders.sort_by_key(|(id, _)| *id);
        let shards = Arc::new(Shards::new(senders.into_iter().map(|(_, sender)| sender).collect()));
        Ok(Threads { threads, shards, go, reports })
    }
}

/// Reports a thread that unwinds: in debug builds, as a release aborts. The rest would go on without it.
struct Guard {
    id: u16,
    reporter: Sender<Report>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if thread::panicking() {
            // Nobody listens any more where the gateway has ended.
            let _ = self.reporter.send(Report::Panicked(self.id));
        }
    }
}

/// One shard's thread.
struct ShardThread {
    id: u16,
    core: Option<usize>,
    plan: Arc<Plan>,
    surroundings: Surroundings,
    sessions: usize,
    begin: Receiver<Beginning>,
    cell: Option<Arc<Cell>>,
}

impl ShardThread {
    /// Makes the backend on this thread, which is the only one that may use it; then waits for the listeners.
    fn run<B>(self, open: impl Fn() -> io::Result<B>, reporter: &Sender<Report>)
    where
        B: Backend<Socket = OwnedFd, Listener = OwnedFd, Waker = Waker>,
    {
        let id = self.id;
        // That nobody listens to reports any more means that the start has failed elsewhere.
        let report = |report| drop(reporter.send(report));
        if let Some(core) = self.core
            && let Err(error) = cores::pin(core)
        {
            warn!(shard = id, core, "the shard is not pinned: {error}");
        }
        let backend = match open() {
            Ok(backend) => backend,
            Err(error) => return report(Report::NoBackend(id, error)),
        };
        let (sender, mailbox) = mailbox(backend.waker());
        report(Report::Ready(id, sender));
        let Ok(Beginning { listeners, servers, peers, barrier }) = self.begin.recv() else { return };
        let mut shard = Shard::new(id, backend, self.surroundings, self.plan, mailbox, self.sessions);
        shard.meet(peers);
        shard.end_with(barrier);
        if let Some(cell) = self.cell {
            shard.account_to(cell);
        }
        let result = serve_shard(shard, listeners.into_iter().zip(servers), || report(Report::Listening));
        report(Report::Ended(id, result));
    }
}

fn serve_shard<B, E>(
    mut shard: Shard<B, E>,
    listeners: impl Iterator<Item = (OwnedFd, Option<ServerConfig>)>,
    listening: impl Fn(),
) -> io::Result<()>
where
    B: Backend<Socket = OwnedFd, Listener = OwnedFd>,
    E: shard::Environment,
{
    for (id, (listener, server)) in (0..=u8::MAX).zip(listeners) {
        match server {
            Some(server) => shard.listen_tls(ListenerId(id), listener, server)?,
            None => shard.listen(ListenerId(id), listener)?,
        }
    }
    listening();
    shard.run()?;
    debug!("{:?}", shard.counters());
    if let Some(counts) = shard.topic_counts() {
        debug!("topics: {counts:?}");
    }
    Ok(())
}

impl Threads {
    /// Ends threads that have no listeners yet.
    fn fail<T>(self, fault: Fault) -> Result<T, Fault> {
        drop(self.go);
        self.threads.into_iter().for_each(|thread| drop(thread.join()));
        Err(fault)
    }

    /// Gives each shard its listeners, and waits until all accept.
    fn go(
        self,
        listeners: &mut Listeners,
        servers: &[Option<ServerConfig>],
        plan: &Plan,
    ) -> Result<Running, Fault> {
        let Self { threads, shards, go, reports } = self;
        let barrier = EndBarrier::new(shards.count());
        for (give, listeners) in go.iter().zip(listeners.shards.drain(..)) {
            let (servers, peers, barrier) = (servers.to_vec(), shards.ways().to_vec(), barrier.clone());
            // A thread that is gone has reported why.
            let _ = give.send(Beginning { listeners, servers, peers, barrier });
        }
        let mut running = Running { threads, shards, reports, ended: 0 };
        for _ in 0..running.threads.len() {
            match running.reports.recv() {
                Ok(Report::Listening) => {}
                Ok(Report::Ended(id, result)) => {
                    running.ended += 1;
                    let error = result.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into());
                    return running.fail(Fault::Shard(id, error));
                }
                Ok(Report::Panicked(id)) => return running.fail(Fault::Panicked(id)),
                Ok(Report::Ready(..) | Report::NoBackend(..)) | Err(_) => {
                    unreachable!("each thread reports in this order, and ends with a report")
                }
            }
        }
        let has_page = plan.config().routes.iter().any(|route| route.action == Action::Page(Page::Index));
        for ((bound, server), listener) in listeners.bound.iter().zip(servers).zip(&plan.config().listeners) {
            let s = if server.is_some() { "s" } else { "" };
            match bound {
                Bind::Tcp(address) if listener.https_redirect.is_some() => {
                    info!("listening on http://{address} (which only redirects to https://)");
                }
                Bind::Tcp(address) if has_page => {
                    info!(
                        "listening on ws{s}://{address} (there is a page for browsers: http{s}://{address}/)"
                    );
                }
                Bind::Tcp(address) => info!("listening on ws{s}://{address}"),
                Bind::Unix(path) if server.is_some() => {
                    info!("listening on unix:{} (TLS)", path.display());
                }
                Bind::Unix(path) => info!("listening on unix:{}", path.display()),
            }
        }
        Ok(running)
    }
}

/// Shards at work.
struct Running {
    threads: Vec<JoinHandle<()>>,
    shards: Arc<Shards>,
    reports: Receiver<Report>,
    /// Shards that have reported their end.
    ended: usize,
}

impl Running {
    /// Resolves names, reloads and looks after signals until all shards have ended.
    fn supervise(mut self, supervision: Supervision<'_>) -> Result<(), Fault> {
        let notify = Notify::from_environment();
        let gateway = supervision.gateway.clone();
        let begun = self.look_after(supervision, &notify);
        let (watch, reloading, watchdog) = match begun {
            Ok(begun) => begun,
            Err(error) => return self.fail(Fault::System("no thread can be started", error)),
        };
        notify.ready();
        while self.ended < self.threads.len() {
            match self.reports.recv() {
                Ok(Report::Ended(_, Ok(()))) => self.ended += 1,
                Ok(Report::Ended(id, Err(error))) => {
                    self.ended += 1;
                    return self.fail(Fault::Shard(id, error));
                }
                Ok(Report::Panicked(id)) => return self.fail(Fault::Panicked(id)),
                Ok(Report::Ready(..) | Report::NoBackend(..) | Report::Listening) | Err(_) => {
                    unreachable!("each thread reports in this order, and ends with a report")
                }
            }
        }
        // With them go the last who could ask for a reload.
        watch.end();
        if let Some(gateway) = gateway {
            gateway.set_operations(None);
        }
        reloading.end();
        if let Some(watchdog) = watchdog {
            watchdog.end();
        }
        self.threads.into_iter().for_each(|thread| drop(thread.join()));
        Ok(())
    }

    /// The threads beside those of shards.
    fn look_after(
        &self,
        supervision: Supervision<'_>,
        notify: &Notify,
    ) -> io::Result<(signals::Watch, Reloading, Option<Watchdog>)> {
        let Supervision { plan, caught, arguments, log, servers, names, gateway, errands } = supervision;
        let current = Current::new(plan);
        let reload = Reload {
            arguments: arguments.clone(),
            log: Arc::clone(log),
            notify: notify.clone(),
            shards: Arc::clone(&self.shards),
            current: current.clone(),
            servers,
            resolver: Resolver::start(plan, &self.shards)?,
            outbound: Outbound::start(errands, plan, &self.shards)?,
            names,
            gateway,
        };
        let gateway = reload.gateway.clone();
        let (reloads, reloading) = reload.start()?;
        if let Some(gateway) = gateway {
            gateway.set_operations(Some(reloads.operations()));
        }
        let watchdog = Watchdog::start(notify, &self.shards)?;
        let shards = Arc::clone(&self.shards);
        let watch = caught.watch(Concerned { shards, current, reloads, notify: notify.clone() })?;
        Ok((watch, reloading, watchdog))
    }

    /// Ends all shards: one alone would leave its part of the connections to time out.
    fn fail<T>(self, fault: Fault) -> Result<T, Fault> {
        self.shards.order(|| Mail::Stop);
        self.threads.into_iter().for_each(|thread| drop(thread.join()));
        Err(fault)
    }
}
