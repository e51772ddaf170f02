//! The simulator finds each bug that is planted in the shard (feature `planted-bugs`).
#![cfg(feature = "planted-bugs")]
#![allow(clippy::print_stdout, dead_code)]

#[path = "sim/mod.rs"]
mod sim;

use std::{sync::Mutex, thread};

use sim::{gateway, net::Trace, runner, topics, world::Outcome};
use tidegate_hub::{delivery::Violation, planted as hub};
use tidegate_shard::planted::{self, Bug};

/// Seeds within which a bug must be found.
const SEEDS: u64 = 200;

#[test]
fn each_planted_bug_is_found() {
    find(Bug::ALL, gateway::run);
}

#[test]
fn each_planted_bug_of_topics_is_found() {
    find(Bug::TOPICS, topics::run);
}

/// Where eight that do not read hold all the memory.
#[test]
fn each_planted_bug_of_relief_is_found() {
    find(Bug::RELIEF, |seed, _| {
        topics::relief::run(1 + seed as usize % 3, seed as usize % 8);
        Outcome::default()
    });
}

fn find(bugs: &[Bug], run: fn(u64, Trace) -> Outcome) {
    let next = Mutex::new(bugs.iter());
    let missed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let Some(&bug) = next.lock().expect("nobody panics with it").next() else { return };
                    if !is_found(bug, run) {
                        missed.lock().expect("nobody panics with it").push(bug);
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().expect("nobody panics with it");
    assert!(missed.is_empty(), "not found within {SEEDS} seeds: {missed:?}");
}

fn is_found(bug: Bug, run: fn(u64, Trace) -> Outcome) -> bool {
    let mut met = 0;
    for seed in 0..SEEDS {
        planted::set(Some(bug));
        let result = runner::attempt(seed, |seed| run(seed, Trace::Off));
        met += planted::met();
        planted::set(None);
        // Found is what fails with the bug and passes without it.
        if let Err(failure) = result
            && runner::attempt(seed, |seed| run(seed, Trace::Off)).is_ok()
        {
            println!("{bug:?}: seed {seed}: {}", failure.message);
            return true;
        }
    }
    println!("{bug:?}: not found, though its place was passed {met} times");
    false
}

/// Runs within which the checker must find a broken build, of as many deliveries as a run over sockets has.
const RUNS: u64 = 5;

/// The broken builds that the checker of deliveries is for, how often each strikes, and what is seen of it.
const BROKEN_BUILDS: [(hub::Bug, u64, &[Violation]); 5] = {
    use Violation::{FalseRecovery, Hole, NotConverged, NotTheNewest, Repeated, WrongGap};
    [
        (hub::Bug::DropDelivery, 10_000, &[Hole, WrongGap, FalseRecovery, NotConverged, NotTheNewest]),
        (hub::Bug::SwapTwo, 20, &[Hole, Repeated, FalseRecovery]),
        (hub::Bug::DeliverTwice, 1_000, &[Repeated]),
        (hub::Bug::ClaimRecovery, 1, &[FalseRecovery, Hole]),
        (hub::Bug::OffByOneAtEpoch, 1, &[Hole, WrongGap]),
    ]
};

#[test]
fn the_delivery_checker_finds_each_broken_build() {
    for (bug, times, fits) in BROKEN_BUILDS {
        let mut met = 0;
        let found = (0..RUNS).find_map(|seed| {
            hub::set_one_in(bug, times);
            let failure = runner::attempt(seed, |seed| topics::run_crowd(seed, Trace::Off)).err();
            met += hub::met();
            hub::set(None);
            failure
        });
        let failure =
            found.unwrap_or_else(|| panic!("{bug:?} was not found; its place was passed {met} times"));
        println!("{bug:?}: seed {}: {}", failure.seed, failure.message.lines().next().unwrap_or_default());
        let is_told =
            |violation: &Violation| failure.message.starts_with(&format!("{violation:?} at event "));
        assert!(fits.iter().any(is_told), "{bug:?} led to {}", failure.message);
    }
}

#[test]
fn without_a_bug_the_same_runs_keep_their_promises() {
    hub::set(None);
    for seed in 0..RUNS {
        let outcome = topics::run_crowd(seed, Trace::Off);
        let received = outcome.covered["topics: received"];
        println!("seed {seed}: {received} received");
        assert!(received > 20_000, "one in ten thousand must be met: {received}");
    }
}

/// The feature alone changes nothing: what fails above fails by its bug.
#[test]
fn no_planted_bug_no_failure() {
    planted::set(None);
    for seed in 0..20 {
        gateway::run(seed, Trace::Off);
        topics::run(seed, Trace::Off);
    }
}
