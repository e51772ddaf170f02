//! The shard beside the one that is played.

use std::sync::Arc;

use tidegate_hub::{Hub, TopicRules};
use tidegate_io::Event;
use tidegate_registry::Total;
use tidegate_shard::{Mail, Mailbox};

use super::Stage;

/// Its topics.
pub(crate) struct Neighbour {
    pub(crate) hub: Hub,
    pub(crate) inbox: Mailbox,
}

impl Neighbour {
    pub(crate) fn of(stage: &mut Stage, rules: TopicRules) -> Neighbour {
        let inbox = stage.others.pop().expect("there is another shard");
        Neighbour { hub: Hub::new(1, 2, Arc::new(rules), 7, &Total::default()), inbox }
    }

    /// It does what it was sent, and its answers go back.
    pub(crate) fn run(&mut self, stage: &mut Stage) {
        let now_ms = stage.world.borrow().now_ms;
        while let Some(Mail::Topics { from, letters }) = self.inbox.take() {
            self.hub.receive(from, letters, now_ms);
        }
        self.tell(stage);
    }

    /// What it has to say goes there, whatever it was sent meanwhile.
    pub(crate) fn tell(&mut self, stage: &mut Stage) {
        self.write(stage);
        stage.world.borrow_mut().complete(Event::Woken);
        stage.turns(3);
    }

    /// The same goes into the mailbox, and nobody looks into that yet.
    pub(crate) fn write(&mut self, stage: &Stage) {
        while let Some((_, letters)) = self.hub.poll_letters() {
            stage.sender.send(Mail::Topics { from: 1, letters }).expect("there is room");
        }
    }
}
