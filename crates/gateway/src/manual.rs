//! `tidegate completions` and `tidegate man`: what a package installs beside the binary, made from its own definition.

use std::{
    io::{self, Write},
    path::Path,
};

use clap_complete::Shell;

use crate::{Outcome, arguments::Arguments, output::shown};

/// Prints a shell's completions.
pub(crate) fn completions(shell: Shell) -> Outcome {
    // In memory first: the generator panics where it cannot write, as when nobody reads to the end.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::definition(), "tidegate", &mut script);
    shown(io::stdout().lock().write_all(&script))
}

/// Writes the man pages: `tidegate.1`, and one for each command.
pub(crate) fn pages(folder: &Path) -> Outcome {
    let written = clap_mangen::generate_to(Arguments::definition(), folder);
    match written {
        Ok(()) => Outcome::Clean,
        Err(error) => {
            let folder = folder.display();
            // Where standard error is gone, there is nobody to tell.
            let _ = writeln!(io::stderr(), "tidegate: the man pages in {folder} cannot be written: {error}");
            Outcome::Fault
        }
    }
}
