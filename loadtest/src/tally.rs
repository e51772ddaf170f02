//! What a thread has counted and measured since it last told.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tidegate_wire::extension::DeflateParams;

use crate::{
    fanout::FanParcel,
    fault::{Fault, Faults},
};

/// The longest time that a histogram tells apart, in nanoseconds: an hour.
const LONGEST_NS: u64 = 3_600_000_000_000;
/// Digits that count: a percentile is right within a thousandth.
const DIGITS: u8 = 3;

/// Reasons that are kept until they are told, and how long they may be.
const REASONS: usize = 4;
const REASON_BYTES: usize = 256;

/// The time that is measured, on the clock of the backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) from_ns: u64,
    pub(crate) until_ns: u64,
}

impl Window {
    /// No time at all.
    pub(crate) const NEVER: Self = Self { from_ns: u64::MAX, until_ns: u64::MAX };

    #[inline]
    pub(crate) fn contains(&self, time_ns: u64) -> bool {
        (self.from_ns..self.until_ns).contains(&time_ns)
    }
}

/// Counts.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// Messages that came, whatever they were.
    pub(crate) received: u64,
    /// Of them, in the measured time, those that are what they must be and had not come before.
    pub(crate) in_window: u64,
    /// Their bytes of payload.
    pub(crate) bytes_in_window: u64,
    /// Messages that were due in the measured time and were answered.
    pub(crate) answered: u64,
    /// Where answers are waited for: when the last one came, or a session ended that had none. 0: never.
    pub(crate) settled_ns: u64,
    /// Sessions that came up.
    pub(crate) opened: u64,
    /// Of them, in the measured time.
    pub(crate) opened_in_window: u64,
    /// Sessions that ended with a Close from each side.
    pub(crate) closed: u64,
    /// Of them, in the measured time.
    pub(crate) closed_in_window: u64,
    /// Sessions that were up and ended although nobody here wanted them to.
    pub(crate) lost: u64,
    /// Pings that came. Of several at once the last one is answered.
    pub(crate) pings: u64,
    /// Sessions that stopped reading.
    pub(crate) slow: u64,
    /// Of them, those that were ended by the server.
    pub(crate) slow_ended: u64,
    /// System calls of the backend in the measured time; in `storm`, while sessions came up.
    pub(crate) system_calls: u64,
    /// TLS handshakes that were done, by version and cipher suite.
    pub(crate) tls: BTreeMap<String, u64>,
    /// Of them, those that resumed an earlier session.
    pub(crate) tls_resumed: u64,
    pub(crate) deflate: Deflate,
    pub(crate) faults: Faults,
    /// Statuses of refusals.
    pub(crate) statuses: BTreeMap<u16, u64>,
    /// Codes of the server's Closes, 1005 where there was none.
    pub(crate) close_codes: BTreeMap<u16, u64>,
}

impl Counts {
    pub(crate) fn merge(&mut self, other: &Self) {
        self.received += other.received;
        self.in_window += other.in_window;
        self.bytes_in_window += other.bytes_in_window;
        self.answered += other.answered;
        self.settled_ns = self.settled_ns.max(other.settled_ns);
        self.opened += other.opened;
        self.opened_in_window += other.opened_in_window;
        self.closed += other.closed;
        self.closed_in_window += other.closed_in_window;
        self.lost += other.lost;
        self.pings += other.pings;
        self.slow += other.slow;
        self.slow_ended += other.slow_ended;
        self.system_calls += other.system_calls;
        self.faults.merge(&other.faults);
        self.tls_resumed += other.tls_resumed;
        self.deflate.merge(&other.deflate);
        for (suite, count) in &other.tls {
            *self.tls.entry(suite.clone()).or_default() += count;
        }
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        for (code, count) in &other.close_codes {
            *self.close_codes.entry(*code).or_default() += count;
        }
    }
}

/// What was counted of permessage-deflate.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Deflate {
    /// Sessions that agreed on it,
    pub(crate) agreed: u64,
    /// of them, those that look back at earlier messages of theirs;
    pub(crate) look_back: u64,
    /// sessions whose server did not take the offer.
    pub(crate) declined: u64,
    /// Sessions by the server's answer.
    pub(crate) answers: BTreeMap<String, u64>,
    /// Payloads of messages before they were deflated.
    pub(crate) sent_payload_bytes: u64,
    /// Their frames.
    pub(crate) sent_wire_bytes: u64,
    pub(crate) received_payload_bytes: u64,
    /// All that came in sessions that agreed.
    pub(crate) received_wire_bytes: u64,
}

impl Deflate {
    /// One more session agreed on it.
    pub(crate) fn agreed(&mut self, params: &DeflateParams, looks_back: bool) {
        self.agreed += 1;
        self.look_back += u64::from(looks_back);
        *self.answers.entry(params.to_string()).or_default() += 1;
    }

    fn merge(&mut self, other: &Self) {
        self.agreed += other.agreed;
        self.look_back += other.look_back;
        self.declined += other.declined;
        self.sent_payload_bytes += other.sent_payload_bytes;
        self.sent_wire_bytes += other.sent_wire_bytes;
        self.received_payload_bytes += other.received_payload_bytes;
        self.received_wire_bytes += other.received_wire_bytes;
        for (answer, count) in &other.answers {
            *self.answers.entry(answer.clone()).or_default() += count;
        }
    }
}

/// Times, in nanoseconds.
#[derive(Clone, Debug)]
pub(crate) struct Times(Histogram<u64>);

impl Times {
    pub(crate) fn new() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST_NS, DIGITS).expect("bounds that hold for each other"))
    }

    /// Counts a time; one that is too long counts as the longest.
    #[inline]
    pub(crate) fn record(&mut self, ns: u64) {
        self.0.saturating_record(ns);
    }

    /// Counts the same time so often.
    pub(crate) fn record_many(&mut self, ns: u64, count: u32) {
        self.0.saturating_record_n(ns, u64::from(count));
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// What so many of a hundred are not above; `None` where nothing was counted.
    pub(crate) fn percentile_ns(&self, percentile: f64) -> Option<f64> {
        (!self.0.is_empty()).then(|| {
            // The greatest one and the least are known exactly up to the histogram's precision.
            match percentile {
                0.0 => self.0.min() as f64,
                percentile => self.0.value_at_percentile(percentile) as f64,
            }
        })
    }

    pub(crate) fn mean_ns(&self) -> Option<f64> {
        (!self.0.is_empty()).then(|| self.0.mean())
    }

    /// What was counted, leaving nothing.
    fn take(&mut self) -> Option<Box<Self>> {
        if self.0.is_empty() {
            return None;
        }
        Some(Box::new(std::mem::replace(self, Self::new())))
    }
}

/// On its way between processes: each value that was met, and how often. They fall into the same buckets again.
impl Serialize for Times {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer
            .collect_seq(self.0.iter_recorded().map(|met| (met.value_iterated_to(), met.count_at_value())))
    }
}

impl<'de> Deserialize<'de> for Times {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut times = Self::new();
        for (ns, count) in Vec::<(u64, u64)>::deserialize(deserializer)? {
            times.0.saturating_record_n(ns, count);
        }
        Ok(times)
    }
}

/// What was counted and measured.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) counts: Counts,
    /// From when a message was due to its answer.
    pub(crate) latency: Times,
    /// From when a session was due (or its connect began) to the good end of its handshake.
    pub(crate) handshake: Times,
    /// From when a message was due to when it was handed to the kernel, where nothing but this program held it up.
    pub(crate) lag: Times,
    /// Of `fanout`; a worker keeps its own in its [`Fan`](crate::fanout::Fan).
    pub(crate) fan: FanParcel,
    /// Why there were such faults, in words, until it is told.
    pub(crate) reasons: Vec<(Fault, String)>,
}

/// A tally on its way: histograms without an entry stay at home.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Parcel {
    pub(crate) counts: Counts,
    pub(crate) latency: Option<Box<Times>>,
    pub(crate) handshake: Option<Box<Times>>,
    pub(crate) lag: Option<Box<Times>>,
    /// Of `fanout`.
    pub(crate) fan: Option<Box<FanParcel>>,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            counts: Counts::default(),
            latency: Times::new(),
            handshake: Times::new(),
            lag: Times::new(),
            fan: FanParcel::default(),
            reasons: Vec::new(),
        }
    }

    /// Why there was such a fault.
    pub(crate) fn give_reason(&mut self, fault: Fault, why: &[u8]) {
        let told = &why[..why.len().min(REASON_BYTES)];
        // It is shown on a terminal.
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        let reason: String = String::from_utf8_lossy(told).chars().map(plain).collect();
        let reason = (fault, reason);
        if self.reasons.len() < REASONS && !self.reasons.contains(&reason) {
            self.reasons.push(reason);
        }
    }

    pub(crate) fn fault(&mut self, fault: Fault) {
        self.counts.faults.add(fault, 1);
    }

    /// TLS came up.
    pub(crate) fn tls_came_up(&mut self, tls: &tidegate_tls::Session) {
        let (version, suite) = tls.suite().unwrap_or(("unknown", "unknown"));
        *self.counts.tls.entry(format!("{version} {suite}")).or_default() += 1;
        self.counts.tls_resumed += u64::from(tls.is_resumed() == Some(true));
    }

    /// What was counted since the last time.
    pub(crate) fn take(&mut self) -> Parcel {
        Parcel {
            counts: std::mem::take(&mut self.counts),
            latency: self.latency.take(),
            handshake: self.handshake.take(),
            lag: self.lag.take(),
            fan: None,
        }
    }

    pub(crate) fn merge(&mut self, parcel: &Parcel) {
        self.counts.merge(&parcel.counts);
        parcel.fan.iter().for_each(|fan| self.fan.merge(fan));
        let pairs = [
            (&mut self.latency, &parcel.latency),
            (&mut self.handshake, &parcel.handshake),
            (&mut self.lag, &parcel.lag),
        ];
        for (mine, theirs) in pairs {
            theirs.iter().for_each(|theirs| mine.merge(theirs));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_reasons_are_few_short_and_plain() {
        let mut tally = Tally::new();
        for why in ["a\u{1b}[2J\u{9b}b", "a\u{1b}[2J\u{9b}b", "c"] {
            tally.give_reason(Fault::Rejected, why.as_bytes());
        }
        let reasons = ["a [2J b", "c"].map(|why| (Fault::Rejected, why.to_owned()));
        assert_eq!(tally.reasons, reasons);
        for number in 0..10 {
            tally.give_reason(Fault::Rejected, format!("{number}{}", "é".repeat(1000)).as_bytes());
        }
        assert_eq!(tally.reasons.len(), REASONS);
        assert!(tally.reasons.iter().all(|(_, reason)| reason.chars().count() <= REASON_BYTES));
    }

    #[test]
    fn times_are_the_same_behind_a_pipe() {
        let mut times = Times::new();
        for ns in [0, 1, 999, 2_047, 2_049, 1_234_567, 98_765_432_109, u64::MAX] {
            times.record(ns);
            times.record_many(ns / 3, 7);
        }
        let text = serde_json::to_string(&times).unwrap();
        let again: Times = serde_json::from_str(&text).unwrap();
        assert!(again.0 == times.0, "{text}");
        for percentile in [0.0, 50.0, 99.0, 100.0] {
            assert_eq!(again.percentile_ns(percentile), times.percentile_ns(percentile));
        }
        assert_eq!(again.mean_ns(), times.mean_ns());
    }
}
