//! A client of long-polling: one request after the other, each from where the last one ended.

use std::collections::HashMap;

use serde_json::Value;
use tidegate_hub::{Position, delivery::Event};

use crate::{
    ledger::{Checked, Ledger, wrong},
    talker::{content, epoch_text, offset_of, position_of, text_of},
    wire::Wire,
};

pub(crate) struct Poller {
    topics: Vec<String>,
    /// Where it is in each of them, from one connection to the next.
    last: Option<Vec<Position>>,
    session: u64,
    /// This connection has had an answer.
    is_up: bool,
    asked: Option<Vec<Position>>,
}

impl Poller {
    pub(crate) fn new(topics: &[&str]) -> Poller {
        let topics = topics.iter().map(|&topic| topic.to_owned()).collect();
        Poller { topics, last: None, session: 0, is_up: false, asked: None }
    }

    pub(crate) fn begin(&mut self, wire: &mut Wire, session: u64) {
        (self.session, self.is_up) = (session, false);
        self.ask(wire);
    }

    pub(crate) fn is_up(&self) -> bool {
        self.is_up
    }

    pub(crate) fn has_all(&self, newest: &HashMap<String, Position>) -> bool {
        let Some(last) = &self.last else { return false };
        self.topics.iter().zip(last).all(|(topic, at)| newest.get(topic) == Some(at))
    }

    /// The first answer of a connection comes at once, so that it is known to be there.
    fn ask(&mut self, wire: &mut Wire) {
        let mut query: Vec<String> = self.topics.iter().map(|topic| format!("topic={topic}")).collect();
        self.asked = self.last.clone();
        if let Some(last) = &self.last {
            let all: Vec<String> =
                last.iter().map(|at| format!("{}-{}", epoch_text(at.epoch), at.offset)).collect();
            query.push(format!("position={}", all.join(",")));
        }
        if !self.is_up {
            query.push("wait=0".to_owned());
        }
        wire.send(format!("GET /poll?{} HTTP/1.1\r\nHost: gw.test\r\n\r\n", query.join("&")).as_bytes());
    }

    pub(crate) fn hear(&mut self, wire: &mut Wire, ledger: &mut Ledger) -> Checked {
        while let Some((status, body)) = wire.answer() {
            match status {
                200 => self.answered(std::str::from_utf8(&body).expect("JSON is UTF-8"), ledger)?,
                // It ends: another one will answer.
                503 => return Ok(()),
                _ => return wrong(format!("{status}: {}", String::from_utf8_lossy(&body))),
            }
            self.is_up = true;
            self.ask(wire);
        }
        Ok(())
    }

    /// Each answer is a subscription that goes on where the one before has ended.
    fn answered(&mut self, body: &str, ledger: &mut Ledger) -> Checked {
        let told: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"));
        let standings = told["topics"].as_array().map(Vec::as_slice).unwrap_or_default();
        if standings.len() != self.topics.len() {
            return wrong(format!("not what it has asked for: {told}"));
        }
        let session = self.session;
        let mut last = Vec::new();
        for (place, standing) in standings.iter().enumerate() {
            let (topic, position) = (self.topics[place].clone(), position_of(standing));
            let asked = self.asked.as_ref().map(|asked| asked[place]);
            let recovered = asked.zip(standing["recovered"].as_bool());
            if text_of(standing, "topic") != topic || recovered.is_some() != asked.is_some() {
                return wrong(format!("asked with {asked:?}, told {standing}"));
            }
            ledger.observe(Event::Subscribed { session, topic, position, recovered })?;
            last.push(position);
        }
        // Their own texts: `data` is to be what was sent, byte by byte.
        let (_, messages) = body.split_once(r#""messages":["#).expect("a list of messages");
        let messages = messages.strip_suffix("]}").expect("its end");
        for (told, text) in
            told["messages"].as_array().into_iter().flatten().zip(messages.split(r#",{"topic":"#))
        {
            let (topic, offset) = (text_of(told, "topic"), offset_of(told, "offset"));
            let Some(place) = self.topics.iter().position(|own| own == topic) else {
                return wrong(format!("something of {topic}, which it has not asked for"));
            };
            ledger.counts.by_polls += 1;
            let epoch = Some(last[place].epoch);
            ledger.receipt(session, topic, epoch, offset, content(told, text.as_bytes())?.as_ref())?;
        }
        // Up to the positions that it was told all has come: else the next answer would pass over it.
        for (place, at) in last.iter().enumerate() {
            let asked = self.asked.as_ref().map(|asked| asked[place]);
            let of_topic = |told: &&Value| text_of(told, "topic") == self.topics[place];
            let messages = told["messages"].as_array().into_iter().flatten();
            let newest = messages.filter(of_topic).map(|told| offset_of(told, "offset")).max();
            if let (Some(asked), Some(true)) = (asked, standings[place]["recovered"].as_bool())
                && newest.unwrap_or(asked.offset) != at.offset
            {
                return wrong(format!("asked from {asked:?}, told {told}"));
            }
        }
        self.last = Some(last);
        Ok(())
    }
}
