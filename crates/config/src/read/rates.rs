//! What `[limits]` says of addresses, and `[limits]` and `[route.limits]` of rates.

use super::{limits::GIB, networks};
use crate::{
    AddressLimits, Excess, SessionRates,
    report::{At, Report},
    section::Section,
};

/// The most that may happen in a second, or at once: far beyond any machine.
const MOST: u64 = 1_000_000_000;

pub(super) fn addresses(report: &mut Report<'_>, section: &Section<'_>) -> AddressLimits {
    let mut limits = AddressLimits::default();
    let count = |value: At<u64>| value.value as u32;
    if let Some(value) = section.integer(report, "sessions_per_address", 0..=100_000_000) {
        limits.sessions = count(value);
    }
    if let Some(value) = section.integer(report, "handshakes_per_second", 0..=MOST) {
        limits.handshakes_per_second = count(value);
        limits.burst_handshakes = limits.burst_handshakes.max(limits.handshakes_per_second);
    }
    if let Some(At { value, span }) = section.integer(report, "burst_handshakes", 1..=MOST) {
        if limits.handshakes_per_second == 0 {
            report.relation(span, "`burst_handshakes` means nothing where `handshakes_per_second` is 0");
        }
        limits.burst_handshakes = value as u32;
    }
    if section.has("exempt_addresses") {
        limits.exempt = networks(report, section, "exempt_addresses");
    }
    limits
}

/// The keys of rates, where they are set.
#[derive(Default)]
pub(super) struct RateKeys {
    messages_per_second: Option<At<u64>>,
    burst_messages: Option<At<u64>>,
    bytes_per_second: Option<At<u64>>,
    burst_bytes: Option<At<u64>>,
    pub(super) excess: Option<At<Excess>>,
}

impl RateKeys {
    pub(super) fn read(report: &mut Report<'_>, section: &Section<'_>) -> Self {
        let words = [("delay", Excess::Delay), ("drop", Excess::Drop), ("close", Excess::Close)];
        Self {
            messages_per_second: section.integer(report, "messages_per_second", 0..=MOST),
            burst_messages: section.integer(report, "burst_messages", 1..=MOST),
            bytes_per_second: section.size(report, "bytes_per_second", 0..=1024 * GIB),
            burst_bytes: section.size(report, "burst_bytes", 1..=1024 * GIB),
            excess: section.word(report, "excess", &words),
        }
    }

    /// Puts what is set here over `rates`. A rate without a burst of its own has one of a second's worth.
    pub(super) fn apply(&self, report: &mut Report<'_>, rates: &mut SessionRates) {
        let value = |key: &Option<At<u64>>| key.as_ref().map(|at| at.value);
        if let Some(rate) = value(&self.messages_per_second) {
            rates.messages_per_second = rate as u32;
            rates.burst_messages = rate as u32;
        }
        if let Some(rate) = value(&self.bytes_per_second) {
            rates.bytes_per_second = rate;
            rates.burst_bytes = rate;
        }
        let mut burst = |key: &Option<At<u64>>, on: bool, (name, rate): (&str, &str)| {
            if let Some(At { span, .. }) = key
                && !on
            {
                report.relation(span.clone(), format!("`{name}` means nothing where `{rate}` is 0"));
            }
        };
        let messages = ("burst_messages", "messages_per_second");
        burst(&self.burst_messages, rates.messages_per_second != 0, messages);
        burst(&self.burst_bytes, rates.bytes_per_second != 0, ("burst_bytes", "bytes_per_second"));
        if let Some(burst) = value(&self.burst_messages) {
            rates.burst_messages = burst as u32;
        }
        if let Some(burst) = value(&self.burst_bytes) {
            rates.burst_bytes = burst;
        }
        if let Some(At { value, .. }) = &self.excess {
            rates.excess = *value;
        }
    }
}
