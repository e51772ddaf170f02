//! Listening sockets: one for each shard and TCP address, one shared by all shards for a unix path.
//!
//! `SO_REUSEPORT` would let two gateways of one user share a port in silence, each with half of the connections. So the
//! first socket of an address is bound and listens without it, which fails where anybody else listens; only then it
//! is set, and the others join. (Linux makes the group when the second socket comes: `reuseport_add_sock`.)

use std::{
    fmt, fs, io,
    net::SocketAddr,
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
        unix::net::UnixListener,
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use tidegate_config::{Admin, Bind, Listener};

/// Unsent bytes in a socket's buffer above which the kernel takes no more. What waits beyond them is in the session's
/// outbox, where limits see it, and not in kernel memory, where `tcp_wmem` allows 4 MiB for each slow reader. A few
/// times what fits into a turn's send, so that it does not starve a fast one.
const NOTSENT_LOWAT_BYTES: u32 = 128 << 10;

/// Connections that may wait for the admin listener. It takes a few at a time, and makes way for shards between them: where this is
/// full, the kernel leaves a client to try again after a second.
const ADMIN_BACKLOG: u32 = 1024;

/// How long an address may still be in use after the gateway that had it was killed: the kernel ends a ring, and with it
/// the sockets that it holds, in the background when its process is gone (measured: some 50 ms).
const RELEASE: Duration = Duration::from_millis(500);

/// How often to try meanwhile.
const RELEASE_STEP: Duration = Duration::from_millis(10);

/// All sockets of all listeners.
#[derive(Debug)]
pub(crate) struct Listeners {
    /// For each shard, one socket for each listener, in the configuration's order.
    pub(crate) shards: Vec<Vec<OwnedFd>>,
    /// Where they listen: with the port that the kernel chose, where it was 0.
    pub(crate) bound: Vec<Bind>,
    /// Paths to remove at the end.
    paths: Vec<UnixPath>,
}

/// A path that this process has bound; dropped, it is removed.
#[derive(Debug)]
pub(crate) struct UnixPath {
    path: PathBuf,
    /// Device and inode: somebody else may have put another socket there meanwhile.
    identity: (u64, u64),
}

/// A listener that cannot be had.
#[derive(Debug)]
pub(crate) struct BindError {
    bind: Bind,
    source: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bind, source } = self;
        match (bind, source.kind()) {
            (Bind::Tcp(_), io::ErrorKind::AddrInUse) => {
                write!(f, "cannot listen on {bind}: {source}; `ss -ltnp` shows who listens")
            }
            (Bind::Tcp(_), io::ErrorKind::AddrNotAvailable) => {
                write!(f, "cannot listen on {bind}: this machine has no such address")
            }
            (Bind::Tcp(address), io::ErrorKind::PermissionDenied) if address.port() < 1024 => {
                write!(f, "cannot listen on {bind}: ports below 1024 need CAP_NET_BIND_SERVICE")
            }
            _ => write!(f, "cannot listen on {bind}: {source}"),
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl Listeners {
    /// Binds every listener, for so many shards. What a peer leaves unacknowledged for `write_timeout` breaks the
    /// connection (`TCP_USER_TIMEOUT`).
    ///
    /// # Errors
    /// The first listener that cannot be had; those before it are closed again.
    pub(crate) fn open(
        listeners: &[Listener],
        shards: usize,
        write_timeout: Duration,
    ) -> Result<Self, BindError> {
        let mut all = Self {
            shards: (0..shards).map(|_| Vec::with_capacity(listeners.len())).collect(),
            bound: Vec::with_capacity(listeners.len()),
            paths: Vec::new(),
        };
        for listener in listeners {
            let error = |source| BindError { bind: listener.bind.clone(), source };
            let (bound, sockets) = match &listener.bind {
                Bind::Tcp(address) => {
                    let sockets = tcp(*address, listener.backlog, shards, write_timeout).map_err(error)?;
                    let bound = sockets[0].local_addr().map_err(error)?.as_socket().unwrap_or(*address);
                    (Bind::Tcp(bound), sockets.into_iter().map(OwnedFd::from).collect())
                }
                Bind::Unix(path) => {
                    let (sockets, identity) = unix(path, listener.backlog, shards).map_err(error)?;
                    all.paths.push(UnixPath { path: path.clone(), identity });
                    (listener.bind.clone(), sockets)
                }
            };
            all.bound.push(bound);
            let sockets: Vec<OwnedFd> = sockets;
            all.shards.iter_mut().zip(sockets).for_each(|(shard, socket)| shard.push(socket));
        }
        Ok(all)
    }
}

impl Drop for UnixPath {
    fn drop(&mut self) {
        if identity_of(&self.path).is_ok_and(|now| now == self.identity) {
            // Where it cannot be removed, the next start finds that nobody listens there, and does it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The admin listener's socket, where it is bound, and what removes its path at the end.
#[derive(Debug)]
pub(crate) struct AdminSocket {
    pub(crate) listener: tidegate_control::Listener,
    pub(crate) bound: Bind,
    pub(crate) path: Option<UnixPath>,
}

impl AdminSocket {
    /// Binds the admin listener.
    ///
    /// # Errors
    /// Where it cannot be had.
    pub(crate) fn open(admin: &Admin, write_timeout: Duration) -> Result<Self, BindError> {
        let error = |source| BindError { bind: admin.bind.clone(), source };
        match &admin.bind {
            Bind::Tcp(address) => {
                let socket = tcp(*address, ADMIN_BACKLOG, 1, write_timeout).map_err(error)?.remove(0);
                let listener = std::net::TcpListener::from(socket);
                let bound = Bind::Tcp(listener.local_addr().map_err(error)?);
                Ok(Self { listener: tidegate_control::Listener::Tcp(listener), bound, path: None })
            }
            Bind::Unix(path) => {
                // With users of its own the kernel's word for who asks decides alone.
                let mode = if admin.allow_uids.is_empty() { 0o600 } else { 0o666 };
                let (listener, path) = private_unix(path, mode).map_err(error)?;
                let listener = tidegate_control::Listener::Unix(listener);
                Ok(Self { listener, bound: admin.bind.clone(), path: Some(path) })
            }
        }
    }
}

/// A unix socket with this mode. Nobody can connect to it before it has it: until it listens the kernel refuses.
fn private_unix(path: &Path, mode: u32) -> io::Result<(UnixListener, UnixPath)> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let path = UnixPath { path: path.to_owned(), identity: identity_of(path)? };
    fs::set_permissions(&path.path, fs::Permissions::from_mode(mode))?;
    socket.listen(i32::try_from(ADMIN_BACKLOG).unwrap_or(i32::MAX))?;
    Ok((OwnedFd::from(socket).into(), path))
}

/// One socket for each shard on the same address.
fn tcp(address: SocketAddr, backlog: u32, shards: usize, write_timeout: Duration) -> io::Result<Vec<Socket>> {
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    let until = Instant::now() + RELEASE;
    let first = loop {
        let socket = tcp_socket(address, write_timeout)?;
        match socket.bind(&address.into()).and_then(|()| socket.listen(backlog)) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => {
                thread::sleep(RELEASE_STEP);
            }
            result => break result.map(|()| socket)?,
        }
    };
    let address = first.local_addr()?;
    let mut sockets = vec![first];
    if shards > 1 {
        sockets[0].set_reuse_port(true)?;
        for _ in 1..shards {
            let next = tcp_socket(address.as_socket().ok_or(io::ErrorKind::Unsupported)?, write_timeout)?;
            next.set_reuse_port(true)?;
            next.bind(&address)?;
            next.listen(backlog)?;
            sockets.push(next);
        }
    }
    Ok(sockets)
}

/// A socket whose options those that it accepts inherit.
fn tcp_socket(address: SocketAddr, write_timeout: Duration) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of the gateway before may still be in TIME_WAIT. It does not allow two listeners.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(NOTSENT_LOWAT_BYTES)?;
    socket.set_tcp_user_timeout(Some(write_timeout))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// One descriptor for each shard of the same socket: unix sockets know no `SO_REUSEPORT`.
fn unix(path: &Path, backlog: u32, shards: usize) -> io::Result<(Vec<OwnedFd>, (u64, u64))> {
    remove_stale(path)?;
    let listener = UnixListener::bind(path)?;
    let identity = identity_of(path)?;
    // std listens with a backlog of its own; to listen again only changes that.
    SockRef::from(&listener).listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    listener.set_nonblocking(true)?;
    let mut sockets = Vec::with_capacity(shards);
    for _ in 1..shards {
        sockets.push(OwnedFd::from(listener.try_clone()?));
    }
    sockets.push(listener.into());
    Ok((sockets, identity))
}

/// Removes a socket that nobody listens on any more, as a killed process leaves it. Whoever listens may be such a process, for a while.
fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is not a socket"));
        }
        Ok(_) => {}
    }
    let until = Instant::now() + RELEASE;
    while is_listened_on(path)? {
        if Instant::now() >= until {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there already"));
        }
        thread::sleep(RELEASE_STEP);
    }
    match fs::remove_file(path) {
        // It was at its end, and has done it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Whether somebody listens on a unix socket. Its queue may be full: nobody waits for room there.
fn is_listened_on(path: &Path) -> io::Result<bool> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Ok(()) => Ok(true),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock => Ok(true),
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Ok(false),
            _ => Err(error),
        },
    }
}

fn identity_of(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use std::{
        net::TcpStream,
        os::{fd::AsFd, unix::net::UnixStream},
    };

    use super::*;

    fn listener(bind: &str) -> Listener {
        Listener {
            bind: Bind::parse(bind).unwrap(),
            backlog: 128,
            tls: None,
            proxy_protocol: Vec::new(),
            https_redirect: None,
            socket: None,
        }
    }

    fn open(bind: &str, shards: usize) -> Result<Listeners, BindError> {
        Listeners::open(&[listener(bind)], shards, Duration::from_secs(30))
    }

    fn accept_all(listeners: &Listeners) -> Vec<usize> {
        let accepted = |socket: &OwnedFd| {
            let socket = SockRef::from(socket);
            std::iter::from_fn(|| socket.accept().ok()).count()
        };
        listeners.shards.iter().map(|sockets| accepted(&sockets[0])).collect()
    }

    #[test]
    fn shards_share_a_port_and_its_connections() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listeners = open(address, 4).unwrap();
            let Bind::Tcp(bound) = listeners.bound[0] else { panic!("{listeners:?}") };
            assert_ne!(bound.port(), 0);
            let clients: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(bound).unwrap()).collect();
            let accepted = accept_all(&listeners);
            assert_eq!(accepted.iter().sum::<usize>(), clients.len());
            // 200 over 4 by a hash: that one gets fewer than 10 happens once in 10^13.
            assert!(accepted.iter().all(|count| *count >= 10), "{accepted:?}");
        }
    }

    #[test]
    fn a_port_in_use_is_an_error_whoever_uses_it() {
        for (first, second) in [(1, 1), (1, 3), (3, 1), (3, 3)] {
            let holder = open("127.0.0.1:0", first).unwrap();
            let bind = holder.bound[0].to_string();
            let message = open(&bind, second).unwrap_err().to_string();
            assert!(message.contains(&bind) && message.contains("already"), "{message}");
            let Bind::Tcp(address) = holder.bound[0] else { panic!("{holder:?}") };
            let any = format!("0.0.0.0:{}", address.port());
            assert!(open(&any, second).is_err(), "{any} takes the connections of {bind}");
        }
    }

    #[test]
    fn a_port_can_be_had_again_at_once() {
        let holder = open("127.0.0.1:0", 2).unwrap();
        let bind = holder.bound[0].to_string();
        let Bind::Tcp(address) = holder.bound[0] else { panic!("{holder:?}") };
        let client = TcpStream::connect(address).unwrap();
        // Closed on this side first, the connection stays in TIME_WAIT.
        assert_eq!(accept_all(&holder).iter().sum::<usize>(), 1);
        drop(holder);
        drop(client);
        open(&bind, 2).unwrap();
    }

    #[test]
    fn ipv4_and_ipv6_stand_side_by_side() {
        let four = open("0.0.0.0:0", 2).unwrap();
        let Bind::Tcp(address) = four.bound[0] else { panic!("{four:?}") };
        open(&format!("[::]:{}", address.port()), 2).unwrap();
    }

    #[test]
    fn what_is_accepted_inherits_the_options() {
        let listeners = open("127.0.0.1:0", 1).unwrap();
        let Bind::Tcp(address) = listeners.bound[0] else { panic!("{listeners:?}") };
        let _client = TcpStream::connect(address).unwrap();
        let (accepted, _) = SockRef::from(&listeners.shards[0][0].as_fd()).accept().unwrap();
        assert!(accepted.tcp_nodelay().unwrap());
        assert_eq!(accepted.tcp_notsent_lowat().unwrap(), NOTSENT_LOWAT_BYTES);
        assert_eq!(accepted.tcp_user_timeout().unwrap(), Some(Duration::from_secs(30)));
    }

    #[test]
    fn a_unix_path_is_shared_cleaned_up_and_never_stolen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.sock");
        let bind = format!("unix:{}", path.display());
        let listeners = open(&bind, 3).unwrap();
        let _clients: Vec<UnixStream> = (0..3).map(|_| UnixStream::connect(&path).unwrap()).collect();
        assert_eq!(accept_all(&listeners).iter().sum::<usize>(), 3);
        let message = open(&bind, 1).unwrap_err().to_string();
        assert!(message.contains("listens there already"), "{message}");
        drop(listeners);
        assert!(!path.exists());

        // What a killed process leaves.
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let listeners = open(&bind, 1).unwrap();
        // Another process takes the path over; it is not removed behind its back.
        fs::remove_file(&path).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(listeners);
        assert!(path.exists());

        let file = folder.path().join("file");
        fs::write(&file, "precious").unwrap();
        let message = open(&format!("unix:{}", file.display()), 1).unwrap_err().to_string();
        assert!(message.contains("not a socket"), "{message}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    }

    #[test]
    fn a_unix_path_of_one_who_was_killed_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.sock");
        let bind = format!("unix:{}", path.display());
        let ending = UnixListener::bind(&path).unwrap();
        let end = thread::spawn(move || {
            thread::sleep(RELEASE / 5);
            drop(ending);
        });
        let listeners = open(&bind, 2).unwrap();
        end.join().unwrap();
        drop(UnixStream::connect(&path).unwrap());
        drop(listeners);
    }

    #[test]
    fn who_stands_still_behind_a_full_queue_keeps_its_unix_path_and_nobody_waits_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.sock");
        let still = UnixListener::bind(&path).unwrap();
        SockRef::from(&still).listen(0).unwrap();
        let _first = UnixStream::connect(&path).unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        let bind = format!("unix:{}", path.display());
        thread::spawn(move || tell.send(open(&bind, 1).map(drop).unwrap_err().to_string()));
        let message = told.recv_timeout(RELEASE * 20).expect("it does not wait for room in the queue");
        assert!(message.contains("listens there already"), "{message}");
    }

    #[test]
    fn a_foreign_address_is_named() {
        let message = open("192.0.2.1:0", 1).unwrap_err().to_string();
        assert_eq!(message, "cannot listen on 192.0.2.1:0: this machine has no such address");
    }
}
