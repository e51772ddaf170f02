//! A service that publishes by HTTP, many at once, and reads what became of each.

use std::collections::VecDeque;

use serde_json::Value;

use crate::{
    ledger::{Checked, Draft, Ledger, wrong},
    talker::{fields_of, position_of},
    wire::Wire,
};

#[derive(Default)]
pub(crate) struct Poster {
    /// The requests that are not answered, each with what it publishes.
    asked: VecDeque<Vec<u64>>,
}

impl Poster {
    pub(crate) fn end(&mut self, ledger: &mut Ledger) {
        self.asked.drain(..).flatten().for_each(|id| ledger.forget(id));
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.asked.is_empty()
    }

    pub(crate) fn may_publish(&self) -> bool {
        self.asked.len() < 2
    }

    pub(crate) fn publish(&mut self, wire: &mut Wire, drafts: &[(&str, Draft)]) {
        let all: Vec<String> =
            drafts.iter().map(|(topic, draft)| format!("{{{}}}", fields_of(topic, draft))).collect();
        let body = format!("[{}]", all.join(","));
        self.asked.push_back(drafts.iter().map(|(_, draft)| draft.id).collect());
        let head = format!(
            "POST /publish HTTP/1.1\r\nHost: gw.test\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        wire.send((head + &body).as_bytes());
    }

    pub(crate) fn hear(&mut self, wire: &mut Wire, ledger: &mut Ledger) -> Checked {
        while let Some((status, body)) = wire.answer() {
            let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
            let Some(ids) = self.asked.pop_front() else { return wrong("an answer to nothing") };
            let results = answer["results"].as_array().map(Vec::as_slice).unwrap_or_default();
            if !matches!(status, 200 | 207 | 503) || results.len() != ids.len() {
                return wrong(format!("{status} for {} publications: {answer}", ids.len()));
            }
            for (id, result) in ids.into_iter().zip(results) {
                match result["error"]["code"].as_str() {
                    None => ledger.accepted(id, position_of(result))?,
                    Some("busy") => ledger.refused(id)?,
                    Some(_) => return wrong(format!("refused: {result}")),
                }
            }
        }
        Ok(())
    }
}
