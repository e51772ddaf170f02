//! TLS on a connection that a listener accepted, or on one to an upstream.
//!
//! A client's state stands at the head of a request while the handshake goes on, and has its deadline; that of a leg is being
//! dialed.

use tidegate_io::ListenerId;
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
    /// Where the client came in; nothing towards upstreams.
    listener: Option<ListenerId>,
    /// Its listener lets clients in by other rules than when this one came.
    is_outdated: bool,
    /// Until when the client's certificates are good, in seconds since 1970, once somebody has asked.
    good_until: Option<u64>,
}

impl Tls {
    /// The server's side.
    pub(crate) fn new(config: &ServerConfig, listener: ListenerId) -> Tls {
        Tls { listener: Some(listener), ..Tls::of(Session::server(config)) }
    }

    fn of(session: Session) -> Tls {
        Tls {
            session,
            unwelcome: None,
            has_answered: false,
            listener: None,
            is_outdated: false,
            good_until: None,
        }
    }

    /// The client's side, towards a server whose certificate must be for `name`. Nothing where the configuration or the name cannot
    /// be used.
    pub(crate) fn client(config: &ClientConfig, name: &str) -> Option<Tls> {
        Some(Tls::of(Session::client(config, name).ok()?))
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

    /// Some listeners let clients in by other rules from now on.
    pub(crate) fn outdate(&mut self, listeners: &[ListenerId]) {
        self.is_outdated |= self.listener.is_some_and(|own| listeners.contains(&own));
    }

    /// Whether the client came in by rules that are none any more.
    #[inline]
    pub(super) fn is_outdated(&self) -> bool {
        self.is_outdated
    }

    /// Whether some certificate that the client has shown is over. `unix_seconds` is asked where it has shown any.
    pub(crate) fn is_over(&mut self, unix_seconds: impl FnOnce() -> u64) -> bool {
        let session = &self.session;
        let until = *self.good_until.get_or_insert_with(|| session.peer_good_until(0).unwrap_or(u64::MAX));
        until != u64::MAX && unix_seconds() > until
    }

    /// The listener by whose rules the client has to be judged anew; nothing where it is as good as it was.
    pub(crate) fn doubtful(&mut self, unix_seconds: impl FnOnce() -> u64) -> Option<ListenerId> {
        self.listener.filter(|_| self.is_outdated || self.is_over(unix_seconds))
    }

    /// Judges the client anew; whether it is as good as those who come now.
    pub(crate) fn judge_anew(&mut self, config: &ServerConfig, unix_seconds: u64) -> bool {
        let is_good = self.session.judge_peer(config).is_ok();
        if is_good {
            self.is_outdated = false;
            // What is over by now of its chain was not needed: another way leads to an authority.
            self.good_until = Some(self.session.peer_good_until(unix_seconds).unwrap_or(u64::MAX));
        }
        is_good
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
