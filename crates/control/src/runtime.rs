//! The control plane's thread: a ring of its own where there may be one, else tokio alone.

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
};

use tokio::sync::oneshot;
use tracing::{debug, warn};

use crate::{
    gateway::Gateway,
    pulse,
    server::{Listener, serve},
};

/// Entries of the control plane's ring: a few connections, and nobody waits for it.
const RING_ENTRIES: u32 = 64;

/// The control plane at work.
#[derive(Debug)]
pub struct Control {
    end: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Control {
    /// Ends it; requests under way are cut off.
    pub fn stop(self) {
        // Where its thread is gone, that was told.
        let _ = self.end.send(());
        let _ = self.thread.join();
    }
}

/// Begins to answer on `listener` whom the `[admin]` in force lets ask. `ring`: io_uring may be used.
///
/// # Errors
/// Where the thread or its runtime cannot be made.
pub fn start(listener: Listener, gateway: Arc<Gateway>, ring: bool) -> io::Result<Control> {
    let (end, ended) = oneshot::channel();
    let (tell, told) = std::sync::mpsc::channel();
    let run = move || {
        let work = async move {
            // Within the runtime, which tokio's sockets need.
            match listener.listen() {
                Ok(listener) => {
                    let _ = tell.send(Ok(()));
                    tokio::select! {
                        () = serve(listener, Arc::clone(&gateway)) => {}
                        () = pulse::take(gateway) => {}
                        _ = ended => {}
                    }
                }
                Err(error) => drop(tell.send(Err(error))),
            }
        };
        match Runtime::new(ring) {
            Ok(runtime) => runtime.block_on(work),
            Err(error) => warn!("the control plane has no runtime: {error}"),
        }
    };
    let thread = thread::Builder::new().name("control".to_owned()).spawn(run)?;
    // Without a word the thread has ended, and told why.
    told.recv().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))?;
    Ok(Control { end, thread })
}

/// What drives tokio's sockets and timers.
enum Runtime {
    Ring(tokio_uring::Runtime),
    Plain(tokio::runtime::Runtime),
}

impl Runtime {
    fn new(ring: bool) -> io::Result<Self> {
        if ring {
            let mut builder = tokio_uring::builder();
            builder.entries(RING_ENTRIES);
            // `start` would panic where the ring is refused.
            match tokio_uring::Runtime::new(&builder) {
                Ok(runtime) => return Ok(Self::Ring(runtime)),
                Err(error) => debug!("the control plane goes without a ring: {error}"),
            }
        }
        tokio::runtime::Builder::new_current_thread().enable_all().build().map(Self::Plain)
    }

    fn block_on(self, work: impl Future<Output = ()>) {
        match self {
            Self::Ring(runtime) => runtime.block_on(work),
            Self::Plain(runtime) => runtime.block_on(work),
        }
    }
}
