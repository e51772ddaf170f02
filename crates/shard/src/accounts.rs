//! What is counted by session and by route, where somebody wants to know: the shard of a gateway without an admin listener
//! has none of this, and compares one pointer for each buffer.

use std::sync::Arc;

use tidegate_hub::RouteId;
use tidegate_io::Backend;
use tidegate_registry::Key;
use tidegate_wire::close::CloseCode;

use crate::{
    environment::Environment,
    log::{ABNORMAL, Cause, Leg, Level, Totals, What},
    plan::Plan,
    proxy::{Tenancy, Upstreams},
    report::{Cell, CloseCount, Flow, Histogram, INTERVAL_MS, Inflation, Report, RouteCounts},
    session::{Session, State},
    shard::Shard,
};

/// Causes that are counted apart; further ones are counted as one.
const CAUSES: usize = 256;

/// Why sessions end behind TERM or INT.
const ENDS: &str = "the gateway ends";

/// What a shard counts.
pub(crate) struct Accounts {
    cell: Arc<Cell>,
    /// Each session's end is told with what it has done.
    tells: bool,
    /// When the numbers are copied again.
    due_ms: u64,
    routes: Vec<RouteCounts>,
    /// By slot.
    sessions: Box<[Tally]>,
    closes: Vec<CloseCount>,
    refusals: Vec<(u16, u64)>,
    round_trips: Histogram,
    turns: Histogram,
}

/// What the session in a slot has done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) flow: Flow,
    /// When the connection was accepted, in milliseconds; 0: the slot is free or an upstream leg's.
    pub(crate) accepted_ms: u64,
    /// Its handshake has ended in a session.
    opened: bool,
    /// What went over it before its first request had found a route has been counted there.
    placed: bool,
    /// Why it ends, where that is known.
    cause: Option<Cause>,
    /// That is what it was asked to do: whatever else ends it counts instead.
    is_asked: bool,
    /// Which of those that have had its upstream's place that upstream is.
    tenancy: Tenancy,
    /// The place of its upstream among its route's.
    upstream: Option<u16>,
}

impl Tally {
    /// The place of its upstream among its route's; `None` where it has none, or that is another's by now.
    pub(crate) fn upstream(&self, route: Option<RouteId>, upstreams: &Upstreams) -> Option<u16> {
        let place = self.upstream?;
        (upstreams.tenancy(route?, place) == Some(self.tenancy)).then_some(place)
    }
}

impl Accounts {
    fn new(cell: Arc<Cell>, plan: &Plan, slots: u32) -> Self {
        Self {
            cell,
            tells: plan.config().log.sessions != Some(false),
            due_ms: 0,
            routes: vec![RouteCounts::default(); plan.config().routes.len()],
            sessions: vec![Tally::default(); slots as usize].into(),
            closes: Vec::new(),
            refusals: Vec::new(),
            round_trips: Histogram::default(),
            turns: Histogram::default(),
        }
    }

    pub(crate) fn tally(&self, key: Key) -> &Tally {
        &self.sessions[key.index() as usize]
    }

    /// By route how many sessions are open, for inspection.
    pub(crate) fn open_sessions(&self) -> impl Iterator<Item = i64> {
        self.routes.iter().map(|route| route.opened as i64 - route.ended as i64)
    }

    pub(crate) fn accepted(&mut self, key: Key, now_ms: u64) {
        self.sessions[key.index() as usize] = Tally { accepted_ms: now_ms.max(1), ..Tally::default() };
    }

    /// A number is another route's.
    pub(crate) fn begin_route(&mut self, id: RouteId) {
        *self.route(id.index()) = RouteCounts::default();
    }

    /// A route's counts; there may be more routes than at the start.
    fn route(&mut self, place: usize) -> &mut RouteCounts {
        if place >= self.routes.len() {
            self.routes.resize(place + 1, RouteCounts::default());
        }
        &mut self.routes[place]
    }

    /// What goes over a session's connection, in its own account and its route's.
    #[inline]
    pub(crate) fn count<S>(&mut self, key: Key, session: &Session<S>, change: impl Fn(&mut Flow)) {
        if let Some(route) = session.own_route() {
            let route = self.route(route.index());
            change(if session.marks.upstream { &mut route.upstreams } else { &mut route.clients });
        }
        if !session.marks.upstream {
            change(&mut self.sessions[key.index() as usize].flow);
        }
    }

    /// A request has found its route. The first of a connection brings along what came and went before: a handshake of TLS, and the
    /// request's own head, as the answer's is counted, too.
    pub(crate) fn placed(&mut self, key: Key, id: RouteId) {
        let tally = &mut self.sessions[key.index() as usize];
        if std::mem::replace(&mut tally.placed, true) {
            return;
        }
        let before = tally.flow;
        let clients = &mut self.route(id.index()).clients;
        clients.received_bytes += before.received_bytes;
        clients.sent_bytes += before.sent_bytes;
    }

    pub(crate) fn opened<S>(&mut self, key: Key, session: &Session<S>, upstreams: &Upstreams) {
        if session.marks.upstream {
            return;
        }
        let tally = &mut self.sessions[key.index() as usize];
        tally.opened = true;
        if let State::Paired(paired) = &session.state {
            tally.upstream = Some(paired.upstream);
            tally.tenancy = upstreams.tenancy(session.route, paired.upstream).unwrap_or_default();
        }
        self.route(session.route.index()).opened += 1;
    }

    pub(crate) fn ended<S>(&mut self, session: &Session<S>) {
        self.route(session.route.index()).ended += 1;
    }

    /// Why a session ends: the first cause is the one that counts.
    fn caused(&mut self, key: Key, cause: Cause) {
        let tally = &mut self.sessions[key.index() as usize];
        if tally.cause.is_some() && !tally.is_asked {
            return;
        }
        tally.cause = Some(cause);
        tally.is_asked = false;
        self.count_close(cause);
    }

    /// Why a session ends where nothing else does it: counted at its end.
    fn asked(&mut self, key: Key, cause: Cause) {
        let tally = &mut self.sessions[key.index() as usize];
        if tally.cause.is_none() {
            tally.cause = Some(cause);
            tally.is_asked = true;
        }
    }

    fn count_close(&mut self, Cause { leg, code, reason }: Cause) {
        // Peers choose these codes: each with a count of its own would let them take memory.
        let code = match code {
            3000..=3999 => 3000,
            4000..=4999 => 4000,
            code => code,
        };
        let same = |close: &CloseCount| (close.leg, close.code, close.reason) == (leg, code, reason);
        match self.closes.iter().position(same) {
            Some(place) => self.closes[place].count += 1,
            None if self.closes.len() < CAUSES => {
                self.closes.push(CloseCount { leg, code, reason, count: 1 });
            }
            None => {
                if let Some(last) = self.closes.last_mut() {
                    *last = CloseCount { leg, code: 0, reason: "other", count: last.count + 1 };
                }
            }
        }
    }

    pub(crate) fn refused(&mut self, status: u16) {
        match self.refusals.iter_mut().find(|(counted, _)| *counted == status) {
            Some((_, count)) => *count += 1,
            None => self.refusals.push((status, 1)),
        }
    }

    pub(crate) fn answered_ping(&mut self, ms: u64) {
        self.round_trips.add(ms * 1_000);
    }
}

impl<B: Backend, E: Environment> Shard<B, E> {
    /// From now on it counts by session and by route, and leaves its numbers there. Before the first session.
    pub fn account_to(&mut self, cell: Arc<Cell>) {
        self.began = self.backend.now();
        self.accounts = Some(Box::new(Accounts::new(cell, &self.plan, self.room())));
        self.report();
    }

    /// The kernel has taken so many bytes of a session.
    #[inline]
    pub(crate) fn count_sent(&mut self, key: Key, bytes: usize) {
        if let Some(accounts) = &mut self.accounts
            && let Some(session) = self.registry.get(key)
        {
            accounts.count(key, session, |flow| flow.sent_bytes += bytes as u64);
        }
    }

    /// A session was given so many messages.
    #[inline]
    pub(crate) fn count_given(&mut self, key: Key, messages: u64) {
        self.counters.delivered += messages;
        if let Some(accounts) = &mut self.accounts
            && let Some(session) = self.registry.get(key)
        {
            accounts.count(key, session, |flow| flow.sent_messages += messages);
        }
    }

    /// A request was refused with this status.
    pub(crate) fn count_refused(&mut self, status: u16) {
        self.counters.refused += 1;
        if let Some(accounts) = &mut self.accounts {
            accounts.refused(status);
        }
    }

    /// Notes why a session ends; whether that is told at its end.
    pub(crate) fn note_cause(&mut self, key: Key, cause: Cause) -> bool {
        let Some(accounts) = &mut self.accounts else { return false };
        let Some(session) = self.registry.get(key) else { return false };
        let client = match &session.state {
            _ if !session.marks.upstream => key,
            State::Paired(paired) => match paired.far {
                Some(far) => far,
                None => return false,
            },
            _ => return false,
        };
        accounts.caused(client, cause);
        accounts.tells
    }

    /// Notes that a session is asked to go, as others are: that is why it ends, unless something else comes first.
    pub(crate) fn note_farewell(&mut self, key: Key, code: CloseCode) {
        let reason = if self.is_ending() { ENDS } else { "its route or upstream is drained or has changed" };
        let Some(accounts) = &mut self.accounts else { return };
        if self.registry.get(key).is_some_and(|session| !session.marks.upstream) {
            accounts.asked(key, Cause { leg: Leg::Client, code: code.into(), reason });
        }
    }

    /// A slot is about to be free: its session has had its last byte.
    pub(crate) fn close_account(&mut self, key: Key) {
        let Some(accounts) = &mut self.accounts else { return };
        let Some(session) = self.registry.get(key) else { return };
        if session.marks.upstream {
            return;
        }
        let tally = std::mem::take(&mut accounts.sessions[key.index() as usize]);
        if !tally.opened {
            return;
        }
        let cause = tally.cause.unwrap_or_else(|| {
            let (code, reason) = match self.draining {
                Some(code) => (code.into(), ENDS),
                None if self.leaving.is_all() => (ABNORMAL, ENDS),
                None => (ABNORMAL, "ended"),
            };
            Cause { leg: Leg::Client, code, reason }
        });
        if tally.cause.is_none() || tally.is_asked {
            accounts.count_close(cause);
        }
        if !accounts.tells {
            return;
        }
        let totals = Totals {
            received_bytes: tally.flow.received_bytes,
            sent_bytes: tally.flow.sent_bytes,
            received_messages: tally.flow.received_messages,
            sent_messages: tally.flow.sent_messages,
            duration_ms: self.now_ms.saturating_sub(tally.accepted_ms),
        };
        let route = session.own_route();
        let upstream = tally.upstream(route, &self.upstreams);
        let route = route.map(|route| route.index() as u16);
        self.log(Level::Info, Some(key), What::Closed { cause, route, upstream, totals });
    }

    /// The shard ends: so do the sessions that are there yet.
    pub(crate) fn close_accounts(&mut self) {
        if self.accounts.is_some() {
            let keys: Vec<Key> = self.registry.iter().map(|(key, _)| key).collect();
            keys.into_iter().for_each(|key| self.close_account(key));
        }
    }

    /// Behind a turn: how long its work took, and the numbers where it is time.
    pub(crate) fn end_turn(&mut self) {
        let Some(accounts) = &mut self.accounts else { return };
        let now = self.backend.now();
        let us = now.saturating_sub(self.began).as_micros();
        accounts.turns.add(u64::try_from(us).unwrap_or(u64::MAX));
        if self.now_ms >= accounts.due_ms {
            self.report();
        }
    }

    /// Copies the numbers to where others read them.
    pub(crate) fn report(&mut self) {
        let is_ending = self.is_ending();
        let Some(accounts) = &mut self.accounts else { return };
        accounts.due_ms = self.now_ms + INTERVAL_MS;
        let stats = self.codecs.stats();
        let cell = Arc::clone(&accounts.cell);
        let is_said = cell.write(|report| {
            let Report {
                generation,
                draining,
                connections,
                counters,
                backend,
                buffers,
                topics,
                inflation,
                routes,
                upstreams,
                closes,
                refusals,
                round_trips,
                turns,
            } = report;
            *generation = self.plan.generation();
            *draining = is_ending;
            *connections = self.sessions as u64;
            *counters = self.counters;
            *backend = self.backend.counters();
            *buffers = self.backend.buffers();
            *topics = self.topics.as_ref().map(|topics| *topics.hub.counts());
            *inflation = Inflation {
                compressed_bytes: stats.compressed_bytes,
                inflated_bytes: stats.inflated_bytes,
                deflated_bytes: stats.deflated_bytes,
            };
            routes.clone_from(&accounts.routes);
            self.upstreams.report(upstreams);
            closes.clone_from(&accounts.closes);
            refusals.clone_from(&accounts.refusals);
            *round_trips = accounts.round_trips;
            *turns = accounts.turns;
        });
        if !is_said {
            // With the next turn.
            accounts.due_ms = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_takes_what_the_documentation_says() {
        assert_eq!(size_of::<Tally>(), 72);
    }

    #[test]
    fn causes_that_peers_choose_do_not_take_memory() {
        let text = "version = 1\n[[listener]]\nbind = '127.0.0.1:1'\n[[route]]\npath = '/'\necho = {}\n";
        let plan = Plan::new(tidegate_config::parse(text, "t.toml").expect("it is right"), 1);
        let mut accounts = Accounts::new(Arc::default(), &plan, 1);
        for code in 1000..5000 {
            accounts.count_close(Cause { leg: Leg::Client, code, reason: "closed by the client" });
        }
        assert_eq!(accounts.closes.len(), CAUSES);
        assert_eq!(accounts.closes.iter().map(|close| close.count).sum::<u64>(), 4_000);
        let mut accounts = Accounts::new(Arc::default(), &plan, 1);
        for code in 3000..5000 {
            accounts.count_close(Cause { leg: Leg::Client, code, reason: "closed by the client" });
        }
        let counted: Vec<_> = accounts.closes.iter().map(|close| (close.code, close.count)).collect();
        assert_eq!(counted, [(3000, 1000), (4000, 1000)]);
    }
}
