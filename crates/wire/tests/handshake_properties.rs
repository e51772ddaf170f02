//! Properties of heads and handshakes: cuts do not matter, nothing panics, the two sides agree with each other, and no
//! single mutation of a deciding field is taken.

use std::ops::Range;

use proptest::collection::vec;
use proptest::prelude::*;
use tidegate_wire::HeadLimits;
use tidegate_wire::extension::{DeflateOffer, DeflatePolicy, negotiate};
use tidegate_wire::handshake::{
    Accepted, Agreed, Offer, accept_key, client_request, forwarded_fields, switching_protocols, upgrade,
    verify_response,
};
use tidegate_wire::http::{BadResponse, HeadScanner, Refusal, Request, ResponseHead, Scan};

const LIMITS: HeadLimits = HeadLimits { head_bytes: 700, request_line_bytes: 200, fields: 12 };

const REQ: &str = "GET /ws HTTP/1.1\r\nHost: gw.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

const KEY: [u8; 16] = *b"the sample nonce";

fn response_101() -> String {
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        .to_owned()
}

/// One edit of one byte.
#[derive(Clone, Debug)]
enum Edit {
    Replace(u8),
    Insert(u8),
    Remove,
}

impl Edit {
    fn apply(&self, bytes: &mut Vec<u8>, at: usize) {
        match self {
            Self::Replace(byte) => bytes[at] = *byte,
            Self::Insert(byte) => bytes.insert(at, *byte),
            Self::Remove => drop(bytes.remove(at)),
        }
    }
}

fn edit() -> impl Strategy<Value = Edit> {
    // Bytes that mean something to the grammar come up as often as all others together.
    let byte = || prop_oneof![any::<u8>(), prop::sample::select(&b"\r\n\t :,;/?#%.=\0\"GHh1x"[..])];
    prop_oneof![byte().prop_map(Edit::Replace), byte().prop_map(Edit::Insert), Just(Edit::Remove)]
}

/// Pieces of HTTP in any order, and random bytes.
fn soup() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "GET ",
            "POST",
            "PRI * HTTP/2.0",
            "/ws",
            "//",
            "/../",
            "%2e",
            "%00",
            "ws://gw.test",
            "?",
            "#",
            " HTTP/1.1",
            " HTTP/1.0",
            "\r\n",
            "\r\n\r\n",
            "\n",
            "\r",
            " ",
            "\t",
            "Host: gw.test",
            "Host:",
            "Content-Length: 5",
            "Transfer-Encoding: chunked",
            ": ",
            ",",
            "Upgrade: websocket",
            "Connection: upgrade",
            "X: a",
            "HTTP/1.1 101 x",
            "a@b:80",
            "[::1]",
        ])
        .prop_map(|piece| piece.as_bytes().to_vec()),
        vec(any::<u8>(), 0..4),
        vec(Just(b'a'), 0..250),
    ];
    vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

/// A request with a few edits: mostly refused, sometimes not.
fn nearly_a_request() -> impl Strategy<Value = Vec<u8>> {
    vec((any::<prop::sample::Index>(), edit()), 0..4).prop_map(|edits| {
        let mut bytes = REQ.as_bytes().to_vec();
        for (at, edit) in edits {
            let at = at.index(bytes.len());
            edit.apply(&mut bytes, at);
        }
        bytes
    })
}

fn any_input() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![soup(), nearly_a_request(), vec(any::<u8>(), 0..64)]
}

/// Feeds the scanner and says what came of it.
fn scan<'a>(mut scanner: HeadScanner, chunks: impl IntoIterator<Item = &'a [u8]>) -> Result<Scan, u16> {
    let mut received = Vec::new();
    for chunk in chunks {
        received.extend_from_slice(chunk);
        match scanner.scan(&received, &LIMITS) {
            Ok(Scan::Partial) => {}
            Ok(complete) => return Ok(complete),
            Err(Refusal { status, .. }) => return Err(status),
        }
    }
    Ok(Scan::Partial)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_cut_of_a_head_gives_the_same_verdict(input in any_input(), cuts in vec(any::<prop::sample::Index>(), 0..6)) {
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
        cuts.sort_unstable();
        let mut chunks = Vec::new();
        let mut from = 0;
        for cut in cuts {
            chunks.push(&input[from..cut]);
            from = cut;
        }
        chunks.push(&input[from..]);
        for scanner in [HeadScanner::new(), HeadScanner::for_response()] {
            let whole = scan(scanner.clone(), [&input[..]]);
            prop_assert_eq!(scan(scanner.clone(), chunks.iter().copied()), whole);
            prop_assert_eq!(scan(scanner, input.chunks(1)), whole);
        }
    }

    #[test]
    fn nothing_that_a_peer_sends_panics(input in any_input()) {
        if let Ok(request) = Request::parse(&input, &LIMITS, false) {
            let _ = (upgrade(&request), request.keep_alive(), request.content_length(), request.check_page_method());
            let _ = forwarded_fields(&request.fields).count();
        }
        if let Ok(response) = ResponseHead::parse(&input, &LIMITS) {
            let _ = verify_response(&response, &KEY, &[], Offer::None);
            if response.status >= 200 {
                let _ = response.relay(&mut Vec::new(), "Sun, 06 Nov 1994 08:49:37 GMT");
            }
        }
    }

    #[test]
    fn what_is_parsed_was_a_whole_head_to_the_scanner(input in any_input()) {
        if Request::parse(&input, &LIMITS, false).is_ok() {
            prop_assert_eq!(scan(HeadScanner::new(), [&input[..]]), Ok(Scan::Complete(input.len())));
        }
        if ResponseHead::parse(&input, &LIMITS).is_ok() {
            prop_assert_eq!(scan(HeadScanner::for_response(), [&input[..]]), Ok(Scan::Complete(input.len())));
        }
    }

    /// What this side takes, it passes on in a form that it takes again, to the same end.
    #[test]
    fn what_is_accepted_is_forwarded_as_it_was_matched(input in nearly_a_request()) {
        let Ok(request) = Request::parse(&input, &LIMITS, false) else { return Ok(()) };
        let Ok(accepted) = upgrade(&request) else { return Ok(()) };
        let mut forwarded = Vec::new();
        let fields = forwarded_fields(&request.fields);
        client_request(&mut forwarded, &request.target.to_string(), request.host, &KEY, &accepted.protocols, Offer::None, fields);
        let again = Request::parse(&forwarded, &HeadLimits::default(), false).unwrap();
        prop_assert_eq!(again.target, request.target);
        prop_assert_eq!((again.host, again.host_name(), again.port()), (request.host, request.host_name(), request.port()));
        prop_assert_eq!(upgrade(&again).unwrap().protocols, accepted.protocols);
        let passed: Vec<_> = forwarded_fields(&again.fields).collect();
        prop_assert_eq!(passed, forwarded_fields(&request.fields).collect::<Vec<_>>());
    }

    #[test]
    fn both_sides_agree(
        key in any::<[u8; 16]>(),
        path in "(/[a-z0-9_~!$&'()*+,=:@-]{1,8}){1,3}(\\?[a-z%2520&=/?]{0,0}[a-z&=/?]{0,12})?",
        protocols in prop::collection::hash_set("[a-zA-Z0-9.!#$%&'*+^_`|~-]{1,12}", 0..5),
        chosen in any::<prop::sample::Index>(),
        deflate in any::<bool>(),
    ) {
        let protocols: Vec<_> = protocols.iter().map(String::as_str).collect();
        let asked = DeflateOffer::default();
        let offer = if deflate { Offer::Deflate(&asked) } else { Offer::None };
        let mut head = Vec::new();
        client_request(&mut head, &path, "gw.test:9001", &key, &protocols, offer, [("Cookie", &b"caf\xe9"[..])]);

        let request = Request::parse(&head, &HeadLimits::default(), false).unwrap();
        prop_assert_eq!(request.target.to_string(), path.clone());
        let accepted = upgrade(&request).unwrap();
        prop_assert_eq!(&accepted.protocols, &protocols);
        let protocol = (!protocols.is_empty()).then(|| protocols[chosen.index(protocols.len())]);
        let extension = negotiate(&accepted.offers, &DeflatePolicy::default());
        prop_assert_eq!(extension.is_some(), deflate);

        let mut answer = Vec::new();
        switching_protocols(&mut answer, &Accepted { key: accepted.key, protocol, extension: extension.as_ref() });
        let response = ResponseHead::parse(&answer, &HeadLimits::default()).unwrap();
        let agreed = verify_response(&response, &key, &protocols, offer).unwrap();
        prop_assert_eq!(agreed.protocol.as_deref(), protocol);
        prop_assert_eq!(agreed.extension, extension);

        // Another key, another offer: not an answer to that.
        let mut other = key;
        other[3] ^= 1;
        prop_assert_eq!(verify_response(&response, &other, &protocols, offer), Err(BadResponse::Accept));
        if protocol.is_some() {
            prop_assert_eq!(verify_response(&response, &key, &[], offer), Err(BadResponse::Protocol));
        }
        if deflate {
            prop_assert_eq!(verify_response(&response, &key, &protocols, Offer::None), Err(BadResponse::Extension));
        }
    }

    #[test]
    fn no_single_mutation_of_a_deciding_field_of_a_101_is_taken(at in any::<prop::sample::Index>(), edit in edit()) {
        let text = response_101();
        let original = text.as_bytes();
        let fields = text.find("Upgrade:").unwrap()..text.len();
        let mut bytes = original.to_vec();
        edit.apply(&mut bytes, fields.start + at.index(fields.len()));
        let Ok(response) = ResponseHead::parse(&bytes, &LIMITS) else { return Ok(()) };
        let verdict = verify_response(&response, &KEY, &[], Offer::None);
        let meaning = (
            response.fields.one("upgrade").ok().flatten().map(str::to_ascii_lowercase),
            response.fields.list("connection").map(str::to_ascii_lowercase).collect::<Vec<_>>(),
            response.fields.one("sec-websocket-accept").ok().flatten().map(str::to_owned),
        );
        let unchanged = (
            Some("websocket".to_owned()),
            vec!["upgrade".to_owned()],
            Some(String::from_utf8(accept_key("dGhlIHNhbXBsZSBub25jZQ==").to_vec()).unwrap()),
        );
        // Case, and space or commas at the ends of a list, mean nothing; all else does.
        prop_assert_eq!(verdict == Ok(Agreed::default()), meaning == unchanged, "{:?}", String::from_utf8_lossy(&bytes));
    }
}

/// All of them, not a sample: each byte of the three fields replaced by each other byte, removed, doubled.
#[test]
fn every_single_replacement_in_a_101_is_refused_but_case() {
    let text = response_101();
    let original = text.as_bytes();
    let accepted = |bytes: &[u8]| {
        ResponseHead::parse(bytes, &LIMITS)
            .is_ok_and(|response| verify_response(&response, &KEY, &[], Offer::None).is_ok())
    };
    assert!(accepted(original));
    let accept_value = value(&text, "Sec-WebSocket-Accept: ");
    let connection = value(&text, "Connection: ").start - 1;
    for at in text.find("Upgrade:").unwrap()..text.len() {
        for byte in 0..=255u8 {
            let mut bytes = original.to_vec();
            bytes[at] = byte;
            let case_only = byte.eq_ignore_ascii_case(&original[at]) && !accept_value.contains(&at);
            // The space behind a colon may be any white space.
            let space = original[at] == b' ' && byte == b'\t';
            // `Connection:,Upgrade` is a list with an empty element (RFC 9110 §5.6.1.2).
            let comma = at == connection && byte == b',';
            let same = byte == original[at] || case_only || space || comma;
            assert_eq!(accepted(&bytes), same, "byte {at} is {byte:#x}");
        }
        let mut bytes = original.to_vec();
        bytes.remove(at);
        assert_eq!(accepted(&bytes), original[at] == b' ', "without byte {at}");
    }
}

fn value(text: &str, name: &str) -> Range<usize> {
    let start = text.find(name).unwrap() + name.len();
    start..start + text[start..].find('\r').unwrap()
}

/// The same for what decides in a request.
#[test]
fn every_single_replacement_in_upgrade_connection_and_version_is_refused_but_case() {
    let accepted = |bytes: &[u8]| {
        Request::parse(bytes, &LIMITS, false).and_then(|request| upgrade(&request).map(drop)).is_ok()
    };
    assert!(accepted(REQ.as_bytes()));
    for name in ["Upgrade: ", "Connection: ", "Sec-WebSocket-Version: "] {
        let value = value(REQ, name);
        for at in value.start - name.len()..value.end {
            for byte in 0..=255u8 {
                let mut bytes = REQ.as_bytes().to_vec();
                let before = bytes[at];
                bytes[at] = byte;
                let space = before == b' ' && byte == b'\t';
                // `Connection: ,Upgrade` and `Upgrade: ,websocket` are lists with an empty element (RFC 9110 §5.6.1.2).
                let comma = before == b' ' && byte == b',' && name != "Sec-WebSocket-Version: ";
                let same = byte.eq_ignore_ascii_case(&before) || space || comma;
                assert_eq!(accepted(&bytes), same, "byte {at} is {byte:#x}");
            }
        }
    }
}
