//! Connections of the admin listener: few at a time, each for one request.

use std::{
    cell::Cell,
    future::poll_fn,
    io,
    pin::pin,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use axum::Router;
use hyper::{
    Request,
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
    task::yield_now,
    time::{sleep, timeout},
};
use tracing::warn;

use crate::{
    api::{self, Access},
    gateway::Gateway,
    places::{ASKING, Place, Places, WAITING},
};

/// Connections at a time, those of users left out who may not ask.
pub const CONNECTIONS: usize = WAITING + ASKING;

/// Connections at a time of users who may not ask, beside those.
const STRANGERS: usize = 4;

/// How long a connection may take from its beginning to its end, in seconds.
pub const REQUEST_SECONDS: u64 = 30;

/// How long a request's head may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest head.
const HEAD_BYTES: usize = 16 << 10;

/// How long accepting pauses where the system has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long connections have the core before others of it may.
const TURN: Duration = Duration::from_micros(100);

/// A bound socket that listens.
#[derive(Debug)]
pub enum Listener {
    /// A unix socket, whose peers the kernel tells.
    Unix(std::os::unix::net::UnixListener),
    /// TCP.
    Tcp(std::net::TcpListener),
}

pub(crate) enum Listening {
    Unix(tokio::net::UnixListener),
    Tcp(tokio::net::TcpListener),
}

impl Listener {
    pub(crate) fn listen(self) -> io::Result<Listening> {
        match self {
            Self::Unix(listener) => {
                listener.set_nonblocking(true)?;
                tokio::net::UnixListener::from_std(listener).map(Listening::Unix)
            }
            Self::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                tokio::net::TcpListener::from_std(listener).map(Listening::Tcp)
            }
        }
    }
}

/// Accepts and answers, for ever.
pub(crate) async fn serve(listening: Listening, gateway: Arc<Gateway>) {
    let allowed = api::router(Arc::clone(&gateway), Access::Token);
    let refused = api::router(Arc::clone(&gateway), Access::Nobody);
    let places = Places::new();
    // Users who may not ask are told so, and take nobody's place.
    let strangers = Arc::new(Semaphore::new(STRANGERS));
    loop {
        let accepted = match &listening {
            Listening::Unix(listener) => listener.accept().await.map(|(stream, _)| {
                let uid = stream.peer_cred().ok().map(|peer| peer.uid());
                if may_ask(&gateway, uid) {
                    tokio::spawn(in_steps(attend(stream, allowed.clone(), places.take())));
                } else if let Ok(permit) = Arc::clone(&strangers).try_acquire_owned() {
                    let router = refused.clone();
                    tokio::spawn(in_steps(async move {
                        answer(stream, router, None).await;
                        drop(permit);
                    }));
                }
                // Who has no permit is closed by being dropped.
            }),
            Listening::Tcp(listener) => listener.accept().await.map(|(stream, _)| {
                tokio::spawn(in_steps(attend(stream, allowed.clone(), places.take())));
            }),
        };
        if let Err(error) = accepted {
            warn!("the admin listener cannot accept: {error}");
            sleep(ACCEPT_PAUSE).await;
        }
        // Those that are there are read, and closed where they have lost their places, before the next one is accepted.
        offer_core();
        yield_now().await;
    }
}

/// Whether processes of this user may ask. `None`: the kernel does not say whose it is.
fn may_ask(gateway: &Gateway, uid: Option<u32>) -> bool {
    let plan = gateway.plan();
    let named = plan.config().admin.as_ref().map_or(&[][..], |admin| &admin.allow_uids);
    uid.is_some_and(|uid| uid == 0 || uid == rustix::process::geteuid().as_raw() || named.contains(&uid))
}

/// Does `work`, and offers the core to whoever waits for it after each of its steps.
async fn in_steps(work: impl Future<Output = ()>) {
    let mut work = pin!(work);
    poll_fn(|context| {
        let done = work.as_mut().poll(context);
        offer_core();
        done
    })
    .await;
}

/// Lets whoever waits for this core have it, once this thread has had it for [`TURN`]: that may be a shard.
fn offer_core() {
    thread_local! {
        static OFFERED: Cell<Option<Instant>> = const { Cell::new(None) };
    }
    if OFFERED.get().is_none_or(|offered| offered.elapsed() >= TURN) {
        thread::yield_now();
        OFFERED.set(Some(Instant::now()));
    }
}

/// One request and its answer, as long as no other connection has got the place.
async fn attend(stream: impl AsyncRead + AsyncWrite + Unpin + 'static, router: Router, place: Arc<Place>) {
    tokio::select! {
        // Who is told to go and asks at the same time is heard.
        biased;
        () = answer(stream, router, Some(Arc::clone(&place))) => {}
        () = place.lost() => {}
    }
}

/// One request and its answer. Whoever finds that the request may be answered has its connection keep `place`.
async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    router: Router,
    place: Option<Arc<Place>>,
) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        if let Some(place) = &place {
            request.extensions_mut().insert(Arc::clone(place));
        }
        router.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES)
        .keep_alive(false)
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    // A peer that breaks off or takes too long is no concern of anybody else.
    let _ = timeout(Duration::from_secs(REQUEST_SECONDS), connection).await;
}
