//! Names of upstreams: resolved on threads of their own, again and again, and told to the shards.
//!
//! getaddrinfo(3) blocks for as long as name servers do not answer. Each thread has some of the names, so that one that
//! hangs does not hold up all; a thread that hangs at the end of the process is left behind.

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, ToSocketAddrs},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use tidegate_io::Address;
use tidegate_shard::{Addresses, Mail, NamedUpstream, Plan};
use tracing::{info, warn};

use crate::shards::Shards;

/// Most threads.
const THREADS: usize = 8;

/// The first wait after a failure; it doubles up to the interval.
const RETRY: Duration = Duration::from_secs(1);

/// The running resolver.
pub(crate) struct Resolver {
    stop: Arc<Stop>,
    names: Vec<Name>,
}

#[derive(Default)]
struct Stop {
    stopped: Mutex<bool>,
    bell: Condvar,
}

/// A name and all upstreams that have it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Name {
    host: String,
    port: u16,
    interval: Duration,
    /// Route and upstream, as the plan counts them.
    upstreams: Vec<(usize, usize)>,
    /// What an earlier generation has found out.
    known: Option<Vec<Address>>,
}

impl Name {
    /// Whether both are resolved alike, for the same upstreams.
    fn is(&self, other: &Self) -> bool {
        let what = |name: &Self| (name.host.clone(), name.port, name.interval, name.upstreams.clone());
        what(self) == what(other)
    }

    /// The addresses that are known, as they are compared with new ones.
    fn known(&self) -> Option<Vec<SocketAddr>> {
        let tcp = |address: &Address| match address {
            Address::Tcp(address) => Some(*address),
            Address::Unix(_) => None,
        };
        self.known.as_ref().map(|known| known.iter().filter_map(tcp).collect())
    }
}

/// What is known of a name.
struct State {
    name: Name,
    /// As last told; `None` before the first answer.
    known: Option<Vec<SocketAddr>>,
    failures: u32,
    due: Instant,
}

impl Resolver {
    /// Begins to resolve the names of a plan, if there are any.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub(crate) fn start(plan: &Arc<Plan>, shards: &Arc<Shards>) -> io::Result<Self> {
        Self::start_by(plan, shards, |name, run| thread::Builder::new().name(name).spawn(run).map(drop))
    }

    fn start_by(
        plan: &Arc<Plan>,
        shards: &Arc<Shards>,
        mut spawn: impl FnMut(String, Box<dyn FnOnce() + Send>) -> io::Result<()>,
    ) -> io::Result<Self> {
        let resolver = Self { stop: Arc::default(), names: names(plan) };
        let Self { stop, names } = &resolver;
        let threads = names.len().min(THREADS);
        for index in 0..threads {
            let own: Vec<Name> = names.iter().skip(index).step_by(threads).cloned().collect();
            let (plan, shards, stop) = (Arc::clone(plan), Arc::clone(shards), Arc::clone(stop));
            let run = Box::new(move || {
                let tell = |upstreams: &[(usize, usize)], addresses: &[SocketAddr]| {
                    for (route, upstream) in upstreams {
                        let addresses = addresses.iter().copied().map(Address::Tcp).collect();
                        plan.set_addresses(*route, *upstream, addresses);
                    }
                    shards.order(|| Mail::Resolved);
                };
                resolve_all(own, &stop, look_up, tell);
            });
            if let Err(error) = spawn(format!("resolver-{index}"), run) {
                // Those before it would go on for ever, beside whoever resolves these names instead.
                resolver.stop();
                return Err(error);
            }
        }
        Ok(resolver)
    }

    /// Goes on with the names of the next generation, where they are others.
    ///
    /// # Errors
    /// Where no thread can be started: then the names of before are resolved on.
    pub(crate) fn go_on(&mut self, plan: &Arc<Plan>, shards: &Arc<Shards>) -> io::Result<()> {
        let names = names(plan);
        let same = names.len() == self.names.len()
            && names.iter().zip(&self.names).all(|(one, other)| one.is(other));
        if !same {
            let next = Self::start(plan, shards)?;
            std::mem::replace(self, next).stop();
        }
        Ok(())
    }

    /// Ends it; look-ups that are under way are left behind.
    pub(crate) fn stop(self) {
        *self.stop.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.bell.notify_all();
    }
}

/// The plan's names, each once with all its upstreams and the shortest of their intervals.
fn names(plan: &Plan) -> Vec<Name> {
    let mut names = BTreeMap::<(String, u16), Name>::new();
    for NamedUpstream { route, upstream, host, port, interval_ms, known } in plan.names() {
        let interval = Duration::from_millis(interval_ms);
        let name = names.entry((host.clone(), port)).or_insert_with(|| Name {
            host,
            port,
            interval,
            upstreams: Vec::new(),
            known: known_of(&known),
        });
        name.interval = name.interval.min(interval);
        name.upstreams.push((route, upstream));
        // Where one of them does not have what the others have, all are to be told.
        if name.known != known_of(&known) {
            name.known = None;
        }
    }
    names.into_values().collect()
}

fn known_of(addresses: &Addresses) -> Option<Vec<Address>> {
    match addresses {
        Addresses::Known(addresses) => Some(addresses.clone()),
        Addresses::Unresolved => None,
    }
}

/// All addresses of a name, in the order of RFC 6724.
fn look_up(name: &Name) -> io::Result<Vec<SocketAddr>> {
    let addresses: Vec<SocketAddr> = (name.host.as_str(), name.port).to_socket_addrs()?.collect();
    if addresses.is_empty() {
        Err(io::Error::new(io::ErrorKind::NotFound, "no addresses"))
    } else {
        Ok(addresses)
    }
}

/// Resolves names whenever they are due, until the stop.
fn resolve_all(
    names: Vec<Name>,
    stop: &Stop,
    look_up: impl Fn(&Name) -> io::Result<Vec<SocketAddr>>,
    tell: impl Fn(&[(usize, usize)], &[SocketAddr]),
) {
    let begin = Instant::now();
    let mut states: Vec<State> =
        names.into_iter().map(|name| State { known: name.known(), name, failures: 0, due: begin }).collect();
    loop {
        for state in &mut states {
            if state.due <= Instant::now() {
                let answer = look_up(&state.name);
                if state.take(answer) == News::Tell {
                    tell(&state.name.upstreams, state.known.as_deref().unwrap_or_default());
                }
                state.due = Instant::now() + state.wait();
            }
        }
        let Some(next) = states.iter().map(|state| state.due).min() else { return };
        let stopped = stop.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = next.saturating_duration_since(Instant::now());
        let (stopped, _) = stop
            .bell
            .wait_timeout_while(stopped, wait, |stopped| !*stopped)
            .unwrap_or_else(PoisonError::into_inner);
        if *stopped {
            return;
        }
    }
}

/// Whether an answer changes what the shards know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    Tell,
    None,
}

impl State {
    /// Takes an answer in.
    fn take(&mut self, answer: io::Result<Vec<SocketAddr>>) -> News {
        let Name { host, .. } = &self.name;
        match answer {
            Ok(addresses) => {
                let failed = std::mem::take(&mut self.failures) > 0;
                // Name servers give the same addresses in turns; that is no news.
                let sorted = |addresses: &[SocketAddr]| {
                    let mut sorted = addresses.to_vec();
                    sorted.sort_unstable();
                    sorted
                };
                if self.known.as_ref().is_some_and(|known| sorted(known) == sorted(&addresses)) {
                    if failed {
                        info!(name = host, "upstream name resolves again");
                    }
                    return News::None;
                }
                let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                info!(name = host, addresses = list.join(", "), "upstream name resolved");
                self.known = Some(addresses);
                News::Tell
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                let kept = self.known.as_ref().map_or(0, Vec::len);
                if self.failures == 1 {
                    warn!(name = host, kept, %error, "upstream name cannot be resolved");
                }
                // Those who wait for a first answer get it; known addresses stay.
                if self.known.is_some() {
                    return News::None;
                }
                self.known = Some(Vec::new());
                News::Tell
            }
        }
    }

    /// Until the next look-up.
    fn wait(&self) -> Duration {
        let Name { interval, .. } = self.name;
        match self.failures {
            0 => interval,
            failures => RETRY.saturating_mul(1 << (failures - 1).min(16)).min(interval),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, collections::VecDeque};

    use super::*;

    const TEXT: &str = "version = 1\n[[listener]]\nbind = '127.0.0.1:0'\n\
        [[route]]\npath = '/a'\nproxy = { upstreams = ['ws://one.test', 'ws://10.0.0.1:1'], resolve_interval = '20s' }\n\
        [[route]]\npath = '/b'\nproxy = { upstreams = ['ws://two.test:81', 'ws://ONE.test.:80'] }\n";

    fn plan() -> Arc<Plan> {
        Plan::new(tidegate_config::parse(TEXT, "t.toml").unwrap(), 1)
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn state(interval: Duration) -> State {
        let name =
            Name { host: "one.test".to_owned(), port: 80, interval, upstreams: vec![(0, 0)], known: None };
        State { name, known: None, failures: 0, due: Instant::now() }
    }

    fn failure() -> io::Result<Vec<SocketAddr>> {
        Err(io::Error::other("no answer"))
    }

    #[test]
    fn where_one_thread_cannot_be_started_those_before_it_end() {
        let (shards, mut threads) = (Arc::new(Shards::new(Vec::new())), Vec::new());
        let started = Resolver::start_by(&plan(), &shards, |_, run| {
            if !threads.is_empty() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            threads.push(thread::spawn(run));
            Ok(())
        });
        assert!(started.is_err());
        let begun = Instant::now();
        while !threads[0].is_finished() {
            assert!(begun.elapsed() < Duration::from_secs(60), "it goes on beside those of before");
            thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_name_is_looked_up_once_for_all_its_upstreams() {
        let names = names(&plan());
        let brief: Vec<_> =
            names.iter().map(|name| (name.host.as_str(), name.port, &name.upstreams[..])).collect();
        assert_eq!(brief, [("one.test", 80, &[(0, 0), (1, 1)][..]), ("two.test", 81, &[(1, 0)][..])]);
        assert_eq!(names[0].interval, Duration::from_secs(20));
        assert_eq!(names[1].interval, Duration::from_secs(30));
    }

    #[test]
    fn only_news_are_told() {
        let (one, two) = (address("10.0.0.1:80"), address("10.0.0.2:80"));
        let mut state = state(Duration::from_secs(30));
        assert_eq!(state.take(Ok(vec![one, two])), News::Tell);
        assert_eq!(state.take(Ok(vec![two, one])), News::None, "another order is no news");
        assert_eq!(state.take(failure()), News::None);
        assert_eq!(state.known, Some(vec![one, two]), "known addresses stay");
        assert_eq!(state.take(Ok(vec![one, two])), News::None);
        assert_eq!(state.take(Ok(vec![two])), News::Tell);
        assert_eq!(state.known, Some(vec![two]));
    }

    #[test]
    fn who_waits_for_a_name_that_fails_is_told_at_once() {
        let mut state = state(Duration::from_secs(30));
        assert_eq!((state.take(failure()), state.known.as_deref()), (News::Tell, Some(&[][..])));
        assert_eq!(state.take(failure()), News::None);
        assert_eq!(state.take(Ok(vec![address("10.0.0.1:80")])), News::Tell);
    }

    #[test]
    fn failures_are_tried_again_sooner_and_ever_more_slowly() {
        let mut state = state(Duration::from_secs(30));
        assert_eq!(state.wait(), Duration::from_secs(30));
        let mut waits = Vec::new();
        for _ in 0..7 {
            state.take(failure());
            waits.push(state.wait().as_secs());
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
        state.failures = u32::MAX;
        assert_eq!(state.wait(), Duration::from_secs(30));
        state.take(Ok(vec![address("10.0.0.1:80")]));
        assert_eq!(state.wait(), Duration::from_secs(30));
    }

    #[test]
    fn names_are_resolved_again_until_the_stop() {
        let stop = Stop::default();
        let answers =
            RefCell::new(VecDeque::from([vec![address("10.0.0.1:80")], vec![address("10.0.0.2:80")]]));
        let told = RefCell::new(Vec::new());
        let name = Name {
            host: "one.test".to_owned(),
            port: 80,
            interval: Duration::from_millis(1),
            upstreams: vec![(0, 0), (1, 1)],
            known: None,
        };
        let look_up = |_: &Name| {
            let mut answers = answers.borrow_mut();
            if answers.len() == 1 {
                *stop.stopped.lock().unwrap() = true;
            }
            Ok(answers.pop_front().unwrap())
        };
        let tell = |upstreams: &[(usize, usize)], addresses: &[SocketAddr]| {
            told.borrow_mut().push((upstreams.to_vec(), addresses.to_vec()));
        };
        resolve_all(vec![name], &stop, look_up, tell);
        let expected =
            ["10.0.0.1:80", "10.0.0.2:80"].map(|text| (vec![(0, 0), (1, 1)], vec![address(text)])).to_vec();
        assert_eq!(told.into_inner(), expected);
    }

    #[test]
    fn this_machine_knows_itself() {
        let name = Name {
            host: "localhost".to_owned(),
            port: 9,
            interval: RETRY,
            upstreams: Vec::new(),
            known: None,
        };
        let addresses = look_up(&name).unwrap();
        assert!(
            addresses.iter().all(|address| address.ip().is_loopback() && address.port() == 9),
            "{addresses:?}"
        );
    }
}
