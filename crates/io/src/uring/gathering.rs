//! How many completions a turn waits for.
//!
//! From 6.13 on Linux runs about twenty deferred items in a pass, and a turn that also submits has two passes. So a
//! shard that is behind gets its events in small turns, and pays for each the enter and what comes with it. Where turns
//! come back full the next one asks for twice as many, and gives the kernel [`MOMENT_MICROS`] for those that are not there yet.
//! A turn that did not get them is followed by a pause, in which turns wait for one event as always; each pause in a
//! row is longer. So who has few sessions pays next to nothing for the tries.

/// A turn with so many completions was full, or nearly so.
const FULL: u32 = 16;

/// The most completions that a turn waits for; two passes of the kernel bring twice as many.
pub(super) const MOST: u32 = 64;

/// What a turn may have at least for this to be of use: about as much comes anyway.
const LEAST: u32 = 32;

/// The longest wait for more than one completion in µs, where the kernel has timers as fine as this.
pub(super) const MOMENT_MICROS: u32 = 20;

/// The longest pause, in turns.
const PAUSE_MAX: u32 = 1023;

/// Says for each turn how many completions to wait for.
#[derive(Debug)]
pub(super) struct Gathering {
    most: u32,
    want: u32,
    /// Turns until the next try.
    pause: u32,
    /// The pause after the last try: 0 where that got what it wanted.
    last_pause: u32,
}

impl Gathering {
    /// `most`: what a pass may bring without harm to the pool of buffers and the completion queue.
    pub(super) fn new(most: u32) -> Self {
        let most = if most < LEAST { 1 } else { most.min(MOST) };
        Self { most, want: 1, pause: 0, last_pause: 0 }
    }

    /// Completions that the turn waits for, at least 1.
    pub(super) fn want(&self) -> u32 {
        self.want
    }

    /// A turn has waited for [`Gathering::want`] and got `seen`.
    pub(super) fn ended(&mut self, seen: u32) {
        if self.want > 1 {
            self.last_pause = if seen >= self.want { 0 } else { (self.last_pause * 2 + 1).min(PAUSE_MAX) };
            self.pause = self.last_pause;
        } else {
            self.pause = self.pause.saturating_sub(1);
        }
        self.want = if seen >= FULL && self.pause == 0 { seen.saturating_mul(2).min(self.most) } else { 1 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_turns_are_followed_by_larger_ones() {
        let mut gathering = Gathering::new(u32::MAX);
        assert_eq!(gathering.want(), 1);
        for (seen, want) in [(15, 1), (16, 32), (30, 1), (30, 60), (200, 64), (64, 64), (1, 1)] {
            gathering.ended(seen);
            assert_eq!(gathering.want(), want, "after {seen}");
        }
    }

    #[test]
    fn what_found_too_little_is_tried_ever_less() {
        let mut gathering = Gathering::new(u32::MAX);
        let tries = (0..100_000).filter(|_| {
            let tried = gathering.want() > 1;
            gathering.ended(20);
            tried
        });
        // After pauses of 1, 3, 7 … 1,023 turns there is a try in 1,024 of them.
        assert_eq!(tries.count(), 106);
        assert_eq!(gathering.last_pause, PAUSE_MAX);
        while gathering.want() == 1 {
            gathering.ended(20);
        }
        gathering.ended(gathering.want());
        assert_eq!(
            (gathering.last_pause, gathering.want()),
            (0, 64),
            "one that was enough forgets all pauses"
        );
    }

    #[test]
    fn no_turn_waits_for_more_than_it_may_have() {
        for (most, largest) in [(0, 1), (1, 1), (8, 1), (31, 1), (32, 32), (40, 40), (65, 64)] {
            let mut gathering = Gathering::new(most);
            for _ in 0..100 {
                gathering.ended(64);
                assert_eq!(gathering.want(), largest, "{most}");
            }
        }
    }
}
