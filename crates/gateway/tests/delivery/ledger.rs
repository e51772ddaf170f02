//! Who published what, and what became of it: the history that the delivery checker reads, as all clients here saw it.

use std::collections::{HashMap, HashSet};

use fastrand::Rng;
use sha2::{Digest, Sha256};
use tidegate_hub::{
    Epoch, Position,
    delivery::{Broken, Checker, Event, Summary, story},
};

/// What is wrong.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A promise of delivery, and what those concerned saw before.
    Broken(Broken, String),
    /// What came is not what was sent, or was not asked for.
    Wrong(String),
}

pub(crate) type Checked<T = ()> = Result<T, Failure>;

pub(crate) fn wrong<T>(what: impl Into<String>) -> Checked<T> {
    Err(Failure::Wrong(what.into()))
}

/// How a publication is wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Text,
    Binary,
}

/// Something to be published.
pub(crate) struct Draft {
    pub(crate) id: u64,
    pub(crate) format: Format,
    pub(crate) payload: Vec<u8>,
    pub(crate) key: Option<String>,
}

struct Posted {
    topic: String,
    format: Format,
}

/// What a raw subscriber got: it is not told of positions, so that it is judged when others have been.
struct Unplaced {
    session: u64,
    topic: String,
    ids: Vec<u64>,
}

/// What happened, in numbers.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) raw: u64,
    pub(crate) by_events: u64,
    pub(crate) by_polls: u64,
    pub(crate) cuts: u64,
    pub(crate) too_slow: u64,
    pub(crate) restarts: u64,
    pub(crate) refused: u64,
}

pub(crate) struct Ledger {
    checker: Checker,
    story: Vec<Event>,
    secret: [u8; 8],
    last_number: u64,
    posted: HashMap<u64, Posted>,
    places: HashMap<u64, Position>,
    unplaced: HashMap<u64, Unplaced>,
    /// The session that gets all of it; what it has not got yet, with its bytes.
    pub(crate) witness: u64,
    waits: HashMap<u64, usize>,
    waits_bytes: usize,
    /// A gap that no raw subscriber is told of: it came because the gateway was busy.
    busy: HashSet<String>,
    pub(crate) published: u64,
    pub(crate) published_bytes: usize,
    pub(crate) counts: Counts,
}

impl Ledger {
    pub(crate) fn new(seed: u64, conflates: fn(&str) -> bool) -> Ledger {
        Ledger {
            checker: Checker::new(conflates),
            story: Vec::new(),
            secret: Rng::with_seed(!seed).u64(..).to_le_bytes(),
            last_number: 0,
            posted: HashMap::new(),
            places: HashMap::new(),
            unplaced: HashMap::new(),
            witness: 0,
            waits: HashMap::new(),
            waits_bytes: 0,
            busy: HashSet::new(),
            published: 0,
            published_bytes: 0,
            counts: Counts::default(),
        }
    }

    /// A number that nobody else has.
    pub(crate) fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Bytes that the witness has not got yet.
    pub(crate) fn under_way_bytes(&self) -> usize {
        self.waits_bytes
    }

    pub(crate) fn observe(&mut self, event: Event) -> Checked {
        let result = self.checker.observe(&event);
        let story = result.as_ref().err().map(|_| story(&self.story, &event, 12));
        self.story.push(event);
        match result {
            Ok(()) => Ok(()),
            Err(broken) => Err(Failure::Broken(broken, story.unwrap_or_default())),
        }
    }

    /// Somebody is about to publish something new.
    pub(crate) fn draft(
        &mut self,
        publisher: u64,
        topic: &str,
        format: Format,
        key: Option<String>,
        pad: &str,
    ) -> Checked<Draft> {
        let id = self.number();
        let mac = self.mac(id, topic, format, pad);
        let payload = match format {
            Format::Json => format!("{{\"id\":{id}, \"mac\":\"{mac}\",\"pad\":\"{pad}\"}}"),
            Format::Text => format!("{id} {mac} {pad}"),
            Format::Binary => format!("\0{id} {mac} {pad}"),
        };
        let payload = payload.into_bytes();
        self.posted.insert(id, Posted { topic: topic.to_owned(), format });
        self.published += 1;
        self.published_bytes += payload.len();
        self.waits_bytes += payload.len();
        self.waits.insert(id, payload.len());
        self.observe(Event::Publish { publisher, topic: topic.to_owned(), id, key: key.clone() })?;
        Ok(Draft { id, format, payload, key })
    }

    pub(crate) fn accepted(&mut self, id: u64, position: Position) -> Checked {
        self.places.insert(id, position);
        self.observe(Event::Published { id, position })
    }

    pub(crate) fn refused(&mut self, id: u64) -> Checked {
        self.counts.refused += 1;
        self.forget(id);
        self.observe(Event::Refused { id })
    }

    /// Its publisher was cut: nobody knows whether it was published.
    pub(crate) fn forget(&mut self, id: u64) {
        self.waits_bytes -= self.waits.remove(&id).unwrap_or_default();
    }

    /// A session that is told of positions got this.
    pub(crate) fn receipt(
        &mut self,
        session: u64,
        topic: &str,
        epoch: Option<Epoch>,
        offset: u64,
        content: (Format, &[u8]),
    ) -> Checked {
        let id = self.identify(content)?;
        if let Some(epoch) = epoch {
            self.places.insert(id, Position { epoch, offset });
        }
        if session == self.witness {
            self.forget(id);
        }
        self.observe(Event::Receipt { session, topic: topic.to_owned(), epoch, offset, id })
    }

    pub(crate) fn gap(&mut self, session: u64, topic: &str, from: u64, to: u64, reason: &str) -> Checked {
        match reason {
            "slow" => {}
            "busy" => drop(self.busy.insert(topic.to_owned())),
            _ => return wrong(format!("a gap for {reason:?}")),
        }
        if session == self.witness {
            self.forget_all();
        }
        self.observe(Event::Gap { session, topic: topic.to_owned(), from, to })
    }

    /// What the witness has not got it will not get.
    pub(crate) fn forget_all(&mut self) {
        self.waits.clear();
        self.waits_bytes = 0;
    }

    /// A raw subscriber got this; its id.
    pub(crate) fn raw_receipt(
        &mut self,
        session: u64,
        topic: &str,
        content: (Format, &[u8]),
    ) -> Checked<u64> {
        let id = self.identify(content)?;
        self.counts.raw += 1;
        let fresh = || Unplaced { session, topic: topic.to_owned(), ids: Vec::new() };
        self.unplaced.entry(session).or_insert_with(fresh).ids.push(id);
        Ok(id)
    }

    /// Where a publication is, as far as anybody was told.
    pub(crate) fn place_of(&self, id: u64) -> Option<Position> {
        self.places.get(&id).copied()
    }

    /// The raw subscribers, by what the others were told: as sessions that get what a pattern matches.
    pub(crate) fn judge_raw(&mut self) -> Checked {
        let mut all: Vec<Unplaced> = self.unplaced.drain().map(|(_, unplaced)| unplaced).collect();
        all.sort_by_key(|unplaced| unplaced.session);
        for Unplaced { session: real, topic, ids } in all {
            if self.busy.contains(&topic) {
                continue;
            }
            // Those that go on get a new number with each judgement.
            let session = self.number();
            self.observe(Event::Patterns { session, patterns: vec![topic.clone()] })?;
            for id in ids {
                // Its publisher and the witness were cut before they were told.
                let Some(place) = self.places.get(&id).copied() else { break };
                let (topic, epoch) = (topic.clone(), Some(place.epoch));
                let event = Event::Receipt { session, topic, epoch, offset: place.offset, id };
                self.observe(event).map_err(|failure| match failure {
                    Failure::Broken(broken, story) => Failure::Broken(
                        broken,
                        format!("{session} is what the raw session {real} got\n{story}"),
                    ),
                    wrong @ Failure::Wrong(_) => wrong,
                })?;
            }
            self.observe(Event::Ended { session })?;
        }
        Ok(())
    }

    /// All sessions are over.
    pub(crate) fn restart(&mut self) -> Checked {
        self.judge_raw()?;
        self.counts.restarts += 1;
        self.busy.clear();
        self.forget_all();
        self.places.clear();
        self.observe(Event::Restart)
    }

    /// Nothing is on its way; `newest` says where each topic is.
    pub(crate) fn finish(&mut self, newest: &HashMap<String, Position>) -> Checked<Summary> {
        self.judge_raw()?;
        self.checker
            .finish(|topic| newest.get(topic).copied())
            .map_err(|broken| Failure::Broken(broken, String::new()))
    }

    /// Which publication this is. It must be one, and as it was sent.
    fn identify(&self, (format, bytes): (Format, &[u8])) -> Checked<u64> {
        let shown = || String::from_utf8_lossy(&bytes[..bytes.len().min(120)]).into_owned();
        let parts = || {
            let text = std::str::from_utf8(bytes).ok()?;
            let (id, rest) = match format {
                Format::Json => text.strip_prefix("{\"id\":")?.split_once(", \"mac\":\"")?,
                Format::Text => text.split_once(' ')?,
                Format::Binary => text.strip_prefix('\0')?.split_once(' ')?,
            };
            let (mac, pad) = match format {
                Format::Json => rest.strip_suffix("\"}")?.split_once("\",\"pad\":\"")?,
                Format::Text | Format::Binary => rest.split_once(' ')?,
            };
            Some((id.parse().ok()?, mac, pad))
        };
        let Some((id, mac, pad)) = parts() else {
            return wrong(format!("nobody publishes {format:?} {:?}", shown()));
        };
        let Some(posted) = self.posted.get(&id) else {
            return wrong(format!("nobody has published {format:?} {:?}", shown()));
        };
        if posted.format != format || self.mac(id, &posted.topic, format, pad) != mac {
            return wrong(format!("message {id} was changed: {format:?} {:?}", shown()));
        }
        Ok(id)
    }

    fn mac(&self, id: u64, topic: &str, format: Format, pad: &str) -> String {
        let mut hash = Sha256::new();
        hash.update(self.secret);
        hash.update(id.to_le_bytes());
        hash.update([format as u8]);
        hash.update(topic);
        hash.update([0]);
        hash.update(pad);
        hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
