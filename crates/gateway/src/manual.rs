//! `tidegate completions` and `tidegate man`: what a package installs beside the binary, made from its own definition.

use std::{
    io::{self, Write},
    path::Path,
};

use clap_complete::Shell;

use crate::{Outcome, arguments::Arguments};

/// Prints a shell's completions.
pub(crate) fn completions(shell: Shell) -> Outcome {
    // In memory first: the generator panics where it cannot write, as when nobody reads to the end.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::definition(), "tidegate", &mut script);
    told("the completions", io::stdout().lock().write_all(&script))
}

/// Writes the man pages: `tidegate.1`, and one for each command.
pub(crate) fn pages(folder: &Path) -> Outcome {
    let written = clap_mangen::generate_to(Arguments::definition(), folder);
    told(&format!("the man pages in {}", folder.display()), written)
}

fn told(what: &str, written: io::Result<()>) -> Outcome {
    match written {
        Ok(()) => Outcome::Clean,
        Err(error) => {
            // Where standard error is gone, there is nobody to tell.
            let _ = writeln!(io::stderr().lock(), "tidegate: {what} cannot be written: {error}");
            Outcome::Fault
        }
    }
}
