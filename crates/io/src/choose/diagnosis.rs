//! The ladder laid open, for an operator who wonders why.

use std::{fmt, fs};

use rustix::process::{Resource, getrlimit};

use super::{Failure, Kind, climb};

/// A rung of the ladder, lowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rung {
    /// The kernel sets a ring up with the flags that are needed.
    Setup,
    /// It has the features.
    Features,
    /// It has the operations.
    Operations,
    /// It takes provided buffers.
    Buffers,
    /// It does what is relied on.
    Trial,
}

impl Rung {
    /// All, lowest first.
    pub const ALL: [Self; 5] = [Self::Setup, Self::Features, Self::Operations, Self::Buffers, Self::Trial];
}

impl fmt::Display for Rung {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Setup => "ring set-up",
            Self::Features => "features",
            Self::Operations => "operations",
            Self::Buffers => "provided buffers",
            Self::Trial => "self-test",
        })
    }
}

impl Failure {
    /// Where it happened.
    #[must_use]
    pub fn rung(&self) -> Rung {
        match self {
            Self::Setup(_) => Rung::Setup,
            Self::Features(_) => Rung::Features,
            Self::Probe(_) | Self::Operations(_) => Rung::Operations,
            Self::Buffers(_) => Rung::Buffers,
            Self::Behaviour(_) => Rung::Trial,
        }
    }
}

/// What `tidegate doctor` shows of the ring. Its [`Display`](fmt::Display) is a few lines of text.
#[derive(Debug)]
pub struct Diagnosis {
    /// As `uname -r` gives it.
    pub kernel: String,
    /// What [`choose`](super::choose) would choose by itself.
    pub kind: Kind,
    /// The rungs that held, lowest first.
    pub held: Vec<Rung>,
    /// The one that did not.
    pub failure: Option<Failure>,
    /// What else bears on it.
    pub surroundings: Surroundings,
}

/// Climbs the ladder and looks around. A short-lived ring is tried on this thread.
#[must_use]
pub fn diagnose() -> Diagnosis {
    let mut held = Vec::new();
    let failure = climb(|rung| held.push(rung)).err();
    Diagnosis {
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        kind: if failure.is_none() { Kind::Uring } else { Kind::Epoll },
        held,
        failure,
        surroundings: Surroundings::look(),
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "kernel            {}", self.kernel)?;
        let failed = self.failure.as_ref().map(Failure::rung);
        for rung in Rung::ALL {
            let result = if self.held.contains(&rung) {
                "ok"
            } else if failed == Some(rung) {
                "failed"
            } else {
                "not reached"
            };
            writeln!(formatter, "{rung:<17} {result}")?;
        }
        if let Some(failure) = &self.failure {
            write!(formatter, "{:<17} ", "because")?;
            self.surroundings.explain(failure, formatter)?;
            writeln!(formatter)?;
        }
        writeln!(formatter, "{}", self.surroundings)?;
        write!(formatter, "backend           {}", self.kind)
    }
}

/// Switches and limits that decide whether a ring can be had.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// `kernel.io_uring_disabled` (Linux 6.6): 0 nobody is refused, 1 those outside of `io_uring_group`, 2 all.
    pub io_uring_disabled: Option<u32>,
    /// Mode of this process: 0 none, 1 strict, 2 a filter.
    pub seccomp: Option<u32>,
    /// Soft limit of locked memory in bytes; `None` is no limit. Buffer rings count from 6.14 on.
    pub memlock_bytes: Option<u64>,
}

impl Surroundings {
    pub(super) fn look() -> Self {
        let number = |text: &str| text.trim().parse().ok();
        let read = |path| fs::read_to_string(path).ok();
        Self {
            io_uring_disabled: read("/proc/sys/kernel/io_uring_disabled").and_then(|text| number(&text)),
            seccomp: read("/proc/thread-self/status").and_then(|status| {
                status.lines().find_map(|line| line.strip_prefix("Seccomp:")).and_then(number)
            }),
            memlock_bytes: getrlimit(Resource::Memlock).current,
        }
    }

    /// One line on a failure, with what is likely behind it.
    pub(super) fn explain(&self, failure: &Failure, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match failure {
            Failure::Setup(error) => {
                write!(formatter, "no ring can be set up: {error}")?;
                match error.raw_os_error() {
                    Some(libc::EPERM | libc::EACCES) => match (self.io_uring_disabled, self.seccomp) {
                        (Some(switch @ 1..), _) => {
                            write!(formatter, " (switched off by kernel.io_uring_disabled = {switch})")
                        }
                        (_, Some(2)) => formatter.write_str(
                            " (this process is under a seccomp filter: the default profiles of containers forbid io_uring)",
                        ),
                        _ => Ok(()),
                    },
                    Some(libc::ENOSYS) => formatter.write_str(" (the kernel has no io_uring, or hides it)"),
                    Some(libc::EINVAL) => formatter.write_str(" (Linux 6.1 or later is needed)"),
                    Some(libc::ENOMEM) => self.explain_memory(formatter),
                    _ => Ok(()),
                }
            }
            Failure::Features(missing) => write!(formatter, "the ring lacks {}", missing.join(", ")),
            Failure::Probe(error) => write!(formatter, "the ring does not tell its operations: {error}"),
            Failure::Operations(missing) => write!(formatter, "the ring cannot {}", missing.join(", ")),
            Failure::Buffers(error) => {
                write!(formatter, "the ring takes no provided buffers: {error}")?;
                match error.raw_os_error() {
                    Some(libc::ENOMEM) => self.explain_memory(formatter),
                    _ => Ok(()),
                }
            }
            Failure::Behaviour(mismatch) => write!(formatter, "the self-test failed: {mismatch}"),
        }
    }

    fn explain_memory(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.memlock_bytes {
            Some(bytes) => write!(formatter, " (locked memory is limited to {bytes} bytes)"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Surroundings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.io_uring_disabled {
            Some(switch) => writeln!(formatter, "io_uring_disabled {switch}")?,
            None => writeln!(formatter, "io_uring_disabled no such switch (before Linux 6.6)")?,
        }
        match self.seccomp {
            Some(0) => writeln!(formatter, "seccomp           none")?,
            Some(1) => writeln!(formatter, "seccomp           strict")?,
            Some(2) => writeln!(formatter, "seccomp           a filter")?,
            Some(mode) => writeln!(formatter, "seccomp           mode {mode}")?,
            None => writeln!(formatter, "seccomp           unknown")?,
        }
        match self.memlock_bytes {
            Some(bytes) => write!(formatter, "locked memory     at most {bytes} bytes"),
            None => write!(formatter, "locked memory     no limit"),
        }
    }
}
