//! The sessions of a shard, in slots that are used again.
//!
//! Invariant: `generations[i]` is the generation of slot `i`'s tenant, or of its next one while it is vacant;
//! so a key resolves exactly while its own tenant is there.

use std::fmt;

use slab::Slab;

use crate::Key;

/// Bytes that a slot's generation takes.
pub(crate) const GENERATION_BYTES: usize = size_of::<u32>();

/// Sessions by [`Key`], all operations in constant time.
///
/// The place for all of them is reserved at the start and never grows, so there is no copy under load; the kernel
/// backs it with memory only as far as it has been used.
///
/// A vacated slot is the next to be used (last in, first out): it is warm in the cache, and the memory in use
/// is that of the highest number of sessions at one time. The cost is that a busy slot's generation comes round
/// after 16,777,214 tenants. Then a key that was kept through all of them would resolve again; no operation in the
/// kernel lasts that long, because a slot is vacated only after its last completion.
pub struct Registry<T> {
    slots: Slab<T>,
    generations: Vec<u32>,
    capacity: usize,
}

/// The registry is full; the value comes back.
pub struct Full<T>(pub T);

impl<T> Registry<T> {
    /// An empty registry with place for `capacity` sessions.
    ///
    /// # Panics
    /// If the address space does not hold that many.
    #[must_use]
    pub fn with_capacity(capacity: u32) -> Self {
        let capacity = capacity as usize;
        Self { slots: Slab::with_capacity(capacity), generations: Vec::with_capacity(capacity), capacity }
    }

    /// How many sessions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The most sessions that there can be.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many slots have ever been used: every index is below. For walks that pause and go on, with
    /// [`Registry::key_at`].
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.generations.len() as u32
    }

    /// The session, or `None` where the key is stale.
    #[must_use]
    pub fn get(&self, key: Key) -> Option<&T> {
        let index = self.resolve(key)?;
        self.slots.get(index)
    }

    /// The session, or `None` where the key is stale.
    #[must_use]
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let index = self.resolve(key)?;
        self.slots.get_mut(index)
    }

    /// Two sessions at once, such as the legs of a proxied pair. `None` where either key is stale or both are the same.
    #[must_use]
    pub fn pair_mut(&mut self, one: Key, other: Key) -> Option<(&mut T, &mut T)> {
        let (one, other) = (self.resolve(one)?, self.resolve(other)?);
        if one == other {
            return None;
        }
        self.slots.get2_mut(one, other)
    }

    /// Whether the key's session is there.
    #[must_use]
    pub fn contains(&self, key: Key) -> bool {
        self.resolve(key).is_some_and(|index| self.slots.contains(index))
    }

    /// The key of the session in a slot, if there is one.
    #[must_use]
    pub fn key_at(&self, index: u32) -> Option<Key> {
        let slot = index as usize;
        self.slots.contains(slot).then(|| Key::new(index, self.generations[slot]))
    }

    /// All sessions, by slot.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.slots.iter().map(|(slot, value)| (Key::new(slot as u32, self.generations[slot]), value))
    }

    /// All sessions, by slot.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Key, &mut T)> {
        let generations = &self.generations;
        self.slots.iter_mut().map(move |(slot, value)| (Key::new(slot as u32, generations[slot]), value))
    }

    /// Takes a session in.
    ///
    /// # Errors
    /// [`Full`], with the value, where all slots are taken.
    pub fn insert(&mut self, value: T) -> Result<Key, Full<T>> {
        if self.slots.len() == self.capacity {
            return Err(Full(value));
        }
        let slot = self.slots.insert(value);
        if slot == self.generations.len() {
            self.generations.push(1);
        }
        // The capacity is a `u32`, so every slot is.
        Ok(Key::new(slot as u32, self.generations[slot]))
    }

    /// The key that the next session to be taken in will have, for operations that must name it before it is
    /// there. `None` where all slots are taken.
    #[must_use]
    pub fn next_key(&self) -> Option<Key> {
        let slot = self.slots.vacant_key();
        // The capacity is a `u32`, so every slot is.
        (self.slots.len() < self.capacity)
            .then(|| Key::new(slot as u32, self.generations.get(slot).copied().unwrap_or(1)))
    }

    /// Takes a session out and makes its key stale. `None` where it was stale.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let index = self.resolve(key)?;
        let value = self.slots.try_remove(index)?;
        let generation = &mut self.generations[index];
        *generation = if *generation == Key::LAST_GENERATION { 1 } else { *generation + 1 };
        Some(value)
    }

    /// The slot, if the key's generation is its own. It may still be vacant: forged keys exist.
    fn resolve(&self, key: Key) -> Option<usize> {
        let index = key.index() as usize;
        (*self.generations.get(index)? == key.generation()).then_some(index)
    }
}

impl<T> fmt::Debug for Registry<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("len", &self.len())
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Full<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Full")
    }
}

impl<T> fmt::Display for Full<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("all session slots are taken")
    }
}

impl<T> std::error::Error for Full<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_comes_round_past_the_one_that_is_never_given_out() {
        let mut registry = Registry::with_capacity(1);
        let first = registry.insert(()).unwrap();
        registry.remove(first).unwrap();
        registry.generations[0] = Key::LAST_GENERATION;
        let last = registry.insert(()).unwrap();
        assert_eq!(last.generation(), Key::LAST_GENERATION);
        registry.remove(last).unwrap();
        let round = registry.insert(()).unwrap();
        assert_eq!(round, first, "the documented limit of 24 bits");
        assert!(!registry.contains(last));
        assert!(!registry.contains(Key::from_bits(0)), "slot 0, a generation that is never given out");
    }
}
