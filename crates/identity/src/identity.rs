//! One identity of the configuration, ready to judge tokens.

use std::sync::Arc;

use tidegate_config::{self as config, Algorithm, Config, HttpUrl, Problem, TokenKeys};

use crate::{
    Caller, FetchedKeys, Invalid, answer::InFlight, claims::Claims, jwk::KeySet, key::Key, token::Token,
};

/// One identity of the configuration, ready to judge tokens. It does not change, but for keys that are fetched: new keys of a
/// file are a new one.
#[derive(Debug)]
pub struct Identity {
    rules: config::Identity,
    keys: Keys,
    /// What waits for its hook, where it has one.
    pub(crate) in_flight: Arc<InFlight>,
    /// Whether tokens name their key: the only key of a file needs no name.
    by_name: bool,
    warnings: Vec<Problem>,
}

#[derive(Debug)]
enum Keys {
    Here(Vec<Key>),
    Fetched(Arc<FetchedKeys>),
}

/// The identities of a configuration, in its order. One whose file was not read ([`tidegate_config::parse`] opens none)
/// believes nobody.
///
/// # Errors
/// What is wrong with the files of keys, each told where the configuration names it.
pub fn identities(config: &Config) -> Result<Vec<Arc<Identity>>, Vec<Problem>> {
    identities_after(config, &[])
}

/// The same behind others: keys that are fetched from the same place, and what waits for the same hook, stay. Either may be what
/// identities of before judge by, where routes go on with those: so each has one successor.
///
/// # Errors
/// As [`identities`].
pub fn identities_after(
    config: &Config,
    before: &[Arc<Identity>],
) -> Result<Vec<Arc<Identity>>, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut identities = Vec::new();
    let mut keys = before.iter().filter_map(|identity| identity.fetched().cloned()).collect::<Vec<_>>();
    for (rules, in_flight) in config.identities.iter().zip(waiting_after(config, before)) {
        match Identity::new(rules, &mut keys, in_flight) {
            Ok(identity) => identities.push(Arc::new(identity)),
            Err(problem) => problems.push(*problem),
        }
    }
    if problems.is_empty() { Ok(identities) } else { Err(problems) }
}

/// For each identity of a configuration what waits for its hook: what does already, where one of before had that hook under the
/// same name, or under another one that is no more. Several hooks may have one URL, and each has a bound of its own.
fn waiting_after(config: &Config, before: &[Arc<Identity>]) -> Vec<Arc<InFlight>> {
    fn url(rules: &config::Identity) -> Option<&HttpUrl> {
        rules.hook().map(|hook| &hook.url)
    }
    let is_same = |one: &config::Identity, other: &config::Identity| {
        one.name == other.name && url(one).is_some() && url(one) == url(other)
    };
    let goes_on = |old: &Identity| config.identities.iter().any(|rules| is_same(&old.rules, rules));
    let mut renamed: Vec<&Arc<Identity>> = before.iter().filter(|old| !goes_on(old)).collect();
    let waiting = |rules: &config::Identity| {
        let old = before.iter().find(|old| is_same(&old.rules, rules)).or_else(|| {
            let asked = url(rules)?;
            let place = renamed.iter().position(|old| url(&old.rules) == Some(asked))?;
            Some(renamed.remove(place))
        });
        old.map(|old| Arc::clone(&old.in_flight)).unwrap_or_default()
    };
    config.identities.iter().map(waiting).collect()
}

/// What is valid in the files of keys, but hardly meant.
#[must_use]
pub fn warnings(identities: &[Arc<Identity>]) -> Vec<Problem> {
    identities.iter().flat_map(|identity| identity.warnings.iter().cloned()).collect()
}

impl Identity {
    /// `present`: the keys that are fetched already, or will be for another identity of this configuration.
    fn new(
        rules: &config::Identity,
        present: &mut Vec<Arc<FetchedKeys>>,
        in_flight: Arc<InFlight>,
    ) -> Result<Self, Box<Problem>> {
        let algorithms = &rules.algorithms;
        let mut warnings = Vec::new();
        let mut fetched = None;
        let keys = match &rules.keys {
            TokenKeys::Url(set) => {
                let known = present.iter().find(|keys| keys.is_of(&set.url, algorithms)).cloned();
                let keys = known.unwrap_or_else(|| {
                    let keys = Arc::new(FetchedKeys::new(&set.url, algorithms));
                    present.push(Arc::clone(&keys));
                    keys
                });
                fetched = Some(keys);
                Vec::new()
            }
            TokenKeys::Hook(_) => Vec::new(),
            TokenKeys::Set(file) | TokenKeys::Public(file) if !file.was_read() => Vec::new(),
            TokenKeys::Set(file) => {
                let set = KeySet::parse(file.bytes(), algorithms)
                    .map_err(|error| Box::new(file.problem(&error.to_string())))?;
                warnings.extend(set.warnings.iter().map(|warning| file.problem(warning)));
                set.keys
            }
            TokenKeys::Public(file) => {
                let key = Key::pem(file.bytes(), algorithms)
                    .map_err(|bad| Box::new(file.problem(&bad.to_string())))?;
                if let Some(other) = algorithms.iter().find(|algorithm| !key.is_for(**algorithm)) {
                    return Err(Box::new(file.problem(&format!("the key is not for {}", other.name()))));
                }
                vec![key]
            }
            // The configuration has judged its length.
            TokenKeys::Secret(secret) => {
                secret.bytes().and_then(|bytes| Key::secret(bytes, algorithms).ok()).into_iter().collect()
            }
        };
        let by_name = matches!(&rules.keys, TokenKeys::Set(_) | TokenKeys::Url(_));
        let keys = fetched.map_or(Keys::Here(keys), Keys::Fetched);
        Ok(Self { rules: rules.clone(), keys, in_flight, by_name, warnings })
    }

    /// Its keys, where they are fetched.
    #[must_use]
    pub fn fetched(&self) -> Option<&Arc<FetchedKeys>> {
        match &self.keys {
            Keys::Fetched(keys) => Some(keys),
            Keys::Here(_) => None,
        }
    }

    /// What the configuration says of it.
    #[must_use]
    pub fn rules(&self) -> &config::Identity {
        &self.rules
    }

    /// Whether to judge a token takes as long as a signature by a public key does: ten to a hundred times what one by a shared
    /// secret takes.
    #[must_use]
    pub fn is_costly(&self) -> bool {
        self.rules.algorithms.iter().any(|algorithm| algorithm.least_secret_bytes().is_none())
    }

    /// Judges a token; `unix_seconds` is the time.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn verify(&self, token: &[u8], unix_seconds: u64) -> Result<Caller, Invalid> {
        let token = Token::parse(token)?;
        // RFC 8725 §3.1.
        if !self.rules.algorithms.contains(&token.algorithm) {
            return Err(Invalid::Algorithm);
        }
        let fetched;
        let keys = match &self.keys {
            Keys::Here(keys) => keys,
            Keys::Fetched(keys) => {
                fetched = keys.load().ok_or(Invalid::NoKeys)?;
                &fetched
            }
        };
        self.key(keys, token.key.as_deref(), token.algorithm)?.check(&token)?;
        let claims = Claims::parse(&token.claims()?)?;
        let ends = self.check_time(&claims, unix_seconds)?;
        self.check_issuer(&claims)?;
        self.check_audience(&claims)?;
        Caller::of(claims, ends, &self.rules)
    }

    /// The one key that a token can be signed with. Never several: each costs as much as all else.
    fn key<'k>(&self, keys: &'k [Key], name: Option<&str>, algorithm: Algorithm) -> Result<&'k Key, Invalid> {
        let name = name.filter(|_| self.by_name);
        let fits = |key: &&Key| key.is_for(algorithm) && (name.is_none() || key.name.as_deref() == name);
        let mut fitting = keys.iter().filter(fits);
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Ok(key),
            (Some(_), Some(_)) => Err(Invalid::AnyKey),
            (None, _) => Err(Invalid::Key),
        }
    }

    /// RFC 7519 §4.1.4 and §4.1.5; gives when the token is over.
    pub(crate) fn check_time(&self, claims: &Claims, now: u64) -> Result<Option<u64>, Invalid> {
        let leeway = self.rules.leeway_ms / 1_000;
        let ends = claims.seconds("exp")?.map(|expires| expires.saturating_add(leeway));
        if ends.is_none() && self.rules.requires_expiry {
            return Err(Invalid::NoExpiry);
        }
        if ends.is_some_and(|ends| ends <= now) {
            return Err(Invalid::Expired);
        }
        if claims.seconds("nbf")?.is_some_and(|begins| begins > now.saturating_add(leeway)) {
            return Err(Invalid::NotYet);
        }
        Ok(ends)
    }

    fn check_issuer(&self, claims: &Claims) -> Result<(), Invalid> {
        let known = |issuer: &str| self.rules.issuers.iter().any(|own| own == issuer);
        let by_known = || claims.find("iss").and_then(|issuer| issuer.as_str()).is_some_and(known);
        if self.rules.issuers.is_empty() || by_known() { Ok(()) } else { Err(Invalid::Issuer) }
    }

    /// RFC 7519 §4.1.3: who is not named in a token's audience must refuse it.
    fn check_audience(&self, claims: &Claims) -> Result<(), Invalid> {
        let own = &self.rules.audiences;
        let named = match claims.find("aud") {
            None => own.is_empty(),
            Some(_) => {
                let audiences = claims.texts("aud").ok_or(Invalid::Audience)?;
                audiences.iter().any(|audience| own.iter().any(|own| own == audience))
            }
        };
        if named { Ok(()) } else { Err(Invalid::Audience) }
    }
}
