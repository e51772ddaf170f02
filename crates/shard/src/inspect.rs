//! What a shard holds at a moment between two turns, for tests and the simulator.

use tidegate_io::Backend;

use crate::{
    environment::Environment,
    session::{Session, State},
    shard::Shard,
    topics::Stage,
};

/// Counts of now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// Occupied slots: legs of clients and of upstreams.
    pub slots: u32,
    /// The same by state.
    pub legs: Legs,
    /// Sockets owned.
    pub sockets: u32,
    /// Listeners that were not closed.
    pub listeners: u32,
    /// Receives armed.
    pub receives: u32,
    /// Polls for room armed.
    pub polls: u32,
    /// Connects pending.
    pub connects: u32,
    /// Legs that wait for a receive buffer.
    pub starved: u32,
    /// Events and rests of events that need nothing but a turn.
    pub kept: u32,
    /// Legs whose reader is paused.
    pub paused: u32,
    /// Receive buffers held.
    pub buffers: u32,
    /// Bytes that outboxes own, input that waits for them, and what is held of what is not complete, as counted.
    pub retained: usize,
    /// The same, added up now.
    pub retained_sum: usize,
    /// Bytes that wait in all outboxes.
    pub outbox_bytes: usize,
    /// Bytes that wait in the fullest outbox.
    pub outbox_most: usize,
    /// The heap of incomplete heads, bodies and messages, and of early data.
    pub partial_bytes: usize,
    /// Legs with an entry in the wheel.
    pub wheel: u32,
    /// Legs without one.
    pub untimed: u32,
    /// Proxied pairs.
    pub pairs: u32,
    /// Inflaters lent.
    pub inflaters: u32,
    /// Messages deflated since the start.
    pub deflated_messages: u64,
    /// Sends queued for the next turn.
    pub sends: u32,
    /// Bytes that the turn owns for them.
    pub turn_bytes: usize,
    /// Sessions and requests that take part in topics.
    pub subscribers: u32,
    /// The same as the hub knows them.
    pub members: u32,
    /// Whether the hub holds anything: members, subscriptions, topics, letters.
    pub topics: bool,
    /// Those of routes that are no more.
    pub departing: Departing,
    /// Legs and requests of routes that are no more whose time to go is over.
    pub overdue: u32,
    /// Routes that are said to have other sessions than they have, where that is counted.
    pub miscounted: u32,
}

/// Who has to go, as their routes are no more. Who has only its last bytes left does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Departing {
    /// Waiting for a hook.
    pub deciding: u32,
    /// Waiting for an upstream.
    pub waiting: u32,
    /// Sessions that are answered here.
    pub open: u32,
    /// Clients' legs of pairs.
    pub paired: u32,
    /// Streams of events.
    pub streams: u32,
    /// Polls that wait.
    pub polls: u32,
    /// Requests that publish.
    pub publications: u32,
}

impl Departing {
    /// Counts this one; whether it is one that a departure ends.
    fn count<S>(&mut self, session: &Session<S>) -> bool {
        let count = match &session.state {
            State::Deciding(_) => &mut self.deciding,
            State::Waiting(_) => &mut self.waiting,
            State::Open(_) => &mut self.open,
            State::Paired(_) if session.marks.upstream => return true,
            State::Paired(_) => &mut self.paired,
            State::Exchange(exchange) => match exchange.stage {
                Stage::Streaming(_) => &mut self.streams,
                Stage::Polling(_) => &mut self.polls,
                Stage::Body(_) | Stage::Publishing(_) => &mut self.publications,
                Stage::Asking => return true,
            },
            State::Dialing(_) => return true,
            State::Head(_) | State::Lingering { .. } | State::Dead => return false,
        };
        *count += 1;
        true
    }
}

/// Legs by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Legs {
    /// Reading a request.
    pub head: u32,
    /// Waiting for a hook.
    pub deciding: u32,
    /// Waiting for an upstream.
    pub waiting: u32,
    /// Open, answered here or paired.
    pub open: u32,
    /// Open, a Close sent or owed.
    pub closing: u32,
    /// Last bytes and FIN on their way, discarding.
    pub lingering: u32,
    /// Shut down: only final events are awaited.
    pub ending: u32,
    /// Requests of HTTP under way.
    pub exchanges: u32,
    /// Upstream legs that connect or await the answer.
    pub dialing: u32,
}

impl<B: Backend, E: Environment> Shard<B, E> {
    /// Counts all that the shard holds. Work in proportion to its sessions and to the entries of what is
    /// kept; no byte is looked at or copied.
    pub fn inspect(&self) -> Inspection {
        let mut seen = Inspection {
            slots: self.registry.len() as u32,
            sockets: self.registry.len() as u32,
            listeners: self.listeners() as u32,
            buffers: self.turn.buffers.len() as u32 + self.backlog.buffers(),
            turn_bytes: self.turn.owned_bytes(),
            kept: (self.turn.unread.len() + self.backlog.waiting()) as u32,
            retained: self.retained.bytes(),
            retained_sum: self.backlog.owned_bytes(),
            inflaters: self.codecs.stats().inflaters_lent,
            deflated_messages: self.codecs.stats().deflated_messages,
            sends: self.turn.dirty.len() as u32,
            ..Inspection::default()
        };
        if let Some(topics) = &self.topics {
            seen.subscribers = topics.subscribers();
            seen.members = topics.hub.members() as u32;
            seen.topics = !topics.hub.is_empty();
        }
        let mut open: Vec<i64> =
            self.accounts.as_ref().map_or_else(Vec::new, |accounts| accounts.open_sessions().collect());
        let mut incomplete_sum = 0;
        for (key, session) in self.registry.iter() {
            let route = session.route;
            let slot = self.plan.slots().get(route.index());
            if slot.is_some_and(|slot| slot.retired().is_some()) && seen.departing.count(session) {
                seen.overdue += u32::from(!self.leaving.asks(route));
            }
            if session.state.is_session(&session.marks)
                && let Some(open) = open.get_mut(route.index())
            {
                *open -= 1;
            }
            let closing = session.marks.close_sent || session.marks.close_received;
            let state = match &session.state {
                State::Head(_) => &mut seen.legs.head,
                State::Deciding(_) => &mut seen.legs.deciding,
                State::Waiting(_) => &mut seen.legs.waiting,
                State::Dialing(dialing) => {
                    seen.partial_bytes += dialing.bytes.len();
                    &mut seen.legs.dialing
                }
                State::Open(_) | State::Paired(_) if closing => &mut seen.legs.closing,
                State::Open(_) | State::Paired(_) => &mut seen.legs.open,
                State::Exchange(_) => &mut seen.legs.exchanges,
                State::Lingering { .. } => &mut seen.legs.lingering,
                State::Dead => &mut seen.legs.ending,
            };
            *state += 1;
            if let State::Paired(paired) = &session.state {
                seen.pairs += u32::from(paired.far.is_some() && !session.marks.upstream);
            }
            let held = session.state.held_bytes() + session.sealed_bytes();
            seen.partial_bytes += held;
            seen.retained_sum += held;
            incomplete_sum += held;
            seen.receives += u32::from(session.in_flight.receive);
            seen.polls += u32::from(session.in_flight.poll);
            seen.connects += u32::from(session.in_flight.connect);
            seen.starved += u32::from(session.marks.starved);
            seen.paused += u32::from(session.marks.paused);
            let waits = session.outbox.buffered();
            seen.outbox_bytes += waits;
            seen.retained_sum += session.outbox.retained_bytes();
            seen.outbox_most = seen.outbox_most.max(waits);
            match self.wheel.deadline(key.index()) {
                Some(_) => seen.wheel += 1,
                None => seen.untimed += 1,
            }
        }
        seen.miscounted = open.iter().filter(|open| **open != 0).count() as u32;
        debug_assert_eq!(self.incomplete.bytes, incomplete_sum, "what is not complete is counted");
        // Their sessions will be told behind the bytes that are kept.
        seen.receives -= self.kept_ends();
        seen
    }
}
