//! A client of server-sent events (HTML Standard §9.2) that comes back with its last event's id.

use std::collections::HashMap;

use serde_json::Value;
use tidegate_hub::{Position, delivery::Event};

use crate::{
    ledger::{Checked, Ledger, wrong},
    talker::{content, epoch_of, epoch_text, matches, offset_of, position_of, text_of},
    wire::Wire,
};

pub(crate) struct Stream {
    path: &'static str,
    /// Names and patterns.
    filters: Vec<String>,
    /// The last event's id: a position for each name.
    last: Option<Vec<Option<Position>>>,
    session: u64,
    is_begun: bool,
    is_subscribed: bool,
    text: String,
    followed: HashMap<String, u64>,
    asked: Option<Vec<Option<Position>>>,
}

impl Stream {
    pub(crate) fn new(path: &'static str, filters: &[&str]) -> Stream {
        Stream {
            path,
            filters: filters.iter().map(|&filter| filter.to_owned()).collect(),
            last: None,
            session: 0,
            is_begun: false,
            is_subscribed: false,
            text: String::new(),
            followed: HashMap::new(),
            asked: None,
        }
    }

    pub(crate) fn begin(&mut self, wire: &mut Wire, session: u64) {
        (self.session, self.is_begun, self.is_subscribed) = (session, false, false);
        self.text.clear();
        self.followed.clear();
        self.asked = self.last.clone();
        let query: Vec<String> = self.filters.iter().map(|filter| format!("topic={filter}")).collect();
        let field = match &self.last {
            None => String::new(),
            Some(last) => {
                let parts: Vec<String> = last.iter().map(|at| id_of(*at)).collect();
                format!("Last-Event-ID: {}\r\n", parts.join(","))
            }
        };
        let request = format!(
            "GET {}?{} HTTP/1.1\r\nHost: gw.test\r\nAccept: text/event-stream\r\n{field}\r\n",
            self.path,
            query.join("&")
        );
        wire.send(request.as_bytes());
    }

    pub(crate) fn is_up(&self) -> bool {
        self.is_subscribed
    }

    pub(crate) fn has_all(&self, newest: &HashMap<String, Position>) -> bool {
        let Some(last) = &self.last else { return false };
        let by_name = self.filters.iter().zip(last).filter(|(filter, _)| !filter.contains('*'));
        by_name.into_iter().all(|(topic, at)| at.as_ref() == newest.get(topic))
            && self.followed.iter().all(|(topic, offset)| newest[topic].offset == *offset)
    }

    pub(crate) fn hear(&mut self, wire: &mut Wire, ledger: &mut Ledger) -> Checked {
        if !self.is_begun {
            let Some((status, _)) = wire.head() else { return Ok(()) };
            assert_eq!(status, 200, "a stream at {}", self.path);
            self.is_begun = true;
        }
        while let Some(chunk) = wire.chunk() {
            if chunk.is_empty() {
                break;
            }
            self.text.push_str(std::str::from_utf8(&chunk).expect("a chunk ends with an event"));
        }
        let whole = self.text.rfind("\n\n").map_or(0, |end| end + 2);
        let events: String = self.text.drain(..whole).collect();
        events.split("\n\n").filter(|event| !event.is_empty()).try_for_each(|event| self.event(event, ledger))
    }

    fn event(&mut self, text: &str, ledger: &mut Ledger) -> Checked {
        let (mut id, mut kind, mut data) = ("", "message", "");
        for line in text.lines().filter(|line| !line.starts_with(':')) {
            match line.split_once(": ") {
                Some(("id", value)) => id = value,
                Some(("event", value)) => kind = value,
                Some(("data", value)) if data.is_empty() => data = value,
                _ => return wrong(format!("a line {line:?}")),
            }
        }
        if data.is_empty() {
            return Ok(());
        }
        let told: Value = serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {data}"));
        let last: Vec<Option<Position>> = id.split(',').map(position_of_id).collect();
        if last.len() != self.filters.len() {
            return wrong(format!("an id {id:?} of {:?}", self.filters));
        }
        match kind {
            "subscribed" => self.subscribed(&told, &last, ledger)?,
            "message" => {
                let (topic, offset) = (text_of(&told, "topic"), offset_of(&told, "offset"));
                let epoch = self.place(topic)?.and_then(|place| last[place]).map(|at| at.epoch);
                ledger.counts.by_events += 1;
                ledger.receipt(
                    self.session,
                    topic,
                    epoch,
                    offset,
                    content(&told, data.as_bytes())?.as_ref(),
                )?;
                self.moved(topic, offset, &last)?;
            }
            "gap" => {
                let (topic, to) = (text_of(&told, "topic"), offset_of(&told, "to"));
                ledger.gap(self.session, topic, offset_of(&told, "from"), to, text_of(&told, "reason"))?;
                self.moved(topic, to, &last)?;
            }
            other => return wrong(format!("an event {other:?}")),
        }
        self.last = Some(last);
        Ok(())
    }

    /// The id that came with it names it.
    fn moved(&mut self, topic: &str, offset: u64, last: &[Option<Position>]) -> Checked {
        match self.place(topic)? {
            Some(place) if last[place].is_some_and(|at| at.offset == offset) => Ok(()),
            Some(_) => wrong(format!("the id {last:?} of offset {offset} of {topic}")),
            None => {
                self.followed.insert(topic.to_owned(), offset);
                Ok(())
            }
        }
    }

    /// Where a topic's position stands in an id; `None`: it came by a pattern.
    fn place(&self, topic: &str) -> Checked<Option<usize>> {
        if let Some(place) = self.filters.iter().position(|filter| filter == topic) {
            return Ok(Some(place));
        }
        if self.filters.iter().any(|filter| matches(filter, topic)) {
            return Ok(None);
        }
        wrong(format!("something of {topic}, to which it is not subscribed"))
    }

    fn subscribed(&mut self, told: &Value, last: &[Option<Position>], ledger: &mut Ledger) -> Checked {
        let standings = told["topics"].as_array().map(Vec::as_slice).unwrap_or_default();
        if self.is_subscribed || standings.len() != self.filters.len() {
            return wrong(format!("not what it has asked for: {told}"));
        }
        self.is_subscribed = true;
        let session = self.session;
        let mut follows = false;
        for (place, standing) in standings.iter().enumerate() {
            let topic = self.filters[place].clone();
            if topic.contains('*') {
                follows = true;
                continue;
            }
            let position = position_of(standing);
            let asked = self.asked.as_ref().and_then(|asked| asked[place]);
            let recovered = asked.zip(standing["recovered"].as_bool());
            if recovered.is_some() != asked.is_some()
                || last[place].is_none_or(|at| at.epoch != position.epoch)
            {
                return wrong(format!("asked with {asked:?}, told {standing}"));
            }
            ledger.observe(Event::Subscribed { session, topic, position, recovered })?;
        }
        if follows {
            let patterns = self.filters.iter().filter(|filter| filter.contains('*')).cloned().collect();
            ledger.observe(Event::Patterns { session, patterns })?;
        }
        Ok(())
    }
}

fn id_of(at: Option<Position>) -> String {
    at.map_or_else(|| "-".to_owned(), |at| format!("{}-{}", epoch_text(at.epoch), at.offset))
}

fn position_of_id(text: &str) -> Option<Position> {
    let (epoch, offset) = text.split_once('-').filter(|(epoch, _)| !epoch.is_empty())?;
    Some(Position { epoch: epoch_of(epoch), offset: offset.parse().expect("an offset in digits") })
}
