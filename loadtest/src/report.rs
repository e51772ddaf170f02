//! The results of a run, as JSON has them and the table shows them.
//!
//! Names end with their unit: `_s` seconds, `_us` microseconds, `_ns` nanoseconds, `_bytes`, `_per_s`. What was not
//! measured is `null`. README.md tells each field; `format` changes when one changes its meaning.

use std::collections::BTreeMap;

use serde::Serialize;
use tidegate_wire::extension::DeflateOffer;

use crate::{
    assertion::Metric,
    fault::Fault,
    spectrum::{Step, spectrum},
    tally::{self, Times},
};

/// The results of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) format: u32,
    pub(crate) tool: &'static str,
    pub(crate) version: &'static str,
    pub(crate) scenario: &'static str,
    /// What it counts: `message`, `delivery`, `session` or `handshake`.
    pub(crate) unit: &'static str,
    pub(crate) url: String,
    pub(crate) address: String,
    pub(crate) interrupted: bool,
    pub(crate) settings: Settings,
    /// Length of the measured time.
    pub(crate) measured_s: f64,
    /// After how much of it no session was left, where that was before its end.
    pub(crate) ended_early_s: Option<f64>,
    /// The clock had nothing sent in it.
    pub(crate) nothing_was_due: bool,
    pub(crate) sessions: Sessions,
    pub(crate) messages: Option<Messages>,
    pub(crate) latency: Option<Spread>,
    pub(crate) handshake: Option<Spread>,
    pub(crate) deflate: Option<Deflate>,
    pub(crate) tls: Option<Tls>,
    pub(crate) storms: Vec<Storm>,
    pub(crate) churn: Option<Churn>,
    pub(crate) fanout: Option<FanoutReport>,
    pub(crate) errors: Errors,
    pub(crate) server: Option<Server>,
    pub(crate) session_memory: Option<SessionMemory>,
    pub(crate) generator: Generator,
    pub(crate) seconds: Vec<Second>,
    pub(crate) assertions: Vec<Checked>,
    #[serde(skip)]
    pub(crate) exact: Exact,
}

/// What assertions are held against, not rounded.
#[derive(Debug)]
pub(crate) struct Exact {
    pub(crate) latency: Times,
    pub(crate) handshake: Times,
    /// Until the first, the median and the last subscriber had a message.
    pub(crate) fan: Option<Box<[Times; 3]>>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Settings {
    pub(crate) connections: u32,
    /// Of all processes.
    pub(crate) threads: u32,
    pub(crate) processes: u32,
    pub(crate) duration_s: f64,
    pub(crate) warmup_s: f64,
    pub(crate) timeout_s: f64,
    pub(crate) pending: u32,
    /// `closed` or `open`.
    pub(crate) mode: &'static str,
    pub(crate) depth: Option<u32>,
    pub(crate) rate_per_s: Option<f64>,
    pub(crate) size_min_bytes: usize,
    pub(crate) size_max_bytes: usize,
    /// `binary`, `text` or, in `replay`, `mixed`.
    pub(crate) kind: &'static str,
    /// Where sizes come in shares.
    pub(crate) sizes: Vec<Sized>,
    /// `random` or `json`.
    pub(crate) fill: &'static str,
    pub(crate) seed: u64,
    /// `uring` or `epoll`.
    pub(crate) io: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct Sessions {
    /// That came up, over the whole run.
    pub(crate) opened: u64,
    /// That were up when the time of messages began, before the warm-up (`churn`: 0).
    pub(crate) at_start: u32,
    /// Of those, the ones that ended before the run let them.
    pub(crate) lost: u64,
    /// That ended with a Close from each side.
    pub(crate) closed: u64,
    pub(crate) pings_answered: u64,
    /// That stopped reading; only in `slow`, and in `fanout` with a share of such.
    pub(crate) slow: Option<u64>,
    /// Of these, the ones that were ended by the server.
    pub(crate) slow_ended: Option<u64>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Messages {
    /// That were due in the measured time and were answered: those that `latency` is of.
    pub(crate) answered: u64,
    /// Answers that came in the measured time, each once, and were as they must be.
    pub(crate) received: u64,
    /// `received` for each second.
    pub(crate) rate_per_s: Option<f64>,
    pub(crate) payload_bytes_per_s: Option<f64>,
}

/// Percentiles of times.
#[derive(Debug, Serialize)]
pub(crate) struct Spread {
    pub(crate) count: u64,
    pub(crate) min_us: f64,
    pub(crate) mean_us: f64,
    pub(crate) p50_us: f64,
    pub(crate) p90_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p99_9_us: f64,
    pub(crate) max_us: f64,
    /// Many more percentiles.
    pub(crate) spectrum: Vec<Step>,
}

/// A share of all messages.
#[derive(Debug, Serialize)]
pub(crate) struct Sized {
    /// From 0 to 1.
    pub(crate) share: f64,
    pub(crate) min_bytes: usize,
    pub(crate) max_bytes: usize,
}

/// permessage-deflate, where it was offered.
#[derive(Debug, Serialize)]
pub(crate) struct Deflate {
    pub(crate) offer: String,
    /// `agreed`, `declined`, `mixed`, or `unknown` where no session came up.
    pub(crate) outcome: &'static str,
    /// Sessions,
    pub(crate) agreed: u64,
    /// of them, those that deflate with what they sent before,
    pub(crate) look_back: u64,
    /// and those whose server did not take the offer.
    pub(crate) declined: u64,
    /// Sessions by the server's answer.
    pub(crate) answers: BTreeMap<String, u64>,
    pub(crate) sent: Flow,
    pub(crate) received: Flow,
}

/// One direction of what was deflated, over the whole run.
#[derive(Debug, Serialize)]
pub(crate) struct Flow {
    pub(crate) payload_bytes: u64,
    /// With the frames' headers; before TLS.
    pub(crate) wire_bytes: u64,
    /// `wire_bytes` of `payload_bytes`.
    pub(crate) ratio: Option<f64>,
}

impl Deflate {
    pub(crate) fn of(offer: &DeflateOffer, counts: &tally::Deflate) -> Self {
        let flow = |payload_bytes: u64, wire_bytes: u64| Flow {
            payload_bytes,
            wire_bytes,
            ratio: (payload_bytes > 0).then(|| wire_bytes as f64 / payload_bytes as f64),
        };
        Self {
            offer: offer.to_string(),
            outcome: match (counts.agreed, counts.declined) {
                (0, 0) => "unknown",
                (0, _) => "declined",
                (_, 0) => "agreed",
                (_, _) => "mixed",
            },
            agreed: counts.agreed,
            look_back: counts.look_back,
            declined: counts.declined,
            answers: counts.answers.clone(),
            sent: flow(counts.sent_payload_bytes, counts.sent_wire_bytes),
            received: flow(counts.received_payload_bytes, counts.received_wire_bytes),
        }
    }
}

/// TLS, where it was spoken.
#[derive(Debug, Serialize)]
pub(crate) struct Tls {
    /// Over the whole run.
    pub(crate) handshakes: u64,
    /// Of them, those that resumed an earlier session.
    pub(crate) resumed: u64,
    /// Of them, by version and cipher suite.
    pub(crate) suites: BTreeMap<String, u64>,
}

/// One time that all sessions came up together.
#[derive(Debug, Serialize)]
pub(crate) struct Storm {
    pub(crate) up: u32,
    pub(crate) failed: u32,
    /// Until the last one was up.
    pub(crate) until_up_s: f64,
    pub(crate) handshakes_per_s: f64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Churn {
    /// Sessions that were due in the measured time and came up.
    pub(crate) opened: u64,
    /// Sessions that were closed in the measured time, by a Close from each side.
    pub(crate) closed: u64,
    /// `closed` for each second.
    pub(crate) rate_per_s: Option<f64>,
}

/// What became of messages that were published. Counts are of the measured time but for `expected` and those after it.
#[derive(Debug, Serialize)]
pub(crate) struct FanoutReport {
    pub(crate) adapter: &'static str,
    pub(crate) publishers: u32,
    pub(crate) subscribers: u32,
    pub(crate) topics: u32,
    /// Messages that were due in the measured time and were sent.
    pub(crate) published: u64,
    pub(crate) published_per_s: Option<f64>,
    /// To subscribers, each once, that came in the measured time and were as they must be.
    pub(crate) deliveries: u64,
    pub(crate) deliveries_per_s: Option<f64>,
    /// Of `published`: those that all subscribers got who were there, and those that were given up.
    pub(crate) complete: u64,
    pub(crate) incomplete: u64,
    /// Of `complete`: from when it was due until so many had it.
    pub(crate) first: Option<Spread>,
    pub(crate) median: Option<Spread>,
    pub(crate) last: Option<Spread>,
    /// Deliveries to subscribers that were owed for all that was published.
    pub(crate) expected: u64,
    /// Of `expected`, those that never came, and those that the server told not to come.
    pub(crate) lost: u64,
    pub(crate) gap: u64,
    pub(crate) misnumbered: u64,
    pub(crate) duplicate: u64,
    pub(crate) reordered: u64,
    pub(crate) corrupt: u64,
    /// Deliveries to publishers: of what others published, and of what they did.
    pub(crate) to_publishers: u64,
    pub(crate) to_senders: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Errors {
    pub(crate) total: u64,
    /// All kinds.
    pub(crate) by_kind: BTreeMap<&'static str, u64>,
    /// The first reason of each kind of which there is one.
    pub(crate) reasons: BTreeMap<&'static str, String>,
    /// Refused upgrades by their status.
    pub(crate) statuses: BTreeMap<u16, u64>,
    /// The server's own Closes by their code, 1005 where there was none.
    pub(crate) close_codes: BTreeMap<u16, u64>,
}

/// All processes of the server together.
#[derive(Debug, Serialize)]
pub(crate) struct Server {
    pub(crate) processes: usize,
    /// CPU time in the measured time.
    pub(crate) cpu_s: Option<f64>,
    /// For each message; `storm`: for each handshake; `churn`: for each session.
    pub(crate) cpu_ns_per_message: Option<f64>,
    /// Beside that, of threads that ended in that time; only where it is more than a fiftieth of all.
    pub(crate) ended_threads_cpu_s: Option<f64>,
    /// Cores in use.
    pub(crate) cores: Option<f64>,
    /// Of the busiest thread, from 0 to 1.
    pub(crate) busiest_thread: Option<f64>,
    /// Anonymous memory before the first session,
    pub(crate) memory_before_bytes: Option<u64>,
    /// when all were up,
    pub(crate) memory_up_bytes: Option<u64>,
    /// at the most, as seen each second,
    pub(crate) memory_most_bytes: Option<u64>,
    /// at the end of the measured time.
    pub(crate) memory_end_bytes: Option<u64>,
}

/// What a session costs: slopes over the points.
#[derive(Debug, Serialize)]
pub(crate) struct SessionMemory {
    /// Of the server's anonymous memory.
    pub(crate) user_bytes: Option<f64>,
    /// Of all slabs of this machine's kernel, both ends of a session included.
    pub(crate) kernel_bytes: Option<f64>,
    pub(crate) points: Vec<Point>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Point {
    pub(crate) sessions: u32,
    pub(crate) user_bytes: Option<u64>,
    pub(crate) kernel_bytes: Option<u64>,
}

/// This program.
#[derive(Debug, Serialize)]
pub(crate) struct Generator {
    pub(crate) cpu_s: Option<f64>,
    pub(crate) cpu_ns_per_message: Option<f64>,
    /// From 0 to 1.
    pub(crate) busiest_thread: Option<f64>,
    /// Of the thread that ran or waited for a processor most, both together.
    pub(crate) busiest_thread_with_waits: Option<f64>,
    /// That is 90 % or more, and no thread of the server ran or waited for as much.
    pub(crate) was_the_limit: bool,
    pub(crate) system_calls_per_message: Option<f64>,
    /// Open loop: from when a message was due to when it was handed to the kernel.
    pub(crate) lag: Option<Spread>,
    pub(crate) memory_bytes: Option<u64>,
}

/// One second of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Second {
    /// Since the run began.
    pub(crate) at_s: u64,
    /// `connecting`, `warm-up`, `measuring`, `holding`, `draining` or `closing`.
    pub(crate) phase: &'static str,
    pub(crate) open: u32,
    pub(crate) pending: u32,
    pub(crate) handshakes: u64,
    pub(crate) messages: u64,
    pub(crate) errors: u64,
    pub(crate) p50_us: Option<f64>,
    pub(crate) p99_us: Option<f64>,
    pub(crate) max_us: Option<f64>,
    pub(crate) server_cores: Option<f64>,
    pub(crate) server_memory_bytes: Option<u64>,
}

/// An assertion, held against the results.
#[derive(Debug, Serialize)]
pub(crate) struct Checked {
    pub(crate) condition: String,
    pub(crate) holds: bool,
    /// In nanoseconds, bytes, or a count.
    pub(crate) value: Option<f64>,
    /// For people.
    pub(crate) shown: String,
}

impl Spread {
    /// `None` where there is nothing to tell of.
    pub(crate) fn of(times: &Times) -> Option<Self> {
        let us = |percentile| Some(times.percentile_ns(percentile)? / 1e3);
        Some(Self {
            count: times.count(),
            min_us: us(0.0)?,
            mean_us: times.mean_ns()? / 1e3,
            p50_us: us(50.0)?,
            p90_us: us(90.0)?,
            p99_us: us(99.0)?,
            p99_9_us: us(99.9)?,
            max_us: us(100.0)?,
            spectrum: spectrum(times),
        })
    }
}

/// Of fewer sessions none can be told apart from what a page more or less makes.
pub(crate) const LEAST_SESSIONS: u32 = 100;

impl SessionMemory {
    pub(crate) fn of(points: Vec<Point>) -> Option<Self> {
        let line = |value: fn(&Point) -> Option<u64>| {
            let pairs = points.iter().filter_map(|point| Some((point.sessions, value(point)?)));
            Line::through(&pairs.map(|(x, y)| (f64::from(x), y as f64)).collect::<Vec<_>>())
        };
        let most = points.iter().map(|point| point.sessions).max().unwrap_or(0);
        let is_enough = most >= LEAST_SESSIONS;
        let user_bytes = line(|point| point.user_bytes).filter(|_| is_enough).map(|line| line.slope);
        // Whatever else this machine does is in it.
        let kernel_bytes = line(|point| point.kernel_bytes).filter(|line| is_enough && !line.is_noise());
        let kernel_bytes = kernel_bytes.map(|line| line.slope);
        (!points.is_empty()).then_some(Self { user_bytes, kernel_bytes, points })
    }
}

/// The line that lies closest to some points (least squares).
#[derive(Debug, PartialEq)]
struct Line {
    slope: f64,
    /// The standard error of the slope.
    error: f64,
}

impl Line {
    fn through(points: &[(f64, f64)]) -> Option<Self> {
        let count = points.len() as f64;
        let (sum_x, sum_y) = points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
        let (mean_x, mean_y) = (sum_x / count, sum_y / count);
        let spread: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
        let common: f64 = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
        if spread <= 0.0 {
            return None;
        }
        let slope = common / spread;
        let beside: f64 = points.iter().map(|(x, y)| (y - mean_y - slope * (x - mean_x)).powi(2)).sum();
        // Through two points it goes exactly, whatever they are.
        let error = if count > 2.0 { (beside / (count - 2.0) / spread).sqrt() } else { 0.0 };
        Some(Self { slope, error })
    }

    /// Whether it may as well be level: less than twice its standard error from that.
    fn is_noise(&self) -> bool {
        self.slope.abs() < 2.0 * self.error
    }
}

impl Report {
    /// The value of a metric; `None` where it was not measured.
    pub(crate) fn value(&self, metric: Metric) -> Option<f64> {
        match metric {
            // Nobody was there to be sent to for all of the time, or nothing was sent.
            Metric::Rate | Metric::DeliveriesRate if self.ended_early_s.is_some() || self.nothing_was_due => {
                None
            }
            Metric::Errors | Metric::Kind(_) if self.nothing_was_due => None,
            Metric::Latency(percentile) => self.exact.latency.percentile_ns(percentile),
            Metric::LatencyMean => self.exact.latency.mean_ns(),
            Metric::Fan(reach, percentile) => {
                self.exact.fan.as_ref()?[reach as usize].percentile_ns(percentile)
            }
            Metric::DeliveriesRate => self.fanout.as_ref()?.deliveries_per_s,
            Metric::Handshake(percentile) => self.exact.handshake.percentile_ns(percentile),
            Metric::Rate => self.rate(),
            Metric::Messages => Some(self.messages.as_ref()?.answered as f64),
            Metric::Sessions => Some(self.sessions.opened as f64),
            Metric::Errors => Some(self.errors.total as f64),
            Metric::Kind(fault) => Some(self.errors.count(fault) as f64),
            Metric::ServerCpu => self.server.as_ref()?.cpu_ns_per_message,
            Metric::ServerMemory => Some(self.server.as_ref()?.memory_most_bytes? as f64),
            Metric::SessionMemory => self.session_memory.as_ref()?.user_bytes,
            // Where some did not come up, there is no such time.
            Metric::AllUp => {
                let all_up = !self.storms.is_empty() && self.storms.iter().all(|storm| storm.failed == 0);
                let longest = self.storms.iter().map(|storm| storm.until_up_s * 1e9);
                all_up.then(|| longest.fold(0.0, f64::max))
            }
        }
    }

    /// What the scenario counts, for each second; the least of several storms.
    fn rate(&self) -> Option<f64> {
        if let Some(churn) = &self.churn {
            return churn.rate_per_s;
        }
        if let Some(messages) = &self.messages {
            return messages.rate_per_s;
        }
        self.storms.iter().map(|storm| storm.handshakes_per_s).reduce(f64::min)
    }
}

impl Errors {
    pub(crate) fn count(&self, fault: Fault) -> u64 {
        self.by_kind.get(fault.name()).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slope_is_what_one_more_costs() {
        let slope = |points: &[(f64, f64)]| Line::through(points).map(|line| line.slope);
        assert_eq!(slope(&[(1.0, 10.0), (2.0, 12.0), (3.0, 14.0)]), Some(2.0));
        assert_eq!((slope(&[(1.0, 10.0)]), slope(&[])), (None, None));
        let point = |sessions, bytes| Point { sessions, user_bytes: Some(bytes), kernel_bytes: None };
        let memory = SessionMemory::of(vec![point(250, 1000), point(500, 11_000)]).unwrap();
        assert_eq!((memory.user_bytes, memory.kernel_bytes), (Some(40.0), None));
        assert!(SessionMemory::of(Vec::new()).is_none());
    }

    #[test]
    fn what_is_within_the_noise_or_of_few_sessions_is_not_measured() {
        let memory = |sessions: u32, kernel: [i64; 4]| {
            let points = (1..=4).zip(kernel).map(|(quarter, more)| {
                let sessions = sessions / 4 * quarter;
                let bytes = u64::from(sessions) * 1000 + 10_000_000;
                let kernel_bytes = Some(bytes.saturating_add_signed(more));
                Point { sessions, user_bytes: Some(bytes), kernel_bytes }
            });
            let memory = SessionMemory::of(points.collect()).unwrap();
            assert_eq!(memory.points.len(), 4);
            (memory.user_bytes, memory.kernel_bytes)
        };
        assert_eq!(memory(20, [0; 4]), (None, None));
        assert_eq!(memory(400, [0; 4]), (Some(1000.0), Some(1000.0)));
        assert_eq!(memory(400, [900_000, -900_000, 900_000, -900_000]), (Some(1000.0), None));
        // So many that it matters no more.
        assert!(memory(16_000, [90_000, -90_000, 90_000, -90_000]).1.is_some());
    }
}
