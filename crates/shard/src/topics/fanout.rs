//! From publications to sockets: once in a turn, each topic's audience is gone through once.

use std::sync::Arc;

use tidegate_hub::{Envelope, Kind, Publication, Slow, TopicRules};
use tidegate_io::Backend;
use tidegate_registry::{End, Key};
use tidegate_wire::close::CloseCode;

use super::{Lane, frame::Tools, slow::Behind};
use crate::{
    environment::Environment,
    log::Leg,
    planted::{self, Bug},
    session::{Session, State},
    shard::Shard,
    turn::Source,
};

/// Whether messages may still be sent to a session.
#[inline]
pub(super) fn takes_messages<S>(session: &Session<S>) -> bool {
    !session.marks.close_sent
        && !session.marks.fin_sent
        && matches!(session.state, State::Open(_) | State::Exchange(_))
}

/// Where a batch has its last gap of which sessions of raw topics must learn by their end: they have no other way, and only where
/// the topic's policy leaves messages out for the slow may some be missing in silence.
fn untold_gap(publications: &[Arc<Publication>], rules: &TopicRules) -> Option<usize> {
    let place = publications.iter().rposition(|item| matches!(item.kind(), Kind::Gap { .. }))?;
    let topic = publications[place].topic();
    (rules.settings(rules.rule_for(topic)).slow == Slow::Disconnect).then_some(place)
}

impl<B: Backend, E: Environment> Shard<B, E> {
    /// Gives each topic's news to its subscribers here.
    pub(super) fn fan_out(&mut self) {
        // What an earlier turn had no room for.
        self.end_batches();
        let mut behind: Vec<Behind> = Vec::new();
        let mut feeds = Vec::new();
        // Those who cannot be told that something is missing.
        let mut misled = Vec::new();
        loop {
            let Self { topics, registry, turn, counters, accounts, codecs, spares, .. } = self;
            let Some(topics) = topics else { return };
            let Some(batch) = topics.hub.poll_batch() else { break };
            let publications = topics.hub.publications(batch);
            let broken_at = untold_gap(publications, topics.hub.rules());
            let (layout, frames) = (&mut topics.layout, &mut topics.frames);
            let mut tools = Tools { codecs, spares };
            layout.begin();
            for subscriber in topics.hub.audience(batch) {
                if subscriber.lags() {
                    continue;
                }
                let Some(session) = registry.get_mut(subscriber.key) else { continue };
                if let State::Exchange(_) = session.state {
                    feeds.push((subscriber.key, subscriber.subscription, usize::from(subscriber.skip)));
                    continue;
                }
                if !takes_messages(session) {
                    continue;
                }
                let lane = Lane { class: subscriber.class, presence: subscriber.watches() };
                let skip = if planted::is(Bug::IgnoreSkip) { 0 } else { usize::from(subscriber.skip) };
                if broken_at.is_some_and(|place| place >= skip) && lane.class.envelope() == Envelope::Raw {
                    misled.push(subscriber.key);
                    continue;
                }
                let keeps = topics.firsts.has(subscriber.key) && !planted::is(Bug::PassFirst);
                if keeps || !session.outbox.is_empty() {
                    let (key, subscription) = (subscriber.key, subscriber.subscription);
                    behind.push(Behind { key, subscription, lane, skip });
                    continue;
                }
                let range = layout.range(lane, skip, publications, &mut turn.arenas, |publication, out| {
                    frames.write(publication, lane.class, &mut tools, out);
                });
                if range.is_empty() {
                    continue;
                }
                let place = turn.place_of(subscriber.key, session);
                let source = Source::Topic { lane, start: range.start, end: range.end };
                turn.append(place, source, End::Boundary, usize::MAX);
                let given = (publications.len() - skip) as u64;
                counters.delivered += given;
                if let Some(accounts) = accounts {
                    accounts.count(subscriber.key, session, |flow| flow.sent_messages += given);
                }
            }
            // Those that are behind do not hold the others up.
            for behind in behind.drain(..).filter(|_| !planted::is(Bug::SkipBehind)) {
                self.deliver_behind(batch, &behind);
                if planted::is(Bug::BatchTwice) {
                    self.deliver_behind(batch, &behind);
                }
            }
            for (key, subscription, skip) in feeds.drain(..) {
                self.deliver_to_feed(batch, key, subscription, skip);
            }
            if let Some(topics) = &mut self.topics {
                topics.hub.finish_batch(batch);
            }
            // Not before the batch is over: what their leaving says would come in the middle of it.
            for key in misled.drain(..) {
                self.end_misled(key);
            }
            self.end_batches();
        }
    }

    /// Messages are missing for a session of a raw topic.
    fn end_misled(&mut self, key: Key) {
        let code = CloseCode::TRY_AGAIN_LATER;
        self.log_end(
            key,
            Leg::Client,
            code.into(),
            "messages are missing, and a raw topic has no other way to say so",
        );
        self.send_close(key, Some(code), "messages are missing");
        self.linger(key);
    }
}
