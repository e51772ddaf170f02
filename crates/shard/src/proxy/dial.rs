//! From a waiting client to a verified upstream: resolving, connecting, the handshake, and another try where the first
//! byte was not yet answered.
//!
//! The tries are nested: each upstream that the balancer gives, each of its addresses, each local address to connect
//! from. All of them together have one limit ([`limit_ms`]). A fault of this machine is never held against an upstream.

use tidegate_config::{Balance, Proxy};
use tidegate_io::{Address, Backend, ConnectOptions};
use tidegate_registry::Key;
use tidegate_wire::{
    Role,
    deflate::Compression,
    handshake::{self, Accepted, Agreed, Offer},
    http::{Framing, HeadScanner, Refusal, ResponseHead, Scan, http_date},
    message::Decoder,
    relay::Inspector,
};

use super::{Attempt, Dialing, EARLY_BYTES, Phase, Waiting, upstreams::weight};
use crate::{
    environment::Environment,
    head::DRAINED,
    log::{Level, What},
    output::Content,
    plan::{Addresses, ProxyPlan},
    planted::{self, Bug},
    session::{Messages, Paired, Peer, Reading, Session, State},
    shard::{Shard, token},
    stamp::Stamp,
};

/// No upstream took the session.
const BAD_GATEWAY: Refusal =
    Refusal { status: 502, reason: "no upstream could take this session", close: true, fields: &[] };

/// An upstream did not answer in time.
const GATEWAY_TIMEOUT: Refusal =
    Refusal { status: 504, reason: "the upstream did not answer in time", close: true, fields: &[] };

/// This machine has nothing left to connect with.
const UNABLE: Refusal = Refusal {
    status: 503,
    reason: "the gateway can connect to no upstream for now",
    close: true,
    fields: &[("Retry-After", "5")],
};

/// The most of an upstream's refusal that is relayed.
const REFUSAL_BYTES: usize = 64 * 1024;

/// Interim answers that an upstream may send before its final one.
const INTERIMS: u8 = 8;

/// Linux's numbers of errors.
const ENOMEM: i32 = 12;
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
const EADDRNOTAVAIL: i32 = 99;
const ENOBUFS: i32 = 105;
const ETIMEDOUT: i32 = 110;

/// Whose fault an error is, while an upstream is dialed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The upstream's, or of the way there.
    Upstream,
    /// This local address has no port left towards that address, or is not there at all.
    Source,
    /// This machine's, whatever the upstream.
    Machine,
}

impl Fault {
    fn of(errno: i32) -> Fault {
        match errno {
            EADDRNOTAVAIL => Fault::Source,
            ENOMEM | ENFILE | EMFILE | ENOBUFS => Fault::Machine,
            _ => Fault::Upstream,
        }
    }
}

/// How long a client waits for an upstream at most, whatever is tried: as long as one name, a connection for each upstream
/// that may be tried, and one handshake take.
fn limit_ms(settings: &Proxy) -> u64 {
    settings.resolve_timeout_ms
        + settings.connect_timeout_ms * (u64::from(settings.retries) + 1)
        + settings.handshake_timeout_ms
}

/// Where among an upstream's addresses a session begins: each in turn, or where its hash says.
fn first_address(proxy: &ProxyPlan, upstream: u16, hash: u64, addresses: &[Address]) -> usize {
    match proxy.settings.balance {
        _ if addresses.len() < 2 => 0,
        Balance::RoundRobin | Balance::LeastSessions => {
            proxy.upstreams[usize::from(upstream)].address_turn() % addresses.len()
        }
        Balance::Hash(_) => {
            let rank = |address: &Address| match address {
                Address::Tcp(address) => weight(hash, &address.to_string()),
                Address::Unix(_) => 0,
            };
            (0..addresses.len()).max_by_key(|place| rank(&addresses[*place])).unwrap_or(0)
        }
    }
}

impl<B: Backend, E: Environment> Shard<B, E> {
    /// Takes what a client sends before its upstream is there; past the bound it is not read any more.
    pub(crate) fn hold_early(&mut self, key: Key, bytes: &[u8]) -> usize {
        let now = Stamp::at(self.now_ms);
        let Some(session) = self.registry.get_mut(key) else { return bytes.len() };
        let State::Waiting(waiting) = &mut session.state else { return 0 };
        if waiting.early.is_empty() {
            session.since = now;
        }
        // A burst may still land behind the pause: it was received and must not be lost.
        let held = waiting.held_bytes();
        waiting.early.extend_from_slice(bytes);
        let (holds, is_full) = (waiting.held_bytes(), waiting.early.len() >= EARLY_BYTES);
        self.recount(held, holds);
        if is_full {
            self.pause(key);
        }
        bytes.len()
    }

    /// Begins to look for an upstream for a client that waits.
    pub(crate) fn begin_dial(&mut self, key: Key) {
        let plan = std::sync::Arc::clone(&self.plan);
        let now_ms = self.now_ms;
        let Some(session) = self.registry.get_mut(key) else { return };
        let Some(proxy) = &plan.route(session.route).proxy else { return };
        let State::Waiting(waiting) = &mut session.state else { return };
        waiting.limit_ms = now_ms + limit_ms(&proxy.settings);
        waiting.deadline_ms = waiting.limit_ms;
        let deadline_ms = waiting.deadline_ms;
        self.wheel.cancel(key.index());
        self.ensure_deadline(key, deadline_ms);
        self.dial(key);
    }

    /// Tries the next address of the upstream at hand, or the next upstream.
    pub(crate) fn dial(&mut self, key: Key) {
        let plan = std::sync::Arc::clone(&self.plan);
        loop {
            let now_ms = self.now_ms;
            let Some(session) = self.registry.get_mut(key) else { return };
            let route = session.route;
            let State::Waiting(waiting) = &mut session.state else { return };
            let Some(proxy) = &plan.route(route).proxy else { return };
            if Fault::of(waiting.local_fault) == Fault::Machine {
                self.refuse_waiting(key, &UNABLE);
                return;
            }
            let Some(attempt) = &mut waiting.current else {
                let spent = waiting.tried.len() > proxy.settings.retries as usize;
                let chosen = if spent {
                    None
                } else {
                    self.upstreams.choose(route, proxy, key, waiting.hash, &waiting.tried, now_ms)
                };
                let Some(chosen) = chosen else {
                    if waiting.tried.is_empty() && self.upstreams.are_drained(route, proxy) {
                        self.refuse_waiting(key, &DRAINED);
                        return;
                    }
                    let refusal = if waiting.local_fault == 0 { &BAD_GATEWAY } else { &UNABLE };
                    self.refuse_waiting(key, refusal);
                    return;
                };
                waiting.tried.push(chosen);
                waiting.current = Some(Attempt::new(chosen));
                continue;
            };
            let upstream = attempt.upstream;
            let begun = attempt.addresses.is_some();
            let known = match &attempt.addresses {
                Some(known) => std::sync::Arc::clone(known),
                None => proxy.upstreams[usize::from(upstream)].addresses(),
            };
            let Addresses::Known(addresses) = &*known else {
                if waiting.deadline_ms == waiting.limit_ms {
                    waiting.deadline_ms = waiting.limit_ms.min(now_ms + proxy.settings.resolve_timeout_ms);
                }
                let deadline_ms = waiting.deadline_ms;
                self.upstreams.forget_probe(route, upstream, key);
                let registry = &self.registry;
                let waits = |key| {
                    let state = registry.get(key).map(|session| &session.state);
                    matches!(state, Some(State::Waiting(_)))
                };
                self.upstreams.await_name(route, key, waits);
                self.ensure_deadline(key, deadline_ms);
                return;
            };
            if !begun {
                attempt.first = first_address(proxy, upstream, waiting.hash, addresses);
                attempt.addresses = Some(std::sync::Arc::clone(&known));
                waiting.deadline_ms = waiting.limit_ms;
            }
            if attempt.tried >= addresses.len() {
                let spared = attempt.spared;
                waiting.current = None;
                if spared {
                    self.upstreams.forget_probe(route, upstream, key);
                } else {
                    let reason = match addresses.len() {
                        0 => "its name has no address",
                        _ => "all of its addresses failed",
                    };
                    self.upstreams.failed(route, upstream, key, now_ms);
                    self.log_upstream(key, upstream, reason, 0);
                }
                continue;
            }
            let address = &addresses[(attempt.first + attempt.tried) % addresses.len()];
            let sources = proxy.sources(address);
            if attempt.sources == 0 && !sources.is_empty() {
                attempt.source_turn = proxy.source_turn();
            }
            let turn = attempt.source_turn.wrapping_add(attempt.sources);
            let source = (!sources.is_empty()).then(|| sources[turn % sources.len()]);
            let Some(leg) = self.registry.next_key() else {
                self.log_local(key, upstream, "all session slots are taken", 0);
                self.refuse_waiting(key, &UNABLE);
                return;
            };
            self.counters.dialed += 1;
            let socket = match self.backend.connect(address, &ConnectOptions { source }, token(leg)) {
                Ok(socket) => socket,
                Err(error) => {
                    let errno = error.raw_os_error().unwrap_or(0);
                    self.counters.dial_failures += 1;
                    if Fault::of(errno) == Fault::Upstream {
                        self.log_upstream(key, upstream, "cannot connect", errno);
                    }
                    self.address_failed(key, errno);
                    continue;
                }
            };
            let deadline_ms = now_ms + proxy.settings.connect_timeout_ms;
            let state = State::Dialing(Box::new(Dialing {
                far: key,
                upstream,
                phase: Phase::Connecting,
                deadline_ms,
                scanner: HeadScanner::for_response(),
                bytes: Vec::new(),
                interims: 0,
            }));
            // A leg is known by the client that it serves: a log line about it must lead to somebody.
            let client = self.registry.get(key).map_or(Peer::new(None), |session| session.peer);
            let mut session = Session::new(socket, client, state, now_ms);
            session.enter_route(route);
            session.marks.upstream = true;
            session.in_flight.connect = true;
            let inserted = self.registry.insert(session);
            assert!(matches!(inserted, Ok(inserted) if inserted == leg), "the next key is the next key");
            self.upstreams.began(route, upstream);
            self.ensure_deadline(leg, deadline_ms);
            if let Some(State::Waiting(waiting)) =
                self.registry.get_mut(key).map(|session| &mut session.state)
            {
                waiting.leg = Some(leg);
            }
            return;
        }
    }

    /// The address at hand has led to nothing: the next local address, the next address, or nothing more at all.
    fn address_failed(&mut self, key: Key, errno: i32) {
        let plan = std::sync::Arc::clone(&self.plan);
        let Some(session) = self.registry.get_mut(key) else { return };
        let Some(proxy) = &plan.route(session.route).proxy else { return };
        let State::Waiting(waiting) = &mut session.state else { return };
        let Some(attempt) = &mut waiting.current else { return };
        let upstream = attempt.upstream;
        let fault = Fault::of(errno);
        if fault == Fault::Source {
            attempt.sources += 1;
            let address = attempt.address();
            if address.is_some_and(|address| attempt.sources < proxy.sources(address).len()) {
                return;
            }
        }
        attempt.tried += 1;
        attempt.sources = 0;
        if fault == Fault::Upstream {
            attempt.failed = true;
            return;
        }
        attempt.spared = true;
        waiting.local_fault = errno;
        let reason = match fault {
            Fault::Source => "no source address can be used, or has a port left towards it",
            Fault::Machine | Fault::Upstream => "no socket is to be had",
        };
        self.log_local(key, upstream, reason, errno);
    }

    /// A connect has ended: the request goes out, or the next address is tried.
    pub(crate) fn connected(&mut self, key: Key, errno: i32) {
        let plan = std::sync::Arc::clone(&self.plan);
        let now_ms = self.now_ms;
        let Some(session) = self.registry.get_mut(key) else {
            self.counters.stale += 1;
            return;
        };
        if !session.in_flight.connect {
            self.counters.stale += 1;
            return;
        }
        session.in_flight.connect = false;
        let route = session.route;
        let State::Dialing(dialing) = &mut session.state else {
            self.freeable.push(key);
            return;
        };
        if errno != 0 {
            self.dial_failed(key, "cannot connect", errno);
            return;
        }
        let proxy = plan.route(route).proxy.as_ref();
        dialing.deadline_ms = now_ms + proxy.map_or(0, |proxy| proxy.settings.handshake_timeout_ms);
        let deadline_ms = dialing.deadline_ms;
        let upstream = dialing.upstream;
        dialing.phase = Phase::Securing;
        let is_secure = proxy.is_some_and(|proxy| self.is_secure(proxy, upstream));
        self.wheel.cancel(key.index());
        self.ensure_deadline(key, deadline_ms);
        if is_secure {
            self.secure(key);
        } else {
            self.send_request(key);
        }
    }

    /// The request goes out.
    pub(super) fn send_request(&mut self, key: Key) {
        let Some(State::Dialing(dialing)) = self.registry.get_mut(key).map(|session| &mut session.state)
        else {
            return;
        };
        dialing.phase = Phase::Handshake;
        let far = dialing.far;
        let Some(State::Waiting(waiting)) = self.registry.get(far).map(|session| &session.state) else {
            self.abort(key, true);
            return;
        };
        let source = self.turn.keep_small(&waiting.request);
        let early = planted::is(Bug::ForwardBeforeVerify).then(|| self.turn.keep_small(&waiting.early));
        self.emit(key, source, Content::WHOLE);
        if let Some(early) = early.filter(|early| !self.turn.bytes(*early).is_empty()) {
            self.emit(key, early, Content::WHOLE);
        }
        self.arm_receive(key);
    }

    /// Reads the upstream's answer; gives how many of `bytes` were part of it.
    pub(crate) fn read_answer(&mut self, key: Key, bytes: &[u8]) -> usize {
        let plan = std::sync::Arc::clone(&self.plan);
        let Some(session) = self.registry.get_mut(key) else { return bytes.len() };
        let State::Dialing(dialing) = &mut session.state else { return 0 };
        if let Phase::Refusal { answer, bare, missing, .. } = &mut dialing.phase {
            match missing {
                Some(missing) => {
                    let taken = bytes.len().min(*missing);
                    answer.extend_from_slice(&bytes[..taken]);
                    *missing -= taken;
                    if *missing == 0 {
                        self.relay_refusal(key);
                    }
                }
                None if answer.len() + bytes.len() <= REFUSAL_BYTES => answer.extend_from_slice(bytes),
                None => {
                    *answer = std::mem::take(bare);
                    self.relay_refusal(key);
                }
            }
            return bytes.len();
        }
        let before = dialing.bytes.len();
        dialing.bytes.extend_from_slice(bytes);
        let end = match dialing.scanner.scan(&dialing.bytes, plan.head_limits()) {
            Ok(Scan::Complete(end)) => end,
            Ok(Scan::Partial) => return bytes.len(),
            Err(_) => {
                self.answer_bad(key, "its answer is too long or not HTTP");
                return bytes.len();
            }
        };
        let head = std::mem::take(&mut dialing.bytes);
        let used = end - before;
        let answer = match ResponseHead::parse(&head[..end], plan.head_limits()) {
            Ok(answer) => answer,
            Err(bad) => {
                self.answer_bad(key, bad.reason());
                return bytes.len();
            }
        };
        match answer.status {
            101 => self.verify(key, &answer),
            // RFC 9110 §15.2: interim answers precede the final one.
            100..=199 if dialing.interims < INTERIMS => {
                dialing.interims += 1;
                dialing.scanner = HeadScanner::for_response();
            }
            100..=199 => {
                self.answer_bad(key, "too many interim answers");
                return bytes.len();
            }
            _ => {
                let (mut relayed, mut bare) = (Vec::with_capacity(512), Vec::new());
                let date = http_date(self.environment.unix_seconds());
                let framing = answer.relay(&mut relayed, &date);
                let missing = match framing {
                    Ok(Framing::Empty) => Some(0),
                    Ok(Framing::Length(length)) if length <= REFUSAL_BYTES as u64 => Some(length as usize),
                    Ok(Framing::UntilClose) => {
                        answer.relay_without_body(&mut bare, &date);
                        None
                    }
                    // A body that is long or in chunks is left out: the status and its fields are what matters.
                    Ok(Framing::Length(_) | Framing::Chunked) => {
                        relayed.clear();
                        answer.relay_without_body(&mut relayed, &date);
                        Some(0)
                    }
                    Err(bad) => {
                        self.answer_bad(key, bad.reason());
                        return bytes.len();
                    }
                };
                dialing.phase = Phase::Refusal { status: answer.status, answer: relayed, bare, missing };
                if missing == Some(0) {
                    self.relay_refusal(key);
                }
            }
        }
        used
    }

    fn verify(&mut self, key: Key, answer: &ResponseHead<'_>) {
        let Some(State::Dialing(dialing)) = self.registry.get(key).map(|session| &session.state) else {
            return;
        };
        let far = dialing.far;
        let Some(State::Waiting(waiting)) = self.registry.get(far).map(|session| &session.state) else {
            self.abort(key, true);
            return;
        };
        let protocols: Vec<&str> = waiting.protocols.iter().map(String::as_str).collect();
        let offer =
            if waiting.passed_offers.is_empty() { Offer::None } else { Offer::Raw(&waiting.passed_offers) };
        match handshake::verify_response(answer, &waiting.nonce, &protocols, offer) {
            Ok(agreed) => self.pair_up(far, key, &agreed),
            Err(bad) => self.answer_bad(key, bad.reason()),
        }
    }

    /// The upstream's 101 is right: the client gets its own, and both legs are one session.
    fn pair_up(&mut self, client: Key, upstream: Key, agreed: &Agreed) {
        let placeholder = State::Lingering { left_bytes: 0, timeout_ms: 0, deadline_ms: 0 };
        let Some(session) = self.registry.get_mut(upstream) else { return };
        let route = session.route;
        let State::Dialing(dialing) = &session.state else { return };
        let place = dialing.upstream;
        self.upstreams.succeeded(route, place, self.now_ms);
        let Some(session) = self.registry.get_mut(client) else { return };
        let State::Waiting(waiting) = std::mem::replace(&mut session.state, placeholder) else { return };
        self.recount(waiting.held_bytes(), 0);
        let Waiting { client_key, edge, early, .. } = *waiting;
        // Only now: many may have waited together for what is there once.
        let edge = edge.map(|params| match self.codecs.takeover_available() {
            true => params,
            false => params.without_takeover(),
        });
        let rsv1 = agreed.extension.is_some();
        let extension = edge.as_ref().or(agreed.extension.as_ref());
        let mut response = Vec::with_capacity(256);
        let accepted = Accepted { key: &client_key, protocol: agreed.protocol.as_deref(), extension };
        handshake::switching_protocols(&mut response, &accepted);
        let source = self.turn.keep(response, 0);
        self.emit(client, source, Content::Opening);
        let reading = |role: Role, compression: Option<Compression>| match edge {
            Some(_) => Reading::Messages(Box::new(Messages { decoder: Decoder::new(role), compression })),
            None => Reading::Cut(Inspector::new(role)),
        };
        let compression = edge.map(|params| Compression::new(params, Role::Server, &mut self.codecs));
        let near = Paired::new(upstream, place, reading(Role::Server, compression), rsv1);
        let far = Paired::new(client, place, reading(Role::Client, None), rsv1);
        self.counters.opened += 1;
        if let Some(session) = self.registry.get_mut(client) {
            session.marks.paused = false;
        }
        let sealed = self.registry.get(upstream).map_or(0, |session| session.transport.held_bytes());
        // From now on it counts.
        self.recount(0, sealed);
        self.opened(upstream, State::Paired(far));
        self.opened(client, State::Paired(near));
        self.keep_early(client, early);
        self.arm_receive(client);
    }

    /// The upstream's answer is no answer: nothing of it reaches the client.
    fn answer_bad(&mut self, key: Key, reason: &'static str) {
        let Some((far, upstream)) = self.end_dial(key, reason, 0) else { return };
        self.mark_failed(far, upstream);
        self.refuse_waiting(far, &BAD_GATEWAY);
    }

    /// The upstream's refusal is complete enough: the client gets it.
    fn relay_refusal(&mut self, key: Key) {
        let Some(State::Dialing(dialing)) = self.registry.get_mut(key).map(|session| &mut session.state)
        else {
            return;
        };
        let (far, upstream) = (dialing.far, dialing.upstream);
        let Phase::Refusal { status, answer, .. } = &mut dialing.phase else { return };
        let (status, response) = (*status, std::mem::take(answer));
        let Some(route) = self.registry.get(far).map(|session| session.route) else { return };
        self.upstreams.succeeded(route, upstream, self.now_ms);
        self.abort(key, false);
        self.count_refused(status);
        let level = if status >= 500 { Level::Warn } else { Level::Info };
        self.log(level, Some(far), What::UpstreamRefused { upstream, route: route.index() as u16, status });
        let source = self.turn.keep(response, 0);
        self.emit(far, source, Content::Opening);
        self.linger(far);
    }

    /// A dial has failed before any answer: the next address, or the next upstream.
    pub(crate) fn dial_failed(&mut self, key: Key, reason: &'static str, errno: i32) {
        let Some(session) = self.registry.get(key) else { return };
        let State::Dialing(dialing) = &session.state else { return };
        let ends_in_order = session.transport.ends_in_order();
        match &dialing.phase {
            // The end of the connection is the end of a body without a length; with TLS it must be told (RFC 9112 §9.8).
            Phase::Refusal { missing: None, .. } if errno == 0 && ends_in_order => {
                self.relay_refusal(key);
            }
            Phase::Refusal { .. } => {
                self.answer_bad(key, "its refusal was cut off");
            }
            Phase::Handshake if !dialing.bytes.is_empty() || dialing.interims > 0 => {
                self.answer_bad(key, "its answer was cut off");
            }
            phase @ (Phase::Connecting | Phase::Securing | Phase::Handshake) => {
                self.counters.upstream_tls_failed += u64::from(matches!(phase, Phase::Securing));
                let Some((far, _)) = self.end_dial(key, reason, errno) else { return };
                self.address_failed(far, errno);
                self.dial(far);
            }
        }
    }

    /// A dial's deadline has passed.
    pub(crate) fn dial_timed_out(&mut self, key: Key) {
        let Some(State::Dialing(dialing)) = self.registry.get(key).map(|session| &session.state) else {
            return;
        };
        match dialing.phase {
            Phase::Connecting => self.dial_failed(key, "cannot connect", ETIMEDOUT),
            Phase::Securing => self.dial_failed(key, "no handshake of TLS in time", ETIMEDOUT),
            Phase::Handshake | Phase::Refusal { .. } => {
                let Some((far, upstream)) = self.end_dial(key, "no answer to the handshake in time", 0)
                else {
                    return;
                };
                self.mark_failed(far, upstream);
                self.refuse_waiting(far, &GATEWAY_TIMEOUT);
            }
        }
    }

    /// Ends an upstream leg before its 101; gives the client and the upstream's place.
    fn end_dial(&mut self, key: Key, reason: &'static str, errno: i32) -> Option<(Key, u16)> {
        let State::Dialing(dialing) = &self.registry.get(key)?.state else { return None };
        let (far, upstream) = (dialing.far, dialing.upstream);
        self.counters.dial_failures += 1;
        // A fault of this machine is told where it is known what follows from it.
        if Fault::of(errno) == Fault::Upstream {
            self.log_upstream(far, upstream, reason, errno);
        }
        if self.registry.get(key).is_some_and(|leg| leg.marks.ended && leg.transport.is_tls()) {
            // An upstream that cannot be verified is told so (RFC 8446 §6.2).
            self.linger(key);
        } else {
            self.abort(key, true);
        }
        match &mut self.registry.get_mut(far)?.state {
            State::Waiting(waiting) if waiting.leg == Some(key) => {
                waiting.leg = None;
                Some((far, upstream))
            }
            _ => None,
        }
    }

    fn mark_failed(&mut self, client: Key, upstream: u16) {
        if let Some(route) = self.registry.get(client).map(|session| session.route) {
            self.upstreams.failed(route, upstream, client, self.now_ms);
        }
    }

    /// A client has waited for long enough: for a name, or for all that was tried.
    pub(crate) fn wait_timed_out(&mut self, key: Key) {
        let Some(State::Waiting(waiting)) = self.registry.get(key).map(|session| &session.state) else {
            return;
        };
        if let Some(attempt) = &waiting.current {
            let upstream = attempt.upstream;
            if attempt.addresses.is_none() {
                self.log_upstream(key, upstream, "its name was not resolved in time", 0);
            } else {
                // It had its chance where one of its addresses has had it.
                if attempt.failed && !attempt.spared {
                    self.mark_failed(key, upstream);
                }
                self.log_upstream(
                    key,
                    upstream,
                    "it did not take the session within the limit for all tries",
                    0,
                );
            }
        }
        self.refuse_waiting(key, &GATEWAY_TIMEOUT);
    }

    /// Names were resolved: those that waited go on.
    pub(crate) fn resume_resolving(&mut self) {
        for key in self.upstreams.take_resolving() {
            self.dial(key);
            self.flush_spans();
        }
    }

    /// Refuses a client that waits, and ends its dial.
    pub(crate) fn refuse_waiting(&mut self, key: Key, refusal: &Refusal) {
        self.end_waiting(key);
        self.refuse(key, refusal, false);
    }

    /// The client has gone while it waited.
    pub(crate) fn give_up_waiting(&mut self, key: Key) {
        self.end_waiting(key);
        self.abort(key, true);
    }

    /// Ends what is done for a client that waits; the client itself is seen to by the caller.
    pub(crate) fn end_waiting(&mut self, key: Key) {
        let Some(session) = self.registry.get_mut(key) else { return };
        let route = session.route;
        let State::Waiting(waiting) = &mut session.state else { return };
        let leg = waiting.leg.take();
        if let Some(attempt) = &waiting.current {
            self.upstreams.forget_probe(route, attempt.upstream, key);
        }
        if let Some(leg) = leg {
            self.abort(leg, true);
        }
    }

    fn log_local(&mut self, key: Key, upstream: u16, reason: &'static str, errno: i32) {
        let route = self.registry.get(key).map_or(0, |session| session.route.index() as u16);
        self.log(Level::Warn, Some(key), What::LocalFault { upstream, route, reason, errno });
    }

    pub(super) fn log_upstream(&mut self, key: Key, upstream: u16, reason: &'static str, errno: i32) {
        let session = self.registry.get(key);
        let route = session.map_or(0, |session| session.route.index() as u16);
        let address = match session.map(|session| &session.state) {
            Some(State::Waiting(waiting)) => waiting.current.as_ref().and_then(Attempt::address),
            _ => None,
        };
        let address = address.and_then(|address| match address {
            Address::Tcp(address) => Some(*address),
            Address::Unix(_) => None,
        });
        self.log(Level::Warn, Some(key), What::UpstreamFailed { upstream, route, address, reason, errno });
    }
}
