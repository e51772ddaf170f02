//! Paths of what is neither read nor made here: the log, and the admin listener's socket.

use std::path::{Path, PathBuf};

use crate::Problem;

/// A path that the configuration names. Nothing is opened here: whoever uses it does that.
#[derive(Clone, Debug)]
pub struct NamedPath {
    path: PathBuf,
    /// What is wrong with it is told there.
    place: Problem,
}

impl NamedPath {
    pub(crate) fn new(path: impl Into<PathBuf>, place: Problem) -> Self {
        Self { path: path.into(), place }
    }

    /// The path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is wrong with it, told where the configuration names it.
    #[must_use]
    pub fn problem(&self, why: &str) -> Problem {
        self.place.about(&self.path, why)
    }
}

/// Where it is named does not count.
impl PartialEq for NamedPath {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path
    }
}

impl Eq for NamedPath {}
