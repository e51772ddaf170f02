//! Sessions, listed page by page and ended at a pace, by letters to their shards.

use std::{collections::HashSet, net::IpAddr, sync::Arc, time::Duration};

use axum::http::StatusCode;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tidegate_config::unmapped;
use tidegate_shard::{Census, Counted, Ended, Mail, SessionStage, SessionState};
use tidegate_wire::close::CloseCode;
use tokio::time::{sleep, timeout};
use tracing::info;

use crate::{api::Problem, gateway::Gateway};

/// Sessions of a page where none are asked for, and most of one.
const PAGE: usize = 100;
const LARGEST_PAGE: usize = 1_000;
/// Certificates that a shard reads for one letter, some microseconds each.
const CERTIFICATES: usize = 100;

/// How long one shard may take to look at some of its slots.
const PATIENCE: Duration = Duration::from_secs(2);

/// Sessions that are ended in a second where no pace is asked for: enough for a small gateway, and its upstreams take as many
/// again when they come back.
const PACE: u32 = 200;

/// How often in a second some of them are ended.
const STEPS: u32 = 10;

/// Which sessions.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SessionsQuery {
    /// Those of the route of this name, as `/config` lists them; `/x (2)`: what is left of one that was replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// Those of the upstream of this name, as `/status` lists it, of whichever route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// Those from this address, or of this network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Those of this user, as their tokens name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Those that are so far: `handshake`, `deciding`, `waiting`, `open`, `request`, `closing`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Those that have lasted so many seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_age_seconds: Option<u64>,
    /// Most sessions of the answer: 100, at most 1,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Go on behind this page: what the last one called `next`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// A page of sessions.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Sessions {
    /// In no order that means anything, but always the same.
    pub sessions: Vec<SessionEntry>,
    /// Where there are more: what `after` has to be for them.
    pub next: Option<String>,
}

/// One session.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct SessionEntry {
    /// Its name, for `kill`: it never names another session.
    pub id: String,
    /// The client's address; absent over a unix socket.
    pub address: Option<String>,
    /// The route; absent while its request is being read, and where it was refused before one was found.
    pub route: Option<String>,
    /// The upstream that it goes to, or that is tried for it; absent where it goes to none.
    pub upstream: Option<String>,
    /// The user whom its token names; absent where its route asks for none.
    pub user: Option<String>,
    /// Whom its certificate names (RFC 4514); absent where it has shown none.
    pub subject: Option<String>,
    /// How far it is.
    pub state: String,
    /// It came over TLS.
    pub tls: bool,
    /// Since its connection was accepted.
    pub age_seconds: f64,
    /// Since the client was last heard.
    pub silent_seconds: f64,
    /// Bytes that wait for the client.
    pub buffered_bytes: u64,
    /// Bytes that came.
    pub received_bytes: u64,
    /// Bytes that went.
    pub sent_bytes: u64,
    /// Messages that came.
    pub received_messages: u64,
    /// Messages that went.
    pub sent_messages: u64,
}

/// Which sessions to end, and how.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KillRequest {
    /// These.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<String>,
    /// Those of this route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// Those of this upstream, of whichever route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// Those from this address, or of this network. With a route, an upstream or a user: those that are all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Those of this user, as their tokens name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The code of their Close: 1001.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// How many in a second: 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_second: Option<u32>,
}

/// What becomes of it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Killed {
    /// Sessions that were found.
    pub matched: usize,
    /// How many of them have been ended when this is said; the rest follows at the pace.
    pub ended: usize,
    /// The pace.
    pub per_second: u32,
}

/// Which sessions are meant.
#[derive(Clone, Debug, Default)]
struct Filter {
    route: Option<u16>,
    /// Routes and places in them: any of these.
    upstream: Option<Arc<[(u16, u16)]>>,
    network: Option<IpNet>,
    user: Option<Box<str>>,
    stage: Option<SessionStage>,
    min_age_ms: u64,
}

impl Filter {
    fn new(gateway: &Gateway, query: &SessionsQuery) -> Result<Self, Problem> {
        let route = query.route.as_ref().map(|name| {
            gateway
                .names
                .number(name)
                .ok_or_else(|| Problem::bad(format!("there is no route {name:?}: tidegate status")))
        });
        let upstream = query.upstream.as_ref().map(|name| {
            let places = gateway.names.places_of(name);
            let is_none = places.is_empty();
            let none = || Problem::bad(format!("there is no upstream {name:?}: tidegate status"));
            (!is_none).then(|| places.into()).ok_or_else(none)
        });
        let network = query.address.as_ref().map(|text| {
            let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            network
                .map(|network| unmapped(network).unwrap_or(network))
                .map_err(|_| Problem::bad(format!("{text:?} is no address and no network like 10.0.0.0/8")))
        });
        let stage = query.state.as_ref().map(|name| {
            let stage = SessionStage::ALL.into_iter().find(|stage| stage.as_str() == name);
            stage.ok_or_else(|| {
                let names = SessionStage::ALL.map(SessionStage::as_str).join(", ");
                Problem::bad(format!("{name:?} is no state: {names}"))
            })
        });
        Ok(Self {
            route: route.transpose()?,
            upstream: upstream.transpose()?,
            network: network.transpose()?,
            user: query.user.clone().map(String::into_boxed_str),
            stage: stage.transpose()?,
            min_age_ms: query.min_age_seconds.unwrap_or(0).saturating_mul(1_000),
        })
    }

    fn takes(&self, session: &SessionState) -> bool {
        let network = |network: &IpNet| session.peer.is_some_and(|peer| network.contains(&peer.ip()));
        let place = session.route.zip(session.upstream);
        let upstream = |places: &Arc<[(u16, u16)]>| place.is_some_and(|place| places.contains(&place));
        self.route.is_none_or(|route| session.route == Some(route))
            && self.upstream.as_ref().is_none_or(upstream)
            && self.network.as_ref().is_none_or(network)
            && (self.user.is_none() || self.user == session.user)
            && self.stage.is_none_or(|stage| session.stage == stage)
            && session.age_ms >= self.min_age_ms
    }
}

/// Where a page begins: a shard, and a slot of it.
fn cursor(text: Option<&str>) -> Result<(usize, u32), Problem> {
    let Some(text) = text else { return Ok((0, 0)) };
    let parts =
        text.split_once('-').and_then(|(shard, slot)| Some((shard.parse().ok()?, slot.parse().ok()?)));
    parts.ok_or_else(|| Problem::bad(format!("{text:?} is not what a page called `next`")))
}

/// A session's name, here and in the log: its shard, and its key there.
#[must_use]
pub fn session_id(shard: u16, key: u64) -> String {
    format!("{shard}-{key:x}")
}

fn parse_id(text: &str) -> Option<(usize, u64)> {
    let (shard, key) = text.split_once('-')?;
    Some((shard.parse().ok()?, u64::from_str_radix(key, 16).ok()?))
}

/// Some of a shard's sessions.
async fn count(
    gateway: &Gateway,
    shard: usize,
    from: u32,
    most: usize,
    with_subjects: bool,
    filter: &Filter,
) -> Result<Counted, Problem> {
    let filter = filter.clone();
    let answer = gateway.shards[shard].ask(|reply| {
        let wanted = Arc::new(move |session: &SessionState| filter.takes(session));
        Mail::Census(Census { from, most, with_subjects, wanted, reply })
    });
    match timeout(PATIENCE, answer).await {
        Ok(Ok(counted)) => Ok(counted),
        _ => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, format!("shard {shard} does not answer"))),
    }
}

pub(crate) async fn list(gateway: &Gateway, query: &SessionsQuery) -> Result<Sessions, Problem> {
    let filter = Filter::new(gateway, query)?;
    let limit = query.limit.unwrap_or(PAGE);
    if !(1..=LARGEST_PAGE).contains(&limit) {
        return Err(Problem::bad(format!("`limit` is 1 to {LARGEST_PAGE}")));
    }
    let (mut shard, mut slot) = cursor(query.after.as_deref())?;
    let mut page = Sessions::default();
    while shard < gateway.shards.len() {
        let most = limit - page.sessions.len();
        if most == 0 {
            page.next = Some(format!("{shard}-{slot}"));
            break;
        }
        let counted = count(gateway, shard, slot, most.min(CERTIFICATES), true, &filter).await?;
        page.sessions.extend(counted.sessions.iter().map(|session| entry(gateway, session)));
        (shard, slot) = match counted.next {
            Some(next) => (shard, next),
            None => (shard + 1, 0),
        };
    }
    Ok(page)
}

fn entry(gateway: &Gateway, session: &SessionState) -> SessionEntry {
    SessionEntry {
        id: session_id(session.shard, session.key),
        address: session.peer.map(|peer| peer.to_string()),
        route: session.route.and_then(|route| gateway.names.name(route)),
        upstream: session.route.zip(session.upstream).and_then(|(route, place)| {
            gateway.names.named_upstream(route, place).map(|upstream| upstream.name)
        }),
        user: session.user.as_deref().map(str::to_owned),
        subject: session.subject.as_deref().map(str::to_owned),
        state: session.stage.as_str().to_owned(),
        tls: session.tls,
        age_seconds: session.age_ms as f64 / 1_000.0,
        silent_seconds: session.silent_ms as f64 / 1_000.0,
        buffered_bytes: session.buffered_bytes,
        received_bytes: session.flow.received_bytes,
        sent_bytes: session.flow.sent_bytes,
        received_messages: session.flow.received_messages,
        sent_messages: session.flow.sent_messages,
    }
}

pub(crate) async fn kill(gateway: Arc<Gateway>, request: KillRequest) -> Result<Killed, Problem> {
    let code = request.code.unwrap_or(1001);
    let code =
        CloseCode::new(code).ok_or_else(|| Problem::bad(format!("{code} may not stand in a Close")))?;
    let per_second = request.per_second.unwrap_or(PACE);
    if per_second == 0 {
        return Err(Problem::bad("`per_second` is at least 1"));
    }
    let (mut found, mut known) = (Vec::new(), HashSet::new());
    for text in &request.ids {
        let Some((shard, key)) = parse_id(text).filter(|(shard, _)| *shard < gateway.shards.len()) else {
            return Err(Problem::bad(format!("{text:?} is no session's id")));
        };
        // Whoever names one twice means one.
        if known.insert((shard, key)) {
            found.push((shard, key));
        }
    }
    let KillRequest { ids, route, upstream, address, user, .. } = request;
    if [&route, &upstream, &address, &user].iter().any(|which| which.is_some()) {
        if !ids.is_empty() {
            return Err(Problem::bad("either `ids`, or `route`, `upstream`, `address` and `user`"));
        }
        let query = SessionsQuery { route, upstream, address, user, ..SessionsQuery::default() };
        let filter = Filter::new(&gateway, &query)?;
        for shard in 0..gateway.shards.len() {
            let mut next = Some(0);
            while let Some(from) = next {
                let counted = count(&gateway, shard, from, LARGEST_PAGE, false, &filter).await?;
                found.extend(counted.sessions.iter().map(|session| (shard, session.key)));
                next = counted.next;
            }
        }
    } else if ids.is_empty() {
        return Err(Problem::bad("which sessions? `ids`, `route`, `upstream`, `address` or `user`"));
    }
    let matched = found.len();
    info!(matched, per_second, code = u16::from(code), "asked to end sessions");
    let step = (per_second / STEPS).max(1) as usize;
    let pause = Duration::from_secs(1) * u32::try_from(step).unwrap_or(u32::MAX) / per_second;
    let mut rest = found.into_iter();
    let first: Vec<_> = rest.by_ref().take(step).collect();
    let ended = end(&gateway, &first, code).await;
    if rest.len() > 0 {
        tokio::spawn(async move {
            loop {
                sleep(pause).await;
                let some: Vec<_> = rest.by_ref().take(step).collect();
                if some.is_empty() {
                    break;
                }
                end(&gateway, &some, code).await;
            }
        });
    }
    Ok(Killed { matched, ended, per_second })
}

/// Ends some sessions; gives how many were there still.
async fn end(gateway: &Gateway, sessions: &[(usize, u64)], code: CloseCode) -> usize {
    let mut ended = 0;
    for (shard, way) in gateway.shards.iter().enumerate() {
        let keys: Vec<u64> = sessions.iter().filter(|(own, _)| *own == shard).map(|(_, key)| *key).collect();
        if !keys.is_empty() {
            let answer = way.ask(|reply| Mail::End(Ended { keys, code, reply }));
            ended += timeout(PATIENCE, answer).await.map_or(0, |answer| answer.unwrap_or(0));
        }
    }
    ended
}
