//! The ways into all shards, for the threads beside them.

use std::sync::{Mutex, PoisonError};

use tidegate_io::Waker;
use tidegate_shard::{self as shard, Mail};

/// The ways into all shards.
#[derive(Debug)]
pub(crate) struct Shards {
    ways: Vec<shard::Sender<Waker>>,
    /// Who has it gives an order.
    turn: Mutex<()>,
}

impl Shards {
    /// By their numbers.
    pub(crate) fn new(ways: Vec<shard::Sender<Waker>>) -> Self {
        Self { ways, turn: Mutex::default() }
    }

    /// The way into each.
    pub(crate) fn ways(&self) -> &[shard::Sender<Waker>] {
        &self.ways
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.ways.len()
    }

    /// Leaves an order with each shard. It waits for none of them: one that stands still has it when it goes on. All get the orders of
    /// all threads in the same order, so that no generation is overtaken by the next one, nor by the word to end.
    pub(crate) fn order(&self, write: impl Fn() -> Mail) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.ways.iter().for_each(|way| way.order(write()));
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Barrier, thread};

    use tidegate_hub::RouteId;
    use tidegate_io::{Backend, Epoll, EpollOptions};
    use tidegate_shard::{Mailbox, Whom};

    use super::*;

    fn upstreams(mailbox: &Mailbox) -> Vec<u16> {
        let taken = std::iter::from_fn(|| mailbox.take());
        let place = |mail| match mail {
            Mail::Withhold(Whom::Upstream(_, place)) => Some(place),
            _ => None,
        };
        taken.filter_map(place).collect()
    }

    #[test]
    fn who_does_not_look_at_its_mail_has_all_orders_when_it_does_as_the_others_have_them() {
        let backend = Epoll::new(&EpollOptions { buffers: 1 }).unwrap();
        let (full, stuck) = shard::mailbox_of(backend.waker(), 1);
        let (free, mailbox) = shard::mailbox_of(backend.waker(), 9);
        assert!(full.send(Mail::Resolved).is_ok() && full.send(Mail::Resolved).is_err());
        let shards = Shards::new(vec![full, free]);
        let begin = Barrier::new(4);
        thread::scope(|scope| {
            for thread in 0..4_u16 {
                let (shards, begin) = (&shards, &begin);
                let give = move |place| {
                    shards.order(|| Mail::Withhold(Whom::Upstream(RouteId(0), thread * 10_000 + place)));
                };
                scope.spawn(move || {
                    begin.wait();
                    (0..10_000).for_each(give);
                });
            }
        });
        let (one, other) = (upstreams(&stuck), upstreams(&mailbox));
        assert_eq!(one.len(), 40_000, "nobody goes without");
        assert!(one == other, "all have them in the same order");
        for thread in 0..4_u16 {
            let own: Vec<u16> = one.iter().copied().filter(|place| place / 10_000 == thread).collect();
            assert!(own.is_sorted(), "and in the one in which they were given");
        }
    }
}
