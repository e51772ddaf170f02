//! A session's token is replaced by a newer one, over the protocol of topics.

use tidegate_hub::{
    Filter,
    protocol::{Code, write},
};
use tidegate_identity::Invalid;
use tidegate_io::Backend;
use tidegate_registry::Key;

use crate::{
    environment::Environment,
    shard::Shard,
    topics::{Allowed, Fault, allows_pattern},
};

const NO_IDENTITY: Fault = Fault::new(Code::NotAllowed, "this route wants no token");
const BUSY: Fault = Fault::new(Code::Busy, "many tokens are being judged");
const NO_KEYS: Fault = Fault::new(Code::Busy, "tokens cannot be judged yet");
const NOT_VALID: Fault = Fault::new(Code::InvalidToken, "the token is not valid");
const LACKS_CLAIM: Fault = Fault::new(Code::InvalidToken, "the token lacks a claim that this route demands");
const ANOTHER_USER: Fault = Fault::new(Code::InvalidToken, "the token is another user's");

impl<B: Backend, E: Environment> Shard<B, E> {
    /// Puts a newer token in the place of a session's; gives for how many seconds it holds.
    ///
    /// # Errors
    /// Where it is not believed, or not now: then the old one holds on.
    pub(crate) fn renew(&mut self, key: Key, token: &str) -> Result<Option<u64>, Fault> {
        let Some(session) = self.registry.get(key) else { return Ok(None) };
        let route = session.route;
        let identity = self.plan.route(route).identity.clone().ok_or(NO_IDENTITY)?;
        if self.turn.is_full_of_handshakes() {
            return Err(BUSY);
        }
        // A hook is asked when a session begins.
        if identity.rules().hook().is_some() {
            return Err(NO_IDENTITY);
        }
        let judged = self.judge_token(key, &identity, token.as_bytes());
        let (caller, ends_ms) = judged.map_err(|invalid| match invalid {
            Invalid::NoKeys => NO_KEYS,
            _ => NOT_VALID,
        })?;
        if self.callers.get(key).ok_or(NO_IDENTITY)?.user != caller.user {
            return Err(ANOTHER_USER);
        }
        if !self.has_claims(key, route, &caller) {
            return Err(LACKS_CLAIM);
        }
        let known = self.callers.get_mut(key).ok_or(NO_IDENTITY)?;
        known.ends_ms = ends_ms;
        known.permissions = caller.permissions;
        self.end_forbidden(key);
        self.look_again(key);
        Ok(self.token_seconds(key))
    }

    /// For how many seconds a session's token holds, rounded down; nothing where it has none that ends.
    pub(crate) fn token_seconds(&self, key: Key) -> Option<u64> {
        super::ends_ms(&self.callers, key).map(|ends_ms| ends_ms.saturating_sub(self.now_ms) / 1_000)
    }

    /// Ends a session's subscriptions that its token does not allow any more, and its presence.
    fn end_forbidden(&mut self, key: Key) {
        let plan = std::sync::Arc::clone(&self.plan);
        let Some(session) = self.registry.get(key) else { return };
        let Some(rules) = &plan.route(session.route).topics else { return };
        let permissions = self.callers.permissions(key);
        let subscribe = Allowed::subscribe(&rules.subscribe, permissions.as_deref());
        let presence = Allowed::presence(&rules.presence, permissions.as_deref());
        let Some(topics) = &mut self.topics else { return };
        let Some(member) = topics.member(key).map(|member| member.id) else { return };
        let mut ended = Vec::new();
        for (filter, watches) in topics.hub.subscriptions_of(member) {
            let is_allowed = match &filter {
                Filter::Topic(topic) if presence.matches(topic.as_str()) => subscribe.matches(topic.as_str()),
                Filter::Topic(topic) => {
                    // Who only subscribes needs none, and is where it may not be present as if it had come with this token.
                    topics.hub.end_presence(member, topic);
                    !watches && subscribe.matches(topic.as_str())
                }
                Filter::Pattern(pattern) => allows_pattern(subscribe, pattern),
            };
            if !is_allowed && topics.hub.unsubscribe(member, &filter).is_ok() {
                ended.push(filter);
            }
        }
        for filter in ended {
            self.tell_json(key, |out| write::unsubscribed(out, None, filter.as_str()));
        }
    }
}
