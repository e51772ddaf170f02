//! What subscriptions take of the heap, and what a publication allocates: counted by the allocator.
//!
//! One test function: the counter is the process's.

#![allow(clippy::print_stdout)]

use std::{alloc::System, sync::Arc};

use cap::Cap;
use tidegate_hub::{
    Ask, Class, ClientId, Envelope, Filter, Format, Hub, Limits, MemberId, MemberRules, Pattern, Publish,
    Reply, Rule, Slow, Stay, Ticket, TopicName, TopicRules, TopicSettings,
};
use tidegate_registry::{Key, Total};

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

const COUNT: usize = 16_000;
const TICKET: Ticket = Ticket { key: Key::from_bits(1 << 32), request: 1 };

fn new_hub() -> Hub {
    Hub::new(0, 1, Arc::new(TopicRules::default()), 1, &Total::default())
}

fn enter(hub: &mut Hub, number: u64) -> MemberId {
    let rules = MemberRules { subscriptions: u32::MAX, patterns: 16 };
    let class = Class::plain(Envelope::Raw);
    hub.enter(Key::from_bits(1 << 32 | number), class, ClientId::from_bits(number), rules)
}

fn subscribe(hub: &mut Hub, member: MemberId, topic: &TopicName) {
    hub.subscribe(member, TICKET, topic, Ask::default(), 0).expect("it is not subscribed");
    assert!(hub.poll_reply().is_some());
}

/// Bytes that a publication to a topic allocates in all, with its fan-out, in steady state.
fn bytes_per_publication(hub: &mut Hub, topic: &TopicName) -> usize {
    let mut last = 0;
    for _ in 0..3 {
        let before = HEAP.total_allocated();
        hub.publish(None, topic, Publish::new(Format::Text, vec![0; 128]), 0).expect("there is room");
        while let Some(batch) = hub.poll_batch() {
            for publication in hub.publications(batch) {
                let frame = publication.frame(Class::plain(Envelope::Raw), |_| None);
                assert!(frame.is_none());
            }
            assert!(!hub.audience(batch).is_empty());
            hub.finish_batch(batch);
        }
        last = HEAP.total_allocated() - before;
    }
    last
}

#[test]
fn a_subscription_takes_at_most_128_bytes() {
    // 16,000 members with a subscription each, to one topic.
    let mut hub = new_hub();
    let topic = TopicName::parse("chat/lobby").expect("a name");
    let first = enter(&mut hub, 0);
    subscribe(&mut hub, first, &topic);
    let alone = bytes_per_publication(&mut hub, &topic);
    let before = HEAP.allocated();
    for number in 1..=COUNT {
        let member = enter(&mut hub, number as u64);
        subscribe(&mut hub, member, &topic);
    }
    let each = (HEAP.allocated() - before) / COUNT;
    println!("a member with its subscription: {each} bytes");
    assert!(each <= 128, "{each}");
    each_count_of_subscriptions_takes_little(&topic);

    let with_all = bytes_per_publication(&mut hub, &topic);
    println!("a publication of 128 bytes allocates {alone} bytes for one subscriber, {with_all} for {COUNT}");
    assert_eq!(alone, with_all, "nothing is allocated for a delivery");
    assert!(alone <= 128 + 320, "{alone}: one publication, one payload");
    drop(hub);

    // One member with 16,000 topics that others are subscribed to already.
    let mut hub = new_hub();
    let topics: Vec<TopicName> =
        (0..COUNT).map(|n| TopicName::parse(&format!("t/{n}")).expect("a name")).collect();
    let (other, most) = (enter(&mut hub, 1), enter(&mut hub, 2));
    let before = HEAP.allocated();
    for topic in &topics {
        subscribe(&mut hub, other, topic);
    }
    println!("a topic with its first subscription: {} bytes", (HEAP.allocated() - before) / COUNT);
    let before = HEAP.allocated();
    for topic in &topics {
        subscribe(&mut hub, most, topic);
    }
    let each = (HEAP.allocated() - before) / COUNT;
    println!("one more subscription of a member: {each} bytes");
    assert!(each <= 128, "{each}");

    hub.leave(other);
    hub.leave(most);
    assert!(hub.is_empty());
    drop(hub);
    let empty = new_hub();
    let before = HEAP.allocated();
    let mut hub = new_hub();
    let member = enter(&mut hub, 1);
    for topic in &topics {
        subscribe(&mut hub, member, topic);
    }
    hub.leave(member);
    let left = HEAP.allocated() - before;
    println!("what is left when all have gone: {left} bytes, with the hub itself");
    assert!(left < 200_000, "{left}");
    drop(empty);

    what_is_kept_counts_as_what_it_takes();
    who_is_there_counts_as_what_it_takes();
}

/// Tables grow in steps, and right behind one there is most of what is not used: so each count is looked at, of members with a
/// subscription each, among them those around each power of two.
fn each_count_of_subscriptions_takes_little(topic: &TopicName) {
    const FEW: usize = 500;
    const MANY: usize = 70_000;
    let mut hub = new_hub();
    let (mut worst, start) = ((0, 0), HEAP.allocated());
    for count in 1..=MANY {
        let member = enter(&mut hub, count as u64);
        subscribe(&mut hub, member, topic);
        let each = (HEAP.allocated() - start).div_ceil(count);
        if count >= FEW {
            assert!(each <= 128, "{count} members with a subscription take {each} bytes each");
            worst = worst.max((each, count));
        }
    }
    println!("a member with its subscription at the worst count, {}: {} bytes", worst.1, worst.0);
}

/// The setting `memory` bounds what is counted, so that must not be less than what is taken.
fn what_is_kept_counts_as_what_it_takes() {
    let filter = Filter::Pattern(Pattern::parse("conf/*").expect("a pattern"));
    let settings = TopicSettings { slow: Slow::Conflate, ..TopicSettings::default() };
    let rules = TopicRules::new(vec![Rule { filter, settings }], TopicSettings::default(), Limits::default());
    let rules = Arc::new(rules);
    let mut hub = Hub::new(0, 1, Arc::clone(&rules), 1, &Total::default());
    for (what, topic, has_key, has_once) in [
        ("an idempotency key of 20 bytes", "once", false, true),
        ("the newest message of a key of 20 bytes", "conf/a", true, false),
    ] {
        let topic = TopicName::parse(topic).expect("a name");
        // Tables double, so that shortly behind that each entry takes the most.
        const COUNT: usize = 600;
        let (heap, counted) = (HEAP.allocated(), rules.held_bytes());
        for n in 0..COUNT {
            let key = || Some(format!("{n:0>20}").into());
            let publish = Publish {
                key: if has_key { key() } else { None },
                once: if has_once { key() } else { None },
                ..Publish::new(Format::Text, Vec::new())
            };
            hub.publish(None, &topic, publish, 0).expect("there is room");
        }
        let (heap, counted) = (HEAP.allocated() - heap, rules.held_bytes() - counted);
        println!("{what}: {} bytes, counted as {}", heap / COUNT, counted / COUNT);
        assert!(heap <= counted, "{what}: {heap} bytes, counted as {counted}");
    }
}

/// The same for who is there.
fn who_is_there_counts_as_what_it_takes() {
    let filter = Filter::Pattern(Pattern::parse("**").expect("a pattern"));
    let settings = TopicSettings { presence: true, ..TopicSettings::default() };
    let limits = Limits { memory_bytes: 1 << 30, ..Limits::default() };
    let rules = Arc::new(TopicRules::new(vec![Rule { filter, settings }], TopicSettings::default(), limits));
    let mut hub = Hub::new(0, 1, Arc::clone(&rules), 1, &Total::default());
    let topic = TopicName::parse("a").expect("a name");
    let members: Vec<MemberId> = (0..COUNT as u64).map(|number| enter(&mut hub, number)).collect();
    let come = |hub: &mut Hub, ask: &dyn Fn(usize) -> Ask| {
        for (number, &member) in members.iter().enumerate() {
            hub.subscribe(member, TICKET, &topic, ask(number), 0).expect("it is not subscribed");
            assert!(matches!(hub.poll_reply(), Some((_, Reply::Subscribed { .. }))));
        }
    };
    let go = |hub: &mut Hub| {
        for &member in &members {
            hub.unsubscribe(member, &Filter::Topic(topic.clone())).expect("it is subscribed");
        }
    };
    let info = || Some("1".repeat(40).into());
    let stay = |number: usize| {
        let key = Key::from_bits(1 << 32 | number as u64);
        Some(Stay { client: format!("{number:0>20}").into(), key, until_ms: 1_000_000 + number as u64 })
    };
    for (what, ask) in [
        ("a session", &(|_| Ask { attends: true, info: info(), ..Ask::default() }) as &dyn Fn(usize) -> Ask),
        ("who goes by a name", &|number| Ask { stay: stay(number), info: info(), ..Ask::default() }),
    ] {
        // All but presence has its memory then.
        come(&mut hub, &|_| Ask::default());
        let (heap, counted) = (HEAP.allocated(), rules.held_bytes());
        go(&mut hub);
        come(&mut hub, ask);
        let (heap, counted) = (HEAP.allocated() - heap, rules.held_bytes() - counted);
        println!("{what} that is there: {} bytes, counted as {}", heap / COUNT, counted / COUNT);
        assert!(heap <= counted, "{what}: {heap} bytes, counted as {counted}");
        go(&mut hub);
    }
}
