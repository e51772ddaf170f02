//! One request and its answer: over TLS with the system's authorities, HTTP/1.1, no redirects, and no more than what is expected.

use std::{
    error::Error,
    fmt,
    time::{Duration, Instant},
};

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{Request, StatusCode, body::Bytes};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{ClientConfig, RootCertStore, client::Resumption, crypto::aws_lc_rs};
use tokio::time::sleep;
use tracing::warn;

/// How long a connection is kept that nobody uses: less than servers commonly keep theirs, so that a question seldom meets a
/// connection which is just being closed.
const IDLE: Duration = Duration::from_secs(4);

/// Connections to one server that are kept so.
const IDLE_CONNECTIONS: usize = 64;

/// Longest head of an answer, about, in bytes.
const HEAD_BYTES: usize = 64 << 10;

/// A client with its connections. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct HttpClient(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// It cannot be reached, or the connection has broken.
    Connection(String),
    /// It has taken too long.
    TimedOut(Duration),
    /// It is longer than it may be.
    TooLong(usize),
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection(why) => f.write_str(why),
            Self::TimedOut(time) => write!(f, "no answer within {time:?}"),
            Self::TooLong(most) => write!(f, "the answer is longer than {most} bytes"),
        }
    }
}

impl HttpClient {
    /// One without connections. The system's authorities are read.
    ///
    /// # Errors
    /// Where the library has no version of TLS.
    pub(super) fn new() -> Result<Self, rustls::Error> {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        let (added, _) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            let why =
                found.errors.first().map_or_else(|| "none are installed".to_owned(), ToString::to_string);
            warn!("no authority is known, so that no https:// can be asked: {why}");
        }
        let mut config = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // Who resumes is not asked for its certificate again, which may have expired since; connections are kept, so it is rare.
        config.resumption = Resumption::disabled();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .http1_max_buf_size(HEAD_BYTES)
            .build(connector);
        Ok(Self(client))
    }

    /// Sends a request and waits for the answer: its status, and its body where `wants` that of this status, of at most `most`
    /// bytes.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn send(
        &self,
        request: Request<Full<Bytes>>,
        most: usize,
        time: Duration,
        wants: impl Fn(StatusCode) -> bool,
    ) -> Result<(StatusCode, Bytes), NoAnswer> {
        let asked = async {
            let broken = |error: &(dyn Error + 'static)| NoAnswer::Connection(chain(error));
            // Nothing is asked twice: what was sent may have been read. On a kept connection that was closed before, the client
            // by itself takes another one.
            let response = self.0.request(request).await;
            let response = response.map_err(|error| broken(&error))?;
            let status = response.status();
            if !wants(status) {
                return Ok((status, Bytes::new()));
            }
            let body = Limited::new(response.into_body(), most).collect().await;
            let body = body.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
                Some(_) => NoAnswer::TooLong(most),
                None => broken(&*error),
            })?;
            Ok((status, body.to_bytes()))
        };
        tokio::select! {
            biased;
            answer = asked => answer,
            () = passes(time) => Err(NoAnswer::TimedOut(time)),
        }
    }
}

/// Waits for so much time in which this process ran: while it stood still (SIGSTOP, a suspended machine) what came could not be
/// taken. It is waited for in parts, and those in which it stood still do not count, though at most as many as do.
async fn passes(time: Duration) {
    const PARTS: u32 = 8;
    // Later than that no timer fires in a process that runs, but for one that has no core to run on.
    const LATE: Duration = Duration::from_millis(50);
    let (part, mut others) = (time / PARTS, PARTS);
    for _ in 0..PARTS {
        loop {
            let begun = Instant::now();
            sleep(part).await;
            if begun.elapsed() < part + LATE || others == 0 {
                break;
            }
            others -= 1;
        }
    }
    // What came in the last moment, while it stood still for less than that, is read by now.
    sleep(LATE).await;
}

/// An error and what it was caused by, from the outside in.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some errors tell their cause themselves.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
