//! A certificate chain and its key, found to fit together.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{
    InconsistentKeys,
    pki_types::{
        CertificateDer, PrivateKeyDer, UnixTime,
        pem::{self, PemObject},
    },
    sign::CertifiedKey,
};
use webpki::{EndEntityCert, KeyUsage};

use crate::client::provider;

/// Who a server is: its chain of certificates and the key of the first.
#[derive(Clone)]
pub struct Identity {
    pub(crate) certified: Arc<CertifiedKey>,
    /// The DNS names that it is good for, in lower case; with `*.` for one label.
    pub(crate) names: Vec<String>,
    not_after: SystemTime,
}

/// Why a chain and a key are no identity.
#[derive(Debug)]
pub struct BadIdentity(Inner);

#[derive(Debug)]
enum Inner {
    NoCertificate,
    ChainPem(pem::Error),
    Certificate(webpki::Error),
    NotYet(SystemTime),
    Expired(SystemTime),
    NoKey,
    SealedKey,
    KeyPem(pem::Error),
    Key(rustls::Error),
    Foreign,
}

/// Which of the two it is that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The chain of certificates.
    Chain,
    /// The key.
    Key,
}

/// The far end of the times that certificates have (RFC 5280 §4.1.2.5): 9999-12-31 23:59:59.
const END_OF_TIME: Duration = Duration::from_secs(253_402_300_799);

impl Identity {
    /// Of two PEM texts: the certificate, with those that it was signed with behind it, and its key (PKCS #8, PKCS #1 or
    /// SEC 1). The certificate must be valid at `now`; whether anybody trusts it is not asked.
    ///
    /// # Errors
    /// Where one of the two cannot be used, or they do not belong together.
    pub fn from_pem(chain: &[u8], key: &[u8], now: SystemTime) -> Result<Self, BadIdentity> {
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>().map_err(Inner::ChainPem)?;
        let first = chain.first().ok_or(Inner::NoCertificate)?.clone();
        let first = EndEntityCert::try_from(&first).map_err(Inner::Certificate)?;
        let not_after = validity(&first, now)?;
        let mut names: Vec<String> = first.valid_dns_names().map(str::to_ascii_lowercase).collect();
        names.sort_unstable();
        names.dedup();
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
            pem::Error::NoItemsFound if is_sealed(key) => Inner::SealedKey,
            pem::Error::NoItemsFound => Inner::NoKey,
            error => Inner::KeyPem(error),
        })?;
        let key = provider().key_provider.load_private_key(key).map_err(Inner::Key)?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
                return Err(Inner::Foreign.into());
            }
            Err(error) => return Err(Inner::Key(error).into()),
        }
        Ok(Self { certified: Arc::new(certified), names, not_after })
    }

    /// The DNS names that it is good for, in lower case, sorted; with `*.` for one label.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// When its certificate expires.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }
}

/// When a certificate expires, if it is valid now. webpki looks at the times before all else (RFC 5280 §6.1.3), and tells
/// what they are only where they do not hold: so it is asked for the end of time, too.
fn validity(certificate: &EndEntityCert<'_>, now: SystemTime) -> Result<SystemTime, Inner> {
    let system = |time: UnixTime| SystemTime::UNIX_EPOCH + Duration::from_secs(time.as_secs());
    match judged(certificate, now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()) {
        Some(webpki::Error::CertExpired { not_after, .. }) => return Err(Inner::Expired(system(not_after))),
        Some(webpki::Error::CertNotValidYet { not_before, .. }) => {
            return Err(Inner::NotYet(system(not_before)));
        }
        Some(error @ (webpki::Error::BadDer | webpki::Error::BadDerTime)) => {
            return Err(Inner::Certificate(error));
        }
        // That it is signed by nobody, or what only its clients can judge.
        Some(_) | None => {}
    }
    Ok(SystemTime::UNIX_EPOCH + end(certificate).unwrap_or(END_OF_TIME))
}

/// When a certificate expires, in time since 1970; `None` where it never does, or cannot be read.
pub(crate) fn not_after(certificate: &CertificateDer<'_>) -> Option<Duration> {
    end(&EndEntityCert::try_from(certificate).ok()?)
}

fn end(certificate: &EndEntityCert<'_>) -> Option<Duration> {
    match judged(certificate, END_OF_TIME) {
        Some(webpki::Error::CertExpired { not_after, .. }) => Some(Duration::from_secs(not_after.as_secs())),
        Some(_) | None => None,
    }
}

/// What is wrong with a certificate at a time since 1970. It is signed by nobody: of what may be wrong only the times are of interest.
fn judged(certificate: &EndEntityCert<'_>, time: Duration) -> Option<webpki::Error> {
    let time = UnixTime::since_unix_epoch(time);
    certificate.verify_for_usage(&[], &[], &[], time, KeyUsage::server_auth(), None, None).err()
}

/// Whether a PEM text has a key that wants a passphrase (RFC 5958 §3, and the older way of RFC 1421 §4.6.1.1).
fn is_sealed(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") || text.contains("Proc-Type: 4,ENCRYPTED")
}

impl BadIdentity {
    /// Which of the two it is that is wrong.
    #[must_use]
    pub fn part(&self) -> Part {
        match self.0 {
            Inner::NoCertificate
            | Inner::ChainPem(_)
            | Inner::Certificate(_)
            | Inner::NotYet(_)
            | Inner::Expired(_) => Part::Chain,
            Inner::NoKey | Inner::SealedKey | Inner::KeyPem(_) | Inner::Key(_) | Inner::Foreign => Part::Key,
        }
    }
}

impl From<Inner> for BadIdentity {
    fn from(inner: Inner) -> Self {
        Self(inner)
    }
}

impl fmt::Display for BadIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Inner::NoCertificate => f.write_str("there is no certificate in it"),
            Inner::ChainPem(error) | Inner::KeyPem(error) => write!(f, "it is not PEM: {error}"),
            Inner::Certificate(error) => write!(f, "its first certificate cannot be used: {error}"),
            Inner::NotYet(time) => {
                write!(f, "its certificate is not valid before {}", httpdate::fmt_http_date(*time))
            }
            Inner::Expired(time) => {
                write!(f, "its certificate has expired on {}", httpdate::fmt_http_date(*time))
            }
            Inner::NoKey => f.write_str("there is no private key in it"),
            Inner::SealedKey => f.write_str("its key wants a passphrase, and nobody can be asked for one"),
            Inner::Key(error) => write!(f, "its key cannot be used: {error}"),
            Inner::Foreign => f.write_str("its key is not that of the certificate"),
        }
    }
}

impl std::error::Error for BadIdentity {}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("names", &self.names)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}
