//! What goes wrong, and whose fault it is.

use std::{fmt, io, path::PathBuf};

use rustls::{AlertDescription, CertificateError, pki_types::pem};

/// Why a configuration cannot be made, or a session cannot go on.
#[derive(Debug)]
pub struct Error(Inner);

#[derive(Debug)]
enum Inner {
    Tls(rustls::Error),
    File(PathBuf, io::Error),
    Pem(PathBuf, pem::Error),
    /// The same of a text that is in no file.
    PemText(pem::Error),
    /// Nothing of the kind that was looked for.
    NoCertificate(Option<PathBuf>),
    NoRoots,
    NoIdentity,
    Name,
    NotOpen,
}

/// What it comes down to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The peer's certificate is not trusted, or not for this name, or there is none.
    Certificate,
    /// The peer gave up: the number of its alert (RFC 8446 §6).
    Alert(u8),
    /// The two have no version, cipher or protocol in common.
    Incompatible,
    /// What the peer sent is not TLS, or breaks it.
    Peer,
    /// What was asked for cannot be done: a file, a name, or a session that is not open.
    Caller,
    /// This side failed.
    System,
}

impl Error {
    /// What it comes down to.
    #[must_use]
    pub fn cause(&self) -> Cause {
        use rustls::Error as Tls;
        match &self.0 {
            Inner::File(..)
            | Inner::Pem(..)
            | Inner::PemText(_)
            | Inner::NoCertificate(_)
            | Inner::NoRoots
            | Inner::NoIdentity
            | Inner::Name
            | Inner::NotOpen => Cause::Caller,
            Inner::Tls(error) => match error {
                Tls::InvalidCertificate(_)
                | Tls::InvalidCertRevocationList(_)
                | Tls::NoCertificatesPresented
                | Tls::UnsupportedNameType => Cause::Certificate,
                Tls::AlertReceived(alert) => Cause::Alert(u8::from(*alert)),
                Tls::PeerIncompatible(_) | Tls::NoApplicationProtocol => Cause::Incompatible,
                Tls::InappropriateMessage { .. }
                | Tls::InappropriateHandshakeMessage { .. }
                | Tls::InvalidMessage(_)
                | Tls::DecryptError
                | Tls::PeerMisbehaved(_)
                | Tls::PeerSentOversizedRecord
                | Tls::InvalidEncryptedClientHello(_) => Cause::Peer,
                // rustls adds to its errors: what is not known is not the peer's fault.
                _ => Cause::System,
            },
        }
    }

    /// Why, in a few words that hold nothing of the peer's.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        use rustls::Error as Tls;
        match &self.0 {
            Inner::Tls(Tls::NoApplicationProtocol) => "no application protocol in common",
            Inner::Tls(Tls::PeerIncompatible(_)) => "no version, cipher or signature in common",
            Inner::Tls(Tls::NoCertificatesPresented) => "the client has no certificate",
            Inner::Tls(Tls::PeerSentOversizedRecord) => "a record is too long",
            Inner::Tls(Tls::DecryptError) => "a record does not open",
            Inner::Tls(Tls::InvalidCertificate(error)) => bad_certificate(error),
            Inner::Tls(Tls::AlertReceived(alert)) => alerted(*alert),
            _ => match self.cause() {
                Cause::Certificate => BAD_CERTIFICATE,
                Cause::Alert(_) => ALERTED,
                Cause::Incompatible => "nothing in common",
                Cause::Peer => "what came is not TLS, or breaks it",
                Cause::Caller => "not open",
                Cause::System => "a fault on this side",
            },
        }
    }

    pub(crate) fn file(path: &std::path::Path, error: pem::Error) -> Self {
        Self(match error {
            pem::Error::Io(error) => Inner::File(path.to_owned(), error),
            error => Inner::Pem(path.to_owned(), error),
        })
    }

    pub(crate) fn no_certificate(path: &std::path::Path) -> Self {
        Self(Inner::NoCertificate(Some(path.to_owned())))
    }

    pub(crate) fn pem(error: pem::Error) -> Self {
        Self(Inner::PemText(error))
    }

    pub(crate) const NO_CERTIFICATE: Self = Self(Inner::NoCertificate(None));
    pub(crate) const NO_IDENTITY: Self = Self(Inner::NoIdentity);

    pub(crate) const NO_ROOTS: Self = Self(Inner::NoRoots);
    pub(crate) const NAME: Self = Self(Inner::Name);
    pub(crate) const NOT_OPEN: Self = Self(Inner::NotOpen);
}

const BAD_CERTIFICATE: &str = "the peer's certificate is not good";
const ALERTED: &str = "the peer gave up with an alert";

/// What is wrong with a certificate, in words that hold nothing of it.
fn bad_certificate(error: &CertificateError) -> &'static str {
    use CertificateError as Bad;
    match error {
        Bad::Expired | Bad::ExpiredContext { .. } => "the peer's certificate has expired",
        Bad::NotValidYet | Bad::NotValidYetContext { .. } => "the peer's certificate is not valid yet",
        Bad::UnknownIssuer => "the peer's certificate is of an issuer that is not trusted",
        Bad::NotValidForName | Bad::NotValidForNameContext { .. } => {
            "the peer's certificate is for another name"
        }
        Bad::InvalidPurpose | Bad::InvalidPurposeContext { .. } => {
            "the peer's certificate is for another use"
        }
        Bad::BadSignature => "the peer's certificate has a wrong signature",
        // `ShortChains` says so too.
        Bad::BadEncoding => "the peer's certificates cannot be read, or are too many",
        Bad::Revoked => "the peer's certificate was revoked",
        // rustls adds to these.
        _ => BAD_CERTIFICATE,
    }
}

/// What a peer says that gives up, where it says more than that.
fn alerted(alert: AlertDescription) -> &'static str {
    use AlertDescription as Alert;
    match alert {
        Alert::CertificateRequired => "the peer wants a certificate (alert)",
        Alert::UnknownCA => "the peer does not trust the issuer of the certificate (alert)",
        Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateRevoked
        | Alert::CertificateExpired
        | Alert::CertificateUnknown => "the peer does not take the certificate (alert)",
        Alert::HandshakeFailure | Alert::ProtocolVersion | Alert::InsufficientSecurity => {
            "no version, cipher or signature in common (alert)"
        }
        Alert::NoApplicationProtocol => "no application protocol in common (alert)",
        Alert::UnrecognisedName => "the peer does not know the name (alert)",
        _ => ALERTED,
    }
}

impl From<rustls::Error> for Error {
    fn from(error: rustls::Error) -> Self {
        Self(Inner::Tls(error))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            // rustls's words for these are for those who know it well.
            Inner::Tls(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
                f.write_str("the certificate is of an issuer that is not trusted")
            }
            Inner::Tls(rustls::Error::InvalidCertificate(CertificateError::Other(error))) => {
                write!(f, "bad certificate: {error}")
            }
            Inner::Tls(rustls::Error::InvalidCertificate(error)) => write!(f, "bad certificate: {error}"),
            Inner::Tls(rustls::Error::AlertReceived(alert)) => write!(f, "the peer gave up: {alert:?}"),
            Inner::Tls(rustls::Error::InvalidMessage(error)) => write!(f, "what came is not TLS: {error:?}"),
            Inner::Tls(error) => error.fmt(f),
            Inner::File(path, error) => write!(f, "{}: {error}", path.display()),
            Inner::Pem(path, error) => write!(f, "{}: not a PEM file: {error}", path.display()),
            Inner::PemText(error) => write!(f, "it is not PEM: {error}"),
            Inner::NoCertificate(Some(path)) => {
                write!(f, "{}: there is no certificate in it", path.display())
            }
            Inner::NoCertificate(None) => f.write_str("there is no certificate in it"),
            Inner::NoIdentity => f.write_str("a server without a certificate"),
            Inner::NoRoots => f.write_str("this system has no store of trusted certificates"),
            Inner::Name => f.write_str("neither the name of a host nor an address"),
            Inner::NotOpen => f.write_str("the session is not open"),
        }
    }
}

impl std::error::Error for Error {}
