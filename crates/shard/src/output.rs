//! From a session's answers to the kernel, or to its outbox where the kernel has no room.
//!
//! Invariant: while an outbox is not empty nothing is sent around it, and either a poll for room is armed or the
//! session is listed to send from it in the next turn.

use tidegate_io::{Backend, MAX_PIECES, Remainder};
use tidegate_registry::{Admission, Chunk, Control, End, FullPolicy, Key};
use tidegate_wire::close::CloseCode;

use crate::{
    environment::Environment,
    log::Leg,
    planted::{self, Bug},
    session::{Fact, State},
    shard::{Shard, token},
    stamp::Stamp,
    turn::Source,
};

/// What a span is to its receiver's outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Whole messages: the outbox's policy may drop them together. Where they are `linked` those that follow look back at
    /// them: then a new one can be dropped, with what follows it, but none that waits.
    Messages { linked: bool },
    /// Part of a stream of which nothing may be dropped, and where it ends.
    Stream(End),
    /// The answer that opens a session, or refuses it: it is not the fault of whoever gets it what waits before it.
    Opening,
    /// A whole thing of which it was judged before how much of it may wait.
    Judged,
    /// A control frame of the gateway's own.
    Control(Control),
}

impl Content {
    /// A whole thing of which nothing may be dropped.
    pub(crate) const WHOLE: Content = Content::Stream(End::Boundary);

    fn end(self) -> End {
        match self {
            Content::Messages { .. } | Content::Opening | Content::Judged | Content::Control(_) => {
                End::Boundary
            }
            Content::Stream(end) => end,
        }
    }
}

/// Bytes for a session, in the order in which they must arrive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) key: Key,
    pub(crate) source: Source,
    pub(crate) content: Content,
}

/// Linux's `EAGAIN`: the socket's buffer is full.
const EAGAIN: i32 = 11;

impl<B: Backend, E: Environment> Shard<B, E> {
    /// Queues bytes for a session; they join the turn when the event at hand was handled.
    pub(crate) fn emit(&mut self, key: Key, source: Source, content: Content) {
        self.spans.push(Span { key, source, content });
    }

    /// Queues a small frame.
    pub(crate) fn emit_small(&mut self, key: Key, bytes: &[u8], content: Content) {
        let source = self.turn.keep_small(bytes);
        self.emit(key, source, content);
    }

    /// The spans of the event at hand join the turn, or their outboxes.
    pub(crate) fn flush_spans(&mut self) {
        if self.spans.is_empty() {
            return;
        }
        let mut spans = std::mem::take(&mut self.spans);
        for span in spans.drain(..) {
            // What follows what was dropped may look back at it, or would come between it and the Close.
            if !matches!(span.content, Content::Control(_)) && self.cut.contains(&span.key) {
                self.counters.dropped += 1;
                continue;
            }
            self.send(span);
        }
        if self.spans.is_empty() {
            self.spans = spans;
            self.cut.clear();
        } else {
            // Sending has ended a pair and queued its Close frames: those follow.
            self.flush_spans();
        }
    }

    fn send(&mut self, span: Span) {
        let Some(session) = self.registry.get_mut(span.key) else { return };
        if matches!(session.state, State::Dead) || session.marks.fin_sent {
            return;
        }
        if session.transport.is_handshaking() {
            // Nobody could read it.
            debug_assert!(false, "an answer before the handshake of TLS is over");
            return;
        }
        if session.transport.seals() {
            self.send_sealed(span);
        } else if session.outbox.is_empty() || planted::is(Bug::SendAroundOutbox) {
            self.join_turn(span.key, span.source, span.content.end());
        } else if let Source::Shared { index } = span.source {
            self.share_with_outbox(span.key, index);
        } else {
            self.join_outbox(span.key, span.source, span.content);
        }
    }

    /// Sends past the outbox, with the next system call.
    fn join_turn(&mut self, key: Key, source: Source, end: End) {
        let Some(session) = self.registry.get_mut(key) else { return };
        let place = self.turn.place_of(key, session);
        let soft = self.plan.route(session.route).outbox.soft();
        self.turn.append(place, source, end, soft);
    }

    /// A sealed stream cannot lose a record, whatever is in it: what a full outbox does not take is not sealed. What goes
    /// past the outbox is sealed right before the system call, together with what follows it.
    fn send_sealed(&mut self, Span { key, source, content }: Span) {
        let Some(session) = self.registry.get_mut(key) else { return };
        if session.outbox.is_empty() || planted::is(Bug::SendAroundOutbox) {
            self.join_turn(key, source, content.end());
            return;
        }
        let route = self.plan.route(session.route);
        let plain = self.turn.bytes(source);
        let policy = match content {
            // What is sealed stays where it is in its stream: there only a new message can be dropped.
            Content::Messages { .. } if route.full == FullPolicy::DropOld => FullPolicy::DropNew,
            Content::Messages { .. } => route.full,
            Content::Stream(_) | Content::Opening | Content::Judged | Content::Control(_) => {
                FullPolicy::Pause
            }
        };
        // Control frames are always taken: their number has its own limit.
        let refusable = !matches!(content, Content::Control(_) | Content::Opening | Content::Judged);
        if refusable && session.outbox.is_full_for(plain.len(), &route.outbox) {
            let admission = match policy {
                FullPolicy::DropNew | FullPolicy::DropOld => Admission::Dropped,
                FullPolicy::Disconnect | FullPolicy::Pause => Admission::Disconnect,
            };
            self.admitted(key, admission, content);
            return;
        }
        if session.transport.seal(plain).is_err() {
            self.broken.push((key, 0));
            return;
        }
        let sealed = session.transport.take_sealed();
        let admission =
            session.outbox.append_always(&sealed, content.end(), &route.outbox, policy, &mut self.retained);
        if session.dirty == 0 && !session.in_flight.poll {
            session.dirty = self.turn.enlist(key, true);
        }
        self.admitted(key, admission, content);
    }

    /// Queues a frame that others send as well, whatever waits already.
    fn share_with_outbox(&mut self, key: Key, index: u32) {
        let frame = self.turn.frames[index as usize].clone();
        let Some(session) = self.registry.get_mut(key) else { return };
        session.outbox.push_rest(frame, 0, &mut self.retained);
        if session.dirty == 0 && !session.in_flight.poll {
            session.dirty = self.turn.enlist(key, true);
        }
    }

    fn join_outbox(&mut self, key: Key, source: Source, content: Content) {
        let Some(session) = self.registry.get_mut(key) else { return };
        let route = self.plan.route(session.route);
        let (limits, retained) = (&route.outbox, &mut self.retained);
        let admission = match content {
            Content::Control(control) => {
                if session.outbox.push_control(control, self.turn.bytes(source), retained) {
                    Admission::Queued
                } else {
                    // Callers ask for the boundary first; a frame that cannot be placed ends the session.
                    debug_assert!(false, "a control frame inside a frame");
                    Admission::Disconnect
                }
            }
            Content::Opening | Content::Judged => {
                let bytes = self.turn.bytes(source);
                session.outbox.append_always(bytes, End::Boundary, limits, route.full, retained)
            }
            Content::Stream(end) => {
                session.outbox.append_copy(self.turn.bytes(source), end, limits, route.full, retained)
            }
            Content::Messages { linked } => {
                let (bytes, start) = self.turn.take(source);
                let policy = match route.full {
                    FullPolicy::DropOld if linked => FullPolicy::DropNew,
                    policy => policy,
                };
                session.outbox.push(Chunk::Owned { bytes, start }, limits, policy, retained)
            }
        };
        if session.dirty == 0 && !session.in_flight.poll {
            session.dirty = self.turn.enlist(key, true);
        }
        self.admitted(key, admission, content);
    }

    /// What follows from an outbox's answer.
    fn admitted(&mut self, key: Key, admission: Admission, content: Content) {
        match admission {
            Admission::Queued => {}
            Admission::QueuedPause => self.pause_producer(key),
            Admission::Dropped => {
                self.counters.dropped += 1;
                if content == (Content::Messages { linked: true }) {
                    self.look_back_no_more(key);
                }
            }
            Admission::DroppedOld(messages) => {
                self.counters.dropped += u64::from(messages);
                self.counters.dropped_old += u64::from(messages);
            }
            Admission::Disconnect => self.slow_consumer(key),
        }
    }

    /// A message was dropped at which those that follow look back: what was compressed since goes with it, also where the
    /// session has ended behind them, and the next one looks back at nothing.
    fn look_back_no_more(&mut self, key: Key) {
        self.cut.push(key);
        if let Some(State::Open(open)) = self.registry.get_mut(key).map(|session| &mut session.state)
            && let Some(compression) = &mut open.compression
        {
            compression.reset_deflater();
        }
    }

    /// The bytes of the first [`MAX_PIECES`] pieces of a place: what one send offers.
    pub(crate) fn offered(&self, place: usize) -> usize {
        self.turn.chain(place).take(MAX_PIECES).map(|source| self.turn.bytes(source).len()).sum()
    }

    /// A send that the kernel did not take whole.
    pub(crate) fn settle_remainder(&mut self, remainder: Remainder) {
        self.counters.remainders += 1;
        let place = remainder.index as usize;
        let dirty = self.turn.dirty[place];
        let Some(session) = self.registry.get_mut(dirty.key) else { return };
        session.dirty = 0;
        if remainder.errno != 0 && remainder.errno != EAGAIN {
            self.broken.push((dirty.key, remainder.errno));
            return;
        }
        let sent = remainder.sent - usize::from(remainder.sent > 0 && planted::is(Bug::RepeatRemainder));
        if dirty.from_outbox {
            self.consume(dirty.key, sent);
        } else if !planted::is(Bug::LoseRemainder) {
            self.count_sent(dirty.key, sent);
            self.keep_rest(place, sent);
        }
        self.await_room(dirty.key);
    }

    /// A send from the outbox that the kernel took whole.
    pub(crate) fn settle_outbox(&mut self, key: Key) {
        let Some(session) = self.registry.get(key) else { return };
        self.consume(key, session.outbox.sendable());
        if self.registry.get(key).is_some_and(|session| !session.outbox.is_empty()) {
            self.again.push(key);
        }
    }

    /// A chain longer than one send: what it took is gone, the rest waits for the next turn.
    pub(crate) fn settle_long(&mut self, place: usize) {
        let key = self.turn.dirty[place].key;
        let offered = self.offered(place);
        self.count_sent(key, offered);
        self.keep_rest(place, offered);
        self.again.push(key);
    }

    /// Moves what a chain has behind its first `sent` bytes to the outbox, which is empty.
    fn keep_rest(&mut self, place: usize, sent: usize) {
        let now_ms = self.now_ms;
        let key = self.turn.dirty[place].key;
        let Some(session) = self.registry.get_mut(key) else { return };
        if matches!(session.state, State::Dead) {
            return;
        }
        let route = self.plan.route(session.route);
        session.stalled = Stamp::at(now_ms);
        let end = self.turn.dirty[place].end;
        // Those of topics have frames of their own, which all that are slow share. What stands before the first is copied, and
        // nothing else stands behind it but what is said in between.
        let topics = self
            .turn
            .chain(place)
            .position(|source| matches!(source, Source::Topic { .. } | Source::Shared { .. }));
        let (copied, until) = match topics {
            Some(first) => (first, End::Boundary),
            None => (usize::MAX, end),
        };
        let pieces = self.turn.chain(place).take(copied).map(|source| self.turn.bytes(source));
        let len: usize = pieces.map(<[u8]>::len).sum();
        let pieces = self.turn.chain(place).take(copied).map(|source| self.turn.bytes(source));
        let (outbox, retained) = (&mut session.outbox, &mut self.retained);
        let mut pauses =
            outbox.push_remainder(pieces, sent.min(len), until, &route.outbox, route.full, retained);
        let mut skip = sent.saturating_sub(len);
        for source in self.turn.chain(place).skip(copied) {
            let bytes = self.turn.bytes(source);
            if skip >= bytes.len() {
                skip -= bytes.len();
            } else if let Source::Topic { lane, start, end } = source {
                for (publication, bytes) in self.turn.arenas.of(lane).frames(start..end) {
                    let sent = skip.min(bytes.len());
                    skip -= sent;
                    let lost = if sent > 0 { Bug::LoseSharedRest } else { Bug::LoseSharedFrames };
                    if planted::is(lost) {
                        continue;
                    }
                    let frame = publication.frame(lane.class, |_| Some(bytes.to_vec()));
                    if let Some(frame) = frame.filter(|frame| sent < frame.len()) {
                        outbox.push_rest(frame.clone(), sent, retained);
                    }
                }
            } else if let Source::Shared { index } = source {
                let frame = self.turn.frames[index as usize].clone();
                outbox.push_rest(frame, std::mem::take(&mut skip), retained);
            } else {
                let bytes = &bytes[std::mem::take(&mut skip)..];
                let admission =
                    outbox.append_always(bytes, End::Boundary, &route.outbox, route.full, retained);
                pauses |= admission == Admission::QueuedPause;
            }
        }
        self.ensure_deadline(key, now_ms + self.plan.limits().write_timeout_ms);
        if pauses {
            self.pause_producer(key);
        }
    }

    /// The kernel took `sent` bytes from the front of the outbox.
    fn consume(&mut self, key: Key, sent: usize) {
        self.count_sent(key, sent);
        let now_ms = self.now_ms;
        let Some(session) = self.registry.get_mut(key) else { return };
        if sent > 0 {
            session.stalled = Stamp::at(now_ms);
        }
        let limits = &self.plan.route(session.route).outbox;
        let resumes = session.outbox.consume(sent, limits, &mut self.retained);
        if session.outbox.is_empty() {
            if matches!(session.state, State::Lingering { .. }) && !session.marks.fin_sent {
                self.finishing.push(key);
            }
            self.count_anew(key);
            if let Some(topics) = &mut self.topics {
                topics.has_emptied(key);
            }
        }
        if resumes && !planted::is(Bug::ForgetResume) {
            self.resume_producer(key);
        }
    }

    /// Arms a poll for room, unless one is armed.
    fn await_room(&mut self, key: Key) {
        let Some(session) = self.registry.get_mut(key) else { return };
        if matches!(session.state, State::Dead) || session.outbox.is_empty() || session.in_flight.poll {
            return;
        }
        session.in_flight.poll = true;
        self.backend.poll_writable(&session.socket, token(key));
    }

    /// The socket takes bytes again.
    pub(crate) fn writable(&mut self, key: Key) {
        let Some(session) = self.registry.get_mut(key) else {
            self.counters.stale += 1;
            return;
        };
        if !session.in_flight.poll {
            self.counters.stale += 1;
            return;
        }
        session.in_flight.poll = false;
        if matches!(session.state, State::Dead) {
            self.freeable.push(key);
        } else if session.dirty == 0 && !session.outbox.is_empty() && !planted::is(Bug::IgnoreWritable) {
            session.dirty = self.turn.enlist(key, true);
        }
    }

    /// Who fills this session's outbox stops reading: itself where it is answered here, its far side else.
    fn pause_producer(&mut self, key: Key) {
        if let Some(producer) = self.producer(key) {
            self.pause(producer);
        }
    }

    fn resume_producer(&mut self, key: Key) {
        if let Some(producer) = self.producer(key) {
            self.resume(producer);
        }
    }

    fn producer(&self, key: Key) -> Option<Key> {
        match &self.registry.get(key)?.state {
            State::Paired(paired) => paired.far,
            _ => Some(key),
        }
    }

    /// The outbox is past its hard limit.
    pub(crate) fn slow_consumer(&mut self, key: Key) {
        self.note_slow(key, "slow consumer: its outbox is full");
        self.end_slow(key);
    }

    /// Counts and logs a slow consumer, once: one whose outbox was full may then not even take its Close.
    pub(crate) fn note_slow(&mut self, key: Key, reason: &'static str) {
        let Some(session) = self.registry.get_mut(key) else { return };
        if !session.marks.facts.put(Fact::Slow) {
            self.counters.slow += 1;
            let leg = self.leg(key);
            self.log_end(key, leg, CloseCode::TRY_AGAIN_LATER.into(), reason);
        }
    }

    /// Sends the FINs that waited for their sessions' last bytes.
    pub(crate) fn send_fins(&mut self) {
        let mut place = 0;
        while place < self.finishing.len() {
            let key = self.finishing[place];
            let Some(session) = self.registry.get_mut(key) else {
                self.finishing.swap_remove(place);
                continue;
            };
            if matches!(session.state, State::Dead) {
                self.finishing.swap_remove(place);
                continue;
            }
            if session.dirty != 0 && !planted::is(Bug::FinBeforeOutbox) {
                self.hurried = true;
                place += 1;
                continue;
            }
            if !session.outbox.is_empty() && !planted::is(Bug::FinBeforeOutbox) {
                // It is listed again when that is empty: thousands of slow readers must not be looked at in every turn.
                self.finishing.swap_remove(place);
                continue;
            }
            if !session.marks.fin_sent && session.transport.seal_end() {
                self.turn.place_of(key, session);
                self.hurried = true;
                place += 1;
                continue;
            }
            self.finishing.swap_remove(place);
            if !session.marks.fin_sent {
                session.marks.fin_sent = true;
                self.backend.shutdown_write(&session.socket);
            }
            if session.marks.ended || planted::is(Bug::CloseWithoutLinger) {
                self.abort(key, false);
            } else {
                self.limit_linger(key);
            }
        }
    }

    /// Which leg a session is.
    pub(crate) fn leg(&self, key: Key) -> Leg {
        match self.registry.get(key) {
            Some(session) if session.marks.upstream => Leg::Upstream,
            _ => Leg::Client,
        }
    }
}
