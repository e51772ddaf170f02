//! `--assert 'p99<5ms'`: what must hold at the end of a run.

use std::fmt;

use crate::{
    fault::Fault,
    relation::{Relation, Unit},
};

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Metric {
    /// A percentile of messages' latencies, 100 the greatest.
    Latency(f64),
    /// Their mean.
    LatencyMean,
    /// A percentile of the times that handshakes took.
    Handshake(f64),
    /// A percentile of the times until a message had reached so many.
    Fan(Reach, f64),
    /// Deliveries for each second; only in `fanout`.
    DeliveriesRate,
    /// Messages for each second; sessions in `churn`, handshakes in `storm`.
    Rate,
    /// Messages that were due in the measured time and were answered.
    Messages,
    /// Sessions that came up.
    Sessions,
    /// Errors of all kinds.
    Errors,
    /// Errors of one kind.
    Kind(Fault),
    /// The servers' CPU time for each message.
    ServerCpu,
    /// The most memory that the servers had.
    ServerMemory,
    /// What memory of the servers a session took.
    SessionMemory,
    /// The time until all sessions were up.
    AllUp,
}

/// Whom a message has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    First,
    Median,
    Last,
}

/// A metric, a relation, a bound.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Assertion {
    /// As it was given.
    text: String,
    pub(crate) metric: Metric,
    relation: Relation,
    /// In the metric's unit.
    bound: f64,
}

impl Metric {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "min" => Self::Latency(0.0),
            "max" => Self::Latency(100.0),
            "mean" => Self::LatencyMean,
            "handshake_max" => Self::Handshake(100.0),
            "rate" => Self::Rate,
            "messages" => Self::Messages,
            "sessions" => Self::Sessions,
            "errors" => Self::Errors,
            "server_cpu" => Self::ServerCpu,
            "server_memory" => Self::ServerMemory,
            "session_memory" => Self::SessionMemory,
            "all_up" => Self::AllUp,
            "deliveries_rate" => Self::DeliveriesRate,
            _ => {
                let percentile = |text: &str| {
                    let number = text.strip_prefix('p')?.parse::<f64>().ok()?;
                    (0.0..=100.0).contains(&number).then_some(number)
                };
                if let Some(number) = name.strip_prefix("handshake_").and_then(percentile) {
                    Self::Handshake(number)
                } else if let Some((reach, number)) = fan(name, percentile) {
                    Self::Fan(reach, number)
                } else if let Some(number) = percentile(name) {
                    Self::Latency(number)
                } else {
                    Self::Kind(Fault::ALL.into_iter().find(|fault| fault.name() == name)?)
                }
            }
        })
    }

    fn unit(self) -> Unit {
        match self {
            Self::Latency(_)
            | Self::LatencyMean
            | Self::Handshake(_)
            | Self::Fan(..)
            | Self::ServerCpu
            | Self::AllUp => Unit::Time,
            Self::ServerMemory | Self::SessionMemory => Unit::Bytes,
            Self::Rate
            | Self::DeliveriesRate
            | Self::Messages
            | Self::Sessions
            | Self::Errors
            | Self::Kind(_) => Unit::Count,
        }
    }
}

/// `first_p99`, `median_max`, and so on.
fn fan(name: &str, percentile: impl Fn(&str) -> Option<f64>) -> Option<(Reach, f64)> {
    let (reach, rest) = name.split_once('_')?;
    let reach = match reach {
        "first" => Reach::First,
        "median" => Reach::Median,
        "last" => Reach::Last,
        _ => return None,
    };
    Some((reach, if rest == "max" { 100.0 } else { percentile(rest)? }))
}

impl Assertion {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let at = text.find(['<', '>', '=']).ok_or("an assertion is like p99<5ms, rate>=10k, errors=0")?;
        let (name, rest) = text.split_at(at);
        let (relation, bound) =
            Relation::split(rest).ok_or("an assertion compares with <, <=, >, >= or =")?;
        let (name, bound) = (name.trim(), bound.trim());
        let metric = Metric::parse(name).ok_or_else(|| {
            let names = "p50 p90 p99 p99.9 (any percentile), min, mean, max, rate, messages, sessions, \
                         handshake_p99 (any percentile), handshake_max, first_p99, median_p99, last_p99 (any \
                         percentile, or max), deliveries_rate, all_up, server_cpu, server_memory, \
                         session_memory, errors, or a kind of error";
            format!("there is no metric {name:?}: {names}")
        })?;
        let bound = metric.unit().parse(bound).map_err(|error| format!("{text:?}: {error}"))?;
        Ok(Self { text: text.to_owned(), metric, relation, bound })
    }

    /// Whether it holds for this value. For none it does not: what was not measured is not shown to be good.
    pub(crate) fn holds(&self, value: Option<f64>) -> bool {
        value.is_some_and(|value| self.relation.holds(value, self.bound))
    }

    /// A value of its metric, for people.
    pub(crate) fn show(&self, value: Option<f64>) -> String {
        value.map_or_else(|| "not measured".to_owned(), |value| self.metric.unit().show(value))
    }
}

impl fmt::Display for Assertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assertion_compares_in_its_metrics_unit() {
        for (text, holds, fails) in [
            ("p99<5ms", 4_999_999.0, 5_000_000.0),
            ("p99.9 <= 5us", 5_000.0, 5_001.0),
            ("rate>=10k", 10_000.0, 9_999.0),
            ("rate>0", 1.0, 0.0),
            ("errors=0", 0.0, 1.0),
            ("lost==2", 2.0, 3.0),
            ("session_memory<1KiB", 1023.0, 1024.0),
            ("handshake_p50<1s", 1.0, 1e9),
            ("max<1s", 1.0, 1e9),
            ("last_p99<5ms", 4_999_999.0, 5_000_000.0),
            ("first_max<5ms", 4_999_999.0, 5_000_000.0),
            ("deliveries_rate>=1M", 1e6, 999_999.0),
            ("messages>=200M", 2e8, 1.99e8),
        ] {
            let assertion = Assertion::parse(text).unwrap();
            assert!(assertion.holds(Some(holds)) && !assertion.holds(Some(fails)), "{text}");
            assert!(!assertion.holds(None), "{text}");
        }
    }

    #[test]
    fn what_is_no_assertion_is_refused() {
        for text in [
            "p99",
            "p101<1ms",
            "p99<5",
            "p99<5kg",
            "speed>1",
            "fast_p99<1ms",
            "last_x<1ms",
            "errors<x",
            "=1",
            "p99<",
        ] {
            assert!(Assertion::parse(text).is_err(), "{text}");
        }
    }
}
