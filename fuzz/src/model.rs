//! A connection read naively: the whole stream at hand, a frame at a time, everything copied.
//!
//! What it shares with the code under test is the vocabulary of [`Violation`] and nothing else.

use tidegate_wire::Role;
use tidegate_wire::message::{Kind, Violation};

use crate::Rules;
use crate::puff::{Flaw, Puff};

/// What a stream says.
#[derive(Clone, PartialEq, Eq)]
pub enum Said {
    Message { kind: Kind, compressed: bool, payload: Vec<u8> },
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
}

impl std::fmt::Debug for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (name, bytes) = match self {
            Self::Message { kind: Kind::Text, compressed: false, payload } => ("text", payload),
            Self::Message { kind: Kind::Text, compressed: true, payload } => ("compressed text", payload),
            Self::Message { kind: Kind::Binary, compressed: false, payload } => ("binary", payload),
            Self::Message { kind: Kind::Binary, compressed: true, payload } => ("compressed binary", payload),
            Self::Ping(payload) => ("ping", payload),
            Self::Pong(payload) => ("pong", payload),
            Self::Close(code, reason) => return write!(f, "close {code:?} {reason:?}"),
        };
        let front = &bytes[..bytes.len().min(40)];
        write!(f, "{name} of {}: \"{}\"", bytes.len(), front.escape_ascii())
    }
}

/// Where a stream leaves off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Anywhere.
    Open,
    /// Behind a Close.
    Closed,
    Failed(Violation),
}

/// What a stream says and where it leaves off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    pub said: Vec<Said>,
    pub end: End,
}

/// A header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub fin: bool,
    pub rsv1: bool,
    pub opcode: u8,
    pub len: u64,
    pub key: Option<[u8; 4]>,
    /// Bytes of the header itself.
    pub size: usize,
}

/// The message that is open.
struct Message {
    kind: Kind,
    compressed: bool,
    /// As on the wire, unmasked.
    bytes: Vec<u8>,
    frames: u32,
}

/// Reads `stream` as a peer's under `rules`.
pub fn read(stream: &[u8], rules: &Rules) -> Reading {
    let mut said = Vec::new();
    let end = match read_into(stream, rules, &mut said) {
        Ok(true) => End::Closed,
        Ok(false) => End::Open,
        Err(violation) => End::Failed(violation),
    };
    Reading { said, end }
}

fn read_into(mut rest: &[u8], rules: &Rules, said: &mut Vec<Said>) -> Result<bool, Violation> {
    let mut puff = Puff::new(rules.peer_takes_over());
    let mut open: Option<Message> = None;
    loop {
        let Some(header) = header(rest, rules, open.as_ref())? else { return Ok(false) };
        rest = &rest[header.size..];
        let there = rest.len().min(usize::try_from(header.len).unwrap_or(usize::MAX));
        let whole = there as u64 == header.len;
        let key = header.key.unwrap_or_default();
        let payload: Vec<u8> = rest[..there].iter().enumerate().map(|(i, byte)| byte ^ key[i % 4]).collect();
        rest = &rest[there..];
        if header.opcode >= 8 {
            if !whole {
                return Ok(false);
            }
            match header.opcode {
                8 => {
                    said.push(close(&payload)?);
                    return Ok(true);
                }
                9 => said.push(Said::Ping(payload)),
                _ => said.push(Said::Pong(payload)),
            }
            continue;
        }
        let message = open.get_or_insert_with(|| Message {
            kind: if header.opcode == 1 { Kind::Text } else { Kind::Binary },
            compressed: header.rsv1,
            bytes: Vec::new(),
            frames: 0,
        });
        message.frames += 1;
        message.bytes.extend(payload);
        let done = whole && header.fin;
        let plain = message.judge(done, rules, &mut puff)?;
        if done {
            said.push(Said::Message { kind: message.kind, compressed: message.compressed, payload: plain });
            open = None;
        } else if !whole {
            return Ok(false);
        }
    }
}

impl Message {
    /// What is there of it, inflated, if nothing is wrong with that.
    fn judge(&self, done: bool, rules: &Rules, puff: &mut Puff) -> Result<Vec<u8>, Violation> {
        let (plain, verdict) = if !self.compressed {
            (self.bytes.clone(), Ok(()))
        } else if done {
            let mut input = self.bytes.clone();
            input.extend([0x00, 0x00, 0xff, 0xff]);
            puff.decode(&input, self.bytes.len(), rules.limits.message_bytes)
        } else if rules.inflaters > 0 || rules.peer_takes_over() {
            puff.clone().decode(&self.bytes, self.bytes.len(), rules.limits.message_bytes)
        } else {
            return Ok(Vec::new());
        };
        if self.kind == Kind::Text {
            // A character may be cut off where the message goes on, or where something else is wrong.
            let valid = match std::str::from_utf8(&plain) {
                Ok(_) => true,
                Err(error) => error.error_len().is_none() && !(done && verdict.is_ok()),
            };
            if !valid {
                return Err(Violation::TextNotUtf8);
            }
        }
        match verdict {
            Ok(()) => Ok(plain),
            Err(Flaw::Short) if !done => Ok(plain),
            Err(Flaw::Short | Flaw::Corrupt) => Err(Violation::DeflateCorrupt),
            Err(Flaw::TooBig) => Err(Violation::TooBig),
        }
    }
}

/// The header at the front of `bytes`; `None` while it is incomplete and no byte of it is wrong.
fn header(bytes: &[u8], rules: &Rules, open: Option<&Message>) -> Result<Option<Header>, Violation> {
    let [first, second, ..] = *bytes else { return Ok(None) };
    let (fin, rsv1, opcode) = (first & 0x80 != 0, first & 0x40 != 0, first & 0x0f);
    if first & 0x30 != 0 {
        return Err(Violation::ReservedBits);
    }
    if (3..8).contains(&opcode) || opcode > 10 {
        return Err(Violation::ReservedOpcode);
    }
    if rsv1 && rules.deflate.is_none() {
        return Err(Violation::CompressionNotAgreed);
    }
    if rsv1 && opcode != 1 && opcode != 2 {
        return Err(Violation::CompressionMisplaced);
    }
    let masked = second & 0x80 != 0;
    if masked != (rules.role == Role::Server) {
        return Err(if masked { Violation::Masked } else { Violation::Unmasked });
    }
    let short = second & 0x7f;
    if opcode >= 8 {
        if !fin {
            return Err(Violation::ControlFragmented);
        }
        if short > 125 {
            return Err(Violation::ControlTooLong);
        }
        if opcode == 8 && short == 1 {
            return Err(Violation::CloseBodyTooShort);
        }
    } else {
        if opcode == 0 && open.is_none() {
            return Err(Violation::UnexpectedContinuation);
        }
        if opcode != 0 && open.is_some() {
            return Err(Violation::UnfinishedMessage);
        }
        if open.map_or(0, |message| message.frames) >= rules.limits.message_fragments {
            return Err(Violation::TooManyFragments);
        }
    }
    let digits = match short {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let Some(length) = bytes.get(2..2 + digits) else { return Ok(None) };
    let len = match digits {
        0 => u64::from(short),
        _ => length.iter().fold(0, |len, byte| len << 8 | u64::from(*byte)),
    };
    if digits == 2 && len < 126 || digits == 8 && len < 0x1_0000 {
        return Err(Violation::LengthNotMinimal);
    }
    if len > i64::MAX as u64 {
        return Err(Violation::LengthOverflow);
    }
    if opcode < 8 {
        let most = rules.limits.message_bytes as u128;
        let most = match open.map_or(rsv1, |message| message.compressed) {
            // Deflating can make a message longer.
            true => most + most / 8 + 64,
            false => most,
        };
        if open.map_or(0, |message| message.bytes.len() as u128) + u128::from(len) > most {
            return Err(Violation::TooBig);
        }
    }
    let size = 2 + digits + if masked { 4 } else { 0 };
    let Some(key) = bytes.get(2 + digits..size) else { return Ok(None) };
    Ok(Some(Header { fin, rsv1, opcode, len, key: key.try_into().ok(), size }))
}

fn close(body: &[u8]) -> Result<Said, Violation> {
    let Some((code, reason)) = body.split_at_checked(2) else {
        return if body.is_empty() {
            Ok(Said::Close(None, String::new()))
        } else {
            Err(Violation::CloseBodyTooShort)
        };
    };
    let code = u16::from(code[0]) * 256 + u16::from(code[1]);
    const UNFIT: [u16; 3] = [1004, 1005, 1006];
    let fit = (1000..1015).contains(&code) && !UNFIT.contains(&code) || (3000..5000).contains(&code);
    if !fit {
        return Err(Violation::CloseCodeForbidden);
    }
    let reason = String::from_utf8(reason.to_vec()).map_err(|_| Violation::CloseReasonNotUtf8)?;
    Ok(Said::Close(Some(code), reason))
}
