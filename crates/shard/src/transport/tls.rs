//! TLS on a connection that a listener accepted, or on one to an upstream.
//!
//! A client's state stands at the head of a request while the handshake goes on, and has its deadline; that of a leg is being
//! dialed.

use tidegate_tls::{Cause, ClientConfig, ServerConfig, Session, Subject};
use tidegate_wire::http::Refusal;

use super::{Behind, Unsealable};

/// One connection's TLS.
pub(crate) struct Tls {
    session: Session,
    /// Why it may not come in: it is told when it can be.
    pub(crate) unwelcome: Option<&'static Refusal>,
    /// The handshake goes on behind this end's answer.
    pub(crate) has_answered: bool,
}

impl Tls {
    /// The server's side.
    pub(crate) fn new(config: &ServerConfig) -> Tls {
        Tls { session: Session::server(config), unwelcome: None, has_answered: false }
    }

    /// The client's side, towards a server whose certificate must be for `name`. Nothing where the configuration or the name cannot
    /// be used.
    pub(crate) fn client(config: &ClientConfig, name: &str) -> Option<Tls> {
        Some(Tls { session: Session::client(config, name).ok()?, unwelcome: None, has_answered: false })
    }

    #[inline]
    pub(crate) fn is_handshaking(&self) -> bool {
        self.session.is_handshaking()
    }

    #[inline]
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.session.waiting_bytes()
    }

    #[inline]
    pub(super) fn held_bytes(&self) -> usize {
        self.session.held_bytes()
    }

    /// Whether what has ended the handshake took long here.
    pub(crate) fn is_end_costly(&self) -> bool {
        self.session.is_end_costly()
    }

    /// Whether the handshake is done, and neither side has failed or closed since.
    pub(crate) fn is_open(&self) -> bool {
        self.session.is_open()
    }

    /// Whether an earlier session was resumed, once that is known.
    pub(crate) fn is_resumed(&self) -> bool {
        self.session.is_resumed() == Some(true)
    }

    pub(super) fn subject(&self) -> Option<Subject> {
        self.session.peer_subject()
    }

    pub(super) fn peer_has_closed(&self) -> bool {
        self.session.peer_has_closed()
    }

    pub(super) fn open(&mut self, input: &mut [u8], plain: &mut Vec<u8>) -> Behind {
        match self.session.handle_ciphertext(input, plain) {
            Ok(()) if self.session.peer_has_closed() => Behind::End,
            Ok(()) => Behind::More,
            Err(error) if matches!(error.cause(), Cause::System | Cause::Caller) => {
                Behind::Fault("TLS: a fault on this side")
            }
            Err(error) => Behind::Fault(error.reason()),
        }
    }

    pub(super) fn give_room(&mut self, room: Vec<u8>) {
        self.session.give_room(room);
    }

    pub(super) fn seal(&mut self, plain: &[u8]) -> Result<(), Unsealable> {
        self.session.seal(plain).map_err(|_| Unsealable)
    }

    pub(super) fn has_sealed(&self) -> bool {
        !self.session.poll_transmit().is_empty()
    }

    pub(super) fn take_sealed(&mut self) -> Vec<u8> {
        self.session.take_transmit()
    }

    /// RFC 8446 §6.1: close_notify goes before the FIN.
    pub(super) fn seal_end(&mut self) -> bool {
        let is_open = self.session.is_open();
        is_open && self.session.close().is_ok()
    }
}
