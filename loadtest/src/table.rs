//! The results for people, on standard output.

use std::fmt::Write;

use crate::{
    report::{FanoutReport, LEAST_SESSIONS, Report, Spread},
    tone::Tone,
    units::{show_bytes, show_count, show_ns},
};

/// Writes the results of a run.
#[derive(Debug)]
pub(crate) struct Table {
    text: String,
    has_colours: bool,
}

impl Table {
    /// The whole table, with a line end at its end.
    pub(crate) fn of(report: &Report, has_colours: bool) -> String {
        let mut table = Self { text: String::new(), has_colours };
        table.title(report);
        table.sessions(report);
        table.messages(report);
        table.errors(report);
        table.shortfall(report);
        table.server(report);
        table.generator(report);
        table.assertions(report);
        table.text
    }

    fn title(&mut self, report: &Report) {
        let settings = &report.settings;
        let mut what = format!("{} {}", report.scenario, report.url);
        self.tone(Tone::Bold, &mut what);
        let mut how =
            format!("{} sessions, {} threads", show_count(f64::from(settings.connections)), settings.threads);
        if settings.threads == 1 {
            how.pop();
        }
        if settings.processes > 1 {
            let _ = write!(how, " in {} processes", settings.processes);
        }
        if report.messages.is_some() {
            let (min, max) = (settings.size_min_bytes as f64, settings.size_max_bytes as f64);
            let size = if min == max {
                show_bytes(min)
            } else {
                format!("{} to {}", show_bytes(min), show_bytes(max))
            };
            let _ = write!(how, ", {size} {}", settings.kind);
            if !settings.sizes.is_empty() {
                let _ = write!(how, " in {} shares", settings.sizes.len());
            }
        }
        if let Some(rate) = settings.rate_per_s {
            let _ = write!(how, ", open loop at {}/s", show_count(rate));
        } else if let (Some(depth), true) = (settings.depth, report.messages.is_some()) {
            let _ = write!(how, ", closed loop, {depth} under way");
        }
        let _ = write!(how, ", {:.1} s, {}", report.measured_s, settings.io);
        if report.interrupted {
            how += " (interrupted)";
        }
        let _ = writeln!(self.text, "\n{what}\n  {how}\n");
    }

    fn sessions(&mut self, report: &Report) {
        let sessions = &report.sessions;
        let mut text = format!("{} came up", show_count(sessions.opened as f64));
        if sessions.lost > 0 {
            let _ = write!(text, ", {} lost", show_count(sessions.lost as f64));
        }
        let _ = write!(text, ", {} closed in order", show_count(sessions.closed as f64));
        if sessions.pings_answered > 0 {
            let _ = write!(text, ", {} pings answered", show_count(sessions.pings_answered as f64));
        }
        if let (Some(slow), Some(ended)) = (sessions.slow, sessions.slow_ended) {
            let (slow, ended) = (show_count(slow as f64), show_count(ended as f64));
            let _ = write!(text, "; {slow} stopped reading, of which the server ended {ended}");
        }
        self.row("sessions", &text);
        for storm in &report.storms {
            let mut text = format!(
                "{}/s: {} up in {}",
                show_count(storm.handshakes_per_s),
                show_count(f64::from(storm.up)),
                show_ns(storm.until_up_s * 1e9)
            );
            if storm.failed > 0 {
                let _ = write!(text, ", {} not", show_count(f64::from(storm.failed)));
            }
            self.row("storm", &text);
        }
        if let Some(churn) = &report.churn {
            let rate = churn
                .rate_per_s
                .map_or("rate not measured".into(), |rate| format!("{} sessions/s", show_count(rate)));
            self.row("churn", &format!("{rate}, {} closed", show_count(churn.closed as f64)));
        }
        self.spread("handshake", report.handshake.as_ref());
        if let Some(deflate) = &report.deflate {
            let mut text = deflate.outcome.to_owned();
            if deflate.outcome == "declined" {
                text += " by the server: all was sent as it is";
                self.tone(Tone::Warning, &mut text);
            }
            for (answer, count) in &deflate.answers {
                let _ = write!(text, ", {} with {answer}", show_count(*count as f64));
            }
            for (name, flow) in [("sent", &deflate.sent), ("received", &deflate.received)] {
                if let Some(ratio) = flow.ratio {
                    let bytes = show_bytes(flow.wire_bytes as f64);
                    let _ = write!(text, "; {name} {bytes}, {:.0} % of the payload", ratio * 100.0);
                }
            }
            self.row("deflate", &text);
        }
        if let Some(tls) = &report.tls {
            let mut text = format!(
                "{} handshakes, {} of them resumed",
                show_count(tls.handshakes as f64),
                show_count(tls.resumed as f64)
            );
            for suite in tls.suites.keys() {
                let _ = write!(text, ", {suite}");
            }
            self.row("TLS", &text);
        }
    }

    fn messages(&mut self, report: &Report) {
        if let Some(messages) = &report.messages {
            let received = show_count(messages.received as f64);
            let text = match (messages.rate_per_s, messages.payload_bytes_per_s) {
                (Some(rate), Some(bytes)) => {
                    format!("{}/s, {received} in all, {}/s of payload", show_count(rate), show_bytes(bytes))
                }
                (None, _) | (_, None) => format!("rate not measured, {received} in all"),
            };
            self.row("messages", &text);
        }
        self.spread("latency", report.latency.as_ref());
        if let Some(fanout) = &report.fanout {
            self.fanout(fanout);
        }
    }

    fn fanout(&mut self, fanout: &FanoutReport) {
        self.spread("first", fanout.first.as_ref());
        self.spread("median", fanout.median.as_ref());
        self.spread("last", fanout.last.as_ref());
        let count = |count: u64| show_count(count as f64);
        let mut text = format!(
            "{}/s by {}, to {} on {} topic{}; all got {}",
            show_count(fanout.published_per_s.unwrap_or(0.0)),
            count(u64::from(fanout.publishers)),
            count(u64::from(fanout.subscribers)),
            count(u64::from(fanout.topics)),
            if fanout.topics == 1 { "" } else { "s" },
            count(fanout.complete)
        );
        if fanout.incomplete > 0 {
            let _ = write!(text, ", not all {}", count(fanout.incomplete));
        }
        self.row("published", &text);
    }

    fn errors(&mut self, report: &Report) {
        let errors = &report.errors;
        if errors.total == 0 {
            self.row("errors", "none");
            return;
        }
        let mut text = show_count(errors.total as f64);
        self.tone(Tone::Bad, &mut text);
        let kinds: Vec<String> = errors
            .by_kind
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(kind, count)| format!("{kind} {}", show_count(*count as f64)))
            .collect();
        let _ = write!(text, ": {}", kinds.join(", "));
        for (what, counts) in [("status", &errors.statuses), ("close code", &errors.close_codes)] {
            for (number, count) in counts {
                let _ = write!(text, "; {what} {number}: {}", show_count(*count as f64));
            }
        }
        self.row("errors", &text);
        for (kind, why) in &errors.reasons {
            self.row("", &format!("{kind}: {why}"));
        }
    }

    /// Why the figures are not what was asked for.
    fn shortfall(&mut self, report: &Report) {
        let asked_s = report.settings.duration_s;
        let mut text = if let Some(early_s) = report.ended_early_s {
            format!(
                "ended early: no session was left after {} of {}",
                show_ns(early_s * 1e9),
                show_ns(asked_s * 1e9)
            )
        } else if report.nothing_was_due {
            let what = if report.churn.is_some() { "session" } else { "message" };
            format!("no {what} was due in the measured time: take a higher rate, or more time (-d)")
        } else if report.interrupted && report.measured_s == 0.0 {
            "interrupted before there was anything to measure".to_owned()
        } else {
            return;
        };
        self.tone(Tone::Warning, &mut text);
        self.row("warning", &text);
    }

    fn server(&mut self, report: &Report) {
        if let Some(server) = &report.server {
            let mut text = match (server.cpu_ns_per_message, server.cores) {
                (Some(ns), Some(cores)) => {
                    format!(
                        "{} of CPU for each {}, {:.0} % of a core",
                        show_ns(ns),
                        report.unit,
                        cores * 100.0
                    )
                }
                (None, Some(cores)) => format!("{:.1} % of a core", cores * 100.0),
                (_, None) => "CPU time not known".to_owned(),
            };
            let memory = [
                ("before", server.memory_before_bytes),
                ("all up", server.memory_up_bytes),
                ("most", server.memory_most_bytes),
                ("at the end", server.memory_end_bytes),
            ];
            for (place, (name, bytes)) in memory.into_iter().enumerate() {
                if let Some(bytes) = bytes {
                    let start = if place == 0 { "; memory" } else { "," };
                    let _ = write!(text, "{start} {name} {}", show_bytes(bytes as f64));
                }
            }
            self.row("server", &text);
            if let Some(seconds) = server.ended_threads_cpu_s {
                let mut text = format!(
                    "threads of the server that ended took {} of CPU time more, which is in none of the figures",
                    show_ns(seconds * 1e9)
                );
                self.tone(Tone::Warning, &mut text);
                self.row("warning", &text);
            }
        }
        if let Some(memory) = &report.session_memory {
            let mut parts = Vec::new();
            if let Some(bytes) = memory.user_bytes {
                parts.push(format!("{} of the server's memory", show_bytes(bytes)));
            }
            if let Some(bytes) = memory.kernel_bytes {
                parts.push(format!("{} in this machine's kernel (both ends)", show_bytes(bytes)));
            }
            let most = memory.points.iter().map(|point| point.sessions).max().unwrap_or(0);
            if most < LEAST_SESSIONS {
                parts.push(format!("not measurable with fewer than {LEAST_SESSIONS} sessions"));
            } else if memory.kernel_bytes.is_none()
                && memory.points.iter().any(|point| point.kernel_bytes.is_some())
            {
                parts.push("what it takes in the kernel is within the noise".to_owned());
            }
            if !parts.is_empty() {
                self.row("a session", &parts.join(", "));
            }
        }
    }

    fn generator(&mut self, report: &Report) {
        let generator = &report.generator;
        let Some(busiest) = generator.busiest_thread else { return };
        let mut text = match generator.cpu_ns_per_message {
            Some(ns) => format!("{} of CPU for each {}, ", show_ns(ns), report.unit),
            None => String::new(),
        };
        let _ = write!(text, "busiest thread at {:.0} %", busiest * 100.0);
        if let Some(with_waits) = generator.busiest_thread_with_waits.filter(|share| share - busiest > 0.05) {
            let _ = write!(text, ", or {:.0} % had it not waited for a processor", with_waits * 100.0);
        }
        if let Some(calls) = generator.system_calls_per_message {
            let _ = write!(text, ", {calls:.3} system calls for each");
        }
        self.row("generator", &text);
        self.spread("lag", generator.lag.as_ref());
        if generator.was_the_limit {
            let mut text =
                "this program, not the server, was the limit: rates and latencies are its own; take more \
                            threads (-t) or cores"
                    .to_owned();
            self.tone(Tone::Warning, &mut text);
            self.row("warning", &text);
        }
    }

    fn assertions(&mut self, report: &Report) {
        for checked in &report.assertions {
            let (tone, verdict) =
                if checked.holds { (Tone::Good, "holds") } else { (Tone::Bad, "DOES NOT HOLD") };
            let mut verdict = verdict.to_owned();
            self.tone(tone, &mut verdict);
            self.row("assertion", &format!("{} {verdict}: {}", checked.condition, checked.shown));
        }
    }

    fn spread(&mut self, name: &str, spread: Option<&Spread>) {
        let Some(spread) = spread else { return };
        let values = [
            ("p50", spread.p50_us),
            ("p90", spread.p90_us),
            ("p99", spread.p99_us),
            ("p99.9", spread.p99_9_us),
            ("max", spread.max_us),
        ];
        let values = values.map(|(name, us)| format!("{name} {}", show_ns(us * 1e3)));
        self.row(name, &values.join("  "));
    }

    fn row(&mut self, name: &str, text: &str) {
        let _ = writeln!(self.text, "  {name:<10} {text}");
    }

    fn tone(&self, tone: Tone, text: &mut String) {
        *text = tone.paint(text, self.has_colours);
    }
}
