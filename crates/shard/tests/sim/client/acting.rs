//! What a client does in its session: messages, control frames, faults, and silence.

use super::{
    super::{
        codec::{self, BINARY, CLOSE, CONTINUATION, First, PING, PONG, TEXT},
        facts::{Deflate, Promise},
        net::{ActorId, Net, SECONDS},
        script::{Act, SILENCE, Violation},
    },
    BAD_TEXT, CRAWL, Client, Phase, SLACK,
};

impl Client {
    pub(super) fn mask(&mut self) -> Option<[u8; 4]> {
        let mut mask = [0; 4];
        if self.random.below(16) > 0 {
            self.random.fill(&mut mask);
        }
        Some(mask)
    }

    pub(super) fn control(&mut self, opcode: u8, payload: &[u8]) {
        let mut bytes = Vec::new();
        let mask = self.mask();
        codec::frame(&mut bytes, First::whole(opcode), payload, mask);
        self.send(&bytes);
    }

    pub(super) fn ping(&mut self, len: usize) {
        let mut payload = vec![0; len];
        self.random.fill(&mut payload);
        // Two alike could not be told apart: of several pings only the last must be answered.
        if self.pings.contains(&payload) {
            payload = self.pinged.to_be_bytes().to_vec();
        }
        self.pinged += 1;
        self.facts.note_ping(self.id);
        self.control(PING, &payload);
        self.pings.push_back(payload);
    }

    pub(super) fn send_close(&mut self, code: Option<u16>) {
        let payload = codec::close_payload(code, if code.is_some() { "bye" } else { "" });
        self.control(CLOSE, &payload);
        self.close_sent = Some(code);
        self.closed_first = self.close_got.is_none();
    }

    /// Goes on with the script as far as it can.
    pub(super) fn act_on(&mut self, net: &mut Net, me: ActorId) {
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

    pub(super) fn act(&mut self, net: &mut Net, me: ActorId, act: Act) {
        match act {
            Act::Pause(time) => {
                self.pause = net.now + time;
                net.wake_at(me, self.pause);
            }
            Act::Message { opcode, len, frames, ping_between } => {
                self.spoke = net.now;
                // Where messages may be dropped it does not wait for them all.
                let alone = self.modest && self.expected.is_empty();
                self.asks_from = alone.then(|| net.conns[self.conn()].asked.written);
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
                if self.facts.routes[self.route].any_text && self.id.is_multiple_of(2) {
                    // What is seldom else: half of the violations where it is another's to find them.
                    violation = Violation::BadText;
                }
                self.last = Some(Act::Violate(violation));
                // It is for its upstream to end the session then.
                self.violated = (!self.is_upstreams(violation)).then_some(violation);
                self.violate(violation);
            }
            Act::HalfClose => {
                self.last = Some(act);
                self.link().finish();
            }
            Act::Vanish { reset } => {
                net.close_peer(self.conn(), reset);
                // One whose reader is paused is missed when its upstream takes something again, or is given up.
                let terms = &self.facts.terms;
                self.gone(net.now + terms.write_timeout + terms.close_timeout + SLACK);
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
                self.insist_on_silence();
            }
        }
    }

    /// Its question is whole with the network.
    pub(super) fn note_question(&mut self, net: &mut Net) {
        let conn = self.conn();
        if self.link().is_flushed()
            && let Some(from) = self.asks_from.take()
            // What is asked behind the Close of a route that goes is not answered.
            && !self.facts.departs.get()
        {
            net.ask(conn, from, net.conns[conn].asked.written);
        }
    }

    /// From now on the gateway has to find out by itself.
    pub(super) fn go_silent(&mut self, net: &Net) {
        let terms = &self.facts.terms;
        if terms.bear_silence() {
            self.leaves = Some(net.now + SILENCE);
            return self.gone(u64::MAX / 2);
        }
        // Without pings the idle time-out must do.
        let silence = if terms.ping_interval > 0 { terms.ping_interval } else { terms.idle_timeout };
        let longest = silence
            + terms.pong_timeout
            + terms.write_timeout
            + terms.message_timeout
            + 2 * terms.close_timeout;
        self.gone(net.now + longest + 2 * SLACK);
    }

    /// Where there are no pings, a silent session that owes it nothing is kept until the idle time-out.
    fn insist_on_silence(&mut self) {
        let served = matches!(self.promise(), Promise::Echo | Promise::Proxied { .. });
        // What its upstream says by itself and it no longer reads is waited for by `write_timeout` alone.
        let told = match *self.promise() {
            Promise::Proxied { greeting } => self.from_upstream >= greeting,
            _ => true,
        };
        let settled = told && self.expected.is_empty() && self.pings.is_empty() && self.close_got.is_none();
        let terms = &self.facts.terms;
        if terms.ping_interval == 0 && served && settled {
            self.kept_until = match (self.leaves, terms.idle_timeout) {
                (Some(leaves), _) => leaves,
                // The stamps of a session are rounded.
                (None, idle) => self.spoke + idle - SECONDS,
            };
        }
    }

    /// Nobody has ended its silence: it resets its connection, which the gateway finds out at once, or when it has given
    /// up the far side that it waits for.
    pub(super) fn leave_silence(&mut self, net: &mut Net) {
        if self.kept_until > 0 && !self.is_excused() {
            net.cover("silent: kept".to_string());
        }
        self.leaves = None;
        self.kept_until = 0;
        net.close_peer(self.conn(), true);
        let terms = &self.facts.terms;
        self.gone(net.now + terms.write_timeout + 2 * terms.close_timeout + SLACK);
    }

    pub(super) fn gone(&mut self, by: u64) {
        // A leg that is not read for its slower side's sake is found out about when it is read again.
        let by = if self.facts.crawls(self.id) { by + CRAWL } else { by };
        self.phase = Phase::Gone { by };
        self.watched = 0;
    }

    pub(super) fn send_message(&mut self, opcode: u8, len: usize, frames: usize, ping_between: bool) {
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

    /// Whether its upstream, not the gateway, has to find a fault. Where the gateway compresses, it reads the texts anyhow.
    pub(super) fn is_upstreams(&self, violation: Violation) -> bool {
        let route = &self.facts.routes[self.route];
        let read = self.deflater.is_some() && route.deflate != Deflate::Ends;
        violation == Violation::BadText && route.any_text && !read
    }

    pub(super) fn violate(&mut self, violation: Violation) {
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
            Violation::BadText => codec::frame(&mut bytes, whole(TEXT), BAD_TEXT, mask),
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
}
