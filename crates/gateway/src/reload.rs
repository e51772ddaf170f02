//! HUP: the configuration is read again, judged whole, and given to the shards; or nothing changes and it is told why.
//!
//! One thread does it, one reload after the other, so that reading files and waiting for shards holds up no signal.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use tidegate_config::Config;
use tidegate_control::{Gateway, RouteNames};
use tidegate_shard::{Answers, Generation, Mail, Plan};
use tidegate_tls::ServerConfig;
use tracing::{error, info, warn};

use crate::{
    arguments::{ConfigArguments, NoConfig},
    logs::Log,
    notify::Notify,
    resolver::Resolver,
    secure::{self, Before, Secured},
    serve::Shards,
};

/// How long a shard may take to say that it has a generation, before that is told.
const ADOPTION: Duration = Duration::from_secs(10);

/// How often it is looked meanwhile whether the gateway ends.
const LOOK: Duration = Duration::from_millis(50);

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
    /// As logs and the control plane name routes.
    pub(crate) names: RouteNames,
    /// What the control plane shows, where there is one.
    pub(crate) gateway: Option<Arc<Gateway>>,
}

/// How a reload has ended: the generation that is in force now, or why it is the one of before.
pub(crate) type Reloaded = Result<u64, String>;

/// A wish for a reload, and who is told how it went.
type Wish = Option<Sender<Reloaded>>;

/// The way to ask for reloads.
#[derive(Clone)]
pub(crate) struct Reloads(Sender<Wish>);

impl Reloads {
    /// Asks for one.
    pub(crate) fn ask(&self) {
        // Where the thread has ended, so has the gateway.
        let _ = self.0.send(None);
    }
}

/// The thread that reloads; it ends when nobody can ask any more.
pub(crate) struct Reloading(JoinHandle<Reload>);

impl Reloading {
    /// Waits for its end, once all [`Reloads`] are gone.
    pub(crate) fn end(self) {
        // If it panicked, that was told.
        if let Ok(reload) = self.0.join() {
            reload.resolver.stop();
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
        let thread = thread::Builder::new().name("reload".to_owned()).spawn(move || self.run(&wishes))?;
        Ok((Reloads(ask), Reloading(thread)))
    }

    fn run(mut self, wishes: &Receiver<Wish>) -> Self {
        while let Ok(first) = wishes.recv() {
            // Those that came meanwhile want the same file to be read.
            let all: Vec<Wish> = std::iter::once(first).chain(wishes.try_iter()).collect();
            self.notify.reloading();
            let reloaded = self.reload();
            self.notify.ready();
            for wish in all.into_iter().flatten() {
                // Who has gone away does not want to know.
                let _ = wish.send(reloaded.clone());
            }
        }
        self
    }

    fn reload(&mut self) -> Reloaded {
        let begun = Instant::now();
        let before = self.current.plan();
        let (plan, servers, waiting) = match self.prepare(&before) {
            Ok(next) => next,
            Err(why) => {
                let generation = before.generation();
                error!(generation, "the configuration is not taken over, and the one of before stays: {why}");
                return Err(why);
            }
        };
        let answers = Answers::default();
        let letter =
            Generation { plan: Arc::clone(&plan), servers: servers.clone().into(), answers: answers.clone() };
        // Shards that have ended take no letters.
        let goes_on = || !self.current.ends() && begun.elapsed() < ADOPTION;
        self.shards.deliver(|| Mail::Plan(letter.clone()), goes_on);
        let mut adopted = false;
        while !adopted && goes_on() {
            adopted = answers.wait(self.shards.count(), LOOK);
        }
        self.current.set(&plan);
        self.servers = servers;
        self.names.adopt(&plan);
        if let Some(gateway) = &self.gateway {
            let certificates = secure::certificates(plan.config(), SystemTime::now());
            gateway.adopt(Arc::clone(&plan), certificates, plan.generation());
        }
        if let Err(error) = self.resolver.go_on(&plan, &self.shards) {
            warn!("names of upstreams are resolved as before: no thread can be started: {error}");
        }
        let generation = plan.generation();
        self.log.warnings(&plan.config().warnings);
        waiting.iter().for_each(|what| warn!("configuration: {what}"));
        let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        if adopted {
            info!(generation, took_ms, "configuration taken over");
        } else {
            warn!(
                generation,
                took_ms, "configuration given to the shards, but not all of them have answered yet"
            );
        }
        Ok(generation)
    }

    /// All that can fail, and changes nothing.
    #[expect(clippy::type_complexity, reason = "what one function gives to one other")]
    fn prepare(&self, before: &Plan) -> Result<(Arc<Plan>, Vec<Option<ServerConfig>>, Vec<String>), String> {
        let tell = |problems: Vec<tidegate_config::Problem>| {
            self.log.problems(&problems);
            problems.first().map_or_else(String::new, tidegate_config::Problem::headline)
        };
        let config: Config = self.arguments.config().map_err(|error| match error {
            NoConfig::Invalid(problems) => tell(problems),
            NoConfig::Usage(usage) => {
                self.log.usage(&usage);
                "it does not fit the arguments".to_owned()
            }
        })?;
        let mut succession = before.config().succeeded_by(config).map_err(|refused| refused.join("; "))?;
        let present = Before { config: before.config(), servers: &self.servers };
        let Secured { servers, clients } =
            secure::secure(&mut succession.config, Some(present), SystemTime::now()).map_err(tell)?;
        let next = before.next_with_clients(succession.config, &clients);
        let plan = next.map_err(|error| error.to_string())?;
        Ok((plan, servers, succession.waiting))
    }
}
