//! The report of a run that is over.

use tidegate_wire::message::Kind;

use super::Director;
use crate::{
    payload::Fill,
    plan::{Load, Plan, Scenario},
    report::{
        Checked, Churn, Deflate, Errors, Exact, Generator, Messages, Report, Server, SessionMemory, Sessions,
        Settings, Sized, Spread, Tls,
    },
};

/// A thread that runs, or would run had it a processor of its own, for at least this much of the time is at its limit.
const BUSY: f64 = 0.9;
/// Of a run that was interrupted, the shortest time that tells a rate.
const LEAST_NS: f64 = 10e6;

impl Director {
    pub(super) fn report(mut self) -> Report {
        self.settle_fanout();
        let plan = &*self.plan;
        let counts = &self.tally.counts;
        // Messages count by the clock of the workers, CPU time and memory when the director came to look.
        let sampled_ns = self.end.at_ns.saturating_sub(self.start.at_ns) as f64;
        let measured_ns = self.measured_ns(sampled_ns);
        let each_s = |count: u64| (measured_ns > 0.0).then(|| count as f64 / measured_ns * 1e9);
        let has_messages = !matches!(plan.scenario, Scenario::Idle | Scenario::Storm { .. });
        let messages = has_messages.then(|| Messages {
            answered: counts.answered,
            received: counts.in_window,
            rate_per_s: each_s(counts.in_window),
            payload_bytes_per_s: each_s(counts.bytes_in_window),
        });
        let churn = matches!(plan.scenario, Scenario::Churn { .. }).then(|| Churn {
            opened: counts.opened_in_window,
            closed: counts.closed_in_window,
            rate_per_s: each_s(counts.closed_in_window),
        });
        let units = match plan.scenario {
            Scenario::Echo | Scenario::Slow { .. } | Scenario::Fanout(_) | Scenario::Replay => {
                counts.in_window
            }
            Scenario::Churn { .. } => counts.closed_in_window,
            Scenario::Storm { .. } => self.storms.iter().map(|storm| u64::from(storm.up)).sum(),
            Scenario::Idle => 0,
        };
        let per_unit = |ns: f64| (units > 0 && measured_ns > 0.0).then(|| ns / units as f64);
        // All that was sampled is of these messages where answers are waited for, or nothing came behind it.
        let is_all = plan.waits_for_answers() || self.deserted_ns.is_some();
        let scale = if sampled_ns > 0.0 && !is_all { measured_ns / sampled_ns } else { 1.0 };
        let generator = self.generator(measured_ns, scale, per_unit);
        let server = self.server(measured_ns, scale, per_unit);
        let is_slow = plan.scenario.has_slow();
        let is_churn = matches!(plan.scenario, Scenario::Churn { .. });
        // Those were not among the ones that were up at the start.
        let lost_before: u64 = self.crew.iter().map(|crew| crew.lost).sum();
        let sessions = Sessions {
            opened: counts.opened,
            at_start: self.at_start,
            lost: if is_churn || self.at_start == 0 { 0 } else { counts.lost.saturating_sub(lost_before) },
            closed: counts.closed,
            pings_answered: counts.pings,
            slow: is_slow.then_some(counts.slow),
            slow_ended: is_slow.then_some(counts.slow_ended),
        };
        let mut report = Report {
            format: 1,
            tool: "tidegate-loadtest",
            version: env!("CARGO_PKG_VERSION"),
            scenario: plan.scenario.name(),
            unit: plan.scenario.unit(),
            url: plan.target.to_string(),
            address: plan.address.to_string(),
            interrupted: self.is_cut_short(),
            settings: settings(plan, self.kind),
            measured_s: measured_ns / 1e9,
            ended_early_s: self.deserted_ns.map(|ns| ns as f64 / 1e9),
            nothing_was_due: self.was_nothing_due(),
            sessions,
            messages,
            latency: Spread::of(&self.tally.latency),
            handshake: Spread::of(&self.tally.handshake),
            deflate: plan.deflate.as_ref().map(|offer| Deflate::of(offer, &counts.deflate)),
            tls: plan.tls.as_ref().map(|_| Tls {
                handshakes: counts.tls.values().sum(),
                resumed: counts.tls_resumed,
                suites: counts.tls.clone(),
            }),
            storms: self.storms,
            churn,
            fanout: plan.scenario.fanout().map(|fanout| super::fanout::report(&fanout, &self.tally, each_s)),
            errors: Errors {
                total: counts.faults.total(),
                by_kind: counts.faults.all().map(|(fault, count)| (fault.name(), count)).collect(),
                // The first of each kind stays.
                reasons: self.reasons.into_iter().rev().map(|(fault, why)| (fault.name(), why)).collect(),
                statuses: counts.statuses.clone(),
                close_codes: counts.close_codes.clone(),
            },
            server,
            session_memory: SessionMemory::of(self.points),
            generator,
            seconds: Vec::new(),
            assertions: Vec::new(),
            exact: Exact {
                fan: self.tally.fan.times,
                latency: self.tally.latency,
                handshake: self.tally.handshake,
            },
        };
        report.seconds = self.seconds.all();
        if let Some(server) = &mut report.server {
            let seen = report.seconds.iter().filter_map(|second| second.server_memory_bytes);
            let known = [server.memory_before_bytes, server.memory_up_bytes, server.memory_end_bytes];
            server.memory_most_bytes = seen.chain(known.into_iter().flatten()).max();
        }
        report.assertions = plan
            .assertions
            .iter()
            .map(|assertion| {
                let value = report.value(assertion.metric);
                Checked {
                    condition: assertion.to_string(),
                    holds: assertion.holds(value),
                    value,
                    shown: assertion.show(value),
                }
            })
            .collect();
        report
    }

    /// The length of the measured time; 0 where it is too short to tell anything.
    fn measured_ns(&self, sampled_ns: f64) -> f64 {
        let Some(window) = self.window else { return sampled_ns };
        let until_ns = match self.plan.waits_for_answers() {
            true => window.until_ns.max(self.tally.counts.settled_ns),
            false => window.until_ns,
        };
        let measured_ns = until_ns.saturating_sub(window.from_ns) as f64;
        if self.is_cut_short() && measured_ns < LEAST_NS { 0.0 } else { measured_ns }
    }

    /// Whether the clock had nothing sent in the measured time: what is sent is answered, or an error.
    fn was_nothing_due(&self) -> bool {
        let counts = &self.tally.counts;
        if self.plan.load == Load::Closed || self.is_cut_short() || counts.faults.total() > 0 {
            return false;
        }
        match self.plan.scenario {
            Scenario::Echo | Scenario::Slow { .. } | Scenario::Replay => {
                counts.answered == 0 && counts.in_window == 0
            }
            Scenario::Churn { .. } => counts.opened_in_window == 0 && counts.closed_in_window == 0,
            Scenario::Fanout(_) => self.tally.fan.counts.published_in_window == 0,
            Scenario::Idle | Scenario::Storm { .. } => false,
        }
    }

    /// `scale`: by what CPU time that was sampled is that of the measured time.
    fn server(&self, measured_ns: f64, scale: f64, per_unit: impl Fn(f64) -> Option<f64>) -> Option<Server> {
        if self.plan.pids.is_empty() {
            return None;
        }
        let processes = self.plan.pids.len();
        let cpu = self.end.server.cpu_since(&self.start.server);
        let scaled = |ns: u64| ns as f64 * scale;
        let share = |ns: u64| (measured_ns > 0.0).then(|| scaled(ns) / measured_ns);
        Some(Server {
            processes,
            cpu_s: cpu.map(|cpu| scaled(cpu.all_ns) / 1e9),
            cpu_ns_per_message: cpu.and_then(|cpu| per_unit(scaled(cpu.all_ns))),
            ended_threads_cpu_s: cpu.and_then(|cpu| Some(scaled(cpu.not_counted_ns(processes)?) / 1e9)),
            cores: cpu.and_then(|cpu| share(cpu.all_ns)),
            busiest_thread: cpu.and_then(|cpu| share(cpu.busiest_ns)),
            memory_before_bytes: self.before.memory_bytes,
            memory_up_bytes: self.up.memory_bytes,
            memory_most_bytes: None,
            memory_end_bytes: self.end.server.memory_bytes,
        })
    }

    fn generator(&self, measured_ns: f64, scale: f64, per_unit: impl Fn(f64) -> Option<f64>) -> Generator {
        let cpu = self.end.generator.since(&self.start.generator);
        let is_measured = measured_ns > 0.0;
        let scaled = |ns: u64| ns as f64 * scale;
        let share = |ns: u64| if is_measured { scaled(ns) / measured_ns } else { 0.0 };
        let server = self.end.server.cpu_since(&self.start.server);
        let server_is_busy = server.is_some_and(|server| share(server.keenest_ns) >= BUSY);
        let calls = self.tally.counts.system_calls;
        Generator {
            cpu_s: is_measured.then_some(scaled(cpu.all_ns) / 1e9),
            cpu_ns_per_message: per_unit(scaled(cpu.all_ns)),
            busiest_thread: is_measured.then(|| share(cpu.busiest_ns)),
            busiest_thread_with_waits: is_measured.then(|| share(cpu.keenest_ns)),
            // Of a run without sessions it was not.
            was_the_limit: share(cpu.keenest_ns) >= BUSY && !server_is_busy && self.deserted_ns.is_none(),
            system_calls_per_message: per_unit(calls as f64).filter(|_| calls > 0),
            lag: Spread::of(&self.tally.lag),
            memory_bytes: self.memory_bytes,
        }
    }
}

fn settings(plan: &Plan, io: tidegate_io::Kind) -> Settings {
    let (mode, rate_per_s) = match plan.load {
        Load::Closed => ("closed", None),
        Load::Open { rate } => ("open", Some(rate)),
    };
    let has_depth = plan.load == Load::Closed || matches!(plan.scenario, Scenario::Churn { .. });
    Settings {
        connections: plan.connections,
        threads: plan.threads,
        processes: plan.processes,
        duration_s: plan.duration.as_secs_f64(),
        warmup_s: plan.warmup.as_secs_f64(),
        timeout_s: plan.timeout.as_secs_f64(),
        pending: plan.pending,
        mode,
        depth: has_depth.then_some(plan.depth),
        rate_per_s,
        size_min_bytes: plan.sizes.min,
        size_max_bytes: plan.sizes.max,
        kind: match plan.trace.as_ref().map_or(Some(plan.kind), |trace| trace.kind()) {
            Some(Kind::Text) => "text",
            Some(Kind::Binary) => "binary",
            None => "mixed",
        },
        sizes: (plan.shares.iter())
            .map(|share| Sized {
                share: share.weight,
                min_bytes: share.sizes.min,
                max_bytes: share.sizes.max,
            })
            .collect(),
        fill: match plan.fill {
            Fill::Random => "random",
            Fill::Json => "json",
        },
        seed: plan.seed,
        io: io.to_string(),
    }
}
