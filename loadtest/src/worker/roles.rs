//! Which sessions do what, once all are up.

use tidegate_io::{Backend, Waker};

use super::Worker;
use crate::{
    plan::{Load, Scenario},
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

    /// In `slow`, has a share of the sessions stop reading, spread evenly over all of them.
    pub(super) fn choose_slow(&mut self, keys: &[Key]) {
        let Scenario::Slow { share } = self.plan.scenario else { return };
        let messages = match self.plan.load {
            Load::Open { .. } => u32::MAX,
            Load::Closed => u32::try_from(SLOW_BYTES / self.rules.payloads.max().max(1)).unwrap_or(u32::MAX),
        };
        let mut sum = 0.0;
        for key in keys {
            sum += share;
            if sum < 1.0 {
                continue;
            }
            sum -= 1.0;
            self.touch(key.index as usize, |session, _| session.stop_reading(messages.max(1)));
            let token = super::events::token(*key);
            let Some(slot) = self.slots.get(key.index as usize) else { continue };
            if slot.receiving {
                self.backend.cancel_receive(&slot.socket, token);
            }
        }
    }
}
