//! The client's side: writing the request, judging the answer.

use super::accept::{accept_key, encode_key};
use crate::extension::{DeflateOffer, DeflateParams, ExtensionOffers};
use crate::http::{BadResponse, ResponseHead, Version, push_field};

/// What a client says in `Sec-WebSocket-Extensions`.
#[derive(Clone, Copy, Debug)]
pub enum Offer<'a> {
    /// Nothing.
    None,
    /// permessage-deflate with these parameters.
    Deflate(&'a DeflateOffer),
    /// Another client's list, passed on as it is; several lines joined with `, `.
    Raw(&'a str),
}

/// What both ends agreed on, as the server's 101 says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Agreed {
    /// The subprotocol.
    pub protocol: Option<String>,
    /// permessage-deflate and its parameters.
    pub extension: Option<DeflateParams>,
}

/// Appends an upgrade request (RFC 6455 §4.1). `target` is in origin form, `key` is random, `fields` go in as they are: none
/// of them may be a field that is written here (see [`forwarded_fields`](super::forwarded_fields)).
///
/// # Panics
/// If something would not be one line.
pub fn client_request<'a>(
    out: &mut Vec<u8>,
    target: &str,
    host: &str,
    key: &[u8; 16],
    protocols: &[&str],
    offer: Offer<'_>,
    fields: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) {
    assert!(
        target.starts_with('/') && target.bytes().all(|byte| (0x21..0x7f).contains(&byte)),
        "an origin-form target"
    );
    out.extend_from_slice(b"GET ");
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    push_field(out, "Host", host.as_bytes());
    out.extend_from_slice(b"Upgrade: websocket\r\nConnection: Upgrade\r\n");
    push_field(out, "Sec-WebSocket-Key", &encode_key(key));
    out.extend_from_slice(b"Sec-WebSocket-Version: 13\r\n");
    if !protocols.is_empty() {
        push_field(out, "Sec-WebSocket-Protocol", protocols.join(", ").as_bytes());
    }
    match offer {
        Offer::None => {}
        Offer::Deflate(offer) => push_field(out, "Sec-WebSocket-Extensions", offer.to_string().as_bytes()),
        Offer::Raw(text) => push_field(out, "Sec-WebSocket-Extensions", text.as_bytes()),
    }
    for (name, value) in fields {
        push_field(out, name, value);
    }
    out.extend_from_slice(b"\r\n");
}

/// Judges the answer by RFC 6455 §4.1. Only after this is good may a byte be forwarded.
///
/// # Errors
/// One variant per rule that is broken; [`BadResponse::Status`] where the answer is a refusal, which may be relayed.
pub fn verify_response(
    response: &ResponseHead<'_>,
    key: &[u8; 16],
    protocols: &[&str],
    offer: Offer<'_>,
) -> Result<Agreed, BadResponse> {
    let fields = &response.fields;
    if response.status != 101 {
        return Err(BadResponse::Status(response.status));
    }
    if response.version != Version::Http11 {
        return Err(BadResponse::Version);
    }
    match fields.one("upgrade") {
        Ok(Some(protocol)) if protocol.eq_ignore_ascii_case("websocket") => {}
        _ => return Err(BadResponse::Upgrade),
    }
    if !fields.has_token("connection", "upgrade") {
        return Err(BadResponse::Connection);
    }
    let text = encode_key(key);
    let expected = accept_key(std::str::from_utf8(&text).unwrap_or_default());
    match fields.one("sec-websocket-accept") {
        Ok(Some(accept)) if accept.as_bytes() == expected => {}
        _ => return Err(BadResponse::Accept),
    }
    // RFC 9110 §8.6 and RFC 9112 §6.1: neither may stand in a 1xx. A length of 0 announces nothing.
    let length = fields.one("content-length").map_err(|_| BadResponse::Body)?;
    if fields.has("transfer-encoding") || length.is_some_and(|length| length != "0") {
        return Err(BadResponse::Body);
    }
    let protocol = match fields.one("sec-websocket-protocol").map_err(|_| BadResponse::Protocol)? {
        None => None,
        Some(chosen) if protocols.contains(&chosen) => Some(chosen.to_owned()),
        Some(_) => return Err(BadResponse::Protocol),
    };
    let raw = fields.one("sec-websocket-extensions").map_err(|_| BadResponse::Extension)?;
    let extension = match offer {
        Offer::None => ExtensionOffers::default().verify(raw),
        Offer::Deflate(offer) => offer.verify(raw),
        Offer::Raw(text) => ExtensionOffers::new(vec![text]).verify(raw),
    };
    let extension = extension.map_err(|_| BadResponse::Extension)?;
    Ok(Agreed { protocol, extension })
}
