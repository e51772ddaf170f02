//! The paths of the admin listener, and what they answer.
//!
//! [`PATHS`] is the list that the router and the OpenAPI document are both held against.

use std::{sync::Arc, time::UNIX_EPOCH};

use axum::{
    Json, Router,
    extract::{
        DefaultBodyLimit, Query, Request, State,
        rejection::{QueryRejection, StringRejection},
    },
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get, post},
};
use serde::{Deserialize, Serialize};
use tidegate_shard::{RouteId, Whom, report::UpstreamState};
use tidegate_wire::http::bearer;

use crate::{
    census, families,
    gateway::{Gateway, counts_of_route, open, sessions_of_upstream, states_of_upstream},
    metrics::Format,
    openapi, operations,
    places::Place,
};
pub use crate::{
    census::{KillRequest, Killed, SessionEntry, Sessions, SessionsQuery},
    operations::{DrainRequest, Drained, Finding, Leaving, NotReloaded, Reloaded, RouteChange},
};

/// Longest body of a request, in bytes: a few thousand sessions by id.
const BODY_BYTES: usize = 256 << 10;

/// Each path with its method.
pub const PATHS: [(&str, &str); 12] = [
    ("GET", "/livez"),
    ("GET", "/readyz"),
    ("GET", "/healthz"),
    ("GET", "/status"),
    ("GET", "/config"),
    ("GET", "/metrics"),
    ("GET", "/sessions"),
    ("POST", "/sessions/kill"),
    ("POST", "/reload"),
    ("POST", "/drain"),
    ("GET", "/openapi.json"),
    ("GET", "/"),
];

/// Who may use a router.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Access {
    /// Who presents the token, where there is one.
    Token,
    /// Nobody: the peer of the connection is not one who may.
    Nobody,
}

pub(crate) fn router(gateway: Arc<Gateway>, access: Access) -> Router {
    let routes: [(&str, MethodRouter<Arc<Gateway>>); PATHS.len()] = [
        ("/livez", get(livez)),
        ("/readyz", get(readyz)),
        ("/healthz", get(healthz)),
        ("/status", get(status)),
        ("/config", get(config)),
        ("/metrics", get(metrics)),
        ("/sessions", get(sessions)),
        ("/sessions/kill", post(kill)),
        ("/reload", post(reload)),
        ("/drain", post(drain)),
        ("/openapi.json", get(openapi_json)),
        ("/", get(index)),
    ];
    let router = routes.into_iter().fold(Router::new(), |router, (path, method)| router.route(path, method));
    router
        .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "there is no such path: GET / lists them") })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path has another method: GET / lists them")
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(middleware::from_fn_with_state((access, Arc::clone(&gateway)), admit))
        .with_state(gateway)
}

/// Lets those through who may ask, as many as there is room for.
async fn admit(
    State((access, gateway)): State<(Access, Arc<Gateway>)>,
    request: Request,
    next: Next,
) -> Response {
    if let Some(refusal) = refusal(access, &gateway, request.headers()) {
        return refusal;
    }
    if request.extensions().get::<Arc<Place>>().is_some_and(|place| !place.keep()) {
        return Problem::new(StatusCode::TOO_MANY_REQUESTS, "too many ask at once").into_response();
    }
    // What was asked for with a token is nobody else's to know either.
    next.run(request).await
}

/// What is answered to who may not ask.
fn refusal(access: Access, gateway: &Gateway, headers: &HeaderMap) -> Option<Response> {
    let Access::Token = access else {
        return Some(Problem::new(StatusCode::FORBIDDEN, "this user may not ask here").into_response());
    };
    // That of the configuration in force: a reload may bring another one.
    let plan = gateway.plan();
    let token = plan.config().admin.as_ref().and_then(|admin| admin.token.as_ref());
    // A page that a browser of this machine shows sends its origin; nobody else does, and no page has business here. So has
    // one that has made its own name mean this address: a name is no host of ours, and reading needs no origin.
    let is_named = token.is_some() || is_own_host(headers);
    if headers.contains_key(header::ORIGIN) || !is_named {
        return Some(Problem::new(StatusCode::FORBIDDEN, "pages may not ask here").into_response());
    }
    let presented = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes).and_then(bearer);
    if token.is_none_or(|token| presented.is_some_and(|presented| token.is(presented))) {
        return None;
    }
    let problem = Problem::new(StatusCode::UNAUTHORIZED, "this needs a token: Authorization: Bearer TOKEN");
    Some(([(header::WWW_AUTHENTICATE, "Bearer")], problem).into_response())
}

/// Whether the request names an address or this machine, as those do who mean it; where a token is wanted any name will do.
fn is_own_host(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else { return true };
    let name = tidegate_config::bare_host(host);
    // RFC 9110 §4.2.3.
    name.eq_ignore_ascii_case("localhost")
        || name.is_empty()
        || name.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok()
}

/// What went wrong with a request.
#[derive(Debug, Serialize)]
pub(crate) struct Problem {
    #[serde(skip)]
    status: StatusCode,
    error: String,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, error: error.into() }
    }

    pub(crate) fn bad(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }
}

/// A request's body, or why it cannot be had: too long, or no text.
type Body = Result<String, StringRejection>;

impl From<StringRejection> for Problem {
    fn from(rejection: StringRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.status, Json(self)).into_response()
    }
}

/// Whether the gateway lives, is ready, or both.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Health {
    /// `ok`, or why not: `stuck`, `starting`, `draining`, or `drained` where no route takes sessions.
    pub status: String,
    /// The shards, by number.
    pub shards: Vec<ShardHealth>,
}

/// One shard's health.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ShardHealth {
    /// Its number.
    pub shard: usize,
    /// It turns.
    pub ok: bool,
    /// Since its last turn that is known of, in milliseconds; an idle shard is asked to turn twice a second.
    pub last_turn_ms: Option<u64>,
}

/// The gateway at a glance.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// How it talks to the kernel.
    pub backend: String,
    /// When it started, in seconds since 1970.
    pub started_unix_seconds: u64,
    /// The number of the configuration in force.
    pub generation: u64,
    /// As `/readyz` has it.
    pub ready: String,
    /// As `/livez` has it.
    pub live: String,
    /// Connections of clients now.
    pub connections: u64,
    /// Sessions now.
    pub sessions: u64,
    /// Bytes that wait to be sent, and what is held of what has not come whole, without what topics hold.
    pub buffered_bytes: u64,
    /// The shards, by number.
    pub shards: Vec<ShardHealth>,
    /// The routes, in the order of the configuration.
    pub routes: Vec<RouteStatus>,
    /// Their upstreams.
    pub upstreams: Vec<UpstreamStatus>,
}

/// One route at a glance.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct RouteStatus {
    /// Host and path.
    pub route: String,
    /// Sessions now.
    pub sessions: u64,
    /// Sessions since the start.
    pub opened: u64,
    /// Messages from clients.
    pub received_messages: u64,
    /// Messages to clients.
    pub sent_messages: u64,
    /// It takes no new sessions, as somebody has asked for: of it, or of all its upstreams.
    pub drained: bool,
}

/// One upstream of a route at a glance.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct UpstreamStatus {
    /// The route.
    pub route: String,
    /// Its URL.
    pub upstream: String,
    /// The last try to use it, whichever shard's, has not failed; true before the first.
    pub up: bool,
    /// Sessions now, those that are being made included.
    pub sessions: u64,
    /// Times that it could not be used.
    pub failures: u64,
    /// It gets no new sessions, as somebody has asked for.
    pub drained: bool,
}

/// The configuration in force.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ConfigState {
    /// Its number: the first is 1.
    pub generation: u64,
    /// Its routes, in order.
    pub routes: Vec<String>,
    /// Its listeners.
    pub listeners: Vec<String>,
}

async fn index() -> Response {
    let lines: String = PATHS.iter().map(|(method, path)| format!("{method} {path}\n")).collect();
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], lines).into_response()
}

fn shards(gateway: &Gateway) -> Vec<ShardHealth> {
    let draining = |shard: usize| gateway.shards[shard].cell.read().draining;
    let health = |(shard, pulse): (usize, &crate::pulse::Pulse)| ShardHealth {
        shard,
        // One that drains ends when its sessions have, and answers nothing any more.
        ok: !pulse.is_stuck() || draining(shard),
        last_turn_ms: pulse.age().map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
    };
    gateway.pulses.iter().enumerate().map(health).collect()
}

fn live(shards: &[ShardHealth]) -> &'static str {
    if shards.iter().all(|shard| shard.ok) { "ok" } else { "stuck" }
}

fn ready(gateway: &Gateway) -> &'static str {
    match (gateway.is_started(), gateway.is_draining()) {
        (false, _) => "starting",
        (true, true) => "draining",
        (true, false) if gateway.is_drained() => "drained",
        (true, false) => "ok",
    }
}

fn health(status: &str, shards: Vec<ShardHealth>) -> Response {
    let code = if status == "ok" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(Health { status: status.to_owned(), shards })).into_response()
}

/// Whether the process does its work: not, where a shard is stuck. Whoever sees that restarts it.
async fn livez(State(gateway): State<Arc<Gateway>>) -> Response {
    let shards = shards(&gateway);
    health(live(&shards), shards)
}

/// Whether new connections are welcome: not before all shards accept, nor while they drain, nor where all routes are drained.
async fn readyz(State(gateway): State<Arc<Gateway>>) -> Response {
    health(ready(&gateway), shards(&gateway))
}

/// Both.
async fn healthz(State(gateway): State<Arc<Gateway>>) -> Response {
    let shards = shards(&gateway);
    let status = match live(&shards) {
        "ok" => ready(&gateway),
        stuck => stuck,
    };
    health(status, shards)
}

async fn status(State(gateway): State<Arc<Gateway>>) -> Json<Status> {
    let reports = gateway.reports().await;
    let (shards, plan) = (shards(&gateway), gateway.plan());
    let routes = gateway.names.present().into_iter().map(|route| {
        let drained = plan.is_drained(Whom::Route(RouteId(route.number)));
        let so_far = RouteStatus {
            route: route.name.clone(),
            sessions: 0,
            opened: 0,
            received_messages: 0,
            sent_messages: 0,
            drained,
        };
        counts_of_route(&reports, &route).fold(so_far, |so_far, counts| RouteStatus {
            sessions: so_far.sessions + open(&counts),
            opened: so_far.opened + counts.opened,
            received_messages: so_far.received_messages + counts.clients.received_messages,
            sent_messages: so_far.sent_messages + counts.clients.sent_messages,
            ..so_far
        })
    });
    let routes: Vec<RouteStatus> = routes.collect();
    let upstreams = plan.upstreams().filter_map(|(number, place, _)| {
        // A plan has its names before it is seen here.
        let upstream = gateway.names.named_upstream(number, place)?;
        let states: Vec<UpstreamState> = states_of_upstream(&reports, &upstream).collect();
        Some(UpstreamStatus {
            up: UpstreamState::is_up(states.iter().copied()),
            sessions: sessions_of_upstream(&reports, &upstream),
            failures: states.iter().map(|state| state.failures).sum(),
            drained: plan.is_drained(Whom::Upstream(RouteId(number), place)),
            upstream: upstream.name,
            route: upstream.route.name,
        })
    });
    let upstreams = upstreams.collect();
    Json(Status {
        version: gateway.version.to_owned(),
        pid: std::process::id(),
        backend: gateway.backend.clone(),
        started_unix_seconds: gateway.started.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        generation: gateway.generation(),
        ready: ready(&gateway).to_owned(),
        live: live(&shards).to_owned(),
        connections: reports.iter().map(|report| report.connections).sum(),
        sessions: routes.iter().map(|route| route.sessions).sum(),
        buffered_bytes: plan.buffered_bytes() as u64,
        shards,
        routes,
        upstreams,
    })
}

async fn config(State(gateway): State<Arc<Gateway>>) -> Json<ConfigState> {
    let plan = gateway.plan();
    let config = plan.config();
    Json(ConfigState {
        generation: gateway.generation(),
        routes: gateway.names.present().into_iter().map(|route| route.name).collect(),
        listeners: config.listeners.iter().map(|listener| listener.bind.to_string()).collect(),
    })
}

async fn metrics(State(gateway): State<Arc<Gateway>>, headers: HeaderMap) -> Response {
    let format =
        Format::accepted(headers.get_all(header::ACCEPT).iter().filter_map(|accept| accept.to_str().ok()));
    let reports = gateway.reports().await;
    let text = families::write(&gateway, &reports, format);
    ([(header::CONTENT_TYPE, format.content_type())], text).into_response()
}

async fn sessions(
    State(gateway): State<Arc<Gateway>>,
    query: Result<Query<SessionsQuery>, QueryRejection>,
) -> Result<Json<Sessions>, Problem> {
    let Query(query) = query.map_err(|error| Problem::bad(error.body_text()))?;
    census::list(&gateway, &query).await.map(Json)
}

/// The body is JSON whatever its type says: no page can send it, as pages are refused.
async fn kill(State(gateway): State<Arc<Gateway>>, body: Body) -> Result<Json<Killed>, Problem> {
    let request: KillRequest = serde_json::from_str(&body?)
        .map_err(|error| Problem::bad(format!("not a request to kill sessions: {error}")))?;
    census::kill(gateway, request).await.map(Json)
}

/// Reads the configuration again, as HUP does.
async fn reload(State(gateway): State<Arc<Gateway>>) -> Result<Response, Problem> {
    operations::reload(&gateway).await
}

/// The body is JSON whatever its type says, as above.
async fn drain(State(gateway): State<Arc<Gateway>>, body: Body) -> Result<Json<Drained>, Problem> {
    let request: DrainRequest = serde_json::from_str(&body?)
        .map_err(|error| Problem::bad(format!("not a request to drain something: {error}")))?;
    operations::drain(&gateway, request).await
}

async fn openapi_json() -> Json<serde_json::Value> {
    Json(openapi::document())
}

/// The method of a path, for whoever holds the list against something else.
#[must_use]
pub fn method_of(path: &str) -> Option<Method> {
    let (method, _) = PATHS.iter().find(|(_, own)| *own == path)?;
    Method::from_bytes(method.as_bytes()).ok()
}
