//! What the kernel knows of the process, for the `process_*` metrics that Prometheus' libraries have as well.

use std::fs;

/// Clock ticks in a second, as Linux counts a process's time for its readers (`USER_HZ`, proc(5)).
const TICKS: f64 = 100.0;

/// What there is; nothing of what cannot be read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Process {
    /// Processor time, user and system, in seconds.
    pub(crate) cpu_seconds: Option<f64>,
    /// Resident memory, in bytes.
    pub(crate) resident_bytes: Option<u64>,
    /// Open descriptors.
    pub(crate) open_fds: Option<u64>,
    /// Most of them.
    pub(crate) max_fds: Option<u64>,
}

impl Process {
    pub(crate) fn look() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").ok();
        // The name, in parentheses, may hold anything.
        let fields: Vec<&str> = stat
            .as_deref()
            .and_then(|stat| stat.rsplit_once(')'))
            .map_or(Vec::new(), |(_, rest)| rest.split_whitespace().collect());
        let number = |place: usize| fields.get(place).and_then(|field| field.parse::<u64>().ok());
        let ticks = number(11).zip(number(12)).map(|(user, system)| user + system);
        Self {
            cpu_seconds: ticks.map(|ticks| ticks as f64 / TICKS),
            resident_bytes: resident_bytes(),
            open_fds: fs::metadata("/proc/self/fd").ok().map(|folder| folder_size(&folder)),
            max_fds: rustix::process::getrlimit(rustix::process::Resource::Nofile).current,
        }
    }
}

/// `VmRSS`, which the kernel tells in KiB.
fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib << 10)
}

/// The size of `/proc/PID/fd` is the number of descriptors from Linux 6.2 on; to list a hundred thousand of them takes long.
fn folder_size(folder: &fs::Metadata) -> u64 {
    match folder.len() {
        0 => fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64),
        size => size,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen() {
        let process = Process::look();
        assert!(process.cpu_seconds.is_some());
        assert!(process.resident_bytes.is_some_and(|bytes| bytes > 100_000), "{process:?}");
        assert!(process.open_fds.is_some_and(|count| (3..10_000).contains(&count)), "{process:?}");
    }
}
