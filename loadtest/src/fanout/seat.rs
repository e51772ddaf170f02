//! What a session of the fan-out is beside a session: who it hears, what it publishes.

use std::collections::VecDeque;

use tidegate_wire::{
    frame::{Head, Opcode, encode_header},
    message::Kind,
};

use super::{Echo, FanRules, Fanout, Role, adapter::Incoming};
use crate::{
    fault::Fault,
    payload::{Message, Wrong},
    random::of_message,
    sequence::{Receipt, Sequence},
    session::Context,
};

/// Bytes that wait for being sent, from which on what is due waits as a number.
const OUTBOX_BYTES: usize = 256 << 10;
/// Frames that wait for being sent.
#[derive(Debug, Default)]
struct Outbox {
    bytes: Vec<u8>,
    /// Bytes that the kernel took.
    sent: usize,
    /// Where frames end, and when their messages were due.
    ends: VecDeque<(usize, u64)>,
    /// Bytes of the frames that it took whole.
    whole: usize,
}

/// A session's part in the fan-out.
#[derive(Debug)]
pub(crate) struct Seat {
    role: Role,
    topic: u32,
    /// By the publisher's place in its topic.
    tracks: Box<[Sequence]>,
    /// It never reads: what comes before it has stopped is nothing to anybody.
    is_silent: bool,
    /// The server has not confirmed the subscription.
    awaits_subscription: bool,
    outbox: Outbox,
    /// The number of the next message.
    number: u64,
    /// Messages that are due and are not in the outbox.
    owed: u32,
    /// When the first message is due, and how far apart they are; in an open loop.
    schedule: Option<(u64, f64)>,
}

impl Seat {
    pub(crate) fn new(role: Role, rules: &FanRules) -> Self {
        let topic = rules.topic_of(role);
        let tracks = rules.plan.publishers_of(topic).count();
        Self {
            role,
            topic,
            tracks: vec![Sequence::default(); tracks].into(),
            is_silent: false,
            awaits_subscription: false,
            outbox: Outbox::default(),
            number: 0,
            owed: 0,
            schedule: None,
        }
    }

    /// One that never reads.
    pub(crate) fn silent(role: Role, rules: &FanRules) -> Self {
        Self { is_silent: true, ..Self::new(role, rules) }
    }

    pub(crate) fn role(&self) -> Role {
        self.role
    }

    /// The topic of which it is an audience.
    pub(crate) fn hears(&self) -> Option<u32> {
        match self.role {
            Role::Subscriber(topic) if !self.is_silent => Some(topic),
            Role::Subscriber(_) | Role::Publisher(_) => None,
        }
    }

    pub(crate) fn awaits_subscription(&self) -> bool {
        self.awaits_subscription
    }

    /// Whether it waits for the server to take or to confirm something.
    pub(crate) fn is_busy(&self) -> bool {
        self.awaits_subscription || !self.outgoing().is_empty() || self.owed > 0
    }

    /// Bytes to be sent.
    pub(crate) fn outgoing(&self) -> &[u8] {
        &self.outbox.bytes[self.outbox.sent..]
    }

    /// Whether what is to be sent begins within a frame: nothing may come between.
    pub(crate) fn is_cut(&self) -> bool {
        self.outbox.sent > self.outbox.whole
    }

    /// Messages that were due and are not sent.
    pub(crate) fn unsent(&self) -> u64 {
        match self.role {
            Role::Publisher(_) => self.outbox.ends.len() as u64 + u64::from(self.owed),
            Role::Subscriber(_) => 0,
        }
    }

    /// The session is up.
    pub(crate) fn handle_up(&mut self, cx: &mut Context<'_>) {
        let Some(rules) = &cx.rules.fanout else { return };
        let Role::Subscriber(topic) = self.role else { return };
        if let Some(text) = rules.adapter.subscription(&rules.names[topic as usize]) {
            let mask = (of_message(cx.now_ns, topic, 0) as u32).to_le_bytes();
            put_frame(&mut self.outbox.bytes, Opcode::Text, text.as_bytes(), mask);
            self.outbox.ends.push_back((self.outbox.bytes.len(), 0));
            self.awaits_subscription = true;
        }
    }

    /// The kernel took so many bytes, of which some may be what follows the outbox: that count is returned.
    /// `blocked_ns`: until when the server took none.
    pub(crate) fn handle_sent(
        &mut self,
        count: usize,
        sent_ns: u64,
        blocked_ns: u64,
        cx: &mut Context<'_>,
    ) -> usize {
        let outbox = &mut self.outbox;
        let taken = count.min(outbox.bytes.len() - outbox.sent);
        outbox.sent += taken;
        while let Some((end, due_ns)) = outbox.ends.front().copied()
            && end <= outbox.sent
        {
            outbox.ends.pop_front();
            outbox.whole = end;
            if let (Role::Publisher(publisher), Some(fan)) = (self.role, &mut cx.fan) {
                fan.published(publisher, due_ns, cx.window);
                if self.schedule.is_some() {
                    cx.record_lag(due_ns, sent_ns, blocked_ns);
                }
            }
        }
        if outbox.sent == outbox.bytes.len() {
            outbox.bytes.clear();
            (outbox.sent, outbox.whole) = (0, 0);
        }
        self.refill(cx);
        count - taken
    }

    /// A message came.
    #[inline]
    pub(crate) fn handle_message(&mut self, kind: Kind, message: &[u8], cx: &mut Context<'_>) {
        let (Some(rules), Some(fan)) = (&cx.rules.fanout, &mut cx.fan) else { return };
        let payload = match rules.adapter.unwrap(message) {
            Incoming::Delivery(payload) => payload,
            Incoming::Subscribed => {
                self.awaits_subscription = false;
                return;
            }
            Incoming::Aside => return,
        };
        if self.is_silent {
            return;
        }
        cx.tally.counts.received += 1;
        if !fan.has_begun() {
            cx.tally.fault(Fault::Unexpected);
            return;
        }
        let payloads = &cx.rules.payloads;
        let is_wrong_kind = kind != payloads.kind();
        if is_wrong_kind {
            cx.tally.fault(Fault::WrongKind);
        }
        let plan = &rules.plan;
        let Some(publisher) = payloads.owner(payload).filter(|owner| *owner < plan.publishers) else {
            cx.tally.fault(Fault::Corrupt);
            fan.counts.garbled += u64::from(self.is_subscriber());
            return;
        };
        // Of another topic: as if it were the first of all.
        let is_of_topic = plan.topic(publisher) == self.topic;
        let expected = if is_of_topic { self.tracks[plan.place(publisher)].next() } else { 0 };
        let (number, due_ns) = match payloads.read(publisher, expected, kind, payload) {
            Ok(_) if !is_of_topic => {
                cx.tally.fault(Fault::Misdelivered);
                return;
            }
            Ok(answer) if answer.due_ns.is_some_and(|due_ns| !fan.may_come(due_ns)) => {
                cx.tally.fault(Fault::Unexpected);
                return;
            }
            Ok(answer) => (answer.number, answer.due_ns),
            Err(Wrong::Corrupt(Some(number))) if is_of_topic => {
                cx.tally.fault(Fault::Corrupt);
                (number, None)
            }
            Err(Wrong::Corrupt(_) | Wrong::Misdelivered) => {
                cx.tally.fault(Fault::Corrupt);
                fan.counts.garbled += u64::from(self.is_subscriber());
                return;
            }
        };
        if self.is_subscriber() && !fan.may_have(publisher, number) {
            cx.tally.fault(Fault::Unexpected);
            return;
        }
        match self.tracks[plan.place(publisher)].take(number) {
            Receipt::First { .. } => {}
            Receipt::Late => cx.tally.fault(Fault::Reordered),
            Receipt::Again => {
                cx.tally.fault(Fault::Duplicate);
                return;
            }
        }
        match (self.role, due_ns) {
            (Role::Subscriber(_), Some(due_ns)) if !is_wrong_kind => {
                if cx.window.contains(cx.now_ns) {
                    cx.tally.counts.in_window += 1;
                    cx.tally.counts.bytes_in_window += payload.len() as u64;
                }
                fan.deliver(publisher, number, due_ns, cx.now_ns, cx.window, cx.tally);
            }
            (Role::Subscriber(_), Some(_) | None) => {
                fan.counts.garbled += 1;
                fan.lose(publisher, number, number + 1, cx.window, cx.tally);
            }
            (Role::Publisher(own), _) if own == publisher => {
                fan.counts.to_senders += 1;
                if plan.echo == Echo::Unexpected {
                    cx.tally.fault(Fault::Unexpected);
                }
            }
            (Role::Publisher(_), _) => fan.counts.to_publishers += 1,
        }
    }

    /// The session has ended.
    pub(crate) fn handle_end(&mut self, cx: &mut Context<'_>) {
        let Some(fan) = &mut cx.fan else { return };
        if let Some(topic) = self.hears() {
            let plan: Fanout = *fan.plan();
            for (publisher, track) in plan.publishers_of(topic).zip(&self.tracks) {
                fan.lose(publisher, track.next(), u64::MAX, cx.window, cx.tally);
            }
        }
    }

    /// In an open loop: when the first message is due, and how far apart they are.
    pub(crate) fn begin(&mut self, first_due_ns: u64, interval_ns: f64) {
        self.schedule = Some((first_due_ns, interval_ns));
    }

    /// One more message is due.
    pub(crate) fn owe(&mut self, cx: &mut Context<'_>) {
        self.owed = self.owed.saturating_add(1);
        self.refill(cx);
    }

    /// Puts what may be sent now into the outbox.
    pub(crate) fn refill(&mut self, cx: &mut Context<'_>) {
        let (Some(rules), Role::Publisher(publisher)) = (&cx.rules.fanout, self.role) else { return };
        while self.outbox.bytes.len() < OUTBOX_BYTES {
            let Some(fan) = &mut cx.fan else { return };
            let due_ns = match self.schedule {
                Some((first_ns, interval_ns)) if self.owed > 0 => {
                    self.owed -= 1;
                    first_ns + (self.number as f64 * interval_ns) as u64
                }
                Some(_) => return,
                None if rules.depth.is_some_and(|depth| fan.may_publish(publisher, depth)) => cx.now_ns,
                None => return,
            };
            fan.publish(publisher, due_ns);
            self.put_message(publisher, due_ns, cx, rules);
        }
    }

    fn put_message(&mut self, publisher: u32, due_ns: u64, cx: &Context<'_>, rules: &FanRules) {
        let message = Message { serial: publisher, number: self.number, due_ns };
        self.number += 1;
        let payloads = &cx.rules.payloads;
        let bytes = &mut self.outbox.bytes;
        let start = bytes.len();
        let len = payloads.frame_len(publisher, message.number);
        bytes.resize(start + len, 0);
        payloads.write(&mut bytes[start..], &message, 0);
        let payload = start + len - payloads.size(publisher, message.number);
        // The mask stands before the payload.
        let mut mask = [0; 4];
        mask.copy_from_slice(&bytes[payload - 4..payload]);
        tidegate_simd::unmask(&mut bytes[payload..], mask, 0);
        if let Some(wrapped) = rules.adapter.wrap(&rules.names[self.topic as usize], &bytes[payload..]) {
            bytes.truncate(start);
            let opcode = match payloads.kind() {
                Kind::Text => Opcode::Text,
                Kind::Binary => Opcode::Binary,
            };
            put_frame(bytes, opcode, &wrapped, mask);
        } else {
            tidegate_simd::unmask(&mut bytes[payload..], mask, 0);
        }
        self.outbox.ends.push_back((self.outbox.bytes.len(), due_ns));
    }

    fn is_subscriber(&self) -> bool {
        matches!(self.role, Role::Subscriber(_))
    }
}

/// A masked frame.
fn put_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], mask: [u8; 4]) {
    let mut front = [0; 16];
    let head = Head { fin: true, rsv1: false, opcode, len: payload.len() as u64, mask: Some(mask) };
    let header = encode_header(&mut front, &head);
    out.extend_from_slice(&front[..header]);
    let start = out.len();
    out.extend_from_slice(payload);
    tidegate_simd::unmask(&mut out[start..], mask, 0);
}

#[cfg(test)]
mod tests {
    use tidegate_wire::{
        Limits,
        close::CloseCode,
        deflate::{CodecLimits, Codecs},
        message::Spares,
    };

    use super::*;
    use crate::{
        fanout::{Adapter, AdapterName, Fan},
        payload::{Payloads, Sizes},
        session::{Rules, Traffic},
        tally::{Tally, Window},
    };

    /// A protocol with envelopes, and confirmed subscriptions.
    #[derive(Debug)]
    struct Envelopes;

    impl Adapter for Envelopes {
        fn subscription(&self, topic: &str) -> Option<String> {
            Some(format!("sub {topic}"))
        }

        fn wrap(&self, topic: &str, payload: &[u8]) -> Option<Vec<u8>> {
            Some([format!("pub {topic} ").as_bytes(), payload].concat())
        }

        fn unwrap<'a>(&self, message: &'a [u8]) -> Incoming<'a> {
            match message {
                b"ok" => Incoming::Subscribed,
                [b'm', payload @ ..] => Incoming::Delivery(payload),
                _ => Incoming::Aside,
            }
        }
    }

    /// The payload of a frame of less than 126 bytes.
    fn unmasked(frame: &[u8]) -> Vec<u8> {
        assert_eq!(frame.len(), 6 + usize::from(frame[1] & 0x7f));
        frame[6..].iter().enumerate().map(|(at, byte)| byte ^ frame[2 + at % 4]).collect()
    }

    #[test]
    fn a_protocol_can_ask_by_messages_and_have_envelopes() {
        let plan = Fanout {
            publishers: 1,
            subscribers: 1,
            topics: 1,
            adapter: AdapterName::Broadcast,
            echo: Echo::Any,
            share: 0.0,
        };
        let fanout = FanRules { adapter: &Envelopes, ..FanRules::new(plan, Some(1), 0xabc) };
        let rules = Rules {
            payloads: Payloads::new(Sizes { min: 64, max: 64 }, Kind::Binary, 3),
            limits: Limits { message_bytes: 1 << 20, message_fragments: 16 },
            subprotocols: Vec::new(),
            offer: None,
            timeout_ns: 1_000,
            close_timeout_ns: 100,
            close_code: CloseCode::NORMAL,
            judges: true,
            messages: None,
            stamps: 0,
            fanout: None,
        };
        let rules = Rules { fanout: Some(fanout), ..rules };
        let seat = |role| Seat::new(role, rules.fanout.as_ref().unwrap());
        let (mut publisher, mut subscriber) = (seat(Role::Publisher(0)), seat(Role::Subscriber(0)));
        let mut fan = Fan::new(plan, 0, 1);
        fan.seat(&[1]);
        fan.begin(&[1], std::iter::empty(), 0);
        let (mut tally, mut codecs) = (Tally::new(), Codecs::new(CodecLimits::default()));
        let mut spares = Spares::new(1 << 10);
        let mut cx = Context {
            rules: &rules,
            traffic: Traffic::Off,
            window: Window { from_ns: 0, until_ns: u64::MAX },
            now_ns: 5_000,
            tally: &mut tally,
            codecs: &mut codecs,
            spares: &mut spares,
            fan: Some(&mut fan),
        };
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
        subscriber.handle_message(Kind::Binary, &[b"m", payload].concat(), &mut cx);
        let len = publisher.outgoing().len();
        assert_eq!(publisher.handle_sent(len, 6_000, 0, &mut cx), 0);
        // In a closed loop the next one follows.
        assert!(!publisher.is_cut() && publisher.unsent() == 1);
        assert_eq!((cx.tally.counts.received, cx.tally.counts.faults.total()), (1, 0));
        assert_eq!((cx.tally.counts.answered, cx.tally.latency.count()), (1, 1));
        let counts = cx.fan.as_mut().unwrap().parcel().counts;
        assert_eq!((counts.published, counts.expected, counts.distinct, counts.complete), (1, 1, 1, 1));

        // Until 6,500 the server took nothing: what was due by then did not wait for this program.
        for (due_ns, lags) in [(6_400, 0), (6_600, 1)] {
            publisher.begin(due_ns, 0.0);
            publisher.owe(&mut cx);
            let len = publisher.outgoing().len();
            assert_eq!(publisher.handle_sent(len, 7_000, 6_500, &mut cx), 0);
            assert_eq!(cx.tally.lag.count(), lags);
        }
    }
}
