//! Servers of HTTP that the gateway itself asks: key sets and hooks, as a script answers.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use super::{
    PATIENCE,
    certificates::Issued,
    inbox::Incoming,
    upstream::{Connection, Upstream},
};

/// What the gateway has asked for.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Asked {
    /// The path and the query.
    pub(crate) fn target(&self) -> &str {
        self.head.split(' ').nth(1).expect("a request line")
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// What it is answered.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// A status and a body; the connection is kept.
    Status(u16, String),
    /// These bytes, and the end.
    Raw(Vec<u8>),
    /// Nothing, until the gateway has enough of it.
    Silence,
}

/// A server.
pub(crate) struct Web {
    upstream: Upstream,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Web {
    /// One that answers as `script` says, on a thread for each connection.
    pub(crate) fn start(script: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Web {
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let seen = Arc::clone(&asked);
        let upstream = Upstream::start(move |mut connection| {
            while let Some(request) = request(&mut connection) {
                seen.lock().expect("a lock").push(request.clone());
                let goes_on = match script(&request) {
                    Reply::Status(status, body) => connection.send(&answer(status, &body)),
                    Reply::Raw(bytes) => {
                        connection.send(&bytes);
                        false
                    }
                    Reply::Silence => {
                        connection.end_within(PATIENCE);
                        false
                    }
                };
                if !goes_on {
                    return;
                }
            }
        });
        Web { upstream, asked }
    }

    /// A URL at it.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.upstream.address())
    }

    /// What was asked for so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("a lock").clone()
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.upstream.accepted()
    }
}

/// The next request; `None` where there is none.
fn request(connection: &mut Connection) -> Option<Asked> {
    let head = connection.head()?;
    let length =
        super::upstream::field(&head, "content-length").map_or(0, |text| text.parse().expect("a length"));
    while connection.inbox().bytes.len() < length {
        if !connection.receive_within(PATIENCE) {
            return None;
        }
    }
    let body = connection.inbox().bytes.drain(..length).collect();
    Some(Asked { head, body: String::from_utf8(body).expect("text") })
}

/// A whole answer.
pub(crate) fn answer(status: u16, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status} Status\r\nLocation: /elsewhere\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A server that speaks TLS with this certificate and has one answer for everybody; gives its port.
pub(crate) fn secure_web(issued: &Issued, body: String) -> u16 {
    let chain = vec![CertificateDer::from_pem_file(Path::new(&issued.chain)).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_file(Path::new(&issued.key)).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a pair");
    let config = Arc::new(config);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    let port = listener.local_addr().expect("a bound socket").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Who does not trust it ends the handshake.
            let _ = answer_securely(stream, &config, &body);
        }
    });
    port
}

fn answer_securely(stream: TcpStream, config: &Arc<ServerConfig>, body: &str) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let connection = ServerConnection::new(Arc::clone(config)).map_err(std::io::Error::other)?;
    let mut stream = StreamOwned::new(connection, stream);
    let mut head = [0; 4096];
    let mut len = 0;
    while !head[..len].ends_with(b"\r\n\r\n") {
        match stream.read(&mut head[len..])? {
            0 => return Ok(()),
            read => len += read,
        }
    }
    stream.write_all(&answer(200, body))?;
    stream.conn.send_close_notify();
    stream.flush()
}
