//! The promises about delivery, over hubs that a seed drives. `TIDEGATE_SEED=…` runs one seed, `TIDEGATE_SEEDS=…` so many,
//! from `TIDEGATE_FIRST_SEED=…`.

mod world;

use tidegate_hub::delivery::Summary;
use world::World;

const TURNS: usize = 2_500;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

/// Says which seed it was where an assertion fails.
struct Seed(u64);

impl Drop for Seed {
    #[expect(clippy::print_stderr, reason = "it is how a failing seed can be run again")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("TIDEGATE_SEED={}", self.0);
        }
    }
}

fn run(seed: u64) -> (Summary, World) {
    let _told = Seed(seed);
    let mut world = World::new(seed);
    match world.run(TURNS) {
        Ok(summary) => (summary, world),
        Err(broken) => panic!("{broken}\n{}", world.story()),
    }
}

#[test]
fn topics_keep_their_promises() {
    let seeds = match number("TIDEGATE_SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let first = number("TIDEGATE_FIRST_SEED").unwrap_or(0);
            first..first + number("TIDEGATE_SEEDS").unwrap_or(60)
        }
    };
    let alone = seeds.end - seeds.start == 1;
    let mut all = Summary::default();
    let (mut restarts, mut disconnects, mut counts) = (0, 0, [0; 13]);
    for seed in seeds {
        let (summary, world) = run(seed);
        restarts += world.restarts;
        disconnects += world.disconnects;
        counts.iter_mut().zip(world.counts).for_each(|(sum, count)| *sum += count);
        all.published += summary.published;
        all.receipts += summary.receipts;
        all.gaps += summary.gaps;
        all.recovered += summary.recovered;
        all.not_recovered += summary.not_recovered;
        all.conflated += summary.conflated;
        all.converged += summary.converged;
    }
    // What never happened was not checked.
    let happened = [
        all.published,
        all.receipts,
        all.gaps,
        all.recovered,
        all.not_recovered,
        all.conflated,
        all.converged,
        restarts,
        disconnects,
    ];
    assert!(alone || happened.iter().all(|&times| times > 50), "{happened:?}");
    // Refusals, publications left out and trimmed; who fell behind, by policy; gaps, of all policies but the one that ends.
    let [busy, left_out, trimmed, behind @ .., _, _, _, _, _] = counts;
    assert!(alone || [busy, left_out, trimmed].iter().chain(&behind).all(|&times| times > 50), "{counts:?}");
    assert!(alone || counts[9..].iter().all(|&gaps| gaps > 20), "{counts:?}");
}
