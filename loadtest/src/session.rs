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

mod answers;
mod deflated;
mod handshake;
mod sending;

use tidegate_wire::{
    Limits, Role,
    close::{CloseCode, CloseFrame},
    deflate::{Codecs, Compression},
    extension::DeflateOffer,
    frame::ControlFrame,
    message::{Cursor, DecodeContext, Decoder, Event, Kind, Spares, Violation},
};

use self::{handshake::Handshake, sending::Control};
use crate::{
    fanout::{Fan, FanRules, Seat},
    fault::Fault,
    payload::Payloads,
    random::mix,
    sequence::Sequence,
    tally::{Tally, Window},
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
    /// Whether answers count that come after the time of messages.
    pub(crate) waits_for_answers: bool,
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
                    if matches!(self.state, State::Ended) {
                        return;
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
                Err(violation) => {
                    let fault = self.judge(violation, cx);
                    self.end(Some(fault), cx);
                    return;
                }
            }
        }
    }

    /// What it is that the server broke RFC 6455 in this way, which ends the session in any case.
    fn judge(&self, violation: Violation, cx: &mut Context<'_>) -> Fault {
        let payloads = &cx.rules.payloads;
        let awaits_binary = cx.rules.judges && self.awaited() > 0 && payloads.awaits_only(Kind::Binary);
        // Binary that comes back as text is seldom UTF-8: it is told by what the server did, not by what comes of it.
        let is_of_wrong_kind = awaits_binary && violation == Violation::TextNotUtf8;
        let fault = if is_of_wrong_kind { Fault::WrongKind } else { Fault::Garbage };
        cx.tally.give_reason(fault, violation.text().as_bytes());
        fault
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
        if self.awaited() > 0 || self.owed > 0 {
            cx.tally.counts.settled_ns = cx.tally.counts.settled_ns.max(cx.now_ns);
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

#[cfg(test)]
mod tests;
