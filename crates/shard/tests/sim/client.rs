//! A client: it follows its [`Script`] and judges every byte that it gets.
//!
//! Two kinds of demands: what always holds (frames are right, messages are its own, in order, unchanged), and what it may
//! insist on unless it was excused (all answers, the right code, a FIN and no reset, in time).

use std::collections::VecDeque;

use super::{
    codec::{self, BINARY, CLOSE, CONTINUATION, First, Head, Inbox, Item, PING, PONG, TEXT},
    deflate::{Agreement, Deflater, Inflater, OFFERS},
    facts::{self, Deflate, Full, Promise},
    link::{End, Link, Pace},
    net::{Actor, ActorId, ConnId, Excuse, MILLIS, Net, SECONDS},
    random::Random,
    script::{Act, Asking, Mistake, Script, Violation},
};

/// How long a client waits without any progress for what it may insist on.
const PATIENCE: u64 = 100 * SECONDS;

/// On top of the gateway's own deadlines: the wheel's tick, late completions, slow segments.
const SLACK: u64 = 10 * SECONDS;

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
    script: Script,
    next_act: usize,
    start: u64,
    pace: Pace,
    link: Option<Link>,
    phase: Phase,
    key: String,
    offer: Option<&'static str>,
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
        let script = Script::draw(&mut random, &facts.terms, proxied);
        let pace = Pace::draw(&mut random);
        let mut nonce = [0; 16];
        random.fill(&mut nonce);
        Client {
            id,
            facts: facts::Shared::clone(facts),
            route,
            listener,
            script,
            next_act: 0,
            start,
            pace,
            link: None,
            phase: Phase::Waiting,
            key: codec::base64(&nonce),
            offer: (random.below(2) == 0).then(|| *random.pick(&OFFERS)),
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
            muted: false,
            frozen: false,
            violated: None,
            last: None,
            close_sent: None,
            close_got: None,
            gone_anew: false,
            closed_first: false,
            progress: start,
            moved: 0,
            watched: 0,
            random,
        }
    }

    fn promise(&self) -> &Promise {
        &self.facts.routes[self.route].promise
    }

    fn is_excused(&self) -> bool {
        self.facts.excused(self.id).is_some()
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

    // ---- asking

    fn dial(&mut self, net: &mut Net, me: ActorId) {
        let conn = net.dial(me, self.listener);
        // Listener 1 is the one with records.
        let mut link = Link::new(conn, self.pace, self.listener == 1 && cfg!(feature = "record-transport"));
        let short = self.script.asking != Asking::Wrong(Mistake::LongHead);
        if short && self.random.below(3) == 0 {
            link.pace.write = (self.random.size(1..=60), self.random.range(0..=15 * MILLIS));
        }
        self.link = Some(link);
        self.phase = Phase::Asking;
        let request = self.request();
        self.send(&request);
        if matches!(self.script.asking, Asking::Right | Asking::PageFirst) {
            while self.next_act < self.script.early {
                let act = self.script.acts[self.next_act].clone();
                self.next_act += 1;
                if matches!(act, Act::Message { .. } | Act::Ping(_) | Act::Pong) {
                    self.act(net, me, act);
                }
            }
        }
        match self.script.asking {
            Asking::Wrong(Mistake::CutOff) => self.link().finish(),
            Asking::Wrong(Mistake::Endless) => self.progress = net.now,
            _ => {}
        }
    }

    fn request(&mut self) -> Vec<u8> {
        let path = match self.promise() {
            Promise::Echo => self.facts.routes[self.route].prefix.clone(),
            _ => format!("{}/c/{}", self.facts.routes[self.route].prefix, self.id),
        };
        let mistake = match self.script.asking {
            Asking::Page => return b"GET / HTTP/1.1\r\nHost: gw.test\r\nConnection: close\r\n\r\n".to_vec(),
            Asking::Right | Asking::PageFirst => None,
            Asking::Wrong(mistake) => Some(mistake),
        };
        let is = |other| mistake == Some(other);
        if is(Mistake::Rubbish) {
            return b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03rubbish\r\n\r\n".to_vec();
        }
        let method = if is(Mistake::Post) { "POST" } else { "GET" };
        let path = if is(Mistake::UnknownPath) { "/nowhere" } else { &path };
        let mut text = match self.script.asking {
            Asking::PageFirst => "GET / HTTP/1.1\r\nHost: gw.test\r\n\r\n".to_string(),
            _ => String::new(),
        };
        text += &format!("{method} {path} HTTP/1.1\r\n");
        let key = if is(Mistake::ShortKey) { "c2hvcnQ=" } else { &self.key };
        let fields = [
            (Mistake::NoHost, "Host", "gw.test"),
            (Mistake::NoUpgrade, "Upgrade", "websocket"),
            (Mistake::NoConnection, "Connection", "keep-alive, Upgrade"),
            (Mistake::NoKey, "Sec-WebSocket-Key", key),
            (Mistake::OldVersion, "Sec-WebSocket-Version", if is(Mistake::OldVersion) { "8" } else { "13" }),
        ];
        for (without, name, value) in fields {
            if !is(without) || without == Mistake::OldVersion {
                text += &format!("{name}: {value}\r\n");
            }
        }
        if let Some(offer) = self.offer {
            text += &format!("Sec-WebSocket-Extensions: {offer}\r\n");
        }
        match mistake {
            Some(Mistake::LongHead) => text += &format!("X-Long: {}\r\n", "x".repeat(20_000)),
            Some(Mistake::Endless | Mistake::CutOff) => {
                text.truncate(self.random.size(1..=text.len() - 1));
                return text.into_bytes();
            }
            _ => {}
        }
        text += "\r\n";
        text.into_bytes()
    }

    fn read_answer(&mut self) {
        let Some(answer) = Head::read(&self.head) else {
            assert!(self.head.len() < 20_000, "{}: an answer without end", self.describe());
            return;
        };
        if self.script.asking == Asking::PageFirst && !self.page_read && answer.status() == 200 {
            let length: usize = answer.one("content-length").expect("a length").parse().expect("in digits");
            if self.head.len() >= answer.len + length {
                self.head.drain(..answer.len + length);
                self.page_read = true;
                self.read_answer();
            }
            return;
        }
        let rest = self.head.split_off(answer.len);
        let status = answer.status();
        if status == 101 {
            self.check_101(&answer);
            self.agree(&answer);
            self.phase = Phase::Open;
            self.inbox.push(&rest);
            let pace = self.pace;
            self.link().pace = pace;
            return;
        }
        self.check_status(status);
        let length = answer.one("content-length").map(|length| length.parse().expect("a length in digits"));
        // Without one the body ends with the connection (RFC 9112 §6.3).
        let missing: usize = length.unwrap_or(rest.len());
        assert!(rest.len() <= missing, "{}: a body longer than its length", self.describe());
        self.phase = Phase::Answered { status, missing: missing - rest.len() };
    }

    /// RFC 6455 §4.1.
    fn check_101(&self, answer: &Head) {
        let right = matches!(self.script.asking, Asking::Right) || self.page_read;
        assert!(right, "{}: accepted a wrong request", self.describe());
        let may_open = !matches!(self.promise(), Promise::Refused(_));
        assert!(may_open, "{}: accepted though its upstream refuses", self.describe());
        let upgrade = answer.one("upgrade").map(str::to_ascii_lowercase);
        let connection = answer.one("connection").map(str::to_ascii_lowercase);
        assert_eq!(upgrade.as_deref(), Some("websocket"), "{}", self.describe());
        assert_eq!(connection.as_deref(), Some("upgrade"), "{}", self.describe());
        let accept = codec::accept_value(&self.key);
        assert_eq!(answer.one("sec-websocket-accept"), Some(accept.as_str()), "{}", self.describe());
        assert_eq!(answer.one("sec-websocket-protocol"), None, "{}", self.describe());
    }

    /// What the answer agrees to of what was offered.
    fn agree(&mut self, answer: &Head) {
        let answer = answer.one("sec-websocket-extensions");
        let deflate = self.facts.routes[self.route].deflate;
        let (Some(offer), Some(answer)) = (self.offer, answer) else {
            let wanted = self.offer.is_some() && matches!(deflate, Deflate::Gateway { .. });
            assert!(
                answer.is_none() && !wanted,
                "{}: offered {:?}, answered {answer:?}",
                self.describe(),
                self.offer
            );
            return;
        };
        assert!(deflate != Deflate::Nobody, "{}: compression that is switched off", self.describe());
        let agreed = Agreement::read(answer, offer);
        if deflate == (Deflate::Gateway { takeover: false }) {
            assert!(
                !agreed.client_takeover && !agreed.server_takeover,
                "{}: takeover {answer:?}",
                self.describe()
            );
        }
        // RFC 7692 §7.1.1.2, §7.1.2.2: what the offer says of the client holds whatever the answer says.
        let takeover = agreed.client_takeover && !offer.contains("client_no_context_takeover");
        let bits = if offer.contains("client_max_window_bits=9") {
            agreed.client_bits.min(9)
        } else {
            agreed.client_bits
        };
        self.deflater = Some(Deflater::new(takeover, bits));
        self.inbox.inflate(Inflater::new(agreed.server_takeover, agreed.server_bits));
    }

    fn check_status(&self, status: u16) {
        let full = status == 503 && self.facts.terms.may_be_full;
        let gateway = matches!(status, 502..=504);
        let allowed: &[u16] = match (self.script.asking, self.promise()) {
            (Asking::Page, _) => &[200],
            (Asking::Wrong(mistake), _) => mistake.statuses(),
            (Asking::Right | Asking::PageFirst, Promise::Refused(statuses)) => statuses,
            // The upstream's 101 went with its connection.
            (Asking::Right | Asking::PageFirst, Promise::Breaks(_)) => &[502],
            (Asking::Right | Asking::PageFirst, _) => &[],
        };
        let asks = matches!(self.script.asking, Asking::Right | Asking::PageFirst);
        let upstream = gateway && self.facts.has_failed(self.route) && asks;
        if !(allowed.contains(&status) || full || upstream || self.is_excused()) {
            self.fail(&format!("an answer of {status}, not of {allowed:?}"));
        }
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
            self.judge_end(end);
            self.cover(net);
            net.close_peer(self.conn(), false);
            self.phase = Phase::Done;
        }
    }

    fn item(&mut self, item: Item) {
        match item {
            Item::Message { opcode, payload } => self.message(opcode, &payload),
            Item::Ping(payload) => {
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

    /// Whether the echo drops messages when it cannot get rid of them.
    fn may_drop(&self) -> bool {
        *self.promise() == Promise::Echo && matches!(self.facts.terms.full, Full::DropNew | Full::DropOld)
    }

    /// Whether the echo ends its session when it cannot get rid of its answers. What is sealed cannot be dropped.
    fn may_be_too_slow(&self) -> bool {
        let full = self.facts.terms.full;
        *self.promise() == Promise::Echo
            && (full == Full::Disconnect || (full != Full::Pause && self.listener == 1))
    }

    /// Closes that the gateway may send on its own account.
    fn may_be_closed(&self, code: Option<u16>) -> bool {
        (self.may_be_too_slow() && code == Some(1013)) || (self.facts.terms.idle_timeout > 0 && code == Some(1001))
    }

    fn close(&mut self, code: Option<u16>) {
        self.close_got = Some(code);
        let allowed = match (self.promise(), &self.last) {
            _ if self.is_excused() || self.may_be_closed(code) => true,
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
        if self.close_sent.is_none() && self.violated.is_none() && self.last != Some(Act::HalfClose) {
            self.send_close(code);
        }
        // Nothing behind one's own Close (RFC 6455 §5.5.1).
        self.next_act = self.script.acts.len();
    }

    fn judge_end(&self, end: End) {
        if self.is_excused() {
            return;
        }
        let reset = end == End::Reset;
        let much = self.link.as_ref().is_some_and(|link| link.moved > LINGER_BYTES);
        match self.phase {
            Phase::Asking => match self.script.asking {
                Asking::Wrong(Mistake::CutOff | Mistake::Endless) => {}
                _ if self.facts.terms.may_be_full => {}
                _ if reset && matches!(self.promise(), Promise::Breaks(_)) => {}
                _ if reset && self.may_be_too_slow() => {}
                _ if reset && much && matches!(self.promise(), Promise::Source { .. }) => {}
                _ => self.fail(&format!("{end:?} without an answer")),
            },
            Phase::Answered { missing, .. } => {
                let destroyed = reset && much;
                if (reset || missing > 0) && !destroyed {
                    self.fail(&format!("{end:?} with {missing} bytes of the answer missing"));
                }
            }
            Phase::Open => self.judge_session(end, much),
            Phase::Waiting | Phase::Gone { .. } | Phase::Done => self.fail("an end after the end"),
        }
    }

    /// What it has gone through without an excuse.
    fn cover(&self, net: &mut Net) {
        if self.is_excused() {
            return;
        }
        let served = match self.promise() {
            Promise::Echo => "echo",
            Promise::Proxied { .. } => "proxy",
            Promise::Source { .. } => "source",
            Promise::Refused(_) => "refused",
            Promise::Breaks(_) => "breaks",
        };
        match (self.phase, self.script.asking, &self.last) {
            (Phase::Asking | Phase::Answered { .. }, Asking::Wrong(mistake), _) => {
                net.cover(format!("{mistake:?}"));
            }
            (Phase::Answered { status, .. }, _, _) => net.cover(format!("{served}: status {status}")),
            (Phase::Open, _, last) => {
                let act = match last {
                    Some(Act::Violate(violation)) => format!("{violation:?}"),
                    Some(Act::Close(_)) => "Close".to_string(),
                    Some(act) => format!("{act:?}"),
                    None => "no end of its own".to_string(),
                };
                net.cover(format!("{served}: {act}"));
                if self.listener == 1 {
                    net.cover(format!("records: {served}"));
                }
                if self.inbox.inflated > 0 {
                    net.cover(format!("inflated: {:?}", self.facts.routes[self.route].deflate));
                }
            }
            _ => {}
        }
    }

    fn judge_session(&self, end: End, much: bool) {
        let clean = end == End::Eof && self.close_got.is_some();
        let proxied = *self.promise() != Promise::Echo;
        match (self.promise(), &self.last) {
            (Promise::Breaks(_), _) => {}
            _ if self.close_got.is_some_and(|code| self.may_be_closed(code)) && (clean || much) => {}
            // In the middle of a message there is no place for a Close.
            _ if self.may_be_too_slow() && end == End::Reset => {}
            (Promise::Source { messages, .. }, _) if self.close_sent.is_some() && self.violated.is_none() => {
                let all = self.from_upstream == *messages || self.closed_first;
                if !(clean || (end == End::Reset && much)) || !all {
                    self.fail(&format!("{end:?} after {} messages of its upstream", self.from_upstream));
                }
            }
            (_, Some(Act::HalfClose)) if end == End::Eof || proxied => {}
            (_, Some(Act::Mute)) => {}
            (_, Some(Act::Stall)) if clean => {}
            // Where the upstream's answer was under way, a Close could not be put in.
            (_, Some(Act::Violate(_)))
                if clean || (proxied && (end != End::Eof || self.inbox.is_inside_frame())) => {}
            (_, Some(Act::Close(_))) if clean => {
                if !self.expected.is_empty() && !self.may_drop() {
                    self.fail(&format!("{} messages did not come back", self.expected.len()));
                }
                if !self.pings.is_empty() {
                    self.fail("its last ping was not answered");
                }
            }
            _ => self.fail(&format!("{end:?}")),
        }
    }

    // ---- what it does

    fn mask(&mut self) -> Option<[u8; 4]> {
        let mut mask = [0; 4];
        if self.random.below(16) > 0 {
            self.random.fill(&mut mask);
        }
        Some(mask)
    }

    fn control(&mut self, opcode: u8, payload: &[u8]) {
        let mut bytes = Vec::new();
        let mask = self.mask();
        codec::frame(&mut bytes, First::whole(opcode), payload, mask);
        self.send(&bytes);
    }

    fn ping(&mut self, len: usize) {
        let mut payload = vec![0; len];
        self.random.fill(&mut payload);
        // Two alike could not be told apart: of several pings only the last must be answered.
        if self.pings.contains(&payload) {
            payload = self.pinged.to_be_bytes().to_vec();
        }
        self.pinged += 1;
        self.control(PING, &payload);
        self.pings.push_back(payload);
    }

    fn send_close(&mut self, code: Option<u16>) {
        let payload = codec::close_payload(code, if code.is_some() { "bye" } else { "" });
        self.control(CLOSE, &payload);
        self.close_sent = Some(code);
        self.closed_first = self.close_got.is_none();
    }

    /// Goes on with the script as far as it can.
    fn act_on(&mut self, net: &mut Net, me: ActorId) {
        while self.phase == Phase::Open && self.next_act < self.script.acts.len() && self.link().is_flushed()
        {
            if net.now < self.pause {
                return;
            }
            let act = self.script.acts[self.next_act].clone();
            let source = matches!(self.promise(), Promise::Source { .. } | Promise::Breaks(_));
            let waits = match act {
                Act::AwaitEchoes => !self.expected.is_empty() && !source && !self.may_drop(),
                Act::AwaitClose => true,
                _ => false,
            };
            if waits {
                return;
            }
            self.next_act += 1;
            self.progress = net.now;
            self.act(net, me, act);
        }
    }

    fn act(&mut self, net: &mut Net, me: ActorId, act: Act) {
        match act {
            Act::Pause(time) => {
                self.pause = net.now + time;
                net.wake_at(me, self.pause);
            }
            Act::Message { opcode, len, frames, ping_between } => {
                self.send_message(opcode, len, frames, ping_between);
            }
            Act::Ping(len) => self.ping(len),
            Act::Pong => self.control(PONG, b"nobody asked"),
            Act::AwaitEchoes | Act::AwaitClose => {}
            Act::Close(code) => {
                self.last = Some(act);
                self.send_close(code);
            }
            Act::Violate(mut violation) => {
                let ends = self.facts.routes[self.route].deflate == Deflate::Ends;
                if ends && matches!(violation, Violation::BadDeflate | Violation::Bomb) {
                    // Where the two ends compress, that is the upstream's business.
                    violation = Violation::ReservedOpcode;
                }
                self.last = Some(Act::Violate(violation));
                self.violated = Some(violation);
                self.violate(violation);
            }
            Act::HalfClose => {
                self.last = Some(act);
                self.link().finish();
            }
            Act::Vanish { reset } => {
                net.close_peer(self.conn(), reset);
                self.gone(net.now + self.facts.terms.close_timeout + SLACK);
            }
            Act::Stall => {
                self.last = Some(act);
                let mut bytes = Vec::new();
                let mask = self.mask();
                // The first of two frames, whole: pongs may still follow it.
                codec::frame(&mut bytes, First { fin: false, rsv: 0, opcode: BINARY }, &[0; 10], mask);
                self.send(&bytes);
            }
            Act::Mute => {
                self.last = Some(act);
                self.muted = true;
            }
            Act::StopReading => {
                self.frozen = true;
                for _ in 0..self.random.below(40) {
                    self.send_message(BINARY, 10_000, 1, false);
                }
                self.go_silent(net);
            }
            Act::Freeze => {
                self.frozen = true;
                self.go_silent(net);
            }
        }
    }

    /// From now on the gateway has to find out by itself.
    fn go_silent(&mut self, net: &Net) {
        let terms = &self.facts.terms;
        let longest = terms.ping_interval
            + terms.pong_timeout
            + terms.write_timeout
            + terms.message_timeout
            + 2 * terms.close_timeout;
        self.gone(net.now + longest + 2 * SLACK);
    }

    fn gone(&mut self, by: u64) {
        self.phase = Phase::Gone { by };
        self.watched = 0;
    }

    fn send_message(&mut self, opcode: u8, len: usize, frames: usize, ping_between: bool) {
        let plain = codec::content(self.id, self.sent, opcode, len);
        let deflates = self.deflater.is_some() && self.random.below(3) > 0;
        let payload = match &mut self.deflater {
            Some(deflater) if deflates => deflater.message(&mut self.random, &plain),
            _ => plain,
        };
        let mut cuts: Vec<usize> = (1..frames).map(|_| self.random.size(0..=payload.len())).collect();
        cuts.sort_unstable();
        cuts.push(payload.len());
        let mut from = 0;
        let mut bytes = Vec::new();
        for (index, &to) in cuts.iter().enumerate() {
            let opcode = if index == 0 { opcode } else { CONTINUATION };
            let rsv = if deflates && index == 0 { 4 } else { 0 };
            let first = First { fin: index == cuts.len() - 1, rsv, opcode };
            let mask = self.mask();
            codec::frame(&mut bytes, first, &payload[from..to], mask);
            self.send(&bytes);
            bytes.clear();
            if ping_between {
                let len = self.random.size(0..=20);
                self.ping(len);
            }
            from = to;
        }
        if !matches!(self.promise(), Promise::Source { .. }) {
            self.expected.push_back((opcode, self.sent, len));
        }
        self.sent += 1;
    }

    fn violate(&mut self, violation: Violation) {
        let mut bytes = Vec::new();
        let mask = self.mask();
        let whole = First::whole;
        let open = |opcode| First { fin: false, rsv: 0, opcode };
        match violation {
            Violation::Unmasked => codec::frame(&mut bytes, whole(TEXT), b"bare", None),
            Violation::ReservedBit => {
                let rsv = if self.deflater.is_some() { 2 } else { *self.random.pick(&[1, 2, 4]) };
                codec::frame(&mut bytes, First { fin: true, rsv, opcode: TEXT }, b"bits", mask);
            }
            Violation::ReservedOpcode => {
                let opcode = *self.random.pick(&[3, 7, 11, 15]);
                codec::frame(&mut bytes, whole(opcode), b"", mask);
            }
            Violation::LoneContinuation => codec::frame(&mut bytes, whole(CONTINUATION), b"of what", mask),
            Violation::LongPing => codec::frame(&mut bytes, whole(PING), &[7; 126], mask),
            Violation::FragmentedPing => codec::frame(&mut bytes, open(PING), b"", mask),
            Violation::CloseCode => {
                let code = *self.random.pick(&[0, 999, 1004, 1005, 1006, 1015, 2999, 5000]);
                codec::frame(&mut bytes, whole(CLOSE), &codec::close_payload(Some(code), ""), mask);
            }
            Violation::CloseByte => codec::frame(&mut bytes, whole(CLOSE), &[3], mask),
            Violation::BadText => codec::frame(&mut bytes, whole(TEXT), b"abc\xed\xa0\x80", mask),
            Violation::TooBig => {
                codec::header(&mut bytes, whole(BINARY), self.facts.terms.message_bytes + 1, mask);
            }
            // RFC 6455 §5.2: five bytes in the form for 126 and more.
            Violation::LongLength => bytes.extend([0x82, 0xFE, 0, 5, 1, 2, 3, 4, 0, 0, 0, 0, 0]),
            Violation::MessageInMessage => {
                codec::frame(&mut bytes, open(TEXT), b"first", mask);
                codec::frame(&mut bytes, whole(TEXT), b"second", mask);
            }
            Violation::BadDeflate => {
                let first = First { fin: true, rsv: 4, opcode: BINARY };
                // A block of the reserved type (RFC 1951 §3.2.3).
                codec::frame(&mut bytes, first, &[0xFF; 40], mask);
            }
            Violation::Bomb => {
                let plain = vec![0; self.facts.terms.message_bytes + 1];
                match &mut self.deflater {
                    Some(deflater) => {
                        let payload = deflater.message(&mut self.random, &plain);
                        codec::frame(&mut bytes, First { fin: true, rsv: 4, opcode: BINARY }, &payload, mask);
                    }
                    None => codec::header(&mut bytes, whole(BINARY), plain.len(), mask),
                }
            }
            Violation::TooManyPings => {
                // Over a window's end, too, there are too many in one of both.
                for _ in 0..250 {
                    self.ping(3);
                }
            }
        }
        self.send(&bytes);
    }

    // ---- time

    /// Whether it waits for something that it may insist on.
    fn is_waiting(&mut self, net: &Net) -> bool {
        if self.is_excused() && !matches!(self.phase, Phase::Gone { .. }) {
            return false;
        }
        match self.phase {
            Phase::Open => net.now >= self.pause,
            Phase::Asking | Phase::Answered { .. } => true,
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
            if net.conns[self.conn()].gate.is_closed() {
                net.close_peer(self.conn(), true);
                net.cover(format!("gone: {:?}", self.script.acts.last()));
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
        self.watch(net, me);
    }

    fn excuse(&mut self, why: Excuse) {
        if why == Excuse::Jump && matches!(self.phase, Phase::Gone { .. }) {
            self.gone_anew = true;
        }
        // Who comes later is not concerned.
        if self.phase != Phase::Waiting || why == Excuse::Drain {
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
