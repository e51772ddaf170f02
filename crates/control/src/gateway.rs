//! The gateway as the control plane knows it: its plan, the ways to its shards, and what they have said last.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use tidegate_shard::{
    Mail, Plan, RouteId, Whom,
    report::{Cell, Reply, Report},
};
use tokio::{sync::oneshot, time::timeout_at};

use crate::{names::RouteNames, operations::Operations, pulse::Pulse};

/// How long is waited for shards to say how they are: what they said before has to do beyond it.
const PATIENCE: Duration = Duration::from_millis(500);

/// The way to one shard.
pub struct ShardWay {
    /// Where it leaves its numbers.
    pub cell: Arc<Cell>,
    /// Leaves a letter with it; whether its mailbox had room.
    pub send: Box<dyn Fn(Mail) -> bool + Send + Sync>,
}

impl fmt::Debug for ShardWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardWay").finish_non_exhaustive()
    }
}

/// A certificate that is served.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The file that it was read from.
    pub file: String,
    /// Until when it is valid.
    pub not_after: SystemTime,
}

/// What there is to show and to tell.
pub struct Gateway {
    pub(crate) version: &'static str,
    pub(crate) backend: String,
    plan: ArcSwap<Plan>,
    pub(crate) names: RouteNames,
    pub(crate) shards: Vec<ShardWay>,
    certificates: ArcSwap<Vec<Certificate>>,
    pub(crate) pulses: Vec<Pulse>,
    pub(crate) started: SystemTime,
    ready: AtomicBool,
    generation: AtomicU64,
    lost_lines: Arc<AtomicU64>,
    /// Whom to ask for reloads and drains, as long as the gateway neither starts nor ends.
    operations: Mutex<Option<Operations>>,
}

impl Gateway {
    /// A gateway that is not ready yet; its shards in the order of their numbers.
    #[must_use]
    pub fn new(
        version: &'static str,
        backend: String,
        plan: Arc<Plan>,
        names: RouteNames,
        shards: Vec<ShardWay>,
        certificates: Vec<Certificate>,
        lost_lines: Arc<AtomicU64>,
    ) -> Self {
        Self {
            version,
            backend,
            names,
            plan: ArcSwap::new(plan),
            pulses: shards.iter().map(|_| Pulse::default()).collect(),
            shards,
            certificates: ArcSwap::from_pointee(certificates),
            started: SystemTime::now(),
            ready: AtomicBool::new(false),
            generation: AtomicU64::new(1),
            lost_lines,
            operations: Mutex::default(),
        }
    }

    /// All shards accept.
    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }

    /// Reloads and drains can be asked for; `None`: not any more.
    pub fn set_operations(&self, operations: Option<Operations>) {
        *self.operations() = operations;
    }

    pub(crate) fn operations(&self) -> MutexGuard<'_, Option<Operations>> {
        self.operations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another configuration is in force: the first has the number 1.
    pub fn adopt(&self, plan: Arc<Plan>, certificates: Vec<Certificate>, generation: u64) {
        self.names.adopt(&plan);
        self.plan.store(plan);
        self.certificates.store(Arc::new(certificates));
        self.generation.store(generation, Ordering::Relaxed);
    }

    pub(crate) fn plan(&self) -> Arc<Plan> {
        self.plan.load_full()
    }

    pub(crate) fn certificates(&self) -> Arc<Vec<Certificate>> {
        self.certificates.load_full()
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    pub(crate) fn is_started(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    pub(crate) fn lost_lines(&self) -> u64 {
        self.lost_lines.load(Ordering::Relaxed)
    }

    /// Whether some shard drains.
    pub(crate) fn is_draining(&self) -> bool {
        self.shards.iter().any(|shard| shard.cell.read().draining)
    }

    /// Whether somebody has drained all routes, each by itself or by all its upstreams.
    pub(crate) fn is_drained(&self) -> bool {
        let plan = self.plan();
        plan.numbered_routes().all(|(number, _)| plan.is_drained(Whom::Route(RouteId(number))))
    }

    /// What each shard says now; of one that does not answer in time, what it said last.
    pub(crate) async fn reports(&self) -> Vec<Report> {
        let answers: Vec<_> = self.shards.iter().map(|shard| shard.ask(Mail::Report)).collect();
        let until = tokio::time::Instant::now() + PATIENCE;
        for answer in answers {
            // A shard that has ended answers nobody.
            let _ = timeout_at(until, answer).await;
        }
        self.shards.iter().map(|shard| shard.cell.read()).collect()
    }
}

/// Sessions that a route has now.
pub(crate) fn reports_of_route(reports: &[Report], route: u16) -> u64 {
    let counts = reports.iter().filter_map(|report| report.routes.get(usize::from(route)));
    counts.map(|counts| counts.opened - counts.ended).sum()
}

/// Sessions that an upstream has now, those that are being made included.
pub(crate) fn reports_of_upstream(reports: &[Report], route: u16, upstream: u16) -> u64 {
    let states = reports.iter().flat_map(|report| &report.upstreams);
    let own = states.filter(|state| (state.route, state.upstream) == (route, upstream));
    own.map(|state| u64::from(state.legs)).sum()
}

impl ShardWay {
    /// Sends a letter that is answered; where it was not taken the answer fails at once.
    pub(crate) fn ask<T: Send + 'static>(
        &self,
        letter: impl FnOnce(Reply<T>) -> Mail,
    ) -> oneshot::Receiver<T> {
        let (tell, told) = oneshot::channel();
        // Nobody may wait for it any more.
        let reply = Reply::new(move |answer| drop(tell.send(answer)));
        // A letter that is not taken is dropped, and its answer with it.
        let _ = (self.send)(letter(reply));
        told
    }
}
