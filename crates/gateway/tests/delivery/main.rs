//! The promises of delivery over real sockets: publishers and subscribers of every kind, some of them slow, cut and coming
//! back, and a gateway that is started anew. All that they see goes to the hub's checker (`tidegate_hub::delivery`).
//!
//! `TIDEGATE_DELIVERY_SEED=7` plays one seed again, as far as sockets can. With the feature `planted-bugs` the gateway is built
//! with deliberate bugs, each of which must be caught.

// What was checked, where somebody asks with `--nocapture`.
#![allow(clippy::print_stdout)]

#[path = "../harness/mod.rs"]
mod harness;

mod ledger;
mod person;
#[cfg(feature = "planted-bugs")]
mod planted;
mod poller;
mod poster;
mod raw;
mod stream;
mod talker;
mod wire;
mod world;

use crate::{
    harness::gateway::Gateway,
    ledger::Failure,
    world::{Setup, World},
};

/// A seed that nobody had before, or the one that is asked for.
fn seed() -> u64 {
    let asked = std::env::var("TIDEGATE_DELIVERY_SEED").ok().and_then(|seed| seed.parse().ok());
    asked.unwrap_or_else(|| getrandom::u64().expect("random bytes") >> 32)
}

fn describe(failure: &Failure) -> String {
    match failure {
        Failure::Broken(broken, story) => format!("{broken}\n{story}"),
        Failure::Wrong(what) => what.clone(),
    }
}

fn keeps_its_promises(io: &str, shards: &str) {
    let seed = seed();
    println!("{io}, {shards} shards: TIDEGATE_DELIVERY_SEED={seed}");
    let setup = Setup { io, shards, seed, lives: 3, publications: 2_000, floods: 1 };
    let start = |config: &str, arguments: &[&str]| Gateway::start_with(config, arguments);
    let mut world = World::new(setup, &start);
    let summary = world.run().unwrap_or_else(|failure| panic!("seed {seed}: {}", describe(&failure)));
    let counts = &world.ledger.counts;
    println!("{summary:?}\n{counts:?}");
    // A history in which nothing happened keeps every promise.
    assert!(summary.published > 4_000 && summary.receipts > 15_000, "{summary:?}");
    assert!(summary.recovered > 0 && summary.not_recovered > 0, "{summary:?}");
    assert!(summary.gaps > 0 && summary.conflated > 0 && summary.converged > 0, "{summary:?}");
    assert!(counts.raw > 0 && counts.by_events > 0 && counts.by_polls > 0, "{counts:?}");
    assert!(counts.too_slow > 0, "{counts:?}");
    assert!(counts.cuts > 0 && counts.restarts == 2, "{counts:?}");
}

#[test]
fn promises_are_kept_on_uring_by_one_shard() {
    keeps_its_promises("uring", "1");
}

#[test]
fn promises_are_kept_on_uring_by_three_shards() {
    keeps_its_promises("uring", "3");
}

#[test]
fn promises_are_kept_on_epoll_by_one_shard() {
    keeps_its_promises("epoll", "1");
}

#[test]
fn promises_are_kept_on_epoll_by_three_shards() {
    keeps_its_promises("epoll", "3");
}

/// What switches deliberate bugs on is not in the program that users run.
#[cfg(not(feature = "planted-bugs"))]
#[test]
fn no_bug_can_be_switched_on() {
    let program = std::fs::read(harness::gateway::binary()).expect("the binary");
    let switch = [b"TIDEGATE_PLANTED".as_slice(), b"_BUG"].concat();
    assert!(!program.windows(switch.len()).any(|window| window == switch));
}
