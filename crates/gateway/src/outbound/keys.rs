//! Key sets: fetched again and again, and sooner where a token names a key that is not among them.
//!
//! What fails leaves the keys of before in force. Where there are none yet nobody is believed.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::{Duration, Instant},
};

use http_body_util::Full;
use hyper::{
    Method, Request, StatusCode,
    body::Bytes,
    header::{ACCEPT, USER_AGENT},
};
use tidegate_config::{KeySetUrl, TokenKeys};
use tidegate_identity::{FetchedKeys, Identity};
use tidegate_shard::Plan;
use tokio::{
    sync::Notify,
    task::AbortHandle,
    time::{sleep_until, timeout_at},
};
use tracing::{info, warn};

use super::{
    Sparing,
    http::{HttpClient, NoAnswer},
    unix_seconds,
};

/// Longest key set: a hundred keys with their certificates.
const MAX_BYTES: usize = 1 << 20;

/// The first wait after a failure; it doubles up to the interval, and to [`LONGEST_RETRY`].
const RETRY: Duration = Duration::from_secs(1);

/// Who lets tokens in again should not be waited for much longer than necessary.
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// Tokens can name keys that nobody has: they bring no more fetches than one in this time.
const HURRIED: Duration = Duration::from_secs(10);

/// How often the same failure is told.
const TOLD: Duration = Duration::from_secs(60);

/// What fetches the key sets of a configuration.
pub(super) struct Fetchers {
    client: HttpClient,
    running: Vec<Fetcher>,
}

struct Fetcher {
    keys: Arc<FetchedKeys>,
    settings: KeySetUrl,
    bell: Arc<Notify>,
    task: AbortHandle,
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fetchers {
    pub(super) fn new(client: HttpClient) -> Self {
        Self { client, running: Vec::new() }
    }

    /// Fetches a plan's key sets from now on. Those that it has in common with the one before go on.
    pub(super) fn adopt(&mut self, plan: &Plan) {
        let mut before = std::mem::take(&mut self.running);
        for KeySetOf { keys, settings, identity } in key_sets(plan.identities()) {
            let same = |fetcher: &Fetcher| Arc::ptr_eq(&fetcher.keys, keys) && fetcher.settings == settings;
            let fetcher = match before.iter().position(same) {
                Some(place) => before.swap_remove(place),
                None => self.begin(keys, &settings, identity),
            };
            self.running.push(fetcher);
        }
    }

    fn begin(&self, keys: &Arc<FetchedKeys>, settings: &KeySetUrl, identity: &str) -> Fetcher {
        let bell = Arc::new(Notify::new());
        let fetching = Fetching {
            client: self.client.clone(),
            identity: identity.to_owned(),
            keys: Arc::clone(keys),
            settings: settings.clone(),
            failures: 0,
            sparing: Sparing::default(),
            warned: Vec::new(),
            told: None,
        };
        let task = tokio::spawn(fetching.go_on(Arc::clone(&bell))).abort_handle();
        Fetcher { keys: Arc::clone(keys), settings: settings.clone(), bell, task }
    }

    /// Fetches keys before their time.
    pub(super) fn hurry(&self, keys: &Arc<FetchedKeys>) {
        let wanted = self.running.iter().filter(|fetcher| Arc::ptr_eq(&fetcher.keys, keys));
        wanted.for_each(|fetcher| fetcher.bell.notify_one());
    }
}

/// A key set of a plan, and the first identity that has it.
struct KeySetOf<'p> {
    keys: &'p Arc<FetchedKeys>,
    settings: KeySetUrl,
    identity: &'p str,
}

/// The key sets of identities, each once: as often as whoever wants it most often, and with the patience of the most patient.
fn key_sets(identities: &[Arc<Identity>]) -> Vec<KeySetOf<'_>> {
    let mut sets = Vec::<KeySetOf<'_>>::new();
    for identity in identities {
        let (Some(keys), TokenKeys::Url(own)) = (identity.fetched(), &identity.rules().keys) else {
            continue;
        };
        match sets.iter_mut().find(|set| Arc::ptr_eq(set.keys, keys)) {
            Some(KeySetOf { settings, .. }) => {
                settings.interval_ms = settings.interval_ms.min(own.interval_ms);
                settings.timeout_ms = settings.timeout_ms.max(own.timeout_ms);
            }
            None => sets.push(KeySetOf { keys, settings: own.clone(), identity: &identity.rules().name }),
        }
    }
    sets
}

/// One key set.
struct Fetching {
    client: HttpClient,
    identity: String,
    keys: Arc<FetchedKeys>,
    settings: KeySetUrl,
    failures: u32,
    sparing: Sparing,
    /// What was said of the keys that came last.
    warned: Vec<String>,
    /// What stands for the key set that was taken over last: another one is told of, the same again is not.
    told: Option<u64>,
}

impl Fetching {
    async fn go_on(mut self, bell: Arc<Notify>) {
        loop {
            let began = Instant::now();
            self.keys.begin();
            self.fetch().await;
            let due = Instant::now() + jittered(self.wait());
            if timeout_at(due.into(), bell.notified()).await.is_ok() {
                let soonest = began + HURRIED.min(Duration::from_millis(self.settings.interval_ms));
                sleep_until(soonest.min(due).into()).await;
            }
        }
    }

    /// Until it is fetched again.
    fn wait(&self) -> Duration {
        let interval = Duration::from_millis(self.settings.interval_ms);
        match self.failures {
            0 => interval,
            failures => RETRY.saturating_mul(1 << (failures - 1).min(16)).min(LONGEST_RETRY).min(interval),
        }
    }

    async fn fetch(&mut self) {
        let (identity, url) = (&self.identity, self.settings.url.origin());
        let put = self.answer().await.and_then(|body| {
            let put = self.keys.put(&body, unix_seconds());
            let mut hasher = DefaultHasher::new();
            body.hash(&mut hasher);
            put.map(|put| (put, hasher.finish())).map_err(|why| format!("it is not taken over: {why}"))
        });
        match put {
            Ok((put, set)) => {
                if self.told.replace(set) != Some(set) || self.failures > 0 {
                    info!(identity, url, keys = put.keys, "key set fetched");
                }
                if self.warned != put.warnings {
                    put.warnings.iter().for_each(|what| warn!(identity, url, "key set: {what}"));
                    self.warned = put.warnings;
                }
                self.failures = 0;
                self.sparing = Sparing::default();
            }
            Err(why) => {
                self.keys.count_failure();
                self.failures = self.failures.saturating_add(1);
                let kept = self.keys.fetches().keys;
                if let Some(untold) = self.sparing.tell(TOLD, Instant::now()) {
                    warn!(identity, url, reason = why, kept, untold, "key set cannot be fetched");
                }
            }
        }
    }

    async fn answer(&self) -> Result<Bytes, String> {
        let request = Request::builder()
            .method(Method::GET)
            .uri(self.settings.url.as_str())
            .header(ACCEPT, "application/jwk-set+json, application/json")
            .header(USER_AGENT, super::hooks::AGENT)
            .body(Full::default())
            .map_err(|error| format!("the URL is none: {error}"))?;
        let time = Duration::from_millis(self.settings.timeout_ms);
        let sent = self.client.send(request, MAX_BYTES, time, |status| status == StatusCode::OK).await;
        match sent.map_err(|no_answer: NoAnswer| no_answer.to_string())? {
            (StatusCode::OK, body) => Ok(body),
            (status, _) if status.is_redirection() => {
                Err(format!("the answer is {status}, and redirects are not followed"))
            }
            (status, _) => Err(format!("the answer is {status}")),
        }
    }
}

/// The same, up to a tenth more or less, so that many gateways do not fetch at the same time.
fn jittered(time: Duration) -> Duration {
    let mut bits = [0; 4];
    // Without randomness they do.
    let drawn = getrandom::fill(&mut bits)
        .map_or(0.5, |()| f64::from(u32::from_le_bytes(bits)) / f64::from(u32::MAX));
    time.mul_f64(0.9 + 0.2 * drawn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_set_of_several_is_fetched_once_and_as_often_as_one_of_them_wants() {
        let identity = |name: &str, place: &str, lines: &str| {
            format!(
                "[[identity]]\nname = {name:?}\nalgorithms = [\"ES256\"]\njwks_url = \"https://a.test/{place}\"\n{lines}\n"
            )
        };
        let text = "version = 1\n[[listener]]\nbind = \"127.0.0.1:0\"\n[[route]]\npath = \"/\"\necho = {}\n"
            .to_owned()
            + &identity("a", "one", "jwks_interval = \"24h\"\njwks_timeout = \"2s\"")
            + &identity("b", "two", "")
            + &identity("c", "one", "jwks_interval = \"1m\"\njwks_timeout = \"1s\"")
            + &identity("d", "one", "jwks_interval = \"2m\"\njwks_timeout = \"3s\"");
        let config = tidegate_config::parse(&text, "test.toml").expect("a valid configuration");
        let identities = tidegate_identity::identities(&config).expect("nothing is wrong");
        let sets = key_sets(&identities);
        let told: Vec<_> = sets
            .iter()
            .map(|set| (set.identity, set.settings.interval_ms, set.settings.timeout_ms))
            .collect();
        assert_eq!(told, [("a", 60_000, 3_000), ("b", 600_000, 5_000)]);
    }

    #[test]
    fn jitter_is_a_tenth() {
        let time = Duration::from_secs(100);
        let times: Vec<Duration> = (0..100).map(|_| jittered(time)).collect();
        assert!(times.iter().all(|time| (90.0..=110.0).contains(&time.as_secs_f64())), "{times:?}");
        assert!(times.iter().any(|time| *time != times[0]));
    }
}
