//! What a client sends as objects: the fields that the protocol knows, as they were written, and their types.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::json::{Invalid, check, string, utf8};
use super::structure::{Scratch, Structure};
use super::text::whole;
use super::{Code, Position, Problem, Recover};

/// Every name that any object of a client has a use for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
pub(super) enum Field {
    Op,
    Id,
    Topic,
    Recover,
    History,
    Presence,
    Info,
    Data,
    Text,
    Base64,
    Key,
    Once,
    Limit,
    Before,
    Epoch,
    Offset,
    Token,
    #[serde(other)]
    Unknown,
}

const FIELDS: usize = Field::Unknown as usize;

/// The known fields of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fields<'b> {
    /// Each is a JSON value as it was written.
    values: [Option<&'b str>; FIELDS],
    /// Whether one of them stood there twice. Which one counts differs from parser to parser, so none does.
    repeated: bool,
}

const REPEATED: Problem = Problem::request("a field stands twice");

impl<'b> Fields<'b> {
    /// No field.
    #[inline]
    fn none() -> Self {
        Self { values: [None; FIELDS], repeated: false }
    }

    /// Reads an object whose bracket was read.
    fn read(structure: &mut Structure<'b, '_>) -> Option<Self> {
        let mut fields = Self::none();
        structure.members(|key, value| {
            // The key is a string, escapes and all: what it names is for the same code to say as in short messages.
            fields.put(serde_json::from_str(key).ok()?, value);
            Some(())
        })?;
        Some(fields)
    }

    #[inline]
    fn put(&mut self, field: Field, value: &'b str) {
        if let Some(place) = self.values.get_mut(field as usize) {
            self.repeated |= place.replace(value).is_some();
        }
    }

    /// What makes the object as a whole unusable.
    pub(super) fn check(&self) -> Result<(), Problem> {
        if self.repeated { Err(REPEATED) } else { Ok(()) }
    }

    /// The value as it was written, `null` too.
    pub(super) fn raw(&self, field: Field) -> Option<&'b str> {
        self.values[field as usize]
    }

    /// The value as it was written. Many encoders write `null` for what is not there, so it is not there.
    pub(super) fn some(&self, field: Field) -> Option<&'b str> {
        self.raw(field).filter(|raw| *raw != "null")
    }

    /// A string.
    pub(super) fn text(&self, field: Field, wrong: Problem) -> Result<Option<Cow<'b, str>>, Problem> {
        self.some(field).map(|raw| string(raw).ok_or(wrong)).transpose()
    }

    /// A whole number from 0 to 2^53 - 1.
    pub(super) fn whole(&self, field: Field, wrong: Problem) -> Result<Option<u64>, Problem> {
        self.some(field).map(|raw| whole(raw).ok_or(wrong)).transpose()
    }

    /// `true`, or what stands for `false`.
    pub(super) fn flag(&self, field: Field, wrong: Problem) -> Result<bool, Problem> {
        match self.some(field) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(wrong),
        }
    }

    /// `{"epoch":…,"offset":…}`.
    pub(super) fn recover(&self) -> Result<Option<Recover>, Problem> {
        const WRONG: Problem = Problem::request("`recover` is not an object of `epoch` and `offset`");
        let Some(raw) = self.some(Field::Recover) else { return Ok(None) };
        // It is known to be JSON: what fails here is that it is no object.
        let fields: Fields<'_> = serde_json::from_str(raw).map_err(|_| WRONG)?;
        fields.check()?;
        let epoch = fields.text(Field::Epoch, WRONG)?.ok_or(WRONG)?;
        let offset = fields.whole(Field::Offset, WRONG)?.ok_or(WRONG)?;
        let position = epoch.parse().ok().map(|epoch| Position { epoch, offset });
        Ok(Some(position.map_or(Recover::Foreign, Recover::From)))
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members)
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Fields::none();
        while let Some(field) = map.next_key()? {
            if field == Field::Unknown {
                map.next_value::<IgnoredAny>()?;
            } else {
                fields.put(field, map.next_value::<&RawValue>()?.get());
            }
        }
        Ok(fields)
    }
}

/// One object, or an array of them.
pub(super) enum Objects<T> {
    One(T),
    Many(Vec<T>),
}

/// Reads a whole text, making something of each object. Where there are more than `limit`, nothing is made of the rest.
///
/// # Errors
/// [`Code::InvalidJson`] where any of it is not JSON or not an object, else [`Code::TooMany`].
pub(super) fn objects<'b, T>(
    bytes: &'b [u8],
    limit: usize,
    scratch: &mut Scratch,
    mut make: impl FnMut(&Fields<'b>) -> T,
) -> Result<Objects<T>, Problem> {
    let text = utf8(bytes)?;
    let found = scratch.structure(text).and_then(|structure| find(structure, limit, &mut make));
    let found = match found {
        Some(found) => found,
        None => parse(text, limit, make)?,
    };
    match found {
        Found::One(made) => Ok(Objects::One(made)),
        Found::Many(made, count) if count <= limit => Ok(Objects::Many(made)),
        Found::Many(..) => Err(Problem::new(Code::TooMany, "the array has too many elements")),
    }
}

/// What was made, and of how many it is all or the first.
enum Found<T> {
    One(T),
    Many(Vec<T>, usize),
}

/// The objects of a text whose tokens are known; `None` if there are other things, too.
fn find<'b, T>(
    mut structure: Structure<'b, '_>,
    limit: usize,
    mut make: impl FnMut(&Fields<'b>) -> T,
) -> Option<Found<T>> {
    let (mut made, mut count) = (Vec::new(), 0);
    match structure.token()? {
        (b'{', _) => return Some(Found::One(make(&Fields::read(&mut structure)?))),
        (b'[', _) => {}
        _ => return None,
    }
    loop {
        match structure.token()? {
            (b'{', _) => {
                let fields = Fields::read(&mut structure)?;
                count += 1;
                if count <= limit {
                    made.push(make(&fields));
                }
            }
            (b',', _) => {}
            (b']', _) => return Some(Found::Many(made, count)),
            _ => return None,
        }
    }
}

/// The same of any text.
fn parse<'b, T>(
    text: &'b str,
    limit: usize,
    mut make: impl FnMut(&Fields<'b>) -> T,
) -> Result<Found<T>, Invalid> {
    check(text, 0)?;
    let mut json = serde_json::Deserializer::from_str(text);
    if text.trim_ascii_start().starts_with('[') {
        let (made, count) = json.deserialize_seq(Elements { limit, make })?;
        json.end()?;
        Ok(Found::Many(made, count))
    } else {
        let fields = Fields::deserialize(&mut json)?;
        json.end()?;
        Ok(Found::One(make(&fields)))
    }
}

struct Elements<F> {
    limit: usize,
    make: F,
}

impl<'de, T, F: FnMut(&Fields<'de>) -> T> Visitor<'de> for Elements<F> {
    type Value = (Vec<T>, usize);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<Self::Value, A::Error> {
        let (mut made, mut count) = (Vec::new(), 0);
        while let Some(fields) = elements.next_element()? {
            count += 1;
            if count <= self.limit {
                made.push((self.make)(&fields));
            }
        }
        Ok((made, count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_array_that_is_too_long_or_has_something_else_in_it_no_more_is_made() {
        let make = |text: &str, limit| {
            let mut made = 0;
            let code = objects(text.as_bytes(), limit, &mut Scratch::new(), |_| made += 1)
                .err()
                .map(|problem| problem.code);
            (made, code)
        };
        let many = format!("[{{}}{}]", ",{}".repeat(99));
        assert_eq!(make(&many, 100), (100, None));
        assert_eq!(make(&many, 99), (99, Some(Code::TooMany)));
        assert_eq!(make("[{},1,{},{}]", 100), (1, Some(Code::InvalidJson)));
        assert_eq!(make("[{},{},", 100), (2, Some(Code::InvalidJson)));
        assert_eq!(make("{}", 100), (1, None));
    }
}
