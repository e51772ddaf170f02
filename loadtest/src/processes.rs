//! What processes on this machine use: the server's, and this one.

use std::{collections::BTreeMap, fs, io};

use rustix::process::Pid;

/// CPU time of a process's threads, in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CpuTimes(BTreeMap<i32, u64>);

/// CPU time between two looks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct CpuUse {
    pub(crate) all_ns: u64,
    /// Of the thread that used most.
    pub(crate) busiest_ns: u64,
}

impl CpuTimes {
    /// Of all threads that live, as the scheduler counts (`/proc/PID/task/*/schedstat`).
    ///
    /// # Errors
    /// Where there is no such process, or it may not be looked at.
    pub(crate) fn of(pid: Pid) -> io::Result<Self> {
        let mut times = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
            let thread = entry.file_name().to_string_lossy().parse().ok();
            // A thread may end in between.
            let text = fs::read_to_string(entry.path().join("schedstat")).ok();
            let time = text.and_then(|text| text.split_whitespace().next()?.parse().ok());
            if let (Some(thread), Some(time)) = (thread, time) {
                times.insert(thread, time);
            }
        }
        Ok(Self(times))
    }

    /// What was used since an earlier look.
    pub(crate) fn since(&self, earlier: &Self) -> CpuUse {
        let mut used = CpuUse::default();
        for (thread, time) in &self.0 {
            used.add(time.saturating_sub(earlier.0.get(thread).copied().unwrap_or(0)));
        }
        used
    }

    /// With another process's.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// These threads alone.
    pub(crate) fn only(&self, threads: &[i32]) -> Self {
        let ours = |thread: &i32| threads.contains(thread);
        Self(
            self.0.iter().filter(|(thread, _)| ours(thread)).map(|(thread, time)| (*thread, *time)).collect(),
        )
    }
}

impl CpuUse {
    fn add(&mut self, ns: u64) {
        self.all_ns += ns;
        self.busiest_ns = self.busiest_ns.max(ns);
    }

    /// With another process's.
    pub(crate) fn and(self, other: Self) -> Self {
        Self { all_ns: self.all_ns + other.all_ns, busiest_ns: self.busiest_ns.max(other.busiest_ns) }
    }
}

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Its own: `RssAnon` (Linux 4.5).
    pub(crate) anonymous: u64,
    /// With files and what it shares: `VmRSS`.
    pub(crate) resident: u64,
}

impl Memory {
    /// As `/proc/PID/status` says.
    ///
    /// # Errors
    /// Where there is no such process, or it may not be looked at.
    pub(crate) fn of(pid: Pid) -> io::Result<Self> {
        Ok(Self::parse(&fs::read_to_string(format!("/proc/{pid}/status"))?))
    }

    fn parse(status: &str) -> Self {
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
            kib.unwrap_or(0) * 1024
        };
        Self { anonymous: field("RssAnon"), resident: field("VmRSS") }
    }
}

/// Bytes of all objects in the kernel's slabs; `None` where that may not be looked at.
pub(crate) fn slab_bytes() -> Option<u64> {
    parse_slabs(&fs::read_to_string("/proc/slabinfo").ok()?)
}

fn parse_slabs(text: &str) -> Option<u64> {
    text.strip_prefix("slabinfo - version: 2")?;
    let lines = text.lines().skip(1).filter(|line| !line.starts_with('#'));
    Some(
        lines
            .filter_map(|line| {
                let mut fields = line.split_whitespace().skip(1);
                let active: u64 = fields.next()?.parse().ok()?;
                let size: u64 = fields.nth(1)?.parse().ok()?;
                Some(active * size)
            })
            .sum(),
    )
}

/// All processes of the server.
#[derive(Debug)]
pub(crate) struct Servers {
    pids: Vec<Pid>,
}

/// What the server had used at some time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Look {
    /// `None` where a process has gone.
    pub(crate) cpu: Vec<Option<CpuTimes>>,
    /// `None` where none was named, or one has gone.
    pub(crate) memory: Option<Memory>,
}

impl Servers {
    /// # Errors
    /// The first process that is not there, or may not be looked at, and why.
    pub(crate) fn new(pids: &[Pid]) -> Result<Self, (Pid, io::Error)> {
        for pid in pids {
            CpuTimes::of(*pid).and_then(|_| Memory::of(*pid)).map_err(|error| (*pid, error))?;
        }
        Ok(Self { pids: pids.to_vec() })
    }

    pub(crate) fn look(&self) -> Look {
        let memory = self.pids.iter().try_fold(Memory::default(), |sum, pid| {
            let memory = Memory::of(*pid).ok()?;
            Some(Memory {
                anonymous: sum.anonymous + memory.anonymous,
                resident: sum.resident + memory.resident,
            })
        });
        let cpu = self.pids.iter().map(|pid| CpuTimes::of(*pid).ok()).collect();
        Look { cpu, memory: memory.filter(|_| !self.pids.is_empty()) }
    }
}

impl Look {
    /// CPU time since an earlier look; `None` where there is no server to look at.
    pub(crate) fn cpu_since(&self, earlier: &Self) -> Option<CpuUse> {
        if self.cpu.is_empty() || self.cpu.len() != earlier.cpu.len() {
            return None;
        }
        self.cpu.iter().zip(&earlier.cpu).try_fold(CpuUse::default(), |sum, (now, then)| {
            Some(sum.and(now.as_ref()?.since(then.as_ref()?)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_can_be_looked_at() {
        let own = rustix::process::getpid();
        let before = CpuTimes::of(own).unwrap();
        let start = std::time::Instant::now();
        while start.elapsed().as_millis() < 20 {
            std::hint::black_box(before.clone());
        }
        let used = CpuTimes::of(own).unwrap().since(&before);
        assert!(used.all_ns > 1_000_000 && used.busiest_ns <= used.all_ns, "{used:?}");
        assert!(Memory::of(own).unwrap().anonymous > 0);
        let servers = Servers::new(&[own]).unwrap();
        assert!(servers.look().cpu_since(&servers.look()).is_some());
        assert!(Servers::new(&[Pid::from_raw(i32::MAX).unwrap()]).is_err());
    }

    #[test]
    fn memory_and_slabs_are_read() {
        let status = "Name:\tx\nVmRSS:\t    2048 kB\nRssAnon:\t     512 kB\n";
        assert_eq!(Memory::parse(status), Memory { anonymous: 512 << 10, resident: 2048 << 10 });
        let slabs = "slabinfo - version: 2.1\n# name <active_objs> ...\n\
                     TCP 10 13 2304 13 8 : tunables 0 0 0 : slabdata 1 1 0\nfilp 100 112 256 16 1 : tunables\n";
        assert_eq!(parse_slabs(slabs), Some(10 * 2304 + 100 * 256));
        assert_eq!(parse_slabs("nonsense"), None);
    }
}
