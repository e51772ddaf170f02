//! Sessions that are carried to an upstream: two legs, client and upstream, both in this shard's registry.
//!
//! ```text
//! client   Waiting ────────────────────────────► Paired ──► Lingering
//!             │ dial        ▲ retry                ▲ │
//! upstream  Dialing: connect ──► [TLS ──►] handshake ──► 101 verified ─► Paired ──► Lingering
//! ```
//! Nothing that the client sends is forwarded before the upstream's 101 was verified; what comes early waits: one
//! receive buffer here, and what had arrived when its reader was paused for it in the backlog. A leg that was upgraded is never used again.

mod dial;
mod messages;
mod pair;
mod request;
mod secure;
mod upstreams;

use std::sync::Arc;

use tidegate_io::Address;
use tidegate_registry::Key;
use tidegate_wire::{extension::DeflateParams, http::HeadScanner};

use crate::plan::Addresses;

pub(crate) use self::{
    request::{client_address, is_claim},
    upstreams::{Tenancy, Upstreams},
};

/// A client that waits for its upstream.
pub(crate) struct Waiting {
    /// The leg that is being dialed.
    pub(crate) leg: Option<Key>,
    /// The request as the upstream gets it; the same for every try.
    pub(crate) request: Vec<u8>,
    /// The random part of the `Sec-WebSocket-Key` in it.
    pub(crate) nonce: [u8; 16],
    /// The client's own `Sec-WebSocket-Key`.
    pub(crate) client_key: String,
    /// The subprotocols that the client offers.
    pub(crate) protocols: Vec<String>,
    /// What the gateway itself agrees to with the client (`deflate = "edge"`), if there is memory for it when the upstream has answered.
    pub(crate) edge: Option<DeflateParams>,
    /// The client's offers as forwarded (`deflate = "pass"`); empty where none.
    pub(crate) passed_offers: String,
    /// What came behind the client's head.
    pub(crate) early: Vec<u8>,
    /// The balancer's hash of the client.
    pub(crate) hash: u64,
    /// Upstreams that were tried, by their position.
    pub(crate) tried: Vec<u16>,
    /// The upstream at hand.
    pub(crate) current: Option<Attempt>,
    /// The last fault of this machine that kept an upstream from being tried; 0: none.
    pub(crate) local_fault: i32,
    /// By when an upstream must have taken the session.
    pub(crate) limit_ms: u64,
    /// The same, or by when the name that is awaited must be resolved.
    pub(crate) deadline_ms: u64,
}

impl Waiting {
    /// The heap that it holds of what the client has sent: its request, and what came behind that.
    pub(crate) fn held_bytes(&self) -> usize {
        self.request.capacity() + self.early.capacity()
    }
}

/// One upstream's turn to take a session.
pub(crate) struct Attempt {
    pub(crate) upstream: u16,
    /// Its addresses as they were when its turn began; `None` while its name is awaited.
    pub(crate) addresses: Option<Arc<Addresses>>,
    /// The position of the address that was tried first; the others follow, round.
    pub(crate) first: usize,
    /// How many addresses were tried.
    pub(crate) tried: usize,
    /// Whose turn it was among the local addresses when the present one was begun.
    pub(crate) source_turn: usize,
    /// How many local addresses were tried for the present one.
    pub(crate) sources: usize,
    /// One of its addresses has failed, by the upstream's own fault.
    pub(crate) failed: bool,
    /// One of its addresses could not be tried, by a fault of this machine.
    pub(crate) spared: bool,
}

impl Attempt {
    fn new(upstream: u16) -> Attempt {
        Attempt {
            upstream,
            addresses: None,
            first: 0,
            tried: 0,
            source_turn: 0,
            sources: 0,
            failed: false,
            spared: false,
        }
    }

    /// The address that is tried, or is to be tried next; `None` where its name is awaited.
    fn address(&self) -> Option<&Address> {
        match self.addresses.as_deref()? {
            Addresses::Known(all) => all.get((self.first + self.tried) % all.len().max(1)),
            Addresses::Unresolved => None,
        }
    }
}

/// An upstream leg before its 101.
pub(crate) struct Dialing {
    pub(crate) far: Key,
    pub(crate) upstream: u16,
    pub(crate) phase: Phase,
    pub(crate) deadline_ms: u64,
    pub(crate) scanner: HeadScanner,
    pub(crate) bytes: Vec<u8>,
    /// Interim answers (1xx) so far.
    pub(crate) interims: u8,
}

/// How far a dial has come.
pub(crate) enum Phase {
    /// The connection is being made.
    Connecting,
    /// The connection stands: the upstream's certificate is awaited, or a turn that has time for TLS.
    Securing,
    /// The request was sent: the answer's head is awaited.
    Handshake,
    /// The upstream refuses: its body is awaited.
    Refusal {
        /// Its status.
        status: u16,
        /// The answer as the client gets it, its body as far as it came.
        answer: Vec<u8>,
        /// The same where its body is too long: it is not known before it ends where that is the end of the connection.
        bare: Vec<u8>,
        /// Bytes of the body that are still to come; `None`: to the end of the connection.
        missing: Option<usize>,
    },
}

/// The payload of the gateway's own pings on proxied legs: its pong is not relayed.
pub(crate) const PING_MARK: &[u8] = b"tidegate\xf0\x9f\x8c\x8a";

/// How much of an early client's bytes waits.
pub(crate) const EARLY_BYTES: usize = tidegate_io::BUFFER_BYTES;
