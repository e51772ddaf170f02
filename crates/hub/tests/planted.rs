//! The delivery checker finds what it is there to find: each planted bug within five seeds. Without the feature
//! `planted-bugs` there is nothing to find.
#![cfg(feature = "planted-bugs")]

mod world;

use tidegate_hub::{
    delivery::{Broken, Violation},
    planted::{self, Bug},
};
use world::World;

const SEEDS: u64 = 5;
const TURNS: usize = 2_500;

/// The first broken promise, and the seed.
fn hunt(bug: Bug) -> Option<(u64, Broken)> {
    let mut met = 0;
    let found = (100..100 + SEEDS).find_map(|seed| {
        planted::set(Some(bug));
        let found = World::new(seed).run(TURNS).err();
        met += planted::met();
        found.map(|broken| (seed, broken))
    });
    assert!(met > 0, "{bug:?} has no hook");
    found
}

#[test]
fn each_planted_bug_is_found() {
    for &bug in Bug::ALL {
        let (seed, broken) = hunt(bug).unwrap_or_else(|| panic!("{bug:?} was not found"));
        let fits: &[Violation] = match bug {
            Bug::DropOne | Bug::DropDelivery | Bug::ForgetGap | Bug::ForgetSlowGap => &[
                Violation::Hole,
                Violation::NotConverged,
                Violation::NotTheNewest,
                Violation::WrongGap,
                Violation::FalseRecovery,
            ],
            Bug::SwapTwo => &[Violation::Hole, Violation::Repeated, Violation::FalseRecovery],
            Bug::DeliverTwice | Bug::ForgetSkip => &[Violation::Repeated],
            Bug::ClaimRecovery => &[Violation::FalseRecovery, Violation::Hole],
            Bug::OffByOneAtEpoch => &[Violation::Hole, Violation::WrongGap],
            Bug::OffByOneInRecovery => &[Violation::FalseRecovery, Violation::NotConverged],
            Bug::CrossDeliver => &[
                Violation::Repeated,
                Violation::WrongEpoch,
                Violation::CrossDelivery,
                Violation::NotSubscribed,
                Violation::Hole,
                Violation::WrongGap,
                Violation::NotConverged,
            ],
        };
        assert!(fits.contains(&broken.violation), "{bug:?}, seed {seed}: {broken}");
    }
}

#[test]
fn without_a_bug_the_same_seeds_find_nothing() {
    planted::set(None);
    for seed in 100..100 + SEEDS {
        let mut world = World::new(seed);
        if let Err(broken) = world.run(TURNS) {
            panic!("seed {seed}: {broken}\n{}", world.story());
        }
    }
}
