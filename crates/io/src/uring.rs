//! The backend on `io_uring`.
//!
//! One enter a turn submits what was queued together with the turn's sends, runs what the kernel has deferred,
//! and waits. Receives and accepts stay armed (multishot); sends complete inside the enter, and only those that
//! fall short post a completion.
//!
//! Invariant: memory that is only borrowed is named by an entry from the moment it is queued until the kernel's
//! head has passed that entry, and this never outlasts [`Backend::turn`]. A turn that could not keep to it, by an
//! error or a panic, leaves the backend broken: nothing is submitted ever after.

mod completion;
mod ending;
mod gathering;
mod pieces;
mod provided;
mod ring;
mod room;
mod timer;

#[cfg(test)]
mod tests;

use std::{
    cell::Cell,
    collections::HashMap,
    fmt, io,
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
    time::Duration,
};

use io_uring::{opcode, squeue, types};

use self::{
    completion::{Operation, user_data},
    ending::Turn,
    gathering::Gathering,
    pieces::Pieces,
    provided::Provided,
    ring::{Ring, Wait, silent},
    room::Room,
    timer::Timer,
};
use crate::{
    Address, Backend, Buffer, ConnectOptions, Counters, Event, Failure, Lent, ListenerId, Remainder, Rung,
    Sends, Token, Waker, clock,
    socket::{self, Progress},
};

/// The most bytes that one send can take (`MAX_RW_COUNT`).
const SEND_MAX: usize = 0x7fff_f000;

/// How a [`Uring`] is set up.
#[derive(Clone, Debug)]
pub struct UringOptions {
    /// Receive buffers of [`BUFFER_BYTES`](crate::BUFFER_BYTES), 1 to 32,768.
    pub buffers: u32,
    /// Entries of the submission queue: a power of two. More sends in a turn than this take several enters.
    pub sq_entries: u32,
    /// Entries of the completion queue, at least as many. Past that the kernel keeps completions in a list.
    pub cq_entries: u32,
}

impl Default for UringOptions {
    /// The submission queue is short so that a turn's sends are submitted in batches: the kernel takes a request's memory for each
    /// entry and has it back at the end of a batch, so what one has left in the cache the next one takes. In batches of
    /// 4,096 a delivery to 8,000 subscribers took 1.2 times as much CPU time; with 1,000 no size was better.
    fn default() -> Self {
        Self { buffers: 1024, sq_entries: 512, cq_entries: 16_384 }
    }
}

/// The backend for Linux 6.1 and later.
pub struct Uring {
    ring: Ring,
    provided: Provided,
    pieces: Pieces,
    timer: Timer,
    gathering: Gathering,
    waker: Waker,
    is_waker_armed: bool,
    listeners: Vec<Option<Listener>>,
    /// Sockets that are connecting.
    connecting: HashMap<u64, RawFd>,
    room: Room,
    /// Receives that are to end; usually none.
    cancelling: HashMap<u64, Cancelling>,
    /// What happened without a completion: reported by the next turn, which then does not wait.
    pending: Vec<Event<OwnedFd>>,
    /// Operations that were queued and have not posted their last completion. Sends never stay.
    in_flight: usize,
    /// What a method without a result met; the next turn returns it.
    failure: Option<io::Error>,
    /// The kernel refuses the ring, or borrowed memory is still named by entries that were not submitted.
    is_broken: bool,
    /// Whether the last completion of an accept may name a descriptor that is not the new one.
    doubts_last_accept: bool,
    /// Listeners so far.
    generation: u32,
    /// The last answer of [`Backend::now`]: a deadline before it need not be waited for.
    last_now: Cell<Duration>,
    counters: Counters,
}

/// Whether this kernel's multishot accept may give the poll's mask in the place of the descriptor in its last completion,
/// which comes where completions overflow: 6.6 to 6.8-rc4 (liburing#1062). Their stable successors may be mended, but
/// their numbers do not tell.
fn has_accept_fault(release: &str) -> bool {
    let mut parts = release.splitn(3, '.');
    let version = (parts.next(), parts.next().and_then(|minor| minor.split('-').next()));
    match version {
        (Some("6"), Some("6" | "7")) => true,
        (Some("6"), Some("8")) => release.contains("-rc"),
        _ => false,
    }
}

struct Listener {
    socket: OwnedFd,
    /// Tells the accepts of listeners apart that had the same number, one after the other.
    generation: u32,
    accepting: bool,
}

/// A cancellation that has not been followed by the receive's end yet.
#[derive(Clone, Copy, Default)]
struct Cancelling {
    /// Times in a row that the kernel did not find the receive.
    missed: u8,
}

impl Uring {
    /// A backend for the calling thread, which is the only one that can use it.
    ///
    /// # Errors
    /// What the kernel says; [`choose`](crate::choose) tells beforehand whether it will do.
    pub fn new(options: &UringOptions) -> io::Result<Self> {
        Self::with(Ring::new(options)?, options)
    }

    /// The same, one rung of the ladder after the other.
    pub(crate) fn open(options: &UringOptions, held: &mut impl FnMut(Rung)) -> Result<Self, Failure> {
        let ring = Ring::new(options).map_err(Failure::Setup)?;
        held(Rung::Setup);
        match ring.missing_features() {
            missing if missing.is_empty() => held(Rung::Features),
            missing => return Err(Failure::Features(missing)),
        }
        match ring.missing_operations().map_err(Failure::Probe)? {
            missing if missing.is_empty() => held(Rung::Operations),
            missing => return Err(Failure::Operations(missing)),
        }
        let uring = Self::with(ring, options).map_err(Failure::Buffers)?;
        held(Rung::Buffers);
        Ok(uring)
    }

    fn with(ring: Ring, options: &UringOptions) -> io::Result<Self> {
        let waker = Waker::new()?;
        let provided = Provided::new(&ring, options.buffers)?;
        // A turn may have two passes with a buffer for each event, and those of the turn before are not back yet.
        let most = if ring.can_gather() { options.buffers.min(options.cq_entries) / 8 } else { 1 };
        Ok(Self {
            ring,
            provided,
            pieces: Pieces::new(),
            timer: Timer::default(),
            gathering: Gathering::new(most),
            waker,
            is_waker_armed: false,
            listeners: Vec::new(),
            connecting: HashMap::new(),
            room: Room::default(),
            cancelling: HashMap::new(),
            pending: Vec::new(),
            in_flight: 0,
            failure: None,
            is_broken: false,
            doubts_last_accept: has_accept_fault(&rustix::system::uname().release().to_string_lossy()),
            generation: 0,
            last_now: Cell::default(),
            counters: Counters::default(),
        })
    }

    /// Queues an operation for a method that has no result; whether that went well.
    ///
    /// # Safety
    /// As for [`Ring::push`].
    unsafe fn queue(&mut self, entry: &squeue::Entry) -> bool {
        if self.is_broken {
            return false;
        }
        // SAFETY: the caller's promise.
        match unsafe { self.push(entry) } {
            Ok(()) => true,
            Err(error) => {
                self.is_broken = true;
                self.failure = Some(error);
                false
            }
        }
    }

    /// Queues an operation that will post a last completion.
    ///
    /// # Safety
    /// As for [`Ring::push`].
    unsafe fn start(&mut self, entry: &squeue::Entry) {
        // SAFETY: the caller's promise.
        if unsafe { self.queue(entry) } {
            self.in_flight += 1;
        }
    }

    /// Queues an operation, submitting what is queued first where there is no room.
    ///
    /// # Safety
    /// As for [`Ring::push`].
    unsafe fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        if self.ring.is_full() {
            self.submit()?;
        }
        // SAFETY: the caller's promise.
        unsafe { self.ring.push(entry) };
        Ok(())
    }

    /// Submits all that is queued, without waiting.
    fn submit(&mut self) -> io::Result<()> {
        let mut wait = Wait::No;
        loop {
            self.enter(wait)?;
            if self.ring.is_submitted() {
                self.pieces.clear();
                return Ok(());
            }
            // The kernel has no memory for more requests, or wants to be rid of completions. Running what was
            // deferred gives it requests back.
            self.ring.set_aside();
            wait = Wait::Poll;
        }
    }

    fn enter(&mut self, wait: Wait) -> io::Result<()> {
        self.provided.publish();
        self.counters.system_calls += 1;
        self.ring.enter(wait)
    }

    /// Queues one of a turn's sends, for which there is room.
    fn push_send<T: Sends<OwnedFd>>(&mut self, sends: &T, index: usize) {
        // Nothing of it ever waits: the kernel takes what fits now. `WAITALL` makes less than all a failure,
        // which posts a completion where success posts none.
        const FLAGS: i32 = libc::MSG_WAITALL | libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        let socket = types::Fd(sends.socket(index).as_raw_fd());
        let mut pieces = sends.pieces(index);
        let first = pieces.next().unwrap_or_default();
        let (entry, bytes) = match pieces.next() {
            None => {
                let send = opcode::Send::new(socket, first.as_ptr(), first.len() as u32).flags(FLAGS);
                (send.build(), first.len())
            }
            Some(second) => {
                let all = [first, second].into_iter().chain(pieces);
                let (message, bytes) = self.pieces.message(all);
                (opcode::SendMsg::new(socket, message).flags(FLAGS as u32).build(), bytes)
            }
        };
        assert!(bytes <= SEND_MAX, "a send of {bytes} bytes");
        let entry = silent(entry).user_data(user_data(Operation::Send, index as u64));
        // SAFETY: the bytes are borrowed for the turn, and `pieces` is not cleared before the kernel has taken
        // the entry; it has done so, and is through with the send, before the turn returns or never will.
        unsafe { self.ring.push(&entry) };
    }

    /// The part of a turn after which the kernel has seen all of `sends`.
    fn run<T: Sends<OwnedFd>>(
        &mut self,
        sends: &T,
        deadline: Option<Duration>,
        events: &mut Vec<Event<OwnedFd>>,
        remainders: &mut Vec<Remainder>,
    ) -> io::Result<()> {
        let before = (events.len(), remainders.len());
        events.append(&mut self.pending);
        if !self.is_waker_armed {
            self.arm_waker();
        }
        let is_past = deadline.is_some_and(|deadline| deadline <= self.last_now.get());
        for index in 0..sends.len() {
            if self.ring.is_full() || self.pieces.is_full() {
                self.submit()?;
            }
            self.push_send(sends, index);
        }
        let mut wait =
            if is_past || (events.len(), remainders.len()) != before { Wait::Poll } else { Wait::One };
        loop {
            if wait == Wait::One {
                self.arm_timer(deadline)?;
            }
            if self.ring.has_set_aside() {
                wait = Wait::Poll;
            }
            let want = self.gathering.want();
            self.enter(if wait == Wait::One && want > 1 { Wait::Many(want) } else { wait })?;
            let seen = self.counters.events;
            let is_due = self.complete(sends, deadline, events, remainders)?;
            if wait == Wait::One {
                self.gathering.ended((self.counters.events - seen) as u32);
            }
            if !self.ring.is_submitted() {
                wait = Wait::Poll;
            } else if self.ring.has_overflown() {
                self.counters.overflows += 1;
                wait = Wait::Poll;
            } else {
                // All entries were taken, and all completions that they posted were seen: whatever send has
                // posted none has gone out whole.
                self.pieces.clear();
                if wait == Wait::Poll || is_due || (events.len(), remainders.len()) != before {
                    return Ok(());
                }
            }
        }
    }

    /// Has the ring wake up at the deadline.
    fn arm_timer(&mut self, deadline: Option<Duration>) -> io::Result<()> {
        let Some(deadline) = deadline else { return Ok(()) };
        let Some((entry, starts)) = self.timer.arm(deadline) else { return Ok(()) };
        // SAFETY: the time that it names is kept by `self.timer`, at one address, and copied at submission.
        unsafe { self.push(&entry) }?;
        self.in_flight += usize::from(starts);
        Ok(())
    }

    /// Watches the waker's eventfd.
    fn arm_waker(&mut self) {
        let poll = opcode::PollAdd::new(types::Fd(self.waker.as_fd().as_raw_fd()), libc::POLLIN as u32);
        let entry = poll.multi(true).build().user_data(user_data(Operation::Waker, 0));
        // SAFETY: it names no memory.
        unsafe { self.start(&entry) };
        self.is_waker_armed = true;
    }

    /// Watches an epoll instance until it has something to tell.
    fn watch(&mut self, epoll: RawFd) {
        self.arm_poll(epoll, libc::POLLIN, user_data(Operation::Room, 0));
    }

    /// One poll, for one completion.
    fn arm_poll(&mut self, descriptor: RawFd, events: i16, user_data: u64) {
        let entry = opcode::PollAdd::new(types::Fd(descriptor), events as u32).build().user_data(user_data);
        // SAFETY: it names no memory.
        unsafe { self.start(&entry) };
    }

    /// Stops the kernel from accepting on a listener that is about to be closed.
    fn cancel_accept(&mut self, id: ListenerId, generation: u32) {
        let accept = user_data(Operation::Accept, accept_data(id, generation));
        let entry =
            silent(opcode::AsyncCancel::new(accept).build()).user_data(user_data(Operation::Ignored, 0));
        // SAFETY: it names no memory.
        unsafe { self.queue(&entry) };
    }
}

/// The entry that ends a receive.
fn cancel(receive: Token) -> squeue::Entry {
    let cancel = opcode::AsyncCancel::new(user_data(Operation::Receive, receive.0)).build();
    silent(cancel).user_data(user_data(Operation::Cancel, receive.0))
}

/// What identifies the accept of a listener.
fn accept_data(id: ListenerId, generation: u32) -> u64 {
    u64::from(generation) << 8 | u64::from(id.0)
}

impl fmt::Debug for Uring {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = formatter.debug_struct("Uring");
        fields.field("in_flight", &self.in_flight).field("counters", &self.counters).finish_non_exhaustive()
    }
}

impl Backend for Uring {
    type Socket = OwnedFd;
    type Listener = OwnedFd;
    type Waker = Waker;

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn listen(&mut self, id: ListenerId, listener: OwnedFd) -> io::Result<()> {
        // The ring does not wait for a descriptor that is non-blocking: it would say EAGAIN.
        socket::prepare_listener(&listener, true)?;
        let index = usize::from(id.0);
        if self.listeners.len() <= index {
            self.listeners.resize_with(index + 1, || None);
        }
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        self.listeners[index] = Some(Listener { socket: listener, generation, accepting: false });
        Ok(())
    }

    fn accept(&mut self, id: ListenerId) {
        let Some(Some(listener)) = self.listeners.get_mut(usize::from(id.0)) else { return };
        if listener.accepting {
            return;
        }
        listener.accepting = true;
        let accept =
            opcode::AcceptMulti::new(types::Fd(listener.socket.as_raw_fd())).flags(libc::SOCK_CLOEXEC);
        let data = accept_data(id, listener.generation);
        let entry = accept.build().user_data(user_data(Operation::Accept, data));
        // SAFETY: it names no memory.
        unsafe { self.start(&entry) };
    }

    fn unlisten(&mut self, id: ListenerId) {
        let Some(listener) = self.listeners.get_mut(usize::from(id.0)).and_then(Option::take) else { return };
        if listener.accepting {
            self.cancel_accept(id, listener.generation);
        }
        // Until now it waited in the kernel for connections.
        if rustix::io::ioctl_fionbio(&listener.socket, true).is_ok() {
            socket::accept_rest(id, &listener.socket, &mut self.pending);
        }
    }

    fn receive(&mut self, socket: &OwnedFd, token: Token) {
        let receive = opcode::RecvMulti::new(types::Fd(socket.as_raw_fd()), provided::GROUP).build();
        let entry = receive.user_data(user_data(Operation::Receive, token.0));
        // SAFETY: it names no memory but the provided buffers, which stay until nothing is in flight.
        unsafe { self.start(&entry) };
    }

    fn cancel_receive(&mut self, _: &OwnedFd, token: Token) {
        self.cancelling.insert(token.0, Cancelling::default());
        // SAFETY: it names no memory.
        unsafe { self.queue(&cancel(token)) };
    }

    fn poll_writable(&mut self, socket: &OwnedFd, token: Token) {
        self.room.begin(socket.as_raw_fd(), token);
        self.arm_poll(socket.as_raw_fd(), libc::POLLOUT, user_data(Operation::Poll, token.0));
    }

    fn connect(&mut self, address: &Address, options: &ConnectOptions, token: Token) -> io::Result<OwnedFd> {
        let (socket, progress) = socket::connect(address, options)?;
        // The ring does not wait for a descriptor that is non-blocking.
        rustix::io::ioctl_fionbio(&socket, false)?;
        match progress {
            Progress::Pending => {
                self.connecting.insert(token.0, socket.as_raw_fd());
                self.arm_poll(socket.as_raw_fd(), libc::POLLOUT, user_data(Operation::Connect, token.0));
            }
            Progress::Ended(errno) => self.pending.push(Event::Connected { token, errno }),
        }
        Ok(socket)
    }

    fn shutdown_write(&mut self, socket: &OwnedFd) {
        // The ring's own shutdown always goes to a worker thread.
        socket::shutdown_write(socket);
    }

    fn shutdown(&mut self, socket: &OwnedFd, reset: bool) {
        socket::shutdown(socket, reset);
    }

    fn close(&mut self, socket: OwnedFd) {
        drop(socket);
    }

    fn recycle(&mut self, buffer: Buffer) {
        self.provided.give(buffer);
    }

    fn turn<T: Sends<OwnedFd>>(
        &mut self,
        sends: &T,
        deadline: Option<Duration>,
        events: &mut Vec<Event<OwnedFd>>,
        remainders: &mut Vec<Remainder>,
    ) -> io::Result<()> {
        self.counters.turns += 1;
        if let Some(error) = self.failure.take() {
            return Err(error);
        }
        if self.is_broken {
            return Err(io::Error::other("the ring was left broken by an earlier turn"));
        }
        let turn = Turn(self);
        turn.0.run(sends, deadline, events, remainders)?;
        std::mem::forget(turn);
        Ok(())
    }

    fn now(&self) -> Duration {
        let now = clock::now();
        self.last_now.set(now);
        now
    }

    fn buffers(&self) -> Lent {
        self.provided.lent()
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}
