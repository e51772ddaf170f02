//! Single values of the command line.

use std::time::Duration;

use rustix::process::Pid;
use tidegate_wire::{close::CloseCode, http};

use crate::{
    payload::{Share, Sizes},
    units,
};

/// The longest message.
pub(super) const MOST_BYTES: usize = 64 * 1024 * 1024;

/// How long messages are.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Mix {
    /// The bounds of all.
    pub(super) sizes: Sizes,
    /// Empty where there is one share.
    pub(super) shares: Vec<Share>,
}

pub(super) fn some_duration(text: &str) -> Result<Duration, String> {
    match units::duration(text)? {
        Duration::ZERO => Err("it must be more than 0".into()),
        duration => Ok(duration),
    }
}

/// One size, or several with their shares.
pub(super) fn mix(text: &str) -> Result<Mix, String> {
    if !text.contains([':', ',']) {
        return Ok(Mix { sizes: sizes(text)?, shares: Vec::new() });
    }
    let mut shares = Vec::new();
    for part in text.split(',') {
        let (size, weight) =
            part.rsplit_once(':').ok_or_else(|| format!("{part:?} is no share: 1KiB:25%"))?;
        let weight = weight.strip_suffix('%').ok_or_else(|| format!("{weight:?} has no % behind it"))?;
        let weight = weight.parse::<f64>().map_err(|_| format!("{weight:?} is no number"))? / 100.0;
        if !(weight > 0.0 && weight <= 1.0) {
            return Err(format!("{part:?}: a share is more than 0 and at most 100%"));
        }
        shares.push(Share { weight, sizes: sizes(size)? });
    }
    let sum: f64 = shares.iter().map(|share| share.weight).sum();
    if (sum - 1.0).abs() > 1e-6 {
        return Err(format!("the shares are {:.4}% together, but must be 100%", sum * 100.0));
    }
    let min = shares.iter().map(|share| share.sizes.min).min().unwrap_or(0);
    let max = shares.iter().map(|share| share.sizes.max).max().unwrap_or(0);
    Ok(Mix { sizes: Sizes { min, max }, shares })
}

fn sizes(text: &str) -> Result<Sizes, String> {
    let (min, max) = match text.split_once("..") {
        Some((min, max)) => (units::bytes(min)?, units::bytes(max)?),
        None => (units::bytes(text)?, units::bytes(text)?),
    };
    if min > max {
        return Err(format!("{text:?}: the least is more than the most"));
    }
    if max > MOST_BYTES {
        return Err(format!("a message is at most {MOST_BYTES} bytes"));
    }
    Ok(Sizes { min, max })
}

pub(super) fn share(text: &str) -> Result<f64, String> {
    let (number, factor) = match text.strip_suffix('%') {
        Some(percent) => (percent, 0.01),
        None => (text, 1.0),
    };
    let share = number.parse::<f64>().map_err(|_| format!("{text:?} is no share: 0.1 or 10%"))? * factor;
    // At the ends there would be no slow session, or nobody to be measured.
    if share > 0.0 && share < 1.0 { Ok(share) } else { Err("a share is between 0 and 100%".into()) }
}

pub(super) fn pid(text: &str) -> Result<Pid, String> {
    text.parse().ok().and_then(Pid::from_raw).ok_or_else(|| format!("{text:?} is no process number"))
}

pub(super) fn close_code(text: &str) -> Result<u16, String> {
    let code = text.parse().ok().filter(|code| CloseCode::may_be_sent(*code));
    code.ok_or_else(|| "not a code that may be sent (RFC 6455 §7.4): 1000, 1001, 3000 to 4999, ...".into())
}

pub(super) fn token(text: &str) -> Result<String, String> {
    if http::is_token(text.as_bytes()) { Ok(text.to_owned()) } else { Err("not a token of HTTP".into()) }
}

pub(super) fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("a field is like 'Name: value'")?;
    let value = value.trim();
    if !http::is_token(name.as_bytes()) || value.bytes().any(|byte| byte.is_ascii_control()) {
        return Err("a field is like 'Name: value', on one line".into());
    }
    let own = ["upgrade", "connection", "content-length", "transfer-encoding"];
    let name_lower = name.to_ascii_lowercase();
    if own.contains(&&*name_lower) || name_lower.starts_with("sec-websocket-") {
        return Err(format!("{name} is the handshake's own (for subprotocols: --subprotocol)"));
    }
    Ok((name.to_owned(), value.to_owned()))
}
