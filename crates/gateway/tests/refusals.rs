//! Requests to topics over HTTP that are refused: what they are told, whoever asks, and that they get to hear it.

mod harness;

use std::time::Duration;

use serde_json::json;

use crate::harness::{
    PATIENCE,
    client::{Client, End},
    eventually, everywhere,
    request::{AS_JSON, ask, body, get, post},
};

const CONFIG: &str = r#"
version = 1
[[listener]]
bind = "127.0.0.1:0"
[[route]]
path = "/topics/*"
topics = { subscribe = ["**"], publish = ["**"], presence = ["**"] }
[[route]]
path = "/events"
origins = ["https://page.example"]
events = { subscribe = ["live/**"] }
limits = { max_sessions = 1 }
[[route]]
path = "/poll"
poll = { subscribe = ["live/**"] }
[[route]]
path = "/publish/*"
publish = { publish = ["live/**"], body_bytes = "256KiB" }
[[route]]
path = "/large/*"
publish = { publish = ["live/**"] }
[[route]]
path = "/keyed/*"
[route.publish]
publish = ["live/**"]
keys = [{ name = "one", key = "0123456789abcdef", publish = ["live/1"] }]
"#;

const PAGE: &str = "Origin: https://page.example\r\n";

#[test]
fn refusals_are_json_that_allowed_pages_may_read() {
    everywhere(CONFIG, |gateway| {
        let origin = PAGE;
        let declared =
            |path: &str| format!("POST {path} HTTP/1.1\r\nHost: gw.test\r\n{origin}\r\n").into_bytes();
        let with_body = |path: &str| {
            format!("GET {path} HTTP/1.1\r\nHost: gw.test\r\n{origin}Content-Length: 1\r\n\r\nx").into_bytes()
        };
        for (request, status, code) in [
            (get("/events", origin), 400, "invalid_request"),
            (with_body("/events?topic=live/a"), 400, "invalid_request"),
            (post("/events?topic=live/a", origin, b""), 405, "invalid_request"),
            (with_body("/poll?topic=live/a"), 400, "invalid_request"),
            (post("/poll?topic=live/a", origin, b""), 405, "invalid_request"),
            (get("/poll?topic=live/a", &format!("{origin}Origin: null\r\n")), 400, "invalid_request"),
            (with_body("/topics/live/a"), 400, "invalid_request"),
            (post("/topics/live/a", origin, b""), 405, "invalid_request"),
            (get("/publish/live/a", origin), 405, "invalid_request"),
            (declared("/publish/live/a"), 411, "invalid_request"),
            (post("/publish/live/a", origin, &[7; (256 << 10) + 1]), 413, "too_large"),
            (post("/keyed", &format!("{AS_JSON}{origin}"), b"{}"), 401, "not_allowed"),
        ] {
            let shown = String::from_utf8_lossy(&request[..request.len().min(120)]).into_owned();
            let response = ask(gateway, &request);
            assert_eq!(response.status, status, "{shown}: {}", response.head);
            assert_eq!(response.field("content-type"), Some("application/json"), "{shown}");
            let told = body(&response);
            assert_eq!(told["error"]["code"], code, "{shown}: {told}");
            assert!(told["error"]["message"].as_str().is_some_and(|text| !text.is_empty()), "{told}");
            // Of two origins neither is one.
            let readable = (!shown.contains("null")).then_some("https://page.example");
            assert_eq!(response.field("access-control-allow-origin"), readable, "{shown}");
            assert_eq!(response.field("allow").is_some(), status == 405, "{shown}");
            assert_eq!(response.field("www-authenticate").is_some(), status == 401, "{shown}");
        }
        let foreign = ask(gateway, &get("/events?topic=live/a", "Origin: https://evil.example\r\n"));
        assert_eq!((foreign.status, &body(&foreign)["error"]["code"]), (403, &json!("not_allowed")));
        assert_eq!(foreign.field("access-control-allow-origin"), None);
    });
}

/// Whatever the answer of a topic's path is, a page hears it from a route that is full as well.
#[test]
fn a_route_that_is_full_says_so_in_the_topics_terms() {
    everywhere(CONFIG, |gateway| {
        let mut first = Client::connect(gateway.address());
        first.send(&get("/events?topic=live/a", PAGE));
        assert_eq!(first.response().expect("a stream").status, 200);
        let response = ask(gateway, &get("/events?topic=live/a", PAGE));
        assert_eq!((response.status, response.field("retry-after")), (503, Some("5")), "{}", response.head);
        assert_eq!(body(&response)["error"]["code"], "busy");
        assert_eq!(response.field("access-control-allow-origin"), Some("https://page.example"));
        assert_eq!(response.field("connection"), Some("close"), "its slot was only lent");
        drop(first);
        eventually("its place", || {
            let response = ask(gateway, &get("/events?topic=secret", ""));
            (response.status == 403).then_some(())
        });
    });
}

/// RFC 9112 §9.6: who writes all of its request before it reads has its answer, and no reset instead.
#[test]
fn rfc9112_9_6_a_body_that_is_a_little_too_long_has_its_answer() {
    // More than the default of `body_bytes`, and with its head more than that of `linger_bytes` behind it.
    let mut body_of = vec![b'x'; (1 << 20) + (64 << 10)];
    body_of[0] = b'{';
    let too_long = post("/large/live/1", AS_JSON, &body_of);
    let unknown = post("/keyed", AS_JSON, &body_of[..1 << 20]);
    everywhere(CONFIG, |gateway| {
        for (request, status, code) in [(&too_long, 413, "too_large"), (&unknown, 401, "not_allowed")] {
            for pause in [None, Some(Duration::from_millis(1))] {
                let mut client = Client::connect(gateway.address());
                // All at once, or so that the gateway sees every part for itself.
                for part in request.chunks(if pause.is_some() { 16 << 10 } else { request.len() }) {
                    client.send(part);
                    std::thread::sleep(pause.unwrap_or_default());
                }
                let response = client.response().expect("the answer, and no reset");
                assert_eq!((response.status, &body(&response)["error"]["code"]), (status, &json!(code)));
                assert_eq!(client.end_within(PATIENCE), Some(End::Fin), "and the end");
            }
        }
    });
}

/// What is read behind an answer has a bound all the same.
#[test]
fn who_never_ends_its_body_is_cut_off() {
    everywhere(CONFIG, |gateway| {
        let mut client = Client::connect(gateway.address());
        client.send(b"POST /large/live/1 HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 99999999\r\n\r\n");
        let part = [b'x'; 64 << 10];
        let sent = (0..1_000).take_while(|_| client.try_send(&part).is_ok()).count();
        assert!(sent < 500, "{sent} parts of 64 KiB were taken");
    });
}
