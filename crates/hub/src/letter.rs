//! What hubs write to each other, and what they answer to their shards.
//!
//! Letters from one hub to another arrive in the order in which they were written, or the hub that could not write one knows.

use std::{fmt, sync::Arc};

use tidegate_registry::Key;

use crate::{
    history::OnceKey,
    member::{ClientId, MemberId},
    publication::Publication,
    topic::{Pattern, Position, TopicName},
};

/// Who asked, for the answer. Opaque to the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// The session.
    pub key: Key,
    /// The session's own number for what it asked.
    pub request: u64,
}

/// What a subscription to a topic asks for.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    /// All behind this position, if nothing of it is missing.
    pub recover: Option<Position>,
    /// The last so many publications, without `recover` or where it fails.
    pub history: u32,
    /// Joins and leaves are to come, too.
    pub watches: bool,
    /// The member is to be present in the topic under its connection's name, where the topic has presence. Where there is no
    /// room for it, it is subscribed all the same.
    pub attends: bool,
    /// Somebody is to be present there under another name, where the topic has presence, and room for it.
    pub stay: Option<Stay>,
    /// What others see of it: JSON.
    pub info: Option<Box<str>>,
    /// The topic is to be remembered for a while behind its last subscriber, whatever it keeps: who asks comes and goes.
    pub returns: bool,
}

impl Ask {
    /// What it says of who is there.
    fn bytes(&self) -> usize {
        let name = self.stay.as_ref().map_or(0, |stay| stay.client.len());
        name + self.info.as_ref().map_or(0, |info| info.len())
    }
}

/// A name that who asks has given itself, as the connection does not last, and how long it is there by that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stay {
    /// No connection's name: see [`ClientId::is_one`].
    pub client: Box<str>,
    /// The session whose request it is: [`Hub::depart`](crate::Hub::depart) names it, too.
    pub key: Key,
    /// In milliseconds; [`u64::MAX`]: until it departs.
    pub until_ms: u64,
}

/// Why something was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refused {
    /// The member is subscribed to this topic or pattern, or has asked to be.
    AlreadySubscribed,
    /// It is not.
    NotSubscribed,
    /// It has ended its subscription before this answer came: nobody's mistake.
    Withdrawn,
    /// It has as many subscriptions, or patterns, as it may.
    TooManySubscriptions,
    /// The process has as many subscriptions as it may.
    TooManyInProcess,
    /// There are as many topics as there may be.
    TooManyTopics,
    /// The payload is larger than the topic takes.
    TooLarge,
    /// The topic keeps no history.
    NoHistory,
    /// The topic has no presence.
    NoPresence,
    /// A queue or the memory is full: try again.
    Busy,
}

impl Refused {
    /// As the protocol has it.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::AlreadySubscribed => "already_subscribed",
            Self::NotSubscribed | Self::Withdrawn => "not_subscribed",
            Self::TooManySubscriptions | Self::TooManyInProcess | Self::TooManyTopics => "too_many",
            Self::TooLarge => "too_large",
            Self::NoHistory => "no_history",
            Self::NoPresence => "no_presence",
            Self::Busy => "busy",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AlreadySubscribed => "already subscribed",
            Self::NotSubscribed => "not subscribed",
            Self::Withdrawn => "not subscribed: ended before it was answered",
            Self::TooManySubscriptions => "this session has as many subscriptions as it may",
            Self::TooManyInProcess => "this gateway has as many subscriptions as it may",
            Self::TooManyTopics => "this gateway has as many topics as it may",
            Self::TooLarge => "the message is larger than this topic takes",
            Self::NoHistory => "this topic keeps no history",
            Self::NoPresence => "this topic has no presence",
            Self::Busy => "the gateway is busy: try again",
        })
    }
}

impl std::error::Error for Refused {}

/// Who is present in a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Present {
    /// Who.
    pub client: Box<str>,
    /// What they say of themselves: JSON.
    pub info: Option<Box<str>>,
}

/// The answer to what was asked with a [`Ticket`].
#[derive(Clone, Debug)]
pub enum Reply {
    /// The member gets all behind `position`, and `first` before.
    Subscribed {
        /// Who is subscribed.
        member: MemberId,
        /// To what.
        topic: TopicName,
        /// Where it begins.
        position: Position,
        /// Whether nothing is missing since the position that it had; `None` where it had none.
        recovered: Option<bool>,
        /// Where the member has the topic by a pattern as well, and something of that is among `first`: up to where it came by then.
        pattern_offset: Option<u64>,
        /// What comes first, in order of offset: what was missed, or what history and state have. There may be gaps among it.
        first: Vec<Arc<Publication>>,
    },
    /// It was published, or had been.
    Published {
        /// Where.
        topic: TopicName,
        /// Its position.
        position: Position,
        /// Whether its idempotency key was used before: then the position is that of the first.
        duplicate: bool,
    },
    /// Who is there.
    Presence {
        /// Where.
        topic: TopicName,
        /// How many.
        count: u64,
        /// At most [`PRESENCE_LISTED`](crate::PRESENCE_LISTED) of them, and as many bytes as
        /// [`PRESENCE_LISTED_BYTES`](crate::PRESENCE_LISTED_BYTES) says.
        clients: Vec<Present>,
    },
    /// What the topic keeps.
    History {
        /// Which topic.
        topic: TopicName,
        /// Where it is now; [`Position::NOWHERE`] where it does not exist.
        position: Position,
        /// Oldest first.
        messages: Vec<Arc<Publication>>,
    },
    /// What the topic is like now.
    State {
        /// Which topic.
        topic: TopicName,
        /// Where it is now; [`Position::NOWHERE`] where it does not exist.
        position: Position,
        /// Subscriptions to its name, on all shards.
        subscribers: u64,
        /// Publications in its history.
        history: u64,
        /// Who is there, where that was asked for and the topic knows it: how many, and where names were wanted those.
        present: Option<(u64, Option<Vec<Present>>)>,
    },
    /// It was not done.
    Refused {
        /// Where.
        topic: TopicName,
        /// Why.
        why: Refused,
    },
}

/// A letter from one shard's hub to another's.
#[derive(Debug)]
pub struct Letter(pub(crate) Note);

/// What it says. To a home: what shards want of a topic; from a home: what they get.
#[derive(Debug)]
pub(crate) enum Note {
    Subscribe(Box<SubscribeNote>),
    Unsubscribe {
        topic: TopicName,
        watched: bool,
        attended: Option<ClientId>,
    },
    /// Who is subscribed goes on, and is not present any more.
    Absent {
        topic: TopicName,
        client: ClientId,
    },
    /// A shard wants what a pattern stands for; the number comes back when the home has noted it.
    Interest {
        pattern: Pattern,
        number: u64,
    },
    Disinterest(Pattern),
    Publish(Box<PublishNote>),
    Depart(Box<DepartNote>),
    Ask(Box<AskNote>),
    /// Asks to give up what is kept, or says how that went.
    GiveUp(GiveUpNote),
    /// No shard has anything more to give up, and there is no memory.
    Shortage,

    Subscribed(Box<SubscribedNote>),
    NotSubscribed {
        request: u32,
        why: Refused,
    },
    Interested {
        pattern: Pattern,
        number: u64,
    },
    Deliver(Arc<Publication>),
    Reply(Box<(Ticket, Reply)>),
}

/// There was no memory. It goes from shard to shard, and back to the first of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GiveUpNote {
    /// The shard that had none.
    pub(crate) origin: u16,
    /// For so many bytes more.
    pub(crate) bytes: usize,
    /// All that were asked have given up all that they had, and none was left out: nobody had room meanwhile.
    pub(crate) is_all: bool,
}

#[derive(Debug)]
pub(crate) struct SubscribeNote {
    pub(crate) request: u32,
    pub(crate) topic: TopicName,
    pub(crate) client: ClientId,
    pub(crate) ask: Ask,
}

/// What of a publication's outcome its ticket is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tells {
    All,
    Refusals,
}

#[derive(Debug)]
pub(crate) struct PublishNote {
    pub(crate) ticket: Option<Ticket>,
    pub(crate) tells: Tells,
    pub(crate) publication: Arc<Publication>,
    pub(crate) once: Option<OnceKey>,
}

#[derive(Debug)]
pub(crate) struct DepartNote {
    pub(crate) topic: TopicName,
    pub(crate) client: Box<str>,
    pub(crate) key: Key,
    pub(crate) until_ms: u64,
}

#[derive(Debug)]
pub(crate) struct AskNote {
    pub(crate) ticket: Ticket,
    pub(crate) topic: TopicName,
    pub(crate) question: Question,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Question {
    History {
        limit: u32,
        before: Option<u64>,
    },
    Presence,
    /// Where `presence` stands, also who is there, and so many of them by name.
    State {
        presence: Option<u32>,
    },
}

#[derive(Debug)]
pub(crate) struct SubscribedNote {
    pub(crate) request: u32,
    pub(crate) position: Position,
    /// The member's connection is present.
    pub(crate) attends: bool,
    pub(crate) recovered: Option<bool>,
    pub(crate) first: Vec<Arc<Publication>>,
}

impl Note {
    /// The payload that waits with it.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Deliver(publication) => publication.bytes(),
            Self::Publish(note) => note.publication.bytes(),
            Self::Subscribe(note) => note.ask.bytes(),
            Self::Depart(note) => note.client.len(),
            Self::Unsubscribe { .. }
            | Self::Absent { .. }
            | Self::Interest { .. }
            | Self::Disinterest(_)
            | Self::Ask(_)
            | Self::GiveUp(_)
            | Self::Shortage
            | Self::Subscribed(_)
            | Self::NotSubscribed { .. }
            | Self::Interested { .. }
            | Self::Reply(_) => 0,
        }
    }
}
