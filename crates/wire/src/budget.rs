//! How many control frames a peer may send: each costs an answer or at least a turn, whatever its size.

/// At most `count` control frames in each window of `window_ms` milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlRule {
    /// Control frames per window, at most 65,535.
    pub count: u32,
    /// Length of a window, in milliseconds.
    pub window_ms: u32,
}

/// What one session has spent of its [`ControlRule`].
///
/// Windows follow each other without overlap: the first frame behind a window's end opens the next one, so
/// in the worst case twice `count` frames fall into one `window_ms`, and never more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ControlBudget {
    /// When the window opened: the low half of the clock, which is enough for differences below 49 days.
    opened_ms: u32,
    /// Frames in this window; 0 means that none was ever opened.
    spent: u16,
    /// Pongs that the peer was asked for.
    owed: u16,
}

impl ControlBudget {
    /// Counts one control frame at `now_ms`. `false`: it was one too many.
    #[must_use]
    pub fn spend(&mut self, now_ms: u64, rule: &ControlRule) -> bool {
        // The low half on purpose; differences are taken modulo 2^32.
        let now = now_ms as u32;
        if self.spent == 0 || now.wrapping_sub(self.opened_ms) >= rule.window_ms {
            *self = Self { opened_ms: now, spent: 0, ..*self };
        }
        if self.spent == u16::MAX || u32::from(self.spent) >= rule.count {
            return false;
        }
        self.spent += 1;
        true
    }

    /// The peer was sent a ping: its pong will not count.
    pub fn ask(&mut self) {
        self.owed = self.owed.saturating_add(1);
    }

    /// As [`ControlBudget::spend`], for a pong: free where the peer was [asked](ControlBudget::ask) for it.
    #[must_use]
    pub fn spend_pong(&mut self, now_ms: u64, rule: &ControlRule) -> bool {
        if self.owed > 0 {
            self.owed -= 1;
            return true;
        }
        self.spend(now_ms, rule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: ControlRule = ControlRule { count: 3, window_ms: 1000 };

    #[test]
    fn a_window_allows_its_count_and_no_more() {
        let mut budget = ControlBudget::default();
        let spent: Vec<bool> = (0..5).map(|i| budget.spend(5_000 + i, &RULE)).collect();
        assert_eq!(spent, [true, true, true, false, false]);
        assert!(!budget.spend(5_999, &RULE), "refusals do not move the window");
        assert!(budget.spend(6_000, &RULE), "a new window");
    }

    #[test]
    fn pongs_that_were_asked_for_are_free() {
        let mut budget = ControlBudget::default();
        (0..5).for_each(|_| budget.ask());
        let spent: Vec<bool> = (0..10).map(|_| budget.spend_pong(5_000, &RULE)).collect();
        assert_eq!(spent, [true, true, true, true, true, true, true, true, false, false]);
        budget.ask();
        assert!(!budget.spend(5_000, &RULE), "a ping is none");
        assert!(budget.spend_pong(5_000, &RULE));
    }

    #[test]
    fn a_count_of_zero_refuses_everything() {
        let mut budget = ControlBudget::default();
        let rule = ControlRule { count: 0, window_ms: 10 };
        assert!((0..100).all(|now| !budget.spend(now * 7, &rule)));
    }

    #[test]
    fn the_clock_may_pass_32_bits() {
        let mut budget = ControlBudget::default();
        let start = u64::from(u32::MAX) - 1;
        assert!(
            budget.spend(start, &RULE) && budget.spend(start + 2, &RULE) && budget.spend(start + 4, &RULE)
        );
        assert!(!budget.spend(start + 999, &RULE));
        assert!(budget.spend(start + 1000, &RULE));
    }

    #[test]
    fn it_is_small() {
        assert!(size_of::<ControlBudget>() <= 8);
    }
}
