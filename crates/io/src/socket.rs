//! What both backends do to a socket with ordinary system calls: they are rare, or have no better way.

use std::{
    ffi::c_int,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use rustix::{
    io::Errno,
    net::{
        self, AddressFamily, Shutdown, SocketAddrAny, SocketAddrUnix, SocketFlags, SocketType, ipproto,
        sockopt,
    },
};

use crate::{Address, ConnectOptions, Event, ListenerId};

/// How far [`connect`] has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The socket becomes writable when it has ended; then [`connect_error`] tells how.
    Pending,
    /// It has ended: 0 or the error.
    Ended(i32),
}

/// Connections that may wait in a listening socket's queue: the largest backlog that a configuration may ask for.
const MOST_QUEUED: usize = 65_535;

/// Makes a listening socket block or not, and what it accepts have `TCP_NODELAY`: sockets inherit that.
pub(crate) fn prepare_listener(listener: &OwnedFd, blocking: bool) -> io::Result<()> {
    rustix::io::ioctl_fionbio(listener, !blocking)?;
    match sockopt::set_tcp_nodelay(listener, true) {
        // A unix socket has none.
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOPROTOOPT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Takes what waits in the queue of a listening socket that does not block and is about to be closed.
pub(crate) fn accept_rest(id: ListenerId, listener: &OwnedFd, events: &mut Vec<Event<OwnedFd>>) {
    // More cannot wait than came in while this goes on: the bound is against an endless stream of them.
    for _ in 0..MOST_QUEUED {
        match net::acceptfrom_with(listener, SocketFlags::CLOEXEC) {
            Ok((socket, peer)) => {
                events.push(Event::Accepted { listener: id, socket, peer: peer.and_then(internet) });
            }
            Err(error) if is_passing_accept_error(error.raw_os_error()) && error != Errno::AGAIN => {}
            Err(_) => return,
        }
    }
}

/// A non-blocking socket that is connecting.
pub(crate) fn connect(address: &Address, options: &ConnectOptions) -> io::Result<(OwnedFd, Progress)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (socket, result) = match address {
        Address::Tcp(address) => {
            let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            let socket = net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
            sockopt::set_tcp_nodelay(&socket, true)?;
            if let Some(source) = options.source {
                bind_source(&socket, source)?;
            }
            let result = net::connect(&socket, address);
            (socket, result)
        }
        Address::Unix(path) => {
            let address = SocketAddrUnix::new(path.as_path())?;
            let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            let result = net::connect(&socket, &address);
            (socket, result)
        }
    };
    let progress = match result {
        Ok(()) => Progress::Ended(0),
        // Interrupted by a signal, it goes on all the same.
        Err(Errno::INPROGRESS | Errno::INTR) => Progress::Pending,
        Err(error) => Progress::Ended(error.raw_os_error()),
    };
    Ok((socket, progress))
}

/// Binds to a local address and leaves the port to the connect.
fn bind_source(socket: &OwnedFd, source: IpAddr) -> io::Result<()> {
    let on: c_int = 1;
    // SAFETY: the descriptor is open, and the option is an integer of the length given, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(net::bind(socket, &SocketAddr::new(source, 0))?)
}

/// How a connect has ended, once its socket is writable: 0 or the error.
pub(crate) fn connect_error(socket: BorrowedFd<'_>) -> i32 {
    match sockopt::socket_error(socket) {
        // A connect that was called off by a shutdown can leave no error behind, and no connection either.
        Ok(Ok(())) => net::getpeername(socket).map_or_else(Errno::raw_os_error, |_| 0),
        Ok(Err(error)) | Err(error) => error.raw_os_error(),
    }
}

/// The far end of a connection.
pub(crate) enum Peer {
    /// At this address; one of a unix socket has none.
    Here(Option<SocketAddr>),
    /// It has reset the connection, and its address is not to be had any more.
    Gone,
}

/// Who is at the far end of a connection that was accepted.
///
/// # Errors
/// Where the descriptor is no socket at all.
pub(crate) fn peer(socket: BorrowedFd<'_>) -> Result<Peer, Errno> {
    match net::getpeername(socket) {
        Ok(address) => Ok(Peer::Here(address.and_then(internet))),
        Err(Errno::BADF) => Err(Errno::BADF),
        Err(Errno::NOTSOCK) => Err(Errno::NOTSOCK),
        Err(_) => Ok(Peer::Gone),
    }
}

/// An address of IPv4 or IPv6.
pub(crate) fn internet(address: SocketAddrAny) -> Option<SocketAddr> {
    SocketAddr::try_from(address).ok()
}

/// Sends a FIN. It can only fail where the connection has gone already.
pub(crate) fn shutdown_write(socket: &OwnedFd) {
    let _ = net::shutdown(socket, Shutdown::Write);
}

/// Ends both directions, by a RST on request.
pub(crate) fn shutdown(socket: &OwnedFd, reset: bool) {
    if reset {
        // Dissolving the association is an abort (RFC 9293 §3.10.5): the RST goes out here and now, where
        // SHUT_RDWR would send a FIN first, which reads as an orderly end. Everything that waits is woken.
        if net::connect_unspec(socket.as_fd()).is_ok() {
            return;
        }
        let _ = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
    }
    let _ = net::shutdown(socket, Shutdown::Both);
}

/// Errors of accept(2) that are those of the one connection, or pass at once: the next one may well succeed.
pub(crate) fn is_passing_accept_error(errno: i32) -> bool {
    matches!(
        errno,
        libc::ECONNABORTED
            | libc::EINTR
            | libc::EPERM // By a packet filter, for this peer.
            | libc::EPROTO
            | libc::ENOPROTOOPT
            | libc::ENETDOWN
            | libc::EHOSTDOWN
            | libc::ENONET
            | libc::EHOSTUNREACH
            | libc::ENETUNREACH
            | libc::ETIMEDOUT
    )
}
