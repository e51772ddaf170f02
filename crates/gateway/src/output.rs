//! Standard output of the commands that end by themselves.

use std::io::{self, Write};

use crate::Outcome;

/// Writes to standard output.
pub(crate) fn show(text: &str) -> Outcome {
    shown(io::stdout().lock().write_all(text.as_bytes()))
}

/// What comes of having written there. Where nobody reads to the end that is no fault, but nobody must take a file for whole that is cut
/// off.
pub(crate) fn shown(written: io::Result<()>) -> Outcome {
    match written.and_then(|()| io::stdout().flush()) {
        Ok(()) => Outcome::Clean,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Outcome::Clean,
        Err(error) => {
            // Where standard error is gone, there is nobody to tell.
            let _ = writeln!(io::stderr(), "tidegate: standard output cannot be written: {error}");
            Outcome::Fault
        }
    }
}
