//! The simulator's own test: it passes a small echo, and finds each bug that is planted in it.
#![allow(clippy::print_stdout, dead_code)]

#[path = "sim/mod.rs"]
mod sim;

use sim::{net::Trace, runner, toy};
use tidegate_shard::planted::Bug;

#[test]
fn a_right_echo_passes() {
    runner::check("simulator::a_right_echo_passes", 500, |seed, trace| toy::run(seed, None, trace));
}

#[test]
fn one_seed_has_one_history() {
    for seed in 0..20 {
        let (one, other) = (toy::run(seed, None, Trace::Off), toy::run(seed, None, Trace::Off));
        assert_eq!(
            (one.history, one.turns, one.time),
            (other.history, other.turns, other.time),
            "seed {seed}"
        );
    }
}

#[test]
fn planted_bugs_are_found() {
    let planted = [
        Bug::FreeSlotEarly,
        Bug::ReturnBufferEarly,
        Bug::SkipGenerationCheck,
        Bug::LoseRemainder,
        Bug::RepeatRemainder,
        Bug::RearmTwice,
        Bug::IgnoreStarved,
        Bug::ForgetResume,
        Bug::SendAroundOutbox,
        Bug::LeakStaleBuffer,
        Bug::FinBeforeOutbox,
        Bug::ForgetAccept,
    ];
    for bug in planted {
        let found = (0..200)
            .find_map(|seed| runner::attempt(seed, |seed| toy::run(seed, Some(bug), Trace::Off)).err());
        let failure = found.unwrap_or_else(|| panic!("{bug:?} was not found within 200 seeds"));
        println!("{bug:?}: seed {}: {}", failure.seed, failure.message);
    }
}
