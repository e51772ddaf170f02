//! One end of one connection.
//!
//! ```text
//!               Finished of both              close_notify of either
//!   Handshake ───────────────────► Open ─────────────────────────────► Open in one direction, or in none
//!       └──────────────────────────┴──────────► Failed (an alert may wait to be sent)
//! ```
//!
//! Invariant: `incoming` is what rustls has not taken: less than a record, or handshake messages that are not whole. It
//! must be shown the same bytes again each time, also when it is only asked to seal.

use std::mem;

use rustls::{
    AlertDescription, HandshakeKind, ProtocolVersion,
    client::UnbufferedClientConnection,
    pki_types::ServerName,
    server::UnbufferedServerConnection,
    unbuffered::{
        ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError, UnbufferedStatus,
    },
};

use crate::{ClientConfig, Error, ServerConfig, Subject, identity::not_after};

/// What a record adds at most to the up to 16 KiB in it: its header, a nonce and a tag of TLS 1.2 are 29 bytes.
const RECORD_EXTRA: usize = 32;
/// The most plaintext of a record (RFC 8446 §5.1).
const RECORD_MAX: usize = 16 << 10;

/// One end of one connection.
///
/// Methods: getters; `handle_*` for what happened; commands ([`seal`](Self::seal), [`close`](Self::close));
/// [`poll_transmit`](Self::poll_transmit) for what is to be sent, which changes nothing.
pub struct Session {
    connection: Connection,
    incoming: Vec<u8>,
    /// Ciphertext, of which the socket took the first `sent` bytes. Without memory when all was taken.
    outgoing: Vec<u8>,
    sent: usize,
    is_failed: bool,
    peer_has_closed: bool,
    has_closed: bool,
}

/// Either role. rustls gives each its own type, of a KiB and more.
enum Connection {
    /// A server that has heard nothing: whoever connects and says nothing is to cost nothing.
    Silent(ServerConfig),
    Client(Box<UnbufferedClientConnection>),
    Server(Box<Served>),
}

/// A server that has heard something.
struct Served {
    connection: UnbufferedServerConnection,
    /// Judges the certificates of an earlier session; nobody once it is known whether there is one.
    judge: Option<ServerConfig>,
}

/// What came of a look at the incoming bytes.
enum Step {
    /// There may be more in them.
    Again,
    /// The same, behind plaintext.
    Plaintext,
    /// There is nothing more in them.
    Rest,
    PeerClosed,
}

impl Session {
    /// A client that has its ClientHello to send. `host`: whom it wants to speak with, a name or an address (then no
    /// SNI is sent: RFC 6066 §3).
    ///
    /// # Errors
    /// Where `host` is neither.
    pub fn client(config: &ClientConfig, host: &str) -> Result<Self, Error> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| Error::NAME)?;
        let connection = UnbufferedClientConnection::new(config.0.clone(), name)?;
        let mut session = Self::new(Connection::Client(Box::new(connection)));
        session.process(&mut [], &mut Vec::new())?;
        Ok(session)
    }

    /// A server that waits for a ClientHello, and takes next to no memory before it hears something.
    #[must_use]
    pub fn server(config: &ServerConfig) -> Self {
        Self::new(Connection::Silent(config.clone()))
    }

    fn new(connection: Connection) -> Self {
        Self {
            connection,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            sent: 0,
            is_failed: false,
            peer_has_closed: false,
            has_closed: false,
        }
    }

    /// Whether plaintext may be sealed: the handshake is done, and this side has not closed.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.is_failed && !self.has_closed && !self.connection.is_handshaking()
    }

    /// Whether the handshake still goes on: neither done nor failed.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        !self.is_failed && self.connection.is_handshaking()
    }

    /// Whether the peer has said that it sends nothing more. Where an end of the stream comes before that, it may have been
    /// cut short by others (RFC 8446 §6.1).
    #[must_use]
    pub fn peer_has_closed(&self) -> bool {
        self.peer_has_closed
    }

    /// The protocol that was agreed on.
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        self.connection.common()?.alpn_protocol()
    }

    /// Whether an earlier session was resumed; `None` while that is not known.
    #[must_use]
    pub fn is_resumed(&self) -> Option<bool> {
        self.connection.common()?.handshake_kind().map(|kind| kind == HandshakeKind::Resumed)
    }

    /// Version and cipher suite that were agreed on, as `TLSv1_3` and `TLS13_AES_128_GCM_SHA256`.
    #[must_use]
    pub fn suite(&self) -> Option<(&'static str, &'static str)> {
        let common = self.connection.common()?;
        Some((common.protocol_version()?.as_str()?, common.negotiated_cipher_suite()?.suite().as_str()?))
    }

    /// Who the peer is, by the certificate that was verified; `None` where it has shown none, or the handshake goes on.
    #[must_use]
    pub fn peer_subject(&self) -> Option<Subject> {
        if self.is_failed || self.is_handshaking() {
            return None;
        }
        Subject::of(self.connection.common()?.peer_certificates()?.first()?)
    }

    /// Until when the certificates that the peer has shown are good, all of them that are at `from`, in seconds since 1970; `None` where
    /// it has shown none that ends from then on.
    #[must_use]
    pub fn peer_good_until(&self, from: u64) -> Option<u64> {
        let shown = self.connection.common()?.peer_certificates()?;
        shown.iter().filter_map(not_after).map(|end| end.as_secs()).filter(|end| *end >= from).min()
    }

    /// Judges what the client has shown once more, as `config` would now in a handshake.
    ///
    /// # Errors
    /// Where it would not get in there.
    pub fn judge_peer(&self, config: &ServerConfig) -> Result<(), Error> {
        let shown = self.connection.common().and_then(|common| common.peer_certificates());
        Ok(config.judge_shown(shown.unwrap_or_default())?)
    }

    /// Whether the last step of a server's handshake took work with public keys: the client's certificates and its signature, or
    /// with TLS 1.2 the keys themselves, which are agreed on only then (RFC 5246 §7.4.7). What is resumed takes none.
    #[must_use]
    pub fn is_end_costly(&self) -> bool {
        let Some(common) = self.connection.common() else { return false };
        let is_late = common.protocol_version() == Some(ProtocolVersion::TLSv1_2);
        self.is_resumed() == Some(false) && (is_late || common.peer_certificates().is_some())
    }

    /// Bytes that came and were not taken: less than a record, or handshake messages that are not whole.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.incoming.len()
    }

    /// Heap bytes held here for [them](Self::waiting_bytes).
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.incoming.capacity()
    }

    /// Heap bytes held here for ciphertext of either direction.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.incoming.capacity() + self.outgoing.capacity()
    }

    /// Bytes came. What they hold for the caller is appended to `plaintext`, never more than they are long and what was
    /// left of a record before. `input` is overwritten.
    ///
    /// # Errors
    /// Why the session cannot go on. An alert that tells the peer may then wait to be sent; plaintext that came
    /// before is good.
    pub fn handle_ciphertext(&mut self, input: &mut [u8], plaintext: &mut Vec<u8>) -> Result<(), Error> {
        if self.is_failed || self.peer_has_closed || input.is_empty() {
            return Ok(());
        }
        if let Connection::Silent(config) = &self.connection {
            let server = UnbufferedServerConnection::new(config.tls().clone())
                .inspect_err(|_| self.is_failed = true)?;
            let served = Served { connection: server, judge: Some(config.clone()) };
            self.connection = Connection::Server(Box::new(served));
        }
        if self.incoming.is_empty() {
            let used = self.process(input, plaintext)?;
            if used < input.len() {
                self.incoming = input[used..].to_vec();
            }
            return Ok(());
        }
        let mut incoming = mem::take(&mut self.incoming);
        // What is held counts: not more than there is.
        incoming.reserve_exact(input.len());
        incoming.extend_from_slice(input);
        match self.process(&mut incoming, plaintext)? {
            0 => self.incoming = incoming,
            used if used < incoming.len() => self.incoming = incoming[used..].to_vec(),
            _ => {}
        }
        Ok(())
    }

    /// The socket took the first `count` bytes of what [`poll_transmit`](Self::poll_transmit) gave.
    ///
    /// # Panics
    /// If that is more than there were.
    pub fn handle_sent(&mut self, count: usize) {
        self.sent += count;
        assert!(self.sent <= self.outgoing.len(), "no more can be taken than there was");
        if self.sent == self.outgoing.len() {
            (self.outgoing, self.sent) = (Vec::new(), 0);
        }
    }

    /// Seals `plaintext`, to be sent after what waits already.
    ///
    /// # Errors
    /// Where the session is not [open](Self::is_open), or its keys are used up.
    pub fn seal(&mut self, plaintext: &[u8]) -> Result<(), Error> {
        if !self.is_open() {
            return Err(Error::NOT_OPEN);
        }
        let records = plaintext.len().div_ceil(RECORD_MAX);
        self.append(plaintext.len() + records * RECORD_EXTRA, Sealed::Plaintext(plaintext))
    }

    /// Tells the peer that nothing more will come (close_notify). Does nothing before the handshake is done, and the
    /// second time.
    ///
    /// # Errors
    /// Where the keys are used up.
    pub fn close(&mut self) -> Result<(), Error> {
        if !self.is_open() {
            return Ok(());
        }
        self.append(2 + RECORD_EXTRA, Sealed::CloseNotify)?;
        self.has_closed = true;
        Ok(())
    }

    /// Gives memory for what is to be sent, whatever it holds; it is used where nothing waits yet.
    pub fn give_room(&mut self, mut room: Vec<u8>) {
        if self.outgoing.is_empty() {
            room.clear();
            self.outgoing = room;
        }
    }

    /// Ciphertext that waits to be sent, all of it: whoever takes it sends it.
    #[must_use]
    pub fn take_transmit(&mut self) -> Vec<u8> {
        let mut taken = mem::take(&mut self.outgoing);
        taken.drain(..mem::take(&mut self.sent));
        taken
    }

    /// Ciphertext that waits to be sent.
    #[must_use]
    pub fn poll_transmit(&self) -> &[u8] {
        &self.outgoing[self.sent..]
    }

    /// Has rustls look at `bytes`; how many of them it took.
    fn process(&mut self, bytes: &mut [u8], plaintext: &mut Vec<u8>) -> Result<usize, Error> {
        let mut used = 0;
        loop {
            let held = self.outgoing.len();
            let rest = &mut bytes[used..];
            let (taken, step) = match &mut self.connection {
                Connection::Silent(_) => return Ok(used),
                Connection::Client(client) => {
                    step(client.process_tls_records(rest), plaintext, &mut self.outgoing)
                }
                Connection::Server(server) => {
                    step(server.connection.process_tls_records(rest), plaintext, &mut self.outgoing)
                }
            };
            used += taken;
            if let Err(error) = self.connection.judge_resumed() {
                self.is_failed = true;
                // No part of the answer to the hello goes out, so neither side has keys yet: the alert is in the clear, as that of
                // every hello that is refused.
                self.outgoing.truncate(held);
                self.outgoing.extend(alert_record(&error));
                return Err(error.into());
            }
            match step {
                // Each look costs as much as a short record's decryption. Behind plaintext nothing is left to be told where all was
                // taken: a close_notify would be a record of its own, and was not looked at yet.
                Ok(Step::Plaintext) if used == bytes.len() && !self.connection.wants_write() => {
                    return Ok(used);
                }
                Ok(Step::Again | Step::Plaintext) => {}
                Ok(Step::Rest) => return Ok(used),
                // What comes after it is not looked at (RFC 8446 §6.1).
                Ok(Step::PeerClosed) => {
                    self.peer_has_closed = true;
                    return Ok(bytes.len());
                }
                Err(error) => {
                    self.is_failed = true;
                    self.flush_alert();
                    return Err(error.into());
                }
            }
        }
    }

    /// Takes over what tells the peer of a failure. rustls must not look at the incoming bytes any more.
    fn flush_alert(&mut self) {
        while self.connection.wants_write() {
            let (_, step) = match &mut self.connection {
                Connection::Silent(_) => return,
                Connection::Client(client) => {
                    step(client.process_tls_records(&mut []), &mut Vec::new(), &mut self.outgoing)
                }
                Connection::Server(server) => {
                    step(server.connection.process_tls_records(&mut []), &mut Vec::new(), &mut self.outgoing)
                }
            };
            match step {
                Ok(Step::Again | Step::Plaintext) => {}
                Ok(Step::Rest | Step::PeerClosed) | Err(_) => return,
            }
        }
    }

    /// Appends something to what is to be sent, which takes about `room` bytes.
    fn append(&mut self, room: usize, what: Sealed<'_>) -> Result<(), Error> {
        loop {
            let status = match &mut self.connection {
                Connection::Silent(_) => return Err(Error::NOT_OPEN),
                Connection::Client(client) => {
                    write(client.process_tls_records(&mut self.incoming), &mut self.outgoing, room, &what)
                }
                Connection::Server(server) => write(
                    server.connection.process_tls_records(&mut self.incoming),
                    &mut self.outgoing,
                    room,
                    &what,
                ),
            };
            match status {
                Ok(Written::Done) => return Ok(()),
                Ok(Written::NotYet) => {}
                Err(error) => {
                    self.is_failed = true;
                    return Err(error);
                }
            }
        }
    }
}

impl Connection {
    /// `None` before anything was heard.
    fn common(&self) -> Option<&rustls::CommonState> {
        match self {
            Self::Silent(_) => None,
            Self::Client(client) => Some(client),
            Self::Server(server) => Some(&server.connection),
        }
    }

    /// Judges the certificates of an earlier session, once this one resumes it. A hello may be asked for again before (RFC 8446 §4.1.4).
    fn judge_resumed(&mut self) -> Result<(), rustls::Error> {
        let Self::Server(server) = self else { return Ok(()) };
        let Some(judge) = &server.judge else { return Ok(()) };
        let connection = &server.connection;
        let verdict = match connection.handshake_kind() {
            Some(HandshakeKind::Resumed) => judge.judge(connection.peer_certificates().unwrap_or_default()),
            // Then rustls has judged what was shown.
            _ if !connection.is_handshaking() => Ok(()),
            _ => return Ok(()),
        };
        server.judge = None;
        verdict
    }

    fn is_handshaking(&self) -> bool {
        self.common().is_none_or(rustls::CommonState::is_handshaking)
    }

    fn wants_write(&self) -> bool {
        self.common().is_some_and(rustls::CommonState::wants_write)
    }
}

/// A record with the fatal alert for a certificate that is not good (RFC 8446 §6).
fn alert_record(error: &rustls::Error) -> [u8; 7] {
    let alert = match error {
        rustls::Error::InvalidCertificate(bad) => AlertDescription::from(bad.clone()),
        _ => AlertDescription::InternalError,
    };
    [21, 3, 3, 0, 2, 2, u8::from(alert)]
}

/// What is sealed.
enum Sealed<'a> {
    Plaintext(&'a [u8]),
    CloseNotify,
}

/// Does what rustls says is to be done; how many of the bytes it has taken.
fn step<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    plaintext: &mut Vec<u8>,
    outgoing: &mut Vec<u8>,
) -> (usize, Result<Step, rustls::Error>) {
    let mut taken = status.discard;
    let step = match status.state {
        Ok(ConnectionState::ReadTraffic(mut traffic)) => {
            let mut verdict = Ok(Step::Plaintext);
            while let Some(record) = traffic.next_record() {
                match record {
                    Ok(record) => {
                        plaintext.extend_from_slice(record.payload);
                        taken += record.discard;
                    }
                    Err(error) => {
                        verdict = Err(error);
                        break;
                    }
                }
            }
            verdict
        }
        Ok(ConnectionState::EncodeTlsData(encode)) => {
            put_encoded(encode, outgoing);
            Ok(Step::Again)
        }
        Ok(ConnectionState::TransmitTlsData(transmit)) => {
            // It is kept here until it is sent, and rustls need not know when that is.
            transmit.done();
            Ok(Step::Again)
        }
        Ok(ConnectionState::PeerClosed) => Ok(Step::PeerClosed),
        Ok(
            ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) | ConnectionState::Closed,
        ) => Ok(Step::Rest),
        // Early data is neither sent nor taken here.
        Ok(_) => Err(rustls::Error::General("a state that was not asked for".into())),
        Err(error) => Err(error),
    };
    (taken, step)
}

/// Whether something was sealed.
enum Written {
    Done,
    /// rustls had something of its own to send first.
    NotYet,
}

/// Seals, once rustls is ready for it.
fn write<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    outgoing: &mut Vec<u8>,
    room: usize,
    what: &Sealed<'_>,
) -> Result<Written, Error> {
    assert_eq!(status.discard, 0, "all that came was looked at before");
    match status.state? {
        ConnectionState::WriteTraffic(mut traffic) => {
            let mut seal = |out: &mut [u8]| match what {
                Sealed::Plaintext(plaintext) => traffic.encrypt(plaintext, out),
                Sealed::CloseNotify => traffic.queue_close_notify(out),
            };
            let start = outgoing.len();
            outgoing.resize(start + room, 0);
            let mut sealed = seal(&mut outgoing[start..]);
            if let Err(EncryptError::InsufficientSize(InsufficientSizeError { required_size })) = sealed {
                outgoing.resize(start + required_size, 0);
                sealed = seal(&mut outgoing[start..]);
            }
            outgoing.truncate(start + sealed.as_ref().copied().unwrap_or(0));
            match sealed {
                Ok(_) => Ok(Written::Done),
                Err(error) => Err(rustls::Error::General(error.to_string()).into()),
            }
        }
        ConnectionState::EncodeTlsData(encode) => {
            put_encoded(encode, outgoing);
            Ok(Written::NotYet)
        }
        ConnectionState::TransmitTlsData(transmit) => {
            transmit.done();
            Ok(Written::NotYet)
        }
        _ => Err(Error::NOT_OPEN),
    }
}

/// Appends what rustls wants to be sent.
fn put_encoded<Data>(mut encode: EncodeTlsData<'_, Data>, outgoing: &mut Vec<u8>) {
    let start = outgoing.len();
    let required_size = match encode.encode(&mut []) {
        Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => required_size,
        // There is nothing in it.
        Ok(_) | Err(EncodeError::AlreadyEncoded) => return,
    };
    outgoing.resize(start + required_size, 0);
    let written = encode.encode(&mut outgoing[start..]).unwrap_or(0);
    outgoing.truncate(start + written);
}

#[cfg(test)]
mod tests;
