//! Byte classes of RFC 9110 and RFC 3986, as one table.

const TOKEN: u8 = 1;
const PATH: u8 = 2;
const QUERY: u8 = 4;
const HOST: u8 = 8;
const UNRESERVED: u8 = 16;

/// One bit per class and byte.
static CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = class(byte as u8);
        byte += 1;
    }
    table
}

const fn class(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' => {
            TOKEN | PATH | QUERY | HOST | UNRESERVED
        }
        b'~' => TOKEN | PATH | QUERY | HOST | UNRESERVED,
        b'!' | b'$' | b'&' | b'\'' | b'*' | b'+' => TOKEN | PATH | QUERY,
        b'(' | b')' | b',' | b'=' | b':' | b'@' | b'/' => PATH | QUERY,
        // `%` is a path byte only where two hexadecimal digits follow; the target's check sees to that.
        b'%' => TOKEN | PATH | QUERY,
        // `;` is legal in a path, but what follows it is a parameter to some servers and part of the name to others.
        b';' | b'?' => QUERY,
        // Not in RFC 3986, but browsers leave them as they are in a query, where nothing is matched on them.
        b'[' | b']' | b'{' | b'}' | b'\\' => QUERY,
        b'^' | b'`' | b'|' => TOKEN | QUERY,
        b'#' => TOKEN,
        _ => 0,
    }
}

const fn has(byte: u8, class: u8) -> bool {
    CLASSES[byte as usize] & class != 0
}

/// RFC 9110 §5.6.2: `tchar`.
pub(super) const fn is_token_byte(byte: u8) -> bool {
    has(byte, TOKEN)
}

/// RFC 3986 §3.3 `pchar` and `/`, without `;`.
pub(super) const fn is_path_byte(byte: u8) -> bool {
    has(byte, PATH)
}

/// RFC 3986 §3.4 and the bytes that browsers leave unescaped there.
pub(super) const fn is_query_byte(byte: u8) -> bool {
    has(byte, QUERY)
}

/// Bytes of a host name. RFC 3986 §3.2.2 allows escapes and sub-delimiters too; no name in use has any, and a comma
/// or an escape there is read differently from server to server.
pub(super) const fn is_host_byte(byte: u8) -> bool {
    has(byte, HOST)
}

/// RFC 3986 §2.3: bytes whose escaped and plain forms mean the same.
pub(super) const fn is_unreserved(byte: u8) -> bool {
    has(byte, UNRESERVED)
}

/// Whether `text` is a token (RFC 9110 §5.6.2): not empty, visible ASCII without delimiters.
#[must_use]
pub fn is_token(text: &[u8]) -> bool {
    super::work::examined(text.len());
    !text.is_empty() && text.iter().all(|byte| is_token_byte(*byte))
}

/// The token in an `Authorization` field's value (RFC 6750 §2.1), where it is of that scheme, whose name has no case
/// (RFC 9110 §11.1).
#[must_use]
pub fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked("bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// The value of one hexadecimal digit.
pub(super) const fn hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// `text` without spaces and tabs at either end (RFC 9110 §5.6.3: OWS).
pub(super) fn trim(text: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let Some(start) = text.iter().position(|byte| !is_space(byte)) else { return &[] };
    let end = text.iter().rposition(|byte| !is_space(byte)).unwrap_or(start);
    &text[start..=end]
}

/// `DIGIT` only, and it fits. `str::parse` alone would take a sign.
pub(super) fn decimal(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc9110_5_6_2_token_bytes_are_exactly_the_listed_ones() {
        let listed = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        for byte in 0..=255u8 {
            assert_eq!(is_token_byte(byte), listed.as_bytes().contains(&byte), "{byte:#x}");
        }
        assert!(!is_token(b""));
    }

    #[test]
    fn rfc3986_3_3_path_bytes_are_pchar_and_slash_without_semicolon() {
        let listed = "-._~!$&'()*+,=:@/%0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        for byte in 0..=255u8 {
            assert_eq!(is_path_byte(byte), listed.as_bytes().contains(&byte), "{byte:#x}");
        }
    }

    #[test]
    fn a_query_takes_what_browsers_leave_but_no_quote_angle_or_hash() {
        for byte in 0..=255u8 {
            let refused = !(0x21..0x7f).contains(&byte) || matches!(byte, b'"' | b'<' | b'>' | b'#');
            assert_eq!(is_query_byte(byte), !refused, "{byte:#x}");
        }
    }

    #[test]
    fn trimming_takes_spaces_and_tabs_only() {
        assert_eq!(trim(b" \t a b\t "), b"a b");
        assert_eq!(trim(b" \t "), b"");
        assert_eq!(trim(b""), b"");
        assert_eq!(trim(b"\x0ba"), b"\x0ba");
    }

    #[test]
    fn a_number_has_digits_only_and_fits() {
        assert_eq!(decimal("18446744073709551615"), Some(u64::MAX));
        for bad in ["", "+5", "-5", "5 ", " 5", "5,5", "0x5", "18446744073709551616", "5\u{660}"] {
            assert_eq!(decimal(bad), None, "{bad:?}");
        }
    }
}
