//! Requests to routes with topics: sessions that open, and questions.

use tidegate_config::TopicsAction;
use tidegate_hub::{
    Class, ClientId, Envelope, MemberRules, RouteId, Ticket, TopicName,
    protocol::{self, StateQuery},
};
use tidegate_io::Backend;
use tidegate_registry::Key;
use tidegate_wire::{
    close::CloseCode,
    http::{Refusal, Request},
};

use super::{
    allowed::Allowed,
    exchange::{ANSWER_MS, Answer, Exchange, Manner, Stage},
    fault::Fault,
    member::{self, Member, Way},
};
use crate::{environment::Environment, head::FOREIGN_ORIGIN, session::State, shard::Shard};

const GET_ONLY: Refusal = Refusal {
    status: 405,
    reason: "this is read with GET",
    close: true,
    fields: &[("Allow", "GET, HEAD, OPTIONS")],
};

const BODY: Refusal = Refusal::new(400, "this request takes no body");

/// The name in a path is none, or broken.
const NO_TOPIC: Refusal = Refusal::new(404, "this path names no topic");

const RAW_NOT_ALLOWED: Refusal = Refusal::new(403, "this route does not allow this topic");

/// Lets requests without a body pass: what is not read as one must not be read as the next request.
pub(super) fn no_body(request: &Request<'_>) -> Result<(), Refusal> {
    if request.content_length()?.is_some_and(|length| length > 0) { Err(BODY) } else { Ok(()) }
}

/// Lets GET and HEAD pass.
pub(super) fn get_only(request: &Request<'_>) -> Result<(), Refusal> {
    no_body(request)?;
    // What is no method at all is told so.
    request.check_page_method().map_err(|refusal| if refusal.status == 405 { GET_ONLY } else { refusal })
}

impl<B: Backend, E: Environment> Shard<B, E> {
    /// A session on a route with topics has opened: who it is for the hub. `below` is the rest of the path.
    pub(crate) fn enter_topics(&mut self, key: Key, action: &TopicsAction, way: Way) {
        let bits = self.environment.draw_seed();
        let Some(State::Open(open)) = self.registry.get(key).map(|session| &session.state) else { return };
        let envelope = match way {
            Way::Protocol => Envelope::Protocol,
            Way::Raw { .. } => Envelope::Raw,
            Way::Feed => return,
        };
        let class = match open.compression.as_ref().map(tidegate_wire::deflate::Compression::window_bits) {
            // What zlib cannot do is not done.
            Some(bits) if bits >= 9 => Class::deflated(envelope, bits),
            Some(_) | None => Class::plain(envelope),
        };
        let now_ms = self.now_ms;
        let Some(session) = self.registry.get(key) else { return };
        let ping_ms = self.plan.route(session.route).limits.ping_interval_ms;
        let permissions = self.callers.permissions(key);
        let Some(topics) = &mut self.topics else { return };
        let client = ClientId::from_bits(bits);
        let rules = MemberRules { subscriptions: action.max_subscriptions, patterns: action.max_patterns };
        let id = topics.hub.enter(key, class, client, rules);
        let raw = match &way {
            Way::Raw { topic, .. } => Some(topic.clone()),
            Way::Protocol | Way::Feed => None,
        };
        topics.put(Member::new(key, id, class, way));
        match raw {
            Some(topic) => {
                if Allowed::subscribe(&action.subscribe, permissions.as_deref()).matches(topic.as_str()) {
                    let request = topics.ask(key, None, member::Answer::Short);
                    let ticket = Ticket { key, request };
                    let asked =
                        topics.hub.subscribe(id, ticket, &topic, tidegate_hub::Ask::default(), now_ms);
                    if asked.is_err() {
                        self.violated(key, CloseCode::TRY_AGAIN_LATER, "not subscribed");
                    }
                }
            }
            None => {
                let seconds = u32::try_from(ping_ms.div_ceil(1_000)).unwrap_or(u32::MAX);
                let expires_seconds = self.token_seconds(key);
                self.tell_json(key, |out| {
                    protocol::write::hello(out, client.as_str(), seconds, expires_seconds);
                });
            }
        }
    }

    /// How a session on a route with topics speaks, by the rest of its path.
    pub(crate) fn topics_way(
        &self,
        key: Key,
        action: &TopicsAction,
        below: Option<&str>,
    ) -> Result<Way, Refusal> {
        let Some(below) = below else { return Ok(Way::Protocol) };
        let text = protocol::topic_of_path(below).map_err(|_| NO_TOPIC)?;
        let topic = TopicName::parse(&text).map_err(|_| NO_TOPIC)?;
        let permissions = self.callers.permissions(key);
        let subscribes = Allowed::subscribe(&action.subscribe, permissions.as_deref()).matches(&text);
        let publishes = Allowed::publish(&action.publish, permissions.as_deref()).matches(&text);
        if subscribes || publishes { Ok(Way::Raw { topic, publishes }) } else { Err(RAW_NOT_ALLOWED) }
    }

    /// A request that is no upgrade: what a topic is like now.
    pub(super) fn ask_state(
        &mut self,
        key: Key,
        request: &Request<'_>,
        action: &TopicsAction,
        below: &str,
        manner: &Manner,
    ) -> Result<(), Refusal> {
        no_body(request)?;
        if request.method == "OPTIONS" {
            self.answer_preflight(key, manner, "GET");
            return Ok(());
        }
        let query = match StateQuery::parse(request.target.query.unwrap_or_default()) {
            Ok(query) => query,
            Err(problem) => {
                self.answer_fault(key, manner, &problem.into());
                return Ok(());
            }
        };
        let permissions = self.callers.permissions(key);
        let subscribe = Allowed::subscribe(&action.subscribe, permissions.as_deref());
        let topic = protocol::topic_of_path(below)
            .map_err(Fault::from)
            .and_then(|text| TopicName::parse(&text).map_err(Fault::from))
            .and_then(|topic| match subscribe.matches(topic.as_str()) {
                true => Ok(topic),
                false => Err(Fault::NOT_ALLOWED),
            });
        let now_ms = self.now_ms;
        match topic {
            Ok(topic) => {
                let presence = Allowed::presence(&action.presence, permissions.as_deref());
                let presence = presence.matches(topic.as_str()).then_some(query.clients);
                self.begin_exchange(key, Exchange::new(Stage::Asking, manner.clone(), now_ms + ANSWER_MS));
                let Some(topics) = &mut self.topics else { return Ok(()) };
                let request = topics.number(1);
                topics.hub.state(Ticket { key, request }, &topic, presence, now_ms);
                if let Some(exchange) = self.exchange_mut(key) {
                    exchange.first_request = request;
                }
            }
            Err(problem) => self.answer_fault(key, manner, &problem),
        }
        Ok(())
    }

    /// The foreign origin that a request comes from, where it may; nothing where it is this gateway's own or none.
    pub(super) fn cors<'b>(
        &self,
        key: Key,
        id: RouteId,
        request: &Request<'b>,
    ) -> Result<Option<&'b str>, Refusal> {
        let origin = request.fields.one("origin")?;
        if self.allows_origin(key, id, request, origin) { Ok(origin) } else { Err(FOREIGN_ORIGIN) }
    }

    /// Answers what a browser asks before it sends a request of a foreign page (Fetch, CORS-preflight).
    pub(super) fn answer_preflight(&mut self, key: Key, manner: &Manner, method: &str) {
        let more = [
            ("Access-Control-Allow-Methods", method),
            (
                "Access-Control-Allow-Headers",
                "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, Tidegate-Key",
            ),
            ("Access-Control-Max-Age", "600"),
        ];
        self.answer_request(key, manner, 200, "text/plain", Answer::Own(b""), &more, "");
    }
}
