//! What a session of the fan-out is beside a session: who it hears, what it publishes.

use tidegate_wire::{frame::Opcode, message::Kind};

use super::{
    Echo, FanRules, Fanout, Role,
    adapter::Incoming,
    offsets::Offsets,
    outbox::{Framed, Outbox, put_frame},
    publishing::Publishing,
};
use crate::{
    fault::Fault,
    payload::{Message, Wrong},
    random::of_message,
    sequence::{Receipt, Sequence},
    session::{Context, Rules},
};

/// A session's part in the fan-out.
#[derive(Debug)]
pub(crate) struct Seat {
    role: Role,
    /// Of a publisher on several, the first.
    topic: u32,
    /// By the stream's place in the topic.
    tracks: Box<[Sequence]>,
    /// It never reads: what comes before it has stopped is nothing to anybody.
    is_silent: bool,
    /// Where the protocol tells them.
    offsets: Offsets,
    subscription: Subscription,
    outbox: Outbox,
    /// Of a publisher.
    publishing: Option<Box<Publishing>>,
}

/// How far the session is with asking for its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subscription {
    /// It has not to, or has been told that it has it.
    Done,
    /// The server has not confirmed it.
    Awaited,
    /// The server will not have it.
    Rejected,
}

impl Seat {
    pub(crate) fn new(role: Role, rules: &FanRules) -> Self {
        let topic = rules.topic_of(role);
        let tracks = rules.plan.streams_on(topic).count();
        Self {
            role,
            topic,
            tracks: vec![Sequence::default(); tracks].into(),
            is_silent: false,
            offsets: Offsets::default(),
            subscription: Subscription::Done,
            outbox: Outbox::default(),
            publishing: match role {
                Role::Publisher(publisher) => Some(Box::new(Publishing::new(publisher, rules))),
                Role::Subscriber(_) => None,
            },
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
        self.subscription != Subscription::Done
    }

    /// Whether the server has refused what the session is there for.
    pub(crate) fn is_rejected(&self) -> bool {
        self.subscription == Subscription::Rejected
    }

    /// Whether it waits for the server to take or to confirm something.
    pub(crate) fn is_busy(&self) -> bool {
        let owed = self.publishing.as_deref().map_or(0, Publishing::owed);
        self.awaits_subscription() || !self.outgoing().is_empty() || owed > 0
    }

    /// Bytes to be sent.
    pub(crate) fn outgoing(&self) -> &[u8] {
        self.outbox.outgoing()
    }

    /// Whether what is to be sent begins within a frame: nothing may come between.
    pub(crate) fn is_cut(&self) -> bool {
        self.outbox.is_cut()
    }

    /// Messages that were due and are not sent.
    pub(crate) fn unsent(&self) -> u64 {
        let unsent = |publishing: &Publishing| self.outbox.frames() as u64 + u64::from(publishing.owed());
        self.publishing.as_deref().map_or(0, unsent)
    }

    /// The session is up.
    pub(crate) fn handle_up(&mut self, cx: &mut Context<'_>) {
        let Some(rules) = &cx.rules.fanout else { return };
        let Role::Subscriber(topic) = self.role else { return };
        if let Some(text) = rules.adapter.subscription(&rules.names[topic as usize]) {
            let mask = (of_message(cx.now_ns, topic, 0) as u32).to_le_bytes();
            put_frame(&mut self.outbox.bytes, Opcode::Text, text.as_bytes(), mask);
            self.outbox.end_frame(Framed::Subscription);
            self.subscription = Subscription::Awaited;
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
        let is_open_loop = self.publishing.as_deref().is_some_and(Publishing::is_open_loop);
        let taken = self.outbox.take(count, |framed| {
            let Framed::Message { stream, due_ns } = framed else { return };
            if let Some(fan) = &mut cx.fan {
                fan.published(stream, due_ns, cx.window);
            }
            if is_open_loop {
                cx.record_lag(due_ns, sent_ns, blocked_ns);
            }
        });
        self.refill(cx);
        count - taken
    }

    /// A message came.
    #[inline]
    pub(crate) fn handle_message(&mut self, kind: Kind, message: &[u8], cx: &mut Context<'_>) {
        let (Some(rules), Some(fan)) = (&cx.rules.fanout, &mut cx.fan) else { return };
        let mut scratch = std::mem::take(&mut fan.scratch);
        let topic = &rules.names[self.topic as usize];
        match rules.adapter.unwrap(topic, kind, message, &mut scratch) {
            // Who is silent has stopped reading by now, or will in a moment.
            Incoming::Delivery { .. } | Incoming::Gap { .. } if self.is_silent => {}
            Incoming::Delivery { kind, payload, offset } => self.delivered(kind, payload, offset, rules, cx),
            Incoming::Subscribed { offset } => {
                if self.subscription == Subscription::Awaited {
                    self.subscription = Subscription::Done;
                    self.offsets.begin(offset.unwrap_or(0));
                    if self.outgoing().is_empty() {
                        // It has nothing more to send: its memory goes.
                        self.outbox = Outbox::default();
                    }
                }
            }
            Incoming::Gap { from, to } => self.skipped(from, to, rules, cx),
            Incoming::Rejected { why } => {
                cx.tally.fault(Fault::Rejected);
                cx.tally.give_reason(Fault::Rejected, why);
                if self.subscription == Subscription::Awaited {
                    self.subscription = Subscription::Rejected;
                }
            }
            Incoming::Foreign => cx.tally.fault(Fault::Misdelivered),
            Incoming::Garbled => {
                cx.tally.fault(Fault::Corrupt);
                fan.counts.garbled += u64::from(fan.has_begun() && self.is_subscriber());
            }
            Incoming::Aside => {}
        }
        if let Some(fan) = &mut cx.fan {
            fan.scratch = scratch;
        }
    }

    /// What someone published came.
    #[inline]
    fn delivered(
        &mut self,
        kind: Kind,
        payload: &[u8],
        offset: Option<u64>,
        rules: &FanRules,
        cx: &mut Context<'_>,
    ) {
        let Some(fan) = &mut cx.fan else { return };
        cx.tally.counts.received += 1;
        if !fan.has_begun() {
            cx.tally.fault(Fault::Unexpected);
            return;
        }
        // Whatever it holds, its place is taken.
        let placed = offset.map(|offset| self.offsets.take(offset));
        let payloads = &cx.rules.payloads;
        let is_wrong_kind = kind != payloads.kind();
        if is_wrong_kind {
            cx.tally.fault(Fault::WrongKind);
        }
        let plan = &rules.plan;
        let Some(stream) = payloads.owner(payload).filter(|owner| *owner < plan.streams()) else {
            cx.tally.fault(Fault::Corrupt);
            fan.counts.garbled += u64::from(self.is_subscriber());
            return;
        };
        // Of another topic: as if it were the first of all.
        let is_of_topic = plan.topic(stream) == self.topic;
        let expected = if is_of_topic { self.tracks[plan.place(stream)].next() } else { 0 };
        let (number, due_ns) = match payloads.read(stream, expected, kind, payload) {
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
        if self.is_subscriber() && !fan.may_have(stream, number) {
            cx.tally.fault(Fault::Unexpected);
            return;
        }
        let receipt = self.tracks[plan.place(stream)].take(number);
        if receipt == Receipt::Again {
            // The same message under the same offset is one mistake, not two.
            cx.tally.fault(Fault::Duplicate);
            return;
        }
        if receipt == Receipt::Late || placed == Some(Some(Receipt::Late)) {
            cx.tally.fault(Fault::Reordered);
        }
        if matches!(placed, Some(None | Some(Receipt::Again))) {
            // A new message under an offset that had come, or that cannot be.
            cx.tally.fault(Fault::Misnumbered);
        }
        match (self.role, due_ns) {
            (Role::Subscriber(_), Some(due_ns)) if !is_wrong_kind => {
                if cx.window.contains(cx.now_ns) {
                    cx.tally.counts.in_window += 1;
                    cx.tally.counts.bytes_in_window += payload.len() as u64;
                }
                fan.deliver(stream, number, due_ns, cx.now_ns, cx.window, cx.tally);
            }
            (Role::Subscriber(_), Some(_) | None) => {
                fan.counts.garbled += 1;
                fan.lose(stream, number, number + 1, cx.window, cx.tally);
            }
            (Role::Publisher(own), _) if own == plan.publisher(stream) => {
                fan.counts.to_senders += 1;
                if plan.echo == Echo::Unexpected {
                    cx.tally.fault(Fault::Unexpected);
                }
            }
            (Role::Publisher(_), _) => fan.counts.to_publishers += 1,
        }
    }

    /// The server told that what has these offsets will not come.
    #[cold]
    fn skipped(&mut self, from: u64, to: u64, rules: &FanRules, cx: &mut Context<'_>) {
        let Some(fan) = &mut cx.fan else { return };
        let Role::Subscriber(topic) = self.role else { return };
        let Some(gap) = self.offsets.skip(from, to) else {
            cx.tally.fault(Fault::Misnumbered);
            return;
        };
        if gap.contradicts {
            cx.tally.fault(Fault::Misnumbered);
        }
        cx.tally.counts.faults.add(Fault::Gap, gap.count);
        let mut streams = rules.plan.streams_on(topic);
        // Of several streams nobody knows whose messages are meant: those that wait for them do until the time-out.
        if let ([track], Some(stream)) = (&mut *self.tracks, streams.next()) {
            // Nothing was published before the subscription, so places in the topic are the stream's numbers.
            let (from, until) = (gap.ahead.0.max(track.next()), gap.ahead.1);
            if from < until && fan.may_have(stream, until - 1) {
                track.excuse(from, until);
                fan.lose(stream, from, until, cx.window, cx.tally);
            }
        }
    }

    /// The session has ended.
    pub(crate) fn handle_end(&mut self, cx: &mut Context<'_>) {
        let Some(fan) = &mut cx.fan else { return };
        if let Some(topic) = self.hears() {
            fan.counts.holes += self.offsets.holes();
            let plan: Fanout = *fan.plan();
            for (stream, track) in plan.streams_on(topic).zip(&self.tracks) {
                fan.lose(stream, track.next(), u64::MAX, cx.window, cx.tally);
            }
        }
    }

    /// In an open loop: when the first message is due, and how far apart they are.
    pub(crate) fn begin(&mut self, first_due_ns: u64, interval_ns: f64) {
        if let Some(publishing) = &mut self.publishing {
            publishing.begin(first_due_ns, interval_ns);
        }
    }

    /// So many more messages are due.
    pub(crate) fn owe(&mut self, count: u32, cx: &mut Context<'_>) {
        if let Some(publishing) = &mut self.publishing {
            publishing.owe(count);
        }
        self.refill(cx);
    }

    /// A stream of its own may have room for one more message under way.
    pub(crate) fn free(&mut self, stream: u32, cx: &mut Context<'_>) {
        if let Some(publishing) = &mut self.publishing {
            publishing.free(stream);
        }
        self.refill(cx);
    }

    /// Puts what may be sent now into the outbox.
    pub(crate) fn refill(&mut self, cx: &mut Context<'_>) {
        let (Some(rules), Some(publishing), Some(fan)) =
            (&cx.rules.fanout, &mut self.publishing, &mut cx.fan)
        else {
            return;
        };
        while !self.outbox.is_full() {
            let Some(message) = publishing.poll_next(rules, fan, cx.now_ns) else { return };
            fan.publish(message.serial, message.due_ns);
            put_message(&mut self.outbox, &message, &mut fan.scratch, cx.rules, rules);
        }
    }

    fn is_subscriber(&self) -> bool {
        matches!(self.role, Role::Subscriber(_))
    }
}

/// Appends a message's frame, in the envelope that the server wants.
fn put_message(
    outbox: &mut Outbox,
    message: &Message,
    scratch: &mut Vec<u8>,
    rules: &Rules,
    fanout: &FanRules,
) {
    let payloads = &rules.payloads;
    let bytes = &mut outbox.bytes;
    let start = bytes.len();
    let len = payloads.frame_len(message.serial, message.number);
    bytes.resize(start + len, 0);
    payloads.write(&mut bytes[start..], message, 0);
    let payload = start + len - payloads.size(message.serial, message.number);
    // The mask stands before the payload.
    let mut mask = [0; 4];
    mask.copy_from_slice(&bytes[payload - 4..payload]);
    tidegate_simd::unmask(&mut bytes[payload..], mask, 0);
    let topic = &fanout.names[fanout.plan.topic(message.serial) as usize];
    scratch.clear();
    let keys = fanout.plan.keys;
    let key = (keys > 0).then(|| (message.number % u64::from(keys)) as u32);
    match fanout.adapter.wrap(topic, payloads.kind(), &bytes[payload..], key, scratch) {
        Some(kind) => {
            bytes.truncate(start);
            put_frame(bytes, Opcode::from(kind), scratch, mask);
        }
        None => {
            tidegate_simd::unmask(&mut bytes[payload..], mask, 0);
        }
    }
    outbox.end_frame(Framed::Message { stream: message.serial, due_ns: message.due_ns });
}

#[cfg(test)]
mod tests;
