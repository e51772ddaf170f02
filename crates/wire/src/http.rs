//! HTTP/1.1 as far as a WebSocket gateway needs it: heads, targets, bodies with a length, refusals.
//!
//! A head is found by [`HeadScanner`] while its bytes arrive, then parsed once by [`Request::parse`] or
//! [`ResponseHead::parse`] into values that borrow from it. There is one parse and one canonical form: what was
//! matched against routes is what is forwarded. Whatever two implementations might read differently (bare LF,
//! folded lines, spaces around names, two `Host` fields, a body framed twice, paths with dots) is refused, never
//! mended, because every such difference is a way to smuggle.
//!
//! Invariant: nothing a peer sent ever stands in a [`Refusal`].

mod body;
mod date;
mod fields;
mod grammar;
mod refusal;
mod request;
mod response;
mod scan;
mod target;

pub use body::BodyReader;
pub use date::http_date;
pub use fields::Fields;
pub use grammar::{bearer, is_token};
pub use refusal::{Refusal, page_response, stream_head};
pub use request::{Request, Version, asks_for_head};
pub use response::{BadResponse, Framing, ResponseHead};
pub use scan::{HeadScanner, Scan};
pub use target::{Authority, Target};

pub(crate) use refusal::push_field;
pub(crate) use request::{UNKNOWN_METHOD, is_known_method};

/// What one head may cost. Limits refuse; they never truncate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes of the whole head, its closing empty line included.
    pub head_bytes: usize,
    /// Bytes of the request line (or status line) without its line end.
    pub request_line_bytes: usize,
    /// Field lines; every line counts, also one that repeats a name.
    pub fields: usize,
}

impl Default for HeadLimits {
    /// 16 KiB, of which the request line may take 8 KiB, and 100 fields.
    fn default() -> Self {
        Self { head_bytes: 16 * 1024, request_line_bytes: 8 * 1024, fields: 100 }
    }
}

/// Counts the bytes that the scanner and the list parsers look at, so that tests can prove linear work without a
/// clock.
pub(crate) mod work {
    #[cfg(test)]
    thread_local! {
        static EXAMINED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
    }

    /// Notes that `bytes` bytes were looked at; nothing outside unit tests.
    #[inline(always)]
    pub(crate) fn examined(bytes: usize) {
        #[cfg(test)]
        EXAMINED.with(|examined| examined.set(examined.get() + bytes));
        #[cfg(not(test))]
        let _ = bytes;
    }

    /// Bytes looked at by this thread since the last call.
    #[cfg(test)]
    pub(crate) fn take() -> usize {
        EXAMINED.with(|examined| examined.replace(0))
    }
}
