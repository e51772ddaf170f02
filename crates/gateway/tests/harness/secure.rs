//! A client over TLS whose ciphertext the test can hold, cut and spoil on its way.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::{ClientConfig, ClientConnection, pki_types::ServerName};

use super::{
    PATIENCE,
    client::{ACCEPT, dial, request},
    frame::{self, Frame},
    inbox::{self, End, Inbox, Incoming, Received},
};

/// A connection over TLS.
pub(crate) struct Secure {
    pub(crate) connection: ClientConnection,
    pub(crate) stream: TcpStream,
    /// What was opened, and how TCP ended.
    pub(crate) inbox: Inbox,
    /// What this end found wrong, an alert of the gateway too.
    pub(crate) fault: Option<rustls::Error>,
    /// The gateway has said that it sends nothing more.
    pub(crate) notified: bool,
    /// What goes out in front of the handshake, in the clear: a PROXY header.
    pub(crate) preface: Vec<u8>,
}

impl Incoming for Secure {
    fn inbox(&mut self) -> &mut Inbox {
        &mut self.inbox
    }

    fn read_more(&mut self, until: Instant) -> bool {
        let Some(piece) = self.inbox.read(&self.stream, until) else { return false };
        let mut rest = &piece[..];
        while !rest.is_empty() && self.fault.is_none() {
            self.connection.read_tls(&mut rest).expect("a slice");
            match self.connection.process_new_packets() {
                Ok(state) => self.notified |= state.peer_has_closed(),
                Err(error) => self.fault = Some(error),
            }
            let _ = self.connection.reader().read_to_end(&mut self.inbox.bytes);
        }
        true
    }
}

impl Secure {
    /// Connects; the handshake has not begun.
    pub(crate) fn connect(address: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> Secure {
        Secure::over(dial(address), config, name)
    }

    /// Takes over a connection; the handshake has not begun.
    pub(crate) fn over(stream: TcpStream, config: &Arc<ClientConfig>, name: &str) -> Secure {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let connection = ClientConnection::new(Arc::clone(config), name).expect("a client");
        let (inbox, preface) = (Inbox::default(), Vec::new());
        Secure { connection, stream, inbox, fault: None, notified: false, preface }
    }

    /// Connects and upgrades at `path`.
    pub(crate) fn open(address: SocketAddr, config: &Arc<ClientConfig>, name: &str, path: &str) -> Secure {
        let mut client = Secure::connect(address, config, name);
        client.send(&request(path, ""));
        let head = client
            .head()
            .unwrap_or_else(|| panic!("no response: {:?} {:?}", client.inbox.ended, client.fault));
        assert!(head.starts_with("HTTP/1.1 101 ") && head.contains(ACCEPT), "{head}");
        client
    }

    /// Completes the handshake; what went wrong where it cannot be.
    pub(crate) fn shake(&mut self) -> Result<(), rustls::Error> {
        let until = Instant::now() + PATIENCE;
        while self.connection.is_handshaking() {
            self.flush();
            if !self.read_more(until) {
                let ended = || rustls::Error::General(format!("{:?}", self.inbox.ended));
                return Err(self.fault.clone().unwrap_or_else(ended));
            }
        }
        self.flush();
        Ok(())
    }

    /// The ciphertext that waits to be sent, taken from the connection.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.preface);
        while self.connection.wants_write() {
            self.connection.write_tls(&mut bytes).expect("a vector takes all");
        }
        bytes
    }

    /// Sends what waits to be sent. The gateway may be gone.
    pub(crate) fn flush(&mut self) {
        let bytes = self.take();
        let _ = self.stream.write_all(&bytes);
    }

    /// Seals bytes and sends them, behind the handshake.
    pub(crate) fn send(&mut self, plain: &[u8]) {
        if let Err(error) = self.shake() {
            panic!("the handshake has failed: {error}");
        }
        // The gateway may be gone.
        let _ = self.try_send(plain);
    }

    /// The same, unless the handshake fails, or the gateway is gone or takes nothing.
    pub(crate) fn try_send(&mut self, plain: &[u8]) -> std::io::Result<()> {
        self.shake().map_err(std::io::Error::other)?;
        let mut rest = plain;
        while !rest.is_empty() {
            let taken = self.connection.writer().write(rest)?;
            rest = &rest[taken..];
            let bytes = self.take();
            self.stream.write_all(&bytes)?;
        }
        Ok(())
    }

    /// The next response's head; nothing where the connection ends before.
    pub(crate) fn head(&mut self) -> Option<String> {
        inbox::head(self)
    }

    /// The head of a response that comes without a request.
    pub(crate) fn head_behind_handshake(&mut self) -> String {
        if let Err(error) = self.shake() {
            panic!("the handshake has failed: {error}");
        }
        self.head().unwrap_or_else(|| panic!("no response: {:?} {:?}", self.inbox.ended, self.fault))
    }

    /// The next frame, or the end.
    pub(crate) fn next(&mut self) -> Received {
        inbox::next_of_server_within(self, PATIENCE)
    }

    /// The next frame; must come.
    pub(crate) fn frame(&mut self) -> Frame {
        match self.next() {
            Received::Frame(frame) => frame,
            other => panic!("a frame was due, got {other:?}; {:?}", self.fault),
        }
    }

    /// Sends a message and takes its echo.
    pub(crate) fn exchange(&mut self, opcode: u8, payload: &[u8]) {
        self.send(&frame::masked(frame::FIN | opcode, payload));
        let frame = self.frame();
        assert!((frame.fin, frame.rsv, frame.opcode) == (true, 0, opcode), "{:?}", frame.opcode);
        assert!(frame.payload == payload, "{} bytes came back as {}", payload.len(), frame.payload.len());
    }

    /// Ends the session: Close frames, close_notify, FIN, each answered.
    pub(crate) fn close(mut self) {
        self.send(&frame::close(1000, b"bye"));
        assert_eq!(self.frame().close_code(), 1000);
        self.connection.send_close_notify();
        self.flush();
        self.finish();
        assert_eq!(self.end(), Some(End::Fin));
        assert!(self.notified, "the gateway's close_notify comes before its FIN");
    }

    /// This end's FIN.
    pub(crate) fn finish(&self) {
        // Fails where the peer has reset.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Discards what comes until TCP ends; `None` where it does not in time.
    pub(crate) fn end(&mut self) -> Option<End> {
        inbox::end_within(self, PATIENCE)
    }

    /// Whether nothing comes for this long.
    pub(crate) fn is_silent(&mut self, time: Duration) -> bool {
        !self.read_more(Instant::now() + time) && self.inbox.ended.is_none()
    }
}
