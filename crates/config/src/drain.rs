//! `[drain]`: how sessions are asked to go, when the gateway ends and when their route has changed.

/// How fast sessions are closed that could go on otherwise, and what they are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// Closes are spread over this time, in ms; 0: all at once.
    pub window_ms: u64,
    /// What is left then is cut off, in ms from the beginning; at least `window_ms`.
    pub deadline_ms: u64,
    /// The Close code where the gateway ends: 1001 or 1012.
    pub code: u16,
    /// The Close code where a route has changed, is gone, or is drained: 1001 or 1012.
    pub route_code: u16,
    /// Each Close tells a delay of up to so many ms before the client is to connect again; 0: none is told.
    pub reconnect_delay_ms: u64,
}

/// Between the last Close and the deadline where the file says nothing else: the default of `close_timeout`, three times.
pub(crate) const GRACE_MS: u64 = 15_000;

impl Default for Drain {
    fn default() -> Self {
        let window_ms = 30_000;
        Self {
            window_ms,
            deadline_ms: window_ms + GRACE_MS,
            code: 1001,
            route_code: 1012,
            reconnect_delay_ms: 5_000,
        }
    }
}
