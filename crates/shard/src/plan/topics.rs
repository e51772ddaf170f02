//! The configuration's rules of topics as the hubs take them.

use tidegate_config::{Action, SlowPolicy};
use tidegate_hub::{Filter, Rule, Slow, TopicRules, TopicSettings};

pub(super) fn has_topics(action: &Action) -> bool {
    match action {
        Action::Topics(_) | Action::Events(_) | Action::Poll(_) | Action::Publish(_) => true,
        Action::Echo(_) | Action::Page(_) | Action::Proxy(_) => false,
    }
}

/// The configuration's rules as the hubs take them, shared by all of these.
pub(super) fn topic_rules(
    topics: &tidegate_config::Topics,
    change: impl FnOnce(&mut tidegate_hub::Limits),
) -> TopicRules {
    let rules = topics.rules.iter().map(|rule| Rule {
        filter: Filter::parse(rule.name.as_str()).expect("validated"),
        settings: topic_settings(&rule.settings),
    });
    let mut limits = tidegate_hub::Limits {
        memory_bytes: topics.memory_bytes,
        topics: topics.max_topics as usize,
        subscriptions: topics.max_subscriptions as usize,
        ..tidegate_hub::Limits::default()
    };
    change(&mut limits);
    TopicRules::new(rules.collect(), topic_settings(&tidegate_config::TopicSettings::default()), limits)
}

fn topic_settings(settings: &tidegate_config::TopicSettings) -> TopicSettings {
    let defaults = TopicSettings::default();
    let (slow, keys, backlog_bytes) = match settings.slow {
        SlowPolicy::Disconnect => (Slow::Disconnect, None, None),
        SlowPolicy::DropNew => (Slow::DropNew, None, None),
        SlowPolicy::DropOld { backlog_bytes } => (Slow::DropOld, None, Some(backlog_bytes)),
        SlowPolicy::Conflate { keys } => (Slow::Conflate, Some(keys), None),
        SlowPolicy::Resync => (Slow::Resync, None, None),
    };
    TopicSettings {
        history: settings.history,
        history_bytes: settings.history_bytes,
        history_age_ms: settings.history_age_ms,
        presence: settings.presence,
        slow,
        keys: keys.unwrap_or(defaults.keys),
        backlog_bytes: backlog_bytes.unwrap_or(defaults.backlog_bytes),
        message_bytes: settings.message_bytes.unwrap_or(usize::MAX),
    }
}
