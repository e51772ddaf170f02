//! Which sessions do what, once all are up.

use tidegate_io::{Backend, Waker};

use super::Worker;
use crate::{
    plan::{Load, Scenario, is_of_share},
    schedule::Key,
    session::Stage,
};

/// What a slow reader sends at most in a closed loop, so that a server without limits does not take all memory.
const SLOW_BYTES: usize = 16 << 20;

impl<B: Backend<Waker = Waker>> Worker<B> {
    /// All sessions that are up.
    pub(super) fn open_keys(&self) -> Vec<Key> {
        let open = self.slots.iter().filter(|(_, slot)| slot.session.stage() == Stage::Open);
        open.map(|(index, slot)| Key { index: index as u32, serial: slot.session.serial() }).collect()
    }

    /// In `slow` and `fanout`, whether a session is one that stops reading.
    pub(super) fn is_of_the_slow(&self, serial: u32) -> bool {
        let begun = serial & 0x00ff_ffff;
        match self.plan.scenario {
            // Its place among those of all workers.
            Scenario::Slow { share } => {
                is_of_share(begun as usize * self.plan.threads as usize + self.index, share)
            }
            Scenario::Fanout(fanout) => fanout.is_silent(self.index as u32, self.plan.threads, begun),
            Scenario::Echo
            | Scenario::Idle
            | Scenario::Storm { .. }
            | Scenario::Churn { .. }
            | Scenario::Replay => false,
        }
    }

    /// In `slow` and `fanout`, has a share of the sessions stop reading, spread evenly over all of them.
    pub(super) fn choose_slow(&mut self, keys: &[Key]) {
        if !self.plan.scenario.has_slow() {
            return;
        }
        let messages = match self.plan.load {
            Load::Open { .. } => u32::MAX,
            Load::Closed => u32::try_from(SLOW_BYTES / self.rules.payloads.max().max(1)).unwrap_or(u32::MAX),
        };
        for key in keys {
            let Some(slot) = self.slots.get(key.index as usize) else { continue };
            // It may have been told before.
            if slot.session.is_slow() || !self.is_of_the_slow(key.serial) {
                continue;
            }
            self.tally.counts.slow += 1;
            self.touch(key.index as usize, |session, _| session.stop_reading(messages.max(1)));
            let token = super::events::token(*key);
            let Some(slot) = self.slots.get(key.index as usize) else { continue };
            if slot.receiving {
                self.backend.cancel_receive(&slot.socket, token);
            }
        }
    }
}
