//! Where a bare server listens.

use std::{
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener},
};

use socket2::{Domain, Socket, Type};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// Listens on a port of 127.0.0.1, of the system's choice for 0, and tells which.
///
/// # Errors
/// Where the system refuses.
pub fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    socket.listen(BACKLOG)?;
    let listener = TcpListener::from(socket);
    writeln!(io::stdout(), "listening on {}", listener.local_addr()?)?;
    Ok(listener)
}

/// The ports of the command line.
///
/// # Errors
/// Where there are not so many.
pub fn ports<const COUNT: usize>(usage: &str) -> io::Result<[u16; COUNT]> {
    let ports: Option<Vec<u16>> = std::env::args().skip(1).map(|word| word.parse().ok()).collect();
    ports.and_then(|ports| ports.try_into().ok()).ok_or_else(|| io::Error::other(format!("usage: {usage}")))
}
