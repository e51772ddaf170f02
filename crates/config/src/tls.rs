//! TLS on a listener, and files of certificates and keys.

use std::{
    fmt,
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::{Problem, file, report::Mistake, secret::Exposure, section::cut};

/// TLS on a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// At least one. The first is for clients that ask for a name which none has, or for no name.
    pub certificates: Vec<CertificateFiles>,
    /// The lowest version that is spoken.
    pub min_version: TlsVersion,
    /// Authorities of which one must have signed a client's certificate; without them clients are not asked for one.
    pub client_ca: Option<PemFile>,
    /// Whether clients may come without one; only with `client_ca`.
    pub client_certificate_optional: bool,
}

/// A certificate with its chain, and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, and behind it those that it was signed with.
    pub certificate: PemFile,
    /// Its private key.
    pub key: PemFile,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersion {
    /// 1.2.
    #[default]
    Tls12,
    /// 1.3.
    Tls13,
}

/// A file that the configuration names, as it was read with it. It may hold a key: its [`fmt::Debug`] tells its name alone.
#[derive(Clone)]
pub struct PemFile {
    path: PathBuf,
    /// Nothing where it was not read: [`crate::parse`] opens none.
    bytes: Vec<u8>,
    was_read: bool,
    /// What is wrong with it is told there.
    place: Problem,
}

/// Longest file that is read: a list of authorities of a whole system has some 200 KiB.
const MAX_BYTES: u64 = 1 << 20;

impl PemFile {
    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is in it; nothing where it was not read.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether it was read: [`crate::parse`] opens none.
    #[must_use]
    pub fn was_read(&self) -> bool {
        self.was_read
    }

    /// What is wrong with it, told where the configuration names it.
    #[must_use]
    pub fn problem(&self, why: &str) -> Problem {
        self.place.about(&self.path, why)
    }

    /// One that is not read.
    pub(crate) fn unread(path: &str, place: Problem) -> Self {
        Self { path: path.into(), bytes: Vec::new(), was_read: false, place }
    }

    /// Reads one; tells whether others may read or change it.
    pub(crate) fn read(path: &str, place: Problem) -> Result<(Self, Exposure), Mistake> {
        let wrong = |why: String| Mistake::new(format!("{}: {why}", cut(path)));
        let unreadable = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => wrong("the file does not exist".to_owned()),
            _ => wrong(format!("the file cannot be read: {error}")),
        };
        let name = Path::new(path);
        let Some(file) = file::open(name).map_err(unreadable)? else {
            return Err(wrong("it is not a regular file".to_owned()));
        };
        let exposure = Exposure::of(&file).map_err(unreadable)?;
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(wrong(format!("the file is longer than {} MiB", MAX_BYTES >> 20)));
        }
        Ok((Self { path: name.to_owned(), bytes, was_read: true, place }, exposure))
    }
}

impl fmt::Debug for PemFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PemFile({})", self.path.display())
    }
}

/// Where it is named does not count.
impl PartialEq for PemFile {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path && self.bytes == other.bytes
    }
}

impl Eq for PemFile {}
