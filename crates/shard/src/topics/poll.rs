//! Long-polling. Nothing is kept between two requests: a poller names its position, and what the topic keeps is what can
//! be missed in between.

use std::sync::Arc;

use tidegate_config::PollAction;
use tidegate_hub::{
    Envelope, Kind, Position, Publication, TopicName,
    protocol::{self, PollQuery, Standing},
};
use tidegate_io::Backend;
use tidegate_registry::{Frame, Key};
use tidegate_wire::http::{Refusal, Request};

use super::{
    allowed::Allowed,
    attend::PRESENT_MS,
    exchange::{ANSWER_MS, Answer, Exchange, JSON, Manner, Stage},
    feed::{Feed, Presence, Wanted},
    frame::content,
};
use crate::{
    environment::Environment,
    planted::{self, Bug},
    shard::Shard,
};

/// A poll under way.
pub(crate) struct Polling {
    pub(super) feed: Feed,
    /// It is answered though nothing has come.
    at_once: bool,
    until_ms: u64,
}

impl Polling {
    /// It is answered as soon as its topics have said where they are.
    pub(super) fn hurry(&mut self) {
        self.at_once = true;
    }
}

/// An answer, for whoever is told the same in the same turn: most who poll a topic wait for the same message. Who is told it
/// alone has it as memory of its own: what waits for somebody that does not read is no memory of topics.
pub(super) struct Polled {
    standings: Vec<Stood>,
    messages: Vec<Arc<Publication>>,
    body: Frame,
}

/// How a topic stands in an answer.
type Stood = (Box<str>, Option<Position>, Option<bool>);

impl Polled {
    /// Whether it says that these topics stand there, and just this.
    fn is(&self, feed: &Feed, messages: &[Arc<Publication>]) -> bool {
        let stands = |(stood, now): (&Stood, Standing<'_>)| {
            (&*stood.0, stood.1, stood.2) == (now.topic, now.position, now.recovered)
        };
        self.messages.len() == messages.len()
            && self.messages.iter().zip(messages).all(|(one, other)| Arc::ptr_eq(one, other))
            && self.standings.len() == feed.standings().count()
            && self.standings.iter().zip(feed.standings()).all(stands)
    }
}

impl<B: Backend, E: Environment> Shard<B, E> {
    /// A request to a route that polls.
    pub(super) fn begin_poll(
        &mut self,
        key: Key,
        request: &Request<'_>,
        action: &PollAction,
        manner: &Manner,
    ) -> Result<(), Refusal> {
        let now_ms = self.now_ms;
        super::no_body(request)?;
        if request.method == "OPTIONS" {
            self.answer_preflight(key, manner, "GET");
            return Ok(());
        }
        let query = match PollQuery::parse(request.target.query.unwrap_or_default()) {
            Ok(query) => query,
            Err(problem) => {
                self.answer_fault(key, manner, &problem.into());
                return Ok(());
            }
        };
        let wait_ms = u64::from(query.wait_seconds) * 1_000;
        let permissions = self.callers.permissions(key);
        let permissions = permissions.as_deref();
        let presence = query.client.as_deref().map(|client| Presence {
            client,
            info: query.info.as_deref(),
            allowed: Allowed::presence(&action.presence, permissions),
            only: &query.attend,
            until_ms: now_ms + wait_ms + PRESENT_MS,
        });
        let wanted = Wanted {
            topics: &query.topics,
            positions: query.positions.as_ref(),
            history: &query.history,
            patterns: false,
            envelope: Envelope::Poll,
            presence,
        };
        let feed = match self.begin_feed(key, &wanted, Allowed::subscribe(&action.subscribe, permissions)) {
            Ok(feed) => feed,
            Err(problem) => {
                self.answer_fault(key, manner, &problem);
                return Ok(());
            }
        };
        let at_once = query.positions.is_none() || wait_ms == 0;
        let until_ms = now_ms + wait_ms;
        // Where the topics do not answer at once it waits for that, too.
        let deadline_ms = now_ms + wait_ms.max(ANSWER_MS);
        let stage = Stage::Polling(Polling { feed, at_once, until_ms });
        self.begin_exchange(key, Exchange::new(stage, manner.clone(), deadline_ms));
        self.look_at_poll(key);
        Ok(())
    }

    /// A topic has answered, or a message has come: perhaps the poll is over.
    pub(super) fn look_at_poll(&mut self, key: Key) {
        let now_ms = self.now_ms;
        let Some(exchange) = self.exchange_mut(key) else { return };
        let Stage::Polling(poll) = &exchange.stage else { return };
        if !poll.feed.is_ready() {
            return;
        }
        if poll.at_once || poll.feed.has_lost() || !poll.feed.kept.is_empty() || poll.until_ms <= now_ms {
            self.answer_poll(key);
            return;
        }
        let until_ms = poll.until_ms;
        if exchange.deadline_ms != until_ms {
            exchange.deadline_ms = until_ms;
            self.wheel.cancel(key.index());
            self.ensure_deadline(key, until_ms);
        }
    }

    /// A message, or a gap, for a poll; who comes and goes does not end it. What its answer has no room for is not kept: the
    /// next poll asks from where this one ends.
    pub(super) fn poll_gets(&mut self, key: Key, publication: &Arc<Publication>) {
        if publication.is_presence() {
            return;
        }
        let most = self.session_bytes(key);
        if let Some(exchange) = self.exchange_mut(key)
            && let Stage::Polling(poll) = &mut exchange.stage
        {
            poll.feed.keep_within(Arc::clone(publication), most);
        }
    }

    /// What there is.
    pub(super) fn answer_poll(&mut self, key: Key) {
        let bound = self.session_bytes(key);
        let Some(exchange) = self.exchange_mut(key) else { return };
        let Stage::Polling(poll) = &mut exchange.stage else { return };
        let mut feed = std::mem::take(&mut poll.feed);
        let manner = exchange.manner.clone();
        let mut messages = Vec::new();
        let mut bytes = 0;
        let mut broken: Vec<TopicName> = Vec::new();
        while let Some(publication) = feed.kept.pop() {
            // What was left out on its way here the topic may keep: the next poll asks for all from there on.
            if matches!(publication.kind(), Kind::Gap { .. }) {
                broken.push(publication.topic().clone());
            }
            if broken.contains(publication.topic()) && !planted::is(Bug::PassOverGap) {
                continue;
            }
            // The first one is told however long it is: else it would be asked for again and again.
            if bytes > 0 && bytes + publication.bytes() > bound {
                break;
            }
            bytes += publication.bytes();
            feed.tell(&publication);
            messages.push(publication);
        }
        let Some(topics) = &mut self.topics else { return };
        let body = match &topics.polled {
            Some(polled) if polled.is(&feed, &messages) => polled.body.clone(),
            Some(_) | None => {
                let body = topics.hub.share(encoded(&feed, &messages, bytes));
                self.turn.has_made(body.len());
                let stood = |now: Standing<'_>| (now.topic.into(), now.position, now.recovered);
                let standings = feed.standings().map(stood).collect();
                topics.polled = Some(Polled { standings, messages, body: body.clone() });
                body
            }
        };
        topics.leave(key);
        self.answer_request(key, &manner, 200, JSON, Answer::Shared(&body), &[], "");
    }
}

/// The answer's body; `bytes`: of its messages, about.
fn encoded(feed: &Feed, messages: &[Arc<Publication>], bytes: usize) -> Vec<u8> {
    let messages = messages.iter().filter_map(|message| {
        let mut out = Vec::new();
        protocol::push_poll_message(&mut out, message.topic().as_str(), message.offset(), content(message)?);
        Some(out)
    });
    let mut body = Vec::with_capacity(bytes + 256);
    protocol::push_poll(&mut body, feed.standings(), messages);
    body
}
