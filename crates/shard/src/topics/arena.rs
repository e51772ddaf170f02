//! The frames of a turn's publications, end to end, once for each lane of subscribers.
//!
//! Whoever subscribes to a topic gets the same bytes: they are laid out once, and each subscriber's send is one piece,
//! however many publications the turn has. What a socket does not take is kept by reference to the publication's own
//! frame, which all slow subscribers share.

use std::{ops::Range, sync::Arc};

use tidegate_hub::{Class, Envelope, Publication};

/// An arena that grew beyond this gives its memory back.
const KEPT_BYTES: usize = 1 << 20;

/// A class of subscribers, with or without those events that only some of them want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lane {
    pub(crate) class: Class,
    /// Joins and leaves come too.
    pub(crate) presence: bool,
}

impl Lane {
    /// Two envelopes of WebSockets, plain or with a window of 9 to 15 bits, with presence or without.
    pub(crate) const COUNT: usize = 2 * 8 * 2;

    #[inline]
    pub(crate) fn index(self) -> usize {
        let window = self.class.window_bits().map_or(0, |bits| usize::from(bits) - 8);
        let raw = usize::from(self.class.envelope() == Envelope::Raw);
        window * 4 + raw * 2 + usize::from(self.presence)
    }
}

/// The frames of one lane.
#[derive(Default)]
pub(crate) struct Arena {
    bytes: Vec<u8>,
    laid: Vec<Laid>,
}

struct Laid {
    /// Where its frame ends.
    end: u32,
    publication: Arc<Publication>,
}

impl Arena {
    /// Where the next frame begins.
    pub(crate) fn end(&self) -> u32 {
        self.bytes.len() as u32
    }

    /// Lays a publication's frame behind the others. One without a frame in this lane takes no room.
    pub(crate) fn lay(&mut self, publication: &Arc<Publication>, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        write(&mut self.bytes);
        if self.bytes.len() > start {
            self.laid.push(Laid { end: self.end(), publication: Arc::clone(publication) });
        }
    }

    pub(crate) fn bytes(&self, range: Range<u32>) -> &[u8] {
        &self.bytes[range.start as usize..range.end as usize]
    }

    /// The publications that have bytes in a range which begins and ends with frames, and their frames' bytes.
    pub(crate) fn frames(&self, range: Range<u32>) -> impl Iterator<Item = (&Arc<Publication>, &[u8])> {
        let first = self.laid.partition_point(|laid| laid.end <= range.start);
        let mut start = range.start;
        self.laid[first..].iter().take_while(move |laid| laid.end <= range.end).map(move |laid| {
            let bytes = self.bytes(start..laid.end);
            start = laid.end;
            (&laid.publication, bytes)
        })
    }

    fn clear(&mut self) {
        self.laid.clear();
        self.bytes.clear();
        if self.bytes.capacity() > KEPT_BYTES {
            self.bytes = Vec::new();
        }
    }
}

/// The arenas of all lanes.
pub(crate) struct Arenas {
    lanes: [Arena; Lane::COUNT],
    /// Those that are not empty.
    used: Vec<u8>,
}

impl Default for Arenas {
    fn default() -> Self {
        Self { lanes: std::array::from_fn(|_| Arena::default()), used: Vec::new() }
    }
}

impl Arenas {
    pub(crate) fn of(&self, lane: Lane) -> &Arena {
        &self.lanes[lane.index()]
    }

    /// An arena to lay frames in.
    pub(crate) fn of_mut(&mut self, lane: Lane) -> &mut Arena {
        let arena = &mut self.lanes[lane.index()];
        if arena.bytes.is_empty() {
            self.used.push(lane.index() as u8);
        }
        arena
    }

    /// After the turn.
    pub(crate) fn clear(&mut self) {
        for lane in self.used.drain(..) {
            self.lanes[usize::from(lane)].clear();
        }
    }
}

/// Where the publications of the batch at hand lie in each lane.
pub(crate) struct Layout {
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
    pub(crate) fn begin(&mut self) {
        self.laid_out = 0;
    }

    /// What a subscriber of a lane gets of the batch's publications but the first `skip`; `write` makes frames of them where
    /// nobody has asked for this lane yet.
    #[inline]
    pub(crate) fn range(
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
