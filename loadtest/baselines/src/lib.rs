//! What the echoes of this package share: `fastwebsockets-echo`, `tokio-tungstenite-echo` and `tokio-uring-echo PORT`.
//!
//! Each is what its library offers at its best for an echo on one thread: no compression, no limits of their own,
//! TCP without delay. They print where they listen; port 0 is one of the system's choice.
#![forbid(unsafe_code)]

#[path = "../../../crates/io/examples/bare/listener.rs"]
pub mod listener;
#[path = "../../../crates/io/examples/bare/session.rs"]
pub mod session;

use std::io;

use tokio::runtime;

/// A runtime of one thread.
///
/// # Errors
/// Where the system refuses.
pub fn one_thread() -> io::Result<runtime::Runtime> {
    runtime::Builder::new_current_thread().enable_io().build()
}
