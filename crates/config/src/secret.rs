//! Secrets: read, compared, and never shown.

use std::{
    fmt,
    fs::File,
    hint::black_box,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{file, report::Mistake};

/// A text that someone presents to be believed. It is compared, and not shown: its [`fmt::Debug`] is silent.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Kept);

#[derive(Clone, PartialEq, Eq)]
enum Kept {
    Text(Box<str>),
    /// Of a file that was not read: [`crate::parse`] opens none.
    Unread(PathBuf),
}

/// Fewer bytes can be guessed: 16 random ones of Base64 are 96 bits.
pub(crate) const LEAST_BYTES: usize = 16;

/// More do not fit well into a request's head.
pub(crate) const MOST_BYTES: usize = 512;

impl Secret {
    /// Whether `presented` is this secret; where it was not read, nothing is. The time that this takes says only
    /// whether the lengths are the same.
    #[must_use]
    pub fn is(&self, presented: &[u8]) -> bool {
        let Kept::Text(text) = &self.0 else { return false };
        let text = text.as_bytes();
        let differing =
            text.iter().zip(presented).fold(0, |bits, (one, other)| black_box(bits | (one ^ other)));
        text.len() == presented.len() && black_box(differing) == 0
    }

    /// Its bytes, for what is computed with it; `None` where it was not read. They are not to be shown.
    #[must_use]
    pub fn bytes(&self) -> Option<&[u8]> {
        self.present().map(str::as_bytes)
    }

    /// The text itself, for whoever has to present it; `None` where it was not read.
    #[must_use]
    pub fn present(&self) -> Option<&str> {
        match &self.0 {
            Kept::Text(text) => Some(text),
            Kept::Unread(_) => None,
        }
    }

    /// Reads one that stands alone in a file, as the configuration's `token_file` and `key_file` do.
    ///
    /// # Errors
    /// Why it cannot be had.
    pub fn from_file(path: &str) -> Result<Self, String> {
        Self::read(path).map(|(secret, _)| secret).map_err(|mistake| mistake.message)
    }

    /// Reads one that stands in a file of the configuration.
    pub(crate) fn parse(text: &str) -> Result<Self, Mistake> {
        check(text).map(|()| Self(Kept::Text(text.into()))).map_err(Mistake::new)
    }

    /// One that stands in a file which is not read.
    pub(crate) fn unread(path: &str) -> Self {
        Self(Kept::Unread(path.into()))
    }

    /// Reads one that stands alone in a file; tells whether others may read or change that.
    pub(crate) fn read(path: &str) -> Result<(Self, Exposure), Mistake> {
        let wrong = |why: String| Mistake::new(format!("the key file {why}"));
        let unreadable = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => wrong("does not exist".to_owned()),
            _ => wrong(format!("cannot be read: {error}")),
        };
        let Some(file) = file::open(Path::new(path)).map_err(unreadable)? else {
            return Err(wrong("is not a regular file".to_owned()));
        };
        let exposure = Exposure::of(&file).map_err(unreadable)?;
        let mut bytes = Vec::new();
        // With room for what is trimmed.
        file.take(2 * MOST_BYTES as u64).read_to_end(&mut bytes).map_err(unreadable)?;
        let text = std::str::from_utf8(bytes.trim_ascii())
            .map_err(|_| wrong("holds no key: it is not text".to_owned()))?;
        check(text).map_err(|why| wrong(format!("holds no key: {why}")))?;
        Ok((Self(Kept::Text(text.into())), exposure))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kept::Text(_) => f.write_str("Secret(..)"),
            Kept::Unread(path) => write!(f, "Secret({})", path.display()),
        }
    }
}

/// RFC 6750 §2.1 has fewer characters; these are all that a field of a request can hold without being ambiguous.
fn check(text: &str) -> Result<(), String> {
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("a key is printable ASCII without spaces: it is sent in a field of a request".to_owned());
    }
    let length = text.len();
    if length < LEAST_BYTES {
        return Err(format!("a key has at least {LEAST_BYTES} bytes, and this has {length}"));
    }
    if length > MOST_BYTES {
        return Err(format!("a key has at most {MOST_BYTES} bytes"));
    }
    Ok(())
}

/// Who besides its owner may do what with a file that holds a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exposure {
    /// Its owner, and perhaps its group reads it.
    Private,
    /// Everyone may read it, or others may change it; its mode.
    Open(u32),
}

impl Exposure {
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        let mode = file.metadata()?.mode() & 0o777;
        Ok(if mode & 0o026 == 0 { Self::Private } else { Self::Open(mode) })
    }
}

#[cfg(test)]
mod tests;
