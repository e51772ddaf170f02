//! What is JSON here: RFC 8259 as serde_json reads it, and two limits of ours.
//!
//! serde_json finds where a value ends without building or decoding it, and on the heap rather than the stack. So it
//! knows neither how deep the value is nor whether its escapes stand for characters; both are looked at before.

use std::borrow::Cow;

use memchr::{memchr, memchr2_iter};
use serde_json::{error::Category, value::RawValue};

use super::{Code, MAX_NESTING, Problem};

/// Why a text is not JSON for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Invalid {
    /// It is not UTF-8.
    Encoding,
    /// It breaks the grammar, or has an escape that stands for no character.
    Syntax,
    /// It is nested deeper than [`MAX_NESTING`].
    Nesting,
    /// It is JSON, but neither an object nor an array of objects.
    Type,
}

impl From<Invalid> for Problem {
    fn from(invalid: Invalid) -> Self {
        let message = match invalid {
            Invalid::Encoding => "this is not JSON: it is not UTF-8",
            Invalid::Syntax => "this is not JSON",
            Invalid::Nesting => "this is nested deeper than 64",
            Invalid::Type => "this is neither an object nor an array of objects",
        };
        Self::new(Code::InvalidJson, message)
    }
}

impl From<serde_json::Error> for Invalid {
    fn from(error: serde_json::Error) -> Self {
        match error.classify() {
            Category::Data => Self::Type,
            Category::Eof | Category::Io | Category::Syntax => Self::Syntax,
        }
    }
}

/// UTF-8 as text. Short texts are checked faster without vectors.
pub(super) fn utf8(bytes: &[u8]) -> Result<&str, Invalid> {
    let text = if bytes.len() < 128 {
        std::str::from_utf8(bytes).ok()
    } else {
        simdutf8::basic::from_utf8(bytes).ok()
    };
    text.ok_or(Invalid::Encoding)
}

/// One value, without the space around it, that is to stand where `open` containers are open.
pub(super) fn value(text: &str, open: u32) -> Result<&str, Invalid> {
    check(text, open)?;
    Ok(serde_json::from_str::<&RawValue>(text)?.get())
}

/// What serde_json does not look at. A text that is not JSON may pass; one that is does if it is good.
pub(super) fn check(text: &str, open: u32) -> Result<(), Invalid> {
    if is_deeper(text, MAX_NESTING.saturating_sub(open) as usize) {
        Err(Invalid::Nesting)
    } else if has_half_pair(text) {
        Err(Invalid::Syntax)
    } else {
        Ok(())
    }
}

/// The text of a string as it was written, with its quotes; `None` for other values. `raw` is known to be JSON.
pub(super) fn string(raw: &str) -> Option<Cow<'_, str>> {
    let inside = raw.strip_prefix('"')?.strip_suffix('"')?;
    if memchr(b'\\', inside.as_bytes()).is_none() {
        return Some(Cow::Borrowed(inside));
    }
    serde_json::from_str(raw).ok().map(Cow::Owned)
}

/// Whether more than `limit` containers of a JSON text are open at once. Of one that is not JSON it says nothing.
fn is_deeper(text: &str, limit: usize) -> bool {
    // Nearly no message has so many brackets at all.
    if memchr2_iter(b'[', b'{', text.as_bytes()).nth(limit).is_none() {
        return false;
    }
    let (mut depth, mut in_string) = (0_usize, false);
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => in_string = !in_string,
            b'\\' => {
                bytes.next();
            }
            b'[' | b'{' if !in_string => {
                depth += 1;
                if depth > limit {
                    return true;
                }
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// Whether a JSON text has half of a surrogate pair (RFC 8259 §8.2), which is no character in any encoding. Of one that
/// is not JSON it says nothing.
fn has_half_pair(text: &str) -> bool {
    let mut rest = text.as_bytes();
    // In JSON a backslash stands in a string and begins an escape.
    while let Some(at) = memchr(b'\\', rest) {
        rest = &rest[at..];
        let len = match (half(rest), half(rest.get(6..).unwrap_or_default())) {
            (None, _) => 2,
            (Some(Half::High), Some(Half::Low)) => 12,
            (Some(Half::High | Half::Low), _) => return true,
        };
        rest = rest.get(len..).unwrap_or_default();
    }
    false
}

enum Half {
    High,
    Low,
}

/// Which half of a pair the escape at the front is.
fn half(bytes: &[u8]) -> Option<Half> {
    match bytes {
        [b'\\', b'u', b'd' | b'D', b'8' | b'9' | b'a' | b'b' | b'A' | b'B', ..] => Some(Half::High),
        [b'\\', b'u', b'd' | b'D', b'c'..=b'f' | b'C'..=b'F', ..] => Some(Half::Low),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(text: &str) -> Result<&str, Invalid> {
        value(text, 0)
    }

    #[test]
    fn rfc8259_what_is_json_is_taken_whole() {
        for text in [
            "null",
            "true",
            "false",
            "0",
            "-0",
            "-0.0e-0",
            "10",
            "1.5",
            "1E5",
            "1e+5",
            "0e0",
            "1e999999999",
            r#""""#,
            r#""\"\\\/\b\f\n\r\t\u00e9""#,
            r#""\ud83c\udf0a""#,
            r#""\uD83C\uDF0A""#,
            r#""\u0000""#,
            "\"\u{7f}\u{2028}\"",
            "[]",
            "{}",
            "[ ]",
            "{ }",
            "[[],{}]",
            r#"{"a":{"b":[1,"2",null]},"":{}}"#,
            "[1 , 2\t,\r\n3 ]",
            r#"{ "a" : 1 , "a" : 2 }"#,
            "123456789012345678901234567890.123456789e-5000",
        ] {
            assert_eq!(scan(text), Ok(text));
            assert_eq!(scan(&format!(" \t\r\n{text}\n ")), Ok(text));
        }
    }

    #[test]
    fn rfc8259_what_is_not_json_is_not_taken() {
        for text in [
            "",
            " ",
            "nul",
            "nulll",
            "True",
            "undefined",
            "NaN",
            "Infinity",
            "-",
            "+1",
            "01",
            "-01",
            "00",
            "1.",
            ".5",
            "1.e5",
            "1e",
            "1e+",
            "0x10",
            "1_000",
            "--1",
            "- 1",
            "\"",
            "\"a",
            r#""\"#,
            r#""\x""#,
            r#""\u12""#,
            r#""\u123g""#,
            r#""\u+123""#,
            "\"\n\"",
            "\"\0\"",
            "\"\u{1f}\"",
            "'a'",
            "[",
            "]",
            "[1",
            "[1,",
            "[1,]",
            "[,1]",
            "[1 2]",
            "[1,,2]",
            "{",
            "}",
            "{a:1}",
            "{1:1}",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{,}"#,
            r#"{"a":1 "b":2}"#,
            r#"{"a":1;"b":2}"#,
            "[1}",
            r#"{"a":1]"#,
            "[}",
            "{]",
            "1 2",
            "[] []",
            "{} 1",
            "\u{feff}1",
            "1\u{a0}",
            "/**/1",
            "[1]//",
            "1\0",
            "\u{b}1",
        ] {
            assert_eq!(scan(text), Err(Invalid::Syntax), "{text}");
        }
    }

    #[test]
    fn rfc8259_8_2_half_a_surrogate_pair_is_no_character() {
        for text in [
            r#""\ud800""#,
            r#""\udc00""#,
            r#""\udfff""#,
            r#""\ud800a""#,
            r#""\ud800\n""#,
            r#""\ud800\ud800""#,
            r#""\ud800\u0061""#,
            r#""\udc00\ud800""#,
            r#""\udc00\udc00""#,
            r#""\ud800\u""#,
            r#""\ud800\"#,
            r#""\ud800\udc0""#,
            r#"{"\ud800":1}"#,
        ] {
            assert_eq!(scan(text), Err(Invalid::Syntax), "{text}");
        }
        for (text, character) in [(r#""\ud800\udc00""#, "\u{1_0000}"), (r#""\udbff\udfff""#, "\u{10_ffff}")] {
            assert_eq!(scan(text), Ok(text));
            assert_eq!(string(text).as_deref(), Some(character));
        }
        // What only looks like one.
        for text in [r#""\\ud800""#, r#""\\\\ud800""#, r#""\\u{d800}""#, r#"{"a":"\\","ud800":1}"#] {
            assert_eq!(scan(text), Ok(text));
        }
    }

    #[test]
    fn nesting_ends_at_its_limit_and_costs_nothing_beyond() {
        for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
            for inner in ["", "1", "[]", "{}"] {
                if inner.is_empty() && open != "[" {
                    continue;
                }
                let deep = |depth: usize| open.repeat(depth) + inner + &close.repeat(depth);
                let own = usize::from(inner.len() == 2);
                let limit = MAX_NESTING as usize - own;
                assert!(scan(&deep(limit)).is_ok());
                assert_eq!(scan(&deep(limit + 1)), Err(Invalid::Nesting), "{inner}");
                assert_eq!(scan(&deep(100_000)), Err(Invalid::Nesting));
                assert_eq!(scan(&open.repeat(100_000)), Err(Invalid::Nesting));
            }
        }
        // One that is closed makes room for the next.
        let wide = format!("[{}[]]", "[[]],".repeat(10_000));
        assert!(scan(&wide).is_ok());
        assert_eq!(value("[[]]", MAX_NESTING - 1), Err(Invalid::Nesting));
        assert_eq!(value("[]", MAX_NESTING - 1), Ok("[]"));
        // Brackets in strings open nothing.
        let text = format!(r#"["{}\"[", {}]"#, "[{".repeat(1000), r#""\\","[""#);
        assert_eq!(scan(&text), Ok(&*text));
    }
}
