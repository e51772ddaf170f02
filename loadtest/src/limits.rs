//! What the system allows, looked at before the start: descriptors and ports.

use std::{fmt, fs};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::plan::Plan;

/// Descriptors of the process beside its sessions': standard streams, signals, files in /proc.
const OWN: u64 = 32;
/// Descriptors of a thread beside its sessions': the ring or epoll, its waker.
const THREAD: u64 = 8;
/// What Linux gives where nothing else is set.
const PORTS: (u16, u16) = (32_768, 60_999);

/// Why a run cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TooFew {
    Descriptors { needed: u64, limit: u64, connections: u32 },
    Ports { connections: u32, range: (u16, u16), sources: u64 },
}

impl fmt::Display for TooFew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Descriptors { needed, limit, connections } => {
                write!(
                    f,
                    "{connections} sessions need {needed} descriptors, but the hard limit of a process is \
                     {limit}: raise it (ulimit -Hn {needed}, or LimitNOFILE= of a service), take several processes (--processes), or \
                     -c {} at most in each",
                    limit.saturating_sub(needed - u64::from(*connections))
                )
            }
            Self::Ports { connections, range: (low, high), sources } => {
                let ports = u64::from(high - low) + 1;
                let needed = u64::from(*connections).div_ceil(ports);
                write!(
                    f,
                    "{connections} sessions need as many ports, but there are {ports} ({low} to {high}) for each of \
                     {sources} source address{}: give {needed} addresses of this machine (--source A,B; in front of a \
                     server on 127.0.0.1 any in 127.0.0.0/8 will do), or widen net.ipv4.ip_local_port_range",
                    if *sources == 1 { "" } else { "es" }
                )
            }
        }
    }
}

impl std::error::Error for TooFew {}

/// Raises the limit of descriptors, and holds what there is against what the plan needs.
///
/// # Errors
/// What there is too little of.
pub(crate) fn check(plan: &Plan) -> Result<(), TooFew> {
    raise_descriptors();
    let threads = u64::from(plan.threads.div_ceil(plan.processes));
    // A little more than its share, where sessions are dealt out to threads.
    let most = plan.connections.div_ceil(plan.threads).saturating_mul(plan.threads.div_ceil(plan.processes));
    descriptors(most.min(plan.connections), threads, getrlimit(Resource::Nofile).current)?;
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok();
    let range = range.and_then(|text| parse_range(&text)).unwrap_or(PORTS);
    ports(plan.connections, plan.sources.len() as u64, range)
}

/// Raises the soft limit of descriptors to the hard one. Where that is refused it stays as it is, as `getrlimit` tells.
pub(crate) fn raise_descriptors() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

fn descriptors(connections: u32, threads: u64, limit: Option<u64>) -> Result<(), TooFew> {
    let needed = u64::from(connections) + OWN + THREAD * threads;
    match limit {
        Some(limit) if limit < needed => Err(TooFew::Descriptors { needed, limit, connections }),
        Some(_) | None => Ok(()),
    }
}

fn ports(connections: u32, sources: u64, range: (u16, u16)) -> Result<(), TooFew> {
    let sources = sources.max(1);
    let ports = (u64::from(range.1 - range.0) + 1) * sources;
    if u64::from(connections) > ports {
        return Err(TooFew::Ports { connections, range, sources });
    }
    Ok(())
}

fn parse_range(text: &str) -> Option<(u16, u16)> {
    let mut numbers = text.split_whitespace().map(str::parse);
    let range = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    (range.0 <= range.1).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_few_descriptors_are_told_with_the_cure() {
        assert_eq!(descriptors(1000, 2, Some(1048)), Ok(()));
        assert_eq!(descriptors(1000, 2, None), Ok(()));
        let error = descriptors(1000, 2, Some(1047)).unwrap_err().to_string();
        assert!(error.contains("need 1048") && error.contains("ulimit -Hn 1048"), "{error}");
        assert!(error.ends_with("-c 999 at most in each"), "{error}");
    }

    #[test]
    fn too_few_ports_are_told_with_the_cure() {
        assert_eq!(parse_range("32768\t60999\n"), Some((32_768, 60_999)));
        assert_eq!(ports(200, 2, (1000, 1099)), Ok(()));
        let error = ports(201, 2, (1000, 1099)).unwrap_err().to_string();
        assert!(error.contains("give 3 addresses"), "{error}");
    }
}
