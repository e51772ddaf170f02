//! What one turn sends: pieces of receive buffers, of owned and of static bytes, chained by session.
//!
//! Invariant: everything that a piece names stays where it is until the turn's system call has returned; only then
//! are buffers recycled and owned bytes dropped. A session stands in `dirty` at most once.

use tidegate_io::{Buffer, MAX_PIECES, Sends};
use tidegate_registry::{End, Frame, Key, Registry};

use crate::{
    input::Home,
    planted::{self, Bug},
    session::Session,
    topics::{Arenas, Lane},
    transport::Behind,
};

/// Where the bytes of a piece lie.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source {
    /// In a receive buffer of this turn.
    Received { buffer: u32, start: u32, end: u32 },
    /// In bytes that this turn owns, all of them this piece's: they may be moved to an outbox.
    Owned { index: u32, start: u32 },
    /// In bytes that this turn owns and several pieces share.
    Carried { index: u32, start: u32, end: u32 },
    /// In the turn's arena of small frames.
    Arena { start: u32, end: u32 },
    /// Whole frames in the turn's arena of a lane of subscribers.
    Topic { lane: Lane, start: u32, end: u32 },
    /// A frame that others send as well.
    Shared { index: u32 },
    /// In the program.
    Static(&'static [u8]),
}

/// A turn that owns so many bytes, or has inflated and deflated so many, for what was kept and again for what came with it,
/// reads nothing more: what it owns is held until the system call, and the others wait for it.
pub const TURN_BYTES: usize = 1 << 20;

/// A turn that holds so many receive buffers of either reads nothing more, so that its system call is not too far away.
pub const TURN_BUFFERS: usize = 256;

/// A turn that has answered so many handshakes of TLS, or judged so many signatures of tokens, does no more of it: each
/// takes some tenths of a millisecond, or more than one with a large RSA key, for which all open sessions wait.
pub(crate) const TURN_HANDSHAKES: u32 = 8;

/// Of a session with small limits a turn still answers this much.
const SESSION_BYTES: usize = 64 << 10;
// An outbox counts as sent what it has offered: the backend must take as many pieces.
const _: () = assert!(MAX_PIECES == tidegate_registry::MAX_PIECES);

/// The end of a chain of pieces.
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Piece {
    source: Source,
    next: u32,
}

/// One session's sends of the turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dirty {
    pub(crate) key: Key,
    first: u32,
    last: u32,
    pieces: u32,
    bytes: usize,
    /// The bytes come from the session's outbox; the chain is empty.
    pub(crate) from_outbox: bool,
    /// Where the last piece ends.
    pub(crate) end: End,
}

impl Dirty {
    /// What it sends in this turn past the outbox.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Plain bytes that were not read to their end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unread {
    pub(crate) home: Home,
    pub(crate) key: Key,
    /// Where to go on.
    pub(crate) at: usize,
    pub(crate) behind: Behind,
}

/// The sends of the turn that is being prepared, and what they borrow from.
pub(crate) struct Turn {
    pub(crate) buffers: Vec<Buffer>,
    pub(crate) owned: Vec<Vec<u8>>,
    /// Bytes in `owned`, and of frames that were made for this turn.
    owned_bytes: usize,
    /// Bytes that the codecs have gone through since the shard's start.
    worked: u64,
    /// What of these three does not count any more: owned bytes, buffers, the codecs' bytes.
    granted: (usize, usize, u64),
    /// A session has been answered as much as it may be in one turn.
    sated: bool,
    /// What was not read to its end.
    pub(crate) unread: Vec<Unread>,
    pub(crate) bytes_most: usize,
    pub(crate) buffers_most: usize,
    arena: Vec<u8>,
    /// What subscribers of topics get.
    pub(crate) arenas: Arenas,
    /// Frames that pieces refer to.
    pub(crate) frames: Vec<Frame>,
    pieces: Vec<Piece>,
    pub(crate) dirty: Vec<Dirty>,
    /// Places in it, of sessions whose pieces become records before they are sent.
    pub(crate) sealed: Vec<u32>,
    /// Handshakes of TLS that were answered, and signatures of tokens that were judged.
    pub(crate) handshakes: u32,
}

impl Default for Turn {
    fn default() -> Turn {
        Turn {
            buffers: Vec::new(),
            owned: Vec::new(),
            owned_bytes: 0,
            worked: 0,
            granted: (0, 0, 0),
            sated: false,
            unread: Vec::new(),
            bytes_most: TURN_BYTES,
            buffers_most: TURN_BUFFERS,
            arena: Vec::new(),
            arenas: Arenas::default(),
            frames: Vec::new(),
            pieces: Vec::new(),
            dirty: Vec::new(),
            sealed: Vec::new(),
            handshakes: 0,
        }
    }
}

impl Turn {
    /// Whether nothing more is to be read before the system call.
    pub(crate) fn is_full(&self) -> bool {
        let (bytes, buffers, worked) = self.granted;
        self.sated
            || self.owned_bytes - bytes + (self.worked - worked) as usize >= self.bytes_most
            || self.buffers.len() - buffers >= self.buffers_most
    }

    /// Whether no further handshake of TLS is to be answered, or token judged, before the system call.
    #[inline]
    pub(crate) fn is_full_of_handshakes(&self) -> bool {
        self.handshakes >= TURN_HANDSHAKES
    }

    /// The codecs have gone through so many bytes since the shard's start.
    pub(crate) fn has_worked(&mut self, bytes: u64) {
        self.worked = bytes;
    }

    /// What follows may fill it as if it were empty: who sent little shall not wait for what others sent before.
    pub(crate) fn grant_anew(&mut self) {
        if planted::is(Bug::GrantNothing) {
            return;
        }
        self.granted = (self.owned_bytes, self.buffers.len(), self.worked);
        self.sated = false;
    }

    /// Bytes that it owns.
    pub(crate) fn owned_bytes(&self) -> usize {
        self.owned_bytes
    }

    /// Keeps small bytes until the turn is over.
    pub(crate) fn keep_small(&mut self, bytes: &[u8]) -> Source {
        let start = self.arena.len() as u32;
        self.arena.extend_from_slice(bytes);
        Source::Arena { start, end: self.arena.len() as u32 }
    }

    /// Keeps owned bytes until the turn is over; `start` is where they count from.
    pub(crate) fn keep(&mut self, bytes: Vec<u8>, start: usize) -> Source {
        self.owned_bytes += bytes.len();
        self.owned.push(bytes);
        Source::Owned { index: self.owned.len() as u32 - 1, start: start as u32 }
    }

    /// Keeps a reference to a frame until the turn is over.
    pub(crate) fn keep_shared(&mut self, frame: &Frame) -> Source {
        self.frames.push(frame.clone());
        Source::Shared { index: self.frames.len() as u32 - 1 }
    }

    /// So many bytes of a frame were made for this turn: they count as those that it owns.
    pub(crate) fn has_made(&mut self, bytes: usize) {
        self.owned_bytes += bytes;
    }

    /// A place for bytes that several pieces will share; they are put there when they were read.
    pub(crate) fn reserve_carried(&mut self, len: usize) -> usize {
        self.owned_bytes += len;
        self.owned.push(Vec::new());
        self.owned.len() - 1
    }

    /// The bytes of a source.
    pub(crate) fn bytes(&self, source: Source) -> &[u8] {
        match source {
            Source::Received { buffer, start, end } => {
                &self.buffers[buffer as usize][start as usize..end as usize]
            }
            Source::Owned { index, start } => &self.owned[index as usize][start as usize..],
            Source::Carried { index, start, end } => {
                &self.owned[index as usize][start as usize..end as usize]
            }
            Source::Arena { start, end } => &self.arena[start as usize..end as usize],
            Source::Topic { lane, start, end } => self.arenas.of(lane).bytes(start..end),
            Source::Shared { index } => &self.frames[index as usize],
            Source::Static(bytes) => bytes,
        }
    }

    /// A new place in the list of sessions that send in this turn; its index plus one.
    pub(crate) fn enlist(&mut self, key: Key, from_outbox: bool) -> u32 {
        self.dirty.push(Dirty {
            key,
            first: NONE,
            last: NONE,
            pieces: 0,
            bytes: 0,
            from_outbox,
            end: End::Boundary,
        });
        self.dirty.len() as u32
    }

    /// The place of what a session sends past its outbox, its index plus one; a new one where it has none.
    #[inline]
    pub(crate) fn place_of<S>(&mut self, key: Key, session: &mut Session<S>) -> u32 {
        if session.dirty == 0 {
            session.dirty = self.enlist(key, false);
            if session.transport.seals() {
                self.sealed.push(session.dirty - 1);
            }
        }
        session.dirty
    }

    /// Puts records in the place of what they were made of.
    pub(crate) fn replace_chain(&mut self, place: u32, sealed: Vec<u8>) {
        let (end, bytes) = (self.dirty[place as usize].end, self.dirty[place as usize].bytes);
        self.drop_chain(place + 1);
        if !sealed.is_empty() {
            let source = self.keep(sealed, 0);
            self.append(place + 1, source, end, usize::MAX);
            self.dirty[place as usize].bytes = bytes;
        }
    }

    /// Takes the records of a place back when they were sent; nothing is left to send there.
    pub(crate) fn take_sealed(&mut self, place: u32) -> Option<Vec<u8>> {
        let source = self.chain(place as usize).next();
        self.drop_chain(place + 1);
        let Some(Source::Owned { index, .. }) = source else { return None };
        let sealed = std::mem::take(&mut self.owned[index as usize]);
        self.owned_bytes -= sealed.len();
        Some(sealed)
    }

    /// Adds a piece behind those of `place` (an index plus one). A session above `soft` must see what the kernel takes
    /// before more is read.
    pub(crate) fn append(&mut self, place: u32, source: Source, end: End, soft: usize) {
        let len = self.bytes(source).len();
        let index = self.pieces.len() as u32;
        self.pieces.push(Piece { source, next: NONE });
        let dirty = &mut self.dirty[place as usize - 1];
        if dirty.last == NONE {
            dirty.first = index;
        } else {
            self.pieces[dirty.last as usize].next = index;
        }
        dirty.last = index;
        dirty.pieces += 1;
        dirty.bytes += len;
        dirty.end = end;
        self.sated |= dirty.bytes > soft.max(SESSION_BYTES);
    }

    /// All pieces of a place, in order, also those past what one send can carry.
    pub(crate) fn chain(&self, place: usize) -> Chain<'_> {
        Chain { turn: self, next: self.dirty[place].first }
    }

    /// The bytes of a piece as an outbox keeps them, and where they begin: moved where they are its own and fill their
    /// memory, copied else. An answer of 1 KiB may have been written into the memory of a message of 1 MiB.
    pub(crate) fn take(&mut self, source: Source) -> (Vec<u8>, usize) {
        match source {
            Source::Owned { index, start } if fills_half(&self.owned[index as usize]) => {
                (std::mem::take(&mut self.owned[index as usize]), start as usize)
            }
            _ => (self.bytes(source).to_vec(), 0),
        }
    }

    /// Whether a place has more pieces than one send can carry.
    pub(crate) fn is_long(&self, place: usize) -> bool {
        self.dirty[place].pieces as usize > MAX_PIECES
    }

    /// Forgets the pieces of a session that will send nothing more in this turn.
    pub(crate) fn drop_chain(&mut self, place: u32) {
        let dirty = &mut self.dirty[place as usize - 1];
        dirty.first = NONE;
        dirty.last = NONE;
        dirty.pieces = 0;
    }

    /// Whether a place has anything to send.
    pub(crate) fn has_pieces(&self, place: usize) -> bool {
        self.dirty[place].pieces > 0
    }

    /// After the turn: everything but the buffers, which the caller recycles.
    pub(crate) fn clear(&mut self) {
        self.owned.clear();
        self.owned_bytes = 0;
        self.granted = (0, 0, self.worked);
        self.sated = false;
        self.arena.clear();
        // A burst of control frames must not be paid for in memory ever after.
        if self.arena.capacity() > 1 << 20 {
            self.arena = Vec::new();
        }
        self.arenas.clear();
        self.frames.clear();
        self.pieces.clear();
        self.dirty.clear();
        self.sealed.clear();
        self.handshakes = 0;
    }
}

fn fills_half(bytes: &Vec<u8>) -> bool {
    bytes.len() >= bytes.capacity() / 2
}

/// The pieces of one session.
pub(crate) struct Chain<'a> {
    turn: &'a Turn,
    next: u32,
}

impl Iterator for Chain<'_> {
    type Item = Source;

    fn next(&mut self) -> Option<Source> {
        if self.next == NONE {
            return None;
        }
        let piece = self.turn.pieces[self.next as usize];
        self.next = piece.next;
        Some(piece.source)
    }
}

/// The turn's sends as the backend takes them.
pub(crate) struct Outgoing<'a, S> {
    pub(crate) turn: &'a Turn,
    pub(crate) registry: &'a Registry<Session<S>>,
}

/// Some of them, by their places.
pub(crate) struct Part<'a, S> {
    pub(crate) all: Outgoing<'a, S>,
    pub(crate) places: &'a [u32],
}

impl<S> Sends<S> for Part<'_, S> {
    fn len(&self) -> usize {
        self.places.len()
    }

    fn socket(&self, index: usize) -> &S {
        self.all.socket(self.places[index] as usize)
    }

    fn pieces(&self, index: usize) -> impl Iterator<Item = &[u8]> {
        self.all.pieces(self.places[index] as usize)
    }
}

impl<S> Outgoing<'_, S> {
    fn session(&self, index: usize) -> &Session<S> {
        let key = self.turn.dirty[index].key;
        self.registry.get(key).expect("a session with something to send is not freed before it was sent")
    }
}

impl<S> Sends<S> for Outgoing<'_, S> {
    fn len(&self) -> usize {
        self.turn.dirty.len()
    }

    fn socket(&self, index: usize) -> &S {
        &self.session(index).socket
    }

    fn pieces(&self, index: usize) -> impl Iterator<Item = &[u8]> {
        let dirty = &self.turn.dirty[index];
        let outbox = dirty.from_outbox.then(|| self.session(index).outbox.pieces()).into_iter().flatten();
        self.turn.chain(index).map(|source| self.turn.bytes(source)).chain(outbox).take(MAX_PIECES)
    }
}
