//! What becomes of subscribers that take less than is published, by policy; and of shards whose queue is full.

use std::sync::Arc;

use tidegate_hub::{
    Ask, CatchUp, Class, ClientId, Envelope, Fate, Filter, Format, Hub, Kind, Limits, MemberId, MemberRules,
    PUBLICATION_COST, Pattern, Position, Publication, Publish, Refused, Reply, Rule, Slow, Stay, Ticket,
    TopicName, TopicRules, TopicSettings,
};
use tidegate_registry::{Key, Total};

const TICKET: Ticket = Ticket { key: Key::from_bits(1 << 32), request: 1 };

fn rules(settings: TopicSettings, limits: Limits) -> Arc<TopicRules> {
    let filter = Filter::Pattern(Pattern::parse("**").unwrap());
    Arc::new(TopicRules::new(vec![Rule { filter, settings }], TopicSettings::default(), limits))
}

fn enter(hub: &mut Hub, number: u64) -> MemberId {
    let class = Class::plain(Envelope::Protocol);
    hub.enter(Key::from_bits(1 << 32 | number), class, ClientId::from_bits(number), MemberRules::default())
}

fn publish(hub: &mut Hub, topic: &TopicName, keys: &[&str]) {
    for key in keys {
        let key = (!key.is_empty()).then(|| (*key).into());
        let publish = Publish { key, ..Publish::new(Format::Text, vec![0; 10]) };
        hub.publish(None, topic, publish, 0).unwrap();
    }
}

/// `7` for offset 7, `3-5` for a gap, `+a` and `-a` for joins and leaves.
fn read(items: &[Arc<Publication>]) -> String {
    let read = |item: &Arc<Publication>| match item.kind() {
        Kind::Message { .. } => item.offset().to_string(),
        Kind::Gap { from, .. } => format!("{from}-{}", item.offset()),
        Kind::Join { client, .. } => format!("+{client}"),
        Kind::Leave { client } => format!("-{client}"),
        Kind::PresenceGap => "?".to_owned(),
    };
    items.iter().map(read).collect::<Vec<_>>().join(" ")
}

/// Fans out; every subscriber takes at most so many items. What each has taken, by the index of its key.
fn fan_out(hub: &mut Hub, most: impl Fn(u32) -> usize) -> Vec<(u32, String)> {
    let mut taken = Vec::new();
    while let Some(batch) = hub.poll_batch() {
        let mut behind = Vec::new();
        let items = hub.publications(batch);
        for one in hub.audience(batch).iter().filter(|one| !one.lags()) {
            let (begin, end) = (usize::from(one.skip), items.len().min(most(one.key.index())));
            let own: Vec<_> =
                items[begin..end.max(begin)].iter().filter(|item| one.takes(item)).cloned().collect();
            taken.push((one.key.index(), read(&own)));
            if end < items.len() {
                behind.push((one.subscription, end));
            }
        }
        for (subscription, taken) in behind {
            assert_eq!(hub.fell_behind(batch, subscription, taken), Fate::Waits);
        }
        hub.finish_batch(batch);
    }
    taken.sort();
    taken
}

fn catch_up(hub: &mut Hub, member: MemberId) -> String {
    let CatchUp { items, done } = hub.catch_up(member, 1 << 20);
    assert!(done && !hub.lags(member));
    read(&items)
}

/// A slow subscriber has got 2 of the first 3 publications, then lags while six more come; what it gets then, and what it
/// gets live.
fn lagging(settings: TopicSettings) -> (String, Vec<(u32, String)>) {
    let topic = TopicName::parse("a").unwrap();
    let mut hub = Hub::new(0, 1, rules(settings, Limits::default()), 1, &Total::default());
    let (slow, quick) = (enter(&mut hub, 1), enter(&mut hub, 2));
    for member in [slow, quick] {
        hub.subscribe(member, TICKET, &topic, Ask::default(), 0).unwrap();
    }
    publish(&mut hub, &topic, &["x", "y", "z"]);
    let most = |index| if index == 1 { 2 } else { 99 };
    assert_eq!(fan_out(&mut hub, most), [(1, "1 2".to_owned()), (2, "1 2 3".to_owned())]);
    assert!(hub.lags(slow) && !hub.lags(quick));
    publish(&mut hub, &topic, &["x", "y", "x"]);
    assert_eq!(fan_out(&mut hub, most), [(2, "4 5 6".to_owned())]);
    publish(&mut hub, &topic, &["", "x", "z"]);
    assert_eq!(fan_out(&mut hub, most), [(2, "7 8 9".to_owned())]);
    // Two more wait in the next batch: those come live.
    publish(&mut hub, &topic, &["x", "y"]);
    let caught_up = catch_up(&mut hub, slow);
    let live = fan_out(&mut hub, |_| 99);
    hub.leave(slow);
    hub.leave(quick);
    hub.expire(301_000);
    while hub.poll_reply().is_some() {}
    assert!(hub.is_empty());
    assert_eq!(hub.rules().held_bytes(), 0);
    (caught_up, live)
}

#[test]
fn a_lagging_subscriber_gets_what_its_topic_says() {
    let live = vec![(1, "10 11".to_owned()), (2, "10 11".to_owned())];
    let settings = |slow| TopicSettings { slow, ..TopicSettings::default() };
    assert_eq!(lagging(settings(Slow::DropNew)), ("3-9".to_owned(), live.clone()));
    assert_eq!(lagging(settings(Slow::DropOld)), ("3 4 5 6 7 8 9".to_owned(), live.clone()));
    let backlog_bytes = 3 * (PUBLICATION_COST + 10 + 1);
    let short = TopicSettings { backlog_bytes, ..settings(Slow::DropOld) };
    assert_eq!(lagging(short), ("3-6 7 8 9".to_owned(), live.clone()));
    // Of x, y, z and the one without a key the newest.
    assert_eq!(lagging(settings(Slow::Conflate)), ("5 7 8 9".to_owned(), live.clone()));
    let few = TopicSettings { keys: 2, ..settings(Slow::Conflate) };
    assert_eq!(lagging(few), ("3-7 8 9".to_owned(), live.clone()));
    assert_eq!(lagging(settings(Slow::Resync)), ("3-8 9".to_owned(), live));
}

#[test]
fn with_disconnect_it_ends() {
    let topic = TopicName::parse("a").unwrap();
    let mut hub = Hub::new(0, 1, Arc::default(), 1, &Total::default());
    let member = enter(&mut hub, 1);
    hub.subscribe(member, TICKET, &topic, Ask::default(), 0).unwrap();
    publish(&mut hub, &topic, &["x"]);
    let batch = hub.poll_batch().unwrap();
    let subscription = hub.audience(batch)[0].subscription;
    assert_eq!(hub.fell_behind(batch, subscription, 0), Fate::Disconnect);
    hub.finish_batch(batch);
    publish(&mut hub, &topic, &["x"]);
    assert_eq!(fan_out(&mut hub, |_| 99), [], "until it has ended it is left out");
    assert_eq!(hub.counts().fell_behind, [1, 0, 0, 0, 0]);
    hub.leave(member);
    assert!(fan_out(&mut hub, |_| 99).is_empty() && !hub.is_empty(), "answers were not read");
    while hub.poll_reply().is_some() {}
    assert!(hub.is_empty());
}

#[test]
fn catching_up_takes_as_much_as_there_is_room_for() {
    let topic = TopicName::parse("a").unwrap();
    let settings = TopicSettings { slow: Slow::DropOld, ..TopicSettings::default() };
    let mut hub = Hub::new(0, 1, rules(settings, Limits::default()), 1, &Total::default());
    let member = enter(&mut hub, 1);
    hub.subscribe(member, TICKET, &topic, Ask::default(), 0).unwrap();
    publish(&mut hub, &topic, &["x"; 10]);
    fan_out(&mut hub, |_| 0);
    let mut got = Vec::new();
    while hub.lags(member) {
        let CatchUp { items, done } = hub.catch_up(member, 200);
        assert!((1..=4).contains(&items.len()) || done, "{}", items.len());
        got.push(read(&items));
        publish(&mut hub, &topic, &["x"]);
        fan_out(&mut hub, |_| 99);
    }
    assert!(got.len() > 3);
    let all: Vec<u64> = got.join(" ").split_whitespace().map(|offset| offset.parse().unwrap()).collect();
    assert!(all.iter().zip(1..).all(|(offset, wanted)| *offset == wanted), "{all:?}");
}

#[test]
fn by_a_pattern_a_member_lags_in_each_topic_for_itself() {
    let (a, b) = (TopicName::parse("t/a").unwrap(), TopicName::parse("t/b").unwrap());
    let settings = TopicSettings { slow: Slow::DropNew, ..TopicSettings::default() };
    let mut hub = Hub::new(0, 1, rules(settings, Limits::default()), 1, &Total::default());
    let member = enter(&mut hub, 1);
    hub.subscribe_pattern(member, &Pattern::parse("t/*").unwrap()).unwrap();
    publish(&mut hub, &a, &["x", "x"]);
    assert_eq!(fan_out(&mut hub, |_| 1), [(1, "1".to_owned())]);
    publish(&mut hub, &b, &["x"]);
    publish(&mut hub, &a, &["x"]);
    assert_eq!(fan_out(&mut hub, |_| 99), [(1, "1".to_owned())], "of b");
    // Asked for by name as well: what is owed comes with the answer.
    hub.subscribe(member, TICKET, &a, Ask::default(), 0).unwrap();
    let Some((_, Reply::Subscribed { position, first, pattern_offset, .. })) = hub.poll_reply() else {
        panic!()
    };
    assert_eq!((position.offset, read(&first).as_str(), pattern_offset), (3, "2-3", Some(1)));
    assert!(!hub.lags(member));
    publish(&mut hub, &a, &["x"]);
    assert_eq!(fan_out(&mut hub, |_| 99), [(1, "4".to_owned())], "once, though two subscriptions match");
    hub.leave(member);
}

#[test]
fn an_answer_says_up_to_where_a_pattern_has_brought_a_topic() {
    let (topic, pattern) = (TopicName::parse("t/a").unwrap(), Pattern::parse("t/*").unwrap());
    for recover in [false, true] {
        let settings = TopicSettings { history: 10, ..TopicSettings::default() };
        let mut hub = Hub::new(0, 1, rules(settings, Limits::default()), 1, &Total::default());
        let member = enter(&mut hub, 1);
        publish(&mut hub, &topic, &["x"]);
        hub.subscribe_pattern(member, &pattern).unwrap();
        publish(&mut hub, &topic, &["x"]);
        assert_eq!(fan_out(&mut hub, |_| 99), [(1, "2".to_owned())]);
        let ask = |hub: &mut Hub, ask| {
            hub.subscribe(member, TICKET, &topic, ask, 0).unwrap();
            let Some((_, Reply::Subscribed { position, first, pattern_offset, .. })) = hub.poll_reply()
            else {
                panic!()
            };
            hub.unsubscribe(member, &Filter::Topic(topic.clone())).unwrap();
            (position, read(&first), pattern_offset)
        };
        let (begin, first, brought) = ask(&mut hub, Ask::default());
        assert_eq!((begin.offset, first.as_str(), brought), (2, "", None), "nothing is owed");
        publish(&mut hub, &topic, &["x", "x"]);
        let from = Position { offset: 0, ..begin };
        let asked = if recover {
            Ask { recover: Some(from), ..Ask::default() }
        } else {
            Ask { history: 9, ..Ask::default() }
        };
        let (now, first, brought) = ask(&mut hub, asked);
        assert_eq!((now.offset, first.as_str(), brought), (4, "1 2 3 4", Some(2)));
        hub.leave(member);
    }
}

/// Somebody comes under a name, as with a poll, and is there until then.
fn stay(hub: &mut Hub, topic: &TopicName, client: &str, until_ms: u64) {
    let key = Key::from_bits(1 << 32 | 1_000_000);
    let member = hub.enter(key, Class::plain(Envelope::Poll), ClientId::from_bits(0), MemberRules::default());
    let stay = Some(Stay { client: client.into(), key, until_ms });
    hub.subscribe(member, TICKET, topic, Ask { stay, ..Ask::default() }, 0).unwrap();
    hub.leave(member);
    while let Some((_, reply)) = hub.poll_reply() {
        assert!(matches!(reply, Reply::Subscribed { .. }), "{reply:?}");
    }
}

#[test]
fn joins_and_leaves_that_were_missed_come_once_for_each_client() {
    let topic = TopicName::parse("a").unwrap();
    let settings = TopicSettings { slow: Slow::Conflate, presence: true, ..TopicSettings::default() };
    let mut hub = Hub::new(0, 1, rules(settings, Limits::default()), 1, &Total::default());
    let watcher = enter(&mut hub, 1);
    hub.subscribe(watcher, TICKET, &topic, Ask { watches: true, ..Ask::default() }, 0).unwrap();
    stay(&mut hub, &topic, "first", 1_000);
    publish(&mut hub, &topic, &["x"]);
    assert_eq!(fan_out(&mut hub, |_| 1), [(1, "+first".to_owned())]);
    stay(&mut hub, &topic, "second", 2_000);
    stay(&mut hub, &topic, "third", 90_000);
    hub.expire(3_000);
    assert_eq!(fan_out(&mut hub, |_| 99), []);
    let mut missed: Vec<String> = catch_up(&mut hub, watcher).split(' ').map(str::to_owned).collect();
    missed[1..].sort();
    assert_eq!(missed, ["1", "+third", "-first", "-second"]);
}

#[test]
fn joins_and_leaves_that_a_slow_one_misses_are_told() {
    let topic = TopicName::parse("a").unwrap();
    let settings = TopicSettings { slow: Slow::DropNew, presence: true, ..TopicSettings::default() };
    let limits = Limits { memory_bytes: 1 << 30, ..Limits::default() };
    let mut hub = Hub::new(0, 1, rules(settings, limits), 1, &Total::default());
    let watcher = enter(&mut hub, 1);
    hub.subscribe(watcher, TICKET, &topic, Ask { watches: true, ..Ask::default() }, 0).unwrap();
    stay(&mut hub, &topic, "first", 900_000);
    assert_eq!(fan_out(&mut hub, |_| 0), [(1, String::new())]);
    stay_all(&mut hub, &topic, 0..999);
    fan_out(&mut hub, |_| 99);
    let missed = catch_up(&mut hub, watcher);
    assert!(missed.starts_with("+first +client-0 ") && missed.ends_with(" +client-998"), "all: {missed}");

    stay(&mut hub, &topic, "second", 900_000);
    assert_eq!(fan_out(&mut hub, |_| 0), [(1, String::new())]);
    stay_all(&mut hub, &topic, 1_000..2_001);
    fan_out(&mut hub, |_| 99);
    let missed = catch_up(&mut hub, watcher);
    assert!(missed.starts_with("? +client-1001 ") && missed.ends_with(" +client-2000"), "{missed}");
    assert!(!hub.lags(watcher));

    // More than a batch has, beside messages.
    stay_all(&mut hub, &topic, 3_000..69_000);
    publish(&mut hub, &topic, &["x"; 2]);
    let batch = hub.poll_batch().unwrap();
    let items = hub.publications(batch);
    let last: Vec<String> =
        items[items.len() - 2..].iter().map(|item| read(std::slice::from_ref(item))).collect();
    assert_eq!(last, ["?", "1-2"]);
    let joins = items.iter().filter(|item| matches!(item.kind(), Kind::Join { .. })).count();
    assert_eq!(joins, items.len() - 2);
    hub.finish_batch(batch);
}

/// A topic that lives on one of two shards, its subscriber on the other, and room for four letters between them.
struct Apart {
    home: Hub,
    other: Hub,
    topic: TopicName,
    member: MemberId,
}

impl Apart {
    fn new(settings: TopicSettings, ask: Ask) -> Apart {
        let rules = rules(settings, Limits { letters: 4, ..Limits::default() });
        let new = |shard| Hub::new(shard, 2, Arc::clone(&rules), u64::from(shard), &Total::default());
        let (mut home, mut other) = (new(0), new(1));
        let mut names = (0..).map(|n| TopicName::parse(&format!("t/{n}")).unwrap());
        let topic = names.find(|name| name.home(2) == 0).unwrap();
        let member = enter(&mut other, 1);
        other.subscribe(member, TICKET, &topic, ask, 0).unwrap();
        pass(&mut other, 1, &mut home);
        pass(&mut home, 0, &mut other);
        assert!(matches!(other.poll_reply(), Some((_, Reply::Subscribed { .. }))));
        Apart { home, other, topic, member }
    }
}

/// What one hub has written, by its number, comes to the other.
fn pass(from: &mut Hub, number: u16, to: &mut Hub) {
    while let Some((_, letters)) = from.poll_letters() {
        to.receive(number, letters, 0);
    }
}

/// So many clients, by number, come and stay.
fn stay_all(hub: &mut Hub, topic: &TopicName, numbers: std::ops::Range<u32>) {
    for n in numbers {
        stay(hub, topic, &format!("client-{n}"), 900_000);
    }
}

#[test]
fn a_full_queue_between_shards_refuses_or_tells_a_gap() {
    let Apart { mut home, mut other, topic, member } = Apart::new(TopicSettings::default(), Ask::default());

    // The queue from the home is full for two turns; nothing waits there for anybody.
    for _ in 0..2 {
        publish(&mut home, &topic, &["x"; 4]);
        while let Some((to, letters)) = home.poll_letters() {
            home.undelivered(to, letters);
        }
        assert!(home.next_deadline_ms().is_some(), "it is tried again");
    }
    pass(&mut home, 0, &mut other);
    publish(&mut home, &topic, &["x"]);
    pass(&mut home, 0, &mut other);
    assert_eq!(fan_out(&mut other, |_| 99), [(1, "1 2 3 4 5-8 9".to_owned())]);
    assert_eq!(home.counts().left_out, 4);

    // To the home: what cannot be written is refused, and the publisher can be paused.
    assert!(!other.is_busy(&topic));
    publish(&mut other, &topic, &["x"; 4]);
    assert!(other.is_busy(&topic));
    let fifth = Publish::new(Format::Text, Vec::new());
    assert_eq!(other.publish(None, &topic, fifth, 0), Err(Refused::Busy));
    // Subscriptions and what ends them are never left out.
    other.unsubscribe(member, &Filter::Topic(topic.clone())).unwrap();
    other.leave(member);
    pass(&mut other, 1, &mut home);
    assert!(!other.is_busy(&topic));
    pass(&mut home, 0, &mut other);
    assert_eq!(fan_out(&mut other, |_| 99), []);
    assert!(home.is_empty() && other.is_empty());
}

#[test]
fn a_turns_letters_go_once_and_only_where_somebody_subscribes() {
    let rules = rules(TopicSettings::default(), Limits::default());
    let mut hubs =
        [0, 1, 2].map(|shard| Hub::new(shard, 3, Arc::clone(&rules), u64::from(shard), &Total::default()));
    let mut names = (0..).map(|n| TopicName::parse(&format!("t/{n}")).unwrap());
    let topic = names.find(|name| name.home(3) == 0).unwrap();
    let [home, near, _] = &mut hubs;
    let member = enter(near, 1);
    near.subscribe(member, TICKET, &topic, Ask::default(), 0).unwrap();
    pass(near, 1, home);
    pass(home, 0, near);
    let letters = |home: &mut Hub| -> Vec<(u16, usize)> {
        std::iter::from_fn(|| home.poll_letters().map(|(to, letters)| (to, letters.len()))).collect()
    };
    publish(home, &topic, &["x"; 5]);
    assert_eq!(letters(home), [(1, 5)], "one entry of one mailbox, nothing to the third shard");
    near.unsubscribe(member, &Filter::Topic(topic.clone())).unwrap();
    pass(near, 1, home);
    publish(home, &topic, &["x"; 5]);
    assert_eq!(letters(home), [], "nobody is there any more");
}

#[test]
fn joins_and_leaves_for_which_a_queue_has_no_room_are_told() {
    let settings = TopicSettings { presence: true, ..TopicSettings::default() };
    let watches = Ask { watches: true, ..Ask::default() };
    let Apart { mut home, mut other, topic, .. } = Apart::new(settings, watches);
    stay_all(&mut home, &topic, 1..10);
    pass(&mut home, 0, &mut other);
    let told = "+client-1 +client-2 +client-3 +client-4 ?";
    assert_eq!(fan_out(&mut other, |_| 99), [(1, told.to_owned())]);
}

#[test]
fn a_batch_that_is_too_long_ends_with_a_gap() {
    let topic = TopicName::parse("a").unwrap();
    let mut hub = Hub::new(0, 1, Arc::default(), 1, &Total::default());
    let member = enter(&mut hub, 1);
    hub.subscribe(member, TICKET, &topic, Ask::default(), 0).unwrap();
    publish(&mut hub, &topic, &["x"; 70_000]);
    let batch = hub.poll_batch().unwrap();
    let items = hub.publications(batch);
    assert_eq!(items.len(), usize::from(u16::MAX));
    assert_eq!(read(&items[items.len() - 2..]), "65534 65535-70000");
    hub.finish_batch(batch);
}

#[test]
fn what_happened_to_the_slow_is_counted_by_policy() {
    let topic = TopicName::parse("a").unwrap();
    for (slow, passed_over, gaps) in
        [(Slow::DropNew, 5, 1), (Slow::DropOld, 0, 0), (Slow::Conflate, 3, 0), (Slow::Resync, 4, 1)]
    {
        let settings = TopicSettings { slow, ..TopicSettings::default() };
        let mut hub = Hub::new(0, 1, rules(settings, Limits::default()), 1, &Total::default());
        let member = enter(&mut hub, 1);
        hub.subscribe(member, TICKET, &topic, Ask::default(), 0).unwrap();
        publish(&mut hub, &topic, &["x", "x", "y", "x", "y"]);
        fan_out(&mut hub, |_| 0);
        catch_up(&mut hub, member);
        let counts = *hub.counts();
        let own = slow as usize;
        assert_eq!(
            (counts.fell_behind[own], counts.passed_over[own], counts.gaps[own]),
            (1, passed_over, gaps),
            "{slow:?}"
        );
        let shown = format!("{counts:?}");
        assert!(shown.contains(&format!("{}: {passed_over}", slow.as_str())), "{shown}");
    }
}
