//! The opening handshake of RFC 6455 §4, both sides of it.
//!
//! Server: [`upgrade`] judges a request, [`switching_protocols`] writes the 101. Client: [`client_request`] writes
//! the request, [`verify_response`] judges the answer. Nothing is a tunnel before one of the two judgements was good.
//! Origins are judged by [`origin_allowed`]; what a proxy must not pass on is told by [`is_hop_by_hop`] and left out
//! by [`forwarded_fields`].

mod accept;
mod client;
mod hop;
mod origin;
mod server;

pub use accept::accept_key;
pub use client::{Agreed, Offer, client_request, verify_response};
pub use hop::{forwarded_fields, is_hop_by_hop};
pub use origin::{OriginError, OriginRule, origin_allowed, same_origin};
pub use server::{Accepted, Upgrade, switching_protocols, upgrade};
