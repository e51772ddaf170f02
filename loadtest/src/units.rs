//! Numbers with units, read from the command line and written for people.

use std::time::Duration;

/// A duration: `500ms`, `10s`, `2m`, `1h`, or seconds.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let seconds = match unit {
        "ns" => 1e-9,
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("{text:?} is no duration: 500ms, 10s, 2m, 1h")),
    };
    let number: f64 = number.parse().map_err(|_| format!("{text:?} is no duration: 500ms, 10s, 2m, 1h"))?;
    // A year is more than any run takes, and far from where nanoseconds overflow.
    let seconds = number * seconds;
    if (0.0..=31_536_000.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err(format!("{text:?} is not between 0 and a year"))
    }
}

/// A count, of each second or of all: `0`, `100`, `2.5`, `50k`, `200M`, `1G`.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn count(text: &str) -> Result<f64, String> {
    let (number, unit) = split(text.strip_suffix("/s").unwrap_or(text));
    let factor = match unit {
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        _ => return Err(format!("{text:?} is no number: 100, 50k, 1M")),
    };
    Ok(number.parse::<f64>().map_err(|_| format!("{text:?} is no number: 100, 50k, 1M"))? * factor)
}

/// The highest rate for each second: more than any machine sends.
pub(crate) const MOST_RATE: f64 = 1e8;

/// A rate for each second: `100`, `2.5`, `50k`, `1M`.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn rate(text: &str) -> Result<f64, String> {
    let rate = count(text)?;
    if (0.001..=MOST_RATE).contains(&rate) {
        Ok(rate)
    } else {
        Err(format!("{text:?} is not a rate from 0.001 to 100M"))
    }
}

/// Bytes: `64`, `64B`, `16KiB`, `1MiB`, `1GiB`.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn bytes(text: &str) -> Result<usize, String> {
    let (number, unit) = split(text);
    let factor = match unit {
        "" | "B" => 1,
        "KiB" | "K" | "k" => 1024,
        "MiB" | "M" => 1024 * 1024,
        "GiB" | "G" => 1024 * 1024 * 1024,
        _ => return Err(format!("{text:?} is no size: 64, 16KiB, 1MiB, 1GiB")),
    };
    let number: usize = number.parse().map_err(|_| format!("{text:?} is no size: 64, 16KiB, 1MiB, 1GiB"))?;
    number.checked_mul(factor).ok_or_else(|| format!("{text:?} is too much"))
}

/// The number, and what follows it.
fn split(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    text.split_at(end)
}

/// Nanoseconds, with the unit that leaves the fewest digits.
pub(crate) fn show_ns(ns: f64) -> String {
    match ns {
        ns if ns < 1e3 => format!("{ns:.0} ns"),
        ns if ns < 1e6 => format!("{} µs", digits(ns / 1e3)),
        ns if ns < 1e9 => format!("{} ms", digits(ns / 1e6)),
        ns => format!("{} s", digits(ns / 1e9)),
    }
}

/// Bytes, with the unit that leaves the fewest digits.
pub(crate) fn show_bytes(bytes: f64) -> String {
    match bytes {
        bytes if bytes.abs() < 1024.0 => format!("{bytes:.0} B"),
        bytes if bytes.abs() < 1048576.0 => format!("{} KiB", digits(bytes / 1024.0)),
        bytes if bytes.abs() < 1073741824.0 => format!("{} MiB", digits(bytes / 1048576.0)),
        bytes => format!("{} GiB", digits(bytes / 1073741824.0)),
    }
}

/// A count with its thousands apart; below ten, with a decimal where it has one.
pub(crate) fn show_count(count: f64) -> String {
    if count < 10.0 && count.fract() != 0.0 {
        return format!("{count:.1}");
    }
    let text = format!("{count:.0}");
    let mut shown = String::new();
    for (place, digit) in text.chars().enumerate() {
        if place > 0 && (text.len() - place).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// Three digits that count.
fn digits(number: f64) -> String {
    match number.abs() {
        size if size < 10.0 => format!("{number:.2}"),
        size if size < 100.0 => format!("{number:.1}"),
        _ => format!("{number:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read() {
        assert_eq!(duration("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("20ms"), Ok(Duration::from_millis(20)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(rate("50k"), Ok(50_000.0));
        assert_eq!(rate("2.5/s"), Ok(2.5));
        assert_eq!((bytes("16KiB"), bytes("2GiB")), (Ok(16_384), Ok(2 << 30)));
        assert_eq!((count("0"), count("200M"), count("1.5G")), (Ok(0.0), Ok(2e8), Ok(1.5e9)));
        for wrong in ["", "x", "-1s", "1x", "9999999h", "1.2.3s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert!(rate("0").is_err() && rate("k").is_err() && rate("200M").is_err() && bytes("1.5").is_err());
    }

    #[test]
    fn units_are_written() {
        assert_eq!(show_ns(999.0), "999 ns");
        assert_eq!(show_ns(1234.0), "1.23 µs");
        assert_eq!(show_ns(20_500_000.0), "20.5 ms");
        assert_eq!(show_bytes(65_536.0), "64.0 KiB");
        assert_eq!(show_count(1_234_567.0), "1,234,567");
        assert_eq!((show_count(999.0), show_count(2.5)), ("999".into(), "2.5".into()));
    }
}
