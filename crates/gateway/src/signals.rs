//! Ctrl-C and TERM: the first asks the sessions to go (Close 1001), a later one ends at once.

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::{Handle, Signals, SignalsInfo},
};
use tidegate_shard::Mail;
use tidegate_wire::close::CloseCode;
use tracing::{info, warn};

use crate::serve::Shards;

/// Signals that have been asked for, and are kept until somebody looks after them.
pub(crate) struct Caught(SignalsInfo);

/// The thread that looks after them.
pub(crate) struct Watch {
    handle: Handle,
    thread: JoinHandle<()>,
}

/// What a signal means, by the time since the first.
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

/// From now on the signals do not end the process by themselves.
///
/// # Errors
/// Where the system refuses.
pub(crate) fn catch() -> io::Result<Caught> {
    Ok(Caught(Signals::new([SIGINT, SIGTERM])?))
}

impl Caught {
    /// Tells the shards of signals, those before included.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub(crate) fn watch(mut self, shards: Arc<Shards>) -> io::Result<Watch> {
        let handle = self.0.handle();
        let run = move || {
            let mut first = None;
            for _ in self.0.forever() {
                let now = Instant::now();
                match Meaning::of(first.map(|first: Instant| now.duration_since(first))) {
                    Meaning::Drain => {
                        first = Some(now);
                        shards.send(|| Mail::Drain(CloseCode::GOING_AWAY));
                        info!("asked to end: closing all sessions (1001); once more to end at once");
                    }
                    Meaning::Repeat => {}
                    Meaning::Stop => {
                        shards.send(|| Mail::Stop);
                        warn!("asked again to end: ending at once");
                    }
                }
            }
        };
        let thread = thread::Builder::new().name("signals".to_owned()).spawn(run)?;
        Ok(Watch { handle, thread })
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
    fn a_signal_that_comes_twice_is_one() {
        let after = |ms| Meaning::of(Some(Duration::from_millis(ms)));
        assert_eq!(Meaning::of(None), Meaning::Drain);
        assert_eq!((after(0), after(299)), (Meaning::Repeat, Meaning::Repeat));
        assert_eq!((after(300), after(60_000)), (Meaning::Stop, Meaning::Stop));
    }
}
