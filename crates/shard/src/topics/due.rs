//! Sessions for which something is to be made, in order, and each list's share of a turn.
//!
//! Invariant: in each turn something is made for the first of a list, whatever others have filled the turn with, and those for
//! whom nothing was made come first in the next one.

use std::collections::VecDeque;

use tidegate_io::Backend;
use tidegate_registry::Key;

use super::Topics;
use crate::{environment::Environment, shard::Shard};

/// Sessions that wait for something of their own.
#[derive(Debug, Default)]
pub(super) struct Due {
    keys: VecDeque<Key>,
    /// Bytes that were made for them in this turn, and wait at least for its system call.
    made_bytes: usize,
}

impl Due {
    pub(super) fn push(&mut self, key: Key) {
        self.keys.push_back(key);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(super) fn begin_turn(&mut self) {
        self.made_bytes = 0;
    }

    /// The first of them, unless so many bytes were made in this turn.
    fn pop(&mut self, most: usize) -> Option<Key> {
        if self.made_bytes >= most { None } else { self.keys.pop_front() }
    }
}

impl<B: Backend, E: Environment> Shard<B, E> {
    /// Makes what is due for the sessions of a list, once for each of them at most.
    pub(super) fn serve(&mut self, list: fn(&mut Topics) -> &mut Due, make: fn(&mut Self, Key)) {
        let most = self.turn.bytes_most;
        let waiting = self.topics.as_mut().map_or(0, |topics| list(topics).keys.len());
        for _ in 0..waiting {
            let Some(topics) = &mut self.topics else { return };
            let Some(key) = list(topics).pop(most) else {
                self.hurried = true;
                return;
            };
            let before = self.turn.owned_bytes();
            make(self, key);
            self.flush_spans();
            let made = self.turn.owned_bytes().saturating_sub(before);
            if let Some(topics) = &mut self.topics {
                list(topics).made_bytes += made;
            }
        }
    }
}
