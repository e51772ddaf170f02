//! Where results go: standard output, or files that are there whole or not at all.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Where one form of the results goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sink {
    StandardOutput,
    File(PathBuf),
}

impl Sink {
    /// `-` is standard output.
    pub(crate) fn of(path: PathBuf) -> Self {
        if path.as_os_str() == "-" { Self::StandardOutput } else { Self::File(path) }
    }

    /// Sees that it can be written to before what it is to hold is there. Changes nothing.
    ///
    /// # Errors
    /// Why it cannot.
    pub(crate) fn check(&self) -> io::Result<()> {
        match self {
            Self::StandardOutput => Ok(()),
            Self::File(path) => named(path, check_file(path)),
        }
    }

    /// # Errors
    /// Where it cannot be written; what was there is there still, unless it is no common file.
    pub(crate) fn write(&self, text: &str) -> io::Result<()> {
        match self {
            Self::StandardOutput => print(text),
            Self::File(path) => named(path, write_file(path, text)),
        }
    }

    /// Whether both are one, so that each would overwrite the other.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::StandardOutput, Self::StandardOutput) => true,
            (Self::File(one), Self::File(two)) => {
                one == two || place(one).is_some_and(|one| place(two) == Some(one))
            }
            (Self::StandardOutput, Self::File(_)) | (Self::File(_), Self::StandardOutput) => false,
        }
    }
}

/// Writes to standard output.
///
/// # Errors
/// With its name.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| io::Error::new(error.kind(), format!("standard output: {error}")))
}

/// Where a file is, or would be, without links.
fn place(path: &Path) -> Option<PathBuf> {
    path.canonicalize().ok().or_else(|| Some(folder(path).canonicalize().ok()?.join(path.file_name()?)))
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn check_file(path: &Path) -> io::Result<()> {
    if path.exists() {
        return OpenOptions::new().append(true).open(path).map(drop);
    }
    let (file, beside) = create_beside(path)?;
    drop(file);
    fs::remove_file(beside)
}

/// Writes a file beside it, which takes its place then.
fn write_file(path: &Path, text: &str) -> io::Result<()> {
    // Of a link, what it leads to.
    let real = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let old = real.metadata().ok();
    if old.as_ref().is_some_and(|old| !old.is_file()) {
        // A device or a pipe.
        return fs::write(&real, text);
    }
    let (mut file, beside) = match create_beside(&real) {
        Ok(created) => created,
        // In a folder that lets nothing be added.
        Err(error) if old.is_some() && error.kind() == io::ErrorKind::PermissionDenied => {
            return fs::write(&real, text);
        }
        Err(error) => return Err(error),
    };
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| old.map_or(Ok(()), |old| file.set_permissions(old.permissions())))
        .and_then(|()| fs::rename(&beside, &real));
    if written.is_err() {
        // It failed already.
        let _ = fs::remove_file(&beside);
    }
    written
}

fn create_beside(path: &Path) -> io::Result<(File, PathBuf)> {
    let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?;
    let number = getrandom::u64().map_err(io::Error::other)?;
    let beside = folder(path).join(format!(".{}.{number:016x}", name.to_string_lossy()));
    Ok((File::create_new(&beside)?, beside))
}

fn named<T>(path: &Path, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_looking_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let names = || fs::read_dir(folder.path()).unwrap().count();
        let sink = Sink::of(at("a"));
        sink.check().unwrap();
        assert_eq!(names(), 0);
        sink.write("one").unwrap();
        fs::set_permissions(at("a"), fs::Permissions::from_mode(0o640)).unwrap();
        symlink(at("a"), at("link")).unwrap();
        let link = Sink::of(at("link"));
        link.check().unwrap();
        assert_eq!(fs::read_to_string(at("a")).unwrap(), "one");
        link.write("two").unwrap();
        assert_eq!(fs::read_to_string(at("a")).unwrap(), "two");
        assert_eq!(fs::metadata(at("a")).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(fs::symlink_metadata(at("link")).unwrap().is_symlink());
        assert_eq!(names(), 2, "nothing is left beside it");
        assert!(Sink::of(folder.path().to_path_buf()).check().is_err());
        assert!(Sink::of(at("none/a")).check().is_err() && Sink::of(at("none/a")).write("x").is_err());
        Sink::of("/dev/null".into()).write("x").unwrap();
    }

    #[test]
    fn one_file_has_several_names() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| Sink::of(folder.path().join(name));
        assert!(at("a").is_same(&at("./a")) && !at("a").is_same(&at("b")));
        symlink(folder.path().join("a"), folder.path().join("link")).unwrap();
        at("a").write("x").unwrap();
        assert!(at("link").is_same(&at("a")));
        assert!(
            Sink::of("-".into()).is_same(&Sink::StandardOutput) && !at("-").is_same(&Sink::StandardOutput)
        );
    }
}
