//! Deliberate bugs, to prove that the delivery checker finds them.
//!
//! A hook stands where the bug would be. Without the feature `planted-bugs` it is `false` at compile time, and nothing of it
//! is left in the program.

/// A bug that can be switched on for the hubs of the calling thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Where a shard takes a publication for its subscribers: one in a few hundred is dropped.
    DropOne,
    /// Where a batch is about to be handed out: one in some swaps its first two publications.
    SwapTwo,
    /// Where a shard takes a publication for its subscribers: one in a few hundred comes twice.
    DeliverTwice,
    /// Where a home looks whether something is missing behind a position: it says no.
    ClaimRecovery,
    /// Where a home begins an epoch: the first publication's offset is one too high.
    OffByOneAtEpoch,
    /// Where a home answers to a subscription with what was missed: the first of it is left out.
    OffByOneInRecovery,
    /// Where a publication is left out for a shard whose queue is full: no gap is told.
    ForgetGap,
    /// Where a shard looks for the topic of a publication: one in a few hundred goes to another one's subscribers.
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
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
        static MET: Cell<u64> = const { Cell::new(0) };
    }

    /// Plants a bug in the hubs of this thread, or none, and forgets how often one was met.
    pub fn set(bug: Option<Bug>) {
        PLANTED.set(bug);
        MET.set(0);
    }

    /// How often the planted bug's hook was passed on this thread since [`set`]. 0 after many seeds: there is no hook.
    #[must_use]
    pub fn met() -> u64 {
        MET.get()
    }

    pub(crate) fn is(bug: Bug) -> bool {
        let planted = PLANTED.get() == Some(bug);
        if planted {
            MET.set(MET.get() + 1);
        }
        planted
    }

    pub(crate) fn one_in(bug: Bug, times: u64) -> bool {
        is(bug) && MET.get().is_multiple_of(times)
    }
}

#[cfg(feature = "planted-bugs")]
pub(crate) use switch::{is, one_in};
#[cfg(feature = "planted-bugs")]
pub use switch::{met, set};

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
