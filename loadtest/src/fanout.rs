//! The scenario `fanout`: publishers, subscribers, topics; when each message reached the first, the median and the last.
//!
//! ```text
//! subscriber's Seat ── first receipts ──► Ledger of this worker ── Letter, once all here have it ──► Ledger at the
//! publisher's worker: its message is complete, and in a closed loop the next one may go
//! ```
//!
//! What one publisher publishes on one topic is a stream: its messages have numbers of their own, and carry the stream's in
//! place of a session's. With at least as many publishers as topics each publisher has one; with more topics each topic has
//! one, and its publisher some.
//!
//! A worker reads its clock once a turn, so all that came in a turn came at one time: a message's deliveries are kept
//! as few pairs of a time and a count, and first, median, last and the spectrum of all are as exact as the clock is
//! read. A delivery costs two additions beside judging its bytes; a message costs one letter for each worker.

mod adapter;
mod fan;
mod ledger;
mod offsets;
mod outbox;
mod publishing;
mod seat;

pub(crate) use self::{
    adapter::{Adapter, AdapterName},
    fan::{Fan, FanParcel, Letter},
    seat::Seat,
};

use crate::plan::{is_of_share, part};

/// What publishers hear of what they publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Echo {
    /// Whatever the server does.
    Any,
    /// All of it.
    Expected,
    /// Nothing.
    Unexpected,
}

/// Who takes part.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Fanout {
    pub(crate) publishers: u32,
    pub(crate) subscribers: u32,
    /// At most as many as there are subscribers; and as there are publishers, unless a publisher can have several.
    pub(crate) topics: u32,
    pub(crate) adapter: AdapterName,
    pub(crate) echo: Echo,
    /// Of the subscribers, how many never read: 0 to 1. They are no audience.
    pub(crate) share: f64,
    /// Conflation keys that publications have in turn; 0: they have none.
    pub(crate) keys: u32,
}

/// What a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Publisher(u32),
    /// Of a topic.
    Subscriber(u32),
}

/// What all sessions of a worker go by.
#[derive(Debug)]
pub(crate) struct FanRules {
    pub(crate) plan: Fanout,
    pub(crate) adapter: &'static dyn Adapter,
    /// The topics' names.
    pub(crate) names: Vec<String>,
    /// Messages of a stream that are under way at once; `None` in an open loop.
    pub(crate) depth: Option<u32>,
}

impl Fanout {
    /// How many there are.
    #[inline]
    pub(crate) fn streams(&self) -> u32 {
        self.publishers.max(self.topics)
    }

    /// The topic of a stream.
    #[inline]
    pub(crate) fn topic(&self, stream: u32) -> u32 {
        stream % self.topics
    }

    /// The publisher of a stream.
    #[inline]
    pub(crate) fn publisher(&self, stream: u32) -> u32 {
        stream % self.publishers
    }

    /// The place of a stream among those of its topic.
    #[inline]
    pub(crate) fn place(&self, stream: u32) -> usize {
        (stream / self.topics) as usize
    }

    /// The place of a stream among those of its publisher.
    #[inline]
    pub(crate) fn desk(&self, stream: u32) -> usize {
        (stream / self.publishers) as usize
    }

    /// The streams of a topic, by their place.
    pub(crate) fn streams_on(&self, topic: u32) -> impl Iterator<Item = u32> + use<> {
        (topic..self.streams()).step_by(self.topics as usize)
    }

    /// The streams of a publisher, by their desk.
    pub(crate) fn streams_of(&self, publisher: u32) -> impl Iterator<Item = u32> + use<> {
        (publisher..self.streams()).step_by(self.publishers as usize)
    }

    /// Sessions of one of `workers` workers.
    pub(crate) fn sessions(&self, worker: u32, workers: u32) -> u32 {
        part(self.publishers, worker, workers) + part(self.subscribers, worker, workers)
    }

    /// What the session is that a worker begins after `begun` others.
    pub(crate) fn role(&self, worker: u32, workers: u32, begun: u32) -> Role {
        let publishers = part(self.publishers, worker, workers);
        if begun < publishers {
            return Role::Publisher(worker + begun * workers);
        }
        Role::Subscriber((worker + (begun - publishers) * workers) % self.topics)
    }

    /// Whether that session is a subscriber that never reads: spread evenly over all subscribers, and over each topic's.
    pub(crate) fn is_silent(&self, worker: u32, workers: u32, begun: u32) -> bool {
        let Some(place) = begun.checked_sub(part(self.publishers, worker, workers)) else { return false };
        let subscriber = worker + place * workers;
        is_of_share((subscriber / self.topics + subscriber % self.topics) as usize, self.share)
    }
}

impl FanRules {
    /// `seed` is in the topics' names, so that what a server keeps of an earlier run is not heard in this one.
    pub(crate) fn new(plan: Fanout, depth: Option<u32>, seed: u64) -> Self {
        let names = (0..plan.topics).map(|topic| format!("t{:08x}_{topic}", seed as u32)).collect();
        Self { plan, adapter: plan.adapter.adapter(), names, depth }
    }

    /// The topic of a session; of a publisher that has several, its first.
    pub(crate) fn topic_of(&self, role: Role) -> u32 {
        match role {
            // Its first stream has its number.
            Role::Publisher(publisher) => self.plan.topic(publisher),
            Role::Subscriber(topic) => topic,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_publisher_and_subscriber_has_its_worker_and_its_topic() {
        let echo = Echo::Any;
        let adapter = AdapterName::Nchan;
        let plan = Fanout { publishers: 5, subscribers: 11, topics: 3, adapter, echo, share: 0.25, keys: 0 };
        for workers in 1..=7 {
            let (mut publishers, mut subscribers, mut silent) = (Vec::new(), vec![0; 3], vec![0; 3]);
            for worker in 0..workers {
                for begun in 0..plan.sessions(worker, workers) {
                    match plan.role(worker, workers, begun) {
                        Role::Publisher(publisher) => {
                            assert!(publisher % workers == worker && !plan.is_silent(worker, workers, begun));
                            publishers.push(publisher);
                        }
                        Role::Subscriber(topic) => {
                            subscribers[topic as usize] += 1;
                            silent[topic as usize] += u32::from(plan.is_silent(worker, workers, begun));
                        }
                    }
                }
            }
            publishers.sort_unstable();
            assert_eq!((publishers, subscribers), (vec![0, 1, 2, 3, 4], vec![4, 4, 3]));
            assert_eq!(silent, [1, 1, 1]);
        }
        for stream in 0..5 {
            let all: Vec<u32> = plan.streams_on(plan.topic(stream)).collect();
            assert_eq!(all[plan.place(stream)], stream);
            assert_eq!((plan.publisher(stream), plan.streams_of(stream).collect()), (stream, vec![stream]));
        }
    }

    #[test]
    fn each_topic_has_a_stream_where_there_are_more_of_them_than_publishers() {
        let (adapter, echo) = (AdapterName::Tidegate, Echo::Any);
        let plan = Fanout { publishers: 3, subscribers: 9, topics: 8, share: 0.0, keys: 0, adapter, echo };
        let mut all = Vec::new();
        for publisher in 0..3 {
            for (desk, stream) in plan.streams_of(publisher).enumerate() {
                assert_eq!((plan.publisher(stream), plan.desk(stream)), (publisher, desk));
                assert_eq!(plan.streams_on(plan.topic(stream)).collect::<Vec<_>>(), [stream]);
                all.push(plan.topic(stream));
            }
        }
        all.sort_unstable();
        assert_eq!(all, (0..8).collect::<Vec<_>>());
    }
}
