//! A store that forgets: what a hub promises must hold whatever its store gives up, and it must ask it as it says.

use std::sync::Arc;

use tidegate_hub::{Epoch, History, Memory, Position, Publication, Recent, Store, TopicName, TopicSettings};

use super::random::Random;

#[derive(Debug)]
pub(crate) struct Forgetful {
    random: Random,
    most: usize,
}

/// Gives up all that it has now and then, as one does whose broker is away.
#[derive(Debug)]
pub(crate) struct Kept {
    topic: TopicName,
    own: Recent,
    random: Random,
    most: usize,
    /// The next that is pushed.
    next: Position,
}

impl Forgetful {
    /// One in so many publications finds that all before it is gone; 0: none.
    pub(crate) fn new(seed: u64, most: usize) -> Self {
        Self { random: Random::new(seed), most }
    }
}

/// A bug is planted, which the checker of deliveries is to find.
fn has_bug() -> bool {
    #[cfg(feature = "planted-bugs")]
    return tidegate_hub::planted::planted().is_some();
    #[cfg(not(feature = "planted-bugs"))]
    return false;
}

impl Store for Forgetful {
    type History = Kept;

    fn open(&mut self, topic: &TopicName, fresh: Epoch) -> (Position, Kept) {
        let (at, own) = Memory.open(topic, fresh);
        let next = Position { offset: at.offset + 1, ..at };
        let random = Random::new(self.random.next());
        (at, Kept { topic: topic.clone(), own, random, most: self.most, next })
    }
}

impl History for Kept {
    fn len(&self) -> usize {
        self.own.len()
    }

    fn oldest(&self) -> Option<&Arc<Publication>> {
        self.own.oldest()
    }

    fn push(&mut self, publication: &Arc<Publication>, settings: &TopicSettings) -> usize {
        let got = (publication.topic(), publication.position());
        assert!(
            got == (&self.topic, self.next) || has_bug(),
            "in order, each once: {got:?}, not {:?}",
            self.next
        );
        self.next.offset = got.1.offset + 1;
        let mut given_up = self.own.push(publication, settings);
        if self.most > 0 && self.random.below(self.most) == 0 {
            while self.own.pop().is_some() {
                given_up += 1;
            }
        }
        given_up
    }

    fn pop(&mut self) -> Option<Arc<Publication>> {
        self.own.pop()
    }

    fn expire(&mut self, before_ms: u64) -> usize {
        self.own.expire(before_ms)
    }

    fn behind(&self, offset: u64, newest: u64) -> Option<Vec<Arc<Publication>>> {
        // Nothing is pushed where the topic's settings keep none.
        assert!(
            self.next.offset == 1 || newest + 1 == self.next.offset || has_bug(),
            "{newest} is not where the topic is"
        );
        self.own.behind(offset, newest)
    }

    fn last(&self, limit: usize, before: Option<u64>, bytes: usize) -> Vec<Arc<Publication>> {
        self.own.last(limit, before, bytes)
    }
}
