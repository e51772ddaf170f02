//! Streams of frames: built from a list, mostly well-formed.

use tidegate_wire::Role;
use tidegate_wire::deflate::{CodecLimits, Codecs};
use tidegate_wire::frame::{Head, MAX_HEADER, Opcode, encode_header};

use crate::{Random, Rules, Source};

/// The frames that `source` lists. Each is one byte of flags, one of length and the payload:
///
/// - bits 0 to 2: the opcode. Bit 3: not the last of its message. Bit 4: compressed.
/// - bit 5: the payload is repeated to up to 24 KiB.
/// - bit 6: the payload is made valid: UTF-8, or deflated where it is the first frame of a compressed message.
/// - bit 7: the frame is taken as it is, where else it is put right: continuations only in a message, no new message
///   in another, control frames whole and short.
pub fn built(source: &mut Source<'_>, rules: &Rules) -> Vec<u8> {
    const OPCODES: [Opcode; 8] = [
        Opcode::Text,
        Opcode::Binary,
        Opcode::Continuation,
        Opcode::Ping,
        Opcode::Text,
        Opcode::Binary,
        Opcode::Pong,
        Opcode::Close,
    ];
    let mut out = Vec::new();
    let mut codecs = Codecs::new(CodecLimits::default());
    let mut random = Random(0x9e37_79b9);
    let mut open = false;
    while !source.is_empty() && out.len() < 150_000 {
        let (flags, len) = (source.byte(), source.byte());
        let mut payload = source.bytes(len.into()).to_vec();
        let mut opcode = OPCODES[usize::from(flags & 7)];
        let mut fin = flags & 8 == 0;
        let right = flags & 128 == 0;
        if right {
            opcode = match (opcode, open) {
                (Opcode::Text | Opcode::Binary, true) => Opcode::Continuation,
                (Opcode::Continuation, false) => Opcode::Text,
                (opcode, _) => opcode,
            };
            fin |= opcode.is_control();
        }
        let first = matches!(opcode, Opcode::Text | Opcode::Binary);
        let rsv1 = flags & 16 != 0 && (!right || first && rules.deflate.is_some());
        if flags & 32 != 0 && !payload.is_empty() && !(right && opcode.is_control()) {
            let len = (payload.len() * payload.len()).min(24 * 1024);
            payload = payload.iter().copied().cycle().take(len).collect();
        }
        if flags & 64 != 0 {
            payload = String::from_utf8_lossy(&payload).into_owned().into_bytes();
            if rsv1 && first {
                let mut deflated = Vec::new();
                codecs.deflate(15, &payload, &mut deflated);
                payload = deflated;
            }
        }
        if right && opcode.is_control() {
            payload.truncate(125);
        }
        if opcode == Opcode::Close && right && payload.len() >= 2 {
            payload[0] = 3;
            payload[1] = 232 + payload[1] % 16;
        }
        if !opcode.is_control() {
            open = !fin;
        }
        let mask = (rules.role == Role::Server).then(|| (random.draw() as u32).to_le_bytes());
        push(&mut out, &Head { fin, rsv1, opcode, len: payload.len() as u64, mask }, &payload);
    }
    out
}

/// Appends a frame.
pub fn push(out: &mut Vec<u8>, head: &Head, payload: &[u8]) {
    let mut header = [0; MAX_HEADER];
    let len = encode_header(&mut header, head);
    out.extend_from_slice(&header[..len]);
    let key = head.mask.unwrap_or_default();
    out.extend(payload.iter().enumerate().map(|(i, byte)| byte ^ key[i % 4]));
}
