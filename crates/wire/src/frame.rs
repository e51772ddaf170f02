//! Frame headers and control frames on the wire (RFC 6455 §5.2, §5.5).
//!
//! A header is judged as its bytes arrive: what the first two bytes forbid is refused before the rest is
//! there, and what the length forbids before the masking key is there. A verdict is a function of the bytes
//! so far and stays the same with more of them, so that no split of the input can change it.

use std::fmt;
use std::ops::Deref;

use crate::close::{CloseCode, Reason};
use crate::message::Violation;
use crate::message::sequence::{Admission, Sequence};
use crate::{Limits, Role};

#[cfg(test)]
mod tests;

/// The longest header: two bytes, a 64-bit length, a masking key.
pub const MAX_HEADER: usize = 14;
/// The longest payload of a control frame (RFC 6455 §5.5).
pub const MAX_CONTROL_PAYLOAD: usize = 125;
/// The longest control frame.
pub const MAX_CONTROL_FRAME: usize = 2 + 4 + MAX_CONTROL_PAYLOAD;

const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const RSV2_RSV3: u8 = 0x30;
const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;
const LEN: u8 = 0x7f;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// More of the message that is open.
    Continuation = 0x0,
    /// The start of a text message.
    Text = 0x1,
    /// The start of a binary message.
    Binary = 0x2,
    /// The last frame of its direction.
    Close = 0x8,
    /// To be answered by a pong with the same payload.
    Ping = 0x9,
    /// An answer to a ping, or unasked for.
    Pong = 0xa,
}

impl Opcode {
    /// The opcode of these four bits; `None` for the reserved ones.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            _ => return None,
        })
    }

    /// Whether frames of this kind may stand between the fragments of a message.
    #[must_use]
    pub const fn is_control(self) -> bool {
        self as u8 >= Self::Close as u8
    }
}

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The last frame of its message.
    pub fin: bool,
    /// The message is compressed (RFC 7692 §6); only on its first frame.
    pub rsv1: bool,
    /// What the frame carries.
    pub opcode: Opcode,
    /// Bytes of payload.
    pub len: u64,
    /// The masking key; `Some` exactly on frames from a client.
    pub mask: Option<[u8; 4]>,
}

/// Bytes of the header that [`encode_header`] writes for a payload of `payload` bytes.
#[inline]
#[must_use]
pub const fn header_len(payload: usize, masked: bool) -> usize {
    let length = if payload <= 125 {
        2
    } else if payload <= 0xffff {
        4
    } else {
        10
    };
    if masked { length + 4 } else { length }
}

/// Writes the header to the front of `out`, with the length in its shortest form, and returns its size.
///
/// # Panics
/// If `out` is shorter than the header; [`MAX_HEADER`] bytes are always enough.
#[inline]
pub fn encode_header(out: &mut [u8], head: &Head) -> usize {
    let masked = if head.mask.is_some() { MASKED } else { 0 };
    out[0] = (if head.fin { FIN } else { 0 }) | (if head.rsv1 { RSV1 } else { 0 }) | head.opcode as u8;
    let at = match head.len {
        0..=125 => {
            // At most 125.
            out[1] = masked | head.len as u8;
            2
        }
        126..=0xffff => {
            out[1] = masked | 126;
            out[2..4].copy_from_slice(&(head.len as u16).to_be_bytes());
            4
        }
        0x1_0000.. => {
            out[1] = masked | 127;
            out[2..10].copy_from_slice(&head.len.to_be_bytes());
            10
        }
    };
    match head.mask {
        Some(key) => {
            out[at..at + 4].copy_from_slice(&key);
            at + 4
        }
        None => at,
    }
}

/// Writes the header so that it ends where the payload starts, and returns where the header starts.
///
/// # Panics
/// If there is less room than the header needs before `payload_start`.
#[inline]
pub fn encode_header_before(buffer: &mut [u8], payload_start: usize, head: &Head) -> usize {
    let len = usize::try_from(head.len).expect("a payload in memory has a length in usize");
    let start = payload_start
        .checked_sub(header_len(len, head.mask.is_some()))
        .expect("room for the header before the payload");
    encode_header(&mut buffer[start..payload_start], head);
    start
}

/// The unmasked payload of a control frame, inline.
#[derive(Clone, Copy)]
pub struct ControlPayload {
    len: u8,
    bytes: [u8; MAX_CONTROL_PAYLOAD],
}

impl ControlPayload {
    /// No payload.
    pub const EMPTY: Self = Self { len: 0, bytes: [0; MAX_CONTROL_PAYLOAD] };

    /// A copy of `payload`.
    ///
    /// # Panics
    /// If it is longer than [`MAX_CONTROL_PAYLOAD`].
    #[must_use]
    pub fn new(payload: &[u8]) -> Self {
        let mut this = Self::EMPTY;
        this.extend(payload, [0; 4]);
        this
    }

    /// Appends `masked`, unmasked with the key that stands at this payload's start.
    pub(crate) fn extend(&mut self, masked: &[u8], key: [u8; 4]) {
        let from = usize::from(self.len);
        let to = from + masked.len();
        for (i, (plain, masked)) in self.bytes[from..to].iter_mut().zip(masked).enumerate() {
            *plain = masked ^ key[(from + i) & 3];
        }
        // The slice above ends within 125.
        self.len = to as u8;
    }
}

impl Deref for ControlPayload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl PartialEq for ControlPayload {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for ControlPayload {}

impl fmt::Debug for ControlPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// A whole control frame as it goes over the wire, inline.
#[derive(Clone, Copy)]
pub struct ControlFrame {
    len: u8,
    bytes: [u8; MAX_CONTROL_FRAME],
}

impl ControlFrame {
    /// A Ping. `mask`: the key where this end is a client.
    ///
    /// # Panics
    /// If the payload is longer than [`MAX_CONTROL_PAYLOAD`].
    #[must_use]
    pub fn ping(payload: &[u8], mask: Option<[u8; 4]>) -> Self {
        Self::new(Opcode::Ping, &[payload], mask)
    }

    /// A Pong. `mask`: the key where this end is a client.
    ///
    /// # Panics
    /// If the payload is longer than [`MAX_CONTROL_PAYLOAD`].
    #[must_use]
    pub fn pong(payload: &[u8], mask: Option<[u8; 4]>) -> Self {
        Self::new(Opcode::Pong, &[payload], mask)
    }

    /// A Close. The reason is cut between characters to what a frame holds; without a code there is none
    /// (RFC 6455 §5.5.1: a reason follows the code). `mask`: the key where this end is a client.
    #[must_use]
    pub fn close(code: Option<CloseCode>, reason: &str, mask: Option<[u8; 4]>) -> Self {
        match code {
            Some(code) => {
                let reason = Reason::truncated(reason);
                Self::new(Opcode::Close, &[&code.as_u16().to_be_bytes(), reason.as_bytes()], mask)
            }
            None => Self::new(Opcode::Close, &[], mask),
        }
    }

    fn new(opcode: Opcode, parts: &[&[u8]], mask: Option<[u8; 4]>) -> Self {
        let mut payload = ControlPayload::EMPTY;
        for part in parts {
            payload.extend(part, [0; 4]);
        }
        let mut this = Self { len: 0, bytes: [0; MAX_CONTROL_FRAME] };
        let head = Head { fin: true, rsv1: false, opcode, len: u64::from(payload.len), mask };
        let start = encode_header(&mut this.bytes, &head);
        let end = start + payload.len();
        this.bytes[start..end].copy_from_slice(&payload);
        if let Some(key) = mask {
            tidegate_simd::unmask(&mut this.bytes[start..end], key, 0);
        }
        // At most 131.
        this.len = end as u8;
        this
    }
}

impl AsRef<[u8]> for ControlFrame {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl Deref for ControlFrame {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_ref()
    }
}

impl PartialEq for ControlFrame {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for ControlFrame {}

impl fmt::Debug for ControlFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// What a header is judged by.
#[derive(Clone, Copy)]
pub(crate) struct HeaderRules<'a> {
    pub(crate) role: Role,
    pub(crate) limits: &'a Limits,
    /// Compressed messages were agreed upon.
    pub(crate) rsv1: bool,
}

/// The header at the front of `bytes` with its size; `None` while it is incomplete.
///
/// # Errors
/// Whatever the bytes so far forbid, the frame's place in `sequence` and the size limits included.
pub(crate) fn decode_header(
    bytes: &[u8],
    sequence: &Sequence,
    rules: HeaderRules<'_>,
) -> Result<Option<(Head, usize)>, Violation> {
    let &[b0, b1, ref rest @ ..] = bytes else { return Ok(None) };

    // RFC 6455 §5.2: reserved bits and opcodes fail the connection.
    if b0 & RSV2_RSV3 != 0 {
        return Err(Violation::ReservedBits);
    }
    let opcode = Opcode::from_bits(b0 & OPCODE).ok_or(Violation::ReservedOpcode)?;
    let (fin, rsv1) = (b0 & FIN != 0, b0 & RSV1 != 0);
    // RFC 7692 §6: RSV1 has a meaning only where compression was agreed upon, and only on the first frame
    // of a message.
    if rsv1 {
        if !rules.rsv1 {
            return Err(Violation::CompressionNotAgreed);
        }
        if !matches!(opcode, Opcode::Text | Opcode::Binary) {
            return Err(Violation::CompressionMisplaced);
        }
    }
    // RFC 6455 §5.1: clients mask, servers do not; either end fails the connection otherwise.
    let masked = b1 & MASKED != 0;
    match (rules.role, masked) {
        (Role::Server, false) => return Err(Violation::Unmasked),
        (Role::Client, true) => return Err(Violation::Masked),
        (Role::Server, true) | (Role::Client, false) => {}
    }

    let short = b1 & LEN;
    let (len, at) = if opcode.is_control() {
        // RFC 6455 §5.5: at most 125 bytes, never fragmented; the first two bytes tell.
        if !fin {
            return Err(Violation::ControlFragmented);
        }
        if short > 125 {
            return Err(Violation::ControlTooLong);
        }
        if opcode == Opcode::Close && short == 1 {
            return Err(Violation::CloseBodyTooShort);
        }
        (u64::from(short), 2)
    } else {
        sequence.check_order(opcode, rules.limits)?;
        let (len, at) = match short {
            126 => {
                let Some(&length) = rest.first_chunk() else { return Ok(None) };
                (u64::from(u16::from_be_bytes(length)), 4)
            }
            127 => {
                let Some(&length) = rest.first_chunk() else { return Ok(None) };
                (u64::from_be_bytes(length), 10)
            }
            0.. => (u64::from(short), 2),
        };
        // RFC 6455 §5.2: the shortest form, and the most significant bit of 64 is 0.
        if at != header_len(usize::try_from(len).unwrap_or(usize::MAX), false) {
            return Err(Violation::LengthNotMinimal);
        }
        if len >> 63 != 0 {
            return Err(Violation::LengthOverflow);
        }
        sequence.check_size(len, Admission { rsv1, limits: rules.limits })?;
        (len, at)
    };

    let (mask, at) = if masked {
        let Some(&key) = bytes[at..].first_chunk() else { return Ok(None) };
        (Some(key), at + 4)
    } else {
        (None, at)
    };
    Ok(Some((Head { fin, rsv1, opcode, len, mask }, at)))
}
