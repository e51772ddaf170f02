//! The bytes that wait for one socket.
//!
//! Invariant: bytes leave in the order in which they were taken in. Only whole messages of which no byte was sent
//! are ever dropped, and only a control frame of which no byte was sent is ever replaced.

mod queue;
#[cfg(test)]
mod tests;

use self::queue::{Bytes, Kind, Piece, Queue};
use crate::{Chunk, Frame, Retained};

/// The most pieces that [`Outbox::pieces`] yields: one send takes no more.
pub const MAX_PIECES: usize = 64;

/// What a chunk counts against the limits beside its bytes, so that a queue of tiny messages is bounded too. About
/// what it takes in memory.
pub const CHUNK_COST: usize = 64;

/// The marks on an outbox's bytes (each chunk counts for [`CHUNK_COST`] more).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxLimits {
    soft: usize,
    low: usize,
    hard: usize,
}

impl OutboxLimits {
    /// Above `soft` a producer is paused, at `low` it goes on, above `hard` nothing more is taken.
    ///
    /// # Panics
    /// Unless `low <= soft <= hard`.
    #[must_use]
    pub const fn new(soft: usize, low: usize, hard: usize) -> Self {
        assert!(low <= soft && soft <= hard, "low <= soft <= hard");
        Self { soft, low, hard }
    }

    /// Above this a producer is paused.
    #[must_use]
    pub const fn soft(&self) -> usize {
        self.soft
    }

    /// At this a paused producer goes on.
    #[must_use]
    pub const fn low(&self) -> usize {
        self.low
    }

    /// Above this nothing more is taken.
    #[must_use]
    pub const fn hard(&self) -> usize {
        self.hard
    }
}

/// What happens to a message when the outbox is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FullPolicy {
    /// Above the hard limit the new message is dropped.
    DropNew,
    /// Above the hard limit the oldest messages are dropped that were themselves pushed under this policy and of
    /// which nothing was sent; where that does not make room, the new one is.
    DropOld,
    /// Above the hard limit the session ends (1013).
    Disconnect,
    /// Above the soft limit the producer is paused. Where so much was on its way that the hard limit is passed all
    /// the same, the session ends.
    Pause,
}

/// What became of pushed bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Admission {
    /// Taken.
    Queued,
    /// Taken; the producer must be paused until [`Outbox::consume`] returns true.
    QueuedPause,
    /// The new message was not taken.
    Dropped,
    /// Taken, and so many older messages were dropped for it.
    DroppedOld(u32),
    /// Not taken; the session must end.
    Disconnect,
}

/// Where streamed bytes end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Inside a frame: nothing but the rest of it may follow.
    Inside,
    /// After a whole frame: a control frame may follow.
    Boundary,
}

/// What happens to streamed bytes when an outbox is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Streams {
    /// They stay, with all that is before them: answers to requests, and what the kernel left.
    Kept,
    /// They are frames on their way through: those behind the first boundary are dropped.
    Cut,
}

/// Control frames, RFC 6455 §5.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Control {
    /// §5.5.2.
    Ping,
    /// §5.5.3: where several pings wait for an answer, the last one's pong is enough.
    Pong,
    /// §5.5.1: the last frame of all. A second one is ignored.
    Close,
}

/// Output that waits for its socket to take it. Nothing on the heap while it is empty.
///
/// A session that is not mid-send sends past its outbox; what the kernel did not take comes here by
/// [`Outbox::push_remainder`]. From then on all output goes through the outbox until it is empty again.
///
/// - Whole messages: [`Outbox::push`], which may refuse or drop them.
/// - A forwarded stream of bytes: [`Outbox::append_copy`].
/// - A sealed stream: [`Outbox::is_full_for`] before sealing, then [`Outbox::append_always`].
/// - Control frames: [`Outbox::push_control`], always taken. Of each kind at most one waits, so they are bounded.
/// - Sending: [`Outbox::pieces`], then [`Outbox::consume`].
/// - Ending: [`Outbox::drop_unsent`], and [`Outbox::clear`] before it is dropped, so that [`Retained`] stays true.
#[derive(Debug, Default)]
pub struct Outbox {
    held: Held,
}

#[derive(Debug, Default)]
enum Held {
    #[default]
    Nothing,
    /// One shared frame, as a subscriber has it that is a little slow: no heap.
    One { frame: Frame, sent: u32, droppable: bool },
    /// Never empty.
    Many(Box<Queue>),
}

impl Outbox {
    /// An empty outbox.
    #[must_use]
    pub const fn new() -> Self {
        Self { held: Held::Nothing }
    }

    /// Whether nothing waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        matches!(self.held, Held::Nothing)
    }

    /// The buffered amount: bytes that wait, control frames with them.
    #[must_use]
    pub fn buffered(&self) -> usize {
        match &self.held {
            Held::Nothing => 0,
            Held::One { frame, sent, .. } => frame.len() - *sent as usize,
            Held::Many(queue) => queue.buffered,
        }
    }

    /// The heap that only this outbox holds: its part of what [`Retained`] counts.
    #[must_use]
    pub fn retained_bytes(&self) -> usize {
        match &self.held {
            Held::Nothing | Held::One { .. } => 0,
            Held::Many(queue) => queue.footprint(),
        }
    }

    /// Its part of what waits and counts in a part of the total ([`Frame::with_part`]): of each frame as much as each of its
    /// holders has of it. A look at each of its [pieces](Self::waiting_pieces).
    #[must_use]
    pub fn shared_bytes(&self) -> usize {
        let part = |frame: &Frame, sent: usize| match frame.has_part() {
            true => (frame.len() - sent).div_ceil(frame.holders()),
            false => 0,
        };
        match &self.held {
            Held::Nothing => 0,
            Held::One { frame, sent, .. } => part(frame, *sent as usize),
            Held::Many(queue) => queue.shared().map(|(frame, sent)| part(frame, sent)).sum(),
        }
    }

    /// How many pieces wait.
    #[must_use]
    pub fn waiting_pieces(&self) -> usize {
        match &self.held {
            Held::Nothing => 0,
            Held::One { .. } => 1,
            Held::Many(queue) => queue.pieces.len(),
        }
    }

    /// Whether a producer was told to pause and has not been told to go on.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        match &self.held {
            // What is empty pauses nobody, and whoever is paused is noted in the queue.
            Held::Nothing | Held::One { .. } => false,
            Held::Many(queue) => queue.paused,
        }
    }

    /// Whether a new frame may follow what waits. True where nothing does: only the caller knows about bytes that
    /// went past the outbox.
    #[must_use]
    pub fn at_boundary(&self) -> bool {
        match &self.held {
            Held::Nothing | Held::One { .. } => true,
            Held::Many(queue) => queue.at_boundary(),
        }
    }

    /// Takes a whole message, or does with it what `policy` says. An outbox without any data takes a message of
    /// every size: its size has its own limit, and refusing it would refuse it for ever.
    pub fn push(
        &mut self,
        chunk: Chunk,
        limits: &OutboxLimits,
        policy: FullPolicy,
        retained: &mut Retained,
    ) -> Admission {
        debug_assert!(self.at_boundary(), "a message inside a frame");
        let len = chunk.bytes().len();
        if len == 0 {
            return Admission::Queued;
        }
        let before = self.retained_bytes();
        let admission = self.admit(len, limits, policy);
        if !matches!(admission, Admission::Dropped | Admission::Disconnect) {
            let droppable = policy == FullPolicy::DropOld;
            match (chunk, &self.held) {
                (Chunk::Shared(frame), Held::Nothing) if u32::try_from(len).is_ok() => {
                    self.held = Held::One { frame, sent: 0, droppable };
                }
                (chunk, _) => self.queue().push_back(Piece::message(chunk, droppable)),
            }
        }
        retained.change(before, self.retained_bytes());
        admission
    }

    /// Takes bytes of a forwarded stream, which ends its session rather than lose any: a policy that drops is as
    /// [`FullPolicy::Pause`] here.
    pub fn append_copy(
        &mut self,
        bytes: &[u8],
        end: End,
        limits: &OutboxLimits,
        policy: FullPolicy,
        retained: &mut Retained,
    ) -> Admission {
        if bytes.is_empty() {
            return Admission::Queued;
        }
        let before = self.retained_bytes();
        let policy = match policy {
            FullPolicy::Disconnect => FullPolicy::Disconnect,
            FullPolicy::Pause | FullPolicy::DropNew | FullPolicy::DropOld => FullPolicy::Pause,
        };
        let admission = self.admit(bytes.len(), limits, policy);
        if admission != Admission::Disconnect {
            self.queue().append(bytes, end);
        }
        retained.change(before, self.retained_bytes());
        admission
    }

    /// Whether `len` more bytes would pass the hard limit: for bytes that cannot be refused once they exist, such as
    /// sealed ones. Ask before [`Outbox::append_always`].
    #[must_use]
    pub fn is_full_for(&self, len: usize, limits: &OutboxLimits) -> bool {
        self.cost_with(len) > limits.hard && self.has_data()
    }

    /// Takes bytes of a stream, whatever the limits: what is sealed cannot be left out, nor the answer that opens a session.
    /// None of them is dropped by [`Outbox::push`] later.
    pub fn append_always(
        &mut self,
        bytes: &[u8],
        end: End,
        limits: &OutboxLimits,
        policy: FullPolicy,
        retained: &mut Retained,
    ) -> Admission {
        if bytes.is_empty() {
            return Admission::Queued;
        }
        let before = self.retained_bytes();
        self.queue().append(bytes, end);
        retained.change(before, self.retained_bytes());
        if self.pauses_above_soft(limits, policy) { Admission::QueuedPause } else { Admission::Queued }
    }

    /// Takes what the kernel left of a send that went past the outbox: of `pieces`, all but the first `sent` bytes.
    /// It goes in front of all that was queued meanwhile and is never refused or dropped. True where its producer must be
    /// paused until [`Outbox::consume`] returns true.
    #[must_use]
    pub fn push_remainder<'a>(
        &mut self,
        pieces: impl Iterator<Item = &'a [u8]>,
        sent: usize,
        end: End,
        limits: &OutboxLimits,
        policy: FullPolicy,
        retained: &mut Retained,
    ) -> bool {
        let mut rest = Vec::new();
        let mut skip = sent;
        for piece in pieces {
            let skipped = skip.min(piece.len());
            skip -= skipped;
            rest.extend_from_slice(&piece[skipped..]);
        }
        assert_eq!(skip, 0, "more was sent than there was");
        if rest.is_empty() {
            return false;
        }
        let before = self.retained_bytes();
        self.queue().push_front(Piece { bytes: Bytes::Owned(rest), at: 0, kind: Kind::Stream(end) });
        retained.change(before, self.retained_bytes());
        self.pauses_above_soft(limits, policy)
    }

    /// Takes what the kernel left of a shared frame that went past the outbox: all but its first `sent` bytes, by reference.
    /// Never refused, and dropped only where nothing of it was sent. The caller bounds how many there are.
    pub fn push_rest(&mut self, frame: Frame, sent: usize, retained: &mut Retained) {
        debug_assert!(sent < frame.len(), "a frame that was sent whole has no rest");
        debug_assert!(sent == 0 || self.is_empty(), "what was begun is the first");
        let before = self.retained_bytes();
        match (&self.held, u32::try_from(sent)) {
            (Held::Nothing, Ok(sent)) if u32::try_from(frame.len()).is_ok() => {
                self.held = Held::One { frame, sent, droppable: false };
            }
            _ => {
                let kind = Kind::Message { begun: sent > 0, droppable: false };
                self.queue().push_back(Piece { bytes: Bytes::Shared(frame), at: sent, kind });
            }
        }
        retained.change(before, self.retained_bytes());
    }

    /// Takes a control frame's wire bytes, whatever the limits. A ping or pong takes the place of one of its kind
    /// of which nothing was sent; a Close is ignored behind another.
    ///
    /// False where the queued output ends inside a frame: then nothing was taken, and the caller tries again at the
    /// boundary.
    #[must_use]
    pub fn push_control(&mut self, control: Control, bytes: &[u8], retained: &mut Retained) -> bool {
        debug_assert!(!bytes.is_empty(), "a frame has a header");
        let before = self.retained_bytes();
        let queue = self.queue();
        let fits = queue.at_boundary();
        if fits {
            queue.push_control(control, bytes);
        }
        retained.change(before, self.retained_bytes());
        fits
    }

    /// What to send next, in order: at most [`MAX_PIECES`], none of them empty.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let (one, many) = match &self.held {
            Held::Nothing => (None, None),
            Held::One { frame, sent, .. } => (Some(&frame[*sent as usize..]), None),
            Held::Many(queue) => (None, Some(queue)),
        };
        let many = many.into_iter().flat_map(|queue| queue.pieces.iter().map(|piece| queue.bytes_of(piece)));
        one.into_iter().chain(many).take(MAX_PIECES)
    }

    /// How many bytes [`Outbox::pieces`] yields: what to consume after a send that was taken whole.
    #[must_use]
    pub fn sendable(&self) -> usize {
        self.pieces().map(<[u8]>::len).sum()
    }

    /// The kernel has taken the first `sent` bytes. True where a paused producer must go on now.
    ///
    /// # Panics
    /// If that is more than waits.
    #[must_use]
    pub fn consume(&mut self, sent: usize, limits: &OutboxLimits, retained: &mut Retained) -> bool {
        assert!(sent <= self.buffered(), "more was sent than there was");
        let (before, was_paused) = (self.retained_bytes(), self.is_paused());
        let emptied = match &mut self.held {
            Held::Nothing => false,
            Held::One { frame, sent: already, .. } => {
                // No truncation: at most the frame's length, which fits.
                *already += sent as u32;
                *already as usize == frame.len()
            }
            Held::Many(queue) => {
                queue.consume(sent);
                queue.pieces.is_empty()
            }
        };
        if emptied {
            self.held = Held::Nothing;
        }
        retained.change(before, self.retained_bytes());
        let resume = was_paused && self.cost() <= limits.low;
        if resume {
            self.unpause();
        }
        resume
    }

    /// Drops all that can be: everything but the rest of what was begun, and of streamed bytes what `streams` says. For a
    /// session that is to end with a Close now, so a paused producer is not told to go on any more. False where what must
    /// stay does not end in here, so that no frame can follow; then nothing was dropped.
    #[must_use]
    pub fn drop_unsent(&mut self, streams: Streams, retained: &mut Retained) -> bool {
        let before = self.retained_bytes();
        let ends = self.queue().drop_unsent(streams);
        self.normalize();
        if ends {
            self.unpause();
        }
        retained.change(before, self.retained_bytes());
        ends
    }

    /// Drops everything.
    pub fn clear(&mut self, retained: &mut Retained) {
        let before = self.retained_bytes();
        *self = Self::new();
        retained.change(before, 0);
    }

    /// Bytes were taken without being asked about: whether their producer must pause.
    fn pauses_above_soft(&mut self, limits: &OutboxLimits, policy: FullPolicy) -> bool {
        let pauses = policy == FullPolicy::Pause && self.cost() > limits.soft;
        if pauses {
            self.queue().paused = true;
        }
        pauses
    }

    /// Decides about `len` more bytes, and drops old messages where that makes room for them.
    fn admit(&mut self, len: usize, limits: &OutboxLimits, policy: FullPolicy) -> Admission {
        let cost = self.cost_with(len);
        if cost <= limits.soft {
            return Admission::Queued;
        }
        if cost <= limits.hard || !self.has_data() {
            if policy != FullPolicy::Pause {
                return Admission::Queued;
            }
            // The bytes follow.
            self.queue().paused = true;
            return Admission::QueuedPause;
        }
        match policy {
            FullPolicy::DropNew => Admission::Dropped,
            FullPolicy::DropOld => {
                let queue = self.queue();
                let dropped = queue.drop_old(cost - limits.hard);
                if !queue.paused {
                    self.normalize();
                }
                dropped.map_or(Admission::Dropped, Admission::DroppedOld)
            }
            FullPolicy::Disconnect | FullPolicy::Pause => Admission::Disconnect,
        }
    }

    /// What waits, as the limits see it.
    fn cost(&self) -> usize {
        self.buffered() + self.waiting_pieces() * CHUNK_COST
    }

    /// The same with one more chunk.
    fn cost_with(&self, len: usize) -> usize {
        self.cost().saturating_add(len).saturating_add(CHUNK_COST)
    }

    fn has_data(&self) -> bool {
        match &self.held {
            Held::Nothing => false,
            Held::One { .. } => true,
            Held::Many(queue) => queue.has_data(),
        }
    }

    /// What is held, as a queue; to be followed by a push or [`Outbox::normalize`].
    fn queue(&mut self) -> &mut Queue {
        if !matches!(self.held, Held::Many(_)) {
            let mut queue = Box::<Queue>::default();
            if let Held::One { frame, sent, droppable } = std::mem::take(&mut self.held) {
                let kind = Kind::Message { begun: sent > 0, droppable };
                queue.push_back(Piece { bytes: Bytes::Shared(frame), at: sent as usize, kind });
            }
            self.held = Held::Many(queue);
        }
        match &mut self.held {
            Held::Many(queue) => queue,
            Held::Nothing | Held::One { .. } => unreachable!("made above"),
        }
    }

    fn unpause(&mut self) {
        if let Held::Many(queue) = &mut self.held {
            queue.paused = false;
        }
    }

    /// An empty queue is not kept.
    fn normalize(&mut self) {
        if matches!(&self.held, Held::Many(queue) if queue.pieces.is_empty()) {
            self.held = Held::Nothing;
        }
    }
}
