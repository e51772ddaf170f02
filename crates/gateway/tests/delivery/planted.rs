//! Deliberately broken builds over real sockets: each bug is caught within five runs.
//!
//! The program is the one that Cargo built beside this test, with its feature; never the one that users run.

use std::process::Command;

use tidegate_hub::{
    delivery::Violation,
    planted::{Bug, VARIABLE},
};

use crate::{
    describe,
    harness::gateway::{Gateway, config_file},
    ledger::Failure,
    seed,
    world::{Setup, World},
};

const RUNS: u64 = 5;

/// Starts the broken build with this bug, which strikes once in so many times where it is one that strikes now and then.
fn start(bug: Option<(Bug, u64)>) -> impl Fn(&str, &[&str]) -> Gateway {
    move |config, arguments| {
        let file = config_file(config);
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.arg("run").arg("-c").arg(file.path()).args(["--log", "json"]).args(arguments);
        if let Some((bug, times)) = bug {
            command.env(VARIABLE, format!("{bug:?}/{times}"));
        }
        Gateway::spawn(command, config.matches("[[listener]]").count(), Some(file))
    }
}

/// Runs with enough deliveries that one in ten thousand is met more than once.
fn setup<'s>(run: u64, seed: u64) -> Setup<'s> {
    let io = ["uring", "epoll"][run as usize % 2];
    let shards = ["1", "3"][run as usize / 2 % 2];
    Setup { io, shards, seed, lives: 2, publications: 6_000, floods: 0 }
}

/// The first failure that a bug leads to, and in which run.
fn hunt(bug: Bug, times: u64) -> Option<(u64, Failure)> {
    (0..RUNS).find_map(|run| {
        let seed = seed().wrapping_add(run);
        println!("{bug:?}, run {run}: TIDEGATE_DELIVERY_SEED={seed}");
        let start = start(Some((bug, times)));
        World::new(setup(run, seed), &start).run().err().map(|failure| (run, failure))
    })
}

fn is_caught(bug: Bug, times: u64, fits: &[Violation]) {
    let (run, failure) = hunt(bug, times).unwrap_or_else(|| panic!("{bug:?} was not caught in {RUNS} runs"));
    println!("{bug:?} was caught in run {run}: {}", describe(&failure));
    match &failure {
        Failure::Broken(broken, _) if fits.contains(&broken.violation) => {}
        Failure::Broken(..) | Failure::Wrong(_) => panic!("{bug:?} led to {}", describe(&failure)),
    }
}

/// What is seen of something that did not come.
const LOST: [Violation; 5] = [
    Violation::Hole,
    Violation::WrongGap,
    Violation::FalseRecovery,
    Violation::NotConverged,
    Violation::NotTheNewest,
];

#[test]
fn one_delivery_dropped_in_ten_thousand_is_caught() {
    is_caught(Bug::DropDelivery, 10_000, &LOST);
}

#[test]
fn one_publication_dropped_in_a_thousand_is_caught() {
    is_caught(Bug::DropOne, 1_000, &LOST);
}

#[test]
fn two_swapped_are_caught() {
    is_caught(Bug::SwapTwo, 20, &[Violation::Hole, Violation::Repeated, Violation::FalseRecovery]);
}

#[test]
fn one_delivered_twice_is_caught() {
    is_caught(Bug::DeliverTwice, 1_000, &[Violation::Repeated]);
}

#[test]
fn a_recovery_that_is_only_claimed_is_caught() {
    is_caught(Bug::ClaimRecovery, 1, &[Violation::FalseRecovery, Violation::Hole]);
}

#[test]
fn an_epoch_that_begins_one_off_is_caught() {
    is_caught(Bug::OffByOneAtEpoch, 1, &[Violation::Hole]);
}

#[test]
fn without_a_bug_the_same_build_keeps_its_promises() {
    for run in 0..4 {
        let seed = seed();
        println!("no bug: TIDEGATE_DELIVERY_SEED={seed}");
        let start = start(None);
        let mut world = World::new(setup(run, seed), &start);
        let summary = world.run().unwrap_or_else(|failure| panic!("seed {seed}: {}", describe(&failure)));
        assert!(summary.receipts > 20_000, "one in ten thousand must be met: {summary:?}");
    }
}
