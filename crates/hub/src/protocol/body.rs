//! Publications as HTTP bodies.

use std::borrow::Cow;

use super::command::{check_key, check_once, publish};
use super::json::{utf8, value};
use super::object::{Objects, objects};
use super::structure::Scratch;
use super::{Code, Format, MAX_PUBLICATIONS, Payload, Problem, Publish};

/// What a body is, as its `Content-Type` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Media {
    /// `application/json`, and what is JSON by its suffix (RFC 6839 §3.1).
    Json,
    /// `text/*` in UTF-8.
    Text,
    /// `text/*` in something else.
    Foreign,
    /// Anything else, and nothing said.
    Bytes,
}

impl Media {
    fn of(content_type: Option<&str>) -> Self {
        let Some(content_type) = content_type else { return Self::Bytes };
        let mut parts = content_type.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        let mut charsets = parts.filter_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            name.eq_ignore_ascii_case("charset").then(|| value.trim_matches('"'))
        });
        let utf8 = ["utf-8", "us-ascii"];
        if media == "application/json" || media.starts_with("application/") && media.ends_with("+json") {
            // RFC 8259 §8.1: JSON is UTF-8, whatever a parameter says.
            Self::Json
        } else if !media.starts_with("text/") {
            Self::Bytes
        } else if charsets.all(|charset| utf8.iter().any(|known| charset.eq_ignore_ascii_case(known))) {
            Self::Text
        } else {
            Self::Foreign
        }
    }
}

/// Reads the body of `POST /publish`: one publication or an array of up to [`MAX_PUBLICATIONS`], in order.
///
/// # Errors
/// What is wrong with the body as a whole; nothing of it is published then.
pub fn publications<'b>(
    content_type: Option<&str>,
    body: &'b [u8],
    scratch: &mut Scratch,
) -> Result<Vec<Result<Publish<'b>, Problem>>, Problem> {
    if Media::of(content_type) != Media::Json {
        return Err(Problem::new(Code::UnsupportedType, "the content type must be application/json"));
    }
    let made = objects(body, MAX_PUBLICATIONS, scratch, |fields| {
        fields.check()?;
        publish(fields)
    });
    match made {
        Ok(Objects::One(one)) => Ok(vec![one]),
        Ok(Objects::Many(many)) => Ok(many),
        Err(Problem { code: Code::TooMany, .. }) => {
            Err(Problem::new(Code::TooLarge, "the array has more than 1,000 elements"))
        }
        Err(problem) => Err(problem),
    }
}

/// What goes with the body of `POST /publish/NAME`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublishFields<'b> {
    /// `Content-Type`.
    pub content_type: Option<&'b str>,
    /// `Tidegate-Key`.
    pub key: Option<&'b str>,
    /// `Idempotency-Key`, in quotes or without.
    pub idempotency_key: Option<&'b str>,
}

/// Reads the body of `POST /publish/NAME`; `topic` is the name, as [`topic_of_path`](super::topic_of_path) gives it.
///
/// # Errors
/// The body is not what its type says, or a field is not as it should be.
pub fn publication<'b>(
    topic: Cow<'b, str>,
    fields: PublishFields<'b>,
    body: &'b [u8],
) -> Result<Publish<'b>, Problem> {
    let (format, bytes) = match Media::of(fields.content_type) {
        Media::Json => (Format::Json, json(body)?),
        Media::Text if utf8(body).is_ok() => (Format::Text, body),
        Media::Text => return Err(Problem::request("the body is not UTF-8")),
        Media::Foreign => {
            return Err(Problem::new(Code::UnsupportedType, "the charset of a text must be UTF-8"));
        }
        Media::Bytes => (Format::Binary, body),
    };
    Ok(Publish {
        topic,
        payload: Payload { format, bytes: Cow::Borrowed(bytes) },
        key: fields.key.map(|key| check_key(Cow::Borrowed(key))).transpose()?,
        once: fields.idempotency_key.map(|key| check_once(Cow::Borrowed(unquoted(key)))).transpose()?,
    })
}

/// One JSON value, without the space around it. It may be as deep as if it stood in an object, which it will.
pub(super) fn json(body: &[u8]) -> Result<&[u8], Problem> {
    Ok(value(utf8(body)?, 1)?.as_bytes())
}

/// The header's draft standard has it in quotes, most clients send it without.
fn unquoted(key: &str) -> &str {
    key.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_type_decides_what_a_body_is() {
        for (content_type, media) in [
            (None, Media::Bytes),
            (Some(""), Media::Bytes),
            (Some("application/json"), Media::Json),
            (Some("Application/JSON; charset=utf-8"), Media::Json),
            (Some("application/cloudevents+json"), Media::Json),
            (Some("application/jsonx"), Media::Bytes),
            (Some("text/plain"), Media::Text),
            (Some("TEXT/html;charset=UTF-8"), Media::Text),
            (Some("text/plain; charset=\"utf-8\""), Media::Text),
            (Some("text/plain; charset=iso-8859-1"), Media::Foreign),
            (Some("application/octet-stream"), Media::Bytes),
            (Some("application/x-www-form-urlencoded"), Media::Bytes),
        ] {
            assert_eq!(Media::of(content_type), media, "{content_type:?}");
        }
    }

    #[test]
    fn a_body_by_name_is_what_its_type_says() {
        let read = |content_type, body| {
            let fields = PublishFields { content_type, ..PublishFields::default() };
            publication("a".into(), fields, body).map(|publish| {
                assert_eq!(publish.topic, "a");
                (publish.payload.format, publish.payload.bytes.into_owned())
            })
        };
        let json = Some("application/json");
        assert_eq!(read(json, b" [1e400,\n2] \n"), Ok((Format::Json, b"[1e400,\n2]".to_vec())));
        assert_eq!(read(Some("text/plain"), b" a\0"), Ok((Format::Text, b" a\0".to_vec())));
        assert_eq!(read(None, b"\xff"), Ok((Format::Binary, b"\xff".to_vec())));
        assert_eq!(read(None, b""), Ok((Format::Binary, Vec::new())));
        let codes = [
            (json, &b""[..], Code::InvalidJson),
            (json, b"1 2", Code::InvalidJson),
            (json, b"\"\xff\"", Code::InvalidJson),
            (Some("text/plain"), b"\xff", Code::InvalidRequest),
            (Some("text/plain;charset=utf-16"), b"a", Code::UnsupportedType),
        ];
        for (content_type, body, code) in codes {
            assert_eq!(read(content_type, body).unwrap_err().code, code);
        }
    }

    #[test]
    fn keys_come_as_header_fields() {
        let read = |key, idempotency_key| {
            let fields = PublishFields { key, idempotency_key, ..PublishFields::default() };
            publication("a".into(), fields, b"").map(|publish| (publish.key, publish.once))
        };
        assert_eq!(read(Some("k"), Some("\"o\"")), Ok((Some("k".into()), Some("o".into()))));
        assert_eq!(read(None, Some("o\"")), Ok((None, Some("o\"".into()))));
        assert_eq!(read(None, Some("\"\"")).unwrap_err().code, Code::InvalidRequest);
        assert_eq!(read(Some(""), None).unwrap_err().code, Code::InvalidRequest);
        let long = "k".repeat(257);
        assert_eq!(read(None, Some(&long[..129])).unwrap_err().code, Code::TooLarge);
        assert_eq!(read(Some(&long), None).unwrap_err().code, Code::TooLarge);
        assert!(read(Some(&long[..256]), Some(&long[..128])).is_ok());
    }
}
