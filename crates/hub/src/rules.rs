//! What the configuration says of topics, and the process's limits on them.
//!
//! Invariant: each topic has the settings of the first rule whose filter matches its name; a topic that none matches has the
//! defaults. One [`TopicRules`] is shared by the hubs of all shards: its counters are the process's.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tidegate_registry::Total;

use crate::topic::{Filter, TopicName};

/// What happens to a subscriber that takes less than is published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Slow {
    /// Its session ends (1013).
    #[default]
    Disconnect,
    /// The oldest of what waits is left out.
    DropOld,
    /// What comes while it is behind is left out.
    DropNew,
    /// Only the newest of each key waits.
    Conflate,
    /// All that waits is left out but the newest.
    Resync,
}

impl Slow {
    /// All of them, in the order of their counters.
    pub const ALL: [Slow; 5] = [Self::Disconnect, Self::DropOld, Self::DropNew, Self::Conflate, Self::Resync];

    /// As the configuration has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disconnect => "disconnect",
            Self::DropOld => "drop_old",
            Self::DropNew => "drop_new",
            Self::Conflate => "conflate",
            Self::Resync => "resync",
        }
    }
}

/// What a topic is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSettings {
    /// Publications that its history keeps at most; 0: it has none.
    pub history: u32,
    /// Their bytes, at most. What a publication costs beside its payload counts too.
    pub history_bytes: usize,
    /// How long it keeps them. What a topic that conflates or resyncs keeps of each key stays at least as long behind the
    /// topic's last publication, and as long as somebody is subscribed.
    pub history_age_ms: u64,
    /// Whether it knows who is there.
    pub presence: bool,
    /// What becomes of slow subscribers.
    pub slow: Slow,
    /// Keys that are kept where it conflates.
    pub keys: u32,
    /// Bytes kept for slow subscribers where the oldest is left out.
    pub backlog_bytes: usize,
    /// The largest payload; the route has its own limit beside.
    pub message_bytes: usize,
}

impl Default for TopicSettings {
    fn default() -> Self {
        Self {
            history: 0,
            history_bytes: 1 << 20,
            history_age_ms: 5 * 60 * 1_000,
            presence: false,
            slow: Slow::Disconnect,
            keys: 10_000,
            backlog_bytes: 1 << 20,
            message_bytes: usize::MAX,
        }
    }
}

/// Settings for the topics that a filter matches.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Which topics.
    pub filter: Filter,
    /// What they are like.
    pub settings: TopicSettings,
}

/// Idempotency keys hold at most this part of [`Limits::memory_bytes`]: unlike histories they are not given up for others.
const KEYS_PART: usize = 4;

/// Who is there takes at most this part of [`Limits::memory_bytes`], for the same reason.
const PRESENCE_PART: usize = 4;
/// Who goes by a name of its own comes only while presence as a whole takes no more than this part: such names cost no
/// connection that lasts, and leave room for those that have one.
const STAYS_PART: usize = 8;

/// Limits of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of publications and of their frames, whoever holds them (histories, states, backlogs, letters, outboxes), of the
    /// tables of states, of idempotency keys, and of who is present.
    pub memory_bytes: usize,
    /// Topics that exist at one time.
    pub topics: usize,
    /// Subscriptions, over all sessions.
    pub subscriptions: usize,
    /// Letters that one shard keeps for another whose queue is full; past this publications are refused or left out.
    pub letters: usize,
    /// The payloads of those letters.
    pub letter_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 256 << 20,
            topics: 1_000_000,
            subscriptions: 10_000_000,
            letters: 8_192,
            letter_bytes: 8 << 20,
        }
    }
}

/// Which of the [`TopicRules`] a topic has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleId(u16);

/// The rules in the order of the configuration, the limits, and what counts against them.
#[derive(Debug)]
pub struct TopicRules {
    rules: Vec<Rule>,
    defaults: TopicSettings,
    limits: Limits,
    /// What each topic takes.
    least_message_bytes: usize,
    held: Total,
    /// What of that idempotency keys are.
    keys: Total,
    /// And what presence is.
    presence: Total,
    topics: AtomicUsize,
    subscriptions: AtomicUsize,
    shortages: AtomicUsize,
    /// The most that was refused since there was room for it.
    wanted_bytes: AtomicUsize,
}

impl Default for TopicRules {
    fn default() -> Self {
        Self::new(Vec::new(), TopicSettings::default(), Limits::default())
    }
}

impl TopicRules {
    /// # Panics
    /// Where there are more than 65,535 rules.
    #[must_use]
    pub fn new(rules: Vec<Rule>, defaults: TopicSettings, limits: Limits) -> Self {
        assert!(rules.len() < usize::from(u16::MAX), "more rules than a RuleId can name");
        let most_of = |settings: &TopicSettings| settings.message_bytes;
        let of_rules = rules.iter().map(|rule| most_of(&rule.settings));
        let least_message_bytes = of_rules.chain([most_of(&defaults)]).min().unwrap_or_default();
        Self {
            rules,
            defaults,
            limits,
            least_message_bytes,
            held: Total::default(),
            keys: Total::default(),
            presence: Total::default(),
            topics: AtomicUsize::new(0),
            subscriptions: AtomicUsize::new(0),
            shortages: AtomicUsize::new(0),
            wanted_bytes: AtomicUsize::new(0),
        }
    }

    /// The rule of a topic: a scan, once in a topic's life on each shard.
    #[must_use]
    pub fn rule_for(&self, name: &TopicName) -> RuleId {
        let place = self.rules.iter().position(|rule| rule.filter.matches(name));
        // The constructor bounds the number of rules.
        RuleId(place.map_or(u16::MAX, |place| place as u16))
    }

    /// What a rule says.
    #[must_use]
    pub fn settings(&self, rule: RuleId) -> &TopicSettings {
        self.rules.get(usize::from(rule.0)).map_or(&self.defaults, |rule| &rule.settings)
    }

    /// Whether a topic takes a payload of so many bytes. Its rule is only looked for where some topics do not.
    #[must_use]
    pub fn takes(&self, name: &TopicName, bytes: usize) -> bool {
        bytes <= self.least_message_bytes || bytes <= self.settings(self.rule_for(name)).message_bytes
    }

    /// The process's limits.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Bytes that publications take, to be held below [`Limits::memory_bytes`].
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held.bytes()
    }

    /// Topics that exist on all shards.
    #[must_use]
    pub fn topics(&self) -> usize {
        self.topics.load(Relaxed)
    }

    /// Subscriptions on all shards.
    #[must_use]
    pub fn subscriptions(&self) -> usize {
        self.subscriptions.load(Relaxed)
    }

    pub(crate) fn held(&self) -> &Total {
        &self.held
    }

    pub(crate) fn keys(&self) -> &Total {
        &self.keys
    }

    /// What is left for more idempotency keys, in bytes.
    pub(crate) fn room_for_keys(&self) -> usize {
        (self.limits.memory_bytes / KEYS_PART).saturating_sub(self.keys.bytes())
    }

    pub(crate) fn presence(&self) -> &Total {
        &self.presence
    }

    /// Whether one more session may be present in a topic.
    pub(crate) fn has_room_for_presence(&self) -> bool {
        self.presence.bytes() < self.limits.memory_bytes / PRESENCE_PART
    }

    /// Whether somebody more may be, under a name of its own.
    pub(crate) fn has_room_for_stays(&self) -> bool {
        self.presence.bytes() < self.limits.memory_bytes / STAYS_PART
    }

    pub(crate) fn is_over_memory(&self) -> bool {
        !self.has_room_for(0)
    }

    /// Whether so many bytes more may be held.
    pub(crate) fn has_room_for(&self, bytes: usize) -> bool {
        self.held.bytes() + bytes <= self.limits.memory_bytes
    }

    /// How often there was no memory for a publication though no shard had anything more to give up: the number changes with
    /// each time.
    #[must_use]
    pub fn shortages(&self) -> usize {
        self.shortages.load(Relaxed)
    }

    /// Whether there would be memory now for the largest of what was refused for want of it since there was. A publication that
    /// is refused counts only while it is judged, so what is held alone does not tell that nothing more fits.
    #[must_use]
    pub fn has_room_again(&self) -> bool {
        let wanted = self.wanted_bytes.load(Relaxed);
        let has_room = self.has_room_for(wanted);
        if has_room {
            // Where another shard has noted more meanwhile, that stays.
            let _ = self.wanted_bytes.compare_exchange(wanted, 0, Relaxed, Relaxed);
        }
        has_room
    }

    pub(crate) fn note_shortage(&self, bytes: usize) {
        self.wanted_bytes.fetch_max(bytes, Relaxed);
        self.shortages.fetch_add(1, Relaxed);
    }

    /// One more topic, if there may be.
    pub(crate) fn take_topic(&self) -> bool {
        take(&self.topics, self.limits.topics)
    }

    pub(crate) fn give_topics(&self, count: usize) {
        self.topics.fetch_sub(count, Relaxed);
    }

    /// One more subscription, if there may be.
    pub(crate) fn take_subscription(&self) -> bool {
        take(&self.subscriptions, self.limits.subscriptions)
    }

    pub(crate) fn give_subscriptions(&self, count: usize) {
        self.subscriptions.fetch_sub(count, Relaxed);
    }
}

fn take(counter: &AtomicUsize, most: usize) -> bool {
    if counter.fetch_add(1, Relaxed) < most {
        return true;
    }
    counter.fetch_sub(1, Relaxed);
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_matches_is_a_topics() {
        let rule = |filter: &str, history| Rule {
            filter: Filter::parse(filter).unwrap(),
            settings: TopicSettings { history, ..TopicSettings::default() },
        };
        let rules = TopicRules::new(
            vec![rule("chat/lobby", 1), rule("chat/*", 2), rule("**", 3)],
            TopicSettings::default(),
            Limits::default(),
        );
        let history = |name| rules.settings(rules.rule_for(&TopicName::parse(name).unwrap())).history;
        assert_eq!([history("chat/lobby"), history("chat/a"), history("chat/a/b")], [1, 2, 3]);
        let none = TopicRules::default();
        assert_eq!(none.settings(none.rule_for(&TopicName::parse("a").unwrap())), &TopicSettings::default());
    }

    #[test]
    fn a_topic_takes_what_its_rule_says() {
        let limited = |most: usize| TopicSettings { message_bytes: most, ..TopicSettings::default() };
        let rule =
            |filter: &str, most| Rule { filter: Filter::parse(filter).unwrap(), settings: limited(most) };
        let rules = TopicRules::new(vec![rule("a/*", 10), rule("b", 30)], limited(20), Limits::default());
        for (name, most) in [("a/x", 10), ("b", 30), ("c", 20)] {
            let name = TopicName::parse(name).unwrap();
            assert!(rules.takes(&name, most) && !rules.takes(&name, most + 1), "{name}");
        }
    }

    #[test]
    fn a_limit_refuses_and_counts_what_it_refused_not() {
        let rules =
            TopicRules::new(Vec::new(), TopicSettings::default(), Limits { topics: 2, ..Limits::default() });
        assert_eq!([rules.take_topic(), rules.take_topic(), rules.take_topic()], [true, true, false]);
        rules.give_topics(1);
        assert!(rules.take_topic());
        assert_eq!(rules.topics(), 2);
    }
}
