//! What is given up where there is no memory for a publication, by whom, and in which order.
//!
//! First its home gives up the oldest of its histories and states, then its backlogs, the largest first. Then the other shards
//! are asked to do the same, one after the other, until there is room. Where the request comes back from all of them and there
//! is none, a shortage is noted: what is held then is what sessions hold, and the shards end the worst of them. Where one had
//! room and somebody else took it meanwhile, the request goes round again.
//!
//! Invariant: a shortage is noted only after each shard had nothing more to give up. Each shard has at most one request on its
//! way.

use std::collections::VecDeque;

use super::Hub;
use crate::{
    home::Trimmed,
    letter::{GiveUpNote, Note},
    store::Store,
};

/// What a turn gives up at most: publications, and backlogs that are looked at. The next one goes on.
const STEPS: usize = 4_096;
/// Of so many backlogs the largest is given up first.
const COMPARED: usize = 1_024;
/// More than is needed is given up, so that not each publication has to: this part of the memory, but not more than so much.
const SPARE_PART: usize = 64;
const SPARE_BYTES: usize = 1 << 20;
/// After nobody had anything to give up, this long nobody is asked.
const PAUSE_MS: u64 = 10;

#[derive(Debug)]
pub(super) struct Relief {
    /// Those that are left of the turn's.
    steps: usize,
    /// Requests, one's own among them, that wait for the next turn or for those before them.
    requests: VecDeque<Request>,
    /// Its own request is among those, or on its way.
    has_asked: bool,
    pause_until_ms: u64,
}

#[derive(Debug)]
struct Request {
    note: GiveUpNote,
    /// Backlogs of local topics from this one on were not looked at.
    backlogs_from: u32,
}

/// How far giving up has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Given {
    /// There is room.
    Enough,
    /// The turn has done what it may.
    Some,
    /// There is nothing more.
    All,
}

impl Default for Relief {
    fn default() -> Self {
        Self { steps: STEPS, requests: VecDeque::new(), has_asked: false, pause_until_ms: 0 }
    }
}

impl Relief {
    /// Whether something is left to do here.
    pub(super) fn goes_on(&self) -> bool {
        !self.requests.is_empty()
    }

    pub(super) fn turn_ends(&mut self) {
        self.steps = STEPS;
    }
}

impl<S: Store> Hub<S> {
    /// The process is over its memory with a publication of so many bytes.
    pub(super) fn make_room(&mut self, bytes: usize) {
        if self.now_ms < self.relief.pause_until_ms {
            return;
        }
        // The publication counts already.
        let mut backlogs_from = 0;
        let given = self.give_up(0, &mut backlogs_from);
        if given == Given::Enough || self.relief.has_asked {
            return;
        }
        self.relief.has_asked = true;
        let note = GiveUpNote { origin: self.shard, bytes, is_all: true };
        if given == Given::Some {
            self.relief.requests.push_back(Request { note, backlogs_from });
        } else {
            self.pass_on(note);
        }
    }

    /// What another shard asks for; or what this one has asked for is back.
    pub(super) fn give_up_for(&mut self, note: GiveUpNote) {
        if note.origin == self.shard {
            self.relief.has_asked = false;
            if self.rules.has_room_for(note.bytes) {
                return;
            }
            if note.is_all {
                self.note_shortage(note.bytes);
            } else {
                // In the next turn: what is kept here may have grown, too.
                self.relief.has_asked = true;
                let note = GiveUpNote { is_all: true, ..note };
                self.relief.requests.push_back(Request { note, backlogs_from: 0 });
            }
            return;
        }
        self.relief.requests.push_back(Request { note, backlogs_from: 0 });
        self.give_up_in_turn();
    }

    /// In the next turn.
    pub(super) fn go_on_giving_up(&mut self) {
        if self.relief.goes_on() {
            self.relief.turn_ends();
            self.give_up_in_turn();
        }
    }

    fn give_up_in_turn(&mut self) {
        while let Some(mut request) = self.relief.requests.pop_front() {
            match self.give_up(request.note.bytes, &mut request.backlogs_from) {
                Given::Some => {
                    self.relief.requests.push_front(request);
                    return;
                }
                Given::Enough => request.note.is_all = false,
                Given::All => {}
            }
            self.pass_on(request.note);
        }
    }

    /// To the next shard, or back where there is room.
    fn pass_on(&mut self, mut note: GiveUpNote) {
        let next = (self.shard + 1) % self.shards;
        let has_room = self.rules.has_room_for(note.bytes);
        note.is_all &= !has_room;
        self.send(if has_room { note.origin } else { next }, Note::GiveUp(note));
    }

    fn note_shortage(&mut self, bytes: usize) {
        self.rules.note_shortage(bytes);
        self.relief.pause_until_ms = self.now_ms + PAUSE_MS;
        let limits = self.rules.limits();
        for shard in (0..self.shards).filter(|&shard| shard != self.shard) {
            if self.post.has_room(shard, limits) {
                self.post.write(shard, Note::Shortage);
            }
        }
    }

    /// Gives up what is kept here until there is memory for so many bytes. What counts is what is held then, not what was given
    /// up: outboxes may have the same.
    fn give_up(&mut self, bytes: usize, backlogs_from: &mut u32) -> Given {
        let spare = (self.rules.limits().memory_bytes / SPARE_PART).min(SPARE_BYTES);
        while !self.rules.has_room_for(bytes + spare) {
            if self.relief.steps == 0 {
                return if self.rules.has_room_for(bytes) { Given::Enough } else { Given::Some };
            }
            self.relief.steps -= 1;
            match self.homes.trim() {
                Trimmed::Nothing => return self.clear_backlogs(bytes, backlogs_from),
                Trimmed::References(references) => self.counts.trimmed += references as u64,
                Trimmed::Emptied { topic, references } => {
                    self.counts.trimmed += references as u64;
                    self.settle(topic);
                }
            }
        }
        Given::Enough
    }

    fn clear_backlogs(&mut self, bytes: usize, from: &mut u32) -> Given {
        loop {
            if self.rules.has_room_for(bytes) {
                return Given::Enough;
            }
            if self.relief.steps == 0 {
                return Given::Some;
            }
            let most = self.relief.steps.min(COMPARED);
            let size = |&topic: &u32| {
                let backlog = self.locals.topic(topic).backlog.as_ref();
                (backlog.map_or(0, |backlog| backlog.bytes()), topic)
            };
            let mut found: Vec<(usize, u32)> = self.backlogged.range(*from..).take(most).map(size).collect();
            self.relief.steps -= found.len().max(1);
            let Some(&(_, last)) = found.last() else { return Given::All };
            found.retain(|(size, _)| *size > 0);
            found.sort_unstable_by(|a, b| b.cmp(a));
            for (_, topic) in found {
                if self.rules.has_room_for(bytes) {
                    return Given::Enough;
                }
                if let Some(backlog) = &mut self.locals.topic_mut(topic).backlog {
                    backlog.give_up();
                }
            }
            *from = last + 1;
        }
    }
}
