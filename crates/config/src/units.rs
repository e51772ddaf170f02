//! Sizes and durations as people write them: `16KiB`, `250ms`. One spelling for each, so that no file is misread.

use crate::{report::Mistake, section::shown};

const SIZES: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const DURATIONS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Other spellings of units, and the one that was probably meant.
const SIZE_HINTS: [(&str, &str); 18] = [
    ("k", "KiB"),
    ("kb", "KiB"),
    ("ki", "KiB"),
    ("kib", "KiB"),
    ("m", "MiB"),
    ("mb", "MiB"),
    ("mi", "MiB"),
    ("mib", "MiB"),
    ("g", "GiB"),
    ("gb", "GiB"),
    ("gi", "GiB"),
    ("gib", "GiB"),
    ("t", "TiB"),
    ("tb", "TiB"),
    ("ti", "TiB"),
    ("tib", "TiB"),
    ("b", "B"),
    ("bytes", "B"),
];
const DURATION_HINTS: [(&str, &str); 15] = [
    ("", "s"),
    ("sec", "s"),
    ("secs", "s"),
    ("second", "s"),
    ("seconds", "s"),
    ("s", "s"),
    ("m", "m"),
    ("min", "m"),
    ("mins", "m"),
    ("minute", "m"),
    ("minutes", "m"),
    ("h", "h"),
    ("hour", "h"),
    ("hours", "h"),
    ("ms", "ms"),
];

/// Bytes of a size like `16KiB`.
pub(crate) fn size(text: &str) -> Result<u64, Mistake> {
    scaled(text, &SIZES, &SIZE_HINTS, "a size is a whole number with B, KiB, MiB, GiB or TiB, like \"16KiB\"")
}

/// Milliseconds of a duration like `250ms`.
pub(crate) fn duration(text: &str) -> Result<u64, Mistake> {
    scaled(text, &DURATIONS, &DURATION_HINTS, "a duration is a whole number with ms, s, m or h, like \"10s\"")
}

/// A size in the largest unit that is exact.
pub(crate) fn size_text(bytes: u64) -> String {
    exact(bytes, &SIZES, "0B")
}

/// A duration in the largest unit that is exact.
pub(crate) fn duration_text(ms: u64) -> String {
    exact(ms, &DURATIONS, "0s")
}

fn exact(value: u64, units: &[(&str, u64)], zero: &str) -> String {
    let fits = |(_, factor): &&(&str, u64)| value >= *factor && value.is_multiple_of(*factor);
    units
        .iter()
        .find(fits)
        .map_or_else(|| zero.to_owned(), |(unit, factor)| format!("{}{unit}", value / factor))
}

fn scaled(
    text: &str,
    units: &[(&str, u64)],
    hints: &[(&str, &str)],
    form: &'static str,
) -> Result<u64, Mistake> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    if let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit && digits > 0) {
        let value = number.parse::<u64>().ok().and_then(|value| value.checked_mul(*factor));
        return value.ok_or_else(|| Mistake::new(format!("{} is too large", shown(text))));
    }
    let meant = unit.trim().to_ascii_lowercase();
    match hints.iter().find(|(name, _)| *name == meant && digits > 0) {
        Some((_, unit)) => Err(Mistake::suggesting(form, format!("{number}{unit}"))),
        None => Err(Mistake::new(form)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("0B", 0), ("1B", 1), ("16KiB", 16_384), ("1MiB", 1 << 20), ("3GiB", 3 << 30), ("1TiB", 1 << 40)]
        {
            assert_eq!(size(text).unwrap(), bytes, "{text}");
        }
    }

    #[test]
    fn durations() {
        for (text, ms) in [("0s", 0), ("250ms", 250), ("10s", 10_000), ("5m", 300_000), ("2h", 7_200_000)] {
            assert_eq!(duration(text).unwrap(), ms, "{text}");
        }
    }

    #[test]
    fn products_are_checked() {
        assert_eq!(size("17179869183GiB").unwrap(), 17_179_869_183 << 30);
        assert!(size("17179869184GiB").is_err());
        assert!(size("18446744073709551616B").is_err());
        assert!(duration("18446744073709551615h").is_err());
    }

    #[test]
    fn other_spellings_are_named() {
        for (text, meant) in
            [("16kb", "16KiB"), ("16 KiB", "16KiB"), ("1M", "1MiB"), ("7Bytes", "7B"), ("2tb", "2TiB")]
        {
            assert_eq!(size(text).unwrap_err().suggestion.as_deref(), Some(meant), "{text}");
        }
        for (text, meant) in [("10", "10s"), ("10 s", "10s"), ("10sec", "10s"), ("5min", "5m"), ("3H", "3h")]
        {
            assert_eq!(duration(text).unwrap_err().suggestion.as_deref(), Some(meant), "{text}");
        }
        for text in ["", "KiB", "-1KiB", "1.5MiB", "1PiB", "0x10B", "１KiB", "1KiB1"] {
            let mistake = size(text).unwrap_err();
            assert!(mistake.suggestion.is_none(), "{text}");
        }
        for text in ["", "s", "-1s", "1.5s", "1m30s", "1d"] {
            assert!(duration(text).unwrap_err().suggestion.is_none(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(value: u64) {
            prop_assert_eq!(size(&size_text(value)).unwrap(), value);
            prop_assert_eq!(duration(&duration_text(value)).unwrap(), value);
        }
    }
}
