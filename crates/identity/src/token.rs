//! A token's three parts (RFC 7515 §7.1): taken apart, and nothing believed.

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Deserializer, de::IgnoredAny};
use tidegate_config::Algorithm;

use crate::Invalid;

/// Longest token, in bytes. Those with many claims have some 2 KiB.
pub const MAX_TOKEN_BYTES: usize = 8 << 10;

/// What a token says of itself, and what its signature is of.
#[derive(Debug)]
pub(crate) struct Token<'t> {
    pub(crate) algorithm: Algorithm,
    /// The name of the key that it is signed with.
    pub(crate) key: Option<String>,
    /// Header and claims as they were signed.
    pub(crate) signed: &'t [u8],
    /// In base64url.
    claims: &'t [u8],
    pub(crate) signature: Vec<u8>,
}

/// The header (RFC 7515 §4.1). `jku`, `jwk`, `x5u` and `x5c` would bring keys along, so nobody looks at them.
#[derive(Deserialize)]
struct Header<'h> {
    #[serde(borrow)]
    alg: Cow<'h, str>,
    #[serde(borrow)]
    kid: Option<Cow<'h, str>>,
    #[serde(borrow)]
    typ: Option<Cow<'h, str>>,
    #[serde(default, deserialize_with = "is_there")]
    crit: bool,
}

/// Whatever it is: `null` is not to be taken for nothing.
fn is_there<'d, D: Deserializer<'d>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

impl<'t> Token<'t> {
    /// Takes a token apart. Its claims stay as they are: nobody has signed them yet.
    pub(crate) fn parse(bytes: &'t [u8]) -> Result<Self, Invalid> {
        if bytes.len() > MAX_TOKEN_BYTES {
            return Err(Invalid::TooLong);
        }
        let mut parts = bytes.split(|byte| *byte == b'.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Invalid::Form);
        };
        if header.is_empty() || claims.is_empty() || signature.is_empty() {
            return Err(Invalid::Form);
        }
        let signed = &bytes[..header.len() + 1 + claims.len()];
        let (header, signature) = (decode(header)?, decode(signature)?);
        let header: Header<'_> = serde_json::from_slice(&header).map_err(|_| Invalid::Header)?;
        if header.crit {
            return Err(Invalid::Critical);
        }
        if header.typ.as_deref().is_some_and(|typ| !is_access_token(typ)) {
            return Err(Invalid::Type);
        }
        let algorithm = Algorithm::named(&header.alg).ok_or(Invalid::Algorithm)?;
        Ok(Self { algorithm, key: header.kid.map(Cow::into_owned), signed, claims, signature })
    }

    /// The claims: JSON, for whoever has checked the signature.
    pub(crate) fn claims(&self) -> Result<Vec<u8>, Invalid> {
        decode(self.claims)
    }
}

/// RFC 7519 §5.1, RFC 9068 §4: what a token for access is called. Others (of a logout, of a proof of possession) may be
/// signed with the same key, and say something else.
fn is_access_token(typ: &str) -> bool {
    let bytes = typ.as_bytes();
    let prefix = "application/";
    let short = match bytes.get(..prefix.len()) {
        Some(start) if start.eq_ignore_ascii_case(prefix.as_bytes()) => &bytes[prefix.len()..],
        _ => bytes,
    };
    short.eq_ignore_ascii_case(b"jwt") || short.eq_ignore_ascii_case(b"at+jwt")
}

/// RFC 7515 §2: no padding, no white space, and no bits beyond the last byte.
pub(crate) fn decode(text: &[u8]) -> Result<Vec<u8>, Invalid> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| Invalid::Form)
}
