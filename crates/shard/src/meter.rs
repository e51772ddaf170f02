//! How fast clients speak, on routes with a rate: two buckets for each session, in a table by slot that is empty where no
//! session ever had a rate.

use tidegate_config::{Excess, SessionRates};
use tidegate_io::Backend;
use tidegate_registry::Key;

use crate::{
    bucket::{Bucket, Rate},
    environment::Environment,
    session::{Fact, State},
    shard::Shard,
};

/// A route's rates, ready for use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RateRule {
    messages: Option<Rate>,
    bytes: Option<Rate>,
    excess: Excess,
}

impl RateRule {
    /// `None` where nothing is limited.
    pub(crate) fn new(rates: &SessionRates) -> Option<RateRule> {
        rates.is_on().then(|| RateRule {
            messages: Rate::per_second(rates.messages_per_second.into(), rates.burst_messages.into()),
            bytes: Rate::per_second(rates.bytes_per_second, rates.burst_bytes),
            excess: rates.excess,
        })
    }
}

/// What becomes of a message, by its session's rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// It is in time.
    Within,
    /// It is, and the next one would not be: nothing more is read for now.
    Last,
    /// It is left out.
    Drop,
    /// The session ends.
    Close,
}

/// What was spent in a session.
#[derive(Clone, Copy, Debug, Default)]
struct Meter {
    messages: Bucket,
    bytes: Bucket,
}

/// The sessions' meters.
#[derive(Debug, Default)]
pub(crate) struct Meters(Vec<Meter>);

impl Meters {
    /// A session with a rate begins.
    pub(crate) fn begin(&mut self, key: Key) {
        let place = key.index() as usize;
        if self.0.len() <= place {
            self.0.resize(place + 1, Meter::default());
        }
        self.0[place] = Meter::default();
    }

    /// A session's route has another rule: what is spent goes on by that.
    pub(crate) fn change_rule(
        &mut self,
        key: Key,
        before: Option<&RateRule>,
        rule: Option<&RateRule>,
        now_ms: u64,
    ) {
        let Some(rule) = rule else { return };
        let Some(before) = before else { return self.begin(key) };
        if let Some(meter) = self.0.get_mut(key.index() as usize) {
            meter.messages.change_rate(before.messages.as_ref(), rule.messages.as_ref(), now_ms);
            meter.bytes.change_rate(before.bytes.as_ref(), rule.bytes.as_ref(), now_ms);
        }
    }

    /// Counts a message of `len` bytes that came whole.
    pub(crate) fn take(&mut self, key: Key, len: usize, rule: &RateRule, now_ms: u64) -> Pace {
        let Some(meter) = self.0.get_mut(key.index() as usize) else { return Pace::Within };
        if rule.excess == Excess::Delay {
            meter.owe(1, len, rule, now_ms);
            return if meter.ready_ms(rule) > now_ms { Pace::Last } else { Pace::Within };
        }
        // A message may be longer than the burst: it is in time where nothing is owed.
        let fits = rule.bytes.is_none_or(|rate| meter.bytes.ready_ms(1, &rate) <= now_ms)
            && rule.messages.is_none_or(|rate| meter.messages.spend(1, &rate, now_ms));
        if fits {
            if let Some(rate) = &rule.bytes {
                meter.bytes.owe(len as u64, rate, now_ms);
            }
            return Pace::Within;
        }
        if rule.excess == Excess::Drop { Pace::Drop } else { Pace::Close }
    }

    /// Whether all messages in `len` bytes of a client's frames are in time, and one more, whatever they are: then they need not be
    /// judged one by one.
    pub(crate) fn have_room(&self, key: Key, len: usize, rule: &RateRule, now_ms: u64) -> bool {
        let Some(meter) = self.0.get(key.index() as usize) else { return true };
        // RFC 6455 §5.2: two bytes and the mask's four before each payload.
        let (messages, bytes) = ((len / 6 + 1) as u64, len.max(1) as u64);
        rule.messages.is_none_or(|rate| meter.messages.holds(messages, &rate, now_ms))
            && rule.bytes.is_none_or(|rate| meter.bytes.holds(bytes, &rate, now_ms))
    }

    /// Counts messages that had room, and the bytes of their payloads.
    pub(crate) fn count(&mut self, key: Key, messages: u64, len: usize, rule: &RateRule, now_ms: u64) {
        if let Some(meter) = self.0.get_mut(key.index() as usize) {
            meter.owe(messages, len, rule, now_ms);
        }
    }

    /// Counts what was forwarded as it came: so many messages were begun in so many bytes.
    pub(crate) fn take_piece(
        &mut self,
        key: Key,
        messages: u32,
        len: usize,
        rule: &RateRule,
        now_ms: u64,
    ) -> Pace {
        let Some(meter) = self.0.get_mut(key.index() as usize) else { return Pace::Within };
        let owed = rule.bytes.is_some_and(|rate| meter.bytes.ready_ms(1, &rate) > now_ms);
        meter.owe(messages.into(), len, rule, now_ms);
        let is_overdrawn =
            owed || rule.messages.is_some_and(|rate| meter.messages.is_overdrawn(&rate, now_ms));
        match rule.excess {
            Excess::Delay if meter.ready_ms(rule) > now_ms => Pace::Last,
            Excess::Close if is_overdrawn => Pace::Close,
            // Nothing that is proxied is dropped: the configuration does not allow it.
            Excess::Delay | Excess::Close | Excess::Drop => Pace::Within,
        }
    }

    /// From when on a session's next message is in time, in milliseconds.
    pub(crate) fn ready_ms(&self, key: Key, rule: &RateRule) -> u64 {
        self.0.get(key.index() as usize).map_or(0, |meter| meter.ready_ms(rule))
    }
}

impl Meter {
    fn owe(&mut self, messages: u64, len: usize, rule: &RateRule, now_ms: u64) {
        if let Some(rate) = &rule.messages {
            self.messages.owe(messages, rate, now_ms);
        }
        if let Some(rate) = &rule.bytes {
            self.bytes.owe(len as u64, rate, now_ms);
        }
    }

    fn ready_ms(&self, rule: &RateRule) -> u64 {
        let messages_ms = rule.messages.map_or(0, |rate| self.messages.ready_ms(1, &rate));
        let bytes_ms = rule.bytes.map_or(0, |rate| self.bytes.ready_ms(1, &rate));
        messages_ms.max(bytes_ms)
    }
}

/// What a session that was too fast is told.
pub(crate) const TOO_FAST: &str = "too many messages or bytes in a short time";

impl<B: Backend, E: Environment> Shard<B, E> {
    /// A session was too fast: it is not read until its next message is in time.
    pub(crate) fn delay(&mut self, key: Key) {
        let Some(session) = self.registry.get_mut(key) else { return };
        // Its last message may have ended it.
        if !matches!(session.state, State::Open(_) | State::Paired(_)) {
            return;
        }
        let Some(rule) = &self.plan.route(session.route).rates else { return };
        session.marks.facts.set(Fact::Delayed, true);
        let ready_ms = self.meters.ready_ms(key, rule);
        self.counters.rate_delayed += 1;
        self.pause(key);
        self.ensure_deadline(key, ready_ms);
    }

    pub(crate) fn is_delayed(&self, key: Key) -> bool {
        self.registry.get(key).is_some_and(|session| session.marks.facts.has(Fact::Delayed))
    }

    /// Its next message is in time: it is read again, unless it has to wait for something else as well.
    pub(crate) fn end_delay(&mut self, key: Key) {
        let Some(session) = self.registry.get_mut(key) else { return };
        session.marks.facts.set(Fact::Delayed, false);
        let filled = match &session.state {
            State::Paired(paired) => paired.far,
            _ => Some(key),
        };
        let is_full = filled.and_then(|key| self.registry.get(key)).is_some_and(|far| far.outbox.is_paused());
        if !is_full && !self.is_stopped(key) {
            self.resume(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use tidegate_registry::Registry;

    use super::*;

    fn meters() -> (Meters, Key) {
        let mut registry = Registry::with_capacity(1);
        let key = registry.insert(()).expect("there is room");
        let mut meters = Meters::default();
        meters.begin(key);
        (meters, key)
    }

    fn rule(messages: u32, bytes: u64, excess: Excess) -> RateRule {
        let rates = SessionRates {
            messages_per_second: messages,
            burst_messages: messages,
            bytes_per_second: bytes,
            burst_bytes: bytes,
            excess,
        };
        RateRule::new(&rates).expect("a rate")
    }

    #[test]
    fn what_is_too_many_or_too_long_is_dropped_or_ends_the_session() {
        for (excess, pace) in [(Excess::Drop, Pace::Drop), (Excess::Close, Pace::Close)] {
            let (mut meters, key) = meters();
            let rule = rule(3, 1_000, excess);
            let paces: Vec<_> = (0..4).map(|_| meters.take(key, 1, &rule, 5_000)).collect();
            assert_eq!(paces, [Pace::Within, Pace::Within, Pace::Within, pace]);
            assert_eq!(meters.take(key, 5_000, &rule, 6_000), Pace::Within, "longer than the burst");
            // 4,000 bytes are owed.
            assert_eq!(meters.take(key, 1, &rule, 9_999), pace);
            assert_eq!(meters.take(key, 1, &rule, 10_002), Pace::Within);
        }
    }

    #[test]
    fn what_is_delayed_is_taken_and_nothing_behind_it_until_it_is_made_up_for() {
        let (mut meters, key) = meters();
        let rule = rule(2, 0, Excess::Delay);
        assert_eq!(meters.take(key, 1, &rule, 5_000), Pace::Within);
        assert_eq!(meters.take(key, 1, &rule, 5_000), Pace::Last);
        assert_eq!(meters.ready_ms(key, &rule), 5_500);
        assert_eq!(meters.take(key, 1, &rule, 5_500), Pace::Last);
        assert_eq!(meters.ready_ms(key, &rule), 6_000);
        assert_eq!(meters.take(key, 1, &rule, 9_000), Pace::Within);
    }

    #[test]
    fn what_has_room_is_all_in_time_and_counts_the_same() {
        for excess in [Excess::Delay, Excess::Drop, Excess::Close] {
            for (messages, bytes) in [(100, 0), (0, 1_000), (100, 1_000), (7, 300)] {
                let rule = rule(messages, bytes, excess);
                let mut had_room = 0;
                for spent in 0..20_u32 {
                    // As many short messages as can be in so many bytes, or one that fills them.
                    for (len, count) in [(6, 1), (60, 10), (60, 1), (600, 100), (600, 1), (6_000, 1_000)] {
                        let (mut meters, key) = meters();
                        for _ in 0..spent {
                            meters.take(key, 30, &rule, 5_000);
                        }
                        if !meters.have_room(key, len, &rule, 5_000) {
                            continue;
                        }
                        had_room += 1;
                        let payload = (len - 6 * count) / count;
                        let mut at_once = Meters(meters.0.clone());
                        at_once.count(key, count as u64, payload * count, &rule, 5_000);
                        for _ in 0..count {
                            assert_eq!(meters.take(key, payload, &rule, 5_000), Pace::Within);
                        }
                        assert_eq!(at_once.ready_ms(key, &rule), meters.ready_ms(key, &rule));
                    }
                }
                assert!(had_room > 5, "{excess:?} {messages} {bytes}: {had_room}");
            }
        }
        // One more must be in time behind them, or the session would not be delayed where it is to be.
        let (mut meters, key) = meters();
        let rule = rule(7, 0, Excess::Delay);
        assert!(
            meters.have_room(key, 6 * 6 + 5, &rule, 5_000) && !meters.have_room(key, 7 * 6, &rule, 5_000)
        );
        meters.count(key, 6, 0, &rule, 5_000);
        assert!(meters.have_room(key, 5, &rule, 5_000) && !meters.have_room(key, 6, &rule, 5_000));
    }

    #[test]
    fn a_piece_is_judged_as_a_whole() {
        let (mut meters, key) = meters();
        let delay = rule(10, 0, Excess::Delay);
        assert_eq!(meters.take_piece(key, 9, 100, &delay, 5_000), Pace::Within);
        assert_eq!(meters.take_piece(key, 11, 100, &delay, 5_000), Pace::Last);
        assert_eq!(meters.ready_ms(key, &delay), 6_100);
        let (mut meters, key) = self::meters();
        let close = rule(10, 1_000, Excess::Close);
        assert_eq!(meters.take_piece(key, 10, 9_000, &close, 5_000), Pace::Within, "nothing was owed");
        assert_eq!(meters.take_piece(key, 0, 1, &close, 12_900), Pace::Close);
        assert_eq!(meters.take_piece(key, 11, 0, &close, 20_000), Pace::Close);
    }
}
