//! `[topics]`, `[[topic]]`, and the patterns that permissions are made of.

use std::{collections::HashSet, ops::Range};

use super::limits::{GIB, KIB, MESSAGE_MOST, MIB};
use crate::{
    BadTopic, MAX_TOPIC_PATTERNS, MAX_TOPIC_RULES, SlowPolicy, TopicPattern, TopicPatterns, TopicRule,
    TopicSettings, Topics, reach,
    report::{At, Mistake, Report},
    schema,
    section::{Section, cut, shown},
    topic::covering,
    units::size_text,
};

/// What a history and a backlog hold where nothing is said. No more than the least `memory`.
const KEPT_BYTES: u64 = MIB;

/// Keys of a topic that conflates, where nothing is said.
const KEYS: u32 = 10_000;

/// What topics may take, and all their rules.
pub(super) fn read(report: &mut Report<'_>, top: &Section<'_>) -> Topics {
    let mut topics = Topics::default();
    if let Some(section) = top.table(report, "topics", schema::TOPICS) {
        if let Some(memory) = section.size(report, "memory", MIB..=1024 * GIB) {
            topics.memory_bytes = memory.value as usize;
        }
        if let Some(most) = section.integer(report, "max_topics", 1..=100_000_000) {
            topics.max_topics = most.value as u32;
        }
        if let Some(most) = section.integer(report, "max_subscriptions", 1..=1_000_000_000) {
            topics.max_subscriptions = most.value as u32;
        }
    }
    topics.rules = rules(report, top, topics.memory_bytes as u64);
    topics
}

fn rules(report: &mut Report<'_>, top: &Section<'_>, memory_bytes: u64) -> Vec<TopicRule> {
    let sections = top.tables(report, "topic", schema::TOPIC);
    if let Some(beyond) = sections.get(MAX_TOPIC_RULES) {
        report.relation(beyond.span.clone(), format!("there are more than {MAX_TOPIC_RULES} topics"));
        return Vec::new();
    }
    let mut places = Vec::<Range<usize>>::new();
    let mut rules = Vec::<TopicRule>::new();
    for section in &sections {
        if section.lacks("name") {
            let message = "a topic needs a `name`, or a pattern of names: \"**\" matches every one";
            report.relation(section.span.clone(), message);
        }
        let settings = settings(report, section, memory_bytes);
        let Some(text) = section.text(report, "name") else { continue };
        let Some(name) = report.check(&text.span, pattern(text.value)) else { continue };
        if let Some(hiding) = covering(rules.iter().map(|rule| &rule.name), &name) {
            let earlier = |index: &usize| {
                format!("line {} (`{}`)", report.line(&places[*index]), cut(rules[*index].name.as_str()))
            };
            let earlier = reach::few(hiding.iter().map(earlier), " and ");
            let message = match hiding.len() {
                1 => format!("this rule counts for no topic: the one at {earlier} matches all its names"),
                _ => format!("this rule counts for no topic: those at {earlier} match all its names"),
            };
            report.relation(text.span.clone(), message);
        }
        places.push(text.span);
        rules.push(TopicRule { name, settings });
    }
    rules
}

fn settings(report: &mut Report<'_>, section: &Section<'_>, memory_bytes: u64) -> TopicSettings {
    let message_bytes = section.size(report, "message_bytes", 1..=MESSAGE_MOST);
    let bounded = Bounded { message_bytes: message_bytes.as_ref(), memory_bytes };
    let presence = section.boolean(report, "presence").is_some_and(|presence| presence.value);
    let slow = slow(report, section, &bounded);
    let history = history(report, section, &bounded, slow);
    let message_bytes = message_bytes.map(|at| at.value as usize);
    TopicSettings { presence, slow, message_bytes, ..history }
}

/// Reads what is kept for those who come later or come back. Without a number of messages there is no history: its
/// bytes then mean nothing, and its age only where the newest messages stay all the same.
fn history(
    report: &mut Report<'_>,
    section: &Section<'_>,
    bounded: &Bounded<'_>,
    slow: SlowPolicy,
) -> TopicSettings {
    let messages = section.integer(report, "history", 0..=1_000_000);
    let age = section.duration(report, "history_age", 1000);
    let bytes = section.size(report, "history_bytes", KIB..=1024 * GIB);
    let default = TopicSettings::DEFAULT;
    let is_without = match &messages {
        Some(messages) => messages.value == 0,
        None => section.lacks("history"),
    };
    let history_bytes = if is_without {
        let stays = matches!(slow, SlowPolicy::Conflate { .. } | SlowPolicy::Resync);
        let idle: &[&str] = if stays { &["history_bytes"] } else { &["history_age", "history_bytes"] };
        for key in idle {
            if let Some(span) = section.key_span(key) {
                let message = format!("`{key}` means nothing without `history`, a number of messages");
                report.relation(span, message);
            }
        }
        default.history_bytes
    } else {
        bounded.check(report, "history_bytes", bytes)
    };
    TopicSettings {
        history: messages.map_or(0, |messages| messages.value as u32),
        history_bytes,
        history_age_ms: age.map_or(default.history_age_ms, |age| age.value),
        ..default
    }
}

fn slow(report: &mut Report<'_>, section: &Section<'_>, bounded: &Bounded<'_>) -> SlowPolicy {
    let (drop_old, conflate) =
        (SlowPolicy::DropOld { backlog_bytes: KEPT_BYTES as usize }, SlowPolicy::Conflate { keys: KEYS });
    let words = [
        ("disconnect", SlowPolicy::Disconnect),
        ("drop_new", SlowPolicy::DropNew),
        ("drop_old", drop_old),
        ("conflate", conflate),
        ("resync", SlowPolicy::Resync),
    ];
    let slow = section.word(report, "slow", &words);
    // A policy that is there but wrong has been told.
    let known = slow.is_some() == section.has("slow");
    let slow = slow.map(|slow| slow.value).unwrap_or_default();
    let keys = section.integer(report, "keys", 1..=10_000_000);
    let backlog = section.size(report, "backlog_bytes", KIB..=1024 * GIB);
    for (key, policy) in [("keys", conflate), ("backlog_bytes", drop_old)] {
        if let Some(span) = section.key_span(key).filter(|_| known && slow != policy) {
            let word = if policy == conflate { "conflate" } else { "drop_old" };
            report.relation(span, format!("`{key}` means something only with slow = \"{word}\""));
        }
    }
    match slow {
        SlowPolicy::Conflate { .. } => {
            SlowPolicy::Conflate { keys: keys.map_or(KEYS, |keys| keys.value as u32) }
        }
        SlowPolicy::DropOld { .. } => {
            SlowPolicy::DropOld { backlog_bytes: bounded.check(report, "backlog_bytes", backlog) }
        }
        SlowPolicy::Disconnect | SlowPolicy::DropNew | SlowPolicy::Resync => slow,
    }
}

/// What stands round a number of bytes that a topic keeps.
struct Bounded<'s> {
    /// Of one message, where the topic says so.
    message_bytes: Option<&'s At<u64>>,
    /// Of all topics.
    memory_bytes: u64,
}

impl Bounded<'_> {
    /// Not more than all topics may hold, and not less than one message.
    fn check(&self, report: &mut Report<'_>, key: &str, kept: Option<At<u64>>) -> usize {
        let bytes = kept.as_ref().map_or(KEPT_BYTES, |kept| kept.value);
        if let Some(At { value, span }) = &kept
            && *value > self.memory_bytes
        {
            let (mine, all) = (size_text(*value), size_text(self.memory_bytes));
            report.relation(span.clone(), format!("{key} ({mine}) is more than all topics have ({all})"));
        }
        if let Some(At { value, span }) = self.message_bytes
            && *value > bytes
        {
            let (message, kept) = (size_text(*value), size_text(bytes));
            let message =
                format!("message_bytes ({message}) is more than {key} ({kept}), which is to hold it");
            report.relation(span.clone(), message);
        }
        bytes as usize
    }
}

/// A list of patterns.
pub(super) struct Permission {
    pub(super) patterns: TopicPatterns,
    /// The patterns again, each with its place.
    pub(super) listed: Vec<At<TopicPattern>>,
    /// Whether nothing is in it, nor was meant to be.
    pub(super) is_empty: bool,
}

/// What a list of patterns allows; nothing where it is not there.
pub(super) fn permission(report: &mut Report<'_>, section: &Section<'_>, key: &str) -> Permission {
    let texts = section.texts(report, key);
    let is_empty = texts.as_ref().map_or(section.lacks(key), |texts| texts.value.is_empty());
    let mut listed = Vec::new();
    let mut seen = HashSet::new();
    for text in texts.into_iter().flat_map(|texts| texts.value) {
        let Some(pattern) = report.check(&text.span, pattern(text.value)) else { continue };
        if !seen.insert(pattern.clone()) {
            report.wrong(text.span, Mistake::new(format!("{} is in the list already", shown(text.value))));
            continue;
        }
        if listed.len() == MAX_TOPIC_PATTERNS {
            report.relation(text.span, format!("there are more than {MAX_TOPIC_PATTERNS} patterns"));
            break;
        }
        listed.push(At { value: pattern, span: text.span });
    }
    let patterns = TopicPatterns::new(listed.iter().map(|pattern| pattern.value.clone()).collect());
    Permission { patterns, listed, is_empty }
}

fn pattern(text: &str) -> Result<TopicPattern, Mistake> {
    TopicPattern::parse(text).map_err(|bad| {
        let meant = match bad {
            BadTopic::EmptySegment => {
                text.split('/').filter(|segment| !segment.is_empty()).collect::<Vec<_>>().join("/")
            }
            BadTopic::RestInside => text.split_inclusive("**").next().unwrap_or_default().to_owned(),
            // As MQTT writes it.
            BadTopic::Reserved => {
                text.strip_suffix('#').map(|start| format!("{start}**")).unwrap_or_default()
            }
            BadTopic::Empty
            | BadTopic::TooLong
            | BadTopic::TooManySegments
            | BadTopic::ControlCharacter
            | BadTopic::DotSegment
            | BadTopic::PartOfSegment => String::new(),
        };
        let suggestion = TopicPattern::parse(&meant).is_ok().then_some(meant);
        Mistake { message: bad.to_string(), suggestion }
    })
}
