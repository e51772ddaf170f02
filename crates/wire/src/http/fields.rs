//! The field section: an ordered list of names and values that borrow from the head.

use memchr::memchr_iter;

use super::grammar::trim;
use super::{Refusal, work};

/// Field lines in the order in which they came.
#[derive(Clone, Debug)]
pub struct Fields<'b> {
    lines: Vec<httparse::Header<'b>>,
}

impl<'b> Fields<'b> {
    /// Parses everything behind the first line, the closing empty line included.
    pub(super) fn parse(section: &'b [u8], limit: usize) -> Result<Self, Refusal> {
        let mut ends = 0usize;
        for end in memchr_iter(b'\n', section) {
            // RFC 9112 §2.2: a recipient MAY take a bare LF for a line end. Another parser might not, so none here does;
            // httparse, which would, never sees one.
            if end == 0 || section[end - 1] != b'\r' {
                return Err(BARE_LF);
            }
            ends += 1;
        }
        // The last line end is the empty line's.
        let count = ends.saturating_sub(1);
        if count > limit {
            return Err(TOO_MANY_FIELDS);
        }
        let mut lines = vec![httparse::EMPTY_HEADER; count];
        // httparse refuses: names that are no token (an empty one, a space before the colon, a folded line), and
        // control bytes and a bare CR in values.
        let parsed = match httparse::parse_headers(section, &mut lines) {
            Ok(httparse::Status::Complete((end, parsed))) if end == section.len() => parsed.len(),
            Ok(_) => return Err(Refusal::bad("the head does not end where it should")),
            Err(httparse::Error::HeaderName) => return Err(Refusal::bad("a field name is not a token")),
            Err(httparse::Error::TooManyHeaders) => return Err(TOO_MANY_FIELDS),
            Err(_) => return Err(Refusal::bad("a field value has a control byte")),
        };
        lines.truncate(parsed);
        Ok(Self { lines })
    }

    /// Every line: its name as received and its value without the space around it. A value has no control byte but
    /// tabs; it may have bytes from 0x80 up.
    pub fn iter(&self) -> impl Iterator<Item = (&'b str, &'b [u8])> + '_ {
        self.lines.iter().map(|line| (line.name, line.value))
    }

    /// How many lines there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there is no line.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The values of all lines of that name (compared without regard to case).
    pub fn all<'f>(&'f self, name: &'f str) -> impl Iterator<Item = &'b [u8]> + 'f {
        self.lines.iter().filter(move |line| line.name.eq_ignore_ascii_case(name)).map(|line| line.value)
    }

    /// Whether there is a line of that name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.all(name).next().is_some()
    }

    /// The value of the one line of that name.
    ///
    /// # Errors
    /// 400 where the name stands twice, even with equal values, or the value is not ASCII.
    pub fn one(&self, name: &str) -> Result<Option<&'b str>, Refusal> {
        let mut values = self.all(name);
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(Refusal::bad("a field that may stand only once stands twice"));
        }
        ascii(value).map(Some).ok_or(Refusal::bad("a field value that must be ASCII is not"))
    }

    /// The elements of the comma-separated lists in all lines of that name, trimmed. Empty elements are left out (RFC
    /// 9110 §5.6.1.2); one that is not ASCII is given as U+FFFD, which equals no token. No quoted strings: fields
    /// that have them are not lists of tokens.
    pub fn list<'f>(&'f self, name: &'f str) -> impl Iterator<Item = &'b str> + 'f {
        self.elements(name).filter(|element| !element.is_empty())
    }

    /// Like [`Self::list`], but with the empty elements.
    pub(crate) fn elements<'f>(&'f self, name: &'f str) -> impl Iterator<Item = &'b str> + 'f {
        self.all(name).flat_map(elements)
    }

    /// Whether a list of that name has this token, without regard to case.
    #[must_use]
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.list(name).any(|element| element.eq_ignore_ascii_case(token))
    }
}

const BARE_LF: Refusal = Refusal::bad("a line does not end with CR LF");
pub(super) const TOO_MANY_FIELDS: Refusal = Refusal::new(431, "the head has too many fields");

/// Splits one value at its commas: each byte is looked at once for the comma and at most twice for the trimming.
fn elements(value: &[u8]) -> impl Iterator<Item = &str> {
    value.split(|byte| *byte == b',').map(|element| {
        work::examined(element.len() + 1);
        ascii(trim(element)).unwrap_or("\u{fffd}")
    })
}

fn ascii(value: &[u8]) -> Option<&str> {
    if value.is_ascii() { std::str::from_utf8(value).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(section: &[u8]) -> Fields<'_> {
        Fields::parse(section, 100).unwrap()
    }

    #[test]
    fn rfc9110_5_3_lines_of_one_name_make_one_list() {
        let fields = fields(b"A: 1, 2 ,,\r\nB: x\r\na:\t3\r\nA:\r\n\r\n");
        assert_eq!(fields.list("A").collect::<Vec<_>>(), ["1", "2", "3"]);
        assert_eq!(fields.elements("A").collect::<Vec<_>>(), ["1", "2", "", "", "3", ""]);
        assert_eq!(fields.len(), 4);
        assert_eq!(fields.one("b"), Ok(Some("x")));
        assert_eq!(fields.one("c"), Ok(None));
        assert_eq!(fields.one("a").unwrap_err().status, 400);
    }

    #[test]
    fn rfc9110_5_5_obs_text_is_kept_in_values_and_matches_no_token() {
        let fields = fields(b"A: caf\xe9, b\r\n\r\n");
        assert_eq!(fields.iter().next(), Some(("A", &b"caf\xe9, b"[..])));
        assert_eq!(fields.list("a").collect::<Vec<_>>(), ["\u{fffd}", "b"]);
        assert!(fields.one("a").is_err());
    }

    #[test]
    fn every_byte_is_judged_in_names_and_in_values() {
        for byte in 0..=255u8 {
            for (place, section) in [
                (0, [b"a", &[byte][..], b"b: v\r\n\r\n"].concat()),
                (1, [b"abcdefghijklmnopqrstuvwxyzabcdefgh", &[byte][..], b"b: v\r\n\r\n"].concat()),
                (2, [b"a: v", &[byte][..], b"w\r\n\r\n"].concat()),
                (3, [b"a: 0123456789abcdef0123456789abcdef0123456789", &[byte][..], b"w\r\n\r\n"].concat()),
                (4, [b"a:", &[byte][..], b"\r\n\r\n"].concat()),
            ] {
                let accepted = Fields::parse(&section, 100).is_ok();
                let legal = if place < 2 {
                    super::super::grammar::is_token_byte(byte) || byte == b':'
                } else {
                    byte == b'\t' || (byte >= 0x20 && byte != 0x7f)
                };
                assert_eq!(accepted, legal, "byte {byte:#x} in place {place}");
            }
        }
    }

    #[test]
    fn a_section_ends_with_its_empty_line_and_nothing_else() {
        for bad in [
            &b""[..],
            b"\r\n\r\n",
            b"a: b\r\n",
            b"a: b",
            b"a: b\r\n\r\nc",
            b"a: b\r\n\r\nc: d\r\n\r\n",
            b"\n",
            b"a: b\n\n",
            b"a: b\r\n\n",
            b"a: b\r\n c\r\n\r\n",
            b" a: b\r\n\r\n",
            b": b\r\n\r\n",
            b"a : b\r\n\r\n",
            b"a\r\n\r\n",
            b"a: b\rc\r\n\r\n",
            b"a: b\r\r\n\r\n",
        ] {
            assert!(Fields::parse(bad, 100).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
        assert!(Fields::parse(b"\r\n", 0).unwrap().is_empty());
    }

    #[test]
    fn lines_are_counted_not_names() {
        let section = [b"a: b\r\n".repeat(101), b"\r\n".to_vec()].concat();
        assert_eq!(Fields::parse(&section, 100).unwrap_err().status, 431);
        assert_eq!(Fields::parse(&section, 101).unwrap().len(), 101);
    }

    #[test]
    fn a_long_list_is_split_in_one_pass() {
        for value in
            [" ".repeat(32_000), ",".repeat(32_000), "a,".repeat(16_000), format!("b{}x", " ".repeat(32_000))]
        {
            let section = format!("a: {value}\r\n\r\n");
            let fields = fields(section.as_bytes());
            work::take();
            let _ = fields.list("a").count();
            assert!(work::take() <= value.len() + 1);
        }
    }
}
