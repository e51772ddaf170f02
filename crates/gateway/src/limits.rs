//! The process's limits: raised to what may be had, and held against what the configuration needs.

use std::{fmt, fs};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tidegate_config::{Action, Config, DEFAULT_MAX_SESSIONS};
use tidegate_io::UringOptions;
use tidegate_shard::SPARE_SLOTS;

/// Descriptors of the process beside its shards': standard streams, signals, resolving, the self-test's ring.
const OWN: usize = 32;

/// Descriptors of the admin listener: its connections, its ring and itself.
const ADMIN: usize = tidegate_control::CONNECTIONS + 16;

/// Descriptors of a shard beside its sessions' and listeners': the ring or epoll, its waker, the connections that are
/// answered 503 when all sessions are taken, and some room for those that are closing.
const SHARD: usize = 16 + SPARE_SLOTS;

/// Raises a soft limit to its hard one; gives what holds then, `None` for no limit.
///
/// The soft limit of 1024 descriptors exists for programs that use select(2) (systemd, "File Descriptor Limits"); this
/// one does not.
pub(crate) fn raise(resource: Resource) -> Option<u64> {
    let Rlimit { maximum, .. } = getrlimit(resource);
    // Where that is refused, the limit stays as it is: `getrlimit` tells.
    let _ = setrlimit(resource, Rlimit { current: maximum, maximum });
    getrlimit(resource).current
}

/// What a configuration needs of descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    /// Whatever the sessions.
    pub(crate) fixed: usize,
    /// For each session: two where some route is proxied.
    pub(crate) each: usize,
}

impl Need {
    pub(crate) fn of(config: &Config, shards: usize) -> Self {
        let proxied = config.routes.iter().any(|route| matches!(route.action, Action::Proxy(_)));
        let admin = if config.admin.is_some() { ADMIN } else { 0 };
        let fixed = OWN + admin + shards * (SHARD + config.listeners.len());
        Self { fixed, each: if proxied { 2 } else { 1 } }
    }

    /// Descriptors for so many sessions.
    pub(crate) fn total(&self, sessions: usize) -> usize {
        sessions.saturating_mul(self.each).saturating_add(self.fixed)
    }

    /// Sessions that so many descriptors allow.
    pub(crate) fn sessions(&self, descriptors: Option<u64>) -> usize {
        let descriptors = descriptors.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
        descriptors.saturating_sub(self.fixed) / self.each
    }
}

/// How many sessions the process takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sessions {
    pub(crate) count: usize,
    /// Fewer than by default, for want of descriptors.
    pub(crate) lowered: bool,
}

/// The descriptors do not suffice for what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooFewDescriptors {
    need: Need,
    /// Those that were asked for, else the fewest.
    sessions: usize,
    /// One for each shard: with fewer there is no start.
    fewest: usize,
    fitting: usize,
    /// So many shards could start with what was asked for; or none.
    fitting_shards: usize,
    limit: u64,
}

impl fmt::Display for TooFewDescriptors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { need, sessions, fewest, fitting, fitting_shards, limit } = self;
        let legs = if need.each == 2 { "two each, as there is a proxied route" } else { "one each" };
        let (even, needed) = (if sessions == fewest { "even " } else { "" }, need.total(*sessions));
        write!(
            f,
            "{even}max_sessions = {sessions} needs {needed} descriptors ({legs}, and {} for the gateway itself), but \
             the hard limit of this process is {limit}: raise it to at least {needed} (ulimit -Hn, or LimitNOFILE= of \
             the service)",
            need.fixed,
        )?;
        if fitting >= fewest {
            write!(f, ", or set max_sessions to at most {fitting}")
        } else if *fitting_shards > 0 {
            write!(f, ", or set shards to at most {fitting_shards}")
        } else if sessions > fewest {
            write!(f, "; with max_sessions = {fewest}, one for each shard, {} suffice", need.total(*fewest))
        } else {
            Ok(())
        }
    }
}

impl std::error::Error for TooFewDescriptors {}

/// How many sessions to take with so many descriptors; no fewer than shards.
///
/// # Errors
/// Where the configuration asks for more than fit; where it asks for no number, only if there is not one for each shard.
pub(crate) fn sessions(
    config: &Config,
    shards: usize,
    descriptors: Option<u64>,
) -> Result<Sessions, TooFewDescriptors> {
    let need = Need::of(config, shards);
    let fitting = need.sessions(descriptors);
    let (wanted, least) = match config.limits.max_sessions {
        Some(count) => (count.max(shards), count.max(shards)),
        None => (DEFAULT_MAX_SESSIONS.max(shards), shards),
    };
    if fitting < least {
        let limit = descriptors.unwrap_or(u64::MAX);
        let starts = |shards: &usize| {
            let least = config.limits.max_sessions.unwrap_or(0).max(*shards);
            Need::of(config, *shards).sessions(descriptors) >= least
        };
        let fitting_shards = (1..shards).rev().find(starts).unwrap_or(0);
        return Err(TooFewDescriptors {
            need,
            sessions: least,
            fewest: shards,
            fitting,
            fitting_shards,
            limit,
        });
    }
    Ok(Sessions { count: wanted.min(fitting), lowered: fitting < wanted })
}

/// Locked memory that a process may have, for its rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lockable {
    /// `None` for no limit.
    bytes: Option<u64>,
}

/// A quarter of the completion queue's entries, where nothing is scarce.
const MOST_ENTRIES: u32 = 4096;

/// Below this a turn would need several system calls for ordinary loads.
const LEAST_ENTRIES: u32 = 256;

impl Lockable {
    /// Raises the limit, and looks whether it counts for this process.
    pub(crate) fn raise() -> Self {
        let bytes = raise(Resource::Memlock);
        // The kernel does not charge those who may lock as they please (capabilities(7)).
        const CAP_IPC_LOCK: u64 = 1 << 14;
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
        Self { bytes: bytes.filter(|_| effective & CAP_IPC_LOCK == 0) }
    }

    /// `None` for no limit.
    pub(crate) fn bytes(self) -> Option<u64> {
        self.bytes
    }

    /// The longest queues that so many shards can have.
    ///
    /// The usual limit of a service is 8 MiB: 26 full-sized rings. Shorter queues cost a system call more in a turn that
    /// fills them, while the other backend costs more in every turn.
    pub(crate) fn entries(self, config: &Config, shards: usize) -> u32 {
        let mut entries = MOST_ENTRIES;
        while entries > LEAST_ENTRIES
            && self.bytes.is_some_and(|bytes| ring_bytes(config, shards, entries) > bytes)
        {
            entries /= 2;
        }
        entries
    }
}

/// Half as many entries, where that is not too few.
pub(crate) fn fewer_entries(entries: u32) -> Option<u32> {
    (entries > LEAST_ENTRIES).then_some(entries / 2)
}

/// How a shard's ring is set up.
pub(crate) fn ring(config: &Config, entries: u32) -> UringOptions {
    let sq_entries = entries.min(UringOptions::default().sq_entries);
    UringOptions { buffers: config.limits.receive_buffers, sq_entries, cq_entries: entries * 4 }
}

/// Bytes of locked memory that the rings of so many shards are charged for (measured on Linux 6.18; from 6.14 on): 64
/// bytes for each entry of the submission queue, 16 for each of the completion queue and of the buffer ring, in whole
/// pages; and what the self-test's ring had, which the kernel gives back a little later.
pub(crate) fn ring_bytes(config: &Config, shards: usize, entries: u32) -> u64 {
    const PAGE: u64 = 4096;
    const HEAD: u64 = 512;
    const SELF_TEST: u64 = 4 * PAGE;
    let UringOptions { buffers, sq_entries, cq_entries } = ring(config, entries);
    let queues = (u64::from(sq_entries) * 64).next_multiple_of(PAGE)
        + (u64::from(cq_entries) * 16 + HEAD).next_multiple_of(PAGE);
    let buffers = (u64::from(buffers) * 16).next_multiple_of(PAGE);
    (queues + buffers) * shards as u64 + SELF_TEST
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(max_sessions: Option<usize>, proxied: bool) -> Config {
        let proxy = "[[route]]\npath = '/p'\nproxy = { upstreams = ['ws://a'] }\n";
        let text = format!("{}{}", tidegate_config::EMBEDDED, if proxied { proxy } else { "" });
        let mut config = tidegate_config::parse(&text, "t.toml").unwrap();
        config.limits.max_sessions = max_sessions;
        config
    }

    #[test]
    fn a_proxied_session_needs_two() {
        assert_eq!(Need::of(&config(None, false), 2), Need { fixed: 32 + 2 * 81, each: 1 });
        assert_eq!(Need::of(&config(None, true), 2), Need { fixed: 32 + 2 * 81, each: 2 });
    }

    #[test]
    fn what_fits_is_the_inverse_of_what_is_needed() {
        for proxied in [false, true] {
            let need = Need::of(&config(None, proxied), 3);
            for sessions in [0, 1, 7, 100_000] {
                let total = need.total(sessions) as u64;
                assert_eq!(need.sessions(Some(total)), sessions);
                assert_eq!(need.sessions(Some(total - 1)), sessions.saturating_sub(1));
            }
            assert_eq!(need.sessions(Some(0)), 0);
            assert!(need.sessions(None) >= usize::MAX / 2 - need.fixed);
        }
    }

    #[test]
    fn sessions_that_were_asked_for_must_fit() {
        let asked = config(Some(1000), false);
        let needed = Need::of(&asked, 1).total(1000) as u64;
        assert_eq!(sessions(&asked, 1, Some(needed)), Ok(Sessions { count: 1000, lowered: false }));
        let error = sessions(&asked, 1, Some(needed - 1)).unwrap_err().to_string();
        assert!(error.contains("max_sessions = 1000 needs 1113 descriptors"), "{error}");
        assert!(error.contains("is 1112") && error.contains("at most 999"), "{error}");
        let error = sessions(&asked, 2, Some(30)).unwrap_err().to_string();
        assert!(
            error.contains("to at least 1194 (") && error.contains("; with max_sessions = 2, "),
            "{error}"
        );
        assert!(error.ends_with("196 suffice"), "{error}");
        let error = sessions(&asked, 8, Some(300)).unwrap_err().to_string();
        assert!(error.ends_with("; with max_sessions = 8, one for each shard, 688 suffice"), "{error}");
        let proxied = config(Some(1000), true);
        assert!(sessions(&proxied, 1, Some(needed)).unwrap_err().to_string().contains("two each"));
    }

    #[test]
    fn the_default_takes_what_fits() {
        let silent = config(None, false);
        assert_eq!(sessions(&silent, 1, Some(20_000)), Ok(Sessions { count: 20_000 - 113, lowered: true }));
        assert_eq!(sessions(&silent, 1, Some(1 << 20)), Ok(Sessions { count: 100_000, lowered: false }));
        assert_eq!(sessions(&silent, 1, None), Ok(Sessions { count: 100_000, lowered: false }));
        let error = sessions(&silent, 1, Some(113)).unwrap_err().to_string();
        assert!(error.starts_with("even max_sessions = 1 needs 114 descriptors"), "{error}");
        assert!(error.ends_with("to at least 114 (ulimit -Hn, or LimitNOFILE= of the service)"), "{error}");
        let error = sessions(&silent, 8, Some(300)).unwrap_err().to_string();
        assert!(error.ends_with("or set shards to at most 3"), "{error}");
        assert!(sessions(&silent, 3, Some(300)).is_ok());
    }

    #[test]
    fn queues_are_as_long_as_locked_memory_allows() {
        let config = config(None, false);
        let entries = |bytes, shards| Lockable { bytes }.entries(&config, shards);
        let kib = |kib: u64| Some(kib << 10);
        assert_eq!(ring_bytes(&config, 1, 4096), (32 + 260 + 16 + 16) << 10);
        assert_eq!((entries(None, 64), entries(kib(8192), 2)), (4096, 4096));
        // Debian's and systemd's usual 8 MiB.
        assert_eq!(
            (entries(kib(8192), 26), entries(kib(8192), 27), entries(kib(8192), 64)),
            (4096, 2048, 1024)
        );
        assert_eq!((entries(kib(64), 1), entries(Some(0), 1)), (256, 256));
        for shards in [1, 2, 7, 64] {
            let most = ring_bytes(&config, shards, 1024);
            assert_eq!((entries(Some(most), shards), entries(Some(most - 1), shards)), (1024, 512));
        }
        assert_eq!(
            (fewer_entries(4096), fewer_entries(512), fewer_entries(256)),
            (Some(2048), Some(256), None)
        );
    }
}
