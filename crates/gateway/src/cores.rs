//! Which cores this process may use, and which shard gets which.

use std::{io, thread};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tidegate_config::Config;

/// The cores that this process may use.
#[derive(Clone, Debug)]
pub(crate) struct Cores {
    /// By its affinity (taskset, cpuset), ascending.
    allowed: Vec<usize>,
    /// How many of them its cgroup's quota is worth; at least 1.
    usable: usize,
}

impl Cores {
    /// # Errors
    /// Where the kernel does not tell.
    pub(crate) fn look() -> io::Result<Self> {
        let set = sched_getaffinity(None)?;
        let allowed: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect();
        Ok(Self { usable: thread::available_parallelism()?.get(), allowed })
    }

    /// How many shards to start: where the configuration does not say, one for each core that can be used, and no more
    /// of them than sessions.
    pub(crate) fn shards(&self, config: &Config) -> usize {
        config.shards.unwrap_or_else(|| self.usable.min(config.limits.max_sessions.unwrap_or(usize::MAX)))
    }

    /// How many cores can be used.
    pub(crate) fn usable(&self) -> usize {
        self.usable
    }

    /// How many cores the affinity allows.
    pub(crate) fn allowed(&self) -> usize {
        self.allowed.len()
    }

    /// The core of each of so many shards; `None` where pinning would do harm.
    ///
    /// With more shards than cores, two would share one while the scheduler could balance them. With fewer, and under a
    /// quota of fewer cores than there are, every gateway of the machine would pin itself to the same first ones; who
    /// wants to choose them says so by affinity (taskset, cpuset).
    pub(crate) fn pins(&self, shards: usize) -> Option<&[usize]> {
        let own = self.usable == self.allowed.len() && shards == self.allowed.len();
        own.then_some(&self.allowed)
    }
}

/// Pins the calling thread to one core.
///
/// # Errors
/// Where the kernel refuses, as when the core was taken away meanwhile.
pub(crate) fn pin(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_pinned_where_there_is_one_for_each_core() {
        let cores = Cores { allowed: vec![2, 3, 7], usable: 3 };
        assert_eq!(cores.pins(2), None);
        assert_eq!(cores.pins(3), Some(&[2, 3, 7][..]));
        assert_eq!(cores.pins(4), None);
        let quota = Cores { allowed: vec![0, 1, 2, 3], usable: 2 };
        assert_eq!((quota.pins(2), quota.pins(4)), (None, None));
    }

    #[test]
    fn a_thread_can_be_pinned_to_each_core_that_is_allowed() {
        let cores = Cores::look().unwrap();
        assert!(cores.usable() >= 1 && cores.usable() <= cores.allowed());
        for core in cores.allowed {
            let pinned =
                thread::spawn(move || pin(core).map(|()| Cores::look().unwrap().allowed)).join().unwrap();
            assert_eq!(pinned.unwrap(), [core]);
        }
    }
}
