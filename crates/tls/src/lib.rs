//! TLS without I/O: ciphertext in, plaintext out, and back.
//!
//! ```text
//!   bytes from the socket ──► Session::handle_ciphertext ──► plaintext, in a buffer of the caller's
//!   plaintext to be sent  ──► Session::seal ──┐
//!                       the handshake's own ──┴──► Session::poll_transmit ──► bytes for the socket
//! ```
//!
//! A [`Session`] is one end of one connection, a client's or a server's. It has no socket, no clock and no thread. What
//! was sealed cannot be sealed again, so it is kept until [`Session::handle_sent`] has heard that all of it was taken;
//! a caller that seals only when nothing waits holds as much as it sealed at once. Between two records, with nothing to
//! be sent, a session holds no buffer at all.
//!
//! rustls does the protocol, and none of its types is in this crate's interface: its unbuffered side, which is what is
//! used here, changes with its next version. Cryptography is aws-lc-rs (it has the post-quantum key exchange that
//! browsers use); it is built with a C compiler alone.
//!
//! ```
//! use tidegate_tls::{ClientOptions, ClientConfig, Session, Trust};
//!
//! let options = ClientOptions { trust: Trust::Nothing, alpn: vec![b"http/1.1".to_vec()], resumes: true };
//! let config = ClientConfig::new(&options)?;
//! let session = Session::client(&config, "example.com")?;
//! assert_eq!(session.poll_transmit()[0], 22, "a handshake record: the ClientHello");
//! assert!(!session.is_open());
//! # Ok::<(), tidegate_tls::Error>(())
//! ```
#![forbid(unsafe_code)]

mod chains;
mod client;
mod error;
mod identity;
mod resumable;
mod server;
mod session;
mod subject;
mod tickets;

pub use self::{
    client::{ClientConfig, ClientOptions, Trust},
    error::{Cause, Error},
    identity::{BadIdentity, Identity, Part},
    server::{Authorities, Clients, Lowest, ServerConfig, ServerOptions},
    session::Session,
    subject::Subject,
};
