//! Places of connections. Whoever has not asked yet, or may not, gives way to those that come later, so that nobody who asks at
//! once is kept from it by those who never do. Whoever may ask has a place of another kind from then on, and keeps it.
//!
//! ```text
//! accepted ──► waiting, 64 ──── may ask ────► asking, 32 ──► answered
//!                 │ the oldest, when another comes and all are taken
//!                 └──► closed
//! ```

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Connections at a time that have not asked yet, or may not. As many must come between one's beginning and its request for it to
/// be closed before.
pub(crate) const WAITING: usize = 64;

/// Requests at a time of those who may ask.
pub(crate) const ASKING: usize = 32;

/// The places of a listener.
pub(crate) struct Places {
    /// How those are told to go that wait: the oldest first, at most [`WAITING`].
    waiting: Mutex<VecDeque<Arc<Notify>>>,
    asking: Arc<Semaphore>,
}

/// A connection's place; free when it is dropped.
pub(crate) struct Place {
    places: Arc<Places>,
    gives_way: Arc<Notify>,
    /// Once it may ask.
    asks: OnceLock<OwnedSemaphorePermit>,
}

impl Places {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { waiting: Mutex::default(), asking: Arc::new(Semaphore::new(ASKING)) })
    }

    /// A place for a new connection, if need be that of the oldest one that waits.
    pub(crate) fn take(self: &Arc<Self>) -> Arc<Place> {
        let gives_way = Arc::new(Notify::new());
        let mut waiting = self.waiting();
        if waiting.len() >= WAITING
            && let Some(oldest) = waiting.pop_front()
        {
            oldest.notify_one();
        }
        waiting.push_back(Arc::clone(&gives_way));
        Arc::new(Place { places: Arc::clone(self), gives_way, asks: OnceLock::new() })
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Arc<Notify>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// It may ask, and gives way to nobody any more; whether there was room for that.
    pub(crate) fn keep(&self) -> bool {
        let Ok(permit) = Arc::clone(&self.places.asking).try_acquire_owned() else { return false };
        // One that has asked before goes on as it is.
        let _ = self.asks.set(permit);
        self.leave();
        true
    }

    /// Ends when another connection has got this place; never for one that may ask.
    pub(crate) async fn lost(&self) {
        self.gives_way.notified().await;
        // It was told to go, and asked before it heard of that.
        if self.asks.get().is_some() {
            std::future::pending::<()>().await;
        }
    }

    fn leave(&self) {
        self.places.waiting().retain(|other| !Arc::ptr_eq(other, &self.gives_way));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;

    fn is_lost(place: &Place) -> bool {
        let lost = std::pin::pin!(place.lost());
        lost.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn the_oldest_that_waits_gives_way_and_one_that_asks_does_not() {
        let places = Places::new();
        let asking = places.take();
        assert!(asking.keep());
        let mut waiting: Vec<Arc<Place>> = (0..WAITING).map(|_| places.take()).collect();
        assert!(!is_lost(&asking) && !waiting.iter().any(|place| is_lost(place)));
        let late = places.take();
        assert!(is_lost(&waiting[0]) && !is_lost(&waiting[1]) && !is_lost(&late));
        // One that ends leaves room.
        drop(waiting.split_off(WAITING - 1));
        let next = places.take();
        assert!(!is_lost(&waiting[1]) && !is_lost(&next));
        assert_eq!(places.waiting().len(), WAITING);
        // One that asks as it is told to go stays.
        let _other = places.take();
        assert!(waiting[1].keep() && !is_lost(&waiting[1]));
    }

    #[test]
    fn those_that_ask_are_bounded() {
        let places = Places::new();
        let mut asking: Vec<Arc<Place>> = (0..ASKING).map(|_| places.take()).collect();
        assert!(asking.iter().all(|place| place.keep()));
        assert_eq!(places.waiting().len(), 0);
        let late = places.take();
        assert!(!late.keep());
        asking.pop();
        assert!(late.keep());
    }
}
