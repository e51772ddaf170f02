//! What is tried on purpose: limits, positions that lie, many of everything.

use std::sync::Arc;

use tidegate_hub::{
    Ask, Class, ClientId, Envelope, Epoch, Filter, Format, Hub, Kind, Limits, MemberId, MemberRules,
    PUBLICATION_COST, Pattern, Position, Present, Publish, Publisher, Refused, Reply, Rule, Slow, Stay,
    Ticket, TopicName, TopicRules, TopicSettings,
};
use tidegate_registry::{Key, Total};

fn name(text: &str) -> TopicName {
    TopicName::parse(text).unwrap()
}

fn hub(settings: TopicSettings, limits: Limits) -> Hub {
    let filter = Filter::Pattern(Pattern::parse("**").unwrap());
    let rules = TopicRules::new(vec![Rule { filter, settings }], TopicSettings::default(), limits);
    Hub::new(0, 1, Arc::new(rules), 1, &Total::default())
}

fn enter(hub: &mut Hub, number: u64) -> MemberId {
    let rules = MemberRules { subscriptions: u32::MAX, patterns: u32::MAX };
    let class = Class::plain(Envelope::Raw);
    hub.enter(Key::from_bits(1 << 32 | number), class, ClientId::from_bits(number), rules)
}

const TICKET: Ticket = Ticket { key: Key::from_bits(1 << 32), request: 1 };

fn subscribe(hub: &mut Hub, member: MemberId, topic: &TopicName, ask: Ask) -> Reply {
    hub.subscribe(member, TICKET, topic, ask, 0).unwrap();
    hub.poll_reply().expect("its home is here").1
}

/// Asks for a topic under a name, as a poll does; of which connection, and until when it is present by that. What the hub says.
fn stay(hub: &mut Hub, topic: &TopicName, client: &str, info: Option<&str>, by: u64, until_ms: u64) -> Reply {
    let key = Key::from_bits(1 << 32 | by);
    let member =
        hub.enter(key, Class::plain(Envelope::Poll), ClientId::from_bits(by), MemberRules::default());
    let stay = Some(Stay { client: client.into(), key, until_ms });
    let reply = subscribe(hub, member, topic, Ask { stay, info: info.map(Into::into), ..Ask::default() });
    hub.leave(member);
    reply
}

/// How many are present in a topic.
fn present(hub: &mut Hub, topic: &TopicName) -> u64 {
    hub.presence(TICKET, topic, 0);
    match hub.poll_reply() {
        Some((_, Reply::Presence { count, .. })) => count,
        other => panic!("{other:?}"),
    }
}

fn publish(hub: &mut Hub, topic: &TopicName, payload: &[u8], now_ms: u64) -> Position {
    hub.publish(Some(TICKET), topic, Publish::new(Format::Text, payload.to_vec()), now_ms).unwrap();
    match hub.poll_reply() {
        Some((_, Reply::Published { position, duplicate: false, .. })) => position,
        other => panic!("{other:?}"),
    }
}

/// How many items come to how many subscribers.
fn fan_out(hub: &mut Hub) -> (usize, usize) {
    let (mut items, mut subscribers) = (0, 0);
    while let Some(batch) = hub.poll_batch() {
        items += hub.publications(batch).len();
        subscribers += hub.audience(batch).len();
        hub.finish_batch(batch);
    }
    (items, subscribers)
}

#[test]
fn a_million_subscribe_and_unsubscribe_pairs_leave_nothing() {
    let mut hub = hub(TopicSettings { presence: true, ..TopicSettings::default() }, Limits::default());
    let members: Vec<MemberId> = (0..10).map(|n| enter(&mut hub, n)).collect();
    let topics: Vec<TopicName> = (0..1_000).map(|n| name(&format!("t/{n}"))).collect();
    for round in 0..100 {
        for topic in &topics {
            for &member in &members {
                let ask = Ask { attends: round % 2 == 0, ..Ask::default() };
                subscribe(&mut hub, member, topic, ask);
            }
        }
        publish(&mut hub, &topics[round], b"x", 0);
        for topic in &topics {
            let filter = Filter::Topic(topic.clone());
            for &member in &members {
                hub.unsubscribe(member, &filter).unwrap();
            }
        }
        fan_out(&mut hub);
    }
    assert_eq!((hub.topics(), hub.rules().topics(), hub.rules().subscriptions()), (0, 0, 0));
    for member in members {
        assert_eq!(hub.subscriptions(member), 0);
        hub.leave(member);
    }
    assert!(hub.is_empty());
}

/// Subscribes to a topic and leaves it: where it was, and whether that was where it was said to have been.
fn come_and_go(
    hub: &mut Hub,
    member: MemberId,
    topic: &TopicName,
    recover: Option<Position>,
) -> (Position, Option<bool>) {
    let reply = subscribe(hub, member, topic, Ask { recover, ..Ask::default() });
    hub.unsubscribe(member, &Filter::Topic(topic.clone())).unwrap();
    let Reply::Subscribed { position, recovered, .. } = reply else { panic!("{reply:?}") };
    (position, recovered)
}

#[test]
fn a_topic_counts_as_long_as_something_of_it_is_remembered() {
    let settings = |history| TopicSettings { history, ..TopicSettings::default() };
    for (history, pattern, counts_ms) in [(0, false, 0), (10, false, 60_000), (0, true, 300_000)] {
        let mut hub = hub(settings(history), Limits::default());
        let member = enter(&mut hub, 1);
        if pattern {
            hub.subscribe_pattern(member, &Pattern::parse("*").unwrap()).unwrap();
        }
        let topic = name("a");
        come_and_go(&mut hub, member, &topic, None);
        if pattern {
            publish(&mut hub, &topic, b"x", 0);
            fan_out(&mut hub);
        }
        if counts_ms > 0 {
            hub.expire(counts_ms - 1);
            assert_eq!(hub.rules().topics(), 1, "{counts_ms}");
            hub.expire(counts_ms + 100);
        }
        assert_eq!(hub.rules().topics(), 0, "{counts_ms}");
        hub.leave(member);
        assert!(hub.is_empty());
    }
}

#[test]
fn one_topic_may_come_and_go_as_often_as_it_likes() {
    let mut hub = hub(TopicSettings { history: 10, ..TopicSettings::default() }, Limits::default());
    let member = enter(&mut hub, 1);
    let come_and_go = |hub: &mut _, topic: &_, recover| come_and_go(hub, member, topic, recover);
    let (busy, quiet) = (name("busy"), name("quiet"));
    let (position, _) = come_and_go(&mut hub, &busy, None);
    let (other, _) = come_and_go(&mut hub, &quiet, None);
    for _ in 0..20_000 {
        assert_eq!(come_and_go(&mut hub, &busy, Some(position)), (position, Some(true)));
    }
    // It is remembered once, and has pushed nobody out.
    assert_eq!(come_and_go(&mut hub, &quiet, Some(other)), (other, Some(true)));
    assert_eq!(hub.topics(), 2);
    // Who was there lately is not pushed out by those who came later and went.
    for n in 0..4_000 {
        come_and_go(&mut hub, &name(&format!("t/{n}")), None);
    }
    come_and_go(&mut hub, &busy, None);
    for n in 4_000..8_000 {
        come_and_go(&mut hub, &name(&format!("t/{n}")), None);
    }
    assert_eq!(come_and_go(&mut hub, &busy, Some(position)), (position, Some(true)));
    assert_eq!(hub.topics(), 4_096);
}

#[test]
fn a_topic_with_an_empty_history_is_remembered_for_a_minute_and_not_more_of_them_than_some_thousand() {
    let mut hub = hub(TopicSettings { history: 10, ..TopicSettings::default() }, Limits::default());
    let member = enter(&mut hub, 1);
    let come_and_go = |hub: &mut _, topic: &_, recover| come_and_go(hub, member, topic, recover);
    let first = name("first");
    let (position, _) = come_and_go(&mut hub, &first, None);
    assert_eq!(come_and_go(&mut hub, &first, Some(position)), (position, Some(true)));
    for n in 0..10_000 {
        come_and_go(&mut hub, &name(&format!("t/{n}")), None);
    }
    assert_eq!((hub.topics(), hub.rules().topics()), (4_096, 4_096));
    // Others have pushed it out.
    assert_eq!(come_and_go(&mut hub, &first, Some(position)).1, Some(false));
    let (position, _) = come_and_go(&mut hub, &first, None);
    hub.expire(59_000);
    assert_eq!(come_and_go(&mut hub, &first, Some(position)).1, Some(true));
    while let Some(deadline_ms) = hub.next_deadline_ms() {
        hub.expire(deadline_ms);
    }
    assert_eq!((hub.topics(), hub.rules().topics()), (0, 0));
}

#[test]
fn a_hundred_thousand_topics_with_one_subscriber_each_and_one_member_with_all_of_them() {
    let mut hub = hub(TopicSettings::default(), Limits::default());
    let topics: Vec<TopicName> = (0..100_000).map(|n| name(&format!("t/{n}"))).collect();
    for (number, topic) in (1..).zip(&topics) {
        let member = enter(&mut hub, number);
        subscribe(&mut hub, member, topic, Ask::default());
    }
    let most = enter(&mut hub, 200_000);
    for topic in &topics {
        subscribe(&mut hub, most, topic, Ask::default());
    }
    assert_eq!(hub.subscribe(most, TICKET, &topics[7], Ask::default(), 0), Err(Refused::AlreadySubscribed));
    assert_eq!(hub.subscriptions(most), 100_000);
    for topic in &topics {
        publish(&mut hub, topic, b"x", 0);
    }
    assert_eq!(fan_out(&mut hub), (100_000, 200_000));
    hub.leave(most);
    publish(&mut hub, &topics[99_999], b"x", 0);
    assert_eq!(fan_out(&mut hub), (1, 1));
    assert_eq!(hub.topics(), 100_000);
}

#[test]
fn limits_refuse_and_name_themselves() {
    let limits = Limits { topics: 2, subscriptions: 4, ..Limits::default() };
    let settings = TopicSettings { message_bytes: 3, ..TopicSettings::default() };
    let mut hub = hub(settings, limits);
    let rules = MemberRules { subscriptions: 2, patterns: 1 };
    let class = Class::plain(Envelope::Raw);
    let member = hub.enter(Key::from_bits(1 << 32), class, ClientId::from_bits(1), rules);
    subscribe(&mut hub, member, &name("a"), Ask::default());
    hub.subscribe_pattern(member, &Pattern::parse("b/*").unwrap()).unwrap();
    let more = hub.subscribe(member, TICKET, &name("c"), Ask::default(), 0);
    assert_eq!(more, Err(Refused::TooManySubscriptions));
    hub.unsubscribe(member, &Filter::Topic(name("a"))).unwrap();
    let again = hub.subscribe_pattern(member, &Pattern::parse("b/*").unwrap());
    assert_eq!(again, Err(Refused::AlreadySubscribed));
    let patterns = hub.subscribe_pattern(member, &Pattern::parse("c/*").unwrap());
    assert_eq!(patterns, Err(Refused::TooManySubscriptions));
    let unknown = hub.unsubscribe(member, &Filter::Topic(name("a")));
    assert_eq!(unknown, Err(Refused::NotSubscribed));

    let other = enter(&mut hub, 2);
    subscribe(&mut hub, other, &name("a"), Ask::default());
    subscribe(&mut hub, other, &name("b"), Ask::default());
    let reply = subscribe(&mut hub, other, &name("c"), Ask::default());
    assert!(matches!(reply, Reply::Refused { why: Refused::TooManyTopics, .. }));
    let new = Publish::new(Format::Text, b"x".to_vec());
    assert_eq!(hub.publish(None, &name("c"), new, 0), Err(Refused::TooManyTopics));
    let third = enter(&mut hub, 3);
    subscribe(&mut hub, third, &name("a"), Ask::default());
    let fifth = hub.subscribe(third, TICKET, &name("b"), Ask::default(), 0);
    assert_eq!(fifth, Err(Refused::TooManyInProcess));
    let large = Publish::new(Format::Text, b"four".to_vec());
    assert_eq!(hub.publish(None, &name("a"), large, 0), Err(Refused::TooLarge));
    assert_eq!(
        hub.subscribe(third, TICKET, &name("b"), Ask { watches: true, ..Ask::default() }, 0),
        Err(Refused::NoPresence)
    );
    hub.history(TICKET, &name("a"), 5, None, 0);
    assert!(matches!(hub.poll_reply(), Some((_, Reply::Refused { why: Refused::NoHistory, .. }))));
    hub.presence(TICKET, &name("a"), 0);
    assert!(matches!(hub.poll_reply(), Some((_, Reply::Refused { why: Refused::NoPresence, .. }))));
    for member in [member, other, third] {
        hub.leave(member);
    }
    assert!(hub.is_empty() && fan_out(&mut hub) == (0, 0));
    assert_eq!((hub.rules().topics(), hub.rules().subscriptions()), (0, 0));
}

#[test]
fn a_publication_to_nobody_is_accepted_and_leaves_nothing() {
    let mut hub = hub(TopicSettings::default(), Limits { topics: 1, ..Limits::default() });
    let first = publish(&mut hub, &name("a"), b"x", 0);
    let second = publish(&mut hub, &name("a"), b"x", 0);
    assert_eq!((first.offset, second.offset), (1, 1));
    assert_ne!(first.epoch, second.epoch, "each life has an epoch of its own");
    assert!(hub.is_empty());
    assert_eq!(fan_out(&mut hub), (0, 0));
}

#[test]
fn a_position_that_lies_recovers_nothing() {
    let settings = TopicSettings { history: 10, ..TopicSettings::default() };
    let mut hub = hub(settings, Limits::default());
    let topic = name("a");
    for n in 0..5 {
        publish(&mut hub, &topic, &[n], 0);
    }
    let elsewhere = publish(&mut hub, &name("b"), b"x", 0);
    let here = publish(&mut hub, &topic, b"x", 0);
    assert_eq!(here.offset, 6);
    for (number, from, wanted) in [
        (1, Position { offset: 6, ..here }, Some(0)),
        (2, Position { offset: 4, ..here }, Some(2)),
        (3, Position { offset: 0, ..here }, Some(6)),
        (4, Position { offset: 7, ..here }, None),
        (5, Position { offset: u64::MAX, ..here }, None),
        (6, elsewhere, None),
        (7, Position { epoch: Epoch(here.epoch.0 ^ 1), ..here }, None),
        (8, Position::NOWHERE, None),
    ] {
        let member = enter(&mut hub, number);
        let reply = subscribe(&mut hub, member, &topic, Ask { recover: Some(from), ..Ask::default() });
        let Reply::Subscribed { position, recovered, first, .. } = reply else { panic!("{reply:?}") };
        assert_eq!(position, here, "{from:?}");
        assert_eq!((recovered, first.len()), (Some(wanted.is_some()), wanted.unwrap_or(0)), "{from:?}");
    }
}

#[test]
fn history_ages_and_its_topic_goes_with_it() {
    let settings = TopicSettings { history: 10, history_age_ms: 1_000, ..TopicSettings::default() };
    let mut hub = hub(settings, Limits::default());
    publish(&mut hub, &name("a"), b"1", 10_000);
    publish(&mut hub, &name("a"), b"2", 10_500);
    hub.expire(11_100);
    hub.state(TICKET, &name("a"), None, 11_100);
    assert!(matches!(hub.poll_reply(), Some((_, Reply::State { history: 1, .. }))));
    let deadline = hub.next_deadline_ms().expect("the other ages too");
    assert!((11_500..11_600).contains(&deadline), "{deadline}");
    hub.expire(deadline);
    assert!(hub.is_empty(), "{hub:?}");
}

/// Looks at what is due whenever the hub says so, until then; how often that was.
fn wakes(hub: &mut Hub, until_ms: u64) -> usize {
    let (mut wakes, mut now_ms) = (0, 0);
    while let Some(deadline_ms) = hub.next_deadline_ms().filter(|&deadline_ms| deadline_ms <= until_ms) {
        now_ms = now_ms.max(deadline_ms);
        hub.expire(now_ms);
        wakes += 1;
        assert!(wakes < 10_000, "it never sleeps, at {now_ms}");
    }
    wakes
}

#[test]
fn remembered_topics_that_something_else_keeps_have_nothing_due() {
    const HOUR_MS: u64 = 3_600_000;
    let settings =
        TopicSettings { history: 10, history_age_ms: HOUR_MS, presence: true, ..TopicSettings::default() };
    let mut hub = hub(settings, Limits::default());
    let member = enter(&mut hub, 1);
    for n in 0..2_000 {
        let topic = name(&format!("t/{n}"));
        publish(&mut hub, &topic, b"x", 0);
        come_and_go(&mut hub, member, &topic, None);
    }
    let polled = name("polled");
    stay(&mut hub, &polled, "poller-1", None, 9, 90_000);
    // The wheel turns once in 65 s, and passes each hour's slot then.
    let woken = wakes(&mut hub, HOUR_MS / 2);
    assert!(woken <= 40, "{woken} times in half an hour");
    assert_eq!(present(&mut hub, &polled), 0, "its time was over after 90 s");
    assert_eq!(hub.topics(), 2_000);
    wakes(&mut hub, 2 * HOUR_MS);
    hub.leave(member);
    assert!(hub.is_empty(), "{hub:?}");
}

#[test]
fn a_state_that_is_too_old_has_nothing_due_while_a_key_is_known() {
    let settings = TopicSettings { slow: Slow::Conflate, history_age_ms: 1_000, ..TopicSettings::default() };
    let mut hub = hub(settings, Limits::default());
    for n in 0..2_000 {
        let publish = Publish {
            once: Some("k".into()),
            key: Some("a".into()),
            ..Publish::new(Format::Text, b"x".to_vec())
        };
        hub.publish(None, &name(&format!("t/{n}")), publish, 0).unwrap();
    }
    let woken = wakes(&mut hub, 299_000);
    assert!(woken <= 10, "{woken} times in five minutes");
    wakes(&mut hub, 400_000);
    assert!(hub.is_empty(), "{hub:?}");
}

#[test]
fn the_oldest_histories_give_way_when_memory_is_full_and_recovery_says_so() {
    let settings = TopicSettings { history: 1_000, ..TopicSettings::default() };
    let most = 100 * (PUBLICATION_COST + 100);
    let mut hub = hub(settings, Limits { memory_bytes: most, ..Limits::default() });
    let (old, new) = (name("old"), name("new"));
    let first = publish(&mut hub, &old, &[0; 100], 0);
    for _ in 0..50 {
        publish(&mut hub, &old, &[0; 100], 1);
    }
    let before = publish(&mut hub, &new, &[0; 100], 2);
    for _ in 0..80 {
        publish(&mut hub, &new, &[0; 100], 3);
        fan_out(&mut hub);
        assert!(hub.rules().held_bytes() <= most + PUBLICATION_COST + 100);
    }
    assert!(hub.counts().trimmed >= 30);
    let member = enter(&mut hub, 1);
    let ask = |from| Ask { recover: Some(from), ..Ask::default() };
    let reply = subscribe(&mut hub, member, &old, ask(first));
    assert!(matches!(reply, Reply::Subscribed { recovered: Some(false), .. }), "{reply:?}");
    let reply = subscribe(&mut hub, member, &new, ask(before));
    assert!(matches!(&reply, Reply::Subscribed { recovered: Some(true), first, .. } if first.len() == 80));
}

#[test]
fn what_cannot_be_given_up_makes_publishing_busy() {
    let settings = TopicSettings { history: 10, ..TopicSettings::default() };
    let mut hub = hub(settings, Limits { memory_bytes: 3 * PUBLICATION_COST, ..Limits::default() });
    let member = enter(&mut hub, 1);
    subscribe(&mut hub, member, &name("a"), Ask::default());
    // Nothing is fanned out: all of it is on its way.
    let one = || Publish::new(Format::Text, vec![0; 10]);
    let published = (0..9).filter(|_| hub.publish(None, &name("a"), one(), 0).is_ok()).count();
    assert!((2..=4).contains(&published), "{published}");
    assert!(hub.counts().refused_busy > 0);
    fan_out(&mut hub);
    assert_eq!(hub.publish(None, &name("a"), one(), 20), Ok(()));
}

#[test]
fn an_idempotency_key_publishes_once() {
    let mut hub = hub(TopicSettings::default(), Limits::default());
    let member = enter(&mut hub, 1);
    subscribe(&mut hub, member, &name("a"), Ask::default());
    let once = || Publish { once: Some("k".into()), ..Publish::new(Format::Text, b"x".to_vec()) };
    let mut answers = Vec::new();
    for now_ms in [1_000, 2_000, 302_000] {
        hub.publish(Some(TICKET), &name("a"), once(), now_ms).unwrap();
        match hub.poll_reply() {
            Some((_, Reply::Published { position, duplicate, .. })) => {
                answers.push((position.offset, duplicate));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(answers, [(1, false), (1, true), (2, false)]);
    assert_eq!(fan_out(&mut hub), (2, 1));
    hub.leave(member);
    assert_eq!(hub.topics(), 1, "a key that is known keeps its topic");
    hub.expire(603_000);
    assert!(hub.is_empty());
}

#[test]
fn who_is_there_is_told_to_those_who_watch() {
    let mut hub = hub(TopicSettings { presence: true, ..TopicSettings::default() }, Limits::default());
    let topic = name("a");
    let watches = Ask { watches: true, attends: true, info: Some("1".into()), ..Ask::default() };
    let (first, second) = (enter(&mut hub, 1), enter(&mut hub, 2));
    subscribe(&mut hub, first, &topic, watches);
    assert_eq!(fan_out(&mut hub), (0, 0), "nobody is told of itself");
    subscribe(&mut hub, second, &topic, Ask { attends: true, ..Ask::default() });
    stay(&mut hub, &topic, "poller-1", Some("3"), 8, 5_000);
    stay(&mut hub, &topic, "poller-1", None, 9, 6_000);
    let events = |hub: &mut Hub| {
        let mut events = Vec::new();
        while let Some(batch) = hub.poll_batch() {
            let takers = hub.audience(batch).iter().filter(|one| one.watches()).count();
            for item in hub.publications(batch) {
                assert_eq!(hub.audience(batch).iter().filter(|one| one.takes(item)).count(), takers);
                events.push(match item.kind() {
                    Kind::Join { client, .. } => format!("+{client}"),
                    Kind::Leave { client } => format!("-{client}"),
                    other => panic!("{other:?}"),
                });
            }
            hub.finish_batch(batch);
        }
        events
    };
    let clients = [1, 2].map(ClientId::from_bits);
    assert_eq!(events(&mut hub), [format!("+{}", clients[1].as_str()), "+poller-1".to_owned()]);
    hub.presence(TICKET, &topic, 300);
    let Some((_, Reply::Presence { count: 3, clients: listed, .. })) = hub.poll_reply() else { panic!() };
    assert!(listed.contains(&Present { client: "poller-1".into(), info: Some("3".into()) }));
    hub.expire(6_100);
    hub.leave(second);
    assert_eq!(events(&mut hub), ["-poller-1".to_owned(), format!("-{}", clients[1].as_str())]);
    hub.leave(first);
    assert!(hub.is_empty());
}

/// Who may not be present any more stays subscribed, also where its topic's home has not answered yet.
#[test]
fn who_ends_its_presence_leaves_once_and_stays_subscribed() {
    let settings = TopicSettings { presence: true, ..TopicSettings::default() };
    let filter = Filter::Pattern(Pattern::parse("**").unwrap());
    let rules = vec![Rule { filter, settings }];
    let rules = Arc::new(TopicRules::new(rules, TopicSettings::default(), Limits::default()));
    let total = Total::default();
    let new = |shard| Hub::new(shard, 2, Arc::clone(&rules), 1, &total);
    let (mut home, mut away) = (new(0), new(1));
    let topic = (0..).map(|n| name(&format!("t/{n}"))).find(|name| name.home(2) == 0).unwrap();
    let pass = |from: &mut Hub, number, to: &mut Hub| {
        while let Some((_, letters)) = from.poll_letters() {
            to.receive(number, letters, 0);
        }
    };
    let attends = || Ask { attends: true, ..Ask::default() };
    let watcher = enter(&mut home, 9);
    subscribe(&mut home, watcher, &topic, Ask { watches: true, ..Ask::default() });
    let members = [1, 2, 3].map(|number| enter(&mut away, number));
    let [live, asked, stays] = members;
    for member in [live, stays] {
        away.subscribe(member, TICKET, &topic, attends(), 0).unwrap();
    }
    pass(&mut away, 1, &mut home);
    pass(&mut home, 0, &mut away);
    away.subscribe(asked, TICKET, &topic, attends(), 0).unwrap();
    for _ in 0..2 {
        away.end_presence(live, &topic);
        away.end_presence(asked, &topic);
        away.end_presence(asked, &name("another"));
    }
    pass(&mut away, 1, &mut home);
    pass(&mut home, 0, &mut away);
    assert_eq!(present(&mut home, &topic), 1);
    // Three joins and two leaves, to the one that watches.
    assert_eq!(fan_out(&mut home), (5, 1));
    while away.poll_reply().is_some() {}
    publish(&mut home, &topic, b"news", 0);
    pass(&mut home, 0, &mut away);
    fan_out(&mut home);
    assert_eq!(fan_out(&mut away), (1, 3), "all of them get it");
    for member in members {
        away.leave(member);
    }
    pass(&mut away, 1, &mut home);
    assert_eq!(present(&mut home, &topic), 0);
    assert_eq!(fan_out(&mut home), (1, 1), "who had left does not leave again");
    home.leave(watcher);
    assert!(home.is_empty());
}

#[test]
fn a_new_subscriber_gets_the_newest_of_each_key_and_the_history_once() {
    let settings = TopicSettings { history: 2, slow: Slow::Conflate, keys: 2, ..TopicSettings::default() };
    let mut hub = hub(settings, Limits::default());
    let topic = name("a");
    for key in ["x", "y", "x", "z", "z"] {
        let publish = Publish { key: Some(key.into()), ..Publish::new(Format::Text, b"v".to_vec()) };
        hub.publish(None, &topic, publish, 0).unwrap();
    }
    let offsets = |reply| match reply {
        Reply::Subscribed { first, .. } => first.iter().map(|item| item.offset()).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    let (first, second) = (enter(&mut hub, 1), enter(&mut hub, 2));
    // Two keys are kept: x at 3 and z at 5.
    assert_eq!(offsets(subscribe(&mut hub, first, &topic, Ask::default())), [3, 5]);
    let history = Ask { history: 9, ..Ask::default() };
    assert_eq!(offsets(subscribe(&mut hub, second, &topic, history)), [3, 4, 5]);
    hub.leave(first);
    hub.leave(second);
    assert_eq!(hub.topics(), 1, "what is kept stays for a while");
    hub.expire(301_000);
    assert!(hub.is_empty());
}

#[test]
fn who_has_a_part_of_a_state_gets_the_rest_of_it() {
    let settings = TopicSettings { history: 2, slow: Slow::Conflate, keys: 4, ..TopicSettings::default() };
    let mut hub = hub(settings, Limits::default());
    let topic = name("a");
    let publish = |hub: &mut Hub, keys: &[&str]| {
        for &key in keys {
            let publish = Publish { key: Some(key.into()), ..Publish::new(Format::Text, b"v".to_vec()) };
            hub.publish(None, &topic, publish, 0).unwrap();
        }
    };
    publish(&mut hub, &["w", "x", "y", "x", "z", "y"]);
    let member = enter(&mut hub, 1);
    let Reply::Subscribed { position: here, .. } = subscribe(&mut hub, member, &topic, Ask::default()) else {
        panic!("it is there");
    };
    assert_eq!(here.offset, 6);
    let mut number = 1;
    let mut from = |hub: &mut Hub, position: Position| {
        number += 1;
        let member = enter(hub, number);
        let reply = subscribe(hub, member, &topic, Ask { recover: Some(position), ..Ask::default() });
        hub.leave(member);
        let Reply::Subscribed { recovered, first, .. } = reply else { panic!("{reply:?}") };
        (recovered == Some(true), first.iter().map(|item| item.offset()).collect::<Vec<_>>())
    };
    let at = |offset| Position { offset, ..here };
    // w at 1, x at 4, z at 5, y at 6; the history has the last two.
    for (offset, wanted) in [(0, &[1, 4, 5, 6][..]), (1, &[4, 5, 6]), (3, &[4, 5, 6]), (4, &[5, 6]), (6, &[])]
    {
        assert_eq!(from(&mut hub, at(offset)), (true, wanted.to_vec()), "{offset}");
    }
    // Not from the future, nor from elsewhere: then all from its beginning.
    let whole = (false, vec![1, 4, 5, 6]);
    assert_eq!(from(&mut hub, at(7)), whole);
    assert_eq!(from(&mut hub, Position { epoch: Epoch(here.epoch.0 ^ 1), offset: 4 }), whole);
    // A fifth key: that of w is given up, which whoever had nothing has missed.
    publish(&mut hub, &["v"]);
    assert_eq!(from(&mut hub, at(0)), (false, vec![4, 5, 6, 7]));
    assert_eq!(from(&mut hub, at(1)), (true, vec![4, 5, 6, 7]));
    hub.leave(member);
}

#[test]
fn who_is_there_is_listed_as_far_as_an_answer_has_room() {
    let settings = TopicSettings { presence: true, ..TopicSettings::default() };
    let mut hub = hub(settings, Limits::default());
    let (topic, info) = (name("a"), "1".repeat(1_000));
    for n in 0..400 {
        stay(&mut hub, &topic, &format!("poller-{n}"), Some(&info), n, 60_000);
    }
    hub.presence(TICKET, &topic, 0);
    let Some((_, Reply::Presence { count, clients, .. })) = hub.poll_reply() else { panic!("it is here") };
    assert_eq!(count, 400);
    assert!((250..=262).contains(&clients.len()), "{}", clients.len());
}

#[test]
fn names_are_checked_once_and_then_known() {
    let mut hub = hub(TopicSettings::default(), Limits::default());
    assert!(hub.topic_name("a/*").is_err());
    assert!(hub.topic_name(&"a".repeat(300)).is_err());
    let first = hub.topic_name("a/b").unwrap();
    assert_eq!(hub.topic_name("a/b").unwrap().as_str().as_ptr(), first.as_str().as_ptr());
}

#[test]
fn who_goes_by_a_name_is_there_until_its_last_stream_has_been_gone_for_a_while() {
    let mut hub = hub(TopicSettings { presence: true, ..TopicSettings::default() }, Limits::default());
    let topic = name("a");
    let present = |hub: &mut Hub, now_ms| {
        if hub.next_deadline_ms().is_some_and(|deadline_ms| deadline_ms <= now_ms) {
            hub.expire(now_ms);
        }
        hub.presence(TICKET, &topic, now_ms);
        match hub.poll_reply() {
            Some((_, Reply::Presence { clients, .. })) => clients,
            other => panic!("{other:?}"),
        }
    };
    let open = u64::MAX;
    let key = |by: u64| Key::from_bits(1 << 32 | by);
    stay(&mut hub, &topic, "reader-1", Some("1"), 1, open);
    stay(&mut hub, &topic, "reader-1", None, 2, open);
    assert_eq!(present(&mut hub, 10), [Present { client: "reader-1".into(), info: Some("1".into()) }]);
    hub.depart(&topic, "reader-1", key(1), 30_020, 20);
    assert_eq!(present(&mut hub, 90_000).len(), 1, "its other stream is open");
    // Who has not come, or has gone, takes nobody with it.
    hub.depart(&topic, "reader-1", key(1), 90_000, 90_000);
    hub.depart(&topic, "reader-1", key(7), 90_000, 90_000);
    assert_eq!(present(&mut hub, 90_000).len(), 1);
    hub.depart(&topic, "reader-1", key(2), 130_000, 100_000);
    assert_eq!(present(&mut hub, 129_999).len(), 1, "a browser comes back");
    assert_eq!(present(&mut hub, 130_000), []);
    // Who was not there is not there afterwards.
    hub.depart(&topic, "reader-2", key(3), 200_000, 150_000);
    assert_eq!(present(&mut hub, 150_000), []);
    // Who comes back in time, by whatever way, does not leave, and may say something else.
    stay(&mut hub, &topic, "reader-3", Some("1"), 4, open);
    hub.depart(&topic, "reader-3", key(4), 190_000, 160_000);
    stay(&mut hub, &topic, "reader-3", Some("2"), 5, open);
    assert_eq!(present(&mut hub, 500_000), [Present { client: "reader-3".into(), info: Some("2".into()) }]);
    hub.depart(&topic, "reader-3", key(5), 500_000, 500_000);
    assert_eq!(present(&mut hub, 500_000), []);
    hub.expire(5_000_000);
    assert!(hub.is_empty());
    assert_eq!(hub.rules().held_bytes(), 0);
}

#[test]
fn nobody_comes_or_goes_as_somebodys_connection() {
    let mut hub = hub(TopicSettings { presence: true, ..TopicSettings::default() }, Limits::default());
    let topic = name("a");
    let victim = enter(&mut hub, 1);
    let client = ClientId::from_bits(1);
    subscribe(&mut hub, victim, &topic, Ask { attends: true, info: Some("1".into()), ..Ask::default() });
    stay(&mut hub, &topic, client.as_str(), Some("2"), 9, 60_000);
    hub.depart(&topic, client.as_str(), Key::from_bits(1 << 32 | 9), 0, 10);
    let there = |hub: &mut Hub| {
        hub.presence(TICKET, &topic, 10);
        match hub.poll_reply() {
            Some((_, Reply::Presence { clients, .. })) => clients,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(there(&mut hub), [Present { client: client.as_str().into(), info: Some("1".into()) }]);
    stay(&mut hub, &topic, client.as_str(), Some("2"), 9, 60_000);
    hub.leave(victim);
    assert_eq!(there(&mut hub), []);
    assert!(hub.is_empty());
}

#[test]
fn presence_counts_as_memory_and_takes_a_part_of_it_at_most() {
    let memory = 1 << 20;
    let settings = TopicSettings { presence: true, ..TopicSettings::default() };
    let mut hub = hub(settings, Limits { memory_bytes: memory, ..Limits::default() });
    let rules = Arc::clone(hub.rules());
    let (topic, info) = (name("a"), "1".repeat(1_000));
    let by_name = |hub: &mut Hub, n: u64, until_ms| {
        let topic = name(&format!("t/{}", n % 16));
        let before = present(hub, &topic);
        let reply = stay(hub, &topic, &format!("poller-{n}"), Some(&info), n, until_ms);
        assert!(matches!(reply, Reply::Subscribed { .. }), "{reply:?}");
        present(hub, &topic) > before
    };
    let taken = (0..5_000).take_while(|&n| by_name(&mut hub, n, 60_000)).count() as u64;
    assert!((50..200).contains(&taken), "{taken}");
    assert!((memory / 8..memory / 4).contains(&rules.held_bytes()), "{}", rules.held_bytes());
    // Who is there may stay.
    by_name(&mut hub, 0, 90_000);
    // What names that cost nothing leave free is for those with a connection.
    let attends = || Ask { attends: true, info: Some(info.as_str().into()), ..Ask::default() };
    let mut members: Vec<MemberId> = Vec::new();
    for n in 0..5_000 {
        // Names apart: two of the 64 digits are there twice.
        members.push(enter(&mut hub, (1 << 20) + ((n / 50) << 6) + n % 50));
        let reply = subscribe(&mut hub, members[n as usize], &topic, attends());
        // Those who fill presence keep nobody from the topic.
        assert!(matches!(reply, Reply::Subscribed { .. }), "{reply:?}");
        if present(&mut hub, &topic) <= n {
            break;
        }
    }
    assert!((50..200).contains(&members.len()), "{}", members.len());
    assert!((memory / 4..memory / 2).contains(&rules.held_bytes()), "{}", rules.held_bytes());
    publish(&mut hub, &topic, b"x", 0);
    assert_eq!(fan_out(&mut hub), (1, members.len()), "who is not present gets what others get");
    // Who found no room has nothing to leave.
    let last = *members.last().unwrap();
    let there = present(&mut hub, &topic);
    hub.unsubscribe(last, &Filter::Topic(topic.clone())).unwrap();
    assert_eq!(present(&mut hub, &topic), there);
    hub.expire(60_001);
    assert_eq!(present(&mut hub, &name("t/0")), 1, "it has stayed");
    subscribe(&mut hub, last, &topic, attends());
    assert_eq!(present(&mut hub, &topic), there + 1, "there is room again");
    hub.unsubscribe(last, &Filter::Topic(topic.clone())).unwrap();
    assert_eq!(present(&mut hub, &topic), there);
    hub.expire(90_001);
    for member in members {
        hub.leave(member);
    }
    assert!(hub.is_empty());
    assert_eq!((rules.held_bytes(), rules.topics(), rules.subscriptions()), (0, 0, 0));
}

#[test]
fn who_found_no_room_takes_no_other_subscription_of_its_connection_with_it() {
    let settings = TopicSettings { presence: true, ..TopicSettings::default() };
    let limits = Limits { memory_bytes: 64 << 10, ..Limits::default() };
    let rule = Rule { filter: Filter::Pattern(Pattern::parse("**").unwrap()), settings };
    let rules = Arc::new(TopicRules::new(vec![rule], TopicSettings::default(), limits));
    let [mut home, mut other] =
        [0, 1].map(|shard| Hub::new(shard, 2, Arc::clone(&rules), 1, &Total::default()));
    let carry = |from: &mut Hub, to: &mut Hub, shard: u16| {
        while let Some((_, letters)) = from.poll_letters() {
            to.receive(shard, letters, 0);
        }
    };
    let topic = (0..).map(|n| name(&format!("t/{n}"))).find(|topic| topic.home(2) == 0).unwrap();
    let crowd: Vec<MemberId> = (0..50).map(|n| enter(&mut home, n)).collect();
    for &member in &crowd {
        let info = Some("1".repeat(1_000).into());
        subscribe(&mut home, member, &topic, Ask { attends: true, info, ..Ask::default() });
    }
    assert!((1..50).contains(&present(&mut home, &topic)));
    // It comes where there is no room, takes that back, and comes again where there is some, before the first answer.
    let member = enter(&mut other, 1 << 20);
    let attends = || Ask { attends: true, ..Ask::default() };
    other.subscribe(member, TICKET, &topic, attends(), 0).unwrap();
    carry(&mut other, &mut home, 1);
    other.unsubscribe(member, &Filter::Topic(topic.clone())).unwrap();
    crowd.into_iter().for_each(|member| home.leave(member));
    other.subscribe(member, TICKET, &topic, attends(), 0).unwrap();
    carry(&mut other, &mut home, 1);
    assert_eq!(present(&mut home, &topic), 1);
    carry(&mut home, &mut other, 0);
    carry(&mut other, &mut home, 1);
    assert_eq!(present(&mut home, &topic), 1, "it is subscribed yet");
    other.leave(member);
    carry(&mut other, &mut home, 1);
    assert_eq!(present(&mut home, &topic), 0);
    assert!(home.is_empty());
    assert_eq!(rules.held_bytes(), 0);
}

#[test]
fn idempotency_keys_count_as_memory_and_take_a_part_of_it_at_most() {
    let memory = 1 << 20;
    let mut hub = hub(TopicSettings::default(), Limits { memory_bytes: memory, ..Limits::default() });
    let rules = Arc::clone(hub.rules());
    let once = |hub: &mut Hub, n: usize, now_ms: u64| {
        let topic = name(&format!("t/{}", n / 1_000));
        let publish =
            Publish { once: Some(format!("{n:0>128}").into()), ..Publish::new(Format::Text, Vec::new()) };
        let published = hub.publish(None, &topic, publish, now_ms);
        while hub.poll_reply().is_some() {}
        published
    };
    let taken = (0..10_000).take_while(|&n| once(&mut hub, n, 0).is_ok()).count();
    assert!((100..500).contains(&taken), "{taken}");
    assert!((memory / 21..memory / 16).contains(&rules.held_bytes()), "{}", rules.held_bytes());
    assert_eq!(once(&mut hub, taken, 0), Err(Refused::Busy));
    assert_eq!(once(&mut hub, taken - 1, 0), Ok(()), "it is known: nothing is published");
    // Others find room, each of them, and less and less; all of them together take no more than the part.
    let mut others = Vec::new();
    for session in 1..=12 {
        let key = Publisher::Session(Key::from_bits(1 << 32 | session));
        let publisher = if session == 12 { Publisher::Holder(7) } else { key };
        let once = |hub: &mut Hub, n: usize| {
            let once = Some(format!("{session:0>64}{n:0>64}").into());
            let publish = Publish { once, publisher, ..Publish::new(Format::Text, Vec::new()) };
            hub.publish(None, &name(&format!("t/{}", n / 1_000)), publish, 0)
        };
        others.push((0..10_000).take_while(|&n| once(&mut hub, n).is_ok()).count());
    }
    assert!(others.iter().all(|&count| count > 0) && others[0] > 50 && others[11] > others[10], "{others:?}");
    assert!(rules.held_bytes() < memory / 4 + memory / 16, "{}", rules.held_bytes());
    // Without a key there is room.
    hub.publish(None, &name("t/0"), Publish::new(Format::Text, Vec::new()), 0).unwrap();
    // Five minutes later nothing of them is known.
    hub.expire(300_001);
    assert_eq!(rules.held_bytes(), 0);
    assert_eq!(once(&mut hub, 0, 300_001), Ok(()));
}
