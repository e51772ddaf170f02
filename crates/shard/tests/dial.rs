//! A name with several addresses: whole shards on real sockets, with addresses as a resolver would tell them.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use rustix::net::{AddressFamily, SocketType, bind, connect, getsockname, listen, socket, socket_with};
use tidegate_io::{Address, Backend, Epoll, EpollOptions, Uring, UringOptions};
use tidegate_shard::Plan;

mod running;

use crate::running::Running;

const PATIENCE: Duration = Duration::from_secs(60);

/// A shard in front of one upstream whose name has these addresses.
fn start<B: Backend<Listener = OwnedFd> + 'static>(
    make: fn() -> B,
    settings: &str,
    addresses: &[SocketAddr],
) -> Running<B> {
    let config = format!(
        "version = 1\n[[listener]]\nbind = '127.0.0.1:1'\n[[route]]\npath = '/'\n\
         proxy = {{ upstreams = ['ws://app.test'], retries = 0, {settings} }}\n"
    );
    let plan = Plan::new(tidegate_config::parse(&config, "test.toml").expect("a valid configuration"), 1);
    plan.set_addresses(0, 0, addresses.iter().copied().map(Address::Tcp).collect());
    Running::start(make, plan)
}

impl<B: Backend> Running<B> {
    /// The status that a client gets.
    fn ask(&self, fields: &str) -> u16 {
        let mut socket = TcpStream::connect(self.address).expect("the shard listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        let head = format!(
            "GET / HTTP/1.1\r\nHost: gw.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{fields}\r\n"
        );
        socket.write_all(head.as_bytes()).expect("the shard reads");
        let mut line = [0; 12];
        socket.read_exact(&mut line).expect("the shard answers");
        std::str::from_utf8(&line[9..]).ok().and_then(|code| code.parse().ok()).expect("a status")
    }
}

/// Upstreams that tell who was reached, and answer with a refusal, which is an answer as any other; or hang up.
fn upstreams(hangs_up: &[bool]) -> (Vec<SocketAddr>, Receiver<usize>) {
    let (sender, reached) = channel();
    let start = |(place, hangs_up): (usize, &bool)| {
        let (sender, hangs_up) = (sender.clone(), *hangs_up);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|len| len == 1) {
                    head.push(byte[0]);
                }
                if sender.send(place).is_err() {
                    return;
                }
                if !hangs_up {
                    let answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";
                    stream.write_all(answer).expect("the gateway reads");
                }
            }
        });
        address
    };
    (hangs_up.iter().enumerate().map(start).collect(), reached)
}

/// An address whose packets nobody answers: a listener whose queue is full.
struct BlackHole {
    address: SocketAddr,
    _sockets: Vec<OwnedFd>,
}

impl BlackHole {
    fn new() -> BlackHole {
        let listener = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        bind(&listener, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a free port");
        listen(&listener, 0).expect("a listener");
        let address = SocketAddr::try_from(getsockname(&listener).expect("it is bound")).expect("an address");
        let mut sockets = vec![listener];
        // Once the queue is full, connects stay pending.
        for _ in 0..8 {
            let flags = rustix::net::SocketFlags::NONBLOCK;
            let filler = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).expect("a socket");
            // In progress, which is what is wanted.
            let _ = connect(&filler, &address);
            sockets.push(filler);
        }
        BlackHole { address, _sockets: sockets }
    }
}

fn epoll() -> Epoll {
    Epoll::new(&EpollOptions::default()).expect("epoll is always there")
}

fn uring() -> Uring {
    Uring::new(&UringOptions::default()).expect("io_uring was there")
}

/// Plays on both backends; where io_uring is refused epoll alone is shown.
macro_rules! on_both {
    ($play:ident) => {
        $play(epoll);
        if Uring::new(&UringOptions::default()).is_ok() {
            $play(uring);
        }
    };
}

fn spread<B: Backend<Listener = OwnedFd> + 'static>(make: fn() -> B) {
    let (addresses, reached) = upstreams(&[false; 3]);
    let shard = start(make, "", &addresses);
    (0..6).for_each(|_| assert_eq!(shard.ask(""), 403));
    let places: Vec<usize> = reached.try_iter().collect();
    assert_eq!(places, [0, 1, 2, 0, 1, 2]);
    shard.stop();

    let shard = start(make, "balance = 'hash', hash_on = 'header:x-key'", &addresses);
    let round = || -> Vec<usize> {
        (0..40).for_each(|key| assert_eq!(shard.ask(&format!("X-Key: {key}\r\n")), 403));
        reached.try_iter().collect()
    };
    let first = round();
    assert_eq!(first, round(), "with a hash a key keeps its address");
    assert!((0..3).all(|place| first.contains(&place)), "{first:?}");
    shard.stop();
}

#[test]
fn sessions_are_spread_over_the_addresses_of_a_name() {
    on_both!(spread);
}

fn hang_up<B: Backend<Listener = OwnedFd> + 'static>(make: fn() -> B) {
    let (addresses, reached) = upstreams(&[true, true, false]);
    let shard = start(make, "fail_timeout = '1h'", &addresses);
    (0..3).for_each(|_| assert_eq!(shard.ask(""), 403));
    assert_eq!(reached.try_iter().collect::<Vec<_>>(), [0, 1, 2, 1, 2, 2]);
    shard.stop();

    let (addresses, reached) = upstreams(&[true, true]);
    let shard = start(make, "", &addresses);
    assert_eq!(shard.ask(""), 502);
    assert_eq!(reached.try_iter().collect::<Vec<_>>(), [0, 1], "each address once");
    shard.stop();
}

#[test]
fn who_hangs_up_before_the_answer_is_followed_by_the_next_address() {
    on_both!(hang_up);
}

fn black_hole<B: Backend<Listener = OwnedFd> + 'static>(make: fn() -> B) {
    let hole = BlackHole::new();
    let (good, reached) = upstreams(&[false]);
    // Nobody waits longer than the connect that finds out, and every other session does not wait at all.
    let shard = start(make, "connect_timeout = '200ms'", &[hole.address, good[0]]);
    (0..4).for_each(|_| assert_eq!(shard.ask(""), 403));
    assert_eq!(reached.try_iter().count(), 4);
    shard.stop();

    // All together: 100 ms + 200 ms + 300 ms, where all addresses would take two minutes and then be 502.
    let settings = "resolve_timeout = '100ms', connect_timeout = '200ms', handshake_timeout = '300ms'";
    let shard = start(make, settings, &[hole.address; 600]);
    assert_eq!(shard.ask(""), 504);
    shard.stop();
}

#[test]
fn all_tries_together_have_a_limit() {
    on_both!(black_hole);
}
