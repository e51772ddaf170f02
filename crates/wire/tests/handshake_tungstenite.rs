//! Another implementation on the other side, in both directions, in memory.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::rc::Rc;

use tidegate_wire::HeadLimits;
use tidegate_wire::handshake::{
    Accepted, Agreed, Offer, client_request, switching_protocols, upgrade, verify_response,
};
use tidegate_wire::http::{BadResponse, HeadScanner, Refusal, Request, ResponseHead, Scan};
use tungstenite::ClientRequestBuilder;
use tungstenite::handshake::HandshakeError;
use tungstenite::handshake::server::{ErrorResponse, Request as TheirRequest, Response as TheirResponse};

/// One end of a connection: what it reads was put there by the test, what it writes the test takes.
#[derive(Clone, Default, Debug)]
struct Pipe(Rc<RefCell<(VecDeque<u8>, Vec<u8>)>>);

impl Pipe {
    fn give(&self, bytes: &[u8]) {
        self.0.borrow_mut().0.extend(bytes);
    }

    fn written(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.borrow_mut().1)
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.borrow_mut().0.read(buffer)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            read => Ok(read),
        }
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().1.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn scanned(scanner: HeadScanner, bytes: &[u8]) -> usize {
    match { scanner }.scan(bytes, &HeadLimits::default()) {
        Ok(Scan::Complete(end)) => end,
        other => panic!("{other:?}: {}", String::from_utf8_lossy(bytes)),
    }
}

#[test]
fn their_client_is_accepted_and_accepts() {
    for (uri, raw, host) in [
        ("ws://gw.test/ws", "/ws", "gw.test"),
        ("ws://gw.test:9001/a/b?c=d&e=%20", "/a/b?c=d&e=%20", "gw.test:9001"),
        ("ws://[::1]:80/", "/", "[::1]:80"),
        ("ws://gw.test", "/", "gw.test"),
    ] {
        for protocols in [&[][..], &["chat"], &["a", "chat", "b"]] {
            let mut builder =
                ClientRequestBuilder::new(uri.parse().unwrap()).with_header("Origin", "https://page.test");
            for protocol in protocols {
                builder = builder.with_sub_protocol(*protocol);
            }
            let pipe = Pipe::default();
            let Err(HandshakeError::Interrupted(waiting)) = tungstenite::client(builder, pipe.clone()) else {
                panic!("the client has to wait for the answer");
            };

            let sent = pipe.written();
            assert_eq!(scanned(HeadScanner::new(), &sent), sent.len());
            let request = Request::parse(&sent, &HeadLimits::default(), false).unwrap();
            assert_eq!((request.target.to_string().as_str(), request.host), (raw, host));
            assert!(request.is_upgrade());
            let accepted = upgrade(&request).unwrap();
            assert_eq!(accepted.protocols, protocols);
            assert_eq!(accepted.origin, Some("https://page.test"));

            let mut answer = Vec::new();
            let protocol = protocols.contains(&"chat").then_some("chat");
            switching_protocols(&mut answer, &Accepted { key: accepted.key, protocol, extension: None });
            // RFC 6455 §4.2.2: the server may send at once.
            answer.extend_from_slice(b"\x81\x02hi");
            pipe.give(&answer);
            let (mut session, response) = waiting.handshake().unwrap();
            assert_eq!(
                response.headers().get("sec-websocket-protocol").map(|value| value.to_str().unwrap()),
                protocol
            );
            assert_eq!(session.read().unwrap().into_text().unwrap().as_str(), "hi");
        }
    }
}

#[test]
fn their_client_understands_a_refusal() {
    for refusal in [Refusal::NOT_FOUND, Refusal::ORIGIN, Refusal::UNAVAILABLE] {
        let pipe = Pipe::default();
        let builder = ClientRequestBuilder::new("ws://gw.test/ws".parse().unwrap());
        let Err(HandshakeError::Interrupted(waiting)) = tungstenite::client(builder, pipe.clone()) else {
            panic!("the client has to wait for the answer");
        };
        pipe.give(&refusal.response(false));
        match waiting.handshake() {
            Err(HandshakeError::Failure(tungstenite::Error::Http(response))) => {
                assert_eq!(response.status().as_u16(), refusal.status);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn their_server_accepts_and_is_accepted() {
    for (key, protocols) in
        [(*b"the sample nonce", &[][..]), ([0; 16], &["chat"]), ([255; 16], &["a", "chat"])]
    {
        let mut head = Vec::new();
        client_request(
            &mut head,
            "/ws?a=b",
            "gw.test",
            &key,
            protocols,
            Offer::None,
            [("Cookie", &b"c=d"[..])],
        );
        let pipe = Pipe::default();
        pipe.give(&head);
        #[expect(clippy::result_large_err, reason = "their signature")]
        let choose = |request: &TheirRequest, mut response: TheirResponse| -> Result<_, ErrorResponse> {
            assert_eq!(request.uri().to_string(), "/ws?a=b");
            assert_eq!(request.headers()["host"], "gw.test");
            assert_eq!(request.headers()["cookie"], "c=d");
            if !protocols.is_empty() {
                response.headers_mut().insert("sec-websocket-protocol", "chat".parse().unwrap());
            }
            Ok(response)
        };
        let mut session = tungstenite::accept_hdr(pipe.clone(), choose).unwrap();

        let sent = pipe.written();
        assert_eq!(scanned(HeadScanner::for_response(), &sent), sent.len());
        let response = ResponseHead::parse(&sent, &HeadLimits::default()).unwrap();
        let agreed = verify_response(&response, &key, protocols, Offer::None).unwrap();
        let protocol = (!protocols.is_empty()).then(|| "chat".to_owned());
        pipe.give(b"\x81\x82\0\0\0\0hi");
        assert_eq!(session.read().unwrap().into_text().unwrap().as_str(), "hi");
        assert_eq!(agreed, Agreed { protocol, ..Agreed::default() });
        assert_eq!(
            verify_response(&response, b"another  16 byte", protocols, Offer::None),
            Err(BadResponse::Accept)
        );
    }
}

#[test]
fn the_accept_keys_are_equal() {
    use tidegate_wire::handshake::accept_key;
    use tungstenite::handshake::derive_accept_key;
    for key in ["dGhlIHNhbXBsZSBub25jZQ==", "AAAAAAAAAAAAAAAAAAAAAA==", "", "any text at all"] {
        assert_eq!(&accept_key(key)[..], derive_accept_key(key.as_bytes()).as_bytes());
    }
}
