//! The time of an answer.

use std::time::{Duration, UNIX_EPOCH};

/// The value of `Date` (RFC 9110 §6.6.1) at this time of the system's clock.
///
/// # Panics
/// If the year would not be one of 1970 to 9999.
#[must_use]
pub fn http_date(unix_seconds: u64) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(unix_seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc9110_5_6_7_a_date_is_written_in_the_one_form() {
        assert_eq!(http_date(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
