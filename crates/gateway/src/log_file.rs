//! The log's file: opened to be added to, and opened anew when somebody has moved it away.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use crate::lines::Sink;

/// A file of lines.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    file: File,
    /// The last line was not written to its end.
    torn: bool,
}

impl LogFile {
    /// # Errors
    /// Where it cannot be opened or made.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: append(path)?, torn: false })
    }
}

fn append(path: &Path) -> io::Result<File> {
    // Addresses and paths of clients are nobody else's to know.
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

impl Sink for LogFile {
    fn reopen(&mut self) {
        // Where it cannot be had, the old one goes on: what is written there is not lost.
        if let Ok(file) = append(&self.path) {
            *self = Self { file, torn: false, path: std::mem::take(&mut self.path) };
        }
    }
}

impl Write for LogFile {
    /// Writes a line whole or fails; half a line on a full disk does not run into the next one.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
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
        let mut file = LogFile::open(&path).unwrap();
        file.write_all(b"one\n").unwrap();
        fs::rename(&path, &moved).unwrap();
        file.write_all(b"two\n").unwrap();
        file.reopen();
        file.write_all(b"three\n").unwrap();
        assert_eq!(
            (fs::read(&moved).unwrap(), fs::read(&path).unwrap()),
            (b"one\ntwo\n".to_vec(), b"three\n".to_vec())
        );
        // Its folder is gone: the old one goes on.
        let mut lost = LogFile { path: folder.path().join("none/log"), ..LogFile::open(&path).unwrap() };
        lost.reopen();
        lost.write_all(b"four\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"three\nfour\n");
    }

    #[test]
    fn a_full_disk_is_an_error_and_nothing_waits_for_it() {
        // Linux's device that is always full.
        let mut file = LogFile::open(Path::new("/dev/full")).unwrap();
        for _ in 0..3 {
            assert_eq!(file.write_all(b"line\n").unwrap_err().kind(), io::ErrorKind::StorageFull);
        }
    }
}
