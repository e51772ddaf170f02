//! The place of a route: what it is like, and whether its sessions are to go.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::RoutePlan;

/// What has this number, in one generation.
#[derive(Clone)]
pub(crate) struct Slot {
    plan: Arc<RoutePlan>,
    /// Where it is not in the configuration any more.
    retired: Option<Arc<Retired>>,
}

/// A route, or an upstream of one, that is no more.
#[derive(Debug, Default)]
pub(crate) struct Retired {
    /// Shards that have no session of it any more.
    empty: AtomicUsize,
}

impl Slot {
    pub(super) fn new(plan: RoutePlan) -> Slot {
        Slot { plan: Arc::new(plan), retired: None }
    }

    #[inline]
    pub(crate) fn plan(&self) -> &RoutePlan {
        &self.plan
    }

    /// Whether to judge its callers' tokens takes long.
    pub(super) fn is_costly(&self) -> bool {
        self.plan.identity.as_ref().is_some_and(|identity| identity.is_costly())
    }

    /// Whether both are the same, not merely equal.
    pub(crate) fn is(&self, other: &Slot) -> bool {
        Arc::ptr_eq(&self.plan, &other.plan)
    }

    pub(crate) fn retired(&self) -> Option<&Arc<Retired>> {
        self.retired.as_ref()
    }

    /// The same without a place in the configuration: its sessions go, and no new ones come.
    pub(super) fn retire(&self) -> Slot {
        let retired = self.retired.clone().unwrap_or_default();
        Slot { plan: Arc::clone(&self.plan), retired: Some(retired) }
    }

    /// Whether another route may have its number.
    pub(super) fn is_free(&self, shards: usize) -> bool {
        self.retired.as_ref().is_some_and(|retired| retired.is_empty(shards))
    }
}

impl Retired {
    /// Whether so many shards, which are all, have said that they have none.
    pub(super) fn is_empty(&self, shards: usize) -> bool {
        self.empty.load(Ordering::Acquire) == shards
    }

    /// A shard has no session of it any more. Each says so once.
    pub(crate) fn left(&self) {
        self.empty.fetch_add(1, Ordering::Release);
    }
}
