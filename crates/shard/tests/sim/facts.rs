//! What all peers of one seed know of it: limits, routes, and who is excused from what.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::IpAddr,
    rc::Rc,
};

use tidegate_config::Drain;

use super::{
    fitting::{Asks, Demands},
    net::Excuse,
    removals::{Removals, Seen},
};

pub(crate) type Shared = Rc<Facts>;

/// The limits that peers reckon with. Times are in microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) head_timeout: u64,
    pub(crate) message_timeout: u64,
    /// 0: never.
    pub(crate) ping_interval: u64,
    pub(crate) pong_timeout: u64,
    pub(crate) close_timeout: u64,
    pub(crate) write_timeout: u64,
    pub(crate) connect_timeout: u64,
    pub(crate) handshake_timeout: u64,
    pub(crate) message_bytes: usize,
    /// 0: never.
    pub(crate) idle_timeout: u64,
    /// Messages of slow readers may be dropped, or their sessions closed.
    pub(crate) full: Full,
    /// Some clients send a great many small messages at the same time as others ask one small thing after the other.
    pub(crate) contest: bool,
    /// More clients may come than there are slots: then they are refused.
    pub(crate) may_be_full: bool,
}

impl Terms {
    /// Nothing ends a session whose peer is silent.
    pub(crate) fn bear_silence(&self) -> bool {
        self.ping_interval == 0 && self.idle_timeout == 0
    }
}

/// What the echo does with a reader that is too slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    Pause,
    DropNew,
    DropOld,
    Disconnect,
}

/// What a client of a route may hope for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Promise {
    /// Its messages come back, by the gateway.
    Echo,
    /// Its messages come back, by an upstream; `greeting`: after so many of the upstream's own.
    Proxied { greeting: u64 },
    /// So many messages of the upstream, then its Close.
    Source { messages: u64, code: u16 },
    /// One of these statuses.
    Refused(&'static [u16]),
    /// The upstream fails in the middle: some of its messages, then one of these codes, or the connection is cut.
    Breaks(&'static [u16]),
}

#[derive(Clone, Debug)]
pub(crate) struct RoutePlan {
    /// What stands before the client's number in the path.
    pub(crate) prefix: String,
    pub(crate) promise: Promise,
    pub(crate) deflate: Deflate,
    pub(crate) demands: Demands,
    /// Text that is not UTF-8 goes to the upstream, which refuses it.
    pub(crate) any_text: bool,
}

/// Who compresses on a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deflate {
    Nobody,
    /// The gateway with the client.
    Gateway {
        takeover: bool,
    },
    /// The client and the upstream.
    Ends,
}

#[derive(Clone, Debug, Default)]
struct Standing {
    excuse: Option<Excuse>,
    /// Nothing but the drain concerns it.
    only_drained: bool,
    /// One side of its pair reads so slowly that an end by Close takes longer than it may.
    crawls: bool,
    /// Pings that it has sent.
    pings: u64,
    asks: Asks,
    /// The subprotocol that its upstream has chosen.
    chosen: Option<&'static str>,
    /// Its text that is not UTF-8 has come to its upstream.
    bad_text: bool,
    /// Its address as its proxy has told it.
    source: Option<IpAddr>,
}

/// Shared by a seed's peers.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) terms: Terms,
    pub(crate) routes: Vec<RoutePlan>,
    clients: RefCell<BTreeMap<u64, Standing>>,
    /// Routes with an upstream that could not be used for a while.
    failed: RefCell<Vec<bool>>,
    /// By route how often it was taken away, and from when on it is there.
    departures: RefCell<Vec<(Removals, u64)>>,
    /// Routes go in this seed.
    pub(crate) departs: Cell<bool>,
}

impl Facts {
    pub(crate) fn new(terms: Terms, routes: Vec<RoutePlan>) -> Shared {
        let failed = RefCell::new(vec![false; routes.len()]);
        let departures = routes.iter().map(|_| Default::default()).collect();
        let departures = RefCell::new(departures);
        Rc::new(Facts {
            terms,
            routes,
            clients: RefCell::default(),
            failed,
            departures,
            departs: Cell::default(),
        })
    }

    pub(crate) fn excuse(&self, client: u64, why: Excuse) {
        let mut clients = self.clients.borrow_mut();
        let standing = clients.entry(client).or_default();
        standing.only_drained = why == Excuse::Drain && (standing.only_drained || standing.excuse.is_none());
        standing.excuse.get_or_insert(why);
    }

    /// Whether a drain is all that a client is excused for.
    pub(crate) fn is_only_drained(&self, client: u64) -> bool {
        self.clients.borrow().get(&client).is_some_and(|standing| standing.only_drained)
    }

    pub(crate) fn excused(&self, client: u64) -> Option<Excuse> {
        self.clients.borrow().get(&client).and_then(|standing| standing.excuse)
    }

    pub(crate) fn note_crawl(&self, client: u64) {
        self.clients.borrow_mut().entry(client).or_default().crawls = true;
    }

    pub(crate) fn crawls(&self, client: u64) -> bool {
        self.clients.borrow().get(&client).is_some_and(|standing| standing.crawls)
    }

    pub(crate) fn note_ping(&self, client: u64) {
        self.clients.borrow_mut().entry(client).or_default().pings += 1;
    }

    /// How many pings a client has sent.
    pub(crate) fn pings(&self, client: u64) -> u64 {
        self.clients.borrow().get(&client).map_or(0, |standing| standing.pings)
    }

    pub(crate) fn note_asks(&self, client: u64, asks: &Asks) {
        self.clients.borrow_mut().entry(client).or_default().asks = asks.clone();
    }

    pub(crate) fn asks(&self, client: u64) -> Asks {
        self.clients.borrow().get(&client).map(|standing| standing.asks.clone()).unwrap_or_default()
    }

    pub(crate) fn choose(&self, client: u64, subprotocol: Option<&'static str>) {
        self.clients.borrow_mut().entry(client).or_default().chosen = subprotocol;
    }

    pub(crate) fn chosen(&self, client: u64) -> Option<&'static str> {
        self.clients.borrow().get(&client).and_then(|standing| standing.chosen)
    }

    pub(crate) fn note_bad_text(&self, client: u64) {
        self.clients.borrow_mut().entry(client).or_default().bad_text = true;
    }

    pub(crate) fn had_bad_text(&self, client: u64) -> bool {
        self.clients.borrow().get(&client).is_some_and(|standing| standing.bad_text)
    }

    pub(crate) fn note_source(&self, client: u64, source: Option<IpAddr>) {
        self.clients.borrow_mut().entry(client).or_default().source = source;
    }

    /// The address that a client's proxy has told.
    pub(crate) fn source(&self, client: u64) -> Option<IpAddr> {
        self.clients.borrow().get(&client).and_then(|standing| standing.source)
    }

    pub(crate) fn route_failed(&self, route: usize) {
        self.failed.borrow_mut()[route] = true;
    }

    pub(crate) fn has_failed(&self, route: usize) -> bool {
        self.failed.borrow()[route]
    }

    /// A generation comes without a route, or an operator drains it.
    pub(crate) fn take_away(&self, route: usize, now: u64, drain: &Drain) {
        let (removals, here_from) = &mut self.departures.borrow_mut()[route];
        match *here_from {
            u64::MAX => removals.hasten(now, drain),
            _ => removals.add(now, drain),
        }
        *here_from = u64::MAX;
    }

    /// A route gets no new sessions, and keeps those that it has.
    pub(crate) fn withhold(&self, route: usize) {
        let (removals, here_from) = &mut self.departures.borrow_mut()[route];
        removals.keep();
        *here_from = u64::MAX;
    }

    /// A generation comes with a route that was taken away.
    pub(crate) fn bring_back(&self, route: usize, here_from: u64) {
        self.departures.borrow_mut()[route].1 = here_from;
    }

    /// How a route stands for who comes now.
    pub(crate) fn seen(&self, route: usize, now: u64) -> Seen {
        let (removals, here_from) = &self.departures.borrow()[route];
        Seen { removals: removals.count(), here: *here_from <= now }
    }

    /// When those who came when the route stood so may have been cut off, where it may be gone for them.
    pub(crate) fn cut(&self, route: usize, seen: Seen, is_in: bool) -> Option<u64> {
        self.departures.borrow()[route].0.cut(seen, is_in)
    }

    pub(crate) fn all_failed(&self) {
        self.failed.borrow_mut().fill(true);
    }
}
