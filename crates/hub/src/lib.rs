//! Where a message goes: routes and topics.
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
//! assert_eq!(routes.route(id), route);
//! assert!(routes.lookup("localhost:9001", "/other", std::iter::empty()).is_none());
//! ```
#![forbid(unsafe_code)]

mod backlog;
pub mod delivery;
mod history;
mod home;
mod hub;
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
mod topic;

pub use self::{
    hub::{BatchId, CatchUp, Counts, Fate, Hub},
    letter::{Ask, Letter, Present, Refused, Reply, Ticket},
    member::{ClientId, MemberId, MemberRules, Subscriber, SubscriptionId},
    publication::{Class, Envelope, Format, GapReason, Kind, PUBLICATION_COST, Publication, Publish},
    routes::{MAX_OFFERS, RouteId, Routes},
    rules::{Limits, Rule, RuleId, Slow, TopicRules, TopicSettings},
    topic::{Epoch, Filter, NAME_BYTES, NAME_SEGMENTS, NameError, NotAnEpoch, Pattern, Position, TopicName},
};

/// The most clients that an answer about presence lists.
pub const PRESENCE_LISTED: usize = 1_000;
/// The most publications, and bytes of them, that an answer about history has.
pub const HISTORY_LISTED: u32 = 1_000;
/// See [`HISTORY_LISTED`].
pub const HISTORY_LISTED_BYTES: usize = 256 << 10;
