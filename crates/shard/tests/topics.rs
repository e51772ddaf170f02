//! Topics on whole shards in the simulator: what everybody is told, checked against what was published.
//!
//! `TIDEGATE_SEED=7` replays one seed with its trace; `TIDEGATE_TOPIC_SEEDS=2000` runs more of them, from
//! `TIDEGATE_FIRST_SEED` on.
#![allow(clippy::print_stdout, dead_code)]

#[path = "sim/mod.rs"]
mod sim;

use sim::{net::Trace, runner, topics};

/// What `cargo test` runs; `scripts/test.sh simulator` runs more.
const SEEDS: u64 = 30;

/// So many must have led to all that is wanted.
const MANY: u64 = 1_000;

/// What the seeds must have led to.
const WANTED: [&str; 27] = [
    "shard: publisher held back",
    "shard: subscriber fell behind",
    "shard: slow session ended",
    "shard: ended for memory",
    "topics: recovered",
    "topics: not recovered",
    "topics: gaps",
    "topics: conflated",
    "topics: converged",
    "topics: raw, one behind the other",
    "presence: judged",
    "told: slow",
    "told: busy",
    "route: taken away",
    "route: back at its number",
    "route: back at another's number",
    "route: back at a new number",
    "departing: sessions",
    "departing: streams",
    "departing: polls",
    "departing: publications",
    "speaker: departed",
    "raw: departed",
    "listener: departed",
    "requester: a departed poll is answered with 200",
    "requester: departed with 404",
    "requester: answered with 200 behind its FIN",
];

#[test]
fn topics_keep_their_promises() {
    let summary =
        runner::check_as("topics::topics_keep_their_promises", "TIDEGATE_TOPIC_SEEDS", SEEDS, topics::run);
    if let Some(summary) = summary.filter(|summary| summary.seeds >= 1) {
        for (what, count) in &summary.covered {
            println!("{what}: {count}");
        }
        // What never happened was not checked.
        let happened = |what: &&str| summary.covered.get(*what).is_some_and(|count| *count > 0);
        let missing: Vec<&str> = WANTED.into_iter().filter(|what| !happened(what)).collect();
        // Fewer seeds need not meet with everything.
        assert!(summary.seeds < MANY || missing.is_empty(), "it never happened: {missing:?}");
    }
}

#[test]
fn of_eight_that_do_not_read_the_one_that_holds_most_ends_for_want_of_memory() {
    for shards in [1, 3] {
        for worst in [0, 5] {
            topics::relief::run(shards, worst);
        }
    }
}

#[test]
fn one_seed_has_one_history() {
    for seed in 0..4 {
        let (one, other) = (topics::run(seed, Trace::Off), topics::run(seed, Trace::Off));
        assert_eq!(
            (one.history, one.turns, one.time),
            (other.history, other.turns, other.time),
            "seed {seed}"
        );
    }
}
