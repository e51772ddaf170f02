//! What servers are compared by, and where a run's report has it.

use serde_json::Value;

use crate::{relation::Unit, units::show_count};

/// One figure of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Metric {
    /// The server's CPU time for each message.
    Cpu,
    /// Messages for each second; sessions in `churn`, handshakes in `storm`.
    Throughput,
    P50,
    P99,
    P999,
    /// The most memory that the server had.
    Memory,
    /// What it had before the first session.
    EmptyMemory,
    /// What a session took of it.
    SessionMemory,
    /// What a session took of the kernel's.
    KernelMemory,
    /// The load's own CPU time for each message.
    GeneratorCpu,
    /// That by the server's.
    LoadCpu,
}

impl Metric {
    /// In the order in which they are shown.
    pub(crate) const ALL: [Self; 11] = [
        Self::Cpu,
        Self::Throughput,
        Self::P50,
        Self::P99,
        Self::P999,
        Self::SessionMemory,
        Self::KernelMemory,
        Self::EmptyMemory,
        Self::Memory,
        Self::GeneratorCpu,
        Self::LoadCpu,
    ];

    /// As bars and JSON have it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Throughput => "throughput",
            Self::P50 => "p50",
            Self::P99 => "p99",
            Self::P999 => "p99.9",
            Self::Memory => "memory",
            Self::EmptyMemory => "empty_memory",
            Self::SessionMemory => "session_memory",
            Self::KernelMemory => "kernel_memory",
            Self::GeneratorCpu => "generator_cpu",
            Self::LoadCpu => "load_cpu",
        }
    }

    /// Over its column.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Cpu => "CPU each",
            Self::Throughput => "each second",
            Self::P50 => "p50",
            Self::P99 => "p99",
            Self::P999 => "p99.9",
            Self::Memory => "most memory",
            Self::EmptyMemory => "empty",
            Self::SessionMemory => "a session",
            Self::KernelMemory => "in the kernel",
            Self::GeneratorCpu => "load's CPU",
            Self::LoadCpu => "by the server's",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.name() == name)
    }

    /// Of a report; times in nanoseconds. `None` where it was not measured.
    pub(crate) fn of(self, report: &Value) -> Option<f64> {
        let at = |pointer: &str| report.pointer(pointer)?.as_f64();
        let us = |pointer: &str| at(pointer).map(|us| us * 1e3);
        match self {
            Self::Cpu => at("/server/cpu_ns_per_message"),
            // What a scenario counts, if it counts something beside messages.
            Self::Throughput => {
                at("/churn/rate_per_s").or_else(|| at("/messages/rate_per_s")).or_else(|| {
                    let storms = report.get("storms")?.as_array()?.iter();
                    storms.filter_map(|storm| storm.get("handshakes_per_s")?.as_f64()).reduce(f64::min)
                })
            }
            Self::P50 => us("/latency/p50_us"),
            Self::P99 => us("/latency/p99_us"),
            Self::P999 => us("/latency/p99_9_us"),
            Self::Memory => at("/server/memory_most_bytes"),
            Self::EmptyMemory => at("/server/memory_before_bytes"),
            Self::SessionMemory => at("/session_memory/user_bytes"),
            Self::KernelMemory => at("/session_memory/kernel_bytes"),
            Self::GeneratorCpu => at("/generator/cpu_ns_per_message"),
            Self::LoadCpu => {
                let server = Self::Cpu.of(report).filter(|ns| *ns > 0.0)?;
                Some(Self::GeneratorCpu.of(report)? / server)
            }
        }
    }

    /// What a value must be above to be what others are measured by. A slope of memory over thousands of sessions is
    /// one page more or less, so some bytes for each of them.
    pub(crate) const fn floor(self) -> f64 {
        match self {
            Self::SessionMemory | Self::KernelMemory => 16.0,
            Self::Cpu
            | Self::Throughput
            | Self::P50
            | Self::P99
            | Self::P999
            | Self::Memory
            | Self::EmptyMemory
            | Self::GeneratorCpu
            | Self::LoadCpu => 0.0,
        }
    }

    /// Whether it is the load's as well as the server's, where the load is at its limit.
    pub(crate) const fn is_of_speed(self) -> bool {
        match self {
            Self::Throughput | Self::P50 | Self::P99 | Self::P999 => true,
            Self::Cpu
            | Self::SessionMemory
            | Self::KernelMemory
            | Self::Memory
            | Self::EmptyMemory
            | Self::GeneratorCpu
            | Self::LoadCpu => false,
        }
    }

    pub(crate) const fn unit(self) -> Unit {
        match self {
            Self::Cpu | Self::P50 | Self::P99 | Self::P999 | Self::GeneratorCpu => Unit::Time,
            Self::Memory | Self::EmptyMemory | Self::SessionMemory | Self::KernelMemory => Unit::Bytes,
            Self::Throughput | Self::LoadCpu => Unit::Count,
        }
    }

    /// For people.
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            // Not rounded to three digits: costs are compared by their fourth.
            Self::Cpu | Self::GeneratorCpu if value < 1e6 => format!("{} ns", show_count(value.round())),
            Self::LoadCpu => format!("{value:.3}"),
            Self::Cpu
            | Self::GeneratorCpu
            | Self::P50
            | Self::P99
            | Self::P999
            | Self::Throughput
            | Self::Memory
            | Self::EmptyMemory
            | Self::SessionMemory
            | Self::KernelMemory => self.unit().show(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_each_where_it_is_looked_for() {
        let report = serde_json::json!({
            "server": {"cpu_ns_per_message": 4000.0, "memory_most_bytes": 9, "memory_before_bytes": 8},
            "messages": {"rate_per_s": 7.0},
            "latency": {"p50_us": 1.0, "p99_us": 2.0, "p99_9_us": 3.0},
            "session_memory": {"user_bytes": 5.5, "kernel_bytes": null},
            "generator": {"cpu_ns_per_message": 1.0},
            "storms": [], "churn": null,
        });
        let values = Metric::ALL.map(|metric| metric.of(&report));
        let expected = [4000.0, 7.0, 1e3, 2e3, 3e3, 5.5, f64::NAN, 8.0, 9.0, 1.0, 1.0 / 4000.0];
        for (value, expected) in values.into_iter().zip(expected) {
            assert_eq!(value, Some(expected).filter(|expected| !expected.is_nan()));
        }
        let storms = serde_json::json!({"storms": [{"handshakes_per_s": 3.0}, {"handshakes_per_s": 2.0}]});
        assert_eq!(Metric::Throughput.of(&storms), Some(2.0));
    }

    #[test]
    fn names_lead_back() {
        for metric in Metric::ALL {
            assert_eq!(Metric::parse(metric.name()), Some(metric));
        }
        assert_eq!(Metric::parse("speed"), None);
    }
}
