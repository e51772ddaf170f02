//! A pair that is carried message by message: the client's side is deflated, the upstream's is plain (`deflate = "edge"`).

use tidegate_io::Backend;
use tidegate_registry::Key;
use tidegate_wire::{
    frame::{self, ControlFrame, Head, Opcode},
    message::{Cursor, DecodeContext, Event, OwnedPayload, Payload},
};

use super::{PING_MARK, pair::Stop};
use crate::{
    echo::{DEFLATE_FROM, deflated_frame},
    environment::Environment,
    input::Place,
    meter::Pace,
    output::{Content, Span},
    session::{Paired, Reading, State},
    shard::Shard,
};

impl<B: Backend, E: Environment> Shard<B, E> {
    /// Carries the messages that a leg received to its far side. Where that is gone or deaf only a Close counts.
    pub(super) fn relay_messages(&mut self, key: Key, bytes: &mut [u8], place: Place) -> Stop {
        let Self {
            registry, turn, spans, codecs, spares, plan, counters, environment, meters, now_ms, ..
        } = self;
        let Some(State::Paired(Paired { far: far_key, .. })) =
            registry.get(key).map(|session| &session.state)
        else {
            return Stop::Used;
        };
        let (session, far) = match *far_key {
            Some(far_key) => match registry.pair_mut(key, far_key) {
                Some((session, far)) => (session, Some((far_key, far))),
                None => return Stop::Used,
            },
            None => match registry.get_mut(key) {
                Some(session) => (session, None),
                None => return Stop::Used,
            },
        };
        let route = plan.route(session.route);
        let upstream = session.marks.upstream;
        let State::Paired(paired) = &mut session.state else { return Stop::Used };
        let Reading::Messages(messages) = &mut paired.reading else { return Stop::Used };
        let mut far = match far {
            Some((far_key, far)) => {
                let State::Paired(Paired { reading: Reading::Messages(messages), budget, .. }) =
                    &mut far.state
                else {
                    return Stop::Used;
                };
                // RFC 6455 §5.5.1: nothing follows a Close that was sent.
                (!far.marks.close_sent).then_some((far_key, messages, budget))
            }
            None => None,
        };
        let mut cursor = Cursor { read: 0, write: 0, compact: false };
        let rates = route.rates.as_ref().filter(|_| !upstream && !session.marks.close_sent);
        let mut delayed = false;
        loop {
            if delayed {
                return Stop::Delayed(cursor.read);
            }
            let mut context = DecodeContext {
                limits: &route.messages,
                compression: messages.compression.as_mut(),
                codecs,
                spares,
            };
            let event = messages.decoder.next(bytes, &mut cursor, &mut context);
            if messages.compression.is_some() {
                turn.has_worked(codecs.worked_bytes());
            }
            let event = match event {
                Ok(Some(event)) => event,
                Ok(None) => return Stop::Used,
                Err(violation) => return Stop::Violation(violation),
            };
            let Some((far_key, far_messages, far_budget)) = &mut far else {
                match event {
                    Event::Close(close) => return Stop::Close(close),
                    Event::Message { .. } | Event::Ping(_) | Event::Pong(_) => continue,
                }
            };
            // Frames to the upstream are a client's.
            let mut draw_mask = || (!upstream).then(|| environment.draw_mask());
            let source = match event {
                Event::Close(close) => return Stop::Close(close),
                Event::Message { kind, payload, .. } => {
                    session.spoke = session.seen;
                    session.since = session.seen;
                    match rates.map(|rates| meters.take(key, payload.len(), rates, *now_ms)) {
                        // Nothing that is proxied is dropped: the configuration does not allow it.
                        None | Some(Pace::Within | Pace::Drop) => {}
                        Some(Pace::Last) => delayed = true,
                        Some(Pace::Close) => return Stop::TooFast,
                    }
                    counters.relayed += 1;
                    let opcode = Opcode::from(kind);
                    let deflate = far_messages.compression.as_mut().filter(|_| payload.len() >= DEFLATE_FROM);
                    if let Some(compression) = deflate {
                        let (out, begin) =
                            deflated_frame(compression, codecs, spares, opcode, payload.bytes(bytes));
                        turn.has_worked(codecs.worked_bytes());
                        if let Payload::Owned(owned) = payload {
                            spares.give(owned.buffer);
                        }
                        turn.keep(out, begin)
                    } else {
                        let mask = draw_mask();
                        let head = Head { fin: true, rsv1: false, opcode, len: payload.len() as u64, mask };
                        match payload {
                            // A header that came in parts has left less room than a client's needs.
                            Payload::InPlace(range)
                                if range.start < frame::header_len(range.len(), mask.is_some()) =>
                            {
                                let mut out = spares.take_large(frame::MAX_HEADER + range.len());
                                out.resize(frame::MAX_HEADER, 0);
                                out.extend_from_slice(&bytes[range]);
                                if let Some(mask) = mask {
                                    tidegate_simd::unmask(&mut out[frame::MAX_HEADER..], mask, 0);
                                }
                                let begin = frame::encode_header_before(&mut out, frame::MAX_HEADER, &head);
                                turn.keep(out, begin)
                            }
                            Payload::InPlace(range) => {
                                if let Some(mask) = mask {
                                    tidegate_simd::unmask(&mut bytes[range.clone()], mask, 0);
                                }
                                let begin = frame::encode_header_before(bytes, range.start, &head);
                                place.source(begin..range.end)
                            }
                            Payload::Owned(OwnedPayload { mut buffer, start }) => {
                                if let Some(mask) = mask {
                                    tidegate_simd::unmask(&mut buffer[start..], mask, 0);
                                }
                                let begin = frame::encode_header_before(&mut buffer, start, &head);
                                turn.keep(buffer, begin)
                            }
                        }
                    }
                }
                Event::Ping(payload) => {
                    if !upstream && !paired.budget.spend(*now_ms, &route.control) {
                        return Stop::Flood;
                    }
                    if upstream {
                        far_budget.ask();
                    }
                    turn.keep_small(ControlFrame::ping(&payload, draw_mask()).as_ref())
                }
                Event::Pong(payload) => {
                    if !upstream && !paired.budget.spend_pong(*now_ms, &route.control) {
                        return Stop::Flood;
                    }
                    if &*payload == PING_MARK {
                        continue;
                    }
                    turn.keep_small(ControlFrame::pong(&payload, draw_mask()).as_ref())
                }
            };
            spans.push(Span { key: *far_key, source, content: Content::WHOLE });
            if turn.is_full() {
                return Stop::Full(cursor.read);
            }
        }
    }
}
