//! What is different in a generation, for who has asked for it.

use std::sync::Arc;

use tidegate_config::Route;
use tidegate_hub::RouteId;

use super::{Plan, Retired, Slot};

/// What a generation has made of the routes of the one before, by their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// New ones.
    pub added: Vec<u16>,
    /// Those with other settings, by which their sessions go on.
    pub changed: Vec<u16>,
    /// Those that take the same requests as before, but not in a way that sessions could go on with: their numbers of before, which
    /// their sessions have, and those of now.
    pub replaced: Vec<(u16, u16)>,
    /// Those that are no more.
    pub removed: Vec<u16>,
    /// Upstreams that are no more, by place, on routes that go on.
    pub left: Vec<(u16, u16)>,
}

impl Plan {
    /// What is different since another generation, from which this one comes.
    pub fn changes_since(&self, before: &Plan) -> Changes {
        let mut changes = Changes::default();
        let is_here = |slot: &&Slot| slot.retired().is_none();
        let (mut came, mut went) = (Vec::new(), Vec::new());
        for (number, place) in (0..=u16::MAX).zip(0..self.slots.len().max(before.slots.len())) {
            let (old, new) = (before.slots.get(place), self.slots.get(place));
            match (old.filter(is_here), new.filter(is_here)) {
                (Some(old), Some(new)) => {
                    if !old.is(new) {
                        changes.changed.push(number);
                    }
                    let gone = |slot: &Slot| slot.plan().proxy.as_ref().map(|proxy| proxy.gone.clone());
                    let (old, new) = (gone(old).unwrap_or_default(), gone(new).unwrap_or_default());
                    let upstreams = (0..=u16::MAX).zip(old.iter().zip(&new));
                    let left = upstreams.filter(|(_, (was_gone, is_gone))| !**was_gone && **is_gone);
                    changes.left.extend(left.map(|(upstream, _)| (number, upstream)));
                }
                (Some(old), None) => went.push((number, old)),
                (None, Some(new)) => came.push((number, new)),
                (None, None) => {}
            }
        }
        for (number, new) in came {
            let takes = |old: &Slot| taken_by(&old.plan().route) == taken_by(&new.plan().route);
            match went.iter().position(|(_, old)| takes(old)) {
                Some(place) => changes.replaced.push((went.remove(place).0, number)),
                None => changes.added.push(number),
            }
        }
        changes.removed = went.into_iter().map(|(number, _)| number).collect();
        changes
    }

    /// Numbers that were a route's of which nobody is left, and that another one has here, or has had since then.
    pub(crate) fn reused_since(&self, before: &Plan) -> Vec<RouteId> {
        let pairs = (0..=u16::MAX).zip(before.slots.iter().zip(&self.slots));
        let is_another =
            |old: &Arc<Retired>, new: &Slot| new.retired().is_none_or(|new| !Arc::ptr_eq(old, new));
        let reused = pairs.filter(|(_, (old, new))| old.retired().is_some_and(|old| is_another(old, new)));
        reused.map(|(number, _)| RouteId(number)).collect()
    }
}

/// Which requests a route takes.
fn taken_by(route: &Route) -> impl PartialEq {
    (route.host.clone(), route.path.clone(), route.subprotocols.clone())
}
