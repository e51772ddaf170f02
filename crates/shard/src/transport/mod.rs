//! What stands between the bytes on the socket and those that `wire` reads.
//!
//! Plain sessions pay one comparison. A sealed transport (records with a check, TLS) opens what arrives, in place where a
//! record lies whole in the buffer, and seals what leaves; what it sealed is never sealed again, so a remainder is kept
//! as it is.

use std::ops::Range;

#[cfg(feature = "record-transport")]
pub(crate) mod record;

/// A session's transport.
pub(crate) enum Transport {
    /// The bytes are what they are.
    Plain,
    /// Test-only records: proof of the seam.
    #[cfg(feature = "record-transport")]
    Record(Box<record::Record>),
}

/// What opening has found.
#[cfg_attr(not(feature = "record-transport"), expect(dead_code, reason = "plain sessions open nothing"))]
pub(crate) enum Opened {
    /// Plain bytes at this range of the input.
    InPlace(Range<usize>),
    /// Plain bytes of a record that had come in parts.
    Carried(Vec<u8>),
    /// The rest of the input is the beginning of a record; it was taken over.
    Partial,
    /// The peer will seal nothing more.
    End,
    /// Not what the peer can have sealed.
    Broken,
}

impl Transport {
    /// Whether what is sent must be sealed and what comes must be opened.
    #[inline]
    pub(crate) fn seals(&self) -> bool {
        !matches!(self, Transport::Plain)
    }

    /// Opens what lies at `input[*at..]`, one record at a time; `at` moves past it.
    pub(crate) fn open(&mut self, input: &mut [u8], at: &mut usize) -> Opened {
        match self {
            Transport::Plain => {
                let range = *at..input.len();
                *at = input.len();
                Opened::InPlace(range)
            }
            #[cfg(feature = "record-transport")]
            Transport::Record(record) => record.open(input, at),
        }
    }

    /// Seals bytes for the wire.
    pub(crate) fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
        match self {
            Transport::Plain => plain.to_vec(),
            #[cfg(feature = "record-transport")]
            Transport::Record(record) => record.seal(plain),
        }
    }

    /// Whether the peer has said that nothing more comes, where it has to say so before its FIN.
    pub(crate) fn has_ended(&self) -> bool {
        match self {
            Transport::Plain => true,
            #[cfg(feature = "record-transport")]
            Transport::Record(record) => record.has_ended(),
        }
    }

    /// What the peer must see before the FIN, once.
    pub(crate) fn seal_end(&mut self) -> Option<Vec<u8>> {
        match self {
            Transport::Plain => None,
            #[cfg(feature = "record-transport")]
            Transport::Record(record) => record.seal_end(),
        }
    }
}
