//! A program that ends with the comparison that started it, even where that one is killed and can end nothing.
//!
//! Only a process itself can ask the kernel for a signal at its parent's death, so it does before it becomes the program.

use std::{
    ffi::OsString,
    io,
    os::unix::process::CommandExt,
    path::Path,
    process::{self, Command},
};

use clap::Args;
use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};

/// The word that asks this program to become another one.
pub(crate) const NAME: &str = "bound";

/// The command line of that.
#[derive(Args, Debug)]
pub(crate) struct BoundArguments {
    /// Who started it
    parent: i32,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    words: Vec<OsString>,
}

/// A command that becomes `program`.
pub(crate) fn command(program: &Path) -> Command {
    // This very program, even where its file was replaced meanwhile.
    let mut command = Command::new("/proc/self/exe");
    command.arg(NAME).arg(getpid().to_string()).arg("--").arg(program);
    command
}

/// Becomes the program, and so returns only where that cannot be.
pub(crate) fn run(arguments: &BoundArguments) -> io::Error {
    // It outlives `execve` (Linux 2.1.57). By TERM a server ends its own processes too, which KILL would leave.
    if let Err(error) = set_parent_process_death_signal(Some(Signal::TERM)) {
        return error.into();
    }
    if getppid().map(Pid::as_raw_pid) != Some(arguments.parent) {
        // It died before it was asked for, and there is nobody to work for.
        process::exit(1);
    }
    let [program, words @ ..] = &*arguments.words else {
        return io::Error::new(io::ErrorKind::InvalidInput, "there is no program");
    };
    let error = Command::new(program).args(words).exec();
    io::Error::new(error.kind(), format!("{}: {error}", program.display()))
}
