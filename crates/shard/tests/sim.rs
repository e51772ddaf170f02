//! Whole shards on a simulated kernel and network, in virtual time: every byte, every slot and every deadline checked,
//! with faults drawn by seed.
//!
//! `TIDEGATE_SEED=7` replays one seed with its trace; `TIDEGATE_SEEDS=20000` runs more of them, from
//! `TIDEGATE_FIRST_SEED` on.
#![allow(clippy::print_stdout, dead_code)]

#[path = "sim/mod.rs"]
mod sim;

use sim::{
    fitting::Fate,
    gateway,
    net::Trace,
    proxy_header::ProxyHeader,
    runner::{self, Summary},
    script::{Mistake, Violation},
    upstream::{Failure, Wrong},
};

/// What `cargo test` runs; `scripts/test.sh simulator` runs 2,000.
const SEEDS: u64 = 60;

#[test]
fn whole_shards_keep_their_promises() {
    let summary = runner::check("sim::whole_shards_keep_their_promises", SEEDS, gateway::run);
    // Fewer seeds need not meet with everything.
    if let Some(summary) = summary.filter(|summary| summary.seeds >= 1_000) {
        let missing = summary.fired.missing();
        assert!(missing.is_empty(), "these faults never fired: {missing:?}");
        let missing = unmet(&summary);
        assert!(missing.is_empty(), "nobody went through these: {missing:?}");
    }
}

/// What every run of many seeds must have gone through, and has not.
fn unmet(summary: &Summary) -> Vec<String> {
    let mut wanted: Vec<String> = Vec::new();
    for violation in Violation::ALL {
        wanted.push(format!("echo: {violation:?}"));
    }
    for mistake in Mistake::ALL {
        wanted.push(format!("{mistake:?}"));
    }
    for name in ProxyHeader::NAMES {
        wanted.push(format!("PROXY header: {name}"));
    }
    for fate in Fate::ALL {
        wanted.push(format!("hook: {fate:?}"));
    }
    for wrong in Wrong::ALL {
        wanted.push(format!("upstream: Wrong({wrong:?})"));
    }
    for failure in Failure::ALL {
        wanted.push(format!("upstream: {failure:?}"));
    }
    for (served, acts) in [
        ("echo", &["Close", "HalfClose", "Mute", "Stall"][..]),
        ("proxy", &["Close", "HalfClose", "Mute", "Stall", "BadText", "TooBig", "Unmasked"]),
        ("source", &["Close", "no end of its own"]),
        (
            "gone",
            &[
                "Some(Freeze)",
                "Some(StopReading)",
                "Some(Vanish { reset: false })",
                "Some(Vanish { reset: true })",
            ],
        ),
        ("refused", &["status 403", "status 502", "status 504"]),
        ("upstream", &["Echo", "Source", "Silent", "inflated"]),
        ("inflated", &["Gateway { takeover: false }", "Gateway { takeover: true }", "Ends"]),
        ("records", &["echo", "proxy", "upstream", "upstream without a session"]),
        ("records over buffers", &["turns of 1 byte", "turns of 1 buffer", "turns of 1 byte and 1 buffer"]),
        (
            "stopped",
            &[
                "at once",
                "in a drain",
                "sessions",
                "retained bytes",
                "inflaters",
                "partial bytes",
                "sends",
                "connects",
            ],
        ),
        ("route", &["taken away", "back at its number", "back at another's number", "back at a new number"]),
        ("route", &["drained", "readmitted"]),
        ("upstream", &["drained", "readmitted"]),
        ("departing", &["sessions", "pairs", "for a hook", "for an upstream"]),
        ("departed", &["told", "cut off", "not found", "refused"]),
        ("silent", &["kept", "idle for too long"]),
        ("no pings", &["Close", "HalfClose", "Mute", "Stall"]),
        ("unfit", &["echo, status 403", "echo, status 404", "proxy, status 403", "proxy, status 404"]),
        ("subprotocol", &["echo", "proxy"]),
        ("origin", &["echo", "proxy"]),
        ("utf8", &["passed to the upstream", "refused by the upstream"]),
        ("fair", &["before others", "among others"]),
        ("shard", &["kept for a later turn", "reader paused"]),
    ] {
        wanted.extend(acts.iter().map(|act| format!("{served}: {act}")));
    }
    wanted.retain(|what| !summary.covered.contains_key(what));
    wanted
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
