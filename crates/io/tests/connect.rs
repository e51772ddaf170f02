//! Connecting, with both backends.

mod rig;

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixListener,
    path::PathBuf,
};

use rustix::net::sockopt;
use tidegate_io::{Address, ConnectOptions, ReceiveEnd, Token};

use self::rig::{Out, Rig, Subject, read_exactly};

on_both!(
    a_connect_can_be_called_off,
    connects_and_carries_bytes,
    connects_from_a_source_address,
    connects_to_a_unix_socket,
    many_connects_at_once,
    refusals_are_told,
    unusable_sources_are_told_at_once,
);

const TOKEN: Token = Token(0x00ab_cdef_0123_4567);

fn connects_and_carries_bytes<B: Subject>() {
    let mut rig = Rig::<B>::new();
    for host in ["127.0.0.1:0", "[::1]:0"] {
        let listener = TcpListener::bind(host).unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        let socket = rig.backend.connect(&address, &ConnectOptions::default(), TOKEN).unwrap();
        assert_eq!(rig.connected(TOKEN), 0);
        assert!(sockopt::tcp_nodelay(&socket).unwrap());
        let (mut far, _) = listener.accept().unwrap();
        rig.backend.receive(&socket, TOKEN);
        assert!(rig.poll(&Out(vec![(&socket, vec![b"knock"])])).is_empty());
        assert_eq!(read_exactly(&mut far, 5), b"knock");
        // Not before this side waits: a descriptor left non-blocking would end the ring's receive at once.
        rig.poll(&Out::default());
        assert!(rig.events.is_empty(), "{:?}", rig.events);
        far.write_all(b"come in").unwrap();
        assert_eq!(rig.received(TOKEN), b"come in");
        drop(far);
        assert_eq!(rig.ended(TOKEN), ReceiveEnd::Eof);
        rig.backend.close(socket);
    }
    rig.finish();
}

fn connects_to_a_unix_socket<B: Subject>() {
    let mut rig = Rig::<B>::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("upstream");
    let listener = UnixListener::bind(&path).unwrap();
    let socket = rig.backend.connect(&Address::Unix(path), &ConnectOptions::default(), TOKEN).unwrap();
    assert_eq!(rig.connected(TOKEN), 0);
    let (mut far, _) = listener.accept().unwrap();
    rig.backend.receive(&socket, TOKEN);
    far.write_all(b"local").unwrap();
    assert_eq!(rig.received(TOKEN), b"local");
    assert!(rig.poll(&Out(vec![(&socket, vec![b"a", b"b"])])).is_empty());
    let mut bytes = [0; 2];
    far.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"ab");
    rig.backend.shutdown(&socket, true);
    assert!(matches!(rig.ended(TOKEN), ReceiveEnd::Eof | ReceiveEnd::Error(_)));
    rig.backend.close(socket);
    rig.finish();
}

fn connects_from_a_source_address<B: Subject>() {
    let mut rig = Rig::<B>::new();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = Address::Tcp(listener.local_addr().unwrap());
    let source = Ipv4Addr::new(127, 0, 0, 77);
    let options = ConnectOptions { source: Some(source.into()) };
    let connect = |index| rig.backend.connect(&address, &options, Token(index)).unwrap();
    let sockets: Vec<_> = (0..2).map(connect).collect();
    for index in 0..sockets.len() {
        assert_eq!(rig.connected(Token(index as u64)), 0);
        let (_, from) = listener.accept().unwrap();
        assert_eq!(from.ip(), source);
        assert_ne!(from.port(), 0);
    }
    rig.finish();
}

fn unusable_sources_are_told_at_once<B: Subject>() {
    let mut rig = Rig::<B>::new();
    let address = Address::Tcp((Ipv4Addr::LOCALHOST, 9).into());
    let elsewhere = ConnectOptions { source: Some(Ipv4Addr::new(192, 0, 2, 1).into()) };
    let error = rig.backend.connect(&address, &elsewhere, TOKEN).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL));
    let too_long = Address::Unix(PathBuf::from("x".repeat(200)));
    assert!(rig.backend.connect(&too_long, &ConnectOptions::default(), TOKEN).is_err());
    rig.finish();
}

fn refusals_are_told<B: Subject>() {
    let mut rig = Rig::<B>::new();
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    for (address, errno) in [
        (Address::Tcp(free), libc::ECONNREFUSED),
        (Address::Unix(folder.path().join("nobody")), libc::ENOENT),
    ] {
        let socket = rig.backend.connect(&address, &ConnectOptions::default(), TOKEN).unwrap();
        assert!(rig.events.is_empty(), "never before the turn");
        assert_eq!(rig.connected(TOKEN), errno);
        rig.backend.close(socket);
    }
    rig.finish();
}

fn a_connect_can_be_called_off<B: Subject>() {
    // A listener whose queue is full lets further connects wait for an answer.
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let _queued = TcpStream::connect(address).unwrap();
    let mut rig = Rig::<B>::new();
    let address = Address::Tcp(address);
    let sockets: Vec<_> = (0..4)
        .map(|index| rig.backend.connect(&address, &ConnectOptions::default(), Token(index)).unwrap())
        .collect();
    rig.poll(&Out::default());
    let waiting = sockets.len() - rig.events.len();
    assert!(waiting > 0, "somebody must wait for this test to mean anything");
    for (index, socket) in sockets.into_iter().enumerate() {
        rig.backend.shutdown(&socket, index % 2 == 0);
        let errno = rig.connected(Token(index as u64));
        assert!(errno != 0 || index < 4 - waiting, "connect {index} has ended with {errno}");
        rig.backend.close(socket);
    }
    rig.finish();
}

fn many_connects_at_once<B: Subject>() {
    let mut rig = Rig::<B>::new();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = Address::Tcp(listener.local_addr().unwrap());
    let sockets: Vec<_> = (0..100)
        .map(|index| rig.backend.connect(&address, &ConnectOptions::default(), Token(index)).unwrap())
        .collect();
    for index in 0..100 {
        assert_eq!(rig.connected(Token(index)), 0);
    }
    for (index, socket) in sockets.iter().enumerate() {
        rig.backend.receive(socket, Token(index as u64));
    }
    rig.poll(&Out::default());
    assert!(rig.events.is_empty(), "{:?}", rig.events);
    for _ in &sockets {
        listener.accept().unwrap();
    }
    let mut ends = Vec::new();
    while ends.len() < sockets.len() {
        rig.turn(&Out::default());
        rig.sort(&mut [], &mut ends);
    }
    assert!(ends.iter().all(|(_, end)| *end == ReceiveEnd::Eof), "{ends:?}");
    rig.finish();
}
