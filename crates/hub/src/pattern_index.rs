//! Which patterns match a name, without looking at the others.
//!
//! A tree of segments: what it visits for a name are the beginnings of patterns that match the name's beginning.
//! Invariant: a node has a value, or a child; so nothing is left of patterns that are gone.

use hashbrown::HashTable;
use slab::Slab;

use crate::topic::{NAME_SEGMENTS, Pattern, TopicName, hash};

const NONE: u32 = u32::MAX;

/// Values by pattern.
#[derive(Debug)]
pub(crate) struct PatternIndex<T> {
    nodes: Slab<Node<T>>,
    /// Nodes by parent and segment, stars with them.
    children: HashTable<u32>,
    /// The children of the root that a name can meet whatever it is called.
    root: Stars,
    patterns: usize,
    /// Nodes that were looked at for names.
    #[cfg(test)]
    steps: std::cell::Cell<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Stars {
    /// The child for any segment.
    one: u32,
    /// The child for any segments to the end.
    rest: u32,
}

impl Stars {
    const NONE: Stars = Stars { one: NONE, rest: NONE };
}

#[derive(Debug)]
struct Node<T> {
    parent: u32,
    segment: Box<str>,
    children: u32,
    stars: Stars,
    value: Option<T>,
}

impl<T> Default for PatternIndex<T> {
    fn default() -> Self {
        Self {
            nodes: Slab::new(),
            children: HashTable::new(),
            root: Stars::NONE,
            patterns: 0,
            #[cfg(test)]
            steps: std::cell::Cell::default(),
        }
    }
}

impl<T> PatternIndex<T> {
    pub(crate) fn is_empty(&self) -> bool {
        self.patterns == 0
    }

    /// Nodes that were looked at for names.
    #[cfg(test)]
    pub(crate) fn steps(&self) -> usize {
        self.steps.get()
    }

    /// How many patterns have a value.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.patterns
    }

    /// The pattern of a place.
    pub(crate) fn pattern(&self, id: u32) -> Pattern {
        let mut segments = Vec::new();
        let mut at = id;
        while at != NONE {
            let node = &self.nodes[at as usize];
            segments.push(&*node.segment);
            at = node.parent;
        }
        segments.reverse();
        Pattern::parse(&segments.join("/")).expect("a pattern has led here")
    }

    pub(crate) fn find(&self, pattern: &Pattern) -> Option<u32> {
        let mut at = NONE;
        for segment in pattern.as_str().split('/') {
            at = self.child(at, segment)?;
        }
        self.nodes[at as usize].value.as_ref().map(|_| at)
    }

    /// The place of a pattern's value, which is made where there is none.
    pub(crate) fn find_or_insert(&mut self, pattern: &Pattern, value: impl FnOnce() -> T) -> u32 {
        let mut at = NONE;
        for segment in pattern.as_str().split('/') {
            at = match self.child(at, segment) {
                Some(child) => child,
                None => self.grow(at, segment),
            };
        }
        let place = &mut self.nodes[at as usize].value;
        if place.is_none() {
            *place = Some(value());
            self.patterns += 1;
        }
        at
    }

    /// # Panics
    /// If there is no such value.
    pub(crate) fn get(&self, id: u32) -> &T {
        self.nodes[id as usize].value.as_ref().expect("a pattern's place")
    }

    /// # Panics
    /// If there is no such value.
    pub(crate) fn get_mut(&mut self, id: u32) -> &mut T {
        self.nodes[id as usize].value.as_mut().expect("a pattern's place")
    }

    /// Takes a value out, and the nodes that led only to it.
    ///
    /// # Panics
    /// If there is no such value.
    pub(crate) fn remove(&mut self, id: u32) -> T {
        let value = self.nodes[id as usize].value.take().expect("a pattern's place");
        self.patterns -= 1;
        let mut at = id;
        while at != NONE && self.nodes[at as usize].value.is_none() && self.nodes[at as usize].children == 0 {
            let node = self.nodes.remove(at as usize);
            let hash = place_hash(node.parent, &node.segment);
            if let Ok(entry) = self.children.find_entry(hash, |&child| child == at) {
                entry.remove();
            }
            let stars = self.stars_mut(node.parent);
            if stars.one == at {
                stars.one = NONE;
            } else if stars.rest == at {
                stars.rest = NONE;
            }
            at = node.parent;
            if at != NONE {
                self.nodes[at as usize].children -= 1;
            }
        }
        if self.nodes.is_empty() {
            *self = Self::default();
        }
        value
    }

    /// Appends the places of all patterns that match.
    pub(crate) fn matches(&self, name: &TopicName, found: &mut Vec<u32>) {
        if self.patterns == 0 {
            return;
        }
        let mut segments = [""; NAME_SEGMENTS];
        let mut count = 0;
        for (place, segment) in segments.iter_mut().zip(name.as_str().split('/')) {
            *place = segment;
            count += 1;
        }
        self.walk(NONE, &segments[..count], found);
    }

    fn walk(&self, at: u32, segments: &[&str], found: &mut Vec<u32>) {
        #[cfg(test)]
        self.steps.set(self.steps.get() + 1);
        let Some((&segment, rest)) = segments.split_first() else {
            if self.nodes[at as usize].value.is_some() {
                found.push(at);
            }
            return;
        };
        let stars = if at == NONE { self.root } else { self.nodes[at as usize].stars };
        if stars.rest != NONE {
            found.push(stars.rest);
        }
        if stars.one != NONE {
            self.walk(stars.one, rest, found);
        }
        // A name has no segment `*`, so this is not one of the two.
        if let Some(child) = self.child(at, segment) {
            self.walk(child, rest, found);
        }
    }

    fn child(&self, parent: u32, segment: &str) -> Option<u32> {
        let is = |&child: &u32| {
            let node = &self.nodes[child as usize];
            node.parent == parent && &*node.segment == segment
        };
        self.children.find(place_hash(parent, segment), is).copied()
    }

    fn grow(&mut self, parent: u32, segment: &str) -> u32 {
        let node = Node { parent, segment: segment.into(), children: 0, stars: Stars::NONE, value: None };
        // Patterns are bounded by sessions, far below 2³².
        let id = self.nodes.insert(node) as u32;
        let nodes = &self.nodes;
        let hasher = |&child: &u32| place_hash(nodes[child as usize].parent, &nodes[child as usize].segment);
        self.children.insert_unique(place_hash(parent, segment), id, hasher);
        let stars = self.stars_mut(parent);
        match segment {
            "*" => stars.one = id,
            "**" => stars.rest = id,
            _ => {}
        }
        if parent != NONE {
            self.nodes[parent as usize].children += 1;
        }
        id
    }

    fn stars_mut(&mut self, node: u32) -> &mut Stars {
        if node == NONE { &mut self.root } else { &mut self.nodes[node as usize].stars }
    }
}

fn place_hash(parent: u32, segment: &str) -> u64 {
    hash(segment) ^ u64::from(parent).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::topic::Filter;

    fn segment() -> impl Strategy<Value = &'static str> {
        prop_oneof![Just("a"), Just("b"), Just("*")]
    }

    fn pattern() -> impl Strategy<Value = Pattern> {
        (prop::collection::vec(segment(), 1..4), any::<bool>()).prop_map(|(mut segments, rest)| {
            if rest || !segments.contains(&"*") {
                segments.push("**");
            }
            Pattern::parse(&segments.join("/")).unwrap()
        })
    }

    proptest! {
        #[test]
        fn it_finds_what_matches_and_nothing_else(
            patterns in prop::collection::vec(pattern(), 0..12),
            removed in prop::collection::vec(any::<bool>(), 12),
            name in prop::collection::vec(prop_oneof![Just("a"), Just("b"), Just("c")], 1..5),
        ) {
            let name = TopicName::parse(&name.join("/")).unwrap();
            let mut index = PatternIndex::default();
            for pattern in &patterns {
                let id = index.find_or_insert(pattern, || pattern.clone());
                prop_assert_eq!(index.find(pattern), Some(id));
            }
            let mut left: Vec<&Pattern> = patterns.iter().collect();
            for (pattern, removed) in patterns.iter().zip(removed) {
                if removed && let Some(id) = index.find(pattern) {
                    prop_assert_eq!(&index.remove(id), pattern);
                    left.retain(|other| *other != pattern);
                }
            }
            let mut found = Vec::new();
            index.matches(&name, &mut found);
            let mut found: Vec<&str> = found.iter().map(|&id| index.get(id).as_str()).collect();
            let mut wanted: Vec<&str> =
                left.iter().filter(|pattern| pattern.matches(&name)).map(|pattern| pattern.as_str()).collect();
            found.sort_unstable();
            wanted.sort_unstable();
            wanted.dedup();
            prop_assert_eq!(found, wanted);
            for pattern in &left {
                if let Some(id) = index.find(pattern) {
                    index.remove(id);
                }
            }
            prop_assert_eq!((index.len(), index.nodes.len(), index.children.len()), (0, 0, 0));
        }
    }

    /// Each beginning of the name with up to four of its segments as stars is a node: the sum of C(d, s) over depths d from 0 to
    /// 16 and s from 0 to 4.
    #[test]
    fn a_name_costs_at_most_9401_steps_whatever_is_subscribed_to() {
        let mut index = PatternIndex::default();
        let mut count = 0;
        for bits in 1..1_u32 << NAME_SEGMENTS {
            let segment = |place| if bits >> place & 1 == 1 { "*" } else { "a" };
            let segments: Vec<&str> = (0..NAME_SEGMENTS).map(segment).collect();
            if let Ok(Filter::Pattern(pattern)) = Filter::of_subscription(&segments.join("/")) {
                index.find_or_insert(&pattern, || ());
                count += 1;
            }
        }
        assert_eq!(count, 16 + 120 + 560 + 1_820);
        let name = TopicName::parse(&["a"; NAME_SEGMENTS].join("/")).unwrap();
        let mut found = Vec::new();
        index.matches(&name, &mut found);
        assert_eq!(found.len(), count);
        let steps = index.steps.get();
        assert!((9_000..=9_401).contains(&steps), "{steps}");
    }

    #[test]
    fn the_time_grows_with_the_matches_not_with_the_patterns() {
        let mut index = PatternIndex::default();
        for n in 0..10_000 {
            index.find_or_insert(&Pattern::parse(&format!("room/{n}/*")).unwrap(), || n);
        }
        let name = TopicName::parse("room/7777/x").unwrap();
        let mut found = Vec::new();
        index.matches(&name, &mut found);
        assert_eq!(found.iter().map(|&id| *index.get(id)).collect::<Vec<_>>(), [7777]);
    }
}
