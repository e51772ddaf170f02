//! A backend under test, and ordinary blocking sockets at its other end.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::{
    io::Read,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    time::Duration,
};

use tidegate_io::{
    Backend, Epoll, EpollOptions, Event, ListenerId, ReceiveEnd, Remainder, Sends, Token, Uring,
    UringOptions, Waker,
};

/// Long enough that only a fault reaches it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Instantiates generic test bodies for both backends.
#[macro_export]
macro_rules! on_both {
    ($($test:ident),* $(,)?) => {
        mod uring {
            $(#[test] fn $test() { super::$test::<tidegate_io::Uring>(); })*
        }
        mod epoll {
            $(#[test] fn $test() { super::$test::<tidegate_io::Epoll>(); })*
        }
    };
}

/// A backend that tests can make.
pub trait Subject: Backend<Socket = OwnedFd, Listener = OwnedFd, Waker = Waker> + Sized {
    const IS_URING: bool;

    fn make(options: &UringOptions) -> Self;
}

impl Subject for Uring {
    const IS_URING: bool = true;

    fn make(options: &UringOptions) -> Self {
        Self::new(options).expect("these tests need a kernel that lets them have a ring")
    }
}

impl Subject for Epoll {
    const IS_URING: bool = false;

    fn make(options: &UringOptions) -> Self {
        Self::new(&EpollOptions { buffers: options.buffers }).unwrap()
    }
}

/// The sends of a turn.
#[derive(Default)]
pub struct Out<'a>(pub Vec<(&'a OwnedFd, Vec<&'a [u8]>)>);

impl Sends<OwnedFd> for Out<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn socket(&self, index: usize) -> &OwnedFd {
        self.0[index].0
    }

    fn pieces(&self, index: usize) -> impl Iterator<Item = &[u8]> {
        self.0[index].1.iter().copied()
    }
}

/// A backend with what its turns have brought and nobody has looked at yet.
pub struct Rig<B: Subject> {
    pub backend: B,
    pub events: Vec<Event<OwnedFd>>,
}

impl<B: Subject> Rig<B> {
    pub fn new() -> Self {
        Self::with(&UringOptions { buffers: 64, sq_entries: 64, cq_entries: 256 })
    }

    pub fn with(options: &UringOptions) -> Self {
        Self { backend: B::make(options), events: Vec::new() }
    }

    /// A turn that waits, but not for ever.
    pub fn turn(&mut self, out: &Out<'_>) -> Vec<Remainder> {
        let mut remainders = Vec::new();
        let deadline = self.backend.now() + PATIENCE;
        self.backend.turn(out, Some(deadline), &mut self.events, &mut remainders).unwrap();
        remainders
    }

    /// A turn that does not wait.
    pub fn poll(&mut self, out: &Out<'_>) -> Vec<Remainder> {
        let mut remainders = Vec::new();
        self.backend.turn(out, Some(Duration::ZERO), &mut self.events, &mut remainders).unwrap();
        remainders
    }

    /// Turns until an event is there that `pick` wants, and takes it out.
    pub fn until<T>(&mut self, mut pick: impl FnMut(&mut Event<OwnedFd>) -> Option<T>) -> T {
        let started = self.backend.now();
        loop {
            for index in 0..self.events.len() {
                if let Some(found) = pick(&mut self.events[index]) {
                    if let Event::Received { buffer, .. } = self.events.remove(index) {
                        self.backend.recycle(buffer);
                    }
                    return found;
                }
            }
            assert!(self.backend.now() - started < PATIENCE, "in vain; there is only {:?}", self.events);
            self.turn(&Out::default());
        }
    }

    pub fn ended(&mut self, wanted: Token) -> ReceiveEnd {
        self.until(|event| match event {
            Event::ReceiveEnded { token, end } if *token == wanted => Some(*end),
            _ => None,
        })
    }

    pub fn writable(&mut self, wanted: Token) {
        self.until(|event| matches!(event, Event::Writable { token } if *token == wanted).then_some(()));
    }

    pub fn connected(&mut self, wanted: Token) -> i32 {
        self.until(|event| match event {
            Event::Connected { token, errno } if *token == wanted => Some(*errno),
            _ => None,
        })
    }

    pub fn accepted(&mut self) -> (OwnedFd, Option<SocketAddr>) {
        let started = self.backend.now();
        loop {
            let accepted = |event: &Event<OwnedFd>| matches!(event, Event::Accepted { .. });
            if let Some(index) = self.events.iter().position(accepted) {
                let Event::Accepted { socket, peer, .. } = self.events.remove(index) else { unreachable!() };
                return (socket, peer);
            }
            assert!(self.backend.now() - started < PATIENCE, "in vain; there is only {:?}", self.events);
            self.turn(&Out::default());
        }
    }

    /// The next bytes of this token, whatever else comes meanwhile.
    pub fn received(&mut self, wanted: Token) -> Vec<u8> {
        self.until(|event| match event {
            Event::Received { token, buffer } if *token == wanted => Some(buffer.to_vec()),
            _ => None,
        })
    }

    /// Exactly this many bytes of this token.
    pub fn received_exactly(&mut self, wanted: Token, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            bytes.extend(self.received(wanted));
        }
        assert_eq!(bytes.len(), count);
        bytes
    }

    /// Listens on a fresh port of the loopback address, accepting.
    pub fn listen(&mut self) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        self.backend.listen(ListenerId(0), listener.into()).unwrap();
        self.backend.accept(ListenerId(0));
        self.poll(&Out::default());
        address
    }

    /// A connection: our end without anything armed, and the far end.
    pub fn pair(&mut self) -> (OwnedFd, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        far.set_nodelay(true).unwrap();
        far.set_read_timeout(Some(PATIENCE)).unwrap();
        (listener.accept().unwrap().0.into(), far)
    }

    /// Several of them, with the receives armed; the tokens are their positions.
    pub fn pairs(&mut self, count: usize) -> Vec<(OwnedFd, TcpStream)> {
        let pairs: Vec<_> = (0..count).map(|_| self.pair()).collect();
        for (index, (socket, _)) in pairs.iter().enumerate() {
            self.backend.receive(socket, Token(index as u64));
        }
        self.poll(&Out::default());
        pairs
    }

    /// Looks at everything that has come: bytes go to their token's stream, ends to `ends`.
    pub fn sort(&mut self, streams: &mut [Vec<u8>], ends: &mut Vec<(Token, ReceiveEnd)>) {
        for event in self.events.drain(..) {
            match event {
                Event::Received { token, buffer } => {
                    streams[token.0 as usize].extend_from_slice(&buffer);
                    self.backend.recycle(buffer);
                }
                Event::ReceiveEnded { token, end } => ends.push((token, end)),
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    /// What every test ends with: all buffers are back, and nothing came for nobody.
    pub fn finish(mut self) {
        self.poll(&Out::default());
        assert!(self.events.is_empty(), "{:?}", self.events);
        assert_eq!(self.backend.buffers().lent, 0, "lent buffers");
        assert_eq!(self.backend.counters().stale, 0, "stale completions");
    }
}

/// Bytes that differ from their neighbours at any distance up to 251.
pub fn pattern(count: usize, seed: usize) -> Vec<u8> {
    (0..count).map(|index| ((index + seed) % 251) as u8).collect()
}

/// Reads exactly `count` bytes.
pub fn read_exactly(far: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    far.read_exact(&mut bytes).unwrap();
    bytes
}
