//! Cut-through: what may be forwarded as it is, judged without writing a byte.
//!
//! A proxied leg hands its input on as it arrives, mask and all. The [`Inspector`] reads along: it checks
//! every header before it is forwarded, counts sizes, unmasks text in registers to check it, and takes
//! control frames out. Its verdicts are the [`Decoder`](crate::message::Decoder)'s.
//!
//! Invariants: `Stage` describes the position behind what was returned so far; nothing is held but half a
//! header or a control frame; a message is never completed unless it was valid.

use std::fmt;
use std::num::NonZeroU32;

use crate::frame::{Head, HeaderRules, MAX_HEADER, Opcode, decode_header, header_len};
use crate::message::sequence::Sequence;
use crate::message::{Kind, Violation};
use crate::utf8::Utf8;
use crate::{Limits, Role};

mod segment;

pub use segment::{HeldBytes, RelayControl, Segment};

/// Text is unmasked on the stack in pieces of this size where it is not ASCII.
const CHUNK: usize = 1024;

/// What an [`Inspector`] lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayRules {
    /// What a message may cost; of a compressed one the bytes on the wire count.
    pub limits: Limits,
    /// The two ends agreed upon compressed messages. What is in them is theirs to check.
    pub rsv1: bool,
    /// Text is checked to be UTF-8.
    pub utf8: bool,
}

/// A control frame of which `missing` bytes are to come.
struct Incomplete {
    missing: usize,
    frame: RelayControl,
}

/// Where in a frame the stream is.
enum Stage {
    /// In front of a header, of which the last input may have brought the first bytes.
    Header { carried: u8, carry: [u8; MAX_HEADER - 1] },
    /// In a data frame whose header was forwarded. `key` is the one for the next byte.
    Payload { remaining: usize, key: [u8; 4], fin: bool },
    /// In a control frame, of which nothing was forwarded.
    Control(Box<Incomplete>),
}

impl Stage {
    const BOUNDARY: Self = Self::Header { carried: 0, carry: [0; MAX_HEADER - 1] };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Closed,
    Failed(Violation),
}

/// Reads one direction of a connection along as it is forwarded.
///
/// [`next`](Self::next) is called with each input until it says `None`.
pub struct Inspector {
    stage: Stage,
    sequence: Sequence,
    utf8: Utf8,
    role: Role,
    state: State,
    /// A message has begun since [`take_begun`](Self::take_begun) was last asked.
    begun: bool,
    /// Messages that were ended since [`take_ended`](Self::take_ended) was last asked.
    ended: u16,
    /// Where in the input the last frame begins that [`Segment::Forward`] has brought but not ended.
    cut: Option<NonZeroU32>,
}

impl Inspector {
    /// `role` is this end's on this leg: a server reads masked frames.
    #[must_use]
    pub const fn new(role: Role) -> Self {
        Self {
            stage: Stage::BOUNDARY,
            sequence: Sequence::IDLE,
            utf8: Utf8::new(),
            role,
            state: State::Open,
            begun: false,
            ended: 0,
            cut: None,
        }
    }

    /// Where in the input whole frames end and the beginning of another one follows, both of them in the
    /// [`Segment::Forward`] that was just returned.
    pub fn take_cut(&mut self) -> Option<usize> {
        self.cut.take().map(|cut| cut.get() as usize)
    }

    /// Whether what was forwarded so far ends between two frames: only then may a frame of one's own follow.
    #[must_use]
    pub fn at_boundary(&self) -> bool {
        match self.stage {
            Stage::Header { .. } | Stage::Control(_) => true,
            Stage::Payload { .. } => false,
        }
    }

    /// Whether a message is incomplete.
    #[must_use]
    pub fn message_open(&self) -> bool {
        self.sequence.open().is_some()
    }

    /// Whether a message that did not lie whole in one input has begun since this was last asked. With
    /// [`message_open`](Self::message_open) it tells from when on the open message's time runs.
    pub fn take_begun(&mut self) -> bool {
        std::mem::take(&mut self.begun)
    }

    /// How many messages have ended, whole and valid, since this was last asked: at most 65,535 are counted, which is more
    /// than a receive buffer holds.
    pub fn take_ended(&mut self) -> u64 {
        u64::from(std::mem::take(&mut self.ended))
    }

    /// Whether anything is held back: half a header or a part of a control frame.
    #[must_use]
    pub fn has_carry(&self) -> bool {
        match self.stage {
            Stage::Header { carried, .. } => carried > 0,
            Stage::Payload { .. } => false,
            Stage::Control(_) => true,
        }
    }

    /// Bytes of heap held.
    #[must_use]
    pub fn retained_bytes(&self) -> usize {
        match self.stage {
            Stage::Header { .. } | Stage::Payload { .. } => 0,
            Stage::Control(_) => size_of::<Incomplete>(),
        }
    }

    /// The next segment of `input[*read..]`. `None`: the input is used up. After a Close nothing more is
    /// parsed; the rest is used up unread.
    ///
    /// # Errors
    /// What the peer did wrong, once everything before it was returned. A frame that breaks a rule is not
    /// forwarded at all if its header was not yet; else up to its first bad byte at most. Every later call
    /// says the same.
    ///
    /// # Panics
    /// If `*read` does not lie within the input.
    pub fn next(
        &mut self,
        input: &[u8],
        read: &mut usize,
        rules: &RelayRules,
    ) -> Result<Option<Segment>, Violation> {
        self.next_counted(input, read, rules, &mut 0)
    }

    /// The same, and adds to `messages` how many data messages have begun in what it read.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    ///
    /// # Panics
    /// As [`next`](Self::next).
    pub fn next_counted(
        &mut self,
        input: &[u8],
        read: &mut usize,
        rules: &RelayRules,
        messages: &mut u32,
    ) -> Result<Option<Segment>, Violation> {
        match self.state {
            State::Open => {}
            State::Closed => {
                *read = input.len();
                return Ok(None);
            }
            State::Failed(violation) => return Err(violation),
        }
        let segment = match self.stage {
            Stage::Header { .. } if *read == input.len() => return Ok(None),
            Stage::Header { carried: 0, .. } | Stage::Payload { .. } => {
                self.forward(input, read, rules, messages)
            }
            Stage::Header { .. } => self.complete_header(input, read, rules, messages),
            Stage::Control(_) => self.complete_control(input, read),
        };
        match segment {
            Ok(Some(Segment::Close(_))) => self.state = State::Closed,
            Ok(_) => {}
            Err(violation) => self.state = State::Failed(violation),
        }
        segment
    }

    /// As many valid bytes as there are in a row; what stands in their way only if there are none.
    fn forward(
        &mut self,
        input: &[u8],
        read: &mut usize,
        rules: &RelayRules,
        messages: &mut u32,
    ) -> Result<Option<Segment>, Violation> {
        let start = *read;
        // What lies before is valid and to be forwarded.
        let mut at = start;
        // The frame in whose payload `at` is, if its header is in this range: it can still be left out.
        let mut frame: Option<(usize, Sequence)> = None;
        let failed = loop {
            if let Stage::Payload { remaining, key, fin } = &mut self.stage {
                let taken = (*remaining).min(input.len() - at);
                let piece = &input[at..at + taken];
                let last = *fin && taken == *remaining;
                let checked = match self.sequence.open() {
                    Some(Kind::Text) if rules.utf8 && !self.sequence.compressed() => {
                        check_text(&mut self.utf8, piece, *key, self.role, last)
                    }
                    Some(_) | None => Ok(()),
                };
                if let Err(bad) = checked {
                    match frame {
                        Some((head, sequence)) => {
                            at = head;
                            self.sequence = sequence;
                            self.stage = Stage::BOUNDARY;
                        }
                        None => {
                            at += bad;
                            *remaining -= bad;
                        }
                    }
                    break Some(Violation::TextNotUtf8);
                }
                at += taken;
                *remaining -= taken;
                if *remaining > 0 {
                    key.rotate_left(taken & 3);
                    break None;
                }
                let fin = *fin;
                self.end_frame(fin);
            }

            if self.sequence.open().is_none() {
                match self.short_frames(input, at, rules, messages) {
                    Ok(end) => at = end,
                    Err(end) => {
                        at = end;
                        break Some(Violation::TextNotUtf8);
                    }
                }
            }
            let rest = &input[at..];
            if rest.is_empty() {
                break None;
            }
            let (head, len) = match decode_header(rest, &self.sequence, self.header_rules(rules)) {
                Ok(Some(header)) => header,
                Ok(None) => {
                    if start == at {
                        self.carry(&[], rest);
                        *read = input.len();
                        return Ok(None);
                    }
                    break None;
                }
                Err(violation) => break Some(violation),
            };
            if head.opcode.is_control() {
                if start == at {
                    let (header, payload) = rest.split_at(len);
                    let (used, segment) = self.control(&head, header, payload);
                    *read += len + used;
                    return segment;
                }
                break None;
            }
            if let Err(violation) = self.check_end(&head, rules) {
                break Some(violation);
            }
            frame = Some((at, self.sequence));
            at += len;
            self.start(&head, messages);
        };
        *read = at;
        self.cut = match self.stage {
            Stage::Payload { .. } => {
                let head = frame.map(|(head, _)| head).filter(|head| *head > start);
                head.and_then(|head| u32::try_from(head).ok()).and_then(NonZeroU32::new)
            }
            Stage::Header { .. } | Stage::Control(_) => None,
        };
        if let Some(violation) = failed {
            if start == at {
                return Err(violation);
            }
            self.state = State::Failed(violation);
        }
        Ok((start < at).then_some(Segment::Forward(start..at)))
    }

    /// The hot path: uncompressed messages in one frame each of at most 125 bytes, whole in the input. Where
    /// they end; `Err`: where one starts that is not the text that it claims to be.
    #[inline]
    fn short_frames(
        &mut self,
        input: &[u8],
        mut at: usize,
        rules: &RelayRules,
        messages: &mut u32,
    ) -> Result<usize, usize> {
        if rules.limits.message_fragments == 0 {
            return Ok(at);
        }
        let before = *messages;
        let end = loop {
            let &[b0 @ (0x81 | 0x82), b1, ref rest @ ..] = &input[at..] else { break Ok(at) };
            // A mask bit that does not fit the role makes this 128 or more.
            let (len, payload, key) = match self.role {
                Role::Server => {
                    let Some((&key, payload)) = rest.split_first_chunk() else { break Ok(at) };
                    (usize::from(b1 ^ 0x80), payload, key)
                }
                Role::Client => (usize::from(b1), rest, [0; 4]),
            };
            if len > 125 || len > rules.limits.message_bytes {
                break Ok(at);
            }
            let Some(payload) = payload.get(..len) else { break Ok(at) };
            if b0 == 0x81
                && rules.utf8
                && check_text(&mut Utf8::new(), payload, key, self.role, true).is_err()
            {
                break Err(at);
            }
            at += header_len(len, self.role == Role::Server) + len;
            *messages += 1;
        };
        // Each has begun and ended here.
        self.ended = self.ended.saturating_add(u16::try_from(*messages - before).unwrap_or(u16::MAX));
        end
    }

    /// Goes on with the header that the last input ended in.
    fn complete_header(
        &mut self,
        input: &[u8],
        read: &mut usize,
        rules: &RelayRules,
        messages: &mut u32,
    ) -> Result<Option<Segment>, Violation> {
        let Stage::Header { carried, carry } = self.stage else { unreachable!("half a header was held") };
        let carried = usize::from(carried);
        let rest = &input[*read..];
        let mut held = HeldBytes { len: 0, bytes: [0; MAX_HEADER] };
        held.bytes[..carried].copy_from_slice(&carry[..carried]);
        let more = rest.len().min(MAX_HEADER - carried);
        held.bytes[carried..carried + more].copy_from_slice(&rest[..more]);
        let header = decode_header(&held.bytes[..carried + more], &self.sequence, self.header_rules(rules))?;
        let Some((head, len)) = header else {
            self.carry(&carry[..carried], rest);
            *read = input.len();
            return Ok(None);
        };
        self.check_end(&head, rules)?;
        // The header was incomplete without this input's bytes.
        *read += len - carried;
        self.stage = Stage::BOUNDARY;
        if head.opcode.is_control() {
            let (used, segment) = self.control(&head, &held.bytes[..len], &input[*read..]);
            *read += used;
            return segment;
        }
        self.start(&head, messages);
        if head.len == 0 {
            // Its header is all of it.
            self.end_frame(head.fin);
        }
        // At most 14.
        held.len = len as u8;
        Ok(Some(Segment::Held(held)))
    }

    /// Goes on with the control frame that the last input ended in.
    fn complete_control(&mut self, input: &[u8], read: &mut usize) -> Result<Option<Segment>, Violation> {
        let Stage::Control(incomplete) = &mut self.stage else { unreachable!("a control frame was held") };
        let taken = incomplete.missing.min(input.len() - *read);
        incomplete.frame.extend(&input[*read..*read + taken]);
        incomplete.missing -= taken;
        *read += taken;
        if incomplete.missing > 0 {
            return Ok(None);
        }
        let frame = incomplete.frame;
        self.stage = Stage::BOUNDARY;
        frame.segment().map(Some)
    }

    /// A control frame's header was read; the payload is as much of `rest` as belongs to it. Says how much.
    fn control(
        &mut self,
        head: &Head,
        header: &[u8],
        rest: &[u8],
    ) -> (usize, Result<Option<Segment>, Violation>) {
        // At most 125.
        let len = head.len as usize;
        let used = len.min(rest.len());
        let mut frame = RelayControl::new(head, header);
        frame.extend(&rest[..used]);
        if used == len {
            return (used, frame.segment().map(Some));
        }
        self.stage = Stage::Control(Box::new(Incomplete { missing: len - used, frame }));
        (used, Ok(None))
    }

    /// A data frame's header was checked and is forwarded.
    fn start(&mut self, head: &Head, messages: &mut u32) {
        if self.sequence.open().is_none() {
            self.utf8 = Utf8::new();
            self.begun = true;
            *messages += 1;
        }
        self.sequence.admit(head);
        self.stage = Stage::Payload {
            // Checked against the limits, which are in usize.
            remaining: head.len as usize,
            key: head.mask.unwrap_or_default(),
            fin: head.fin,
        };
    }

    /// All of a data frame was forwarded.
    fn end_frame(&mut self, fin: bool) {
        if fin {
            self.sequence = Sequence::IDLE;
            self.ended = self.ended.saturating_add(1);
        }
        self.stage = Stage::BOUNDARY;
    }

    /// An empty frame may not end a text within a character: its header alone would complete the message.
    fn check_end(&self, head: &Head, rules: &RelayRules) -> Result<(), Violation> {
        let ends_text = head.fin
            && head.len == 0
            && head.opcode == Opcode::Continuation
            && self.sequence.open() == Some(Kind::Text);
        if ends_text && rules.utf8 && !self.sequence.compressed() && !self.utf8.is_boundary() {
            return Err(Violation::TextNotUtf8);
        }
        Ok(())
    }

    /// Half a header is all that is left of the input. Two pieces that are no header together have fewer
    /// than fourteen bytes.
    fn carry(&mut self, first: &[u8], second: &[u8]) {
        let mut carry = [0; MAX_HEADER - 1];
        let len = first.len() + second.len();
        carry[..first.len()].copy_from_slice(first);
        carry[first.len()..len].copy_from_slice(second);
        self.stage = Stage::Header { carried: len as u8, carry };
    }

    fn header_rules<'a>(&self, rules: &'a RelayRules) -> HeaderRules<'a> {
        HeaderRules { role: self.role, limits: &rules.limits, rsv1: rules.rsv1 }
    }
}

impl fmt::Debug for Inspector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inspector")
            .field("role", &self.role)
            .field("state", &self.state)
            .field("at_boundary", &self.at_boundary())
            .field("message_open", &self.message_open())
            .finish_non_exhaustive()
    }
}

/// Checks the next piece of a text; `last`: the text ends with it. `Err`: how many of its bytes may be
/// forwarded, fewer than all if it is the last.
fn check_text(utf8: &mut Utf8, piece: &[u8], key: [u8; 4], role: Role, last: bool) -> Result<(), usize> {
    let ascii = match role {
        Role::Server => tidegate_simd::scan(piece, key, 0),
        Role::Client => tidegate_simd::is_ascii(piece),
    };
    if ascii && utf8.is_boundary() {
        return Ok(());
    }
    match role {
        Role::Server => {
            let mut plain = [0; CHUNK];
            for (i, masked) in piece.chunks(CHUNK).enumerate() {
                let plain = &mut plain[..masked.len()];
                tidegate_simd::unmask_into(masked, plain, key, i * CHUNK);
                utf8.feed(plain).map_err(|bad| i * CHUNK + bad.at)?;
            }
        }
        Role::Client => utf8.feed(piece).map_err(|bad| bad.at)?,
    }
    if last && !utf8.is_boundary() {
        return Err(piece.len().saturating_sub(1));
    }
    Ok(())
}
