//! A whole shard on epoll and real sockets, on the thread that counts: what a message takes from its event to its answer.
//! Valgrind knows epoll, not the ring; between the two lies the backend alone.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
};

use tidegate_io::{Backend, Epoll, EpollOptions, ListenerId, Wake, Waker};
use tidegate_shard::{Environment, Plan, Sender, Shard, log::Entry, mailbox, report::Cell};
use tidegate_wire::frame::Opcode;

use crate::paths::push;

/// How many sessions send a message each.
pub const SESSIONS: usize = 64;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// What is switched on beside the echo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum With {
    /// Nothing.
    Nothing,
    /// Rates of messages and bytes, and a route's limit of sessions.
    Limits,
    /// A token for each session.
    Identity,
    /// Counts by session and by route, as an admin listener has them.
    Metrics,
    /// All of it.
    All,
}

impl With {
    fn has(self, part: Self) -> bool {
        self == part || self == Self::All
    }

    fn config(self) -> String {
        let mut config = "version = 1\n[[listener]]\nbind = \"127.0.0.1:1\"\n".to_owned();
        let mut route = "[[route]]\npath = \"/*\"\necho = {}\n".to_owned();
        if self.has(Self::Limits) {
            config += "[limits]\nmessages_per_second = 1_000_000\nbytes_per_second = \"10GiB\"\n";
            route += "limits = { max_sessions = 1000 }\n";
        }
        if self.has(Self::Identity) {
            config += "[[identity]]\nname = \"callers\"\nsecret = \"0123456789abcdef0123456789abcdef\"\n\
                algorithms = [\"HS256\"]\ntoken = [\"query:token\"]\n";
            route += "identity = \"callers\"\n";
        }
        config + &route
    }
}

/// HS256 with that secret, until 2100.
const TOKEN: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJsb2FkIiwiZXhwIjo0MTAyNDQ0ODAwfQ.ffQ3363QpGw2eYCkM7ZKCPXcQifQx9btUkll5a9Kfb4";

struct Quiet;

impl Environment for Quiet {
    fn random(&mut self, out: &mut [u8]) {
        out.fill(7);
    }

    fn unix_seconds(&self) -> u64 {
        1_800_000_000
    }

    fn log(&mut self, _: Entry) {}
}

/// A shard with its sessions, each of which has sent a message.
pub struct Whole {
    shard: Shard<Epoll, Quiet>,
    waker: Waker,
    /// It would end with its last sender.
    _sender: Sender<Waker>,
    clients: Vec<TcpStream>,
    question: Vec<u8>,
    answer: Vec<u8>,
}

impl Whole {
    /// With so much switched on.
    ///
    /// # Panics
    /// Where a session does not come about.
    #[must_use]
    pub fn new(with: With) -> Self {
        let plan = Plan::new(
            tidegate_config::parse(&with.config(), "bench.toml").expect("a valid configuration"),
            1,
        );
        let backend = Epoll::new(&EpollOptions::default()).expect("epoll");
        let waker = backend.waker();
        let (sender, inbox) = mailbox(backend.waker());
        let mut shard = Shard::new(0, backend, Quiet, plan, inbox, 2 * SESSIONS);
        if with.has(With::Metrics) {
            shard.account_to(Arc::new(Cell::default()));
        }
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("it is bound");
        shard.listen(ListenerId(0), listener.into()).expect("a listener");
        let text = [b'x'; 64];
        let (mut question, mut answer) = (Vec::new(), Vec::new());
        push(&mut question, Opcode::Text, Some(MASK), &text);
        push(&mut answer, Opcode::Text, None, &text);
        let mut whole = Self { shard, waker, _sender: sender, clients: Vec::new(), question, answer };
        for _ in 0..SESSIONS {
            let client = whole.open(address);
            whole.clients.push(client);
        }
        // Once for the buffers, and once more for what grows with them.
        for _ in 0..2 {
            whole.ask();
            whole.turn();
            whole = whole.check();
        }
        whole.ask();
        whole
    }

    fn open(&mut self, address: SocketAddr) -> TcpStream {
        let mut client = TcpStream::connect(address).expect("it listens");
        client.set_nodelay(true).expect("TCP");
        let head = format!(
            "GET /?token={TOKEN} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        client.write_all(head.as_bytes()).expect("there is room");
        client.set_nonblocking(true).expect("a socket");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            self.step();
            let mut part = [0; 1024];
            match client.read(&mut part) {
                Ok(len) => answer.extend_from_slice(&part[..len]),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
        client
    }

    /// One turn, which does not wait.
    fn step(&mut self) {
        self.waker.wake();
        self.shard.step().expect("epoll works");
    }

    /// Every client sends its message.
    fn ask(&mut self) {
        for client in &mut self.clients {
            client.write_all(&self.question).expect("there is room");
        }
    }

    /// Every message is read and answered: this is what is counted.
    ///
    /// # Panics
    /// Where epoll does not work.
    pub fn turn(&mut self) {
        let all = self.shard.counters().messages + SESSIONS as u64;
        while self.shard.counters().messages < all {
            self.step();
        }
        // What was put together goes to the kernel at the next turn's start, and is settled behind it.
        self.step();
    }

    /// Every client has its answer, and nothing else.
    ///
    /// # Panics
    /// Where one has not.
    pub fn check(mut self) -> Self {
        for client in &mut self.clients {
            let mut part = [0; 1024];
            let len = client.read(&mut part).expect("an answer");
            assert_eq!(part[..len], self.answer);
        }
        self
    }
}
