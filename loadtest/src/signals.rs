//! Ctrl-C and TERM: the first ends the run with the results so far, a second one ends the process at once.

use std::{io, process, sync::mpsc::Sender, thread};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::link::{Note, What};

/// Tells the director of signals, on a thread of their own.
///
/// # Errors
/// Where the system refuses.
pub(crate) fn watch(notes: Sender<Note>) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let run = move || {
        let mut is_first = true;
        for signal in signals.forever() {
            if !is_first || notes.send(Note { worker: 0, what: What::Interrupted(signal) }).is_err() {
                process::exit(128 + signal);
            }
            is_first = false;
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(run)?;
    Ok(())
}
