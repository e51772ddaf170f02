//! The frames of a turn's publications, end to end, once for each lane of subscribers.
//!
//! Whoever subscribes to a topic gets the same bytes: they are laid out once, and each subscriber's send is one piece,
//! however many publications the turn has. What a socket does not take is kept by reference to the publication's own
//! frame, which all slow subscribers share.

use std::{ops::Range, sync::Arc};

use crate::publication::{Class, Envelope, Publication};

/// What all arenas of a shard keep of their memory for the next turn. To grow it anew in each took 1.4 % of a shard's time
/// (a profile) with messages on 10,000 topics in a turn, beside the copies.
const KEPT_BYTES: usize = 8 << 20;

/// An arena of more bytes gives them back when so many turns in a row have filled less than an eighth of it.
const SMALL_BYTES: usize = 64 << 10;
const IDLE_TURNS: u8 = 64;

/// A class of subscribers, with or without those events that only some of them want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane {
    /// Envelope and window.
    pub class: Class,
    /// Joins and leaves come too.
    pub presence: bool,
}

impl Lane {
    /// Two envelopes of WebSockets, plain or with a window of 9 to 15 bits, with presence or without.
    pub const COUNT: usize = 2 * 8 * 2;

    /// Its place among all.
    #[inline]
    #[must_use]
    pub fn index(self) -> usize {
        let window = self.class.window_bits().map_or(0, |bits| usize::from(bits) - 8);
        let raw = usize::from(self.class.envelope() == Envelope::Raw);
        window * 4 + raw * 2 + usize::from(self.presence)
    }
}

/// The frames of one lane.
#[derive(Debug, Default)]
pub struct Arena {
    bytes: Vec<u8>,
    laid: Vec<Laid>,
    /// Turns in a row that had little use for its memory.
    idle: u8,
}

#[derive(Debug)]
struct Laid {
    /// Where its frame ends.
    end: u32,
    publication: Arc<Publication>,
}

impl Arena {
    /// Where the next frame begins.
    #[must_use]
    pub fn end(&self) -> u32 {
        self.bytes.len() as u32
    }

    /// Lays a publication's frame behind the others. One without a frame in this lane takes no room.
    pub fn lay(&mut self, publication: &Arc<Publication>, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        write(&mut self.bytes);
        if self.bytes.len() > start {
            self.laid.push(Laid { end: self.end(), publication: Arc::clone(publication) });
        }
    }

    /// What lies there.
    ///
    /// # Panics
    /// Where nothing was laid so far.
    #[must_use]
    pub fn bytes(&self, range: Range<u32>) -> &[u8] {
        &self.bytes[range.start as usize..range.end as usize]
    }

    /// The publications that have bytes in a range which begins and ends with frames, and their frames' bytes.
    pub fn frames(&self, range: Range<u32>) -> impl Iterator<Item = (&Arc<Publication>, &[u8])> {
        let first = self.laid.partition_point(|laid| laid.end <= range.start);
        let mut start = range.start;
        self.laid[first..].iter().take_while(move |laid| laid.end <= range.end).map(move |laid| {
            let bytes = self.bytes(start..laid.end);
            start = laid.end;
            (&laid.publication, bytes)
        })
    }

    /// Gives memory back for which there was little use lately, or of which more than `room` bytes would be kept. Gives what
    /// it keeps.
    fn clear(&mut self, room: usize) -> usize {
        let (filled, capacity) = (self.bytes.len(), self.bytes.capacity());
        self.laid.clear();
        self.bytes.clear();
        if capacity > SMALL_BYTES {
            self.idle = if filled < capacity / 8 { self.idle.saturating_add(1) } else { 0 };
            if self.idle >= IDLE_TURNS || capacity > room {
                *self = Self::default();
            }
        }
        self.bytes.capacity()
    }
}

/// The arenas of all lanes.
#[derive(Debug)]
pub struct Arenas {
    lanes: [Arena; Lane::COUNT],
    /// One of them is not empty.
    used: bool,
}

impl Default for Arenas {
    fn default() -> Self {
        Self { lanes: std::array::from_fn(|_| Arena::default()), used: false }
    }
}

impl Arenas {
    /// What was laid for a lane.
    #[must_use]
    pub fn of(&self, lane: Lane) -> &Arena {
        &self.lanes[lane.index()]
    }

    /// An arena to lay frames in.
    pub fn of_mut(&mut self, lane: Lane) -> &mut Arena {
        self.used = true;
        &mut self.lanes[lane.index()]
    }

    /// After the turn.
    pub fn clear(&mut self) {
        if !std::mem::take(&mut self.used) {
            return;
        }
        let mut room = KEPT_BYTES;
        // Also those that it has not used, so that none keeps for good what it had in one turn.
        for lane in &mut self.lanes {
            room = room.saturating_sub(lane.clear(room));
        }
    }
}

/// Where the publications of the batch at hand lie in each lane.
#[derive(Debug)]
pub struct Layout {
    /// For each lane where each publication's frame begins, and where the last one ends; of this batch or an older one.
    starts: [Vec<u32>; Lane::COUNT],
    laid_out: u64,
}

const _: () = assert!(Lane::COUNT <= 64, "one bit for each lane");

impl Default for Layout {
    fn default() -> Self {
        Self { starts: std::array::from_fn(|_| Vec::new()), laid_out: 0 }
    }
}

impl Layout {
    /// Another batch.
    pub fn begin(&mut self) {
        self.laid_out = 0;
    }

    /// What a subscriber of a lane gets of the batch's publications but the first `skip`; `write` makes frames of them where
    /// nobody has asked for this lane yet.
    #[inline]
    pub fn range(
        &mut self,
        lane: Lane,
        skip: usize,
        publications: &[Arc<Publication>],
        arenas: &mut Arenas,
        write: impl FnMut(&Publication, &mut Vec<u8>),
    ) -> Range<u32> {
        let index = lane.index();
        if self.laid_out & 1 << index == 0 {
            self.lay_out(lane, publications, arenas, write);
        }
        let starts = &self.starts[index];
        starts[skip.min(publications.len())]..starts[publications.len()]
    }

    fn lay_out(
        &mut self,
        lane: Lane,
        publications: &[Arc<Publication>],
        arenas: &mut Arenas,
        mut write: impl FnMut(&Publication, &mut Vec<u8>),
    ) {
        self.laid_out |= 1 << lane.index();
        let arena = arenas.of_mut(lane);
        let starts = &mut self.starts[lane.index()];
        starts.clear();
        for publication in publications {
            starts.push(arena.end());
            if lane.presence || !publication.is_presence() {
                arena.lay(publication, |out| write(publication, out));
            }
        }
        starts.push(arena.end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAW: Lane = Lane { class: Class::plain(Envelope::Raw), presence: false };
    const PROTOCOL: Lane = Lane { class: Class::plain(Envelope::Protocol), presence: true };

    /// A turn that fills lanes with so many bytes.
    fn turn(arenas: &mut Arenas, fills: &[(Lane, usize)]) {
        for &(lane, bytes) in fills {
            arenas.of_mut(lane).bytes.resize(bytes, 0);
        }
        arenas.clear();
        assert!(arenas.lanes.iter().all(|arena| arena.bytes.is_empty()));
    }

    fn kept(arenas: &Arenas) -> usize {
        arenas.lanes.iter().map(|arena| arena.bytes.capacity()).sum()
    }

    #[test]
    fn large_turns_find_the_memory_of_the_last_one() {
        let mut arenas = Arenas::default();
        turn(&mut arenas, &[(RAW, 3 << 20)]);
        let memory = arenas.of(RAW).bytes.as_ptr();
        // Now and then comes one for others.
        for _ in 0..1_000 {
            turn(&mut arenas, &[(PROTOCOL, 100)]);
            turn(&mut arenas, &[(RAW, 3 << 20)]);
            assert_eq!(arenas.of(RAW).bytes.as_ptr(), memory);
        }
    }

    #[test]
    fn one_large_turn_is_not_paid_for_ever_after() {
        let mut arenas = Arenas::default();
        turn(&mut arenas, &[(RAW, 3 << 20)]);
        assert!(kept(&arenas) >= 3 << 20);
        for _ in 0..u32::from(IDLE_TURNS) {
            turn(&mut arenas, &[(PROTOCOL, 100)]);
        }
        assert!(kept(&arenas) <= SMALL_BYTES, "{}", kept(&arenas));
    }

    #[test]
    fn what_is_kept_has_a_limit_for_all_lanes_together() {
        let mut arenas = Arenas::default();
        let lanes = [RAW, PROTOCOL, Lane { presence: true, ..RAW }, Lane { presence: false, ..PROTOCOL }];
        turn(&mut arenas, &lanes.map(|lane| (lane, 3 << 20)));
        assert!(kept(&arenas) <= KEPT_BYTES && kept(&arenas) >= 3 << 20, "{}", kept(&arenas));
        turn(&mut arenas, &[(RAW, KEPT_BYTES + 1)]);
        assert!(arenas.of(RAW).bytes.capacity() == 0);
    }
}
