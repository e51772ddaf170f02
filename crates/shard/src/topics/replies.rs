//! What the hub answers, on its way to who has asked.

use std::sync::Arc;

use tidegate_hub::{
    Present, Publication, Reply, Ticket,
    protocol::{self, Acceptance, Standing},
};
use tidegate_io::Backend;
use tidegate_registry::Key;
use tidegate_wire::close::CloseCode;

use super::{
    UNACKNOWLEDGED,
    exchange::{JSON, Stage},
    fanout::takes_messages,
    fault::Fault,
    frame::{Tools, content},
    member::Way,
};
use crate::{
    environment::Environment,
    output::Content,
    planted::{self, Bug},
    session::State,
    shard::Shard,
};

impl<B: Backend, E: Environment> Shard<B, E> {
    /// All answers that are there.
    pub(super) fn answer_tickets(&mut self) {
        while let Some((ticket, reply)) = self.topics.as_mut().and_then(|topics| topics.hub.poll_reply()) {
            self.answer_ticket(ticket, reply);
            self.flush_spans();
        }
    }

    fn answer_ticket(&mut self, Ticket { key, request }: Ticket, reply: Reply) {
        if let Some(State::Exchange(_)) = self.registry.get(key).map(|session| &session.state) {
            self.answer_to_exchange(key, request, reply);
            return;
        }
        // Nothing follows a Close.
        if !self.registry.get(key).is_some_and(takes_messages) {
            return;
        }
        if let (UNACKNOWLEDGED, Reply::Refused { why, .. }) = (request, &reply) {
            self.not_published(key, *why);
            return;
        }
        let Some(member) = self.topics.as_mut().and_then(|topics| topics.member_mut(key)) else { return };
        let Some(id) = member.answered(request) else { return };
        let is_raw = matches!(member.way, Way::Raw { .. });
        if let Some(topics) = &mut self.topics {
            topics.has_answered(key);
        }
        let id = id.as_ref().map(|kept| kept.id());
        match reply {
            Reply::Subscribed { topic, position: at, recovered, first, .. } => {
                if let Some(id) = id {
                    let standing = Standing { topic: topic.as_str(), position: Some(at), recovered };
                    self.tell_json(key, |out| protocol::write::subscribed(out, id, &standing));
                }
                self.deliver_first(key, &first);
            }
            Reply::Published { topic, position: at, duplicate } => {
                if let Some(id) = id {
                    let acceptance = Acceptance { topic: topic.as_str(), position: at, duplicate };
                    self.tell_json(key, |out| protocol::write::published(out, id, &acceptance));
                }
            }
            Reply::Presence { topic, count, clients } => {
                let Some(id) = id else { return };
                let clients = clients.iter().map(|Present { client, info }| protocol::Present {
                    client,
                    info: info.as_deref().map(str::as_bytes),
                });
                self.tell_long(key, |out| protocol::write::presence(out, id, topic.as_str(), count, clients));
            }
            Reply::History { topic, position: at, messages } => {
                let Some(id) = id else { return };
                let messages =
                    messages.iter().filter_map(|message| Some((message.offset(), content(message)?)));
                self.tell_long(key, |out| {
                    protocol::write::history(out, id, topic.as_str(), at, messages);
                });
            }
            // Nobody asks for it here.
            Reply::State { .. } => {}
            Reply::Refused { .. } if is_raw => {
                self.violated(key, CloseCode::TRY_AGAIN_LATER, "not subscribed: the gateway has no room");
            }
            Reply::Refused { why, .. } => {
                let fault = Fault::from(why);
                self.tell_error(key, id, fault.code, &fault.message);
            }
        }
    }

    /// The same for a request of HTTP.
    fn answer_to_exchange(&mut self, key: Key, request: u64, reply: Reply) {
        let Some(exchange) = self.exchange_mut(key) else { return };
        // What an earlier request on this connection has asked is answered late.
        let Some(place) = request.checked_sub(exchange.first_request) else { return };
        match (&mut exchange.stage, reply) {
            (Stage::Publishing(_), reply) => self.published(key, place, reply),
            (Stage::Asking, Reply::State { topic, position: at, subscribers, history }) => {
                let mut body = Vec::new();
                let state = protocol::State { topic: topic.as_str(), position: at, subscribers, history };
                protocol::push_state(&mut body, &state);
                self.answer_exchange(key, 200, JSON, &body);
            }
            (Stage::Streaming(stream), Reply::Subscribed { position, recovered, first, .. }) => {
                stream.feed.subscribed(place, position, recovered, first);
                self.begin_stream(key);
            }
            (Stage::Polling(poll), Reply::Subscribed { position, recovered, first, .. }) => {
                poll.feed.subscribed(place, position, recovered, first);
                self.look_at_poll(key);
            }
            (_, Reply::Refused { why, .. }) => {
                let manner = exchange.manner.clone();
                self.answer_fault(key, &manner, &why.into());
            }
            (_, _) => {}
        }
    }

    /// What comes first, behind the answer to a subscription.
    fn deliver_first(&mut self, key: Key, first: &[Arc<Publication>]) {
        if first.is_empty() {
            return;
        }
        let Some(class) =
            self.topics.as_ref().and_then(|topics| topics.member(key)).map(|member| member.class)
        else {
            return;
        };
        let Self { topics, codecs, spares, .. } = self;
        let Some(topics) = topics else { return };
        let mut out = Vec::new();
        let mut tools = Tools { codecs, spares };
        let first = if planted::is(Bug::ShortFirst) { &first[..first.len() - 1] } else { first };
        for publication in first {
            topics.frames.write(publication, class, &mut tools, &mut out);
        }
        if !out.is_empty() {
            let source = self.turn.keep(out, 0);
            self.emit(key, source, Content::Judged);
        }
    }
}
