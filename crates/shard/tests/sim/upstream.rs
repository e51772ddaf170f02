//! A virtual upstream: it judges what the gateway sends as its client, and answers well or badly.

use super::{
    client::{BAD_TEXT, UPSTREAM, UPSTREAM_PING},
    codec::{self, BINARY, CLOSE, First, Head, Inbox, Item, PING, PONG, TEXT},
    deflate::{Agreement, Deflater, Inflater},
    facts::{self, Deflate, Promise},
    fitting::Fate,
    link::{End, Link, Pace},
    net::{Actor, ActorId, ConnId, Excuse, MILLIS, Net, SECONDS},
    random::Random,
};

/// What an upstream does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Echoes, at this pace, behind so many messages of its own.
    Echo { greeting: u64 },
    /// Sends so many messages, then a Close.
    Source { messages: u64, code: u16 },
    /// Answers with a status and a body.
    Status(u16),
    /// A 101 that is wrong.
    Wrong(Wrong),
    /// Reads, and never answers.
    Silent,
    /// Ends in the middle of its answer's head.
    CutHead { reset: bool },
    /// Echoes so many messages, then fails.
    Fails { after: u64, how: Failure },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    Accept,
    NoUpgrade,
    NoConnection,
    Extension,
    Protocol,
    Rubbish,
    LongHead,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    Close(u16),
    Masked,
    ReservedOpcode,
    BadText,
    BadClose,
    Fin,
    Reset,
    /// A part of a frame, then the end.
    CutFrame {
        reset: bool,
    },
    /// It reads on, but answers nothing any more: no echo, no pong.
    Hangs,
    /// It neither reads nor writes any more.
    Freezes,
}

impl Failure {
    pub(crate) const ALL: [Failure; 13] = [
        Failure::Close(1000),
        Failure::Close(1001),
        Failure::Close(4000),
        Failure::Masked,
        Failure::ReservedOpcode,
        Failure::BadText,
        Failure::BadClose,
        Failure::Fin,
        Failure::Reset,
        Failure::CutFrame { reset: true },
        Failure::CutFrame { reset: false },
        Failure::Hangs,
        Failure::Freezes,
    ];
}

impl Wrong {
    pub(crate) const ALL: [Wrong; 7] = [
        Wrong::Accept,
        Wrong::NoUpgrade,
        Wrong::NoConnection,
        Wrong::Extension,
        Wrong::Protocol,
        Wrong::Rubbish,
        Wrong::LongHead,
    ];
}

impl Mode {
    pub(crate) fn draw(random: &mut Random) -> Mode {
        match random.below(12) {
            0..=4 => Mode::Echo { greeting: *random.pick(&[0, 0, 0, 1, 5]) },
            5 | 6 => Mode::Source { messages: random.range(0..=40), code: *random.pick(&[1000, 1001, 3333]) },
            7 => Mode::Status(*random.pick(&[200, 401, 403, 404, 500, 503])),
            8 => Mode::Wrong(*random.pick(&Wrong::ALL)),
            9 => *random.pick(&[Mode::Silent, Mode::CutHead { reset: true }, Mode::CutHead { reset: false }]),
            _ => Mode::Fails { after: random.below(4), how: *random.pick(&Failure::ALL) },
        }
    }

    /// What a client may hope for behind such an upstream.
    pub(crate) fn promise(self) -> Promise {
        match self {
            Mode::Echo { greeting } => Promise::Proxied { greeting },
            Mode::Source { messages, code } => Promise::Source { messages, code },
            Mode::Status(status) => Promise::Refused(match status {
                200 => &[200, 502],
                401 => &[401],
                403 => &[403],
                404 => &[404],
                500 => &[500],
                _ => &[503],
            }),
            Mode::Wrong(_) | Mode::CutHead { .. } => Promise::Refused(&[502]),
            Mode::Silent => Promise::Refused(&[502, 504]),
            Mode::Fails { how, .. } => Promise::Breaks(match how {
                Failure::Close(1000) => &[1000],
                Failure::Close(1001) => &[1001],
                Failure::Close(_) => &[4000],
                _ => &[1011],
            }),
        }
    }

    /// Whether the gateway leaves such an upstream out for a while, so that other clients are refused.
    pub(crate) fn counts_as_failed(self) -> bool {
        matches!(self, Mode::Wrong(_) | Mode::CutHead { .. } | Mode::Silent)
    }
}

pub(crate) struct Upstream {
    facts: facts::Shared,
    random: Random,
    route: usize,
    mode: Mode,
    link: Link,
    /// What goes through the link is in records.
    records: bool,
    head: Vec<u8>,
    /// When it answers the request; until then nothing may follow it.
    answer_at: Option<u64>,
    client: Option<u64>,
    key: String,
    /// What it answers to the offers that came through.
    extension: Option<String>,
    deflater: Option<Deflater>,
    open: bool,
    inbox: Inbox,
    received: u64,
    pinged: u64,
    sent: u64,
    failed: bool,
    frozen: bool,
    look_again: u64,
    close_sent: bool,
    close_got: bool,
    excuse: Option<Excuse>,
    done: bool,
}

impl Upstream {
    pub(crate) fn new(
        facts: &facts::Shared,
        route: usize,
        mode: Mode,
        conn: ConnId,
        records: bool,
        mut random: Random,
    ) -> Upstream {
        let pace = Pace::draw(&mut random);
        let mut inbox = Inbox::new(true);
        inbox.any_text = facts.routes[route].any_text;
        Upstream {
            facts: facts::Shared::clone(facts),
            route,
            mode,
            link: Link::of_upstream(conn, pace, records),
            records,
            head: Vec::new(),
            answer_at: None,
            client: None,
            key: String::new(),
            extension: None,
            deflater: None,
            open: false,
            inbox,
            received: 0,
            pinged: 0,
            sent: 0,
            failed: false,
            frozen: false,
            look_again: 0,
            close_sent: false,
            close_got: false,
            excuse: None,
            done: false,
            random,
        }
    }

    fn fail(&self, what: &str) -> ! {
        panic!("{}: {what}", self.describe());
    }

    // ---- the request

    fn read_request(&mut self, net: &mut Net, me: ActorId) {
        if self.answer_at.is_some() {
            assert!(self.head.is_empty(), "{}: bytes before its 101: {:02x?}", self.describe(), self.head);
            return;
        }
        let Some(head) = Head::read(&self.head) else { return };
        let rest = self.head.split_off(head.len);
        self.head.clear();
        self.check_request(&head);
        assert!(
            rest.is_empty(),
            "{}: {} bytes behind the request before its 101",
            self.describe(),
            rest.len()
        );
        let wait = *self.random.pick(&[0, 0, MILLIS, 300 * MILLIS]);
        self.answer_at = Some(net.now + wait);
        net.wake_at(me, net.now + wait);
    }

    /// What a client must send (RFC 6455 §4.1), and what the gateway promises besides.
    fn check_request(&mut self, head: &Head) {
        let prefix = format!("GET {}/c/", self.facts.routes[self.route].prefix);
        let id = head.line.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(" HTTP/1.1"));
        let Some(id) = id.and_then(|id| id.parse().ok()) else {
            self.fail(&format!("a request {:?}", head.line))
        };
        self.client = Some(id);
        if self.link.pace.crawls() {
            self.facts.note_crawl(id);
        }
        let asks = self.facts.asks(id);
        let unfit = self.facts.routes[self.route].demands.refusal(&asks);
        // A hook's answer that came while nothing ran is read before its time-out is looked at.
        let in_time = asks.fate == Some(Fate::Late) && self.facts.excused(id).is_some();
        assert!(
            unfit.is_none() || in_time,
            "{}: its client should have got {unfit:?}: {asks:?}",
            self.describe()
        );
        let offers = (!asks.subprotocols.is_empty()).then(|| asks.subprotocols.join(", "));
        assert_eq!(head.one("sec-websocket-protocol"), offers.as_deref(), "{}", self.describe());
        assert_eq!(head.one("origin"), asks.origin, "{}", self.describe());
        let lower = |name| head.one(name).map(str::to_ascii_lowercase);
        assert_eq!(lower("upgrade").as_deref(), Some("websocket"));
        assert_eq!(lower("connection").as_deref(), Some("upgrade"));
        assert_eq!(head.one("sec-websocket-version"), Some("13"));
        assert!(head.one("host").is_some_and(|host| !host.is_empty()), "a request without Host");
        let forwarded = head.one("x-forwarded-for").unwrap_or("");
        // Of a connection that had ended when it was accepted no address is known.
        let source = self.facts.source(id);
        let is_right =
            source.map_or(forwarded.starts_with("192.0.2."), |source| forwarded == source.to_string());
        assert!(forwarded.is_empty() || is_right, "X-Forwarded-For: {forwarded}, not {source:?}");
        match head.one("sec-websocket-extensions").map(str::to_string) {
            None => {}
            Some(offer) if self.facts.routes[self.route].deflate == Deflate::Ends => {
                self.accept_offer(&offer);
            }
            Some(offer) => self.fail(&format!("an offer that is not for it: {offer}")),
        }
        let key = head.one("sec-websocket-key").expect("a key");
        assert!(key.len() == 24 && key.ends_with("=="), "a key {key:?}");
        self.key = key.to_string();
    }

    /// RFC 7692 §7.1: answers the first offer of permessage-deflate, or none.
    fn accept_offer(&mut self, offers: &str) {
        let mut offers = offers.split(',').map(str::trim);
        let Some(offer) = offers.find(|offer| offer.starts_with("permessage-deflate")) else { return };
        if self.random.below(4) == 0 {
            return;
        }
        let mut answer = "permessage-deflate".to_string();
        for name in ["server_no_context_takeover", "client_no_context_takeover"] {
            if offer.contains(name) || self.random.below(2) == 0 {
                answer += &format!("; {name}");
            }
        }
        for bits in [9, 10] {
            if offer.contains(&format!("server_max_window_bits={bits}")) {
                answer += &format!("; server_max_window_bits={bits}");
            }
        }
        let agreed = Agreement::read(&answer, offer);
        self.inbox.inflate(Inflater::new(agreed.client_takeover, agreed.client_bits));
        self.deflater = Some(Deflater::new(agreed.server_takeover, agreed.server_bits));
        self.extension = Some(answer);
    }

    fn answer(&mut self, net: &mut Net) {
        let accept = codec::accept_value(&self.key);
        let wrong = match self.mode {
            Mode::Silent => return,
            Mode::Status(status) => {
                let body = "no, and that is why";
                let text = format!(
                    "HTTP/1.1 {status} Because\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                self.link.send(&mut self.random, text.as_bytes());
                self.failed = true;
                return;
            }
            Mode::CutHead { reset } => {
                self.link.send(&mut self.random, b"HTTP/1.1 101 Switching Pro");
                self.failed = true;
                if reset {
                    self.leave(net, true);
                } else {
                    self.link.finish();
                }
                return;
            }
            Mode::Wrong(Wrong::Rubbish) => {
                self.link.send(&mut self.random, b"SSH-2.0-OpenSSH_9.6\r\n\r\n");
                self.failed = true;
                return;
            }
            Mode::Wrong(wrong) => Some(wrong),
            _ => None,
        };
        let is = |other| wrong == Some(other);
        let mut text = "HTTP/1.1 101 Switching Protocols\r\n".to_string();
        if !is(Wrong::NoUpgrade) {
            text += "Upgrade: WebSocket\r\n";
        }
        if !is(Wrong::NoConnection) {
            text += "connection: Upgrade\r\n";
        }
        let accept = if is(Wrong::Accept) { codec::accept_value("another key") } else { accept };
        text += &format!("Sec-WebSocket-Accept: {accept}\r\n");
        if let Some(extension) = &self.extension {
            text += &format!("Sec-WebSocket-Extensions: {extension}\r\n");
        }
        match wrong {
            Some(Wrong::Extension) if self.extension.is_some() => {
                text += "Sec-WebSocket-Extensions: x-other\r\n";
            }
            Some(Wrong::Extension) => {
                text += "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=7\r\n";
            }
            Some(Wrong::Protocol) => text += "Sec-WebSocket-Protocol: chat\r\n",
            None => {
                let client = self.client.expect("it has asked");
                let chosen = self.facts.asks(client).choice(client);
                self.facts.choose(client, chosen);
                if let Some(chosen) = chosen {
                    text += &format!("Sec-WebSocket-Protocol: {chosen}\r\n");
                }
            }
            Some(Wrong::LongHead) => text += &format!("X-Long: {}\r\n", "y".repeat(40_000)),
            _ => {}
        }
        text += "\r\n";
        self.link.send(&mut self.random, text.as_bytes());
        self.open = wrong.is_none();
        self.failed = wrong.is_some();
        match self.mode {
            Mode::Echo { greeting } => (0..greeting).for_each(|_| self.send_own()),
            Mode::Source { messages, code } => {
                (0..messages).for_each(|_| self.send_own());
                self.send_close(Some(code));
            }
            _ => {}
        }
        self.maybe_fail(net);
    }

    // ---- messages

    fn item(&mut self, net: &mut Net, item: Item) {
        match item {
            Item::Message { opcode, payload } => {
                let id = self.client.expect("it is open");
                if opcode == TEXT && payload == BAD_TEXT {
                    // On other routes its inbox would not have taken it.
                    net.cover("utf8: passed to the upstream".to_string());
                    self.facts.note_bad_text(id);
                    if !self.close_sent {
                        self.send_close(Some(1007));
                    }
                    return;
                }
                let expected = codec::content(id, self.received, opcode, payload.len());
                if payload != expected {
                    self.fail(&format!(
                        "message {} of client {id} is not what it sent ({} bytes)",
                        self.received,
                        payload.len()
                    ));
                }
                self.received += 1;
                if !self.failed && !self.close_sent && !matches!(self.mode, Mode::Source { .. }) {
                    self.send_message(opcode, &payload);
                }
                self.maybe_fail(net);
            }
            Item::Ping(payload) => {
                self.pinged += 1;
                let own = self.facts.pings(self.client.expect("it is open"));
                if self.facts.terms.ping_interval == 0 && self.pinged > own {
                    self.fail("a ping, though there are none");
                }
                if !self.failed && !self.close_sent {
                    self.control(PONG, &payload);
                }
            }
            // The client may send any.
            Item::Pong(_) => {}
            Item::Close(code) => {
                self.close_got = true;
                if !self.close_sent && !self.failed {
                    self.send_close(code);
                }
                // RFC 6455 §7.1.1: the server closes the connection first.
                self.link.finish();
            }
        }
    }

    fn control(&mut self, opcode: u8, payload: &[u8]) {
        let mut bytes = Vec::new();
        codec::frame(&mut bytes, First::whole(opcode), payload, None);
        self.link.send(&mut self.random, &bytes);
    }

    fn send_close(&mut self, code: Option<u16>) {
        self.control(CLOSE, &codec::close_payload(code, ""));
        self.close_sent = true;
    }

    fn send_own(&mut self) {
        let id = self.client.expect("it is open") | UPSTREAM;
        let most = *self.random.pick(&[100, 100, 3_000, 40_000]);
        let len = self.random.size(0..=most.min(self.facts.terms.message_bytes));
        let opcode = *self.random.pick(&[TEXT, BINARY]);
        let payload = codec::content(id, self.sent, opcode, len);
        self.sent += 1;
        self.send_message(opcode, &payload);
    }

    fn send_message(&mut self, opcode: u8, payload: &[u8]) {
        let deflates = self.deflater.is_some() && self.random.below(3) > 0;
        let packed = match &mut self.deflater {
            Some(deflater) if deflates => Some(deflater.message(&mut self.random, payload)),
            _ => None,
        };
        let payload = packed.as_deref().unwrap_or(payload);
        let frames = *self.random.pick(&[1, 1, 1, 2, 5]);
        let mut bytes = Vec::new();
        let mut from = 0;
        for index in 0..frames {
            let to = if index == frames - 1 { payload.len() } else { self.random.size(from..=payload.len()) };
            let opcode = if index == 0 { opcode } else { 0 };
            let rsv = if deflates && index == 0 { 4 } else { 0 };
            codec::frame(
                &mut bytes,
                First { fin: index == frames - 1, rsv, opcode },
                &payload[from..to],
                None,
            );
            from = to;
        }
        self.link.send(&mut self.random, &bytes);
    }

    /// Fails where its mode says so and its time has come.
    fn maybe_fail(&mut self, net: &mut Net) {
        let Mode::Fails { after, how } = self.mode else { return };
        if self.failed || !self.open || self.received < after {
            return;
        }
        self.failed = true;
        let mut bytes = Vec::new();
        match how {
            Failure::Close(code) => return self.send_close(Some(code)),
            Failure::Masked => codec::frame(&mut bytes, First::whole(TEXT), b"masked", Some([1, 2, 3, 4])),
            Failure::ReservedOpcode => codec::frame(&mut bytes, First::whole(5), b"", None),
            Failure::BadText => codec::frame(&mut bytes, First::whole(TEXT), b"\xc3\x28", None),
            Failure::BadClose => {
                codec::frame(&mut bytes, First::whole(CLOSE), &codec::close_payload(Some(1005), ""), None);
            }
            Failure::Fin => self.link.finish(),
            Failure::Reset => return self.leave(net, true),
            Failure::CutFrame { reset } => {
                codec::header(&mut bytes, First::whole(BINARY), 500, None);
                bytes.extend([9; 100]);
                self.link.send(&mut self.random, &bytes);
                bytes.clear();
                if reset { return self.leave(net, true) } else { self.link.finish() }
            }
            Failure::Hangs => {}
            Failure::Freezes => self.frozen = true,
        }
        self.link.send(&mut self.random, &bytes);
        if self.random.below(2) == 0 {
            self.control(PING, UPSTREAM_PING);
        }
    }

    /// Closes its end.
    fn leave(&mut self, net: &mut Net, reset: bool) {
        if self.client.is_some() {
            net.cover(match self.mode {
                Mode::Echo { .. } => "upstream: Echo".to_string(),
                Mode::Source { .. } => "upstream: Source".to_string(),
                Mode::Fails { how, .. } => format!("upstream: {how:?}"),
                mode => format!("upstream: {mode:?}"),
            });
            if self.inbox.inflated > 0 {
                net.cover("upstream: inflated".to_string());
            }
            if self.records {
                net.cover(match self.open {
                    true => "records: upstream".to_string(),
                    false => "records: upstream without a session".to_string(),
                });
            }
        }
        net.close_peer(self.link.conn, reset);
        self.done = true;
    }

    fn receive(&mut self, net: &mut Net, me: ActorId) {
        let mut plain = Vec::new();
        let end = self.link.receive(net, me, &mut plain);
        if self.open {
            self.inbox.push(&plain);
            while let Some(item) = self.inbox.next() {
                self.item(net, item);
                if self.frozen {
                    return net.wake_at(me, net.now);
                }
                if self.done {
                    return;
                }
            }
        } else if !self.failed {
            self.head.append(&mut plain);
            self.read_request(net, me);
        }
        if let Some(end) = end {
            self.judge_end(end);
            self.leave(net, false);
        }
    }

    /// A stream that ends inside of a frame was cut off: then the gateway has to reset, or the upstream cannot tell.
    fn judge_end(&self, end: End) {
        if end == End::Eof
            && self.open
            && self.inbox.is_inside_frame()
            && self.excuse.is_none()
            && !self.failed
        {
            self.fail("a FIN inside of a frame");
        }
    }
}

impl Actor for Upstream {
    fn poke(&mut self, net: &mut Net, me: ActorId) {
        if self.frozen {
            // Only the end of its connection ends it.
            if net.conns[self.link.conn].gate.is_closed() {
                self.leave(net, true);
            } else if self.look_again <= net.now {
                self.look_again = net.now + SECONDS;
                net.wake_at(me, self.look_again);
            }
            return;
        }
        self.receive(net, me);
        if self.done {
            return;
        }
        if let Some(time) = self.answer_at
            && time <= net.now
            && !self.open
            && !self.failed
        {
            self.answer(net);
            if self.frozen {
                net.wake_at(me, net.now);
            }
        }
        if !self.done {
            self.link.flush(net, me);
        }
    }

    fn excuse(&mut self, why: Excuse) {
        self.excuse.get_or_insert(why);
        match self.client {
            Some(client) => self.facts.excuse(client, Excuse::Upstream),
            None => self.facts.route_failed(self.route),
        }
        if !self.open {
            self.facts.route_failed(self.route);
        }
    }

    fn is_done(&self) -> bool {
        self.done
    }

    fn describe(&self) -> String {
        format!(
            "upstream of {} for client {:?} {:?} open {} received {} close sent {} got {}, excused {:?}",
            self.facts.routes[self.route].prefix,
            self.client,
            self.mode,
            self.open,
            self.received,
            self.close_sent,
            self.close_got,
            self.excuse,
        )
    }
}
