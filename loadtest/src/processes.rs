//! What processes on this machine use: the server's, and this one.

use std::{collections::BTreeMap, fs, io};

use rustix::process::Pid;

/// Of the clock in `/proc/PID/stat`, on all machines that this runs on (`USER_HZ`).
const TICK_NS: u64 = 10_000_000;

/// CPU time of a process, in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CpuTimes {
    /// Of its threads that live.
    threads: BTreeMap<i32, ThreadTime>,
    /// Of the whole process, threads that have ended among it, as the clock ticks.
    whole_ns: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct ThreadTime {
    ran_ns: u64,
    /// It could have run, and had no processor.
    waited_ns: u64,
}

/// CPU time between two looks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct CpuUse {
    /// Of threads that live.
    pub(crate) all_ns: u64,
    /// Of the thread that used most.
    pub(crate) busiest_ns: u64,
    /// Of the thread that ran or waited for a processor most.
    pub(crate) keenest_ns: u64,
    /// Beside that, of threads that have ended; up to two ticks of each process may be none.
    pub(crate) ended_ns: u64,
}

impl CpuTimes {
    /// Of all threads that live, as the scheduler counts (`/proc/PID/task/*/schedstat`), and of the whole process.
    ///
    /// # Errors
    /// Where there is no such process, or it may not be looked at.
    pub(crate) fn of(pid: Pid) -> io::Result<Self> {
        let mut threads = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
            let thread = entry.file_name().to_string_lossy().parse().ok();
            // A thread may end in between.
            let text = fs::read_to_string(entry.path().join("schedstat")).ok();
            let time = text.and_then(|text| ThreadTime::parse(&text));
            if let (Some(thread), Some(time)) = (thread, time) {
                threads.insert(thread, time);
            }
        }
        // After the threads: what ends from now on is in both looks or in neither.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        Ok(Self { threads, whole_ns: ticks(&stat).unwrap_or(0) * TICK_NS })
    }

    /// What was used since an earlier look.
    pub(crate) fn since(&self, earlier: &Self) -> CpuUse {
        let mut used = CpuUse::default();
        for (thread, time) in &self.threads {
            let before = earlier.threads.get(thread).copied().unwrap_or_default();
            let ran_ns = time.ran_ns.saturating_sub(before.ran_ns);
            used.all_ns += ran_ns;
            used.busiest_ns = used.busiest_ns.max(ran_ns);
            used.keenest_ns = used.keenest_ns.max(ran_ns + time.waited_ns.saturating_sub(before.waited_ns));
        }
        used.ended_ns = self.whole_ns.saturating_sub(earlier.whole_ns).saturating_sub(used.all_ns);
        used
    }

    /// With another process's.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.threads.extend(other.threads);
        self.whole_ns += other.whole_ns;
        self
    }

    /// These threads alone, and nothing of the whole.
    pub(crate) fn only(&self, threads: &[i32]) -> Self {
        let ours = self.threads.iter().filter(|(thread, _)| threads.contains(thread));
        Self { threads: ours.map(|(thread, time)| (*thread, *time)).collect(), whole_ns: 0 }
    }
}

impl ThreadTime {
    /// Of `schedstat`: time run, time waited, and how often.
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split_whitespace().map(|number| number.parse().ok());
        Some(Self { ran_ns: numbers.next()??, waited_ns: numbers.next()?? })
    }
}

/// User and system time of `/proc/PID/stat`, in ticks: fields 14 and 15. The second may hold anything, in brackets.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

impl CpuUse {
    /// With another process's.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            all_ns: self.all_ns + other.all_ns,
            busiest_ns: self.busiest_ns.max(other.busiest_ns),
            keenest_ns: self.keenest_ns.max(other.keenest_ns),
            ended_ns: self.ended_ns + other.ended_ns,
        }
    }

    /// What threads took that have ended, where it is more than a fiftieth of all, and more than ticks of so many
    /// processes may tell wrongly.
    pub(crate) fn not_counted_ns(&self, processes: usize) -> Option<u64> {
        let most_ns = 2 * TICK_NS * processes as u64;
        let is_much = self.ended_ns > most_ns && self.ended_ns > (self.all_ns + self.ended_ns) / 50;
        is_much.then_some(self.ended_ns)
    }
}

/// Memory of a process's own, in bytes: `RssAnon` of `/proc/PID/status` (Linux 4.5).
///
/// # Errors
/// Where there is no such process, or it may not be looked at.
pub(crate) fn memory_bytes(pid: Pid) -> io::Result<u64> {
    Ok(parse_memory(&fs::read_to_string(format!("/proc/{pid}/status"))?))
}

fn parse_memory(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
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
    pub(crate) memory_bytes: Option<u64>,
}

impl Servers {
    /// # Errors
    /// The first process that is not there, or may not be looked at, and why.
    pub(crate) fn new(pids: &[Pid]) -> Result<Self, (Pid, io::Error)> {
        for pid in pids {
            CpuTimes::of(*pid).and_then(|_| memory_bytes(*pid)).map_err(|error| (*pid, error))?;
        }
        Ok(Self { pids: pids.to_vec() })
    }

    pub(crate) fn look(&self) -> Look {
        let memory = self.pids.iter().try_fold(0, |sum, pid| Some(sum + memory_bytes(*pid).ok()?));
        let cpu = self.pids.iter().map(|pid| CpuTimes::of(*pid).ok()).collect();
        Look { cpu, memory_bytes: memory.filter(|_| !self.pids.is_empty()) }
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
        assert!(memory_bytes(own).unwrap() > 0);
        let servers = Servers::new(&[own]).unwrap();
        assert!(servers.look().cpu_since(&servers.look()).is_some());
        assert!(Servers::new(&[Pid::from_raw(i32::MAX).unwrap()]).is_err());
    }

    /// So much CPU time of this thread, whatever else the machine does.
    fn spin(time: std::time::Duration) {
        let used = || {
            let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
            std::time::Duration::try_from(now).unwrap()
        };
        let end = used() + time;
        while used() < end {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn threads_that_have_ended_are_missed() {
        // This process has other tests' threads, which come and go.
        let used = |all_ns, ended_ns| CpuUse { all_ns, ended_ns, ..CpuUse::default() };
        for (used, missed) in [
            (used(1_000_000_000, 20_000_000), None),
            (used(1_000_000_000, 21_000_000), Some(21_000_000)),
            (used(10_000_000_000, 200_000_000), None),
            (used(10_000_000_000, 210_000_000), Some(210_000_000)),
        ] {
            assert_eq!(used.not_counted_ns(1), missed, "{used:?}");
        }
        let own = rustix::process::getpid();
        let before = CpuTimes::of(own).unwrap();
        std::thread::spawn(|| spin(std::time::Duration::from_millis(100))).join().unwrap();
        let used = CpuTimes::of(own).unwrap().since(&before);
        assert!(used.ended_ns >= 100_000_000 - 2 * TICK_NS, "{used:?}");
        assert_eq!(ticks("7 (a) b) c) S 1 7 7 0 -1 4194560 1 2 3 4 50 60 0 0 20"), Some(110));
    }

    #[test]
    fn who_waits_for_a_processor_is_at_its_limit_as_well() {
        let times = |text: &str| {
            let time = ThreadTime::parse(text).unwrap();
            CpuTimes { threads: BTreeMap::from([(1, time)]), whole_ns: 0 }
        };
        let used = times("500 900 3\n").since(&times("100 400 1\n"));
        assert_eq!((used.all_ns, used.busiest_ns, used.keenest_ns), (400, 400, 900));
    }

    #[test]
    fn memory_and_slabs_are_read() {
        let status = "Name:\tx\nVmRSS:\t    2048 kB\nRssAnon:\t     512 kB\n";
        assert_eq!(parse_memory(status), 512 << 10);
        let slabs = "slabinfo - version: 2.1\n# name <active_objs> ...\n\
                     TCP 10 13 2304 13 8 : tunables 0 0 0 : slabdata 1 1 0\nfilp 100 112 256 16 1 : tunables\n";
        assert_eq!(parse_slabs(slabs), Some(10 * 2304 + 100 * 256));
        assert_eq!(parse_slabs("nonsense"), None);
    }
}
