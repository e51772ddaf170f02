//! What is seen while a run goes on, on standard error: on a terminal a view that is drawn anew each second, elsewhere
//! a line each second.

mod view;

use std::io::{Write, stderr};

use self::view::{Progress, Rate, View};
use crate::{
    fault::Faults,
    plan::{Plan, Scenario},
    report::Second,
    terminal::{self, Size},
    units::{show_bytes, show_count, show_ns},
};

/// How seconds are shown.
#[derive(Debug)]
enum Form {
    /// Not at all.
    Quiet,
    /// As lines that follow each other.
    Lines,
    /// In place.
    View(View),
}

/// The live view.
#[derive(Debug)]
pub(crate) struct Live {
    form: Form,
    phase: &'static str,
    /// When the time of messages begins and ends.
    span_ns: Option<(u64, u64)>,
    /// Sessions that are to come up.
    connections: u32,
}

impl Live {
    pub(crate) fn new(plan: &Plan) -> Self {
        let rate = match plan.scenario {
            Scenario::Echo
            | Scenario::Churn { .. }
            | Scenario::Slow { .. }
            | Scenario::Fanout(_)
            | Scenario::Replay => Rate::Messages,
            Scenario::Idle | Scenario::Storm { .. } => Rate::Handshakes,
        };
        let form = if plan.quiet {
            Form::Quiet
        } else if terminal::can_redraw() {
            let title = format!("{} {}", plan.scenario.name(), plan.target);
            Form::View(View::new(title, rate, terminal::error_has_colours()))
        } else {
            Form::Lines
        };
        Self { form, phase: "connecting", span_ns: None, connections: 0 }
    }

    pub(crate) fn phase_name(&self) -> &'static str {
        self.phase
    }

    pub(crate) fn phase(&mut self, phase: &'static str) {
        self.phase = phase;
    }

    /// So many sessions are to come up.
    pub(crate) fn connect(&mut self, connections: u32) {
        self.phase = "connecting";
        self.connections = connections;
        self.span_ns = None;
    }

    /// A phase, and the time until the last one ends.
    pub(crate) fn expect(&mut self, phase: &'static str, start_ns: u64, end_ns: u64) {
        self.phase = phase;
        self.span_ns = Some((start_ns, end_ns));
    }

    /// One more second is over; `faults` are those of the whole run.
    pub(crate) fn show(&mut self, second: &Second, faults: &Faults, now_ns: u64) {
        let progress = match self.span_ns {
            Some((start_ns, end_ns)) => Progress::Time {
                elapsed_s: now_ns.saturating_sub(start_ns) as f64 / 1e9,
                total_s: end_ns.saturating_sub(start_ns) as f64 / 1e9,
            },
            None => Progress::Sessions { up: second.open, total: self.connections },
        };
        let text = match &mut self.form {
            Form::Quiet => return,
            Form::Lines => line(second) + "\n",
            Form::View(view) => view.frame(second, progress, faults, Size::now()),
        };
        let mut out = stderr().lock();
        // Where nobody reads, there is nothing to be told.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }

    /// Leaves the terminal as it was.
    pub(crate) fn end(&mut self) {
        if let Form::View(view) = &mut self.form {
            let _ = stderr().write_all(view.end(Size::now()).as_bytes());
        }
    }
}

fn line(second: &Second) -> String {
    let mut text = format!("{:>4}s {}  {} up", second.at_s, second.phase, show_count(f64::from(second.open)));
    if second.pending > 0 {
        text += &format!(" ({} coming)", show_count(f64::from(second.pending)));
    }
    if second.handshakes > 0 {
        text += &format!("  {} handshakes/s", show_count(second.handshakes as f64));
    }
    if second.messages > 0 {
        text += &format!("  {} messages/s", show_count(second.messages as f64));
    }
    if let (Some(p50), Some(p99)) = (second.p50_us, second.p99_us) {
        text += &format!("  p50 {}  p99 {}", show_ns(p50 * 1e3), show_ns(p99 * 1e3));
    }
    text += &format!("  errors {}", show_count(second.errors as f64));
    if let Some(cores) = second.server_cores {
        text += &format!("  server {:.0} %", cores * 100.0);
    }
    if let Some(bytes) = second.server_memory_bytes {
        text += &format!(" {}", show_bytes(bytes as f64));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_one_line() {
        let second = Second {
            at_s: 3,
            phase: "measuring",
            open: 1500,
            pending: 2,
            handshakes: 0,
            messages: 95_000,
            errors: 1,
            p50_us: Some(4900.0),
            p99_us: Some(6100.0),
            max_us: Some(7000.0),
            server_cores: Some(0.993),
            server_memory_bytes: Some(14 << 20),
        };
        let expected = "   3s measuring  1,500 up (2 coming)  95,000 messages/s  p50 4.90 ms  p99 6.10 ms  \
                        errors 1  server 99 % 14.0 MiB";
        assert_eq!(line(&second), expected);
    }
}
