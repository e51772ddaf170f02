//! The sends of a turn: what is written before the system call, and what each session learns after it.

use tidegate_io::{Backend, Waker};

use super::Worker;
use crate::transport::Transport;

impl<B: Backend<Waker = Waker>> Worker<B> {
    /// Frames for all sessions that want to send, as far as one turn goes.
    pub(super) fn write_frames(&mut self) {
        self.visits.time_ns = self.clock();
        while !self.visits.is_full() {
            let Some(key) = self.ready.pop_front() else { break };
            let Some(slot) = self.slots.get_mut(key.index as usize) else { continue };
            if slot.session.serial() != key.serial {
                continue;
            }
            slot.queued = false;
            if slot.blocked || slot.shut {
                continue;
            }
            if let Transport::Sealed(_) = slot.transport {
                self.write_sealed(key.index as usize);
                continue;
            }
            let (session, time_ns) = (&slot.session, self.visits.time_ns);
            let (traffic, rules) = (self.traffic, &self.rules);
            self.visits.add(key.index as usize, |out| session.poll_transmit(out, traffic, time_ns, rules));
        }
    }

    /// After the system call: each session learns what was taken.
    pub(super) fn settle(&mut self) {
        for remainder in self.remainders.drain(..) {
            self.visits.fall_short(&remainder);
        }
        let (list, time_ns) = (self.visits.take(), self.visits.time_ns);
        for visit in &list {
            if !visit.is_whole() {
                self.slots[visit.index].blocked = true;
            }
            match self.slots[visit.index].transport {
                Transport::Plain => {
                    self.touch(visit.index, |session, cx| session.handle_sent(visit.sent, time_ns, cx));
                }
                Transport::Sealed(_) => self.sealed_sent(visit.index, visit.sent),
            }
            if !visit.is_whole() {
                self.fell_short(visit.index, visit.errno);
            }
        }
        self.visits.reuse(list);
    }
}
