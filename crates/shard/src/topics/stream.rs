//! Topics as server-sent events (HTML Standard §9.2).

use std::sync::Arc;

use tidegate_config::EventsAction;
use tidegate_hub::{
    Class, Envelope, Kind, Publication,
    protocol::{EventsQuery, events},
};
use tidegate_io::Backend;
use tidegate_registry::Key;
use tidegate_wire::http::{self, Refusal, Request};

use super::{
    allowed::Allowed,
    exchange::{ANSWER_MS, Exchange, Manner, Stage},
    feed::{Feed, Presence, Wanted},
    frame::{content, gap},
};
use crate::{environment::Environment, output::Content, shard::Shard, stamp::Stamp, turn::Source};

/// A stream under way.
pub(crate) struct Streaming {
    pub(super) feed: Feed,
    /// Its head was sent, and it counts as a session.
    begun: bool,
}

impl Streaming {
    pub(crate) fn has_begun(&self) -> bool {
        self.begun
    }

    /// What comes is kept: the stream has not begun, or not all was sent that came first.
    pub(super) fn keeps(&self) -> bool {
        !self.begun || !self.feed.kept.is_empty()
    }
}

impl<B: Backend, E: Environment> Shard<B, E> {
    /// A request to a route that streams events.
    pub(super) fn begin_events(
        &mut self,
        key: Key,
        request: &Request<'_>,
        action: &EventsAction,
        manner: &Manner,
    ) -> Result<(), Refusal> {
        super::no_body(request)?;
        if request.method == "OPTIONS" {
            self.answer_preflight(key, manner, "GET");
            return Ok(());
        }
        let last = last_event_id(request)?;
        let query = match EventsQuery::parse(request.target.query.unwrap_or_default(), last) {
            Ok(query) => query,
            Err(problem) => {
                self.answer_fault(key, manner, &problem.into());
                return Ok(());
            }
        };
        let permissions = self.callers.permissions(key);
        let permissions = permissions.as_deref();
        let presence = query.client.as_deref().map(|client| Presence {
            client,
            info: query.info.as_deref(),
            allowed: Allowed::presence(&action.presence, permissions),
            only: &query.attend,
            until_ms: u64::MAX,
        });
        let wanted = Wanted {
            topics: &query.topics,
            positions: query.positions.as_ref(),
            history: &query.history,
            patterns: true,
            envelope: Envelope::Events,
            presence,
        };
        match self.begin_feed(key, &wanted, Allowed::subscribe(&action.subscribe, permissions)) {
            Ok(feed) => {
                let manner = Manner { keep_alive: false, ..manner.clone() };
                let stage = Stage::Streaming(Streaming { feed, begun: false });
                self.begin_exchange(key, Exchange::new(stage, manner, self.now_ms + ANSWER_MS));
                self.begin_stream(key);
            }
            Err(problem) => self.answer_fault(key, manner, &problem),
        }
        Ok(())
    }

    /// Once all topics have answered: the head, and where each topic is. What comes first follows as there is room for it.
    pub(super) fn begin_stream(&mut self, key: Key) {
        let now_ms = self.now_ms;
        let Some(exchange) = self.exchange_mut(key) else { return };
        let Stage::Streaming(stream) = &mut exchange.stage else { return };
        if stream.begun || !stream.feed.is_ready() {
            return;
        }
        // All that HEAD asks for is the head: there is no stream.
        stream.begun = !exchange.manner.head_only;
        let manner = exchange.manner.clone();
        let mut body = Vec::new();
        let Stage::Streaming(stream) = &mut exchange.stage else { return };
        events::id(&mut body, stream.feed.positions());
        events::subscribed(&mut body, stream.feed.beginnings());
        let keeps = !stream.feed.kept.is_empty();
        exchange.deadline_ms = u64::MAX;
        let date = http::http_date(self.environment.unix_seconds());
        let mut fields = vec![
            ("Date", &*date),
            ("Cache-Control", "no-cache, no-store, no-transform"),
            ("X-Accel-Buffering", "no"),
            ("X-Content-Type-Options", "nosniff"),
        ];
        if let Some(origin) = &manner.cors {
            fields.extend([("Access-Control-Allow-Origin", &**origin), ("Vary", "Origin")]);
        }
        let mut out = http::stream_head("text/event-stream; charset=utf-8", manner.chunked, &fields);
        if manner.head_only {
            let source = self.turn.keep(out, 0);
            self.emit(key, source, Content::Judged);
            self.linger(key);
            return;
        }
        put_body(&mut out, manner.chunked, &body);
        let source = self.turn.keep(out, 0);
        self.emit(key, source, Content::Judged);
        self.counters.opened += 1;
        if let Some(accounts) = &mut self.accounts
            && let Some(session) = self.registry.get(key)
        {
            accounts.opened(key, session, &self.upstreams);
        }
        self.wheel.cancel(key.index());
        if let Some(session) = self.registry.get_mut(key) {
            session.pinged = Stamp::at(now_ms);
        }
        self.look_again(key);
        if self.exchange_mut(key).is_some_and(|exchange| exchange.ended) {
            self.end_stream(key);
        }
        let Some(topics) = &mut self.topics else { return };
        let Some(member) = topics.member_mut(key) else { return };
        member.lags |= keeps;
        if member.lags {
            self.list_emptied(key);
        }
    }

    /// Sends what came first, as far as it fits in so many bytes (but one in any case); gives the room that is left. Each
    /// stream's bytes are its own here, as its ids stand between them.
    pub(super) fn send_kept(&mut self, key: Key, room: usize) -> usize {
        let Some(exchange) = self.exchange_mut(key) else { return room };
        let chunked = exchange.manner.chunked;
        let Stage::Streaming(stream) = &mut exchange.stage else { return room };
        let mut body = Vec::new();
        let mut count = 0;
        while body.len() < room {
            let Some(publication) = stream.feed.kept.pop() else { break };
            write_event(&mut body, &mut stream.feed, &publication);
            count += u64::from(publication.is_message());
        }
        let left = room.saturating_sub(body.len());
        if body.is_empty() {
            return left;
        }
        let mut out = Vec::new();
        put_body(&mut out, chunked, &body);
        self.count_given(key, count);
        let source = self.turn.keep(out, 0);
        self.emit(key, source, Content::Judged);
        self.flush_spans();
        left
    }

    /// Whether a stream keeps something yet that goes before all else.
    pub(super) fn stream_keeps(&mut self, key: Key) -> bool {
        self.streaming(key).is_some_and(|stream| stream.keeps())
    }

    /// Whether a session's messages may be sent: those of a stream not before its head, which sees to them.
    pub(super) fn has_begun(&mut self, key: Key) -> bool {
        self.streaming(key).is_none_or(|stream| stream.begun)
    }

    fn streaming(&mut self, key: Key) -> Option<&mut Streaming> {
        match &mut self.exchange_mut(key)?.stage {
            Stage::Streaming(stream) => Some(stream),
            Stage::Body(_) | Stage::Publishing(_) | Stage::Asking | Stage::Polling(_) => None,
        }
    }

    /// Sends a stream what it gets of a publication, or keeps it where the stream waits for its head. What follows the
    /// event's id is the same for all streams, and one frame for all of them.
    pub(super) fn stream_gets(&mut self, key: Key, publication: &Arc<Publication>) {
        let Some(exchange) = self.exchange_mut(key) else { return };
        let chunked = exchange.manner.chunked;
        let Stage::Streaming(stream) = &mut exchange.stage else { return };
        if stream.keeps() {
            stream.feed.kept.push_late(Arc::clone(publication));
            return;
        }
        let body = publication.frame(Class::plain(Envelope::Events), |publication| {
            let mut out = Vec::new();
            write_body(&mut out, publication);
            (!out.is_empty()).then_some(out)
        });
        let Some(body) = body else { return };
        stream.feed.tell(publication);
        let mut id = Vec::new();
        events::id(&mut id, stream.feed.positions());
        let mut front = Vec::new();
        if chunked {
            events::chunk_head(&mut front, id.len() + body.len());
        }
        front.extend_from_slice(&id);
        self.count_given(key, 1);
        self.emit_small(key, &front, Content::Judged);
        let source = self.turn.keep_shared(body);
        self.emit(key, source, Content::Judged);
        if chunked {
            self.emit(key, Source::Static(b"\r\n"), Content::Judged);
        }
        self.flush_spans();
    }

    /// A comment, so that nobody in between takes the stream for dead.
    pub(crate) fn send_heartbeat(&mut self, key: Key) {
        let Some(exchange) = self.exchange_mut(key) else { return };
        let mut out = Vec::new();
        put_body(&mut out, exchange.manner.chunked, events::HEARTBEAT);
        self.emit_small(key, &out, Content::Judged);
    }

    /// The stream ends in order: a browser comes back.
    pub(crate) fn end_stream(&mut self, key: Key) {
        let Some(exchange) = self.exchange_mut(key) else { return };
        let Stage::Streaming(stream) = &exchange.stage else { return };
        if !stream.begun {
            self.refuse_exchange(key, self.leaving_refusal());
            return;
        }
        if exchange.manner.chunked {
            self.emit_small(key, events::LAST_CHUNK, Content::Judged);
        }
        self.linger(key);
    }
}

fn put_body(out: &mut Vec<u8>, chunked: bool, body: &[u8]) {
    if chunked {
        events::chunk(out, body);
    } else {
        out.extend_from_slice(body);
    }
}

/// One event; the feed moves up.
fn write_event(out: &mut Vec<u8>, feed: &mut Feed, publication: &Publication) {
    if publication.is_presence() {
        return;
    }
    feed.tell(publication);
    events::id(out, feed.positions());
    write_body(out, publication);
}

/// An event behind its id.
fn write_body(out: &mut Vec<u8>, publication: &Publication) {
    match publication.kind() {
        Kind::Message { .. } => {
            if let Some(content) = content(publication) {
                events::message(out, publication.topic().as_str(), publication.offset(), content);
            }
        }
        Kind::Gap { from, reason } => events::gap(out, &gap(publication, *from, *reason)),
        Kind::Join { .. } | Kind::Leave { .. } | Kind::PresenceGap => {}
    }
}

/// The id that a browser sends when it comes back.
///
/// # Errors
/// 400 where there are several.
fn last_event_id<'b>(request: &Request<'b>) -> Result<Option<&'b str>, Refusal> {
    const NAME: &str = "last-event-id";
    /// No position is written like this.
    const UNFIT: &str = "?";
    let mut ids = request.fields.all(NAME);
    match (ids.next(), ids.next()) {
        // A page may have it from another server, which may write what it likes: it does not fit, and the browser must not be kept away
        // for that.
        (Some(id), None) if !id.is_ascii() => Ok(Some(UNFIT)),
        _ => request.fields.one(NAME),
    }
}
