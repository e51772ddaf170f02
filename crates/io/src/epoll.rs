//! The backend on epoll: readiness turned into the completions of [`Backend`].
//!
//! Level-triggered; a turn sends, then waits, then receives once from each socket that is ready, into a buffer
//! that was lent most recently. Interest is brought up to date once a turn, so that what is disarmed and armed
//! again in between costs no system call.

mod interest;

use std::{
    fmt,
    io::{self, IoSlice},
    os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
    time::Duration,
};

use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
    io::Errno,
    net::{self, RecvFlags, SendAncillaryBuffer, SendFlags, SocketFlags},
};

use self::interest::{Armed, Interest, Tag};
use crate::{
    Address, BUFFER_BYTES, Backend, ConnectOptions, Counters, Event, Lent, ListenerId, MAX_PIECES, Pool,
    ReceiveEnd, Remainder, Sends, Token, Waker, clock,
    socket::{self, Progress},
};

/// Sockets looked at in one turn: enough to spread a turn's own cost, few enough that their buffers and what
/// the caller keeps about them stay in the cache until they are answered.
const READY_MAX: usize = 256;
/// Connections taken from one listener in one turn, so that a storm of them does not hold up the others.
const ACCEPT_MAX: usize = 64;
/// The longest wait that epoll_wait(2) can be asked for, in milliseconds of 32 bits.
const WAIT_MAX: Duration = Duration::from_millis(i32::MAX as u64);

/// How an [`Epoll`] is set up.
#[derive(Clone, Debug)]
pub struct EpollOptions {
    /// Receive buffers of [`BUFFER_BYTES`], 1 or more.
    pub buffers: u32,
}

impl Default for EpollOptions {
    fn default() -> Self {
        Self { buffers: 1024 }
    }
}

/// The backend for kernels and containers without `io_uring`.
pub struct Epoll {
    epoll: OwnedFd,
    waker: Waker,
    interest: Interest,
    listeners: Vec<Option<Listener>>,
    pool: Pool,
    /// What happened without readiness: reported by the next turn, which then does not wait.
    pending: Vec<Event<OwnedFd>>,
    /// Kept between turns for its memory; empty.
    ready: Vec<epoll::Event>,
    counters: Counters,
}

#[derive(Debug)]
struct Listener {
    socket: OwnedFd,
    accepting: bool,
}

impl Epoll {
    /// A backend for the calling thread.
    ///
    /// # Errors
    /// What the kernel says: descriptors or memory are out.
    pub fn new(options: &EpollOptions) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let waker = Waker::new()?;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, &waker, Tag::Waker.data(), flags)?;
        Ok(Self {
            epoll,
            waker,
            interest: Interest::default(),
            listeners: Vec::new(),
            pool: Pool::new(options.buffers, BUFFER_BYTES)?,
            pending: Vec::new(),
            ready: Vec::with_capacity(READY_MAX),
            counters: Counters::default(),
        })
    }

    /// Sends one of a turn's sends; `None` where the kernel took it whole.
    fn send<T: Sends<OwnedFd>>(&mut self, sends: &T, index: usize) -> Option<Remainder> {
        let socket = sends.socket(index);
        let mut pieces = sends.pieces(index);
        let first = pieces.next().unwrap_or_default();
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let (length, result) = match pieces.next() {
            None => (first.len(), self.retry(|| net::send(socket, first, flags))),
            Some(second) => {
                let mut slices = [IoSlice::new(&[]); MAX_PIECES];
                let mut count = 0;
                for piece in [first, second].into_iter().chain(pieces) {
                    slices[count] = IoSlice::new(piece);
                    count += 1;
                }
                let slices = &slices[..count];
                let length = slices.iter().map(|slice| slice.len()).sum();
                let send = || net::sendmsg(socket, slices, &mut SendAncillaryBuffer::default(), flags);
                (length, self.retry(send))
            }
        };
        let (sent, errno) = match result {
            Ok(sent) if sent == length => return None,
            Ok(sent) => (sent, 0),
            Err(error) => (0, error.raw_os_error()),
        };
        self.counters.partial_sends += 1;
        Some(Remainder { index: index as u32, sent, errno })
    }

    /// Makes a system call until no signal interrupts it.
    fn retry<T>(&mut self, mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
        loop {
            self.counters.system_calls += 1;
            match call() {
                Err(Errno::INTR) => {}
                result => return result,
            }
        }
    }

    /// Brings the kernel's idea of what is wanted up to date.
    fn reconcile(&mut self) {
        while let Some(change) = self.interest.next_change() {
            // SAFETY: something was armed on it or disarmed in this turn, and the caller keeps a socket until
            // `close`, which forgets its changes. Were it gone nonetheless, epoll_ctl would say EBADF.
            let socket = unsafe { BorrowedFd::borrow_raw(change.fd) };
            self.counters.system_calls += 1;
            let result = match (change.registered.is_empty(), change.wanted.is_empty()) {
                (true, _) => epoll::add(&self.epoll, socket, change.data, change.wanted),
                (false, false) => epoll::modify(&self.epoll, socket, change.data, change.wanted),
                // Hang-ups and errors are reported whether asked for or not: only a removal silences a
                // socket on which nothing is armed.
                (false, true) => epoll::delete(&self.epoll, socket),
            };
            if let Err(error) = result {
                self.fail(change.fd, error);
            }
        }
    }

    /// Ends what is armed on a socket that epoll does not take (`ENOMEM`, `ENOSPC`).
    fn fail(&mut self, fd: RawFd, error: Errno) {
        let errno = error.raw_os_error();
        self.interest.unregistered(fd);
        if let Some(token) = self.interest.disarm(fd, Armed::RECEIVE) {
            self.pending.push(Event::ReceiveEnded { token, end: ReceiveEnd::Error(errno) });
        }
        if let Some(token) = self.interest.disarm(fd, Armed::POLL) {
            self.pending.push(Event::Writable { token });
        }
        if let Some(token) = self.interest.disarm(fd, Armed::CONNECT) {
            self.pending.push(Event::Connected { token, errno });
        }
    }

    /// A socket is ready, or broken.
    fn socket_ready(&mut self, fd: RawFd, flags: epoll::EventFlags, events: &mut Vec<Event<OwnedFd>>) {
        const BROKEN: epoll::EventFlags = epoll::EventFlags::ERR.union(epoll::EventFlags::HUP);
        let readable = flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::RDHUP | BROKEN);
        let writable = flags.intersects(epoll::EventFlags::OUT | BROKEN);
        let mut known = false;
        if readable && let Some(token) = self.interest.armed(fd, Armed::RECEIVE) {
            known = true;
            let event = self.receive_once(fd, token);
            if matches!(event, Some(Event::ReceiveEnded { .. })) {
                self.interest.disarm(fd, Armed::RECEIVE);
            }
            events.extend(event);
        }
        if writable && let Some(token) = self.interest.disarm(fd, Armed::POLL) {
            known = true;
            events.push(Event::Writable { token });
        }
        if writable && let Some(token) = self.interest.disarm(fd, Armed::CONNECT) {
            known = true;
            // SAFETY: a connect was armed on it, so the caller keeps it open.
            let socket = unsafe { BorrowedFd::borrow_raw(fd) };
            events.push(Event::Connected { token, errno: socket::connect_error(socket) });
        }
        self.counters.stale += u64::from(!known);
    }

    /// One receive; `None` where there was nothing after all.
    fn receive_once(&mut self, fd: RawFd, token: Token) -> Option<Event<OwnedFd>> {
        let ended = |end| Some(Event::ReceiveEnded { token, end });
        let Some(mut buffer) = self.pool.take() else {
            self.counters.starved += 1;
            return ended(ReceiveEnd::Starved);
        };
        // SAFETY: a receive is armed on it, so the caller keeps it open.
        let socket = unsafe { BorrowedFd::borrow_raw(fd) };
        let result = self.retry(|| net::recv(socket, buffer.space(), RecvFlags::DONTWAIT));
        if let Ok((received @ 1.., _)) = result {
            buffer.set_filled(received);
            return Some(Event::Received { token, buffer });
        }
        self.pool.give(buffer);
        match result {
            Ok(_) => ended(ReceiveEnd::Eof),
            Err(Errno::AGAIN) => None,
            Err(error) => ended(ReceiveEnd::Error(error.raw_os_error())),
        }
    }

    /// Takes connections from a listener.
    fn listener_ready(&mut self, id: ListenerId, events: &mut Vec<Event<OwnedFd>>) {
        for _ in 0..ACCEPT_MAX {
            let Some(Some(listener)) = self.listeners.get(usize::from(id.0)) else {
                self.counters.stale += 1;
                return;
            };
            self.counters.system_calls += 1;
            match net::acceptfrom_with(&listener.socket, SocketFlags::CLOEXEC) {
                Ok((socket, peer)) => {
                    self.interest.forget(socket.as_raw_fd());
                    let peer = peer.and_then(socket::internet);
                    events.push(Event::Accepted { listener: id, socket, peer });
                }
                Err(Errno::AGAIN) => return,
                Err(error) if socket::is_passing_accept_error(error.raw_os_error()) => {}
                Err(error) => {
                    self.stop_accepting(id);
                    events.push(Event::AcceptEnded { listener: id, errno: error.raw_os_error() });
                    return;
                }
            }
        }
    }

    /// Takes a listener out of the set: level-triggered, it would else report the same connection for ever.
    fn stop_accepting(&mut self, id: ListenerId) {
        if let Some(Some(listener)) = self.listeners.get_mut(usize::from(id.0))
            && listener.accepting
        {
            listener.accepting = false;
            self.counters.system_calls += 1;
            let _ = epoll::delete(&self.epoll, &listener.socket);
        }
    }

    /// How long to wait; `None` is for ever.
    fn timeout(deadline: Option<Duration>) -> Option<Timespec> {
        let wait = deadline?.saturating_sub(clock::now()).min(WAIT_MAX);
        Timespec::try_from(wait).ok()
    }
}

impl fmt::Debug for Epoll {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Epoll").field("counters", &self.counters).finish_non_exhaustive()
    }
}

impl Backend for Epoll {
    type Socket = OwnedFd;
    type Listener = OwnedFd;
    type Waker = Waker;

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn listen(&mut self, id: ListenerId, listener: OwnedFd) -> io::Result<()> {
        socket::prepare_listener(&listener, false)?;
        let index = usize::from(id.0);
        if self.listeners.len() <= index {
            self.listeners.resize_with(index + 1, || None);
        }
        self.listeners[index] = Some(Listener { socket: listener, accepting: false });
        Ok(())
    }

    fn accept(&mut self, id: ListenerId) {
        let Some(Some(listener)) = self.listeners.get_mut(usize::from(id.0)) else { return };
        if listener.accepting {
            return;
        }
        self.counters.system_calls += 1;
        match epoll::add(&self.epoll, &listener.socket, Tag::Listener(id).data(), epoll::EventFlags::IN) {
            Ok(()) => listener.accepting = true,
            Err(error) => {
                self.pending.push(Event::AcceptEnded { listener: id, errno: error.raw_os_error() });
            }
        }
    }

    fn unlisten(&mut self, id: ListenerId) {
        self.stop_accepting(id);
        if let Some(listener) = self.listeners.get_mut(usize::from(id.0)).and_then(Option::take) {
            let before = self.pending.len();
            socket::accept_rest(id, &listener.socket, &mut self.pending);
            for event in &self.pending[before..] {
                if let Event::Accepted { socket, .. } = event {
                    self.interest.forget(socket.as_raw_fd());
                }
            }
        }
    }

    fn receive(&mut self, socket: &OwnedFd, token: Token) {
        self.interest.arm(socket.as_raw_fd(), Armed::RECEIVE, token);
    }

    fn cancel_receive(&mut self, socket: &OwnedFd, token: Token) {
        let fd = socket.as_raw_fd();
        if self.interest.armed(fd, Armed::RECEIVE) == Some(token) {
            self.interest.disarm(fd, Armed::RECEIVE);
            self.pending.push(Event::ReceiveEnded { token, end: ReceiveEnd::Cancelled });
        }
    }

    fn poll_writable(&mut self, socket: &OwnedFd, token: Token) {
        self.interest.arm(socket.as_raw_fd(), Armed::POLL, token);
    }

    fn connect(&mut self, address: &Address, options: &ConnectOptions, token: Token) -> io::Result<OwnedFd> {
        let (socket, progress) = socket::connect(address, options)?;
        self.interest.forget(socket.as_raw_fd());
        match progress {
            Progress::Pending => self.interest.arm(socket.as_raw_fd(), Armed::CONNECT, token),
            Progress::Ended(errno) => self.pending.push(Event::Connected { token, errno }),
        }
        Ok(socket)
    }

    fn shutdown_write(&mut self, socket: &OwnedFd) {
        socket::shutdown_write(socket);
    }

    fn shutdown(&mut self, socket: &OwnedFd, reset: bool) {
        socket::shutdown(socket, reset);
    }

    fn close(&mut self, socket: OwnedFd) {
        self.interest.forget(socket.as_raw_fd());
    }

    fn recycle(&mut self, buffer: crate::Buffer) {
        self.pool.give(buffer);
    }

    fn turn<T: Sends<OwnedFd>>(
        &mut self,
        sends: &T,
        deadline: Option<Duration>,
        events: &mut Vec<Event<OwnedFd>>,
        remainders: &mut Vec<Remainder>,
    ) -> io::Result<()> {
        self.counters.turns += 1;
        let due = remainders.len();
        for index in 0..sends.len() {
            remainders.extend(self.send(sends, index));
        }
        self.reconcile();
        let at_once = remainders.len() > due || !self.pending.is_empty() || deadline == Some(Duration::ZERO);
        let timeout = if at_once { Some(Timespec::default()) } else { Self::timeout(deadline) };
        let mut ready = std::mem::take(&mut self.ready);
        self.counters.system_calls += 1;
        match epoll::wait(&self.epoll, spare_capacity(&mut ready), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        events.append(&mut self.pending);
        self.counters.events += ready.len() as u64;
        for event in ready.drain(..) {
            let (data, flags) = (event.data, event.flags);
            match Tag::from(data) {
                Tag::Socket { fd, generation } if self.interest.is_current(fd, generation) => {
                    self.socket_ready(fd, flags, events);
                }
                Tag::Socket { .. } => self.counters.stale += 1,
                Tag::Listener(id) => self.listener_ready(id, events),
                Tag::Waker => {
                    if self.waker.take() {
                        events.push(Event::Woken);
                    }
                }
            }
        }
        self.ready = ready;
        Ok(())
    }

    fn now(&self) -> Duration {
        clock::now()
    }

    fn buffers(&self) -> Lent {
        self.pool.lent()
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}
