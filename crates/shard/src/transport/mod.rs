//! What stands between the bytes on the socket and those that `wire` reads.
//!
//! Plain sessions pay one comparison. A sealed transport (TLS; records with a check in the simulator) opens what arrives
//! and seals what leaves. It seals as late as may be: what a session sends past its outbox becomes records right before
//! the turn's system call, as many messages in one as fit. What waits in an outbox is sealed already, and never again, so a
//! remainder is kept as it is.

#[cfg(feature = "record-transport")]
pub(crate) mod record;
pub(crate) mod tls;

use tidegate_tls::Subject;

use self::tls::Tls;

/// A session's transport.
pub(crate) enum Transport {
    /// The bytes are what they are.
    Plain,
    /// TLS: the server towards clients, the client towards upstreams.
    Tls(Box<Tls>),
    /// Test-only records: proof of the seam.
    #[cfg(feature = "record-transport")]
    Record(Box<record::Record>),
}

/// What is behind opened bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behind {
    /// More, some time.
    More,
    /// The peer has said that it sends nothing more.
    End,
    /// Nothing that could be opened, and why.
    Fault(&'static str),
}

/// A transport's keys are used up, or it is not open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unsealable;

impl Transport {
    /// Whether what is sent must be sealed and what comes must be opened.
    #[inline]
    pub(crate) fn seals(&self) -> bool {
        !matches!(self, Transport::Plain)
    }

    /// Whether nothing can be sealed yet.
    #[inline]
    pub(crate) fn is_handshaking(&self) -> bool {
        match self {
            Transport::Plain => false,
            Transport::Tls(tls) => tls.is_handshaking(),
            #[cfg(feature = "record-transport")]
            Transport::Record(_) => false,
        }
    }

    /// Whether the peer's next request has its certificates judged anew.
    #[inline]
    pub(crate) fn is_outdated(&self) -> bool {
        match self {
            Transport::Plain => false,
            Transport::Tls(tls) => tls.is_outdated(),
            #[cfg(feature = "record-transport")]
            Transport::Record(_) => false,
        }
    }

    /// Bytes of the peer's that came and are not whole enough to be opened.
    #[inline]
    pub(crate) fn waiting_bytes(&self) -> usize {
        match self {
            Transport::Plain => 0,
            Transport::Tls(tls) => tls.waiting_bytes(),
            #[cfg(feature = "record-transport")]
            Transport::Record(_) => 0,
        }
    }

    /// The heap that those bytes take.
    #[inline]
    pub(crate) fn held_bytes(&self) -> usize {
        match self {
            Transport::Plain => 0,
            Transport::Tls(tls) => tls.held_bytes(),
            #[cfg(feature = "record-transport")]
            Transport::Record(_) => 0,
        }
    }

    /// Whether this end speaks TLS with the peer.
    #[inline]
    pub(crate) fn is_tls(&self) -> bool {
        matches!(self, Transport::Tls(_))
    }

    /// Who the peer is, by the certificate that was verified.
    pub(crate) fn subject(&self) -> Option<Subject> {
        match self {
            Transport::Plain => None,
            Transport::Tls(tls) => tls.subject(),
            #[cfg(feature = "record-transport")]
            Transport::Record(_) => None,
        }
    }

    /// Opens all that came, into `plain`; gives it with what is behind it.
    pub(crate) fn open(&mut self, input: &mut [u8], mut plain: Vec<u8>) -> (Vec<u8>, Behind) {
        let behind = match self {
            Transport::Plain => {
                plain.extend_from_slice(input);
                Behind::More
            }
            Transport::Tls(tls) => tls.open(input, &mut plain),
            #[cfg(feature = "record-transport")]
            Transport::Record(record) => record.open(input, &mut plain),
        };
        (plain, behind)
    }

    /// Gives memory for what is sealed next, whatever it holds.
    pub(crate) fn give_room(&mut self, room: Vec<u8>) {
        match self {
            Transport::Plain => {}
            Transport::Tls(tls) => tls.give_room(room),
            #[cfg(feature = "record-transport")]
            Transport::Record(record) => record.give_room(room),
        }
    }

    /// Seals bytes, behind what was sealed and not taken yet.
    pub(crate) fn seal(&mut self, plain: &[u8]) -> Result<(), Unsealable> {
        match self {
            Transport::Plain => Err(Unsealable),
            Transport::Tls(tls) => tls.seal(plain),
            #[cfg(feature = "record-transport")]
            Transport::Record(record) => {
                record.seal(plain);
                Ok(())
            }
        }
    }

    /// Whether something is to be sent that nobody has taken yet: what was sealed, and what the transport says itself.
    pub(crate) fn has_sealed(&self) -> bool {
        match self {
            Transport::Plain => false,
            Transport::Tls(tls) => tls.has_sealed(),
            #[cfg(feature = "record-transport")]
            Transport::Record(record) => record.has_sealed(),
        }
    }

    /// Takes what is to be sent: records in their order.
    pub(crate) fn take_sealed(&mut self) -> Vec<u8> {
        match self {
            Transport::Plain => Vec::new(),
            Transport::Tls(tls) => tls.take_sealed(),
            #[cfg(feature = "record-transport")]
            Transport::Record(record) => record.take_sealed(),
        }
    }

    /// Whether the peer has said that nothing more comes, where it has to say so before its FIN. With TLS it need not: a
    /// Close frame, or the length of a body, tells whether something was cut off (RFC 8446 §6.1, RFC 6455 §7.1.5).
    pub(crate) fn has_ended(&self) -> bool {
        match self {
            Transport::Plain | Transport::Tls(_) => true,
            #[cfg(feature = "record-transport")]
            Transport::Record(record) => record.has_ended(),
        }
    }

    /// Whether nothing can be missing at the peer's FIN, whatever it is the end of. Of a stream whose end means something that is
    /// what counts: anybody can make a FIN (RFC 8446 §6.1).
    pub(crate) fn ends_in_order(&self) -> bool {
        match self {
            Transport::Plain => true,
            Transport::Tls(tls) => tls.peer_has_closed(),
            #[cfg(feature = "record-transport")]
            Transport::Record(record) => record.has_ended(),
        }
    }

    /// Seals what the peer must see before the FIN, once; tells whether there is such.
    pub(crate) fn seal_end(&mut self) -> bool {
        match self {
            Transport::Plain => false,
            Transport::Tls(tls) => tls.seal_end(),
            #[cfg(feature = "record-transport")]
            Transport::Record(record) => record.seal_end(),
        }
    }
}
