//! Messages that are answered where they lie.
//!
//! A client's header is four bytes longer than the answer's (the mask), so the answer fits where the question lay: its
//! header goes right before the payload. Small payloads have been moved down while they were unmasked, so that the
//! answers of one buffer lie end to end: one piece, one send.

use tidegate_io::Backend;
use tidegate_registry::{Control, Key};
use tidegate_wire::{
    close::CloseCode,
    deflate::{Codecs, Compression},
    frame::{self, ControlFrame, Head, Opcode},
    message::{Cursor, DecodeContext, Event, OwnedPayload, Payload, Spares},
};

use crate::{
    environment::Environment,
    input::Place,
    meter::{Pace, TOO_FAST},
    output::{Content, Span},
    session::State,
    shard::Shard,
    stamp::Stamp,
};

/// Messages shorter than this are not worth deflating: the block's overhead eats the gain.
pub(crate) const DEFLATE_FROM: usize = 64;

/// What ended the reading of a buffer.
pub(crate) enum Stop {
    /// There is nothing more in it.
    Used,
    /// The turn is full.
    Full,
    /// A Close came.
    Close(tidegate_wire::close::CloseFrame),
    /// A rule was broken.
    Violation(tidegate_wire::message::Violation),
    /// Too many control frames came.
    Flood,
    /// The next message would come too fast.
    Delayed,
    /// A message came too fast.
    TooFast,
}

/// What is to be known of a buffer's messages when it was read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reading {
    /// A message was incomplete when it came.
    pub(crate) was_partial: bool,
    /// One became complete.
    pub(crate) completed: bool,
}

impl<B: Backend, E: Environment> Shard<B, E> {
    /// Answers the messages in `bytes`; uses all of them, unless the turn is full of answers that it owns: then gives how
    /// many it has used.
    pub(crate) fn read_messages(&mut self, key: Key, bytes: &mut [u8], place: Place) -> usize {
        let Self { registry, turn, spans, codecs, spares, plan, counters, accounts, meters, now_ms, .. } =
            self;
        let before = counters.messages;
        let Some(session) = registry.get_mut(key) else { return bytes.len() };
        let route = plan.route(session.route);
        let closing = session.marks.close_sent;
        let rates = route.rates.as_ref().filter(|_| !closing);
        let mut delayed = false;
        let State::Open(open) = &mut session.state else { return bytes.len() };
        let held = open.decoder.retained_bytes();
        let mut reading = Reading { was_partial: open.decoder.is_partial(), completed: false };
        let messages =
            Content::Messages { linked: open.compression.as_ref().is_some_and(Compression::looks_back) };
        let mut cursor = Cursor { read: 0, write: 0, compact: true };
        // The answers since the last span lie in bytes[start..cursor.write].
        let mut start = 0;
        // The longest message that is answered as it came; a session that has agreed on it gets others deflated.
        let plain = if open.compression.is_some() { DEFLATE_FROM - 1 } else { usize::MAX };
        let stop = loop {
            if delayed {
                break Stop::Delayed;
            }
            if !closing
                && rates.is_none_or(|rates| meters.have_room(key, bytes.len() - cursor.read, rates, *now_ms))
            {
                let begin = cursor.write;
                let answered = open.decoder.answer_short(bytes, &mut cursor, &route.messages, plain);
                if answered > 0 {
                    if let Some(rates) = rates {
                        // RFC 6455 §5.2: an answer's header is two bytes.
                        let payloads = cursor.write - begin - 2 * answered as usize;
                        meters.count(key, answered, payloads, rates, *now_ms);
                    }
                    counters.messages += answered;
                    reading.completed = true;
                    session.spoke = session.seen;
                }
            }
            let mut context = DecodeContext {
                limits: &route.messages,
                compression: open.compression.as_mut(),
                codecs,
                spares,
            };
            let event = open.decoder.next(bytes, &mut cursor, &mut context);
            if open.compression.is_some() {
                turn.has_worked(codecs.worked_bytes());
            }
            let event = match event {
                Ok(Some(event)) => event,
                Ok(None) => break Stop::Used,
                Err(violation) => break Stop::Violation(violation),
            };
            match event {
                Event::Message { .. } if closing => {} // RFC 6455 §5.5.1: nothing follows the Close that was sent.
                Event::Message { kind, payload, .. } => {
                    counters.messages += 1;
                    reading.completed = true;
                    session.spoke = session.seen;
                    match rates.map(|rates| meters.take(key, payload.len(), rates, *now_ms)) {
                        None | Some(Pace::Within) => {}
                        Some(Pace::Last) => delayed = true,
                        Some(Pace::Drop) => {
                            counters.rate_dropped += 1;
                            if let Payload::Owned(owned) = payload {
                                spares.give(owned.buffer);
                            }
                            flush(spans, key, messages, place, &mut start, cursor.write);
                            start = cursor.read;
                            cursor.write = cursor.read;
                            continue;
                        }
                        Some(Pace::Close) => break Stop::TooFast,
                    }
                    let opcode = Opcode::from(kind);
                    let deflate = open.compression.as_mut().filter(|_| payload.len() >= DEFLATE_FROM);
                    if let Some(compression) = deflate {
                        let (out, begin) =
                            deflated_frame(compression, codecs, spares, opcode, payload.bytes(bytes));
                        turn.has_worked(codecs.worked_bytes());
                        flush(spans, key, messages, place, &mut start, cursor.write);
                        spans.push(Span { key, source: turn.keep(out, begin), content: messages });
                        if let Payload::Owned(owned) = payload {
                            spares.give(owned.buffer);
                        }
                        start = cursor.read;
                        cursor.write = cursor.read;
                        if turn.is_full() {
                            break Stop::Full;
                        }
                        continue;
                    }
                    let head = Head { fin: true, rsv1: false, opcode, len: payload.len() as u64, mask: None };
                    match payload {
                        Payload::InPlace(range) => {
                            let begin = frame::encode_header_before(bytes, range.start, &head);
                            if begin != cursor.write {
                                flush(spans, key, messages, place, &mut start, cursor.write);
                                start = begin;
                            }
                            cursor.write = range.end;
                        }
                        Payload::Owned(OwnedPayload { mut buffer, start: payload_start }) => {
                            let begin = frame::encode_header_before(&mut buffer, payload_start, &head);
                            flush(spans, key, messages, place, &mut start, cursor.write);
                            spans.push(Span { key, source: turn.keep(buffer, begin), content: messages });
                            start = cursor.read;
                            cursor.write = cursor.read;
                            if turn.is_full() {
                                break Stop::Full;
                            }
                        }
                    }
                }
                Event::Ping(payload) => {
                    if !open.budget.spend(*now_ms, &route.control) {
                        break Stop::Flood;
                    }
                    if !closing {
                        flush(spans, key, messages, place, &mut start, cursor.write);
                        start = cursor.read;
                        cursor.write = cursor.read;
                        let pong = ControlFrame::pong(&payload, None);
                        spans.push(Span {
                            key,
                            source: turn.keep_small(pong.as_ref()),
                            content: Content::Control(Control::Pong),
                        });
                    }
                }
                Event::Pong(_) => {
                    if !open.budget.spend_pong(*now_ms, &route.control) {
                        break Stop::Flood;
                    }
                    if std::mem::take(&mut session.marks.pinged)
                        && let Some(accounts) = accounts
                    {
                        accounts.answered_ping(now_ms.saturating_sub(session.pinged.ms(*now_ms)));
                    }
                }
                Event::Close(close) => break Stop::Close(close),
            }
        };
        flush(spans, key, messages, place, &mut start, cursor.write);
        let holds = open.decoder.retained_bytes();
        // Any byte shows that the peer is alive: the ping's pong is as good as there.
        session.marks.pinged = false;
        if let Some(accounts) = accounts {
            let messages = counters.messages - before;
            accounts.count(key, session, |flow| {
                flow.received_messages += messages;
                flow.sent_messages += messages;
            });
        }
        self.recount(held, holds);
        self.finish_reading(key, stop, reading, cursor.read, bytes.len())
    }

    /// A buffer of `len` bytes was read up to `read`; gives how many of them are used.
    pub(crate) fn finish_reading(
        &mut self,
        key: Key,
        stop: Stop,
        reading: Reading,
        read: usize,
        len: usize,
    ) -> usize {
        match stop {
            Stop::Full => return read,
            Stop::Delayed => {
                self.delay(key);
                return read;
            }
            Stop::TooFast => {
                self.counters.rate_closed += 1;
                self.violated(key, CloseCode::POLICY_VIOLATION, TOO_FAST);
            }
            Stop::Used => {
                let now_ms = self.now_ms;
                if let Some(session) = self.registry.get_mut(key)
                    && let State::Open(open) = &session.state
                    && open.decoder.is_partial()
                    && (reading.completed || !reading.was_partial)
                {
                    session.since = Stamp::at(now_ms);
                    let deadline = now_ms + self.plan.route(session.route).limits.message_timeout_ms;
                    self.ensure_deadline(key, deadline);
                }
            }
            Stop::Close(close) => self.close_received(key, close),
            Stop::Violation(violation) => self.violated(key, violation.close_code(), violation.text()),
            Stop::Flood => {
                self.violated(key, CloseCode::POLICY_VIOLATION, "too many control frames in a short time");
            }
        }
        len
    }
}

/// A server's frame with a message deflated, and where it begins.
pub(crate) fn deflated_frame(
    compression: &mut Compression,
    codecs: &mut Codecs,
    spares: &mut Spares,
    opcode: Opcode,
    payload: &[u8],
) -> (Vec<u8>, usize) {
    let mut out = spares.take_large(payload.len());
    out.resize(frame::MAX_HEADER, 0);
    compression.deflate(codecs, payload, &mut out);
    let len = (out.len() - frame::MAX_HEADER) as u64;
    let head = Head { fin: true, rsv1: true, opcode, len, mask: None };
    let begin = frame::encode_header_before(&mut out, frame::MAX_HEADER, &head);
    (out, begin)
}

/// The answers that lie end to end become one piece.
fn flush(spans: &mut Vec<Span>, key: Key, messages: Content, place: Place, start: &mut usize, end: usize) {
    if *start < end {
        spans.push(Span { key, source: place.source(*start..end), content: messages });
        *start = end;
    }
}
