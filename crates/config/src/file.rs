//! Files that a configuration is read from, itself one of them.

use std::{fs::File, io, path::Path};

/// Opens a file to be read; `None` where it is not a regular one. That is seen before it is opened: a pipe would wait for whoever
/// writes into it.
pub(crate) fn open(path: &Path) -> io::Result<Option<File>> {
    if path.metadata()?.is_file() { File::open(path).map(Some) } else { Ok(None) }
}
