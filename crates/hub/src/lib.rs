//! Where a message goes: routes and topics. No I/O, clock, thread or random source: time, bytes and seeds are arguments.
//!
//! # Routes
//!
//! [`Routes`] is built once from a valid configuration and shared; [`Routes::lookup`] is a pure function of the
//! request's authority, path and subprotocols. It knows no kernel, no clock and no bytes of a message.
//!
//! ```
//! use tidegate_hub::Routes;
//!
//! let config = tidegate_config::embedded();
//! let routes = Routes::new(&config);
//! let (id, route) = routes.lookup("localhost:9001", "/echo", std::iter::empty()).unwrap();
//! assert_eq!(routes.all().nth(id.index()), Some((id, route)));
//! assert!(routes.lookup("localhost:9001", "/other", std::iter::empty()).is_none());
//! ```
//!
//! # Topics
//!
//! Each shard has one [`Hub`]. A topic has a home, by the hash of its name: that shard's hub gives its publications their offsets
//! and keeps its history, its presence and its idempotency keys. Each hub with subscribers of the topic has the list of them.
//!
//! ```text
//! publisher's shard ──Publish──► home ──Deliver──► shards with subscribers ──► outboxes
//! subscriber's shard ──Subscribe──► home ──Subscribed──► subscriber's shard
//! ```
//!
//! Hubs write each other [`Letter`]s, which their shards carry in order. So what comes behind the answer to a subscription is
//! behind its position, and what is left out because a queue is full is followed by a gap. A [`Publication`] is made once and
//! shared; so is each [frame](Publication::frame) that it becomes, by class of its receivers.
//!
//! What a topic keeps of its past is behind [`Store`] and [`History`], so that a broker can keep it in the place of memory.
//!
//! What topics promise is in [`delivery`], as a checker of what happened.
#![forbid(unsafe_code)]

pub mod arena;
mod backlog;
pub mod delivery;
mod growth;
mod history;
mod home;
mod hub;
mod journal;
mod late;
mod letter;
mod local;
mod member;
mod members;
mod pattern_index;
pub mod planted;
mod post;
mod presence;
pub mod protocol;
mod publication;
mod routes;
mod rules;
mod store;
mod topic;

pub use self::{
    history::Recent,
    hub::{BatchId, CatchUp, Counts, Fate, Hub},
    letter::{Ask, Letter, Present, Refused, Reply, Stay, Ticket},
    member::{ClientId, MemberId, MemberRules, Subscriber, SubscriptionId},
    publication::{
        Class, Envelope, Format, GapReason, Kind, PUBLICATION_COST, Publication, Publish, Publisher,
    },
    routes::{MAX_OFFERS, RouteId, Routes},
    rules::{Incompatible, Limits, Rule, RuleId, Slow, TopicRules, TopicSettings},
    store::{History, Memory, Store},
    topic::{
        Epoch, Filter, NAME_BYTES, NAME_SEGMENTS, NameError, NotAnEpoch, PATTERN_STARS, Pattern, Position,
        TopicName,
    },
};

/// The most clients, and bytes of their names and of what they say of themselves, that an answer about presence lists.
pub const PRESENCE_LISTED: usize = 1_000;
/// See [`PRESENCE_LISTED`].
pub const PRESENCE_LISTED_BYTES: usize = 256 << 10;
/// The most publications, and bytes of them, that an answer about history has.
pub const HISTORY_LISTED: u32 = 1_000;
/// See [`HISTORY_LISTED`].
pub const HISTORY_LISTED_BYTES: usize = 256 << 10;
