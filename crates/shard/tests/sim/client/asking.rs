//! How a client asks, and what it takes for an answer.

use super::{
    super::{
        codec::{self, Head},
        deflate::{Agreement, Deflater, Inflater},
        facts::{Deflate, Promise},
        fitting::Fate,
        link::Link,
        net::{Actor, ActorId, MILLIS, Net},
        script::{Act, Asking, Mistake},
    },
    Client, Phase,
};

impl Client {
    pub(super) fn dial(&mut self, net: &mut Net, me: ActorId) {
        let conn = net.dial(me, self.listener);
        // Listener 1 is the one with records.
        let mut link = Link::new(conn, self.pace, self.listener == 1 && cfg!(feature = "record-transport"));
        let short = self.script.asking != Asking::Wrong(Mistake::LongHead);
        if short && self.random.below(3) == 0 {
            link.pace.write = (self.random.size(1..=60), self.random.range(0..=15 * MILLIS));
        }
        self.link = Some(link);
        self.phase = Phase::Asking;
        self.seen = self.facts.seen(self.route, net.now);
        if let Some(header) = &self.header {
            let bytes = header.bytes.clone();
            self.send(&bytes);
        }
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

    pub(super) fn request(&mut self) -> Vec<u8> {
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
        text += &self.asks.fields();
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

    pub(super) fn read_answer(&mut self) {
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
        // A gateway that is full says so to everybody.
        let is_told = (status == 503 && self.facts.terms.may_be_full) || self.is_excused();
        if self.is_unannounced() && !is_told {
            self.fail(&format!("an answer of {status}, though its PROXY header is wrong"));
        }
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
    pub(super) fn check_101(&self, answer: &Head) {
        let right = matches!(self.script.asking, Asking::Right) || self.page_read;
        assert!(right, "{}: accepted a wrong request", self.describe());
        // A hook's answer that came while nothing ran is read before its time-out is looked at.
        let in_time = self.asks.fate == Some(Fate::Late) && self.is_excused();
        let fits = self.unfit.is_none() || in_time;
        assert!(fits, "{}: accepted what does not fit: {:?}", self.describe(), self.asks);
        let may_open = !matches!(self.promise(), Promise::Refused(_));
        assert!(may_open, "{}: accepted though its upstream refuses", self.describe());
        let upgrade = answer.one("upgrade").map(str::to_ascii_lowercase);
        let connection = answer.one("connection").map(str::to_ascii_lowercase);
        assert_eq!(upgrade.as_deref(), Some("websocket"), "{}", self.describe());
        assert_eq!(connection.as_deref(), Some("upgrade"), "{}", self.describe());
        let accept = codec::accept_value(&self.key);
        assert_eq!(answer.one("sec-websocket-accept"), Some(accept.as_str()), "{}", self.describe());
        let subprotocol = match self.promise() {
            Promise::Echo => self.facts.routes[self.route].demands.agreed(&self.asks),
            _ => self.facts.chosen(self.id),
        };
        let answered = answer.one("sec-websocket-protocol");
        assert_eq!(answered, subprotocol, "{}: asked with {:?}", self.describe(), self.asks);
    }

    /// What the answer agrees to of what was offered.
    pub(super) fn agree(&mut self, answer: &Head) {
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

    pub(super) fn check_status(&self, status: u16) {
        let busy = self.facts.routes[self.route].demands.may_be_busy();
        let full = status == 503 && (self.facts.terms.may_be_full || busy);
        let gateway = matches!(status, 502..=504);
        let allowed: &[u16] = match (self.script.asking, self.promise()) {
            (Asking::Page, _) => &[200],
            (Asking::Wrong(mistake), _) => mistake.statuses(),
            _ if self.unfit.is_some() => self.unfit.as_slice(),
            (Asking::Right | Asking::PageFirst, Promise::Refused(statuses)) => statuses,
            // The upstream's 101 went with its connection.
            (Asking::Right | Asking::PageFirst, Promise::Breaks(_)) => &[502],
            (Asking::Right | Asking::PageFirst, _) => &[],
        };
        let asks = matches!(self.script.asking, Asking::Right | Asking::PageFirst);
        let upstream = gateway && self.facts.has_failed(self.route) && asks && self.unfit.is_none();
        // It is gone, or has gone before it could say anything.
        let departed = self.is_departed() && matches!(status, 404 | 503);
        if !(allowed.contains(&status) || departed || full || upstream || self.is_excused()) {
            self.fail(&format!("an answer of {status}, not of {allowed:?}"));
        }
    }
}
