//! What a session sends: frames of messages, made again where a send was cut off, and control frames.

use tidegate_wire::frame::ControlFrame;

use super::{Context, Rules, Session, Staging, State, Traffic};
use crate::{fanout::Seat, payload::Message, transport::SEALED_BYTES};

/// A control frame that is to be sent.
pub(super) struct Control {
    pub(super) frame: ControlFrame,
    /// Bytes of it that the kernel took.
    pub(super) sent: usize,
}

impl Session {
    /// Whether [`Session::poll_transmit`] would give anything.
    #[inline]
    pub(crate) fn wants_to_send(&self, traffic: Traffic) -> bool {
        match &self.state {
            State::Connecting | State::Ended => false,
            State::Handshake(handshake) => handshake.sent < handshake.request.len(),
            State::Open => {
                let has_more = self.seat().is_some_and(|seat| !seat.outgoing().is_empty());
                self.cut > 0 || self.pong.is_some() || has_more || self.allowed(traffic) > 0
            }
            State::Closing { .. } => {
                let is_cut = self.seat().is_some_and(Seat::is_cut);
                self.cut > 0 || self.pong.is_some() || is_cut || self.close.is_some()
            }
        }
    }

    /// The kernel took the first `count` bytes of what [`Session::poll_transmit`] gave at `sent_ns`.
    pub(crate) fn handle_sent(&mut self, count: usize, sent_ns: u64, cx: &mut Context<'_>) {
        let mut left = count;
        match &mut self.state {
            State::Handshake(handshake) => {
                handshake.sent += left;
                return;
            }
            State::Connecting | State::Ended => return,
            State::Open | State::Closing { .. } => {}
        }
        if self.cut > 0 {
            let rest = cx.rules.payloads.frame_len(self.serial, self.next) - self.cut as usize;
            if left < rest {
                // A frame has less than 4 GiB.
                self.cut += left as u32;
                return;
            }
            left -= rest;
            self.cut = 0;
            self.message_sent(self.cut_due_ns, sent_ns, cx);
        }
        if let Some(seat) = &mut self.seat {
            if count > 0 {
                self.progress_ns = sent_ns;
            }
            if seat.is_cut() {
                left = seat.handle_sent(left, sent_ns, self.blocked_ns, cx);
            }
        }
        for control in [&mut self.pong, &mut self.close] {
            if let Some(frame) = control {
                let rest = frame.frame.len() - frame.sent;
                if left < rest {
                    frame.sent += left;
                    return;
                }
                left -= rest;
                *control = None;
            }
        }
        if let Some(seat) = &mut self.seat {
            seat.handle_sent(left, sent_ns, self.blocked_ns, cx);
            return;
        }
        while left > 0 {
            let len = cx.rules.payloads.frame_len(self.serial, self.next);
            let due_ns = due_ns(self.first_due_ns, self.serial, self.next, sent_ns, cx.traffic, cx.rules);
            if left < len {
                (self.cut, self.cut_due_ns) = (left as u32, due_ns);
                return;
            }
            left -= len;
            self.message_sent(due_ns, sent_ns, cx);
        }
    }

    /// The time of messages begins. In an open loop, the first one is due at `first_due_ns`.
    pub(crate) fn begin(&mut self, first_due_ns: u64, now_ns: u64) {
        self.first_due_ns = first_due_ns;
        self.progress_ns = now_ns;
    }

    /// It reads no more, and sends at most so many messages.
    pub(crate) fn stop_reading(&mut self, messages: u32) {
        self.is_slow = true;
        self.quota = messages;
    }

    /// So many more messages are due; whether there is still somebody to send them, or to count that they were not sent.
    #[inline]
    pub(crate) fn owe(&mut self, count: u32, now_ns: u64) -> bool {
        if matches!(self.state, State::Ended) {
            return self.is_slow;
        }
        if self.owed == 0 && self.awaited() == 0 {
            self.progress_ns = now_ns;
        }
        self.owed = self.owed.saturating_add(count);
        true
    }

    /// Writes what is to be sent now, as much as fits, and returns how much that is.
    #[must_use]
    pub(crate) fn poll_transmit(
        &self,
        out: &mut [u8],
        traffic: Traffic,
        now_ns: u64,
        rules: &Rules,
    ) -> usize {
        match &self.state {
            State::Connecting | State::Ended => 0,
            State::Handshake(handshake) => put(out, &handshake.request[handshake.sent..]),
            State::Open | State::Closing { .. } => self.put_frames(out, traffic, now_ns, rules),
        }
    }

    /// Writes what is to be sent now, up to [`SEALED_BYTES`], and takes it as sent: whoever calls keeps it until it is.
    pub(crate) fn transmit<'s>(
        &mut self,
        staging: &'s mut Staging,
        now_ns: u64,
        cx: &mut Context<'_>,
    ) -> &'s [u8] {
        if self.compression.is_some() {
            self.write_deflated(staging, now_ns, cx);
            return &staging.frames;
        }
        let out = &mut staging.frames;
        out.resize(SEALED_BYTES, 0);
        let count = self.poll_transmit(out, cx.traffic, now_ns, cx.rules);
        self.handle_sent(count, now_ns, cx);
        &out[..count]
    }

    pub(super) fn put_frames(&self, out: &mut [u8], traffic: Traffic, now_ns: u64, rules: &Rules) -> usize {
        let mut used = 0;
        let mut number = self.next;
        if self.cut > 0 {
            let message = Message { serial: self.serial, number, due_ns: self.cut_due_ns };
            used = rules.payloads.write(out, &message, self.cut as usize);
            if self.cut as usize + used < rules.payloads.frame_len(self.serial, number) {
                return used;
            }
            number += 1;
        }
        let mut waiting = self.seat().map_or(&[][..], Seat::outgoing);
        if self.seat().is_some_and(Seat::is_cut) {
            used = put(out, waiting);
            if used < waiting.len() {
                return used;
            }
            waiting = &[];
        }
        for control in [&self.pong, &self.close].into_iter().flatten() {
            let rest = &control.frame[control.sent..];
            let count = put(&mut out[used..], rest);
            used += count;
            if count < rest.len() {
                return used;
            }
        }
        if matches!(self.state, State::Closing { .. }) {
            return used;
        }
        used += put(&mut out[used..], waiting);
        for _ in 0..self.allowed(traffic) {
            if used == out.len() {
                break;
            }
            let due_ns = due_ns(self.first_due_ns, self.serial, number, now_ns, traffic, rules);
            let message = Message { serial: self.serial, number, due_ns };
            used += rules.payloads.write(&mut out[used..], &message, 0);
            number += 1;
        }
        used
    }

    /// Messages that it may begin to send now.
    #[inline]
    pub(super) fn allowed(&self, traffic: Traffic) -> u32 {
        let begun = u32::from(self.cut > 0);
        let allowed = match traffic {
            Traffic::Off => 0,
            Traffic::Closed { .. } if self.is_slow => u32::MAX,
            Traffic::Closed { depth } => {
                depth.saturating_sub(u32::try_from(self.awaited()).unwrap_or(u32::MAX)).saturating_sub(begun)
            }
            Traffic::Open { .. } | Traffic::Replay => self.owed.saturating_sub(begun),
        };
        allowed.min(self.quota.saturating_sub(begun))
    }

    #[inline]
    pub(super) fn message_sent(&mut self, due_ns: u64, sent_ns: u64, cx: &mut Context<'_>) {
        if cx.traffic.is_open_loop() {
            cx.record_lag(due_ns, sent_ns, self.blocked_ns);
        } else {
            self.stamp(due_ns, cx.rules);
            if self.awaited() == 0 {
                self.progress_ns = sent_ns;
            }
        }
        self.owed = self.owed.saturating_sub(1);
        if self.quota != u32::MAX {
            self.quota -= 1;
        }
        self.next += 1;
        if self.is_slow {
            self.answers.pass(self.next);
        }
    }

    pub(super) fn stamp(&mut self, due_ns: u64, rules: &Rules) {
        if rules.stamps == 0 {
            return;
        }
        if self.stamps.is_empty() {
            self.stamps = vec![0; rules.stamps].into();
        }
        let place = (self.next % self.stamps.len() as u64) as usize;
        self.stamps[place] = due_ns;
    }
}

/// When message `number` is due; in a closed loop that is when it is sent.
#[inline]
pub(super) fn due_ns(
    first_due_ns: u64,
    serial: u32,
    number: u64,
    sent_ns: u64,
    traffic: Traffic,
    rules: &Rules,
) -> u64 {
    match traffic {
        Traffic::Open { interval_ns } => first_due_ns + (number as f64 * interval_ns) as u64,
        Traffic::Replay => first_due_ns + rules.payloads.due_ns(serial, number),
        Traffic::Off | Traffic::Closed { .. } => sent_ns,
    }
}

/// Writes as much of `bytes` as fits, and returns how much that is.
pub(super) fn put(out: &mut [u8], bytes: &[u8]) -> usize {
    let count = bytes.len().min(out.len());
    out[..count].copy_from_slice(&bytes[..count]);
    count
}
