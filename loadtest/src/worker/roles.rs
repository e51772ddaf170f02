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

/// Whether the session at this place is one of the share: spread evenly, the first one always.
fn is_slow(place: usize, share: f64) -> bool {
    // A share of a tenth is not quite a tenth in binary.
    let up_to = |count: usize| (count as f64 * share - 1e-9).ceil();
    up_to(place + 1) > up_to(place)
}

impl<B: Backend<Waker = Waker>> Worker<B> {
    /// All sessions that are up.
    pub(super) fn open_keys(&self) -> Vec<Key> {
        let open = self.slots.iter().filter(|(_, slot)| slot.session.stage() == Stage::Open);
        open.map(|(index, slot)| Key { index: index as u32, serial: slot.session.serial() }).collect()
    }

    /// In `slow`, whether a session is one that stops reading.
    pub(super) fn is_of_the_slow(&self, serial: u32) -> bool {
        let Scenario::Slow { share } = self.plan.scenario else { return false };
        // Its place among those of all workers.
        let begun = (serial & 0x00ff_ffff) as usize;
        is_slow(begun * self.plan.threads as usize + self.index, share)
    }

    /// In `slow`, has a share of the sessions stop reading, spread evenly over all of them.
    pub(super) fn choose_slow(&mut self, keys: &[Key]) {
        if !matches!(self.plan.scenario, Scenario::Slow { .. }) {
            return;
        }
        let messages = match self.plan.load {
            Load::Open { .. } => u32::MAX,
            Load::Closed => u32::try_from(SLOW_BYTES / self.rules.payloads.max().max(1)).unwrap_or(u32::MAX),
        };
        for key in keys {
            if !self.is_of_the_slow(key.serial) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_spread_evenly() {
        let slow =
            |count: usize, share| (0..count).filter(|place| is_slow(*place, share)).collect::<Vec<_>>();
        assert_eq!(slow(40, 0.1), [0, 10, 20, 30]);
        assert_eq!(slow(4, 0.01), [0]);
        assert_eq!(slow(6, 0.5), [0, 2, 4]);
    }
}
