//! Asking an admin listener, for command lines: one request over one connection, blocking.

use std::{
    fmt,
    io::{self, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    time::Duration,
};

use serde::{Serialize, de::DeserializeOwned};
use tidegate_config::{Bind, Secret};

use crate::server::REQUEST_SECONDS;

/// Longest answer, in bytes: a page of a thousand sessions takes some 400 KiB.
const ANSWER_BYTES: u64 = 64 << 20;

/// Most fields of an answer's head.
const FIELDS: usize = 64;

/// An admin listener to ask.
#[derive(Clone, Debug)]
pub struct Client {
    /// Where it listens.
    pub bind: Bind,
    /// What it wants to be presented.
    pub token: Option<Secret>,
}

/// Why there is no answer of use.
#[derive(Debug)]
pub enum Failure {
    /// Nobody listens there, or the connection broke.
    Unreachable(Bind, io::Error),
    /// The answer is not one of an admin listener.
    NotAdmin(String),
    /// It refuses: the status, and what it says.
    Refused(u16, String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(bind, error) => write!(f, "cannot ask the gateway at {bind}: {error}")?,
            Self::NotAdmin(why) => write!(f, "that is no admin listener of tidegate: {why}")?,
            Self::Refused(status, why) => write!(f, "{why} ({status})")?,
        }
        match self {
            Self::Unreachable(_, error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
            {
                f.write_str("; does it run, and with `[admin]` in its configuration?")
            }
            _ => Ok(()),
        }
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreachable(_, error) => Some(error),
            Self::NotAdmin(_) | Self::Refused(..) => None,
        }
    }
}

/// An answer: its status and its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

impl Client {
    /// Gets what a path answers. `query` is put behind it, percent-encoded.
    ///
    /// # Errors
    /// As [`Failure`] has them; any status but 200 is one.
    pub fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> Result<T, Failure> {
        let query: Vec<String> =
            query.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        let target = if query.is_empty() { path.to_owned() } else { format!("{path}?{}", query.join("&")) };
        read(self.ask("GET", &target, None)?)
    }

    /// Posts JSON to a path.
    ///
    /// # Errors
    /// As [`Failure`] has them; any status but 200 is one.
    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).map_err(|error| Failure::NotAdmin(error.to_string()))?;
        read(self.ask("POST", path, Some(&body))?)
    }

    /// Sends a request and reads the answer, whatever its status.
    ///
    /// # Errors
    /// Where there is none.
    pub fn ask(&self, method: &str, target: &str, body: Option<&[u8]>) -> Result<Answer, Failure> {
        let unreachable = |error| Failure::Unreachable(self.bind.clone(), error);
        let patience = Some(Duration::from_secs(REQUEST_SECONDS));
        let head = self.head(method, target, body);
        let bytes = match &self.bind {
            Bind::Unix(path) => UnixStream::connect(path).and_then(|stream| {
                stream.set_read_timeout(patience)?;
                stream.set_write_timeout(patience)?;
                exchange(stream, &head)
            }),
            Bind::Tcp(address) => TcpStream::connect(address).and_then(|stream| {
                stream.set_read_timeout(patience)?;
                stream.set_write_timeout(patience)?;
                exchange(stream, &head)
            }),
        };
        parse(&bytes.map_err(unreachable)?)
    }

    fn head(&self, method: &str, target: &str, body: Option<&[u8]>) -> Vec<u8> {
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
        if let Some(token) = self.token.as_ref().and_then(Secret::present) {
            head += &format!("Authorization: Bearer {token}\r\n");
        }
        if let Some(body) = body {
            head += &format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
        }
        head += "\r\n";
        let mut head = head.into_bytes();
        head.extend_from_slice(body.unwrap_or_default());
        head
    }
}

fn exchange(mut stream: impl Read + Write, request: &[u8]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // Who is refused before the request was read may still be told why.
    let written = stream.write_all(request);
    let read = stream.take(ANSWER_BYTES).read_to_end(&mut bytes);
    match (bytes.is_empty(), written, read) {
        (false, ..) => Ok(bytes),
        (true, Err(error), _) | (true, _, Err(error)) => Err(error),
        (true, ..) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it hung up: too many ask at once")),
    }
}

fn parse(bytes: &[u8]) -> Result<Answer, Failure> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let end = match response.parse(bytes) {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) => return Err(Failure::NotAdmin("its answer was cut off".to_owned())),
        Err(error) => return Err(Failure::NotAdmin(error.to_string())),
    };
    let length = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|field| std::str::from_utf8(field.value).ok()?.trim().parse::<usize>().ok());
    let body = &bytes[end..];
    if length.is_some_and(|length| length != body.len()) {
        return Err(Failure::NotAdmin("its answer was cut off".to_owned()));
    }
    Ok(Answer { status: response.code.unwrap_or(0), body: body.to_vec() })
}

/// What an answer says.
///
/// # Errors
/// Where it is a refusal, or none of an admin listener.
pub fn read<T: DeserializeOwned>(Answer { status, body }: Answer) -> Result<T, Failure> {
    if status != 200 {
        let said = serde_json::from_slice::<serde_json::Value>(&body).ok();
        let said = said.as_ref().and_then(|said| said.get("error")?.as_str()).unwrap_or("it refuses");
        return Err(Failure::Refused(status, said.to_owned()));
    }
    serde_json::from_slice(&body).map_err(|error| Failure::NotAdmin(error.to_string()))
}

/// Percent-encoded as a part of a query (RFC 3986 §2.1).
fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_a_query_is_encoded() {
        assert_eq!(encoded("a.test/x/* (2)&é"), "a.test%2Fx%2F%2A%20%282%29%26%C3%A9");
    }

    #[test]
    fn an_answer_that_was_cut_off_is_none() {
        assert!(parse(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab").is_err());
        assert!(parse(b"HTTP/1.1 200 OK\r\nConte").is_err());
        assert!(parse(b"SSH-2.0-x\r\n").is_err());
        let answer = parse(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\n{}").unwrap();
        assert_eq!(answer, Answer { status: 403, body: b"{}".to_vec() });
    }
}
