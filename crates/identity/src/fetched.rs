//! Keys that somebody fetches, and that are replaced while tokens are judged by them.
//!
//! Nothing is fetched here: whoever does brings what came ([`FetchedKeys::put`]), and asks how it stands.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use arc_swap::ArcSwapOption;
use tidegate_config::{Algorithm, HttpUrl};

use crate::{jwk::KeySet, key::Key};

/// The keys of one URL for some algorithms; none until they first came.
#[derive(Debug)]
pub struct FetchedKeys {
    url: HttpUrl,
    algorithms: Vec<Algorithm>,
    keys: ArcSwapOption<Vec<Key>>,
    /// A token names a key that is not among them.
    wanted: AtomicBool,
    fetched: AtomicU64,
    failed: AtomicU64,
    fetched_unix_seconds: AtomicU64,
}

/// How fetching keys goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fetches {
    /// Keys that can be used now.
    pub keys: usize,
    /// Answers that were taken over.
    pub fetched: u64,
    /// Those that were not, or did not come.
    pub failed: u64,
    /// When keys last came, in seconds since 1970; 0: never.
    pub fetched_unix_seconds: u64,
}

/// What became of a key set that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// How many keys can be used.
    pub keys: usize,
    /// What is said of the others.
    pub warnings: Vec<String>,
}

impl FetchedKeys {
    pub(crate) fn new(url: &HttpUrl, algorithms: &[Algorithm]) -> Self {
        Self {
            url: url.clone(),
            algorithms: algorithms.to_vec(),
            keys: ArcSwapOption::empty(),
            wanted: AtomicBool::new(false),
            fetched: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            fetched_unix_seconds: AtomicU64::new(0),
        }
    }

    /// Whether these are the keys of that URL, too.
    pub(crate) fn is_of(&self, url: &HttpUrl, algorithms: &[Algorithm]) -> bool {
        self.url == *url && self.algorithms == algorithms
    }

    pub(crate) fn load(&self) -> Option<Arc<Vec<Key>>> {
        self.keys.load_full()
    }

    /// Where they are.
    #[must_use]
    pub fn url(&self) -> &HttpUrl {
        &self.url
    }

    /// Takes a key set over that came at this time. Tokens are judged by it from then on.
    ///
    /// # Errors
    /// Why it is none that can be used: then the keys of before stay. Nothing of it is in the text but names of keys.
    pub fn put(&self, json: &[u8], unix_seconds: u64) -> Result<Put, String> {
        let KeySet { keys, warnings } =
            KeySet::parse(json, &self.algorithms).map_err(|error| error.to_string())?;
        let put = Put { keys: keys.len(), warnings };
        self.keys.store(Some(Arc::new(keys)));
        self.fetched_unix_seconds.store(unix_seconds, Ordering::Relaxed);
        self.fetched.fetch_add(1, Ordering::Relaxed);
        Ok(put)
    }

    /// Counts that none came, or none that can be used.
    pub fn count_failure(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Wants them to be fetched: a token names another key. False where that is wanted already.
    pub fn want(&self) -> bool {
        !self.wanted.swap(true, Ordering::AcqRel)
    }

    /// They are about to be fetched: what is wanted from now on is wanted anew.
    pub fn begin(&self) {
        self.wanted.store(false, Ordering::Release);
    }

    /// How it goes.
    #[must_use]
    pub fn fetches(&self) -> Fetches {
        Fetches {
            keys: self.keys.load().as_ref().map_or(0, |keys| keys.len()),
            fetched: self.fetched.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            fetched_unix_seconds: self.fetched_unix_seconds.load(Ordering::Relaxed),
        }
    }
}
