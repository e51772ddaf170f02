//! The fan-out's part of a worker: who sits where, whose message may go, and what other workers are told.

use tidegate_io::{Backend, Waker};

use super::Worker;
use crate::{
    fanout::{Fan, Fanout, Letter, Role, Seat},
    link::{Begin, Command, What},
    plan::Load,
    schedule::{Key, Schedule},
    session::{Session, Stage},
};

impl<B: Backend<Waker = Waker>> Worker<B> {
    /// Gives a session its part in the fan-out.
    pub(super) fn seat(&self, session: &mut Session) {
        if let (Some(fan), Some(rules)) = (&self.fan, &self.rules.fanout) {
            let role = fan.role(session.serial() & 0x00ff_ffff);
            session.sit(match self.is_of_the_slow(session.serial()) {
                true => Seat::silent(role, rules),
                false => Seat::new(role, rules),
            });
        }
    }

    /// The path that a session asks for.
    pub(super) fn path(&self, session: &Session) -> String {
        let path = &self.plan.target.path;
        match (&self.rules.fanout, session.seat()) {
            (Some(rules), Some(seat)) => {
                rules.adapter.path(path, &rules.names[rules.topic_of(seat.role()) as usize])
            }
            (None, _) | (_, None) => path.clone(),
        }
    }

    /// All sessions are up: subscribers here that read, by topic; nothing but in `fanout`.
    pub(super) fn take_seats(&mut self) -> Vec<u32> {
        let Some(fan) = &mut self.fan else { return Vec::new() };
        let mut here = vec![0; fan.plan().topics as usize];
        for (_, slot) in &self.slots {
            if let (Stage::Open, Some(topic)) =
                (slot.session.stage(), slot.session.seat().and_then(Seat::hears))
            {
                here[topic as usize] += 1;
            }
        }
        fan.seat(&here);
        here
    }

    /// The audience of each topic is known, and the time that is measured: what others publish may come here before this
    /// worker itself begins.
    pub(super) fn meet(&mut self, audiences: &[u32], begin: &Begin) {
        self.window = begin.window();
        self.choose_slow(&self.open_keys());
        let publishers = self.publishers();
        if let Some(fan) = &mut self.fan {
            fan.begin(audiences, publishers.into_iter(), self.epoch_ns);
        }
        self.tell(What::Met);
    }

    /// The time of messages begins.
    pub(super) fn begin_fanout(&mut self, begin: &Begin) {
        let keys: Vec<Key> = self.publishers().into_iter().map(|(_, key)| key).collect();
        match self.plan.load {
            Load::Closed => {
                for key in keys {
                    self.publish(key, Seat::refill);
                }
            }
            Load::Open { .. } => {
                let interval_ns = begin.interval_ns;
                let (start_ns, end_ns) = (begin.start_ns, begin.end_ns);
                self.schedule = Schedule::new(&keys, interval_ns, start_ns, end_ns, &mut self.random);
                let firsts: Vec<_> = self.schedule.firsts().collect();
                for (key, first_ns) in firsts {
                    self.publish(key, |seat, _| seat.begin(first_ns, interval_ns));
                }
            }
        }
    }

    /// Does something with a publisher, where it is up; whether that was so.
    pub(super) fn publish(
        &mut self,
        key: Key,
        action: impl FnOnce(&mut Seat, &mut crate::session::Context<'_>),
    ) -> bool {
        let mut is_up = false;
        if self.is_current(key) {
            self.touch(key.index as usize, |session, cx| {
                is_up = session.with_seat(cx.now_ns, |seat| action(seat, cx));
            });
        }
        is_up
    }

    /// After events: who has room for one more message sends it, and other workers learn what they must.
    pub(super) fn follow_up(&mut self) {
        let Some(fan) = &mut self.fan else { return };
        let freed = fan.take_freed();
        let (switchboard, notes, index) = (&self.switchboard, &self.notes, self.index);
        fan.poll_letters(|to, letters| {
            if let Err(Command::Mail(letters)) = switchboard.send(to, Command::Mail(letters)) {
                // Where nobody listens any more the process is about to end.
                let what = What::Mail { to, letters };
                let _ = notes.send(crate::link::Note { worker: index, what });
            }
        });
        for &(key, stream) in &freed {
            self.publish(key, |seat, cx| seat.free(stream, cx));
        }
        if let Some(fan) = &mut self.fan {
            fan.reuse(freed);
        }
    }

    /// Letters came.
    pub(super) fn read_mail(&mut self, letters: Vec<Letter>) {
        if let Some(fan) = &mut self.fan {
            fan.read(letters, self.window);
        }
        self.follow_up();
    }

    /// Whether a message of a publisher here is under way.
    pub(super) fn has_messages_under_way(&self) -> bool {
        self.fan.as_ref().is_some_and(|fan| !fan.is_settled())
    }

    /// Gives up messages that not all got in time; at the end, all of them.
    pub(super) fn give_up_messages(&mut self) {
        if let Some(fan) = &mut self.fan {
            fan.give_up(self.now_ns, self.rules.timeout_ns, self.window, &mut self.tally);
        }
        self.follow_up();
    }

    /// The publishers here that are up.
    pub(super) fn publishers(&self) -> Vec<(u32, Key)> {
        let open = self.slots.iter().filter(|(_, slot)| slot.session.stage() == Stage::Open);
        let all = open.filter_map(|(index, slot)| match slot.session.seat()?.role() {
            Role::Publisher(publisher) => {
                Some((publisher, Key { index: index as u32, serial: slot.session.serial() }))
            }
            Role::Subscriber(_) => None,
        });
        all.collect()
    }
}

/// A worker's part of the scenario, if it is this one.
pub(super) fn fan(plan: &crate::plan::Plan, index: usize) -> Option<Box<Fan>> {
    let fanout: Fanout = plan.scenario.fanout()?;
    Some(Box::new(Fan::new(fanout, index as u32, plan.threads)))
}
