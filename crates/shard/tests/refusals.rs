//! Answers to requests that do not become sessions, in a shard that a test plays by hand.

mod stage;

use stage::{Socket, Stage};

const ROUTES: &str = "[limits]\nhead_timeout = \"2s\"\n[[topic]]\nname = \"**\"\n\
    [[route]]\npath = \"/events\"\nevents = { subscribe = [\"**\"] }\n\
    [[route]]\npath = \"/r\"\nproxy = { upstreams = [\"ws://127.0.0.1:9\"] }\n";

/// What a client has been answered: the head, and what is behind it.
fn answered(stage: &Stage, client: Socket) -> (String, String) {
    let answer = String::from_utf8(stage.sent(client)).expect("text");
    let (head, content) =
        answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no whole head: {answer:?}"));
    (head.to_owned(), content.to_owned())
}

/// RFC 9110 §9.3.2, whatever keeps a request from being read.
#[test]
fn rfc9110_9_3_2_an_answer_to_head_has_no_content() {
    let long = "x".repeat(9_000);
    for front in ["", "\r\n"] {
        for (rest, status) in [
            (" /nowhere HTTP/1.1\r\nHost: gw.test\r\n\r\n".to_owned(), "404"),
            (" /r HTTP/1.1\r\n\r\n".to_owned(), "400"),
            (format!(" /{long}"), "414"),
            (format!(" / HTTP/1.1\r\nHost: gw.test\r\nX: {long}{long}"), "431"),
            (" / HTTP/1.1\r\nHost: gw".to_owned(), "408"),
        ] {
            // GET shows that there would have been some.
            for (method, has_content) in [("GET", true), ("HEAD", false)] {
                let mut stage = Stage::of(ROUTES, 1);
                let client = stage.accept();
                let request = format!("{front}{method}{rest}");
                let (first, second) = request.as_bytes().split_at(front.len() + 6);
                stage.send(client, first);
                stage.send(client, second);
                stage.pass(3);
                let (head, content) = answered(&stage, client);
                assert_eq!(head.get(9..12), Some(status), "{method} {head}");
                assert_eq!(!content.is_empty(), has_content, "{front:?} {method} {head} {content}");
            }
        }
    }
}

/// Nor has the one that the gateway gives of itself, before a head has come whole: as it ends, and as its memory is used up.
#[test]
fn rfc9110_9_3_2_an_answer_to_half_a_head_has_no_content_for_head() {
    let limits = "[limits]\nmemory = \"1MiB\"\nhead_bytes = \"64KiB\"\n";
    let memory = ROUTES.replace("[limits]\n", limits) + "[topics]\nmemory = \"1MiB\"\n";
    for (method, has_content) in [("GET", true), ("HEAD", false)] {
        let half = format!("{method} /r HTTP/1.1\r\nHost: gw");
        let mut stage = Stage::of(ROUTES, 1);
        let client = stage.accept();
        stage.send(client, half.as_bytes());
        stage.drain();
        let (head, content) = answered(&stage, client);
        assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
        assert_eq!(!content.is_empty(), has_content, "{method} {head} {content}");

        let mut stage = Stage::of(&memory, 1);
        let long = format!("{half}\r\nX-Long: {}", "x".repeat(32 << 10));
        let clients: Vec<Socket> = (0..60)
            .map(|_| {
                stage.world.borrow_mut().now_ms += 1;
                let client = stage.accept();
                long.as_bytes().chunks(8 << 10).for_each(|part| stage.send(client, part));
                client
            })
            .collect();
        // The first has held it longest.
        let (head, content) = answered(&stage, clients[0]);
        assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
        assert_eq!(!content.is_empty(), has_content, "{method} {head} {content}");
    }
}

/// An upstream's 204 has no content (RFC 9110 §15.3.5), and what it sends as such is nobody's.
#[test]
fn rfc9110_8_6_no_length_comes_with_an_upstreams_204() {
    for behind in ["", "abcde"] {
        let mut stage = Stage::of(ROUTES, 1);
        let client = stage.client("");
        let upstream = client + 1;
        stage.connect(upstream);
        let answer = format!("HTTP/1.1 204 No\r\nContent-Length: 5\r\nX-A: 1\r\n\r\n{behind}");
        stage.send(upstream, answer.as_bytes());
        let (head, content) = answered(&stage, client);
        assert!(head.starts_with("HTTP/1.1 204 No\r\n") && head.contains("\r\nX-A: 1"), "{head}");
        assert!(!head.to_ascii_lowercase().contains("content-length"), "{head}");
        assert_eq!(content, "");
        assert!(stage.down(upstream).is_some(), "nothing more of it is read");
    }
}

/// RFC 9110 §15.5.2, §15.4: what a refusal asks of its client stands in its fields, and these come through whatever becomes of its
/// body. What they say of the body does not.
#[test]
fn rfc9110_15_5_2_a_refusal_whose_body_is_left_out_keeps_its_fields() {
    let long = "x".repeat(70_000);
    for (framing, body) in [
        ("Transfer-Encoding: chunked\r\nTrailer: X-T\r\n", "5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n"),
        ("Content-Length: 70000\r\n", &long[..]),
        ("", &long[..]),
    ] {
        let mut stage = Stage::of(ROUTES, 1);
        let client = stage.client("");
        let upstream = client + 1;
        stage.connect(upstream);
        let answer = format!(
            "HTTP/1.1 401 Who Are You\r\nWWW-Authenticate: Bearer\r\nRetry-After: 7\r\nContent-Type: text/html\r\n\
             Content-Encoding: gzip\r\nETag: \"a\"\r\nCache-Control: max-age=600\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\
             {framing}\r\n{body}"
        );
        for part in answer.as_bytes().chunks(10_000) {
            if stage.socket(upstream, |kernel| kernel.receive.is_some()) {
                stage.send(upstream, part);
            }
        }
        let (head, content) = answered(&stage, client);
        let mut fields: Vec<&str> = head.split("\r\n").filter(|line| !line.starts_with("Date: ")).collect();
        fields[1..].sort_unstable();
        let expected = [
            "HTTP/1.1 401 Who Are You",
            "Cache-Control: no-store",
            "Connection: close",
            "Content-Length: 0",
            "Retry-After: 7",
            "WWW-Authenticate: Bearer",
        ];
        assert_eq!((&fields[..], &content[..]), (&expected[..], ""), "{framing}");
    }
}

/// An id that does not fit is not an error, whatever it is: a browser would never come back from one.
#[test]
fn an_id_of_another_server_is_one_that_does_not_fit() {
    for (fields, expected) in [
        (&b"Last-Event-ID: other\r\n"[..], "HTTP/1.1 200 "),
        (b"Last-Event-ID: \xc3\xa9\r\n", "HTTP/1.1 200 "),
        (b"Last-Event-ID: \xff\r\n", "HTTP/1.1 200 "),
        (b"Last-Event-ID: \xff\r\nLast-Event-ID: a\r\n", "HTTP/1.1 400 "),
    ] {
        let mut stage = Stage::of(ROUTES, 1);
        let client = stage.accept();
        let request = [b"GET /events?topic=a HTTP/1.1\r\nHost: gw.test\r\n", fields, b"\r\n"].concat();
        stage.send(client, &request);
        stage.turns(3);
        let (head, content) = answered(&stage, client);
        assert!(head.starts_with(expected), "{fields:?}: {head}");
        assert_eq!(content.contains("\"recovered\":false"), expected.contains("200"), "{content}");
    }
}
