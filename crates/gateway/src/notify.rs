//! What systemd is told (sd_notify(3)): a datagram of lines to the socket that `NOTIFY_SOCKET` names. Elsewhere nothing is told.

use std::{
    env, io,
    os::{
        linux::net::SocketAddrExt,
        unix::ffi::OsStrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    process,
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};
use tidegate_shard::{Answers, Mail};
use tracing::{debug, warn};

use crate::shards::Shards;

/// How often it is looked whether the gateway ends, while shards are waited for.
const LOOK: Duration = Duration::from_millis(50);

/// The way to systemd, where there is one. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notify(Option<Arc<(UnixDatagram, SocketAddr)>>);

impl Notify {
    /// As the environment says.
    pub(crate) fn from_environment() -> Self {
        let Some(name) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Self::default();
        };
        match Self::to(name.as_bytes()) {
            Ok(notify) => notify,
            Err(error) => {
                warn!("the socket in NOTIFY_SOCKET cannot be used: {error}");
                Self::default()
            }
        }
    }

    /// A path, or `@` and an abstract name.
    fn to(name: &[u8]) -> io::Result<Self> {
        let address = match name.strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name))?,
        };
        let socket = UnixDatagram::unbound()?;
        // systemd may be slow to read, and what is told is no reason to wait.
        socket.set_nonblocking(true)?;
        Ok(Self(Some(Arc::new((socket, address)))))
    }

    /// The gateway serves, for the first time or again.
    pub(crate) fn ready(&self) {
        self.tell("READY=1\nSTATUS=serving\n");
    }

    /// It reads its configuration again (`Type=notify-reload` wants the time of it, systemd 253).
    pub(crate) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let usec = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={usec}\nSTATUS=reading the configuration again\n"));
    }

    /// It ends, as soon as its sessions have gone.
    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=waiting for sessions to go\n");
    }

    fn tell(&self, lines: &str) {
        let Some((socket, address)) = self.0.as_deref() else { return };
        if let Err(error) = socket.send_to_addr(lines.as_bytes(), address) {
            debug!("systemd was not told {lines:?}: {error}");
        }
    }
}

/// The thread that tells systemd that all shards live.
pub(crate) struct Watchdog {
    stop: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

impl Watchdog {
    /// Where systemd wants to hear of this process (`WATCHDOG_USEC`, `WATCHDOG_PID`; sd_watchdog_enabled(3)).
    ///
    /// # Errors
    /// Where no thread can be started.
    pub(crate) fn start(notify: &Notify, shards: &Arc<Shards>) -> io::Result<Option<Self>> {
        let number = |name: &str| env::var(name).ok()?.parse::<u64>().ok();
        let is_meant = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(process::id()));
        let Some(usec) = number("WATCHDOG_USEC").filter(|usec| is_meant && *usec > 0) else {
            return Ok(None);
        };
        // Half of it, as the manual says.
        Self::every(Duration::from_micros(usec / 2), notify, shards).map(Some)
    }

    fn every(interval: Duration, notify: &Notify, shards: &Arc<Shards>) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let (notify, shards) = (notify.clone(), Arc::clone(shards));
        let run = move || {
            let goes_on = |wait| stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout);
            while goes_on(interval) {
                let answers = Answers::default();
                shards.order(|| Mail::Live(answers.clone()));
                let until = Instant::now() + interval;
                let mut live = answers.wait(shards.count(), LOOK);
                while !live && Instant::now() < until {
                    // Shards that have ended answer nobody.
                    if !goes_on(Duration::ZERO) {
                        return;
                    }
                    live = answers.wait(shards.count(), LOOK);
                }
                if !live && !goes_on(Duration::ZERO) {
                    return;
                }
                match live {
                    true => notify.tell("WATCHDOG=1\n"),
                    false => warn!("a shard does not answer: systemd is not told that all live"),
                }
            }
        };
        let thread = thread::Builder::new().name("watchdog".to_owned()).spawn(run)?;
        Ok(Self { stop, thread })
    }

    /// Ends it.
    pub(crate) fn end(self) {
        drop(self.stop);
        // If it panicked, that was told.
        let _ = self.thread.join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 512];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    #[test]
    fn systemd_hears_by_path_and_by_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("tidegate-notify-{}", process::id());
        let sockets = [
            (UnixDatagram::bind(&path).unwrap(), path.as_os_str().as_bytes().to_vec()),
            (
                UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap(),
                format!("@{name}").into_bytes(),
            ),
        ];
        for (socket, name) in sockets {
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let notify = Notify::to(&name).unwrap();
            notify.ready();
            assert!(heard(&socket).starts_with("READY=1\n"));
            notify.reloading();
            let told = heard(&socket);
            let usec = told.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).unwrap();
            assert!(told.starts_with("RELOADING=1\n") && usec.parse::<u64>().unwrap() > 0, "{told}");
            notify.stopping();
            assert!(heard(&socket).starts_with("STOPPING=1\n"));
        }
    }

    #[test]
    fn shards_that_have_ended_hold_nobody_up() {
        use tidegate_io::{Backend, Epoll, EpollOptions};
        let backend = Epoll::new(&EpollOptions { buffers: 1 }).unwrap();
        let (sender, mailbox) = tidegate_shard::mailbox(backend.waker());
        let shards = Arc::new(Shards::new(vec![sender]));
        let watchdog =
            Watchdog::every(Duration::from_secs(600), &Notify::default(), &Arc::clone(&shards)).unwrap();
        watchdog.end();
        // It has asked, and waits for an answer.
        let watchdog = Watchdog::every(Duration::from_secs(2), &Notify::default(), &shards).unwrap();
        while mailbox.waiting() == 0 {
            thread::sleep(Duration::from_millis(1));
        }
        let begun = Instant::now();
        watchdog.end();
        assert!(begun.elapsed() < Duration::from_millis(1_500), "{:?}", begun.elapsed());
    }

    #[test]
    fn nobody_who_listens_is_no_fault() {
        Notify::default().ready();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nobody");
        Notify::to(path.as_os_str().as_bytes()).unwrap().ready();
    }
}
