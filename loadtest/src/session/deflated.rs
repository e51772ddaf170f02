//! Messages that are deflated: their frames are not made again, but written once and kept by the transport.
//!
//! With context takeover a message looks back at those before it, so that making one again would make another.

use tidegate_wire::frame::{Head, MAX_HEADER, Opcode, encode_header};

use super::{Context, Session, Staging, State, sending::due_ns};
use crate::{payload::Message, transport::SEALED_BYTES};

impl Session {
    /// Writes whole frames, messages deflated, until there are [`SEALED_BYTES`].
    pub(super) fn write_deflated(&mut self, staging: &mut Staging, now_ns: u64, cx: &mut Context<'_>) {
        let Staging { frames, payload, deflated } = staging;
        frames.clear();
        for control in [&mut self.pong, &mut self.close] {
            if let Some(control) = control.take() {
                frames.extend_from_slice(&control.frame[control.sent..]);
            }
        }
        while frames.len() < SEALED_BYTES
            && matches!(self.state, State::Open)
            && self.allowed(cx.traffic) > 0
            && let Some(compression) = &mut self.compression
        {
            let number = self.next;
            payload.clear();
            deflated.clear();
            let payloads = &cx.rules.payloads;
            let due_ns = due_ns(self.first_due_ns, self.serial, number, now_ns, cx.traffic, cx.rules);
            payloads.put_payload(payload, &Message { serial: self.serial, number, due_ns });
            compression.deflate(cx.codecs, payload, deflated);
            let mask = payloads.mask(self.serial, number);
            let opcode = Opcode::from(payloads.kind_of(self.serial, number));
            let head = Head { fin: true, rsv1: true, opcode, len: deflated.len() as u64, mask: Some(mask) };
            let mut header = [0; MAX_HEADER];
            let header_len = encode_header(&mut header, &head);
            frames.extend_from_slice(&header[..header_len]);
            tidegate_simd::unmask(deflated, mask, 0);
            frames.extend_from_slice(deflated);
            let counts = &mut cx.tally.counts.deflate;
            counts.sent_payload_bytes += payload.len() as u64;
            counts.sent_wire_bytes += (header_len + deflated.len()) as u64;
            self.message_sent(due_ns, now_ns, cx);
        }
    }
}
