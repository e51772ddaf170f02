//! Scripted upstreams: each connection is handed to a function, on a thread of its own.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Receiver, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use rustls::{ServerConfig, ServerConnection};
use sha1::{Digest, Sha1};

use super::{
    PATIENCE,
    frame::{self, CLOSE, FIN, PING, PONG},
    inbox::{self, End, Inbox, Incoming, Received},
};

/// A listener whose connections run `script`.
pub(crate) struct Upstream {
    address: SocketAddr,
    is_secure: bool,
    accepted: Arc<AtomicUsize>,
    stopping: Arc<AtomicBool>,
    failures: Arc<Mutex<Vec<String>>>,
    acceptor: Option<JoinHandle<()>>,
}

impl Upstream {
    /// Starts one on a port that the kernel chooses.
    pub(crate) fn start(script: impl Fn(Connection) + Send + Sync + 'static) -> Upstream {
        Upstream::start_with(None, script)
    }

    /// One that speaks TLS, where it is given how.
    pub(crate) fn start_with(
        secure: Option<Arc<ServerConfig>>,
        script: impl Fn(Connection) + Send + Sync + 'static,
    ) -> Upstream {
        let is_secure = secure.is_some();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let address = listener.local_addr().expect("a bound socket");
        let accepted = Arc::new(AtomicUsize::new(0));
        let stopping = Arc::new(AtomicBool::new(false));
        let failures = Arc::new(Mutex::new(Vec::new()));
        let script = Arc::new(script);
        let acceptor = std::thread::spawn({
            let (accepted, stopping) = (Arc::clone(&accepted), Arc::clone(&stopping));
            let failures = Arc::clone(&failures);
            move || {
                for stream in listener.incoming() {
                    if stopping.load(Ordering::SeqCst) {
                        return;
                    }
                    let stream = stream.expect("accept on loopback");
                    stream.set_nodelay(true).expect("TCP_NODELAY");
                    stream.set_write_timeout(Some(PATIENCE)).expect("a write time-out");
                    accepted.fetch_add(1, Ordering::SeqCst);
                    let (script, failures) = (Arc::clone(&script), Arc::clone(&failures));
                    let connection = Connection::new(stream, secure.as_ref());
                    std::thread::spawn(move || {
                        let run = std::panic::AssertUnwindSafe(|| script(connection));
                        if let Err(panic) = std::panic::catch_unwind(run) {
                            let text = panic.downcast_ref::<String>().cloned();
                            failures
                                .lock()
                                .expect("a lock")
                                .push(text.unwrap_or_else(|| "a panic".to_owned()));
                        }
                    });
                }
            }
        });
        Upstream { address, is_secure, accepted, stopping, failures, acceptor: Some(acceptor) }
    }

    /// One that upgrades every connection and echoes every message.
    pub(crate) fn echo() -> Upstream {
        Upstream::start(|mut connection| {
            if connection.upgrade() {
                connection.echo();
            }
        })
    }

    /// The same, and the head of each request, which is told before it is answered.
    pub(crate) fn telling() -> (Upstream, Receiver<String>) {
        let (sender, heads) = channel();
        let upstream = Upstream::start(move |mut connection| {
            let Some(head) = connection.head() else { return };
            let answer = switching_protocols(&head, "");
            // The test may be over.
            let _ = sender.send(head);
            connection.send(answer.as_bytes());
            connection.echo();
        });
        (upstream, heads)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// As a configuration names it.
    pub(crate) fn url(&self) -> String {
        format!("{}://{}", if self.is_secure { "wss" } else { "ws" }, self.address)
    }

    /// Connections so far.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// What scripts complained about.
    pub(crate) fn failures(&self) -> Vec<String> {
        self.failures.lock().expect("a lock").clone()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // Wakes the acceptor.
        let _ = std::net::TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

/// One connection of the gateway to an upstream.
pub(crate) struct Connection {
    stream: std::net::TcpStream,
    inbox: Inbox,
    pub(crate) secure: Option<Sealed>,
}

/// An upstream's TLS.
pub(crate) struct Sealed {
    pub(crate) connection: ServerConnection,
    /// What this end found wrong, an alert of the gateway too.
    pub(crate) fault: Option<rustls::Error>,
    /// The gateway has said that it sends nothing more.
    pub(crate) notified: bool,
}

impl Incoming for Connection {
    fn inbox(&mut self) -> &mut Inbox {
        &mut self.inbox
    }

    fn read_more(&mut self, until: Instant) -> bool {
        let Some(piece) = self.inbox.read(&self.stream, until) else { return false };
        let Some(Sealed { connection, fault, notified }) = &mut self.secure else {
            self.inbox.bytes.extend(piece);
            return true;
        };
        let mut rest = &piece[..];
        while !rest.is_empty() && fault.is_none() {
            connection.read_tls(&mut rest).expect("a slice");
            match connection.process_new_packets() {
                Ok(state) => *notified |= state.peer_has_closed(),
                Err(error) => *fault = Some(error),
            }
            let _ = connection.reader().read_to_end(&mut self.inbox.bytes);
        }
        self.flush();
        true
    }
}

impl Connection {
    fn new(stream: std::net::TcpStream, secure: Option<&Arc<ServerConfig>>) -> Connection {
        let secure = secure.map(|config| {
            let mut connection = ServerConnection::new(Arc::clone(config)).expect("a server");
            connection.set_buffer_limit(None);
            Sealed { connection, fault: None, notified: false }
        });
        Connection { stream, inbox: Inbox::default(), secure }
    }

    /// Completes the handshake of TLS, where there is one; false where it cannot be.
    pub(crate) fn shake(&mut self) -> bool {
        let until = Instant::now() + PATIENCE;
        while self.secure.as_ref().is_some_and(|secure| secure.connection.is_handshaking()) {
            if !self.read_more(until) || self.secure.as_ref().is_some_and(|secure| secure.fault.is_some()) {
                return false;
            }
        }
        true
    }

    /// Sends what TLS has to say; false where the gateway is gone.
    fn flush(&mut self) -> bool {
        let Some(secure) = &mut self.secure else { return true };
        while secure.connection.wants_write() {
            if secure.connection.write_tls(&mut self.stream).is_err() {
                return false;
            }
        }
        true
    }

    /// The socket, past TLS.
    pub(crate) fn stream(&self) -> &std::net::TcpStream {
        &self.stream
    }

    /// This end's last word: close_notify where there is TLS, and the FIN.
    pub(crate) fn finish(&mut self) {
        if let Some(secure) = &mut self.secure {
            secure.connection.send_close_notify();
        }
        self.flush();
        // Fails where the peer has reset.
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
    }

    /// The gateway's end of it.
    pub(crate) fn peer(&self) -> SocketAddr {
        self.stream.peer_addr().expect("a connected socket")
    }

    /// Sends all; false where the gateway is gone.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> bool {
        match &mut self.secure {
            None => self.stream.write_all(bytes).is_ok(),
            Some(secure) => {
                secure.connection.writer().write_all(bytes).expect("a buffer without a bound");
                self.flush()
            }
        }
    }

    /// The gateway's request head; `None` where it ends before.
    pub(crate) fn head(&mut self) -> Option<String> {
        inbox::head(self)
    }

    /// Takes the request and answers a correct 101; false where there was none.
    pub(crate) fn upgrade(&mut self) -> bool {
        let Some(head) = self.head() else { return false };
        self.send(&switching_protocols(&head, "").into_bytes())
    }

    /// Echoes messages frame by frame, answers pings and the Close.
    pub(crate) fn echo(&mut self) {
        while let Received::Frame(frame) = self.next() {
            assert!(frame.masked, "the gateway is this leg's client: {frame:?}");
            match frame.opcode {
                PING => self.send(&frame::plain(FIN | PONG, &frame.payload)),
                PONG => true,
                CLOSE => {
                    self.send(&frame::plain(FIN | CLOSE, &frame.payload));
                    return;
                }
                opcode => {
                    let first = if frame.fin { FIN } else { 0 } | frame.rsv << 4 | opcode;
                    self.send(&frame::plain(first, &frame.payload))
                }
            };
        }
    }

    /// The next frame of the gateway, or the end.
    pub(crate) fn next(&mut self) -> Received {
        self.next_within(Duration::from_secs(60))
    }

    /// The next frame of the gateway, or the end, within the time.
    pub(crate) fn next_within(&mut self, time: Duration) -> Received {
        inbox::next_within(self, time)
    }

    /// Bytes received that are no whole frame yet.
    pub(crate) fn unread(&self) -> &[u8] {
        &self.inbox.bytes
    }

    /// Reads more; false where nothing comes within the time, or the end did.
    pub(crate) fn receive_within(&mut self, time: Duration) -> bool {
        self.read_more(Instant::now() + time)
    }

    /// From now on a send fails where the gateway takes nothing for this long.
    pub(crate) fn stall_after(&self, time: Duration) {
        self.stream.set_write_timeout(Some(time)).expect("a write time-out");
    }

    /// Discards until the gateway ends the connection; `None` where it does not within the time.
    pub(crate) fn end_within(&mut self, time: Duration) -> Option<End> {
        inbox::end_within(self, time)
    }
}

/// A field's value in a request head.
pub(crate) fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}

/// What a request's key must be answered with (RFC 6455 §4.2.2).
pub(crate) fn accept(head: &str) -> String {
    let key = field(head, "sec-websocket-key").expect("the gateway sends a key");
    BASE64_STANDARD.encode(Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11")))
}

/// A correct 101 to a request head, with more fields (each ended by CRLF).
pub(crate) fn switching_protocols(head: &str, fields: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n{fields}\r\n",
        accept(head)
    )
}
