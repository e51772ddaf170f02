//! What a hook says of a request: who calls, as the claims of a token do.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use serde_json::Value;

use crate::{Caller, Identity, Invalid, claims::Claims};

/// The member that may say no in an answer that would else say yes.
const ALLOW: &str = "allow";

/// How many requests wait for a hook, over all shards and generations.
#[derive(Debug, Default)]
pub(crate) struct InFlight(AtomicUsize);

/// A request's place among those that wait for a hook; it is free again when this is dropped.
#[derive(Debug)]
pub struct Place(Arc<InFlight>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl InFlight {
    pub(crate) fn enter(self: &Arc<Self>, most: usize) -> Option<Place> {
        let more = |now: usize| (now < most).then_some(now + 1);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok().map(|_| Place(Arc::clone(self)))
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a hook's answer says that would allow the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It may come in, for this caller.
    Allowed(Caller),
    /// It may not, as its `allow` is false.
    Denied,
}

impl Identity {
    /// A place among those that wait for its hook; nothing where there is no hook, or no place.
    #[must_use]
    pub fn enter_hook(&self) -> Option<Place> {
        self.in_flight.enter(self.rules().hook()?.max_in_flight)
    }

    /// How many requests wait for its hook.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.count()
    }

    /// Judges the body of a hook's answer: empty, or an object of claims as those of a token. `unix_seconds` is the time.
    ///
    /// # Errors
    /// Why it cannot be believed.
    pub fn judge_answer(&self, body: &[u8], unix_seconds: u64) -> Result<Answer, Invalid> {
        let claims = match body.trim_ascii() {
            [] => Claims::default(),
            body => Claims::parse(body)?,
        };
        // `null` is no clear yes: a hook that forgot to set it would let everybody in.
        match claims.member(ALLOW) {
            None | Some(Value::Bool(true)) => {}
            Some(Value::Bool(false)) => return Ok(Answer::Denied),
            Some(_) => return Err(Invalid::Claims),
        }
        let ends = self.check_time(&claims, unix_seconds)?;
        Caller::of(claims, ends, self.rules()).map(Answer::Allowed)
    }
}
