//! `wss://`: against servers whose TLS is rustls's buffered side, which this program does not use itself.

mod harness;

use std::{
    fs,
    io::{self, BufReader, Read, Write},
    net::TcpStream,
    path::PathBuf,
    sync::Arc,
};

use harness::{Server, encode, read_frame, read_request, run, switching};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    pki_types::PrivateKeyDer,
    version::{TLS12, TLS13},
};

type Stream = BufReader<StreamOwned<ServerConnection, TcpStream>>;

/// A certificate for `127.0.0.1`, and the authority that vouches for it in a file.
struct Identity {
    folder: tempfile::TempDir,
    config: ServerConfig,
}

impl Identity {
    fn new(versions: &[&'static SupportedProtocolVersion]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority_key = KeyPair::generate().unwrap();
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // An authority of another name is not taken for this one.
        let name = folder.path().to_string_lossy().into_owned();
        authority.distinguished_name.push(DnType::CommonName, name);
        let certificate = authority.self_signed(&authority_key).unwrap();
        fs::write(folder.path().join("ca.pem"), certificate.pem()).unwrap();
        let issuer = Issuer::new(authority, authority_key);
        let key = KeyPair::generate().unwrap();
        let leaf =
            CertificateParams::new(vec!["127.0.0.1".into()]).unwrap().signed_by(&key, &issuer).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        Self { folder, config }
    }

    fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Every connection is given to `serve` after both handshakes.
    fn serve(&self, serve: impl Fn(Stream) -> io::Result<bool> + Send + Sync + 'static) -> Server {
        let config = Arc::new(self.config.clone());
        Server::raw(move |stream, deeds| {
            let begin = || {
                stream.set_nodelay(true)?;
                let connection = ServerConnection::new(Arc::clone(&config)).map_err(io::Error::other)?;
                let mut stream = BufReader::new(StreamOwned::new(connection, stream.try_clone()?));
                let key = read_request(&mut stream)?.key;
                stream.get_mut().write_all(switching(&key).as_bytes())?;
                serve(stream)
            };
            // Its peer may go at any time.
            if let Ok(true) = begin() {
                deeds.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
        })
    }

    /// Echoes; counts the sessions that ended with a Close and a close_notify from each side.
    fn echo(&self) -> Server {
        self.serve(|mut stream| {
            loop {
                let frame = read_frame(&mut stream)?;
                stream.get_mut().write_all(&encode(frame.opcode, &frame.payload))?;
                if frame.opcode == 8 {
                    break;
                }
            }
            let tls = stream.get_mut();
            tls.conn.send_close_notify();
            tls.flush()?;
            // An end without a close_notify is an error here.
            Ok(stream.read(&mut [0])? == 0)
        })
    }
}

fn url(server: &Server) -> String {
    format!("wss://{}/", server.address)
}

#[test]
fn an_honest_server_has_no_errors() {
    for (versions, name) in [(&[&TLS12], "TLSv1_2"), (&[&TLS13], "TLSv1_3")] {
        let identity = Identity::new(versions);
        let server = identity.echo();
        let ca = identity.ca();
        for (round, more) in ["", "-s 0..300 --text", "-s 100000", "--io epoll -s 10..70000", "-t 2 -R 400"]
            .into_iter()
            .enumerate()
        {
            let depth = if more.contains("-R") { "" } else { "--depth 4" };
            let run = run(&format!(
                "echo {} -c 4 {depth} -d 400ms --warmup 0 --ca {} --quiet --json - {more}",
                url(&server),
                ca.display()
            ));
            let report = run.json();
            assert_eq!((run.code(), report["errors"]["total"].as_u64()), (0, Some(0)), "{more}: {report:#}");
            assert!(report["latency"]["count"].as_u64().unwrap() >= 4, "{more}: {report:#}");
            assert_eq!((&report["sessions"]["closed"], &report["tls"]["handshakes"]), (&4.into(), &4.into()));
            let suites = report["tls"]["suites"].as_object().unwrap();
            assert!(suites.keys().all(|suite| suite.starts_with(name)), "{suites:?}");
            assert_eq!(server.deeds(), 4 * (round as u64 + 1), "{more}: close_notify from each side");
        }
    }
}

#[test]
fn a_certificate_that_is_not_trusted_is_told_once() {
    let identity = Identity::new(&[&TLS13]);
    let server = identity.echo();
    let stranger = Identity::new(&[&TLS13]);
    let arguments = format!("idle {} -c 4 -d 100ms --quiet --json -", url(&server));
    let refused = run(&format!("{arguments} --ca {}", stranger.ca().display()));
    assert_eq!((refused.code(), refused.errors("tls_handshake")), (1, 4), "{}", refused.stdout);
    assert_eq!(refused.stderr.matches("not trusted").count(), 1, "{}", refused.stderr);
    let taken = run(&format!("{arguments} -k"));
    assert_eq!((taken.code(), taken.json()["errors"]["total"].as_u64()), (0, Some(0)), "{}", taken.stdout);
    assert_eq!(taken.json()["sessions"]["closed"], 4);
}

#[test]
fn alerts_and_what_is_not_tls_are_told_with_their_reason() {
    let mut identity = Identity::new(&[&TLS13]);
    identity.config.alpn_protocols = vec![b"h2".to_vec()];
    let alert = identity.echo();
    let silent = Server::raw(|mut stream, _| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let http = Server::raw(|mut stream, _| {
        let _ = stream.read(&mut [0; 100]).and_then(|_| stream.write_all(b"HTTP/1.1 400 No\r\n\r\n"));
    });
    for (server, kind, reason) in [
        (&alert, "tls_handshake", "NoApplicationProtocol"),
        (&http, "tls_handshake", "not TLS"),
        (&silent, "handshake_timeout", ""),
    ] {
        let run = run(&format!("idle {} -c 3 -d 100ms -k --timeout 500ms --quiet --json -", url(server)));
        assert_eq!((run.code(), run.errors(kind)), (1, 3), "{}", run.stdout);
        assert!(run.stderr.contains(reason), "{}", run.stderr);
    }
}

#[test]
fn records_that_break_later_are_counted_apart() {
    let identity = Identity::new(&[&TLS13]);
    let server = identity.serve(|mut stream| {
        read_frame(&mut stream)?;
        stream.get_mut().sock.write_all(&[23, 3, 3, 0, 40, 1])?;
        stream.get_mut().sock.write_all(&[0; 39])?;
        Ok(true)
    });
    let run = run(&format!("echo {} -c 3 -d 5s --warmup 0 -k --quiet --json -", url(&server)));
    assert_eq!((run.errors("tls_broken"), run.errors("unanswered")), (3, 3), "{}", run.stdout);
    assert!(run.took.as_secs() < 5, "without sessions a run is over");
    assert!(run.stderr.contains("TLS: "), "{}", run.stderr);
}

#[test]
fn a_close_notify_ends_the_stream() {
    let identity = Identity::new(&[&TLS13]);
    let server = identity.serve(|mut stream| {
        read_frame(&mut stream)?;
        let tls = stream.get_mut();
        tls.conn.send_close_notify();
        tls.flush()?;
        // The connection stays up: close_notify alone must do.
        let _ = stream.get_mut().sock.read(&mut [0; 100]);
        let _ = stream.get_mut().sock.read(&mut [0; 100]);
        Ok(true)
    });
    let run = run(&format!("echo {} -c 3 -d 5s --warmup 0 -k --quiet --json -", url(&server)));
    assert_eq!((run.errors("eof"), run.errors("unanswered")), (3, 3), "{}", run.stdout);
}

#[test]
fn sessions_that_follow_others_resume_them_unless_told_not_to() {
    let identity = Identity::new(&[&TLS13]);
    let server = identity.echo();
    for (more, resumes) in [("", true), ("--no-resumption", false)] {
        let run = run(&format!(
            "churn {} -c 16 -R 20 -d 1s --warmup 0 -k --quiet --json - --assert errors=0 {more}",
            url(&server)
        ));
        let report = run.json();
        assert_eq!(run.code(), 0, "{report:#}");
        let (handshakes, resumed) =
            (report["tls"]["handshakes"].as_u64().unwrap(), report["tls"]["resumed"].as_u64().unwrap());
        assert!(handshakes >= 15, "{report:#}");
        assert_eq!(resumed > 0, resumes, "{report:#}");
    }
}
