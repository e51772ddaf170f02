//! What is given up where there is no memory, by whom and in which order; and that a shortage is said to be one only then.

use std::sync::Arc;

use tidegate_hub::{
    Ask, CatchUp, Class, ClientId, Envelope, Fate, Filter, Format, Hub, Kind, Limits, MemberId, MemberRules,
    PUBLICATION_COST, Pattern, Publication, Publish, Refused, Reply, Rule, Slow, Ticket, TopicName,
    TopicRules, TopicSettings,
};
use tidegate_registry::{Key, Total};

const TICKET: Ticket = Ticket { key: Key::from_bits(1 << 32), request: 1 };
/// What one of [`publish`] takes.
const COST: usize = PUBLICATION_COST + 10;

fn rules(settings: TopicSettings, memory_bytes: usize) -> Arc<TopicRules> {
    let filter = Filter::Pattern(Pattern::parse("**").unwrap());
    let limits = Limits { memory_bytes, ..Limits::default() };
    Arc::new(TopicRules::new(vec![Rule { filter, settings }], TopicSettings::default(), limits))
}

fn hubs<const SHARDS: usize>(rules: &Arc<TopicRules>) -> [Hub; SHARDS] {
    std::array::from_fn(|shard| {
        Hub::new(shard as u16, SHARDS as u16, Arc::clone(rules), shard as u64 + 1, &Total::default())
    })
}

fn topic(home: u16, shards: u16) -> TopicName {
    let mut names = (0..).map(|n| TopicName::parse(&format!("t/{n}")).unwrap());
    names.find(|name| name.home(shards) == home).unwrap()
}

fn publish(hub: &mut Hub, topic: &TopicName, now_ms: u64) -> Result<(), Refused> {
    hub.publish(None, topic, Publish::new(Format::Text, vec![0; 10]), now_ms)
}

/// All letters that wait are read; how many were written to each shard.
fn pass<const SHARDS: usize>(hubs: &mut [Hub; SHARDS], now_ms: u64) -> [usize; SHARDS] {
    let mut counts = [0; SHARDS];
    for from in 0..SHARDS {
        let more = carry(hubs, from, now_ms);
        counts.iter_mut().zip(more).for_each(|(count, more)| *count += more);
    }
    counts
}

/// The same of what one shard has written.
fn carry<const SHARDS: usize>(hubs: &mut [Hub; SHARDS], from: usize, now_ms: u64) -> [usize; SHARDS] {
    let mut counts = [0; SHARDS];
    while let Some((to, letters)) = hubs[from].poll_letters() {
        counts[usize::from(to)] += letters.len();
        hubs[usize::from(to)].receive(from as u16, letters, now_ms);
    }
    counts
}

fn kept(hub: &mut Hub, topic: &TopicName) -> u64 {
    hub.state(TICKET, topic, None, 0);
    match hub.poll_reply() {
        Some((_, Reply::State { history, .. })) => history,
        other => panic!("{other:?}"),
    }
}

/// Subscribes somebody who takes nothing, fans out, and gives what its outbox would hold.
fn pinned(hub: &mut Hub) -> Vec<Arc<Publication>> {
    let mut held = Vec::new();
    while let Some(batch) = hub.poll_batch() {
        held.extend_from_slice(hub.publications(batch));
        hub.finish_batch(batch);
    }
    held
}

fn subscribe(hub: &mut Hub, number: u64, topic: &TopicName) -> MemberId {
    let class = Class::plain(Envelope::Protocol);
    let member = hub.enter(
        Key::from_bits(1 << 32 | number),
        class,
        ClientId::from_bits(number),
        MemberRules::default(),
    );
    hub.subscribe(member, TICKET, topic, Ask::default(), 0).unwrap();
    while hub.poll_reply().is_some() {}
    member
}

#[test]
fn histories_at_other_homes_are_given_up_before_anybody_ends() {
    let settings = TopicSettings { history: 1_000, ..TopicSettings::default() };
    let rules = rules(settings, 20 * COST);
    let mut hubs = hubs::<2>(&rules);
    for _ in 0..20 {
        publish(&mut hubs[0], &topic(0, 2), 0).unwrap();
    }
    assert_eq!(rules.held_bytes(), rules.limits().memory_bytes, "one home's history takes all that there is");
    assert_eq!(publish(&mut hubs[1], &topic(1, 2), 0), Err(Refused::Busy));
    assert!(rules.held_bytes() <= rules.limits().memory_bytes, "what was refused is gone");
    pass(&mut hubs, 0);
    assert_eq!(publish(&mut hubs[1], &topic(1, 2), 0), Ok(()), "there is room at once, not 10 ms later");
    assert_eq!(rules.shortages(), 0, "nobody has to end for it");
    pass(&mut hubs, 0);
    assert_eq!(kept(&mut hubs[0], &topic(0, 2)), 18, "no more was given up than was wanted");
}

#[test]
fn shards_are_asked_one_after_the_other() {
    let settings = TopicSettings { history: 1_000, ..TopicSettings::default() };
    let rules = rules(settings, 40 * COST);
    let mut hubs = hubs::<4>(&rules);
    for shard in 1..4 {
        for _ in 0..13 {
            publish(&mut hubs[usize::from(shard)], &topic(shard, 4), 0).unwrap();
        }
    }
    publish(&mut hubs[1], &topic(1, 4), 0).unwrap();
    assert_eq!(publish(&mut hubs[0], &topic(0, 4), 0), Err(Refused::Busy));
    for _ in 0..4 {
        pass(&mut hubs, 0);
    }
    let left = [1, 2, 3].map(|shard| kept(&mut hubs[shard], &topic(shard as u16, 4)));
    assert_eq!(left, [12, 13, 13], "the first that could has given enough");
    assert_eq!(rules.shortages(), 0);
    assert_eq!(publish(&mut hubs[0], &topic(0, 4), 0), Ok(()));
    assert_eq!(pass(&mut hubs, 0), [0; 4], "nobody is asked any more");
}

#[test]
fn room_that_somebody_else_took_is_no_shortage() {
    let settings = TopicSettings { history: 1_000, ..TopicSettings::default() };
    let rules = rules(settings, 40 * COST);
    let mut hubs = hubs::<3>(&rules);
    for (shard, count) in [(1, 10), (2, 30)] {
        for _ in 0..count {
            publish(&mut hubs[usize::from(shard)], &topic(shard, 3), 0).unwrap();
        }
    }
    assert_eq!(publish(&mut hubs[0], &topic(0, 3), 0), Err(Refused::Busy));
    for _ in 0..2 {
        assert_eq!(carry(&mut hubs, 0, 0), [0, 1, 0]);
        assert_eq!(rules.held_bytes(), 38 * COST, "the second of three has given room");
        for _ in 0..2 {
            publish(&mut hubs[2], &topic(2, 3), 0).unwrap();
        }
        assert_eq!(carry(&mut hubs, 1, 0), [1, 0, 0], "and says so at once");
        assert_eq!(rules.shortages(), 0, "the third has histories yet");
        assert!(hubs[0].next_deadline_ms().is_some_and(|deadline_ms| deadline_ms == 0), "it asks again");
        hubs[0].expire(0);
    }
    for _ in 0..3 {
        pass(&mut hubs, 0);
    }
    assert_eq!(rules.shortages(), 0);
    assert_eq!(publish(&mut hubs[0], &topic(0, 3), 0), Ok(()));
    assert_eq!(pass(&mut hubs, 0), [0; 3], "nobody is asked any more");
}

#[test]
fn joins_and_leaves_that_wait_are_given_up_before_anybody_ends() {
    let settings = TopicSettings { slow: Slow::Conflate, presence: true, ..TopicSettings::default() };
    let memory = 200 * PUBLICATION_COST;
    let rules = rules(settings, memory);
    let [mut hub] = hubs::<1>(&rules);
    let topic = topic(0, 1);
    let enter = |hub: &mut Hub, number: u64| {
        let class = Class::plain(Envelope::Protocol);
        let key = Key::from_bits(1 << 32 | number);
        hub.enter(key, class, ClientId::from_bits(number), MemberRules::default())
    };
    let watcher = enter(&mut hub, 1);
    hub.subscribe(watcher, TICKET, &topic, Ask { watches: true, ..Ask::default() }, 0).unwrap();
    publish(&mut hub, &topic, 0).unwrap();
    let batch = hub.poll_batch().unwrap();
    let subscription = hub.audience(batch)[0].subscription;
    assert_eq!(hub.fell_behind(batch, subscription, 1), Fate::Waits);
    hub.finish_batch(batch);
    // Others come and go meanwhile: of each the leave is kept.
    for number in 2..152 {
        let member = enter(&mut hub, number);
        hub.subscribe(member, TICKET, &topic, Ask { attends: true, ..Ask::default() }, 0).unwrap();
        hub.leave(member);
        pinned(&mut hub);
    }
    assert!(rules.held_bytes() > 150 * PUBLICATION_COST, "{}", rules.held_bytes());
    while hub.poll_reply().is_some() {}
    let large = Publish::new(Format::Text, vec![0; memory / 2]);
    let other = TopicName::parse("other").unwrap();
    assert_eq!(hub.publish(None, &other, large, 0), Ok(()));
    pinned(&mut hub);
    assert_eq!(rules.shortages(), 0, "nobody has to end for it");
    // Who comes later is told of, behind the gap.
    let late = enter(&mut hub, 1_000);
    hub.subscribe(late, TICKET, &topic, Ask { attends: true, ..Ask::default() }, 0).unwrap();
    pinned(&mut hub);
    let CatchUp { items, done } = hub.catch_up(watcher, usize::MAX);
    assert!(done);
    let kinds: Vec<&Kind> = items.iter().map(|item| item.kind()).collect();
    assert!(matches!(kinds[..], [Kind::PresenceGap, Kind::Join { .. }]), "{kinds:?}");
    drop(items);
    hub.leave(watcher);
    hub.leave(late);
}

#[test]
fn where_there_is_no_memory_the_newest_message_of_a_topic_that_resyncs_is_a_gap_too() {
    let settings = TopicSettings { slow: Slow::Resync, ..TopicSettings::default() };
    let rules = rules(settings, 30 * COST);
    let [mut hub] = hubs::<1>(&rules);
    let (topic, other) = (topic(0, 1), TopicName::parse("other").unwrap());
    let member = subscribe(&mut hub, 1, &topic);
    let fall_behind = |hub: &mut Hub| {
        publish(hub, &topic, 0).unwrap();
        let batch = hub.poll_batch().unwrap();
        let subscription = hub.audience(batch)[0].subscription;
        assert_eq!(hub.fell_behind(batch, subscription, 1), Fate::Waits);
        hub.finish_batch(batch);
        for _ in 0..2 {
            publish(hub, &topic, 0).unwrap();
        }
        pinned(hub);
    };
    // From where to where, and whether it is a gap.
    let offsets = |hub: &mut Hub| -> Vec<(u64, u64, bool)> {
        let CatchUp { items, done } = hub.catch_up(member, usize::MAX);
        assert!(done);
        let told = items.iter().map(|item| match item.kind() {
            Kind::Gap { from, .. } => (*from, item.offset(), true),
            _ => (item.offset(), item.offset(), false),
        });
        told.collect()
    };
    fall_behind(&mut hub);
    assert_eq!(offsets(&mut hub), [(2, 2, true), (3, 3, false)]);
    fall_behind(&mut hub);
    let large = Publish::new(Format::Text, vec![0; 29 * COST]);
    assert_eq!(hub.publish(None, &other, large, 0), Ok(()));
    assert_eq!(rules.shortages(), 0, "nobody has to end for it");
    assert_eq!(offsets(&mut hub), [(5, 6, true)], "what is missing is said all the same");
    // The next one comes as ever.
    pinned(&mut hub);
    publish(&mut hub, &topic, 0).unwrap();
    assert_eq!(pinned(&mut hub).iter().map(|item| item.offset()).collect::<Vec<_>>(), [7]);
}

#[test]
fn what_outboxes_hold_is_not_free_and_backlogs_go_before_subscribers() {
    let settings = TopicSettings { history: 1_000, slow: Slow::DropOld, ..TopicSettings::default() };
    let rules = rules(settings, 30 * COST);
    let [mut hub] = hubs::<1>(&rules);
    let (held, behind) = (topic(0, 1), TopicName::parse("behind").unwrap());
    subscribe(&mut hub, 1, &held);
    subscribe(&mut hub, 2, &behind);
    // Fifteen that an outbox holds, and fifteen of which a backlog holds fourteen.
    for _ in 0..15 {
        publish(&mut hub, &held, 0).unwrap();
    }
    let outbox = pinned(&mut hub);
    publish(&mut hub, &behind, 0).unwrap();
    let batch = hub.poll_batch().unwrap();
    let subscription = hub.audience(batch)[0].subscription;
    assert_eq!(hub.fell_behind(batch, subscription, 1), Fate::Waits);
    hub.finish_batch(batch);
    for _ in 0..14 {
        publish(&mut hub, &behind, 0).unwrap();
    }
    assert_eq!(pinned(&mut hub).len(), 14);
    assert_eq!(rules.held_bytes(), 30 * COST);
    // The histories hold what others hold as well: all of them go, and then the backlog.
    assert_eq!(publish(&mut hub, &held, 0), Ok(()));
    assert_eq!(rules.shortages(), 0, "nobody has to end for it");
    assert_eq!(hub.counts().trimmed, 30);
    assert_eq!((kept(&mut hub, &held), kept(&mut hub, &behind)), (1, 0));
    assert_eq!(rules.held_bytes(), 16 * COST, "what the outbox holds is left, and what is new");
    assert_eq!(outbox.len(), 15);
    // Now it is the outbox alone that has the memory.
    let mut more = Vec::new();
    while publish(&mut hub, &held, 0).is_ok() {
        more.extend(pinned(&mut hub));
    }
    assert_eq!((more.len(), rules.shortages()), (15, 1));
    assert!(!rules.has_room_again());
    drop((outbox, more));
    assert!(rules.has_room_again());
    assert_eq!(publish(&mut hub, &held, 20), Ok(()));
}

#[test]
fn a_turn_gives_up_so_much_and_the_next_one_goes_on() {
    const COUNT: usize = 20_000;
    let settings =
        TopicSettings { history: COUNT as u32, history_bytes: usize::MAX, ..TopicSettings::default() };
    let rules = rules(settings, COUNT * COST);
    let [mut hub] = hubs::<1>(&rules);
    let topic = topic(0, 1);
    subscribe(&mut hub, 1, &topic);
    for _ in 0..COUNT {
        publish(&mut hub, &topic, 0).unwrap();
    }
    // An outbox holds the same, so that nothing is free however much is given up.
    let outbox = pinned(&mut hub);
    assert_eq!(publish(&mut hub, &topic, 0), Err(Refused::Busy));
    let mut before = hub.counts().trimmed;
    let mut turns = 0;
    while rules.shortages() == 0 {
        assert!(hub.poll_letters().is_none(), "the turn's end");
        assert!(hub.next_deadline_ms().is_some_and(|deadline_ms| deadline_ms == 0), "the next one is wanted");
        hub.expire(0);
        let trimmed = hub.counts().trimmed;
        assert!(trimmed - before <= 4_096, "{} in one turn", trimmed - before);
        before = trimmed;
        turns += 1;
    }
    assert!((4..=6).contains(&turns), "{turns}");
    assert_eq!((before as usize, kept(&mut hub, &topic)), (COUNT, 0));
    assert!(rules.held_bytes() >= COUNT * COST, "all of it is the outbox's");
    drop(outbox);
    assert_eq!(publish(&mut hub, &topic, 20), Ok(()));
}

#[test]
fn a_small_refusal_does_not_hide_a_large_one() {
    let rules = rules(TopicSettings::default(), 100 * COST);
    let [mut hub] = hubs::<1>(&rules);
    let (held, other) = (topic(0, 1), TopicName::parse("other").unwrap());
    subscribe(&mut hub, 1, &held);
    for _ in 0..95 {
        publish(&mut hub, &held, 0).unwrap();
    }
    let mut outbox = pinned(&mut hub);
    let large = || Publish::new(Format::Text, vec![0; 20 * COST]);
    assert_eq!(hub.publish(None, &other, large(), 0), Err(Refused::Busy));
    for _ in 0..5 {
        publish(&mut hub, &held, 0).unwrap();
        outbox.extend(pinned(&mut hub));
    }
    assert_eq!(publish(&mut hub, &other, 20), Err(Refused::Busy));
    assert_eq!(rules.shortages(), 2);
    outbox.truncate(90);
    assert!(!rules.has_room_again(), "for the large one there is none yet");
    outbox.truncate(70);
    assert!(rules.has_room_again());
    // What was wanted then is wanted no more.
    while publish(&mut hub, &held, 40).is_ok() {
        outbox.extend(pinned(&mut hub));
    }
    outbox.truncate(95);
    assert!(rules.has_room_again());
}

#[test]
fn for_what_never_fits_nobody_gives_anything_up() {
    let settings = TopicSettings { history: 100, ..TopicSettings::default() };
    let rules = rules(settings, 20 * COST);
    let [mut hub] = hubs::<1>(&rules);
    let topic = topic(0, 1);
    for _ in 0..10 {
        publish(&mut hub, &topic, 0).unwrap();
    }
    let large = Publish::new(Format::Text, vec![0; 20 * COST]);
    assert_eq!(hub.publish(None, &topic, large, 0), Err(Refused::TooLarge));
    assert_eq!((kept(&mut hub, &topic), rules.shortages()), (10, 0));
}
