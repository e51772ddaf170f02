//! What both backends promise, on real sockets.

mod rig;

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
};

use tidegate_io::{Backend, Event, ListenerId, ReceiveEnd, Token};

use self::rig::{Out, Rig, Subject, pattern, read_exactly};

on_both!(accepts_receives_sends_and_closes);

fn accepts_receives_sends_and_closes<B: Subject>() {
    let mut rig = Rig::<B>::new();
    let address = rig.listen();
    let mut far = TcpStream::connect(address).unwrap();
    let (socket, peer) = rig.accepted();
    assert_eq!(peer, Some(far.local_addr().unwrap()));
    assert!(rustix::net::sockopt::tcp_nodelay(&socket).unwrap(), "inherited from the listener");
    let token = Token(7);
    rig.backend.receive(&socket, token);
    far.write_all(b"hello").unwrap();
    assert_eq!(rig.received(token), b"hello");
    assert!(rig.poll(&Out(vec![(&socket, vec![b"well met"])])).is_empty());
    assert_eq!(read_exactly(&mut far, 8), b"well met");
    rig.backend.shutdown_write(&socket);
    assert_eq!(far.read(&mut [0]).unwrap(), 0, "a FIN");
    far.write_all(b"still here").unwrap();
    assert_eq!(rig.received(token), b"still here", "half closed");
    far.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rig.ended(token), ReceiveEnd::Eof);
    rig.backend.close(socket);
    rig.poll(&Out::default());
    assert!(rig.events.is_empty(), "{:?}", rig.events);
    assert_eq!(rig.lent().lent, 0);
    assert_eq!(rig.backend.counters().stale, 0);
}
