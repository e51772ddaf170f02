//! Sessions that wait to publish: by the shard where their topics live, in the order in which they were stopped.
//!
//! Invariant: a queue is at most about twice as long as it had sessions at one time, however many come and go while it has no
//! room for them.

use std::collections::VecDeque;

use tidegate_registry::Key;

/// By shard.
#[derive(Debug, Default)]
pub(super) struct Publishers(Vec<VecDeque<Key>>);

impl Publishers {
    /// One more waits for room in the queue to this shard. `waits`: whether one that is listed still does; who has ended meanwhile
    /// is forgotten before the list grows.
    pub(super) fn push(&mut self, home: u16, key: Key, waits: impl Fn(Key) -> bool) {
        let home = usize::from(home);
        if self.0.len() <= home {
            self.0.resize_with(home + 1, VecDeque::new);
        }
        let queue = &mut self.0[home];
        if queue.len() == queue.capacity() {
            queue.retain(|&key| waits(key));
            if queue.len() > queue.capacity() / 2 {
                queue.reserve(queue.capacity());
            }
        }
        queue.push_back(key);
    }

    /// Who has waited longest.
    pub(super) fn pop(&mut self, home: u16) -> Option<Key> {
        self.0.get_mut(usize::from(home))?.pop_front()
    }

    /// How many are listed; nothing for a shard to which nobody has had to wait, nor for those behind it.
    pub(super) fn len(&self, home: u16) -> Option<usize> {
        self.0.get(usize::from(home)).map(VecDeque::len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> Key {
        Key::from_bits((number + 1) << 32)
    }

    #[test]
    fn who_has_ended_is_forgotten_while_there_is_no_room() {
        let mut publishers = Publishers::default();
        // Ten stay; the others come and go.
        let stays = |key: Key| key.to_bits() <= self::key(9).to_bits();
        let mut most = 0;
        for number in 0..100_000 {
            publishers.push(2, key(number), |other| stays(other) || other == key(number));
            most = most.max(publishers.len(2).unwrap_or_default());
        }
        assert!(most <= 64, "{most}");
        let left = std::iter::from_fn(|| publishers.pop(2));
        assert!(left.filter(|key| stays(*key)).eq((0..10).map(key)), "in their order");
        assert_eq!((publishers.len(0), publishers.len(2), publishers.len(3)), (Some(0), Some(0), None));
    }

    #[test]
    fn those_who_wait_stay_in_their_order() {
        let mut publishers = Publishers::default();
        for number in 0..1_000 {
            publishers.push(0, key(number), |_| true);
        }
        assert!(std::iter::from_fn(|| publishers.pop(0)).eq((0..1_000).map(key)));
    }
}
