//! What sessions of a topics route say: commands of the protocol, or messages of one topic.

use tidegate_config::TopicPattern;
use tidegate_hub::{
    Ask, Filter, Format, Pattern, Position, Publish, Publisher, Refused, Ticket,
    protocol::{self, Code, Command, Id, Recover, Standing},
};
use tidegate_io::Backend;
use tidegate_registry::{Control, Key};
use tidegate_wire::{
    budget::ControlRule,
    close::CloseCode,
    frame::{ControlFrame, Head, MAX_HEADER, Opcode, encode_header_before},
    message::{Cursor, DecodeContext, Event, Kind, Payload},
};

use super::{
    UNACKNOWLEDGED,
    allowed::Allowed,
    fault::Fault,
    member::{Answer, Left, Waits, Way},
    stopped::LONG_ANSWERS,
};
use crate::{
    echo::{Reading, Stop},
    environment::Environment,
    meter::Pace,
    output::{Content, Span},
    session::State,
    shard::Shard,
};

/// A session that gets more than this wrong is told to go away.
const ERRORS: ControlRule = ControlRule { count: 100, window_ms: 10_000 };

/// What became of a command.
enum Step {
    /// It was done, or will be answered.
    Done,
    /// Nothing yet: it comes again when this is there.
    Waits(Waits),
}

/// What a session has said: a message, in a receive buffer or in bytes of its own, or something of the connection.
enum Said {
    Message(Kind, Payload),
    Other,
}

impl<B: Backend, E: Environment> Shard<B, E> {
    /// Does what the messages in `bytes` say; uses all of them, unless the turn is full: then gives how many it has used.
    pub(crate) fn read_topic_messages(&mut self, key: Key, bytes: &mut [u8]) -> usize {
        if self.is_stopped(key) {
            // Its outbox has room for what it is read for elsewhere.
            self.pause(key);
            return 0;
        }
        let mut cursor = Cursor::default();
        let Some(State::Open(open)) = self.registry.get(key).map(|session| &session.state) else {
            return bytes.len();
        };
        let mut reading = Reading { was_partial: open.decoder.is_partial(), completed: false };
        let mut held = open.decoder.retained_bytes();
        let stop = loop {
            let Self { registry, turn, spans, codecs, spares, plan, counters, accounts, now_ms, .. } = self;
            let Some(session) = registry.get_mut(key) else { return bytes.len() };
            let route = plan.route(session.route);
            let closing = session.marks.close_sent;
            // A message may have ended it.
            let State::Open(open) = &mut session.state else { return bytes.len() };
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
            let pinged = std::mem::take(&mut session.marks.pinged);
            let said = match event {
                Ok(Some(Event::Message { kind, payload, .. })) => {
                    counters.messages += 1;
                    if let Some(accounts) = accounts {
                        accounts.count(key, session, |flow| flow.received_messages += 1);
                    }
                    reading.completed = true;
                    session.spoke = session.seen;
                    Said::Message(kind, payload)
                }
                Ok(Some(Event::Ping(payload))) => {
                    if !open.budget.spend(*now_ms, &route.control) {
                        break Stop::Flood;
                    }
                    if !closing {
                        let pong = ControlFrame::pong(&payload, None);
                        let source = turn.keep_small(pong.as_ref());
                        spans.push(Span { key, source, content: Content::Control(Control::Pong) });
                    }
                    Said::Other
                }
                Ok(Some(Event::Pong(_))) => {
                    if !open.budget.spend_pong(*now_ms, &route.control) {
                        break Stop::Flood;
                    }
                    if pinged && let Some(accounts) = accounts {
                        accounts.answered_ping(now_ms.saturating_sub(session.pinged.ms(*now_ms)));
                    }
                    Said::Other
                }
                Ok(Some(Event::Close(close))) => break Stop::Close(close),
                Ok(None) => break Stop::Used,
                Err(violation) => break Stop::Violation(violation),
            };
            if let Said::Message(kind, payload) = said {
                // What it says may end the session, and behind a whole message nothing is held.
                self.recount(std::mem::take(&mut held), 0);
                let Self { registry, plan, meters, counters, now_ms, .. } = self;
                let Some(session) = registry.get(key) else { return bytes.len() };
                let route = plan.route(session.route);
                let rates = route.rates.as_ref().filter(|_| !closing);
                let pace =
                    rates.map_or(Pace::Within, |rates| meters.take(key, payload.len(), rates, *now_ms));
                counters.rate_dropped += u64::from(pace == Pace::Drop);
                let obeyed = !closing && matches!(pace, Pace::Within | Pace::Last);
                // RFC 6455 §5.5.1: nothing follows the Close that was sent, so nothing is done for it either.
                match payload {
                    Payload::InPlace(range) if obeyed => self.obey_in_order(key, kind, &bytes[range]),
                    Payload::InPlace(_) => {}
                    Payload::Owned(owned) => {
                        if obeyed {
                            self.obey_in_order(key, kind, &owned.buffer[owned.start..]);
                        }
                        self.spares.give(owned.buffer);
                    }
                }
                match pace {
                    Pace::Close => break Stop::TooFast,
                    Pace::Last => break Stop::Delayed,
                    Pace::Within | Pace::Drop => {}
                }
                if self.turn.is_full() || self.is_stopped(key) {
                    break Stop::Full;
                }
            }
        };
        if matches!(self.registry.get(key).map(|session| &session.state), Some(State::Open(_))) {
            self.recount_session(key, held);
        }
        self.finish_reading(key, stop, reading, cursor.read, bytes.len())
    }

    /// Does what a message says. Where a command has to wait: for what, and what is left.
    pub(super) fn obey(&mut self, key: Key, kind: Kind, bytes: &[u8]) -> Option<(Waits, Left)> {
        let now_ms = self.now_ms;
        let topics = self.topics.as_mut()?;
        let member = topics.member(key)?;
        match &member.way {
            // A request speaks no messages.
            Way::Feed => {}
            Way::Raw { publishes: false, .. } => {
                self.violated(key, CloseCode::POLICY_VIOLATION, "this route does not publish");
            }
            Way::Raw { topic, publishes: true } => {
                let format = match kind {
                    Kind::Text => Format::Text,
                    Kind::Binary => Format::Binary,
                };
                let topic = topic.clone();
                if topics.hub.is_busy(&topic) {
                    return Some((Waits::Home(topics.hub.home_of(&topic)), Left::All));
                }
                let ticket = Ticket { key, request: UNACKNOWLEDGED };
                let publish = Publish::new(format, bytes.to_vec());
                if let Err(why) = topics.hub.publish_unacknowledged(ticket, &topic, publish, now_ms) {
                    self.not_published(key, why);
                }
            }
            Way::Protocol if kind == Kind::Binary => {
                self.tell_error(key, None, Code::Binary, "binary messages have no meaning here");
            }
            Way::Protocol => {
                // Whatever it says, it waits.
                if let Some(waits) = self.next_waits(key) {
                    return Some((waits, Left::All));
                }
                let topics = self.topics.as_mut()?;
                self.counters.parsed_bytes += bytes.len() as u64;
                let requests = protocol::parse(bytes, &mut topics.scratch);
                for (place, request) in requests.enumerate() {
                    if place > 0
                        && let Some(waits) = self.next_waits(key)
                    {
                        return Some((waits, Left::From(place)));
                    }
                    let id = request.id;
                    let done = request
                        .command
                        .map_err(Fault::from)
                        .and_then(|command| self.command(key, id, command));
                    match done {
                        Ok(Step::Done) => {}
                        Ok(Step::Waits(waits)) => return Some((waits, Left::From(place))),
                        Err(fault) => self.tell_error(key, id, fault.code, &fault.message),
                    }
                    // Answers come in the order of the commands, as far as they are known here.
                    self.answer_tickets();
                    if !matches!(self.registry.get(key).map(|session| &session.state), Some(State::Open(_))) {
                        return None;
                    }
                }
            }
        }
        None
    }

    /// Does one command. What cannot be done here and now is an error.
    fn command(&mut self, key: Key, id: Option<Id<'_>>, command: Command<'_>) -> Result<Step, Fault> {
        let now_ms = self.now_ms;
        let plan = std::sync::Arc::clone(&self.plan);
        let Some(session) = self.registry.get(key) else { return Ok(Step::Done) };
        let Some(rules) = &plan.route(session.route).topics else { return Ok(Step::Done) };
        let permissions = self.callers.permissions(key);
        let permissions = permissions.as_deref();
        let subscribe_allowed = Allowed::subscribe(&rules.subscribe, permissions);
        let publish_allowed = Allowed::publish(&rules.publish, permissions);
        let presence_allowed = Allowed::presence(&rules.presence, permissions);
        let Some(topics) = &mut self.topics else { return Ok(Step::Done) };
        let Some(member) = topics.member(key) else { return Ok(Step::Done) };
        let (member_id, long_answers) = (member.id, member.long_answers());
        let kept = id.map(Id::keep);
        match command {
            Command::Ping => {
                self.tell_json(key, |out| protocol::write::pong(out, id));
                Ok(Step::Done)
            }
            Command::Auth { token } => {
                let expires_seconds = self.renew(key, &token)?;
                if let Some(id) = id {
                    self.tell_json(key, |out| protocol::write::authenticated(out, id, expires_seconds));
                }
                Ok(Step::Done)
            }
            Command::Subscribe(subscribe) => {
                let text = &*subscribe.topic;
                match Filter::of_subscription(text)? {
                    Filter::Pattern(pattern) => {
                        let asks = subscribe.recover.is_some() || subscribe.history > 0 || subscribe.presence;
                        if asks {
                            return Err(Fault::new(
                                Code::InvalidRequest,
                                "a pattern has no `recover`, `history` or `presence`",
                            ));
                        }
                        if !allows_pattern(subscribe_allowed, &pattern) {
                            return Err(Fault::NOT_ALLOWED);
                        }
                        topics.hub.subscribe_pattern(member_id, &pattern)?;
                        if let Some(id) = id {
                            let standing = Standing {
                                topic: text,
                                position: None,
                                recovered: None,
                                pattern_offset: None,
                            };
                            self.tell_json(key, |out| protocol::write::subscribed(out, id, &standing));
                        }
                        Ok(Step::Done)
                    }
                    Filter::Topic(topic) => {
                        if !subscribe_allowed.matches(text) {
                            return Err(Fault::NOT_ALLOWED);
                        }
                        let sees_presence = presence_allowed.matches(text);
                        if subscribe.presence && !sees_presence {
                            return Err(Fault::new(
                                Code::NotAllowed,
                                "this route does not show presence there",
                            ));
                        }
                        let ask = Ask {
                            recover: subscribe.recover.map(recovery),
                            history: subscribe.history,
                            watches: subscribe.presence,
                            attends: sees_presence,
                            info: subscribe.info.map(Into::into),
                            ..Ask::default()
                        };
                        let asks = ask.recover.is_some() || ask.history > 0;
                        let answer = match asks || topics.hub.keeps_state(&topic) {
                            true => Answer::Long,
                            false => Answer::Short,
                        };
                        if answer == Answer::Long && long_answers >= LONG_ANSWERS {
                            return Ok(Step::Waits(Waits::LongAnswer));
                        }
                        let request = topics.ask(key, kept, answer);
                        let ticket = Ticket { key, request };
                        let done = topics.hub.subscribe(member_id, ticket, &topic, ask, now_ms);
                        self.unless_refused(key, request, done)
                    }
                }
            }
            Command::Unsubscribe { topic: text } => {
                let filter = Filter::parse(&text)?;
                topics.hub.unsubscribe(member_id, &filter)?;
                if let Some(id) = id {
                    self.tell_json(key, |out| protocol::write::unsubscribed(out, Some(id), &text));
                }
                Ok(Step::Done)
            }
            Command::Publish(publish) => {
                let topic = topics.hub.topic_name(&publish.topic)?;
                if !publish_allowed.matches(&publish.topic) {
                    return Err(Fault::NOT_ALLOWED);
                }
                if topics.hub.is_busy(&topic) {
                    return Ok(Step::Waits(Waits::Home(topics.hub.home_of(&topic))));
                }
                let publish = publication(publish, Publisher::Session(key));
                // Without an id only a refusal is told, when its topic's home has said so.
                let Some(kept) = kept else {
                    let ticket = Ticket { key, request: UNACKNOWLEDGED };
                    topics.hub.publish_unacknowledged(ticket, &topic, publish, now_ms)?;
                    return Ok(Step::Done);
                };
                let request = topics.ask(key, Some(kept), Answer::Short);
                let done = topics.hub.publish(Some(Ticket { key, request }), &topic, publish, now_ms);
                self.unless_refused(key, request, done)
            }
            Command::Presence { topic: text } => {
                let topic = topics.hub.topic_name(&text)?;
                if !presence_allowed.matches(&text) {
                    return Err(Fault::NOT_ALLOWED);
                }
                if long_answers >= LONG_ANSWERS {
                    return Ok(Step::Waits(Waits::LongAnswer));
                }
                let request = topics.ask(key, kept, Answer::Long);
                topics.hub.presence(Ticket { key, request }, &topic, now_ms);
                Ok(Step::Done)
            }
            Command::History { topic: text, limit, before } => {
                let topic = topics.hub.topic_name(&text)?;
                if !subscribe_allowed.matches(&text) {
                    return Err(Fault::NOT_ALLOWED);
                }
                if long_answers >= LONG_ANSWERS {
                    return Ok(Step::Waits(Waits::LongAnswer));
                }
                let request = topics.ask(key, kept, Answer::Long);
                topics.hub.history(Ticket { key, request }, &topic, limit, before, now_ms);
                Ok(Step::Done)
            }
        }
    }
}

impl<B: Backend, E: Environment> Shard<B, E> {
    /// What a hub refuses at once is not answered later.
    fn unless_refused(&mut self, key: Key, request: u64, done: Result<(), Refused>) -> Result<Step, Fault> {
        done.map(|()| Step::Done).map_err(|why| {
            if let Some(member) = self.topics.as_mut().and_then(|topics| topics.member_mut(key)) {
                member.answered(request);
            }
            Fault::from(why)
        })
    }

    /// What a session has published without an acknowledgement was refused, here or where its topic lives.
    pub(super) fn not_published(&mut self, key: Key, why: Refused) {
        let Some(member) = self.topics.as_ref().and_then(|topics| topics.member(key)) else { return };
        match member.way {
            // There is no other way to tell.
            Way::Raw { .. } => {
                let (code, reason) = match why {
                    Refused::TooLarge => (CloseCode::TOO_BIG, "larger than the topic takes"),
                    _ => (CloseCode::TRY_AGAIN_LATER, "not published: the gateway is busy"),
                };
                self.violated(key, code, reason);
            }
            Way::Protocol => {
                let fault = Fault::from(why);
                self.tell_error(key, None, fault.code, &fault.message);
            }
            Way::Feed => {}
        }
    }

    /// Sends a message of the protocol.
    pub(crate) fn tell_json(&mut self, key: Key, write: impl FnOnce(&mut Vec<u8>)) {
        self.tell_as(key, Content::Messages { linked: false }, write);
    }

    /// Sends an answer that may be long: how many of them may wait was judged when they were asked for.
    pub(super) fn tell_long(&mut self, key: Key, write: impl FnOnce(&mut Vec<u8>)) {
        self.tell_as(key, Content::Judged, write);
    }

    fn tell_as(&mut self, key: Key, content: Content, write: impl FnOnce(&mut Vec<u8>)) {
        let mut out = vec![0; MAX_HEADER];
        write(&mut out);
        let len = (out.len() - MAX_HEADER) as u64;
        let head = Head { fin: true, rsv1: false, opcode: Opcode::Text, len, mask: None };
        let begin = encode_header_before(&mut out, MAX_HEADER, &head);
        let source = self.turn.keep(out, begin);
        self.emit(key, source, content);
    }

    /// Tells what is wrong, and ends a session that gets too much wrong.
    pub(super) fn tell_error(&mut self, key: Key, id: Option<Id<'_>>, code: Code, message: &str) {
        let now_ms = self.now_ms;
        let Some(member) = self.topics.as_mut().and_then(|topics| topics.member_mut(key)) else { return };
        // What the gateway has no room for is not the client's fault.
        let is_ours = matches!(code, Code::Busy | Code::TooMany);
        if is_ours || member.errors.spend(now_ms, &ERRORS) {
            self.tell_json(key, |out| protocol::write::error(out, id, code, message));
        } else {
            self.violated(key, CloseCode::POLICY_VIOLATION, "too many errors in a short time");
        }
    }
}

/// What a client wants to publish, as the hub takes it.
pub(super) fn publication(publish: protocol::Publish<'_>, publisher: Publisher) -> Publish {
    Publish {
        format: publish.payload.format,
        payload: publish.payload.bytes.into_owned(),
        key: publish.key.map(|key| key.into_owned().into()),
        once: publish.once.map(|once| once.into_owned().into()),
        publisher,
    }
}

/// Whether all topics of a pattern may be subscribed to.
pub(crate) fn allows_pattern(allowed: Allowed<'_>, pattern: &Pattern) -> bool {
    TopicPattern::parse(pattern.as_str()).is_ok_and(|pattern| allowed.covers(&pattern))
}

/// Where a client wants to go on from. From what nobody here has written nothing can be recovered.
pub(super) fn recovery(recover: Recover) -> Position {
    match recover {
        Recover::From(at) => at,
        Recover::Foreign => Position::NOWHERE,
    }
}
