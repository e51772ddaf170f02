//! Rows of the layers ws-hs and deflate: what an upgrade may say.

use tidegate_wire::HeadLimits;
use tidegate_wire::handshake::{
    Offer, OriginRule, client_request, forwarded_fields, origin_allowed, upgrade,
};
use tidegate_wire::http::{Refusal, Request};

use crate::{KEY, Verdict, closes, contains, req, route, serve, status};

/// W01
#[test]
fn rfc9110_15_5_22_without_upgrade_the_answer_is_426() {
    for edits in [
        "{-Upgrade}",
        "{Upgrade=}",
        "{Upgrade=,}",
        "{Upgrade=websocket/13}",
        "{Upgrade=websockets}",
        "{Upgrade=TLS/1.0}",
    ] {
        let verdict = serve(&req(edits));
        assert_eq!(verdict.status(), 426, "{edits}");
        assert!(verdict.has_field("Upgrade: websocket"));
        assert!(verdict.has_field("Connection: Upgrade, close"));
    }
    closes(&req("{Upgrade=web socket}"), 400);
    closes(&req("{Upgrade=websocket/}"), 400);
    closes(&req("{Upgrade=\"websocket\"}"), 400);
    closes(&req("{+Upgrade: websocket}"), 400);
    closes(&req("{+Upgrade: h2c}"), 400);
    for value in ["WebSocket", "WEBSOCKET", "websocket, foo", "foo/1,websocket", ",websocket,"] {
        assert_eq!(status(&format!("{{Upgrade={value}}}")), 101, "{value}");
    }
}

/// W02
#[test]
fn an_upgrade_to_h2c_is_refused() {
    closes(&req("{Upgrade=h2c}{+HTTP2-Settings: AAMAAABkAAQAAP__}{Connection=Upgrade, HTTP2-Settings}"), 426);
    // Beside websocket it is passed over, and the settings are never forwarded.
    let head = req(
        "{Upgrade=websocket, h2c}{+HTTP2-Settings: AAMAAABkAAQAAP__}{Connection=Upgrade, HTTP2-Settings}",
    );
    let request = Request::parse(&head, &HeadLimits::default(), false).unwrap();
    assert!(upgrade(&request).is_ok());
    assert_eq!(forwarded_fields(&request.fields).count(), 0);
}

/// W04
#[test]
fn rfc6455_4_2_1_connection_names_upgrade() {
    for edits in [
        "{Connection=close}",
        "{-Connection}",
        "{Connection=keep-alive}",
        "{Connection=}",
        "{Connection=Upgraded}",
        "{Connection=Up grade}",
        "{Connection=\"Upgrade\"}",
        "{Connection=Upgrade;q=1}",
    ] {
        closes(&req(edits), 400);
    }
    closes(&req(&format!("{{Connection=Upgrade{}}}", ", x".repeat(100))), 400);
    for value in ["upgrade", "keep-alive, Upgrade", "UPGRADE", ",Upgrade ,", "Upgrade,keep-alive"] {
        assert_eq!(status(&format!("{{Connection={value}}}")), 101, "{value}");
    }
    assert_eq!(status("{Connection=keep-alive}{+Connection: Upgrade}"), 101);
}

/// W06, W08, W24
#[test]
fn rfc6455_4_2_1_one_key_of_sixteen_bytes() {
    closes(&req("{-Sec-WebSocket-Key}"), 400);
    closes(&req("{+Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==}"), 400);
    closes(&req("{+sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==}"), 400);
    for key in [
        "client-random-string",
        "",
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZSBub25jZTE=",
        "dGhlIHNhbXBsZSBub25jZTEy",
        "dGhlIHNhbXBsZSBub25jZQ==, dGhlIHNhbXBsZSBub25jZQ==",
        "dGhlIHNhbXBs ZSBub25jZQ==",
        "\"dGhlIHNhbXBsZSBub25jZQ==\"",
        "dGhlIHNhbXBsZSBub25jZ\u{e9}==",
    ] {
        closes(&req(&format!("{{Sec-WebSocket-Key={key}}}")), 400);
    }
}

/// W09, W11
#[test]
fn rfc6455_4_4_one_version_and_it_is_13() {
    for edits in [
        "{-Sec-WebSocket-Version}",
        "{+Sec-WebSocket-Version: 13}",
        "{+Sec-WebSocket-Version: 8}",
        "{Sec-WebSocket-Version=}",
        "{Sec-WebSocket-Version=13, 8}",
        "{Sec-WebSocket-Version=13,13}",
        "{Sec-WebSocket-Version=013}",
        "{Sec-WebSocket-Version=+13}",
        "{Sec-WebSocket-Version=13.0}",
        "{Sec-WebSocket-Version=256}",
        "{Sec-WebSocket-Version=thirteen}",
        "{Sec-WebSocket-Version=1\u{e9}}",
    ] {
        let verdict = serve(&req(edits));
        assert_eq!(verdict.status(), 400, "{edits}");
        assert!(verdict.has_field("Sec-WebSocket-Version: 13"), "{edits}");
    }
    for version in ["0", "7", "8", "12", "14", "255"] {
        let verdict = serve(&req(&format!("{{Sec-WebSocket-Version={version}}}")));
        assert_eq!(verdict.status(), 426);
        assert!(verdict.has_field("Sec-WebSocket-Version: 13"));
        assert!(verdict.has_field("Upgrade: websocket"));
    }
}

/// W12, W26
#[test]
fn rfc6455_10_2_an_origin_that_is_not_listed_may_not_connect() {
    let head = |origin: &str| req(&format!("{{+Origin: {origin}}}"));
    let judge = |head: &[u8], rules: &[&str]| {
        let request = Request::parse(head, &HeadLimits::default(), false).unwrap();
        let upgrade = upgrade(&request).unwrap();
        let rules: Vec<_> = rules.iter().map(|rule| OriginRule::parse(rule).unwrap()).collect();
        origin_allowed(&rules, upgrade.origin, request.host, false)
    };
    let rules = ["https://chat.example.com"];
    assert!(!judge(&head("https://evil.test"), &rules));
    assert!(!judge(&head("null"), &rules));
    assert!(judge(&head("null"), &[]));
    assert!(judge(&head("https://chat.example.com"), &rules));
    assert!(judge(&head("http://gw.test"), &rules));
    assert!(judge(&req(""), &rules));
    assert_eq!((Refusal::ORIGIN.status, Refusal::ORIGIN.close), (403, true));
    closes(&req("{+Origin: https://evil.test}{+Origin: https://chat.example.com}"), 400);
}

/// W14
#[test]
fn a_subprotocol_of_spaces_is_refused_in_one_pass() {
    // That the pass is one is counted beside the parser.
    closes(&req(&format!("{{+Sec-WebSocket-Protocol: b{}x}}", " ".repeat(8000))), 400);
    closes(&req(&format!("{{+Sec-WebSocket-Protocol: b{}x}}", " ".repeat(32000))), 431);
}

/// W15
#[test]
fn rfc6455_4_1_subprotocols_are_tokens_and_unique() {
    let many: Vec<_> = (0..1000).map(|index| format!("p{index}")).collect();
    for value in [
        "a,a",
        "a, b, a",
        "a,,b",
        "a,",
        ",a",
        "",
        " ",
        "a b",
        "a;b",
        "a/b",
        "\"a\"",
        "a\u{e9}",
        "a=b",
        &many.join(","),
    ] {
        closes(&req(&format!("{{+Sec-WebSocket-Protocol: {value}}}")), 400);
    }
    closes(&req("{+Sec-WebSocket-Protocol: a}{+Sec-WebSocket-Protocol: a}"), 400);
    // Two lines are one list; case tells protocols apart; none chosen is no error.
    let verdict = serve(&req("{+Sec-WebSocket-Protocol: a, A}{+sec-websocket-protocol: chat}"));
    assert!(verdict.has_field("Sec-WebSocket-Protocol: chat"));
    assert!(!answer(&serve(&req("{+Sec-WebSocket-Protocol: a}"))).contains("Sec-WebSocket-Protocol"));
}

fn answer(verdict: &Verdict) -> &str {
    match verdict {
        Verdict::Switched { answer, .. } => answer,
        other => panic!("{other:?}"),
    }
}

/// W17, W25, D01, D03
#[test]
fn extensions_that_are_unknown_or_wrong_are_not_used() {
    let mut offers: Vec<String> = [
        "constructor",
        "__proto__",
        ",;constructor",
        "deflate-frame",
        "x-webkit-deflate-frame",
        "",
        ";",
        "\"",
        "a=\"",
    ]
    .map(str::to_owned)
    .to_vec();
    for value in ["7", "16", "08", "\"\"", "", "-1", "9x"] {
        offers.push(format!("permessage-deflate; client_max_window_bits={value}"));
    }
    offers.push("permessage-deflate; client_no_context_takeover; client_no_context_takeover".to_owned());
    offers.push("permessage-deflate; unknown".to_owned());
    offers.push("permessage-deflate; client_no_context_takeover=1".to_owned());
    for offer in offers {
        let verdict = serve(&req(&format!("{{+Sec-WebSocket-Extensions: {offer}}}")));
        assert_eq!(verdict.status(), 101, "{offer}");
        assert!(!answer(&verdict).contains("Extensions"), "{offer}");
    }
    closes(&req("{+Sec-WebSocket-Extensions: permessage-deflate; x=\"\u{e9}\"}"), 400);
}

/// D03, D04, D05
#[test]
fn rfc7692_5_the_first_acceptable_offer_is_answered_once() {
    for offers in [
        "permessage-deflate; unknown, permessage-deflate".to_owned(),
        "permessage-deflate, ".repeat(50),
        "permessage-deflate}{+Sec-WebSocket-Extensions: permessage-deflate".to_owned(),
    ] {
        let verdict = serve(&req(&format!("{{+Sec-WebSocket-Extensions: {offers}}}")));
        assert_eq!(answer(&verdict).matches("permessage-deflate").count(), 1, "{offers}");
    }
}

/// W18
#[test]
fn a_route_that_is_not_there_closes_with_404() {
    assert_eq!((Refusal::NOT_FOUND.status, Refusal::NOT_FOUND.close), (404, true));
    assert!(contains(&Refusal::NOT_FOUND.response(false), "HTTP/1.1 404 Not Found\r\n"));
}

/// W23
#[test]
fn rfc9112_3_2_2_the_absolute_form_is_accepted_and_its_authority_wins() {
    match serve(&req("{line=GET ws://other.test:81/ws?a HTTP/1.1}")) {
        Verdict::Switched { path, host, .. } => {
            assert_eq!((&path[..], &host[..]), ("/ws?a", "other.test:81"));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(status("{line=GET http://gw.test/ws HTTP/1.1}"), 101);
    closes(&req("{line=GET wss://gw.test/ws HTTP/1.1}"), 400);
    assert_eq!(route([&req("{line=GET wss://gw.test/ws HTTP/1.1}")[..]], true).status(), 101);
    assert_eq!(route([&req("{line=GET ws://gw.test/ws HTTP/1.1}")[..]], true).status(), 400);

    // What an upstream sees: origin form and one Host.
    let head = req("{line=GET ws://other.test:81/ws?a HTTP/1.1}{+Cookie: a=b}");
    let request = Request::parse(&head, &HeadLimits::default(), false).unwrap();
    let mut forwarded = Vec::new();
    let fields = forwarded_fields(&request.fields);
    client_request(&mut forwarded, &request.target.to_string(), request.host, &KEY, &[], Offer::None, fields);
    let text = String::from_utf8(forwarded).unwrap();
    assert!(text.starts_with("GET /ws?a HTTP/1.1\r\nHost: other.test:81\r\n"), "{text}");
    assert_eq!(text.to_ascii_lowercase().matches("\r\nhost:").count(), 1);
    assert!(text.contains("\r\nCookie: a=b\r\n"));
    assert_eq!(serve(text.as_bytes()).status(), 101);
}
