//! A message that does not lie whole in one input: collected, unmasked and checked as its bytes arrive.
//!
//! Invariant: what is collected lies contiguous behind [`MAX_HEADER`] bytes of room, in a buffer that never
//! has more than twice the bytes received and 4 KiB, whatever the frames declare.

use super::sequence::Sequence;
use super::spares::Spares;
use super::{Cursor, DecodeContext, Event, Kind, OwnedPayload, Payload, Violation};
use crate::deflate::{Codecs, InflateError, Inflation, first_step};
use crate::frame::{ControlPayload, Head, MAX_HEADER, Opcode};
use crate::utf8::{Utf8, is_utf8};

/// What a buffer may have beyond twice what it holds. With this struct and the room for a header it stays
/// below 4 KiB.
const SLACK: usize = 3584;
/// The least worth asking the allocator for.
const MIN_BUFFER: usize = 1024;
/// A first buffer for what a compressed message inflates to.
const INFLATED: usize = 2048;

/// The frame that is being received.
#[derive(Clone, Copy, Debug)]
enum Frame {
    /// Between two frames.
    None,
    Data {
        remaining: usize,
        offset: usize,
        key: [u8; 4],
        fin: bool,
    },
    Control {
        remaining: usize,
        opcode: Opcode,
        key: [u8; 4],
    },
}

/// What a piece of input led to.
pub(super) enum Step {
    /// The input is used up.
    Starved,
    /// A header is next.
    FrameEnd,
    /// A control frame is whole: its payload is [`Partial::control`].
    Control(Opcode),
    /// A message is whole.
    Message { kind: Kind, compressed: bool, payload: OwnedPayload },
}

/// A frame or a message that is incomplete.
pub(super) struct Partial {
    pub(super) sequence: Sequence,
    frame: Frame,
    utf8: Utf8,
    pub(super) control: ControlPayload,
    /// Room for a header, then the message so far; of a compressed one what was inflated, or, while
    /// `inflation` is `None`, the compressed bytes.
    buffer: Vec<u8>,
    inflation: Option<Inflation>,
}

impl Default for Partial {
    fn default() -> Self {
        Self {
            sequence: Sequence::IDLE,
            frame: Frame::None,
            utf8: Utf8::new(),
            control: ControlPayload::EMPTY,
            buffer: Vec::new(),
            inflation: None,
        }
    }
}

impl Partial {
    /// Whether nothing is incomplete any more.
    pub(super) fn is_spent(&self) -> bool {
        matches!(self.frame, Frame::None) && self.sequence.open().is_none()
    }

    pub(super) fn retained_bytes(&self) -> usize {
        size_of::<Self>() + self.buffer.capacity()
    }

    /// Gives a lent inflater back.
    pub(super) fn abandon(self, codecs: &mut Codecs) {
        if let Some(inflation) = self.inflation {
            inflation.abandon(codecs);
        }
    }

    /// Takes up a frame whose header was checked.
    pub(super) fn start(&mut self, head: &Head) {
        let key = head.mask.unwrap_or_default();
        // Checked against the limits, which are in usize.
        let remaining = head.len as usize;
        self.frame = if head.opcode.is_control() {
            self.control = ControlPayload::EMPTY;
            Frame::Control { remaining, opcode: head.opcode, key }
        } else {
            if self.sequence.open().is_none() {
                self.utf8 = Utf8::new();
            }
            self.sequence.admit(head);
            Frame::Data { remaining, offset: 0, key, fin: head.fin }
        };
    }

    /// Goes on with the frame that was taken up.
    pub(super) fn resume(
        &mut self,
        input: &mut [u8],
        cursor: &mut Cursor,
        cx: &mut DecodeContext<'_>,
    ) -> Result<Step, Violation> {
        let available = input.len() - cursor.read;
        match &mut self.frame {
            Frame::None => Ok(Step::FrameEnd),
            Frame::Control { remaining, opcode, key } => {
                let taken = (*remaining).min(available);
                let end = cursor.read + taken;
                self.control.extend(&input[cursor.read..end], *key);
                cursor.read = end;
                *remaining -= taken;
                if *remaining > 0 {
                    return Ok(Step::Starved);
                }
                let opcode = *opcode;
                self.frame = Frame::None;
                Ok(Step::Control(opcode))
            }
            &mut Frame::Data { remaining, offset, key, fin } => {
                let taken = remaining.min(available);
                let end = cursor.read + taken;
                let piece = &mut input[cursor.read..end];
                cursor.read = end;
                let left = remaining - taken;
                self.frame = Frame::Data { remaining: left, offset: offset + taken, key, fin };
                if taken > 0 {
                    let expected = if fin { remaining } else { usize::MAX };
                    if self.sequence.compressed() {
                        self.take_compressed(piece, offset, key, expected, cx)?;
                    } else {
                        self.take_plain(piece, offset, key, expected, cx)?;
                    }
                }
                if left > 0 {
                    return Ok(Step::Starved);
                }
                self.frame = Frame::None;
                if fin { self.finish(cx) } else { Ok(Step::FrameEnd) }
            }
        }
    }

    /// `expected`: bytes that the message certainly still has, this piece included; MAX where unknown.
    fn take_plain(
        &mut self,
        piece: &[u8],
        offset: usize,
        key: [u8; 4],
        expected: usize,
        cx: &mut DecodeContext<'_>,
    ) -> Result<(), Violation> {
        let from = self.append(piece, offset, key, expected, cx.spares);
        match self.sequence.open() {
            Some(Kind::Text) if !(from.ascii && self.utf8.is_boundary()) => {
                self.utf8.feed(&self.buffer[from.start..]).map_err(|_| Violation::TextNotUtf8)
            }
            Some(_) | None => Ok(()),
        }
    }

    fn take_compressed(
        &mut self,
        piece: &mut [u8],
        offset: usize,
        key: [u8; 4],
        expected: usize,
        cx: &mut DecodeContext<'_>,
    ) -> Result<(), Violation> {
        if self.buffer.is_empty() {
            // The first bytes of the message: now is the time to ask for an inflater.
            let compression = cx.compression.as_deref_mut().expect("RSV1 was allowed");
            self.inflation = compression.begin(cx.codecs);
            if self.inflation.is_some() {
                self.buffer = cx.spares.take(MAX_HEADER, INFLATED, INFLATED);
                self.buffer.resize(MAX_HEADER, 0);
            }
        }
        let Some(inflation) = self.inflation.as_mut() else {
            // None was free: the bytes wait for the end of the message.
            self.append(piece, offset, key, expected, cx.spares);
            return Ok(());
        };
        tidegate_simd::unmask(piece, key, offset);
        let from = self.buffer.len();
        // What inflating would grow to in two steps, which is all where it brings no surprise: from what was given back.
        let need = from.saturating_add(2 * first_step(piece.len())).min(max_len(cx));
        if self.buffer.capacity() < need {
            let want = need.max(self.buffer.capacity().saturating_mul(2).min(max_len(cx)));
            let larger = cx.spares.take(need, want, want);
            let smaller = std::mem::replace(&mut self.buffer, larger);
            self.buffer.extend_from_slice(&smaller);
            cx.spares.give(smaller);
        }
        let fed = inflation.feed(piece, &mut self.buffer, max_len(cx));
        cx.codecs.count_so_far(inflation);
        self.check_inflated(from, fed)
    }

    /// Text that was inflated is judged before what stopped the inflating is: the order is the stream's, and
    /// thus the same for any split.
    fn check_inflated(&mut self, from: usize, fed: Result<(), InflateError>) -> Result<(), Violation> {
        if self.sequence.open() == Some(Kind::Text) {
            self.utf8.feed(&self.buffer[from..]).map_err(|_| Violation::TextNotUtf8)?;
        }
        fed.map_err(Violation::from)
    }

    /// The message is whole.
    fn finish(&mut self, cx: &mut DecodeContext<'_>) -> Result<Step, Violation> {
        let compressed = self.sequence.compressed();
        let kind = self.sequence.open().expect("a data frame ended");
        if compressed {
            let from = self.buffer.len();
            let max_len = max_len(cx);
            let compression = cx.compression.as_deref_mut().expect("RSV1 was allowed");
            match self.inflation.take() {
                Some(inflation) => {
                    let end = inflation.finish(compression, cx.codecs, &self.buffer, max_len);
                    self.check_inflated(from, end)?;
                }
                None => {
                    // No inflater was free, or no byte came.
                    let raw = std::mem::take(&mut self.buffer);
                    self.buffer = cx.spares.take_large(raw.len().saturating_mul(2));
                    self.buffer.resize(MAX_HEADER, 0);
                    let bytes = raw.get(MAX_HEADER..).unwrap_or_default();
                    let end = cx.codecs.inflate_whole(compression, bytes, &mut self.buffer, max_len);
                    self.check_inflated(MAX_HEADER, end)?;
                    cx.spares.give(raw);
                }
            }
        }
        if kind == Kind::Text && !self.utf8.is_boundary() {
            return Err(Violation::TextNotUtf8);
        }
        self.sequence = Sequence::IDLE;
        let mut buffer = std::mem::take(&mut self.buffer);
        if buffer.is_empty() {
            buffer.resize(MAX_HEADER, 0);
        }
        Ok(Step::Message { kind, compressed, payload: OwnedPayload { buffer, start: MAX_HEADER } })
    }

    /// Copies a piece, unmasking it, behind what is collected.
    fn append(
        &mut self,
        piece: &[u8],
        offset: usize,
        key: [u8; 4],
        expected: usize,
        spares: &mut Spares,
    ) -> Appended {
        let start = self.buffer.len().max(MAX_HEADER);
        let end = start + piece.len();
        if self.buffer.capacity() < end {
            let ceiling = 2 * (end - MAX_HEADER) + MAX_HEADER + SLACK;
            let want = start.saturating_add(expected).max(MIN_BUFFER).min(ceiling);
            let larger = spares.take(end, want, ceiling);
            let smaller = std::mem::replace(&mut self.buffer, larger);
            self.buffer.extend_from_slice(&smaller);
            spares.give(smaller);
        }
        self.buffer.resize(end, 0);
        let ascii = tidegate_simd::unmask_into(piece, &mut self.buffer[start..], key, offset);
        Appended { start, ascii }
    }
}

/// Where a piece lies now, and whether it is ASCII.
struct Appended {
    start: usize,
    ascii: bool,
}

/// A compressed message in one frame, whole in the input at the cursor.
pub(super) fn inflate_message(
    input: &mut [u8],
    cursor: &mut Cursor,
    len: usize,
    key: [u8; 4],
    kind: Kind,
    cx: &mut DecodeContext<'_>,
) -> Result<Event, Violation> {
    let end = cursor.read + len;
    let piece = &mut input[cursor.read..end];
    cursor.read = end;
    tidegate_simd::unmask(piece, key, 0);
    let max_len = max_len(cx);
    let compression = cx.compression.as_deref_mut().expect("RSV1 was allowed");
    let mut buffer = cx.spares.take_large(len.saturating_mul(4));
    buffer.resize(MAX_HEADER, 0);
    let end = match compression.begin(cx.codecs) {
        Some(mut inflation) => match inflation.feed(piece, &mut buffer, max_len) {
            Ok(()) => inflation.finish(compression, cx.codecs, &buffer, max_len),
            Err(error) => {
                inflation.abandon(cx.codecs);
                Err(error)
            }
        },
        None => cx.codecs.inflate_whole(compression, piece, &mut buffer, max_len),
    };
    if kind == Kind::Text {
        // With an error only what was inflated before it counts, which may end within a character.
        let valid = match end {
            Ok(()) => is_utf8(&buffer[MAX_HEADER..]),
            Err(_) => Utf8::new().feed(&buffer[MAX_HEADER..]).is_ok(),
        };
        if !valid {
            return Err(Violation::TextNotUtf8);
        }
    }
    end?;
    let payload = Payload::Owned(OwnedPayload { buffer, start: MAX_HEADER });
    Ok(Event::Message { kind, compressed: true, payload })
}

impl From<InflateError> for Violation {
    fn from(error: InflateError) -> Self {
        match error {
            InflateError::Corrupt => Self::DeflateCorrupt,
            InflateError::TooBig => Self::TooBig,
        }
    }
}

/// The longest buffer of an inflated message.
fn max_len(cx: &DecodeContext<'_>) -> usize {
    cx.limits.message_bytes.saturating_add(MAX_HEADER)
}
