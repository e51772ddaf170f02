//! What a seed configures: topics by policy, routes for every way to them, limits small enough to be met.

use tidegate_hub::{Filter, TopicName};

use super::super::{
    net::{MILLIS, SECONDS},
    random::Random,
};

/// Topics by policy; `plain` keeps nothing.
pub(crate) const TOPICS: [&str; 13] = [
    "plain/a", "plain/b", "kept/a", "kept/b", "kept/c/d", "old/a", "old/b", "new/a", "new/b", "conf/a",
    "conf/b", "sync/a", "sync/b",
];

pub(crate) const PATTERNS: [&str; 6] = ["plain/*", "old/**", "kept/**", "*/a", "conf/*", "sync/**"];

/// A topic that no route allows.
pub(crate) const SECRET: &str = "secret/x";

/// Of who publishes over HTTP.
pub(crate) const PUBLISH_KEYS: [&str; 2] = ["0123456789abcdef", "fedcba9876543210"];

/// Limits of one session.
pub(crate) const MOST_SUBSCRIPTIONS: usize = 8;
pub(crate) const MOST_PATTERNS: usize = 2;

/// Whether a name or a pattern has a topic.
pub(crate) fn matches(filter: &str, topic: &str) -> bool {
    let filter = Filter::parse(filter).expect("what is subscribed to is valid");
    TopicName::parse(topic).is_ok_and(|topic| filter.matches(&topic))
}

fn family(topic: &str) -> &str {
    topic.split('/').next().unwrap_or_default()
}

pub(crate) fn conflates(topic: &str) -> bool {
    family(topic) == "conf"
}

/// Whether its slow subscribers are sent away.
pub(crate) fn disconnects(topic: &str) -> bool {
    matches!(family(topic), "plain" | "kept")
}

pub(crate) fn has_presence(topic: &str) -> bool {
    matches!(family(topic), "kept" | "old")
}

pub(crate) fn has_history(topic: &str) -> bool {
    matches!(family(topic), "kept" | "old" | "conf" | "sync")
}

/// A seed's settings.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) shards: usize,
    pub(crate) people: u64,
    /// How long they come for, in each life of the gateway.
    pub(crate) span: u64,
    /// How often it is started anew.
    pub(crate) restarts: u32,
    /// Microseconds; 0: no pings.
    pub(crate) ping_interval: u64,
    pub(crate) session_bytes: usize,
    /// Of each queue between two shards.
    pub(crate) mailbox: usize,
    /// What a shard keeps for another whose queue is full.
    pub(crate) letters: usize,
    /// Longest time of a letter on its way.
    pub(crate) delay: u64,
    /// Topics are refused now and then.
    pub(crate) few_topics: bool,
    pub(crate) history: u32,
    pub(crate) message_most: usize,
    /// What topics may hold, where that is so little that it is not enough now and then.
    pub(crate) memory: Option<usize>,
    /// Many who publish much to each other, and nothing is scarce: what strikes seldom is met.
    pub(crate) crowd: bool,
    /// No generation takes a route away.
    pub(crate) stays: bool,
}

impl Setup {
    pub(crate) fn draw(random: &mut Random) -> Setup {
        let people = *random.pick(&[3, 8, 20, 40]);
        let mut setup = Setup {
            shards: random.size(1..=3),
            people: random.range(2..=people),
            span: *random.pick(&[SECONDS, 5 * SECONDS, 30 * SECONDS]),
            restarts: *random.pick(&[0, 0, 1, 2]),
            ping_interval: random.range(5..=25) * SECONDS * u64::from(random.below(4) > 0),
            session_bytes: *random.pick(&[1 << 10, 1 << 10, 4 << 10, 64 << 10]),
            mailbox: *random.pick(&[1, 2, 8, 256]),
            letters: *random.pick(&[3, 20, 8_192]),
            delay: *random.pick(&[0, 100, 5 * MILLIS, 200 * MILLIS]),
            few_topics: random.below(8) == 0,
            history: *random.pick(&[3, 12, 200]),
            message_most: *random.pick(&[60, 600, 4_000]),
            memory: (random.below(4) == 0).then(|| *random.pick(&[24 << 10, 48 << 10, 200 << 10])),
            crowd: false,
            stays: false,
        };
        if setup.memory.is_some() {
            // Sessions may hold more than all topics.
            setup.session_bytes = 256 << 10;
            setup.message_most = 4_000;
        }
        setup
    }

    /// Where most of what is published comes to many, and there is a second life of the gateway.
    pub(crate) fn crowd(random: &mut Random) -> Setup {
        Setup {
            people: 48,
            span: 5 * SECONDS,
            restarts: 1,
            session_bytes: 64 << 10,
            mailbox: 256,
            letters: 8_192,
            delay: *random.pick(&[0, 100, 5 * MILLIS]),
            few_topics: false,
            history: 200,
            message_most: 60,
            memory: None,
            crowd: true,
            stays: true,
            ..Setup::draw(random)
        }
    }

    /// Whether who publishes over HTTP must have a key. Of little memory what is remembered for those who have one leaves nothing.
    pub(crate) fn has_publish_keys(&self) -> bool {
        self.memory.is_none()
    }

    pub(crate) fn text(&self) -> String {
        let history = self.history;
        let all = r#"["plain/**", "kept/**", "old/**", "new/**", "conf/**", "sync/**", "*/a"]"#;
        let kept = format!("history = {history}\nhistory_age = \"60s\"\n");
        let topics = [
            ("kept", format!("presence = true\n{kept}")),
            ("old", format!("presence = true\nslow = \"drop_old\"\nbacklog_bytes = \"3KiB\"\n{kept}")),
            ("new", "slow = \"drop_new\"\n".to_string()),
            ("conf", format!("slow = \"conflate\"\nkeys = 4\n{kept}")),
            ("sync", "slow = \"resync\"\nhistory = 3\nhistory_age = \"20s\"\n".to_string()),
        ];
        let [one, other] =
            PUBLISH_KEYS.map(|key| format!(r#"{{ name = "{key}", key = "{key}", publish = {all} }}"#));
        let keys = if self.has_publish_keys() { format!(", keys = [{one}, {other}]") } else { String::new() };
        let session = format!("session_bytes = {}", self.session_bytes);
        let mut text = format!(
            "version = 1\n[limits]\nmax_sessions = {}\nmessage_bytes = \"64KiB\"\nping_interval = \"{}ms\"\n\
             pong_timeout = \"10s\"\nclose_timeout = \"5s\"\nwrite_timeout = \"30s\"\nhead_timeout = \"60s\"\n\
             [topics]\nmemory = \"64MiB\"\nmax_topics = {}\n[[listener]]\nbind = \"127.0.0.1:9001\"\n",
            MOST_SESSIONS,
            self.ping_interval / MILLIS,
            if self.few_topics { 4 } else { 1_000 },
        );
        for (name, settings) in topics {
            text += &format!("[[topic]]\nname = \"{name}/**\"\n{settings}");
        }
        text += &format!(
            "[[route]]\npath = \"/topics/*\"\ntopics = {{ subscribe = {all}, publish = {all}, presence = {all}, \
             max_subscriptions = {MOST_SUBSCRIPTIONS}, max_patterns = {MOST_PATTERNS}, {session} }}\n\
             [[route]]\npath = \"/events\"\nevents = {{ subscribe = {all}, presence = {all}, {session} }}\n\
             [[route]]\npath = \"/poll\"\npoll = {{ subscribe = {all}, presence = {all}, {session} }}\n\
             [[route]]\npath = \"/publish/*\"\npublish = {{ publish = {all}, rate = 100000{keys} }}\n"
        );
        text
    }
}

/// Of each shard.
pub(crate) const MOST_SESSIONS: usize = 120;
