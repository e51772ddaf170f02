//! `[limits]`: what the process, a shard and a session may use. Every value is within its range and none
//! contradicts another; zero stands for "off" only where the field says so.

use crate::{AddressLimits, SessionRates};

/// The limits of the process. Those that a route may set for itself are also in [`RouteLimits`]; here they are what
/// counts before a session has a route, and on routes that set nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Client sessions in the whole process, divided over the shards; `None` where nothing was said: then
    /// [`DEFAULT_MAX_SESSIONS`], or fewer where the process may not have so many descriptors. A proxied session uses
    /// a second slot and a second descriptor for its upstream leg, which this does not count.
    pub max_sessions: Option<usize>,
    /// Bytes that may wait in the process before new sessions are refused, at least those of all topics; `None` where nothing
    /// was said: then [`DEFAULT_MEMORY_BYTES`] beside those.
    pub memory_bytes: Option<usize>,
    /// What each client address may have.
    pub addresses: AddressLimits,
    /// Entries of one cause that a shard writes to the log in a second; 0: all of them.
    pub log_entries: u32,
    /// Longest request head, from its first byte to the end of its empty line.
    pub head_bytes: usize,
    /// Longest request line; at most `head_bytes`.
    pub request_line_bytes: usize,
    /// Most fields in a head.
    pub head_fields: usize,
    /// From the first to the last byte of a head, in ms.
    pub head_timeout_ms: u64,
    /// How long a peer may take nothing while bytes wait for it, in ms.
    pub write_timeout_ms: u64,
    /// Most bytes that are read and discarded after a refusal or a Close, so that closing does not reset.
    pub linger_bytes: usize,
    /// Receive buffers of each shard: a power of two.
    pub receive_buffers: u32,
    /// Inflaters that a shard lends to messages under way.
    pub inflaters: u32,
    /// Deflaters of each shard.
    pub deflaters: u32,
    /// Memory for context takeover in the whole process; 0 means that takeover is never agreed to.
    pub takeover_bytes: usize,
    /// zlib's level, 1 to 9.
    pub compression_level: u8,
    /// Longest message, after inflating.
    pub message_bytes: usize,
    /// Most frames of one message, empty ones too.
    pub message_fragments: u32,
    /// From the first to the last byte of a message, in ms.
    pub message_timeout_ms: u64,
    /// Most control frames that a peer may send within `control_window_ms`.
    pub control_frames: u32,
    /// The window of `control_frames`, in ms.
    pub control_window_ms: u64,
    /// Buffered output above which whoever produces it is paused.
    pub outbox_soft_bytes: usize,
    /// Buffered output that is never passed, but by a message that finds nothing buffered; at least
    /// `outbox_soft_bytes`.
    pub outbox_hard_bytes: usize,
    /// A ping after this much silence, in ms; 0 means never.
    pub ping_interval_ms: u64,
    /// How long the peer may be silent after a ping, in ms.
    pub pong_timeout_ms: u64,
    /// How long the peer may take to answer a Close, in ms.
    pub close_timeout_ms: u64,
    /// Close 1001 after this long without a data message either way, in ms; 0 means never.
    pub idle_timeout_ms: u64,
    /// How fast a client may speak.
    pub rates: SessionRates,
}

/// What may wait in the process beside topics before new sessions are refused, where nothing was said.
pub const DEFAULT_MEMORY_BYTES: usize = 1 << 30;

/// Client sessions of a process that was not told how many.
pub const DEFAULT_MAX_SESSIONS: usize = 100_000;

/// Memory that one session with context takeover may take: 274 KiB to deflate and 48 KiB to inflate with the largest
/// windows, rounded up. Each shard needs so much of `takeover_bytes` to agree to it at all.
pub const SESSION_TAKEOVER_BYTES: usize = 384 << 10;

/// The limits of a session on one route: every value is filled in, from the route or else from `[limits]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteLimits {
    /// Longest message, after inflating.
    pub message_bytes: usize,
    /// Most frames of one message, empty ones too.
    pub message_fragments: u32,
    /// From the first to the last byte of a message, in ms.
    pub message_timeout_ms: u64,
    /// Most control frames that a peer may send within `control_window_ms`.
    pub control_frames: u32,
    /// The window of `control_frames`, in ms.
    pub control_window_ms: u64,
    /// Buffered output above which whoever produces it is paused.
    pub outbox_soft_bytes: usize,
    /// Buffered output that is never passed, but by a message that finds nothing buffered; at least
    /// `outbox_soft_bytes`.
    pub outbox_hard_bytes: usize,
    /// A ping after this much silence, in ms; 0 means never.
    pub ping_interval_ms: u64,
    /// How long the peer may be silent after a ping, in ms.
    pub pong_timeout_ms: u64,
    /// How long the peer may take to answer a Close, in ms.
    pub close_timeout_ms: u64,
    /// Close 1001 after this long without a data message either way, in ms; 0 means never.
    pub idle_timeout_ms: u64,
    /// How fast a client may speak.
    pub rates: SessionRates,
    /// Most sessions of the route at a time, in the whole process; `None`: as many as there are. Only routes set it.
    pub max_sessions: Option<usize>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_sessions: None,
            memory_bytes: None,
            addresses: AddressLimits::default(),
            log_entries: 100,
            head_bytes: 16 << 10,
            request_line_bytes: 8 << 10,
            head_fields: 100,
            head_timeout_ms: 10_000,
            write_timeout_ms: 30_000,
            linger_bytes: 1 << 20,
            receive_buffers: 1024,
            inflaters: 64,
            deflaters: 8,
            takeover_bytes: 64 << 20,
            compression_level: 1,
            message_bytes: 1 << 20,
            message_fragments: 131_072,
            message_timeout_ms: 30_000,
            control_frames: 100,
            control_window_ms: 10_000,
            outbox_soft_bytes: 1 << 20,
            outbox_hard_bytes: 4 << 20,
            ping_interval_ms: 25_000,
            pong_timeout_ms: 10_000,
            close_timeout_ms: 5_000,
            idle_timeout_ms: 0,
            rates: SessionRates::default(),
        }
    }
}

impl Limits {
    /// The limits of a route that sets none itself.
    #[must_use]
    pub fn route_limits(&self) -> RouteLimits {
        RouteLimits {
            message_bytes: self.message_bytes,
            message_fragments: self.message_fragments,
            message_timeout_ms: self.message_timeout_ms,
            control_frames: self.control_frames,
            control_window_ms: self.control_window_ms,
            outbox_soft_bytes: self.outbox_soft_bytes,
            outbox_hard_bytes: self.outbox_hard_bytes,
            ping_interval_ms: self.ping_interval_ms,
            pong_timeout_ms: self.pong_timeout_ms,
            close_timeout_ms: self.close_timeout_ms,
            idle_timeout_ms: self.idle_timeout_ms,
            rates: self.rates,
            max_sessions: None,
        }
    }
}

impl Default for RouteLimits {
    fn default() -> Self {
        Limits::default().route_limits()
    }
}
