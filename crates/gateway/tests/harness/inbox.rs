//! What has come over a connection and was not taken yet: heads and frames, in order, up to the connection's end.

use std::{
    io::{ErrorKind, Read},
    net::TcpStream,
    time::{Duration, Instant},
};

use super::{
    PATIENCE,
    frame::{self, Frame},
};

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The peer's FIN.
    Fin,
    /// A reset.
    Reset,
}

/// What came next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// A frame.
    Frame(Frame),
    /// The end.
    End(End),
    /// Nothing in time.
    Nothing,
}

/// What waits to be taken.
#[derive(Default)]
pub(crate) struct Inbox {
    pub(crate) bytes: Vec<u8>,
    pub(crate) ended: Option<End>,
}

impl Inbox {
    /// Reads once from the socket, within the time: the piece that came; `None` where nothing did, or the end.
    pub(crate) fn read(&mut self, mut stream: &TcpStream, until: Instant) -> Option<Vec<u8>> {
        let mut piece = vec![0; 1 << 16];
        while self.ended.is_none() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            stream.set_read_timeout(Some(left)).expect("a read time-out");
            match stream.read(&mut piece) {
                Ok(0) => self.ended = Some(End::Fin),
                Ok(len) => {
                    piece.truncate(len);
                    return Some(piece);
                }
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => return None,
                    _ => self.ended = Some(End::Reset),
                },
            }
        }
        None
    }
}

/// A connection with an inbox.
pub(crate) trait Incoming {
    fn inbox(&mut self) -> &mut Inbox;

    /// Reads more within the time; false: nothing more will come, or nothing came.
    fn read_more(&mut self, until: Instant) -> bool;
}

/// The next head with its empty line (RFC 9112 §2.1); `None` where the connection ends before, or nothing comes in time.
pub(crate) fn head(connection: &mut impl Incoming) -> Option<String> {
    let until = Instant::now() + PATIENCE;
    loop {
        let bytes = &mut connection.inbox().bytes;
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            return Some(String::from_utf8(bytes.drain(..end + 4).collect()).expect("a head is text"));
        }
        if !connection.read_more(until) {
            return None;
        }
    }
}

/// The next frame, or the end, within the time.
pub(crate) fn next_within(connection: &mut impl Incoming, time: Duration) -> Received {
    let until = Instant::now() + time;
    loop {
        if let Some(frame) = frame::take(&mut connection.inbox().bytes) {
            return Received::Frame(frame);
        }
        if !connection.read_more(until) {
            return connection.inbox().ended.map_or(Received::Nothing, Received::End);
        }
    }
}

/// The next frame of a server, which masks none (RFC 6455 §5.1), or the end, within the time.
pub(crate) fn next_of_server_within(connection: &mut impl Incoming, time: Duration) -> Received {
    let next = next_within(connection, time);
    if let Received::Frame(frame) = &next {
        assert!(!frame.masked, "a server masks no frame: {frame:?}");
    }
    next
}

/// Discards what comes until the connection ends; `None` where it does not within the time.
pub(crate) fn end_within(connection: &mut impl Incoming, time: Duration) -> Option<End> {
    let until = Instant::now() + time;
    while connection.read_more(until) {
        connection.inbox().bytes.clear();
    }
    connection.inbox().ended
}
