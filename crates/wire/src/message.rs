//! Whole messages out of a stream of bytes, unmasked where they lie.
//!
//! ```text
//!            whole message in the input          ┌──────────┐ frame or message unfinished
//!          ┌───────────────────────────────────► │ Boundary │ ─────────────────────────┐
//!          │   unmasked in place, no allocation  └──────────┘                          ▼
//!          └──────────────────────────────────────┘      ▲                        ┌────────┐
//!                                                        └─── finished ────────── │ Within │
//!                    Close ► Closed      violation ► Failed                       └────────┘
//! ```
//!
//! Invariants: the events do not depend on how the stream was split; heap is held only `Within` (see `State`), at
//! most twice the payload received so far and 4 KiB; nothing below [`Cursor::write`] is touched.

use std::fmt;
use std::ops::Range;

use crate::close::CloseFrame;
use crate::deflate::{Codecs, Compression};
use crate::frame::{ControlPayload, Head, HeaderRules, MAX_HEADER, Opcode, decode_header, header_len};
use crate::utf8::is_utf8;
use crate::{Limits, Role};

use partial::{Partial, Step, inflate_message};
use sequence::Sequence;

mod event;
mod partial;
pub(crate) mod sequence;
mod spares;
mod violation;

pub use event::{Event, OwnedPayload, Payload};
pub use spares::Spares;
pub use violation::Violation;

/// Payloads up to this size are moved down while they are unmasked, so that the answers lie end to end;
/// larger ones stay where they are, and cost the sender one piece more.
pub const MOVE_MAX: usize = 2048;

/// The longest payload of which a frame's second byte gives the length (RFC 6455 §5.2).
const SHORT_MAX: usize = 125;

/// A client's header before such a payload: two bytes and the mask.
const SHORT_HEADER: usize = 6;

/// A message's kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// UTF-8, checked.
    Text,
    /// Any bytes.
    Binary,
}

impl Kind {
    /// The kind of message that a frame with this opcode starts.
    pub(crate) const fn started_by(opcode: Opcode) -> Option<Self> {
        match opcode {
            Opcode::Text => Some(Self::Text),
            Opcode::Binary => Some(Self::Binary),
            Opcode::Continuation | Opcode::Close | Opcode::Ping | Opcode::Pong => None,
        }
    }
}

impl From<Kind> for Opcode {
    #[inline]
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Text => Self::Text,
            Kind::Binary => Self::Binary,
        }
    }
}

/// How far an input has been used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Parsed so far.
    pub read: usize,
    /// Where the caller's answers in the input end, at most `read`. The [`Decoder`] touches nothing below
    /// it; the caller moves it up behind what it wrote.
    pub write: usize,
    /// Whether payloads of at most [`MOVE_MAX`] bytes are moved down, so that an unmasked header before them
    /// starts at `write`.
    pub compact: bool,
}

/// What a [`Decoder`] works with, borrowed from the session and its shard.
pub struct DecodeContext<'a> {
    /// What a message may cost.
    pub limits: &'a Limits,
    /// The session's side of permessage-deflate, where it was agreed upon.
    pub compression: Option<&'a mut Compression>,
    /// The shard's inflaters.
    pub codecs: &'a mut Codecs,
    /// The shard's buffers for messages that do not lie whole in one input.
    pub spares: &'a mut Spares,
}

/// Where the decoder stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Between two messages, nothing held.
    Boundary,
    /// In the middle of a header, a frame or a message.
    Within,
    /// Behind the peer's Close: nothing counts any more.
    Closed,
    /// The connection failed.
    Failed(Violation),
}

/// Parses one direction of a connection into whole messages.
///
/// [`next`](Self::next) is called with each input until it says `None`; the getters tell what is held in
/// between. A session that ends calls [`abandon`](Self::abandon).
pub struct Decoder {
    /// `Some` while a frame or a message is incomplete.
    partial: Option<Box<Partial>>,
    /// The front of a header that the last input ended in.
    carry: [u8; MAX_HEADER - 1],
    carried: u8,
    role: Role,
    state: State,
}

impl Decoder {
    /// `role` is this end's: a server reads masked frames.
    #[must_use]
    pub const fn new(role: Role) -> Self {
        Self { partial: None, carry: [0; MAX_HEADER - 1], carried: 0, role, state: State::Boundary }
    }

    /// Whether a data message is incomplete: the time it may take runs.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.partial.as_ref().is_some_and(|partial| partial.sequence.open().is_some())
    }

    /// Whether anything is incomplete, be it half a header.
    #[must_use]
    pub fn has_carry(&self) -> bool {
        self.state == State::Within
    }

    /// Bytes of heap held.
    #[must_use]
    pub fn retained_bytes(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| partial.retained_bytes())
    }

    /// The next event of `input[cursor.read..]`. `None`: the input is used up, and what it left incomplete
    /// was taken over. After a Close nothing more is parsed; the rest is used up unread.
    ///
    /// # Errors
    /// What the peer did wrong. The connection is to be failed with [`Violation::close_code`]; every later
    /// call says the same.
    ///
    /// # Panics
    /// If the cursor does not lie within the input, or `write` lies behind `read`.
    #[inline]
    pub fn next(
        &mut self,
        input: &mut [u8],
        cursor: &mut Cursor,
        cx: &mut DecodeContext<'_>,
    ) -> Result<Option<Event>, Violation> {
        if self.state == State::Boundary {
            if cursor.read == input.len() {
                return Ok(None);
            }
            if let Some(whole) = self.next_whole(input, cursor, cx.limits) {
                return whole.map(Some);
            }
        }
        self.next_any(input, cursor, cx)
    }

    /// Answers the short messages at the cursor where they lie: each uncompressed message that lies whole in one frame of at most
    /// `longest` bytes (125 at most) becomes the same frame without its mask, right at `cursor.write`, which moves up
    /// behind it. Stops before anything else, which is [`next`](Self::next)'s. Gives how many it has answered.
    ///
    /// The same as `next` and [`encode_header_before`](crate::frame::encode_header_before) for each of them, at less than half of the
    /// instructions. It does nothing for a client's end, nor where the cursor is not to be compact.
    #[inline]
    pub fn answer_short(
        &mut self,
        input: &mut [u8],
        cursor: &mut Cursor,
        limits: &Limits,
        longest: usize,
    ) -> u64 {
        if self.state != State::Boundary || self.role != Role::Server || !cursor.compact {
            return 0;
        }
        if limits.message_fragments == 0 {
            return 0;
        }
        let longest = longest.min(limits.message_bytes).min(SHORT_MAX);
        let Cursor { mut read, mut write, .. } = *cursor;
        let mut answered = 0;
        while let Some(&[b0 @ (0x81 | 0x82), b1, ref key @ ..]) =
            input.get(read..).and_then(<[u8]>::first_chunk::<SHORT_HEADER>)
        {
            let key = *key;
            // Without a mask bit this is 128 or more.
            let len = usize::from(b1 ^ 0x80);
            let from = read + SHORT_HEADER;
            if len > longest || input.len() - from < len {
                break;
            }
            let to = write + 2;
            // `write` is at most `read`, so that this header lies below the payload.
            input[write] = b0;
            input[write + 1] = b1 ^ 0x80;
            read = from + len;
            let ascii = tidegate_simd::unmask_to(input, from, to, len, key, 0);
            if !ascii && b0 == 0x81 && !is_utf8(&input[to..to + len]) {
                self.state = State::Failed(Violation::TextNotUtf8);
                break;
            }
            write = to + len;
            answered += 1;
        }
        (cursor.read, cursor.write) = (read, write);
        answered
    }

    /// Drops what is incomplete and gives a lent inflater back.
    pub fn abandon(&mut self, codecs: &mut Codecs) {
        if let Some(partial) = self.partial.take() {
            partial.abandon(codecs);
        }
        self.carried = 0;
        if self.state == State::Within {
            self.state = State::Boundary;
        }
    }

    /// The hot path: an uncompressed message in one frame, whole in the input, of at most 64 KiB. `None`:
    /// it is something else.
    #[inline]
    fn next_whole(
        &mut self,
        input: &mut [u8],
        cursor: &mut Cursor,
        limits: &Limits,
    ) -> Option<Result<Event, Violation>> {
        let frame = &input[cursor.read..];
        let &[b0, b1, ref rest @ ..] = frame else { return None };
        let kind = match b0 {
            0x81 => Kind::Text,
            0x82 => Kind::Binary,
            _ => return None,
        };
        // A mask bit that does not fit the role makes this 128 or more.
        let (short, key_len) = match self.role {
            Role::Server => (usize::from(b1 ^ 0x80), 4),
            Role::Client => (usize::from(b1), 0),
        };
        let (len, length_len) = match short {
            0..=125 => (short, 2),
            126 => match usize::from(u16::from_be_bytes(*rest.first_chunk()?)) {
                0..=125 => return None,
                len => (len, 4),
            },
            _ => return None,
        };
        let header = length_len + key_len;
        if frame.len() < header + len || len > limits.message_bytes || limits.message_fragments == 0 {
            return None;
        }
        let key = match self.role {
            Role::Server => *frame[length_len..].first_chunk()?,
            Role::Client => [0; 4],
        };
        let from = cursor.read + header;
        // `write` is at most `read`, and the answer's header at most as long as this one.
        let to = if cursor.compact && len <= MOVE_MAX { cursor.write + length_len } else { from };
        cursor.read = from + len;
        let range = self.unmask(input, from, to, len, key, kind);
        Some(match range {
            Some(range) => Ok(Event::Message { kind, compressed: false, payload: Payload::InPlace(range) }),
            None => {
                self.state = State::Failed(Violation::TextNotUtf8);
                Err(Violation::TextNotUtf8)
            }
        })
    }

    /// Unmasks a whole message's payload at `from` to `to`; `None`: it is not the text that it claims to be.
    #[inline]
    fn unmask(
        &self,
        input: &mut [u8],
        from: usize,
        to: usize,
        len: usize,
        key: [u8; 4],
        kind: Kind,
    ) -> Option<Range<usize>> {
        let range = to..to + len;
        let ascii = match self.role {
            Role::Server if from == to => tidegate_simd::unmask(&mut input[range.clone()], key, 0),
            Role::Server => tidegate_simd::unmask_to(input, from, to, len, key, 0),
            Role::Client => {
                if from != to {
                    input.copy_within(from..from + len, to);
                }
                kind == Kind::Binary || tidegate_simd::is_ascii(&input[range.clone()])
            }
        };
        (ascii || kind == Kind::Binary || is_utf8(&input[range.clone()])).then_some(range)
    }

    /// Everything that [`next_whole`](Self::next_whole) leaves.
    #[inline(never)]
    fn next_any(
        &mut self,
        input: &mut [u8],
        cursor: &mut Cursor,
        cx: &mut DecodeContext<'_>,
    ) -> Result<Option<Event>, Violation> {
        match self.state {
            State::Boundary | State::Within => {}
            State::Failed(violation) => return Err(violation),
            State::Closed => {
                cursor.read = input.len();
                return Ok(None);
            }
        }
        let event = self.advance(input, cursor, cx);
        let end = match event {
            Err(violation) => Some(State::Failed(violation)),
            Ok(Some(Event::Close(_))) => Some(State::Closed),
            Ok(_) => None,
        };
        match end {
            Some(end) => {
                self.abandon(cx.codecs);
                self.state = end;
            }
            None if self.partial.is_none() && self.carried == 0 => self.state = State::Boundary,
            None => self.state = State::Within,
        }
        event
    }

    fn advance(
        &mut self,
        input: &mut [u8],
        cursor: &mut Cursor,
        cx: &mut DecodeContext<'_>,
    ) -> Result<Option<Event>, Violation> {
        loop {
            if let Some(partial) = self.partial.as_mut() {
                let event = match partial.resume(input, cursor, cx)? {
                    Step::Starved => return Ok(None),
                    Step::FrameEnd => None,
                    Step::Control(opcode) => Some(control(opcode, &partial.control)?),
                    Step::Message { kind, compressed, payload } => {
                        Some(Event::Message { kind, compressed, payload: Payload::Owned(payload) })
                    }
                };
                if partial.is_spent() {
                    cx.spares.give_partial(self.partial.take());
                }
                if event.is_some() {
                    return Ok(event);
                }
            }

            let sequence = self.partial.as_ref().map_or(Sequence::IDLE, |partial| partial.sequence);
            let rules = HeaderRules { role: self.role, limits: cx.limits, rsv1: cx.compression.is_some() };
            let Some(head) = self.next_header(input, cursor, &sequence, rules)? else {
                return Ok(None);
            };
            let key = head.mask.unwrap_or_default();
            // Checked against the limits, which are in usize.
            let len = head.len as usize;
            let whole = input.len() - cursor.read >= len;

            if head.opcode.is_control() && whole {
                let end = cursor.read + len;
                let mut payload = ControlPayload::EMPTY;
                payload.extend(&input[cursor.read..end], key);
                cursor.read = end;
                return control(head.opcode, &payload).map(Some);
            }
            if head.fin
                && whole
                && let Some(kind) = Kind::started_by(head.opcode)
            {
                if head.rsv1 {
                    return inflate_message(input, cursor, len, key, kind, cx).map(Some);
                }
                if let Some(event) = self.message_in_place(input, cursor, len, key, kind)? {
                    return Ok(Some(event));
                }
            }
            self.partial.get_or_insert_with(|| cx.spares.take_partial()).start(&head);
        }
    }

    /// The next header, the one that the last input ended in first. `None`: it is not whole yet, and its
    /// front was taken over.
    fn next_header(
        &mut self,
        input: &[u8],
        cursor: &mut Cursor,
        sequence: &Sequence,
        rules: HeaderRules<'_>,
    ) -> Result<Option<Head>, Violation> {
        let rest = &input[cursor.read..];
        let carried = usize::from(self.carried);
        if carried == 0
            && let Some((head, len)) = decode_header(rest, sequence, rules)?
        {
            cursor.read += len;
            return Ok(Some(head));
        }
        let mut bytes = [0; MAX_HEADER];
        bytes[..carried].copy_from_slice(&self.carry[..carried]);
        let more = rest.len().min(MAX_HEADER - carried);
        bytes[carried..carried + more].copy_from_slice(&rest[..more]);
        match decode_header(&bytes[..carried + more], sequence, rules)? {
            Some((head, len)) => {
                // The header was incomplete without this input's bytes.
                cursor.read += len - carried;
                self.carried = 0;
                Ok(Some(head))
            }
            None => {
                // Fourteen bytes are always a whole header, so that these are fewer.
                let (carry, _) = bytes.split_at(MAX_HEADER - 1);
                self.carry.copy_from_slice(carry);
                self.carried = (carried + more) as u8;
                cursor.read += more;
                Ok(None)
            }
        }
    }

    /// An uncompressed message whose frame's payload lies whole at the cursor. `None`: its header came with
    /// the last input, so that there is no room for the answer's.
    fn message_in_place(
        &self,
        input: &mut [u8],
        cursor: &mut Cursor,
        len: usize,
        key: [u8; 4],
        kind: Kind,
    ) -> Result<Option<Event>, Violation> {
        let from = cursor.read;
        let first = cursor.write + header_len(len, false);
        if first > from {
            return Ok(None);
        }
        let to = if cursor.compact && len <= MOVE_MAX { first } else { from };
        cursor.read = from + len;
        let range = self.unmask(input, from, to, len, key, kind).ok_or(Violation::TextNotUtf8)?;
        Ok(Some(Event::Message { kind, compressed: false, payload: Payload::InPlace(range) }))
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder")
            .field("role", &self.role)
            .field("state", &self.state)
            .field("retained_bytes", &self.retained_bytes())
            .finish_non_exhaustive()
    }
}

/// The event of a whole control frame.
fn control(opcode: Opcode, payload: &ControlPayload) -> Result<Event, Violation> {
    match opcode {
        Opcode::Ping => Ok(Event::Ping(*payload)),
        Opcode::Pong => Ok(Event::Pong(*payload)),
        Opcode::Close => CloseFrame::parse(payload).map(Event::Close),
        Opcode::Continuation | Opcode::Text | Opcode::Binary => {
            unreachable!("a data frame is no control frame")
        }
    }
}
