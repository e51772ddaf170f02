//! The promises about delivery, over hubs that a seed drives. `TIDEGATE_SEED=…` runs one seed, `TIDEGATE_SEEDS=…` so many.

mod world;

use tidegate_hub::delivery::Summary;
use world::World;

const TURNS: usize = 2_500;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

fn run(seed: u64) -> (Summary, u64, u64) {
    let mut world = World::new(seed);
    match world.run(TURNS) {
        Ok(summary) => (summary, world.restarts, world.disconnects),
        Err(broken) => panic!("TIDEGATE_SEED={seed}: {broken}\n{}", world.story()),
    }
}

#[test]
fn topics_keep_their_promises() {
    let seeds = match number("TIDEGATE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("TIDEGATE_SEEDS").unwrap_or(60),
    };
    let alone = seeds.end - seeds.start == 1;
    let mut all = Summary::default();
    let (mut restarts, mut disconnects) = (0, 0);
    for seed in seeds {
        let (summary, seed_restarts, seed_disconnects) = run(seed);
        restarts += seed_restarts;
        disconnects += seed_disconnects;
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
}
