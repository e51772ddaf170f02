//! `topics = { … }`, `events = { … }` and `poll = { … }`: the ways from topics to clients.

use super::{
    Surroundings,
    limits::{KIB, MESSAGE_MOST},
    topics::permission,
};
use crate::{
    EchoDeflate, EventsAction, PollAction, RouteLimits, TopicPatterns, TopicsAction,
    report::{At, Report},
    section::Section,
    units::size_text,
};

/// Waiting output above which a session is slow, where nothing is said.
const SESSION_BYTES: u64 = 256 * KIB;

/// Subscriptions of a session, and those of them to patterns, where nothing is said.
const MAX_SUBSCRIPTIONS: u64 = 128;
const MAX_PATTERNS: u64 = 16;

/// For WebSockets.
pub(super) fn topics(
    report: &mut Report<'_>,
    section: &Section<'_>,
    around: &Surroundings<'_>,
    limits: &RouteLimits,
) -> TopicsAction {
    let subscribe = permission(report, section, "subscribe");
    let publish = permission(report, section, "publish");
    let presence = permission(report, section, "presence");
    if subscribe.is_empty && publish.is_empty && presence.is_empty {
        let message = "this allows nothing: list patterns in `subscribe`, `publish` or `presence`";
        report.relation(section.span.clone(), message);
    }
    warn_of_presence(report, section, around, presence.is_empty);
    let (max_subscriptions, max_patterns) = subscriptions(report, section, around);
    let session_bytes = session_bytes(report, section, limits);
    let words = [("on", EchoDeflate::On), ("off", EchoDeflate::Off)];
    let deflate = section.word(report, "deflate", &words).map(|deflate| deflate.value).unwrap_or_default();
    TopicsAction {
        subscribe: subscribe.patterns,
        publish: publish.patterns,
        presence: presence.patterns,
        max_subscriptions,
        max_patterns,
        session_bytes,
        deflate,
    }
}

/// How many subscriptions a session may have, and how many of these to patterns.
fn subscriptions(report: &mut Report<'_>, section: &Section<'_>, around: &Surroundings<'_>) -> (u32, u32) {
    let all = u64::from(around.topics.max_subscriptions);
    let most = section.integer(report, "max_subscriptions", 1..=1_000_000);
    let patterns = section.integer(report, "max_patterns", 0..=10_000);
    if let Some(At { value, span }) = &most
        && *value > all
    {
        let message = format!("max_subscriptions of one session ({value}) is more than that of all ({all})");
        report.relation(span.clone(), message);
    }
    let most = most.map_or(MAX_SUBSCRIPTIONS.min(all), |most| most.value);
    if let Some(At { value, span }) = &patterns
        && *value > most
    {
        let message =
            format!("max_patterns ({value}) is more than max_subscriptions ({most}), of which it is a part");
        report.relation(span.clone(), message);
    }
    let patterns = patterns.map_or(MAX_PATTERNS.min(most), |patterns| patterns.value);
    (most as u32, patterns as u32)
}

/// For readers of server-sent events.
pub(super) fn events(
    report: &mut Report<'_>,
    section: &Section<'_>,
    around: &Surroundings<'_>,
    limits: &RouteLimits,
) -> EventsAction {
    let (subscribe, presence) = feed(report, section, around);
    EventsAction { subscribe, presence, session_bytes: session_bytes(report, section, limits) }
}

/// For long-polling.
pub(super) fn poll(
    report: &mut Report<'_>,
    section: &Section<'_>,
    around: &Surroundings<'_>,
    limits: &RouteLimits,
) -> PollAction {
    let (subscribe, presence) = feed(report, section, around);
    PollAction { subscribe, presence, session_bytes: session_bytes(report, section, limits) }
}

/// What may be read, and where readers may be present.
fn feed(
    report: &mut Report<'_>,
    section: &Section<'_>,
    around: &Surroundings<'_>,
) -> (TopicPatterns, TopicPatterns) {
    let subscribe = permission(report, section, "subscribe");
    let presence = permission(report, section, "presence");
    if subscribe.is_empty {
        report.relation(section.span.clone(), "this allows nothing: list patterns in `subscribe`");
    }
    warn_of_presence(report, section, around, presence.is_empty);
    (subscribe.patterns, presence.patterns)
}

/// A permission that nothing can be done with: topics may come to keep presence, so it is no mistake.
fn warn_of_presence(
    report: &mut Report<'_>,
    section: &Section<'_>,
    around: &Surroundings<'_>,
    is_empty: bool,
) {
    if let Some(span) = section.key_span("presence")
        && !is_empty
        && !around.topics.rules.iter().any(|rule| rule.settings.presence)
    {
        report.warn(span, "no topic keeps presence: that needs a [[topic]] with `presence = true`");
    }
}

fn session_bytes(report: &mut Report<'_>, section: &Section<'_>, limits: &RouteLimits) -> usize {
    let hard = limits.outbox_hard_bytes as u64;
    let Some(At { value, span }) = section.size(report, "session_bytes", KIB..=MESSAGE_MOST) else {
        return SESSION_BYTES.min(hard) as usize;
    };
    if value > hard {
        let (own, hard) = (size_text(value), size_text(hard));
        report.relation(span, format!("session_bytes ({own}) is more than the route's outbox_hard ({hard})"));
    }
    value as usize
}
