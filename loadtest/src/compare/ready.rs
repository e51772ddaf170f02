//! When a server has started.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use super::{
    measure::{Bench, Failure, Running},
    process::show_status,
    suite::Ready,
};

/// Between two looks at a server that starts.
pub(super) const STARTING: Duration = Duration::from_millis(20);
/// How long a server has the same processes before it counts as started.
const STEADY: Duration = Duration::from_millis(100);
/// The longest that is waited for an answer to an upgrade before the next is sent.
const ANSWER: Duration = Duration::from_secs(1);

impl Bench<'_> {
    pub(super) fn wait_until_ready(&self, running: &mut Running<'_>, url: &str) -> Result<(), Failure> {
        let began = Instant::now();
        let address = SocketAddr::from(([127, 0, 0, 1], running.port));
        let mut problem = "takes no connections".to_owned();
        let mut last = Vec::new();
        let mut is_ready = false;
        loop {
            if self.interrupts.first().is_some() {
                return Err(Failure::Interrupted);
            }
            if let Some(status) = running.process.ended() {
                return Err(running.failed(format!("ended {} instead of starting", show_status(status))));
            }
            if is_ready {
                // A server may listen before all its processes are there.
                let members = running.process.members();
                if members == last {
                    return Ok(());
                }
                last = members;
                "its processes come and go".clone_into(&mut problem);
            } else {
                match probe(address, url, running.server.ready) {
                    Ok(()) => {
                        is_ready = true;
                        continue;
                    }
                    Err(why) => problem = why.unwrap_or(problem),
                }
            }
            if began.elapsed() > self.suite.ready_timeout {
                let what = format!("did not start within {:?}: {problem}", self.suite.ready_timeout);
                return Err(running.failed(what));
            }
            thread::sleep(if is_ready { STEADY } else { STARTING });
        }
    }
}

/// Whether a server is ready; why it is not, where it said something.
fn probe(address: SocketAddr, url: &str, ready: Ready) -> Result<(), Option<String>> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER).map_err(|_| None)?;
    match ready {
        Ready::Connect => Ok(()),
        Ready::Upgrade => upgrade(&mut stream, url).map_err(Some),
    }
}

fn upgrade(stream: &mut TcpStream, url: &str) -> Result<(), String> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = rest.find('/').map_or("/", |at| &rest[at..]);
    let address = stream.peer_addr().map_err(|error| error.to_string())?;
    // The key of RFC 6455 §1.3.
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    let answer = (|| {
        stream.set_read_timeout(Some(ANSWER))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        let mut part = [0; 256];
        while !answer.contains(&b'\n') && answer.len() < 4096 {
            match stream.read(&mut part)? {
                0 => break,
                len => answer.extend_from_slice(&part[..len]),
            }
        }
        io::Result::Ok(answer)
    })();
    match answer {
        Ok(answer) if answer.starts_with(b"HTTP/1.1 101") => Ok(()),
        Ok(answer) if answer.is_empty() => Err("ends connections instead of answering an upgrade".to_owned()),
        Ok(answer) => {
            let line = String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned();
            Err(format!("answers an upgrade with {line:?}"))
        }
        Err(_) => Err("does not answer an upgrade".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn what_does_not_upgrade_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(probe(address, "ws://x/", Ready::Connect), Ok(()));
        for (answer, told) in [
            (&b"HTTP/1.1 101 Switching Protocols\r\n\r\n"[..], None),
            (
                b"HTTP/1.1 502 Bad Gateway\r\n\r\n",
                Some("answers an upgrade with \"HTTP/1.1 502 Bad Gateway\""),
            ),
            (b"", Some("ends connections instead of answering an upgrade")),
        ] {
            let prober = thread::spawn(move || probe(address, "ws://127.0.0.1:1/some/path", Ready::Upgrade));
            let head = loop {
                let (mut stream, _) = listener.accept().unwrap();
                let mut head = Vec::new();
                let mut part = [0; 512];
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read(&mut part).unwrap() {
                        0 => break,
                        len => head.extend_from_slice(&part[..len]),
                    }
                }
                // The first one was that of `Connect`.
                if !head.is_empty() {
                    stream.write_all(answer).unwrap();
                    break head;
                }
            };
            assert!(head.starts_with(b"GET /some/path HTTP/1.1\r\n"));
            assert_eq!(prober.join().unwrap().err(), told.map(|told| Some(told.to_owned())));
        }
        drop(listener);
        assert_eq!(probe(address, "ws://x/", Ready::Upgrade), Err(None));
    }
}
