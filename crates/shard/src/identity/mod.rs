//! Who callers are: their tokens, where a route wants one, judged before anything else hears of a request, and the end of
//! sessions whose tokens have expired.
//!
//! Invariant: nothing of a token leaves this module but to an upstream, where the configuration says so; not into a log either.

mod callers;
mod certificate;
mod hook;
mod place;
mod renewal;

use std::{borrow::Cow, sync::Arc};

use tidegate_hub::RouteId;
use tidegate_identity::{Caller, Identity, Invalid};
use tidegate_io::Backend;
use tidegate_registry::Key;
use tidegate_wire::{
    close::CloseCode,
    http::{Refusal, Request, Target},
};

use self::callers::Known;
pub use self::hook::{Asked, Decision, Denial, Outcome, Question};
pub(crate) use self::{
    callers::Callers,
    hook::{Deciding, Halt, Hooks},
    place::{Found, bearer_of},
};
use crate::{
    environment::Environment,
    log::{Leg, Level, What},
    session::{Session, State},
    shard::Shard,
};

/// RFC 6750 §3.1: who shows nothing is told nothing more.
const NO_TOKEN: Refusal = Refusal {
    status: 401,
    reason: "this route wants a token",
    close: true,
    fields: &[("WWW-Authenticate", "Bearer")],
};

/// Whatever is wrong with it: what a forger could learn from, the log alone says.
pub(crate) const BAD_TOKEN: Refusal = Refusal {
    status: 401,
    reason: "the token is not valid, or not any more",
    close: true,
    fields: &[("WWW-Authenticate", "Bearer error=\"invalid_token\"")],
};

/// RFC 6750 §3.1: who calls is known, and may not come here.
const LACKS_CLAIM: Refusal = Refusal {
    status: 403,
    reason: "the caller lacks a claim that this route demands",
    close: true,
    fields: &[("WWW-Authenticate", "Bearer error=\"insufficient_scope\"")],
};

/// Nothing is believed before the first keys are there.
const NO_KEYS: Refusal = Refusal::new(503, "tokens cannot be judged yet").with(&[("Retry-After", "2")]);

/// What a Close says whose token has expired.
const EXPIRED: &str = "the token has expired";

impl<B: Backend, E: Environment> Shard<B, E> {
    /// Lets a request pass whose token is valid, where its route wants one, and notes who calls.
    ///
    /// # Errors
    /// 401, or what its hook says; 403 where the caller lacks a claim; 503 where nobody can judge it; or that its hook is asked.
    pub(crate) fn admit(&mut self, key: Key, id: RouteId, request: &Request<'_>) -> Result<(), Halt> {
        self.admit_certificate(key, id)?;
        let Some(identity) = self.plan.route(id).identity.clone() else { return Ok(()) };
        if identity.rules().hook().is_some() {
            return self.admit_by_hook(key, id, &identity, request);
        }
        let token = match place::find(&identity.rules().sources, request) {
            Found::Token(token) => token,
            Found::Nothing => return Err(NO_TOKEN.into()),
            Found::Several => {
                self.log(Level::Debug, Some(key), What::TokenRefused { reason: "there are several tokens" });
                return Err(BAD_TOKEN.into());
            }
        };
        let (caller, ends_ms) =
            self.judge_token(key, &identity, &token).map_err(|invalid| match invalid {
                Invalid::NoKeys => NO_KEYS,
                _ => BAD_TOKEN,
            })?;
        Ok(self.admit_caller(key, id, caller, ends_ms)?)
    }

    /// Notes who calls, where the route demands no claim that this caller lacks.
    fn admit_caller(&mut self, key: Key, id: RouteId, caller: Caller, ends_ms: u64) -> Result<(), Refusal> {
        if !self.has_claims(key, id, &caller) {
            return Err(LACKS_CLAIM);
        }
        self.callers.put(Known::new(key, caller, ends_ms));
        Ok(())
    }

    /// Whether a caller has all that the route demands; who has not is counted and told of.
    fn has_claims(&mut self, key: Key, id: RouteId, caller: &Caller) -> bool {
        let has = caller.meets(&self.plan.route(id).route.claims);
        if !has {
            self.counters.claims_refused += 1;
            self.log(
                Level::Debug,
                Some(key),
                What::TokenRefused { reason: "the caller lacks a claim that the route demands" },
            );
        }
        has
    }

    /// Who calls, by this token, and until when in the shard's time. The system's clock is read here alone: what is set
    /// afterwards ends nobody by mistake.
    ///
    /// # Errors
    /// Why it is not believed.
    pub(crate) fn judge_token(
        &mut self,
        key: Key,
        identity: &Identity,
        token: &[u8],
    ) -> Result<(Caller, u64), Invalid> {
        let unix_seconds = self.environment.unix_seconds();
        // A signature takes as long as the answer to a handshake of TLS, and a turn has room for as many of either.
        self.turn.handshakes += u32::from(identity.is_costly());
        match identity.verify(token, unix_seconds) {
            Ok(caller) => {
                let ends_ms = self.ends_ms(&caller, unix_seconds);
                Ok((caller, ends_ms))
            }
            Err(invalid) => {
                match invalid {
                    Invalid::NoKeys => self.counters.tokens_unjudged += 1,
                    _ => self.counters.tokens_refused += 1,
                }
                // Who signs may have new keys.
                if matches!(invalid, Invalid::NoKeys | Invalid::Key)
                    && let Some(keys) = identity.fetched()
                    && keys.want()
                {
                    self.environment.want_keys(keys);
                }
                self.log(Level::Debug, Some(key), What::TokenRefused { reason: invalid.reason() });
                Err(invalid)
            }
        }
    }

    /// When a caller's time is over, in the shard's time, where it was judged at this second.
    fn ends_ms(&self, caller: &Caller, unix_seconds: u64) -> u64 {
        let left_ms = caller.ends.map(|ends| ends.saturating_sub(unix_seconds).saturating_mul(1_000));
        left_ms.map_or(u64::MAX, |left_ms| self.now_ms.saturating_add(left_ms))
    }

    /// Whether what a session sends next may take long to judge, so that a turn has room for a few alone.
    pub(crate) fn is_costly(&self, session: &Session<B::Socket>) -> bool {
        session.transport.is_handshaking()
            || ((self.plan.has_costly_identities() || session.transport.is_outdated())
                && matches!(session.state, State::Head(_)))
    }

    /// A session's token is over.
    pub(crate) fn expired(&mut self, key: Key) {
        let Some(session) = self.registry.get(key) else { return };
        let route = self.plan.route(session.route);
        let code = route.identity.as_ref().and_then(|identity| CloseCode::new(identity.rules().expired_code));
        let code = code.unwrap_or(CloseCode::POLICY_VIOLATION);
        self.counters.tokens_expired += 1;
        match session.state {
            State::Open(_) => {
                self.log_end(key, Leg::Client, code.into(), EXPIRED);
                self.send_close(key, Some(code), EXPIRED);
                self.linger(key);
            }
            State::Paired(_) => {
                self.log_end(key, Leg::Client, code.into(), EXPIRED);
                self.pair_expired(key, code, EXPIRED);
            }
            State::Exchange(_) => self.exchange_expired(key),
            State::Head(_)
            | State::Deciding(_)
            | State::Waiting(_)
            | State::Dialing(_)
            | State::Lingering { .. }
            | State::Dead => {}
        }
    }
}

/// When a session's token is over, in the shard's time; nothing where it has none that ends.
pub(crate) fn ends_ms(callers: &Callers, key: Key) -> Option<u64> {
    callers.get(key).map(|known| known.ends_ms).filter(|ends_ms| *ends_ms != u64::MAX)
}

/// The subprotocols that others than this gateway hear of.
pub(crate) fn drop_token_offers(identity: Option<&Arc<Identity>>, protocols: &mut Vec<&str>) {
    if let Some(identity) = identity.filter(|identity| !identity.rules().forward_token) {
        protocols.retain(|offer| !place::is_token_offer(&identity.rules().sources, offer));
    }
}

/// The target that an upstream is asked for.
pub(crate) fn forwarded_target(identity: Option<&Arc<Identity>>, target: &Target<'_>) -> String {
    let query = match identity.filter(|identity| !identity.rules().forward_token) {
        Some(identity) => {
            target.query.and_then(|query| place::query_without(&identity.rules().sources, query))
        }
        None => target.query.map(Cow::Borrowed),
    };
    Target { path: target.path, query: query.as_deref() }.to_string()
}
