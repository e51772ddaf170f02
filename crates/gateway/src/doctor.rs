//! `tidegate doctor`: what this machine offers, and what that allows.

use std::{fmt, fs};

use rustix::process::{Resource, Rlimit, getrlimit};
use tidegate_config::{Config, DEFAULT_MAX_SESSIONS, IoChoice};
use tidegate_io::{Kind, diagnose};

use crate::{
    Outcome,
    arguments::{ConfigArguments, NoConfig},
    cores::Cores,
    limits::{self, Lockable, Need},
    logs,
    output::show,
};

/// Writes the report to standard output. What keeps the configuration from being run is a fault.
pub(crate) fn doctor(arguments: &ConfigArguments) -> Outcome {
    let config = match arguments.config() {
        Ok(config) => config,
        Err(NoConfig::Invalid(problems)) => {
            logs::print_problems(&problems);
            return Outcome::BadConfig;
        }
        Err(NoConfig::Usage(usage)) => {
            // Where standard error is gone, there is nobody to tell.
            let _ = usage.print();
            return Outcome::Usage;
        }
    };
    let before = getrlimit(Resource::Nofile);
    let mut report = Report::default();
    let kind = backend(&mut report, &config);
    let shards = cores(&mut report, &config);
    let suffices = descriptors(&mut report, &config, shards, before);
    if kind == Some(Kind::Uring) {
        rings(&mut report, &config, shards);
    }
    buffers(&mut report, &config, shards);
    network(&mut report);
    let told = show(&report.text);
    if suffices && kind.is_some() { told } else { Outcome::Fault }
}

/// Lines of a name and what is to be said about it.
#[derive(Default)]
struct Report {
    text: String,
}

impl Report {
    fn line(&mut self, name: &str, value: impl fmt::Display) {
        self.text.push_str(&format!("{name:<17} {value}\n"));
    }
}

/// Kernel and backend; gives the one that a run would have, if any.
fn backend(report: &mut Report, config: &Config) -> Option<Kind> {
    report.line("tidegate", env!("CARGO_PKG_VERSION"));
    let diagnosis = diagnose();
    report.text.push_str(&format!("{diagnosis}\n"));
    let kind = match (config.io, diagnosis.kind) {
        (IoChoice::Auto, kind) => kind,
        (IoChoice::Uring, Kind::Uring) => {
            report.line("  asked for", Kind::Uring);
            Kind::Uring
        }
        (IoChoice::Uring, Kind::Epoll) => {
            report.line("  asked for", "uring, which cannot be used: the gateway would not start");
            return None;
        }
        (IoChoice::Epoll, _) => {
            report.line("  asked for", Kind::Epoll);
            Kind::Epoll
        }
    };
    if kind == Kind::Epoll {
        let cost = "every session works; a turn costs more system calls, so a core carries fewer messages";
        report.line("  which costs", cost);
    }
    Some(kind)
}

/// Gives the number of shards.
fn cores(report: &mut Report, config: &Config) -> usize {
    match Cores::look() {
        Ok(cores) => {
            let shards = cores.shards(config);
            let (usable, allowed) = (cores.usable(), cores.allowed());
            let pinned = if cores.pins(shards).is_some() { "each pinned to its core" } else { "not pinned" };
            let plural = if shards == 1 { "" } else { "s" };
            report.line(
                "cores",
                format_args!("{usable} usable of {allowed} allowed: {shards} shard{plural}, {pinned}"),
            );
            shards
        }
        Err(error) => {
            report.line("cores", format_args!("unknown: {error}"));
            config.shards.unwrap_or(1)
        }
    }
}

/// The limit of descriptors and what it allows; gives whether it suffices.
fn descriptors(report: &mut Report, config: &Config, shards: usize, before: Rlimit) -> bool {
    let descriptors = limits::raise(Resource::Nofile);
    let soft = number(before.current);
    report.line(
        "descriptors",
        format_args!("soft limit {soft}, raised to the hard one at the start: {}", number(descriptors)),
    );
    let fixed = Need::of(config, shards).fixed;
    for (what, each) in [("answered here", 1), ("proxied", 2)] {
        let sessions = Need { fixed, each }.sessions(descriptors);
        report
            .line("  which allow", format_args!("{} sessions {what}", number(u64::try_from(sessions).ok())));
    }
    let wanted = config.limits.max_sessions;
    match limits::sessions(config, shards, descriptors) {
        Ok(sessions) => {
            let needed = Need::of(config, shards).total(sessions.count);
            let count = sessions.count;
            let note = if sessions.lowered {
                format!(", fewer than the default of {DEFAULT_MAX_SESSIONS}")
            } else {
                String::new()
            };
            let asked = if wanted.is_some() { "as configured" } else { "by default" };
            report.line("sessions", format_args!("{count} {asked}{note}: {needed} descriptors"));
            true
        }
        Err(error) => {
            report.line("sessions", format_args!("too few descriptors: {error}"));
            false
        }
    }
}

/// Locked memory.
fn rings(report: &mut Report, config: &Config, shards: usize) {
    let lockable = Lockable::raise();
    let entries = lockable.entries(config, shards);
    let needed = limits::ring_bytes(config, shards, entries);
    let verdict = match lockable.bytes() {
        None => "which this process may lock".to_owned(),
        Some(limit) if limit < needed => {
            format!("but the hard limit is {limit}: the kernel may refuse the rings")
        }
        Some(limit) => format!("within the hard limit of {limit}"),
    };
    report.line("locked by rings", format_args!("{needed} bytes with queues of {entries}, {verdict}"));
}

/// What the process takes at most to receive into.
fn buffers(report: &mut Report, config: &Config, shards: usize) {
    let buffers = u64::from(config.limits.receive_buffers) * tidegate_io::BUFFER_BYTES as u64 * shards as u64;
    let (count, each) = (config.limits.receive_buffers, tidegate_io::BUFFER_BYTES);
    report.line(
        "receive buffers",
        format_args!("{shards} x {count} of {each} bytes: at most {} MiB, used as they come", buffers >> 20),
    );
}

/// What the kernel's settings mean for connections.
fn network(report: &mut Report) {
    let read =
        |path: &str| fs::read_to_string(format!("/proc/sys/{path}")).map(|text| text.trim().to_owned());
    if let Ok(most) = read("net/core/somaxconn") {
        report
            .line("somaxconn", format_args!("{most} connections at most wait on each socket to be accepted"));
    }
    if let Ok(range) = read("net/ipv4/ip_local_port_range") {
        let ends: Vec<u32> = range.split_whitespace().filter_map(|end| end.parse().ok()).collect();
        if let [low, high] = ends[..] {
            let ports = high.saturating_sub(low) + 1;
            report.line(
                "local ports",
                format_args!("{ports}: proxied sessions for each upstream address and `source` address"),
            );
        }
    }
    for (name, path) in [("fs.nr_open", "fs/nr_open"), ("fs.file-max", "fs/file-max")] {
        if let Ok(most) = read(path) {
            report.line(
                name,
                format_args!(
                    "{most} descriptors at most for {}",
                    if path == "fs/nr_open" { "a process" } else { "the machine" }
                ),
            );
        }
    }
}

fn number(limit: Option<u64>) -> String {
    limit.map_or_else(|| "no limit".to_owned(), |limit| limit.to_string())
}
