//! Sessions that are carried to an upstream: two legs, client and upstream, both in this shard's registry.
//!
//! ```text
//! client   Waiting ────────────────────────────► Paired ──► Lingering
//!             │ dial        ▲ retry                ▲ │
//! upstream  Dialing: connect ──► handshake ──► 101 verified ─► Paired ──► Lingering
//! ```
//! Nothing that the client sends is forwarded before the upstream's 101 was verified; what comes early waits, at most one
//! receive buffer of it. A leg that was upgraded is never used again.

mod dial;
mod messages;
mod pair;
mod request;
mod upstreams;

use tidegate_registry::Key;
use tidegate_wire::{extension::DeflateParams, http::HeadScanner};

pub(crate) use upstreams::Upstreams;

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
    /// What the gateway itself has agreed with the client (`deflate = "edge"`).
    pub(crate) edge: Option<DeflateParams>,
    /// The client's offers as forwarded (`deflate = "pass"`); empty where none.
    pub(crate) passed_offers: String,
    /// What came behind the client's head.
    pub(crate) early: Vec<u8>,
    /// The balancer's hash of the client.
    pub(crate) hash: u64,
    /// Upstreams that were tried, by their position.
    pub(crate) tried: Vec<u16>,
    /// The upstream at hand, and the position of the address to try next.
    pub(crate) current: Option<(u16, usize)>,
    /// By when a name must be resolved; `u64::MAX` while none is awaited.
    pub(crate) deadline_ms: u64,
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
    /// The request was sent: the answer's head is awaited.
    Handshake,
    /// The upstream refuses: its body is awaited.
    Refusal {
        /// Its status.
        status: u16,
        /// The answer as the client gets it, its body as far as it came.
        answer: Vec<u8>,
        /// Bytes of the body that are still to come; `None`: to the end of the connection.
        missing: Option<usize>,
    },
}

/// The payload of the gateway's own pings on proxied legs: its pong is not relayed.
pub(crate) const PING_MARK: &[u8] = b"tidegate\xf0\x9f\x8c\x8a";

/// How much of an early client's bytes waits.
pub(crate) const EARLY_BYTES: usize = tidegate_io::BUFFER_BYTES;
