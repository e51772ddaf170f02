//! What a publisher has yet to publish, and on which of its streams.

use std::collections::VecDeque;

use super::{Fan, FanRules};
use crate::payload::Message;

/// A publisher's part beside what all sessions have.
#[derive(Debug)]
pub(super) struct Publishing {
    publisher: u32,
    /// By desk: the number of the next message.
    numbers: Box<[u64]>,
    /// Messages that are due and are not in the outbox.
    owed: u32,
    pacing: Pacing,
}

/// What decides which message is next.
#[derive(Debug)]
enum Pacing {
    /// The clock: its streams take turns. When the first message is due, how far apart they are, and how many have been.
    Open { first_ns: u64, interval_ns: f64, count: u64 },
    /// The deliveries: streams that may have room for one more message under way, some of them twice.
    Closed { waiting: VecDeque<u32> },
}

impl Publishing {
    pub(super) fn new(publisher: u32, rules: &FanRules) -> Self {
        let waiting: VecDeque<u32> = rules.plan.streams_of(publisher).collect();
        Self {
            publisher,
            numbers: vec![0; waiting.len()].into(),
            owed: 0,
            pacing: Pacing::Closed { waiting },
        }
    }

    pub(super) fn owed(&self) -> u32 {
        self.owed
    }

    /// In an open loop: when the first message is due, and how far apart they are.
    pub(super) fn begin(&mut self, first_ns: u64, interval_ns: f64) {
        self.pacing = Pacing::Open { first_ns, interval_ns, count: 0 };
    }

    pub(super) fn is_open_loop(&self) -> bool {
        matches!(self.pacing, Pacing::Open { .. })
    }

    /// So many more messages are due.
    pub(super) fn owe(&mut self, count: u32) {
        self.owed = self.owed.saturating_add(count);
    }

    /// A stream of it may have room for one more message under way.
    pub(super) fn free(&mut self, stream: u32) {
        if let Pacing::Closed { waiting } = &mut self.pacing {
            waiting.push_back(stream);
        }
    }

    /// The message to be sent next, if there is one.
    pub(super) fn poll_next(&mut self, rules: &FanRules, fan: &Fan, now_ns: u64) -> Option<Message> {
        let plan = &rules.plan;
        let (stream, due_ns) = match &mut self.pacing {
            Pacing::Open { first_ns, interval_ns, count } => {
                self.owed = self.owed.checked_sub(1)?;
                let due_ns = *first_ns + (*count as f64 * *interval_ns) as u64;
                let desk = *count % self.numbers.len() as u64;
                *count += 1;
                // A desk is a number of streams, and those are counted in 32 bits.
                (self.publisher + desk as u32 * plan.publishers, due_ns)
            }
            Pacing::Closed { waiting } => {
                let depth = rules.depth?;
                loop {
                    let stream = *waiting.front()?;
                    if fan.may_publish(stream, depth) {
                        break (stream, now_ns);
                    }
                    waiting.pop_front();
                }
            }
        };
        let number = &mut self.numbers[plan.desk(stream)];
        let message = Message { serial: stream, number: *number, due_ns };
        *number += 1;
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fanout::{AdapterName, Echo, Fanout},
        schedule::Key,
        tally::{Tally, Window},
    };

    #[test]
    fn streams_of_a_publisher_take_turns() {
        let (adapter, echo) = (AdapterName::Tidegate, Echo::Any);
        // The second publisher has the topics 1 and 3.
        let plan = Fanout { publishers: 2, subscribers: 5, topics: 5, share: 0.0, keys: 0, adapter, echo };
        let rules = FanRules::new(plan, None, 0);
        let fan = Fan::new(plan, 0, 1);
        let mut publishing = Publishing::new(1, &rules);
        publishing.begin(1_000, 10.0);
        assert_eq!(publishing.poll_next(&rules, &fan, 0), None);
        for _ in 0..5 {
            publishing.owe(1);
        }
        let all = std::iter::from_fn(|| publishing.poll_next(&rules, &fan, 0));
        let all: Vec<_> = all.map(|message| (message.serial, message.number, message.due_ns)).collect();
        assert_eq!(all, [(1, 0, 1_000), (3, 0, 1_010), (1, 1, 1_020), (3, 1, 1_030), (1, 2, 1_040)]);
        assert_eq!(publishing.owed(), 0);
    }

    #[test]
    fn in_a_closed_loop_each_stream_has_its_own_room() {
        let (adapter, echo) = (AdapterName::Tidegate, Echo::Any);
        let plan = Fanout { publishers: 1, subscribers: 3, topics: 3, share: 0.0, keys: 0, adapter, echo };
        let rules = FanRules::new(plan, Some(2), 0);
        let mut fan = Fan::new(plan, 0, 1);
        let key = Key { index: 7, serial: 7 };
        fan.seat(&[1; 3]);
        fan.begin(&[1; 3], std::iter::once((0, key)), 0);
        let mut publishing = Publishing::new(0, &rules);
        let mut sent = Vec::new();
        let drain = |publishing: &mut Publishing, fan: &mut Fan, sent: &mut Vec<_>| {
            while let Some(message) = publishing.poll_next(&rules, fan, 50) {
                fan.publish(message.serial, message.due_ns);
                sent.push((message.serial, message.number));
            }
        };
        drain(&mut publishing, &mut fan, &mut sent);
        assert_eq!(std::mem::take(&mut sent), [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]);
        let window = Window { from_ns: 0, until_ns: u64::MAX };
        fan.deliver(1, 0, 50, 60, window, &mut Tally::new());
        assert_eq!(fan.take_freed(), [(key, 1)]);
        publishing.free(1);
        drain(&mut publishing, &mut fan, &mut sent);
        assert_eq!(std::mem::take(&mut sent), [(1, 2)]);
        fan.give_up(1_000, 0, window, &mut Tally::new());
        let mut freed = fan.take_freed();
        freed.sort_unstable_by_key(|(_, stream)| *stream);
        assert_eq!(freed, [(key, 0), (key, 1), (key, 2)]);
    }
}
