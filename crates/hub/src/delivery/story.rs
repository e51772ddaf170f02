//! What led to a broken promise, for its report.

use super::Event;

/// The last `most` events of a history that concern the session of `last`, and its topic where it has one: a line each.
/// Nothing where it concerns no session.
#[must_use]
pub fn story(history: &[Event], last: &Event, most: usize) -> String {
    let (Some(session), topic) = concerned(last) else { return String::new() };
    let told = history.iter().filter(|event| {
        let (other, other_topic) = concerned(event);
        other == Some(session) && (topic.is_none() || other_topic.is_none() || other_topic == topic)
    });
    let told: Vec<String> = told.map(|event| format!("{event:?}")).collect();
    told[told.len().saturating_sub(most)..].join("\n")
}

/// The session and the topic of an event.
fn concerned(event: &Event) -> (Option<u64>, Option<&str>) {
    match event {
        Event::Subscribed { session, topic, .. }
        | Event::Unsubscribed { session, topic }
        | Event::Receipt { session, topic, .. }
        | Event::Gap { session, topic, .. } => (Some(*session), Some(topic)),
        Event::Patterns { session, .. } | Event::Ended { session } => (Some(*session), None),
        Event::Publish { topic, .. } => (None, Some(topic)),
        Event::Published { .. } | Event::Refused { .. } | Event::Restart => (None, None),
    }
}
