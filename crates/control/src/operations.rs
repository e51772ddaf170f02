//! What is done to the whole gateway on request: a reload, drains. How it is done is the process's affair; here it is asked for, and
//! what came of it is told.

use std::{fmt, sync::Arc};

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use tidegate_config::Problem as Mistake;
use tidegate_shard::{
    Changes, Whom,
    report::{Reply, Report},
};
use tokio::{sync::oneshot, time::timeout};

use crate::{
    api::Problem,
    gateway::{Gateway, sessions_of_route, sessions_of_upstream},
    names::RouteNames,
    server::REQUEST_SECONDS,
};

/// How long it may take: somewhat less than the connection may.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(REQUEST_SECONDS - 5);

/// The ways to whoever does it.
pub struct Operations {
    /// Reads the configuration again.
    pub reload: Box<dyn Fn(Reply<Outcome>) + Send + Sync>,
    /// Drains a route or an upstream, or ends that.
    pub drain: Box<dyn Fn(DrainRequest, Reply<Meant>) + Send + Sync>,
}

/// How a reload has ended.
pub type Outcome = Result<Taken, NotTaken>;

/// Which places are meant by what somebody wants to drain, or why there are none.
pub type Meant = Result<Vec<Whom>, String>;

impl fmt::Debug for Operations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Operations")
    }
}

/// A configuration was taken over.
#[derive(Clone, Debug)]
pub struct Taken {
    /// Its number.
    pub generation: u64,
    /// All shards have it.
    pub adopted: bool,
    /// What is different of its routes.
    pub changes: Changes,
    /// The sections that are different besides.
    pub settings: Vec<String>,
    /// What waits for a restart.
    pub waiting: Vec<String>,
    /// What is hardly meant.
    pub warnings: Vec<Mistake>,
}

/// A configuration was not taken over; the one of before stays.
#[derive(Clone, Debug)]
pub struct NotTaken {
    /// The number of the one that stays.
    pub generation: u64,
    /// Why, in a sentence.
    pub why: String,
    /// What is wrong with the file.
    pub problems: Vec<Mistake>,
}

/// The answer of a reload that changed something.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Reloaded {
    /// The number of the configuration in force.
    pub generation: u64,
    /// All shards have it; otherwise some had not said so within ten seconds.
    pub adopted: bool,
    /// Routes that are not what they were.
    pub routes: Vec<RouteChange>,
    /// Sections of the file that are different besides.
    pub settings: Vec<String>,
    /// Whose sessions are asked to go.
    pub draining: Vec<Leaving>,
    /// What waits for a restart, each in a sentence.
    pub waiting: Vec<String>,
    /// What is valid, but hardly meant.
    pub warnings: Vec<Finding>,
}

/// The answer of a reload that changed nothing.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct NotReloaded {
    /// Why, in a sentence.
    pub error: String,
    /// The number of the configuration that stays in force.
    pub generation: u64,
    /// Every mistake in the file.
    pub problems: Vec<Finding>,
}

/// A route that is not what it was.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct RouteChange {
    /// Its host and path.
    pub route: String,
    /// `added`; `changed`, and its sessions go on; `replaced`, and those of before go; `removed`, and they go.
    pub change: String,
}

/// Sessions that are to go, and whose they are.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Leaving {
    /// The route.
    pub route: String,
    /// The upstream, where only its sessions go.
    pub upstream: Option<String>,
    /// How many of them are there yet.
    pub sessions: u64,
}

/// A mistake in a configuration, or a warning, as `tidegate check` shows it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Finding {
    /// The file.
    pub file: String,
    /// The line, from 1; absent where it is about the file as a whole.
    pub line: Option<usize>,
    /// The column in characters, from 1.
    pub column: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// What was probably meant.
    pub suggestion: Option<String>,
    /// All of it for people: several lines, with the one in question.
    pub text: String,
}

/// What is to be drained, and how.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DrainRequest {
    /// A route, or an upstream by its URL, as `/status` has them.
    pub what: String,
    /// Ask nobody to go.
    #[serde(default)]
    pub keep: bool,
    /// Take sessions again.
    #[serde(default)]
    pub undo: bool,
}

/// What is drained, or takes sessions again.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Drained {
    /// `places` get no new sessions now.
    pub drained: bool,
    /// Their sessions stay until they end by themselves.
    pub keep: bool,
    /// What was meant, with the sessions that it has.
    pub places: Vec<Leaving>,
    /// What was meant as well, and takes no sessions yet behind an `undo`: a route whose upstreams are all drained, an upstream whose
    /// route is.
    pub withheld: Vec<Leaving>,
}

impl From<&Mistake> for Finding {
    fn from(mistake: &Mistake) -> Self {
        let Mistake { file, line, column, message, suggestion, .. } = mistake;
        let place = |number: usize| (number > 0).then_some(number);
        Self {
            file: file.clone(),
            line: place(*line),
            column: place(*column),
            message: message.clone(),
            suggestion: suggestion.clone(),
            text: mistake.to_string(),
        }
    }
}

fn findings(mistakes: &[Mistake]) -> Vec<Finding> {
    mistakes.iter().map(Finding::from).collect()
}

pub(crate) async fn reload(gateway: &Arc<Gateway>) -> Result<Response, Problem> {
    let taken = ask(gateway, |operations, reply| (operations.reload)(reply)).await?;
    let Taken { generation, adopted, changes, settings, waiting, warnings } = match taken {
        Ok(taken) => taken,
        Err(NotTaken { generation, why, problems }) => {
            let answer = NotReloaded { error: why, generation, problems: findings(&problems) };
            return Ok((StatusCode::UNPROCESSABLE_ENTITY, Json(answer)).into_response());
        }
    };
    let routes = changed_routes(&changes, &gateway.names);
    let Changes { replaced, removed, left, .. } = changes;
    let old = replaced.iter().map(|(old, _)| *old).chain(removed.iter().copied());
    let route = |number: u16| Whom::Route(tidegate_shard::RouteId(number));
    let upstream = |(number, place)| Whom::Upstream(tidegate_shard::RouteId(number), place);
    let whom: Vec<Whom> = old.map(route).chain(left.into_iter().map(upstream)).collect();
    let draining = places(gateway, &whom).await;
    let warnings = findings(&warnings);
    Ok(Json(Reloaded { generation, adopted, routes, settings, draining, waiting, warnings }).into_response())
}

/// Routes that are not what they were, as they are called now.
#[must_use]
pub fn changed_routes(changes: &Changes, names: &RouteNames) -> Vec<RouteChange> {
    let Changes { added, changed, replaced, removed, left: _ } = changes;
    // Both have the same host and path, and the new one has the name: what is left of the other has a number behind it.
    let replaced: Vec<u16> = replaced.iter().map(|(_, new)| *new).collect();
    let all = [(added, "added"), (changed, "changed"), (&replaced, "replaced"), (removed, "removed")];
    let numbered =
        all.into_iter().flat_map(|(numbers, change)| numbers.iter().map(move |number| (*number, change)));
    numbered
        .map(|(number, change)| RouteChange {
            route: names.name(number).unwrap_or_default(),
            change: change.to_owned(),
        })
        .collect()
}

pub(crate) async fn drain(gateway: &Arc<Gateway>, request: DrainRequest) -> Result<Json<Drained>, Problem> {
    if request.keep && request.undo {
        return Err(Problem::bad("either `keep` or `undo`"));
    }
    let (drained, keep) = (!request.undo, request.keep);
    let whom = ask(gateway, |operations, reply| (operations.drain)(request, reply)).await?;
    let whom = whom.map_err(Problem::bad)?;
    // Shards read orders first: when they have said what they have, they know of the drain.
    let plan = gateway.plan();
    let is_withheld = |whom: &Whom| match whom {
        Whom::All => false,
        Whom::Route(_) => plan.is_drained(*whom),
        Whom::Upstream(route, _) => plan.is_drained(Whom::Route(*route)),
    };
    let (withheld, whom): (Vec<Whom>, Vec<Whom>) =
        whom.into_iter().partition(|whom| !drained && is_withheld(whom));
    let reports = gateway.reports().await;
    let [places, withheld] = [whom, withheld].map(|whom| leaving(gateway, &reports, &whom));
    Ok(Json(Drained { drained, keep, places, withheld }))
}

/// Asks whoever does it.
async fn ask<T: Send + 'static>(
    gateway: &Gateway,
    ask: impl FnOnce(&Operations, Reply<T>),
) -> Result<T, Problem> {
    let (tell, told) = oneshot::channel();
    {
        let operations = gateway.operations();
        let Some(operations) = operations.as_ref() else {
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the gateway starts or ends"));
        };
        // Nobody may wait for it any more.
        ask(operations, Reply::new(move |answer| drop(tell.send(answer))));
    }
    match timeout(PATIENCE, told).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the gateway ends")),
        Err(_) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "it takes long: the log will say")),
    }
}

/// These with their names, and the sessions that they have now.
async fn places(gateway: &Gateway, whom: &[Whom]) -> Vec<Leaving> {
    if whom.is_empty() {
        return Vec::new();
    }
    leaving(gateway, &gateway.reports().await, whom)
}

/// The same by what the shards have said.
fn leaving(gateway: &Gateway, reports: &[Report], whom: &[Whom]) -> Vec<Leaving> {
    let place = |whom: &Whom| match whom {
        Whom::All => None,
        Whom::Route(route) => {
            let route = gateway.names.named(route.0)?;
            let sessions = sessions_of_route(reports, &route);
            Some(Leaving { route: route.name, upstream: None, sessions })
        }
        Whom::Upstream(route, place) => {
            let upstream = gateway.names.named_upstream(route.0, *place)?;
            let sessions = sessions_of_upstream(reports, &upstream);
            Some(Leaving { route: upstream.route.name, upstream: Some(upstream.name), sessions })
        }
    };
    whom.iter().filter_map(place).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tidegate_shard::{Mail, Plan};

    use super::*;
    use crate::gateway::ShardWay;

    #[tokio::test]
    async fn shards_are_asked_once_whatever_is_drained_or_not_any_more() {
        let text = "version = 1\n[[listener]]\nbind = '127.0.0.1:0'\n\
                    [[route]]\npath = '/a'\nproxy = { upstreams = ['ws://one.test'] }\n\
                    [[route]]\npath = '/b'\nproxy = { upstreams = ['ws://one.test', 'ws://two.test'] }\n";
        let plan = Plan::new(tidegate_config::parse(text, "t.toml").unwrap(), 1);
        let asked = Arc::new(AtomicUsize::new(0));
        let asks = Arc::clone(&asked);
        let send = move |mail| {
            asks.fetch_add(usize::from(matches!(mail, Mail::Report(_))), Ordering::Relaxed);
            true
        };
        let ways = vec![ShardWay { cell: Arc::default(), send: Box::new(send) }];
        let (names, lost) = (RouteNames::new(&plan), Arc::default());
        let gateway = Gateway::new("1", String::new(), Arc::clone(&plan), names, ways, Vec::new(), lost);
        let gateway = Arc::new(gateway);
        plan.set_drained(&plan.named("/b"), true);
        gateway.set_operations(Some(Operations {
            reload: Box::new(|_| {}),
            drain: Box::new(move |request, reply| reply.tell(Ok(plan.named(&request.what)))),
        }));
        // Drained it is one kind of places, and behind an undo both.
        for (undo, expected) in [(false, (2, 0)), (true, (1, 1))] {
            asked.store(0, Ordering::Relaxed);
            let request = DrainRequest { what: "ws://one.test".to_owned(), keep: false, undo };
            let Ok(Json(drained)) = drain(&gateway, request).await else { panic!("it is not drained") };
            assert_eq!((drained.places.len(), drained.withheld.len()), expected);
            assert_eq!(asked.load(Ordering::Relaxed), 1, "undo: {undo}");
        }
    }
}
