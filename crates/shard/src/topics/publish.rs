//! Publishing by POST.

use std::borrow::Cow;

use tidegate_config::PublishAction;
use tidegate_hub::{
    Position, Publisher, Refused, RouteId, Ticket, TopicName,
    protocol::{self, Acceptance, Code, PublishFields, Results},
};
use tidegate_io::Backend;
use tidegate_registry::Key;
use tidegate_wire::http::{BodyReader, Refusal, Request};

use super::{
    allowed::Allowed,
    commands::publication,
    exchange::{ANSWER_MS, Answer, Exchange, JSON, Manner, Stage},
    fault::Fault,
};
use crate::{
    environment::Environment,
    identity::{Found, bearer_of},
    output::Content,
    session::State,
    shard::Shard,
};

/// A body that arrives.
pub(crate) struct Body {
    pub(crate) bytes: Vec<u8>,
    reader: BodyReader,
    /// The topic that the path names.
    topic: Option<String>,
    content_type: Option<String>,
    conflation_key: Option<String>,
    once: Option<String>,
    /// The place of the key that was presented.
    publish_key: Option<u16>,
}

/// Publications of one request, on their way to their homes.
#[derive(Default)]
pub(crate) struct Publishing {
    outcomes: Vec<Option<Outcome>>,
    missing: u32,
}

/// What became of one.
enum Outcome {
    Accepted {
        topic: TopicName,
        position: Position,
        duplicate: bool,
    },
    /// Or not known: then the fault says so.
    Refused(Fault),
}

impl Body {
    /// Takes what of `bytes` belongs to the body; gives how much.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> usize {
        let taken = self.reader.take(bytes.len());
        self.bytes.extend_from_slice(&bytes[..taken]);
        taken
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.reader.is_complete()
    }
}

const NO_KEY: Refusal = Refusal {
    status: 401,
    reason: "this route wants a key: Authorization: Bearer KEY",
    close: true,
    fields: &[("WWW-Authenticate", "Bearer")],
};

pub(super) const POST_ONLY: Refusal =
    Refusal { status: 405, reason: "publish with POST", close: true, fields: &[("Allow", "POST, OPTIONS")] };

const NO_LENGTH: Refusal = Refusal::new(411, "a body needs a Content-Length");

impl<B: Backend, E: Environment> Shard<B, E> {
    /// A request to a route that publishes.
    pub(super) fn begin_publish(
        &mut self,
        key: Key,
        id: RouteId,
        request: &Request<'_>,
        action: &PublishAction,
        below: Option<&str>,
        manner: &Manner,
    ) -> Result<(), Refusal> {
        if request.method == "OPTIONS" {
            super::no_body(request)?;
            self.answer_preflight(key, manner, "POST");
            return Ok(());
        }
        let publish_key = match action.keys.is_empty() {
            true => None,
            false => Some(presented(request, action).ok_or(NO_KEY)?),
        };
        let length = request.content_length()?.ok_or(NO_LENGTH)?;
        if length > action.body_bytes as u64 {
            return Err(Refusal::BODY_TOO_LARGE);
        }
        let one = |name| request.fields.one(name).map(|value| value.map(str::to_owned));
        let topic = match below.map(protocol::topic_of_path) {
            None => None,
            Some(Ok(topic)) => Some(topic.into_owned()),
            Some(Err(problem)) => {
                let manner = Manner { keep_alive: false, ..manner.clone() };
                self.answer_fault(key, &manner, &problem.into());
                return Ok(());
            }
        };
        let body = Body {
            // Memory is bounded by what was received, never by what was declared.
            bytes: Vec::new(),
            reader: BodyReader::new(length),
            topic,
            content_type: one("content-type")?,
            conflation_key: one("tidegate-key")?,
            once: one("idempotency-key")?,
            publish_key,
        };
        if request.expects_continue() && length > 0 {
            self.emit_small(key, b"HTTP/1.1 100 Continue\r\n\r\n", Content::WHOLE);
        }
        let deadline_ms = self.now_ms + self.plan.route(id).limits.message_timeout_ms;
        let empty = body.is_complete();
        self.begin_exchange(key, Exchange::new(Stage::Body(body), manner.clone(), deadline_ms));
        if empty {
            self.body_arrived(key);
        }
        Ok(())
    }

    /// The whole body is there.
    pub(super) fn body_arrived(&mut self, key: Key) {
        let plan = std::sync::Arc::clone(&self.plan);
        let now_ms = self.now_ms;
        let Some(session) = self.registry.get_mut(key) else { return };
        let Some(action) = &plan.route(session.route).publish else { return };
        let State::Exchange(exchange) = &mut session.state else { return };
        let manner = exchange.manner.clone();
        exchange.deadline_ms = now_ms + ANSWER_MS;
        let stage = std::mem::replace(&mut exchange.stage, Stage::Publishing(Publishing::default()));
        let Stage::Body(body) = stage else { return };
        self.recount(body.bytes.capacity(), 0);
        let Some(topics) = &mut self.topics else { return };
        let parsed = match &body.topic {
            None => protocol::publications(body.content_type.as_deref(), &body.bytes, &mut topics.scratch),
            Some(topic) => {
                let fields = PublishFields {
                    content_type: body.content_type.as_deref(),
                    key: body.conflation_key.as_deref(),
                    idempotency_key: body.once.as_deref(),
                };
                protocol::publication(Cow::Borrowed(topic), fields, &body.bytes).map(|one| vec![Ok(one)])
            }
        };
        let requests = match parsed {
            Ok(requests) => requests,
            Err(problem) => {
                self.answer_fault(key, &manner, &problem.into());
                return;
            }
        };
        let count = requests.len() as u32;
        if !self.spend_publications(key, count, action.rate) {
            let mut out = Vec::new();
            protocol::push_error(&mut out, Code::Busy, "more messages in a second than this route takes");
            self.answer_request(
                key,
                &manner,
                429,
                JSON,
                Answer::Own(&out),
                &[],
                "more messages than the route's rate",
            );
            return;
        }
        let mut publishing = Publishing::default();
        let first_request = self.topics.as_mut().map_or(0, |topics| topics.number(u64::from(count)));
        let route = self.registry.get(key).map_or(RouteId(0), |session| session.route);
        let most = plan.route(route).messages.message_bytes;
        let permissions = self.callers.permissions(key);
        let allowed = Allowed::publish(&action.publish, permissions.as_deref());
        let holder = |place| plan.route(route).holder(place);
        let publisher = body.publish_key.map_or(Publisher::Session(key), holder);
        for (place, request) in requests.into_iter().enumerate() {
            let done = request.map_err(Fault::from).and_then(|publish| {
                let Some(topics) = &mut self.topics else { return Err(Fault::from(Refused::Busy)) };
                let topic = topics.hub.topic_name(&publish.topic).map_err(Fault::from)?;
                let by_key = body.publish_key.map(|place| &action.keys[usize::from(place)].publish);
                if !allowed.matches(topic.as_str())
                    || by_key.is_some_and(|patterns| !patterns.matches(topic.as_str()))
                {
                    return Err(Fault::NOT_ALLOWED);
                }
                if publish.payload.bytes.len() > most {
                    return Err(Fault::from(Refused::TooLarge));
                }
                let ticket = Ticket { key, request: first_request + place as u64 };
                let publish = publication(publish, publisher);
                topics.hub.publish(Some(ticket), &topic, publish, now_ms).map_err(Fault::from)
            });
            let outcome = done.err().map(Outcome::Refused);
            publishing.missing += u32::from(outcome.is_none());
            publishing.outcomes.push(outcome);
        }
        let Some(exchange) = self.exchange_mut(key) else { return };
        exchange.stage = Stage::Publishing(publishing);
        exchange.first_request = first_request;
        self.ensure_deadline(key, now_ms + ANSWER_MS);
        self.finish_publishing(key);
    }

    /// A publication of a request is in its topic, or was refused there.
    pub(super) fn published(&mut self, key: Key, place: u64, reply: tidegate_hub::Reply) {
        let Some(exchange) = self.exchange_mut(key) else { return };
        let Stage::Publishing(publishing) = &mut exchange.stage else { return };
        let Some(place) = usize::try_from(place).ok().and_then(|place| publishing.outcomes.get_mut(place))
        else {
            return;
        };
        let outcome = match reply {
            tidegate_hub::Reply::Published { topic, position: at, duplicate } => {
                Outcome::Accepted { topic, position: at, duplicate }
            }
            tidegate_hub::Reply::Refused { why, .. } => Outcome::Refused(Fault::from(why)),
            _ => return,
        };
        if place.replace(outcome).is_none() {
            publishing.missing -= 1;
        }
        self.finish_publishing(key);
    }

    /// Not all homes have answered: what they were sent is on its way to them yet, or was done.
    pub(super) fn publishing_timed_out(&mut self, key: Key) {
        let Some(exchange) = self.exchange_mut(key) else { return };
        let Stage::Publishing(publishing) = &mut exchange.stage else { return };
        for outcome in publishing.outcomes.iter_mut().filter(|outcome| outcome.is_none()) {
            *outcome = Some(Outcome::Refused(Fault::UNKNOWN));
        }
        publishing.missing = 0;
        self.finish_publishing(key);
    }

    /// It is not waited for any more, for what its client has sent behind it. That it was refused cannot be said.
    pub(crate) fn give_up_publishing(&mut self, key: Key) {
        let Some(exchange) = self.exchange_mut(key) else { return };
        exchange.manner.keep_alive = false;
        self.publishing_timed_out(key);
    }

    fn finish_publishing(&mut self, key: Key) {
        let Some(exchange) = self.exchange_mut(key) else { return };
        let Stage::Publishing(publishing) = &exchange.stage else { return };
        if publishing.missing > 0 {
            return;
        }
        let mut results = Results::new();
        for outcome in publishing.outcomes.iter().flatten() {
            match outcome {
                Outcome::Accepted { topic, position, duplicate } => results.accepted(&Acceptance {
                    topic: topic.as_str(),
                    position: *position,
                    duplicate: *duplicate,
                }),
                Outcome::Refused(fault) => results.refused(fault.code, &fault.message),
            }
        }
        let (status, body) = results.finish();
        self.answer_exchange(key, status, JSON, &body);
    }

    /// Whether so many more messages may be published in this second.
    fn spend_publications(&mut self, key: Key, count: u32, rate: u32) -> bool {
        let now_ms = self.now_ms;
        let Some(session) = self.registry.get(key) else { return false };
        let route = session.route;
        let Some(topics) = &mut self.topics else { return false };
        topics.rates.spend(route, count, rate, now_ms)
    }
}

/// Which key a request presents.
fn presented(request: &Request<'_>, action: &PublishAction) -> Option<u16> {
    let Found::Token(given) = bearer_of(request) else { return None };
    // All of them are compared, each in constant time: the answer's time tells nothing of them.
    let mut found = None;
    for (place, key) in (0..).zip(&action.keys) {
        if key.secret.is(&given) {
            found = Some(place);
        }
    }
    found
}
