//! Whether shards turn: each is sent a letter now and then, and one that leaves several unanswered is stuck.
//!
//! What counts is letters, not time: a process that was stopped for a while has missed none when it goes on.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use tidegate_shard::{Mail, report::Reply};
use tokio::time::{MissedTickBehavior, interval};

use crate::gateway::Gateway;

/// How often a shard is asked.
const INTERVAL: Duration = Duration::from_millis(500);

/// A shard that has left so many letters unanswered is stuck: five seconds, in which it should have turned thousands of times.
const MISSES: u32 = 10;

/// What is known of one shard's pulse.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pulse(Arc<Beat>);

#[derive(Debug)]
struct Beat {
    begun: Instant,
    /// A letter is under way.
    asked: AtomicBool,
    /// Times that it was to be asked again while the letter before was under way.
    missed: AtomicU32,
    /// When it answered last.
    last: Mutex<Option<Instant>>,
}

impl Default for Beat {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            asked: AtomicBool::default(),
            missed: AtomicU32::default(),
            last: Mutex::default(),
        }
    }
}

impl Pulse {
    /// It has not answered for a while.
    pub(crate) fn is_stuck(&self) -> bool {
        self.0.missed.load(Ordering::Relaxed) >= MISSES
    }

    /// Since it answered last; `None` before the first time.
    pub(crate) fn age(&self) -> Option<Duration> {
        self.0.last.lock().unwrap_or_else(PoisonError::into_inner).map(|last| last.elapsed())
    }

    /// The same, before the first time since it began to be asked: one that has never turned is not one that has just turned.
    pub(crate) fn silent_for(&self) -> Duration {
        self.age().unwrap_or_else(|| self.0.begun.elapsed())
    }

    fn answered(&self) {
        *self.0.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.0.missed.store(0, Ordering::Relaxed);
        self.0.asked.store(false, Ordering::Relaxed);
    }

    fn ask(&self, send: impl FnOnce(Mail) -> bool) {
        if self.0.asked.swap(true, Ordering::Relaxed) {
            self.0.missed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let own = self.clone();
        if !send(Mail::Report(Reply::new(move |()| own.answered()))) {
            self.0.asked.store(false, Ordering::Relaxed);
            self.0.missed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Asks all shards, for ever.
pub(crate) async fn take(gateway: Arc<Gateway>) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for (pulse, shard) in gateway.pulses.iter().zip(&gateway.shards) {
            pulse.ask(&shard.send);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_that_leaves_letters_unanswered_is_stuck_until_it_answers() {
        let pulse = Pulse::default();
        let kept = std::cell::RefCell::new(Vec::new());
        for _ in 0..MISSES {
            pulse.ask(|mail| {
                kept.borrow_mut().push(mail);
                true
            });
        }
        assert!(!pulse.is_stuck() && pulse.age().is_none());
        pulse.ask(|_| true);
        assert!(pulse.is_stuck());
        assert_eq!(kept.borrow().len(), 1, "one letter at a time");
        pulse.answered();
        assert!(!pulse.is_stuck() && pulse.age().is_some());
    }

    #[test]
    fn a_full_mailbox_is_no_answer() {
        let pulse = Pulse::default();
        (0..MISSES).for_each(|_| pulse.ask(|_| false));
        assert!(pulse.is_stuck());
    }
}
