//! The loop: one turn after the other, and the one `match` on what the kernel reports.
//!
//! Order of a turn: submit and wait; what was not taken whole goes to its outbox; receive buffers go back; what earlier
//! turns left; events; mail; deadlines. Sends of all of these leave with the next turn's system call.

use std::{collections::VecDeque, io, net::SocketAddr, sync::Arc, time::Duration};

use tidegate_hub::{Letter, RouteId};
use tidegate_io::{Backend, Event, ListenerId, ReceiveEnd, Remainder, Token};
use tidegate_registry::{Batch, Key, Registry, Retained, Wheel};
use tidegate_tls::ServerConfig;
use tidegate_wire::{close::CloseCode, deflate::Codecs, message::Spares};

use crate::{
    accounts::Accounts,
    barrier::Place,
    counters::Counters,
    environment::Environment,
    identity::{Callers, Hooks},
    incomplete::Incomplete,
    kept::Backlog,
    leaving::{Farewell, Leaving},
    log::{Entry, Level, What},
    mailbox::{Mail, Mailbox, Sender},
    meter::Meters,
    output::Span,
    plan::Plan,
    planted::{self, Bug},
    proxy::Upstreams,
    session::{Fact, Peer, Session, State},
    stamp::Stamp,
    throttle::Throttle,
    topics::Topics,
    transport::{Transport, tls::Tls},
    turn::{Outgoing, Turn},
};

/// How long accepting pauses after the system refused a connection (`EMFILE` and the like).
const ACCEPT_PAUSE_MS: u64 = 100;

/// A turn that takes this much longer than its deadline allows means that the process did not run (stopped, or the
/// machine slept): what the peers sent meanwhile is read first, before any of them is found to be too late.
const LAG_MS: u64 = 1_000;

/// Most time for that. Until then turns judge nobody as long as they find anything: of many sessions the kernel reports some in
/// each turn, and the first one may come back from its wait with nothing, as the standstill has cut it short (signal(7): `EINTR`).
const CATCH_UP_MS: u64 = 10_000;

/// Buffers kept for messages that do not lie in one receive buffer.
const SPARE_BYTES: usize = 4 << 20;

/// Slots beside those of sessions, so that a full gateway can still answer 503.
pub const SPARE_SLOTS: usize = 64;

/// Whether a shard goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is more to do.
    Running,
    /// It was told to end, and has.
    Ended,
}

pub(crate) struct Listening {
    pub(crate) id: ListenerId,
    /// Its connections speak the test-only records.
    #[cfg(feature = "record-transport")]
    records: bool,
    /// Its connections speak TLS.
    pub(crate) tls: Option<ServerConfig>,
    /// When to arm the accept again; 0: it is armed.
    retry_ms: u64,
}

/// One thread's part of the gateway: a backend, a registry, and all sessions in it.
pub struct Shard<B: Backend, E: Environment> {
    pub(crate) id: u16,
    pub(crate) backend: B,
    pub(crate) environment: E,
    pub(crate) plan: Arc<Plan>,
    pub(crate) registry: Registry<Session<B::Socket>>,
    pub(crate) wheel: Wheel,
    pub(crate) codecs: Codecs,
    pub(crate) spares: Spares,
    pub(crate) retained: Retained,
    pub(crate) incomplete: Incomplete,
    pub(crate) upstreams: Upstreams,
    /// The route that a request has found which is being judged, for the log: it is not its session's before it is let in.
    pub(crate) judged: Option<(Key, RouteId)>,
    pub(crate) turn: Turn,
    /// What the event at hand sends, until its buffer is in place.
    pub(crate) spans: Vec<Span>,
    /// Sessions whose outbox has overflowed while these spans are flushed: what is left of their messages is dropped.
    pub(crate) cut: Vec<Key>,
    /// Where small pieces are put together for a record.
    pub(crate) scratch: Vec<u8>,
    /// Sessions whose FIN follows their last bytes.
    pub(crate) finishing: Vec<Key>,
    /// The coming turn must not wait: more bytes, or FINs, follow what it sends.
    pub(crate) hurried: bool,
    /// Sessions without a receive, for want of buffers: who came first is armed first.
    starved: VecDeque<Key>,
    /// Sessions whose outbox did not fit into one send.
    pub(crate) again: Vec<Key>,
    /// Sessions whose send failed in this turn, with the error.
    pub(crate) broken: Vec<(Key, i32)>,
    /// Slots that may be free now.
    pub(crate) freeable: Vec<Key>,
    /// Legs that are connected and wait for a turn that has time for TLS.
    pub(crate) securing: VecDeque<Key>,
    /// Upstreams speak the test-only records.
    #[cfg(feature = "record-transport")]
    pub(crate) dials_records: bool,
    pub(crate) listening: Vec<Listening>,
    /// Those that are closed, and whose last connections are served.
    pub(crate) closed: Vec<Listening>,
    /// The backend has those connections, and has not told of them yet.
    pub(crate) expects_last: bool,
    mailbox: Mailbox,
    pub(crate) now_ms: u64,
    pub(crate) counters: Counters,
    /// What is counted besides, where somebody wants to know.
    pub(crate) accounts: Option<Box<Accounts>>,
    /// When the turn at hand had its events.
    pub(crate) began: Duration,
    /// Clients in slots of their own.
    pub(crate) sessions: usize,
    /// Clients that are turned away, each in a spare slot.
    pub(crate) spare: usize,
    pub(crate) max_sessions: usize,
    pub(crate) draining: Option<CloseCode>,
    /// Sessions that go one after the other.
    pub(crate) leaving: Leaving,
    pub(crate) stopping: bool,
    /// Whom it waits for at its end.
    pub(crate) place: Place,
    pub(crate) events: Vec<Event<B::Socket>>,
    /// What was received and waits for a later turn.
    pub(crate) backlog: Backlog,
    remainders: Vec<Remainder>,
    pub(crate) batch: Batch,
    /// How fast sessions are, where that is limited.
    pub(crate) meters: Meters,
    /// Where routes have topics.
    pub(crate) topics: Option<Box<Topics>>,
    /// What other shards' topics have said before there were any here.
    pub(crate) early_letters: Vec<(u16, Vec<Letter>)>,
    /// Who sessions' callers are, where routes ask.
    pub(crate) callers: Callers,
    /// What hooks are asked.
    pub(crate) hooks: Hooks,
    /// The other shards, by number.
    pub(crate) peers: Vec<Sender<B::Waker>>,
    /// Until then nobody is judged as long as something comes; 0: the process did not stand still lately.
    catches_up_until_ms: u64,
    pub(crate) throttle: Throttle,
    pub(crate) full_logged_ms: u64,
}

impl<B: Backend, E: Environment> Shard<B, E> {
    /// A shard without listeners. `max_sessions` is this shard's part of the process's.
    pub fn new(
        id: u16,
        backend: B,
        environment: E,
        plan: Arc<Plan>,
        mailbox: Mailbox,
        max_sessions: usize,
    ) -> Self {
        let now_ms = millis(backend.now());
        let slots = slots(&plan, max_sessions);
        let mut environment = environment;
        let topics = plan.hub(id, || environment.draw_seed()).map(|hub| Box::new(Topics::new(hub, slots)));
        Shard {
            id,
            registry: Registry::with_capacity(slots),
            wheel: Wheel::new(now_ms, slots),
            codecs: Codecs::new(plan.codec_limits()),
            spares: Spares::new(SPARE_BYTES),
            retained: plan.retained(),
            incomplete: Incomplete::default(),
            upstreams: Upstreams::new(&plan),
            judged: None,
            turn: Turn::default(),
            spans: Vec::new(),
            cut: Vec::new(),
            scratch: Vec::new(),
            finishing: Vec::new(),
            hurried: false,
            starved: VecDeque::new(),
            again: Vec::new(),
            broken: Vec::new(),
            freeable: Vec::new(),
            securing: VecDeque::new(),
            #[cfg(feature = "record-transport")]
            dials_records: false,
            listening: Vec::new(),
            closed: Vec::new(),
            expects_last: false,
            mailbox,
            now_ms,
            counters: Counters::default(),
            accounts: None,
            began: Duration::ZERO,
            sessions: 0,
            spare: 0,
            max_sessions,
            draining: None,
            leaving: Leaving::default(),
            stopping: false,
            place: Place::default(),
            events: Vec::new(),
            backlog: Backlog::default(),
            remainders: Vec::new(),
            batch: Batch::new(),
            meters: Meters::default(),
            topics,
            early_letters: Vec::new(),
            callers: Callers::default(),
            hooks: Hooks::default(),
            peers: Vec::new(),
            catches_up_until_ms: 0,
            throttle: Throttle::new(plan.limits().log_entries),
            full_logged_ms: 0,
            backend,
            environment,
            plan,
        }
    }

    /// Takes a listening socket over and begins to accept.
    ///
    /// # Errors
    /// Where the backend cannot take it.
    pub fn listen(&mut self, id: ListenerId, listener: B::Listener) -> io::Result<()> {
        self.backend.listen(id, listener)?;
        self.backend.accept(id);
        self.listening.push(Listening {
            id,
            #[cfg(feature = "record-transport")]
            records: false,
            tls: None,
            retry_ms: 0,
        });
        Ok(())
    }

    /// As [`Shard::listen`], for connections that speak TLS.
    ///
    /// # Errors
    /// Where the backend cannot take it.
    pub fn listen_tls(
        &mut self,
        id: ListenerId,
        listener: B::Listener,
        server: ServerConfig,
    ) -> io::Result<()> {
        self.listen(id, listener)?;
        self.listening.iter_mut().filter(|l| l.id == id).for_each(|l| l.tls = Some(server.clone()));
        Ok(())
    }

    /// As [`Shard::listen`], for connections that speak the test-only records in the place of TLS.
    ///
    /// # Errors
    /// Where the backend cannot take it.
    #[cfg(feature = "record-transport")]
    pub fn listen_records(&mut self, id: ListenerId, listener: B::Listener) -> io::Result<()> {
        self.listen(id, listener)?;
        self.listening.iter_mut().filter(|l| l.id == id).for_each(|l| l.records = true);
        Ok(())
    }

    /// Speaks the test-only records with all upstreams, in the place of TLS.
    #[cfg(feature = "record-transport")]
    pub fn dial_records(&mut self) {
        self.dials_records = true;
    }

    /// Bounds what one turn holds more tightly than [`TURN_BYTES`] and [`TURN_BUFFERS`] do, for tests.
    ///
    /// [`TURN_BYTES`]: crate::TURN_BYTES
    /// [`TURN_BUFFERS`]: crate::TURN_BUFFERS
    #[doc(hidden)]
    pub fn bound_turns(&mut self, bytes: usize, buffers: usize) {
        self.turn.bytes_most = bytes;
        self.turn.buffers_most = buffers;
    }

    /// Slots that it has room for.
    pub(crate) fn room(&self) -> u32 {
        slots(&self.plan, self.max_sessions)
    }

    /// What was counted so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// What its topics have counted so far, where it has any.
    pub fn topic_counts(&self) -> Option<tidegate_hub::Counts> {
        self.topics.as_ref().map(|topics| *topics.hub.counts())
    }

    /// The backend, to look at.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// Turns until the end.
    ///
    /// # Errors
    /// Where the backend as a whole is broken.
    pub fn run(&mut self) -> io::Result<()> {
        while self.step()? == Progress::Running {}
        Ok(())
    }

    /// One turn.
    ///
    /// # Errors
    /// Where the backend as a whole is broken.
    pub fn step(&mut self) -> io::Result<Progress> {
        self.prepare()?;
        if self.is_over() {
            self.drop_kept();
            self.close_accounts();
            return Ok(Progress::Ended);
        }
        self.end_turn();
        let (deadline_ms, before_ms) = (self.next_deadline_ms(), self.now_ms);
        let sends = Outgoing { turn: &self.turn, registry: &self.registry };
        self.backend.turn(
            &sends,
            deadline_ms.map(Duration::from_millis),
            &mut self.events,
            &mut self.remainders,
        )?;
        self.expects_last = false;
        self.began = self.backend.now();
        self.now_ms = millis(self.began);
        self.settle();
        let had_events = !self.events.is_empty() || self.can_take_up();
        self.secure_waiting();
        self.take_up_kept();
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            self.handle(event);
        }
        self.events = events;
        self.resume_accepting();
        while let Some(what) = self.throttle.left_out(self.now_ms) {
            self.log(Level::Warn, None, what);
        }
        let late_ms = deadline_ms.map_or(0, |deadline| self.now_ms.saturating_sub(deadline.max(before_ms)));
        if !self.catches_up(late_ms, had_events) {
            self.expire();
            self.run_departures();
        }
        Ok(Progress::Running)
    }

    /// Whether what has come while the process did not run is still being read.
    fn catches_up(&mut self, late_ms: u64, had_events: bool) -> bool {
        let goes_on = match self.catches_up_until_ms {
            0 => late_ms > LAG_MS,
            until_ms => had_events && self.now_ms < until_ms,
        };
        self.catches_up_until_ms = match (goes_on, self.catches_up_until_ms) {
            (false, _) => 0,
            (true, 0) => self.now_ms + CATCH_UP_MS,
            (true, until_ms) => until_ms,
        };
        goes_on
    }

    pub(crate) fn listeners(&self) -> usize {
        self.listening.len()
    }

    fn is_over(&mut self) -> bool {
        if self.stopping || !self.is_ending() {
            return self.stopping;
        }
        self.may_end(self.registry.is_empty() && !self.expects_last)
    }

    /// Whether it accepts no more and waits for its last sessions.
    pub(crate) fn is_ending(&self) -> bool {
        self.draining.is_some() || self.leaving.is_all()
    }

    /// The wheel's next deadline, or now where something waits only for the next turn.
    fn next_deadline_ms(&self) -> Option<u64> {
        if self.hurried || self.expects_last || !self.starved.is_empty() {
            return Some(0);
        }
        let accept = self.listening.iter().filter(|l| l.retry_ms != 0).map(|l| l.retry_ms).min();
        let topics = self.topics.as_ref().and_then(|topics| topics.next_deadline_ms());
        let (throttle, leaving) = (self.throttle.due_ms(), self.leaving.next_deadline_ms());
        [self.wheel.next_deadline(), accept, topics, throttle, leaving].into_iter().flatten().min()
    }

    /// Before the system call: sends FINs behind nothing, drops empty places, frees what is over.
    fn prepare(&mut self) -> io::Result<()> {
        debug_assert!(self.spans.is_empty(), "an event's sends are flushed when it was handled");
        self.hurried = false;
        self.relieve_incomplete();
        self.run_topics();
        self.go_on();
        self.send_fins();
        self.seal_chains()?;
        let mut place = 0;
        while place < self.turn.dirty.len() {
            let dirty = self.turn.dirty[place];
            if dirty.from_outbox {
                // The kernel reports no success: what follows it, more bytes, a reader that goes on or a subscriber that
                // catches up, must not wait for another event.
                let lags = self.topics.as_ref().is_some_and(|topics| topics.lags(dirty.key));
                let follows = |session: &Session<B::Socket>| {
                    let outbox = &session.outbox;
                    outbox.is_paused()
                        || outbox.sendable() < outbox.buffered()
                        // A FIN follows.
                        || matches!(session.state, State::Lingering { .. })
                };
                self.hurried |= (lags && !planted::is(Bug::SleepOnLaggard))
                    || self.registry.get(dirty.key).is_some_and(follows);
                place += 1;
                continue;
            }
            if self.turn.has_pieces(place) {
                self.hurried |= self.turn.is_long(place);
                place += 1;
                continue;
            }
            if let Some(session) = self.registry.get_mut(dirty.key) {
                session.dirty = 0;
            }
            self.turn.dirty.swap_remove(place);
            if let Some(moved) = self.turn.dirty.get(place).copied()
                && let Some(session) = self.registry.get_mut(moved.key)
            {
                session.dirty = place as u32 + 1;
            }
        }
        self.free_dead();
        self.arm_sheltered();
        self.feed_starved();
        // What filled the turn at hand is kept behind the system call only.
        let rest = !self.turn.unread.is_empty() && !planted::is(Bug::SleepOnRest);
        self.hurried |= self.can_take_up() || rest || !self.securing.is_empty();
        Ok(())
    }

    /// Outboxes that have more than one send could carry.
    fn go_on(&mut self) {
        while let Some(key) = self.again.pop() {
            let Some(session) = self.registry.get_mut(key) else { continue };
            if session.dirty == 0 && !session.outbox.is_empty() && !session.in_flight.poll {
                session.dirty = self.turn.enlist(key, true);
            }
        }
    }

    /// After the system call: every byte of the turn was taken, or goes to its outbox here.
    fn settle(&mut self) {
        let mut remainders = std::mem::take(&mut self.remainders);
        for remainder in remainders.drain(..) {
            self.settle_remainder(remainder);
        }
        self.remainders = remainders;
        for place in 0..self.turn.dirty.len() {
            let dirty = self.turn.dirty[place];
            let Some(session) = self.registry.get_mut(dirty.key) else { continue };
            if session.dirty == 0 {
                continue; // settled as a remainder
            }
            session.dirty = 0;
            if dirty.from_outbox {
                self.settle_outbox(dirty.key);
            } else if self.turn.is_long(place) {
                self.settle_long(place);
            } else if self.accounts.is_some() && self.turn.has_pieces(place) {
                self.count_sent(dirty.key, dirty.bytes());
            }
        }
        self.keep_rest_of_input();
        for buffer in self.turn.buffers.drain(..) {
            self.backend.recycle(buffer);
        }
        for bytes in self.turn.owned.drain(..) {
            self.spares.give(bytes);
        }
        self.turn.clear();
        // Only now: what these send borrows from the next turn.
        while let Some((key, errno)) = self.broken.pop() {
            self.peer_broke(key, errno);
            self.flush_spans();
        }
        self.send_fins();
        self.retained.settle();
    }

    /// The one `match` on what the kernel reports.
    fn handle(&mut self, event: Event<B::Socket>) {
        match event {
            Event::Received { token, buffer } => {
                let key = self.key(token);
                self.read_or_keep(key, buffer);
            }
            Event::ReceiveEnded { token, end } => self.end_or_keep(self.key(token), end),
            Event::Writable { token } => self.writable(self.key(token)),
            Event::Connected { token, errno } => self.connected(self.key(token), errno),
            Event::Accepted { listener, socket, peer } => self.accepted(listener, socket, Peer::new(peer)),
            Event::AcceptEnded { listener, errno } => self.accept_ended(listener, errno),
            Event::Woken => self.read_mail(),
        }
        self.flush_spans();
    }

    /// The session that a token names; it may be gone.
    fn key(&self, token: Token) -> Key {
        let key = Key::from_bits(token.0);
        if planted::is(Bug::SkipGenerationCheck) {
            return self.registry.key_at(key.index()).unwrap_or(key);
        }
        key
    }

    fn accepted(&mut self, listener: ListenerId, socket: B::Socket, peer: Peer) {
        self.counters.accepted += 1;
        let listening = self.listening.iter().chain(&self.closed).find(|l| l.id == listener);
        let tls = listening.and_then(|l| l.tls.as_ref()).map(|server| Tls::new(server, listener));
        if listening.is_none() {
            self.backend.shutdown(&socket, false);
            self.backend.close(socket);
            return;
        }
        let now_ms = self.now_ms;
        let head = self.new_head(now_ms, false);
        let mut session = Session::new(socket, peer, head, now_ms);
        session.marks.facts.set(
            Fact::ProxyHeader,
            peer.address().is_some_and(|peer| self.plan.wants_proxy_header(listener, peer.ip())),
        );
        let place = usize::from(listener.0);
        let redirects =
            self.plan.config().listeners.get(place).is_some_and(|own| own.https_redirect.is_some());
        session.marks.facts.set(Fact::Redirects, redirects);
        if let Some(tls) = tls {
            session.transport = Transport::Tls(Box::new(tls));
        }
        #[cfg(feature = "record-transport")]
        if listening.is_some_and(|l| l.records) {
            session.transport = Transport::Record(Box::new(crate::transport::record::Record::new()));
        }
        self.take_in(session);
    }

    fn accept_ended(&mut self, id: ListenerId, errno: i32) {
        let Some(listening) = self.listening.iter_mut().find(|l| l.id == id) else { return };
        if errno == 0 {
            self.backend.accept(id);
            return;
        }
        if !planted::is(Bug::ForgetAccept) {
            listening.retry_ms = self.now_ms + ACCEPT_PAUSE_MS;
        }
        self.log(Level::Warn, None, What::AcceptPaused { errno });
    }

    pub(crate) fn read_mail(&mut self) {
        while let Some(mail) = self.mailbox.take() {
            self.heed(mail);
        }
    }

    /// Reads the letters that lie there, and no order.
    pub(crate) fn read_letters_there(&mut self) {
        // Not those that come meanwhile: others may write without end.
        for _ in 0..self.mailbox.letters() {
            let Some(mail) = self.mailbox.take_letter() else { break };
            self.heed(mail);
        }
    }

    fn heed(&mut self, mail: Mail) {
        match mail {
            Mail::Drain(code) => self.drain(code),
            Mail::Depart(departure) => self.depart(departure),
            Mail::Withhold(whom) => self.withhold(whom),
            Mail::Readmit(whom) => self.readmit(whom),
            Mail::Plan(generation) => self.adopt(generation),
            Mail::Live(answers) => answers.answer(0),
            Mail::Stop => self.stopping = !planted::is(Bug::IgnoreStop),
            Mail::Resolved => self.resume_resolving(),
            Mail::Decided(decision) => self.decided(decision),
            Mail::Report(reply) => {
                self.report();
                reply.tell(());
            }
            Mail::Census(census) => self.take_census(census),
            Mail::End(ended) => self.end_sessions(ended),
            Mail::Topics { from, letters } => self.read_letters(from, letters),
        }
    }

    fn drain(&mut self, code: CloseCode) {
        if self.draining.is_some() {
            return;
        }
        self.draining = Some(code);
        self.report();
        self.unlisten();
        self.bring_all_news();
        let keys: Vec<Key> = self.registry.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.drain_session(key, Farewell::now(code));
            self.flush_spans();
        }
    }

    /// Lets nobody in any more but those who wait in the kernel's queues: they have been let in by it, and are answered.
    pub(crate) fn unlisten(&mut self) {
        for listening in self.listening.drain(..) {
            self.backend.unlisten(listening.id);
            self.closed.push(listening);
        }
        self.expects_last = true;
    }

    /// Arms a receive unless one is armed, the reader is paused, or the stream has ended.
    pub(crate) fn arm_receive(&mut self, key: Key) {
        let Some(session) = self.registry.get_mut(key) else { return };
        let marks = &session.marks;
        if session.in_flight.receive || marks.ended || marks.paused || marks.starved || marks.sheltered {
            return;
        }
        session.in_flight.receive = true;
        self.backend.receive(&session.socket, token(key));
        if planted::is(Bug::RearmTwice) {
            self.backend.receive(&session.socket, token(key));
        }
    }

    pub(crate) fn receive_ended(&mut self, key: Key, end: ReceiveEnd) {
        let Some(session) = self.registry.get_mut(key) else {
            self.counters.stale += 1;
            return;
        };
        if !session.in_flight.receive {
            self.counters.stale += 1;
            return;
        }
        session.in_flight.receive = false;
        session.in_flight.cancelling = false;
        match end {
            _ if matches!(session.state, State::Dead) => self.freeable.push(key),
            ReceiveEnd::Rearm | ReceiveEnd::Cancelled => self.arm_receive(key),
            ReceiveEnd::Starved => {
                session.marks.starved = true;
                if !planted::is(Bug::IgnoreStarved) {
                    self.starved.push_back(key);
                }
                self.counters.starved += 1;
            }
            ReceiveEnd::Eof => {
                session.marks.ended = true;
                self.peer_ended(key);
            }
            ReceiveEnd::Error(errno) => {
                session.marks.ended = true;
                self.peer_broke(key, errno);
            }
        }
    }

    /// Arms those that found no buffer, once there are some again: arming with an empty pool fails at once.
    fn feed_starved(&mut self) {
        if self.starved.is_empty() {
            return;
        }
        let pool = self.backend.buffers();
        let free = pool.total.saturating_sub(pool.lent) as usize;
        for _ in 0..free.min(self.starved.len()) {
            let Some(key) = self.starved.pop_front() else { break };
            let Some(session) = self.registry.get_mut(key) else { continue };
            session.marks.starved = false;
            self.arm_receive(key);
        }
    }

    /// Stops reading a session until [`Shard::resume`].
    pub(crate) fn pause(&mut self, key: Key) {
        let Some(session) = self.registry.get_mut(key) else { return };
        if session.marks.paused {
            return;
        }
        session.marks.paused = true;
        self.counters.pauses += 1;
        self.cancel_receive(key);
    }

    /// Takes a receive back, where one is armed.
    pub(crate) fn cancel_receive(&mut self, key: Key) {
        let Some(session) = self.registry.get_mut(key) else { return };
        // One whose end is kept has ended already.
        if session.in_flight.receive && !session.in_flight.cancelling && !session.marks.end_kept {
            session.in_flight.cancelling = true;
            self.backend.cancel_receive(&session.socket, token(key));
        }
    }

    /// Reads a paused session again, unless it was too fast: then its time comes.
    pub(crate) fn resume(&mut self, key: Key) {
        let Some(session) = self.registry.get_mut(key) else { return };
        if session.marks.paused && !session.marks.facts.has(Fact::Delayed) {
            session.marks.paused = false;
            session.since = Stamp::at(self.now_ms);
            self.unpark(key);
            self.arm_receive(key);
            self.count_anew(key);
        }
    }

    /// Makes sure that the session is looked at by then; a deadline that is earlier stays.
    pub(crate) fn ensure_deadline(&mut self, key: Key, deadline_ms: u64) {
        if self.wheel.deadline(key.index()).is_none_or(|present| present > deadline_ms) {
            self.wheel.schedule(key.index(), deadline_ms);
        }
    }

    /// Listeners whose pause is over.
    fn resume_accepting(&mut self) {
        for listening in &mut self.listening {
            if listening.retry_ms != 0 && listening.retry_ms <= self.now_ms {
                listening.retry_ms = 0;
                self.backend.accept(listening.id);
            }
        }
    }

    fn free_dead(&mut self) {
        while let Some(key) = self.freeable.pop() {
            let Some(session) = self.registry.get(key) else { continue };
            let in_flight = !session.in_flight.none() && !planted::is(Bug::FreeSlotEarly);
            if !matches!(session.state, State::Dead) || in_flight || session.dirty != 0 {
                continue;
            }
            self.close_account(key);
            let session = self.registry.remove(key).expect("it was there");
            self.leave(&session);
            if let Some(topics) = &mut self.topics {
                topics.forget_pollers(key);
            }
            self.callers.forget(key);
            self.backend.close(session.socket);
        }
    }

    pub(crate) fn log(&mut self, level: Level, key: Option<Key>, what: What) {
        let peer = key.and_then(|key| self.registry.get(key)).and_then(|session| session.peer.address());
        self.log_of(level, key, peer, what);
    }

    /// The same of a connection that may have no slot.
    pub(crate) fn log_of(&mut self, level: Level, key: Option<Key>, peer: Option<SocketAddr>, what: What) {
        if !self.throttle.lets_through(level, &what, self.now_ms) {
            return;
        }
        let generation = self.plan.generation();
        let own = key.and_then(|key| self.registry.get(key)).and_then(Session::own_route);
        let judged = self.judged.filter(|(judged, _)| key == Some(*judged)).map(|(_, route)| route);
        let route = own.or(judged).map(|route| route.index() as u16);
        let session = key.map(Key::to_bits);
        self.environment.log(Entry { level, shard: self.id, session, peer, route, generation, what });
    }
}

/// Slots for so many sessions, each with an upstream leg where there are such.
fn slots(plan: &Plan, max_sessions: usize) -> u32 {
    let legs = if plan.has_legs() { 2 } else { 1 };
    u32::try_from(max_sessions * legs + SPARE_SLOTS).expect("the configuration bounds max_sessions")
}

/// A session's name towards the backend.
pub(crate) fn token(key: Key) -> Token {
    Token(key.to_bits())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
