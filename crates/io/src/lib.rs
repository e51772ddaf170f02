//! The kernel's side of Tidegate: `io_uring` and epoll behind one completion interface, [`Backend`].
//!
//! It moves bytes, and knows nothing of what they mean. One backend serves one thread.
#![deny(clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod backend;
mod buffer;
mod choose;
mod clock;
mod epoll;
mod socket;
mod uring;
mod waker;

pub use backend::{
    Address, Backend, ConnectOptions, Counters, Event, Lent, ListenerId, MAX_PIECES, ReceiveEnd, Remainder,
    Sends, Token, Wake,
};
pub use buffer::{BUFFER_BYTES, Buffer, Pool};
pub use choose::{
    Choice, Chosen, Diagnosis, Failure, Kind, Mismatch, Refused, Rung, Surroundings, choose, diagnose,
};
pub use epoll::{Epoll, EpollOptions};
pub use uring::{Uring, UringOptions};
pub use waker::Waker;
