//! Ctrl-C and TERM: the first asks the sessions to go (Close 1001), the second ends at once.

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
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
            let mut signals = self.0.forever();
            if signals.next().is_some() {
                info!("asked to end: closing all sessions (1001); once more to end at once");
                shards.send(Mail::Drain(CloseCode::GOING_AWAY));
            }
            for _ in signals {
                warn!("asked again to end: ending at once");
                shards.send(Mail::Stop);
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
