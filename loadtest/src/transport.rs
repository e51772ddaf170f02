//! What stands between a session and its socket.
//!
//! Most sessions have nothing there: what they send is made again where a send was cut off, so nothing is kept. What was
//! sealed cannot be sealed again. It is kept until the kernel has taken it, and nothing more is sealed before that: so a
//! session holds as much as it sealed at once, which is at most [`SEALED_BYTES`] and what TLS adds, and between
//! messages nothing. The same holds for what was deflated; there the last message may go beyond that.

use tidegate_tls::{Error, Session};

/// The most plaintext that is sealed at once: four records.
pub(crate) const SEALED_BYTES: usize = 64 << 10;

/// A session's transport.
pub(crate) enum Transport {
    /// The bytes are what they are.
    Plain,
    Sealed(Sealed),
}

/// A transport whose bytes are kept.
pub(crate) enum Sealed {
    Tls(Box<Session>),
    /// What was deflated.
    Kept(Box<Kept>),
}

/// Bytes that wait. Without memory where none do.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    bytes: Vec<u8>,
    /// Of them, those that the kernel took.
    sent: usize,
}

impl Transport {
    /// Whether bytes wait, beside what the session wants to send.
    #[inline]
    pub(crate) fn has_waiting(&self) -> bool {
        match self {
            Self::Plain => false,
            Self::Sealed(sealed) => !sealed.waiting().is_empty(),
        }
    }

    /// Whether what the session wants to send can be sent.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        match self {
            Self::Plain => true,
            Self::Sealed(sealed) => sealed.is_open(),
        }
    }
}

impl Sealed {
    pub(crate) fn is_open(&self) -> bool {
        match self {
            Self::Tls(tls) => tls.is_open(),
            Self::Kept(_) => true,
        }
    }

    /// What the kernel has not taken yet.
    pub(crate) fn waiting(&self) -> &[u8] {
        match self {
            Self::Tls(tls) => tls.poll_transmit(),
            Self::Kept(kept) => &kept.bytes[kept.sent..],
        }
    }

    /// The kernel took the first `count` bytes of it.
    pub(crate) fn handle_sent(&mut self, count: usize) {
        match self {
            Self::Tls(tls) => tls.handle_sent(count),
            Self::Kept(kept) => {
                kept.sent += count;
                if kept.sent == kept.bytes.len() {
                    **kept = Kept::default();
                }
            }
        }
    }

    /// Takes bytes over, to be sent.
    ///
    /// # Errors
    /// Where TLS can seal nothing more.
    pub(crate) fn seal(&mut self, bytes: &[u8]) -> Result<(), Error> {
        match self {
            Self::Tls(tls) => tls.seal(bytes),
            Self::Kept(kept) => {
                kept.bytes.extend_from_slice(bytes);
                Ok(())
            }
        }
    }
}
