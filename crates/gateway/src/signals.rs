//! Signals: Ctrl-C and TERM ask the sessions to go, HUP has the configuration read again.
//!
//! Who presses Ctrl-C waits for the prompt: all sessions are closed at once. TERM is a service's: their Closes are spread over a
//! while, so that what they come back to is not overrun. A later one of either ends at once.

use std::{
    io::{self, IsTerminal},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::{Handle, Signals, SignalsInfo},
};
use tidegate_shard::{Departure, Mail, Pace, Whom};
use tidegate_wire::close::CloseCode;
use tracing::{info, warn};

use crate::{
    notify::Notify,
    reload::{Current, Reloads},
    shards::Shards,
};

/// Signals that have been asked for, and are kept until somebody looks after them.
pub(crate) struct Caught {
    signals: SignalsInfo,
    hangup: Hangup,
}

/// The thread that looks after them.
pub(crate) struct Watch {
    handle: Handle,
    thread: JoinHandle<()>,
}

/// Whom signals concern.
pub(crate) struct Concerned {
    pub(crate) shards: Arc<Shards>,
    pub(crate) current: Current,
    pub(crate) reloads: Reloads,
    pub(crate) notify: Notify,
}

/// What a signal to end means, by the time since the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Drain,
    /// The first one again: timeout(1), npm and others pass on to their child what its terminal has sent it already.
    Repeat,
    Stop,
}

impl Meaning {
    fn of(since_first: Option<Duration>) -> Self {
        const REPEAT: Duration = Duration::from_millis(300);
        match since_first {
            None => Self::Drain,
            Some(since) if since < REPEAT => Self::Repeat,
            Some(_) => Self::Stop,
        }
    }
}

/// What HUP means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hangup {
    /// The file is to be read again.
    Reload,
    /// The terminal is gone, and who had the gateway there with it.
    End,
    /// A service manager or an operator means a file, and there is none.
    Nothing,
}

impl Hangup {
    fn of(has_file: bool, on_terminal: bool) -> Self {
        match (has_file, on_terminal) {
            (true, _) => Self::Reload,
            (false, true) => Self::End,
            (false, false) => Self::Nothing,
        }
    }
}

/// From now on the signals do not end the process by themselves. HUP has the file read again, where the gateway `has_file`.
///
/// # Errors
/// Where the system refuses.
pub(crate) fn catch(has_file: bool) -> io::Result<Caught> {
    let hangup = Hangup::of(has_file, io::stderr().is_terminal());
    Ok(Caught { signals: Signals::new([SIGINT, SIGTERM, SIGHUP])?, hangup })
}

impl Caught {
    /// Tells the shards of signals, those before included.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub(crate) fn watch(mut self, concerned: Concerned) -> io::Result<Watch> {
        let handle = self.signals.handle();
        let run = move || {
            let mut first = None;
            for signal in self.signals.forever() {
                let now = Instant::now();
                let signal = match (signal, self.hangup) {
                    // Nobody is there any more who would wait for a drain.
                    (SIGHUP, Hangup::End) => SIGINT,
                    (SIGHUP, Hangup::Reload) => {
                        match first {
                            None => concerned.reloads.ask(),
                            Some(_) => info!("the gateway ends: its configuration is not read again"),
                        }
                        continue;
                    }
                    (SIGHUP, Hangup::Nothing) => {
                        warn!("HUP, and there is no configuration file to read again: nothing changes (-c)");
                        continue;
                    }
                    (signal, _) => signal,
                };
                match Meaning::of(first.map(|first: Instant| now.duration_since(first))) {
                    Meaning::Drain => {
                        first = Some(now);
                        concerned.drain(signal);
                    }
                    Meaning::Repeat => {}
                    Meaning::Stop => {
                        concerned.shards.order(|| Mail::Stop);
                        warn!("asked again to end: ending at once");
                    }
                }
            }
        };
        let thread = thread::Builder::new().name("signals".to_owned()).spawn(run)?;
        Ok(Watch { handle, thread })
    }
}

impl Concerned {
    /// Asks all sessions to go.
    fn drain(&self, signal: i32) {
        self.notify.stopping();
        self.current.end();
        let plan = self.current.plan();
        let drain = &plan.config().drain;
        if signal == SIGINT || drain.window_ms == 0 {
            let code = if signal == SIGINT { 1001 } else { drain.code };
            let code = CloseCode::new(code).unwrap_or(CloseCode::GOING_AWAY);
            self.shards.order(|| Mail::Drain(code));
            info!("asked to end: closing all sessions ({}); once more to end at once", u16::from(code));
            return;
        }
        let pace = Pace::of_all(drain);
        self.shards.order(|| Mail::Depart(Departure { whom: Whom::All, pace: pace.clone() }));
        info!(
            window_ms = drain.window_ms,
            deadline_ms = drain.deadline_ms,
            "asked to end: closing all sessions ({}), one after the other; once more to end at once",
            drain.code
        );
    }
}

impl Watch {
    /// Ends the watch.
    pub(crate) fn end(self) {
        self.handle.close();
        // It only ends by `close`; if it panicked, that was told.
        let _ = self.thread.join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hangup_ends_the_gateway_only_where_its_terminal_is_what_is_gone() {
        assert_eq!([true, false].map(|terminal| Hangup::of(true, terminal)), [Hangup::Reload; 2]);
        assert_eq!(Hangup::of(false, true), Hangup::End);
        assert_eq!(Hangup::of(false, false), Hangup::Nothing);
    }

    #[test]
    fn a_signal_that_comes_twice_is_one() {
        let after = |ms| Meaning::of(Some(Duration::from_millis(ms)));
        assert_eq!(Meaning::of(None), Meaning::Drain);
        assert_eq!((after(0), after(299)), (Meaning::Repeat, Meaning::Repeat));
        assert_eq!((after(300), after(60_000)), (Meaning::Stop, Meaning::Stop));
    }
}
