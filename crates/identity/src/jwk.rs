//! Keys in JSON (RFC 7517, RFC 7518 §6, RFC 8037 §2).

use std::fmt;

use serde::Deserialize;
use serde_json::Value;
use tidegate_config::Algorithm;

use crate::{
    key::{BadKey, Key},
    token::decode,
};

/// Most keys of a set.
const MAX_KEYS: usize = 100;

/// The keys of a set that some algorithms can be checked with, and what is said of the others.
#[derive(Debug)]
pub(crate) struct KeySet {
    pub(crate) keys: Vec<Key>,
    pub(crate) warnings: Vec<String>,
}

/// Why a text is no set of keys.
#[derive(Debug)]
pub(crate) enum BadSet {
    Json(serde_json::Error),
    TooMany,
    Key(Place, Fault),
    /// Two of this name for this algorithm.
    Twice(Place, Place, Algorithm),
    /// None is for any of the algorithms.
    Unusable,
}

/// Which key of a set: its position from 1, and its name.
#[derive(Clone, Debug)]
pub(crate) struct Place(usize, Option<String>);

/// What is wrong with a key.
#[derive(Debug)]
pub(crate) enum Fault {
    Missing(&'static str),
    Encoding(&'static str),
    Bad(BadKey),
}

/// RFC 7517 §5: members that are not known are passed over.
#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    kid: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    k: Option<String>,
    d: Option<serde::de::IgnoredAny>,
}

impl KeySet {
    /// Reads a set. Keys that are for something else, or of a kind that is not known, are passed over (RFC 7517 §5).
    ///
    /// # Errors
    /// Where it is none, a key of a known kind is broken, or none can be used.
    pub(crate) fn parse(text: &[u8], algorithms: &[Algorithm]) -> Result<Self, BadSet> {
        let set: Set = serde_json::from_slice(text).map_err(BadSet::Json)?;
        if set.keys.len() > MAX_KEYS {
            return Err(BadSet::TooMany);
        }
        let mut found = Self { keys: Vec::new(), warnings: Vec::new() };
        let mut places = Vec::<Place>::new();
        for (number, value) in (1..).zip(set.keys) {
            let jwk: Jwk = match serde_json::from_value(value) {
                Ok(jwk) => jwk,
                // What the parser would say of it may be a part of a secret.
                Err(_) => {
                    found.warnings.push(format!(
                        "key {number} is passed over: it has no `kty`, or something that is not the text it should be"
                    ));
                    continue;
                }
            };
            let place = Place(number, jwk.kid.clone());
            if jwk.d.is_some() {
                found
                    .warnings
                    .push(format!("{place} is a private key: whoever reads the file can sign with it"));
            }
            let algorithms = match own_algorithms(&jwk, algorithms) {
                Ok(algorithms) => algorithms,
                Err(why) => {
                    found.warnings.push(format!("{place} is passed over: {why}"));
                    continue;
                }
            };
            let key = key(&jwk, &algorithms).map_err(|fault| BadSet::Key(place.clone(), fault))?;
            if key.is_for_none() {
                found.warnings.push(format!("{place} is passed over: none of the algorithms is for it"));
                continue;
            }
            for (earlier, at) in found.keys.iter().zip(&places) {
                let same = key.name.is_some() && earlier.name == key.name;
                let twice = algorithms.iter().find(|one| same && key.is_for(**one) && earlier.is_for(**one));
                if let Some(algorithm) = twice {
                    return Err(BadSet::Twice(at.clone(), place, *algorithm));
                }
            }
            found.keys.push(key);
            places.push(place);
        }
        if found.keys.is_empty() { Err(BadSet::Unusable) } else { Ok(found) }
    }
}

/// Those of the algorithms that a key says it is for, or why it is for nothing here.
fn own_algorithms(jwk: &Jwk, algorithms: &[Algorithm]) -> Result<Vec<Algorithm>, String> {
    if let Some(usage) = jwk.usage.as_deref().filter(|usage| *usage != "sig") {
        return Err(format!("its `use` is {:?}, not \"sig\"", short(usage)));
    }
    if jwk.key_ops.as_ref().is_some_and(|ops| !ops.iter().any(|op| op == "verify")) {
        return Err("\"verify\" is not among its `key_ops`".to_owned());
    }
    if !matches!(&*jwk.kty, "RSA" | "EC" | "OKP" | "oct") {
        return Err(format!("its `kty` is {:?}", short(&jwk.kty)));
    }
    match jwk.alg.as_deref() {
        None => Ok(algorithms.to_vec()),
        Some(name) => match algorithms.iter().find(|algorithm| algorithm.name() == name) {
            Some(algorithm) => Ok(vec![*algorithm]),
            None => Err(format!("its `alg` is {:?}, which is not in the list", short(name))),
        },
    }
}

fn key(jwk: &Jwk, algorithms: &[Algorithm]) -> Result<Key, Fault> {
    let member = |name, value: &Option<String>| {
        let text = value.as_deref().ok_or(Fault::Missing(name))?;
        decode(text.as_bytes()).map_err(|_| Fault::Encoding(name))
    };
    let key = match &*jwk.kty {
        "RSA" => Key::rsa(&member("n", &jwk.n)?, &member("e", &jwk.e)?, algorithms),
        "oct" => Key::secret(&member("k", &jwk.k)?, algorithms),
        "EC" => {
            let (size, algorithm) = match jwk.crv.as_deref().ok_or(Fault::Missing("crv"))? {
                "P-256" => (32, Algorithm::Es256),
                "P-384" => (48, Algorithm::Es384),
                // A curve that is not known: passed over, as it is for none.
                _ => return Ok(Key::elliptic(&[], &[]).map_err(Fault::Bad)?.named(jwk.kid.clone())),
            };
            let (x, y) = (member("x", &jwk.x)?, member("y", &jwk.y)?);
            // RFC 7518 §6.2.1.2: as long as the curve's, zeros in front included.
            if x.len() != size || y.len() != size {
                return Err(Fault::Bad(BadKey::Unknown));
            }
            let point = [&[4], &x[..], &y[..]].concat();
            Key::elliptic(&point, &[algorithm]).and_then(|key| match key.is_for_none() {
                true => Err(BadKey::Unknown),
                false => Key::elliptic(&point, algorithms),
            })
        }
        _ => match jwk.crv.as_deref().ok_or(Fault::Missing("crv"))? {
            "Ed25519" => {
                let x = member("x", &jwk.x)?;
                if x.len() != 32 {
                    return Err(Fault::Bad(BadKey::Unknown));
                }
                Key::edwards(&x, algorithms)
            }
            _ => Key::edwards(&[], &[]),
        },
    };
    Ok(key.map_err(Fault::Bad)?.named(jwk.kid.clone()))
}

/// As much of a text of the file as a message has room for.
fn short(text: &str) -> &str {
    text.char_indices().nth(40).map_or(text, |(end, _)| &text[..end])
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {}", self.0)?;
        self.1.as_ref().map_or(Ok(()), |name| write!(f, " ({:?})", short(name)))
    }
}

impl fmt::Display for BadSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(error) if error.is_data() => {
                f.write_str("it is no JSON Web Key Set: an object with a list `keys`")
            }
            // Not in the parser's own words: these may be a part of a secret.
            Self::Json(error) => {
                write!(f, "it is not JSON: line {}, column {}", error.line(), error.column())
            }
            Self::TooMany => write!(f, "it has more than {MAX_KEYS} keys"),
            Self::Key(place, Fault::Missing(member)) => write!(f, "{place} has no `{member}`"),
            Self::Key(place, Fault::Encoding(member)) => {
                write!(f, "`{member}` of {place} is not base64url")
            }
            Self::Key(place, Fault::Bad(bad)) => write!(f, "{place}: {bad}"),
            Self::Twice(earlier, later, algorithm) => {
                write!(f, "{later} has the name of {earlier}, and both are for {}", algorithm.name())
            }
            Self::Unusable => f.write_str("none of its keys is for any of the algorithms"),
        }
    }
}
