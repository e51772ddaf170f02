//! Whole shards on a simulated kernel and network, in virtual time: every byte, every slot and every deadline checked,
//! with faults drawn by seed.
//!
//! `TIDEGATE_SEED=7` replays one seed with its trace; `TIDEGATE_SEEDS=20000` runs more of them, from
//! `TIDEGATE_FIRST_SEED` on.
#![allow(clippy::print_stdout, dead_code)]

#[path = "sim/mod.rs"]
mod sim;

use sim::{gateway, net::Trace, runner};

const SEEDS: u64 = if cfg!(debug_assertions) { 200 } else { 2_000 };

#[test]
fn whole_shards_keep_their_promises() {
    let summary = runner::check("sim::whole_shards_keep_their_promises", SEEDS, gateway::run);
    if let Some(summary) = summary.filter(|summary| summary.seeds >= 200) {
        let missing = summary.fired.missing();
        assert!(missing.is_empty(), "these faults never fired: {missing:?}");
    }
}

#[test]
fn one_seed_has_one_history() {
    for seed in 0..8 {
        let (one, other) = (gateway::run(seed, Trace::Off), gateway::run(seed, Trace::Off));
        assert_eq!(
            (one.history, one.turns, one.time),
            (other.history, other.turns, other.time),
            "seed {seed}"
        );
    }
}
