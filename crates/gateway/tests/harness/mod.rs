//! What the tests that start the real binary share: the process, raw WebSocket peers on both sides, and deflate.
//!
//! Everything listens on a loopback port that the kernel chose, and every process is ended by its own id.

// Each test binary uses its own part of this module.
#![allow(dead_code)]

pub(crate) mod certificates;
pub(crate) mod client;
pub(crate) mod deflate;
pub(crate) mod frame;
pub(crate) mod gateway;
pub(crate) mod guarded;
pub(crate) mod inbox;
pub(crate) mod request;
pub(crate) mod scene;
pub(crate) mod secure;
pub(crate) mod tokens;
pub(crate) mod upstream;
pub(crate) mod web;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The backends that every behaviour must hold on.
pub(crate) const BACKENDS: [&str; 2] = ["uring", "epoll"];

/// How long anything that should happen "at once" may take on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `ready` gives something, at most [`PATIENCE`].
pub(crate) fn eventually<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(Instant::now() < until, "waited {PATIENCE:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Seconds since 1970, as tokens have them.
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// Descriptors for as many as possible; how many of `wanted` clients there can be, which is told where they are fewer.
#[allow(clippy::print_stderr)]
pub(crate) fn affordable(wanted: usize) -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current < maximum {
        // Where it stays as it is there are fewer.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
    let most = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    // Two tests may do so at once, in this process, and the gateway needs some for itself.
    let all = wanted.min(usize::try_from(most / 2).unwrap_or(usize::MAX).saturating_sub(200));
    assert!(all >= 100, "{most} descriptors are too few");
    if all < wanted {
        eprintln!("{all} clients in place of {wanted}: a process may have {most} descriptors");
    }
    all
}

/// Runs a test on each backend, on one shard and on three, so that most topics live on another one than their clients.
pub(crate) fn everywhere(config: &str, test: impl Fn(&gateway::Gateway)) {
    for io in BACKENDS {
        for shards in ["1", "3"] {
            let gateway = gateway::Gateway::start_with(config, &["--io", io, "--shards", shards]);
            test(&gateway);
            gateway.stop();
        }
    }
}
