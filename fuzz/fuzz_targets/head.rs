//! Any split of a head gives the scanner's one verdict; what parses is what a naive reader sees in it; and what goes on
//! to an upstream, or back to a client, has one host, one framing and no control byte.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_fuzz::{Source, pieces};
use tidegate_wire::HeadLimits;
use tidegate_wire::extension::{DeflatePolicy, negotiate};
use tidegate_wire::handshake::{
    Accepted, Offer, client_request, forwarded_fields, switching_protocols, upgrade, verify_response,
};
use tidegate_wire::http::{Fields, Framing, HeadScanner, Refusal, Request, ResponseHead, Scan};

/// What is written here may be longer than what was read.
const WIDE: HeadLimits = HeadLimits { head_bytes: 1 << 20, request_line_bytes: 1 << 16, fields: 1000 };

fuzz_target!(|data: &[u8]| {
    let mut source = Source(data);
    let (how, cuts) = (source.byte(), source.pair());
    let limits = match how & 1 {
        0 => HeadLimits::default(),
        _ => HeadLimits { head_bytes: 300, request_line_bytes: 60, fields: 6 },
    };
    let secure = how & 2 != 0;
    let bytes = source.0;

    let scanner = if how & 4 == 0 { HeadScanner::new() } else { HeadScanner::for_response() };
    let whole = scan(scanner.clone(), bytes, 0, &limits);
    for cuts in [1, cuts] {
        assert_eq!(scan(scanner.clone(), bytes, cuts, &limits), whole, "cut by {cuts}");
    }
    // Whole or not, complete or not, parsing is safe; and what parses is exactly one head.
    let head = match whole {
        Ok(Scan::Complete(end)) => &bytes[..end],
        Ok(Scan::Partial) | Err(_) => bytes,
    };
    if how & 4 == 0 {
        match Request::parse(head, &limits, secure) {
            Ok(request) => {
                assert_eq!(whole, Ok(Scan::Complete(head.len())), "the scanner knows of every head");
                check_request(head, &request, secure);
            }
            Err(refusal) => check_refusal(&refusal),
        }
    } else if let Ok(response) = ResponseHead::parse(head, &limits) {
        assert_eq!(whole, Ok(Scan::Complete(head.len())), "the scanner knows of every head");
        check_response(head, &response);
    }
});

/// The verdict; of two reasons for one refusal the first to be seen may depend on the cuts.
fn scan(mut scanner: HeadScanner, bytes: &[u8], cuts: u16, limits: &HeadLimits) -> Result<Scan, u16> {
    for piece in pieces(bytes.len(), cuts) {
        match scanner.scan(&bytes[..piece.end], limits) {
            Ok(Scan::Partial) => {}
            Ok(complete) => return Ok(complete),
            Err(refusal) => {
                check_refusal(&refusal);
                return Err(refusal.status);
            }
        }
    }
    Ok(Scan::Partial)
}

/// The lines of a head that was accepted, and no byte in them that ends a line for anyone.
fn lines(head: &[u8]) -> Vec<&[u8]> {
    let text = head.strip_suffix(b"\r\n\r\n").expect("a head ends with an empty line");
    let mut lines = Vec::new();
    let mut from = 0;
    for at in 0..text.len() {
        if text[at..].starts_with(b"\r\n") {
            lines.push(&text[from..at]);
            from = at + 2;
        }
    }
    lines.push(&text[from..]);
    for line in &lines {
        let control = line.iter().find(|byte| byte.is_ascii_control() && **byte != b'\t');
        assert_eq!(control, None, "a control byte in {}", line.escape_ascii());
    }
    lines
}

/// The fields are those of the lines, in order.
fn check_fields(lines: &[&[u8]], fields: &Fields<'_>) {
    assert_eq!(fields.len(), lines.len());
    for (line, (name, value)) in lines.iter().zip(fields.iter()) {
        let colon = line.iter().position(|byte| *byte == b':').expect("a field has a colon");
        assert_eq!(name.as_bytes(), &line[..colon]);
        assert!(
            !name.is_empty()
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(&byte))
        );
        let is_space = |byte: &u8| *byte == b' ' || *byte == b'\t';
        let rest = &line[colon + 1..];
        let start = rest.iter().position(|byte| !is_space(byte)).unwrap_or(rest.len());
        let end = rest.iter().rposition(|byte| !is_space(byte)).map_or(start, |last| last + 1);
        assert_eq!(value, &rest[start..end]);
    }
}

fn check_request(head: &[u8], request: &Request<'_>, secure: bool) {
    let lines = lines(head.strip_prefix(b"\r\n").unwrap_or(head));
    check_fields(&lines[1..], &request.fields);
    let words: Vec<&[u8]> = lines[0].split(|byte| *byte == b' ').collect();
    let [method, raw, _version] = words[..] else { panic!("a request line has three words") };
    assert_eq!(method, request.method.as_bytes());
    let target = request.target.to_string();
    // An absolute URI may have no path: then its `/` is the parser's.
    assert!(raw.ends_with(&target.as_bytes()[1..]));
    let path = request.target.path;
    assert!(path.starts_with('/') && target.starts_with(path));
    assert!(
        !path.contains("//") && !path.split('/').any(|segment| segment == "." || segment == ".."),
        "{path}"
    );
    assert!(!path.contains([';', '\\', '#', '?']) && !path.to_ascii_lowercase().contains("%2f"), "{path}");
    let hosts = request.fields.all("host").count();
    assert!(hosts == 1 || hosts == 0 && request.version == tidegate_wire::http::Version::Http10);
    assert!(!request.host.contains([',', '@', '/', ' ']) && request.host.starts_with(request.host_name()));
    let _ = (request.keep_alive(), request.expects_continue(), request.is_head());
    for refusal in [request.content_length().err(), request.check_page_method().err()].into_iter().flatten() {
        check_refusal(&refusal);
    }
    let asked = match upgrade(request) {
        Ok(asked) => asked,
        Err(refusal) => return check_refusal(&refusal),
    };
    assert!(request.is_upgrade() && asked.key.len() == 24);

    // On to an upstream: one host, one key, no hop-by-hop field, nothing lost that counts.
    let joined = asked.offers.values().join(", ");
    let raw = asked.offers.check().is_ok() && !joined.is_empty();
    let offer = if raw { Offer::Raw(&joined) } else { Offer::None };
    let key = [7; 16];
    let mut out = Vec::new();
    client_request(
        &mut out,
        &request.target.to_string(),
        request.host,
        &key,
        &asked.protocols,
        offer,
        forwarded_fields(&request.fields),
    );
    assert_eq!(HeadScanner::new().scan(&out, &WIDE), Ok(Scan::Complete(out.len())));
    let sent = Request::parse(&out, &WIDE, secure).expect("what is forwarded is well-formed");
    check_fields(&self::lines(&out)[1..], &sent.fields);
    for once in ["host", "upgrade", "connection", "sec-websocket-key", "sec-websocket-version"] {
        assert_eq!(sent.fields.all(once).count(), 1, "{once}");
    }
    for never in ["content-length", "transfer-encoding", "te", "keep-alive", "proxy-connection", "expect"] {
        assert!(!sent.fields.has(never), "{never}");
    }
    for option in request.fields.list("connection").filter(|option| !option.eq_ignore_ascii_case("upgrade")) {
        let own = [
            "host",
            "connection",
            "sec-websocket-key",
            "sec-websocket-version",
            "sec-websocket-protocol",
            "sec-websocket-extensions",
        ];
        if !own.iter().any(|own| option.eq_ignore_ascii_case(own)) {
            assert!(!sent.fields.has(option), "{option}");
        }
    }
    assert_eq!((sent.target, sent.host), (request.target, request.host));
    let heard = upgrade(&sent).expect("what is forwarded is an upgrade");
    assert_eq!((&heard.protocols, heard.origin), (&asked.protocols, asked.origin));

    // And back: what this end agrees to is what its own client side takes.
    let agreed = negotiate(&heard.offers, &DeflatePolicy { context_takeover: true, max_window_bits: 12 });
    let accepted =
        Accepted { key: heard.key, protocol: heard.protocols.first().copied(), extension: agreed.as_ref() };
    let mut answer = Vec::new();
    switching_protocols(&mut answer, &accepted);
    assert_eq!(HeadScanner::for_response().scan(&answer, &WIDE), Ok(Scan::Complete(answer.len())));
    let response = ResponseHead::parse(&answer, &WIDE).expect("a 101 is well-formed");
    check_fields(&self::lines(&answer)[1..], &response.fields);
    let verdict = verify_response(&response, &key, &asked.protocols, offer).expect("our own 101");
    assert_eq!(verdict.protocol.as_deref(), heard.protocols.first().copied());
    assert_eq!(verdict.extension.is_some(), agreed.is_some());
}

/// A refusal closes, states its length, and repeats nothing of the request.
fn check_refusal(refusal: &Refusal) {
    assert!(refusal.close && (400..=505).contains(&refusal.status));
    let answer = refusal.response(false);
    let Ok(Scan::Complete(end)) = HeadScanner::for_response().scan(&answer, &WIDE) else { panic!("no head") };
    let head = ResponseHead::parse(&answer[..end], &WIDE).expect("a refusal is well-formed");
    assert_eq!(head.status, refusal.status);
    assert_eq!(head.framing(), Ok(Framing::Length((answer.len() - end) as u64)));
    assert!(head.fields.has_token("connection", "close"));
    assert_eq!(refusal.response(true), answer[..end]);
}

/// What an answer without a date of its own is given.
const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

fn check_response(head: &[u8], response: &ResponseHead<'_>) {
    check_fields(&lines(head)[1..], &response.fields);
    let verdict = verify_response(response, &[7; 16], &["chat"], Offer::Raw("permessage-deflate"));
    assert!(response.status == 101 || verdict.is_err());
    if response.status < 200 {
        return;
    }
    let mut out = Vec::new();
    let Ok(framing) = response.relay(&mut out, DATE) else {
        assert!(out.is_empty());
        return;
    };
    assert_eq!(HeadScanner::for_response().scan(&out, &WIDE), Ok(Scan::Complete(out.len())));
    let sent = ResponseHead::parse(&out, &WIDE).expect("what is relayed is well-formed");
    check_fields(&lines(&out)[1..], &sent.fields);
    assert_eq!((sent.status, sent.framing()), (response.status, Ok(framing)), "the body ends where it ended");
    assert!(sent.fields.has_token("connection", "close") && sent.fields.all("connection").count() == 1);
    assert!(sent.fields.all("content-length").count() + sent.fields.all("transfer-encoding").count() <= 1);
}
