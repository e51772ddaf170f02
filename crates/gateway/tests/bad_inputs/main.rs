//! Every row of `bad_inputs.tsv` against the real binary over real sockets, on both backends, over TLS and without.
//!
//! A row is a function that plays its inputs (all variants that the row names) and reports what it saw. This file holds
//! each report against the table's `code` column, asks the log for a line that names the peer, the code and the cause,
//! checks that other sessions on the same gateway went on meanwhile, and at the end that no descriptor was left behind.

// How many rows passed, where somebody asks with `--nocapture`.
#![allow(clippy::print_stdout)]

#[path = "../harness/mod.rs"]
mod harness;

mod admin;
mod close;
mod deflate;
mod flood;
mod frame;
mod handshake;
mod http;
mod pubsub;
mod reaction;
mod table;
mod tcp;
mod tls;
mod upstream;
mod world;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{reaction::Observed, table::Table, world::World};

/// How many rows there are to run; a row more or less in the table must be noticed.
const ROWS: usize = 116;

/// Rows in the whole table, those of parts that do not exist yet included.
const ROWS_OF_TABLE: usize = 129;

/// Rows that speak of parts which do not exist yet: HTTP/2.
const LATER: [&str; 1] = ["W22"];

/// Rows that have a test in `tests/tls.rs` or, of upstreams, `tests/upstream_tls.rs`, as their peers send what none sends, or need a
/// gateway of their own.
const ELSEWHERE: [(&str, &str); 12] = [
    ("S01", "what_is_not_tls_gets_an_alert_and_the_end"),
    ("S03", "close_notify_during_the_handshake_does_not_hold_it_open"),
    ("S04", "what_has_nothing_in_common_is_told_so"),
    ("S05", "what_has_nothing_in_common_is_told_so"),
    ("S06", "what_is_not_tls_gets_an_alert_and_the_end"),
    ("S07", "what_has_nothing_in_common_is_told_so"),
    ("S09", "names_choose_the_certificate_and_the_first_is_for_all_others"),
    ("S12", "a_second_handshake_within_a_session_is_refused"),
    ("S16", "a_fin_without_close_notify_is_no_clean_close"),
    ("S17", "a_handshake_that_stalls_is_ended"),
    ("S18", "what_comes_outside_tls_is_never_read_as_an_answer"),
    ("S19", "an_upstream_is_verified_by_the_configured_name_and_its_authority"),
];

/// Rows that are judged differently, with what is accepted besides; `docs/CONFORMANCE.md` says why.
const DIFFERENT: &[(&str, &str)] = &[
    // H11 has it both ways.
    ("A02", "http=400"),
    // A space and `>` are characters of names like others.
    ("P01", "app-error"),
    // Keys are shown in requests, and have no session to close.
    ("P05", "http=401"),
    // A consumer that takes nothing is closed with 1013, as the table of endings has it, or reset.
    ("T08", "close=1013"),
    // H05 asks for 405 where the method is wrong, and a proxied route is no exception.
    ("U02", "http=405"),
    // No way to an authority is unknown_ca, and one that is looked for in vain for too long certificate_unknown.
    ("S15", "alert=unknown_ca|certificate_unknown"),
    // The row's 32,000 spaces pass the head's limit.
    ("W14", "http=431"),
    // So does the row's token of 16 KiB; one that passes it gets 401.
    ("W19", "http=431"),
    // A line without a colon is no field, and the row's 64 KiB pass the head's limit.
    ("W20", "http=400|431"),
];

/// The same among those that are played elsewhere: their tests say what is seen.
const DIFFERENT_ELSEWHERE: [&str; 3] = ["S04", "S06", "S09"];

/// Plays a row's inputs.
type Play = fn(&World) -> Vec<Observed>;

/// Whether a row may run beside others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Company {
    /// It waits or is small.
    Any,
    /// It measures memory, or takes a whole core.
    Alone,
}

/// A row's implementation.
type Row = (&'static str, Company, Play);

fn implementations() -> Vec<Row> {
    [
        admin::ROWS,
        tcp::ROWS,
        http::ROWS,
        handshake::ROWS,
        upstream::ROWS,
        frame::ROWS,
        deflate::ROWS,
        close::ROWS,
        flood::ROWS,
        pubsub::ROWS,
        tls::ROWS,
    ]
    .concat()
}

#[test]
fn every_row_of_the_table_has_exactly_one_implementation() {
    let table = Table::read();
    assert_eq!(table.len(), ROWS_OF_TABLE);
    let elsewhere = concat!(include_str!("../tls.rs"), include_str!("../upstream_tls.rs"));
    for (id, test) in ELSEWHERE {
        assert!(elsewhere.contains(&format!("#[test]\nfn {test}()")), "{id}: {test}");
    }
    let is_elsewhere = |id: &str| LATER.contains(&id) || ELSEWHERE.iter().any(|(row, _)| *row == id);
    let mut due: Vec<_> = table.ids(|row| !is_elsewhere(&row.id));
    let mut have: Vec<_> = implementations().iter().map(|(id, ..)| (*id).to_owned()).collect();
    due.sort();
    have.sort();
    assert_eq!(due.len(), ROWS);
    assert_eq!(due, have);
}

#[test]
fn rows_that_are_judged_differently_stand_in_the_documentation() {
    let documentation = include_str!("../../../../docs/CONFORMANCE.md");
    let elsewhere = |id: &&str| ELSEWHERE.iter().any(|(row, _)| row == id);
    assert!(DIFFERENT_ELSEWHERE.iter().all(elsewhere));
    for id in DIFFERENT.iter().map(|(id, _)| id).chain(&DIFFERENT_ELSEWHERE) {
        assert!(documentation.lines().any(|line| line.starts_with(&format!("| {id} |"))), "{id}");
    }
}

#[test]
fn every_row_gets_its_reaction_on_uring() {
    run("uring", false);
}

#[test]
fn every_row_gets_its_reaction_on_epoll() {
    run("epoll", false);
}

#[test]
fn every_row_gets_its_reaction_over_tls_on_uring() {
    run("uring", true);
}

#[test]
fn every_row_gets_its_reaction_over_tls_on_epoll() {
    run("epoll", true);
}

/// They take turns: some rows measure time or memory.
static TURN: Mutex<()> = Mutex::new(());

/// Rows under way at once: most of them wait most of the time.
const THREADS: usize = 10;

fn run(io: &str, over_tls: bool) {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let only = std::env::var("TIDEGATE_ROW").ok();
    let table = Table::read();
    let rows: Vec<Row> = implementations()
        .into_iter()
        .filter(|(id, ..)| only.as_ref().is_none_or(|only| only == id))
        .filter(|(id, ..)| over_tls || table.row(id).layer != "tls")
        .collect();
    let world = World::start(io, over_tls);
    let over = if over_tls { "wss" } else { "ws" };
    let descriptors = world.gateway().descriptors();
    let failures = Mutex::new(Vec::new());
    let variants = AtomicUsize::new(0);

    let play = |(id, _, play): &Row| {
        let mut row = table.row(id).clone();
        for (_, code) in DIFFERENT.iter().filter(|(different, _)| different == id) {
            row.code = format!("{}|{code}", row.code);
        }
        let row = &row;
        let judged = catch_unwind(AssertUnwindSafe(|| {
            let lines_before = world.gateway().log_len();
            let observed = play(&world);
            assert!(!observed.is_empty(), "nothing was observed");
            variants.fetch_add(observed.len(), Ordering::Relaxed);
            let wrong: Vec<_> =
                observed.iter().filter_map(|seen| seen.fault(row, world.gateway(), lines_before)).collect();
            world.assert_others_unharmed();
            assert!(wrong.is_empty(), "{}", wrong.join("\n    "));
        }));
        if let Err(panic) = judged {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
            let failure = format!("{id} ({}): {}", row.expected, text.trim_end());
            failures.lock().expect("a lock").push(failure);
        }
    };

    let (alone, any): (Vec<&Row>, Vec<&Row>) =
        rows.iter().partition(|(_, company, _)| *company == Company::Alone);
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(row) = any.get(next.fetch_add(1, Ordering::Relaxed)) {
                    play(row);
                }
            });
        }
    });
    alone.into_iter().for_each(|row| play(row));

    let mut failures = failures.into_inner().expect("no thread holds it");
    failures.extend(world.upstream().failures().into_iter().map(|text| format!("an upstream: {text}")));
    failures.extend(world.descriptors_left(descriptors));
    failures.sort();
    let passed = rows.len() - rows.iter().filter(|row| failures.iter().any(|f| f.starts_with(row.0))).count();
    println!(
        "bad inputs over {over} on {io}: {passed} of {} rows, {} variants",
        rows.len(),
        variants.into_inner()
    );
    let log = world.stop();
    assert!(
        failures.is_empty(),
        "over {over} on {io}:\n  {}\nlog:\n{}",
        failures.join("\n  "),
        harness::gateway::tail(&log)
    );
}
