//! Requests of HTTP that take longer than their head: publishing, asking, polling, streams of events.
//!
//! ```text
//!            ┌─► Body ──► Publishing ─┐
//! Head ──────┼─► Asking ──────────────┼──► answer ──► Head (kept alive) or Lingering
//!            ├─► Polling ─────────────┘
//!            └─► Streaming ──► Lingering
//! ```
//! What a client sends behind its request waits until it is answered.

use tidegate_config::Action;
use tidegate_hub::{
    RouteId,
    protocol::{self, Code},
};
use tidegate_io::Backend;
use tidegate_registry::{Frame, Key};
use tidegate_wire::http::{self, Refusal, Request, Version};

use super::{
    fault::Fault,
    feed::Kept,
    poll::Polling,
    publish::{Body, POST_ONLY, Publishing},
    stream::Streaming,
};
use crate::{
    environment::Environment,
    head::DRAINED,
    identity::{BAD_TOKEN, Halt},
    log::{Level, What},
    output::Content,
    session::State,
    shard::Shard,
    stamp::Stamp,
};

/// What is kept of what a client sends behind a request that is not answered yet, about: then it is not read.
const EARLY_BYTES: usize = 16 << 10;

/// How long topics may take to answer; they are in memory, on this machine.
pub(super) const ANSWER_MS: u64 = 10_000;

/// The topics of another shard have not answered.
const NO_ANSWER: Refusal = Refusal {
    status: 503,
    reason: "topics did not answer in time",
    close: true,
    fields: &[("Retry-After", "1")],
};

/// They will never be read.
const STRAY_BYTES: Refusal = Refusal::new(400, "nothing follows a request for a stream");

/// RFC 9110 §15.5.9.
const BODY_TIMEOUT: Refusal = Refusal::new(408, "the request's body did not arrive in time");

/// A request under way.
pub(crate) struct Exchange {
    pub(crate) stage: Stage,
    pub(crate) manner: Manner,
    /// By when it must be over or answered; `u64::MAX` for a stream.
    pub(crate) deadline_ms: u64,
    /// What came behind the request.
    pub(crate) early: Vec<u8>,
    /// The number of the first of what it asks its topics; the others follow. What was asked before on this connection, and is
    /// answered late, has a smaller one.
    pub(super) first_request: u64,
    /// The client has sent its FIN.
    pub(super) ended: bool,
    /// Bytes that came behind the request of a stream, which has no end that they could wait for.
    stray_bytes: usize,
}

/// How a request is to be answered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Manner {
    pub(crate) keep_alive: bool,
    pub(crate) head_only: bool,
    /// The bytes of a stream come in chunks.
    pub(crate) chunked: bool,
    /// The origin that may read the answer (Fetch, CORS protocol).
    pub(crate) cors: Option<Box<str>>,
}

/// How far it is.
pub(crate) enum Stage {
    /// Its body arrives.
    Body(Body),
    /// Its publications are on their way.
    Publishing(Publishing),
    /// It asks what a topic is like.
    Asking,
    /// It waits for a message.
    Polling(Polling),
    /// It gets all messages.
    Streaming(Streaming),
}

impl Exchange {
    pub(crate) fn new(stage: Stage, manner: Manner, deadline_ms: u64) -> Self {
        let first_request = match &stage {
            Stage::Streaming(stream) => stream.feed.first_request(),
            Stage::Polling(poll) => poll.feed.first_request(),
            // Nothing is asked yet.
            Stage::Body(_) | Stage::Publishing(_) | Stage::Asking => u64::MAX,
        };
        Self { stage, manner, deadline_ms, early: Vec::new(), first_request, ended: false, stray_bytes: 0 }
    }

    /// Whether it is a stream whose head has gone: no other answer fits behind that.
    pub(crate) fn has_begun(&self) -> bool {
        matches!(&self.stage, Stage::Streaming(stream) if stream.has_begun())
    }

    /// The heap that it holds of what the client has sent.
    pub(crate) fn held_bytes(&self) -> usize {
        let body = match &self.stage {
            Stage::Body(body) => body.bytes.capacity(),
            Stage::Publishing(_) | Stage::Asking | Stage::Polling(_) | Stage::Streaming(_) => 0,
        };
        body + self.early.capacity()
    }

    /// What is kept for it of its topics' publications.
    pub(super) fn kept(&self) -> Option<&Kept> {
        match &self.stage {
            Stage::Streaming(stream) => Some(&stream.feed.kept),
            Stage::Polling(poll) => Some(&poll.feed.kept),
            Stage::Body(_) | Stage::Publishing(_) | Stage::Asking => None,
        }
    }
}

/// What an answer says.
#[derive(Clone, Copy)]
pub(super) enum Answer<'a> {
    /// Bytes of its own.
    Own(&'a [u8]),
    /// Bytes that others are answered with as well.
    Shared(&'a Frame),
}

impl Manner {
    /// As a request wants it. `cors`: the origin that may read the answer, where it is a foreign one.
    pub(crate) fn of(request: &Request<'_>, cors: Option<&str>, draining: bool) -> Self {
        Self {
            keep_alive: request.keep_alive() && !draining,
            head_only: request.is_head(),
            chunked: request.version == Version::Http11,
            cors: cors.map(Into::into),
        }
    }
}

/// Lets methods pass that a route of topics has. What no caller may send is refused before anybody is asked who the caller is.
fn check_method(action: &Action, request: &Request<'_>) -> Result<(), Refusal> {
    if request.method == "OPTIONS" {
        return Ok(());
    }
    match action {
        Action::Topics(_) | Action::Events(_) | Action::Poll(_) => super::get_only(request),
        Action::Publish(_) if request.method != "POST" => Err(POST_ONLY),
        Action::Publish(_) | Action::Page(_) | Action::Echo(_) | Action::Proxy(_) => Ok(()),
    }
}

impl<B: Backend, E: Environment> Shard<B, E> {
    /// A request to a route of topics that is no upgrade. What is wrong with it is told as such routes tell it: as JSON, which
    /// pages of the origins that may come here can read.
    ///
    /// # Errors
    /// Where it waits for a hook, or finds no room on its route.
    pub(crate) fn begin_request(&mut self, key: Key, id: RouteId, request: &Request<'_>) -> Result<(), Halt> {
        let plan = std::sync::Arc::clone(&self.plan);
        let route = &plan.route(id).route;
        let below = route.path.below(request.target.path);
        let mut manner = Manner::of(request, None, self.is_ending());
        let admitted = self.cors(key, id, request).map_err(Halt::from).and_then(|cors| {
            manner.cors = cors.map(Into::into);
            if !self.upstreams.takes(id) {
                return Err(DRAINED.into());
            }
            check_method(&route.action, request)?;
            // What a browser asks before a request has no token (Fetch, CORS-preflight), and its answer tells nothing.
            if request.method == "OPTIONS" { Ok(()) } else { self.admit(key, id, request) }
        });
        match admitted {
            Ok(()) => {}
            Err(Halt::Refused(refusal)) => {
                self.refuse_request(key, &manner, &refusal);
                return Ok(());
            }
            Err(Halt::Asked(asked)) => return Err(asked.answered_in(manner).into()),
        }
        let is_stream = matches!(route.action, Action::Events(_)) && request.method != "OPTIONS";
        let entered = if is_stream { self.enter_route(key, id) } else { Ok(()) };
        let outcome = entered.and_then(|()| match &route.action {
            Action::Topics(action) => {
                self.ask_state(key, request, action, below.unwrap_or_default(), &manner)
            }
            Action::Events(action) => self.begin_events(key, request, action, &manner),
            Action::Poll(action) => self.begin_poll(key, request, action, &manner),
            Action::Publish(action) => self.begin_publish(key, id, request, action, below, &manner),
            Action::Page(_) | Action::Echo(_) | Action::Proxy(_) => Err(Refusal::NOT_FOUND),
        });
        if let Err(refusal) = outcome {
            self.refuse_request(key, &manner, &refusal);
        }
        Ok(())
    }

    /// A session's request takes longer from here on.
    pub(super) fn begin_exchange(&mut self, key: Key, exchange: Exchange) {
        let deadline_ms = exchange.deadline_ms;
        self.wheel.cancel(key.index());
        let Some(session) = self.registry.get_mut(key) else { return };
        session.state = State::Exchange(Box::new(exchange));
        if deadline_ms != u64::MAX {
            self.ensure_deadline(key, deadline_ms);
        }
        self.look_again(key);
    }

    pub(super) fn exchange_mut(&mut self, key: Key) -> Option<&mut Exchange> {
        match &mut self.registry.get_mut(key)?.state {
            State::Exchange(exchange) => Some(exchange),
            _ => None,
        }
    }

    /// Bytes for a request under way: its body, or what comes behind it.
    pub(crate) fn read_exchange(&mut self, key: Key, bytes: &[u8]) -> usize {
        let now = Stamp::at(self.now_ms);
        let Some(session) = self.registry.get_mut(key) else { return bytes.len() };
        let State::Exchange(exchange) = &mut session.state else { return bytes.len() };
        let held = exchange.held_bytes();
        match &mut exchange.stage {
            Stage::Body(body) => {
                let taken = body.take(bytes);
                let is_complete = body.is_complete();
                let holds = exchange.held_bytes();
                self.recount(held, holds);
                if is_complete {
                    self.body_arrived(key);
                }
                taken
            }
            Stage::Streaming(_) => {
                exchange.stray_bytes += bytes.len();
                if exchange.stray_bytes > EARLY_BYTES {
                    match self.has_begun(key) {
                        true => self.end_stream(key),
                        false => self.refuse_exchange(key, &STRAY_BYTES),
                    }
                }
                bytes.len()
            }
            Stage::Publishing(_) | Stage::Asking | Stage::Polling(_) => {
                if exchange.early.is_empty() {
                    session.since = now;
                }
                exchange.early.extend_from_slice(bytes);
                let is_full = exchange.early.len() >= EARLY_BYTES;
                let holds = exchange.held_bytes();
                self.recount(held, holds);
                if is_full {
                    self.pause(key);
                }
                bytes.len()
            }
        }
    }

    /// Answers a request under way, and reads on behind it.
    pub(super) fn answer_exchange(&mut self, key: Key, status: u16, content_type: &str, body: &[u8]) {
        let Some(exchange) = self.exchange_mut(key) else { return };
        let manner = exchange.manner.clone();
        self.answer_request(
            key,
            &manner,
            status,
            content_type,
            Answer::Own(body),
            &[],
            "not all was published",
        );
    }

    /// Refuses a request under way.
    pub(crate) fn refuse_exchange(&mut self, key: Key, refusal: &Refusal) {
        let Some(exchange) = self.exchange_mut(key) else { return };
        let manner = exchange.manner.clone();
        self.refuse_request(key, &manner, refusal);
    }

    /// Refuses a request, and all that follows it.
    pub(crate) fn refuse_request(&mut self, key: Key, manner: &Manner, refusal: &Refusal) {
        let manner = Manner { keep_alive: manner.keep_alive && !refusal.close, ..manner.clone() };
        let code = match refusal.status {
            401 if *refusal == BAD_TOKEN => Code::InvalidToken,
            401 | 403 => Code::NotAllowed,
            413 | 414 | 431 => Code::TooLarge,
            429 => Code::TooMany,
            500.. => Code::Busy,
            _ => Code::InvalidRequest,
        };
        let mut body = Vec::new();
        protocol::push_error(&mut body, code, refusal.reason);
        let reason = refusal.reason;
        self.answer_request(key, &manner, refusal.status, JSON, Answer::Own(&body), refusal.fields, reason);
    }

    /// Answers a request; the next one may follow. `reason`: for the log, where it is refused.
    #[expect(clippy::too_many_arguments, reason = "an answer has so many parts")]
    pub(super) fn answer_request(
        &mut self,
        key: Key,
        manner: &Manner,
        status: u16,
        content_type: &str,
        body: Answer<'_>,
        more: &[(&str, &str)],
        reason: &'static str,
    ) {
        let date = http::http_date(self.environment.unix_seconds());
        let mut fields =
            vec![("Date", &*date), ("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")];
        fields.extend_from_slice(more);
        if let Some(origin) = &manner.cors {
            fields.extend([("Access-Control-Allow-Origin", &**origin), ("Vary", "Origin")]);
        }
        if matches!(status, 429 | 503) && !more.iter().any(|(name, _)| *name == "Retry-After") {
            fields.push(("Retry-After", "1"));
        }
        let keep_alive = manner.keep_alive && !self.is_ending() && !self.has_past_certificate(key);
        let (bytes, apart) = match body {
            Answer::Own(bytes) => (bytes, false),
            Answer::Shared(frame) => (&**frame, true),
        };
        let head_only = manner.head_only || apart;
        let response = http::page_response(status, content_type, bytes, head_only, keep_alive, &fields);
        if status >= 400 {
            self.count_refused(status);
            self.log(Level::Info, Some(key), What::Refused { status, reason });
        }
        let source = self.turn.keep(response, 0);
        self.emit(key, source, Content::WHOLE);
        if let Answer::Shared(frame) = body
            && !manner.head_only
        {
            let source = self.turn.keep_shared(frame);
            self.emit(key, source, Content::Judged);
        }
        if keep_alive {
            let early = self.exchange_mut(key).map(|exchange| std::mem::take(&mut exchange.early));
            let head = self.new_head(self.now_ms, true);
            self.release_state(key, head);
            if let Some(session) = self.registry.get_mut(key) {
                // What it had has nothing to do with what it has next.
                session.leave_route();
            }
            self.ensure_deadline(key, self.now_ms + self.head_timeout_ms());
            if let Some(early) = early {
                self.recount(early.capacity(), 0);
                self.resume(key);
                self.keep_early(key, early);
            }
        } else {
            // A body that is somewhat too long, or comes without a key, is read to its end.
            let route = self.registry.get(key).map(|session| self.plan.route(session.route));
            let publish = route.and_then(|route| route.publish.as_ref());
            let body_bytes = publish.map_or(0, |publish| publish.body_bytes);
            self.linger_behind_request(key, body_bytes);
        }
    }

    /// Answers with an error of the protocol.
    pub(super) fn answer_fault(&mut self, key: Key, manner: &Manner, fault: &Fault) {
        let mut body = Vec::new();
        protocol::push_error(&mut body, fault.code, &fault.message);
        self.answer_request(
            key,
            manner,
            fault.code.status(),
            JSON,
            Answer::Own(&body),
            &[],
            fault.code.name(),
        );
    }

    /// What was awaited of a request did not come in time.
    pub(crate) fn exchange_timed_out(&mut self, key: Key) {
        let Some(exchange) = self.exchange_mut(key) else { return };
        match exchange.stage {
            Stage::Body(_) => self.refuse_exchange(key, &BODY_TIMEOUT),
            Stage::Publishing(_) => self.publishing_timed_out(key),
            Stage::Asking => self.refuse_exchange(key, &NO_ANSWER),
            Stage::Polling(ref poll) if poll.feed.is_ready() => self.answer_poll(key),
            // Its topics have not answered: where they are is not known.
            Stage::Polling(_) | Stage::Streaming(_) => self.refuse_exchange(key, &NO_ANSWER),
        }
    }

    /// The client has sent its FIN.
    pub(crate) fn exchange_ended(&mut self, key: Key) {
        let Some(exchange) = self.exchange_mut(key) else { return };
        exchange.manner.keep_alive = false;
        exchange.ended = true;
        match &mut exchange.stage {
            // The rest of it will not come.
            Stage::Body(_) => self.end_answered(key, false),
            Stage::Publishing(_) | Stage::Asking => {}
            // Most who close their side are gone, and some read on: all get an end in order, and nobody is waited for.
            Stage::Polling(poll) => {
                poll.hurry();
                self.look_at_poll(key);
            }
            Stage::Streaming(_) => {
                if self.has_begun(key) {
                    self.end_stream(key);
                }
            }
        }
    }

    /// Its route is no more, or the gateway ends: what takes as long as anybody likes ends in order, so that the client asks again.
    /// False where it goes on: it is over soon by itself.
    pub(crate) fn depart_exchange(&mut self, key: Key) -> bool {
        let Some(exchange) = self.exchange_mut(key) else { return true };
        match exchange.stage {
            Stage::Body(_) | Stage::Publishing(_) | Stage::Asking => false,
            Stage::Polling(ref poll) if poll.feed.is_ready() => {
                self.answer_poll(key);
                true
            }
            Stage::Polling(_) => false,
            Stage::Streaming(_) => {
                self.end_stream(key);
                true
            }
        }
    }

    /// The token of a request is over: a stream ends, a poll is answered with what there is, and what waits for something is
    /// refused.
    pub(crate) fn exchange_expired(&mut self, key: Key) {
        let has_begun = self.has_begun(key);
        let Some(exchange) = self.exchange_mut(key) else { return };
        match exchange.stage {
            Stage::Publishing(_) | Stage::Asking => {}
            Stage::Polling(ref poll) if poll.feed.is_ready() => self.answer_poll(key),
            Stage::Streaming(_) if has_begun => self.end_stream(key),
            Stage::Body(_) | Stage::Polling(_) | Stage::Streaming(_) => self.refuse_exchange(key, &BAD_TOKEN),
        }
    }

    /// The gateway drains at once.
    pub(crate) fn drain_exchange(&mut self, key: Key) {
        let Some(exchange) = self.exchange_mut(key) else { return };
        exchange.manner.keep_alive = false;
        match exchange.stage {
            Stage::Body(_) => self.refuse_exchange(key, self.leaving_refusal()),
            Stage::Publishing(_) | Stage::Asking => {}
            Stage::Polling(ref poll) if poll.feed.is_ready() => self.answer_poll(key),
            Stage::Polling(_) => self.refuse_exchange(key, self.leaving_refusal()),
            Stage::Streaming(_) => self.end_stream(key),
        }
    }
}

/// The type of answers.
pub(super) const JSON: &str = "application/json";
