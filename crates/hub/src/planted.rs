//! Deliberate bugs, to prove that the delivery checker finds them.
//!
//! A hook stands where the bug would be. Without the feature `planted-bugs` it is `false` at compile time, and nothing of it
//! is left in the program. With it, a test plants a bug in its own thread, and whoever starts a whole gateway plants one in all
//! of its threads by an environment variable.

/// A bug that can be switched on for the hubs of the calling thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Where a shard takes a publication for its subscribers: one in a hundred is dropped.
    DropOne,
    /// Where a batch is about to be handed out: once in a hundred deliveries one subscriber does not get its first item.
    DropDelivery,
    /// Where a batch is about to be handed out: one in twenty swaps its first two publications.
    SwapTwo,
    /// Where a shard takes a publication for its subscribers: one in a hundred comes twice.
    DeliverTwice,
    /// Where a home looks whether something is missing behind a position: it says no.
    ClaimRecovery,
    /// Where a home begins an epoch: the first publication's offset is one too high.
    OffByOneAtEpoch,
    /// Where a home answers to a subscription with what was missed: the first of it is left out.
    OffByOneInRecovery,
    /// Where a publication is left out for a shard whose queue is full: no gap is told.
    ForgetGap,
    /// Where a shard looks for the topic of a publication: one in a hundred goes to another one's subscribers.
    CrossDeliver,
    /// Where a slow subscriber goes live again: what was left out is not told.
    ForgetSlowGap,
    /// Where a subscriber joins a batch that has begun: it gets all of it.
    ForgetSkip,
}

impl Bug {
    /// All of them.
    pub const ALL: &[Bug] = &[
        Bug::DropOne,
        Bug::DropDelivery,
        Bug::SwapTwo,
        Bug::DeliverTwice,
        Bug::ClaimRecovery,
        Bug::OffByOneAtEpoch,
        Bug::OffByOneInRecovery,
        Bug::ForgetGap,
        Bug::CrossDeliver,
        Bug::ForgetSlowGap,
        Bug::ForgetSkip,
    ];
}

#[cfg(feature = "planted-bugs")]
mod switch {
    use std::{cell::Cell, sync::LazyLock};

    use super::Bug;

    /// Names a bug for all threads of a process that do not plant one by themselves: `DropOne`, or `DropOne/10000` where it
    /// is to strike that often.
    pub const VARIABLE: &str = "TIDEGATE_PLANTED_BUG";

    /// What the variable says, read once.
    static ASKED: LazyLock<Option<(Bug, Option<u64>)>> = LazyLock::new(|| {
        let text = std::env::var(VARIABLE).ok()?;
        let (name, times) = text.split_once('/').map_or((&*text, None), |(name, times)| (name, Some(times)));
        let known = Bug::ALL.iter().find(|bug| format!("{bug:?}") == name);
        let bug = *known.unwrap_or_else(|| panic!("{VARIABLE} names no bug: {text}"));
        Some((bug, times.map(|times| times.parse().expect("once in so many times"))))
    });

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = Cell::new(ASKED.map(|(bug, _)| bug));
        static TIMES: Cell<Option<u64>> = Cell::new(ASKED.and_then(|(_, times)| times));
        static MET: Cell<u64> = const { Cell::new(0) };
    }

    /// Plants a bug in the hubs of this thread, or none, and forgets how often one was met.
    pub fn set(bug: Option<Bug>) {
        PLANTED.set(bug);
        TIMES.set(None);
        MET.set(0);
    }

    /// Plants one of those bugs that strike now and then, which strikes once in so many times.
    pub fn set_one_in(bug: Bug, times: u64) {
        set(Some(bug));
        TIMES.set(Some(times));
    }

    /// The bug that is planted on this thread.
    #[must_use]
    pub fn planted() -> Option<Bug> {
        PLANTED.get()
    }

    /// How often the planted bug's hook was passed on this thread since [`set`]. 0 after many seeds: there is no hook.
    #[must_use]
    pub fn met() -> u64 {
        MET.get()
    }

    pub(crate) fn is(bug: Bug) -> bool {
        one_in_many(bug, || 1, 1)
    }

    pub(crate) fn one_in(bug: Bug, times: u64) -> bool {
        one_in_many(bug, || 1, times)
    }

    pub(crate) fn one_in_many(bug: Bug, passes: impl FnOnce() -> u64, times: u64) -> bool {
        if PLANTED.get() != Some(bug) {
            return false;
        }
        let times = TIMES.get().unwrap_or(times);
        let before = MET.get();
        let now = before + passes();
        MET.set(now);
        now / times > before / times
    }
}

#[cfg(feature = "planted-bugs")]
pub use switch::{VARIABLE, met, planted, set, set_one_in};
#[cfg(feature = "planted-bugs")]
pub(crate) use switch::{is, one_in, one_in_many};

/// Whether this bug is planted: never, without the feature.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub(crate) const fn is(_: Bug) -> bool {
    false
}

/// Whether this bug is planted, and strikes this time: never, without the feature.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub(crate) const fn one_in(_: Bug, _: u64) -> bool {
    false
}
