//! What a shard has counted: plain numbers on its own thread, which it writes to the log (debug) when it ends.

/// Counters of one shard since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections refused because all sessions' slots were taken. Of these counts of refusals each connection is in one at most,
    /// whether it is told why or not.
    pub refused_full: u64,
    /// Connections refused because the gateway ends.
    pub refused_draining: u64,
    /// Connections refused because their address had too many.
    pub refused_address_full: u64,
    /// Connections refused because their address began them too fast.
    pub refused_address_rate: u64,
    /// Requests refused because their route had too many sessions.
    pub refused_route_full: u64,
    /// Requests refused, and connections ended before they were sessions, because too much waited in memory.
    pub refused_memory: u64,
    /// Connections ended because their PROXY header was not right, or not there.
    pub proxy_headers_refused: u64,
    /// Handshakes of TLS that were completed.
    pub tls_opened: u64,
    /// Of them, those that resumed an earlier session.
    pub tls_resumed: u64,
    /// Handshakes of TLS that were not: refused, broken off, or too slow.
    pub tls_failed: u64,
    /// Times that a handshake had to wait for a later turn.
    pub tls_waited: u64,
    /// Tokens that were not believed.
    pub tokens_refused: u64,
    /// Callers that were known, by their tokens or by a hook, and lacked a claim that the route demands.
    pub claims_refused: u64,
    /// Tokens that nobody could judge, as no keys had been fetched yet.
    pub tokens_unjudged: u64,
    /// Requests that a hook has allowed.
    pub hooks_allowed: u64,
    /// Requests that a hook has denied.
    pub hooks_denied: u64,
    /// Requests refused because a hook gave no answer that can be used.
    pub hooks_failed: u64,
    /// Requests refused because as many waited for their hook as may.
    pub hooks_busy: u64,
    /// Answers of hooks that nobody waited for any more.
    pub hooks_late: u64,
    /// Sessions and requests that have ended with their tokens.
    pub tokens_expired: u64,
    /// Requests refused with a status.
    pub refused: u64,
    /// Handshakes that ended in a session.
    pub opened: u64,
    /// Sessions that have ended.
    pub ended: u64,
    /// Pages answered.
    pub pages: u64,
    /// Requests sent to `https://`.
    pub redirected: u64,
    /// Messages answered here.
    pub messages: u64,
    /// Messages of topics given to subscribers.
    pub delivered: u64,
    /// Times that a subscriber of a topic was behind by more than may wait for it.
    pub fell_behind: u64,
    /// Sessions ended because topics held more memory than they may, and they the most of it.
    pub relieved: u64,
    /// Times that a publisher's commands waited for the queue to its topic's home.
    pub held_back: u64,
    /// Bytes of messages of the topics' protocol that were parsed, those twice that were parsed again.
    pub parsed_bytes: u64,
    /// Pieces or messages carried between the legs of pairs.
    pub relayed: u64,
    /// Messages carried between the legs of pairs.
    pub relayed_messages: u64,
    /// Bytes received, of all kinds.
    pub bytes_received: u64,
    /// Protocol violations of clients.
    pub client_violations: u64,
    /// Protocol violations of upstreams.
    pub upstream_violations: u64,
    /// Pings sent by the gateway.
    pub pings: u64,
    /// Sessions given up because a ping stayed without answer.
    pub ping_timeouts: u64,
    /// Readers paused for a full far side.
    pub pauses: u64,
    /// Times that a session was not read for a while because it was too fast.
    pub rate_delayed: u64,
    /// Messages left out because their session was too fast.
    pub rate_dropped: u64,
    /// Sessions ended because they were too fast.
    pub rate_closed: u64,
    /// Received buffers that had to wait for a later turn, whole or in part.
    pub kept: u64,
    /// Sends that the kernel did not take whole.
    pub remainders: u64,
    /// Receives that found no buffer.
    pub starved: u64,
    /// Events for sessions that no longer exist.
    pub stale: u64,
    /// Messages dropped by a full outbox's policy.
    pub dropped: u64,
    /// Of them, old ones for which newer ones took their place.
    pub dropped_old: u64,
    /// Sessions closed because their outbox was full or took nothing in time.
    pub slow: u64,
    /// Upstream connections tried.
    pub dialed: u64,
    /// Upstream connections that failed.
    pub dial_failures: u64,
    /// Handshakes of TLS with upstreams that were completed.
    pub upstream_tls_opened: u64,
    /// Of them, those that resumed an earlier session.
    pub upstream_tls_resumed: u64,
    /// Handshakes of TLS with upstreams that were not: who answered was not believed, or not in time.
    pub upstream_tls_failed: u64,
}
