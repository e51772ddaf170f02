//! A session that subscribes.

use std::{collections::VecDeque, ops::Range};

use tidegate_hub::{Class, MemberId, TopicName, protocol::KeptId};
use tidegate_registry::{Charge, Key};
use tidegate_wire::{budget::ControlBudget, message::Kind};

use super::feed::Kept;

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
    /// What comes before all that is newer, and what is newer behind it: it waits here. Never empty; a stream has its own.
    pub(crate) first: Option<Box<Kept>>,
    /// What it gets wrong, as a count in time.
    pub(crate) errors: ControlBudget,
    /// What it has asked and was not answered yet.
    pub(crate) asked: Vec<Asked>,
    /// Its commands wait.
    pub(crate) stopped: Option<Box<Stopped>>,
    /// Where a stream's client is present by its name.
    pub(crate) attends: Option<Box<Attendance>>,
}

/// Which slots' sessions keep what comes first: whoever delivers asks without a look at the member.
pub(crate) struct Firsts {
    slots: Vec<bool>,
    count: u32,
}

impl Firsts {
    pub(crate) fn new(slots: u32) -> Self {
        Self { slots: vec![false; slots as usize], count: 0 }
    }

    #[inline]
    pub(crate) fn has(&self, key: Key) -> bool {
        self.count > 0 && self.slots[key.index() as usize]
    }

    pub(crate) fn set(&mut self, key: Key, keeps: bool) {
        let slot = &mut self.slots[key.index() as usize];
        self.count = self.count + u32::from(keeps) - u32::from(*slot);
        *slot = keeps;
    }
}

/// A question that was not answered yet.
pub(crate) struct Asked {
    request: u64,
    /// The id that its answer must have.
    id: Option<KeptId>,
    answer: Answer,
}

/// How much an answer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A few fields.
    Short,
    /// Messages, or clients: far more than its question.
    Long,
}

/// What the next command of a session waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waits {
    /// Its outbox has emptied.
    Room,
    /// Half of its questions are answered.
    Answers,
    /// A long answer has come.
    LongAnswer,
    /// The queue to this shard, where the topic lives that it publishes to, has room.
    Home(u16),
}

/// Commands that wait, and what for. Meanwhile the session is not read.
pub(crate) struct Stopped {
    pub(crate) waits: Waits,
    /// The message whose command has stopped; nothing while that is tried again.
    pub(crate) held: Option<Held>,
}

/// A message of which not all was done.
pub(crate) struct Held {
    pub(crate) kind: Kind,
    pub(crate) bytes: Vec<u8>,
    /// Where in it the commands lie that are left; empty: nobody has looked at it yet.
    pub(crate) left: VecDeque<Range<usize>>,
    pub(crate) _retained: Charge,
}

/// What of a message was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// Nobody has looked at it yet.
    All,
    /// Its commands from this one on.
    From(usize),
}

/// A name that a stream of events goes by, and where.
pub(crate) struct Attendance {
    pub(crate) key: Key,
    pub(crate) client: Box<str>,
    pub(crate) topics: Vec<TopicName>,
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
        Self {
            key,
            id,
            class,
            way,
            lags: false,
            first: None,
            errors: ControlBudget::default(),
            asked: Vec::new(),
            stopped: None,
            attends: None,
        }
    }

    /// Notes a question with its number.
    pub(crate) fn ask(&mut self, request: u64, id: Option<KeptId>, answer: Answer) {
        self.asked.push(Asked { request, id, answer });
    }

    /// The question with this number was answered: the id that the answer carries. Nothing where it was not asked.
    pub(crate) fn answered(&mut self, request: u64) -> Option<Option<KeptId>> {
        let place = self.asked.iter().position(|asked| asked.request == request)?;
        let Asked { id, .. } = self.asked.remove(place);
        if self.asked.is_empty() {
            self.asked = Vec::new();
        }
        Some(id)
    }

    /// Long answers that are still to come.
    pub(crate) fn long_answers(&self) -> usize {
        self.asked.iter().filter(|asked| asked.answer == Answer::Long).count()
    }

    /// What is kept for it of its topics' publications, beside what a request keeps itself.
    pub(crate) fn kept_bytes(&self) -> usize {
        self.first.as_ref().map_or(0, |first| first.bytes())
    }

    /// What its commands wait for.
    pub(crate) fn waits(&self) -> Option<Waits> {
        self.stopped.as_ref().map(|stopped| stopped.waits)
    }
}
