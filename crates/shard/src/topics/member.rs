//! A session that subscribes.

use tidegate_hub::{Class, MemberId, TopicName, protocol::KeptId};
use tidegate_registry::Key;
use tidegate_wire::budget::ControlBudget;

/// A session of this shard that takes part in topics.
pub(crate) struct Member {
    pub(crate) key: Key,
    /// Its name in the hub.
    pub(crate) id: MemberId,
    /// What its frames are like.
    pub(crate) class: Class,
    pub(crate) way: Way,
    /// Something waits for it in the hub until its outbox is empty.
    pub(crate) lags: bool,
    /// What it gets wrong, as a count in time.
    pub(crate) errors: ControlBudget,
    /// What it has asked and was not answered yet, with the id that its answer must have.
    pub(crate) asked: Vec<(u64, Option<KeptId>)>,
    pub(crate) next_request: u64,
}

/// How a session speaks.
pub(crate) enum Way {
    /// The protocol `tidegate.v1`.
    Protocol,
    /// Messages of one topic as they are.
    Raw { topic: TopicName, publishes: bool },
    /// A request of HTTP: its state is its session's.
    Feed,
}

impl Member {
    pub(crate) fn new(key: Key, id: MemberId, class: Class, way: Way) -> Self {
        let errors = ControlBudget::default();
        Self { key, id, class, way, lags: false, errors, asked: Vec::new(), next_request: 0 }
    }

    /// Whether it knows nothing of the protocol.
    pub(crate) fn is_raw(&self) -> bool {
        matches!(self.way, Way::Raw { .. })
    }

    /// Notes a question; gives its number.
    pub(crate) fn ask(&mut self, id: Option<KeptId>) -> u64 {
        self.next_request += 1;
        self.asked.push((self.next_request, id));
        self.next_request
    }

    /// The question with this number was answered: the id that the answer carries. Nothing where it was not asked.
    pub(crate) fn answered(&mut self, request: u64) -> Option<Option<KeptId>> {
        let place = self.asked.iter().position(|(asked, _)| *asked == request)?;
        let (_, id) = self.asked.remove(place);
        if self.asked.is_empty() {
            self.asked = Vec::new();
        }
        Some(id)
    }
}
