//! The binary `tidegate`: arguments, start-up, shut-down.
//!
//! Standard output is data, standard error is logs. Exit codes: 0, 1 for a run-time fault, 2 for usage, 78
//! (`EX_CONFIG` of sysexits.h) for a bad configuration.
//!
//! ```text
//! Arguments ──► Config ──► Plan ──────────────► Shard (one thread each)
//!    main        check       │                    ▲         │ Entry
//!                            ├─► Resolver, signals ┤ Mail    ├──► Journal ──► standard error
//!                            ├─► Outbound: keys, hooks ◄─────┘ Question
//!                            └─► Plane: the admin listener, beside all of it
//! ```
#![forbid(unsafe_code)]

mod admin;
mod arguments;
mod check;
mod cores;
mod doctor;
mod fault;
mod journal;
mod limits;
mod lines;
mod listeners;
mod log_file;
mod logs;
mod manual;
mod notify;
mod operate;
mod outbound;
mod output;
mod paths;
mod plane;
mod reload;
mod resolver;
mod secure;
mod serve;
mod shards;
mod signals;

use std::process::ExitCode;

use crate::arguments::{Arguments, Command};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// As it was asked to.
    Clean,
    /// By a fault at run time, which was told.
    Fault,
    /// It was called in a way that it does not know, which was told.
    Usage,
    /// The configuration is not valid, which was told.
    BadConfig,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Clean => Self::SUCCESS,
            Outcome::Fault => Self::from(1),
            Outcome::Usage => Self::from(2),
            Outcome::BadConfig => Self::from(78),
        }
    }
}

fn main() -> ExitCode {
    let outcome = match Arguments::read().and_then(Arguments::command) {
        Ok(Command::Run(arguments)) => serve::run(&arguments),
        Ok(Command::Check(arguments)) => check::check(&arguments),
        Ok(Command::Doctor(arguments)) => doctor::doctor(&arguments),
        Ok(Command::Sessions(arguments)) => admin::sessions(&arguments),
        Ok(Command::Status(arguments)) => admin::status(&arguments),
        Ok(Command::Reload(arguments)) => operate::reload(&arguments),
        Ok(Command::Drain(arguments)) => operate::drain(&arguments),
        Ok(Command::Completions { shell }) => manual::completions(shell),
        Ok(Command::Man { folder }) => manual::pages(&folder),
        Err(error) => {
            let printed = error.print();
            match error.use_stderr() {
                // Where standard error is gone, there is nobody to tell.
                true => Outcome::Usage,
                false => output::shown(printed),
            }
        }
    };
    outcome.into()
}
