//! What waits in an outbox, piece by piece.

use std::collections::VecDeque;

use super::{CHUNK_COST, Control, End, MAX_PIECES, Streams};
use crate::{Chunk, Frame};

/// Streamed bytes are copied together up to this size.
const COALESCE_BYTES: usize = 16 * 1024;

#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) pieces: VecDeque<Piece>,
    /// The sum of what all pieces have left.
    pub(super) buffered: usize,
    /// The sum of the capacities of all owned buffers.
    pub(super) owned: usize,
    /// The control frames that [`Bytes::Waiting`] stands for: here they can be replaced without a search.
    pub(super) waiting: [Option<Vec<u8>>; 3],
    /// A producer was told to pause and has not been told to go on.
    pub(super) paused: bool,
}

#[derive(Debug)]
pub(super) struct Piece {
    pub(super) bytes: Bytes,
    /// Where what is left begins in `bytes`.
    pub(super) at: usize,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Bytes {
    Owned(Vec<u8>),
    Shared(Frame),
    Static(&'static [u8]),
    /// The control frame of this kind in `waiting`, of which nothing was sent.
    Waiting(Control),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Message {
        begun: bool,
        droppable: bool,
    },
    /// Bytes of frames whose beginning may have gone past the outbox.
    Stream(End),
    Control,
}

impl Piece {
    pub(super) fn message(chunk: Chunk, droppable: bool) -> Self {
        let kind = Kind::Message { begun: false, droppable };
        match chunk {
            Chunk::Owned { bytes, start } => Self { bytes: Bytes::Owned(bytes), at: start, kind },
            Chunk::Shared(frame) => Self { bytes: Bytes::Shared(frame), at: 0, kind },
            Chunk::Static(bytes) => Self { bytes: Bytes::Static(bytes), at: 0, kind },
        }
    }
}

impl Queue {
    pub(super) fn bytes_of<'a>(&'a self, piece: &'a Piece) -> &'a [u8] {
        let bytes: &[u8] = match &piece.bytes {
            Bytes::Owned(bytes) => bytes,
            Bytes::Shared(frame) => frame,
            Bytes::Static(bytes) => bytes,
            Bytes::Waiting(control) => self.waiting[*control as usize].as_deref().unwrap_or_default(),
        };
        &bytes[piece.at..]
    }

    pub(super) fn footprint(&self) -> usize {
        size_of::<Self>() + self.pieces.capacity() * size_of::<Piece>() + self.owned
    }

    /// The shared frames, and where what is left of each begins.
    pub(super) fn shared(&self) -> impl Iterator<Item = (&Frame, usize)> {
        self.pieces.iter().filter_map(|piece| match &piece.bytes {
            Bytes::Shared(frame) => Some((frame, piece.at)),
            Bytes::Owned(_) | Bytes::Static(_) | Bytes::Waiting(_) => None,
        })
    }

    pub(super) fn at_boundary(&self) -> bool {
        self.pieces.back().is_none_or(|piece| piece.kind != Kind::Stream(End::Inside))
    }

    pub(super) fn has_data(&self) -> bool {
        // Control frames are few, so this looks at a handful of pieces at most.
        self.pieces.iter().any(|piece| piece.kind != Kind::Control)
    }

    pub(super) fn push_back(&mut self, piece: Piece) {
        self.count(&piece);
        self.pieces.push_back(piece);
    }

    pub(super) fn push_front(&mut self, piece: Piece) {
        self.count(&piece);
        self.pieces.push_front(piece);
    }

    fn count(&mut self, piece: &Piece) {
        self.buffered += self.bytes_of(piece).len();
        if let Bytes::Owned(bytes) = &piece.bytes {
            self.owned += bytes.capacity();
        }
    }

    /// A piece has left the queue, with `left` bytes not sent.
    fn discount(&mut self, piece: &Piece, left: usize) {
        self.buffered -= left;
        match &piece.bytes {
            Bytes::Owned(bytes) => self.owned -= bytes.capacity(),
            Bytes::Waiting(control) => {
                let bytes = self.waiting[*control as usize].take();
                self.owned -= bytes.map_or(0, |bytes| bytes.capacity());
            }
            Bytes::Shared(_) | Bytes::Static(_) => {}
        }
    }

    pub(super) fn append(&mut self, bytes: &[u8], end: End) {
        // A boundary stays one: without it the queue could not be dropped behind it.
        if let Some(Piece { bytes: Bytes::Owned(last), kind: kind @ Kind::Stream(_), .. }) =
            self.pieces.back_mut()
            && last.len() + bytes.len() <= COALESCE_BYTES
            && (*kind == Kind::Stream(End::Inside) || end == End::Boundary)
        {
            let before = last.capacity();
            last.extend_from_slice(bytes);
            *kind = Kind::Stream(end);
            self.owned += last.capacity() - before;
            self.buffered += bytes.len();
            return;
        }
        self.push_back(Piece { bytes: Bytes::Owned(bytes.to_vec()), at: 0, kind: Kind::Stream(end) });
    }

    pub(super) fn push_control(&mut self, control: Control, bytes: &[u8]) {
        let place = &mut self.waiting[control as usize];
        match place {
            Some(_) if control == Control::Close => {}
            Some(older) => {
                self.buffered = self.buffered - older.len() + bytes.len();
                self.owned -= older.capacity();
                older.clear();
                older.extend_from_slice(bytes);
                self.owned += older.capacity();
            }
            None => {
                let bytes = bytes.to_vec();
                self.owned += bytes.capacity();
                *place = Some(bytes);
                self.push_back(Piece { bytes: Bytes::Waiting(control), at: 0, kind: Kind::Control });
            }
        }
    }

    pub(super) fn consume(&mut self, mut sent: usize) {
        while sent > 0 {
            let Some(mut piece) = self.pieces.pop_front() else { break };
            let left = self.bytes_of(&piece).len();
            if sent >= left {
                sent -= left;
                self.discount(&piece, left);
                continue;
            }
            self.buffered -= sent;
            piece.at += sent;
            sent = 0;
            if let Kind::Message { begun, .. } = &mut piece.kind {
                *begun = true;
            }
            // A control frame that was begun can no longer be replaced.
            if let Bytes::Waiting(control) = piece.bytes {
                piece.bytes = Bytes::Owned(self.waiting[control as usize].take().unwrap_or_default());
            }
            self.pieces.push_front(piece);
        }
        // A burst's storage does not stay for as long as something waits.
        if self.pieces.capacity() > MAX_PIECES && self.pieces.len() < self.pieces.capacity() / 8 {
            self.pieces.shrink_to(self.pieces.len() * 2);
        }
    }

    /// Drops as many of the oldest droppable messages as it takes to save `need`; none if they are not enough.
    pub(super) fn drop_old(&mut self, need: usize) -> Option<u32> {
        let droppable = Kind::Message { begun: false, droppable: true };
        let mut saved = 0;
        let mut count = 0;
        for piece in self.pieces.iter().filter(|piece| piece.kind == droppable) {
            if saved >= need {
                break;
            }
            saved += self.bytes_of(piece).len() + CHUNK_COST;
            count += 1;
        }
        if saved < need {
            return None;
        }
        let mut at = 0;
        for _ in 0..count {
            while self.pieces.get(at)?.kind != droppable {
                at += 1;
            }
            let piece = self.pieces.remove(at)?;
            let left = self.bytes_of(&piece).len();
            self.discount(&piece, left);
        }
        Some(count)
    }

    pub(super) fn drop_unsent(&mut self, streams: Streams) -> bool {
        let is_stream = |piece: &Piece| matches!(piece.kind, Kind::Stream(_));
        // The last one that must stay whole.
        let streamed = match streams {
            Streams::Kept => self.pieces.iter().rposition(is_stream),
            Streams::Cut => self.pieces.front().filter(|piece| is_stream(piece)).map(|_| 0),
        };
        let keep = match (streamed, self.pieces.front()) {
            (Some(last), _) => {
                let whole = |piece: &Piece| piece.kind != Kind::Stream(End::Inside);
                let Some(behind) = self.pieces.iter().skip(last).position(whole) else { return false };
                last + behind + 1
            }
            (None, Some(Piece { kind: Kind::Message { begun, .. }, .. })) => usize::from(*begun),
            (None, Some(Piece { bytes, .. })) => usize::from(!matches!(bytes, Bytes::Waiting(_))),
            (None, None) => 0,
        };
        while self.pieces.len() > keep {
            let Some(piece) = self.pieces.pop_back() else { break };
            let left = self.bytes_of(&piece).len();
            self.discount(&piece, left);
        }
        true
    }
}
