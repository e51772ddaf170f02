//! The time of an answer.

use std::time::{Duration, UNIX_EPOCH};

use super::refusal::push_field;

/// Puts `Date` (RFC 9110 §6.6.1) behind the status line of a response; `unix_seconds` is the system's clock.
///
/// # Panics
/// If the response has no whole status line, or the year would not be one of 1970 to 9999.
pub fn insert_date(response: &mut Vec<u8>, unix_seconds: u64) {
    let line = memchr::memchr(b'\n', response).expect("a status line");
    let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(unix_seconds));
    let mut field = Vec::with_capacity(40);
    push_field(&mut field, "Date", date.as_bytes());
    response.splice(line + 1..line + 1, field);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc9110_5_6_7_the_date_is_the_first_field() {
        let mut response = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nbody".to_vec();
        insert_date(&mut response, 784_111_777);
        let expected =
            "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nConnection: close\r\n\r\nbody";
        assert_eq!(String::from_utf8(response).unwrap(), expected);
    }
}
