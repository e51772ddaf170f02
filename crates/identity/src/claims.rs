//! What a token says (RFC 7519 §4), once its signature was found to be right.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};
use serde_json::{Map, Value};

use crate::Invalid;

/// The claims of a token. None stands twice: of two, parsers do not agree which counts (RFC 7519 §4).
#[derive(Debug, Default)]
pub(crate) struct Claims(Map<String, Value>);

impl Claims {
    pub(crate) fn parse(text: &[u8]) -> Result<Self, Invalid> {
        serde_json::from_slice(text).map_err(|_| Invalid::Claims)
    }

    /// What stands under exactly this name, `null` too.
    pub(crate) fn member(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// A claim by its name; where there is none of that name, each dot in it leads into an object. `null` is as if it were
    /// not there.
    pub(crate) fn find(&self, name: &str) -> Option<&Value> {
        let found = self.0.get(name).or_else(|| {
            let (first, rest) = name.split_once('.')?;
            rest.split('.').try_fold(self.0.get(first)?, |value, name| value.as_object()?.get(name))
        });
        found.filter(|value| !value.is_null())
    }

    /// A point in time: seconds since 1970, perhaps with a fraction (RFC 7519 §2, NumericDate), which is rounded down.
    pub(crate) fn seconds(&self, name: &str) -> Result<Option<u64>, Invalid> {
        let Some(value) = self.0.get(name) else { return Ok(None) };
        let whole = value.as_u64();
        let fraction = || value.as_f64().filter(|seconds| (0.0..u64::MAX as f64).contains(seconds));
        whole.or_else(|| fraction().map(|seconds| seconds as u64)).map(Some).ok_or(Invalid::Time)
    }

    /// The texts of a claim that is one or a list of them (RFC 7519 §4.1.3); `None` where it is neither.
    pub(crate) fn texts(&self, name: &str) -> Option<Vec<&str>> {
        texts(self.0.get(name)?)
    }
}

/// The texts of a value that is one or a list of nothing else.
pub(crate) fn texts(value: &Value) -> Option<Vec<&str>> {
    match value {
        Value::String(text) => Some(vec![text]),
        Value::Array(values) => values.iter().map(Value::as_str).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members)
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Claims;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut claims = Map::new();
        while let Some((name, value)) = map.next_entry::<String, Value>()? {
            if claims.insert(name, value).is_some() {
                return Err(A::Error::custom("a claim stands twice"));
            }
        }
        Ok(Claims(claims))
    }
}
