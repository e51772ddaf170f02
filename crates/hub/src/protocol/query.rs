//! What a URL asks for: the queries of event streams and polls, and the name of a topic in a path.

use std::borrow::Cow;

use super::body::json;
use super::text::whole;
use super::{MAX_CLIENTS, MAX_HISTORY, MAX_INFO_BYTES, MAX_TOPICS, MAX_WAIT_SECONDS, Positions, Problem};
use crate::ClientId;

/// What a request for an event stream wants. Topics are texts that nobody has looked at yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventsQuery<'q> {
    /// Names and patterns: 1 to [`MAX_TOPICS`].
    pub topics: Vec<Cow<'q, str>>,
    /// From where to go on; one for each topic.
    pub positions: Option<Positions>,
    /// Messages that are wanted first where nothing is recovered, at most [`MAX_HISTORY`]; one number for each topic.
    pub history: Vec<u32>,
    /// As whom the reader is present: 8 to 64 letters, digits, `-` and `_`, and no connection's name.
    pub client: Option<Cow<'q, str>>,
    /// What others see of it: JSON of at most [`MAX_INFO_BYTES`].
    pub info: Option<String>,
    /// In which of its topics; none: in all.
    pub attend: Vec<Cow<'q, str>>,
}

/// What a poll wants. Topics are texts that nobody has looked at yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PollQuery<'q> {
    /// Names: 1 to [`MAX_TOPICS`].
    pub topics: Vec<Cow<'q, str>>,
    /// From where to go on; one for each topic. Without, the answer comes at once.
    pub positions: Option<Positions>,
    /// Messages that are wanted where nothing is recovered, at most [`MAX_HISTORY`]; one number for each topic.
    pub history: Vec<u32>,
    /// How long the answer may wait: at most [`MAX_WAIT_SECONDS`].
    pub wait_seconds: u32,
    /// As whom the poller is present: 8 to 64 letters, digits, `-` and `_`, and no connection's name.
    pub client: Option<Cow<'q, str>>,
    /// What others see of it: JSON of at most [`MAX_INFO_BYTES`].
    pub info: Option<String>,
    /// In which of its topics; none: in all.
    pub attend: Vec<Cow<'q, str>>,
}

/// What somebody wants to know of a topic's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateQuery {
    /// So many of those who are there by name, at most [`MAX_CLIENTS`].
    pub clients: u32,
}

impl StateQuery {
    /// Reads the query behind the `?`, undecoded.
    ///
    /// # Errors
    /// A parameter stands twice, or is not as it should be.
    pub fn parse(query: &str) -> Result<Self, Problem> {
        const WRONG: Problem = Problem::request("`clients` is not a whole number");
        let text = Parameters::read(query)?.clients;
        let clients = text.map(|text| whole(&text).ok_or(WRONG)).transpose()?;
        Ok(Self { clients: clients.map_or(0, |clients| bounded(clients, MAX_CLIENTS)) })
    }
}

impl<'q> EventsQuery<'q> {
    /// Reads the query behind the `?`, undecoded, and the value of `Last-Event-ID`, which counts more than the query's
    /// `last-event-id`: it is newer.
    ///
    /// # Errors
    /// A parameter is missing, stands twice, or is not as it should be.
    pub fn parse(query: &'q str, last_event_id: Option<&str>) -> Result<Self, Problem> {
        let mut parameters = Parameters::read(query)?;
        let (client, info) = parameters.presence()?;
        let positions = last_event_id.filter(|id| !id.is_empty()).or(parameters.last_event_id.as_deref());
        Ok(Self {
            positions: parameters.positions(positions),
            history: parameters.history()?,
            attend: std::mem::take(&mut parameters.attend),
            topics: parameters.topics()?,
            client,
            info,
        })
    }
}

impl<'q> PollQuery<'q> {
    /// Reads the query behind the `?`, undecoded.
    ///
    /// # Errors
    /// A parameter is missing, stands twice, or is not as it should be.
    pub fn parse(query: &'q str) -> Result<Self, Problem> {
        const WAIT: Problem = Problem::request("`wait` is not a whole number");
        let mut parameters = Parameters::read(query)?;
        let wait = parameters.wait.as_deref().map(|text| whole(text).ok_or(WAIT)).transpose()?;
        let (client, info) = parameters.presence()?;
        Ok(Self {
            positions: parameters.positions(parameters.position.as_deref()),
            history: parameters.history()?,
            wait_seconds: wait.map_or(MAX_WAIT_SECONDS, |wait| bounded(wait, MAX_WAIT_SECONDS)),
            client,
            info,
            attend: std::mem::take(&mut parameters.attend),
            topics: parameters.topics()?,
        })
    }
}

/// The parameters that are known, decoded.
#[derive(Default)]
struct Parameters<'q> {
    topics: Vec<Cow<'q, str>>,
    attend: Vec<Cow<'q, str>>,
    position: Option<Cow<'q, str>>,
    last_event_id: Option<Cow<'q, str>>,
    history: Option<Cow<'q, str>>,
    wait: Option<Cow<'q, str>>,
    client: Option<Cow<'q, str>>,
    info: Option<Cow<'q, str>>,
    clients: Option<Cow<'q, str>>,
}

impl<'q> Parameters<'q> {
    fn read(query: &'q str) -> Result<Self, Problem> {
        let mut parameters = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name, Plus::Space)?;
            if let "topic" | "attend" = &*name {
                let topics = if name == "topic" { &mut parameters.topics } else { &mut parameters.attend };
                if topics.len() == MAX_TOPICS {
                    return Err(Problem::request("there are more than 16 topics"));
                }
                topics.push(decode(value, Plus::Space)?);
                continue;
            }
            let place = match &*name {
                "position" => &mut parameters.position,
                "last-event-id" => &mut parameters.last_event_id,
                "history" => &mut parameters.history,
                "wait" => &mut parameters.wait,
                "client" => &mut parameters.client,
                "info" => &mut parameters.info,
                "clients" => &mut parameters.clients,
                _ => continue,
            };
            if place.replace(decode(value, Plus::Space)?).is_some() {
                return Err(Problem::request("a parameter stands twice"));
            }
        }
        Ok(parameters)
    }

    fn topics(self) -> Result<Vec<Cow<'q, str>>, Problem> {
        if self.topics.is_empty() { Err(Problem::request("`topic` is missing")) } else { Ok(self.topics) }
    }

    fn presence(&mut self) -> Result<(Option<Cow<'q, str>>, Option<String>), Problem> {
        let client = self.client.take().map(check_client).transpose()?;
        Ok((client, self.info.take().map(|info| check_info(&info)).transpose()?))
    }

    /// One that cannot be understood is one from which nothing can be recovered: whoever has it would send it again.
    fn positions(&self, text: Option<&str>) -> Option<Positions> {
        let count = self.topics.len();
        let parse = |text| Positions::parse(text, count).unwrap_or_else(|| Positions::foreign(count));
        text.filter(|text| !text.is_empty()).map(parse)
    }

    /// A number for all topics, or one for each. They differ in what they want, and what is the state of a topic that conflates
    /// cannot be told from another one's history by whoever gets it.
    fn history(&self) -> Result<Vec<u32>, Problem> {
        const WRONG: Problem = Problem::request("`history` is not a whole number, or one for each topic");
        let count = self.topics.len();
        let Some(text) = &self.history else { return Ok(vec![0; count]) };
        let number = |text: &str| whole(text).map(|number| bounded(number, MAX_HISTORY)).ok_or(WRONG);
        if !text.contains(',') {
            return Ok(vec![number(text)?; count]);
        }
        let numbers = text.split(',').map(number).collect::<Result<Vec<_>, _>>()?;
        if numbers.len() == count { Ok(numbers) } else { Err(WRONG) }
    }
}

/// More than there can be is as much as there can be.
fn bounded(number: u64, most: u32) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX).min(most)
}

fn check_client(client: Cow<'_, str>) -> Result<Cow<'_, str>, Problem> {
    let plain = client.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    if !plain || !(8..=64).contains(&client.len()) {
        Err(Problem::request("`client` is not 8 to 64 letters, digits, `-` and `_`"))
    } else if ClientId::is_one(&client) {
        Err(Problem::request("`client` is eight letters and digits, as the names of connections are"))
    } else {
        Ok(client)
    }
}

fn check_info(info: &str) -> Result<String, Problem> {
    const TOO_LARGE: Problem = Problem::new(super::Code::TooLarge, "`info` is longer than 1 KiB");
    let value = json(info.as_bytes())?;
    if value.len() > MAX_INFO_BYTES {
        return Err(TOO_LARGE);
    }
    Ok(info.trim_matches([' ', '\t', '\r', '\n']).to_owned())
}

/// The topic that the rest of a path names: `scores/football` of `/topics/scores/football`. A `+` is a plus.
///
/// # Errors
/// A broken escape, or no UTF-8. Whether it is a name is for others to say.
pub fn topic_of_path(rest: &str) -> Result<Cow<'_, str>, Problem> {
    decode(rest, Plus::Plus)
}

/// What a `+` stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Plus {
    /// As in a path.
    Plus,
    /// As forms and `URLSearchParams` write it.
    Space,
}

/// RFC 3986 §2.1, strictly: a `%` has two digits behind it, and what comes out is UTF-8.
fn decode(text: &str, plus: Plus) -> Result<Cow<'_, str>, Problem> {
    const BROKEN: Problem = Problem::request("the URL has a broken percent-escape");
    let special = |byte: &u8| *byte == b'%' || *byte == b'+' && plus == Plus::Space;
    if !text.as_bytes().iter().any(special) {
        return Ok(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(special) {
        decoded.extend_from_slice(&rest[..at]);
        if rest[at] == b'+' {
            decoded.push(b' ');
            rest = &rest[at + 1..];
        } else {
            let digit = |at: usize| char::from(*rest.get(at)?).to_digit(16);
            let (high, low) = digit(at + 1).zip(digit(at + 2)).ok_or(BROKEN)?;
            decoded.push((high << 4 | low) as u8);
            rest = &rest[at + 3..];
        }
    }
    decoded.extend_from_slice(rest);
    String::from_utf8(decoded)
        .map(Cow::Owned)
        .map_err(|_| Problem::request("the URL has escapes that are not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Epoch,
        protocol::{Code, Position, Recover},
    };

    #[test]
    fn rfc3986_2_1_escapes_are_decoded_strictly() {
        for (text, space, plus) in [
            ("", "", ""),
            ("a/b", "a/b", "a/b"),
            ("a%20b", "a b", "a b"),
            ("a+b", "a b", "a+b"),
            ("a%2Bb%2b", "a+b+", "a+b+"),
            ("%C3%A9%f0%9f%8c%8a", "é🌊", "é🌊"),
            ("%2525", "%25", "%25"),
            ("%00", "\0", "\0"),
            ("é", "é", "é"),
        ] {
            assert_eq!(decode(text, Plus::Space).as_deref(), Ok(space));
            assert_eq!(topic_of_path(text).as_deref(), Ok(plus));
        }
        for bad in ["%", "%1", "a%", "%g0", "%0g", "%%20", "%+1", "%u0041", "%ff", "%C3", "%C3%28", "%é"] {
            assert_eq!(topic_of_path(bad).unwrap_err().code, Code::InvalidRequest, "{bad}");
        }
    }

    #[test]
    fn a_stream_has_topics_and_perhaps_positions() {
        let query = EventsQuery::parse("topic=a%2Fb&x&&topic=c/*&history=5", None).unwrap();
        assert_eq!(
            query,
            EventsQuery {
                topics: vec!["a/b".into(), "c/*".into()],
                positions: None,
                history: vec![5, 5],
                client: None,
                info: None,
                attend: Vec::new(),
            }
        );
        let query = EventsQuery::parse("topic=a&client=reader-1&info=1&attend=a", None).unwrap();
        assert_eq!((query.client.as_deref(), query.info.as_deref()), (Some("reader-1"), Some("1")));
        assert_eq!(query.attend, ["a"]);

        let both = "topic=a&topic=b/*&last-event-id=00000001-2%2C-";
        let from = |epoch, offset| Some(Recover::From(Position { epoch: Epoch(epoch), offset }));
        let of = |last| EventsQuery::parse(both, last).unwrap().positions.map(|all| (all.of(0), all.of(1)));
        assert_eq!(of(None), Some((from(1, 2), None)));
        assert_eq!(of(Some("")), Some((from(1, 2), None)));
        assert_eq!(of(Some("00000003-4,-")), Some((from(3, 4), None)), "the header is newer");
        for foreign in ["x", "00000003-4", "00000003-4,-,-", ","] {
            assert_eq!(
                of(Some(foreign)),
                Some((Some(Recover::Foreign), Some(Recover::Foreign))),
                "{foreign}"
            );
        }
        assert_eq!(EventsQuery::parse("topic=a&last-event-id=", None).unwrap().positions, None);
    }

    #[test]
    fn a_poll_has_what_it_says_or_the_defaults() {
        let query = PollQuery::parse("topic=a").unwrap();
        assert_eq!((query.history, query.wait_seconds, query.positions), (vec![0], MAX_WAIT_SECONDS, None));
        assert_eq!((query.client, query.info), (None, None));
        let info = "%20%7B%22name%22%3A%22Ada%22%7D";
        let text = format!("wait=0&history=99999999999&client=abcd-_12&info={info}&position=x&topic=a");
        let query = PollQuery::parse(&text).unwrap();
        assert_eq!((query.history, query.wait_seconds), (vec![MAX_HISTORY], 0));
        assert_eq!(query.positions, Some(Positions::foreign(1)));
        assert_eq!(query.client.as_deref(), Some("abcd-_12"));
        assert_eq!(query.info.as_deref(), Some(r#"{"name":"Ada"}"#));
        let three = PollQuery::parse("history=7%2C0,5000&topic=a&topic=b&topic=c").unwrap();
        assert_eq!(three.history, [7, 0, MAX_HISTORY]);
        assert_eq!(PollQuery::parse("topic=a&wait=60").unwrap().wait_seconds, MAX_WAIT_SECONDS);
    }

    #[test]
    fn a_query_that_is_wrong_is_told_so() {
        let many = ["topic=a"; 17].join("&");
        assert!(PollQuery::parse(&many[8..]).is_ok());
        let (long, deep) = ("1".repeat(1025), "[".repeat(100_000));
        for (query, code) in [
            ("", Code::InvalidRequest),
            ("history=1", Code::InvalidRequest),
            ("topics=a", Code::InvalidRequest),
            (&many, Code::InvalidRequest),
            ("topic=a&wait=-1", Code::InvalidRequest),
            ("topic=a&wait=", Code::InvalidRequest),
            ("topic=a&wait=1&wait=1", Code::InvalidRequest),
            ("topic=a&history=x", Code::InvalidRequest),
            ("topic=a&history=1,2", Code::InvalidRequest),
            ("topic=a&topic=b&topic=c&history=1,2", Code::InvalidRequest),
            ("topic=a&topic=b&history=1,", Code::InvalidRequest),
            ("topic=%", Code::InvalidRequest),
            ("topic=a&%=1", Code::InvalidRequest),
            ("topic=a&client=short", Code::InvalidRequest),
            ("topic=a&client=has%20space", Code::InvalidRequest),
            ("topic=a&client=pX3v9aK2", Code::InvalidRequest),
            ("topic=a&info={", Code::InvalidJson),
            ("topic=a&info=", Code::InvalidJson),
            (&format!("topic=a&info={deep}"), Code::InvalidJson),
            (&format!("topic=a&info={long}"), Code::TooLarge),
        ] {
            assert_eq!(PollQuery::parse(query).unwrap_err().code, code, "{query}");
        }
        assert_eq!(StateQuery::parse("").unwrap().clients, 0);
        assert_eq!(StateQuery::parse("clients=5&x=1").unwrap().clients, 5);
        assert_eq!(StateQuery::parse("clients=99999").unwrap().clients, MAX_CLIENTS);
        for query in ["clients=", "clients=-1", "clients=1&clients=1", "clients=%"] {
            assert_eq!(StateQuery::parse(query).unwrap_err().code, Code::InvalidRequest, "{query}");
        }
        // What belongs to polls is not known to streams, so it is ignored; it is decoded all the same.
        assert!(EventsQuery::parse("topic=a&wait=x", None).is_ok());
        assert!(EventsQuery::parse("topic=a&client=y", None).is_err());
    }
}
