//! Requests of HTTP, and what is answered.

use serde_json::Value;

use super::{
    client::{Client, Response},
    gateway::Gateway,
};

/// A POST with more lines of its head.
pub(crate) fn post(path: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    let mut request =
        format!("POST {path} HTTP/1.1\r\nHost: gw.test\r\nContent-Length: {}\r\n{fields}\r\n", body.len())
            .into_bytes();
    request.extend_from_slice(body);
    request
}

/// The field of a body in JSON.
pub(crate) const AS_JSON: &str = "Content-Type: application/json\r\n";

/// A GET with more lines of its head.
pub(crate) fn get(path: &str, fields: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: gw.test\r\n{fields}\r\n").into_bytes()
}

/// One request on a connection of its own.
pub(crate) fn ask(gateway: &Gateway, request: &[u8]) -> Response {
    let mut client = Client::connect(gateway.address());
    client.send(request);
    client.response().expect("an answer")
}

/// Takes an event off the front of a stream's text (HTML Standard §9.2.5); `None` where it is not complete.
pub(crate) fn take_event(text: &mut String) -> Option<String> {
    // From line to line: a search for both line feeds goes byte by byte where tests are not optimised.
    let (end, _) = text.match_indices('\n').find(|(at, _)| text[at + 1..].starts_with('\n'))?;
    let rest = text.split_off(end + 2);
    Some(std::mem::replace(text, rest))
}

/// The JSON of an answer.
pub(crate) fn body(response: &Response) -> Value {
    serde_json::from_slice(&response.body).unwrap_or_else(|error| panic!("{error}: {response:?}"))
}
