//! A raw topic: what is sent is published, what is published comes. It is told of no position.

use std::collections::HashMap;

use tidegate_hub::Position;

use crate::{
    harness::{
        client,
        frame::{BINARY, TEXT},
    },
    ledger::{Checked, Format, Ledger},
    wire::{Message, Wire},
};

pub(crate) struct Raw {
    path: &'static str,
    topic: String,
    session: u64,
    is_upgraded: bool,
    last: Option<u64>,
    /// What it published and has not got back.
    own: Vec<u64>,
    pub(crate) closed: Option<u16>,
}

impl Raw {
    /// `path`: up to the topic.
    pub(crate) fn new(path: &'static str, topic: &str) -> Raw {
        let topic = topic.to_owned();
        Raw { path, topic, session: 0, is_upgraded: false, last: None, own: Vec::new(), closed: None }
    }

    pub(crate) fn begin(&mut self, wire: &mut Wire, session: u64) {
        (self.session, self.is_upgraded, self.last, self.closed) = (session, false, None, None);
        wire.send(&client::request(&format!("{}/{}", self.path, self.topic), ""));
    }

    pub(crate) fn end(&mut self, ledger: &mut Ledger) {
        self.own.drain(..).for_each(|id| ledger.forget(id));
    }

    pub(crate) fn is_up(&self) -> bool {
        self.is_upgraded
    }

    /// All that it published has come back.
    pub(crate) fn is_idle(&self) -> bool {
        self.is_upgraded && self.own.is_empty()
    }

    /// Whether the last that it got is the newest. Who came back behind the newest got nothing yet.
    pub(crate) fn has_all(&self, newest: &HashMap<String, Position>, ledger: &Ledger) -> bool {
        self.last.is_none_or(|last| ledger.place_of(last) == newest.get(&self.topic).copied())
    }

    pub(crate) fn publish(
        &mut self,
        wire: &mut Wire,
        format: Format,
        pad: &str,
        ledger: &mut Ledger,
    ) -> Checked {
        let draft = ledger.draft(self.session, &self.topic, format, None, pad)?;
        self.own.push(draft.id);
        wire.say(if format == Format::Binary { BINARY } else { TEXT }, &draft.payload);
        Ok(())
    }

    pub(crate) fn hear(&mut self, wire: &mut Wire, ledger: &mut Ledger) -> Checked {
        if !self.is_upgraded {
            let Some((status, _)) = wire.head() else { return Ok(()) };
            assert_eq!(status, 101, "an upgrade at {}/{}", self.path, self.topic);
            self.is_upgraded = true;
        }
        while let Some(message) = wire.message() {
            let content = match &message {
                Message::Text(text) if text.starts_with(b"{") => (Format::Json, &text[..]),
                Message::Text(text) => (Format::Text, &text[..]),
                Message::Binary(bytes) => (Format::Binary, &bytes[..]),
                Message::Close(code) => {
                    self.closed = Some(*code);
                    continue;
                }
            };
            let id = ledger.raw_receipt(self.session, &self.topic, content)?;
            self.last = Some(id);
            self.own.retain(|own| *own != id);
        }
        Ok(())
    }
}
