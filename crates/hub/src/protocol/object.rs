//! What a client sends as objects: the fields that the protocol knows, as they were written, and their types.

use std::borrow::Cow;

use super::scan::{Invalid, Scanner, escape};
use super::text::{plain_len, whole};
use super::{Code, Position, Problem, Recover};

/// Every name that any object of a client has a use for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
}

const FIELDS: usize = Field::Offset as usize + 1;

impl Field {
    #[inline]
    fn named(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"op" => Self::Op,
            b"id" => Self::Id,
            b"topic" => Self::Topic,
            b"recover" => Self::Recover,
            b"history" => Self::History,
            b"presence" => Self::Presence,
            b"info" => Self::Info,
            b"data" => Self::Data,
            b"text" => Self::Text,
            b"base64" => Self::Base64,
            b"key" => Self::Key,
            b"once" => Self::Once,
            b"limit" => Self::Limit,
            b"before" => Self::Before,
            b"epoch" => Self::Epoch,
            b"offset" => Self::Offset,
            _ => return None,
        })
    }

    /// `"t\u006fpic"` is "topic" to every other parser.
    fn named_with_escapes(name: &str) -> Option<Self> {
        if name.contains('\\') { Self::named(unescape(name)?.as_bytes()) } else { None }
    }
}

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

    /// Reads an object; `open` containers are open already.
    #[inline]
    fn read(&mut self, scanner: &mut Scanner<'b>, open: u32) -> Result<(), Invalid> {
        scanner.object(open, |key, value| {
            if let Some(field) = Field::named(key.as_bytes()).or_else(|| Field::named_with_escapes(key)) {
                self.repeated |= self.values[field as usize].replace(value).is_some();
            }
        })
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
        let mut fields = Fields::none();
        fields.read(&mut Scanner::new(raw), 0).map_err(|_| WRONG)?;
        fields.check()?;
        let epoch = fields.text(Field::Epoch, WRONG)?.ok_or(WRONG)?;
        let offset = fields.whole(Field::Offset, WRONG)?.ok_or(WRONG)?;
        let position = epoch.parse().ok().map(|epoch| Position { epoch, offset });
        Ok(Some(position.map_or(Recover::Foreign, Recover::From)))
    }
}

/// The text of a JSON string as it was written, with its quotes; `None` for other values.
pub(super) fn string(raw: &str) -> Option<Cow<'_, str>> {
    unescape(raw.strip_prefix('"')?.strip_suffix('"')?)
}

/// The text that the inside of a JSON string stands for.
fn unescape(inside: &str) -> Option<Cow<'_, str>> {
    // Nothing else inside a string is not plain.
    let plain = plain_len(inside.as_bytes());
    if plain == inside.len() {
        Some(Cow::Borrowed(inside))
    } else {
        unescape_from(inside, plain).map(Cow::Owned)
    }
}

/// The same, where the first escape is.
#[cold]
fn unescape_from(inside: &str, first: usize) -> Option<String> {
    let mut text = String::with_capacity(inside.len());
    let mut rest = inside;
    let mut plain = first;
    while plain < rest.len() {
        text.push_str(&rest[..plain]);
        let (character, len) = escape(&rest.as_bytes()[plain..])?;
        text.push(character);
        rest = &rest[plain + len..];
        plain = plain_len(rest.as_bytes());
    }
    text.push_str(rest);
    Some(text)
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
    mut make: impl FnMut(&Fields<'b>) -> T,
) -> Result<Objects<T>, Problem> {
    const NO_OBJECT: Problem =
        Problem::new(Code::InvalidJson, "this is neither an object nor an array of objects");
    let text = utf8(bytes).ok_or(Problem::new(Code::InvalidJson, "this is not JSON: it is not UTF-8"))?;
    let mut scanner = Scanner::new(text);
    match scanner.peek() {
        Some(b'{') => {
            let mut fields = Fields::none();
            fields.read(&mut scanner, 0)?;
            scanner.end()?;
            Ok(Objects::One(make(&fields)))
        }
        Some(b'[') => {
            scanner.take(b'[');
            let mut made = Vec::new();
            let (mut count, mut only_objects) = (0, true);
            if !scanner.take(b']') {
                loop {
                    if scanner.peek() == Some(b'{') {
                        let mut fields = Fields::none();
                        fields.read(&mut scanner, 1)?;
                        count += 1;
                        if count <= limit && only_objects {
                            made.push(make(&fields));
                        }
                    } else {
                        scanner.value(1)?;
                        only_objects = false;
                    }
                    if scanner.take(b']') {
                        break;
                    }
                    if !scanner.take(b',') {
                        return Err(Invalid::Syntax.into());
                    }
                }
            }
            scanner.end()?;
            match (only_objects, count > limit) {
                (false, _) => Err(NO_OBJECT),
                (true, true) => Err(Problem::new(Code::TooMany, "the array has too many elements")),
                (true, false) => Ok(Objects::Many(made)),
            }
        }
        _ => {
            scanner.value(0)?;
            scanner.end()?;
            Err(NO_OBJECT)
        }
    }
}

/// UTF-8 as text. Short texts are checked faster without vectors.
pub(super) fn utf8(bytes: &[u8]) -> Option<&str> {
    if bytes.len() < 128 { std::str::from_utf8(bytes).ok() } else { simdutf8::basic::from_utf8(bytes).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_array_that_is_too_long_or_has_something_else_in_it_no_more_is_made() {
        let make = |text: &str, limit| {
            let mut made = 0;
            let code = objects(text.as_bytes(), limit, |_| made += 1).err().map(|problem| problem.code);
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
