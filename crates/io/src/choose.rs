//! Which backend this process uses, and why.
//!
//! The ladder: set a ring up, ask for features and operations, register buffers, then see it work on a pair of
//! sockets. Any rung that does not hold means epoll.

mod diagnosis;
mod trial;

use std::{fmt, io};

pub use self::{
    diagnosis::{Diagnosis, Rung, Surroundings, diagnose},
    trial::Mismatch,
};
use crate::{Uring, UringOptions};

/// What the operator asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The ring where it works, epoll elsewhere.
    #[default]
    Auto,
    /// The ring, or nothing.
    Uring,
    /// Epoll, without a look at the ring.
    Epoll,
}

/// A backend's kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`Uring`].
    Uring,
    /// [`Epoll`](crate::Epoll).
    Epoll,
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Uring => "uring",
            Self::Epoll => "epoll",
        })
    }
}

/// A choice that was made.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// Which.
    pub kind: Kind,
    /// Why, in one line for the log.
    pub reason: String,
}

/// The ring was asked for, and does not work here.
#[derive(Debug)]
pub struct Refused {
    /// The rung that did not hold.
    pub failure: Failure,
    surroundings: Surroundings,
}

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.surroundings.explain(&self.failure, formatter)
    }
}

impl std::error::Error for Refused {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.failure {
            Failure::Setup(error) | Failure::Probe(error) | Failure::Buffers(error) => Some(error),
            Failure::Features(_) | Failure::Operations(_) => None,
            Failure::Behaviour(mismatch) => Some(mismatch),
        }
    }
}

/// Why the ring is of no use.
#[derive(Debug)]
pub enum Failure {
    /// The kernel does not set one up: too old, switched off, forbidden, or out of memory.
    Setup(io::Error),
    /// It lacks these features.
    Features(Vec<&'static str>),
    /// It does not tell its operations.
    Probe(io::Error),
    /// It lacks these operations.
    Operations(Vec<&'static str>),
    /// It does not take provided buffers.
    Buffers(io::Error),
    /// It works otherwise than the backend relies on.
    Behaviour(Mismatch),
}

/// Chooses the backend: to be called once, before the shards start. A short-lived ring is tried on this thread.
///
/// # Errors
/// Only for [`Choice::Uring`], where the ring does not do.
///
/// ```
/// use tidegate_io::{Choice, Kind, choose};
///
/// let chosen = choose(Choice::Epoll)?;
/// assert_eq!(chosen.kind, Kind::Epoll);
/// # Ok::<(), tidegate_io::Refused>(())
/// ```
pub fn choose(choice: Choice) -> Result<Chosen, Refused> {
    if choice == Choice::Epoll {
        return Ok(Chosen { kind: Kind::Epoll, reason: "asked for".into() });
    }
    match climb(|_| {}) {
        Ok(()) => Ok(Chosen { kind: Kind::Uring, reason: "the self-test passed".into() }),
        Err(failure) => {
            let refused = Refused { failure, surroundings: Surroundings::look() };
            match choice {
                Choice::Uring => Err(refused),
                Choice::Auto | Choice::Epoll => Ok(Chosen { kind: Kind::Epoll, reason: refused.to_string() }),
            }
        }
    }
}

/// Climbs the ladder, and says which rungs held.
fn climb(mut held: impl FnMut(Rung)) -> Result<(), Failure> {
    let mut uring = Uring::open(&UringOptions { buffers: 8, sq_entries: 8, cq_entries: 32 }, &mut held)?;
    trial::run(&mut uring).map_err(Failure::Behaviour)?;
    held(Rung::Trial);
    Ok(())
}
