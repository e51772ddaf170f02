//! `tidegate completions` and `tidegate man`: what a package installs beside the binary, made from its own definition.

use std::{
    io::{self, Write},
    path::Path,
};

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

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
    let mut definition = Arguments::definition().disable_help_subcommand(true);
    definition.build();
    match page(definition, folder) {
        Ok(()) => Outcome::Clean,
        Err(error) => {
            let folder = folder.display();
            // Where standard error is gone, there is nobody to tell.
            let _ = writeln!(io::stderr(), "tidegate: the man pages in {folder} cannot be written: {error}");
            Outcome::Fault
        }
    }
}

/// The page of a command, and those of its own commands.
fn page(command: Command, folder: &Path) -> io::Result<()> {
    for part in command.get_subcommands().filter(|part| !part.is_hide_set()).cloned() {
        page(part, folder)?;
    }
    // An empty date would be left out, and the version stand in its place; a real one would make each build another.
    let page = Man::new(command).date("\"\"").source(concat!("tidegate ", env!("CARGO_PKG_VERSION")));
    page.manual("Tidegate").generate_to(folder).map(drop)
}
