//! What is seen while a run goes on: a line each second, on standard error.
//!
//! On a terminal one line is written over and over, with a bar; elsewhere lines follow each other.

use std::io::{IsTerminal, Write, stderr};

use crate::{
    report::Second,
    units::{show_bytes, show_count, show_ns},
};

/// Characters of the bar.
const BAR: usize = 24;

/// The live view.
#[derive(Debug)]
pub(crate) struct Live {
    is_shown: bool,
    is_terminal: bool,
    phase: &'static str,
    /// When the time of messages begins and ends.
    span_ns: Option<(u64, u64)>,
    /// Sessions that are to come up.
    connections: u32,
}

impl Live {
    pub(crate) fn new(is_quiet: bool) -> Self {
        let is_terminal = stderr().is_terminal();
        Self { is_shown: !is_quiet, is_terminal, phase: "connecting", span_ns: None, connections: 0 }
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

    /// One more second is over.
    pub(crate) fn show(&self, second: &Second, now_ns: u64) {
        if !self.is_shown {
            return;
        }
        let done = match self.span_ns {
            Some((start_ns, end_ns)) => {
                now_ns.saturating_sub(start_ns) as f64 / (end_ns - start_ns).max(1) as f64
            }
            None => f64::from(second.open) / f64::from(self.connections.max(1)),
        };
        let text = line(second);
        let mut out = stderr().lock();
        // Where nobody reads, there is nothing to be told.
        let _ = if self.is_terminal {
            write!(out, "\r\x1b[2K{} {text}", bar(done)).and_then(|()| out.flush())
        } else {
            writeln!(out, "{text}")
        };
    }

    /// Leaves the terminal's line.
    pub(crate) fn end(&self) {
        if self.is_shown && self.is_terminal {
            let _ = write!(stderr(), "\r\x1b[2K");
        }
    }
}

fn bar(done: f64) -> String {
    let full = (done.clamp(0.0, 1.0) * BAR as f64) as usize;
    format!("[{}{}]", "#".repeat(full), "-".repeat(BAR - full))
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
        assert_eq!(bar(0.5), format!("[{}{}]", "#".repeat(12), "-".repeat(12)));
        assert_eq!(bar(7.0), format!("[{}]", "#".repeat(24)));
    }
}
