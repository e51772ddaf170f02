//! The log's file: opened to be added to, and opened anew when somebody has moved it away.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::fs::{Access, access};
use tracing::warn;

use crate::lines::Sink;

/// How soon a file that was moved away is made anew where nothing is to be written to it.
const LOOK: Duration = Duration::from_secs(1);

/// A file of lines.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    file: File,
    /// The last line was not written to its end.
    torn: bool,
    /// Somebody has moved it away, and wants another one.
    moved: Arc<AtomicBool>,
    /// When it is tried again to have another one, where that was in vain.
    retry: Option<Instant>,
}

impl LogFile {
    /// Opens or makes a file; `moved` is set by whoever moves it away.
    ///
    /// # Errors
    /// Where it cannot be had.
    pub(crate) fn open(path: &Path, moved: Arc<AtomicBool>) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: append(path)?, torn: false, moved, retry: None })
    }

    fn follow(&mut self) {
        if !self.moved.load(Ordering::Relaxed) || self.retry.is_some_and(|retry| Instant::now() < retry) {
            return;
        }
        // Before it is opened: who moves it away meanwhile wants another one yet.
        self.moved.store(false, Ordering::Relaxed);
        match append(&self.path) {
            Ok(file) => {
                self.file = file;
                self.torn = false;
                self.retry = None;
            }
            // The old one goes on until another can be had: what is written there is not lost.
            Err(error) => {
                self.moved.store(true, Ordering::Relaxed);
                if self.retry.replace(Instant::now() + LOOK).is_none() {
                    let file = self.path.display();
                    warn!(%file, "the log goes on where it was, as its file cannot be opened anew yet: {error}");
                }
            }
        }
    }
}

/// Why no log can be written there, as far as that is seen without doing it.
pub(crate) fn obstacle(path: &Path) -> Option<String> {
    let denied = |path: &Path, how: Access, what: &str| {
        access(path, how).err().map(|error| format!("{what}: {}", io::Error::from(error)))
    };
    match path.metadata() {
        Ok(found) if found.is_dir() => Some("it is a folder".to_owned()),
        Ok(_) => denied(path, Access::WRITE_OK, "it cannot be written"),
        // It would be made.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let folder = path.parent()?;
            if !folder.exists() {
                return Some("its folder does not exist".to_owned());
            }
            denied(folder, Access::WRITE_OK | Access::EXEC_OK, "no file can be made in its folder")
        }
        Err(error) => Some(format!("it cannot be had: {error}")),
    }
}

fn append(path: &Path) -> io::Result<File> {
    // Addresses and paths of clients are nobody else's to know.
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

impl Sink for LogFile {
    fn look(&mut self) -> Option<Duration> {
        self.follow();
        Some(LOOK)
    }
}

impl Write for LogFile {
    /// Writes a line whole or fails; half a line on a full disk does not run into the next one.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.follow();
        if self.torn {
            self.file.write_all(b"\n")?;
            self.torn = false;
        }
        let mut rest = line;
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.torn = rest.len() < line.len();
                    return Err(error);
                }
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_that_was_moved_away_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("log"), folder.path().join("log.1"));
        let moved_away = Arc::new(AtomicBool::new(false));
        let mut file = LogFile::open(&path, Arc::clone(&moved_away)).unwrap();
        file.write_all(b"one\n").unwrap();
        fs::rename(&path, &moved).unwrap();
        file.write_all(b"two\n").unwrap();
        moved_away.store(true, Ordering::Relaxed);
        file.look();
        assert!(path.exists() && !moved_away.load(Ordering::Relaxed));
        file.write_all(b"three\n").unwrap();
        assert_eq!(
            (fs::read(&moved).unwrap(), fs::read(&path).unwrap()),
            (b"one\ntwo\n".to_vec(), b"three\n".to_vec())
        );
    }

    #[test]
    fn a_file_that_cannot_be_made_anew_goes_on_until_it_can() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let moved_away = Arc::new(AtomicBool::new(false));
        let mut file = LogFile::open(&path, Arc::clone(&moved_away)).unwrap();
        // Its folder is gone.
        file.path = folder.path().join("none/log");
        moved_away.store(true, Ordering::Relaxed);
        file.write_all(b"one\n").unwrap();
        file.look();
        file.write_all(b"two\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one\ntwo\n");
        // It is there again, and nobody has to say so.
        fs::create_dir(folder.path().join("none")).unwrap();
        let begun = Instant::now();
        while !file.path.exists() {
            assert!(begun.elapsed() < 10 * LOOK, "it is not tried again");
            std::thread::sleep(Duration::from_millis(10));
            file.look();
        }
        file.write_all(b"three\n").unwrap();
        assert_eq!(
            (fs::read(&path).unwrap(), fs::read(&file.path).unwrap()),
            (b"one\ntwo\n".into(), b"three\n".into())
        );
        assert!(!moved_away.load(Ordering::Relaxed));
    }

    #[test]
    fn a_full_disk_is_an_error_and_nothing_waits_for_it() {
        // Linux's device that is always full.
        let mut file = LogFile::open(Path::new("/dev/full"), Arc::default()).unwrap();
        for _ in 0..3 {
            assert_eq!(file.write_all(b"line\n").unwrap_err().kind(), io::ErrorKind::StorageFull);
        }
    }

    #[test]
    fn what_speaks_against_a_file_is_seen_without_making_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("log"), "").unwrap();
        let said = |name: &str| obstacle(&at(name));
        assert_eq!((said("log"), said("new"), obstacle(Path::new("/dev/full"))), (None, None, None));
        assert!(!at("new").exists());
        assert_eq!(obstacle(folder.path()).as_deref(), Some("it is a folder"));
        assert_eq!(said("none/log").as_deref(), Some("its folder does not exist"));
        assert!(said("log/log").unwrap().starts_with("it cannot be had: Not a directory"));
        // Root may do all.
        if !rustix::process::geteuid().is_root() {
            fs::set_permissions(at("log"), fs::Permissions::from_mode(0o440)).unwrap();
            assert!(said("log").unwrap().starts_with("it cannot be written: Permission denied"));
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o500)).unwrap();
            let why = said("new");
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
            assert!(why.unwrap().starts_with("no file can be made in its folder: Permission denied"));
        }
    }
}
