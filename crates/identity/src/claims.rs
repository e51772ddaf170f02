//! What a token says (RFC 7519 §4), once its signature was found to be right.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};
use tidegate_config::RequiredClaim;

use crate::Invalid;

/// The claims of a token. None stands twice, nor does a member of an object in one: of two, parsers do not agree which counts
/// (RFC 7519 §4, RFC 8259 §4).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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

    /// Whether it has a claim with one of the values that are demanded, or with a list in which one of them is.
    pub(crate) fn meets(&self, required: &RequiredClaim) -> bool {
        let is_one = |value: &Value| required.values.iter().any(|demanded| is_like(value, demanded));
        match self.find(&required.name) {
            Some(Value::Array(values)) => values.iter().any(is_one),
            Some(value) => is_one(value),
            None => false,
        }
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

/// Whether a value is what a configuration calls so: a text as it is, a boolean or a whole number as JSON writes it. A fraction,
/// or a number beyond 64 bits, was rounded when it was read, and is like nothing.
fn is_like(value: &Value, demanded: &str) -> bool {
    match value {
        Value::String(text) => text == demanded,
        Value::Bool(value) => demanded == if *value { "true" } else { "false" },
        Value::Number(number) => !number.is_f64() && number.to_string() == demanded,
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

/// The members of one object, none of them twice, at any depth.
fn members<'de, A: MapAccess<'de>>(mut map: A) -> Result<Map<String, Value>, A::Error> {
    let mut members = Map::new();
    while let Some((name, Unambiguous(value))) = map.next_entry::<String, Unambiguous>()? {
        if members.insert(name, value).is_some() {
            return Err(A::Error::custom("a claim stands twice"));
        }
    }
    Ok(members)
}

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Claims;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                members(map).map(Claims)
            }
        }

        deserializer.deserialize_map(Object)
    }
}

/// A value in which no object has a member twice. (`Value` by itself takes the last of them.)
struct Unambiguous(Value);

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any).map(Self)
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Unambiguous(value)) = seq.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Value, A::Error> {
        members(map).map(Value::Object)
    }
}
