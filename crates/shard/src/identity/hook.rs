//! Requests that wait until a hook has said whether they may come in.
//!
//! ```text
//! Head ──► asked: a place among those that wait, a question ──► Deciding ──► decided: the request is read again ──► …
//! ```
//! Invariant: a request is judged by what its route asks for when the answer is there. Where that is another hook by then, that
//! one is asked, too.

use std::{convert::Infallible, net::IpAddr, sync::Arc};

use futures_channel::oneshot;
use tidegate_hub::RouteId;
use tidegate_identity::{Caller, Identity, Place};
use tidegate_io::Backend;
use tidegate_registry::Key;
use tidegate_wire::http::{Refusal, Request};

use crate::{
    environment::Environment,
    log::{Level, What},
    proxy::{EARLY_BYTES, client_address, is_claim},
    session::State,
    shard::Shard,
    topics::Manner,
};

/// How much later than the hook's own time-out a request is looked at: whoever asks tells of that in time.
const GRACE_MS: u64 = 500;

/// It gave no answer, or none that can be used.
const FAILED: Refusal = Refusal::new(503, "callers cannot be judged for now").with(&[("Retry-After", "2")]);

/// More wait for it than may.
const BUSY: Refusal = Refusal::new(503, "too many callers wait to be judged").with(&[("Retry-After", "1")]);

const UNAUTHORIZED: Refusal =
    Refusal::new(401, "the caller is not known here").with(&[("WWW-Authenticate", "Bearer")]);

const FORBIDDEN: Refusal = Refusal::new(403, "the caller may not come in here");

/// What a hook is asked of one request.
#[derive(Debug)]
pub struct Question {
    /// Which hook, and how its answer is read.
    pub identity: Arc<Identity>,
    /// What it is told.
    pub asked: Asked,
    /// The shard that waits.
    pub shard: u16,
    session: u64,
    number: u64,
    /// Given back with the question.
    _place: Place,
    /// Its other end is where the request waits.
    waits: oneshot::Receiver<Infallible>,
}

/// What a hook is told of a request.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// Its method.
    pub method: String,
    /// Its path, as it came.
    pub path: String,
    /// Its query, as it came.
    pub query: Option<String>,
    /// The host that it is for.
    pub host: String,
    /// The page's origin, where it says one.
    pub origin: Option<String>,
    /// The client's address, where it is known: what a trusted proxy says, or what the kernel does.
    pub address: Option<IpAddr>,
    /// The fields that the hook wants to hear of, by their names in lower case.
    pub fields: Vec<(String, Vec<u8>)>,
}

/// It holds what is not for logs.
impl std::fmt::Debug for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asked").field("method", &self.method).finish_non_exhaustive()
    }
}

/// What a hook has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The request may come in, for this caller.
    Allowed(Box<Caller>),
    /// It may not.
    Denied(Denial),
    /// Nothing that can be used.
    Failed,
}

/// How a hook says no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// 401: nobody knows who calls.
    Unauthorized,
    /// 403: it is known, and may not.
    Forbidden,
}

/// The answer to a question.
#[derive(Clone, Debug)]
pub struct Decision {
    session: u64,
    number: u64,
    outcome: Outcome,
}

impl Question {
    /// The answer to it, for its shard.
    #[must_use]
    pub fn answered(self, outcome: Outcome) -> Decision {
        Decision { session: self.session, number: self.number, outcome }
    }

    /// Waits until nobody waits for the answer any more: the client has gone, or was told that its request is in vain. Whoever
    /// asks on keeps a place that is another's.
    pub async fn abandoned(&mut self) {
        let Err(oneshot::Canceled) = (&mut self.waits).await;
    }
}

/// A request whose hook is asked.
pub(crate) struct Deciding {
    number: u64,
    identity: Arc<Identity>,
    /// Tells who asks that nobody waits any more, by being dropped.
    _waits: oneshot::Sender<Infallible>,
    /// The whole head, which is read again.
    head: Vec<u8>,
    /// What came behind it.
    early: Vec<u8>,
    pub(crate) is_upgrade: bool,
    /// How it is answered where its route is one of topics: without another look at it, if it comes to nothing.
    pub(crate) manner: Option<Manner>,
    /// When its hook was asked.
    pub(crate) asked_ms: u64,
    /// When it is looked at, and given up where that was done before.
    pub(crate) deadline_ms: u64,
    was_looked_at: bool,
}

impl Deciding {
    /// The heap that it holds of what the client has sent.
    pub(crate) fn held_bytes(&self) -> usize {
        self.head.capacity() + self.early.capacity()
    }
}

/// How long its hook's answer is waited for by whoever asks.
fn timeout_ms(identity: &Identity) -> u64 {
    identity.rules().hook().map_or(0, |hook| hook.timeout_ms)
}

/// Why a request does not go on at once.
pub(crate) enum Halt {
    Refused(Refusal),
    /// Its hook is asked.
    Asked(Parked),
}

/// A question that was asked.
pub(crate) struct Parked {
    number: u64,
    identity: Arc<Identity>,
    waits: oneshot::Sender<Infallible>,
    is_upgrade: bool,
    manner: Option<Manner>,
}

impl Parked {
    /// A request that is answered as routes of topics do.
    pub(crate) fn answered_in(self, manner: Manner) -> Self {
        Self { manner: Some(manner), ..self }
    }
}

impl From<Refusal> for Halt {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Parked> for Halt {
    fn from(asked: Parked) -> Self {
        Self::Asked(asked)
    }
}

/// What hooks are asked on this shard.
#[derive(Default)]
pub(crate) struct Hooks {
    /// Questions so far.
    asked: u64,
    /// The answer for the request that is read again now.
    decided: Option<(Arc<Identity>, Outcome)>,
}

impl<B: Backend, E: Environment> Shard<B, E> {
    /// Lets a request pass that its hook has allowed; has it asked where it was not.
    ///
    /// # Errors
    /// What the hook says, or that it is asked.
    pub(super) fn admit_by_hook(
        &mut self,
        key: Key,
        id: RouteId,
        identity: &Arc<Identity>,
        request: &Request<'_>,
    ) -> Result<(), Halt> {
        let decided = self.hooks.decided.take();
        let Some((_, outcome)) = decided.filter(|(asked, _)| asked.rules() == identity.rules()) else {
            return Err(self.ask(key, id, identity, request)?.into());
        };
        match outcome {
            Outcome::Allowed(caller) => {
                self.counters.hooks_allowed += 1;
                let ends_ms = self.ends_ms(&caller, self.environment.unix_seconds());
                Ok(self.admit_caller(key, id, *caller, ends_ms)?)
            }
            Outcome::Denied(denial) => {
                self.counters.hooks_denied += 1;
                Err(match denial {
                    Denial::Unauthorized => UNAUTHORIZED.into(),
                    Denial::Forbidden => FORBIDDEN.into(),
                })
            }
            Outcome::Failed => {
                self.counters.hooks_failed += 1;
                Err(FAILED.into())
            }
        }
    }

    fn ask(
        &mut self,
        key: Key,
        id: RouteId,
        identity: &Arc<Identity>,
        request: &Request<'_>,
    ) -> Result<Parked, Refusal> {
        let Some(place) = identity.enter_hook() else {
            self.counters.hooks_busy += 1;
            let reason = "as many requests wait for it as may";
            let route = id.index() as u16;
            self.log(Level::Warn, Some(key), What::HookFailed { route, reason });
            return Err(BUSY);
        };
        let wanted = identity.rules().hook().map_or(&[][..], |hook| &hook.fields);
        let told = |name: &String| {
            let values = request.fields.all(name).map(|value| (name.clone(), value.to_vec()));
            values.collect::<Vec<_>>()
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let peer = self.registry.get(key).and_then(|session| session.peer.address());
        let is_trusted = peer.is_some_and(|peer| self.plan.trusts(peer.ip()));
        // As with upstreams: anyone can send them.
        let wanted = wanted.iter().filter(|name| is_trusted || !is_claim(name));
        let asked = Asked {
            method: request.method.to_owned(),
            path: request.target.path.to_owned(),
            query: request.target.query.map(str::to_owned),
            host: request.host.to_string(),
            origin: request.fields.all("origin").next().map(text),
            address: client_address(request, peer.map(|peer| peer.ip()), |ip| self.plan.trusts(ip)),
            fields: wanted.flat_map(told).collect(),
        };
        self.hooks.asked += 1;
        let number = self.hooks.asked;
        let (identity, session) = (Arc::clone(identity), key.to_bits());
        let is_upgrade = request.is_upgrade();
        let (sender, waits) = oneshot::channel();
        let parked =
            Parked { number, identity: Arc::clone(&identity), waits: sender, is_upgrade, manner: None };
        let shard = self.id;
        self.environment.ask(Question { identity, asked, shard, session, number, _place: place, waits });
        // Its limits are those that hold for it while it waits.
        self.set_route(key, id);
        Ok(parked)
    }

    /// A request waits from here on.
    pub(crate) fn await_decision(&mut self, key: Key, asked: Parked, head: &[u8]) {
        let Parked { number, identity, waits, is_upgrade, manner } = asked;
        let asked_ms = self.now_ms;
        let deadline_ms = asked_ms + timeout_ms(&identity) + GRACE_MS;
        let deciding = Deciding {
            number,
            identity,
            _waits: waits,
            head: head.to_vec(),
            early: Vec::new(),
            is_upgrade,
            manner,
            asked_ms,
            deadline_ms,
            was_looked_at: false,
        };
        let Some(session) = self.registry.get_mut(key) else { return };
        let holds = deciding.held_bytes();
        session.state = State::Deciding(Box::new(deciding));
        self.recount(0, holds);
        self.wheel.cancel(key.index());
        self.ensure_deadline(key, deadline_ms);
    }

    /// Takes what a client sends behind a request that waits; past the bound it is not read any more.
    pub(crate) fn hold_undecided(&mut self, key: Key, bytes: &[u8]) -> usize {
        let Some(session) = self.registry.get_mut(key) else { return bytes.len() };
        let State::Deciding(deciding) = &mut session.state else { return 0 };
        let held = deciding.held_bytes();
        deciding.early.extend_from_slice(bytes);
        let (holds, is_full) = (deciding.held_bytes(), deciding.early.len() >= EARLY_BYTES);
        self.recount(held, holds);
        if is_full {
            self.pause(key);
        }
        bytes.len()
    }

    /// A hook has answered. Who asked may have gone, or have been told already.
    pub(crate) fn decided(&mut self, decision: Decision) {
        let Decision { session, number, outcome } = decision;
        let key = Key::from_bits(session);
        let waits = self.registry.get(key).is_some_and(
            |session| matches!(&session.state, State::Deciding(deciding) if deciding.number == number),
        );
        match waits {
            true => self.take_decision(key, outcome),
            false => self.counters.hooks_late += 1,
        }
        self.flush_spans();
    }

    /// Whoever asks has not said anything in time, not even that it was in vain.
    pub(crate) fn decision_timed_out(&mut self, key: Key) {
        let now_ms = self.now_ms;
        let Some(session) = self.registry.get_mut(key) else { return };
        if let State::Deciding(deciding) = &mut session.state
            && !std::mem::replace(&mut deciding.was_looked_at, true)
        {
            // Where the process stood still meanwhile, however long, whoever asks did not run, either, and may have its whole time
            // before it.
            let deadline_ms = now_ms + timeout_ms(&deciding.identity) + GRACE_MS;
            deciding.deadline_ms = deadline_ms;
            self.ensure_deadline(key, deadline_ms);
            return;
        }
        let route = session.route.index() as u16;
        let reason = "no answer of it has come";
        self.log(Level::Warn, Some(key), What::HookFailed { route, reason });
        self.take_decision(key, Outcome::Failed);
    }

    /// Refuses a request that waits, as its route does.
    pub(crate) fn refuse_deciding(&mut self, key: Key, refusal: &Refusal) {
        let Some(session) = self.registry.get_mut(key) else { return };
        let State::Deciding(deciding) = &mut session.state else { return };
        match deciding.manner.take() {
            Some(manner) => self.refuse_request(key, &manner, refusal),
            None => self.refuse(key, refusal, false),
        }
    }

    /// Reads a request again, for which there is an answer now.
    fn take_decision(&mut self, key: Key, outcome: Outcome) {
        let head = self.new_head(self.now_ms, false);
        let Some(session) = self.registry.get_mut(key) else { return };
        let State::Deciding(deciding) = std::mem::replace(&mut session.state, head) else { return };
        self.recount(deciding.held_bytes(), 0);
        let Deciding { identity, head, early, .. } = *deciding;
        self.hooks.decided = Some((identity, outcome));
        self.answer(key, &head);
        self.hooks.decided = None;
        let Some(session) = self.registry.get_mut(key) else { return };
        if let State::Deciding(deciding) = &mut session.state {
            // Another hook is asked now.
            let holds = early.capacity();
            deciding.early = early;
            self.recount(0, holds);
            return;
        }
        if matches!(session.state, State::Dead) {
            return;
        }
        // A proxied client waits on, and its reader may have been paused for what it has sent.
        self.resume(key);
        self.keep_early(key, early);
    }
}
