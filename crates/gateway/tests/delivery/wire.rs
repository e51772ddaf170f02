//! A connection that is never waited for: what came is taken, what goes out goes as the kernel takes it.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use socket2::{Domain, SockRef, Socket, Type};

use crate::harness::{
    deflate,
    frame::{self, BINARY, CLOSE, FIN, PING, PONG, TEXT},
};

/// What is read of one connection before another's turn.
const MOST_READ: usize = 1 << 20;
const PIECE: usize = 16 << 10;

/// A message of a WebSocket.
#[derive(Debug)]
pub(crate) enum Message {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Close(u16),
}

/// How much the kernels on both sides take for a connection that is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Window {
    /// As they see fit: some MiB.
    Large,
    /// Some tens of KiB, so that who does not read is soon behind.
    Small,
}

pub(crate) struct Wire {
    stream: TcpStream,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
    /// The status and the length of the body that comes.
    due: Option<(u16, usize)>,
    pub(crate) ended: bool,
}

impl Wire {
    pub(crate) fn connect(address: SocketAddr, window: Window) -> Wire {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
        if window == Window::Small {
            socket.set_recv_buffer_size(4 << 10).expect("SO_RCVBUF");
            // What a kernel sends ahead at most is counted in segments, and those of loopback are 64 KiB.
            socket.set_tcp_mss(1_000).expect("TCP_MAXSEG");
        }
        socket.connect(&address.into()).expect("connect on loopback");
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true).expect("TCP_NODELAY");
        stream.set_nonblocking(true).expect("O_NONBLOCK");
        Wire { stream, outgoing: Vec::new(), incoming: Vec::new(), due: None, ended: false }
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub(crate) fn has_output(&self) -> bool {
        !self.outgoing.is_empty()
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.outgoing.extend_from_slice(bytes);
        self.flush();
    }

    /// A masked message.
    pub(crate) fn say(&mut self, opcode: u8, payload: &[u8]) {
        self.send(&frame::masked(FIN | opcode, payload));
    }

    pub(crate) fn flush(&mut self) {
        while !self.outgoing.is_empty() {
            match self.stream.write(&self.outgoing) {
                Ok(count) => drop(self.outgoing.drain(..count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    // Where the peer is gone, reading tells.
                    if error.kind() != ErrorKind::WouldBlock {
                        self.outgoing.clear();
                    }
                    return;
                }
            }
        }
    }

    /// Takes what has come.
    pub(crate) fn read(&mut self) {
        let mut piece = vec![0; PIECE];
        let mut room = MOST_READ;
        while room > 0 && !self.ended {
            match self.stream.read(&mut piece) {
                Ok(0) => self.ended = true,
                Ok(count) => {
                    self.incoming.extend_from_slice(&piece[..count]);
                    room = room.saturating_sub(count);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.ended = true,
            }
        }
    }

    /// Ends it with a reset.
    pub(crate) fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
    }

    /// The head of a response: its status, and the length of its body where it has one.
    pub(crate) fn head(&mut self) -> Option<(u16, Option<usize>)> {
        let end = self.incoming.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let head = String::from_utf8(self.incoming.drain(..end).collect()).expect("a head is text");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        let length = head.lines().filter_map(|line| line.split_once(':')).find_map(|(name, value)| {
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().expect("digits"))
        });
        Some((status.unwrap_or_else(|| panic!("a status line: {head}")), length))
    }

    /// The next answer whose body has a length, once all of it is there: its status, and its body.
    pub(crate) fn answer(&mut self) -> Option<(u16, Vec<u8>)> {
        if self.due.is_none() {
            let (status, length) = self.head()?;
            self.due = Some((status, length.expect("an answer has a length")));
        }
        let (status, length) = self.due.filter(|(_, length)| *length <= self.incoming.len())?;
        self.due = None;
        Some((status, self.incoming.drain(..length).collect()))
    }

    /// The next message; pings are answered.
    pub(crate) fn message(&mut self) -> Option<Message> {
        loop {
            let frame = frame::take(&mut self.incoming)?;
            assert!(frame.fin && !frame.masked, "a server's whole message: {frame:?}");
            let payload = match frame.rsv {
                0 => frame.payload,
                4 => deflate::inflate(&frame.payload),
                _ => panic!("reserved bits: {}", frame.rsv),
            };
            match frame.opcode {
                TEXT => return Some(Message::Text(payload)),
                BINARY => return Some(Message::Binary(payload)),
                PING => self.say(PONG, &payload),
                PONG => {}
                CLOSE => {
                    self.say(CLOSE, &payload);
                    return Some(Message::Close(
                        payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code)),
                    ));
                }
                other => panic!("opcode {other}"),
            }
        }
    }

    /// The next chunk of a body (RFC 9112 §7.1); empty for the last.
    pub(crate) fn chunk(&mut self) -> Option<Vec<u8>> {
        let end = self.incoming.windows(2).position(|two| two == b"\r\n")?;
        let size = std::str::from_utf8(&self.incoming[..end]).expect("a size");
        let size = usize::from_str_radix(size, 16).unwrap_or_else(|_| panic!("a size: {size}"));
        let whole = end + 2 + size + 2;
        if self.incoming.len() < whole {
            return None;
        }
        assert_eq!(self.incoming[whole - 2..whole], *b"\r\n");
        let chunk = self.incoming[end + 2..end + 2 + size].to_vec();
        self.incoming.drain(..whole);
        Some(chunk)
    }
}
