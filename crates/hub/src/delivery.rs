//! What topics promise, checked against what happened.
//!
//! A [`Checker`] reads a history of events, in the order in which they were seen, from a simulation or from sockets. It knows
//! nothing of how it was done. What it holds against the history:
//!
//! - *No phantom, no cross-delivery*: what was received was published before, to that topic.
//! - *One order*: a position of a topic is the same publication for everybody, and no publication has two. A publisher's
//!   publications to a topic have offsets in the order in which it published them.
//! - *No duplicate* within a subscription: offsets only grow.
//! - *No hole*: each offset behind a subscription's position comes, or a gap announces that it will not. A topic that conflates
//!   may pass over what has a newer one of its key.
//! - *Recovered only when complete*: then all behind the position that the session had comes, and no gap among it. Where the
//!   topic conflates, that is the newest of each key.
//! - *A new epoch after a restart*: no epoch from before comes again.
//! - *Convergence*: in the end each subscription is where its topic is ([`Checker::finish`]).

mod story;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
};

pub use self::story::story;
use crate::topic::{Epoch, Filter, Position, TopicName};

/// Something that was seen.
#[derive(Clone, Debug)]
pub enum Event {
    /// A publisher is about to publish this. Its ids are its own, and each is used once.
    Publish {
        /// Who.
        publisher: u64,
        /// Where.
        topic: String,
        /// What.
        id: u64,
        /// The conflation key, where the topic conflates.
        key: Option<String>,
    },
    /// The publisher was told that it was published, and where.
    Published {
        /// What.
        id: u64,
        /// Where.
        position: Position,
    },
    /// The publisher was told that it was not published.
    Refused {
        /// What.
        id: u64,
    },
    /// A session is subscribed to a topic from here on.
    Subscribed {
        /// Who.
        session: u64,
        /// To what.
        topic: String,
        /// Where it begins.
        position: Position,
        /// The position from which it asked to recover, if it did, and whether that succeeded.
        recovered: Option<(Position, bool)>,
    },
    /// A session is subscribed to what these patterns match from here on, beside what it has by name.
    Patterns {
        /// Who.
        session: u64,
        /// All that it has.
        patterns: Vec<String>,
    },
    /// A session is not subscribed to a topic any more.
    Unsubscribed {
        /// Who.
        session: u64,
        /// From what.
        topic: String,
    },
    /// A session got a publication.
    Receipt {
        /// Who.
        session: u64,
        /// Where it was published.
        topic: String,
        /// In which epoch, where the session knows: those by a pattern do not.
        epoch: Option<Epoch>,
        /// Where.
        offset: u64,
        /// What.
        id: u64,
    },
    /// A session was told that these offsets will not come.
    Gap {
        /// Who.
        session: u64,
        /// Where.
        topic: String,
        /// The first.
        from: u64,
        /// The last.
        to: u64,
    },
    /// A session is over.
    Ended {
        /// Who.
        session: u64,
    },
    /// The gateway was started anew: all its sessions are over.
    Restart,
}

/// A promise that was not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Received, but never published, or after a refusal.
    Phantom,
    /// Received on another topic than it was published to.
    CrossDelivery,
    /// One position is two publications, or one publication has two positions.
    TwoTruths,
    /// A publisher's publications have offsets in another order.
    OutOfOrder,
    /// An offset came again, or after a later one.
    Repeated,
    /// An offset did not come, and no gap announced it.
    Hole,
    /// A gap that does not fit where the subscription is.
    WrongGap,
    /// Recovery was claimed across epochs, from the future, or with something missing.
    FalseRecovery,
    /// An epoch from before a restart, or without a subscription.
    WrongEpoch,
    /// Something for a session that is over or has no such subscription.
    NotSubscribed,
    /// A publication was passed over for a newer one of its key that never came.
    NotTheNewest,
    /// In the end a subscription is not where its topic is.
    NotConverged,
}

/// Which promise, at which event, and what was expected.
#[derive(Clone, Debug)]
pub struct Broken {
    /// Which promise.
    pub violation: Violation,
    /// The number of the event, from 0; of the end, how many there were.
    pub at: usize,
    /// What is known about it.
    pub detail: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at event {}: {}", self.violation, self.at, self.detail)
    }
}

impl std::error::Error for Broken {}

/// How much was checked: a history in which nothing happened keeps every promise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Publications that a publisher was told of.
    pub published: u64,
    /// Publications received.
    pub receipts: u64,
    /// Gaps told.
    pub gaps: u64,
    /// Recoveries that succeeded with something to recover.
    pub recovered: u64,
    /// Recoveries that did not succeed.
    pub not_recovered: u64,
    /// Offsets passed over by conflation.
    pub conflated: u64,
    /// Subscriptions that were live in the end and had converged.
    pub converged: u64,
}

#[derive(Debug)]
struct Known {
    publisher: u64,
    topic: String,
    key: Option<String>,
    /// Which of its publisher's publications.
    number: u64,
    position: Option<Position>,
    refused: bool,
}

/// One epoch of a topic.
#[derive(Debug, Default)]
struct Life {
    /// Ids by offset.
    ids: BTreeMap<u64, u64>,
}

#[derive(Debug)]
struct Subscription {
    /// `None`: by a pattern, and nothing came yet.
    epoch: Option<Epoch>,
    /// The subscription's own position; what is at or before it comes first and may have holes.
    begin: u64,
    /// All up to here came, or was announced or passed over.
    cursor: u64,
    /// Until here no gap may be: recovery was claimed.
    whole_to: u64,
    by_name: bool,
    /// What came with offset 1: by a pattern another one there is the topic's next life.
    first: Option<u64>,
    /// Offsets passed over by conflation.
    passed: Vec<(u64, u64)>,
    /// Where the topic conflates: the newest that came, by key.
    newest: HashMap<String, u64>,
    /// The last offset of the last gap.
    gap_to: u64,
}

impl Subscription {
    fn new(epoch: Option<Epoch>, begin: u64, cursor: u64, by_name: bool) -> Self {
        let (passed, newest) = (Vec::new(), HashMap::new());
        Self { epoch, begin, cursor, whole_to: 0, by_name, first: None, passed, newest, gap_to: 0 }
    }
}

/// Reads events and says which promise was broken first.
#[derive(Default)]
pub struct Checker {
    publications: HashMap<u64, Known>,
    numbers: HashMap<u64, u64>,
    lives: HashMap<(String, Epoch), Life>,
    sessions: HashMap<u64, HashMap<String, Subscription>>,
    /// What else each session is subscribed to.
    patterns: HashMap<u64, Vec<Filter>>,
    over: HashSet<u64>,
    retired: HashSet<Epoch>,
    conflates: Option<Conflates>,
    events: usize,
    summary: Summary,
}

impl fmt::Debug for Checker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checker").field("events", &self.events).finish_non_exhaustive()
    }
}

/// Which topics conflate.
type Conflates = Box<dyn Fn(&str) -> bool>;
type Checked<T = ()> = Result<T, Broken>;

impl Checker {
    /// A checker that has seen nothing. `conflates` says which topics may pass over offsets.
    pub fn new(conflates: impl Fn(&str) -> bool + 'static) -> Self {
        Self { conflates: Some(Box::new(conflates)), ..Self::default() }
    }

    /// How much was checked so far.
    #[must_use]
    pub fn summary(&self) -> Summary {
        self.summary
    }

    /// Reads the next event.
    ///
    /// # Errors
    /// The promise that it breaks.
    pub fn observe(&mut self, event: &Event) -> Checked {
        let result = self.read(event);
        self.events += 1;
        result.map_err(|broken| Broken { detail: format!("{}; {event:?}", broken.detail), ..broken })
    }

    fn read(&mut self, event: &Event) -> Checked {
        match event {
            Event::Publish { publisher, topic, id, key } => {
                let number = self.numbers.entry(*publisher).or_default();
                *number += 1;
                let known = Known {
                    publisher: *publisher,
                    topic: topic.clone(),
                    key: key.clone(),
                    number: *number,
                    position: None,
                    refused: false,
                };
                let before = self.publications.insert(*id, known);
                assert!(before.is_none(), "the history's author uses each id once");
                Ok(())
            }
            Event::Published { id, position } => {
                self.summary.published += 1;
                let topic = self.known(*id)?.topic.clone();
                self.place(&topic, *position, *id)
            }
            Event::Refused { id } => {
                let known = self.known(*id)?;
                if known.position.is_some() {
                    return self.broken(Violation::Phantom, "it was refused, but is there");
                }
                self.publications.get_mut(id).expect("it is known").refused = true;
                Ok(())
            }
            Event::Subscribed { session, topic, position, recovered } => {
                self.subscribed(*session, topic, *position, *recovered)
            }
            Event::Patterns { session, patterns } => {
                self.live(*session)?;
                let parse =
                    |text: &String| Filter::parse(text).expect("the history's author has subscribed to it");
                self.patterns.insert(*session, patterns.iter().map(parse).collect());
                // What comes by patterns begins anew.
                if let Some(topics) = self.sessions.get_mut(session) {
                    topics.retain(|_, subscription| subscription.by_name);
                }
                Ok(())
            }
            Event::Unsubscribed { session, topic } => {
                let known = self.sessions.get_mut(session).and_then(|topics| topics.remove(topic));
                match known {
                    Some(_) => Ok(()),
                    None => self.broken(Violation::NotSubscribed, "it had no such subscription"),
                }
            }
            Event::Receipt { session, topic, epoch, offset, id } => {
                self.received(*session, topic, *epoch, *offset, *id)
            }
            Event::Gap { session, topic, from, to } => self.gap(*session, topic, *from, *to),
            Event::Ended { session } => {
                self.sessions.remove(session);
                self.patterns.remove(session);
                self.over.insert(*session);
                Ok(())
            }
            Event::Restart => {
                self.over.extend(self.sessions.drain().map(|(session, _)| session));
                self.over.extend(self.patterns.drain().map(|(session, _)| session));
                self.retired.extend(self.lives.keys().map(|(_, epoch)| *epoch));
                Ok(())
            }
        }
    }

    /// Reads the end: nothing is on its way any more, and nobody is behind. `newest` says where each topic is that exists.
    ///
    /// # Errors
    /// The promise that is broken.
    pub fn finish(&mut self, newest: impl Fn(&str) -> Option<Position>) -> Checked<Summary> {
        let mut converged = 0;
        for (session, topics) in &self.sessions {
            for (topic, subscription) in topics {
                let Some(newest) = newest(topic) else {
                    if subscription.by_name {
                        let detail = format!("session {session}: {topic} is gone, but it has a subscriber");
                        return self.broken(Violation::NotConverged, &detail);
                    }
                    continue;
                };
                if subscription.epoch.is_some_and(|epoch| epoch == newest.epoch)
                    && subscription.cursor.max(subscription.begin) == newest.offset
                {
                    converged += 1;
                } else if subscription.by_name || subscription.epoch == Some(newest.epoch) {
                    let detail = format!("session {session}, {topic} at {newest:?}: {subscription:?}");
                    return self.broken(Violation::NotConverged, &detail);
                }
                self.check_passed(topic, subscription)?;
            }
        }
        self.summary.converged = converged;
        Ok(self.summary)
    }

    fn subscribed(
        &mut self,
        session: u64,
        topic: &str,
        position: Position,
        recovered: Option<(Position, bool)>,
    ) -> Checked {
        self.live(session)?;
        if self.retired.contains(&position.epoch) {
            return self.broken(Violation::WrongEpoch, "an epoch from before a restart");
        }
        let mut subscription = Subscription::new(Some(position.epoch), position.offset, 0, true);
        match recovered {
            Some((from, true)) => {
                if from.epoch != position.epoch || from.offset > position.offset {
                    return self.broken(Violation::FalseRecovery, "across epochs, or from the future");
                }
                self.summary.recovered += u64::from(from.offset < position.offset);
                subscription.cursor = from.offset;
                subscription.begin = from.offset;
                subscription.whole_to = position.offset;
            }
            Some((_, false)) => self.summary.not_recovered += 1,
            None => {}
        }
        self.lives.entry((topic.to_owned(), position.epoch)).or_default();
        self.sessions.entry(session).or_default().insert(topic.to_owned(), subscription);
        Ok(())
    }

    fn received(&mut self, session: u64, topic: &str, epoch: Option<Epoch>, offset: u64, id: u64) -> Checked {
        self.live(session)?;
        let known = self.known(id)?;
        if known.refused {
            return self.broken(Violation::Phantom, "its publisher was told that it was refused");
        }
        if known.topic != topic {
            let detail = format!("it was published to {}", known.topic);
            return self.broken(Violation::CrossDelivery, &detail);
        }
        let key = known.key.clone().unwrap_or_default();
        self.subscribes(session, topic)?;
        self.summary.receipts += 1;
        let conflates = self.conflates(topic);
        let place = self.sessions.entry(session).or_default();
        let fresh = || Subscription::new(None, offset - 1, offset - 1, false);
        let subscription = place.entry(topic.to_owned()).or_insert_with(fresh);
        if let Some(epoch) = epoch {
            match subscription.epoch {
                Some(own) if own == epoch => {}
                Some(_) if subscription.by_name => {
                    return self.broken(Violation::WrongEpoch, "not the subscription's");
                }
                // By a pattern a topic's next life comes without a word.
                Some(_) | None => {
                    *subscription = Subscription::new(Some(epoch), offset - 1, offset - 1, false);
                }
            }
        } else if !subscription.by_name && offset == 1 && subscription.first != Some(id) {
            *subscription = fresh();
        }
        if offset == 1 {
            subscription.first = Some(id);
        }
        let (cursor, begin) = (subscription.cursor, subscription.begin);
        let epoch = subscription.epoch;
        if offset <= cursor {
            let detail = format!("it has had all up to {cursor}");
            return self.broken(Violation::Repeated, &detail);
        }
        subscription.cursor = offset;
        if conflates {
            subscription.newest.insert(key, offset);
        }
        let whole_to = subscription.whole_to;
        if let Some(epoch) = epoch {
            self.place(topic, Position { epoch, offset }, id)?;
        }
        // What comes before the subscription's position is what history and state have.
        let first_owed = cursor.max(begin) + 1;
        if offset > first_owed {
            let is_false = match conflates {
                // The last of what is recovered is the newest of its key.
                true => (first_owed..offset).contains(&whole_to),
                false => whole_to >= offset,
            };
            if is_false {
                let detail = format!("{first_owed} to {} are missing", offset - 1);
                return self.broken(Violation::FalseRecovery, &detail);
            }
            self.pass_over(session, topic, first_owed, offset - 1)?;
        }
        // Here all that was recovered has come.
        if conflates
            && whole_to == offset
            && let Some(subscription) = self.sessions.get(&session).and_then(|topics| topics.get(topic))
            && let Err(broken) = self.check_passed(topic, subscription)
        {
            return Err(Broken { violation: Violation::FalseRecovery, ..broken });
        }
        Ok(())
    }

    /// Offsets that did not come, without a gap.
    fn pass_over(&mut self, session: u64, topic: &str, from: u64, to: u64) -> Checked {
        if !self.conflates(topic) {
            return self.broken(Violation::Hole, &format!("{from} to {to} are missing"));
        }
        self.summary.conflated += to - from + 1;
        let subscription = self.sessions.get_mut(&session).and_then(|topics| topics.get_mut(topic));
        subscription.expect("it has just received something").passed.push((from, to));
        Ok(())
    }

    /// Whether of all that was passed over something newer of its key came, as far as is known what it was.
    fn check_passed(&self, topic: &str, subscription: &Subscription) -> Checked {
        let Some(epoch) = subscription.epoch else { return Ok(()) };
        let Some(life) = self.lives.get(&(topic.to_owned(), epoch)) else { return Ok(()) };
        for &(from, to) in &subscription.passed {
            for (&offset, id) in life.ids.range(from..=to) {
                let key = self.publications[id].key.as_deref().unwrap_or_default();
                let newer = subscription.newest.get(key).is_some_and(|&newest| newest > offset);
                if !newer && subscription.gap_to < offset {
                    let detail = format!("{topic}: offset {offset} of key {key:?}");
                    return self.broken(Violation::NotTheNewest, &detail);
                }
            }
        }
        Ok(())
    }

    fn conflates(&self, topic: &str) -> bool {
        self.conflates.as_ref().is_some_and(|conflates| conflates(topic))
    }

    fn gap(&mut self, session: u64, topic: &str, from: u64, to: u64) -> Checked {
        self.live(session)?;
        self.subscribes(session, topic)?;
        self.summary.gaps += 1;
        let conflates = self.conflates(topic);
        let topics = self.sessions.entry(session).or_default();
        let known = topics.get_mut(topic);
        // By a pattern the first that comes may be a gap, and a topic's next life comes without a word: from its first offset.
        let Some(subscription) = known.filter(|known| known.by_name || from > 1) else {
            topics.insert(topic.to_owned(), Subscription::new(None, from.saturating_sub(1), to, false));
            return Ok(());
        };
        let (begin, whole_to) = (subscription.begin, subscription.whole_to);
        let next = subscription.cursor.max(begin) + 1;
        if from > to || (from > next && !conflates) || (to + 1 < next && to > begin) {
            return self.broken(Violation::WrongGap, &format!("{next} is next"));
        }
        if from > next {
            self.summary.conflated += from - next;
            subscription.passed.push((next, from - 1));
        }
        subscription.cursor = subscription.cursor.max(to);
        subscription.gap_to = subscription.gap_to.max(to);
        if from <= whole_to && to > begin {
            return self.broken(Violation::FalseRecovery, "a gap in what was recovered");
        }
        Ok(())
    }

    /// A publication has this position, for everybody and for ever.
    fn place(&mut self, topic: &str, position: Position, id: u64) -> Checked {
        if self.retired.contains(&position.epoch) {
            return self.broken(Violation::WrongEpoch, "an epoch from before a restart");
        }
        let known = self.publications.get_mut(&id).expect("the caller has looked");
        if known.position.is_some_and(|before| before != position) {
            let detail = format!("{id} is at {position:?} and at {:?}", known.position);
            return self.broken(Violation::TwoTruths, &detail);
        }
        known.position = Some(position);
        let (publisher, number) = (known.publisher, known.number);
        let life = self.lives.entry((topic.to_owned(), position.epoch)).or_default();
        let before = life.ids.insert(position.offset, id);
        if before.is_some_and(|before| before != id) {
            let detail = format!("{position:?} is {id} and {before:?}");
            return self.broken(Violation::TwoTruths, &detail);
        }
        if before.is_some() {
            return Ok(());
        }
        // The publisher's nearest neighbours on both sides: a few steps, for publishers are few.
        let of = |(_, id): (&u64, &u64)| {
            Some(&self.publications[id])
                .filter(|other| other.publisher == publisher)
                .map(|other| other.number)
        };
        let earlier = life.ids.range(..position.offset).rev().find_map(of);
        let later = life.ids.range(position.offset + 1..).find_map(of);
        if earlier.is_some_and(|earlier| earlier > number) || later.is_some_and(|later| later < number) {
            let detail = format!("publisher {publisher}: {earlier:?}, {number}, {later:?}");
            return self.broken(Violation::OutOfOrder, &detail);
        }
        Ok(())
    }

    fn known(&self, id: u64) -> Checked<&Known> {
        match self.publications.get(&id) {
            Some(known) => Ok(known),
            None => self.broken(Violation::Phantom, "nobody has published it"),
        }
    }

    fn live(&self, session: u64) -> Checked {
        if self.over.contains(&session) {
            return self.broken(Violation::NotSubscribed, "the session is over");
        }
        Ok(())
    }

    /// Nothing comes to whom it was not promised.
    fn subscribes(&self, session: u64, topic: &str) -> Checked {
        let has_topic = self.sessions.get(&session).is_some_and(|topics| topics.contains_key(topic));
        let by_pattern = || {
            let patterns = self.patterns.get(&session).map_or(&[][..], Vec::as_slice);
            TopicName::parse(topic).is_ok_and(|topic| patterns.iter().any(|pattern| pattern.matches(&topic)))
        };
        if has_topic || by_pattern() {
            return Ok(());
        }
        self.broken(Violation::NotSubscribed, "neither by name nor by a pattern")
    }

    fn broken<T>(&self, violation: Violation, detail: &str) -> Checked<T> {
        Err(Broken { violation, at: self.events, detail: detail.to_owned() })
    }
}

#[cfg(test)]
mod tests;
