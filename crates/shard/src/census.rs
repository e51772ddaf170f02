//! Sessions as those who run the gateway see them: counted in parts, so that no turn gets long, and ended one by one.

use std::{fmt, net::SocketAddr, sync::Arc};

use tidegate_io::Backend;
use tidegate_registry::Key;
use tidegate_wire::close::CloseCode;

use crate::{
    environment::Environment,
    leaving::Farewell,
    log::{Cause, Leg},
    report::{Flow, Reply},
    session::State,
    shard::Shard,
};

/// Slots that are looked at for one letter.
pub const CENSUS_SLOTS: u32 = 1024;

/// A question about the sessions of a shard.
pub struct Census {
    /// The slot to begin with.
    pub from: u32,
    /// Most sessions of an answer.
    pub most: usize,
    /// Whether to say whom their certificates name: each is read for it, so that `most` has to be small.
    pub with_subjects: bool,
    /// Which ones.
    pub wanted: Arc<dyn Fn(&SessionState) -> bool + Send + Sync>,
    /// Where the answer goes.
    pub reply: Reply<Counted>,
}

impl fmt::Debug for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Census").field("from", &self.from).field("most", &self.most).finish_non_exhaustive()
    }
}

/// Sessions of a shard, by slot.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// Those that were wanted.
    pub sessions: Vec<SessionState>,
    /// The slot to go on with; `None`: there are no more.
    pub next: Option<u32>,
}

/// A session at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionState {
    /// Its shard.
    pub shard: u16,
    /// Its key in the shard.
    pub key: u64,
    /// The client's address, where it is known.
    pub peer: Option<SocketAddr>,
    /// Its route's number; `None` where its request has found none yet, or was refused before.
    pub route: Option<u16>,
    /// The place of its upstream among its route's, or of the one that is tried; `None` where it has none.
    pub upstream: Option<u16>,
    /// The user whom its token names; `None` where its route asks for none.
    pub user: Option<Box<str>>,
    /// Whom its certificate names (RFC 4514), where that was asked for; not yet there for `wanted`.
    pub subject: Option<Box<str>>,
    /// How far it is.
    pub stage: SessionStage,
    /// It speaks TLS.
    pub tls: bool,
    /// Since its connection was accepted, in milliseconds.
    pub age_ms: u64,
    /// Since the client was last heard, in milliseconds.
    pub silent_ms: u64,
    /// Bytes that wait for the client.
    pub buffered_bytes: u64,
    /// What went over its connection.
    pub flow: Flow,
}

/// How far a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionStage {
    /// Its request is being read.
    Handshake,
    /// It waits for its hook's word.
    Deciding,
    /// It waits for its upstream.
    Waiting,
    /// Messages go both ways.
    Open,
    /// A request of HTTP is being answered: a stream of events, a poll, a publication.
    Request,
    /// A Close was sent or received, or its last bytes are on their way.
    Closing,
}

impl SessionStage {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Handshake, Self::Deciding, Self::Waiting, Self::Open, Self::Request, Self::Closing];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Deciding => "deciding",
            Self::Waiting => "waiting",
            Self::Open => "open",
            Self::Request => "request",
            Self::Closing => "closing",
        }
    }
}

/// Sessions to end.
#[derive(Debug)]
pub struct Ended {
    /// Their keys; one that has ended already does not matter.
    pub keys: Vec<u64>,
    /// What they are told.
    pub code: CloseCode,
    /// How many were there and did not end already.
    pub reply: Reply<usize>,
}

/// Why a session was ended on request.
const REASON: &str = "ended by an operator";

impl<B: Backend, E: Environment> Shard<B, E> {
    pub(crate) fn take_census(&self, census: Census) {
        let Census { from, most, with_subjects, wanted, reply } = census;
        let until = self.registry.slots().min(from.saturating_add(CENSUS_SLOTS));
        let mut counted = Counted::default();
        let mut slot = from;
        while slot < until && counted.sessions.len() < most {
            if let Some(key) = self.registry.key_at(slot)
                && let Some(state) = self.session_state(key)
                && wanted(&state)
            {
                let subject = with_subjects.then(|| self.subject(key)).flatten();
                counted.sessions.push(SessionState { subject, ..state });
            }
            slot += 1;
        }
        counted.next = (slot < self.registry.slots()).then_some(slot);
        reply.tell(counted);
    }

    /// What is seen of a client's session.
    fn session_state(&self, key: Key) -> Option<SessionState> {
        let session = self.registry.get(key)?;
        if session.marks.upstream {
            return None;
        }
        let closing = session.marks.close_sent || session.marks.close_received;
        let stage = match &session.state {
            State::Head(_) => SessionStage::Handshake,
            State::Deciding(_) => SessionStage::Deciding,
            State::Waiting(_) => SessionStage::Waiting,
            State::Open(_) | State::Paired(_) if !closing => SessionStage::Open,
            State::Exchange(_) => SessionStage::Request,
            State::Dialing(_) | State::Dead => return None,
            State::Open(_) | State::Paired(_) | State::Lingering { .. } => SessionStage::Closing,
        };
        let route = session.own_route();
        let tally = self.accounts.as_ref().map(|accounts| *accounts.tally(key)).unwrap_or_default();
        let upstream = match &session.state {
            State::Waiting(waiting) => waiting.current.as_ref().map(|attempt| attempt.upstream),
            _ => tally.upstream(route, &self.upstreams),
        };
        Some(SessionState {
            shard: self.id,
            key: key.to_bits(),
            peer: session.peer.address(),
            route: route.map(|route| route.index() as u16),
            upstream,
            user: self.callers.get(key).and_then(|known| known.user.clone()),
            subject: None,
            stage,
            tls: session.transport.is_tls(),
            age_ms: self.now_ms.saturating_sub(tally.accepted_ms),
            silent_ms: self.now_ms.saturating_sub(session.seen.ms(self.now_ms)),
            buffered_bytes: session.outbox.buffered() as u64,
            flow: tally.flow,
        })
    }

    fn subject(&self, key: Key) -> Option<Box<str>> {
        let subject = self.registry.get(key)?.transport.subject()?;
        Some(subject.distinguished_name().into())
    }

    /// Ends sessions as a drain does, each at a boundary.
    pub(crate) fn end_sessions(&mut self, Ended { keys, code, reply }: Ended) {
        // Letters before this one were read already.
        self.bring_news();
        let mut found = 0;
        for key in keys.into_iter().map(Key::from_bits) {
            let Some(session) = self.registry.get(key).filter(|session| !session.marks.upstream) else {
                continue;
            };
            let far = match &session.state {
                State::Dead | State::Lingering { .. } => continue,
                State::Paired(paired) => paired.far,
                _ => None,
            };
            // Who has asked for it to end, or was asked, was there before this letter.
            let is_ending = matches!(&session.state, State::Paired(paired) if paired.ending.is_some());
            found += usize::from(!is_ending && !session.marks.close_sent && !session.marks.close_received);
            if matches!(session.state, State::Open(_) | State::Paired(_)) && !session.marks.close_sent {
                self.log_end(key, Leg::Client, code.into(), REASON);
            } else {
                self.note_cause(key, Cause { leg: Leg::Client, code: code.into(), reason: REASON });
            }
            for leg in [Some(key), far].into_iter().flatten() {
                self.drain_session(leg, Farewell::now(code));
                self.flush_spans();
            }
        }
        reply.tell(found);
    }
}
