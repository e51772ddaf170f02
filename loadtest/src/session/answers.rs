//! What comes back: each message is judged, counted and measured.

use tidegate_wire::message::Kind;

use super::{Context, Session, Traffic, sending::due_ns};
use crate::{
    fault::Fault,
    payload::{Answer, Wrong},
    sequence::Receipt,
};

impl Session {
    /// A message came.
    #[inline]
    pub(super) fn message(&mut self, kind: Kind, payload: &[u8], cx: &mut Context<'_>) {
        if let Some(seat) = &mut self.seat {
            seat.handle_message(kind, payload, cx);
            if seat.is_rejected() {
                // It was counted as such.
                self.end(None, cx);
            }
            return;
        }
        let counts = &mut cx.tally.counts;
        counts.received += 1;
        if self.compression.is_some() {
            counts.deflate.received_payload_bytes += payload.len() as u64;
        }
        if !cx.rules.judges {
            return;
        }
        let payloads = &cx.rules.payloads;
        let answer = payloads.read(self.serial, self.answers.next(), kind, payload);
        let is_wrong_kind = if payloads.is_mixed() {
            answer.is_ok_and(|answer| payloads.kind_of(self.serial, answer.number) != kind)
        } else {
            self.awaited() > 0 && payloads.kind() != kind
        };
        if is_wrong_kind {
            cx.tally.fault(Fault::WrongKind);
        }
        match answer {
            Ok(answer) if answer.number < self.next => {
                let is_first = self.take(answer.number, cx);
                if is_first && !is_wrong_kind {
                    self.accept(answer, payload.len(), cx);
                }
            }
            Err(Wrong::Misdelivered) => cx.tally.fault(Fault::Misdelivered),
            Ok(_) | Err(Wrong::Corrupt(_)) if self.awaited() == 0 => cx.tally.fault(Fault::Unexpected),
            // Which one it was meant to be cannot be known unless its number is sure.
            Ok(_) | Err(Wrong::Corrupt(None)) => {
                cx.tally.fault(Fault::Corrupt);
                self.take(self.answers.next(), cx);
            }
            Err(Wrong::Corrupt(Some(number))) => {
                cx.tally.fault(Fault::Corrupt);
                if (self.answers.next()..self.next).contains(&number) {
                    self.take(number, cx);
                }
            }
        }
        self.close_after_last(cx);
    }

    /// Counts an answer that is what it must be and had not come before, and takes its time.
    #[inline]
    fn accept(&mut self, Answer { number, due_ns: told_ns }: Answer, bytes: usize, cx: &mut Context<'_>) {
        let is_late = cx.now_ns >= cx.window.until_ns && cx.rules.waits_for_answers;
        if is_late || cx.window.contains(cx.now_ns) {
            cx.tally.counts.in_window += 1;
            cx.tally.counts.bytes_in_window += bytes as u64;
        }
        let due_ns = match (told_ns, cx.traffic) {
            (Some(due_ns), _) => due_ns,
            (None, Traffic::Open { .. } | Traffic::Replay) => {
                due_ns(self.first_due_ns, self.serial, number, 0, cx.traffic, cx.rules)
            }
            (None, Traffic::Off | Traffic::Closed { .. }) => {
                let places = self.stamps.len() as u64;
                // Of one that is further behind the place is another's by now.
                if self.next - number > places {
                    return;
                }
                self.stamps[(number % places) as usize]
            }
        };
        if cx.window.contains(due_ns) {
            cx.tally.counts.answered += 1;
            cx.tally.latency.record(cx.now_ns.saturating_sub(due_ns));
        }
    }

    /// Message `number` is answered; whether it was not before.
    #[inline]
    fn take(&mut self, number: u64, cx: &mut Context<'_>) -> bool {
        cx.tally.counts.settled_ns = cx.tally.counts.settled_ns.max(cx.now_ns);
        match self.answers.take(number) {
            Receipt::First { lost } => {
                if lost > 0 {
                    cx.tally.counts.faults.add(Fault::Lost, lost);
                }
                self.progress_ns = cx.now_ns;
                true
            }
            Receipt::Late => {
                cx.tally.fault(Fault::Reordered);
                true
            }
            Receipt::Again => {
                cx.tally.fault(Fault::Duplicate);
                false
            }
        }
    }

    /// Closes a session that has sent its messages and has its answers.
    #[inline]
    pub(super) fn close_after_last(&mut self, cx: &mut Context<'_>) {
        if self.quota == 0 && self.awaited() == 0 && self.cut == 0 && !self.is_slow {
            self.close(cx);
        }
    }

    /// Messages that were sent and are not known to be answered or passed over.
    pub(super) fn awaited(&self) -> u64 {
        self.next - self.answers.next()
    }
}
