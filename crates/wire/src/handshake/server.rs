//! The server's side: judging an upgrade, writing the 101.

use super::accept::{accept_key, is_key};
use crate::extension::{DeflateParams, ExtensionOffers};
use crate::http::{Refusal, Request, Version, is_known_method, is_token, push_field};

/// An upgrade request that follows every rule of RFC 6455 §4.2.1. Origin, subprotocol and extensions are not decided yet.
#[derive(Clone, Debug)]
pub struct Upgrade<'b> {
    /// The text of `Sec-WebSocket-Key`.
    pub key: &'b str,
    /// What a browser says of the page that connects.
    pub origin: Option<&'b str>,
    /// The subprotocols that the client offers, in its order of preference: tokens, no two equal, at most 64.
    pub protocols: Vec<&'b str>,
    /// The extensions that the client offers.
    pub offers: ExtensionOffers<'b>,
}

/// Elements that a list may have here. No client comes near.
const MAX_PROTOCOLS: usize = 64;
const MAX_CONNECTION_OPTIONS: usize = 32;

const VERSION_13: &[(&str, &str)] = &[("Sec-WebSocket-Version", "13")];
const UPGRADE_13: &[(&str, &str)] = &[("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")];

/// Judges an upgrade on a WebSocket route by RFC 6455 §4.2.1.
///
/// `Upgrade` is a list (RFC 9110 §7.8): `websocket` has to be in it, without regard to case and without a version. It
/// may stand only once, as may every other field that decides; `Connection` and `Sec-WebSocket-Protocol` may stand in
/// several lines.
///
/// # Errors
/// Every refusal closes the connection, so that what follows the head is never read as a request: 501 and 405 for
/// methods, 426 where the upgrade is missing or to something else, or the version is not 13, 417 for `Expect`, else 400.
pub fn upgrade<'b>(request: &Request<'b>) -> Result<Upgrade<'b>, Refusal> {
    if request.method != "GET" {
        return Err(match is_known_method(request.method) {
            true => Refusal::new(405, "a WebSocket is opened with GET").with(&[("Allow", "GET")]),
            false => crate::http::UNKNOWN_METHOD,
        });
    }
    // RFC 9110 §7.8: a server MUST ignore Upgrade in HTTP/1.0, and then nothing is left on a WebSocket route.
    if request.version == Version::Http10 {
        return Err(Refusal::bad("a WebSocket is opened with HTTP/1.1"));
    }
    check_body(request)?;
    check_upgrade(request)?;
    check_connection(request)?;
    check_version(request)?;
    // Missing, doubled or not 16 bytes: RFC 6455 §4.2.1, 5 and §11.3.1.
    let key = match request.fields.one("sec-websocket-key")? {
        Some(key) if is_key(key) => key,
        Some(_) => return Err(Refusal::bad("the Sec-WebSocket-Key is not 16 bytes in base64")),
        None => return Err(Refusal::bad("the Sec-WebSocket-Key is missing")),
    };
    Ok(Upgrade {
        key,
        origin: request.fields.one("origin")?,
        protocols: protocols(request)?,
        offers: offers(request)?,
    })
}

/// A body in front of frames would be read as frames by one and as a body by another (CVE-2026-58055).
fn check_body(request: &Request<'_>) -> Result<(), Refusal> {
    if request.has_transfer_encoding() || request.content_length()?.is_some_and(|length| length > 0) {
        return Err(Refusal::bad("an upgrade has no body"));
    }
    if request.fields.has("expect") {
        return Err(Refusal::new(417, "an upgrade has no body to wait for"));
    }
    Ok(())
}

fn check_upgrade(request: &Request<'_>) -> Result<(), Refusal> {
    let Some(_) = request.fields.one("upgrade")? else {
        return Err(Refusal::new(426, "this route speaks only WebSocket").with(UPGRADE_13));
    };
    let mut found = false;
    for protocol in request.fields.list("upgrade") {
        let (name, version) = match protocol.split_once('/') {
            Some((name, version)) => (name, Some(version)),
            None => (protocol, None),
        };
        if !is_token(name.as_bytes()) || version.is_some_and(|version| !is_token(version.as_bytes())) {
            return Err(Refusal::bad("the Upgrade field is not a list of protocols"));
        }
        found |= protocol.eq_ignore_ascii_case("websocket");
    }
    if found {
        Ok(())
    } else {
        Err(Refusal::new(426, "this route upgrades only to websocket").with(UPGRADE_13))
    }
}

fn check_connection(request: &Request<'_>) -> Result<(), Refusal> {
    let mut found = false;
    for (index, option) in request.fields.list("connection").enumerate() {
        if index >= MAX_CONNECTION_OPTIONS || !is_token(option.as_bytes()) {
            return Err(Refusal::bad("the Connection field is not a short list of tokens"));
        }
        found |= option.eq_ignore_ascii_case("upgrade");
    }
    if found { Ok(()) } else { Err(Refusal::bad("the Connection field does not name Upgrade")) }
}

/// RFC 6455 §4.2.1, 6, §4.4 and §11.3.5: one number from 0 to 255; another version than 13 is told which is spoken.
fn check_version(request: &Request<'_>) -> Result<(), Refusal> {
    const MALFORMED: Refusal = Refusal::bad("the Sec-WebSocket-Version is not one version").with(VERSION_13);
    match request.fields.one("sec-websocket-version") {
        Ok(Some("13")) => Ok(()),
        Ok(Some(text)) => {
            let is_number = text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u8>().is_ok();
            if is_number && (text == "0" || !text.starts_with('0')) {
                Err(Refusal::new(426, "only version 13 of WebSocket is spoken here").with(UPGRADE_13))
            } else {
                Err(MALFORMED)
            }
        }
        Ok(None) => Err(Refusal::bad("the Sec-WebSocket-Version is missing").with(VERSION_13)),
        Err(_) => Err(MALFORMED),
    }
}

/// RFC 6455 §4.1, 10: elements are tokens and unique, and none is empty.
fn protocols<'b>(request: &Request<'b>) -> Result<Vec<&'b str>, Refusal> {
    let mut protocols: Vec<&'b str> = Vec::new();
    for protocol in request.fields.elements("sec-websocket-protocol") {
        if !is_token(protocol.as_bytes()) {
            return Err(Refusal::bad("a subprotocol is not a token"));
        }
        if protocols.len() == MAX_PROTOCOLS {
            return Err(Refusal::bad("too many subprotocols are offered"));
        }
        if protocols.contains(&protocol) {
            return Err(Refusal::bad("a subprotocol is offered twice"));
        }
        protocols.push(protocol);
    }
    Ok(protocols)
}

fn offers<'b>(request: &Request<'b>) -> Result<ExtensionOffers<'b>, Refusal> {
    let mut values = Vec::new();
    for value in request.fields.all("sec-websocket-extensions") {
        match std::str::from_utf8(value) {
            Ok(text) if text.is_ascii() => values.push(text),
            _ => return Err(Refusal::bad("the Sec-WebSocket-Extensions field is not ASCII")),
        }
    }
    Ok(ExtensionOffers::new(values))
}

/// What a 101 says.
#[derive(Clone, Copy, Debug)]
pub struct Accepted<'a> {
    /// The text of the client's key.
    pub key: &'a str,
    /// The subprotocol that was chosen from the client's.
    pub protocol: Option<&'a str>,
    /// The extension that was agreed.
    pub extension: Option<&'a DeflateParams>,
}

/// Appends the 101 (RFC 6455 §4.2.2).
///
/// # Panics
/// If the protocol is not one line; the ones from [`Upgrade::protocols`] are tokens.
pub fn switching_protocols(out: &mut Vec<u8>, accepted: &Accepted<'_>) {
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ",
    );
    out.extend_from_slice(&accept_key(accepted.key));
    out.extend_from_slice(b"\r\n");
    if let Some(protocol) = accepted.protocol {
        push_field(out, "Sec-WebSocket-Protocol", protocol.as_bytes());
    }
    if let Some(extension) = accepted.extension {
        push_field(out, "Sec-WebSocket-Extensions", extension.to_string().as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{HeadLimits, work};

    #[test]
    fn rfc6455_1_3_the_sample_answer() {
        let mut out = Vec::new();
        let extension = DeflateParams::default();
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        switching_protocols(&mut out, &Accepted { key, protocol: Some("chat"), extension: Some(&extension) });
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\
             Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n\r\n"
        );
    }

    /// CVE-2021-32640: a pattern that went back over the spaces.
    #[test]
    fn a_hostile_list_costs_a_few_passes() {
        let limits = HeadLimits { head_bytes: 1 << 20, ..HeadLimits::default() };
        let size = 32_000;
        let values = [
            format!("b{}x", " ".repeat(size)),
            " ".repeat(size),
            ",".repeat(size),
            "a,".repeat(size / 2),
            "a".repeat(size),
            (0..size / 6).map(|index| format!("{index}, ")).collect(),
        ];
        for name in ["Sec-WebSocket-Protocol", "Connection", "Upgrade"] {
            for value in &values {
                let head = format!(
                    "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n{}{name}: {value}\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
                    if name == "Upgrade" { "" } else { "Upgrade: websocket\r\n" },
                );
                let request = Request::parse(head.as_bytes(), &limits, false).unwrap();
                work::take();
                let _ = upgrade(&request);
                let examined = work::take();
                assert!(examined <= 4 * head.len(), "{examined} for {} of {name}", head.len());
            }
        }
    }
}
