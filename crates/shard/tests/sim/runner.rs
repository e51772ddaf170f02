//! Runs seeds on all cores, and says how to see a failed one again.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    env,
    panic::{self, AssertUnwindSafe},
    sync::{
        Mutex, Once,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use super::{faults::Fired, net::Trace, world::Outcome};

/// A seed that failed, and how.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) seed: u64,
    pub(crate) message: String,
}

/// What a run over many seeds has come to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Summary {
    pub(crate) seeds: u64,
    pub(crate) turns: u64,
    /// Virtual microseconds.
    pub(crate) time: u64,
    pub(crate) fired: Fired,
    /// What peers went through, and how often.
    pub(crate) covered: BTreeMap<String, u64>,
    pub(crate) failures: Vec<Failure>,
}

thread_local! {
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
    static QUIET: RefCell<bool> = const { RefCell::new(false) };
}

/// Panics inside of [`attempt`] are kept, not printed.
fn keep_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if QUIET.with(|quiet| *quiet.borrow()) {
                let text = info.payload_as_str().unwrap_or("a panic without text").to_string();
                let place = info.location().map(ToString::to_string).unwrap_or_default();
                LAST_PANIC.with(|last| {
                    last.borrow_mut().get_or_insert(format!("{text} [{place}]")).truncate(4_000);
                });
            } else {
                before(info);
            }
        }));
    });
}

/// Runs one seed; a panic is its failure.
pub(crate) fn attempt(seed: u64, run: impl FnOnce(u64) -> Outcome) -> Result<Outcome, Failure> {
    keep_panics();
    QUIET.with(|quiet| *quiet.borrow_mut() = true);
    LAST_PANIC.with(|last| *last.borrow_mut() = None);
    let result = panic::catch_unwind(AssertUnwindSafe(|| run(seed)));
    QUIET.with(|quiet| *quiet.borrow_mut() = false);
    result.map_err(|_| Failure {
        seed,
        message: LAST_PANIC.with(|last| last.borrow_mut().take()).unwrap_or_default(),
    })
}

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// Runs `TIDEGATE_SEEDS` seeds (else `default`) on all cores; with `TIDEGATE_SEED` only that one, with its trace.
///
/// # Panics
/// Where a seed fails, after all were run: with the first ones' messages and the command that replays them.
pub(crate) fn check(test: &str, default: u64, run: impl Fn(u64, Trace) -> Outcome + Sync) -> Option<Summary> {
    check_as(test, "TIDEGATE_SEEDS", default, run)
}

/// The same where the variable that says how many seeds has another name.
///
/// # Panics
/// As [`check`] does.
pub(crate) fn check_as(
    test: &str,
    variable: &str,
    default: u64,
    run: impl Fn(u64, Trace) -> Outcome + Sync,
) -> Option<Summary> {
    if let Some(seed) = number("TIDEGATE_SEED") {
        run(seed, Trace::Print);
        return None;
    }
    let first = number("TIDEGATE_FIRST_SEED").unwrap_or(0);
    let seeds = number(variable).unwrap_or(default);
    let started = Instant::now();
    let next = AtomicU64::new(first);
    let summary = Mutex::new(Summary::default());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds {
                        return;
                    }
                    let result = attempt(seed, |seed| run(seed, Trace::Off));
                    let mut summary = summary.lock().expect("nobody panics with it");
                    summary.seeds += 1;
                    match result {
                        Ok(outcome) => {
                            summary.turns += outcome.turns;
                            summary.time += outcome.time;
                            summary.fired.add(&outcome.fired);
                            for (what, count) in outcome.covered {
                                *summary.covered.entry(what).or_default() += count;
                            }
                        }
                        Err(failure) => summary.failures.push(failure),
                    }
                }
            });
        }
    });
    let mut summary = summary.into_inner().expect("nobody panics with it");
    summary.failures.sort_by_key(|failure| failure.seed);
    println!(
        "{test}: {} seeds, {} turns, {} virtual seconds in {:.1} s; {} failed",
        summary.seeds,
        summary.turns,
        summary.time / 1_000_000,
        started.elapsed().as_secs_f64(),
        summary.failures.len()
    );
    if !summary.failures.is_empty() {
        let shown: Vec<String> =
            summary.failures.iter().take(40).map(|failure| replay(test, failure)).collect();
        panic!("{} of {} seeds failed:\n{}", summary.failures.len(), summary.seeds, shown.join("\n"));
    }
    Some(summary)
}

fn replay(test: &str, failure: &Failure) -> String {
    let (target, name) = test.split_once("::").expect("target::test");
    // A seed has another history where these differ.
    let features = match (cfg!(feature = "record-transport"), cfg!(feature = "planted-bugs")) {
        (false, false) => "",
        (true, false) => " --features record-transport",
        (false, true) => " --features planted-bugs",
        (true, true) => " --features record-transport,planted-bugs",
    };
    format!(
        "  seed {}: {}\n    TIDEGATE_SEED={} cargo test --profile simulator{features} -p tidegate-shard --test {target} -- --exact {name} --nocapture",
        failure.seed, failure.message, failure.seed
    )
}
