use tidegate_wire::{
    Limits,
    close::CloseCode,
    deflate::{CodecLimits, Codecs},
    message::Spares,
};

use super::*;
use crate::{
    fanout::{Adapter, AdapterName, Fan, fan::FanCounts},
    payload::{Payloads, Sizes},
    session::Traffic,
    tally::{Tally, Window},
};

/// A protocol with envelopes, confirmed subscriptions, and offsets in two digits.
#[derive(Debug)]
struct Envelopes;

impl Adapter for Envelopes {
    fn subscription(&self, topic: &str) -> Option<String> {
        Some(format!("sub {topic}"))
    }

    fn wrap(
        &self,
        topic: &str,
        kind: Kind,
        payload: &[u8],
        _: Option<u32>,
        out: &mut Vec<u8>,
    ) -> Option<Kind> {
        out.extend_from_slice(format!("pub {topic} ").as_bytes());
        out.extend_from_slice(payload);
        Some(kind)
    }

    fn unwrap<'a>(&self, _: &str, kind: Kind, message: &'a [u8], _: &'a mut Vec<u8>) -> Incoming<'a> {
        let number = |digits: &[u8]| u64::from(digits[0] - b'0') * 10 + u64::from(digits[1] - b'0');
        match message {
            b"ok" => Incoming::Subscribed { offset: Some(10) },
            b"no" => Incoming::Rejected { why: b"no" },
            [b'g', from_to @ ..] => Incoming::Gap { from: number(&from_to[..2]), to: number(&from_to[2..]) },
            [b'm', a, b, payload @ ..] => {
                Incoming::Delivery { kind, payload, offset: Some(number(&[*a, *b])) }
            }
            _ => Incoming::Aside,
        }
    }
}

/// What seats work with.
struct World {
    rules: Rules,
    fan: Fan,
    tally: Tally,
    codecs: Codecs,
    spares: Spares,
    now_ns: u64,
}

impl World {
    fn new(plan: Fanout, depth: Option<u32>) -> Self {
        let fanout = FanRules { adapter: &Envelopes, ..FanRules::new(plan, depth, 0xabc) };
        let rules = Rules {
            payloads: Payloads::new(Sizes { min: 64, max: 64 }, Kind::Binary, 3),
            limits: Limits { message_bytes: 1 << 20, message_fragments: 16 },
            subprotocols: Vec::new(),
            offer: None,
            timeout_ns: 1_000,
            close_timeout_ns: 100,
            close_code: CloseCode::NORMAL,
            judges: true,
            waits_for_answers: false,
            messages: None,
            stamps: 0,
            fanout: Some(fanout),
        };
        let mut fan = Fan::new(plan, 0, 1);
        fan.seat(&[plan.subscribers]);
        fan.begin(&[plan.subscribers], std::iter::empty(), 0);
        let (tally, codecs) = (Tally::new(), Codecs::new(CodecLimits::default()));
        Self { rules, fan, tally, codecs, spares: Spares::new(1 << 10), now_ns: 5_000 }
    }

    /// One publisher.
    fn of(subscribers: u32) -> Self {
        let (adapter, echo) = (AdapterName::Broadcast, Echo::Any);
        Self::new(
            Fanout { publishers: 1, subscribers, topics: 1, share: 0.0, keys: 0, adapter, echo },
            Some(1),
        )
    }

    fn seat(&self, role: Role) -> Seat {
        Seat::new(role, self.rules.fanout.as_ref().unwrap())
    }

    fn cx(&mut self) -> Context<'_> {
        Context {
            rules: &self.rules,
            traffic: Traffic::Off,
            window: Window { from_ns: 0, until_ns: u64::MAX },
            now_ns: self.now_ns,
            tally: &mut self.tally,
            codecs: &mut self.codecs,
            spares: &mut self.spares,
            fan: Some(&mut self.fan),
        }
    }

    /// A subscriber that has its topic.
    fn subscriber(&mut self) -> Seat {
        let mut seat = self.seat(Role::Subscriber(0));
        let mut cx = self.cx();
        seat.handle_up(&mut cx);
        let len = seat.outgoing().len();
        seat.handle_sent(len, 0, 0, &mut cx);
        seat.handle_message(Kind::Text, b"ok", &mut cx);
        seat
    }

    /// Has a seat hear a stream's message under an offset.
    fn hear(&mut self, seat: &mut Seat, stream: u32, number: u64, offset: u64) {
        let mut message = format!("m{offset:02}").into_bytes();
        let due_ns = 1_000 + number;
        self.rules.payloads.put_payload(&mut message, &Message { serial: stream, number, due_ns });
        seat.handle_message(Kind::Binary, &message, &mut self.cx());
    }

    fn faults(&self) -> Vec<(Fault, u64)> {
        self.tally.counts.faults.met().collect()
    }

    fn counts(&mut self) -> FanCounts {
        self.fan.parcel().counts
    }
}

/// The payload of a frame of less than 126 bytes.
fn unmasked(frame: &[u8]) -> Vec<u8> {
    assert_eq!(frame.len(), 6 + usize::from(frame[1] & 0x7f));
    frame[6..].iter().enumerate().map(|(at, byte)| byte ^ frame[2 + at % 4]).collect()
}

#[test]
fn a_protocol_can_ask_by_messages_and_have_envelopes() {
    let mut world = World::of(1);
    let (mut publisher, mut subscriber) = (world.seat(Role::Publisher(0)), world.seat(Role::Subscriber(0)));
    let mut cx = world.cx();
    subscriber.handle_up(&mut cx);
    assert!(subscriber.awaits_subscription() && subscriber.is_busy());
    assert_eq!(unmasked(subscriber.outgoing()), b"sub t00000abc_0");
    let len = subscriber.outgoing().len();
    assert_eq!(subscriber.handle_sent(len + 3, 5_000, 0, &mut cx), 3);
    subscriber.handle_message(Kind::Text, b"welcome", &mut cx);
    assert!(subscriber.awaits_subscription());
    subscriber.handle_message(Kind::Text, b"ok", &mut cx);
    assert!(!subscriber.awaits_subscription() && !subscriber.is_busy());

    publisher.refill(&mut cx);
    let sent = unmasked(publisher.outgoing());
    let payload = sent.strip_prefix(b"pub t00000abc_0 ").unwrap();
    assert!(!publisher.is_cut() && publisher.unsent() == 1);
    assert_eq!(publisher.handle_sent(3, 5_000, 0, &mut cx), 0);
    assert!(publisher.is_cut());
    cx.now_ns = 6_000;
    subscriber.handle_message(Kind::Binary, &[b"m11", payload].concat(), &mut cx);
    publisher.free(0, &mut cx);
    let len = publisher.outgoing().len();
    assert_eq!(publisher.handle_sent(len, 6_000, 0, &mut cx), 0);
    // In a closed loop the next one follows.
    assert_eq!((cx.tally.counts.received, cx.tally.counts.faults.total()), (1, 0));
    assert_eq!((cx.tally.counts.answered, cx.tally.latency.count()), (1, 1));
    let counts = cx.fan.as_mut().unwrap().parcel().counts;
    assert_eq!((counts.published, counts.expected, counts.distinct, counts.complete), (2, 2, 1, 1));

    // Until 6,500 the server took nothing: what was due by then did not wait for this program.
    for (due_ns, lags) in [(6_400, 0), (6_600, 1)] {
        publisher.begin(due_ns, 0.0);
        publisher.owe(1, &mut cx);
        let len = publisher.outgoing().len();
        assert_eq!(publisher.handle_sent(len, 7_000, 6_500, &mut cx), 0);
        assert_eq!(cx.tally.lag.count(), lags);
    }
}

#[test]
fn a_subscription_that_is_refused_is_told_with_its_reason() {
    let mut world = World::of(1);
    let mut seat = world.seat(Role::Subscriber(0));
    let mut cx = world.cx();
    seat.handle_up(&mut cx);
    seat.handle_message(Kind::Text, b"no", &mut cx);
    assert!(seat.is_rejected() && seat.awaits_subscription());
    // It does not come up after that.
    seat.handle_message(Kind::Text, b"ok", &mut cx);
    assert!(seat.is_rejected());
    assert_eq!(
        (world.faults(), &*world.tally.reasons),
        (vec![(Fault::Rejected, 1)], &[(Fault::Rejected, "no".to_owned())][..])
    );
    // A publication that is refused ends nothing.
    let mut seat = world.seat(Role::Publisher(0));
    seat.handle_message(Kind::Text, b"no", &mut world.cx());
    assert!(!seat.is_rejected());
    assert_eq!(world.faults(), [(Fault::Rejected, 2)]);
}

#[test]
fn offsets_must_agree_with_what_comes() {
    for (heard, faults, holes) in [
        // Numbers and their offsets, behind 10.
        (&[(0, 11), (1, 12), (2, 13)][..], &[][..], 0),
        // Not told of; it is found to be lost by what was published.
        (&[(0, 11), (2, 13)], &[], 1),
        (&[(0, 11), (0, 11), (1, 12)], &[(Fault::Duplicate, 1)], 0),
        // Published twice: it has another offset.
        (&[(0, 11), (0, 12), (1, 13)], &[(Fault::Duplicate, 1)], 0),
        (&[(0, 11), (2, 13), (1, 12)], &[(Fault::Reordered, 1)], 0),
        // In the order of their numbers, but not of their offsets, and the other way round.
        (&[(0, 11), (1, 13), (2, 12)], &[(Fault::Reordered, 1)], 0),
        (&[(1, 11), (0, 12)], &[(Fault::Reordered, 1)], 0),
        // Another message under an offset that had come; one that was there before the subscription.
        (&[(0, 11), (1, 11), (2, 12)], &[(Fault::Misnumbered, 1)], 0),
        (&[(0, 10), (1, 11)], &[(Fault::Misnumbered, 1)], 0),
        // A number that no message has.
        (&[(0, 11), (1, 13), (2, 14)], &[], 1),
    ] {
        let mut world = World::of(1);
        let mut seat = world.subscriber();
        for &(number, offset) in heard {
            world.hear(&mut seat, 0, number, offset);
        }
        seat.handle_end(&mut world.cx());
        assert_eq!((&*world.faults(), world.counts().holes), (faults, holes), "{heard:?}");
    }
}

#[test]
fn nobody_waits_for_what_is_told_not_to_come() {
    let mut world = World::of(2);
    let (mut one, mut other) = (world.subscriber(), world.subscriber());
    let mut publisher = world.seat(Role::Publisher(0));
    let send = |world: &mut World, publisher: &mut Seat| {
        publisher.free(0, &mut world.cx());
        let len = publisher.outgoing().len();
        publisher.handle_sent(len, 0, 0, &mut world.cx());
    };
    send(&mut world, &mut publisher);
    world.hear(&mut one, 0, 0, 11);
    assert!(!world.fan.is_settled());
    other.handle_message(Kind::Text, b"g1111", &mut world.cx());
    assert_eq!(world.faults(), [(Fault::Gap, 1)]);
    send(&mut world, &mut publisher);
    let counts = world.counts();
    assert_eq!((counts.published, counts.complete), (2, 1));
    // Then it gets the next one, and is not lost twice where it ends.
    world.hear(&mut other, 0, 1, 12);
    other.handle_end(&mut world.cx());
    assert!(!world.fan.is_settled(), "the other one has not had it");
    world.hear(&mut one, 0, 1, 12);
    assert_eq!((world.faults(), world.counts().holes), (vec![(Fault::Gap, 1)], 0));
}

#[test]
fn gaps_must_agree_with_what_comes() {
    for (gap, faults) in [
        // Two have come: offsets 11 and 12.
        (&b"g1314"[..], &[(Fault::Gap, 2)][..]),
        (b"g1213", &[(Fault::Gap, 1), (Fault::Misnumbered, 1)]),
        (b"g1112", &[(Fault::Misnumbered, 1)]),
        (b"g1413", &[(Fault::Misnumbered, 1)]),
        (b"g1010", &[(Fault::Misnumbered, 1)]),
    ] {
        let mut world = World::of(1);
        let mut seat = world.subscriber();
        world.hear(&mut seat, 0, 0, 11);
        world.hear(&mut seat, 0, 1, 12);
        seat.handle_message(Kind::Text, gap, &mut world.cx());
        assert_eq!(world.faults(), faults, "{gap:?}");
    }
    // What was told not to come comes all the same.
    let mut world = World::of(1);
    let mut seat = world.subscriber();
    seat.handle_message(Kind::Text, b"g1112", &mut world.cx());
    world.hear(&mut seat, 0, 2, 13);
    assert_eq!(world.faults(), [(Fault::Gap, 2)]);
    world.hear(&mut seat, 0, 0, 11);
    assert_eq!(world.faults(), [(Fault::Duplicate, 1), (Fault::Gap, 2)]);
}

#[test]
fn where_several_publish_on_a_topic_gaps_count_all_the_same() {
    let (adapter, echo) = (AdapterName::Broadcast, Echo::Any);
    let plan = Fanout { publishers: 2, subscribers: 1, topics: 1, share: 0.0, keys: 0, adapter, echo };
    let mut world = World::new(plan, None);
    let mut seat = world.subscriber();
    world.hear(&mut seat, 1, 0, 11);
    seat.handle_message(Kind::Text, b"g1213", &mut world.cx());
    // One of either publisher is missing.
    world.hear(&mut seat, 0, 1, 14);
    world.hear(&mut seat, 1, 2, 15);
    seat.handle_end(&mut world.cx());
    assert_eq!((world.faults(), world.counts().holes), (vec![(Fault::Gap, 2)], 0));
}
