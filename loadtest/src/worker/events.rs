//! What the kernel reports, and what the sessions' sockets do.

use std::io;

use rustix::io::Errno;
use tidegate_io::{Address, Backend, Buffer, ConnectOptions, Event, ReceiveEnd, Token, Waker};
use tidegate_wire::handshake::{Offer, client_request};

use super::Worker;
use crate::{
    fault::Fault,
    schedule::Key,
    session::{Session, Stage},
    tally::Tally,
    transport::Transport,
    visits::Slot,
};

/// A session's name for the backend: the last 24 bits of its serial number above its place.
pub(super) fn token(key: Key) -> Token {
    Token(u64::from(key.serial & 0x00ff_ffff) << 32 | u64::from(key.index))
}

/// What an error of a connect means.
fn connect_fault(errno: i32) -> Fault {
    match Errno::from_raw_os_error(errno) {
        Errno::CONNREFUSED => Fault::ConnectRefused,
        Errno::TIMEDOUT => Fault::ConnectTimeout,
        Errno::ADDRNOTAVAIL | Errno::ADDRINUSE => Fault::NoPorts,
        Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS => Fault::NoDescriptors,
        _ => Fault::ConnectFailed,
    }
}

/// Tells why a connection could not be made, where the kind of fault leaves that open.
fn give_connect_reason(tally: &mut Tally, fault: Fault, error: &io::Error) {
    if matches!(fault, Fault::ConnectFailed | Fault::NoPorts | Fault::NoDescriptors) {
        tally.give_reason(fault, error.to_string().as_bytes());
    }
}

impl<B: Backend<Waker = Waker>> Worker<B> {
    /// The one `match` on what the kernel reports.
    pub(super) fn handle(&mut self, event: Event<B::Socket>) {
        match event {
            Event::Received { token, buffer } => self.received(token, buffer),
            Event::ReceiveEnded { token, end } => self.receive_ended(token, end),
            Event::Writable { token } => {
                let Some(key) = self.key(token) else { return };
                let slot = &mut self.slots[key.index as usize];
                slot.polling = false;
                slot.blocked = false;
                self.touch(key.index as usize, |session, cx| session.handle_writable(cx.now_ns));
            }
            Event::Connected { token, errno } => self.connected(token, errno),
            // Orders are looked for in each turn.
            Event::Woken => {}
            Event::Accepted { socket, .. } => self.backend.close(socket),
            Event::AcceptEnded { .. } => {}
        }
    }

    /// Begins sessions.
    pub(super) fn connect_what_is_due(&mut self) {
        while let Some((serial, due_ns)) = self.origin.poll_next(self.pending, self.slots.len(), self.now_ns)
        {
            self.connect(serial, due_ns);
        }
    }

    fn connect(&mut self, serial: u32, due_ns: u64) {
        let sources = &self.plan.sources;
        let source = (!sources.is_empty()).then(|| {
            let threads = self.plan.threads as usize;
            sources[((serial & 0x00ff_ffff) as usize * threads + self.index) % sources.len()]
        });
        let key = Key { index: self.slots.vacant_key() as u32, serial };
        let address = Address::Tcp(self.plan.address);
        match self.backend.connect(&address, &ConnectOptions { source }, token(key)) {
            Ok(socket) => {
                let mut session = Session::new(serial, due_ns, self.now_ns, &self.rules);
                self.seat(&mut session);
                self.slots.vacant_entry().insert(Slot {
                    socket,
                    session,
                    transport: Transport::Plain,
                    receiving: false,
                    polling: false,
                    connecting: true,
                    queued: false,
                    blocked: false,
                    shut: false,
                });
                self.pending += 1;
            }
            Err(error) => {
                let fault = connect_fault(error.raw_os_error().unwrap_or(0));
                self.tally.fault(fault);
                give_connect_reason(&mut self.tally, fault, &error);
                self.origin.came_up(false, self.now_ns);
            }
        }
    }

    fn connected(&mut self, token: Token, errno: i32) {
        let Some(key) = self.key(token) else { return };
        let index = key.index as usize;
        let slot = &mut self.slots[index];
        slot.connecting = false;
        if slot.session.stage() == Stage::Ended {
            self.retire(index);
            return;
        }
        if errno != 0 {
            let fault = connect_fault(errno);
            give_connect_reason(&mut self.tally, fault, &io::Error::from_raw_os_error(errno));
            self.touch(index, |session, cx| session.fail(fault, cx));
            return;
        }
        slot.receiving = true;
        self.backend.receive(&slot.socket, token);
        let key = self.random.key();
        let path = self.path(&self.slots[index].session);
        let (request, transport) = (self.request(&path, &key), self.transport());
        self.act(index, |slot, cx| match transport {
            Ok(transport) => {
                slot.transport = transport;
                slot.session.handle_connected(request, key);
            }
            Err(_) => slot.session.fail(Fault::TlsHandshake, cx),
        });
    }

    /// The upgrade's request.
    fn request(&self, path: &str, key: &[u8; 16]) -> Vec<u8> {
        let plan = &self.plan;
        let protocols: Vec<&str> = plan.subprotocols.iter().map(String::as_str).collect();
        let fields = plan.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        let offer = plan.deflate.as_ref().map_or(Offer::None, Offer::Deflate);
        let mut request = Vec::with_capacity(256);
        client_request(&mut request, path, &plan.host, key, &protocols, offer, fields);
        request
    }

    fn received(&mut self, token: Token, mut buffer: Buffer) {
        if let Some(key) = self.key(token) {
            let index = key.index as usize;
            match self.slots[index].transport {
                Transport::Plain => self.touch(index, |session, cx| session.handle_bytes(&mut buffer, cx)),
                Transport::Sealed(_) => self.received_sealed(index, &mut buffer),
            }
        }
        self.backend.recycle(buffer);
    }

    fn receive_ended(&mut self, token: Token, end: ReceiveEnd) {
        let Some(key) = self.key(token) else { return };
        let index = key.index as usize;
        let slot = &mut self.slots[index];
        slot.receiving = false;
        if slot.session.stage() == Stage::Ended {
            self.retire(index);
            return;
        }
        match end {
            ReceiveEnd::Eof => self.touch(index, Session::handle_eof),
            ReceiveEnd::Error(_) => self.touch(index, Session::handle_broken),
            ReceiveEnd::Rearm | ReceiveEnd::Starved | ReceiveEnd::Cancelled if slot.session.is_slow() => {}
            ReceiveEnd::Rearm | ReceiveEnd::Cancelled => self.arm(key),
            ReceiveEnd::Starved => self.starved.push(key),
        }
    }

    fn arm(&mut self, key: Key) {
        let slot = &mut self.slots[key.index as usize];
        slot.receiving = true;
        self.backend.receive(&slot.socket, token(key));
    }

    /// All buffers have gone back by now.
    pub(super) fn rearm_starved(&mut self) {
        while let Some(key) = self.starved.pop() {
            let is_up = self.is_current(key)
                && self.slots.get(key.index as usize).is_some_and(|slot| !slot.shut && !slot.receiving);
            if is_up {
                self.arm(key);
            }
        }
    }

    /// A send was not taken whole.
    pub(super) fn fell_short(&mut self, index: usize, errno: i32) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        if slot.shut {
            return;
        }
        if errno == 0 || Errno::from_raw_os_error(errno) == Errno::AGAIN {
            if !slot.polling {
                slot.polling = true;
                let key = Key { index: index as u32, serial: slot.session.serial() };
                self.backend.poll_writable(&slot.socket, token(key));
            }
        } else if !slot.receiving {
            self.touch(index, Session::handle_broken);
        }
        // Else the receive tells, after what the server said before.
    }

    /// The session that a token names; `None` where it is gone.
    #[inline]
    fn key(&self, token: Token) -> Option<Key> {
        let index = token.0 as u32;
        let serial = self.slots.get(index as usize)?.session.serial();
        (u64::from(serial & 0x00ff_ffff) == token.0 >> 32).then_some(Key { index, serial })
    }
}
