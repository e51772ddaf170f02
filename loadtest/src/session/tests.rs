use std::collections::VecDeque;

use tidegate_wire::{deflate::CodecLimits, handshake::accept_key, message::Kind};

use super::*;
use crate::payload::Sizes;

const KEY: [u8; 16] = *b"the sample nonce";

fn rules(sizes: Sizes, kind: Kind, messages: Option<u32>) -> Rules {
    let payloads = Payloads::new(sizes, kind, 3);
    Rules {
        limits: Limits { message_bytes: 1 << 20, message_fragments: 16 },
        stamps: if payloads.tell_time() { 0 } else { 8 },
        payloads,
        subprotocols: Vec::new(),
        offer: None,
        timeout_ns: 1_000,
        close_timeout_ns: 100,
        close_code: CloseCode::NORMAL,
        judges: true,
        waits_for_answers: false,
        messages,
        fanout: None,
    }
}

/// A session with all that it works with, and a server that echoes what it is given.
struct Pair {
    session: Session,
    rules: Rules,
    traffic: Traffic,
    now_ns: u64,
    tally: Tally,
    codecs: Codecs,
    spares: Spares,
    /// What the session sent and the server has not looked at.
    wire: Vec<u8>,
    /// Whole answers of the server.
    answers: VecDeque<Vec<u8>>,
}

impl Pair {
    fn new(sizes: Sizes, traffic: Traffic, messages: Option<u32>) -> Self {
        Self::of(Kind::Binary, sizes, traffic, messages)
    }

    fn of(kind: Kind, sizes: Sizes, traffic: Traffic, messages: Option<u32>) -> Self {
        let rules = rules(sizes, kind, messages);
        let mut pair = Self {
            session: Session::new(5, 0, 0, &rules),
            rules,
            traffic: Traffic::Off,
            now_ns: 10,
            tally: Tally::new(),
            codecs: Codecs::new(CodecLimits::default()),
            spares: Spares::new(1 << 20),
            wire: Vec::new(),
            answers: VecDeque::new(),
        };
        pair.session.handle_connected(b"GET / HTTP/1.1\r\n\r\n".to_vec(), KEY);
        while pair.transmit(7, 5) > 0 {}
        assert_eq!(pair.wire, b"GET / HTTP/1.1\r\n\r\n");
        pair.wire.clear();
        let accept = accept_key("dGhlIHNhbXBsZSBub25jZQ==");
        let accept = str::from_utf8(&accept).unwrap();
        let head = format!(
            "HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        for piece in head.as_bytes().chunks(13) {
            pair.receive(piece);
        }
        assert_eq!(pair.session.stage(), Stage::Open);
        pair.traffic = traffic;
        pair.act(|session, cx| session.begin(1000, cx.now_ns));
        pair
    }

    fn act(&mut self, action: impl FnOnce(&mut Session, &mut Context<'_>)) {
        let mut cx = Context {
            rules: &self.rules,
            traffic: self.traffic,
            window: Window { from_ns: 0, until_ns: u64::MAX },
            now_ns: self.now_ns,
            tally: &mut self.tally,
            codecs: &mut self.codecs,
            spares: &mut self.spares,
            fan: None,
        };
        action(&mut self.session, &mut cx);
    }

    /// Lets it write into `room` bytes, of which the kernel takes `taken` at most.
    fn transmit(&mut self, room: usize, taken: usize) -> usize {
        let mut out = vec![0; room];
        let count = self.session.poll_transmit(&mut out, self.traffic, self.now_ns, &self.rules);
        assert_eq!(count > 0, self.session.wants_to_send(self.traffic));
        let taken = taken.min(count);
        let now_ns = self.now_ns;
        self.act(|session, cx| session.handle_sent(taken, now_ns, cx));
        self.wire.extend_from_slice(&out[..taken]);
        taken
    }

    fn receive(&mut self, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        self.act(|session, cx| session.handle_bytes(&mut bytes, cx));
    }

    /// The server reads what is whole.
    fn serve(&mut self) {
        loop {
            let Some((header, len)) = (match self.wire.get(1).map(|byte| byte & 0x7f) {
                None => None,
                Some(126) => {
                    self.wire.get(2..4).map(|len| (8, usize::from(u16::from_be_bytes([len[0], len[1]]))))
                }
                Some(len) => Some((6, usize::from(len))),
            }) else {
                return;
            };
            if self.wire.len() < header + len {
                return;
            }
            let frame: Vec<u8> = self.wire.drain(..header + len).collect();
            let key = &frame[header - 4..header];
            let mut answer = vec![frame[0], frame[1] & 0x7f];
            answer.extend_from_slice(&frame[2..header - 4]);
            answer.extend(frame[header..].iter().enumerate().map(|(at, byte)| byte ^ key[at % 4]));
            self.answers.push_back(answer);
        }
    }

    fn count(&self, fault: Fault) -> u64 {
        self.tally.counts.faults.count(fault)
    }
}

#[test]
fn any_cut_of_sends_and_receives_echoes_without_errors() {
    for sizes in [Sizes { min: 64, max: 64 }, Sizes { min: 0, max: 40 }, Sizes { min: 3, max: 900 }] {
        for cut in [1, 2, 7, 31, 64, 500, 5000] {
            let mut pair = Pair::new(sizes, Traffic::Closed { depth: 5 }, None);
            for round in 0..200 {
                pair.now_ns += 1;
                pair.transmit(2000, cut);
                pair.serve();
                if round % 3 == 0 {
                    let bytes: Vec<u8> = pair.answers.drain(..).flatten().collect();
                    bytes.chunks(cut).for_each(|piece| pair.receive(piece));
                }
            }
            assert_eq!(
                pair.tally.counts.faults.total(),
                0,
                "{sizes:?} {cut}: {:?}",
                pair.tally.counts.faults
            );
            assert!(pair.session.answers.next() >= u64::from(cut > 7), "{sizes:?} {cut}");
        }
    }
}

#[test]
fn a_depth_is_kept() {
    let mut pair = Pair::new(Sizes { min: 64, max: 64 }, Traffic::Closed { depth: 3 }, None);
    assert_eq!(pair.transmit(10_000, 10_000), 3 * 70);
    assert_eq!(pair.transmit(10_000, 10_000), 0);
    pair.serve();
    let answer = pair.answers.pop_front().unwrap();
    pair.receive(&answer);
    // One that was begun counts.
    assert_eq!(pair.transmit(10_000, 69), 69);
    assert_eq!(pair.transmit(10_000, 10_000), 1);
}

#[test]
fn an_open_loop_counts_from_when_a_message_was_due() {
    let traffic = Traffic::Open { interval_ns: 100.0 };
    let mut pair = Pair::new(Sizes { min: 8, max: 64 }, traffic, None);
    pair.now_ns = 5000;
    for _ in 0..3 {
        pair.act(|session, cx| assert!(session.owe(1, cx.now_ns)));
    }
    pair.transmit(1000, 1000);
    pair.serve();
    pair.now_ns = 6000;
    for answer in std::mem::take(&mut pair.answers) {
        pair.receive(&answer);
    }
    // Due at 1000, 1100 and 1200.
    assert_eq!((pair.tally.latency.count(), pair.tally.lag.count()), (3, 3));
    assert_eq!(pair.tally.latency.percentile_ns(0.0).unwrap().round() / 10.0, 480.0);
    assert!((pair.tally.latency.percentile_ns(100.0).unwrap() - 5000.0).abs() < 5.0);
}

#[test]
fn a_gap_is_lost_and_what_fills_it_is_reordered() {
    let mut pair = Pair::new(Sizes { min: 64, max: 64 }, Traffic::Closed { depth: 100 }, None);
    pair.transmit(10_000, 10_000);
    pair.serve();
    let answers: Vec<_> = pair.answers.drain(..).collect();
    for number in [0, 5, 3, 5, 3, 6] {
        pair.receive(&answers[number]);
    }
    assert_eq!(
        (pair.count(Fault::Reordered), pair.count(Fault::Duplicate), pair.count(Fault::Lost)),
        (1, 2, 0)
    );
    // 1, 2 and 4 are missing; once all that is remembered has passed they are lost.
    pair.receive(&answers[80]);
    assert_eq!(pair.count(Fault::Lost), 3 + (80 - 7) - 63);
    pair.receive(&answers[79]);
    assert_eq!(pair.count(Fault::Reordered), 2);
    pair.receive(&answers[1]);
    assert_eq!(pair.count(Fault::Duplicate), 3);
    pair.act(Session::cut);
    // Each of the hundred is accounted for: 0, 3, 5, 6, 79 and 80 were answered.
    assert_eq!(pair.count(Fault::Lost) + pair.count(Fault::Unanswered) + 6, 100);
    assert_eq!(pair.count(Fault::Unanswered), 19);
}

#[test]
fn after_its_messages_a_session_closes() {
    let mut pair = Pair::new(Sizes { min: 64, max: 64 }, Traffic::Closed { depth: 2 }, Some(3));
    for _ in 0..3 {
        pair.transmit(1000, 1000);
        pair.serve();
        for answer in std::mem::take(&mut pair.answers) {
            pair.receive(&answer);
        }
    }
    assert_eq!(pair.session.stage(), Stage::Closing);
    pair.serve();
    assert_eq!(pair.tally.counts.closed, 1, "the answer to the Close");
    pair.act(Session::handle_eof);
    assert_eq!((pair.session.stage(), pair.tally.counts.faults.total()), (Stage::Ended, 0));
    assert_eq!(pair.tally.latency.count(), 3);
}

#[test]
fn a_frame_that_was_begun_is_finished_before_a_pong_and_a_close() {
    let mut pair = Pair::new(Sizes { min: 64, max: 64 }, Traffic::Closed { depth: 1 }, None);
    pair.transmit(1000, 30);
    pair.receive(&[0x89, 2, b'h', b'i']);
    pair.act(Session::close);
    while pair.transmit(1000, 11) > 0 {}
    pair.serve();
    let opcodes: Vec<u8> = pair.answers.iter().map(|answer| answer[0] & 0x0f).collect();
    assert_eq!(opcodes, [2, 10, 8]);
    assert_eq!(pair.answers[1][2..], *b"hi");
}

#[test]
fn who_waits_for_too_long_is_overdue() {
    let mut pair = Pair::new(Sizes { min: 64, max: 64 }, Traffic::Closed { depth: 1 }, None);
    assert!(!pair.session.is_overdue(u64::MAX, &pair.rules), "nothing is awaited");
    pair.transmit(1000, 1000);
    assert!(!pair.session.is_overdue(1010, &pair.rules) && pair.session.is_overdue(1011, &pair.rules));
    pair.act(Session::handle_timeout);
    assert_eq!((pair.count(Fault::Stalled), pair.count(Fault::Unanswered)), (1, 1));
}

#[test]
fn what_is_no_good_answer_is_not_counted_as_one() {
    let text = |depth| Pair::of(Kind::Text, Sizes { min: 64, max: 64 }, Traffic::Closed { depth }, None);
    let mut pair = text(4);
    pair.transmit(10_000, 10_000);
    pair.serve();
    let mut answers: Vec<_> = pair.answers.drain(..).collect();
    pair.receive(&answers[0]);
    // Again; with another byte; as binary; of another session; and to nothing.
    pair.receive(&answers[0].clone());
    *answers[1].last_mut().unwrap() ^= 1;
    pair.receive(&answers[1].clone());
    answers[2][0] = 0x82;
    pair.receive(&answers[2].clone());
    let mut other = text(1);
    other.session.serial = 6;
    other.transmit(1000, 1000);
    other.serve();
    pair.receive(&other.answers[0].clone());
    pair.receive(&answers[3]);
    pair.receive(&[0x81, 2, b'h', b'i']);
    let faults = [Fault::Duplicate, Fault::Corrupt, Fault::WrongKind, Fault::Misdelivered, Fault::Unexpected];
    assert_eq!(faults.map(|fault| pair.count(fault)), [1; 5], "{:?}", pair.tally.counts.faults);
    let counts = &pair.tally.counts;
    // The first and the last of the four.
    assert_eq!((counts.received, counts.in_window, counts.bytes_in_window), (7, 2, 128));
    assert_eq!((counts.answered, pair.tally.latency.count()), (2, 2));
}

#[test]
fn binary_that_comes_back_as_text_is_of_the_wrong_kind_though_it_is_not_utf8() {
    for (kind, first, fault) in [
        (Kind::Binary, 0x81, Fault::WrongKind),
        (Kind::Text, 0x81, Fault::Garbage),
        (Kind::Binary, 0xc2, Fault::Garbage),
    ] {
        let mut pair = Pair::of(kind, Sizes { min: 64, max: 64 }, Traffic::Closed { depth: 1 }, None);
        pair.transmit(1000, 1000);
        pair.receive(&[&[first, 64][..], &[0xff; 64]].concat());
        assert_eq!((pair.count(fault), pair.session.stage()), (1, Stage::Ended));
        assert_eq!(pair.tally.counts.faults.total(), 2, "and what was unanswered");
        assert_eq!(pair.tally.reasons.len(), 1, "{:?}", pair.tally.reasons);
    }
}

#[test]
fn a_late_answer_has_no_time_where_that_is_another_messages_by_now() {
    let mut pair = Pair::new(Sizes { min: 8, max: 8 }, Traffic::Closed { depth: 8 }, None);
    pair.transmit(10_000, 10_000);
    pair.serve();
    let first = pair.answers.pop_front().unwrap();
    // The others are answered, and eight more go out, of which the last takes the first one's place.
    for answer in std::mem::take(&mut pair.answers) {
        pair.receive(&answer);
    }
    pair.now_ns = 1_000_000;
    pair.transmit(10_000, 10_000);
    pair.now_ns += 500;
    pair.receive(&first);
    assert_eq!((pair.count(Fault::Reordered), pair.tally.counts.in_window), (1, 8));
    assert_eq!(pair.tally.latency.count(), 7, "what is not known is not measured");
}
