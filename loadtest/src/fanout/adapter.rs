//! How servers are told to publish and to subscribe.

mod tidegate;

use std::fmt;

use tidegate_wire::message::Kind;

use self::tidegate::Tidegate;

/// What a server of publish and subscribe makes of sessions, publishing and deliveries.
///
/// Every subscriber subscribes to one topic; a publisher publishes on one, or on several where a message
/// [can name its topic](AdapterName::names_topics). A protocol that asks for a topic by its path needs
/// [`path`](Self::path) alone. One that asks by messages (`subscribe X`, answered by `subscribed X`; `publish X ...`)
/// gives that message by [`subscription`](Self::subscription), puts what is published into its envelope by
/// [`wrap`](Self::wrap), and tells by [`unwrap`](Self::unwrap) what came: a session that has asked is up when it has
/// been told so. To add one: implement this, and name it in [`AdapterName`].
///
/// Topics' names are ASCII letters, digits and `_`.
pub(crate) trait Adapter: fmt::Debug + Sync {
    /// The subprotocol that sessions offer.
    fn subprotocol(&self) -> Option<&'static str> {
        None
    }

    /// The path of a session of this topic. `path` is the URL's.
    fn path(&self, path: &str, topic: &str) -> String {
        path.replace(TOPIC, topic)
    }

    /// What a subscriber sends first, as a text message; `None` where being connected is all that is asked.
    fn subscription(&self, topic: &str) -> Option<String> {
        let _ = topic;
        None
    }

    /// Appends to `out` what a publisher sends to have a payload of this kind published, with the number of a conflation key where it
    /// has one, and tells of what kind that is; `None` where it is just the payload.
    fn wrap(
        &self,
        topic: &str,
        kind: Kind,
        payload: &[u8],
        key: Option<u32>,
        out: &mut Vec<u8>,
    ) -> Option<Kind> {
        let _ = (topic, kind, payload, key, out);
        None
    }

    /// What a message from the server is to a session of this topic. `scratch`: memory for a payload that does not stand in
    /// the message as it is.
    fn unwrap<'a>(
        &self,
        topic: &str,
        kind: Kind,
        message: &'a [u8],
        scratch: &'a mut Vec<u8>,
    ) -> Incoming<'a> {
        let _ = (topic, scratch);
        Incoming::Delivery { kind, payload: message, offset: None }
    }
}

/// A message from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Incoming<'a> {
    /// What someone published, as this kind, and its place in the topic where the protocol tells it.
    Delivery { kind: Kind, payload: &'a [u8], offset: Option<u64> },
    /// The subscription is there. What comes has greater offsets than this one.
    Subscribed { offset: Option<u64> },
    /// What has these offsets, the last one included, will not come.
    Gap { from: u64, to: u64 },
    /// The server does not do what it was asked for. This says why, for people.
    Rejected { why: &'a [u8] },
    /// What someone published on another topic.
    Foreign,
    /// Something that the protocol does not have.
    Garbled,
    /// Something else, of no interest.
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
    /// The protocol tidegate.v1: a publisher may have several topics; deliveries are judged by their offsets too
    Tidegate,
}

impl AdapterName {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Broadcast => "broadcast",
            Self::Nchan => "nchan",
            Self::Tidegate => "tidegate",
        }
    }

    pub(crate) fn adapter(self) -> &'static dyn Adapter {
        match self {
            Self::Broadcast => &Broadcast,
            Self::Nchan => &Nchan,
            Self::Tidegate => &Tidegate,
        }
    }

    /// Whether there can be more than one topic with this URL's path.
    pub(crate) fn has_topics(self, path: &str) -> bool {
        match self {
            Self::Broadcast => false,
            Self::Nchan => path.contains(TOPIC),
            Self::Tidegate => true,
        }
    }

    /// Whether each message names its topic, so that a publisher can publish on several.
    pub(crate) const fn names_topics(self) -> bool {
        match self {
            Self::Broadcast | Self::Nchan => false,
            Self::Tidegate => true,
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
        assert!(AdapterName::Tidegate.has_topics("/topics"));
    }
}
