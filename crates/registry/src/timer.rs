//! What a deadline means, and the batches that due ones come in.

use crate::{Key, Registry, Wheel};

/// Why a session has a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Timer {
    /// The request's head is not complete.
    Head,
    /// An outgoing handshake, or a waiting place in an incoming one, is not over.
    Handshake,
    /// Nothing was heard for an interval: send a ping.
    Ping,
    /// A ping was not answered.
    Pong,
    /// A data message is not complete.
    Message,
    /// The peer has not answered our Close.
    Close,
    /// Our FIN is out; what still arrives is being discarded.
    Linger,
    /// No message for too long.
    Idle,
    /// What says who the peer is has expired.
    Expiry,
    /// Output waits, and the peer takes none of it.
    Write,
    /// What was too fast is in time again.
    Rate,
}

/// What a session says when its deadline is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is due. The session has no deadline until the caller schedules the next.
    Fire(Timer),
    /// Something happened since it was scheduled: look again then (milliseconds).
    Later(u64),
    /// It waits for nothing any more.
    Nothing,
}

/// The due deadlines of one turn. Its allocations are used again.
#[derive(Debug, Default)]
pub struct Batch {
    /// Sessions to ping: server-side all with the same frame.
    pub pings: Vec<Key>,
    /// All else.
    pub others: Vec<(Key, Timer)>,
    due: Vec<u32>,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the content by what is due at `now_ms`: each session that the wheel yields is asked by `judge`, and
    /// scheduled again where it says [`Verdict::Later`]. At most [`crate::BATCH`] sessions are asked; where more
    /// are due, [`Wheel::next_deadline`] lies in the past.
    pub fn fill<T>(
        &mut self,
        now_ms: u64,
        wheel: &mut Wheel,
        sessions: &mut Registry<T>,
        mut judge: impl FnMut(Key, &mut T) -> Verdict,
    ) {
        self.pings.clear();
        self.others.clear();
        self.due.clear();
        wheel.expire(now_ms, &mut self.due);
        for &index in &self.due {
            // A deadline that outlived its session is nothing to anyone.
            let Some(key) = sessions.key_at(index) else { continue };
            let Some(session) = sessions.get_mut(key) else { continue };
            match judge(key, session) {
                Verdict::Fire(Timer::Ping) => self.pings.push(key),
                Verdict::Fire(timer) => self.others.push((key, timer)),
                Verdict::Later(deadline_ms) => wheel.schedule(index, deadline_ms),
                Verdict::Nothing => {}
            }
        }
    }

    /// Whether nothing is due.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pings.is_empty() && self.others.is_empty()
    }
}

/// An interval shortened by up to a quarter, evenly spread over keys, so that sessions that came together do not
/// stay together. Never longer, because an interval often guards against someone else's time-out.
///
/// The same arguments give the same result; vary `seed` to spread one session's intervals too.
#[must_use]
pub fn jitter(key: Key, interval_ms: u64, seed: u64) -> u64 {
    let spread = interval_ms / 4;
    // SplitMix64's output function (Steele, Lea, Flood 2014) mixes; the multiplication maps 64 bits onto 0..=spread.
    let mut mixed = (key.to_bits() ^ seed).wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    let less = (u128::from(mixed) * (u128::from(spread) + 1)) >> 64;
    interval_ms - less as u64
}
