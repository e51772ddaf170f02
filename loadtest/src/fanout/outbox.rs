//! Frames of a session of the fan-out that wait for being sent.

use std::collections::VecDeque;

use tidegate_wire::frame::{Head, Opcode, encode_header};

/// Bytes that wait, from which on what is due waits as a number.
const FULL_BYTES: usize = 256 << 10;

/// Frames that wait.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub(super) bytes: Vec<u8>,
    /// Bytes that the kernel took.
    sent: usize,
    /// Bytes of the frames that it took whole.
    whole: usize,
    ends: VecDeque<End>,
}

/// Where a frame ends.
#[derive(Clone, Copy, Debug)]
struct End {
    at: usize,
    of: Framed,
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framed {
    Subscription,
    /// A stream's next message.
    Message {
        stream: u32,
        due_ns: u64,
    },
}

impl Outbox {
    /// Bytes to be sent.
    pub(super) fn outgoing(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// Whether what is to be sent begins within a frame.
    pub(super) fn is_cut(&self) -> bool {
        self.sent > self.whole
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() >= FULL_BYTES
    }

    /// Frames that the kernel has not taken whole.
    pub(super) fn frames(&self) -> usize {
        self.ends.len()
    }

    /// What was appended to `bytes` is one whole frame.
    pub(super) fn end_frame(&mut self, of: Framed) {
        self.ends.push_back(End { at: self.bytes.len(), of });
    }

    /// The kernel took so many bytes, of which some may be what follows the outbox: gives how many are not. `whole` is given
    /// each frame of which it took the last byte.
    pub(super) fn take(&mut self, count: usize, mut whole: impl FnMut(Framed)) -> usize {
        let taken = count.min(self.bytes.len() - self.sent);
        self.sent += taken;
        while let Some(end) = self.ends.pop_front_if(|end| end.at <= self.sent) {
            self.whole = end.at;
            whole(end.of);
        }
        if self.sent == self.bytes.len() {
            self.bytes.clear();
            (self.sent, self.whole) = (0, 0);
        }
        taken
    }
}

/// Appends a masked frame.
pub(super) fn put_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], mask: [u8; 4]) {
    let mut front = [0; 16];
    let head = Head { fin: true, rsv1: false, opcode, len: payload.len() as u64, mask: Some(mask) };
    let header = encode_header(&mut front, &head);
    out.extend_from_slice(&front[..header]);
    let start = out.len();
    out.extend_from_slice(payload);
    tidegate_simd::unmask(&mut out[start..], mask, 0);
}
