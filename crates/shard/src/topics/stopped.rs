//! Commands that wait: for room in their session's outbox, for answers, or for room in the queue to a topic's home.
//!
//! Invariant: of a session that is stopped nothing is read, and none of its commands is done before those that came earlier. So
//! what its answers take is its `session_bytes`, and [`LONG_ANSWERS`] of the longest beyond that, however much it asks for. Of a
//! message that waits each command is parsed once more, when it can go on.

use std::{collections::VecDeque, ops::Range};

use tidegate_hub::protocol;
use tidegate_io::Backend;
use tidegate_registry::Key;
use tidegate_wire::message::Kind;

use super::{
    Topics,
    member::{Held, Left, Member, Stopped, Waits},
};
use crate::{
    environment::Environment,
    planted::{self, Bug},
    session::State,
    shard::Shard,
};

/// Questions of a session that may wait for their answers.
pub(super) const ASKED: usize = 256;

/// Of these, questions whose answers may be long.
pub(super) const LONG_ANSWERS: usize = 4;

impl Topics {
    /// Whether commands of a session wait.
    pub(super) fn is_stopped(&self, key: Key) -> bool {
        self.member(key).is_some_and(|member| member.stopped.is_some())
    }

    /// A session has had an answer: perhaps its commands can go on, with the turn's work on topics.
    pub(super) fn has_answered(&mut self, key: Key) {
        let Some(member) = self.member(key) else { return };
        let goes_on = match member.waits() {
            Some(Waits::Answers) => member.asked.len() <= ASKED / 2,
            Some(Waits::LongAnswer) => member.long_answers() < LONG_ANSWERS,
            Some(Waits::Room | Waits::Home(_)) | None => false,
        };
        if goes_on {
            self.answered.push(key);
        }
    }
}

impl<B: Backend, E: Environment> Shard<B, E> {
    /// Whether a session's commands wait, so that it is not to be read.
    pub(crate) fn is_stopped(&self, key: Key) -> bool {
        self.topics.as_ref().is_some_and(|topics| topics.is_stopped(key))
    }

    /// Does what a message says, and stops its session where a command has to wait.
    pub(super) fn obey_in_order(&mut self, key: Key, kind: Kind, bytes: &[u8]) {
        debug_assert!(!self.is_stopped(key), "nothing is read of a session that is stopped");
        let Some((waits, left)) = self.obey(key, kind, bytes) else { return };
        let held = self.hold(kind, bytes, left);
        if let Some(member) = self.topics.as_mut().and_then(|topics| topics.member_mut(key)) {
            member.stopped = Some(Box::new(Stopped { waits, held: Some(held) }));
        }
        self.await_go_on(key, waits);
        self.pause(key);
    }

    /// What of a message was not done, and no more of it.
    fn hold(&self, kind: Kind, bytes: &[u8], left: Left) -> Held {
        let mut left = places(bytes, left);
        let begin = left.front().map_or(0, |first| first.start);
        let bytes = &bytes[begin..];
        for place in &mut left {
            *place = place.start - begin..place.end - begin;
        }
        Held { kind, bytes: bytes.to_vec(), left, _retained: self.plan.charge(bytes.len()) }
    }

    /// Sees to it that commands go on when what they wait for is there.
    fn await_go_on(&mut self, key: Key, waits: Waits) {
        let Some(topics) = &mut self.topics else { return };
        match waits {
            // What went past the outbox may be taken whole, which nobody reports: it is looked again in the next turn.
            Waits::Room if self.registry.get(key).is_some_and(|session| session.outbox.is_empty()) => {
                topics.emptied.push(key);
                self.hurried = true;
            }
            // Listed when the outbox has emptied, or with the answer.
            Waits::Room | Waits::Answers | Waits::LongAnswer => {}
            Waits::Home(home) => {
                self.counters.held_back += 1;
                let Topics { publishing, members, .. } = &mut **topics;
                publishing.push(home, key, |key| {
                    let member = members.get(key.index() as usize).and_then(Option::as_deref);
                    let member = member.filter(|member| member.key == key);
                    member.and_then(Member::waits) == Some(waits)
                });
            }
        }
    }

    /// What a session's next command waits for, whatever it is.
    pub(super) fn next_waits(&mut self, key: Key) -> Option<Waits> {
        self.flush_spans();
        let session = self.registry.get(key)?;
        let topics = self.topics.as_ref()?;
        let room = self.plan.route(session.route).session_bytes;
        if topics.firsts.has(key) || self.waiting_bytes(key) > room {
            return Some(Waits::Room);
        }
        (topics.member(key)?.asked.len() >= ASKED).then_some(Waits::Answers)
    }

    /// What waits in a session's outbox, or is to be sent past it in this turn.
    pub(super) fn waiting_bytes(&self, key: Key) -> usize {
        self.registry.get(key).map_or(0, |session| {
            let queued = match session.dirty {
                0 => 0,
                place => self.turn.dirty[place as usize - 1].bytes(),
            };
            session.outbox.buffered() + queued
        })
    }

    /// Goes on with a session's commands, where they wait for this; reads it again behind them.
    pub(super) fn go_on_with(&mut self, key: Key, what: Waits) {
        let waits = self.topics.as_ref().and_then(|topics| topics.member(key)).and_then(Member::waits);
        if waits != Some(what) {
            return;
        }
        loop {
            let Some(member) = self.topics.as_mut().and_then(|topics| topics.member_mut(key)) else { return };
            let Some(stopped) = member.stopped.as_deref_mut() else { return };
            let next = stopped.held.take();
            // RFC 6455 §5.5.1: nothing follows the Close that was sent, so nothing is done for it either.
            let is_open = |state: &State| matches!(state, State::Open(_));
            let open = self.registry.get(key).filter(|session| is_open(&session.state));
            let Some(session) = open.filter(|session| !session.marks.close_sent) else { return };
            let Some(mut held) = next else {
                member.stopped = None;
                // What fills it while it is too long resumes it, too.
                if !session.outbox.is_paused() {
                    self.resume(key);
                }
                return;
            };
            let whole = 0..held.bytes.len();
            let place = held.left.front().cloned().unwrap_or(whole);
            let waits = self.obey(key, held.kind, &held.bytes[place]).map(|(waits, left)| {
                if held.left.is_empty() {
                    held.left = places(&held.bytes, left);
                }
                waits
            });
            if waits.is_none() {
                held.left.pop_front();
                if held.left.is_empty() {
                    continue;
                }
            }
            let member = self.topics.as_mut().and_then(|topics| topics.member_mut(key));
            if let Some(stopped) = member.and_then(|member| member.stopped.as_deref_mut()) {
                stopped.held = Some(held);
                if let Some(waits) = waits {
                    stopped.waits = waits;
                }
            }
            if let Some(waits) = waits {
                self.await_go_on(key, waits);
                return;
            }
        }
    }

    /// Goes on with the commands of those who have had answers.
    pub(super) fn go_on_behind_answers(&mut self) {
        let Some(topics) = &mut self.topics else { return };
        for key in std::mem::take(&mut topics.answered) {
            for what in [Waits::Answers, Waits::LongAnswer] {
                self.go_on_with(key, what);
            }
        }
    }

    /// Goes on with publishing to topics whose homes have room now, in the order in which the publishers were stopped.
    pub(super) fn go_on_publishing(&mut self) {
        for home in 0..u16::MAX {
            let Some(topics) = &self.topics else { return };
            let Some(waiting) = topics.publishing.len(home) else { return };
            for _ in 0..waiting {
                let Some(topics) = &mut self.topics else { return };
                if topics.hub.is_full(home) || planted::is(Bug::ForgetPublisher) {
                    break;
                }
                let Some(key) = topics.publishing.pop(home) else { break };
                self.go_on_with(key, Waits::Home(home));
                // What they have published waits for the next turn's letters.
                self.hurried = true;
            }
        }
    }
}

/// Where in a message the commands lie that are left; nowhere, if nobody has looked at it.
fn places(bytes: &[u8], left: Left) -> VecDeque<Range<usize>> {
    match left {
        Left::All => VecDeque::new(),
        Left::From(place) => protocol::places(bytes).into_iter().skip(place).collect(),
    }
}
