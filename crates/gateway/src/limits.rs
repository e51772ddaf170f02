//! The process's limits: raised to what may be had, and held against what the configuration needs.

use std::fmt;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tidegate_config::{Action, Config, DEFAULT_MAX_SESSIONS};

/// Descriptors of the process beside its shards': standard streams, signals, resolving, the self-test's ring.
const OWN: usize = 32;

/// Descriptors of a shard beside its sessions' and listeners': the ring or epoll, its waker, and 64 connections that are
/// answered 503 when all sessions are taken, with some room for those that are closing.
const SHARD: usize = 80;

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
        let fixed = OWN + shards * (SHARD + config.listeners.len());
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
    sessions: usize,
    fitting: usize,
    limit: u64,
}

impl fmt::Display for TooFewDescriptors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { need, sessions, fitting, limit } = self;
        let legs = if need.each == 2 { "two each, as there is a proxied route" } else { "one each" };
        write!(
            f,
            "max_sessions = {sessions} needs {} descriptors ({legs}, and {} for the gateway itself), but the hard limit \
             of this process is {limit}: raise it (ulimit -Hn, or LimitNOFILE= of the service), or set max_sessions to \
             at most {fitting}",
            need.total(*sessions),
            need.fixed,
        )
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
        return Err(TooFewDescriptors { need, sessions: least, fitting, limit });
    }
    Ok(Sessions { count: wanted.min(fitting), lowered: fitting < wanted })
}

/// Bytes of locked memory that the rings of so many shards are charged for: 16 bytes for each entry of a buffer ring, in
/// whole pages, from Linux 6.14 on.
pub(crate) fn locked_bytes(config: &Config, shards: usize) -> u64 {
    const PAGE: u64 = 4096;
    let ring = (u64::from(config.limits.receive_buffers) * 16).next_multiple_of(PAGE);
    ring * shards as u64
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
        let proxied = config(Some(1000), true);
        assert!(sessions(&proxied, 1, Some(needed)).unwrap_err().to_string().contains("two each"));
    }

    #[test]
    fn the_default_takes_what_fits() {
        let silent = config(None, false);
        assert_eq!(sessions(&silent, 1, Some(20_000)), Ok(Sessions { count: 20_000 - 113, lowered: true }));
        assert_eq!(sessions(&silent, 1, Some(1 << 20)), Ok(Sessions { count: 100_000, lowered: false }));
        assert_eq!(sessions(&silent, 1, None), Ok(Sessions { count: 100_000, lowered: false }));
        assert!(sessions(&silent, 1, Some(113)).is_err());
        assert!(sessions(&silent, 8, Some(300)).is_err());
    }

    #[test]
    fn rings_are_charged_in_pages() {
        let mut config = config(None, false);
        assert_eq!(locked_bytes(&config, 2), 2 * 16 * 1024);
        config.limits.receive_buffers = 16;
        assert_eq!(locked_bytes(&config, 3), 3 * 4096);
    }
}
