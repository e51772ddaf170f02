//! Shards that end with each other: one without sessions goes on answering letters, and seeing to its topics, until none has any.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tidegate_io::Backend;

use crate::{environment::Environment, mailbox::Sender, shard::Shard};

/// How many shards have something to wait for yet. Clones are the same.
#[derive(Clone, Debug)]
pub struct EndBarrier(Arc<AtomicUsize>);

impl EndBarrier {
    /// For so many shards, each of which has to get it.
    #[must_use]
    pub fn new(shards: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(shards)))
    }
}

/// A shard's place at the barrier.
#[derive(Default)]
pub(crate) struct Place {
    /// `None`: it waits for nobody.
    barrier: Option<EndBarrier>,
    /// It has nothing to wait for itself.
    arrived: bool,
}

impl Place {
    /// How the others stand, now that this one has nothing to wait for.
    fn arrive(&mut self) -> Others {
        let Some(EndBarrier(left)) = &self.barrier else { return Others::Arrived };
        if !std::mem::replace(&mut self.arrived, true) && left.fetch_sub(1, Ordering::AcqRel) == 1 {
            return Others::Asleep;
        }
        if left.load(Ordering::Acquire) == 0 { Others::Arrived } else { Others::Missing }
    }

    /// A connection that was in its listener's queue has come yet.
    fn go_back(&mut self) {
        if let Some(EndBarrier(left)) = &self.barrier
            && std::mem::take(&mut self.arrived)
        {
            left.fetch_add(1, Ordering::AcqRel);
        }
    }
}

/// How the other shards stand.
enum Others {
    /// Some have sessions.
    Missing,
    /// None has, and all know it, or are told by another one.
    Arrived,
    /// None has, and they sleep.
    Asleep,
}

impl<B: Backend, E: Environment> Shard<B, E> {
    /// From now on it ends only when all that have the barrier can, or when it is told to stop. Before the first session.
    pub fn end_with(&mut self, barrier: EndBarrier) {
        self.place.barrier = Some(barrier);
    }

    /// Whether it may end, now that it has nothing to wait for itself (`is_done`), or has.
    pub(crate) fn may_end(&mut self, is_done: bool) -> bool {
        if !is_done {
            self.place.go_back();
            return false;
        }
        match self.place.arrive() {
            Others::Missing => false,
            Others::Arrived => true,
            Others::Asleep => {
                self.peers.iter().for_each(Sender::wake);
                true
            }
        }
    }
}
