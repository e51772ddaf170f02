//! Letters that wait to leave, by the shard that they are for.
//!
//! Invariant: letters for one shard leave in the order in which they were written. A publication that is left out is followed by
//! a gap before anything else of its topic: what a shard gets is whole, or says where it is not.

use std::sync::Arc;

use hashbrown::HashTable;

use crate::{
    letter::{Letter, Note},
    planted::{self, Bug},
    publication::{GapReason, Ledger, Publication},
    rules::Limits,
    topic::{Position, TopicName},
};

/// Emptied vectors kept for the next letters.
const SPARES: usize = 16;

/// All outgoing letters of a shard.
#[derive(Debug)]
pub(crate) struct Post {
    outgoing: Vec<Outgoing>,
    spares: Vec<Vec<Letter>>,
    /// Where [`Post::poll`] looks next.
    cursor: usize,
}

/// Letters for one shard.
#[derive(Debug, Default)]
struct Outgoing {
    letters: Vec<Letter>,
    /// The payloads in them.
    bytes: usize,
    /// Its queue was full in this turn.
    blocked: bool,
    /// What was left out and not told yet, by topic.
    gaps: HashTable<Gap>,
    /// Topics whose joins or leaves were left out, which was not told yet.
    presence_gaps: HashTable<TopicName>,
}

#[derive(Debug)]
struct Gap {
    topic: TopicName,
    from: u64,
    /// Its last offset.
    to: Position,
}

impl Gap {
    fn letter(self, ledger: &Arc<Ledger>) -> Letter {
        Letter(Note::Deliver(Publication::gap(&self.topic, self.from, self.to, GapReason::Busy, ledger)))
    }
}

impl Post {
    pub(crate) fn new(shards: u16) -> Self {
        let outgoing = (0..shards).map(|_| Outgoing::default()).collect();
        Self { outgoing, spares: Vec::new(), cursor: 0 }
    }

    /// Whether letters wait, or gaps.
    pub(crate) fn is_empty(&self) -> bool {
        self.outgoing.iter().all(|to| to.letters.is_empty() && !to.has_gaps())
    }

    /// Writes a letter that is never left out.
    pub(crate) fn write(&mut self, to: u16, note: Note) {
        let to = &mut self.outgoing[usize::from(to)];
        to.bytes += note.bytes();
        to.letters.push(Letter(note));
    }

    /// Whether a letter may be written that can be refused.
    pub(crate) fn has_room(&self, to: u16, limits: &Limits) -> bool {
        self.outgoing[usize::from(to)].has_room(limits)
    }

    /// Sends a publication, or leaves it out and notes the gap. Whether it was sent.
    pub(crate) fn deliver(
        &mut self,
        to: u16,
        publication: &Arc<Publication>,
        limits: &Limits,
        ledger: &Arc<Ledger>,
    ) -> bool {
        let to = &mut self.outgoing[usize::from(to)];
        let has_room = to.has_room(limits);
        if !to.gaps.is_empty() {
            let hash = publication.topic().hash();
            if let Ok(entry) = to.gaps.find_entry(hash, |gap| gap.topic == *publication.topic()) {
                let gap = entry.into_mut();
                if !has_room && gap.to.epoch == publication.position().epoch {
                    gap.to = publication.position();
                    return false;
                }
                to.tell(publication.topic(), ledger);
            }
        }
        if has_room {
            to.bytes += publication.bytes();
            to.letters.push(Letter(Note::Deliver(Arc::clone(publication))));
            return true;
        }
        if !planted::is(Bug::ForgetGap) {
            let gap = Gap {
                topic: publication.topic().clone(),
                from: publication.offset(),
                to: publication.position(),
            };
            to.gaps.insert_unique(gap.topic.hash(), gap, |gap| gap.topic.hash());
        }
        false
    }

    /// Sends a join or a leave, or leaves it out and notes that. Whether it was sent.
    pub(crate) fn announce(
        &mut self,
        to: u16,
        item: &Arc<Publication>,
        limits: &Limits,
        ledger: &Arc<Ledger>,
    ) -> bool {
        let to = &mut self.outgoing[usize::from(to)];
        let (name, has_room) = (item.topic(), to.has_room(limits));
        let known = to.presence_gaps.find_entry(name.hash(), |other| other == name);
        match (known, has_room) {
            (Ok(gap), true) => {
                gap.remove();
                let gap = Publication::presence_gap(name, ledger);
                to.letters.push(Letter(Note::Deliver(gap)));
            }
            (Err(_), false) => {
                to.presence_gaps.insert_unique(name.hash(), name.clone(), TopicName::hash);
            }
            (Ok(_), false) | (Err(_), true) => {}
        }
        if has_room {
            to.bytes += item.bytes();
            to.letters.push(Letter(Note::Deliver(Arc::clone(item))));
        }
        has_room
    }

    /// Before an answer about a topic: what was left out of it so far is told first.
    pub(crate) fn tell_gap(&mut self, to: u16, topic: &TopicName, ledger: &Arc<Ledger>) {
        let to = &mut self.outgoing[usize::from(to)];
        if !to.gaps.is_empty() {
            to.tell(topic, ledger);
        }
    }

    /// The letters for one shard. `None` ends the turn's round: whoever was full is asked again in the next one.
    pub(crate) fn poll(&mut self, ledger: &Arc<Ledger>) -> Option<(u16, Vec<Letter>)> {
        while let Some(to) = self.outgoing.get_mut(self.cursor) {
            if !to.blocked && !to.letters.is_empty() {
                to.bytes = 0;
                let spare = self.spares.pop().unwrap_or_default();
                // The number of shards is a `u16`.
                return Some((self.cursor as u16, std::mem::replace(&mut to.letters, spare)));
            }
            if !to.blocked && to.has_gaps() {
                let mut gaps: Vec<Gap> = to.gaps.drain().collect();
                // Not in the order of a table, which each process has for itself.
                gaps.sort_unstable_by(|a, b| a.topic.as_str().cmp(b.topic.as_str()));
                let gaps = gaps.into_iter().map(|gap| gap.letter(ledger));
                let mut of_presence: Vec<TopicName> = to.presence_gaps.drain().collect();
                of_presence.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
                let of_presence = of_presence.iter().map(|topic| Publication::presence_gap(topic, ledger));
                let letters = gaps.chain(of_presence.map(|gap| Letter(Note::Deliver(gap)))).collect();
                return Some((self.cursor as u16, letters));
            }
            to.blocked = false;
            self.cursor += 1;
        }
        self.cursor = 0;
        None
    }

    /// The shard's queue was full: its letters wait, before those written since.
    pub(crate) fn put_back(&mut self, to: u16, mut letters: Vec<Letter>) {
        let to = &mut self.outgoing[usize::from(to)];
        to.blocked = true;
        to.bytes += letters.iter().map(|letter| letter.0.bytes()).sum::<usize>();
        letters.append(&mut to.letters);
        to.letters = letters;
    }

    /// Keeps an emptied vector.
    pub(crate) fn spare(&mut self, letters: Vec<Letter>) {
        if self.spares.len() < SPARES && letters.capacity() <= 1024 {
            self.spares.push(letters);
        }
    }
}

impl Outgoing {
    fn has_gaps(&self) -> bool {
        !self.gaps.is_empty() || !self.presence_gaps.is_empty()
    }

    fn has_room(&self, limits: &Limits) -> bool {
        self.letters.len() < limits.letters && self.bytes < limits.letter_bytes
    }

    fn tell(&mut self, topic: &TopicName, ledger: &Arc<Ledger>) {
        if let Ok(entry) = self.gaps.find_entry(topic.hash(), |gap| gap.topic == *topic) {
            let (gap, _) = entry.remove();
            self.letters.push(gap.letter(ledger));
        }
    }
}

#[cfg(test)]
mod tests {
    use tidegate_registry::Total;

    use super::*;
    use crate::{Epoch, Format, Kind};

    fn publication(topic: &str, offset: u64, ledger: &Arc<Ledger>) -> Arc<Publication> {
        let topic = TopicName::parse(topic).unwrap();
        let kind = Kind::Message { format: Format::Text, payload: vec![0; 10], key: None };
        let mut publication = Publication::new(topic.clone(), kind, ledger);
        Publication::place(&mut publication, &topic, Position { epoch: Epoch(1), offset }, 0);
        publication
    }

    fn read(letters: &[Letter]) -> Vec<String> {
        let read = |letter: &Letter| match &letter.0 {
            Note::Deliver(item) => match item.kind() {
                Kind::Gap { from, .. } => format!("{} {from}-{}", item.topic(), item.offset()),
                Kind::Join { client, .. } => format!("{} +{client}", item.topic()),
                Kind::Leave { client } => format!("{} -{client}", item.topic()),
                Kind::PresenceGap => format!("{} ?", item.topic()),
                Kind::Message { .. } => format!("{} {}", item.topic(), item.offset()),
            },
            other => format!("{other:?}"),
        };
        letters.iter().map(read).collect()
    }

    #[test]
    fn what_is_left_out_is_told_before_anything_else_of_its_topic() {
        let ledger = Ledger::new(&Total::default(), &Total::default(), &Total::default());
        let limits = Limits { letters: 2, ..Limits::default() };
        let mut post = Post::new(2);
        let deliver = |post: &mut Post, topic, offset| {
            post.deliver(1, &publication(topic, offset, &ledger), &limits, &ledger)
        };
        let sent = [("a", 1), ("b", 1), ("a", 2), ("a", 3), ("b", 2)]
            .map(|(topic, offset)| deliver(&mut post, topic, offset));
        assert_eq!(sent, [true, true, false, false, false]);
        let (to, letters) = post.poll(&ledger).unwrap();
        assert_eq!((to, read(&letters)), (1, vec!["a 1".to_owned(), "b 1".to_owned()]));
        post.put_back(1, letters);
        assert!(post.poll(&ledger).is_none(), "full in this turn");

        let (_, letters) = post.poll(&ledger).unwrap();
        assert_eq!(read(&letters), ["a 1", "b 1"]);
        assert!(deliver(&mut post, "a", 4), "there is room again");
        let (_, letters) = post.poll(&ledger).unwrap();
        assert_eq!(read(&letters), ["a 2-3", "a 4"]);
        let (_, letters) = post.poll(&ledger).unwrap();
        assert_eq!(read(&letters), ["b 2-2"]);
        assert!(post.poll(&ledger).is_none() && post.is_empty());
    }

    #[test]
    fn joins_and_leaves_that_are_left_out_are_told_before_the_next_one() {
        let ledger = Ledger::new(&Total::default(), &Total::default(), &Total::default());
        let limits = Limits { letters: 2, ..Limits::default() };
        let mut post = Post::new(2);
        let announce = |post: &mut Post, topic, client: &str| {
            let kind = Kind::Join { client: client.into(), info: None };
            let item = Publication::new(TopicName::parse(topic).unwrap(), kind, &ledger);
            post.announce(1, &item, &limits, &ledger)
        };
        let sent = [("a", "1"), ("b", "2"), ("a", "3"), ("a", "4"), ("b", "5")]
            .map(|(topic, client)| announce(&mut post, topic, client));
        assert_eq!(sent, [true, true, false, false, false]);
        let (_, letters) = post.poll(&ledger).unwrap();
        assert_eq!(read(&letters), ["a +1", "b +2"]);
        assert!(announce(&mut post, "a", "6"), "there is room again");
        let (_, letters) = post.poll(&ledger).unwrap();
        assert_eq!(read(&letters), ["a ?", "a +6"]);
        let (_, letters) = post.poll(&ledger).unwrap();
        assert_eq!(read(&letters), ["b ?"]);
        assert!(post.poll(&ledger).is_none() && post.is_empty());
    }

    #[test]
    fn letters_keep_their_order_while_the_queue_is_full() {
        let ledger = Ledger::new(&Total::default(), &Total::default(), &Total::default());
        let limits = Limits::default();
        let mut post = Post::new(1);
        for offset in 1..=5 {
            post.deliver(0, &publication("a", offset, &ledger), &limits, &ledger);
            if let Some((to, letters)) = post.poll(&ledger) {
                post.put_back(to, letters);
            }
            assert!(post.poll(&ledger).is_none());
        }
        let (_, letters) = post.poll(&ledger).unwrap();
        assert_eq!(read(&letters), ["a 1", "a 2", "a 3", "a 4", "a 5"]);
    }
}
