//! Hooks: a question of a shard becomes a request, and its answer a letter. Whatever is not a clear yes or no lets nobody in.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use http_body_util::Full;
use hyper::{
    Method, Request, StatusCode,
    body::Bytes,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT},
};
use serde::Serialize;
use tidegate_config::Hook;
use tidegate_identity::{Answer, Identity};
use tidegate_shard::{Asked, Denial, Mail, Outcome, Question, Undelivered};
use tokio::{select, time::sleep};
use tracing::warn;

use super::{Sparing, http::HttpClient, unix_seconds};
use crate::shards::Shards;

/// How the gateway calls itself.
pub(super) const AGENT: &str = concat!("tidegate/", env!("CARGO_PKG_VERSION"));

/// Longest answer: claims are a few hundred bytes.
const MAX_BYTES: usize = 64 << 10;

/// How often one hook's failures are told.
const TOLD: Duration = Duration::from_secs(5);

/// How often a letter to a shard whose mailbox is full is tried again, and how long is waited in between. Who asked is refused in its
/// time where that is in vain.
const DELIVERIES: u32 = 500;
const DELIVERY_PAUSE: Duration = Duration::from_millis(2);

/// Asks hooks.
pub(super) struct Hooks {
    client: HttpClient,
    shards: Arc<Shards>,
    failures: Arc<Failures>,
}

/// What was told of each hook's failures, by the identity's name.
#[derive(Default)]
struct Failures(Mutex<HashMap<String, Sparing>>);

impl Failures {
    fn tell(&self, identity: &str, url: &str, why: &str) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(untold) = told.entry(identity.to_owned()).or_default().tell(TOLD, Instant::now()) {
            warn!(identity, url, reason = why, untold, "authorization hook failed");
        }
    }
}

/// What a hook is told.
#[derive(Serialize)]
struct Told<'a> {
    identity: &'a str,
    method: &'a str,
    path: &'a str,
    query: Option<&'a str>,
    host: &'a str,
    origin: Option<&'a str>,
    address: Option<IpAddr>,
    headers: BTreeMap<&'a str, Vec<std::borrow::Cow<'a, str>>>,
}

impl Hooks {
    pub(super) fn new(client: HttpClient, shards: Arc<Shards>) -> Self {
        Self { client, shards, failures: Arc::default() }
    }

    /// Asks, while others are asked, for as long as somebody waits for the answer.
    pub(super) fn ask(&self, mut question: Question) {
        let (client, shards) = (self.client.clone(), Arc::clone(&self.shards));
        let failures = Arc::clone(&self.failures);
        tokio::spawn(async move {
            let identity = Arc::clone(&question.identity);
            let Some(hook) = identity.rules().hook() else { return };
            let asked = std::mem::take(&mut question.asked);
            let outcome = select! {
                outcome = outcome(&client, hook, &identity, &asked) => outcome,
                // Its connection to the hook is closed, and its place is another's.
                () = question.abandoned() => return,
            };
            let outcome = outcome.unwrap_or_else(|why| {
                failures.tell(&identity.rules().name, hook.url.origin(), &why);
                Outcome::Failed
            });
            let shard = usize::from(question.shard);
            let mut letter = Mail::Decided(question.answered(outcome));
            let Some(sender) = shards.ways().get(shard) else { return };
            for _ in 0..DELIVERIES {
                let Err(Undelivered(back)) = sender.send(letter) else { return };
                letter = back;
                sleep(DELIVERY_PAUSE).await;
            }
        });
    }
}

async fn outcome(
    client: &HttpClient,
    hook: &Hook,
    identity: &Identity,
    asked: &Asked,
) -> Result<Outcome, String> {
    let body = body(&identity.rules().name, asked)?;
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(hook.url.as_str())
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, AGENT);
    if let Some(secret) = hook.secret.as_ref().and_then(|secret| secret.present()) {
        // What it holds is printable, so that it fits; an error would not show it.
        let value = HeaderValue::from_str(&format!("Bearer {secret}"));
        let mut value = value.map_err(|_| "its secret cannot be sent".to_owned())?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    let request =
        request.body(Full::new(Bytes::from(body))).map_err(|error| format!("the URL is none: {error}"))?;
    let time = Duration::from_millis(hook.timeout_ms);
    let sent = client.send(request, MAX_BYTES, time, |status| status.is_success()).await;
    match sent.map_err(|no_answer| no_answer.to_string())? {
        (StatusCode::UNAUTHORIZED, _) => Ok(Outcome::Denied(Denial::Unauthorized)),
        (StatusCode::FORBIDDEN, _) => Ok(Outcome::Denied(Denial::Forbidden)),
        (status, body) if status.is_success() => match identity.judge_answer(&body, unix_seconds()) {
            Ok(Answer::Allowed(caller)) => Ok(Outcome::Allowed(Box::new(caller))),
            Ok(Answer::Denied) => Ok(Outcome::Denied(Denial::Forbidden)),
            Err(invalid) => {
                Err(format!("its answer cannot be used: {}", invalid.reason().replace("token", "answer")))
            }
        },
        (status, _) => Err(format!("the answer is {status}, which is neither 2xx, 401 nor 403")),
    }
}

fn body(identity: &str, asked: &Asked) -> Result<Vec<u8>, String> {
    let mut headers = BTreeMap::<_, Vec<_>>::new();
    for (name, value) in &asked.fields {
        headers.entry(name.as_str()).or_default().push(String::from_utf8_lossy(value));
    }
    let told = Told {
        identity,
        method: &asked.method,
        path: &asked.path,
        query: asked.query.as_deref(),
        host: &asked.host,
        origin: asked.origin.as_deref(),
        address: asked.address,
        headers,
    };
    serde_json::to_vec(&told).map_err(|error| format!("the question cannot be written: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_says_what_is_asked_for_and_by_whom() {
        let asked = Asked {
            method: "GET".to_owned(),
            path: "/chat/%20".to_owned(),
            query: None,
            host: "gw.test".to_owned(),
            origin: Some("https://page.test".to_owned()),
            address: Some([192, 0, 2, 7].into()),
            fields: vec![
                ("cookie".to_owned(), b"a=b".to_vec()),
                ("authorization".to_owned(), b"Bearer \"x\"".to_vec()),
                ("cookie".to_owned(), b"c=\xff".to_vec()),
            ],
        };
        let told = String::from_utf8(body("users", &asked).expect("it can be written")).expect("it is text");
        assert_eq!(
            told,
            "{\"identity\":\"users\",\"method\":\"GET\",\"path\":\"/chat/%20\",\"query\":null,\"host\":\"gw.test\",\
             \"origin\":\"https://page.test\",\"address\":\"192.0.2.7\",\"headers\":{\"authorization\":[\"Bearer \\\"x\\\"\"],\
             \"cookie\":[\"a=b\",\"c=\u{fffd}\"]}}"
        );
        assert!(!format!("{asked:?}").contains("Bearer"), "not for logs");
    }
}
