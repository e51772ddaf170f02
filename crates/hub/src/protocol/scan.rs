//! JSON's grammar (RFC 8259), read once from front to back: what is a value, and where it ends.
//!
//! Nothing is built. Containers that are open are bits of a word, so depth costs neither stack nor heap. Numbers are
//! digits and stay so: their size and precision are the receiver's matter. Escapes must stand for characters, so half
//! of a surrogate pair is refused: strict parsers at the other end would choke on what this one let through.
//!
//! # Why not a library's
//! What is wanted is where each field's value lies in the receive buffer, that all of it is JSON, and that it is not nested too
//! deep. serde_json's `RawValue` gives the first two; depth and half surrogate pairs need a second pass. simd-json is a vector
//! pass and a tape; it writes into its input and its tape does not say where values lie, so it works on a copy, and the
//! fields are looked for afterwards. One `publish` in ns, all of it for this parser, only the tape for simd-json, only a
//! derived struct for serde_json (`cargo bench -p tidegate-benches --bench protocol -- --fastest` on x86-64 with AVX2; a feed
//! of small objects, prose, and the feed pretty-printed):
//!
//! | bytes | here | simd-json | serde_json | serde_json's `Value` |
//! |---:|---:|---:|---:|---:|
//! | 110, feed | 278 | 226 | 269 | 891 |
//! | 615, feed | 993 | 1,151 | 923 | 5,841 |
//! | 16,445, feed | 22,612 | 28,944 | 20,849 | 163,205 |
//! | 182, prose | 264 | 224 | 255 | 808 |
//! | 2,106, prose | 917 | 948 | 1,321 | 2,430 |
//! | 16,440, prose | 5,961 | 6,597 | 9,373 | 12,478 |
//! | 262,202, prose | 165,619 | 141,384 | 282,818 | 433,940 |
//! | 225, printed | 414 | 328 | 381 | 1,365 |
//! | 12,637, printed | 14,820 | 15,325 | 13,255 | 83,164 |
//!
//! So there is no size from which a tape pays for the fields that are still to be found and for a second grammar, which
//! moreover refuses numbers beyond 64 bits: the verdict on a message would depend on its length. serde_json is the oracle of
//! the tests and of the fuzz target.

use super::text::plain_len;
use super::{Code, MAX_NESTING, Problem};

/// Why a text is not JSON for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Invalid {
    /// It breaks the grammar.
    Syntax,
    /// It is nested deeper than [`MAX_NESTING`].
    Nesting,
}

impl From<Invalid> for Problem {
    fn from(invalid: Invalid) -> Self {
        let message = match invalid {
            Invalid::Syntax => "this is not JSON",
            Invalid::Nesting => "this is nested deeper than 64",
        };
        Self::new(Code::InvalidJson, message)
    }
}

/// Reads a text from its front.
pub(super) struct Scanner<'b> {
    text: &'b str,
    at: usize,
}

impl<'b> Scanner<'b> {
    pub(super) fn new(text: &'b str) -> Self {
        Self { text, at: 0 }
    }

    /// The next byte that is no white space; it is not taken.
    #[inline]
    pub(super) fn peek(&mut self) -> Option<u8> {
        let byte = *self.text.as_bytes().get(self.at)?;
        if byte > b' ' { Some(byte) } else { self.peek_behind_space() }
    }

    fn peek_behind_space(&mut self) -> Option<u8> {
        const INDENTATION: [u8; 8] = [b' '; 8];
        let bytes = self.text.as_bytes();
        loop {
            let byte = *bytes.get(self.at)?;
            if !is_space(byte) {
                return Some(byte);
            }
            self.at += 1;
            while bytes[self.at..].first_chunk() == Some(&INDENTATION) {
                self.at += INDENTATION.len();
            }
        }
    }

    /// Takes the next byte that is no white space if it is this one.
    #[inline]
    pub(super) fn take(&mut self, byte: u8) -> bool {
        let taken = self.peek() == Some(byte);
        self.at += usize::from(taken);
        taken
    }

    /// Nothing but white space may follow.
    pub(super) fn end(mut self) -> Result<(), Invalid> {
        if self.peek().is_none() { Ok(()) } else { Err(Invalid::Syntax) }
    }

    /// One value as it stands there, without the space around it. `open` containers are open already.
    #[inline]
    pub(super) fn value(&mut self, open: u32) -> Result<&'b str, Invalid> {
        self.peek();
        let start = self.at;
        self.skip_value(open)?;
        Ok(&self.text[start..self.at])
    }

    /// An object, if one stands here: its members in order, each the key between its quotes and the value, as
    /// written. `open` containers are open already.
    #[inline]
    pub(super) fn object(
        &mut self,
        open: u32,
        mut member: impl FnMut(&'b str, &'b str),
    ) -> Result<(), Invalid> {
        if open >= MAX_NESTING {
            return Err(Invalid::Nesting);
        }
        if !self.take(b'{') {
            return Err(Invalid::Syntax);
        }
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            let key = self.key()?;
            member(key, self.value(open + 1)?);
            if self.take(b',') {
                continue;
            }
            return if self.take(b'}') { Ok(()) } else { Err(Invalid::Syntax) };
        }
    }

    fn skip_value(&mut self, open: u32) -> Result<(), Invalid> {
        // A bit for each container that this value has open, the innermost lowest, set for objects.
        let mut objects = 0u64;
        let mut depth = open;
        'values: loop {
            match self.peek().ok_or(Invalid::Syntax)? {
                b'"' => self.string()?,
                b'-' | b'0'..=b'9' => self.number()?,
                b't' => self.literal("true")?,
                b'f' => self.literal("false")?,
                b'n' => self.literal("null")?,
                bracket @ (b'{' | b'[') => {
                    self.at += 1;
                    let object = bracket == b'{';
                    let end = if object { b'}' } else { b']' };
                    if depth == MAX_NESTING {
                        return Err(Invalid::Nesting);
                    }
                    if !self.take(end) {
                        depth += 1;
                        objects = objects << 1 | u64::from(object);
                        if object {
                            self.key()?;
                        }
                        continue 'values;
                    }
                }
                _ => return Err(Invalid::Syntax),
            }
            // A value is over; so may be what it stands in.
            while depth > open {
                let object = objects & 1 == 1;
                match self.peek().ok_or(Invalid::Syntax)? {
                    b',' => {
                        self.at += 1;
                        if object {
                            self.key()?;
                        }
                        continue 'values;
                    }
                    b'}' if object => {}
                    b']' if !object => {}
                    _ => return Err(Invalid::Syntax),
                }
                self.at += 1;
                depth -= 1;
                objects >>= 1;
            }
            return Ok(());
        }
    }

    /// A key and its colon; what stands between the quotes.
    #[inline]
    fn key(&mut self) -> Result<&'b str, Invalid> {
        if self.peek() != Some(b'"') {
            return Err(Invalid::Syntax);
        }
        let start = self.at + 1;
        self.string()?;
        let key = &self.text[start..self.at - 1];
        if self.take(b':') { Ok(key) } else { Err(Invalid::Syntax) }
    }

    /// A string, whose opening quote is here.
    #[inline]
    fn string(&mut self) -> Result<(), Invalid> {
        let bytes = self.text.as_bytes();
        self.at += 1;
        loop {
            self.at += plain_len(&bytes[self.at..]);
            match bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    let (_, len) = escape(&bytes[self.at..]).ok_or(Invalid::Syntax)?;
                    self.at += len;
                }
                // A control byte, or the end.
                Some(_) | None => return Err(Invalid::Syntax),
            }
        }
    }

    /// RFC 8259 §6: no sign but a minus, no leading zero, digits on both sides of a point.
    #[inline]
    fn number(&mut self) -> Result<(), Invalid> {
        let bytes = self.text.as_bytes();
        let has = |at: usize, wanted: &[u8]| bytes.get(at).is_some_and(|byte| wanted.contains(byte));
        let mut at = self.at + usize::from(has(self.at, b"-"));
        at = if has(at, b"0") { at + 1 } else { digits(bytes, at)? };
        if has(at, b".") {
            at = digits(bytes, at + 1)?;
        }
        if has(at, b"eE") {
            at += 1 + usize::from(has(at + 1, b"+-"));
            at = digits(bytes, at)?;
        }
        self.at = at;
        Ok(())
    }

    fn literal(&mut self, literal: &str) -> Result<(), Invalid> {
        if !self.text.as_bytes()[self.at..].starts_with(literal.as_bytes()) {
            return Err(Invalid::Syntax);
        }
        self.at += literal.len();
        Ok(())
    }
}

/// RFC 8259 §2.
#[inline]
const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
}

/// Where one digit or more from here on end.
#[inline]
fn digits(bytes: &[u8], start: usize) -> Result<usize, Invalid> {
    let mut at = start;
    while bytes.get(at).is_some_and(u8::is_ascii_digit) {
        at += 1;
    }
    if at > start { Ok(at) } else { Err(Invalid::Syntax) }
}

/// The character that the escape at the front stands for, and the length of the escape.
pub(super) fn escape(bytes: &[u8]) -> Option<(char, usize)> {
    let character = match *bytes.get(1)? {
        byte @ (b'"' | b'\\' | b'/') => char::from(byte),
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return unicode_escape(bytes),
        _ => return None,
    };
    Some((character, 2))
}

/// RFC 8259 §7: `\u` and four digits, or a surrogate pair of two such.
fn unicode_escape(bytes: &[u8]) -> Option<(char, usize)> {
    let unit = |at: usize| -> Option<u32> {
        let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
        digits.iter().try_fold(0, |unit, digit| Some(unit << 4 | char::from(*digit).to_digit(16)?))
    };
    let first = unit(0)?;
    if !(0xd800..0xe000).contains(&first) {
        return Some((char::from_u32(first)?, 6));
    }
    let second = unit(6)?;
    if first >= 0xdc00 || !(0xdc00..0xe000).contains(&second) {
        return None;
    }
    Some((char::from_u32(0x1_0000 + ((first - 0xd800) << 10 | (second - 0xdc00)))?, 12))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(text: &str) -> Result<&str, Invalid> {
        let mut scanner = Scanner::new(text);
        let value = scanner.value(0)?;
        scanner.end()?;
        Ok(value)
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
        assert_eq!(escape(br"\ud800\udc00"), Some(('\u{1_0000}', 12)));
        assert_eq!(escape(br"\udbff\udfff"), Some(('\u{10_ffff}', 12)));
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
        let mut scanner = Scanner::new("[[]]");
        assert_eq!(scanner.value(MAX_NESTING - 1), Err(Invalid::Nesting));
    }
}
