//! Against what they say they keep, kept naively.

use proptest::prelude::*;
use tidegate_registry::{Key, Total};

use super::*;
use crate::{
    publication::{Format, Kind, Ledger},
    topic::{Epoch, Position, TopicName},
};

fn ledger() -> Arc<Ledger> {
    Ledger::new(&Total::default(), &Total::default(), &Total::default())
}

fn publication(offset: u64, key: Option<&str>, size: usize, at_ms: u64) -> Arc<Publication> {
    let ledger = ledger();
    let topic = TopicName::parse("t").unwrap();
    let kind = Kind::Message { format: Format::Text, payload: vec![0; size], key: key.map(Into::into) };
    let mut publication = Publication::new(topic.clone(), kind, &ledger);
    Publication::place(&mut publication, &topic, Position { epoch: Epoch(1), offset }, at_ms);
    publication
}

fn offsets<'a>(items: impl IntoIterator<Item = &'a Arc<Publication>>) -> Vec<u64> {
    items.into_iter().map(|item| item.offset()).collect()
}

#[test]
fn a_history_keeps_the_newest_by_count_by_bytes_and_by_age() {
    let by_count = TopicSettings { history: 3, ..TopicSettings::default() };
    let mut history = Recent::default();
    for offset in 1..=5 {
        history.push(&publication(offset, None, 1, offset * 10), &by_count);
    }
    assert_eq!(history.behind(2, 5).map(|items| offsets(&items)), Some(vec![3, 4, 5]));
    assert!(history.behind(1, 5).is_none(), "2 is missing");
    assert_eq!(history.behind(5, 5).map(|items| offsets(&items)), Some(vec![]));
    assert!(history.behind(6, 5).is_none(), "from the future");
    assert_eq!(offsets(&history.last(2, None, usize::MAX)), [4, 5]);
    assert_eq!(offsets(&history.last(9, Some(5), usize::MAX)), [3, 4]);
    assert_eq!(offsets(&history.last(9, Some(1), usize::MAX)), [0_u64; 0]);
    assert_eq!(offsets(&history.last(9, Some(99), usize::MAX)), [3, 4, 5]);
    assert_eq!(offsets(&history.last(9, None, 1)), [5], "one in any case");
    history.expire(40);
    assert_eq!(offsets(&history.last(9, None, usize::MAX)), [5]);
    history.expire(50);
    assert!(history.is_empty() && history.bytes == 0);
    assert!(history.behind(5, 5).is_some() && history.behind(4, 5).is_none());

    let by_bytes = TopicSettings { history: 9, history_bytes: 2 * (PUBLICATION_COST + 100), ..by_count };
    for offset in 6..=9 {
        history.push(&publication(offset, None, 100, 0), &by_bytes);
    }
    assert_eq!(offsets(&history.last(9, None, usize::MAX)), [8, 9]);
    history.push(&publication(10, None, 1 << 20, 0), &by_bytes);
    assert!(history.is_empty(), "larger than all that is kept");
    assert!(history.behind(9, 10).is_none());
}

fn key(text: &str, publisher: Publisher) -> OnceKey {
    OnceKey { text: text.into(), owner: Owner::new(publisher, 0) }
}

#[test]
fn an_idempotency_key_is_known_for_five_minutes_and_for_1024_others() {
    let (mut once, mut shares) = (Once::new(&ledger()), Shares::default());
    let named = |text: &str| key(text, Publisher::Anybody);
    once.insert(named("a"), 1, 1_000, &mut shares);
    assert_eq!(once.find(&named("a"), 1_000 + ONCE_MS - 1), Some(1));
    assert_eq!(once.find(&named("a"), 1_000 + ONCE_MS), None);
    assert_eq!(once.find(&named("b"), 1_000), None);
    for n in 0..ONCE_KEYS as u64 - 1 {
        once.insert(named(&n.to_string()), n + 2, 2_000, &mut shares);
    }
    assert_eq!(once.find(&named("a"), 2_000), Some(1));
    once.insert(named("last"), 5_000, 2_000, &mut shares);
    assert_eq!(once.find(&named("a"), 2_000), None);
    assert_eq!(once.find(&named("0"), 2_000), Some(2));
    assert!(shares.of(named("a").owner) > ONCE_KEYS * ONCE_COST);
    once.expire(2_000 + ONCE_MS, &mut shares);
    assert_eq!((once.uses.len(), once.table.len(), once.next_deadline_ms()), (0, 0, None));
    assert!(once.publishers.is_empty() && shares.0.is_empty());
}

#[test]
fn a_publisher_pushes_out_its_own_idempotency_keys_alone() {
    let (mut once, mut shares) = (Once::new(&ledger()), Shares::default());
    let session = |number: u64| Publisher::Session(Key::from_bits(1 << 32 | number));
    once.insert(key("order", session(1)), 1, 0, &mut shares);
    once.insert(key("order", Publisher::Holder(7)), 2, 0, &mut shares);
    for n in 0..3 * ONCE_KEYS as u64 {
        once.insert(key(&n.to_string(), session(2)), n + 3, 0, &mut shares);
    }
    // A session may come back as another one; who holds a key of a route has a name space of its own.
    assert_eq!(once.find(&key("order", session(3)), 1), Some(1));
    assert_eq!(once.find(&key("order", Publisher::Anybody), 1), Some(1));
    assert_eq!(once.find(&key("order", Publisher::Holder(7)), 1), Some(2));
    assert_eq!(once.find(&key("order", Publisher::Holder(8)), 1), None);
    assert_eq!(once.find(&key("0", session(2)), 1), None);
    assert_eq!(once.uses.len(), ONCE_KEYS + 2);
}

proptest! {
    #[test]
    fn of_each_key_the_newest_is_kept(
        keys in prop::collection::vec((0..6_u8, any::<bool>()), 0..60), most in 1..5_usize, behind in 0..60_u64,
    ) {
        let mut latest = Latest::new(&ledger());
        let mut model: Vec<(u64, u8)> = Vec::new();
        let mut dropped_to = 0;
        for (offset, (key, take_out)) in (1..).zip(keys) {
            let text = key.to_string();
            latest.insert(&publication(offset, (key > 0).then_some(&text), 1, 0), most);
            model.retain(|(_, other)| *other != key);
            model.push((offset, key));
            while model.len() > most {
                dropped_to = dropped_to.max(model.remove(0).0);
            }
            if take_out {
                latest.remove(offset);
                model.pop();
                dropped_to = dropped_to.max(offset);
            }
        }
        let wanted: Vec<u64> = model.iter().map(|(offset, _)| *offset).filter(|offset| *offset > behind).collect();
        prop_assert_eq!(offsets(latest.behind(behind)), wanted);
        prop_assert_eq!(latest.dropped_to(), dropped_to);
        prop_assert_eq!((latest.keys.len(), latest.len()), (model.len(), model.len()));
        let bytes = latest.items.values().map(|item| PUBLICATION_COST + item.bytes()).sum::<usize>();
        prop_assert_eq!(latest.bytes(), bytes);
    }
}
