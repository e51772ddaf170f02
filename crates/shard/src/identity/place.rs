//! Where in a request tokens stand, and requests without them.

use std::borrow::Cow;

use tidegate_config::TokenSource;
use tidegate_wire::http::{Request, bearer};

/// What was found in a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found<'r> {
    /// No place has a token.
    Nothing,
    /// The first place that has any has several: which of them counts, two readers would not agree on.
    Several,
    Token(Cow<'r, [u8]>),
}

/// The token of a request: that of the first place that has one.
pub(super) fn find<'r>(sources: &[TokenSource], request: &Request<'r>) -> Found<'r> {
    for source in sources {
        let found = match source {
            TokenSource::Authorization => bearer_of(request),
            TokenSource::Cookie(name) => one(cookies(request, name)),
            TokenSource::Query(name) => one(parameters(request, name)),
            TokenSource::Subprotocol(prefix) => one(subprotocols(request, prefix)),
        };
        if found != Found::Nothing {
            return found;
        }
    }
    Found::Nothing
}

/// What stands in a request's `Authorization`, in the scheme `Bearer`: a token, or what is presented as a key.
pub(crate) fn bearer_of<'r>(request: &Request<'r>) -> Found<'r> {
    one(bearers(request))
}

fn one<'r>(values: impl Iterator<Item = Cow<'r, [u8]>>) -> Found<'r> {
    let mut values = values.filter(|value| !value.is_empty());
    let Some(first) = values.next() else { return Found::Nothing };
    if values.any(|other| other != first) { Found::Several } else { Found::Token(first) }
}

/// What is in another scheme is somebody else's.
fn bearers<'r>(request: &Request<'r>) -> impl Iterator<Item = Cow<'r, [u8]>> {
    request.fields.all("authorization").filter_map(bearer).map(Cow::Borrowed)
}

/// RFC 6265 §4.2.1: pairs between semicolons; a value may stand in quotes.
fn cookies<'r>(request: &Request<'r>, name: &str) -> impl Iterator<Item = Cow<'r, [u8]>> {
    let pairs = request.fields.all("cookie").flat_map(|field| field.split(|byte| *byte == b';'));
    pairs.filter_map(move |pair| {
        let pair = pair.trim_ascii();
        let (key, value) = pair.split_at(pair.iter().position(|byte| *byte == b'=')?);
        let value = &value[1..];
        let inner = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
        (key == name.as_bytes()).then(|| Cow::Borrowed(inner.unwrap_or(value)))
    })
}

fn parameters<'r>(request: &Request<'r>, name: &str) -> impl Iterator<Item = Cow<'r, [u8]>> {
    let pairs = request.target.query.into_iter().flat_map(|query| query.split('&'));
    pairs.filter_map(move |pair| {
        let (key, value) = pair.split_once('=')?;
        (*decode(key) == *name.as_bytes()).then(|| decode(value))
    })
}

fn subprotocols<'r>(request: &Request<'r>, prefix: &str) -> impl Iterator<Item = Cow<'r, [u8]>> {
    let offers = request.fields.list("sec-websocket-protocol");
    offers.filter_map(move |offer| offer.strip_prefix(prefix).map(|token| Cow::Borrowed(token.as_bytes())))
}

/// Whether an element of `Sec-WebSocket-Protocol` is a token's.
pub(super) fn is_token_offer(sources: &[TokenSource], offer: &str) -> bool {
    sources
        .iter()
        .any(|source| matches!(source, TokenSource::Subprotocol(prefix) if offer.starts_with(prefix)))
}

/// A query without its tokens; `None` where nothing else is in it.
pub(super) fn query_without<'q>(sources: &[TokenSource], query: &'q str) -> Option<Cow<'q, str>> {
    let is_token = |pair: &str| {
        let key = decode(pair.split_once('=').map_or(pair, |(key, _)| key));
        sources.iter().any(|source| matches!(source, TokenSource::Query(name) if *key == *name.as_bytes()))
    };
    if !query.split('&').any(is_token) {
        return Some(Cow::Borrowed(query));
    }
    let rest: Vec<&str> = query.split('&').filter(|pair| !is_token(pair)).collect();
    (!rest.is_empty()).then(|| Cow::Owned(rest.join("&")))
}

/// RFC 3986 §2.1. The request's head was read: every `%` stands before two hexadecimal digits.
fn decode(text: &str) -> Cow<'_, [u8]> {
    if !text.contains('%') {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        let digits = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits.filter(|_| *byte == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok());
        decoded.push(escaped.unwrap_or(*byte));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    Cow::Owned(decoded)
}

#[cfg(test)]
mod tests {
    use tidegate_wire::http::HeadLimits;

    use super::*;

    fn found(sources: &[TokenSource], target: &str, fields: &str) -> String {
        let head = format!("GET {target} HTTP/1.1\r\nHost: gw.test\r\n{fields}\r\n");
        let request = Request::parse(head.as_bytes(), &HeadLimits::default(), false).unwrap();
        match find(sources, &request) {
            Found::Nothing => "nothing".to_owned(),
            Found::Several => "several".to_owned(),
            Found::Token(token) => format!("{:?}", String::from_utf8_lossy(&token)),
        }
    }

    #[test]
    fn a_token_is_found_where_it_may_stand() {
        let authorization = [TokenSource::Authorization];
        let cookie = [TokenSource::Cookie("session".to_owned())];
        let query = [TokenSource::Query("token".to_owned())];
        let subprotocol = [TokenSource::Subprotocol("token.".to_owned())];
        for (sources, target, fields, expected) in [
            (&authorization, "/?token=q", "Cookie: session=c\r\n", "nothing"),
            (&authorization, "/", "Authorization: Bearer a.b.c\r\n", "\"a.b.c\""),
            (&authorization, "/", "authorization: bEARER  a.b.c \r\n", "\"a.b.c\""),
            (&authorization, "/", "Authorization: Basic a.b.c\r\n", "nothing"),
            (&authorization, "/", "Authorization: Bearer\r\n", "nothing"),
            (&authorization, "/", "Authorization: a.b.c\r\n", "nothing"),
            (&authorization, "/", "Authorization: Bearer a b\r\n", "\"a b\""),
            (&authorization, "/", "Authorization: Bearer a\r\nAuthorization: Bearer b\r\n", "several"),
            (&authorization, "/", "Authorization: Bearer a\r\nAuthorization: Basic b\r\n", "\"a\""),
            (&cookie, "/", "Cookie: a=b; session=x.y; c=d\r\n", "\"x.y\""),
            (&cookie, "/", "Cookie: asession=x; session2=y; Session=z\r\n", "nothing"),
            (&cookie, "/", "Cookie: session=\"x\"\r\n", "\"x\""),
            (&cookie, "/", "Cookie: session=x\r\nCookie: session=y\r\n", "several"),
            (&cookie, "/", "Cookie: session=x; session=x\r\n", "\"x\""),
            (&cookie, "/", "Cookie: session=; session\r\n", "nothing"),
            (&query, "/?a=b&token=x.y", "", "\"x.y\""),
            (&query, "/?%74oken=x%2Ey%0d%0a", "", "\"x.y\\r\\n\""),
            (&query, "/?token=x&token=y", "", "several"),
            (&query, "/?token", "", "nothing"),
            (&query, "/?token=", "", "nothing"),
            (&query, "/token=x", "", "nothing"),
            (&subprotocol, "/", "Sec-WebSocket-Protocol: v1, token.x.y\r\n", "\"x.y\""),
            (&subprotocol, "/", "Sec-WebSocket-Protocol: v1\r\nSec-WebSocket-Protocol: token.x\r\n", "\"x\""),
            (&subprotocol, "/", "Sec-WebSocket-Protocol: token.x, token.y\r\n", "several"),
            (&subprotocol, "/", "Sec-WebSocket-Protocol: token., Token.x\r\n", "nothing"),
        ] {
            assert_eq!(found(sources, target, fields), expected, "{target} {fields}");
        }
    }

    #[test]
    fn the_first_place_that_has_one_counts() {
        let both = [TokenSource::Cookie("session".to_owned()), TokenSource::Query("token".to_owned())];
        assert_eq!(found(&both, "/?token=q", "Cookie: session=c\r\n"), "\"c\"");
        assert_eq!(found(&both, "/?token=q", "Cookie: session=\r\n"), "\"q\"");
        assert_eq!(found(&both, "/?token=q", "Cookie: session=a; session=b\r\n"), "several");
    }

    #[test]
    fn a_query_loses_its_tokens_alone() {
        let sources = [TokenSource::Query("token".to_owned()), TokenSource::Query("t".to_owned())];
        for (query, rest) in [
            ("a=b", Some("a=b")),
            ("", Some("")),
            ("token=x", None),
            ("token", None),
            ("a=b&token=x&c", Some("a=b&c")),
            ("t=1&%74oken=x&tokens=y&a=token", Some("tokens=y&a=token")),
        ] {
            assert_eq!(query_without(&sources, query).as_deref(), rest, "{query}");
        }
    }
}
