//! A raw client, over TLS or without: it sends any bytes, and says exactly what came back.

use std::{
    io::Write,
    net::{IpAddr, Shutdown, SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::ClientConfig;

pub(crate) use super::inbox::{End, Received};
use super::{
    PATIENCE,
    frame::{self, Frame},
    inbox::{self, Inbox, Incoming},
    secure::Secure,
};

/// Where a client connects to, and how.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// What trusts the listener's certificate, where it speaks TLS.
    pub(crate) tls: Option<Arc<ClientConfig>>,
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Target {
        Target { address, tls: None }
    }
}

/// A response head, and its body where it has a length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// The values of a field, in order.
    pub(crate) fn fields(&self, name: &str) -> Vec<&str> {
        self.head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
            .collect()
    }

    /// The value of a field that comes once.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let values = self.fields(name);
        assert!(values.len() < 2, "{name} comes more than once: {}", self.head);
        values.first().copied()
    }
}

/// A raw connection.
pub(crate) struct Client(Transport);

enum Transport {
    Plain {
        stream: TcpStream,
        inbox: Inbox,
        /// What goes out in front of the first bytes, in one piece with them.
        preface: Vec<u8>,
    },
    Tls(Box<Secure>),
}

impl Incoming for Client {
    fn inbox(&mut self) -> &mut Inbox {
        match &mut self.0 {
            Transport::Plain { inbox, .. } => inbox,
            Transport::Tls(secure) => &mut secure.inbox,
        }
    }

    fn read_more(&mut self, until: Instant) -> bool {
        match &mut self.0 {
            Transport::Plain { stream, inbox, .. } => {
                let piece = inbox.read(stream, until);
                inbox.bytes.extend_from_slice(piece.as_deref().unwrap_or_default());
                piece.is_some()
            }
            Transport::Tls(secure) => {
                let more = secure.read_more(until);
                match &secure.fault {
                    None | Some(rustls::Error::AlertReceived(_)) => more,
                    Some(fault) => panic!("what the gateway sent is no TLS: {fault}"),
                }
            }
        }
    }
}

/// Connects a socket that sends each piece at once, and waits for room for a while.
pub(crate) fn dial(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connect on loopback");
    stream.set_nodelay(true).expect("TCP_NODELAY");
    stream.set_write_timeout(Some(PATIENCE)).expect("a write time-out");
    stream
}

impl Client {
    /// Connects. Over TLS the handshake begins with the first bytes to be sent.
    pub(crate) fn connect(target: impl Into<Target>) -> Client {
        let target = target.into();
        let stream = dial(target.address);
        match target.tls {
            None => Client::from_stream(stream),
            Some(config) => Client(Transport::Tls(Box::new(Secure::over(stream, &config, "gw.test")))),
        }
    }

    /// Connects from this local address.
    pub(crate) fn connect_from(local: IpAddr, address: SocketAddr) -> Client {
        let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)
            .expect("a socket");
        socket.bind(&SocketAddr::new(local, 0).into()).expect("a loopback address");
        socket.connect(&address.into()).expect("connect on loopback");
        Client::from_stream(socket.into())
    }

    /// Takes over a connection.
    pub(crate) fn from_stream(stream: TcpStream) -> Client {
        Client(Transport::Plain { stream, inbox: Inbox::default(), preface: Vec::new() })
    }

    /// Connects, upgrades at `path` and checks the 101.
    pub(crate) fn open(target: impl Into<Target>, path: &str) -> Client {
        Client::open_with(target, path, "").0
    }

    /// As [`open`](Client::open), with more request fields (each ended by CRLF); gives the response too.
    pub(crate) fn open_with(target: impl Into<Target>, path: &str, fields: &str) -> (Client, Response) {
        let mut client = Client::connect(target);
        client.send(&request(path, fields));
        let response = client.response().unwrap_or_else(|end| panic!("no response at {path}: {end:?}"));
        assert_eq!(response.status, 101, "{path} {fields}: {response:?}");
        assert_eq!(response.field("sec-websocket-accept"), Some(ACCEPT), "{}", response.head);
        (client, response)
    }

    /// Puts bytes in front of the first ones to be sent, in one piece with them; over TLS they are in the clear.
    pub(crate) fn precede(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Transport::Plain { preface, .. } => bytes.clone_into(preface),
            Transport::Tls(secure) => bytes.clone_into(&mut secure.preface),
        }
    }

    /// This end's address, as logs name it.
    pub(crate) fn local(&self) -> SocketAddr {
        self.stream().local_addr().expect("a connected socket")
    }

    /// The socket.
    pub(crate) fn stream(&self) -> &TcpStream {
        match &self.0 {
            Transport::Plain { stream, .. } => stream,
            Transport::Tls(secure) => &secure.stream,
        }
    }

    /// Sends all; must succeed.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).expect("the peer takes what is sent");
    }

    /// Sends all, unless the peer is gone or takes nothing.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match &mut self.0 {
            Transport::Plain { stream, preface, .. } if preface.is_empty() => stream.write_all(bytes),
            Transport::Plain { stream, preface, .. } => {
                stream.write_all(&[&std::mem::take(preface)[..], bytes].concat())
            }
            Transport::Tls(secure) => secure.try_send(bytes),
        }
    }

    /// Sends bytes one by one, each in a segment of its own, over TLS in a record.
    pub(crate) fn send_byte_by_byte(&mut self, bytes: &[u8]) {
        bytes.chunks(1).for_each(|byte| self.send(byte));
    }

    /// This end's FIN; over TLS nothing is said before it.
    pub(crate) fn finish(&self) {
        // Fails where the peer has reset.
        let _ = self.stream().shutdown(Shutdown::Write);
    }

    /// Ends the connection with a reset.
    pub(crate) fn reset(self) {
        let socket = socket2::SockRef::from(self.stream());
        socket.set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
    }

    /// Whether the end that came can be told from one that an attacker makes: over TLS close_notify comes before a FIN
    /// (RFC 8446 §6.1).
    pub(crate) fn is_end_told(&self) -> bool {
        match &self.0 {
            Transport::Plain { .. } => true,
            Transport::Tls(secure) => secure.notified,
        }
    }

    /// The next response; `Err` where the connection ended (`None`: not in time) before it was complete.
    pub(crate) fn response(&mut self) -> Result<Response, Option<End>> {
        let until = Instant::now() + PATIENCE;
        let head = match inbox::head(self) {
            Some(head) => head,
            None => return Err(self.inbox().ended),
        };
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.unwrap_or_else(|| panic!("a status line: {head}"));
        let mut response = Response { status, head, body: Vec::new() };
        let len: usize = response.field("content-length").map_or(0, |len| len.parse().expect("a length"));
        while self.inbox().bytes.len() < len {
            if !self.read_more(until) {
                return Err(self.inbox().ended);
            }
        }
        response.body = self.inbox().bytes.drain(..len).collect();
        Ok(response)
    }

    /// The next chunk of a body (RFC 9112 §7.1); empty for the last.
    pub(crate) fn chunk(&mut self) -> Vec<u8> {
        let until = Instant::now() + PATIENCE;
        loop {
            let bytes = &mut self.inbox().bytes;
            if let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") {
                let size = std::str::from_utf8(&bytes[..end]).expect("a size");
                let size = usize::from_str_radix(size, 16).unwrap_or_else(|_| panic!("a size: {size}"));
                let whole = end + 2 + size + 2;
                if bytes.len() >= whole {
                    let chunk = bytes[end + 2..end + 2 + size].to_vec();
                    assert_eq!(bytes[whole - 2..whole], *b"\r\n");
                    bytes.drain(..whole);
                    return chunk;
                }
            }
            assert!(self.read_more(until), "a chunk was due; the connection: {:?}", self.inbox().ended);
        }
    }

    /// The next frame, or the end.
    pub(crate) fn next(&mut self) -> Received {
        self.next_within(PATIENCE)
    }

    /// The next frame, or the end, within the time.
    pub(crate) fn next_within(&mut self, time: Duration) -> Received {
        inbox::next_of_server_within(self, time)
    }

    /// The next frame; must come.
    pub(crate) fn frame(&mut self) -> Frame {
        match self.next() {
            Received::Frame(frame) => frame,
            other => panic!("a frame was due, got {other:?}; unread {:?}", self.inbox().bytes),
        }
    }

    /// The next message of this kind, whole and not compressed.
    pub(crate) fn message(&mut self, opcode: u8) -> Vec<u8> {
        let frame = self.frame();
        assert_eq!((frame.fin, frame.rsv, frame.opcode), (true, 0, opcode), "{frame:?}");
        frame.payload
    }

    /// Sends a message and takes its echo.
    pub(crate) fn exchange(&mut self, opcode: u8, payload: &[u8]) {
        self.send(&frame::masked(frame::FIN | opcode, payload));
        assert_eq!(self.message(opcode), payload);
    }

    /// Discards what comes until the connection ends; `None` where it does not within the time.
    pub(crate) fn end_within(&mut self, time: Duration) -> Option<End> {
        inbox::end_within(self, time)
    }

    /// Waits for anything to read, or the end; false where neither comes within the time.
    pub(crate) fn end_or_data_within(&mut self, time: Duration) -> bool {
        let until = Instant::now() + time;
        // What comes over TLS need not be data: tickets are not.
        while self.inbox().bytes.is_empty() && self.inbox().ended.is_none() {
            if !self.read_more(until) {
                return self.inbox().ended.is_some();
            }
        }
        true
    }

    /// Whether there is anything to read, or the end, without waiting.
    pub(crate) fn has_data(&self) -> bool {
        let inbox = match &self.0 {
            Transport::Plain { inbox, .. } => inbox,
            Transport::Tls(secure) => &secure.inbox,
        };
        if !inbox.bytes.is_empty() {
            return true;
        }
        self.stream().set_nonblocking(true).expect("a socket");
        let peeked = self.stream().peek(&mut [0]);
        self.stream().set_nonblocking(false).expect("a socket");
        !matches!(peeked, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    }

    /// Whether nothing but the end is left to read.
    pub(crate) fn is_drained(&mut self) -> bool {
        self.inbox().bytes.is_empty()
    }

    /// The closing handshake from this end: the echo of the code, then the server's FIN.
    pub(crate) fn close(mut self, code: u16) {
        self.send(&frame::close(code, b""));
        let answer = self.frame();
        assert_eq!((answer.opcode, answer.close_code()), (frame::CLOSE, code));
        assert_eq!(self.next(), Received::End(End::Fin), "the server closes first (RFC 6455 §7.1.1)");
        assert!(self.is_end_told(), "a FIN without close_notify before it");
    }
}

/// The nonce of RFC 6455 §1.3.
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// What it must be answered with.
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A correct request for an upgrade, with more fields (each ended by CRLF).
pub(crate) fn request(path: &str, fields: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: gw.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{fields}\r\n"
    )
    .into_bytes()
}
