//! What the hub answers, on its way to who has asked.

use std::sync::Arc;

use tidegate_hub::{
    Present, Publication, Refused, Reply, Ticket,
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
            Reply::Subscribed { topic, position: at, recovered, pattern_offset, mut first, .. } => {
                let brought = self
                    .topics
                    .as_mut()
                    .and_then(|topics| topics.overtake(key, &topic, at, recovered, &mut first));
                // What is kept here came before what waits in the hub.
                let pattern_offset = brought.or(pattern_offset);
                if let Some(id) = id {
                    let topic = topic.as_str();
                    let standing = Standing { topic, position: Some(at), recovered, pattern_offset };
                    self.tell_json(key, |out| protocol::write::subscribed(out, id, &standing));
                }
                self.deliver_first(key, first);
            }
            Reply::Published { topic, position: at, duplicate } => {
                if let Some(id) = id {
                    let acceptance = Acceptance { topic: topic.as_str(), position: at, duplicate };
                    self.tell_json(key, |out| protocol::write::published(out, id, &acceptance));
                }
            }
            Reply::Presence { topic, count, clients } => {
                let Some(id) = id else { return };
                let clients = clients.iter().map(listed);
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
            // The way to its home and back is not the client's fault, so it is none of its errors.
            Reply::Refused { why: why @ Refused::Withdrawn, .. } => {
                let fault = Fault::from(why);
                self.tell_json(key, |out| protocol::write::error(out, id, fault.code, &fault.message));
            }
            Reply::Refused { why, .. } => {
                let fault = Fault::from(why);
                self.tell_error(key, id, fault.code, &fault.message);
            }
        }
    }

    /// The same for a request of HTTP.
    fn answer_to_exchange(&mut self, key: Key, request: u64, reply: Reply) {
        let bound = self.session_bytes(key);
        let Some(exchange) = self.exchange_mut(key) else { return };
        // What an earlier request on this connection has asked is answered late.
        let Some(place) = request.checked_sub(exchange.first_request) else { return };
        match (&mut exchange.stage, reply) {
            (Stage::Publishing(_), reply) => self.published(key, place, reply),
            (Stage::Asking, Reply::State { topic, position, subscribers, history, present }) => {
                let mut body = Vec::new();
                let (count, clients) =
                    present.map_or((None, None), |(count, clients)| (Some(count), clients));
                let state = protocol::State {
                    topic: topic.as_str(),
                    position,
                    subscribers,
                    history,
                    present: count,
                    clients: clients.as_ref().map(|clients| clients.iter().map(listed).collect()),
                };
                protocol::push_state(&mut body, &state);
                self.answer_exchange(key, 200, JSON, &body);
            }
            (Stage::Streaming(stream), Reply::Subscribed { position, recovered, first, .. }) => {
                // What it keeps refers to what topics keep, and is written as there is room.
                stream.feed.subscribed(place, position, recovered, first, usize::MAX);
                self.begin_stream(key);
            }
            (Stage::Polling(poll), Reply::Subscribed { position, recovered, first, .. }) => {
                poll.feed.subscribed(place, position, recovered, first, bound);
                // Its answer counts in the share that polls have of a turn.
                if poll.feed.is_ready()
                    && let Some(topics) = &mut self.topics
                {
                    topics.polls_due.push(key);
                }
            }
            (_, Reply::Refused { why, .. }) => {
                let manner = exchange.manner.clone();
                self.answer_fault(key, &manner, &why.into());
            }
            (_, _) => {}
        }
    }

    /// What comes first, behind the answer to a subscription: as much as there is room for, and the rest as the outbox empties.
    fn deliver_first(&mut self, key: Key, mut first: Vec<Arc<Publication>>) {
        if planted::is(Bug::ShortFirst) {
            first.pop();
        }
        let Some(topics) = &mut self.topics else { return };
        if !first.is_empty() && topics.keep_first(key, first) {
            self.send_first(key);
        }
    }

    /// Sends a session of what comes first as much as there is room for, but one in any case where nothing else waits. Whether
    /// that was all.
    pub(super) fn send_first(&mut self, key: Key) -> bool {
        if !self.topics.as_ref().is_some_and(|topics| topics.firsts.has(key)) {
            return true;
        }
        self.flush_spans();
        let room = self.session_bytes(key).saturating_sub(self.waiting_bytes(key));
        let Self { topics, codecs, spares, .. } = self;
        let Some(topics) = topics else { return true };
        let Some(member) = topics.members.get_mut(key.index() as usize).and_then(Option::as_deref_mut) else {
            return true;
        };
        let class = member.class;
        let Some(kept) = &mut member.first else { return true };
        let (mut out, mut count) = (Vec::new(), 0);
        while out.len() < room
            && let Some(publication) = kept.pop()
        {
            topics.frames.write(&publication, class, &mut Tools { codecs, spares }, &mut out);
            count += u64::from(publication.is_message());
        }
        let all = kept.is_empty();
        if all {
            topics.end_first(key);
        }
        self.count_given(key, count);
        if !out.is_empty() {
            let source = self.turn.keep(out, 0);
            self.emit(key, source, Content::Judged);
            self.flush_spans();
        }
        // What went past the outbox may be taken whole, which nobody reports: it is looked again in the next turn.
        if !all && self.registry.get(key).is_some_and(|session| session.outbox.is_empty()) {
            self.list_emptied(key);
        }
        all
    }
}

/// One who is there, in the protocol's terms.
fn listed(Present { client, info }: &Present) -> protocol::Present<'_> {
    protocol::Present { client, info: info.as_deref().map(str::as_bytes) }
}
