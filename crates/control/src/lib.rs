//! The control plane: what the gateway does is shown, and it is told what to do, on a listener and a thread of its own.
//!
//! It shares no socket and no thread with the data plane. Shards leave their numbers in a [`Cell`](tidegate_shard::report::Cell)
//! each, at most every 250 ms and when a letter asks for it; sessions are listed and ended by letters, too. So whatever is asked
//! here, a shard does no more than copy some numbers or look at some slots.
//!
//! ```text
//! unix socket, TCP ──► server: places; peer or token ──► api ──► census, kill ──► Mail ──► Shard
//!                                                                 ├────► reload, drain ──► whoever does it
//!                                                                 └────► metrics ◄─────── Cell ◄──┘
//! ```
//! The thread runs on `tokio-uring`, whose runtime drives tokio's own; where the ring is refused, on tokio alone.
#![forbid(unsafe_code)]

pub mod api;
mod census;
pub mod client;
mod families;
mod gateway;
mod metrics;
mod names;
mod openapi;
mod operations;
mod places;
mod process;
mod pulse;
mod runtime;
mod server;

pub use census::session_id;
pub use gateway::{Certificate, Gateway, ShardWay};
pub use names::RouteNames;
pub use openapi::document;
pub use operations::{Meant, NotTaken, Operations, Outcome, Taken, changed_routes};
pub use runtime::{Control, start};
pub use server::{CONNECTIONS, Listener, REQUEST_SECONDS};
