//! Where what was published is kept: the seam at which a broker can take over from memory.
//!
//! A hub's topics at home here have a [`History`] each, which its [`Store`] opens. [`Memory`] is the store of a gateway that stands
//! alone. Everything else of a topic (who is subscribed, who is present, keys) is about clients that are connected now, and
//! stays with its home.

use std::{fmt, sync::Arc};

use crate::{
    history::Recent,
    publication::Publication,
    rules::TopicSettings,
    topic::{Epoch, Position, TopicName},
};

/// Opens histories. One for each shard: it is called on the shard's thread, in the middle of a turn, and must not block.
pub trait Store: fmt::Debug {
    /// What it opens.
    type History: History;

    /// A topic begins to live at this home: where it is, and its history. `fresh` is an epoch that almost surely no
    /// topic of this process has had: 32 random bits.
    ///
    /// Promised to subscribers, so to be kept: an offset of an epoch is one publication for ever. Who cannot go on exactly where
    /// the topic ended (offset and all) begins a life: `fresh`, offset 0, and an empty history.
    fn open(&mut self, topic: &TopicName, fresh: Epoch) -> (Position, Self::History);
}

/// What one life of a topic keeps of its past: a run of offsets without a hole up to the newest publication, or nothing.
///
/// What it must keep as promises:
/// - It may give up its oldest at any time of its own calls, never another one: `recovered: true` is said by what
///   [`History::behind`] gives, and by nothing else.
/// - It says how many it gave up, for they count in the process's memory while the home counts them.
/// - It answers at once, from what it has here. What it would have to fetch it does not have: the client is told that it is
///   not recovered, and comes to no harm.
/// - It is dropped when the topic's life is over for this home: nobody is subscribed or present, and it is empty.
pub trait History: fmt::Debug {
    /// How many it has.
    fn len(&self) -> usize;

    /// Whether it has none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The one that it would give up next.
    fn oldest(&self) -> Option<&Arc<Publication>>;

    /// Keeps the topic's next publication, and gives up the oldest past the settings; gives how many. Called in order of the
    /// offsets, for each of them, before any subscriber has it; where the settings keep none, never.
    fn push(&mut self, publication: &Arc<Publication>, settings: &TopicSettings) -> usize;

    /// Gives up the oldest: the process has no memory.
    fn pop(&mut self) -> Option<Arc<Publication>>;

    /// Gives up what was published at or before this time; gives how many.
    fn expire(&mut self, before_ms: u64) -> usize;

    /// All behind an offset in their order, or `None` where some of that is missing. `newest` is the topic's offset; an offset
    /// beyond it is one from which nothing can be had.
    fn behind(&self, offset: u64, newest: u64) -> Option<Vec<Arc<Publication>>>;

    /// The last so many before an offset, oldest first, of so many bytes (but one in any case).
    fn last(&self, limit: usize, before: Option<u64>, bytes: usize) -> Vec<Arc<Publication>>;
}

/// Keeps everything in this process: each life of a topic is a new one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory;

impl Store for Memory {
    type History = Recent;

    fn open(&mut self, _: &TopicName, fresh: Epoch) -> (Position, Recent) {
        (Position { epoch: fresh, offset: 0 }, Recent::default())
    }
}
