//! Ctrl-C, TERM and HUP: the first ends the run with the results so far, a second one ends the process at once.

use std::{fs, io, process, sync::mpsc::Sender, thread};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::link::{Note, What};

/// Tells the director of signals, on a thread of their own.
///
/// # Errors
/// Where the system refuses.
pub(crate) fn watch(notes: Sender<Note>) -> io::Result<()> {
    let mut signals = Signals::new(watched())?;
    let run = move || {
        let mut is_first = true;
        for signal in signals.forever() {
            if !is_first && is_echo(signal) {
                continue;
            }
            if !is_first || notes.send(Note { worker: 0, what: What::Interrupted(signal) }).is_err() {
                process::exit(128 + signal);
            }
            is_first = false;
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(run)?;
    Ok(())
}

/// Those that end a run. HUP is not among them where this process was started with it ignored, as by `nohup`.
pub(crate) fn watched() -> Vec<i32> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let hangup = (!ignores(&status, SIGHUP)).then_some(SIGHUP);
    [SIGINT, SIGTERM].into_iter().chain(hangup).collect()
}

/// Whether this signal, behind another one, says nothing new: of a terminal that closes both the kernel and the shell
/// tell by HUP.
pub(crate) fn is_echo(signal: i32) -> bool {
    signal == SIGHUP
}

/// Whether a process with this `/proc/PID/status` ignores a signal.
fn ignores(status: &str, signal: i32) -> bool {
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = line.and_then(|line| u64::from_str_radix(line.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 << (signal - 1) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ignored_stands_in_the_status() {
        let status = "SigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n";
        assert!(ignores(status, SIGHUP) && !ignores(status, SIGTERM) && !ignores("", SIGHUP));
    }
}
