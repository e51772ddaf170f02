//! Why `tidegate run` ends with 1, in words.

use std::{fmt, io};

use tidegate_io::Kind;

use crate::{limits::TooFewDescriptors, listeners::BindError};

/// Why the gateway does not run, or not any more.
#[derive(Debug)]
pub(crate) enum Fault {
    Descriptors(TooFewDescriptors),
    Backend(tidegate_io::Refused),
    Bind(BindError),
    /// The system refused something that a start needs.
    System(&'static str, io::Error),
    /// A shard's backend cannot be made.
    Open(NoBackend),
    /// A shard has ended by itself.
    Shard(u16, io::Error),
    /// A shard's thread is gone.
    Panicked(u16),
}

/// A backend that one shard could not make, though the self-test had passed.
#[derive(Debug)]
pub(crate) struct NoBackend {
    pub(crate) shard: u16,
    pub(crate) kind: Kind,
    pub(crate) source: io::Error,
    /// Locked memory: what is needed, and what may be had.
    pub(crate) locked: (u64, Option<u64>),
}

impl fmt::Display for NoBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shard, kind, source, locked } = self;
        write!(f, "shard {shard} cannot set up {kind}: {source}")?;
        match *locked {
            (needed, Some(limit)) if source.kind() == io::ErrorKind::OutOfMemory && *kind == Kind::Uring => {
                write!(
                    f,
                    " (its rings need {needed} bytes of locked memory, of which this process may have {limit}: raise it \
                 (ulimit -l, or LimitMEMLOCK= of the service), or set fewer shards or receive_buffers)"
                )
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Descriptors(error) => write!(f, "{error}"),
            Self::Backend(refused) => write!(f, "io_uring was asked for and cannot be used: {refused}"),
            Self::Bind(error) => write!(f, "{error}"),
            Self::System(what, error) => write!(f, "{what}: {error}"),
            Self::Open(error) => write!(f, "{error}"),
            Self::Shard(shard, error) => write!(f, "shard {shard} has failed: {error}"),
            Self::Panicked(shard) => write!(f, "shard {shard} has panicked"),
        }
    }
}

impl std::error::Error for Fault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Descriptors(error) => Some(error),
            Self::Backend(error) => Some(error),
            Self::Bind(error) => Some(error),
            Self::Open(error) => Some(&error.source),
            Self::System(_, error) | Self::Shard(_, error) => Some(error),
            Self::Panicked(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn want_of_locked_memory_is_told_with_what_is_needed() {
        let no_backend = |kind, errno, limit| {
            let source = io::Error::from_raw_os_error(errno);
            Fault::Open(NoBackend { shard: 3, kind, source, locked: (1 << 20, limit) }).to_string()
        };
        let memory = rustix::io::Errno::NOMEM.raw_os_error();
        let told = no_backend(Kind::Uring, memory, Some(65_536));
        assert!(told.starts_with("shard 3 cannot set up uring: "), "{told}");
        assert!(
            told.contains("need 1048576 bytes of locked memory, of which this process may have 65536"),
            "{told}"
        );
        assert!(told.contains("(ulimit -l, or LimitMEMLOCK= of the service)"), "{told}");
        // Without a limit, on the other backend and for another reason that is no help.
        let files = rustix::io::Errno::MFILE.raw_os_error();
        for other in [
            no_backend(Kind::Uring, memory, None),
            no_backend(Kind::Epoll, memory, Some(65_536)),
            no_backend(Kind::Uring, files, Some(65_536)),
        ] {
            assert!(!other.contains("locked memory"), "{other}");
        }
    }
}
