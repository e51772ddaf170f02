//! What can go wrong, one kind each.

/// A kind of error. Each is counted for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[repr(u8)]
pub(crate) enum Fault {
    /// Nobody listens there.
    ConnectRefused,
    /// No connection within the time-out.
    ConnectTimeout,
    /// No connection for another reason of the network.
    ConnectFailed,
    /// This machine has no local port (or not the address) to connect from.
    NoPorts,
    /// This process may open no more descriptors, or the kernel has no memory for one.
    NoDescriptors,
    /// TLS did not come up: the certificate is not trusted, the server gave up, or what it says is not TLS.
    TlsHandshake,
    /// The server broke TLS later on.
    TlsBroken,
    /// The upgrade was answered with another status than 101.
    Refused,
    /// The answer to the upgrade breaks HTTP or RFC 6455, a wrong `Sec-WebSocket-Accept` among them.
    HandshakeInvalid,
    /// No whole answer to the upgrade within the time-out.
    HandshakeTimeout,
    /// The connection ended before the answer to the upgrade was whole.
    HandshakeClosed,
    /// Sessions that were not up when the run stopped waiting for them: for a whole time-out none had come up, a
    /// storm's time was over, or in `churn` they were due and there was no room for them.
    NotUp,
    /// The server sent a Close without being asked to.
    Closed,
    /// The server ended the connection without a Close.
    Eof,
    /// The connection was reset, or broke.
    Reset,
    /// The server broke RFC 6455.
    Garbage,
    /// An answer with other bytes than were sent.
    Corrupt,
    /// Binary was answered by text, or text by binary.
    WrongKind,
    /// Another session's message.
    Misdelivered,
    /// An answer that had come before.
    Duplicate,
    /// An answer that came after later ones.
    Reordered,
    /// No answer, though later messages were answered.
    Lost,
    /// A delivery that the server told not to come.
    Gap,
    /// A delivery, or a gap that was told of, with numbers of the server's that contradict what came.
    Misnumbered,
    /// A subscription or a publication that the server answered by an error.
    Rejected,
    /// A message to which nothing was sent.
    Unexpected,
    /// A session that got no answer for the time-out, and was ended for it.
    Stalled,
    /// Messages without an answer when their session or the run ended.
    Unanswered,
    /// Messages that were due and could not be sent before their session or the run ended, or that were due after
    /// their session was lost.
    Unsent,
    /// The server did not answer a Close in time.
    CloseTimeout,
    /// The server ended the connection instead of answering a Close.
    CloseCut,
}

impl Fault {
    /// All kinds, in the order of their numbers.
    pub(crate) const ALL: [Self; 31] = [
        Self::ConnectRefused,
        Self::ConnectTimeout,
        Self::ConnectFailed,
        Self::NoPorts,
        Self::NoDescriptors,
        Self::TlsHandshake,
        Self::TlsBroken,
        Self::Refused,
        Self::HandshakeInvalid,
        Self::HandshakeTimeout,
        Self::HandshakeClosed,
        Self::NotUp,
        Self::Closed,
        Self::Eof,
        Self::Reset,
        Self::Garbage,
        Self::Corrupt,
        Self::WrongKind,
        Self::Misdelivered,
        Self::Duplicate,
        Self::Reordered,
        Self::Lost,
        Self::Gap,
        Self::Misnumbered,
        Self::Rejected,
        Self::Unexpected,
        Self::Stalled,
        Self::Unanswered,
        Self::Unsent,
        Self::CloseTimeout,
        Self::CloseCut,
    ];

    /// Its name in JSON and in `--assert`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::ConnectRefused => "connect_refused",
            Self::ConnectTimeout => "connect_timeout",
            Self::ConnectFailed => "connect_failed",
            Self::NoPorts => "no_ports",
            Self::NoDescriptors => "no_descriptors",
            Self::TlsHandshake => "tls_handshake",
            Self::TlsBroken => "tls_broken",
            Self::Refused => "refused",
            Self::HandshakeInvalid => "handshake_invalid",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::HandshakeClosed => "handshake_closed",
            Self::NotUp => "not_up",
            Self::Closed => "closed",
            Self::Eof => "eof",
            Self::Reset => "reset",
            Self::Garbage => "garbage",
            Self::Corrupt => "corrupt",
            Self::WrongKind => "wrong_kind",
            Self::Misdelivered => "misdelivered",
            Self::Duplicate => "duplicate",
            Self::Reordered => "reordered",
            Self::Lost => "lost",
            Self::Gap => "gap",
            Self::Misnumbered => "misnumbered",
            Self::Rejected => "rejected",
            Self::Unexpected => "unexpected",
            Self::Stalled => "stalled",
            Self::Unanswered => "unanswered",
            Self::Unsent => "unsent",
            Self::CloseTimeout => "close_timeout",
            Self::CloseCut => "close_cut",
        }
    }
}

impl Fault {
    /// Why it came to that, for people.
    pub(crate) fn because(self, why: &str) -> String {
        match self {
            Self::TlsHandshake | Self::TlsBroken => format!("TLS: {why}"),
            Self::Rejected => format!("the server says: {why}"),
            Self::ConnectRefused
            | Self::ConnectTimeout
            | Self::ConnectFailed
            | Self::NoPorts
            | Self::NoDescriptors
            | Self::Refused
            | Self::HandshakeInvalid
            | Self::HandshakeTimeout
            | Self::HandshakeClosed
            | Self::NotUp
            | Self::Closed
            | Self::Eof
            | Self::Reset
            | Self::Garbage
            | Self::Corrupt
            | Self::WrongKind
            | Self::Misdelivered
            | Self::Duplicate
            | Self::Reordered
            | Self::Lost
            | Self::Gap
            | Self::Misnumbered
            | Self::Unexpected
            | Self::Stalled
            | Self::Unanswered
            | Self::Unsent
            | Self::CloseTimeout
            | Self::CloseCut => format!("{}: {why}", self.name()),
        }
    }
}

/// How often each kind was met.
#[derive(Clone, Debug, Default, serde::Deserialize, serde::Serialize)]
pub(crate) struct Faults([u64; Fault::ALL.len()]);

impl Faults {
    pub(crate) fn add(&mut self, fault: Fault, count: u64) {
        self.0[fault as usize] += count;
    }

    pub(crate) fn count(&self, fault: Fault) -> u64 {
        self.0[fault as usize]
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(count, more)| *count += more);
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// All kinds, and how often each was met.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Fault, u64)> {
        Fault::ALL.into_iter().map(|fault| (fault, self.count(fault)))
    }

    /// The kinds that were met.
    pub(crate) fn met(&self) -> impl Iterator<Item = (Fault, u64)> {
        self.all().filter(|(_, count)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_stands_in_its_place_with_a_name_of_its_own() {
        let mut faults = Faults::default();
        for (place, fault) in Fault::ALL.into_iter().enumerate() {
            assert_eq!(fault as usize, place);
            assert!(Fault::ALL[..place].iter().all(|other| other.name() != fault.name()));
            faults.add(fault, place as u64);
        }
        assert_eq!(faults.met().count(), Fault::ALL.len() - 1);
        assert_eq!(faults.total(), (0..31).sum::<u64>());
    }
}
