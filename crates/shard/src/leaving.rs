//! Sessions that are asked to go, each at a time of its own: when the gateway ends, when their route or their upstream is no more,
//! or when somebody wants it.
//!
//! Invariant: behind a departure's deadline none of its sessions is open.

use std::{
    borrow::Cow,
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap},
    sync::Arc,
};

use tidegate_config::Drain;
use tidegate_hub::RouteId;
use tidegate_io::Backend;
use tidegate_registry::Key;
use tidegate_wire::close::CloseCode;

use crate::{
    environment::Environment,
    log::{ABNORMAL, Cause, Leg, Level, What},
    plan::Retired,
    session::{Session, State},
    shard::Shard,
};

/// What cannot be asked to go yet (a request under way, a handshake) is looked at again after this.
const RETRY_MS: u64 = 250;

/// Sessions that are asked in one turn at most, so that others are served meanwhile.
const AT_ONCE: usize = 512;

/// Why a session ends that was asked in vain.
const CUT_OFF: &str = "cut off at the deadline of a drain";

/// Whose sessions are to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whom {
    /// All of them: the gateway ends. Nothing more is accepted.
    All,
    /// Those of a route.
    Route(RouteId),
    /// Those of an upstream of a route, by its place there.
    Upstream(RouteId, u16),
}

/// How sessions are asked to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pace {
    /// What they are told.
    pub code: CloseCode,
    /// Their Closes are spread over so many ms.
    pub window_ms: u64,
    /// What is left after so many is cut off.
    pub deadline_ms: u64,
    /// Each is told to come back after up to so many ms; 0: it is told nothing of that.
    pub reconnect_delay_ms: u64,
}

impl Pace {
    /// As the configuration has it for all sessions, when the gateway ends.
    #[must_use]
    pub fn of_all(drain: &Drain) -> Pace {
        Pace::of(drain, drain.code, CloseCode::GOING_AWAY)
    }

    /// The same for sessions of a route or an upstream.
    #[must_use]
    pub fn of_some(drain: &Drain) -> Pace {
        Pace::of(drain, drain.route_code, CloseCode::SERVICE_RESTART)
    }

    fn of(drain: &Drain, code: u16, otherwise: CloseCode) -> Pace {
        Pace {
            code: CloseCode::new(code).unwrap_or(otherwise),
            window_ms: drain.window_ms,
            deadline_ms: drain.deadline_ms,
            reconnect_delay_ms: drain.reconnect_delay_ms,
        }
    }
}

/// What a session is told at its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Farewell {
    pub(crate) code: CloseCode,
    why: &'static str,
    /// After how many ms it is to come back.
    retry_ms: Option<u64>,
}

impl Farewell {
    /// To all, at once.
    pub(crate) fn now(code: CloseCode) -> Farewell {
        Farewell { code, why: "going away", retry_ms: None }
    }

    /// The Close's reason: at most 123 bytes (RFC 6455 §5.5), and what docs/PROTOCOL.md says.
    pub(crate) fn reason(self) -> Cow<'static, str> {
        match self.retry_ms {
            Some(retry_ms) => format!("{{\"retry_ms\":{retry_ms},\"reason\":\"{}\"}}", self.why).into(),
            None => self.why.into(),
        }
    }
}

/// A group of sessions that is asked to go.
struct Departure {
    number: u64,
    whom: BTreeSet<Whom>,
    terms: Terms,
    /// Routes and upstreams that have no session any more behind it.
    retired: Vec<(Whom, Arc<Retired>)>,
}

/// How its sessions are asked.
#[derive(Clone, Copy)]
struct Terms {
    code: CloseCode,
    why: &'static str,
    reconnect_delay_ms: u64,
    window_end_ms: u64,
    deadline_ms: u64,
    /// The gateway ends.
    ends: bool,
}

impl Departure {
    fn has(&self, whom: Whom) -> bool {
        self.whom.contains(&whom)
    }

    fn concerns<S>(&self, session: &Session<S>) -> bool {
        if self.terms.ends {
            return true;
        }
        match &session.state {
            // What it had before has nothing to do with what it has next.
            State::Head(_) | State::Lingering { .. } | State::Dead => false,
            State::Paired(paired) => {
                self.has(Whom::Route(session.route))
                    || self.has(Whom::Upstream(session.route, paired.upstream))
            }
            State::Waiting(waiting) => {
                let upstream = waiting.current.as_ref().map(|attempt| attempt.upstream);
                self.has(Whom::Route(session.route))
                    || upstream.is_some_and(|upstream| self.has(Whom::Upstream(session.route, upstream)))
            }
            State::Deciding(_) | State::Dialing(_) | State::Open(_) | State::Exchange(_) => {
                self.has(Whom::Route(session.route))
            }
        }
    }
}

/// One session's turn: when, who, and as part of which departure.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at_ms: u64,
    key: u64,
    departure: u64,
}

/// All departures of a shard.
#[derive(Default)]
pub(crate) struct Leaving {
    departures: Vec<Departure>,
    due: BinaryHeap<Reverse<Due>>,
    /// How many there were.
    count: u64,
}

impl Leaving {
    /// Whether the gateway ends.
    pub(crate) fn is_all(&self) -> bool {
        self.departures.iter().any(|departure| departure.terms.ends)
    }

    /// Whether the sessions of a route have time yet to go, for inspection.
    pub(crate) fn asks(&self, route: RouteId) -> bool {
        self.departures.iter().any(|departure| departure.has(Whom::Route(route)))
    }

    pub(crate) fn next_deadline_ms(&self) -> Option<u64> {
        let due = self.due.peek().map(|Reverse(due)| due.at_ms);
        let deadlines = self.departures.iter().map(|departure| departure.terms.deadline_ms);
        deadlines.chain(due).min()
    }

    /// A route or an upstream is there again: its sessions stay.
    pub(crate) fn forget(&mut self, whom: Whom) {
        for departure in self.departures.iter_mut().filter(|departure| !departure.terms.ends) {
            departure.whom.remove(&whom);
        }
    }

    /// A number is another route's: whoever asked sessions of the one before to go meant none of these.
    pub(crate) fn forget_route(&mut self, id: RouteId) {
        for departure in &mut self.departures {
            departure.whom.retain(|whom| match whom {
                Whom::All => true,
                Whom::Route(route) | Whom::Upstream(route, _) => *route != id,
            });
        }
    }

    fn plan(&mut self, at_ms: u64, key: Key, departure: u64) {
        self.due.push(Reverse(Due { at_ms, key: key.to_bits(), departure }));
    }

    /// Of departures that are over nobody is asked any more. What stays here would have the shard wake for it again and again.
    fn drop_stale(&mut self) {
        let departures = &self.departures;
        let is_present = |number| departures.iter().any(|departure| departure.number == number);
        self.due.retain(|Reverse(due)| is_present(due.departure));
    }

    /// Whether somebody's time has come.
    fn is_due(&self, now_ms: u64) -> bool {
        self.due.peek().is_some_and(|Reverse(due)| due.at_ms <= now_ms)
    }

    /// The next whose time has come.
    fn pop(&mut self, now_ms: u64) -> Option<Due> {
        if !self.is_due(now_ms) {
            return None;
        }
        self.due.pop().map(|Reverse(due)| due)
    }
}

impl<B: Backend, E: Environment> Shard<B, E> {
    /// Asks sessions to go, at times spread over the window. `retired`: routes and upstreams whose last sessions these are. Gives how
    /// many are asked.
    pub(crate) fn begin_departure(
        &mut self,
        whom: BTreeSet<Whom>,
        pace: &Pace,
        why: &'static str,
        retired: Vec<(Whom, Arc<Retired>)>,
    ) -> usize {
        let now_ms = self.now_ms;
        let terms = Terms {
            code: pace.code,
            why,
            reconnect_delay_ms: pace.reconnect_delay_ms,
            window_end_ms: now_ms + pace.window_ms,
            deadline_ms: now_ms + pace.deadline_ms,
            ends: whom.contains(&Whom::All),
        };
        self.leaving.count += 1;
        let number = self.leaving.count;
        let departure = Departure { number, whom, terms, retired };
        let concerned = |(_, session): &(Key, &Session<B::Socket>)| {
            !session.marks.upstream && departure.concerns(session)
        };
        let mut keys: Vec<Key> = self.registry.iter().filter(concerned).map(|(key, _)| key).collect();
        // In no order that a client could know, each somewhere in its own part of the window.
        let mut draws = Draws(self.environment.draw_seed());
        for place in (1..keys.len()).rev() {
            keys.swap(place, draws.below(place as u64 + 1) as usize);
        }
        let count = keys.len();
        for (place, key) in (0_u128..).zip(keys) {
            let at =
                (place << 16 | u128::from(draws.below(1 << 16))) * u128::from(pace.window_ms) / count as u128;
            self.leaving.plan(now_ms + (at >> 16) as u64, key, number);
        }
        self.leaving.departures.push(departure);
        if terms.ends {
            // Who asks whether the gateway is ready is to know at once.
            self.report();
        }
        count
    }

    /// Those of these routes and upstreams that somebody still knows by their numbers, in whichever state.
    pub(crate) fn having_somebody(&self, whom: BTreeSet<Whom>) -> BTreeSet<Whom> {
        let mut has_somebody = BTreeSet::new();
        if whom.is_empty() {
            return has_somebody;
        }
        for (_, session) in self.registry.iter() {
            let Some(route) = session.own_route() else { continue };
            let upstreams = match &session.state {
                State::Paired(paired) => std::slice::from_ref(&paired.upstream),
                State::Dialing(dialing) => std::slice::from_ref(&dialing.upstream),
                // The one at hand, and those that it has tried.
                State::Waiting(waiting) => &waiting.tried,
                State::Head(_)
                | State::Deciding(_)
                | State::Open(_)
                | State::Exchange(_)
                | State::Lingering { .. }
                | State::Dead => &[],
            };
            let upstreams = upstreams.iter().map(|place| Whom::Upstream(route, *place));
            for one in std::iter::once(Whom::Route(route)).chain(upstreams) {
                if whom.contains(&one) {
                    has_somebody.insert(one);
                }
            }
        }
        has_somebody
    }

    /// Says of what is to go, and has nobody any more before its deadline, that it is gone.
    pub(crate) fn let_empty_go(&mut self) {
        let retired = self.leaving.departures.iter().flat_map(|departure| &departure.retired);
        let whom: BTreeSet<Whom> = retired.map(|(whom, _)| *whom).collect();
        let has_somebody = self.having_somebody(whom);
        for departure in &mut self.leaving.departures {
            departure
                .retired
                .extract_if(.., |(whom, _)| !has_somebody.contains(whom))
                .for_each(|(_, retired)| retired.left());
        }
    }

    /// A session has begun that those before it were asked to leave.
    pub(crate) fn join_departure(&mut self, key: Key) {
        if self.leaving.departures.is_empty() {
            return;
        }
        let Some(session) = self.registry.get(key).filter(|session| !session.marks.upstream) else { return };
        let Some(departure) = self.leaving.departures.iter().find(|departure| departure.concerns(session))
        else {
            return;
        };
        let (terms, number) = (departure.terms, departure.number);
        let left_ms = terms.window_end_ms.saturating_sub(self.now_ms);
        let at_ms = self.now_ms + Draws(self.environment.draw_seed()).below(left_ms + 1);
        self.leaving.plan(at_ms, key, number);
    }

    /// Asks those whose time has come, and cuts off what is left of departures whose deadline has.
    pub(crate) fn run_departures(&mut self) {
        if self.leaving.departures.is_empty() {
            return;
        }
        if self.leaving.is_due(self.now_ms) {
            self.bring_all_news();
        }
        for _ in 0..AT_ONCE {
            let Some(due) = self.leaving.pop(self.now_ms) else { break };
            self.ask_to_go(due);
            self.flush_spans();
        }
        let now_ms = self.now_ms;
        let is_over = |departure: &mut Departure| departure.terms.deadline_ms <= now_ms;
        let over: Vec<_> = self.leaving.departures.extract_if(.., is_over).collect();
        if !over.is_empty() {
            self.leaving.drop_stale();
        }
        for departure in over {
            self.cut_off(&departure);
            departure.retired.iter().for_each(|(_, retired)| retired.left());
        }
    }

    fn ask_to_go(&mut self, due: Due) {
        let key = Key::from_bits(due.key);
        let Some(session) = self.registry.get(key) else { return };
        let present = self.leaving.departures.iter().find(|departure| departure.number == due.departure);
        let Some(departure) = present.filter(|departure| departure.concerns(session)) else { return };
        let terms = departure.terms;
        // Who becomes a session yet gets another time then (`join_departure`).
        let end_ms = Some(terms.window_end_ms).filter(|end_ms| self.now_ms < *end_ms);
        let later_ms = match &session.state {
            State::Deciding(_) | State::Waiting(_) => Some(end_ms.unwrap_or(self.now_ms + RETRY_MS)),
            State::Head(head) => end_ms.filter(|_| !head.kept_alive),
            State::Exchange(exchange) => {
                if exchange.has_begun() {
                    self.note_farewell(key, terms.code);
                }
                let departs = self.depart_exchange(key);
                // A poll has its answer; what else is asked on its connection may be of another route.
                if self.registry.get(key).is_some_and(|session| matches!(session.state, State::Head(_))) {
                    return;
                }
                (!departs).then_some(self.now_ms + RETRY_MS)
            }
            State::Dialing(_) | State::Open(_) | State::Paired(_) | State::Lingering { .. } | State::Dead => {
                None
            }
        };
        if let Some(at_ms) = later_ms {
            if at_ms < terms.deadline_ms {
                self.leaving.plan(at_ms, key, due.departure);
            }
            return;
        }
        let most_ms = terms.reconnect_delay_ms;
        let retry_ms = (most_ms > 0).then(|| Draws(self.environment.draw_seed()).below(most_ms + 1));
        let farewell = Farewell { code: terms.code, why: terms.why, retry_ms };
        let far = match self.registry.get(key).map(|session| &session.state) {
            Some(State::Paired(paired)) => paired.far,
            Some(State::Exchange(_)) | None => return,
            Some(_) => None,
        };
        self.drain_session(key, farewell);
        if let Some(far) = far {
            self.drain_session(far, farewell);
        }
    }

    /// The deadline: what is left had all the time that it gets.
    fn cut_off(&mut self, departure: &Departure) {
        let concerned = |(_, session): &(Key, &Session<B::Socket>)| {
            !matches!(session.state, State::Dead) && departure.concerns(session)
        };
        let keys: Vec<Key> = self.registry.iter().filter(concerned).map(|(key, _)| key).collect();
        if !keys.is_empty() {
            self.log(Level::Warn, None, What::CutOff { connections: keys.len() as u64 });
        }
        for key in &keys {
            // Who lingers has been told, and had all but the end.
            let lingers = |session: &Session<B::Socket>| matches!(session.state, State::Lingering { .. });
            if self.registry.get(*key).is_some_and(|session| !session.marks.upstream && !lingers(session)) {
                self.note_cause(*key, Cause { leg: Leg::Client, code: ABNORMAL, reason: CUT_OFF });
            }
        }
        if departure.terms.ends {
            self.stopping = true;
            return;
        }
        for key in keys {
            match self.registry.get(key).map(|session| &session.state) {
                Some(State::Paired(paired)) => {
                    let legs = [Some(key), paired.far];
                    self.end_overdue(key);
                    // Both have been told.
                    legs.into_iter().flatten().for_each(|leg| self.limit_linger(leg));
                }
                // As the other leg of a pair.
                Some(State::Lingering { .. }) => {}
                // They have their answer yet, and come back elsewhere.
                Some(State::Deciding(_) | State::Waiting(_)) => {
                    self.drain_session(key, Farewell::now(departure.terms.code));
                    self.limit_linger(key);
                }
                Some(State::Exchange(_)) => {
                    self.drain_exchange(key);
                    self.limit_linger(key);
                    // What became of a publication only another shard can say.
                    if matches!(
                        self.registry.get(key).map(|session| &session.state),
                        Some(State::Exchange(_))
                    ) {
                        self.abort(key, true);
                    }
                }
                Some(_) => self.abort(key, true),
                None => {}
            }
            self.flush_spans();
        }
    }
}

/// Numbers from a seed (SplitMix64, Steele, Lea, Flood 2014): nobody is to guess them, and nothing depends on that.
struct Draws(u64);

impl Draws {
    /// Below `bound`, which is not 0.
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        ((u128::from(mixed) * u128::from(bound)) >> 64) as u64
    }
}
