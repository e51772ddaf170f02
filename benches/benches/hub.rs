//! Publishing and its fan-out, against a map of vectors; patterns among 10,000.
//!
//! The time is that of one delivery where the group says so: publishing, giving offsets and walking the audience, without
//! frames and sockets. Expected answers stand before each measurement.

use std::{collections::HashMap, hint::black_box, sync::Arc};

use criterion::{Criterion, Throughput};
use tidegate_hub::{
    Ask, Class, ClientId, Envelope, Format, Hub, MemberId, MemberRules, Pattern, Publish, Ticket, TopicName,
    TopicRules,
};
use tidegate_registry::{Key, Total};

const TICKET: Ticket = Ticket { key: Key::from_bits(1 << 32), request: 1 };
const PAYLOAD: [u8; 128] = [b'x'; 128];

fn main() {
    let mut criterion = tidegate_benches::criterion();
    fan_out(&mut criterion);
    topics(&mut criterion);
    across_shards(&mut criterion);
    patterns(&mut criterion);
    subscriptions(&mut criterion);
    criterion.final_summary();
}

fn hub(shard: u16, shards: u16, rules: &Arc<TopicRules>) -> Hub {
    Hub::new(shard, shards, Arc::clone(rules), u64::from(shard), &Total::default())
}

fn enter(hub: &mut Hub, number: usize) -> MemberId {
    let rules = MemberRules { subscriptions: u32::MAX, patterns: u32::MAX };
    let number = number as u64;
    let class = Class::plain(Envelope::Protocol);
    hub.enter(Key::from_bits(1 << 32 | number), class, ClientId::from_bits(number), rules)
}

fn subscribe(hub: &mut Hub, member: MemberId, topic: &TopicName) {
    hub.subscribe(member, TICKET, topic, Ask::default(), 0).unwrap();
    let _ = hub.poll_reply();
}

fn name(number: usize) -> TopicName {
    TopicName::parse(&format!("scores/football/{number}")).unwrap()
}

fn publish(hub: &mut Hub, topic: &TopicName) {
    hub.publish(None, topic, Publish::new(Format::Text, PAYLOAD.to_vec()), 0).unwrap();
}

/// What a shard does for each delivery before it comes to sockets; gives how many there were.
fn deliver(hub: &mut Hub) -> usize {
    let mut deliveries = 0;
    while let Some(batch) = hub.poll_batch() {
        let publications = hub.publications(batch);
        for subscriber in hub.audience(batch) {
            if subscriber.lags() {
                continue;
            }
            for publication in &publications[usize::from(subscriber.skip)..] {
                if subscriber.takes(publication) {
                    black_box((subscriber.key, subscriber.class, publication));
                    deliveries += 1;
                }
            }
        }
        hub.finish_batch(batch);
    }
    deliveries
}

fn fan_out(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fan-out, each delivery");
    for count in [1, 100, 1_000, 16_000] {
        let topic = name(0);
        let mut hub = hub(0, 1, &Arc::default());
        let mut naive: HashMap<String, Vec<Key>> = HashMap::new();
        for number in 0..count {
            let member = enter(&mut hub, number);
            subscribe(&mut hub, member, &topic);
            naive.entry(topic.to_string()).or_default().push(Key::from_bits(1 << 32 | number as u64));
        }
        publish(&mut hub, &topic);
        assert_eq!(deliver(&mut hub), count);
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(format!("{count} subscribers"), |bencher| {
            bencher.iter(|| {
                publish(&mut hub, &topic);
                deliver(&mut hub)
            });
        });
        group.bench_function(format!("{count} subscribers, a map of vectors of keys"), |bencher| {
            bencher.iter(|| {
                let message = Arc::new(PAYLOAD.to_vec());
                let mut outboxes = 0;
                for key in &naive[topic.as_str()] {
                    black_box((key, Arc::clone(&message)));
                    outboxes += 1;
                }
                outboxes
            });
        });
    }
    group.finish();
}

fn topics(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("topics, each delivery");
    for count in [1, 100, 10_000] {
        let topics: Vec<TopicName> = (0..count).map(name).collect();
        let mut hub = hub(0, 1, &Arc::default());
        for number in 0..100 * count {
            let member = enter(&mut hub, number);
            subscribe(&mut hub, member, &topics[number % count]);
        }
        group.throughput(Throughput::Elements(100));
        let mut at = 0;
        group.bench_function(format!("{count} topics with 100 subscribers each"), |bencher| {
            bencher.iter(|| {
                at = (at + 7_919) % count;
                publish(&mut hub, &topics[at]);
                assert_eq!(deliver(&mut hub), 100);
            });
        });
    }
    group.finish();
}

fn across_shards(criterion: &mut Criterion) {
    let rules = Arc::default();
    let mut hubs = [hub(0, 2, &rules), hub(1, 2, &rules)];
    let topic = (0..).map(name).find(|name| name.home(2) == 1).unwrap();
    let mut members = Vec::new();
    for number in 0..1_000 {
        let shard = number % 2;
        members.push(enter(&mut hubs[shard], number));
        hubs[shard].subscribe(members[number], TICKET, &topic, Ask::default(), 0).unwrap();
    }
    let turn = |hubs: &mut [Hub; 2]| {
        // From shard 0 to the home on 1, and back.
        for from in [0, 1] {
            while let Some((to, letters)) = hubs[from].poll_letters() {
                hubs[usize::from(to)].receive(from as u16, letters, 0);
            }
        }
        for hub in hubs.iter_mut() {
            while hub.poll_reply().is_some() {}
        }
        deliver(&mut hubs[0]) + deliver(&mut hubs[1])
    };
    turn(&mut hubs);
    publish(&mut hubs[0], &topic);
    assert_eq!(turn(&mut hubs), 1_000);
    let mut group = criterion.benchmark_group("two shards, each delivery");
    group.throughput(Throughput::Elements(1_000));
    group.bench_function("1,000 subscribers, the home is the other shard", |bencher| {
        bencher.iter(|| {
            publish(&mut hubs[0], &topic);
            turn(&mut hubs)
        });
    });
    group.finish();
}

fn patterns(criterion: &mut Criterion) {
    let mut hub = hub(0, 1, &Arc::default());
    for number in 0..10_000 {
        let member = enter(&mut hub, number);
        let pattern = Pattern::parse(&format!("scores/*/{number}")).unwrap();
        hub.subscribe_pattern(member, &pattern).unwrap();
    }
    let topic = name(4_711);
    publish(&mut hub, &topic);
    assert_eq!(deliver(&mut hub), 1, "one of 10,000 patterns matches");
    let mut group = criterion.benchmark_group("patterns");
    group.bench_function("publish where one of 10,000 patterns matches", |bencher| {
        bencher.iter(|| {
            publish(&mut hub, &topic);
            deliver(&mut hub)
        });
    });
    group.finish();
}

fn subscriptions(criterion: &mut Criterion) {
    let mut hub = hub(0, 1, &Arc::default());
    let topic = name(0);
    for number in 0..16_000 {
        let member = enter(&mut hub, number);
        subscribe(&mut hub, member, &topic);
    }
    let member = enter(&mut hub, 16_000);
    let filter = tidegate_hub::Filter::Topic(topic.clone());
    criterion.bench_function("subscribe and unsubscribe, beside 16,000", |bencher| {
        bencher.iter(|| {
            subscribe(&mut hub, member, &topic);
            hub.unsubscribe(member, &filter)
        });
    });
}
