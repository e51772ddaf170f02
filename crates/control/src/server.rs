//! Connections of the admin listener: few at a time, each for one request, and only of who may.

use std::{io, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tidegate_config::Secret;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tracing::warn;

use crate::{
    api::{self, Access},
    gateway::Gateway,
};

/// Connections at a time; the next ones are closed at once.
pub const CONNECTIONS: usize = 32;

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

/// A bound socket that listens.
#[derive(Debug)]
pub enum Listener {
    /// A unix socket, whose peers the kernel tells.
    Unix(std::os::unix::net::UnixListener),
    /// TCP.
    Tcp(std::net::TcpListener),
}

/// Who may ask.
#[derive(Debug, Default)]
pub struct Rules {
    /// What each request must present.
    pub token: Option<Secret>,
    /// Whose processes may use a unix socket besides root's and this user's.
    pub allow_uids: Vec<u32>,
}

impl Rules {
    /// Whether processes of this user may ask. `None`: the kernel does not say whose it is.
    fn allows(&self, uid: Option<u32>) -> bool {
        uid.is_some_and(|uid| {
            uid == 0 || uid == rustix::process::geteuid().as_raw() || self.allow_uids.contains(&uid)
        })
    }
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
pub(crate) async fn serve(listening: Listening, rules: Arc<Rules>, gateway: Arc<Gateway>) {
    let allowed = api::router(Arc::clone(&gateway), Access::Token(Arc::clone(&rules)));
    let refused = api::router(gateway, Access::Nobody);
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    // Who may not ask is told so, and takes nobody's place.
    let strangers = Arc::new(Semaphore::new(STRANGERS));
    loop {
        // Who has no permit is closed by being dropped.
        match &listening {
            Listening::Unix(listener) => match listener.accept().await {
                Ok((stream, _)) => {
                    let uid = stream.peer_cred().ok().map(|peer| peer.uid());
                    let (router, permits) =
                        if rules.allows(uid) { (&allowed, &permits) } else { (&refused, &strangers) };
                    let Ok(permit) = Arc::clone(permits).try_acquire_owned() else { continue };
                    let router = router.clone();
                    tokio::spawn(async move {
                        answer(stream, router).await;
                        drop(permit);
                    });
                }
                Err(error) => pause(&error).await,
            },
            Listening::Tcp(listener) => match listener.accept().await {
                Ok((stream, _)) => {
                    let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else { continue };
                    let router = allowed.clone();
                    tokio::spawn(async move {
                        answer(stream, router).await;
                        drop(permit);
                    });
                }
                Err(error) => pause(&error).await,
            },
        }
    }
}

async fn pause(error: &io::Error) {
    warn!("the admin listener cannot accept: {error}");
    sleep(ACCEPT_PAUSE).await;
}

/// One request and its answer.
async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin + 'static, router: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // A peer that breaks off or takes too long is no concern of anybody else.
    let _ = timeout(Duration::from_secs(REQUEST_SECONDS), connection).await;
}
