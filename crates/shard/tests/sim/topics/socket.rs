//! A WebSocket's client: it speaks the protocol, or knows one topic and sends and gets its messages as they are.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use tidegate_hub::{Epoch, Position, delivery::Event};

use super::{
    super::{
        codec::{self, BINARY, CLOSE, First, Head, Inbox, Item, PONG, TEXT},
        deflate::{Agreement, Deflater, Inflater, OFFERS},
        link::End,
        net::{Actor, ActorId, Excuse, MILLIS, Net, SECONDS},
    },
    judge::{Format, Publisher},
    setup::{self, MOST_PATTERNS, MOST_SUBSCRIPTIONS},
    society::{Person, Role, Society, Stage, Visit},
    told::Told,
};

mod acting;
mod hearing;

pub(super) use acting::content;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Waiting,
    Asking,
    Open,
}

/// One thing that it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Subscribe,
    Follow,
    Unsubscribe,
    Publish(u32),
    Ask,
    Ping,
    Wrong,
    /// Several commands in one message.
    Many,
    /// Waits for all answers.
    Await,
    Pause(u64),
    /// Reads nothing.
    Halt(u64),
    Close,
    Reset,
    /// A FIN without a Close.
    Vanish,
    /// Reads on until all have come to rest.
    Stay,
}

/// A subscription to a name.
#[derive(Clone, Copy, Debug)]
struct Sub {
    /// `None`: not answered yet.
    epoch: Option<Epoch>,
    watches: bool,
}

/// What waits for its answer.
#[derive(Clone, Debug)]
enum Asked {
    Subscribe {
        topic: String,
        recover: Option<Position>,
    },
    Follow(String),
    Unsubscribe(String),
    Publish {
        id: u64,
        once: Option<String>,
    },
    Presence,
    History {
        topic: String,
        before: Option<u64>,
    },
    Ping,
    /// It must be refused with this.
    Wrong(&'static str),
}

pub(crate) struct Socket {
    visit: Visit,
    phase: Phase,
    raw: Option<String>,
    offer: Option<&'static str>,
    key: String,
    head: Vec<u8>,
    inbox: Inbox,
    deflater: Option<Deflater>,
    acts: Vec<Act>,
    next_act: usize,
    pause: u64,
    greeted: bool,
    /// Its name in presence.
    client: String,
    subs: BTreeMap<String, Sub>,
    patterns: BTreeSet<String>,
    /// Subscriptions that it has asked for, or has.
    wanted: usize,
    asked: BTreeMap<u64, Asked>,
    /// Errors without an id that may come.
    loose: Vec<&'static str>,
    /// Publications without an id.
    unacknowledged: bool,
    close_sent: bool,
    close_got: Option<Option<u16>>,
    /// Its route is gone.
    refused: bool,
    /// A topic was among its subscriptions that sends slow ones away.
    may_be_slow: bool,
    /// What a raw one has got, and the number of the last of each publisher.
    got: BTreeSet<u64>,
    last: Option<u64>,
}

impl Socket {
    pub(crate) fn new(society: &Rc<Society>, mut person: Person, start: u64) -> Socket {
        let raw = (person.role == Role::Raw).then(|| person.any_topic());
        let random = &mut person.random;
        let mut nonce = [0; 16];
        random.fill(&mut nonce);
        let offer = (random.below(3) == 0).then(|| *random.pick(&OFFERS));
        let acts = acting::draw(&mut person, raw.is_some(), &society.setup);
        Socket {
            visit: Visit::new(society, person, start),
            phase: Phase::Waiting,
            raw,
            offer,
            key: codec::base64(&nonce),
            head: Vec::new(),
            inbox: Inbox::new(false),
            deflater: None,
            acts,
            next_act: 0,
            pause: 0,
            greeted: false,
            client: String::new(),
            subs: BTreeMap::new(),
            patterns: BTreeSet::new(),
            wanted: 0,
            asked: BTreeMap::new(),
            loose: Vec::new(),
            unacknowledged: false,
            close_sent: false,
            close_got: None,
            refused: false,
            may_be_slow: false,
            got: BTreeSet::new(),
            last: None,
        }
    }

    fn fail(&self, what: &str) -> ! {
        panic!("{}: {what}", self.describe());
    }

    // ---- the WebSocket

    fn request(&mut self) -> Vec<u8> {
        let path = match &self.raw {
            Some(topic) => format!("/topics/{topic}"),
            None => "/topics".to_string(),
        };
        let mut text = format!(
            "GET {path} HTTP/1.1\r\nHost: gw.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {}\r\nSec-WebSocket-Version: 13\r\n",
            self.key
        );
        if self.raw.is_none() && self.visit.random().below(2) == 0 {
            text += "Sec-WebSocket-Protocol: tidegate.v1\r\n";
        }
        if let Some(offer) = self.offer {
            text += &format!("Sec-WebSocket-Extensions: {offer}\r\n");
        }
        text += "\r\n";
        text.into_bytes()
    }

    fn read_answer(&mut self) {
        let Some(answer) = Head::read(&self.head) else { return };
        let rest = self.head.split_off(answer.len);
        let status = answer.status();
        if status != 101 {
            let drained = status == 503 && self.visit.excused.is_some();
            self.refused = status == 404 && self.visit.is_departed();
            if !drained && !self.refused {
                self.fail(&format!("an answer of {status}"));
            }
            return;
        }
        assert_eq!(answer.one("sec-websocket-accept"), Some(codec::accept_value(&self.key).as_str()));
        if let (Some(offer), Some(agreed)) = (self.offer, answer.one("sec-websocket-extensions")) {
            let agreed = Agreement::read(agreed, offer);
            assert!(!agreed.server_takeover, "{}: what all share has no context", self.describe());
            let takeover = agreed.client_takeover && !offer.contains("client_no_context_takeover");
            let narrow = offer.contains("client_max_window_bits=9");
            let bits = if narrow { agreed.client_bits.min(9) } else { agreed.client_bits };
            self.deflater = Some(Deflater::new(takeover, bits));
            self.inbox.inflate(Inflater::new(agreed.server_takeover, agreed.server_bits));
        }
        self.phase = Phase::Open;
        if let Some(topic) = self.raw.clone() {
            self.may_be_slow |= setup::disconnects(&topic);
        }
        self.inbox.push(&rest);
    }

    fn frame(&mut self, opcode: u8, payload: &[u8]) {
        let mut mask = [0; 4];
        self.visit.random().fill(&mut mask);
        let mut out = Vec::new();
        let deflates = opcode < CLOSE && self.visit.random().below(4) > 0;
        match &mut self.deflater {
            Some(deflater) if deflates => {
                let mut random = self.visit.random().fork();
                let packed = deflater.message(&mut random, payload);
                codec::frame(&mut out, First { fin: true, rsv: 4, opcode }, &packed, Some(mask));
            }
            _ => codec::frame(&mut out, First::whole(opcode), payload, Some(mask)),
        }
        self.visit.send(&out);
    }

    fn receive(&mut self, net: &mut Net, me: ActorId) {
        let (plain, end) = self.visit.receive(net, me);
        match self.phase {
            Phase::Waiting => {}
            Phase::Asking => {
                self.head.extend(plain);
                self.read_answer();
            }
            Phase::Open => self.inbox.push(&plain),
        }
        if self.phase == Phase::Open {
            while let Some(item) = self.inbox.next() {
                match item {
                    Item::Message { opcode, payload } => self.message(net, opcode, &payload),
                    Item::Ping(payload) if !self.close_sent => self.frame(PONG, &payload),
                    Item::Ping(_) | Item::Pong(_) => {}
                    Item::Close(code) => self.closed(code),
                }
            }
        }
        if let Some(end) = end {
            self.ended(net, end);
        }
    }

    fn closed(&mut self, code: Option<u16>) {
        self.close_got = Some(code);
        // Where there is no memory everybody may be too slow.
        let short = self.visit.society.is_short();
        let slow = code == Some(1013) && (self.may_be_slow || short);
        // A raw one has no other way to be told that there may be no more topics. Of a full queue it is not told: it waits.
        let refused = code == Some(1013) && self.raw.is_some() && self.visit.society.setup.few_topics;
        let departed = code == Some(1012) && self.visit.is_departed();
        if !(slow || refused || departed || self.close_sent || self.visit.excused.is_some()) {
            self.fail(&format!("a Close with {code:?}"));
        }
        if !self.close_sent {
            self.send_close();
        }
    }

    fn send_close(&mut self) {
        self.close_sent = true;
        self.next_act = self.acts.len();
        self.frame(CLOSE, &codec::close_payload(Some(1000), ""));
    }

    fn ended(&mut self, net: &mut Net, end: End) {
        let cut = self.visit.may_be_cut(net.now);
        let told = self.close_got == Some(Some(1012)) && self.visit.is_departed();
        let fit = match end {
            End::Eof => self.close_got.is_some() || self.refused || cut,
            // Its Close may have been lost with what lay before it.
            End::Reset | End::Truncated => {
                let slow = self.may_be_slow || self.visit.society.is_short();
                slow || cut || !told && (self.close_sent || self.raw.is_some())
            }
        };
        if !fit && self.visit.excused.is_none() {
            self.fail(&format!("the connection ended: {end:?}"));
        }
        let how = match self.close_got {
            Some(Some(1013)) => "sent away",
            Some(Some(1012)) => "departed",
            Some(_) => "closed",
            None => "cut",
        };
        net.cover(format!("{}: {how}", self.kind()));
        self.leave(net, false);
    }

    fn kind(&self) -> &'static str {
        match (&self.raw, &self.deflater) {
            (Some(_), None) => "raw",
            (Some(_), Some(_)) => "raw, deflating",
            (None, None) => "speaker",
            (None, Some(_)) => "speaker, deflating",
        }
    }

    fn leave(&mut self, net: &mut Net, reset: bool) {
        self.visit.observe(Event::Ended { session: self.visit.session });
        self.visit.society.raw.borrow_mut().remove(&self.visit.session);
        self.absent();
        self.visit.leave(net, reset);
    }

    /// It is present nowhere any more.
    fn absent(&self) {
        let own = self.visit.session;
        self.visit.society.presence.borrow_mut().end(own);
    }
}

impl Actor for Socket {
    fn poke(&mut self, net: &mut Net, me: ActorId) {
        if net.now < self.visit.start {
            return net.wake_at(me, self.visit.start);
        }
        if self.phase == Phase::Waiting {
            if self.visit.stage() != Stage::Busy {
                return self.leave(net, false);
            }
            self.phase = Phase::Asking;
            self.visit.dial(net, me);
            let request = self.request();
            self.visit.send(&request);
        }
        self.receive(net, me);
        if self.visit.done {
            return;
        }
        if self.phase == Phase::Open {
            self.act_on(net, me);
        }
        if self.visit.done {
            return;
        }
        self.visit.flush(net, me);
        let owed = self.phase == Phase::Asking || !self.asked.is_empty() || self.close_sent;
        if self.visit.watch(net, me, owed) {
            self.fail("no answer for too long");
        }
    }

    fn excuse(&mut self, why: Excuse) {
        self.visit.excuse(why);
    }

    fn is_done(&self) -> bool {
        self.visit.done
    }

    fn describe(&self) -> String {
        format!(
            "{} {} {:?} act {}/{} {:?}, subscribed to {:?} and {:?}, asked {:?}, close sent {} got {:?}",
            self.kind(),
            self.visit.describe(),
            self.phase,
            self.next_act,
            self.acts.len(),
            self.acts.get(self.next_act.saturating_sub(1)),
            self.subs.keys().collect::<Vec<_>>(),
            self.patterns,
            self.asked,
            self.close_sent,
            self.close_got
        )
    }
}
