//! HUP, and what the control plane asks for: the configuration is read again, judged whole, and given to the shards; or nothing
//! changes and it is told why. Routes and upstreams are drained here, too, so that no reload comes between.
//!
//! One thread does it, one after the other, so that reading files and waiting for shards holds up no signal.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use tidegate_config::{Config, Problem};
use tidegate_control::{
    Gateway, Meant, NotTaken, Operations, Outcome, RouteNames, Taken,
    api::{DrainRequest, RouteChange},
    changed_routes,
};
use tidegate_shard::{
    Answers, Changes, Departure, Generation, Mail, Pace, Plan, RouteId, Whom, report::Reply,
};
use tidegate_tls::ServerConfig;
use tracing::{error, info, warn};

use crate::{
    arguments::{ConfigArguments, NoConfig},
    logs::Log,
    notify::Notify,
    outbound::Outbound,
    paths,
    resolver::Resolver,
    secure::{self, Before, Secured},
    shards::Shards,
};

/// How long a shard may take to say that it has a generation, before that is told.
const ADOPTION: Duration = Duration::from_secs(10);

/// How often it is looked meanwhile whether the gateway ends.
const LOOK: Duration = Duration::from_millis(50);

/// How long the end of the gateway waits for a reload that is under way.
const LAST: Duration = Duration::from_millis(500);

/// Most routes that a reload names in the log, one a line.
const ROUTES: usize = 20;

/// The generation that is in force. Clones are the same.
#[derive(Clone)]
pub(crate) struct Current {
    plan: Arc<Mutex<Arc<Plan>>>,
    ends: Arc<AtomicBool>,
}

impl Current {
    pub(crate) fn new(plan: &Arc<Plan>) -> Self {
        Self { plan: Arc::new(Mutex::new(Arc::clone(plan))), ends: Arc::default() }
    }

    pub(crate) fn plan(&self) -> Arc<Plan> {
        Arc::clone(&self.plan.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, plan: &Arc<Plan>) {
        *self.plan.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(plan);
    }

    /// From now on the gateway ends: there is no other generation.
    pub(crate) fn end(&self) {
        self.ends.store(true, Ordering::Release);
    }

    fn ends(&self) -> bool {
        self.ends.load(Ordering::Acquire)
    }
}

/// What a reload works with.
pub(crate) struct Reload {
    pub(crate) arguments: ConfigArguments,
    pub(crate) log: Arc<Log>,
    pub(crate) notify: Notify,
    pub(crate) shards: Arc<Shards>,
    pub(crate) current: Current,
    pub(crate) servers: Vec<Option<ServerConfig>>,
    pub(crate) resolver: Resolver,
    pub(crate) outbound: Outbound,
    /// As logs and the control plane name routes.
    pub(crate) names: RouteNames,
    /// What the control plane shows, where there is one.
    pub(crate) gateway: Option<Arc<Gateway>>,
}

/// What is to be done, and who is told how it went.
enum Wish {
    Reload(Option<Reply<Outcome>>),
    Drain(DrainRequest, Reply<Meant>),
}

/// The way to ask for reloads and drains.
#[derive(Clone)]
pub(crate) struct Reloads(Sender<Wish>);

impl Reloads {
    /// Asks for a reload.
    pub(crate) fn ask(&self) {
        self.send(Wish::Reload(None));
    }

    /// The same for the control plane.
    pub(crate) fn operations(&self) -> Operations {
        let (reloads, drains) = (self.clone(), self.clone());
        Operations {
            reload: Box::new(move |reply| reloads.send(Wish::Reload(Some(reply)))),
            drain: Box::new(move |request, reply| drains.send(Wish::Drain(request, reply))),
        }
    }

    fn send(&self, wish: Wish) {
        // Where the thread has ended, so has the gateway.
        let _ = self.0.send(wish);
    }
}

/// The thread that reloads; it ends when nobody can ask any more, and gives what it worked with.
pub(crate) struct Reloading(Receiver<Reload>);

impl Reloading {
    /// Waits a little for its end, once all [`Reloads`] are gone. Where it hangs in a file system, it is left behind: what it would
    /// find there is for nobody any more.
    pub(crate) fn end(self) {
        match self.0.recv_timeout(LAST) {
            Ok(reload) => {
                reload.resolver.stop();
                reload.outbound.stop();
            }
            Err(RecvTimeoutError::Timeout) => {
                warn!("a reload is left behind that has not come to an end: its files cannot be had");
            }
            // It panicked, which was told.
            Err(RecvTimeoutError::Disconnected) => {}
        }
    }
}

impl Reload {
    /// Begins to reload whenever it is asked to.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub(crate) fn start(self) -> io::Result<(Reloads, Reloading)> {
        let (ask, wishes) = channel();
        let (give, ended) = channel();
        let run = move || {
            // Where it was left behind, nobody wants it.
            let _ = give.send(self.run(&wishes));
        };
        thread::Builder::new().name("reload".to_owned()).spawn(run)?;
        Ok((Reloads(ask), Reloading(ended)))
    }

    fn run(mut self, wishes: &Receiver<Wish>) -> Self {
        while let Ok(first) = wishes.recv() {
            let (mut reloads, mut drains) = (Vec::new(), Vec::new());
            for wish in std::iter::once(first).chain(wishes.try_iter()) {
                match wish {
                    // Those that came meanwhile want the same file to be read.
                    Wish::Reload(reply) => reloads.push(reply),
                    Wish::Drain(request, reply) => drains.push((request, reply)),
                }
            }
            if !reloads.is_empty() {
                self.notify.reloading();
                let reloaded = self.reload();
                self.notify.ready();
                for reply in reloads.into_iter().flatten() {
                    reply.tell(reloaded.clone());
                }
            }
            for (request, reply) in drains {
                reply.tell(self.drain(&request));
            }
        }
        self
    }

    fn reload(&mut self) -> Outcome {
        let begun = Instant::now();
        let before = self.current.plan();
        let prepared = if self.current.ends() { Err(ends().into()) } else { self.prepare(&before) };
        // Files may have been waited for.
        let prepared =
            prepared.and_then(|new| if self.current.ends() { Err(ends().into()) } else { Ok(new) });
        let Prepared { plan, servers, waiting } = match prepared {
            Ok(prepared) => prepared,
            Err(refused) => {
                let generation = before.generation();
                let why = self.tell(&refused);
                error!(generation, "the configuration is not taken over, and the one of before stays: {why}");
                return Err(NotTaken { generation, why, problems: refused.problems() });
            }
        };
        // Before the first line about a session of a route that has come: of those that had its number nobody is left.
        self.names.adopt(&plan);
        if let Some(gateway) = &self.gateway {
            gateway.expect(Arc::clone(&plan));
        }
        self.current.set(&plan);
        self.servers = servers;
        let answers = Answers::default();
        let servers = self.servers.clone().into();
        let letter = Generation { plan: Arc::clone(&plan), servers, answers: answers.clone() };
        self.shards.order(|| Mail::Plan(letter.clone()));
        let mut adopted = false;
        // Shards that have ended answer nobody.
        while !adopted && !self.current.ends() && begun.elapsed() < ADOPTION {
            adopted = answers.wait(self.shards.count(), LOOK);
        }
        if let Some(gateway) = &self.gateway {
            gateway.adopt(secure::certificates(plan.config(), SystemTime::now()), plan.generation());
            // All else of it waits for a restart.
            if plan.config().admin != before.config().admin {
                info!("the admin listener wants another token from now on");
            }
        }
        if let Err(error) = self.resolver.go_on(&plan, &self.shards) {
            warn!("names of upstreams are resolved as before: no thread can be started: {error}");
        }
        if let Err(error) = self.outbound.go_on(&plan) {
            warn!("neither key sets nor hooks can be asked for: no thread can be started: {error}");
        }
        let generation = plan.generation();
        self.log.warnings(&plan.config().warnings);
        waiting.iter().for_each(|what| warn!("configuration: {what}"));
        for what in plan.forget_drains() {
            info!(what, "no longer drained, as the configuration does not have it any more");
        }
        let taken = Taken {
            generation,
            adopted,
            changes: plan.changes_since(&before),
            settings: plan.config().differences(before.config()),
            waiting,
            warnings: plan.config().warnings.clone(),
        };
        self.tell_taken(&taken, begun.elapsed(), answers.sessions());
        Ok(taken)
    }

    /// Logs what has changed: who sends HUP is told nowhere else.
    fn tell_taken(&self, taken: &Taken, took: Duration, asked_to_go: usize) {
        let Taken { generation, changes, settings, .. } = taken;
        let routes = changed_routes(changes, &self.names);
        let (told, rest) = routes.split_at(routes.len().min(ROUTES));
        for RouteChange { route, change } in told {
            info!(generation, route, "route {change}");
        }
        if !rest.is_empty() {
            info!(generation, routes = rest.len(), "more routes have changed");
        }
        let Changes { added, changed, replaced, removed, left: _ } = changes;
        let [added, replaced] = [added.len(), replaced.len()];
        let [changed, removed] = [changed.len(), removed.len()];
        let settings = (!settings.is_empty()).then(|| settings.join(", "));
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        if taken.adopted {
            info!(
                generation,
                took_ms, added, changed, replaced, removed, settings, asked_to_go, "configuration taken over"
            );
        } else {
            warn!(
                generation,
                took_ms,
                added,
                changed,
                replaced,
                removed,
                settings,
                asked_to_go,
                "configuration given to the shards, but not all of them have answered yet"
            );
        }
    }

    /// All that can fail, and changes nothing.
    fn prepare(&self, before: &Plan) -> Result<Prepared, Refused> {
        let mut config: Config = self.arguments.config().map_err(|error| match error {
            NoConfig::Invalid(problems) => Refused::File(problems),
            NoConfig::Usage(usage) => Refused::Usage(usage),
        })?;
        // Also where they would only wait for a restart: that would fail.
        let problems = paths::problems(&mut config, self.arguments.file(), Some(before.config()));
        if !problems.is_empty() {
            return Err(Refused::File(problems));
        }
        let mut succession = before.config().succeeded_by(config).map_err(Refused::Running)?;
        let present = Before { config: before.config(), servers: &self.servers };
        let Secured { servers, clients } =
            secure::secure(&mut succession.config, Some(present), SystemTime::now())
                .map_err(Refused::File)?;
        let next = before.next_with_clients(succession.config, &clients);
        let plan = next.map_err(|error| error.to_string())?;
        Ok(Prepared { plan, servers, waiting: succession.waiting })
    }

    /// Logs why a configuration is not taken over; gives it in a sentence.
    fn tell(&self, refused: &Refused) -> String {
        match refused {
            Refused::File(problems) => {
                self.log.problems(problems);
                problems.first().map_or_else(String::new, Problem::headline)
            }
            Refused::Usage(usage) => {
                self.log.usage(usage);
                "it does not fit the arguments".to_owned()
            }
            Refused::Running(sentences) => sentences.join("; "),
        }
    }

    /// Drains what is meant, or ends that.
    fn drain(&self, request: &DrainRequest) -> Meant {
        if self.current.ends() {
            return Err(ends());
        }
        let DrainRequest { what, keep, undo } = request;
        let plan = self.current.plan();
        let mut whom = plan.named(what);
        if whom.is_empty() {
            // One of several with the same path, as the control plane tells them apart.
            whom.extend(self.names.present_number(what).map(|number| Whom::Route(RouteId(number))));
        }
        if whom.is_empty() {
            return Err(format!("there is no route and no upstream {what:?}: tidegate status"));
        }
        plan.set_drained(&whom, !undo);
        let pace = Pace::of_some(&plan.config().drain);
        for whom in whom.iter().copied() {
            self.shards.order(|| match (undo, keep) {
                (true, _) => Mail::Readmit(whom),
                (false, true) => Mail::Withhold(whom),
                (false, false) => Mail::Depart(Departure { whom, pace: pace.clone() }),
            });
        }
        match undo {
            true => info!(what, "no longer drained"),
            false => info!(what, keep, "drained"),
        }
        Ok(whom)
    }
}

/// What can be taken over.
struct Prepared {
    plan: Arc<Plan>,
    servers: Vec<Option<ServerConfig>>,
    /// What waits for a restart.
    waiting: Vec<String>,
}

/// Why a configuration is not taken over.
enum Refused {
    /// It has these problems.
    File(Vec<Problem>),
    /// It does not fit the arguments.
    Usage(clap::Error),
    /// It cannot take the place of the one that runs: each reason in a sentence.
    Running(Vec<String>),
}

impl From<String> for Refused {
    fn from(sentence: String) -> Self {
        Self::Running(vec![sentence])
    }
}

impl Refused {
    fn problems(self) -> Vec<Problem> {
        match self {
            Self::File(problems) => problems,
            Self::Usage(_) | Self::Running(_) => Vec::new(),
        }
    }
}

fn ends() -> String {
    "the gateway ends".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_that_hangs_does_not_hold_the_end_up() {
        let (hangs, ended) = channel();
        let begun = Instant::now();
        Reloading(ended).end();
        assert!(begun.elapsed() < 20 * LAST, "{:?}", begun.elapsed());
        drop::<Sender<Reload>>(hangs);
    }
}
