//! A client: it follows its [`Script`] and judges every byte that it gets.
//!
//! Two kinds of demands: what always holds (frames are right, messages are its own, in order, unchanged), and what it may
//! insist on unless it was excused (all answers, the right code, a FIN and no reset, in time).

mod acting;
mod asking;
mod judging;

use std::collections::VecDeque;

use super::{
    codec::{self, Inbox, Item, PONG},
    deflate::{Deflater, OFFERS},
    facts::{self, Promise},
    fitting::Asks,
    link::{Link, Pace},
    net::{Actor, ActorId, ConnId, Excuse, Net, PROXIED, SECONDS},
    proxy_header::ProxyHeader,
    random::Random,
    removals::Seen,
    script::{Act, Asking, Script, Violation},
};

/// How long a client waits without any progress for what it may insist on.
const PATIENCE: u64 = 100 * SECONDS;

/// On top of the gateway's own deadlines: the wheel's tick, late completions, slow segments.
const SLACK: u64 = 10 * SECONDS;

/// How long the slowest pace takes for all that a client sends.
const CRAWL: u64 = 120 * SECONDS;

/// What the gateway reads and discards behind a Close or a refusal; who has sent more may see a reset.
const LINGER_BYTES: u64 = 60_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Waiting,
    /// The request is on its way; the answer's head is awaited.
    Asking,
    Open,
    /// The answer is not a 101; so many bytes of its body are still to come.
    Answered {
        status: u16,
        missing: usize,
    },
    /// Reads nothing more; the gateway must have closed by then.
    Gone {
        by: u64,
    },
    Done,
}

pub(crate) struct Client {
    id: u64,
    facts: facts::Shared,
    random: Random,
    route: usize,
    listener: u8,
    /// What its proxy writes before its bytes.
    header: Option<ProxyHeader>,
    script: Script,
    next_act: usize,
    start: u64,
    pace: Pace,
    link: Option<Link>,
    phase: Phase,
    key: String,
    offer: Option<&'static str>,
    asks: Asks,
    /// The status with which its route refuses it.
    unfit: Option<u16>,
    deflater: Option<Deflater>,
    head: Vec<u8>,
    page_read: bool,
    inbox: Inbox,
    /// Messages that must come back: opcode, number, length.
    expected: VecDeque<(u8, u64, usize)>,
    sent: u64,
    /// Messages of the upstream's own.
    from_upstream: u64,
    pings: VecDeque<Vec<u8>>,
    pinged: u64,
    pause: u64,
    /// It asks one small thing at a time.
    modest: bool,
    /// Where its question begins among all that it writes.
    asks_from: Option<u64>,
    /// It leaves by itself then: nothing ends its silence.
    leaves: Option<u64>,
    /// Until then the gateway must keep its silent session.
    kept_until: u64,
    /// When it last sent a message.
    spoke: u64,
    muted: bool,
    frozen: bool,
    violated: Option<Violation>,
    /// The act that decides how it ends.
    last: Option<Act>,
    close_sent: Option<Option<u16>>,
    close_got: Option<Option<u16>>,
    /// The clock jumped while it waited for the gateway to find out.
    gone_anew: bool,
    /// Its own Close was sent before one came.
    closed_first: bool,
    /// How its route stood when it came.
    seen: Seen,
    progress: u64,
    moved: u64,
    watched: u64,
}

impl Client {
    pub(crate) fn new(
        id: u64,
        facts: &facts::Shared,
        route: usize,
        listener: u8,
        start: u64,
        mut random: Random,
    ) -> Client {
        let proxied = facts.routes[route].promise != Promise::Echo;
        let mut script = Script::draw(&mut random, &facts.terms, proxied);
        let mut pace = Pace::draw(&mut random);
        // Of its own: what else a client does must not depend on it.
        let mut own = Random::new(random.clone().next() ^ 0x6661_6972);
        let contest = facts.terms.contest && !proxied;
        let modest = !proxied && own.below(if contest { 2 } else { 6 }) == 0;
        if modest {
            script = Script::modest(&mut own, contest);
            pace = Pace::FULL;
        } else if contest {
            script = Script::greedy(&mut own);
            pace = Pace::FULL;
        }
        if pace.crawls() && proxied {
            facts.note_crawl(id);
        }
        let demands = facts.routes[route].demands;
        let right = matches!(script.asking, Asking::Right | Asking::PageFirst);
        // Of its own: what else a client does must not depend on it.
        let asks = demands.draw_asks(&mut Random::new(random.clone().next() ^ 0x6669_7473), !right);
        facts.note_asks(id, &asks);
        // Of its own: what else a client does must not depend on it.
        let header = (listener == PROXIED)
            .then(|| ProxyHeader::draw(&mut Random::new(random.clone().next() ^ 0x7072_6f78)));
        facts.note_source(id, header.as_ref().and_then(|header| header.source));
        let mut nonce = [0; 16];
        random.fill(&mut nonce);
        Client {
            id,
            facts: facts::Shared::clone(facts),
            route,
            listener,
            header,
            script,
            next_act: 0,
            start,
            pace,
            link: None,
            phase: Phase::Waiting,
            key: codec::base64(&nonce),
            offer: (random.below(2) == 0).then(|| *random.pick(&OFFERS)),
            unfit: demands.refusal(&asks),
            asks,
            deflater: None,
            head: Vec::new(),
            page_read: false,
            inbox: Inbox::new(false),
            expected: VecDeque::new(),
            sent: 0,
            from_upstream: 0,
            pings: VecDeque::new(),
            pinged: 0,
            pause: 0,
            modest,
            asks_from: None,
            leaves: None,
            kept_until: 0,
            spoke: start,
            muted: false,
            frozen: false,
            violated: None,
            last: None,
            close_sent: None,
            close_got: None,
            gone_anew: false,
            closed_first: false,
            seen: Seen::default(),
            progress: start,
            moved: 0,
            watched: 0,
            random,
        }
    }

    fn promise(&self) -> &Promise {
        &self.facts.routes[self.route].promise
    }

    /// Whether its proxy has said something that the gateway does not take: then it gets no answer.
    fn is_unannounced(&self) -> bool {
        self.header.as_ref().is_some_and(|header| !header.is_right)
    }

    fn is_excused(&self) -> bool {
        self.facts.excused(self.id).is_some()
    }

    /// Whether its route may have gone since it came.
    fn is_departed(&self) -> bool {
        self.cut().is_some()
    }

    /// Whether what was left on its route may have been cut off.
    fn may_be_cut(&self, now: u64) -> bool {
        self.cut().is_some_and(|cut| cut <= now)
    }

    fn cut(&self) -> Option<u64> {
        self.facts.cut(self.route, self.seen, matches!(self.phase, Phase::Open))
    }

    fn link(&mut self) -> &mut Link {
        self.link.as_mut().expect("it has dialed")
    }

    fn conn(&self) -> ConnId {
        self.link.as_ref().expect("it has dialed").conn
    }

    fn send(&mut self, bytes: &[u8]) {
        let Client { link, random, .. } = self;
        link.as_mut().expect("it has dialed").send(random, bytes);
    }

    fn fail(&self, what: &str) -> ! {
        panic!("{}: {what}", self.describe());
    }

    // ---- what comes

    fn receive(&mut self, net: &mut Net, me: ActorId) {
        let mut plain = Vec::new();
        let end = self.link().receive(net, me, &mut plain);
        match self.phase {
            Phase::Asking => {
                self.head.append(&mut plain);
                self.read_answer();
            }
            Phase::Open => self.inbox.push(&plain),
            Phase::Answered { status, missing } => {
                let length_known = plain.len() <= missing;
                let missing = if length_known { missing - plain.len() } else { 0 };
                self.phase = Phase::Answered { status, missing };
            }
            Phase::Waiting | Phase::Gone { .. } | Phase::Done => {}
        }
        if self.phase == Phase::Open {
            while let Some(item) = self.inbox.next() {
                self.item(item);
            }
        }
        if let Some(end) = end {
            self.judge_end(net.now, end);
            self.cover(net);
            net.close_peer(self.conn(), false);
            self.phase = Phase::Done;
        }
    }

    fn item(&mut self, item: Item) {
        match item {
            Item::Message { opcode, payload } => self.message(opcode, &payload),
            Item::Ping(payload) => {
                if self.facts.terms.ping_interval == 0 && payload != UPSTREAM_PING {
                    self.fail("a ping, though there are none");
                }
                if !self.muted && self.close_sent.is_none() && self.violated.is_none() {
                    self.control(PONG, &payload);
                }
            }
            Item::Pong(payload) => {
                let known = self.pings.iter().position(|ping| *ping == payload);
                let Some(place) = known else { self.fail("a pong that answers no ping of it") };
                self.pings.drain(..=place);
            }
            Item::Close(code) => self.close(code),
        }
    }

    fn message(&mut self, opcode: u8, payload: &[u8]) {
        let greeted = match *self.promise() {
            Promise::Proxied { greeting } => greeting,
            Promise::Source { messages, .. } => messages,
            Promise::Breaks(_) => 0,
            Promise::Echo | Promise::Refused(_) => 0,
        };
        if self.from_upstream < greeted {
            let expected = codec::content(self.id | UPSTREAM, self.from_upstream, opcode, payload.len());
            assert!(
                payload == expected,
                "{}: not its upstream's message {}",
                self.describe(),
                self.from_upstream
            );
            self.from_upstream += 1;
            return;
        }
        if self.may_drop() {
            let fits = |&(sent_as, seq, len): &(u8, u64, usize)| {
                sent_as == opcode
                    && len == payload.len()
                    && codec::content(self.id, seq, opcode, len) == payload
            };
            let place = self.expected.iter().position(fits);
            self.expected.drain(..place.unwrap_or(0));
        }
        let Some((sent_as, seq, len)) = self.expected.pop_front() else {
            self.fail(&format!("a message of {} bytes that it has not sent", payload.len()));
        };
        if sent_as != opcode || len != payload.len() {
            self.fail(&format!(
                "message {seq} of {len} bytes as {sent_as} came back with {} as {opcode}",
                payload.len()
            ));
        }
        if codec::content(self.id, seq, opcode, len) != payload {
            self.fail(&format!("message {seq} of {len} bytes came back changed"));
        }
    }

    fn close(&mut self, code: Option<u16>) {
        self.close_got = Some(code);
        let allowed = match (self.promise(), &self.last) {
            _ if self.is_excused() || self.may_be_closed(code) => true,
            _ if self.is_departed() && code == Some(1012) => true,
            (Promise::Breaks(codes), _) if code.is_some_and(|code| codes.contains(&code)) => true,
            (Promise::Source { code: own, .. }, _) if code == Some(*own) => true,
            (_, Some(Act::Violate(violation))) => code == Some(violation.code(self.deflater.is_some())),
            (_, Some(Act::Stall)) => code == Some(1008),
            (_, Some(Act::Close(own))) => code == *own,
            _ => false,
        };
        if !allowed {
            self.fail(&format!("a Close with {code:?}"));
        }
        let judged = self.last == Some(Act::Violate(Violation::BadText))
            && self.is_upstreams(Violation::BadText)
            && code == Some(1007);
        if judged && !self.facts.had_bad_text(self.id) && !self.is_excused() {
            self.fail("its text was refused, not passed to its upstream");
        }
        if self.close_sent.is_none() && self.violated.is_none() && self.last != Some(Act::HalfClose) {
            self.send_close(code);
        }
        // Nothing behind one's own Close (RFC 6455 §5.5.1).
        self.next_act = self.script.acts.len();
    }

    // ---- time

    /// Whether it waits for something that it may insist on.
    fn is_waiting(&mut self, net: &Net) -> bool {
        if self.is_excused() && !matches!(self.phase, Phase::Gone { .. }) {
            return false;
        }
        match self.phase {
            Phase::Open => net.now >= self.pause,
            // Where all come at once, a short backlog turns some away for minutes.
            Phase::Asking => net.conns[self.conn()].established,
            Phase::Answered { .. } => true,
            Phase::Waiting | Phase::Gone { .. } | Phase::Done => false,
        }
    }

    fn watch(&mut self, net: &mut Net, me: ActorId) {
        let moved = self.link.as_ref().map_or(0, |link| link.moved);
        if moved != self.moved {
            self.moved = moved;
            self.progress = net.now;
        }
        if self.gone_anew {
            self.gone_anew = false;
            self.go_silent(net);
        }
        if let Phase::Gone { by } = self.phase {
            let closed = net.conns[self.conn()].gate.is_closed();
            if closed && net.now < self.kept_until && !self.is_excused() && !self.is_departed() {
                self.fail("its session was ended for its silence");
            }
            if self.leaves.is_some_and(|time| time <= net.now) && !closed {
                self.leave_silence(net);
                return net.wake_at(me, net.now);
            }
            if closed {
                net.close_peer(self.conn(), true);
                net.cover(format!("gone: {:?}", self.script.acts.last()));
                if self.kept_until > 0 && !self.is_excused() && !self.is_departed() {
                    net.cover("silent: idle for too long".to_string());
                }
                self.phase = Phase::Done;
                return;
            }
            if net.now >= by {
                self.fail("the gateway still keeps its connection");
            }
            if net.now >= self.watched {
                self.watched = (net.now + SECONDS).min(by);
                net.wake_at(me, self.watched);
            }
            return;
        }
        let until = self.progress.max(self.pause) + PATIENCE;
        if net.now >= until && self.is_waiting(net) {
            self.fail(&format!("no progress for {} s", PATIENCE / SECONDS));
        }
        if net.now >= self.watched {
            self.watched = until.max(net.now + 10 * SECONDS);
            net.wake_at(me, self.watched);
        }
    }
}

/// A text that is not UTF-8: a surrogate.
pub(crate) const BAD_TEXT: &[u8] = b"abc\xed\xa0\x80";

/// The ping that an upstream sends behind its fault.
pub(crate) const UPSTREAM_PING: &[u8] = b"behind the fault";

/// Marks the content of messages that the upstream of a client sends of its own.
pub(crate) const UPSTREAM: u64 = 1 << 31;

impl Actor for Client {
    fn poke(&mut self, net: &mut Net, me: ActorId) {
        if net.now < self.start {
            return net.wake_at(me, self.start);
        }
        if self.phase == Phase::Waiting {
            self.progress = net.now;
            self.dial(net, me);
        }
        if !self.frozen && !matches!(self.phase, Phase::Gone { .. }) {
            self.receive(net, me);
        }
        if self.phase == Phase::Done {
            return;
        }
        self.act_on(net, me);
        self.link().flush(net, me);
        self.note_question(net);
        self.watch(net, me);
    }

    fn excuse(&mut self, why: Excuse) {
        if why == Excuse::Jump && matches!(self.phase, Phase::Gone { .. }) {
            self.gone_anew = true;
        }
        // Who comes later is not concerned.
        if self.phase != Phase::Waiting || matches!(why, Excuse::Drain | Excuse::Stop) {
            self.facts.excuse(self.id, why);
        }
    }

    fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }

    fn describe(&self) -> String {
        format!(
            "client {} on {}{} {:?} act {}/{} {:?}, {} sent, {} to come, close sent {:?} got {:?}, excused {:?}",
            self.id,
            self.facts.routes[self.route].prefix,
            if self.listener == 1 { " (records)" } else { "" },
            self.phase,
            self.next_act,
            self.script.acts.len(),
            self.script.acts.get(self.next_act.saturating_sub(1)),
            self.sent,
            self.expected.len(),
            self.close_sent,
            self.close_got,
            self.facts.excused(self.id),
        )
    }
}
