//! One session: what it sends, what it awaits, how it ends. No socket, no clock: bytes and times come in.
//!
//! ```text
//!  Connecting ─► Handshake ─► Open ─► Closing ─► Ended
//!       └────────────┴──────────┴────────────────► Ended
//! ```
//!
//! Methods: getters; `handle_*` for what happened; commands; `poll_transmit` for what is to be sent. The latter
//! changes nothing: [`Session::handle_sent`] tells how much of it the kernel took, and where a frame was cut it is made
//! again from there. So no bytes are kept for sending, however little the server reads.

mod deflated;

use tidegate_wire::{
    HeadLimits, Limits, Role,
    close::{CloseCode, CloseFrame},
    deflate::{Codecs, Compression},
    extension::DeflateOffer,
    frame::ControlFrame,
    handshake::{Offer, verify_response},
    http::{BadResponse, HeadScanner, ResponseHead, Scan},
    message::{Cursor, DecodeContext, Decoder, Event, Kind, Spares},
};

use crate::{
    fanout::{Fan, FanRules, Seat},
    fault::Fault,
    payload::{Answer, Message, Payloads, Wrong},
    random::mix,
    sequence::{Receipt, Sequence},
    tally::{Tally, Window},
    transport::SEALED_BYTES,
};

/// What a session may send now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Traffic {
    /// No new message.
    Off,
    /// So many under way at once.
    Closed { depth: u32 },
    /// What is owed: message `n` is due `n` intervals after the first.
    Open { interval_ns: f64 },
    /// What is owed, as a trace has it.
    Replay,
}

impl Traffic {
    /// Whether the clock decides when messages are due.
    #[inline]
    fn is_open_loop(self) -> bool {
        match self {
            Self::Open { .. } | Self::Replay => true,
            Self::Off | Self::Closed { .. } => false,
        }
    }
}

/// What all sessions of a thread go by.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) payloads: Payloads,
    pub(crate) limits: Limits,
    pub(crate) subprotocols: Vec<String>,
    /// What is offered of permessage-deflate.
    pub(crate) offer: Option<DeflateOffer>,
    pub(crate) timeout_ns: u64,
    pub(crate) close_timeout_ns: u64,
    /// The code of an orderly end.
    pub(crate) close_code: CloseCode,
    /// Whether what comes is judged as echoes.
    pub(crate) judges: bool,
    /// Messages after which a session closes.
    pub(crate) messages: Option<u32>,
    /// Places for the times of messages that do not tell them.
    pub(crate) stamps: usize,
    /// In `fanout`.
    pub(crate) fanout: Option<FanRules>,
}

/// Where sessions write what others keep for them: their memory is used again and again.
#[derive(Default)]
pub(crate) struct Staging {
    frames: Vec<u8>,
    payload: Vec<u8>,
    deflated: Vec<u8>,
}

/// What a session works with.
pub(crate) struct Context<'a> {
    pub(crate) rules: &'a Rules,
    pub(crate) traffic: Traffic,
    pub(crate) window: Window,
    pub(crate) now_ns: u64,
    pub(crate) tally: &'a mut Tally,
    pub(crate) codecs: &'a mut Codecs,
    pub(crate) spares: &'a mut Spares,
    /// In `fanout`.
    pub(crate) fan: Option<&'a mut Fan>,
}

impl Context<'_> {
    /// How late a message of an open loop was handed to the kernel. Until `blocked_ns` the server held its session up:
    /// what was due by then did not wait for this program.
    #[inline]
    pub(crate) fn record_lag(&mut self, due_ns: u64, sent_ns: u64, blocked_ns: u64) {
        if due_ns >= blocked_ns && self.window.contains(due_ns) {
            self.tally.lag.record(sent_ns.saturating_sub(due_ns));
        }
    }
}

/// Where a session stands, for whoever counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Not up yet.
    Pending,
    Open,
    Closing,
    Ended,
}

enum State {
    Connecting,
    Handshake(Box<Handshake>),
    Open,
    /// A Close is sent, or about to be. `answered`: the server's has come, and its FIN is awaited.
    Closing {
        answered: bool,
    },
    Ended,
}

struct Handshake {
    key: [u8; 16],
    request: Vec<u8>,
    /// Bytes of it that the kernel took.
    sent: usize,
    scanner: HeadScanner,
    /// The answer so far, unless it came at once.
    head: Vec<u8>,
}

/// A control frame that is to be sent.
struct Control {
    frame: ControlFrame,
    /// Bytes of it that the kernel took.
    sent: usize,
}

/// One session.
pub(crate) struct Session {
    state: State,
    /// Its name in its messages.
    serial: u32,
    /// It does not read: nothing that it sends is awaited.
    is_slow: bool,
    /// Bytes that the kernel took of message `next`'s frame.
    cut: u32,
    /// Messages that are due and not sent; only in an open loop.
    owed: u32,
    /// Messages that it may still send.
    quota: u32,
    /// The number of the message to be sent next.
    next: u64,
    /// The answers that came: the one awaited next is at most `next`.
    answers: Sequence,
    /// When the message that was cut was due.
    cut_due_ns: u64,
    /// When message 0 is due; only in an open loop.
    first_due_ns: u64,
    /// When it was due itself.
    begun_ns: u64,
    /// Since when nothing of what is awaited came.
    progress_ns: u64,
    /// Until when its sends were held up by the server.
    blocked_ns: u64,
    decoder: Decoder,
    /// Its side of permessage-deflate, where that was agreed on: then frames are not made again, but kept by others.
    compression: Option<Compression>,
    pong: Option<Box<Control>>,
    close: Option<Box<Control>>,
    /// When messages were due that do not tell it, by their number modulo the length.
    stamps: Box<[u64]>,
    /// In `fanout`: what it publishes, and whom it hears.
    seat: Option<Box<Seat>>,
}

impl Session {
    /// A session that is connecting. `begun_ns`: when that was due.
    pub(crate) fn new(serial: u32, begun_ns: u64, now_ns: u64, rules: &Rules) -> Self {
        Self {
            state: State::Connecting,
            serial,
            is_slow: false,
            cut: 0,
            owed: 0,
            quota: rules.messages.unwrap_or(u32::MAX),
            next: 0,
            answers: Sequence::default(),
            cut_due_ns: 0,
            first_due_ns: 0,
            begun_ns,
            progress_ns: now_ns,
            blocked_ns: 0,
            decoder: Decoder::new(Role::Client),
            compression: None,
            pong: None,
            close: None,
            stamps: Box::default(),
            seat: None,
        }
    }

    /// Takes part in the fan-out.
    pub(crate) fn sit(&mut self, seat: Seat) {
        self.seat = Some(Box::new(seat));
    }

    pub(crate) fn seat(&self) -> Option<&Seat> {
        self.seat.as_deref()
    }

    /// Does something with its part in the fan-out, where it has one and is up; whether that was so.
    pub(crate) fn with_seat(&mut self, now_ns: u64, action: impl FnOnce(&mut Seat)) -> bool {
        let (State::Open, Some(seat)) = (&self.state, &mut self.seat) else { return false };
        if !seat.is_busy() {
            self.progress_ns = now_ns;
        }
        action(seat);
        true
    }

    pub(crate) fn serial(&self) -> u32 {
        self.serial
    }

    pub(crate) fn is_slow(&self) -> bool {
        self.is_slow
    }

    pub(crate) fn stage(&self) -> Stage {
        match self.state {
            State::Connecting | State::Handshake(_) => Stage::Pending,
            State::Open if self.seat().is_some_and(Seat::awaits_subscription) => Stage::Pending,
            State::Open => Stage::Open,
            State::Closing { .. } => Stage::Closing,
            State::Ended => Stage::Ended,
        }
    }

    /// Whether an answer or a send is awaited.
    pub(crate) fn is_busy(&self) -> bool {
        match self.state {
            State::Open if self.seat.is_some() => self.seat().is_some_and(Seat::is_busy),
            State::Open => !self.is_slow && (self.awaited() > 0 || self.owed > 0 || self.cut > 0),
            State::Connecting | State::Handshake(_) | State::Closing { .. } => true,
            State::Ended => false,
        }
    }

    /// Whether it has waited for longer than it may.
    pub(crate) fn is_overdue(&self, now_ns: u64, rules: &Rules) -> bool {
        let waited_ns = now_ns.saturating_sub(self.progress_ns);
        match self.state {
            State::Connecting | State::Handshake(_) => waited_ns > rules.timeout_ns,
            State::Open => waited_ns > rules.timeout_ns && self.is_busy(),
            State::Closing { .. } => waited_ns > rules.close_timeout_ns,
            State::Ended => false,
        }
    }

    /// Whether [`Session::poll_transmit`] would give anything.
    #[inline]
    pub(crate) fn wants_to_send(&self, traffic: Traffic) -> bool {
        match &self.state {
            State::Connecting | State::Ended => false,
            State::Handshake(handshake) => handshake.sent < handshake.request.len(),
            State::Open => {
                let has_more = self.seat().is_some_and(|seat| !seat.outgoing().is_empty());
                self.cut > 0 || self.pong.is_some() || has_more || self.allowed(traffic) > 0
            }
            State::Closing { .. } => {
                let is_cut = self.seat().is_some_and(Seat::is_cut);
                self.cut > 0 || self.pong.is_some() || is_cut || self.close.is_some()
            }
        }
    }

    /// The connection is made: `request` goes out, with this key in it.
    pub(crate) fn handle_connected(&mut self, request: Vec<u8>, key: [u8; 16]) {
        let scanner = HeadScanner::for_response();
        self.state =
            State::Handshake(Box::new(Handshake { key, request, sent: 0, scanner, head: Vec::new() }));
    }

    /// What it stands on cannot be: the connection could not be made, or TLS failed.
    pub(crate) fn fail(&mut self, fault: Fault, cx: &mut Context<'_>) {
        self.end(Some(fault), cx);
    }

    /// Bytes came.
    pub(crate) fn handle_bytes(&mut self, bytes: &mut [u8], cx: &mut Context<'_>) {
        match &mut self.state {
            State::Open | State::Closing { .. } if !self.is_slow => self.read(bytes, cx),
            State::Handshake(_) => {
                if let Some(end) = self.read_head(bytes, cx) {
                    self.read(&mut bytes[end..], cx);
                }
            }
            State::Connecting | State::Open | State::Closing { .. } | State::Ended => {}
        }
    }

    /// No more bytes will come.
    pub(crate) fn handle_eof(&mut self, cx: &mut Context<'_>) {
        let fault = match self.state {
            State::Connecting | State::Handshake(_) => Some(Fault::HandshakeClosed),
            State::Open => Some(Fault::Eof),
            State::Closing { answered: false } => Some(Fault::CloseCut),
            State::Closing { answered: true } | State::Ended => None,
        };
        self.end(fault, cx);
    }

    /// The connection is broken.
    pub(crate) fn handle_broken(&mut self, cx: &mut Context<'_>) {
        let fault = match self.state {
            State::Connecting | State::Handshake(_) => Some(Fault::HandshakeClosed),
            State::Open => Some(Fault::Reset),
            State::Closing { answered: false } => Some(Fault::CloseCut),
            State::Closing { answered: true } | State::Ended => None,
        };
        self.end(fault, cx);
    }

    /// It [is overdue](Session::is_overdue).
    pub(crate) fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        let fault = match self.state {
            State::Connecting => Some(Fault::ConnectTimeout),
            State::Handshake(_) => Some(Fault::HandshakeTimeout),
            State::Open => Some(Fault::Stalled),
            State::Closing { answered: false } => Some(Fault::CloseTimeout),
            State::Closing { answered: true } | State::Ended => None,
        };
        self.end(fault, cx);
    }

    /// The server takes bytes again.
    pub(crate) fn handle_writable(&mut self, now_ns: u64) {
        self.blocked_ns = now_ns;
    }

    /// The kernel took the first `count` bytes of what [`Session::poll_transmit`] gave at `sent_ns`.
    pub(crate) fn handle_sent(&mut self, count: usize, sent_ns: u64, cx: &mut Context<'_>) {
        let mut left = count;
        match &mut self.state {
            State::Handshake(handshake) => {
                handshake.sent += left;
                return;
            }
            State::Connecting | State::Ended => return,
            State::Open | State::Closing { .. } => {}
        }
        if self.cut > 0 {
            let rest = cx.rules.payloads.frame_len(self.serial, self.next) - self.cut as usize;
            if left < rest {
                // A frame has less than 4 GiB.
                self.cut += left as u32;
                return;
            }
            left -= rest;
            self.cut = 0;
            self.message_sent(self.cut_due_ns, sent_ns, cx);
        }
        if let Some(seat) = &mut self.seat {
            if count > 0 {
                self.progress_ns = sent_ns;
            }
            if seat.is_cut() {
                left = seat.handle_sent(left, sent_ns, self.blocked_ns, cx);
            }
        }
        for control in [&mut self.pong, &mut self.close] {
            if let Some(frame) = control {
                let rest = frame.frame.len() - frame.sent;
                if left < rest {
                    frame.sent += left;
                    return;
                }
                left -= rest;
                *control = None;
            }
        }
        if let Some(seat) = &mut self.seat {
            seat.handle_sent(left, sent_ns, self.blocked_ns, cx);
            return;
        }
        while left > 0 {
            let len = cx.rules.payloads.frame_len(self.serial, self.next);
            let due_ns = due_ns(self.first_due_ns, self.serial, self.next, sent_ns, cx.traffic, cx.rules);
            if left < len {
                (self.cut, self.cut_due_ns) = (left as u32, due_ns);
                return;
            }
            left -= len;
            self.message_sent(due_ns, sent_ns, cx);
        }
    }

    /// The time of messages begins. In an open loop, the first one is due at `first_due_ns`.
    pub(crate) fn begin(&mut self, first_due_ns: u64, now_ns: u64) {
        self.first_due_ns = first_due_ns;
        self.progress_ns = now_ns;
    }

    /// It reads no more, and sends at most so many messages.
    pub(crate) fn stop_reading(&mut self, messages: u32) {
        self.is_slow = true;
        self.quota = messages;
    }

    /// One more message is due; whether there is still somebody to send it, or to count that it was not sent.
    #[inline]
    pub(crate) fn owe(&mut self, now_ns: u64) -> bool {
        if matches!(self.state, State::Ended) {
            return self.is_slow;
        }
        if self.owed == 0 && self.awaited() == 0 {
            self.progress_ns = now_ns;
        }
        self.owed = self.owed.saturating_add(1);
        true
    }

    /// Ends it in order where it is up, and at once where it is not or does not read.
    pub(crate) fn close(&mut self, cx: &mut Context<'_>) {
        match self.state {
            State::Open if self.is_slow => self.end(None, cx),
            State::Open => self.send_close(Some(cx.rules.close_code), false, cx),
            State::Connecting | State::Handshake(_) => self.end(None, cx),
            State::Closing { .. } | State::Ended => {}
        }
    }

    /// Ends it at once, which is nobody's fault.
    pub(crate) fn cut(&mut self, cx: &mut Context<'_>) {
        self.end(None, cx);
    }

    /// Writes what is to be sent now, as much as fits, and returns how much that is.
    #[must_use]
    pub(crate) fn poll_transmit(
        &self,
        out: &mut [u8],
        traffic: Traffic,
        now_ns: u64,
        rules: &Rules,
    ) -> usize {
        match &self.state {
            State::Connecting | State::Ended => 0,
            State::Handshake(handshake) => put(out, &handshake.request[handshake.sent..]),
            State::Open | State::Closing { .. } => self.put_frames(out, traffic, now_ns, rules),
        }
    }

    /// Writes what is to be sent now, up to [`SEALED_BYTES`], and takes it as sent: whoever calls keeps it until it is.
    pub(crate) fn transmit<'s>(
        &mut self,
        staging: &'s mut Staging,
        now_ns: u64,
        cx: &mut Context<'_>,
    ) -> &'s [u8] {
        if self.compression.is_some() {
            self.write_deflated(staging, now_ns, cx);
            return &staging.frames;
        }
        let out = &mut staging.frames;
        out.resize(SEALED_BYTES, 0);
        let count = self.poll_transmit(out, cx.traffic, now_ns, cx.rules);
        self.handle_sent(count, now_ns, cx);
        &out[..count]
    }

    fn put_frames(&self, out: &mut [u8], traffic: Traffic, now_ns: u64, rules: &Rules) -> usize {
        let mut used = 0;
        let mut number = self.next;
        if self.cut > 0 {
            let message = Message { serial: self.serial, number, due_ns: self.cut_due_ns };
            used = rules.payloads.write(out, &message, self.cut as usize);
            if self.cut as usize + used < rules.payloads.frame_len(self.serial, number) {
                return used;
            }
            number += 1;
        }
        let mut waiting = self.seat().map_or(&[][..], Seat::outgoing);
        if self.seat().is_some_and(Seat::is_cut) {
            used = put(out, waiting);
            if used < waiting.len() {
                return used;
            }
            waiting = &[];
        }
        for control in [&self.pong, &self.close].into_iter().flatten() {
            let rest = &control.frame[control.sent..];
            let count = put(&mut out[used..], rest);
            used += count;
            if count < rest.len() {
                return used;
            }
        }
        if matches!(self.state, State::Closing { .. }) {
            return used;
        }
        used += put(&mut out[used..], waiting);
        for _ in 0..self.allowed(traffic) {
            if used == out.len() {
                break;
            }
            let due_ns = due_ns(self.first_due_ns, self.serial, number, now_ns, traffic, rules);
            let message = Message { serial: self.serial, number, due_ns };
            used += rules.payloads.write(&mut out[used..], &message, 0);
            number += 1;
        }
        used
    }

    /// Messages that were sent and are not known to be answered or passed over.
    fn awaited(&self) -> u64 {
        self.next - self.answers.next()
    }

    /// Messages that it may begin to send now.
    #[inline]
    fn allowed(&self, traffic: Traffic) -> u32 {
        let begun = u32::from(self.cut > 0);
        let allowed = match traffic {
            Traffic::Off => 0,
            Traffic::Closed { .. } if self.is_slow => u32::MAX,
            Traffic::Closed { depth } => {
                depth.saturating_sub(u32::try_from(self.awaited()).unwrap_or(u32::MAX)).saturating_sub(begun)
            }
            Traffic::Open { .. } | Traffic::Replay => self.owed.saturating_sub(begun),
        };
        allowed.min(self.quota.saturating_sub(begun))
    }

    #[inline]
    fn message_sent(&mut self, due_ns: u64, sent_ns: u64, cx: &mut Context<'_>) {
        if cx.traffic.is_open_loop() {
            cx.record_lag(due_ns, sent_ns, self.blocked_ns);
        } else {
            self.stamp(due_ns, cx.rules);
            if self.awaited() == 0 {
                self.progress_ns = sent_ns;
            }
        }
        self.owed = self.owed.saturating_sub(1);
        if self.quota != u32::MAX {
            self.quota -= 1;
        }
        self.next += 1;
        if self.is_slow {
            self.answers.pass(self.next);
        }
    }

    fn stamp(&mut self, due_ns: u64, rules: &Rules) {
        if rules.stamps == 0 {
            return;
        }
        if self.stamps.is_empty() {
            self.stamps = vec![0; rules.stamps].into();
        }
        let place = (self.next % self.stamps.len() as u64) as usize;
        self.stamps[place] = due_ns;
    }

    /// Reads the answer to the upgrade; where it is whole and good, tells where in `bytes` it ended.
    fn read_head(&mut self, bytes: &[u8], cx: &mut Context<'_>) -> Option<usize> {
        let State::Handshake(handshake) = &mut self.state else { return None };
        let before = handshake.head.len();
        if before > 0 {
            handshake.head.extend_from_slice(bytes);
        }
        let limits = HeadLimits::default();
        let whole = if before > 0 { &*handshake.head } else { bytes };
        let verdict = match handshake.scanner.scan(whole, &limits) {
            Ok(Scan::Partial) => {
                if before == 0 {
                    handshake.head.extend_from_slice(bytes);
                }
                return None;
            }
            Ok(Scan::Complete(end)) => ResponseHead::parse(&whole[..end], &limits).and_then(|head| {
                let offered: Vec<&str> = cx.rules.subprotocols.iter().map(String::as_str).collect();
                let offer = cx.rules.offer.as_ref().map_or(Offer::None, Offer::Deflate);
                let agreed = verify_response(&head, &handshake.key, &offered, offer)?;
                Ok((end, agreed.extension))
            }),
            Err(refusal) => Err(refusal.into()),
        };
        match verdict {
            Ok((end, extension)) => {
                self.state = State::Open;
                self.agree(extension, cx);
                self.progress_ns = cx.now_ns;
                let is_measured = cx.window.contains(self.begun_ns);
                cx.tally.counts.opened += 1;
                cx.tally.counts.opened_in_window += u64::from(is_measured);
                if is_measured || cx.rules.messages.is_none() {
                    cx.tally.handshake.record(cx.now_ns.saturating_sub(self.begun_ns));
                }
                self.close_after_last(cx);
                if let Some(seat) = &mut self.seat {
                    seat.handle_up(cx);
                }
                Some(end - before)
            }
            Err(BadResponse::Status(status)) => {
                *cx.tally.counts.statuses.entry(status).or_default() += 1;
                self.end(Some(Fault::Refused), cx);
                None
            }
            Err(_) => {
                self.end(Some(Fault::HandshakeInvalid), cx);
                None
            }
        }
    }

    fn read(&mut self, bytes: &mut [u8], cx: &mut Context<'_>) {
        if self.compression.is_some() {
            cx.tally.counts.deflate.received_wire_bytes += bytes.len() as u64;
        }
        let mut cursor = Cursor::default();
        loop {
            let mut decoding = DecodeContext {
                limits: &cx.rules.limits,
                compression: self.compression.as_mut(),
                codecs: &mut *cx.codecs,
                spares: &mut *cx.spares,
            };
            match self.decoder.next(bytes, &mut cursor, &mut decoding) {
                Ok(Some(Event::Message { kind, payload, .. })) => {
                    self.message(kind, payload.bytes(bytes), cx);
                    if let tidegate_wire::message::Payload::Owned(owned) = payload {
                        cx.spares.give(owned.buffer);
                    }
                }
                Ok(Some(Event::Ping(payload))) => {
                    cx.tally.counts.pings += 1;
                    // RFC 6455 §5.5.3: of several pings the last one may be answered alone, but a frame that
                    // was begun is finished.
                    if self.pong.as_ref().is_none_or(|pong| pong.sent == 0) {
                        let frame = ControlFrame::pong(&payload, Some(self.mask()));
                        self.pong = Some(Box::new(Control { frame, sent: 0 }));
                    }
                }
                Ok(Some(Event::Pong(_))) => {}
                Ok(Some(Event::Close(close))) => self.closed_by_peer(&close, cx),
                Ok(None) => return,
                Err(_) => {
                    self.end(Some(Fault::Garbage), cx);
                    return;
                }
            }
        }
    }

    /// A message came.
    #[inline]
    fn message(&mut self, kind: Kind, payload: &[u8], cx: &mut Context<'_>) {
        if let Some(seat) = &mut self.seat {
            seat.handle_message(kind, payload, cx);
            return;
        }
        let counts = &mut cx.tally.counts;
        counts.received += 1;
        if self.compression.is_some() {
            counts.deflate.received_payload_bytes += payload.len() as u64;
        }
        if !cx.rules.judges {
            return;
        }
        let payloads = &cx.rules.payloads;
        let answer = payloads.read(self.serial, self.answers.next(), kind, payload);
        let is_wrong_kind = if payloads.is_mixed() {
            answer.is_ok_and(|answer| payloads.kind_of(self.serial, answer.number) != kind)
        } else {
            self.awaited() > 0 && payloads.kind() != kind
        };
        if is_wrong_kind {
            cx.tally.fault(Fault::WrongKind);
        }
        match answer {
            Ok(answer) if answer.number < self.next => {
                let is_first = self.take(answer.number, cx);
                if is_first && !is_wrong_kind {
                    self.accept(answer, payload.len(), cx);
                }
            }
            Err(Wrong::Misdelivered) => cx.tally.fault(Fault::Misdelivered),
            Ok(_) | Err(Wrong::Corrupt(_)) if self.awaited() == 0 => cx.tally.fault(Fault::Unexpected),
            // Which one it was meant to be cannot be known unless its number is sure.
            Ok(_) | Err(Wrong::Corrupt(None)) => {
                cx.tally.fault(Fault::Corrupt);
                self.take(self.answers.next(), cx);
            }
            Err(Wrong::Corrupt(Some(number))) => {
                cx.tally.fault(Fault::Corrupt);
                if (self.answers.next()..self.next).contains(&number) {
                    self.take(number, cx);
                }
            }
        }
        self.close_after_last(cx);
    }

    /// Counts an answer that is what it must be and had not come before, and takes its time.
    #[inline]
    fn accept(&mut self, Answer { number, due_ns: told_ns }: Answer, bytes: usize, cx: &mut Context<'_>) {
        if cx.window.contains(cx.now_ns) {
            cx.tally.counts.in_window += 1;
            cx.tally.counts.bytes_in_window += bytes as u64;
        }
        let due_ns = match (told_ns, cx.traffic) {
            (Some(due_ns), _) => due_ns,
            (None, Traffic::Open { .. } | Traffic::Replay) => {
                due_ns(self.first_due_ns, self.serial, number, 0, cx.traffic, cx.rules)
            }
            (None, Traffic::Off | Traffic::Closed { .. }) => {
                let places = self.stamps.len() as u64;
                // Of one that is further behind the place is another's by now.
                if self.next - number > places {
                    return;
                }
                self.stamps[(number % places) as usize]
            }
        };
        if cx.window.contains(due_ns) {
            cx.tally.counts.answered += 1;
            cx.tally.latency.record(cx.now_ns.saturating_sub(due_ns));
        }
    }

    /// Message `number` is answered; whether it was not before.
    #[inline]
    fn take(&mut self, number: u64, cx: &mut Context<'_>) -> bool {
        match self.answers.take(number) {
            Receipt::First { lost } => {
                if lost > 0 {
                    cx.tally.counts.faults.add(Fault::Lost, lost);
                }
                self.progress_ns = cx.now_ns;
                true
            }
            Receipt::Late => {
                cx.tally.fault(Fault::Reordered);
                true
            }
            Receipt::Again => {
                cx.tally.fault(Fault::Duplicate);
                false
            }
        }
    }

    /// Closes a session that has sent its messages and has its answers.
    #[inline]
    fn close_after_last(&mut self, cx: &mut Context<'_>) {
        if self.quota == 0 && self.awaited() == 0 && self.cut == 0 && !self.is_slow {
            self.close(cx);
        }
    }

    fn closed_by_peer(&mut self, close: &CloseFrame, cx: &mut Context<'_>) {
        if let State::Closing { .. } = self.state {
            self.state = State::Closing { answered: true };
            cx.tally.counts.closed += 1;
            cx.tally.counts.closed_in_window += u64::from(cx.window.contains(cx.now_ns));
        } else {
            // RFC 6455 §7.1.5: 1005 stands for none.
            *cx.tally.counts.close_codes.entry(close.code.map_or(1005, u16::from)).or_default() += 1;
            cx.tally.fault(Fault::Closed);
            cx.tally.counts.lost += u64::from(self.stage() == Stage::Open);
            self.send_close(close.code, true, cx);
        }
        self.progress_ns = cx.now_ns;
    }

    fn send_close(&mut self, code: Option<CloseCode>, answered: bool, cx: &mut Context<'_>) {
        let frame = ControlFrame::close(code, "", Some(self.mask()));
        self.close = Some(Box::new(Control { frame, sent: 0 }));
        self.state = State::Closing { answered };
        self.progress_ns = cx.now_ns;
    }

    fn end(&mut self, fault: Option<Fault>, cx: &mut Context<'_>) {
        if matches!(self.state, State::Ended) {
            return;
        }
        let was_open = self.stage() == Stage::Open;
        self.state = State::Ended;
        self.decoder.abandon(cx.codecs);
        if let Some(compression) = self.compression.take() {
            compression.release(cx.codecs);
        }
        if self.is_slow {
            cx.tally.counts.slow_ended += u64::from(fault.is_some());
            return;
        }
        if let Some(fault) = fault {
            cx.tally.fault(fault);
            cx.tally.counts.lost += u64::from(was_open);
        }
        if let Some(mut seat) = self.seat.take() {
            cx.tally.counts.faults.add(Fault::Unsent, seat.unsent());
            seat.handle_end(cx);
        }
        let faults = &mut cx.tally.counts.faults;
        faults.add(Fault::Lost, u64::from(self.answers.missing()));
        faults.add(Fault::Unanswered, self.awaited());
        faults.add(Fault::Unsent, u64::from(self.owed));
    }

    /// A key for a control frame.
    fn mask(&self) -> [u8; 4] {
        (mix(self.progress_ns ^ u64::from(self.serial) << 32) as u32).to_le_bytes()
    }
}

/// When message `number` is due; in a closed loop that is when it is sent.
#[inline]
fn due_ns(first_due_ns: u64, serial: u32, number: u64, sent_ns: u64, traffic: Traffic, rules: &Rules) -> u64 {
    match traffic {
        Traffic::Open { interval_ns } => first_due_ns + (number as f64 * interval_ns) as u64,
        Traffic::Replay => first_due_ns + rules.payloads.due_ns(serial, number),
        Traffic::Off | Traffic::Closed { .. } => sent_ns,
    }
}

/// Writes as much of `bytes` as fits, and returns how much that is.
fn put(out: &mut [u8], bytes: &[u8]) -> usize {
    let count = bytes.len().min(out.len());
    out[..count].copy_from_slice(&bytes[..count]);
    count
}

#[cfg(test)]
mod tests;
