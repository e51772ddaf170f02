//! Topics: what all of them may take, what each keeps, and what routes allow with them.

use crate::{EchoDeflate, Secret, TopicPattern, TopicPatterns};

/// `[topics]` and all `[[topic]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    /// Publications that histories, states and backlogs hold, over the whole process; at least 1 MiB.
    pub memory_bytes: usize,
    /// Most topics at a time, over the whole process; at least 1.
    pub max_topics: u32,
    /// Most subscriptions at a time, over the whole process; at least 1.
    pub max_subscriptions: u32,
    /// In the order of the file: the first that matches a topic's name counts. Each counts for some name.
    pub rules: Vec<TopicRule>,
}

/// One `[[topic]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicRule {
    /// Which topics.
    pub name: TopicPattern,
    /// What holds for them.
    pub settings: TopicSettings,
}

/// What a topic keeps, and how it treats the slow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSettings {
    /// Most messages that its history keeps; 0 means that it has none.
    pub history: u32,
    /// Most bytes that its history keeps, at most [`Topics::memory_bytes`].
    pub history_bytes: usize,
    /// How long its history keeps a message, in ms, at least 1,000. So long, too, a topic that conflates or resyncs stays
    /// what it is when nobody is subscribed to it any more.
    pub history_age_ms: u64,
    /// Whether it knows who is there.
    pub presence: bool,
    /// What becomes of a subscriber that does not keep up.
    pub slow: SlowPolicy,
    /// Longest message, where that is less than the route's that it is published over; `None`: the route's.
    pub message_bytes: Option<usize>,
}

/// What becomes of a subscriber that does not keep up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlowPolicy {
    /// Its session is closed with 1013.
    #[default]
    Disconnect,
    /// It gets nothing while it is slow, and a gap is announced.
    DropNew,
    /// The newest messages wait for it, and a gap is announced for the others.
    DropOld {
        /// Most bytes that wait in one topic, for all of its slow subscribers together; at most
        /// [`Topics::memory_bytes`].
        backlog_bytes: usize,
    },
    /// Of each key it gets the newest message.
    Conflate {
        /// Most keys of one topic; beyond it the one that has not changed for longest is forgotten.
        keys: u32,
    },
    /// A gap is announced, and it gets the newest message.
    Resync,
}

/// `topics = { … }`: a WebSocket's way to topics. The route's path itself speaks the protocol, a path below it is the
/// name of a topic without any protocol ([`crate::PathPattern::below`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicsAction {
    /// What may be subscribed to.
    pub subscribe: TopicPatterns,
    /// What may be published to.
    pub publish: TopicPatterns,
    /// Whose presence may be seen, and taken part in.
    pub presence: TopicPatterns,
    /// Most subscriptions of one session, to names and patterns together; at least 1, at most
    /// [`Topics::max_subscriptions`].
    pub max_subscriptions: u32,
    /// Most of these to patterns.
    pub max_patterns: u32,
    /// Waiting output of a session above which it counts as slow; at most the route's `outbox_hard_bytes`.
    pub session_bytes: usize,
    /// Whether permessage-deflate is agreed to.
    pub deflate: EchoDeflate,
}

/// `events = { … }`: server-sent events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventsAction {
    /// What may be subscribed to; not empty.
    pub subscribe: TopicPatterns,
    /// In which of these a reader may be present.
    pub presence: TopicPatterns,
    /// Waiting output of a stream above which it counts as slow; at most the route's `outbox_hard_bytes`.
    pub session_bytes: usize,
}

/// `poll = { … }`: long-polling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PollAction {
    /// What may be polled; not empty.
    pub subscribe: TopicPatterns,
    /// In which of these a poller may be present.
    pub presence: TopicPatterns,
    /// Messages of one answer, about; what is left comes with the next. At most the route's `outbox_hard_bytes`.
    pub session_bytes: usize,
}

/// `publish = { … }`: publishing by POST. The route's path itself takes messages that name their topics, a path below
/// it is the name of a topic ([`crate::PathPattern::below`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishAction {
    /// What may be published to, with or without a key; not empty.
    pub publish: TopicPatterns,
    /// Where there are some, each request needs one of them. No two have a name or a secret in common.
    pub keys: Vec<PublishKey>,
    /// Longest body of a request.
    pub body_bytes: usize,
    /// Most messages in each second, for each shard; at least 1.
    pub rate: u32,
}

/// A key that publishers present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishKey {
    /// For logs; a token.
    pub name: String,
    /// What is presented.
    pub secret: Secret,
    /// What may be published to with it; within [`PublishAction::publish`], and not empty.
    pub publish: TopicPatterns,
}

/// Most `[[topic]]` of a configuration: each is tried when a topic comes to be.
pub const MAX_TOPIC_RULES: usize = 1024;

/// Most patterns of a permission.
pub const MAX_TOPIC_PATTERNS: usize = 256;

/// Most keys of a route.
pub const MAX_PUBLISH_KEYS: usize = 256;

impl Topics {
    /// What holds for the topic of this name.
    #[must_use]
    pub fn settings(&self, name: &str) -> &TopicSettings {
        self.rules
            .iter()
            .find(|rule| rule.name.matches(name))
            .map_or(&TopicSettings::DEFAULT, |rule| &rule.settings)
    }
}

impl TopicSettings {
    /// What holds for a topic that no rule matches, and for one whose rule says nothing.
    pub const DEFAULT: Self = Self {
        history: 0,
        history_bytes: 1 << 20,
        history_age_ms: 300_000,
        presence: false,
        slow: SlowPolicy::Disconnect,
        message_bytes: None,
    };
}

impl Default for TopicSettings {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Default for Topics {
    fn default() -> Self {
        Self {
            memory_bytes: 256 << 20,
            max_topics: 1_000_000,
            max_subscriptions: 10_000_000,
            rules: Vec::new(),
        }
    }
}
