//! How servers are told to publish and to subscribe.

use std::fmt;

/// What a server of publish and subscribe makes of sessions, publishing and deliveries.
///
/// Every session publishes on or subscribes to one topic. A protocol that asks for a topic by its path needs
/// [`path`](Self::path) alone. One that asks by messages (`subscribe X`, answered by `subscribed X`; `publish X ...`)
/// gives that message by [`subscription`](Self::subscription), puts what is published into its envelope by
/// [`wrap`](Self::wrap), and tells by [`unwrap`](Self::unwrap) what came: a session that has asked is up when it has
/// been told so. To add one: implement this, and name it in [`AdapterName`].
pub(crate) trait Adapter: fmt::Debug + Sync {
    /// The path of a session of this topic. `path` is the URL's.
    fn path(&self, path: &str, topic: &str) -> String {
        path.replace(TOPIC, topic)
    }

    /// What a subscriber sends first, as a text message; `None` where being connected is all that is asked.
    fn subscription(&self, topic: &str) -> Option<String> {
        let _ = topic;
        None
    }

    /// What a publisher sends to have this published; `None` where it is just that.
    fn wrap(&self, topic: &str, payload: &[u8]) -> Option<Vec<u8>> {
        let _ = (topic, payload);
        None
    }

    /// What a message from the server is.
    fn unwrap<'a>(&self, message: &'a [u8]) -> Incoming<'a> {
        Incoming::Delivery(message)
    }
}

/// A message from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Incoming<'a> {
    /// What someone published.
    Delivery(&'a [u8]),
    /// The subscription is there.
    #[allow(dead_code, reason = "for protocols that confirm; sessions are tested with one")]
    Subscribed,
    /// Something else, of no interest.
    #[allow(dead_code, reason = "for protocols that tell more; sessions are tested with one")]
    Aside,
}

/// What stands for the topic in a URL.
pub(crate) const TOPIC: &str = "{topic}";

/// The adapters that can be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum AdapterName {
    /// A server that sends what it gets to all that are connected: one topic
    Broadcast,
    /// nchan's pubsub locations and whatever else has a path for each topic: {topic} in the URL
    Nchan,
}

impl AdapterName {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Broadcast => "broadcast",
            Self::Nchan => "nchan",
        }
    }

    pub(crate) fn adapter(self) -> &'static dyn Adapter {
        match self {
            Self::Broadcast => &Broadcast,
            Self::Nchan => &Nchan,
        }
    }

    /// Whether there can be more than one topic with this URL's path.
    pub(crate) fn has_topics(self, path: &str) -> bool {
        match self {
            Self::Broadcast => false,
            Self::Nchan => path.contains(TOPIC),
        }
    }
}

/// All that is sent goes to all: Bun's and uWebSockets' example.
#[derive(Debug)]
struct Broadcast;

impl Adapter for Broadcast {
    fn path(&self, path: &str, _: &str) -> String {
        path.to_owned()
    }
}

/// A path for each topic; who is connected there publishes what it sends, and hears what others do.
#[derive(Debug)]
struct Nchan;

impl Adapter for Nchan {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_stands_in_the_path() {
        assert_eq!(AdapterName::Nchan.adapter().path("/pubsub/{topic}?x", "t1"), "/pubsub/t1?x");
        assert_eq!(AdapterName::Broadcast.adapter().path("/{topic}", "t1"), "/{topic}");
        assert!(AdapterName::Nchan.has_topics("/{topic}") && !AdapterName::Nchan.has_topics("/x"));
    }
}
