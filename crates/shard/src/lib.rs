//! One thread, one backend, one registry: the loop of the data plane.
//!
//! A [`Shard`] owns a [`Backend`](tidegate_io::Backend), the sessions that it accepted and the legs that it opened for them. Each turn
//! is one pass: wait, complete, parse where the bytes lie, decide, queue, flush; then deadlines in one batch. Nothing is
//! shared with other shards but the [`Plan`]; letters come through the [`mailbox`].
//!
//! ```text
//!            Event                     Span                 Sends
//! Backend ──────────► Shard::handle ──────────► Turn ─────────────► Backend
//!    ▲                  │ input │ echo │ proxy    │ remainder           │
//!    │                  ▼                         ▼                     │
//!    └────────────── Registry<Session> ◄──────── Outbox ◄───────────────┘
//! ```
//! It knows no socket and no clock but the backend's, and no random source but its [`Environment`]'s: `tests/sim.rs` runs
//! whole shards on a simulated backend with a seed.
#![forbid(unsafe_code)]

mod accounts;
mod addresses;
mod admission;
mod barrier;
mod bucket;
mod census;
mod counters;
mod echo;
mod ending;
mod environment;
mod generation;
mod head;
mod identity;
mod incomplete;
mod input;
mod inspect;
mod kept;
mod leaving;
pub mod log;
mod mailbox;
mod meter;
mod output;
mod pages;
mod plan;
pub mod planted;
mod proxy;
mod proxy_header;
mod redirect;
pub mod report;
mod sealing;
mod session;
mod shard;
mod stamp;
mod throttle;
mod timers;
mod topics;
mod transport;
mod turn;

pub use barrier::EndBarrier;
pub use census::{CENSUS_SLOTS, Census, Counted, Ended, SessionStage, SessionState};
pub use counters::Counters;
pub use environment::Environment;
pub use identity::{Asked, Decision, Denial, Outcome, Question};
pub use inspect::{Departing, Inspection, Legs};
pub use leaving::{Pace, Whom};
#[doc(hidden)]
pub use mailbox::mailbox_of;
pub use mailbox::{Answers, Departure, Generation, Mail, Mailbox, Sender, Undelivered, mailbox};
pub use plan::{Addresses, Changes, NamedUpstream, NoSuccessor, Plan};
pub use shard::{Progress, SPARE_SLOTS, Shard};
#[doc(no_inline)]
pub use tidegate_hub::{Counts as TopicCounts, RouteId, Slow};
pub use turn::{TURN_BUFFERS, TURN_BYTES};
