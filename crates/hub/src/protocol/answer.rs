//! Bodies of HTTP answers.

use super::content::push_message;
use super::events::push_standings;
use super::text::{push_string, push_whole};
use super::write::{push_acceptance, push_clients, push_code, push_position};
use super::{Acceptance, Code, Content, Position, Present, Standing, push_positions};

/// The answer to publications over HTTP, in the order in which they were asked for.
#[derive(Debug)]
pub struct Results {
    body: Vec<u8>,
    accepted: u32,
    refused: u32,
    /// What all refusals so far would be answered with alone.
    common: Option<u16>,
}

impl Results {
    /// No result yet.
    #[must_use]
    pub fn new() -> Self {
        Self { body: br#"{"results":["#.to_vec(), accepted: 0, refused: 0, common: None }
    }

    /// The next was accepted.
    pub fn accepted(&mut self, acceptance: &Acceptance<'_>) {
        self.separate();
        self.accepted += 1;
        self.body.push(b'{');
        push_acceptance(&mut self.body, acceptance);
        self.body.push(b'}');
    }

    /// The next was not.
    pub fn refused(&mut self, code: Code, message: &str) {
        self.separate();
        let status = code.status();
        self.common =
            if self.refused == 0 { Some(status) } else { self.common.filter(|common| *common == status) };
        self.refused += 1;
        push_error(&mut self.body, code, message);
    }

    /// Status and body: 200 where all were accepted, the status of the refusals where none was and they agree, else
    /// 207. With 429 and 503 belongs `Retry-After`.
    #[must_use]
    pub fn finish(mut self) -> (u16, Vec<u8>) {
        let status = match (self.accepted, self.refused) {
            (_, 0) => 200,
            (0, _) => self.common.unwrap_or(207),
            (_, _) => 207,
        };
        self.body.extend_from_slice(b"]}");
        (status, self.body)
    }

    fn separate(&mut self) {
        if self.accepted + self.refused > 0 {
            self.body.push(b',');
        }
    }
}

impl Default for Results {
    fn default() -> Self {
        Self::new()
    }
}

/// Appends the body of an answer that is nothing but an error; its status is [`Code::status`].
pub fn push_error(out: &mut Vec<u8>, code: Code, message: &str) {
    out.extend_from_slice(br#"{"error":{"#);
    push_code(out, code, message);
    out.extend_from_slice(b"}}");
}

/// Appends one message of the answer to a poll: the same for all who poll the topic.
pub fn push_poll_message(out: &mut Vec<u8>, topic: &str, offset: u64, content: Content<'_>) {
    out.push(b'{');
    push_message(out, topic, offset, content);
}

/// Appends the answer to a poll: where each topic is now, in the order of the request, and the messages up to there, each
/// as [`push_poll_message`] writes it.
pub fn push_poll<'p, M: AsRef<[u8]>>(
    out: &mut Vec<u8>,
    standings: impl IntoIterator<Item = Standing<'p>> + Clone,
    messages: impl IntoIterator<Item = M>,
) {
    out.extend_from_slice(br#"{"position":""#);
    push_positions(out, standings.clone().into_iter().map(|standing| standing.position));
    out.extend_from_slice(br#"","#);
    push_standings(out, standings);
    out.extend_from_slice(br#","messages":["#);
    for (index, message) in messages.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(message.as_ref());
    }
    out.extend_from_slice(b"]}");
}

/// What a topic is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State<'t> {
    /// The name.
    pub topic: &'t str,
    /// Where it is.
    pub position: Position,
    /// How many subscribe to it by its name, on all shards.
    pub subscribers: u64,
    /// How many messages its history has.
    pub history: u64,
    /// How many clients are there, where that may be known.
    pub present: Option<u64>,
    /// Those of them that are listed, where some were asked for.
    pub clients: Option<Vec<Present<'t>>>,
}

/// Appends the answer to `GET /topics/NAME`.
pub fn push_state(out: &mut Vec<u8>, state: &State<'_>) {
    out.extend_from_slice(br#"{"topic":"#);
    push_string(out, state.topic.as_bytes());
    push_position(out, state.position);
    out.extend_from_slice(br#","subscribers":"#);
    push_whole(out, state.subscribers);
    out.extend_from_slice(br#","history":"#);
    push_whole(out, state.history);
    if let Some(present) = state.present {
        out.extend_from_slice(br#","present":"#);
        push_whole(out, present);
    }
    if let Some(clients) = &state.clients {
        push_clients(out, clients.iter().copied());
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Epoch;

    fn status(codes: &[Option<Code>]) -> u16 {
        let position = Position { epoch: Epoch(1), offset: 2 };
        let mut results = Results::new();
        for code in codes {
            match code {
                None => results.accepted(&Acceptance { topic: "a", position, duplicate: false }),
                Some(code) => results.refused(*code, "no"),
            }
        }
        results.finish().0
    }

    #[test]
    fn the_status_says_what_all_results_have_in_common() {
        let [denied, busy, unknown] = [Code::NotAllowed, Code::Busy, Code::Unknown].map(Some);
        let [topic, json] = [Code::InvalidTopic, Code::InvalidRequest].map(Some);
        for (codes, expected) in [
            (&[][..], 200),
            (&[None], 200),
            (&[None, None], 200),
            (&[denied], 403),
            (&[denied, denied], 403),
            (&[busy], 503),
            (&[unknown, unknown], 504),
            (&[unknown, busy], 207),
            (&[None, unknown], 207),
            (&[topic, json], 400),
            (&[denied, busy], 207),
            (&[denied, busy, denied], 207),
            (&[denied, busy, busy], 207),
            (&[None, denied], 207),
            (&[denied, None], 207),
        ] {
            assert_eq!(status(codes), expected, "{codes:?}");
        }
    }
}
