//! RFC 6455, RFC 7692 and the HTTP/1.1 around them, without I/O.
#![forbid(unsafe_code)]

pub mod budget;
pub mod close;
pub mod deflate;
pub mod extension;
pub mod frame;
pub mod handshake;
pub mod http;
pub mod message;
pub mod proxy_protocol;
pub mod relay;
pub mod utf8;

pub use http::HeadLimits;

/// Which end of a connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Receives masked frames, sends unmasked ones.
    Server,
    /// Sends masked frames, receives unmasked ones.
    Client,
}

/// What one message may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Payload bytes of a message, after inflating.
    pub message_bytes: usize,
    /// Frames of a message, empty ones included.
    pub message_fragments: u32,
}
