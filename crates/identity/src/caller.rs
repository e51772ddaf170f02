//! What follows from a token: who calls, until when, what upstreams are told, and what may be done with topics.

use std::{fmt, sync::Arc};

use serde_json::Value;
use tidegate_config::{
    Identity, MAX_TOPIC_PATTERNS, PermissionClaims, RequiredClaim, TopicPattern, TopicPatterns,
};

use crate::{
    Invalid,
    claims::{Claims, texts},
};

/// Longest name of a user, in bytes.
const MAX_USER_BYTES: usize = 256;

/// The least double that more than one whole number is read as: 2^53.
const EXACT_BELOW: f64 = 9_007_199_254_740_992.0;

/// Who calls, by a token that was verified.
#[derive(Clone, PartialEq, Eq)]
pub struct Caller {
    /// The user, where the token names one: up to 256 bytes without control characters.
    pub user: Option<Box<str>>,
    /// When it is over, in seconds since 1970: what the token says, and the identity's leeway.
    pub ends: Option<u64>,
    /// Fields for upstreams: their names as configured, and values without control characters. Where a token lacks a claim,
    /// its field is not here.
    pub fields: Vec<(String, String)>,
    /// What may be done with topics; `None`: all that the route allows.
    pub permissions: Option<Arc<Permissions>>,
    /// For what a route demands of them.
    claims: Claims,
}

/// What a token allows with topics, besides what the route does; `None`: as the route has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    /// What may be subscribed to.
    pub subscribe: Option<TopicPatterns>,
    /// What may be published to.
    pub publish: Option<TopicPatterns>,
    /// Where presence may be seen and taken part in.
    pub presence: Option<TopicPatterns>,
}

impl Caller {
    pub(crate) fn of(claims: Claims, ends: Option<u64>, rules: &Identity) -> Result<Self, Invalid> {
        let mut fields = Vec::new();
        for (name, claim) in &rules.headers {
            if let Some(value) = claims.find(claim) {
                fields.push((name.clone(), field(value)?));
            }
        }
        let permissions = rules.permissions.as_ref().map(|names| permissions(&claims, names)).transpose()?;
        let user = user(&claims, &rules.user)?;
        Ok(Self { user, ends, fields, permissions: permissions.map(Arc::new), claims })
    }

    /// Whether it has all the claims that a route demands.
    #[must_use]
    pub fn meets(&self, required: &[RequiredClaim]) -> bool {
        required.iter().all(|required| self.claims.meets(required))
    }
}

/// Its claims are of people: not for logs.
impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller").field("ends", &self.ends).finish_non_exhaustive()
    }
}

fn user(claims: &Claims, name: &str) -> Result<Option<Box<str>>, Invalid> {
    let text = match claims.find(name) {
        None => return Ok(None),
        Some(Value::String(text)) => text.clone(),
        // A fraction, or a number beyond 64 bits, was rounded when it was read: it could be somebody else's.
        Some(Value::Number(number)) if number.is_f64() => return Err(Invalid::Number),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) => return Err(Invalid::User),
    };
    if text.is_empty() || text.len() > MAX_USER_BYTES || text.chars().any(char::is_control) {
        return Err(Invalid::User);
    }
    Ok(Some(text.into()))
}

/// A text as it is, anything else as JSON: a list of texts would be ambiguous in any other way.
fn field(value: &Value) -> Result<String, Invalid> {
    let text = match value {
        Value::String(text) => text.clone(),
        other if !is_exact(other) => return Err(Invalid::Number),
        other => other.to_string(),
    };
    // RFC 9110 §5.5: no control characters, and no space at an end, which recipients take away.
    match text.chars().any(char::is_control) || text.trim() != text {
        true => Err(Invalid::Field),
        false => Ok(text),
    }
}

/// Whether all whole numbers in it are those of the token. What 64 bits do not hold was read as the nearest double, and above 2^53
/// (IEEE 754) whole numbers share one.
fn is_exact(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => true,
        Value::Number(number) => {
            !number.is_f64() || number.as_f64().is_some_and(|double| double.abs() < EXACT_BELOW)
        }
        Value::Array(values) => values.iter().all(is_exact),
        Value::Object(members) => members.values().all(is_exact),
    }
}

fn permissions(claims: &Claims, names: &PermissionClaims) -> Result<Permissions, Invalid> {
    let of = |name: &Option<String>| name.as_deref().map(|name| patterns(claims, name)).transpose();
    Ok(Permissions {
        subscribe: of(&names.subscribe)?,
        publish: of(&names.publish)?,
        presence: of(&names.presence)?,
    })
}

/// The patterns that a claim lists. Without it nothing is allowed; what is wrong in it makes the whole token useless, as
/// nobody can know what it was to allow.
fn patterns(claims: &Claims, name: &str) -> Result<TopicPatterns, Invalid> {
    let Some(value) = claims.find(name) else { return Ok(TopicPatterns::default()) };
    let texts = texts(value).ok_or(Invalid::Permissions)?;
    if texts.len() > MAX_TOPIC_PATTERNS {
        return Err(Invalid::Permissions);
    }
    let patterns = texts.into_iter().map(TopicPattern::parse).collect::<Result<_, _>>();
    patterns.map(TopicPatterns::new).map_err(|_| Invalid::Permissions)
}
