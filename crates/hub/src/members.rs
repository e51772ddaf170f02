//! Members and their subscriptions: from a member to its topics, and from a member and a topic to the subscription.
//!
//! Invariant: a subscription stands in its member's chain and in the table exactly once, from its making to its removal.

use hashbrown::HashTable;
use slab::Slab;
use tidegate_registry::Key;

use crate::{
    growth,
    member::{ClientId, MemberRules},
    publication::Class,
};

pub(crate) const NONE: u32 = u32::MAX;

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) key: Key,
    pub(crate) client: ClientId,
    pub(crate) rules: MemberRules,
    /// Its newest subscription.
    first: u32,
    /// The newest of what it lags in.
    pub(crate) first_lag: u32,
    pub(crate) subscriptions: u32,
    pub(crate) patterns: u32,
    /// The last batch whose audience it is in by a pattern.
    pub(crate) mark: u32,
    /// In how many topics it lags.
    pub(crate) lags: u16,
    pub(crate) class: Class,
}

/// What a subscription is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// To a local topic whose home has not answered yet; `place` is the request's number.
    Asked,
    /// To a local topic; `place` is where it stands in the audience.
    Live,
    /// To a pattern; `place` is where it stands among those of the pattern.
    Pattern,
}

#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) member: u32,
    /// The local topic, or the pattern.
    pub(crate) target: u32,
    pub(crate) place: u32,
    next: u32,
    previous: u32,
    pub(crate) watches: bool,
    pub(crate) attends: bool,
    pub(crate) state: State,
}

/// All members of a shard and their subscriptions.
#[derive(Debug, Default)]
pub(crate) struct Members {
    members: Slab<Member>,
    subscriptions: Slab<Subscription>,
    /// Subscriptions by member and target.
    table: HashTable<u32>,
}

impl Members {
    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty() && self.subscriptions.is_empty() && self.table.is_empty()
    }

    /// How many members there are.
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// How many subscriptions there are.
    pub(crate) fn subscriptions(&self) -> usize {
        self.subscriptions.len()
    }

    pub(crate) fn enter(&mut self, key: Key, class: Class, client: ClientId, rules: MemberRules) -> u32 {
        let member = Member {
            key,
            client,
            rules,
            first: NONE,
            first_lag: NONE,
            subscriptions: 0,
            patterns: 0,
            mark: 0,
            lags: 0,
            class,
        };
        // Sessions of a shard are far below 2³².
        growth::insert(&mut self.members, member) as u32
    }

    /// # Panics
    /// If it has subscriptions, or is none.
    pub(crate) fn leave(&mut self, member: u32) {
        let member = self.members.remove(member as usize);
        assert!(member.first == NONE && member.first_lag == NONE, "what it had ends before it");
        if self.members.is_empty() && self.members.capacity() > 1024 {
            self.members = Slab::new();
        }
    }

    /// # Panics
    /// If there is no such member.
    pub(crate) fn member(&self, member: u32) -> &Member {
        &self.members[member as usize]
    }

    /// # Panics
    /// If there is no such member.
    pub(crate) fn member_mut(&mut self, member: u32) -> &mut Member {
        &mut self.members[member as usize]
    }

    pub(crate) fn newest(&self, member: u32) -> Option<u32> {
        Some(self.member(member).first).filter(|&first| first != NONE)
    }

    /// All of a member's, the newest first.
    pub(crate) fn of(&self, member: u32) -> impl Iterator<Item = &Subscription> {
        let first = self.newest(member).map(|first| &self.subscriptions[first as usize]);
        std::iter::successors(first, |own| {
            self.subscriptions.get(own.next as usize).filter(|_| own.next != NONE)
        })
    }

    pub(crate) fn get(&self, subscription: u32) -> Option<&Subscription> {
        self.subscriptions.get(subscription as usize)
    }

    /// # Panics
    /// If there is no such subscription.
    pub(crate) fn subscription(&self, subscription: u32) -> &Subscription {
        &self.subscriptions[subscription as usize]
    }

    /// # Panics
    /// If there is no such subscription.
    pub(crate) fn subscription_mut(&mut self, subscription: u32) -> &mut Subscription {
        &mut self.subscriptions[subscription as usize]
    }

    pub(crate) fn find_topic(&self, member: u32, topic: u32) -> Option<u32> {
        self.find(member, topic, false)
    }

    pub(crate) fn find_pattern(&self, member: u32, pattern: u32) -> Option<u32> {
        self.find(member, pattern, true)
    }

    fn find(&self, member: u32, target: u32, is_pattern: bool) -> Option<u32> {
        let is = |&other: &u32| {
            let other = &self.subscriptions[other as usize];
            other.member == member && other.target == target && (other.state == State::Pattern) == is_pattern
        };
        self.table.find(pair_hash(member, target), is).copied()
    }

    /// A new subscription; the caller has looked that there is none like it.
    pub(crate) fn insert(
        &mut self,
        member: u32,
        target: u32,
        place: u32,
        state: State,
        watches: bool,
        attends: bool,
    ) -> u32 {
        let own = &mut self.members[member as usize];
        let next = own.first;
        let subscription =
            Subscription { member, target, place, next, previous: NONE, watches, attends, state };
        let id = growth::insert(&mut self.subscriptions, subscription) as u32;
        own.first = id;
        own.subscriptions += 1;
        own.patterns += u32::from(state == State::Pattern);
        if next != NONE {
            self.subscriptions[next as usize].previous = id;
        }
        let subscriptions = &self.subscriptions;
        let hasher = |&other: &u32| {
            let other = &subscriptions[other as usize];
            pair_hash(other.member, other.target)
        };
        self.table.insert_unique(pair_hash(member, target), id, hasher);
        id
    }

    /// # Panics
    /// If there is no such subscription.
    pub(crate) fn remove(&mut self, id: u32) -> Subscription {
        let removed = self.subscriptions.remove(id as usize);
        let own = &mut self.members[removed.member as usize];
        own.subscriptions -= 1;
        own.patterns -= u32::from(removed.state == State::Pattern);
        if removed.previous == NONE {
            own.first = removed.next;
        } else {
            self.subscriptions[removed.previous as usize].next = removed.next;
        }
        if removed.next != NONE {
            self.subscriptions[removed.next as usize].previous = removed.previous;
        }
        let hash = pair_hash(removed.member, removed.target);
        self.table.find_entry(hash, |&other| other == id).expect("a subscription is in the table").remove();
        // Memory follows what is there: at a quarter the table shrinks to half, so that it does not swing.
        if self.table.len() * 4 < self.table.capacity() && self.table.capacity() > 1024 {
            let subscriptions = &self.subscriptions;
            self.table.shrink_to(self.table.len() * 2, |&other| {
                let other = &subscriptions[other as usize];
                pair_hash(other.member, other.target)
            });
        }
        if self.subscriptions.is_empty() && self.subscriptions.capacity() > 1024 {
            self.subscriptions = Slab::new();
        }
        removed
    }
}

pub(crate) fn pair_hash(member: u32, target: u32) -> u64 {
    // The finisher of MurmurHash3 (Appleby): neither number is the peer's choice.
    let mut mixed = u64::from(member) << 32 | u64::from(target);
    mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^ (mixed >> 33)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_subscription_takes_24_bytes_and_a_member_48() {
        assert!(size_of::<Subscription>() <= 24, "{}", size_of::<Subscription>());
        assert!(size_of::<Member>() <= 48, "{}", size_of::<Member>());
    }

    proptest! {
        #[test]
        fn the_chain_and_the_table_agree(steps in prop::collection::vec((0..4_u32, 0..6_u32, any::<bool>()), 0..200)) {
            let mut members = Members::default();
            for n in 0..4 {
                let class = Class::plain(crate::Envelope::Raw);
                members.enter(Key::from_bits(1 << 32 | n), class, ClientId::from_bits(n), MemberRules::default());
            }
            let mut model = BTreeSet::new();
            for (member, target, is_pattern) in steps {
                match members.find(member, target, is_pattern) {
                    Some(id) => {
                        prop_assert!(model.remove(&(member, target, is_pattern)));
                        members.remove(id);
                    }
                    None => {
                        prop_assert!(model.insert((member, target, is_pattern)));
                        let state = if is_pattern { State::Pattern } else { State::Live };
                        members.insert(member, target, 0, state, false, false);
                    }
                }
                let mut chained = BTreeSet::new();
                for member in 0..4 {
                    let mut at = members.newest(member);
                    while let Some(id) = at {
                        let own = members.subscription(id);
                        chained.insert((member, own.target, own.state == State::Pattern));
                        at = Some(own.next).filter(|&next| next != NONE);
                    }
                }
                prop_assert_eq!(&chained, &model);
                prop_assert_eq!(members.table.len(), model.len());
            }
        }
    }
}
