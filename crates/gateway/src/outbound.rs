//! What the gateway itself asks over HTTP, on a thread of its own: key sets ([`keys`]) and hooks ([`hooks`]).
//!
//! Shards leave errands in a queue and never wait. Of each hook no more can be in it than may be under way, and of each key set one
//! wish, so that the queue has a bound.

mod hooks;
mod http;
mod keys;

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tidegate_config::TokenKeys;
use tidegate_identity::FetchedKeys;
use tidegate_shard::{Plan, Question};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tracing::error;

use self::{hooks::Hooks, http::HttpClient, keys::Fetchers};
use crate::shards::Shards;

/// Threads that wait for names at a time: getaddrinfo(3) blocks for as long as name servers do not answer.
const RESOLVING_THREADS: usize = 4;

/// What is to be done.
enum Errand {
    Ask(Box<Question>),
    Fetch(Arc<FetchedKeys>),
    Adopt(Arc<Plan>),
    End,
}

/// Where errands are left. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Errands(UnboundedSender<Errand>);

/// Where they are waiting.
pub(crate) struct Waiting(UnboundedReceiver<Errand>);

impl Errands {
    /// A new queue.
    pub(crate) fn new() -> (Self, Waiting) {
        let (sender, receiver) = unbounded_channel();
        (Self(sender), Waiting(receiver))
    }

    /// Has a hook asked.
    pub(crate) fn ask(&self, question: Question) {
        self.leave(Errand::Ask(Box::new(question)));
    }

    /// Has keys fetched.
    pub(crate) fn fetch(&self, keys: &Arc<FetchedKeys>) {
        self.leave(Errand::Fetch(Arc::clone(keys)));
    }

    fn leave(&self, errand: Errand) {
        // Whoever ran them has ended with the gateway.
        let _ = self.0.send(errand);
    }
}

/// The thread that runs errands, once a configuration has some.
pub(crate) struct Outbound {
    errands: Errands,
    /// Until the thread has it.
    waiting: Arc<Mutex<Option<Waiting>>>,
    is_running: bool,
    shards: Arc<Shards>,
}

impl Outbound {
    /// Begins to run errands where the plan has key sets or hooks.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub(crate) fn start(
        (errands, waiting): (Errands, Waiting),
        plan: &Arc<Plan>,
        shards: &Arc<Shards>,
    ) -> io::Result<Self> {
        let mut outbound = Self::new((errands, waiting), shards);
        outbound.go_on(plan)?;
        Ok(outbound)
    }

    fn new((errands, waiting): (Errands, Waiting), shards: &Arc<Shards>) -> Self {
        let waiting = Arc::new(Mutex::new(Some(waiting)));
        Self { errands, waiting, is_running: false, shards: Arc::clone(shards) }
    }

    /// Goes on with the next generation's.
    ///
    /// # Errors
    /// Where no thread can be started: the next generation tries it again.
    pub(crate) fn go_on(&mut self, plan: &Arc<Plan>) -> io::Result<()> {
        self.go_on_by(plan, |run| thread::Builder::new().name("outbound".to_owned()).spawn(run).map(drop))
    }

    fn go_on_by(
        &mut self,
        plan: &Arc<Plan>,
        spawn: impl FnOnce(Box<dyn FnOnce() + Send>) -> io::Result<()>,
    ) -> io::Result<()> {
        let is_asked = |keys: &TokenKeys| matches!(keys, TokenKeys::Url(_) | TokenKeys::Hook(_));
        let has_errands = plan.identities().iter().any(|identity| is_asked(&identity.rules().keys));
        if has_errands && !self.is_running {
            let (shards, waiting) = (Arc::clone(&self.shards), Arc::clone(&self.waiting));
            // The thread takes the queue itself: one that is not started leaves it where it is.
            spawn(Box::new(move || {
                let waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(waiting) = waiting {
                    run(waiting, &shards);
                }
            }))?;
            self.is_running = true;
        }
        if self.is_running {
            self.errands.leave(Errand::Adopt(Arc::clone(plan)));
        }
        Ok(())
    }

    /// Ends it; what is under way is left behind.
    pub(crate) fn stop(self) {
        self.errands.leave(Errand::End);
    }
}

fn run(mut waiting: Waiting, shards: &Arc<Shards>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(RESOLVING_THREADS)
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            error!("neither key sets nor hooks can be asked for: no runtime: {error}");
            return;
        }
    };
    runtime.block_on(async {
        let client = match HttpClient::new() {
            Ok(client) => client,
            Err(error) => {
                error!("neither key sets nor hooks can be asked for: {error}");
                return;
            }
        };
        let mut fetchers = Fetchers::new(client.clone());
        let hooks = Hooks::new(client, Arc::clone(shards));
        while let Some(errand) = waiting.0.recv().await {
            match errand {
                Errand::Ask(question) => hooks.ask(*question),
                Errand::Fetch(keys) => fetchers.hurry(&keys),
                Errand::Adopt(plan) => fetchers.adopt(&plan),
                Errand::End => break,
            }
        }
    });
    // A name that nobody resolves does not hold the end up.
    runtime.shutdown_background();
}

/// Seconds since 1970.
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// What is told again and again only now and then.
#[derive(Debug, Default)]
struct Sparing {
    told: Option<Instant>,
    left_out: u64,
}

impl Sparing {
    /// Whether to tell it now, and how often it was not told before.
    fn tell(&mut self, pause: Duration, now: Instant) -> Option<u64> {
        if self.told.is_some_and(|told| now.duration_since(told) < pause) {
            self.left_out += 1;
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_is_not_started_leaves_the_queue_to_the_next_try() {
        let text = "version = 1\n[[listener]]\nbind = '127.0.0.1:0'\n[[identity]]\nname = 'callers'\n\
                    hook = { url = 'http://127.0.0.1:1/' }\n[[route]]\npath = '/'\nidentity = 'callers'\necho = {}\n";
        let plan = Plan::new(tidegate_config::parse(text, "t.toml").unwrap(), 1);
        let mut outbound = Outbound::new(Errands::new(), &Arc::new(Shards::new(Vec::new())));
        let refused = outbound.go_on_by(&plan, |_| Err(io::ErrorKind::WouldBlock.into()));
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let mut thread = None;
        let spawn = |run| {
            thread = Some(run);
            Ok(())
        };
        outbound.go_on_by(&plan, spawn).unwrap();
        let run = thread.expect("it is tried again");
        outbound.stop();
        // It takes what waits, until the end that stands behind it.
        run();
    }

    #[test]
    fn what_comes_again_is_told_once_in_a_while_with_its_number() {
        let (begin, pause) = (Instant::now(), Duration::from_secs(5));
        let mut sparing = Sparing::default();
        let told =
            [0, 1, 4, 5, 6, 30].map(|seconds| sparing.tell(pause, begin + Duration::from_secs(seconds)));
        assert_eq!(told, [Some(0), None, None, Some(2), None, Some(1)]);
    }
}
